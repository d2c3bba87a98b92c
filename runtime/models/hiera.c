/* Hiera: hierarchical vision transformers over images, and over series of 16 frames.
 *
 * Dense features are the outputs of stages, raw as the originals give them (stride 4, 8, 16, 32; 16 last
 * where q_pool is 2). Pooled features are of the last chosen stage: of stage 3 by its head, of another as the
 * plain average of its tokens. Fine-tuned files have `norm`: it comes after the average, as for the
 * classifier. Files of pretraining have no `norm` but a fusion of stages and `encoder_norm`, which were
 * trained with q_pool 2: the mae-* encoders average the tokens that the original's decoder is given. Such a
 * file loaded by a plain name (q_pool 3) has no norm that fits what comes out: the average stays raw. */
#include "hiera.h"

#include <stdlib.h>
#include <string.h>

enum {
    HIERA_IMG_SIZE,
    HIERA_IN_CHANS,
    HIERA_DIM,
    HIERA_HEADS,
    HIERA_DEPTHS,
    HIERA_Q_POOL,
    HIERA_MASK_UNIT_ATTN,
    HIERA_MLP_RATIO,
    HIERA_EPS,
    HIERA_FRAMES,
    HIERA_TIME_KERNEL,
    HIERA_TIME_STRIDE,
    HIERA_TIME_PADDING,
    HIERA_SEP_POS_EMBED,
    HIERA_OUT_INDICES,
    HIERA_HEAD,
    HIERA_BANDS,
    HIERA_UNITS,
    HIERA_MEAN,
    HIERA_STD,
    HIERA_DECODER_DIM,
    HIERA_DECODER_DEPTH,
    HIERA_DECODER_HEADS,
    HIERA_SETTINGS
};

enum { SEPARATE_AUTO, SEPARATE_FALSE, SEPARATE_TRUE };
enum { MAX_TILE = 224, MAX_FRAMES = 64, COMMON_STRIDE = 16 };

static const trn_setting_rule settings[HIERA_SETTINGS] = {
    [HIERA_IMG_SIZE] = {"img_size", TRN_SETTING_TEXT, "224", 0, 0, NULL,
                        "pixels, side or HEIGHTxWIDTH, that the position table is for"},
    [HIERA_IN_CHANS] = TRN_RULE_IN_CHANS,
    [HIERA_DIM] = {"dim", TRN_SETTING_INT, "96", 1, 2048, NULL,
                   "channels of the first stage; they double with every stage"},
    [HIERA_HEADS] = {"heads", TRN_SETTING_INT, "1", 1, 256, NULL,
                     "attention heads of the first stage; they double with every stage"},
    [HIERA_DEPTHS] = {"stages", TRN_SETTING_TEXT, "2,3,16,3", 0, 0, NULL,
                      "blocks of each of the four stages"},
    [HIERA_Q_POOL] = {"q_pool", TRN_SETTING_INT, "3", 0, HIERA_LEVELS, NULL,
                      "stages after the first that begin with a 2x2 pooling; pretraining has 2"},
    [HIERA_MASK_UNIT_ATTN] = {"mask_unit_attn", TRN_SETTING_TEXT, "1,1,0,0", 0, 0, NULL,
                              "stages that attend within mask units of 32x32 pixels (1), not globally (0)"},
    [HIERA_MLP_RATIO] = {"mlp_ratio", TRN_SETTING_REAL, "4", 0.01, 64, NULL,
                         "hidden channels of the MLP, over the stage's channels"},
    [HIERA_EPS] = {"eps", TRN_SETTING_REAL, "1e-6", 1e-12, 1, NULL, "of the norms"},
    [HIERA_FRAMES] = {"frames", TRN_SETTING_INT, "1", 1, MAX_FRAMES, NULL,
                      "dates of the series; 1: images, without convolution in time"},
    [HIERA_TIME_KERNEL] = {"time_kernel", TRN_SETTING_INT, "3", 1, MAX_FRAMES, NULL,
                           "frames that the patch embedding sees at a time"},
    [HIERA_TIME_STRIDE] = {"time_stride", TRN_SETTING_INT, "2", 1, MAX_FRAMES, NULL,
                           "frames between steps of the patch embedding"},
    [HIERA_TIME_PADDING] = {"time_padding", TRN_SETTING_INT, "1", 0, MAX_FRAMES, NULL,
                            "frames of zeros before and after the series"},
    [HIERA_SEP_POS_EMBED] = {"sep_pos_embed", TRN_SETTING_CHOICE, "auto", 0, 0, "auto|false|true",
                             "position tables of space and time apart; auto: for series"},
    [HIERA_OUT_INDICES] = {"out_indices", TRN_SETTING_TEXT, "auto", 0, 0, NULL,
                           "stages, 0 to 3, whose outputs are the dense features; auto: all four"},
    [HIERA_HEAD] = {"head", TRN_SETTING_CHOICE, "auto", 0, 0, "auto|norm|fuse|none",
                    "pooled features of stage 3: norm of the average; average of the fused, normed stages "
                    "(pretraining); plain average. auto: what the weights have tensors for with this q_pool"},
    [HIERA_BANDS] = TRN_RULE_BANDS,
    [HIERA_UNITS] = TRN_RULE_UNIT,
    [HIERA_MEAN] = TRN_RULE_MEAN,
    [HIERA_STD] = TRN_RULE_STD,
    [HIERA_DECODER_DIM] = {"decoder_dim", TRN_SETTING_INT, "512", 1, 8192, NULL,
                           "channels of a token of the decoder (reconstruction)"},
    [HIERA_DECODER_DEPTH] = {"decoder_depth", TRN_SETTING_INT, "8", 1, 256, NULL, "blocks of the decoder"},
    [HIERA_DECODER_HEADS] = {"decoder_heads", TRN_SETTING_INT, "16", 1, 256, NULL,
                             "attention heads of the decoder"},
};

