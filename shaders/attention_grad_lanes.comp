// Gradient of attention for CPU drivers, and the numbers it needs: MODE of attention.glsl. A subgroup of SG lanes has TM
// rows of one head (queries, or keys) and goes over the others SG at a time, one to a lane: scores again, and dy v^T, never
// stored. What comes of them is summed per row of its own, E neighbouring channels to a lane. Loads are wide, and what one
// lane has goes round by shuffles, as in attention_lanes.comp.
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require

#ifndef SG
#define SG 8
#endif
#ifndef TM
#define TM 8 // rows, a multiple of SG
#endif
#ifndef HEAD
#define HEAD 64
#endif
#ifndef MODE
#define MODE KEYS
#define DK
#define DV
#endif
#define E ((HEAD + 4 * SG - 1) / (4 * SG) * 4)
#define CHUNKS ((HEAD + 7) / 8)
#include "attention.glsl"
#include "wide.glsl"

layout(local_size_x = SG) in;

// Rows of a work group: a (q or k), and b (dy or v). The others: c (k or q), and d (v or dy).
#if MODE == KEYS
#define OWN p.keys
#define OTHERS p.queries
#define ROWS(what_a, what_b, what_c, what_d) what_a(k, OF_K) what_b(v, OF_V) what_c(q, OF_Q) what_d(dy, OF_OUT)
#else
#define OWN p.queries
#define OTHERS p.keys
#define ROWS(what_a, what_b, what_c, what_d) what_a(q, OF_Q) what_b(dy, OF_OUT) what_c(k, OF_K) what_d(v, OF_V)
#endif
#if MODE == QUERIES || defined(DK) // dy v^T is needed, for sums of c
#define SLOPES
#endif
#define ADDRESS(name, what) uint64_t(p.name) + 4ul * base_of(what, at)
#define A_BASE(name, what) uint64_t a_base = ADDRESS(name, what); uint a_step = row_step(what);
#define B_BASE(name, what) uint64_t b_base = ADDRESS(name, what); uint b_step = row_step(what);
#define C_BASE(name, what) uint64_t c_base = ADDRESS(name, what); uint c_step = row_step(what);
#define D_BASE(name, what) uint64_t d_base = ADDRESS(name, what); uint d_step = row_step(what);

#if HEAD % 8 != 0 // what lies behind the head may be anything
#define INSIDE(value, d) (8u * c + d < HEAD ? value : 0.0)
#else
#define INSIDE(value, d) value
#endif

float largest_of_lanes(float value, uint lane)
{
    value = max(value, subgroupShuffle(value, lane ^ 1u));
    value = max(value, subgroupShuffle(value, lane ^ 2u));
#if SG > 4
    value = max(value, subgroupShuffle(value, lane ^ 4u));
#endif
#if SG > 8
    value = max(value, subgroupShuffle(value, lane ^ 8u));
#endif
    return value;
}
float sum_of_lanes(float value, uint lane)
{
    value += subgroupShuffle(value, lane ^ 1u);
    value += subgroupShuffle(value, lane ^ 2u);
#if SG > 4
    value += subgroupShuffle(value, lane ^ 4u);
#endif
#if SG > 8
    value += subgroupShuffle(value, lane ^ 8u);
#endif
    return value;
}

