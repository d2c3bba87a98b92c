/* Scores against golden numbers of other libraries, and what they are of nothing or of nonsense. */
#include "test_support.h"
#include "eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define assert_near(actual, expected) assert_near_at(actual, expected, #actual, __LINE__)

static void assert_near_at(double actual, double expected, const char *what, int line)
{
    if (!(fabs(actual - expected) <= 1e-12))
        fail_msg("line %d: %s is %.17g, wanted %.17g", line, what, actual, expected);
}

/* Number i of a golden output in double precision: test_golden_output rounds to float. */
static double golden_double(const char *case_id, const char *name, size_t i)
{
    char relative[128];
    snprintf(relative, sizeof relative, "%s/%s.npy", case_id, name);
    const char *path = test_golden_path(relative);
    if (!path) fail_msg("golden file '%s' is missing", relative);
    size_t size;
    trn_error err = {0};
    char *file = trn_read_file(path, 1 << 20, &size, &err);
    assert_non_null(file);
    assert_non_null(strstr(file + 10, "'<f8'"));
    size_t start = 10u + (uint8_t)file[8] + 256u * (uint8_t)file[9];
    double value;
    assert_true(start + (i + 1) * sizeof value <= size);
    memcpy(&value, file + start + i * sizeof value, sizeof value);
    free(file);
    return value;
}

static int32_t *golden_integers(const char *case_id, const char *name, size_t *count)
{
    test_tensor tensor = test_golden_input(case_id, name);
    int32_t *values = calloc((size_t)tensor.count, sizeof *values);
    assert_non_null(values);
    for (int64_t i = 0; i < tensor.count; i++)
        values[i] = tensor.data[i] == 255 ? -1 : (int32_t)tensor.data[i];
    *count = (size_t)tensor.count;
    free(tensor.data);
    return values;
}

static void check_against_golden(const char *id, int classes)
{
    size_t count, predicted;
    int32_t *labels = golden_integers(id, "labels", &count),
            *predictions = golden_integers(id, "pred", &predicted);
    assert_int_equal(count, predicted);
    trn_error err = {0};
    trn_confusion confusion;
    assert_trn_ok(trn_confusion_create(classes, &confusion, &err), err);
    size_t half = count / 2; /* what is added in parts is the same as at once */
    assert_trn_ok(trn_confusion_add(&confusion, labels, predictions, half, &err), err);
    assert_trn_ok(trn_confusion_add(&confusion, labels + half, predictions + half, count - half, &err), err);
    test_tensor matrix = test_golden_output(id, "confmat");
    uint64_t sum = 0;
    for (int64_t i = 0; i < matrix.count; i++) {
        assert_int_equal(confusion.counts[i], (uint64_t)matrix.data[i]);
        sum += confusion.counts[i];
    }
    trn_class_scores scores = trn_confusion_scores(&confusion);
    assert_int_equal(scores.count, sum);
    assert_near(scores.accuracy, golden_double(id, "overall_accuracy", 0));
    assert_near(scores.accuracy, golden_double(id, "f1_micro", 0));
    assert_near(scores.mean_accuracy, golden_double(id, "balanced_accuracy_macro", 0));
    assert_near(scores.macro_f1, golden_double(id, "f1_macro_present", 0));
    assert_near(scores.mean_iou, golden_double(id, "miou_macro_present", 0));
    assert_near(scores.mean_iou_all, golden_double(id, "miou_macro_all_classes", 0));
    assert_near(scores.micro_iou, golden_double(id, "miou_micro", 0));
    double weighted = 0;
    for (int c = 0; c < classes; c++) {
        uint64_t labelled = 0, seen = 0;
        for (int j = 0; j < classes; j++) {
            labelled += confusion.counts[c * classes + j];
            seen += confusion.counts[j * classes + c];
        }
        weighted += (double)labelled * golden_double(id, "f1_per_class", (size_t)c) / (double)scores.count;
        if (labelled + seen == 0) {
            assert_true(isnan(trn_confusion_iou(&confusion, c)) && isnan(trn_confusion_f1(&confusion, c)));
            continue;
        }
        assert_near(trn_confusion_iou(&confusion, c), golden_double(id, "iou_per_class", (size_t)c));
        assert_near(trn_confusion_f1(&confusion, c), golden_double(id, "f1_per_class", (size_t)c));
    }
    assert_near(scores.weighted_f1, weighted);
    free(matrix.data);
    free(labels);
    free(predictions);
    trn_confusion_free(&confusion);
    assert_true(confusion.counts == NULL && confusion.classes == 0);
}

