/* SAM 2's feature pyramid: every stage brought to the same channels, deeper levels added to shallower ones.
 */
#include "sam2.h"

#include <math.h>
#include <stdlib.h>

void trn_sam2_stage(const trn_build *build, trn_tensor *grid, const char *name, int index)
{
    if (!build->stage || !grid) return;
    trn_tensor *turned = trn_permute(build->scope.graph, grid, (int[]){0, 3, 1, 2});
    trn_build_stage(build, turned, "%s%d", name, index);
}

/* ---- positions ---- */

/* One half of the channels at cell `i` of `count`; in float32, as the original computes it. */
static void fill_half(int64_t i, int64_t count, int64_t half, float *out)
{
    const float turn = 6.283185307179586f;
    float position = (float)(i + 1) / ((float)count + 1e-6f) * turn;
    for (int64_t k = 0; k < half; k++) {
        int64_t even = k - k % 2;
        float divisor = (float)pow(10000.0, (double)((float)even / (float)half));
        double angle = (double)(position / divisor);
        out[k] = (float)(k % 2 ? cos(angle) : sin(angle));
    }
}

/* Sine table [h,w,D] that SAM 2's decoders add to a level of that size: rows in the first half of the
 * channels, columns in the second. D is a multiple of 4. */
static trn_tensor *positions(trn_graph *graph, trn_grid_size size, int64_t dim)
{
    int64_t half = dim / 2;
    float *table = malloc((size_t)size.h * (size_t)size.w * (size_t)dim * sizeof *table);
    if (!table) return trn_graph_fail(graph, "not enough memory for a table of positions");
    for (int64_t cell = 0; cell < size.h * size.w; cell++) {
        fill_half(cell / size.w, size.h, half, table + cell * dim);
        fill_half(cell % size.w, size.w, half, table + cell * dim + half);
    }
    trn_tensor *x = trn_constant(graph, "positions", TRN_SHAPE(size.h, size.w, dim), table);
    free(table);
    return x;
}

/* ---- pyramid ---- */

/* A 1x1 convolution: [B,h,w,C] -> [B,h,w,dim] */
static trn_tensor *lateral(const trn_scope *scope, trn_tensor *x, int conv, int64_t dim)
{
    if (!x) return NULL;
    int64_t channels = trn_tensor_dim(x, -1);
    trn_scope inner = trn_scope_enter(scope, "convs.%d.conv", conv);
    trn_graph_scope(scope->graph, inner.prefix);
    trn_tensor *w = trn_scope_param(&inner, "weight", TRN_SHAPE(dim, channels, 1, 1));
    trn_tensor *b = trn_scope_param(&inner, "bias", TRN_SHAPE(dim));
    return trn_linear(scope->graph, x, trn_reshape(scope->graph, w, TRN_SHAPE(dim, channels)), b);
}

/* level + deeper, enlarged to twice its size */
static trn_tensor *take_in(trn_graph *graph, const trn_sam2_neck *neck, trn_tensor *level, trn_tensor *deeper)
{
    if (!level || !deeper) return NULL;
    int64_t h = trn_tensor_dim(level, 1), w = trn_tensor_dim(level, 2);
    trn_resize_desc how = {.mode = neck->bilinear ? TRN_RESIZE_BILINEAR : TRN_RESIZE_NEAREST};
    if (h != 2 * trn_tensor_dim(deeper, 1) || w != 2 * trn_tensor_dim(deeper, 2))
        return trn_graph_fail(graph,
                              "the neck cannot add a level of %lldx%lld cells to one of %lldx%lld: choose a "
                              "window side that halves evenly at every stage",
                              (long long)trn_tensor_dim(deeper, 1), (long long)trn_tensor_dim(deeper, 2),
                              (long long)h, (long long)w);
    trn_tensor *sum = trn_add(graph, level, trn_resize2d(graph, deeper, 1, (int)h, (int)w, &how));
    return neck->average ? trn_affine(graph, sum, 0.5f, 0) : sum;
}

/* What SAM 2's memory and decoder are told of places: no feature, but the original's encoder gives it. */
static void tell_positions(const trn_build *build, const trn_tensor *level, int index)
{
    if (!build->stage || !level) return;
    trn_graph *graph = build->scope.graph;
    trn_grid_size size = {trn_tensor_dim(level, 1), trn_tensor_dim(level, 2)};
    int64_t dim = trn_tensor_dim(level, 3);
    trn_tensor *table = positions(graph, size, dim);
    trn_sam2_stage(build, trn_reshape(graph, table, TRN_SHAPE(1, size.h, size.w, dim)), "pos", index);
}

void trn_sam2_build_neck(const trn_build *build, const trn_scope *scope, const trn_sam2_neck *neck,
                         trn_tensor *const *stages, trn_tensor **levels)
{
    int deepest = neck->levels - 1;
    for (int i = deepest; i >= 0; i--) {
        levels[i] = lateral(scope, stages[i], deepest - i, neck->dim);
        trn_sam2_stage(build, levels[i], "lateral", i);
        if (i < deepest && neck->top_down[i])
            levels[i] = take_in(scope->graph, neck, levels[i], levels[i + 1]);
        trn_sam2_stage(build, levels[i], "fpn", i);
        tell_positions(build, levels[i], i);
    }
    trn_graph_scope(scope->graph, NULL);
}
