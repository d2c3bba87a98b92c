/* The operator table as data: kernel variants on a device, and every case of every operator against its C
 * reference. */
#include "exec.h"

#include <stdlib.h>
#include <string.h>

trn_status trn_kernel_variants(const trn_gpu *gpu, trn_kernel_variant_info **list, size_t *count,
                               trn_error *err)
{
    size_t capacity = 0;
    *list = NULL;
    *count = 0;
    for (const trn_op *const *op = trn_op_table; *op; op++) {
        for (int v = 0; v < (*op)->variant_count; v++) {
            const trn_variant *variant = &(*op)->variants[v];
            if (!trn_grow(list, &capacity, *count + 1, sizeof **list)) {
                free(*list);
                *list = NULL;
                return trn_fail_memory(err, sizeof **list, "a list of kernels");
            }
            trn_kernel_variant_info *info = &(*list)[(*count)++];
            *info = (trn_kernel_variant_info){
                .op = (*op)->name, .variant = variant->name, .description = variant->description};
            info->applies = !variant->applies || variant->applies(gpu, info->why_not);
        }
    }
    return TRN_OK;
}

/* Input values by name: floats are uniform in [-1,1), times k when the name ends in "*k"; integers lie
 * within, at both ends and outside of the ranges that the cases index. */
static void *input_values(const trn_tensor *input)
{
    static const int32_t odd[] = {0, -1, 1, INT32_MAX, 2, INT32_MIN, 3, 1000003};
    void *values = malloc((size_t)input->count * 4);
    if (!values) return NULL;
    const char *star = strrchr(input->name, '*');
    double scale = star ? atof(star + 1) : 1;
    uint64_t hash = trn_fnv1a64(input->name, strlen(input->name), TRN_FNV_SEED);
    for (int64_t i = 0; i < input->count; i++) {
        double uniform = trn_hash_uniform(hash, (uint64_t)i);
        if (input->type == TRN_F32)
            ((float *)values)[i] = (float)(scale * uniform);
        else
            ((int32_t *)values)[i] = i < (int64_t)TRN_COUNT(odd) ? odd[i] : (int32_t)(20 + 24 * uniform);
    }
    return values;
}

typedef struct case_data {
    trn_named_data *inputs, *expected;
    int input_count, output_count;
    float *actual;
} case_data;

static void free_case(case_data *data)
{
    for (int i = 0; i < data->input_count; i++)
        free(data->inputs[i].data);
    for (int i = 0; i < data->output_count; i++)
        free(data->expected[i].data);
    free(data->inputs);
    free(data->expected);
    free(data->actual);
}

static trn_status make_case(const trn_graph *graph, case_data *data, trn_error *err)
{
    data->inputs = calloc(graph->tensor_count + 1, sizeof *data->inputs);
    data->expected = calloc(graph->output_count + 1, sizeof *data->expected);
    if (!data->inputs || !data->expected) return trn_fail_memory(err, 1, "a test case");
    int64_t largest = 1;
    for (size_t i = 0; i < graph->tensor_count; i++) {
        const trn_tensor *tensor = graph->tensors[i];
        if (!tensor->is_input) continue;
        trn_named_data *input = &data->inputs[data->input_count++];
        *input = (trn_named_data){tensor->name, input_values(tensor)};
        if (!input->data) return trn_fail_memory(err, (size_t)tensor->count * 4, "a test case");
    }
    for (size_t i = 0; i < graph->output_count; i++) {
        int64_t count = graph->outputs[i].tensor->count;
        trn_named_data *output = &data->expected[data->output_count++];
        *output = (trn_named_data){graph->outputs[i].name, malloc((size_t)count * 4)};
        if (!output->data) return trn_fail_memory(err, (size_t)count * 4, "a test case");
        largest = TRN_MAX(largest, count);
    }
    data->actual = malloc((size_t)largest * 4);
    return data->actual ? TRN_OK : trn_fail_memory(err, (size_t)largest * 4, "a test case");
}

