/* Mixed precision: which tensors products take as float16, what that leaves as it is, and what is refused. */
#include "test_device.h"
#include "test_graph.h"
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph_internal.h"

enum { ROWS = 13, IN = 22, OUT = 17 };

static bool learns(void *user, const char *name)
{
    (void)user;
    return strcmp(name, "frozen") != 0;
}

static int count_casts(const trn_graph *graph)
{
    int count = 0;
    for (size_t i = 0; i < graph->node_count; i++)
        count += !strcmp(graph->nodes[i]->op->name, "cast");
    return count;
}

static trn_tensor *param(trn_graph *graph, const char *name, int64_t out, int64_t in)
{
    return trn_param(graph, name, TRN_SHAPE(out, in), test_fill, NULL);
}

/* Runs it on x from its name and gets an output. */
static trn_exec *run(trn_graph *graph, const trn_compile_options *options, int64_t count, const char *output,
                     float *values)
{
    trn_error err = {0};
    trn_exec *exec;
    float *x = test_hash_values("x", count, 1, 0);
    assert_trn_ok(trn_compile(graph, gpu, options, &exec, &err), err);
    assert_trn_ok(trn_exec_set(exec, "x", x, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    if (output) assert_trn_ok(trn_exec_get(exec, output, values, &err), err);
    free(x);
    return exec;
}

/* ---- casts ---- */

static void products_round_their_operands(void **state)
{
    (void)state;
    float values[3][ROWS * OUT];
    for (int i = 0; i < 3; i++) { /* float32; mixed; operands that are rounded by hand */
        trn_graph *graph = trn_graph_create();
        trn_graph_mixed(graph, i == 1);
        trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(ROWS, IN)), *w = param(graph, "w", OUT, IN);
        if (i == 2) x = trn_cast(graph, trn_cast(graph, x, TRN_F16), TRN_F32);
        if (i == 2) w = trn_cast(graph, trn_cast(graph, w, TRN_F16), TRN_F32);
        trn_output_add(graph, "y", trn_linear(graph, x, w, NULL));
        trn_exec_destroy(run(graph, NULL, ROWS * IN, "y", values[i]));
        trn_graph_destroy(graph);
    }
    double same = trn_worst_error(values[1], values[2], ROWS * OUT);
    double near = trn_worst_error(values[1], values[0], ROWS * OUT);
    assert_true(same < 1e-6);
    assert_true(near > 1e-5 && near < 2e-3);
}

static void tensors_are_cast_once(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_tensor *grads[2], *wrt[2];
    trn_graph *graph = trn_graph_create();
    trn_graph_train(graph, learns, NULL);
    trn_graph_mixed(graph, true);
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(ROWS, IN));
    trn_tensor *view = trn_reshape(graph, x, TRN_SHAPE(1, ROWS, IN));
    trn_tensor *a = trn_linear(graph, x, wrt[0] = param(graph, "a", OUT, IN), NULL);
    trn_tensor *b = trn_linear(graph, view, wrt[1] = param(graph, "b", OUT, IN), NULL);
    assert_int_equal(count_casts(graph), 3); /* x, and both weights */
    trn_tensor *y = trn_add(graph, a, trn_reshape(graph, b, TRN_SHAPE(ROWS, OUT)));
    trn_tensor *loss =
        trn_reduce(graph, trn_reshape(graph, trn_mul(graph, y, y), TRN_SHAPE(-1)), 0, TRN_REDUCE_MEAN, true);
    assert_trn_ok(trn_gradients(graph, loss, NULL, wrt, 2, grads, &err), err);
    assert_int_equal(count_casts(graph), 4); /* and the gradient that both products have */
    for (int i = 0; i < 2; i++) {
        assert_true(grads[i] && trn_tensor_type(grads[i]) == TRN_F32);
        assert_true(trn_shape_equal(trn_tensor_shape(grads[i]), trn_tensor_shape(wrt[i])));
        trn_output_add(graph, i ? "db" : "da", grads[i]);
    }
    float da[OUT * IN];
    trn_exec_destroy(run(graph, &(trn_compile_options){.check = true}, ROWS * IN, "da", da));
    trn_graph_mixed(graph, false); /* what is built now is of float32 */
    trn_linear(graph, y, param(graph, "c", IN, OUT), NULL);
    assert_int_equal(count_casts(graph), 4);
    trn_graph_destroy(graph);
}

/* Two products; in blocks that are computed again, and in a graph whose second weights do not learn. */
static trn_graph *build_two(bool mixed, bool recompute)
{
    trn_error err = {0};
    trn_tensor *gradient;
    trn_graph *graph = trn_graph_create();
    trn_graph_train(graph, learns, NULL);
    trn_graph_mixed(graph, mixed);
    trn_graph_recompute(graph, recompute);
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(ROWS, IN)), *w = param(graph, "w", OUT, IN);
    trn_graph_block_begin(graph);
    trn_tensor *y = trn_unary(graph, "gelu", trn_linear(graph, x, w, NULL));
    y = trn_linear(graph, trn_unary(graph, "exp", y), param(graph, "frozen", IN, OUT), NULL);
    trn_graph_block_end(graph);
    y = trn_linear(graph, trn_add(graph, x, y), w, NULL);
    y = trn_reduce(graph, trn_reshape(graph, trn_mul(graph, y, y), TRN_SHAPE(-1)), 0, TRN_REDUCE_MEAN, true);
    assert_trn_ok(trn_gradients(graph, y, NULL, &w, 1, &gradient, &err), err);
    trn_output_add(graph, "dw", gradient);
    return graph;
}

