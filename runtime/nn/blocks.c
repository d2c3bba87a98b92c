/* Blocks of transformers: linear, norm, MLP, the pre-norm block; and sine tables. */
#include "nn.h"

#include <math.h>

trn_tensor *trn_nn_linear(const trn_scope *scope, const char *name, trn_tensor *x, int64_t out, bool bias)
{
    if (!x) return NULL;
    trn_scope inner = trn_scope_enter(scope, "%s", name);
    trn_graph_scope(scope->graph, inner.prefix);
    trn_tensor *w = trn_scope_param(&inner, "weight", TRN_SHAPE(out, trn_tensor_dim(x, -1)));
    trn_tensor *b = bias ? trn_scope_param(&inner, "bias", TRN_SHAPE(out)) : NULL;
    return trn_linear(scope->graph, x, w, b);
}

void trn_nn_linear_cut(const trn_scope *scope, const char *name, trn_tensor *x, int64_t out, int64_t cut,
                       trn_tensor *parts[2])
{
    parts[0] = parts[1] = NULL;
    if (!x) return;
    trn_graph *graph = scope->graph;
    trn_scope inner = trn_scope_enter(scope, "%s", name);
    trn_graph_scope(graph, inner.prefix);
    trn_tensor *w = trn_scope_param(&inner, "weight", TRN_SHAPE(out, trn_tensor_dim(x, -1)));
    trn_tensor *b = trn_scope_param(&inner, "bias", TRN_SHAPE(out));
    for (int i = 0; i < 2; i++) {
        int64_t first = i ? cut : 0, count = i ? out - cut : cut;
        parts[i] =
            trn_linear(graph, x, trn_slice(graph, w, 0, first, count), trn_slice(graph, b, 0, first, count));
    }
}

trn_tensor *trn_nn_layer_norm(const trn_scope *scope, const char *name, trn_tensor *x, float eps)
{
    if (!x) return NULL;
    trn_scope inner = trn_scope_enter(scope, "%s", name);
    trn_graph_scope(scope->graph, inner.prefix);
    int64_t channels = trn_tensor_dim(x, -1);
    trn_tensor *w = trn_scope_param(&inner, "weight", TRN_SHAPE(channels));
    trn_tensor *b = trn_scope_param(&inner, "bias", TRN_SHAPE(channels));
    return trn_layer_norm(scope->graph, x, w, b, eps);
}

trn_tensor *trn_nn_mlp(const trn_scope *scope, trn_tensor *x, int64_t hidden)
{
    int64_t channels = trn_tensor_dim(x, -1);
    x = trn_nn_linear(scope, "fc1", x, hidden, true);
    x = trn_nn_block_dropout(scope, "drop1", trn_unary(scope->graph, "gelu", x));
    return trn_nn_block_dropout(scope, "drop2", trn_nn_linear(scope, "fc2", x, channels, true));
}

/* x [..,C]: w3(silu(x1) * x2), where [x1 | x2] = w12 x */
static trn_tensor *swiglu(const trn_scope *scope, trn_tensor *x, int64_t hidden)
{
    if (!x) return NULL;
    bool timm = !trn_scope_has(scope, "w12.weight") && trn_scope_has(scope, "fc1.weight");
    int last = trn_tensor_shape(x)->ndim - 1;
    int64_t channels = trn_tensor_dim(x, -1);
    x = trn_nn_linear(scope, timm ? "fc1" : "w12", x, 2 * hidden, true);
    trn_tensor *gate = trn_unary(scope->graph, "silu", trn_slice(scope->graph, x, last, 0, hidden));
    trn_tensor *value = trn_slice(scope->graph, x, last, hidden, hidden);
    x = trn_nn_block_dropout(scope, "drop1", trn_mul(scope->graph, gate, value));
    return trn_nn_block_dropout(scope, "drop2", trn_nn_linear(scope, timm ? "fc2" : "w3", x, channels, true));
}

