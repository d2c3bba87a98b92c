// y [count] = value.
#version 460

#define BUFFERS(B) B(0, Float, y)
#define SCALARS uint count; float value;
#include "terrane.glsl"

layout(local_size_x = 128) in;

void main()
{
    uint i = INVOCATION_INDEX;
    if (i < p.count) AT(y, i) = p.value;
}
