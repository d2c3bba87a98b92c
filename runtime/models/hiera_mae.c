/* Hiera under a mask, and the masked autoencoder that pretrains it. */
#include "hiera.h"

#include <stdlib.h>

/* ---- tables of a mask ---- */

/* Units that every sample keeps; 0 when the samples do not agree. */
static int64_t count_kept(int64_t batch, int64_t units, const uint8_t *keep)
{
    int64_t kept = 0;
    for (int64_t b = 0; b < batch; b++) {
        int64_t count = 0;
        for (int64_t u = 0; u < units; u++)
            count += keep[b * units + u] != 0;
        if (b && count != kept) return 0;
        kept = count;
    }
    return kept;
}

/* Tokens of sample b that stay: whole runs of the kept units, in their order. */
static void fill_tokens(const hiera_mask_tables *t, int64_t b, const uint8_t *keep)
{
    int64_t area = HIERA_UNIT * HIERA_UNIT;
    int32_t *next = t->tokens + b * area * t->kept;
    for (int64_t i = 0; i < area; i++)
        for (int64_t u = 0; u < t->units; u++)
            if (keep[u]) *next++ = (int32_t)((b * area + i) * t->units + u);
}

/* Which row of the latent, in unrolled order, is each cell's: row-major cells of the decoder's grid. */
static int32_t *fill_cells(const hiera_mask_tables *t, const hiera_grid *grid, int pools, int64_t b,
                           const uint8_t *keep, const int32_t *cell_place, int32_t *hidden)
{
    int64_t area = (int64_t)(HIERA_UNIT >> pools) * (HIERA_UNIT >> pools);
    int64_t units = trn_hiera_units(grid), absent = t->batch * area * t->kept;
    for (int64_t i = 0; i < t->cells; i++) {
        int64_t unit = cell_place[i] % units, within = cell_place[i] / units, rank = 0;
        for (int64_t u = 0; u < unit; u++)
            rank += keep[u] != 0;
        int64_t row = (b * area + within) * t->kept + rank;
        t->spread[b * t->cells + i] = (int32_t)(keep[unit] ? row : absent);
        if (!keep[unit]) *hidden++ = (int32_t)(b * t->cells + i);
    }
    return hidden;
}

static trn_status allocate(hiera_mask_tables *t, const hiera_grid *grid, int pools, trn_arena *arena,
                           int32_t **cell_place, trn_error *err)
{
    int64_t area = HIERA_UNIT * HIERA_UNIT, cell_area = area >> (2 * pools);
    if (t->units > INT32_MAX / area || t->batch > INT32_MAX / (area * t->units) - 1)
        return trn_fail(err, TRN_ERR_ARGUMENT, "a mask of %lld samples of %lld units has too many tokens",
                        (long long)t->batch, (long long)t->units);
    t->cells = grid->steps * (grid->h >> pools) * (grid->w >> pools);
    t->token_count = t->batch * t->kept * area;
    t->hidden_count = t->batch * (t->units - t->kept) * cell_area;
    t->pixels = trn_arena_array(arena, (size_t)(t->batch * t->units), sizeof *t->pixels);
    t->tokens = trn_arena_array(arena, (size_t)t->token_count, sizeof *t->tokens);
    t->spread = trn_arena_array(arena, (size_t)(t->batch * t->cells), sizeof *t->spread);
    t->hidden = trn_arena_array(arena, (size_t)t->hidden_count + 1, sizeof *t->hidden);
    *cell_place = trn_arena_array(arena, (size_t)t->cells, sizeof **cell_place);
    if (t->pixels && t->tokens && t->spread && t->hidden && *cell_place) return TRN_OK;
    return trn_fail_memory(err, (size_t)t->token_count * sizeof *t->tokens, "a mask");
}

trn_status trn_hiera_mask_make(const hiera_config *config, const hiera_grid *grid, int64_t batch,
                               const uint8_t *keep, trn_arena *arena, hiera_mask_tables *out, trn_error *err)
{
    int32_t *cell_place = NULL, *hidden;
    *out = (hiera_mask_tables){.batch = batch, .units = trn_hiera_units(grid)};
    out->kept = batch >= 1 ? count_kept(batch, out->units, keep) : 0;
    if (!out->kept)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "a mask must keep at least one of the %lld units, and as many in every sample",
                        (long long)out->units);
    trn_status status = allocate(out, grid, config->q_pool, arena, &cell_place, err);
    if (status != TRN_OK) return status;
    trn_hiera_reroll(grid, config->q_pool, cell_place);
    hidden = out->hidden;
    for (int64_t i = 0; i < batch * out->units; i++)
        out->pixels[i] = keep[i] ? 1.0F : 0.0F;
    for (int64_t b = 0; b < batch; b++) {
        const uint8_t *mine = keep + b * out->units;
        fill_tokens(out, b, mine);
        hidden = fill_cells(out, grid, config->q_pool, b, mine, cell_place, hidden);
    }
    return TRN_OK;
}

