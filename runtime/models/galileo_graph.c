/* Galileo's forward graph: group embeddings, encodings, attention among what is visible, averages. */
#include "galileo.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- what groups there are ---- */

typedef struct group {
    const char *name;
    int channels;
} group;

static const group space_time_groups[GALILEO_SPACE_TIME] = {
    {"S1", 2},         {"S2_RGB", 3},  {"S2_Red_Edge", 3}, {"S2_NIR_10m", 1},
    {"S2_NIR_20m", 1}, {"S2_SWIR", 2}, {"NDVI", 1}};
static const group space_groups[GALILEO_SPACE] = {{"SRTM", 2}, {"DW", 9}, {"WC", 5}};
static const group time_groups[GALILEO_TIME] = {{"ERA5", 2}, {"TC", 3}, {"VIIRS", 1}};
static const group fixed_groups[GALILEO_FIXED] = {
    {"LS", 1}, {"location", 3}, {"DW_static", 9}, {"WC_static", 5}};

/* Tokens of one source: over places (cells), times and groups, groups fastest. */
typedef struct source {
    const char *scope;         /* of the embeddings */
    const char *stage;         /* "s_t" */
    const char *channel_embed; /* table of the groups' encodings */
    const group *groups;
    trn_tensor *const *inputs;
    int group_count;
    int64_t places, times; /* 1 where it has none */
    bool of_place, of_time;
    const float *mask;
    int used[GALILEO_SPACE_TIME]; /* groups that make tokens */
    int used_count;
    int64_t tokens;                 /* per window */
    trn_tensor *embedded, *encoded; /* [B,tokens,D] */
} source;

typedef struct context {
    const trn_build *build;
    trn_arena *arena;
    const galileo_size *size;
    const galileo_inputs *in;
    trn_graph *graph;
    int64_t cells; /* per side */
    source sources[4];
    int64_t tokens;         /* of all sources */
    unsigned char *visible; /* [B,tokens]; NULL: all */
} context;

/* ---- kernels of other patch sizes (FlexiViT) ---- */

static double cubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

/* One axis of the resizing: m [8][p], what each of 8 samples gives to each of p. */
static void resize_axis(int p, double m[GALILEO_KERNEL][GALILEO_KERNEL])
{
    double scale = (double)GALILEO_KERNEL / p;
    memset(m, 0, GALILEO_KERNEL * sizeof *m);
    for (int j = 0; j < p; j++) {
        double centre = (j + 0.5) * scale, total = 0;
        int first = TRN_MAX(0, (int)(centre - 2 * scale + 0.5));
        int end = TRN_MIN((int)GALILEO_KERNEL, (int)(centre + 2 * scale + 0.5));
        for (int i = first; i < end; i++)
            total += m[i][j] = cubic((i + 0.5 - centre) / scale);
        for (int i = first; i < end; i++)
            m[i][j] /= total;
    }
}

/* Solves a x = b for p x p a (destroyed) and `columns` right-hand sides, Gauss with pivots. */
static void solve(int p, int columns, double a[GALILEO_KERNEL][GALILEO_KERNEL],
                  double b[GALILEO_KERNEL][GALILEO_KERNEL])
{
    for (int k = 0; k < p; k++) {
        int best = k;
        for (int i = k + 1; i < p; i++)
            if (fabs(a[i][k]) > fabs(a[best][k])) best = i;
        for (int j = 0; j < GALILEO_KERNEL; j++) {
            double t = a[k][j];
            a[k][j] = a[best][j];
            a[best][j] = t;
            t = b[k][j];
            b[k][j] = b[best][j];
            b[best][j] = t;
        }
        for (int i = 0; i < p; i++) {
            double f = i == k ? 0 : a[i][k] / a[k][k];
            for (int j = k; j < p && f != 0; j++)
                a[i][j] -= f * a[k][j];
            for (int j = 0; j < columns && f != 0; j++)
                b[i][j] -= f * b[k][j];
        }
    }
    for (int k = 0; k < p; k++)
        for (int j = 0; j < columns; j++)
            b[k][j] /= a[k][k];
}

