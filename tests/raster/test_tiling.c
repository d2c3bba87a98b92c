/* Tiling covers every scene, and stitching gives a function of the position back. */
#include "test_support.h"
#include "raster.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 3 };

static double field(int64_t x, int64_t y, int channel)
{
    return sin(0.1 * (double)x + channel) * cos(0.05 * (double)y * (channel + 1));
}

typedef struct collected {
    const trn_tiling *tiling;
    float *grid;
    int64_t rows;
    int fail_at; /* block whose emission fails; -1: none */
} collected;

static trn_status collect(void *user, int64_t first_row, int64_t rows, const float *values, trn_error *err)
{
    collected *c = user;
    if (c->fail_at-- == 0) return trn_fail(err, TRN_ERR_IO, "no more");
    assert_int_equal(first_row, c->rows);
    size_t row = (size_t)c->tiling->grid_width * CHANNELS;
    assert_true(first_row + rows <= c->tiling->grid_height);
    memcpy(c->grid + (size_t)first_row * row, values, (size_t)rows * row * sizeof(float));
    c->rows += rows;
    return TRN_OK;
}

/* Features of a window as a function of the absolute cell. */
static void make_features(const trn_tiling *t, int64_t index, float *features)
{
    int64_t x, y, side = t->tile / t->cell;
    trn_tiling_window(t, index, &x, &y);
    assert_int_equal(x % t->cell, 0);
    for (int64_t i = 0; i < side * side; i++)
        for (int c = 0; c < CHANNELS; c++)
            features[i * CHANNELS + c] = (float)field(x / t->cell + i % side, y / t->cell + i / side, c);
}

static void check_case(int64_t width, int64_t height, int tile, int overlap, int cell)
{
    trn_tiling t;
    trn_error err = {0};
    assert_trn_ok(trn_tiling_plan(width, height, tile, overlap, cell, &t, &err), err);
    int64_t x, y, side = tile / cell;
    trn_tiling_window(&t, t.columns * t.rows - 1, &x, &y);
    assert_true(x < width && y < height && x + tile >= width && y + tile >= height);
    if (t.columns > 1) assert_true(x - (tile - overlap) + tile < width); /* none too many */
    size_t cells = (size_t)(t.grid_width * t.grid_height);
    collected c = {.tiling = &t, .grid = calloc(cells * CHANNELS, sizeof(float)), .fail_at = -1};
    float *features = malloc((size_t)(side * side) * CHANNELS * sizeof *features);
    trn_stitcher *stitcher;
    assert_trn_ok(trn_stitcher_create(&t, CHANNELS, collect, &c, &stitcher, &err), err);
    for (int64_t i = 0; i < t.columns * t.rows; i++) {
        make_features(&t, i, features);
        assert_trn_ok(trn_stitcher_add(stitcher, i, features, NULL, &err), err);
    }
    assert_trn_ok(trn_stitcher_finish(stitcher, &err), err);
    trn_stitcher_destroy(stitcher);
    assert_int_equal(c.rows, t.grid_height);
    double worst = 0;
    for (size_t i = 0; i < cells * CHANNELS; i++) {
        int64_t at = (int64_t)(i / CHANNELS);
        double d = fabs((double)c.grid[i] - field(at % t.grid_width, at / t.grid_width, (int)(i % CHANNELS)));
        if (!(d <= worst)) worst = isnan(d) ? INFINITY : d;
    }
    if (!(worst < 1e-6))
        fail_msg("%lld x %lld, tile %d, overlap %d, cell %d: %.3g", (long long)width, (long long)height, tile,
                 overlap, cell, worst);
    free(c.grid), free(features);
}

static void stitching_gives_the_field_back(void **state)
{
    (void)state;
    static const int sizes[][2] = {{1, 1}, {7, 95}, {64, 64}, {65, 63}, {349, 352}, {129, 500}};
    static const int tilings[][3] = {{64, 0, 16}, {64, 16, 16}, {64, 32, 16}, {64, 48, 16},
                                     {32, 8, 1},  {56, 14, 14}, {33, 5, 1},   {16, 0, 16}};
    for (size_t s = 0; s < TRN_COUNT(sizes); s++)
        for (size_t t = 0; t < TRN_COUNT(tilings); t++) {
            if (tilings[t][1] % tilings[t][2]) continue;
            check_case(sizes[s][0], sizes[s][1], tilings[t][0], tilings[t][1], tilings[t][2]);
        }
}

