// y = a b for any GPU: a [M,K] (or [K,M] if A_COLUMNS), b [N,K] (or [K,N] if B_ROWS), y [M,N], all by batch. A work group
// makes BM by BN values, each invocation TM by TN of them in blocks of four, from tiles of BK in shared memory. The next
// tile is on its way into registers while this one is multiplied; with STAGES 2 it has room of its own, so that one barrier
// a tile is enough. Rows behind the end of a matrix are its last one again, and never written.
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
#ifndef STAGES
#define STAGES 2
#endif
#ifdef PARTIAL // writes sums over a part of K
#define EXTRA_BUFFERS(B)
#define EXTRA_SCALARS
#define EPILOGUE(v, index, column)
#else
#include "generated.glsl"
#endif
#ifdef HALF // operands of float16
#define SCALAR Half
#define VECTOR Half4
#else
#define SCALAR Float
#define VECTOR Vec4
#endif
#ifdef VEC4_A // what lies in a row of a is whole vec4s
#define TYPE_A VECTOR
#else
#define TYPE_A SCALAR
#endif
#ifdef VEC4_B
#define TYPE_B VECTOR
#else
#define TYPE_B SCALAR
#endif
#define WITH_TYPES(B, type_a, type_b) B(0, type_a, a) B(1, type_b, b) B(2, Real, y) EXTRA_BUFFERS(B)
#define BUFFERS(B) WITH_TYPES(B, TYPE_A, TYPE_B)
#define SCALARS uint M, N, K, tiles_m, tiles_n, batches, a_batch, b_batch, k_part; EXTRA_SCALARS
#include "terrane.glsl"

const uint ACROSS = BN / TN, LOCAL = (BM / TM) * (BN / TN);
const uint A_STEP = BM / 4 + 1, B_STEP = BN / 4 + 1; // vec4s of a tile's row, one more against bank conflicts
const uint BAND = 8;                                 // rows of tiles that are made together, for caches
layout(local_size_x = (BM / TM) * (BN / TN)) in;
shared vec4 a_tile[STAGES * BK * (BM / 4 + 1)]; // [k][row]
shared vec4 b_tile[STAGES * BK * (BN / 4 + 1)]; // [k][column]

// Four values from `at` on; or the first `count` of them, and zeros.
#define LOADERS(name, four, some)                                                                             \
    vec4 four(uint at)                                                                                        \
    {                                                                                                         \
        return vec4(AT(name, at), AT(name, at + 1u), AT(name, at + 2u), AT(name, at + 3u));                   \
    }                                                                                                         \
    vec4 some(uint at, uint count)                                                                            \
    {                                                                                                         \
        uint last = max(count, 1u) - 1u;                                                                      \
        vec4 v = vec4(AT(name, at), AT(name, at + min(1u, last)), AT(name, at + min(2u, last)),               \
                      AT(name, at + last));                                                                   \
        return mix(vec4(0.0), v, lessThan(uvec4(0, 1, 2, 3), uvec4(count)));                                  \
    }
#define WIDE_LOADERS(name, four, some)                                                                        \
    vec4 four(uint at) { return vec4(AT(name, at / 4u)); }                                                    \
    vec4 some(uint at, uint count)                                                                            \
    {                                                                                                         \
        vec4 v = vec4(AT(name, at / 4u));                                                                     \
        return count == 0u ? vec4(0.0) : v;                                                                   \
    }
#ifdef VEC4_A
WIDE_LOADERS(a, a_four, a_some)
#else
LOADERS(a, a_four, a_some)
#endif
#ifdef VEC4_B
WIDE_LOADERS(b, b_four, b_some)
#else
LOADERS(b, b_four, b_some)
#endif

// Block `block` of 4 k by 4 rows, of a tile whose rows begin at `first` and that holds k to k + BK (to k_end unless whole).
// Of a matrix [rows, K]: K goes on from block to block.
#define ROW_BLOCKS(block_of, four, some, size)                                                                \
    uvec2 block_of##_place(uint block) { return uvec2(block % (BK / 4u), block / (BK / 4u)); }                \
    mat4 block_of(uint block, uint base, uint first, uint rows, uint k, uint k_end, bool whole)               \
    {                                                                                                         \
        uvec2 place = block_of##_place(block);                                                                \
        uint row = first + 4u * place.y, at_k = k + 4u * place.x, count = min(4u, max(k_end, at_k) - at_k);   \
        mat4 m;                                                                                               \
        [[unroll]] for (uint r = 0u; r < 4u; r++) {                                                           \
            uint at = base + min(row + r, rows - 1u) * p.K;                                                   \
            if (whole)                                                                                        \
                m[r] = four(at + at_k);                                                                       \
            else                                                                                              \
                m[r] = some(at + min(at_k, k_end - 1u), count);                                               \
        }                                                                                                     \
        return transpose(m);                                                                                  \
    }
// Of a matrix [K, rows]: the rows go on.
#define COLUMN_BLOCKS(block_of, four, some, size)                                                             \
    uvec2 block_of##_place(uint block) { return uvec2(block / (size / 4u), block % (size / 4u)); }            \
    mat4 block_of(uint block, uint base, uint first, uint rows, uint k, uint k_end, bool whole)               \
    {                                                                                                         \
        uvec2 place = block_of##_place(block);                                                                \
        uint row = min(first + 4u * place.y, rows - 1u), at_k = k + 4u * place.x;                             \
        mat4 m;                                                                                               \
        [[unroll]] for (uint r = 0u; r < 4u; r++) {                                                           \
            uint at = base + min(at_k + r, k_end - 1u) * rows + row;                                          \
            m[r] = some(at, whole || at_k + r < k_end ? min(4u, rows - row) : 0u);                            \
        }                                                                                                     \
        return m;                                                                                             \
    }
