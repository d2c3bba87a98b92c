/* Gradient checkpointing: the same bits as without, in less memory, and nothing computed twice in vain. */
#include "test_device.h"
#include "test_graph.h"
#include "test_support.h"

#include <stdlib.h>
#include <string.h>

#include "graph.h"

enum { B = 2, N = 5, C = 12, HEADS = 3, HIDDEN = 40, DEPTH = 2, MAX_PARAMS = 128, MAX_VALUES = 1 << 14 };

/* What a stack of blocks looks like. */
typedef struct tower {
    bool recompute, frozen_first; /* the first block does not learn */
    int depth;
    int64_t tokens, hidden;
} tower;

static bool learns(void *user, const char *name)
{
    return !((const tower *)user)->frozen_first || !strstr(name, ".0");
}

static trn_tensor *param(trn_graph *graph, const char *name, int block, trn_shape shape)
{
    char full[48];
    snprintf(full, sizeof full, "%s.%d", name, block);
    return trn_param(graph, full, shape, test_fill, NULL);
}

static trn_tensor *linear(trn_graph *graph, const char *name, int block, trn_tensor *x, int64_t out)
{
    char bias[16];
    snprintf(bias, sizeof bias, "%s.bias", name);
    trn_tensor *w = param(graph, name, block, TRN_SHAPE(out, trn_tensor_dim(x, -1)));
    return trn_linear(graph, x, w, param(graph, bias, block, TRN_SHAPE(out)));
}

static trn_tensor *norm(trn_graph *graph, const char *name, int block, trn_tensor *x)
{
    return trn_layer_norm(graph, x, param(graph, name, block, TRN_SHAPE(C)), NULL, 1e-5F);
}

/* Half of the values are dropped; a table of constants and a value that only forward needs are in it too. */
static trn_tensor *one_block(trn_graph *graph, trn_tensor *x, trn_tensor *counters, int block,
                             const tower *stack)
{
    float ones[C];
    for (int i = 0; i < C; i++)
        ones[i] = 1 + 0.1F * (float)i;
    trn_tensor *table = trn_affine(graph, trn_constant(graph, "table", TRN_SHAPE(C), ones), 0.5F, 0);
    trn_tensor *y = linear(graph, "qkv", block, norm(graph, "norm1", block, x), (int64_t)3 * C);
    y = linear(graph, "proj", block, trn_self_attention(graph, y, HEADS, NULL), C);
    x = trn_add(graph, x, trn_mul(graph, y, table));
    y = linear(graph, "fc1", block, norm(graph, "norm2", block, x), stack->hidden);
    y = trn_softmax(graph, trn_unary(graph, "gelu", y));
    trn_tensor *u = trn_random_uniform(graph, counters, 3, (uint32_t)block, *trn_tensor_shape(y));
    y = trn_mul(graph, y, trn_max(graph, trn_affine(graph, u, 1, -0.5F), trn_affine(graph, u, 0, 0)));
    y = trn_reshape(graph, y, TRN_SHAPE(-1, stack->hidden));
    y = trn_reshape(graph, linear(graph, "fc2", block, y, C), *trn_tensor_shape(x));
    return trn_add(graph, x, y);
}

