/* The matrix product as steps: one of the tilings offered, sums in parts, weights packed, a copy of what
 * cannot be read as it lies. */
#include "matmul.h"

#include <stdlib.h>
#include <string.h>

enum {
    SPLIT_K = 2048,   /* products with few tiles are cut along K from here on, on a CPU */
    SPLIT_TILES = 96, /* of work groups on a GPU: fewer leave most of a large one idle */
    PART_K = 256,     /* and the shortest parts that pay there */
    MAX_SPLIT = 16,
    CACHED_K = 1024,    /* rows of b [K,N] that a core's cache keeps, a tile wide */
    PANEL_SLACK = 4096, /* bytes behind packed weights that a kernel may read */
    PACK_ROWS = 32,     /* of a panel that a work group of matmul_pack.comp fills */
};

/* Parts that K is cut into: for the driver's loop limit, for caches, and to give every core work. */
static int64_t parts_of(const trn_device_info *info, const trn_matmul_attr *attr, const trn_matmul_tiling *t,
                        int64_t tiles)
{
    const int64_t cores = 4;
    int64_t parts = 1;
    if (info->type != TRN_DEVICE_CPU)
        parts = TRN_MIN(TRN_MIN(SPLIT_TILES / tiles, attr->k / PART_K), MAX_SPLIT);
    else if (tiles < cores && attr->k >= SPLIT_K)
        parts = TRN_MIN(TRN_MIN(cores / tiles, attr->k / SPLIT_K * 2), MAX_SPLIT);
    parts = TRN_MAX(parts, 1);
    /* rows of b that come again for the next rows of a are in the cache still; partial sums take no more than
     * the operands do */
    if (t->cpu && attr->b_rows && (!t->panels || t->a_panels))
        parts = TRN_MAX(parts, TRN_MIN(attr->k / CACHED_K, attr->k / attr->m + attr->k / attr->n));
    if (info->quirks & TRN_QUIRK_LOOP_LIMIT) parts = TRN_MAX(parts, (attr->k + t->k_limit - 1) / t->k_limit);
    return parts;
}

void trn_matmul_macro(trn_lower *lower, trn_step *step, const char *name, int value)
{
    step->macros[step->macro_count++] = (trn_macro){name, trn_lower_printf(lower, "%d", value)};
}

static trn_status lower_reduce(trn_lower *lower, const trn_node *node, trn_tensor *partial, int64_t parts,
                               trn_error *err)
{
    trn_step step = {.shader = "matmul_reduce.comp", .epilogue = true};
    trn_step_read(&step, partial);
    trn_step_write(&step, trn_lower_output(lower, node));
    trn_step_uint(&step, node->out->count);
    trn_step_uint(&step, trn_matmul_attr_of(node)->n);
    trn_step_uint(&step, parts);
    step.flops = (double)parts * (double)node->out->count;
    return trn_step_elements(lower, &step, node->out->count, err);
}

/* An operand in panels, as matmul_uniform.comp reads it. */
typedef struct panel_form {
    trn_tensor *from;
    int64_t rows, k, batch; /* of the product, by batch */
    bool along_k;           /* neighbours in memory are of one row */
    int width;
} panel_form;

static panel_form form_of(const trn_node *node, const trn_matmul_tiling *t, int operand)
{
    const trn_matmul_attr *attr = trn_matmul_attr_of(node);
    return (panel_form){.from = node->inputs[operand],
                        .rows = operand ? attr->n : attr->m,
                        .k = attr->k,
                        .batch = operand && attr->b_shared ? 1 : attr->batch,
                        .along_k = operand ? !attr->b_rows : !attr->a_columns,
                        .width = operand ? t->bn : t->bm};
}

