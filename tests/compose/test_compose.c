/* Several encoders as one: exact geometry, fusion, window sides. */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "compose.h"

enum { MAX_MEMBERS = 4 };

/* Members, and what they need. */
typedef struct team {
    trn_encoder *encoders[MAX_MEMBERS];
    trn_member members[MAX_MEMBERS];
    size_t count;
    trn_weights *weights;
} team;

static const int rgb[] = {0, 1, 2};
#define SMALL                                                                                                \
    {"dim", "16"}, {"depth", "1"},                                                                           \
    {                                                                                                        \
        "heads", "2"                                                                                         \
    }

static void join(team *t, const char *name, const trn_setting *settings, size_t count)
{
    trn_error err = {0};
    trn_encoder *encoder;
    if (!t->weights) assert_trn_ok(trn_weights_open_synthetic(&t->weights, &err), err);
    assert_trn_ok(trn_encoder_create(name, settings, count, &encoder, &err), err);
    if (trn_encoder_get_spec(encoder)->needs_weights)
        assert_trn_ok(trn_encoder_load(encoder, t->weights, NULL, &err), err);
    t->encoders[t->count] = encoder;
    t->members[t->count++] = (trn_member){.encoder = encoder, .channels = rgb, .channel_count = 3};
}

static void join_patch(team *t, const char *patch, const char *side)
{
    const trn_setting settings[] = {SMALL, {"patch", patch}, {"img_size", side}};
    join(t, "mae-vit-base", settings, TRN_COUNT(settings));
}

/* A random convolutional encoder without a threshold whose features follow the image: for ramps. */
static void join_cells(team *t, const char *cell)
{
    enum { SIDE = 16, WINDOWS = 2, COUNT = WINDOWS * 3 * SIDE * SIDE };
    const trn_setting settings[] = {{"features", "4"}, {"patch", "1"}, {"cell", cell}, {"bias", "-100"}};
    trn_error err = {0};
    join(t, "rcf", settings, TRN_COUNT(settings));
    float *noise = test_hash_values("compose noise", COUNT, 1, 0);
    assert_trn_ok(trn_encoder_fit(t->encoders[t->count - 1], noise, WINDOWS, 3, SIDE, &err), err);
    free(noise);
}

static void disband(team *t)
{
    for (size_t i = 0; i < t->count; i++)
        trn_encoder_destroy(t->encoders[i]);
    trn_weights_close(t->weights);
    *t = (team){0};
}

/* Composes over one image [1,channels,side,side]; values malloc'd. */
static float *compose(team *t, const trn_compose_options *options, float *image, int64_t channels,
                      int64_t side, trn_shape *shape)
{
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_tensor *out, *x = trn_input(graph, "image", TRN_F32, TRN_SHAPE(1, channels, side, side));
    assert_trn_ok(trn_compose(graph, x, t->members, t->count, options, &out, &err), err);
    *shape = *trn_tensor_shape(out);
    trn_output_add(graph, "out", out);
    float *values = malloc((size_t)trn_shape_count(shape) * sizeof *values);
    trn_named_data input = {"image", image}, output = {"out", values};
    assert_trn_ok(trn_reference_run(graph, &input, 1, &output, 1, &err), err);
    trn_graph_destroy(graph);
    return values;
}

static void expect_error(team *t, const trn_compose_options *options, int64_t side, const char *text)
{
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_tensor *out, *x = trn_input(graph, "image", TRN_F32, TRN_SHAPE(1, 3, side, side));
    assert_trn_fails(trn_compose(graph, x, t->members, t->count, options, &out, &err), TRN_ERR_ARGUMENT, err,
                     text);
    assert_null(out);
    trn_graph_destroy(graph);
}

/* ---- geometry ---- */

/* With a threshold far below all responses, the features are linear in the image, so a ramp of pixels gives a
 * ramp of cells whatever the cell size. On the common grid all encoders must place it alike: feature(row,
 * column) = a + b * pixel column of the cell's centre, with one a and b per channel for all strides. */
