/* Jobs from end to end through the library: dense features, nodata, tile vectors, images, units, memory,
 * stopping. */
#include "test_device.h"
#include "test_support.h"
#include "test_raster.h"
#include "job_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What the hooks were told. */
typedef struct heard {
    trn_text notes, warnings;
    uint64_t cancel_after; /* reports */
    uint64_t reports, done, total;
    bool blamed;
    trn_job_part part;
    size_t index;
} heard;

static void hear_note(void *user, trn_log_level level, const char *text)
{
    heard *h = user;
    trn_text_printf(level == TRN_LOG_WARN ? &h->warnings : &h->notes, "%s\n", text);
}

static void hear_progress(void *user, const char *stage, uint64_t done, uint64_t total)
{
    heard *h = user;
    assert_non_null(stage);
    assert_true(done <= total && (!done || done >= h->done));
    h->reports++;
    h->total = total;
    h->done = done;
}

static bool hear_cancel(void *user)
{
    const heard *h = user;
    return h->cancel_after && h->reports >= h->cancel_after;
}

static void hear_blame(void *user, trn_job_part part, size_t index)
{
    heard *h = user;
    h->blamed = true;
    h->part = part;
    h->index = index;
}

static trn_job_hooks hooks_of(heard *h)
{
    return (trn_job_hooks){
        .progress = {hear_progress, hear_cancel, h}, .note = hear_note, .blame = hear_blame, .user = h};
}

static void forget(heard *h)
{
    trn_text_free(&h->notes);
    trn_text_free(&h->warnings);
    *h = (heard){0};
}

/* A job of one encoder over one path, with one export; its parts can be changed before it is run. */
typedef struct case_job {
    trn_embed_job job;
    trn_job_encoder encoder;
    trn_job_export export;
    const char *path;
    trn_setting settings[12];
} case_job;

static void set_up(case_job *c, const char *path, const char *out_dir, const char *export)
{
    *c = (case_job){.path = path};
    c->settings[0] = (trn_setting){"features", "8"};
    c->encoder = (trn_job_encoder){.model = "rcf", .settings = c->settings, .setting_count = 1};
    c->export = (trn_job_export){.path = export};
    c->job = (trn_embed_job){
        .scene = {.paths = &c->path, .path_count = 1},
        .encoders = &c->encoder,
        .encoder_count = 1,
        .exports = &c->export,
        .export_count = 1,
        .out_dir = out_dir,
        .tile = 32,
    };
}

static trn_status run_job(const case_job *c, heard *h, trn_error *err)
{
    trn_job_hooks hooks = hooks_of(h);
    trn_embed_result result;
    trn_status status = trn_embed_run(&c->job, gpu, &hooks, &result, err);
    if (status == TRN_OK)
        trn_embed_result_free(&result);
    else
        assert_null(result.files);
    return status;
}

static float *read_vectors(const char *dir, const char *name, int64_t shape[3], int wanted_dims)
{
    trn_error err = {0};
    char *path = test_path(dir, name);
    float *data;
    int ndim;
    assert_trn_ok(trn_npy_read(path, &data, shape, 3, &ndim, &err), err);
    assert_int_equal(ndim, wanted_dims);
    free(path);
    return data;
}

static cJSON *read_json(const char *dir, const char *name)
{
    char *path = test_path(dir, name), *text = trn_read_file(path, 1 << 20, NULL, NULL);
    assert_non_null(text);
    cJSON *json = cJSON_Parse(text);
    assert_non_null(json);
    free(text);
    free(path);
    return json;
}

static size_t files_in(const char *dir)
{
    char **names = NULL;
    size_t count = 0;
    trn_error err = {0};
    assert_trn_ok(trn_list_dir(dir, &names, &count, &err), err);
    trn_names_free(names, count);
    return count;
}

static char *write_scene(const char *dir, const char *name, const test_raster *raster)
{
    char *path = test_path(dir, name);
    test_raster_write(path, raster);
    return path;
}

/* ---- dense features ---- */

