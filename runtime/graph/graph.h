/* graph: tensors, operators, and their execution. A graph is built from operators over tensors of known
 * shape, compiled once for a device (kernels chosen, pointwise chains fused, memory planned, commands
 * recorded) and replayed.
 *
 * Building never needs an error check per call: a builder that fails returns NULL and the graph keeps the
 * first error; a builder given NULL returns NULL. trn_graph_status() or compiling reports it.
 *
 * Letters in shape comments: B batch, N tokens, C channels, H heads, D head size, h w image or grid height
 * and width. Row-major everywhere; images are [B,C,h,w], tokens [B,N,C]. Thread-safety: one thread at a time
 * per graph and per executable. */
#ifndef TRN_GRAPH_H
#define TRN_GRAPH_H

#include "base.h"
#include "gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TRN_MAX_DIMS = 6 };

/* 4, 4 and 2 bytes. TRN_F16 is how operands of matrix products may be asked to lie in memory: trn_cast makes
 * such tensors, trn_linear, trn_matmul, trn_reshape and trn_cast take them, and nothing else does; they are
 * no inputs, states or outputs. All arithmetic is of float32. */
typedef enum trn_dtype { TRN_F32, TRN_I32, TRN_F16 } trn_dtype;

typedef struct trn_shape {
    int ndim;
    int64_t dim[TRN_MAX_DIMS];
} trn_shape;
/* TRN_SHAPE(2, 3, 4) */
#define TRN_SHAPE(...)                                                                                       \
    ((trn_shape){.ndim = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .dim = {__VA_ARGS__}})
int64_t trn_shape_count(const trn_shape *shape);
bool trn_shape_equal(const trn_shape *a, const trn_shape *b);
const char *trn_shape_text(const trn_shape *shape, char buffer[128]); /* "[2,197,768]" */

typedef struct trn_graph trn_graph;
typedef struct trn_tensor trn_tensor; /* a value of a graph; owned by it */

trn_graph *trn_graph_create(void); /* NULL: out of memory */
void trn_graph_destroy(trn_graph *graph);
/* The first error of building, or TRN_OK. */
trn_status trn_graph_status(const trn_graph *graph, trn_error *err);
/* Makes a builder's own check fail: keeps the error (the first wins) and returns NULL. */
trn_tensor *trn_graph_fail(trn_graph *graph, const char *fmt, ...) TRN_PRINTF(2, 3);
/* Name put before the labels of operators built from now on ("blocks.3."); NULL or "" for none. Copied. */
void trn_graph_scope(trn_graph *graph, const char *scope);

const trn_shape *trn_tensor_shape(const trn_tensor *tensor);
int64_t trn_tensor_dim(const trn_tensor *tensor, int axis); /* negative axes count from the end; 0 for NULL */
trn_dtype trn_tensor_type(const trn_tensor *tensor);

/* ---- leaves ---- */

trn_tensor *trn_input(trn_graph *graph, const char *name, trn_dtype type, trn_shape shape);
/* A value known before the run: weights and tables. `fill` writes count values (float, or int32_t for
 * TRN_I32) when the graph is compiled, straight into a transfer buffer, so that weights need not stay in host
 * memory. user must live as long as the graph is compiled. The same name, shape, fill and user give the same
 * tensor: a model that is built twice keeps its weights once. What depends on constants alone is computed
 * once, at compile time, on the device. */
typedef trn_status (*trn_fill)(void *user, const char *name, const trn_shape *shape, void *out,
                               trn_error *err);
trn_tensor *trn_param(trn_graph *graph, const char *name, trn_shape shape, trn_fill fill, void *user);
trn_tensor *trn_constant(trn_graph *graph, const char *name, trn_shape shape,
                         const float *values); /* copied */
trn_tensor *trn_constant_int(trn_graph *graph, const char *name, trn_shape shape,
                             const int32_t *values); /* copied */
/* A value in device memory that lasts from run to run: what learns, and what an optimiser remembers. `fill`
 * (NULL: zeros) writes it when the graph is compiled; trn_exec_set replaces it by its name; to read it, make
 * it an output. It is an input in all else: nothing that depends on it is computed before a run, and
 * trn_gradients takes it. */
