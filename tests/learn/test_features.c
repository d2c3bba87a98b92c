/* Features of a frozen encoder: their values, the cache and what makes its key, damaged files, bad input. */
#include "cache.h"
#include "test_device.h"
#include "fit_cases.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- a folder of images and a folder for the cache ---- */

enum { TRAIN = 7, VALID = 3 };

typedef struct feature_case {
    const char *data; /* a temporary folder */
    char *cache;
    fit_case model;
    trn_feature_options options;
    int notes;
    char note[512];
    trn_learn_hooks hooks;
} feature_case;

static void take_note(void *user, trn_log_level level, const char *text)
{
    feature_case *c = user;
    if (level > TRN_LOG_WARN) return;
    c->notes++;
    snprintf(c->note, sizeof c->note, "%s", text);
}

static void open_case(feature_case *c)
{
    *c = (feature_case){0};
    c->cache = test_path(test_temp_dir(), "cache");
    c->data = test_temp_dir();
    fit_write_classes(c->data, TRAIN, VALID, 0);
    fit_open(&c->model, c->data, NULL);
    c->options = (trn_feature_options){.batch = 4, .cache = c->cache};
    c->hooks = (trn_learn_hooks){.note = take_note, .user = c};
}

static void close_case(feature_case *c)
{
    fit_close(&c->model);
    free(c->cache);
}

static trn_status features(feature_case *c, trn_gpu *device, trn_feature_set *out, trn_feature_report *report,
                           trn_error *err)
{
    return trn_learn_features(device, &c->model.model, c->model.dataset, &c->options, &c->hooks, out, report,
                              err);
}

static trn_feature_report compute(feature_case *c, trn_feature_set *out)
{
    trn_error err = {0};
    trn_feature_report report;
    assert_trn_ok(features(c, gpu, out, &report, &err), err);
    return report;
}

/* The file of a report's key. */
static char *kept_file(const feature_case *c, const trn_feature_report *report)
{
    char name[80];
    snprintf(name, sizeof name, "%s.features", report->key);
    return test_path(c->cache, name);
}

static void assert_same_features(const trn_feature_set *a, const trn_feature_set *b)
{
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->channels, b->channels);
    assert_memory_equal(a->values, b->values, a->count * (size_t)a->channels * sizeof *a->values);
    assert_memory_equal(a->labels, b->labels, a->count * a->label_count * sizeof *a->labels);
}

/* ---- values ---- */