void trn_galileo_pinv(int p, double *out)
{
    /* The map is the same along both axes, so its pseudo-inverse is the product of those of one axis; m has
     * full column rank, so that is (m' m)^-1 m'. */
    enum { K = GALILEO_KERNEL };
    double m[K][K], gram[K][K] = {{0}}, inverse[K][K] = {{0}};
    resize_axis(p, m);
    for (int i = 0; i < p; i++)
        for (int j = 0; j < p; j++)
            for (int k = 0; k < K; k++)
                gram[i][j] += m[k][i] * m[k][j];
    for (int i = 0; i < p; i++)
        for (int k = 0; k < K; k++)
            inverse[i][k] = m[k][i];
    solve(p, K, gram, inverse);
    for (int i = 0; i < p * p; i++)
        for (int k = 0; k < K * K; k++)
            out[i * K * K + k] = inverse[i / p][k / K] * inverse[i % p][k % K];
}

/* The stored kernel [D,C,8,8] at the patch's size. What is resized is the tensor of the checkpoint, in the
 * graph: a kernel that learns stays as the checkpoint has it. */
static trn_tensor *kernel(const context *c, const trn_scope *scope, int channels)
{
    enum { STORED = GALILEO_KERNEL * GALILEO_KERNEL };
    int64_t dim = c->size->dim, patch = c->in->patch, cells = patch * patch;
    trn_tensor *w =
        trn_scope_param(scope, "weight", TRN_SHAPE(dim, channels, GALILEO_KERNEL, GALILEO_KERNEL));
    if (patch == GALILEO_KERNEL) return w;
    double pinv[STORED * STORED];
    float map[STORED * STORED];
    trn_galileo_pinv((int)patch, pinv);
    for (int64_t i = 0; i < cells * STORED; i++)
        map[i] = (float)pinv[i];
    trn_tensor *resize = trn_constant(c->graph, "kernel.resize", TRN_SHAPE(cells, STORED), map);
    w = trn_linear(c->graph, trn_reshape(c->graph, w, TRN_SHAPE(dim * channels, STORED)), resize, NULL);
    return trn_reshape(c->graph, w, TRN_SHAPE(dim, channels, patch, patch));
}

/* ---- group embeddings ---- */

static trn_tensor *zeros(const context *c, trn_shape shape)
{
    float *values = calloc((size_t)trn_shape_count(&shape), sizeof *values);
    if (!values)
        return trn_graph_fail(c->graph, "no memory for %lld zeros", (long long)trn_shape_count(&shape));
    trn_tensor *tensor = trn_constant(c->graph, "zeros", shape, values);
    free(values);
    return tensor;
}

/* One group -> [B,T,places,1,D] (without T or places where the source has none, in the same order in memory)
 */
static trn_tensor *embed_group(const context *c, const source *s, int g)
{
    int64_t batch = c->in->batch, dim = c->size->dim;
    trn_shape shape = TRN_SHAPE(batch, s->times, s->places, 1, dim);
    trn_tensor *x = s->inputs[g];
    if (!x) return zeros(c, shape);
    trn_scope scope = trn_scope_enter(&c->build->scope, "%s", s->scope);
    if (!s->of_place)
        return trn_reshape(c->graph, trn_nn_linear(&scope, s->groups[g].name, x, dim, true), shape);
    scope = trn_scope_enter(&scope, "%s.proj", s->groups[g].name);
    trn_graph_scope(c->graph, scope.prefix);
    trn_conv_desc conv = {.stride = {1, (int)c->in->patch, (int)c->in->patch}};
    trn_tensor *bias = trn_scope_param(&scope, "bias", TRN_SHAPE(dim));
    x = trn_conv_tokens(c->graph, x, kernel(c, &scope, s->groups[g].channels), bias, &conv);
    return trn_reshape(c->graph, x, shape);
}