trn_tensor *trn_state(trn_graph *graph, const char *name, trn_shape shape, trn_fill fill, void *user);
/* When a run is over, the state takes this value of the run, of the same shape: a step of training. All that
 * a run computes, new values of other states too, sees the old ones. Once for each state. trn_reference_run
 * updates nothing. */
void trn_update(trn_graph *graph, trn_tensor *state, trn_tensor *value);
/* The same for the step of an optimiser: one kernel changes weights, and what is remembered of them, in
 * place, so that new values take no memory. Formulas: nn.h, "optimisers". All states have the shape of the
 * weights, and so has the gradient; each is updated once. */
enum { TRN_STEP_NOW = 6 };
typedef enum trn_step_rule { TRN_STEP_ADAMW, TRN_STEP_SGD } trn_step_rule;
typedef struct trn_weights_update {
    trn_step_rule rule;
    trn_tensor *weights;
    trn_tensor *first, *second; /* states. AdamW: both moments; SGD: the momentum or NULL, and NULL */
    trn_tensor *average;        /* state of the moving average of the weights, or NULL */
    /* state, or NULL: gradients of runs that end no step are added to it; the run that does takes its sum
     * with the gradient and leaves zeros */
    trn_tensor *accumulated;
    trn_tensor *gradient;
    /* TRN_STEP_NOW floats: learning rate, 1/(1 - beta1^t), 1/sqrt(1 - beta2^t), 1 when the average begins,
     * else 0; 1 when this run ends a step, else 0: all stays as it is; what the gradient, or its sum, is
     * multiplied by first */
    trn_tensor *now;
    /* 1 float, of all gradients so multiplied, or NULL when max_norm is 0: the gradient is multiplied by
     * min(1, max_norm / (norm + 1e-6)) when max_norm > 0, and a norm that is not finite leaves all as it was,
     * but the average begins. */
    trn_tensor *norm;
    double lr_scale, decay, beta1, beta2, eps, max_norm, average_keeps; /* beta1 of SGD: the momentum */
    /* decay * weights is added to the gradient; else lr * decay * weights is taken off the weights */
    bool coupled;
    bool nesterov; /* of SGD */
} trn_weights_update;
void trn_update_weights(trn_graph *graph, const trn_weights_update *update);
/* Chooses the parameters that learn. From now on trn_param makes a state of each whose name `learns` accepts,
 * and a constant of the others, so that whole encoders can be built to be trained, in all or in part; a state
 * that is asked for again is the same tensor. NULL: none learns, as in the beginning. user must live until
 * another choice is made, or the graph is destroyed. */
void trn_graph_train(trn_graph *graph, bool (*learns)(void *user, const char *name), void *user);
/* The i-th parameter that learns, in the order of building, for trn_gradients; NULL past the last. name may
 * be NULL. */
trn_tensor *trn_graph_learning(const trn_graph *graph, size_t i, const char **name);
/* Put before the names of parameters that learn from now on, before `learns` sees them ("encoder."), so that
 * two networks of one graph have states of different names. fill gets the name without it. NULL or "": none.
 * Copied. */
void trn_graph_prefix(trn_graph *graph, const char *prefix);
const char *trn_graph_prefix_now(const trn_graph *graph); /* "": none */
/* A parameter that runs change, by trn_update, though no gradient does: running statistics. It is a state,
 * with the prefix before its name and not in the list of trn_graph_learning, when this graph `changes` it
 * (then it is an output under its name, too) or when trn_graph_train has made a choice, so that a graph that
 * evaluates can take it from the one that trains; else as trn_param. A state that is asked for again is the
 * same tensor. */
trn_tensor *trn_param_state(trn_graph *graph, const char *name, trn_shape shape, bool changes, trn_fill fill,
                            void *user);
/* The i-th state in the order of building: parameters that learn, running statistics, what optimisers
 * remember; NULL past the last. name may be NULL. */
trn_tensor *trn_graph_state(const trn_graph *graph, size_t i, const char **name);
void trn_output_add(trn_graph *graph, const char *name,
                    trn_tensor *tensor); /* keeps it readable after a run */

