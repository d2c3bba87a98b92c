/* matmul: the matrix product, batched or with one right-hand side for all; linear layers are made of it.
 * Bias, activation and residual are pointwise operators that end its kernels. */
#include "graph_internal.h"
#include "ops.h"

#include <string.h>

extern const trn_op trn_op_matmul;

enum {
    WIDE = 8,            /* values per load of the lanes kernels */
    LOOP_ROUNDS = 60000, /* rounds of one invocation that every driver grants, less those of the epilogue */
    SPLIT_K = 2048,      /* products with few tiles are cut along K from here on */
    SPLIT_TILES = 64,    /* what counts as few on a GPU */
    MAX_SPLIT = 16,
    CACHED_K = 1024,    /* rows of b [K,N] that a core's cache keeps, a tile wide */
    PANEL_SLACK = 4096, /* bytes behind packed weights that a kernel may read */
};

typedef struct matmul_attr {
    int64_t batch, m, n, k;
    bool b_shared;  /* one right-hand side for all of the batch */
    bool b_rows;    /* b is [K,N], not [N,K] */
    bool a_columns; /* a is [K,M], not [M,K] */
} matmul_attr;

static const matmul_attr *attr_of(const trn_node *node)
{
    return (const void *)node->attr;
}

/* ---- building ---- */

/* Of float16 by way of float32, which moves: the values stay the same. */
static trn_tensor *swap_last(trn_graph *graph, trn_tensor *x)
{
    x = trn_cast(graph, x, TRN_F32);
    if (!x) return NULL;
    int order[TRN_MAX_DIMS], n = x->shape.ndim;
    for (int i = 0; i < n; i++)
        order[i] = i;
    order[n - 1] = n - 2;
    order[n - 2] = n - 1;
    return trn_permute(graph, x, order);
}

/* Whether the product of these is of float16. */
static bool is_half(const trn_graph *graph, const trn_tensor *a, const trn_tensor *b)
{
    return a->type == TRN_F16 || b->type == TRN_F16 || (graph->mixed && a->type == TRN_F32);
}

static bool is_real(const trn_tensor *x)
{
    return x->type == TRN_F32 || x->type == TRN_F16;
}

static trn_tensor *add_product(trn_graph *graph, trn_tensor *a, trn_tensor *b, trn_shape out,
                               const matmul_attr *attr)
{
    if (is_half(graph, a, b)) {
        a = trn_half_of(graph, a);
        b = trn_half_of(graph, b);
    }
    if (!a || !b) return NULL;
    trn_node *node = trn_node_add(graph, &trn_op_matmul, (trn_tensor *[]){a, b}, 2, TRN_F32, out);
    if (!node) return NULL;
    *(matmul_attr *)(void *)node->attr = *attr;
    return node->out;
}

trn_tensor *trn_linear(trn_graph *graph, trn_tensor *x, trn_tensor *w, trn_tensor *b)
{
    if (!x || !w) return NULL;
    int64_t k = trn_tensor_dim(x, -1);
    if (w->shape.ndim != 2 || w->shape.dim[1] != k || !is_real(x) || !is_real(w)) {
        char wide[128], weights[128];
        return trn_graph_fail(graph, "linear: x %s does not fit w %s: w must be [outputs,%lld], both float",
                              trn_shape_text(&x->shape, wide), trn_shape_text(&w->shape, weights),
                              (long long)k);
    }
    int64_t n = w->shape.dim[0];
    if (b && (b->shape.ndim != 1 || b->shape.dim[0] != n))
        return trn_graph_fail(graph, "linear: the bias must be [%lld]", (long long)n);
    trn_shape out = x->shape;
    out.dim[out.ndim - 1] = n;
    matmul_attr attr = {.batch = 1, .m = x->count / k, .n = n, .k = k, .b_shared = true};
    trn_tensor *y = add_product(graph, x, w, out, &attr);
    return b ? trn_add(graph, y, b) : y;
}

/* Whether a transposed stays as it lies: kernels read its columns, or copy it. What is known before a run is
 * better transposed then; and rows of a batch that share b are one matrix only when a's own rows are. */
