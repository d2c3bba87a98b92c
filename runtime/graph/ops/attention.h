/* What attention and its gradient share: the description, where rows lie, and the numbers a query's softmax
 * comes down to. Private to graph/ops. */
#ifndef TRN_GRAPH_OPS_ATTENTION_H
#define TRN_GRAPH_OPS_ATTENTION_H

#include "ops.h"

/* Inputs of an attention node; its gradient has more behind them (attention_grad.c). */
enum {
    TRN_ATTENTION_Q,
    TRN_ATTENTION_K,
    TRN_ATTENTION_V,
    TRN_ATTENTION_LAYOUT,
    TRN_ATTENTION_MASK,
    TRN_ATTENTION_INPUTS
};
/* Rounds of one invocation that every driver grants, less those of the end. */
enum { TRN_ATTENTION_ROUNDS = 60000 };

typedef struct trn_attention_attr {
    trn_attention_desc desc;
} trn_attention_attr;

/* A constant with five numbers for each layout, as attention.glsl reads them. At most 8. */
trn_tensor *trn_attention_layouts(trn_graph *graph, const trn_heads_layout *const *layouts, int count);
/* The first element of a group's rows. */
int64_t trn_attention_place(const trn_heads_layout *at, int outer, int window, int head);
/* outer * windows * heads */
int64_t trn_attention_groups(const trn_attention_desc *d);
/* Adds a macro with a number to a step. */
void trn_step_macro(trn_lower *lower, trn_step *step, const char *name, int value);
bool trn_attention_tiles_apply(const trn_gpu *gpu, char why_not[128]);
/* Fails on drivers that end loops when a kernel needs `rounds` rounds for each of `blocks` blocks. */
trn_status trn_attention_check_rounds(const trn_lower *lower, int64_t blocks, int rounds, int rows,
                                      trn_error *err);

/* The gradient rule (attention_grad.c). */
trn_tensor *trn_attention_gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which);

#endif
