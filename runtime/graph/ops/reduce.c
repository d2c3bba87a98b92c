/* reduce: sum, mean or maximum over one axis, in stages that add in a fixed order; and the gradient of the
 * maximum. */
#include "ops.h"

#include <math.h>

enum {
    RUN = 128,          /* values that one invocation takes */
    LOOP_LIMIT = 60000, /* rounds that every driver grants */
    /* of the lanes kernel: rows, or values of one row, that make a part worth it; parts enough for many
     * cores; the longest part */
    LANES_ROWS = 128,
    LANES_VALUES = 4096,
    LANES_PARTS = 16,
    LANES_LONGEST = 32768,
};

typedef struct reduce_attr {
    int axis;
    trn_reduce_kind kind;
} reduce_attr;

static const reduce_attr *attr_of(const trn_node *node)
{
    return (const void *)node->attr;
}

extern const trn_op trn_op_reduce_max_grad;

/* ---- gradient of the maximum: dy goes to the first of the largest ---- */

static void max_grad_reference(const trn_node *node, const void *const *inputs, void *out)
{
    trn_split s = trn_split_at(&node->out->shape, attr_of(node)->axis);
    const float *x = inputs[0], *dy = inputs[1];
    float *dx = out;
    for (int64_t at = 0; at < s.outer * s.inner; at++) {
        int64_t base = at / s.inner * s.axis * s.inner + at % s.inner, best = 0;
        for (int64_t k = 0; k < s.axis; k++) {
            float value = x[base + k * s.inner], largest = x[base + best * s.inner];
            if (value > largest || (isnan(value) && !isnan(largest))) best = k;
            dx[base + k * s.inner] = 0;
        }
        dx[base + best * s.inner] = dy[at];
    }
}

static trn_status max_grad_lower(trn_lower *lower, const trn_node *node, trn_error *err)
{
    trn_split s = trn_split_at(&node->out->shape, attr_of(node)->axis);
    trn_step step = {.shader = "reduce_max_grad.comp"};
    trn_step_read(&step, node->inputs[0]);
    trn_step_read(&step, node->inputs[1]);
    trn_step_write(&step, node->out);
    trn_step_uint(&step, s.outer * s.inner);
    trn_step_uint(&step, s.axis);
    trn_step_uint(&step, s.inner);
    return trn_step_elements(lower, &step, s.outer * s.inner, err);
}

static trn_tensor *build_max_grad(trn_graph *graph, trn_tensor *x, trn_tensor *dy, int axis)
{
    if (!x || !dy) return NULL;
    if (x->shape.dim[axis] > LOOP_LIMIT)
        return trn_graph_fail(graph, "reduce: the gradient of a maximum over %lld values (at most %d)",
                              (long long)x->shape.dim[axis], LOOP_LIMIT);
    trn_node *node =
        trn_node_add(graph, &trn_op_reduce_max_grad, (trn_tensor *[]){x, dy}, 2, TRN_F32, x->shape);
    if (!node) return NULL;
    *(reduce_attr *)(void *)node->attr = (reduce_attr){axis, TRN_REDUCE_MAX};
    return node->out;
}

static void describe(const trn_node *node, trn_text *out)
{
    static const char *const kinds[] = {"sum", "mean", "max", "sum of squares"};
    const reduce_attr *attr = attr_of(node);
    trn_text_printf(out, "%s over axis %d", kinds[attr->kind], attr->axis);
}

static void case_max_grad(trn_graph *graph, trn_shape shape, int axis)
{
    trn_tensor *x = trn_input(graph, "x", TRN_F32, shape);
    shape.dim[axis] = 1;
    trn_output_add(graph, "dx", build_max_grad(graph, x, trn_input(graph, "dy", TRN_F32, shape), axis));
}

static void case_max_grad_middle(trn_graph *graph)
{
    case_max_grad(graph, TRN_SHAPE(2, 4, 24), 1);
}

static void case_max_grad_last(trn_graph *graph)
{
    case_max_grad(graph, TRN_SHAPE(7, 301), 1);
}

static void case_max_grad_first(trn_graph *graph)
{
    case_max_grad(graph, TRN_SHAPE(13, 311), 0);
}

static void case_max_grad_one(trn_graph *graph)
{
    case_max_grad(graph, TRN_SHAPE(1, 1), 0);
}

static void case_max_grad_tall(trn_graph *graph)
{
    case_max_grad(graph, TRN_SHAPE(65537, 3), 1);
}

static const trn_op_case max_grad_cases[] = {
    {"middle axis", case_max_grad_middle, 0}, {"last axis", case_max_grad_last, 0},
    {"first axis", case_max_grad_first, 0},   {"one value", case_max_grad_one, 0},
    {"65537 rows", case_max_grad_tall, 0},
};

