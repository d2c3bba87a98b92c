/* Confusion matrices and the scores that come from them. */
#include "eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CLASSES = 65536 };

trn_status trn_confusion_create(int classes, trn_confusion *out, trn_error *err)
{
    *out = (trn_confusion){0};
    if (classes < 1 || classes > MAX_CLASSES)
        return trn_fail(err, TRN_ERR_ARGUMENT, "a confusion matrix of %d classes: use 1 to %d", classes,
                        MAX_CLASSES);
    size_t cells = (size_t)classes * (size_t)classes;
    uint64_t *counts = calloc(cells, sizeof *counts);
    if (!counts) return trn_fail_memory(err, cells * sizeof *counts, "a confusion matrix");
    *out = (trn_confusion){.classes = classes, .counts = counts};
    return TRN_OK;
}

void trn_confusion_free(trn_confusion *confusion)
{
    free(confusion->counts);
    *confusion = (trn_confusion){0};
}

void trn_confusion_clear(trn_confusion *confusion)
{
    memset(confusion->counts, 0,
           (size_t)confusion->classes * (size_t)confusion->classes * sizeof *confusion->counts);
}

trn_status trn_confusion_add(trn_confusion *confusion, const int32_t *labels, const int32_t *predictions,
                             size_t count, trn_error *err)
{
    int classes = confusion->classes;
    for (size_t i = 0; i < count; i++) {
        if (labels[i] >= classes)
            return trn_fail(err, TRN_ERR_ARGUMENT, "label %zu is %d: classes are 0 to %d", i, (int)labels[i],
                            classes - 1);
        if (predictions[i] < 0 || predictions[i] >= classes)
            return trn_fail(err, TRN_ERR_ARGUMENT, "prediction %zu is %d: classes are 0 to %d", i,
                            (int)predictions[i], classes - 1);
    }
    for (size_t i = 0; i < count; i++)
        if (labels[i] >= 0) confusion->counts[(size_t)labels[i] * (size_t)classes + (size_t)predictions[i]]++;
    return TRN_OK;
}

/* One class against the others. */
typedef struct tally {
    uint64_t hits, labelled, predicted;
} tally;

static tally count_class(const trn_confusion *confusion, size_t class_index)
{
    size_t classes = (size_t)confusion->classes;
    const uint64_t *counts = confusion->counts;
    tally t = {.hits = counts[class_index * classes + class_index]};
    for (size_t i = 0; i < classes; i++) {
        t.labelled += counts[class_index * classes + i];
        t.predicted += counts[i * classes + class_index];
    }
    return t;
}

static uint64_t union_of(tally t)
{
    return t.labelled + t.predicted - t.hits;
}

static double iou_of(tally t)
{
    return (double)t.hits / (double)union_of(t);
}

static double f1_of(tally t)
{
    return 2 * (double)t.hits / (double)(t.labelled + t.predicted);
}

trn_class_scores trn_confusion_scores(const trn_confusion *confusion)
{
    trn_class_scores s = {0};
    uint64_t hits = 0, unions = 0;
    double present = 0, labelled = 0;
    for (size_t c = 0; c < (size_t)confusion->classes; c++) {
        tally t = count_class(confusion, c);
        if (!union_of(t)) continue;
        present++;
        hits += t.hits;
        unions += union_of(t);
        s.count += t.labelled;
        s.mean_iou += iou_of(t);
        s.macro_f1 += f1_of(t);
        if (!t.labelled) continue;
        labelled++;
        s.mean_accuracy += (double)t.hits / (double)t.labelled;
        s.weighted_f1 += f1_of(t) * (double)t.labelled;
    }
    if (!s.count) return (trn_class_scores){0};
    s.accuracy = (double)hits / (double)s.count;
    s.mean_accuracy /= labelled;
    s.macro_f1 /= present;
    s.weighted_f1 /= (double)s.count;
    s.mean_iou_all = s.mean_iou / confusion->classes;
    s.mean_iou /= present;
    s.micro_iou = (double)hits / (double)unions;
    return s;
}

static tally count_one(const trn_confusion *confusion, int class_index)
{
    bool there = class_index >= 0 && class_index < confusion->classes;
    return there ? count_class(confusion, (size_t)class_index) : (tally){0};
}

double trn_confusion_iou(const trn_confusion *confusion, int class_index)
{
    tally t = count_one(confusion, class_index);
    return union_of(t) ? iou_of(t) : NAN;
}

double trn_confusion_f1(const trn_confusion *confusion, int class_index)
{
    tally t = count_one(confusion, class_index);
    return union_of(t) ? f1_of(t) : NAN;
}
