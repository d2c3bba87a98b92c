/* What the passes of graph/ share. Private to the room. */
#ifndef TRN_GRAPH_INTERNAL_H
#define TRN_GRAPH_INTERNAL_H

#include "op.h"

typedef struct trn_named_output {
    const char *name;
    trn_tensor *tensor;
} trn_named_output;

typedef struct trn_state_update {
    trn_tensor *state, *value;         /* both own their memory */
    const trn_weights_update *weights; /* NULL, or the step that changes the state with others, in place */
} trn_state_update;

/* Nodes [first, end) that stand between the marks of a block. */
typedef struct trn_block_range {
    size_t first, end;
} trn_block_range;

struct trn_graph {
    trn_arena *arena;
    trn_error error; /* the first one of building */
    const char *scope, *prefix;
    bool recompute;      /* blocks that are marked now are computed again for their gradients */
    bool mixed;          /* products that are built now take float16 */
    trn_tensor **halves; /* by base tensor id: its cast to float16, or NULL */
    size_t half_capacity;
    int block_depth;
    trn_block_range *blocks; /* whole ones and the one that is open; in building order */
    size_t block_count, block_capacity;
    trn_tensor **tensors;
    trn_node **nodes; /* in building order, which is a topological order */
    trn_named_output *outputs;
    bool (*learns)(void *user, const char *name); /* NULL: no parameter does */
    void *learns_user;
    trn_tensor **states;
    size_t state_count, state_capacity;
    trn_tensor **learning; /* the states made of parameters */
    size_t learning_count, learning_capacity;
    trn_state_update *updates;
    size_t update_count, update_capacity;
    size_t tensor_count, tensor_capacity, node_count, node_capacity, output_count, output_capacity;
};

trn_tensor *trn_tensor_new(trn_graph *graph, trn_dtype type, trn_shape shape);
trn_tensor *trn_tensor_base(trn_tensor *tensor); /* through views to the tensor that owns the memory */
/* "blocks.3.matmul" */
const char *trn_node_label(const trn_node *node, char buffer[128]);

/* malloc'd floats of values that lie as the tensor's type says; NULL: out of memory. */
float *trn_tensor_floats(const trn_tensor *tensor, const void *values);

/* needed[node->id]: whether an output or an update depends on it. Counts the consumers of every base tensor
 * on the way. malloc'd. */
trn_status trn_graph_needed(trn_graph *graph, bool **needed, trn_error *err);

/* ---- recompute.c ---- */

/* Adds the nodes of a block (those of the first node_count) once more, reading what enters the block and
 * what is known before a run. again[]: by base tensor id, takes the results. The graph fails when memory is
 * out. */
void trn_block_again(trn_graph *graph, const trn_block_range *block, size_t node_count, trn_tensor **again);

/* ---- pointwise.c ---- */

extern const trn_op trn_op_pointwise;

/* How element `i` of the output finds its operand: (i / div[0]) % mod[0] + ((i / div[1]) % mod[1]) * mod[0].
 */
typedef enum trn_broadcast_kind {
    TRN_BROADCAST_FULL,   /* i */
    TRN_BROADCAST_SCALAR, /* 0 */
    TRN_BROADCAST_MOD,    /* i % mod[0] */
    TRN_BROADCAST_DIVMOD, /* (i / div[0]) % mod[0] */
    TRN_BROADCAST_TWO,    /* all of it */
    TRN_BROADCAST_NONE,   /* not expressible */
} trn_broadcast_kind;
typedef struct trn_broadcast {
    trn_broadcast_kind kind;
    uint32_t div[2], mod[2];
} trn_broadcast;
trn_broadcast trn_broadcast_of(const trn_shape *operand, const trn_shape *out);

enum { TRN_POINTWISE_CONSTANTS = 4 };
typedef struct trn_pointwise_attr {
    int row, which; /* which: -1 the value, else the gradient with respect to that operand (the last input is
                       dy) */
    int operand_count, constant_count; /* operands of the row, without dy */
    float constants[TRN_POINTWISE_CONSTANTS];
    trn_broadcast broadcast[TRN_MAX_INPUTS];
} trn_pointwise_attr;
const trn_pointwise_attr *trn_pointwise_get(const trn_node *node);
/* GLSL expression in a, b, c, g (dy) and k0.. */
const char *trn_pointwise_expression(const trn_node *node);
const char *trn_pointwise_name(const trn_node *node);

/* ---- fuse.c ---- */

/* Nodes that run as one: an operator and the pointwise chain behind it, or a chain alone (root NULL). */
typedef struct trn_group {
    trn_node *root;
    trn_node *chain[TRN_MAX_GROUP];
    int chain_count;
    trn_tensor *out;
} trn_group;
enum {
    TRN_ROOT_OPERANDS = 4,
    TRN_ROOT_SCALARS = 12,
    TRN_PUSH_BYTES = 128
}; /* what a root with an epilogue may use of its own */
trn_status trn_fuse(trn_graph *graph, const bool *needed, bool enabled, trn_group **groups, size_t *count,
                    trn_error *err);
trn_node *trn_group_last(const trn_group *group);

/* ---- chain.c: the GLSL of a fused chain ---- */

typedef struct trn_chain_operand {
    trn_tensor *tensor;
    bool half; /* stored as float16 */
    trn_broadcast broadcast;
    bool column; /* an element for each place in the last axis */
} trn_chain_operand;
typedef struct trn_chain {
    trn_chain_operand operands[TRN_MAX_BINDINGS];
    int operand_count;
    trn_scalar scalars[TRN_MAX_SCALARS];
    int scalar_count;
} trn_chain;
/* Operands and scalars the group's chain reads beyond its root's value; false when they do not fit a kernel
 * beside the operands and scalars it has of its own. */
