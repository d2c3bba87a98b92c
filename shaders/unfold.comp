// Windows of an image or volume as rows: x [B,C,t,h,w] -> y [B, windows, C*kt*kh*kw]. One invocation writes a run of kw
// values; positions outside x are zero.
#version 460

#define BUFFERS(B) B(0, Float, x) B(1, Float, y)
#define SCALARS                                                                                               \
    uint count, C;                                                                                            \
    uint in_t, in_h, in_w;                                                                                    \
    uint kt, kh, kw;                                                                                          \
    uint stride_t, stride_h, stride_w;                                                                        \
    int pad_t, pad_h, pad_w;                                                                                  \
    uint out_t, out_h, out_w;
#include "terrane.glsl"

layout(local_size_x = 128) in;

uint take(inout uint rest, uint dim)
{
    uint outer = rest / dim, digit = rest - outer * dim;
    rest = outer;
    return digit;
}

void main()
{
    uint run = INVOCATION_INDEX;
    if (run >= p.count) return;
    uint rest = run;
    uint ky = take(rest, p.kh), kz = take(rest, p.kt), c = take(rest, p.C);
    uint ox = take(rest, p.out_w), oy = take(rest, p.out_h), oz = take(rest, p.out_t), b = rest;
    int z = int(oz * p.stride_t + kz) - p.pad_t, y = int(oy * p.stride_h + ky) - p.pad_h;
    int x0 = int(ox * p.stride_w) - p.pad_w;
    bool inside = z >= 0 && z < int(p.in_t) && y >= 0 && y < int(p.in_h);
    uint line = inside ? (((b * p.C + c) * p.in_t + uint(z)) * p.in_h + uint(y)) * p.in_w : 0u;
    for (uint k = 0u; k < p.kw; k++) {
        int x = x0 + int(k);
        float value = 0.0;
        if (inside && x >= 0 && x < int(p.in_w)) value = AT(x, line + uint(x));
        AT(y, run * p.kw + k) = value;
    }
}
