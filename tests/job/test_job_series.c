/* Jobs over several dates, over places and rectangles, and getting the input right: display bytes, band
 * names, statistics. */
#include "test_device.h"
#include "test_support.h"
#include "test_raster.h"
#include "job_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tiffio.h>

/* ---- a job of one encoder ---- */

enum { MAX_FILES = 12 };

typedef struct heard {
    trn_text notes, warnings;
} heard;

static void hear(void *user, trn_log_level level, const char *text)
{
    heard *h = user;
    trn_text_printf(level == TRN_LOG_WARN ? &h->warnings : &h->notes, "%s\n", text);
}

typedef struct fixture {
    char *dir, *paths[MAX_FILES], *weights;
    trn_embed_job job;
    trn_job_encoder encoder;
    trn_job_export export;
    heard heard;
} fixture;

static fixture set_up(const char *model, const trn_setting *settings, size_t setting_count)
{
    trn_error err = {0};
    fixture f = {.dir = strdup(test_temp_dir())};
    f.encoder = (trn_job_encoder){.model = model, .settings = settings, .setting_count = setting_count};
    if (strcmp(model, "rcf") != 0) {
        f.weights = test_path(f.dir, "weights.safetensors");
        assert_trn_ok(trn_model_write_synthetic(model, settings, setting_count, f.weights, NULL, &err), err);
        f.encoder.weights = f.weights;
    }
    f.export.path = "a.npy";
    f.job = (trn_embed_job){.export_count = 1, .encoder_count = 1, .no_result = true};
    return f;
}

/* Adds a file, called so in the fixture's folder. */
static void add_file(fixture *f, const char *name, const test_raster *raster)
{
    size_t i = f->job.scene.path_count++;
    assert_true(i < MAX_FILES);
    f->paths[i] = test_path(f->dir, name);
    if (raster) test_raster_write(f->paths[i], raster);
}

static void connect(fixture *f)
{
    f->job.scene.paths = (const char *const *)f->paths;
    f->job.encoders = &f->encoder;
    f->job.exports = &f->export;
    f->job.out_dir = f->dir;
}

static trn_status run(fixture *f, trn_error *err)
{
    trn_job_hooks hooks = {.note = hear, .user = &f->heard};
    trn_embed_result result;
    connect(f);
    trn_status status = trn_embed_run(&f->job, gpu, &hooks, &result, err);
    if (status == TRN_OK) trn_embed_result_free(&result);
    return status;
}

static void expect_refused(fixture *f, trn_status wanted, const char *text)
{
    trn_error err = {0};
    trn_job_hooks hooks = {.note = hear, .user = &f->heard};
    connect(f);
    assert_trn_fails(trn_embed_check(&f->job, &hooks, &err), wanted, err, text);
}

/* The job's vectors. */
static float *run_and_read(fixture *f, int64_t *count)
{
    trn_error err = {0};
    int64_t shape[3] = {1, 1, 1};
    float *data;
    int dims;
    assert_trn_ok(run(f, &err), err);
    char *path = test_path(f->dir, f->export.path);
    assert_trn_ok(trn_npy_read(path, &data, shape, 3, &dims, &err), err);
    free(path);
    *count = shape[0] * shape[1] * shape[2];
    return data;
}

static void forget(fixture *f)
{
    for (size_t i = 0; i < f->job.scene.path_count; i++)
        free(f->paths[i]);
    free(f->weights);
    free(f->dir);
    trn_text_free(&f->heard.notes);
    trn_text_free(&f->heard.warnings);
    *f = (fixture){0};
}

static double largest(const float *values, int64_t count)
{
    double most = 0;
    for (int64_t i = 0; i < count; i++)
        most = TRN_MAX(most, fabs((double)values[i]));
    return most;
}

/* ---- series against golden numbers ---- */

static const float *golden;
static int golden_date, golden_dates, golden_side;

/* golden [bands, dates, side, side] */
static double golden_value(int band, int x, int y)
{
    return (double)golden[((band * golden_dates + golden_date) * golden_side + y) * golden_side + x];
}

/* Four files of two bands are the four dates of a model's input, from files to vectors. */
static void golden_series(void **state)
{
    (void)state;
    static const char id[] = "prithvi_tiny_tubelet2";
    static const trn_setting settings[] = {{"img_size", "32"}, {"frames", "4"},   {"tubelet", "2"},
                                           {"patch", "8"},     {"in_chans", "2"}, {"dim", "32"},
                                           {"depth", "2"},     {"heads", "2"}};
    test_tensor x = test_golden_input(id, "x");
    fixture f = set_up("prithvi-v2-300m", settings, TRN_COUNT(settings));
    golden = x.data;
    golden_dates = 4;
    golden_side = 32;
    for (golden_date = 0; golden_date < 4; golden_date++) {
        char name[32];
        snprintf(name, sizeof name, "frame%d.tif", golden_date);
        add_file(&f, name,
                 &(test_raster){
                     .width = 32, .height = 32, .bands = 2, .type = TEST_RASTER_F32, .value = golden_value});
    }
    f.job.tile = 32;
    f.job.tile_vectors = true;
    f.encoder.pool = TRN_FEATURES_MEAN;
    f.encoder.normalize = TRN_NORMALIZE_NONE;
    int64_t count;
    float *vector = run_and_read(&f, &count);
    test_compare_golden(id, "pooled_mean", vector, count, 1e-5);
    free(vector);
    assert_non_null(
        strstr(trn_text_get(&f.heard.notes), "a series of 4 dates of 2 bands: 1: frame0.tif (date not"));
    /* the same said outright, in another order of the files: other numbers */
    static const size_t files[] = {1, 1, 1, 1};
    char *first = f.paths[0];
    f.job.scene.date_files = files;
    f.job.scene.date_count = 4;
    f.paths[0] = f.paths[2];
    f.paths[2] = first;
    float *other = run_and_read(&f, &count);
    test_tensor wanted = test_golden_output(id, "pooled_mean");
    assert_true(test_worst_error(other, wanted.data, count, wanted.absmax) > 1e-3);
    free(other);
    free(wanted.data);
    free(x.data);
    forget(&f);
}

