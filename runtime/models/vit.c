/* Plain vision transformers: MAE and DINOv2.
 *
 * What is pooled: a checkpoint with `norm` gives tokens after that norm; dense features are the patch tokens,
 * mean their average, cls the class token. A checkpoint with `fc_norm` (fine-tuned by global average) has no
 * norm on tokens: dense features are the last block's output, mean and cls go through fc_norm, as the
 * original's classifier sees them. */
#include "models_private.h"

#include <stdlib.h>
#include <string.h>

enum {
    VIT_IMG_SIZE,
    VIT_PATCH,
    VIT_DIM,
    VIT_DEPTH,
    VIT_HEADS,
    VIT_MLP_RATIO,
    VIT_IN_CHANS,
    VIT_REGISTERS,
    VIT_LAYER_SCALE,
    VIT_SWIGLU,
    VIT_FC_NORM,
    VIT_EPS,
    VIT_POS_INTERPOLATION,
    VIT_NAMES,
    VIT_LAYER,
    VIT_NORM,
    VIT_BANDS,
    VIT_UNIT,
    VIT_MEAN,
    VIT_STD,
    VIT_SETTINGS
};

enum { INTERPOLATE_TIMM, INTERPOLATE_META };
enum { NAMES_AUTO, NAMES_META, NAMES_TIMM };
enum { AUTO, FALSE_OF_AUTO, TRUE_OF_AUTO };
enum { NORM_AUTO, NORM_NONE };
enum { UNIT_BYTE, UNIT_REFLECTANCE, UNIT_STORED };
enum { MAX_BANDS = 64, MAX_TILE = 224 };

static const trn_setting_rule settings[VIT_SETTINGS] = {
    [VIT_IMG_SIZE] = {"img_size", TRN_SETTING_INT, "224", 1, 4096, NULL,
                      "pixels of the side the position table is for"},
    [VIT_PATCH] = {"patch", TRN_SETTING_INT, "16", 1, 128, NULL, "pixels of a patch's side"},
    [VIT_DIM] = {"dim", TRN_SETTING_INT, "768", 1, 8192, NULL, "channels of a token"},
    [VIT_DEPTH] = {"depth", TRN_SETTING_INT, "12", 1, 256, NULL, "blocks"},
    [VIT_HEADS] = {"heads", TRN_SETTING_INT, "12", 1, 256, NULL, "attention heads"},
    [VIT_MLP_RATIO] = {"mlp_ratio", TRN_SETTING_REAL, "4", 0.01, 64, NULL,
                       "hidden channels of the MLP, over dim"},
    [VIT_IN_CHANS] = {"in_chans", TRN_SETTING_INT, "3", 1, MAX_BANDS, NULL, "bands of the image"},
    [VIT_REGISTERS] = {"registers", TRN_SETTING_INT, "0", 0, 64, NULL, "register tokens"},
    [VIT_LAYER_SCALE] = {"layer_scale", TRN_SETTING_CHOICE, "false", 0, 0, TRN_BOOL_CHOICES,
                         "ls1.gamma and ls2.gamma"},
    [VIT_SWIGLU] = {"swiglu", TRN_SETTING_CHOICE, "false", 0, 0, TRN_BOOL_CHOICES,
                    "gated MLP; its hidden size is 2/3 of "
                    "mlp_ratio*dim, rounded up to a multiple of 8"},
    [VIT_FC_NORM] = {"fc_norm", TRN_SETTING_CHOICE, "auto", 0, 0, "auto|false|true",
                     "norm after pooling instead of on "
                     "tokens; auto: when the checkpoint has fc_norm"},
    [VIT_EPS] = {"eps", TRN_SETTING_REAL, "1e-6", 1e-12, 1, NULL, "of the norms"},
    [VIT_POS_INTERPOLATION] =
        {"pos_interpolation", TRN_SETTING_CHOICE, "timm", 0, 0, "timm|meta",
         "how the position table "
         "meets other window sides: bicubic with antialias, or without and with Meta's 0.1 offset"},
    [VIT_NAMES] = {"names", TRN_SETTING_CHOICE, "auto", 0, 0, "auto|meta|timm",
                   "of register tokens, and whether positions "
                   "have a row for the class token then; auto: by the checkpoint"},
    [VIT_LAYER] = {"layer", TRN_SETTING_INT, "0", 0, 256, NULL,
                   "features after this many blocks; 0: after the last"},
    [VIT_NORM] = {"norm", TRN_SETTING_CHOICE, "auto", 0, 0, "auto|none",
                  "none: raw output of the block, no final norm"},
    [VIT_BANDS] = {"bands", TRN_SETTING_TEXT, "auto", 0, 0, NULL,
                   "common names of the bands in the model's order; auto: "
                   "red,green,blue for three, else as they come"},
    [VIT_UNIT] = {"unit", TRN_SETTING_CHOICE, "byte", 0, 0, "byte|reflectance|stored",
                  "of the values that mean and std "
                  "are of"},
    [VIT_MEAN] = {"mean", TRN_SETTING_TEXT, "auto", 0, 0, NULL,
                  "mean per band, comma-separated; auto: ImageNet's in bytes "
                  "for red,green,blue, else 0"},
    [VIT_STD] = {"std", TRN_SETTING_TEXT, "auto", 0, 0, NULL,
                 "standard deviation per band; auto: ImageNet's or 1"},
};