static void check_ramp(const char *const *strides, size_t count, int cell, int64_t side)
{
    team t = {0};
    float *image = malloc((size_t)(3 * side * side) * sizeof *image);
    for (int64_t i = 0; i < 3 * side * side; i++)
        image[i] = (float)(i % side) / (float)side + 0.5f * (float)(i / side % side) / (float)side;
    for (size_t i = 0; i < count; i++) {
        join_cells(&t, strides[i]);
        t.members[i].options.normalize = TRN_NORMALIZE_NONE;
    }
    trn_shape shape;
    float *out = compose(&t, &(trn_compose_options){.cell = cell}, image, 3, side, &shape);
    int64_t n = side / cell, width = 4 * (int64_t)count, margin = 16 / cell + 1;
    assert_true(trn_shape_equal(&shape, &TRN_SHAPE(1, n, n, width)));
    for (int c = 0; c < 4; c++) {
        double first = (double)out[(margin * n + margin) * width + c];
        double right = (double)out[(margin * n + margin + 1) * width + c] - first;
        double down = (double)out[((margin + 1) * n + margin) * width + c] - first;
        assert_true(fabs(right) > 1e-4);
        for (int64_t i = 0; i < n * n; i++) {
            int64_t row = i / n, column = i % n;
            if (row < margin || column < margin || row >= n - margin || column >= n - margin) continue;
            double wanted = first + right * (double)(column - margin) + down * (double)(row - margin);
            for (size_t m = 0; m < count; m++) {
                double value = (double)out[i * width + (int64_t)m * 4 + c];
                if (!(fabs(value - wanted) < 2e-4 + 0.01 * fabs(right)))
                    fail_msg("stride %s on cells of %d, channel %d, cell %lld: %g, not %g", strides[m], cell,
                             c, (long long)i, value, wanted);
            }
        }
    }
    free(out);
    free(image);
    disband(&t);
}

static void test_ramps(void **state)
{
    (void)state;
    static const char *const unequal[] = {"14", "16", "8"}, *const same[] = {"8", "8"};
    check_ramp(unequal, 3, 14, 224);
    check_ramp(unequal, 3, 16, 224);
    check_ramp(unequal, 2, 8, 224);
    check_ramp(unequal, 3, 4, 112);
    check_ramp(same, 2, 8, 64);
}

/* Cells that are whole multiples are averages of the finer ones. */
static void test_coarser_multiple(void **state)
{
    (void)state;
    enum { SIDE = 32, CELLS = 4, WIDTH = 16 };
    team t = {0};
    join_patch(&t, "4", "32");
    float *image = test_hash_values("coarser", 3 * SIDE * SIDE, 100, 120);
    trn_shape shape;
    float *fine = compose(&t, &(trn_compose_options){.cell = 4}, image, 3, SIDE, &shape);
    assert_true(trn_shape_equal(&shape, &TRN_SHAPE(1, 8, 8, WIDTH)));
    float *coarse = compose(&t, &(trn_compose_options){.cell = 8}, image, 3, SIDE, &shape);
    assert_true(trn_shape_equal(&shape, &TRN_SHAPE(1, CELLS, CELLS, WIDTH)));
    for (int i = 0; i < CELLS * CELLS * WIDTH; i++) {
        int c = i % WIDTH, x = i / WIDTH % CELLS, y = i / WIDTH / CELLS;
        double sum = 0;
        for (int k = 0; k < 4; k++)
            sum += (double)fine[((2 * y + k / 2) * 8 + 2 * x + k % 2) * WIDTH + c] / 4;
        assert_true(fabs(sum - (double)coarse[i]) < 1e-5);
    }
    free(fine);
    free(coarse);
    free(image);
    disband(&t);
}

/* ---- fusion ---- */