static void dense_scene(void **state)
{
    (void)state;
    trn_error err = {0};
    heard h = {0};
    char *dir = test_temp_dir();
    char *scene = write_scene(dir, "scene.tif", &(test_raster){.width = 100, .height = 75, .bands = 3});
    case_job c;
    set_up(&c, scene, dir, "a.npy");
    c.job.result_extra = "{\"param\": 5}";
    assert_trn_ok(run_job(&c, &h, &err), err);
    assert_int_equal(h.done, h.total);
    assert_string_equal(trn_text_get(&h.warnings), "");
    int64_t shape[3], again[3];
    float *a = read_vectors(dir, "a.npy", shape, 3);
    assert_int_equal(shape[0], 10); /* ceil(75 / 8) */
    assert_int_equal(shape[1], 13);
    assert_int_equal(shape[2], 8);
    int64_t count = shape[0] * shape[1] * shape[2];
    double largest = 0;
    for (int64_t i = 0; i < count; i++) {
        assert_true(isfinite(a[i]));
        largest = TRN_MAX(largest, fabs((double)a[i]));
    }
    assert_true(largest > 0);

    cJSON *json = read_json(dir, "result.json");
    assert_int_equal(cJSON_GetNumberValue(cJSON_GetObjectItem(cJSON_GetObjectItem(json, "recipe"), "param")),
                     5);
    const cJSON *info = cJSON_GetObjectItem(json, "scene");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(info, "crs")), "EPSG:32633");
    assert_int_equal(cJSON_GetNumberValue(cJSON_GetObjectItem(info, "width")), 100);
    const cJSON *transform = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "grid"), "transform");
    assert_int_equal(cJSON_GetNumberValue(cJSON_GetArrayItem(transform, 1)), 80);
    cJSON_Delete(json);

    /* the same job gives the same bits, and the number of windows at once does not matter */
    c.export.path = "b.npy";
    assert_trn_ok(run_job(&c, &h, &err), err);
    float *b = read_vectors(dir, "b.npy", again, 3);
    assert_memory_equal(a, b, (size_t)count * sizeof *a);
    free(b);
    c.export.path = "c.npy";
    c.job.batch = 1;
    assert_trn_ok(run_job(&c, &h, &err), err);
    b = read_vectors(dir, "c.npy", again, 3);
    assert_true(test_worst_error(b, a, count, largest) < 1e-5);
    free(b);
    /* nor does overlap, away from the windows' edges: a band of cells inside the first window */
    c.export.path = "d.npy";
    c.job.overlap = 8;
    assert_trn_ok(run_job(&c, &h, &err), err);
    b = read_vectors(dir, "d.npy", again, 3);
    for (int64_t cell = 0; cell < 2; cell++)
        assert_true(test_worst_error(b + (cell * 13 + 1) * 8, a + (cell * 13 + 1) * 8, 8, largest) < 1e-4);
    free(b);
    free(a);
    free(scene);
    forget(&h);
}

/* Columns below 40 hold nothing; a cell at the border (pixels 36..43 of cell 4: 32..39 no, so cell 5 begins
 * at 40). */
static double left_is_nan(int band, int x, int y)
{
    return x < 44 ? NAN : test_raster_texture(band, x, y);
}

static void nodata_cells(void **state)
{
    (void)state;
    trn_error err = {0};
    heard h = {0};
    char *dir = test_temp_dir();
    const test_raster kinds[] = {
        {.width = 128, .height = 64, .bands = 2, .type = TEST_RASTER_F32, .value = left_is_nan},
        {.width = 128,
         .height = 64,
         .bands = 2,
         .type = TEST_RASTER_U16,
         .nodata = "0",
         .value = left_is_nan},
    };
    for (size_t k = 0; k < TRN_COUNT(kinds); k++) {
        char *scene = write_scene(dir, "scene.tif", &kinds[k]);
        case_job c;
        set_up(&c, scene, dir, "a.npy");
        assert_trn_ok(run_job(&c, &h, &err), err);
        int64_t shape[3];
        float *a = read_vectors(dir, "a.npy", shape, 3);
        for (int64_t i = 0; i < shape[0] * shape[1]; i++) {
            /* pixels 40..47 of cell 5: half of them are valid, which is enough */
            bool wanted = i % shape[1] >= 5;
            if (isfinite(a[i * shape[2]]) != wanted)
                fail_msg("kind %zu, cell %lld", k, (long long)(i % shape[1]));
        }
        free(a);
        free(scene);
    }
    forget(&h);
}

