/* Prithvi against the outputs of the original: series, coordinates, other grids, tubelets, reconstruction. */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "prithvi.h"
#include "running.h"

#define TINY                                                                                                 \
    {"img_size", "48x32"}, {"frames", "3"}, {"dim", "64"}, {"depth", "3"},                                   \
    {                                                                                                        \
        "heads", "4"                                                                                         \
    }
#define TINY_TL                                                                                              \
    TINY,                                                                                                    \
    {                                                                                                        \
        "coords", "time+location"                                                                            \
    }

static const trn_encode_options as_is_mean = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_MEAN};
static const trn_encode_options as_is_cls = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_CLS};
static const trn_encode_options as_is_dense = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_DENSE};

static trn_encoder *load(trn_encoder *encoder, trn_weights *weights)
{
    trn_error err = {0};
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    return encoder;
}

/* ---- inputs: the originals have [B,C,T,h,w] ---- */

static test_tensor series_input(const char *id)
{
    test_tensor x = test_golden_input(id, "x"), out = x;
    out.data = malloc((size_t)x.count * sizeof *out.data);
    assert_non_null(out.data);
    int64_t channels = x.shape[1], dates = x.shape[2], area = x.shape[3] * x.shape[4];
    for (int64_t i = 0; i < x.count; i++) {
        int64_t pixel = i % area, t = i / area % dates, c = i / (area * dates) % channels,
                b = i / (area * dates * channels);
        out.data[((b * dates + t) * channels + c) * area + pixel] = x.data[i];
    }
    out.shape[1] = dates;
    out.shape[2] = channels;
    free(x.data);
    return out;
}

/* One image of a batch. */
static test_tensor sample_of(const test_tensor *x, int64_t b)
{
    test_tensor one = *x;
    one.shape[0] = 1;
    one.count = x->count / x->shape[0];
    one.data = x->data + b * one.count;
    return one;
}

enum { MAX_DATES_OF_TEST = 8 };

/* Tells the encoder of the dates of image b, when the case has them. */
static void set_dates(trn_encoder *encoder, const char *id, int64_t b, int64_t dates)
{
    trn_date list[MAX_DATES_OF_TEST] = {{0}};
    trn_error err = {0};
    if (!id) {
        assert_trn_ok(trn_encoder_choose_dates(encoder, (size_t)dates, NULL, &err), err);
        return;
    }
    test_tensor coords = test_golden_input(id, "temporal_coords");
    for (int64_t t = 0; t < dates; t++) {
        const float *row = coords.data + (b * dates + t) * 2;
        list[t] = (trn_date){.year = (int)row[0], .month = 1, .day = 1, .day_of_year = (int)row[1]};
    }
    free(coords.data);
    assert_trn_ok(trn_encoder_choose_dates(encoder, (size_t)dates, list, &err), err);
}

static float *place_of(const trn_encoder *encoder, const char *id, int64_t b)
{
    float *values = malloc((size_t)trn_encoder_get_spec(encoder)->location_values * sizeof *values);
    assert_non_null(values);
    test_tensor coords = test_golden_input(id, "location_coords");
    trn_encoder_encode_location(encoder, (double)coords.data[b * 2], (double)coords.data[b * 2 + 1], values);
    free(coords.data);
    return values;
}

static trn_tensor *input_of(trn_graph *graph, const test_tensor *x)
{
    return trn_input(graph, "x", TRN_F32,
                     TRN_SHAPE(x->shape[0], x->shape[1], x->shape[2], x->shape[3], x->shape[4]));
}

/* ---- comparing ---- */

static bool golden_has_output(const char *id, const char *name)
{
    const cJSON *entry;
    cJSON_ArrayForEach (entry, cJSON_GetObjectItem(test_golden_case(id), "outputs")) {
        if (!strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(entry, "name")), name)) return true;
    }
    return false;
}

/* The whole golden, or image b of its batch. */
static void compare_sample(const char *id, const char *name, const float *values, int64_t count, int64_t b,
                           double tolerance)
{
    test_tensor golden = test_golden_output(id, name);
    bool whole = count == golden.count;
    int64_t first = whole ? 0 : b * count, step = golden.flat_stride, compared = 0;
    double worst = 0;
    if (!whole && count * golden.shape[0] != golden.count)
        fail_msg("%s %s: %lld values", id, name, (long long)count);
    for (int64_t i = (first + step - 1) / step; i * step < first + count; i++, compared++) {
        double d = fabs((double)values[i * step - first] - (double)golden.data[i]);
        if (!(d <= worst)) worst = isnan(d) ? INFINITY : d;
    }
    free(golden.data);
    assert_true(compared > 0);
    worst /= golden.absmax;
    printf("golden %-32s %-16s %.2e (tolerance %.1e)\n", id, name, worst, tolerance);
    if (!(worst <= tolerance)) fail_msg("%s %s: worst error %.3e is above %.1e", id, name, worst, tolerance);
}

/* Compares every stage that the golden has; how many. */
static int compare_stages(const char *id, const staged *s, int64_t b, double tolerance)
{
    int compared = 0;
    for (int i = 0; i < s->count; i++) {
        if (!golden_has_output(id, s->names[i])) continue;
        compare_sample(id, s->names[i], s->values[i], s->sizes[i], b, tolerance);
        compared++;
    }
    return compared;
}

