/* Features of several encoders on one grid, and fused. */
#include "compose.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_MEMBERS = 32, MAX_SIDE = 8192 };

/* ---- the common grid ---- */

int trn_compose_cell(trn_encoder *const *encoders, size_t count)
{
    int cell = 0;
    for (size_t i = 0; i < count; i++) {
        int stride = trn_encoder_get_spec(encoders[i])->stride;
        if (!cell || stride < cell) cell = stride;
    }
    return cell;
}

static int64_t greatest_divisor(int64_t a, int64_t b)
{
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Names of the encoders and what their sides are multiples of: for messages. */
static void list_multiples(trn_encoder *const *encoders, size_t count, trn_text *out)
{
    for (size_t i = 0; i < count; i++) {
        const trn_encoder_spec *spec = trn_encoder_get_spec(encoders[i]);
        trn_text_printf(out, "%s%s: %d", i ? ", " : "", spec->name, spec->side_multiple);
    }
}

trn_status trn_compose_tile(trn_encoder *const *encoders, size_t count, int cell, int wanted, int *tile,
                            trn_error *err)
{
    if (!count) return trn_fail(err, TRN_ERR_ARGUMENT, "no encoder to find a window side for");
    if (cell < 0 || wanted < 0)
        return trn_fail(err, TRN_ERR_ARGUMENT, "a cell of %d pixels in windows of %d", cell, wanted);
    int64_t step = cell > 0 ? cell : 1;
    for (size_t i = 0; i < count && step <= MAX_SIDE; i++) {
        const trn_encoder_spec *spec = trn_encoder_get_spec(encoders[i]);
        int multiple = TRN_MAX(spec->side_multiple, 1);
        step = TRN_MAX(step / greatest_divisor(step, multiple) * multiple, 1);
    }
    int64_t least = wanted;
    for (size_t i = 0; i < count && !wanted; i++)
        least = TRN_MAX(least, trn_encoder_get_spec(encoders[i])->tile);
    int64_t side = (TRN_MAX(least, 1) + step - 1) / step * step;
    if (side <= MAX_SIDE) {
        *tile = (int)side;
        return TRN_OK;
    }
    trn_text list = {0};
    list_multiples(encoders, count, &list);
    trn_fail(err, TRN_ERR_ARGUMENT,
             "no window side up to %d pixels suits all encoders (multiples of %s) and cells of %d pixels",
             MAX_SIDE, trn_text_get(&list), cell);
    trn_text_free(&list);
    return TRN_ERR_ARGUMENT;
}

/* ---- aligning ---- */

/* The common grid: cells of `cell` pixels, the first of which begins at `offset`. */
typedef struct common_grid {
    int cell;
    double offset;
    int64_t rows, columns;
} common_grid;

/* How a grid comes to the common one. */
typedef enum alignment { ALIGN_NONE, ALIGN_AVERAGE, ALIGN_BILINEAR } alignment;

static alignment alignment_of(const trn_tensor *grid, double stride, double offset, const common_grid *to)
{
    int cell = to->cell;
    bool shifted = offset != to->offset;
    int64_t rows = trn_tensor_dim(grid, 1), columns = trn_tensor_dim(grid, 2);
    if (stride == cell && !shifted && rows == to->rows && columns == to->columns) return ALIGN_NONE;
    double ratio = cell / stride, whole = floor(ratio + 0.5);
    bool covers = rows == to->rows * (int64_t)whole && columns == to->columns * (int64_t)whole;
    return !shifted && whole > 1 && ratio == whole && covers ? ALIGN_AVERAGE : ALIGN_BILINEAR;
}

/* grid [B,gh,gw,C], cells of `stride` pixels from `offset` on -> [B,rows,columns,C]: bilinear between cell
 * centres, averages where the common grid is coarser. */
static trn_tensor *align(trn_graph *graph, trn_tensor *grid, double stride, double offset,
                         const common_grid *to)
{
    alignment how = alignment_of(grid, stride, offset, to);
    double ratio = to->cell / stride;
    int whole = (int)floor(ratio + 0.5);
    if (how == ALIGN_NONE) return grid;
    if (how == ALIGN_AVERAGE) return trn_pool2d(graph, grid, 1, TRN_POOL_MEAN, whole, whole);
    double shift = (to->offset + 0.5 * to->cell - offset) / stride - 0.5;
    trn_resize_desc desc = {.mode = TRN_RESIZE_BILINEAR,
                            .antialias = ratio >= 2,
                            .scale = {ratio, ratio},
                            .offset = {shift, shift}};
    return trn_resize2d(graph, grid, 1, (int)to->rows, (int)to->columns, &desc);
}

/* All grids of one encoder on the common grid, one after another along the channels. */
static trn_tensor *align_all(trn_graph *graph, const trn_features *features, const common_grid *to)
{
    trn_tensor *parts[TRN_MAX_GRIDS];
    for (int i = 0; i < features->grid_count; i++)
        parts[i] = align(graph, features->grids[i], features->stride[i], features->offset[i], to);
    return features->grid_count == 1 ? parts[0] : trn_concat(graph, parts, features->grid_count, 3);
}

/* ---- members ---- */

/* The channels of the shared image that a member reads. */
static trn_tensor *pick_channels(trn_graph *graph, trn_tensor *image, const trn_member *member)
{
    int axis = trn_tensor_shape(image)->ndim - 3;
    int64_t available = trn_tensor_dim(image, axis);
    bool same = (int64_t)member->channel_count == available, follow = true;
    for (size_t i = 0; i < member->channel_count; i++) {
        if (member->channels[i] < 0 || member->channels[i] >= available)
            return trn_graph_fail(graph, "encoder '%s' reads channel %d of an image of %lld",
                                  trn_encoder_get_spec(member->encoder)->name, member->channels[i],
                                  (long long)available);
        same = same && member->channels[i] == (int)i;
        follow = follow && member->channels[i] == member->channels[0] + (int)i;
    }
    if (same) return image;
    if (!member->channel_count)
        return trn_graph_fail(graph, "encoder '%s' reads no channel",
                              trn_encoder_get_spec(member->encoder)->name);
    if (follow) return trn_slice(graph, image, axis, member->channels[0], (int64_t)member->channel_count);
    int32_t *index = malloc(member->channel_count * sizeof *index);
    if (!index) return trn_graph_fail(graph, "no memory for the choice of channels");
    for (size_t i = 0; i < member->channel_count; i++)
        index[i] = member->channels[i];
    trn_tensor *rows = trn_constant_int(graph, "channels", TRN_SHAPE((int64_t)member->channel_count), index);
    free(index);
    return trn_gather(graph, image, axis, rows);
}

/* The date of a series that a member sees: [B,T,C,h,w] -> [B,C,h,w]. */
static trn_tensor *pick_date(trn_graph *graph, trn_tensor *image, const trn_member *member)
{
    if (!member->date) return image;
    const trn_shape *s = trn_tensor_shape(image);
    int64_t dates = s->ndim == 5 ? s->dim[1] : 1;
    if (member->date < 1 || member->date > dates)
        return trn_graph_fail(graph, "encoder '%s' is to see date %d of %lld",
                              trn_encoder_get_spec(member->encoder)->name, member->date, (long long)dates);
    if (s->ndim == 4) return image;
    trn_tensor *one = trn_slice(graph, image, 1, member->date - 1, 1);
    return trn_reshape(graph, one, TRN_SHAPE(s->dim[0], s->dim[2], s->dim[3], s->dim[4]));
}

/* x [..,C,h,w] held within the member's limits of each channel. */
static trn_tensor *hold_within(trn_graph *graph, trn_tensor *x, const trn_member *member)
{
    if (!member->low || !member->high) return x;
    trn_shape shape = TRN_SHAPE((int64_t)member->channel_count, 1, 1);
    x = trn_max(graph, x, trn_constant(graph, "low", shape, member->low));
    trn_tensor *high = trn_constant(graph, "high", shape, member->high);
    /* min(a, b) = -max(-a, -b) */
    return trn_affine(graph, trn_max(graph, trn_affine(graph, x, -1, 0), trn_affine(graph, high, -1, 0)), -1,
                      0);
}

/* The features of one window of a single colour, the member's blank, in the shape of the member's image:
 * known when the graph is compiled. */
static trn_status build_blank(trn_graph *graph, const trn_tensor *like, const trn_member *member,
                              trn_features *features, trn_error *err)
{
    trn_shape shape = *trn_tensor_shape(like);
    trn_tensor *colour =
        trn_constant(graph, "blank", TRN_SHAPE((int64_t)member->channel_count, 1, 1), member->blank);
    trn_encode_options options = member->options;
    options.location = NULL; /* nowhere */
    options.valid = NULL;
    shape.dim[0] = 1;
    trn_tensor *image = shape.ndim == 5 ? trn_reshape(graph, colour, TRN_SHAPE(1, 1, -1, 1, 1))
                                        : trn_reshape(graph, colour, TRN_SHAPE(1, -1, 1, 1));
    image = trn_expand(graph, image, shape);
    if (image) image = hold_within(graph, image, member);
    if (!image) return trn_graph_status(graph, err);
    return trn_encoder_build(member->encoder, graph, image, &options, features, err);
}

static trn_status subtract_blank(trn_graph *graph, const trn_tensor *image, const trn_member *member,
                                 trn_features *features, trn_error *err)
{
    trn_features blank = {0};
    trn_status status = build_blank(graph, image, member, &blank, err);
    if (status != TRN_OK) return status;
    for (int i = 0; i < features->grid_count; i++)
        features->grids[i] = trn_sub(graph, features->grids[i], blank.grids[i]);
    return trn_graph_status(graph, err);
}

static void explain_grids(const trn_member *member, const trn_features *features, const common_grid *to,
                          trn_text *out)
{
    const char *name = trn_encoder_get_spec(member->encoder)->name;
    for (int i = 0; i < features->grid_count; i++) {
        const trn_tensor *grid = features->grids[i];
        double stride = features->stride[i], offset = features->offset[i];
        trn_text_printf(out, "%s: %lld x %lld cells of %g pixels from pixel %g on, %lld channels, ", name,
                        (long long)trn_tensor_dim(grid, 2), (long long)trn_tensor_dim(grid, 1), stride,
                        offset, (long long)trn_tensor_dim(grid, 3));
        alignment how = alignment_of(grid, stride, offset, to);
        if (how == ALIGN_NONE)
            trn_text_add(out, "as they are\n");
        else if (how == ALIGN_AVERAGE)
            trn_text_printf(out, "averaged to cells of %d\n", to->cell);
        else
            trn_text_printf(out, "resampled to cells of %d (bilinear%s)\n", to->cell,
                            to->cell / stride >= 2 ? ", antialiased" : "");
    }
    if (features->pooled)
        trn_text_printf(out, "%s: one vector per window, %lld channels\n", name,
                        (long long)trn_tensor_dim(features->pooled, 1));
}

trn_status trn_compose_member(trn_graph *graph, trn_tensor *image, const trn_member *member,
                              trn_features *features, trn_error *err)
{
    trn_tensor *x = pick_date(graph, image, member);
    if (x) x = pick_channels(graph, x, member);
    if (x) x = hold_within(graph, x, member);
    if (!x) return trn_graph_status(graph, err);
    if (member->prefix) trn_graph_prefix(graph, member->prefix);
    trn_status status = trn_encoder_build(member->encoder, graph, x, &member->options, features, err);
    if (status == TRN_OK && member->blank && !features->pooled)
        status = subtract_blank(graph, x, member, features, err);
    if (member->prefix) trn_graph_prefix(graph, NULL);
    return status;
}

/* Where the common grid begins: where the members' own grids of these cells do, when they agree (DOFA's, say,
 * a pixel before the window), so that they are taken as they are; else at the window's corner. */
static double common_offset(const trn_features *features, size_t count, int cell)
{
    double offset = 0;
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        for (int g = 0; g < features[i].grid_count; g++) {
            if (features[i].stride[g] != cell) continue;
            if (found && features[i].offset[g] != offset) return 0;
            offset = features[i].offset[g];
            found = true;
        }
    }
    return offset;
}

