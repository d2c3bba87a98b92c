/* Updates: states that take a computed value when a run is over. */
#include "graph_internal.h"
#include "ops/ops.h"

static bool is_updated(const trn_graph *graph, const trn_tensor *state)
{
    for (size_t i = 0; i < graph->update_count; i++) {
        if (graph->updates[i].state == state) return true;
    }
    return false;
}

bool trn_update_may(trn_graph *graph, trn_tensor *state)
{
    if (trn_tensor_base(state)->is_state) return true;
    trn_graph_fail(graph, "update: what is updated must be a state");
    return false;
}

trn_tensor *trn_update_keep(trn_graph *graph, trn_tensor *value, bool copied)
{
    if (copied && !trn_tensor_base(value)->producer) value = trn_affine(graph, value, 1, 0);
    if (!value) return NULL;
    value = trn_tensor_base(value);
    value->is_output = true; /* it stays to the end of a run */
    return value;
}

void trn_update_append(trn_graph *graph, trn_tensor *state, trn_tensor *value,
                       const trn_weights_update *weights)
{
    state = trn_tensor_base(state);
    if (is_updated(graph, state)) {
        trn_graph_fail(graph, "update: state '%s' is updated twice", state->name);
        return;
    }
    if (!trn_grow(&graph->updates, &graph->update_capacity, graph->update_count + 1,
                  sizeof *graph->updates)) {
        trn_graph_fail(graph, "update: out of memory");
        return;
    }
    graph->updates[graph->update_count++] = (trn_state_update){state, value, weights};
}

void trn_update(trn_graph *graph, trn_tensor *state, trn_tensor *value)
{
    char had[128], given[128];
    if (!state || !value || graph->error.code != TRN_OK || !trn_update_may(graph, state)) return;
    if (value->type != TRN_F32 || !trn_shape_equal(&state->shape, &value->shape)) {
        trn_graph_fail(graph, "update: state '%s' is %s, its new value %s of %s",
                       trn_tensor_base(state)->name, trn_shape_text(&state->shape, had),
                       trn_shape_text(&value->shape, given), trn_type_name(value->type));
        return;
    }
    /* another state may have its new value by the time this one takes it */
    value = trn_update_keep(graph, value, true);
    if (value) trn_update_append(graph, state, value, NULL);
}

static const trn_group *group_of(const trn_lower *lower, const trn_tensor *value)
{
    for (size_t i = 0; i < lower->group_count; i++) {
        if (lower->groups[i].out == value) return &lower->groups[i];
    }
    return NULL;
}

static trn_status lower_copy(trn_lower *lower, const trn_state_update *update, trn_error *err)
{
    trn_step step = {.shader = "copy.comp"};
    trn_step_read(&step, update->value);
    trn_step_write(&step, update->state);
    trn_step_uint(&step, update->state->count);
    return trn_step_elements(lower, &step, update->state->count, err);
}

static trn_status lower_update(trn_lower *lower, const trn_state_update *update, trn_error *err)
{
    if (update->weights && update->weights->weights != update->state)
        return TRN_OK; /* done with the weights */
    lower->group = group_of(lower, update->value);
    if (!lower->group)
        return trn_fail(err, TRN_ERR_INTERNAL, "nothing computes the new value of state '%s'",
                        update->state->name);
    trn_status status =
        update->weights ? trn_lower_weights(lower, update->weights, err) : lower_copy(lower, update, err);
    lower->group = NULL;
    if (status != TRN_OK) return status;
    trn_lowered_step *lowered = &lower->steps[lower->step_count - 1];
    lowered->setup = false; /* also of a value that is known before */
    lowered->update = true;
    lowered->label = update->state->name;
    return TRN_OK;
}

trn_status trn_lower_updates(trn_lower *lower, trn_error *err)
{
    trn_status status = TRN_OK;
    for (size_t i = 0; status == TRN_OK && i < lower->graph->update_count; i++)
        status = lower_update(lower, &lower->graph->updates[i], err);
    return status;
}
