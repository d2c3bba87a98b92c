/* Reconstruction from end to end: a series and a small checkpoint of made-up weights to a picture. */
#include "test_device.h"
#include "test_support.h"
#include "test_raster.h"
#include "job.h"
#include "models.h"
#include "weights.h"

#include <math.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>

enum {
    SIDE = 32,
    PATCH = 8,
    GRID = SIDE / PATCH,
    DATES = 2,
    PATCHES = DATES * GRID * GRID,
    ZOOM = 256 / SIDE
};
enum { DIM = 32, BANDS = 6, MAX_TENSORS = 64, GREY = 96 };

/* ---- a checkpoint ---- */

typedef struct checkpoint {
    trn_weight_data tensors[MAX_TENSORS];
    char names[MAX_TENSORS][64];
    float *values[MAX_TENSORS];
    size_t count;
} checkpoint;

static void put(checkpoint *c, const char *prefix, const char *name, int64_t rows, int64_t columns)
{
    bool norm = strstr(name, "norm") && strstr(name, "weight");
    int64_t count = rows * (columns ? columns : 1);
    trn_weight_data *tensor = &c->tensors[c->count];
    assert_true(c->count < MAX_TENSORS);
    snprintf(c->names[c->count], sizeof c->names[0], "%s%s", prefix, name);
    c->values[c->count] = test_hash_values(c->names[c->count], count, 0.2, norm ? 1 : 0);
    *tensor = (trn_weight_data){.name = c->names[c->count],
                                .ndim = columns ? 2 : 1,
                                .shape = {rows, columns},
                                .data = c->values[c->count]};
    c->count++;
}

static void put_pair(checkpoint *c, const char *prefix, const char *name, int64_t rows, int64_t columns)
{
    char full[64];
    snprintf(full, sizeof full, "%s.weight", name);
    put(c, prefix, full, rows, columns);
    snprintf(full, sizeof full, "%s.bias", name);
    put(c, prefix, full, rows, 0);
}

static void put_block(checkpoint *c, const char *prefix)
{
    put_pair(c, prefix, "norm1", DIM, 0);
    put_pair(c, prefix, "attn.qkv", 3 * DIM, DIM);
    put_pair(c, prefix, "attn.proj", DIM, DIM);
    put_pair(c, prefix, "norm2", DIM, 0);
    put_pair(c, prefix, "mlp.fc1", 4 * DIM, DIM);
    put_pair(c, prefix, "mlp.fc2", DIM, 4 * DIM);
}

/* Gives the last tensor put another shape of as many values. */
static void reshape(checkpoint *c, trn_shape shape)
{
    trn_weight_data *tensor = &c->tensors[c->count - 1];
    tensor->ndim = shape.ndim;
    memcpy(tensor->shape, shape.dim, (size_t)shape.ndim * sizeof *shape.dim);
}

static char *write_checkpoint(const char *dir, bool decoder)
{
    checkpoint c = {.count = 0};
    trn_error err = {0};
    put(&c, "encoder.", "cls_token", DIM, 0);
    reshape(&c, TRN_SHAPE(1, 1, DIM));
    put(&c, "encoder.", "patch_embed.proj.weight", DIM * BANDS * PATCH * PATCH, 0);
    reshape(&c, TRN_SHAPE(DIM, BANDS, 1, PATCH, PATCH));
    put(&c, "encoder.", "patch_embed.proj.bias", DIM, 0);
    put_block(&c, "encoder.blocks.0.");
    put_pair(&c, "encoder.", "norm", DIM, 0);
    if (decoder) {
        put(&c, "decoder.", "mask_token", DIM, 0);
        reshape(&c, TRN_SHAPE(1, 1, DIM));
        put_pair(&c, "decoder.", "decoder_embed", DIM, DIM);
        put_block(&c, "decoder.decoder_blocks.0.");
        put_pair(&c, "decoder.", "decoder_norm", DIM, 0);
        put_pair(&c, "decoder.", "decoder_pred", BANDS * PATCH * PATCH, DIM);
    }
    char *path = test_path(dir, decoder ? "pair.safetensors" : "alone.safetensors");
    assert_trn_ok(trn_weights_write(path, c.tensors, c.count, NULL, &err), err);
    for (size_t i = 0; i < c.count; i++)
        free(c.values[i]);
    return path;
}

