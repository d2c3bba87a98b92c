/* nn: blocks made of operators, losses and optimisers. A block asks its parameters from a trn_parameters by
 * name and adds operators to a graph. Building errors are kept by the graph (see graph.h), so blocks return a
 * tensor or NULL. */
#ifndef TRN_NN_H
#define TRN_NN_H

#include "base.h"
#include "graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Where a model's parameters come from: the graph pulls each when it is compiled. `has` tells whether an
 * optional one exists. prefix handling is by trn_parameters_scope. */
typedef struct trn_parameters {
    trn_fill fill; /* called with the full name and shape */
    bool (*has)(void *user, const char *name);
    void *user;
    /* NULL, or told of every parameter as a block asks for it: so a loader learns what a model needs from the
     * model. */
    void (*want)(void *user, const char *name, const trn_shape *shape);
} trn_parameters;

/* What a graph that trains has beside one that only infers. */
typedef struct trn_training {
    trn_tensor *counters; /* [B,2] of TRN_I32 for random numbers: the sample's number, the step */
    uint64_t seed;
    float dropout;   /* where an encoder's blocks have it; heads have their own */
    float drop_path; /* of the last block; grows from 0 in a straight line with depth */
    bool fixed_norm; /* batch norms use their running statistics, and leave them as they are */
} trn_training;

/* A builder's place: graph, parameters, and the prefix of names ("blocks.3."). Cheap to copy. */
typedef struct trn_scope {
    trn_graph *graph;
    const trn_parameters *parameters;
    const trn_training *training; /* NULL: inference */
    char prefix[128];
} trn_scope;
trn_scope trn_scope_root(trn_graph *graph, const trn_parameters *parameters);
/* Scope below: prefix + formatted name + "."; a name that does not fit fails the graph. */
trn_scope trn_scope_enter(const trn_scope *scope, const char *fmt, ...) TRN_PRINTF(2, 3);
/* Parameter `name` below the scope. */
trn_tensor *trn_scope_param(const trn_scope *scope, const char *name, trn_shape shape);
bool trn_scope_has(const trn_scope *scope, const char *name);

/* x [..,in] -> [..,out]; names <name>.weight [out,in], <name>.bias [out] when bias */
trn_tensor *trn_nn_linear(const trn_scope *scope, const char *name, trn_tensor *x, int64_t out, bool bias);
/* The same with a bias, as two tensors: the first `cut` outputs, and the others. Better than slices where
 * both go different ways. */
void trn_nn_linear_cut(const trn_scope *scope, const char *name, trn_tensor *x, int64_t out, int64_t cut,
                       trn_tensor *parts[2]);
/* names <name>.weight, <name>.bias [C] */
trn_tensor *trn_nn_layer_norm(const trn_scope *scope, const char *name, trn_tensor *x, float eps);
/* fc2(GELU(fc1 x)), names fc1, fc2 below the scope; in training with dropout behind both */
trn_tensor *trn_nn_mlp(const trn_scope *scope, trn_tensor *x, int64_t hidden);

/* Pre-norm transformer block (spec section 0): x + [ls1] attn(norm1 x), then x + [ls2] mlp(norm2 x).
 * x [B,N,C] -> [B,N,C]. It marks itself as a block (trn_graph_block_begin), and has dropout and drop path in
 * training; a family with blocks of its own sees to all three. */
typedef struct trn_block_desc {
    int heads;
    int64_t hidden; /* of the MLP */
    float eps;
    bool layer_scale;  /* ls1.gamma, ls2.gamma */
    bool separate_qkv; /* attn.q, attn.k, attn.v instead of attn.qkv */
    bool swiglu; /* mlp.w12 [2*hidden,C], mlp.w3 [C,hidden]: silu(x1)*x2 (DINOv2 giant); fc1, fc2 where timm
                    wrote it */
    trn_tensor *key_mask; /* [B,N]: 1 attend, 0 hide; NULL: all */
    float drop_path;      /* of this block, in training: trn_drop_path_at */
} trn_block_desc;
trn_tensor *trn_nn_block(const trn_scope *scope, trn_tensor *x, const trn_block_desc *desc);

