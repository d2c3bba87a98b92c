/* nn: blocks made of operators. A block asks its parameters from a trn_parameters by name and adds operators
 * to a graph. Building errors are kept by the graph (see graph.h), so blocks return a tensor or NULL. */
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

/* A builder's place: graph, parameters, and the prefix of names ("blocks.3."). Cheap to copy. */
typedef struct trn_scope {
    trn_graph *graph;
    const trn_parameters *parameters;
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
/* names <name>.weight, <name>.bias [C] */
trn_tensor *trn_nn_layer_norm(const trn_scope *scope, const char *name, trn_tensor *x, float eps);
/* fc2(GELU(fc1 x)), names fc1, fc2 below the scope */
trn_tensor *trn_nn_mlp(const trn_scope *scope, trn_tensor *x, int64_t hidden);

/* Pre-norm transformer block (spec section 0): x + [ls1] attn(norm1 x), then x + [ls2] mlp(norm2 x).
 * x [B,N,C] -> [B,N,C] */
typedef struct trn_block_desc {
    int heads;
    int64_t hidden; /* of the MLP */
    float eps;
    bool layer_scale;  /* ls1.gamma, ls2.gamma */
    bool separate_qkv; /* attn.q, attn.k, attn.v instead of attn.qkv */
    bool swiglu; /* mlp.w12 [2*hidden,C], mlp.w3 [C,hidden]: silu(x1)*x2 (DINOv2 giant); fc1, fc2 where timm
                    wrote it */
    trn_tensor *key_mask; /* [B,N]: 1 attend, 0 hide; NULL: all */
} trn_block_desc;
trn_tensor *trn_nn_block(const trn_scope *scope, trn_tensor *x, const trn_block_desc *desc);

/* Position encoding: out [dims] = sin(position*om_k) for k < dims/2, then cos, with om_k =
 * 10000^(-k*exponent_step), in double, rounded to float. The usual formula has exponent_step = 2.0/dims;
 * Galileo's is 0.5/dims. dims must be even. */
void trn_sincos(int dims, double position, double exponent_step, float *out);
/* The usual formula as float32 code computes it at run time (DOFA's wavelengths, Prithvi's time and place):
 * the frequency 1/10000^(2k/dims) and its product with the position are rounded to float32 before sine and
 * cosine. */
void trn_sincos_f32(int dims, float position, float *out);

#ifdef __cplusplus
}
#endif
#endif
