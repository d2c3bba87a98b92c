// What the attention kernels share: where rows of q, k, v and out begin. `layout_` holds for each of them offset, outer,
// window, head, row: the first element and the steps between neighbours, in elements.

#ifdef MASK
#define MASK_BUFFER(B) B(5, Float, key_mask)
#else
#define MASK_BUFFER(B)
#endif
#define BUFFERS(B) B(0, Float, q) B(1, Float, k) B(2, Float, v) B(3, Int, layout_) B(4, Float, y) MASK_BUFFER(B)
#define SCALARS uint windows, heads, queries, keys, blocks, groups; float scale;
#include "terrane.glsl"

const float LOW = -1.7e38; // lower than any score, and finite: differences of two stay numbers

const uint OF_Q = 0, OF_K = 5, OF_V = 10, OF_OUT = 15;

// A softmax group, and the block of queries of it that this work group does.
struct Place {
    uint outer, window, head, first;
};
Place place_of(uint group, uint block_size)
{
    Place at;
    at.first = group % p.blocks * block_size;
    group /= p.blocks;
    at.head = group % p.heads;
    group /= p.heads;
    at.window = group % p.windows;
    at.outer = group / p.windows;
    return at;
}
uint base_of(uint what, Place at)
{
    return uint(AT(layout_, what)) + at.outer * uint(AT(layout_, what + 1)) + at.window * uint(AT(layout_, what + 2)) +
           at.head * uint(AT(layout_, what + 3));
}
uint row_step(uint what)
{
    return uint(AT(layout_, what + 4));
}
#ifdef MASK
bool shown(uint outer, uint key)
{
    return AT(key_mask, outer * p.keys + key) > 0.5;
}
#else
bool shown(uint outer, uint key)
{
    return true;
}
#endif
