// y = a b on matrix cores: a [M,K] (or [K,M] if A_COLUMNS), b [N,K] (or [K,N] if B_ROWS), both of float16, y [M,N], sums of
// float32, all by batch. A work group makes BM by BN values, each subgroup WM by WN of them from cooperative matrices of CM
// by CN by CK. Tiles of BK lie in shared memory as they lie in memory, eight values a uvec4; the next tile is on its way into
// registers while this one is multiplied. Rows behind the end of a matrix are its last one again, and never written.
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_cooperative_matrix : require

#ifndef BM
#define BM 64
#endif
#ifndef BN
#define BN 64
#endif
#ifndef BK
#define BK 32
#endif
#ifndef WM
#define WM 32
#endif
#ifndef WN
#define WN 32
#endif
#ifndef CM
#define CM 16
#endif
#ifndef CN
#define CN 16
#endif
#ifndef CK
#define CK 16
#endif
#ifndef STAGES
#define STAGES 2
#endif
#ifndef WIDTH_A // 8 or 4: what lies in a row of a is a multiple of it
#define WIDTH_A 1
#endif
#ifndef WIDTH_B
#define WIDTH_B 1
#endif
#ifdef PARTIAL // writes sums over a part of K
#define EXTRA_BUFFERS(B)
#define EXTRA_SCALARS
#define EPILOGUE(v, index, column)
#else
#include "generated.glsl"
#endif
#ifndef HALF
#define HALF 1
#endif
// eight values of float16, as they lie in memory
#ifdef TRN_ADDRESS
#extension GL_EXT_buffer_reference : require
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Uvec4Ref { uvec4 at[]; };
#else
#define TRN_TYPE_Uvec4 uvec4
#endif
#define TRN_ELEMENT_Uvec4(index) Uvec4
#define TYPE_OF_8 Uvec4
#define TYPE_OF_4 Half4
#define TYPE_OF_1 Half
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define WITH_TYPES(B, type_a, type_b) B(0, type_a, a) B(1, type_b, b) B(2, Real, y) EXTRA_BUFFERS(B)
#define BUFFERS(B) WITH_TYPES(B, JOIN(TYPE_OF_, WIDTH_A), JOIN(TYPE_OF_, WIDTH_B))
#define SCALARS uint M, N, K, tiles_m, tiles_n, batches, a_batch, b_batch, k_part; EXTRA_SCALARS
#include "terrane.glsl"

const uint SG = TRN_SUBGROUP_SIZE;
const uint ACROSS = BN / WN, SUBGROUPS = (BM / WM) * (BN / WN), LOCAL = SUBGROUPS * SG;
const uint BAND = 8; // rows of tiles that are made together, for caches
// uvec4s of a tile's row, one more against bank conflicts, and of a tile
#ifdef A_COLUMNS
const uint A_STEP = BM / 8 + 1, A_SIZE = BK * (BM / 8 + 1);
const int A_LAYOUT = gl_CooperativeMatrixLayoutColumnMajor;
#define A_PLACE(row, k) ((k) * A_STEP + (row) / 8u)
#else
const uint A_STEP = BK / 8 + 1, A_SIZE = BM * (BK / 8 + 1);
const int A_LAYOUT = gl_CooperativeMatrixLayoutRowMajor;
#define A_PLACE(row, k) ((row) * A_STEP + (k) / 8u)
#endif
#ifdef B_ROWS
const uint B_STEP = BN / 8 + 1, B_SIZE = BK * (BN / 8 + 1);
const int B_LAYOUT = gl_CooperativeMatrixLayoutRowMajor;
#define B_PLACE(row, k) ((k) * B_STEP + (row) / 8u)
#else
const uint B_STEP = BK / 8 + 1, B_SIZE = BN * (BK / 8 + 1);
const int B_LAYOUT = gl_CooperativeMatrixLayoutColumnMajor;
#define B_PLACE(row, k) ((row) * B_STEP + (k) / 8u)
#endif
layout(local_size_x = (BM / WM) * (BN / WN) * TRN_SUBGROUP_SIZE) in;
shared uvec4 a_tile[STAGES * A_SIZE];
shared uvec4 b_tile[STAGES * B_SIZE];
shared float y_tile[SUBGROUPS * CM * CN];

