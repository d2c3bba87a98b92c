/* layer_norm over the last axis, and its gradient with respect to x. */
#include "ops.h"

#include <math.h>

typedef struct norm_attr {
    float eps;
} norm_attr;

static double eps_of(const trn_node *node)
{
    return (double)((const norm_attr *)(const void *)node->attr)->eps;
}

static int64_t row_length(const trn_node *node)
{
    return node->out->shape.dim[node->out->shape.ndim - 1];
}

static void describe(const trn_node *node, trn_text *out)
{
    trn_text_printf(out, "rows of %lld, eps %g", (long long)row_length(node), eps_of(node));
}

static void cost(const trn_node *node, double *flops, double *bytes)
{
    *flops = 8.0 * (double)node->out->count;
    *bytes = 8.0 * (double)node->out->count;
}

/* Mean and 1 / sqrt(variance + eps) of a row. */
static void statistics(const float *x, int64_t C, double eps, double *mean, double *scale)
{
    double sum = 0, squares = 0;
    for (int64_t c = 0; c < C; c++)
        sum += (double)x[c];
    *mean = sum / (double)C;
    for (int64_t c = 0; c < C; c++)
        squares += ((double)x[c] - *mean) * ((double)x[c] - *mean);
    *scale = 1 / sqrt(squares / (double)C + eps);
}

/* ---- gradient with respect to x: inputs x, dy, w or NULL ---- */

static void grad_row(const float *x, const float *dy, const float *w, int64_t C, double eps, float *dx)
{
    double mean, scale, seeds = 0, products = 0;
    statistics(x, C, eps, &mean, &scale);
    for (int64_t c = 0; c < C; c++) {
        double g = (double)dy[c] * (w ? (double)w[c] : 1);
        seeds += g;
        products += g * ((double)x[c] - mean) * scale;
    }
    for (int64_t c = 0; c < C; c++) {
        double g = (double)dy[c] * (w ? (double)w[c] : 1), normal = ((double)x[c] - mean) * scale;
        dx[c] = (float)((g - seeds / (double)C - normal * products / (double)C) * scale);
    }
}

static void grad_reference(const trn_node *node, const void *const *inputs, void *out)
{
    int64_t C = row_length(node);
    const float *x = inputs[0], *dy = inputs[1], *w = inputs[2];
    for (int64_t base = 0; base < node->out->count; base += C)
        grad_row(x + base, dy + base, w, C, eps_of(node), (float *)out + base);
}

static trn_status grad_lower(trn_lower *lower, const trn_node *node, trn_error *err)
{
    int64_t C = row_length(node), rows = node->out->count / C;
    trn_tensor *w = node->inputs[2];
    trn_step step = {.shader = "layer_norm_grad.comp"};
    trn_step_read(&step, node->inputs[0]);
    trn_step_read(&step, node->inputs[1]);
    trn_step_read(&step, w ? w : node->inputs[0]);
    trn_step_write(&step, node->out);
    trn_step_uint(&step, rows);
    trn_step_uint(&step, C);
    trn_step_uint(&step, w != NULL);
    trn_step_float(&step, eps_of(node));
    step.flops = 16.0 * (double)node->out->count;
    return trn_step_rows(lower, &step, rows, C, 3, err);
}

static trn_tensor *build_grad(trn_graph *graph, trn_tensor *x, trn_tensor *dy, trn_tensor *w, float eps);

static void case_grad(trn_graph *graph, trn_shape shape, bool weighted)
{
    trn_tensor *x = trn_input(graph, "x*2", TRN_F32, shape), *dy = trn_input(graph, "dy", TRN_F32, shape);
    trn_tensor *w = weighted ? trn_input(graph, "w", TRN_F32, TRN_SHAPE(shape.dim[shape.ndim - 1])) : NULL;
    trn_output_add(graph, "dx", build_grad(graph, x, dy, w, 1e-5f));
}

static void case_grad_tokens(trn_graph *graph)
{
    case_grad(graph, TRN_SHAPE(2, 37, 96), true);
}

static void case_grad_odd(trn_graph *graph)
{
    case_grad(graph, TRN_SHAPE(3, 7, 33), false);
}

static void case_grad_short(trn_graph *graph)
{
    case_grad(graph, TRN_SHAPE(11, 3), true);
}

static void case_grad_one_row(trn_graph *graph)
{
    case_grad(graph, TRN_SHAPE(769), true);
}

static void case_grad_tall(trn_graph *graph)
{
    case_grad(graph, TRN_SHAPE(65537, 4), false);
}

static const trn_op_case grad_cases[] = {
    {"tokens", case_grad_tokens, 0},   {"rows of 33, no weights", case_grad_odd, 0},
    {"rows of 3", case_grad_short, 0}, {"one row", case_grad_one_row, 0},
    {"65537 rows", case_grad_tall, 0},
};

const trn_op trn_op_layer_norm_grad = {
    .name = "layer_norm_grad",
    .why_no_gradient = "it is a gradient, and second derivatives are not taken",
    .reference = grad_reference,
    .lower = grad_lower,
    .cost = cost,
    .describe = describe,
    .variants = trn_row_variants,
    .variant_count = TRN_ROW_VARIANTS,
    .cases = grad_cases,
    .case_count = TRN_COUNT(grad_cases),
};

static trn_tensor *build_grad(trn_graph *graph, trn_tensor *x, trn_tensor *dy, trn_tensor *w, float eps)
{
    if (!x || !dy) return NULL;
    trn_node *node =
        trn_node_add(graph, &trn_op_layer_norm_grad, (trn_tensor *[]){x, dy, w}, 3, TRN_F32, x->shape);
    if (!node) return NULL;
    ((norm_attr *)(void *)node->attr)->eps = eps;
    return node->out;
}

