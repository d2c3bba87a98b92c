/* Every row of the operator table on every Vulkan device found, through addresses and through storage
 * buffers, against the C references; and every gradient rule against finite differences. */
#include "test_device.h"
#include "test_support.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph_internal.h"

static int failures, runs;

static void report(void *user, const trn_op_result *result)
{
    const char *device = user;
    runs++;
    if (result->ok) return;
    failures++;
    printf("FAILED %s: %s, %s: error %.2e, tolerance %.1e %s\n", device, result->op, result->label,
           result->error, result->tolerance, result->message);
}

static void run_cases(const char *name)
{
    trn_error err = {0};
    char user[320];
    snprintf(user, sizeof user, "%s", name);
    /* Kernels beside the default, for each case: a number, or "all". Plainly one, and none in the second
     * access: each is some more that CPU drivers compile. */
    const char *rivals = getenv("TERRANE_TEST_RIVALS");
    int plain = trn_gpu_access(gpu) == TRN_ACCESS_ADDRESS;
    int count = !rivals ? plain : !strcmp(rivals, "all") ? INT_MAX : atoi(rivals);
    assert_trn_ok(trn_op_selftest(gpu, getenv("TERRANE_TEST_OP"), count, report, user, NULL, &err), err);
}

static void operators_match_their_references(void **state)
{
    (void)state;
    failures = runs = 0;
    test_every_device(run_cases);
    printf("%d operator cases\n", runs);
    assert_true(runs > 0);
    assert_int_equal(failures, 0);
}

/* ---- gradients ---- */

enum { MAX_LEAVES = 64 };
typedef struct gradient_case {
    trn_graph *graph;
    trn_tensor *inputs[MAX_LEAVES], *grads[MAX_LEAVES];
    trn_named_data data[2 * MAX_LEAVES];
    int input_count, data_count;
} gradient_case;

static float *random_values(const char *name, int64_t count, double scale)
{
    return test_hash_values(name, count, scale, 0);
}

static void add_data(gradient_case *c, const trn_tensor *input, double scale)
{
    c->data[c->data_count++] = (trn_named_data){input->name, random_values(input->name, input->count, scale)};
}

/* loss = sum over outputs of sum(y * R) */
static trn_tensor *add_loss(gradient_case *c)
{
    trn_tensor *loss = NULL;
    size_t outputs = c->graph->output_count;
    for (size_t i = 0; i < outputs; i++) {
        trn_tensor *y = trn_reshape(c->graph, c->graph->outputs[i].tensor, TRN_SHAPE(-1));
        trn_tensor *seed =
            trn_input(c->graph, trn_arena_printf(c->graph->arena, "seed %s", c->graph->outputs[i].name),
                      TRN_F32, y->shape);
        add_data(c, seed, 1);
        trn_tensor *sum = trn_reduce(c->graph, trn_mul(c->graph, y, seed), 0, TRN_REDUCE_SUM, true);
        loss = loss ? trn_add(c->graph, loss, sum) : sum;
    }
    return loss;
}

static double loss_at(gradient_case *c, double step)
{
    trn_error err = {0};
    float loss;
    trn_named_data moved[2 * MAX_LEAVES];
    memcpy(moved, c->data, sizeof moved);
    for (int i = 0; i < c->input_count; i++) {
        int64_t n = c->inputs[i]->count;
        float *values = malloc((size_t)n * 4), *direction = random_values("direction", n, step);
        for (int64_t k = 0; k < n; k++)
            values[k] = ((float *)c->data[i].data)[k] + direction[k];
        moved[i].data = values;
        free(direction);
    }
    trn_named_data out = {"loss", &loss};
    assert_trn_ok(trn_reference_run(c->graph, moved, c->data_count, &out, 1, &err), err);
    for (int i = 0; i < c->input_count; i++)
        free(moved[i].data);
    return loss;
}