static void classes_score_as_golden(void **state)
{
    (void)state;
    check_against_golden("metrics/multiclass5", 5);
    check_against_golden("metrics/segmentation_ignore", 6);
}

static void labels_score_as_golden(void **state)
{
    (void)state;
    const char *id = "metrics/multilabel";
    trn_error err = {0};
    size_t values, samples;
    int32_t *labels = golden_integers(id, "target", &values);
    samples = values / 7;
    /* sigmoid(logit) > 0.5 where logit > 0, and the order is the same */
    test_tensor logits = test_golden_input(id, "logits"), ties = test_golden_output(id, "scores_ties");
    trn_multilabel_scores scores;
    assert_trn_ok(trn_multilabel_evaluate(logits.data, labels, samples, 7, 0, &scores, &err), err);
    assert_int_equal(scores.count, 50);
    assert_near(scores.accuracy, golden_double(id, "overall_accuracy_labelwise", 0));
    assert_near(scores.micro_f1, golden_double(id, "f1_micro", 0));
    assert_near(scores.macro_f1, golden_double(id, "f1_macro", 0));
    assert_near(scores.micro_map, golden_double(id, "micro_map", 0));
    assert_near(scores.macro_map, golden_double(id, "macro_map_labels_with_positives", 0));
    assert_trn_ok(trn_multilabel_evaluate(ties.data, labels, samples, 7, 0.5, &scores, &err), err);
    assert_near(scores.micro_map, golden_double(id, "micro_map_ties", 0));
    assert_near(scores.macro_map, golden_double(id, "macro_map_ties_labels_with_positives", 0));
    free(ties.data);
    free(logits.data);
    free(labels);
}

/* Two samples, three labels, by hand. Label 2 never occurs and is predicted nowhere. */
static void labels_score_as_by_hand(void **state)
{
    (void)state;
    static const float scores[] = {0.9F, 0.2F, 0.1F, 0.4F, 0.8F, 0.3F};
    static const int32_t labels[] = {1, 1, 0, 0, 1, 0};
    trn_multilabel_scores out;
    trn_error err = {0};
    assert_trn_ok(trn_multilabel_evaluate(scores, labels, 2, 3, 0.5, &out, &err), err);
    assert_near(out.accuracy, 5.0 / 6);
    assert_near(out.micro_f1, 4.0 / 5);               /* 2 hits, one missed */
    assert_near(out.macro_f1, (1 + 2.0 / 3 + 0) / 3); /* an empty label counts 0 */
    assert_near(out.macro_map, 1); /* label 1: 0.8 and 0.2 are both right; label 2 left out */
    assert_near(out.micro_map, (1 + 1 + 3.0 / 5) / 3);
}

static void nothing_scores_nothing(void **state)
{
    (void)state;
    static const int32_t ignored[3] = {-1, -1, -255}, predictions[3] = {0, 1, 2};
    trn_error err = {0};
    trn_confusion confusion;
    assert_trn_ok(trn_confusion_create(3, &confusion, &err), err);
    assert_trn_ok(trn_confusion_add(&confusion, ignored, predictions, 3, &err), err);
    trn_class_scores scores = trn_confusion_scores(&confusion);
    assert_true(scores.count == 0 && scores.accuracy == 0 && scores.mean_iou == 0 && scores.macro_f1 == 0);
    assert_true(isnan(trn_confusion_iou(&confusion, 3)) && isnan(trn_confusion_f1(&confusion, -1)));
    static const int32_t labels[2] = {2, 1}, right[2] = {2, 1};
    assert_trn_ok(trn_confusion_add(&confusion, labels, right, 2, &err), err);
    assert_near(trn_confusion_scores(&confusion).mean_iou, 1);
    assert_near(trn_confusion_scores(&confusion).mean_iou_all, 2.0 / 3);
    trn_confusion_clear(&confusion);
    assert_int_equal(trn_confusion_scores(&confusion).count, 0);
    trn_confusion_free(&confusion);
    trn_multilabel_scores none;
    assert_trn_ok(trn_multilabel_evaluate(NULL, NULL, 0, 4, 0.5, &none, &err), err);
    assert_true(none.count == 0 && none.micro_map == 0 && none.accuracy == 0);
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_confusion confusion;
    assert_trn_fails(trn_confusion_create(0, &confusion, &err), TRN_ERR_ARGUMENT, err, "0 classes");
    assert_trn_fails(trn_confusion_create(1 << 20, &confusion, &err), TRN_ERR_ARGUMENT, err, "use 1 to");
    assert_trn_ok(trn_confusion_create(2, &confusion, &err), err);
    static const int32_t good[3] = {0, 1, 1}, high[3] = {0, 1, 2}, low[3] = {0, -1, 1};
    assert_trn_fails(trn_confusion_add(&confusion, high, good, 3, &err), TRN_ERR_ARGUMENT, err,
                     "label 2 is 2: classes are 0 to 1");
    assert_trn_fails(trn_confusion_add(&confusion, good, high, 3, &err), TRN_ERR_ARGUMENT, err,
                     "prediction 2 is 2");
    assert_trn_fails(trn_confusion_add(&confusion, good, low, 3, &err), TRN_ERR_ARGUMENT, err,
                     "prediction 1 is -1");
    assert_int_equal(trn_confusion_scores(&confusion).count, 0); /* nothing was added */
    trn_confusion_free(&confusion);
    static const float scores[4] = {0, 1, 0, 1}, hole[4] = {0, 1, NAN, 1};
    static const int32_t labels[4] = {0, 1, 0, 1}, two[4] = {0, 1, 2, 1};
    trn_multilabel_scores out;
    assert_trn_fails(trn_multilabel_evaluate(scores, two, 2, 2, 0.5, &out, &err), TRN_ERR_ARGUMENT, err,
                     "label 0 of sample 1 is 2");
    assert_trn_fails(trn_multilabel_evaluate(hole, labels, 2, 2, 0.5, &out, &err), TRN_ERR_ARGUMENT, err,
                     "the score of label 0 of sample 1 is no number");
    assert_trn_fails(trn_multilabel_evaluate(scores, labels, 2, 0, 0.5, &out, &err), TRN_ERR_ARGUMENT, err,
                     "0 labels");
}