/* ---- what training adds; each is x itself when scope->training is NULL ----
 *
 * Random numbers come from the graph's prefix, the scope's, and `name`: every place has a stream of its own.
 * The samples are those of the counters. */

/* Each value is 0 with this probability, else divided by 1 - rate. */
trn_tensor *trn_nn_dropout(const trn_scope *scope, const char *name, trn_tensor *x, float rate);
/* The same of whole samples of a residual branch. Axis 0 counts samples, or an equal number of rows of each.
 * Source: Huang et al. 2016, timm's DropPath. */
trn_tensor *trn_nn_drop_path(const trn_scope *scope, const char *name, trn_tensor *x, float rate);
/* The rate of block `block` of `depth` by the scope's training: from 0 for the first to its drop_path for the
 * last; 0 without training. */
float trn_drop_path_at(const trn_scope *scope, int64_t block, int64_t depth);
/* Dropout with the rate that the scope's training has for the blocks of encoders. */
trn_tensor *trn_nn_block_dropout(const trn_scope *scope, const char *name, trn_tensor *x);
/* x [B,C,..], names <name>.{weight,bias,running_mean,running_var}. In training: mean and biased variance of
 * the batch; the running ones move by `momentum` (0.1 usually) towards them, with the unbiased variance, by
 * trn_update. They are states that no gradient changes (trn_param_state), whatever trn_graph_train says; in
 * the list of trn_graph_learning they are not. Else: running ones. Source: torch.nn.BatchNorm2d. */
trn_tensor *trn_nn_batch_norm(const trn_scope *scope, const char *name, trn_tensor *x, float eps,
                              float momentum);

/* ---- small networks as data: what recipes build with terrane.graph ---- */

typedef struct trn_program_arg {
    const char *key;
    double number;
    const char *text; /* NULL: it is a number */
} trn_program_arg;
typedef struct trn_program_node {
    const char *op;    /* "conv", "linear", "gelu", ..: trn_program_op_at */
    const char *name;  /* of its parameters; NULL: the operator's name and the node's number */
    const int *inputs; /* values: inputs of the program first, then results of nodes */
    int input_count;
    const trn_program_arg *args;
    int arg_count;
    int line; /* of the recipe, for messages; 0: none */
} trn_program_node;
typedef struct trn_program {
    const trn_program_node *nodes;
    int node_count, input_count;
    int output; /* a value */
} trn_program;
typedef struct trn_program_op {
    const char *name, *help;
    int min_inputs, max_inputs;
    const char *const *args; /* NULL-terminated: "channels (required): ..", "kernel=3: .." */
} trn_program_op;
const trn_program_op *trn_program_op_at(size_t i); /* NULL past the last */
/* Operators, arguments and the order of values, without shapes. Errors name operator, argument and line. */
trn_status trn_program_check(const trn_program *program, trn_error *err);
/* Adds it to the graph; images are [B,C,h,w], vectors [B,C]. Wrong shapes fail the graph with the node's
 * line. */
trn_tensor *trn_nn_program(const trn_scope *scope, const trn_program *program, trn_tensor *const *inputs,
                           int count);

/* ---- heads: from features to logits ---- */

