/* Mixed precision: what is learnt, how the loss is scaled, going on after a stop, devices without float16. */
#include "fit.h"
#include "test_device.h"
#include "fit_cases.h"

enum { STEPS = 10, SIDE = 64 };
static const double usual_scale = 65536;

static char *new_dir(void)
{
    char *copy = strdup(test_temp_dir());
    assert_non_null(copy);
    return copy;
}

static void open_mixed(fit_case *c, const char *data, const char *out)
{
    fit_open(c, data, out);
    c->options.mixed = true;
}

static trn_fit_result fitted(const fit_case *c)
{
    trn_error err = {0};
    trn_fit_result result;
    assert_trn_ok(trn_fit(gpu, &c->model, c->dataset, &c->options, NULL, &result, &err), err);
    return result;
}

/* ---- the log ---- */

typedef struct step_line {
    double loss, norm, scale; /* NAN: null; scale 0: not there */
} step_line;

static double number_of(const cJSON *line, const char *key, double absent)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(line, key);
    return !item ? absent : cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

/* The lines of the steps, at most `most`; how many there are. */
static int read_steps(const char *out, step_line *steps, int most)
{
    char *log = fit_read(out, "log.jsonl", NULL);
    int count = 0;
    for (char *text = strtok(log, "\n"); text; text = strtok(NULL, "\n")) {
        cJSON *line = cJSON_Parse(text);
        const char *event = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "event"));
        if (event && !strcmp(event, "step")) {
            assert_true(count < most);
            steps[count++] = (step_line){number_of(line, "loss", 0), number_of(line, "gradient_norm", 0),
                                         number_of(line, "loss_scale", 0)};
        }
        cJSON_Delete(line);
    }
    free(log);
    return count;
}

/* ---- cases ---- */

static void a_model_learns_easy_classes(void **state)
{
    (void)state;
    char *data = new_dir(), *outs[] = {new_dir(), new_dir()};
    step_line steps[64];
    fit_write_classes(data, 38, 16, 7);
    for (int i = 0; i < 2; i++) {
        fit_case c;
        open_mixed(&c, data, outs[i]);
        c.options.epochs = 8;
        c.options.accumulate = 2;
        c.options.batch = 3;
        c.options.recompute = i == 1;
        trn_fit_result result = fitted(&c);
        assert_true(result.valid.accuracy == 1 && result.test.accuracy == 1 && result.train_loss < 0.5);
        fit_close(&c);
    }
    int count = read_steps(outs[0], steps, TRN_COUNT(steps));
    assert_int_equal(count, 48);
    for (int i = 0; i < count; i++)
        assert_true(steps[i].scale == usual_scale && isfinite(steps[i].norm));
    fit_same_run(outs[0], outs[1]); /* computing blocks again changes no bit */
    for (int i = 0; i < 2; i++)
        free(outs[i]);
    free(data);
}

static trn_encoder *tiny_hiera(void)
{
    static const trn_setting settings[] = {{"img_size", "64"},
                                           {"dim", "16"},
                                           {"stages", "1,1,2,1"},
                                           {"mean", "110,110,110"},
                                           {"std", "60,60,60"}};
    trn_error err = {0};
    trn_encoder *encoder;
    size_t channels;
    assert_trn_ok(trn_encoder_create("hiera-tiny", settings, TRN_COUNT(settings), &encoder, &err), err);
    assert_trn_ok(trn_encoder_choose_all_bands(encoder, &channels, &err), err);
    assert_int_equal(channels, FIT_BANDS);
    return encoder;
}

/* A case whose encoder is a tiny Hiera, over images made larger. */
static void open_hiera(fit_case *c, const char *data, const char *out)
{
    trn_error err = {0};
    fit_open(c, data, out);
    trn_encoder_destroy(c->encoder);
    c->encoder = c->member.encoder = tiny_hiera();
    assert_trn_ok(trn_encoder_load(c->encoder, c->weights, NULL, &err), err);
    c->model.width = c->model.height = SIDE;
    c->options.train_transform.resize_width = c->options.train_transform.resize_height = SIDE;
    c->options.eval_transform = c->options.train_transform;
    c->options.schedule = (trn_schedule){.kind = TRN_SCHEDULE_CONSTANT, .base = 1e-3};
    c->options.epochs = 2;
}

