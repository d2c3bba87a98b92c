/* Probes and training as jobs: what is checked, what is written, what is said of mistakes. */
#include "test_images.h"
#include "test_device.h"
#include "test_support.h"

#include "gpu.h"
#include "job.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- jobs ---- */

enum { SIDE = 16, CLASSES = 3 };

static const trn_setting small_vit[] = {
    {"img_size", "16"}, {"patch", "8"}, {"dim", "16"}, {"depth", "1"}, {"heads", "2"}};
static const trn_job_encoder encoder = {.model = "mae-vit-base",
                                        .weights = "fresh",
                                        .settings = small_vit,
                                        .setting_count = TRN_COUNT(small_vit),
                                        .pool = TRN_FEATURES_MEAN,
                                        .weight = 1};

static char *small_dataset(void)
{
    char *dir = strdup(test_temp_dir());
    assert_non_null(dir);
    test_images_write(dir,
                      &(test_images){.side = SIDE, .classes = CLASSES, .train = 8, .valid = 4, .test = 4});
    return dir;
}

static trn_probe_job probe_of(const char *dir, const char *out)
{
    return (trn_probe_job){.name = "small",
                           .data = {.path = dir},
                           .encoders = &encoder,
                           .encoder_count = 1,
                           .use_knn = {true, "knn5"},
                           .use_logistic = {true, "logistic"},
                           .use_linear = {true, "linear"},
                           .knn = {.k = 5, .center = true},
                           .linear = {.epochs = 20, .batch = 24},
                           .logistic = {.standardize = true},
                           .cache = "",
                           .out_dir = out};
}

static trn_train_job train_of(const char *dir, const char *out)
{
    return (trn_train_job){
        .name = "small",
        .data = {.path = dir, .flip_x = 0.5, .rotate = true},
        .encoders = &encoder,
        .encoder_count = 1,
        .head = {.kind = TRN_HEAD_LINEAR},
        .fit = {.epochs = 6,
                .batch = 8,
                .optimizer =
                    {.kind = TRN_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01},
                .schedule = {.kind = TRN_SCHEDULE_COSINE, .base = 0.01},
                .seed = 7},
        .out_dir = out};
}

/* What hooks were told last. */
typedef struct told {
    trn_job_part part;
    size_t index;
    int blamed, notes;
} told;

static void blame(void *user, trn_job_part part, size_t index)
{
    told *t = user;
    t->part = part;
    t->index = index;
    t->blamed++;
}

static void note(void *user, trn_log_level level, const char *text)
{
    (void)level;
    (void)text;
    ((told *)user)->notes++;
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

static double number(const cJSON *json, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);
    if (!cJSON_IsNumber(item)) fail_msg("no number '%s'", name);
    return item ? item->valuedouble : 0;
}

static const cJSON *object(const cJSON *json, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);
    if (!cJSON_IsObject(item)) fail_msg("no object '%s'", name);
    return item;
}

/* ---- checking ---- */

static void good_jobs_pass_the_check(void **state)
{
    (void)state;
    trn_error err = {0};
    char *dir = small_dataset();
    trn_probe_job probe = probe_of(dir, NULL);
    trn_train_job train = train_of(dir, NULL);
    assert_trn_ok(trn_probe_check(&probe, NULL, &err), err);
    assert_trn_ok(trn_train_check(&train, NULL, &err), err);
    free(dir);
}

/* One mistake in a job that is good otherwise. */
typedef struct probe_mistake {
    void (*make)(trn_probe_job *job, trn_job_encoder *changed);
    trn_status status;
    const char *text;
    trn_job_part part;
} probe_mistake;

static void no_probe(trn_probe_job *job, trn_job_encoder *changed)
{
    (void)changed;
    job->use_knn.wanted = job->use_linear.wanted = job->use_logistic.wanted = false;
}

static void same_names(trn_probe_job *job, trn_job_encoder *changed)
{
    (void)changed;
    job->use_linear.name = job->use_knn.name;
}

static void taken_name(trn_probe_job *job, trn_job_encoder *changed)
{
    (void)changed;
    job->use_linear.name = "figures";
}

static void flips(trn_probe_job *job, trn_job_encoder *changed)
{
    (void)changed;
    job->data.flip_x = 0.5;
}

