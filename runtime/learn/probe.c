/* What the probes share: checks of what they get, scaling of features, held out samples, scores. */
#include "probe_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool learn_is_multilabel(const trn_probe_sets *sets)
{
    return sets->task == TRN_TASK_MULTILABEL;
}

bool learn_has_samples(const trn_feature_set *set)
{
    return set && set->count > 0;
}

/* ---- checks ---- */

static trn_status check_labels(const trn_probe_sets *sets, const trn_feature_set *set, const char *split,
                               trn_error *err)
{
    int32_t limit = learn_is_multilabel(sets) ? 2 : sets->classes;
    for (size_t i = 0; i < set->count * set->label_count; i++)
        if (set->labels[i] < 0 || set->labels[i] >= limit)
            return trn_fail(err, TRN_ERR_ARGUMENT, "the label of %s sample %zu is %d, not in 0 to %d", split,
                            i / set->label_count, (int)set->labels[i], (int)limit - 1);
    return TRN_OK;
}

static trn_status check_set(const trn_probe_sets *sets, const trn_feature_set *set, const char *split,
                            trn_error *err)
{
    if (!learn_has_samples(set)) return TRN_OK;
    size_t label_count = learn_is_multilabel(sets) ? (size_t)sets->classes : 1;
    if (!set->values || !set->labels || set->channels < 1 || set->channels != sets->train->channels ||
        set->label_count != label_count)
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "the %s features have %lld channels and %zu labels of a sample, where %lld and %zu are "
            "needed",
            split, (long long)set->channels, set->label_count, (long long)sets->train->channels, label_count);
    size_t channels = (size_t)set->channels;
    for (size_t i = 0; i < set->count * channels; i++)
        if (!isfinite(set->values[i]))
            return trn_fail(err, TRN_ERR_ARGUMENT, "feature %zu of %s sample %zu is not a finite number",
                            i % channels, split, i / channels);
    return check_labels(sets, set, split, err);
}

static trn_status check_classes(const trn_probe_sets *sets, trn_error *err)
{
    for (int32_t c = 0; c < sets->classes; c++) {
        size_t i = 0;
        while (i < sets->train->count && sets->train->labels[i] != c)
            i++;
        if (i == sets->train->count)
            return trn_fail(err, TRN_ERR_ARGUMENT,
                            "class %d has no training sample: it cannot be learned; add one, or leave the "
                            "class out",
                            (int)c);
    }
    return TRN_OK;
}

static trn_status check_sets(const trn_probe_sets *sets, bool all_classes, trn_error *err)
{
    if (sets->task == TRN_TASK_SEGMENTATION)
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "probes learn classes or labels of samples, not of pixels: train a dense head instead");
    if (!learn_has_samples(sets->train))
        return trn_fail(err, TRN_ERR_ARGUMENT, "there are no training samples");
    if (sets->classes < (learn_is_multilabel(sets) ? 1 : 2))
        return trn_fail(err, TRN_ERR_ARGUMENT, "there is nothing to tell apart: the number of classes is %d",
                        sets->classes);
    trn_status status = check_set(sets, sets->train, "training", err);
    if (status == TRN_OK) status = check_set(sets, sets->valid, "validation", err);
    if (status == TRN_OK) status = check_set(sets, sets->test, "test", err);
    if (status == TRN_OK && all_classes && !learn_is_multilabel(sets)) status = check_classes(sets, err);
    return status;
}

trn_status learn_check_sets(const trn_probe_sets *sets, bool all_classes, const char *who, trn_error *err)
{
    trn_status status = check_sets(sets, all_classes, err);
    return status == TRN_OK ? TRN_OK : trn_wrap(err, "%s", who);
}

/* ---- sets ---- */

static trn_status allocate(size_t count, int64_t channels, size_t label_count, trn_feature_set *out,
                           trn_error *err)
{
    size_t values, labels;
    *out = (trn_feature_set){.count = count, .channels = channels, .label_count = label_count};
    if (!trn_mul_size(count, (size_t)channels * sizeof(float), &values) ||
        !trn_mul_size(count, label_count * sizeof(int32_t), &labels))
        return trn_fail_memory(err, SIZE_MAX, "features");
    out->values = malloc(TRN_MAX(values, 1));
    out->labels = malloc(TRN_MAX(labels, 1));
    if (out->values && out->labels) return TRN_OK;
    trn_feature_set_free(out);
    return trn_fail_memory(err, values + labels, "features");
}

