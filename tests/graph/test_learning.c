/* States, parameters that learn, and updates. */
#include "test_device.h"
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph_internal.h"

/* Counts its calls and writes 1, 2, 3 .. */
static trn_status fill_counting(void *user, const char *name, const trn_shape *shape, void *out,
                                trn_error *err)
{
    (void)name, (void)err;
    ++*(int *)user;
    for (int64_t i = 0; i < trn_shape_count(shape); i++)
        ((float *)out)[i] = (float)(i + 1);
    return TRN_OK;
}

static trn_status fill_failing(void *user, const char *name, const trn_shape *shape, void *out,
                               trn_error *err)
{
    (void)user, (void)shape, (void)out;
    return trn_fail(err, TRN_ERR_FORMAT, "no '%s' in the file", name);
}

static bool learns_named(void *user, const char *name)
{
    return strstr(name, user) != NULL;
}

static trn_exec *compiled(trn_graph *graph, const trn_compile_options *options)
{
    trn_error err = {0};
    trn_exec *exec;
    assert_trn_ok(trn_compile(graph, gpu, options, &exec, &err), err);
    return exec;
}

static void run(trn_exec *exec)
{
    trn_error err = {0};
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
}

static void expect(trn_exec *exec, const char *name, const float *wanted, size_t count)
{
    trn_error err = {0};
    float values[16];
    assert_true(count <= TRN_COUNT(values));
    assert_trn_ok(trn_exec_get(exec, name, values, &err), err);
    for (size_t i = 0; i < count; i++) {
        if (!(fabs((double)values[i] - (double)wanted[i]) <= 1e-6 * fabs((double)wanted[i])))
            fail_msg("%s[%zu] is %g, not %g", name, i, (double)values[i], (double)wanted[i]);
    }
}

static const trn_compile_options poison = {.poison = true};

static void states_last_from_run_to_run(void **state)
{
    (void)state;
    int fills = 0;
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_tensor *a = trn_state(graph, "a", TRN_SHAPE(3), fill_counting, &fills);
    trn_tensor *b = trn_state(graph, "b", TRN_SHAPE(3), NULL, NULL);
    trn_state(graph, "nobody reads it", TRN_SHAPE(5), fill_counting, &fills);
    trn_output_add(graph, "a", a);
    trn_output_add(graph, "y", trn_add(graph, trn_affine(graph, a, 2, 1), b));
    trn_exec *exec = compiled(graph, &poison);
    assert_int_equal(fills, 1);
    assert_int_equal(trn_exec_summarize(exec).setup_dispatches, 0); /* nothing is folded */
    for (int i = 0; i < 2; i++) {
        run(exec);
        expect(exec, "y", (float[]){3, 5, 7}, 3);
        expect(exec, "a", (float[]){1, 2, 3}, 3);
    }
    assert_trn_ok(trn_exec_set(exec, "b", (float[]){10, 20, 30}, &err), err);
    assert_trn_ok(trn_exec_set(exec, "a", (float[]){0, 0, 4}, &err), err);
    for (int i = 0; i < 2; i++) {
        run(exec);
        expect(exec, "y", (float[]){11, 21, 39}, 3);
    }
    assert_int_equal(fills, 1);
    trn_exec_destroy(exec);
    /* the references begin where compiling does, and take a state as an input */
    float y[3];
    trn_named_data given = {"b", (float[]){1, 1, 1}}, out = {"y", y};
    assert_trn_ok(trn_reference_run(graph, &given, 1, &out, 1, &err), err);
    assert_true(y[0] == 4 && y[1] == 6 && y[2] == 8);
    assert_null(trn_input(graph, "a", TRN_F32, TRN_SHAPE(1)));
    assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, "called 'a'");
    trn_graph_destroy(graph);
}

static void filling_a_state_may_fail(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_exec *exec;
    trn_graph *graph = trn_graph_create();
    trn_tensor *a = trn_state(graph, "a", TRN_SHAPE(3), fill_failing, NULL);
    trn_output_add(graph, "y", trn_affine(graph, a, 2, 1));
    assert_trn_fails(trn_compile(graph, gpu, NULL, &exec, &err), TRN_ERR_FORMAT, err, "no 'a' in the file");
    float y[3];
    trn_named_data out = {"y", y};
    assert_trn_fails(trn_reference_run(graph, NULL, 0, &out, 1, &err), TRN_ERR_FORMAT, err, "no 'a'");
    trn_graph_destroy(graph);
}

