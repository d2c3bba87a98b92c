/* Matrix products on GPUs: tiles in shared memory, and cooperative matrices. */
#include "matmul.h"

enum {
    MANY_TILES = 64, /* of the largest size: then they pay */
    SPLIT_K = 512,   /* then sums may be made in parts */
    FEW_ROWS = 16,   /* products of so few rows wait for b, whatever the tile */
};
enum { AMD = 0x1002, NVIDIA = 0x10de, INTEL = 0x8086, APPLE = 0x106b };

bool trn_matmul_matrix_applies(const trn_gpu *gpu, char why_not[128])
{
    if (!trn_gpu_info(gpu)->cooperative_matrix)
        return trn_variant_say(why_not, "the device has no cooperative matrices");
    return trn_gpu_has_matrix_kernels(gpu, why_not);
}

bool trn_matmul_tiles_applies(const trn_gpu *gpu, char why_not[128])
{
    const trn_device_info *info = trn_gpu_info(gpu);
    if (info->max_invocations < 64) return trn_variant_say(why_not, "needs work groups of 64");
    return trn_variant_say(why_not,
                           info->shared_memory_bytes < 16384 ? "needs 16 KiB of shared memory" : NULL);
}

/* Two tiles in shared memory save a barrier for each, but where a group may have much of it, fewer groups
 * have room beside each other: on RDNA a 128x128 tile with two stages halves the waves. */
static bool choose_stages(const trn_device_info *info, trn_matmul_tiling *t, int64_t stage_bytes,
                          int64_t other_bytes)
{
    const int64_t modest = 32768;
    int64_t room = (int64_t)info->shared_memory_bytes - other_bytes;
    bool crowds = info->vendor_id != NVIDIA && 2 * stage_bytes > modest;
    t->stages = 2 * stage_bytes <= room && !crowds ? 2 : 1;
    return stage_bytes <= room && t->lanes <= (int)info->max_invocations;
}

static int64_t tiles_of(const trn_matmul_attr *attr, const trn_matmul_tiling *t)
{
    return attr->batch * ((attr->m + t->bm - 1) / t->bm) * ((attr->n + t->bn - 1) / t->bn);
}

/* The row that suits without a measurement: the first whose tiles, each cut along K, are many enough. */
static int preferred_of(const trn_matmul_attr *attr, const trn_matmul_tiling *list, int count)
{
    for (int i = 0; i < count; i++) {
        if (tiles_of(attr, &list[i]) * (1 + attr->k / SPLIT_K) >= MANY_TILES) return i;
    }
    return count - 1;
}

static void to_front(trn_matmul_tiling *list, int i)
{
    trn_matmul_tiling first = list[i];
    for (; i > 0; i--)
        list[i] = list[i - 1];
    list[0] = first;
}

/* Values that lie side by side in a row of a, and of b. */
static int64_t row_of_a(const trn_matmul_attr *attr)
{
    return attr->a_columns ? attr->m : attr->k;
}

static int64_t row_of_b(const trn_matmul_attr *attr)
{
    return attr->b_rows ? attr->n : attr->k;
}

static void common_macros(trn_lower *lower, trn_step *step, const trn_node *node, const trn_matmul_tiling *t)
{
    if (trn_matmul_attr_of(node)->b_rows) trn_matmul_macro(lower, step, "B_ROWS", 1);
    if (t->a_columns) trn_matmul_macro(lower, step, "A_COLUMNS", 1);
    trn_matmul_macro(lower, step, "BM", t->bm);
    trn_matmul_macro(lower, step, "BN", t->bn);
    trn_matmul_macro(lower, step, "BK", t->bk);
    trn_matmul_macro(lower, step, "STAGES", t->stages);
}

/* ---- tiles ---- */

/* Those of 128 by 128 need 120 registers and more: too many for Intel and for small GPUs. */
static const struct {
    int bm, bn, bk, tm, tn;
    bool large;
} tile_sizes[] = {
    {128, 128, 16, 8, 8, true}, {128, 64, 16, 8, 4, false}, {64, 64, 16, 4, 4, false},
    {64, 64, 16, 8, 8, false},  {32, 32, 16, 4, 4, false},  {16, 64, 16, 4, 4, false},
};
enum { SIZE_MIDDLE = 2, SIZE_FEW_INVOCATIONS = 3, SIZE_FEW_ROWS = 5 };

