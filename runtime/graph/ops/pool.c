/* Pooling over images [outer,h,w,inner]: pool_max and its gradient; means are sparse matrices along each
 * axis. */
#include "ops.h"

#include <math.h>

typedef struct pool_attr {
    int64_t outer, h, w, inner, out_h, out_w, size, stride;
} pool_attr;

static const pool_attr *attr_of(const trn_node *node)
{
    return (const void *)node->attr;
}

static void describe(const trn_node *node, trn_text *out)
{
    const pool_attr *a = attr_of(node);
    trn_text_printf(out, "%lldx%lld, stride %lld", (long long)a->size, (long long)a->size,
                    (long long)a->stride);
}

/* w and h: of the tensor that the invocations walk */
static void scalars(trn_step *step, const pool_attr *a, int64_t w, int64_t h)
{
    const int64_t values[] = {a->h, a->w, a->inner, a->out_h, a->out_w, a->size, a->stride};
    for (size_t i = 0; i < TRN_COUNT(values); i++)
        trn_step_uint(step, values[i]);
    trn_step_divisors(step, (int64_t[]){a->inner, w, h}, 3);
}

/* Where the first maximum of a window lies, and its value (NaN wins). */
static int64_t window_maximum(const pool_attr *a, const float *x, int64_t outer, int64_t oy, int64_t ox,
                              int64_t i)
{
    int64_t best = -1;
    for (int64_t k = 0; k < a->size * a->size; k++) {
        int64_t y = oy * a->stride + k / a->size, column = ox * a->stride + k % a->size;
        int64_t at = ((outer * a->h + y) * a->w + column) * a->inner + i;
        if (best < 0 || x[at] > x[best] || (isnan(x[at]) && !isnan(x[best]))) best = at;
    }
    return best;
}

/* ---- gradient ---- */

static void grad_reference(const trn_node *node, const void *const *inputs, void *out)
{
    const pool_attr *a = attr_of(node);
    const float *dy = inputs[1];
    float *dx = out;
    for (int64_t i = 0; i < node->out->count; i++)
        dx[i] = 0;
    for (int64_t at = 0; at < node->inputs[1]->count; at++) {
        int64_t i = at % a->inner, ox = at / a->inner % a->out_w, line = at / a->inner / a->out_w;
        dx[window_maximum(a, inputs[0], line / a->out_h, line % a->out_h, ox, i)] += dy[at];
    }
}

static trn_status grad_lower(trn_lower *lower, const trn_node *node, trn_error *err)
{
    const pool_attr *a = attr_of(node);
    int64_t covering = (a->size + a->stride - 1) / a->stride;
    trn_step step = {.shader = "pool_max_grad.comp"};
    if (a->size * a->size * covering * covering > 60000)
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "windows of %lld at stride %lld overlap too much for a gradient", (long long)a->size,
                        (long long)a->stride);
    trn_step_read(&step, node->inputs[0]);
    trn_step_read(&step, node->inputs[1]);
    trn_step_write(&step, node->out);
    trn_step_uint(&step, node->out->count);
    scalars(&step, a, a->w, a->h);
    return trn_step_elements(lower, &step, node->out->count, err);
}

static trn_tensor *build_grad(trn_graph *graph, trn_tensor *x, trn_tensor *dy, const pool_attr *attr);

static void case_grad(trn_graph *graph, int64_t outer, int64_t h, int64_t w, int64_t inner, int64_t size,
                      int64_t stride)
{
    pool_attr a = {outer, h, w, inner, (h - size) / stride + 1, (w - size) / stride + 1, size, stride};
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(outer, h, w, inner));
    trn_tensor *dy = trn_input(graph, "dy", TRN_F32, TRN_SHAPE(outer, a.out_h, a.out_w, inner));
    trn_output_add(graph, "dx", build_grad(graph, x, dy, &a));
}

static void case_grad_halves(trn_graph *graph)
{
    case_grad(graph, 3, 8, 12, 5, 2, 2);
}

static void case_grad_overlap(trn_graph *graph)
{
    case_grad(graph, 2, 11, 13, 3, 3, 2);
}

static void case_grad_gaps(trn_graph *graph)
{
    case_grad(graph, 1, 17, 16, 7, 2, 5);
}

static void case_grad_point(trn_graph *graph)
{
    case_grad(graph, 1, 1, 1, 1, 1, 1);
}

static void case_grad_large(trn_graph *graph)
{
    case_grad(graph, 1, 131, 509, 1, 2, 1);
}

