/* Building graphs: tensors, leaves, nodes, views. */
#include "graph_internal.h"

#include <stdlib.h>
#include <string.h>

int64_t trn_shape_count(const trn_shape *shape)
{
    int64_t count = 1;
    for (int i = 0; i < shape->ndim; i++)
        count *= shape->dim[i];
    return count;
}

bool trn_shape_equal(const trn_shape *a, const trn_shape *b)
{
    return a->ndim == b->ndim && !memcmp(a->dim, b->dim, (size_t)a->ndim * sizeof *a->dim);
}

const char *trn_shape_text(const trn_shape *shape, char buffer[128])
{
    int n = snprintf(buffer, 128, "[");
    for (int i = 0; i < shape->ndim && i < TRN_MAX_DIMS; i++)
        n += snprintf(buffer + n, 128 - (size_t)n, i ? ",%lld" : "%lld", (long long)shape->dim[i]);
    snprintf(buffer + n, 128 - (size_t)n, "]");
    return buffer;
}

trn_graph *trn_graph_create(void)
{
    trn_graph *graph = calloc(1, sizeof *graph);
    if (!graph) return NULL;
    graph->arena = trn_arena_create();
    graph->scope = graph->prefix = "";
    if (!graph->arena) {
        free(graph);
        return NULL;
    }
    return graph;
}

void trn_graph_destroy(trn_graph *graph)
{
    if (!graph) return;
    trn_arena_destroy(graph->arena);
    free(graph->tensors);
    free(graph->nodes);
    free(graph->outputs);
    free(graph->states);
    free(graph->learning);
    free(graph->updates);
    free(graph->blocks);
    free(graph->halves);
    free(graph);
}

trn_status trn_graph_status(const trn_graph *graph, trn_error *err)
{
    if (graph->error.code != TRN_OK && err) *err = graph->error;
    return graph->error.code;
}

trn_tensor *trn_graph_fail(trn_graph *graph, const char *fmt, ...)
{
    if (graph->error.code != TRN_OK) return NULL;
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    trn_fail(&graph->error, TRN_ERR_ARGUMENT, "%s%s", graph->scope, text);
    return NULL;
}

void trn_graph_scope(trn_graph *graph, const char *scope)
{
    char *copy = trn_arena_strdup(graph->arena, scope ? scope : "");
    if (copy) graph->scope = copy;
}

trn_arena *trn_graph_arena(trn_graph *graph)
{
    return graph->arena;
}

const trn_shape *trn_tensor_shape(const trn_tensor *tensor)
{
    static const trn_shape empty;
    return tensor ? &tensor->shape : &empty;
}

int64_t trn_tensor_dim(const trn_tensor *tensor, int axis)
{
    if (!tensor) return 0;
    if (axis < 0) axis += tensor->shape.ndim;
    return axis < 0 || axis >= tensor->shape.ndim ? 0 : tensor->shape.dim[axis];
}

trn_dtype trn_tensor_type(const trn_tensor *tensor)
{
    return tensor ? tensor->type : TRN_F32;
}

static trn_tensor *fail_memory(trn_graph *graph)
{
    if (graph->error.code == TRN_OK) trn_fail_memory(&graph->error, sizeof(trn_tensor), "a graph");
    return NULL;
}

static bool shape_fits(const trn_shape *shape)
{
    int64_t count = 1;
    if (shape->ndim < 0 || shape->ndim > TRN_MAX_DIMS) return false;
    for (int i = 0; i < shape->ndim; i++) {
        if (shape->dim[i] < 1 || shape->dim[i] > INT32_MAX) return false;
        count *= shape->dim[i];
        if (count > INT32_MAX) return false;
    }
    return true;
}

trn_tensor *trn_tensor_new(trn_graph *graph, trn_dtype type, trn_shape shape)
{
    char text[128];
    if (graph->error.code != TRN_OK) return NULL;
    if (!shape_fits(&shape))
        return trn_graph_fail(graph, "a tensor of shape %s has no, or more than 2^31-1, elements",
                              trn_shape_text(&shape, text));
    trn_tensor *tensor = trn_arena_alloc(graph->arena, sizeof *tensor);
    if (!tensor ||
        !trn_grow(&graph->tensors, &graph->tensor_capacity, graph->tensor_count + 1, sizeof(trn_tensor *)))
        return fail_memory(graph);
    tensor->graph = graph;
    tensor->id = (int)graph->tensor_count;
    tensor->type = type;
    tensor->shape = shape;
    tensor->count = trn_shape_count(&shape);
    graph->tensors[graph->tensor_count++] = tensor;
    return tensor;
}