static void finish_tiles(trn_lower *lower, trn_step *step, const trn_node *node, const trn_matmul_tiling *t)
{
    const trn_matmul_attr *attr = trn_matmul_attr_of(node);
    common_macros(lower, step, node, t);
    trn_matmul_macro(lower, step, "TM", t->tm);
    trn_matmul_macro(lower, step, "TN", t->tn);
    if (row_of_a(attr) % 4 == 0) trn_matmul_macro(lower, step, "VEC4_A", 1);
    if (row_of_b(attr) % 4 == 0) trn_matmul_macro(lower, step, "VEC4_B", 1);
}

static bool tile_tiling(const trn_device_info *info, const trn_matmul_attr *attr, size_t size,
                        trn_matmul_tiling *t)
{
    *t = (trn_matmul_tiling){.shader = "matmul_tiles.comp",
                             .variant = "tiles",
                             .reason = "shared memory",
                             .hopeless = info->type == TRN_DEVICE_CPU,
                             .bm = tile_sizes[size].bm,
                             .bn = tile_sizes[size].bn,
                             .bk = tile_sizes[size].bk,
                             .tm = tile_sizes[size].tm,
                             .tn = tile_sizes[size].tn,
                             .a_columns = attr->a_columns,
                             .finish = finish_tiles};
    t->lanes = t->bm / t->tm * (t->bn / t->tn);
    /* twice: a driver may count a loop's last check as a round, and need not unroll what is asked to be
     * unrolled */
    int loads = ((t->bm + t->bn) * t->bk / 16 + t->lanes - 1) / t->lanes;
    int rounds = 2 * (1 + 10 * loads + t->bk);
    t->k_limit = (int64_t)(TRN_MATMUL_LOOP_ROUNDS / rounds) * t->bk;
    snprintf(t->name, sizeof t->name, "tiles %dx%dx%d by %dx%d", t->bm, t->bn, t->bk, t->tm, t->tn);
    return choose_stages(info, t, 16LL * t->bk * (t->bm / 4 + 1 + t->bn / 4 + 1), 0);
}

/* Sizes that tuning may measure on the device; all on a CPU, where only tests run them. 64 sums in an
 * invocation without a large tile are for small work groups: elsewhere they only spill registers. */
static bool suits(const trn_device_info *info, size_t size)
{
    bool strong = info->vendor_id == AMD || info->vendor_id == NVIDIA;
    if (strong || info->type == TRN_DEVICE_CPU) return true;
    if (size == SIZE_FEW_INVOCATIONS) return info->max_invocations < 256;
    return info->vendor_id == APPLE || !tile_sizes[size].large;
}

static size_t preferred_size(const trn_device_info *info, const trn_matmul_attr *attr)
{
    bool strong = info->vendor_id == AMD || info->vendor_id == NVIDIA;
    bool room = info->shared_memory_bytes >= 32768 && info->max_invocations >= 256;
    const trn_matmul_tiling large = {.bm = tile_sizes[0].bm, .bn = tile_sizes[0].bn};
    if (attr->m <= FEW_ROWS) return SIZE_FEW_ROWS;
    if (strong && room && tiles_of(attr, &large) >= MANY_TILES) return 0;
    return info->max_invocations < 256 ? SIZE_FEW_INVOCATIONS : SIZE_MIDDLE;
}

static int tile_tilings(const trn_device_info *info, const trn_matmul_attr *attr, trn_matmul_tiling *out,
                        int room)
{
    int count = 0, first = 0;
    size_t preferred = preferred_size(info, attr);
    for (size_t size = 0; size < TRN_COUNT(tile_sizes) && count < room; size++) {
        if (!suits(info, size) || !tile_tiling(info, attr, size, &out[count])) continue;
        if (size == preferred) first = count;
        count++;
    }
    if (count) to_front(out, first);
    return count;
}

/* ---- cooperative matrices ---- */

/* The last is for tests alone, where matrices are emulated: drivers take minutes over the others. */
static const struct {
    int bm, bn, bk, wm, wn;
} matrix_sizes[] = {
    {128, 128, 32, 64, 32}, {128, 128, 32, 64, 64}, {256, 128, 32, 64, 64}, {128, 64, 32, 32, 32},
    {64, 64, 32, 32, 32},   {32, 64, 32, 16, 32},   {16, 32, 16, 8, 16},
};
enum { SIZE_TEST_MATRIX = TRN_COUNT(matrix_sizes) - 1 };

static int even_width(int64_t row)
{
    return row % 8 == 0 ? 8 : row % 4 == 0 ? 4 : 1;
}

