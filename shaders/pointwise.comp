// A fused chain of pointwise operators: one invocation an element. With SG, for CPU drivers that find uniform loads by
// themselves: a subgroup of SG lanes does V vectors of neighbouring elements. Operands as large as the result come by vector
// loads (see lanes.glsl), and so do those of a row's length, which COLUMNS says are there: rows are whole vectors then, and
// no shorter than a group's. What has the same place for 64 neighbours is a uniform load.
#version 460
#extension GL_GOOGLE_include_directive : require
#ifdef SG
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_basic : require
#define FULL_VALUE(name, index) load_lanes(uint64_t(p.name) + 4ul * first)
#define COLUMN_VALUE(name, column) load_lanes(uint64_t(p.name) + 4ul * first_column)
#define SHARED_INDEX(index) first
#endif
#include "generated.glsl"
#define BUFFERS(B) B(0, Real, y) EXTRA_BUFFERS(B)
#define SCALARS uint count; uint columns; EXTRA_SCALARS
#include "terrane.glsl"

#ifdef SG
#include "lanes.glsl"

layout(local_size_x = SG) in;
layout(buffer_reference, std430, buffer_reference_align = 4) buffer LanesRef { float at[SG]; };

float load_lanes(uint64_t address)
{
    float value;
    SELECT_LANES
    LOAD_LANES(value, LanesRef(address), 0)
    return value;
}

void main()
{
    // no return: uniform loads are done with all lanes off, too
    bool extra = GROUP_INDEX >= (p.count + (SG * V - 1u)) / (SG * V);
    uint start = extra ? 0u : GROUP_INDEX * (SG * V);
#ifdef COLUMNS
    uint start_column = start % p.columns;
#endif
    [[unroll]] for (uint v = 0u; v < V; v++) {
        uint first = start + v * SG, i = first + gl_SubgroupInvocationID;
#ifdef COLUMNS
        uint first_column = start_column + v * SG;
        first_column -= first_column >= p.columns ? p.columns : 0u;
#endif
        float value = 0.0;
        EPILOGUE(value, i, 0u)
        if (i < p.count && !extra) STORE(y, i, value);
    }
}
#else
layout(local_size_x = 128) in; // what every device grants

void main()
{
    uint i = INVOCATION_INDEX;
    if (i >= p.count) return;
    float value = 0.0;
    EPILOGUE(value, i, i % p.columns)
    STORE(y, i, value);
}
#endif