static trn_tensor *finish_member(trn_graph *graph, const trn_features *features, const common_grid *grid,
                                 const trn_compose_options *options)
{
    trn_tensor *x = features->pooled;
    if (!x) x = align_all(graph, features, grid);
    return options->l2_normalize ? trn_l2_normalize(graph, x, 1e-12f) : x;
}

static double weight_of(const trn_member *member)
{
    return member->weight != 0 ? member->weight : 1;
}

static trn_tensor *concatenate(trn_graph *graph, trn_tensor **parts, const trn_member *members, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (weight_of(&members[i]) != 1)
            parts[i] = trn_affine(graph, parts[i], (float)weight_of(&members[i]), 0);
    return count == 1 ? parts[0] : trn_concat(graph, parts, (int)count, trn_tensor_shape(parts[0])->ndim - 1);
}

/* Weighted mean; the widths are equal. */
static trn_tensor *average(trn_graph *graph, trn_tensor **parts, const trn_member *members, size_t count)
{
    double total = 0;
    for (size_t i = 0; i < count; i++)
        total += weight_of(&members[i]);
    trn_tensor *sum = NULL;
    for (size_t i = 0; i < count; i++) {
        double share = weight_of(&members[i]) / total;
        trn_tensor *part = share == 1 ? parts[i] : trn_affine(graph, parts[i], (float)share, 0);
        sum = i ? trn_add(graph, sum, part) : part;
    }
    return sum;
}

