/* The linear probe: one layer trained by AdamW on features, once for each learning rate. */
#include "probe_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char WHO[] = "linear probe";
static const double DEFAULT_RATES[] = {3e-4, 1e-3, 3e-3, 1e-2, 3e-2};
enum {
    DEFAULT_EPOCHS = 100,
    DEFAULT_BATCH = 256,
    AVERAGED_EPOCHS = 5, /* about so many the average of the weights remembers */
};

/* What AdamW changes, by their names in the graph. */
static const char *const MATRICES[] = {"w", "adamw.m.w", "adamw.v.w", "average.w"};
static const char *const VECTORS[] = {"b", "adamw.m.b", "adamw.v.b", "average.b"};

typedef struct linear {
    const trn_linear_options *options;
    const trn_learn_hooks *hooks;
    const trn_probe_sets *given;
    learn_choice choice;
    learn_scaling scaling;
    trn_feature_set train, valid, test; /* scaled */
    trn_optimizer_desc optimizer;
    learn_graph net;
    learn_scorer scorer;
    size_t epochs, steps, batch; /* steps of an epoch */
    size_t channels, classes;
    size_t *order;
    float *x;
    void *y;      /* int32_t [batch], or float [batch, classes] of several labels */
    float *zeros; /* [classes, channels] */
    float *w, *b; /* now */
    float *best_w, *best_b;
    double best_loss; /* on validation */
} linear;

static void linear_close(linear *l)
{
    learn_choice_close(&l->choice);
    learn_scaling_close(&l->scaling);
    trn_feature_set_free(&l->train);
    trn_feature_set_free(&l->valid);
    trn_feature_set_free(&l->test);
    learn_graph_close(&l->net);
    learn_scorer_close(&l->scorer);
    free(l->order);
    free(l->x);
    free(l->y);
    free(l->zeros);
    free(l->w);
    free(l->b);
    free(l->best_w);
    free(l->best_b);
}

static size_t rate_count(const trn_linear_options *options)
{
    return options->rates ? options->rate_count : TRN_COUNT(DEFAULT_RATES);
}

static double rate_at(const trn_linear_options *options, size_t i)
{
    return options->rates ? options->rates[i] : DEFAULT_RATES[i];
}

static trn_status check_options(const trn_linear_options *options, trn_error *err)
{
    if (options->epochs < 0 || options->batch < 0)
        return trn_fail(err, TRN_ERR_ARGUMENT, "%s: epochs and batch may not be negative", WHO);
    if (!(options->weight_decay >= 0) || !isfinite(options->weight_decay))
        return trn_fail(err, TRN_ERR_ARGUMENT, "%s: weight decay %g, must be 0 or more", WHO,
                        options->weight_decay);
    if (!rate_count(options))
        return trn_fail(err, TRN_ERR_ARGUMENT, "%s: there is no learning rate to try", WHO);
    for (size_t i = 0; i < rate_count(options); i++)
        if (!(rate_at(options, i) > 0) || !isfinite(rate_at(options, i)))
            return trn_fail(err, TRN_ERR_ARGUMENT, "%s: a learning rate of %g, must be above 0", WHO,
                            rate_at(options, i));
    return TRN_OK;
}

/* ---- preparing ---- */

static trn_status compile(trn_gpu *gpu, linear *l, trn_error *err)
{
    trn_graph *graph = l->net.graph = trn_graph_create();
    if (!graph) return trn_fail_memory(err, 0, "a graph");
    int64_t batch = (int64_t)l->batch, channels = (int64_t)l->channels, classes = (int64_t)l->classes;
    bool many = learn_is_multilabel(l->given);
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(batch, channels));
    trn_tensor *y = many ? trn_input(graph, "y", TRN_F32, TRN_SHAPE(batch, classes))
                         : trn_input(graph, "y", TRN_I32, TRN_SHAPE(batch));
    trn_tensor *wrt[2] = {trn_state(graph, "w", TRN_SHAPE(classes, channels), NULL, NULL),
                          trn_state(graph, "b", TRN_SHAPE(classes), NULL, NULL)};
    trn_tensor *gradients[2], *logits = trn_linear(graph, x, wrt[0], wrt[1]);
    trn_class_loss_desc desc = {.ignored = -1};
    trn_tensor *loss =
        many ? trn_loss_binary(graph, logits, y, NULL) : trn_loss_cross_entropy(graph, logits, y, &desc);
    trn_output_add(graph, "loss", loss);
    trn_status status = trn_gradients(graph, loss, NULL, wrt, 2, gradients, err);
    if (status != TRN_OK) return status;
    trn_learner learners[2] = {{"w", wrt[0], gradients[0]}, {"b", wrt[1], gradients[1]}};
    status = trn_optimizer_add(graph, &l->optimizer, learners, 2, err);
    return status == TRN_OK ? trn_compile(graph, gpu, NULL, &l->net.exec, err) : status;
}

