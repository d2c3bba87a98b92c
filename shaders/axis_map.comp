// A sparse matrix along one axis: y [outer, rows, inner] = sum of weight[t] * x [outer, index[t], inner] over
// t in [start[row], start[row + 1]). Resizing, mean pooling, and their gradients. One invocation serves four neighbours
// along outer, so that the tables are read once for all of them.
#version 460

#define BUFFERS(B) B(0, Real, x) B(1, Int, start) B(2, Int, index) B(3, Float, weight) B(4, Real, y)
#define SCALARS uint count, outer, rows, inner, axis, magic0, magic1, shifts;
#include "terrane.glsl"
#include "divide.glsl"

layout(local_size_x = 128) in;

void main()
{
    uint at = INVOCATION_INDEX;
    if (at >= p.count) return;
    uint block = at, i = take(block, p.inner, p.magic0, p.shifts, 0u);
    uint row = take(block, p.rows, p.magic1, p.shifts, 1u), first = block * 4u, last = p.outer - 1u;
    int end = AT(start, row + 1u);
    uvec4 plane = min(first + uvec4(0u, 1u, 2u, 3u), uvec4(last)), base = plane * p.axis * p.inner + i;
    vec4 sum = vec4(0.0);
    for (int t = AT(start, row); t < end; t++) {
        uvec4 from = base + uint(AT(index, t)) * p.inner;
        sum += AT(weight, t) * vec4(VALUE(x, from.x), VALUE(x, from.y), VALUE(x, from.z), VALUE(x, from.w));
    }
    uvec4 to = (plane * p.rows + row) * p.inner + i;
    STORE(y, to.x, sum.x);
    if (first + 1u <= last) STORE(y, to.y, sum.y);
    if (first + 2u <= last) STORE(y, to.z, sum.z);
    if (first + 3u <= last) STORE(y, to.w, sum.w);
}
