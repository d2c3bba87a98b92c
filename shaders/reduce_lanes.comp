// One stage of a reduction of x [outer, axis, inner] along the axis, for CPU drivers: y [outer, parts, inner], where part
// k takes the positions [k part_length, (k + 1) part_length). One subgroup of SG lanes does a part: V columns to a lane,
// or, with ROWS, where inner is 1, V values to a lane at a time. SELECT: for drivers that find uniform loads by
// themselves (lanes.glsl); else loads are wide (wide.glsl). SQUARES sums squares; MAXIMUM keeps the largest.
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_ballot : require

#ifndef SG
#define SG 8
#endif
#ifdef SELECT
#define V 4
#define VALUE_OF(i) ((i) * SG + lane)
#define LANE_OFFSET 0ul
#else
#define V 8
#define VALUE_OF(i) (lane * V + (i))
#define LANE_OFFSET (32ul * lane)
#endif
#define BUFFERS(B) B(0, Float, x) B(1, Float, y)
#define SCALARS uint axis, inner, parts, part_length, blocks, groups; float scale;
#include "terrane.glsl"
#include "lanes.glsl"
#include "wide.glsl"

layout(local_size_x = SG) in;
layout(buffer_reference, std430, buffer_reference_align = 4) buffer LanesRef { float at[SG * V]; };

#ifdef SELECT
#define LOAD_VALUES(v, address) [[unroll]] for (int j_ = 0; j_ < V; j_++) LOAD_LANES(v[j_], LanesRef(address), j_ * SG)
#else
#define LOAD_VALUES(v, address) LOAD8(address, v, 0)
#endif
#ifdef MAXIMUM // a value that is no number stays
#define START uintBitsToFloat(0xff800000u)
#define TAKE(total, value) total = value > total || isnan(value) ? value : total;
#elif defined SQUARES
#define START 0.0
#define TAKE(total, value) total += value * value;
#else
#define START 0.0
#define TAKE(total, value) total += value;
#endif
#define ROUND 4 // rows, or pieces of one, per round of the loop

void main()
{
    uint lane = gl_SubgroupInvocationID;
    SELECT_LANES
    bool extra = GROUP_INDEX >= p.groups; // no return: uniform loads are done with all lanes off, too
    uint group = extra ? 0u : GROUP_INDEX;
    uint block = group % p.blocks;
    group /= p.blocks; // outer * parts + part
    uint first = group % p.parts * p.part_length, count = min(p.part_length, p.axis - first);
    uint64_t from = uint64_t(p.x) + 4ul * ((group / p.parts * p.axis + first) * p.inner + block * (SG * V)) + LANE_OFFSET;
#ifdef ROWS
    uint step = SG * V, pieces = (count + step - 1u) / step;
#else
    uint step = p.inner, pieces = count;
#endif
    float total[V];
    [[unroll]] for (int j = 0; j < V; j++) total[j] = START;
    uint rounds = (pieces + ROUND - 1u) / ROUND;
    uint r = 0u;
    do { // with the test first the body would run once more, with all lanes off
        [[unroll]] for (uint i = 0u; i < ROUND; i++) {
            uint piece = min(r * ROUND + i, pieces - 1u);
            float v[V];
            LOAD_VALUES(v, from + 4ul * (piece * step))
            [[unroll]] for (int j = 0; j < V; j++) {
#ifdef ROWS
                bool counts = r * ROUND + i < pieces && piece * step + VALUE_OF(j) < count;
#else
                bool counts = r * ROUND + i < pieces;
#endif
                float value = counts ? v[j] : START;
                TAKE(total[j], value)
            }
        }
    } while (++r < rounds);
#ifdef ROWS
    [[unroll]] for (int j = 1; j < V; j++) {
#ifdef MAXIMUM
        TAKE(total[0], total[j])
#else
        total[0] += total[j];
#endif
    }
    float all[SG];
    [[unroll]] for (int i = 0; i < SG; i++) all[i] = subgroupBroadcast(total[0], uint(i));
    [[unroll]] for (int i = 1; i < SG; i++) {
#ifdef MAXIMUM
        TAKE(all[0], all[i])
#else
        all[0] += all[i];
#endif
    }
    if (lane == 0u && !extra) AT(y, group) = all[0] * p.scale;
#else
    [[unroll]] for (int j = 0; j < V; j++) {
        uint column = block * (SG * V) + VALUE_OF(j);
        if (column < p.inner && !extra) AT(y, group * p.inner + column) = total[j] * p.scale;
    }
#endif
}
