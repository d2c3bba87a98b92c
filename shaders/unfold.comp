// Windows of an image or volume as rows: x [B,C,t,h,w] -> y [B, windows, C*kt*kh*kw]. One invocation writes a run of kw
// values, or all kh runs of a channel when whole_planes; positions outside x are zero.
#version 460

#define BUFFERS(B) B(0, Real, x) B(1, Real, y)
#define SCALARS                                                                                               \
    uint C;                                                                                                   \
    uint in_t, in_h, in_w;                                                                                    \
    uint kt, kh, kw;                                                                                          \
    uint stride_t, stride_h, stride_w;                                                                        \
    int pad_t, pad_h, pad_w;                                                                                  \
    uint out_t, out_h, out_w;                                                                                 \
    uint count_and_flag, magic_kh, magic_kt, magic_C, magic_w, magic_h, magic_t, shifts;
#include "terrane.glsl"
#include "divide.glsl"

layout(local_size_x = 128) in;

void write_run(uint at, int y, int x0, bool inside, uint plane)
{
    inside = inside && y >= 0 && y < int(p.in_h);
    uint line = (plane + uint(y)) * p.in_w;
    for (uint k = 0u; k < p.kw; k++) {
        int x = x0 + int(k);
        float value = 0.0;
        if (inside && x >= 0 && x < int(p.in_w)) value = VALUE(x, line + uint(x));
        STORE(y, at + k, value);
    }
}

void main()
{
    uint run = INVOCATION_INDEX, rows = 1u, ky = 0u;
    if (run >= (p.count_and_flag & 0x7fffffffu)) return;
    uint rest = run;
    if (p.count_and_flag >> 31 != 0u) rows = p.kh;
    else ky = take(rest, p.kh, p.magic_kh, p.shifts, 0u);
    uint kz = take(rest, p.kt, p.magic_kt, p.shifts, 1u), c = take(rest, p.C, p.magic_C, p.shifts, 2u);
    uint ox = take(rest, p.out_w, p.magic_w, p.shifts, 3u), oy = take(rest, p.out_h, p.magic_h, p.shifts, 4u);
    uint oz = take(rest, p.out_t, p.magic_t, p.shifts, 5u), b = rest;
    int z = int(oz * p.stride_t + kz) - p.pad_t, y = int(oy * p.stride_h + ky) - p.pad_h;
    int x0 = int(ox * p.stride_w) - p.pad_w;
    uint plane = ((b * p.C + c) * p.in_t + uint(z)) * p.in_h;
    for (uint r = 0u; r < rows; r++)
        write_run((run * rows + r) * p.kw, y + int(r), x0, z >= 0 && z < int(p.in_t), plane);
}