static bool reads_columns(const trn_tensor *a, const trn_tensor *b)
{
    return !a->constant && a->shape.ndim >= 2 && (b->shape.ndim > 2 || a->shape.ndim == 2);
}

/* Whether the leading dimensions of a and b allow a product, and what it is. */
static bool product_of(const trn_tensor *a, const trn_tensor *b, bool columns, bool transpose_b,
                       trn_shape *out, matmul_attr *attr)
{
    int an = a->shape.ndim, bn = b->shape.ndim;
    if (an < 2 || bn < 2 || !is_real(a) || !is_real(b)) return false;
    *attr = (matmul_attr){.m = a->shape.dim[an - (columns ? 1 : 2)],
                          .k = a->shape.dim[an - (columns ? 2 : 1)],
                          .n = b->shape.dim[transpose_b ? bn - 2 : bn - 1],
                          .b_shared = bn == 2,
                          .b_rows = !transpose_b,
                          .a_columns = columns};
    if (b->shape.dim[transpose_b ? bn - 1 : bn - 2] != attr->k || (bn != 2 && bn != an)) return false;
    for (int i = 0; i < an - 2 && bn != 2; i++) {
        if (a->shape.dim[i] != b->shape.dim[i]) return false;
    }
    *out = a->shape;
    out->dim[an - 2] = attr->m;
    out->dim[an - 1] = attr->n;
    attr->batch = a->count / (attr->m * attr->k);
    if (attr->b_shared) attr->m *= attr->batch, attr->batch = 1;
    return true;
}

trn_tensor *trn_matmul(trn_graph *graph, trn_tensor *a, trn_tensor *b, bool transpose_a, bool transpose_b)
{
    matmul_attr attr;
    trn_shape out;
    if (!a || !b) return NULL;
    bool columns = transpose_a && reads_columns(a, b);
    if (transpose_a && !columns && a->shape.ndim >= 2) a = swap_last(graph, a);
    if (!a) return NULL;
    if (!product_of(a, b, columns, transpose_b, &out, &attr)) {
        char left[128], right[128];
        return trn_graph_fail(
            graph,
            "matmul: %s%s does not fit %s%s: columns of the first must be rows of the second, leading "
            "dimensions equal or the second a plain matrix, both float",
            trn_shape_text(&a->shape, left), columns ? " transposed" : "", trn_shape_text(&b->shape, right),
            transpose_b ? " transposed" : "");
    }
    return add_product(graph, a, b, out, &attr);
}

/* Of a that lies transposed, as A = a^T: y = A^T b: dA = b dy^T, db = A dy; y = A^T b^T: dA = b^T dy^T, db =
 * dy^T A^T. */
static trn_tensor *columns_gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    bool b_rows = attr_of(node)->b_rows;
    trn_tensor *a = node->inputs[0], *b = node->inputs[1];
    if (which == 0) return trn_matmul(graph, b, dy, !b_rows, true);
    return b_rows ? trn_matmul(graph, a, dy, false, false) : trn_matmul(graph, dy, a, true, true);
}

/* y = a b: da = dy b^T, db = a^T dy; y = a b^T: da = dy b, db = dy^T a. A shared b sums over all rows. */
static trn_tensor *gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    const matmul_attr *attr = attr_of(node);
    trn_tensor *a = node->inputs[0], *b = node->inputs[1];
    if (attr->a_columns) return columns_gradient(graph, node, dy, which);
    if (which == 0) return trn_matmul(graph, dy, b, false, attr->b_rows);
    if (attr->b_shared) {
        dy = trn_reshape(graph, dy, TRN_SHAPE(attr->m, attr->n));
        a = trn_reshape(graph, a, TRN_SHAPE(attr->m, attr->k));
    }
    return attr->b_rows ? trn_matmul(graph, a, dy, true, false) : trn_matmul(graph, dy, a, true, false);
}

static double value_at(const void *values, int64_t i, bool half)
{
    return half ? (double)trn_f16_to_f32(((const uint16_t *)values)[i]) : (double)((const float *)values)[i];
}

