/* Operators that only move values: permute, slice, expand, concat. All run as copies between strided boxes.
 */
#include "ops.h"

#include <string.h>

/* Element (i0..) lies at start + sum i*stride on either side; axes outermost first. */
typedef struct box {
    int rank;
    int64_t in_start, out_start;
    int64_t dim[TRN_MAX_DIMS], in[TRN_MAX_DIMS], out[TRN_MAX_DIMS];
} box;

typedef struct copy_attr {
    box box;
    int axis;                /* slice */
    int order[TRN_MAX_DIMS]; /* permute */
} copy_attr;

typedef struct concat_attr {
    int axis;
} concat_attr;

static const copy_attr *attr_of(const trn_node *node)
{
    return (const void *)node->attr;
}

static void strides_of(const trn_shape *shape, int64_t strides[TRN_MAX_DIMS])
{
    int64_t stride = 1;
    for (int i = shape->ndim; i-- > 0; stride *= shape->dim[i])
        strides[i] = stride;
}

static int64_t box_count(const box *b)
{
    int64_t count = 1;
    for (int i = 0; i < b->rank; i++)
        count *= b->dim[i];
    return count;
}

/* Drops axes of one element and joins neighbours that are one run on both sides, so that kernels divide less.
 */
static box box_simplify(const box *b)
{
    box s = {.in_start = b->in_start, .out_start = b->out_start};
    for (int i = 0; i < b->rank; i++) {
        if (b->dim[i] == 1) continue;
        int last = s.rank - 1;
        bool run = last >= 0 && s.in[last] == b->in[i] * b->dim[i] && s.out[last] == b->out[i] * b->dim[i];
        if (run)
            s.dim[last] *= b->dim[i];
        else
            s.dim[++last] = b->dim[i], s.rank++;
        s.in[last] = b->in[i];
        s.out[last] = b->out[i];
    }
    return s;
}

static void box_copy(const box *b, const uint32_t *in, uint32_t *out)
{
    int64_t count = box_count(b);
    for (int64_t n = 0; n < count; n++) {
        int64_t rest = n, from = b->in_start, to = b->out_start;
        for (int i = b->rank; i-- > 0; rest /= b->dim[i]) {
            from += rest % b->dim[i] * b->in[i];
            to += rest % b->dim[i] * b->out[i];
        }
        out[to] = in[from];
    }
}

static bool is_dense(const box *b, int64_t start, const int64_t *strides)
{
    int64_t dense = 1;
    bool same = start == 0;
    for (int i = b->rank; i-- > 0; dense *= b->dim[i])
        same = same && strides[i] == dense;
    return same;
}

/* Boxes are walked along their dense side, which is the output of all but concat. */
static trn_status box_lower(trn_lower *lower, const box *full, trn_tensor *in, trn_tensor *out,
                            trn_error *err)
{
    enum { AXES = 6 };
    box b = box_simplify(full);
    bool scatter = !is_dense(&b, b.out_start, b.out);
    int64_t count = box_count(&b);
    const int64_t *strides = scatter ? b.out : b.in;
    int64_t divisors[AXES - 1];
    trn_step step = {.shader = "strided_copy.comp"};
    if (scatter && !is_dense(&b, b.in_start, b.in))
        return trn_fail(err, TRN_ERR_INTERNAL, "a copy is dense on neither side");
    trn_step_read(&step, in);
    trn_step_write(&step, out);
    step.bytes = 8.0 * (double)count;
    trn_step_uint(&step, count);
    trn_step_uint(&step, TRN_MAX(b.rank, 1));
    trn_step_uint(&step, scatter ? b.out_start : b.in_start);
    trn_step_uint(&step, scatter);
    for (int i = 0; i < AXES - 1; i++) {
        divisors[i] = i < b.rank ? b.dim[b.rank - 1 - i] : 1;
        trn_step_uint(&step, divisors[i]);
    }
    trn_step_divisors(&step, divisors, AXES - 1);
    for (int i = 0; i < AXES; i++)
        trn_step_uint(&step, i < b.rank ? strides[b.rank - 1 - i] : 0);
    return trn_step_elements(lower, &step, count, err);
}

trn_tensor *trn_lower_transposed(trn_lower *lower, trn_tensor *x, int64_t batch, int64_t rows,
                                 int64_t columns, trn_error *err)
{
    box b = {.rank = 3,
             .dim = {batch, columns, rows},
             .in = {rows * columns, 1, columns},
             .out = {rows * columns, rows, 1}};
    bool half = trn_lower_is_half(lower, x);
    trn_tensor *to = trn_lower_temporary(lower, (half ? 2 : 4) * (uint64_t)x->count, err);
    if (to && half) trn_lower_holds_half(to);
    return to && box_lower(lower, &b, x, to, err) == TRN_OK ? to : NULL;
}

