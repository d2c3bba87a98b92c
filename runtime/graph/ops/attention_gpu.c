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

static const char tiles_shader[] = "attention_tiles.comp";

/* ---- matrix cores ---- */

enum {
    MATRIX_KEYS = 32, /* at a time */
    MOST_COMING = 8,  /* uvec4s of keys, and of values, that a lane has registers for */
};

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
    uint32_t best = 0, lanes = trn_matmul_matrix_subgroup(info);
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
    bool emulated = info->quirks & TRN_QUIRK_EMULATED_MATRIX; /* for tests: registers do not matter */
    int coming = MATRIX_KEYS * ((head + 15) / 16 * 2);
    return best && plan->subgroups && (emulated || coming <= MOST_COMING * plan->subgroups * (int)lanes);
}

static bool matrix_applies(trn_lower *lower, const trn_node *node, matrix_plan *plan)
{
    char why_not[128];
    const trn_device_info *info = trn_lower_device(lower);
    for (int i = TRN_ATTENTION_Q; i <= TRN_ATTENTION_V; i++) {
        if (!trn_lower_is_half(lower, node->inputs[i])) return false;
    }
    return trn_matmul_matrix_applies(trn_lower_gpu(lower), why_not) && info->subgroup_shuffle &&
           plan_matrix(info, trn_attention_desc_of(node)->head_size, plan);
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
    step->subgroup_size = trn_matmul_matrix_subgroup(trn_lower_device(lower));
    return trn_attention_add_step(lower, node, node->inputs[TRN_ATTENTION_K], step, rows, MATRIX_KEYS, 32,
                                  err);
}

/* ---- tiles ---- */

static trn_tiles_work work_of(const trn_attention_desc *d)
{
    return (trn_tiles_work){.rows = d->queries,
                            .others = d->keys,
                            .head = d->head_size,
                            .products = 1,
                            .sums = 1,
                            .row_tiles = 1,
                            .other_tiles = 2,
                            .pair_tiles = 1,
                            .whole = trn_tiles_whole(d)};
}

static trn_status lower_tiles(trn_lower *lower, const trn_node *node, const trn_tiles_shape *shape,
                              trn_step *step, trn_error *err)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    int others = shape->tx * shape->tk;
    trn_tiles_macros(lower, step, shape, d);
    return trn_attention_add_step(lower, node, node->inputs[TRN_ATTENTION_K], step, shape->ty * shape->tq,
                                  others, 2 + (d->head_size + 3) / 4 + others / 4, err);
}

static trn_status lower_without_pack(trn_lower *lower, const trn_node *node, size_t mark, trn_error *err)
{
    trn_tiles_shape shapes[TRN_TILES_SHAPES];
    const trn_tiles_work work = work_of(trn_attention_desc_of(node));
    if (!trn_tiles_shapes(trn_lower_device(lower), &work, shapes))
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "attention: the shader pack lacks the kernel, and there is no other");
    trn_step step = {.shader = tiles_shader,
                     .variant = trn_tiles_name(lower, &shapes[0]),
                     .reason = "the shader pack lacks the kernel of matrices"};
    trn_lower_back_to(lower, mark);
    return lower_tiles(lower, node, &shapes[0], &step, err);
}

/* ---- the choice ---- */

trn_status trn_attention_gpu_lower(trn_lower *lower, const trn_node *node, trn_error *err)
{
    const trn_device_info *info = trn_lower_device(lower);
    const trn_tiles_work work = work_of(trn_attention_desc_of(node));
    const trn_candidate matrix = {.name = "matrix",
                                  .shader = "attention_matrix.comp",
                                  .reason = "cooperative matrices",
                                  .hopeless = info->quirks & TRN_QUIRK_EMULATED_MATRIX};
    matrix_plan plan = {0};
    trn_tiles_shape shape;
    trn_step step;
    bool offered = matrix_applies(lower, node, &plan);
    size_t mark = trn_lower_mark(lower);
    trn_status status =
        trn_tiles_choose(lower, node, tiles_shader, &work, offered ? &matrix : NULL, &shape, &step, err);
    if (status != TRN_OK) return status;
    if (shape.pack) return lower_tiles(lower, node, &shape, &step, err);
    status = lower_matrix(lower, node, &plan, &step, err);
    if (status != TRN_OK || trn_lower_knows_since(lower, mark)) return status;
    return lower_without_pack(lower, node, mark, err);
}