trn_tensor *trn_tensor_base(trn_tensor *tensor)
{
    while (tensor && tensor->view_of)
        tensor = tensor->view_of;
    return tensor;
}

uint64_t trn_tensor_bytes(const trn_tensor *tensor)
{
    uint64_t size = tensor->type == TRN_F16 ? 2 : 4;
    return ((uint64_t)tensor->count * size + 3) / 4 * 4;
}

const char *trn_type_name(trn_dtype type)
{
    return type == TRN_F16 ? "float16" : type == TRN_I32 ? "integers" : "float32";
}

float *trn_tensor_floats(const trn_tensor *tensor, const void *values)
{
    float *floats = malloc((size_t)tensor->count * sizeof *floats);
    if (!floats) return NULL;
    if (tensor->type == TRN_F16) {
        for (int64_t i = 0; i < tensor->count; i++)
            floats[i] = trn_f16_to_f32(((const uint16_t *)values)[i]);
    } else {
        memcpy(floats, values, (size_t)tensor->count * sizeof *floats);
    }
    return floats;
}

const char *trn_node_label(const trn_node *node, char buffer[128])
{
    const char *name = node->op == &trn_op_pointwise ? trn_pointwise_name(node) : node->op->name;
    snprintf(buffer, 128, "%s%s", node->scope, name);
    return buffer;
}

/* ---- leaves ---- */

static trn_tensor *leaf(trn_graph *graph, const char *name, trn_dtype type, trn_shape shape)
{
    trn_tensor *tensor = trn_tensor_new(graph, type, shape);
    if (!tensor) return NULL;
    tensor->name = trn_arena_strdup(graph->arena, name);
    return tensor->name ? tensor : fail_memory(graph);
}

trn_tensor *trn_input(trn_graph *graph, const char *name, trn_dtype type, trn_shape shape)
{
    for (size_t i = 0; i < graph->tensor_count; i++) {
        const trn_tensor *other = graph->tensors[i];
        if (other->is_input && !strcmp(other->name, name))
            return trn_graph_fail(graph, "two inputs or states are called '%s'", name);
    }
    if (type == TRN_F16)
        return trn_graph_fail(graph, "input '%s' is float16: let it be float32 and cast it", name);
    trn_tensor *tensor = leaf(graph, name, type, shape);
    if (tensor) tensor->is_input = true;
    return tensor;
}

/* A model that is built twice into a graph keeps its weights once. */
static trn_tensor *find_param(const trn_graph *graph, const char *name, const trn_shape *shape, trn_fill fill,
                              const void *user)
{
    for (size_t i = 0; i < graph->tensor_count; i++) {
        trn_tensor *tensor = graph->tensors[i];
        if (tensor->constant && tensor->fill == fill && tensor->fill_user == user &&
            !strcmp(tensor->name, name) && trn_shape_equal(&tensor->shape, shape))
            return tensor;
    }
    return NULL;
}

trn_tensor *trn_state(trn_graph *graph, const char *name, trn_shape shape, trn_fill fill, void *user)
{
    if (!trn_grow(&graph->states, &graph->state_capacity, graph->state_count + 1, sizeof(trn_tensor *)))
        return trn_graph_fail(graph, "state '%s': out of memory", name);
    trn_tensor *tensor = trn_input(graph, name, TRN_F32, shape);
    if (!tensor) return NULL;
    graph->states[graph->state_count++] = tensor;
    tensor->is_state = true;
    tensor->fill = fill;
    tensor->fill_user = user;
    return tensor;
}

void trn_graph_train(trn_graph *graph, bool (*learns)(void *user, const char *name), void *user)
{
    graph->learns = learns;
    graph->learns_user = user;
}

trn_tensor *trn_graph_learning(const trn_graph *graph, size_t i, const char **name)
{
    if (i >= graph->learning_count) return NULL;
    if (name) *name = graph->learning[i]->name;
    return graph->learning[i];
}

void trn_graph_prefix(trn_graph *graph, const char *prefix)
{
    char *copy = trn_arena_strdup(graph->arena, prefix ? prefix : "");
    if (copy)
        graph->prefix = copy;
    else
        fail_memory(graph);
}