static trn_status check_widths(trn_tensor *const *parts, const trn_member *members, size_t count,
                               trn_error *err)
{
    for (size_t i = 1; i < count; i++) {
        int64_t first = trn_tensor_dim(parts[0], -1), other = trn_tensor_dim(parts[i], -1);
        if (first == other) continue;
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "'%s' gives %lld channels and '%s' gives %lld: they cannot be averaged; concatenate them",
            trn_encoder_get_spec(members[0].encoder)->name, (long long)first,
            trn_encoder_get_spec(members[i].encoder)->name, (long long)other);
    }
    return TRN_OK;
}

static trn_status check_members(const trn_tensor *image, const trn_member *members, size_t count, int cell,
                                trn_error *err)
{
    if (!count || count > MAX_MEMBERS)
        return trn_fail(err, TRN_ERR_ARGUMENT, "%zu encoders to compose; 1 to %d are possible", count,
                        MAX_MEMBERS);
    bool dense = members[0].options.pool == TRN_FEATURES_DENSE;
    for (size_t i = 0; i < count; i++) {
        const char *name = trn_encoder_get_spec(members[i].encoder)->name;
        double weight = members[i].weight;
        if ((members[i].options.pool == TRN_FEATURES_DENSE) != dense)
            return trn_fail(err, TRN_ERR_ARGUMENT,
                            "'%s' and '%s' cannot be composed: one is dense, the other pooled",
                            trn_encoder_get_spec(members[0].encoder)->name, name);
        if (!(weight >= 0) || isinf(weight))
            return trn_fail(err, TRN_ERR_ARGUMENT, "the weight of '%s' must be a positive number, not %g",
                            name, weight);
    }
    int64_t height = trn_tensor_dim(image, -2), width = trn_tensor_dim(image, -1);
    if (dense && (cell < 1 || height % cell || width % cell))
        return trn_fail(err, TRN_ERR_ARGUMENT, "windows of %lld x %lld pixels are no multiple of cells of %d",
                        (long long)width, (long long)height, cell);
    return TRN_OK;
}