static const trn_op_case grad_cases[] = {
    {"2x2", case_grad_halves, 0},
    {"3x3 stride 2", case_grad_overlap, 0},
    {"gaps between windows", case_grad_gaps, 0},
    {"one value", case_grad_point, 0},
    {"66040 windows, overlapping", case_grad_large, 0},
};

const trn_op trn_op_pool_max_grad = {
    .name = "pool_max_grad",
    .why_no_gradient = "it is a gradient, and second derivatives are not taken",
    .reference = grad_reference,
    .lower = grad_lower,
    .describe = describe,
    .cases = grad_cases,
    .case_count = TRN_COUNT(grad_cases),
};

static trn_tensor *build_grad(trn_graph *graph, trn_tensor *x, trn_tensor *dy, const pool_attr *attr)
{
    if (!x || !dy) return NULL;
    trn_node *node =
        trn_node_add(graph, &trn_op_pool_max_grad, (trn_tensor *[]){x, dy}, 2, TRN_F32, x->shape);
    if (!node) return NULL;
    *(pool_attr *)(void *)node->attr = *attr;
    return node->out;
}

/* ---- maximum ---- */

static trn_tensor *gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    (void)which;
    return build_grad(graph, node->inputs[0], dy, attr_of(node));
}

static void reference(const trn_node *node, const void *const *inputs, void *out)
{
    const pool_attr *a = attr_of(node);
    const float *x = inputs[0];
    for (int64_t at = 0; at < node->out->count; at++) {
        int64_t i = at % a->inner, ox = at / a->inner % a->out_w, line = at / a->inner / a->out_w;
        ((float *)out)[at] = x[window_maximum(a, x, line / a->out_h, line % a->out_h, ox, i)];
    }
}

static trn_status lower_pool(trn_lower *lower, const trn_node *node, trn_error *err)
{
    const pool_attr *a = attr_of(node);
    trn_step step = {.shader = "pool_max.comp"};
    if (a->size * a->size > 60000)
        return trn_fail(err, TRN_ERR_UNSUPPORTED, "windows of %lldx%lld are too large", (long long)a->size,
                        (long long)a->size);
    trn_step_read(&step, node->inputs[0]);
    trn_step_write(&step, node->out);
    trn_step_uint(&step, node->out->count);
    scalars(&step, a, a->out_w, a->out_h);
    return trn_step_elements(lower, &step, node->out->count, err);
}

static void case_pool(trn_graph *graph, trn_shape shape, int axis, trn_pool_kind kind, int size, int stride)
{
    trn_tensor *x = trn_input(graph, "x", TRN_F32, shape);
    trn_output_add(graph, "y", trn_pool2d(graph, x, axis, kind, size, stride));
}

static void case_nchw(trn_graph *graph)
{
    case_pool(graph, TRN_SHAPE(2, 3, 14, 13), 2, TRN_POOL_MAX, 2, 2);
}

static void case_nhwc(trn_graph *graph)
{
    case_pool(graph, TRN_SHAPE(2, 8, 12, 5), 1, TRN_POOL_MAX, 2, 2);
}

static void case_overlap(trn_graph *graph)
{
    case_pool(graph, TRN_SHAPE(3, 17, 19), 1, TRN_POOL_MAX, 3, 2);
}

static void case_mean(trn_graph *graph)
{
    case_pool(graph, TRN_SHAPE(2, 3, 11, 13), 2, TRN_POOL_MEAN, 3, 2);
}

static void case_point(trn_graph *graph)
{
    case_pool(graph, TRN_SHAPE(1, 1), 0, TRN_POOL_MAX, 1, 1);
}

static void case_large(trn_graph *graph)
{
    case_pool(graph, TRN_SHAPE(1, 262, 254, 1), 1, TRN_POOL_MAX, 1, 1);
}

static void adaptive(trn_graph *graph, int out_h, int out_w)
{
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(2, 3, 14, 13));
    trn_output_add(graph, "y", trn_adaptive_avg_pool2d(graph, x, 2, out_h, out_w));
}

static void case_adaptive(trn_graph *graph)
{
    adaptive(graph, 6, 3);
}

static void case_adaptive_one(trn_graph *graph)
{
    adaptive(graph, 1, 1);
}

static const trn_op_case cases[] = {
    {"NCHW 2x2", case_nchw, 0},         {"NHWC 2x2", case_nhwc, 0},
    {"3x3 stride 2", case_overlap, 0},  {"mean 3x3 stride 2", case_mean, 0},
    {"one value", case_point, 0},       {"66548 windows", case_large, 0},
    {"adaptive 6x3", case_adaptive, 0}, {"adaptive 1x1", case_adaptive_one, 0},
};