/* q, k, v [B,N,C] of their own -> [B,N,C] */
static trn_tensor *attend_separately(const trn_scope *scope, trn_tensor *x, const trn_block_desc *desc)
{
    int64_t batch = trn_tensor_dim(x, 0), tokens = trn_tensor_dim(x, 1), channels = trn_tensor_dim(x, -1);
    trn_tensor *q = trn_nn_linear(scope, "q", x, channels, true);
    trn_tensor *k = trn_nn_linear(scope, "k", x, channels, true);
    trn_tensor *v = trn_nn_linear(scope, "v", x, channels, true);
    trn_heads_layout rows = {.outer = tokens * channels, .head = channels / desc->heads, .row = channels};
    trn_attention_desc attention = {.outer = (int)batch,
                                    .windows = 1,
                                    .heads = desc->heads,
                                    .queries = (int)tokens,
                                    .keys = (int)tokens,
                                    .head_size = (int)(channels / desc->heads),
                                    .q = rows,
                                    .k = rows,
                                    .v = rows,
                                    .out = rows,
                                    .out_shape = TRN_SHAPE(batch, tokens, channels)};
    return trn_attention(scope->graph, q, k, v, desc->key_mask, &attention);
}

static trn_tensor *attend(const trn_scope *scope, trn_tensor *x, const trn_block_desc *desc)
{
    if (!x) return NULL;
    int64_t channels = trn_tensor_dim(x, -1);
    if (desc->heads < 1 || channels % desc->heads)
        return trn_graph_fail(scope->graph, "%s: %lld channels cannot be divided among %d heads",
                              scope->prefix, (long long)channels, desc->heads);
    if (desc->separate_qkv) {
        x = attend_separately(scope, x, desc);
    } else {
        trn_tensor *qkv = trn_nn_linear(scope, "qkv", x, 3 * channels, true);
        x = trn_self_attention(scope->graph, qkv, desc->heads, desc->key_mask);
    }
    return trn_nn_block_dropout(scope, "proj_drop", trn_nn_linear(scope, "proj", x, channels, true));
}

static trn_tensor *layer_scale(const trn_scope *scope, const char *name, trn_tensor *x)
{
    return trn_mul(scope->graph, x, trn_scope_param(scope, name, TRN_SHAPE(trn_tensor_dim(x, -1))));
}

trn_tensor *trn_nn_block(const trn_scope *scope, trn_tensor *x, const trn_block_desc *desc)
{
    trn_scope attention = trn_scope_enter(scope, "attn"), mlp = trn_scope_enter(scope, "mlp");
    trn_graph_block_begin(scope->graph);
    trn_tensor *y = attend(&attention, trn_nn_layer_norm(scope, "norm1", x, desc->eps), desc);
    if (desc->layer_scale) y = layer_scale(scope, "ls1.gamma", y);
    x = trn_add(scope->graph, x, trn_nn_drop_path(scope, "drop_path1", y, desc->drop_path));
    y = trn_nn_layer_norm(scope, "norm2", x, desc->eps);
    y = desc->swiglu ? swiglu(&mlp, y, desc->hidden) : trn_nn_mlp(&mlp, y, desc->hidden);
    if (desc->layer_scale) y = layer_scale(scope, "ls2.gamma", y);
    x = trn_add(scope->graph, x, trn_nn_drop_path(scope, "drop_path2", y, desc->drop_path));
    trn_graph_block_end(scope->graph);
    trn_graph_scope(scope->graph, NULL);
    return x;
}

void trn_sincos(int dims, double position, double exponent_step, float *out)
{
    int half = dims / 2;
    for (int k = 0; k < half; k++) {
        double angle = position * pow(10000.0, -k * exponent_step);
        out[k] = (float)sin(angle);
        out[half + k] = (float)cos(angle);
    }
}

void trn_sincos_f32(int dims, float position, float *out)
{
    int half = dims / 2;
    for (int k = 0; k < half; k++) {
        float exponent = (float)k / (float)half;
        float frequency = 1.0f / (float)pow(10000.0, (double)exponent);
        float angle = position * frequency;
        out[k] = (float)sin((double)angle);
        out[half + k] = (float)cos((double)angle);
    }
}
