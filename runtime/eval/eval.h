/* eval: metrics, in double precision on the host. Goldens: metrics/ of tests/data/golden.
 * Thread-safety: one thread at a time per object. */
#ifndef TRN_EVAL_H
#define TRN_EVAL_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- one class of each sample or pixel ---- */

/* counts [classes][classes]: rows are labels, columns predictions. */
typedef struct trn_confusion {
    int classes;
    uint64_t *counts;
} trn_confusion;
trn_status trn_confusion_create(int classes, trn_confusion *out, trn_error *err);
void trn_confusion_free(trn_confusion *confusion); /* zeroes it */
void trn_confusion_clear(trn_confusion *confusion);
/* labels and predictions [count]; a negative label is ignored. TRN_ERR_ARGUMENT: a label or prediction of
 * `classes` or above, or a negative prediction, and then nothing was added. */
trn_status trn_confusion_add(trn_confusion *confusion, const int32_t *labels, const int32_t *predictions,
                             size_t count, trn_error *err);

typedef struct trn_class_scores {
    uint64_t count;               /* labels that count */
    double accuracy;              /* overall: trace / sum, which is the micro F1 */
    double mean_accuracy;         /* mean recall over classes that have labels */
    double macro_f1, weighted_f1; /* macro: over classes that occur in labels or predictions */
    double mean_iou;              /* over classes that occur in labels or predictions */
    double mean_iou_all;          /* over all classes, absent ones count 0 (scikit-learn) */
    double micro_iou;             /* sum tp / sum (tp + fp + fn) */
} trn_class_scores;
/* All 0 when nothing was counted. */
trn_class_scores trn_confusion_scores(const trn_confusion *confusion);
/* Of one class: tp/(tp+fp+fn) and 2tp/(2tp+fp+fn); NaN when it occurs in neither labels nor predictions. */
double trn_confusion_iou(const trn_confusion *confusion, int class_index);
double trn_confusion_f1(const trn_confusion *confusion, int class_index);

/* ---- several labels at once ---- */

typedef struct trn_multilabel_scores {
    uint64_t count;              /* samples */
    double accuracy;             /* of all labels of all samples */
    double micro_f1, macro_f1;   /* at the threshold; macro: over all labels, empty ones count 0 */
    double micro_map, macro_map; /* mean average precision; macro: over labels that occur */
} trn_multilabel_scores;
/* scores, labels [count][classes], labels 0 or 1; what is predicted: score > threshold. */
trn_status trn_multilabel_evaluate(const float *scores, const int32_t *labels, size_t count, int classes,
                                   double threshold, trn_multilabel_scores *out, trn_error *err);

/* ---- metrics by name, for early stopping and recipes ---- */

/* "accuracy", "mean_accuracy", "macro_f1", "weighted_f1", "mean_iou", "micro_iou", "loss" ..; and of several
 * labels "micro_f1", "macro_f1", "micro_map", "macro_map". */
typedef struct trn_metric {
    const char *name, *help;
    bool multilabel, lower_is_better;
} trn_metric;
const trn_metric *trn_metric_at(size_t i); /* NULL past the last */
/* NULL with err naming the nearest one of the kind asked for. */
const trn_metric *trn_metric_find(const char *name, bool multilabel, trn_error *err);
double trn_metric_of_classes(const trn_metric *metric, const trn_class_scores *scores, double loss);
double trn_metric_of_labels(const trn_metric *metric, const trn_multilabel_scores *scores, double loss);

#ifdef __cplusplus
}
#endif
#endif
