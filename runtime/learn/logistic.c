/* Logistic regression: the loss of all samples and its gradient on the device, the search on the host. */
#include "probe_private.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char WHO[] = "logistic regression";
static const double DEFAULT_TOLERANCE = 1e-6, NOISE = 1e-6;
enum {
    DEFAULT_ITERATIONS = 200,
    FINAL_FACTOR = 10, /* by how much further the fit with the chosen C may go */
    DEFAULT_GRID = 19, /* 1e-6, 10^-5.5, .. 1e3 */
    RUN_FLOATS = 1 << 24,
};

/* ---- the objective ---- */

/* Samples go to the device in runs of equal length and a shorter last one; what fits into one run is sent
 * once. */
typedef struct row_loss {
    learn_graph net;
    size_t rows, loaded; /* the first sample that is on the device; SIZE_MAX: none */
} row_loss;

typedef struct objective {
    const trn_probe_sets *sets;
    const trn_feature_set *set;
    const trn_learn_hooks *hooks;
    size_t rows, channels, classes;
    row_loss full, rest;
    double strength; /* 1 / C */
    float *weights, *bias, *weights_gradient, *bias_gradient;
    float *targets; /* [rows, classes] of several labels */
} objective;

static void objective_close(objective *o)
{
    learn_graph_close(&o->full.net);
    learn_graph_close(&o->rest.net);
    free(o->weights);
    free(o->bias);
    free(o->weights_gradient);
    free(o->bias_gradient);
    free(o->targets);
}

static trn_status compile(trn_gpu *gpu, const objective *o, size_t rows, row_loss *out, trn_error *err)
{
    out->rows = rows;
    out->loaded = SIZE_MAX;
    trn_graph *graph = out->net.graph = trn_graph_create();
    if (!graph) return trn_fail_memory(err, 0, "a graph");
    int64_t n = (int64_t)rows, channels = (int64_t)o->channels, classes = (int64_t)o->classes;
    bool many = learn_is_multilabel(o->sets);
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(n, channels));
    trn_tensor *y = many ? trn_input(graph, "y", TRN_F32, TRN_SHAPE(n, classes))
                         : trn_input(graph, "y", TRN_I32, TRN_SHAPE(n));
    trn_tensor *wrt[2] = {trn_input(graph, "w", TRN_F32, TRN_SHAPE(classes, channels)),
                          trn_input(graph, "b", TRN_F32, TRN_SHAPE(classes))};
    trn_tensor *gradients[2], *logits = trn_linear(graph, x, wrt[0], wrt[1]);
    trn_class_loss_desc desc = {.ignored = -1};
    trn_tensor *loss =
        many ? trn_loss_binary(graph, logits, y, NULL) : trn_loss_cross_entropy(graph, logits, y, &desc);
    trn_status status = trn_gradients(graph, loss, NULL, wrt, 2, gradients, err);
    if (status != TRN_OK) return status;
    trn_output_add(graph, "loss", loss);
    trn_output_add(graph, "dw", gradients[0]);
    trn_output_add(graph, "db", gradients[1]);
    return trn_compile(graph, gpu, NULL, &out->net.exec, err);
}

static trn_status objective_open(trn_gpu *gpu, const trn_probe_sets *sets, const trn_feature_set *set,
                                 const trn_learn_hooks *hooks, objective *o, trn_error *err)
{
    size_t channels = (size_t)set->channels, classes = (size_t)sets->classes,
           rows = TRN_MIN(set->count, TRN_MAX(RUN_FLOATS / channels, 1));
    *o = (objective){
        .sets = sets, .set = set, .hooks = hooks, .rows = rows, .channels = channels, .classes = classes};
    o->weights = malloc(classes * channels * sizeof *o->weights);
    o->weights_gradient = malloc(classes * channels * sizeof *o->weights);
    o->bias = malloc(classes * sizeof *o->bias);
    o->bias_gradient = malloc(classes * sizeof *o->bias);
    o->targets = malloc(rows * classes * sizeof *o->targets);
    if (!o->weights || !o->weights_gradient || !o->bias || !o->bias_gradient || !o->targets) {
        objective_close(o);
        return trn_fail_memory(err, (rows + channels) * classes * sizeof(float), "gradients");
    }
    trn_status status = compile(gpu, o, rows, &o->full, err);
    if (status == TRN_OK && set->count % rows) status = compile(gpu, o, set->count % rows, &o->rest, err);
    if (status != TRN_OK) objective_close(o);
    return status;
}