#define IMAGE_SIZES(X)                                                                                       \
    X("tiny", "T", "tiny_224", "stages=1,2,7,2", 27141216, 28912224)                                         \
    X("small", "S", "small_224", "stages=1,2,11,2", 34239072, 36010080)                                      \
    X("base", "B", "base_224", "", 50755968, 52526976)                                                       \
    X("base-plus", "B+", "base_plus_224", "dim=112 heads=2", 68999616, 71409856)                             \
    X("large", "L", "large_224", "dim=144 heads=2 stages=2,6,36,4", 212586912, 216570528)                    \
    X("huge", "H", "huge_224", "dim=256 heads=4 stages=2,6,36,4", 670730752, 683317760)
#define VIDEO_SIZES(X)                                                                                       \
    X("base", "B", "base_16x224", "", 50784960, 52555968)                                                    \
    X("base-plus", "B+", "base_plus_16x224", "dim=112 heads=2", 69033440, 71443680)                          \
    X("large", "L", "large_16x224", "dim=144 heads=2 stages=2,6,36,4", 212630400, 216614016)                 \
    X("huge", "H", "huge_16x224", "dim=256 heads=4 stages=2,6,36,4", 670808064, 683395072)

#define LICENCE "CC-BY-NC-4.0"
#define SOURCE "https://dl.fbaipublicfiles.com/hiera/"
#define ROW(name, title, file, values, parameters)                                                           \
    {{name, "hiera", title, LICENCE, SOURCE file ".pth", parameters, 0, NULL}, values, "model_state", NULL},
#define MAE "q_pool=2 head=fuse "
#define VIDEO "frames=16 "
#define IMAGE_ROW(size, letter, file, values, plain, mae)                                                    \
    ROW("hiera-" size, "Hiera-" letter, "hiera_" file, values, plain)
#define IMAGE_MAE_ROW(size, letter, file, values, plain, mae)                                                \
    ROW("mae-hiera-" size, "MAE Hiera-" letter, "mae_hiera_" file, MAE values, mae)
#define VIDEO_ROW(size, letter, file, values, plain, mae)                                                    \
    ROW("hiera-video-" size, "Hiera-" letter " of 16 frames", "hiera_" file, VIDEO values, plain)
