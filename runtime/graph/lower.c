/* Lowering: every group of nodes becomes steps, dispatches over tensors that have no memory yet. */
#include "graph_internal.h"

#include <stdlib.h>
#include <string.h>

const trn_device_info *trn_lower_device(const trn_lower *lower)
{
    return trn_gpu_info(lower->gpu);
}

trn_gpu *trn_lower_gpu(const trn_lower *lower)
{
    return lower->gpu;
}

const char *trn_lower_printf(trn_lower *lower, const char *fmt, ...)
{
    char text[4096];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return n < 0 || (size_t)n >= sizeof text ? NULL : trn_arena_strdup(lower->arena, text);
}

void trn_lower_groups(trn_step *step, int64_t count)
{
    const int64_t row = 32768; /* GROUPS_PER_ROW of terrane.glsl */
    step->groups[0] = (uint32_t)TRN_MIN(count, row);
    step->groups[1] = (uint32_t)((count + row - 1) / row);
    step->groups[2] = 1;
}

trn_tensor *trn_lower_output(const trn_lower *lower, const trn_node *node)
{
    const trn_group *group = lower->group;
    return group && (group->root == node || !group->root) ? group->out : node->out;
}

void trn_lower_setup_begin(trn_lower *lower)
{
    lower->in_setup = true;
}

void trn_lower_setup_end(trn_lower *lower)
{
    lower->in_setup = false;
}

/* Appends the fused chain's operands, scalars and text to a step. */
static trn_status add_epilogue(trn_lower *lower, trn_lowered_step *lowered, trn_error *err)
{
    trn_step *step = &lowered->step;
    trn_chain chain;
    if (!trn_chain_collect(lower->group, step->operand_count, step->scalar_count, &chain))
        return trn_fail(err, TRN_ERR_INTERNAL, "%s: the fused chain does not fit its kernel", step->shader);
    for (int i = 0; i < chain.operand_count; i++)
        chain.operands[i].half = trn_lower_is_half(lower, chain.operands[i].tensor);
    trn_text text = {0};
    trn_status status = trn_chain_generate(lower->group, step->operand_count, &chain, &text, err);
    if (status == TRN_OK) {
        lowered->generated = trn_arena_strdup(lower->arena, trn_text_get(&text));
        if (!lowered->generated) status = trn_fail_memory(err, text.length, "a kernel's text");
    }
    trn_text_free(&text);
    for (int i = 0; i < chain.operand_count; i++) {
        step->operands[step->operand_count++] = (trn_operand){.tensor = chain.operands[i].tensor};
        step->bytes += 4.0 * (double)chain.operands[i].tensor->count;
    }
    for (int i = 0; i < chain.scalar_count; i++)
        step->scalars[step->scalar_count++] = chain.scalars[i];
    return status;
}

trn_status trn_lower_step(trn_lower *lower, const trn_step *step, trn_error *err)
{
    if (!trn_grow(&lower->steps, &lower->step_capacity, lower->step_count + 1, sizeof *lower->steps))
        return trn_fail_memory(err, sizeof *lower->steps, "a compilation");
    char label[128];
    trn_lowered_step *lowered = &lower->steps[lower->step_count];
    *lowered = (trn_lowered_step){.step = *step, .group = lower->group};
    lowered->setup = lower->in_setup || lower->group->out->constant;
    const trn_node *node = lower->group->root ? lower->group->root : lower->group->chain[0];
    lowered->label = trn_arena_strdup(lower->arena, trn_node_label(node, label));
    for (int i = 0; i < step->macro_count; i++) {
        if (!step->macros[i].value) return trn_fail_memory(err, 64, "a kernel's macros");
    }
    for (int i = 0; i < step->operand_count; i++)
        lowered->step.operands[i].tensor = trn_tensor_base(step->operands[i].tensor);
    if (!lowered->label) return trn_fail_memory(err, sizeof label, "a label");
    trn_status status = step->epilogue ? add_epilogue(lower, lowered, err) : TRN_OK;
    if (status == TRN_OK) status = trn_half_macros(lower, &lowered->step, err);
    if (status != TRN_OK) return status;
    const trn_step *done = &lowered->step;
    if (8 * done->operand_count + 4 * done->scalar_count > TRN_PUSH_BYTES)
        return trn_fail(err, TRN_ERR_INTERNAL, "%s: %d operands and %d scalars do not fit %d bytes",
                        done->shader, done->operand_count, done->scalar_count, TRN_PUSH_BYTES);
    lower->step_count++;
    return TRN_OK;
}

