// y [labels, classes] = 1 where the class is the label, else 0; rows of the ignored label are 0, those of labels that are
// no class are NaN.
#version 460

#define BUFFERS(B) B(0, Int, labels) B(1, Uint, y)
#define SCALARS uint count, classes, ignored, magic0, shifts;
#include "terrane.glsl"
#include "divide.glsl"

layout(local_size_x = 128) in;

void main()
{
    uint index = INVOCATION_INDEX;
    if (index >= p.count) return;
    uint row = index, column = take(row, p.classes, p.magic0, p.shifts, 0u);
    uint label = uint(AT(labels, row));
    bool ignored = label == p.ignored;
    // bits of NaN, 1 and 0: compilers may take it that floats are never NaN
    AT(y, index) = !ignored && label >= p.classes ? 0x7fc00000u : !ignored && label == column ? 0x3f800000u : 0u;
}
