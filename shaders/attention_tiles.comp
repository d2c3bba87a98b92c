// Attention for any GPU: WORKERS = TX * TY invocations do BQ = TY * TQ queries of one head, and a work group PACK such
// blocks (small windows). Keys and values come by BK = TX * TK at a time through shared memory, the next ones while these
// are computed with. An invocation has TQ queries: scores with TK keys, then sums of TE times four channels, kept with
// the largest score so far (online softmax), which the TX invocations of a row find together: by shuffles with SHUFFLE
// (TX divides the subgroup), else through shared memory.
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

#ifndef TX
#define TX 8
#endif
#ifndef TY
#define TY 16
#endif
#ifndef TQ
#define TQ 2
#endif
#ifndef TK
#define TK 4
#endif
#ifndef PACK
#define PACK 1
#endif
#ifndef HEAD
#define HEAD 64
#endif
#include "attention.glsl"
#define WORKERS (TX * TY)
#include "attention_rows.glsl"
#ifdef SHUFFLE
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif

const uint BQ = TY * TQ, BK = TX * TK;
#define TE ((HEAD4 + TX - 1) / TX)
#define STEPP (TX * TK / 4 | 1)

layout(local_size_x = TX * TY * PACK) in;
shared vec4 q_tile[PACK * BQ * STEP4];
shared vec4 k_tile[PACK * BK * STEP4];
shared vec4 v_tile[PACK * BK * STEP4];
shared vec4 weights[PACK * BQ * STEPP];
#include "attention_across.glsl"

void main()
{
    if (GROUP_INDEX * PACK >= p.groups) return; // the last row of groups is not full
    uint me = INVOCATION, pack = me / WORKERS, worker = me % WORKERS, ty = worker / TX, tx = worker % TX;
    Place at = place_of(min(GROUP_INDEX * PACK + pack, p.groups - 1u), BQ);
    uint q_base = base_of(OF_Q, at), k_base = base_of(OF_K, at), v_base = base_of(OF_V, at);
    uint q_step = row_step(OF_Q), k_step = row_step(OF_K), v_step = row_step(OF_V);
    uint q_at = pack * BQ * STEP4, k_at = pack * BK * STEP4, w_at = pack * BQ * STEPP;

    const float to_exp2 = 1.44269504;
    for (uint t = worker; t < BQ * HEAD4; t += WORKERS) {
        uint r = t / HEAD4, d = t % HEAD4, query = min(at.first + r, p.queries - 1u);
        q_tile[q_at + r * STEP4 + d] = ROW4(q, q_base + query * q_step, d) * (p.scale * to_exp2);
    }
    COMING(coming, (TX * TK))
    FETCH(coming, (TX * TK), k, k_base, k_step, 0u, p.keys)
    KEEP(coming, (TX * TK), k_tile, k_at, k, k_base, k_step, 0u, p.keys)
    float largest[TQ], total[TQ];
    vec4 sum[TQ][TE];
    [[unroll]] for (uint i = 0; i < TQ; i++) {
        largest[i] = LOW;
        total[i] = 0.0; // of this invocation's keys
        [[unroll]] for (uint e = 0; e < TE; e++) sum[i][e] = vec4(0.0);
    }
    barrier();

    for (uint first = 0u; first < p.keys; first += BK) {
        FETCH(coming, (TX * TK), v, v_base, v_step, first, p.keys)
        float score[TQ][TK];
        [[unroll]] for (uint i = 0; i < TQ; i++)
            [[unroll]] for (uint n = 0; n < TK; n++) score[i][n] = 0.0;
        [[dont_unroll]] for (uint d = 0u; d < HEAD4; d++) { // unrolled, loads of all rounds take registers
            vec4 kk[TK];
            [[unroll]] for (uint n = 0; n < TK; n++) kk[n] = k_tile[k_at + (tx + n * TX) * STEP4 + d];
            [[unroll]] for (uint i = 0; i < TQ; i++) {
                vec4 qq = q_tile[q_at + (ty + i * TY) * STEP4 + d];
                [[unroll]] for (uint n = 0; n < TK; n++) ADD_PRODUCT(score[i][n], qq, kk[n])
            }
        }
        [[unroll]] for (uint n = 0; n < TK; n++) {
            uint key = first + tx + n * TX;
            bool visible = key < p.keys && shown(at.outer, min(key, p.keys - 1u));
            [[unroll]] for (uint i = 0; i < TQ; i++) score[i][n] = visible ? score[i][n] : LOW;
        }
        float new_largest[TQ];
        [[unroll]] for (uint i = 0; i < TQ; i++) {
            new_largest[i] = largest[i];
            [[unroll]] for (uint n = 0; n < TK; n++) new_largest[i] = max(new_largest[i], score[i][n]);
        }
        LARGEST_OF_ROW(new_largest)
        [[unroll]] for (uint i = 0; i < TQ; i++) {
            float shrink = exp2(largest[i] - new_largest[i]);
            largest[i] = new_largest[i];
            total[i] *= shrink;
            [[unroll]] for (uint e = 0; e < TE; e++) sum[i][e] *= shrink;
            [[unroll]] for (uint n = 0; n < TK; n++) {
                float weight = score[i][n] > LOW ? exp2(score[i][n] - largest[i]) : 0.0;
                uint j = tx + n * TX;
                total[i] += weight;
                weights[w_at + (ty + i * TY) * STEPP + j / 4u][j % 4u] = weight;
            }
        }
        KEEP(coming, (TX * TK), v_tile, k_at, v, v_base, v_step, first, p.keys)
        barrier();
        if (first + BK < p.keys) FETCH(coming, (TX * TK), k, k_base, k_step, first + BK, p.keys)
        [[dont_unroll]] for (uint j = 0u; j < BK / 4u; j++) ADD_SUMS(sum, weights, v_tile, w_at, k_at)
        KEEP(coming, (TX * TK), k_tile, k_at, k, k_base, k_step, first + BK, p.keys)
        barrier();
    }

    SUM_OF_ROW(total)
    if (GROUP_INDEX * PACK + pack >= p.groups) return;
    uint y_base = base_of(OF_OUT, at), y_step = row_step(OF_OUT);
    [[unroll]] for (uint i = 0; i < TQ; i++) {
        uint query = at.first + ty + i * TY;
        float scale = total[i] > 0.0 ? 1.0 / total[i] : 0.0;
        if (query >= p.queries) continue;
        [[unroll]] for (uint e = 0; e < TE; e++) {
            uint d = tx + e * TX;
            if (d < HEAD4) PUT_ROW4(y, y_base + query * y_step, d, sum[i][e] * scale)
        }
    }
}
