// y = a b for CPU drivers that find uniform loads by themselves: a [M,K] (or [K,M] if A_COLUMNS), b in rows of neighbouring columns, y [M,N], all
// by batch. One subgroup of SG lanes makes TM rows by SG*TN columns. Values of a are uniform loads, broadcast for free.
// A vector of b is made of SG uniform loads and a select by lane, which such drivers turn into one vector load; nothing
// else comes near it there. b is packed in panels of SG*TN columns, or plain [K,N].
#version 460
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_basic : require

#ifndef SG
#define SG 8
#endif
#ifndef TM
#define TM 12
#endif
#ifndef TN
#define TN 2
#endif
#ifndef UK
#define UK 16 // values of K per round
#endif
#ifdef PARTIAL // writes sums over a part of K
#define EXTRA_BUFFERS(B)
#define EXTRA_SCALARS
#define EPILOGUE(v, index, column)
#else
#include "generated.glsl"
#endif
#define BUFFERS(B) B(0, Float, a) B(1, Float, b) B(2, Real, y) EXTRA_BUFFERS(B)
// b_panel: from one block of SG*TN columns to the next; b_row: from one k to the next
#define SCALARS uint M, N, K, tiles_m, tiles_n, batches, a_batch, b_batch, k_part, b_panel, b_row; EXTRA_SCALARS
#include "terrane.glsl"

