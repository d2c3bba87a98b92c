// What the attention kernels of any GPU multiply, four at a time.
#define ADD_PRODUCT(total, a, b)                                                                              \
    {                                                                                                         \
        total = fma(a.x, b.x, total);                                                                         \
        total = fma(a.y, b.y, total);                                                                         \
        total = fma(a.z, b.z, total);                                                                         \
        total = fma(a.w, b.w, total);                                                                         \
    }
// sums [TQ][TE] += four others' numbers, `pairs`, times the channels of their rows in `tile`
#define ADD_SUMS(sums, pairs, tile, pair_base, tile_base)                                                     \
    {                                                                                                         \
        vec4 pairs_[TQ];                                                                                      \
        [[unroll]] for (uint i_ = 0; i_ < TQ; i_++) pairs_[i_] = pairs[pair_base + (ty + i_ * TY) * STEPP + j]; \
        [[unroll]] for (uint r_ = 0; r_ < 4; r_++) {                                                          \
            [[unroll]] for (uint e_ = 0; e_ < TE; e_++) {                                                     \
                vec4 row_ = tile[tile_base + (4u * j + r_) * STEP4 + min(tx + e_ * TX, HEAD4 - 1u)];          \
                [[unroll]] for (uint i_ = 0; i_ < TQ; i_++)                                                   \
                    sums[i_][e_] = fma(vec4(pairs_[i_][r_]), row_, sums[i_][e_]);                             \
            }                                                                                                 \
        }                                                                                                     \
    }
