/* Building, fusing, planning and executing graphs. */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph_internal.h"

static trn_gpu *gpu;

static int open_device(void **state)
{
    (void)state;
    trn_error err = {0};
    if (trn_gpu_open(NULL, &gpu, &err) == TRN_OK) return 0;
    fprintf(stderr, "%s\n", err.message);
    return -1;
}

static int close_device(void **state)
{
    (void)state;
    int messages = (int)trn_gpu_get_stats(gpu).validation_messages;
    trn_gpu_close(gpu);
    return messages;
}

static void building_keeps_the_first_error(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(2, 3));
    trn_graph_scope(graph, "blocks.1.");
    trn_tensor *bad = trn_add(graph, x, trn_input(graph, "y", TRN_F32, TRN_SHAPE(4)));
    assert_null(bad);
    assert_null(trn_unary(graph, "gelu", bad)); /* NULL flows through */
    assert_null(trn_reshape(graph, x, TRN_SHAPE(7)));
    assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err,
                     "blocks.1.add: shapes [2,3] and [4]");
    trn_exec *exec;
    assert_int_equal(trn_compile(graph, gpu, NULL, &exec, &err), TRN_ERR_ARGUMENT);
    trn_graph_destroy(graph);
}

static void impossible_shapes_are_refused(void **state)
{
    (void)state;
    trn_error err = {0};
    const struct {
        trn_shape shape;
    } bad[] = {{TRN_SHAPE(0, 3)}, {TRN_SHAPE(65536, 65536)}, {TRN_SHAPE(-4)}, {TRN_SHAPE(INT64_MAX, 8)}};
    for (size_t i = 0; i < TRN_COUNT(bad); i++) {
        trn_graph *graph = trn_graph_create();
        assert_null(trn_input(graph, "x", TRN_F32, bad[i].shape));
        assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, "elements");
        trn_graph_destroy(graph);
    }
    trn_graph *graph = trn_graph_create();
    trn_exec *exec;
    assert_trn_fails(trn_compile(graph, gpu, NULL, &exec, &err), TRN_ERR_ARGUMENT, err, "no output");
    trn_graph_destroy(graph);
}

/* x + gamma * (gelu(x w1 + b1) w2 + b2): two products take in all pointwise work. */
static trn_graph *mlp_graph(int rows)
{
    trn_graph *graph = trn_graph_create();
    float *w = test_hash_values("w", 48 * 24, 0.3, 0);
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(rows, 24));
    trn_tensor *h = trn_linear(graph, x, trn_constant(graph, "w1", TRN_SHAPE(48, 24), w),
                               trn_constant(graph, "b1", TRN_SHAPE(48), w));
    h = trn_unary(graph, "gelu", h);
    h = trn_linear(graph, h, trn_constant(graph, "w2", TRN_SHAPE(24, 48), w),
                   trn_constant(graph, "b2", TRN_SHAPE(24), w));
    h = trn_mul(graph, h, trn_constant(graph, "gamma", TRN_SHAPE(24), w));
    trn_output_add(graph, "y", trn_add(graph, x, h));
    free(w);
    return graph;
}

static float *run(trn_graph *graph, const trn_compile_options *options, const char *output, int64_t count)
{
    trn_error err = {0};
    trn_exec *exec;
    assert_trn_ok(trn_compile(graph, gpu, options, &exec, &err), err);
    float *y = malloc((size_t)count * sizeof *y);
    for (size_t i = 0; i < graph->tensor_count; i++) {
        const trn_tensor *tensor = graph->tensors[i];
        if (!tensor->is_input) continue;
        float *x = test_hash_values(tensor->name, tensor->count, 1, 0);
        assert_trn_ok(trn_exec_set(exec, tensor->name, x, &err), err);
        free(x);
    }
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err); /* replayed without setting inputs anew */
    assert_trn_ok(trn_exec_get(exec, output, y, &err), err);
    trn_exec_destroy(exec);
    return y;
}

