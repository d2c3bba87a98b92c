/* Probes against the golden numbers, and on data made for what goldens do not show: blocks, ties, scales,
 * several labels, missing splits, bad input. */
#include "probe_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "test_device.h"
#include "test_support.h"

/* ---- sets ---- */

static int32_t *to_labels(test_tensor *tensor)
{
    int32_t *labels = malloc((size_t)tensor->count * sizeof *labels);
    assert_non_null(labels);
    for (int64_t i = 0; i < tensor->count; i++)
        labels[i] = (int32_t)tensor->data[i];
    free(tensor->data);
    return labels;
}

static trn_feature_set golden_set(const char *id, const char *x, const char *y)
{
    test_tensor values = test_golden_input(id, x), labels = test_golden_input(id, y);
    size_t count = (size_t)values.shape[0], label_count = (size_t)(labels.count / values.shape[0]);
    return (trn_feature_set){.count = count,
                             .channels = values.shape[1],
                             .values = values.data,
                             .labels = to_labels(&labels),
                             .label_count = label_count};
}

/* Features of a class lie around a centre of its own, `spread` wide. */
static trn_feature_set clusters(const char *name, size_t count, int64_t channels, int classes, double spread)
{
    trn_feature_set set = {.count = count, .channels = channels, .label_count = 1};
    set.values = test_hash_values(name, (int64_t)count * channels, spread, 0);
    set.labels = malloc(count * sizeof *set.labels);
    assert_non_null(set.labels);
    float *centres = test_hash_values("centres", channels * classes, 1, 0);
    for (size_t i = 0; i < count; i++) {
        set.labels[i] = (int32_t)(i * 7 % (size_t)classes);
        for (int64_t c = 0; c < channels; c++)
            set.values[(int64_t)i * channels + c] += centres[set.labels[i] * channels + c];
    }
    free(centres);
    return set;
}

static trn_feature_set copy_of(const trn_feature_set *set)
{
    trn_error err = {0};
    trn_feature_set copy;
    assert_trn_ok(learn_join_sets(set, NULL, &copy, &err), err);
    return copy;
}

static double golden_number(const char *id, const char *name)
{
    test_tensor tensor = test_golden_output(id, name);
    double value = tensor.data[0];
    free(tensor.data);
    return value;
}

/* ---- kNN ---- */

static void knn_gives_the_votes_of_the_golden_numbers(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_feature_set train = golden_set("metrics/knn5", "x_train", "y_train"),
                    test = golden_set("metrics/knn5", "x_test", "y_test");
    trn_probe_sets sets = {.train = &train, .test = &test, .classes = 4};
    trn_probe_scores scores;
    trn_knn_options options = {.k = 5, .distance = TRN_DISTANCE_L2};
    assert_trn_ok(trn_probe_knn(gpu, &sets, &options, &scores, &err), err);
    assert_float_equal(scores.test.accuracy, golden_number("metrics/knn5", "accuracy"), 1e-7);
    assert_int_equal(scores.test.count, 40);
    assert_int_equal(scores.valid.count, 0);
    options.distance = TRN_DISTANCE_COSINE;
    assert_trn_ok(trn_probe_knn(gpu, &sets, &options, &scores, &err), err);
    assert_float_equal(scores.test.accuracy, golden_number("metrics/knn5", "cosine_accuracy"), 1e-7);
    /* the predictions themselves: as labels, they must be hit exactly */
    static const struct {
        const char *name;
        trn_distance distance;
    } cases[] = {{"pred", TRN_DISTANCE_L2}, {"cosine_pred", TRN_DISTANCE_COSINE}};
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        test_tensor predictions = test_golden_output("metrics/knn5", cases[i].name);
        free(test.labels);
        test.labels = to_labels(&predictions);
        options.distance = cases[i].distance;
        assert_trn_ok(trn_probe_knn(gpu, &sets, &options, &scores, &err), err);
        assert_float_equal(scores.test.accuracy, 1, 0);
    }
    trn_feature_set_free(&train);
    trn_feature_set_free(&test);
}