// The first `count` of eight values from `at` on, and zeros.
#define LOADER_8(name, eight)                                                                                 \
    uvec4 eight(uint at, uint count)                                                                          \
    {                                                                                                         \
        uvec4 v = AT(name, at / 8u);                                                                          \
        return count == 0u ? uvec4(0u) : v;                                                                   \
    }
#define LOADER_4(name, eight)                                                                                 \
    uvec4 eight(uint at, uint count)                                                                          \
    {                                                                                                         \
        f16vec4 low = AT(name, at / 4u), high = AT(name, at / 4u + (count > 4u ? 1u : 0u));                   \
        uvec4 v = uvec4(packFloat2x16(low.xy), packFloat2x16(low.zw), packFloat2x16(high.xy),                 \
                        packFloat2x16(high.zw));                                                              \
        return uvec4(count > 0u ? v.xy : uvec2(0u), count > 4u ? v.zw : uvec2(0u));                           \
    }
#define LOADER_1(name, eight)                                                                                 \
    uvec4 eight(uint at, uint count)                                                                          \
    {                                                                                                         \
        uint last = max(count, 1u) - 1u;                                                                      \
        uvec4 v;                                                                                              \
        [[unroll]] for (uint i = 0u; i < 4u; i++) {                                                           \
            float16_t low = AT(name, at + min(2u * i, last)), high = AT(name, at + min(2u * i + 1u, last));   \
            v[i] = packFloat2x16(f16vec2(2u * i < count ? low : float16_t(0.0),                               \
                                         2u * i + 1u < count ? high : float16_t(0.0)));                       \
        }                                                                                                     \
        return v;                                                                                             \
    }
#define LOADER(width, name, eight) JOIN(LOADER_, width)(name, eight)
LOADER(WIDTH_A, a, a_eight)
LOADER(WIDTH_B, b, b_eight)

// Piece `piece` of a tile whose rows begin at `first` and that holds k to k + BK (to k_end unless whole), and its place.
// Of a matrix [rows, K]: K goes on from piece to piece.
#define ROW_PIECES(piece_of, eight, step, size)                                                               \
    uint piece_of##_place(uint piece) { return piece / (BK / 8u) * step + piece % (BK / 8u); }                \
    uvec4 piece_of(uint piece, uint base, uint first, uint rows, uint k, uint k_end, bool whole)              \
    {                                                                                                         \
        uint row = min(first + piece / (BK / 8u), rows - 1u), at_k = k + piece % (BK / 8u) * 8u;              \
        if (whole) return eight(base + row * p.K + at_k, 8u);                                                 \
        return eight(base + row * p.K + min(at_k, k_end - 1u), min(8u, max(k_end, at_k) - at_k));             \
    }
// Of a matrix [K, rows]: the rows go on.
#define COLUMN_PIECES(piece_of, eight, step, size)                                                            \
    uint piece_of##_place(uint piece) { return piece / (size / 8u) * step + piece % (size / 8u); }            \
    uvec4 piece_of(uint piece, uint base, uint first, uint rows, uint k, uint k_end, bool whole)              \
    {                                                                                                         \
        uint row = min(first + piece % (size / 8u) * 8u, rows - 1u), at_k = k + piece / (size / 8u);          \
        uint count = whole || at_k < k_end ? min(8u, rows - row) : 0u;                                        \
        return eight(base + min(at_k, k_end - 1u) * rows + row, count);                                       \
    }
#ifdef A_COLUMNS
COLUMN_PIECES(a_piece, a_eight, A_STEP, BM)
#else
ROW_PIECES(a_piece, a_eight, A_STEP, BM)
#endif
#ifdef B_ROWS
COLUMN_PIECES(b_piece, b_eight, B_STEP, BN)
#else
ROW_PIECES(b_piece, b_eight, B_STEP, BN)
#endif

