/* unfold: sliding windows of an image or a volume as rows, so that a convolution is a matrix product. */
#include "ops.h"

#include <string.h>

enum { PLANE = 64 }; /* kernels up to this size are written by one invocation per channel */

static const trn_window *window_of(const trn_node *node)
{
    return (const void *)node->attr;
}

bool trn_window_make(trn_graph *graph, const char *op, const int64_t channels_and_size[4],
                     const int64_t kernel[3], const int stride[3], const int padding[3], trn_window *window)
{
    static const char *const axes[3] = {"t", "y", "x"};
    *window = (trn_window){.channels = (int)channels_and_size[0]};
    for (int i = 0; i < 3; i++) {
        int64_t in = channels_and_size[i + 1], step = stride[i] ? stride[i] : 1;
        int64_t room = in + 2 * (int64_t)padding[i] - kernel[i];
        if (step < 0 || padding[i] < 0 || kernel[i] < 1 || room < 0 ||
            in + 2 * (int64_t)padding[i] > INT32_MAX) {
            trn_graph_fail(
                graph,
                "%s: a kernel of %lld with stride %d and padding %d does not fit %lld positions along %s", op,
                (long long)kernel[i], stride[i], padding[i], (long long)in, axes[i]);
            return false;
        }
        window->in[i] = (int)in;
        window->kernel[i] = (int)kernel[i];
        window->stride[i] = (int)step;
        window->padding[i] = padding[i];
        window->out[i] = (int)(room / step + 1);
    }
    int64_t windows = (int64_t)window->out[1] * window->out[2];
    if (windows <= INT32_MAX && windows * window->out[0] <= INT32_MAX) return true;
    trn_graph_fail(graph, "%s: %dx%dx%d windows are more than 2^31-1", op, window->out[0], window->out[1],
                   window->out[2]);
    return false;
}

void trn_window_describe(const trn_window *w, trn_text *out)
{
    trn_text_printf(out, "kernel %dx%dx%d, stride %dx%dx%d, padding %dx%dx%d, %dx%dx%d windows", w->kernel[0],
                    w->kernel[1], w->kernel[2], w->stride[0], w->stride[1], w->stride[2], w->padding[0],
                    w->padding[1], w->padding[2], w->out[0], w->out[1], w->out[2]);
}

void trn_window_scalars(trn_step *step, const trn_window *w)
{
    const int *groups[5] = {w->in, w->kernel, w->stride, w->padding, w->out};
    trn_step_uint(step, w->channels);
    for (int g = 0; g < 5; g++) {
        for (int i = 0; i < 3; i++)
            trn_step_uint(step, groups[g][i]);
    }
}

static void describe(const trn_node *node, trn_text *out)
{
    trn_window_describe(window_of(node), out);
}

static trn_tensor *gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    (void)which;
    return trn_fold(graph, dy, window_of(node));
}

/* One run of kernel[2] values of window `at` (flat over b and the windows), for channel c and kernel row kz,
 * ky. */
static void copy_run(const trn_window *w, const float *x, int64_t at, int64_t run, float *y)
{
    int64_t ky = run % w->kernel[1], kz = run / w->kernel[1] % w->kernel[0],
            c = run / w->kernel[1] / w->kernel[0];
    int64_t ox = at % w->out[2], oy = at / w->out[2] % w->out[1];
    int64_t oz = at / w->out[2] / w->out[1] % w->out[0], b = at / w->out[2] / w->out[1] / w->out[0];
    int64_t iz = oz * w->stride[0] + kz - w->padding[0], iy = oy * w->stride[1] + ky - w->padding[1];
    bool inside = iz >= 0 && iz < w->in[0] && iy >= 0 && iy < w->in[1];
    for (int64_t kx = 0; kx < w->kernel[2]; kx++) {
        int64_t ix = ox * w->stride[2] + kx - w->padding[2];
        bool here = inside && ix >= 0 && ix < w->in[2];
        y[kx] = here ? x[(((b * w->channels + c) * w->in[0] + iz) * w->in[1] + iy) * w->in[2] + ix] : 0.0f;
    }
}

static void reference(const trn_node *node, const void *const *inputs, void *out)
{
    const trn_window *w = window_of(node);
    int64_t runs = (int64_t)w->channels * w->kernel[0] * w->kernel[1],
            total = node->out->count / w->kernel[2];
    for (int64_t i = 0; i < total; i++)
        copy_run(w, inputs[0], i / runs, i % runs, (float *)out + i * w->kernel[2]);
}