static void chosen_parameters_learn(void **state)
{
    (void)state;
    int fills = 0;
    trn_error err = {0};
    const char *name;
    char head[] = "head.";
    trn_graph *graph = trn_graph_create();
    trn_tensor *before = trn_param(graph, "head.early", TRN_SHAPE(2), fill_counting, &fills);
    trn_graph_train(graph, learns_named, head);
    trn_tensor *frozen = trn_param(graph, "body.w", TRN_SHAPE(2), fill_counting, &fills);
    trn_tensor *w = trn_param(graph, "head.w", TRN_SHAPE(2), fill_counting, &fills);
    assert_ptr_equal(trn_param(graph, "head.w", TRN_SHAPE(2), fill_counting, &fills), w);
    trn_tensor *b = trn_param(graph, "head.b", TRN_SHAPE(2), fill_counting, &fills);
    trn_graph_train(graph, NULL, NULL);
    trn_tensor *late = trn_param(graph, "head.late", TRN_SHAPE(2), fill_counting, &fills);
    assert_true(before->constant && frozen->constant && late->constant && !w->constant && !b->constant);
    assert_ptr_equal(trn_graph_learning(graph, 0, &name), w);
    assert_string_equal(name, "head.w");
    assert_ptr_equal(trn_graph_learning(graph, 1, NULL), b);
    assert_null(trn_graph_learning(graph, 2, NULL));
    /* y = frozen^2 * w^2: the first square is folded, the second is not */
    trn_tensor *y = trn_mul(graph, trn_unary(graph, "square", frozen), trn_unary(graph, "square", w));
    trn_tensor *grads[3], *wrt[] = {w, b, frozen};
    assert_trn_ok(trn_gradients(graph, y, NULL, wrt, 3, grads, &err), err);
    assert_null(grads[1]);
    trn_output_add(graph, "dw", grads[0]);
    trn_output_add(graph, "df", grads[2]);
    trn_exec *exec = compiled(graph, &poison);
    assert_true(trn_exec_summarize(exec).setup_dispatches > 0);
    run(exec);
    expect(exec, "dw", (float[]){2, 16}, 2);
    expect(exec, "df", (float[]){2, 16}, 2);
    assert_trn_ok(trn_exec_set(exec, "head.w", (float[]){3, 5}, &err), err);
    run(exec);
    expect(exec, "dw", (float[]){6, 40}, 2);
    expect(exec, "df", (float[]){18, 100}, 2);
    trn_exec_destroy(exec);
    trn_graph_train(graph, learns_named, head);
    assert_null(trn_param(graph, "head.w", TRN_SHAPE(3), fill_counting, &fills));
    assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err,
                     "'head.w' is [2], and is asked for again as [3]");
    trn_graph_destroy(graph);
}

/* Remembers what it was asked for, and writes ones. */
static trn_status fill_remembering(void *user, const char *name, const trn_shape *shape, void *out,
                                   trn_error *err)
{
    (void)err;
    snprintf(user, 32, "%s", name);
    for (int64_t i = 0; i < trn_shape_count(shape); i++)
        ((float *)out)[i] = 1;
    return TRN_OK;
}