static void copy_reference(const trn_node *node, const void *const *inputs, void *out)
{
    box_copy(&attr_of(node)->box, inputs[0], out);
}

static trn_status copy_lower(trn_lower *lower, const trn_node *node, trn_error *err)
{
    return box_lower(lower, &attr_of(node)->box, node->inputs[0], node->out, err);
}

static void copy_cost(const trn_node *node, double *flops, double *bytes)
{
    *flops = 0;
    *bytes = 8.0 * (double)node->out->count;
}

/* A node whose output is read from x by the strides in box.in; the output side is filled here. */
static trn_node *copy_node(trn_graph *graph, const trn_op *op, trn_tensor *x, trn_shape shape,
                           const copy_attr *attr)
{
    trn_node *node = trn_node_add(graph, op, &x, 1, x->type, shape);
    if (!node) return NULL;
    copy_attr *own = (void *)node->attr;
    *own = *attr;
    own->box.rank = shape.ndim;
    memcpy(own->box.dim, shape.dim, sizeof shape.dim);
    strides_of(&shape, own->box.out);
    return node;
}

/* ---- permute ---- */

static trn_tensor *permute_gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    (void)which;
    int inverse[TRN_MAX_DIMS] = {0};
    for (int i = 0; i < dy->shape.ndim; i++)
        inverse[attr_of(node)->order[i]] = i;
    return trn_permute(graph, dy, inverse);
}

static void permute_describe(const trn_node *node, trn_text *out)
{
    for (int i = 0; i < node->out->shape.ndim; i++)
        trn_text_printf(out, i ? ",%d" : "order %d", attr_of(node)->order[i]);
}

static void case_permute(trn_graph *graph, trn_shape shape, const int *order)
{
    trn_tensor *x = trn_input(graph, "x", TRN_F32, shape);
    trn_output_add(graph, "y", trn_permute(graph, x, order));
}

static void case_permute_matrix(trn_graph *graph)
{
    case_permute(graph, TRN_SHAPE(37, 53), (int[]){1, 0});
}

static void case_permute_six(trn_graph *graph)
{
    case_permute(graph, TRN_SHAPE(2, 3, 5, 1, 7, 4), (int[]){5, 2, 0, 4, 3, 1});
}

static void case_permute_same(trn_graph *graph)
{
    case_permute(graph, TRN_SHAPE(3, 5, 7), (int[]){0, 1, 2});
}

static void case_permute_one(trn_graph *graph)
{
    case_permute(graph, TRN_SHAPE(1, 1, 1), (int[]){2, 0, 1});
}

static void case_permute_image(trn_graph *graph)
{
    case_permute(graph, TRN_SHAPE(2, 13, 67, 41), (int[]){0, 2, 3, 1});
}

static void case_permute_tall(trn_graph *graph)
{
    case_permute(graph, TRN_SHAPE(66000, 2, 3), (int[]){0, 2, 1});
}

static const trn_op_case permute_cases[] = {
    {"37x53 transposed", case_permute_matrix, 0}, {"six axes", case_permute_six, 0},
    {"identity", case_permute_same, 0},           {"one element", case_permute_one, 0},
    {"NCHW to NHWC", case_permute_image, 0},      {"66000 rows", case_permute_tall, 0},
};

const trn_op trn_op_permute = {
    .name = "permute",
    .gradient = permute_gradient,
    .reference = copy_reference,
    .lower = copy_lower,
    .cost = copy_cost,
    .describe = permute_describe,
    .half = trn_half_takes_first,
    .cases = permute_cases,
    .case_count = TRN_COUNT(permute_cases),
};

trn_tensor *trn_permute(trn_graph *graph, trn_tensor *x, const int *order)
{
    if (!x) return NULL;
    char text[128];
    copy_attr attr = {.box = {.in_start = 0}};
    int64_t strides[TRN_MAX_DIMS];
    trn_shape shape = {.ndim = x->shape.ndim};
    unsigned seen = 0;
    strides_of(&x->shape, strides);
    for (int i = 0; i < shape.ndim; i++) {
        /* NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign): as many as dimensions */
        int from = order[i];
        if (from < 0 || from >= shape.ndim || seen & 1u << from)
            return trn_graph_fail(graph, "permute: axis %d of the order for %s is outside or given twice",
                                  from, trn_shape_text(&x->shape, text));
        seen |= 1u << from;
        attr.order[i] = from;
        attr.box.in[i] = strides[from];
        shape.dim[i] = x->shape.dim[from];
    }
    trn_node *node = copy_node(graph, &trn_op_permute, x, shape, &attr);
    return node ? node->out : NULL;
}

