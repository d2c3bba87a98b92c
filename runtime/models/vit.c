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
    VIT_OUT_INDICES,
    VIT_NORM,
    VIT_BANDS,
    VIT_UNIT,
    VIT_MEAN,
    VIT_STD,
    VIT_SETTINGS
};

enum { NAMES_AUTO, NAMES_META, NAMES_TIMM };
enum { AUTO, FALSE_OF_AUTO, TRUE_OF_AUTO };
enum { NORM_AUTO, NORM_NONE };
enum { MAX_TILE = 224 };

static const trn_setting_rule settings[VIT_SETTINGS] = {
    [VIT_IMG_SIZE] = {"img_size", TRN_SETTING_TEXT, "224", 0, 0, NULL,
                      "pixels, side or HEIGHTxWIDTH, that the position table is for"},
    [VIT_PATCH] = {"patch", TRN_SETTING_INT, "16", 1, 128, NULL, "pixels of a patch's side"},
    [VIT_DIM] = {"dim", TRN_SETTING_INT, "768", 1, 8192, NULL, "channels of a token"},
    [VIT_DEPTH] = {"depth", TRN_SETTING_INT, "12", 1, 256, NULL, "blocks"},
    [VIT_HEADS] = {"heads", TRN_SETTING_INT, "12", 1, 256, NULL, "attention heads"},
    [VIT_MLP_RATIO] = {"mlp_ratio", TRN_SETTING_REAL, "4", 0.01, 64, NULL,
                       "hidden channels of the MLP, over dim"},
    [VIT_IN_CHANS] = TRN_RULE_IN_CHANS,
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
    [VIT_OUT_INDICES] = {"out_indices", TRN_SETTING_TEXT, "auto", 0, 0, NULL,
                         "blocks, from 0, whose outputs are the dense features; auto: the last"},
    [VIT_NORM] = {"norm", TRN_SETTING_CHOICE, "auto", 0, 0, "auto|none",
                  "none: raw output of the block, no final norm"},
    [VIT_BANDS] = TRN_RULE_BANDS,
    [VIT_UNIT] = TRN_RULE_UNIT,
    [VIT_MEAN] = TRN_RULE_MEAN,
    [VIT_STD] = TRN_RULE_STD,
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
    {{"mae-vit-base", "vit", "MAE ViT-B/16", MAE_LICENCE, MAE_SOURCE "base.pth", 85798656, 0, NULL},
     "",
     "model",
     NULL},
    {{"mae-vit-large", "vit", "MAE ViT-L/16", MAE_LICENCE, MAE_SOURCE "large.pth", 303301632, 0, NULL},
     "dim=1024 depth=24 heads=16",
     "model",
     NULL},
    {{"mae-vit-huge", "vit", "MAE ViT-H/14", MAE_LICENCE, MAE_SOURCE "huge.pth", 630764800, 0, NULL},
     "patch=14 dim=1280 depth=32 heads=16",
     "model",
     NULL},
    {{"dinov2-small", "vit", "DINOv2 ViT-S/14", DINO_LICENCE, DINO_SOURCE "vits14/dinov2_vits14_pretrain.pth",
      22056192, 0, NULL},
     DINO_SMALL,
     NULL,
     NULL},
    {{"dinov2-base", "vit", "DINOv2 ViT-B/14", DINO_LICENCE, DINO_SOURCE "vitb14/dinov2_vitb14_pretrain.pth",
      86579712, 0, NULL},
     DINO_BASE,
     NULL,
     NULL},
    {{"dinov2-large", "vit", "DINOv2 ViT-L/14", DINO_LICENCE, DINO_SOURCE "vitl14/dinov2_vitl14_pretrain.pth",
      304367616, 0, NULL},
     DINO_LARGE,
     NULL,
     NULL},
    {{"dinov2-giant", "vit", "DINOv2 ViT-g/14", DINO_LICENCE, DINO_SOURCE "vitg14/dinov2_vitg14_pretrain.pth",
      1136479232, 0, NULL},
     DINO_GIANT,
     NULL,
     NULL},
    {{"dinov2-small-reg", "vit", "DINOv2 ViT-S/14 with registers", DINO_LICENCE,
      DINO_SOURCE "vits14/dinov2_vits14_reg4_pretrain.pth", 22057728, 0, NULL},
     DINO_SMALL "registers=4",
     NULL,
     NULL},
    {{"dinov2-base-reg", "vit", "DINOv2 ViT-B/14 with registers", DINO_LICENCE,
      DINO_SOURCE "vitb14/dinov2_vitb14_reg4_pretrain.pth", 86582784, 0, NULL},
     DINO_BASE "registers=4",
     NULL,
     NULL},
    {{"dinov2-large-reg", "vit", "DINOv2 ViT-L/14 with registers", DINO_LICENCE,
      DINO_SOURCE "vitl14/dinov2_vitl14_reg4_pretrain.pth", 304371712, 0, NULL},
     DINO_LARGE "registers=4",
     NULL,
     NULL},
    {{"dinov2-giant-reg", "vit", "DINOv2 ViT-g/14 with registers", DINO_LICENCE,
      DINO_SOURCE "vitg14/dinov2_vitg14_reg4_pretrain.pth", 1136485376, 0, NULL},
     DINO_GIANT "registers=4",
     NULL,
     NULL},
};

