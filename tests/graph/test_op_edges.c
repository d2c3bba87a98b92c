/* Operators at their edges: what builders refuse and how they say it, indices out of range, grids that do not
 * overlap, NaN, equal bits from equal runs, and the kernels that this device would not choose. */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph.h"

static trn_gpu *open_gpu(void)
{
    trn_gpu *gpu;
    trn_error err = {0};
    assert_trn_ok(trn_gpu_open(NULL, &gpu, &err), err);
    return gpu;
}

/* Runs a graph with the inputs "x" and, when given, "index", and reads "y". */
static void run(trn_gpu *gpu, trn_graph *graph, const float *x, const int32_t *index, float *y)
{
    trn_error err = {0};
    trn_exec *exec;
    assert_trn_ok(trn_compile(graph, gpu, &(trn_compile_options){.poison = true}, &exec, &err), err);
    if (x) assert_trn_ok(trn_exec_set(exec, "x", x, &err), err);
    if (index) assert_trn_ok(trn_exec_set(exec, "index", index, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    assert_trn_ok(trn_exec_get(exec, "y", y, &err), err);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

static void assert_values(const float *actual, const float *expected, int count)
{
    for (int i = 0; i < count; i++) {
        if (!(fabs((double)actual[i] - (double)expected[i]) <= 1e-5))
            fail_msg("value %d is %g, not %g", i, (double)actual[i], (double)expected[i]);
    }
}

/* ---- refusals ---- */

typedef struct refusal {
    const char *text; /* in the message */
    trn_tensor *(*build)(trn_graph *graph, trn_tensor *x,
                         trn_tensor *integers); /* x [2,3,4,5], integers [7] */
} refusal;

static trn_tensor *bad_order(trn_graph *g, trn_tensor *x, trn_tensor *integers)
{
    (void)integers;
    return trn_permute(g, x, (int[]){0, 1, 1, 3});
}

static trn_tensor *bad_slice(trn_graph *g, trn_tensor *x, trn_tensor *integers)
{
    (void)integers;
    return trn_slice(g, x, -1, 3, 3);
}

static trn_tensor *bad_expand(trn_graph *g, trn_tensor *x, trn_tensor *integers)
{
    (void)integers;
    return trn_expand(g, x, TRN_SHAPE(2, 6, 4, 5));
}

static trn_tensor *bad_concat(trn_graph *g, trn_tensor *x, trn_tensor *integers)
{
    (void)integers;
    trn_tensor *part = trn_slice(g, x, 3, 0, 2);
    return trn_concat(g, (trn_tensor *[]){x, part}, 2, 1);
}

static trn_tensor *bad_pad(trn_graph *g, trn_tensor *x, trn_tensor *integers)
{
    (void)integers;
    return trn_pad(g, x, 0, -1, 0);
}

static trn_tensor *bad_axis(trn_graph *g, trn_tensor *x, trn_tensor *integers)
{
    (void)integers;
    return trn_reduce(g, x, 4, TRN_REDUCE_SUM, false);
}

static trn_tensor *bad_index(trn_graph *g, trn_tensor *x, trn_tensor *integers)
{
    (void)integers;
    return trn_gather(g, x, 1, trn_constant_int(g, "index", TRN_SHAPE(2), (int32_t[]){0, 3}));
}

static trn_tensor *bad_index_type(trn_graph *g, trn_tensor *x, trn_tensor *integers)
{
    (void)integers;
    return trn_gather(g, x, 1, x);
}

static trn_tensor *bad_type(trn_graph *g, trn_tensor *x, trn_tensor *integers)
{
    (void)x;
    return trn_softmax(g, integers);
}

static trn_tensor *bad_kernel(trn_graph *g, trn_tensor *x, trn_tensor *integers)
{
    (void)integers;
    trn_tensor *w = trn_input(g, "w", TRN_F32, TRN_SHAPE(8, 3, 5, 5));
    return trn_conv2d(g, x, w, NULL, &(trn_conv_desc){.stride = {1, 1, 1}});
}

static trn_tensor *bad_channels(trn_graph *g, trn_tensor *x, trn_tensor *integers)
{
    (void)integers;
    trn_tensor *w = trn_input(g, "w", TRN_F32, TRN_SHAPE(8, 4, 3, 3));
    return trn_conv_tokens(g, x, w, NULL, &(trn_conv_desc){.stride = {1, 1, 1}});
}

static trn_tensor *bad_pool(trn_graph *g, trn_tensor *x, trn_tensor *integers)
{
    (void)integers;
    return trn_pool2d(g, x, 2, TRN_POOL_MAX, 5, 1);
}

static trn_tensor *bad_resize(trn_graph *g, trn_tensor *x, trn_tensor *integers)
{
    (void)integers;
    return trn_resize2d(g, x, 3, 8, 8, &(trn_resize_desc){.mode = TRN_RESIZE_BILINEAR});
}

static trn_tensor *bad_scale(trn_graph *g, trn_tensor *x, trn_tensor *integers)
{
    (void)integers;
    trn_resize_desc desc = {.mode = TRN_RESIZE_BICUBIC, .scale = {NAN, 1}};
    return trn_resize2d(g, x, 2, 8, 8, &desc);
}

static trn_tensor *bad_norm(trn_graph *g, trn_tensor *x, trn_tensor *integers)
{
    (void)integers;
    return trn_layer_norm(g, x, trn_input(g, "w", TRN_F32, TRN_SHAPE(4)), NULL, 1e-5f);
}

static trn_tensor *bad_statistics(trn_graph *g, trn_tensor *x, trn_tensor *integers)
{
    (void)integers;
    trn_tensor *s = trn_input(g, "s", TRN_F32, TRN_SHAPE(4));
    return trn_batch_norm_eval(g, x, s, s, NULL, NULL, 1e-5f);
}

static const refusal refusals[] = {
    {"permute: axis 1 of the order for [2,3,4,5]", bad_order},
    {"slice: 3 positions from 3 do not lie on axis 3 of [2,3,4,5]", bad_slice},
    {"expand: [2,3,4,5] cannot be repeated to [2,6,4,5]", bad_expand},
    {"concat: part 1, [2,3,4,2], does not fit the first, [2,3,4,5], along axis 1", bad_concat},
    {"pad: -1 before", bad_pad},
    {"reduce: axis 4 is outside of [2,3,4,5]", bad_axis},
    {"gather: index 1 is 3, outside of axis 1 of [2,3,4,5]", bad_index},
    {"gather: the index must be one row of integers", bad_index_type},
    {"softmax: [7] holds integers", bad_type},
    {"conv2d: a kernel of 5 with stride 1 and padding 0 does not fit 4 positions along y", bad_kernel},
    {"conv_tokens: weights [8,4,3,3] do not fit an input of [2,3,4,5]", bad_channels},
    {"pool2d: windows of 5 at stride 1 do not fit axes 2 and 3", bad_pool},
    {"resize2d: [2,3,4,5] to 8x8: there is no width", bad_resize},
    {"not a number", bad_scale},
    {"layer_norm: weights of 4", bad_norm},
    {"batch_norm_eval: statistics of 4 channels", bad_statistics},
};

static void test_refusals(void **state)
{
    (void)state;
    for (size_t i = 0; i < TRN_COUNT(refusals); i++) {
        trn_error err = {0};
        trn_graph *graph = trn_graph_create();
        trn_graph_scope(graph, "blocks.3.");
        trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(2, 3, 4, 5));
        trn_tensor *integers = trn_input(graph, "integers", TRN_I32, TRN_SHAPE(7));
        assert_null(refusals[i].build(graph, x, integers));
        assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, refusals[i].text);
        assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, "blocks.3.");
        trn_graph_destroy(graph);
    }
}

