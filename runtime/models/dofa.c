/* DOFA: vision transformers whose patch embedding is made from the wavelengths of the bands, so that one
 * model takes the bands of any sensor. Version 1, version 2, and the vision tower of DOFA-CLIP.
 *
 * What is given: version 1 has no norm of the tokens: dense features are outputs of blocks as they are, mean
 * is the average of the patch tokens through fc_norm (its published files hold none: then the norm is plain),
 * cls the class token through norm. The others end in a norm: the last block's dense features, mean and cls
 * are taken after it; blocks listed by the user are given as they are, as the originals return them. The
 * tower of DOFA-CLIP has no class token and pools by attention.
 *
 * Where cells lie: versions 1 and 2 pad the image by one pixel and step by whole patches from there, so that
 * the first cell begins at pixel -1 and the last pixel of each side is seen by none. */
#include "dofa.h"

#include <string.h>

enum { AUTO, FALSE_OF_AUTO, TRUE_OF_AUTO };
enum { LARGEST_TILE = 384 };

static const trn_setting_rule settings[DOFA_SETTINGS] = {
    [DOFA_VERSION] = {"version", TRN_SETTING_CHOICE, "1", 0, 0, "1|2|clip", "of the architecture"},
    [DOFA_IMG_SIZE] = {"img_size", TRN_SETTING_TEXT, "224", 0, 0, NULL,
                       "pixels, side or HEIGHTxWIDTH, that the position table is for"},
    [DOFA_PATCH] = {"patch", TRN_SETTING_INT, "16", 3, 128, NULL, "pixels of a patch's side"},
    [DOFA_DIM] = {"dim", TRN_SETTING_INT, "768", 1, 8192, NULL, "channels of a token"},
    [DOFA_DEPTH] = {"depth", TRN_SETTING_INT, "12", 1, 256, NULL, "blocks"},
    [DOFA_HEADS] = {"heads", TRN_SETTING_INT, "12", 1, 256, NULL, "attention heads"},
    [DOFA_MLP_RATIO] = {"mlp_ratio", TRN_SETTING_REAL, "4", 0.01, 64, NULL,
                        "hidden channels of the MLP, over dim"},
    [DOFA_EPS] = {"eps", TRN_SETTING_REAL, "1e-6", 1e-12, 1, NULL, "of the encoder's norms"},
    [DOFA_LAYOUT] =
        {"layout", TRN_SETTING_CHOICE, "new", 0, 0, "new|old",
         "of the generated kernel. old: for the weights of the first release (March to August "
         "2024) alone, whose files have the same names and shapes as the ones that replaced them; "
         "no file says which it is, and with the wrong layout features are meaningless"},
    [DOFA_FC_NORM] =
        {"fc_norm", TRN_SETTING_CHOICE, "auto", 0, 0, "auto|false|true",
         "version 1: the norm after averaging has weights; auto: when the checkpoint holds them, "
         "which the published ones do not: weight 1 and bias 0 then"},
    [DOFA_ATTN_POOL] =
        {"attn_pool", TRN_SETTING_CHOICE, "true", 0, 0, TRN_BOOL_CHOICES,
         "version clip: pool=mean is the checkpoint's pooling by attention; false: the average "
         "of the normed tokens"},
    [DOFA_POS_INTERPOLATION] = {"pos_interpolation", TRN_SETTING_CHOICE, "bicubic", 0, 0, "bicubic|bilinear",
                                "how the position table meets other window sides"},
    [DOFA_OUT_INDICES] =
        {"out_indices", TRN_SETTING_TEXT, "auto", 0, 0, NULL,
         "blocks, from 0, whose raw outputs are the dense features (the original of version "
         "2: 4,6,10,11 for base, 5,11,17,23 for large); auto: the last, after the final norm "
         "where there is one"},
    [DOFA_WAVELENGTHS] = {"wavelengths", TRN_SETTING_TEXT, "auto", 0, 0, NULL,
                          "micrometres, one per band in the order of the bands; radar: 5.405; auto: by the "
                          "scene's sensor, else by the bands' common names"},
    [DOFA_UNIT] = TRN_RULE_UNIT,
    [DOFA_MEAN] =
        {"mean", TRN_SETTING_TEXT, "auto", 0, 0, NULL,
         "mean per band, comma-separated; auto: in bytes, ImageNet's for red,green,blue alone, else "
         "those of Sentinel-2 and Sentinel-1 that the model was trained with"},
    [DOFA_STD] = {"std", TRN_SETTING_TEXT, "auto", 0, 0, NULL, "standard deviation per band; auto: likewise"},
};

