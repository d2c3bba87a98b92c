/* Optimisers: what learns, its gradients, and the step that each parameter takes when a run is over. */
#include "nn.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- rules for single parameters ---- */

/* Number of the layer that a part of a name begins with ("blocks.3."), or -1. */
static long layer_at(const char *part)
{
    bool numbered = trn_starts_with(part, "blocks.") || trn_starts_with(part, "layers.");
    return numbered && isdigit((unsigned char)part[7]) ? strtol(part + 7, NULL, 10) : -1;
}

/* Whether a part of a name is of what comes before the first block. */
static bool is_below_blocks(const char *part, size_t length)
{
    static const char *const words[] = {"embed", "cls_token", "reg_token", "register_tokens"};
    for (size_t i = 0; i < TRN_COUNT(words); i++) {
        const char *found = strstr(part, words[i]);
        if (found && found < part + length) return true;
    }
    return false;
}

/* The first part that tells decides: generators of patch embeddings have layers of their own. */
int trn_layer_of(const char *name, int depth)
{
    for (const char *part = name;; part++) {
        size_t length = strcspn(part, ".");
        long layer = layer_at(part);
        if (layer >= 0) return (int)TRN_MIN(layer, (long)depth) + 1;
        if (is_below_blocks(part, length)) return 0;
        part += length;
        if (!*part) return depth + 1;
    }
}

double trn_layer_scale(double factor, int layer, int depth)
{
    return pow(factor, depth + 1 - layer);
}

static bool decays_by_default(const char *name, const trn_shape *shape)
{
    static const char *const free_of_it[] = {"pos_embed", "cls_token", "reg_token", "register_tokens",
                                             "mask_token"};
    int wide = 0; /* axes that are more than one long: [1,1,C] is a vector too */
    for (int i = 0; i < shape->ndim; i++)
        wide += shape->dim[i] > 1;
    for (size_t i = 0; i < TRN_COUNT(free_of_it); i++) {
        if (strstr(name, free_of_it[i])) return false;
    }
    return wide > 1;
}

/* ---- building ---- */

/* Pairs of sums, so that the error grows with the logarithm of their number. */
static trn_tensor *sum_squares(trn_graph *graph, trn_tensor *const *grads, int count)
{
    if (count > 1) {
        trn_tensor *left = sum_squares(graph, grads, count / 2);
        return trn_add(graph, left, sum_squares(graph, grads + count / 2, count - count / 2));
    }
    trn_tensor *flat = trn_reshape(graph, grads[0], TRN_SHAPE(-1));
    return trn_reduce(graph, flat, 0, TRN_REDUCE_SUM_SQUARES, true);
}

trn_tensor *trn_gradient_norm(trn_graph *graph, trn_tensor *const *grads, int count)
{
    if (count < 1) return trn_graph_fail(graph, "gradient norm: there is no gradient");
    return trn_unary(graph, "sqrt", sum_squares(graph, grads, count));
}

/* A state of the shape of the weights, that can be read and set by "<prefix><name>". */
static trn_tensor *memory(trn_graph *graph, const char *prefix, const char *name, const trn_tensor *weights)
{
    char full[320];
    int n = snprintf(full, sizeof full, "%s%s", prefix, name);
    if (n < 0 || (size_t)n >= sizeof full)
        return trn_graph_fail(graph, "the name of parameter '%s' is too long", name);
    trn_tensor *state = trn_state(graph, full, *trn_tensor_shape(weights), NULL, NULL);
    trn_output_add(graph, full, state);
    return state;
}

static int runs_of(const trn_optimizer_desc *d)
{
    return d->accumulate ? d->accumulate : 1;
}

static bool is_fraction(double value)
{
    return value >= 0 && value < 1;
}

static bool desc_fits(trn_graph *graph, const trn_optimizer_desc *d)
{
    bool adamw = d->kind == TRN_ADAMW, fits = false;
    if (adamw && !(is_fraction(d->beta1) && is_fraction(d->beta2)))
        trn_graph_fail(graph, "optimizer: the betas %g and %g are not in [0, 1)", d->beta1, d->beta2);
    else if (adamw && !(d->eps > 0))
        trn_graph_fail(graph, "optimizer: eps is %g; it is positive", d->eps);
    else if (!adamw && !is_fraction(d->momentum))
        trn_graph_fail(graph, "optimizer: the momentum %g is not in [0, 1)", d->momentum);
    else if (!(d->weight_decay >= 0) || !(d->max_norm >= 0))
        trn_graph_fail(graph, "optimizer: the weight decay %g or the largest norm %g is negative",
                       d->weight_decay, d->max_norm);
    else if (!is_fraction(d->average))
        trn_graph_fail(graph, "optimizer: the share %g that the average keeps is not in [0, 1)", d->average);
    else if (d->accumulate < 0)
        trn_graph_fail(graph, "optimizer: a step cannot accumulate the gradients of %d runs", d->accumulate);
    else
        fits = true;
    return fits;
}

