/* pad: zeros before and after along one axis. */
#include "ops.h"

#include <string.h>

typedef struct pad_attr {
    int axis;
    int64_t before;
} pad_attr;

static const pad_attr *attr_of(const trn_node *node)
{
    return (const void *)node->attr;
}

static trn_tensor *gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    (void)which;
    const pad_attr *attr = attr_of(node);
    return trn_slice(graph, dy, attr->axis, attr->before, node->inputs[0]->shape.dim[attr->axis]);
}

static void reference(const trn_node *node, const void *const *inputs, void *out)
{
    trn_split in = trn_split_at(&node->inputs[0]->shape, attr_of(node)->axis);
    int64_t axis = node->out->shape.dim[attr_of(node)->axis];
    memset(out, 0, (size_t)node->out->count * 4);
    for (int64_t o = 0; o < in.outer; o++)
        memcpy((uint32_t *)out + (o * axis + attr_of(node)->before) * in.inner,
               (const uint32_t *)inputs[0] + o * in.axis * in.inner, (size_t)(in.axis * in.inner) * 4);
}

static trn_status lower_pad(trn_lower *lower, const trn_node *node, trn_error *err)
{
    trn_split in = trn_split_at(&node->inputs[0]->shape, attr_of(node)->axis);
    trn_step step = {.shader = "pad.comp"};
    trn_step_read(&step, node->inputs[0]);
    trn_step_write(&step, node->out);
    trn_step_uint(&step, node->out->count);
    trn_step_uint(&step, node->out->shape.dim[attr_of(node)->axis]);
    trn_step_uint(&step, in.inner);
    trn_step_uint(&step, in.axis);
    trn_step_uint(&step, attr_of(node)->before);
    trn_step_divisors(&step, (int64_t[]){in.inner, node->out->shape.dim[attr_of(node)->axis]}, 2);
    return trn_step_elements(lower, &step, node->out->count, err);
}

static void describe(const trn_node *node, trn_text *out)
{
    const pad_attr *attr = attr_of(node);
    int64_t after = node->out->shape.dim[attr->axis] - node->inputs[0]->shape.dim[attr->axis] - attr->before;
    trn_text_printf(out, "axis %d, %lld before, %lld after", attr->axis, (long long)attr->before,
                    (long long)after);
}

static void case_pad(trn_graph *graph, trn_shape shape, int axis, int64_t before, int64_t after)
{
    trn_tensor *x = trn_input(graph, "x", TRN_F32, shape);
    trn_output_add(graph, "y", trn_pad(graph, x, axis, before, after));
}

static void case_first(trn_graph *graph)
{
    case_pad(graph, TRN_SHAPE(3, 7), 0, 2, 1);
}

static void case_last(trn_graph *graph)
{
    case_pad(graph, TRN_SHAPE(5, 3, 11), -1, 0, 6);
}

static void case_image(trn_graph *graph)
{
    case_pad(graph, TRN_SHAPE(2, 3, 17, 23), 2, 5, 8);
}

static void case_one(trn_graph *graph)
{
    case_pad(graph, TRN_SHAPE(1), 0, 1, 1);
}

static void case_nothing(trn_graph *graph)
{
    case_pad(graph, TRN_SHAPE(2, 5), 1, 0, 0);
}

static void case_tall(trn_graph *graph)
{
    case_pad(graph, TRN_SHAPE(65540, 2), 1, 1, 0);
}

static const trn_op_case cases[] = {
    {"first axis", case_first, 0}, {"after the last axis", case_last, 0}, {"image rows", case_image, 0},
    {"one element", case_one, 0},  {"by nothing", case_nothing, 0},       {"65540 rows", case_tall, 0},
};

const trn_op trn_op_pad = {
    .name = "pad",
    .gradient = gradient,
    .reference = reference,
    .lower = lower_pad,
    .describe = describe,
    .half = trn_half_takes_first,
    .cases = cases,
    .case_count = TRN_COUNT(cases),
};

trn_tensor *trn_pad(trn_graph *graph, trn_tensor *x, int axis, int64_t before, int64_t after)
{
    if (!x || (axis = trn_axis(graph, x, axis, "pad")) < 0) return NULL;
    if (before < 0 || after < 0 || before > INT32_MAX || after > INT32_MAX)
        return trn_graph_fail(graph, "pad: %lld before and %lld after axis %d; neither may be negative",
                              (long long)before, (long long)after, axis);
    trn_shape shape = x->shape;
    shape.dim[axis] += before + after;
    trn_node *node = trn_node_add(graph, &trn_op_pad, &x, 1, x->type, shape);
    if (!node) return NULL;
    *(pad_attr *)(void *)node->attr = (pad_attr){axis, before};
    return node->out;
}
