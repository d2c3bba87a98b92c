// Copies a box of up to six axes between a dense and a strided layout: permute, slice, expand read by strides, concat
// writes by them. Axis 0 is the innermost; the extent of the outermost is not needed.
#version 460

#define BUFFERS(B) B(0, Bits, x) B(1, Bits, y)
#define SCALARS                                                                                               \
    uint count, rank, start, scatter;                                                                         \
    uint dim0, dim1, dim2, dim3, dim4;                                                                        \
    uint magic0, magic1, magic2, magic3, magic4, shifts;                                                      \
    uint stride0, stride1, stride2, stride3, stride4, stride5;
#include "terrane.glsl"
#include "divide.glsl"

layout(local_size_x = 128) in;

void main()
{
    uint index = INVOCATION_INDEX;
    if (index >= p.count) return;
    uint rest = index, at = p.start, last = p.stride0;
    if (p.rank > 1u) {
        at += take(rest, p.dim0, p.magic0, p.shifts, 0u) * p.stride0;
        last = p.stride1;
    }
    if (p.rank > 2u) {
        at += take(rest, p.dim1, p.magic1, p.shifts, 1u) * p.stride1;
        last = p.stride2;
    }
    if (p.rank > 3u) {
        at += take(rest, p.dim2, p.magic2, p.shifts, 2u) * p.stride2;
        last = p.stride3;
    }
    if (p.rank > 4u) {
        at += take(rest, p.dim3, p.magic3, p.shifts, 3u) * p.stride3;
        last = p.stride4;
    }
    if (p.rank > 5u) {
        at += take(rest, p.dim4, p.magic4, p.shifts, 4u) * p.stride4;
        last = p.stride5;
    }
    at += rest * last;
    uint from = p.scatter != 0u ? index : at, to = p.scatter != 0u ? at : index;
    STORE(y, to, VALUE(x, from));
}