static trn_status allocate(linear *l, trn_error *err)
{
    size_t matrix = l->classes * l->channels;
    l->order = malloc(l->train.count * sizeof *l->order);
    l->x = malloc(l->batch * l->channels * sizeof *l->x);
    l->y = malloc(l->batch * l->classes * sizeof(float));
    l->zeros = calloc(matrix, sizeof *l->zeros);
    l->w = malloc(matrix * sizeof *l->w);
    l->best_w = calloc(matrix, sizeof *l->best_w);
    l->b = malloc(l->classes * sizeof *l->b);
    l->best_b = calloc(l->classes, sizeof *l->best_b);
    if (l->order && l->x && l->y && l->zeros && l->w && l->best_w && l->b && l->best_b) return TRN_OK;
    return trn_fail_memory(err, (3 * matrix + l->batch * l->channels) * sizeof(float), WHO);
}

static trn_status linear_open(trn_gpu *gpu, linear *l, trn_error *err)
{
    const trn_linear_options *options = l->options;
    trn_status status = learn_choice_open(l->given, &l->choice, err);
    if (status == TRN_OK)
        status = learn_scaling_open(l->choice.sets.train, options->batch_norm, options->batch_norm,
                                    &l->scaling, err);
    if (status == TRN_OK) status = learn_scaled(l->choice.sets.train, &l->scaling, &l->train, err);
    if (status == TRN_OK) status = learn_scaled(l->choice.sets.valid, &l->scaling, &l->valid, err);
    if (status == TRN_OK) status = learn_scaled(l->given->test, &l->scaling, &l->test, err);
    if (status != TRN_OK) return status;
    l->channels = (size_t)l->train.channels;
    l->classes = (size_t)l->given->classes;
    l->epochs = options->epochs ? (size_t)options->epochs : DEFAULT_EPOCHS;
    /* batches of equal size, of which the last one begins the order again for the few it lacks */
    size_t most = options->batch ? (size_t)options->batch : DEFAULT_BATCH;
    l->steps = (l->train.count + most - 1) / most;
    l->batch = (l->train.count + l->steps - 1) / l->steps;
    l->optimizer = (trn_optimizer_desc){.kind = TRN_ADAMW,
                                        .beta1 = 0.9,
                                        .beta2 = 0.999,
                                        .eps = 1e-8,
                                        .weight_decay = options->weight_decay,
                                        .average = 1 - 1.0 / (double)(AVERAGED_EPOCHS * l->steps)};
    status = allocate(l, err);
    if (status == TRN_OK) status = compile(gpu, l, err);
    if (status != TRN_OK) return status;
    return learn_scorer_open(gpu, TRN_MAX(l->valid.count, l->test.count), l->train.channels,
                             l->given->classes, &l->scorer, err);
}

/* ---- training ---- */

/* Zeros: the loss is convex, so that no better beginning is known. */
static trn_status begin(linear *l, trn_error *err)
{
    trn_status status = TRN_OK;
    for (size_t i = 0; status == TRN_OK && i < TRN_COUNT(MATRICES); i++) {
        status = trn_exec_set(l->net.exec, MATRICES[i], l->zeros, err);
        if (status == TRN_OK) status = trn_exec_set(l->net.exec, VECTORS[i], l->zeros, err);
    }
    return status;
}

static void fill_batch(linear *l, size_t first)
{
    bool many = learn_is_multilabel(l->given);
    for (size_t i = 0; i < l->batch; i++) {
        size_t sample = l->order[(first + i) % l->train.count];
        memcpy(l->x + i * l->channels, l->train.values + sample * l->channels, l->channels * sizeof *l->x);
        const int32_t *labels = l->train.labels + sample * l->train.label_count;
        if (many)
            learn_targets(labels, l->classes, (float *)l->y + i * l->classes);
        else
            ((int32_t *)l->y)[i] = labels[0];
    }
}

static trn_status step(linear *l, size_t at, const trn_schedule *schedule, double *loss, trn_error *err)
{
    float now[TRN_STEP_NOW], value = 0;
    trn_exec *exec = l->net.exec;
    trn_optimizer_now(&l->optimizer, (int64_t)at, 0, trn_schedule_at(schedule, (int64_t)at), now);
    fill_batch(l, at % l->steps * l->batch);
    trn_status status = trn_exec_set(exec, TRN_OPTIMIZER_INPUT, now, err);
    if (status == TRN_OK) status = trn_exec_set(exec, "x", l->x, err);
    if (status == TRN_OK) status = trn_exec_set(exec, "y", l->y, err);
    if (status == TRN_OK) status = trn_exec_run(exec, NULL, err);
    if (status == TRN_OK) status = trn_exec_get(exec, "loss", &value, err);
    *loss += value / (double)l->steps;
    return status;
}