typedef struct golden_run {
    const char *id, *coords; /* coords: the case whose dates and places are told; NULL: none are */
    int stages;              /* that the case has */
    double tolerance;
    bool device_only;
} golden_run;

/* The class tokens of all images, from the tokens [B,N,D]. */
static void compare_class_tokens(const char *id, const staged *s, int64_t b, int64_t batch, double tolerance)
{
    int tokens = staged_find(s, "final_norm"), mean = staged_find(s, "pooled_mean");
    int64_t dim = s->sizes[mean] / batch, stride = s->sizes[tokens] / batch;
    float *values = malloc((size_t)(batch * dim) * sizeof *values);
    assert_non_null(values);
    for (int64_t i = 0; i < batch; i++)
        memcpy(values + i * dim, s->values[tokens] + i * stride, (size_t)dim * sizeof *values);
    compare_sample(id, "cls", values, batch * dim, b, tolerance);
    free(values);
}

/* One image through a loaded encoder, pooled both ways. */
static void run_sample(const golden_run *run, trn_encoder *encoder, const test_tensor *x, int64_t b)
{
    trn_error err = {0};
    trn_features features;
    staged s = {.graph = trn_graph_create()};
    trn_named_data inputs[2] = {{"x", x->data}};
    trn_encode_options mean = as_is_mean, cls = as_is_cls;
    float *place = run->coords ? place_of(encoder, run->coords, b) : NULL;
    trn_tensor *image = input_of(s.graph, x);
    set_dates(encoder, run->coords, b, x->shape[1]);
    if (place) {
        inputs[1] = (trn_named_data){"place", place};
        mean.location = trn_input(s.graph, "place", TRN_F32,
                                  TRN_SHAPE(1, trn_encoder_get_spec(encoder)->location_values));
        cls.location = mean.location;
    }
    assert_trn_ok(trn_encoder_build_stages(encoder, s.graph, image, &mean, &features, staged_add, &s, &err),
                  err);
    if (!run->device_only) { /* full models once: building twice takes the memory twice */
        assert_trn_ok(trn_encoder_build(encoder, s.graph, image, &cls, &features, &err), err);
        staged_add(&s, "cls", features.pooled);
    }
    for (int device = run->device_only; device < 2; device++) {
        if (device)
            staged_run_device(&s, inputs, place ? 2 : 1);
        else
            staged_run_reference(&s, inputs, place ? 2 : 1);
        assert_int_equal(compare_stages(run->id, &s, b, run->tolerance), run->stages);
        compare_class_tokens(run->id, &s, b, x->shape[0], run->tolerance);
    }
    free(place);
    staged_close(&s);
}

