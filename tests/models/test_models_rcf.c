/* Random convolutional features: the same every time, and telling textures apart. */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "running.h"

enum { CHANNELS = 2, SIDE = 32, WINDOWS = 6, PIXELS = SIDE * SIDE, COUNT = WINDOWS * CHANNELS * PIXELS };

/* Half of the windows are smooth, half are rough; offset and scale far from 0 and 1. */
static float *make_windows(void)
{
    float *values = test_hash_values("rough", COUNT, 1, 0);
    for (int i = 0; i < COUNT; i++) {
        int window = i / (CHANNELS * PIXELS), x = i % SIDE, y = i / SIDE % SIDE;
        double smooth = sin(0.15 * x + window) * cos(0.1 * y);
        values[i] = (float)(500 + 80 * (window % 2 ? (double)values[i] : smooth));
    }
    return values;
}

static trn_encoder *fitted(const trn_setting *settings, size_t count, const float *windows)
{
    trn_encoder *encoder = make_encoder("rcf", settings, count);
    trn_error err = {0};
    assert_trn_ok(trn_encoder_fit(encoder, windows, WINDOWS, CHANNELS, SIDE, &err), err);
    return encoder;
}

/* Dense and pooled features of all windows. */
static staged features_of(trn_encoder *encoder, float *windows, bool device)
{
    staged s = {.graph = trn_graph_create()};
    trn_error err = {0};
    trn_features dense, mean;
    const trn_encode_options of_mean = {.pool = TRN_FEATURES_MEAN};
    trn_tensor *image = trn_input(s.graph, "image", TRN_F32, TRN_SHAPE(WINDOWS, CHANNELS, SIDE, SIDE));
    assert_trn_ok(trn_encoder_build(encoder, s.graph, image, NULL, &dense, &err), err);
    assert_trn_ok(trn_encoder_build(encoder, s.graph, image, &of_mean, &mean, &err), err);
    staged_add(&s, "dense", dense.grids[0]);
    staged_add(&s, "mean", mean.pooled);
    trn_named_data input = {"image", windows};
    if (device)
        staged_run_device(&s, &input, 1);
    else
        staged_run_reference(&s, &input, 1);
    return s;
}

static const trn_setting few[] = {{"features", "32"}, {"cell", "8"}};

static void test_same_every_time(void **state)
{
    (void)state;
    float *windows = make_windows();
    trn_encoder *a = fitted(few, 2, windows), *b = fitted(few, 2, windows);
    staged sa = features_of(a, windows, true), sb = features_of(b, windows, true);
    assert_int_equal(sa.sizes[0], WINDOWS * 4 * 4 * 32);
    assert_memory_equal(sa.values[0], sb.values[0], (size_t)sa.sizes[0] * sizeof(float));
    assert_memory_equal(sa.values[1], sb.values[1], (size_t)sa.sizes[1] * sizeof(float));
    staged_close(&sa);
    staged_close(&sb);
    trn_encoder_destroy(a);
    trn_encoder_destroy(b);
    free(windows);
}

static void test_seed_matters(void **state)
{
    (void)state;
    const trn_setting seeded[] = {{"features", "32"}, {"cell", "8"}, {"seed", "7"}};
    float *windows = make_windows();
    trn_encoder *a = fitted(few, 2, windows), *b = fitted(seeded, 3, windows);
    staged sa = features_of(a, windows, false), sb = features_of(b, windows, false);
    assert_true(test_worst_error(sa.values[0], sb.values[0], sa.sizes[0], 1) > 0.01);
    staged_close(&sa);
    staged_close(&sb);
    trn_encoder_destroy(a);
    trn_encoder_destroy(b);
    free(windows);
}

static double distance(const float *a, const float *b, int count)
{
    double sum = 0;
    for (int i = 0; i < count; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum);
}

