/* Evaluating the samples of a split: loss and scores, with the weights that the executable has. */
#include "fit.h"

#include <math.h>
#include <stdlib.h>

/* What a pass over a split gathers. */
typedef struct tally {
    trn_confusion confusion;
    int32_t *predictions; /* of a batch */
    float *scores;        /* [count, classes] of several labels, all samples */
    int32_t *labels;
    double loss, weight;                               /* sums over what counts, see weigh */
    double there, there_weight, absent, absent_weight; /* of several labels: sums of both halves */
    size_t count, total;
} tally;

/* log(1 + exp(x)) */
static double softplus(double x)
{
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}

/* logits [C, places] of a sample -> the class of each place, the first of equals. */
static void choose(const float *logits, size_t classes, size_t places, int32_t *out)
{
    for (size_t p = 0; p < places; p++) {
        size_t best = 0;
        for (size_t c = 1; c < classes; c++)
            if (logits[c * places + p] > logits[best * places + p]) best = c;
        out[p] = (int32_t)best;
    }
}

/* What a batch's mean loss is a mean of: labels, by their class weights in cross entropy; samples, of losses
 * that compare areas. */
static double weigh(const fit *f, const trn_batch *batch)
{
    double sum = 0;
    bool entropy = f->loss == TRN_LOSS_CROSS_ENTROPY;
    if (!entropy && f->loss != TRN_LOSS_FOCAL) return (double)batch->count;
    for (size_t i = 0; i < batch->count * batch->label_count; i++) {
        int32_t label = batch->labels[i];
        if (label != TRN_LABEL_IGNORE) sum += f->class_weights ? (double)f->class_weights[label] : 1;
    }
    return sum;
}

static trn_status add_classes(fit *f, const trn_batch *batch, tally *t, trn_error *err)
{
    size_t classes = f->info->class_count, places = batch->label_count;
    double weight = weigh(f, batch);
    float loss = 0;
    trn_status status = trn_exec_get(f->engine.eval, "loss", &loss, err);
    if (status != TRN_OK) return status;
    t->loss += (double)loss * weight;
    t->weight += weight;
    for (size_t i = 0; i < batch->count; i++)
        choose(f->values + i * classes * places, classes, places, t->predictions + i * places);
    return trn_confusion_add(&t->confusion, batch->labels, t->predictions, batch->count * places, err);
}

static void add_labels(const fit *f, const trn_batch *batch, tally *t)
{
    size_t classes = f->info->class_count;
    for (size_t i = 0; i < batch->count * classes; i++) {
        double z = (double)f->values[i], there = batch->labels[i];
        double weight = f->class_weights ? (double)f->class_weights[i % classes] : 1;
        t->scores[t->count * classes + i] = f->values[i];
        t->labels[t->count * classes + i] = batch->labels[i];
        t->there += weight * there * softplus(-z);
        t->absent += (1 - there) * softplus(z);
        t->there_weight += there;
        t->absent_weight += 1 - there;
    }
}

/* As trn_loss_binary and trn_loss_binary_balanced have it, over the whole split. */
static double loss_of_labels(const fit *f, const tally *t)
{
    if (f->loss == TRN_LOSS_BINARY) return (t->there + t->absent) / (t->there_weight + t->absent_weight);
    double there = t->there_weight > 0 ? t->there / t->there_weight : 0;
    double absent = t->absent_weight > 0 ? t->absent / t->absent_weight : 0;
    return there + absent;
}

static trn_status evaluate_batch(fit *f, const trn_batch *batch, tally *t, trn_error *err)
{
    const fit_inputs inputs = {f->engine.eval, -1};
    trn_status status = fit_engine_feed(f, &inputs, batch, false, err);
    if (status != TRN_OK) return status;
    uint64_t begun = trn_now_ns();
    status = trn_exec_run(
        f->engine.eval,
        &(trn_progress){.cancelled = f->hooks->progress.cancelled, .user = f->hooks->progress.user}, err);
    f->run_seconds += (double)(trn_now_ns() - begun) * 1e-9;
    if (status == TRN_OK) status = trn_exec_get(f->engine.eval, "logits", f->values, err);
    if (status != TRN_OK) return status;
    if (f->multilabel)
        add_labels(f, batch, t);
    else
        status = add_classes(f, batch, t, err);
    t->count += batch->count;
    return status;
}

static trn_status make_tally(const fit *f, size_t count, tally *t, trn_error *err)
{
    size_t classes = f->info->class_count, area = (size_t)f->model->height * (size_t)f->model->width;
    size_t values = f->multilabel ? count * classes : 1;
    t->total = count;
    t->predictions = calloc((size_t)f->options->batch * (f->dense ? area : 1), sizeof *t->predictions);
    t->scores = calloc(values, sizeof *t->scores);
    t->labels = calloc(values, sizeof *t->labels);
    if (!t->predictions || !t->scores || !t->labels)
        return trn_fail_memory(err, values * sizeof(float), "the scores of a split");
    return trn_confusion_create((int)classes, &t->confusion, err);
}

static trn_status finish_tally(const fit *f, const tally *t, fit_scores *out, trn_error *err)
{
    *out = (fit_scores){.count = t->count};
    if (!f->multilabel) {
        out->loss = t->weight > 0 ? t->loss / t->weight : 0;
        out->classes = trn_confusion_scores(&t->confusion);
        return TRN_OK;
    }
    out->loss = loss_of_labels(f, t);
    /* logits above 0 are probabilities above a half */
    return trn_multilabel_evaluate(t->scores, t->labels, t->count, (int)f->info->class_count, 0, &out->labels,
                                   err);
}

static trn_status run_split(fit *f, trn_batches *batches, const char *stage, tally *t, trn_error *err)
{
    trn_batch batch;
    trn_status status = trn_batches_start(batches, 0, err);
    while (status == TRN_OK) {
        trn_progress_report(&f->hooks->progress, stage, t->count, t->total);
        if (trn_progress_cancelled(&f->hooks->progress)) return trn_fail_cancelled(err, stage);
        status = trn_batches_next(batches, &batch, err);
        if (status != TRN_OK || !batch.count) break;
        status = evaluate_batch(f, &batch, t, err);
    }
    return status;
}

trn_status fit_evaluate(fit *f, trn_split split, fit_scores *out, trn_error *err)
{
    trn_batches_options options = {.split = split,
                                   .batch = f->options->batch,
                                   .samples = fit_samples(f, split),
                                   .sample_count = f->counts[split],
                                   .transform = f->options->eval_transform};
    trn_batches *batches = NULL;
    tally t = {0};
    trn_status status = make_tally(f, f->counts[split], &t, err);
    if (status == TRN_OK) status = trn_batches_open(f->dataset, &options, &batches, err);
    if (status == TRN_OK)
        status = run_split(f, batches, split == TRN_SPLIT_TEST ? "testing" : "validating", &t, err);
    if (status == TRN_OK) status = finish_tally(f, &t, out, err);
    trn_batches_close(batches);
    trn_confusion_free(&t.confusion);
    free(t.predictions);
    free(t.scores);
    free(t.labels);
    return status;
}

double fit_metric_value(const fit *f, const fit_scores *scores)
{
    return f->multilabel ? trn_metric_of_labels(f->metric, &scores->labels, scores->loss)
                         : trn_metric_of_classes(f->metric, &scores->classes, scores->loss);
}
