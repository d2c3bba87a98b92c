/* Fitting from end to end on tiny data: what is learnt and written, choices of what learns, bad input. */
#include "fit_cases.h"
#include "test_device.h"

static char *new_dir(void)
{
    char *copy = strdup(test_temp_dir());
    assert_non_null(copy);
    return copy;
}

/* What the hooks were told. */
typedef struct heard {
    trn_text notes, warnings;
    uint64_t reports;
} heard;

static void hear_note(void *user, trn_log_level level, const char *text)
{
    heard *h = user;
    trn_text_printf(level == TRN_LOG_WARN ? &h->warnings : &h->notes, "%s\n", text);
}

static void hear_progress(void *user, const char *stage, uint64_t done, uint64_t total)
{
    heard *h = user;
    assert_true(*stage && done <= total);
    h->reports++;
}

static void forget(heard *h)
{
    trn_text_free(&h->notes);
    trn_text_free(&h->warnings);
}

static trn_status fit_heard(const fit_case *c, heard *h, trn_fit_result *result, trn_error *err)
{
    trn_learn_hooks hooks = {.progress = {.report = hear_progress, .user = h}, .note = hear_note, .user = h};
    return trn_fit(gpu, &c->model, c->dataset, &c->options, &hooks, result, err);
}

static trn_fit_result fitted(const fit_case *c)
{
    trn_error err = {0};
    trn_fit_result result;
    assert_trn_ok(trn_fit(gpu, &c->model, c->dataset, &c->options, NULL, &result, &err), err);
    return result;
}

static void expect_failure(const fit_case *c, trn_status status, const char *text)
{
    trn_error err = {0};
    trn_fit_result result;
    assert_trn_fails(trn_fit(gpu, &c->model, c->dataset, &c->options, NULL, &result, &err), status, err,
                     text);
}

/* ---- what is learnt and written ---- */

static int count_events(const char *log, const char *event)
{
    char pattern[64];
    int count = 0;
    snprintf(pattern, sizeof pattern, "{\"event\": \"%s\", ", event);
    for (const char *at = log; (at = strstr(at, pattern)) != NULL; at++)
        count++;
    return count;
}

static void check_log(const char *out, int steps, int epochs)
{
    char *log = fit_read(out, "log.jsonl", NULL);
    assert_int_equal(count_events(log, "step"), steps);
    assert_int_equal(count_events(log, "epoch"), epochs);
    for (char *line = strtok(log, "\n"); line; line = strtok(NULL, "\n")) {
        cJSON *json = cJSON_Parse(line);
        bool step = json && cJSON_HasObjectItem(json, "gradient_norm") && cJSON_HasObjectItem(json, "lr");
        bool epoch = json && cJSON_HasObjectItem(json, "valid_loss") && cJSON_HasObjectItem(json, "accuracy");
        assert_true(step != epoch);
        cJSON_Delete(json);
    }
    free(log);
}

/* encoder.safetensors is loaded by the encoder, and holds other weights than it began with. */
static void check_encoder(const char *out)
{
    trn_error err = {0};
    trn_weights *weights;
    trn_text report = {0};
    trn_encoder *encoder = fit_encoder();
    char *path = test_path(out, "encoder.safetensors");
    assert_trn_ok(trn_weights_open(path, NULL, &weights, &err), err);
    assert_trn_ok(trn_encoder_load(encoder, weights, &report, &err), err);
    assert_null(strstr(trn_text_get(&report), "not used"));
    const int64_t shape[] = {24, 3, 8, 8};
    enum { COUNT = 24 * 3 * 8 * 8 };
    static float learnt[COUNT], fresh[COUNT];
    assert_trn_ok(trn_weights_read(weights, "patch_embed.proj.weight", shape, 4, learnt, &err), err);
    trn_weights_fresh_values(5, "patch_embed.proj.weight", 4, shape, fresh);
    double away = 0;
    for (int i = 0; i < COUNT; i++)
        away = fmax(away, fabs((double)learnt[i] - (double)fresh[i]));
    assert_true(away > 1e-4 && away < 1);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
    trn_text_free(&report);
    free(path);
}

