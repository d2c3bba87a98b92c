/* What an operator is, for the files of graph/ops/ and the passes of graph/. Private to the room.
 *
 * An operator is one file: shape rule (in its builder), gradient rule, plain C reference, kernel choice, test
 * cases; its shaders; and one row in the operator table (graph/ops/table.c). Operator tests, selftest,
 * `terrane devices` and the docs take it from there. */
#ifndef TRN_GRAPH_OP_H
#define TRN_GRAPH_OP_H

#include "graph.h"

enum { TRN_MAX_INPUTS = 7, TRN_ATTR_BYTES = 320, TRN_MAX_GROUP = 24 };

typedef struct trn_op trn_op;
typedef struct trn_node trn_node;

struct trn_tensor {
    trn_graph *graph;
    int id; /* index in graph->tensors */
    trn_dtype type;
    trn_shape shape;
    int64_t count;
    trn_node *producer;  /* NULL for leaves */
    trn_tensor *view_of; /* reshape: shares the other's memory */
    bool constant;       /* known at compile time */
    const char *name;    /* inputs, params, outputs */
    trn_fill fill;       /* params and states; NULL for constants and zeros */
    const char *asked;   /* the name that fill is given, when it is not `name` */
    void *fill_user;
    const void *values; /* constants */
    bool is_input, is_output;
    bool is_state; /* an input that is filled when the graph is compiled */
    int consumers; /* nodes that read it (views counted through) */
};

struct trn_node {
    const trn_op *op;
    int id, input_count;
    trn_tensor *inputs[TRN_MAX_INPUTS]; /* NULL for an absent optional one */
    trn_tensor *out;
    const char *scope;                               /* "blocks.3." */
    _Alignas(16) unsigned char attr[TRN_ATTR_BYTES]; /* the operator's own struct */
};

/* ---- lowering: a node becomes steps (dispatches over tensors) ---- */

/* An operand of a step: bytes [offset, offset + size) of a tensor's memory. */
typedef struct trn_operand {
    trn_tensor *tensor;
    uint64_t offset, size; /* size 0: to the end */
    bool written;
} trn_operand;

/* Filled by an operator and handed to trn_lower_step, which copies it. `epilogue` asks the pass to append the
 * fused pointwise chain of the node, if there is one, to this step's operands, scalars and generated text. */
typedef struct trn_step {
    const char *shader;
    const char *variant; /* name of the kernel variant, for explain */
    const char *reason;  /* why this one, for explain; may be NULL */
    trn_macro macros[32];
    int macro_count;
    trn_operand operands[TRN_MAX_BINDINGS];
    int operand_count;
    trn_scalar scalars[TRN_MAX_SCALARS];
    int scalar_count;
    uint32_t groups[3];
    uint32_t subgroup_size; /* required; 0: any */
    int texels;             /* the first so many operands are read as texels, too: trn_kernel_desc */
    double flops, bytes;
    bool epilogue;
} trn_step;

typedef struct trn_lower trn_lower; /* one compilation */
const trn_device_info *trn_lower_device(const trn_lower *lower);
trn_gpu *trn_lower_gpu(const trn_lower *lower);
/* Text or macro values that live as long as the compilation. NULL when out of memory (trn_lower_step then
 * fails). */
const char *trn_lower_printf(trn_lower *lower, const char *fmt, ...) TRN_PRINTF(2, 3);
trn_status trn_lower_step(trn_lower *lower, const trn_step *step, trn_error *err);
/* Device memory for this node only (split-K partial sums and the like). */
trn_tensor *trn_lower_temporary(trn_lower *lower, uint64_t bytes, trn_error *err);
/* A copy of constant tensor `source` in another layout, made once at compile time and shared by all nodes
 * that ask for the same (source, layout). *is_new tells the caller to add the steps that fill it, between
 * begin and end. Returns NULL when source is not constant. */
trn_tensor *trn_lower_packed(trn_lower *lower, trn_tensor *source, const char *layout, uint64_t bytes,
                             bool *is_new, trn_error *err);
void trn_lower_setup_begin(trn_lower *lower); /* steps until end run once, at compile time */
void trn_lower_setup_end(trn_lower *lower);
/* The tensor a step must write: the node's own, or the end of the fused chain. Only steps with `epilogue` may
 * ask for it when the node has a chain. */
trn_tensor *trn_lower_output(const trn_lower *lower, const trn_node *node);
/* One of the kernels that can compute a node here. Texts are copied. */
typedef struct trn_candidate {
    const char *name; /* "tiles 128x128x16": says all that makes it differ from the others of the operator */
    const char *shader; /* the file whose change makes measurements of it void */
    const char *reason; /* why it is offered, for explain; may be NULL */
    bool hopeless;      /* correct, but never fast on this kind of device: only tests run it */
} trn_candidate;
/* Which of the candidates (at least one, the default first) the node shall run: the one that
 * trn_compile_options.kernel names, else the fastest that trn_graph_tune measured on this device, else the
 * default. *reason says why and lives as long as the compilation. A node with several kernels may choose more
 * than once, by names that differ. */
