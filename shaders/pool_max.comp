// Maximum over windows of x [outer,h,w,inner], without padding -> y [outer,out_h,out_w,inner].
#version 460

#define BUFFERS(B) B(0, Float, x) B(1, Float, y)
#define SCALARS uint count, h, w, inner, out_h, out_w, size, stride;
#include "terrane.glsl"

layout(local_size_x = 128) in;

void main()
{
    uint index = INVOCATION_INDEX;
    if (index >= p.count) return;
    uint pixel = index / p.inner, i = index - pixel * p.inner;
    uint line = pixel / p.out_w, ox = pixel - line * p.out_w, outer = line / p.out_h, oy = line - outer * p.out_h;
    uint first = ((outer * p.h + oy * p.stride) * p.w + ox * p.stride) * p.inner + i;
    float best = AT(x, first);
    for (uint k = 1u; k < p.size * p.size; k++) {
        float value = AT(x, first + ((k / p.size) * p.w + k % p.size) * p.inner);
        if (value > best || isnan(value)) best = value;
    }
    AT(y, index) = best;
}
