/* The gradient of attention through shared memory. */
#include "attention.h"

/* Bytes of shared memory of attention_grad_tiles.comp, whatever its mode. */
static uint32_t tile_bytes(int bq, int bk, int head, int local)
{
    return 4U * (uint32_t)(2 * (bq + bk) * (head + 1) + 2 * bq * (bk + 1) + 3 * local);
}

trn_status trn_attention_gpu_pass(trn_lower *lower, const trn_node *node, const trn_attention_pass *p,
                                  trn_error *err)
{
    enum { LOCAL = 128 };
    int head = trn_attention_desc_of(node)->head_size, bq = p->rows <= 8 ? 8 : 16, bk = 32;
    uint32_t room = TRN_MIN(trn_lower_device(lower)->shared_memory_bytes, 32768U);
    while (bk > 8 && tile_bytes(bq, bk, head, LOCAL) > room)
        bk /= 2;
    while (bq > 4 && tile_bytes(bq, bk, head, LOCAL) > room)
        bq /= 2;
    while (bk > 1 && tile_bytes(bq, bk, head, LOCAL) > room)
        bk /= 2;
    int rounds = 1 + 2 * ((bk * head + LOCAL - 1) / LOCAL + head + bk);
    trn_step step = {.shader = "attention_grad_tiles.comp", .variant = "tiles", .reason = "shared memory"};
    trn_step_macro(lower, &step, "LOCAL", LOCAL);
    trn_step_macro(lower, &step, "BQ", bq);
    trn_step_macro(lower, &step, "BK", bk);
    trn_status status = trn_attention_check_rounds(lower, (p->others + bk - 1) / bk, rounds, p->others, err);
    return status == TRN_OK ? trn_attention_add_pass(lower, node, p, &step, bq, err) : status;
}
