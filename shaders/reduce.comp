// One stage of a reduction of x [outer, axis, inner] along the axis: y [outer, parts, inner], where part k takes the
// positions k, k + parts, k + 2 parts, ... so that neighbours read neighbours whatever the layout, in a fixed order.
#version 460

#define BUFFERS(B) B(0, Real, x) B(1, Real, y)
#define SCALARS                                                                                               \
    uint count, axis, inner, parts, kind, magic0, magic1, shifts;                                          \
    float scale;
#include "terrane.glsl"
#include "divide.glsl"

const uint MAXIMUM = 2u, SUM_SQUARES = 3u; // of trn_reduce_kind
layout(local_size_x = 128) in;

void main()
{
    uint index = INVOCATION_INDEX;
    if (index >= p.count) return;
    uint outer = index, i = take(outer, p.inner, p.magic0, p.shifts, 0u);
    uint part = take(outer, p.parts, p.magic1, p.shifts, 1u);
    uint base = outer * p.axis * p.inner + i;
    float total = VALUE(x, base + part * p.inner);
    if (p.kind == MAXIMUM) {
        for (uint k = part + p.parts; k < p.axis; k += p.parts) {
            float value = VALUE(x, base + k * p.inner);
            if (value > total || isnan(value)) total = value;
        }
    } else if (p.kind == SUM_SQUARES) {
        total *= total;
        for (uint k = part + p.parts; k < p.axis; k += p.parts) {
            float value = VALUE(x, base + k * p.inner);
            total += value * value;
        }
    } else {
        for (uint k = part + p.parts; k < p.axis; k += p.parts)
            total += VALUE(x, base + k * p.inner);
    }
    STORE(y, index, total * p.scale);
}