typedef enum trn_head_kind {
    TRN_HEAD_LINEAR,    /* vectors; maps: a linear map of each cell of the last grid, resized */
    TRN_HEAD_MLP,       /* hidden layers with GELU before it; vectors or cells */
    TRN_HEAD_ATTENTION, /* vectors only: a learned query attends to the cells of all grids, then linear */
    TRN_HEAD_FCN,       /* maps only: terratorch's FCNDecoder over the last grid */
    /* maps only: UperNet over 4 grids, or over one that serves as all; grids of one size go through the
     * learned pyramid neck first */
    TRN_HEAD_UPERNET,
    TRN_HEAD_PROGRAM, /* a network of the recipe's own */
} trn_head_kind;
typedef struct trn_head_desc {
    trn_head_kind kind;
    int64_t outputs;  /* classes */
    int64_t channels; /* MLP: hidden (0: those of the features); FCN, UperNet: 0: 256 */
    int layers;       /* MLP: hidden layers, 0: 1; FCN: convolutions, 0: 4 */
    int heads;        /* attention: 0: 8, or fewer where the channels cannot be divided */
    float dropout;    /* before the last layer */
    /* linear and MLP over vectors: features pass a batch norm without weights first (MAE's linear probe) */
    bool batch_norm;
    const trn_program *program; /* one input: the grid [B,C,gh,gw], or the vector [B,C]; gives logits */
} trn_head_desc;
typedef struct trn_head_input {
    trn_tensor *pooled;   /* [B,C], or NULL */
    trn_tensor *grids[4]; /* [B,gh,gw,C] each, finest first */
    int grid_count;
    int height, width; /* of the image, whose size maps get (bilinear, corners not aligned); 0: vectors */
} trn_head_input;
/* -> logits [B,outputs], or [B,outputs,height,width] of maps. Names of parameters are terratorch's, below the
 * scope: "neck.fpn1.0.weight", "decoder.psp_modules.0.1.conv.weight", "head.2.weight" of UperNet and FCN;
 * "fc.weight", "layers.0.weight", "latent" of others. Errors name the head and the features it got. */
trn_tensor *trn_nn_head(const trn_scope *scope, const trn_head_desc *desc, const trn_head_input *input);

/* Position encoding: out [dims] = sin(position*om_k) for k < dims/2, then cos, with om_k =
 * 10000^(-k*exponent_step), in double, rounded to float. The usual formula has exponent_step = 2.0/dims;
 * Galileo's is 0.5/dims. dims must be even. */
void trn_sincos(int dims, double position, double exponent_step, float *out);
/* The usual formula as float32 code computes it at run time (DOFA's wavelengths, Prithvi's time and place):
 * the frequency 1/10000^(2k/dims) and its product with the position are rounded to float32 before sine and
 * cosine. */
void trn_sincos_f32(int dims, float position, float *out);

/* ---- losses: each is a graph of one number, [1], that trn_gradients takes ----
 *
 * logits [B,C,..]: [B,C] of images, [B,C,h,w] of maps. labels [B,..] of TRN_I32: a class in [0, C), or
 * `ignored`; any other label makes the loss NaN. A mean over nothing (all labels ignored) is 0, and so are
 * its gradients, where PyTorch has NaN. P is the set of places with a label. */

typedef struct trn_class_loss_desc {
    int32_t ignored;           /* a label that is none, 255 or -100 say; it may also be one of the classes */
    float label_smoothing;     /* of cross entropy, in [0, 1] */
    trn_tensor *class_weights; /* [C], or NULL: all 1 */
} trn_class_loss_desc;
/* -sum over P and c of w_c q_c log softmax(z)_c / sum over P of w_label, with q = (1 - smoothing) [c = label]
 * + smoothing / C. Source: torch.nn.CrossEntropyLoss. */
trn_tensor *trn_loss_cross_entropy(trn_graph *graph, trn_tensor *logits, trn_tensor *labels,
                                   const trn_class_loss_desc *desc);
/* Mean over all C classes, weighted by class_weights, of 1 - I_c / max((S_c + T_c)/2, 1e-7), 0 for classes
 * that no label has. Over the whole batch I_c is the sum of softmax(z)_c where c is the label, S_c the sum of
 * softmax(z)_c, T_c the number of labels. Source: segmentation_models_pytorch, DiceLoss (multiclass). */
trn_tensor *trn_loss_dice(trn_graph *graph, trn_tensor *logits, trn_tensor *labels,
                          const trn_class_loss_desc *desc);
/* The same of 1 - I_c / max(S_c + T_c - I_c, 1e-7). Source: as above, JaccardLoss. */
trn_tensor *trn_loss_jaccard(trn_graph *graph, trn_tensor *logits, trn_tensor *labels,
                             const trn_class_loss_desc *desc);

