/* Metrics by name: what early stopping and recipes ask for. */
#include "eval.h"

#include <math.h>
#include <string.h>

enum { LOSS = -1 };

/* offset: of the number in the scores of its kind, or LOSS. */
typedef struct metric_entry {
    trn_metric metric;
    int offset;
} metric_entry;

#define OF_CLASSES(field, text)                                                                              \
    {                                                                                                        \
        {#field, text, false, false}, (int)offsetof(trn_class_scores, field)                                 \
    }
#define OF_LABELS(field, text)                                                                               \
    {                                                                                                        \
        {#field, text, true, false}, (int)offsetof(trn_multilabel_scores, field)                             \
    }

static const metric_entry entries[] = {
    OF_CLASSES(accuracy, "share of samples or pixels whose class is right"),
    OF_CLASSES(mean_accuracy, "mean over the classes of the share that is found"),
    OF_CLASSES(macro_f1, "mean F1 of the classes that occur"),
    OF_CLASSES(weighted_f1, "mean F1, classes weighted by how often they are labelled"),
    OF_CLASSES(mean_iou, "mean intersection over union of the classes that occur"),
    OF_CLASSES(mean_iou_all, "mean intersection over union of all classes, absent ones count 0"),
    OF_CLASSES(micro_iou, "intersection over union of all classes together"),
    {{"loss", "mean loss", false, true}, LOSS},
    OF_LABELS(accuracy, "share of labels that are right"),
    OF_LABELS(micro_f1, "F1 of all labels together"),
    OF_LABELS(macro_f1, "mean F1 of the labels"),
    OF_LABELS(micro_map, "average precision of all labels together"),
    OF_LABELS(macro_map, "mean average precision of the labels that occur"),
    {{"loss", "mean loss", true, true}, LOSS},
};

const trn_metric *trn_metric_at(size_t i)
{
    return i < TRN_COUNT(entries) ? &entries[i].metric : NULL;
}

const trn_metric *trn_metric_find(const char *name, bool multilabel, trn_error *err)
{
    const char *names[TRN_COUNT(entries)];
    size_t count = 0;
    trn_text list = {0};
    for (size_t i = 0; i < TRN_COUNT(entries); i++) {
        const trn_metric *metric = &entries[i].metric;
        if (metric->multilabel != multilabel) continue;
        if (!strcmp(metric->name, name)) {
            trn_text_free(&list);
            return metric;
        }
        trn_text_printf(&list, "%s%s", count ? ", " : "", metric->name);
        names[count++] = metric->name;
    }
    const char *kind = multilabel ? "several labels" : "classes", *near = trn_nearest(name, names, count);
    if (near)
        trn_fail(err, TRN_ERR_ARGUMENT, "there is no metric '%.64s' of %s: did you mean '%s'?", name, kind,
                 near);
    else
        trn_fail(err, TRN_ERR_ARGUMENT, "there is no metric '%.64s' of %s: use one of %s", name, kind,
                 trn_text_get(&list));
    trn_text_free(&list);
    return NULL;
}

/* The metric's number in scores of the kind asked for; NAN for a metric of the other kind. */
static double value_of(const trn_metric *metric, bool multilabel, const void *scores, double loss)
{
    for (size_t i = 0; i < TRN_COUNT(entries) && metric->multilabel == multilabel; i++) {
        const metric_entry *entry = &entries[i];
        double value;
        if (entry->metric.multilabel != multilabel || strcmp(entry->metric.name, metric->name)) continue;
        if (entry->offset == LOSS) return loss;
        memcpy(&value, (const char *)scores + entry->offset, sizeof value);
        return value;
    }
    return NAN;
}

double trn_metric_of_classes(const trn_metric *metric, const trn_class_scores *scores, double loss)
{
    return value_of(metric, false, scores, loss);
}

double trn_metric_of_labels(const trn_metric *metric, const trn_multilabel_scores *scores, double loss)
{
    return value_of(metric, true, scores, loss);
}
