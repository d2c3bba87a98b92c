/* Attention on CPU drivers. */
#include "attention.h"

trn_step trn_attention_lanes_step(trn_lower *lower, const char *shader, const char *variant,
                                  const char *reason)
{
    const trn_device_info *info = trn_lower_device(lower);
    trn_step step = {.shader = shader, .variant = variant, .reason = reason};
    if (info->subgroup_max) step.subgroup_size = info->subgroup_size;
    trn_step_macro(lower, &step, "SG", (int)info->subgroup_size);
    return step;
}

bool trn_attention_choose_uniform(trn_lower *lower, const trn_node *node, const char *pass,
                                  const char *shader, const char *lanes_shader, const char **reason)
{
    char why_not[128];
    const trn_candidate candidates[] = {
        {.name = trn_lower_printf(lower, "uniform%s", pass),
         .shader = shader,
         .reason = "CPU driver that finds uniform loads"},
        {.name = trn_lower_printf(lower, "lanes%s", pass), .shader = lanes_shader, .reason = "CPU driver"},
    };
    /* All channels are one piece of code: of more, compiling would take longer than computing. */
    bool uniform = trn_uniform_loads_apply(trn_lower_gpu(lower), why_not) &&
                   trn_attention_desc_of(node)->head_size <= TRN_ATTENTION_LONGEST_LANES;
    int first = uniform ? 0 : 1;
    return trn_lower_choose(lower, node, candidates + first, 2 - first, reason) + first == 0;
}

int trn_attention_rows_at_once(const trn_lower *lower, const trn_node *node, int rows, int sums)
{
    enum { REGISTERS = 24, MOST = 6 };
    int lanes = (int)trn_lower_device(lower)->subgroup_size;
    int vectors = (trn_attention_desc_of(node)->head_size + lanes - 1) / lanes * sums;
    int most = TRN_MIN(TRN_MAX(REGISTERS / vectors, 2), MOST);
    int blocks = (rows + most - 1) / most;
    return (rows + blocks - 1) / blocks; /* as even as can be */
}

static trn_status add_pack(trn_lower *lower, const trn_node *node, const trn_attention_rows *from,
                           int64_t start, trn_tensor *packed, trn_error *err)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    int lanes = (int)trn_lower_device(lower)->subgroup_size;
    int64_t panels = (from->rows + lanes - 1) / lanes, groups = trn_attention_groups(d) * panels;
    trn_step step = trn_attention_lanes_step(lower, "attention_pack.comp", "pack", "rows to lanes");
    trn_step_macro(lower, &step, "HEAD", d->head_size);
    trn_step_macro(lower, &step, "WHAT", from->layout);
    trn_step_read(&step, from->tensor);
    trn_step_read(&step, node->inputs[TRN_ATTENTION_LAYOUT]);
    trn_step_write(&step, packed);
    const int64_t scalars[] = {d->windows, d->heads, from->rows, panels, groups, start};
    for (size_t i = 0; i < TRN_COUNT(scalars); i++)
        trn_step_uint(&step, scalars[i]);
    step.bytes = 8.0 * (double)trn_attention_groups(d) * from->rows * d->head_size;
    trn_lower_groups(&step, groups);
    return trn_lower_step(lower, &step, err);
}

trn_tensor *trn_attention_pack(trn_lower *lower, const trn_node *node, const trn_attention_rows *from,
                               int count, trn_error *err)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    int64_t lanes = trn_lower_device(lower)->subgroup_size, rows = (from->rows + lanes - 1) / lanes * lanes;
    int64_t values = trn_attention_groups(d) * rows * d->head_size;
    trn_tensor *packed = trn_lower_temporary(lower, 4U * (uint64_t)(values * count), err);
    for (int i = 0; packed && i < count; i++) {
        if (add_pack(lower, node, &from[i], i * values, packed, err) != TRN_OK) return NULL;
    }
    return packed;
}

static trn_status lower_uniform(trn_lower *lower, const trn_node *node, const char *reason, trn_error *err)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    int lanes = (int)trn_lower_device(lower)->subgroup_size;
    int queries = trn_attention_rows_at_once(lower, node, d->queries, 1);
    trn_attention_rows from = {node->inputs[TRN_ATTENTION_K], TRN_ATTENTION_OF_K, d->keys};
    trn_tensor *keys = trn_attention_pack(lower, node, &from, 1, err);
    if (!keys) return err->code;
    trn_step step = trn_attention_lanes_step(lower, "attention_uniform.comp", "uniform", reason);
    trn_step_macro(lower, &step, "TM", queries);
    return trn_attention_add_step(lower, node, keys, &step, queries, lanes, 1, err);
}

static bool fits_texels(const trn_lower *lower, const trn_node *node)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    uint64_t most = trn_lower_device(lower)->max_texel_range;
    if (!most || !trn_attention_fours(&d->q) || !trn_attention_fours(&d->k) || !trn_attention_fours(&d->v))
        return false;
    for (int i = TRN_ATTENTION_Q; i <= TRN_ATTENTION_V; i++)
        if (4 * (uint64_t)node->inputs[i]->count > most) return false;
    return true;
}

static trn_status lower_lanes(trn_lower *lower, const trn_node *node, const char *reason, trn_error *err)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    int lanes = (int)trn_lower_device(lower)->subgroup_size, queries = TRN_MAX(8, lanes);
    trn_step step = trn_attention_lanes_step(lower, "attention_lanes.comp", "lanes", reason);
    trn_step_macro(lower, &step, "TM", queries);
    if (fits_texels(lower, node)) step.texels = 3;
    return trn_attention_add_step(lower, node, node->inputs[TRN_ATTENTION_K], &step, queries, lanes,
                                  1 + lanes + (d->head_size + 7) / 8, err);
}

trn_status trn_attention_cpu_lower(trn_lower *lower, const trn_node *node, trn_error *err)
{
    const char *reason;
    if (trn_attention_choose_uniform(lower, node, "", "attention_uniform.comp", "attention_lanes.comp",
                                     &reason))
        return lower_uniform(lower, node, reason, err);
    return lower_lanes(lower, node, reason, err);
}
