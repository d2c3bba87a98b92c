/* Matrix products on CPU drivers that load lane by lane: wide loads, rows handed round by shuffles. */
#include "matmul.h"

enum { WIDE = 8 /* values per load */ };

static void finish_lanes(trn_lower *lower, trn_step *step, const trn_node *node, const trn_matmul_tiling *t)
{
    trn_matmul_cpu_macros(lower, step, t);
    if (trn_matmul_attr_of(node)->b_rows) trn_matmul_macro(lower, step, "B_ROWS", 1);
}

static trn_matmul_tiling lanes_tiling(const trn_device_info *info, const trn_matmul_attr *attr)
{
    int sg = (int)info->subgroup_size;
    trn_matmul_tiling t = {.shader = "matmul_lanes.comp",
                           .variant = "lanes",
                           .reason = "CPU driver",
                           .cpu = true,
                           .lanes = sg,
                           .bk = WIDE,
                           .a_columns = attr->a_columns && sg >= WIDE,
                           .finish = finish_lanes};
    /* half as wide where less of the last tile is wasted */
    bool narrow = (attr->n + WIDE * sg - 1) / (WIDE * sg) * 2 > (attr->n + 4 * sg - 1) / (4 * sg);
    bool wide = attr->b_rows && !narrow;
    t.tm = wide || attr->m <= WIDE ? TRN_MAX(WIDE, sg) : 16;
    t.tn = wide ? WIDE : attr->b_rows || attr->n > sg ? 4 : 1;
    t.bm = t.tm;
    t.bn = t.tn * sg;
    t.k_limit = (int64_t)(TRN_MATMUL_LOOP_ROUNDS - t.tm * t.tn) * WIDE;
    return t;
}

void trn_matmul_lanes_add(const trn_device_info *info, const trn_matmul_attr *attr, trn_matmul_tiling *out,
                          int room, int *count)
{
    trn_matmul_tiling lanes = lanes_tiling(info, attr);
    trn_matmul_cpu_add(info, lanes, out, room, count);
    int fewer = TRN_MAX(WIDE, lanes.lanes); /* rows: less to compile, and to keep in registers */
    if (lanes.tm <= fewer) return;
    lanes.tm = lanes.bm = fewer;
    trn_matmul_cpu_add(info, lanes, out, room, count);
}
