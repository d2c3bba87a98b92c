/* The gradient of attention on CPU drivers. */
#include "attention.h"

#include <string.h>

enum { Q = TRN_ATTENTION_Q, K = TRN_ATTENTION_K, V = TRN_ATTENTION_V };

static trn_status uniform_pass(trn_lower *lower, const trn_node *node, const trn_attention_pass *p,
                               const char *reason, trn_error *err)
{
    const trn_attention_rows queries[] = {{node->inputs[Q], TRN_ATTENTION_OF_Q, p->others},
                                          {node->inputs[TRN_ATTENTION_DY], TRN_ATTENTION_OF_OUT, p->others}};
    const trn_attention_rows keys[] = {{node->inputs[K], TRN_ATTENTION_OF_K, p->others},
                                       {node->inputs[V], TRN_ATTENTION_OF_V, p->others}};
    bool of_keys = !strcmp(p->mode, "KEYS"), of_stats = !strcmp(p->mode, "STATS");
    int rows = trn_attention_rows_at_once(lower, node, p->rows, p->dk && p->dv ? 2 : 1);
    trn_attention_pass with = *p;
    with.packed = trn_attention_pack(lower, node, of_keys ? queries : keys, of_stats ? 1 : 2, err);
    if (!with.packed) return err->code;
    trn_step step = trn_attention_lanes_step(lower, "attention_grad_uniform.comp", "uniform", reason);
    trn_step_macro(lower, &step, "TM", rows);
    int lanes = (int)trn_lower_device(lower)->subgroup_size;
    trn_status status = trn_attention_check_rounds(lower, (p->others + lanes - 1) / lanes, 1, p->others, err);
    return status == TRN_OK ? trn_attention_add_pass(lower, node, &with, &step, rows, err) : status;
}

static trn_status lanes_pass(trn_lower *lower, const trn_node *node, const trn_attention_pass *p,
                             const char *reason, trn_error *err)
{
    int lanes = (int)trn_lower_device(lower)->subgroup_size, rows = TRN_MAX(8, lanes);
    int rounds = 1 + lanes + (trn_attention_desc_of(node)->head_size + 7) / 8;
    trn_step step = trn_attention_lanes_step(lower, "attention_grad_lanes.comp", "lanes", reason);
    trn_step_macro(lower, &step, "TM", rows);
    trn_status status =
        trn_attention_check_rounds(lower, (p->others + lanes - 1) / lanes, rounds, p->others, err);
    return status == TRN_OK ? trn_attention_add_pass(lower, node, p, &step, rows, err) : status;
}

trn_status trn_attention_cpu_pass(trn_lower *lower, const trn_node *node, const trn_attention_pass *p,
                                  trn_error *err)
{
    const char *reason = "CPU driver, and no buffer left for the mask";
    const char *name = trn_lower_printf(lower, " %s", p->mode);
    bool uniform = !node->inputs[TRN_ATTENTION_MASK] && name &&
                   trn_attention_choose_uniform(lower, node, name, "attention_grad_uniform.comp",
                                                "attention_grad_lanes.comp", &reason);
    return uniform ? uniform_pass(lower, node, p, reason, err) : lanes_pass(lower, node, p, reason, err);
}