typedef struct vit_state {
    trn_grid_size own; /* cells of the position table */
    trn_out_indices chosen;
} vit_state;

/* ---- configuration ---- */

static trn_block_desc block_of(const trn_encoder *encoder)
{
    int64_t dim = trn_encoder_int(encoder, VIT_DIM);
    trn_block_desc desc = {.heads = (int)trn_encoder_int(encoder, VIT_HEADS),
                           .hidden = trn_encoder_hidden(encoder, VIT_MLP_RATIO, dim),
                           .eps = (float)trn_encoder_real(encoder, VIT_EPS),
                           .layer_scale = trn_encoder_int(encoder, VIT_LAYER_SCALE),
                           .swiglu = trn_encoder_int(encoder, VIT_SWIGLU)};
    if (desc.swiglu) desc.hidden = (desc.hidden * 2 / 3 + 7) / 8 * 8;
    return desc;
}

static trn_status configure(trn_encoder *encoder, trn_error *err)
{
    static const trn_image_band_settings bands = {VIT_IN_CHANS, VIT_BANDS, VIT_UNIT, VIT_MEAN, VIT_STD};
    int64_t patch = trn_encoder_int(encoder, VIT_PATCH);
    int64_t dim = trn_encoder_int(encoder, VIT_DIM), heads = trn_encoder_int(encoder, VIT_HEADS);
    vit_state *state = trn_arena_alloc(encoder->arena, sizeof *state);
    if (!state) return trn_fail_memory(err, sizeof *state, "an encoder");
    if (dim % heads)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': dim=%lld is no multiple of heads=%lld",
                        encoder->spec.name, (long long)dim, (long long)heads);
    trn_grid_size size;
    trn_status status = trn_encoder_check_hidden(encoder, VIT_MLP_RATIO, block_of(encoder).hidden, err);
    if (status == TRN_OK) status = trn_encoder_image_size(encoder, VIT_IMG_SIZE, patch, &size, err);
    if (status == TRN_OK)
        status = trn_encoder_out_indices(encoder, VIT_OUT_INDICES, trn_encoder_int(encoder, VIT_DEPTH),
                                         &state->chosen, err);
    if (status != TRN_OK) return status;
    state->own = (trn_grid_size){size.h / patch, size.w / patch};
    encoder->state = state;
    trn_encoder_spec *spec = &encoder->spec;
    spec->needs_weights = true;
    spec->side_multiple = spec->stride = (int)patch;
    spec->tile = (int)TRN_MAX(TRN_MIN(TRN_MAX(size.h, size.w), MAX_TILE) / patch * patch, patch);
    spec->channels = (int)dim;
    spec->has_cls = true;
    return trn_configure_image_bands(encoder, &bands, err);
}

/* ---- graph ---- */