/* ---- a job ---- */

static const trn_setting settings[] = {{"img_size", "32"},     {"patch", "8"},        {"dim", "32"},
                                       {"depth", "1"},         {"heads", "2"},        {"decoder_dim", "32"},
                                       {"decoder_depth", "1"}, {"decoder_heads", "2"}};

typedef struct case_job {
    trn_reconstruct_job job;
    char *dir, *weights, *files[DATES];
    const char *paths[DATES];
} case_job;

static void set_up(case_job *c)
{
    static const char *const names[DATES] = {"s_20180128.tif", "s_20180602.tif"};
    *c = (case_job){.dir = test_temp_dir()};
    c->weights = write_checkpoint(c->dir, true);
    for (int t = 0; t < DATES; t++) {
        const test_raster raster = {.width = 48, .height = 40, .bands = BANDS, .type = TEST_RASTER_U16};
        c->files[t] = test_path(c->dir, names[t]);
        c->paths[t] = c->files[t];
        test_raster_write(c->files[t], &raster);
    }
    c->job = (trn_reconstruct_job){
        .scene = {.paths = c->paths, .path_count = DATES, .sensor = "hls"},
        .encoder = {.model = "prithvi-v1-100m",
                    .weights = c->weights,
                    .settings = settings,
                    .setting_count = TRN_COUNT(settings)},
        .mask_ratio = 0.75,
        .picture = {.path = "made.png"},
        .out_dir = c->dir,
    };
}

static void tear_down(case_job *c)
{
    free(c->weights);
    for (int t = 0; t < DATES; t++)
        free(c->files[t]);
}

static trn_reconstruct_result run(const case_job *c)
{
    trn_error err = {0};
    trn_reconstruct_result result;
    assert_trn_ok(trn_reconstruct_check(&c->job, NULL, &err), err);
    assert_trn_ok(trn_reconstruct_run(&c->job, gpu, NULL, &result, &err), err);
    return result;
}

typedef struct picture {
    int width, height;
    uint8_t *rgba;
} picture;

static picture read_picture(const char *path)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    assert_true(png_image_begin_read_from_file(&image, path));
    image.format = PNG_FORMAT_RGBA;
    picture p = {(int)image.width, (int)image.height, malloc(PNG_IMAGE_SIZE(image))};
    assert_true(p.rgba && png_image_finish_read(&image, NULL, p.rgba, 0, NULL));
    return p;
}

static const uint8_t *pixel_of(const picture *p, int date, int panel, int y, int x)
{
    int shown = SIDE * ZOOM + 4;
    return p->rgba +
           ((size_t)(date * shown + y * ZOOM) * (size_t)p->width + (size_t)(panel * shown + x * ZOOM)) * 4;
}

/* Whether a patch differs between two panels; a patch is hidden as a whole. */
static int differing(const picture *p, int date, int patch, int panel, int other)
{
    int count = 0;
    for (int i = 0; i < PATCH * PATCH; i++) {
        int y = patch / GRID * PATCH + i / PATCH, x = patch % GRID * PATCH + i % PATCH;
        count += memcmp(pixel_of(p, date, panel, y, x), pixel_of(p, date, other, y, x), 4) != 0;
    }
    return count;
}