static double length_of(const float *v, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)v[i] * (double)v[i];
    return sqrt(sum);
}

static void pool_all(team *t, trn_feature_pool pool)
{
    for (size_t i = 0; i < t->count; i++)
        t->members[i].options.pool = pool;
}

static void test_fusion(void **state)
{
    (void)state;
    enum { SIDE = 32, WIDTH = 16 };
    team t = {0}, one = {0}, two = {0};
    join_patch(&t, "8", "32");
    join_patch(&t, "16", "32");
    join_patch(&one, "8", "32");
    join_patch(&two, "16", "32");
    pool_all(&t, TRN_FEATURES_MEAN);
    pool_all(&one, TRN_FEATURES_MEAN);
    pool_all(&two, TRN_FEATURES_MEAN);
    t.members[1].weight = 3;
    float *image = test_hash_values("fusion", 3 * SIDE * SIDE, 100, 120);
    trn_shape shape;
    const trn_compose_options unit = {.l2_normalize = true}, mean = {.fusion = TRN_FUSION_AVERAGE};
    float *a = compose(&one, NULL, image, 3, SIDE, &shape), *b = compose(&two, NULL, image, 3, SIDE, &shape);
    assert_true(trn_shape_equal(&shape, &TRN_SHAPE(1, WIDTH)));
    float *both = compose(&t, &unit, image, 3, SIDE, &shape), *average;
    assert_true(trn_shape_equal(&shape, &TRN_SHAPE(1, 2 * WIDTH)));
    average = compose(&t, &mean, image, 3, SIDE, &shape);
    assert_true(trn_shape_equal(&shape, &TRN_SHAPE(1, WIDTH)));
    assert_true(fabs(length_of(both, WIDTH) - 1) < 1e-6 && fabs(length_of(both + WIDTH, WIDTH) - 3) < 1e-5);
    for (int i = 0; i < WIDTH; i++) {
        assert_true(fabs((double)both[i] * length_of(a, WIDTH) - (double)a[i]) < 1e-5);
        assert_true(fabs(0.25 * (double)a[i] + 0.75 * (double)b[i] - (double)average[i]) < 1e-6);
    }
    free(a);
    free(b);
    free(both);
    free(average);
    free(image);
    disband(&t);
    disband(&one);
    disband(&two);
}

/* A member reads its own channels of the shared image. */
static void test_channels(void **state)
{
    (void)state;
    enum { SIDE = 16, CHANNELS = 5 };
    static const int follow[] = {1, 2, 3}, spread[] = {4, 0, 2};
    const int *const choices[] = {follow, spread};
    team t = {0};
    join_patch(&t, "8", "16");
    float *image = test_hash_values("channels", CHANNELS * SIDE * SIDE, 100, 120), own[3 * SIDE * SIDE];
    trn_shape shape;
    for (size_t k = 0; k < TRN_COUNT(choices); k++) {
        for (int c = 0; c < 3; c++)
            memcpy(own + c * SIDE * SIDE, image + choices[k][c] * SIDE * SIDE, SIDE * SIDE * sizeof *own);
        t.members[0].channels = rgb;
        float *wanted = compose(&t, NULL, own, 3, SIDE, &shape);
        t.members[0].channels = choices[k];
        float *picked = compose(&t, NULL, image, CHANNELS, SIDE, &shape);
        assert_memory_equal(picked, wanted, (size_t)trn_shape_count(&shape) * sizeof *picked);
        free(wanted);
        free(picked);
    }
    free(image);
    disband(&t);
}