#define MAE_LICENCE "CC-BY-NC-4.0"
#define MAE_SOURCE "https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_"
#define DINO_LICENCE "Apache-2.0"
#define DINO_SOURCE "https://dl.fbaipublicfiles.com/dinov2/dinov2_"
#define DINO "img_size=518 patch=14 layer_scale=true "
#define DINO_SMALL DINO "dim=384 heads=6 "
#define DINO_BASE DINO "dim=768 heads=12 "
#define DINO_LARGE DINO "dim=1024 depth=24 heads=16 "
#define DINO_GIANT DINO "dim=1536 depth=40 heads=24 swiglu=true "

static const trn_model_config configs[] = {
    {{"mae-vit-base", "vit", "MAE ViT-B/16", MAE_LICENCE, MAE_SOURCE "base.pth", 85798656}, ""},
    {{"mae-vit-large", "vit", "MAE ViT-L/16", MAE_LICENCE, MAE_SOURCE "large.pth", 303301632},
     "dim=1024 depth=24 heads=16"},
    {{"mae-vit-huge", "vit", "MAE ViT-H/14", MAE_LICENCE, MAE_SOURCE "huge.pth", 630764800},
     "patch=14 dim=1280 depth=32 heads=16"},
    {{"dinov2-small", "vit", "DINOv2 ViT-S/14", DINO_LICENCE, DINO_SOURCE "vits14/dinov2_vits14_pretrain.pth",
      22056192},
     DINO_SMALL},
    {{"dinov2-base", "vit", "DINOv2 ViT-B/14", DINO_LICENCE, DINO_SOURCE "vitb14/dinov2_vitb14_pretrain.pth",
      86579712},
     DINO_BASE},
    {{"dinov2-large", "vit", "DINOv2 ViT-L/14", DINO_LICENCE, DINO_SOURCE "vitl14/dinov2_vitl14_pretrain.pth",
      304367616},
     DINO_LARGE},
    {{"dinov2-giant", "vit", "DINOv2 ViT-g/14", DINO_LICENCE, DINO_SOURCE "vitg14/dinov2_vitg14_pretrain.pth",
      1136479232},
     DINO_GIANT},
    {{"dinov2-small-reg", "vit", "DINOv2 ViT-S/14 with registers", DINO_LICENCE,
      DINO_SOURCE "vits14/dinov2_vits14_reg4_pretrain.pth", 22057728},
     DINO_SMALL "registers=4"},
    {{"dinov2-base-reg", "vit", "DINOv2 ViT-B/14 with registers", DINO_LICENCE,
      DINO_SOURCE "vitb14/dinov2_vitb14_reg4_pretrain.pth", 86582784},
     DINO_BASE "registers=4"},
    {{"dinov2-large-reg", "vit", "DINOv2 ViT-L/14 with registers", DINO_LICENCE,
      DINO_SOURCE "vitl14/dinov2_vitl14_reg4_pretrain.pth", 304371712},
     DINO_LARGE "registers=4"},
    {{"dinov2-giant-reg", "vit", "DINOv2 ViT-g/14 with registers", DINO_LICENCE,
      DINO_SOURCE "vitg14/dinov2_vitg14_reg4_pretrain.pth", 1136485376},
     DINO_GIANT "registers=4"},
};

