/* SAM 2's image encoder: a Hiera trunk that keeps the image's grid and attends in windows of it, and the
 * feature pyramid over its stages.
 *
 * Dense features are the raw outputs of the stages, or the levels of the pyramid; pooled is the mean of the
 * last stage after a norm. The published files have no weights of that norm (SAM 2 has no such head), timm's
 * may: without them it is a plain layer norm, which is what timm starts from. */
#include "sam2.h"

#include <string.h>

enum {
    SAM_IMG_SIZE,
    SAM_DIM,
    SAM_HEADS,
    SAM_STAGES,
    SAM_Q_POOL,
    SAM_WINDOW_SPEC,
    SAM_GLOBAL_BLOCKS,
    SAM_POS_SIZE,
    SAM_MLP_RATIO,
    SAM_EPS,
    SAM_LAYER_SCALE,
    SAM_HEAD_NORM,
    SAM_NAMES,
    SAM_NECK,
    SAM_NECK_DIM,
    SAM_NECK_LEVELS,
    SAM_NECK_INTERPOLATION,
    SAM_NECK_FUSE,
    SAM_SCALP,
    SAM_OUT_INDICES,
    SAM_IN_CHANS,
    SAM_BANDS,
    SAM_UNIT,
    SAM_MEAN,
    SAM_STD,
    SAM_SETTINGS
};

enum { NAMES_AUTO, NAMES_OFFICIAL, NAMES_TIMM };
enum { NORM_AUTO, NORM_FALSE, NORM_TRUE };
enum { PATCH_SIDE = 7, PATCH_STRIDE = 4, PATCH_PADDING = 3 };
enum { MAX_STAGES = TRN_MAX_GRIDS, MAX_DEPTH = 256, MAX_WINDOW = 256, MAX_HEAD = 256 };
enum { MAX_TILE = 256, COMMON_STRIDE = 16 };

static const trn_setting_rule settings[SAM_SETTINGS] = {
    [SAM_IMG_SIZE] = {"img_size", TRN_SETTING_TEXT, "1024", 0, 0, NULL,
                      "pixels, side or HEIGHTxWIDTH, that the model was trained with; windows of any size "
                      "work, the natural one is no larger"},
    [SAM_DIM] = {"dim", TRN_SETTING_INT, "96", 1, 2048, NULL,
                 "channels of the first stage; each further one doubles them"},
    [SAM_HEADS] = {"heads", TRN_SETTING_INT, "1", 1, 64, NULL,
                   "attention heads of the first stage; each further one doubles them"},
    [SAM_STAGES] = {"stages", TRN_SETTING_TEXT, "1,2,7,2", 0, 0, NULL, "blocks of each stage, 1 to 4 stages"},
    [SAM_Q_POOL] = {"q_pool", TRN_SETTING_INT, "3", 0, MAX_STAGES - 1, NULL,
                    "stages, from the second on, that begin by halving the grid"},
    [SAM_WINDOW_SPEC] = {"window_spec", TRN_SETTING_TEXT, "8,4,14,7", 0, 0, NULL,
                         "side of the attention windows of each stage, in cells"},
    [SAM_GLOBAL_BLOCKS] = {"global_blocks", TRN_SETTING_TEXT, "none", 0, 0, NULL,
                           "blocks, from 0, that attend to the whole grid; none: every block has windows"},
    [SAM_POS_SIZE] = {"pos_size", TRN_SETTING_TEXT, "7x7", 0, 0, NULL,
                      "cells of the background table of positions, side or HEIGHTxWIDTH"},
    [SAM_MLP_RATIO] = {"mlp_ratio", TRN_SETTING_REAL, "4", 0.01, 64, NULL,
                       "hidden channels of the MLP, over the block's"},
    [SAM_EPS] = {"eps", TRN_SETTING_REAL, "1e-6", 1e-12, 1, NULL, "of the norms"},
    [SAM_LAYER_SCALE] = {"layer_scale", TRN_SETTING_CHOICE, "false", 0, 0, TRN_BOOL_CHOICES,
                         "ls1.gamma and ls2.gamma"},
    [SAM_HEAD_NORM] = {"head_norm", TRN_SETTING_CHOICE, "auto", 0, 0, "auto|false|true",
                       "weights of the norm after pooling; auto: when the checkpoint has head.norm, else the "
                       "norm is plain"},
    [SAM_NAMES] = {"names", TRN_SETTING_CHOICE, "auto", 0, 0, "auto|official|timm",
                   "of tensors: image_encoder.trunk.* with mlp.layers.0 and .1, or bare with mlp.fc1 and "
                   "mlp.fc2; auto: by the checkpoint"},
    [SAM_NECK] = {"neck", TRN_SETTING_CHOICE, "none", 0, 0, "none|fpn",
                  "dense features: the stages as they are, or the levels of the feature pyramid (official "
                  "files have it)"},
    [SAM_NECK_DIM] = {"neck_dim", TRN_SETTING_INT, "256", 4, 8192, NULL,
                      "channels of the pyramid, a multiple of 4"},
    [SAM_NECK_LEVELS] = {"neck_levels", TRN_SETTING_TEXT, "2,3", 0, 0, NULL,
                         "levels, from 0, that take part in the way down; or all, or none"},
    [SAM_NECK_INTERPOLATION] = {"neck_interpolation", TRN_SETTING_CHOICE, "nearest", 0, 0, "nearest|bilinear",
                                "how a deeper level is enlarged"},
    [SAM_NECK_FUSE] = {"neck_fuse", TRN_SETTING_CHOICE, "sum", 0, 0, "sum|avg",
                       "how a deeper level is added"},
    [SAM_SCALP] = {"scalp", TRN_SETTING_INT, "1", 0, MAX_STAGES - 1, NULL,
                   "deepest levels of the pyramid that are left out"},
    [SAM_OUT_INDICES] = {"out_indices", TRN_SETTING_TEXT, "auto", 0, 0, NULL,
                         "stages, or levels of the pyramid, from 0, that are the dense features; auto: all"},
    [SAM_IN_CHANS] = TRN_RULE_IN_CHANS,
    [SAM_BANDS] = TRN_RULE_BANDS,
    [SAM_UNIT] = TRN_RULE_UNIT,
    [SAM_MEAN] = TRN_RULE_MEAN,
    [SAM_STD] = TRN_RULE_STD,
};

