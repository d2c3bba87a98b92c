/* Steps of an optimiser: one kernel that changes a parameter and what the optimiser remembers of it in place,
 * when a run is over. */
#include "graph_internal.h"
#include "ops/ops.h"

static bool is_part(trn_graph *graph, const trn_tensor *part, const trn_tensor *weights)
{
    if (!part || (part->type == TRN_F32 && trn_shape_equal(&part->shape, &weights->shape))) return true;
    char had[128], given[128];
    trn_graph_fail(graph, "update: the weights '%s' are %s, what belongs to them %s of %s", weights->name,
                   trn_shape_text(&weights->shape, had), trn_shape_text(&part->shape, given),
                   trn_type_name(part->type));
    return false;
}

static bool is_scalars(trn_graph *graph, const trn_tensor *tensor, int64_t count, const char *what)
{
    if (tensor->type == TRN_F32 && tensor->count == count) return true;
    char text[128];
    trn_graph_fail(graph, "update: %s of a step is %s; it takes [%lld] floats", what,
                   trn_shape_text(&tensor->shape, text), (long long)count);
    return false;
}

static bool is_whole(trn_graph *graph, const trn_weights_update *update)
{
    const trn_tensor *w = update->weights;
    if (!trn_update_may(graph, update->weights)) return false;
    if (update->rule == TRN_STEP_ADAMW && (!update->first || !update->second)) {
        trn_graph_fail(graph, "update: AdamW needs two moments of '%s'", w->name);
        return false;
    }
    if (update->rule == TRN_STEP_SGD && update->second) {
        trn_graph_fail(graph, "update: SGD has no second moment of '%s'", w->name);
        return false;
    }
    trn_tensor *states[] = {update->first, update->second, update->average, update->accumulated};
    for (int i = 0; i < (int)TRN_COUNT(states); i++) {
        if (states[i] && (!is_part(graph, states[i], w) || !trn_update_may(graph, states[i]))) return false;
    }
    return is_part(graph, update->gradient, w) && is_scalars(graph, update->now, TRN_STEP_NOW, "the input") &&
           (!update->norm || is_scalars(graph, update->norm, 1, "the norm"));
}

/* A state may change before all have read it; an input does not. */
static trn_tensor *keep_scalars(trn_graph *graph, trn_tensor *value)
{
    return trn_update_keep(graph, value, trn_tensor_base(value)->is_state);
}

void trn_update_weights(trn_graph *graph, const trn_weights_update *given)
{
    if (graph->error.code != TRN_OK || !given->weights || !given->gradient || !given->now) return;
    if (given->max_norm > 0 && !given->norm) return;
    if (!is_whole(graph, given)) return;
    trn_weights_update *update = trn_arena_alloc(graph->arena, sizeof *update);
    if (!update) {
        trn_graph_fail(graph, "update: out of memory");
        return;
    }
    *update = *given;
    update->gradient = trn_update_keep(graph, given->gradient, true);
    update->now = keep_scalars(graph, given->now);
    update->norm = given->norm ? keep_scalars(graph, given->norm) : NULL;
    trn_tensor **states[] = {&update->weights, &update->first, &update->second, &update->average,
                             &update->accumulated};
    for (int i = 0; update->gradient && i < (int)TRN_COUNT(states); i++) {
        *states[i] = trn_tensor_base(*states[i]);
        if (*states[i]) trn_update_append(graph, *states[i], update->gradient, update);
    }
}

static void add_macro(trn_step *step, const char *name, bool on)
{
    if (on) step->macros[step->macro_count++] = (trn_macro){name, "1"};
}

static void add_operands(trn_step *step, const trn_weights_update *u)
{
    trn_tensor *states[] = {u->weights, u->first, u->second, u->average, u->accumulated};
    trn_step_read(step, u->gradient);
    trn_step_read(step, u->now);
    trn_step_read(step, u->norm ? u->norm : u->now);
    for (int i = 0; i < (int)TRN_COUNT(states); i++) {
        if (states[i])
            trn_step_write(step, states[i]);
        else
            trn_step_read(step, u->gradient);
    }
}

trn_status trn_lower_weights(trn_lower *lower, const trn_weights_update *u, trn_error *err)
{
    trn_step step = {.shader = "optimizer.comp"};
    bool adamw = u->rule == TRN_STEP_ADAMW;
    int64_t count = u->weights->count;
    int states =
        1 + (u->first != NULL) + (u->second != NULL) + (u->average != NULL) + (u->accumulated != NULL);
    add_operands(&step, u);
    add_macro(&step, "ADAMW", adamw);
    add_macro(&step, "MOMENTUM", !adamw && u->first);
    add_macro(&step, "NESTEROV", u->nesterov);
    add_macro(&step, "COUPLED", u->coupled);
    add_macro(&step, "NORM", u->norm != NULL);
    add_macro(&step, "CLIP", u->max_norm > 0);
    add_macro(&step, "ACCUMULATE", u->accumulated != NULL);
    add_macro(&step, "AVERAGE", u->average != NULL);
    trn_step_uint(&step, count);
    trn_step_float(&step, u->lr_scale);
    trn_step_float(&step, u->decay);
    trn_step_float(&step, adamw ? 1 - u->beta1 : u->beta1);
    trn_step_float(&step, 1 - u->beta2);
    trn_step_float(&step, u->eps);
    trn_step_float(&step, u->max_norm);
    trn_step_float(&step, 1 - u->average_keeps);
    step.flops = (adamw ? 16.0 : 6.0) * (double)count;
    step.bytes = 4.0 * (1 + 2 * states) * (double)count;
    return trn_step_elements(lower, &step, count, err);
}