/* ---- configuration ---- */

/* Means or deviations of the bands. */
static trn_status read_statistics(trn_encoder *encoder, size_t setting, double *values, size_t count,
                                  double fallback, trn_error *err)
{
    static const double imagenet[2][3] = {{123.675, 116.28, 103.53}, {58.395, 57.12, 57.375}};
    const char *text = trn_encoder_text(encoder, setting), *parts[MAX_BANDS];
    bool automatic = !strcmp(text, "auto");
    bool rgb = automatic && count == 3 && !strcmp(trn_encoder_text(encoder, VIT_BANDS), "auto") &&
               trn_encoder_int(encoder, VIT_UNIT) == UNIT_BYTE;
    for (size_t i = 0; i < count; i++)
        values[i] = rgb ? imagenet[setting == VIT_STD][i] : fallback;
    if (automatic) return TRN_OK;
    int n = trn_settings_list(encoder->arena, text, parts, MAX_BANDS);
    bool ok = n >= 0 && (size_t)n == count;
    for (size_t i = 0; ok && i < count; i++)
        ok = trn_parse_double(parts[i], &values[i]) && (setting == VIT_MEAN || values[i] > 0);
    if (ok) return TRN_OK;
    return trn_fail(
        err, TRN_ERR_ARGUMENT, "encoder '%s': setting %s=%s must be %zu %snumbers, separated by commas",
        encoder->spec.name, settings[setting].key, text, count, setting == VIT_STD ? "positive " : "");
}

static int read_band_names(trn_encoder *encoder, const char **names)
{
    static const char *const rgb[] = {"red", "green", "blue"};
    const char *text = trn_encoder_text(encoder, VIT_BANDS);
    if (strcmp(text, "auto") != 0) return trn_settings_list(encoder->arena, text, names, MAX_BANDS);
    if (trn_encoder_int(encoder, VIT_IN_CHANS) != 3) return 0;
    memcpy(names, rgb, sizeof rgb);
    return 3;
}

static trn_status configure_bands(trn_encoder *encoder, trn_error *err)
{
    static const trn_unit units[] = {TRN_UNIT_BYTE, TRN_UNIT_REFLECTANCE, TRN_UNIT_ANY};
    size_t channels = (size_t)trn_encoder_int(encoder, VIT_IN_CHANS);
    const char *names[MAX_BANDS];
    double mean[MAX_BANDS], std[MAX_BANDS];
    int named = read_band_names(encoder, names);
    if (named < 0 || (named > 0 && (size_t)named != channels))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': setting bands=%s must name %zu bands (in_chans)", encoder->spec.name,
                        trn_encoder_text(encoder, VIT_BANDS), channels);
    trn_status status = read_statistics(encoder, VIT_MEAN, mean, channels, 0, err);
    if (status == TRN_OK) status = read_statistics(encoder, VIT_STD, std, channels, 1, err);
    if (status != TRN_OK) return status;
    encoder->image_channels = (int)channels;
    encoder->spec.unit = named ? units[trn_encoder_int(encoder, VIT_UNIT)] : TRN_UNIT_ANY;
    trn_encoder_band *bands = trn_arena_array(encoder->arena, channels, sizeof *bands);
    if (!bands) return trn_fail_memory(err, channels * sizeof *bands, "bands");
    for (size_t i = 0; i < channels; i++)
        bands[i] = (trn_encoder_band){named ? names[i] : NULL, -1, mean[i], std[i], encoder->spec.unit, 1};
    encoder->spec.bands = named ? bands : NULL;
    encoder->spec.band_count = (size_t)named;
    if (named || (!strcmp(trn_encoder_text(encoder, VIT_MEAN), "auto") &&
                  !strcmp(trn_encoder_text(encoder, VIT_STD), "auto")))
        return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "encoder '%s': mean and std are of named bands: name them in the setting 'bands'",
                    encoder->spec.name);
}