/* ---- slice ---- */

static trn_tensor *slice_gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    (void)which;
    const copy_attr *attr = attr_of(node);
    const trn_shape *shape = &node->inputs[0]->shape;
    int64_t start = attr->box.in_start / trn_split_at(shape, attr->axis).inner;
    return trn_pad(graph, dy, attr->axis, start, shape->dim[attr->axis] - start - dy->shape.dim[attr->axis]);
}

static void slice_describe(const trn_node *node, trn_text *out)
{
    const copy_attr *attr = attr_of(node);
    int64_t start = attr->box.in_start / trn_split_at(&node->inputs[0]->shape, attr->axis).inner;
    trn_text_printf(out, "axis %d from %lld", attr->axis, (long long)start);
}

static void case_slice(trn_graph *graph, trn_shape shape, int axis, int64_t start, int64_t count)
{
    trn_tensor *x = trn_input(graph, "x", TRN_F32, shape);
    trn_output_add(graph, "y", trn_slice(graph, x, axis, start, count));
}

static void case_slice_first(trn_graph *graph)
{
    case_slice(graph, TRN_SHAPE(7, 11), 0, 2, 3);
}

static void case_slice_last(trn_graph *graph)
{
    case_slice(graph, TRN_SHAPE(3, 5, 29), -1, 13, 11);
}

static void case_slice_middle(trn_graph *graph)
{
    case_slice(graph, TRN_SHAPE(2, 197, 24), 1, 1, 196);
}

static void case_slice_one(trn_graph *graph)
{
    case_slice(graph, TRN_SHAPE(2, 197, 24), 1, 196, 1);
}

static void case_slice_all(trn_graph *graph)
{
    case_slice(graph, TRN_SHAPE(5), 0, 0, 5);
}

static void case_slice_tall(trn_graph *graph)
{
    case_slice(graph, TRN_SHAPE(65537, 3), 1, 1, 2);
}

static const trn_op_case slice_cases[] = {
    {"first axis", case_slice_first, 0},
    {"last axis", case_slice_last, 0},
    {"without class token", case_slice_middle, 0},
    {"last token", case_slice_one, 0},
    {"everything", case_slice_all, 0},
    {"65537 rows", case_slice_tall, 0},
};

const trn_op trn_op_slice = {
    .name = "slice",
    .gradient = slice_gradient,
    .reference = copy_reference,
    .lower = copy_lower,
    .cost = copy_cost,
    .describe = slice_describe,
    .half = trn_half_takes_first,
    .cases = slice_cases,
    .case_count = TRN_COUNT(slice_cases),
};

trn_tensor *trn_slice(trn_graph *graph, trn_tensor *x, int axis, int64_t start, int64_t count)
{
    if (!x || (axis = trn_axis(graph, x, axis, "slice")) < 0) return NULL;
    char text[128];
    trn_shape shape = x->shape;
    if (start < 0 || count < 1 || count > shape.dim[axis] || start > shape.dim[axis] - count)
        return trn_graph_fail(graph, "slice: %lld positions from %lld do not lie on axis %d of %s",
                              (long long)count, (long long)start, axis, trn_shape_text(&x->shape, text));
    copy_attr attr = {.axis = axis};
    strides_of(&x->shape, attr.box.in);
    attr.box.in_start = start * attr.box.in[axis];
    shape.dim[axis] = count;
    trn_node *node = copy_node(graph, &trn_op_slice, x, shape, &attr);
    return node ? node->out : NULL;
}

/* ---- expand ---- */

static trn_tensor *expand_gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    (void)which;
    const trn_shape *from = &node->inputs[0]->shape, *to = &node->out->shape;
    int added = to->ndim - from->ndim;
    for (int i = to->ndim; i-- > 0;) {
        int64_t had = i < added ? 1 : from->dim[i - added];
        if (had == 1 && to->dim[i] > 1) dy = trn_reduce(graph, dy, i, TRN_REDUCE_SUM, true);
    }
    return trn_reshape(graph, dy, *from);
}

static void case_expand(trn_graph *graph, trn_shape from, trn_shape to)
{
    trn_tensor *x = trn_input(graph, "x", TRN_F32, from);
    trn_output_add(graph, "y", trn_expand(graph, x, to));
}

