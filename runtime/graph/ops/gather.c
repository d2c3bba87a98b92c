/* gather: rows of an axis picked by an index tensor; and its gradient, which adds rows back where they came
 * from. */
#include "ops.h"

#include <string.h>

enum { LOOP_LIMIT = 60000 }; /* rounds of one invocation that every driver grants */

typedef struct gather_attr {
    int axis;
} gather_attr;

static int axis_of(const trn_node *node)
{
    return ((const gather_attr *)(const void *)node->attr)->axis;
}

static int64_t clamp_index(int32_t index, int64_t axis)
{
    return index < 0 ? 0 : TRN_MIN((int64_t)index, axis - 1);
}

static trn_node *add_node(trn_graph *graph, const trn_op *op, trn_tensor *x, trn_tensor *index,
                          trn_shape shape, int axis)
{
    trn_node *node = trn_node_add(graph, op, (trn_tensor *[]){x, index}, 2, x->type, shape);
    if (node) ((gather_attr *)(void *)node->attr)->axis = axis;
    return node;
}

/* Both kernels take the same scalars; `data` is the axis of the tensor that is gathered from or added to. */
static trn_status lower_with(trn_lower *lower, const trn_node *node, const char *shader, int64_t data,
                             trn_error *err)
{
    trn_step step = {.shader = shader};
    trn_step_read(&step, node->inputs[0]);
    trn_step_read(&step, node->inputs[1]);
    trn_step_write(&step, node->out);
    trn_step_uint(&step, node->out->count);
    trn_step_uint(&step, node->inputs[1]->count);
    trn_split out = trn_split_at(&node->out->shape, axis_of(node));
    trn_step_uint(&step, out.inner);
    trn_step_uint(&step, data);
    trn_step_divisors(&step, (int64_t[]){out.inner, out.axis}, 2);
    return trn_step_elements(lower, &step, node->out->count, err);
}

static void describe(const trn_node *node, trn_text *out)
{
    trn_text_printf(out, "axis %d", axis_of(node));
}

/* ---- the gradient: dx[.., j, ..] = sum of dy over the positions whose index is j ---- */

static void grad_reference(const trn_node *node, const void *const *inputs, void *out)
{
    trn_split dx = trn_split_at(&node->out->shape, axis_of(node));
    int64_t n = node->inputs[1]->count;
    const float *dy = inputs[0];
    const int32_t *index = inputs[1];
    float *values = out;
    for (int64_t at = 0; at < node->out->count; at++) {
        int64_t i = at % dx.inner, j = at / dx.inner % dx.axis, o = at / dx.inner / dx.axis;
        double sum = 0;
        for (int64_t k = 0; k < n; k++)
            if (clamp_index(index[k], dx.axis) == j) sum += (double)dy[(o * n + k) * dx.inner + i];
        values[at] = (float)sum;
    }
}

static trn_status grad_lower(trn_lower *lower, const trn_node *node, trn_error *err)
{
    return lower_with(lower, node, "gather_grad.comp", node->out->shape.dim[axis_of(node)], err);
}

static trn_tensor *grad_gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    return which == 0 ? trn_gather(graph, dy, axis_of(node), node->inputs[1]) : NULL;
}

static trn_tensor *build_grad(trn_graph *graph, trn_tensor *dy, trn_tensor *index, trn_shape shape, int axis);

static void case_grad(trn_graph *graph, trn_shape shape, int axis, int64_t rows)
{
    trn_tensor *dy = trn_input(graph, "dy", TRN_F32, shape);
    trn_tensor *index = trn_input(graph, "index", TRN_I32, TRN_SHAPE(shape.dim[axis]));
    shape.dim[axis] = rows;
    trn_output_add(graph, "dx", build_grad(graph, dy, index, shape, axis));
}

static void case_grad_rows(trn_graph *graph)
{
    case_grad(graph, TRN_SHAPE(19, 5), 0, 7);
}

static void case_grad_middle(trn_graph *graph)
{
    case_grad(graph, TRN_SHAPE(3, 31, 13), 1, 11);
}

static void case_grad_last(trn_graph *graph)
{
    case_grad(graph, TRN_SHAPE(5, 17), 1, 29);
}

static void case_grad_one(trn_graph *graph)
{
    case_grad(graph, TRN_SHAPE(1, 1), 1, 1);
}

static void case_grad_tall(trn_graph *graph)
{
    case_grad(graph, TRN_SHAPE(65541, 2), 1, 3);
}

static const trn_op_case grad_cases[] = {
    {"rows", case_grad_rows, 0},       {"middle axis", case_grad_middle, 0}, {"last axis", case_grad_last, 0},
    {"one element", case_grad_one, 0}, {"65541 rows", case_grad_tall, 0},
};

const trn_op trn_op_gather_grad = {
    .name = "gather_grad",
    .gradient = grad_gradient,
    .reference = grad_reference,
    .lower = grad_lower,
    .describe = describe,
    .cases = grad_cases,
    .case_count = TRN_COUNT(grad_cases),
};

static trn_tensor *build_grad(trn_graph *graph, trn_tensor *dy, trn_tensor *index, trn_shape shape, int axis)
{
    if (!dy || !index) return NULL;
    if (index->count > LOOP_LIMIT)
        return trn_graph_fail(
            graph, "gather: the gradient for an index of %lld values that is not a constant (at most %d)",
            (long long)index->count, LOOP_LIMIT);
    trn_node *node = add_node(graph, &trn_op_gather_grad, dy, index, shape, axis);
    return node ? node->out : NULL;
}

