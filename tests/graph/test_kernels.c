/* The list of kernels that a graph would run: the defaults, what could be chosen instead, and what is told of
 * them. */
#include "test_support.h"

#include <stdlib.h>
#include <string.h>

#include "exec.h"

enum { ROWS = 37, WIDTH = 48, MOST = 64 };

typedef struct found {
    trn_gpu *gpu;
    uint64_t hashes[MOST];
    const trn_kernel *kernels[MOST];
    bool is_default[MOST];
    size_t count;
    bool compiles;
} found;

static trn_status keep(void *user, const trn_listed_kernel *listed, trn_error *err)
{
    found *f = user;
    assert_non_null(listed->op);
    assert_non_null(listed->label);
    assert_true(trn_ends_with(listed->shader, ".comp"));
    const trn_kernel *kernel = NULL;
    if (f->compiles) {
        trn_status status = trn_listed_compile(listed, f->gpu, &kernel, err);
        if (status != TRN_OK) return status;
    }
    for (size_t i = 0; i < f->count; i++) {
        if (f->hashes[i] != listed->hash) continue;
        assert_ptr_equal(f->kernels[i], kernel);
        f->is_default[i] |= listed->is_default;
        return TRN_OK;
    }
    assert_true(f->count < MOST);
    f->hashes[f->count] = listed->hash;
    f->kernels[f->count] = kernel;
    f->is_default[f->count++] = listed->is_default;
    return TRN_OK;
}

static trn_status fill(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    (void)user, (void)name, (void)err;
    memset(out, 0, (size_t)trn_shape_count(shape) * sizeof(float));
    return TRN_OK;
}

static trn_graph *make_graph(void)
{
    trn_graph *graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(ROWS, WIDTH));
    trn_tensor *w = trn_param(graph, "w", TRN_SHAPE(WIDTH, WIDTH), fill, NULL);
    x = trn_unary(graph, "gelu", trn_linear(graph, x, w, NULL));
    trn_output_add(graph, "y", trn_softmax(graph, x));
    return graph;
}

static void list(trn_gpu *gpu, bool candidates, bool compiles, found *out)
{
    trn_error err = {0};
    *out = (found){.gpu = gpu, .compiles = compiles};
    trn_graph *graph = make_graph();
    const trn_kernel_list_options options = {
        .candidates = candidates, .training = true, .report = keep, .user = out};
    assert_trn_ok(trn_graph_kernels(graph, gpu, &options, &err), err);
    trn_graph_destroy(graph);
}

static bool has(const found *f, uint64_t hash, bool as_default)
{
    for (size_t i = 0; i < f->count; i++)
        if (f->hashes[i] == hash) return !as_default || f->is_default[i];
    return false;
}

static trn_gpu *open_gpu(void)
{
    trn_gpu *gpu;
    trn_error err = {0};
    assert_trn_ok(trn_gpu_open(NULL, &gpu, &err), err);
    return gpu;
}

static void test_defaults_are_what_runs(void **state)
{
    (void)state;
    trn_gpu *gpu = open_gpu();
    found f;
    trn_exec *exec;
    trn_error err = {0};
    list(gpu, false, false, &f);
    trn_graph *graph = make_graph();
    const trn_compile_options options = {.plan_only = true, .kernel = ""};
    assert_trn_ok(trn_compile(graph, gpu, &options, &exec, &err), err);
    assert_int_equal(f.count, trn_exec_summarize(exec).kernels);
    for (size_t s = 0; s < exec->lower.step_count; s++) {
        const trn_lowered_step *step = &exec->lower.steps[s];
        assert_true(has(&f, trn_kernel_hash(&step->step, step->generated), true));
    }
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
    trn_gpu_close(gpu);
}