#define VIDEO_MAE_ROW(size, letter, file, values, plain, mae)                                                \
    ROW("mae-hiera-video-" size, "MAE Hiera-" letter " of 16 frames", "mae_hiera_" file, VIDEO MAE values,   \
        mae)

/* clang-format off */
static const trn_model_config configs[] = {
    IMAGE_SIZES(IMAGE_ROW)
    IMAGE_SIZES(IMAGE_MAE_ROW)
    VIDEO_SIZES(VIDEO_ROW)
    VIDEO_SIZES(VIDEO_MAE_ROW)
};
/* clang-format on */

/* ---- configuration ---- */

/* Four whole numbers of a setting. */
static trn_status read_stages(const trn_encoder *encoder, size_t setting, int64_t min, int64_t max, int *out,
                              trn_error *err)
{
    const char *text = trn_encoder_text(encoder, setting), *parts[HIERA_STAGES];
    bool ok = trn_settings_list(encoder->arena, text, parts, HIERA_STAGES) == HIERA_STAGES;
    for (int i = 0; ok && i < HIERA_STAGES; i++) {
        int64_t value;
        ok = trn_parse_int(parts[i], &value) && value >= min && value <= max;
        if (ok) out[i] = (int)value;
    }
    if (ok) return TRN_OK;
    return trn_fail(
        err, TRN_ERR_ARGUMENT,
        "encoder '%s': setting %s=%s must be %d whole numbers from %lld to %lld, separated by commas",
        encoder->spec.name, settings[setting].key, text, HIERA_STAGES, (long long)min, (long long)max);
}

static trn_status configure_stages(const trn_encoder *encoder, hiera_config *config, trn_error *err)
{
    enum { MAX_DEPTH = 128 };
    int in_units[HIERA_STAGES];
    const char *name = encoder->spec.name;
    config->dim = trn_encoder_int(encoder, HIERA_DIM);
    config->heads = trn_encoder_int(encoder, HIERA_HEADS);
    config->q_pool = (int)trn_encoder_int(encoder, HIERA_Q_POOL);
    config->mlp_ratio = trn_encoder_real(encoder, HIERA_MLP_RATIO);
    config->eps = (float)trn_encoder_real(encoder, HIERA_EPS);
    if (config->dim % config->heads)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': dim=%lld is no multiple of heads=%lld", name,
                        (long long)config->dim, (long long)config->heads);
    trn_status status = trn_encoder_check_hidden(
        encoder, HIERA_MLP_RATIO, trn_encoder_hidden(encoder, HIERA_MLP_RATIO, config->dim), err);
    if (status == TRN_OK) status = read_stages(encoder, HIERA_DEPTHS, 1, MAX_DEPTH, config->depth, err);
    if (status == TRN_OK) status = read_stages(encoder, HIERA_MASK_UNIT_ATTN, 0, 1, in_units, err);
    for (int i = 0; status == TRN_OK && i < HIERA_STAGES; i++)
        config->unit_attention[i] = in_units[i];
    return status;
}

static trn_status configure_time(const trn_encoder *encoder, hiera_config *config, trn_error *err)
{
    int64_t separate = trn_encoder_int(encoder, HIERA_SEP_POS_EMBED);
    config->frames = (int)trn_encoder_int(encoder, HIERA_FRAMES);
    config->time_kernel = (int)trn_encoder_int(encoder, HIERA_TIME_KERNEL);
    config->time_stride = (int)trn_encoder_int(encoder, HIERA_TIME_STRIDE);
    config->time_padding = (int)trn_encoder_int(encoder, HIERA_TIME_PADDING);
    config->video = config->frames > 1;
    config->separate_positions = separate == SEPARATE_TRUE || (separate == SEPARATE_AUTO && config->video);
    config->own.steps = 1;
    if (!config->video) return TRN_OK;
    int free_frames = config->frames + 2 * config->time_padding - config->time_kernel;
    config->own.steps = free_frames / config->time_stride + 1;
    if (free_frames >= 0 && config->time_padding < config->time_kernel && config->own.steps <= MAX_FRAMES)
        return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "encoder '%s': time_kernel=%d with time_padding=%d and time_stride=%d does not fit %d "
                    "frames: the padding must be below the kernel, and 1 to %d steps come out",
                    encoder->spec.name, config->time_kernel, config->time_padding, config->time_stride,
                    config->frames, MAX_FRAMES);
}