static void pointwise_chains_join_the_product_before(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_graph *graph = mlp_graph(13);
    trn_exec *exec;
    assert_trn_ok(trn_compile(graph, gpu, &(trn_compile_options){.plan_only = true}, &exec, &err), err);
    trn_exec_summary fused = trn_exec_summarize(exec);
    trn_text text = {0};
    trn_exec_explain(exec, &text);
    assert_non_null(strstr(trn_text_get(&text), "matmul+add+gelu"));
    assert_non_null(strstr(trn_text_get(&text), "matmul+add+mul+add"));
    trn_text_free(&text);
    trn_exec_destroy(exec);
    assert_int_equal(fused.fused_operators, 5);
    float *y = run(graph, NULL, "y", 13 * 24),
          *plain = run(graph, &(trn_compile_options){.no_fusion = true}, "y", 13 * 24);
    assert_true(test_worst_error(y, plain, 13 * 24, 1) < 1e-6);
    free(y);
    free(plain);
    trn_graph_destroy(graph);
}

static void same_graph_gives_same_bits(void **state)
{
    (void)state;
    trn_graph *graph = mlp_graph(67);
    float *a = run(graph, NULL, "y", 67 * 24), *b = run(graph, NULL, "y", 67 * 24);
    assert_memory_equal(a, b, 67 * 24 * sizeof *a);
    free(a);
    free(b);
    trn_graph_destroy(graph);
}

static void memory_is_shared_by_lifetime(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(1000, 100));
    trn_tensor *y = x;
    for (int i = 0; i < 10; i++)
        y = trn_unary(graph, "tanh", trn_permute(graph, y, (int[]){1, 0}));
    trn_output_add(graph, "y", y);
    trn_exec *exec;
    assert_trn_ok(trn_compile(graph, gpu, &(trn_compile_options){.plan_only = true}, &exec, &err), err);
    trn_exec_summary sum = trn_exec_summarize(exec);
    assert_true(sum.arena_bytes_unshared >= 11 * 400000);
    assert_true(sum.arena_bytes < 4 * 400000 + 4096);
    trn_exec_destroy(exec);
    float *shared = run(graph, &(trn_compile_options){.poison = true}, "y", 100000);
    float *kept = run(graph, &(trn_compile_options){.keep_all = true}, "y", 100000);
    assert_memory_equal(shared, kept, 100000 * sizeof *kept);
    free(shared);
    free(kept);
    trn_graph_destroy(graph);
}

static void too_little_memory_is_said_before_the_run(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_graph *graph = mlp_graph(1000);
    trn_exec *exec;
    assert_trn_fails(trn_compile(graph, gpu, &(trn_compile_options){.memory_limit = 10000}, &exec, &err),
                     TRN_ERR_MEMORY, err, "smaller batch or tile");
    assert_null(exec);
    trn_graph_destroy(graph);
}

static int filled;

static trn_status fill_twos(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    (void)user, (void)name, (void)err;
    filled++;
    for (int64_t i = 0; i < trn_shape_count(shape); i++)
        ((float *)out)[i] = 2;
    return TRN_OK;
}

static trn_status fill_fails(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    (void)user, (void)shape, (void)out;
    return trn_fail(err, TRN_ERR_IO, "cannot read '%s'", name);
}

static void constants_are_folded_once(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_tensor *w = trn_param(graph, "w", TRN_SHAPE(4, 8), fill_twos, NULL);
    trn_tensor *table =
        trn_unary(graph, "square", trn_permute(graph, w, (int[]){1, 0})); /* constant: all fours */
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(8, 4));
    trn_output_add(graph, "y", trn_mul(graph, x, table));
    trn_output_add(graph, "table", table);
    trn_output_add(graph, "x again", trn_reshape(graph, x, TRN_SHAPE(32)));
    filled = 0;
    trn_exec *exec;
    assert_trn_ok(trn_compile(graph, gpu, NULL, &exec, &err), err);
    trn_exec_summary sum = trn_exec_summarize(exec);
    assert_int_equal(sum.dispatches, 1);
    assert_int_equal(filled, 1);
    float x_values[32], y[32], again[32], folded[32];
    for (int i = 0; i < 32; i++)
        x_values[i] = (float)i;
    assert_trn_ok(trn_exec_set(exec, "x", x_values, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    assert_trn_ok(trn_exec_get(exec, "y", y, &err), err);
    assert_trn_ok(trn_exec_get(exec, "table", folded, &err), err);
    assert_trn_ok(trn_exec_get(exec, "x again", again, &err), err);
    for (int i = 0; i < 32; i++) {
        assert_true(y[i] == 4 * (float)i && folded[i] == 4);
        assert_true(again[i] == (float)i);
    }
    assert_trn_fails(trn_exec_get(exec, "z", y, &err), TRN_ERR_ARGUMENT, err, "no output 'z'");
    assert_trn_fails(trn_exec_set(exec, "z", y, &err), TRN_ERR_ARGUMENT, err, "no input 'z'");
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);

    graph = trn_graph_create();
    trn_output_add(graph, "y",
                   trn_unary(graph, "neg", trn_param(graph, "lost.weight", TRN_SHAPE(3), fill_fails, NULL)));
    assert_trn_fails(trn_compile(graph, gpu, NULL, &exec, &err), TRN_ERR_IO, err, "lost.weight");
    trn_graph_destroy(graph);
}

