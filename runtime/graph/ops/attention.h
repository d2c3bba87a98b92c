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
/* Behind them, of the gradient's nodes. */
enum { TRN_ATTENTION_DY = TRN_ATTENTION_INPUTS };
/* Where the numbers of rows begin in a layout, as in attention.glsl. */
enum { TRN_ATTENTION_OF_Q = 0, TRN_ATTENTION_OF_K = 5, TRN_ATTENTION_OF_V = 10, TRN_ATTENTION_OF_OUT = 15 };
/* Rounds of one invocation that every driver grants, less those of the end. */
enum { TRN_ATTENTION_ROUNDS = 60000 };

typedef struct trn_attention_attr {
    trn_attention_desc desc;
} trn_attention_attr;

const trn_attention_desc *trn_attention_desc_of(const trn_node *node);

/* A constant with five numbers for each layout, as attention.glsl reads them. At most 8. */
trn_tensor *trn_attention_layouts(trn_graph *graph, const trn_heads_layout *const *layouts, int count);
/* Whether all its rows begin at multiples of four elements. */
bool trn_attention_fours(const trn_heads_layout *at);
/* The first element of a group's rows. */
int64_t trn_attention_place(const trn_heads_layout *at, int outer, int window, int head);
/* outer * windows * heads */
int64_t trn_attention_groups(const trn_attention_desc *d);
/* Adds a macro with a number to a step. */
void trn_step_macro(trn_lower *lower, trn_step *step, const char *name, int value);
void trn_attention_cost(const trn_node *node, double *flops, double *bytes);
bool trn_attention_tiles_apply(const trn_gpu *gpu, char why_not[128]);
/* Fails on drivers that end loops when a kernel needs `rounds` rounds for each of `blocks` blocks. */
trn_status trn_attention_check_rounds(const trn_lower *lower, int64_t blocks, int rounds, int rows,
                                      trn_error *err);

/* Adds operands, scalars and size to a step of attention.glsl's shape, and hands it over. keys: k, or a copy
 * in another order; rounds: of one invocation, per block of keys_at_once keys. */
trn_status trn_attention_add_step(trn_lower *lower, const trn_node *node, trn_tensor *keys, trn_step *step,
                                  int queries_at_once, int keys_at_once, int rounds, trn_error *err);

/* The kernels: attention_cpu.c (where trn_wide_lanes_apply), attention_gpu.c. */
trn_status trn_attention_cpu_lower(trn_lower *lower, const trn_node *node, trn_error *err);
trn_status trn_attention_gpu_lower(trn_lower *lower, const trn_node *node, trn_error *err);

/* ---- CPU drivers (attention_cpu.c), forward and backward ---- */

/* Sums of long rows are much unrolled code, which CPU drivers take a minute to compile. */
enum { TRN_ATTENTION_LONGEST_LANES = 128 };

/* A step of subgroups. */
trn_step trn_attention_lanes_step(trn_lower *lower, const char *shader, const char *variant,
                                  const char *reason);
/* Whether the kernel of uniform loads shall run, and not that of lanes; pass: what else tells the choice from
 * others of the node, "" or " KEYS". */
bool trn_attention_choose_uniform(trn_lower *lower, const trn_node *node, const char *pass,
                                  const char *shader, const char *lanes_shader, const char **reason);
/* Rows of a work group, so that sums over channels stay in registers; sums: vectors per row and channel. */
int trn_attention_rows_at_once(const trn_lower *lower, const trn_node *node, int rows, int sums);

/* Rows of every softmax group. */
typedef struct trn_attention_rows {
    trn_tensor *tensor;
    int layout; /* TRN_ATTENTION_OF_.. */
    int rows;   /* of a group */
} trn_attention_rows;
/* A temporary with rows of `count` tensors, as many in each, as attention_pack.comp leaves them. NULL with
 * err set. */
trn_tensor *trn_attention_pack(trn_lower *lower, const trn_node *node, const trn_attention_rows *from,
                               int count, trn_error *err);

/* ---- the gradient ---- */

/* One dispatch over blocks of queries or of keys. */
typedef struct trn_attention_pass {
    const char *mode;  /* of attention.glsl */
    int rows, others;  /* of a softmax group */
    trn_tensor *known; /* y, or the numbers of the queries */
    bool dk, dv;
    trn_tensor *packed; /* for kernels of uniform loads: the others, transposed; else NULL */
    double flops, bytes;
} trn_attention_pass;

/* As trn_attention_add_step, for a pass; at_once: rows of a work group. */
trn_status trn_attention_add_pass(trn_lower *lower, const trn_node *node, const trn_attention_pass *p,
                                  trn_step *step, int at_once, trn_error *err);
/* The kernels: attention_grad_cpu.c, attention_grad_gpu.c. */
trn_status trn_attention_cpu_pass(trn_lower *lower, const trn_node *node, const trn_attention_pass *p,
                                  trn_error *err);
trn_status trn_attention_gpu_pass(trn_lower *lower, const trn_node *node, const trn_attention_pass *p,
                                  trn_error *err);

/* The gradient rule (attention_grad.c). */
trn_tensor *trn_attention_gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which);

#endif
