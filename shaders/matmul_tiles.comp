// y = a b for any GPU: a [M,K] (or [K,M] if A_COLUMNS), b [N,K] (or [K,N] if B_ROWS), y [M,N], all by batch. A work group
// makes BM by BN values, each invocation TM by TN of them, from tiles of BK in shared memory whose rows are padded against
// bank conflicts. Values of a tile that lie behind an end are zero.
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require

#ifndef BM
#define BM 64
#endif
#ifndef BN
#define BN 64
#endif
#ifndef BK
#define BK 16
#endif
#ifndef TM
#define TM 4
#endif
#ifndef TN
#define TN 4
#endif
#ifdef PARTIAL // writes sums over a part of K
#define EXTRA_BUFFERS(B)
#define EXTRA_SCALARS
#define EPILOGUE(v, index, column)
#else
#include "generated.glsl"
#endif
#if defined VEC4 && defined HALF // rows of both operands are whole vec4s; HALF: of float16
#define BUFFERS(B) B(0, Half4, a) B(1, Half4, b) B(2, Real, y) EXTRA_BUFFERS(B)
#elif defined VEC4
#define BUFFERS(B) B(0, Vec4, a) B(1, Vec4, b) B(2, Real, y) EXTRA_BUFFERS(B)
#elif defined HALF
#define BUFFERS(B) B(0, Half, a) B(1, Half, b) B(2, Real, y) EXTRA_BUFFERS(B)
#else
#define BUFFERS(B) B(0, Float, a) B(1, Float, b) B(2, Real, y) EXTRA_BUFFERS(B)
#endif
#define SCALARS uint M, N, K, tiles_m, tiles_n, batches, a_batch, b_batch, k_part; EXTRA_SCALARS
#include "terrane.glsl"

const uint LOCAL = (BM / TM) * (BN / TN);
const uint A_ROW = BM + 4, B_ROW = BN + 4;
layout(local_size_x = (BM / TM) * (BN / TN)) in;
shared float a_tile[BK * A_ROW];
shared float b_tile[BK * B_ROW];

#ifdef VEC4
const uint WIDTH = 4;
#else
const uint WIDTH = 1;
#endif

// Rows of a matrix [rows, K] whose K is contiguous, into tile[k][row].
#define LOAD_ROWS(matrix, tile, stride, size, base, first, rows)                                              \
    for (uint t = gl_LocalInvocationIndex; t < size * BK / WIDTH; t += LOCAL) {                               \
        uint r = t / (BK / WIDTH), kk = t % (BK / WIDTH) * WIDTH;                                             \
        bool inside = first + r < rows && k + kk < k_end;                                                     \
        uint at = base + min(first + r, rows - 1u) * p.K + min(k + kk, k_end - 1u);                           \
        STORE_DOWN(tile, stride, kk, r, matrix, at, inside)                                                   \
    }
// Columns of a matrix [K, columns], whose columns are contiguous, into the same.
#define LOAD_COLUMNS(matrix, tile, stride, size, base, first, columns)                                        \
    for (uint t = gl_LocalInvocationIndex; t < size * BK / WIDTH; t += LOCAL) {                               \
        uint kk = t / (size / WIDTH), c = t % (size / WIDTH) * WIDTH;                                         \
        bool inside = first + c < columns && k + kk < k_end;                                                  \
        uint at = base + min(k + kk, k_end - 1u) * columns + min(first + c, columns - 1u);                    \
        STORE_ALONG(tile, stride, kk, c, matrix, at, inside)                                                  \
    }
#ifdef VEC4
#define STORE_DOWN(tile, stride, kk, r, matrix, at, inside)                                                   \
    vec4 v = inside ? vec4(AT(matrix, at / 4u)) : vec4(0.0);                                                  \
    [[unroll]] for (uint i = 0; i < 4; i++) tile[(kk + i) * stride + r] = v[i];
#define STORE_ALONG(tile, stride, kk, c, matrix, at, inside)                                                  \
    vec4 v = inside ? vec4(AT(matrix, at / 4u)) : vec4(0.0);                                                  \
    [[unroll]] for (uint i = 0; i < 4; i++) tile[kk * stride + c + i] = v[i];
#else
#define STORE_DOWN(tile, stride, kk, r, matrix, at, inside)                                                   \
    float v = float(AT(matrix, at));                                                                          \
    tile[kk * stride + r] = inside ? v : 0.0;
#define STORE_ALONG STORE_DOWN
#endif

void main()
{
    uint group = GROUP_INDEX;
    uint row0 = group % p.tiles_m * BM;
    group /= p.tiles_m;
    uint column0 = group % p.tiles_n * BN;
    group /= p.tiles_n; // part of K * batches + batch
    uint batch = group % p.batches, part = group / p.batches * p.k_part;
    if (part >= p.K) return; // the last row of groups is not full
    uint k_end = min(part + p.k_part, p.K);
    uint a_base = batch * p.a_batch, b_base = batch * p.b_batch;
    uint ty = gl_LocalInvocationIndex / (BN / TN), tx = gl_LocalInvocationIndex % (BN / TN);
    float sum[TM][TN];
    [[unroll]] for (int i = 0; i < TM; i++)
        [[unroll]] for (int j = 0; j < TN; j++) sum[i][j] = 0.0;

    for (uint k = part; k < k_end; k += BK) {
#ifdef A_COLUMNS
        LOAD_COLUMNS(a, a_tile, A_ROW, BM, a_base, row0, p.M)
#else
        LOAD_ROWS(a, a_tile, A_ROW, BM, a_base, row0, p.M)
#endif
#ifdef B_ROWS
        LOAD_COLUMNS(b, b_tile, B_ROW, BN, b_base, column0, p.N)
#else
        LOAD_ROWS(b, b_tile, B_ROW, BN, b_base, column0, p.N)
#endif
        barrier();
        [[unroll]] for (uint kk = 0; kk < BK; kk++) {
            float av[TM], bv[TN];
            [[unroll]] for (uint i = 0; i < TM; i++) av[i] = a_tile[kk * A_ROW + ty * TM + i];
            [[unroll]] for (uint j = 0; j < TN; j++) bv[j] = b_tile[kk * B_ROW + j * (BN / TN) + tx];
            [[unroll]] for (uint i = 0; i < TM; i++)
                [[unroll]] for (uint j = 0; j < TN; j++) sum[i][j] = fma(av[i], bv[j], sum[i][j]);
        }
        barrier();
    }

    [[unroll]] for (uint i = 0; i < TM; i++) {
        uint row = row0 + ty * TM + i;
        [[unroll]] for (uint j = 0; j < TN; j++) {
            uint column = column0 + j * (BN / TN) + tx;
            if (row >= p.M || column >= p.N) continue;
            uint at = (group * p.M + row) * p.N + column;
            float value = sum[i][j];
            EPILOGUE(value, at, column)
            STORE(y, at, value);
        }
    }
}