#define LICENCE "CC-BY-4.0"
#define V1_SOURCE "https://huggingface.co/torchgeo/dofa/resolve/main/dofa_"
#define V2_SOURCE "https://huggingface.co/earthflow/DOFA/resolve/main/dofav2_vit_"
#define CLIP_SOURCE "https://huggingface.co/earthflow/GeoLB-ViT-14-SigLIP-so400m-384-EO"
#define LARGE "dim=1024 depth=24 heads=16 "

static const trn_model_config configs[] = {
    {{"dofa-base", "dofa", "DOFA ViT-B/16", LICENCE, V1_SOURCE "base_patch16_224-a0275954.pth", 111310592, 0,
      "a0275954"},
     "",
     NULL,
     NULL},
    {{"dofa-large", "dofa", "DOFA ViT-L/16", LICENCE, V1_SOURCE "large_patch16_224-0ff904d3.pth", 337103360,
      0, "0ff904d3"},
     LARGE,
     NULL,
     NULL},
    {{"dofa-v2-base", "dofa", "DOFA v2 ViT-B/14", LICENCE, V2_SOURCE "base_e150.pth", 105432320, 0, NULL},
     "version=2 patch=14",
     NULL,
     NULL},
    {{"dofa-v2-large", "dofa", "DOFA v2 ViT-L/14", LICENCE, V2_SOURCE "large_e150.pth", 329290240, 0, NULL},
     LARGE "version=2 patch=14",
     NULL,
     NULL},
    {{"dofa-clip-so400m", "dofa", "DOFA-CLIP SigLIP SO400M/14, vision tower", LICENCE, CLIP_SOURCE, 457465408,
      0, NULL},
     "version=clip img_size=384 patch=14 dim=1152 depth=27 heads=16 mlp_ratio=3.7362",
     NULL,
     "visual.trunk."},
};

/* ---- configuration ---- */

static trn_status read_sizes(const trn_encoder *encoder, trn_dofa_state *state, trn_error *err)
{
    int64_t patch = trn_encoder_int(encoder, DOFA_PATCH), dim = trn_encoder_int(encoder, DOFA_DIM);
    int64_t heads = trn_encoder_int(encoder, DOFA_HEADS);
    trn_grid_size size;
    if (dim % heads)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': dim=%lld is no multiple of heads=%lld",
                        encoder->spec.name, (long long)dim, (long long)heads);
    /* a rest of the sides that fills no patch is not seen: 384 is 27 patches of 14 */
    trn_status status = trn_encoder_check_hidden(encoder, DOFA_MLP_RATIO,
                                                 trn_encoder_hidden(encoder, DOFA_MLP_RATIO, dim), err);
    if (status == TRN_OK) status = trn_encoder_image_size(encoder, DOFA_IMG_SIZE, 1, &size, err);
    if (status != TRN_OK) return status;
    state->own = (trn_grid_size){size.h / patch, size.w / patch};
    if (state->own.h && state->own.w) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': img_size=%s holds no patch of %lld pixels",
                    encoder->spec.name, trn_encoder_text(encoder, DOFA_IMG_SIZE), (long long)patch);
}

static trn_status configure(trn_encoder *encoder, trn_error *err)
{
    static const trn_unit units[] = {TRN_UNIT_BYTE, TRN_UNIT_REFLECTANCE, TRN_UNIT_ANY};
    trn_dofa_state *state = trn_arena_alloc(encoder->arena, sizeof *state);
    if (!state) return trn_fail_memory(err, sizeof *state, "an encoder");
    *state = (trn_dofa_state){.listed = strcmp(trn_encoder_text(encoder, DOFA_OUT_INDICES), "auto") != 0};
    encoder->state = state;
    trn_status status = read_sizes(encoder, state, err);
    if (status == TRN_OK)
        status = trn_encoder_out_indices(encoder, DOFA_OUT_INDICES, trn_encoder_int(encoder, DOFA_DEPTH),
                                         &state->chosen, err);
    if (status != TRN_OK) return status;
    trn_encoder_spec *spec = &encoder->spec;
    int64_t patch = trn_encoder_int(encoder, DOFA_PATCH);
    int64_t side = TRN_MIN(TRN_MAX(state->own.h, state->own.w) * patch, LARGEST_TILE);
    spec->needs_weights = true;
    spec->side_multiple = spec->stride = (int)patch;
    spec->tile = (int)TRN_MAX(side / patch * patch, patch);
    spec->channels = (int)trn_encoder_int(encoder, DOFA_DIM);
    spec->has_cls = trn_encoder_int(encoder, DOFA_VERSION) != DOFA_CLIP;
    spec->by_wavelength = true;
    spec->unit = units[trn_encoder_int(encoder, DOFA_UNIT)];
    return trn_dofa_configure_bands(encoder, err);
}

