// Loads of several neighbouring values at once, for CPU drivers. After terrane.glsl, in address access:
//
//   POSITION at = FIRST(x, index);     where element `index` of buffer x lies
//   LOAD8_FROM(x, at, v)               v[0 .. 7] from there
//   LOAD4_FROM(x, at, v, first)        v[first .. first + 3]
//   at += DISTANCE(count);             so many elements on
//
// With HALF the elements are of float16. With TRN_TEXELS, for drivers that read those faster, x_texels must be declared, and
// every index and count be a multiple of four; nothing lies behind the end.
#ifdef TRN_TEXELS
#define POSITION uint
#define FIRST(name, index) ((index) / 4u)
#define DISTANCE(count) ((count) / 4u)
#define LOAD4_FROM(name, position, v, first)                                                                  \
    {                                                                                                         \
        vec4 four_ = texelFetch(name##_texels, int(position));                                                \
        [[unroll]] for (int i_ = 0; i_ < 4; i_++) v[(first) + i_] = four_[i_];                                \
    }
#define LOAD8_FROM(name, position, v)                                                                         \
    {                                                                                                         \
        LOAD4_FROM(name, position, v, 0)                                                                      \
        LOAD4_FROM(name, (position) + 1u, v, 4)                                                               \
    }
#else
#define POSITION uint64_t
#define FIRST(name, index) (uint64_t(p.name) + BYTES * (index))
#define DISTANCE(count) (BYTES * (count))
#ifdef HALF
#define BYTES 2ul
#define LOAD8_FROM(name, position, v) LOAD8_HALF(position, v, 0)
#define LOAD4_FROM(name, position, v, first) LOAD4_HALF(position, v, first)
#else
#define BYTES 4ul
#define LOAD8_FROM(name, position, v) LOAD8(position, v, 0)
#define LOAD4_FROM(name, position, v, first) LOAD4(position, v, first)
#endif
#endif

// Without texels, from any multiple of 4 bytes. SPIR-V asks for the alignment of a 64-bit word, and rows may start between
// two: processors read that, so these loads are for CPU drivers alone.
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