static trn_status load(objective *o, row_loss *run, size_t first, trn_error *err)
{
    if (run->loaded == first) return TRN_OK;
    const int32_t *labels = o->set->labels + first * o->set->label_count;
    const void *y = labels;
    if (learn_is_multilabel(o->sets)) {
        learn_targets(labels, run->rows * o->classes, o->targets);
        y = o->targets;
    }
    run->loaded = SIZE_MAX;
    trn_status status = trn_exec_set(run->net.exec, "x", o->set->values + first * o->channels, err);
    if (status == TRN_OK) status = trn_exec_set(run->net.exec, "y", y, err);
    if (status == TRN_OK) run->loaded = first;
    return status;
}

/* Adds the sums over one run, which gives means; gradient is [weights, bias]. */
static trn_status add_run(objective *o, row_loss *run, size_t first, double *value, double *gradient,
                          trn_error *err)
{
    trn_exec *exec = run->net.exec;
    float loss = 0;
    trn_status status = load(o, run, first, err);
    if (status == TRN_OK) status = trn_exec_set(exec, "w", o->weights, err);
    if (status == TRN_OK) status = trn_exec_set(exec, "b", o->bias, err);
    if (status == TRN_OK) status = trn_exec_run(exec, NULL, err);
    if (status == TRN_OK) status = trn_exec_get(exec, "loss", &loss, err);
    if (status == TRN_OK) status = trn_exec_get(exec, "dw", o->weights_gradient, err);
    if (status == TRN_OK) status = trn_exec_get(exec, "db", o->bias_gradient, err);
    if (status != TRN_OK) return status;
    size_t matrix = o->classes * o->channels;
    double terms = (double)run->rows * (learn_is_multilabel(o->sets) ? (double)o->classes : 1);
    *value += loss * terms;
    for (size_t i = 0; i < matrix; i++)
        gradient[i] += o->weights_gradient[i] * terms;
    for (size_t i = 0; i < o->classes; i++)
        gradient[matrix + i] += o->bias_gradient[i] * terms;
    return TRN_OK;
}

/* (sum of losses + |W|^2 / (2 C)) / samples */
static trn_status evaluate(void *user, const double *x, double *value, double *gradient, trn_error *err)
{
    objective *o = user;
    size_t matrix = o->classes * o->channels, count = matrix + o->classes, first = 0;
    if (trn_progress_cancelled(learn_progress(o->hooks))) return trn_fail_cancelled(err, WHO);
    for (size_t i = 0; i < count; i++)
        (i < matrix ? o->weights + i : o->bias + (i - matrix))[0] = (float)x[i];
    *value = 0;
    memset(gradient, 0, count * sizeof *gradient);
    trn_status status = TRN_OK;
    for (; status == TRN_OK && first + o->rows <= o->set->count; first += o->rows)
        status = add_run(o, &o->full, first, value, gradient, err);
    if (status == TRN_OK && first < o->set->count) status = add_run(o, &o->rest, first, value, gradient, err);
    for (size_t i = 0; i < matrix; i++) {
        *value += 0.5 * o->strength * x[i] * x[i];
        gradient[i] += o->strength * x[i];
    }
    double n = (double)o->set->count;
    *value /= n;
    for (size_t i = 0; i < count; i++)
        gradient[i] /= n;
    return status;
}

/* ---- the probe ---- */

typedef struct logistic {
    const trn_logistic_options *options;
    const trn_learn_hooks *hooks;
    trn_gpu *gpu;
    const trn_probe_sets *given;
    learn_choice choice;
    learn_scaling scaling;
    trn_feature_set train, valid, test; /* scaled */
    learn_scorer scorer;
    size_t numbers; /* weights and biases */
    double *x, *best;
    float *weights, *bias;
} logistic;

static void logistic_close(logistic *l)
{
    learn_choice_close(&l->choice);
    learn_scaling_close(&l->scaling);
    trn_feature_set_free(&l->train);
    trn_feature_set_free(&l->valid);
    trn_feature_set_free(&l->test);
    learn_scorer_close(&l->scorer);
    free(l->x);
    free(l->best);
    free(l->weights);
    free(l->bias);
}

