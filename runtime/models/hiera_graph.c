/* Hiera's graph: unrolled order, patch embedding, blocks of mask unit attention, fusion of stages. */
#include "hiera.h"

#include <stdlib.h>

/* ---- order of tokens ---- */

int64_t trn_hiera_units(const hiera_grid *grid)
{
    return grid->steps * (grid->h / HIERA_UNIT) * (grid->w / HIERA_UNIT);
}

int trn_hiera_pools(const hiera_config *config, int stage)
{
    return TRN_MIN(stage, config->q_pool);
}

/* The lowest `levels` bits of row and column, the lowest pair most significant. */
static int64_t digits(int64_t row, int64_t column, int levels)
{
    int64_t value = 0;
    for (int k = 0; k < levels; k++)
        value = 4 * value + 2 * (row >> k & 1) + (column >> k & 1);
    return value;
}

/* Unrolled number of a token when `levels` poolings are still possible. */
static int64_t unrolled(const hiera_grid *grid, int64_t step, int64_t row, int64_t column, int levels)
{
    int64_t units_h = grid->h / HIERA_UNIT, units_w = grid->w / HIERA_UNIT;
    int64_t unit = (step * units_h + (row >> levels)) * units_w + (column >> levels);
    return digits(row, column, levels) * trn_hiera_units(grid) + unit;
}

void trn_hiera_unroll(const hiera_grid *grid, int32_t *index)
{
    int32_t i = 0;
    for (int64_t step = 0; step < grid->steps; step++)
        for (int64_t row = 0; row < grid->h; row++)
            for (int64_t column = 0; column < grid->w; column++)
                index[unrolled(grid, step, row, column, HIERA_LEVELS)] = i++;
}

void trn_hiera_reroll(const hiera_grid *grid, int pools, int32_t *index)
{
    for (int64_t step = 0; step < grid->steps; step++)
        for (int64_t row = 0; row < grid->h >> pools; row++)
            for (int64_t column = 0; column < grid->w >> pools; column++)
                *index++ = (int32_t)unrolled(grid, step, row, column, HIERA_LEVELS - pools);
}

void trn_hiera_reroll_units(int64_t units, int pools, int32_t *index)
{
    int64_t side = HIERA_UNIT >> pools;
    for (int64_t unit = 0; unit < units; unit++)
        for (int64_t row = 0; row < side; row++)
            for (int64_t column = 0; column < side; column++)
                *index++ = (int32_t)(digits(row, column, HIERA_LEVELS - pools) * units + unit);
}

trn_tensor *trn_hiera_pick(const trn_build *build, const char *name, trn_tensor *x, const int32_t *index,
                           int64_t count)
{
    trn_graph *graph = build->scope.graph;
    return trn_gather(graph, x, 1, trn_constant_int(graph, name, TRN_SHAPE(count), index));
}

/* ---- image -> tokens ---- */

static int64_t steps_of(const hiera_config *config, int64_t frames)
{
    if (!config->video) return 1;
    return (frames + 2 * config->time_padding - config->time_kernel) / config->time_stride + 1;
}

hiera_grid trn_hiera_grid(const hiera_config *config, const trn_build *build)
{
    return (hiera_grid){steps_of(config, build->dates), build->height / HIERA_PATCH,
                        build->width / HIERA_PATCH};
}

static trn_tensor *convolve(const trn_build *build, const hiera_config *config, trn_tensor *x)
{
    static const int channels_first[] = {0, 2, 1, 3, 4};
    trn_scope scope = trn_scope_enter(&build->scope, "patch_embed.proj");
    int64_t channels = trn_tensor_dim(x, -3), side = HIERA_KERNEL;
    trn_shape shape = TRN_SHAPE(config->dim, channels, side, side);
    if (config->video) shape = TRN_SHAPE(config->dim, channels, config->time_kernel, side, side);
    trn_conv_desc conv = {.stride = {config->time_stride, HIERA_PATCH, HIERA_PATCH},
                          .padding = {config->time_padding, HIERA_PADDING, HIERA_PADDING}};
    trn_tensor *w = trn_scope_param(&scope, "weight", shape);
    trn_tensor *b = trn_scope_param(&scope, "bias", TRN_SHAPE(config->dim));
    trn_graph_scope(scope.graph, scope.prefix);
    if (config->video) x = trn_permute(scope.graph, x, channels_first);
    return trn_conv_tokens(scope.graph, x, w, b, &conv);
}

