// Loads of several neighbouring values at once from any multiple of 4 bytes, for CPU drivers. After terrane.glsl, in
// address access. SPIR-V asks for the alignment of a 64-bit word, and rows may start between two: processors read that, so
// these loads are for CPU drivers alone.
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Wide8Ref { u64vec4 at; };
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Wide4Ref { u64vec2 at; };
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Wide2Ref { uint64_t at; };

#define UNPACK(wide, v, first, count)                                                                         \
    [[unroll]] for (int i_ = 0; i_ < count / 2; i_++) {                                                       \
        vec2 pair_ = uintBitsToFloat(unpackUint2x32(wide[i_]));                                               \
        v[(first) + 2 * i_] = pair_.x;                                                                        \
        v[(first) + 2 * i_ + 1] = pair_.y;                                                                    \
    }
// v[first .. first + 7], v[first .. first + 3] from an address
#define LOAD8(address, v, first)                                                                              \
    {                                                                                                         \
        u64vec4 wide_ = Wide8Ref(address).at;                                                                 \
        UNPACK(wide_, v, first, 8)                                                                            \
    }
#define LOAD4(address, v, first)                                                                              \
    {                                                                                                         \
        u64vec2 wide_ = Wide4Ref(address).at;                                                                 \
        UNPACK(wide_, v, first, 4)                                                                            \
    }
// The same from as many values of float16.
#define UNPACK_HALF(wide, v, first)                                                                           \
    [[unroll]] for (int i_ = 0; i_ < 2; i_++) {                                                               \
        vec2 pair_ = unpackHalf2x16(unpackUint2x32(wide)[i_]);                                                \
        v[(first) + 2 * i_] = pair_.x;                                                                        \
        v[(first) + 2 * i_ + 1] = pair_.y;                                                                    \
    }
#define LOAD8_HALF(address, v, first)                                                                         \
    {                                                                                                         \
        u64vec2 wide_ = Wide4Ref(address).at;                                                                 \
        UNPACK_HALF(wide_.x, v, first)                                                                        \
        UNPACK_HALF(wide_.y, v, (first) + 4)                                                                  \
    }
#define LOAD4_HALF(address, v, first)                                                                         \
    {                                                                                                         \
        uint64_t wide_ = Wide2Ref(address).at;                                                                \
        UNPACK_HALF(wide_, v, first)                                                                          \
    }
