// Gradient of attention for any GPU, and the numbers it needs: MODE of attention.glsl. WORKERS = TX * TY invocations have
// BQ = TY * TQ rows of one head (queries, or keys), and a work group PACK such blocks. They go over the others by BK = TX *
// TK at a time through shared memory, the next ones on their way while sums are made. An invocation has TQ rows: scores
// with TK others again, and dy v^T, never stored; then sums of TE times four channels.
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

#ifndef TX
#define TX 8
#endif
#ifndef TY
#define TY 8
#endif
#ifndef TQ
#define TQ 2
#endif
#ifndef TK
#define TK 2
#endif
#ifndef PACK
#define PACK 1
#endif
#ifndef HEAD
#define HEAD 64
#endif
#ifndef MODE
#define MODE KEYS
#define DK
#define DV
#endif
#include "attention.glsl"
#define WORKERS (TX * TY)
#include "attention_rows.glsl"
#ifdef SHUFFLE
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#endif

// Rows of a work group: a (q or k), and b (dy or v). The others: c (k or q), and d (v or dy). FIRST: sums of c by the
// gradient of scores, which takes dy v^T; SECOND: sums of d by weights.
#if MODE == KEYS
#define OWN p.keys
#define OTHERS p.queries
#define A k
#define B v
#define C q
#define D dy
const uint OF_A = OF_K, OF_B = OF_V, OF_C = OF_Q, OF_D = OF_OUT, OF_FIRST = OF_DK;
#else
#define OWN p.queries
#define OTHERS p.keys
#define A q
#define B dy
#define C k
#define D v
const uint OF_A = OF_Q, OF_B = OF_OUT, OF_C = OF_K, OF_D = OF_V, OF_FIRST = OF_DQ;
#endif
#if MODE == QUERIES || defined DK
#define FIRST
#endif
#if MODE == KEYS && defined DV
#define SECOND
#endif

const uint BQ = TY * TQ, BK = TX * TK;
#define TE ((HEAD4 + TX - 1) / TX)
#define STEPP (TX * TK / 4 | 1)

layout(local_size_x = TX * TY * PACK) in;
shared vec4 a_tile[PACK * BQ * STEP4];
shared vec4 c_tile[PACK * BK * STEP4];
#ifdef FIRST
shared vec4 b_tile[PACK * BQ * STEP4];
shared vec4 slopes[PACK * BQ * STEPP];
#endif
#if MODE != STATS
shared vec4 d_tile[PACK * BK * STEP4];
#endif
#ifdef SECOND
shared vec4 weights[PACK * BQ * STEPP];
#endif
#if MODE == STATS
#include "attention_across.glsl"
#else
#define INVOCATION gl_LocalInvocationIndex
#include "attention_product.glsl"
#endif