// The pieces of a tile, first those of a, are dealt to the invocations in turn.
const uint A_PIECES = BM * BK / 8, B_PIECES = BN * BK / 8;
const uint LOADS = (A_PIECES + B_PIECES + LOCAL - 1) / LOCAL;
uvec4 held[LOADS];

void hold(uint a_base, uint b_base, uint row0, uint column0, uint k, uint k_end, bool whole)
{
    [[unroll]] for (uint i = 0u; i < LOADS; i++) {
        uint piece = i * LOCAL + gl_LocalInvocationIndex;
        if (piece < A_PIECES)
            held[i] = a_piece(piece, a_base, row0, p.M, k, k_end, whole);
        else if (piece < A_PIECES + B_PIECES)
            held[i] = b_piece(piece - A_PIECES, b_base, column0, p.N, k, k_end, whole);
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
        uint piece = i * LOCAL + gl_LocalInvocationIndex;
        if (piece < A_PIECES)
            a_tile[stage * A_SIZE + a_piece_place(piece)] = held[i];
        else if (piece < A_PIECES + B_PIECES)
            b_tile[stage * B_SIZE + b_piece_place(piece - A_PIECES)] = held[i];
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
    uint row1 = gl_SubgroupID / ACROSS * WM, column1 = gl_SubgroupID % ACROSS * WN;
    coopmat<float, gl_ScopeSubgroup, CM, CN, gl_MatrixUseAccumulator> sum[WM / CM][WN / CN];
    [[unroll]] for (uint i = 0u; i < WM / CM; i++)
        [[unroll]] for (uint j = 0u; j < WN / CN; j++)
            sum[i][j] = coopmat<float, gl_ScopeSubgroup, CM, CN, gl_MatrixUseAccumulator>(0.0);

    uint stage = 0u;
    load(a_base, b_base, row0, column0, part, k_end);
    for (uint k = part; k < k_end; k += BK) {
        put(stage);
        barrier();
        if (k + BK < k_end) load(a_base, b_base, row0, column0, k + BK, k_end);
        [[unroll]] for (uint kk = 0u; kk < BK; kk += CK) {
            coopmat<float16_t, gl_ScopeSubgroup, CM, CK, gl_MatrixUseA> am[WM / CM];
            [[unroll]] for (uint i = 0u; i < WM / CM; i++)
                coopMatLoad(am[i], a_tile, stage * A_SIZE + A_PLACE(row1 + i * CM, kk), A_STEP, A_LAYOUT);
            [[unroll]] for (uint j = 0u; j < WN / CN; j++) {
                coopmat<float16_t, gl_ScopeSubgroup, CK, CN, gl_MatrixUseB> bm;
                coopMatLoad(bm, b_tile, stage * B_SIZE + B_PLACE(column1 + j * CN, kk), B_STEP, B_LAYOUT);
                [[unroll]] for (uint i = 0u; i < WM / CM; i++) sum[i][j] = coopMatMulAdd(am[i], bm, sum[i][j]);
            }
        }
#if STAGES == 2
        stage ^= 1u;
#else
        barrier();
#endif
    }

    uint own = gl_SubgroupID * CM * CN;
    [[unroll]] for (uint i = 0u; i < WM / CM; i++) {
        [[unroll]] for (uint j = 0u; j < WN / CN; j++) {
            coopMatStore(sum[i][j], y_tile, own, CN, gl_CooperativeMatrixLayoutRowMajor);
            subgroupBarrier();
            for (uint e = gl_SubgroupInvocationID; e < CM * CN; e += SG) {
                uint row = row0 + row1 + i * CM + e / CN, column = column0 + column1 + j * CN + e % CN;
                if (row >= p.M || column >= p.N) continue;
                uint at = (group * p.M + row) * p.N + column;
                float value = y_tile[own + e];
                EPILOGUE(value, at, column)
                STORE(y, at, value);
            }
            subgroupBarrier();
        }
    }
}
