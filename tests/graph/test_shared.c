/* Weights that executables share: the bits of an executable with its own, one copy in device memory. */
#include "test_device.h"
#include "test_graph.h"
#include "test_support.h"

#include <stdlib.h>
#include <string.h>

#include "graph.h"

enum { C = 64, WIDE = 96 };

static double scale_of_parameters = 0.2, another_scale = 0.3;

/* Linear layers of `width` by `width`, the first by a matrix that is itself computed from a parameter. */
static trn_graph *net(int64_t batch, int64_t width, double *scale)
{
    trn_graph *graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(batch, width));
    trn_tensor *first = trn_param(graph, "first", TRN_SHAPE(width, width), test_fill, scale);
    trn_tensor *second = trn_param(graph, "second", TRN_SHAPE(width, width), test_fill, scale);
    trn_tensor *bias = trn_param(graph, "bias", TRN_SHAPE(width), test_fill, scale);
    x = trn_unary(graph, "gelu", trn_linear(graph, x, trn_permute(graph, first, (int[]){1, 0}), bias));
    trn_output_add(graph, "y", trn_linear(graph, x, second, NULL));
    return graph;
}

typedef struct run {
    trn_graph *graph;
    trn_exec *exec;
} run;

static run compiled(int64_t batch, int64_t width, double *scale, const trn_compile_options *options)
{
    trn_error err = {0};
    run r = {.graph = net(batch, width, scale)};
    assert_trn_ok(trn_compile(r.graph, gpu, options, &r.exec, &err), err);
    return r;
}

static void done(run *r)
{
    trn_exec_destroy(r->exec);
    trn_graph_destroy(r->graph);
}

/* The same bits as with weights of its own. */
static void assert_right(const run *r, int64_t batch, int64_t width, double *scale, trn_precision precision)
{
    trn_error err = {0};
    size_t count = (size_t)(batch * width);
    float *x = test_hash_values("x", count, 1, 0), *y[2];
    run own = compiled(batch, width, scale, &(trn_compile_options){.precision = precision});
    trn_exec *execs[] = {own.exec, r->exec};
    for (int i = 0; i < 2; i++) {
        y[i] = calloc(count, sizeof(float));
        assert_trn_ok(trn_exec_set(execs[i], "x", x, &err), err);
        assert_trn_ok(trn_exec_run(execs[i], NULL, &err), err);
        assert_trn_ok(trn_exec_get(execs[i], "y", y[i], &err), err);
    }
    assert_memory_equal(y[0], y[1], count * sizeof(float));
    free(x);
    free(y[0]);
    free(y[1]);
    done(&own);
}

static void one_copy_for_all_batches(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_shared_weights *shared;
    assert_trn_ok(trn_shared_weights_create(gpu, &shared, &err), err);
    const trn_compile_options options = {.shared = shared};
    run eight = compiled(8, C, &scale_of_parameters, &options);
    trn_exec_summary first = trn_exec_summarize(eight.exec);
    assert_int_equal(first.shared_bytes, 0);
    assert_true(first.setup_dispatches > 0);
    run one = compiled(8, C, &scale_of_parameters, &options);
    trn_exec_summary second = trn_exec_summarize(one.exec);
    assert_int_equal(second.weight_bytes, first.weight_bytes);
    assert_int_equal(second.shared_bytes, first.weight_bytes);
    assert_int_equal(second.loading_bytes, 0);
    assert_int_equal(second.setup_dispatches, 0);
    assert_right(&one, 8, C, &scale_of_parameters, TRN_PRECISION_FLOAT32);
    done(&one);
    run three = compiled(3, C, &scale_of_parameters, &options);
    assert_true(trn_exec_summarize(three.exec).shared_bytes > 0);
    done(&eight); /* the others go on */
    assert_right(&three, 3, C, &scale_of_parameters, TRN_PRECISION_FLOAT32);
    done(&three);
    trn_shared_weights_destroy(shared);
}

/* Other numbers, other shapes and other ways to store them are other weights. */
static void what_differs_is_not_shared(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_shared_weights *shared;
    assert_trn_ok(trn_shared_weights_create(gpu, &shared, &err), err);
    trn_compile_options options = {.shared = shared};
    run kept = compiled(8, C, &scale_of_parameters, &options);
    run wide = compiled(8, WIDE, &scale_of_parameters, &options);
    run other = compiled(8, C, &another_scale, &options);
    assert_int_equal(trn_exec_summarize(wide.exec).shared_bytes, 0);
    assert_int_equal(trn_exec_summarize(other.exec).shared_bytes, 0);
    assert_right(&wide, 8, WIDE, &scale_of_parameters, TRN_PRECISION_FLOAT32);
    assert_right(&other, 8, C, &another_scale, TRN_PRECISION_FLOAT32);
    if (trn_gpu_info(gpu)->storage16) {
        options.precision = TRN_PRECISION_FLOAT16;
        run half = compiled(8, C, &scale_of_parameters, &options);
        assert_right(&half, 8, C, &scale_of_parameters, TRN_PRECISION_FLOAT16);
        done(&half);
    }
    assert_right(&kept, 8, C, &scale_of_parameters, TRN_PRECISION_FLOAT32);
    done(&other);
    done(&wide);
    done(&kept);
    trn_shared_weights_destroy(shared);
}