static void reference(const trn_node *node, const void *const *inputs, void *out)
{
    const matmul_attr *attr = attr_of(node);
    float *y = out;
    bool half = node->inputs[0]->type == TRN_F16;
    int64_t row_step = attr->b_rows ? 1 : attr->k, k_step = attr->b_rows ? attr->n : 1;
    int64_t a_row = attr->a_columns ? 1 : attr->k, a_k = attr->a_columns ? attr->m : 1;
    for (int64_t r = 0; r < attr->batch * attr->m; r++) {
        int64_t a = r / attr->m * attr->m * attr->k + r % attr->m * a_row;
        int64_t b = attr->b_shared ? 0 : r / attr->m * attr->n * attr->k;
        for (int64_t c = 0; c < attr->n; c++) {
            double sum = 0;
            for (int64_t k = 0; k < attr->k; k++)
                sum += value_at(inputs[0], a + k * a_k, half) *
                       value_at(inputs[1], b + c * row_step + k * k_step, half);
            y[r * attr->n + c] = (float)sum;
        }
    }
}

static void cost(const trn_node *node, double *flops, double *bytes)
{
    const matmul_attr *attr = attr_of(node);
    *flops = 2.0 * (double)attr->batch * (double)attr->m * (double)attr->n * (double)attr->k;
    *bytes = (double)(trn_tensor_bytes(node->inputs[0]) + trn_tensor_bytes(node->inputs[1]) +
                      trn_tensor_bytes(node->out));
}

static void describe(const trn_node *node, trn_text *out)
{
    const matmul_attr *attr = attr_of(node);
    if (attr->batch > 1) trn_text_printf(out, "%lld x ", (long long)attr->batch);
    trn_text_printf(out, "[%lld,%lld]%s by [%lld,%lld]%s", (long long)(attr->a_columns ? attr->k : attr->m),
                    (long long)(attr->a_columns ? attr->m : attr->k), attr->a_columns ? " transposed" : "",
                    (long long)(attr->b_rows ? attr->k : attr->n),
                    (long long)(attr->b_rows ? attr->n : attr->k), attr->b_rows ? "" : " transposed");
    if (node->inputs[0]->type == TRN_F16) trn_text_add(out, ", of float16");
}

/* ---- kernels ---- */

static bool matrix_applies(const trn_gpu *gpu, char why_not[128])
{
    if (!trn_gpu_info(gpu)->cooperative_matrix)
        return trn_variant_say(why_not, "the device has no cooperative matrices");
    return trn_variant_say(why_not,
                           "not built yet: needs a shader compiler that knows GL_KHR_cooperative_matrix");
}

static bool uniform_applies(const trn_gpu *gpu, char why_not[128])
{
    if (trn_gpu_disabled("uniform")) return trn_variant_say(why_not, "switched off by TERRANE_DISABLE");
    if (trn_gpu_info(gpu)->quirks & TRN_QUIRK_NO_UNIFORM_LOADS)
        return trn_variant_say(why_not, "this driver loads uniform values lane by lane");
    return trn_wide_lanes_apply(gpu, why_not);
}

static bool tiles_applies(const trn_gpu *gpu, char why_not[128])
{
    const trn_device_info *info = trn_gpu_info(gpu);
    if (info->max_invocations < 64) return trn_variant_say(why_not, "needs work groups of 64");
    return trn_variant_say(why_not,
                           info->shared_memory_bytes < 16384 ? "needs 16 KiB of shared memory" : NULL);
}

/* The order is the order of preference. */
enum { VARIANT_MATRIX, VARIANT_UNIFORM, VARIANT_LANES, VARIANT_TILES, VARIANT_COUNT };
static const trn_variant variants[VARIANT_COUNT] = {
    {"matrix", "cooperative matrices", matrix_applies},
    {"uniform", "lanes along N, uniform loads, weights in panels, no shared memory", uniform_applies},
    {"lanes", "lanes along N, rows handed round by shuffles, no shared memory", trn_wide_lanes_apply},
    {"tiles", "shared-memory tiles", tiles_applies},
};

/* How a kernel cuts the product. */
typedef struct tiling {
    const char *shader;
    int variant;
    int bm, bn; /* values of a work group */
    int bk, tm, tn, lanes;
    int64_t k_limit; /* longest sum of one invocation */
    bool vec4;
    bool a_columns; /* a is read as [K,M] */
} tiling;