static void losses_are_near_those_of_float32(void **state)
{
    (void)state;
    char *data = new_dir(), *outs[] = {new_dir(), new_dir()};
    step_line steps[2][STEPS];
    double worst = 0, norms = 0, bytes[2];
    fit_write_classes(data, 30, 3, 0);
    for (int i = 0; i < 2; i++) {
        fit_case c;
        open_hiera(&c, data, outs[i]);
        c.options.mixed = i == 1;
        bytes[i] = (double)fitted(&c).device_bytes;
        assert_int_equal(read_steps(outs[i], steps[i], STEPS), STEPS);
        fit_close(&c);
    }
    for (int i = 0; i < STEPS; i++) {
        const step_line *whole = &steps[0][i], *mixed = &steps[1][i];
        assert_true(whole->scale == 0 && mixed->scale == usual_scale);
        worst = fmax(worst, fabs(mixed->loss - whole->loss) / whole->loss);
        norms = fmax(norms, fabs(mixed->norm - whole->norm) / whole->norm);
    }
    print_message("losses differ by %.2e, norms of gradients by %.2e; memory: %.3f of that of float32\n",
                  worst, norms, bytes[1] / bytes[0]);
    assert_true(worst > 0 && worst < 1e-2); /* 0 would be float32 */
    assert_true(norms > 0 && norms < 5e-2);
    for (int i = 0; i < 2; i++)
        free(outs[i]);
    free(data);
}

static double distance_from_fresh(const char *out)
{
    enum { COUNT = 24 * 3 * 8 * 8 };
    static float learnt[COUNT], fresh[COUNT];
    const int64_t shape[] = {24, 3, 8, 8};
    trn_error err = {0};
    trn_weights *weights;
    double away = 0;
    char *path = test_path(out, "encoder.safetensors");
    assert_trn_ok(trn_weights_open(path, NULL, &weights, &err), err);
    assert_trn_ok(trn_weights_read(weights, "patch_embed.proj.weight", shape, 4, learnt, &err), err);
    trn_weights_fresh_values(5, "patch_embed.proj.weight", 4, shape, fresh);
    for (int i = 0; i < COUNT; i++)
        away = fmax(away, fabs((double)learnt[i] - (double)fresh[i]));
    trn_weights_close(weights);
    free(path);
    return away;
}

/* Every step overflows: the scale is halved each time, and the weights stay. */
static void overflowing_steps_are_left_out(void **state)
{
    (void)state;
    fit_case c;
    step_line steps[8];
    char *data = new_dir(), *out = new_dir();
    fit_write_classes(data, 24, 6, 0);
    open_mixed(&c, data, out);
    c.options.loss_scale = ldexp(1, 100);
    c.options.epochs = 2;
    fitted(&c);
    assert_int_equal(read_steps(out, steps, TRN_COUNT(steps)), 8);
    for (int i = 0; i < 8; i++) {
        assert_true(isnan(steps[i].norm) && isfinite(steps[i].loss));
        assert_true(fabs(steps[i].scale / ldexp(1, 100 - i) - 1) < 1e-6); /* the log's digits */
    }
    assert_true(distance_from_fresh(out) == 0);
    fit_close(&c);
    free(data);
    free(out);
}

static void scales_double_and_halve(void **state)
{
    (void)state;
    fit_state s = {.loss_scale = 4};
    for (int i = 0; i < 1999; i++)
        fit_adapt_scale(&s, true);
    assert_true(s.loss_scale == 4 && s.good_steps == 1999);
    fit_adapt_scale(&s, true);
    assert_true(s.loss_scale == 8 && s.good_steps == 0);
    fit_adapt_scale(&s, true);
    fit_adapt_scale(&s, false);
    assert_true(s.loss_scale == 4 && s.good_steps == 0);
    for (int i = 0; i < 9; i++)
        fit_adapt_scale(&s, false);
    assert_true(s.loss_scale == 1); /* never less */
    s = (fit_state){.loss_scale = 1 << 24, .good_steps = 1999};
    fit_adapt_scale(&s, true);
    assert_true(s.loss_scale == 1 << 24); /* what is large enough grows no more */
}

typedef struct stopping {
    int left; /* steps before it stops */
} stopping;

static void count_down(void *user, const char *stage, uint64_t done, uint64_t total)
{
    (void)done, (void)total;
    if (trn_starts_with(stage, "epoch")) ((stopping *)user)->left--;
}

static bool is_over(void *user)
{
    return ((const stopping *)user)->left < 0;
}

