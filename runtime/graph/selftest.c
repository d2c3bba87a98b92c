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

static trn_status run_case(trn_gpu *gpu, trn_graph *graph, const trn_compile_options *options,
                           const trn_progress *progress, trn_op_result *result, trn_error *err)
{
    case_data data = {0};
    trn_exec *exec = NULL;
    trn_status status = make_case(graph, &data, err);
    if (status == TRN_OK) status = trn_compile(graph, gpu, options, &exec, err);
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

static trn_status test_graph(trn_gpu *gpu, trn_graph *graph, const trn_compile_options *options,
                             const trn_progress *progress, trn_op_result *result, trn_error *err)
{
    trn_error why = {0};
    trn_status status = run_case(gpu, graph, options, progress, result, &why);
    if (status == TRN_ERR_DEVICE_LOST || status == TRN_ERR_CANCELLED) {
        if (err) *err = why;
        return status;
    }
    if (status != TRN_OK) snprintf(result->message, sizeof result->message, "%.500s", why.message);
    result->ok = status == TRN_OK && result->error <= result->tolerance;
    return TRN_OK;
}

trn_status trn_graph_selftest(trn_gpu *gpu, trn_graph *graph, trn_precision precision,
                              const trn_progress *progress, trn_op_result *result, trn_error *err)
{
    const trn_compile_options options = {.precision = precision, .poison = true};
    return test_graph(gpu, graph, &options, progress, result, err);
}

/* ---- cases once more, of what is stored as float16 ---- */

/* Of a graph that is built: x rounded to float16, through a kernel that can store it so. */
static trn_tensor *rounded(trn_graph *graph, trn_tensor *x)
{
    x = trn_cast(graph, trn_cast(graph, x, TRN_F16), TRN_F32);
    return trn_affine(graph, x, 1, 0);
}

static void replace_input(trn_graph *graph, size_t nodes, size_t tensors, const trn_tensor *from,
                          trn_tensor *to)
{
    for (size_t n = 0; n < nodes; n++) {
        for (int i = 0; i < graph->nodes[n]->input_count; i++) {
            if (graph->nodes[n]->inputs[i] == from) graph->nodes[n]->inputs[i] = to;
        }
    }
    for (size_t t = 0; t < tensors; t++) {
        if (graph->tensors[t]->view_of == from) graph->tensors[t]->view_of = to;
    }
}

/* The nodes from `first` on come before the others. */
static trn_status move_to_front(trn_graph *graph, size_t first, trn_error *err)
{
    size_t moved = graph->node_count - first;
    trn_node **order = calloc(graph->node_count + 1, sizeof(trn_node *));
    if (!order) return trn_fail_memory(err, graph->node_count, "a test case");
    memcpy(order, graph->nodes + first, moved * sizeof(trn_node *));
    memcpy(order + moved, graph->nodes, first * sizeof(trn_node *));
    for (size_t n = 0; n < graph->node_count; n++) {
        graph->nodes[n] = order[n];
        graph->nodes[n]->id = (int)n;
    }
    free(order);
    return TRN_OK;
}

/* Puts kernels between the host and what a case reads and writes, so that it can be stored as float16. */
static trn_status take_through_memory(trn_graph *graph, trn_error *err)
{
    size_t nodes = graph->node_count, tensors = graph->tensor_count;
    for (size_t t = 0; t < tensors; t++) {
        trn_tensor *x = graph->tensors[t];
        if (x->is_input && x->type == TRN_F32) replace_input(graph, nodes, tensors, x, rounded(graph, x));
    }
    trn_status status = trn_graph_status(graph, err);
    if (status == TRN_OK) status = move_to_front(graph, nodes, err);
    for (size_t i = 0; i < graph->output_count; i++)
        trn_tensor_base(graph->outputs[i].tensor)->is_output = false;
    for (size_t i = 0; status == TRN_OK && i < graph->output_count; i++) {
        trn_tensor *y = trn_affine(graph, graph->outputs[i].tensor, 1, 0);
        if (!y) return trn_graph_status(graph, err);
        y->is_output = true;
        graph->outputs[i].tensor = y;
    }
    return status;
}

/* Whether anything that the operator reads or writes would be stored as float16 here. */
static trn_status stores_half(trn_gpu *gpu, trn_graph *graph, const trn_op *op, bool *any, trn_error *err)
{
    trn_lower lower = {.graph = graph, .gpu = gpu, .arena = trn_arena_create()};
    if (!lower.arena) return trn_fail_memory(err, 1, "a test case");
    *any = false;
    trn_status status = trn_lower_graph(&lower, false, TRN_PRECISION_FLOAT16, err);
    for (size_t i = 0; status == TRN_OK && i < lower.group_count; i++) {
        const trn_group *group = &lower.groups[i];
        const trn_node *node = group->root ? group->root : group->chain[0];
        if (node->op != op) continue;
        *any |= trn_lower_is_half(&lower, group->out);
        for (int k = 0; k < node->input_count; k++)
            *any |= node->inputs[k] && trn_lower_is_half(&lower, node->inputs[k]);
    }
    trn_lower_free(&lower);
    return status;
}

bool trn_graph_lacks_float16(const trn_graph *graph, const trn_gpu *gpu)
{
    for (size_t i = 0; i < graph->tensor_count && !trn_gpu_info(gpu)->storage16; i++) {
        if (graph->tensors[i]->type == TRN_F16) return true;
    }
    return false;
}

typedef struct case_report {
    void (*report)(void *user, const trn_op_result *result);
    void *user;
    const trn_progress *progress;
    int rivals, turn; /* turn: which rival comes next, from case to case */
} case_report;

/* ---- the kernels that a case may run ---- */

typedef struct name_list {
    trn_arena *arena;
    const char **names;
    size_t count, capacity;
} name_list;

static trn_status keep_name(name_list *list, const char *name, trn_error *err)
{
    for (size_t i = 0; i < list->count; i++) {
        if (!strcmp(list->names[i], name)) return TRN_OK;
    }
    const char *copy = trn_arena_strdup(list->arena, name);
    if (!copy || !trn_grow(&list->names, &list->capacity, list->count + 1, sizeof *list->names))
        return trn_fail_memory(err, 64, "names of kernels");
    list->names[list->count++] = copy;
    return TRN_OK;
}

/* Names of candidates that nodes of the operator offer beside their defaults. */
static trn_status find_rivals(trn_gpu *gpu, trn_graph *graph, const trn_op *op,
                              const trn_compile_options *options, name_list *list, trn_error *err)
{
    trn_lower lower = {.graph = graph, .gpu = gpu, .arena = trn_arena_create(), .kernel = ""};
    if (!lower.arena) return trn_fail_memory(err, 1, "a test case");
    trn_status status = trn_lower_graph(&lower, !options->no_fusion, options->precision, err);
    for (size_t c = 0; status == TRN_OK && c < lower.choice_count; c++) {
        const trn_choice *choice = &lower.choices[c];
        for (int i = 1; status == TRN_OK && choice->node->op == op && i < choice->count; i++)
            status = keep_name(list, choice->candidates[i].name, err);
    }
    trn_lower_free(&lower);
    return status;
}

/* One run of the case by the kernel of this name ("": the default). */
static trn_status test_kernel(trn_gpu *gpu, trn_graph *graph, const trn_compile_options *options,
                              const char *kernel, const trn_op_result *what, const case_report *to,
                              trn_error *err)
{
    char label[192];
    trn_op_result result = *what;
    trn_compile_options with = *options;
    with.kernel = kernel;
    if (*kernel) {
        snprintf(label, sizeof label, "%s, by %s", what->label, kernel);
        result.label = label;
    }
    trn_status status = test_graph(gpu, graph, &with, to->progress, &result, err);
    if (status == TRN_OK) to->report(to->user, &result);
    return status;
}

/* By the default, then by `rivals` of the other kernels, in turns from case to case. */
static trn_status test_kernels(trn_gpu *gpu, trn_graph *graph, const trn_op *op,
                               const trn_compile_options *options, const trn_op_result *what, case_report *to,
                               trn_error *err)
{
    name_list list = {.arena = trn_arena_create()};
    if (!list.arena) return trn_fail_memory(err, 1, "names of kernels");
    trn_status status = test_kernel(gpu, graph, options, "", what, to, err);
    if (status == TRN_OK && to->rivals && trn_graph_status(graph, NULL) == TRN_OK) {
        trn_error why = {0}; /* what cannot be lowered has failed above, in its result */
        status = find_rivals(gpu, graph, op, options, &list, &why) == TRN_ERR_MEMORY
                     ? trn_fail_memory(err, 64, "names of kernels")
                     : TRN_OK;
    }
    for (size_t i = 0; status == TRN_OK && i < list.count && i < (size_t)to->rivals; i++)
        status = test_kernel(gpu, graph, options, list.names[(size_t)to->turn++ % list.count], what, to, err);
    free(list.names);
    trn_arena_destroy(list.arena);
    return status;
}

static trn_status test_case(trn_gpu *gpu, const trn_op *op, const trn_op_case *op_case, case_report *to,
                            trn_error *err)
{
    static const trn_compile_options options = {.poison = true};
    trn_status status = TRN_OK;
    trn_graph *graph = trn_graph_create();
    if (!graph) return trn_fail_memory(err, 1, "a graph");
    op_case->build(graph);
    if (!trn_graph_lacks_float16(graph, gpu)) {
        trn_op_result result = {.op = op->name,
                                .label = op_case->label,
                                .tolerance = op_case->tolerance > 0 ? op_case->tolerance : 1e-5};
        status = test_kernels(gpu, graph, op, &options, &result, to, err);
    }
    trn_graph_destroy(graph);
    return status;
}

/* Results are rounded to 11 bits as they are stored, and so is what lies between the nodes of a case. */
static trn_status test_half_case(trn_gpu *gpu, const trn_op *op, const trn_op_case *op_case, case_report *to,
                                 trn_error *err)
{
    static const trn_compile_options options = {
        .precision = TRN_PRECISION_FLOAT16, .poison = true, .no_fusion = true};
    bool any = false;
    char label[160];
    if (!op->half || !trn_gpu_info(gpu)->storage16) return TRN_OK;
    trn_graph *graph = trn_graph_create();
    if (!graph) return trn_fail_memory(err, 1, "a graph");
    op_case->build(graph);
    trn_status status = take_through_memory(graph, err);
    if (status == TRN_OK) status = stores_half(gpu, graph, op, &any, err);
    if (status == TRN_OK && any) {
        snprintf(label, sizeof label, "%s, stored as float16", op_case->label);
        trn_op_result result = {.op = op->name, .label = label, .tolerance = op_case->tolerance + 1.0 / 1024};
        status = test_kernels(gpu, graph, op, &options, &result, to, err);
    }
    trn_graph_destroy(graph);
    return status;
}

trn_status trn_op_selftest(trn_gpu *gpu, const char *filter, int rivals,
                           void (*report)(void *user, const trn_op_result *result), void *user,
                           const trn_progress *progress, trn_error *err)
{
    case_report to = {.report = report, .user = user, .progress = progress, .rivals = rivals};
    for (const trn_op *const *op = trn_op_table; *op; op++) {
        if (filter && !strstr((*op)->name, filter)) continue;
        for (int c = 0; c < (*op)->case_count; c++) {
            if (trn_progress_cancelled(progress)) return trn_fail_cancelled(err, "the self-test");
            trn_status status = test_case(gpu, *op, &(*op)->cases[c], &to, err);
            if (status == TRN_OK) status = test_half_case(gpu, *op, &(*op)->cases[c], &to, err);
            if (status != TRN_OK) return status;
        }
    }
    return TRN_OK;
}
