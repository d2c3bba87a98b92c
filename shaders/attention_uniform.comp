// Attention for CPU drivers that find uniform loads by themselves: a subgroup of SG lanes does TM queries of one head.
// Scores of SG keys at a time, a key to a lane, k as attention_pack.comp leaves it; then their values, a channel to a
// lane, E vectors of them. Sums are kept with the largest score so far (online softmax). See lanes.glsl on loads.
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_ballot : require

#ifndef SG
#define SG 8
#endif
#ifndef TM
#define TM 4 // queries
#endif
#ifndef HEAD
#define HEAD 64
#endif
#define E ((HEAD + SG - 1) / SG)
#include "attention.glsl"
#include "lanes.glsl"

layout(local_size_x = SG) in;
layout(buffer_reference, std430, buffer_reference_align = 4) buffer RowRef { float at[HEAD]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer PanelRef { float at[HEAD * SG]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer LanesRef { float at[E * SG]; };

void main()
{
    uint lane = gl_SubgroupInvocationID;
    SELECT_LANES
    bool extra = GROUP_INDEX >= p.groups; // no return: uniform loads are done with all lanes off, too
    uint group = extra ? 0u : GROUP_INDEX;
    Place at = place_of(group, TM);
    uint panels = (p.keys + SG - 1u) / SG;
    uint64_t q_base = uint64_t(p.q) + 4ul * base_of(OF_Q, at), q_step = 4ul * row_step(OF_Q), q_at[TM];
    [[unroll]] for (int i = 0; i < TM; i++) q_at[i] = q_base + min(at.first + i, p.queries - 1u) * q_step;
    uint64_t k_base = uint64_t(p.k) + 4ul * (group / p.blocks * panels) * (HEAD * SG);
    uint64_t v_base = uint64_t(p.v) + 4ul * base_of(OF_V, at), v_step = 4ul * row_step(OF_V);

    float largest[TM], total[TM], sum[TM][E];
    [[unroll]] for (int i = 0; i < TM; i++) {
        largest[i] = LOW;
        total[i] = 0.0;
        [[unroll]] for (int e = 0; e < E; e++) sum[i][e] = 0.0;
    }

    // The only loop, and all addresses come from its counter: these drivers make what loops carry a vector. A loop with
    // its test first would run its body once more, with all lanes off.
    uint panel = 0u;
    do {
        uint first = panel * SG;
        uint key = first + lane;
        bool visible = key < p.keys && shown(at.outer, min(key, p.keys - 1u));
        uint64_t k_at = k_base + 4ul * (first * HEAD), v_at = v_base + first * v_step;
        float score[TM];
        [[unroll]] for (int i = 0; i < TM; i++) score[i] = 0.0;
        [[unroll]] for (int d = 0; d < HEAD; d++) {
            float kv;
            LOAD_LANES(kv, PanelRef(k_at), d * SG)
            [[unroll]] for (int i = 0; i < TM; i++) score[i] += RowRef(q_at[i]).at[d] * kv;
        }
        [[unroll]] for (int i = 0; i < TM; i++) {
            score[i] = visible ? score[i] * p.scale : LOW;
            float m = score[i];
            ACROSS_LANES(m, max)
            m = max(m, largest[i]);
            float shrink = exp(largest[i] - m);
            largest[i] = m;
            score[i] = mix(0.0, exp(score[i] - m), visible); // no branch
            total[i] = total[i] * shrink + score[i];
            [[unroll]] for (int e = 0; e < E; e++) sum[i][e] *= shrink;
        }
        [[unroll]] for (int j = 0; j < SG; j++) {
            float vv[E];
            [[unroll]] for (int e = 0; e < E; e++) LOAD_LANES(vv[e], LanesRef(v_at), e * SG)
            [[unroll]] for (int i = 0; i < TM; i++) {
                float weight = subgroupBroadcast(score[i], uint(j));
                [[unroll]] for (int e = 0; e < E; e++) sum[i][e] += weight * vv[e];
            }
            v_at += first + uint(j + 1) < p.keys ? v_step : 0ul;
        }
    } while (++panel < panels);

    uint y_base = base_of(OF_OUT, at) + at.first * row_step(OF_OUT) + lane, y_step = row_step(OF_OUT);
    uint rows = extra ? 0u : min(p.queries - at.first, TM);
    [[unroll]] for (int i = 0; i < TM; i++) {
        float all = total[i];
        ACROSS_LANES(all, ADD_)
        float scale = all > 0.0 ? 1.0 / all : 0.0;
        [[unroll]] for (int e = 0; e < E; e++)
            if (uint(i) < rows && e * SG + lane < HEAD) AT(y, y_base + i * y_step + e * SG) = sum[i][e] * scale;
    }
}
