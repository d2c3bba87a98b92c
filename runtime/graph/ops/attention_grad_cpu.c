/* The gradient of attention on CPU drivers. */
#include "attention.h"

trn_status trn_attention_cpu_pass(trn_lower *lower, const trn_node *node, const trn_attention_pass *p,
                                  trn_error *err)
{
    const trn_device_info *info = trn_lower_device(lower);
    int lanes = (int)info->subgroup_size, rows = TRN_MAX(8, lanes);
    int rounds = 1 + lanes + (trn_attention_desc_of(node)->head_size + 7) / 8;
    trn_step step = {.shader = "attention_grad_lanes.comp", .variant = "lanes", .reason = "CPU driver"};
    if (info->subgroup_max) step.subgroup_size = info->subgroup_size;
    trn_step_macro(lower, &step, "SG", lanes);
    trn_step_macro(lower, &step, "TM", rows);
    trn_status status =
        trn_attention_check_rounds(lower, (p->others + lanes - 1) / lanes, rounds, p->others, err);
    return status == TRN_OK ? trn_attention_add_pass(lower, node, p, &step, rows, err) : status;
}