/* ---- values ---- */

static void test_index_from_outside(void **state)
{
    (void)state;
    trn_gpu *gpu = open_gpu();
    trn_graph *graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(2, 4));
    trn_output_add(graph, "y", trn_gather(graph, x, 1, trn_input(graph, "index", TRN_I32, TRN_SHAPE(6))));
    float y[12];
    run(gpu, graph, (float[]){0, 1, 2, 3, 10, 11, 12, 13}, (int32_t[]){3, 1, -5, 2, 400, INT32_MIN}, y);
    assert_values(y, (float[]){3, 1, 0, 2, 3, 0, 13, 11, 10, 12, 13, 10}, 12);
    trn_gpu_close(gpu);
}

/* The gradient of a gather adds up what was picked more than once, whether the index is known beforehand or
 * not. */
static void test_gather_gradient(void **state)
{
    (void)state;
    trn_gpu *gpu = open_gpu();
    const int32_t picks[5] = {2, 0, 2, 2, 3};
    for (int constant = 0; constant < 2; constant++) {
        trn_error err = {0};
        trn_graph *graph = trn_graph_create();
        trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(4)), *dx;
        trn_tensor *index = constant ? trn_constant_int(graph, "index", TRN_SHAPE(5), picks)
                                     : trn_input(graph, "index", TRN_I32, TRN_SHAPE(5));
        trn_tensor *seed = trn_constant(graph, "seed", TRN_SHAPE(5), (float[]){1, 2, 4, 8, 16});
        assert_trn_ok(trn_gradients(graph, trn_gather(graph, x, 0, index), seed, &x, 1, &dx, &err), err);
        trn_output_add(graph, "y", trn_add(graph, dx, trn_affine(graph, x, 0, 0)));
        float y[4];
        run(gpu, graph, (float[]){0, 0, 0, 0}, constant ? NULL : picks, y);
        assert_values(y, (float[]){2, 0, 13, 16}, 4);
    }
    trn_gpu_close(gpu);
}

