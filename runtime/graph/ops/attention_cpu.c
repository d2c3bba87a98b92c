/* Attention on CPU drivers. */
#include "attention.h"

trn_status trn_attention_cpu_lower(trn_lower *lower, const trn_node *node, trn_error *err)
{
    const trn_device_info *info = trn_lower_device(lower);
    const trn_attention_desc *d = trn_attention_desc_of(node);
    int lanes = (int)info->subgroup_size, queries = TRN_MAX(8, lanes);
    trn_step step = {.shader = "attention_lanes.comp", .variant = "lanes", .reason = "CPU driver"};
    if (info->subgroup_max) step.subgroup_size = info->subgroup_size;
    trn_step_macro(lower, &step, "SG", lanes);
    trn_step_macro(lower, &step, "TM", queries);
    return trn_attention_add_step(lower, node, &step, queries, lanes, 1 + lanes + (d->head_size + 7) / 8,
                                  err);
}
