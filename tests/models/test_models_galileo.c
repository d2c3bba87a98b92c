/* Galileo against the outputs of the original, with its real weights where the test data has them. */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "galileo.h"
#include "running.h"

static const char weights_file[] = "galileo_nano/encoder.safetensors";
static const galileo_size nano = {
    .dim = 128, .depth = 4, .heads = 8, .positions = 24, .mlp_ratio = 4, .eps = 1e-5};

/* ---- kernels and tables ---- */

static void test_kernels(void **state)
{
    (void)state;
    static const int patches[] = {1, 2, 4, 6};
    enum { OUT = 128, IN = 3, STORED = 64 };
    trn_weights *weights = open_weights(test_golden_path(weights_file));
    static float kernel[OUT * IN * STORED], resized[OUT * IN * STORED], flat[STORED * STORED];
    double pinv[STORED * STORED];
    trn_error err = {0};
    const int64_t shape[] = {OUT, IN, 8, 8};
    assert_trn_ok(trn_weights_read(weights, "space_time_embed.S2_RGB.proj.weight", shape, 4, kernel, &err),
                  err);
    for (size_t i = 0; i < TRN_COUNT(patches); i++) {
        int cells = patches[i] * patches[i];
        char name[32];
        trn_galileo_pinv(patches[i], pinv);
        for (int k = 0; k < cells * STORED; k++)
            flat[k] = (float)pinv[k];
        snprintf(name, sizeof name, "pinv_p%d", patches[i]);
        test_compare_golden("galileo_nano_kernels", name, flat, cells * STORED, 1e-5);
        for (int k = 0; k < OUT * IN * cells; k++) {
            double sum = 0;
            for (int j = 0; j < STORED; j++)
                sum += pinv[k % cells * STORED + j] * (double)kernel[k / cells * STORED + j];
            resized[k] = (float)sum;
        }
        snprintf(name, sizeof name, "kernel_p%d", patches[i]);
        test_compare_golden("galileo_nano_kernels", name, resized, OUT * IN * cells, 1e-5);
    }
    trn_weights_close(weights);
}

static void test_full_size_kernel_is_unchanged(void **state)
{
    (void)state;
    double pinv[64 * 64];
    trn_galileo_pinv(8, pinv);
    for (int i = 0; i < 64 * 64; i++)
        assert_true(fabs(pinv[i] - (i / 64 == i % 64)) < 1e-12);
}

static void test_tables(void **state)
{
    (void)state;
    enum { QUARTER = 32, CELLS = 4 };
    float places[CELLS * CELLS * QUARTER], positions[24 * QUARTER];
    for (int i = 0; i < CELLS * CELLS; i++)
        trn_galileo_place(QUARTER, i % CELLS, i / CELLS, 4, places + i * QUARTER);
    test_compare_golden("galileo_nano_kernels", "spatial_sincos_4x4_ratio4", places, CELLS * CELLS * QUARTER,
                        1e-6);
    for (int i = 0; i < 24; i++)
        trn_sincos(QUARTER, i, 0.5 / QUARTER, positions + i * QUARTER);
    test_compare_golden("galileo_nano_kernels", "pos_embed", positions, 24 * QUARTER, 5e-6);
    trn_weights *weights = open_weights(test_golden_path(weights_file));
    trn_error err = {0};
    float months[12 * QUARTER];
    assert_trn_ok(trn_weights_read(weights, "month_embed.weight", (int64_t[]){12, QUARTER}, 2, months, &err),
                  err);
    test_compare_golden("galileo_nano_kernels", "month_table", months, 12 * QUARTER, 1e-6);
    trn_weights_close(weights);
}

/* ---- all sources, with masks ---- */

typedef struct galileo_case {
    test_tensor data[4], masks[4]; /* space-time, space, time, fixed */
    float *small[4];               /* masks per cell */
    int months[16];
    trn_tensor *inputs[4];
    galileo_inputs in;
} galileo_case;