static trn_graph *build(const tower *stack, int *params)
{
    trn_error err = {0};
    trn_tensor *grads[MAX_PARAMS], *wrt[MAX_PARAMS];
    char name[64];
    const char *of;
    int count = 0;
    trn_graph *graph = trn_graph_create();
    trn_graph_train(graph, learns, (void *)(uintptr_t)stack);
    trn_graph_recompute(graph, stack->recompute);
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(B, stack->tokens, C));
    trn_tensor *counters = trn_input(graph, "counters", TRN_I32, TRN_SHAPE(B, 2));
    for (int block = 0; block < stack->depth; block++) {
        trn_graph_block_begin(graph);
        x = one_block(graph, x, counters, block, stack);
        trn_graph_block_end(graph);
    }
    x = trn_reduce(graph, trn_unary(graph, "square", norm(graph, "head", 9, x)), 1, TRN_REDUCE_MEAN, false);
    trn_output_add(graph, "y", x);
    while ((wrt[count] = trn_graph_learning(graph, (size_t)count, NULL)))
        assert_true(++count < MAX_PARAMS);
    assert_trn_ok(trn_gradients(graph, x, NULL, wrt, count, grads, &err), err);
    for (int i = 0; i < count; i++) {
        trn_graph_learning(graph, (size_t)i, &of);
        snprintf(name, sizeof name, "d.%s", of);
        assert_non_null(grads[i]);
        trn_output_add(graph, name, grads[i]);
    }
    assert_trn_ok(trn_graph_status(graph, &err), err);
    *params = count;
    return graph;
}

static trn_exec *compiled(trn_graph *graph, const trn_compile_options *options)
{
    trn_error err = {0};
    trn_exec *exec;
    assert_trn_ok(trn_compile(graph, gpu, options, &exec, &err), err);
    return exec;
}

/* All outputs one behind the other; by the references when options is NULL. */
static size_t evaluate(const tower *stack, const trn_compile_options *options, float *values)
{
    trn_error err = {0};
    int params;
    size_t at = 0;
    trn_graph *graph = build(stack, &params);
    float *x = test_hash_values("x", B * stack->tokens * C, 1, 0);
    int32_t counters[] = {4, 1, 77, 1};
    trn_named_data in[] = {{"x", x}, {"counters", counters}}, out[MAX_PARAMS + 1];
    char names[MAX_PARAMS + 1][64];
    out[0] = (trn_named_data){"y", values};
    at = B * C;
    for (int i = 0; i < params; i++) {
        const char *of;
        trn_tensor *learning = trn_graph_learning(graph, (size_t)i, &of);
        snprintf(names[i], sizeof names[i], "d.%s", of);
        out[i + 1] = (trn_named_data){names[i], values + at};
        at += (size_t)trn_shape_count(trn_tensor_shape(learning));
        assert_true(at <= MAX_VALUES);
    }
    trn_exec *exec = options ? compiled(graph, options) : NULL;
    for (int i = 0; exec && i < 2; i++)
        assert_trn_ok(trn_exec_set(exec, in[i].name, in[i].data, &err), err);
    if (exec)
        assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    else
        assert_trn_ok(trn_reference_run(graph, in, 2, out, params + 1, &err), err);
    for (int i = 0; exec && i <= params; i++)
        assert_trn_ok(trn_exec_get(exec, out[i].name, out[i].data, &err), err);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
    free(x);
    return at;
}

static void expect_same_bits(tower stack, const trn_compile_options *options)
{
    static float usual[MAX_VALUES], again[MAX_VALUES];
    stack.recompute = false;
    size_t count = evaluate(&stack, options, usual);
    stack.recompute = true;
    assert_int_equal(evaluate(&stack, options, again), count);
    bool differ = false;
    for (size_t i = 0; i < count; i++)
        differ |= usual[i] != usual[0];
    assert_true(differ);
    assert_memory_equal(usual, again, count * sizeof *usual);
}

static const tower small = {.depth = DEPTH, .tokens = N, .hidden = HIDDEN};

static void gradients_are_the_same_bits(void **state)
{
    (void)state;
    expect_same_bits(small, NULL);
    expect_same_bits(small, &(trn_compile_options){.poison = true});
    expect_same_bits(small, &(trn_compile_options){.poison = true, .no_fusion = true});
    tower frozen = small;
    frozen.frozen_first = true;
    expect_same_bits(frozen, &(trn_compile_options){.poison = true});
}

