/* Float16 storage: what is stored so, what that leaves as it is, and what is refused. */
#include "test_device.h"
#include "test_graph.h"
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph_internal.h"

enum { ROWS = 37, WIDE = 44, HIDDEN = 66, VALUES = ROWS * WIDE };

static double scale_of_parameters = 0.3;

static trn_tensor *param(trn_graph *graph, const char *name, int64_t rows, int64_t columns)
{
    return trn_param(graph, name, TRN_SHAPE(rows, columns), test_fill, &scale_of_parameters);
}

/* Half of a transformer block, and rows that move; its inputs, outputs, vectors and sums stay float32. */
static trn_graph *build_block(void)
{
    trn_graph *graph = trn_graph_create();
    float ones[WIDE];
    for (int i = 0; i < WIDE; i++)
        ones[i] = 1 + (float)i / WIDE;
    trn_tensor *scale = trn_constant(graph, "scale", TRN_SHAPE(WIDE), ones);
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(1, ROWS, WIDE)), *residual, *y;
    residual = trn_linear(graph, x, param(graph, "w0", WIDE, WIDE), NULL);
    y = trn_layer_norm(graph, residual, scale, NULL, 1e-5F);
    y = trn_unary(graph, "gelu", trn_linear(graph, y, param(graph, "w1", HIDDEN, WIDE), NULL));
    y = trn_add(graph, trn_linear(graph, y, param(graph, "w2", WIDE, HIDDEN), NULL), residual);
    y = trn_softmax(graph, trn_permute(graph, y, (int[]){0, 2, 1}));
    y = trn_concat(graph, (trn_tensor *[]){trn_slice(graph, y, 1, 7, 20), trn_slice(graph, y, 1, 0, 24)}, 2,
                   1);
    y = trn_permute(graph, y, (int[]){0, 2, 1});
    trn_output_add(graph, "y", trn_affine(graph, y, 3, 0));
    trn_output_add(graph, "norms", trn_l2_normalize(graph, y, 1e-6F));
    return graph;
}