static void test_picture(void **state)
{
    (void)state;
    case_job c;
    set_up(&c);
    trn_reconstruct_result result = run(&c);
    assert_true(result.patches == PATCHES && result.hidden == 24 && result.dates == DATES);
    assert_true(result.size == SIDE && result.x == 8 && result.y == 4);
    assert_true(isfinite(result.loss) && result.loss > 0);
    assert_int_equal(result.file_count, 2);
    picture p = read_picture(result.files[0]);
    assert_int_equal(p.width, 3 * SIDE * ZOOM + 8);
    assert_int_equal(p.height, 2 * SIDE * ZOOM + 4);
    int hidden = 0, grey = 0;
    for (int i = 0; i < PATCHES; i++) {
        int date = i / (GRID * GRID), patch = i % (GRID * GRID);
        bool drawn = differing(&p, date, patch, 0, 2) > PATCH;
        hidden += drawn;
        const uint8_t *corner = pixel_of(&p, date, 1, patch / GRID * PATCH, patch % GRID * PATCH);
        grey += corner[0] == GREY && corner[1] == GREY && corner[2] == GREY && corner[3] == 255;
        if (!drawn) assert_int_equal(differing(&p, date, patch, 0, 1) + differing(&p, date, patch, 0, 2), 0);
    }
    assert_int_equal(hidden, 24);
    assert_int_equal(grey, 24);
    free(p.rgba);
    trn_reconstruct_result_free(&result);
    tear_down(&c);
}

static void test_result_json(void **state)
{
    (void)state;
    case_job c;
    set_up(&c);
    c.job.seed = 7;
    c.job.result_extra = "{\"recipe\": \"x\"}";
    trn_reconstruct_result result = run(&c);
    trn_error err = {0};
    char *text = trn_read_file(result.files[1], 1 << 20, NULL, &err);
    assert_non_null(text);
    cJSON *json = cJSON_Parse(text);
    const cJSON *made = cJSON_GetObjectItem(json, "reconstruction");
    double loss = cJSON_GetNumberValue(cJSON_GetObjectItem(made, "loss"));
    assert_true(fabs(loss - result.loss) < 1e-6 * result.loss);
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(made, "seed")) > 6.5);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetArrayItem(cJSON_GetObjectItem(json, "files"), 0)),
                        "made.png");
    assert_non_null(cJSON_GetObjectItem(cJSON_GetObjectItem(json, "recipe"), "recipe"));
    cJSON_Delete(json);
    free(text);
    trn_reconstruct_result_free(&result);
    tear_down(&c);
}

/* The same seed hides the same patches, another one others. */
static void test_seed(void **state)
{
    (void)state;
    case_job c;
    set_up(&c);
    trn_reconstruct_result first = run(&c);
    picture a = read_picture(first.files[0]);
    trn_reconstruct_result again = run(&c);
    picture b = read_picture(again.files[0]);
    c.job.seed = 1;
    trn_reconstruct_result other = run(&c);
    picture d = read_picture(other.files[0]);
    size_t bytes = (size_t)a.width * (size_t)a.height * 4;
    assert_memory_equal(a.rgba, b.rgba, bytes);
    assert_true(!(first.loss < again.loss) && !(first.loss > again.loss));
    assert_true(memcmp(a.rgba, d.rgba, bytes) != 0);
    free(a.rgba);
    free(b.rgba);
    free(d.rgba);
    trn_reconstruct_result_free(&first);
    trn_reconstruct_result_free(&again);
    trn_reconstruct_result_free(&other);
    tear_down(&c);
}

/* One date alone, at a place that is given. */
static void test_one_date(void **state)
{
    (void)state;
    case_job c;
    set_up(&c);
    c.job.encoder.date = 2;
    c.job.has_place = true;
    c.job.x = 16;
    c.job.size = 24;
    trn_reconstruct_result result = run(&c);
    assert_true(result.dates == 1 && result.x == 16 && result.y == 0 && result.size == 24);
    assert_true(result.patches == 9 && result.hidden == 7);
    trn_text out = {0};
    trn_error err = {0};
    assert_trn_ok(trn_reconstruct_explain(&c.job, gpu, NULL, &out, &err), err);
    assert_non_null(strstr(trn_text_get(&out), "9, of which 7 are hidden"));
    trn_text_free(&out);
    trn_reconstruct_result_free(&result);
    tear_down(&c);
}