static tiling tile_uniform(const trn_device_info *info, const matmul_attr *attr)
{
    int sg = (int)info->subgroup_size, columns = attr->n <= sg ? 1 : 2, rows = sg > WIDE ? WIDE : 12;
    tiling t = {.shader = "matmul_uniform.comp", .variant = VARIANT_UNIFORM, .lanes = sg, .bk = 16};
    t.tm = attr->m <= 4 ? 4 : rows;
    t.tn = columns;
    t.bm = t.tm;
    t.bn = t.tn * sg;
    t.a_columns = attr->a_columns;
    t.k_limit = (int64_t)(LOOP_ROUNDS - t.tm * t.tn - t.bk) * t.bk;
    return t;
}

static tiling tile_lanes(const trn_device_info *info, const matmul_attr *attr)
{
    int sg = (int)info->subgroup_size;
    tiling t = {.shader = "matmul_lanes.comp", .variant = VARIANT_LANES, .lanes = sg, .bk = WIDE};
    /* half as wide where less of the last tile is wasted */
    bool narrow = (attr->n + WIDE * sg - 1) / (WIDE * sg) * 2 > (attr->n + 4 * sg - 1) / (4 * sg);
    bool wide = attr->b_rows && !narrow;
    t.tm = wide || attr->m <= WIDE ? TRN_MAX(WIDE, sg) : 16;
    t.tn = wide ? WIDE : attr->b_rows || attr->n > sg ? 4 : 1;
    t.bm = t.tm;
    t.bn = t.tn * sg;
    t.a_columns = attr->a_columns && sg >= WIDE;
    t.k_limit = (int64_t)(LOOP_ROUNDS - t.tm * t.tn) * WIDE;
    return t;
}

static tiling tile_shared(const trn_device_info *info, const matmul_attr *attr)
{
    const uint32_t amd = 0x1002, nvidia = 0x10de;
    tiling t = {.shader = "matmul_tiles.comp",
                .variant = VARIANT_TILES,
                .bm = 64,
                .bn = 64,
                .bk = 16,
                .tm = 4,
                .tn = 4};
    bool big = info->vendor_id == amd || info->vendor_id == nvidia;
    bool many = attr->batch * ((attr->m + 127) / 128) * ((attr->n + 127) / 128) >= SPLIT_TILES;
    if (big && many && info->shared_memory_bytes >= 32768 && info->max_invocations >= 256)
        t.bm = t.bn = 128, t.tm = t.tn = 8;
    else if (info->max_invocations < 256)
        t.tm = t.tn = 8;
    else if (attr->m <= 16)
        t.bm = 16, t.tm = 1;
    t.lanes = t.bm / t.tm * (t.bn / t.tn);
    t.a_columns = attr->a_columns;
    t.vec4 = (attr->a_columns ? attr->m : attr->k) % 4 == 0 && (attr->b_rows ? attr->n : attr->k) % 4 == 0;
    /* twice: a driver may count a loop's last check as a round, and need not unroll what is asked to be
     * unrolled */
    int loads = (t.bm * t.bk + t.lanes - 1) / t.lanes + (t.bn * t.bk + t.lanes - 1) / t.lanes;
    int rounds = 2 * (1 + loads + t.bk);
    t.k_limit = (int64_t)(LOOP_ROUNDS / rounds) * t.bk;
    return t;
}

/* Parts that K is cut into: for the driver's loop limit, for caches, and to give every core work. */
static int64_t parts_of(const trn_device_info *info, const matmul_attr *attr, const tiling *t, int64_t tiles)
{
    int64_t parts = 1, enough = info->type == TRN_DEVICE_CPU ? 4 : SPLIT_TILES;
    if (tiles < enough && attr->k >= SPLIT_K)
        parts = TRN_MIN(TRN_MIN(enough / tiles, attr->k / SPLIT_K * 2), MAX_SPLIT);
    /* rows of b that come again for the next rows of a are in the cache still; partial sums take no more than
     * the operands do */
    if (t->variant != VARIANT_TILES && attr->b_rows)
        parts = TRN_MAX(parts, TRN_MIN(attr->k / CACHED_K, attr->k / attr->m + attr->k / attr->n));
    if (info->quirks & TRN_QUIRK_LOOP_LIMIT) parts = TRN_MAX(parts, (attr->k + t->k_limit - 1) / t->k_limit);
    return parts;
}

