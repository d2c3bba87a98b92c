/* one_hot: labels as rows of zeros and a one. */
#include "ops.h"

#include <math.h>

typedef struct one_hot_attr {
    int32_t ignored;
} one_hot_attr;

static int32_t ignored_by(const trn_node *node)
{
    return ((const one_hot_attr *)(const void *)node->attr)->ignored;
}

static void reference(const trn_node *node, const void *const *inputs, void *out)
{
    const int32_t *labels = inputs[0], ignored = ignored_by(node);
    int64_t classes = node->out->shape.dim[node->out->shape.ndim - 1];
    float *y = out;
    for (int64_t at = 0; at < node->out->count; at++) {
        int32_t label = labels[at / classes];
        bool known = label == ignored || (label >= 0 && label < classes);
        y[at] = !known ? NAN : label != ignored && label == at % classes ? 1.0F : 0.0F;
    }
}

static trn_status lower_one_hot(trn_lower *lower, const trn_node *node, trn_error *err)
{
    int64_t classes = node->out->shape.dim[node->out->shape.ndim - 1];
    trn_step step = {.shader = "one_hot.comp"};
    trn_step_read(&step, node->inputs[0]);
    trn_step_write(&step, node->out);
    trn_step_uint(&step, node->out->count);
    trn_step_uint(&step, classes);
    trn_step_uint(&step, (int64_t)(uint32_t)ignored_by(node));
    trn_step_divisors(&step, &classes, 1);
    return trn_step_elements(lower, &step, node->out->count, err);
}

static void cost(const trn_node *node, double *flops, double *bytes)
{
    *flops = 0;
    *bytes = 4.0 * (double)(node->inputs[0]->count + node->out->count);
}

static void describe(const trn_node *node, trn_text *out)
{
    trn_text_printf(out, "ignores %d", ignored_by(node));
}

static void case_labels(trn_graph *graph, trn_shape shape, int classes, int32_t ignored)
{
    trn_tensor *labels = trn_input(graph, "labels", TRN_I32, shape);
    trn_output_add(graph, "y", trn_one_hot(graph, labels, classes, ignored));
}

static void case_maps(trn_graph *graph)
{
    case_labels(graph, TRN_SHAPE(2, 5, 7), 44, 1000003);
}

static void case_all_unknown(trn_graph *graph)
{
    case_labels(graph, TRN_SHAPE(1031), 19, -1);
}

static void case_class_ignored(trn_graph *graph)
{
    case_labels(graph, TRN_SHAPE(301), 43, 7);
}

static void case_one_class(trn_graph *graph)
{
    case_labels(graph, TRN_SHAPE(1), 1, 255);
}

static void case_tall(trn_graph *graph)
{
    case_labels(graph, TRN_SHAPE(65551), 45, INT32_MIN);
}

static const trn_op_case cases[] = {
    {"maps of 44 classes", case_maps, 0},
    {"labels beyond the classes", case_all_unknown, 0},
    {"a class ignored", case_class_ignored, 0},
    {"one class", case_one_class, 0},
    {"65551 labels", case_tall, 0},
};

const trn_op trn_op_one_hot = {
    .name = "one_hot",
    .why_no_gradient = "labels are integers, which have none",
    .reference = reference,
    .lower = lower_one_hot,
    .cost = cost,
    .describe = describe,
    .cases = cases,
    .case_count = TRN_COUNT(cases),
};

trn_tensor *trn_one_hot(trn_graph *graph, trn_tensor *labels, int classes, int32_t ignored)
{
    char text[128];
    if (!labels) return NULL;
    if (labels->type != TRN_I32)
        return trn_graph_fail(graph, "one_hot: labels %s are floats; they are integers",
                              trn_shape_text(&labels->shape, text));
    if (classes < 1 || labels->shape.ndim >= TRN_MAX_DIMS)
        return trn_graph_fail(graph, "one_hot: %d classes of labels %s", classes,
                              trn_shape_text(&labels->shape, text));
    trn_shape shape = labels->shape;
    shape.dim[shape.ndim++] = classes;
    trn_node *node = trn_node_add(graph, &trn_op_one_hot, &labels, 1, TRN_F32, shape);
    if (!node) return NULL;
    ((one_hot_attr *)(void *)node->attr)->ignored = ignored;
    return node->out;
}