bool trn_chain_collect(const trn_group *group, int own_operands, int own_scalars, trn_chain *chain);
/* Text of generated.glsl: EXTRA_BUFFERS(B) from index first_binding on, EXTRA_SCALARS, EPILOGUE(v, index,
 * column). */
trn_status trn_chain_generate(const trn_group *group, int first_binding, const trn_chain *chain,
                              trn_text *out, trn_error *err);

/* ---- lower.c ---- */

typedef struct trn_lowered_step {
    trn_step step;
    const char *generated;
    const trn_group *group;
    const char *label;
    bool setup;
    bool skipped; /* of the setup: what it makes was there already (shared.c) */
    bool update;  /* runs when a run is over: see update.c */
} trn_lowered_step;

typedef struct trn_packed {
    trn_tensor *source, *packed;
    const char *layout;
} trn_packed;

/* Where an operator offered more kernels than one. */
typedef struct trn_choice {
    const trn_node *node;
    const trn_candidate *candidates;
    const char **keys; /* of the tuning store, by candidate: its seconds for such a node */
    double *seconds;   /* by candidate, as measured here; 0: not measured */
    int count, chosen;
    bool half_output; /* what the node's kernels write is stored as float16 */
} trn_choice;

typedef struct trn_hashed_shader {
    const char *shader;
    uint64_t hash;
} trn_hashed_shader;

struct trn_lower {
    trn_graph *graph;
    trn_gpu *gpu;
    trn_arena *arena;
    trn_group *groups;
    size_t group_count;
    const trn_group *group; /* being lowered */
    bool in_setup;          /* between setup_begin and setup_end */
    trn_lowered_step *steps;
    size_t step_count, step_capacity;
    trn_packed *packed;
    size_t packed_count, packed_capacity;
    const char *kernel; /* forced; or NULL */
    trn_choice *choices;
    size_t choice_count, choice_capacity;
    trn_hashed_shader hashed[8];
    int hashed_count;
    const char **float32_why; /* by tensor id, NULL: stored as float16; itself NULL: nothing is */
    trn_tensor **extra;       /* packed tensors and temporaries; ids follow the graph's */
    size_t extra_count, extra_capacity;
};
trn_status trn_lower_graph(trn_lower *lower, bool fusion, trn_precision precision, trn_error *err);
void trn_lower_free(trn_lower *lower);
/* The kernel that a step runs; its texts and macros are the step's. */
trn_kernel_desc trn_lowered_kernel(const trn_lowered_step *lowered);

/* ---- choose.c ---- */

/* Keys of the tuning store begin so. */
#define TRN_CHOICE_PREFIX "kernel "
/* The one to run of candidates that were measured (0: this one was not), where the first is the default: a
 * gain within noise leaves it. */
int trn_choose_fastest(const double *seconds, int count);

/* ---- half.c: storage as float16 ---- */

/* Decides what is stored as float16, of the groups of a graph. */
trn_status trn_half_mark(trn_lower *lower, trn_error *err);
/* Why a tensor of the graph is not; NULL when it is, or when precision is float32. */
const char *trn_lower_why_float32(const trn_lower *lower, const trn_tensor *tensor);
/* Bytes of a tensor as it is stored. */
uint64_t trn_lower_bytes(const trn_lower *lower, const trn_tensor *tensor);
/* Tells a step's shader which of its operands are of float16, and corrects its bytes. */
trn_status trn_half_macros(const trn_lower *lower, trn_step *step, trn_error *err);
/* Floats to float16 in place, and back. Finite values beyond the range of float16 are an error. */
trn_status trn_half_pack(const trn_tensor *tensor, void *values, trn_error *err);
void trn_half_unpack(void *values, int64_t count);

/* ---- update.c, update_weights.c ---- */

/* Whether it is a state; else the graph has failed. */
bool trn_update_may(trn_graph *graph, trn_tensor *state);
/* The value, kept to the end of a run, when it is computed; a copy of it when it is not and `copied`. NULL
 * when the graph has failed. */
trn_tensor *trn_update_keep(trn_graph *graph, trn_tensor *value, bool copied);
/* One more update; the graph fails when the state has one. */
void trn_update_append(trn_graph *graph, trn_tensor *state, trn_tensor *value,
                       const trn_weights_update *weights);
trn_status trn_lower_weights(trn_lower *lower, const trn_weights_update *update, trn_error *err);

/* Steps that give states their new values, behind all others. */
trn_status trn_lower_updates(trn_lower *lower, trn_error *err);

/* ---- plan.c: memory by lifetime ---- */

typedef struct trn_place {
    int block; /* -1: not in the arena */
    uint64_t offset, size;
    int first, last; /* steps */
} trn_place;
typedef struct trn_memory_plan {
    trn_place *places; /* by tensor id */
    uint64_t *block_bytes;
    int block_count;
    uint64_t total, unshared;
} trn_memory_plan;
enum { TRN_TENSOR_ALIGN = 256 };
/* fresh_inputs: all but states are set before every run, so their places may be used again in it. */
trn_status trn_memory_plan_make(const trn_lower *lower, bool keep_all, bool fresh_inputs,
                                uint64_t block_limit, trn_memory_plan *plan, trn_error *err);
void trn_memory_plan_free(trn_memory_plan *plan);

/* ---- reference.c ---- */

/* Data of a leaf: constants, params and states as they begin, malloc'd. */
trn_status trn_leaf_data(const trn_tensor *tensor, void **data, trn_error *err);
double trn_worst_error(const float *actual, const float *expected,
                       int64_t count); /* max|d| / max|expected|, NAN counts as infinite */

#endif
