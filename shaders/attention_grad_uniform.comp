// The gradient of attention, and the numbers it needs (MODE of attention.glsl), for CPU drivers that find uniform loads
// by themselves. A subgroup of SG lanes has TM rows of one head (queries, or keys) and goes over the others SG at a time,
// one to a lane: scores again, and dy v^T, from what attention_pack.comp left of the others; then sums per row of its
// own, a channel to a lane, E vectors of them. See attention_uniform.comp, and lanes.glsl on loads.
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_ballot : require

#ifndef SG
#define SG 8
#endif
#ifndef TM
#define TM 2 // rows
#endif
#ifndef HEAD
#define HEAD 64
#endif
#ifndef MODE
#define MODE KEYS
#define DK
#define DV
#endif
#define PACKED
#define E ((HEAD + SG - 1) / SG)
#include "attention.glsl"
#include "lanes.glsl"

layout(local_size_x = SG) in;
layout(buffer_reference, std430, buffer_reference_align = 4) buffer RowRef { float at[HEAD]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer PanelRef { float at[HEAD * SG]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer LanesRef { float at[E * SG]; };

// Rows of a work group: a (q or k), and b (dy or v). The others: c (k or q), and d (v or dy), packed in this order.
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
#define BASE(name, what) (uint64_t(p.name) + 4ul * base_of(what, at))
#define A_BASE(name, what) uint64_t a_base = BASE(name, what), a_step = 4ul * row_step(what);
#define B_BASE(name, what) uint64_t b_base = BASE(name, what), b_step = 4ul * row_step(what);
#define C_BASE(name, what) uint64_t c_base = BASE(name, what), c_step = 4ul * row_step(what);
#define D_BASE(name, what) uint64_t d_base = BASE(name, what), d_step = 4ul * row_step(what);

void main()
{
    uint lane = gl_SubgroupInvocationID;
    SELECT_LANES
    bool extra = GROUP_INDEX >= p.groups; // no return: uniform loads are done with all lanes off, too
    uint group = extra ? 0u : GROUP_INDEX;
    Place at = place_of(group, TM);
    ROWS(A_BASE, B_BASE, C_BASE, D_BASE)
    uint panels = (OTHERS + SG - 1u) / SG, stats = stats_of(at), kind = stats_step();
    uint64_t pack_base = uint64_t(p.packed) + 4ul * (group / p.blocks * panels) * (HEAD * SG);
    uint64_t pack_next = 4ul * (p.groups / p.blocks * panels) * (HEAD * SG); // from those of c to those of d
    uint64_t a_at[TM], b_at[TM];
    [[unroll]] for (int i = 0; i < TM; i++) {
        uint row = min(at.first + i, OWN - 1u);
        a_at[i] = a_base + row * a_step;
        b_at[i] = b_base + row * b_step;
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

    uint panel = 0u;
    do { // with the test first the body would run once more, with all lanes off
        uint first = panel * SG;
        uint other = min(first + lane, OTHERS - 1u);
        bool there = first + lane < OTHERS;
#if MODE != KEYS
        there = there && shown(at.outer, other);
#endif
#if MODE == KEYS
        float their_largest = AT(y, stats + other), their_inverse = AT(y, stats + other + kind);
        float their_mean = AT(y, stats + other + 2u * kind);
#endif
        uint64_t pack_at = pack_base + 4ul * (first * HEAD);
        float score[TM], slope[TM];
        [[unroll]] for (int i = 0; i < TM; i++) {
            score[i] = 0.0;
            slope[i] = 0.0;
        }
        [[unroll]] for (int d = 0; d < HEAD; d++) {
            float cv;
            LOAD_LANES(cv, PanelRef(pack_at), d * SG)
            [[unroll]] for (int i = 0; i < TM; i++) score[i] += RowRef(a_at[i]).at[d] * cv;
#ifdef SLOPES
            float dv;
            LOAD_LANES(dv, PanelRef(pack_at + pack_next), d * SG)
            [[unroll]] for (int i = 0; i < TM; i++) slope[i] += RowRef(b_at[i]).at[d] * dv;
#endif
        }
#if MODE == STATS
        [[unroll]] for (int i = 0; i < TM; i++) {
            float value = there ? score[i] * p.scale : LOW, m = value;
            ACROSS_LANES(m, max)
            m = max(m, largest[i]);
            total[i] = total[i] * exp(largest[i] - m) + mix(0.0, exp(value - m), there);
            largest[i] = m;
        }
#else
        // score becomes the weight, slope the gradient of the score; without branches, which would part the sums above
        // from their products
        [[unroll]] for (int i = 0; i < TM; i++) {
#if MODE == KEYS
            bool seen = there && own_shown[i];
            score[i] = mix(0.0, exp(score[i] * p.scale - their_largest) * their_inverse, seen);
            slope[i] = mix(0.0, score[i] * (slope[i] - their_mean), seen);
#else
            score[i] = mix(0.0, exp(score[i] * p.scale - largest[i]) * inverse[i], there);
            slope[i] = mix(0.0, score[i] * (slope[i] - mean[i]), there);
#endif
        }
        uint64_t c_at = c_base + first * c_step, d_at = d_base + first * d_step;
        [[unroll]] for (int j = 0; j < SG; j++) {
            bool more = first + uint(j + 1) < OTHERS;
#ifdef SLOPES
            float cc[E];
            [[unroll]] for (int e = 0; e < E; e++) LOAD_LANES(cc[e], LanesRef(c_at), e * SG)
            [[unroll]] for (int i = 0; i < TM; i++) {
                float value = subgroupBroadcast(slope[i], uint(j));
                [[unroll]] for (int e = 0; e < E; e++) first_sum[i][e] += value * cc[e];
            }
            c_at += more ? c_step : 0ul;
#endif
#ifdef DV
            float dd[E];
            [[unroll]] for (int e = 0; e < E; e++) LOAD_LANES(dd[e], LanesRef(d_at), e * SG)
            [[unroll]] for (int i = 0; i < TM; i++) {
                float value = subgroupBroadcast(score[i], uint(j));
                [[unroll]] for (int e = 0; e < E; e++) second_sum[i][e] += value * dd[e];
            }
            d_at += more ? d_step : 0ul;
#endif
        }
#endif
    } while (++panel < panels);

    uint rows = extra ? 0u : min(OWN - at.first, TM);
#if MODE == STATS
    [[unroll]] for (int i = 0; i < TM; i++) {
        float all = total[i], product = 0.0;
        uint row = min(at.first + i, OWN - 1u), start = base_of(OF_OUT, at) + row * row_step(OF_OUT);
        ACROSS_LANES(all, ADD_)
        [[unroll]] for (int e = 0; e < E; e++) {
            float dyv, yv;
            LOAD_LANES(dyv, LanesRef(uint64_t(p.dy) + 4ul * start), e * SG)
            LOAD_LANES(yv, LanesRef(uint64_t(p.y) + 4ul * start), e * SG)
            product += e * SG + lane < HEAD ? dyv * yv : 0.0;
        }
        ACROSS_LANES(product, ADD_)
        if (lane == 0u && uint(i) < rows) {
            AT(result, stats + at.first + i) = all > 0.0 ? largest[i] : 0.0;
            AT(result, stats + at.first + i + kind) = all > 0.0 ? 1.0 / all : 0.0;
            AT(result, stats + at.first + i + 2u * kind) = product;
        }
    }
#else
#ifdef SLOPES
    const uint what = MODE == KEYS ? OF_DK : OF_DQ;
    uint first_base = base_of(what, at) + at.first * row_step(what) + lane, first_step = row_step(what);
#endif
#ifdef DV
    uint second_base = base_of(OF_DV, at) + at.first * row_step(OF_DV) + lane, second_step = row_step(OF_DV);
#endif
    [[unroll]] for (int i = 0; i < TM; i++) {
        [[unroll]] for (int e = 0; e < E; e++) {
            if (uint(i) < rows && e * SG + lane < HEAD) {
#ifdef SLOPES
                AT(result, first_base + i * first_step + e * SG) = first_sum[i][e] * p.scale;
#endif
#ifdef DV
                AT(result, second_base + i * second_step + e * SG) = second_sum[i][e];
#endif
            }
        }
    }
#endif
}
