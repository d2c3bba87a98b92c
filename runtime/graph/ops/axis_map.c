/* axis_map: a sparse matrix, known when the graph is built, applied along one axis. Resizing and mean pooling
 * are made of it; its gradient is the transposed matrix. */
#include "ops.h"

#include <stdlib.h>
#include <string.h>

/* outputs of one invocation, along the outer axes; rounds of a loop that every driver grants */
enum { PLANES = 4, LOOP_LIMIT = 60000 };

typedef struct map_attr {
    int axis;
} map_attr;

static int axis_of(const trn_node *node)
{
    return ((const map_attr *)(const void *)node->attr)->axis;
}

bool trn_taps_create(trn_graph *graph, int64_t rows, int64_t count, trn_taps *taps)
{
    trn_arena *arena = trn_graph_arena(graph);
    *taps = (trn_taps){.rows = rows, .count = count};
    if (rows >= INT32_MAX || count > INT32_MAX) {
        trn_graph_fail(graph, "axis_map: %lld taps are more than 2^31-1", (long long)count);
        return false;
    }
    taps->start = trn_arena_array(arena, (size_t)rows + 1, sizeof *taps->start);
    taps->index = trn_arena_array(arena, (size_t)count, sizeof *taps->index);
    taps->weight = trn_arena_array(arena, (size_t)count, sizeof *taps->weight);
    if (taps->start && taps->index && taps->weight) return true;
    trn_graph_fail(graph, "axis_map: out of memory for %lld taps", (long long)count);
    return false;
}

static trn_tensor *gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    if (which != 0) return NULL;
    const int32_t *start = trn_constant_values(node->inputs[1]),
                  *index = trn_constant_values(node->inputs[2]);
    const float *weight = trn_constant_values(node->inputs[3]);
    int64_t rows = node->inputs[0]->shape.dim[axis_of(node)], old_rows = node->inputs[1]->count - 1;
    trn_taps taps;
    if (!trn_taps_create(graph, rows, node->inputs[2]->count, &taps)) return NULL;
    int32_t *next = trn_arena_array(trn_graph_arena(graph), (size_t)rows, sizeof *next);
    if (!next) return trn_graph_fail(graph, "axis_map: out of memory");
    for (int64_t t = 0; t < taps.count; t++)
        taps.start[index[t] + 1]++;
    for (int64_t j = 0; j < rows; j++) {
        next[j] = taps.start[j];
        taps.start[j + 1] += taps.start[j];
    }
    for (int64_t j = 0; j < old_rows; j++) {
        for (int32_t t = start[j]; t < start[j + 1]; t++) {
            int32_t at = next[index[t]]++;
            taps.index[at] = (int32_t)j;
            taps.weight[at] = weight[t];
        }
    }
    return trn_axis_map(graph, dy, axis_of(node), &taps);
}

static void reference(const trn_node *node, const void *const *inputs, void *out)
{
    trn_split in = trn_split_at(&node->inputs[0]->shape, axis_of(node));
    int64_t rows = node->out->shape.dim[axis_of(node)];
    const float *x = inputs[0], *weight = inputs[3];
    const int32_t *start = inputs[1], *index = inputs[2];
    float *y = out;
    for (int64_t at = 0; at < node->out->count; at++) {
        int64_t i = at % in.inner, row = at / in.inner % rows, o = at / in.inner / rows;
        double sum = 0;
        for (int32_t t = start[row]; t < start[row + 1]; t++)
            sum += (double)weight[t] * (double)x[(o * in.axis + index[t]) * in.inner + i];
        y[at] = (float)sum;
    }
}

static trn_status lower_map(trn_lower *lower, const trn_node *node, trn_error *err)
{
    trn_split out = trn_split_at(&node->out->shape, axis_of(node));
    trn_step step = {.shader = "axis_map.comp"};
    for (int i = 0; i < 4; i++)
        trn_step_read(&step, node->inputs[i]);
    trn_step_write(&step, node->out);
    int64_t count = (out.outer + PLANES - 1) / PLANES * out.axis * out.inner;
    trn_step_uint(&step, count);
    trn_step_uint(&step, out.outer);
    trn_step_uint(&step, out.axis);
    trn_step_uint(&step, out.inner);
    trn_step_uint(&step, node->inputs[0]->shape.dim[axis_of(node)]);
    trn_step_divisors(&step, (int64_t[]){out.inner, out.axis}, 2);
    step.flops = 2.0 * (double)(out.outer * out.inner) * (double)node->inputs[2]->count;
    return trn_step_elements(lower, &step, count, err);
}

