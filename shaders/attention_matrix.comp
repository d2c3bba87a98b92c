// Attention on matrix cores, of q, k and v of float16: a work group does BQ = SUBGROUPS * CM queries of one head, a subgroup
// CM of them. Keys and values come by BK through shared memory, the next ones while these are multiplied. Scores and sums
// are cooperative matrices of float32; the softmax between them is taken by LPR lanes a query from shared memory, where the
// scores become weights of float16. Sums shrink, as a larger score is found, by a matrix whose rows are the factors.
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require

#ifndef CM
#define CM 16
#endif
#ifndef CN
#define CN 16
#endif
#ifndef CK
#define CK 16
#endif
#ifndef SUBGROUPS
#define SUBGROUPS 4
#endif
#ifndef BK
#define BK 32
#endif
#ifndef HEAD
#define HEAD 64
#endif
#include "attention.glsl"
#define WORKERS (SUBGROUPS * TRN_SUBGROUP_SIZE)
#include "attention_rows.glsl"

const uint LPR = TRN_SUBGROUP_SIZE / CM; // lanes of a query: 1, 2 or 4
const uint BQ = SUBGROUPS * CM;
#define HEAD16 ((HEAD + 15) / 16 * 16) // a multiple of CN and CK, with zeros behind the head
#define EIGHTS (HEAD16 / 8)
// uvec4s and floats from row to row, some more against bank conflicts
const uint STEP8 = EIGHTS + 1, STEPW = BK / 8 + 1, STEPS = BK + 4;
layout(local_size_x = SUBGROUPS * TRN_SUBGROUP_SIZE) in;
shared uvec4 q_tile[SUBGROUPS * CM * (EIGHTS + 1)];
shared uvec4 k_tile[BK * (EIGHTS + 1)];
shared uvec4 v_tile[BK * (EIGHTS + 1)];
shared uvec4 weights[SUBGROUPS * CM * (BK / 8 + 1)];
shared float scores[SUBGROUPS * CM * (BK + 4)]; // of a block; then factors, results

#define FOUR_HALVES(v) uvec2(packHalf2x16((v).xy), packHalf2x16((v).zw))
#if HEAD % 16 == 0
#define FOUR_AT ROW4
#else
#define FOUR_AT(name, start, d) ((d) < HEAD4 ? ROW4(name, start, d) : vec4(0.0))
#endif
#define EIGHT(name, start, d)                                                                                 \
    uvec4(FOUR_HALVES(FOUR_AT(name, start, 2u * (d))), FOUR_HALVES(FOUR_AT(name, start, 2u * (d) + 1u)))
#define EIGHT_PARTS ((BK * EIGHTS + WORKERS - 1) / WORKERS)
#define FETCH8(parts, name, base, step, first)                                                                \
    [[unroll]] for (uint t_ = 0; t_ < EIGHT_PARTS; t_++) {                                                    \
        uint at_ = min(me + t_ * WORKERS, BK * EIGHTS - 1), r_ = min((first) + at_ / EIGHTS, p.keys - 1u);    \
        uint start_ = base + r_ * step;                                                                       \
        parts[t_] = EIGHT(name, start_, at_ % EIGHTS);                                                        \
    }
#define KEEP8(parts, tile)                                                                                    \
    [[unroll]] for (uint t_ = 0; t_ < EIGHT_PARTS; t_++) {                                                    \
        uint at_ = me + t_ * WORKERS;                                                                         \
        if (at_ < BK * EIGHTS) tile[at_ / EIGHTS * STEP8 + at_ % EIGHTS] = parts[t_];                         \
    }

float largest_of_row(float value)
{
    if (LPR > 1) value = max(value, subgroupShuffleXor(value, 1u));
    if (LPR > 2) value = max(value, subgroupShuffleXor(value, 2u));
    return value;
}
float sum_of_row(float value)
{
    if (LPR > 1) value += subgroupShuffleXor(value, 1u);
    if (LPR > 2) value += subgroupShuffleXor(value, 2u);
    return value;
}