hiera_mask trn_hiera_mask_constants(trn_graph *graph, const hiera_mask_tables *t)
{
    hiera_mask mask = {.kept = t->kept, .hidden_count = t->hidden_count};
    mask.pixels = trn_constant(graph, "mask.pixels", TRN_SHAPE(t->batch, t->units), t->pixels);
    mask.tokens = trn_constant_int(graph, "mask.tokens", TRN_SHAPE(t->token_count), t->tokens);
    mask.spread = trn_constant_int(graph, "mask.spread", TRN_SHAPE(t->batch * t->cells), t->spread);
    if (t->hidden_count)
        mask.hidden = trn_constant_int(graph, "mask.hidden", TRN_SHAPE(t->hidden_count), t->hidden);
    return mask;
}

/* ---- the encoder of what stays ---- */

/* The image with its hidden units at 0. A step in time stands for time_stride frames. */
static trn_tensor *hide_pixels(const trn_build *build, const hiera_config *config, const hiera_mask *mask)
{
    trn_graph *graph = build->scope.graph;
    hiera_grid grid = trn_hiera_grid(config, build);
    int64_t rows = grid.h / HIERA_UNIT, columns = grid.w / HIERA_UNIT, side = HIERA_UNIT_PIXELS;
    int64_t images = build->batch * grid.steps, planes = trn_tensor_dim(build->x, -3);
    if (config->video && grid.steps * config->time_stride != build->dates)
        return trn_graph_fail(graph, "a mask wants a number of frames that is a multiple of time_stride=%d",
                              config->time_stride);
    if (config->video) planes *= config->time_stride;
    trn_tensor *keep = trn_reshape(graph, mask->pixels, TRN_SHAPE(images, 1, rows, 1, columns, 1));
    trn_tensor *x = trn_reshape(graph, build->x, TRN_SHAPE(images, planes, rows, side, columns, side));
    x = trn_mul(graph, x, keep);
    return x ? trn_reshape(graph, x, *trn_tensor_shape(build->x)) : NULL;
}

trn_tensor *trn_hiera_masked_units(const trn_build *build, const hiera_config *config, const hiera_mask *mask,
                                   int stage, trn_tensor *tokens)
{
    trn_graph *graph = build->scope.graph;
    int pools = trn_hiera_pools(config, stage);
    int64_t side = HIERA_UNIT >> pools, count = mask->kept * side * side;
    int32_t *index = malloc((size_t)count * sizeof *index);
    if (!index) return trn_graph_fail(graph, "no memory for the order of %lld tokens", (long long)count);
    trn_hiera_reroll_units(mask->kept, pools, index);
    trn_tensor *x = trn_hiera_pick(build, "rerolled", tokens, index, count);
    free(index);
    return trn_reshape(graph, x, TRN_SHAPE(build->batch, mask->kept, side, side, trn_tensor_dim(tokens, -1)));
}

void trn_hiera_build_masked(const trn_build *build, const hiera_config *config, const hiera_mask *mask,
                            hiera_masked *out)
{
    trn_graph *graph = build->scope.graph;
    *out = (hiera_masked){0};
    trn_tensor *x = trn_hiera_embed(build, config, hide_pixels(build, config, mask));
    if (!x) return;
    int64_t tokens = trn_tensor_dim(x, 1), kept = mask->kept * HIERA_UNIT * HIERA_UNIT;
    x = trn_reshape(graph, x, TRN_SHAPE(build->batch * tokens, config->dim));
    x = trn_gather(graph, x, 0, mask->tokens);
    x = trn_reshape(graph, x, TRN_SHAPE(build->batch, kept, config->dim));
    trn_hiera_run(build, config, x, mask->kept, HIERA_LEVELS, out->stages);
    out->tokens = out->stages[HIERA_LEVELS];
    trn_build_stage(build, out->tokens, "output");
    for (int stage = 0; build->stage && stage < HIERA_STAGES; stage++)
        trn_build_stage(build, trn_hiera_masked_units(build, config, mask, stage, out->stages[stage]),
                        "intermediate%d", stage);
}

/* ---- the autoencoder ---- */

