/* Matrix products on CPU drivers that load lane by lane: wide loads, of texels where those are faster, and
 * rows handed round by shuffles. */
#include "matmul.h"

enum {
    WIDE = 8, /* values of K per round, and of the widest load */
    TEXEL = 4 /* values */
};

static void finish_lanes(trn_lower *lower, trn_step *step, const trn_node *node, const trn_matmul_tiling *t)
{
    const trn_matmul_attr *attr = trn_matmul_attr_of(node);
    trn_matmul_cpu_macros(lower, step, t);
    if (attr->b_rows || t->panels) trn_matmul_macro(lower, step, "B_ROWS", 1);
    if (t->panels) trn_matmul_macro(lower, step, "PANELS", 1);
    if (attr->k % WIDE == 0) trn_matmul_macro(lower, step, "WHOLE_ROUNDS", 1);
    trn_step_uint(step, t->panels ? t->bn * attr->k : t->bn);
    trn_step_uint(step, t->panels ? t->bn : attr->n);
}

static void finish_texels(trn_lower *lower, trn_step *step, const trn_node *node, const trn_matmul_tiling *t)
{
    finish_lanes(lower, step, node, t);
    step->texels = 2;
}

static trn_matmul_tiling lanes_tiling(const trn_device_info *info, int tm, int tn, bool panels)
{
    int sg = (int)info->subgroup_size;
    trn_matmul_tiling t = {.shader = "matmul_lanes.comp",
                           .variant = "lanes",
                           .reason = "CPU driver",
                           .cpu = true,
                           .lanes = sg,
                           .tm = TRN_MAX(tm, sg),
                           .tn = tn,
                           .bk = WIDE,
                           .panels = panels,
                           .packs = panels,
                           .finish = finish_lanes};
    t.bm = t.tm;
    t.bn = t.tn * sg;
    t.k_limit = (int64_t)(TRN_MATMUL_LOOP_ROUNDS - t.tm * t.tn) * WIDE;
    return t;
}

/* ---- texels ---- */

static bool fits_texels(const trn_device_info *info, int64_t count)
{
    return (uint64_t)count * 4 <= info->max_texel_range;
}

/* Rows of both operands must begin with a texel. */
static void add_texels(const trn_device_info *info, const trn_matmul_attr *attr, bool constant,
                       trn_matmul_tiling *out, int room, int *count)
{
    bool columns = attr->a_columns && attr->m % TEXEL == 0 && info->subgroup_size >= WIDE;
    bool plain = (attr->b_rows ? attr->n : attr->k) % TEXEL == 0;
    if (!columns && attr->k % TEXEL != 0) return;
    if (!fits_texels(info, attr->batch * attr->m * attr->k) ||
        !fits_texels(info,
                     (attr->b_shared ? 1 : attr->batch) * (attr->n + WIDE * info->subgroup_size) * attr->k))
        return;
    bool pack = !plain || (constant && !attr->b_rows);
    for (int i = 0; i < 2; i++, pack = !pack) {
        if (!pack && !plain) continue;
        trn_matmul_tiling t = lanes_tiling(info, WIDE, 4, pack);
        t.variant = "texels";
        t.reason = "CPU driver with slow loads but of texels";
        t.a_columns = columns;
        t.finish = finish_texels;
        trn_matmul_cpu_add(info, t, out, room, count);
    }
}

/* ---- addresses ---- */

static void add_addresses(const trn_device_info *info, const trn_matmul_attr *attr, bool constant, bool half,
                          trn_matmul_tiling *out, int room, int *count)
{
    int sg = (int)info->subgroup_size;
    /* half as wide where less of the last tile is wasted */
    bool narrow = (attr->n + WIDE * sg - 1) / (WIDE * sg) * 2 > (attr->n + 4 * sg - 1) / (4 * sg);
    bool wide = attr->b_rows && !narrow;
    trn_matmul_tiling plain = lanes_tiling(info, wide || attr->m <= WIDE ? WIDE : 16,
                                           wide                           ? WIDE
                                           : attr->b_rows || attr->n > sg ? 4
                                                                          : 1,
                                           false);
    plain.a_columns = attr->a_columns && sg >= WIDE;
    trn_matmul_tiling packed = lanes_tiling(info, attr->m <= WIDE ? WIDE : 16, 4, true);
    packed.a_columns = plain.a_columns;
    bool pack = !half && !attr->b_rows;
    if (pack && constant) trn_matmul_cpu_add(info, packed, out, room, count);
    trn_matmul_cpu_add(info, plain, out, room, count);
    if (pack && !constant) trn_matmul_cpu_add(info, packed, out, room, count);
    int fewer = TRN_MAX(WIDE, sg); /* rows: less to compile, and to keep in registers */
    if (plain.tm <= fewer) return;
    plain.tm = plain.bm = fewer;
    trn_matmul_cpu_add(info, plain, out, room, count);
}

void trn_matmul_lanes_add(const trn_device_info *info, const trn_matmul_attr *attr, bool constant, bool half,
                          trn_matmul_tiling *out, int room, int *count)
{
    if (!half && info->max_texel_range) add_texels(info, attr, constant, out, room, count);
    add_addresses(info, attr, constant, half, out, room, count);
}
