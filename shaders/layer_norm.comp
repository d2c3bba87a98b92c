// y [rows, C] = (x - mean) / sqrt(variance + eps) * w + b per row. One work group per row. Rows are shifted by their
// first value before anything is summed, so that a large common offset costs no digits.
#version 460
#ifdef ROW_SUBGROUP
#extension GL_KHR_shader_subgroup_arithmetic : require
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

void main()
{
    uint row = GROUP_INDEX;
    if (row >= p.rows) return;
    uint base = row * p.C, lane = LANE;
    float origin = VALUE(x, base), sum = 0.0;
    for (uint c = lane; c < p.C; c += LANES)
        sum += VALUE(x, base + c) - origin;
    float mean = row_sum(sum) / float(p.C), squares = 0.0;
    for (uint c = lane; c < p.C; c += LANES) {
        float d = VALUE(x, base + c) - origin - mean;
        squares += d * d;
    }
    float scale = 1.0 / sqrt(row_sum(squares) / float(p.C) + p.eps);
    for (uint c = lane; c < p.C; c += LANES) {
        float value = (VALUE(x, base + c) - origin - mean) * scale;
        if (p.has_w != 0u) value *= AT(w, c);
        if (p.has_b != 0u) value += AT(b, c);
        STORE(y, base + c, value);
    }
}
