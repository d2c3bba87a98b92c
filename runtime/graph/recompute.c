/* Gradient checkpointing: blocks of nodes, and computing them a second time for their gradients. */
#include "graph_internal.h"

#include <string.h>

void trn_graph_recompute(trn_graph *graph, bool on)
{
    graph->recompute = on;
}

void trn_graph_block_begin(trn_graph *graph)
{
    if (graph->block_depth++ || !graph->recompute || graph->error.code != TRN_OK) return;
    if (!trn_grow(&graph->blocks, &graph->block_capacity, graph->block_count + 1, sizeof *graph->blocks)) {
        trn_graph_fail(graph, "a block: out of memory");
        return;
    }
    graph->blocks[graph->block_count++] = (trn_block_range){graph->node_count, SIZE_MAX};
}

void trn_graph_block_end(trn_graph *graph)
{
    if (!graph->block_depth) {
        trn_graph_fail(graph, "a block ends that did not begin");
        return;
    }
    if (--graph->block_depth || !graph->block_count) return;
    trn_block_range *last = &graph->blocks[graph->block_count - 1];
    if (last->end == SIZE_MAX) last->end = graph->node_count;
}

static trn_tensor *operand_again(trn_graph *graph, trn_tensor *operand, trn_tensor *const *again)
{
    trn_tensor *base = trn_tensor_base(operand), *value = base ? again[base->id] : NULL;
    if (!value) return operand;
    return operand == base ? value : trn_reshape(graph, value, operand->shape);
}

static trn_tensor *node_again(trn_graph *graph, const trn_node *node, trn_tensor *const *again)
{
    trn_tensor *inputs[TRN_MAX_INPUTS];
    for (int i = 0; i < node->input_count; i++)
        inputs[i] = operand_again(graph, node->inputs[i], again);
    trn_node *copy =
        trn_node_add(graph, node->op, inputs, node->input_count, node->out->type, node->out->shape);
    if (!copy) return NULL;
    memcpy(copy->attr, node->attr, sizeof copy->attr);
    copy->scope = node->scope;
    return copy->out;
}

/* What no gradient rule reads is left out when the graph is compiled, as all that nobody needs. */
void trn_block_again(trn_graph *graph, const trn_block_range *block, size_t node_count, trn_tensor **again)
{
    for (size_t n = block->first; n < TRN_MIN(block->end, node_count); n++) {
        const trn_node *node = graph->nodes[n];
        if (!node->out->constant) again[node->out->id] = node_again(graph, node, again);
    }
}
