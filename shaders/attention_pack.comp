// Rows of softmax groups transposed, in panels: packed [softmax groups, panels of SG rows, HEAD, SG], so that one load
// brings neighbouring rows. Behind the last row are zeros. A subgroup does a panel. See lanes.glsl on loads.
#extension GL_EXT_control_flow_attributes : require
#extension GL_KHR_shader_subgroup_basic : require

#ifndef SG
#define SG 8
#endif
#ifndef HEAD
#define HEAD 64
#endif
#ifndef WHAT
#define WHAT 5 // where these rows' numbers begin in the layout, see attention.glsl
#endif
#define BUFFERS(B) B(0, Float, x) B(1, Int, layout_) B(2, Float, packed)
#define SCALARS uint windows, heads, rows, panels, groups, start;
#include "terrane.glsl"
#include "lanes.glsl"

layout(local_size_x = SG) in;
layout(buffer_reference, std430, buffer_reference_align = 4) buffer LanesRef { float at[SG]; };

void main()
{
    uint lane = gl_SubgroupInvocationID;
    SELECT_LANES
    bool extra = GROUP_INDEX >= p.groups; // no return: uniform loads are done with all lanes off, too
    uint panel = extra ? 0u : GROUP_INDEX, group = panel / p.panels, first = panel % p.panels * SG;
    uint head = group % p.heads, window = group / p.heads % p.windows, outer = group / p.heads / p.windows;
    uint base = uint(AT(layout_, WHAT)) + outer * uint(AT(layout_, WHAT + 1)) + window * uint(AT(layout_, WHAT + 2)) +
                head * uint(AT(layout_, WHAT + 3));
    uint step = uint(AT(layout_, WHAT + 4)), to = p.start + (panel * HEAD + lane) * SG;
    [[unroll]] for (int j = 0; j < SG; j++) {
        uint row = first + j;
        uint64_t from = uint64_t(p.x) + 4ul * (base + min(row, p.rows - 1u) * step);
        [[unroll]] for (int e = 0; e < HEAD; e += SG) {
            float value;
            LOAD_LANES(value, LanesRef(from + 4ul * e), 0)
            if (!extra && e + lane < HEAD) AT(packed, to + uint(e * SG + j)) = row < p.rows ? value : 0.0;
        }
    }
}