static double directional_gradient(gradient_case *c, double *size)
{
    trn_error err = {0};
    trn_exec *exec;
    double sum = 0;
    *size = 0;
    assert_trn_ok(trn_compile(c->graph, gpu, &(trn_compile_options){.poison = true}, &exec, &err), err);
    for (int i = 0; i < c->data_count; i++)
        assert_trn_ok(trn_exec_set(exec, c->data[i].name, c->data[i].data, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    for (int i = 0; i < c->input_count; i++) {
        if (!c->grads[i]) continue;
        int64_t n = c->inputs[i]->count;
        float *gradient = malloc((size_t)n * 4), *direction = random_values("direction", n, 1);
        char name[32];
        snprintf(name, sizeof name, "gradient %d", i);
        assert_trn_ok(trn_exec_get(exec, name, gradient, &err), err);
        for (int64_t k = 0; k < n; k++) {
            sum += (double)gradient[k] * (double)direction[k];
            *size += fabs((double)gradient[k] * (double)direction[k]);
        }
        free(gradient);
        free(direction);
    }
    trn_exec_destroy(exec);
    return sum;
}

static bool has_half(const trn_graph *graph)
{
    for (size_t i = 0; i < graph->tensor_count; i++) {
        if (graph->tensors[i]->type == TRN_F16) return true;
    }
    return false;
}

/* Steps of finite differences: wide ones across those of float16. */
static double step_of(const trn_graph *graph)
{
    return has_half(graph) ? 0.05 : 2e-3;
}

/* Nothing when an operator on the way says that it has no rule, or the case is of infinite values. */
static void check_gradient(const trn_op *op, const trn_op_case *op_case)
{
    gradient_case c = {.graph = trn_graph_create()};
    trn_error err = {0};
    op_case->build(c.graph);
    int64_t largest = 0;
    for (size_t i = 0; i < c.graph->tensor_count; i++) {
        trn_tensor *tensor = c.graph->tensors[i];
        largest = TRN_MAX(largest, tensor->count);
        if (!tensor->is_input || tensor->type != TRN_F32) continue;
        assert_true(c.input_count < MAX_LEAVES);
        c.inputs[c.input_count++] = tensor;
        const char *star = strrchr(tensor->name, '*');
        add_data(&c, tensor, star ? atof(star + 1) : 1);
    }
    for (size_t i = 0; i < c.graph->tensor_count; i++) {
        const trn_tensor *tensor = c.graph->tensors[i];
        if (!tensor->is_input || tensor->type != TRN_I32) continue;
        add_data(&c, tensor, 0); /* zeros are in range for every index */
    }
    if (largest > 60000 || !c.input_count) goto done; /* float sums of more terms say nothing */
    if (has_half(c.graph) && !trn_gpu_info(gpu)->storage16) goto done;
    trn_tensor *loss = add_loss(&c);
    trn_output_add(c.graph, "loss", loss);
    trn_status status = trn_gradients(c.graph, loss, NULL, c.inputs, c.input_count, c.grads, &err);
    if (!op->gradient) {
        assert_trn_fails(status, TRN_ERR_UNSUPPORTED, err, op->why_no_gradient);
        goto done;
    }
    assert_trn_ok(status, err);
    for (int i = 0; i < c.input_count; i++) {
        char name[32];
        snprintf(name, sizeof name, "gradient %d", i);
        if (c.grads[i]) trn_output_add(c.graph, name, c.grads[i]);
    }
    if (!isfinite(loss_at(&c, 0))) goto done;
    double size, analytic = directional_gradient(&c, &size), h = step_of(c.graph);
    double numeric = (loss_at(&c, h) - loss_at(&c, -h)) / (2 * h);
    double error = fabs(analytic - numeric) / TRN_MAX(size, 1e-3);
    if (!(error < 5e-3)) {
        failures++;
        printf("FAILED gradient of %s, %s: %.6g, finite differences %.6g (error %.2e)\n", op->name,
               op_case->label, analytic, numeric, error);
    }
    runs++;
done:
    for (int i = 0; i < c.data_count; i++)
        free(c.data[i].data);
    trn_graph_destroy(c.graph);
}

static void run_gradients(const char *name)
{
    (void)name;
    const char *filter = getenv("TERRANE_TEST_OP");
    for (const trn_op *const *op = trn_op_table; *op; op++) {
        if (filter && !strstr((*op)->name, filter)) continue;
        for (int i = 0; i < (*op)->case_count; i++)
            check_gradient(*op, &(*op)->cases[i]);
    }
}

static void gradients_match_finite_differences(void **state)
{
    (void)state;
    failures = runs = 0;
    test_every_device(run_gradients);
    printf("%d gradients\n", runs);
    assert_int_equal(failures, 0);
}

static void operators_have_a_rule_or_a_reason(void **state)
{
    (void)state;
    for (const trn_op *const *op = trn_op_table; *op; op++) {
        if ((*op)->gradient ? !(*op)->why_no_gradient : (*op)->why_no_gradient && *(*op)->why_no_gradient)
            continue;
        fail_msg("%s needs a gradient rule, or a reason why there is none", (*op)->name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operators_match_their_references),
        cmocka_unit_test(operators_have_a_rule_or_a_reason),
        cmocka_unit_test(gradients_match_finite_differences),
    };
    return cmocka_run_group_tests_name("operators", tests, NULL, NULL);
}
