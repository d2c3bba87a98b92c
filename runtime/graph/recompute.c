/* Gradient checkpointing: which nodes belong to blocks that are computed again for their gradients. */
#include "graph_internal.h"

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