static trn_status configure(trn_encoder *encoder, trn_error *err)
{
    int64_t size = trn_encoder_int(encoder, VIT_IMG_SIZE), patch = trn_encoder_int(encoder, VIT_PATCH);
    int64_t dim = trn_encoder_int(encoder, VIT_DIM), heads = trn_encoder_int(encoder, VIT_HEADS);
    const char *name = encoder->spec.name;
    if (size % patch)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': img_size=%lld is no multiple of patch=%lld",
                        name, (long long)size, (long long)patch);
    if (dim % heads)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': dim=%lld is no multiple of heads=%lld", name,
                        (long long)dim, (long long)heads);
    if (trn_encoder_int(encoder, VIT_LAYER) > trn_encoder_int(encoder, VIT_DEPTH))
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': layer=%lld is beyond depth=%lld", name,
                        (long long)trn_encoder_int(encoder, VIT_LAYER),
                        (long long)trn_encoder_int(encoder, VIT_DEPTH));
    trn_encoder_spec *spec = &encoder->spec;
    spec->needs_weights = true;
    spec->side_multiple = spec->stride = (int)patch;
    spec->tile = (int)TRN_MAX(TRN_MIN(size, MAX_TILE) / patch * patch, patch);
    spec->channels = (int)dim;
    spec->has_cls = true;
    return configure_bands(encoder, err);
}

/* ---- graph ---- */

/* Tensor [1,rows,D] of the class token, the registers, or the positions. */
static trn_tensor *token_param(const trn_scope *scope, const char *name, int64_t rows, int64_t dim)
{
    return trn_scope_param(scope, name, TRN_SHAPE(1, rows, dim));
}

/* table [1,g*g,D] -> [1,h*w,D] */
static trn_tensor *resize_positions(trn_graph *graph, trn_tensor *table, int64_t grid, int64_t h, int64_t w,
                                    int mode)
{
    if (grid == h && grid == w) return table;
    int64_t dim = trn_tensor_dim(table, -1);
    trn_resize_desc desc = {.mode = TRN_RESIZE_BICUBIC, .antialias = mode == INTERPOLATE_TIMM};
    if (mode == INTERPOLATE_META) {
        /* Meta asks for a scale of (side + 0.1)/grid, and that scale, not the sizes, places the samples. */
        desc.scale[0] = (double)grid / ((double)h + 0.1);
        desc.scale[1] = (double)grid / ((double)w + 0.1);
        for (int axis = 0; axis < 2; axis++)
            desc.offset[axis] = 0.5 * desc.scale[axis] - 0.5;
    }
    trn_tensor *x = trn_reshape(graph, table, TRN_SHAPE(1, grid, grid, dim));
    x = trn_resize2d(graph, x, 1, (int)h, (int)w, &desc);
    return trn_reshape(graph, x, TRN_SHAPE(1, h * w, dim));
}

