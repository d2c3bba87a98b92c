/* What is found when a run is over: TERRANE_CHECK, which compares each operator with its C reference on the
 * device's own inputs; and where values that are not finite come from. */
#include "exec.h"

#include <math.h>
#include <stdlib.h>

enum { MAX_LOCAL = TRN_MAX_GROUP + 1 };
static const double CHECK_TOLERANCE = 1e-3;

/* A constant as kernels see it. */
static trn_status leaf_value(const trn_exec *exec, const trn_tensor *base, void **value, trn_error *err)
{
    trn_status status = trn_leaf_data(base, value, err);
    if (status != TRN_OK || !trn_lower_is_half(&exec->lower, base)) return status;
    status = trn_half_pack(base, *value, err);
    if (status == TRN_OK) {
        trn_half_unpack(*value, base->count);
        return TRN_OK;
    }
    free(*value);
    *value = NULL;
    return status;
}

/* Value of an operand: made in this group before, or read from the device. *owned tells the caller to free
 * it. */
static trn_status operand_value(trn_exec *exec, trn_tensor *tensor, void *const *local,
                                trn_node *const *nodes, int done, void **value, bool *owned, trn_error *err)
{
    trn_tensor *base = trn_tensor_base(tensor);
    *owned = false;
    for (int i = 0; i < done; i++) {
        if (nodes[i]->out != base) continue;
        *value = local[i];
        return TRN_OK;
    }
    *owned = true;
    if (base->constant && !base->producer) return leaf_value(exec, base, value, err);
    size_t bytes = (size_t)trn_tensor_bytes(base);
    *value = malloc(bytes);
    if (!*value) return trn_fail_memory(err, bytes, "checking");
    return trn_exec_read(exec, base, *value, err);
}

static trn_status run_reference(trn_exec *exec, void **local, trn_node *const *nodes, int index,
                                trn_error *err)
{
    const trn_node *node = nodes[index];
    void *values[TRN_MAX_INPUTS] = {0};
    bool owned[TRN_MAX_INPUTS] = {0};
    trn_status status = TRN_OK;
    for (int i = 0; status == TRN_OK && i < node->input_count; i++) {
        if (node->inputs[i])
            status = operand_value(exec, node->inputs[i], local, nodes, index, &values[i], &owned[i], err);
    }
    size_t bytes = (size_t)trn_tensor_bytes(node->out);
    local[index] = malloc(bytes);
    if (status == TRN_OK && !local[index]) status = trn_fail_memory(err, bytes, "checking");
    if (status == TRN_OK) node->op->reference(node, (const void *const *)values, local[index]);
    for (int i = 0; i < node->input_count; i++) {
        if (owned[i]) free(values[i]);
    }
    return status;
}

/* How far what the device has of a tensor is from the reference's values. */
static trn_status compare(trn_exec *exec, trn_tensor *tensor, const void *expected, double *error,
                          trn_error *err)
{
    size_t bytes = (size_t)trn_tensor_bytes(tensor);
    void *device = malloc(bytes);
    float *actual = NULL, *wanted = NULL;
    trn_status status =
        device ? trn_exec_read(exec, tensor, device, err) : trn_fail_memory(err, bytes, "checking");
    if (status == TRN_OK) {
        actual = trn_tensor_floats(tensor, device);
        wanted = trn_tensor_floats(tensor, expected);
        if (!actual || !wanted) status = trn_fail_memory(err, bytes, "checking");
    }
    if (status == TRN_OK) *error = trn_worst_error(actual, wanted, tensor->count);
    free(actual);
    free(wanted);
    free(device);
    return status;
}