static void knn_of_several_labels_is_golden(void **state)
{
    (void)state;
    const char *id = "metrics/knn5_multilabel";
    trn_error err = {0};
    trn_feature_set train = golden_set(id, "x_train", "y_train"), test = golden_set(id, "x_test", "y_test");
    trn_probe_sets sets = {.train = &train, .test = &test, .task = TRN_TASK_MULTILABEL, .classes = 4};
    trn_probe_scores scores;
    trn_knn_options options = {.distance = TRN_DISTANCE_L2}; /* k is 5 by itself */
    assert_trn_ok(trn_probe_knn(gpu, &sets, &options, &scores, &err), err);
    assert_float_equal(scores.test_labels.micro_map, golden_number(id, "micro_map"), 1e-7);
    assert_float_equal(scores.test_labels.micro_f1, golden_number(id, "f1_micro"), 1e-7);
    assert_float_equal(scores.test_labels.macro_f1, golden_number(id, "f1_macro"), 1e-7);
    assert_float_equal(scores.parameter, 5, 0);
    trn_feature_set_free(&train);
    trn_feature_set_free(&test);
}

static double plain_distance(const float *a, const float *b, const double *mean, int64_t n,
                             trn_distance distance)
{
    double squares = 0, ab = 0, aa = 0, bb = 0;
    for (int64_t c = 0; c < n; c++) {
        double p = a[c] - mean[c], q = b[c] - mean[c];
        squares += (p - q) * (p - q);
        ab += p * q;
        aa += p * p;
        bb += q * q;
    }
    return distance == TRN_DISTANCE_L2 ? squares : -ab / sqrt(aa * bb);
}

/* The nearest sample's label, by looking at all in double. */
static int32_t plain_nearest(const trn_feature_set *train, const float *query, const double *mean,
                             trn_distance distance)
{
    size_t best = 0;
    double least = INFINITY;
    for (size_t i = 0; i < train->count; i++) {
        double d = plain_distance(query, train->values + (int64_t)i * train->channels, mean, train->channels,
                                  distance);
        if (d < least) best = i;
        least = fmin(least, d);
    }
    return train->labels[best];
}

/* More than one block of training samples and of queries, the last ones not full, and features so far from
 * zero that float32 alone would confuse neighbours. */
static void knn_searches_blocks_exactly(void **state)
{
    (void)state;
    enum { CHANNELS = 5, CLASSES = 3 };
    trn_error err = {0};
    trn_feature_set train = clusters("blocks", 2500, CHANNELS, CLASSES, 2),
                    test = clusters("queries", 300, CHANNELS, CLASSES, 2);
    for (size_t i = 0; i < train.count * CHANNELS; i++)
        train.values[i] += 1000;
    for (size_t i = 0; i < test.count * CHANNELS; i++)
        test.values[i] += 1000;
    learn_scaling means;
    assert_trn_ok(learn_scaling_open(&train, true, false, &means, &err), err);
    trn_probe_sets sets = {.train = &train, .test = &test, .classes = CLASSES};
    for (int d = 0; d < 2; d++) {
        trn_knn_options options = {.k = 1, .distance = (trn_distance)d, .center = true};
        trn_probe_scores scores;
        for (size_t i = 0; i < test.count; i++)
            test.labels[i] = plain_nearest(&train, test.values + i * CHANNELS, means.mean, options.distance);
        assert_trn_ok(trn_probe_knn(gpu, &sets, &options, &scores, &err), err);
        assert_float_equal(scores.test.accuracy, 1, 0);
    }
    learn_scaling_close(&means);
    trn_feature_set_free(&train);
    trn_feature_set_free(&test);
}