#define LICENCE "Apache-2.0"
#define SOURCE "https://dl.fbaipublicfiles.com/segment_anything_2/"
#define TINY_VALUES "global_blocks=5,7,9"
#define SMALL_VALUES "stages=1,2,11,2 global_blocks=7,10,13"
#define BASE_PLUS_VALUES "dim=112 heads=2 stages=2,3,16,3 global_blocks=12,16,20 pos_size=14x14"
#define LARGE_VALUES "dim=144 heads=2 stages=2,6,36,4 window_spec=8,4,16,8 global_blocks=23,33,43"
#define CONFIG(name, title, file, parameters, values)                                                        \
    {                                                                                                        \
        {name, "sam2", title, LICENCE, SOURCE file, parameters, 0, NULL}, values, "model", NULL              \
    }

static const trn_model_config configs[] = {
    CONFIG("sam2.1-hiera-tiny", "SAM 2.1 Hiera-T", "092824/sam2.1_hiera_tiny.pt", 26849472, TINY_VALUES),
    CONFIG("sam2.1-hiera-small", "SAM 2.1 Hiera-S", "092824/sam2.1_hiera_small.pt", 33947328, SMALL_VALUES),
    CONFIG("sam2.1-hiera-base-plus", "SAM 2.1 Hiera-B+", "092824/sam2.1_hiera_base_plus.pt", 68675712,
           BASE_PLUS_VALUES),
    CONFIG("sam2.1-hiera-large", "SAM 2.1 Hiera-L", "092824/sam2.1_hiera_large.pt", 212149296, LARGE_VALUES),
    CONFIG("sam2-hiera-tiny", "SAM 2 Hiera-T", "072824/sam2_hiera_tiny.pt", 26849472, TINY_VALUES),
    CONFIG("sam2-hiera-small", "SAM 2 Hiera-S", "072824/sam2_hiera_small.pt", 33947328, SMALL_VALUES),
    CONFIG("sam2-hiera-base-plus", "SAM 2 Hiera-B+", "072824/sam2_hiera_base_plus.pt", 68675712,
           BASE_PLUS_VALUES),
    CONFIG("sam2-hiera-large", "SAM 2 Hiera-L", "072824/sam2_hiera_large.pt", 212149296, LARGE_VALUES),
};

/* What a block does. */
typedef struct block_plan {
    int stage, window; /* cells of a window's side; 0: the whole grid */
    bool pools, ends;  /* halves the grid; is the last of its stage */
    int heads;
    int64_t dim, dim_in;
} block_plan;

typedef struct sam2_state {
    int stage_count, depth;
    block_plan *blocks; /* [depth] */
    int first_window;   /* side of the table of positions within a window */
    trn_grid_size background;
    trn_out_indices chosen;
    bool has_neck;
    trn_sam2_neck neck;
} sam2_state;

/* ---- configuration ---- */

