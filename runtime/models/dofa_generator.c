/* The dynamic patch embedding of DOFA: a small transformer turns the wavelength of each band into that band's
 * part of a convolution's kernel.
 *
 * Nothing here but the convolution itself depends on the image, so all the rest is computed once, when the
 * graph is compiled, and the run finds a plain kernel. */
#include "dofa.h"

enum { PLANES = 128, TOKENS = 128, HEADS = 4, HIDDEN = 2048 };
static const float generator_eps = 1e-5f; /* PyTorch's own; the encoder has another */
static const float kernel_scale = 0.01f;

/* Wavelengths as sines and cosines of nanometres: [C,128]. */
static trn_tensor *encode_wavelengths(const trn_encoder *encoder, trn_graph *graph)
{
    const trn_dofa_state *state = encoder->state;
    size_t count = state->wavelength_count;
    float *table = trn_arena_array(encoder->arena, count, PLANES * sizeof *table);
    if (!table) return trn_graph_fail(graph, "no memory for the wavelengths of %zu bands", count);
    for (size_t i = 0; i < count; i++)
        trn_sincos_f32(PLANES, state->wavelengths[i] * 1000.0f, table + i * PLANES);
    return trn_constant(graph, "wavelengths", TRN_SHAPE((int64_t)count, PLANES), table);
}

/* x + relu(w2 relu(w1 x)): [C,128] */
static trn_tensor *wave_features(const trn_scope *scope, trn_tensor *x)
{
    trn_tensor *y = trn_nn_linear(scope, "fclayer.w1", x, PLANES, true);
    y = trn_unary(scope->graph, "relu", y);
    y = trn_nn_linear(scope, "fclayer.w2", y, PLANES, true);
    return trn_add(scope->graph, x, trn_unary(scope->graph, "relu", y));
}

/* Attention of all rows to all: s [1,S,128] -> [1,S,128] */
static trn_tensor *attend(const trn_scope *scope, trn_tensor *s)
{
    trn_scope attention = trn_scope_enter(scope, "self_attn");
    trn_tensor *w = trn_scope_param(&attention, "in_proj_weight", TRN_SHAPE(3 * PLANES, PLANES));
    trn_tensor *b = trn_scope_param(&attention, "in_proj_bias", TRN_SHAPE(3 * PLANES));
    trn_graph_scope(scope->graph, attention.prefix);
    trn_tensor *qkv = trn_linear(scope->graph, s, w, b);
    s = trn_self_attention(scope->graph, qkv, HEADS, NULL);
    return trn_nn_linear(&attention, "out_proj", s, PLANES, true);
}

/* One layer of PyTorch's TransformerEncoder, norms after the sums: s [1,S,128] -> [1,S,128] */
static trn_tensor *transform(const trn_scope *scope, trn_tensor *s)
{
    trn_scope layer = trn_scope_enter(scope, "transformer_encoder.layers.0");
    trn_graph *graph = scope->graph;
    s = trn_nn_layer_norm(&layer, "norm1", trn_add(graph, s, attend(&layer, s)), generator_eps);
    trn_tensor *y = trn_nn_linear(&layer, "linear1", s, HIDDEN, true);
    y = trn_nn_linear(&layer, "linear2", trn_unary(graph, "gelu", y), PLANES, true);
    return trn_nn_layer_norm(&layer, "norm2", trn_add(graph, s, y), generator_eps);
}

/* The generated rows [C, k*k*D] as a kernel [D,C,k,k]. The first release wrote them down as if they were that
 * kernel already, which mixes bands and outputs; its weights were trained so. */
static trn_tensor *lay_out(const trn_encoder *encoder, trn_graph *graph, trn_tensor *rows)
{
    int64_t k = trn_encoder_int(encoder, DOFA_PATCH), dim = trn_encoder_int(encoder, DOFA_DIM);
    int64_t bands = trn_tensor_dim(rows, 0);
    if (trn_encoder_int(encoder, DOFA_LAYOUT) == DOFA_LAYOUT_OLD)
        return trn_reshape(graph, rows, TRN_SHAPE(dim, bands, k, k));
    rows = trn_reshape(graph, rows, TRN_SHAPE(bands, k, k, dim));
    return trn_permute(graph, rows, (const int[]){3, 0, 1, 2});
}

typedef struct dynamic_kernel {
    trn_tensor *weight, *bias; /* [D,C,k,k], [D] */
} dynamic_kernel;

static dynamic_kernel generate(const trn_encoder *encoder, const trn_build *build, const trn_scope *scope)
{
    trn_graph *graph = scope->graph;
    trn_scope generator = trn_scope_enter(scope, "weight_generator");
    int64_t k = trn_encoder_int(encoder, DOFA_PATCH), dim = trn_encoder_int(encoder, DOFA_DIM);
    trn_tensor *x = encode_wavelengths(encoder, graph);
    int64_t bands = trn_tensor_dim(x, 0), rows = TOKENS + bands + 1;
    trn_build_stage(build, x, "fourier");
    trn_tensor *wave = wave_features(scope, x);
    trn_build_stage(build, wave, "wave_feat");

    trn_tensor *parts[] = {
        trn_scope_param(&generator, "weight_tokens", TRN_SHAPE(TOKENS, PLANES)),
        wave,
        trn_scope_param(&generator, "bias_token", TRN_SHAPE(1, PLANES)),
    };
    trn_tensor *s = trn_concat(graph, parts, 3, 0);
    s = transform(&generator, trn_reshape(graph, s, TRN_SHAPE(1, rows, PLANES)));
    s = trn_reshape(graph, s, TRN_SHAPE(rows, PLANES));

    dynamic_kernel made;
    x = trn_add(graph, trn_slice(graph, s, 0, TOKENS, bands), wave);
    x = trn_nn_linear(&generator, "fc_weight", x, k * k * dim, true);
    made.weight = trn_affine(graph, lay_out(encoder, graph, x), kernel_scale, 0);
    trn_build_stage(build, made.weight, "dyn_weight");
    x = trn_nn_linear(&generator, "fc_bias", trn_slice(graph, s, 0, rows - 1, 1), dim, true);
    made.bias = trn_affine(graph, trn_reshape(graph, x, TRN_SHAPE(dim)), kernel_scale, 0);
    trn_build_stage(build, made.bias, "dyn_bias");
    return made;
}

trn_tensor *trn_dofa_patches(const trn_encoder *encoder, const trn_build *build)
{
    trn_scope scope = trn_scope_enter(&build->scope, "patch_embed");
    int patch = (int)trn_encoder_int(encoder, DOFA_PATCH);
    int padding = trn_encoder_int(encoder, DOFA_VERSION) != DOFA_CLIP;
    trn_conv_desc conv = {.stride = {1, patch, patch}, .padding = {0, padding, padding}};
    dynamic_kernel made = generate(encoder, build, &scope);
    trn_graph_scope(scope.graph, scope.prefix);
    trn_tensor *x = trn_conv_tokens(scope.graph, build->x, made.weight, made.bias, &conv);
    trn_build_stage(build, x, "patch_embed");
    return x;
}