trn_kernel_desc trn_lowered_kernel(const trn_lowered_step *lowered)
{
    const trn_step *step = &lowered->step;
    return (trn_kernel_desc){.shader = step->shader,
                             .generated = lowered->generated,
                             .macros = step->macros,
                             .macro_count = step->macro_count,
                             .buffers = step->operand_count,
                             .scalars = step->scalar_count,
                             .subgroup_size = step->subgroup_size,
                             .texels = step->texels};
}

/* A tensor that is not of the graph: ids go on behind the graph's. */
static trn_tensor *extra_tensor(trn_lower *lower, uint64_t bytes, trn_error *err)
{
    trn_tensor *tensor = trn_arena_alloc(lower->arena, sizeof *tensor);
    if (!tensor ||
        !trn_grow(&lower->extra, &lower->extra_capacity, lower->extra_count + 1, sizeof *lower->extra)) {
        trn_fail_memory(err, sizeof *tensor, "a compilation");
        return NULL;
    }
    tensor->graph = lower->graph;
    tensor->id = (int)(lower->graph->tensor_count + lower->extra_count);
    tensor->count = (int64_t)((bytes + 3) / 4);
    tensor->shape = TRN_SHAPE(tensor->count);
    lower->extra[lower->extra_count++] = tensor;
    return tensor;
}

trn_tensor *trn_lower_temporary(trn_lower *lower, uint64_t bytes, trn_error *err)
{
    trn_tensor *tensor = extra_tensor(lower, bytes, err);
    if (tensor) tensor->constant = lower->in_setup || lower->group->out->constant;
    return tensor;
}

void trn_lower_holds_half(trn_tensor *extra)
{
    extra->type = TRN_F16;
    extra->count *= 2;
    extra->shape = TRN_SHAPE(extra->count);
}

trn_tensor *trn_lower_packed(trn_lower *lower, trn_tensor *source, const char *layout, uint64_t bytes,
                             bool *is_new, trn_error *err)
{
    *is_new = false;
    source = trn_tensor_base(source);
    if (!source->constant) return NULL;
    for (size_t i = 0; i < lower->packed_count; i++) {
        const trn_packed *entry = &lower->packed[i];
        if (entry->source == source && !strcmp(entry->layout, layout)) return entry->packed;
    }
    const char *name = trn_arena_strdup(lower->arena, layout);
    trn_tensor *packed = name ? extra_tensor(lower, bytes, err) : NULL;
    if (!packed ||
        !trn_grow(&lower->packed, &lower->packed_capacity, lower->packed_count + 1, sizeof *lower->packed)) {
        trn_fail_memory(err, sizeof *lower->packed, "a compilation");
        return NULL;
    }
    packed->constant = true;
    lower->packed[lower->packed_count++] = (trn_packed){source, packed, name};
    *is_new = true;
    return packed;
}

static trn_status lower_group(trn_lower *lower, const trn_group *group, trn_error *err)
{
    const trn_node *node = group->root ? group->root : group->chain[0];
    char label[128];
    lower->group = group;
    trn_status status = node->op->lower(lower, node, err);
    lower->group = NULL;
    lower->in_setup = false;
    return status == TRN_OK ? TRN_OK : trn_wrap(err, "%s", trn_node_label(node, label));
}

trn_status trn_lower_graph(trn_lower *lower, bool fusion, trn_precision precision, trn_error *err)
{
    bool *needed = NULL;
    trn_status status = trn_graph_needed(lower->graph, &needed, err);
    if (status == TRN_OK)
        status = trn_fuse(lower->graph, needed, fusion, &lower->groups, &lower->group_count, err);
    if (status == TRN_OK && precision == TRN_PRECISION_FLOAT16) status = trn_half_mark(lower, err);
    for (size_t i = 0; status == TRN_OK && i < lower->group_count; i++)
        status = lower_group(lower, &lower->groups[i], err);
    if (status == TRN_OK) status = trn_lower_updates(lower, err);
    free(needed);
    return status;
}

void trn_lower_free(trn_lower *lower)
{
    free(lower->groups);
    free(lower->steps);
    free(lower->packed);
    free(lower->choices);
    free(lower->extra);
    trn_arena_destroy(lower->arena);
    *lower = (trn_lower){0};
}