static void knn_ties_go_to_the_smallest_class(void **state)
{
    (void)state;
    trn_error err = {0};
    float train_values[] = {1, -1, 3, -3}, test_values[] = {0.1F};
    int32_t train_labels[] = {2, 1, 2, 1}, test_labels[] = {1};
    trn_feature_set
        train = {.count = 4, .channels = 1, .values = train_values, .labels = train_labels, .label_count = 1},
        test = {.count = 1, .channels = 1, .values = test_values, .labels = test_labels, .label_count = 1};
    trn_probe_sets sets = {.train = &train, .test = &test, .classes = 3};
    trn_knn_options options = {.k = 4, .distance = TRN_DISTANCE_L2};
    trn_probe_scores scores;
    assert_trn_ok(trn_probe_knn(gpu, &sets, &options, &scores, &err), err);
    assert_float_equal(scores.test.accuracy, 1, 0);
    options.k = 5;
    assert_trn_fails(trn_probe_knn(gpu, &sets, &options, &scores, &err), TRN_ERR_ARGUMENT, err,
                     "5 neighbours of 4");
}

/* ---- logistic regression ---- */

static void compare_logistic(const char *id, double c, trn_task task, int classes)
{
    trn_error err = {0};
    trn_feature_set train = golden_set(id, "x_train", "y_train"), test = {0};
    bool single = task == TRN_TASK_CLASSIFICATION;
    if (single) test = golden_set(id, "x_test", "y_test");
    trn_probe_sets sets = {.train = &train, .test = &test, .task = task, .classes = classes};
    trn_logistic_options options = {.grid = &c, .grid_count = 1};
    trn_probe_scores scores;
    float weights[4 * 6], bias[4];
    assert_trn_ok(trn_probe_logistic(gpu, &sets, &options, NULL, &scores, weights, bias, &err), err);
    assert_true(scores.converged);
    test_compare_golden(id, "coef", weights, classes * 6, 1e-3);
    test_compare_golden(id, "intercept", bias, classes, 1e-3);
    double objective = golden_number(id, "objective");
    assert_float_equal(scores.train_loss * 90, objective, 1e-5 * objective);
    if (single) assert_float_equal(scores.test.accuracy, golden_number(id, "accuracy_test"), 1e-7);
    trn_feature_set_free(&train);
    trn_feature_set_free(&test);
}

static void logistic_regression_is_golden(void **state)
{
    (void)state;
    compare_logistic("metrics/logreg_C0.1", 0.1, TRN_TASK_CLASSIFICATION, 4);
    compare_logistic("metrics/logreg_C10", 10, TRN_TASK_CLASSIFICATION, 4);
    compare_logistic("metrics/logreg_multilabel_C0.1", 0.1, TRN_TASK_MULTILABEL, 3);
    compare_logistic("metrics/logreg_multilabel_C10", 10, TRN_TASK_MULTILABEL, 3);
}

/* Features of scales from 1e-3 to 1e3 far from zero: standardised, the weights that come back are still those
 * of the features as given. */
static void standardizing_folds_back_into_the_weights(void **state)
{
    (void)state;
    enum { CHANNELS = 4, CLASSES = 3, COUNT = 200 };
    trn_error err = {0};
    trn_feature_set train = clusters("scales", COUNT, CHANNELS, CLASSES, 0.8);
    for (size_t i = 0; i < COUNT * CHANNELS; i++)
        train.values[i] = (float)(train.values[i] * pow(10, -3 + 2 * (double)(i % CHANNELS)) + 5);
    trn_probe_sets sets = {.train = &train, .test = &train, .classes = CLASSES};
    double c = 1;
    trn_logistic_options options = {.grid = &c, .grid_count = 1, .standardize = true};
    trn_probe_scores scores;
    float weights[CLASSES * CHANNELS], bias[CLASSES];
    assert_trn_ok(trn_probe_logistic(gpu, &sets, &options, NULL, &scores, weights, bias, &err), err);
    assert_true(scores.converged);
    size_t right = 0;
    for (size_t i = 0; i < COUNT; i++) {
        double best = -INFINITY;
        int32_t at = 0;
        for (int32_t k = 0; k < CLASSES; k++) {
            double z = bias[k];
            for (size_t ch = 0; ch < CHANNELS; ch++)
                z += (double)weights[(size_t)k * CHANNELS + ch] * train.values[i * CHANNELS + ch];
            if (z > best) at = k;
            best = fmax(best, z);
        }
        right += at == train.labels[i];
    }
    assert_true(scores.test.accuracy > 0.7);
    assert_float_equal((double)right / COUNT, scores.test.accuracy, 1e-9);
    trn_feature_set_free(&train);
}