/* ---- matrix products and attention ---- */

/* x [..,K], w [N,K], b [N] or NULL -> [..,N]: x w^T + b */
trn_tensor *trn_linear(trn_graph *graph, trn_tensor *x, trn_tensor *w, trn_tensor *b);
/* a [..,M,K] (or [..,K,M] if transpose_a), b [..,K,N] (or [..,N,K] if transpose_b) -> [..,M,N]. Leading
 * dimensions are equal, or b has two dimensions and serves all. */
trn_tensor *trn_matmul(trn_graph *graph, trn_tensor *a, trn_tensor *b, bool transpose_a, bool transpose_b);

/* x in the other storage type, TRN_F32 or TRN_F16: to the nearest, ties to even; what is beyond 65504 becomes
 * infinite. Of its own type: x itself. A gradient stays float32 and passes unchanged. Compiling float16 on a
 * device without 16-bit storage is TRN_ERR_UNSUPPORTED. */
trn_tensor *trn_cast(trn_graph *graph, trn_tensor *x, trn_dtype type);
/* Mixed precision: while it is on, products (also those of convolutions, and those that gradients are made
 * of) take their operands rounded to float16, each tensor once, and add up in float32. Results, biases and
 * all other operators stay float32. A product that is given one operand of TRN_F16 takes the other so, too.
 */
void trn_graph_mixed(trn_graph *graph, bool on);

/* Where element (outer, window, head, row, d) of an attention operand lies: offset + sum of index * stride,
 * in elements; d is contiguous. So packed qkv and mask units need no copy. */
typedef struct trn_heads_layout {
    int64_t offset, outer, window, head, row;
} trn_heads_layout;
typedef struct trn_attention_desc {
    int outer, windows, heads; /* softmax groups: outer * windows * heads */
    int queries, keys, head_size;
    float scale; /* of the scores; 0: 1/sqrt(head_size) */
    trn_heads_layout q, k, v, out;
    trn_shape out_shape;
} trn_attention_desc;
/* out = softmax(scale q k^T + mask) v per (outer, window, head), never storing the scores of a layer.
 * key_mask [outer, keys] (1 attend, 0 hide; NULL: all): a query whose keys are all hidden gives 0. */
trn_tensor *trn_attention(trn_graph *graph, trn_tensor *q, trn_tensor *k, trn_tensor *v, trn_tensor *key_mask,
                          const trn_attention_desc *desc);
/* qkv [B,N,3*H*D] packed [q|k|v][head][d] -> [B,N,H*D], all tokens attend to all. */
trn_tensor *trn_self_attention(trn_graph *graph, trn_tensor *qkv, int heads, trn_tensor *key_mask);
/* Tokens t = n*W + win: W windows whose index is fastest (Hiera's mask units). qkv [B,N,3*H*D] -> [B,N,H*D]
 */
trn_tensor *trn_mask_unit_attention(trn_graph *graph, trn_tensor *qkv, int heads, int windows);
/* The same with fewer queries: the elementwise maximum of q [B,N,H*D] over groups of `pool` (view [pool,
 * N/(W*pool)]); kv [B,N,2*H*D] -> [B, N/pool, H*D]. */
trn_tensor *trn_pooled_unit_attention(trn_graph *graph, trn_tensor *q, trn_tensor *kv, int heads, int windows,
                                      int pool);

/* ---- normalisation ---- */

trn_tensor *trn_layer_norm(trn_graph *graph, trn_tensor *x, trn_tensor *w, trn_tensor *b,
                           float eps);                                    /* last axis; w, b [C] or NULL */
trn_tensor *trn_softmax(trn_graph *graph, trn_tensor *x);                 /* last axis */
trn_tensor *trn_log_softmax(trn_graph *graph, trn_tensor *x);             /* last axis */
trn_tensor *trn_l2_normalize(trn_graph *graph, trn_tensor *x, float eps); /* last axis: x / max(|x|, eps) */
/* x [B,C,..]: per-channel (x - mean) / sqrt(var + eps) * w + b with fixed statistics [C] */
trn_tensor *trn_batch_norm_eval(trn_graph *graph, trn_tensor *x, trn_tensor *mean, trn_tensor *var,
                                trn_tensor *w, trn_tensor *b, float eps);