typedef struct trn_focal_desc {
    int32_t ignored;
    bool softmax;         /* of the label's softmax; else one sigmoid a class, against the rest */
    float gamma;          /* 2 usually; >= 0 */
    float alpha;          /* weight of the class against the rest in (0, 1); 0: none */
    bool normalized;      /* a class's terms are divided by max(sum over P of (1 - p)^gamma, 1e-6) */
    bool mean_of_classes; /* mean over classes, not sum */
} trn_focal_desc;
/* softmax: mean over P of -(1 - p)^gamma log p, p = softmax(z)_label. Source: Lin et al. 2017.
 * Else: sum over classes of the mean over P of (1 - p)^gamma BCE a, where p is sigmoid(z_c) or, when c is not
 * the label, 1 - sigmoid(z_c), and a is alpha or 1 - alpha. Source: segmentation_models_pytorch, FocalLoss
 * (multiclass); version 0.5 sums over classes, later ones take the mean; terratorch normalizes. */
trn_tensor *trn_loss_focal(trn_graph *graph, trn_tensor *logits, trn_tensor *labels,
                           const trn_focal_desc *desc);

/* Several labels at once: logits, targets [B,C,..] or [B] of the same shape, targets in [0, 1].
 * Mean of -(w_c t log sigmoid(z) + (1 - t) log(1 - sigmoid(z))); positive_weights w [C], of the last axis
 * when there is one only, or NULL: 1. Source: torch.nn.BCEWithLogitsLoss. */
trn_tensor *trn_loss_binary(trn_graph *graph, trn_tensor *logits, trn_tensor *targets,
                            trn_tensor *positive_weights);
/* Mean of the above over what is there (weighted by t) plus its mean over what is not (weighted by 1 - t), so
 * that rare labels count as much as their absence. Source: GEO-Bench's BigEarthNet protocol. */
trn_tensor *trn_loss_binary_balanced(trn_graph *graph, trn_tensor *logits, trn_tensor *targets);

/* Mean of (a - b)^2; shapes are equal. */
trn_tensor *trn_loss_mse(trn_graph *graph, trn_tensor *a, trn_tensor *b);
/* Mean of 1 - a.b / (|a| |b|) over vectors along the last axis, norms held above 1e-8; shapes are equal. */
trn_tensor *trn_loss_cosine(trn_graph *graph, trn_tensor *a, trn_tensor *b);
/* T^2 sum over c of p_c (log p_c - log q_c), p = softmax(teacher / T), q = softmax(student / T), mean over
 * batch and places; both [B,C,..]. Source: Hinton et al. 2015. */
trn_tensor *trn_loss_distill(trn_graph *graph, trn_tensor *student, trn_tensor *teacher, float temperature);

/* ---- optimisers ----
 *
 * With t = 1, 2, .. the number of the step, lr its learning rate times the parameter's lr_scale, g the
 * gradient (clipped), w the weights, d the parameter's weight decay:
 * - AdamW: w -= lr d w; m += (1 - beta1)(g - m); v += (1 - beta2)(g^2 - v);
 *   w -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).
 *   Source: Loshchilov and Hutter 2019, torch.optim.AdamW.
 * - SGD: w -= lr d w; b = momentum b + g; w -= lr b, or lr (g + momentum b) with nesterov.
 *   Source: torch.optim.SGD, dampening 0.
 * - coupled_decay adds d w to g instead of taking lr d w off w, as torch.optim.SGD does.
 * - Clipping: every g is multiplied by min(1, max_norm / (norm + 1e-6)), norm over all gradients. A step
 * whose norm is not finite leaves weights and moments as they were, clipped or not; the output
 * TRN_GRADIENT_NORM shows it.
 *   Source: torch.nn.utils.clip_grad_norm_.
 * - Average: a = average a + (1 - average) w, beginning with the weights before the first step.
 *
 * The steps run in one kernel for each parameter, in place, when a run is over (trn_update_weights). Not one
 * for all of them: parameters and states are tensors of their own, and a kernel binds eight at most. */