static void a_model_learns_easy_classes(void **state)
{
    (void)state;
    fit_case c;
    heard h = {0};
    trn_error err = {0};
    trn_fit_result result, again;
    char *data = new_dir(), *out = new_dir();
    fit_write_classes(data, 38, 16, 7); /* no multiples of the batch */
    fit_open(&c, data, out);
    c.options.epochs = 8;
    assert_trn_ok(fit_heard(&c, &h, &result, &err), err);
    assert_int_equal(result.steps, 8 * 6);
    assert_int_equal(result.epochs, 8);
    assert_true(result.valid.count == 16 && result.test.count == 7);
    assert_true(result.valid.accuracy == 1 && result.test.accuracy == 1 && result.best_metric == 1);
    assert_true(result.train_loss < 0.5 && result.valid_loss < 0.5);
    assert_true(result.parameters == result.learning && result.parameters > 10000);
    assert_true(result.busy > 0 && result.busy <= 1 && result.samples_per_second > 0);
    assert_true(result.device_bytes > 0 && !result.resumed && !result.was_complete);
    assert_string_equal(result.metric, "accuracy");
    assert_non_null(strstr(trn_text_get(&h.notes), "epoch 8/8: loss "));
    assert_non_null(strstr(trn_text_get(&h.notes), "(best)"));
    assert_true(h.reports > 48);
    check_log(out, 48, 8);
    check_encoder(out);
    assert_true(fit_exists(out, "loss.png"));
    /* once more: it is done, and is evaluated again */
    again = fitted(&c);
    assert_true(again.was_complete && again.resumed && again.steps == 48);
    assert_true(again.best_epoch == result.best_epoch && again.test.accuracy == 1);
    forget(&h);
    fit_close(&c);
    free(data);
    free(out);
}

static void the_same_settings_give_the_same_bits(void **state)
{
    (void)state;
    char *data = new_dir(), *outs[] = {new_dir(), new_dir(), new_dir(), new_dir()};
    fit_write_classes(data, 14, 5, 0);
    for (int i = 0; i < 4; i++) {
        fit_case c;
        fit_open(&c, data, outs[i]);
        c.options.epochs = 2;
        c.options.train_transform.flip_x = 0.5;
        c.options.drop_path = 0.1;
        c.options.recompute = i == 2;                        /* computing blocks again changes no bit */
        if (i == 3) setenv("TERRANE_DISABLE", "overlap", 1); /* nor do batches taken one by one */
        fitted(&c);
        unsetenv("TERRANE_DISABLE");
        fit_close(&c);
    }
    fit_same_run(outs[0], outs[1]);
    fit_same_run(outs[0], outs[2]);
    fit_same_run(outs[0], outs[3]);
    for (int i = 0; i < 4; i++)
        free(outs[i]);
    free(data);
}

static void maps_learn_pixels(void **state)
{
    (void)state;
    static const trn_loss_kind losses[] = {TRN_LOSS_CE_DICE, TRN_LOSS_JACCARD, TRN_LOSS_FOCAL};
    char *data = new_dir();
    fit_write_masks(data, 8, 3);
    for (size_t i = 0; i < TRN_COUNT(losses); i++) {
        fit_case c;
        char *out = new_dir();
        fit_open(&c, data, out);
        c.options.epochs = 30;
        c.options.batch = 4;
        c.options.loss.kind = losses[i];
        trn_fit_result result = fitted(&c);
        assert_string_equal(result.metric, "mean_iou");
        /* cells of 8 pixels meet the border of the classes */
        if (!(result.valid.mean_iou > 0.8)) fail_msg("mean IoU %g", result.valid.mean_iou);
        assert_int_equal(result.valid.count, 3 * FIT_SIDE * FIT_SIDE);
        fit_close(&c);
        free(out);
    }
    free(data);
}

/* With a rate of 0, so that the weights stay, and half of some masks without labels. */
static double validation_loss_in_batches(const char *data, int batch)
{
    static const double weights[] = {1, 0, 4};
    fit_case c;
    trn_error err = {0};
    char *out = new_dir();
    fit_open(&c, data, out);
    trn_dataset_close(c.dataset);
    const trn_dataset_options options = {.has_ignore = true, .ignore = 1};
    assert_trn_ok(trn_dataset_open(data, &options, &c.dataset, &err), err);
    c.options.epochs = 1;
    c.options.batch = batch;
    c.options.schedule.base = 0;
    c.options.loss.class_weights = weights;
    c.options.loss.class_weight_count = TRN_COUNT(weights);
    trn_fit_result result = fitted(&c);
    assert_int_equal(result.valid.count, 4 * FIT_SIDE * FIT_SIDE); /* of 5 masks, two of them halves */
    fit_close(&c);
    free(out);
    return result.valid_loss;
}

