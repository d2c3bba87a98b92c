// b [N,K] or [K,N], by batch -> panels [batch][N / columns][K][columns], zero behind N, for matmul_uniform.comp. A work
// group takes CHUNK rows of a panel.
#extension GL_GOOGLE_include_directive : require
#ifndef LANES
#define LANES 32
#endif
#define CHUNK 32
#define BUFFERS(B) B(0, Float, b) B(1, Float, panels)
// n_step, k_step: from one column of the product to the next in b, from one k to the next
#define SCALARS uint N, K, columns, tiles_n, chunks, groups, b_batch, n_step, k_step;
#include "terrane.glsl"

layout(local_size_x = LANES) in;

void main()
{
    uint group = GROUP_INDEX;
    if (group >= p.groups) return; // the last row of groups is not full
    uint first = group % p.chunks * CHUNK, end = min(first + CHUNK, p.K);
    group /= p.chunks; // batch * tiles_n + panel
    uint column = group % p.tiles_n * p.columns;
    for (uint c = gl_LocalInvocationIndex; c < p.columns; c += LANES) {
        uint from = group / p.tiles_n * p.b_batch + min(column + c, p.N - 1u) * p.n_step + first * p.k_step;
        uint to = (group * p.K + first) * p.columns + c;
        bool inside = column + c < p.N;
        for (uint k = first; k < end; k++) {
            AT(panels, to) = inside ? AT(b, from) : 0.0;
            from += p.k_step;
            to += p.columns;
        }
    }
}
