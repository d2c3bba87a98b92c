// Gradient of a maximum along the axis of x [outer, axis, inner]: dy [outer, inner] goes to its first position.
#version 460

#define BUFFERS(B) B(0, Float, x) B(1, Float, dy) B(2, Float, dx)
#define SCALARS uint count, axis, inner;
#include "terrane.glsl"

layout(local_size_x = 128) in;

void main()
{
    uint index = INVOCATION_INDEX;
    if (index >= p.count) return;
    uint outer = index / p.inner, base = outer * p.axis * p.inner + index - outer * p.inner, at = base;
    float best = AT(x, base);
    AT(dx, base) = 0.0;
    for (uint k = 1u; k < p.axis; k++) {
        uint here = base + k * p.inner;
        float value = AT(x, here);
        if (value > best || (isnan(value) && !isnan(best))) { // as in reduce.comp
            best = value;
            at = here;
        }
        AT(dx, here) = 0.0;
    }
    AT(dx, at) = AT(dy, index);
}