static trn_exec_summary summary_of(tower stack, bool recompute)
{
    int params;
    stack.recompute = recompute;
    trn_graph *graph = build(&stack, &params);
    trn_exec *exec = compiled(graph, &(trn_compile_options){.plan_only = true});
    trn_exec_summary summary = trn_exec_summarize(exec);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
    return summary;
}

static void deep_stacks_take_less_memory(void **state)
{
    (void)state;
    tower deep = {.depth = 12, .tokens = 512, .hidden = 256};
    trn_exec_summary usual = summary_of(deep, false), again = summary_of(deep, true);
    print_message("arena %.1f MB, recomputed %.1f MB; %.2f and %.2f GFLOP\n",
                  (double)usual.arena_bytes * 1e-6, (double)again.arena_bytes * 1e-6, usual.flops * 1e-9,
                  again.flops * 1e-9);
    assert_true(again.arena_bytes * 4 < usual.arena_bytes);
    assert_true(again.flops > usual.flops && again.flops < 1.4 * usual.flops);
}

/* A block that does not learn, and through which no gradient passes, is computed once. */
static void frozen_blocks_are_computed_once(void **state)
{
    (void)state;
    tower one = {.depth = 1, .tokens = N, .hidden = HIDDEN, .frozen_first = true};
    trn_exec_summary usual = summary_of(one, false), again = summary_of(one, true);
    assert_int_equal(usual.operators, again.operators);
    /* so are the last product of a block, with its bias, the sum behind it, and constants */
    enum { NODES = 21, LAST = 3 };
    one.frozen_first = false;
    usual = summary_of(one, false);
    again = summary_of(one, true);
    assert_int_equal(again.operators - usual.operators, NODES - LAST);
    assert_int_equal(again.setup_dispatches, usual.setup_dispatches);
}

static void marks_must_pair(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_graph_recompute(graph, true);
    trn_graph_block_begin(graph);
    trn_graph_block_begin(graph); /* an inner block is part of the outer one */
    trn_graph_block_end(graph);
    trn_graph_block_end(graph);
    assert_trn_ok(trn_graph_status(graph, &err), err);
    trn_graph_block_end(graph);
    assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, "did not begin");
    trn_graph_destroy(graph);
}

/* A gradient asked for inside of a block, by what it has so far, and one that is asked for twice. */
static void gradients_may_be_taken_in_and_behind_blocks(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_graph_recompute(graph, true);
    trn_tensor *x = trn_state(graph, "x", TRN_SHAPE(3), test_fill, NULL), *first, *second, *third;
    trn_graph_block_begin(graph);
    trn_tensor *y = trn_unary(graph, "exp", trn_unary(graph, "square", x));
    assert_trn_ok(trn_gradients(graph, y, NULL, &x, 1, &first, &err), err);
    trn_graph_block_end(graph);
    assert_trn_ok(trn_gradients(graph, y, NULL, &x, 1, &second, &err), err);
    assert_trn_ok(trn_gradients(graph, y, NULL, &x, 1, &third, &err), err);
    trn_output_add(graph, "first", first);
    trn_output_add(graph, "second", second);
    trn_output_add(graph, "third", third);
    trn_exec *exec = compiled(graph, &(trn_compile_options){.poison = true});
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    float a[3], b[3], c[3];
    assert_trn_ok(trn_exec_get(exec, "first", a, &err), err);
    assert_trn_ok(trn_exec_get(exec, "second", b, &err), err);
    assert_trn_ok(trn_exec_get(exec, "third", c, &err), err);
    assert_true(a[0] != 0);
    assert_memory_equal(a, b, sizeof a);
    assert_memory_equal(a, c, sizeof a);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_the_same_bits),
        cmocka_unit_test(deep_stacks_take_less_memory),
        cmocka_unit_test(frozen_blocks_are_computed_once),
        cmocka_unit_test(marks_must_pair),
        cmocka_unit_test(gradients_may_be_taken_in_and_behind_blocks),
    };
    return cmocka_run_group_tests_name("recompute", tests, open_device, close_device);
}
