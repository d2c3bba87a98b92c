// y [invocations] = sum of `rounds` elements of x [mask + 1], a small buffer that all read again and again: how fast the
// caches are.
#version 460
#ifndef TYPE
#define TYPE Vec4
#endif
#define MEMBERS(B, type) B(0, type, x) B(1, Float, y)
#define BUFFERS(B) MEMBERS(B, TYPE)
#define SCALARS uint mask; uint rounds;
#include "terrane.glsl"

layout(local_size_x = 64) in;

void main()
{
    uint i = INVOCATION_INDEX;
    vec4 sum = vec4(0);
    for (uint r = 0u; r < p.rounds; r += 4u) {
        sum += AT(x, (i + r * 64u) & p.mask);
        sum += AT(x, (i + r * 64u + 64u) & p.mask);
        sum += AT(x, (i + r * 64u + 128u) & p.mask);
        sum += AT(x, (i + r * 64u + 192u) & p.mask);
    }
    AT(y, i) = sum.x + sum.y + sum.z + sum.w;
}