static trn_status lower_unfold(trn_lower *lower, const trn_node *node, trn_error *err)
{
    const trn_window *w = window_of(node);
    bool planes = w->kernel[1] * (int64_t)w->kernel[2] <= PLANE;
    int64_t runs = node->out->count / (planes ? w->kernel[1] * w->kernel[2] : w->kernel[2]);
    trn_step step = {.shader = "unfold.comp"};
    if (w->kernel[2] > 60000)
        return trn_fail(err, TRN_ERR_UNSUPPORTED, "a kernel %d wide is too wide", w->kernel[2]);
    trn_step_read(&step, node->inputs[0]);
    trn_step_write(&step, node->out);
    trn_window_scalars(&step, w);
    trn_step_uint(&step, runs | (planes ? (int64_t)1 << 31 : 0));
    trn_step_divisors(
        &step, (int64_t[]){w->kernel[1], w->kernel[0], w->channels, w->out[2], w->out[1], w->out[0]}, 6);
    return trn_step_elements(lower, &step, runs, err);
}

static void case_unfold(trn_graph *graph, trn_shape shape, const int64_t *kernel, const int *stride,
                        const int *padding)
{
    trn_window window;
    if (!trn_window_make(graph, "unfold", shape.dim + 1, kernel, stride, padding, &window)) return;
    trn_tensor *x = trn_input(graph, "x", TRN_F32, shape);
    trn_output_add(graph, "y", trn_unfold(graph, x, &window));
}

static void case_patches(trn_graph *graph)
{
    case_unfold(graph, TRN_SHAPE(2, 3, 1, 32, 48), (int64_t[]){1, 16, 16}, (int[]){1, 16, 16},
                (int[]){0, 0, 0});
}

static void case_overlap(trn_graph *graph)
{
    case_unfold(graph, TRN_SHAPE(2, 3, 1, 23, 29), (int64_t[]){1, 7, 7}, (int[]){1, 4, 4}, (int[]){0, 3, 3});
}

static void case_same(trn_graph *graph)
{
    case_unfold(graph, TRN_SHAPE(1, 5, 1, 9, 11), (int64_t[]){1, 3, 3}, (int[]){1, 1, 1}, (int[]){0, 1, 1});
}

static void case_volume(trn_graph *graph)
{
    case_unfold(graph, TRN_SHAPE(2, 2, 5, 7, 6), (int64_t[]){2, 3, 1}, (int[]){2, 1, 3}, (int[]){1, 0, 2});
}

static void case_point(trn_graph *graph)
{
    case_unfold(graph, TRN_SHAPE(1, 1, 1, 1, 1), (int64_t[]){1, 1, 1}, (int[]){1, 1, 1}, (int[]){0, 0, 0});
}

static void case_many_windows(trn_graph *graph)
{
    case_unfold(graph, TRN_SHAPE(1, 1, 1, 257, 259), (int64_t[]){1, 2, 2}, (int[]){1, 1, 1},
                (int[]){0, 0, 0});
}

static const trn_op_case cases[] = {
    {"16x16 patches", case_patches, 0},
    {"7x7 stride 4 padding 3", case_overlap, 0},
    {"3x3", case_same, 0},
    {"volume", case_volume, 0},
    {"one value", case_point, 0},
    {"66048 windows", case_many_windows, 0},
};

const trn_op trn_op_unfold = {
    .name = "unfold",
    .gradient = gradient,
    .reference = reference,
    .lower = lower_unfold,
    .describe = describe,
    .half = trn_half_takes_first,
    .cases = cases,
    .case_count = TRN_COUNT(cases),
};

trn_tensor *trn_unfold(trn_graph *graph, trn_tensor *x, const trn_window *window)
{
    if (!trn_is_float(graph, x, "unfold")) return NULL;
    const trn_window *w = window;
    char text[128];
    trn_shape wanted = TRN_SHAPE(x->shape.dim[0], w->channels, w->in[0], w->in[1], w->in[2]);
    if (!trn_shape_equal(&x->shape, &wanted))
        return trn_graph_fail(graph, "unfold: %s is not what the windows were made for",
                              trn_shape_text(&x->shape, text));
    int64_t windows = (int64_t)w->out[0] * w->out[1] * w->out[2];
    int64_t columns = (int64_t)w->channels * w->kernel[0] * w->kernel[1] * w->kernel[2];
    trn_node *node =
        trn_node_add(graph, &trn_op_unfold, &x, 1, TRN_F32, TRN_SHAPE(x->shape.dim[0], windows, columns));
    if (!node) return NULL;
    memcpy(node->attr, window, sizeof *window);
    return node->out;
}
