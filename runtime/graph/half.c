/* Float16 storage: which values of a graph lie in memory as float16 when it is compiled so. All arithmetic
 * stays of float32. */
#include "graph_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const float LARGEST = 65504;

/* ---- what is stored so ---- */

bool trn_half_takes_any(const trn_lower *lower, const trn_node *node, int which)
{
    (void)lower, (void)node, (void)which;
    return true;
}

bool trn_half_takes_first(const trn_lower *lower, const trn_node *node, int which)
{
    (void)lower, (void)node;
    return which <= 0;
}

bool trn_lower_is_half(const trn_lower *lower, const trn_tensor *tensor)
{
    while (tensor->view_of)
        tensor = tensor->view_of;
    if (tensor->type == TRN_F16) return true;
    return lower->float32_why && (size_t)tensor->id < lower->graph->tensor_count &&
           !lower->float32_why[tensor->id];
}

const char *trn_lower_why_float32(const trn_lower *lower, const trn_tensor *tensor)
{
    return lower->float32_why ? lower->float32_why[tensor->id] : NULL;
}

uint64_t trn_lower_bytes(const trn_lower *lower, const trn_tensor *tensor)
{
    trn_tensor stored = {.count = tensor->count,
                         .type = trn_lower_is_half(lower, tensor) ? TRN_F16 : TRN_F32};
    return trn_tensor_bytes(&stored);
}

/* A matrix or more: vectors are small, and what data are normalised with. */
static bool has_rows(const trn_tensor *tensor)
{
    int long_axes = 0;
    for (int i = 0; i < tensor->shape.ndim; i++)
        long_axes += tensor->shape.dim[i] > 1;
    return long_axes > 1;
}

static bool in_range(const float *values, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        if (isfinite(values[i]) && fabsf(values[i]) > LARGEST) return false;
    }
    return true;
}

/* Why a tensor is float32 whatever its kernels take; NULL when nothing speaks against float16. */
static const char *fixed_reason(const trn_tensor *tensor)
{
    if (tensor->type == TRN_I32) return "integers";
    if (tensor->is_input) return "the host writes it";
    if (tensor->is_output) return "the host reads it";
    if (tensor->constant && !has_rows(tensor)) return "a small constant";
    if (tensor->values && !in_range(tensor->values, tensor->count)) return "values beyond 65504";
    return NULL;
}

static bool made_inside(const trn_group *group, const trn_tensor *base)
{
    if (group->root && group->root->out == base) return true;
    for (int i = 0; i < group->chain_count; i++) {
        if (group->chain[i]->out == base) return true;
    }
    return false;
}

/* Nodes of a group: the root, then the chain. */
static const trn_node *node_at(const trn_group *group, int i)
{
    if (!group->root) return i < group->chain_count ? group->chain[i] : NULL;
    return i == 0 ? group->root : i <= group->chain_count ? group->chain[i - 1] : NULL;
}

/* What is known before a run is float16 only when runs read it; what leads there is computed in float32. */
static void find_run_constants(const trn_lower *lower, bool *read)
{
    for (size_t g = 0; g < lower->group_count; g++) {
        const trn_group *group = &lower->groups[g];
        const trn_node *node;
        for (int n = 0; !group->out->constant && (node = node_at(group, n)) != NULL; n++) {
            for (int i = 0; i < node->input_count; i++) {
                if (node->inputs[i]) read[trn_tensor_base(node->inputs[i])->id] = true;
            }
        }
    }
}

extern const trn_op trn_op_permute, trn_op_slice, trn_op_expand, trn_op_concat, trn_op_pad, trn_op_gather,
    trn_op_axis_map, trn_op_unfold;

static bool only_moves(const trn_op *op)
{
    return op == &trn_op_permute || op == &trn_op_slice || op == &trn_op_expand || op == &trn_op_concat ||
           op == &trn_op_pad || op == &trn_op_gather || op == &trn_op_axis_map || op == &trn_op_unfold;
}

static bool reads_raw(const trn_group *group, const bool *raw)
{
    const trn_node *node;
    for (int n = 0; (node = node_at(group, n)) != NULL; n++) {
        for (int i = 0; i < node->input_count; i++) {
            const trn_tensor *base = trn_tensor_base(node->inputs[i]);
            if (base && (base->is_input || raw[base->id]) && base->type == TRN_F32) return true;
        }
    }
    return false;
}

/* Host values have their own range and need their own digits until they are normalised: what is only moved,
 * and what arithmetic goes on with, stays float32. again[id]: a pointwise kernel reads it. */
static void keep_raw(const trn_lower *lower, bool *raw, bool *again)
{
    for (size_t g = lower->group_count; g-- > 0;) {
        const trn_group *group = &lower->groups[g];
        const trn_node *node;
        bool goes_on = !group->root || (only_moves(group->root->op) && again[group->out->id]);
        for (int n = 0; goes_on && (node = node_at(group, n)) != NULL; n++) {
            for (int i = 0; i < node->input_count; i++) {
                if (node->inputs[i]) again[trn_tensor_base(node->inputs[i])->id] = true;
            }
        }
    }
    for (size_t g = 0; g < lower->group_count; g++) {
        const trn_group *group = &lower->groups[g];
        int id = group->out->id;
        bool kept = group->root ? only_moves(group->root->op) : again[id];
        raw[id] = kept && reads_raw(group, raw);
        if (raw[id] && !lower->float32_why[id])
            lower->float32_why[id] = "the host's values, not normalised yet";
    }
}