static trn_tensor *embed_source(const context *c, source *s)
{
    static const int places_first[] = {0, 2, 1, 3, 4};
    trn_tensor *parts[GALILEO_SPACE_TIME];
    for (int i = 0; i < s->used_count; i++)
        parts[i] = embed_group(c, s, s->used[i]);
    trn_tensor *x = trn_concat(c->graph, parts, s->used_count, 3);
    if (s->times > 1 && s->places > 1) x = trn_permute(c->graph, x, places_first);
    return trn_reshape(c->graph, x, TRN_SHAPE(c->in->batch, s->tokens, c->size->dim));
}

/* ---- encodings ---- */

void trn_galileo_place(int dims, double column, double row, double ratio, float *out)
{
    int half = dims / 2;
    trn_sincos(half, column * ratio, 0.5 / half, out);
    trn_sincos(half, row * ratio, 0.5 / half, out + half);
}

typedef enum index_kind { INDEX_GROUP, INDEX_TIME, INDEX_MONTH } index_kind;

/* Row of a table for each of `sets` * tokens tokens. */
static trn_tensor *rows_of(const context *c, const source *s, index_kind kind, trn_tensor *table,
                           int64_t sets)
{
    int32_t *index = malloc((size_t)(sets * s->tokens) * sizeof *index);
    if (!index) return trn_graph_fail(c->graph, "no memory for encodings");
    for (int64_t i = 0; i < sets * s->tokens; i++) {
        int64_t set = i / s->tokens, token = i % s->tokens;
        int64_t time = token / s->used_count % s->times;
        if (kind == INDEX_GROUP) index[i] = s->used[token % s->used_count];
        if (kind == INDEX_TIME) index[i] = (int32_t)time;
        if (kind == INDEX_MONTH) index[i] = c->in->months[set * s->times + time];
    }
    trn_tensor *rows = trn_constant_int(c->graph, "encoding.rows", TRN_SHAPE(sets * s->tokens), index);
    free(index);
    return trn_gather(c->graph, table, 0, rows);
}

static trn_tensor *places_of(const context *c, const source *s, int64_t sets, int64_t quarter)
{
    float *values = malloc((size_t)(sets * s->tokens * quarter) * sizeof *values);
    if (!values) return trn_graph_fail(c->graph, "no memory for encodings");
    double ratio = c->in->resolution * (double)c->in->patch / 10;
    int64_t per_place = s->times * s->used_count;
    for (int64_t i = 0; i < sets * s->tokens; i++) {
        int64_t place = i % s->tokens / per_place, row = place / c->cells, column = place % c->cells;
        trn_galileo_place((int)quarter, (double)column, (double)row, ratio, values + i * quarter);
    }
    trn_tensor *tensor =
        trn_constant(c->graph, "encoding.places", TRN_SHAPE(sets * s->tokens, quarter), values);
    free(values);
    return tensor;
}

/* [1 or B, tokens, D]: channel | time | month | place, zeros where the source has none */
static trn_tensor *encode_source(const context *c, const source *s)
{
    const trn_scope *root = &c->build->scope;
    int64_t quarter = c->size->dim / 4, sets = c->in->shared_months || !s->of_time ? 1 : c->in->batch;
    trn_shape none = TRN_SHAPE(sets * s->tokens, quarter);
    trn_tensor *channel = trn_scope_param(root, s->channel_embed, TRN_SHAPE(s->group_count, quarter));
    trn_tensor *parts[4] = {rows_of(c, s, INDEX_GROUP, channel, sets)};
    if (s->of_time) {
        trn_tensor *times = trn_scope_param(root, "pos_embed", TRN_SHAPE(c->size->positions, quarter));
        trn_tensor *months = trn_scope_param(root, "month_embed.weight", TRN_SHAPE(12, quarter));
        parts[1] = rows_of(c, s, INDEX_TIME, times, sets);
        parts[2] = rows_of(c, s, INDEX_MONTH, months, sets);
    } else {
        parts[1] = parts[2] = zeros(c, none);
    }
    parts[3] = s->of_place ? places_of(c, s, sets, quarter) : zeros(c, none);
    trn_tensor *x = trn_concat(c->graph, parts, 4, 1);
    return trn_reshape(c->graph, x, TRN_SHAPE(sets, s->tokens, c->size->dim));
}

