// Gradient of layer_norm with respect to x: with g = dy * w and n the normalised row,
// dx [rows, C] = (g - mean(g) - n * mean(g * n)) / sqrt(variance + eps).
#version 460
#ifdef ROW_SUBGROUP
#extension GL_KHR_shader_subgroup_arithmetic : require
#endif
#ifndef LANES
#define LANES 128
#endif

#define BUFFERS(B) B(0, Float, x) B(1, Float, dy) B(2, Float, w) B(3, Float, dx)
#define SCALARS                                                                                               \
    uint rows, C, has_w;                                                                                      \
    float eps;
#include "terrane.glsl"
#include "row.glsl"

float seed(uint base, uint c)
{
    float g = AT(dy, base + c);
    if (p.has_w != 0u) g *= AT(w, c);
    return g;
}

void main()
{
    uint row = GROUP_INDEX;
    if (row >= p.rows) return;
    uint base = row * p.C, lane = LANE;
    float origin = AT(x, base), sum = 0.0, seeds = 0.0, count = float(p.C);
    for (uint c = lane; c < p.C; c += LANES) {
        sum += AT(x, base + c) - origin;
        seeds += seed(base, c);
    }
    float mean = row_sum(sum) / count, mean_seed = row_sum(seeds) / count, squares = 0.0, products = 0.0;
    for (uint c = lane; c < p.C; c += LANES) {
        float d = AT(x, base + c) - origin - mean;
        squares += d * d;
        products += (seed(base, c) - mean_seed) * d;
    }
    float scale = 1.0 / sqrt(row_sum(squares) / count + p.eps);
    float slope = row_sum(products) / count * scale * scale;
    for (uint c = lane; c < p.C; c += LANES) {
        float d = AT(x, base + c) - origin - mean;
        AT(dx, base + c) = (seed(base, c) - mean_seed - d * slope) * scale;
    }
}
