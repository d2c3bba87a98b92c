/* Decoders: from a pyramid of maps, or one, to the map that a dense head classifies. */
#include "nn_private.h"

static const float norm_eps = 1e-5F, norm_momentum = 0.1F, layer_norm_eps = 1e-6F;

/* ---- layers ---- */

trn_tensor *trn_nn_conv(const trn_scope *scope, const char *name, trn_tensor *x, int64_t out, int kernel,
                        bool bias)
{
    if (!x) return NULL;
    trn_scope inner = trn_scope_enter(scope, "%s", name);
    trn_conv_desc desc = {.padding = {0, kernel / 2, kernel / 2}};
    trn_graph_scope(scope->graph, inner.prefix);
    trn_tensor *w = trn_scope_param(&inner, "weight", TRN_SHAPE(out, trn_tensor_dim(x, 1), kernel, kernel));
    trn_tensor *b = bias ? trn_scope_param(&inner, "bias", TRN_SHAPE(out)) : NULL;
    return trn_conv2d(scope->graph, x, w, b, &desc);
}

trn_tensor *trn_nn_conv_up(const trn_scope *scope, const char *name, trn_tensor *x, int64_t out)
{
    if (!x) return NULL;
    trn_scope inner = trn_scope_enter(scope, "%s", name);
    trn_conv_desc desc = {.stride = {1, 2, 2}};
    trn_graph_scope(scope->graph, inner.prefix);
    trn_tensor *w = trn_scope_param(&inner, "weight", TRN_SHAPE(trn_tensor_dim(x, 1), out, 2, 2));
    trn_tensor *b = trn_scope_param(&inner, "bias", TRN_SHAPE(out));
    return trn_conv_transpose2d(scope->graph, x, w, b, &desc);
}

trn_tensor *trn_nn_resize(const trn_scope *scope, trn_tensor *x, int64_t height, int64_t width,
                          bool align_corners)
{
    trn_resize_desc desc = {.mode = TRN_RESIZE_BILINEAR, .align_corners = align_corners};
    if (!x || (trn_tensor_dim(x, 2) == height && trn_tensor_dim(x, 3) == width)) return x;
    return trn_resize2d(scope->graph, x, 2, (int)height, (int)width, &desc);
}

static trn_tensor *resize_like(const trn_scope *scope, trn_tensor *x, const trn_tensor *like)
{
    return trn_nn_resize(scope, x, trn_tensor_dim(like, 2), trn_tensor_dim(like, 3), true);
}

/* Convolution, batch norm, ReLU; names <name>.conv.weight, <name>.norm.* */
static trn_tensor *conv_module(const trn_scope *scope, const char *name, trn_tensor *x, int64_t out,
                               int kernel)
{
    trn_scope inner = trn_scope_enter(scope, "%s", name);
    x = trn_nn_conv(&inner, "conv", x, out, kernel, false);
    x = trn_nn_batch_norm(&inner, "norm", x, norm_eps, norm_momentum);
    return trn_unary(scope->graph, "relu", x);
}

/* ---- the neck ---- */

static bool neck_fits(const trn_scope *scope, trn_tensor *const levels[TRN_PYRAMID])
{
    char text[2][128];
    for (int i = 0; i < TRN_PYRAMID; i++)
        if (!levels[i]) return false;
    bool halves = trn_tensor_dim(levels[3], 2) >= 2 && trn_tensor_dim(levels[3], 3) >= 2;
    if (trn_tensor_dim(levels[0], 1) % 4 == 0 && trn_tensor_dim(levels[1], 1) % 2 == 0 && halves) return true;
    trn_graph_scope(scope->graph, scope->prefix);
    trn_graph_fail(
        scope->graph,
        "pyramid: the first map's channels must be divisible by 4, the second's by 2, and the last map at "
        "least 2 x 2: they are %s and %s",
        trn_shape_text(trn_tensor_shape(levels[0]), text[0]),
        trn_shape_text(trn_tensor_shape(levels[3]), text[1]));
    return false;
}

bool trn_nn_pyramid_neck(const trn_scope *scope, trn_tensor *const levels[TRN_PYRAMID],
                         trn_tensor *out[TRN_PYRAMID])
{
    trn_graph *graph = scope->graph;
    if (!neck_fits(scope, levels)) return false;
    trn_scope first = trn_scope_enter(scope, "fpn1"), second = trn_scope_enter(scope, "fpn2");
    int64_t channels = trn_tensor_dim(levels[0], 1);
    trn_tensor *x = trn_nn_conv_up(&first, "0", levels[0], channels / 2);
    x = trn_nn_batch_norm(&first, "1", x, norm_eps, norm_momentum);
    x = trn_unary(graph, "gelu", x);
    out[0] = trn_nn_conv_up(&first, "3", x, channels / 4);
    out[1] = trn_nn_conv_up(&second, "0", levels[1], trn_tensor_dim(levels[1], 1) / 2);
    out[2] = levels[2];
    out[3] = trn_pool2d(graph, levels[3], 2, TRN_POOL_MAX, 2, 2);
    return out[0] && out[1] && out[3];
}