static double nothing(int band, int x, int y)
{
    (void)band, (void)x, (void)y;
    return NAN;
}

static void nothing_valid(void **state)
{
    (void)state;
    trn_error err = {0};
    heard h = {0};
    char *dir = test_temp_dir();
    char *scene = write_scene(
        dir, "scene.tif",
        &(test_raster){.width = 64, .height = 64, .bands = 1, .type = TEST_RASTER_F32, .value = nothing});
    case_job c;
    set_up(&c, scene, dir, "a.npy");
    assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_ARGUMENT, err, "without nodata");
    assert_true(h.blamed && h.part == TRN_JOB_ENCODER);
    assert_int_equal(files_in(dir), 1);
    free(scene);
    forget(&h);
}

static void vectors_of_tiles(void **state)
{
    (void)state;
    trn_error err = {0};
    heard h = {0};
    char *dir = test_temp_dir();
    char *scene = write_scene(dir, "scene.tif", &(test_raster){.width = 96, .height = 64, .bands = 3}), *out;
    case_job c;
    set_up(&c, scene, dir, "a.tif");
    c.job.tile_vectors = true;
    c.job.overlap = 16;
    c.encoder.pool = TRN_FEATURES_MEAN;
    assert_trn_ok(run_job(&c, &h, &err), err);
    out = test_path(dir, "a.tif");
    trn_scene *made;
    assert_trn_ok(trn_scene_open((const char *const[]){out}, 1, &(trn_scene_options){0}, &made, &err), err);
    const trn_scene_info *info = trn_scene_get_info(made);
    trn_tiling tiling;
    assert_trn_ok(trn_tiling_plan(96, 64, 32, 16, 1, &tiling, &err), err);
    assert_int_equal(info->width, tiling.columns);
    assert_int_equal(info->height, tiling.rows);
    /* a cell is a step wide and centred on its window */
    assert_float_equal(info->georef.transform[0], TEST_RASTER_EAST + 8 * TEST_RASTER_PIXEL, 1e-6);
    assert_float_equal(info->georef.transform[3], TEST_RASTER_NORTH - 8 * TEST_RASTER_PIXEL, 1e-6);
    assert_float_equal(info->georef.transform[1], 16 * TEST_RASTER_PIXEL, 1e-9);
    assert_int_equal(info->georef.epsg, TEST_RASTER_EPSG);
    trn_scene_close(made);
    free(out);
    free(scene);
    forget(&h);
}

/* ---- images ---- */

static int shift;
static double shifted(int band, int x, int y)
{
    return test_raster_texture(band, x + shift * 17, y + shift * 5);
}

static char *write_images(int count)
{
    trn_error err = {0};
    char *dir = test_temp_dir(), *sub = test_path(dir, "images/b"), name[64];
    assert_trn_ok(trn_make_dirs(sub, &err), err);
    free(sub);
    sub = test_path(dir, "images");
    for (shift = 0; shift < count; shift++) {
        snprintf(name, sizeof name, shift % 2 ? "b/%d.tif" : "%d.tif", shift);
        free(write_scene(sub, name, &(test_raster){.width = 32, .height = 32, .bands = 3, .value = shifted}));
    }
    return sub;
}

