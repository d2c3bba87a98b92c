// For CPU drivers that find uniform loads by themselves: a vector of one value per lane, made of SG uniform loads and a
// select by lane, which such drivers turn into one vector load. (Values that all lanes share are plain loads: one
// broadcast.) Selections come before all loops: what is first computed in a loop and used behind it is no constant
// any more to those drivers. `from` is a buffer reference with an array `at`; first must be a literal: it becomes part
// of the instruction.
#define SELECT_LANES \
    bool lane_is_[SG]; \
    [[unroll]] for (int i_ = 0; i_ < SG; i_++) lane_is_[i_] = gl_SubgroupInvocationID == uint(i_);
#define LOAD_LANES(value, from, first)                                                                \
    {                                                                                                 \
        float v_[SG];                                                                                 \
        [[unroll]] for (int i_ = 0; i_ < SG; i_++) v_[i_] = (from).at[(first) + i_];                  \
        value = v_[0];                                                                                \
        [[unroll]] for (int i_ = 1; i_ < SG; i_++) value = mix(value, v_[i_], lane_is_[i_]);          \
    }

// Over all lanes, the same in each. (Shuffles are loops over the lanes; a broadcast from a literal lane is none.)
#define ACROSS_LANES(value, with)                                                                     \
    {                                                                                                 \
        float all_[SG];                                                                               \
        [[unroll]] for (int i_ = 0; i_ < SG; i_++) all_[i_] = subgroupBroadcast(value, uint(i_));     \
        [[unroll]] for (int i_ = 0; i_ < SG / 2; i_++) all_[i_] = with(all_[2 * i_], all_[2 * i_ + 1]); \
        [[unroll]] for (int i_ = 0; i_ < SG / 4; i_++) all_[i_] = with(all_[2 * i_], all_[2 * i_ + 1]); \
        if (SG > 4) [[unroll]] for (int i_ = 0; i_ < SG / 8; i_++) all_[i_] = with(all_[2 * i_], all_[2 * i_ + 1]); \
        if (SG > 8) all_[0] = with(all_[0], all_[1]);                                                 \
        value = all_[0];                                                                              \
    }
#define ADD_(a, b) ((a) + (b))
