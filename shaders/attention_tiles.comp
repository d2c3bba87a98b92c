// Attention for any GPU: a work group of LOCAL invocations does BQ queries of one head, T = LOCAL / BQ invocations to a
// query. Keys come by blocks of BK through shared memory, then their values through the same; sums are kept with the
// largest score so far (online softmax).
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
#define T (LOCAL / BQ)
#include "attention.glsl"

layout(local_size_x = LOCAL) in;
const uint ROW = HEAD + 1; // odd steps spread over the banks
const uint SCORES = (BK + T - 1) / T, CHANNELS = (HEAD + T - 1) / T;
shared float q_tile[BQ * (HEAD + 1)];
shared float kv_tile[BK * (HEAD + 1)];
shared float weight[BQ * (BK + 1)];

void main()
{
    if (GROUP_INDEX >= p.groups) return; // the last row of groups is not full
    Place at = place_of(GROUP_INDEX, BQ);
    uint me = gl_LocalInvocationIndex, row = me / T, t = me % T;
    uint q_base = base_of(OF_Q, at), k_base = base_of(OF_K, at), v_base = base_of(OF_V, at);
    uint q_step = row_step(OF_Q), k_step = row_step(OF_K), v_step = row_step(OF_V);
    for (uint i = me; i < BQ * HEAD; i += LOCAL) {
        uint r = i / HEAD, d = i % HEAD;
        q_tile[r * ROW + d] = AT(q, q_base + min(at.first + r, p.queries - 1u) * q_step + d) * p.scale;
    }
    float largest = LOW, total = 0.0, sum[CHANNELS];
    [[unroll]] for (uint c = 0; c < CHANNELS; c++) sum[c] = 0.0;

    for (uint first = 0u; first < p.keys; first += BK) {
        for (uint i = me; i < BK * HEAD; i += LOCAL)
            kv_tile[i / HEAD * ROW + i % HEAD] = AT(k, k_base + min(first + i / HEAD, p.keys - 1u) * k_step + i % HEAD);
        barrier();
        float score[SCORES];
        [[unroll]] for (uint s = 0; s < SCORES; s++) score[s] = 0.0;
        for (uint d = 0u; d < HEAD; d++) {
            float value = q_tile[row * ROW + d];
            [[unroll]] for (uint s = 0; s < SCORES; s++) score[s] += value * kv_tile[min(t + s * T, BK - 1) * ROW + d];
        }
        [[unroll]] for (uint s = 0; s < SCORES; s++) {
            uint j = t + s * T;
            bool visible = j < BK && first + j < p.keys && shown(at.outer, min(first + j, p.keys - 1u));
            score[s] = visible ? score[s] : LOW;
            if (j < BK) weight[row * (BK + 1) + j] = score[s];
        }
        barrier();
        float m = largest;
        [[unroll]] for (uint j = 0; j < BK; j++) m = max(m, weight[row * (BK + 1) + j]);
        barrier();
        [[unroll]] for (uint s = 0; s < SCORES; s++) {
            uint j = t + s * T;
            if (j < BK) weight[row * (BK + 1) + j] = score[s] > LOW ? exp(score[s] - m) : 0.0;
        }
        for (uint i = me; i < BK * HEAD; i += LOCAL)
            kv_tile[i / HEAD * ROW + i % HEAD] = AT(v, v_base + min(first + i / HEAD, p.keys - 1u) * v_step + i % HEAD);
        barrier();
        float shrink = exp(largest - m);
        largest = m;
        total *= shrink;
        [[unroll]] for (uint c = 0; c < CHANNELS; c++) sum[c] *= shrink;
        for (uint j = 0u; j < BK; j++) {
            float w = weight[row * (BK + 1) + j];
            total += w;
            [[unroll]] for (uint c = 0; c < CHANNELS; c++) sum[c] += w * kv_tile[j * ROW + min(t + c * T, HEAD - 1)];
        }
        barrier();
    }

    if (at.first + row >= p.queries) return;
    float scale = total > 0.0 ? 1.0 / total : 0.0;
    uint y_base = base_of(OF_OUT, at) + (at.first + row) * row_step(OF_OUT);
    [[unroll]] for (uint c = 0; c < CHANNELS; c++) {
        uint d = t + c * T;
        if (d < HEAD) AT(y, y_base + d) = sum[c] * scale;
    }
}
