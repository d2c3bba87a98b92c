// y = a b for CPU drivers: a [M,K] (or [K,M] if A_COLUMNS), b [N,K] (or [K,N] if B_ROWS), y [M,N], all by batch. One subgroup of SG lanes makes
// TM rows by SG*TN columns. Every load brings 8 neighbouring values to each lane: drivers that load lane by lane pay per
// load, not per byte. Lanes hold columns of b; a row of a lies in one lane and reaches the others by a shuffle with a
// constant index, which is a single instruction there. So does a part of a row of a, of its columns, if A_COLUMNS.
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
#define SCALARS uint M, N, K, tiles_m, tiles_n, batches, a_batch, b_batch, k_part; EXTRA_SCALARS
#include "terrane.glsl"
#include "wide.glsl"
#ifdef HALF // operands are of float16
#define BYTES 2ul
#define LOAD8_OPERAND LOAD8_HALF
#define LOAD4_OPERAND LOAD4_HALF
#else
#define BYTES 4ul
#define LOAD8_OPERAND LOAD8
#define LOAD4_OPERAND LOAD4
#endif

layout(local_size_x = SG) in;
void main()
{
    uint lane = gl_SubgroupInvocationID;
    uint group = GROUP_INDEX;
    uint row = group % p.tiles_m * TM;
    group /= p.tiles_m;
    uint column = group % p.tiles_n * (SG * TN);
    group /= p.tiles_n; // part of K * batches + batch
    uint batch = group % p.batches, part = group / p.batches * p.k_part;
    if (part >= p.K) return; // the last row of groups is not full
    uint k_end = min(part + p.k_part, p.K);
#ifdef A_COLUMNS // columns behind the last are of the next row, or lie behind a: nobody looks at their sums
    uint64_t a_first = uint64_t(p.a) + BYTES * (batch * p.a_batch + row), a_step = BYTES * p.M;
#else
    uint64_t a_at[TM / SG];
    [[unroll]] for (int i = 0; i < TM / SG; i++) {
        uint at = batch * p.a_batch + min(row + i * SG + lane, p.M - 1u) * p.K + part;
        a_at[i] = uint64_t(p.a) + BYTES * at;
    }
#endif
#ifdef B_ROWS
    uint64_t b_at = uint64_t(p.b) + BYTES * (batch * p.b_batch + part * p.N + min(column + lane * TN, p.N - 1u));
#else
    uint64_t b_at[TN];
    [[unroll]] for (int j = 0; j < TN; j++) {
        uint at = batch * p.b_batch + min(column + j * SG + lane, p.N - 1u) * p.K + part;
        b_at[j] = uint64_t(p.b) + BYTES * at;
    }
#endif
    float sum[TM][TN];
    [[unroll]] for (int i = 0; i < TM; i++)
        [[unroll]] for (int j = 0; j < TN; j++) sum[i][j] = 0.0;

    for (uint k = part; k < k_end; k += 8u) {
#ifdef A_COLUMNS
        float av[TM / 8][8];
        uint64_t a_at = a_first + min(k + lane, k_end - 1u) * a_step;
        [[unroll]] for (int i = 0; i < TM / 8; i++) {
            LOAD8_OPERAND(a_at + 8ul * BYTES * i, av[i], 0)
            [[unroll]] for (int j = 0; j < 8; j++) av[i][j] = k + lane < k_end ? av[i][j] : 0.0;
        }
#else
        float av[TM / SG][8];
        [[unroll]] for (int i = 0; i < TM / SG; i++) {
            LOAD8_OPERAND(a_at[i], av[i], 0)
            a_at[i] += 8ul * BYTES;
            // what lies behind the end may be anything
            [[unroll]] for (int kk = 0; kk < 8; kk++) av[i][kk] = k + kk < k_end ? av[i][kk] : 0.0;
        }
#endif
#ifndef B_ROWS
        float bv[TN][8];
        [[unroll]] for (int j = 0; j < TN; j++) {
            LOAD8_OPERAND(b_at[j], bv[j], 0)
            b_at[j] += 8ul * BYTES;
            [[unroll]] for (int kk = 0; kk < 8; kk++) bv[j][kk] = k + kk < k_end ? bv[j][kk] : 0.0;
        }
#endif
        [[unroll]] for (int kk = 0; kk < 8; kk++) {
#ifdef B_ROWS
            float bv[TN];
#if TN == 8
            LOAD8_OPERAND(b_at, bv, 0)
#else
            LOAD4_OPERAND(b_at, bv, 0)
#endif
            b_at += k + kk + 1u < k_end ? BYTES * p.N : 0ul;
#endif
            [[unroll]] for (int i = 0; i < TM; i++) {
#ifdef A_COLUMNS
                float value = subgroupShuffle(av[i / 8][i % 8], uint(kk));
#else
                float value = subgroupShuffle(av[i / SG][kk], uint(i % SG));
#endif
#ifdef B_ROWS
                [[unroll]] for (int j = 0; j < TN; j++) sum[i][j] += value * bv[j];
#else
                [[unroll]] for (int j = 0; j < TN; j++) sum[i][j] += value * bv[j][kk];
#endif
            }
        }
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
