/* Building, fusing, planning and executing graphs. */
#include "test_device.h"
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph_internal.h"

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

/* Weights that are computed from others take more while they are loaded than they do afterwards. */
static void loading_counts_as_memory(void **state)
{
    (void)state;
    enum { SIDE = 64, BYTES = SIDE * SIDE * 4 };
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_exec *exec;
    float *w = test_hash_values("w", SIDE * SIDE, 1, 0);
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(SIDE, SIDE));
    trn_tensor *a = trn_constant(graph, "a", TRN_SHAPE(SIDE, SIDE), w);
    trn_tensor *b = trn_constant(graph, "b", TRN_SHAPE(SIDE, SIDE), w);
    trn_output_add(graph, "y", trn_mul(graph, x, trn_add(graph, a, b)));
    assert_trn_ok(trn_compile(graph, gpu, &(trn_compile_options){.plan_only = true}, &exec, &err), err);
    trn_exec_summary sum = trn_exec_summarize(exec);
    trn_exec_destroy(exec);
    assert_int_equal(sum.weight_bytes, BYTES);
    assert_int_equal(sum.loading_bytes, 3 * BYTES);
    trn_compile_options options = {.memory_limit = sum.arena_bytes + sum.loading_bytes};
    assert_trn_ok(trn_compile(graph, gpu, &options, &exec, &err), err);
    trn_exec_destroy(exec);
    options.memory_limit--;
    assert_trn_fails(trn_compile(graph, gpu, &options, &exec, &err), TRN_ERR_MEMORY, err, "smaller batch");
    trn_graph_destroy(graph);
    free(w);
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

static void parameters_are_kept_once(void **state)
{
    (void)state;
    int others;
    trn_graph *graph = trn_graph_create();
    trn_tensor *w = trn_param(graph, "w", TRN_SHAPE(4, 8), fill_twos, NULL);
    assert_ptr_equal(trn_param(graph, "w", TRN_SHAPE(4, 8), fill_twos, NULL), w);
    assert_ptr_not_equal(trn_param(graph, "w", TRN_SHAPE(8, 4), fill_twos, NULL), w);
    assert_ptr_not_equal(trn_param(graph, "w", TRN_SHAPE(4, 8), fill_twos, &others), w);
    assert_ptr_not_equal(trn_param(graph, "v", TRN_SHAPE(4, 8), fill_twos, NULL), w);
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

/* Weights that are computed and then only packed are there for the check nevertheless. */
static void check_mode_reads_computed_constants(void **state)
{
    (void)state;
    trn_graph *graph = trn_graph_create();
    trn_tensor *w = trn_param(graph, "w", TRN_SHAPE(40, 24), fill_twos, NULL);
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(70, 24));
    trn_output_add(graph, "y", trn_linear(graph, x, trn_unary(graph, "square", w), NULL));
    float *y = run(graph, &(trn_compile_options){.check = true}, "y", 70 * 40);
    free(y);
    trn_graph_destroy(graph);
}

static void single_numbers_are_tensors_too(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, (trn_shape){.ndim = 0}), *dx;
    trn_tensor *y = trn_mul(graph, trn_affine(graph, x, 2, 1), x);
    trn_output_add(graph, "y", y);
    assert_trn_ok(trn_gradients(graph, y, NULL, &x, 1, &dx, &err), err);
    trn_output_add(graph, "dx", dx);
    float *values = test_hash_values("x", 1, 1, 0);
    float *out = run(graph, NULL, "y", 1), *slope = run(graph, NULL, "dx", 1);
    assert_true(fabsf(*out - (2 * *values + 1) * *values) < 1e-6f);
    assert_true(fabsf(*slope - (4 * *values + 1)) < 1e-5f);
    free(values);
    free(out);
    free(slope);
    trn_graph_destroy(graph);
}

static void hostile_arguments_are_refused(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    assert_null(trn_param(graph, "empty", TRN_SHAPE(3), NULL, NULL));
    assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, "nothing that fills it");
    trn_graph_destroy(graph);
    const trn_shape bad[] = {TRN_SHAPE(INT64_MAX, 8, -1),
                             TRN_SHAPE(-1, -1),
                             TRN_SHAPE(-1, INT32_MAX),
                             TRN_SHAPE(-2, -3),
                             {.ndim = 9}};
    for (size_t i = 0; i < TRN_COUNT(bad); i++) {
        graph = trn_graph_create();
        assert_null(trn_reshape(graph, trn_input(graph, "x", TRN_F32, TRN_SHAPE(2, 3)), bad[i]));
        assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, "[2,3] cannot become");
        trn_graph_destroy(graph);
    }
    graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(2)), *none = NULL, *grad;
    assert_trn_fails(trn_gradients(graph, x, NULL, &none, 1, &grad, &err), TRN_ERR_ARGUMENT, err, "NULL");
    trn_conv_desc wide = {.stride = {1, 1, 1}, .padding = {0, 1 << 29, 1 << 29}};
    assert_null(trn_conv2d(graph, trn_input(graph, "image", TRN_F32, TRN_SHAPE(1, 1, 4, 4)),
                           trn_input(graph, "w", TRN_F32, TRN_SHAPE(1, 1, 2, 2)), NULL, &wide));
    assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, "windows are more than");
    trn_graph_destroy(graph);
}