static const char *number(trn_lower *lower, int value)
{
    return trn_lower_printf(lower, "%d", value);
}

static void macro(trn_step *step, const char *name, const char *value)
{
    step->macros[step->macro_count++] = (trn_macro){name, value};
}

static void tiling_macros(trn_lower *lower, trn_step *step, const matmul_attr *attr, const tiling *t)
{
    macro(step, "TM", number(lower, t->tm));
    macro(step, "TN", number(lower, t->tn));
    if (attr->b_rows && t->variant != VARIANT_UNIFORM) macro(step, "B_ROWS", "1");
    if (t->variant == VARIANT_UNIFORM && !attr->b_rows) macro(step, "PANELS", "1");
    if (t->a_columns) macro(step, "A_COLUMNS", "1");
    if (t->variant == VARIANT_LANES || t->variant == VARIANT_UNIFORM) {
        macro(step, "SG", number(lower, t->lanes));
    } else {
        macro(step, "BM", number(lower, t->bm));
        macro(step, "BN", number(lower, t->bn));
        macro(step, "BK", number(lower, t->bk));
        if (t->vec4) macro(step, "VEC4", "1");
    }
}

static trn_status lower_reduce(trn_lower *lower, const trn_node *node, trn_tensor *partial, int64_t parts,
                               trn_error *err)
{
    trn_step step = {.shader = "matmul_reduce.comp", .epilogue = true};
    trn_step_read(&step, partial);
    trn_step_write(&step, trn_lower_output(lower, node));
    trn_step_uint(&step, node->out->count);
    trn_step_uint(&step, attr_of(node)->n);
    trn_step_uint(&step, parts);
    step.flops = (double)parts * (double)node->out->count;
    return trn_step_elements(lower, &step, node->out->count, err);
}

/* The constant b [N,K] in panels of `columns`, made once. NULL with err set, or when b is not constant. */
static trn_tensor *panels_of(trn_lower *lower, const trn_node *node, int columns, trn_error *err)
{
    const matmul_attr *attr = attr_of(node);
    bool is_new = false;
    int64_t count = (attr->n + columns - 1) / columns * columns * attr->k;
    const char *layout = trn_lower_printf(lower, "panels of %d columns of %lld", columns, (long long)attr->k);
    if (!layout) return NULL;
    trn_tensor *panels =
        trn_lower_packed(lower, node->inputs[1], layout, 4 * (uint64_t)count + PANEL_SLACK, &is_new, err);
    if (!panels || !is_new) return panels;
    trn_step step = {.shader = "matmul_pack.comp", .variant = "pack", .reason = "once, for constant weights"};
    trn_step_read(&step, node->inputs[1]);
    trn_step_write(&step, panels);
    trn_step_uint(&step, count);
    trn_step_uint(&step, attr->n);
    trn_step_uint(&step, attr->k);
    trn_step_uint(&step, columns);
    trn_lower_setup_begin(lower);
    trn_status status = trn_step_elements(lower, &step, count, err);
    trn_lower_setup_end(lower);
    return status == TRN_OK ? panels : NULL;
}