trn_tensor *trn_hiera_positions(const trn_build *build, const char *name, const hiera_grid *own,
                                const hiera_grid *size, int64_t dim)
{
    enum { MAX_STEPS = 64 };
    trn_graph *graph = build->scope.graph;
    trn_tensor *parts[MAX_STEPS];
    int64_t cells = own->h * own->w;
    trn_tensor *table = trn_scope_param(&build->scope, name, TRN_SHAPE(1, own->steps * cells, dim));
    if (own->steps != size->steps || own->steps > MAX_STEPS)
        return trn_graph_fail(graph, "%s: positions of %lld steps in time cannot serve %lld", name,
                              (long long)own->steps, (long long)size->steps);
    if (own->h == size->h && own->w == size->w) return table;
    for (int64_t i = 0; i < own->steps; i++)
        parts[i] = trn_resize_positions(graph, trn_slice(graph, table, 1, i * cells, cells), 0,
                                        (trn_grid_size){own->h, own->w}, (trn_grid_size){size->h, size->w},
                                        TRN_POSITIONS_BICUBIC);
    return own->steps == 1 ? parts[0] : trn_concat(graph, parts, (int)own->steps, 1);
}

/* Tables of space and of time: every step has the same places, every place the same times. */
static trn_tensor *separate_positions(const trn_build *build, const hiera_config *config,
                                      const hiera_grid *grid)
{
    trn_graph *graph = build->scope.graph;
    int64_t dim = config->dim, steps = grid->steps, cells = grid->h * grid->w;
    const hiera_grid own = {1, config->own.h, config->own.w}, flat = {1, grid->h, grid->w};
    trn_tensor *space = trn_hiera_positions(build, "pos_embed_spatial", &own, &flat, dim);
    trn_tensor *time = trn_scope_param(&build->scope, "pos_embed_temporal", TRN_SHAPE(1, steps, dim));
    space = trn_reshape(graph, space, TRN_SHAPE(1, cells, dim));
    time = trn_reshape(graph, time, TRN_SHAPE(steps, 1, dim));
    return trn_reshape(graph, trn_add(graph, space, time), TRN_SHAPE(1, steps * cells, dim));
}

trn_tensor *trn_hiera_embed(const trn_build *build, const hiera_config *config, trn_tensor *x)
{
    trn_graph *graph = build->scope.graph;
    hiera_grid grid = trn_hiera_grid(config, build);
    int64_t tokens = grid.steps * grid.h * grid.w;
    int32_t *index = tokens <= INT32_MAX ? malloc((size_t)tokens * sizeof *index) : NULL;
    if (!index)
        return trn_graph_fail(graph, "windows of %lld x %lld pixels have too many tokens",
                              (long long)build->width, (long long)build->height);
    x = convolve(build, config, x);
    trn_build_stage(build, x, "patch_embed");
    trn_tensor *positions = config->separate_positions
                                ? separate_positions(build, config, &grid)
                                : trn_hiera_positions(build, "pos_embed", &config->own, &grid, config->dim);
    trn_hiera_unroll(&grid, index);
    x = trn_hiera_pick(build, "unrolled", trn_add(graph, x, positions), index, tokens);
    free(index);
    trn_build_stage(build, x, "pos_unrolled");
    return x;
}

/* ---- blocks ---- */

typedef struct block_desc {
    int64_t channels; /* that come out */
    int heads, windows, pool;
    double mlp_ratio;
    float eps, drop_path;
} block_desc;

/* Tokens [B,N,C] -> the largest of each group of `pool` [B,N/pool,C]. */
static trn_tensor *pool_tokens(trn_graph *graph, trn_tensor *x, int pool)
{
    if (pool == 1 || !x) return x;
    int64_t batch = trn_tensor_dim(x, 0), tokens = trn_tensor_dim(x, 1);
    x = trn_reshape(graph, x, TRN_SHAPE(batch, pool, tokens / pool, trn_tensor_dim(x, 2)));
    return trn_reduce(graph, x, 1, TRN_REDUCE_MAX, false);
}

/* Pooled queries get a product of their own: keys and values are left whole, and nothing is copied. */
static trn_tensor *attend(const trn_scope *attention, trn_tensor *x, const block_desc *desc)
{
    trn_tensor *parts[2];
    if (desc->pool == 1) {
        x = trn_nn_linear(attention, "qkv", x, 3 * desc->channels, true);
        return trn_mask_unit_attention(attention->graph, x, desc->heads, desc->windows);
    }
    trn_nn_linear_cut(attention, "qkv", x, 3 * desc->channels, desc->channels, parts);
    return trn_pooled_unit_attention(attention->graph, parts[0], parts[1], desc->heads, desc->windows,
                                     desc->pool);
}

