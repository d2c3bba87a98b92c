/* Cutting a scene into overlapping windows, and stitching their features back without seams. */
#include "raster.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TILE = 1 << 16 };

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t windows_along(int64_t size, int tile, int overlap)
{
    return size <= tile ? 1 : 1 + ceil_div(size - tile, tile - overlap);
}

trn_status trn_tiling_plan(int64_t width, int64_t height, int tile, int overlap, int cell, trn_tiling *out,
                           trn_error *err)
{
    if (width < 1 || height < 1 || width > INT32_MAX || height > INT32_MAX)
        return trn_fail(err, TRN_ERR_ARGUMENT, "a scene of %lld x %lld pixels cannot be tiled",
                        (long long)width, (long long)height);
    if (cell < 1 || tile < cell || tile > MAX_TILE || tile % cell)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "tile %d: it must be a multiple of the feature cell (%d pixels), at most %d", tile,
                        cell, MAX_TILE);
    if (overlap < 0 || overlap >= tile || overlap % cell)
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "overlap %d: it must be a multiple of the feature cell (%d pixels) from 0 to below the tile (%d)",
            overlap, cell, tile);
    *out = (trn_tiling){
        .width = width,
        .height = height,
        .tile = tile,
        .overlap = overlap,
        .cell = cell,
        .columns = windows_along(width, tile, overlap),
        .rows = windows_along(height, tile, overlap),
        .grid_width = ceil_div(width, cell),
        .grid_height = ceil_div(height, cell),
    };
    return TRN_OK;
}

void trn_tiling_window(const trn_tiling *tiling, int64_t index, int64_t *x, int64_t *y)
{
    int step = tiling->tile - tiling->overlap;
    *x = index % tiling->columns * step;
    *y = index / tiling->columns * step;
}

/* Sums of the rows that windows still to come may touch: `side` rows from first_row on. */
struct trn_stitcher {
    trn_tiling tiling;
    int channels;
    int64_t side, step; /* cells of a window, cells from one to the next */
    trn_stitch_rows emit;
    void *user;
    int64_t next, first_row;
    float *sums;     /* [side, grid_width, channels] */
    double *weights; /* [side, grid_width] */
    double *ramp;    /* [side] */
};

/* Raised cosine over the overlap, taken at the cell's centre: above zero everywhere. */
static double edge_weight(int64_t cell, int64_t side, int64_t overlap)
{
    const double half_pi = 1.5707963267948966;
    double from_edge = (double)TRN_MIN(cell, side - 1 - cell) + 0.5;
    if (from_edge >= (double)overlap) return 1;
    double s = sin(half_pi * from_edge / (double)overlap);
    return s * s;
}

trn_status trn_stitcher_create(const trn_tiling *tiling, int channels, trn_stitch_rows emit, void *user,
                               trn_stitcher **out, trn_error *err)
{
    *out = NULL;
    if (channels < 1) return trn_fail(err, TRN_ERR_ARGUMENT, "stitching %d channels", channels);
    size_t side = (size_t)(tiling->tile / tiling->cell), cells, bytes;
    bool fits = trn_mul_size(side, (size_t)tiling->grid_width, &cells) &&
                trn_mul_size(cells, (size_t)channels * sizeof(float), &bytes);
    if (!fits) return trn_fail(err, TRN_ERR_MEMORY, "stitching %d channels over a grid this wide", channels);
    trn_stitcher *stitcher = calloc(1, sizeof *stitcher);
    if (stitcher) {
        stitcher->sums = calloc(cells, (size_t)channels * sizeof(float));
        stitcher->weights = calloc(cells, sizeof *stitcher->weights);
        stitcher->ramp = calloc(side, sizeof *stitcher->ramp);
    }
    if (!stitcher || !stitcher->sums || !stitcher->weights || !stitcher->ramp) {
        trn_stitcher_destroy(stitcher);
        return trn_fail_memory(err, bytes, "the rows of features being stitched");
    }
    stitcher->tiling = *tiling;
    stitcher->channels = channels;
    stitcher->side = (int64_t)side;
    stitcher->step = (tiling->tile - tiling->overlap) / tiling->cell;
    stitcher->emit = emit;
    stitcher->user = user;
    for (size_t i = 0; i < side; i++)
        stitcher->ramp[i] = edge_weight((int64_t)i, (int64_t)side, tiling->overlap / tiling->cell);
    *out = stitcher;
    return TRN_OK;
}

