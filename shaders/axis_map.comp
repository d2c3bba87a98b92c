// A sparse matrix along one axis: y [outer, rows, inner] = sum of weight[t] * x [outer, index[t], inner] over
// t in [start[row], start[row + 1]). Resizing, mean pooling, and their gradients.
#version 460

#define BUFFERS(B) B(0, Float, x) B(1, Int, start) B(2, Int, index) B(3, Float, weight) B(4, Float, y)
#define SCALARS uint count, rows, inner, axis;
#include "terrane.glsl"

layout(local_size_x = 128) in;

void main()
{
    uint at = INVOCATION_INDEX;
    if (at >= p.count) return;
    uint line = at / p.inner, i = at - line * p.inner, outer = line / p.rows, row = line - outer * p.rows;
    int end = AT(start, row + 1u);
    float sum = 0.0;
    for (int t = AT(start, row); t < end; t++)
        sum += AT(weight, t) * AT(x, (outer * p.axis + uint(AT(index, t))) * p.inner + i);
    AT(y, at) = sum;
}
