// Work groups of LANES invocations that each own one row. ROW_SUBGROUP: the group is one subgroup, no shared memory
// (CPU drivers); else sums go through shared memory, in a fixed order.

layout(local_size_x = LANES) in;
#define LANE gl_LocalInvocationID.x

#ifdef ROW_SUBGROUP
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
