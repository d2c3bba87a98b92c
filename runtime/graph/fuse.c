/* Fusion: pointwise nodes join the operator or the chain that makes their operand, when nobody else needs it.
 */
#include "graph_internal.h"

#include <stdlib.h>
#include <string.h>

trn_node *trn_group_last(const trn_group *group)
{
    return group->chain_count ? group->chain[group->chain_count - 1] : group->root;
}

/* The chain's value can flow into this node in registers: same elements in the same order, read by it alone.
 */
static bool can_flow(const trn_node *node, int input)
{
    const trn_tensor *base = trn_tensor_base(node->inputs[input]);
    return base->producer && base->consumers == 1 && !base->is_output &&
           trn_pointwise_get(node)->broadcast[input].kind == TRN_BROADCAST_FULL &&
           base->count == node->out->count && base->constant == node->out->constant;
}

static bool within_limits(const trn_group *group)
{
    trn_chain chain;
    return group->root ? trn_chain_collect(group, TRN_ROOT_OPERANDS, TRN_ROOT_SCALARS, &chain)
                       : trn_chain_collect(group, 1, 2, &chain);
}

/* Adds node to the group; true when the result stays within the limits of a kernel. */
static bool try_join(trn_group *group, trn_node *node)
{
    if (group->chain_count == TRN_MAX_GROUP) return false;
    trn_group longer = *group;
    longer.chain[longer.chain_count++] = node;
    longer.out = node->out;
    if (!within_limits(&longer)) return false;
    *group = longer;
    return true;
}

/* Joins the group of one of node's operands; returns its index or -1. */
static int join_producer(trn_group *groups, const int *group_of, trn_node *node)
{
    for (int i = 0; i < node->input_count; i++) {
        if (!can_flow(node, i)) continue;
        int g = group_of[trn_tensor_base(node->inputs[i])->producer->id];
        trn_group *group = &groups[g];
        if (group->root && !group->root->op->epilogue) continue;
        if (trn_group_last(group)->out != trn_tensor_base(node->inputs[i])) continue;
        if (try_join(group, node)) return g;
    }
    return -1;
}

static int compare_position(const void *a, const void *b)
{
    return trn_group_last(a)->id - trn_group_last(b)->id;
}

trn_status trn_fuse(trn_graph *graph, const bool *needed, bool enabled, trn_group **out, size_t *count,
                    trn_error *err)
{
    trn_group *groups = calloc(graph->node_count + 1, sizeof *groups);
    int *group_of = calloc(graph->node_count + 1, sizeof *group_of);
    size_t n = 0;
    if (!groups || !group_of) {
        free(groups);
        free(group_of);
        return trn_fail_memory(err, graph->node_count * sizeof *groups, "fusing a graph");
    }
    for (size_t i = 0; i < graph->node_count; i++) {
        trn_node *node = graph->nodes[i];
        if (!needed[i]) continue;
        bool pointwise = node->op == &trn_op_pointwise;
        int joined = pointwise && enabled ? join_producer(groups, group_of, node) : -1;
        if (joined < 0) {
            joined = (int)n++;
            groups[joined].out = node->out;
            if (pointwise)
                groups[joined].chain[groups[joined].chain_count++] = node;
            else
                groups[joined].root = node;
        }
        group_of[i] = joined;
    }
    free(group_of);
    /* a group runs where its last node stands: everything it reads is there by then */
    qsort(groups, n, sizeof *groups, compare_position);
    *out = groups;
    *count = n;
    return TRN_OK;
}