/* The state of a parameter that learns: made, or found when it was asked for before. */
static trn_tensor *learning_param(trn_graph *graph, const char *name, const char *asked, trn_shape shape,
                                  trn_fill fill, void *user)
{
    char had[128], wanted[128];
    for (size_t i = 0; i < graph->learning_count; i++) {
        trn_tensor *other = graph->learning[i];
        if (strcmp(other->name, name) != 0) continue;
        if (trn_shape_equal(&other->shape, &shape)) return other;
        return trn_graph_fail(graph, "param '%s' is %s, and is asked for again as %s", name,
                              trn_shape_text(&other->shape, had), trn_shape_text(&shape, wanted));
    }
    if (!trn_grow(&graph->learning, &graph->learning_capacity, graph->learning_count + 1,
                  sizeof(trn_tensor *)))
        return fail_memory(graph);
    trn_tensor *tensor = trn_state(graph, name, shape, fill, user);
    if (!tensor) return NULL;
    tensor->asked = trn_arena_strdup(graph->arena, asked);
    if (!tensor->asked) return fail_memory(graph);
    graph->learning[graph->learning_count++] = tensor;
    return tensor;
}

trn_tensor *trn_param(trn_graph *graph, const char *name, trn_shape shape, trn_fill fill, void *user)
{
    if (!fill) return trn_graph_fail(graph, "param '%s' has nothing that fills it", name);
    if (graph->learns) {
        const char *full = trn_arena_printf(graph->arena, "%s%s", graph->prefix, name);
        if (!full) return fail_memory(graph);
        if (graph->learns(graph->learns_user, full))
            return learning_param(graph, full, name, shape, fill, user);
    }
    trn_tensor *known = find_param(graph, name, &shape, fill, user);
    if (known) return known;
    trn_tensor *tensor = leaf(graph, name, TRN_F32, shape);
    if (!tensor) return NULL;
    tensor->constant = true;
    tensor->fill = fill;
    tensor->fill_user = user;
    return tensor;
}

static trn_tensor *constant(trn_graph *graph, const char *name, trn_dtype type, trn_shape shape,
                            const void *values)
{
    trn_tensor *tensor = leaf(graph, name, type, shape);
    if (!tensor) return NULL;
    void *copy = trn_arena_array(graph->arena, (size_t)tensor->count, 4);
    if (!copy) return fail_memory(graph);
    memcpy(copy, values, (size_t)tensor->count * 4);
    tensor->constant = true;
    tensor->values = copy;
    return tensor;
}

trn_tensor *trn_constant(trn_graph *graph, const char *name, trn_shape shape, const float *values)
{
    return constant(graph, name, TRN_F32, shape, values);
}

trn_tensor *trn_constant_int(trn_graph *graph, const char *name, trn_shape shape, const int32_t *values)
{
    return constant(graph, name, TRN_I32, shape, values);
}

void trn_output_add(trn_graph *graph, const char *name, trn_tensor *tensor)
{
    if (!tensor || graph->error.code != TRN_OK) return;
    if (tensor->type == TRN_F16) {
        trn_graph_fail(graph, "output '%s' is float16: cast it to float32", name);
        return;
    }
    for (size_t i = 0; i < graph->output_count; i++) {
        if (!strcmp(graph->outputs[i].name, name)) {
            trn_graph_fail(graph, "two outputs are called '%s'", name);
            return;
        }
    }
    char *copy = trn_arena_strdup(graph->arena, name);
    if (!copy || !trn_grow(&graph->outputs, &graph->output_capacity, graph->output_count + 1,
                           sizeof *graph->outputs)) {
        fail_memory(graph);
        return;
    }
    graph->outputs[graph->output_count++] = (trn_named_output){copy, tensor};
    trn_tensor_base(tensor)->is_output = true;
}

/* ---- nodes and views ---- */

/* Whether the operator takes the types of its operands; else the graph has failed. */
static bool takes_types(trn_graph *graph, const trn_op *op, trn_tensor *const *inputs, int count)
{
    char text[128];
    for (int i = 0; i < count && !op->float16; i++) {
        if (!inputs[i] || inputs[i]->type != TRN_F16) continue;
        trn_graph_fail(graph, "%s: %s is float16, and it takes float32: cast it", op->name,
                       trn_shape_text(&inputs[i]->shape, text));
        return false;
    }
    return true;
}

