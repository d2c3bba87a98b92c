// The adjoint of unfold: x [B, windows, C*kt*kh*kw] -> y [B,C,t,h,w], each value the sum of its copies in the windows
// that cover it, in a fixed order.
#version 460

#define BUFFERS(B) B(0, Real, x) B(1, Real, y)
#define SCALARS                                                                                               \
    uint C;                                                                                                   \
    uint in_t, in_h, in_w;                                                                                    \
    uint kt, kh, kw;                                                                                          \
    uint stride_t, stride_h, stride_w;                                                                        \
    uint pad_t, pad_h, pad_w;                                                                                 \
    uint out_t, out_h, out_w;                                                                                 \
    uint count, magic0, magic1, magic2, magic3, shifts;
#include "terrane.glsl"
#include "divide.glsl"

layout(local_size_x = 128) in;

// The windows [x, y) along one axis that cover padded position `at`.
uvec2 covering(uint at, uint size, uint stride, uint windows)
{
    uint first = at < size ? 0u : (at - size) / stride + 1u;
    return uvec2(first, min(at / stride + 1u, windows));
}

void main()
{
    uint index = INVOCATION_INDEX;
    if (index >= p.count) return;
    uint rest = index;
    uint ix = take(rest, p.in_w, p.magic0, p.shifts, 0u) + p.pad_w;
    uint iy = take(rest, p.in_h, p.magic1, p.shifts, 1u) + p.pad_h;
    uint iz = take(rest, p.in_t, p.magic2, p.shifts, 2u) + p.pad_t;
    uint c = take(rest, p.C, p.magic3, p.shifts, 3u), b = rest;
    uvec2 wz = covering(iz, p.kt, p.stride_t, p.out_t), wy = covering(iy, p.kh, p.stride_h, p.out_h);
    uvec2 wx = covering(ix, p.kw, p.stride_w, p.out_w);
    float sum = 0.0;
    for (uint oz = wz.x; oz < wz.y; oz++) {
        for (uint oy = wy.x; oy < wy.y; oy++) {
            uint window = ((b * p.out_t + oz) * p.out_h + oy) * p.out_w;
            uint line = ((c * p.kt + iz - oz * p.stride_t) * p.kh + iy - oy * p.stride_h) * p.kw;
            for (uint ox = wx.x; ox < wx.y; ox++)
                sum += VALUE(x, (window + ox) * (p.C * p.kt * p.kh * p.kw) + line + ix - ox * p.stride_w);
        }
    }
    STORE(y, index, sum);
}