/* ---- graph ---- */

/* patches [B,N,D] -> [B,P+N,D]: a class token in front (P=1) where the version has one, and positions */
static trn_tensor *add_tokens(const trn_encoder *encoder, const trn_build *build, const trn_scope *scope,
                              trn_tensor *patches, trn_grid_size size)
{
    const trn_dofa_state *state = encoder->state;
    trn_graph *graph = scope->graph;
    int64_t dim = trn_encoder_int(encoder, DOFA_DIM), own = state->own.h * state->own.w;
    int prefix = trn_encoder_int(encoder, DOFA_VERSION) != DOFA_CLIP;
    trn_position_resize how =
        trn_encoder_int(encoder, DOFA_POS_INTERPOLATION) ? TRN_POSITIONS_BILINEAR : TRN_POSITIONS_BICUBIC;
    trn_tensor *table = trn_scope_param(scope, "pos_embed", TRN_SHAPE(1, own + prefix, dim));
    table = trn_resize_positions(graph, table, prefix, state->own, size, how);
    if (!prefix) return trn_add(graph, patches, table);
    trn_tensor *cls = trn_scope_param(scope, "cls_token", TRN_SHAPE(1, 1, dim));
    cls = trn_add(graph, cls, trn_slice(graph, table, 1, 0, 1));
    trn_tensor *parts[] = {trn_expand(graph, cls, TRN_SHAPE(build->batch, 1, dim)),
                           trn_add(graph, patches, trn_slice(graph, table, 1, 1, size.h * size.w))};
    return trn_concat(graph, parts, 2, 1);
}

static trn_block_desc block_of(const trn_encoder *encoder)
{
    int64_t dim = trn_encoder_int(encoder, DOFA_DIM);
    return (trn_block_desc){.heads = (int)trn_encoder_int(encoder, DOFA_HEADS),
                            .hidden = trn_encoder_hidden(encoder, DOFA_MLP_RATIO, dim),
                            .eps = (float)trn_encoder_real(encoder, DOFA_EPS),
                            .layer_scale = trn_encoder_int(encoder, DOFA_VERSION) == DOFA_V2};
}

/* A learned query asks all tokens [B,N,D], and a residual MLP follows: [B,D] */
static trn_tensor *pool_by_attention(const trn_build *build, const trn_scope *parent, trn_tensor *tokens,
                                     const trn_block_desc *block)
{
    trn_scope scope = trn_scope_enter(parent, "attn_pool"), mlp = trn_scope_enter(&scope, "mlp");
    int64_t count = trn_tensor_dim(tokens, 1), dim = trn_tensor_dim(tokens, 2);
    if (!tokens) return NULL;
    trn_tensor *latent = trn_scope_param(&scope, "latent", TRN_SHAPE(1, 1, dim));
    trn_tensor *q = trn_nn_linear(&scope, "q", latent, dim, true);
    trn_tensor *kv = trn_nn_linear(&scope, "kv", tokens, 2 * dim, true);
    int64_t head = dim / block->heads;
    trn_heads_layout keys = {.outer = count * 2 * dim, .head = head, .row = 2 * dim}, values = keys;
    values.offset = dim;
    trn_attention_desc attention = {.outer = (int)build->batch,
                                    .windows = 1,
                                    .heads = block->heads,
                                    .queries = 1,
                                    .keys = (int)count,
                                    .head_size = (int)head,
                                    .q = {.head = head, .row = dim}, /* one for the whole batch */
                                    .k = keys,
                                    .v = values,
                                    .out = {.outer = dim, .head = head, .row = dim},
                                    .out_shape = TRN_SHAPE(build->batch, dim)};
    trn_tensor *x = trn_attention(scope.graph, q, kv, kv, NULL, &attention);
    x = trn_nn_linear(&scope, "proj", x, dim, true);
    trn_tensor *y = trn_nn_layer_norm(&scope, "norm", x, block->eps);
    return trn_add(scope.graph, x, trn_nn_mlp(&mlp, y, block->hidden));
}