/* latent [B, area*kept, D] -> what is known of every cell, or the mask token, in order of place. */
static trn_tensor *spread_latent(const trn_build *build, const hiera_config *config,
                                 const hiera_decoder *decoder, const hiera_mask *mask, trn_tensor *latent)
{
    trn_graph *graph = build->scope.graph;
    int64_t rows = build->batch * trn_tensor_dim(latent, 1), dim = decoder->dim;
    hiera_grid grid = trn_hiera_grid(config, build), own = config->own;
    trn_tensor *x = trn_nn_linear(&build->scope, "decoder_embed", latent, dim, true);
    trn_tensor *token = trn_scope_param(&build->scope, "mask_token", TRN_SHAPE(1, 1, dim));
    trn_tensor *parts[] = {trn_reshape(graph, x, TRN_SHAPE(rows, dim)),
                           trn_reshape(graph, token, TRN_SHAPE(1, dim))};
    x = trn_gather(graph, trn_concat(graph, parts, 2, 0), 0, mask->spread);
    grid.h >>= config->q_pool;
    grid.w >>= config->q_pool;
    own.h >>= config->q_pool;
    own.w >>= config->q_pool;
    x = trn_reshape(graph, x, TRN_SHAPE(build->batch, grid.steps * grid.h * grid.w, dim));
    return trn_add(graph, x, trn_hiera_positions(build, "decoder_pos_embed", &own, &grid, dim));
}

/* image [B,C,h,w] -> [B,cells,C*side*side], each cell less its mean and over its deviation */
static void add_wanted(const trn_build *build, int64_t side, hiera_mae *out)
{
    static const int order[] = {0, 2, 4, 1, 3, 5};
    trn_graph *graph = build->scope.graph;
    int64_t rows = build->height / side, columns = build->width / side,
            channels = trn_tensor_dim(build->x, 1);
    int64_t values = channels * side * side;
    trn_tensor *x =
        trn_reshape(graph, build->x, TRN_SHAPE(build->batch, channels, rows, side, columns, side));
    x = trn_reshape(graph, trn_permute(graph, x, order), TRN_SHAPE(build->batch, rows * columns, values));
    out->mean = trn_reduce(graph, x, 2, TRN_REDUCE_MEAN, true);
    x = trn_sub(graph, x, out->mean);
    trn_tensor *variance = trn_reduce(graph, trn_mul(graph, x, x), 2, TRN_REDUCE_SUM, true);
    variance = trn_affine(graph, variance, 1.0F / (float)(values - 1), 1e-6F);
    out->deviation = trn_unary(graph, "sqrt", variance);
    out->wanted = trn_div(graph, x, out->deviation);
}

static trn_tensor *hidden_rows(const trn_build *build, const hiera_mask *mask, trn_tensor *x)
{
    trn_graph *graph = build->scope.graph;
    int64_t cells = trn_tensor_dim(x, 1), values = trn_tensor_dim(x, 2);
    x = trn_reshape(graph, x, TRN_SHAPE(build->batch * cells, values));
    return trn_gather(graph, x, 0, mask->hidden);
}

static void add_loss(const trn_build *build, const hiera_mask *mask, hiera_mae *out)
{
    trn_graph *graph = build->scope.graph;
    out->predicted_hidden = hidden_rows(build, mask, out->predicted);
    trn_build_stage(build, out->predicted_hidden, "pred_masked");
    if (!out->wanted) return;
    out->wanted_hidden = hidden_rows(build, mask, out->wanted);
    trn_build_stage(build, out->wanted_hidden, "label_masked");
    trn_tensor *x = trn_sub(graph, out->predicted_hidden, out->wanted_hidden);
    x = trn_reduce(graph, trn_mul(graph, x, x), 1, TRN_REDUCE_MEAN, true);
    out->loss = trn_reduce(graph, x, 0, TRN_REDUCE_MEAN, true);
    trn_build_stage(build, out->loss, "loss");
}

void trn_hiera_build_mae(const trn_build *build, const hiera_config *config, const hiera_decoder *decoder,
                         const hiera_mask *mask, hiera_mae *out)
{
    hiera_masked encoded;
    int64_t side = HIERA_PATCH << config->q_pool, channels = trn_tensor_dim(build->x, -3);
    trn_block_desc block = {.heads = decoder->heads,
                            .hidden = (int64_t)((double)decoder->dim * config->mlp_ratio),
                            .eps = config->eps};
    *out = (hiera_mae){0};
    trn_hiera_build_masked(build, config, mask, &encoded);
    if (!encoded.tokens) return;
    trn_tensor *x = trn_hiera_fuse(build, config, encoded.stages);
    out->latent = trn_hiera_masked_units(build, config, mask, HIERA_LEVELS, x);
    trn_build_stage(build, out->latent, "latent");
    x = spread_latent(build, config, decoder, mask, x);
    for (int i = 0; i < decoder->depth; i++) {
        trn_scope scope = trn_scope_enter(&build->scope, "decoder_blocks.%d", i);
        x = trn_nn_block(&scope, x, &block);
    }
    x = trn_nn_layer_norm(&build->scope, "decoder_norm", x, config->eps);
    out->predicted = trn_nn_linear(&build->scope, "decoder_pred", x, channels * side * side, true);
    trn_build_stage(build, out->predicted, "pred_all");
    if (!config->video) add_wanted(build, side, out);
    if (mask->hidden) add_loss(build, mask, out);
    trn_graph_scope(build->scope.graph, NULL);
}

