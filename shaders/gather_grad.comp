// dx [outer, axis, inner] = sum of dy [outer, n, inner] over the positions whose (clamped) index is this row, in order.
#version 460

#define BUFFERS(B) B(0, Float, dy) B(1, Int, where) B(2, Float, dx)
#define SCALARS uint count, n, inner, axis, magic0, magic1, shifts;
#include "terrane.glsl"
#include "divide.glsl"

layout(local_size_x = 128) in;

void main()
{
    uint index = INVOCATION_INDEX;
    if (index >= p.count) return;
    uint outer = index, i = take(outer, p.inner, p.magic0, p.shifts, 0u);
    int mine = int(take(outer, p.axis, p.magic1, p.shifts, 1u));
    float sum = 0.0;
    for (uint k = 0u; k < p.n; k++) {
        if (clamp(AT(where, k), 0, int(p.axis) - 1) == mine) sum += AT(dy, (outer * p.n + k) * p.inner + i);
    }
    AT(dx, index) = sum;
}
