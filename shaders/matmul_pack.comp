// An operand of a product, x, whose rows are N of the product and columns K (or the other way round: ALONG_N), by batch ->
// panels [batch][N / WIDTH][K][WIDTH], zero behind N, for matmul_uniform.comp. A work group takes LANES * EACH
// neighbours of each of CHUNK rows of x.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_basic : require
#ifndef LANES
#define LANES 8
#endif
#ifndef WIDTH
#define WIDTH 32
#endif
#define CHUNK 32
#if defined ALONG_N && WIDTH % LANES == 0
#define EACH (WIDTH / LANES) // vectors of a row, to write whole rows of panels
#else
#define EACH 1
#endif
#define BUFFERS(B) B(0, Float, x) B(1, Float, panels)
// across: work groups next to each other, of LANES * EACH; along: behind each other, of CHUNK
#define SCALARS uint N, K, tiles_n, across, along, groups, x_batch;
#include "terrane.glsl"

layout(local_size_x = LANES) in;
#ifdef UNIFORM
#define SG LANES
#include "lanes.glsl"
layout(buffer_reference, std430, buffer_reference_align = 4) buffer LanesRef { float at[LANES * EACH]; };
#endif

void main()
{
    uint group = GROUP_INDEX;
    bool extra = group >= p.groups; // the last row of groups is not full
    group = extra ? 0u : group;
    uint lane = gl_LocalInvocationIndex;
    uint first = group % p.across * (LANES * EACH), row = group / p.across % p.along * CHUNK;
    uint batch = group / (p.across * p.along), padded = p.tiles_n * WIDTH;
    uint to_batch = batch * padded * p.K;
#ifdef UNIFORM
    SELECT_LANES
#endif
#ifdef ALONG_N
    uint rows = min(p.K - row, CHUNK), stride = p.N, to[EACH];
    [[unroll]] for (int j = 0; j < EACH; j++) {
        uint n = first + j * LANES + lane;
        to[j] = to_batch + (n / WIDTH * p.K + row) * WIDTH + n % WIDTH;
    }
#else
    uint rows = min(padded - row, CHUNK), stride = p.K;
#endif
    uint r = 0u;
    do { // the test comes last: before the body, these drivers would read one row more, with all lanes off
#ifdef ALONG_N
        uint from_row = row + r;
#else
        uint n = row + r, from_row = min(n, p.N - 1u);
        uint to_row = to_batch + n / WIDTH * p.K * WIDTH + n % WIDTH;
#endif
        uint from = batch * p.x_batch + from_row * stride + first;
        [[unroll]] for (int j = 0; j < EACH; j++) {
            uint near = first + j * LANES + lane;
#ifdef ALONG_N
            bool writes = !extra && near < padded, inside = near < p.N;
            uint at = to[j] + r * WIDTH;
#else
            bool writes = !extra && near < p.K, inside = n < p.N;
            uint at = to_row + near * WIDTH;
#endif
            float value = 0.0;
#ifdef UNIFORM
            LOAD_LANES(value, LanesRef(uint64_t(p.x) + 4ul * from), j * LANES)
#else
            if (writes && inside) value = AT(x, from + j * LANES + lane);
#endif
            if (writes) AT(panels, at) = inside ? value : 0.0;
        }
    } while (++r < rows);
}
