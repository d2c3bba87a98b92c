/* Presto against the outputs of the original, and its choices of bands, dates, places and cells. */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "running.h"

/* The published file, where the shared data has it. */
static const char *published(void)
{
    static char path[4096];
    const char *shared = getenv("TERRANE_SHARED");
    snprintf(path, sizeof path, "%s/weights/presto/default_model.pt", shared ? shared : "../shared");
    FILE *file = fopen(path, "rb");
    if (file) fclose(file);
    return file ? path : NULL;
}

static const trn_encode_options as_is_mean = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_MEAN};

static const trn_band_offer all_bands[] = {{"vv", 0},  {"vh", 0},       {"blue", 0},     {"green", 0},
                                           {"red", 0}, {"rededge1", 0}, {"rededge2", 0}, {"rededge3", 0},
                                           {"nir", 0}, {"nir08", 0},    {"swir16", 0},   {"swir22", 0}};
static const trn_band_offer optical[] = {{"blue", 0}, {"green", 0},  {"red", 0},
                                         {"nir", 0},  {"swir16", 0}, {"swir22", 0}};

typedef struct offered {
    const trn_band_offer *bands;
    size_t count;
} offered;
#define OFFER(list) ((offered){list, TRN_COUNT(list)})

static trn_encoder *open_encoder(offered scene, const trn_setting *settings, size_t count, int64_t dates)
{
    int index[16];
    size_t chosen;
    trn_error err = {0};
    trn_encoder *encoder = make_encoder("presto", settings, count);
    assert_trn_ok(trn_encoder_choose_bands(encoder, scene.bands, scene.count, index, 16, &chosen, NULL, &err),
                  err);
    assert_trn_ok(trn_encoder_choose_dates(encoder, (size_t)dates, NULL, &err), err);
    return encoder;
}

/* ---- golden cases ---- */

typedef struct presto_case {
    const char *id;
    offered scene;
    const trn_setting *settings;
    size_t setting_count;
    int blocks;
    bool by_date; /* months are of dates, not of a first month */
    bool place;
} presto_case;

static void choose_months(trn_encoder *encoder, const test_tensor *months)
{
    trn_date dates[24] = {{0}};
    trn_error err = {0};
    for (int64_t i = 0; i < months->count; i++)
        dates[i] = (trn_date){.year = 2020, .month = (int)months->data[i] + 1, .day = 15, .day_of_year = 1};
    assert_trn_ok(trn_encoder_choose_dates(encoder, (size_t)months->count, dates, &err), err);
}

/* [B,3] of the case's latitudes and longitudes */
static float *places_of(const presto_case *c, const trn_encoder *encoder)
{
    test_tensor latlons = test_golden_input(c->id, "latlons");
    float *places = calloc((size_t)latlons.shape[0] * 3, sizeof *places);
    assert_non_null(places);
    for (int64_t i = 0; i < latlons.shape[0]; i++)
        trn_encoder_encode_location(encoder, (double)latlons.data[2 * i], (double)latlons.data[2 * i + 1],
                                    places + 3 * i);
    free(latlons.data);
    return places;
}

static staged build_case(trn_encoder *encoder, const test_tensor *x, bool place)
{
    staged s = {.graph = trn_graph_create()};
    trn_error err = {0};
    trn_features features;
    trn_encode_options options = as_is_mean;
    const int64_t *d = x->shape;
    trn_tensor *image = trn_input(s.graph, "x", TRN_F32, TRN_SHAPE(d[0], d[1], d[2], d[3], d[4]));
    if (place) options.location = trn_input(s.graph, "place", TRN_F32, TRN_SHAPE(d[0], 3));
    assert_trn_ok(
        trn_encoder_build_stages(encoder, s.graph, image, &options, &features, staged_add, &s, &err), err);
    return s;
}