static void recomputed_blocks_give_the_same_bits(void **state)
{
    (void)state;
    float values[3][OUT * IN];
    for (int i = 0; i < 3; i++) {
        trn_graph *graph = build_two(i > 0, i == 2);
        trn_exec *exec = run(graph, &(trn_compile_options){.poison = true}, ROWS * IN, "dw", values[i]);
        /* weights that do not learn are cast when the graph is compiled */
        if (i) assert_true(trn_exec_summarize(exec).setup_dispatches >= 1);
        trn_exec_destroy(exec);
        trn_graph_destroy(graph);
    }
    double error = trn_worst_error(values[1], values[0], OUT * IN);
    assert_true(error > 1e-6 && error < 5e-3);
    assert_memory_equal(values[1], values[2], sizeof values[1]);
}

static void constants_of_float16_take_half(void **state)
{
    (void)state;
    enum { WIDE = 256 };
    uint64_t bytes[2];
    for (int i = 0; i < 2; i++) {
        trn_graph *graph = trn_graph_create();
        trn_graph_mixed(graph, i == 1);
        trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(1, 2, WIDE));
        trn_tensor *w = trn_param(graph, "w", TRN_SHAPE(1, WIDE, WIDE), test_fill, NULL);
        trn_output_add(graph, "y", trn_matmul(graph, x, w, false, true));
        trn_exec *exec = run(graph, NULL, 2L * WIDE, NULL, NULL);
        bytes[i] = trn_exec_summarize(exec).weight_bytes;
        trn_exec_destroy(exec);
        trn_graph_destroy(graph);
    }
    assert_true(bytes[0] >= 4 * WIDE * WIDE); /* packed, there may be some more */
    assert_int_equal(bytes[1], 2 * WIDE * WIDE);
}

/* ---- bad input ---- */

static void what_became_infinite_is_found(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_text what = {0};
    bool found = false;
    trn_graph *graph = trn_graph_create();
    trn_graph_mixed(graph, true);
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(ROWS, IN));
    x = trn_affine(graph, x, 0, 7e4F);
    trn_output_add(graph, "y", trn_linear(graph, x, param(graph, "w", OUT, IN), NULL));
    trn_compile_options options = {.keep_all = true, .no_fusion = true};
    trn_exec *exec = run(graph, &options, ROWS * IN, NULL, NULL);
    assert_trn_ok(trn_exec_first_nonfinite(exec, &found, &what, &err), err);
    assert_true(found);
    assert_non_null(strstr(trn_text_get(&what), "cast"));
    trn_text_free(&what);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

static void bad_softmax(trn_graph *graph, trn_tensor *half)
{
    trn_softmax(graph, half);
}

static void bad_add(trn_graph *graph, trn_tensor *half)
{
    trn_add(graph, half, half);
}

static void bad_permute(trn_graph *graph, trn_tensor *half)
{
    trn_permute(graph, half, (int[]){1, 0});
}

static void bad_output(trn_graph *graph, trn_tensor *half)
{
    trn_output_add(graph, "half", half);
}

static void bad_input(trn_graph *graph, trn_tensor *half)
{
    (void)half;
    trn_input(graph, "halves", TRN_F16, TRN_SHAPE(3));
}

static void bad_update(trn_graph *graph, trn_tensor *half)
{
    trn_update(graph, trn_state(graph, "s", *trn_tensor_shape(half), NULL, NULL), half);
}

static void bad_cast(trn_graph *graph, trn_tensor *half)
{
    trn_cast(graph, half, TRN_I32);
}

static void bad_product(trn_graph *graph, trn_tensor *half)
{
    trn_matmul(graph, half, trn_input(graph, "i", TRN_I32, TRN_SHAPE(IN, 2)), false, false);
}

static void everything_else_is_refused(void **state)
{
    (void)state;
    static const struct {
        void (*build)(trn_graph *graph, trn_tensor *half);
        const char *message;
    } cases[] = {
        {bad_softmax, "float16; it takes floats"},
        {bad_add, "float16"},
        {bad_permute, "float16, and it takes float32: cast it"},
        {bad_output, "output 'half' is float16: cast it to float32"},
        {bad_input, "input 'halves' is float16"},
        {bad_update, "its new value [13,22] of float16"},
        {bad_cast, "cast: [13,22] of integers, or to them"},
        {bad_product, "matmul: [13,22] does not fit"},
    };
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        trn_error err = {0};
        trn_graph *graph = trn_graph_create();
        trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(ROWS, IN));
        cases[i].build(graph, trn_cast(graph, x, TRN_F16));
        assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, cases[i].message);
        trn_graph_destroy(graph);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_round_their_operands),
        cmocka_unit_test(tensors_are_cast_once),
        cmocka_unit_test(recomputed_blocks_give_the_same_bits),
        cmocka_unit_test(constants_of_float16_take_half),
        cmocka_unit_test(what_became_infinite_is_found),
        cmocka_unit_test(everything_else_is_refused),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