static trn_status add_packing(trn_lower *lower, const panel_form *form, int lanes, trn_tensor *panels,
                              const char *reason, trn_error *err)
{
    int64_t tiles = (form->rows + form->width - 1) / form->width, padded = tiles * form->width;
    int64_t near = form->along_k ? form->k : padded, far = form->along_k ? padded : form->k;
    int64_t each = !form->along_k && form->width % lanes == 0 ? form->width : lanes;
    int64_t across = (near + each - 1) / each, along = (far + PACK_ROWS - 1) / PACK_ROWS;
    int64_t groups = form->batch * across * along;
    const int64_t scalars[] = {form->rows, form->k, tiles, across, along, groups, form->rows * form->k};
    char why_not[128];
    trn_step step = {.shader = "matmul_pack.comp", .variant = "pack", .reason = reason};
    trn_step_read(&step, form->from);
    trn_step_write(&step, panels);
    for (size_t i = 0; i < TRN_COUNT(scalars); i++)
        trn_step_uint(&step, scalars[i]);
    trn_matmul_macro(lower, &step, "LANES", lanes);
    trn_matmul_macro(lower, &step, "WIDTH", form->width);
    if (!form->along_k) trn_matmul_macro(lower, &step, "ALONG_N", 1);
    if (trn_uniform_loads_apply(trn_lower_gpu(lower), why_not)) {
        trn_matmul_macro(lower, &step, "UNIFORM", 1);
        step.subgroup_size = (uint32_t)lanes;
    }
    trn_lower_groups(&step, groups);
    return trn_lower_step(lower, &step, err);
}

/* Made once when the operand is a constant, else in every run. NULL with err set. */
static trn_tensor *panels_of(trn_lower *lower, const panel_form *form, int lanes, trn_error *err)
{
    int64_t count = (form->rows + form->width - 1) / form->width * form->width * form->k * form->batch;
    uint64_t bytes = 4 * (uint64_t)count + PANEL_SLACK;
    trn_status status;
    if (!form->from->constant) {
        trn_tensor *panels = trn_lower_temporary(lower, bytes, err);
        if (!panels) return NULL;
        status = add_packing(lower, form, lanes, panels, "for this product", err);
        return status == TRN_OK ? panels : NULL;
    }
    bool is_new = false;
    const char *layout = trn_lower_printf(lower, "panels of %d columns of %lld%s", form->width,
                                          (long long)form->k, form->along_k ? "" : ", from rows");
    trn_tensor *panels = layout ? trn_lower_packed(lower, form->from, layout, bytes, &is_new, err) : NULL;
    if (!panels || !is_new) return panels;
    trn_lower_setup_begin(lower);
    status = add_packing(lower, form, lanes, panels, "once, for constant weights", err);
    trn_lower_setup_end(lower);
    return status == TRN_OK ? panels : NULL;
}

/* One of the operands, in panels. */
static trn_tensor *packed_operand(trn_lower *lower, const trn_node *node, const trn_matmul_tiling *t,
                                  int operand, trn_error *err)
{
    panel_form form = form_of(node, t, operand);
    return panels_of(lower, &form, t->lanes, err);
}

/* a and b as the kernel reads them. */
static trn_status add_operands(trn_lower *lower, const trn_node *node, const trn_matmul_tiling *t,
                               trn_step *step, trn_error *err)
{
    const trn_matmul_attr *attr = trn_matmul_attr_of(node);
    trn_tensor *a = node->inputs[0], *b = node->inputs[1];
    if (t->a_panels)
        a = packed_operand(lower, node, t, 0, err);
    else if (attr->a_columns && !t->a_columns)
        a = trn_lower_transposed(lower, a, attr->batch, attr->k, attr->m, err);
    if (!a) return err ? err->code : TRN_ERR_MEMORY;
    trn_step_read(step, a);
    if (t->panels) b = packed_operand(lower, node, t, 1, err);
    if (!b) return err && err->code != TRN_OK ? err->code : trn_fail_memory(err, 64, "packing weights");
    trn_step_read(step, b);
    return TRN_OK;
}