/* Whole numbers from low to high, separated by commas: at most max of them. */
static trn_status read_numbers(const trn_encoder *encoder, size_t setting, int low, int high, int max,
                               int *numbers, int *count, trn_error *err)
{
    const char *text = trn_encoder_text(encoder, setting), *parts[MAX_DEPTH];
    int n = trn_settings_list(encoder->arena, text, parts, TRN_MIN(max, MAX_DEPTH));
    bool ok = n >= 0;
    for (int i = 0; ok && i < n; i++) {
        int64_t value;
        ok = trn_parse_int(parts[i], &value) && value >= low && value <= high;
        if (ok) numbers[i] = (int)value;
    }
    *count = n;
    if (ok) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "encoder '%s': setting %s=%s must be at most %d whole numbers from %d to %d, separated "
                    "by commas",
                    encoder->spec.name, encoder->family->settings[setting].key, text, max, low, high);
}

/* Flags [count] of the numbers that a setting lists; "none" and, where it may be said, "all". */
static trn_status read_flags(const trn_encoder *encoder, size_t setting, bool may_be_all, int count,
                             bool *flags, trn_error *err)
{
    const char *text = trn_encoder_text(encoder, setting);
    int numbers[MAX_DEPTH], n = 0;
    bool all = may_be_all && !strcmp(text, "all");
    for (int i = 0; i < count; i++)
        flags[i] = all;
    if (all || !strcmp(text, "none")) return TRN_OK;
    trn_status status = read_numbers(encoder, setting, 0, count - 1, MAX_DEPTH, numbers, &n, err);
    for (int i = 0; status == TRN_OK && i < n; i++)
        flags[numbers[i]] = true;
    return status;
}

/* A window is measured before its block moves on to the next stage, on the grid it finds. */
static void plan_blocks(const trn_encoder *encoder, sam2_state *state, const int *stages, const int *windows,
                        const bool *global)
{
    int64_t dim = trn_encoder_int(encoder, SAM_DIM), pooled = trn_encoder_int(encoder, SAM_Q_POOL);
    int heads = (int)trn_encoder_int(encoder, SAM_HEADS), i = 0;
    for (int stage = 0; stage < state->stage_count; stage++)
        for (int k = 0; k < stages[stage]; k++, i++) {
            int before = stage && k == 0 ? stage - 1 : stage;
            state->blocks[i] = (block_plan){.stage = stage,
                                            .window = global[i] ? 0 : windows[before],
                                            .pools = before < stage && stage <= pooled,
                                            .ends = k == stages[stage] - 1,
                                            .heads = heads << stage,
                                            .dim = dim << stage,
                                            .dim_in = dim << before};
        }
}

static trn_status check_blocks(const trn_encoder *encoder, const sam2_state *state, trn_error *err)
{
    for (int i = 0; i < state->depth; i++) {
        const block_plan *plan = &state->blocks[i];
        if (!plan->pools) continue;
        if (!plan->window)
            return trn_fail(err, TRN_ERR_ARGUMENT,
                            "encoder '%s': block %d halves the grid, which needs windows: leave it out of "
                            "global_blocks=%s",
                            encoder->spec.name, i, trn_encoder_text(encoder, SAM_GLOBAL_BLOCKS));
        if (plan->window % 2)
            return trn_fail(err, TRN_ERR_ARGUMENT,
                            "encoder '%s': block %d halves the grid in windows of %d cells, and only even "
                            "ones can be halved: change window_spec=%s",
                            encoder->spec.name, i, plan->window, trn_encoder_text(encoder, SAM_WINDOW_SPEC));
    }
    return TRN_OK;
}

static trn_status configure_trunk(trn_encoder *encoder, sam2_state *state, trn_error *err)
{
    int stages[MAX_STAGES], windows[MAX_STAGES], window_count = 0;
    bool global[MAX_DEPTH];
    const char *name = encoder->spec.name;
    int64_t dim = trn_encoder_int(encoder, SAM_DIM), heads = trn_encoder_int(encoder, SAM_HEADS);
    if (dim % heads || dim / heads > MAX_HEAD)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': dim=%lld must be a multiple of heads=%lld, at most %d channels each",
                        name, (long long)dim, (long long)heads, MAX_HEAD);
    trn_status status = trn_encoder_check_hidden(encoder, SAM_MLP_RATIO,
                                                 trn_encoder_hidden(encoder, SAM_MLP_RATIO, dim), err);
    if (status == TRN_OK)
        status =
            read_numbers(encoder, SAM_STAGES, 1, MAX_DEPTH, MAX_STAGES, stages, &state->stage_count, err);
    if (status == TRN_OK)
        status =
            read_numbers(encoder, SAM_WINDOW_SPEC, 1, MAX_WINDOW, MAX_STAGES, windows, &window_count, err);
    if (status != TRN_OK) return status;
    for (int i = 0; i < state->stage_count; i++)
        state->depth += stages[i];
    if (!state->stage_count || state->depth > MAX_DEPTH)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': stages=%s must be 1 to %d blocks in all", name,
                        trn_encoder_text(encoder, SAM_STAGES), MAX_DEPTH);
    if (window_count != state->stage_count || trn_encoder_int(encoder, SAM_Q_POOL) >= state->stage_count)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': %d stages want %d numbers in window_spec=%s, and q_pool=%s below %d",
                        name, state->stage_count, state->stage_count,
                        trn_encoder_text(encoder, SAM_WINDOW_SPEC), trn_encoder_text(encoder, SAM_Q_POOL),
                        state->stage_count);
    status = read_flags(encoder, SAM_GLOBAL_BLOCKS, false, state->depth, global, err);
    if (status != TRN_OK) return status;
    state->first_window = windows[0];
    state->blocks = trn_arena_array(encoder->arena, (size_t)state->depth, sizeof *state->blocks);
    if (!state->blocks) return trn_fail_memory(err, (size_t)state->depth * sizeof *state->blocks, "blocks");
    plan_blocks(encoder, state, stages, windows, global);
    return check_blocks(encoder, state, err);
}