/* ---- layer_norm: inputs x, w or NULL, b or NULL ---- */

/* The sum over all rows: [.., C] -> [C] */
static trn_tensor *column_sum(trn_graph *graph, trn_tensor *x, int64_t C)
{
    return trn_reduce(graph, trn_reshape(graph, x, TRN_SHAPE(-1, C)), 0, TRN_REDUCE_SUM, false);
}

static trn_tensor *gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    float eps = (float)eps_of(node);
    if (which == 0) return build_grad(graph, node->inputs[0], dy, node->inputs[1], eps);
    if (which == 1) dy = trn_mul(graph, dy, trn_layer_norm(graph, node->inputs[0], NULL, NULL, eps));
    return dy ? trn_reshape(graph, column_sum(graph, dy, row_length(node)), node->inputs[which]->shape)
              : NULL;
}

static void reference(const trn_node *node, const void *const *inputs, void *out)
{
    int64_t C = row_length(node);
    const float *w = inputs[1], *b = inputs[2];
    for (int64_t base = 0; base < node->out->count; base += C) {
        const float *x = (const float *)inputs[0] + base;
        double mean, scale;
        statistics(x, C, eps_of(node), &mean, &scale);
        for (int64_t c = 0; c < C; c++) {
            double value = ((double)x[c] - mean) * scale * (w ? (double)w[c] : 1) + (b ? (double)b[c] : 0);
            ((float *)out)[base + c] = (float)value;
        }
    }
}

static trn_status lower_norm(trn_lower *lower, const trn_node *node, trn_error *err)
{
    int64_t C = row_length(node), rows = node->out->count / C;
    trn_tensor *x = node->inputs[0], *w = node->inputs[1], *b = node->inputs[2];
    trn_step step = {.shader = "layer_norm.comp"};
    trn_step_read(&step, x);
    trn_step_read(&step, w ? w : x);
    trn_step_read(&step, b ? b : x);
    trn_step_write(&step, node->out);
    trn_step_uint(&step, rows);
    trn_step_uint(&step, C);
    trn_step_uint(&step, w != NULL);
    trn_step_uint(&step, b != NULL);
    trn_step_float(&step, eps_of(node));
    step.flops = 8.0 * (double)node->out->count;
    return trn_step_rows(lower, &step, rows, C, 3, err);
}

static void case_norm(trn_graph *graph, trn_shape shape, bool weighted, bool biased)
{
    trn_shape row = TRN_SHAPE(shape.dim[shape.ndim - 1]);
    trn_tensor *x = trn_input(graph, "x*2", TRN_F32, shape);
    trn_tensor *w = weighted ? trn_input(graph, "w", TRN_F32, row) : NULL;
    trn_tensor *b = biased ? trn_input(graph, "b", TRN_F32, row) : NULL;
    trn_output_add(graph, "y", trn_layer_norm(graph, x, w, b, 1e-6f));
}

static void case_tokens(trn_graph *graph)
{
    case_norm(graph, TRN_SHAPE(2, 197, 96), true, true);
}

static void case_odd(trn_graph *graph)
{
    case_norm(graph, TRN_SHAPE(3, 7, 33), true, true);
}

static void case_bare(trn_graph *graph)
{
    case_norm(graph, TRN_SHAPE(5, 769), false, false);
}

static void case_weight_only(trn_graph *graph)
{
    case_norm(graph, TRN_SHAPE(4, 1024), true, false);
}

static void case_rows_of_one(trn_graph *graph) /* no spread: the bias remains */
{
    case_norm(graph, TRN_SHAPE(9, 1), true, true);
}

static void case_one_row(trn_graph *graph)
{
    case_norm(graph, TRN_SHAPE(5003), true, true);
}

static void case_tall(trn_graph *graph)
{
    case_norm(graph, TRN_SHAPE(65537, 6), true, true);
}

static const trn_op_case cases[] = {
    {"tokens", case_tokens, 0},           {"rows of 33", case_odd, 0},
    {"no weights", case_bare, 0},         {"no bias", case_weight_only, 0},
    {"rows of one", case_rows_of_one, 0}, {"one row of 5003", case_one_row, 0},
    {"65537 rows", case_tall, 0},
};

const trn_op trn_op_layer_norm = {
    .name = "layer_norm",
    .gradient = gradient,
    .reference = reference,
    .lower = lower_norm,
    .cost = cost,
    .describe = describe,
    .variants = trn_row_variants,
    .variant_count = TRN_ROW_VARIANTS,
    .half = trn_half_takes_first,
    .cases = cases,
    .case_count = TRN_COUNT(cases),
};

trn_tensor *trn_layer_norm(trn_graph *graph, trn_tensor *x, trn_tensor *w, trn_tensor *b, float eps)
{
    if (!trn_is_float(graph, x, "layer_norm")) return NULL;
    char text[128];
    int64_t C = trn_tensor_dim(x, -1);
    if ((w && !trn_is_float(graph, w, "layer_norm")) || (b && !trn_is_float(graph, b, "layer_norm")))
        return NULL;
    if (C < 1 || (w && w->count != C) || (b && b->count != C))
        return trn_graph_fail(graph, "layer_norm: weights of %lld and bias of %lld values for rows of %s",
                              (long long)(w ? w->count : C), (long long)(b ? b->count : C),
                              trn_shape_text(&x->shape, text));
    trn_node *node = trn_node_add(graph, &trn_op_layer_norm, (trn_tensor *[]){x, w, b}, 3, TRN_F32, x->shape);
    if (!node) return NULL;
    ((norm_attr *)(void *)node->attr)->eps = eps;
    return node->out;
}