static void cells_without_data_are_nan(void **state)
{
    (void)state;
    trn_tiling t;
    trn_error err = {0};
    assert_trn_ok(trn_tiling_plan(96, 96, 64, 32, 16, &t, &err), err);
    float grid[6 * 6 * CHANNELS], features[4 * 4 * CHANNELS];
    uint8_t valid[16];
    collected c = {.tiling = &t, .grid = grid, .fail_at = -1};
    trn_stitcher *stitcher;
    assert_trn_ok(trn_stitcher_create(&t, CHANNELS, collect, &c, &stitcher, &err), err);
    for (int64_t i = 0; i < 4; i++) { /* cell (2, 3) of the grid is invalid, and what stands there is wild */
        int64_t x, y;
        trn_tiling_window(&t, i, &x, &y);
        make_features(&t, i, features);
        for (int64_t k = 0; k < 16; k++) {
            valid[k] = !(x / 16 + k % 4 == 2 && y / 16 + k / 4 == 3);
            for (int ch = 0; ch < CHANNELS && !valid[k]; ch++)
                features[k * CHANNELS + ch] = NAN;
        }
        /* the last window has no data at all */
        assert_trn_ok(trn_stitcher_add(stitcher, i, i == 3 ? NULL : features, valid, &err), err);
    }
    assert_trn_ok(trn_stitcher_finish(stitcher, &err), err);
    trn_stitcher_destroy(stitcher);
    for (int i = 0; i < 36; i++) {
        bool empty = (i % 6 == 2 && i / 6 == 3) || (i % 6 >= 4 && i / 6 >= 4);
        for (int ch = 0; ch < CHANNELS; ch++) {
            float v = grid[i * CHANNELS + ch];
            if (empty)
                assert_true(isnan(v));
            else
                assert_true(fabs((double)v - field(i % 6, i / 6, ch)) < 1e-6);
        }
    }
}

static void misuse_is_refused(void **state)
{
    (void)state;
    trn_tiling t;
    trn_error err = {0};
    assert_trn_fails(trn_tiling_plan(0, 5, 64, 0, 16, &t, &err), TRN_ERR_ARGUMENT, err, "0 x 5");
    assert_trn_fails(trn_tiling_plan(5, 5, 60, 0, 16, &t, &err), TRN_ERR_ARGUMENT, err, "tile 60");
    assert_trn_fails(trn_tiling_plan(5, 5, 64, 64, 16, &t, &err), TRN_ERR_ARGUMENT, err, "overlap 64");
    assert_trn_fails(trn_tiling_plan(5, 5, 64, 8, 16, &t, &err), TRN_ERR_ARGUMENT, err, "overlap 8");
    assert_trn_fails(trn_tiling_plan(5, 5, 64, -16, 16, &t, &err), TRN_ERR_ARGUMENT, err, "overlap");
    assert_trn_ok(trn_tiling_plan(130, 130, 64, 0, 16, &t, &err), err);
    float grid[9 * 9 * CHANNELS], features[16 * CHANNELS] = {0};
    collected c = {.tiling = &t, .grid = grid, .fail_at = 0};
    trn_stitcher *stitcher;
    assert_trn_ok(trn_stitcher_create(&t, CHANNELS, collect, &c, &stitcher, &err), err);
    assert_trn_fails(trn_stitcher_add(stitcher, 1, features, NULL, &err), TRN_ERR_INTERNAL, err, "window 1");
    for (int i = 0; i < 3; i++)
        assert_trn_ok(trn_stitcher_add(stitcher, i, features, NULL, &err), err);
    assert_trn_fails(trn_stitcher_finish(stitcher, &err), TRN_ERR_INTERNAL, err, "3 of 9");
    assert_trn_fails(trn_stitcher_add(stitcher, 3, features, NULL, &err), TRN_ERR_IO, err, "no more");
    trn_stitcher_destroy(stitcher);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stitching_gives_the_field_back),
        cmocka_unit_test(cells_without_data_are_nan),
        cmocka_unit_test(misuse_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
