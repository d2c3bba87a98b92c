/* The choice of kernels: by default, by name, by what was measured; and the tuner that measures. */
#include "test_device.h"
#include "test_support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exec.h"

enum { ROWS = 37, WIDTH = 48, OUT = 40 };

static trn_status fill(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    (void)user, (void)name, (void)err;
    for (int64_t i = 0; i < trn_shape_count(shape); i++)
        ((float *)out)[i] = (float)(i % 13 - 6) / 7;
    return TRN_OK;
}

/* Two equal products and a different one. */
static trn_graph *make_graph(void)
{
    trn_graph *graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(ROWS, WIDTH));
    trn_tensor *w = trn_param(graph, "w", TRN_SHAPE(WIDTH, WIDTH), fill, NULL);
    trn_tensor *v = trn_param(graph, "v", TRN_SHAPE(OUT, WIDTH), fill, NULL);
    x = trn_linear(graph, x, w, NULL);
    x = trn_linear(graph, x, w, NULL);
    trn_output_add(graph, "y", trn_linear(graph, x, v, NULL));
    return graph;
}

/* ---- what each test begins with: a device that knows no measurements, and the graph ---- */

static trn_graph *graph;

static int set_up(void **state)
{
    if (open_device(state)) return -1;
    trn_tune_clear(gpu);
    graph = make_graph();
    return 0;
}

static int tear_down(void **state)
{
    trn_graph_destroy(graph);
    trn_tune_clear(gpu);
    return close_device(state);
}

/* As another process would find it. */
static void open_device_again(void)
{
    assert_int_equal(close_device(NULL), 0);
    assert_int_equal(open_device(NULL), 0);
}

static trn_exec *compile_graph(trn_graph *of, const char *kernel)
{
    trn_exec *exec;
    trn_error err = {0};
    trn_compile_options options = {.plan_only = true, .kernel = kernel};
    assert_trn_ok(trn_compile(of, gpu, &options, &exec, &err), err);
    return exec;
}

static trn_exec *compile(const char *kernel)
{
    return compile_graph(graph, kernel);
}

/* The choice of node i, which must be one between several. */
static const trn_choice *choice_at(const trn_exec *exec, size_t i)
{
    assert_true(i < exec->lower.choice_count);
    assert_true(exec->lower.choices[i].count > 1);
    return &exec->lower.choices[i];
}

static const char *chosen_name(const trn_exec *exec, size_t i)
{
    const trn_choice *choice = choice_at(exec, i);
    return choice->candidates[choice->chosen].name;
}

static char *explain(const trn_exec *exec)
{
    trn_text text = {0};
    trn_exec_explain(exec, &text);
    assert_false(text.failed);
    return text.data;
}

/* Seconds for the candidates of the choice: `slow` for all but one. */
static void pretend(const trn_choice *choice, int fast, double seconds, double slow)
{
    for (int i = 0; i < choice->count; i++)
        trn_gpu_tuning_set(gpu, choice->keys[i], i == fast ? seconds : slow);
}

static int last_rival(const trn_choice *choice)
{
    for (int i = choice->count - 1; i > 0; i--) {
        if (!choice->candidates[i].hopeless) return i;
    }
    return 0;
}

static void the_default_runs_where_nothing_was_measured(void **state)
{
    (void)state;
    trn_exec *exec = compile(NULL);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(choice_at(exec, i)->chosen, 0);
    char *text = explain(exec);
    assert_non_null(strstr(text, "not measured here"));
    free(text);
    trn_exec_destroy(exec);
}

static void a_kernel_that_is_asked_for_runs(void **state)
{
    (void)state;
    trn_exec *plain = compile("");
    const trn_choice *offered = choice_at(plain, 0);
    const char *last = offered->candidates[offered->count - 1].name;
    trn_exec *exec = compile(last);
    assert_string_equal(chosen_name(exec, 0), last);
    char *text = explain(exec);
    assert_non_null(strstr(text, "asked for"));
    assert_non_null(strstr(text, last));
    free(text);
    trn_exec *unknown = compile("no such kernel");
    assert_int_equal(choice_at(unknown, 0)->chosen, 0);
    trn_exec_destroy(unknown);
    trn_exec_destroy(exec);
    trn_exec_destroy(plain);
}