static trn_probe_scores logistic_with(const trn_probe_sets *sets, const double *grid, size_t count,
                                      bool refit)
{
    trn_error err = {0};
    trn_logistic_options options = {.grid = grid, .grid_count = count, .refit = refit};
    trn_probe_scores scores;
    assert_trn_ok(trn_probe_logistic(gpu, sets, &options, NULL, &scores, NULL, NULL, &err), err);
    return scores;
}

/* The first of the values that are best on validation when each is tried alone. */
static void c_is_chosen_on_validation(void **state)
{
    (void)state;
    enum { GRID = 6 };
    trn_feature_set train = clusters("train", 150, 6, 5, 1.2), valid = clusters("valid", 50, 6, 5, 1.2),
                    test = clusters("test", 60, 6, 5, 1.2);
    trn_probe_sets sets = {.train = &train, .valid = &valid, .test = &test, .classes = 5};
    double grid[GRID] = {1e-4, 1e-2, 1e-1, 1, 10, 1e3}, best = -1, worst = 2;
    trn_probe_scores first = {0}, chosen;
    for (size_t i = 0; i < GRID; i++) {
        trn_probe_scores alone = logistic_with(&sets, &grid[i], 1, false);
        if (alone.valid.accuracy > best) first = alone;
        best = fmax(best, alone.valid.accuracy);
        worst = fmin(worst, alone.valid.accuracy);
    }
    assert_true(worst < best); /* there is something to choose */
    chosen = logistic_with(&sets, grid, GRID, false);
    assert_float_equal(chosen.parameter, first.parameter, 0);
    assert_float_equal(chosen.valid.accuracy, first.valid.accuracy, 0);
    assert_float_equal(chosen.test.accuracy, first.test.accuracy, 1.0 / 60 + 1e-9);
    chosen = logistic_with(&sets, grid, GRID, true);
    assert_float_equal(chosen.parameter, first.parameter, 0);
    assert_true(fabs(chosen.train_loss - first.train_loss) > 1e-4); /* other samples */
    /* without validation samples a fifth of the training samples stands in */
    sets.valid = NULL;
    chosen = logistic_with(&sets, grid, GRID, false);
    assert_int_equal(chosen.valid.count, 30);
    assert_true(chosen.test.accuracy > 0.6);
    trn_feature_set_free(&train);
    trn_feature_set_free(&valid);
    trn_feature_set_free(&test);
}

/* ---- L-BFGS ---- */

/* Rosenbrock's valley: not convex, badly scaled, its minimum 0 at ones. */
static trn_status valley(void *user, const double *x, double *value, double *gradient, trn_error *err)
{
    (void)err;
    ++*(int *)user;
    double a = 1 - x[0], b = x[1] - x[0] * x[0];
    *value = a * a + 100 * b * b;
    gradient[0] = -2 * a - 400 * x[0] * b;
    gradient[1] = 200 * b;
    return TRN_OK;
}

static void lbfgs_finds_the_bottom_of_a_valley(void **state)
{
    (void)state;
    trn_error err = {0};
    int calls = 0;
    double x[2] = {-1.2, 1};
    lbfgs_options options = {.max_iterations = 100, .tolerance = 1e-8};
    lbfgs_result result;
    assert_trn_ok(learn_lbfgs(valley, &calls, 2, x, &options, &result, &err), err);
    assert_true(result.converged);
    assert_true(calls < 150);
    assert_float_equal(x[0], 1, 1e-7);
    assert_float_equal(x[1], 1, 1e-7);
    x[0] = -1.2;
    options.max_iterations = 3;
    assert_trn_ok(learn_lbfgs(valley, &calls, 2, x, &options, &result, &err), err);
    assert_false(result.converged);
    assert_int_equal(result.iterations, 3);
}

/* ---- the linear probe ---- */