static void folder_of_images(void **state)
{
    (void)state;
    trn_error err = {0};
    heard h = {0};
    char *images = write_images(5), *dir = test_temp_dir();
    case_job c;
    set_up(&c, images, dir, "v.npy");
    c.job.tile = 0;
    c.job.batch = 2; /* the last batch is not full */
    assert_trn_ok(run_job(&c, &h, &err), err);
    int64_t shape[3];
    float *v = read_vectors(dir, "v.npy", shape, 2);
    assert_int_equal(shape[0], 5);
    assert_int_equal(shape[1], 8);
    cJSON *sidecar = read_json(dir, "v.json");
    const cJSON *ids = cJSON_GetObjectItem(sidecar, "ids");
    assert_int_equal(cJSON_GetArraySize(ids), 5);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetArrayItem(ids, 0)), "0.tif");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetArrayItem(ids, 4)), "b/3.tif");
    cJSON_Delete(sidecar);

    /* the single-image call gives the same vector, for an encoder that learnt the same */
    job_plan plan;
    assert_trn_ok(job_plan_create(&plan, &c.job, NULL, &err), err);
    assert_trn_ok(job_plan_learn(&plan, &err), err);
    float pixels[3 * 32 * 32], vector[8];
    uint8_t valid[32 * 32];
    for (int64_t i = 0; i < 5; i++) {
        assert_trn_ok(job_image_read(&plan, i, pixels, valid, NULL, &err), err);
        assert_trn_ok(trn_embed_image(gpu, plan.handles[0], pixels, 3, 32, NULL, vector, &err), err);
        assert_true(test_worst_error(vector, v + i * 8, 8, 1) < 1e-4);
    }
    assert_trn_fails(
        trn_embed_image(gpu, plan.handles[0], pixels, 3, 32, &(trn_encode_options){0}, vector, &err),
        TRN_ERR_ARGUMENT, err, "pool by mean");
    job_plan_destroy(&plan);
    free(v);

    c.export.path = "v.tif";
    assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_ARGUMENT, err, "no place on a map");
    assert_int_equal(h.part, TRN_JOB_EXPORT);
    free(images);
    forget(&h);
}

static void images_of_other_sizes(void **state)
{
    (void)state;
    trn_error err = {0};
    heard h = {0};
    char *images = write_images(3), *dir = test_temp_dir();
    free(write_scene(images, "z.tif", &(test_raster){.width = 40, .height = 24, .bands = 3}));
    case_job c;
    set_up(&c, images, dir, "v.npy");
    assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_ARGUMENT, err, "images are not cut into tiles");
    c.job.tile = 0;
    assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_ARGUMENT, err, "z.tif' is 40 x 24");
    assert_int_equal(files_in(dir), 0);
    c.job.scene.resize = 48;
    assert_trn_ok(run_job(&c, &h, &err), err);
    int64_t shape[3];
    free(read_vectors(dir, "v.npy", shape, 2));
    assert_int_equal(shape[0], 4);
    free(write_scene(images, "zz.tif", &(test_raster){.width = 48, .height = 48, .bands = 2}));
    assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_ARGUMENT, err, "zz.tif' has 2 bands");
    free(images);
    forget(&h);
}

/* Shrinking by two is a mean; a linear ramp stays a ramp; pixels without data do not leak in. */
static double ramp(int band, int x, int y)
{
    (void)band, (void)y;
    return x / 64.0;
}

static void resizing(void **state)
{
    (void)state;
    trn_error err = {0};
    char *dir = test_temp_dir(), *sub = test_path(dir, "i");
    assert_trn_ok(trn_make_dirs(sub, &err), err);
    free(write_scene(
        sub, "a.tif",
        &(test_raster){.width = 64, .height = 64, .bands = 1, .type = TEST_RASTER_F32, .value = ramp}));
    case_job c;
    set_up(&c, sub, dir, "v.npy");
    c.job.tile = 0;
    c.job.scene.resize = 16;
    job_plan plan;
    assert_trn_ok(job_plan_create(&plan, &c.job, NULL, &err), err);
    float pixels[16 * 16];
    uint8_t valid[16 * 16];
    assert_trn_ok(job_image_read(&plan, 0, pixels, valid, NULL, &err), err);
    for (int x = 1; x < 15; x++)
        assert_float_equal(pixels[5 * 16 + x], (float)((4 * x + 1.5) / 64), 1e-5);
    assert_non_null(memchr(valid, 1, sizeof valid));
    assert_null(memchr(valid, 0, sizeof valid));
    job_plan_destroy(&plan);
    free(sub);
}

/* ---- units ---- */

static const char *galileo_weights(void)
{
    const char *path = test_golden_path("galileo_nano/encoder.safetensors");
    if (!path) fail_msg("galileo_nano/encoder.safetensors is missing from the test data");
    return path;
}