static void metrics_have_names(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_class_scores c = {.accuracy = 1,
                          .mean_accuracy = 2,
                          .macro_f1 = 3,
                          .weighted_f1 = 4,
                          .mean_iou = 5,
                          .mean_iou_all = 6,
                          .micro_iou = 7};
    trn_multilabel_scores l = {.accuracy = 1, .micro_f1 = 2, .macro_f1 = 3, .micro_map = 4, .macro_map = 5};
    static const char *const of_classes[] = {"accuracy", "mean_accuracy", "macro_f1",  "weighted_f1",
                                             "mean_iou", "mean_iou_all",  "micro_iou", "loss"};
    static const char *const of_labels[] = {"accuracy",  "micro_f1",  "macro_f1",
                                            "micro_map", "macro_map", "loss"};
    for (size_t i = 0; i < TRN_COUNT(of_classes); i++) {
        const trn_metric *metric = trn_metric_find(of_classes[i], false, &err);
        assert_non_null(metric);
        assert_near(trn_metric_of_classes(metric, &c, 8), (double)i + 1);
        assert_true(isnan(trn_metric_of_labels(metric, &l, 6)));
        assert_int_equal(metric->lower_is_better, !strcmp(of_classes[i], "loss"));
    }
    for (size_t i = 0; i < TRN_COUNT(of_labels); i++) {
        const trn_metric *metric = trn_metric_find(of_labels[i], true, &err);
        assert_non_null(metric);
        assert_near(trn_metric_of_labels(metric, &l, 6), (double)i + 1);
        assert_true(isnan(trn_metric_of_classes(metric, &c, 8)));
    }
    size_t count = 0;
    for (const trn_metric *metric; (metric = trn_metric_at(count)) != NULL; count++) {
        trn_metric copy = *metric;
        assert_ptr_equal(trn_metric_find(copy.name, copy.multilabel, &err), metric);
        assert_true(strlen(copy.help) > 0);
    }
    assert_int_equal(count, TRN_COUNT(of_classes) + TRN_COUNT(of_labels));
    assert_null(trn_metric_find("mean_iuo", false, &err));
    assert_non_null(strstr(err.message, "did you mean 'mean_iou'?"));
    assert_null(trn_metric_find("micro_map", false, &err)); /* of the other kind */
    assert_int_equal(err.code, TRN_ERR_ARGUMENT);
    assert_null(trn_metric_find("completely different", true, &err));
    assert_non_null(
        strstr(err.message, "use one of accuracy, micro_f1, macro_f1, micro_map, macro_map, loss"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_score_as_golden), cmocka_unit_test(labels_score_as_golden),
        cmocka_unit_test(labels_score_as_by_hand), cmocka_unit_test(nothing_scores_nothing),
        cmocka_unit_test(nonsense_is_refused),     cmocka_unit_test(metrics_have_names),
    };
    return cmocka_run_group_tests_name("eval", tests, NULL, NULL);
}