static trn_status configure_neck(trn_encoder *encoder, sam2_state *state, trn_error *err)
{
    trn_sam2_neck *neck = &state->neck;
    state->has_neck = trn_encoder_int(encoder, SAM_NECK) != 0;
    if (!state->has_neck) return TRN_OK;
    neck->levels = state->stage_count;
    neck->dim = trn_encoder_int(encoder, SAM_NECK_DIM);
    neck->bilinear = trn_encoder_int(encoder, SAM_NECK_INTERPOLATION) != 0;
    neck->average = trn_encoder_int(encoder, SAM_NECK_FUSE) != 0;
    if (neck->dim % 4)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': neck_dim=%lld is no multiple of 4",
                        encoder->spec.name, (long long)neck->dim);
    if (trn_encoder_int(encoder, SAM_SCALP) >= neck->levels)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': scalp=%s leaves none of %d levels",
                        encoder->spec.name, trn_encoder_text(encoder, SAM_SCALP), neck->levels);
    return read_flags(encoder, SAM_NECK_LEVELS, true, neck->levels, neck->top_down, err);
}

static trn_status configure_outputs(trn_encoder *encoder, sam2_state *state, trn_error *err)
{
    int64_t levels = state->stage_count - (state->has_neck ? trn_encoder_int(encoder, SAM_SCALP) : 0);
    if (strcmp(trn_encoder_text(encoder, SAM_OUT_INDICES), "auto"))
        return trn_encoder_out_indices(encoder, SAM_OUT_INDICES, levels, &state->chosen, err);
    state->chosen.count = (int)levels;
    for (int i = 0; i < (int)levels; i++)
        state->chosen.index[i] = i;
    return TRN_OK;
}

/* Windows to cover `cells`; window 0 is all of them. */
static int64_t windows_over(int64_t cells, int64_t window)
{
    return window > 0 ? (cells + window - 1) / window : 1;
}

/* Whether a block that halves `cells` in windows has as many windows after as before. */
static bool halves(int64_t cells, int window)
{
    return windows_over(cells, window) == windows_over(cells / 2, window / 2);
}

/* Whether a window of this side runs through the trunk; `whole`: and no attention window is padded. */
static bool side_suits(const sam2_state *state, int64_t side, bool whole)
{
    int64_t cells = side / PATCH_STRIDE;
    for (int i = 0; i < state->depth; i++) {
        const block_plan *plan = &state->blocks[i];
        if (whole && plan->window && cells % plan->window) return false;
        if (!plan->pools) continue;
        if (!halves(cells, plan->window)) return false;
        cells /= 2;
    }
    return true;
}

/* The largest side up to img_size and 256 whose attention windows are all full: 224 where the third stage has
 * 14 cells, 256 where it has 16. Padded windows are right as well, but cost more than they give. */
static trn_status choose_tile(trn_encoder *encoder, const sam2_state *state, trn_error *err)
{
    trn_grid_size size;
    trn_status status = trn_encoder_image_size(encoder, SAM_IMG_SIZE, 1, &size, err);
    if (status != TRN_OK) return status;
    int64_t step = encoder->spec.side_multiple;
    int64_t most = TRN_MAX(TRN_MIN(TRN_MAX(size.h, size.w), MAX_TILE) / step * step, step);
    for (int whole = 1; whole >= 0; whole--)
        for (int64_t side = most; side >= step; side -= step) {
            if (!side_suits(state, side, whole)) continue;
            encoder->spec.tile = (int)side;
            return TRN_OK;
        }
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "encoder '%s': no window of up to %lld pixels can be halved %s times in windows of %s "
                    "cells: change img_size or window_spec",
                    encoder->spec.name, (long long)most, trn_encoder_text(encoder, SAM_Q_POOL),
                    trn_encoder_text(encoder, SAM_WINDOW_SPEC));
}

