// Sums the parts of a product whose K was cut: parts [count, elements] -> y [elements], in order.
#version 460
#extension GL_GOOGLE_include_directive : require
#include "generated.glsl"
#define BUFFERS(B) B(0, Float, parts) B(1, Real, y) EXTRA_BUFFERS(B)
#define SCALARS uint elements, N, count; EXTRA_SCALARS
#include "terrane.glsl"

layout(local_size_x = 128) in;

void main()
{
    uint i = INVOCATION_INDEX;
    if (i >= p.elements) return;
    float value = 0.0;
    for (uint part = 0u; part < p.count; part++)
        value += AT(parts, part * p.elements + i);
    EPILOGUE(value, i, i % p.N)
    STORE(y, i, value);
}
