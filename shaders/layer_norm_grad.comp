// Gradient of layer_norm with respect to x: with g = dy * w and n the normalised row,
// dx [rows, C] = (g - mean(g) - n * mean(g * n)) / sqrt(variance + eps).
#version 460
#if defined ROW_SUBGROUP || defined ROW_UNIFORM
#extension GL_KHR_shader_subgroup_arithmetic : require
#extension GL_KHR_shader_subgroup_ballot : require
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

#define EACH(c0) for (uint c0 = 0u; c0 < p.C; c0 += LANES * PIECE)
// d = x - origin - shift and g = dy * w of a piece, zero behind the row's end
#define LOAD_BOTH(c0, shift)                                                             \
    ROW_LOAD(d, x, base, c0)                                                             \
    ROW_LOAD(g, dy, base, c0)                                                            \
    ROW_LOAD(wv, w, 0u, c0)                                                              \
    [[unroll]] for (int j = 0; j < PIECE; j++) {                                         \
        d[j] = COLUMN(c0, j) < p.C ? d[j] - origin - (shift) : 0.0;                      \
        g[j] = COLUMN(c0, j) < p.C ? (p.has_w != 0u ? g[j] * wv[j] : g[j]) : 0.0;        \
    }

void main()
{
    ROW_BEGIN
    uint base = row * p.C;
    float origin = AT(x, base), sum = 0.0, seeds = 0.0, count = float(p.C), d[PIECE], g[PIECE], wv[PIECE];
    EACH(c0) {
        LOAD_BOTH(c0, 0.0)
        [[unroll]] for (int j = 0; j < PIECE; j++) {
            sum += d[j];
            seeds += g[j];
        }
    }
    float mean = row_sum(sum) / count, mean_seed = row_sum(seeds) / count, squares = 0.0, products = 0.0;
    EACH(c0) {
        LOAD_BOTH(c0, mean)
        [[unroll]] for (int j = 0; j < PIECE; j++) {
            squares += d[j] * d[j];
            products += (g[j] - mean_seed) * d[j];
        }
    }
    float scale = 1.0 / sqrt(row_sum(squares) / count + p.eps);
    float slope = row_sum(products) / count * scale * scale;
    EACH(c0) {
        LOAD_BOTH(c0, mean)
        [[unroll]] for (int j = 0; j < PIECE; j++)
            if (COLUMN(c0, j) < p.C) AT(dx, base + COLUMN(c0, j)) = (g[j] - mean_seed - d[j] * slope) * scale;
    }
}