const trn_op trn_op_pool_max = {
    .name = "pool_max",
    .gradient = gradient,
    .reference = reference,
    .lower = lower_pool,
    .describe = describe,
    .half = trn_half_takes_first,
    .cases = cases,
    .case_count = TRN_COUNT(cases),
};

/* Checks that axis and the next one are there; -1 after failing the graph. */
static int image_axis(trn_graph *graph, const trn_tensor *x, int axis, const char *op)
{
    char text[128];
    if (!trn_is_float(graph, x, op)) return -1;
    axis = trn_axis(graph, x, axis, op);
    if (axis < 0 || axis + 1 < x->shape.ndim) return axis;
    trn_graph_fail(graph, "%s: axis %d of %s has no width behind it", op, axis,
                   trn_shape_text(&x->shape, text));
    return -1;
}

static trn_tensor *pool_max(trn_graph *graph, trn_tensor *x, int axis, int size, int stride)
{
    trn_split split = trn_split_at(&x->shape, axis);
    trn_shape shape = x->shape;
    pool_attr a = {
        .outer = split.outer, .h = split.axis, .w = shape.dim[axis + 1], .size = size, .stride = stride};
    a.inner = split.inner / a.w;
    a.out_h = shape.dim[axis] = (a.h - size) / stride + 1;
    a.out_w = shape.dim[axis + 1] = (a.w - size) / stride + 1;
    trn_node *node = trn_node_add(graph, &trn_op_pool_max, &x, 1, TRN_F32, shape);
    if (!node) return NULL;
    *(pool_attr *)(void *)node->attr = a;
    return node->out;
}

/* Row j is the mean of positions [from, to) that `range` gives. */
typedef void (*mean_range)(int64_t j, int64_t in, int64_t rows, const int *window, int64_t *from,
                           int64_t *to);

static trn_tensor *mean_rows(trn_graph *graph, trn_tensor *x, int axis, int64_t rows, mean_range range,
                             const int *window)
{
    trn_taps taps;
    int64_t in = trn_tensor_dim(x, axis), total = 0, from, to;
    if (!x) return NULL;
    for (int64_t j = 0; j < rows; j++) {
        range(j, in, rows, window, &from, &to);
        total += to - from;
    }
    if (!trn_taps_create(graph, rows, total, &taps)) return NULL;
    for (int64_t j = 0, at = 0; j < rows; j++) {
        range(j, in, rows, window, &from, &to);
        for (int64_t i = from; i < to; i++, at++) {
            taps.index[at] = (int32_t)i;
            taps.weight[at] = (float)(1.0 / (double)(to - from));
        }
        taps.start[j + 1] = (int32_t)at;
    }
    return trn_axis_map(graph, x, axis, &taps);
}

static void strided_range(int64_t j, int64_t in, int64_t rows, const int *window, int64_t *from, int64_t *to)
{
    (void)in;
    (void)rows;
    *from = j * window[1];
    *to = *from + window[0];
}

static void adaptive_range(int64_t j, int64_t in, int64_t rows, const int *window, int64_t *from, int64_t *to)
{
    (void)window;
    *from = j * in / rows;
    *to = ((j + 1) * in + rows - 1) / rows;
}

trn_tensor *trn_pool2d(trn_graph *graph, trn_tensor *x, int axis, trn_pool_kind kind, int size, int stride)
{
    char text[128];
    if (!x || (axis = image_axis(graph, x, axis, "pool2d")) < 0) return NULL;
    int64_t h = x->shape.dim[axis], w = x->shape.dim[axis + 1];
    if (size < 1 || stride < 1 || size > h || size > w)
        return trn_graph_fail(graph, "pool2d: windows of %d at stride %d do not fit axes %d and %d of %s",
                              size, stride, axis, axis + 1, trn_shape_text(&x->shape, text));
    if (kind == TRN_POOL_MAX) return pool_max(graph, x, axis, size, stride);
    const int window[2] = {size, stride};
    trn_tensor *y = mean_rows(graph, x, axis, (h - size) / stride + 1, strided_range, window);
    return mean_rows(graph, y, axis + 1, (w - size) / stride + 1, strided_range, window);
}

trn_tensor *trn_adaptive_avg_pool2d(trn_graph *graph, trn_tensor *x, int axis, int out_h, int out_w)
{
    if (!x || (axis = image_axis(graph, x, axis, "adaptive_avg_pool2d")) < 0) return NULL;
    if (out_h < 1 || out_w < 1)
        return trn_graph_fail(graph, "adaptive_avg_pool2d: %dx%d is no size", out_h, out_w);
    trn_tensor *y = mean_rows(graph, x, axis, out_h, adaptive_range, NULL);
    return mean_rows(graph, y, axis + 1, out_w, adaptive_range, NULL);
}