static void resize_row(trn_gpu *gpu, const trn_resize_desc *desc, int out, const float *expected)
{
    trn_graph *graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(1, 4));
    trn_output_add(graph, "y", trn_affine(graph, trn_resize2d(graph, x, 0, 1, out, desc), 1, 0));
    float y[16];
    run(gpu, graph, (float[]){10, 20, 30, 40}, NULL, y);
    assert_values(y, expected, out);
}

/* Cells of 2 and of 1/2, shifted beyond either border: the border's values go on. */
static void test_resize_by_scale(void **state)
{
    (void)state;
    trn_gpu *gpu = open_gpu();
    trn_resize_desc desc = {.mode = TRN_RESIZE_BILINEAR, .scale = {1, 0.5}, .offset = {0, -1}};
    resize_row(gpu, &desc, 10, (float[]){10, 10, 10, 15, 20, 25, 30, 35, 40, 40});
    desc.mode = TRN_RESIZE_NEAREST;
    resize_row(gpu, &desc, 10, (float[]){10, 10, 10, 20, 20, 30, 30, 40, 40, 40});
    desc = (trn_resize_desc){
        .mode = TRN_RESIZE_BILINEAR, .antialias = true, .scale = {1, 2}, .offset = {0, -5.5}};
    resize_row(gpu, &desc, 7, (float[]){10, 10, 10, 30 / 1.75f, 57.5f / 1.75f, 40, 40});
    desc = (trn_resize_desc){.mode = TRN_RESIZE_BICUBIC};
    resize_row(gpu, &desc, 4, (float[]){10, 20, 30, 40});
    trn_gpu_close(gpu);
}