void main()
{
    if (GROUP_INDEX * PACK >= p.groups) return; // the last row of groups is not full
    uint me = INVOCATION, pack = me / WORKERS, worker = me % WORKERS, ty = worker / TX, tx = worker % TX;
    Place at = place_of(min(GROUP_INDEX * PACK + pack, p.groups - 1u), BQ);
    uint a_base = base_of(OF_A, at), b_base = base_of(OF_B, at), c_base = base_of(OF_C, at), d_base = base_of(OF_D, at);
    uint a_step = row_step(OF_A), b_step = row_step(OF_B), c_step = row_step(OF_C), d_step = row_step(OF_D);
    uint own_at = pack * BQ * STEP4, other_at = pack * BK * STEP4, pair_at = pack * BQ * STEPP;
    uint stats = stats_of(at), kind = stats_step();

    for (uint t = worker; t < BQ * HEAD4; t += WORKERS) {
        uint r = t / HEAD4, d = t % HEAD4, own = min(at.first + r, OWN - 1u);
        a_tile[own_at + r * STEP4 + d] = ROW4(A, a_base + own * a_step, d) * p.scale;
#ifdef FIRST
        b_tile[own_at + r * STEP4 + d] = ROW4(B, b_base + own * b_step, d);
#endif
    }
    COMING(coming_c, (TX * TK))
    FETCH(coming_c, (TX * TK), C, c_base, c_step, 0u, OTHERS)
    KEEP(coming_c, (TX * TK), c_tile, other_at, C, c_base, c_step, 0u, OTHERS)
#if MODE != STATS
    COMING(coming_d, (TX * TK))
    FETCH(coming_d, (TX * TK), D, d_base, d_step, 0u, OTHERS)
    KEEP(coming_d, (TX * TK), d_tile, other_at, D, d_base, d_step, 0u, OTHERS)
#endif

    uint own[TQ]; // rows of this invocation
    [[unroll]] for (uint i = 0; i < TQ; i++) own[i] = min(at.first + ty + i * TY, OWN - 1u);
#if MODE == STATS
    float largest[TQ], total[TQ]; // of this invocation's share
    [[unroll]] for (uint i = 0; i < TQ; i++) {
        largest[i] = LOW;
        total[i] = 0.0;
    }
#elif MODE == QUERIES
    float largest[TQ], inverse[TQ], mean[TQ];
    [[unroll]] for (uint i = 0; i < TQ; i++) {
        largest[i] = AT(y, stats + own[i]);
        inverse[i] = AT(y, stats + own[i] + kind);
        mean[i] = AT(y, stats + own[i] + 2u * kind);
    }
#else
    bool own_shown[TQ];
    [[unroll]] for (uint i = 0; i < TQ; i++) own_shown[i] = shown(at.outer, own[i]);
#endif
#ifdef FIRST
    vec4 first_sum[TQ][TE];
#endif
#ifdef SECOND
    vec4 second_sum[TQ][TE];
#endif
    [[unroll]] for (uint i = 0; i < TQ; i++) {
        [[unroll]] for (uint e = 0; e < TE; e++) {
#ifdef FIRST
            first_sum[i][e] = vec4(0.0);
#endif
#ifdef SECOND
            second_sum[i][e] = vec4(0.0);
#endif
        }
    }
    barrier();

    for (uint first = 0u; first < OTHERS; first += BK) {
        float score[TQ][TK];
        [[unroll]] for (uint i = 0; i < TQ; i++)
            [[unroll]] for (uint n = 0; n < TK; n++) score[i][n] = 0.0;
#ifdef FIRST
        float product[TQ][TK];
        [[unroll]] for (uint i = 0; i < TQ; i++)
            [[unroll]] for (uint n = 0; n < TK; n++) product[i][n] = 0.0;
#endif
#if MODE == STATS
        bool more = first + BK < OTHERS;
        if (more) FETCH(coming_c, (TX * TK), C, c_base, c_step, first + BK, OTHERS)
#endif
        [[dont_unroll]] for (uint d = 0u; d < HEAD4; d++) { // unrolled, loads of all rounds take registers
            vec4 cc[TK];
            [[unroll]] for (uint n = 0; n < TK; n++) cc[n] = c_tile[other_at + (tx + n * TX) * STEP4 + d];
            [[unroll]] for (uint i = 0; i < TQ; i++) {
                vec4 aa = a_tile[own_at + (ty + i * TY) * STEP4 + d];
                [[unroll]] for (uint n = 0; n < TK; n++) ADD_PRODUCT(score[i][n], aa, cc[n])
            }
#ifdef FIRST
            [[unroll]] for (uint n = 0; n < TK; n++) cc[n] = d_tile[other_at + (tx + n * TX) * STEP4 + d];
            [[unroll]] for (uint i = 0; i < TQ; i++) {
                vec4 bb = b_tile[own_at + (ty + i * TY) * STEP4 + d];
                [[unroll]] for (uint n = 0; n < TK; n++) ADD_PRODUCT(product[i][n], bb, cc[n])
            }
#endif
        }
        [[unroll]] for (uint n = 0; n < TK; n++) {
            uint j = tx + n * TX, other = min(first + j, OTHERS - 1u);
            bool there = first + j < OTHERS;
#if MODE == KEYS
            float their_largest = AT(y, stats + other), their_inverse = AT(y, stats + other + kind);
            float their_mean = AT(y, stats + other + 2u * kind);
#else
            there = there && shown(at.outer, other);
#endif
            [[unroll]] for (uint i = 0; i < TQ; i++) {
                uint pair = pair_at + (ty + i * TY) * STEPP + j / 4u;
#if MODE == STATS
                float value = there ? score[i][n] : LOW, m = max(largest[i], value);
                total[i] = total[i] * exp(largest[i] - m) + (there ? exp(value - m) : 0.0);
                largest[i] = m;
#elif MODE == QUERIES
                float weight = there ? exp(score[i][n] - largest[i]) * inverse[i] : 0.0;
                slopes[pair][j % 4u] = weight * (product[i][n] - mean[i]);
#else
                float weight = there && own_shown[i] ? exp(score[i][n] - their_largest) * their_inverse : 0.0;
#ifdef FIRST
                slopes[pair][j % 4u] = weight * (product[i][n] - their_mean);
#endif
#ifdef SECOND
                weights[pair][j % 4u] = weight;
#endif
#endif
            }
        }
        barrier();
#if MODE != STATS
        bool more = first + BK < OTHERS;
        if (more) {
            FETCH(coming_c, (TX * TK), C, c_base, c_step, first + BK, OTHERS)
            FETCH(coming_d, (TX * TK), D, d_base, d_step, first + BK, OTHERS)
        }
        [[dont_unroll]] for (uint j = 0u; j < BK / 4u; j++) {
#ifdef FIRST
            ADD_SUMS(first_sum, slopes, c_tile, pair_at, other_at)
#endif
#ifdef SECOND
            ADD_SUMS(second_sum, weights, d_tile, pair_at, other_at)
#endif
        }
        barrier();
#endif
        if (more) {
            KEEP(coming_c, (TX * TK), c_tile, other_at, C, c_base, c_step, first + BK, OTHERS)
#if MODE != STATS
            KEEP(coming_d, (TX * TK), d_tile, other_at, D, d_base, d_step, first + BK, OTHERS)
#endif
        }
        barrier();
    }

    bool mine = GROUP_INDEX * PACK + pack < p.groups;
#if MODE == STATS
    float all[TQ], sum[TQ];
    [[unroll]] for (uint i = 0; i < TQ; i++) all[i] = largest[i];
    LARGEST_OF_ROW(all)
    [[unroll]] for (uint i = 0; i < TQ; i++) {
        uint start = base_of(OF_OUT, at) + own[i] * row_step(OF_OUT);
        sum[i] = 0.0;
        for (uint d = tx; d < HEAD4; d += TX) {
            vec4 yy = ROW4(y, start, d), dd = ROW4(dy, start, d);
            ADD_PRODUCT(sum[i], dd, yy)
        }
        total[i] *= exp(largest[i] - all[i]);
    }
    NEXT_ACROSS
    SUM_OF_ROW(total)
    NEXT_ACROSS
    SUM_OF_ROW(sum)
    [[unroll]] for (uint i = 0; i < TQ; i++) {
        if (tx != 0u || !mine || at.first + ty + i * TY >= OWN) continue;
        AT(result, stats + own[i]) = total[i] > 0.0 ? all[i] : 0.0;
        AT(result, stats + own[i] + kind) = total[i] > 0.0 ? 1.0 / total[i] : 0.0;
        AT(result, stats + own[i] + 2u * kind) = sum[i];
    }
#else
    [[unroll]] for (uint i = 0; i < TQ; i++) {
        if (!mine || at.first + ty + i * TY >= OWN) continue;
        [[unroll]] for (uint e = 0; e < TE; e++) {
            uint d = tx + e * TX;
            if (d >= HEAD4) continue;
#ifdef FIRST
            PUT_ROW4(result, base_of(OF_FIRST, at) + own[i] * row_step(OF_FIRST), d, first_sum[i][e] * p.scale)
#endif
#ifdef SECOND
            PUT_ROW4(result, base_of(OF_DV, at) + own[i] * row_step(OF_DV), d, second_sum[i][e])
#endif
        }
    }
#endif
}