/* Sums to means, in place. */
static void normalise(trn_stitcher *stitcher, int64_t rows)
{
    size_t channels = (size_t)stitcher->channels, cells = (size_t)(rows * stitcher->tiling.grid_width);
    for (size_t i = 0; i < cells; i++) {
        float *values = stitcher->sums + i * channels;
        double weight = stitcher->weights[i];
        for (size_t c = 0; c < channels; c++)
            values[c] = weight > 0 ? (float)((double)values[c] / weight) : NAN;
    }
}

/* Gives away the first `rows` rows and moves the rest up. */
static trn_status emit_rows(trn_stitcher *stitcher, int64_t rows, trn_error *err)
{
    size_t width = (size_t)stitcher->tiling.grid_width, row = width * (size_t)stitcher->channels;
    size_t kept = (size_t)(stitcher->side - rows), gone = (size_t)rows;
    normalise(stitcher, rows);
    trn_status status = stitcher->emit(stitcher->user, stitcher->first_row, rows, stitcher->sums, err);
    memmove(stitcher->sums, stitcher->sums + gone * row, kept * row * sizeof(float));
    memset(stitcher->sums + kept * row, 0, gone * row * sizeof(float));
    memmove(stitcher->weights, stitcher->weights + gone * width, kept * width * sizeof(double));
    memset(stitcher->weights + kept * width, 0, gone * width * sizeof(double));
    stitcher->first_row += rows;
    return status;
}

static void add_cell(float *sums, const float *features, size_t channels, float weight)
{
    for (size_t c = 0; c < channels; c++)
        sums[c] += weight * features[c];
}

static void add_window(trn_stitcher *stitcher, int64_t left, int64_t top, const float *features,
                       const uint8_t *valid)
{
    const trn_tiling *tiling = &stitcher->tiling;
    int64_t side = stitcher->side, columns = TRN_MIN(side, tiling->grid_width - left);
    int64_t rows = TRN_MIN(side, tiling->grid_height - top);
    size_t channels = (size_t)stitcher->channels;
    for (int64_t y = 0; y < rows; y++) {
        for (int64_t x = 0; x < columns; x++) {
            size_t from = (size_t)(y * side + x);
            size_t to = (size_t)((top + y - stitcher->first_row) * tiling->grid_width + left + x);
            if (valid && !valid[from]) continue;
            float weight = (float)(stitcher->ramp[y] * stitcher->ramp[x]);
            add_cell(stitcher->sums + to * channels, features + from * channels, channels, weight);
            stitcher->weights[to] += (double)weight;
        }
    }
}

trn_status trn_stitcher_add(trn_stitcher *stitcher, int64_t index, const float *features,
                            const uint8_t *cell_valid, trn_error *err)
{
    const trn_tiling *tiling = &stitcher->tiling;
    if (index != stitcher->next || index >= tiling->columns * tiling->rows)
        return trn_fail(err, TRN_ERR_INTERNAL, "window %lld was stitched when %lld was next",
                        (long long)index, (long long)stitcher->next);
    int64_t column = index % tiling->columns, row = index / tiling->columns;
    if (!column && row) {
        trn_status status = emit_rows(stitcher, stitcher->step, err);
        if (status != TRN_OK) return status;
    }
    stitcher->next++;
    if (features) add_window(stitcher, column * stitcher->step, row * stitcher->step, features, cell_valid);
    return TRN_OK;
}

trn_status trn_stitcher_finish(trn_stitcher *stitcher, trn_error *err)
{
    const trn_tiling *tiling = &stitcher->tiling;
    if (stitcher->next != tiling->columns * tiling->rows)
        return trn_fail(err, TRN_ERR_INTERNAL, "%lld of %lld windows were stitched",
                        (long long)stitcher->next, (long long)(tiling->columns * tiling->rows));
    int64_t rows = tiling->grid_height - stitcher->first_row;
    return rows > 0 ? emit_rows(stitcher, rows, err) : TRN_OK;
}

void trn_stitcher_destroy(trn_stitcher *stitcher)
{
    if (!stitcher) return;
    free(stitcher->sums);
    free(stitcher->weights);
    free(stitcher->ramp);
    free(stitcher);
}