/* The scale is part of a checkpoint: a run that is stopped while it looks for one ends with the same bits. */
static void a_stopped_run_finds_the_same_scale(void **state)
{
    (void)state;
    fit_case c;
    trn_error err = {0};
    trn_fit_result result;
    step_line steps[48];
    char *data = new_dir(), *whole = new_dir(), *stopped = new_dir();
    fit_write_classes(data, 24, 6, 0);
    open_mixed(&c, data, whole);
    c.options.loss_scale = ldexp(1, 40);
    c.options.epochs = 12;
    fitted(&c);
    int count = read_steps(whole, steps, TRN_COUNT(steps));
    assert_int_equal(count, 48);
    assert_true(isnan(steps[0].norm) && isfinite(steps[count - 1].norm));
    assert_true(steps[count - 1].scale > 1 && steps[count - 1].scale < ldexp(1, 36));
    for (int left = 2; left <= 20; left += 18) {
        stopping s = {left};
        trn_learn_hooks hooks = {.progress = {count_down, is_over, &s}};
        c.options.dir = stopped;
        assert_trn_fails(trn_fit(gpu, &c.model, c.dataset, &c.options, &hooks, &result, &err),
                         TRN_ERR_CANCELLED, err, "the same command goes on");
    }
    assert_true(fitted(&c).resumed);
    fit_same_run(whole, stopped);
    fit_close(&c);
    free(data);
    free(whole);
    free(stopped);
}

static void a_checkpoint_of_float32_is_another(void **state)
{
    (void)state;
    fit_case c;
    trn_error err = {0};
    trn_fit_result result;
    char *data = new_dir(), *out = new_dir();
    fit_write_classes(data, 12, 3, 0);
    fit_open(&c, data, out);
    c.options.epochs = 1;
    fitted(&c);
    c.options.mixed = true;
    assert_trn_fails(trn_fit(gpu, &c.model, c.dataset, &c.options, NULL, &result, &err), TRN_ERR_ARGUMENT,
                     err, "mixed precision");
    fit_close(&c);
    free(data);
    free(out);
}

/* A loss that is not finite is no matter of the scale. */
static void a_loss_that_is_not_finite_stops(void **state)
{
    (void)state;
    fit_case c;
    trn_error err = {0};
    trn_fit_result result;
    char *data = new_dir(), *out = new_dir();
    fit_write_classes(data, 24, 6, 0);
    open_mixed(&c, data, out);
    c.options.schedule = (trn_schedule){.kind = TRN_SCHEDULE_STEP, .base = 1e-3, .every = 2, .factor = 1e30};
    assert_trn_fails(trn_fit(gpu, &c.model, c.dataset, &c.options, NULL, &result, &err), TRN_ERR_UNSUPPORTED,
                     err, "the loss is");
    assert_non_null(strstr(err.message, "The first operator that made it: "));
    fit_close(&c);
    free(data);
    free(out);
}

static void scales_are_checked(void **state)
{
    (void)state;
    static const double wrong[] = {0.5, -1, INFINITY, NAN, 1e39};
    trn_error err = {0};
    fit_case c;
    char *data = new_dir();
    fit_write_classes(data, 12, 3, 0);
    open_mixed(&c, data, NULL);
    for (size_t i = 0; i < TRN_COUNT(wrong); i++) {
        c.options.loss_scale = wrong[i];
        assert_trn_fails(trn_fit_check(&c.model, c.dataset, &c.options, &err), TRN_ERR_ARGUMENT, err,
                         "the loss scale");
    }
    fit_close(&c);
    free(data);
}

static void a_device_without_float16_says_so(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_fit_result result;
    fit_case c;
    trn_gpu *poor;
    char *data = new_dir(), *out = new_dir();
    const char *had = getenv("TERRANE_DISABLE");
    char *before = had ? strdup(had) : NULL;
    fit_write_classes(data, 12, 3, 0);
    open_mixed(&c, data, out);
    setenv("TERRANE_DISABLE", "fp16", 1);
    trn_status opened = trn_gpu_open(NULL, &poor, &err);
    assert_trn_ok(opened, err);
    assert_trn_fails(trn_fit(poor, &c.model, c.dataset, &c.options, NULL, &result, &err), TRN_ERR_UNSUPPORTED,
                     err, trn_gpu_info(poor)->name);
    assert_non_null(strstr(err.message, "16-bit storage"));
    trn_gpu_close(poor);
    if (before)
        setenv("TERRANE_DISABLE", before, 1);
    else
        unsetenv("TERRANE_DISABLE");
    fit_close(&c);
    free(before);
    free(data);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_learns_easy_classes),
        cmocka_unit_test(losses_are_near_those_of_float32),
        cmocka_unit_test(overflowing_steps_are_left_out),
        cmocka_unit_test(scales_double_and_halve),
        cmocka_unit_test(a_stopped_run_finds_the_same_scale),
        cmocka_unit_test(a_checkpoint_of_float32_is_another),
        cmocka_unit_test(a_loss_that_is_not_finite_stops),
        cmocka_unit_test(scales_are_checked),
        cmocka_unit_test(a_device_without_float16_says_so),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
