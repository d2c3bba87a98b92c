// Softmax, or its logarithm, of rows: x [rows, C] -> y [rows, C]. One work group per row.
#version 460
#if defined ROW_SUBGROUP || defined ROW_UNIFORM
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_ballot : require
#endif
#ifndef LANES
#define LANES 128
#endif

#define BUFFERS(B) B(0, Real, x) B(1, Real, y)
#define SCALARS uint rows, C, logarithm;
#include "terrane.glsl"
#include "row.glsl"

#define EACH(c0) for (uint c0 = 0u; c0 < p.C; c0 += LANES * PIECE)
#define LOWEST uintBitsToFloat(0xff800000u) // -infinity: exp of it is 0

// A piece, -infinity behind the row's end
#define LOAD(c0)              \
    ROW_LOAD(v, x, base, c0)  \
    [[unroll]] for (int j = 0; j < PIECE; j++) v[j] = COLUMN(c0, j) < p.C ? v[j] : LOWEST;

void main()
{
    ROW_BEGIN
    uint base = row * p.C;
    float largest = LOWEST, v[PIECE];
    EACH(c0) {
        LOAD(c0)
        [[unroll]] for (int j = 0; j < PIECE; j++) largest = max(largest, v[j]);
    }
    largest = row_max(largest);
    float sum = 0.0;
    EACH(c0) {
        LOAD(c0)
        [[unroll]] for (int j = 0; j < PIECE; j++) sum += exp(v[j] - largest);
    }
    sum = row_sum(sum);
    float shift = log(sum), scale = 1.0 / sum;
    EACH(c0) {
        LOAD(c0)
        [[unroll]] for (int j = 0; j < PIECE; j++) {
            float value = p.logarithm != 0u ? v[j] - largest - shift : exp(v[j] - largest) * scale;
            if (COLUMN(c0, j) < p.C) STORE(y, base + COLUMN(c0, j), value);
        }
    }
}
