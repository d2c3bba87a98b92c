// y [rows, C] = (x - mean) / sqrt(variance + eps) * w + b per row. One work group per row. Rows are shifted by their
// first value before anything is summed, so that a large common offset costs no digits.
#version 460
#if defined ROW_SUBGROUP || defined ROW_UNIFORM
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_ballot : require
#endif
#ifndef LANES
#define LANES 128
#endif

#define BUFFERS(B) B(0, Real, x) B(1, Float, w) B(2, Float, b) B(3, Real, y)
#define SCALARS                                                                                               \
    uint rows, C, has_w, has_b;                                                                               \
    float eps;
#include "terrane.glsl"
#include "row.glsl"

#define EACH(c0) for (uint c0 = 0u; c0 < p.C; c0 += LANES * PIECE)

void main()
{
    ROW_BEGIN
    uint base = row * p.C;
    float origin = VALUE(x, base), sum = 0.0, v[PIECE], wv[PIECE], bv[PIECE];
    EACH(c0) {
        ROW_LOAD(v, x, base, c0)
        [[unroll]] for (int j = 0; j < PIECE; j++) sum += COLUMN(c0, j) < p.C ? v[j] - origin : 0.0;
    }
    float mean = row_sum(sum) / float(p.C), squares = 0.0;
    EACH(c0) {
        ROW_LOAD(v, x, base, c0)
        [[unroll]] for (int j = 0; j < PIECE; j++) {
            float d = COLUMN(c0, j) < p.C ? v[j] - origin - mean : 0.0;
            squares += d * d;
        }
    }
    float scale = 1.0 / sqrt(row_sum(squares) / float(p.C) + p.eps);
    EACH(c0) {
        ROW_LOAD(v, x, base, c0)
        ROW_LOAD(wv, w, 0u, c0)
        ROW_LOAD(bv, b, 0u, c0)
        [[unroll]] for (int j = 0; j < PIECE; j++) {
            float value = (v[j] - origin - mean) * scale;
            if (p.has_w != 0u) value *= wv[j];
            if (p.has_b != 0u) value += bv[j];
            if (COLUMN(c0, j) < p.C) STORE(y, base + COLUMN(c0, j), value);
        }
    }
}