/* Plans and learns; the first encoder's scale and offset of the first band. */
static trn_status plan_scales(const case_job *c, heard *h, float *scale, float *offset, trn_error *err)
{
    trn_job_hooks hooks = hooks_of(h);
    job_plan plan;
    trn_status status = job_plan_create(&plan, &c->job, &hooks, err);
    if (status != TRN_OK) return status;
    *scale = plan.encoders[0].scale[0];
    *offset = plan.encoders[0].offset[0];
    status = job_plan_learn(&plan, err);
    job_plan_destroy(&plan);
    return status;
}

static void units_of_scenes(void **state)
{
    (void)state;
    trn_error err = {0};
    heard h = {0};
    float scale, offset;
    char *dir = test_temp_dir();
    char *bytes = write_scene(dir, "bytes.tif", &(test_raster){.width = 64, .height = 64, .bands = 3});
    char *s2 = write_scene(
        dir, "s2.tif",
        &(test_raster){.width = 64, .height = 64, .bands = 4, .type = TEST_RASTER_U16, .scale = 5000});
    const char *const s2_names[] = {"B02", "B03", "B04", "B08"}, *const common_names[] = {"blue", "green",
                                                                                          "red", "nir"};
    char *weights = strdup(galileo_weights());
    case_job c;
    set_up(&c, s2, dir, "v.npy");
    c.encoder = (trn_job_encoder){.model = "galileo-nano", .weights = weights};
    c.job.scene.band_names = s2_names;
    c.job.scene.band_name_count = 4;

    /* reflectance * 10000 is what Galileo takes: the numbers stay as they are */
    c.job.scene.sensor = "sentinel2-l2a";
    assert_trn_ok(plan_scales(&c, &h, &scale, &offset, &err), err);
    assert_float_equal(scale, 1, 1e-6);
    assert_float_equal(offset, 0, 1e-6);
    assert_string_equal(trn_text_get(&h.warnings), "");
    c.job.scene.sensor = "sentinel2-l2a-pb04";
    assert_trn_ok(plan_scales(&c, &h, &scale, &offset, &err), err);
    assert_float_equal(offset, -1000, 1e-3);
    /* an unknown unit is fed as it is, with a warning; strict makes it an error */
    c.job.scene.sensor = NULL;
    c.job.scene.band_names = common_names;
    assert_trn_ok(plan_scales(&c, &h, &scale, &offset, &err), err);
    assert_float_equal(scale, 1, 1e-6);
    assert_non_null(strstr(trn_text_get(&h.warnings), "fed as they are"));
    c.job.strict = true;
    assert_trn_fails(plan_scales(&c, &h, &scale, &offset, &err), TRN_ERR_ARGUMENT, err, "strict");
    c.job.strict = false;
    forget(&h);

    /* bytes into reflectance: refused by unit, warned about by range when the scale is wrong */
    c.path = bytes;
    c.job.scene.band_names = NULL;
    c.job.scene.band_name_count = 0;
    c.job.scene.sensor = "rgb";
    assert_trn_fails(plan_scales(&c, &h, &scale, &offset, &err), TRN_ERR_ARGUMENT, err, "reflectance");
    assert_true(h.blamed && h.part == TRN_JOB_ENCODER && h.index == 0);
    c.job.scene.has_scale = true;
    c.job.scene.unit = TRN_UNIT_REFLECTANCE;
    c.job.scene.scale = 0.275 / 255;
    assert_trn_ok(plan_scales(&c, &h, &scale, &offset, &err), err);
    assert_float_equal(scale, 2750.0f / 255, 1e-3);
    assert_string_equal(trn_text_get(&h.warnings), "");
    c.job.scene.scale = 0.0001;
    assert_trn_ok(plan_scales(&c, &h, &scale, &offset, &err), err);
    assert_non_null(strstr(trn_text_get(&h.warnings), "dark"));
    c.job.scene.scale = 1;
    assert_trn_ok(plan_scales(&c, &h, &scale, &offset, &err), err);
    assert_non_null(strstr(trn_text_get(&h.warnings), "is a scale missing"));
    c.job.scene.scale = NAN;
    assert_trn_fails(plan_scales(&c, &h, &scale, &offset, &err), TRN_ERR_ARGUMENT, err, "finite");
    free(weights);
    free(bytes);
    free(s2);
    forget(&h);
}