static trn_status lower_tiling(trn_lower *lower, const trn_node *node, const tiling *t, const char *reason,
                               trn_error *err)
{
    const trn_device_info *info = trn_lower_device(lower);
    const matmul_attr *attr = attr_of(node);
    int64_t tiles_m = (attr->m + t->bm - 1) / t->bm, tiles_n = (attr->n + t->bn - 1) / t->bn;
    int64_t tiles = attr->batch * tiles_m * tiles_n, parts = parts_of(info, attr, t, tiles);
    int64_t k_part = ((attr->k + parts - 1) / parts + t->bk - 1) / t->bk * t->bk;
    parts = (attr->k + k_part - 1) / k_part;
    double flops, bytes;
    cost(node, &flops, &bytes);
    trn_step step = {
        .shader = t->shader, .variant = variants[t->variant].name, .reason = reason, .flops = flops};
    trn_tensor *partial = NULL;
    if (parts > 1) {
        partial = trn_lower_temporary(lower, 4 * (uint64_t)parts * (uint64_t)node->out->count, err);
        if (!partial) return err ? err->code : TRN_ERR_MEMORY;
    }
    trn_tensor *a = node->inputs[0], *b = node->inputs[1];
    if (attr->a_columns && !t->a_columns)
        a = trn_lower_transposed(lower, a, attr->batch, attr->k, attr->m, err);
    if (!a) return err ? err->code : TRN_ERR_MEMORY;
    trn_step_read(&step, a);
    if (t->variant == VARIANT_UNIFORM && !attr->b_rows) b = panels_of(lower, node, t->bn, err);
    if (!b) return err && err->code != TRN_OK ? err->code : trn_fail_memory(err, 64, "packing weights");
    trn_step_read(&step, b);
    trn_step_write(&step, partial ? partial : trn_lower_output(lower, node));
    const int64_t scalars[] = {
        attr->m, attr->n,     attr->k,           tiles_m,
        tiles_n, attr->batch, attr->m * attr->k, attr->b_shared ? 0 : attr->n * attr->k,
        k_part};
    for (size_t i = 0; i < TRN_COUNT(scalars); i++)
        trn_step_uint(&step, scalars[i]);
    if (t->variant == VARIANT_UNIFORM) {
        trn_step_uint(&step, attr->b_rows ? t->bn : t->bn * attr->k);
        trn_step_uint(&step, attr->b_rows ? attr->n : t->bn);
    }
    tiling_macros(lower, &step, attr, t);
    if (node->inputs[0]->type == TRN_F16) macro(&step, "HALF", "1");
    if (partial) macro(&step, "PARTIAL", "1");
    step.epilogue = !partial;
    if (t->variant != VARIANT_TILES && info->subgroup_max) step.subgroup_size = info->subgroup_size;
    trn_lower_groups(&step, tiles * parts);
    trn_status status = trn_lower_step(lower, &step, err);
    return status == TRN_OK && partial ? lower_reduce(lower, node, partial, parts, err) : status;
}

static trn_status lower_matmul(trn_lower *lower, const trn_node *node, trn_error *err)
{
    const trn_device_info *info = trn_lower_device(lower);
    char why_not[128];
    bool packable = attr_of(node)->b_shared && node->inputs[1]->constant;
    bool half = node->inputs[0]->type == TRN_F16; /* "uniform" has no loads of it */
    if (!half && (attr_of(node)->b_rows || packable) && uniform_applies(trn_lower_gpu(lower), why_not)) {
        tiling t = tile_uniform(info, attr_of(node));
        return lower_tiling(lower, node, &t, "CPU driver with uniform loads", err);
    }
    tiling lanes = tile_lanes(info, attr_of(node));
    bool in_place = !half || lanes.a_columns == attr_of(node)->a_columns; /* float16 is not copied */
    if (in_place && trn_wide_lanes_apply(trn_lower_gpu(lower), why_not))
        return lower_tiling(lower, node, &lanes, "CPU driver", err);
    if (!tiles_applies(trn_lower_gpu(lower), why_not))
        return trn_fail(err, TRN_ERR_UNSUPPORTED, "matmul: no kernel runs on %s: %s", info->name, why_not);
    tiling t = tile_shared(info, attr_of(node));
    return lower_tiling(lower, node, &t, "shared memory", err);
}

/* ---- cases ---- */

static trn_tensor *weights(trn_graph *graph, const char *name, trn_shape shape)
{
    int64_t count = trn_shape_count(&shape);
    float *values = trn_arena_array(trn_graph_arena(graph), (size_t)count, sizeof *values);
    if (!values) return trn_graph_fail(graph, "out of memory for a case");
    uint64_t hash = trn_fnv1a64(name, strlen(name), TRN_FNV_SEED);
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)trn_hash_uniform(hash, (uint64_t)i);
    return trn_constant(graph, name, shape, values);
}

