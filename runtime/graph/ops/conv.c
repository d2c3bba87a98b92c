/* Convolutions, made of unfold and linear (transposed: matmul and fold). No operator of their own. */
#include "ops.h"

/* x and w as volumes, and the windows; false after failing the graph. */
static bool prepare(trn_graph *graph, const char *op, trn_tensor **x, trn_tensor *w, int spatial,
                    const trn_conv_desc *desc, trn_window *window)
{
    char a[128], b[128];
    if (!*x || !w) return false;
    trn_shape xs = (*x)->shape;
    if (xs.ndim != spatial + 2 || w->shape.ndim != spatial + 2 || w->shape.dim[1] != xs.dim[1]) {
        trn_graph_fail(graph, "%s: weights %s do not fit an input of %s", op, trn_shape_text(&w->shape, a),
                       trn_shape_text(&xs, b));
        return false;
    }
    trn_conv_desc d = *desc;
    int64_t size[4] = {xs.dim[1], 1, xs.dim[spatial], xs.dim[spatial + 1]};
    int64_t kernel[3] = {1, w->shape.dim[spatial], w->shape.dim[spatial + 1]};
    if (spatial == 3) {
        size[1] = xs.dim[2];
        kernel[0] = w->shape.dim[2];
    } else {
        d.stride[0] = 1;
        d.padding[0] = 0;
    }
    if (!trn_window_make(graph, op, size, kernel, d.stride, d.padding, window)) return false;
    *x = trn_reshape(graph, *x, TRN_SHAPE(xs.dim[0], size[0], size[1], size[2], size[3]));
    return *x != NULL;
}

/* Windows of one position each: the image itself, with the channels last. */
static bool is_pointwise(const trn_window *w)
{
    bool same = true;
    for (int i = 0; i < 3; i++)
        same = same && w->kernel[i] == 1 && w->stride[i] == 1 && w->padding[i] == 0;
    return same;
}

static trn_tensor *pixels(trn_graph *graph, trn_tensor *x)
{
    trn_tensor *rows = trn_reshape(graph, x, TRN_SHAPE(x->shape.dim[0], x->shape.dim[1], -1));
    return trn_permute(graph, rows, (int[]){0, 2, 1});
}

/* -> [B, windows, O] */
static trn_tensor *tokens(trn_graph *graph, const char *op, trn_tensor *x, trn_tensor *w, trn_tensor *b,
                          int spatial, const trn_conv_desc *desc, trn_window *window)
{
    char text[128];
    if (!prepare(graph, op, &x, w, spatial, desc, window)) return NULL;
    if (b && b->count != w->shape.dim[0])
        return trn_graph_fail(graph, "%s: a bias of %lld values for weights %s", op, (long long)b->count,
                              trn_shape_text(&w->shape, text));
    trn_tensor *columns = is_pointwise(window) ? pixels(graph, x) : trn_unfold(graph, x, window);
    return trn_linear(graph, columns, trn_reshape(graph, w, TRN_SHAPE(w->shape.dim[0], -1)), b);
}

static trn_tensor *channels_first(trn_graph *graph, trn_tensor *y)
{
    return trn_permute(graph, y, (int[]){0, 2, 1});
}

trn_tensor *trn_conv2d(trn_graph *graph, trn_tensor *x, trn_tensor *w, trn_tensor *b,
                       const trn_conv_desc *desc)
{
    trn_window win;
    trn_tensor *y = channels_first(graph, tokens(graph, "conv2d", x, w, b, 2, desc, &win));
    if (!y) return NULL;
    return trn_reshape(graph, y, TRN_SHAPE(y->shape.dim[0], y->shape.dim[1], win.out[1], win.out[2]));
}

trn_tensor *trn_conv3d(trn_graph *graph, trn_tensor *x, trn_tensor *w, trn_tensor *b,
                       const trn_conv_desc *desc)
{
    trn_window win;
    trn_tensor *y = channels_first(graph, tokens(graph, "conv3d", x, w, b, 3, desc, &win));
    if (!y) return NULL;
    return trn_reshape(graph, y,
                       TRN_SHAPE(y->shape.dim[0], y->shape.dim[1], win.out[0], win.out[1], win.out[2]));
}

trn_tensor *trn_conv_tokens(trn_graph *graph, trn_tensor *x, trn_tensor *w, trn_tensor *b,
                            const trn_conv_desc *desc)
{
    trn_window win;
    return tokens(graph, "conv_tokens", x, w, b, x && x->shape.ndim == 5 ? 3 : 2, desc, &win);
}

/* The windows of the image that comes out: its positions along an axis are (in - 1) * stride + kernel - 2 *
 * padding. */
static bool transpose_window(trn_graph *graph, const trn_tensor *x, const trn_tensor *w,
                             const trn_conv_desc *desc, trn_window *window)
{
    char a[128], b[128];
    if (x->shape.ndim != 4 || w->shape.ndim != 4 || w->shape.dim[0] != x->shape.dim[1]) {
        trn_graph_fail(graph, "conv_transpose2d: weights %s do not fit an input of %s",
                       trn_shape_text(&w->shape, a), trn_shape_text(&x->shape, b));
        return false;
    }
    int64_t size[4] = {w->shape.dim[1], 1, 0, 0}, kernel[3] = {1, w->shape.dim[2], w->shape.dim[3]};
    int stride[3] = {1, desc->stride[1], desc->stride[2]},
        padding[3] = {0, desc->padding[1], desc->padding[2]};
    for (int i = 1; i < 3; i++) {
        size[i + 1] =
            (x->shape.dim[i + 1] - 1) * (stride[i] ? stride[i] : 1) + kernel[i] - 2 * (int64_t)padding[i];
        if (size[i + 1] >= 1 && size[i + 1] <= INT32_MAX && padding[i] >= 0 && stride[i] >= 0) continue;
        trn_graph_fail(graph, "conv_transpose2d: stride %d and padding %d leave nothing of %s", stride[i],
                       padding[i], trn_shape_text(&x->shape, a));
        return false;
    }
    return trn_window_make(graph, "conv_transpose2d", size, kernel, stride, padding, window);
}

trn_tensor *trn_conv_transpose2d(trn_graph *graph, trn_tensor *x, trn_tensor *w, trn_tensor *b,
                                 const trn_conv_desc *desc)
{
    trn_window win;
    if (!x || !w || !transpose_window(graph, x, w, desc, &win)) return NULL;
    int64_t batch = x->shape.dim[0], in = x->shape.dim[1], out = w->shape.dim[1];
    if (b && b->count != out)
        return trn_graph_fail(graph, "conv_transpose2d: a bias of %lld values for %lld channels",
                              (long long)b->count, (long long)out);
    trn_tensor *rows = trn_permute(graph, trn_reshape(graph, x, TRN_SHAPE(batch, in, -1)), (int[]){0, 2, 1});
    trn_tensor *matrix = trn_reshape(graph, w, TRN_SHAPE(in, -1));
    trn_tensor *y = trn_fold(graph, trn_matmul(graph, rows, matrix, false, false), &win);
    y = trn_reshape(graph, y, TRN_SHAPE(batch, out, win.in[1], win.in[2]));
    return b ? trn_add(graph, y, trn_reshape(graph, b, TRN_SHAPE(out, 1, 1))) : y;
}
