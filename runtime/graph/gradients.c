/* Reverse-mode differentiation: gradients are more graph. */
#include "graph_internal.h"

#include <stdlib.h>

typedef struct gradient_pass {
    trn_graph *graph;
    trn_tensor **grads; /* by base tensor id, of the tensors that stood before the pass */
    bool *wanted;       /* by base tensor id: a path leads from it to something in wrt */
    trn_tensor **again; /* by base tensor id: what is computed a second time, see recompute.c */
    size_t node_count;  /* nodes that stood before the pass */
    size_t blocks;      /* those from here on are behind the pass, or have been computed again */
} gradient_pass;

static void accumulate(gradient_pass *pass, trn_tensor *of, trn_tensor *gradient)
{
    trn_tensor *base = trn_tensor_base(of);
    gradient = trn_reshape(pass->graph, gradient, base->shape);
    trn_tensor *sofar = pass->grads[base->id];
    pass->grads[base->id] = sofar ? trn_add(pass->graph, sofar, gradient) : gradient;
}

/* The node whose operands and result the gradient rules read: the node itself, or its second computation. */
static const trn_node *node_for_rules(gradient_pass *pass, const trn_node *node)
{
    const trn_block_range *blocks = pass->graph->blocks;
    while (pass->blocks && blocks[pass->blocks - 1].first > (size_t)node->id)
        pass->blocks--;
    if (pass->blocks && (size_t)node->id < blocks[pass->blocks - 1].end) {
        trn_block_again(pass->graph, &blocks[pass->blocks - 1], pass->node_count, pass->again);
        pass->blocks--;
    }
    const trn_tensor *again = pass->again[node->out->id];
    return again ? again->producer : node;
}

static trn_status step_back(gradient_pass *pass, const trn_node *node, trn_error *err)
{
    trn_tensor *dy = pass->grads[node->out->id];
    if (!dy) return TRN_OK;
    for (int i = 0; i < node->input_count; i++) {
        if (!node->inputs[i] || !pass->wanted[trn_tensor_base(node->inputs[i])->id]) continue;
        char label[128];
        if (!node->op->gradient)
            return trn_fail(err, TRN_ERR_UNSUPPORTED, "%s has no gradient rule: %s",
                            trn_node_label(node, label), node->op->why_no_gradient);
        const trn_node *read = node_for_rules(pass, node);
        trn_tensor *dx = NULL;
        const char *scope = pass->graph->scope;
        trn_status status = trn_graph_status(pass->graph, err);
        pass->graph->scope = node->scope; /* profiles and messages say whose gradient it is */
        if (status == TRN_OK) dx = node->op->gradient(pass->graph, read, dy, i);
        pass->graph->scope = scope;
        if (status == TRN_OK) status = trn_graph_status(pass->graph, err);
        if (status != TRN_OK) return status;
        if (dx) accumulate(pass, node->inputs[i], dx);
    }
    return TRN_OK;
}

static void mark_wanted(gradient_pass *pass, trn_tensor *const *wrt, int count)
{
    for (int i = 0; i < count; i++)
        pass->wanted[trn_tensor_base(wrt[i])->id] = true;
    for (size_t n = 0; n < pass->node_count; n++) {
        const trn_node *node = pass->graph->nodes[n];
        for (int i = 0; i < node->input_count; i++) {
            if (node->inputs[i] && pass->wanted[trn_tensor_base(node->inputs[i])->id])
                pass->wanted[node->out->id] = true;
        }
    }
}

static trn_tensor *ones(trn_graph *graph, trn_shape shape)
{
    float one = 1;
    trn_tensor *scalar = trn_constant(graph, "one", TRN_SHAPE(1), &one);
    return trn_expand(
        graph, trn_reshape(graph, scalar, (trn_shape){.ndim = shape.ndim, .dim = {1, 1, 1, 1, 1, 1}}), shape);
}

trn_status trn_gradients(trn_graph *graph, trn_tensor *y, trn_tensor *seed, trn_tensor *const *wrt, int count,
                         trn_tensor **grads, trn_error *err)
{
    trn_status status = trn_graph_status(graph, err);
    if (status != TRN_OK) return status;
    bool whole = y != NULL;
    for (int i = 0; i < count; i++)
        whole = whole && wrt[i];
    if (!whole) return trn_fail(err, TRN_ERR_ARGUMENT, "gradients: a tensor is NULL");
    gradient_pass pass = {.graph = graph, .node_count = graph->node_count, .blocks = graph->block_count};
    pass.grads = calloc(graph->tensor_count, sizeof *pass.grads);
    pass.wanted = calloc(graph->tensor_count, sizeof *pass.wanted);
    pass.again = calloc(graph->tensor_count, sizeof *pass.again);
    if (!pass.grads || !pass.wanted || !pass.again) {
        status = trn_fail_memory(err, graph->tensor_count * sizeof *pass.grads, "gradients");
        goto done;
    }
    mark_wanted(&pass, wrt, count);
    accumulate(&pass, y, seed ? seed : ones(graph, y->shape));
    for (size_t n = pass.node_count; status == TRN_OK && n-- > 0;)
        status = step_back(&pass, graph->nodes[n], err);
    for (int i = 0; status == TRN_OK && i < count; i++) {
        trn_tensor *gradient = pass.grads[trn_tensor_base(wrt[i])->id];
        grads[i] = gradient ? trn_reshape(graph, gradient, wrt[i]->shape) : NULL;
    }
    if (status == TRN_OK) status = trn_graph_status(graph, err);
done:
    free(pass.grads);
    free(pass.wanted);
    free(pass.again);
    return status;
}