static trn_tensor *build_block(const trn_scope *scope, trn_tensor *x, const block_desc *desc)
{
    trn_graph *graph = scope->graph;
    trn_scope attention = trn_scope_enter(scope, "attn"), mlp = trn_scope_enter(scope, "mlp");
    trn_graph_block_begin(graph);
    trn_tensor *normed = trn_nn_layer_norm(scope, "norm1", x, desc->eps);
    if (trn_tensor_dim(x, -1) != desc->channels) /* the shortcut starts behind the norm then */
        x = pool_tokens(graph, trn_nn_linear(scope, "proj", normed, desc->channels, true), desc->pool);
    trn_tensor *y = attend(&attention, normed, desc);
    y = trn_nn_linear(&attention, "proj", y, desc->channels, true);
    y = trn_nn_block_dropout(&attention, "proj_drop", y);
    x = trn_add(graph, x, trn_nn_drop_path(scope, "drop_path1", y, desc->drop_path));
    y = trn_nn_layer_norm(scope, "norm2", x, desc->eps);
    y = trn_nn_mlp(&mlp, y, (int64_t)((double)desc->channels * desc->mlp_ratio));
    x = trn_add(graph, x, trn_nn_drop_path(scope, "drop_path2", y, desc->drop_path));
    trn_graph_block_end(graph);
    return x;
}

void trn_hiera_run(const trn_build *build, const hiera_config *config, trn_tensor *tokens, int64_t units,
                   int last, trn_tensor **stages)
{
    int block = 0, depth = 0;
    for (int stage = 0; stage < HIERA_STAGES; stage++)
        depth += config->depth[stage];
    for (int stage = 0; stage <= last; stage++) {
        for (int i = 0; i < config->depth[stage]; i++, block++) {
            bool enters = stage > 0 && i == 0;
            /* the first block of a stage still attends as the stage before */
            bool in_units = config->unit_attention[enters ? stage - 1 : stage];
            block_desc desc = {.channels = config->dim << stage,
                               .heads = (int)(config->heads << stage),
                               .windows = in_units ? (int)units : 1,
                               .pool = enters && stage <= config->q_pool ? 4 : 1,
                               .mlp_ratio = config->mlp_ratio,
                               .eps = config->eps,
                               .drop_path = trn_drop_path_at(&build->scope, block, depth)};
            trn_scope scope = trn_scope_enter(&build->scope, "blocks.%d", block);
            tokens = build_block(&scope, tokens, &desc);
            trn_build_stage(build, tokens, "block%02d", block);
        }
        stages[stage] = tokens;
    }
    trn_graph_scope(build->scope.graph, NULL);
}

/* ---- fusion ---- */

/* A convolution whose kernel is as large as its stride joins tokens that differ in the first digits alone:
 * no order has to be undone. x [B, side^2*N, C] -> [B,N,channels] */
static trn_tensor *fuse_stage(const trn_build *build, const hiera_config *config, int stage, trn_tensor *x,
                              int64_t channels)
{
    static const int inner[] = {0, 2, 1, 3}, last[] = {0, 2, 1};
    int32_t order[HIERA_UNIT * HIERA_UNIT];
    trn_graph *graph = build->scope.graph;
    int levels = config->q_pool - stage;
    int64_t side = (int64_t)1 << levels, area = side * side;
    int64_t batch = trn_tensor_dim(x, 0), tokens = trn_tensor_dim(x, 1) / area, from = trn_tensor_dim(x, 2);
    trn_scope scope = trn_scope_enter(&build->scope, "multi_scale_fusion_heads.%d", stage);
    trn_shape shape = TRN_SHAPE(channels, from, side, side);
    if (config->video) shape = TRN_SHAPE(channels, from, 1, side, side);
    for (int64_t i = 0; i < area; i++)
        order[digits(i / side, i % side, levels)] = (int32_t)i;
    trn_graph_scope(graph, scope.prefix);
    trn_tensor *w =
        trn_reshape(graph, trn_scope_param(&scope, "weight", shape), TRN_SHAPE(channels, from, area));
    w = trn_gather(graph, w, 2, trn_constant_int(graph, "kernel", TRN_SHAPE(area), order));
    w = trn_reshape(graph, trn_permute(graph, w, last), TRN_SHAPE(channels, area * from));
    x = trn_permute(graph, trn_reshape(graph, x, TRN_SHAPE(batch, area, tokens, from)), inner);
    x = trn_reshape(graph, x, TRN_SHAPE(batch, tokens, area * from));
    return trn_linear(graph, x, w, trn_scope_param(&scope, "bias", TRN_SHAPE(channels)));
}

trn_tensor *trn_hiera_fuse(const trn_build *build, const hiera_config *config, trn_tensor *const *stages)
{
    trn_tensor *sum = stages[HIERA_STAGES - 1];
    for (int stage = 0; stage < config->q_pool && sum; stage++) {
        trn_tensor *part = fuse_stage(build, config, stage, stages[stage], config->dim << HIERA_LEVELS);
        sum = trn_add(build->scope.graph, sum, part);
    }
    sum = trn_nn_layer_norm(&build->scope, "encoder_norm", sum, config->eps);
    trn_graph_scope(build->scope.graph, NULL);
    return sum;
}