/* ---- UperNet ---- */

/* The deepest map beside what it is on average over 1, 4, 9 and 36 parts, as context. */
static trn_tensor *pool_pyramid(const trn_scope *scope, trn_tensor *x, int64_t channels)
{
    enum { SCALES = 4 };
    static const int scales[SCALES] = {1, 2, 3, 6};
    trn_tensor *parts[1 + SCALES] = {x};
    for (int s = 0; s < SCALES; s++) {
        trn_scope inner = trn_scope_enter(scope, "psp_modules.%d", s);
        trn_tensor *pooled = trn_adaptive_avg_pool2d(scope->graph, x, 2, scales[s], scales[s]);
        parts[1 + s] = resize_like(scope, conv_module(&inner, "1", pooled, channels, 1), x);
    }
    return conv_module(scope, "bottleneck", trn_concat(scope->graph, parts, 1 + SCALES, 1), channels, 3);
}

trn_tensor *trn_nn_upernet(const trn_scope *scope, trn_tensor *const levels[TRN_PYRAMID], int64_t channels)
{
    enum { LAST = TRN_PYRAMID - 1 };
    trn_graph *graph = scope->graph;
    trn_tensor *maps[TRN_PYRAMID];
    trn_scope lateral = trn_scope_enter(scope, "lateral_convs"), fpn = trn_scope_enter(scope, "fpn_convs");
    char number[16];
    for (int i = 0; i < LAST; i++) {
        snprintf(number, sizeof number, "%d", i);
        maps[i] = conv_module(&lateral, number, levels[i], channels, 1);
    }
    maps[LAST] = pool_pyramid(scope, levels[LAST], channels);
    for (int i = LAST; i > 0 && maps[i - 1]; i--)
        maps[i - 1] = trn_add(graph, maps[i - 1], resize_like(scope, maps[i], maps[i - 1]));
    for (int i = 0; i < LAST; i++) {
        snprintf(number, sizeof number, "%d", i);
        maps[i] = conv_module(&fpn, number, maps[i], channels, 3);
    }
    for (int i = 1; i < TRN_PYRAMID && maps[0]; i++)
        maps[i] = resize_like(scope, maps[i], maps[0]);
    return conv_module(scope, "fpn_bottleneck", trn_concat(graph, maps, TRN_PYRAMID, 1), channels, 3);
}

/* ---- FCN ---- */

/* Twice the size, a convolution, a norm over channels */
static trn_tensor *fcn_stage(const trn_scope *scope, trn_tensor *x, int64_t channels)
{
    static const int channels_first[] = {0, 3, 1, 2};
    trn_graph *graph = scope->graph;
    trn_conv_desc desc = {.padding = {0, 1, 1}};
    x = trn_nn_conv_up(scope, "0", x, channels);
    if (!x) return NULL;
    int64_t batch = trn_tensor_dim(x, 0), height = trn_tensor_dim(x, 2), width = trn_tensor_dim(x, 3);
    trn_scope conv = trn_scope_enter(scope, "1"), norm = trn_scope_enter(scope, "2");
    trn_graph_scope(graph, conv.prefix);
    trn_tensor *w = trn_scope_param(&conv, "weight", TRN_SHAPE(channels, channels, 3, 3));
    /* as tokens, the norm finds channels side by side */
    x = trn_conv_tokens(graph, x, w, trn_scope_param(&conv, "bias", TRN_SHAPE(channels)), &desc);
    x = trn_nn_layer_norm(&norm, "ln", x, layer_norm_eps);
    x = trn_reshape(graph, trn_unary(graph, "gelu", x), TRN_SHAPE(batch, height, width, channels));
    return trn_permute(graph, x, channels_first);
}

trn_tensor *trn_nn_fcn(const trn_scope *scope, trn_tensor *x, int64_t channels, int stages)
{
    for (int i = 0; i < stages; i++) {
        trn_scope stage = trn_scope_enter(scope, "convs.%d", i);
        x = fcn_stage(&stage, x, channels);
    }
    return x;
}