trn_tensor *trn_vit_positions(trn_graph *graph, trn_tensor *table, int prefix, int64_t h, int64_t w,
                              bool meta)
{
    if (!table) return NULL;
    int64_t cells = trn_tensor_dim(table, 1) - prefix, grid = 1;
    while (grid * grid < cells)
        grid++;
    if (grid * grid != cells)
        return trn_graph_fail(graph, "a position table of %lld rows is no square", (long long)cells);
    trn_tensor *patches = prefix ? trn_slice(graph, table, 1, prefix, cells) : table;
    patches = resize_positions(graph, patches, grid, h, w, meta ? INTERPOLATE_META : INTERPOLATE_TIMM);
    if (!prefix) return patches;
    trn_tensor *parts[] = {trn_slice(graph, table, 1, 0, prefix), patches};
    return trn_concat(graph, parts, 2, 1);
}

/* timm folds the class token's position into the token when there are registers; Meta's files keep it. */
static bool has_class_position(const trn_encoder *encoder, int64_t cells)
{
    int64_t names = trn_encoder_int(encoder, VIT_NAMES);
    if (!trn_encoder_int(encoder, VIT_REGISTERS)) return true;
    if (names != NAMES_AUTO) return names == NAMES_META;
    const trn_weight *weight = trn_weights_find(encoder->weights, "pos_embed");
    return !(weight && weight->ndim == 3 && weight->shape[1] == cells);
}

static const char *register_name(const trn_encoder *encoder, const trn_scope *scope)
{
    int64_t names = trn_encoder_int(encoder, VIT_NAMES);
    if (names == NAMES_TIMM || (names == NAMES_AUTO && trn_scope_has(scope, "reg_token"))) return "reg_token";
    return "register_tokens";
}

/* patches [B,N,D] -> [B,1+R+N,D] with positions */
static trn_tensor *add_tokens(const trn_encoder *encoder, const trn_build *build, trn_tensor *patches,
                              int64_t cells)
{
    const trn_scope *scope = &build->scope;
    trn_graph *graph = scope->graph;
    int64_t dim = trn_encoder_int(encoder, VIT_DIM), registers = trn_encoder_int(encoder, VIT_REGISTERS);
    int64_t own = trn_encoder_int(encoder, VIT_IMG_SIZE) / trn_encoder_int(encoder, VIT_PATCH);
    bool meta = trn_encoder_int(encoder, VIT_POS_INTERPOLATION) == INTERPOLATE_META;
    int prefix = has_class_position(encoder, own * own);
    trn_tensor *cls = token_param(scope, "cls_token", 1, dim);
    trn_tensor *table = token_param(scope, "pos_embed", own * own + prefix, dim);
    trn_tensor *positions = trn_vit_positions(graph, table, prefix, cells, cells, meta), *parts[3];
    int count = 0;
    if (prefix) cls = trn_add(graph, cls, trn_slice(graph, positions, 1, 0, 1));
    if (prefix) positions = trn_slice(graph, positions, 1, 1, cells * cells);
    parts[count++] = trn_expand(graph, cls, TRN_SHAPE(build->batch, 1, dim));
    if (registers) {
        trn_tensor *tokens = token_param(scope, register_name(encoder, scope), registers, dim);
        parts[count++] = trn_expand(graph, tokens, TRN_SHAPE(build->batch, registers, dim));
    }
    parts[count++] = trn_add(graph, patches, positions);
    return trn_concat(graph, parts, count, 1);
}

static trn_tensor *blocks(const trn_encoder *encoder, const trn_build *build, trn_tensor *x)
{
    int64_t dim = trn_encoder_int(encoder, VIT_DIM), depth = trn_encoder_int(encoder, VIT_LAYER);
    trn_block_desc desc = {.heads = (int)trn_encoder_int(encoder, VIT_HEADS),
                           .hidden = (int64_t)((double)dim * trn_encoder_real(encoder, VIT_MLP_RATIO)),
                           .eps = (float)trn_encoder_real(encoder, VIT_EPS),
                           .layer_scale = trn_encoder_int(encoder, VIT_LAYER_SCALE),
                           .swiglu = trn_encoder_int(encoder, VIT_SWIGLU)};
    if (desc.swiglu) desc.hidden = (desc.hidden * 2 / 3 + 7) / 8 * 8;
    if (!depth) depth = trn_encoder_int(encoder, VIT_DEPTH);
    for (int64_t i = 0; i < depth; i++) {
        trn_scope scope = trn_scope_enter(&build->scope, "blocks.%d", (int)i);
        x = trn_nn_block(&scope, x, &desc);
        trn_build_stage(build, x, "block%02d", (int)i);
    }
    return x;
}

