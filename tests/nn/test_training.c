/* What training adds to blocks: batch norm against a plain computation in double, dropout and drop path by
 * what they promise of chance. */
#include "test_device.h"
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn.h"

static trn_status fill(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    (void)user, (void)err;
    bool variance = strstr(name, "running_var") != NULL;
    float *values = test_hash_values(name, trn_shape_count(shape), 0.5, variance ? 1 : 0);
    memcpy(out, values, (size_t)trn_shape_count(shape) * sizeof *values);
    free(values);
    return TRN_OK;
}

static const trn_parameters parameters = {.fill = fill};

static bool all_learn(void *user, const char *name)
{
    (void)user, (void)name;
    return true;
}

static trn_exec *compiled(trn_graph *graph)
{
    trn_error err = {0};
    trn_exec *exec;
    assert_trn_ok(trn_compile(graph, gpu, &(trn_compile_options){.poison = true}, &exec, &err), err);
    return exec;
}

static void set(trn_exec *exec, const char *name, const void *data)
{
    trn_error err = {0};
    assert_trn_ok(trn_exec_set(exec, name, data, &err), err);
}

static void run(trn_exec *exec)
{
    trn_error err = {0};
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
}

static void get(trn_exec *exec, const char *name, float *data)
{
    trn_error err = {0};
    assert_trn_ok(trn_exec_get(exec, name, data, &err), err);
}

static void assert_near(const float *actual, const double *expected, int count, double tolerance)
{
    for (int i = 0; i < count; i++)
        if (!(fabs((double)actual[i] - expected[i]) <= tolerance))
            fail_msg("value %d: %g, not %g", i, (double)actual[i], expected[i]);
}

/* ---- batch norm ---- */

enum { BATCH = 3, CHANNELS = 5, PLACES = 7, VALUES = BATCH * CHANNELS * PLACES };
static const double EPS = 1e-3, MOMENTUM = 0.3;

/* Of the norm called "bn", in double. */
typedef struct plain_norm {
    double weight[CHANNELS], bias[CHANNELS], mean[CHANNELS], variance[CHANNELS];
    double y[VALUES], dx[VALUES];
} plain_norm;

static void begin_plain(plain_norm *n)
{
    static const char *const names[] = {"bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"};
    double *const parts[] = {n->weight, n->bias, n->mean, n->variance};
    for (size_t k = 0; k < TRN_COUNT(names); k++) {
        float values[CHANNELS];
        trn_error err = {0};
        fill(NULL, names[k], &TRN_SHAPE(CHANNELS), values, &err);
        for (int c = 0; c < CHANNELS; c++)
            parts[k][c] = (double)values[c];
    }
}

static double mean_over(const double *x, const double *y, int c)
{
    double sum = 0;
    for (int b = 0; b < BATCH; b++)
        for (int p = 0; p < PLACES; p++) {
            int i = (b * CHANNELS + c) * PLACES + p;
            sum += x[i] * (y ? y[i] : 1);
        }
    return sum / (BATCH * PLACES);
}

/* y, dx of sum(y * seed), and one step of the running statistics */
static void step_plain(plain_norm *n, const float *x, const float *seed)
{
    static double centred[VALUES], dy[VALUES];
    const double count = BATCH * PLACES;
    for (int c = 0; c < CHANNELS; c++) {
        double mean = 0;
        for (int i = 0; i < VALUES; i++) {
            centred[i] = (double)x[i];
            dy[i] = (double)seed[i];
        }
        mean = mean_over(centred, NULL, c);
        for (int i = 0; i < VALUES; i++)
            centred[i] -= mean;
        double variance = mean_over(centred, centred, c), scale = 1 / sqrt(variance + EPS);
        double along = mean_over(dy, centred, c) * scale * scale, level = mean_over(dy, NULL, c);
        for (int i = 0; i < VALUES; i++) {
            if (i / PLACES % CHANNELS != c) continue;
            n->y[i] = centred[i] * scale * n->weight[c] + n->bias[c];
            n->dx[i] = n->weight[c] * scale * (dy[i] - level - centred[i] * along);
        }
        n->mean[c] += MOMENTUM * (mean - n->mean[c]);
        n->variance[c] += MOMENTUM * (variance * count / (count - 1) - n->variance[c]);
    }
}