static void z_scores(void **state)
{
    (void)state;
    trn_error err = {0};
    char *dir = test_temp_dir();
    char *scene = write_scene(
        dir, "ramp.tif",
        &(test_raster){.width = 64, .height = 64, .bands = 1, .type = TEST_RASTER_F32, .value = ramp});
    case_job c;
    set_up(&c, scene, dir, "v.npy");
    c.encoder.normalize = TRN_NORMALIZE_ZSCORE;
    job_plan plan;
    assert_trn_ok(job_plan_create(&plan, &c.job, NULL, &err), err);
    assert_trn_ok(job_plan_learn(&plan, &err), err);
    /* the one window of 64 pixels there is: mean 31.5 / 64, variance (64^2 - 1) / 12 / 64^2 */
    assert_float_equal(plan.encoders[0].mean[0], 31.5f / 64, 1e-5);
    assert_float_equal(plan.encoders[0].std[0], sqrt((64.0 * 64 - 1) / 12) / 64, 1e-4);
    job_plan_destroy(&plan);
    free(scene);
}

/* ---- bands ---- */

static void choosing_bands(void **state)
{
    (void)state;
    trn_error err = {0};
    heard h = {0};
    char *dir = test_temp_dir();
    char *scene = write_scene(dir, "s.tif",
                              &(test_raster){.width = 64, .height = 64, .bands = 6, .type = TEST_RASTER_U8});
    const char *const picked[] = {"swir1", "B4"}, *const missing[] = {"red", "thermal"};
    case_job c;
    set_up(&c, scene, dir, "v.npy");
    c.job.scene.sensor = "landsat7";
    c.encoder.bands = picked;
    c.encoder.band_count = 2;
    job_plan plan;
    assert_trn_ok(job_plan_create(&plan, &c.job, NULL, &err), err);
    /* only what is asked for is read, and the encoder sees it in the order asked for */
    assert_int_equal(plan.band_count, 2);
    assert_int_equal(plan.bands[0], 3);
    assert_int_equal(plan.bands[1], 4);
    assert_int_equal(plan.encoders[0].channels[0], 1);
    assert_int_equal(plan.encoders[0].channels[1], 0);
    job_plan_destroy(&plan);
    c.encoder.bands = missing;
    assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_ARGUMENT, err, "thermal");
    c.encoder.bands = NULL;
    c.encoder.model = "galileo-nano";
    c.encoder.setting_count = 0;
    c.job.scene.sensor = NULL;
    assert_int_not_equal(run_job(&c, &h, &err), TRN_OK);
    assert_non_null(strstr(err.message, "say what its bands are"));
    free(scene);
    forget(&h);
}

/* ---- refusals ---- */

static void outputs_that_cannot_be(void **state)
{
    (void)state;
    trn_error err = {0};
    heard h = {0};
    char *dir = test_temp_dir();
    char *scene = write_scene(dir, "scene.tif", &(test_raster){.width = 64, .height = 64, .bands = 1});
    case_job c;
    set_up(&c, scene, dir, "scene.tif");
    assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_ARGUMENT, err, "overwrite the scene");
    assert_true(h.blamed && h.part == TRN_JOB_EXPORT);
    c.export.path = "a.jpg";
    assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_ARGUMENT, err, "unknown extension");
    c.export.path = "a.npy";
    trn_job_export twice[2] = {c.export, c.export};
    c.job.exports = twice;
    c.job.export_count = 2;
    assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_ARGUMENT, err, "named twice");
    assert_int_equal(h.index, 1);
    c.job.export_count = 0;
    assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_ARGUMENT, err, "writes nothing");
    c.job.export_count = 1;
    c.job.result_extra = "{\"a\": ";
    assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_ARGUMENT, err, "JSON");
    c.job.result_extra = NULL;
    c.job.out_dir = scene; /* a file where a folder should be */
    assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_IO, err, "scene.tif");
    c.job.out_dir = dir;
    c.job.overlap = 5;
    assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_ARGUMENT, err, "multiple of the feature cell");
    c.job.overlap = 0;
    c.encoder.pool = TRN_FEATURES_MEAN;
    assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_ARGUMENT, err, "dense features");
    c.encoder.pool = TRN_FEATURES_CLS;
    assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_ARGUMENT, err, "class token");
    assert_int_equal(files_in(dir), 1);
    free(scene);
    forget(&h);
}