/* tokens [B,1+N,D] of the last block -> [B,D] */
static trn_tensor *pool_v1(const trn_encoder *encoder, const trn_build *build, trn_tensor *tokens, float eps)
{
    const trn_scope *scope = &build->scope;
    if (build->options->pool == TRN_FEATURES_CLS) {
        if (!trn_weights_is_synthetic(encoder->weights) && !trn_scope_has(scope, "norm.weight"))
            return trn_graph_fail(scope->graph,
                                  "weights '%s' hold no 'norm' for the class token: pool by mean, or use the "
                                  "authors' file, which has it",
                                  trn_weights_path(encoder->weights));
        return trn_nn_layer_norm(scope, "norm", trn_tokens_first(build, tokens), eps);
    }
    int64_t setting = trn_encoder_int(encoder, DOFA_FC_NORM);
    trn_tensor *x = trn_tokens_mean(build, tokens, 1);
    if (setting == TRUE_OF_AUTO || (setting == AUTO && trn_scope_has(scope, "fc_norm.weight")))
        return trn_nn_layer_norm(scope, "fc_norm", x, eps);
    return trn_layer_norm(scope->graph, x, NULL, NULL, eps);
}

/* normed tokens [B,P+N,D] -> [B,D] */
static trn_tensor *pool_normed(const trn_encoder *encoder, const trn_build *build, const trn_scope *scope,
                               trn_tensor *tokens, const trn_block_desc *block)
{
    bool clip = trn_encoder_int(encoder, DOFA_VERSION) == DOFA_CLIP;
    if (build->options->pool == TRN_FEATURES_CLS) return trn_tokens_first(build, tokens);
    if (!clip || !trn_encoder_int(encoder, DOFA_ATTN_POOL)) return trn_tokens_mean(build, tokens, !clip);
    return pool_by_attention(build, scope, tokens, block);
}

/* Statistics are wanted only of values that are to be normalised; while a loader merely asks which tensors
 * there are, nothing is. */
static bool lacks_statistics(const trn_encoder *encoder, const trn_build *build)
{
    const trn_dofa_state *state = encoder->state;
    const char *band = state->unknown;
    if (build->options->normalize != TRN_NORMALIZE_MODEL || build->scope.parameters->want) return false;
    if (!encoder->spec.band_count) {
        trn_graph_fail(build->scope.graph, "choose bands before normalising by the model's statistics");
        return true;
    }
    if (!band) return false;
    trn_graph_fail(
        build->scope.graph,
        "no mean and deviation are known for band '%s': give the settings mean and std for all %zu "
        "bands, or normalise by z-score",
        band, encoder->spec.band_count);
    return true;
}

static void build_dofa(trn_encoder *encoder, const trn_build *build, trn_features *out)
{
    const trn_dofa_state *state = encoder->state;
    int64_t version = trn_encoder_int(encoder, DOFA_VERSION), patch = trn_encoder_int(encoder, DOFA_PATCH);
    trn_grid_size size = {build->height / patch, build->width / patch};
    int last = state->chosen.count - 1, prefix = version != DOFA_CLIP;
    bool dense = build->options->pool == TRN_FEATURES_DENSE;
    if (lacks_statistics(encoder, build)) return;
    trn_block_desc block = block_of(encoder);
    trn_scope scope = version == DOFA_V2 ? trn_scope_enter(&build->scope, "model") : build->scope;
    trn_tensor *kept[TRN_MAX_GRIDS], *x = trn_dofa_patches(encoder, build);
    x = add_tokens(encoder, build, &scope, x, size);
    trn_build_stage(build, x, "tokens_in");
    trn_build_blocks(build, &scope, x, trn_encoder_int(encoder, DOFA_DEPTH), &block, &state->chosen, kept);
    x = kept[last];
    if (version != DOFA_V1 && !(dense && state->listed)) {
        x = trn_nn_layer_norm(&scope, "norm", x, block.eps);
        trn_build_stage(build, x, "final_tokens");
        kept[last] = x;
    }
    if (dense) {
        for (int i = 0; i <= last; i++)
            trn_features_grid(out, trn_tokens_grid(build, kept[i], prefix, size), (double)patch, -prefix);
        return;
    }
    out->pooled = version == DOFA_V1 ? pool_v1(encoder, build, x, block.eps)
                                     : pool_normed(encoder, build, &scope, x, &block);
    trn_build_stage(build, out->pooled, "pooled");
}

static const char *const prefixes[] = {"visual.trunk.", "trunk.",  "encoder.", "backbone.",
                                       "model.",        "module.", NULL};

const trn_family trn_family_dofa = {
    .name = "dofa",
    .settings = settings,
    .setting_count = DOFA_SETTINGS,
    .configs = configs,
    .config_count = TRN_COUNT(configs),
    .probe = "patch_embed.weight_generator.weight_tokens",
    .prefixes = prefixes,
    .tiny = "img_size=32 patch=8 dim=48 depth=2 heads=4",
    .configure = configure,
    .choose_bands = trn_dofa_choose_bands,
    .build = build_dofa,
};
