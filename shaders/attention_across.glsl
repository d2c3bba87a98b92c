#include "attention_product.glsl"
// Numbers that the TX invocations of a row of a work group find together, each of the TY * PACK rows TQ of them; all get
// them. With SHUFFLE the invocations of a row are neighbours in a subgroup. Between one use and the next there must be a
// barrier, or NEXT_ACROSS.
#ifdef SHUFFLE
#define NEXT_ACROSS
#define INVOCATION (gl_SubgroupID * gl_SubgroupSize + gl_SubgroupInvocationID)
#define ACROSS_ROW(values, join)                                                                              \
    [[unroll]] for (uint i_ = 0; i_ < TQ; i_++) {                                                             \
        values[i_] = join(values[i_], subgroupShuffleXor(values[i_], 1u));                                    \
        values[i_] = join(values[i_], subgroupShuffleXor(values[i_], 2u));                                    \
        ACROSS_8(values[i_], join)                                                                            \
        ACROSS_16(values[i_], join)                                                                           \
    }
#if TX > 4
#define ACROSS_8(value, join) value = join(value, subgroupShuffleXor(value, 4u));
#else
#define ACROSS_8(value, join)
#endif
#if TX > 8
#define ACROSS_16(value, join) value = join(value, subgroupShuffleXor(value, 8u));
#else
#define ACROSS_16(value, join)
#endif
#else
#define NEXT_ACROSS barrier();
#define INVOCATION gl_LocalInvocationIndex
#define STEPR (TX + 1)
shared float across[TY * PACK * TQ * STEPR];
#define ACROSS_ROW(values, join)                                                                              \
    {                                                                                                         \
        uint row_ = me / TX * TQ * STEPR;                                                                     \
        [[unroll]] for (uint i_ = 0; i_ < TQ; i_++) across[row_ + i_ * STEPR + me % TX] = values[i_];         \
        barrier();                                                                                            \
        [[unroll]] for (uint i_ = 0; i_ < TQ; i_++) {                                                         \
            values[i_] = across[row_ + i_ * STEPR];                                                           \
            [[unroll]] for (uint t_ = 1; t_ < TX; t_++)                                                       \
                values[i_] = join(values[i_], across[row_ + i_ * STEPR + t_]);                                \
        }                                                                                                     \
    }
#endif
#define PLUS(a, b) ((a) + (b))
#define LARGEST_OF_ROW(values) ACROSS_ROW(values, max)
#define SUM_OF_ROW(values) ACROSS_ROW(values, PLUS)
