// Gradient of attention for any GPU, and the numbers it needs: MODE of attention.glsl. A work group of LOCAL invocations has
// BQ rows of one head (queries, or keys), T = LOCAL / BQ invocations to a row, and goes over the others by blocks of BK
// through shared memory: scores again, and dy v^T, never stored.
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

#ifndef LOCAL
#define LOCAL 128
#endif
#ifndef BQ
#define BQ 16
#endif
#ifndef BK
#define BK 16
#endif
#ifndef HEAD
#define HEAD 64
#endif
#ifndef MODE
#define MODE KEYS
#define DK
#define DV
#endif
#define T (LOCAL / BQ)
#include "attention.glsl"

layout(local_size_x = LOCAL) in;

// Rows of a work group: a (q or k), and b (dy or v). The others: c (k or q), and d (v or dy).
#if MODE == KEYS
#define OWN p.keys
#define OTHERS p.queries
#define A(i) AT(k, i)
#define B(i) AT(v, i)
#define C(i) AT(q, i)
#define D(i) AT(dy, i)
const uint OF_A = OF_K, OF_B = OF_V, OF_C = OF_Q, OF_D = OF_OUT, OF_FIRST = OF_DK;
#else
#define OWN p.queries
#define OTHERS p.keys
#define A(i) AT(q, i)
#define B(i) AT(dy, i)
#define C(i) AT(k, i)
#define D(i) AT(v, i)
const uint OF_A = OF_Q, OF_B = OF_OUT, OF_C = OF_K, OF_D = OF_V, OF_FIRST = OF_DQ;
#endif
#if MODE == QUERIES || defined(DK) // dy v^T is needed, for sums of c
#define SLOPES
#endif

const uint ROW = HEAD + 1; // odd steps spread over the banks
const uint SCORES = (BK + T - 1) / T, CHANNELS = (HEAD + T - 1) / T;
shared float a_tile[BQ * (HEAD + 1)];
shared float c_tile[BK * (HEAD + 1)];
#if MODE == STATS
shared float parts[3 * LOCAL];
#else
shared float b_tile[BQ * (HEAD + 1)];
shared float d_tile[BK * (HEAD + 1)];
shared float weight[BQ * (BK + 1)];
shared float slope[BQ * (BK + 1)];
#endif

