// y [outer, axis, inner] = x [outer, extent, inner] placed at `before` along the axis, zeros elsewhere.
#version 460

#define BUFFERS(B) B(0, Bits, x) B(1, Bits, y)
#define SCALARS uint count, axis, inner, extent, before, magic0, magic1, shifts;
#include "terrane.glsl"
#include "divide.glsl"

layout(local_size_x = 128) in;

void main()
{
    uint index = INVOCATION_INDEX;
    if (index >= p.count) return;
    uint outer = index, i = take(outer, p.inner, p.magic0, p.shifts, 0u);
    uint at = take(outer, p.axis, p.magic1, p.shifts, 1u) - p.before; // wraps to a large number before the start
    bool inside = at < p.extent;
    uint from = (outer * p.extent + (inside ? at : 0u)) * p.inner + i;
    STORE(y, index, inside ? VALUE(x, from) : 0);
}