static void case_expand_token(trn_graph *graph)
{
    case_expand(graph, TRN_SHAPE(1, 1, 37), TRN_SHAPE(5, 1, 37));
}

static void case_expand_both(trn_graph *graph)
{
    case_expand(graph, TRN_SHAPE(1, 13, 1, 3), TRN_SHAPE(4, 13, 7, 3));
}

static void case_expand_new_axes(trn_graph *graph)
{
    case_expand(graph, TRN_SHAPE(11), TRN_SHAPE(3, 2, 11));
}

static void case_expand_scalar(trn_graph *graph)
{
    case_expand(graph, TRN_SHAPE(1), TRN_SHAPE(1031));
}

static void case_expand_last(trn_graph *graph)
{
    case_expand(graph, TRN_SHAPE(65539, 1), TRN_SHAPE(65539, 5));
}

static const trn_op_case expand_cases[] = {
    {"batch of a token", case_expand_token, 0}, {"two axes", case_expand_both, 0},
    {"new axes", case_expand_new_axes, 0},      {"one value", case_expand_scalar, 0},
    {"65539 rows", case_expand_last, 0},
};

const trn_op trn_op_expand = {
    .name = "expand",
    .gradient = expand_gradient,
    .reference = copy_reference,
    .lower = copy_lower,
    .cost = copy_cost,
    .half = trn_half_takes_first,
    .cases = expand_cases,
    .case_count = TRN_COUNT(expand_cases),
};

trn_tensor *trn_expand(trn_graph *graph, trn_tensor *x, trn_shape shape)
{
    if (!x) return NULL;
    char from[128], to[128];
    copy_attr attr = {.axis = 0};
    int64_t strides[TRN_MAX_DIMS];
    int added = shape.ndim - x->shape.ndim;
    bool fits = added >= 0 && shape.ndim <= TRN_MAX_DIMS;
    strides_of(&x->shape, strides);
    for (int i = 0; fits && i < shape.ndim; i++) {
        int64_t had = i < added ? 1 : x->shape.dim[i - added];
        fits = had == shape.dim[i] || had == 1;
        attr.box.in[i] = had == 1 ? 0 : strides[i - added];
    }
    if (!fits)
        return trn_graph_fail(graph, "expand: %s cannot be repeated to %s", trn_shape_text(&x->shape, from),
                              trn_shape_text(&shape, to));
    trn_node *node = copy_node(graph, &trn_op_expand, x, shape, &attr);
    return node ? node->out : NULL;
}

/* ---- concat ---- */

/* Where part `which` of the node goes. */
static box concat_box(const trn_node *node, int which)
{
    int axis = ((const concat_attr *)(const void *)node->attr)->axis;
    const trn_shape *shape = &node->inputs[which]->shape;
    box b = {.rank = shape->ndim};
    memcpy(b.dim, shape->dim, sizeof shape->dim);
    strides_of(shape, b.in);
    strides_of(&node->out->shape, b.out);
    for (int i = 0; i < which; i++)
        b.out_start += node->inputs[i]->shape.dim[axis] * b.out[axis];
    return b;
}

static void concat_reference(const trn_node *node, const void *const *inputs, void *out)
{
    for (int i = 0; i < node->input_count; i++) {
        box b = concat_box(node, i);
        box_copy(&b, inputs[i], out);
    }
}

static trn_status concat_lower(trn_lower *lower, const trn_node *node, trn_error *err)
{
    trn_status status = TRN_OK;
    for (int i = 0; status == TRN_OK && i < node->input_count; i++) {
        box b = concat_box(node, i);
        status = box_lower(lower, &b, node->inputs[i], node->out, err);
    }
    return status;
}

static trn_tensor *concat_gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    int axis = ((const concat_attr *)(const void *)node->attr)->axis;
    int64_t start = 0;
    for (int i = 0; i < which; i++)
        start += node->inputs[i]->shape.dim[axis];
    return trn_slice(graph, dy, axis, start, node->inputs[which]->shape.dim[axis]);
}

static void concat_describe(const trn_node *node, trn_text *out)
{
    trn_text_printf(out, "axis %d, %d parts", ((const concat_attr *)(const void *)node->attr)->axis,
                    node->input_count);
}

static void case_concat(trn_graph *graph, const trn_shape *shapes, int count, int axis)
{
    trn_tensor *parts[64];
    char name[16];
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "x%d", i);
        parts[i] = trn_input(graph, name, TRN_F32, shapes[i]);
    }
    trn_output_add(graph, "y", trn_concat(graph, parts, count, axis));
}

