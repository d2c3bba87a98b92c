// Maximum over windows of x [outer,h,w,inner], without padding -> y [outer,out_h,out_w,inner].
#version 460

#define BUFFERS(B) B(0, Real, x) B(1, Real, y)
#define SCALARS uint count, h, w, inner, out_h, out_w, size, stride, magic0, magic1, magic2, shifts;
#include "terrane.glsl"
#include "divide.glsl"

layout(local_size_x = 128) in;

void main()
{
    uint index = INVOCATION_INDEX;
    if (index >= p.count) return;
    uint outer = index, i = take(outer, p.inner, p.magic0, p.shifts, 0u);
    uint ox = take(outer, p.out_w, p.magic1, p.shifts, 1u), oy = take(outer, p.out_h, p.magic2, p.shifts, 2u);
    uint first = ((outer * p.h + oy * p.stride) * p.w + ox * p.stride) * p.inner + i;
    float best = VALUE(x, first);
    for (uint dy = 0u; dy < p.size; dy++) {
        for (uint dx = 0u; dx < p.size; dx++) {
            float value = VALUE(x, first + (dy * p.w + dx) * p.inner);
            if (value > best || isnan(value)) best = value;
        }
    }
    STORE(y, index, best);
}