/* Bytes of device memory, as they are counted: matrices this large have blocks of their own. */
static void memory_is_taken_once(void **state)
{
    (void)state;
    enum { LARGE = 2304 };
    const uint64_t matrix = (uint64_t)LARGE * LARGE * 4;
    trn_error err = {0};
    trn_gpu *before = gpu;
    trn_shared_weights *shared;
    assert_trn_ok(trn_gpu_open(NULL, &gpu, &err), err);
    assert_trn_ok(trn_shared_weights_create(gpu, &shared, &err), err);
    const trn_compile_options options = {.shared = shared};
    run first = compiled(16, LARGE, &scale_of_parameters, &options);
    trn_gpu_stats one = trn_gpu_get_stats(gpu);
    assert_true(one.memory_bytes >= 2 * matrix);
    run second = compiled(16, LARGE, &scale_of_parameters, &options);
    trn_gpu_stats both = trn_gpu_get_stats(gpu);
    assert_true(both.memory_bytes - one.memory_bytes < matrix / 2);
    assert_int_equal(both.memory_peak, TRN_MAX(one.memory_peak, both.memory_bytes));
    run apart = compiled(16, LARGE, &scale_of_parameters, NULL); /* what it would be otherwise */
    assert_true(trn_gpu_get_stats(gpu).memory_bytes - both.memory_bytes >= 2 * matrix);
    done(&apart);
    /* idle weights wait for the next executable, and give way to another's */
    done(&first);
    done(&second);
    assert_true(trn_gpu_get_stats(gpu).memory_bytes >= 2 * matrix);
    run again = compiled(16, LARGE, &scale_of_parameters, &options);
    assert_true(trn_exec_summarize(again.exec).shared_bytes >= 2 * matrix);
    done(&again);
    run other = compiled(16, LARGE, &another_scale, &options);
    assert_int_equal(trn_exec_summarize(other.exec).shared_bytes, 0);
    assert_true(trn_gpu_get_stats(gpu).memory_bytes < 3 * matrix);
    done(&other);
    trn_shared_weights_destroy(shared);
    assert_true(trn_gpu_get_stats(gpu).memory_bytes < matrix);
    trn_gpu_close(gpu);
    gpu = before;
}

static void plans_count_what_is_shared(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_shared_weights *shared;
    assert_trn_ok(trn_shared_weights_create(gpu, &shared, &err), err);
    const trn_compile_options plan = {.shared = shared, .plan_only = true}, real = {.shared = shared};
    run first = compiled(8, C, &scale_of_parameters, &plan),
        second = compiled(8, C, &scale_of_parameters, &plan);
    assert_int_equal(trn_exec_summarize(first.exec).shared_bytes, 0);
    assert_int_equal(trn_exec_summarize(second.exec).shared_bytes,
                     trn_exec_summarize(second.exec).weight_bytes);
    run there = compiled(8, C, &scale_of_parameters, &real); /* a plan has no memory */
    assert_int_equal(trn_exec_summarize(there.exec).shared_bytes, 0);
    assert_right(&there, 8, C, &scale_of_parameters, TRN_PRECISION_FLOAT32);
    done(&first);
    done(&second);
    done(&there);
    trn_shared_weights_destroy(shared);
}

static void other_devices_are_refused(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_gpu *other;
    trn_shared_weights *shared;
    trn_exec *exec;
    trn_graph *graph = net(8, C, &scale_of_parameters);
    assert_trn_ok(trn_gpu_open(NULL, &other, &err), err);
    assert_trn_ok(trn_shared_weights_create(other, &shared, &err), err);
    assert_trn_fails(trn_compile(graph, gpu, &(trn_compile_options){.shared = shared}, &exec, &err),
                     TRN_ERR_ARGUMENT, err, "another device");
    assert_null(exec);
    trn_graph_destroy(graph);
    trn_shared_weights_destroy(shared);
    trn_gpu_close(other);
}

/* Without memory at any moment: an error, and what was shared before is as it was. */
static void failures_leave_the_rest(void **state)
{
    (void)state;
    int failed = 0;
    for (int n = 2; n < 8; n++) {
        trn_error err = {0};
        trn_gpu *weak, *before = gpu;
        trn_shared_weights *shared;
        trn_exec *exec;
        assert_trn_ok(trn_gpu_open(&(trn_gpu_options){.fail_allocation = n}, &weak, &err), err);
        gpu = weak;
        assert_trn_ok(trn_shared_weights_create(gpu, &shared, &err), err);
        const trn_compile_options options = {.shared = shared};
        run first = compiled(8, C, &scale_of_parameters, &options);
        trn_graph *graph = net(4, 2304, &scale_of_parameters);
        trn_status status = trn_compile(graph, gpu, &options, &exec, &err);
        failed += status != TRN_OK;
        assert_true(status == TRN_OK || status == TRN_ERR_MEMORY);
        assert_right(&first, 8, C, &scale_of_parameters, TRN_PRECISION_FLOAT32);
        trn_exec_destroy(exec);
        trn_graph_destroy(graph);
        done(&first);
        trn_shared_weights_destroy(shared);
        trn_gpu_close(weak);
        gpu = before;
    }
    assert_true(failed > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_copy_for_all_batches),  cmocka_unit_test(what_differs_is_not_shared),
        cmocka_unit_test(memory_is_taken_once),      cmocka_unit_test(plans_count_what_is_shared),
        cmocka_unit_test(other_devices_are_refused), cmocka_unit_test(failures_leave_the_rest),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
