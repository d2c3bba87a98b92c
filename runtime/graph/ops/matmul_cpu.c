/* Matrix products on CPU drivers: which kernels a product is offered, and those with uniform loads: lanes
 * along N, weights in panels, no shared memory. */
#include "matmul.h"

enum {
    CACHED_BYTES = 1 << 18, /* of b that a core keeps at hand beside all else */
    PAYING_ROWS = 128,      /* that use a packed value */
    FAR_COLUMNS = 512,      /* values between rows */
};

void trn_matmul_cpu_macros(trn_lower *lower, trn_step *step, const trn_matmul_tiling *t)
{
    trn_matmul_macro(lower, step, "TM", t->tm);
    trn_matmul_macro(lower, step, "TN", t->tn);
    trn_matmul_macro(lower, step, "SG", t->lanes);
    if (t->a_columns) trn_matmul_macro(lower, step, "A_COLUMNS", 1);
}

/* ---- uniform loads ---- */

/* How far b's columns of the next work group are, and its next row. */
static void finish_uniform(trn_lower *lower, trn_step *step, const trn_node *node, const trn_matmul_tiling *t)
{
    const trn_matmul_attr *attr = trn_matmul_attr_of(node);
    trn_matmul_cpu_macros(lower, step, t);
    trn_matmul_macro(lower, step, "UK", t->bk);
    if (attr->k % t->bk == 0) trn_matmul_macro(lower, step, "WHOLE_ROUNDS", 1);
    if (t->panels) trn_matmul_macro(lower, step, "PANELS", 1);
    if (t->a_panels) trn_matmul_macro(lower, step, "A_PANELS", 1);
    if (attr->n * attr->k * 4 <= CACHED_BYTES) trn_matmul_macro(lower, step, "COLUMNS_FIRST", 1);
    trn_step_uint(step, t->panels ? t->bn * attr->k : t->bn);
    trn_step_uint(step, t->panels ? t->bn : attr->n);
}

static trn_matmul_tiling uniform_tiling(const trn_device_info *info, const trn_matmul_attr *attr, int tm,
                                        int tn, bool panels)
{
    int sg = (int)info->subgroup_size;
    trn_matmul_tiling t = {.shader = "matmul_uniform.comp",
                           .variant = "uniform",
                           .reason = "CPU driver with uniform loads",
                           .cpu = true,
                           .lanes = sg,
                           .tm = tm,
                           .tn = tn,
                           .bm = tm,
                           .bn = tn * sg,
                           .bk = 16,
                           .a_columns = attr->a_columns,
                           .a_panels = panels && attr->a_columns,
                           .panels = panels,
                           .packs = panels && attr->b_rows,
                           .finish = finish_uniform};
    /* longer rounds cost less; rows that are not neighbours need an address each */
    if (t.panels && attr->k % 32 == 0) t.bk = 32;
    t.k_limit = (int64_t)(TRN_MATMUL_LOOP_ROUNDS - t.tm * t.tn - t.bk) * t.bk;
    return t;
}

/* Shapes that keep their sums in 32 vector registers, and what part of the best rate each reached in large
 * products. */
static const struct uniform_shape {
    int tm, tn;
    double rate;
} uniform_shapes[] = {{6, 4, 1}, {8, 3, 0.96}, {12, 2, 0.9}, {16, 1, 0.85}, {4, 4, 0.85}, {4, 2, 0.6}};

/* What the product takes with a shape, tiles that stand over included. */
static double uniform_cost(const trn_device_info *info, const trn_matmul_attr *attr, int shape)
{
    const struct uniform_shape *s = &uniform_shapes[shape];
    int64_t bn = (int64_t)s->tn * info->subgroup_size;
    int64_t rows = (attr->m + s->tm - 1) / s->tm * s->tm, columns = (attr->n + bn - 1) / bn * bn;
    return (double)rows * (double)columns / s->rate;
}

/* The shapes, the one that promises most first. */
static void order_shapes(const trn_device_info *info, const trn_matmul_attr *attr,
                         int order[TRN_COUNT(uniform_shapes)])
{
    for (int i = 0; i < (int)TRN_COUNT(uniform_shapes); i++) {
        int at = i;
        for (; at > 0 && uniform_cost(info, attr, i) < uniform_cost(info, attr, order[at - 1]); at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
}

/* ---- what is offered ---- */

void trn_matmul_cpu_add(const trn_device_info *info, trn_matmul_tiling tiling, trn_matmul_tiling *out,
                        int room, int *count)
{
    if (*count == room) return;
    tiling.subgroup_size = info->subgroup_max ? info->subgroup_size : 0;
    snprintf(tiling.name, sizeof tiling.name, "%s %dx%d%s", tiling.variant, tiling.bm, tiling.bn,
             tiling.packs ? " packed" : "");
    out[(*count)++] = tiling;
}

/* Rows of an operand that lie far apart cost more than a copy, where each is used often. */
static bool packing_pays(const trn_matmul_attr *attr)
{
    if (!attr->b_rows) return true;
    if (!attr->a_columns) return attr->m >= PAYING_ROWS && attr->n >= PAYING_ROWS;
    return TRN_MAX(attr->m, attr->n) >= FAR_COLUMNS && attr->m * attr->n >= PAYING_ROWS * (attr->m + attr->n);
}

static void add_uniform(const trn_device_info *info, const trn_matmul_attr *attr, trn_matmul_tiling *out,
                        int room, int *count)
{
    int order[TRN_COUNT(uniform_shapes)];
    order_shapes(info, attr, order);
    const struct uniform_shape *best = &uniform_shapes[order[0]];
    bool packs = packing_pays(attr);
    if (attr->b_rows && packs)
        trn_matmul_cpu_add(info, uniform_tiling(info, attr, best->tm, best->tn, true), out, room, count);
    for (size_t i = 0; i < TRN_COUNT(order); i++) {
        const struct uniform_shape *shape = &uniform_shapes[order[i]];
        trn_matmul_cpu_add(info, uniform_tiling(info, attr, shape->tm, shape->tn, !attr->b_rows), out, room,
                           count);
    }
    if (attr->b_rows && !packs)
        trn_matmul_cpu_add(info, uniform_tiling(info, attr, best->tm, best->tn, true), out, room, count);
}

int trn_matmul_cpu_tilings(const trn_gpu *gpu, const trn_node *node, bool half, trn_matmul_tiling *out,
                           int room)
{
    const trn_device_info *info = trn_gpu_info(gpu);
    const trn_matmul_attr *attr = trn_matmul_attr_of(node);
    char why_not[128];
    int count = 0;
    /* "uniform" has no loads of float16 */
    if (!half && trn_uniform_loads_apply(gpu, why_not)) add_uniform(info, attr, out, room, &count);
    if (trn_wide_lanes_apply(gpu, why_not))
        trn_matmul_lanes_add(info, attr, node->inputs[1]->constant, half, out, room, &count);
    return count;
}
