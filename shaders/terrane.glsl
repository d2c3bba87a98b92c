// Every shader begins with its parameters and then takes this file in:
//
//   #define BUFFERS(B) B(0, Float, x) B(1, Float, y)     index, element type, name
//   #define SCALARS uint count; float eps;               at least one, 32 bits each
//   #include "terrane.glsl"
//
// and reads and writes by AT(name, index), scalars by p.name. The same source becomes a kernel that gets its buffers as
// addresses (TRN_ADDRESS) or as storage buffers. Element types: Float, Vec4, Int, Uint; with HALF defined Half and
// Half4, of 16 bits, which are made floats as they are read: float(AT(a, i)); and Real, Real4 and Bits, for values that
// the host stores as float32 or as float16 (TRN_REAL_<index>): VALUE(name, index) reads one as a float, STORE(name,
// index, value) writes one. Bits are copied bit for bit when nothing is of float16. Of a kernel's buffers one is written.

#if defined HALF || defined TRN_HALF
#define TRN_HAS_HALF
#endif
#define TRN_ELEMENT_Float(index) Float
#define TRN_ELEMENT_Vec4(index) Vec4
#define TRN_ELEMENT_Half(index) Half
#define TRN_ELEMENT_Half4(index) Half4
#define TRN_ELEMENT_Int(index) Int
#define TRN_ELEMENT_Uint(index) Uint
#ifdef TRN_HALF
#define TRN_ELEMENT_Real(index) TRN_REAL_##index
#define TRN_ELEMENT_Real4(index) TRN_REAL4(TRN_REAL_##index)
#define TRN_ELEMENT_Bits(index) TRN_REAL_##index
#define TRN_REAL4(type) TRN_REAL4_(type)
#define TRN_REAL4_(type) TRN_FOUR_##type
#define TRN_FOUR_Float Vec4
#define TRN_FOUR_Half Half4
#define VALUE(name, index) float(AT(name, index))
#define VALUE4(name, index) vec4(AT(name, index))
#ifndef TRN_REAL_0
#define TRN_REAL_0 Float
#endif
#ifndef TRN_REAL_1
#define TRN_REAL_1 Float
#endif
#ifndef TRN_REAL_2
#define TRN_REAL_2 Float
#endif
#ifndef TRN_REAL_3
#define TRN_REAL_3 Float
#endif
#ifndef TRN_REAL_4
#define TRN_REAL_4 Float
#endif
#ifndef TRN_REAL_5
#define TRN_REAL_5 Float
#endif
#ifndef TRN_REAL_6
#define TRN_REAL_6 Float
#endif
#ifndef TRN_REAL_7
#define TRN_REAL_7 Float
#endif
#else
#define TRN_ELEMENT_Real(index) Float
#define TRN_ELEMENT_Real4(index) Vec4
#define TRN_ELEMENT_Bits(index) Uint
#define VALUE(name, index) AT(name, index)
#define VALUE4(name, index) AT(name, index)
#endif
#ifdef TRN_RESULT_HALF
#define STORE(name, index, value) AT(name, index) = float16_t(value)
#define STORE4(name, index, value) AT(name, index) = f16vec4(value)
#else
#define STORE(name, index, value) AT(name, index) = value
#define STORE4(name, index, value) AT(name, index) = value
#endif

#ifdef TRN_HAS_HALF
#extension GL_EXT_shader_16bit_storage : require
#endif
#ifdef TRN_ADDRESS
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
layout(buffer_reference, std430, buffer_reference_align = 4) buffer FloatRef { float at[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Vec4Ref { vec4 at[]; };
#ifdef TRN_HAS_HALF
layout(buffer_reference, std430, buffer_reference_align = 2) buffer HalfRef { float16_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Half4Ref { f16vec4 at[]; };
#endif
layout(buffer_reference, std430, buffer_reference_align = 4) buffer IntRef { int at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer UintRef { uint at[]; };
#define TRN_MEMBER(index, type, name) TRN_MEMBER_(TRN_ELEMENT_##type(index), name)
#define TRN_MEMBER_(type, name) TRN_MEMBER_OF(type, name)
#define TRN_MEMBER_OF(type, name) type##Ref name;
layout(push_constant) uniform Params { BUFFERS(TRN_MEMBER) SCALARS } p;
#define AT(name, index) p.name.at[index]
#else
#define TRN_TYPE_Float float
#define TRN_TYPE_Vec4 vec4
#define TRN_TYPE_Half float16_t
#define TRN_TYPE_Half4 f16vec4
#define TRN_TYPE_Int int
#define TRN_TYPE_Uint uint
#define TRN_BINDING(index, type, name) TRN_BINDING_(index, TRN_ELEMENT_##type(index), name)
#define TRN_BINDING_(index, type, name) TRN_BINDING_OF(index, type, name)
#define TRN_BINDING_OF(index, type, name) \
    layout(set = 0, binding = index, std430) buffer Binding##index { TRN_TYPE_##type b_##name[]; };
BUFFERS(TRN_BINDING)
layout(push_constant) uniform Params { SCALARS } p;
#define AT(name, index) b_##name[index]
#endif

// Index of this work group in a one-dimensional grid that may have more groups than one axis allows: the host
// dispatches (min(n, 32768), ceil(n / 32768), 1) groups.
#define GROUPS_PER_ROW 32768u
#define GROUP_INDEX (gl_WorkGroupID.y * GROUPS_PER_ROW + gl_WorkGroupID.x)
#define INVOCATION_INDEX (GROUP_INDEX * gl_WorkGroupSize.x + gl_LocalInvocationID.x)

#include "math.glsl"
