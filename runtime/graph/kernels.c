/* The kernels that a graph would run on a device, for reports on devices that only compile. */
#include "exec.h"

#include <stdlib.h>
#include <string.h>

typedef struct listing {
    trn_graph *graph;
    trn_gpu *gpu;
    const trn_kernel_list_options *options;
    trn_precision precision;
    trn_arena *arena;
    const char **names; /* of candidates that are not the default somewhere */
    size_t name_count, name_capacity;
} listing;

static const char *op_of(const trn_lowered_step *lowered)
{
    const trn_group *group = lowered->group;
    if (!group) return "update";
    return group->root ? group->root->op->name : group->chain[0]->op->name;
}

static trn_status list_step(const listing *l, const trn_lowered_step *lowered, bool is_default,
                            trn_error *err)
{
    const trn_step *step = &lowered->step;
    trn_listed_kernel listed = {.op = op_of(lowered),
                                .label = lowered->label,
                                .shader = step->shader,
                                .variant = step->variant,
                                .macros = step->macros,
                                .macro_count = step->macro_count,
                                .hash = trn_kernel_hash(step, lowered->generated),
                                .is_default = is_default,
                                .step = lowered};
    return l->options->report(l->options->user, &listed, err);
}

trn_status trn_listed_compile(const trn_listed_kernel *listed, trn_gpu *gpu, const trn_kernel **kernel,
                              trn_error *err)
{
    return trn_step_kernel(gpu, listed->step, kernel, err);
}

static trn_status keep_name(listing *l, const char *name, trn_error *err)
{
    for (size_t i = 0; i < l->name_count; i++)
        if (!strcmp(l->names[i], name)) return TRN_OK;
    const char *copy = trn_arena_strdup(l->arena, name);
    if (!copy || !trn_grow(&l->names, &l->name_capacity, l->name_count + 1, sizeof *l->names))
        return trn_fail_memory(err, strlen(name), "a list of kernels");
    l->names[l->name_count++] = copy;
    return TRN_OK;
}

/* What else could have been chosen. */
static trn_status keep_rivals(listing *l, const trn_lower *lower, trn_error *err)
{
    trn_status status = TRN_OK;
    for (size_t c = 0; c < lower->choice_count; c++) {
        const trn_choice *choice = &lower->choices[c];
        for (int i = 0; status == TRN_OK && i < choice->count; i++)
            if (i != choice->chosen && (l->options->hopeless || !choice->candidates[i].hopeless))
                status = keep_name(l, choice->candidates[i].name, err);
    }
    return status;
}

/* Lists the graph with one candidate forced, or (NULL) with the defaults, whatever was measured here. */
static trn_status list_forced(listing *l, const char *forced, trn_error *err)
{
    trn_lower lower = {
        .graph = l->graph, .gpu = l->gpu, .arena = trn_arena_create(), .kernel = forced ? forced : ""};
    trn_status status = lower.arena ? TRN_OK : trn_fail_memory(err, 1, "a list of kernels");
    if (status == TRN_OK) status = trn_lower_graph(&lower, !trn_gpu_disabled("fusion"), l->precision, err);
    for (size_t s = 0; status == TRN_OK && s < lower.step_count; s++) {
        if (trn_progress_cancelled(&l->options->progress))
            status = trn_fail_cancelled(err, "compiling kernels");
        else
            status = list_step(l, &lower.steps[s], !forced, err);
    }
    if (status == TRN_OK && !forced && l->options->candidates) status = keep_rivals(l, &lower, err);
    trn_lower_free(&lower);
    return status;
}

static trn_status list_graph(trn_graph *graph, trn_gpu *gpu, const trn_kernel_list_options *options,
                             trn_precision precision, trn_error *err)
{
    listing l = {.graph = graph, .gpu = gpu, .options = options, .precision = precision};
    l.arena = trn_arena_create();
    trn_status status = l.arena ? TRN_OK : trn_fail_memory(err, 1, "a list of kernels");
    if (status == TRN_OK) status = list_forced(&l, NULL, err);
    for (size_t i = 0; status == TRN_OK && i < l.name_count; i++)
        status = list_forced(&l, l.names[i], err);
    free(l.names);
    trn_arena_destroy(l.arena);
    return status;
}

trn_status trn_graph_kernels(trn_graph *graph, trn_gpu *gpu, const trn_kernel_list_options *options,
                             trn_error *err)
{
    trn_status status = list_graph(graph, gpu, options, TRN_PRECISION_FLOAT32, err);
    if (status == TRN_OK && !options->training && trn_gpu_info(gpu)->storage16)
        status = list_graph(graph, gpu, options, TRN_PRECISION_FLOAT16, err);
    return status;
}

trn_status trn_op_kernels(trn_gpu *gpu, const trn_kernel_list_options *options, trn_error *err)
{
    trn_status status = TRN_OK;
    for (const trn_op *const *op = trn_op_table; *op; op++) {
        for (int c = 0; status == TRN_OK && c < (*op)->case_count; c++) {
            trn_graph *graph = trn_graph_create();
            if (!graph) return trn_fail_memory(err, 1, "a graph");
            (*op)->cases[c].build(graph);
            if (!trn_graph_lacks_float16(graph, gpu)) status = trn_graph_kernels(graph, gpu, options, err);
            trn_graph_destroy(graph);
        }
        if (status != TRN_OK) return status;
    }
    return status;
}
