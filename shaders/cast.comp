// float32 to float16 (TO_HALF), or back: graph/ops/cast.c. In whole numbers, so that all devices round alike, to the nearest
// and ties to even, and keep what is small. One invocation to two values, which are one word of float16.
#version 460

#define BUFFERS(B) B(0, Uint, x) B(1, Uint, y)
#define SCALARS uint count;
#include "terrane.glsl"

layout(local_size_x = 128) in;

// value >> shift, to the nearest
uint shifted(uint value, uint shift)
{
    uint whole = value >> shift, rest = value & ((1u << shift) - 1u), half_way = 1u << (shift - 1u);
    return whole + uint(rest > half_way || (rest == half_way && (whole & 1u) == 1u));
}

uint narrow(uint bits)
{
    uint sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return sign | 0x7e00u;                      // NaN
    if (size >= 0x477ff000u) return sign | 0x7c00u;                     // 65520: half a step beyond the largest
    if (size >= 0x38800000u) return sign | shifted(size - 0x38000000u, 13u); // 2^-14: the smallest with all bits
    uint shift = 126u - (size >> 23);
    return sign | (shift > 24u ? 0u : shifted(size & 0x7fffffu | 0x800000u, shift));
}

uint widened(uint bits)
{
    uint sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31u, fraction = bits & 0x3ffu;
    if (exponent == 31u) return sign | 0x7f800000u | fraction << 13;
    if (exponent == 0u) return sign | floatBitsToUint(float(fraction) * 5.9604644775390625e-8); // 2^-24
    return sign | exponent + 112u << 23 | fraction << 13;
}

void main()
{
    uint pair = INVOCATION_INDEX, first = 2u * pair;
    if (first >= p.count) return;
    bool both = first + 1u < p.count;
#ifdef TO_HALF
    uint second = both ? narrow(AT(x, first + 1u)) : 0u;
    AT(y, pair) = narrow(AT(x, first)) | second << 16;
#else
    uint word = AT(x, pair);
    AT(y, first) = widened(word & 0xffffu);
    if (both) AT(y, first + 1u) = widened(word >> 16);
#endif
}
