/* Normalisations made of other operators: l2_normalize, batch_norm_eval. */
#include "ops.h"

#include <float.h>

trn_tensor *trn_l2_normalize(trn_graph *graph, trn_tensor *x, float eps)
{
    if (!x) return NULL;
    /* the squares are held above eps^2, not the root above eps, so that a zero row has a finite gradient */
    float least = eps * eps > FLT_MIN ? eps * eps : FLT_MIN;
    trn_tensor *squares = trn_reduce(graph, trn_mul(graph, x, x), -1, TRN_REDUCE_SUM, true);
    trn_tensor *bounded =
        trn_max(graph, squares, trn_constant(graph, "l2_normalize.eps2", TRN_SHAPE(1), &least));
    return trn_div(graph, x, trn_unary(graph, "sqrt", bounded));
}

static trn_tensor *per_channel(trn_graph *graph, trn_tensor *values, const trn_tensor *x)
{
    trn_shape shape = {.ndim = x->shape.ndim - 1, .dim = {x->shape.dim[1], 1, 1, 1, 1, 1}};
    return values ? trn_reshape(graph, values, shape) : NULL;
}

trn_tensor *trn_batch_norm_eval(trn_graph *graph, trn_tensor *x, trn_tensor *mean, trn_tensor *var,
                                trn_tensor *w, trn_tensor *b, float eps)
{
    char text[128];
    if (!x || !mean || !var) return NULL;
    const trn_tensor *parts[4] = {mean, var, w, b};
    for (int i = 0; i < 4; i++) {
        if (parts[i] && (x->shape.ndim < 2 || parts[i]->count != x->shape.dim[1]))
            return trn_graph_fail(graph, "batch_norm_eval: statistics of %lld channels for an input of %s",
                                  (long long)parts[i]->count, trn_shape_text(&x->shape, text));
    }
    trn_tensor *spread = trn_unary(graph, "sqrt", trn_affine(graph, var, 1, eps)), *one = NULL;
    float unit = 1;
    if (!w) one = trn_constant(graph, "batch_norm.one", TRN_SHAPE(1), &unit);
    trn_tensor *scale = trn_div(graph, w ? w : one, spread);
    trn_tensor *y =
        trn_mul(graph, trn_sub(graph, x, per_channel(graph, mean, x)), per_channel(graph, scale, x));
    return b ? trn_add(graph, y, per_channel(graph, b, x)) : y;
}