static void validation_loss_is_the_mean_over_labels(void **state)
{
    (void)state;
    char *data = new_dir();
    fit_write_masks(data, 6, 5);
    double one = validation_loss_in_batches(data, 1), many = validation_loss_in_batches(data, 3);
    if (!(fabs(one - many) < 1e-5 * one)) fail_msg("%g in batches of 1, %g in batches of 3", one, many);
    free(data);
}

static void one_learns_without_validation(void **state)
{
    (void)state;
    fit_case c;
    char *data = new_dir(), *out = new_dir();
    fit_write_classes(data, 12, 0, 0);
    fit_open(&c, data, out);
    c.options.epochs = 2;
    trn_fit_result result = fitted(&c);
    assert_true(result.best_epoch == 2 && result.valid.count == 0 && result.test.count == 0);
    assert_true(fit_exists(out, "best.safetensors"));
    c.options.dir = data; /* a folder without a checkpoint */
    c.options.patience = 1;
    expect_failure(&c, TRN_ERR_ARGUMENT, "no validation split");
    fit_close(&c);
    free(data);
    free(out);
}

/* A network that predicts nothing better after the first epoch, because nothing moves. */
static void patience_ends_a_run(void **state)
{
    (void)state;
    fit_case c;
    char *data = new_dir(), *out = new_dir();
    fit_write_classes(data, 12, 6, 0);
    fit_open(&c, data, out);
    c.options.epochs = 9;
    c.options.patience = 2;
    c.options.schedule = (trn_schedule){.kind = TRN_SCHEDULE_CONSTANT, .base = 0};
    trn_fit_result result = fitted(&c);
    assert_true(result.stopped_early && result.epochs == 3 && result.best_epoch == 1);
    trn_fit_result again = fitted(&c);
    assert_true(again.was_complete && again.stopped_early && again.epochs == 3);
    fit_close(&c);
    free(data);
    free(out);
}

/* ---- what learns ---- */

static void frozen_parameters_stay(void **state)
{
    (void)state;
    static const char *const encoder[] = {"encoder.*"}, *const nothing[] = {"encoder.block.*"},
                             *const all[] = {"*"};
    fit_case c;
    trn_error err = {0};
    trn_text text = {0};
    char *data = new_dir(), *out = new_dir();
    fit_write_classes(data, 12, 6, 0);
    fit_open(&c, data, out);
    c.options.frozen = encoder;
    c.options.frozen_count = 1;
    c.options.epochs = 1;
    assert_trn_ok(trn_fit_explain(gpu, &c.model, c.dataset, &c.options, NULL, &text, &err), err);
    assert_non_null(strstr(trn_text_get(&text), ", 75 learn")); /* 3 x 24 + 3 of the head */
    assert_non_null(strstr(trn_text_get(&text), "1 epochs of 2 steps of 6 samples"));
    trn_fit_result result = fitted(&c);
    assert_true(result.learning == 75 && result.parameters > 10000);
    assert_false(fit_exists(out, "encoder.safetensors")); /* it learned nothing */
    c.options.frozen = nothing;
    expect_failure(&c, TRN_ERR_ARGUMENT, "no parameter has a name like 'encoder.block.*'");
    c.options.frozen = all;
    expect_failure(&c, TRN_ERR_ARGUMENT, "every parameter is frozen");
    trn_text_free(&text);
    fit_close(&c);
    free(data);
    free(out);
}

/* Values of a tensor of best.safetensors. */
static void read_best(const char *out, const char *name, const int64_t *shape, int ndim, float *values)
{
    trn_error err = {0};
    trn_weights *weights;
    char *path = test_path(out, "best.safetensors");
    assert_trn_ok(trn_weights_open(path, &(trn_weights_options){.prefix = ""}, &weights, &err), err);
    assert_trn_ok(trn_weights_read(weights, name, shape, ndim, values, &err), err);
    trn_weights_close(weights);
    free(path);
}