static void test_errors(void **state)
{
    (void)state;
    static const int outside[] = {0, 1, 7};
    const trn_setting wide[] = {
        {"dim", "32"}, {"depth", "1"}, {"heads", "2"}, {"patch", "8"}, {"img_size", "16"}};
    team t = {0};
    join_patch(&t, "8", "16");
    join(&t, "mae-vit-base", wide, TRN_COUNT(wide));
    expect_error(&t, &(trn_compose_options){.fusion = TRN_FUSION_AVERAGE}, 16,
                 "gives 16 channels and 'mae-vit-base' gives 32");
    expect_error(&t, &(trn_compose_options){.cell = 5}, 16, "no multiple of cells of 5");
    t.members[1].options.pool = TRN_FEATURES_CLS;
    expect_error(&t, NULL, 16, "one is dense, the other pooled");
    t.members[1].options.pool = TRN_FEATURES_DENSE;
    t.members[1].weight = -1;
    expect_error(&t, NULL, 16, "must be a positive number");
    t.members[1].weight = 1;
    t.members[1].channels = outside;
    expect_error(&t, NULL, 16, "reads channel 7 of an image of 3");
    t.members[1].channels = rgb;
    expect_error(&t, &(trn_compose_options){.cell = 4}, 20, "multiples of 8");
    t.count = 0;
    expect_error(&t, NULL, 16, "0 encoders");
    t.count = 2;
    disband(&t);
}

/* A window of the blank colour has no features left; another has the difference from it. */
static void test_blank(void **state)
{
    (void)state;
    static const float colour[] = {0.25f, -0.5f, 1};
    enum { SIDE = 32, COUNT = 3 * SIDE * SIDE };
    team t = {0};
    join_patch(&t, "8", "32");
    t.members[0].options.normalize = TRN_NORMALIZE_NONE;
    float blank[COUNT], *other = test_hash_values("image", COUNT, 1, 0);
    for (int i = 0; i < COUNT; i++)
        blank[i] = colour[i / (SIDE * SIDE)];
    trn_shape shape;
    float *of_blank = compose(&t, NULL, blank, 3, SIDE, &shape),
          *of_other = compose(&t, NULL, other, 3, SIDE, &shape);
    t.members[0].blank = colour;
    float *nothing = compose(&t, NULL, blank, 3, SIDE, &shape),
          *difference = compose(&t, NULL, other, 3, SIDE, &shape);
    bool all_same = true;
    for (int64_t i = 0; i < trn_shape_count(&shape); i++) {
        assert_true(nothing[i] == 0);
        assert_true(fabsf(difference[i] - (of_other[i] - of_blank[i])) < 1e-6f);
        all_same = all_same && of_blank[i] == of_blank[i % 16];
    }
    assert_false(all_same); /* the blank's cells differ by position, or this shows nothing */
    free(other), free(of_blank), free(of_other), free(nothing), free(difference);
    disband(&t);
}

/* ---- window sides ---- */

static void expect_tile(team *t, int cell, int wanted, int tile)
{
    trn_error err = {0};
    int side = 0;
    assert_trn_ok(trn_compose_tile(t->encoders, t->count, cell, wanted, &side, &err), err);
    assert_int_equal(side, tile);
}

static void test_tiles(void **state)
{
    (void)state;
    const trn_setting odd[] = {{"cell", "1021"}};
    team t = {0};
    join_patch(&t, "14", "56");
    join_patch(&t, "16", "64");
    assert_int_equal(trn_compose_cell(t.encoders, t.count), 14);
    expect_tile(&t, 0, 0, 112);
    expect_tile(&t, 14, 200, 224);
    expect_tile(&t, 10, 1, 560);
    expect_tile(&t, 16, 112, 112);
    join(&t, "rcf", odd, 1);
    trn_error err = {0};
    int side;
    assert_trn_fails(trn_compose_tile(t.encoders, t.count, 0, 0, &side, &err), TRN_ERR_ARGUMENT, err,
                     "rcf: 1021");
    disband(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ramps),  cmocka_unit_test(test_coarser_multiple),
        cmocka_unit_test(test_fusion), cmocka_unit_test(test_channels),
        cmocka_unit_test(test_errors), cmocka_unit_test(test_blank),
        cmocka_unit_test(test_tiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