static int cell_of(const trn_member *members, size_t count, const trn_compose_options *options)
{
    int cell = options->cell;
    for (size_t i = 0; i < count && options->cell == 0; i++) {
        int stride = trn_encoder_get_spec(members[i].encoder)->stride;
        if (!cell || stride < cell) cell = stride;
    }
    return cell;
}

trn_status trn_compose(trn_graph *graph, trn_tensor *image, const trn_member *members, size_t count,
                       const trn_compose_options *options, trn_tensor **out, trn_error *err)
{
    static const trn_compose_options defaults;
    trn_tensor *parts[MAX_MEMBERS] = {NULL};
    trn_features features[MAX_MEMBERS] = {{0}};
    *out = NULL;
    if (!options) options = &defaults;
    trn_status status = trn_graph_status(graph, err);
    int cell = cell_of(members, count, options);
    if (status == TRN_OK) status = check_members(image, members, count, cell, err);
    for (size_t i = 0; i < count && status == TRN_OK; i++)
        status = trn_compose_member(graph, image, &members[i], &features[i], err);
    if (status != TRN_OK) return status;
    common_grid grid = {cell, common_offset(features, count, cell), trn_tensor_dim(image, -2) / cell,
                        trn_tensor_dim(image, -1) / cell};
    if (options->offset) *options->offset = grid.offset;
    for (size_t i = 0; i < count; i++) {
        if (options->explain) explain_grids(&members[i], &features[i], &grid, options->explain);
        parts[i] = finish_member(graph, &features[i], &grid, options);
    }
    status = trn_graph_status(graph, err);
    bool mean = options->fusion == TRN_FUSION_AVERAGE;
    if (status == TRN_OK && mean) status = check_widths(parts, members, count, err);
    if (status != TRN_OK) return status;
    *out = mean ? average(graph, parts, members, count) : concatenate(graph, parts, members, count);
    return trn_graph_status(graph, err);
}
