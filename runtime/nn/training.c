/* What training adds to blocks: dropout, drop path, batch norm. */
#include "nn_private.h"

#include <string.h>

/* ---- chance ---- */

/* Every place of every network of a graph has random numbers of its own. */
static uint32_t stream_of(const trn_scope *scope, const char *name)
{
    const char *parts[] = {trn_graph_prefix_now(scope->graph), scope->prefix, name};
    uint64_t hash = TRN_FNV_SEED;
    for (size_t i = 0; i < TRN_COUNT(parts); i++)
        hash = trn_fnv1a64(parts[i], strlen(parts[i]), hash);
    return (uint32_t)(hash ^ hash >> 32);
}

static bool chance_fits(const trn_scope *scope, const char *name, const trn_tensor *x, float rate)
{
    char text[128];
    if (!x) return false;
    int64_t rows = trn_tensor_dim(x, 0), batch = trn_tensor_dim(scope->training->counters, 0);
    trn_graph_scope(scope->graph, scope->prefix);
    if (!(rate >= 0 && rate < 1)) {
        trn_graph_fail(scope->graph, "%s: a rate is at least 0 and below 1, not %g", name, (double)rate);
        return false;
    }
    if (batch >= 1 && rows % batch == 0) return true;
    trn_graph_fail(scope->graph, "%s: %s is not of the %lld samples that have counters", name,
                   trn_shape_text(trn_tensor_shape(x), text), (long long)batch);
    return false;
}

/* x where the number is at least the rate, 0 elsewhere; its mean over chance stays. */
static trn_tensor *drop(const trn_scope *scope, trn_tensor *x, trn_tensor *numbers, float rate)
{
    static const float nothing;
    trn_graph *graph = scope->graph;
    trn_tensor *operands[] = {trn_affine(graph, numbers, -1, rate),
                              trn_constant(graph, "dropped", TRN_SHAPE(1), &nothing),
                              trn_affine(graph, x, 1 / (1 - rate), 0)};
    return trn_pointwise(graph, "select", operands, 3, NULL, 0);
}

static trn_tensor *numbers_of(const trn_scope *scope, const char *name, int64_t each)
{
    const trn_training *training = scope->training;
    int64_t batch = trn_tensor_dim(training->counters, 0);
    return trn_random_uniform(scope->graph, training->counters, training->seed, stream_of(scope, name),
                              TRN_SHAPE(batch, each));
}

trn_tensor *trn_nn_dropout(const trn_scope *scope, const char *name, trn_tensor *x, float rate)
{
    if (!scope->training || rate == 0) return x;
    if (!chance_fits(scope, name, x, rate)) return NULL;
    const trn_shape *shape = trn_tensor_shape(x);
    int64_t batch = trn_tensor_dim(scope->training->counters, 0);
    trn_tensor *numbers = numbers_of(scope, name, trn_shape_count(shape) / batch);
    return drop(scope, x, trn_reshape(scope->graph, numbers, *shape), rate);
}

trn_tensor *trn_nn_drop_path(const trn_scope *scope, const char *name, trn_tensor *x, float rate)
{
    if (!scope->training || rate == 0) return x;
    if (!chance_fits(scope, name, x, rate)) return NULL;
    trn_graph *graph = scope->graph;
    int64_t rows = trn_tensor_dim(x, 0), batch = trn_tensor_dim(scope->training->counters, 0);
    trn_tensor *numbers = numbers_of(scope, name, 1);
    if (rows > batch) numbers = trn_expand(graph, numbers, TRN_SHAPE(batch, rows / batch));
    trn_shape shape = {.ndim = trn_tensor_shape(x)->ndim, .dim = {rows, 1, 1, 1, 1, 1}};
    return drop(scope, x, trn_reshape(graph, numbers, shape), rate);
}

trn_tensor *trn_nn_block_dropout(const trn_scope *scope, const char *name, trn_tensor *x)
{
    return scope->training ? trn_nn_dropout(scope, name, x, scope->training->dropout) : x;
}

float trn_drop_path_at(const trn_scope *scope, int64_t block, int64_t depth)
{
    if (!scope->training || depth < 2) return 0;
    return scope->training->drop_path * (float)block / (float)(depth - 1);
}

/* ---- batch norm ---- */