static void copy_sample(const trn_feature_set *from, size_t i, trn_feature_set *to, size_t at)
{
    size_t channels = (size_t)from->channels, labels = from->label_count;
    memcpy(to->values + at * channels, from->values + i * channels, channels * sizeof *to->values);
    memcpy(to->labels + at * labels, from->labels + i * labels, labels * sizeof *to->labels);
}

trn_status learn_join_sets(const trn_feature_set *a, const trn_feature_set *b, trn_feature_set *out,
                           trn_error *err)
{
    static const trn_feature_set none;
    if (!b) b = &none;
    trn_status status = allocate(a->count + b->count, a->channels, a->label_count, out, err);
    for (size_t i = 0; status == TRN_OK && i < out->count; i++)
        copy_sample(i < a->count ? a : b, i < a->count ? i : i - a->count, out, i);
    return status;
}

enum { HELD_OUT = 5 };

/* Samples of a class often follow one another, so that every fifth of a class is held out by counting each
 * class of its own. Several labels: every fifth sample. */
static bool *choose_held_out(const trn_probe_sets *sets, size_t *count)
{
    const trn_feature_set *train = sets->train;
    bool *held = calloc(train->count, sizeof *held);
    size_t *seen = calloc((size_t)sets->classes, sizeof *seen);
    *count = 0;
    for (size_t i = 0; held && seen && i < train->count; i++) {
        size_t c = learn_is_multilabel(sets) ? 0 : (size_t)train->labels[i];
        held[i] = ++seen[c] % HELD_OUT == 0;
        *count += held[i];
    }
    if (!seen) {
        free(held);
        held = NULL;
    }
    free(seen);
    return held;
}

trn_status learn_choice_open(const trn_probe_sets *sets, learn_choice *out, trn_error *err)
{
    *out = (learn_choice){.sets = *sets};
    if (learn_has_samples(sets->valid)) return TRN_OK;
    const trn_feature_set *train = sets->train;
    size_t held_count;
    bool *held = choose_held_out(sets, &held_count);
    if (!held) return trn_fail_memory(err, train->count, "samples held out");
    trn_status status =
        allocate(train->count - held_count, train->channels, train->label_count, &out->rest, err);
    if (status == TRN_OK)
        status = allocate(held_count, train->channels, train->label_count, &out->held_out, err);
    size_t at[2] = {0, 0};
    for (size_t i = 0; status == TRN_OK && i < train->count; i++)
        copy_sample(train, i, held[i] ? &out->held_out : &out->rest, at[held[i]]++);
    free(held);
    if (status == TRN_OK && !held_count)
        status = trn_fail(err, TRN_ERR_ARGUMENT,
                          "there is no validation split to choose on, and with fewer than %d samples of each "
                          "class in training none can be held out",
                          HELD_OUT);
    out->sets.train = &out->rest;
    out->sets.valid = &out->held_out;
    if (status != TRN_OK) learn_choice_close(out);
    return status;
}

void learn_choice_close(learn_choice *choice)
{
    trn_feature_set_free(&choice->rest);
    trn_feature_set_free(&choice->held_out);
}

/* ---- scaling ---- */

/* Means first, then squares of what differs from them: no cancellation. */
static void measure(const trn_feature_set *set, bool spread, learn_scaling *out)
{
    size_t channels = (size_t)set->channels;
    double n = (double)set->count;
    for (size_t i = 0; i < set->count * channels; i++)
        out->mean[i % channels] += set->values[i] / n;
    if (!spread) return;
    double *variance = out->factor;
    for (size_t c = 0; c < channels; c++)
        variance[c] = 0;
    for (size_t i = 0; i < set->count * channels; i++) {
        double d = set->values[i] - out->mean[i % channels];
        variance[i % channels] += d * d / n;
    }
    for (size_t c = 0; c < channels; c++) {
        double deviation = sqrt(variance[c]);
        /* what varies by no more than rounding is constant */
        out->factor[c] = deviation > 1e-7 * fabs(out->mean[c]) ? 1 / deviation : 1;
    }
}