/* ---- convolution, pooling, resizing ---- */

typedef struct trn_conv_desc {
    int stride[3], padding[3]; /* t, y, x (2-D uses [1], [2]); stride 0 means 1 */
} trn_conv_desc;
trn_tensor *trn_conv2d(trn_graph *graph, trn_tensor *x, trn_tensor *w, trn_tensor *b,
                       const trn_conv_desc *desc); /* x [B,C,h,w], w [O,C,kh,kw] -> [B,O,h',w'] */
trn_tensor *trn_conv3d(trn_graph *graph, trn_tensor *x, trn_tensor *w, trn_tensor *b,
                       const trn_conv_desc *desc); /* x [B,C,t,h,w], w [O,C,kt,kh,kw] */
/* The same as tokens: -> [B, (t'*)h'*w', O], row-major over the grid; for patch embeddings. x and w both 4-D
 * or both 5-D. */
trn_tensor *trn_conv_tokens(trn_graph *graph, trn_tensor *x, trn_tensor *w, trn_tensor *b,
                            const trn_conv_desc *desc);
trn_tensor *trn_conv_transpose2d(trn_graph *graph, trn_tensor *x, trn_tensor *w, trn_tensor *b,
                                 const trn_conv_desc *desc); /* w [C,O,kh,kw] */
typedef enum trn_pool_kind { TRN_POOL_MAX, TRN_POOL_MEAN } trn_pool_kind;
/* x [outer,h,w,inner] given by the axis of h (w follows): NCHW axis 2, NHWC axis 1. Windows at stride, no
 * padding, floor. */
trn_tensor *trn_pool2d(trn_graph *graph, trn_tensor *x, int axis, trn_pool_kind kind, int size, int stride);
trn_tensor *trn_adaptive_avg_pool2d(trn_graph *graph, trn_tensor *x, int axis, int out_h, int out_w);

typedef enum trn_resize_mode { TRN_RESIZE_NEAREST, TRN_RESIZE_BILINEAR, TRN_RESIZE_BICUBIC } trn_resize_mode;
typedef struct trn_resize_desc {
    trn_resize_mode mode;
    bool align_corners; /* src = dst*(in-1)/(out-1), else src = (dst+0.5)*in/out - 0.5 */
    bool antialias;     /* when shrinking, the filter is widened (bicubic a = -0.5 then, else -0.75) */
    /* when scale[0] != 0: src = dst*scale + offset per axis (y, x), for grids whose cells do not span the
     * same ground */
    double scale[2], offset[2];
} trn_resize_desc;
/* x [outer,h,w,inner], axis of h as above -> h, w replaced; border clamped */
trn_tensor *trn_resize2d(trn_graph *graph, trn_tensor *x, int axis, int out_h, int out_w,
                         const trn_resize_desc *desc);

/* ---- moving, picking, reducing ---- */

trn_tensor *trn_reshape(trn_graph *graph, trn_tensor *x, trn_shape shape); /* one dim may be -1; no copy */
trn_tensor *trn_permute(trn_graph *graph, trn_tensor *x,
                        const int *order); /* out axis i is x axis order[i] */
trn_tensor *trn_slice(trn_graph *graph, trn_tensor *x, int axis, int64_t start, int64_t count);
trn_tensor *trn_concat(trn_graph *graph, trn_tensor *const *parts, int count, int axis); /* count <= 64 */
trn_tensor *trn_expand(trn_graph *graph, trn_tensor *x, trn_shape shape); /* repeats axes of size 1 */
trn_tensor *trn_pad(trn_graph *graph, trn_tensor *x, int axis, int64_t before, int64_t after); /* zeros */
/* index [n] of TRN_I32: out axis = x[.., index[i], ..]; a constant index is checked when the graph is built,
 * others are clamped */
trn_tensor *trn_gather(trn_graph *graph, trn_tensor *x, int axis, trn_tensor *index);
/* labels [..] of TRN_I32 -> [..,classes]: 1 at the label, else 0. Rows of the label `ignored` are 0; rows of
 * any other label outside of [0, classes) are NaN, so that a wrong label cannot pass unseen. No gradient. */
