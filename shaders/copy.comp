// y [count] = x.
#version 460

#define BUFFERS(B) B(0, Uint, x) B(1, Uint, y)
#define SCALARS uint count;
#include "terrane.glsl"

layout(local_size_x = 128) in;

void main()
{
    uint i = INVOCATION_INDEX;
    if (i < p.count) AT(y, i) = AT(x, i);
}
