/* The whole graph by the plain C references of its operators. */
#include "graph_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

trn_status trn_leaf_data(const trn_tensor *tensor, void **data, trn_error *err)
{
    size_t bytes = (size_t)tensor->count * 4;
    *data = malloc(bytes);
    if (!*data) return trn_fail_memory(err, bytes, tensor->name);
    if (tensor->values) {
        memcpy(*data, tensor->values, bytes);
        return TRN_OK;
    }
    trn_status status = TRN_OK;
    if (tensor->fill)
        status = tensor->fill(tensor->fill_user, tensor->asked ? tensor->asked : tensor->name, &tensor->shape,
                              *data, err);
    else
        memset(*data, 0, bytes); /* a state that begins with zeros */
    if (status != TRN_OK) {
        free(*data);
        *data = NULL;
    }
    return status;
}

double trn_worst_error(const float *actual, const float *expected, int64_t count)
{
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < count; i++) {
        if (isnan(actual[i]) && isnan(expected[i])) continue;
        if (actual[i] == expected[i]) {
            if (isfinite(expected[i])) largest = TRN_MAX(largest, fabs((double)expected[i]));
            continue;
        }
        double d = fabs((double)actual[i] - (double)expected[i]);
        if (!isfinite(d)) return INFINITY;
        worst = TRN_MAX(worst, d);
        largest = TRN_MAX(largest, fabs((double)expected[i]));
    }
    return largest > 0 ? worst / largest : worst;
}

static trn_status fill_leaves(trn_graph *graph, void **values, const trn_named_data *inputs, int input_count,
                              trn_error *err)
{
    for (size_t i = 0; i < graph->tensor_count; i++) {
        const trn_tensor *tensor = graph->tensors[i];
        if (tensor->view_of || tensor->producer) continue;
        const void *given = NULL;
        for (int k = 0; tensor->is_input && k < input_count; k++) {
            if (!strcmp(inputs[k].name, tensor->name)) given = inputs[k].data;
        }
        if (!tensor->is_input || (tensor->is_state && !given)) {
            trn_status status = trn_leaf_data(tensor, &values[i], err);
            if (status != TRN_OK) return status;
            continue;
        }
        if (!given) return trn_fail(err, TRN_ERR_ARGUMENT, "input '%s' was not given", tensor->name);
        values[i] = malloc((size_t)tensor->count * 4);
        if (!values[i]) return trn_fail_memory(err, (size_t)tensor->count * 4, tensor->name);
        memcpy(values[i], given, (size_t)tensor->count * 4);
    }
    return TRN_OK;
}

static trn_status run_node(const trn_node *node, void **values, trn_error *err)
{
    const void *inputs[TRN_MAX_INPUTS] = {0};
    for (int i = 0; i < node->input_count; i++) {
        if (node->inputs[i]) inputs[i] = values[trn_tensor_base(node->inputs[i])->id];
    }
    size_t bytes = (size_t)trn_tensor_bytes(node->out);
    void *out = malloc(bytes);
    if (!out) return trn_fail_memory(err, bytes, node->op->name);
    values[node->out->id] = out;
    node->op->reference(node, inputs, out);
    return TRN_OK;
}

trn_status trn_reference_run(trn_graph *graph, const trn_named_data *inputs, int input_count,
                             const trn_named_data *outputs, int output_count, trn_error *err)
{
    bool *needed = NULL;
    trn_status status = trn_graph_needed(graph, &needed, err);
    if (status != TRN_OK) return status;
    void **values = calloc(graph->tensor_count + 1, sizeof *values);
    if (!values) {
        free(needed);
        return trn_fail_memory(err, graph->tensor_count * sizeof *values, "a reference run");
    }
    status = fill_leaves(graph, values, inputs, input_count, err);
    for (size_t i = 0; status == TRN_OK && i < graph->node_count; i++) {
        if (needed[i]) status = run_node(graph->nodes[i], values, err);
    }
    for (int k = 0; status == TRN_OK && k < output_count; k++) {
        const trn_named_output *found = NULL;
        for (size_t i = 0; i < graph->output_count; i++) {
            if (!strcmp(graph->outputs[i].name, outputs[k].name)) found = &graph->outputs[i];
        }
        if (!found) {
            status = trn_fail(err, TRN_ERR_ARGUMENT, "the graph has no output '%s'", outputs[k].name);
            break;
        }
        const trn_tensor *base = trn_tensor_base(found->tensor);
        memcpy(outputs[k].data, values[base->id], (size_t)base->count * 4);
    }
    for (size_t i = 0; i < graph->tensor_count; i++)
        free(values[i]);
    free(values);
    free(needed);
    return status;
}
