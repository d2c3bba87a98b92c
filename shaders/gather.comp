// y [outer, n, inner] = x [outer, axis, inner] at index[n], clamped to the axis.
#version 460

#define BUFFERS(B) B(0, Uint, x) B(1, Int, where) B(2, Uint, y)
#define SCALARS uint count, n, inner, axis;
#include "terrane.glsl"

layout(local_size_x = 128) in;

void main()
{
    uint index = INVOCATION_INDEX;
    if (index >= p.count) return;
    uint row = index / p.inner, i = index - row * p.inner, outer = row / p.n;
    uint at = uint(clamp(AT(where, row - outer * p.n), 0, int(p.axis) - 1));
    AT(y, index) = AT(x, (outer * p.axis + at) * p.inner + i);
}