/* One image through the encoder alone, without anything of this room. */
static void embed_alone(feature_case *c, size_t index, float *out)
{
    trn_error err = {0};
    float pixels[FIT_BANDS * FIT_SIDE * FIT_SIDE];
    int32_t label;
    assert_trn_ok(trn_dataset_read(c->model.dataset, TRN_SPLIT_TRAIN, index, pixels, &label, &err), err);
    assert_int_equal(label, index % FIT_CLASSES);
    trn_graph *graph = trn_graph_create();
    trn_tensor *image = trn_input(graph, "image", TRN_F32, TRN_SHAPE(1, FIT_BANDS, FIT_SIDE, FIT_SIDE));
    trn_features result;
    assert_trn_ok(trn_encoder_build(c->model.encoder, graph, image, &c->model.member.options, &result, &err),
                  err);
    trn_output_add(graph, "pooled", result.pooled);
    trn_exec *exec;
    assert_trn_ok(trn_compile(graph, gpu, NULL, &exec, &err), err);
    assert_trn_ok(trn_exec_set(exec, "image", pixels, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    assert_trn_ok(trn_exec_get(exec, "pooled", out, &err), err);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

static void they_are_what_the_encoder_gives_alone(void **state)
{
    (void)state;
    enum { CHANNELS = 24 };
    feature_case c;
    trn_feature_set set;
    float alone[CHANNELS];
    open_case(&c);
    c.options.cache = ""; /* none */
    trn_feature_report report = compute(&c, &set);
    assert_false(report.cached);
    assert_true(report.busy > 0 && report.busy <= 1);
    assert_int_equal(set.count, TRAIN);
    assert_int_equal(set.channels, CHANNELS);
    assert_int_equal(set.label_count, 1);
    for (size_t i = 0; i < TRAIN; i++) {
        embed_alone(&c, i, alone);
        assert_int_equal(set.labels[i], i % FIT_CLASSES);
        assert_true(test_worst_error(set.values + i * CHANNELS, alone, CHANNELS, 1) < 1e-5);
    }
    assert_false(trn_path_exists(c.cache));
    trn_feature_set_free(&set);
    assert_null(set.values);
    close_case(&c);
}

/* ---- the cache ---- */

static void the_second_time_no_encoder_runs_and_no_device_is_needed(void **state)
{
    (void)state;
    feature_case c;
    trn_feature_set first, second;
    trn_feature_report report, again;
    trn_error err = {0};
    open_case(&c);
    assert_trn_fails(features(&c, NULL, &first, &report, &err), TRN_ERR_DEVICE, err, "not in the cache");
    report = compute(&c, &first);
    assert_false(report.cached);
    c.options.batch = 2; /* how they are computed does not matter */
    assert_trn_ok(features(&c, NULL, &second, &again, &err), err);
    assert_true(again.cached);
    assert_string_equal(report.key, again.key);
    assert_same_features(&first, &second);
    assert_int_equal(c.notes, 0);
    trn_feature_set_free(&first);
    trn_feature_set_free(&second);
    close_case(&c);
}

/* The key of what would be computed if there were a device. */
static void key_of(feature_case *c, char key[65])
{
    trn_error err = {0};
    trn_feature_set set;
    trn_feature_report report;
    assert_trn_fails(features(c, NULL, &set, &report, &err), TRN_ERR_DEVICE, err, "not in the cache");
    memcpy(key, report.key, 65);
}

static void reopen(feature_case *c)
{
    trn_error err = {0};
    trn_dataset_close(c->model.dataset);
    assert_trn_ok(trn_dataset_open(c->data, NULL, &c->model.dataset, &err), err);
}

static void expect_other_key(feature_case *c, const char *first)
{
    char key[65];
    key_of(c, key);
    assert_string_not_equal(key, first);
}

static void the_key_follows_preprocessing_and_samples(void **state)
{
    (void)state;
    feature_case c;
    char first[65];
    size_t some[] = {0, 2};
    trn_band_statistics statistics[FIT_BANDS] = {{.mean = 1, .std = 2}, {.std = 1}, {.std = 1}};
    open_case(&c);
    key_of(&c, first);
    trn_feature_options options = c.options;
    c.options.split = TRN_SPLIT_VALID;
    expect_other_key(&c, first);
    c.options = options;
    c.options.samples = some;
    c.options.sample_count = TRN_COUNT(some);
    expect_other_key(&c, first);
    c.options = options;
    c.options.transform.normalize = statistics;
    expect_other_key(&c, first);
    c.options = options;
    c.options.transform =
        (trn_transform){.resize_height = FIT_SIDE, .resize_width = FIT_SIDE, .antialias = true};
    expect_other_key(&c, first);
    close_case(&c);
}

static void expect_failure(feature_case *c, trn_status code, const char *text)
{
    trn_error err = {0};
    trn_feature_set set;
    trn_feature_report report;
    assert_trn_fails(features(c, gpu, &set, &report, &err), code, err, text);
    assert_null(set.values);
}

/* Moves the data into another folder, with all times. */
static void move_data(feature_case *c)
{
    const char *other = test_temp_dir();
    char command[2048], *output = NULL;
    snprintf(command, sizeof command, "cp -a '%s/.' '%s/'", c->data, other);
    assert_int_equal(test_run(command, &output), 0);
    free(output);
    c->data = other;
    reopen(c);
}

/* The first sample of class 1 becomes one of class 2. */
static void change_label(feature_case *c)
{
    size_t size;
    char *csv = fit_read(c->data, "split.csv", &size), *label = strstr(csv, "class1");
    assert_non_null(label);
    label[5] = '2';
    fit_write_text(c->data, "split.csv", csv);
    free(csv);
    reopen(c);
}

static void change_weights(feature_case *c)
{
    trn_error err = {0};
    trn_encoder_destroy(c->model.encoder);
    trn_weights_close(c->model.weights);
    assert_trn_ok(trn_weights_open_fresh(6, &c->model.weights, &err), err);
    c->model.encoder = c->model.member.encoder = fit_encoder();
    assert_trn_ok(trn_encoder_load(c->model.encoder, c->model.weights, NULL, &err), err);
}

static void the_key_follows_files_and_weights_but_not_the_place(void **state)
{
    (void)state;
    feature_case c;
    char first[65], key[65];
    open_case(&c);
    key_of(&c, first);
    move_data(&c);
    key_of(&c, key);
    assert_string_equal(key, first);
    char *image = test_path(c.data, "image2.tif");
    struct timespec times[2] = {{.tv_sec = 5}, {.tv_sec = 5}};
    assert_int_equal(utimensat(AT_FDCWD, image, times, 0), 0);
    expect_other_key(&c, first);
    key_of(&c, first);
    change_label(&c);
    expect_other_key(&c, first);
    key_of(&c, first);
    change_weights(&c);
    expect_other_key(&c, first);
    assert_int_equal(unlink(image), 0);
    expect_failure(&c, TRN_ERR_IO, "image2.tif");
    free(image);
    close_case(&c);
}

/* ---- damaged files ---- */

static void put(const char *path, const void *bytes, size_t size)
{
    trn_error err = {0};
    assert_trn_ok(trn_write_file(path, bytes, size, &err), err);
}

/* These bytes are not taken for features, and a note says why. */
static void expect_refusal(feature_case *c, const char *path, const char *key, const char *bytes, size_t size)
{
    trn_error err = {0};
    trn_feature_set set;
    bool found = true;
    put(path, bytes, size);
    c->notes = 0;
    assert_trn_ok(learn_cache_read(path, key, TRAIN, 1, &c->hooks, &set, &found, &err), err);
    assert_false(found);
    assert_null(set.values);
    assert_int_equal(c->notes, 1);
    assert_non_null(strstr(c->note, "computed again"));
}

static void damaged_bytes_are_refused(feature_case *c, const char *path, const char *key, const char *good,
                                      size_t size)
{
    static const size_t places[] = {0, 9, 16, 24, 31, 40, 100, 130, 200}; /* of the header, and behind it */
    char *bad = malloc(size + 1);
    assert_non_null(bad);
    for (size_t i = 0; i <= TRN_COUNT(places); i++) {
        memcpy(bad, good, size);
        bad[i < TRN_COUNT(places) ? places[i] : size - 2] ^= 1;
        expect_refusal(c, path, key, bad, size);
    }
    memcpy(bad, good, size);
    bad[size] = 0;
    expect_refusal(c, path, key, bad, size + 1);
    expect_refusal(c, path, key, good, size - 1);
    expect_refusal(c, path, key, good, 50);
    expect_refusal(c, path, key, good, 0);
    free(bad);
}

static void a_damaged_file_is_computed_again(void **state)
{
    (void)state;
    feature_case c;
    trn_feature_set right, set;
    trn_error err = {0};
    size_t size;
    open_case(&c);
    trn_feature_report report = compute(&c, &right);
    char *path = kept_file(&c, &report), *good = trn_read_file(path, 1 << 20, &size, &err);
    assert_non_null(good);
    damaged_bytes_are_refused(&c, path, report.key, good, size);
    put(path, good, size - 1);
    c.notes = 0;
    assert_false(compute(&c, &set).cached);
    assert_int_equal(c.notes, 1);
    assert_same_features(&set, &right);
    trn_feature_set_free(&set);
    assert_true(compute(&c, &set).cached); /* kept again */
    assert_same_features(&set, &right);
    trn_feature_set_free(&set);
    free(good);
    free(path);
    trn_feature_set_free(&right);
    close_case(&c);
}

static void a_cache_that_cannot_be_written_is_no_error(void **state)
{
    (void)state;
    feature_case c;
    trn_feature_set set;
    open_case(&c);
    put(c.cache, "a file", 6); /* where the folder should be */
    assert_false(compute(&c, &set).cached);
    assert_int_equal(c.notes, 1);
    assert_non_null(strstr(c.note, "not kept"));
    trn_feature_set_free(&set);
    close_case(&c);
}

/* ---- bad input ---- */

static bool stop(void *user)
{
    (void)user;
    return true;
}

static void bad_input_is_named(void **state)
{
    (void)state;
    feature_case c;
    size_t beyond = TRAIN;
    open_case(&c);
    trn_feature_options options = c.options;
    c.options.transform.flip_x = 0.5;
    expect_failure(&c, TRN_ERR_ARGUMENT, "computed once");
    c.options = options;
    c.options.transform.crop_height = c.options.transform.crop_width = 8;
    expect_failure(&c, TRN_ERR_ARGUMENT, "3 bands of 16 x 16 pixels");
    c.options = options;
    c.options.samples = &beyond;
    c.options.sample_count = 1;
    expect_failure(&c, TRN_ERR_ARGUMENT, "no sample 7");
    c.options = options;
    c.options.batch = -1;
    expect_failure(&c, TRN_ERR_ARGUMENT, "batch of -1");
    c.options = options;
    c.hooks.progress.cancelled = stop;
    expect_failure(&c, TRN_ERR_CANCELLED, "");
    c.hooks.progress.cancelled = NULL;
    c.options.split = TRN_SPLIT_TEST; /* no samples: no features, and no error */
    trn_feature_set set;
    compute(&c, &set);
    assert_int_equal(set.count, 0);
    close_case(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_are_what_the_encoder_gives_alone),
        cmocka_unit_test(the_second_time_no_encoder_runs_and_no_device_is_needed),
        cmocka_unit_test(the_key_follows_preprocessing_and_samples),
        cmocka_unit_test(the_key_follows_files_and_weights_but_not_the_place),
        cmocka_unit_test(a_damaged_file_is_computed_again),
        cmocka_unit_test(a_cache_that_cannot_be_written_is_no_error),
        cmocka_unit_test(bad_input_is_named),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