/* ---- visible tokens ---- */

/* Which tokens take part: those present in `visible`, or all. */
static int64_t visible_count(const context *c, int64_t b)
{
    int64_t n = 0;
    for (int64_t i = 0; i < c->tokens; i++)
        n += c->visible[b * c->tokens + i];
    return n;
}

/* The visible tokens of each window first, and a mask of them; shorter windows are filled up with zeros. */
typedef struct compact {
    int64_t length;
    trn_tensor *take; /* [B*length] rows of the flat tokens */
    trn_tensor *back; /* [B*tokens] rows of the flat compact tokens, the last is zeros */
    trn_tensor *mask; /* [B,length]; NULL: no filling */
} compact;

static void index_window(const context *c, int64_t b, compact *k, int32_t *take, int32_t *back, float *mask)
{
    int64_t n = 0;
    take += b * k->length;
    back += b * c->tokens;
    for (int64_t i = 0; i < c->tokens; i++) {
        bool seen = c->visible[b * c->tokens + i];
        back[i] = (int32_t)(seen ? b * k->length + n : c->in->batch * k->length);
        if (seen) take[n++] = (int32_t)(b * c->tokens + i);
    }
    for (int64_t i = 0; i < k->length; i++) {
        mask[b * k->length + i] = i < n;
        if (i >= n) take[i] = 0;
    }
}

static bool plan_compact(const context *c, compact *k)
{
    int64_t batch = c->in->batch;
    bool filled = false;
    for (int64_t b = 0; b < batch; b++)
        k->length = TRN_MAX(k->length, visible_count(c, b));
    for (int64_t b = 0; b < batch; b++)
        filled = filled || visible_count(c, b) < k->length;
    if (!k->length) return false;
    int32_t *take = malloc((size_t)(batch * k->length) * sizeof *take);
    int32_t *back = malloc((size_t)(batch * c->tokens) * sizeof *back);
    float *mask = malloc((size_t)(batch * k->length) * sizeof *mask);
    bool ok = take && back && mask;
    for (int64_t b = 0; ok && b < batch; b++)
        index_window(c, b, k, take, back, mask);
    if (ok) {
        k->take = trn_constant_int(c->graph, "visible.take", TRN_SHAPE(batch * k->length), take);
        k->back = trn_constant_int(c->graph, "visible.back", TRN_SHAPE(batch * c->tokens), back);
        if (filled) k->mask = trn_constant(c->graph, "visible.mask", TRN_SHAPE(batch, k->length), mask);
    }
    free(take);
    free(back);
    free(mask);
    return ok;
}

static trn_tensor *run_blocks(const context *c, trn_tensor *x, trn_tensor *mask)
{
    trn_block_desc desc = {.heads = (int)c->size->heads,
                           .hidden = (int64_t)((double)c->size->dim * c->size->mlp_ratio),
                           .eps = (float)c->size->eps,
                           .separate_qkv = true,
                           .key_mask = mask};
    for (int64_t i = 0; i < c->size->depth; i++) {
        trn_scope scope = trn_scope_enter(&c->build->scope, "blocks.%d", (int)i);
        desc.drop_path = trn_drop_path_at(&scope, i, c->size->depth);
        x = trn_nn_block(&scope, x, &desc);
        trn_build_stage(c->build, x, "block%02d_compact", (int)i);
    }
    return x;
}

/* x [B,tokens,D] -> the same after the blocks, hidden tokens 0 */
static trn_tensor *attend_visible(const context *c, trn_tensor *x)
{
    int64_t batch = c->in->batch, dim = c->size->dim;
    compact k = {0};
    if (!c->visible) return run_blocks(c, x, NULL);
    if (!plan_compact(c, &k)) return trn_graph_fail(c->graph, "no token is visible");
    x = trn_gather(c->graph, trn_reshape(c->graph, x, TRN_SHAPE(batch * c->tokens, dim)), 0, k.take);
    x = trn_reshape(c->graph, x, TRN_SHAPE(batch, k.length, dim));
    if (k.mask) x = trn_mul(c->graph, x, trn_reshape(c->graph, k.mask, TRN_SHAPE(batch, k.length, 1)));
    x = run_blocks(c, x, k.mask);
    trn_tensor *rows[] = {trn_reshape(c->graph, x, TRN_SHAPE(batch * k.length, dim)),
                          zeros(c, TRN_SHAPE(1, dim))};
    x = trn_gather(c->graph, trn_concat(c->graph, rows, 2, 0), 0, k.back);
    return trn_reshape(c->graph, x, TRN_SHAPE(batch, c->tokens, dim));
}