typedef enum trn_optimizer_kind { TRN_ADAMW, TRN_SGD } trn_optimizer_kind;
typedef struct trn_learning_rule {
    double lr_scale, weight_decay;
} trn_learning_rule;
typedef struct trn_optimizer_desc {
    trn_optimizer_kind kind;
    double beta1, beta2, eps; /* AdamW: 0.9, 0.999, 1e-8 usually */
    double momentum;          /* SGD; 0: none */
    bool nesterov;
    double weight_decay;
    bool coupled_decay;
    double max_norm; /* 0: gradients are not clipped */
    double average;  /* what the moving average keeps in a step, 0.9999 say; 0: there is none */
    int accumulate;  /* runs whose gradients are added up (their mean is taken) before a step; 0: 1 */
    /* NULL, or what is special of a parameter. *rule comes as {1, weight_decay}, and with a decay of 0 for
     * vectors (biases, norms, layer scales) and for position embeddings and tokens. user is needed while
     * building only. */
    void (*rule)(void *user, const char *name, const trn_shape *shape, trn_learning_rule *rule);
    void *user;
} trn_optimizer_desc;

/* Layers for learning rates that fall with depth: 0 for embeddings (of patches, positions, channels, dates)
 * and tokens, n + 1 for what is below "blocks.n." or "layers.n.", depth + 1 for the rest (norm, heads).
 * Scale: factor^(depth + 1 - layer). Source: BEiT, MAE's fine-tuning. */
int trn_layer_of(const char *name, int depth);
double trn_layer_scale(double factor, int layer, int depth);

#define TRN_OPTIMIZER_INPUT "optimizer.now" /* input [TRN_STEP_NOW]: see trn_optimizer_now */
#define TRN_GRADIENT_NORM                                                                                    \
    "optimizer.gradnorm" /* output [1]: the norm of a step's gradient before clipping                        \
                          */

typedef struct trn_learner {
    const char *name;
    trn_tensor *weights;  /* a state */
    trn_tensor *gradient; /* of its shape; NULL: the loss does not depend on it, and it stays as it is */
} trn_learner;
/* Adds the steps of an optimiser. The weights become outputs under their names, and so does what is
 * remembered of them: "adamw.m.<name>", "adamw.v.<name>", "sgd.momentum.<name>", "average.<name>", all of
 * their shape, zeros in the beginning ("accumulated.<name>" only lasts between runs of one step, and is zero
 * after it); trn_exec_set and trn_exec_get take them from and into checkpoints. */
trn_status trn_optimizer_add(trn_graph *graph, const trn_optimizer_desc *desc, const trn_learner *learners,
                             int count, trn_error *err);
/* The same for all parameters that learn (trn_graph_train), with the gradients of loss. */
trn_status trn_optimizer_minimize(trn_graph *graph, trn_tensor *loss, const trn_optimizer_desc *desc,
                                  trn_error *err);
/* What TRN_OPTIMIZER_INPUT takes in run 0, 1, .. accumulate - 1 of step 0, 1, ..: the learning rate, the
 * corrections of the moments, and whether the run ends the step. */
void trn_optimizer_now(const trn_optimizer_desc *desc, int64_t step, int run, double lr,
                       float out[TRN_STEP_NOW]);
/* Square root of the sum of all squares, [1]; count >= 1. */
trn_tensor *trn_gradient_norm(trn_graph *graph, trn_tensor *const *grads, int count);

/* Learning rate by step. In the first `warmup` steps it grows from `start` to `base` in a straight line; then
 * constant: base; cosine: last + (base - last)(1 + cos(pi x))/2 with x from 0 to 1 at `steps`, last beyond;
 * step: base * factor^floor((step - warmup)/every), at least last. */
typedef enum trn_schedule_kind {
    TRN_SCHEDULE_CONSTANT,
    TRN_SCHEDULE_COSINE,
    TRN_SCHEDULE_STEP
} trn_schedule_kind;
typedef struct trn_schedule {
    trn_schedule_kind kind;
    double base, start, last;
    int64_t warmup, steps;
    int64_t every;
    double factor;
} trn_schedule;
trn_status trn_schedule_check(const trn_schedule *schedule, trn_error *err);
/* step 0, 1, ..; of a schedule that was checked */
double trn_schedule_at(const trn_schedule *schedule, int64_t step);

#ifdef __cplusplus
}
#endif
#endif