void main()
{
    uint lane = gl_SubgroupInvocationID;
    if (GROUP_INDEX >= p.groups) return; // the last row of groups is not full
    Place at = place_of(GROUP_INDEX, TM);
    ROWS(A_BASE, B_BASE, C_BASE, D_BASE)
    uint stats = stats_of(at), kind = stats_step();
    uint64_t a_at[TM / SG], b_at[TM / SG];
    [[unroll]] for (int r = 0; r < TM / SG; r++) {
        uint row = min(at.first + r * SG + lane, OWN - 1u);
        a_at[r] = a_base + 4ul * (row * a_step);
        b_at[r] = b_base + 4ul * (row * b_step);
    }

#if MODE == STATS
    float largest[TM], total[TM];
    [[unroll]] for (int i = 0; i < TM; i++) {
        largest[i] = LOW; // of all lanes
        total[i] = 0.0;   // of this lane
    }
#else
    float first_sum[TM][E], second_sum[TM][E];
    [[unroll]] for (int i = 0; i < TM; i++) {
        [[unroll]] for (int e = 0; e < E; e++) {
            first_sum[i][e] = 0.0;
            second_sum[i][e] = 0.0;
        }
    }
#endif
#if MODE == QUERIES
    float largest[TM], inverse[TM], mean[TM];
    [[unroll]] for (int i = 0; i < TM; i++) {
        uint own = stats + min(at.first + i, OWN - 1u);
        largest[i] = AT(y, own);
        inverse[i] = AT(y, own + kind);
        mean[i] = AT(y, own + 2u * kind);
    }
#elif MODE == KEYS
    bool own_shown[TM];
    [[unroll]] for (int i = 0; i < TM; i++) own_shown[i] = shown(at.outer, min(at.first + i, OWN - 1u));
#endif

    for (uint first = 0u; first < OTHERS; first += SG) {
        uint other = min(first + lane, OTHERS - 1u);
        bool there = first + lane < OTHERS;
#if MODE != KEYS
        there = there && shown(at.outer, other);
#endif
        uint64_t c_at = c_base + 4ul * (other * c_step), d_at = d_base + 4ul * (other * d_step);
        float score[TM], slope[TM];
        [[unroll]] for (int i = 0; i < TM; i++) {
            score[i] = 0.0;
            slope[i] = 0.0;
        }
        for (uint c = 0u; c < CHUNKS; c++) {
            float av[TM / SG][8], cv[8];
            LOAD8(c_at + 32ul * c, cv, 0)
            [[unroll]] for (int r = 0; r < TM / SG; r++) LOAD8(a_at[r] + 32ul * c, av[r], 0)
            [[unroll]] for (int d = 0; d < 8; d++) {
                cv[d] = INSIDE(cv[d], d);
                [[unroll]] for (int r = 0; r < TM / SG; r++) av[r][d] = INSIDE(av[r][d], d);
                [[unroll]] for (int i = 0; i < TM; i++)
                    score[i] += subgroupShuffle(av[i / SG][d], uint(i % SG)) * cv[d];
            }
#ifdef SLOPES
            float bv[TM / SG][8], dv[8];
            LOAD8(d_at + 32ul * c, dv, 0)
            [[unroll]] for (int r = 0; r < TM / SG; r++) LOAD8(b_at[r] + 32ul * c, bv[r], 0)
            [[unroll]] for (int d = 0; d < 8; d++) {
                dv[d] = INSIDE(dv[d], d);
                [[unroll]] for (int r = 0; r < TM / SG; r++) bv[r][d] = INSIDE(bv[r][d], d);
                [[unroll]] for (int i = 0; i < TM; i++)
                    slope[i] += subgroupShuffle(bv[i / SG][d], uint(i % SG)) * dv[d];
            }
#endif
        }
#if MODE == STATS
        [[unroll]] for (int i = 0; i < TM; i++) {
            float value = there ? score[i] * p.scale : LOW, m = largest_of_lanes(value, lane);
            m = max(m, largest[i]);
            total[i] = total[i] * exp(largest[i] - m) + (there ? exp(value - m) : 0.0);
            largest[i] = m;
        }
#else
        // score becomes the weight, slope the gradient of the score
#if MODE == KEYS
        float their_largest = AT(y, stats + other), their_inverse = AT(y, stats + other + kind);
        float their_mean = AT(y, stats + other + 2u * kind);
#endif
        [[unroll]] for (int i = 0; i < TM; i++) {
#if MODE == KEYS
            bool seen = there && own_shown[i];
            score[i] = seen ? exp(score[i] * p.scale - their_largest) * their_inverse : 0.0;
            slope[i] = seen ? score[i] * (slope[i] - their_mean) : 0.0;
#else
            score[i] = there ? exp(score[i] * p.scale - largest[i]) * inverse[i] : 0.0;
            slope[i] = there ? score[i] * (slope[i] - mean[i]) : 0.0;
#endif
        }
        for (uint j = 0u; j < SG; j++) {
            uint row = min(first + j, OTHERS - 1u);
#ifdef SLOPES
            uint64_t c_row = c_base + 4ul * (row * c_step + lane * E);
            float cc[E];
            [[unroll]] for (int e = 0; e + 8 <= E; e += 8) LOAD8(c_row + 4ul * e, cc, e)
#if E % 8 != 0
            LOAD4(c_row + 4ul * (E - 4), cc, E - 4)
#endif
            [[unroll]] for (int i = 0; i < TM; i++) {
                float value = subgroupShuffle(slope[i], j);
                [[unroll]] for (int e = 0; e < E; e++) first_sum[i][e] += value * cc[e];
            }
#endif
#ifdef DV
            uint64_t d_row = d_base + 4ul * (row * d_step + lane * E);
            float dd[E];
            [[unroll]] for (int e = 0; e + 8 <= E; e += 8) LOAD8(d_row + 4ul * e, dd, e)
#if E % 8 != 0
            LOAD4(d_row + 4ul * (E - 4), dd, E - 4)
#endif
            [[unroll]] for (int i = 0; i < TM; i++) {
                float value = subgroupShuffle(score[i], j);
                [[unroll]] for (int e = 0; e < E; e++) second_sum[i][e] += value * dd[e];
            }
#endif
        }
#endif
    }

    uint rows = min(OWN - at.first, TM);
#if MODE == STATS
    float values[3 * TM];
    [[unroll]] for (int i = 0; i < TM; i++) {
        float all = sum_of_lanes(total[i], lane);
        values[i] = all > 0.0 ? largest[i] : 0.0;
        values[TM + i] = all > 0.0 ? 1.0 / all : 0.0;
        uint row = min(at.first + i, OWN - 1u), step = row_step(OF_OUT), start = base_of(OF_OUT, at) + row * step;
        float sum = 0.0;
        for (uint d = lane; d < HEAD; d += SG) sum += AT(dy, start + d) * AT(y, start + d);
        values[2 * TM + i] = sum_of_lanes(sum, lane);
    }
    for (uint t = lane; t < rows; t += SG) {
        AT(result, stats + at.first + t) = values[t];
        AT(result, stats + at.first + t + kind) = values[TM + t];
        AT(result, stats + at.first + t + 2u * kind) = values[2 * TM + t];
    }
#else
    float values[TM * E];
#ifdef SLOPES
    {
        const uint what = MODE == KEYS ? OF_DK : OF_DQ;
        uint base = base_of(what, at) + at.first * row_step(what), step = row_step(what);
        [[unroll]] for (int i = 0; i < TM; i++) {
            [[unroll]] for (int e = 0; e < E; e++) values[i * E + e] = first_sum[i][e] * p.scale;
        }
        for (uint t = 0u; t < rows * E; t++) {
            uint channel = lane * E + t % E;
            if (channel < HEAD) AT(result, base + t / E * step + channel) = values[t];
        }
    }
#endif
#ifdef DV
    {
        uint base = base_of(OF_DV, at) + at.first * row_step(OF_DV), step = row_step(OF_DV);
        [[unroll]] for (int i = 0; i < TM; i++) {
            [[unroll]] for (int e = 0; e < E; e++) values[i * E + e] = second_sum[i][e];
        }
        for (uint t = 0u; t < rows * E; t++) {
            uint channel = lane * E + t % E;
            if (channel < HEAD) AT(result, base + t / E * step + channel) = values[t];
        }
    }
#endif
#endif
}