/* Pixels per cell of a stage. */
static int stage_stride(const sam2_state *state, int stage)
{
    int stride = PATCH_STRIDE;
    for (int i = 0; i < state->depth && state->blocks[i].stage <= stage; i++)
        stride <<= state->blocks[i].pools;
    return stride;
}

static trn_status configure(trn_encoder *encoder, trn_error *err)
{
    static const trn_image_band_settings bands = {SAM_IN_CHANS, SAM_BANDS, SAM_UNIT, SAM_MEAN, SAM_STD};
    sam2_state *state = trn_arena_alloc(encoder->arena, sizeof *state);
    if (!state) return trn_fail_memory(err, sizeof *state, "an encoder");
    *state = (sam2_state){0};
    trn_status status = trn_encoder_image_size(encoder, SAM_POS_SIZE, 1, &state->background, err);
    if (status == TRN_OK) status = configure_trunk(encoder, state, err);
    if (status == TRN_OK) status = configure_neck(encoder, state, err);
    if (status == TRN_OK) status = configure_outputs(encoder, state, err);
    if (status != TRN_OK) return status;
    encoder->state = state;
    trn_encoder_spec *spec = &encoder->spec;
    spec->needs_weights = true;
    spec->side_multiple = PATCH_STRIDE * state->first_window; /* positions repeat by whole windows */
    spec->stride = state->chosen.count > 1 ? COMMON_STRIDE : stage_stride(state, state->chosen.index[0]);
    spec->channels = (int)state->blocks[state->depth - 1].dim;
    status = choose_tile(encoder, state, err);
    return status == TRN_OK ? trn_configure_image_bands(encoder, &bands, err) : status;
}

/* ---- names ---- */

/* The first place below which the checkpoint has the probe; `usual` when it has it nowhere. */
static trn_scope find_place(const trn_scope *root, const char *const *places, size_t count, const char *probe,
                            const char *usual)
{
    for (size_t i = 0; i < count; i++) {
        trn_scope scope = trn_scope_enter(root, "%s", places[i]);
        if (trn_scope_has(&scope, probe)) return scope;
    }
    return *usual ? trn_scope_enter(root, "%s", usual) : *root;
}

static trn_scope trunk_scope(const trn_encoder *encoder, const trn_build *build)
{
    static const char *const places[] = {"image_encoder.trunk", "trunk"};
    bool official = trn_encoder_int(encoder, SAM_NAMES) == NAMES_OFFICIAL;
    const trn_scope *root = &build->scope;
    if (trn_scope_has(root, "patch_embed.proj.weight")) return *root;
    return find_place(root, places, TRN_COUNT(places), "patch_embed.proj.weight", official ? places[0] : "");
}

static trn_scope neck_scope(const trn_encoder *encoder, const trn_build *build)
{
    static const char *const places[] = {"image_encoder.neck", "neck"};
    bool official = trn_encoder_int(encoder, SAM_NAMES) == NAMES_OFFICIAL;
    return find_place(&build->scope, places, TRN_COUNT(places), "convs.0.conv.weight",
                      places[official ? 0 : 1]);
}

static bool has_official_mlp(const trn_encoder *encoder, const trn_scope *trunk)
{
    int64_t names = trn_encoder_int(encoder, SAM_NAMES);
    if (names != NAMES_AUTO) return names == NAMES_OFFICIAL;
    return trn_scope_has(trunk, "blocks.0.mlp.layers.0.weight");
}

/* ---- graph ---- */

/* Positions [1,h,w,C]: a background table, enlarged, and one of a window, repeated. */
static trn_tensor *position_table(const trn_encoder *encoder, const trn_scope *trunk, trn_grid_size size)
{
    const sam2_state *state = encoder->state;
    trn_graph *graph = trunk->graph;
    int64_t dim = trn_encoder_int(encoder, SAM_DIM), side = state->first_window;
    trn_resize_desc bicubic = {.mode = TRN_RESIZE_BICUBIC};
    trn_tensor *far =
        trn_scope_param(trunk, "pos_embed", TRN_SHAPE(1, dim, state->background.h, state->background.w));
    trn_tensor *near = trn_scope_param(trunk, "pos_embed_window", TRN_SHAPE(1, dim, side, side));
    far = trn_resize2d(graph, far, 2, (int)size.h, (int)size.w, &bicubic);
    near = trn_reshape(graph, near, TRN_SHAPE(dim, 1, side, 1, side));
    near = trn_expand(graph, near, TRN_SHAPE(dim, size.h / side, side, size.w / side, side));
    near = trn_reshape(graph, near, TRN_SHAPE(1, dim, size.h, size.w));
    return trn_permute(graph, trn_add(graph, far, near), (int[]){0, 2, 3, 1});
}