trn_tensor *trn_one_hot(trn_graph *graph, trn_tensor *labels, int classes, int32_t ignored);
typedef enum trn_reduce_kind {
    TRN_REDUCE_SUM,
    TRN_REDUCE_MEAN,
    TRN_REDUCE_MAX,
    TRN_REDUCE_SUM_SQUARES
} trn_reduce_kind;
trn_tensor *trn_reduce(trn_graph *graph, trn_tensor *x, int axis, trn_reduce_kind kind, bool keep_axis);

/* ---- pointwise: rows of expressions (graph/pointwise.c); operands broadcast as in NumPy ---- */

trn_tensor *trn_pointwise(trn_graph *graph, const char *row, trn_tensor *const *operands, int count,
                          const float *constants, int constant_count);
trn_tensor *trn_add(trn_graph *graph, trn_tensor *a, trn_tensor *b);
trn_tensor *trn_sub(trn_graph *graph, trn_tensor *a, trn_tensor *b);
trn_tensor *trn_mul(trn_graph *graph, trn_tensor *a, trn_tensor *b);
trn_tensor *trn_div(trn_graph *graph, trn_tensor *a, trn_tensor *b);
trn_tensor *trn_max(trn_graph *graph, trn_tensor *a, trn_tensor *b);
trn_tensor *trn_affine(trn_graph *graph, trn_tensor *x, float scale, float offset); /* x*scale + offset */
trn_tensor *trn_unary(trn_graph *graph, const char *row,
                      trn_tensor *x); /* "gelu", "gelu_tanh", "relu", "silu", "sigmoid", "exp", "sqrt", .. */

/* ---- random numbers ---- */

/* counters [B,2] of TRN_I32, what a row is (a sample's number, the step, say) -> shape [B,..]: uniform in [0,
 * 1), 24 bits. Number i of row b depends on seed, stream, counters[b] and i alone: the same bits on every
 * device, whatever else is in the batch. No gradient. */
trn_tensor *trn_random_uniform(trn_graph *graph, trn_tensor *counters, uint64_t seed, uint32_t stream,
                               trn_shape shape);

/* ---- gradients ---- */

/* Gradient checkpointing. While it is on, what stands between trn_graph_block_begin and trn_graph_block_end
 * is computed a second time for its gradients, from what enters the block, so that values inside blocks need
 * no memory from the forward pass to the backward one. Results are the same bits. Blocks do not nest (an
 * inner pair is part of the outer one); builders of encoders mark theirs whether it is on or not. */
void trn_graph_recompute(trn_graph *graph, bool on);
void trn_graph_block_begin(trn_graph *graph);
void trn_graph_block_end(trn_graph *graph);

/* Adds to the graph the gradients of sum(y * seed) with respect to wrt[i] (seed NULL: ones). An operator on
 * the way whose rule is missing is an error that names it. grads[i] is NULL when y does not depend on wrt[i].
 * wrt are any tensors: inputs, states, values in between. Of constants (parameters that do not learn) a
 * gradient is as good, but what depends on constants alone stays computed at compile time. */
trn_status trn_gradients(trn_graph *graph, trn_tensor *y, trn_tensor *seed, trn_tensor *const *wrt, int count,
                         trn_tensor **grads, trn_error *err);

/* ---- executing ---- */

/* How the values of a run lie in memory. FLOAT16, for inference: values that kernels hand to kernels, and
 * weights of more than one row, take half the bytes where all the kernels that touch them can (the rest stays
 * float32, and explain says why); arithmetic, inputs and outputs stay float32. AUTO: FLOAT16 where the device
 * has 16-bit storage and is not known to be slower with it. */
typedef enum trn_precision { TRN_PRECISION_FLOAT32, TRN_PRECISION_FLOAT16, TRN_PRECISION_AUTO } trn_precision;
const char *trn_precision_name(trn_precision precision); /* "float32", "float16", "auto" */
/* FLOAT32 or FLOAT16. TRN_ERR_UNSUPPORTED when float16 is wanted of a device without 16-bit storage. */
trn_status trn_precision_choose(const trn_gpu *gpu, trn_precision wanted, trn_precision *chosen,
                                trn_error *err);

