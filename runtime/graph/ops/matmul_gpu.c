/* Matrix products on GPUs: tiles in shared memory, and cooperative matrices. */
#include "matmul.h"

enum { MANY_TILES = 64 }; /* of 128x128: then these pay */

bool trn_matmul_matrix_applies(const trn_gpu *gpu, char why_not[128])
{
    if (!trn_gpu_info(gpu)->cooperative_matrix)
        return trn_variant_say(why_not, "the device has no cooperative matrices");
    return trn_variant_say(why_not,
                           "not built yet: needs a shader compiler that knows GL_KHR_cooperative_matrix");
}

bool trn_matmul_tiles_applies(const trn_gpu *gpu, char why_not[128])
{
    const trn_device_info *info = trn_gpu_info(gpu);
    if (info->max_invocations < 64) return trn_variant_say(why_not, "needs work groups of 64");
    return trn_variant_say(why_not,
                           info->shared_memory_bytes < 16384 ? "needs 16 KiB of shared memory" : NULL);
}

static void finish_tiles(trn_lower *lower, trn_step *step, const trn_node *node, const trn_matmul_tiling *t)
{
    trn_matmul_macro(lower, step, "TM", t->tm);
    trn_matmul_macro(lower, step, "TN", t->tn);
    if (trn_matmul_attr_of(node)->b_rows) trn_matmul_macro(lower, step, "B_ROWS", 1);
    if (t->a_columns) trn_matmul_macro(lower, step, "A_COLUMNS", 1);
    trn_matmul_macro(lower, step, "BM", t->bm);
    trn_matmul_macro(lower, step, "BN", t->bn);
    trn_matmul_macro(lower, step, "BK", t->bk);
    if (t->vec4) trn_matmul_macro(lower, step, "VEC4", 1);
}

static bool fits_large(const trn_device_info *info)
{
    return info->shared_memory_bytes >= 32768 && info->max_invocations >= 256;
}

/* The size of tile that suits without a measurement. */
static int preferred_tile(const trn_device_info *info, const trn_matmul_attr *attr)
{
    const uint32_t amd = 0x1002, nvidia = 0x10de;
    bool big = info->vendor_id == amd || info->vendor_id == nvidia;
    bool many = attr->batch * ((attr->m + 127) / 128) * ((attr->n + 127) / 128) >= MANY_TILES;
    return big && many && fits_large(info) ? 128 : 64;
}

static trn_matmul_tiling shared_tiling(const trn_device_info *info, const trn_matmul_attr *attr, int size)
{
    trn_matmul_tiling t = {.shader = "matmul_tiles.comp",
                           .variant = "tiles",
                           .reason = "shared memory",
                           .hopeless = info->type == TRN_DEVICE_CPU,
                           .bm = size,
                           .bn = size,
                           .bk = 16,
                           .tm = 4,
                           .tn = 4,
                           .a_columns = attr->a_columns,
                           .finish = finish_tiles};
    if (size == 128 || info->max_invocations < 256)
        t.tm = t.tn = 8;
    else if (attr->m <= 16)
        t.bm = 16, t.tm = 1;
    t.lanes = t.bm / t.tm * (t.bn / t.tn);
    t.vec4 = (attr->a_columns ? attr->m : attr->k) % 4 == 0 && (attr->b_rows ? attr->n : attr->k) % 4 == 0;
    /* twice: a driver may count a loop's last check as a round, and need not unroll what is asked to be
     * unrolled */
    int loads = (t.bm * t.bk + t.lanes - 1) / t.lanes + (t.bn * t.bk + t.lanes - 1) / t.lanes;
    int rounds = 2 * (1 + loads + t.bk);
    t.k_limit = (int64_t)(TRN_MATMUL_LOOP_ROUNDS / rounds) * t.bk;
    snprintf(t.name, sizeof t.name, "tiles %dx%dx%d", t.bm, t.bn, t.bk);
    return t;
}

int trn_matmul_gpu_tilings(const trn_gpu *gpu, const trn_node *node, bool half, trn_matmul_tiling *out,
                           int room)
{
    (void)half; /* tiles are floats whatever the operands are */
    const trn_device_info *info = trn_gpu_info(gpu);
    const trn_matmul_attr *attr = trn_matmul_attr_of(node);
    char why_not[128];
    int count = 0, preferred = preferred_tile(info, attr);
    if (!trn_matmul_tiles_applies(gpu, why_not)) return 0;
    if (count < room) out[count++] = shared_tiling(info, attr, preferred);
    if (count < room && fits_large(info) && info->type != TRN_DEVICE_CPU)
        out[count++] = shared_tiling(info, attr, preferred == 64 ? 128 : 64);
    return count;
}