trn_node *trn_node_add(trn_graph *graph, const trn_op *op, trn_tensor *const *inputs, int input_count,
                       trn_dtype type, trn_shape out_shape)
{
    if (graph->error.code != TRN_OK) return NULL;
    if (input_count > TRN_MAX_INPUTS) {
        trn_graph_fail(graph, "%s: more than %d inputs", op->name, TRN_MAX_INPUTS);
        return NULL;
    }
    if (input_count > 0 && !inputs[0]) return NULL;
    if (!takes_types(graph, op, inputs, input_count)) return NULL;
    trn_tensor *out = trn_tensor_new(graph, type, out_shape);
    trn_node *node = out ? trn_arena_alloc(graph->arena, sizeof *node) : NULL;
    if (!out) {
        if (graph->error.code != TRN_OK) trn_wrap(&graph->error, "%s", op->name);
        return NULL;
    }
    if (!node || !trn_grow(&graph->nodes, &graph->node_capacity, graph->node_count + 1, sizeof(trn_node *))) {
        fail_memory(graph);
        return NULL;
    }
    node->op = op;
    node->id = (int)graph->node_count;
    node->input_count = input_count;
    node->out = out;
    node->scope = graph->scope;
    out->producer = node;
    out->constant = input_count > 0;
    for (int i = 0; i < input_count; i++) {
        node->inputs[i] = inputs[i];
        if (inputs[i] && !inputs[i]->constant) out->constant = false;
    }
    graph->nodes[graph->node_count++] = node;
    return node;
}

trn_tensor *trn_reshape(trn_graph *graph, trn_tensor *x, trn_shape shape)
{
    if (!x) return NULL;
    char from[128], to[128];
    int open = -1;
    for (int i = 0; i < TRN_MIN(shape.ndim, TRN_MAX_DIMS) && open < 0; i++) {
        if (shape.dim[i] == -1) open = i;
    }
    if (open >= 0) {
        shape.dim[open] = 1;
        shape.dim[open] = shape_fits(&shape) ? x->count / trn_shape_count(&shape) : -1;
    }
    if (!shape_fits(&shape) || trn_shape_count(&shape) != x->count)
        return trn_graph_fail(graph, "reshape: %s cannot become %s", trn_shape_text(&x->shape, from),
                              trn_shape_text(&shape, to));
    trn_tensor *view = trn_tensor_new(graph, x->type, shape);
    if (!view) return NULL;
    view->view_of = x;
    view->constant = x->constant;
    return view;
}

int trn_axis(trn_graph *graph, const trn_tensor *x, int axis, const char *op)
{
    if (!x) return -1;
    int positive = axis < 0 ? axis + x->shape.ndim : axis;
    if (positive >= 0 && positive < x->shape.ndim) return positive;
    char text[128];
    trn_graph_fail(graph, "%s: axis %d is outside of %s", op, axis, trn_shape_text(&x->shape, text));
    return -1;
}

trn_split trn_split_at(const trn_shape *shape, int axis)
{
    trn_split split = {1, shape->dim[axis], 1};
    for (int i = 0; i < axis; i++)
        split.outer *= shape->dim[i];
    for (int i = axis + 1; i < shape->ndim; i++)
        split.inner *= shape->dim[i];
    return split;
}

static bool reads(const trn_node *node, const trn_tensor *base, int before)
{
    for (int i = 0; i < before; i++) {
        if (trn_tensor_base(node->inputs[i]) == base) return true;
    }
    return false;
}

static void mark_update(const trn_state_update *update, bool *marks)
{
    const trn_weights_update *weights = update->weights;
    const trn_tensor *values[] = {update->value, weights ? weights->now : NULL,
                                  weights ? weights->norm : NULL};
    for (int i = 0; i < 3; i++) {
        if (values[i] && values[i]->producer) marks[values[i]->producer->id] = true;
    }
}

trn_status trn_graph_needed(trn_graph *graph, bool **needed, trn_error *err)
{
    trn_status status = trn_graph_status(graph, err);
    if (status != TRN_OK) return status;
    if (!graph->output_count && !graph->update_count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "the graph has no output");
    bool *marks = calloc(graph->node_count + 1, sizeof *marks);
    if (!marks) return trn_fail_memory(err, graph->node_count, "a graph");
    for (size_t i = 0; i < graph->tensor_count; i++)
        graph->tensors[i]->consumers = 0;
    for (size_t i = 0; i < graph->output_count; i++) {
        const trn_tensor *base = trn_tensor_base(graph->outputs[i].tensor);
        if (base->producer) marks[base->producer->id] = true;
    }
    for (size_t i = 0; i < graph->update_count; i++)
        mark_update(&graph->updates[i], marks);
    for (size_t n = graph->node_count; n-- > 0;) {
        const trn_node *node = graph->nodes[n];
        if (!marks[n]) continue;
        for (int i = 0; i < node->input_count; i++) {
            trn_tensor *base = trn_tensor_base(node->inputs[i]);
            if (!base || reads(node, base, i)) continue;
            base->consumers++;
            if (base->producer) marks[base->producer->id] = true;
        }
    }
    *needed = marks;
    return TRN_OK;
}