const trn_op trn_op_reduce_max_grad = {
    .name = "reduce_max_grad",
    .why_no_gradient = "it is a gradient, and second derivatives are not taken",
    .reference = max_grad_reference,
    .lower = max_grad_lower,
    .describe = describe,
    .cases = max_grad_cases,
    .case_count = TRN_COUNT(max_grad_cases),
};

/* ---- reduce ---- */

static trn_tensor *gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    (void)which;
    const reduce_attr *attr = attr_of(node);
    trn_tensor *x = node->inputs[0];
    trn_shape kept = x->shape;
    kept.dim[attr->axis] = 1;
    dy = trn_reshape(graph, dy, kept);
    if (attr->kind == TRN_REDUCE_MAX) return build_max_grad(graph, x, dy, attr->axis);
    if (attr->kind == TRN_REDUCE_SUM_SQUARES)
        return trn_affine(graph, trn_mul(graph, x, trn_expand(graph, dy, x->shape)), 2, 0);
    if (attr->kind == TRN_REDUCE_MEAN)
        dy = trn_affine(graph, dy, (float)(1.0 / (double)x->shape.dim[attr->axis]), 0);
    return trn_expand(graph, dy, x->shape);
}

static void reference(const trn_node *node, const void *const *inputs, void *out)
{
    const reduce_attr *attr = attr_of(node);
    trn_split s = trn_split_at(&node->inputs[0]->shape, attr->axis);
    const float *x = inputs[0];
    for (int64_t at = 0; at < s.outer * s.inner; at++) {
        const float *column = x + at / s.inner * s.axis * s.inner + at % s.inner;
        bool squares = attr->kind == TRN_REDUCE_SUM_SQUARES;
        double total = (double)column[0] * (squares ? (double)column[0] : 1);
        for (int64_t k = 1; k < s.axis; k++) {
            double value = (double)column[k * s.inner];
            if (squares)
                total += value * value;
            else if (attr->kind != TRN_REDUCE_MAX)
                total += value;
            else if (value > total || isnan(value))
                total = value;
        }
        ((float *)out)[at] = (float)(attr->kind == TRN_REDUCE_MEAN ? total / (double)s.axis : total);
    }
}

/* ---- kernels ---- */

/* One dispatch: [outer, axis, inner] -> [outer, parts, inner]. */
static trn_status stage(trn_lower *lower, trn_tensor *from, trn_tensor *to, trn_split s, int64_t parts,
                        trn_reduce_kind kind, double scale, const char *reason, trn_error *err)
{
    trn_step step = {.shader = "reduce.comp", .variant = "elements", .reason = reason};
    trn_step_read(&step, from);
    trn_step_write(&step, to);
    trn_step_uint(&step, s.outer * parts * s.inner);
    trn_step_uint(&step, s.axis);
    trn_step_uint(&step, s.inner);
    trn_step_uint(&step, parts);
    trn_step_uint(&step, kind);
    trn_step_divisors(&step, (int64_t[]){s.inner, parts}, 2);
    trn_step_float(&step, scale);
    step.flops = (double)(s.outer * s.axis * s.inner);
    return trn_step_elements(lower, &step, s.outer * parts * s.inner, err);
}

/* What a stage behind the first does: squares are squared once. */
static trn_reduce_kind later(trn_reduce_kind kind)
{
    return kind == TRN_REDUCE_SUM_SQUARES ? TRN_REDUCE_SUM : kind;
}

static trn_tensor *partial_sums(trn_lower *lower, trn_split s, int64_t parts, trn_error *err)
{
    return trn_lower_temporary(lower, (uint64_t)(s.outer * parts * s.inner) * 4, err);
}

/* An invocation to a result: for any device. */
static trn_status lower_elements(trn_lower *lower, const trn_node *node, trn_split s, double scale,
                                 const char *reason, trn_error *err)
{
    trn_reduce_kind kind = attr_of(node)->kind;
    trn_tensor *from = node->inputs[0];
    while (s.axis > 2 * RUN) {
        int64_t parts = (s.axis + RUN - 1) / RUN;
        trn_tensor *to = partial_sums(lower, s, parts, err);
        if (!to) return err ? err->code : TRN_ERR_MEMORY;
        trn_status status = stage(lower, from, to, s, parts, kind, 1, reason, err);
        if (status != TRN_OK) return status;
        from = to;
        s.axis = parts;
        kind = later(kind);
    }
    return stage(lower, from, node->out, s, 1, kind, scale, reason, err);
}