/* ---- averages ---- */

/* Whether token i of a window belongs to the cell, or to no place. */
static bool belongs(const context *c, int64_t i, int64_t cell)
{
    for (size_t k = 0; k < TRN_COUNT(c->sources); k++) {
        const source *s = &c->sources[k];
        if (i < s->tokens) return !s->of_place || i / (s->times * s->used_count) == cell;
        i -= s->tokens;
    }
    return false;
}

static bool is_visible(const context *c, int64_t b, int64_t i)
{
    return !c->visible || c->visible[b * c->tokens + i];
}

/* One row of weights: equal for the tokens that count. cell < 0: all. */
static void average_row(const context *c, int64_t b, int64_t cell, float *row)
{
    int64_t n = 0;
    for (int64_t i = 0; i < c->tokens; i++) {
        row[i] = is_visible(c, b, i) && (cell < 0 || belongs(c, i, cell));
        n += row[i] > 0;
    }
    for (int64_t i = 0; n && i < c->tokens; i++)
        row[i] /= (float)n;
}

/* x [B,tokens,D] -> [B,rows,D], rows = cells or 1, by a matrix of weights */
static trn_tensor *average_by_weights(const context *c, trn_tensor *x, bool per_cell)
{
    int64_t batch = c->in->batch, rows = per_cell ? c->cells * c->cells : 1;
    float *weights = malloc((size_t)(batch * rows * c->tokens) * sizeof *weights);
    if (!weights) return trn_graph_fail(c->graph, "no memory for averages");
    for (int64_t i = 0; i < batch * rows; i++)
        average_row(c, i / rows, per_cell ? i % rows : -1, weights + i * c->tokens);
    trn_tensor *w = trn_constant(c->graph, "average", TRN_SHAPE(batch, rows, c->tokens), weights);
    free(weights);
    return trn_matmul(c->graph, w, x, false, false);
}

static trn_tensor *average_cells(const context *c, trn_tensor *x)
{
    const source *first = &c->sources[0];
    if (c->visible || c->tokens != first->tokens) return average_by_weights(c, x, true);
    x = trn_reshape(c->graph, x,
                    TRN_SHAPE(c->in->batch, first->places, first->times * first->used_count, c->size->dim));
    return trn_reduce(c->graph, x, 2, TRN_REDUCE_MEAN, false);
}

static trn_tensor *average_all(const context *c, trn_tensor *x)
{
    if (!c->visible) return trn_reduce(c->graph, x, 1, TRN_REDUCE_MEAN, false);
    return trn_reshape(c->graph, average_by_weights(c, x, false), TRN_SHAPE(c->in->batch, c->size->dim));
}

/* ---- the whole ---- */