typedef struct trn_exec trn_exec;

/* Weights in device memory, packed ones too, that several executables of one device use: graphs of the same
 * model at other batch sizes, or of training and evaluation. What is known before a run is taken when its
 * values are the same: constants by their values, params by their fill, its user and their name, which must
 * go on to give the same numbers; and what is computed from those. */
typedef struct trn_shared_weights trn_shared_weights;
trn_status trn_shared_weights_create(trn_gpu *gpu, trn_shared_weights **out, trn_error *err);
/* After the executables that use them; NULL is fine. */
void trn_shared_weights_destroy(trn_shared_weights *shared);

typedef struct trn_compile_options {
    trn_precision precision;
    bool plan_only; /* kernels, fusions and memory are decided, nothing of the graph is allocated, uploaded or
                       compiled: for --explain. On a device never measured a small product runs once, for the
                       estimate of time. */
    bool no_fusion; /* every operator on its own (also TERRANE_DISABLE=fusion) */
    bool keep_all;  /* no two tensors share memory, so that every value can be read after a run */
    bool check;  /* also $TERRANE_CHECK=1: after every run each operator is compared with its C reference */
    bool poison; /* fills the arena with NaN before every run */
    int seats; /* runs that may be in flight at once by trn_exec_start: each has memory of its own for inputs
                  and outputs, but for outputs that are states: those are read by trn_exec_get, while no run
                  is in flight. 0: trn_exec_run only. */
    uint64_t memory_limit; /* device bytes; 0: what is available */
    /* Weights that are there are used, others are added. They stay when the executable is destroyed, until
     * the next compilation with them, which frees what neither it nor another executable uses. NULL: the
     * executable has weights of its own. */
    trn_shared_weights *shared;
    /* Name of a candidate that every node which offers it runs, the others their default: for tests and
     * tuning;
     * "": all their defaults. NULL: by measurement, else by default. */
    const char *kernel;
} trn_compile_options;
/* The graph must outlive the executable. TRN_ERR_MEMORY before anything runs when the plan does not fit. */
trn_status trn_compile(trn_graph *graph, trn_gpu *gpu, const trn_compile_options *options, trn_exec **out,
                       trn_error *err);
void trn_exec_destroy(trn_exec *exec); /* NULL is fine */
trn_status trn_exec_set(trn_exec *exec, const char *input, const void *data, trn_error *err);
trn_status trn_exec_run(trn_exec *exec, const trn_progress *progress, trn_error *err);
trn_status trn_exec_get(trn_exec *exec, const char *output, void *data, trn_error *err);

/* Runs in flight, of an executable compiled with seats: set a seat's inputs, start it, use other seats or
 * other results meanwhile, finish it, get its outputs. Runs are done in the order of their start, so seats
 * are best taken in turn. An input that is not set again keeps its value; one never set is zeros. The first
 * runs measure the device, and are over when start returns. */
trn_status trn_exec_seat_set(trn_exec *exec, int seat, const char *input, const void *data, trn_error *err);
trn_status trn_exec_start(trn_exec *exec, int seat, const trn_progress *progress, trn_error *err);
/* Keeps the device busy without waiting: to be called now and then between start and finish by who works for
 * longer than some milliseconds. */
trn_status trn_exec_advance(trn_exec *exec, trn_error *err);
/* Whether the seat's run is done, without waiting; it is still to be finished. */
trn_status trn_exec_seat_done(trn_exec *exec, int seat, bool *done, trn_error *err);
/* Waits for the seat's run. When it fails or is cancelled, only destroying the executable is left. */
trn_status trn_exec_finish(trn_exec *exec, int seat, const trn_progress *progress, trn_error *err);
/* An output of the seat's last run, in memory that the next start of the seat overwrites. */
const float *trn_exec_seat_get(trn_exec *exec, int seat, const char *output, trn_error *err);

/* Of an executable compiled with keep_all and no_fusion that has run: the first operator, in the order of
 * running, whose result is not finite though its operands are (label, shape, how many values), or the input
 * that is not; *found tells whether there is one. */