/* ---- Hiera: one image, whose patches are its mask units ---- */

enum { HSIDE = 96, UNIT = 32, UNITS = (HSIDE / UNIT) * (HSIDE / UNIT), HZOOM = 256 / HSIDE, COLOURS = 3 };
enum { HLEFT = 8, HTOP = 4, HAREA = HSIDE * HSIDE, HOLE = 10, MOST_COUNTS = 4000 };

static const trn_setting hiera_settings[] = {{"img_size", "64"},     {"dim", "16"},
                                             {"stages", "1,1,1,1"},  {"decoder_dim", "24"},
                                             {"decoder_depth", "1"}, {"decoder_heads", "2"}};
static const char hiera_name[] = "mae-hiera-tiny";

static bool in_hole(int x, int y)
{
    return x >= HLEFT && x < HLEFT + HOLE && y >= HTOP && y < HTOP + HOLE;
}

/* The stored value of a band of the scene: 1 to 255 of bytes, with a hole; 1 to 4000 of reflectances. */
static int stored_byte(int band, int x, int y)
{
    return 1 + (x * x + 7 * y + 61 * band + x * y / 9) % 255;
}

static int stored_count(int band, int x, int y)
{
    return 1 + (13 * x * x + 70 * y + 611 * band + x * y) % MOST_COUNTS;
}

static double byte_value(int band, int x, int y)
{
    return in_hole(x, y) ? (double)NAN : (stored_byte(band, x, y) + 0.5) / 255;
}

static double count_value(int band, int x, int y)
{
    return (stored_count(band, x, y) + 0.5) / 10000;
}

typedef struct hiera_case {
    trn_reconstruct_job job;
    char *dir, *weights, *scene;
    const char *path;
} hiera_case;

static void set_up_hiera(hiera_case *c, bool reflectance)
{
    trn_error err = {0};
    const test_raster bytes = {
        .width = 112, .height = 104, .bands = 3, .type = TEST_RASTER_U8, .nodata = "0", .value = byte_value};
    const test_raster counts = {
        .width = 112, .height = 104, .bands = 12, .type = TEST_RASTER_U16, .value = count_value};
    *c = (hiera_case){.dir = test_temp_dir()};
    c->weights = test_path(c->dir, "pair.pth");
    c->scene = test_path(c->dir, "scene.tif");
    c->path = c->scene;
    test_raster_write(c->scene, reflectance ? &counts : &bytes);
    assert_trn_ok(trn_masked_write_synthetic(hiera_name, hiera_settings, TRN_COUNT(hiera_settings),
                                             c->weights, NULL, &err),
                  err);
    c->job = (trn_reconstruct_job){
        .scene = {.paths = &c->path, .path_count = 1, .sensor = reflectance ? "sentinel2-l2a" : "rgb"},
        .encoder = {.model = hiera_name,
                    .weights = c->weights,
                    .settings = hiera_settings,
                    .setting_count = TRN_COUNT(hiera_settings),
                    .display = reflectance ? 0.3 : 0},
        .size = HSIDE,
        .mask_ratio = 0.6,
        .seed = 3,
        .picture = {.path = "made.png"},
        .out_dir = c->dir,
    };
}

static void tear_down_hiera(hiera_case *c)
{
    free(c->weights);
    free(c->scene);
}

static const uint8_t *hiera_pixel(const picture *p, int panel, int y, int x)
{
    int shown = HSIDE * HZOOM + 4;
    return p->rgba + ((size_t)(y * HZOOM) * (size_t)p->width + (size_t)(panel * shown + x * HZOOM)) * 4;
}