layout(local_size_x = SG) in;
// Offsets from a reference must be literals: they become part of the instruction.
layout(buffer_reference, std430, buffer_reference_align = 4) buffer RowRef { float at[UK]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer PanelRef { float at[UK * TM]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer LanesRef { float at[UK * SG * TN]; };

layout(buffer_reference, std430, buffer_reference_align = 2) buffer LineRef { float at[SG * TN]; };
#define LINE 64 // bytes
#ifdef TRN_RESULT_HALF
#define Y_BYTES 2
#else
#define Y_BYTES 4
#endif

float load_lanes(uint64_t address, int first)
{
    LanesRef from = LanesRef(address);
    uint lane = gl_SubgroupInvocationID;
    float v[SG];
    [[unroll]] for (int i = 0; i < SG; i++) v[i] = from.at[first + i];
    float value = v[0];
    [[unroll]] for (int i = 1; i < SG; i++) value = mix(value, v[i], lane == uint(i));
    return value;
}

// Looks at the lines of memory that y will be written to, so that they are at hand by then: values leave these drivers'
// kernels one by one, and what waits for a line to come soon fills the processor's queue of stores. Returns 0, which the
// driver cannot know: the place to store at depends on it.
uint fetch_lines(uint first, uint rows)
{
    uint seen = 0u;
    [[unroll]] for (int i = 0; i < TM; i++) {
        uint64_t row = uint64_t(p.y) + Y_BYTES * uint64_t(first + min(uint(i), rows - 1u) * p.N);
        [[unroll]] for (int at = 0; at < SG * TN * Y_BYTES; at += LINE)
            seen |= floatBitsToUint(LineRef(row).at[at / 4]);
    }
    return seen & p.batches >> 31;
}

void main()
{
    uint lane = gl_SubgroupInvocationID;
    uint group = GROUP_INDEX;
#ifdef COLUMNS_FIRST // all of b stays in a cache: y is written from front to back
    uint panel = group % p.tiles_n, row = group / p.tiles_n % p.tiles_m * TM;
#else
    uint row = group % p.tiles_m * TM, panel = group / p.tiles_m % p.tiles_n;
#endif
    uint column = panel * (SG * TN);
    group /= p.tiles_m * p.tiles_n; // part of K * batches + batch
    uint batch = group % p.batches, part = group / p.batches * p.k_part;
    // The last row of groups is not full. A return would not do: uniform loads are done with all lanes off, too.
    bool extra = part >= p.K;
    part = extra ? 0u : part;
    uint k_end = min(part + p.k_part, p.K);
#ifdef A_PANELS // [M / TM][K][TM]
    uint64_t a_at = uint64_t(p.a) + 4ul * (batch * p.a_batch + (row / TM * p.K + part) * TM), a_step = 4ul * TM;
#elif defined A_COLUMNS // columns behind the last are those of the next row, or of what lies behind a: nobody looks at their sums
    uint64_t a_at = uint64_t(p.a) + 4ul * (batch * p.a_batch + part * p.M + row), a_step = 4ul * p.M;
#else
    uint64_t a_at[TM];
    [[unroll]] for (int i = 0; i < TM; i++)
        a_at[i] = uint64_t(p.a) + 4ul * (batch * p.a_batch + min(row + i, p.M - 1u) * p.K + part);
#endif
    uint64_t b_at = uint64_t(p.b) + 4ul * (batch * p.b_batch + panel * p.b_panel + part * p.b_row);
    uint64_t b_step = 4ul * p.b_row;
    float sum[TM][TN];
    [[unroll]] for (int i = 0; i < TM; i++)
        [[unroll]] for (int j = 0; j < TN; j++) sum[i][j] = 0.0;

    uint rows = min(p.M - row, TM);
    uint base = extra ? 0u : (group * p.M + row) * p.N;
    base += fetch_lines(base + column, rows);

    // A loop whose test comes first is run once more by these drivers, with all lanes off: loads, arithmetic and all. So the
    // test is behind the body. What lies under an `if` is run, too: there addresses stay on what may be read.
    uint rounds = (k_end - part) / UK, rest = (k_end - part) % UK;
    uint64_t b_round = UK * b_step;
#ifdef WHOLE_ROUNDS
#define B_STEP b_step
#define A_STEP a_step
#else
#define B_STEP (rounds > 0u ? b_step : 0ul)
#define A_STEP (rounds > 0u ? a_step : 0ul)
#endif
    uint r = 0u;
#ifndef WHOLE_ROUNDS
    if (rounds > 0u)
#endif
    do {
        uint64_t now = r, b_now = b_at + now * b_round;
#ifdef A_COLUMNS
        uint64_t a_now = a_at + now * (UK * a_step);
#else
        uint64_t a_offset = now * (4ul * UK);
#endif
        [[unroll]] for (int kk = 0; kk < UK; kk++) {
            float bv[TN];
#ifdef PANELS // rows follow each other: one address for all of the round
            [[unroll]] for (int j = 0; j < TN; j++) bv[j] = load_lanes(b_now, (kk * TN + j) * SG);
#else
            [[unroll]] for (int j = 0; j < TN; j++) bv[j] = load_lanes(b_now, j * SG);
            b_now += B_STEP;
#endif
            [[unroll]] for (int i = 0; i < TM; i++) {
#ifdef A_PANELS
                float value = PanelRef(a_now).at[kk * TM + i];
#elif defined A_COLUMNS
                float value = RowRef(a_now).at[i];
#else
                float value = RowRef(a_at[i] + a_offset).at[kk];
#endif
                [[unroll]] for (int j = 0; j < TN; j++) sum[i][j] += value * bv[j];
            }
#if defined A_COLUMNS && !defined A_PANELS
            a_now += A_STEP;
#endif
        }
    } while (++r < rounds);
#ifndef WHOLE_ROUNDS
#ifdef A_COLUMNS
    a_at += rounds * (UK * a_step);
#else
    [[unroll]] for (int i = 0; i < TM; i++) a_at[i] += rounds * (4ul * UK);
#endif
    b_at += rounds * b_round;
    r = 0u;
    if (rest > 0u) do {
        uint64_t k = r;
        float bv[TN];
        [[unroll]] for (int j = 0; j < TN; j++) bv[j] = load_lanes(b_at + k * b_step, j * SG);
        [[unroll]] for (int i = 0; i < TM; i++) {
#ifdef A_COLUMNS
            float value = RowRef(a_at + k * a_step).at[i];
#else
            float value = RowRef(a_at[i] + 4ul * k).at[0];
#endif
            [[unroll]] for (int j = 0; j < TN; j++) sum[i][j] += value * bv[j];
        }
    } while (++r < rest);
#endif

    // A loop over a copy: one epilogue in the program, not TM * TN of them.
    float tile[TM * TN];
    [[unroll]] for (int i = 0; i < TM; i++)
        [[unroll]] for (int j = 0; j < TN; j++) tile[i * TN + j] = sum[i][j];
    rows = extra ? 0u : rows;
    for (uint t = 0u; t < rows * TN; t++) {
        uint at_column = column + lane + t % TN * SG;
        uint at = base + t / TN * p.N + at_column;
        float value = tile[t];
        if (at_column < p.N) {
            EPILOGUE(value, at, at_column)
            STORE(y, at, value);
        }
    }
}
