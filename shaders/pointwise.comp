// A fused chain of pointwise operators: one invocation an element.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "generated.glsl"
#define BUFFERS(B) B(0, Real, y) EXTRA_BUFFERS(B)
#define SCALARS uint count; uint columns; EXTRA_SCALARS
#include "terrane.glsl"

layout(local_size_x = 128) in; // what every device grants

void main()
{
    uint i = INVOCATION_INDEX;
    if (i >= p.count) return;
    float value = 0.0;
    EPILOGUE(value, i, i % p.columns)
    STORE(y, i, value);
}