static void open_sources(context *c)
{
    const galileo_inputs *in = c->in;
    int64_t places = c->cells * c->cells;
    const source all[4] = {
        {.scope = "space_time_embed",
         .stage = "s_t",
         .channel_embed = "s_t_channel_embed",
         .groups = space_time_groups,
         .inputs = in->space_time,
         .group_count = GALILEO_SPACE_TIME,
         .places = places,
         .times = in->times,
         .of_place = true,
         .of_time = true,
         .mask = in->mask_space_time},
        {.scope = "space_embed",
         .stage = "sp",
         .channel_embed = "sp_channel_embed",
         .groups = space_groups,
         .inputs = in->space,
         .group_count = GALILEO_SPACE,
         .places = places,
         .times = 1,
         .of_place = true,
         .mask = in->mask_space},
        {.scope = "time_embed",
         .stage = "t",
         .channel_embed = "t_channel_embed",
         .groups = time_groups,
         .inputs = in->time,
         .group_count = GALILEO_TIME,
         .places = 1,
         .times = in->times,
         .of_time = true,
         .mask = in->mask_time},
        {.scope = "static_embed",
         .stage = "st",
         .channel_embed = "st_channel_embed",
         .groups = fixed_groups,
         .inputs = in->fixed,
         .group_count = GALILEO_FIXED,
         .places = 1,
         .times = 1,
         .mask = in->mask_fixed},
    };
    memcpy(c->sources, all, sizeof all);
    for (size_t k = 0; k < TRN_COUNT(c->sources); k++) {
        source *s = &c->sources[k];
        for (int g = 0; g < s->group_count; g++)
            if (s->inputs[g] || in->keep_absent) s->used[s->used_count++] = g;
        s->tokens = s->places * s->times * s->used_count;
        c->tokens += s->tokens;
    }
}

/* Joins the masks of the sources: 1 where visible. */
static bool join_masks(context *c)
{
    bool masked = false;
    for (size_t k = 0; k < TRN_COUNT(c->sources); k++)
        masked = masked || c->sources[k].mask;
    if (!masked) return true;
    unsigned char *visible = trn_arena_alloc(c->arena, (size_t)(c->in->batch * c->tokens));
    if (!visible) return false;
    int64_t start = 0;
    for (size_t k = 0; k < TRN_COUNT(c->sources); k++) {
        const source *s = &c->sources[k];
        for (int64_t i = 0; i < c->in->batch * s->tokens; i++)
            visible[i / s->tokens * c->tokens + start + i % s->tokens] = !s->mask || s->mask[i] == 0;
        start += s->tokens;
    }
    c->visible = visible;
    return true;
}

static trn_tensor *embed_and_encode(context *c)
{
    trn_tensor *parts[4];
    int count = 0;
    for (size_t k = 0; k < TRN_COUNT(c->sources); k++) {
        source *s = &c->sources[k];
        if (!s->tokens) continue;
        s->embedded = embed_source(c, s);
        trn_build_stage(c->build, s->embedded, "proj_%s", s->stage);
        trn_graph_scope(c->graph, NULL);
        s->encoded = trn_add(c->graph, s->embedded, encode_source(c, s));
        trn_build_stage(c->build, s->encoded, "enc_%s", s->stage);
        parts[count++] = s->encoded;
    }
    if (!count) return trn_graph_fail(c->graph, "no group of bands to look at");
    return count == 1 ? parts[0] : trn_concat(c->graph, parts, count, 1);
}

static void show_outputs(const context *c, trn_tensor *x)
{
    int64_t start = 0;
    if (!c->build->stage) return;
    for (size_t k = 0; k < TRN_COUNT(c->sources); k++) {
        const source *s = &c->sources[k];
        if (s->tokens)
            trn_build_stage(c->build, trn_slice(c->graph, x, 1, start, s->tokens), "out_%s", s->stage);
        start += s->tokens;
    }
}

void trn_galileo_build(const trn_build *build, trn_arena *arena, const galileo_size *size,
                       const galileo_inputs *inputs, galileo_outputs *out)
{
    context c = {.build = build, .arena = arena, .size = size, .in = inputs, .graph = build->scope.graph};
    *out = (galileo_outputs){0};
    c.cells = inputs->side / inputs->patch;
    open_sources(&c);
    if (!join_masks(&c)) {
        trn_graph_fail(c.graph, "no memory for masks");
        return;
    }
    trn_tensor *x = attend_visible(&c, embed_and_encode(&c));
    x = trn_nn_layer_norm(&build->scope, "norm", x, (float)size->eps);
    trn_graph_scope(c.graph, NULL);
    show_outputs(&c, x);
    out->cells = average_cells(&c, x);
    out->mean = average_all(&c, x);
    trn_build_stage(build, out->cells, "avg_per_patch");
    trn_build_stage(build, out->mean, "avg_tokens");
}
