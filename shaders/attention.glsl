// What the attention kernels share: where rows of q, k, v and out begin. `layout_` holds for each of them offset, outer,
// window, head, row: the first element and the steps between neighbours, in elements; for gradients those of dq, dk, dv,
// too. The kernels of gradients set MODE:
//   STATS    a work group has queries, y the output: result [3, softmax groups, queries] gets the largest score, one over
//            the sum of exp(score - largest), and the sum of dy * y
//   QUERIES  a work group has queries, y those numbers: result gets dq
//   KEYS     a work group has keys, y those numbers: result gets dk (with DK) and dv (with DV)
#define STATS 1
#define QUERIES 2
#define KEYS 3

// VEC4: all rows begin at multiples of four elements and are read and written by fours.
#ifdef VEC4
#define Q_K_V(B) B(0, Real4, q) B(1, Real4, k) B(2, Real4, v)
#else
#define Q_K_V(B) B(0, Real, q) B(1, Real, k) B(2, Real, v)
#endif
#if defined MODE && defined VEC4 && MODE == STATS
#define RESULT(B) B(4, Vec4, dy) B(5, Vec4, y) B(6, Float, result)
#elif defined MODE && defined VEC4
#define RESULT(B) B(4, Vec4, dy) B(5, Float, y) B(6, Vec4, result)
#elif defined MODE
#define RESULT(B) B(4, Float, dy) B(5, Float, y) B(6, Float, result)
#elif defined VEC4
#define RESULT(B) B(4, Real4, y)
#else
#define RESULT(B) B(4, Real, y)
#endif
#ifdef MODE
#define BUFFERS(B) Q_K_V(B) B(3, Int, layout_) RESULT(B) LAST_BUFFER(B, 7)
#else
#define BUFFERS(B) Q_K_V(B) B(3, Int, layout_) RESULT(B) MASK_BUFFER(B, 5)
#endif
#ifdef MASK
#define MASK_BUFFER(B, index) B(index, Float, key_mask)
#else
#define MASK_BUFFER(B, index)
#endif
#ifdef PACKED // a kernel with all eight buffers taken: no mask
#define LAST_BUFFER(B, index) B(index, Float, packed)
#else
#define LAST_BUFFER MASK_BUFFER
#endif
#define SCALARS uint windows, heads, queries, keys, blocks, groups; float scale;
#include "terrane.glsl"

const float LOW = -1.7e38; // lower than any score, and finite: differences of two stay numbers

const uint OF_Q = 0, OF_K = 5, OF_V = 10, OF_OUT = 15, OF_DQ = 20, OF_DK = 25, OF_DV = 30;

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

#ifdef MODE
// The first query of a group in the numbers of queries; those of one kind are `stats_step()` apart.
uint stats_of(Place at)
{
    return ((at.outer * p.windows + at.window) * p.heads + at.head) * p.queries;
}
uint stats_step()
{
    return p.groups / p.blocks * p.queries; // groups is softmax groups * blocks
}
#endif