static void test_nan_is_kept(void **state)
{
    (void)state;
    trn_gpu *gpu = open_gpu();
    for (int pool = 0; pool < 2; pool++) {
        trn_graph *graph = trn_graph_create();
        trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(1, 2, 4));
        trn_tensor *y = pool ? trn_pool2d(graph, x, 1, TRN_POOL_MAX, 2, 2)
                             : trn_reduce(graph, x, 2, TRN_REDUCE_MAX, false);
        trn_output_add(graph, "y", y);
        float got[2];
        run(gpu, graph, (float[]){1, 2, 3, 4, 5, NAN, 7, 8}, NULL, got);
        assert_true(isnan(got[pool ? 0 : 1]));
        assert_true(fabsf(got[pool ? 1 : 0] - (pool ? 8.0f : 4.0f)) <= 0);
    }
    trn_gpu_close(gpu);
}

/* Moving values changes no bit of them. */
static void test_moves_keep_bits(void **state)
{
    (void)state;
    enum { N = 2 * 3 * 5 };
    trn_gpu *gpu = open_gpu();
    trn_graph *graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(2, 3, 5));
    trn_tensor *y = trn_permute(graph, trn_permute(graph, x, (int[]){2, 0, 1}), (int[]){1, 2, 0});
    y = trn_concat(graph, (trn_tensor *[]){trn_slice(graph, y, 2, 0, 2), trn_slice(graph, y, 2, 2, 3)}, 2, 2);
    y = trn_slice(graph, trn_pad(graph, y, 1, 1, 2), 1, 1, 3);
    trn_output_add(graph, "y",
                   trn_gather(graph, y, 0, trn_constant_int(graph, "i", TRN_SHAPE(2), (int32_t[]){0, 1})));
    uint32_t bits[N];
    float values[N], got[N];
    for (uint32_t i = 0; i < N; i++)
        bits[i] = i % 3 ? i * 0x9e3779b9u : i; /* denormals and NaN with payloads among them */
    memcpy(values, bits, sizeof bits);
    run(gpu, graph, values, NULL, got);
    assert_memory_equal(got, bits, sizeof bits);
    trn_gpu_close(gpu);
}

static void test_same_bits_again(void **state)
{
    (void)state;
    enum { N = 100003 };
    trn_gpu *gpu = open_gpu();
    float *x = test_hash_values("many", N, 1, 0), sums[2];
    for (int i = 0; i < 2; i++) {
        trn_graph *graph = trn_graph_create();
        trn_tensor *in = trn_input(graph, "x", TRN_F32, TRN_SHAPE(N));
        trn_output_add(graph, "y", trn_reduce(graph, in, 0, TRN_REDUCE_SUM, false));
        run(gpu, graph, x, NULL, &sums[i]);
    }
    assert_memory_equal(&sums[0], &sums[1], sizeof sums[0]);
    free(x);
    trn_gpu_close(gpu);
}

/* ---- the kernels for other devices ---- */

static void report(void *user, const trn_op_result *result)
{
    ++*(int *)user;
    if (!result->ok)
        fail_msg("%s, %s: error %.2e, tolerance %.1e %s", result->op, result->label, result->error,
                 result->tolerance, result->message);
}

static void test_rows_through_shared_memory(void **state)
{
    (void)state;
    trn_error err = {0};
    const char *before = getenv("TERRANE_DISABLE");
    char *kept = before ? strdup(before) : NULL;
    setenv("TERRANE_DISABLE", "lanes", 1);
    trn_gpu *gpu = open_gpu();
    int cases = 0;
    assert_trn_ok(trn_op_selftest(gpu, "softmax", 0, report, &cases, NULL, &err), err);
    assert_trn_ok(trn_op_selftest(gpu, "layer_norm", 0, report, &cases, NULL, &err), err);
    assert_true(cases > 20);
    trn_gpu_close(gpu);
    if (kept)
        setenv("TERRANE_DISABLE", kept, 1);
    else
        unsetenv("TERRANE_DISABLE");
    free(kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),        cmocka_unit_test(test_index_from_outside),
        cmocka_unit_test(test_gather_gradient), cmocka_unit_test(test_resize_by_scale),
        cmocka_unit_test(test_nan_is_kept),     cmocka_unit_test(test_moves_keep_bits),
        cmocka_unit_test(test_same_bits_again), cmocka_unit_test(test_rows_through_shared_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
