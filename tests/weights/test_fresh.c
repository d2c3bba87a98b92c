/* Fresh weights: distributions by name and shape, seeds, and that they serve as weights of a model. */
#include "weights.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "test_support.h"

typedef struct moments {
    double mean, deviation, largest;
} moments;

static moments moments_of(const char *name, int ndim, const int64_t *shape)
{
    size_t count = 1;
    for (int d = 0; d < ndim; d++)
        count *= (size_t)shape[d];
    float *values = malloc(count * sizeof *values);
    assert_non_null(values);
    trn_weights_fresh_values(3, name, ndim, shape, values);
    moments m = {0};
    for (size_t i = 0; i < count; i++) {
        m.mean += values[i] / (double)count;
        m.deviation += (double)values[i] * values[i] / (double)count;
        m.largest = TRN_MAX(m.largest, fabs((double)values[i]));
    }
    m.deviation = sqrt(TRN_MAX(m.deviation - m.mean * m.mean, 0));
    free(values);
    return m;
}

static void matrices_are_normal_and_cut_at_two_deviations(void **state)
{
    (void)state;
    moments m = moments_of("blocks.0.attn.qkv.weight", 2, (int64_t[]){300, 200});
    assert_true(fabs(m.mean) < 5e-4);
    assert_true(fabs(m.deviation - 0.02 * 0.8796) < 3e-4); /* of a normal distribution cut at 2 */
    assert_true(m.largest <= 0.04 + 1e-9 && m.largest > 0.0399);
}

static void kernels_of_convolutions_are_uniform_within_their_fan_in(void **state)
{
    (void)state;
    moments m = moments_of("patch_embed.proj.weight", 4, (int64_t[]){64, 12, 8, 8});
    double limit = 1 / sqrt(12 * 8 * 8);
    assert_true(m.largest <= limit && m.largest > 0.999 * limit);
    assert_true(fabs(m.deviation - limit / sqrt(3)) < 0.01 * limit);
}

static void positions_and_tokens_are_normal(void **state)
{
    (void)state;
    static const char *const names[] = {"pos_embed", "cls_token", "encoder.pos_embed_window", "pool.latent"};
    for (size_t i = 0; i < TRN_COUNT(names); i++) {
        moments m = moments_of(names[i], 3, (int64_t[]){1, 196, 192});
        assert_true(fabs(m.deviation - 0.02) < 3e-4);
        assert_true(m.largest > 0.06); /* not cut */
    }
}

static void constants_follow_names(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        float value;
    } cases[] = {
        {"norm.weight", 1},
        {"norm.bias", 0},
        {"blocks.3.ls1.gamma", 1e-5F},
        {"bn.running_mean", 0},
        {"bn.running_var", 1},
        {"head.fc.bias", 0},
        {"temporal.scale", 0.1F},
        {"bn.num_batches_tracked", 0},
    };
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        float values[5];
        trn_weights_fresh_values(9, cases[i].name, 1, (int64_t[]){5}, values);
        for (int k = 0; k < 5; k++)
            assert_float_equal(values[k], cases[i].value, 0);
    }
}

static void the_seed_and_the_name_decide(void **state)
{
    (void)state;
    int64_t shape[] = {4, 4};
    float one[16], again[16], other_seed[16], other_name[16];
    trn_weights_fresh_values(1, "fc.weight", 2, shape, one);
    trn_weights_fresh_values(1, "fc.weight", 2, shape, again);
    trn_weights_fresh_values(2, "fc.weight", 2, shape, other_seed);
    trn_weights_fresh_values(1, "fc2.weight", 2, shape, other_name);
    assert_memory_equal(one, again, sizeof one);
    assert_memory_not_equal(one, other_seed, sizeof one);
    assert_memory_not_equal(one, other_name, sizeof one);
}

static void they_are_weights_that_have_every_tensor(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_weights *weights;
    int64_t shape[] = {3, 5};
    float read[15], made[15];
    assert_trn_ok(trn_weights_open_fresh(17, &weights, &err), err);
    assert_true(trn_weights_is_synthetic(weights));
    assert_string_equal(trn_weights_path(weights), "fresh weights of seed 17");
    assert_trn_ok(trn_weights_read(weights, "fc.weight", shape, 2, read, &err), err);
    trn_weights_fresh_values(17, "fc.weight", 2, shape, made);
    assert_memory_equal(read, made, sizeof read);
    assert_int_equal(trn_weights_report(weights).used, 1);
    assert_int_equal(trn_weights_report(weights).parameters, 15);
    trn_weights_close(weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matrices_are_normal_and_cut_at_two_deviations),
        cmocka_unit_test(kernels_of_convolutions_are_uniform_within_their_fan_in),
        cmocka_unit_test(positions_and_tokens_are_normal),
        cmocka_unit_test(constants_follow_names),
        cmocka_unit_test(the_seed_and_the_name_decide),
        cmocka_unit_test(they_are_weights_that_have_every_tensor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