static size_t grid_count(const trn_logistic_options *options)
{
    return options->grid ? options->grid_count : DEFAULT_GRID;
}

static double grid_at(const trn_logistic_options *options, size_t i)
{
    return options->grid ? options->grid[i] : pow(10, -6 + 0.5 * (double)i);
}

static trn_status check_options(const trn_logistic_options *options, trn_error *err)
{
    if (!grid_count(options)) return trn_fail(err, TRN_ERR_ARGUMENT, "%s: the grid of C is empty", WHO);
    for (size_t i = 0; i < grid_count(options); i++)
        if (!(grid_at(options, i) > 0) || !isfinite(grid_at(options, i)))
            return trn_fail(err, TRN_ERR_ARGUMENT, "%s: C is %g, and must be above 0", WHO,
                            grid_at(options, i));
    if (options->max_iterations < 0 || !(options->tolerance >= 0))
        return trn_fail(err, TRN_ERR_ARGUMENT, "%s: max_iterations and tolerance may not be negative", WHO);
    return TRN_OK;
}

static trn_status logistic_open(logistic *l, trn_error *err)
{
    const trn_probe_sets *given = l->given;
    bool chooses = grid_count(l->options) > 1;
    l->choice.sets = *given;
    trn_status status = chooses ? learn_choice_open(given, &l->choice, err) : TRN_OK;
    if (status == TRN_OK)
        status = learn_scaling_open(given->train, l->options->standardize, l->options->standardize,
                                    &l->scaling, err);
    if (status == TRN_OK) status = learn_scaled(l->choice.sets.train, &l->scaling, &l->train, err);
    if (status == TRN_OK && learn_has_samples(l->choice.sets.valid))
        status = learn_scaled(l->choice.sets.valid, &l->scaling, &l->valid, err);
    if (status == TRN_OK && learn_has_samples(given->test))
        status = learn_scaled(given->test, &l->scaling, &l->test, err);
    if (status != TRN_OK) return status;
    size_t classes = (size_t)given->classes, matrix = classes * (size_t)l->train.channels;
    l->numbers = matrix + classes;
    l->x = calloc(l->numbers, sizeof *l->x);
    l->best = calloc(l->numbers, sizeof *l->best);
    l->weights = malloc(matrix * sizeof *l->weights);
    l->bias = malloc(classes * sizeof *l->bias);
    if (!l->x || !l->best || !l->weights || !l->bias)
        return trn_fail_memory(err, l->numbers * 2 * sizeof *l->x, "weights");
    return learn_scorer_open(l->gpu, TRN_MAX(l->valid.count, l->test.count), l->train.channels,
                             given->classes, &l->scorer, err);
}

static trn_status score(logistic *l, const double *x, const trn_feature_set *set, trn_class_scores *classes,
                        trn_multilabel_scores *labels, trn_error *err)
{
    size_t matrix = l->numbers - (size_t)l->given->classes;
    for (size_t i = 0; i < l->numbers; i++)
        (i < matrix ? l->weights + i : l->bias + (i - matrix))[0] = (float)x[i];
    trn_status status = learn_scorer_set(&l->scorer, l->weights, l->bias, err);
    return status == TRN_OK ? learn_scorer_score(&l->scorer, l->given, set, classes, labels, NULL, err)
                            : status;
}

static trn_status fit(logistic *l, objective *o, double c, int factor, double *x, trn_probe_scores *out,
                      trn_error *err)
{
    double most = l->options->max_iterations ? l->options->max_iterations : DEFAULT_ITERATIONS;
    lbfgs_options options = {.max_iterations = (int)TRN_MIN(most * factor, INT_MAX),
                             .tolerance =
                                 l->options->tolerance > 0 ? l->options->tolerance : DEFAULT_TOLERANCE,
                             .noise = NOISE};
    lbfgs_result result;
    o->strength = 1 / c;
    trn_status status = learn_lbfgs(evaluate, o, l->numbers, x, &options, &result, err);
    if (status != TRN_OK) return status;
    out->parameter = c;
    out->iterations = result.iterations;
    out->converged = result.converged;
    out->train_loss = result.value;
    return TRN_OK;
}