static void case_concat_tokens(trn_graph *graph)
{
    case_concat(graph, (trn_shape[]){TRN_SHAPE(3, 1, 19), TRN_SHAPE(3, 49, 19)}, 2, 1);
}

static void case_concat_last(trn_graph *graph)
{
    case_concat(graph, (trn_shape[]){TRN_SHAPE(7, 5), TRN_SHAPE(7, 1), TRN_SHAPE(7, 13)}, 3, -1);
}

static void case_concat_first(trn_graph *graph)
{
    case_concat(graph, (trn_shape[]){TRN_SHAPE(7, 5), TRN_SHAPE(300, 5), TRN_SHAPE(1, 5)}, 3, 0);
}

static void case_concat_single(trn_graph *graph)
{
    case_concat(graph, (trn_shape[]){TRN_SHAPE(2, 3, 4)}, 1, 2);
}

static void case_concat_many(trn_graph *graph)
{
    trn_shape shapes[41];
    for (int i = 0; i < 41; i++)
        shapes[i] = TRN_SHAPE(3, 1 + i % 5, 2);
    case_concat(graph, shapes, 41, 1);
}

static void case_concat_tall(trn_graph *graph)
{
    case_concat(graph, (trn_shape[]){TRN_SHAPE(65537, 1), TRN_SHAPE(65537, 2)}, 2, 1);
}

static const trn_op_case concat_cases[] = {
    {"class token", case_concat_tokens, 0}, {"last axis", case_concat_last, 0},
    {"first axis", case_concat_first, 0},   {"one part", case_concat_single, 0},
    {"41 parts", case_concat_many, 0},      {"65537 rows", case_concat_tall, 0},
};

const trn_op trn_op_concat = {
    .name = "concat",
    .gradient = concat_gradient,
    .reference = concat_reference,
    .lower = concat_lower,
    .cost = copy_cost,
    .describe = concat_describe,
    .half = trn_half_takes_any,
    .cases = concat_cases,
    .case_count = TRN_COUNT(concat_cases),
};

static trn_tensor *concat_node(trn_graph *graph, trn_tensor *const *parts, int count, int axis)
{
    trn_shape shape = parts[0]->shape;
    for (int i = 1; i < count; i++)
        shape.dim[axis] += parts[i]->shape.dim[axis];
    trn_node *node = trn_node_add(graph, &trn_op_concat, parts, count, parts[0]->type, shape);
    if (!node) return NULL;
    ((concat_attr *)(void *)node->attr)->axis = axis;
    return node->out;
}

static bool concat_check(trn_graph *graph, trn_tensor *const *parts, int count, int axis)
{
    char first[128], other[128];
    for (int i = 1; i < count; i++) {
        trn_shape shape = parts[i]->shape;
        if (shape.ndim == parts[0]->shape.ndim) shape.dim[axis] = parts[0]->shape.dim[axis];
        if (trn_shape_equal(&shape, &parts[0]->shape) && parts[i]->type == parts[0]->type) continue;
        trn_graph_fail(graph, "concat: part %d, %s, does not fit the first, %s, along axis %d", i,
                       trn_shape_text(&parts[i]->shape, other), trn_shape_text(&parts[0]->shape, first),
                       axis);
        return false;
    }
    return true;
}

/* A node takes TRN_MAX_INPUTS parts; more are joined in as few levels as it takes, so that few values move
 * twice. */
static trn_tensor *concat_tree(trn_graph *graph, trn_tensor *const *parts, int count, int axis)
{
    trn_tensor *level[64];
    int left = count, used = 0;
    memcpy(level, parts, (size_t)count * sizeof *level);
    while (left > TRN_MAX_INPUTS) {
        int excess = left - TRN_MAX_INPUTS, made = 0;
        for (used = 0; used < left;) {
            int take = TRN_MIN(TRN_MIN(excess + 1, TRN_MAX_INPUTS), left - used);
            level[made] = take > 1 ? concat_node(graph, level + used, take, axis) : level[used];
            if (!level[made++]) return NULL;
            excess -= take - 1;
            used += take;
        }
        left = made;
    }
    return concat_node(graph, level, left, axis);
}

trn_tensor *trn_concat(trn_graph *graph, trn_tensor *const *parts, int count, int axis)
{
    if (count < 1 || count > 64)
        return trn_graph_fail(graph, "concat: %d parts; 1 to 64 can be joined", count);
    for (int i = 0; i < count; i++)
        if (!parts[i]) return NULL;
    axis = trn_axis(graph, parts[0], axis, "concat");
    if (axis < 0 || !concat_check(graph, parts, count, axis)) return NULL;
    return concat_tree(graph, parts, count, axis);
}