static void no_folder(trn_probe_job *job, trn_job_encoder *changed)
{
    (void)changed;
    job->data.path = "/nowhere/at/all";
}

static void labels_of_a_folder(trn_probe_job *job, trn_job_encoder *changed)
{
    (void)changed;
    job->data.labels = "labels.tif";
}

static void odd_size(trn_probe_job *job, trn_job_encoder *changed)
{
    (void)changed;
    job->data.resize = 20;
}

static void crop_too_large(trn_probe_job *job, trn_job_encoder *changed)
{
    (void)changed;
    job->data.crop = 24;
}

static void band_that_is_not_there(trn_probe_job *job, trn_job_encoder *changed)
{
    static const char *const bands[] = {"red", "nir"};
    (void)job;
    changed->bands = bands;
    changed->band_count = 2;
}

static void bands_missing(trn_probe_job *job, trn_job_encoder *changed)
{
    static const char *const bands[] = {"red"};
    (void)changed;
    job->data.bands = bands;
    job->data.band_count = 1;
}

static void a_date(trn_probe_job *job, trn_job_encoder *changed)
{
    (void)job;
    changed->date = 1;
}

static void no_position(trn_probe_job *job, trn_job_encoder *changed)
{
    (void)job;
    changed->remove_position = true;
}

static void unknown_model(trn_probe_job *job, trn_job_encoder *changed)
{
    (void)job;
    changed->model = "galileo-nanno";
}

static void wrong_unit(trn_probe_job *job, trn_job_encoder *changed)
{
    (void)changed;
    job->data.has_scale = true;
    job->data.scale = 0.275 / 255;
    job->data.unit = TRN_UNIT_REFLECTANCE;
}

static void wrong_sensor(trn_probe_job *job, trn_job_encoder *changed)
{
    (void)changed;
    job->data.sensor = "sentinel3";
}

static void every_mistake_in_a_probe_is_told(void **state)
{
    (void)state;
    static const probe_mistake mistakes[] = {
        {no_probe, TRN_ERR_ARGUMENT, "no probe", TRN_JOB_WHOLE},
        {same_names, TRN_ERR_ARGUMENT, "two probes are named 'knn5'", TRN_JOB_WHOLE},
        {taken_name, TRN_ERR_ARGUMENT, "cannot be named 'figures'", TRN_JOB_WHOLE},
        {flips, TRN_ERR_ARGUMENT, "flips and rotations are for training", TRN_JOB_SCENE},
        {no_folder, TRN_ERR_IO, "/nowhere/at/all", TRN_JOB_SCENE},
        {labels_of_a_folder, TRN_ERR_ARGUMENT, "is a folder, which holds its labels", TRN_JOB_SCENE},
        {odd_size, TRN_ERR_ARGUMENT, "images of 20 pixels do not suit encoder", TRN_JOB_SCENE},
        {crop_too_large, TRN_ERR_ARGUMENT, "a crop of 24 x 24 does not fit", TRN_JOB_SCENE},
        {band_that_is_not_there, TRN_ERR_ARGUMENT, "has no band 'nir'; it has: red, green, blue",
         TRN_JOB_ENCODER},
        {bands_missing, TRN_ERR_ARGUMENT, "green, blue", TRN_JOB_ENCODER},
        {a_date, TRN_ERR_ARGUMENT, "date is for scenes of several dates", TRN_JOB_ENCODER},
        {no_position, TRN_ERR_ARGUMENT, "remove_position is for maps", TRN_JOB_ENCODER},
        {unknown_model, TRN_ERR_ARGUMENT, "galileo-nano", TRN_JOB_ENCODER},
        {wrong_unit, TRN_ERR_ARGUMENT, "wants byte values", TRN_JOB_ENCODER},
        {wrong_sensor, TRN_ERR_ARGUMENT, "sentinel3", TRN_JOB_SCENE},
    };
    char *dir = small_dataset();
    for (size_t i = 0; i < TRN_COUNT(mistakes); i++) {
        trn_error err = {0};
        told heard = {0};
        trn_job_hooks hooks = {.blame = blame, .note = note, .user = &heard};
        trn_job_encoder changed = encoder;
        trn_probe_job job = probe_of(dir, NULL);
        job.encoders = &changed;
        mistakes[i].make(&job, &changed);
        assert_trn_fails(trn_probe_check(&job, &hooks, &err), mistakes[i].status, err, mistakes[i].text);
        assert_true(heard.blamed > 0);
        assert_int_equal(heard.part, mistakes[i].part);
    }
    free(dir);
}