#ifdef A_COLUMNS
COLUMN_BLOCKS(a_block, a_four, a_some, BM)
#else
ROW_BLOCKS(a_block, a_four, a_some, BM)
#endif
#ifdef B_ROWS
COLUMN_BLOCKS(b_block, b_four, b_some, BN)
#else
ROW_BLOCKS(b_block, b_four, b_some, BN)
#endif

// The blocks of a tile, first those of a, are dealt to the invocations in turn.
const uint A_BLOCKS = BM * BK / 16, B_BLOCKS = BN * BK / 16;
const uint LOADS = (A_BLOCKS + B_BLOCKS + LOCAL - 1) / LOCAL;
mat4 held[LOADS];

void hold(uint a_base, uint b_base, uint row0, uint column0, uint k, uint k_end, bool whole)
{
    [[unroll]] for (uint i = 0u; i < LOADS; i++) {
        uint block = i * LOCAL + gl_LocalInvocationIndex;
        if (block < A_BLOCKS)
            held[i] = a_block(block, a_base, row0, p.M, k, k_end, whole);
        else if (block < A_BLOCKS + B_BLOCKS)
            held[i] = b_block(block - A_BLOCKS, b_base, column0, p.N, k, k_end, whole);
    }
}

void load(uint a_base, uint b_base, uint row0, uint column0, uint k, uint k_end)
{
    if (k + BK <= k_end)
        hold(a_base, b_base, row0, column0, k, k_end, true);
    else
        hold(a_base, b_base, row0, column0, k, k_end, false);
}

void put(uint stage)
{
    [[unroll]] for (uint i = 0u; i < LOADS; i++) {
        uint block = i * LOCAL + gl_LocalInvocationIndex;
        if (block < A_BLOCKS) {
            uvec2 place = a_block_place(block);
            [[unroll]] for (uint r = 0u; r < 4u; r++)
                a_tile[(stage * BK + 4u * place.x + r) * A_STEP + place.y] = held[i][r];
        } else if (block < A_BLOCKS + B_BLOCKS) {
            uvec2 place = b_block_place(block - A_BLOCKS);
            [[unroll]] for (uint r = 0u; r < 4u; r++)
                b_tile[(stage * BK + 4u * place.x + r) * B_STEP + place.y] = held[i][r];
        }
    }
}

void main()
{
    uint group = GROUP_INDEX, tiles = p.tiles_m * p.tiles_n, tile = group % tiles;
    group /= tiles; // part of K * batches + batch
    uint band = tile / (BAND * p.tiles_n) * BAND, high = min(BAND, p.tiles_m - band);
    tile -= band * p.tiles_n;
    uint row0 = (band + tile % high) * BM, column0 = tile / high * BN;
    uint batch = group % p.batches, part = group / p.batches * p.k_part;
    if (part >= p.K) return; // the last row of groups is not full
    uint k_end = min(part + p.k_part, p.K);
    uint a_base = batch * p.a_batch, b_base = batch * p.b_batch;
    uint ty = gl_LocalInvocationIndex / ACROSS, tx = gl_LocalInvocationIndex % ACROSS;
    vec4 sum[TM][TN / 4];
    [[unroll]] for (uint i = 0u; i < TM; i++)
        [[unroll]] for (uint j = 0u; j < TN / 4; j++) sum[i][j] = vec4(0.0);

    uint stage = 0u;
    load(a_base, b_base, row0, column0, part, k_end);
    for (uint k = part; k < k_end; k += BK) {
        put(stage);
        barrier();
        if (k + BK < k_end) load(a_base, b_base, row0, column0, k + BK, k_end);
        [[unroll]] for (uint kk = 0u; kk < BK; kk++) {
            vec4 av[TM / 4], bv[TN / 4];
            [[unroll]] for (uint i = 0u; i < TM / 4; i++)
                av[i] = a_tile[(stage * BK + kk) * A_STEP + i * (BM / TM) + ty];
            [[unroll]] for (uint j = 0u; j < TN / 4; j++)
                bv[j] = b_tile[(stage * BK + kk) * B_STEP + j * ACROSS + tx];
            [[unroll]] for (uint i = 0u; i < TM; i++)
                [[unroll]] for (uint j = 0u; j < TN / 4; j++)
                    sum[i][j] = fma(vec4(av[i / 4][i % 4]), bv[j], sum[i][j]);
        }
#if STAGES == 2
        stage ^= 1u;
#else
        barrier();
#endif
    }

    [[unroll]] for (uint i = 0u; i < TM; i++) {
        uint row = row0 + (i / 4u * (BM / TM) + ty) * 4u + i % 4u;
        [[unroll]] for (uint j = 0u; j < TN / 4; j++) {
            uint column = column0 + (j * ACROSS + tx) * 4u;
            uint at = (group * p.M + row) * p.N + column;
            [[unroll]] for (uint c = 0u; c < 4u; c++) {
                if (row >= p.M || column + c >= p.N) continue;
                float value = sum[i][j][c];
                EPILOGUE(value, at + c, column + c)
                STORE(y, at + c, value);
            }
        }
    }
}
