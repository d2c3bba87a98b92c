// b [N,K] -> panels [N / columns][K][columns], zero behind N. One invocation an element of the panels.
#version 450
#extension GL_GOOGLE_include_directive : require
#define BUFFERS(B) B(0, Float, b) B(1, Float, panels)
#define SCALARS uint count, N, K, columns;
#include "terrane.glsl"

layout(local_size_x = 128) in;

void main()
{
    uint i = INVOCATION_INDEX;
    if (i >= p.count) return;
    uint k = i / p.columns % p.K, n = i / p.columns / p.K * p.columns + i % p.columns;
    AT(panels, i) = n < p.N ? AT(b, n * p.K + k) : 0.0;
}