/* Each C begins where the one before it ended: the minimum is the same, and near. */
static trn_status choose(logistic *l, objective *o, trn_probe_scores *out, trn_error *err)
{
    double best = -1;
    for (size_t i = 0; i < grid_count(l->options); i++) {
        trn_probe_scores now = {0};
        trn_progress_report(learn_progress(l->hooks), WHO, i, grid_count(l->options));
        trn_status status = fit(l, o, grid_at(l->options, i), 1, l->x, &now, err);
        if (status == TRN_OK) status = score(l, l->x, &l->valid, &now.valid, &now.valid_labels, err);
        if (status != TRN_OK) return status;
        double metric = learn_choice_metric(l->given, &now.valid, &now.valid_labels);
        learn_note(l->hooks, TRN_LOG_DEBUG, "%s: C %.3g gives %.4f on validation after %d iterations%s", WHO,
                   now.parameter, metric, now.iterations, now.converged ? "" : ", not converged");
        if (metric <= best) continue;
        best = metric;
        *out = now;
        memcpy(l->best, l->x, l->numbers * sizeof *l->x);
    }
    return TRN_OK;
}

/* To the end with the chosen C, on more samples where there are: with those held out for the choice, or with
 * the valid ones as asked. */
static trn_status fit_chosen(logistic *l, objective *o, trn_probe_scores *out, trn_error *err)
{
    bool more = l->choice.held_out.count > 0 || (l->options->refit && learn_has_samples(&l->valid));
    if (!more && out->converged) return TRN_OK;
    if (!more) {
        int before = out->iterations;
        trn_status status = fit(l, o, out->parameter, FINAL_FACTOR, l->best, out, err);
        out->iterations += before;
        return status == TRN_OK ? score(l, l->best, &l->valid, &out->valid, &out->valid_labels, err) : status;
    }
    trn_feature_set all = {0};
    objective joined = {0};
    trn_status status = learn_join_sets(&l->train, &l->valid, &all, err);
    if (status == TRN_OK) status = objective_open(l->gpu, l->given, &all, l->hooks, &joined, err);
    if (status == TRN_OK) {
        status = fit(l, &joined, out->parameter, FINAL_FACTOR, l->best, out, err);
        objective_close(&joined);
    }
    trn_feature_set_free(&all);
    return status;
}

/* Weights for features as they were given: w' = w f, b' = b - w' mean. */
static void give_weights(const logistic *l, float *weights, float *bias)
{
    size_t classes = (size_t)l->given->classes, channels = (size_t)l->scaling.channels;
    for (size_t k = 0; k < classes; k++) {
        double b = l->best[classes * channels + k];
        for (size_t c = 0; c < channels; c++) {
            double w = l->best[k * channels + c] * l->scaling.factor[c];
            b -= w * l->scaling.mean[c];
            if (weights) weights[k * channels + c] = (float)w;
        }
        if (bias) bias[k] = (float)b;
    }
}

static trn_status run(logistic *l, trn_probe_scores *out, trn_error *err)
{
    objective o = {0};
    trn_status status = objective_open(l->gpu, l->given, &l->train, l->hooks, &o, err);
    if (status != TRN_OK) return status;
    status = choose(l, &o, out, err);
    if (status == TRN_OK) status = fit_chosen(l, &o, out, err);
    objective_close(&o);
    if (status == TRN_OK) status = score(l, l->best, &l->test, &out->test, &out->test_labels, err);
    if (status == TRN_OK && !out->converged)
        learn_note(l->hooks, TRN_LOG_WARN,
                   "%s: stopped after %d iterations before the gradient was small enough; standardise the "
                   "features, or allow more iterations",
                   WHO, out->iterations);
    return status;
}

trn_status trn_probe_logistic(trn_gpu *gpu, const trn_probe_sets *sets, const trn_logistic_options *options,
                              const trn_learn_hooks *hooks, trn_probe_scores *out, float *weights,
                              float *bias, trn_error *err)
{
    uint64_t begin = trn_now_ns();
    *out = (trn_probe_scores){0};
    trn_status status = learn_check_sets(sets, true, WHO, err);
    if (status == TRN_OK) status = check_options(options, err);
    if (status != TRN_OK) return status;
    logistic l = {.options = options, .hooks = hooks, .gpu = gpu, .given = sets};
    status = logistic_open(&l, err);
    if (status == TRN_OK) status = run(&l, out, err);
    if (status == TRN_OK) give_weights(&l, weights, bias);
    logistic_close(&l);
    out->seconds = (double)(trn_now_ns() - begin) / 1e9;
    return status;
}