static trn_exec *run(trn_gpu *device, trn_graph *graph, const trn_compile_options *options,
                     const char *output, float *values)
{
    trn_error err = {0};
    trn_exec *exec;
    float *x = test_hash_values("x", VALUES, 1, 0);
    assert_trn_ok(trn_compile(graph, device, options, &exec, &err), err);
    assert_trn_ok(trn_exec_set(exec, "x", x, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    if (output) assert_trn_ok(trn_exec_get(exec, output, values, &err), err);
    free(x);
    return exec;
}

static void half_is_near_and_smaller(void **state)
{
    (void)state;
    static const trn_precision precisions[] = {TRN_PRECISION_FLOAT32, TRN_PRECISION_FLOAT16};
    for (int fused = 0; fused < 2; fused++) {
        float values[2][VALUES], norms[2][VALUES];
        trn_exec_summary sums[2];
        for (int i = 0; i < 2; i++) {
            trn_error err = {0};
            trn_compile_options options = {
                .precision = precisions[i], .poison = true, .no_fusion = !fused, .check = true};
            trn_graph *graph = build_block();
            trn_exec *exec = run(gpu, graph, &options, "y", values[i]);
            assert_trn_ok(trn_exec_get(exec, "norms", norms[i], &err), err);
            trn_exec_destroy(exec);
            options.check = false;
            exec = run(gpu, graph, &options, NULL, NULL);
            sums[i] = trn_exec_summarize(exec);
            trn_exec_destroy(exec);
            trn_graph_destroy(graph);
        }
        double error = trn_worst_error(values[1], values[0], VALUES);
        assert_true(error > 1e-6 && error < 3e-3);
        assert_true(trn_worst_error(norms[1], norms[0], VALUES) < 3e-3);
        assert_int_equal(sums[0].half_values, 0);
        assert_true(sums[1].half_values >= 8);
        assert_int_equal(sums[1].precision, TRN_PRECISION_FLOAT16);
        assert_true(sums[1].weight_bytes < 0.75 * (double)sums[0].weight_bytes);
        assert_true(sums[1].arena_bytes_unshared < 0.85 * (double)sums[0].arena_bytes_unshared);
        assert_true(sums[1].bytes < 0.85 * sums[0].bytes);
    }
}

static void runs_give_the_same_bits(void **state)
{
    (void)state;
    float values[2][VALUES];
    static const trn_compile_options options = {.precision = TRN_PRECISION_FLOAT16};
    for (int i = 0; i < 2; i++) {
        trn_graph *graph = build_block();
        trn_exec_destroy(run(gpu, graph, &options, "y", values[i]));
        trn_graph_destroy(graph);
    }
    assert_memory_equal(values[0], values[1], sizeof values[0]);
}

static void storage_buffers_hold_halves(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_gpu *storage;
    float values[2][VALUES];
    static const trn_compile_options options[] = {{.precision = TRN_PRECISION_FLOAT32},
                                                  {.precision = TRN_PRECISION_FLOAT16, .poison = true}};
    assert_trn_ok(trn_gpu_open(&(trn_gpu_options){.access = TRN_ACCESS_STORAGE}, &storage, &err), err);
    for (int i = 0; i < 2; i++) {
        trn_graph *graph = build_block();
        trn_exec_destroy(run(storage, graph, &options[i], "y", values[i]));
        trn_graph_destroy(graph);
    }
    assert_true(trn_worst_error(values[1], values[0], VALUES) < 3e-3);
    assert_int_equal(trn_gpu_get_stats(storage).validation_messages, 0);
    trn_gpu_close(storage);
}

static void explain_tells_what_is_stored_how(void **state)
{
    (void)state;
    trn_text text = {0};
    trn_graph *graph = build_block();
    trn_exec *exec = run(gpu, graph, &(trn_compile_options){.precision = TRN_PRECISION_FLOAT16}, NULL, NULL);
    trn_exec_explain(exec, &text);
    const char *said = trn_text_get(&text);
    assert_non_null(strstr(said, "stored as float16"));
    assert_non_null(strstr(said, "float32 (the host reads it)"));
    assert_non_null(strstr(said, "reduce writes float32"));
    assert_non_null(strstr(said, "precision: float16 for "));
    trn_text_free(&text);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

/* Numbers that float16 has not, until they are normalised. */
static void host_values_keep_their_digits(void **state)
{
    (void)state;
    float values[VALUES];
    trn_graph *graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(ROWS, WIDE)), *large, *y;
    large = trn_affine(graph, x, 100, 123456); /* is read twice: stays in memory */
    y = trn_permute(graph, large, (int[]){1, 0});
    y = trn_affine(graph, y, 0.01F, -1234.56F);
    trn_output_add(graph, "large", large);
    y = trn_softmax(graph, trn_permute(graph, y, (int[]){1, 0}));
    trn_output_add(graph, "y", trn_affine(graph, y, 1, 0));
    float *expected = malloc(VALUES * sizeof *expected);
    trn_compile_options options = {.no_fusion = true};
    trn_exec_destroy(run(gpu, graph, &options, "y", expected));
    options.precision = TRN_PRECISION_FLOAT16;
    trn_exec *exec = run(gpu, graph, &options, "y", values);
    assert_true(trn_exec_summarize(exec).half_values >= 2);
    assert_true(trn_worst_error(values, expected, VALUES) < 2e-3);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
    free(expected);
}

static void what_leaves_the_range_is_found(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_text what = {0};
    bool found = false;
    trn_graph *graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(1, ROWS, WIDE)), *y;
    y = trn_linear(graph, x, param(graph, "w", WIDE, WIDE), NULL);
    y = trn_affine(graph, y, 0, 7e4F);
    y = trn_softmax(graph, y);
    trn_output_add(graph, "y", y);
    trn_compile_options options = {.precision = TRN_PRECISION_FLOAT16, .keep_all = true, .no_fusion = true};
    trn_exec *exec = run(gpu, graph, &options, NULL, NULL);
    assert_trn_ok(trn_exec_first_nonfinite(exec, &found, &what, &err), err);
    assert_true(found);
    assert_non_null(strstr(trn_text_get(&what), "affine"));
    trn_text_free(&what);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

/* ---- refusals ---- */

static void weights_beyond_the_range_are_named(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_exec *exec;
    double scale = 1e6;
    trn_graph *graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(ROWS, WIDE));
    x = trn_linear(graph, x, param(graph, "w", WIDE, WIDE), NULL);
    x = trn_add(graph, x, trn_param(graph, "table", TRN_SHAPE(ROWS, WIDE), test_fill, &scale));
    trn_output_add(graph, "y", x);
    trn_compile_options options = {.precision = TRN_PRECISION_FLOAT16};
    assert_trn_fails(trn_compile(graph, gpu, &options, &exec, &err), TRN_ERR_UNSUPPORTED, err,
                     "'table' [37,44] has values beyond 65504");
    trn_graph_destroy(graph);
}

static void constants_beyond_the_range_stay(void **state)
{
    (void)state;
    float values[VALUES], *table = test_hash_values("table", VALUES, 1e6, 0);
    trn_graph *graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(ROWS, WIDE));
    trn_output_add(graph, "y", trn_add(graph, x, trn_constant(graph, "table", TRN_SHAPE(ROWS, WIDE), table)));
    trn_exec *exec = run(gpu, graph, &(trn_compile_options){.precision = TRN_PRECISION_FLOAT16}, "y", values);
    assert_int_equal(trn_exec_summarize(exec).half_values, 0);
    assert_true(trn_worst_error(values, table, VALUES) < 2e-6);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
    free(table);
}