static void cost(const trn_node *node, double *flops, double *bytes)
{
    trn_split out = trn_split_at(&node->out->shape, axis_of(node));
    *flops = 2.0 * (double)(out.outer * out.inner) * (double)node->inputs[2]->count;
    *bytes = 4.0 * (double)(node->inputs[0]->count + node->out->count);
}

static void describe(const trn_node *node, trn_text *out)
{
    trn_text_printf(out, "axis %d, %lld taps", axis_of(node), (long long)node->inputs[2]->count);
}

/* Row j takes j % most taps, beginning at j * step; rows without a tap are zero. */
static void case_map(trn_graph *graph, trn_shape shape, int axis, int64_t rows, int most, int step)
{
    trn_taps taps;
    int32_t extent = (int32_t)shape.dim[axis];
    if (!trn_taps_create(graph, rows, rows * most, &taps)) return;
    for (int32_t j = 0, at = 0; j < rows; j++) {
        for (int32_t t = 0; t < (j + 1) % (most + 1); t++, at++) {
            taps.index[at] = (j * step + t) % extent;
            taps.weight[at] = (float)(1 + (j + t) % 3) * 0.25f;
        }
        taps.start[j + 1] = at;
    }
    taps.count = TRN_MAX(taps.start[rows], 1);
    trn_tensor *x = trn_input(graph, "x", TRN_F32, shape);
    trn_output_add(graph, "y", trn_axis_map(graph, x, axis, &taps));
}

static void case_middle(trn_graph *graph)
{
    case_map(graph, TRN_SHAPE(3, 13, 7), 1, 29, 4, 2);
}

static void case_last(trn_graph *graph)
{
    case_map(graph, TRN_SHAPE(5, 17), 1, 11, 3, 1);
}

static void case_first(trn_graph *graph)
{
    case_map(graph, TRN_SHAPE(31, 37), 0, 5, 9, 5);
}

static void case_one(trn_graph *graph)
{
    case_map(graph, TRN_SHAPE(1), 0, 1, 1, 1);
}

static void case_tall(trn_graph *graph)
{
    case_map(graph, TRN_SHAPE(65551, 3), 1, 2, 2, 1);
}

static const trn_op_case cases[] = {
    {"middle axis", case_middle, 0}, {"last axis", case_last, 0},  {"first axis", case_first, 0},
    {"one element", case_one, 0},    {"65551 rows", case_tall, 0},
};

const trn_op trn_op_axis_map = {
    .name = "axis_map",
    .gradient = gradient,
    .reference = reference,
    .lower = lower_map,
    .cost = cost,
    .describe = describe,
    .half = trn_half_takes_first,
    .cases = cases,
    .case_count = TRN_COUNT(cases),
};

trn_tensor *trn_axis_map(trn_graph *graph, trn_tensor *x, int axis, const trn_taps *taps)
{
    if (!trn_is_float(graph, x, "axis_map") || (axis = trn_axis(graph, x, axis, "axis_map")) < 0) return NULL;
    for (int64_t j = 0; j < taps->rows; j++) {
        if (taps->start[j + 1] - taps->start[j] > LOOP_LIMIT)
            return trn_graph_fail(graph, "axis_map: position %lld of axis %d gathers %d values (at most %d)",
                                  (long long)j, axis, taps->start[j + 1] - taps->start[j], LOOP_LIMIT);
    }
    trn_tensor *inputs[4] = {
        x,
        trn_constant_int(graph, "axis_map.start", TRN_SHAPE(taps->rows + 1), taps->start),
        trn_constant_int(graph, "axis_map.index", TRN_SHAPE(taps->count), taps->index),
        trn_constant(graph, "axis_map.weight", TRN_SHAPE(taps->count), taps->weight),
    };
    if (!inputs[1] || !inputs[2] || !inputs[3]) return NULL;
    trn_shape shape = x->shape;
    shape.dim[axis] = taps->rows;
    trn_node *node = trn_node_add(graph, &trn_op_axis_map, inputs, 4, TRN_F32, shape);
    if (!node) return NULL;
    ((map_attr *)(void *)node->attr)->axis = axis;
    return node->out;
}