/* One learner's step: accumulated is NULL when each run ends one. */
static void add_step(trn_graph *graph, const trn_optimizer_desc *d, const trn_learner *learner,
                     trn_tensor *accumulated, trn_tensor *now, trn_tensor *norm)
{
    const char *name = learner->name;
    trn_tensor *w = learner->weights;
    const trn_shape *shape = trn_tensor_shape(w);
    bool adamw = d->kind == TRN_ADAMW;
    trn_learning_rule rule = {1, decays_by_default(name, shape) ? d->weight_decay : 0};
    if (d->rule) d->rule(d->user, name, shape, &rule);
    trn_weights_update update = {
        .rule = adamw ? TRN_STEP_ADAMW : TRN_STEP_SGD,
        .weights = w,
        .accumulated = accumulated,
        .gradient = learner->gradient,
        .now = now,
        .norm = norm,
        .lr_scale = rule.lr_scale,
        .decay = rule.weight_decay,
        .beta1 = adamw ? d->beta1 : d->momentum,
        .beta2 = d->beta2,
        .eps = d->eps,
        .max_norm = d->max_norm,
        .average_keeps = d->average,
        .coupled = d->coupled_decay,
        .nesterov = d->nesterov,
    };
    if (adamw) {
        update.first = memory(graph, "adamw.m.", name, w);
        update.second = memory(graph, "adamw.v.", name, w);
    } else if (d->momentum > 0) {
        update.first = memory(graph, "sgd.momentum.", name, w);
    }
    if (d->average > 0) update.average = memory(graph, "average.", name, w);
    trn_output_add(graph, name, w);
    trn_update_weights(graph, &update);
}

/* The norm of what the steps take: totals[i] [count] is the gradient, or its sum with what was accumulated,
 * of learner i; NULL where there is none. */
static trn_tensor *norm_of(trn_graph *graph, trn_tensor *const *totals, int count, trn_tensor *now)
{
    trn_tensor **there = calloc((size_t)count, sizeof(trn_tensor *)), *norm = NULL;
    int n = 0;
    if (!there) return trn_graph_fail(graph, "optimizer: out of memory");
    for (int i = 0; i < count; i++) {
        if (totals[i]) there[n++] = totals[i];
    }
    norm = trn_mul(graph, trn_gradient_norm(graph, there, n), trn_slice(graph, now, 0, TRN_STEP_NOW - 1, 1));
    trn_output_add(graph, TRN_GRADIENT_NORM, norm);
    free(there);
    return norm;
}

trn_status trn_optimizer_add(trn_graph *graph, const trn_optimizer_desc *desc, const trn_learner *learners,
                             int count, trn_error *err)
{
    if (!desc_fits(graph, desc)) return trn_graph_status(graph, err);
    if (count < 1) return trn_fail(err, TRN_ERR_ARGUMENT, "optimizer: nothing learns");
    trn_tensor **totals = calloc(2 * (size_t)count, sizeof(trn_tensor *));
    if (!totals) return trn_fail_memory(err, 2 * (size_t)count * sizeof(trn_tensor *), "an optimizer");
    trn_tensor **accumulated = totals + count;
    trn_tensor *now = trn_input(graph, TRN_OPTIMIZER_INPUT, TRN_F32, TRN_SHAPE(TRN_STEP_NOW));
    for (int i = 0; i < count; i++) {
        const trn_learner *learner = &learners[i];
        totals[i] = learner->gradient;
        if (!learner->gradient || runs_of(desc) == 1) continue;
        accumulated[i] = memory(graph, "accumulated.", learner->name, learner->weights);
        totals[i] = trn_add(graph, accumulated[i], learner->gradient);
    }
    trn_tensor *norm = norm_of(graph, totals, count, now);
    for (int i = 0; i < count; i++) {
        if (learners[i].gradient) add_step(graph, desc, &learners[i], accumulated[i], now, norm);
    }
    free(totals);
    return trn_graph_status(graph, err);
}

trn_status trn_optimizer_minimize(trn_graph *graph, trn_tensor *loss, const trn_optimizer_desc *desc,
                                  trn_error *err)
{
    int count = 0;
    while (trn_graph_learning(graph, (size_t)count, NULL))
        count++;
    trn_learner *learners = calloc((size_t)count + 1, sizeof *learners);
    trn_tensor **tensors = calloc(2 * (size_t)count + 1, sizeof(trn_tensor *));
    trn_status status = TRN_OK;
    if (!learners || !tensors) {
        status = trn_fail_memory(err, (size_t)count * sizeof *learners, "an optimizer");
        goto done;
    }
    for (int i = 0; i < count; i++)
        tensors[i] = learners[i].weights = trn_graph_learning(graph, (size_t)i, &learners[i].name);
    status = trn_gradients(graph, loss, NULL, tensors, count, tensors + count, err);
    for (int i = 0; status == TRN_OK && i < count; i++)
        learners[i].gradient = tensors[count + i];
    if (status == TRN_OK) status = trn_optimizer_add(graph, desc, learners, count, err);
done:
    free(learners);
    free(tensors);
    return status;
}

void trn_optimizer_now(const trn_optimizer_desc *desc, int64_t step, int run, double lr,
                       float out[TRN_STEP_NOW])
{
    bool adamw = desc->kind == TRN_ADAMW;
    out[0] = (float)lr;
    out[1] = adamw ? (float)(1 / (1 - pow(desc->beta1, (double)step + 1))) : 1;
    out[2] = adamw ? (float)(1 / sqrt(1 - pow(desc->beta2, (double)step + 1))) : 1;
    out[3] = step == 0;
    out[4] = run == runs_of(desc) - 1;
    out[5] = (float)(1.0 / runs_of(desc));
}
