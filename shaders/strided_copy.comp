// Copies a box of up to six axes between two strided layouts: permute, slice, expand, concat.
// Axis 0 is the innermost; unused outer axes have stride 0, and the extent of the outermost is not needed.
#version 460

#define BUFFERS(B) B(0, Uint, x) B(1, Uint, y)
#define SCALARS                                                                                               \
    uint count, rank, in_start, out_start;                                                                    \
    uint dim0, dim1, dim2, dim3, dim4;                                                                        \
    uint in0, in1, in2, in3, in4, in5;                                                                        \
    uint out0, out1, out2, out3, out4, out5;
#include "terrane.glsl"

layout(local_size_x = 128) in;
const uint ITEMS = 4u;

void step_axis(inout uint rest, inout uvec2 at, uint dim, uint in_stride, uint out_stride)
{
    uint outer = rest / dim;
    at += (rest - outer * dim) * uvec2(in_stride, out_stride);
    rest = outer;
}

void copy(uint index)
{
    uint rest = index;
    uvec2 at = uvec2(p.in_start, p.out_start), last = uvec2(p.in0, p.out0);
    if (p.rank > 1u) {
        step_axis(rest, at, p.dim0, p.in0, p.out0);
        last = uvec2(p.in1, p.out1);
    }
    if (p.rank > 2u) {
        step_axis(rest, at, p.dim1, p.in1, p.out1);
        last = uvec2(p.in2, p.out2);
    }
    if (p.rank > 3u) {
        step_axis(rest, at, p.dim2, p.in2, p.out2);
        last = uvec2(p.in3, p.out3);
    }
    if (p.rank > 4u) {
        step_axis(rest, at, p.dim3, p.in3, p.out3);
        last = uvec2(p.in4, p.out4);
    }
    if (p.rank > 5u) {
        step_axis(rest, at, p.dim4, p.in4, p.out4);
        last = uvec2(p.in5, p.out5);
    }
    at += rest * last;
    AT(y, at.y) = AT(x, at.x);
}

void main()
{
    uint first = GROUP_INDEX * (128u * ITEMS) + gl_LocalInvocationID.x;
    for (uint k = 0u; k < ITEMS; k++) {
        uint index = first + k * 128u;
        if (index < p.count) copy(index);
    }
}