static void test_textures_differ(void **state)
{
    (void)state;
    float *windows = make_windows();
    trn_encoder *encoder = fitted(few, 2, windows);
    staged s = features_of(encoder, windows, true);
    const float *mean = staged_get(&s, "mean");
    double same = distance(mean + 1 * 32, mean + 3 * 32, 32), other = distance(mean, mean + 1 * 32, 32);
    printf("rcf: rough to rough %.4f, rough to smooth %.4f\n", same, other);
    assert_true(other > 5 * same);
    staged_close(&s);
    trn_encoder_destroy(encoder);
    free(windows);
}

static void test_device_matches_reference(void **state)
{
    (void)state;
    float *windows = make_windows();
    trn_encoder *encoder = fitted(few, 2, windows);
    staged a = features_of(encoder, windows, true), b = features_of(encoder, windows, false);
    assert_true(test_worst_error(a.values[0], b.values[0], a.sizes[0], largest(b.values[0], b.sizes[0])) <
                2e-5);
    staged_close(&a);
    staged_close(&b);
    trn_encoder_destroy(encoder);
    free(windows);
}

/* Responses of whitened patches have a deviation near 1: about as many features pass the threshold as of a
 * normal variable. With bias 0, relu(r) + relu(-r) = |r|, whose mean is near 0.8. */
static void test_whitening(void **state)
{
    (void)state;
    const trn_setting open[] = {
        {"features", "64"}, {"bias", "0"}, {"patch", "3"}, {"regularization", "1e-6"}};
    float *windows = test_hash_values("noise", COUNT, 30, 10);
    trn_encoder *encoder = fitted(open, TRN_COUNT(open), windows);
    staged s = features_of(encoder, windows, false);
    const float *mean = staged_get(&s, "mean");
    double total = 0;
    for (int k = 0; k < 32; k++)
        total += (double)mean[k] + (double)mean[32 + k];
    printf("rcf: mean magnitude of a response %.3f\n", total / 32);
    assert_true(total / 32 > 0.7 && total / 32 < 0.9);
    staged_close(&s);
    trn_encoder_destroy(encoder);
    free(windows);
}

static void test_missing_data(void **state)
{
    (void)state;
    float *windows = make_windows();
    for (int i = 0; i < COUNT; i += 97)
        windows[i] = NAN;
    trn_encoder_destroy(fitted(few, 2, windows));
    trn_error err = {0};
    trn_encoder *encoder = make_encoder("rcf", few, 2);
    for (int i = 0; i < COUNT; i++)
        windows[i] = NAN;
    assert_trn_fails(trn_encoder_fit(encoder, windows, WINDOWS, CHANNELS, SIDE, &err), TRN_ERR_ARGUMENT, err,
                     "no finite value");
    for (int i = 0; i < COUNT; i++)
        windows[i] = 3;
    assert_trn_fails(trn_encoder_fit(encoder, windows, WINDOWS, CHANNELS, SIDE, &err), TRN_ERR_ARGUMENT, err,
                     "all alike");
    assert_trn_fails(trn_encoder_fit(encoder, windows, 1, CHANNELS, 3, &err), TRN_ERR_ARGUMENT, err,
                     "smaller than a filter");
    assert_trn_fails(trn_encoder_fit(encoder, windows, 0, CHANNELS, SIDE, &err), TRN_ERR_ARGUMENT, err,
                     "no sample");
    trn_encoder_destroy(encoder);
    const trn_setting large[] = {{"patch", "15"}};
    encoder = make_encoder("rcf", large, 1);
    assert_trn_fails(trn_encoder_fit(encoder, windows, 1, 6, SIDE, &err), TRN_ERR_ARGUMENT, err,
                     "more than 1024");
    trn_encoder_destroy(encoder);
    free(windows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_every_time), cmocka_unit_test(test_seed_matters),
        cmocka_unit_test(test_textures_differ), cmocka_unit_test(test_device_matches_reference),
        cmocka_unit_test(test_whitening),       cmocka_unit_test(test_missing_data),
    };
    return cmocka_run_group_tests(tests, NULL, close_gpu);
}
