// y [0] = y [0] + 1: a dispatch that does nothing worth mentioning, and shows that it was there.
#version 460

#define BUFFERS(B) B(0, Uint, y)
#define SCALARS uint step;
#include "terrane.glsl"

layout(local_size_x = 1) in;

void main()
{
    if (GROUP_INDEX == 0u) AT(y, 0) += p.step;
}