static void prefixes_tell_networks_apart(void **state)
{
    (void)state;
    char asked[32] = "", student[] = "student.fc";
    trn_error err = {0};
    const char *name;
    trn_graph *graph = trn_graph_create();
    trn_graph_train(graph, learns_named, student);
    trn_graph_prefix(graph, "student.");
    trn_tensor *learning = trn_param(graph, "fc.w", TRN_SHAPE(2), fill_remembering, asked);
    assert_ptr_equal(trn_param(graph, "fc.w", TRN_SHAPE(2), fill_remembering, asked), learning);
    trn_graph_prefix(graph, NULL);
    trn_tensor *fixed = trn_param(graph, "fc.w", TRN_SHAPE(2), fill_remembering, asked);
    trn_graph_train(graph, NULL, NULL);
    assert_ptr_equal(trn_param(graph, "fc.w", TRN_SHAPE(2), fill_remembering, asked), fixed);
    assert_true(fixed != learning && fixed->constant && !learning->constant);
    assert_ptr_equal(trn_graph_learning(graph, 0, &name), learning);
    assert_string_equal(name, "student.fc.w");
    assert_null(trn_graph_learning(graph, 1, NULL));
    trn_output_add(graph, "y", learning);
    trn_exec *exec = compiled(graph, &poison);
    assert_string_equal(asked, "fc.w");
    assert_trn_ok(trn_exec_set(exec, "student.fc.w", (float[]){2, 3}, &err), err);
    run(exec);
    expect(exec, "y", (float[]){2, 3}, 2);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

/* w <- w - 0.25 * d(sum w^2 / 2)/dw = 0.75 w, and the number of steps beside it */
static void descend(const trn_compile_options *options)
{
    int fills = 0;
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_tensor *w = trn_state(graph, "w", TRN_SHAPE(3), fill_counting, &fills), *grad;
    trn_tensor *steps = trn_state(graph, "steps", TRN_SHAPE(1), NULL, NULL);
    trn_tensor *loss = trn_affine(graph, trn_unary(graph, "square", w), 0.5F, 0);
    loss = trn_reduce(graph, loss, 0, TRN_REDUCE_SUM, true);
    assert_trn_ok(trn_gradients(graph, loss, NULL, &w, 1, &grad, &err), err);
    trn_update(graph, w, trn_sub(graph, w, trn_affine(graph, grad, 0.25F, 0)));
    trn_update(graph, steps, trn_affine(graph, steps, 1, 1));
    trn_output_add(graph, "w", w);
    trn_output_add(graph, "steps", steps);
    trn_output_add(graph, "loss", loss);
    trn_exec *exec = compiled(graph, options);
    float factor = 1;
    for (int i = 0; i < 5; i++) {
        run(exec);
        expect(exec, "loss", (float[]){7 * factor * factor}, 1); /* of the old w */
        factor *= 0.75F;
        expect(exec, "w", (float[]){factor, 2 * factor, 3 * factor}, 3);
        expect(exec, "steps", (float[]){(float)(i + 1)}, 1);
    }
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

static void updates_step_down_a_gradient(void **state)
{
    (void)state;
    descend(&poison);
    descend(&(trn_compile_options){.poison = true, .no_fusion = true});
    descend(&(trn_compile_options){.check = true});
}

static void updates_see_the_old_values(void **state)
{
    (void)state;
    int fills = 0;
    trn_graph *graph = trn_graph_create();
    trn_tensor *a = trn_state(graph, "a", TRN_SHAPE(2, 2), fill_counting, &fills);
    trn_tensor *b = trn_state(graph, "b", TRN_SHAPE(2, 2), NULL, NULL);
    trn_tensor *c = trn_state(graph, "c", TRN_SHAPE(2), NULL, NULL);
    trn_update(graph, a, b);
    trn_update(graph, b, trn_reshape(graph, a, TRN_SHAPE(2, 2)));
    trn_update(graph, c, trn_constant(graph, "seven", TRN_SHAPE(2), (float[]){7, 8}));
    trn_output_add(graph, "a", a);
    trn_output_add(graph, "b", b);
    trn_output_add(graph, "c", c);
    trn_exec *exec = compiled(graph, &poison);
    for (int i = 0; i < 4; i++) {
        run(exec);
        expect(exec, i % 2 ? "a" : "b", (float[]){1, 2, 3, 4}, 4);
        expect(exec, i % 2 ? "b" : "a", (float[]){0, 0, 0, 0}, 4);
        expect(exec, "c", (float[]){7, 8}, 2);
    }
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

static void wrong_updates_are_refused(void **state)
{
    (void)state;
    const char *const messages[] = {"must be a state", "'s' is [2], its new value [3]", "updated twice"};
    for (int i = 0; i < 3; i++) {
        trn_error err = {0};
        trn_graph *graph = trn_graph_create();
        trn_tensor *s = trn_state(graph, "s", TRN_SHAPE(2), NULL, NULL);
        trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(2));
        trn_tensor *y = trn_input(graph, "y", TRN_F32, TRN_SHAPE(3));
        trn_update(graph, i == 0 ? x : s, i == 1 ? y : x);
        if (i == 2) trn_update(graph, s, x);
        assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, messages[i]);
        trn_graph_destroy(graph);
    }
}

/* ---- values that are not finite ---- */

/* log of (x w + c) in scope "head.", with what is wrong put into x, w or the sum. */
static void find_odd(const float *x, const float *w, float c, const char *wanted)
{
    trn_error err = {0};
    trn_text what = {0};
    bool found = true;
    trn_graph *graph = trn_graph_create();
    trn_tensor *in = trn_input(graph, "x", TRN_F32, TRN_SHAPE(3));
    trn_tensor *state = trn_state(graph, "w", TRN_SHAPE(3), NULL, NULL);
    trn_tensor *fixed = trn_affine(graph, trn_constant(graph, "c", TRN_SHAPE(1), &c), 1, 0);
    trn_graph_scope(graph, "head.");
    trn_tensor *y = trn_unary(graph, "log", trn_add(graph, trn_mul(graph, in, state), fixed));
    trn_output_add(graph, "y", trn_reduce(graph, y, 0, TRN_REDUCE_SUM, true));
    trn_exec *exec = compiled(graph, &(trn_compile_options){.keep_all = true, .no_fusion = true});
    assert_trn_fails(trn_exec_first_nonfinite(exec, &found, &what, &err), TRN_ERR_ARGUMENT, err, "has run");
    assert_trn_ok(trn_exec_set(exec, "x", x, &err), err);
    assert_trn_ok(trn_exec_set(exec, "w", w, &err), err);
    run(exec);
    assert_trn_ok(trn_exec_first_nonfinite(exec, &found, &what, &err), err);
    assert_int_equal(found, wanted != NULL);
    if (wanted) assert_string_equal(trn_text_get(&what), wanted);
    if (!wanted) assert_int_equal(what.length, 0);
    trn_text_free(&what);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

static void the_first_value_that_is_not_finite_is_named(void **state)
{
    (void)state;
    const float ones[3] = {1, 1, 1}, negative[3] = {1, -2, -3}, nan[3] = {1, NAN, 1},
                inf[3] = {1, 1, INFINITY};
    const float large[3] = {1, 3e38F, 1};
    find_odd(ones, ones, 0.5F, NULL);
    find_odd(negative, ones, 0.5F, "head.log [3]: 2 of 3 values are not finite");
    find_odd(large, large, 0.5F, "head.mul [3]: 1 of 3 values are not finite");
    find_odd(nan, ones, 0.5F, "input x [3]: 1 of 3 values are not finite");
    find_odd(nan, inf, 0.5F, "input x [3]: 1 of 3 values are not finite");
    find_odd(ones, inf, 0.5F, "state w [3]: 1 of 3 values are not finite");
    find_odd(ones, inf, NAN, "constant c [1]: 1 of 1 values are not finite");
}

/* A gradient that is not finite is named by the place it is the gradient of. */
static void gradients_are_named_by_their_operators(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_text what = {0};
    bool found;
    trn_tensor *grad;
    trn_graph *graph = trn_graph_create();
    trn_tensor *w = trn_state(graph, "w", TRN_SHAPE(3), NULL, NULL); /* zeros */
    trn_graph_scope(graph, "blocks.3.");
    trn_tensor *y = trn_unary(graph, "sqrt", w);
    trn_graph_scope(graph, "head.");
    y = trn_affine(graph, y, 2, 0);
    assert_trn_ok(trn_gradients(graph, y, NULL, &w, 1, &grad, &err), err);
    trn_output_add(graph, "d", grad);
    trn_exec *exec = compiled(graph, &(trn_compile_options){.keep_all = true, .no_fusion = true});
    run(exec);
    assert_trn_ok(trn_exec_first_nonfinite(exec, &found, &what, &err), err);
    assert_true(found);
    assert_string_equal(trn_text_get(&what), "blocks.3.sqrt [3]: 3 of 3 values are not finite");
    trn_text_free(&what);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

/* A fused graph shares memory and hides values: it is refused. */
static void fused_graphs_do_not_tell_what_is_not_finite(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_text what = {0};
    bool found;
    trn_graph *graph = trn_graph_create();
    trn_output_add(graph, "y", trn_affine(graph, trn_state(graph, "w", TRN_SHAPE(3), NULL, NULL), 1, 0));
    trn_exec *exec = compiled(graph, &(trn_compile_options){.keep_all = true});
    run(exec);
    assert_trn_fails(trn_exec_first_nonfinite(exec, &found, &what, &err), TRN_ERR_ARGUMENT, err, "no_fusion");
    trn_text_free(&what);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(states_last_from_run_to_run),
        cmocka_unit_test(filling_a_state_may_fail),
        cmocka_unit_test(chosen_parameters_learn),
        cmocka_unit_test(prefixes_tell_networks_apart),
        cmocka_unit_test(updates_step_down_a_gradient),
        cmocka_unit_test(updates_see_the_old_values),
        cmocka_unit_test(wrong_updates_are_refused),
        cmocka_unit_test(the_first_value_that_is_not_finite_is_named),
        cmocka_unit_test(gradients_are_named_by_their_operators),
        cmocka_unit_test(fused_graphs_do_not_tell_what_is_not_finite),
    };
    return cmocka_run_group_tests_name("learning", tests, open_device, close_device);
}