/* image -> grid [B,h/4,w/4,C] with positions */
static trn_tensor *embed(const trn_encoder *encoder, const trn_build *build, const trn_scope *trunk)
{
    int64_t dim = trn_encoder_int(encoder, SAM_DIM);
    trn_graph *graph = trunk->graph;
    trn_scope scope = trn_scope_enter(trunk, "patch_embed.proj");
    trn_grid_size size = {build->height / PATCH_STRIDE, build->width / PATCH_STRIDE};
    trn_conv_desc conv = {.stride = {1, PATCH_STRIDE, PATCH_STRIDE},
                          .padding = {0, PATCH_PADDING, PATCH_PADDING}};
    trn_tensor *w = trn_scope_param(&scope, "weight",
                                    TRN_SHAPE(dim, trn_tensor_dim(build->x, 1), PATCH_SIDE, PATCH_SIDE));
    trn_tensor *b = trn_scope_param(&scope, "bias", TRN_SHAPE(dim));
    trn_tensor *x = trn_conv_tokens(graph, build->x, w, b, &conv);
    x = trn_reshape(graph, x, TRN_SHAPE(build->batch, size.h, size.w, dim));
    trn_build_stage(build, x, "patch_embed");
    trn_tensor *positions = position_table(encoder, trunk, size);
    trn_build_stage(build, positions, "pos_table");
    x = trn_add(graph, x, positions);
    trn_build_stage(build, x, "tokens_in");
    return x;
}

/* How a grid is cut into windows, and put together again. */
typedef struct cut {
    int64_t batch, rows, columns; /* windows down and across */
    int64_t h, w;                 /* cells of a window */
} cut;

static cut cut_of(const block_plan *plan, const trn_tensor *x)
{
    int64_t b = trn_tensor_dim(x, 0), h = trn_tensor_dim(x, 1), w = trn_tensor_dim(x, 2);
    if (!plan->window) return (cut){b, 1, 1, h, w};
    return (cut){b, windows_over(h, plan->window), windows_over(w, plan->window), plan->window, plan->window};
}

static trn_tensor *pad_to(trn_graph *graph, trn_tensor *x, int axis, int64_t size)
{
    int64_t has = trn_tensor_dim(x, axis);
    return has < size ? trn_pad(graph, x, axis, 0, size - has) : x;
}

static trn_tensor *crop_to(trn_graph *graph, trn_tensor *x, int axis, int64_t size)
{
    return trn_tensor_dim(x, axis) > size ? trn_slice(graph, x, axis, 0, size) : x;
}

/* [B,h,w,D] -> [windows, cells of one, D]; what lies past the grid is 0 */
static trn_tensor *cut_windows(trn_graph *graph, trn_tensor *x, const cut *c)
{
    int64_t dim = trn_tensor_dim(x, 3);
    x = pad_to(graph, x, 1, c->rows * c->h);
    x = pad_to(graph, x, 2, c->columns * c->w);
    if (c->rows * c->columns > 1) {
        x = trn_reshape(graph, x, TRN_SHAPE(c->batch, c->rows, c->h, c->columns, c->w, dim));
        x = trn_permute(graph, x, (int[]){0, 1, 3, 2, 4, 5});
    }
    return trn_reshape(graph, x, TRN_SHAPE(c->batch * c->rows * c->columns, c->h * c->w, dim));
}

/* [windows, cells of one, D] -> [B,h,w,D] of the size given */
static trn_tensor *join_windows(trn_graph *graph, trn_tensor *x, const cut *c, trn_grid_size size)
{
    int64_t dim = trn_tensor_dim(x, 2);
    if (c->rows * c->columns > 1) {
        x = trn_reshape(graph, x, TRN_SHAPE(c->batch, c->rows, c->columns, c->h, c->w, dim));
        x = trn_permute(graph, x, (int[]){0, 1, 3, 2, 4, 5});
    }
    x = trn_reshape(graph, x, TRN_SHAPE(c->batch, c->rows * c->h, c->columns * c->w, dim));
    return crop_to(graph, crop_to(graph, x, 1, size.h), 2, size.w);
}

