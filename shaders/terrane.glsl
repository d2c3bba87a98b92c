// Every shader begins with its parameters and then takes this file in:
//
//   #define BUFFERS(B) B(0, Float, x) B(1, Float, y)     index, element type, name
//   #define SCALARS uint count; float eps;               at least one, 32 bits each
//   #include "terrane.glsl"
//
// and reads and writes by AT(name, index), scalars by p.name. The same source becomes a kernel that gets its buffers as
// addresses (TRN_ADDRESS) or as storage buffers. Element types: Float, Vec4, Int, Uint; with HALF defined Half and
// Half4, of 16 bits, which are made floats as they are read: float(AT(a, i)).

#ifdef HALF
#extension GL_EXT_shader_16bit_storage : require
#endif
#ifdef TRN_ADDRESS
#extension GL_EXT_buffer_reference : require
#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require
layout(buffer_reference, std430, buffer_reference_align = 4) buffer FloatRef { float at[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer Vec4Ref { vec4 at[]; };
#ifdef HALF
layout(buffer_reference, std430, buffer_reference_align = 2) buffer HalfRef { float16_t at[]; };
layout(buffer_reference, std430, buffer_reference_align = 8) buffer Half4Ref { f16vec4 at[]; };
#endif
layout(buffer_reference, std430, buffer_reference_align = 4) buffer IntRef { int at[]; };
layout(buffer_reference, std430, buffer_reference_align = 4) buffer UintRef { uint at[]; };
#define TRN_MEMBER(index, type, name) type##Ref name;
layout(push_constant) uniform Params { BUFFERS(TRN_MEMBER) SCALARS } p;
#define AT(name, index) p.name.at[index]
#else
#define TRN_TYPE_Float float
#define TRN_TYPE_Vec4 vec4
#define TRN_TYPE_Half float16_t
#define TRN_TYPE_Half4 f16vec4
#define TRN_TYPE_Int int
#define TRN_TYPE_Uint uint
#define TRN_BINDING(index, type, name) \
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