static void test_batch_norm_trains(void **state)
{
    (void)state;
    static plain_norm plain;
    static float y[VALUES], dx[VALUES], statistics[CHANNELS];
    const trn_training training = {0};
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_scope scope = trn_scope_root(graph, &parameters);
    scope.training = &training;
    trn_graph_train(graph, all_learn, NULL);
    trn_graph_prefix(graph, "head.");
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(BATCH, CHANNELS, PLACES)), *gradient;
    trn_tensor *out = trn_nn_batch_norm(&scope, "bn", x, (float)EPS, (float)MOMENTUM);
    trn_tensor *seed = trn_input(graph, "seed", TRN_F32, TRN_SHAPE(BATCH, CHANNELS, PLACES));
    assert_trn_ok(trn_gradients(graph, out, seed, &x, 1, &gradient, &err), err);
    trn_output_add(graph, "y", out);
    trn_output_add(graph, "dx", gradient);
    trn_exec *exec = compiled(graph);
    begin_plain(&plain);
    for (int step = 0; step < 2; step++) {
        float *values = test_hash_values(step ? "x1" : "x0", VALUES, 2, 1);
        float *seeds = test_hash_values(step ? "s1" : "s0", VALUES, 1, 0);
        set(exec, "x", values);
        set(exec, "seed", seeds);
        run(exec);
        step_plain(&plain, values, seeds);
        get(exec, "y", y);
        get(exec, "dx", dx);
        assert_near(y, plain.y, VALUES, 2e-6);
        assert_near(dx, plain.dx, VALUES, 2e-6);
        get(exec, "head.bn.running_mean", statistics);
        assert_near(statistics, plain.mean, CHANNELS, 1e-6);
        get(exec, "head.bn.running_var", statistics);
        assert_near(statistics, plain.variance, CHANNELS, 1e-6);
        free(values);
        free(seeds);
    }
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

/* What learns are weight and bias alone; the running statistics are states beside them. */
static void test_batch_norm_states(void **state)
{
    (void)state;
    const trn_training moving = {0}, fixed = {.fixed_norm = true};
    const trn_training *const trainings[] = {&moving, &fixed, NULL};
    for (size_t k = 0; k < TRN_COUNT(trainings); k++) {
        trn_graph *graph = trn_graph_create();
        trn_scope scope = trn_scope_root(graph, &parameters);
        const char *name;
        size_t learning = 0, states = 0;
        scope.training = trainings[k];
        trn_graph_train(graph, all_learn, NULL);
        trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(BATCH, CHANNELS));
        assert_non_null(trn_nn_batch_norm(&scope, "bn", x, 1e-5F, 0.1F));
        for (; trn_graph_learning(graph, learning, &name); learning++)
            assert_null(strstr(name, "running"));
        while (trn_graph_state(graph, states, NULL))
            states++;
        assert_int_equal(learning, 2);
        assert_int_equal(states, 4);
        trn_graph_destroy(graph);
    }
}

/* A graph that evaluates takes its statistics from the one that trains. */
static void test_batch_norm_is_set(void **state)
{
    (void)state;
    static const float mean[] = {1, 2, 3, 4, 5}, variance[] = {4, 4, 4, 4, 4}, one[] = {1, 1, 1, 1, 1},
                       zero[CHANNELS];
    float x[2 * CHANNELS], y[2 * CHANNELS];
    trn_graph *graph = trn_graph_create();
    trn_scope scope = trn_scope_root(graph, &parameters);
    trn_graph_train(graph, all_learn, NULL);
    trn_graph_prefix(graph, "head.");
    trn_tensor *in = trn_input(graph, "x", TRN_F32, TRN_SHAPE(2, CHANNELS));
    trn_output_add(graph, "y", trn_nn_batch_norm(&scope, "bn", in, 0, 0.1F));
    trn_exec *exec = compiled(graph);
    set(exec, "head.bn.running_mean", mean);
    set(exec, "head.bn.running_var", variance);
    set(exec, "head.bn.weight", one);
    set(exec, "head.bn.bias", zero);
    for (int i = 0; i < 2 * CHANNELS; i++)
        x[i] = (float)(2 * i);
    set(exec, "x", x);
    run(exec);
    get(exec, "y", y);
    for (int i = 0; i < 2 * CHANNELS; i++)
        assert_true(fabsf(y[i] - (x[i] - mean[i % CHANNELS]) / 2) < 1e-6F);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

static void test_batch_norm_of_one_value(void **state)
{
    (void)state;
    const trn_training training = {0};
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_scope scope = trn_scope_root(graph, &parameters);
    scope.training = &training;
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(1, CHANNELS, 1, 1));
    assert_null(trn_nn_batch_norm(&scope, "bn", x, 1e-5F, 0.1F));
    assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err,
                     "bn.batch_norm: to train, it needs more than one value of each channel");
    trn_graph_destroy(graph);
}