static void training_is_refused(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_exec *exec;
    trn_graph *graph = trn_graph_create();
    trn_tensor *s = trn_state(graph, "s", TRN_SHAPE(5), NULL, NULL);
    trn_update(graph, s, trn_affine(graph, s, 1, 1));
    trn_compile_options options = {.precision = TRN_PRECISION_FLOAT16};
    assert_trn_fails(trn_compile(graph, gpu, &options, &exec, &err), TRN_ERR_ARGUMENT, err,
                     "training takes mixed precision");
    trn_graph_destroy(graph);
}

static void devices_without_it_are_refused(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_gpu *poor;
    trn_exec *exec;
    trn_graph *graph = build_block();
    setenv("TERRANE_DISABLE", "fp16", 1);
    assert_trn_ok(trn_gpu_open(NULL, &poor, &err), err);
    trn_compile_options options = {.precision = TRN_PRECISION_FLOAT16};
    assert_trn_fails(trn_compile(graph, poor, &options, &exec, &err), TRN_ERR_UNSUPPORTED, err,
                     "take precision float32 or auto");
    err = (trn_error){0};
    options = (trn_compile_options){.precision = TRN_PRECISION_AUTO, .plan_only = true};
    assert_trn_ok(trn_compile(graph, poor, &options, &exec, &err), err);
    assert_int_equal(trn_exec_summarize(exec).precision, TRN_PRECISION_FLOAT32);
    trn_exec_destroy(exec);
    trn_gpu_close(poor);
    unsetenv("TERRANE_DISABLE");
    trn_graph_destroy(graph);
}

static void auto_asks_the_quirks(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_precision chosen;
    const trn_device_info *info = trn_gpu_info(gpu);
    bool good = info->storage16 && !(info->quirks & TRN_QUIRK_EMULATED_FLOAT16);
    assert_trn_ok(trn_precision_choose(gpu, TRN_PRECISION_AUTO, &chosen, &err), err);
    assert_int_equal(chosen, good ? TRN_PRECISION_FLOAT16 : TRN_PRECISION_FLOAT32);
    assert_string_equal(trn_precision_name(TRN_PRECISION_AUTO), "auto");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(half_is_near_and_smaller),
        cmocka_unit_test(runs_give_the_same_bits),
        cmocka_unit_test(storage_buffers_hold_halves),
        cmocka_unit_test(explain_tells_what_is_stored_how),
        cmocka_unit_test(host_values_keep_their_digits),
        cmocka_unit_test(what_leaves_the_range_is_found),
        cmocka_unit_test(weights_beyond_the_range_are_named),
        cmocka_unit_test(constants_beyond_the_range_stay),
        cmocka_unit_test(training_is_refused),
        cmocka_unit_test(devices_without_it_are_refused),
        cmocka_unit_test(auto_asks_the_quirks),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
