/* States: finding those of a graph, and parameters that runs change though no gradient does. */
#include "graph_internal.h"

#include <string.h>

trn_tensor *trn_graph_state(const trn_graph *graph, size_t i, const char **name)
{
    if (i >= graph->state_count) return NULL;
    if (name) *name = graph->states[i]->name;
    return graph->states[i];
}

const char *trn_graph_prefix_now(const trn_graph *graph)
{
    return graph->prefix;
}

static trn_tensor *find_state(const trn_graph *graph, const char *name)
{
    const char *other;
    for (size_t i = 0;; i++) {
        trn_tensor *state = trn_graph_state(graph, i, &other);
        if (!state || !strcmp(other, name)) return state;
    }
}

static bool has_output(const trn_graph *graph, const char *name)
{
    for (size_t i = 0; i < graph->output_count; i++) {
        if (!strcmp(graph->outputs[i].name, name)) return true;
    }
    return false;
}

static trn_tensor *make_state(trn_graph *graph, const char *name, const char *asked, trn_shape shape,
                              trn_fill fill, void *user)
{
    char had[128], wanted[128];
    trn_tensor *state = find_state(graph, name);
    if (state && !trn_shape_equal(&state->shape, &shape))
        return trn_graph_fail(graph, "state '%s' is %s, and is asked for again as %s", name,
                              trn_shape_text(&state->shape, had), trn_shape_text(&shape, wanted));
    if (state) return state;
    state = trn_state(graph, name, shape, fill, user);
    if (!state) return NULL;
    state->asked = trn_arena_strdup(graph->arena, asked);
    return state->asked ? state : trn_graph_fail(graph, "state '%s': out of memory", name);
}

trn_tensor *trn_param_state(trn_graph *graph, const char *name, trn_shape shape, bool changes, trn_fill fill,
                            void *user)
{
    if (!changes && !graph->learns) return trn_param(graph, name, shape, fill, user);
    if (!fill) return trn_graph_fail(graph, "param '%s' has nothing that fills it", name);
    const char *full = trn_arena_printf(graph->arena, "%s%s", graph->prefix, name);
    if (!full) return trn_graph_fail(graph, "param '%s': out of memory", name);
    trn_tensor *state = make_state(graph, full, name, shape, fill, user);
    if (state && changes && !has_output(graph, full)) trn_output_add(graph, full, state);
    return state;
}