/* The store says that every other candidate is faster than the default. */
static void test_measurements_do_not_matter(void **state)
{
    (void)state;
    trn_gpu *gpu = open_gpu();
    found before, after;
    trn_exec *exec, *tuned;
    trn_error err = {0};
    bool changed = false;
    trn_graph *graph = make_graph();
    const trn_compile_options options = {.plan_only = true, .kernel = ""}, free_choice = {.plan_only = true};
    list(gpu, false, false, &before);
    assert_trn_ok(trn_compile(graph, gpu, &options, &exec, &err), err);
    for (size_t c = 0; c < exec->lower.choice_count; c++)
        for (int i = 0; i < exec->lower.choices[c].count; i++)
            trn_gpu_tuning_set(gpu, exec->lower.choices[c].keys[i], i ? 1e-3 : 1);
    assert_trn_ok(trn_compile(graph, gpu, &free_choice, &tuned, &err), err);
    for (size_t c = 0; c < tuned->lower.choice_count; c++)
        changed = changed || tuned->lower.choices[c].chosen > 0;
    assert_true(changed);
    list(gpu, false, false, &after);
    assert_int_equal(before.count, after.count);
    for (size_t i = 0; i < before.count; i++)
        assert_true(has(&after, before.hashes[i], true));
    trn_tune_clear(gpu);
    trn_exec_destroy(tuned);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
    trn_gpu_close(gpu);
}

static void test_candidates_are_more(void **state)
{
    (void)state;
    trn_gpu *gpu = open_gpu();
    found defaults, all;
    list(gpu, false, false, &defaults);
    list(gpu, true, true, &all);
    assert_true(all.count >= defaults.count);
    for (size_t i = 0; i < defaults.count; i++)
        assert_true(has(&all, defaults.hashes[i], true));
    for (size_t i = 0; i < all.count; i++) {
        assert_non_null(all.kernels[i]);
        assert_int_equal(all.is_default[i], has(&defaults, all.hashes[i], true));
    }
    trn_gpu_close(gpu);
}

/* What a report fails with ends the list. */
static trn_status refuse(void *user, const trn_listed_kernel *listed, trn_error *err)
{
    int *calls = user;
    (*calls)++;
    return trn_fail(err, TRN_ERR_IO, "no more of %s", listed->op);
}

static void test_report_fails(void **state)
{
    (void)state;
    trn_gpu *gpu = open_gpu();
    trn_graph *graph = make_graph();
    trn_error err = {0};
    int calls = 0;
    const trn_kernel_list_options options = {.report = refuse, .user = &calls};
    assert_int_equal(trn_graph_kernels(graph, gpu, &options, &err), TRN_ERR_IO);
    assert_non_null(strstr(err.message, "no more of"));
    assert_int_equal(calls, 1);
    trn_graph_destroy(graph);
    trn_gpu_close(gpu);
}

/* A driver tells of its kernels, or says that it does not. */
static void test_statistics(void **state)
{
    (void)state;
    trn_gpu *gpu;
    trn_error err = {0};
    const trn_gpu_options options = {.statistics = true};
    trn_status status = trn_gpu_open(&options, &gpu, &err);
    if (status != TRN_OK) {
        assert_int_equal(status, TRN_ERR_UNSUPPORTED);
        assert_non_null(strstr(err.message, "VK_KHR_pipeline_executable_properties"));
        gpu = open_gpu(); /* which must be asked to tell */
    }
    found f;
    list(gpu, false, true, &f);
    trn_kernel_statistic *statistics;
    size_t count;
    trn_status told = trn_gpu_kernel_statistics(gpu, f.kernels[0], &statistics, &count, &err);
    assert_int_equal(told, status == TRN_OK ? TRN_OK : TRN_ERR_ARGUMENT);
    assert_int_equal(count > 0, status == TRN_OK);
    free(statistics);
    trn_gpu_close(gpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_are_what_runs),
        cmocka_unit_test(test_measurements_do_not_matter),
        cmocka_unit_test(test_candidates_are_more),
        cmocka_unit_test(test_report_fails),
        cmocka_unit_test(test_statistics),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