static void check_mode_compares_with_the_reference(void **state)
{
    (void)state;
    trn_graph *graph = mlp_graph(9);
    float *y = run(graph, &(trn_compile_options){.check = true}, "y", 9 * 24);
    free(y);
    trn_graph_destroy(graph);
}

/* Each allocation of device memory fails once, in turn: the compile finds another way or reports it; nothing
 * is left behind. */
static void failed_allocations_leave_nothing_behind(void **state)
{
    (void)state;
    for (int n = 1; n < 8; n++) {
        trn_error err = {0};
        trn_gpu *small;
        trn_status status = trn_gpu_open(&(trn_gpu_options){.fail_allocation = n}, &small, &err);
        if (status != TRN_OK) {
            assert_int_equal(status, TRN_ERR_MEMORY);
            continue;
        }
        trn_graph *graph = trn_graph_create();
        trn_tensor *x =
            trn_input(graph, "x", TRN_F32, TRN_SHAPE(48 << 20)); /* values of 192 MiB: blocks of their own */
        trn_output_add(graph, "y", trn_unary(graph, "neg", trn_unary(graph, "neg", x)));
        trn_exec *exec = NULL;
        status = trn_compile(graph, small, NULL, &exec, &err);
        if (status != TRN_OK) assert_trn_fails(status, TRN_ERR_MEMORY, err, "no memory on device");
        trn_exec_destroy(exec);
        trn_graph_destroy(graph);
        trn_gpu_close(small);
    }
}

static void a_lost_device_names_the_operators(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_gpu *lost;
    int n = 1;
    for (bool named = false; !named; n++) {
        assert_true(n < 200);
        assert_trn_ok(trn_gpu_open(&(trn_gpu_options){.fail_submission = n}, &lost, &err), err);
        trn_graph *graph = mlp_graph(5);
        trn_exec *exec = NULL;
        float x[5 * 24] = {0};
        trn_status status = trn_compile(graph, lost, NULL, &exec, &err);
        if (status == TRN_OK) status = trn_exec_set(exec, "x", x, &err);
        if (status == TRN_OK) status = trn_exec_run(exec, NULL, &err);
        assert_int_equal(status, TRN_ERR_DEVICE_LOST);
        named = strstr(err.message, "matmul") != NULL;
        trn_exec_destroy(exec);
        trn_graph_destroy(graph);
        trn_gpu_close(lost);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(building_keeps_the_first_error),
        cmocka_unit_test(impossible_shapes_are_refused),
        cmocka_unit_test(pointwise_chains_join_the_product_before),
        cmocka_unit_test(same_graph_gives_same_bits),
        cmocka_unit_test(memory_is_shared_by_lifetime),
        cmocka_unit_test(too_little_memory_is_said_before_the_run),
        cmocka_unit_test(constants_are_folded_once),
        cmocka_unit_test(check_mode_compares_with_the_reference),
        cmocka_unit_test(failed_allocations_leave_nothing_behind),
        cmocka_unit_test(a_lost_device_names_the_operators),
    };
    return cmocka_run_group_tests_name("graph", tests, open_device, close_device);
}