static trn_status lower_tiling(trn_lower *lower, const trn_node *node, const trn_matmul_tiling *t,
                               const char *reason, trn_error *err)
{
    const trn_matmul_attr *attr = trn_matmul_attr_of(node);
    int64_t tiles_m = (attr->m + t->bm - 1) / t->bm, tiles_n = (attr->n + t->bn - 1) / t->bn;
    int64_t tiles = attr->batch * tiles_m * tiles_n;
    int64_t parts = parts_of(trn_lower_device(lower), attr, t, tiles);
    int64_t k_part = ((attr->k + parts - 1) / parts + t->bk - 1) / t->bk * t->bk;
    parts = (attr->k + k_part - 1) / k_part;
    int64_t a_rows = t->a_panels ? tiles_m * t->bm : attr->m,
            b_columns = t->panels ? tiles_n * t->bn : attr->n;
    double flops, bytes;
    trn_matmul_cost(node, &flops, &bytes);
    trn_step step = {.shader = t->shader,
                     .variant = trn_lower_printf(lower, "%s", t->name),
                     .reason = reason,
                     .flops = flops,
                     .subgroup_size = t->subgroup_size};
    trn_tensor *partial = NULL;
    if (parts > 1) {
        partial = trn_lower_temporary(lower, 4 * (uint64_t)parts * (uint64_t)node->out->count, err);
        if (!partial) return err ? err->code : TRN_ERR_MEMORY;
    }
    trn_status status = add_operands(lower, node, t, &step, err);
    if (status != TRN_OK) return status;
    trn_step_write(&step, partial ? partial : trn_lower_output(lower, node));
    const int64_t scalars[] = {
        attr->m, attr->n,     attr->k,          tiles_m,
        tiles_n, attr->batch, a_rows * attr->k, attr->b_shared ? 0 : b_columns * attr->k,
        k_part};
    for (size_t i = 0; i < TRN_COUNT(scalars); i++)
        trn_step_uint(&step, scalars[i]);
    t->finish(lower, &step, node, t);
    if (trn_lower_is_half(lower, node->inputs[0])) trn_matmul_macro(lower, &step, "HALF", 1);
    if (partial) trn_matmul_macro(lower, &step, "PARTIAL", 1);
    step.epilogue = !partial;
    trn_lower_groups(&step, tiles * parts);
    status = trn_lower_step(lower, &step, err);
    return status == TRN_OK && partial ? lower_reduce(lower, node, partial, parts, err) : status;
}

/* Which of the tilings runs, and why. */
static int choose(trn_lower *lower, const trn_node *node, const trn_matmul_tiling *tilings, int count,
                  const char **reason)
{
    trn_candidate candidates[TRN_MATMUL_TILINGS];
    for (int i = 0; i < count; i++)
        candidates[i] = (trn_candidate){.name = tilings[i].name,
                                        .shader = tilings[i].shader,
                                        .reason = tilings[i].reason,
                                        .hopeless = tilings[i].hopeless};
    return trn_lower_choose(lower, node, candidates, count, reason);
}

/* Again, by the first tiling that the shader compiler knows. */
static trn_status lower_without_pack(trn_lower *lower, const trn_node *node, const trn_matmul_tiling *tilings,
                                     int count, size_t mark, trn_error *err)
{
    trn_status status = TRN_OK;
    for (int i = 0; i < count; i++) {
        if (!strcmp(tilings[i].variant, "matrix")) continue;
        trn_lower_back_to(lower, mark);
        status = lower_tiling(lower, node, &tilings[i], "the shader pack lacks the kernel of matrices", err);
        if (status != TRN_OK || trn_lower_knows_since(lower, mark)) return status;
    }
    return trn_fail(err, TRN_ERR_UNSUPPORTED,
                    "matmul: the shader pack lacks the kernel, and there is no other");
}

trn_status trn_matmul_lower(trn_lower *lower, const trn_node *node, trn_error *err)
{
    const trn_gpu *gpu = trn_lower_gpu(lower);
    char why_not[128];
    trn_matmul_tiling *tilings = calloc(TRN_MATMUL_TILINGS, sizeof *tilings);
    if (!tilings) return trn_fail_memory(err, TRN_MATMUL_TILINGS * sizeof *tilings, "a choice of kernels");
    bool half = trn_lower_is_half(lower, node->inputs[0]);
    int count = trn_matmul_cpu_tilings(gpu, node, half, tilings, TRN_MATMUL_TILINGS);
    count += trn_matmul_gpu_tilings(gpu, node, half, tilings + count, TRN_MATMUL_TILINGS - count);
    const char *reason;
    trn_status status;
    size_t mark = trn_lower_mark(lower);
    if (count) {
        int i = choose(lower, node, tilings, count, &reason);
        status = lower_tiling(lower, node, &tilings[i], reason, err);
        if (status == TRN_OK && !trn_lower_knows_since(lower, mark))
            status = lower_without_pack(lower, node, tilings, count, mark, err);
    } else {
        trn_matmul_tiles_applies(gpu, why_not);
        status = trn_fail(err, TRN_ERR_UNSUPPORTED, "matmul: no kernel runs on %s: %s",
                          trn_lower_device(lower)->name, why_not);
    }
    free(tilings);
    return status;
}