static bool meet(const trn_place *a, const trn_place *b)
{
    return a->block == b->block && a->first <= b->last && b->first <= a->last &&
           a->offset < b->offset + b->size && b->offset < a->offset + a->size;
}

/* A deep graph whose values live short and long: whatever lives at the same time lies apart, and planning
 * thousands of values does not take seconds. */
static void living_values_never_overlap(void **state)
{
    (void)state;
    enum { NODES = 4000, KEPT = 16 };
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_tensor *kept[KEPT], *y = trn_input(graph, "x", TRN_F32, TRN_SHAPE(30, 20));
    for (int i = 0; i < NODES; i++) {
        if (i < KEPT)
            kept[i] = y;
        else if (i % 7 == 0)
            y = trn_add(graph, y, kept[i % KEPT]);
        if (i % 11 == 0) kept[i * 5 % KEPT] = y;
        y = trn_pad(graph, trn_slice(graph, y, i % 2, 1, i % 2 ? 19 : 29), i % 2, 1, 0);
    }
    trn_output_add(graph, "y", y);
    uint64_t start = trn_now_ns();
    trn_lower lower = {.graph = graph, .gpu = gpu, .arena = trn_arena_create()};
    trn_memory_plan plan;
    assert_trn_ok(trn_lower_graph(&lower, true, TRN_PRECISION_FLOAT32, &err), err);
    assert_trn_ok(trn_memory_plan_make(&lower, false, false, 64 << 10, &plan, &err), err);
    double seconds = (double)(trn_now_ns() - start) * 1e-9;
    assert_true(plan.block_count > 0 && plan.total < plan.unshared / 4);
    for (size_t i = 0; i < graph->tensor_count; i++) {
        const trn_place *a = &plan.places[i];
        if (a->block < 0) continue;
        assert_true(a->offset % TRN_TENSOR_ALIGN == 0);
        assert_true(a->offset + a->size <= plan.block_bytes[a->block] &&
                    plan.block_bytes[a->block] <= 64 << 10);
        for (size_t k = 0; k < i; k++)
            assert_false(plan.places[k].block >= 0 && meet(a, &plan.places[k]));
    }
    assert_true(seconds < 5);
    trn_memory_plan_free(&plan);
    trn_lower_free(&lower);
    trn_graph_destroy(graph);
}

/* Also on a device on which nothing has run yet. */
static void plans_estimate_their_time(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_gpu *fresh;
    trn_exec *exec;
    trn_text text = {0};
    assert_trn_ok(trn_gpu_open(&(trn_gpu_options){.no_disk_cache = true}, &fresh, &err), err);
    trn_graph *small = mlp_graph(10), *large = mlp_graph(1000);
    assert_trn_ok(trn_compile(small, fresh, &(trn_compile_options){.plan_only = true}, &exec, &err), err);
    double seconds = trn_exec_summarize(exec).estimated_seconds;
    assert_true(seconds > 0 && seconds < 1);
    trn_exec_explain(exec, &text);
    assert_non_null(strstr(trn_text_get(&text), "at the rate measured on this device"));
    trn_exec_destroy(exec);
    uint64_t dispatches = trn_gpu_get_stats(fresh).dispatches;
    assert_true(dispatches > 0);
    assert_trn_ok(trn_compile(large, fresh, &(trn_compile_options){.plan_only = true}, &exec, &err), err);
    assert_true(trn_exec_summarize(exec).estimated_seconds > 3 * seconds);
    assert_int_equal(trn_gpu_get_stats(fresh).dispatches, dispatches); /* measured once */
    trn_exec_destroy(exec);
    trn_text_free(&text);
    trn_graph_destroy(small);
    trn_graph_destroy(large);
    trn_gpu_close(fresh);
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
            trn_input(graph, "x", TRN_F32, TRN_SHAPE(30 << 20)); /* values of 120 MiB: several blocks */
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
        cmocka_unit_test(loading_counts_as_memory),
        cmocka_unit_test(constants_are_folded_once),
        cmocka_unit_test(parameters_are_kept_once),
        cmocka_unit_test(check_mode_compares_with_the_reference),
        cmocka_unit_test(check_mode_reads_computed_constants),
        cmocka_unit_test(single_numbers_are_tensors_too),
        cmocka_unit_test(hostile_arguments_are_refused),
        cmocka_unit_test(living_values_never_overlap),
        cmocka_unit_test(plans_estimate_their_time),
        cmocka_unit_test(failed_allocations_leave_nothing_behind),
        cmocka_unit_test(a_lost_device_names_the_operators),
    };
    return cmocka_run_group_tests_name("graph", tests, open_device, close_device);
}