static const char *const data_names[] = {"s_t_x", "sp_x", "t_x", "st_x"};
static const char *const mask_names[] = {"s_t_m", "sp_m", "t_m", "st_m"};

/* Whether any token of group g is visible. */
static bool group_seen(const test_tensor *mask, int groups, int g)
{
    for (int64_t i = g; i < mask->count; i += groups)
        if (!(fabsf(mask->data[i]) > 0)) return true;
    return false;
}

/* [B,side,side,rest] at every patch-th pixel */
static float *subsample(const test_tensor *mask, int64_t patch)
{
    int64_t side = mask->shape[1], cells = side / patch, rest = mask->count / mask->shape[0] / side / side;
    float *out = malloc((size_t)(mask->shape[0] * cells * cells * rest) * sizeof *out);
    for (int64_t i = 0; i < mask->shape[0] * cells * cells * rest; i++) {
        int64_t r = i % rest, x = i / rest % cells, y = i / rest / cells % cells,
                b = i / rest / cells / cells;
        out[i] = mask->data[((b * side + y * patch) * side + x * patch) * rest + r];
    }
    return out;
}

static void split_images(trn_graph *graph, galileo_case *c)
{
    static const int starts[] = {0, 2, 5, 8, 9, 10, 12, 13}, space_starts[] = {0, 2, 11, 16};
    static const int times_first[] = {0, 3, 4, 1, 2}, channels_first[] = {0, 3, 1, 2};
    int64_t batch = c->in.batch, times = c->in.times, side = c->in.side;
    for (int g = 0; g < GALILEO_SPACE_TIME; g++) {
        int count = starts[g + 1] - starts[g];
        if (!group_seen(&c->masks[0], GALILEO_SPACE_TIME, g)) continue;
        trn_tensor *x = trn_slice(graph, c->inputs[0], 4, starts[g], count);
        x = trn_permute(graph, x, times_first);
        c->in.space_time[g] = trn_reshape(graph, x, TRN_SHAPE(batch * times, count, side, side));
    }
    for (int g = 0; g < GALILEO_SPACE; g++) {
        if (!group_seen(&c->masks[1], GALILEO_SPACE, g)) continue;
        trn_tensor *x =
            trn_slice(graph, c->inputs[1], 3, space_starts[g], space_starts[g + 1] - space_starts[g]);
        c->in.space[g] = trn_permute(graph, x, channels_first);
    }
}

static void split_vectors(trn_graph *graph, galileo_case *c)
{
    static const int time_starts[] = {0, 2, 5, 6}, fixed_starts[] = {0, 1, 4, 13, 18};
    for (int g = 0; g < GALILEO_TIME; g++)
        if (group_seen(&c->masks[2], GALILEO_TIME, g))
            c->in.time[g] =
                trn_slice(graph, c->inputs[2], 2, time_starts[g], time_starts[g + 1] - time_starts[g]);
    for (int g = 0; g < GALILEO_FIXED; g++)
        if (group_seen(&c->masks[3], GALILEO_FIXED, g))
            c->in.fixed[g] =
                trn_slice(graph, c->inputs[3], 1, fixed_starts[g], fixed_starts[g + 1] - fixed_starts[g]);
}

static void open_case(const char *id, int64_t patch, trn_graph *graph, galileo_case *c)
{
    for (int i = 0; i < 4; i++) {
        c->data[i] = test_golden_input(id, data_names[i]);
        c->masks[i] = test_golden_input(id, mask_names[i]);
        trn_shape shape = {.ndim = c->data[i].ndim};
        memcpy(shape.dim, c->data[i].shape, (size_t)shape.ndim * sizeof *shape.dim);
        c->inputs[i] = trn_input(graph, data_names[i], TRN_F32, shape);
    }
    test_tensor months = test_golden_input(id, "months");
    for (int64_t i = 0; i < months.count; i++)
        c->months[i] = (int)months.data[i];
    free(months.data);
    c->in = (galileo_inputs){
        .batch = c->data[0].shape[0], .times = c->data[0].shape[3], .side = c->data[0].shape[1]};
    c->in.patch = patch;
    c->in.resolution = 10;
    c->in.months = c->months;
    c->in.keep_absent = true;
    c->in.mask_space_time = c->small[0] = subsample(&c->masks[0], patch);
    c->in.mask_space = c->small[1] = subsample(&c->masks[1], patch);
    c->in.mask_time = c->masks[2].data;
    c->in.mask_fixed = c->masks[3].data;
    split_images(graph, c);
    split_vectors(graph, c);
}

