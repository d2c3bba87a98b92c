/* Shapes of the attention kernels that work through shared memory, forward and backward, and which of them
 * suit a device and a piece of work. Private to graph/ops. */
#ifndef TRN_GRAPH_OPS_ATTENTION_TILES_H
#define TRN_GRAPH_OPS_ATTENTION_TILES_H

#include "attention.h"

/* tx * ty invocations do a block of ty * tq rows and go over the others by tx * tk; a work group has `pack`
 * blocks. The macros TX, TY, TQ, TK and PACK; and DIRECT: tiles go to shared memory at once, where there are
 * no registers to fetch the next ones while these are computed with. */
typedef struct trn_tiles_shape {
    int tx, ty, tq, tk, pack;
    bool direct;
} trn_tiles_shape;

/* What a kernel does, in products of rows by others (scores) and sums over others, and what it keeps in
 * shared memory: tiles of rows, of others, and of numbers for each pair. */
typedef struct trn_tiles_work {
    int rows, others, head;
    int products, sums;
    int row_tiles, other_tiles, pair_tiles;
    bool whole; /* by trn_tiles_whole */
} trn_tiles_work;

enum { TRN_TILES_SHAPES = 4 };
/* Shapes that fit the device, the most promising first and one for each size of work group; 0: none fits. */
int trn_tiles_shapes(const trn_device_info *info, const trn_tiles_work *work,
                     trn_tiles_shape shapes[TRN_TILES_SHAPES]);
/* Whether all rows begin at multiples of four elements and the head is one, as VEC4 wants. */
bool trn_tiles_whole(const trn_attention_desc *d);
/* Adds the macros of a shape and of the device, VEC4 when all rows allow it, and the size of subgroups. */
void trn_tiles_macros(trn_lower *lower, trn_step *step, const trn_tiles_shape *shape,
                      const trn_attention_desc *d);
/* "tiles 64x32 4x4 x2": rows and others of a block, and of an invocation; blocks of a group; " direct" */
const char *trn_tiles_name(trn_lower *lower, const trn_tiles_shape *shape);
/* The shape that the choice mechanism picks for a node, among them and a rival, which may be NULL and comes
 * behind them; shape->pack is 0 when it is the rival. Fails when nothing fits. */
trn_status trn_tiles_choose(trn_lower *lower, const trn_node *node, const char *shader,
                            const trn_tiles_work *work, const trn_candidate *rival, trn_tiles_shape *shape,
                            trn_step *step, trn_error *err);

#endif