/* ---- chance ---- */

enum { SAMPLES = 6, EACH = 4000 };
static const uint64_t SEED = 77;

typedef trn_tensor *(*dropping)(const trn_scope *scope, const char *name, trn_tensor *x, float rate);

/* y [samples, EACH] of ones, and the gradient of its sum; of samples `first` on, in step `step` */
static void drop(dropping how, const char *name, float rate, int first, int samples, int step, float *y,
                 float *dx)
{
    int32_t counters[2 * SAMPLES];
    float x[SAMPLES * EACH];
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_scope root = trn_scope_root(graph, &parameters), scope = trn_scope_enter(&root, "blocks.%d", 3);
    trn_training training = {.seed = SEED,
                             .counters = trn_input(graph, "counters", TRN_I32, TRN_SHAPE(samples, 2))};
    scope.training = &training;
    trn_tensor *in = trn_input(graph, "x", TRN_F32, TRN_SHAPE(samples, 8, EACH / 8)), *gradient;
    trn_tensor *out = how(&scope, name, in, rate);
    assert_trn_ok(trn_gradients(graph, out, NULL, &in, 1, &gradient, &err), err);
    trn_output_add(graph, "y", out);
    trn_output_add(graph, "dx", gradient);
    trn_exec *exec = compiled(graph);
    for (int b = 0; b < samples; b++) {
        counters[2 * b] = 100 + first + b;
        counters[2 * b + 1] = step;
    }
    for (int i = 0; i < samples * EACH; i++)
        x[i] = 1;
    set(exec, "counters", counters);
    set(exec, "x", x);
    run(exec);
    get(exec, "y", y);
    get(exec, "dx", dx);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

static float y[3][SAMPLES * EACH], dx[3][SAMPLES * EACH];
static const size_t WHOLE = sizeof y[0];

static void test_dropout(void **state)
{
    (void)state;
    const float rate = 0.3F, kept = 1 / (1 - rate);
    double sum = 0;
    drop(trn_nn_dropout, "drop", rate, 0, SAMPLES, 5, y[0], dx[0]);
    for (int i = 0; i < SAMPLES * EACH; i++) {
        assert_true(y[0][i] == 0 || fabsf(y[0][i] - kept) < 1e-6F);
        assert_true(dx[0][i] == y[0][i]); /* of ones: what is let through forwards is let through backwards */
        sum += (double)y[0][i];
    }
    /* five deviations of the mean of independent values */
    double deviation = sqrt((double)(rate / (1 - rate)) / (SAMPLES * EACH));
    assert_true(fabs(sum / (SAMPLES * EACH) - 1) < 5 * deviation);
    /* other steps, other places: about as many of the values differ as chance has it, 2 * rate * (1 - rate)
     */
    drop(trn_nn_dropout, "drop", rate, 0, SAMPLES, 6, y[1], dx[1]);
    drop(trn_nn_dropout, "other", rate, 0, SAMPLES, 5, y[2], dx[2]);
    for (int k = 1; k < 3; k++) {
        int differ = 0;
        for (int i = 0; i < SAMPLES * EACH; i++)
            differ += y[k][i] != y[0][i];
        assert_true(fabs((double)differ / (SAMPLES * EACH) - 0.42) < 0.02);
    }
}

/* The same bits, however the samples are dealt out to runs. */
static void check_splits(dropping how)
{
    drop(how, "drop", 0.5F, 0, SAMPLES, 9, y[0], dx[0]);
    drop(how, "drop", 0.5F, 0, 2, 9, y[1], dx[1]);
    drop(how, "drop", 0.5F, 2, SAMPLES - 2, 9, y[1] + 2 * EACH, dx[1] + 2 * EACH);
    assert_memory_equal(y[0], y[1], WHOLE);
    assert_memory_equal(dx[0], dx[1], WHOLE);
}

static void test_splits(void **state)
{
    (void)state;
    check_splits(trn_nn_dropout);
    check_splits(trn_nn_drop_path);
}

static void test_drop_path(void **state)
{
    (void)state;
    int dropped = 0, steps = 40;
    for (int step = 0; step < steps; step++) {
        drop(trn_nn_drop_path, "path", 0.4F, 0, SAMPLES, step, y[0], dx[0]);
        for (int b = 0; b < SAMPLES; b++) {
            const float *sample = y[0] + b * EACH;
            assert_true(sample[0] == 0 || fabsf(sample[0] - 1 / 0.6F) < 1e-6F);
            for (int i = 1; i < EACH; i++)
                assert_true(sample[i] == sample[0] && dx[0][b * EACH + i] == sample[0]);
            dropped += sample[0] == 0;
        }
    }
    double deviation = sqrt(0.4 * 0.6 / (steps * SAMPLES));
    assert_true(fabs((double)dropped / (steps * SAMPLES) - 0.4) < 4 * deviation);
}

/* An encoder may look at each sample as several rows: they share its fate. */
static void test_drop_path_of_rows(void **state)
{
    (void)state;
    enum { ROWS = 5 };
    int32_t counters[2 * SAMPLES];
    float values[SAMPLES * ROWS * 2], out[SAMPLES * ROWS * 2];
    trn_graph *graph = trn_graph_create();
    trn_scope scope = trn_scope_root(graph, &parameters);
    trn_training training = {.seed = 3,
                             .counters = trn_input(graph, "counters", TRN_I32, TRN_SHAPE(SAMPLES, 2))};
    scope.training = &training;
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(SAMPLES * ROWS, 2));
    trn_output_add(graph, "y", trn_nn_drop_path(&scope, "path", x, 0.5F));
    trn_exec *exec = compiled(graph);
    int dropped = 0;
    for (int i = 0; i < SAMPLES * ROWS * 2; i++)
        values[i] = 1;
    set(exec, "x", values);
    for (int step = 0; step < 4; step++) {
        for (int b = 0; b < SAMPLES; b++) {
            counters[2 * b] = b;
            counters[2 * b + 1] = step;
        }
        set(exec, "counters", counters);
        run(exec);
        get(exec, "y", out);
        for (int i = 0; i < SAMPLES * ROWS * 2; i++)
            assert_true(out[i] == out[i / (ROWS * 2) * ROWS * 2] && (out[i] == 0 || out[i] == 2));
        for (int b = 0; b < SAMPLES; b++)
            dropped += out[b * ROWS * 2] == 0;
    }
    assert_true(dropped > 0 && dropped < 4 * SAMPLES);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

/* Without training, and at a rate of 0, nothing is added. */
static void test_nothing_to_drop(void **state)
{
    (void)state;
    trn_graph *graph = trn_graph_create();
    trn_scope scope = trn_scope_root(graph, &parameters);
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(2, 3));
    trn_training training = {.counters = trn_input(graph, "counters", TRN_I32, TRN_SHAPE(2, 2)),
                             .drop_path = 0.5F};
    assert_true(trn_nn_dropout(&scope, "a", x, 0.5F) == x);
    assert_true(trn_nn_drop_path(&scope, "b", x, 0.5F) == x);
    assert_true(trn_drop_path_at(&scope, 4, 5) == 0);
    scope.training = &training;
    assert_true(trn_nn_dropout(&scope, "a", x, 0) == x);
    assert_true(trn_nn_block_dropout(&scope, "a", x) == x);
    assert_true(trn_drop_path_at(&scope, 0, 5) == 0);
    assert_true(trn_drop_path_at(&scope, 2, 5) == 0.25F);
    assert_true(trn_drop_path_at(&scope, 4, 5) == 0.5F);
    assert_true(trn_drop_path_at(&scope, 0, 1) == 0);
    trn_graph_destroy(graph);
}