/* Measurements that were made up decide, also in another process (the device is opened anew). */
static void the_fastest_that_was_measured_runs(void **state)
{
    (void)state;
    trn_exec *exec = compile(NULL);
    const trn_choice *choice = choice_at(exec, 2);
    int rival = last_rival(choice);
    assert_true(rival > 0);
    char name[64];
    snprintf(name, sizeof name, "%s", choice->candidates[rival].name);
    pretend(choice, rival, 0.001, 0.002);
    pretend(choice_at(exec, 0), last_rival(choice_at(exec, 0)), 0.00099, 0.001); /* no gain to speak of */
    trn_exec_destroy(exec);
    open_device_again();

    exec = compile(NULL);
    assert_string_equal(chosen_name(exec, 2), name);
    assert_int_equal(choice_at(exec, 0)->chosen, 0);
    assert_int_equal(choice_at(exec, 1)->chosen, 0);
    char *text = explain(exec), wanted[128];
    snprintf(wanted, sizeof wanted, "variant %s (measured 1 ms; ", name);
    assert_non_null(strstr(text, wanted));
    assert_non_null(strstr(text, "2 ms"));
    free(text);
    trn_exec *plain = compile("");
    assert_int_equal(choice_at(plain, 2)->chosen, 0);
    trn_exec_destroy(plain);
    trn_exec_destroy(exec);
    assert_true(trn_tune_clear(gpu) > 0);
    exec = compile(NULL);
    assert_int_equal(choice_at(exec, 2)->chosen, 0);
    trn_exec_destroy(exec);
    open_device_again();
    assert_int_equal(trn_tune_clear(gpu), 0); /* the file has forgotten them, too */
}

/* Numbers that no measurement gives are misses. */
static void nonsense_in_the_store_is_a_miss(void **state)
{
    (void)state;
    static const double nonsense[] = {0, -1, NAN, INFINITY};
    for (size_t i = 0; i < TRN_COUNT(nonsense); i++) {
        trn_exec *exec = compile(NULL);
        const trn_choice *choice = choice_at(exec, 2);
        pretend(choice, last_rival(choice), nonsense[i], 0.001);
        trn_exec_destroy(exec);
        exec = compile(NULL);
        assert_int_equal(choice_at(exec, 2)->chosen, 0);
        trn_exec_destroy(exec);
    }
}

static void damage_tuning_files(void)
{
    trn_error err = {0};
    char *folder = trn_cache_dir("tuning", &err), *output, command[4096];
    assert_non_null(folder);
    snprintf(command, sizeof command,
             "for f in '%s'/*; do head -c 40 \"$f\" > x && echo junk >> x && mv x \"$f\"; done", folder);
    assert_int_equal(test_run(command, &output), 0);
    free(output);
    free(folder);
}

static void a_damaged_store_is_a_miss(void **state)
{
    (void)state;
    trn_exec *exec = compile(NULL);
    const trn_choice *choice = choice_at(exec, 2);
    pretend(choice, last_rival(choice), 0.001, 0.002);
    trn_exec_destroy(exec);
    assert_int_equal(close_device(NULL), 0);
    damage_tuning_files();
    assert_int_equal(open_device(NULL), 0);
    exec = compile(NULL);
    assert_int_equal(choice_at(exec, 2)->chosen, 0);
    trn_exec_destroy(exec);
}

static void keys_tell_nodes_apart_and_stay(void **state)
{
    (void)state;
    trn_graph *two = make_graph();
    trn_exec *first = compile(NULL), *second = compile_graph(two, "");
    for (size_t i = 0; i < 3; i++) {
        const trn_choice *a = choice_at(first, i), *b = choice_at(second, i);
        assert_int_equal(a->count, b->count);
        for (int c = 0; c < a->count; c++) {
            assert_string_equal(a->keys[c], b->keys[c]);
            for (int d = 0; d < c; d++)
                assert_string_not_equal(a->keys[c], a->keys[d]);
        }
    }
    assert_string_equal(choice_at(first, 0)->keys[0], choice_at(first, 1)->keys[0]);
    assert_string_not_equal(choice_at(first, 0)->keys[0], choice_at(first, 2)->keys[0]);
    uint64_t hash = trn_gpu_shader_hash(choice_at(first, 0)->candidates[0].shader);
    char text[32];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    assert_true(hash != 0);
    assert_non_null(strstr(choice_at(first, 0)->keys[0], text));
    assert_true(hash != trn_gpu_shader_hash("matmul_reduce.comp"));
    assert_true(trn_gpu_shader_hash("no_such.comp") == 0);
    trn_exec_destroy(first);
    trn_exec_destroy(second);
    trn_graph_destroy(two);
}

/* ---- tuning ---- */

typedef struct tuned_log {
    int reports;
    size_t nodes;
    bool stop, stop_then; /* at once; after the first report */
} tuned_log;

static void log_tuned(void *user, const trn_tuned *tuned)
{
    tuned_log *log = user;
    log->reports++;
    log->nodes += tuned->nodes;
    log->stop |= log->stop_then;
    assert_string_equal(tuned->op, "matmul");
    assert_true(tuned->count > 1 && tuned->chosen < tuned->count);
    assert_true(tuned->candidates[0].seconds > 0);
    assert_true(tuned->candidates[tuned->chosen].seconds > 0);
    for (int i = 0; i < tuned->count; i++) {
        if (tuned->candidates[i].problem[0])
            fail_msg("%s: %s", tuned->candidates[i].name, tuned->candidates[i].problem);
    }
}

static bool stopped(void *user)
{
    return ((const tuned_log *)user)->stop;
}

