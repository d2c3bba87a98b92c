// y [invocations] = sum of 12 independent chains v = v * scale + offset, 16 steps a round: how fast a device computes.
// A chain comes to rest at offset / (1 - scale), so that the host can check what was computed.
#version 460
#ifdef PACKED // float16, two to a register
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#define REAL f16vec2
#else
#define REAL float
#endif

#define BUFFERS(B) B(0, Float, y)
#define SCALARS float scale; float offset; uint rounds;
#include "terrane.glsl"

layout(local_size_x = 64) in;

#define ALL(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)
#define BEGIN(k) REAL v##k = REAL(float(i & 15u) + float(k));
#define STEP(k) v##k = fma(v##k, scale, offset);
#define ADD(k) +v##k

void main()
{
    uint i = INVOCATION_INDEX;
    REAL scale = REAL(p.scale), offset = REAL(p.offset);
    ALL(BEGIN)
    for (uint r = 0u; r < p.rounds; r++) {
        ALL(STEP) ALL(STEP) ALL(STEP) ALL(STEP) ALL(STEP) ALL(STEP) ALL(STEP) ALL(STEP)
        ALL(STEP) ALL(STEP) ALL(STEP) ALL(STEP) ALL(STEP) ALL(STEP) ALL(STEP) ALL(STEP)
    }
    REAL sum = REAL(0) ALL(ADD);
#ifdef PACKED
    AT(y, i) = float(sum.x) + float(sum.y);
#else
    AT(y, i) = sum;
#endif
}