static void too_little_memory(void **state)
{
    (void)state;
    trn_error err = {0};
    heard h = {0};
    char *dir = test_temp_dir();
    char *scene = write_scene(dir, "scene.tif", &(test_raster){.width = 300, .height = 300, .bands = 3});
    case_job c;
    set_up(&c, scene, dir, "a.npy");
    c.job.tile = 256;
    c.job.memory_limit = 65536;
    assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_MEMORY, err, "256 pixels");
    assert_int_equal(files_in(dir), 1);
    /* with room for one window but not for four, the message names what would fit, and it does */
    c.job.batch = 4;
    uint64_t limit = 1 << 17;
    trn_status status;
    for (;; limit *= 2) {
        c.job.memory_limit = limit;
        status = run_job(&c, &h, &err);
        assert_true(status == TRN_ERR_MEMORY);
        if (strstr(err.message, "; a batch of ")) break;
        assert_non_null(strstr(err.message, "fit"));
        assert_true(limit < (uint64_t)1 << 32);
    }
    const char *named = strstr(err.message, "; a batch of ");
    assert_non_null(named);
    c.job.batch = atoi(named + strlen("; a batch of "));
    assert_true(c.job.batch >= 1 && c.job.batch < 4);
    assert_trn_ok(run_job(&c, &h, &err), err);
    /* left to itself, the job takes the batch that fits */
    c.job.batch = 0;
    assert_trn_ok(run_job(&c, &h, &err), err);
    free(scene);
    forget(&h);
}

static void stopping(void **state)
{
    (void)state;
    trn_error err = {0};
    char *dir = test_temp_dir();
    char *scene = write_scene(dir, "scene.tif", &(test_raster){.width = 256, .height = 256, .bands = 2});
    case_job c;
    set_up(&c, scene, dir, "a.npy");
    c.job.batch = 1;
    for (uint64_t after = 1; after <= 5; after += 2) {
        heard h = {.cancel_after = after};
        assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_CANCELLED, err, "");
        assert_true(h.done < h.total || !h.total);
        assert_int_equal(files_in(dir), 1);
        forget(&h);
    }
    free(scene);
}

/* A damaged strip is found by the reading thread while the device works. */
static void damage_while_running(void **state)
{
    (void)state;
    trn_error err = {0};
    heard h = {0};
    char *dir = test_temp_dir();
    char *images = write_images(4), *bad = test_path(images, "zz.tif");
    assert_trn_ok(trn_write_file(bad, "II*\0damaged", 11, &err), err);
    case_job c;
    set_up(&c, images, dir, "v.npy");
    c.job.tile = 0;
    c.job.batch = 1;
    trn_status status = run_job(&c, &h, &err);
    assert_true(status == TRN_ERR_FORMAT);
    assert_non_null(strstr(err.message, "zz.tif"));
    assert_int_equal(files_in(dir), 0);
    free(bad);
    free(images);
    forget(&h);
}

/* A model with weights, class tokens per window; result.json names the very file that was used. */
static void trained_model(void **state)
{
    (void)state;
    trn_error err = {0};
    heard h = {0};
    char *dir = test_temp_dir(), hex[65];
    const char *golden = test_golden_path("vit_tiny_mae/vit_tiny_mae.safetensors");
    if (!golden) fail_msg("vit_tiny_mae.safetensors is missing from the test data");
    char *weights = strdup(golden);
    char *scene = write_scene(dir, "s.tif", &(test_raster){.width = 64, .height = 64, .bands = 3});
    case_job c;
    set_up(&c, scene, dir, "v.npy");
    const trn_setting tiny[] = {
        {"img_size", "32"}, {"patch", "8"}, {"dim", "48"}, {"depth", "3"}, {"heads", "4"}};
    c.encoder = (trn_job_encoder){.model = "mae-vit-base",
                                  .weights = weights,
                                  .settings = tiny,
                                  .setting_count = TRN_COUNT(tiny),
                                  .pool = TRN_FEATURES_CLS};
    c.job.scene.sensor = "rgb";
    c.job.tile_vectors = true;
    assert_trn_ok(run_job(&c, &h, &err), err);
    int64_t shape[3];
    free(read_vectors(dir, "v.npy", shape, 3));
    assert_int_equal(shape[0] * shape[1], 4);
    assert_int_equal(shape[2], 48);
    size_t size;
    uint8_t digest[32];
    char *bytes = trn_read_file(weights, 1 << 24, &size, &err);
    assert_non_null(bytes);
    trn_sha256(bytes, size, digest);
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    cJSON *json = read_json(dir, "result.json");
    const cJSON *encoder = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "encoders"), 0);
    const cJSON *used = cJSON_GetObjectItem(encoder, "weights");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(used, "sha256")), hex);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(encoder, "pool")), "cls");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItem(encoder, "bands"), 0)),
                        "red");
    cJSON_Delete(json);
    free(bytes);
    free(weights);
    free(scene);
    forget(&h);
}

