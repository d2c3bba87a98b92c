/* Probes and training over every kind of dataset: several encoders over shared bands, a scene with a raster
 * of labels, samples with several labels. */
#include "../data_room/samples.h"
#include "test_device.h"
#include "test_images.h"
#include "test_raster.h"

#include "gpu.h"
#include "job.h"

#include <math.h>

enum { SIDE = 16, VIT_CHANNELS = 16 };

static const trn_setting small_vit[] = {
    {"img_size", "16"}, {"patch", "8"}, {"dim", "16"}, {"depth", "1"}, {"heads", "2"}};

static trn_job_encoder vit(trn_feature_pool pool)
{
    return (trn_job_encoder){.model = "mae-vit-base",
                             .weights = "fresh",
                             .settings = small_vit,
                             .setting_count = TRN_COUNT(small_vit),
                             .pool = pool,
                             .weight = 1};
}

static trn_probe_job neighbours(const char *dir, const trn_job_encoder *encoders, size_t count,
                                const char *out)
{
    return (trn_probe_job){.data = {.path = dir},
                           .encoders = encoders,
                           .encoder_count = count,
                           .use_knn = {true, "knn3"},
                           .knn = {.k = 3},
                           .cache = "",
                           .out_dir = out};
}

static trn_train_job training(const char *dir, const trn_job_encoder *encoder, int64_t epochs,
                              const char *out)
{
    return (trn_train_job){
        .data = {.path = dir},
        .encoders = encoder,
        .encoder_count = 1,
        .head = {.kind = TRN_HEAD_LINEAR},
        .fit = {.epochs = epochs,
                .batch = 4,
                .optimizer = {.kind = TRN_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8},
                .schedule = {.kind = TRN_SCHEDULE_CONSTANT, .base = 0.01}},
        .out_dir = out};
}

static cJSON *read_result(const char *dir)
{
    trn_error err = {0};
    size_t size;
    char *path = test_path(dir, "result.json"), *text = trn_read_file(path, 1 << 20, &size, &err);
    if (!text) fail_msg("%s", err.message);
    cJSON *json = cJSON_Parse(text);
    if (!json) fail_msg("no JSON: %s", text);
    free(text);
    free(path);
    return json;
}

/* ---- bands ---- */

static void only_bands_that_are_asked_for_are_read(void **state)
{
    (void)state;
    trn_error err = {0};
    static const char *const green[] = {"green"};
    char *dir = strdup(test_temp_dir()), *out = strdup(test_temp_dir());
    test_images_write(dir, &(test_images){.side = SIDE, .classes = 3, .train = 6, .test = 3});
    const trn_job_encoder encoders[] = {
        {.model = "rcf", .bands = green, .band_count = 1, .pool = TRN_FEATURES_MEAN, .weight = 1},
        vit(TRN_FEATURES_MEAN)};
    trn_probe_job job = neighbours(dir, encoders, 1, out);
    trn_probe_result alone, both;
    assert_trn_ok(trn_probe_run(&job, gpu, NULL, &alone, &err), err);
    cJSON *json = read_result(out);
    const cJSON *bands = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "data"), "bands");
    assert_int_equal(cJSON_GetArraySize(bands), 1);
    assert_string_equal(cJSON_GetArrayItem(bands, 0)->valuestring, "green");
    cJSON_Delete(json);

    /* two encoders read the union, and their features stand side by side */
    job.encoder_count = 2;
    assert_trn_ok(trn_probe_run(&job, gpu, NULL, &both, &err), err);
    assert_int_equal(both.channels, alone.channels + VIT_CHANNELS);
    assert_true(both.knn.test.accuracy > 0.8); /* three colours; green alone tells two of them apart */
    json = read_result(out);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(cJSON_GetObjectItem(json, "data"), "bands")), 3);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "encoders")), 2);
    cJSON_Delete(json);
    trn_probe_result_free(&alone);
    trn_probe_result_free(&both);
    free(dir);
    free(out);
}

/* ---- a scene with labels ---- */

static double bright_to_the_right(int band, int x, int y)
{
    (void)band;
    (void)y;
    return x / 8 % 2 ? 0.8 : 0.2;
}

/* The class of a pixel as a share of 255, which the byte becomes. */
static double class_to_the_right(int band, int x, int y)
{
    (void)band;
    (void)y;
    return (x / 8 % 2) / 255.0;
}

