// y = a b for CPU drivers: a [M,K] (or [K,M] if A_COLUMNS), b [N,K] (or [K,N] if B_ROWS, or such rows in PANELS of SG*TN
// columns), y [M,N], all by batch. One subgroup of SG lanes makes TM rows by SG*TN columns. Every load brings neighbouring
// values to each lane: drivers that load lane by lane pay per load, not per byte. Lanes hold columns of b; a row of a lies
// in one lane and reaches the others by a shuffle with a constant index, which is a single instruction there. So does a
// part of a row of a, of its columns, if A_COLUMNS. With TRN_TEXELS both are read as texels of four values.
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_shader_subgroup_shuffle : require

#ifndef SG
#define SG 8
#endif
#ifndef TM
#define TM 16 // a multiple of SG
#endif
#ifndef TN
#define TN 4 // 8 or 4 if B_ROWS
#endif
#ifdef PARTIAL // writes sums over a part of K
#define EXTRA_BUFFERS(B)
#define EXTRA_SCALARS
#define EPILOGUE(v, index, column)
#else
#include "generated.glsl"
#endif
#define BUFFERS(B) B(0, Float, a) B(1, Float, b) B(2, Real, y) EXTRA_BUFFERS(B)
// b_panel: from one block of SG*TN columns to the next; b_row: from one k to the next; of rows only
#define SCALARS uint M, N, K, tiles_m, tiles_n, batches, a_batch, b_batch, k_part, b_panel, b_row; EXTRA_SCALARS
#include "terrane.glsl"
#ifdef TRN_TEXELS // all rows begin with one
layout(set = 0, binding = 0) uniform samplerBuffer a_texels;
layout(set = 0, binding = 1) uniform samplerBuffer b_texels;
#endif
#include "wide.glsl"

#ifdef PANELS
#define B_OFFSET(k) uint((k) * SG * TN)
#else
#define B_OFFSET(k) (uint(k) * p.b_row)
#endif

#if TN == 8
#define ROUND 1 // rows of b that are loaded at once
#define LOAD_COLUMNS(v, at) LOAD8_FROM(b, at, v)
#else
#define ROUND 8
#define LOAD_COLUMNS(v, at) LOAD4_FROM(b, at, v, 0)
#endif
#ifdef WHOLE_ROUNDS
#define LOAD_ROW(v, kk) LOAD_COLUMNS(v, b_at + DISTANCE(B_OFFSET(kk)))
#else // the last row comes again in place of those behind it
#define LOAD_ROW(v, kk)                                                                                       \
    {                                                                                                         \
        LOAD_COLUMNS(v, b_at)                                                                                 \
        b_at += k + kk + 1u < k_end ? DISTANCE(p.b_row) : DISTANCE(0u);                                       \
    }
#endif