static trn_tensor *input(trn_graph *graph, const char *name, trn_shape shape)
{
    return trn_input(graph, name, TRN_F32, shape);
}

static void case_product(trn_graph *graph, trn_shape a, trn_shape b, bool transpose_a, bool transpose_b)
{
    trn_tensor *y = trn_matmul(graph, input(graph, "a", a), input(graph, "b", b), transpose_a, transpose_b);
    trn_output_add(graph, "y", y);
}

static void case_nt(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(37, 45), TRN_SHAPE(71, 45), false, true);
}

static void case_nn(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(19, 27), TRN_SHAPE(27, 77), false, false);
}

static void case_nn_aligned(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(66, 64), TRN_SHAPE(64, 132), false, false);
}

static void case_tn(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(21, 34), TRN_SHAPE(21, 9), true, false);
}

static void case_tn_long(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(5003, 27), TRN_SHAPE(5003, 37), true, false);
}

static void case_tn_batched(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(2, 3, 18, 13), TRN_SHAPE(2, 3, 18, 35), true, false);
}

static void case_tn_shared(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(3, 18, 13), TRN_SHAPE(18, 35), true, false);
}

static void case_tt(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(3, 13, 10), TRN_SHAPE(3, 66, 13), true, true);
}

static void case_batched(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(2, 3, 17, 16), TRN_SHAPE(2, 3, 18, 16), false, true);
}

static void case_batched_rows(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(5, 7, 1), TRN_SHAPE(5, 1, 3), false, false);
}

/* more work groups than one row of the grid holds, and the last row not full */
static void case_many_groups(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(40000, 1, 2), TRN_SHAPE(40000, 2, 1), false, false);
}

static void case_shared(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(4, 5, 23), TRN_SHAPE(23, 12), false, false);
}

static void case_one(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(1, 1), TRN_SHAPE(1, 1), false, true);
}

static void case_linear(trn_graph *graph)
{
    trn_tensor *w = weights(graph, "w", TRN_SHAPE(130, 96)), *b = weights(graph, "b", TRN_SHAPE(130));
    trn_output_add(graph, "y", trn_linear(graph, input(graph, "x", TRN_SHAPE(2, 33, 96)), w, b));
}

static void case_head(trn_graph *graph)
{
    trn_tensor *w = weights(graph, "w", TRN_SHAPE(10, 203)), *b = weights(graph, "b", TRN_SHAPE(10));
    trn_output_add(graph, "y", trn_linear(graph, input(graph, "x", TRN_SHAPE(1, 203)), w, b));
}

static void case_gelu(trn_graph *graph)
{
    trn_tensor *w = weights(graph, "w", TRN_SHAPE(72, 40)), *b = weights(graph, "b", TRN_SHAPE(72));
    trn_tensor *y = trn_linear(graph, input(graph, "x", TRN_SHAPE(1, 29, 40)), w, b);
    trn_output_add(graph, "y", trn_unary(graph, "gelu", y));
}

static void case_residual(trn_graph *graph)
{
    trn_tensor *w = weights(graph, "w", TRN_SHAPE(52, 60)), *b = input(graph, "b", TRN_SHAPE(52));
    trn_tensor *y = trn_linear(graph, input(graph, "x", TRN_SHAPE(3, 11, 60)), w, b);
    y = trn_mul(graph, y, weights(graph, "scale", TRN_SHAPE(52)));
    trn_output_add(graph, "y", trn_add(graph, input(graph, "skip", TRN_SHAPE(3, 11, 52)), y));
}

static void case_long(trn_graph *graph)
{
    trn_tensor *y = trn_linear(graph, input(graph, "x", TRN_SHAPE(3, 8200)),
                               input(graph, "w", TRN_SHAPE(5, 8200)), weights(graph, "b", TRN_SHAPE(5)));
    trn_output_add(graph, "y", trn_unary(graph, "relu", y));
}

/* ---- of float16 ---- */

static void case_half(trn_graph *graph, trn_shape a, trn_shape b, bool transpose_a, bool transpose_b)
{
    trn_graph_mixed(graph, true);
    case_product(graph, a, b, transpose_a, transpose_b);
}