trn_status trn_exec_first_nonfinite(trn_exec *exec, bool *found, trn_text *what, trn_error *err);

typedef struct trn_exec_summary {
    trn_precision precision; /* FLOAT32 or FLOAT16 */
    size_t half_values;      /* tensors that are stored as float16, weights among them */
    size_t operators, dispatches, setup_dispatches, fused_operators, kernels;
    uint64_t weight_bytes, arena_bytes, arena_bytes_unshared; /* unshared: if no two tensors shared memory */
    uint64_t shared_bytes;  /* of the weights: those that were there already (trn_compile_options.shared) */
    uint64_t loading_bytes; /* most that the others take while they are loaded and packed */
    uint64_t seat_bytes;    /* inputs and outputs of all seats */
    double flops, bytes;
    double estimated_seconds; /* from the device's measured rate; 0 when nothing was measured yet, which a
                                 plan_only compile does */
} trn_exec_summary;
trn_exec_summary trn_exec_summarize(const trn_exec *exec);
/* Operators, kernels and why, fusions, memory, estimated time. */
void trn_exec_explain(const trn_exec *exec, trn_text *out);
/* Time per operator kind of the last run, when $TERRANE_PROFILE=1 or asked for. */
void trn_exec_profile(trn_exec *exec, bool on);
void trn_exec_profile_text(const trn_exec *exec, trn_text *out);

/* One dispatch of a run: what it computes, by which kernel, and how long it took in the last profiled run.
 * Texts live as long as the executable. */
typedef struct trn_exec_step {
    const char *label;            /* "blocks.3.matmul" */
    const char *shader, *variant; /* variant: NULL when the operator has one kernel only */
    double seconds, flops, bytes; /* seconds: 0 before a profiled run, and of a graph that was only planned */
    size_t group; /* equal for dispatches of one operator and what is fused to it; they follow each other */
} trn_exec_step;
/* Dispatches of a run, without those that update states behind it. */
size_t trn_exec_step_count(const trn_exec *exec);
/* what: takes the operators and shapes, "matmul+gelu [197,768] [3072,768] -> [197,3072]"; NULL: not wanted */
trn_exec_step trn_exec_step_at(const trn_exec *exec, size_t i, trn_text *what);

/* ---- tuning ---- */

typedef struct trn_tuned_candidate {
    const char *name;
    double seconds;   /* of the node's dispatches, the best run; 0: not measured */
    char problem[96]; /* why not, when it was tried */
} trn_tuned_candidate;
/* A distinct node: operator, shapes, types. Texts live as long as the report is called. */
typedef struct trn_tuned {
    const char *op, *what;                 /* "matmul", "[197,768] by [2304,768] transposed" */
    const trn_tuned_candidate *candidates; /* the default first */
    int count, chosen;
    size_t nodes; /* of the graphs that are the same */
} trn_tuned;
typedef struct trn_tune_options {
    double seconds; /* budget; 0: 60 */
    trn_progress progress;
    void (*report)(void *user, const trn_tuned *tuned); /* of each node that was measured; may be NULL */
    void *user;
} trn_tune_options;
typedef struct trn_tune_summary {
    size_t nodes, distinct, measured; /* nodes with a choice; those that differ; those measured now */
    double default_seconds,
        chosen_seconds; /* of all nodes that were measured, each once as often as it is there */
} trn_tune_summary;
/* Measures the kernels that operators offer for the nodes of graphs, and keeps the seconds in the device's
 * tuning store: compilations from then on choose the fastest (on the same device and driver, by the same way
 * to memory, while the shader's text stays the same; a gain below 3 % leaves the default). */
typedef struct trn_tuner trn_tuner;
trn_status trn_tuner_create(trn_gpu *gpu, const trn_tune_options *options, trn_tuner **out, trn_error *err);
/* Takes what there is to choose in a graph as it was compiled (plan_only will do); it may be destroyed then.
 */
trn_status trn_tuner_add(trn_tuner *tuner, const trn_exec *exec, trn_error *err);
/* The most expensive nodes first, until all are measured or the budget is used up. What was measured before a
 * failure or TRN_ERR_CANCELLED is kept. */
