// Gradient of pool_max: dx [outer,h,w,inner] takes dy of every window whose first maximum is this position.
#version 460

#define BUFFERS(B) B(0, Float, x) B(1, Float, dy) B(2, Float, dx)
#define SCALARS uint count, h, w, inner, out_h, out_w, size, stride, magic0, magic1, magic2, shifts;
#include "terrane.glsl"
#include "divide.glsl"

layout(local_size_x = 128) in;

// Position in the window, row by row, of the first maximum.
uint first_maximum(uint corner)
{
    float best = AT(x, corner);
    uint at = 0u;
    for (uint dy = 0u; dy < p.size; dy++) {
        for (uint dx = 0u; dx < p.size; dx++) {
            float value = AT(x, corner + (dy * p.w + dx) * p.inner);
            if (value > best || (isnan(value) && !isnan(best))) { // as in pool_max.comp
                best = value;
                at = dy * p.size + dx;
            }
        }
    }
    return at;
}

uvec2 covering(uint at, uint windows)
{
    uint first = at < p.size ? 0u : (at - p.size) / p.stride + 1u;
    return uvec2(first, min(at / p.stride + 1u, windows));
}

void main()
{
    uint index = INVOCATION_INDEX;
    if (index >= p.count) return;
    uint outer = index, i = take(outer, p.inner, p.magic0, p.shifts, 0u);
    uint ix = take(outer, p.w, p.magic1, p.shifts, 1u), iy = take(outer, p.h, p.magic2, p.shifts, 2u);
    uvec2 wy = covering(iy, p.out_h), wx = covering(ix, p.out_w);
    float sum = 0.0;
    for (uint oy = wy.x; oy < wy.y; oy++) {
        for (uint ox = wx.x; ox < wx.y; ox++) {
            uint corner = ((outer * p.h + oy * p.stride) * p.w + ox * p.stride) * p.inner + i;
            uint mine = (iy - oy * p.stride) * p.size + ix - ox * p.stride;
            if (first_maximum(corner) == mine)
                sum += AT(dy, ((outer * p.out_h + oy) * p.out_w + ox) * p.inner + i);
        }
    }
    AT(dx, index) = sum;
}
