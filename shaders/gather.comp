// y [outer, n, inner] = x [outer, axis, inner] at index[n], clamped to the axis.
#version 460

#define BUFFERS(B) B(0, Bits, x) B(1, Int, where) B(2, Bits, y)
#define SCALARS uint count, n, inner, axis, magic0, magic1, shifts;
#include "terrane.glsl"
#include "divide.glsl"

layout(local_size_x = 128) in;

void main()
{
    uint index = INVOCATION_INDEX;
    if (index >= p.count) return;
    uint outer = index, i = take(outer, p.inner, p.magic0, p.shifts, 0u);
    uint at = uint(clamp(AT(where, take(outer, p.n, p.magic1, p.shifts, 1u)), 0, int(p.axis) - 1));
    STORE(y, index, VALUE(x, (outer * p.axis + at) * p.inner + i));
}