static void the_linear_probe_learns_and_repeats_itself(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_feature_set train = clusters("train", 301, 8, 4, 0.6), valid = clusters("valid", 64, 8, 4, 0.6),
                    test = clusters("test", 100, 8, 4, 0.6);
    trn_probe_sets sets = {.train = &train, .valid = &valid, .test = &test, .classes = 4};
    trn_linear_options options = {.epochs = 30, .batch = 64, .batch_norm = true, .seed = 3};
    trn_probe_scores one, two;
    assert_trn_ok(trn_probe_linear(gpu, &sets, &options, NULL, &one, &err), err);
    double grid = 1; /* logistic regression is the same model with another search */
    assert_true(one.test.accuracy > logistic_with(&sets, &grid, 1, false).test.accuracy - 0.05);
    assert_true(one.test.accuracy > 0.8);
    assert_true(one.train_loss > 0 && one.train_loss < log(4) / 2);
    assert_true(one.iterations >= 1 && one.iterations <= 30);
    assert_trn_ok(trn_probe_linear(gpu, &sets, &options, NULL, &two, &err), err);
    one.seconds = two.seconds = 0;
    assert_memory_equal(&one, &two, sizeof one);
    sets.valid = NULL;
    assert_trn_ok(trn_probe_linear(gpu, &sets, &options, NULL, &two, &err), err);
    assert_true(two.test.accuracy > 0.8);
    assert_int_equal(two.valid.count, 60); /* 15 of each class */
    trn_feature_set_free(&train);
    trn_feature_set_free(&valid);
    trn_feature_set_free(&test);
}

/* With batch norm a shift and a scale of any feature change nothing that matters. */
static void batch_norm_makes_the_linear_probe_deaf_to_scales(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_feature_set train = clusters("train", 200, 8, 4, 0.6), test = clusters("test", 100, 8, 4, 0.6);
    for (size_t i = 0; i < train.count * 8; i++)
        train.values[i] = (float)(train.values[i] * pow(10, (double)(i % 8) - 4) + 3);
    for (size_t i = 0; i < test.count * 8; i++)
        test.values[i] = (float)(test.values[i] * pow(10, (double)(i % 8) - 4) + 3);
    trn_probe_sets sets = {.train = &train, .valid = &test, .test = &test, .classes = 4};
    double rate = 1e-2;
    trn_linear_options options = {.epochs = 30, .rates = &rate, .rate_count = 1, .batch_norm = true};
    trn_probe_scores scores;
    assert_trn_ok(trn_probe_linear(gpu, &sets, &options, NULL, &scores, &err), err);
    assert_true(scores.test.accuracy > 0.9);
    assert_float_equal(scores.parameter, 1e-2, 0);
    trn_feature_set_free(&train);
    trn_feature_set_free(&test);
}

static void probes_learn_several_labels(void **state)
{
    (void)state;
    enum { COUNT = 240, CHANNELS = 5, LABELS = 3 };
    trn_error err = {0};
    trn_feature_set train = {.count = COUNT, .channels = CHANNELS, .label_count = LABELS};
    train.values = test_hash_values("labels", COUNT * CHANNELS, 1, 0);
    train.labels = malloc(COUNT * LABELS * sizeof *train.labels);
    assert_non_null(train.labels);
    for (size_t i = 0; i < COUNT * LABELS; i++)
        train.labels[i] = train.values[i / LABELS * CHANNELS + i % LABELS] > 0.2F;
    trn_probe_sets sets = {
        .train = &train, .valid = &train, .test = &train, .task = TRN_TASK_MULTILABEL, .classes = LABELS};
    trn_probe_scores scores;
    trn_linear_options linear = {.epochs = 60, .batch = 48, .batch_norm = true};
    assert_trn_ok(trn_probe_linear(gpu, &sets, &linear, NULL, &scores, &err), err);
    assert_true(scores.test_labels.micro_map > 0.97 && scores.test_labels.accuracy > 0.9);
    trn_logistic_options logistic = {.standardize = true};
    assert_trn_ok(trn_probe_logistic(gpu, &sets, &logistic, NULL, &scores, NULL, NULL, &err), err);
    assert_true(scores.test_labels.micro_map > 0.99 && scores.test_labels.accuracy > 0.95);
    trn_feature_set_free(&train);
}

