/* Attention on GPUs: through shared memory. */
#include "attention_tiles.h"

bool trn_attention_tiles_apply(const trn_gpu *gpu, char why_not[128])
{
    const trn_device_info *info = trn_gpu_info(gpu);
    if (info->max_invocations < 64) return trn_variant_say(why_not, "needs work groups of 64");
    return trn_variant_say(why_not,
                           info->shared_memory_bytes < 16384 ? "needs 16 KiB of shared memory" : NULL);
}

trn_status trn_attention_gpu_lower(trn_lower *lower, const trn_node *node, trn_error *err)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    const trn_tiles_work work = {.rows = d->queries,
                                 .others = d->keys,
                                 .head = d->head_size,
                                 .products = 1,
                                 .sums = 1,
                                 .row_tiles = 1,
                                 .other_tiles = 2,
                                 .pair_tiles = 1,
                                 .whole = trn_tiles_whole(d)};
    trn_tiles_shape shape;
    trn_step step = {0};
    if (!trn_tiles_choose(lower, node, "attention_tiles.comp", &work, &shape, &step, err)) return err->code;
    trn_tiles_macros(lower, &step, &shape, d);
    int others = shape.tx * shape.tk;
    return trn_attention_add_step(lower, node, node->inputs[TRN_ATTENTION_K], &step, shape.ty * shape.tq,
                                  others, 2 + (d->head_size + 3) / 4 + others / 4, err);
}