void main()
{
    if (GROUP_INDEX >= p.groups) return; // the last row of groups is not full
    Place at = place_of(GROUP_INDEX, BQ);
    uint me = gl_LocalInvocationIndex, row = me / T, t = me % T;
    uint a_base = base_of(OF_A, at), b_base = base_of(OF_B, at), c_base = base_of(OF_C, at), d_base = base_of(OF_D, at);
    uint a_step = row_step(OF_A), b_step = row_step(OF_B), c_step = row_step(OF_C), d_step = row_step(OF_D);
    uint stats = stats_of(at), kind = stats_step(), own = min(at.first + row, OWN - 1u);
    for (uint i = me; i < BQ * HEAD; i += LOCAL) {
        uint r = i / HEAD, d = i % HEAD, from = min(at.first + r, OWN - 1u);
        a_tile[r * ROW + d] = A(a_base + from * a_step + d);
#if MODE != STATS
        b_tile[r * ROW + d] = B(b_base + from * b_step + d);
#endif
    }
#if MODE == STATS
    float largest = LOW, total = 0.0; // of this invocation's share
#else
    float first_sum[CHANNELS], second_sum[CHANNELS];
    [[unroll]] for (uint c = 0; c < CHANNELS; c++) {
        first_sum[c] = 0.0;
        second_sum[c] = 0.0;
    }
#endif
#if MODE == QUERIES
    float largest = AT(y, stats + own), inverse = AT(y, stats + own + kind), mean = AT(y, stats + own + 2u * kind);
#elif MODE == KEYS
    bool own_shown = shown(at.outer, own);
#endif

    for (uint first = 0u; first < OTHERS; first += BK) {
        for (uint i = me; i < BK * HEAD; i += LOCAL) {
            uint r = i / HEAD, d = i % HEAD, from = min(first + r, OTHERS - 1u);
            c_tile[r * ROW + d] = C(c_base + from * c_step + d);
#if MODE != STATS
            d_tile[r * ROW + d] = D(d_base + from * d_step + d);
#endif
        }
        barrier();
        float score[SCORES], product[SCORES];
        [[unroll]] for (uint s = 0; s < SCORES; s++) {
            score[s] = 0.0;
            product[s] = 0.0;
        }
        for (uint d = 0u; d < HEAD; d++) {
            float value = a_tile[row * ROW + d];
            [[unroll]] for (uint s = 0; s < SCORES; s++) score[s] += value * c_tile[min(t + s * T, BK - 1) * ROW + d];
#ifdef SLOPES
            float other = b_tile[row * ROW + d];
            [[unroll]] for (uint s = 0; s < SCORES; s++) product[s] += other * d_tile[min(t + s * T, BK - 1) * ROW + d];
#endif
        }
        [[unroll]] for (uint s = 0; s < SCORES; s++) {
            uint j = t + s * T, other = min(first + j, OTHERS - 1u);
            bool seen = j < BK && first + j < OTHERS;
#if MODE == KEYS
            seen = seen && own_shown;
            float largest = AT(y, stats + other), inverse = AT(y, stats + other + kind);
            float mean = AT(y, stats + other + 2u * kind);
#else
            seen = seen && shown(at.outer, other);
#endif
#if MODE == STATS
            float value = seen ? score[s] * p.scale : LOW, m = max(largest, value);
            total = total * exp(largest - m) + (seen ? exp(value - m) : 0.0);
            largest = m;
#else
            float w = seen ? exp(score[s] * p.scale - largest) * inverse : 0.0;
            if (j < BK) {
                weight[row * (BK + 1) + j] = w;
                slope[row * (BK + 1) + j] = seen ? w * (product[s] - mean) : 0.0;
            }
#endif
        }
        barrier();
#if MODE != STATS
        for (uint j = 0u; j < BK; j++) {
#ifdef SLOPES
            float s = slope[row * (BK + 1) + j];
            [[unroll]] for (uint c = 0; c < CHANNELS; c++)
                first_sum[c] += s * c_tile[j * ROW + min(t + c * T, HEAD - 1)];
#endif
#ifdef DV
            float w = weight[row * (BK + 1) + j];
            [[unroll]] for (uint c = 0; c < CHANNELS; c++)
                second_sum[c] += w * d_tile[j * ROW + min(t + c * T, HEAD - 1)];
#endif
        }
        barrier();
#endif
    }

#if MODE == STATS
    float sum = 0.0;
    for (uint d = t; d < HEAD; d += T) {
        uint i = base_of(OF_OUT, at) + own * row_step(OF_OUT) + d;
        sum += AT(dy, i) * AT(y, i);
    }
    parts[3u * me] = largest;
    parts[3u * me + 1u] = total;
    parts[3u * me + 2u] = sum;
    barrier();
    if (t != 0u || at.first + row >= OWN) return;
    for (uint i = 1u; i < T; i++) {
        float m = max(largest, parts[3u * (me + i)]);
        total = total * exp(largest - m) + parts[3u * (me + i) + 1u] * exp(parts[3u * (me + i)] - m);
        largest = m;
        sum += parts[3u * (me + i) + 2u];
    }
    AT(result, stats + own) = total > 0.0 ? largest : 0.0;
    AT(result, stats + own + kind) = total > 0.0 ? 1.0 / total : 0.0;
    AT(result, stats + own + 2u * kind) = sum;
#else
    if (at.first + row >= OWN) return;
#ifdef SLOPES
    uint first_at = base_of(OF_FIRST, at) + own * row_step(OF_FIRST);
    [[unroll]] for (uint c = 0; c < CHANNELS; c++) {
        if (t + c * T < HEAD) AT(result, first_at + t + c * T) = first_sum[c] * p.scale;
    }
#endif
#ifdef DV
    uint second_at = base_of(OF_DV, at) + own * row_step(OF_DV);
    [[unroll]] for (uint c = 0; c < CHANNELS; c++) {
        if (t + c * T < HEAD) AT(result, second_at + t + c * T) = second_sum[c];
    }
#endif
#endif
}