static void a_scene_with_labels_is_cut_and_learned(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_text text = {0};
    char *dir = strdup(test_temp_dir()), *out = strdup(test_temp_dir());
    char *scene = test_path(dir, "scene.tif"), *labels = test_path(dir, "labels.tif"),
         *small = test_path(dir, "small.tif");
    test_raster_write(scene,
                      &(test_raster){.width = 160, .height = 160, .bands = 3, .value = bright_to_the_right});
    test_raster_write(labels,
                      &(test_raster){.width = 160, .height = 160, .bands = 1, .value = class_to_the_right});
    test_raster_write(small,
                      &(test_raster){.width = 100, .height = 160, .bands = 1, .value = class_to_the_right});
    const trn_job_encoder encoder = vit(TRN_FEATURES_DENSE);
    trn_train_job job = training(scene, &encoder, 4, out);
    trn_train_result result;
    job.data.labels = labels;
    job.data.sensor = "rgb";
    job.data.chip = SIDE;
    assert_trn_ok(trn_train_explain(&job, gpu, NULL, &text, &err), err);
    assert_non_null(strstr(trn_text_get(&text), "segmentation, 2 classes, samples of 16 x 16 pixels"));
    assert_trn_ok(trn_train_run(&job, gpu, NULL, &result, &err), err);
    size_t all =
        result.samples[TRN_SPLIT_TRAIN] + result.samples[TRN_SPLIT_VALID] + result.samples[TRN_SPLIT_TEST];
    assert_int_equal(all, 100);
    assert_true(result.fit.test.mean_iou > 0.9);
    trn_train_result_free(&result);

    job.data.block = 2;
    job.data.test_share = -1;
    job.data.valid_share = 0.4;
    trn_text_free(&text);
    assert_trn_ok(trn_train_explain(&job, gpu, NULL, &text, &err), err);
    assert_non_null(strstr(trn_text_get(&text), "60 train, 40 valid, 0 test"));

    job.data.labels = small;
    assert_trn_fails(trn_train_check(&job, NULL, &err), TRN_ERR_ARGUMENT, err, "small.tif");
    job.data.labels = NULL;
    assert_trn_fails(trn_train_check(&job, NULL, &err), TRN_ERR_ARGUMENT, err,
                     "needs the raster of its labels");
    trn_text_free(&text);
    free(scene);
    free(labels);
    free(small);
    free(dir);
    free(out);
}

/* ---- several labels ---- */

/* Label c holds where band c is bright: the bits of the sample's number. */
static void write_several_labels(const char *dir, int train, int valid, int test)
{
    static const char *const bands[] = {"04 - Red", "03 - Green", "02 - Blue"};
    trn_text stats = {0}, partition = {0};
    const int counts[] = {train, valid, test};
    static const char *const splits[] = {"train", "valid", "test"};
    int index = 0;
    for (int s = 0; s < 3; s++) {
        trn_text_printf(&partition, "%s\"%s\": [", s ? ", " : "{", splits[s]);
        for (int i = 0; i < counts[s]; i++, index++) {
            char id[32];
            float plane[SIDE * SIDE];
            snprintf(id, sizeof id, "id_%04d", index);
            hid_t file = create_sample(dir, id);
            for (int b = 0; b < 3; b++) {
                for (int k = 0; k < SIDE * SIDE; k++)
                    plane[k] = (float)((index >> b & 1 ? 200 : 60) + (k * 7 + index * 13) % 30);
                add_plane(file, bands[b], H5T_NATIVE_FLOAT, SIDE, SIDE, plane);
            }
            H5Fclose(file);
            trn_text_printf(&partition, "%s\"%s\"", i ? ", " : "", id);
            trn_text_printf(&stats, "%s\"%s\": [%d, %d, %d]", index ? ", " : "{", id, index & 1,
                            index >> 1 & 1, index >> 2 & 1);
        }
        trn_text_add(&partition, "]");
    }
    trn_text_add(&partition, "}");
    trn_text_add(&stats, "}");
    write_text(dir, "default_partition.json", trn_text_get(&partition));
    write_text(dir, "label_stats.json", trn_text_get(&stats));
    trn_text_free(&partition);
    trn_text_free(&stats);
}

static void several_labels_are_judged_by_average_precision(void **state)
{
    (void)state;
    trn_error err = {0};
    char *dir = strdup(test_temp_dir()), *out = strdup(test_temp_dir());
    write_several_labels(dir, 32, 8, 8);
    trn_job_encoder encoder = vit(TRN_FEATURES_MEAN);
    trn_probe_job probe = neighbours(dir, &encoder, 1, out);
    trn_probe_result scores;
    probe.data.has_scale = true;
    probe.data.scale = 1;
    probe.data.unit = TRN_UNIT_BYTE;
    probe.use_logistic = (trn_job_probe){true, "logistic"};
    assert_trn_ok(trn_probe_run(&probe, gpu, NULL, &scores, &err), err);
    assert_int_equal(scores.knn.test_labels.count, 8);
    assert_true(scores.logistic.test_labels.micro_map > 0.9);
    cJSON *json = read_result(out);
    assert_string_equal(cJSON_GetObjectItem(json, "metric")->valuestring, "micro_map");
    assert_true(cJSON_GetObjectItem(json, "logistic")->valuedouble == scores.logistic.test_labels.micro_map);
    cJSON_Delete(json);
    trn_probe_result_free(&scores);

    trn_train_job job = training(dir, &encoder, 5, out);
    trn_train_result result;
    job.data = probe.data;
    assert_trn_ok(trn_train_run(&job, gpu, NULL, &result, &err), err);
    json = read_result(out);
    const cJSON *figures = cJSON_GetObjectItem(json, "figures");
    assert_true(cJSON_GetObjectItem(figures, "micro_map")->valuedouble == result.fit.test_labels.micro_map);
    assert_null(cJSON_GetObjectItem(figures, "mean_iou"));
    assert_true(result.fit.test_labels.micro_map > 0.9);
    cJSON_Delete(json);
    trn_train_result_free(&result);
    job.fit.loss.kind = TRN_LOSS_DICE;
    assert_trn_fails(trn_train_check(&job, NULL, &err), TRN_ERR_ARGUMENT, err, "loss");
    free(dir);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_bands_that_are_asked_for_are_read),
        cmocka_unit_test(a_scene_with_labels_is_cut_and_learned),
        cmocka_unit_test(several_labels_are_judged_by_average_precision),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