static void compare_case(const presto_case *c, const char *file)
{
    trn_error err = {0};
    test_tensor x = test_golden_input(c->id, "x"), months = test_golden_input(c->id, "months");
    trn_encoder *encoder = open_encoder(c->scene, c->settings, c->setting_count, x.shape[1]);
    trn_weights *weights = open_weights(file);
    if (c->by_date) choose_months(encoder, &months);
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    staged s = build_case(encoder, &x, c->place);
    float *places = places_of(c, encoder);
    trn_named_data inputs[] = {{"x", x.data}, {"place", places}};
    assert_int_equal(s.count, 1 + c->blocks + 2);
    for (int device = 0; device < 2; device++) {
        if (device)
            staged_run_device(&s, inputs, c->place ? 2 : 1);
        else
            staged_run_reference(&s, inputs, c->place ? 2 : 1);
        for (int i = 0; i < s.count; i++)
            test_compare_golden(c->id, s.names[i], s.values[i], s.sizes[i], 1e-5);
    }
    staged_close(&s);
    free(places);
    free(x.data);
    free(months.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void test_published(void **state)
{
    (void)state;
    const presto_case c = {
        .id = "presto_real", .scene = OFFER(all_bands), .blocks = 2, .by_date = true, .place = true};
    if (!published()) skip();
    compare_case(&c, published());
}

#define TINY                                                                                                 \
    {"dim", "32"},                                                                                           \
    {                                                                                                        \
        "heads", "4"                                                                                         \
    }

static void test_all_groups(void **state)
{
    (void)state;
    const trn_setting settings[] = {TINY, {"month", "10"}};
    const presto_case c = {.id = "presto_tiny",
                           .scene = OFFER(all_bands),
                           .settings = settings,
                           .setting_count = TRN_COUNT(settings),
                           .blocks = 2,
                           .place = true};
    compare_case(&c, NULL);
}

/* Other sizes, groups missing, dates that do not follow by the month, no place, and pixels whose NDVI has no
 * meaning. */
static void test_some_groups(void **state)
{
    (void)state;
    const trn_setting settings[] = {{"dim", "40"},
                                    {"heads", "5"},
                                    {"depth", "3"},
                                    {"mlp_ratio", "2"},
                                    {"channel_embed_ratio", "0.3"},
                                    {"month_embed_ratio", "0.2"},
                                    {"max_sequence_length", "6"}};
    const presto_case c = {.id = "presto_tiny_optical",
                           .scene = OFFER(optical),
                           .settings = settings,
                           .setting_count = TRN_COUNT(settings),
                           .blocks = 3,
                           .by_date = true};
    compare_case(&c, NULL);
}

/* ---- the published file ---- */

static void test_published_report(void **state)
{
    (void)state;
    if (!published()) skip();
    trn_text report = {0};
    trn_error err = {0};
    char wanted[64];
    trn_encoder *encoder = make_encoder("presto", NULL, 0);
    trn_weights *weights = open_weights(published());
    assert_trn_ok(trn_encoder_load(encoder, weights, &report, &err), err);
    for (size_t i = 0; i < trn_model_count(); i++) {
        const trn_model_info *info = trn_model_at(i);
        if (strcmp(info->name, "presto") != 0) continue;
        snprintf(wanted, sizeof wanted, " %llu parameters", (unsigned long long)info->parameters);
        if (!strstr(trn_text_get(&report), wanted)) fail_msg("not%s: %s", wanted, trn_text_get(&report));
    }
    assert_non_null(strstr(trn_text_get(&report), "not used: "));
    trn_text_free(&report);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* A file without the place's weights is refused at once, not when a place is first given. */
static void test_place_is_wanted(void **state)
{
    (void)state;
    const trn_weight_data tensor = {
        .name = "channel_embed.weight", .ndim = 2, .shape = {10, 32}, .data = (const float[320]){0}};
    trn_error err = {0};
    char *path = test_path(test_temp_dir(), "presto.safetensors");
    assert_trn_ok(trn_weights_write(path, &tensor, 1, NULL, &err), err);
    static const trn_band_offer radar[] = {{"vv", 0}, {"vh", 0}};
    const trn_setting settings[] = {{"depth", "1"}};
    trn_encoder *encoder = open_encoder(OFFER(radar), settings, 1, 1);
    trn_weights *weights = open_weights(path);
    assert_trn_fails(trn_encoder_load(encoder, weights, NULL, &err), TRN_ERR_FORMAT, err,
                     "'latlon_embed.weight' [128,3] is missing");
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
    free(path);
}

/* ---- spec, settings ---- */

static void test_spec(void **state)
{
    (void)state;
    const trn_setting settings[] = {{"cell", "4"}};
    trn_encoder *encoder = make_encoder("presto", settings, 1);
    const trn_encoder_spec *spec = trn_encoder_get_spec(encoder);
    assert_int_equal(spec->min_dates, 1);
    assert_int_equal(spec->max_dates, 24);
    assert_int_equal(spec->location_values, 3);
    assert_int_equal(spec->channels, 128);
    assert_int_equal(spec->stride, 4);
    assert_int_equal(spec->side_multiple, 4);
    assert_int_equal(spec->tile, 64);
    assert_int_equal(spec->band_count, 12);
    assert_true(spec->needs_weights && !spec->has_cls && !spec->square);
    /* -25..0 dB and reflectance * 10000 of 0..10000 become 0..1 */
    assert_true(spec->bands[1].unit == TRN_UNIT_DECIBEL && spec->bands[1].value_scale == 1);
    assert_true((-25 - spec->bands[1].mean) / spec->bands[1].std == 0);
    assert_true((0 - spec->bands[1].mean) / spec->bands[1].std == 1);
    assert_true(spec->bands[2].unit == TRN_UNIT_REFLECTANCE && spec->bands[2].value_scale == 10000);
    assert_true((10000 - spec->bands[2].mean) / spec->bands[2].std == 1);
    trn_encoder_destroy(encoder);
}

static void test_location(void **state)
{
    (void)state;
    static const struct {
        double latitude, longitude;
        float point[3];
    } cases[] = {
        {0, 0, {1, 0, 0}}, {0, 90, {0, 1, 0}}, {90, 17, {0, 0, 1}}, {-30, 180, {-0.8660254f, 0, -0.5f}}};
    trn_encoder *encoder = make_encoder("presto", NULL, 0);
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        float point[3] = {9, 9, 9};
        trn_encoder_encode_location(encoder, cases[i].latitude, cases[i].longitude, point);
        for (int k = 0; k < 3; k++)
            assert_true(fabs((double)point[k] - (double)cases[i].point[k]) < 1e-6);
    }
    trn_encoder_destroy(encoder);
}

static void expect_setting_error(const char *key, const char *value, const char *text)
{
    trn_encoder *encoder = NULL;
    trn_error err = {0};
    const trn_setting setting = {key, value};
    assert_trn_fails(trn_encoder_create("presto", &setting, 1, &encoder, &err), TRN_ERR_ARGUMENT, err, text);
    assert_null(encoder);
}

static void test_setting_errors(void **state)
{
    (void)state;
    expect_setting_error("heads", "7", "dim=128 is no multiple of heads=7");
    expect_setting_error("month", "12", "month");
    expect_setting_error("cell", "0", "cell");
    expect_setting_error("month_embed_ratio", "0.9", "must leave each part of the 128 channels at least one");
    expect_setting_error("channel_embed_ratio", "0.001", "they give 0 for the group");
    expect_setting_error("mont", "3", "month");
}

static void test_date_errors(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_encoder *encoder = make_encoder("presto", NULL, 0);
    assert_trn_fails(trn_encoder_choose_dates(encoder, 25, NULL, &err), TRN_ERR_ARGUMENT, err,
                     "takes 1 to 24 dates, and the series has 25");
    assert_trn_fails(trn_encoder_choose_dates(encoder, 0, NULL, &err), TRN_ERR_ARGUMENT, err, "1 to 24");
    trn_encoder_destroy(encoder);
}

static void test_band_groups(void **state)
{
    (void)state;
    static const trn_band_offer scene[] = {{"red", 0}, {"blue", 0}, {"green", 0}, {"swir16", 0}, {"vv", 0}};
    static const trn_band_offer none[] = {{"vv", 0}, {"pan", 0}};
    static const int wanted[] = {1, 2, 0};
    trn_error err = {0};
    trn_text notes = {0};
    int index[16];
    size_t count;
    trn_encoder *encoder = make_encoder("presto", NULL, 0);
    assert_trn_ok(trn_encoder_choose_bands(encoder, scene, TRN_COUNT(scene), index, 16, &count, &notes, &err),
                  err);
    assert_int_equal(count, TRN_COUNT(wanted));
    assert_memory_equal(index, wanted, sizeof wanted);
    assert_non_null(strstr(trn_text_get(&notes), "works without vv, vh: the scene has no vh"));
    assert_trn_fails(
        trn_encoder_choose_bands(encoder, none, TRN_COUNT(none), index, 16, &count, &notes, &err),
        TRN_ERR_ARGUMENT, err, "at least one whole group");
    trn_text_free(&notes);
    trn_encoder_destroy(encoder);
}

/* ---- graphs ---- */

static trn_weights *synthetic;

static int open_synthetic(void **state)
{
    (void)state;
    synthetic = open_weights(NULL);
    return 0;
}

static int close_all(void **state)
{
    trn_weights_close(synthetic);
    return close_gpu(state);
}

/* Dense features of windows, by the references: malloc'd, *size values. */
static float *run_dense(trn_encoder *encoder, const trn_encode_options *options, const float *values,
                        trn_shape shape, int64_t *size)
{
    staged s = {.graph = trn_graph_create()};
    trn_features features;
    trn_error err = {0};
    trn_named_data input = {"x", (void *)(uintptr_t)values};
    assert_trn_ok(trn_encoder_load(encoder, synthetic, NULL, &err), err);
    trn_tensor *image = trn_input(s.graph, "x", TRN_F32, shape);
    assert_trn_ok(trn_encoder_build(encoder, s.graph, image, options, &features, &err), err);
    assert_int_equal(features.grid_count, 1);
    assert_true(features.stride[0] == trn_encoder_get_spec(encoder)->stride && features.offset[0] == 0);
    staged_add(&s, "dense", features.grids[0]);
    staged_run_reference(&s, &input, 1);
    float *out = s.values[0];
    s.values[0] = NULL;
    *size = s.sizes[0];
    staged_close(&s);
    trn_encoder_destroy(encoder);
    return out;
}

/* Every pixel is on its own: a pixel of an odd window and that pixel alone give the same; and dates follow.
 */
static void test_pixels_are_independent(void **state)
{
    (void)state;
    enum { T = 3, H = 3, W = 5, C = 6, DIM = 32, ROW = 1, COLUMN = 3 };
    const trn_setting settings[] = {TINY};
    const trn_encode_options dense = {.normalize = TRN_NORMALIZE_NONE};
    float *window = test_hash_values("presto/window", T * C * H * W, 0.4, 0.5), pixel[T * C];
    for (int i = 0; i < T * C; i++)
        pixel[i] = window[(i * H + ROW) * W + COLUMN];
    int64_t all, one;
    float *of_window = run_dense(open_encoder(OFFER(optical), settings, TRN_COUNT(settings), T), &dense,
                                 window, TRN_SHAPE(1, T, C, H, W), &all);
    float *of_pixel = run_dense(open_encoder(OFFER(optical), settings, TRN_COUNT(settings), T), &dense, pixel,
                                TRN_SHAPE(1, T, C, 1, 1), &one);
    assert_int_equal(all, H * W * DIM);
    assert_int_equal(one, DIM);
    const float *inside = of_window + (ROW * W + COLUMN) * DIM;
    assert_true(test_worst_error(inside, of_pixel, DIM, largest(of_pixel, DIM)) < 1e-6);
    assert_true(test_worst_error(inside - DIM, of_pixel, DIM, largest(of_pixel, DIM)) > 1e-3);
    free(window);
    free(of_window);
    free(of_pixel);
}

/* A cell is the average of its pixels. */
static void test_cells(void **state)
{
    (void)state;
    enum { T = 2, H = 4, W = 6, C = 6, CELL = 2, DIM = 32, SMALL = H / CELL * (W / CELL) };
    const trn_setting settings[] = {TINY, {"cell", "2"}};
    const trn_encode_options dense = {.normalize = TRN_NORMALIZE_NONE};
    float *window = test_hash_values("presto/cells", T * C * H * W, 0.4, 0.5), averages[T * C * SMALL];
    for (int i = 0; i < T * C * SMALL; i++) {
        int plane = i / SMALL, y = i % SMALL / (W / CELL) * CELL, x = i % (W / CELL) * CELL;
        const float *at = window + (plane * H + y) * W + x;
        averages[i] = (at[0] + at[1] + at[W] + at[W + 1]) / 4;
    }
    int64_t cells, pixels;
    float *of_cells = run_dense(open_encoder(OFFER(optical), settings, TRN_COUNT(settings), T), &dense,
                                window, TRN_SHAPE(1, T, C, H, W), &cells);
    float *of_pixels = run_dense(open_encoder(OFFER(optical), settings, TRN_COUNT(settings) - 1, T), &dense,
                                 averages, TRN_SHAPE(1, T, C, H / CELL, W / CELL), &pixels);
    assert_int_equal(cells, SMALL * DIM);
    assert_int_equal(pixels, cells);
    assert_true(test_worst_error(of_cells, of_pixels, cells, largest(of_pixels, cells)) < 1e-6);
    free(window);
    free(of_cells);
    free(of_pixels);
}

/* Stored numbers reach the encoder normalised. */
static void test_normalisation(void **state)
{
    (void)state;
    enum { C = 6, PIXELS = 4 };
    const trn_setting settings[] = {TINY};
    float *x = test_hash_values("presto/normalise", C * PIXELS, 0.4, 0.5), stored[C * PIXELS];
    float scale[C], offset[C], mean[C], std[C];
    for (int i = 0; i < C * PIXELS; i++)
        stored[i] = x[i] * 5000 + 1000;
    for (int i = 0; i < C; i++) { /* stored = 5000 * reflectance + 1000 */
        scale[i] = 2;
        offset[i] = -2000;
        mean[i] = 0;
        std[i] = 10000;
    }
    const trn_encode_options ways[] = {
        {.normalize = TRN_NORMALIZE_NONE},
        {.normalize = TRN_NORMALIZE_MODEL, .value_scale = scale, .value_offset = offset},
        {.normalize = TRN_NORMALIZE_ZSCORE,
         .value_scale = scale,
         .value_offset = offset,
         .mean = mean,
         .std = std}};
    float *out[3];
    int64_t size;
    for (int i = 0; i < 3; i++)
        out[i] = run_dense(open_encoder(OFFER(optical), settings, TRN_COUNT(settings), 1), &ways[i],
                           i ? stored : x, TRN_SHAPE(1, C, 2, 2), &size);
    assert_true(test_worst_error(out[1], out[0], size, largest(out[0], size)) < 1e-5);
    assert_true(test_worst_error(out[2], out[0], size, largest(out[0], size)) < 1e-5);
    for (int i = 0; i < 3; i++)
        free(out[i]);
    free(x);
}

/* Tokens [pixels,groups,32] of one date's stored values under a z-score. */
static void run_tokens(const trn_encode_options *options, const float *stored, float *out, int64_t count)
{
    const trn_setting settings[] = {TINY};
    trn_encoder *encoder = open_encoder(OFFER(optical), settings, TRN_COUNT(settings), 1);
    staged s = {.graph = trn_graph_create()};
    trn_features features;
    trn_error err = {0};
    trn_named_data input = {"x", (void *)(uintptr_t)stored};
    assert_trn_ok(trn_encoder_load(encoder, synthetic, NULL, &err), err);
    trn_tensor *image = trn_input(s.graph, "x", TRN_F32, TRN_SHAPE(1, TRN_COUNT(optical), 1, 2));
    assert_trn_ok(trn_encoder_build_stages(encoder, s.graph, image, options, &features, staged_add, &s, &err),
                  err);
    staged_run_reference(&s, &input, 1);
    assert_int_equal(s.sizes[staged_find(&s, "tokens_in")], count);
    memcpy(out, staged_get(&s, "tokens_in"), (size_t)count * sizeof *out);
    staged_close(&s);
    trn_encoder_destroy(encoder);
}

/* The z-score of the bands changes their tokens, and leaves NDVI's as it was. */
static void test_ndvi_is_of_reflectance(void **state)
{
    (void)state;
    enum { C = TRN_COUNT(optical), PIXELS = 2, DIM = 32, TOKENS = 4, LAST = (TOKENS - 1) * DIM };
    float *stored = test_hash_values("presto/ndvi", C * PIXELS, 3000, 5000);
    float scale[C], offset[C], mean[C], std[C], plain[PIXELS * TOKENS * DIM], zscore[PIXELS * TOKENS * DIM];
    for (int i = 0; i < C; i++) {
        scale[i] = 1;
        offset[i] = -1000;
        mean[i] = 9000;
        std[i] = 500;
    }
    trn_encode_options options = {.value_scale = scale, .value_offset = offset, .mean = mean, .std = std};
    run_tokens(&options, stored, plain, PIXELS * TOKENS * DIM);
    options.normalize = TRN_NORMALIZE_ZSCORE;
    run_tokens(&options, stored, zscore, PIXELS * TOKENS * DIM);
    for (int p = 0; p < PIXELS; p++) {
        const float *a = plain + p * TOKENS * DIM, *b = zscore + p * TOKENS * DIM;
        assert_true(test_worst_error(b, a, LAST, largest(a, LAST)) > 0.1);
        assert_true(test_worst_error(b + LAST, a + LAST, DIM, largest(a + LAST, DIM)) < 1e-6);
    }
    free(stored);
}

static void test_build_errors(void **state)
{
    (void)state;
    const trn_setting settings[] = {TINY, {"cell", "4"}};
    trn_encoder *encoder = open_encoder(OFFER(optical), settings, TRN_COUNT(settings), 2);
    trn_graph *graph = trn_graph_create();
    trn_features features;
    trn_error err = {0};
    assert_trn_ok(trn_encoder_load(encoder, synthetic, NULL, &err), err);
    trn_tensor *image = trn_input(graph, "a", TRN_F32, TRN_SHAPE(1, 2, 6, 6, 8));
    assert_trn_fails(trn_encoder_build(encoder, graph, image, NULL, &features, &err), TRN_ERR_ARGUMENT, err,
                     "multiples of 4");
    image = trn_input(graph, "b", TRN_F32, TRN_SHAPE(1, 3, 6, 8, 8));
    assert_trn_fails(trn_encoder_build(encoder, graph, image, NULL, &features, &err), TRN_ERR_ARGUMENT, err,
                     "set up for 2 dates, and the image has 3");
    image = trn_input(graph, "c", TRN_F32, TRN_SHAPE(2, 2, 6, 8, 8));
    trn_encode_options options = {.location = trn_input(graph, "d", TRN_F32, TRN_SHAPE(1, 3))};
    assert_trn_fails(trn_encoder_build(encoder, graph, image, &options, &features, &err), TRN_ERR_ARGUMENT,
                     err, "the places of 2 windows are [2,3], not [1,3]");
    trn_graph_destroy(graph);
    trn_encoder_destroy(encoder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published),
        cmocka_unit_test(test_all_groups),
        cmocka_unit_test(test_some_groups),
        cmocka_unit_test(test_published_report),
        cmocka_unit_test(test_place_is_wanted),
        cmocka_unit_test(test_spec),
        cmocka_unit_test(test_location),
        cmocka_unit_test(test_setting_errors),
        cmocka_unit_test(test_date_errors),
        cmocka_unit_test(test_band_groups),
        cmocka_unit_test(test_pixels_are_independent),
        cmocka_unit_test(test_cells),
        cmocka_unit_test(test_normalisation),
        cmocka_unit_test(test_ndvi_is_of_reflectance),
        cmocka_unit_test(test_build_errors),
    };
    return cmocka_run_group_tests(tests, open_synthetic, close_all);
}