/* Of the averaged weights, since those of one step are noisy while the rate is high, and with them what is
 * chosen. By the loss: a hundred epochs of five rates have accuracies that differ by chance, and the highest
 * one would often be of a model that has learned its samples by heart. */
static trn_status judge(linear *l, trn_probe_scores *now, trn_probe_scores *best, trn_error *err)
{
    double loss = INFINITY;
    trn_status status = trn_exec_get(l->net.exec, "average.w", l->w, err);
    if (status == TRN_OK) status = trn_exec_get(l->net.exec, "average.b", l->b, err);
    if (status == TRN_OK) status = learn_scorer_set(&l->scorer, l->w, l->b, err);
    if (status == TRN_OK)
        status =
            learn_scorer_score(&l->scorer, l->given, &l->valid, &now->valid, &now->valid_labels, &loss, err);
    if (status != TRN_OK || !(loss < l->best_loss)) return status;
    l->best_loss = loss;
    *best = *now;
    memcpy(l->best_w, l->w, l->classes * l->channels * sizeof *l->w);
    memcpy(l->best_b, l->b, l->classes * sizeof *l->b);
    return TRN_OK;
}

static trn_status train_epoch(linear *l, size_t epoch, const trn_schedule *schedule, trn_probe_scores *now,
                              trn_error *err)
{
    if (trn_progress_cancelled(learn_progress(l->hooks))) return trn_fail_cancelled(err, WHO);
    trn_data_shuffle(l->options->seed, epoch, l->train.count, l->order);
    now->train_loss = 0;
    trn_status status = TRN_OK;
    for (size_t s = 0; status == TRN_OK && s < l->steps; s++)
        status = step(l, epoch * l->steps + s, schedule, &now->train_loss, err);
    now->iterations = (int)epoch + 1;
    return status;
}

/* A rate that is too high ends when its loss is no number any more. */
static trn_status train(linear *l, double rate, trn_probe_scores *best, trn_error *err)
{
    trn_schedule schedule = {
        .kind = TRN_SCHEDULE_COSINE, .base = rate, .steps = (int64_t)(l->epochs * l->steps)};
    trn_probe_scores now = {.parameter = rate, .converged = true};
    double before = l->best_loss;
    trn_status status = begin(l, err);
    for (size_t epoch = 0; status == TRN_OK && epoch < l->epochs; epoch++) {
        status = train_epoch(l, epoch, &schedule, &now, err);
        if (status == TRN_OK && !isfinite(now.train_loss)) {
            learn_note(l->hooks, TRN_LOG_WARN, "%s: at a learning rate of %g the loss is not finite", WHO,
                       rate);
            return TRN_OK;
        }
        if (status == TRN_OK) status = judge(l, &now, best, err);
    }
    if (status == TRN_OK)
        learn_note(l->hooks, TRN_LOG_DEBUG, "%s: learning rate %g ends with loss %.4f%s", WHO, rate,
                   now.train_loss, l->best_loss < before ? ", the best so far" : "");
    return status;
}

static trn_status run(linear *l, trn_probe_scores *out, trn_error *err)
{
    l->best_loss = INFINITY;
    trn_status status = TRN_OK;
    for (size_t i = 0; status == TRN_OK && i < rate_count(l->options); i++) {
        trn_progress_report(learn_progress(l->hooks), WHO, i, rate_count(l->options));
        status = train(l, rate_at(l->options, i), out, err);
    }
    if (status != TRN_OK) return status;
    if (!isfinite(l->best_loss))
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "%s: the loss is not finite at any learning rate; set batch_norm, which scales the "
                        "features, or smaller rates",
                        WHO);
    status = learn_scorer_set(&l->scorer, l->best_w, l->best_b, err);
    if (status != TRN_OK) return status;
    return learn_scorer_score(&l->scorer, l->given, &l->test, &out->test, &out->test_labels, NULL, err);
}

trn_status trn_probe_linear(trn_gpu *gpu, const trn_probe_sets *sets, const trn_linear_options *options,
                            const trn_learn_hooks *hooks, trn_probe_scores *out, trn_error *err)
{
    uint64_t begun = trn_now_ns();
    *out = (trn_probe_scores){0};
    trn_status status = learn_check_sets(sets, true, WHO, err);
    if (status == TRN_OK) status = check_options(options, err);
    if (status != TRN_OK) return status;
    linear l = {.options = options, .hooks = hooks, .given = sets};
    status = linear_open(gpu, &l, err);
    if (status == TRN_OK) status = run(&l, out, err);
    linear_close(&l);
    out->seconds = (double)(trn_now_ns() - begun) / 1e9;
    return status;
}
