/* Scores of several labels at once: F1 at a threshold, average precision over all thresholds. */
#include "eval.h"

#include <math.h>
#include <stdlib.h>

typedef struct ranked {
    float score;
    bool positive;
} ranked;

static int by_score_descending(const void *a, const void *b)
{
    float x = ((const ranked *)a)->score, y = ((const ranked *)b)->score;
    return (x < y) - (x > y);
}

/* Sum of precision times the gain in recall, from the highest score down; equal scores are one threshold. 0
 * without positives. */
static double average_precision(ranked *items, size_t count, size_t positives)
{
    double area = 0;
    size_t hits = 0, before = 0;
    qsort(items, count, sizeof *items, by_score_descending);
    for (size_t i = 0; i < count; i++) {
        hits += items[i].positive;
        if (i + 1 < count && items[i + 1].score == items[i].score) continue;
        area += (double)(hits - before) * ((double)hits / (double)(i + 1));
        before = hits;
    }
    return positives ? area / (double)positives : 0;
}

/* A label's part of the matrix, or all of it (stride 1). Returns the number of positives. */
static size_t collect(const float *scores, const int32_t *labels, size_t count, size_t stride, ranked *items)
{
    size_t positives = 0;
    for (size_t i = 0; i < count; i++) {
        items[i] = (ranked){.score = scores[i * stride], .positive = labels[i * stride] != 0};
        positives += items[i].positive;
    }
    return positives;
}

static trn_status check(const float *scores, const int32_t *labels, size_t count, size_t classes,
                        trn_error *err)
{
    for (size_t i = 0; i < count * classes; i++) {
        if (labels[i] != 0 && labels[i] != 1)
            return trn_fail(err, TRN_ERR_ARGUMENT, "label %zu of sample %zu is %d: labels are 0 or 1",
                            i % classes, i / classes, (int)labels[i]);
        if (isnan(scores[i]))
            return trn_fail(err, TRN_ERR_ARGUMENT, "the score of label %zu of sample %zu is no number",
                            i % classes, i / classes);
    }
    return TRN_OK;
}

/* tp, and fp + fn, of a label. */
typedef struct tally {
    uint64_t hits, misses;
} tally;

static tally count_label(const float *scores, const int32_t *labels, size_t count, size_t stride,
                         double threshold)
{
    tally t = {0};
    for (size_t i = 0; i < count; i++) {
        bool predicted = (double)scores[i * stride] > threshold, positive = labels[i * stride] != 0;
        t.hits += predicted && positive;
        t.misses += predicted != positive;
    }
    return t;
}

/* 0 when the label occurs in neither labels nor predictions. */
static double f1_of(tally t)
{
    double all = 2 * (double)t.hits + (double)t.misses;
    return all > 0 ? 2 * (double)t.hits / all : 0;
}

trn_status trn_multilabel_evaluate(const float *scores, const int32_t *labels, size_t count, int classes,
                                   double threshold, trn_multilabel_scores *out, trn_error *err)
{
    *out = (trn_multilabel_scores){0};
    size_t width = classes > 0 ? (size_t)classes : 0, total = 0, bytes = 0;
    if (!width || !trn_mul_size(count, width, &total) || !trn_mul_size(total, sizeof(ranked), &bytes))
        return trn_fail(err, TRN_ERR_ARGUMENT, "%zu samples of %d labels cannot be scored", count, classes);
    trn_status status = check(scores, labels, count, width, err);
    if (status != TRN_OK || !count) return status;
    ranked *items = malloc(bytes);
    if (!items) return trn_fail_memory(err, bytes, "scores to rank");
    tally all = {0};
    size_t occurring = 0;
    out->count = count;
    for (size_t c = 0; c < width; c++) {
        tally t = count_label(scores + c, labels + c, count, width, threshold);
        all.hits += t.hits;
        all.misses += t.misses;
        out->macro_f1 += f1_of(t) / (double)width;
        size_t positives = collect(scores + c, labels + c, count, width, items);
        occurring += positives > 0;
        out->macro_map += average_precision(items, count, positives);
    }
    if (occurring) out->macro_map /= (double)occurring;
    out->accuracy = 1 - (double)all.misses / (double)total;
    out->micro_f1 = f1_of(all);
    size_t positives = collect(scores, labels, total, 1, items);
    out->micro_map = average_precision(items, total, positives);
    free(items);
    return TRN_OK;
}