static void training_is_checked_against_the_dataset(void **state)
{
    (void)state;
    trn_error err = {0};
    char *dir = small_dataset();
    trn_train_job job = train_of(dir, NULL);
    job.fit.batch = 25;
    assert_trn_fails(trn_train_check(&job, NULL, &err), TRN_ERR_ARGUMENT, err, "batch");
    job = train_of(dir, NULL);
    job.fit.epochs = 0;
    assert_trn_fails(trn_train_check(&job, NULL, &err), TRN_ERR_ARGUMENT, err, "epochs");
    job = train_of(dir, NULL);
    job.fit.loss.kind = TRN_LOSS_BINARY;
    assert_trn_fails(trn_train_check(&job, NULL, &err), TRN_ERR_ARGUMENT, err, "loss");
    job = train_of(dir, NULL);
    job.fit.metric = "acuracy";
    assert_trn_fails(trn_train_check(&job, NULL, &err), TRN_ERR_ARGUMENT, err, "accuracy");
    job = train_of(dir, NULL);
    job.head.kind = TRN_HEAD_UPERNET;
    assert_trn_fails(trn_train_check(&job, NULL, &err), TRN_ERR_ARGUMENT, err, "choose another head");
    job = train_of(dir, NULL);
    job.encoder_count = 0;
    assert_trn_fails(trn_train_check(&job, NULL, &err), TRN_ERR_ARGUMENT, err, "trains nothing");
    job = train_of(dir, NULL);
    job.result_extra = "[1]";
    assert_trn_fails(trn_train_check(&job, NULL, &err), TRN_ERR_ARGUMENT, err, "JSON object");
    free(dir);
}

static void splits_without_samples_are_told(void **state)
{
    (void)state;
    trn_error err = {0};
    char *dir = strdup(test_temp_dir());
    test_images_write(dir, &(test_images){.side = SIDE, .classes = 2, .valid = 2});
    trn_probe_job job = probe_of(dir, NULL);
    assert_trn_fails(trn_probe_check(&job, NULL, &err), TRN_ERR_FORMAT, err, "its training split is empty");
    test_images_write(dir, &(test_images){.side = SIDE, .classes = 2, .train = 2});
    assert_trn_fails(trn_probe_check(&job, NULL, &err), TRN_ERR_FORMAT, err, "neither validation nor test");
    free(dir);
}

/* ---- probes ---- */

static void a_probe_writes_its_scores(void **state)
{
    (void)state;
    trn_error err = {0};
    char *dir = small_dataset(), *out = strdup(test_temp_dir());
    trn_probe_job job = probe_of(dir, out);
    trn_probe_result result;
    job.result_extra = "{\"file\": \"x.lua\"}";
    assert_trn_ok(trn_probe_run(&job, gpu, NULL, &result, &err), err);
    assert_int_equal(result.samples[TRN_SPLIT_TRAIN], 8 * CLASSES);
    assert_int_equal(result.samples[TRN_SPLIT_TEST], 4 * CLASSES);
    assert_int_equal(result.channels, 16);
    assert_int_equal(result.file_count, 1);
    /* colours are easy to tell apart */
    assert_true(result.knn.test.accuracy > 0.9 && result.logistic.test.accuracy > 0.9);

    cJSON *json = read_result(out);
    assert_string_equal(cJSON_GetObjectItem(json, "name")->valuestring, "small");
    assert_string_equal(cJSON_GetObjectItem(json, "metric")->valuestring, "accuracy");
    assert_string_equal(cJSON_GetObjectItem(object(json, "recipe"), "file")->valuestring, "x.lua");
    const char *const names[] = {"knn5", "linear", "logistic"};
    const double scores[] = {result.knn.test.accuracy, result.linear.test.accuracy,
                             result.logistic.test.accuracy};
    for (size_t i = 0; i < TRN_COUNT(names); i++) {
        assert_true(number(json, names[i]) == scores[i]);
        assert_true(number(object(json, "figures"), names[i]) == scores[i]);
        const cJSON *probe = object(object(json, "probes"), names[i]);
        assert_true(number(object(probe, "test"), "accuracy") == scores[i]);
        assert_true(number(object(probe, "valid"), "samples") == 4 * CLASSES);
    }
    assert_true(number(object(object(json, "data"), "samples"), "train") == 8 * CLASSES);
    const cJSON *member = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "encoders"), 0);
    assert_string_equal(cJSON_GetObjectItem(member, "pool")->valuestring, "mean");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(object(member, "weights"), "fresh")));
    cJSON_Delete(json);
    trn_probe_result_free(&result);
    free(dir);
    free(out);
}