/* AdamW's first step moves each weight by its learning rate, whatever the gradient: so scales show. */
static void rates_depend_on_depth_and_part(void **state)
{
    (void)state;
    enum { DIM = 24 };
    fit_case c;
    float moved[DIM];
    const int64_t shape[] = {DIM}, classes[] = {FIT_CLASSES};
    char *data = new_dir(), *out = new_dir();
    fit_write_classes(data, 6, 0, 0);
    fit_open(&c, data, out);
    c.options.epochs = 1;
    c.options.schedule = (trn_schedule){.kind = TRN_SCHEDULE_CONSTANT, .base = 1e-2};
    c.options.layer_decay = 0.5;
    c.options.head_rate = 3;
    fitted(&c);
    read_best(out, "head.fc.bias", classes, 1, moved);
    assert_true(fabs(fabs((double)moved[0]) - 3e-2) < 1e-4);
    read_best(out, "encoder.norm.bias", shape, 1, moved);
    assert_true(fabs(fabs((double)moved[0]) - 1e-2) < 1e-4); /* behind the last block */
    read_best(out, "encoder.blocks.1.ls2.gamma", shape, 1, moved);
    assert_true(fabs(fabs((double)moved[0]) - 0.5e-2) < 1e-4);
    read_best(out, "encoder.blocks.0.ls2.gamma", shape, 1, moved);
    assert_true(fabs(fabs((double)moved[0]) - 0.25e-2) < 1e-4);
    read_best(out, "encoder.patch_embed.proj.bias", shape, 1, moved);
    assert_true(fabs(fabs((double)moved[0]) - 0.125e-2) < 1e-4);
    fit_close(&c);
    free(data);
    free(out);
}

static void weights_may_be_balanced(void **state)
{
    (void)state;
    fit_case c;
    static const double weights[] = {1, 2, 3};
    char *data = new_dir(), *out = new_dir();
    fit_write_classes(data, 13, 5, 0);
    fit_open(&c, data, out);
    c.options.epochs = 1;
    c.options.loss.balance = true;
    trn_fit_result balanced = fitted(&c);
    assert_true(isfinite(balanced.train_loss));
    c.options.loss.class_weights = weights;
    c.options.loss.class_weight_count = 3;
    expect_failure(&c, TRN_ERR_ARGUMENT, "choose one");
    c.options.loss.balance = false;
    c.options.loss.class_weight_count = 2;
    expect_failure(&c, TRN_ERR_ARGUMENT, "2 class weights");
    fit_close(&c);
    free(data);
    free(out);
}

/* ---- bad input ---- */

static void contradictions_are_refused(void **state)
{
    (void)state;
    fit_case c;
    size_t beyond = 99;
    char *data = new_dir(), *out = new_dir();
    fit_write_classes(data, 12, 6, 0);
    fit_open(&c, data, out);
    const fit_case good = c;
    c.options.batch = 13;
    expect_failure(&c, TRN_ERR_ARGUMENT, "a step takes 13 samples (batch 13), and there are 12");
    c.options.batch = 0;
    expect_failure(&c, TRN_ERR_ARGUMENT, "at least 1");
    c = good;
    c.model.members = &c.member;
    c.options.loss.kind = TRN_LOSS_BINARY;
    expect_failure(&c, TRN_ERR_ARGUMENT, "the loss does not suit classification");
    c.options.loss = (trn_loss_choice){.kind = TRN_LOSS_DICE, .label_smoothing = 0.1};
    expect_failure(&c, TRN_ERR_ARGUMENT, "label_smoothing");
    c.options = good.options;
    c.options.metric = "acuracy";
    expect_failure(&c, TRN_ERR_ARGUMENT, "'accuracy'");
    c.options.metric = NULL;
    c.model.height = c.model.width = 24;
    expect_failure(&c, TRN_ERR_FORMAT, "come as 16 x 16 pixels, and the model takes 24 x 24");
    c.model = good.model;
    c.model.members = &c.member;
    c.model.head = &c.head;
    c.model.bands = 4;
    expect_failure(&c, TRN_ERR_FORMAT, "have 3 bands, and the model takes 4");
    c.model.bands = 3;
    c.head.outputs = 5;
    expect_failure(&c, TRN_ERR_ARGUMENT, "the head has 5 outputs");
    c.head.outputs = 3;
    c.options.train_samples = &beyond;
    c.options.train_sample_count = 1;
    expect_failure(&c, TRN_ERR_ARGUMENT, "sample 99 is chosen");
    c.options.train_samples = NULL;
    c.options.memory_limit = 100000;
    expect_failure(&c, TRN_ERR_MEMORY,
                   "does not fit in device memory in batches of 6: make the batch smaller");
    c.options.memory_limit = 0;
    c.options.dir = NULL;
    expect_failure(&c, TRN_ERR_ARGUMENT, "wants a folder");
    assert_false(fit_exists(out, "log.jsonl"));
    fit_close(&c);
    free(data);
    free(out);
}