/* ---- the pair ---- */

static trn_status configure_pair(trn_encoder *encoder, trn_error *err)
{
    const hiera_config *config = encoder->state;
    const hiera_decoder *decoder = &config->decoder;
    const char *name = encoder->spec.name;
    if (config->video)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': single images are drawn, not series of %d frames: take one of "
                        "mae-hiera-tiny to mae-hiera-huge",
                        name, config->frames);
    if (config->head != HIERA_HEAD_FUSE)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s' has no decoder that draws images, as files of classifiers hold none: "
                        "take one of mae-hiera-tiny to mae-hiera-huge",
                        name);
    if (decoder->dim % decoder->heads == 0 && (int64_t)((double)decoder->dim * config->mlp_ratio) >= 1)
        return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "encoder '%s': decoder_dim=%lld must be a multiple of decoder_heads=%d, and leave hidden "
                    "channels by mlp_ratio",
                    name, (long long)decoder->dim, decoder->heads);
}

static trn_patch_size patch_of(const trn_encoder *encoder)
{
    (void)encoder;
    return (trn_patch_size){1, HIERA_UNIT_PIXELS};
}

/* keep [B,units]: which units are visible. */
static trn_status tables_of(const hiera_config *config, const trn_build *build, const trn_mask *mask,
                            trn_arena *arena, hiera_mask_tables *out, trn_error *err)
{
    hiera_grid grid = trn_hiera_grid(config, build);
    int64_t units = trn_hiera_units(&grid);
    uint8_t *keep = trn_arena_array(arena, (size_t)(build->batch * units), sizeof *keep);
    if (!keep) return trn_fail_memory(err, (size_t)(build->batch * units), "a mask");
    for (int64_t i = 0; i < build->batch * units; i++)
        keep[i - i % units + mask->order[i]] = i % units < mask->visible;
    return trn_hiera_mask_make(config, &grid, build->batch, keep, arena, out, err);
}

/* predicted [B,cells,C*side*side] -> [B,C,h,w], each cell with its own mean and deviation */
static trn_tensor *draw_cells(const trn_build *build, const hiera_config *config, const hiera_mae *made)
{
    static const int order[] = {0, 3, 1, 4, 2, 5};
    trn_graph *graph = build->scope.graph;
    int64_t side = HIERA_PATCH << config->q_pool, channels = trn_tensor_dim(build->x, 1);
    trn_tensor *x = trn_mul(graph, made->predicted, made->deviation);
    x = trn_add(graph, x, made->mean);
    x = trn_reshape(graph, x,
                    TRN_SHAPE(build->batch, build->height / side, build->width / side, channels, side, side));
    return trn_reshape(graph, trn_permute(graph, x, order),
                       TRN_SHAPE(build->batch, channels, build->height, build->width));
}

static void build_pair(trn_encoder *encoder, const trn_build *build, const trn_mask *mask, trn_masked *out)
{
    const hiera_config *config = encoder->state;
    trn_graph *graph = build->scope.graph;
    trn_error err = {0};
    hiera_mask_tables tables;
    hiera_mae made;
    trn_arena *arena = trn_arena_create();
    trn_status status = arena ? tables_of(config, build, mask, arena, &tables, &err)
                              : trn_fail_memory(&err, sizeof tables, "a mask");
    if (status != TRN_OK) {
        trn_graph_fail(graph, "%s", err.message);
        trn_arena_destroy(arena);
        return;
    }
    hiera_mask constants = trn_hiera_mask_constants(graph, &tables);
    trn_hiera_build_mae(build, config, &config->decoder, &constants, &made);
    out->drawn = draw_cells(build, config, &made);
    trn_build_stage(build, out->drawn, "drawn");
    if (made.loss) out->loss = trn_reshape(graph, made.loss, TRN_SHAPE(1));
    trn_arena_destroy(arena);
}

const trn_masked_family hiera_masked_pair = {
    .configure = configure_pair,
    .patch = patch_of,
    .build = build_pair,
};