static void a_second_probe_takes_its_features_from_the_cache(void **state)
{
    (void)state;
    trn_error err = {0};
    char *dir = small_dataset(), *out = strdup(test_temp_dir()), *cache = strdup(test_temp_dir());
    trn_probe_job job = probe_of(dir, out);
    trn_probe_result first, second, other;
    job.cache = cache;
    job.use_linear.wanted = job.use_logistic.wanted = false;
    assert_trn_ok(trn_probe_run(&job, gpu, NULL, &first, &err), err);
    job.knn.k = 3;
    assert_trn_ok(trn_probe_run(&job, gpu, NULL, &second, &err), err);
    assert_false(first.cached);
    assert_true(second.cached);
    assert_true(second.knn.parameter == 3);
    job.seed = 1; /* other fresh weights */
    assert_trn_ok(trn_probe_run(&job, gpu, NULL, &other, &err), err);
    assert_false(other.cached);
    trn_probe_result_free(&first);
    trn_probe_result_free(&second);
    trn_probe_result_free(&other);
    free(dir);
    free(out);
    free(cache);
}

/* A limit of one image leaves classes without any. */
static void limits_take_fewer_samples(void **state)
{
    (void)state;
    trn_error err = {0};
    told heard = {0};
    trn_job_hooks hooks = {.blame = blame, .note = note, .user = &heard};
    char *dir = small_dataset(), *out = strdup(test_temp_dir());
    trn_probe_job job = probe_of(dir, out);
    trn_probe_result result;
    job.use_linear.wanted = job.use_logistic.wanted = false;
    job.data.limit[TRN_SPLIT_TRAIN] = 20;
    job.data.limit[TRN_SPLIT_TEST] = 5;
    job.data.limit[TRN_SPLIT_VALID] = 500;
    assert_trn_ok(trn_probe_run(&job, gpu, NULL, &result, &err), err);
    assert_int_equal(result.samples[TRN_SPLIT_TRAIN], 20);
    assert_int_equal(result.samples[TRN_SPLIT_VALID], 4 * CLASSES);
    assert_int_equal(result.knn.test.count, 5);
    trn_probe_result_free(&result);
    job.data.limit[TRN_SPLIT_TRAIN] = 1;
    assert_trn_fails(trn_probe_run(&job, gpu, &hooks, &result, &err), TRN_ERR_FORMAT, err,
                     "its limit is too small");
    assert_int_equal(heard.part, TRN_JOB_SCENE);
    free(dir);
    free(out);
}

/* Statistics of the training split take the place of the encoder's own. */
static void zscore_is_of_the_training_split(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_text text = {0};
    trn_job_encoder changed = encoder;
    changed.normalize = TRN_NORMALIZE_ZSCORE;
    char *dir = small_dataset();
    trn_probe_job job = probe_of(dir, NULL);
    job.encoders = &changed;
    assert_trn_ok(trn_probe_explain(&job, gpu, NULL, &text, &err), err);
    /* a red of 60 or 200, noise of 30 to both sides: two classes of three have 200 */
    const char *at = strstr(trn_text_get(&text), "red");
    double mean = 0, std = 0;
    at = at ? strstr(trn_text_get(&text), "value - ") : NULL;
    if (!at || sscanf(at, "value - %lf) / %lf", &mean, &std) != 2) fail_msg("%s", trn_text_get(&text));
    assert_true(fabs(mean - (200 + 60 + 200) / 3.0) < 3);
    assert_true(fabs(std - sqrt(140 * 140 * 2.0 / 9 + 30 * 30 / 3.0)) < 3);
    trn_text_free(&text);
    free(dir);
}