static void finish_matrix(trn_lower *lower, trn_step *step, const trn_node *node, const trn_matmul_tiling *t)
{
    const trn_matmul_attr *attr = trn_matmul_attr_of(node);
    common_macros(lower, step, node, t);
    trn_matmul_macro(lower, step, "WM", t->tm);
    trn_matmul_macro(lower, step, "WN", t->tn);
    trn_matmul_macro(lower, step, "CM", (int)t->matrix.m);
    trn_matmul_macro(lower, step, "CN", (int)t->matrix.n);
    trn_matmul_macro(lower, step, "CK", (int)t->matrix.k);
    trn_matmul_macro(lower, step, "WIDTH_A", even_width(row_of_a(attr)));
    trn_matmul_macro(lower, step, "WIDTH_B", even_width(row_of_b(attr)));
}

/* The device's largest matrix, up to 16 by 16 by 16, that divides the tiles. */
static bool choose_matrix(const trn_device_info *info, trn_matrix_shape *out)
{
    uint32_t best = 0;
    for (int i = 0; i < info->matrix_count; i++) {
        const trn_matrix_shape *s = &info->matrices[i];
        bool fits = s->m && s->n && s->k && 16 % s->m == 0 && 16 % s->n == 0 && 16 % s->k == 0 && s->m >= 8 &&
                    s->n >= 8 && s->k >= 8;
        if (!fits || s->m * s->n * s->k <= best) continue;
        best = s->m * s->n * s->k;
        *out = *s;
    }
    return best > 0;
}

uint32_t trn_matmul_matrix_subgroup(const trn_device_info *info)
{
    if (info->vendor_id == INTEL) return info->subgroup_min;
    return info->subgroup_size;
}

static bool matrix_tiling(const trn_device_info *info, const trn_matmul_attr *attr, size_t size,
                          const trn_matrix_shape *matrix, trn_matmul_tiling *t)
{
    *t = (trn_matmul_tiling){.shader = "matmul_matrix.comp",
                             .variant = "matrix",
                             .reason = "cooperative matrices",
                             .hopeless = info->quirks & TRN_QUIRK_EMULATED_MATRIX,
                             .bm = matrix_sizes[size].bm,
                             .bn = matrix_sizes[size].bn,
                             .bk = matrix_sizes[size].bk,
                             .tm = matrix_sizes[size].wm,
                             .tn = matrix_sizes[size].wn,
                             .matrix = *matrix,
                             .subgroup_size = trn_matmul_matrix_subgroup(info),
                             .a_columns = attr->a_columns,
                             .finish = finish_matrix};
    if (t->tm % (int)matrix->m || t->tn % (int)matrix->n || t->bk % (int)matrix->k) return false;
    int subgroups = t->bm / t->tm * (t->bn / t->tn);
    t->lanes = subgroups * (int)t->subgroup_size;
    t->k_limit = INT64_MAX; /* no driver that has matrices limits its loops */
    snprintf(t->name, sizeof t->name, "matrix %dx%dx%d by %dx%d", t->bm, t->bn, t->bk, t->tm, t->tn);
    int64_t a = attr->a_columns ? t->bk * (t->bm / 8 + 1) : t->bm * (t->bk / 8 + 1);
    int64_t b = attr->b_rows ? t->bk * (t->bn / 8 + 1) : t->bn * (t->bk / 8 + 1);
    return choose_stages(info, t, 16 * (a + b), 4LL * subgroups * matrix->m * matrix->n);
}

static int matrix_tilings(const trn_device_info *info, const trn_matmul_attr *attr, trn_matmul_tiling *out,
                          int room)
{
    trn_matrix_shape matrix = {0};
    int count = 0;
    if (!choose_matrix(info, &matrix) || !trn_matmul_matrix_subgroup(info)) return 0;
    bool emulated = info->quirks & TRN_QUIRK_EMULATED_MATRIX;
    size_t first = emulated ? SIZE_TEST_MATRIX : 0, end = emulated ? SIZE_TEST_MATRIX + 1 : SIZE_TEST_MATRIX;
    for (size_t size = first; size < end && count < room; size++)
        count += matrix_tiling(info, attr, size, &matrix, &out[count]);
    if (count) to_front(out, preferred_of(attr, out, count));
    return count;
}

int trn_matmul_gpu_tilings(const trn_gpu *gpu, const trn_node *node, bool half, trn_matmul_tiling *out,
                           int room)
{
    const trn_device_info *info = trn_gpu_info(gpu);
    const trn_matmul_attr *attr = trn_matmul_attr_of(node);
    char why_not[128];
    int count = 0;
    if (trn_matmul_tiles_applies(gpu, why_not)) count = tile_tilings(info, attr, out, room);
    /* behind the tiles: that a device has them says nothing of their speed, a measurement does */
    if (half && trn_matmul_matrix_applies(gpu, why_not))
        count += matrix_tilings(info, attr, out + count, room - count);
    return count;
}
