/* Matrix products and attention beyond the operators' own cases: sums longer than old drivers' loops, kernels
 * forced one by one, gradients by finite differences, wrong shapes. */
#include "test_device.h"
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph.h"

static trn_tensor *input(trn_graph *graph, const char *name, trn_shape shape)
{
    return trn_input(graph, name, TRN_F32, shape);
}

/* Values of output "y" after a run with the named inputs filled by their names. malloc'd. */
static float *run(trn_graph *graph, const char *const *names, const int64_t *counts, int inputs,
                  int64_t out_count)
{
    trn_error err = {0};
    trn_exec *exec = NULL;
    trn_compile_options options = {.poison = true};
    assert_trn_ok(trn_compile(graph, gpu, &options, &exec, &err), err);
    for (int i = 0; i < inputs; i++) {
        float *values = test_hash_values(names[i], counts[i], 1, 0);
        assert_trn_ok(trn_exec_set(exec, names[i], values, &err), err);
        free(values);
    }
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    float *out = malloc((size_t)out_count * sizeof *out);
    assert_non_null(out);
    assert_trn_ok(trn_exec_get(exec, "y", out, &err), err);
    trn_exec_destroy(exec);
    return out;
}

/* Old llvmpipe ends the loops of an invocation after 65535 rounds without a word: ones must sum to K. */
static void check_sum_of_ones(int64_t m, int64_t k, bool transpose_b)
{
    trn_graph *graph = trn_graph_create();
    float *ones = malloc((size_t)(k * m) * sizeof *ones);
    assert_non_null(ones);
    for (int64_t i = 0; i < m * k; i++)
        ones[i] = 1;
    trn_error err = {0};
    trn_exec *exec = NULL;
    trn_tensor *a = input(graph, "a", TRN_SHAPE(m, k));
    trn_tensor *b = input(graph, "b", transpose_b ? TRN_SHAPE(2, k) : TRN_SHAPE(k, 2));
    trn_output_add(graph, "y", trn_matmul(graph, a, b, false, transpose_b));
    assert_trn_ok(trn_compile(graph, gpu, NULL, &exec, &err), err);
    assert_trn_ok(trn_exec_set(exec, "a", ones, &err), err);
    assert_trn_ok(trn_exec_set(exec, "b", ones, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    float y[64];
    assert_true(2 * m <= 64);
    assert_trn_ok(trn_exec_get(exec, "y", y, &err), err);
    for (int i = 0; i < 2 * m; i++)
        assert_float_equal(y[i], (float)k, 0); /* whole numbers below 2^24: exact */
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
    free(ones);
}

static void test_sums_longer_than_loops(void **state)
{
    (void)state;
    check_sum_of_ones(2, 100000, true);
    check_sum_of_ones(2, 600000, true);
    check_sum_of_ones(2, 1900003, true);
    check_sum_of_ones(2, 100000, false);
    check_sum_of_ones(2, 600007, false);
    assert_int_equal(setenv("TERRANE_DISABLE", "lanes", 1),
                     0); /* the kernels of GPUs have the same limit there */
    check_sum_of_ones(2, 100000, true);
    check_sum_of_ones(2, 600001, false);
    check_sum_of_ones(20, 1000004, true);
    unsetenv("TERRANE_DISABLE");
}

/* One query of zeros over many keys: the mean of v, all of it; or a clear refusal where loops end early. */
static void check_many_keys(int keys)
{
    trn_graph *graph = trn_graph_create();
    trn_error err = {0};
    trn_exec *exec = NULL;
    trn_tensor *q = input(graph, "q", TRN_SHAPE(1, 4)), *k = input(graph, "k", TRN_SHAPE(keys, 4));
    trn_heads_layout at = {.row = 4};
    trn_attention_desc desc = {.outer = 1,
                               .windows = 1,
                               .heads = 1,
                               .queries = 1,
                               .keys = keys,
                               .head_size = 4,
                               .q = at,
                               .k = at,
                               .v = at,
                               .out = at,
                               .out_shape = TRN_SHAPE(1, 4)};
    trn_output_add(graph, "y", trn_attention(graph, q, k, k, NULL, &desc));
    bool limited = trn_gpu_info(gpu)->quirks & TRN_QUIRK_LOOP_LIMIT;
    trn_status status = trn_compile(graph, gpu, NULL, &exec, &err);
    if (limited && keys > 100000) {
        assert_trn_fails(status, TRN_ERR_UNSUPPORTED, err, "loops end after 65535");
    } else {
        assert_trn_ok(status, err);
        float zero[4] = {0}, y[4], *ramp = malloc((size_t)keys * 4 * sizeof *ramp);
        assert_non_null(ramp);
        for (int64_t i = 0; i < 4 * (int64_t)keys; i++)
            ramp[i] = (float)(i / 4) / (float)(keys - 1);
        assert_trn_ok(trn_exec_set(exec, "q", zero, &err), err);
        assert_trn_ok(trn_exec_set(exec, "k", ramp, &err), err);
        assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
        assert_trn_ok(trn_exec_get(exec, "y", y, &err), err);
        for (int i = 0; i < 4; i++)
            assert_float_equal(y[i], 0.5F, 1e-4F);
        free(ramp);
    }
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

static void test_many_keys(void **state)
{
    (void)state;
    check_many_keys(trn_gpu_access(gpu) == TRN_ACCESS_ADDRESS ? 47900 : 24000);
    check_many_keys(300000);
    assert_int_equal(setenv("TERRANE_DISABLE", "lanes", 1), 0);
    check_many_keys(24000);
    unsetenv("TERRANE_DISABLE");
}

/* The same graph by the kernels of every access and variant gives the same values within rounding. */
static void check_variants(void (*build)(trn_graph *graph), const char *const *names, const int64_t *counts,
                           int inputs, int64_t out_count)
{
    static const char *const off[] = {NULL, "uniform", "lanes", "address", "lanes,fusion"};
    float *first = NULL;
    for (size_t i = 0; i < TRN_COUNT(off); i++) {
        trn_gpu *kept = gpu;
        trn_error err = {0};
        if (off[i]) assert_int_equal(setenv("TERRANE_DISABLE", off[i], 1), 0);
        assert_trn_ok(trn_gpu_open(NULL, &gpu, &err), err);
        trn_graph *graph = trn_graph_create();
        build(graph);
        float *y = run(graph, names, counts, inputs, out_count);
        trn_graph_destroy(graph);
        trn_gpu_close(gpu);
        unsetenv("TERRANE_DISABLE");
        gpu = kept;
        if (!first) {
            first = y;
            continue;
        }
        double largest = 0;
        for (int64_t j = 0; j < out_count; j++)
            largest = fmax(largest, fabs((double)first[j]));
        assert_true(test_worst_error(y, first, out_count, largest) < 1e-5);
        free(y);
    }
    free(first);
}

static void build_block(trn_graph *graph)
{
    trn_tensor *x = input(graph, "x", TRN_SHAPE(1, 50, 48));
    trn_tensor *qkv = trn_linear(graph, x, input(graph, "w_qkv", TRN_SHAPE(144, 48)),
                                 input(graph, "b_qkv", TRN_SHAPE(144)));
    trn_tensor *y = trn_self_attention(graph, qkv, 3, NULL);
    y = trn_linear(graph, y, input(graph, "w_out", TRN_SHAPE(48, 48)), NULL);
    trn_output_add(graph, "y", trn_add(graph, x, y));
}

static void test_variants_agree(void **state)
{
    (void)state;
    static const char *const names[] = {"x", "w_qkv", "b_qkv", "w_out"};
    static const int64_t counts[] = {50 * 48, 144 * 48, 144, 48 * 48};
    check_variants(build_block, names, counts, 4, 50 * 48);
}

static void test_runs_are_equal_to_the_bit(void **state)
{
    (void)state;
    static const char *const names[] = {"a", "b"};
    static const int64_t counts[] = {3 * 9000, 4 * 9000};
    float *first = NULL;
    for (int i = 0; i < 3; i++) {
        trn_graph *graph = trn_graph_create();
        trn_tensor *a = input(graph, "a", TRN_SHAPE(3, 9000)), *b = input(graph, "b", TRN_SHAPE(4, 9000));
        trn_output_add(graph, "y", trn_matmul(graph, a, b, false, true));
        float *y = run(graph, names, counts, 2, 12);
        trn_graph_destroy(graph);
        if (first) assert_memory_equal(first, y, 12 * sizeof *y);
        if (first)
            free(y);
        else
            first = y;
    }
    free(first);
}

/* Gradient of sum(matmul) with respect to both operands; sum(a b) is linear in each, so that a difference is
 * exact. */
static void check_gradient(trn_shape a_shape, trn_shape b_shape, bool transpose_a, bool transpose_b)
{
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_tensor *wrt[] = {input(graph, "a", a_shape), input(graph, "b", b_shape)}, *grads[2];
    trn_tensor *y = trn_matmul(graph, wrt[0], wrt[1], transpose_a, transpose_b);
    assert_trn_ok(trn_graph_status(graph, &err), err);
    int64_t y_count = trn_shape_count(trn_tensor_shape(y));
    assert_trn_ok(trn_gradients(graph, y, input(graph, "seed", *trn_tensor_shape(y)), wrt, 2, grads, &err),
                  err);
    assert_true(trn_shape_equal(trn_tensor_shape(grads[0]), &a_shape));
    assert_true(trn_shape_equal(trn_tensor_shape(grads[1]), &b_shape));
    trn_output_add(graph, "y", y);
    trn_output_add(graph, "ga", grads[0]);
    trn_output_add(graph, "gb", grads[1]);

    int64_t counts[] = {trn_shape_count(&a_shape), trn_shape_count(&b_shape)};
    float *values[] = {test_hash_values("a", counts[0], 1, 0), test_hash_values("b", counts[1], 1, 0)};
    float *seed = test_hash_values("seed", y_count, 1, 0), *out = calloc((size_t)y_count, sizeof *out);
    float *gradient[] = {calloc((size_t)counts[0], sizeof(float)), calloc((size_t)counts[1], sizeof(float))};
    trn_exec *exec = NULL;
    assert_trn_ok(trn_compile(graph, gpu, NULL, &exec, &err), err);
    const char *const names[] = {"a", "b"};
    for (int i = 0; i < 2; i++)
        assert_trn_ok(trn_exec_set(exec, names[i], values[i], &err), err);
    assert_trn_ok(trn_exec_set(exec, "seed", seed, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    assert_trn_ok(trn_exec_get(exec, "ga", gradient[0], &err), err);
    assert_trn_ok(trn_exec_get(exec, "gb", gradient[1], &err), err);
    trn_exec_destroy(exec);

    for (int i = 0; i < 2; i++) {
        for (int64_t at = 0; at < counts[i]; at += 1 + counts[i] / 7) {
            double sides[2] = {0, 0};
            for (int side = 0; side < 2; side++) {
                float kept = values[i][at];
                values[i][at] = kept + (side ? 0.5F : -0.5F);
                trn_named_data in[] = {{"a", values[0]}, {"b", values[1]}, {"seed", seed}},
                               result = {"y", out};
                assert_trn_ok(trn_reference_run(graph, in, 3, &result, 1, &err), err);
                for (int64_t j = 0; j < y_count; j++)
                    sides[side] += (double)out[j] * (double)seed[j];
                values[i][at] = kept;
            }
            assert_float_equal(gradient[i][at], (float)(sides[1] - sides[0]), 1e-4F);
        }
    }
    for (int i = 0; i < 2; i++)
        free(values[i]), free(gradient[i]);
    free(seed);
    free(out);
    trn_graph_destroy(graph);
}

static void test_gradients(void **state)
{
    (void)state;
    check_gradient(TRN_SHAPE(5, 7), TRN_SHAPE(7, 4), false, false);
    check_gradient(TRN_SHAPE(7, 5), TRN_SHAPE(4, 7), true, true);
    check_gradient(TRN_SHAPE(2, 3, 7), TRN_SHAPE(2, 4, 7), false, true);
    check_gradient(TRN_SHAPE(2, 3, 7), TRN_SHAPE(4, 7), false, true);
    check_gradient(TRN_SHAPE(2, 3, 7), TRN_SHAPE(7, 4), false, false);
}

/* ---- faults ---- */

static void expect_fault(trn_graph *graph, const trn_tensor *result, const char *text)
{
    trn_error err = {0};
    assert_null(result);
    assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, text);
    trn_graph_destroy(graph);
}

static void test_wrong_shapes(void **state)
{
    (void)state;
    trn_graph *g = trn_graph_create();
    expect_fault(g, trn_linear(g, input(g, "x", TRN_SHAPE(4, 5)), input(g, "w", TRN_SHAPE(3, 6)), NULL),
                 "w must be [outputs,5]");
    g = trn_graph_create();
    expect_fault(g,
                 trn_linear(g, input(g, "x", TRN_SHAPE(4, 5)), input(g, "w", TRN_SHAPE(3, 5)),
                            input(g, "b", TRN_SHAPE(4))),
                 "the bias must be [3]");
    g = trn_graph_create();
    expect_fault(g,
                 trn_matmul(g, input(g, "a", TRN_SHAPE(4, 5)), input(g, "b", TRN_SHAPE(4, 5)), false, false),
                 "[4,5]");
    g = trn_graph_create();
    expect_fault(
        g, trn_matmul(g, input(g, "a", TRN_SHAPE(2, 4, 5)), input(g, "b", TRN_SHAPE(3, 5, 4)), false, false),
        "leading dimensions");
    g = trn_graph_create();
    expect_fault(g, trn_self_attention(g, input(g, "qkv", TRN_SHAPE(1, 4, 10)), 2, NULL), "[1,4,10]");
    g = trn_graph_create();
    expect_fault(g, trn_self_attention(g, input(g, "qkv", TRN_SHAPE(1, 4, 900)), 1, NULL),
                 "head size must be 1 to 256");
    g = trn_graph_create();
    expect_fault(
        g, trn_self_attention(g, input(g, "qkv", TRN_SHAPE(1, 4, 12)), 2, input(g, "m", TRN_SHAPE(1, 5))),
        "key mask");
    g = trn_graph_create();
    expect_fault(g, trn_mask_unit_attention(g, input(g, "qkv", TRN_SHAPE(1, 20, 12)), 2, 3), "20 tokens");
    g = trn_graph_create();
    expect_fault(g,
                 trn_pooled_unit_attention(g, input(g, "q", TRN_SHAPE(1, 20, 4)),
                                           input(g, "kv", TRN_SHAPE(1, 20, 8)), 2, 5, 3),
                 "20 tokens");
    g = trn_graph_create();
    expect_fault(g,
                 trn_pooled_unit_attention(g, input(g, "q", TRN_SHAPE(1, 20, 4)),
                                           input(g, "kv", TRN_SHAPE(1, 20, 12)), 2, 5, 2),
                 "twice as wide");
}

static void test_layout_outside(void **state)
{
    (void)state;
    trn_graph *g = trn_graph_create();
    trn_tensor *x = input(g, "x", TRN_SHAPE(1, 6, 8));
    trn_heads_layout row = {.outer = 48, .head = 4, .row = 8}, far = {.outer = 48, .head = 4, .row = 9};
    trn_attention_desc desc = {.outer = 1,
                               .windows = 1,
                               .heads = 2,
                               .queries = 6,
                               .keys = 6,
                               .head_size = 4,
                               .q = row,
                               .k = far,
                               .v = row,
                               .out = row,
                               .out_shape = TRN_SHAPE(1, 6, 8)};
    expect_fault(g, trn_attention(g, x, x, x, NULL, &desc), "the layout of k leads outside");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums_longer_than_loops),
        cmocka_unit_test(test_many_keys),
        cmocka_unit_test(test_variants_agree),
        cmocka_unit_test(test_runs_are_equal_to_the_bit),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_wrong_shapes),
        cmocka_unit_test(test_layout_outside),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