/* ---- bad input ---- */

static bool stop(void *user)
{
    (void)user;
    return true;
}

static void bad_input_is_named(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_feature_set train = clusters("train", 40, 3, 4, 0.5), bad = copy_of(&train), none = {0};
    trn_probe_sets sets = {.train = &bad, .classes = 4};
    trn_probe_scores scores;
    trn_knn_options knn = {0};
    trn_logistic_options logistic = {0};
    trn_linear_options linear = {0};
    bad.labels[7] = 4;
    assert_trn_fails(trn_probe_knn(gpu, &sets, &knn, &scores, &err), TRN_ERR_ARGUMENT, err,
                     "the label of training sample 7 is 4");
    bad.labels[7] = train.labels[7];
    bad.values[3 * 5 + 1] = NAN;
    assert_trn_fails(trn_probe_linear(gpu, &sets, &linear, NULL, &scores, &err), TRN_ERR_ARGUMENT, err,
                     "feature 1 of training sample 5");
    sets.train = &train;
    sets.classes = 5;
    assert_trn_fails(trn_probe_logistic(gpu, &sets, &logistic, NULL, &scores, NULL, NULL, &err),
                     TRN_ERR_ARGUMENT, err, "class 4 has no training sample");
    sets.classes = 4;
    bad.channels = 1;
    sets.test = &bad;
    assert_trn_fails(trn_probe_knn(gpu, &sets, &knn, &scores, &err), TRN_ERR_ARGUMENT, err,
                     "the test features have 1 channels");
    sets.test = NULL;
    sets.train = &none;
    assert_trn_fails(trn_probe_knn(gpu, &sets, &knn, &scores, &err), TRN_ERR_ARGUMENT, err,
                     "no training samples");
    sets.train = &train;
    sets.task = TRN_TASK_SEGMENTATION;
    assert_trn_fails(trn_probe_knn(gpu, &sets, &knn, &scores, &err), TRN_ERR_ARGUMENT, err, "pixels");
    sets.task = TRN_TASK_CLASSIFICATION;
    double grid[] = {0};
    logistic = (trn_logistic_options){.grid = grid, .grid_count = 1};
    assert_trn_fails(trn_probe_logistic(gpu, &sets, &logistic, NULL, &scores, NULL, NULL, &err),
                     TRN_ERR_ARGUMENT, err, "C is 0");
    linear = (trn_linear_options){.rates = grid, .rate_count = 1};
    assert_trn_fails(trn_probe_linear(gpu, &sets, &linear, NULL, &scores, &err), TRN_ERR_ARGUMENT, err,
                     "learning rate of 0");
    trn_learn_hooks hooks = {.progress = {.cancelled = stop}};
    linear = (trn_linear_options){0};
    assert_trn_fails(trn_probe_linear(gpu, &sets, &linear, &hooks, &scores, &err), TRN_ERR_CANCELLED, err,
                     "linear probe");
    trn_feature_set_free(&train);
    trn_feature_set_free(&bad);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knn_gives_the_votes_of_the_golden_numbers),
        cmocka_unit_test(knn_of_several_labels_is_golden),
        cmocka_unit_test(knn_searches_blocks_exactly),
        cmocka_unit_test(knn_ties_go_to_the_smallest_class),
        cmocka_unit_test(logistic_regression_is_golden),
        cmocka_unit_test(standardizing_folds_back_into_the_weights),
        cmocka_unit_test(c_is_chosen_on_validation),
        cmocka_unit_test(lbfgs_finds_the_bottom_of_a_valley),
        cmocka_unit_test(the_linear_probe_learns_and_repeats_itself),
        cmocka_unit_test(batch_norm_makes_the_linear_probe_deaf_to_scales),
        cmocka_unit_test(probes_learn_several_labels),
        cmocka_unit_test(bad_input_is_named),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
