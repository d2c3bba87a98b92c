/* Attention through shared memory, for GPUs and whatever else has it. */
#include "attention.h"

bool trn_attention_tiles_apply(const trn_gpu *gpu, char why_not[128])
{
    const trn_device_info *info = trn_gpu_info(gpu);
    if (info->max_invocations < 128) return trn_variant_say(why_not, "needs work groups of 128");
    return trn_variant_say(why_not,
                           info->shared_memory_bytes < 16384 ? "needs 16 KiB of shared memory" : NULL);
}

trn_status trn_attention_gpu_lower(trn_lower *lower, const trn_node *node, trn_error *err)
{
    enum { LOCAL = 128 };
    const trn_device_info *info = trn_lower_device(lower);
    const trn_attention_desc *d = trn_attention_desc_of(node);
    int bq = d->queries <= 8 ? 8 : 16, bk = 32, row = d->head_size + 1;
    uint32_t room = TRN_MIN(info->shared_memory_bytes, 32768U);
    while (bk > 8 && 4U * (uint32_t)((bq + bk) * row + bq * (bk + 1)) > room)
        bk /= 2;
    while (bq > 4 && 4U * (uint32_t)((bq + bk) * row + bq * (bk + 1)) > room)
        bq /= 2;
    trn_step step = {.shader = "attention_tiles.comp", .variant = "tiles", .reason = "shared memory"};
    trn_step_macro(lower, &step, "LOCAL", LOCAL);
    trn_step_macro(lower, &step, "BQ", bq);
    trn_step_macro(lower, &step, "BK", bk);
    int loads = (bk * d->head_size + LOCAL - 1) / LOCAL;
    return trn_attention_add_step(lower, node, node->inputs[TRN_ATTENTION_K], &step, bq, bk,
                                  2 * (1 + 2 * loads + d->head_size + bk), err);
}