trn_status learn_scaling_open(const trn_feature_set *set, bool center, bool spread, learn_scaling *out,
                              trn_error *err)
{
    size_t channels = (size_t)set->channels;
    *out = (learn_scaling){.channels = set->channels,
                           .mean = calloc(channels, sizeof *out->mean),
                           .factor = calloc(channels, sizeof *out->factor)};
    if (!out->mean || !out->factor) {
        learn_scaling_close(out);
        return trn_fail_memory(err, channels * sizeof *out->mean, "means of features");
    }
    for (size_t c = 0; c < channels; c++)
        out->factor[c] = 1;
    if (center || spread) measure(set, spread, out);
    for (size_t c = 0; c < channels && !center; c++)
        out->mean[c] = 0;
    return TRN_OK;
}

void learn_scaling_close(learn_scaling *scaling)
{
    free(scaling->mean);
    free(scaling->factor);
    *scaling = (learn_scaling){0};
}

trn_status learn_scaled(const trn_feature_set *set, const learn_scaling *scaling, trn_feature_set *out,
                        trn_error *err)
{
    *out = (trn_feature_set){0};
    if (!learn_has_samples(set)) return TRN_OK;
    trn_status status = learn_join_sets(set, NULL, out, err);
    size_t channels = (size_t)set->channels;
    for (size_t i = 0; status == TRN_OK && i < set->count * channels; i++)
        out->values[i] =
            (float)((set->values[i] - scaling->mean[i % channels]) * scaling->factor[i % channels]);
    return status;
}

/* ---- scores ---- */

static int32_t largest(const float *scores, int classes)
{
    int32_t best = 0;
    for (int32_t c = 1; c < classes; c++)
        if (scores[c] > scores[best]) best = c;
    return best;
}

static trn_status score_classes(const trn_feature_set *set, const float *scores, int classes,
                                trn_class_scores *out, trn_error *err)
{
    trn_confusion confusion = {0};
    trn_status status = trn_confusion_create(classes, &confusion, err);
    for (size_t i = 0; status == TRN_OK && i < set->count; i++) {
        int32_t prediction = largest(scores + i * (size_t)classes, classes);
        status = trn_confusion_add(&confusion, set->labels + i, &prediction, 1, err);
    }
    if (status == TRN_OK) *out = trn_confusion_scores(&confusion);
    trn_confusion_free(&confusion);
    return status;
}

trn_status learn_score(const trn_probe_sets *sets, const trn_feature_set *set, const float *scores,
                       double threshold, trn_class_scores *classes, trn_multilabel_scores *labels,
                       trn_error *err)
{
    if (!learn_has_samples(set)) return TRN_OK;
    if (!learn_is_multilabel(sets)) return score_classes(set, scores, sets->classes, classes, err);
    return trn_multilabel_evaluate(scores, set->labels, set->count, sets->classes, threshold, labels, err);
}

double learn_choice_metric(const trn_probe_sets *sets, const trn_class_scores *classes,
                           const trn_multilabel_scores *labels)
{
    return learn_is_multilabel(sets) ? labels->micro_map : classes->accuracy;
}

/* log(1 + exp(z)) */
static double softplus(double z)
{
    return (z > 0 ? z : 0) + log1p(exp(-fabs(z)));
}

static double cross_entropy(const float *logits, int classes, int32_t label)
{
    double top = logits[largest(logits, classes)], sum = 0;
    for (int c = 0; c < classes; c++)
        sum += exp(logits[c] - top);
    return log(sum) + top - logits[label];
}

double learn_mean_loss(const trn_probe_sets *sets, const trn_feature_set *set, const float *logits)
{
    size_t classes = (size_t)sets->classes;
    double sum = 0;
    if (learn_is_multilabel(sets)) {
        for (size_t i = 0; i < set->count * classes; i++)
            sum += softplus(set->labels[i] ? -logits[i] : logits[i]);
        return sum / ((double)set->count * (double)classes);
    }
    for (size_t i = 0; i < set->count; i++)
        sum += cross_entropy(logits + i * classes, sets->classes, set->labels[i]);
    return sum / (double)set->count;
}

void learn_targets(const int32_t *labels, size_t count, float *targets)
{
    for (size_t i = 0; i < count; i++)
        targets[i] = labels[i] ? 1 : 0;
}

/* ---- telling the outside ---- */

void learn_note(const trn_learn_hooks *hooks, trn_log_level level, const char *fmt, ...)
{
    if (!hooks || !hooks->note) return;
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    hooks->note(hooks->user, level, text);
}

const trn_progress *learn_progress(const trn_learn_hooks *hooks)
{
    return hooks ? &hooks->progress : NULL;
}