/* A checkpoint in perfect order whose numbers are not: NaN must not pass for nodata. */
static void weights_of_nan(void **state)
{
    (void)state;
    trn_error err = {0};
    heard h = {0};
    char *dir = test_temp_dir(), *weights = test_path(dir, "nan.safetensors");
    const char *good = test_golden_path("vit_tiny_mae/vit_tiny_mae.safetensors");
    if (!good) fail_msg("vit_tiny_mae.safetensors is missing from the test data");
    size_t size;
    char *bytes = trn_read_file(good, 1 << 24, &size, &err);
    assert_non_null(bytes);
    memset(bytes + size - 4096, 0xff, 4096);
    assert_trn_ok(trn_write_file(weights, bytes, size, &err), err);
    free(bytes);
    char *scene = write_scene(dir, "s.tif", &(test_raster){.width = 32, .height = 32, .bands = 3});
    case_job c;
    set_up(&c, scene, dir, "v.npy");
    const trn_setting tiny[] = {
        {"img_size", "32"}, {"patch", "8"}, {"dim", "48"}, {"depth", "3"}, {"heads", "4"}};
    c.encoder = (trn_job_encoder){
        .model = "mae-vit-base", .weights = weights, .settings = tiny, .setting_count = TRN_COUNT(tiny)};
    c.job.scene.sensor = "rgb";
    assert_trn_fails(run_job(&c, &h, &err), TRN_ERR_FORMAT, err, "not finite");
    assert_int_equal(files_in(dir), 2);
    free(weights);
    free(scene);
    forget(&h);
}

static void explaining(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_text out = {0};
    char *dir = test_temp_dir();
    char *scene = write_scene(dir, "scene.tif", &(test_raster){.width = 100, .height = 75, .bands = 3});
    case_job c;
    set_up(&c, scene, dir, "a.npy");
    assert_trn_ok(trn_embed_explain(&c.job, gpu, NULL, &out, &err), err);
    static const char *const wanted[] = {"100 x 75 pixels",      "EPSG:32633",          "rcf",
                                         "windows   12 (4 x 3)", "13 x 10, 8 channels", "batch"};
    for (size_t i = 0; i < TRN_COUNT(wanted); i++)
        if (!strstr(trn_text_get(&out), wanted[i])) fail_msg("no '%s' in\n%s", wanted[i], trn_text_get(&out));
    assert_int_equal(files_in(dir), 1);
    trn_text_free(&out);
    free(scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_scene),
        cmocka_unit_test(nodata_cells),
        cmocka_unit_test(nothing_valid),
        cmocka_unit_test(vectors_of_tiles),
        cmocka_unit_test(folder_of_images),
        cmocka_unit_test(images_of_other_sizes),
        cmocka_unit_test(resizing),
        cmocka_unit_test(units_of_scenes),
        cmocka_unit_test(z_scores),
        cmocka_unit_test(choosing_bands),
        cmocka_unit_test(outputs_that_cannot_be),
        cmocka_unit_test(too_little_memory),
        cmocka_unit_test(stopping),
        cmocka_unit_test(damage_while_running),
        cmocka_unit_test(trained_model),
        cmocka_unit_test(weights_of_nan),
        cmocka_unit_test(explaining),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
