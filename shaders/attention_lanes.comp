// Attention for CPU drivers: a subgroup of SG lanes does TM queries of one head. Scores of SG * TN keys at a time, a key to
// a lane; then their values, E neighbouring channels to a lane. Sums are kept with the largest score so far (online
// softmax). As in matmul_lanes.comp all loads are wide and what one lane has goes round by shuffles.
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require

#ifndef SG
#define SG 8
#endif
#ifndef TM
#define TM 8 // queries, a multiple of SG
#endif
#ifndef TN
#define TN 1 // times SG keys at a time
#endif
#ifndef HEAD
#define HEAD 64
#endif
#define E ((HEAD + 4 * SG - 1) / (4 * SG) * 4)
#define CHUNKS ((HEAD + 7) / 8)
#include "attention.glsl"
#ifdef TRN_TEXELS // all rows begin with one
layout(set = 0, binding = 0) uniform samplerBuffer q_texels;
layout(set = 0, binding = 1) uniform samplerBuffer k_texels;
layout(set = 0, binding = 2) uniform samplerBuffer v_texels;
#endif
#include "wide.glsl"

layout(local_size_x = SG) in;

// Written out: old drivers do not unroll loops whose counter is not linear, nor those around them.
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
    POSITION q_at[TM / SG];
    uint q_base = base_of(OF_Q, at);
    [[unroll]] for (int r = 0; r < TM / SG; r++) {
        uint query = min(at.first + r * SG + lane, p.queries - 1u);
        q_at[r] = FIRST(q, q_base + query * row_step(OF_Q));
    }
    POSITION k_base = FIRST(k, base_of(OF_K, at)), v_base = FIRST(v, base_of(OF_V, at) + lane * E);
    uint k_step = row_step(OF_K), v_step = row_step(OF_V);

    float largest[TM], total[TM], sum[TM][E];
    [[unroll]] for (int i = 0; i < TM; i++) {
        largest[i] = LOW;
        total[i] = 0.0;
        [[unroll]] for (int e = 0; e < E; e++) sum[i][e] = 0.0;
    }

    for (uint first = 0u; first < p.keys; first += SG * TN) {
        float score[TM][TN];
        bool visible[TN];
        POSITION k_at[TN];
        [[unroll]] for (int n = 0; n < TN; n++) {
            uint key = first + n * SG + lane;
            visible[n] = key < p.keys && shown(at.outer, min(key, p.keys - 1u));
            k_at[n] = k_base + DISTANCE(min(key, p.keys - 1u) * k_step);
            [[unroll]] for (int i = 0; i < TM; i++) score[i][n] = 0.0;
        }
        for (uint c = 0u; c < CHUNKS; c++) {
            float kv[TN][8], qv[TM / SG][8];
            [[unroll]] for (int n = 0; n < TN; n++) LOAD8_FROM(k, k_at[n] + DISTANCE(8u * c), kv[n])
            [[unroll]] for (int r = 0; r < TM / SG; r++) LOAD8_FROM(q, q_at[r] + DISTANCE(8u * c), qv[r])
            [[unroll]] for (int d = 0; d < 8; d++) {
#if HEAD % 8 != 0 // what lies behind the head may be anything
                [[unroll]] for (int n = 0; n < TN; n++) kv[n][d] = 8u * c + d < HEAD ? kv[n][d] : 0.0;
                [[unroll]] for (int r = 0; r < TM / SG; r++) qv[r][d] = 8u * c + d < HEAD ? qv[r][d] : 0.0;
#endif
                [[unroll]] for (int i = 0; i < TM; i++) {
                    float value = subgroupShuffle(qv[i / SG][d], uint(i % SG));
                    [[unroll]] for (int n = 0; n < TN; n++) score[i][n] += value * kv[n][d];
                }
            }
        }
        [[unroll]] for (int i = 0; i < TM; i++) {
            float m = LOW;
            [[unroll]] for (int n = 0; n < TN; n++) {
                score[i][n] = visible[n] ? score[i][n] * p.scale : LOW;
                m = max(m, score[i][n]);
            }
            m = largest_of_lanes(m, lane);
            m = max(m, largest[i]);
            float shrink = exp(largest[i] - m);
            largest[i] = m;
            total[i] *= shrink;
            [[unroll]] for (int n = 0; n < TN; n++) {
                score[i][n] = visible[n] ? exp(score[i][n] - m) : 0.0;
                total[i] += score[i][n];
            }
            [[unroll]] for (int e = 0; e < E; e++) sum[i][e] *= shrink;
        }
        for (uint j = 0u; j < SG; j++) {
            [[unroll]] for (int n = 0; n < TN; n++) {
                POSITION v_at = v_base + DISTANCE(min(first + n * SG + j, p.keys - 1u) * v_step);
                float vv[E]; // all before the sums: loads of texels are calls, which leave no sums in registers
                [[unroll]] for (int e = 0; e < E; e += 4) LOAD4_FROM(v, v_at + DISTANCE(uint(e)), vv, e)
                [[unroll]] for (int i = 0; i < TM; i++) {
                    float weight = subgroupShuffle(score[i][n], j);
                    [[unroll]] for (int e = 0; e < E; e++) sum[i][e] += weight * vv[e];
                }
            }
        }
    }

    float result[TM * E];
    [[unroll]] for (int i = 0; i < TM; i++) {
        float all = total[i];
        all = sum_of_lanes(all, lane);
        float scale = all > 0.0 ? 1.0 / all : 0.0;
        [[unroll]] for (int e = 0; e < E; e++) result[i * E + e] = sum[i][e] * scale;
    }
    uint y_base = base_of(OF_OUT, at) + at.first * row_step(OF_OUT), y_step = row_step(OF_OUT);
    uint rows = min(p.queries - at.first, TM);
    for (uint t = 0u; t < rows * E; t++) {
        uint channel = lane * E + t % E;
        if (channel < HEAD) AT(y, y_base + t / E * y_step + channel) = result[t];
    }
}