static trn_status compare_outputs(trn_graph *graph, trn_exec *exec, case_data *data, trn_op_result *result,
                                  trn_error *err)
{
    for (int i = 0; i < data->output_count; i++) {
        trn_status status = trn_exec_get(exec, data->expected[i].name, data->actual, err);
        if (status != TRN_OK) return status;
        double error = trn_worst_error(data->actual, data->expected[i].data, graph->outputs[i].tensor->count);
        if (!(error <= result->error)) result->error = error;
        if (!(error <= result->tolerance) && !result->message[0])
            snprintf(result->message, sizeof result->message, "output '%s' differs by %.2e",
                     data->expected[i].name, error);
    }
    return TRN_OK;
}

static trn_status run_case(trn_gpu *gpu, trn_graph *graph, const trn_progress *progress,
                           trn_op_result *result, trn_error *err)
{
    case_data data = {0};
    trn_exec *exec = NULL;
    trn_status status = make_case(graph, &data, err);
    if (status == TRN_OK)
        status = trn_compile(graph, gpu, &(trn_compile_options){.poison = true}, &exec, err);
    for (int i = 0; status == TRN_OK && i < data.input_count; i++)
        status = trn_exec_set(exec, data.inputs[i].name, data.inputs[i].data, err);
    uint64_t start = trn_now_ns();
    if (status == TRN_OK) status = trn_exec_run(exec, progress, err);
    result->seconds = (double)(trn_now_ns() - start) * 1e-9;
    if (status == TRN_OK)
        status =
            trn_reference_run(graph, data.inputs, data.input_count, data.expected, data.output_count, err);
    if (status == TRN_OK) status = compare_outputs(graph, exec, &data, result, err);
    trn_exec_destroy(exec);
    free_case(&data);
    return status;
}

trn_status trn_graph_selftest(trn_gpu *gpu, trn_graph *graph, const trn_progress *progress,
                              trn_op_result *result, trn_error *err)
{
    trn_error why = {0};
    trn_status status = run_case(gpu, graph, progress, result, &why);
    if (status == TRN_ERR_DEVICE_LOST || status == TRN_ERR_CANCELLED) {
        if (err) *err = why;
        return status;
    }
    if (status != TRN_OK) snprintf(result->message, sizeof result->message, "%.500s", why.message);
    result->ok = status == TRN_OK && result->error <= result->tolerance;
    return TRN_OK;
}

bool trn_graph_lacks_float16(const trn_graph *graph, const trn_gpu *gpu)
{
    for (size_t i = 0; i < graph->tensor_count && !trn_gpu_info(gpu)->storage16; i++) {
        if (graph->tensors[i]->type == TRN_F16) return true;
    }
    return false;
}

/* result->op stays NULL when the device cannot run the case. */
static trn_status test_case(trn_gpu *gpu, const trn_op *op, const trn_op_case *op_case,
                            const trn_progress *progress, trn_op_result *result, trn_error *err)
{
    trn_status status = TRN_OK;
    trn_graph *graph = trn_graph_create();
    if (!graph) return trn_fail_memory(err, 1, "a graph");
    op_case->build(graph);
    if (!trn_graph_lacks_float16(graph, gpu)) {
        *result = (trn_op_result){.op = op->name,
                                  .label = op_case->label,
                                  .tolerance = op_case->tolerance > 0 ? op_case->tolerance : 1e-5};
        status = trn_graph_selftest(gpu, graph, progress, result, err);
    }
    trn_graph_destroy(graph);
    return status;
}

trn_status trn_op_selftest(trn_gpu *gpu, const char *filter,
                           void (*report)(void *user, const trn_op_result *result), void *user,
                           const trn_progress *progress, trn_error *err)
{
    for (const trn_op *const *op = trn_op_table; *op; op++) {
        if (filter && !strstr((*op)->name, filter)) continue;
        for (int c = 0; c < (*op)->case_count; c++) {
            trn_op_result result = {0};
            if (trn_progress_cancelled(progress)) return trn_fail_cancelled(err, "the self-test");
            trn_status status = test_case(gpu, *op, &(*op)->cases[c], progress, &result, err);
            if (status != TRN_OK) return status;
            if (result.op) report(user, &result);
        }
    }
    return TRN_OK;
}