int trn_lower_choose(trn_lower *lower, const trn_node *node, const trn_candidate *candidates, int count,
                     const char **reason);
/* Whether the tensor lies in memory as float16: of TRN_F16, or stored so (half.c). Bindings of type Real and
 * Bits in a shader follow by themselves. */
bool trn_lower_is_half(const trn_lower *lower, const trn_tensor *tensor);
/* From now on a temporary or packed tensor is known to hold float16, as many as fit its bytes. */
void trn_lower_holds_half(trn_tensor *extra);
/* For trn_op.half: all operands and the result; input 0 and the result. */
bool trn_half_takes_any(const trn_lower *lower, const trn_node *node, int which);
bool trn_half_takes_first(const trn_lower *lower, const trn_node *node, int which);
/* Steps from now on; whether trn_gpu_kernel finds a compiler or a shader pack for all of them; and taking
 * them back, when they are no setup steps. */
size_t trn_lower_mark(const trn_lower *lower);
bool trn_lower_knows_since(const trn_lower *lower, size_t mark);
void trn_lower_back_to(trn_lower *lower, size_t mark);
/* groups of a one-dimensional dispatch of `count` work groups, as terrane.glsl's GROUP_INDEX expects */
void trn_lower_groups(trn_step *step, int64_t count);

/* ---- the operator ---- */

typedef struct trn_variant {
    const char *name, *description;
    /* whether it can run on this device; fills why_not when it cannot */
    bool (*applies)(const trn_gpu *gpu, char why_not[128]);
} trn_variant;

/* One test case: builds the operator on inputs it makes with trn_input (filled by the harness with numbers
 * from their names: float inputs uniform in [-1,1), scaled as `case_input_scale` if set by name suffix "*k")
 * and marks outputs. */
typedef struct trn_op_case {
    const char *label;
    void (*build)(trn_graph *graph);
    double tolerance; /* of max|d|/max|ref|; 0: 1e-5 */
} trn_op_case;

struct trn_op {
    const char *name;
    /* gradient of the output, seeded with dy, with respect to input `which`; NULL after trn_graph_fail, or
     * NULL when it is zero. A missing rule (NULL here) is an error when a gradient must pass. */
    trn_tensor *(*gradient)(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which);
    const char *why_no_gradient; /* of an operator without a rule: "it is a gradient, .." */
    /* plain C, double accumulation: inputs[i] is float or int32_t data in C order (NULL if absent), out
     * likewise */
    void (*reference)(const trn_node *node, const void *const *inputs, void *out);
    trn_status (*lower)(trn_lower *lower, const trn_node *node, trn_error *err);
    void (*cost)(const trn_node *node, double *flops, double *bytes); /* NULL: bytes of operands, no flops */
    void (*describe)(const trn_node *node, trn_text *out); /* parameters for explain; may be NULL */
    bool epilogue; /* its kernels can end in a fused pointwise chain */
    bool float16;  /* takes operands of TRN_F16 */
    /* whether its kernels on this device can read input `which`, or write the result (-1), stored as float16;
     * asked again when an answer hangs on trn_lower_is_half of the others. NULL: none */
    bool (*half)(const trn_lower *lower, const trn_node *node, int which);
    const trn_variant *variants;
    int variant_count;
    const trn_op_case *cases;
    int case_count;
};

extern const trn_op *const trn_op_table[]; /* NULL-terminated */

/* ---- for builders ---- */

/* A node with zeroed attributes and its output tensor; NULL (and the graph failed) when out of memory, too
 * many inputs or elements (2^31 - 1), or any of the required inputs is NULL. */
trn_node *trn_node_add(trn_graph *graph, const trn_op *op, trn_tensor *const *inputs, int input_count,
                       trn_dtype type, trn_shape out_shape);
trn_arena *trn_graph_arena(trn_graph *graph);
const char *trn_type_name(trn_dtype type); /* for messages: "float32", "integers", "float16" */
/* Bytes of its memory, whole words. */
uint64_t trn_tensor_bytes(const trn_tensor *tensor);
/* axis in [-ndim, ndim) to [0, ndim); -1 after failing the graph */
int trn_axis(trn_graph *graph, const trn_tensor *x, int axis, const char *op);
/* [outer, axis, inner] of a shape cut at an axis */
typedef struct trn_split {
    int64_t outer, axis, inner;
} trn_split;
trn_split trn_split_at(const trn_shape *shape, int axis);

/* Standard epilogue use in a shader, after its own buffers and scalars:
 *   #include "generated.glsl"       defines EXTRA_BUFFERS(B), EXTRA_SCALARS, EPILOGUE(v, index, column)
 * v is the value (a float lvalue), index its position in the output, column the position in the last axis. */

#endif