static void case_half_nt(trn_graph *graph)
{
    case_half(graph, TRN_SHAPE(37, 45), TRN_SHAPE(71, 45), false, true);
}

static void case_half_nn(trn_graph *graph)
{
    case_half(graph, TRN_SHAPE(19, 27), TRN_SHAPE(27, 77), false, false);
}

static void case_half_nn_wide(trn_graph *graph)
{
    case_half(graph, TRN_SHAPE(33, 43), TRN_SHAPE(43, 64), false, false);
}

static void case_half_nn_aligned(trn_graph *graph)
{
    case_half(graph, TRN_SHAPE(66, 64), TRN_SHAPE(64, 132), false, false);
}

static void case_half_tt(trn_graph *graph)
{
    case_half(graph, TRN_SHAPE(3, 13, 10), TRN_SHAPE(3, 66, 13), true, true);
}

static void case_half_tn(trn_graph *graph)
{
    case_half(graph, TRN_SHAPE(21, 34), TRN_SHAPE(21, 9), true, false);
}

static void case_half_tn_aligned(trn_graph *graph)
{
    case_half(graph, TRN_SHAPE(2, 61, 68), TRN_SHAPE(2, 61, 36), true, false);
}

static void case_half_batched(trn_graph *graph)
{
    case_half(graph, TRN_SHAPE(2, 3, 17, 16), TRN_SHAPE(2, 3, 18, 16), false, true);
}

static void case_half_residual(trn_graph *graph)
{
    trn_graph_mixed(graph, true);
    case_residual(graph);
}

static void case_half_long(trn_graph *graph)
{
    trn_graph_mixed(graph, true);
    case_long(graph);
}

/* What is given as float16 needs no switch, and a transposed copy of it is the same. */
static void case_half_given(trn_graph *graph)
{
    trn_tensor *a = trn_cast(graph, input(graph, "a", TRN_SHAPE(2, 23, 15)), TRN_F16);
    trn_output_add(graph, "y", trn_matmul(graph, a, input(graph, "b", TRN_SHAPE(23, 31)), true, false));
}

static const trn_op_case cases[] = {
    {"a b^T", case_nt, 0},
    {"a b", case_nn, 0},
    {"a b, whole vec4s", case_nn_aligned, 0},
    {"a^T b", case_tn, 0},
    {"transposed, 5003 long", case_tn_long, 0},
    {"transposed batches", case_tn_batched, 0},
    {"transposed batches, one matrix", case_tn_shared, 0},
    {"a^T b^T, batched", case_tt, 0},
    {"a b^T, batched", case_batched, 0},
    {"outer products", case_batched_rows, 0},
    {"40000 small products", case_many_groups, 0},
    {"one b for all", case_shared, 0},
    {"one value", case_one, 0},
    {"linear", case_linear, 0},
    {"linear, one row", case_head, 0},
    {"linear, bias and gelu", case_gelu, 0},
    {"linear, bias, layer scale, residual", case_residual, 0},
    {"long sums in parts, bias and relu", case_long, 0},
    {"float16: a b^T", case_half_nt, 0},
    {"float16: a b", case_half_nn, 0},
    {"float16: a b, wide tiles", case_half_nn_wide, 0},
    {"float16: a b, whole vec4s", case_half_nn_aligned, 0},
    {"float16: a^T b", case_half_tn, 0},
    {"float16: a^T b, whole vec4s", case_half_tn_aligned, 0},
    {"float16: a^T b^T, batched", case_half_tt, 0},
    {"float16: a b^T, batched", case_half_batched, 0},
    {"float16: linear, bias, layer scale, residual", case_half_residual, 0},
    {"float16: long sums in parts, bias and relu", case_half_long, 0},
    {"float16: one operand given so, transposed", case_half_given, 0},
};

const trn_op trn_op_matmul = {
    .name = "matmul",
    .gradient = gradient,
    .reference = reference,
    .lower = lower_matmul,
    .cost = cost,
    .describe = describe,
    .epilogue = true,
    .float16 = true,
    .variants = variants,
    .variant_count = VARIANT_COUNT,
    .cases = cases,
    .case_count = (int)TRN_COUNT(cases),
};
