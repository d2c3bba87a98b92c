/* softmax and log_softmax over the last axis. */
#include "ops.h"

#include <math.h>

extern const trn_op trn_op_log_softmax;

static trn_tensor *row_sum(trn_graph *graph, trn_tensor *x)
{
    return trn_reduce(graph, x, -1, TRN_REDUCE_SUM, true);
}

/* dx = y * (dy - sum(dy * y)) */
static trn_tensor *gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    (void)which;
    trn_tensor *sum = row_sum(graph, trn_mul(graph, dy, node->out));
    return trn_mul(graph, node->out, trn_sub(graph, dy, sum));
}

/* dx = dy - exp(y) * sum(dy) */
static trn_tensor *log_gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    (void)which;
    trn_tensor *share = trn_unary(graph, "exp", node->out);
    return trn_sub(graph, dy, trn_mul(graph, share, row_sum(graph, dy)));
}

static void reference(const trn_node *node, const void *const *inputs, void *out)
{
    bool logarithm = node->op == &trn_op_log_softmax;
    int64_t C = node->out->shape.dim[node->out->shape.ndim - 1];
    for (int64_t base = 0; base < node->out->count; base += C) {
        const float *x = (const float *)inputs[0] + base;
        float *y = (float *)out + base;
        double largest = -INFINITY, sum = 0;
        for (int64_t c = 0; c < C; c++)
            largest = fmax(largest, (double)x[c]);
        for (int64_t c = 0; c < C; c++)
            sum += exp((double)x[c] - largest);
        for (int64_t c = 0; c < C; c++) {
            double d = (double)x[c] - largest;
            y[c] = (float)(logarithm ? d - log(sum) : exp(d) / sum);
        }
    }
}

static trn_status lower_softmax(trn_lower *lower, const trn_node *node, trn_error *err)
{
    int64_t C = node->out->shape.dim[node->out->shape.ndim - 1], rows = node->out->count / C;
    trn_step step = {.shader = "softmax.comp"};
    trn_step_read(&step, node->inputs[0]);
    trn_step_write(&step, node->out);
    trn_step_uint(&step, rows);
    trn_step_uint(&step, C);
    trn_step_uint(&step, node->op == &trn_op_log_softmax);
    step.flops = 10.0 * (double)node->out->count;
    return trn_step_rows(lower, &step, rows, C, 3, err);
}

static void cost(const trn_node *node, double *flops, double *bytes)
{
    *flops = 10.0 * (double)node->out->count;
    *bytes = 8.0 * (double)node->out->count;
}

static trn_tensor *build(trn_graph *graph, const trn_op *op, trn_tensor *x)
{
    if (!trn_is_float(graph, x, op->name)) return NULL;
    if (x->shape.ndim < 1) return trn_graph_fail(graph, "%s: a single number has no last axis", op->name);
    trn_node *node = trn_node_add(graph, op, &x, 1, TRN_F32, x->shape);
    return node ? node->out : NULL;
}

trn_tensor *trn_log_softmax(trn_graph *graph, trn_tensor *x)
{
    return build(graph, &trn_op_log_softmax, x);
}

static void case_softmax(trn_graph *graph, const char *name, trn_shape shape)
{
    trn_output_add(graph, "y", trn_softmax(graph, trn_input(graph, name, TRN_F32, shape)));
}

static void case_log(trn_graph *graph, const char *name, trn_shape shape)
{
    trn_output_add(graph, "y", trn_log_softmax(graph, trn_input(graph, name, TRN_F32, shape)));
}

#define BOTH(suffix, name, ...)                                                                              \
    static void case_##suffix(trn_graph *graph)                                                              \
    {                                                                                                        \
        case_softmax(graph, name, TRN_SHAPE(__VA_ARGS__));                                                   \
    }                                                                                                        \
    static void case_log_##suffix(trn_graph *graph)                                                          \
    {                                                                                                        \
        case_log(graph, name, TRN_SHAPE(__VA_ARGS__));                                                       \
    }
BOTH(scores, "x*5", 2, 3, 29, 197)
BOTH(classes, "x*8", 11, 5)
BOTH(one, "x", 1, 1)
BOTH(columns_of_one, "x", 7, 1)
BOTH(long_row, "x*3", 2, 10007)
BOTH(large_values, "x*90", 5, 61)
BOTH(tall, "x*2", 65537, 3)

static const trn_op_case cases[] = {
    {"attention scores", case_scores, 0}, {"5 classes", case_classes, 0},
    {"one value", case_one, 0},           {"rows of one", case_columns_of_one, 0},
    {"rows of 10007", case_long_row, 0},  {"values to 90", case_large_values, 0},
    {"65537 rows", case_tall, 0},
};

static const trn_op_case log_cases[] = {
    {"attention scores", case_log_scores, 0}, {"5 classes", case_log_classes, 0},
    {"one value", case_log_one, 0},           {"rows of one", case_log_columns_of_one, 0},
    {"rows of 10007", case_log_long_row, 0},  {"values to 90", case_log_large_values, 0},
    {"65537 rows", case_log_tall, 0},
};

const trn_op trn_op_softmax = {
    .name = "softmax",
    .gradient = gradient,
    .reference = reference,
    .lower = lower_softmax,
    .cost = cost,
    .variants = trn_row_variants,
    .variant_count = TRN_ROW_VARIANTS,
    .half = trn_half_takes_first,
    .cases = cases,
    .case_count = TRN_COUNT(cases),
};

const trn_op trn_op_log_softmax = {
    .name = "log_softmax",
    .gradient = log_gradient,
    .reference = reference,
    .lower = lower_softmax,
    .cost = cost,
    .variants = trn_row_variants,
    .variant_count = TRN_ROW_VARIANTS,
    .half = trn_half_takes_first,
    .cases = log_cases,
    .case_count = TRN_COUNT(log_cases),
};

trn_tensor *trn_softmax(trn_graph *graph, trn_tensor *x)
{
    return build(graph, &trn_op_softmax, x);
}