static void a_probe_explains_itself(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_text text = {0};
    char *dir = small_dataset();
    trn_probe_job job = probe_of(dir, "/nowhere/that/could/be/written");
    job.data.limit[TRN_SPLIT_TRAIN] = 6;
    assert_trn_ok(trn_probe_explain(&job, gpu, NULL, &text, &err), err);
    const char *const wanted[] = {"3 classes",   "6 train (of 24)", "mae-vit-base", "knn5, linear, logistic",
                                  "16 channels", "kernel"};
    for (size_t i = 0; i < TRN_COUNT(wanted); i++)
        if (!strstr(trn_text_get(&text), wanted[i]))
            fail_msg("no '%s' in\n%s", wanted[i], trn_text_get(&text));
    trn_text_free(&text);
    free(dir);
}

/* ---- training ---- */

static void training_writes_weights_and_figures(void **state)
{
    (void)state;
    trn_error err = {0};
    char *dir = small_dataset(), *out = strdup(test_temp_dir());
    trn_train_job job = train_of(dir, out);
    trn_train_result result;
    assert_trn_ok(trn_train_run(&job, gpu, NULL, &result, &err), err);
    assert_int_equal(result.fit.epochs, 6);
    assert_true(result.fit.test.accuracy > 0.8);
    cJSON *json = read_result(out);
    const cJSON *figures = object(json, "figures");
    assert_true(number(figures, "accuracy") == result.fit.test.accuracy);
    assert_true(number(figures, "valid_accuracy") == result.fit.valid.accuracy);
    assert_true(number(figures, "epochs") == 6 && number(figures, "steps") == 18);
    assert_true(number(json, "seed") == 7);
    const char *const files[] = {"best.safetensors", "last.safetensors", "encoder.safetensors", "log.jsonl",
                                 "loss.png"};
    for (size_t i = 0; i < TRN_COUNT(files); i++) {
        char *path = test_path(out, files[i]);
        assert_true(trn_path_exists(path));
        free(path);
    }
    assert_int_equal(result.file_count, TRN_COUNT(files) + 1);
    cJSON_Delete(json);

    /* again: nothing is left to do */
    trn_train_result again;
    assert_trn_ok(trn_train_run(&job, gpu, NULL, &again, &err), err);
    assert_true(again.fit.was_complete);
    assert_true(again.fit.test.accuracy == result.fit.test.accuracy);
    trn_train_result_free(&again);
    /* other settings in the same folder */
    job.data.rotate = false;
    assert_trn_fails(trn_train_run(&job, gpu, NULL, &again, &err), TRN_ERR_ARGUMENT, err, "");
    trn_train_result_free(&result);
    free(dir);
    free(out);
}

/* The encoder that was trained is the weights of another job. */
static void trained_encoders_are_weights(void **state)
{
    (void)state;
    trn_error err = {0};
    char *dir = small_dataset(), *out = strdup(test_temp_dir());
    trn_train_job job = train_of(dir, out);
    trn_train_result result;
    trn_probe_result scores;
    job.fit.epochs = 1;
    assert_trn_ok(trn_train_run(&job, gpu, NULL, &result, &err), err);
    trn_train_result_free(&result);
    char *weights = test_path(out, "encoder.safetensors");
    trn_job_encoder trained = encoder;
    trained.weights = weights;
    trn_probe_job probe = probe_of(dir, out);
    probe.encoders = &trained;
    probe.use_linear.wanted = probe.use_logistic.wanted = false;
    assert_trn_ok(trn_probe_run(&probe, gpu, NULL, &scores, &err), err);
    assert_true(scores.knn.test.accuracy > 0.9);
    trn_probe_result_free(&scores);
    free(weights);
    free(dir);
    free(out);
}

