/* Scopes: parameters by name below a prefix. */
#include "nn_private.h"

#include <string.h>

trn_scope trn_scope_root(trn_graph *graph, const trn_parameters *parameters)
{
    return (trn_scope){.graph = graph, .parameters = parameters};
}

trn_scope trn_scope_enter(const trn_scope *scope, const char *fmt, ...)
{
    trn_scope inner = *scope;
    size_t used = strlen(inner.prefix), room = sizeof inner.prefix - used;
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(inner.prefix + used, room, fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n + 2 > room) {
        trn_graph_fail(scope->graph, "the names of parameters below '%s' are too long", scope->prefix);
        inner.prefix[used] = 0;
        return inner;
    }
    inner.prefix[used + (size_t)n] = '.';
    inner.prefix[used + (size_t)n + 1] = 0;
    return inner;
}

static bool full_name(const trn_scope *scope, const char *name, char *out, size_t size)
{
    int n = snprintf(out, size, "%s%s", scope->prefix, name);
    return n >= 0 && (size_t)n < size;
}

/* Below the scope, and told to whoever wants to know. */
static bool ask(const trn_scope *scope, const char *name, const trn_shape *shape, char *full, size_t size)
{
    const trn_parameters *parameters = scope->parameters;
    if (!full_name(scope, name, full, size)) {
        trn_graph_fail(scope->graph, "the name of parameter '%s%s' is too long", scope->prefix, name);
        return false;
    }
    if (parameters->want) parameters->want(parameters->user, full, shape);
    return true;
}

trn_tensor *trn_scope_param(const trn_scope *scope, const char *name, trn_shape shape)
{
    char full[256];
    const trn_parameters *parameters = scope->parameters;
    if (!ask(scope, name, &shape, full, sizeof full)) return NULL;
    return trn_param(scope->graph, full, shape, parameters->fill, parameters->user);
}

trn_tensor *trn_scope_state(const trn_scope *scope, const char *name, trn_shape shape, bool changes)
{
    char full[256];
    const trn_parameters *parameters = scope->parameters;
    if (!ask(scope, name, &shape, full, sizeof full)) return NULL;
    return trn_param_state(scope->graph, full, shape, changes, parameters->fill, parameters->user);
}

bool trn_scope_has(const trn_scope *scope, const char *name)
{
    char full[256];
    const trn_parameters *parameters = scope->parameters;
    if (!parameters->has || !full_name(scope, name, full, sizeof full)) return false;
    return parameters->has(parameters->user, full);
}
