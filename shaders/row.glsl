// Work groups of LANES invocations that each own one row of p.C values. Its values come in pieces, PIECE to an
// invocation; places behind the row's end have values that must not count:
//
//   ROW_BEGIN                                  first in main: row, or a return where there is none
//   for (uint c0 = 0u; c0 < p.C; c0 += LANES * PIECE) {
//       float v[PIECE];
//       ROW_LOAD(v, x, base, c0)               v[j] = x[base + c], c = COLUMN(c0, j)
//       [[unroll]] for (int j = 0; j < PIECE; j++) if (COLUMN(c0, j) < p.C) ..
//
// ROW_UNIFORM: the group is one subgroup of a CPU driver that finds uniform loads by itself (lanes.glsl). ROW_SUBGROUP:
// one of another. Else sums go through shared memory, in a fixed order.
#extension GL_EXT_control_flow_attributes : require

layout(local_size_x = LANES) in;
#define LANE gl_LocalInvocationID.x
#define COLUMN(c0, j) ((c0) + uint(j) * LANES + LANE)

#ifdef ROW_UNIFORM
#define SG LANES
#include "lanes.glsl"
#define PIECE 4
layout(buffer_reference, std430, buffer_reference_align = 4) buffer PieceRef { float at[LANES * PIECE]; };
// Groups behind the last do its row again: loads are done with all lanes off, too, so that none may lead astray; loops
// run their body once more for the same reason, which stays within what may be read behind a buffer.
#define ROW_BEGIN                         \
    SELECT_LANES                          \
    uint row = min(GROUP_INDEX, p.rows - 1u);
#define ROW_LOAD(v, name, base, c0)                                                          \
    {                                                                                        \
        uint64_t from_ = uint64_t(p.name) + 4ul * ((base) + min(c0, p.C - 1u));              \
        [[unroll]] for (int j_ = 0; j_ < PIECE; j_++) LOAD_LANES(v[j_], PieceRef(from_), j_ * LANES) \
    }
#else
#define PIECE 1
#define ROW_BEGIN           \
    uint row = GROUP_INDEX; \
    if (row >= p.rows) return;
#define ROW_LOAD(v, name, base, c0) v[0] = VALUE(name, (base) + min((c0) + LANE, p.C - 1u));
#endif

#ifdef ROW_UNIFORM
float row_sum(float value)
{
    ACROSS_LANES(value, ADD_)
    return value;
}
float row_max(float value)
{
    ACROSS_LANES(value, max)
    return value;
}
#elif defined ROW_SUBGROUP
float row_sum(float value)
{
    return subgroupAdd(value);
}
float row_max(float value)
{
    return subgroupMax(value);
}
#else
shared float row_scratch[LANES];
#define ROW_REDUCE(name, combine)                                                                             \
    float name(float value)                                                                                   \
    {                                                                                                         \
        row_scratch[LANE] = value;                                                                            \
        barrier();                                                                                            \
        for (uint half_ = LANES / 2u; half_ > 0u; half_ /= 2u) {                                              \
            if (LANE < half_) row_scratch[LANE] = combine(row_scratch[LANE], row_scratch[LANE + half_]);      \
            barrier();                                                                                        \
        }                                                                                                     \
        float result = row_scratch[0];                                                                        \
        barrier();                                                                                            \
        return result;                                                                                        \
    }
float row_add(float a, float b)
{
    return a + b;
}
ROW_REDUCE(row_sum, row_add)
ROW_REDUCE(row_max, max)
#endif