/* Attention whose queries are the maxima of 2x2 cells: x [windows, h*w, D] -> [windows, h*w/4, E] */
static trn_tensor *pooled_attention(const trn_scope *scope, trn_tensor *x, const block_plan *plan,
                                    const cut *c)
{
    trn_graph *graph = scope->graph;
    int64_t windows = trn_tensor_dim(x, 0), keys = c->h * c->w, queries = keys / 4;
    int64_t dim = plan->dim, head = dim / plan->heads;
    trn_tensor *parts[2]; /* queries before they are pooled; keys and values */
    trn_nn_linear_cut(scope, "qkv", x, 3 * dim, dim, parts);
    if (!parts[0]) return NULL;
    trn_tensor *q = parts[0], *kv = parts[1];
    q = trn_pool2d(graph, trn_reshape(graph, q, TRN_SHAPE(windows, c->h, c->w, dim)), 1, TRN_POOL_MAX, 2, 2);
    trn_heads_layout packed = {.outer = keys * 2 * dim, .head = head, .row = 2 * dim};
    trn_heads_layout plain = {.outer = queries * dim, .head = head, .row = dim};
    trn_attention_desc desc = {.outer = (int)windows,
                               .windows = 1,
                               .heads = plan->heads,
                               .queries = (int)queries,
                               .keys = (int)keys,
                               .head_size = (int)head,
                               .q = plain,
                               .k = packed,
                               .v = packed,
                               .out = plain,
                               .out_shape = TRN_SHAPE(windows, queries, dim)};
    desc.v.offset = dim;
    return trn_attention(graph, q, kv, kv, NULL, &desc);
}

/* x [B,h,w,D], normed -> [B,h',w',E] of the size given */
static trn_tensor *attend(const trn_build *build, const trn_scope *block, trn_tensor *x,
                          const block_plan *plan, int index, trn_grid_size size)
{
    if (!x) return NULL;
    trn_graph *graph = block->graph;
    trn_scope scope = trn_scope_enter(block, "attn");
    cut c = cut_of(plan, x);
    x = cut_windows(graph, x, &c);
    trn_build_stage(build, x, "block%02d_windows_in", index);
    if (plan->pools) {
        x = pooled_attention(&scope, x, plan, &c);
        c.h /= 2;
        c.w /= 2;
    } else {
        x = trn_nn_linear(&scope, "qkv", x, 3 * plan->dim, true);
        x = trn_self_attention(graph, x, plan->heads, NULL);
    }
    x = trn_nn_linear(&scope, "proj", x, plan->dim, true);
    if (!x) return NULL;
    trn_build_stage(build, x, "block%02d_windows_out", index);
    return trn_nn_block_dropout(&scope, "proj_drop", join_windows(graph, x, &c, size));
}

static trn_tensor *scaled(const trn_encoder *encoder, const trn_scope *block, const char *name, trn_tensor *x)
{
    if (!trn_encoder_int(encoder, SAM_LAYER_SCALE)) return x;
    return trn_mul(block->graph, x, trn_scope_param(block, name, TRN_SHAPE(trn_tensor_dim(x, -1))));
}

static trn_tensor *mlp(const trn_encoder *encoder, const trn_scope *block, trn_tensor *x, bool official)
{
    if (!x) return NULL;
    int64_t dim = trn_tensor_dim(x, -1);
    int64_t hidden = trn_encoder_hidden(encoder, SAM_MLP_RATIO, dim);
    trn_scope scope = trn_scope_enter(block, "mlp");
    if (!official) return trn_nn_mlp(&scope, x, hidden);
    x = trn_nn_linear(&scope, "layers.0", x, hidden, true);
    x = trn_nn_block_dropout(&scope, "drop1", trn_unary(scope.graph, "gelu", x));
    return trn_nn_block_dropout(&scope, "drop2", trn_nn_linear(&scope, "layers.1", x, dim, true));
}

/* What goes around the attention, from x and its norm: [B,h',w',E] */
static trn_tensor *shortcut_of(const trn_scope *block, trn_tensor *x, trn_tensor *normed,
                               const block_plan *plan)
{
    if (plan->dim == plan->dim_in) return x;
    x = trn_nn_linear(block, "proj", normed, plan->dim, true);
    return plan->pools ? trn_pool2d(block->graph, x, 1, TRN_POOL_MAX, 2, 2) : x;
}