trn_status trn_tuner_run(trn_tuner *tuner, trn_tune_summary *summary, trn_error *err);
void trn_tuner_destroy(trn_tuner *tuner); /* NULL is fine */
/* Forgets the choices of the device that is open; returns how many measurements there were. */
size_t trn_tune_clear(trn_gpu *gpu);

/* The whole graph by the plain C references, in double precision where it matters: inputs by name, outputs by
 * name. Slow; for tests, selftest and TERRANE_CHECK. */
typedef struct trn_named_data {
    const char *name;
    void *data;
} trn_named_data;
trn_status trn_reference_run(trn_graph *graph, const trn_named_data *inputs, int input_count,
                             const trn_named_data *outputs, int output_count, trn_error *err);

/* ---- the operator table, as data: for devices, selftest, bench, docs ---- */

typedef struct trn_kernel_variant_info {
    const char *op, *variant, *description;
    bool applies;
    char why_not[128];
} trn_kernel_variant_info;
/* One kernel that would run, not yet compiled. Texts live as long as the report is called. */
typedef struct trn_listed_kernel {
    const char *op, *label;       /* "matmul", "blocks.3.matmul" */
    const char *shader, *variant; /* variant: the candidate's name, or NULL when there is but one kernel */
    const trn_macro *macros;
    int macro_count;
    uint64_t hash;   /* equal for equal kernels */
    bool is_default; /* what the device runs when nothing was measured on it */
    const void *step;
} trn_listed_kernel;
typedef struct trn_kernel_list_options {
    bool candidates; /* not only the defaults: each kernel that could be chosen instead, too */
    bool hopeless;   /* and those that only tests run */
    bool training; /* of a graph that trains: in float32 alone. Else also as with TRN_PRECISION_FLOAT16, where
                      the device has it */
    trn_status (*report)(void *user, const trn_listed_kernel *kernel, trn_error *err);
    void *user;
    trn_progress progress;
} trn_kernel_list_options;
/* Reports what a graph would run on this device, without memory for it and without running anything: for
 * devices that only compile. A kernel is reported each time that it is met. */
trn_status trn_graph_kernels(trn_graph *graph, trn_gpu *gpu, const trn_kernel_list_options *options,
                             trn_error *err);
/* Within a report: compiles the kernel. */
trn_status trn_listed_compile(const trn_listed_kernel *listed, trn_gpu *gpu, const trn_kernel **kernel,
                              trn_error *err);
/* The same for the test cases of all operators. */
trn_status trn_op_kernels(trn_gpu *gpu, const trn_kernel_list_options *options, trn_error *err);

/* Kernel variants of all operators on this device; malloc'd. */
trn_status trn_kernel_variants(const trn_gpu *gpu, trn_kernel_variant_info **list, size_t *count,
                               trn_error *err);

typedef struct trn_op_result {
    const char *op, *label; /* case */
    bool ok;
    double error, tolerance; /* max |device - reference| / max(|reference|) */
    double seconds;
    char message[512];
} trn_op_result;
/* Runs a graph once on inputs made up by their names, its memory poisoned before, and compares every output
 * with the C references: fills error, seconds, ok (by result->tolerance) and, when it is not, message. What
 * goes wrong shows in the result; only a lost device and cancelling are failures. */
trn_status trn_graph_selftest(trn_gpu *gpu, trn_graph *graph, trn_precision precision,
                              const trn_progress *progress, trn_op_result *result, trn_error *err);
/* Runs every case of every operator (or those whose name contains `filter`) that the device can run (those of
 * float16 need 16-bit storage) against the C reference, outputs poisoned before: by the default kernels, then
 * by up to `rivals` of the others that could be chosen for them, which take turns from case to case. report
 * is called for each. Returns TRN_OK when all ran (passed or not).
 */
trn_status trn_op_selftest(trn_gpu *gpu, const char *filter, int rivals,
                           void (*report)(void *user, const trn_op_result *result), void *user,
                           const trn_progress *progress, trn_error *err);

#ifdef __cplusplus
}
#endif
#endif
