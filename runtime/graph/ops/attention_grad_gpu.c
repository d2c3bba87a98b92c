/* The gradient of attention on GPUs: through shared memory. */
#include "attention_tiles.h"

#include <string.h>

/* What attention_grad_tiles.comp does in a pass: dq and dk take scores and dy v^T, dv scores alone. */
static trn_tiles_work work_of(const trn_attention_pass *p, const trn_attention_desc *d)
{
    trn_tiles_work work = {
        .rows = p->rows, .others = p->others, .head = d->head_size, .whole = trn_tiles_whole(d)};
    bool stats = strcmp(p->mode, "STATS") == 0, slopes = strcmp(p->mode, "QUERIES") == 0 || p->dk;
    work.products = work.row_tiles = slopes ? 2 : 1;
    work.sums = work.pair_tiles = stats ? 0 : (slopes ? 1 : 0) + (p->dv ? 1 : 0);
    work.other_tiles = stats ? 1 : 2;
    return work;
}

trn_status trn_attention_gpu_pass(trn_lower *lower, const trn_node *node, const trn_attention_pass *p,
                                  trn_error *err)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    const trn_tiles_work work = work_of(p, d);
    trn_tiles_shape shape;
    trn_step step = {0};
    trn_status status =
        trn_tiles_choose(lower, node, "attention_grad_tiles.comp", &work, NULL, &shape, &step, err);
    if (status != TRN_OK) return status;
    int others = shape.tx * shape.tk, blocks = (p->others + others - 1) / others;
    int rounds = 1 + (d->head_size + 3) / 4 + others / 4;
    status = trn_attention_check_rounds(lower, blocks, rounds, p->others, err);
    if (status != TRN_OK) return status;
    trn_tiles_macros(lower, &step, &shape, d);
    return trn_attention_add_pass(lower, node, p, &step, shape.ty * shape.tq, err);
}
