/* Attention on GPUs: through shared memory, and on matrix cores. */
#include "attention_tiles.h"
#include "matmul.h"

bool trn_attention_tiles_apply(const trn_gpu *gpu, char why_not[128])
{
    const trn_device_info *info = trn_gpu_info(gpu);
    if (info->max_invocations < 64) return trn_variant_say(why_not, "needs work groups of 64");
    return trn_variant_say(why_not,
                           info->shared_memory_bytes < 16384 ? "needs 16 KiB of shared memory" : NULL);
}

/* ---- matrix cores ---- */

enum { MATRIX_KEYS = 32 }; /* at a time */
enum { AMD = 0x1002, NVIDIA = 0x10de };

typedef struct matrix_plan {
    trn_matrix_shape matrix;
    int subgroups;
} matrix_plan;

static int matrix_bytes(const matrix_plan *plan, int head)
{
    int row = 16 * ((head + 15) / 16 * 2 + 1), rows = plan->subgroups * (int)plan->matrix.m;
    return (rows + 2 * MATRIX_KEYS) * row + rows * (16 * (MATRIX_KEYS / 8 + 1) + 4 * (MATRIX_KEYS + 4));
}

/* The largest matrix of up to 16 by 16 by 16 whose rows get the same number of lanes, 1, 2 or 4; and as many
 * subgroups as shared memory has room for. */
static bool plan_matrix(const trn_device_info *info, int head, matrix_plan *plan)
{
    uint32_t best = 0, lanes = info->subgroup_size;
    for (int i = 0; i < info->matrix_count; i++) {
        const trn_matrix_shape *s = &info->matrices[i];
        bool fits = (s->m == 8 || s->m == 16) && (s->n == 8 || s->n == 16) && (s->k == 8 || s->k == 16) &&
                    (lanes == s->m || lanes == 2 * s->m || lanes == 4 * s->m);
        if (!fits || s->m * s->n * s->k <= best) continue;
        best = s->m * s->n * s->k;
        plan->matrix = *s;
    }
    plan->subgroups = 4;
    while (plan->subgroups && ((uint32_t)matrix_bytes(plan, head) > info->shared_memory_bytes ||
                               (uint32_t)plan->subgroups * lanes > info->max_invocations))
        plan->subgroups /= 2;
    return best && plan->subgroups;
}

static bool matrix_applies(trn_lower *lower, const trn_node *node, matrix_plan *plan)
{
    char why_not[128];
    const trn_device_info *info = trn_lower_device(lower);
    for (int i = TRN_ATTENTION_Q; i <= TRN_ATTENTION_V; i++) {
        if (!trn_lower_is_half(lower, node->inputs[i])) return false;
    }
    return trn_matmul_matrix_applies(trn_lower_gpu(lower), why_not) && info->subgroup_shuffle &&
           info->subgroup_max && plan_matrix(info, trn_attention_desc_of(node)->head_size, plan);
}

static trn_status lower_matrix(trn_lower *lower, const trn_node *node, const matrix_plan *plan,
                               trn_step *step, trn_error *err)
{
    int rows = plan->subgroups * (int)plan->matrix.m;
    trn_step_macro(lower, step, "CM", (int)plan->matrix.m);
    trn_step_macro(lower, step, "CN", (int)plan->matrix.n);
    trn_step_macro(lower, step, "CK", (int)plan->matrix.k);
    trn_step_macro(lower, step, "SUBGROUPS", plan->subgroups);
    trn_step_macro(lower, step, "BK", MATRIX_KEYS);
    if (trn_tiles_whole(trn_attention_desc_of(node))) trn_step_macro(lower, step, "VEC4", 1);
    step->subgroup_size = trn_lower_device(lower)->subgroup_size;
    return trn_attention_add_step(lower, node, node->inputs[TRN_ATTENTION_K], step, rows, MATRIX_KEYS, 32,
                                  err);
}

/* ---- the choice ---- */

static trn_status lower_with(trn_lower *lower, const trn_node *node, const matrix_plan *plan, trn_error *err)
{
    const trn_device_info *info = trn_lower_device(lower);
    const trn_attention_desc *d = trn_attention_desc_of(node);
    const trn_tiles_work work = {.rows = d->queries,
                                 .others = d->keys,
                                 .head = d->head_size,
                                 .products = 1,
                                 .sums = 1,
                                 .row_tiles = 1,
                                 .other_tiles = 2,
                                 .pair_tiles = 1};
    const trn_candidate matrix = {.name = "matrix",
                                  .shader = "attention_matrix.comp",
                                  .reason = "cooperative matrices",
                                  .hopeless = info->quirks & TRN_QUIRK_EMULATED_MATRIX};
    bool first = !matrix.hopeless && (info->vendor_id == NVIDIA || info->vendor_id == AMD);
    trn_tiles_shape shape;
    trn_step step;
    trn_status status = trn_tiles_choose(lower, node, "attention_tiles.comp", &work, plan ? &matrix : NULL,
                                         first, &shape, &step, err);
    if (status != TRN_OK) return status;
    if (!shape.pack) return lower_matrix(lower, node, plan, &step, err);
    trn_tiles_macros(lower, &step, &shape, d);
    int others = shape.tx * shape.tk;
    return trn_attention_add_step(lower, node, node->inputs[TRN_ATTENTION_K], &step, shape.ty * shape.tq,
                                  others, 2 + (d->head_size + 3) / 4 + others / 4, err);
}

trn_status trn_attention_gpu_lower(trn_lower *lower, const trn_node *node, trn_error *err)
{
    matrix_plan plan = {0};
    if (!matrix_applies(lower, node, &plan)) return lower_with(lower, node, NULL, err);
    size_t mark = trn_lower_mark(lower);
    trn_status status = lower_with(lower, node, &plan, err);
    if (status != TRN_OK || trn_lower_knows_since(lower, mark)) return status;
    trn_lower_back_to(lower, mark); /* the shader pack lacks the kernel */
    return lower_with(lower, node, NULL, err);
}
