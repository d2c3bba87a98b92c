/* fold: the adjoint of unfold; overlapping windows add up. Gathers, so that the order of the sums is fixed.
 */
#include "ops.h"

#include <stdlib.h>
#include <string.h>

static const trn_window *window_of(const trn_node *node)
{
    return (const void *)node->attr;
}

static void describe(const trn_node *node, trn_text *out)
{
    trn_window_describe(window_of(node), out);
}

static trn_tensor *gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    (void)which;
    return trn_unfold(graph, dy, window_of(node));
}

/* The windows along one axis whose kernel covers position `at`: [first, end). */
static void covering(const trn_window *w, int axis, int64_t at, int64_t *first, int64_t *end)
{
    int64_t padded = at + w->padding[axis];
    *first = padded < w->kernel[axis] ? 0 : (padded - w->kernel[axis]) / w->stride[axis] + 1;
    *end = TRN_MIN(padded / w->stride[axis] + 1, (int64_t)w->out[axis]);
}

static double gather_value(const trn_window *w, const float *x, int64_t b, int64_t c, const int64_t at[3])
{
    int64_t first[3], end[3];
    double sum = 0;
    for (int i = 0; i < 3; i++)
        covering(w, i, at[i], &first[i], &end[i]);
    for (int64_t oz = first[0]; oz < end[0]; oz++) {
        for (int64_t oy = first[1]; oy < end[1]; oy++) {
            for (int64_t ox = first[2]; ox < end[2]; ox++) {
                int64_t window = ((b * w->out[0] + oz) * w->out[1] + oy) * w->out[2] + ox;
                int64_t kz = at[0] + w->padding[0] - oz * w->stride[0],
                        ky = at[1] + w->padding[1] - oy * w->stride[1];
                int64_t kx = at[2] + w->padding[2] - ox * w->stride[2];
                int64_t channel = window * w->channels + c;
                sum += (double)x[((channel * w->kernel[0] + kz) * w->kernel[1] + ky) * w->kernel[2] + kx];
            }
        }
    }
    return sum;
}

static void reference(const trn_node *node, const void *const *inputs, void *out)
{
    const trn_window *w = window_of(node);
    for (int64_t i = 0; i < node->out->count; i++) {
        int64_t line = i / w->in[2], plane = line / w->in[1], volume = plane / w->in[0];
        int64_t at[3] = {plane % w->in[0], line % w->in[1], i % w->in[2]};
        ((float *)out)[i] = (float)gather_value(w, inputs[0], volume / w->channels, volume % w->channels, at);
    }
}

static int64_t overlaps(const trn_window *w)
{
    int64_t count = 1;
    for (int i = 0; i < 3; i++)
        count *= (w->kernel[i] + w->stride[i] - 1) / w->stride[i];
    return count;
}

static trn_status lower_fold(trn_lower *lower, const trn_node *node, trn_error *err)
{
    const trn_window *w = window_of(node);
    trn_step step = {.shader = "fold.comp"};
    if (overlaps(w) > 30000)
        return trn_fail(err, TRN_ERR_UNSUPPORTED, "windows overlap %lld-fold, which is too much",
                        (long long)overlaps(w));
    trn_step_read(&step, node->inputs[0]);
    trn_step_write(&step, node->out);
    trn_window_scalars(&step, w);
    trn_step_uint(&step, node->out->count);
    trn_step_divisors(&step, (int64_t[]){w->in[2], w->in[1], w->in[0], w->channels}, 4);
    step.flops = (double)node->inputs[0]->count;
    return trn_step_elements(lower, &step, node->out->count, err);
}

static void case_fold(trn_graph *graph, int batch, const int64_t *size, const int64_t *kernel,
                      const int *stride, const int *padding)
{
    trn_window w;
    if (!trn_window_make(graph, "fold", size, kernel, stride, padding, &w)) return;
    int64_t windows = (int64_t)w.out[0] * w.out[1] * w.out[2];
    int64_t columns = size[0] * kernel[0] * kernel[1] * kernel[2];
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(batch, windows, columns));
    trn_output_add(graph, "y", trn_fold(graph, x, &w));
}

static void case_doubled(trn_graph *graph)
{
    case_fold(graph, 2, (int64_t[]){4, 1, 10, 14}, (int64_t[]){1, 2, 2}, (int[]){1, 2, 2}, (int[]){0, 0, 0});
}

static void case_overlap(trn_graph *graph)
{
    case_fold(graph, 2, (int64_t[]){3, 1, 23, 29}, (int64_t[]){1, 7, 7}, (int[]){1, 4, 4}, (int[]){0, 3, 3});
}

static void case_unused(trn_graph *graph) /* the last rows and columns are in no window: zero */
{
    case_fold(graph, 1, (int64_t[]){2, 1, 13, 11}, (int64_t[]){1, 3, 2}, (int[]){1, 5, 4}, (int[]){0, 0, 0});
}

static void case_volume(trn_graph *graph)
{
    case_fold(graph, 2, (int64_t[]){2, 5, 7, 6}, (int64_t[]){2, 3, 1}, (int[]){2, 1, 3}, (int[]){1, 0, 2});
}

static void case_point(trn_graph *graph)
{
    case_fold(graph, 1, (int64_t[]){1, 1, 1, 1}, (int64_t[]){1, 1, 1}, (int[]){1, 1, 1}, (int[]){0, 0, 0});
}

static void case_many_windows(trn_graph *graph)
{
    case_fold(graph, 1, (int64_t[]){1, 1, 257, 259}, (int64_t[]){1, 2, 2}, (int[]){1, 1, 1},
              (int[]){0, 0, 0});
}

static const trn_op_case cases[] = {
    {"2x2 stride 2", case_doubled, 0},
    {"7x7 stride 4 padding 3", case_overlap, 0},
    {"gaps between windows", case_unused, 0},
    {"volume", case_volume, 0},
    {"one value", case_point, 0},
    {"66048 windows", case_many_windows, 0},
};

const trn_op trn_op_fold = {
    .name = "fold",
    .gradient = gradient,
    .reference = reference,
    .lower = lower_fold,
    .describe = describe,
    .half = trn_half_takes_first,
    .cases = cases,
    .case_count = TRN_COUNT(cases),
};

trn_tensor *trn_fold(trn_graph *graph, trn_tensor *x, const trn_window *window)
{
    if (!trn_is_float(graph, x, "fold")) return NULL;
    const trn_window *w = window;
    char text[128];
    int64_t windows = (int64_t)w->out[0] * w->out[1] * w->out[2];
    int64_t columns = (int64_t)w->channels * w->kernel[0] * w->kernel[1] * w->kernel[2];
    trn_shape wanted = TRN_SHAPE(x->shape.dim[0], windows, columns);
    if (!trn_shape_equal(&x->shape, &wanted))
        return trn_graph_fail(graph, "fold: %s is not what the windows were made for",
                              trn_shape_text(&x->shape, text));
    trn_node *node = trn_node_add(graph, &trn_op_fold, &x, 1, TRN_F32,
                                  TRN_SHAPE(x->shape.dim[0], w->channels, w->in[0], w->in[1], w->in[2]));
    if (!node) return NULL;
    memcpy(node->attr, window, sizeof *window);
    return node->out;
}