static void begin(const trn_lower *lower, const bool *read)
{
    const trn_graph *graph = lower->graph;
    for (size_t i = 0; i < graph->tensor_count; i++) {
        const trn_tensor *tensor = graph->tensors[i];
        const char *why = fixed_reason(tensor);
        if (!why && tensor->constant && !read[i]) why = "only what is computed before runs reads it";
        lower->float32_why[i] = why;
    }
}

static const char *reader_reason(const trn_lower *lower, const trn_node *node, const char *what)
{
    char label[128];
    const char *why = trn_arena_printf(lower->arena, "%s %s float32", trn_node_label(node, label), what);
    return why ? why : "float32";
}

/* Takes float16 from what a node of the group cannot read so; true when there was any. */
static bool refuse_operands(const trn_lower *lower, const trn_group *group, const trn_node *node)
{
    bool any = false;
    for (int i = 0; i < node->input_count; i++) {
        const trn_tensor *base = trn_tensor_base(node->inputs[i]);
        if (!base || lower->float32_why[base->id] || made_inside(group, base)) continue;
        if (node->op->half && node->op->half(lower, node, i)) continue;
        lower->float32_why[base->id] = reader_reason(lower, node, "reads");
        any = true;
    }
    return any;
}

static bool writes_half(const trn_lower *lower, const trn_node *first)
{
    return first && first->op->half && first->op->half(lower, first, -1);
}

static bool refuse_group(const trn_lower *lower, const trn_group *group)
{
    bool any = false;
    const trn_node *node, *first = node_at(group, 0);
    for (int n = 0; (node = node_at(group, n)) != NULL; n++)
        any = refuse_operands(lower, group, node) || any;
    if (lower->float32_why[group->out->id] || writes_half(lower, first)) return any;
    lower->float32_why[group->out->id] = reader_reason(lower, first, "writes");
    return true;
}

trn_status trn_half_mark(trn_lower *lower, trn_error *err)
{
    const trn_graph *graph = lower->graph;
    if (graph->update_count)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "precision float16 is for inference: training takes mixed precision");
    bool *marks = calloc(3 * graph->tensor_count + 1, sizeof *marks), again = true;
    lower->float32_why = trn_arena_array(lower->arena, graph->tensor_count + 1, sizeof *lower->float32_why);
    if (!marks || !lower->float32_why) {
        free(marks);
        return trn_fail_memory(err, graph->tensor_count * sizeof(char *), "a compilation");
    }
    find_run_constants(lower, marks);
    begin(lower, marks);
    keep_raw(lower, marks + graph->tensor_count, marks + 2 * graph->tensor_count);
    /* an operator may take float16 only of all its operands: until nothing changes */
    while (again) {
        again = false;
        for (size_t g = 0; g < lower->group_count; g++)
            again = refuse_group(lower, &lower->groups[g]) || again;
    }
    free(marks);
    return TRN_OK;
}

/* ---- steps ---- */

trn_status trn_half_macros(const trn_lower *lower, trn_step *step, trn_error *err)
{
    static const char *const real[TRN_MAX_BINDINGS] = {"TRN_REAL_0", "TRN_REAL_1", "TRN_REAL_2",
                                                       "TRN_REAL_3", "TRN_REAL_4", "TRN_REAL_5",
                                                       "TRN_REAL_6", "TRN_REAL_7"};
    double full = 0, stored = 0;
    bool any = false, result = false;
    for (int i = 0; i < step->operand_count; i++) {
        const trn_tensor *tensor = step->operands[i].tensor;
        full += (double)trn_tensor_bytes(tensor);
        stored += (double)trn_lower_bytes(lower, tensor);
        if (!trn_lower_is_half(lower, tensor)) continue;
        if (step->macro_count + 3 > (int)TRN_COUNT(step->macros))
            return trn_fail(err, TRN_ERR_INTERNAL, "%s: too many macros", step->shader);
        step->macros[step->macro_count++] = (trn_macro){real[i], "Half"};
        any = true;
        result |= step->operands[i].written;
    }
    if (any) step->macros[step->macro_count++] = (trn_macro){"TRN_HALF", "1"};
    if (result) step->macros[step->macro_count++] = (trn_macro){"TRN_RESULT_HALF", "1"};
    if (full > 0) step->bytes *= stored / full;
    return TRN_OK;
}

/* ---- values ---- */

trn_status trn_half_pack(const trn_tensor *tensor, void *values, trn_error *err)
{
    char text[128];
    if (!in_range(values, tensor->count))
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "'%s' %s has values beyond 65504, the largest of float16: take precision float32",
                        tensor->name ? tensor->name : "a constant", trn_shape_text(&tensor->shape, text));
    for (int64_t i = 0; i < tensor->count; i++) {
        float value;
        memcpy(&value, (const char *)values + 4 * i, sizeof value);
        uint16_t half = trn_f32_to_f16(value);
        memcpy((char *)values + 2 * i, &half, sizeof half);
    }
    return TRN_OK;
}

void trn_half_unpack(void *values, int64_t count)
{
    for (int64_t i = count; i-- > 0;) {
        uint16_t half;
        memcpy(&half, (const char *)values + 2 * i, sizeof half);
        float value = trn_f16_to_f32(half);
        memcpy((char *)values + 4 * i, &value, sizeof value);
    }
}