/* Which units the picture hides, as an order; how many are visible. */
static int64_t order_of(const picture *p, int32_t *order)
{
    static const uint8_t grey[] = {GREY, GREY, GREY, 255};
    int64_t visible = 0, hidden = UNITS;
    for (int32_t u = 0; u < UNITS; u++) {
        const uint8_t *corner =
            hiera_pixel(p, 1, u / 3 * UNIT + UNIT - 1, u % 3 * UNIT + UNIT - 1); /* not in the hole */
        if (memcmp(corner, grey, sizeof grey) == 0)
            order[--hidden] = u;
        else
            order[visible++] = u;
    }
    assert_true(visible == hidden);
    return visible;
}

/* The window as the encoder wants it: display bytes, the mean where there are no data. */
static float *hiera_image(bool reflectance)
{
    static const double mean[COLOURS] = {123.675, 116.28, 103.53};
    static const int counts_of[COLOURS] = {3, 2, 1}; /* B04, B03, B02 */
    float *image = malloc(COLOURS * HAREA * sizeof *image);
    assert_non_null(image);
    for (int i = 0; i < COLOURS * HAREA; i++) {
        int c = i / HAREA, x = i % HSIDE + HLEFT, y = i / HSIDE % HSIDE + HTOP;
        double value = stored_byte(c, x, y);
        if (reflectance) value = fmin(stored_count(counts_of[c], x, y) / 10000.0 / 0.3, 1) * 255;
        if (!reflectance && in_hole(x, y)) value = mean[c];
        image[i] = (float)value;
    }
    return image;
}