/* Tensor [1,rows,D] of the class token, the registers, or the positions. */
static trn_tensor *token_param(const trn_scope *scope, const char *name, int64_t rows, int64_t dim)
{
    return trn_scope_param(scope, name, TRN_SHAPE(1, rows, dim));
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
                              trn_grid_size size)
{
    const vit_state *state = encoder->state;
    const trn_scope *scope = &build->scope;
    trn_graph *graph = scope->graph;
    int64_t dim = trn_encoder_int(encoder, VIT_DIM), registers = trn_encoder_int(encoder, VIT_REGISTERS);
    int64_t own = state->own.h * state->own.w;
    trn_position_resize how = (trn_position_resize)trn_encoder_int(encoder, VIT_POS_INTERPOLATION);
    int prefix = has_class_position(encoder, own);
    trn_tensor *cls = token_param(scope, "cls_token", 1, dim);
    trn_tensor *table = token_param(scope, "pos_embed", own + prefix, dim);
    trn_tensor *positions = trn_resize_positions(graph, table, prefix, state->own, size, how), *parts[3];
    int count = 0;
    if (prefix) cls = trn_add(graph, cls, trn_slice(graph, positions, 1, 0, 1));
    if (prefix) positions = trn_slice(graph, positions, 1, 1, size.h * size.w);
    parts[count++] = trn_expand(graph, cls, TRN_SHAPE(build->batch, 1, dim));
    if (registers) {
        trn_tensor *tokens = token_param(scope, register_name(encoder, scope), registers, dim);
        parts[count++] = trn_expand(graph, tokens, TRN_SHAPE(build->batch, registers, dim));
    }
    parts[count++] = trn_add(graph, patches, positions);
    return trn_concat(graph, parts, count, 1);
}

/* image -> tokens [B,P+N,D] */
static trn_tensor *embed(const trn_encoder *encoder, const trn_build *build, trn_grid_size size)
{
    int64_t patch = trn_encoder_int(encoder, VIT_PATCH), dim = trn_encoder_int(encoder, VIT_DIM);
    trn_scope scope = trn_scope_enter(&build->scope, "patch_embed.proj");
    trn_conv_desc conv = {.stride = {1, (int)patch, (int)patch}};
    trn_tensor *w =
        trn_scope_param(&scope, "weight", TRN_SHAPE(dim, trn_tensor_dim(build->x, 1), patch, patch));
    trn_tensor *b = trn_scope_param(&scope, "bias", TRN_SHAPE(dim));
    trn_tensor *x = trn_conv_tokens(scope.graph, build->x, w, b, &conv);
    trn_build_stage(build, x, "patch_embed");
    return add_tokens(encoder, build, x, size);
}

static void build_vit(trn_encoder *encoder, const trn_build *build, trn_features *out)
{
    const vit_state *state = encoder->state;
    int64_t patch = trn_encoder_int(encoder, VIT_PATCH), prefix = 1 + trn_encoder_int(encoder, VIT_REGISTERS);
    int64_t fc_setting = trn_encoder_int(encoder, VIT_FC_NORM);
    int last = state->chosen.count - 1;
    trn_grid_size size = {build->height / patch, build->width / patch};
    bool raw = trn_encoder_int(encoder, VIT_NORM) == NORM_NONE;
    bool fc_norm =
        fc_setting == TRUE_OF_AUTO || (fc_setting == AUTO && trn_scope_has(&build->scope, "fc_norm.weight"));
    trn_block_desc desc = block_of(encoder);
    trn_tensor *kept[TRN_MAX_GRIDS], *x = embed(encoder, build, size);
    trn_build_stage(build, x, "tokens_in");
    trn_build_blocks(build, &build->scope, x, trn_encoder_int(encoder, VIT_DEPTH), &desc, &state->chosen,
                     kept);
    for (int i = 0; i <= last && !fc_norm && !raw; i++)
        kept[i] = trn_nn_layer_norm(&build->scope, "norm", kept[i], desc.eps);
    trn_build_stage(build, kept[last], "final_tokens");
    if (build->options->pool == TRN_FEATURES_DENSE) {
        for (int i = 0; i <= last; i++)
            trn_features_grid(out, trn_tokens_grid(build, kept[i], prefix, size), (double)patch, 0);
        return;
    }
    bool mean = build->options->pool == TRN_FEATURES_MEAN;
    x = mean ? trn_tokens_mean(build, kept[last], prefix) : trn_tokens_first(build, kept[last]);
    if (fc_norm && !raw) x = trn_nn_layer_norm(&build->scope, "fc_norm", x, desc.eps);
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