/* ---- dates and places ---- */

enum { SIDE = 32, BANDS = 6, DIM = 32 };
static const trn_setting located_settings[] = {
    {"img_size", "32"}, {"dim", "32"}, {"depth", "1"}, {"heads", "2"}, {"coords", "time+location"}};
static int brighter;

static double series_value(int band, int x, int y)
{
    double value = 0.1 + 0.2 * test_raster_texture(band, x + 7 * brighter, y);
    return value;
}

/* Two dates of two windows side by side. */
static fixture located_fixture(void)
{
    fixture f = set_up("prithvi-v2-100m-tl", located_settings, TRN_COUNT(located_settings));
    static const char *const names[] = {"S2_20180128.tif", "S2_2018153.tif"};
    for (brighter = 0; brighter < 2; brighter++)
        add_file(&f, names[brighter],
                 &(test_raster){.width = 2 * SIDE,
                                .height = SIDE,
                                .bands = BANDS,
                                .type = TEST_RASTER_U16,
                                .value = series_value});
    f.job.scene.sensor = "hls";
    f.job.tile = SIDE;
    f.job.tile_vectors = true;
    f.encoder.pool = TRN_FEATURES_MEAN;
    return f;
}

/* The encoder itself, on window `column` of the fixture's files. */
static void encode_directly(const fixture *f, int column, const trn_date *dates, const double *place,
                            float *out)
{
    trn_error err = {0};
    trn_encoder *encoder;
    trn_weights *weights;
    trn_exec *exec;
    trn_features features;
    static const trn_band_offer offers[BANDS] = {{"blue", 0},  {"green", 0},  {"red", 0},
                                                 {"nir08", 0}, {"swir16", 0}, {"swir22", 0}};
    int index[8];
    size_t count;
    assert_trn_ok(
        trn_encoder_create(f->encoder.model, f->encoder.settings, f->encoder.setting_count, &encoder, &err),
        err);
    assert_trn_ok(trn_weights_open(f->weights, NULL, &weights, &err), err);
    assert_trn_ok(trn_encoder_choose_dates(encoder, 2, dates, &err), err);
    assert_trn_ok(trn_encoder_choose_bands(encoder, offers, BANDS, index, 8, &count, NULL, &err), err);
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    float *pixels = malloc(2 * BANDS * SIDE * SIDE * sizeof *pixels), encoded[64];
    static const int bands[] = {0, 1, 2, 3, 4, 5};
    for (size_t t = 0; t < 2; t++) {
        trn_scene *scene;
        assert_trn_ok(trn_scene_open((const char *const *)&f->paths[t], 1, NULL, &scene, &err), err);
        assert_trn_ok(trn_scene_read(scene, bands, BANDS, column * SIDE, 0, SIDE, SIDE,
                                     pixels + t * BANDS * SIDE * SIDE, NULL, &err),
                      err);
        trn_scene_close(scene);
    }
    trn_graph *graph = trn_graph_create();
    trn_encode_options options = {.pool = TRN_FEATURES_MEAN};
    int values = trn_encoder_get_spec(encoder)->location_values;
    assert_true(values > 0 && values <= 64);
    if (place) options.location = trn_input(graph, "location", TRN_F32, TRN_SHAPE(1, values));
    trn_tensor *image = trn_input(graph, "image", TRN_F32, TRN_SHAPE(1, 2, BANDS, SIDE, SIDE));
    assert_trn_ok(trn_encoder_build(encoder, graph, image, &options, &features, &err), err);
    trn_output_add(graph, "vector", features.pooled);
    assert_trn_ok(trn_compile(graph, gpu, NULL, &exec, &err), err);
    if (place) {
        trn_encoder_encode_location(encoder, place[0], place[1], encoded);
        assert_trn_ok(trn_exec_set(exec, "location", encoded, &err), err);
    }
    assert_trn_ok(trn_exec_set(exec, "image", pixels, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    assert_trn_ok(trn_exec_get(exec, "vector", out, &err), err);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
    free(pixels);
}

static void dates_and_places(void **state)
{
    (void)state;
    trn_error err = {0};
    fixture f = located_fixture();
    const trn_date named[] = {{2018, 1, 28, 28}, {2018, 6, 2, 153}},
                   given[] = {{2019, 2, 1, 32}, {2019, 3, 1, 60}};
    int64_t count;
    float wanted[DIM];
    float *got = run_and_read(&f, &count);
    assert_int_equal(count, 2 * DIM);
    double scale = largest(got, count);
    for (int column = 0; column < 2; column++) {
        const trn_georef georef = {
            .has_transform = true,
            .has_crs = true,
            .transform = {TEST_RASTER_EAST, TEST_RASTER_PIXEL, 0, TEST_RASTER_NORTH, 0, -TEST_RASTER_PIXEL},
            .epsg = TEST_RASTER_EPSG};
        double place[2];
        assert_trn_ok(
            trn_georef_locate(&georef, SIDE * (column + 0.5), SIDE * 0.5, &place[0], &place[1], &err), err);
        encode_directly(&f, column, named, place, wanted);
        assert_true(test_worst_error(got + column * DIM, wanted, DIM, scale) < 1e-5);
    }
    free(got);
    /* what the job says comes before names and georeference */
    f.job.scene.acquired = given;
    f.job.scene.acquired_count = 2;
    f.job.scene.has_location = true;
    f.job.scene.latitude = -33.5;
    f.job.scene.longitude = 151;
    got = run_and_read(&f, &count);
    encode_directly(&f, 1, given, (double[2]){-33.5, 151}, wanted);
    assert_true(test_worst_error(got + DIM, wanted, DIM, scale) < 1e-5);
    encode_directly(&f, 1, named, (double[2]){-33.5, 151}, wanted);
    assert_true(test_worst_error(got + DIM, wanted, DIM, scale) > 1e-4);
    free(got);
    f.job.scene.acquired_count = 1;
    expect_refused(&f, TRN_ERR_ARGUMENT, "1 acquisition date is given, and the files are 2 dates");
    f.job.scene.acquired_count = 2;
    f.job.scene.latitude = 100;
    expect_refused(&f, TRN_ERR_ARGUMENT, "latitude 100");
    forget(&f);
}

/* A window at the rim of the earth, whose middle lies beside it, is where its valid pixels are. */
static void place_at_the_rim(void **state)
{
    (void)state;
    static const double params[] = {6371007.181, 0};
    static const uint16_t keys[] = {1, 1,  0,    4,     1024, 0, 1,    1,     3075, 0,
                                    1, 24, 2057, 34736, 1,    0, 3088, 34736, 1,    1};
    const double radius = params[0], pixel = 463.3127, half = 3.14159265358979 * radius;
    const trn_georef georef = {.has_transform = true,
                               .has_crs = true,
                               .transform = {half - 10 * pixel, pixel, 0, 0, 0, -pixel},
                               .keys = keys,
                               .key_count = (uint16_t)TRN_COUNT(keys),
                               .double_params = params,
                               .double_count = 2};
    trn_error err = {0};
    trn_embed_job job = {0};
    job_plan plan = {.job = &job, .width = SIDE, .height = SIDE};
    uint8_t valid[SIDE * SIDE] = {0};
    double place[2], wanted[2];
    for (int y = 4; y < 10; y++)
        memset(valid + y * SIDE, 1, 8);
    assert_trn_ok(trn_locator_create(&georef, &plan.locator, &err), err);
    assert_trn_fails(trn_locator_find(plan.locator, SIDE / 2.0, SIDE / 2.0, &place[0], &place[1], &err),
                     TRN_ERR_FORMAT, err, "outside of its CRS");
    assert_trn_ok(trn_locator_find(plan.locator, 4, 7, &wanted[0], &wanted[1], &err), err);
    assert_trn_ok(job_place_of_window(&plan, 0, 0, valid, place, &err), err);
    assert_true(place[0] == wanted[0] && place[1] == wanted[1]);
    assert_trn_ok(job_place_of_window(&plan, -100, 50, valid, place, &err), err);
    assert_trn_ok(trn_locator_find(plan.locator, -96, 57, &wanted[0], &wanted[1], &err), err);
    assert_true(place[0] == wanted[0] && place[1] == wanted[1]);
    trn_locator_destroy(plan.locator);
}

/* What a series keeps decoded has a limit of its own, however many its dates. */
static void cache_of_many_dates(void **state)
{
    (void)state;
    const size_t mib = (size_t)1 << 20;
    assert_int_equal(job_dates_cache(2), 256 * mib);
    assert_int_equal(job_dates_cache(24), 64 * mib);
    for (size_t count = 2; count <= 366; count++) {
        assert_true(job_dates_cache(count) * count <= 2048 * mib);
        assert_true(job_dates_cache(count) >= 5 * mib);
    }
}

/* Images have places of their own; without the date an image is what the same window of a scene is. */
static void places_of_images(void **state)
{
    (void)state;
    const test_raster raster = {
        .width = SIDE, .height = SIDE, .bands = BANDS, .type = TEST_RASTER_U16, .value = series_value};
    int64_t count;
    fixture scene = set_up("prithvi-v2-100m-tl", located_settings, TRN_COUNT(located_settings));
    brighter = 0;
    add_file(&scene, "a.tif", &raster);
    scene.job.scene.sensor = "hls";
    scene.job.tile = SIDE;
    scene.job.tile_vectors = true;
    scene.encoder.pool = TRN_FEATURES_MEAN;
    float *window = run_and_read(&scene, &count);
    fixture images = set_up("prithvi-v2-100m-tl", located_settings, TRN_COUNT(located_settings));
    add_file(&images, "a.tif", &raster);
    add_file(&images, "b.tif", &raster);
    images.job.scene.sensor = "hls";
    images.job.scene.each = true;
    images.encoder.pool = TRN_FEATURES_MEAN;
    float *vectors = run_and_read(&images, &count);
    assert_int_equal(count, 2 * DIM);
    double scale = largest(window, DIM);
    assert_true(test_worst_error(vectors, window, DIM, scale) < 1e-5);
    free(window);
    scene.job.scene.has_location = true; /* 0, 0: another place */
    window = run_and_read(&scene, &count);
    assert_true(test_worst_error(vectors, window, DIM, scale) > 1e-4);
    free(window);
    free(vectors);
    images.job.scene.acquired = &(trn_date){2020, 1, 1, 1};
    images.job.scene.acquired_count = 1;
    expect_refused(&images, TRN_ERR_ARGUMENT, "images have no dates");
    forget(&scene);
    forget(&images);
}

/* Images whose names all say one date are of that date, as a scene of that name is; else the date is not
 * known. What is known is told of with its source. */
static void dates_of_images(void **state)
{
    (void)state;
    static const char *const names[][2] = {{"S2_20180602_a.tif", "S2_20180602_b.tif"},
                                           {"S2_20180602_a.tif", "S2_20180603_b.tif"},
                                           {"S2_20180602_a.tif", "b.tif"}};
    const test_raster raster = {
        .width = SIDE, .height = SIDE, .bands = BANDS, .type = TEST_RASTER_U16, .value = series_value};
    int64_t count;
    brighter = 0;
    fixture scene = set_up("prithvi-v2-100m-tl", located_settings, TRN_COUNT(located_settings));
    add_file(&scene, names[0][0], &raster);
    scene.job.scene.sensor = "hls";
    scene.job.tile = SIDE;
    scene.job.tile_vectors = true;
    scene.encoder.pool = TRN_FEATURES_MEAN;
    float *window = run_and_read(&scene, &count);
    assert_non_null(strstr(trn_text_get(&scene.heard.notes),
                           "S2_20180602_a.tif' is of 2018-06-02: the file's name says so"));
    for (size_t i = 0; i < TRN_COUNT(names); i++) {
        fixture images = set_up("prithvi-v2-100m-tl", located_settings, TRN_COUNT(located_settings));
        add_file(&images, names[i][0], &raster);
        add_file(&images, names[i][1], &raster);
        images.job.scene.sensor = "hls";
        images.job.scene.each = true;
        images.encoder.pool = TRN_FEATURES_MEAN;
        float *vectors = run_and_read(&images, &count);
        assert_int_equal(count, 2 * DIM);
        for (int row = 0; row < 2; row++) {
            double error = test_worst_error(vectors + row * DIM, window, DIM, largest(window, DIM));
            assert_true(i == 0 ? error < 1e-5 : error > 1e-4);
        }
        assert_non_null(
            strstr(trn_text_get(&images.heard.notes),
                   i ? "do not say one date for all" : "is of 2018-06-02: the names of all images"));
        free(vectors);
        forget(&images);
    }
    free(window);
    forget(&scene);
}

/* The day in a TIFF's tag may be that of processing: the list of dates says that it is from there. */
static void dates_of_tags(void **state)
{
    (void)state;
    fixture f = located_fixture();
    f.job.scene.path_count = 1;
    free(f.paths[1]);
    f.paths[1] = NULL;
    add_file(&f, "later.tif",
             &(test_raster){.width = 2 * SIDE,
                            .height = SIDE,
                            .bands = BANDS,
                            .type = TEST_RASTER_U16,
                            .value = series_value});
    TIFF *file = TIFFOpen(f.paths[1], "r+");
    assert_non_null(file);
    assert_int_equal(TIFFSetField(file, TIFFTAG_DATETIME, "2018:07:04 10:00:00"), 1);
    assert_int_equal(TIFFRewriteDirectory(file), 1);
    TIFFClose(file);
    trn_error err = {0};
    trn_job_hooks hooks = {.note = hear, .user = &f.heard};
    connect(&f);
    assert_trn_ok(trn_embed_check(&f.job, &hooks, &err), err);
    assert_non_null(
        strstr(trn_text_get(&f.heard.notes),
               "1: S2_20180128.tif (2018-01-28), 2: later.tif (2018-07-04 by the TIFF tag DateTime)"));
    forget(&f);
}

/* One date of a series is what that file alone is; a pixel without data in one date is left out of all. */
static void one_date(void **state)
{
    (void)state;
    static const trn_setting settings[] = {{"features", "8"}};
    fixture f = set_up("rcf", settings, 1);
    const test_raster raster = {.width = 64, .height = 40, .bands = 2, .type = TEST_RASTER_U16};
    test_raster other = raster;
    other.value = series_value;
    brighter = 3;
    add_file(&f, "a.tif", &raster);
    add_file(&f, "b.tif", &other);
    f.job.tile = 32;
    expect_refused(&f, TRN_ERR_ARGUMENT, "encoder 'rcf' takes 1 date, and the series has 2 (1: a.tif");
    expect_refused(&f, TRN_ERR_ARGUMENT, "choose one: --date N, or date = N");
    f.encoder.date = 3;
    expect_refused(&f, TRN_ERR_ARGUMENT, "is to see date 3, and the scene has 2");
    f.encoder.date = 2;
    int64_t count, alone_count;
    float *second = run_and_read(&f, &count);
    fixture single = set_up("rcf", settings, 1);
    add_file(&single, "b.tif", &other);
    single.job.tile = 32;
    float *alone = run_and_read(&single, &alone_count);
    assert_int_equal(count, alone_count);
    assert_memory_equal(second, alone, (size_t)count * sizeof *alone);
    free(second);
    f.encoder.date = 1;
    float *first = run_and_read(&f, &count);
    assert_true(test_worst_error(first, alone, count, largest(alone, count)) > 1e-3);
    free(first);
    free(alone);
    forget(&single);
    forget(&f);
}

static double hole(int band, int x, int y)
{
    return x < 32 ? NAN : series_value(band, x, y);
}

static void holes_of_any_date(void **state)
{
    (void)state;
    static const trn_setting settings[] = {{"features", "8"}};
    fixture f = set_up("rcf", settings, 1);
    const test_raster whole = {.width = 64, .height = 32, .bands = 2, .type = TEST_RASTER_F32};
    test_raster holed = whole;
    holed.value = hole;
    add_file(&f, "a.tif", &whole);
    add_file(&f, "b.tif", &holed);
    f.job.tile = 32;
    f.encoder.date = 1;
    int64_t count;
    float *cells = run_and_read(&f, &count);
    int64_t columns = 8;
    for (int64_t i = 0; i < count; i++) {
        bool left = i / 8 % columns < columns / 2;
        assert_true(isnan(cells[i]) == left);
    }
    free(cells);
    forget(&f);
}

/* ---- dates that do not fit together ---- */

static void unlike_dates(void **state)
{
    (void)state;
    static const trn_setting settings[] = {{"features", "8"}};
    const test_raster raster = {.width = 64, .height = 64, .bands = 3, .type = TEST_RASTER_U16};
    static const size_t files[] = {1, 1};
    struct {
        test_raster other;
        const char *wanted;
    } cases[] = {
        {raster, "sizes"},
        {raster, "date 2 ('"},
        {raster, "has 2 bands, and date 1 ("},
        {raster, "is scaled otherwise than that of date 1"},
    };
    cases[0].other.width = 48;
    cases[0].wanted = "has 48 x 64 pixels, and date 1 (";
    cases[1].other.height = 32;
    cases[2].other.bands = 2;
    cases[3].other.type = TEST_RASTER_U8;
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        fixture f = set_up("rcf", settings, 1);
        add_file(&f, "a.tif", &raster);
        add_file(&f, "b.tif", &cases[i].other);
        f.job.scene.date_files = files;
        f.job.scene.date_count = 2;
        f.encoder.date = 1;
        expect_refused(&f, TRN_ERR_ARGUMENT, cases[i].wanted);
        forget(&f);
    }
    fixture f = set_up("rcf", settings, 1);
    add_file(&f, "x_20190101_B02.tif", &(test_raster){.width = 32, .height = 32, .bands = 1});
    add_file(&f, "x_20190101_B03.tif", &(test_raster){.width = 32, .height = 32, .bands = 1});
    add_file(&f, "x_20180101_B02.tif", &(test_raster){.width = 32, .height = 32, .bands = 1});
    add_file(&f, "x_20180102_B04.tif", &(test_raster){.width = 32, .height = 32, .bands = 1});
    f.job.scene.sensor = "s2";
    f.encoder.date = 1;
    expect_refused(&f, TRN_ERR_ARGUMENT, "has no band 'B03'");
    forget(&f);
    f = set_up("rcf", settings, 1);
    add_file(&f, "x_20190101_B02.tif", &(test_raster){.width = 32, .height = 32, .bands = 1});
    add_file(&f, "x_20190101_B03.tif", &(test_raster){.width = 32, .height = 32, .bands = 1});
    add_file(&f, "x_20180102_B03.tif", &(test_raster){.width = 32, .height = 32, .bands = 1});
    add_file(&f, "x_20180101_B02.tif", &(test_raster){.width = 32, .height = 32, .bands = 1});
    f.job.scene.sensor = "s2";
    f.encoder.date = 1;
    f.job.strict = true;
    expect_refused(&f, TRN_ERR_ARGUMENT, "their names say two days");
    f.job.strict = false;
    int64_t count;
    free(run_and_read(&f, &count));
    assert_non_null(
        strstr(trn_text_get(&f.heard.warnings), "not in the order of time: date 1 is 2019-01-01"));
    forget(&f);
}

/* ---- rectangles ---- */

static const trn_setting small_vit[] = {
    {"img_size", "32"}, {"patch", "8"}, {"dim", "32"}, {"depth", "1"}, {"heads", "2"}};

static void rectangular_images(void **state)
{
    (void)state;
    fixture f = set_up("mae-vit-base", small_vit, TRN_COUNT(small_vit));
    const test_raster raster = {.width = 48, .height = 32, .bands = 3, .type = TEST_RASTER_U8};
    add_file(&f, "a.tif", &raster);
    add_file(&f, "b.tif", &raster);
    f.job.scene.each = true;
    f.job.scene.sensor = "rgb";
    f.encoder.pool = TRN_FEATURES_MEAN;
    int64_t count;
    float *vectors = run_and_read(&f, &count);
    assert_int_equal(count, 2 * 32);
    assert_memory_equal(vectors, vectors + 32, 32 * sizeof *vectors);
    free(vectors);
    test_raster turned = raster;
    turned.width = 32;
    turned.height = 48;
    test_raster_write(f.paths[1], &turned);
    trn_error err = {0};
    assert_trn_fails(run(&f, &err), TRN_ERR_ARGUMENT, err, "b.tif' is 32 x 48 pixels, but the first image");
    assert_non_null(strstr(err.message, "use resize"));
    turned.height = 44;
    test_raster_write(f.paths[0], &turned);
    expect_refused(&f, TRN_ERR_ARGUMENT, "images of 32 x 44 pixels do not suit encoder 'mae-vit-base'");
    forget(&f);
}

/* ---- values ---- */

static double half_bright(int band, int x, int y)
{
    (void)band, (void)y;
    return x < 16 ? 0.15 : 0.9; /* of 10000: reflectances 0.15 and 0.9 */
}

static double as_bytes(int band, int x, int y)
{
    (void)band, (void)y;
    return x < 16 ? 127.5 : 255;
}

/* Reflectance with display = 0.3 is what the bytes of a picture stretched to 0.3 are. */
static void display_bytes(void **state)
{
    (void)state;
    fixture f = set_up("mae-vit-base", small_vit, TRN_COUNT(small_vit));
    add_file(
        &f, "a.tif",
        &(test_raster){.width = 32, .height = 32, .bands = 3, .type = TEST_RASTER_U16, .value = half_bright});
    static const char *const names[] = {"B04", "B03", "B02"};
    f.job.scene.sensor = "s2";
    f.job.scene.band_names = names;
    f.job.scene.band_name_count = 3;
    f.job.tile = 32;
    expect_refused(&f, TRN_ERR_ARGUMENT, "say which reflectance becomes 255 (--display 0.3");
    f.encoder.display = -1;
    expect_refused(&f, TRN_ERR_ARGUMENT, "display is -1");
    f.encoder.display = 0.3;
    int64_t count, other;
    float *reflectance = run_and_read(&f, &count);
    fixture g = set_up("mae-vit-base", small_vit, TRN_COUNT(small_vit));
    add_file(
        &g, "a.tif",
        &(test_raster){.width = 32, .height = 32, .bands = 3, .type = TEST_RASTER_F32, .value = as_bytes});
    g.job.scene.sensor = "rgb";
    g.job.tile = 32;
    float *bytes = run_and_read(&g, &other);
    assert_int_equal(count, other);
    assert_true(test_worst_error(reflectance, bytes, count, largest(bytes, count)) < 1e-4);
    g.encoder.display = 0.3;
    expect_refused(&g, TRN_ERR_ARGUMENT,
                   "display is for scenes of reflectance, and this one's numbers are byte");
    f.encoder.normalize = TRN_NORMALIZE_NONE;
    expect_refused(&f, TRN_ERR_ARGUMENT, "normalize none");
    free(reflectance);
    free(bytes);
    forget(&f);
    forget(&g);
}

static double dim_ground(int band, int x, int y)
{
    return 0.002 * test_raster_texture(band, x, y) + 0.9;
}

/* Reflectances that are possible and yet not what the encoder knows. */
static void strange_statistics(void **state)
{
    (void)state;
    fixture f = set_up("prithvi-v2-100m-tl", located_settings, TRN_COUNT(located_settings));
    add_file(
        &f, "a.tif",
        &(test_raster){.width = 32, .height = 32, .bands = 6, .type = TEST_RASTER_U16, .value = dim_ground});
    f.job.scene.sensor = "hls";
    f.job.tile = 32;
    int64_t count;
    free(run_and_read(&f, &count));
    const char *said = trn_text_get(&f.heard.warnings);
    assert_non_null(strstr(said, "the values of 6 of 6 bands are far from the statistics"));
    assert_non_null(strstr(said, "blue: mean 9."));
    f.job.strict = true;
    trn_error err = {0};
    assert_trn_fails(run(&f, &err), TRN_ERR_ARGUMENT, err, "far from the statistics");
    forget(&f);
}

static double even_ground(int band, int x, int y)
{
    return 0.012 * test_raster_texture(band, x, y) + 0.05;
}

/* Presto maps reflectance up to white to 0..1: that a forest is dark and even is nothing strange. */
static void even_scene_of_a_range(void **state)
{
    (void)state;
    static const trn_setting settings[] = {{"dim", "32"}, {"depth", "1"}, {"heads", "4"}, {"cell", "8"}};
    static const char *const rgb[] = {"B02", "B03", "B04"};
    fixture f = set_up("presto", settings, TRN_COUNT(settings));
    add_file(
        &f, "a_20180602.tif",
        &(test_raster){.width = 32, .height = 32, .bands = 3, .type = TEST_RASTER_U16, .value = even_ground});
    f.job.scene.sensor = "s2";
    f.job.scene.band_names = rgb;
    f.job.scene.band_name_count = TRN_COUNT(rgb);
    f.job.tile = 32;
    f.job.strict = true;
    int64_t count;
    free(run_and_read(&f, &count));
    forget(&f);
}

/* A Sentinel-2 scene has two near infrareds, and neither may be taken for the other; where there is one, it
 * is both. */
static void near_infrared(void **state)
{
    (void)state;
    const test_raster raster = {
        .width = 32, .height = 32, .bands = 6, .type = TEST_RASTER_U16, .value = series_value};
    static const char *const broad[] = {"B02", "B03", "B04", "B08", "B11", "B12"};
    static const char *const plain[] = {"blue", "green", "red", "nir", "swir16", "swir22"};
    fixture f = set_up("prithvi-v2-100m-tl", located_settings, TRN_COUNT(located_settings));
    add_file(&f, "a.tif", &raster);
    f.job.tile = 32;
    f.job.scene.band_name_count = 6;
    f.job.scene.band_names = broad;
    f.job.scene.sensor = "s2";
    expect_refused(&f, TRN_ERR_ARGUMENT, "nir08");
    f.job.scene.band_names = plain;
    f.job.scene.sensor = NULL;
    f.job.scene.has_scale = true;
    f.job.scene.scale = 1e-4;
    f.job.scene.unit = TRN_UNIT_REFLECTANCE;
    int64_t count;
    free(run_and_read(&f, &count));
    assert_non_null(strstr(trn_text_get(&f.heard.notes), "asks for nir08, and gets the scene's nir"));
    /* Landsat's own is nir08, whatever it is called */
    f.job.scene.band_names = NULL;
    f.job.scene.band_name_count = 0;
    f.job.scene.sensor = "landsat5-sr";
    f.job.scene.has_scale = false;
    free(run_and_read(&f, &count));
    forget(&f);
}

static void names_that_contradict(void **state)
{
    (void)state;
    static const trn_setting settings[] = {{"features", "8"}};
    static const char *const twice[] = {"B04", "red", "B02"};
    const test_raster raster = {.width = 32, .height = 32, .bands = 3, .type = TEST_RASTER_U16};
    fixture f = set_up("rcf", settings, 1);
    add_file(&f, "a.tif", &raster);
    f.job.scene.sensor = "s2";
    f.job.scene.band_names = twice;
    f.job.scene.band_name_count = 3;
    f.job.tile = 32;
    f.job.strict = true;
    expect_refused(&f, TRN_ERR_ARGUMENT, "bands 'B04' and 'red' are both the band 'red'");
    forget(&f);
    /* bands without names are taken in their order, and that is said aloud */
    f = set_up("mae-vit-base", small_vit, TRN_COUNT(small_vit));
    add_file(&f, "a.tif", &(test_raster){.width = 32, .height = 32, .bands = 3, .type = TEST_RASTER_U8});
    f.job.tile = 32;
    int64_t count;
    free(run_and_read(&f, &count));
    assert_non_null(
        strstr(trn_text_get(&f.heard.warnings), "have no names; in their order they are taken as red"));
    f.job.strict = true;
    expect_refused(&f, TRN_ERR_ARGUMENT, "have no names");
    forget(&f);
}

/* ---- families together ---- */

/* Colours, wavelengths and six bands of one scene as one embedding on cells of 16 pixels, as
 * recipes/compose_scene.lua has it. */
static void three_families(void **state)
{
    (void)state;
    enum { HIERA = 8 * (1 + 2 + 4 + 8), DOFA = 32, PRITHVI = 32 };
    static const trn_setting hiera[] = {{"img_size", "64"}, {"dim", "8"}, {"stages", "1,1,1,1"}};
    static const trn_setting dofa[] = {{"img_size", "64"}, {"dim", "32"}, {"depth", "1"}, {"heads", "2"}};
    static const char *const bands[] = {"B02", "B03", "B04", "B08", "B11", "B12"};
    trn_error err = {0};
    fixture f = set_up("prithvi-v2-100m-tl", located_settings, TRN_COUNT(located_settings));
    add_file(&f, "s.tif",
             &(test_raster){
                 .width = 128, .height = 96, .bands = 12, .type = TEST_RASTER_U16, .value = series_value});
    char *hiera_file = test_path(f.dir, "hiera.safetensors"),
         *dofa_file = test_path(f.dir, "dofa.safetensors");
    assert_trn_ok(trn_model_write_synthetic("hiera-base", hiera, TRN_COUNT(hiera), hiera_file, NULL, &err),
                  err);
    assert_trn_ok(trn_model_write_synthetic("dofa-base", dofa, TRN_COUNT(dofa), dofa_file, NULL, &err), err);
    const trn_job_encoder all[] = {
        {.model = "hiera-base", .weights = hiera_file, .settings = hiera, .setting_count = 3, .display = 0.3},
        {.model = "dofa-base",
         .weights = dofa_file,
         .settings = dofa,
         .setting_count = 4,
         .bands = bands,
         .band_count = 6,
         .display = 0.3},
        {.model = "prithvi-v2-100m-tl",
         .weights = f.weights,
         .settings = located_settings,
         .setting_count = TRN_COUNT(located_settings)},
    };
    f.job.scene.sensor = "s2";
    f.job.tile = 64;
    f.job.overlap = 32;
    f.job.compose.cell = 16;
    connect(&f);
    f.job.encoders = all;
    f.job.encoder_count = 3;
    trn_embed_result result;
    assert_trn_ok(trn_embed_run(&f.job, gpu, NULL, &result, &err), err);
    assert_int_equal(result.channels, HIERA + DOFA + PRITHVI);
    assert_int_equal(result.grid_width, 8);
    assert_int_equal(result.grid_height, 6);
    trn_embed_result_free(&result);
    /* the last channels are those of Prithvi alone */
    char *path = test_path(f.dir, "a.npy");
    float *fused, *alone;
    int64_t shape[3];
    int dims;
    assert_trn_ok(trn_npy_read(path, &fused, shape, 3, &dims, &err), err);
    f.job.encoders = &all[2];
    f.job.encoder_count = 1;
    assert_trn_ok(trn_embed_run(&f.job, gpu, NULL, &result, &err), err);
    trn_embed_result_free(&result);
    assert_trn_ok(trn_npy_read(path, &alone, shape, 3, &dims, &err), err);
    double scale = largest(alone, 48 * PRITHVI);
    for (size_t cell = 0; cell < 48; cell++)
        assert_true(test_worst_error(fused + cell * (HIERA + DOFA + PRITHVI) + HIERA + DOFA,
                                     alone + cell * PRITHVI, PRITHVI, scale) < 1e-5);
    free(fused);
    free(alone);
    free(path);
    free(hiera_file);
    free(dofa_file);
    forget(&f);
}

/* ---- explaining ---- */

static void explanation(void **state)
{
    (void)state;
    static const char *const wanted[] = {
        "date      1: 2018-01-28 by the file's name, S2_20180128.tif\n          2: 2018-06-02",
        "location  latitude 45.1",
        "by the georeference",
        "sees all 2 dates",
        "sees the place of every window",
        "nir08      from B05: value = stored * 1, then (value - 2",
        "wants reflectance 0 to 1 times 10000; has ",
        "B05 (nir08), 0.865 um, nodata -9999, S2_20180128.tif",
        "windows of 32 x 32 pixels (its own: 32; sides are multiples of 16)",
        "one vector per window, 32 channels",
    };
    trn_error err = {0};
    trn_text text = {0};
    fixture f = located_fixture();
    connect(&f);
    assert_trn_ok(trn_embed_explain(&f.job, gpu, NULL, &text, &err), err);
    for (size_t i = 0; i < TRN_COUNT(wanted); i++)
        if (!strstr(trn_text_get(&text), wanted[i]))
            fail_msg("no '%s' in\n%s", wanted[i], trn_text_get(&text));
    trn_text_free(&text);
    forget(&f);
    /* two grids on one */
    static const trn_setting fine[] = {{"features", "8"}, {"cell", "4"}},
                             coarse[] = {{"features", "8"}, {"cell", "16"}};
    f = set_up("rcf", fine, 2);
    add_file(&f, "a.tif", &(test_raster){.width = 64, .height = 64, .bands = 2});
    const trn_job_encoder both[] = {{.model = "rcf", .settings = fine, .setting_count = 2},
                                    {.model = "rcf", .settings = coarse, .setting_count = 2}};
    connect(&f);
    f.job.encoders = both;
    f.job.encoder_count = 2;
    f.job.tile = 32;
    f.job.compose.cell = 8;
    assert_trn_ok(trn_embed_explain(&f.job, gpu, NULL, &text, &err), err);
    assert_non_null(
        strstr(trn_text_get(&text), "cells of 4 pixels from pixel 0 on, 8 channels, averaged to cells of 8"));
    assert_non_null(strstr(trn_text_get(&text),
                           "cells of 16 pixels from pixel 0 on, 8 channels, resampled to cells of 8"));
    trn_text_free(&text);
    f.job.encoders = &f.encoder;
    forget(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_series),         cmocka_unit_test(dates_and_places),
        cmocka_unit_test(place_at_the_rim),      cmocka_unit_test(cache_of_many_dates),
        cmocka_unit_test(dates_of_images),       cmocka_unit_test(dates_of_tags),
        cmocka_unit_test(places_of_images),      cmocka_unit_test(one_date),
        cmocka_unit_test(holes_of_any_date),     cmocka_unit_test(unlike_dates),
        cmocka_unit_test(rectangular_images),    cmocka_unit_test(display_bytes),
        cmocka_unit_test(strange_statistics),    cmocka_unit_test(near_infrared),
        cmocka_unit_test(even_scene_of_a_range), cmocka_unit_test(names_that_contradict),
        cmocka_unit_test(three_families),        cmocka_unit_test(explanation),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