static trn_status lanes_stage(trn_lower *lower, trn_tensor *from, trn_tensor *to, trn_split s, int64_t parts,
                              trn_reduce_kind kind, double scale, const char *reason, trn_error *err)
{
    const trn_device_info *info = trn_lower_device(lower);
    char why_not[128];
    bool select = trn_uniform_loads_apply(trn_lower_gpu(lower), why_not);
    int64_t width = (int64_t)info->subgroup_size * (select ? 4 : 8);
    int64_t blocks = s.inner == 1 ? 1 : (s.inner + width - 1) / width;
    int64_t length = (s.axis + parts - 1) / parts;
    trn_step step = {.shader = "reduce_lanes.comp",
                     .variant = "lanes",
                     .reason = reason,
                     .subgroup_size = info->subgroup_max ? info->subgroup_size : 0,
                     .flops = (double)(s.outer * s.axis * s.inner)};
    trn_step_read(&step, from);
    trn_step_write(&step, to);
    const int64_t scalars[] = {s.axis, s.inner, parts, length, blocks, s.outer * parts * blocks};
    for (size_t i = 0; i < TRN_COUNT(scalars); i++)
        trn_step_uint(&step, scalars[i]);
    trn_step_float(&step, scale);
    step.macros[step.macro_count++] = (trn_macro){"SG", trn_lower_printf(lower, "%u", info->subgroup_size)};
    if (select) step.macros[step.macro_count++] = (trn_macro){"SELECT", "1"};
    if (s.inner == 1) step.macros[step.macro_count++] = (trn_macro){"ROWS", "1"};
    if (kind == TRN_REDUCE_MAX) step.macros[step.macro_count++] = (trn_macro){"MAXIMUM", "1"};
    if (kind == TRN_REDUCE_SUM_SQUARES) step.macros[step.macro_count++] = (trn_macro){"SQUARES", "1"};
    trn_lower_groups(&step, scalars[5]);
    return trn_lower_step(lower, &step, err);
}

/* A subgroup to a part, for CPU drivers. */
static trn_status lower_lanes(trn_lower *lower, const trn_node *node, trn_split s, double scale,
                              const char *reason, trn_error *err)
{
    trn_reduce_kind kind = attr_of(node)->kind;
    trn_tensor *from = node->inputs[0];
    int64_t least = s.inner == 1 ? LANES_VALUES : LANES_ROWS;
    int64_t parts = TRN_MAX(TRN_MIN((s.axis + least - 1) / least, LANES_PARTS),
                            (s.axis + LANES_LONGEST - 1) / LANES_LONGEST);
    /* all parts have a position of their own */
    int64_t length = (s.axis + parts - 1) / parts;
    parts = (s.axis + length - 1) / length;
    if (parts > 1) {
        trn_tensor *to = partial_sums(lower, s, parts, err);
        if (!to) return err ? err->code : TRN_ERR_MEMORY;
        trn_status status = lanes_stage(lower, from, to, s, parts, kind, 1, reason, err);
        if (status != TRN_OK) return status;
        from = to;
        s.axis = parts;
        kind = later(kind);
    }
    return lanes_stage(lower, from, node->out, s, 1, kind, scale, reason, err);
}

/* Whether lanes have neighbouring values to take: columns, or long rows. */
static bool lanes_fit(trn_lower *lower, const trn_node *node, trn_split s)
{
    char why_not[128];
    int64_t lanes = trn_lower_device(lower)->subgroup_size;
    if (trn_lower_is_half(lower, node->inputs[0]) || trn_lower_is_half(lower, node->out)) return false;
    if (!trn_wide_lanes_apply(trn_lower_gpu(lower), why_not) || s.axis > LANES_LONGEST * LANES_LONGEST)
        return false;
    return s.inner >= lanes || (s.inner == 1 && s.axis >= 8 * lanes);
}

static trn_status lower_reduce(trn_lower *lower, const trn_node *node, trn_error *err)
{
    trn_split s = trn_split_at(&node->inputs[0]->shape, attr_of(node)->axis);
    double scale = attr_of(node)->kind == TRN_REDUCE_MEAN ? 1.0 / (double)s.axis : 1;
    const trn_candidate all[] = {
        {.name = "lanes", .shader = "reduce_lanes.comp", .reason = "CPU driver"},
        {.name = "elements", .shader = "reduce.comp", .reason = "an invocation to a result"}};
    int without = lanes_fit(lower, node, s) ? 0 : 1;
    const char *reason;
    int chosen = without + trn_lower_choose(lower, node, all + without, 2 - without, &reason);
    return (chosen == 0 ? lower_lanes : lower_elements)(lower, node, s, scale, reason, err);
}

/* Sums may leave the range of float16, and so may squares that are summed. */
static bool takes_half(const trn_lower *lower, const trn_node *node, int which)
{
    (void)lower, (void)which;
    return attr_of(node)->kind == TRN_REDUCE_MEAN || attr_of(node)->kind == TRN_REDUCE_MAX;
}