layout(local_size_x = SG) in;
void main()
{
    uint lane = gl_SubgroupInvocationID;
    uint group = GROUP_INDEX;
    uint row = group % p.tiles_m * TM;
    group /= p.tiles_m;
    uint panel = group % p.tiles_n, column = panel * (SG * TN);
    group /= p.tiles_n; // part of K * batches + batch
    uint batch = group % p.batches, part = group / p.batches * p.k_part;
    if (part >= p.K) return; // the last row of groups is not full
    uint k_end = min(part + p.k_part, p.K);
#ifdef A_COLUMNS // columns behind the last are of the next row, or lie behind a: nobody looks at their sums
    POSITION a_first = FIRST(a, batch * p.a_batch + row), a_step = DISTANCE(p.M);
#else
    POSITION a_at[TM / SG];
    [[unroll]] for (int i = 0; i < TM / SG; i++)
        a_at[i] = FIRST(a, batch * p.a_batch + min(row + i * SG + lane, p.M - 1u) * p.K + part);
#endif
#ifdef PANELS
    POSITION b_at = FIRST(b, batch * p.b_batch + panel * p.b_panel + part * p.b_row + lane * TN);
#elif defined B_ROWS
    POSITION b_at = FIRST(b, batch * p.b_batch + part * p.b_row + min(column + lane * TN, p.N - 1u));
#else
    POSITION b_at[TN];
    [[unroll]] for (int j = 0; j < TN; j++)
        b_at[j] = FIRST(b, batch * p.b_batch + min(column + j * SG + lane, p.N - 1u) * p.K + part);
#endif
    float sum[TM][TN];
    [[unroll]] for (int i = 0; i < TM; i++)
        [[unroll]] for (int j = 0; j < TN; j++) sum[i][j] = 0.0;

    for (uint k = part; k < k_end; k += 8u) {
#ifdef A_COLUMNS
        float av[TM / 8][8];
        POSITION a_at = a_first + min(k + lane, k_end - 1u) * a_step;
        [[unroll]] for (int i = 0; i < TM / 8; i++) {
            LOAD8_FROM(a, a_at + DISTANCE(8u * i), av[i])
#ifndef WHOLE_ROUNDS
            [[unroll]] for (int j = 0; j < 8; j++) av[i][j] = k + lane < k_end ? av[i][j] : 0.0;
#endif
        }
#else
        float av[TM / SG][8];
        [[unroll]] for (int i = 0; i < TM / SG; i++) {
            LOAD8_FROM(a, a_at[i], av[i])
            a_at[i] += DISTANCE(8u);
#ifndef WHOLE_ROUNDS // what lies behind the end may be anything
            [[unroll]] for (int kk = 0; kk < 8; kk++) av[i][kk] = k + kk < k_end ? av[i][kk] : 0.0;
#endif
        }
#endif
#ifndef B_ROWS
        float bv[TN][8];
        [[unroll]] for (int j = 0; j < TN; j++) {
            LOAD8_FROM(b, b_at[j], bv[j])
            b_at[j] += DISTANCE(8u);
#ifndef WHOLE_ROUNDS
            [[unroll]] for (int kk = 0; kk < 8; kk++) bv[j][kk] = k + kk < k_end ? bv[j][kk] : 0.0;
#endif
        }
#endif
#if defined B_ROWS && ROUND > 1 // all loads before all sums: loads of texels are calls, which leave no sums in registers
        float rows[ROUND][TN];
        [[unroll]] for (int kk = 0; kk < ROUND; kk++) LOAD_ROW(rows[kk], kk)
#endif
        [[unroll]] for (int kk = 0; kk < 8; kk++) {
#if defined B_ROWS && ROUND == 1
            float rows[1][TN];
            LOAD_ROW(rows[0], kk)
#endif
            [[unroll]] for (int i = 0; i < TM; i++) {
#ifdef A_COLUMNS
                float value = subgroupShuffle(av[i / 8][i % 8], uint(kk));
#else
                float value = subgroupShuffle(av[i / SG][kk], uint(i % SG));
#endif
#ifdef B_ROWS
                [[unroll]] for (int j = 0; j < TN; j++) sum[i][j] += value * rows[kk % ROUND][j];
#else
                [[unroll]] for (int j = 0; j < TN; j++) sum[i][j] += value * bv[j][kk];
#endif
            }
        }
#if defined B_ROWS && defined WHOLE_ROUNDS
        b_at += DISTANCE(8u * p.b_row);
#endif
    }

    // A loop over a copy: one epilogue in the program, not TM * TN of them.
    float tile[TM * TN];
    [[unroll]] for (int i = 0; i < TM; i++)
        [[unroll]] for (int j = 0; j < TN; j++) tile[i * TN + j] = sum[i][j];
    uint rows = min(p.M - row, TM);
#ifdef B_ROWS
    uint first = column + lane * TN, pitch = 1u;
#else
    uint first = column + lane, pitch = SG;
#endif
    uint base = (group * p.M + row) * p.N;
    for (uint t = 0u; t < rows * TN; t++) {
        uint at_column = first + t % TN * pitch;
        uint at = base + t / TN * p.N + at_column;
        float value = tile[t];
        if (at_column < p.N) {
            EPILOGUE(value, at, at_column)
            STORE(y, at, value);
        }
    }
}
