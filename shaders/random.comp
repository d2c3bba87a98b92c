// y [rows, columns]: uniform numbers in [0, 1) by Philox4x32-10, four an invocation; equal bits on every device. A row's
// numbers depend on its two counters, the stream and the seed. Source: Salmon et al. 2011.
#version 460

#define BUFFERS(B) B(0, Int, counters) B(1, Float, y)
#define SCALARS uint count, fours, columns, stream, seed0, seed1, magic0, shifts;
#include "terrane.glsl"
#include "divide.glsl"

layout(local_size_x = 128) in;

uvec4 philox(uvec4 c, uvec2 k)
{
    for (uint round = 0u; round < 10u; round++) {
        uint high_a, low_a, high_b, low_b;
        umulExtended(0xD2511F53u, c.x, high_a, low_a);
        umulExtended(0xCD9E8D57u, c.z, high_b, low_b);
        c = uvec4(high_b ^ c.y ^ k.x, low_b, high_a ^ c.w ^ k.y, low_a);
        k += uvec2(0x9E3779B9u, 0xBB67AE85u);
    }
    return c;
}

void main()
{
    uint row = INVOCATION_INDEX;
    if (row >= p.count) return;
    uint four = take(row, p.fours, p.magic0, p.shifts, 0u), column = 4u * four;
    uvec4 bits = philox(uvec4(four, p.stream, uint(AT(counters, 2u * row)), uint(AT(counters, 2u * row + 1u))),
                        uvec2(p.seed0, p.seed1));
    for (uint lane = 0u; lane < min(4u, p.columns - column); lane++)
        AT(y, row * p.columns + column + lane) = float(bits[lane] >> 8u) * 5.9604644775390625e-8;
}
