/* Every kernel that the matrix product offers on every device found, also those that are never fast there,
 * against the C reference. Each runs on one of the cases; with TERRANE_TEST_ALL=1 on all of them. */
#include "test_device.h"
#include "test_support.h"

#include <stdlib.h>
#include <string.h>

#include "exec.h"

typedef struct product {
    trn_shape a, b;
    bool transpose_a, transpose_b, gelu;
} product;

static int failures, runs, matrices;

static trn_graph *build(const product *p, bool half)
{
    trn_graph *graph = trn_graph_create();
    trn_graph_mixed(graph, half);
    trn_tensor *a = trn_input(graph, "a", TRN_F32, p->a), *b = trn_input(graph, "b", TRN_F32, p->b);
    trn_tensor *y = trn_matmul(graph, a, b, p->transpose_a, p->transpose_b);
    trn_tensor *skip = trn_input(graph, "skip", TRN_F32, *trn_tensor_shape(y));
    trn_output_add(graph, "y", p->gelu ? trn_add(graph, skip, trn_unary(graph, "gelu", y)) : y);
    return graph;
}

static trn_named_data data_of(const trn_tensor *tensor)
{
    return (trn_named_data){tensor->name, test_hash_values(tensor->name, tensor->count, 1, 0)};
}

/* The error of the graph's output with one kernel. */
static double error_of(trn_graph *graph, const char *kernel, const trn_named_data *inputs, int input_count,
                       const float *expected)
{
    trn_error err = {0};
    trn_exec *exec;
    int64_t count = graph->outputs[0].tensor->count;
    float *actual = malloc((size_t)count * sizeof *actual);
    assert_trn_ok(
        trn_compile(graph, gpu, &(trn_compile_options){.poison = true, .kernel = kernel}, &exec, &err), err);
    for (int i = 0; i < input_count; i++)
        assert_trn_ok(trn_exec_set(exec, inputs[i].name, inputs[i].data, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    assert_trn_ok(trn_exec_get(exec, "y", actual, &err), err);
    double error = trn_worst_error(actual, expected, count);
    trn_exec_destroy(exec);
    free(actual);
    return error;
}

/* Of all the kernels offered, those whose turn it is. */
static void run_product(const product *p, int turn, int turns, bool half)
{
    trn_error err = {0};
    trn_exec *plan;
    trn_named_data inputs[3];
    int input_count = 0;
    trn_graph *graph = build(p, half);
    float *expected = malloc((size_t)graph->outputs[0].tensor->count * sizeof *expected);
    for (size_t i = 0; i < graph->tensor_count; i++)
        if (graph->tensors[i]->is_input) inputs[input_count++] = data_of(graph->tensors[i]);
    trn_named_data output = {"y", expected};
    assert_trn_ok(trn_reference_run(graph, inputs, input_count, &output, 1, &err), err);
    assert_trn_ok(trn_compile(graph, gpu, &(trn_compile_options){.plan_only = true}, &plan, &err), err);
    const char *only = getenv("TERRANE_TEST_KERNEL");
    const trn_choice *choice = NULL;
    for (size_t i = 0; i < plan->lower.choice_count && !choice; i++)
        if (!strcmp(plan->lower.choices[i].node->op->name, "matmul")) choice = &plan->lower.choices[i];
    assert_non_null(choice);
    for (int i = 0; i < choice->count; i++) {
        const char *name = choice->candidates[i].name;
        if (only ? !strstr(name, only) : i % turns != turn && !getenv("TERRANE_TEST_ALL")) continue;
        double error = error_of(graph, name, inputs, input_count, expected);
        runs++;
        matrices += !strncmp(name, "matrix", 6);
        if (error <= 1e-5) continue;
        failures++;
        printf("FAILED %s, case %d%s: error %.2e\n", name, turn, half ? " of float16" : "", error);
    }
    for (int i = 0; i < input_count; i++)
        free(inputs[i].data);
    free(expected);
    trn_exec_destroy(plan);
    trn_graph_destroy(graph);
}

#define DIMS(...)                                                                                            \
    {                                                                                                        \
        .ndim = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .dim = { __VA_ARGS__ }            \
    }
static const product products[] = {
    {DIMS(37, 45), DIMS(71, 45), false, true, true},
    {DIMS(2, 19, 52), DIMS(2, 52, 140), false, false, false},
    {DIMS(3, 43, 34), DIMS(3, 43, 29), true, false, false},
    {DIMS(2, 40, 72), DIMS(2, 33, 40), true, true, false},
    {DIMS(140, 64), DIMS(136, 64), false, true, true},
    {DIMS(9, 4200), DIMS(12, 4200), false, true, true},
};

static void run_products(const char *device)
{
    const int count = (int)TRN_COUNT(products), before = matrices;
    char why_not[128];
    (void)device;
    for (int i = 0; i < count; i++) {
        run_product(&products[i], i, count, false);
        if (trn_gpu_info(gpu)->storage16) run_product(&products[i], i, count, true);
    }
    if (trn_gpu_info(gpu)->cooperative_matrix && trn_gpu_has_matrix_kernels(gpu, why_not) &&
        !getenv("TERRANE_TEST_KERNEL"))
        assert_true(matrices > before);
}

static void kernels_match_the_reference(void **state)
{
    (void)state;
    test_every_device(run_products);
    printf("%d runs, %d of them with cooperative matrices\n", runs, matrices);
    assert_true(runs > 0);
    assert_int_equal(failures, 0);
}

static trn_status pack_kernel(void *user, const trn_listed_kernel *listed, trn_error *err)
{
    const trn_kernel *made;
    return trn_listed_compile(listed, user, &made, err);
}

/* Where the shader compiler knows cooperative matrices: the same products as a pack for every device, in
 * $TERRANE_TEST_PACK, with which a build of an older compiler passes this test. */
static void kernels_can_be_packed(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_shader_pack *pack;
    trn_device_info *devices = NULL;
    size_t count = 0;
    const char *wish = getenv("TERRANE_TEST_PACK");
    char *dir = strdup(wish ? wish : test_temp_dir());
    trn_status status = trn_shader_pack_create(dir, &pack, &err);
    if (status != TRN_OK) { /* an older compiler says so */
        assert_trn_fails(status, TRN_ERR_UNSUPPORTED, err, "libshaderc 2023.7 or newer");
        free(dir);
        return;
    }
    bool any = false;
    assert_trn_ok(trn_gpu_enumerate(&devices, &count, &err), err);
    for (size_t i = 0; i < 2 * count; i++) {
        trn_gpu *target;
        trn_access access = i % 2 ? TRN_ACCESS_STORAGE : TRN_ACCESS_ADDRESS;
        any |= devices[i / 2].cooperative_matrix;
        assert_trn_ok(trn_gpu_open_target(&devices[i / 2], access, pack, &target, &err), err);
        const trn_kernel_list_options options = {
            .candidates = true, .hopeless = true, .training = true, .report = pack_kernel, .user = target};
        for (size_t k = 0; k < TRN_COUNT(products); k++) {
            trn_graph *graph = build(&products[k], true);
            assert_trn_ok(trn_graph_kernels(graph, target, &options, &err), err);
            trn_graph_destroy(graph);
        }
        trn_gpu_close(target);
    }
    assert_int_equal(trn_shader_pack_count(pack) > 0, any);
    assert_trn_ok(trn_shader_pack_finish(pack, &err), err);
    trn_shader_pack_free(pack);
    free(devices);
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_match_the_reference),
        cmocka_unit_test(kernels_can_be_packed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