static void test_bad_rates(void **state)
{
    (void)state;
    static const float rates[] = {-0.1F, 1, NAN};
    for (size_t i = 0; i <= TRN_COUNT(rates); i++) {
        bool rate = i < TRN_COUNT(rates);
        trn_error err = {0};
        trn_graph *graph = trn_graph_create();
        trn_scope scope = trn_scope_root(graph, &parameters);
        trn_training training = {.counters = trn_input(graph, "counters", TRN_I32, TRN_SHAPE(2, 2))};
        scope.training = &training;
        trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(rate ? 2 : 3, 3));
        assert_null(trn_nn_dropout(&scope, "drop", x, rate ? rates[i] : 0.5F));
        assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err,
                         rate ? "drop: a rate is at least 0 and below 1"
                              : "drop: [3,3] is not of the 2 samples that have counters");
        trn_graph_destroy(graph);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batch_norm_trains), cmocka_unit_test(test_batch_norm_states),
        cmocka_unit_test(test_batch_norm_is_set), cmocka_unit_test(test_batch_norm_of_one_value),
        cmocka_unit_test(test_dropout),           cmocka_unit_test(test_splits),
        cmocka_unit_test(test_drop_path),         cmocka_unit_test(test_drop_path_of_rows),
        cmocka_unit_test(test_nothing_to_drop),   cmocka_unit_test(test_bad_rates),
    };
    return cmocka_run_group_tests_name("training", tests, open_device, close_device);
}