static void data_that_cannot_teach_is_refused(void **state)
{
    (void)state;
    fit_case c;
    static const size_t two_classes[] = {0, 1, 3, 4, 6, 7, 9, 10};
    char *data = new_dir(), *out = new_dir(), *empty = new_dir();
    fit_write_classes(data, 12, 6, 0);
    fit_open(&c, data, out);
    c.options.train_samples = two_classes;
    c.options.train_sample_count = TRN_COUNT(two_classes);
    expect_failure(&c, TRN_ERR_ARGUMENT, "is of class 'class2'");
    fit_close(&c);
    fit_write_classes(empty, 0, 6, 3);
    fit_open(&c, empty, out);
    expect_failure(&c, TRN_ERR_ARGUMENT, "its split 'train' is empty");
    fit_close(&c);
    free(data);
    free(out);
    free(empty);
}

/* A batch that cannot be read is taken while the step before it runs: that step counts all the same. */
static void what_is_read_ahead_fails_in_its_turn(void **state)
{
    (void)state;
    trn_error err = {0};
    char *data = new_dir(), *logs[2];
    fit_write_classes(data, 24, 0, 0);
    for (int i = 0; i < 2; i++) {
        fit_case c;
        trn_fit_result result;
        char *out = new_dir(), *image = test_path(data, "image7.tif");
        fit_open(&c, data, out);
        assert_trn_ok(trn_write_file(image, "damaged", 7, &err), err);
        if (i) setenv("TERRANE_DISABLE", "overlap", 1);
        trn_status status = trn_fit(gpu, &c.model, c.dataset, &c.options, NULL, &result, &err);
        unsetenv("TERRANE_DISABLE");
        assert_true(status != TRN_OK && strstr(err.message, "image7.tif"));
        logs[i] = fit_read(out, "log.jsonl", NULL);
        fit_close(&c);
        free(image);
        free(out);
        fit_write_classes(data, 24, 0, 0);
    }
    assert_string_equal(logs[0], logs[1]);
    assert_true(count_events(logs[0], "step") > 0);
    free(logs[0]);
    free(logs[1]);
    free(data);
}

static void a_loss_that_explodes_ends_the_run(void **state)
{
    (void)state;
    fit_case c;
    trn_error err = {0};
    trn_fit_result result;
    char *data = new_dir(), *out = new_dir(), *log;
    fit_write_classes(data, 24, 6, 0);
    fit_open(&c, data, out);
    c.options.schedule = (trn_schedule){.kind = TRN_SCHEDULE_STEP, .base = 1e-3, .every = 2, .factor = 1e30};
    c.options.checkpoint_seconds = 1e-9; /* after each step */
    assert_trn_fails(trn_fit(gpu, &c.model, c.dataset, &c.options, NULL, &result, &err), TRN_ERR_UNSUPPORTED,
                     err, "step 4 (epoch 1)");
    print_message("%s\n", err.message);
    assert_non_null(strstr(err.message, "The first operator that made it: "));
    assert_null(strstr(err.message, "cannot be told"));
    assert_non_null(strstr(err.message, "the checkpoint of step 3 is kept"));
    log = fit_read(out, "log.jsonl", NULL);
    assert_int_equal(count_events(log, "step"), 3);
    free(log);
    /* the same again fails in the same place */
    expect_failure(&c, TRN_ERR_UNSUPPORTED, "step 4 (epoch 1)");
    fit_close(&c);
    free(data);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_learns_easy_classes),
        cmocka_unit_test(the_same_settings_give_the_same_bits),
        cmocka_unit_test(maps_learn_pixels),
        cmocka_unit_test(validation_loss_is_the_mean_over_labels),
        cmocka_unit_test(one_learns_without_validation),
        cmocka_unit_test(patience_ends_a_run),
        cmocka_unit_test(frozen_parameters_stay),
        cmocka_unit_test(rates_depend_on_depth_and_part),
        cmocka_unit_test(weights_may_be_balanced),
        cmocka_unit_test(contradictions_are_refused),
        cmocka_unit_test(data_that_cannot_teach_is_refused),
        cmocka_unit_test(what_is_read_ahead_fails_in_its_turn),
        cmocka_unit_test(a_loss_that_explodes_ends_the_run),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
