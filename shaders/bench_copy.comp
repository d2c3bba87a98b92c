// y [count] = x, EACH elements of TYPE an invocation: how fast a device moves memory.
#version 460
#ifndef TYPE
#define TYPE Vec4
#endif
#ifndef EACH
#define EACH 1
#endif

#define MEMBERS(B, type) B(0, type, x) B(1, type, y)
#define BUFFERS(B) MEMBERS(B, TYPE)
#define SCALARS uint count;
#include "terrane.glsl"

layout(local_size_x = 64) in;

void main()
{
    uint first = GROUP_INDEX * gl_WorkGroupSize.x * EACH + gl_LocalInvocationID.x;
    for (uint k = 0u; k < EACH; k++) {
        uint i = first + k * gl_WorkGroupSize.x;
        if (i < p.count) AT(y, i) = AT(x, i);
    }
}