static trn_status configure_outputs(const trn_encoder *encoder, hiera_config *config, trn_error *err)
{
    config->head = (hiera_head)trn_encoder_int(encoder, HIERA_HEAD);
    config->decoder = (hiera_decoder){.dim = trn_encoder_int(encoder, HIERA_DECODER_DIM),
                                      .depth = (int)trn_encoder_int(encoder, HIERA_DECODER_DEPTH),
                                      .heads = (int)trn_encoder_int(encoder, HIERA_DECODER_HEADS)};
    if (!strcmp(trn_encoder_text(encoder, HIERA_OUT_INDICES), "auto")) {
        config->chosen = (trn_out_indices){HIERA_STAGES, {0, 1, 2, 3}};
        return TRN_OK;
    }
    return trn_encoder_out_indices(encoder, HIERA_OUT_INDICES, HIERA_STAGES, &config->chosen, err);
}

static int last_stage(const hiera_config *config)
{
    return config->chosen.index[config->chosen.count - 1];
}

static int stride_of(const hiera_config *config, int stage)
{
    return HIERA_PATCH << trn_hiera_pools(config, stage);
}

static void fill_spec(const hiera_config *config, trn_grid_size size, trn_encoder_spec *spec)
{
    int last = last_stage(config);
    int64_t side = TRN_MIN(TRN_MAX(size.h, size.w), MAX_TILE);
    spec->needs_weights = true;
    spec->tile = (int)side / HIERA_UNIT_PIXELS * HIERA_UNIT_PIXELS;
    spec->side_multiple = HIERA_UNIT_PIXELS;
    spec->stride = config->chosen.count > 1 ? COMMON_STRIDE : stride_of(config, last);
    spec->channels = (int)(config->dim << last);
    spec->min_dates = spec->max_dates = config->frames;
}

static trn_status configure(trn_encoder *encoder, trn_error *err)
{
    static const trn_image_band_settings bands = {HIERA_IN_CHANS, HIERA_BANDS, HIERA_UNITS, HIERA_MEAN,
                                                  HIERA_STD};
    trn_grid_size size;
    hiera_config *config = trn_arena_alloc(encoder->arena, sizeof *config);
    if (!config) return trn_fail_memory(err, sizeof *config, "an encoder");
    *config = (hiera_config){0};
    trn_status status = configure_stages(encoder, config, err);
    if (status == TRN_OK) status = configure_time(encoder, config, err);
    if (status == TRN_OK) status = configure_outputs(encoder, config, err);
    if (status == TRN_OK)
        status = trn_encoder_image_size(encoder, HIERA_IMG_SIZE, HIERA_UNIT_PIXELS, &size, err);
    if (status != TRN_OK) return status;
    config->own.h = size.h / HIERA_PATCH;
    config->own.w = size.w / HIERA_PATCH;
    encoder->state = config;
    fill_spec(config, size, &encoder->spec);
    return trn_configure_image_bands(encoder, &bands, err);
}

/* ---- graph ---- */

/* Output of a stage in order of place: [B,steps*h*w,D] -> [B,h,w,D], or [B,steps,h,w,D] of series. */
static trn_tensor *in_place(const trn_build *build, const hiera_config *config, int stage, trn_tensor *tokens)
{
    trn_graph *graph = build->scope.graph;
    hiera_grid grid = trn_hiera_grid(config, build);
    int pools = trn_hiera_pools(config, stage);
    int64_t h = grid.h >> pools, w = grid.w >> pools, count = grid.steps * h * w;
    int32_t *index = malloc((size_t)count * sizeof *index);
    if (!index) return trn_graph_fail(graph, "no memory for the order of %lld tokens", (long long)count);
    trn_hiera_reroll(&grid, pools, index);
    trn_tensor *x = trn_hiera_pick(build, "rerolled", tokens, index, count);
    free(index);
    int64_t dim = trn_tensor_dim(tokens, -1);
    x = config->video ? trn_reshape(graph, x, TRN_SHAPE(build->batch, grid.steps, h, w, dim))
                      : trn_reshape(graph, x, TRN_SHAPE(build->batch, h, w, dim));
    trn_build_stage(build, x, "intermediate%d", stage);
    return x;
}