static trn_status tune(trn_precision precision, tuned_log *log, trn_tune_summary *summary, trn_error *err)
{
    trn_tuner *tuner;
    trn_exec *exec;
    trn_compile_options compile_options = {.plan_only = true, .precision = precision};
    trn_tune_options options = {
        .seconds = 600, .report = log_tuned, .user = log, .progress = {.cancelled = stopped, .user = log}};
    assert_trn_ok(trn_tuner_create(gpu, &options, &tuner, err), *err);
    assert_trn_ok(trn_compile(graph, gpu, &compile_options, &exec, err), *err);
    assert_trn_ok(trn_tuner_add(tuner, exec, err), *err);
    trn_exec_destroy(exec);
    trn_status status = trn_tuner_run(tuner, summary, err);
    trn_tuner_destroy(tuner);
    return status;
}

static void tuning_measures_what_differs_once(void **state)
{
    (void)state;
    trn_tune_summary summary;
    trn_error err = {0};
    tuned_log log = {0};
    assert_trn_ok(tune(TRN_PRECISION_FLOAT32, &log, &summary, &err), err);
    assert_int_equal(summary.nodes, 3);
    assert_int_equal(summary.distinct, 2);
    assert_int_equal(summary.measured, 2);
    assert_int_equal(log.reports, 2);
    assert_int_equal(log.nodes, 3);
    assert_true(summary.chosen_seconds > 0 && summary.chosen_seconds <= summary.default_seconds);
    trn_exec *exec = compile(NULL);
    for (size_t i = 0; i < 3; i++) {
        const trn_choice *choice = choice_at(exec, i);
        assert_true(choice->seconds[0] > 0);
        assert_int_equal(choice->chosen, trn_choose_fastest(choice->seconds, choice->count));
    }
    trn_exec_destroy(exec);
    /* again: measured anew, not taken from the store */
    assert_trn_ok(tune(TRN_PRECISION_FLOAT32, &log, &summary, &err), err);
    assert_int_equal(summary.measured, 2);
    assert_true(trn_tune_clear(gpu) >= 4);
}

/* Values that are stored as float16 are so for the node alone, too: else it could not be measured. */
static void tuning_knows_float16(void **state)
{
    (void)state;
    trn_tune_summary summary;
    trn_error err = {0};
    tuned_log log = {0};
    assert_true(trn_gpu_info(gpu)->storage16);
    assert_trn_ok(tune(TRN_PRECISION_FLOAT16, &log, &summary, &err), err);
    assert_true(summary.distinct > 0);
    assert_int_equal(summary.measured, summary.distinct);
}

static void cancelled_tuning_says_so(void **state)
{
    (void)state;
    trn_tune_summary summary;
    trn_error err = {0};
    tuned_log log = {.stop = true};
    assert_trn_fails(tune(TRN_PRECISION_FLOAT32, &log, &summary, &err), TRN_ERR_CANCELLED, err, "tuning");
    assert_int_equal(log.reports, 0);
}

/* Ctrl-C in the middle: the node that was measured is chosen by it, the other is not. */
static void cancelled_tuning_keeps_what_it_has(void **state)
{
    (void)state;
    trn_tune_summary summary;
    trn_error err = {0};
    tuned_log log = {.stop_then = true};
    assert_trn_fails(tune(TRN_PRECISION_FLOAT32, &log, &summary, &err), TRN_ERR_CANCELLED, err, "tuning");
    assert_int_equal(log.reports, 1);
    assert_int_equal(summary.measured, 1);
    open_device_again();
    trn_exec *exec = compile(NULL);
    bool first = choice_at(exec, 0)->seconds[0] > 0, last = choice_at(exec, 2)->seconds[0] > 0;
    assert_true(first != last);
    trn_exec_destroy(exec);
}

static void the_fastest_needs_a_gain_beyond_noise(void **state)
{
    (void)state;
    assert_int_equal(trn_choose_fastest((double[]){1, 0.5, 0.4}, 3), 2);
    assert_int_equal(trn_choose_fastest((double[]){1, 0.98, 0}, 3), 0);
    assert_int_equal(trn_choose_fastest((double[]){1, 0, 0.9}, 3), 2);
    assert_int_equal(trn_choose_fastest((double[]){1, 2, 3}, 3), 0);
}

#define TUNE_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    /* a cache of its own: other programs run beside it */
    setenv("XDG_CACHE_HOME", test_temp_dir(), 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fastest_needs_a_gain_beyond_noise),
        TUNE_TEST(the_default_runs_where_nothing_was_measured),
        TUNE_TEST(a_kernel_that_is_asked_for_runs),
        TUNE_TEST(the_fastest_that_was_measured_runs),
        TUNE_TEST(nonsense_in_the_store_is_a_miss),
        TUNE_TEST(a_damaged_store_is_a_miss),
        TUNE_TEST(keys_tell_nodes_apart_and_stay),
        TUNE_TEST(tuning_measures_what_differs_once),
        TUNE_TEST(tuning_knows_float16),
        TUNE_TEST(cancelled_tuning_says_so),
        TUNE_TEST(cancelled_tuning_keeps_what_it_has),
    };
    return cmocka_run_group_tests_name("tune", tests, NULL, NULL);
}