static void close_case(galileo_case *c)
{
    for (int i = 0; i < 4; i++) {
        free(c->data[i].data);
        free(c->masks[i].data);
        free(c->small[i]);
    }
}

static void compare_case(const char *id, int64_t patch, int stages)
{
    if (!test_golden_has(id) || !test_golden_path(weights_file)) skip();
    trn_encoder *encoder = make_encoder("galileo-nano", NULL, 0);
    trn_weights *weights = open_weights(test_golden_path(weights_file));
    trn_error err = {0};
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    staged s = {.graph = trn_graph_create()};
    galileo_case c = {0};
    galileo_outputs outputs;
    open_case(id, patch, s.graph, &c);
    trn_build build = {
        .scope = trn_scope_root(s.graph, &encoder->parameters), .stage = staged_add, .stage_user = &s};
    trn_galileo_build(&build, encoder->arena, &nano, &c.in, &outputs);
    assert_trn_ok(trn_graph_status(s.graph, &err), err);
    assert_int_equal(s.count, stages);
    trn_named_data inputs[4];
    for (int i = 0; i < 4; i++)
        inputs[i] = (trn_named_data){data_names[i], c.data[i].data};
    for (int device = 0; device < 2; device++) {
        if (device)
            staged_run_device(&s, inputs, 4);
        else
            staged_run_reference(&s, inputs, 4);
        for (int i = 0; i < s.count; i++)
            test_compare_golden(id, s.names[i], s.values[i], s.sizes[i], 1e-5);
    }
    close_case(&c);
    staged_close(&s);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

enum { ALL_STAGES = 4 + 4 + 4 + 4 + 2 };

static void test_mixed_masks(void **state)
{
    (void)state;
    compare_case("galileo_nano", 4, ALL_STAGES);
}

static void test_sentinel2_only(void **state)
{
    (void)state;
    compare_case("galileo_nano_s2only", 8, ALL_STAGES);
}

static void test_all_visible(void **state)
{
    (void)state;
    compare_case("galileo_nano_allon_p2", 2, ALL_STAGES);
}

/* ---- the encoder ---- */

static const trn_band_offer sentinel2[] = {{"coastal", 0},  {"blue", 0},     {"green", 0},    {"red", 0},
                                           {"rededge1", 0}, {"rededge2", 0}, {"rededge3", 0}, {"nir", 0},
                                           {"nir08", 0},    {"nir09", 0},    {"cirrus", 0},   {"swir16", 0},
                                           {"swir22", 0}};

static trn_encoder *open_encoder(const trn_band_offer *bands, size_t band_count, const trn_setting *settings,
                                 size_t count, trn_weights **weights, int *index, size_t *chosen,
                                 trn_text *notes)
{
    trn_error err = {0};
    trn_encoder *encoder = make_encoder("galileo-nano", settings, count);
    assert_trn_ok(trn_encoder_choose_bands(encoder, bands, band_count, index, 16, chosen, notes, &err), err);
    *weights = open_weights(test_golden_path(weights_file));
    assert_trn_ok(trn_encoder_load(encoder, *weights, NULL, &err), err);
    return encoder;
}

static void test_band_groups(void **state)
{
    (void)state;
    static const int whole[] = {1, 2, 3, 4, 5, 6, 7, 8, 11, 12};
    static const trn_band_offer few[] = {{"swir22", 0}, {"red", 0}, {"green", 0}, {"nir", 0}, {"vv", 0}};
    static const trn_band_offer radar[] = {{"vh", 0}, {"vv", 0}};
    static const trn_band_offer wrong[] = {{"thermal", 0}, {"pan", 0}, {"vv", 0}};
    int index[16];
    size_t count;
    trn_text notes = {0};
    trn_error err = {0};
    trn_encoder *encoder = make_encoder("galileo-nano", NULL, 0);
    assert_trn_ok(
        trn_encoder_choose_bands(encoder, sentinel2, TRN_COUNT(sentinel2), index, 16, &count, &notes, &err),
        err);
    assert_int_equal(count, TRN_COUNT(whole));
    assert_memory_equal(index, whole, sizeof whole);
    assert_non_null(strstr(trn_text_get(&notes), "without vv, vh"));
    trn_text_free(&notes);
    assert_trn_ok(trn_encoder_choose_bands(encoder, few, TRN_COUNT(few), index, 16, &count, &notes, &err),
                  err);
    assert_int_equal(count, 1);
    assert_int_equal(index[0], 3);
    assert_non_null(strstr(trn_text_get(&notes), "without blue, green, red: the scene has no blue"));
    assert_non_null(strstr(trn_text_get(&notes), "without swir16, swir22: the scene has no swir16"));
    assert_int_equal(trn_encoder_get_spec(encoder)->unit, TRN_UNIT_REFLECTANCE);
    assert_trn_ok(trn_encoder_choose_bands(encoder, radar, 2, index, 16, &count, NULL, &err), err);
    assert_true(count == 2 && index[0] == 1 && index[1] == 0);
    assert_int_equal(trn_encoder_get_spec(encoder)->unit, TRN_UNIT_DECIBEL);
    assert_true(fabs(trn_encoder_get_spec(encoder)->value_scale - 1) < 1e-12);
    assert_trn_fails(
        trn_encoder_choose_bands(encoder, wrong, TRN_COUNT(wrong), index, 16, &count, NULL, &err),
        TRN_ERR_ARGUMENT, err, "galileo-nano");
    assert_non_null(strstr(err.message, "thermal, pan, vv"));
    assert_non_null(strstr(err.message, "rededge1"));
    trn_text_free(&notes);
    trn_encoder_destroy(encoder);
}

/* The file as it is published: PyTorch, other names of the same tensors. */
static void test_published_file(void **state)
{
    (void)state;
    const char *shared = getenv("TERRANE_SHARED");
    char *path = test_path(shared ? shared : "../shared", "weights/galileo-nano/encoder.pt");
    bool there = trn_path_exists(path);
    trn_weights *a = there ? open_weights(path) : NULL, *b = open_weights(test_golden_path(weights_file));
    trn_encoder *encoder = make_encoder("galileo-nano", NULL, 0);
    uint64_t elements = 0;
    trn_error err = {0};
    for (size_t i = 0; i < trn_weights_count(b); i++) {
        const trn_weight *weight = trn_weights_at(b, i);
        trn_shape shape = {.ndim = weight->ndim};
        memcpy(shape.dim, weight->shape, (size_t)weight->ndim * sizeof *weight->shape);
        elements += (uint64_t)trn_shape_count(&shape);
    }
    assert_int_equal(elements, encoder->config->info.parameters);
    if (there) assert_trn_ok(trn_encoder_load(encoder, a, NULL, &err), err);
    trn_encoder_destroy(encoder);
    trn_weights_close(a);
    trn_weights_close(b);
    free(path);
    if (!there) skip();
}

static trn_features build_public(trn_encoder *encoder, staged *s, int64_t channels,
                                 const trn_encode_options *options)
{
    trn_error err = {0};
    trn_features features;
    s->graph = trn_graph_create();
    trn_tensor *image = trn_input(s->graph, "image", TRN_F32, TRN_SHAPE(1, channels, 16, 16));
    assert_trn_ok(trn_encoder_build_stages(encoder, s->graph, image, options, &features, staged_add, s, &err),
                  err);
    return features;
}

/* The public encoder on Sentinel-2 and NDVI is the original on one date with the other groups hidden: its
 * stages are those of the builder that the goldens hold. Here: values, normalisation, NDVI, order of bands.
 */
static void test_public_encoder(void **state)
{
    (void)state;
    enum { CHANNELS = 10, PIXELS = 16 * 16, RED = 2, NIR = 6 };
    static const float scale[CHANNELS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, offset[CHANNELS];
    const trn_encode_options stored = {
        .value_scale = scale, .value_offset = offset, .pool = TRN_FEATURES_DENSE};
    const trn_encode_options normal = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_DENSE};
    const trn_setting settings[] = {{"patch", "4"}, {"month", "7"}};
    int index[16];
    size_t count;
    trn_weights *weights;
    trn_encoder *encoder = open_encoder(sentinel2, TRN_COUNT(sentinel2), settings, TRN_COUNT(settings),
                                        &weights, index, &count, NULL);
    assert_int_equal(count, CHANNELS);
    const trn_encoder_spec *spec = trn_encoder_get_spec(encoder);
    staged a = {0}, b = {0};
    trn_features features = build_public(encoder, &a, CHANNELS, &stored);
    build_public(encoder, &b, CHANNELS, &normal);
    assert_true(trn_shape_equal(trn_tensor_shape(features.grids[0]), &TRN_SHAPE(1, 4, 4, 128)));
    assert_true(features.stride[0] == 4);
    float *values = test_hash_values("reflectances", CHANNELS * PIXELS, 2000, 2200),
          *normalised = malloc(CHANNELS * PIXELS * 4);
    for (int i = 0; i < CHANNELS * PIXELS; i++) {
        const trn_encoder_band *band = &spec->bands[trn_encoder_channel_band(encoder, (size_t)(i / PIXELS))];
        assert_int_equal(band->unit, TRN_UNIT_REFLECTANCE);
        normalised[i] = (float)(((double)values[i] - band->mean) / band->std);
    }
    trn_named_data input = {"image", values};
    staged_run_device(&a, &input, 1);
    input.data = normalised;
    staged_run_reference(&b, &input, 1);
    int last = staged_find(&a, "avg_per_patch");
    assert_true(test_worst_error(a.values[last], b.values[last], a.sizes[last],
                                 largest(b.values[last], b.sizes[last])) < 2e-5);
    /* groups in use: RGB, red edge, both NIR, SWIR, NDVI */
    assert_int_equal(a.sizes[staged_find(&a, "proj_s_t")], 16 * 6 * 128);
    free(values);
    free(normalised);
    staged_close(&a);
    staged_close(&b);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* NDVI's token changes when nir and red change, and a window of zeros gives no NaN. */
static void test_ndvi_of_nothing(void **state)
{
    (void)state;
    enum { CHANNELS = 10 };
    const trn_encode_options options = {.pool = TRN_FEATURES_MEAN};
    int index[16];
    size_t count;
    trn_weights *weights;
    trn_encoder *encoder =
        open_encoder(sentinel2, TRN_COUNT(sentinel2), NULL, 0, &weights, index, &count, NULL);
    staged s = {0};
    build_public(encoder, &s, CHANNELS, &options);
    float *zeros = calloc(CHANNELS * 16 * 16, sizeof *zeros);
    trn_named_data input = {"image", zeros};
    staged_run_device(&s, &input, 1);
    int i = staged_find(&s, "avg_tokens");
    assert_int_equal(s.sizes[i], 128);
    for (int k = 0; k < 128; k++)
        assert_true(isfinite(s.values[i][k]));
    free(zeros);
    staged_close(&s);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* Every band group that the scene lacks costs nothing: only visible tokens are computed. */
static void test_only_present_groups(void **state)
{
    (void)state;
    static const trn_band_offer rgb[] = {{"red", 0}, {"green", 0}, {"blue", 0}};
    const trn_encode_options options = {.pool = TRN_FEATURES_MEAN};
    int index[16];
    size_t count;
    trn_weights *weights;
    trn_encoder *encoder = open_encoder(rgb, 3, NULL, 0, &weights, index, &count, NULL);
    assert_int_equal(count, 3);
    assert_int_equal(index[0], 2); /* the encoder's order is blue, green, red */
    staged s = {0};
    build_public(encoder, &s, 3, &options);
    assert_int_equal(s.sizes[staged_find(&s, "block03_compact")], 2 * 2 * 128);
    staged_close(&s);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* Two dates make a token each in every place: embedded as single dates are, encoded with their own months. */
static void test_dates(void **state)
{
    (void)state;
    enum { PIXELS = 3 * 16 * 16, DIM = 128, CELLS = 4 };
    static const trn_band_offer rgb[] = {{"blue", 0}, {"green", 0}, {"red", 0}};
    const trn_encode_options options = {.pool = TRN_FEATURES_DENSE};
    const trn_date days[] = {{2020, 3, 1, 61}, {2020, 11, 1, 306}};
    const trn_setting march = {"month", "2"};
    int index[16];
    size_t count;
    trn_error err = {0};
    trn_weights *weights, *again;
    trn_encoder *one = open_encoder(rgb, 3, &march, 1, &weights, index, &count, NULL);
    trn_encoder *two = open_encoder(rgb, 3, NULL, 0, &again, index, &count, NULL);
    assert_trn_ok(trn_encoder_choose_dates(two, 2, days, &err), err);
    assert_trn_fails(trn_encoder_choose_dates(two, 25, NULL, &err), TRN_ERR_ARGUMENT, err, "1 to 24 dates");
    staged a = {0}, b = {0}, c = {.graph = trn_graph_create()};
    build_public(one, &a, 3, &options);
    build_public(one, &b, 3, &options);
    trn_features features;
    trn_tensor *image = trn_input(c.graph, "image", TRN_F32, TRN_SHAPE(1, 2, 3, 16, 16));
    assert_trn_ok(trn_encoder_build_stages(two, c.graph, image, &options, &features, staged_add, &c, &err),
                  err);
    float *values = test_hash_values("two dates", 2 * PIXELS, 2000, 2200);
    trn_named_data input = {"image", values};
    staged_run_reference(&a, &input, 1);
    staged_run_device(&c, &input, 1);
    input.data = values + PIXELS;
    staged_run_reference(&b, &input, 1);
    const float *first = staged_get(&a, "proj_s_t"), *second = staged_get(&b, "proj_s_t"),
                *both = staged_get(&c, "proj_s_t");
    const float *march_token = staged_get(&a, "enc_s_t"), *tokens = staged_get(&c, "enc_s_t");
    double scale = largest(march_token, CELLS * DIM), other = 0;
    for (size_t cell = 0; cell < CELLS; cell++) {
        const float *pair = both + 2 * cell * DIM;
        assert_true(test_worst_error(pair, first + cell * DIM, DIM, scale) < 1e-5);
        assert_true(test_worst_error(pair + DIM, second + cell * DIM, DIM, scale) < 1e-5);
        assert_true(test_worst_error(tokens + 2 * cell * DIM, march_token + cell * DIM, DIM, scale) < 1e-5);
        /* the second date has its own time and month */
        other = test_worst_error(tokens + (2 * cell + 1) * DIM, staged_get(&b, "enc_s_t") + cell * DIM, DIM,
                                 scale);
        assert_true(other > 1e-2);
    }
    free(values);
    staged_close(&a);
    staged_close(&b);
    staged_close(&c);
    trn_encoder_destroy(one);
    trn_encoder_destroy(two);
    trn_weights_close(weights);
    trn_weights_close(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kernels),
        cmocka_unit_test(test_full_size_kernel_is_unchanged),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_mixed_masks),
        cmocka_unit_test(test_sentinel2_only),
        cmocka_unit_test(test_all_visible),
        cmocka_unit_test(test_published_file),
        cmocka_unit_test(test_band_groups),
        cmocka_unit_test(test_public_encoder),
        cmocka_unit_test(test_ndvi_of_nothing),
        cmocka_unit_test(test_only_present_groups),
        cmocka_unit_test(test_dates),
    };
    return cmocka_run_group_tests(tests, NULL, close_gpu);
}
