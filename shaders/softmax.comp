// Softmax, or its logarithm, of rows: x [rows, C] -> y [rows, C]. One work group per row.
#version 460
#ifdef ROW_SUBGROUP
#extension GL_KHR_shader_subgroup_arithmetic : require
#endif
#ifndef LANES
#define LANES 128
#endif

#define BUFFERS(B) B(0, Real, x) B(1, Real, y)
#define SCALARS uint rows, C, logarithm;
#include "terrane.glsl"
#include "row.glsl"

void main()
{
    uint row = GROUP_INDEX;
    if (row >= p.rows) return;
    uint base = row * p.C, lane = LANE;
    float largest = uintBitsToFloat(0xff800000u); // -infinity
    for (uint c = lane; c < p.C; c += LANES)
        largest = max(largest, VALUE(x, base + c));
    largest = row_max(largest);
    float sum = 0.0;
    for (uint c = lane; c < p.C; c += LANES)
        sum += exp(VALUE(x, base + c) - largest);
    sum = row_sum(sum);
    if (p.logarithm != 0u) {
        float shift = log(sum);
        for (uint c = lane; c < p.C; c += LANES)
            STORE(y, base + c, VALUE(x, base + c) - largest - shift);
    } else {
        float scale = 1.0 / sum;
        for (uint c = lane; c < p.C; c += LANES)
            STORE(y, base + c, exp(VALUE(x, base + c) - largest) * scale);
    }
}