/* The same by the door of models. */
static float loss_of(const char *file, const float *image, const trn_mask *mask)
{
    trn_error err = {0};
    trn_encoder *encoder;
    trn_weights *weights;
    trn_masked made;
    trn_exec *exec;
    size_t channels;
    float loss;
    trn_compile_options how = {0};
    assert_trn_ok(trn_masked_create(hiera_name, hiera_settings, TRN_COUNT(hiera_settings), &encoder, &err),
                  err);
    assert_trn_ok(trn_encoder_choose_all_bands(encoder, &channels, &err), err);
    assert_trn_ok(trn_weights_open(file, &(trn_weights_options){.wrapper = "model_state"}, &weights, &err),
                  err);
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    trn_graph *graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(1, COLOURS, HSIDE, HSIDE));
    assert_trn_ok(trn_masked_build(encoder, graph, x, NULL, mask, &made, &err), err);
    trn_output_add(graph, "loss", made.loss);
    assert_trn_ok(trn_compile(graph, gpu, &how, &exec, &err), err);
    assert_trn_ok(trn_exec_set(exec, "x", image, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    assert_trn_ok(trn_exec_get(exec, "loss", &loss, &err), err);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
    return loss;
}

static void check_hiera(bool reflectance)
{
    hiera_case c;
    trn_error err = {0};
    trn_reconstruct_result result;
    int32_t order[UNITS];
    set_up_hiera(&c, reflectance);
    assert_trn_ok(trn_reconstruct_check(&c.job, NULL, &err), err);
    assert_trn_ok(trn_reconstruct_run(&c.job, gpu, NULL, &result, &err), err);
    assert_true(result.patches == UNITS && result.hidden == 6 && result.dates == 1 && result.size == HSIDE);
    assert_true(result.x == HLEFT && result.y == HTOP);
    picture p = read_picture(result.files[0]);
    assert_int_equal(p.width, 3 * HSIDE * HZOOM + 8);
    assert_int_equal(p.height, HSIDE * HZOOM);
    assert_int_equal(hiera_pixel(&p, 0, 0, 0)[3], reflectance ? 255 : 0);
    const trn_mask mask = {order, order_of(&p, order)};
    assert_int_equal(mask.visible, 3);
    for (int i = 0; i < UNITS; i++) {
        int differ = 0;
        for (int k = 0; k < UNIT * UNIT; k++) {
            int y = order[i] / 3 * UNIT + k / UNIT, x = order[i] % 3 * UNIT + k % UNIT;
            differ += memcmp(hiera_pixel(&p, 0, y, x), hiera_pixel(&p, 2, y, x), 4) != 0;
        }
        assert_true(i < mask.visible ? differ == 0 : differ > UNIT);
    }
    float *image = hiera_image(reflectance);
    double loss = (double)loss_of(c.weights, image, &mask);
    assert_true(loss > 0.1 && fabs(loss - result.loss) < 1e-5 * loss);
    free(image);
    free(p.rgba);
    trn_reconstruct_result_free(&result);
    tear_down_hiera(&c);
}

/* Bytes, some pixels without data; and reflectances that are shown as bytes. */
static void test_hiera(void **state)
{
    (void)state;
    check_hiera(false);
    check_hiera(true);
}

static void test_hiera_refused(void **state)
{
    (void)state;
    hiera_case c;
    trn_error err = {0};
    set_up_hiera(&c, true);
    c.job.encoder.display = 0;
    assert_trn_fails(trn_reconstruct_check(&c.job, NULL, &err), TRN_ERR_ARGUMENT, err,
                     "say which reflectance becomes 255");
    c.job.encoder.display = 0.3;
    c.job.size = UNIT;
    assert_trn_fails(trn_reconstruct_check(&c.job, NULL, &err), TRN_ERR_ARGUMENT, err,
                     "leaves none of 1 patches visible");
    c.job.size = 0;
    c.job.encoder.model = "mae-hiera-video-base";
    assert_trn_fails(trn_reconstruct_check(&c.job, NULL, &err), TRN_ERR_ARGUMENT, err,
                     "single images are drawn");
    tear_down_hiera(&c);
}

static void expect_refused(const case_job *c, trn_status code, const char *text)
{
    trn_error err = {0};
    trn_reconstruct_result result;
    assert_trn_fails(trn_reconstruct_check(&c->job, NULL, &err), code, err, text);
    assert_trn_fails(trn_reconstruct_run(&c->job, gpu, NULL, &result, &err), code, err, text);
    assert_null(result.files);
}

static void test_refused(void **state)
{
    (void)state;
    case_job c, changed;
    set_up(&c);
    changed = c;
    changed.job.has_place = true;
    changed.job.x = 17;
    expect_refused(&changed, TRN_ERR_ARGUMENT, "not inside the scene of 48 x 40");
    changed = c;
    changed.job.size = 64;
    expect_refused(&changed, TRN_ERR_ARGUMENT, "not inside the scene");
    changed = c;
    changed.job.mask_ratio = 1;
    expect_refused(&changed, TRN_ERR_ARGUMENT, "ratio above 0 and below 1");
    changed = c;
    changed.job.mask_ratio = 0.99;
    expect_refused(&changed, TRN_ERR_ARGUMENT, "leaves none of 32 patches visible");
    changed = c;
    changed.job.picture.path = "made.tif";
    expect_refused(&changed, TRN_ERR_ARGUMENT, "name a .png");
    changed = c;
    changed.job.scene.each = true;
    expect_refused(&changed, TRN_ERR_ARGUMENT, "not a folder of images");
    changed = c;
    changed.job.encoder = (trn_job_encoder){.model = "rcf"};
    expect_refused(&changed, TRN_ERR_ARGUMENT, "has no decoder");
    char *alone = write_checkpoint(c.dir, false);
    changed = c;
    changed.job.encoder.weights = alone;
    expect_refused(&changed, TRN_ERR_FORMAT, "'decoder.decoder_embed.weight' [32,32] is missing");
    free(alone);
    tear_down(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_picture),       cmocka_unit_test(test_result_json),
        cmocka_unit_test(test_seed),          cmocka_unit_test(test_one_date),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_hiera),
        cmocka_unit_test(test_hiera_refused),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