static trn_tensor *build_block(const trn_encoder *encoder, const trn_build *build, const trn_scope *trunk,
                               trn_tensor *x, int index, bool official)
{
    const block_plan *plan = &((const sam2_state *)encoder->state)->blocks[index];
    trn_graph *graph = trunk->graph;
    trn_scope block = trn_scope_enter(trunk, "blocks.%d", index);
    float eps = (float)trn_encoder_real(encoder, SAM_EPS);
    int64_t h = trn_tensor_dim(x, 1), w = trn_tensor_dim(x, 2);
    if (x && plan->pools && !(halves(h, plan->window) && halves(w, plan->window)))
        return trn_graph_fail(graph,
                              "block %d cannot halve a grid of %lldx%lld cells in windows of %d: choose "
                              "sides that halve evenly at every stage",
                              index, (long long)h, (long long)w, plan->window);
    float drop_path = trn_drop_path_at(trunk, index, ((const sam2_state *)encoder->state)->depth);
    trn_graph_block_begin(graph);
    trn_tensor *normed = trn_nn_layer_norm(&block, "norm1", x, eps);
    x = shortcut_of(&block, x, normed, plan);
    trn_grid_size size = {trn_tensor_dim(x, 1), trn_tensor_dim(x, 2)};
    trn_tensor *y = attend(build, &block, normed, plan, index, size);
    y = scaled(encoder, &block, "ls1.gamma", y);
    x = trn_add(graph, x, trn_nn_drop_path(&block, "drop_path1", y, drop_path));
    y = mlp(encoder, &block, trn_nn_layer_norm(&block, "norm2", x, eps), official);
    y = scaled(encoder, &block, "ls2.gamma", y);
    x = trn_add(graph, x, trn_nn_drop_path(&block, "drop_path2", y, drop_path));
    trn_graph_block_end(graph);
    trn_graph_scope(graph, NULL);
    trn_build_stage(build, x, "block%02d", index);
    return x;
}

/* Mean over the last stage, normed: [B,C] */
static trn_tensor *pool(const trn_encoder *encoder, const trn_build *build, const trn_scope *trunk,
                        trn_tensor *x)
{
    trn_graph *graph = trunk->graph;
    int64_t has = trn_encoder_int(encoder, SAM_HEAD_NORM);
    float eps = (float)trn_encoder_real(encoder, SAM_EPS);
    int64_t cells = trn_tensor_dim(x, 1) * trn_tensor_dim(x, 2), dim = trn_tensor_dim(x, 3);
    x = trn_tokens_mean(build, trn_reshape(graph, x, TRN_SHAPE(build->batch, cells, dim)), 0);
    trn_build_stage(build, x, "pool_mean");
    if (has == NORM_TRUE || (has == NORM_AUTO && trn_scope_has(trunk, "head.norm.weight")))
        x = trn_nn_layer_norm(trunk, "head.norm", x, eps);
    else
        x = trn_layer_norm(graph, x, NULL, NULL, eps);
    trn_build_stage(build, x, "pooled_norm");
    return x;
}

static void add_grids(const trn_encoder *encoder, const trn_build *build, trn_tensor *const *stages,
                      trn_features *out)
{
    const sam2_state *state = encoder->state;
    trn_tensor *levels[MAX_STAGES];
    if (state->has_neck) {
        trn_scope scope = neck_scope(encoder, build);
        trn_sam2_build_neck(build, &scope, &state->neck, stages, levels);
        stages = levels;
    }
    for (int i = 0; i < state->chosen.count; i++) {
        int stage = state->chosen.index[i];
        trn_features_grid(out, stages[stage], stage_stride(state, stage), 0);
    }
}

static void build_sam2(trn_encoder *encoder, const trn_build *build, trn_features *out)
{
    const sam2_state *state = encoder->state;
    trn_tensor *stages[MAX_STAGES] = {NULL};
    trn_scope trunk = trunk_scope(encoder, build);
    bool dense = build->options->pool == TRN_FEATURES_DENSE, official = has_official_mlp(encoder, &trunk);
    int last = state->stage_count - 1;
    if (dense && !state->has_neck) last = state->chosen.index[state->chosen.count - 1];
    trn_tensor *x = embed(encoder, build, &trunk);
    for (int i = 0; x && i < state->depth && state->blocks[i].stage <= last; i++) {
        x = build_block(encoder, build, &trunk, x, i, official);
        if (!state->blocks[i].ends) continue;
        stages[state->blocks[i].stage] = x;
        trn_sam2_stage(build, x, "stage", state->blocks[i].stage);
    }
    if (dense)
        add_grids(encoder, build, stages, out);
    else if (x)
        out->pooled = pool(encoder, build, &trunk, x);
}

static const char *const prefixes[] = {"backbone.", "encoder.", "model.", "visual.", NULL};

const trn_family trn_family_sam2 = {
    .name = "sam2",
    .settings = settings,
    .setting_count = SAM_SETTINGS,
    .configs = configs,
    .config_count = TRN_COUNT(configs),
    .probe = "patch_embed.proj.weight",
    .prefixes = prefixes,
    .tiny = "img_size=64 dim=16 heads=1 stages=1,1,2,1 window_spec=8,4,6,3 global_blocks=3 pos_size=3x5 "
            "layer_scale=true out_indices=3",
    .made_up = "names=official",
    .configure = configure,
    .build = build_sam2,
};