void main()
{
    if (GROUP_INDEX >= p.groups) return; // the last row of groups is not full
    uint lane = gl_SubgroupInvocationID, me = gl_SubgroupID * TRN_SUBGROUP_SIZE + lane;
    Place at = place_of(GROUP_INDEX, BQ);
    uint q_base = base_of(OF_Q, at), k_base = base_of(OF_K, at), v_base = base_of(OF_V, at);
    uint q_step = row_step(OF_Q), k_step = row_step(OF_K), v_step = row_step(OF_V);
    uint own = gl_SubgroupID * CM, row = lane / LPR, part = lane % LPR; // this lane's query
    uint score_at = own * STEPS, weight_at = own * STEPW;
    const float scale = p.scale * 1.44269504;

    for (uint t = me; t < BQ * EIGHTS; t += WORKERS) {
        uint start = q_base + min(at.first + t / EIGHTS, p.queries - 1u) * q_step;
        q_tile[t / EIGHTS * STEP8 + t % EIGHTS] = EIGHT(q, start, t % EIGHTS);
    }
    uvec4 coming_k[EIGHT_PARTS], coming_v[EIGHT_PARTS];
    FETCH8(coming_k, k, k_base, k_step, 0u)
    FETCH8(coming_v, v, v_base, v_step, 0u)
    coopmat<float, gl_ScopeSubgroup, CM, CN, gl_MatrixUseAccumulator> sum[HEAD16 / CN];
    [[unroll]] for (uint e = 0u; e < HEAD16 / CN; e++)
        sum[e] = coopmat<float, gl_ScopeSubgroup, CM, CN, gl_MatrixUseAccumulator>(0.0);
    float largest = LOW, total = 0.0; // total: of this lane's keys

    for (uint first = 0u; first < p.keys; first += BK) {
        KEEP8(coming_k, k_tile)
        KEEP8(coming_v, v_tile)
        barrier();
        if (first + BK < p.keys) {
            FETCH8(coming_k, k, k_base, k_step, first + BK)
            FETCH8(coming_v, v, v_base, v_step, first + BK)
        }
        [[unroll]] for (uint j = 0u; j < BK; j += CN) {
            coopmat<float, gl_ScopeSubgroup, CM, CN, gl_MatrixUseAccumulator> score =
                coopmat<float, gl_ScopeSubgroup, CM, CN, gl_MatrixUseAccumulator>(0.0);
            [[unroll]] for (uint d = 0u; d < HEAD16; d += CK) {
                coopmat<float16_t, gl_ScopeSubgroup, CM, CK, gl_MatrixUseA> qm;
                coopmat<float16_t, gl_ScopeSubgroup, CK, CN, gl_MatrixUseB> km;
                coopMatLoad(qm, q_tile, own * STEP8 + d / 8u, STEP8, gl_CooperativeMatrixLayoutRowMajor);
                coopMatLoad(km, k_tile, j * STEP8 + d / 8u, STEP8, gl_CooperativeMatrixLayoutColumnMajor);
                score = coopMatMulAdd(qm, km, score);
            }
            coopMatStore(score, scores, score_at + j, STEPS, gl_CooperativeMatrixLayoutRowMajor);
        }
        subgroupBarrier();
        float found = largest;
        for (uint j = part; j < BK; j += LPR) {
            uint key = first + j;
            bool visible = key < p.keys && shown(at.outer, min(key, p.keys - 1u));
            float value = visible ? scores[score_at + row * STEPS + j] * scale : LOW;
            scores[score_at + row * STEPS + j] = value;
            found = max(found, value);
        }
        found = largest_of_row(found);
        subgroupBarrier();
        float shrink = exp2(largest - found);
        largest = found;
        total *= shrink;
        for (uint j = part; j < BK / 2u; j += LPR) {
            uint from = score_at + row * STEPS + 2u * j;
            vec2 value = vec2(scores[from], scores[from + 1u]);
            vec2 weight = vec2(value.x > LOW ? exp2(value.x - found) : 0.0, value.y > LOW ? exp2(value.y - found) : 0.0);
            total += weight.x + weight.y;
            weights[weight_at + row * STEPW + j / 4u][j % 4u] = packHalf2x16(weight);
        }
        subgroupBarrier();
        for (uint c = part; c < CN; c += LPR) scores[score_at + row * CN + c] = shrink;
        subgroupBarrier();
        coopmat<float, gl_ScopeSubgroup, CM, CN, gl_MatrixUseAccumulator> factors;
        coopMatLoad(factors, scores, score_at, CN, gl_CooperativeMatrixLayoutRowMajor);
        [[unroll]] for (uint e = 0u; e < HEAD16 / CN; e++) {
            sum[e] = sum[e] * factors;
            [[unroll]] for (uint j = 0u; j < BK; j += CK) {
                coopmat<float16_t, gl_ScopeSubgroup, CM, CK, gl_MatrixUseA> wm;
                coopmat<float16_t, gl_ScopeSubgroup, CK, CN, gl_MatrixUseB> vm;
                coopMatLoad(wm, weights, weight_at + j / 8u, STEPW, gl_CooperativeMatrixLayoutRowMajor);
                coopMatLoad(vm, v_tile, j * STEP8 + e * CN / 8u, STEP8, gl_CooperativeMatrixLayoutRowMajor);
                sum[e] = coopMatMulAdd(wm, vm, sum[e]);
            }
        }
        barrier();
    }

    total = sum_of_row(total);
    float inverse = total > 0.0 ? 1.0 / total : 0.0;
    uint query = at.first + own + row, start = base_of(OF_OUT, at) + query * row_step(OF_OUT);
    [[unroll]] for (uint e = 0u; e < HEAD16 / CN; e++) {
        coopMatStore(sum[e], scores, score_at, CN, gl_CooperativeMatrixLayoutRowMajor);
        subgroupBarrier();
        for (uint c = 4u * part; c < CN; c += 4u * LPR) {
            uint d = (e * CN + c) / 4u, from = score_at + row * CN + c;
            vec4 value = vec4(scores[from], scores[from + 1u], scores[from + 2u], scores[from + 3u]) * inverse;
            if (query < p.queries && d < HEAD4) PUT_ROW4(y, start, d, value)
        }
        subgroupBarrier();
    }
}