static void a_network_of_ones_own_learns_segmentation(void **state)
{
    (void)state;
    trn_error err = {0};
    char *dir = strdup(test_temp_dir()), *out = strdup(test_temp_dir());
    test_images_write(
        dir, &(test_images){.side = SIDE, .classes = 2, .train = 8, .valid = 2, .test = 2, .mask = "masks"});
    static const trn_program_arg wide[] = {{"channels", 8, NULL}, {"kernel", 3, NULL}, {"padding", 1, NULL}};
    static const int image[] = {0}, first[] = {1};
    static const trn_program_node nodes[] = {
        {.op = "conv", .inputs = image, .input_count = 1, .args = wide, .arg_count = 3},
        {.op = "relu", .inputs = first, .input_count = 1}};
    static const trn_program network = {.nodes = nodes, .node_count = 2, .input_count = 1, .output = 2};
    trn_train_job job = train_of(dir, out);
    trn_train_result result;
    job.encoders = NULL;
    job.encoder_count = 0;
    job.trunk = &network;
    job.data.rotate = false;
    job.data.flip_x = 0;
    job.fit.epochs = 10;
    assert_trn_ok(trn_train_check(&job, NULL, &err), err);
    assert_trn_ok(trn_train_run(&job, gpu, NULL, &result, &err), err);
    assert_true(result.fit.test.mean_iou > 0.9);
    cJSON *json = read_result(out);
    assert_true(number(object(json, "figures"), "mean_iou") == result.fit.test.mean_iou);
    assert_true(number(object(json, "network"), "nodes") == 2);
    cJSON_Delete(json);
    trn_train_result_free(&result);

    /* a probe is for classes of whole samples */
    trn_probe_job probe = probe_of(dir, out);
    assert_trn_fails(trn_probe_check(&probe, NULL, &err), TRN_ERR_ARGUMENT, err, "for segmentation");
    free(dir);
    free(out);
}

/* Wrong shapes show before anything is read, with the recipe's line. */
static void a_network_is_checked_with_its_shapes(void **state)
{
    (void)state;
    trn_error err = {0};
    told heard = {0};
    char *dir = small_dataset();
    static const trn_program_arg channels[] = {{"channels", 8, NULL}};
    static const int image[] = {0}, first[] = {1};
    static const trn_program_node nodes[] = {
        {.op = "mean", .inputs = image, .input_count = 1, .line = 5},
        {.op = "conv", .inputs = first, .input_count = 1, .args = channels, .arg_count = 1, .line = 6}};
    static const trn_program network = {.nodes = nodes, .node_count = 2, .input_count = 1, .output = 2};
    trn_job_hooks hooks = {.blame = blame, .note = note, .user = &heard};
    trn_train_job job = train_of(dir, NULL);
    job.encoders = NULL;
    job.encoder_count = 0;
    job.trunk = &network;
    assert_trn_fails(trn_train_check(&job, &hooks, &err), TRN_ERR_ARGUMENT, err,
                     "line 6 of the recipe, conv");
    assert_true(heard.blamed == 1 && heard.part == TRN_JOB_WHOLE);
    free(dir);
}

static void training_explains_itself(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_text text = {0};
    char *dir = small_dataset();
    trn_train_job job = train_of(dir, "/nowhere/that/could/be/written");
    assert_trn_ok(trn_train_explain(&job, gpu, NULL, &text, &err), err);
    const char *const wanted[] = {"24 train", "flipped left to right by 0.5", "turned by right angles",
                                  "mae-vit-base"};
    for (size_t i = 0; i < TRN_COUNT(wanted); i++)
        if (!strstr(trn_text_get(&text), wanted[i]))
            fail_msg("no '%s' in\n%s", wanted[i], trn_text_get(&text));
    trn_text_free(&text);
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_jobs_pass_the_check),
        cmocka_unit_test(every_mistake_in_a_probe_is_told),
        cmocka_unit_test(training_is_checked_against_the_dataset),
        cmocka_unit_test(splits_without_samples_are_told),
        cmocka_unit_test(a_probe_writes_its_scores),
        cmocka_unit_test(a_second_probe_takes_its_features_from_the_cache),
        cmocka_unit_test(limits_take_fewer_samples),
        cmocka_unit_test(zscore_is_of_the_training_split),
        cmocka_unit_test(a_probe_explains_itself),
        cmocka_unit_test(training_writes_weights_and_figures),
        cmocka_unit_test(trained_encoders_are_weights),
        cmocka_unit_test(a_network_of_ones_own_learns_segmentation),
        cmocka_unit_test(a_network_is_checked_with_its_shapes),
        cmocka_unit_test(training_explains_itself),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