static void compare_file(const golden_run *run, const char *model, const char *path,
                         const trn_setting *settings, size_t count)
{
    trn_weights *weights = open_weights(path);
    trn_encoder *encoder = load(make_encoder(model, settings, count), weights);
    test_tensor x = series_input(run->id);
    if (run->coords) { /* times and places differ: one by one */
        for (int64_t b = 0; b < x.shape[0]; b++) {
            test_tensor one = sample_of(&x, b);
            run_sample(run, encoder, &one, b);
        }
    } else {
        run_sample(run, encoder, &x, 0);
    }
    free(x.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void compare_case(const golden_run *run, const char *model, const char *file,
                         const trn_setting *settings, size_t count)
{
    compare_file(run, model, file ? test_golden_path(file) : NULL, settings, count);
}

/* ---- goldens ---- */

static const trn_setting tiny_tl[] = {TINY_TL};

static void test_tiny_tl(void **state)
{
    (void)state;
    static const golden_run run = {"prithvi_tiny_tl", "prithvi_tiny_tl", 11, 1e-5, false};
    const char *const files[] = {NULL, "prithvi_tiny_tl/prithvi_tiny_tl.pt",
                                 "prithvi_tiny_tl/prithvi_tiny_tl.safetensors"};
    for (size_t i = 0; i < TRN_COUNT(files); i++)
        if (!files[i] || test_golden_path(files[i]))
            compare_case(&run, "prithvi-v2-100m-tl", files[i], tiny_tl, TRN_COUNT(tiny_tl));
}

static void test_tiny_unknown_coordinates(void **state)
{
    (void)state;
    static const golden_run run = {"prithvi_tiny_tl_nocoords", NULL, 8, 1e-5, false};
    const trn_setting plain[] = {TINY};
    compare_case(&run, "prithvi-v2-100m-tl", NULL, tiny_tl, TRN_COUNT(tiny_tl));
    compare_case(&run, "prithvi-v1-100m", NULL, plain, TRN_COUNT(plain));
}

static void test_tiny_other_sizes(void **state)
{
    (void)state;
    static const golden_run hw = {"prithvi_tiny_interp_hw", NULL, 9, 1e-5, false};
    static const golden_run t2 = {"prithvi_tiny_interp_t2", NULL, 9, 1e-5, false};
    static const golden_run t4hw = {"prithvi_tiny_interp_t4hw", NULL, 9, 1e-5, false};
    compare_case(&hw, "prithvi-v2-100m-tl", NULL, tiny_tl, TRN_COUNT(tiny_tl));
    compare_case(&t2, "prithvi-v2-100m-tl", NULL, tiny_tl, TRN_COUNT(tiny_tl));
    if (test_golden_has(t4hw.id))
        compare_case(&t4hw, "prithvi-v2-100m-tl", NULL, tiny_tl, TRN_COUNT(tiny_tl));
}

#define TUBELET                                                                                              \
    {"img_size", "32"}, {"frames", "4"}, {"tubelet", "2"}, {"patch", "8"}, {"in_chans", "2"}, {"dim", "32"}, \
        {"depth", "2"},                                                                                      \
    {                                                                                                        \
        "heads", "2"                                                                                         \
    }

static void test_tiny_tubelet(void **state)
{
    (void)state;
    static const golden_run run = {"prithvi_tiny_tubelet2", NULL, 8, 1e-5, false};
    const trn_setting settings[] = {TUBELET};
    compare_case(&run, "prithvi-v2-300m", NULL, settings, TRN_COUNT(settings));
}

static void run_full(const char *model, const golden_run *run)
{
    const char *wanted = getenv("TERRANE_TEST_FULL");
    if (!wanted || strcmp(wanted, "1") != 0 || !test_golden_has(run->id)) skip();
    compare_case(run, model, NULL, NULL, 0);
}

static void test_full_v1(void **state)
{
    (void)state;
    static const golden_run run = {"full_prithvi_v1_100", NULL, 16, 2e-5, true};
    run_full("prithvi-v1-100m", &run);
}

static void test_full_v2_tl(void **state)
{
    (void)state;
    static const golden_run run = {"full_prithvi_v2_300_tl", "full_prithvi_v2_300_tl", 30, 2e-5, true};
    run_full("prithvi-v2-300m-tl", &run);
}

/* ---- features ---- */

/* Dense features of a series [1,3,6,48,32] on the device; two grids when two blocks are asked for. */
static staged run_dense(const trn_setting *settings, size_t count, const test_tensor *x)
{
    trn_error err = {0};
    trn_features features;
    staged s = {.graph = trn_graph_create()};
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = load(make_encoder("prithvi-v2-100m-tl", settings, count), weights);
    set_dates(encoder, NULL, 0, x->shape[1]);
    trn_tensor *image = input_of(s.graph, x);
    assert_trn_ok(trn_encoder_build(encoder, s.graph, image, &as_is_dense, &features, &err), err);
    assert_null(features.pooled);
    for (int i = 0; i < features.grid_count; i++) {
        assert_true(features.stride[i] == 16 && features.offset[i] == 0);
        staged_add(&s, i ? "second" : "first", features.grids[i]);
    }
    trn_named_data input = {"x", x->data};
    staged_run_device(&s, &input, 1);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
    return s;
}

enum { DATES = 3, CELLS = 6, WIDTH = 64, TOKENS = 1 + DATES * CELLS };

static double merged(const float *tokens, bool mean, int cell, int channel)
{
    double sum = 0;
    if (!mean) return (double)tokens[(1 + channel / WIDTH * CELLS + cell) * WIDTH + channel % WIDTH];
    for (int t = 0; t < DATES; t++)
        sum += (double)tokens[(1 + t * CELLS + cell) * WIDTH + channel] / DATES;
    return sum;
}

static void check_grid(const staged *s, const char *name, const char *stage, bool mean)
{
    test_tensor golden = test_golden_output("prithvi_tiny_tl_nocoords", stage);
    int i = staged_find(s, name), channels = mean ? WIDTH : DATES * WIDTH;
    assert_int_equal(s->sizes[i], CELLS * channels);
    for (int k = 0; k < CELLS * channels; k++) {
        double wanted = merged(golden.data, mean, k / channels, k % channels);
        assert_true(fabs((double)s->values[i][k] - wanted) < 1e-5 * golden.absmax);
    }
    free(golden.data);
}

static void test_dense(void **state)
{
    (void)state;
    const trn_setting concat[] = {TINY_TL, {"out_indices", "0,2"}};
    const trn_setting mean[] = {TINY_TL, {"out_indices", "0,2"}, {"merge", "mean"}};
    test_tensor x = series_input("prithvi_tiny_tl_nocoords"), one = sample_of(&x, 0);
    staged s = run_dense(concat, TRN_COUNT(concat), &one);
    check_grid(&s, "first", "block00", false);
    check_grid(&s, "second", "final_norm", false);
    staged_close(&s);
    s = run_dense(mean, TRN_COUNT(mean), &one);
    check_grid(&s, "first", "block00", true);
    check_grid(&s, "second", "final_norm", true);
    staged_close(&s);
    free(x.data);
}

/* Bands left out are like bands whose kernel is multiplied by nothing. */
static void test_fewer_bands(void **state)
{
    (void)state;
    enum { AREA = 32 * 32 };
    static const int kept[] = {2, 0, 3}; /* red, blue, nir */
    const trn_setting all[] = {TINY_TL}, some[] = {TINY_TL, {"bands", "red,blue,nir"}};
    test_tensor whole = {.ndim = 5, .shape = {1, 1, 6, 32, 32}, .count = 6 * AREA}, part = whole;
    whole.data = calloc(6 * AREA, sizeof(float));
    part.data = test_hash_values("bands", 3 * AREA, 1.5, 0);
    part.shape[2] = 3;
    part.count = 3 * AREA;
    for (int i = 0; i < 3; i++)
        memcpy(whole.data + kept[i] * AREA, part.data + i * AREA, AREA * sizeof(float));
    staged a = run_dense(all, TRN_COUNT(all), &whole), b = run_dense(some, TRN_COUNT(some), &part);
    assert_int_equal(a.sizes[0], b.sizes[0]);
    assert_true(largest(a.values[0], a.sizes[0]) > 0.5);
    assert_true(test_worst_error(b.values[0], a.values[0], a.sizes[0], largest(a.values[0], a.sizes[0])) <
                1e-5);
    staged_close(&a);
    staged_close(&b);
    free(whole.data);
    free(part.data);
}

/* ---- configuration ---- */

static void test_bands(void **state)
{
    (void)state;
    static const char *const sensors[] = {"hls-l30",       "hls-s30",     "hls",
                                          "sentinel2-l2a", "landsat8-sr", "landsat5-sr"};
    static const char *const narrow[] = {"B05", "B8A", "B05", "B8A", "SR_B5", "SR_B4"};
    trn_error err = {0};
    for (size_t i = 0; i < TRN_COUNT(sensors); i++) {
        const trn_sensor *sensor = trn_sensor_find(sensors[i], &err);
        trn_band_offer offers[16];
        int index[16];
        size_t count;
        assert_non_null(sensor);
        for (size_t b = 0; b < sensor->band_count; b++)
            offers[b] = (trn_band_offer){sensor->bands[b].common, sensor->bands[b].wavelength_um};
        trn_encoder *encoder = make_encoder("prithvi-v2-300m", NULL, 0);
        assert_trn_ok(
            trn_encoder_choose_bands(encoder, offers, sensor->band_count, index, 16, &count, NULL, &err),
            err);
        assert_int_equal(count, 6);
        assert_string_equal(sensor->bands[index[3]].name, narrow[i]);
        trn_encoder_destroy(encoder);
    }
    trn_encoder *v1 = make_encoder("prithvi-v1-100m", NULL, 0),
                *v2 = make_encoder("prithvi-v2-600m", NULL, 0);
    const trn_encoder_spec *spec = trn_encoder_get_spec(v1);
    assert_true(spec->unit == TRN_UNIT_REFLECTANCE && fabs(spec->value_scale - 10000) < 1e-9);
    assert_true(fabs(spec->bands[5].mean - 1610.8324823273745) < 1e-9);
    assert_true(fabs(spec->bands[0].std - 1281.526139861424) < 1e-9);
    spec = trn_encoder_get_spec(v2);
    assert_true(fabs(spec->bands[3].mean - 2734) < 1e-9 && fabs(spec->bands[3].std - 1850) < 1e-9);
    assert_true(spec->side_multiple == 14 && spec->tile == 224 && spec->channels == 1280);
    trn_encoder_destroy(v1);
    trn_encoder_destroy(v2);
}

static void expect_refused(const trn_setting *settings, size_t count, const char *text)
{
    trn_encoder *encoder = NULL;
    trn_error err = {0};
    assert_trn_fails(trn_encoder_create("prithvi-v2-100m-tl", settings, count, &encoder, &err),
                     TRN_ERR_ARGUMENT, err, text);
    assert_null(encoder);
}

static void test_settings(void **state)
{
    (void)state;
    static const struct {
        trn_setting setting[2];
        const char *text;
    } cases[] = {
        {{{"dim", "776"}, {"heads", "8"}}, "dim=776 must be a multiple of heads=8 and of 16"},
        {{{"coords", "time"}, {"tubelet", "2"}}, "has no one time"},
        {{{"bands", "red,red"}, {"frames", "3"}}, "none of them twice"},
        {{{"bands", "nir,nir08"}, {"frames", "3"}}, "none of them twice"},
        {{{"bands", "red,vv"}, {"frames", "3"}}, "must name the 6 bands"},
        {{{"bands", "red,"}, {"frames", "3"}}, "separated by commas"},
        {{{"bands", "a,b,c,d,e,f"}, {"frames", "3"}}, "no statistics of band 'a'"},
        {{{"in_chans", "4"}, {"mean", "1,2,3,4"}}, "name them in the setting 'bands'"},
        {{{"bands", "red,blue"}, {"mean", "1,2,3"}}, "2 numbers"},
        {{{"frames", "3"}, {"out_indices", "12"}}, "from 0 to 11"},
        {{{"frames", "3"}, {"merge", "max"}}, "concat|mean"},
    };
    for (size_t i = 0; i < TRN_COUNT(cases); i++)
        expect_refused(cases[i].setting, 2, cases[i].text);
    const trn_setting own[] = {{"bands", "a,b,c,d,e,f"}, {"mean", "1,2,3,4,5,6"}, {"std", "1,2,3,4,5,6"}};
    trn_encoder_destroy(make_encoder("prithvi-v2-300m", own, TRN_COUNT(own)));
}

static void expect_not_built(trn_encoder *encoder, trn_shape shape, trn_status code, const char *text)
{
    trn_graph *graph = trn_graph_create();
    trn_features features;
    trn_error err = {0};
    trn_tensor *image = trn_input(graph, "image", TRN_F32, shape);
    assert_trn_fails(trn_encoder_build(encoder, graph, image, &as_is_mean, &features, &err), code, err, text);
    trn_graph_destroy(graph);
}

static void test_wrong_input(void **state)
{
    (void)state;
    const trn_setting tubelet[] = {TUBELET}, wider[] = {TINY_TL, {"mlp_ratio", "2"}};
    trn_error err = {0};
    trn_weights *weights = open_weights(NULL), *file;
    trn_encoder *encoder = load(make_encoder("prithvi-v2-100m-tl", tiny_tl, TRN_COUNT(tiny_tl)), weights);
    assert_trn_fails(trn_encoder_choose_dates(encoder, 65, NULL, &err), TRN_ERR_ARGUMENT, err,
                     "1 to 64 dates");
    set_dates(encoder, NULL, 0, 3);
    expect_not_built(encoder, TRN_SHAPE(1, 3, 5, 48, 32), TRN_ERR_ARGUMENT, "reads 6 bands");
    expect_not_built(encoder, TRN_SHAPE(1, 2, 6, 48, 32), TRN_ERR_ARGUMENT, "set up for 3 dates");
    expect_not_built(encoder, TRN_SHAPE(1, 3, 6, 40, 32), TRN_ERR_ARGUMENT, "multiples of 16");
    trn_encoder_destroy(encoder);
    encoder = load(make_encoder("prithvi-v2-300m", tubelet, TRN_COUNT(tubelet)), weights);
    assert_trn_fails(trn_encoder_choose_dates(encoder, 1, NULL, &err), TRN_ERR_ARGUMENT, err,
                     "2 to 64 dates");
    set_dates(encoder, NULL, 0, 3);
    expect_not_built(encoder, TRN_SHAPE(1, 3, 2, 32, 32), TRN_ERR_ARGUMENT, "no multiple of tubelet=2");
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
    if (!test_golden_path("prithvi_tiny_tl/prithvi_tiny_tl.pt")) return;
    file = open_weights(test_golden_path("prithvi_tiny_tl/prithvi_tiny_tl.pt"));
    encoder = make_encoder("prithvi-v2-100m-tl", wider, TRN_COUNT(wider));
    assert_trn_fails(trn_encoder_load(encoder, file, NULL, &err), TRN_ERR_FORMAT, err,
                     "'blocks.0.mlp.fc1.weight' [128,64] has shape [256,64]");
    trn_encoder_destroy(encoder);
    trn_weights_close(file);
}

/* The order of latitude and longitude, and where days begin, are settings. */
static void test_coordinate_conventions(void **state)
{
    (void)state;
    const trn_setting lonlat[] = {TINY_TL, {"location_order", "lonlat"}};
    float a[WIDTH], b[WIDTH];
    trn_encoder *first = make_encoder("prithvi-v2-100m-tl", tiny_tl, TRN_COUNT(tiny_tl));
    trn_encoder *second = make_encoder("prithvi-v2-100m-tl", lonlat, TRN_COUNT(lonlat));
    assert_int_equal(trn_encoder_get_spec(first)->location_values, WIDTH);
    trn_encoder_encode_location(first, 48.25, 11.5, a);
    trn_encoder_encode_location(second, 11.5, 48.25, b);
    assert_memory_equal(a, b, sizeof a);
    trn_encoder_encode_location(second, 48.25, 11.5, b);
    assert_true(memcmp(a, b, sizeof a) != 0);
    trn_encoder_destroy(first);
    trn_encoder_destroy(second);
}

static staged run_days(const char *day_base, int day_of_year)
{
    const trn_setting settings[] = {TINY_TL, {"day_base", day_base}};
    const trn_date date = {.year = 2020, .month = 1, .day = 1, .day_of_year = day_of_year};
    trn_error err = {0};
    trn_features features;
    staged s = {.graph = trn_graph_create()};
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = load(make_encoder("prithvi-v2-100m-tl", settings, TRN_COUNT(settings)), weights);
    assert_trn_ok(trn_encoder_choose_dates(encoder, 1, &date, &err), err);
    trn_tensor *image = trn_input(s.graph, "x", TRN_F32, TRN_SHAPE(1, 6, 16, 32));
    assert_trn_ok(trn_encoder_build(encoder, s.graph, image, &as_is_mean, &features, &err), err);
    staged_add(&s, "mean", features.pooled);
    float *x = test_hash_values("days", 6 * 16 * 32, 1, 0);
    trn_named_data input = {"x", x};
    staged_run_reference(&s, &input, 1);
    free(x);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
    return s;
}

static void test_day_base(void **state)
{
    (void)state;
    staged a = run_days("1", 99), b = run_days("0", 100), c = run_days("1", 100);
    assert_memory_equal(a.values[0], b.values[0], WIDTH * sizeof(float));
    assert_true(memcmp(a.values[0], c.values[0], WIDTH * sizeof(float)) != 0);
    staged_close(&a);
    staged_close(&b);
    staged_close(&c);
}

/* ---- reconstruction ---- */

#define MAE_TINY                                                                                             \
    TINY_TL, {"decoder_dim", "48"}, {"decoder_depth", "2"},                                                  \
    {                                                                                                        \
        "decoder_heads", "4"                                                                                 \
    }
static const char mae[] = "prithvi_tiny_mae";
static const trn_setting mae_settings[] = {MAE_TINY};
enum { MAE_PATCHES = 18, MAE_VALUES = 16 * 16 * 6, MAE_PIXELS = 48 * 32, MAE_IMAGE = 3 * 6 * MAE_PIXELS };

static trn_encoder *make_masked(trn_weights *weights)
{
    trn_encoder *encoder = NULL;
    trn_error err = {0};
    assert_trn_ok(
        trn_masked_create("prithvi-v2-100m-tl", mae_settings, TRN_COUNT(mae_settings), &encoder, &err), err);
    return load(encoder, weights);
}

/* The order of the patches of image b by the case's noise, compared with what the original made of it. */
static void mask_of(int64_t b, int32_t *order, int64_t *visible)
{
    trn_error err = {0};
    test_tensor noise = test_golden_input(mae, "noise"), restore = test_golden_output(mae, "ids_restore"),
                mask = test_golden_output(mae, "mask");
    assert_trn_ok(trn_masked_visible(MAE_PATCHES, 0.75, visible, &err), err);
    assert_int_equal(*visible, 4);
    assert_trn_ok(trn_masked_sort(noise.data + b * MAE_PATCHES, MAE_PATCHES, order, &err), err);
    for (int i = 0; i < MAE_PATCHES; i++) {
        assert_int_equal((int)restore.data[b * MAE_PATCHES + order[i]], i);
        assert_int_equal((int)mask.data[b * MAE_PATCHES + order[i]], i >= *visible);
    }
    free(noise.data);
    free(restore.data);
    free(mask.data);
}

/* drawn [T,C,h,w] against the original's [C,T,h,w] */
static void compare_drawn(const float *drawn, int64_t b)
{
    float *turned = malloc(MAE_IMAGE * sizeof *turned);
    assert_non_null(turned);
    for (int i = 0; i < MAE_IMAGE; i++) {
        int c = i / MAE_PIXELS % 6, t = i / MAE_PIXELS / 6;
        turned[(c * 3 + t) * MAE_PIXELS + i % MAE_PIXELS] = drawn[i];
    }
    compare_sample(mae, "pred_image", turned, MAE_IMAGE, b, 1e-5);
    free(turned);
}

/* Image b alone; adds its loss. */
static void run_masked(trn_encoder *encoder, const test_tensor *x, int64_t b, double *losses)
{
    int32_t order[MAE_PATCHES];
    trn_error err = {0};
    trn_masked made;
    trn_mask mask = {.order = order};
    staged s = {.graph = trn_graph_create()};
    trn_encode_options options = as_is_mean;
    float *place = place_of(encoder, mae, b);
    trn_named_data inputs[] = {{"x", x->data}, {"place", place}};
    set_dates(encoder, mae, b, 3);
    mask_of(b, order, &mask.visible);
    options.location =
        trn_input(s.graph, "place", TRN_F32, TRN_SHAPE(1, trn_encoder_get_spec(encoder)->location_values));
    assert_trn_ok(trn_masked_build_stages(encoder, s.graph, input_of(s.graph, x), &options, &mask, &made,
                                          staged_add, &s, &err),
                  err);
    staged_add(&s, "drawn", made.drawn);
    for (int device = 0; device < 2; device++) {
        if (device)
            staged_run_device(&s, inputs, 2);
        else
            staged_run_reference(&s, inputs, 2);
        compare_sample(mae, "latent", staged_get(&s, "latent"), 5 * WIDTH, b, 1e-5);
        compare_sample(mae, "pred_tokens", staged_get(&s, "pred_tokens"), MAE_PATCHES * MAE_VALUES, b, 1e-5);
        compare_drawn(staged_get(&s, "drawn"), b);
        losses[device] += (double)staged_get(&s, "loss")[0];
    }
    free(place);
    staged_close(&s);
}

static void compare_masked(const char *file)
{
    double losses[2] = {0, 0};
    trn_weights *weights = open_weights(file);
    trn_encoder *encoder = make_masked(weights);
    test_tensor x = series_input(mae);
    for (int64_t b = 0; b < x.shape[0]; b++) {
        test_tensor one = sample_of(&x, b);
        run_masked(encoder, &one, b, losses);
    }
    for (int device = 0; device < 2; device++) {
        float mean = (float)(losses[device] / 2);
        test_compare_golden(mae, "loss", &mean, 1, 1e-5);
    }
    free(x.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* ---- names of other files ---- */

enum { MAX_TENSORS = 96 };

/* A copy of a checkpoint with what stands before its names taken off, and something else put there. malloc'd
 * path. */
static char *rename_checkpoint(const char *from, const char *const *taken, const char *put)
{
    trn_weights *weights = open_weights(from);
    trn_error err = {0};
    trn_weight_data tensors[MAX_TENSORS];
    char names[MAX_TENSORS][96];
    float *values[MAX_TENSORS];
    size_t count = trn_weights_count(weights);
    assert_in_range(count, 1, MAX_TENSORS);
    for (size_t i = 0; i < count; i++) {
        const trn_weight *weight = trn_weights_at(weights, i);
        const char *name = weight->name;
        int64_t elements = 1;
        for (int d = 0; d < weight->ndim; d++)
            elements *= weight->shape[d];
        values[i] = malloc((size_t)elements * sizeof(float));
        assert_non_null(values[i]);
        assert_trn_ok(trn_weights_read(weights, name, weight->shape, weight->ndim, values[i], &err), err);
        for (const char *const *t = taken; *t; t++)
            if (trn_starts_with(name, *t)) name += strlen(*t);
        snprintf(names[i], sizeof names[i], "%s%s", put, name);
        tensors[i] = (trn_weight_data){.name = names[i], .ndim = weight->ndim, .data = values[i]};
        memcpy(tensors[i].shape, weight->shape, sizeof weight->shape);
    }
    char *path = test_path(test_temp_dir(), "renamed.safetensors");
    assert_trn_ok(trn_weights_write(path, tensors, count, NULL, &err), err);
    for (size_t i = 0; i < count; i++)
        free(values[i]);
    trn_weights_close(weights);
    return path;
}

/* The first release's file had no "encoder." and "decoder."; training code wraps names. */
static void test_other_names(void **state)
{
    (void)state;
    static const golden_run run = {"prithvi_tiny_tl", "prithvi_tiny_tl", 10, 1e-5, true};
    const char *const taken[] = {"encoder.", "decoder.", NULL}, *const none[] = {NULL};
    const char *wrapped[] = {"_timm_module.", "model."};
    char whole[4096], alone[4096];
    if (!test_golden_path("prithvi_tiny_mae/prithvi_tiny_mae.safetensors")) skip();
    snprintf(whole, sizeof whole, "%s", test_golden_path("prithvi_tiny_mae/prithvi_tiny_mae.safetensors"));
    snprintf(alone, sizeof alone, "%s", test_golden_path("prithvi_tiny_tl/prithvi_tiny_tl.pt"));
    char *old = rename_checkpoint(whole, taken, "");
    compare_masked(old);
    free(old);
    for (size_t i = 0; i < TRN_COUNT(wrapped); i++) {
        char *path = rename_checkpoint(alone, i ? none : taken, wrapped[i]);
        compare_file(&run, "prithvi-v2-100m-tl", path, tiny_tl, TRN_COUNT(tiny_tl));
        free(path);
    }
}

static void test_masked(void **state)
{
    (void)state;
    compare_masked(NULL);
    if (test_golden_path("prithvi_tiny_mae/prithvi_tiny_mae.pt"))
        compare_masked(test_golden_path("prithvi_tiny_mae/prithvi_tiny_mae.pt"));
}

/* A checkpoint made up for the pair holds both sides' names; it loads as a pair, and as the encoder alone. */
static void test_masked_made_up(void **state)
{
    (void)state;
    trn_error err = {0};
    char *path = test_path(test_temp_dir(), "pair.pt");
    assert_trn_ok(trn_masked_write_synthetic("prithvi-v2-100m-tl", mae_settings, TRN_COUNT(mae_settings),
                                             path, NULL, &err),
                  err);
    compare_masked(path);
    trn_weights *weights = open_weights(path);
    trn_encoder_destroy(load(make_encoder("prithvi-v2-100m-tl", tiny_tl, TRN_COUNT(tiny_tl)), weights));
    trn_weights_close(weights);
    free(path);
}

/* Two images with masks of their own in one batch are as each alone. */
static staged run_masked_batch(trn_encoder *encoder, const test_tensor *x, const int32_t *order)
{
    trn_error err = {0};
    trn_masked made;
    staged s = {.graph = trn_graph_create()};
    const trn_mask mask = {order, 4};
    set_dates(encoder, NULL, 0, 3);
    assert_trn_ok(trn_masked_build(encoder, s.graph, input_of(s.graph, x), &as_is_mean, &mask, &made, &err),
                  err);
    staged_add(&s, "drawn", made.drawn);
    staged_add(&s, "loss", made.loss);
    trn_named_data input = {"x", x->data};
    staged_run_device(&s, &input, 1);
    return s;
}

static void test_masked_batch(void **state)
{
    (void)state;
    int32_t order[2 * MAE_PATCHES];
    int64_t visible;
    double losses = 0;
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = make_masked(weights);
    test_tensor x = series_input(mae);
    for (int64_t b = 0; b < 2; b++)
        mask_of(b, order + b * MAE_PATCHES, &visible);
    staged both = run_masked_batch(encoder, &x, order);
    double most = largest(both.values[0], both.sizes[0]);
    for (int64_t b = 0; b < 2; b++) {
        test_tensor one = sample_of(&x, b);
        staged alone = run_masked_batch(encoder, &one, order + b * MAE_PATCHES);
        assert_true(test_worst_error(both.values[0] + b * MAE_IMAGE, alone.values[0], MAE_IMAGE, most) <
                    1e-5);
        losses += (double)alone.values[1][0] / 2;
        staged_close(&alone);
    }
    assert_true(fabs(losses - (double)both.values[1][0]) < 1e-5 * losses);
    staged_close(&both);
    free(x.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* A decoder that spans two dates: what is drawn, cut into patches again, has the same loss. */
static void test_masked_tubelet(void **state)
{
    (void)state;
    enum { T = 4, C = 2, SIDE = 32, PATCH = 8, GRID = SIDE / PATCH, COUNT = T / 2 * GRID * GRID, KEPT = 8 };
    const trn_setting settings[] = {
        TUBELET, {"decoder_dim", "32"}, {"decoder_depth", "1"}, {"decoder_heads", "2"}};
    int32_t order[COUNT];
    trn_error err = {0};
    trn_masked made;
    trn_encoder *encoder = NULL;
    trn_weights *weights = open_weights(NULL);
    staged s = {.graph = trn_graph_create()};
    assert_trn_ok(trn_masked_create("prithvi-v2-300m", settings, TRN_COUNT(settings), &encoder, &err), err);
    load(encoder, weights);
    set_dates(encoder, NULL, 0, T);
    for (int i = 0; i < COUNT; i++)
        order[i] = i * 5 % COUNT;
    const trn_mask mask = {order, KEPT};
    trn_tensor *image = trn_input(s.graph, "x", TRN_F32, TRN_SHAPE(1, T, C, SIDE, SIDE));
    assert_trn_ok(trn_masked_build(encoder, s.graph, image, &as_is_mean, &mask, &made, &err), err);
    staged_add(&s, "drawn", made.drawn);
    staged_add(&s, "loss", made.loss);
    float *x = test_hash_values("tubelets", T * C * SIDE * SIDE, 1.5, 0);
    trn_named_data input = {"x", x};
    staged_run_device(&s, &input, 1);
    uint8_t seen[COUNT] = {0};
    for (int i = 0; i < KEPT; i++)
        seen[order[i]] = 1;
    double sum = 0;
    for (int i = 0; i < T * C * SIDE * SIDE; i++) {
        int column = i % SIDE / PATCH, row = i / SIDE % SIDE / PATCH, t = i / (SIDE * SIDE * C) / 2;
        double d = (double)s.values[0][i] - (double)x[i];
        if (!seen[(t * GRID + row) * GRID + column]) sum += d * d;
    }
    sum /= (double)(COUNT - KEPT) * (2 * PATCH * PATCH * C);
    assert_true(sum > 0.1 && fabs(sum - (double)s.values[1][0]) < 1e-5 * sum);
    free(x);
    staged_close(&s);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void test_masked_errors(void **state)
{
    (void)state;
    const trn_setting fewer[] = {TINY_TL, {"bands", "red,blue"}}, odd[] = {{"decoder_dim", "40"}};
    int64_t visible;
    int32_t order[MAE_PATCHES] = {0};
    trn_error err = {0};
    trn_encoder *encoder = NULL;
    assert_trn_fails(trn_masked_create("mae-vit-base", NULL, 0, &encoder, &err), TRN_ERR_ARGUMENT, err,
                     "has no decoder");
    assert_trn_fails(trn_masked_create("prithvi-v2-300m", fewer, TRN_COUNT(fewer), &encoder, &err),
                     TRN_ERR_ARGUMENT, err, "draws all bands");
    assert_trn_fails(trn_masked_create("prithvi-v2-300m", odd, 1, &encoder, &err), TRN_ERR_ARGUMENT, err,
                     "decoder_dim=40 must be a multiple");
    assert_null(encoder);
    assert_trn_fails(trn_masked_visible(18, 1, &visible, &err), TRN_ERR_ARGUMENT, err, "mask ratio of 1");
    assert_trn_fails(trn_masked_visible(18, 0, &visible, &err), TRN_ERR_ARGUMENT, err, "mask ratio of 0");
    assert_trn_fails(trn_masked_visible(18, (double)NAN, &visible, &err), TRN_ERR_ARGUMENT, err,
                     "mask ratio");
    trn_weights *weights = open_weights(NULL);
    encoder = make_masked(weights);
    set_dates(encoder, NULL, 0, 3);
    trn_graph *graph = trn_graph_create();
    trn_masked made;
    trn_tensor *image = trn_input(graph, "x", TRN_F32, TRN_SHAPE(1, 3, 6, 48, 32));
    const trn_mask repeated = {order, 4}, all = {order, MAE_PATCHES};
    assert_trn_fails(trn_masked_build(encoder, graph, image, NULL, &repeated, &made, &err), TRN_ERR_ARGUMENT,
                     err, "each of 18 patches once");
    assert_trn_fails(trn_masked_build(encoder, graph, image, NULL, &all, &made, &err), TRN_ERR_ARGUMENT, err,
                     "18 of 18 patches cannot be visible");
    trn_graph_destroy(graph);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
    if (!test_golden_path("prithvi_tiny_tl/prithvi_tiny_tl.pt")) return;
    weights = open_weights(test_golden_path("prithvi_tiny_tl/prithvi_tiny_tl.pt"));
    assert_trn_ok(
        trn_masked_create("prithvi-v2-100m-tl", mae_settings, TRN_COUNT(mae_settings), &encoder, &err), err);
    assert_trn_fails(trn_encoder_load(encoder, weights, NULL, &err), TRN_ERR_FORMAT, err,
                     "'decoder.decoder_embed.weight' [48,64] is missing");
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_tl),
        cmocka_unit_test(test_tiny_unknown_coordinates),
        cmocka_unit_test(test_tiny_other_sizes),
        cmocka_unit_test(test_tiny_tubelet),
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_fewer_bands),
        cmocka_unit_test(test_bands),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_wrong_input),
        cmocka_unit_test(test_coordinate_conventions),
        cmocka_unit_test(test_day_base),
        cmocka_unit_test(test_masked),
        cmocka_unit_test(test_masked_made_up),
        cmocka_unit_test(test_other_names),
        cmocka_unit_test(test_masked_batch),
        cmocka_unit_test(test_masked_tubelet),
        cmocka_unit_test(test_masked_errors),
        cmocka_unit_test(test_full_v1),
        cmocka_unit_test(test_full_v2_tl),
    };
    return cmocka_run_group_tests(tests, NULL, close_gpu);
}