/* Mean over all but the channels: x [B,C,..] -> [C] */
static trn_tensor *channel_mean(trn_graph *graph, trn_tensor *x)
{
    if (!x) return NULL;
    int64_t batch = trn_tensor_dim(x, 0), channels = trn_tensor_dim(x, 1);
    int64_t places = trn_shape_count(trn_tensor_shape(x)) / (batch * channels);
    if (places > 1) {
        x = trn_reshape(graph, x, TRN_SHAPE(batch, channels, places));
        x = trn_reduce(graph, x, 2, TRN_REDUCE_MEAN, false);
    }
    x = trn_reshape(graph, x, TRN_SHAPE(batch, channels));
    return trn_reduce(graph, x, 0, TRN_REDUCE_MEAN, false);
}

/* values [C] as they meet x [B,C,..] */
static trn_tensor *beside(trn_graph *graph, trn_tensor *values, const trn_tensor *x)
{
    trn_shape shape = {.ndim = trn_tensor_shape(x)->ndim - 1, .dim = {trn_tensor_dim(x, 1), 1, 1, 1, 1, 1}};
    return trn_reshape(graph, values, shape);
}

typedef struct norm_parts {
    trn_tensor *mean, *variance; /* running ones [C] */
    trn_tensor *weight, *bias;   /* [C], or NULL */
    float eps, momentum;
} norm_parts;

/* running += momentum (now - running), now = factor * value */
static void move_towards(trn_graph *graph, trn_tensor *running, trn_tensor *value, float momentum,
                         float factor)
{
    trn_tensor *kept = trn_affine(graph, running, 1 - momentum, 0);
    trn_update(graph, running, trn_add(graph, kept, trn_affine(graph, value, momentum * factor, 0)));
}

static trn_tensor *by_batch(trn_graph *graph, trn_tensor *x, const norm_parts *parts)
{
    char text[128];
    const trn_shape *shape = trn_tensor_shape(x);
    int64_t values = trn_shape_count(shape) / shape->dim[1];
    if (values < 2)
        return trn_graph_fail(graph,
                              "batch_norm: to train, it needs more than one value of each channel, and "
                              "gets %s: train with batches of two samples or more, or fix the norms",
                              trn_shape_text(shape, text));
    trn_tensor *mean = channel_mean(graph, x);
    trn_tensor *centred = trn_sub(graph, x, beside(graph, mean, x));
    trn_tensor *variance = channel_mean(graph, trn_unary(graph, "square", centred));
    move_towards(graph, parts->mean, mean, parts->momentum, 1);
    move_towards(graph, parts->variance, variance, parts->momentum, (float)values / (float)(values - 1));
    trn_tensor *scale = trn_pointwise(graph, "rsqrt", &variance, 1, &parts->eps, 1);
    if (parts->weight) scale = trn_mul(graph, scale, parts->weight);
    trn_tensor *y = trn_mul(graph, centred, beside(graph, scale, x));
    return parts->bias ? trn_add(graph, y, beside(graph, parts->bias, x)) : y;
}

static trn_tensor *batch_norm(const trn_scope *scope, const char *name, trn_tensor *x, norm_parts *parts,
                              bool weights)
{
    char text[128];
    if (!x) return NULL;
    const trn_shape *shape = trn_tensor_shape(x);
    trn_scope inner = trn_scope_enter(scope, "%s", name);
    trn_graph_scope(scope->graph, inner.prefix);
    if (shape->ndim < 2)
        return trn_graph_fail(scope->graph, "batch_norm: it takes [B,C,..], not %s",
                              trn_shape_text(shape, text));
    trn_shape each = TRN_SHAPE(shape->dim[1]);
    bool trains = scope->training && !scope->training->fixed_norm;
    if (weights) {
        parts->weight = trn_scope_param(&inner, "weight", each);
        parts->bias = trn_scope_param(&inner, "bias", each);
    }
    parts->mean = trn_scope_state(&inner, "running_mean", each, trains);
    parts->variance = trn_scope_state(&inner, "running_var", each, trains);
    if (trains) return by_batch(scope->graph, x, parts);
    return trn_batch_norm_eval(scope->graph, x, parts->mean, parts->variance, parts->weight, parts->bias,
                               parts->eps);
}

trn_tensor *trn_nn_batch_norm(const trn_scope *scope, const char *name, trn_tensor *x, float eps,
                              float momentum)
{
    return batch_norm(scope, name, x, &(norm_parts){.eps = eps, .momentum = momentum}, true);
}

trn_tensor *trn_nn_batch_norm_plain(const trn_scope *scope, const char *name, trn_tensor *x, float eps,
                                    float momentum)
{
    return batch_norm(scope, name, x, &(norm_parts){.eps = eps, .momentum = momentum}, false);
}