static trn_status check_group(trn_exec *exec, const trn_group *group, trn_error *err)
{
    trn_node *nodes[MAX_LOCAL] = {NULL};
    void *local[MAX_LOCAL] = {0};
    int count = 0;
    if (group->root) nodes[count++] = group->root;
    for (int i = 0; i < group->chain_count; i++)
        nodes[count++] = group->chain[i];
    trn_status status = TRN_OK;
    for (int i = 0; status == TRN_OK && i < count; i++)
        status = run_reference(exec, local, nodes, i, err);
    double error = 0;
    if (status == TRN_OK) status = compare(exec, group->out, local[count - 1], &error, err);
    if (status == TRN_OK) {
        char label[128], shape[128];
        trn_log(TRN_LOG_DEBUG, "check %s %s: %.2e", trn_node_label(nodes[0], label),
                trn_shape_text(&group->out->shape, shape), error);
        if (!(error <= CHECK_TOLERANCE))
            status = trn_fail(err, TRN_ERR_DEVICE,
                              "check: %s (%d operators, output %s) differs from its C reference by %.2e",
                              trn_node_label(nodes[0], label), count,
                              trn_shape_text(&group->out->shape, shape), error);
    }
    for (int i = 0; i < count; i++)
        free(local[i]);
    return status;
}

trn_status trn_exec_check(trn_exec *exec, trn_error *err)
{
    for (size_t i = 0; i < exec->lower.group_count; i++) {
        const trn_group *group = &exec->lower.groups[i];
        if (group->out->constant && exec->runs > 1) continue; /* computed once */
        trn_status status = check_group(exec, group, err);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}

/* ---- values that are not finite ---- */

/* How many values of a tensor are not finite; none of integers. */
static trn_status count_odd(trn_exec *exec, trn_tensor *tensor, int64_t *odd, trn_error *err)
{
    void *data;
    bool owned;
    *odd = 0;
    if (tensor->type == TRN_I32) return TRN_OK;
    trn_status status = operand_value(exec, tensor, NULL, NULL, 0, &data, &owned, err);
    if (status != TRN_OK) return status;
    float *values = trn_tensor_floats(tensor, data);
    free(data);
    if (!values) return trn_fail_memory(err, (size_t)tensor->count * sizeof *values, "checking");
    for (int64_t i = 0; i < tensor->count; i++)
        *odd += !isfinite(values[i]);
    free(values);
    return TRN_OK;
}

static void describe_odd(const trn_tensor *tensor, const char *name, int64_t odd, trn_text *what)
{
    char shape[128];
    trn_text_printf(what, "%s %s: %lld of %lld values are not finite", name,
                    trn_shape_text(&tensor->shape, shape), (long long)odd, (long long)tensor->count);
}

/* An operand that nothing computes and that is not finite, described; found stays false when there is none.
 */
static trn_status find_odd_leaf(trn_exec *exec, const trn_node *node, bool *found, trn_text *what,
                                trn_error *err)
{
    for (int i = 0; i < node->input_count; i++) {
        trn_tensor *base = trn_tensor_base(node->inputs[i]);
        int64_t odd;
        if (!base || base->producer) continue;
        trn_status status = count_odd(exec, base, &odd, err);
        if (status != TRN_OK) return status;
        if (!odd) continue;
        *found = true;
        trn_text_add(what, base->is_state ? "state " : base->is_input ? "input " : "constant ");
        describe_odd(base, base->name, odd, what);
        return TRN_OK;
    }
    return TRN_OK;
}

trn_status trn_exec_first_nonfinite(trn_exec *exec, bool *found, trn_text *what, trn_error *err)
{
    *found = false;
    if (!exec->options.keep_all || !exec->options.no_fusion || !exec->runs)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "values that are not finite are found in a graph that was compiled with keep_all and "
                        "no_fusion, and has run");
    for (size_t i = 0; i < exec->lower.group_count; i++) {
        const trn_group *group = &exec->lower.groups[i];
        const trn_node *node = group->out->producer;
        int64_t odd;
        char label[128];
        trn_status status = count_odd(exec, group->out, &odd, err);
        if (status == TRN_OK && odd) status = find_odd_leaf(exec, node, found, what, err);
        if (status != TRN_OK) return status;
        if (!odd) continue;
        if (!*found) describe_odd(group->out, trn_node_label(node, label), odd, what);
        *found = true;
        return what->failed ? trn_fail_memory(err, what->length, "a message") : TRN_OK;
    }
    return TRN_OK;
}