/* x [B,P+N,D] */
static trn_tensor *pool(const trn_build *build, trn_tensor *x, int64_t prefix, int64_t patches)
{
    trn_graph *graph = build->scope.graph;
    if (build->options->pool == TRN_FEATURES_MEAN)
        return trn_reduce(graph, trn_slice(graph, x, 1, prefix, patches), 1, TRN_REDUCE_MEAN, false);
    return trn_reshape(graph, trn_slice(graph, x, 1, 0, 1), TRN_SHAPE(build->batch, -1));
}

static void build_vit(trn_encoder *encoder, const trn_build *build, trn_features *out)
{
    trn_graph *graph = build->scope.graph;
    int64_t patch = trn_encoder_int(encoder, VIT_PATCH), dim = trn_encoder_int(encoder, VIT_DIM);
    int64_t cells = build->side / patch, prefix = 1 + trn_encoder_int(encoder, VIT_REGISTERS);
    int64_t fc_setting = trn_encoder_int(encoder, VIT_FC_NORM);
    bool raw = trn_encoder_int(encoder, VIT_NORM) == NORM_NONE;
    bool fc_norm =
        fc_setting == TRUE_OF_AUTO || (fc_setting == AUTO && trn_scope_has(&build->scope, "fc_norm.weight"));
    float eps = (float)trn_encoder_real(encoder, VIT_EPS);
    trn_scope embed = trn_scope_enter(&build->scope, "patch_embed.proj");
    trn_conv_desc conv = {.stride = {1, (int)patch, (int)patch}};
    trn_tensor *w =
        trn_scope_param(&embed, "weight", TRN_SHAPE(dim, trn_tensor_dim(build->x, 1), patch, patch));
    trn_tensor *b = trn_scope_param(&embed, "bias", TRN_SHAPE(dim));
    trn_tensor *x = trn_conv_tokens(graph, build->x, w, b, &conv);
    trn_build_stage(build, x, "patch_embed");
    x = add_tokens(encoder, build, x, cells);
    trn_build_stage(build, x, "tokens_in");
    x = blocks(encoder, build, x);
    if (!fc_norm && !raw) x = trn_nn_layer_norm(&build->scope, "norm", x, eps);
    trn_build_stage(build, x, "final_tokens");
    if (build->options->pool == TRN_FEATURES_DENSE) {
        x = trn_slice(graph, x, 1, prefix, cells * cells);
        trn_features_grid(out, trn_reshape(graph, x, TRN_SHAPE(build->batch, cells, cells, dim)),
                          (double)patch);
        return;
    }
    x = pool(build, x, prefix, cells * cells);
    if (fc_norm && !raw) x = trn_nn_layer_norm(&build->scope, "fc_norm", x, eps);
    trn_build_stage(build, x, "pooled");
    out->pooled = x;
}

static const char *const prefixes[] = {"backbone.", "encoder.",          "model.",
                                       "teacher.",  "teacher.backbone.", "student.backbone.",
                                       "visual.",   "image_encoder.",    NULL};

const trn_family trn_family_vit = {
    .name = "vit",
    .settings = settings,
    .setting_count = VIT_SETTINGS,
    .configs = configs,
    .config_count = TRN_COUNT(configs),
    .probe = "patch_embed.proj.weight",
    .prefixes = prefixes,
    .tiny = "img_size=32 patch=8 dim=48 depth=2 heads=4 layer_scale=true registers=2",
    .configure = configure,
    .build = build_vit,
};