/* ---- gather ---- */

/* The transposed table of a constant index: row j sums the positions that picked j. */
static trn_tensor *constant_gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy,
                                     const int32_t *index)
{
    int64_t n = node->inputs[1]->count, rows = node->inputs[0]->shape.dim[axis_of(node)];
    trn_taps taps;
    if (!trn_taps_create(graph, rows, n, &taps)) return NULL;
    for (int64_t k = 0; k < n; k++)
        taps.start[index[k] + 1]++;
    for (int64_t j = 0; j < rows; j++)
        taps.start[j + 1] += taps.start[j];
    int32_t *next = trn_arena_array(trn_graph_arena(graph), (size_t)rows, sizeof *next);
    if (!next) return trn_graph_fail(graph, "gather: out of memory");
    memcpy(next, taps.start, (size_t)rows * sizeof *next);
    for (int64_t k = 0; k < n; k++) {
        int32_t at = next[index[k]]++;
        taps.index[at] = (int32_t)k;
        taps.weight[at] = 1;
    }
    return trn_axis_map(graph, dy, axis_of(node), &taps);
}

static trn_tensor *gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    if (which != 0) return NULL;
    const int32_t *index = trn_constant_values(node->inputs[1]);
    if (index) return constant_gradient(graph, node, dy, index);
    return build_grad(graph, dy, node->inputs[1], node->inputs[0]->shape, axis_of(node));
}

static void reference(const trn_node *node, const void *const *inputs, void *out)
{
    trn_split in = trn_split_at(&node->inputs[0]->shape, axis_of(node));
    int64_t n = node->inputs[1]->count;
    const uint32_t *x = inputs[0];
    uint32_t *y = out;
    const int32_t *index = inputs[1];
    for (int64_t o = 0; o < in.outer; o++)
        for (int64_t k = 0; k < n; k++)
            memcpy(y + (o * n + k) * in.inner, x + (o * in.axis + clamp_index(index[k], in.axis)) * in.inner,
                   (size_t)in.inner * 4);
}

static trn_status lower_gather(trn_lower *lower, const trn_node *node, trn_error *err)
{
    return lower_with(lower, node, "gather.comp", node->inputs[0]->shape.dim[axis_of(node)], err);
}

static void cost(const trn_node *node, double *flops, double *bytes)
{
    *flops = 0;
    *bytes = 8.0 * (double)node->out->count;
}

static void case_gather(trn_graph *graph, trn_shape shape, int axis, int32_t count, int32_t step)
{
    int32_t index[300];
    for (int32_t i = 0; i < count; i++)
        index[i] = i * step % (int32_t)shape.dim[axis];
    trn_tensor *x = trn_input(graph, "x", TRN_F32, shape);
    trn_output_add(graph, "y",
                   trn_gather(graph, x, axis, trn_constant_int(graph, "index", TRN_SHAPE(count), index)));
}

static void case_rows(trn_graph *graph)
{
    case_gather(graph, TRN_SHAPE(7, 5), 0, 19, 3);
}

static void case_tokens(trn_graph *graph)
{
    case_gather(graph, TRN_SHAPE(3, 96, 23), 1, 96, 35);
}

static void case_last_axis(trn_graph *graph)
{
    case_gather(graph, TRN_SHAPE(2, 3, 13), 2, 10, 1);
}

static void case_single(trn_graph *graph)
{
    case_gather(graph, TRN_SHAPE(1, 1), 0, 1, 1);
}

static void case_tall(trn_graph *graph)
{
    case_gather(graph, TRN_SHAPE(65543, 3), 1, 2, 2);
}

static void case_input_index(trn_graph *graph)
{
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(4, 17, 6));
    trn_tensor *index = trn_input(graph, "index", TRN_I32, TRN_SHAPE(29));
    trn_output_add(graph, "y", trn_gather(graph, x, 1, index));
}

static const trn_op_case cases[] = {
    {"rows, repeated", case_rows, 0}, {"tokens reordered", case_tokens, 0},
    {"last axis", case_last_axis, 0}, {"one element", case_single, 0},
    {"65543 rows", case_tall, 0},     {"index as an input", case_input_index, 0},
};

const trn_op trn_op_gather = {
    .name = "gather",
    .gradient = gradient,
    .reference = reference,
    .lower = lower_gather,
    .cost = cost,
    .describe = describe,
    .half = trn_half_takes_first,
    .cases = cases,
    .case_count = TRN_COUNT(cases),
};

trn_tensor *trn_gather(trn_graph *graph, trn_tensor *x, int axis, trn_tensor *index)
{
    if (!x || !index || (axis = trn_axis(graph, x, axis, "gather")) < 0) return NULL;
    char text[128];
    if (index->type != TRN_I32 || index->shape.ndim != 1)
        return trn_graph_fail(graph, "gather: the index must be one row of integers, not %s",
                              trn_shape_text(&index->shape, text));
    const int32_t *values = trn_constant_values(index);
    for (int64_t i = 0; values && i < index->count; i++) {
        if (values[i] < 0 || values[i] >= x->shape.dim[axis])
            return trn_graph_fail(graph, "gather: index %lld is %d, outside of axis %d of %s", (long long)i,
                                  values[i], axis, trn_shape_text(&x->shape, text));
    }
    trn_shape shape = x->shape;
    shape.dim[axis] = index->count;
    trn_node *node = add_node(graph, &trn_op_gather, x, index, shape, axis);
    return node ? node->out : NULL;
}