static void add_grids(const trn_build *build, const hiera_config *config, trn_tensor *const *stages,
                      trn_features *out)
{
    for (int i = 0; i < config->chosen.count; i++) {
        int stage = config->chosen.index[i];
        trn_tensor *x = in_place(build, config, stage, stages[stage]);
        if (config->video) x = trn_reduce(build->scope.graph, x, 1, TRN_REDUCE_MEAN, false);
        trn_features_grid(out, x, stride_of(config, stage), 0);
    }
}

/* Whether the weights hold the fusion of just this q_pool: heads for the pooled stages and no more. */
static bool has_fusion(const trn_build *build, const hiera_config *config)
{
    trn_scope heads = trn_scope_enter(&build->scope, "multi_scale_fusion_heads");
    char last[32], beyond[32];
    snprintf(last, sizeof last, "%d.weight", config->q_pool - 1);
    snprintf(beyond, sizeof beyond, "%d.weight", config->q_pool);
    return trn_scope_has(&build->scope, "encoder_norm.weight") &&
           (!config->q_pool || trn_scope_has(&heads, last)) && !trn_scope_has(&heads, beyond);
}

static hiera_head choose_head(const trn_build *build, const hiera_config *config)
{
    if (last_stage(config) != HIERA_STAGES - 1) return HIERA_HEAD_NONE;
    if (config->head != HIERA_HEAD_AUTO) return config->head;
    if (trn_scope_has(&build->scope, "norm.weight")) return HIERA_HEAD_NORM;
    if (has_fusion(build, config)) return HIERA_HEAD_FUSE;
    /* with neither norm a loader says that `norm` is missing */
    return trn_scope_has(&build->scope, "encoder_norm.weight") ? HIERA_HEAD_NONE : HIERA_HEAD_NORM;
}

static trn_tensor *pool_features(const trn_build *build, const hiera_config *config,
                                 trn_tensor *const *stages)
{
    hiera_head head = choose_head(build, config);
    trn_tensor *x = stages[last_stage(config)];
    if (head == HIERA_HEAD_FUSE) {
        x = trn_hiera_fuse(build, config, stages);
        trn_build_stage(build, x, "fused");
    }
    x = trn_tokens_mean(build, x, 0);
    trn_build_stage(build, x, "pool_mean");
    if (head != HIERA_HEAD_NORM) return x;
    x = trn_nn_layer_norm(&build->scope, "norm", x, config->eps);
    trn_build_stage(build, x, "pooled_norm");
    return x;
}

static void build_hiera(trn_encoder *encoder, const trn_build *build, trn_features *out)
{
    const hiera_config *config = encoder->state;
    trn_tensor *stages[HIERA_STAGES];
    hiera_grid grid = trn_hiera_grid(config, build);
    trn_tensor *tokens = trn_hiera_embed(build, config, build->x);
    trn_hiera_run(build, config, tokens, trn_hiera_units(&grid), last_stage(config), stages);
    if (build->options->pool == TRN_FEATURES_DENSE)
        add_grids(build, config, stages, out);
    else
        out->pooled = pool_features(build, config, stages);
}

static const char *const prefixes[] = {"encoder.", "backbone.", "model.", NULL};

const trn_family trn_family_hiera = {
    .name = "hiera",
    .settings = settings,
    .setting_count = HIERA_SETTINGS,
    .configs = configs,
    .config_count = TRN_COUNT(configs),
    .probe = "patch_embed.proj.weight",
    .prefixes = prefixes,
    .tiny = "img_size=64 dim=16 stages=1,2,1,1 out_indices=3",
    .configure = configure,
    .build = build_hiera,
    .masked = &hiera_masked_pair,
};