static void cost(const trn_node *node, double *flops, double *bytes)
{
    *flops = (double)node->inputs[0]->count;
    *bytes = 4.0 * (double)(node->inputs[0]->count + node->out->count);
}

static void case_reduce(trn_graph *graph, trn_shape shape, int axis, trn_reduce_kind kind)
{
    trn_tensor *x = trn_input(graph, "x", TRN_F32, shape);
    trn_output_add(graph, "y", trn_reduce(graph, x, axis, kind, false));
}

static void case_tokens(trn_graph *graph)
{
    case_reduce(graph, TRN_SHAPE(3, 197, 24), 1, TRN_REDUCE_MEAN);
}

static void case_last(trn_graph *graph)
{
    case_reduce(graph, TRN_SHAPE(5, 7, 769), -1, TRN_REDUCE_SUM);
}

static void case_max(trn_graph *graph)
{
    case_reduce(graph, TRN_SHAPE(2, 4, 24), 1, TRN_REDUCE_MAX);
}

static void case_max_long(trn_graph *graph)
{
    case_reduce(graph, TRN_SHAPE(70001, 2), 0, TRN_REDUCE_MAX);
}

static void case_sum_long(trn_graph *graph)
{
    case_reduce(graph, TRN_SHAPE(300007), 0, TRN_REDUCE_SUM);
}

static void case_one(trn_graph *graph)
{
    case_reduce(graph, TRN_SHAPE(1, 1), 0, TRN_REDUCE_MEAN);
}

static void case_tall(trn_graph *graph)
{
    case_reduce(graph, TRN_SHAPE(65537, 3), 1, TRN_REDUCE_SUM);
}

static void case_columns(trn_graph *graph)
{
    case_reduce(graph, TRN_SHAPE(2, 1031, 71), 1, TRN_REDUCE_SUM);
}

static void case_max_columns(trn_graph *graph)
{
    case_reduce(graph, TRN_SHAPE(3, 331, 65), 1, TRN_REDUCE_MAX);
}

static void case_max_parts(trn_graph *graph)
{
    case_reduce(graph, TRN_SHAPE(70001), 0, TRN_REDUCE_MAX);
}

static void case_squares(trn_graph *graph)
{
    case_reduce(graph, TRN_SHAPE(9001), 0, TRN_REDUCE_SUM_SQUARES);
}

static void case_squares_short(trn_graph *graph)
{
    case_reduce(graph, TRN_SHAPE(11, 7), 0, TRN_REDUCE_SUM_SQUARES);
}

static const trn_op_case cases[] = {
    {"sum of columns", case_columns, 0},
    {"max of columns", case_max_columns, 0},
    {"max of 70001 in parts", case_max_parts, 0},
    {"sum of 9001 squares", case_squares, 0},
    {"sum of 11 squares", case_squares_short, 0},
    {"mean of tokens", case_tokens, 0},
    {"sum of rows", case_last, 0},
    {"max over 4", case_max, 0},
    {"max over 70001", case_max_long, 0},
    {"sum of 300007", case_sum_long, 0},
    {"one value", case_one, 0},
    {"65537 rows", case_tall, 0},
};

static const trn_variant variants[] = {
    {"lanes", "a subgroup per part, columns or values of a row to lanes, no shared memory",
     trn_wide_lanes_apply},
    {"elements", "an invocation per result", NULL},
};

const trn_op trn_op_reduce = {
    .name = "reduce",
    .gradient = gradient,
    .reference = reference,
    .lower = lower_reduce,
    .cost = cost,
    .describe = describe,
    .half = takes_half,
    .variants = variants,
    .variant_count = TRN_COUNT(variants),
    .cases = cases,
    .case_count = TRN_COUNT(cases),
};

trn_tensor *trn_reduce(trn_graph *graph, trn_tensor *x, int axis, trn_reduce_kind kind, bool keep_axis)
{
    if (!trn_is_float(graph, x, "reduce") || (axis = trn_axis(graph, x, axis, "reduce")) < 0) return NULL;
    trn_shape shape = x->shape;
    shape.dim[axis] = 1;
    for (int i = axis; !keep_axis && i + 1 < shape.ndim; i++)
        shape.dim[i] = shape.dim[i + 1];
    if (!keep_axis && shape.ndim > 1) shape.ndim--;
    if (!keep_axis && x->shape.ndim > 1) shape.dim[shape.ndim] = 0;
    trn_node *node = trn_node_add(graph, &trn_op_reduce, &x, 1, TRN_F32, shape);
    if (!node) return NULL;
    *(reduce_attr *)(void *)node->attr = (reduce_attr){axis, kind};
    return node->out;
}
