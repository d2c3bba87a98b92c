/* Random numbers: the published ones, independent of the batch they are in, uniform, and independent of each
 * other. That devices give the same bits is tested with the other operators. */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph.h"

enum { ROWS = 16, COLUMNS = 1001, ALL = ROWS * COLUMNS };

/* Of rows whose counters are (first + row, step). */
static void numbers(int64_t first, int32_t step, uint64_t seed, uint32_t stream, trn_shape shape,
                    float *values)
{
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    int32_t rows[ROWS][2];
    assert_in_range(shape.dim[0], 1, ROWS);
    for (int64_t i = 0; i < shape.dim[0]; i++) {
        rows[i][0] = (int32_t)(first + i);
        rows[i][1] = step;
    }
    trn_tensor *counters = trn_input(graph, "counters", TRN_I32, TRN_SHAPE(shape.dim[0], 2));
    trn_output_add(graph, "y", trn_random_uniform(graph, counters, seed, stream, shape));
    trn_named_data in = {"counters", rows}, out = {"y", values};
    assert_trn_ok(trn_reference_run(graph, &in, 1, &out, 1, &err), err);
    trn_graph_destroy(graph);
}

static void expect_words(const float *values, const uint32_t words[4])
{
    for (int i = 0; i < 4; i++)
        assert_true(values[i] == (float)(words[i] >> 8) / 16777216.0F);
}

/* Philox4x32-10 of counter (number / 4, stream, counters), key (seed): the first is the published answer, the
 * second is of an independent program that gives all three published ones. */
static void numbers_are_the_published_ones(void **state)
{
    (void)state;
    float values[8];
    numbers(0, 0, 0, 0, TRN_SHAPE(1, 4), values);
    expect_words(values, (uint32_t[]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
    numbers(0x13198a2e, INT32_MIN + 0x03707344, 0x299f31d0a4093822, 0x85a308d3, TRN_SHAPE(1, 8), values);
    expect_words(values + 4, (uint32_t[]){0x5901a42, 0xa7b15de3, 0xcf7a6522, 0x320d119a});
}

static void rows_do_not_depend_on_their_batch(void **state)
{
    (void)state;
    static float all[ALL], one[COLUMNS];
    numbers(100, 7, 42, 3, TRN_SHAPE(ROWS, COLUMNS), all);
    for (int row = 0; row < ROWS; row++) {
        numbers(100 + row, 7, 42, 3, TRN_SHAPE(1, 7, 11, 13), one); /* 7 * 11 * 13 = COLUMNS */
        assert_memory_equal(all + (size_t)row * COLUMNS, one, sizeof one);
    }
    numbers(103, 7, 42, 3, TRN_SHAPE(1, 5), one); /* nor on the length of the row */
    assert_memory_equal(all + (size_t)3 * COLUMNS, one, 5 * sizeof *one);
}

/* Mean, variance, and 64 equal bins: chi squared of 63 degrees of freedom is below 120 but for one in 10^5.
 */
static void numbers_are_uniform(void **state)
{
    (void)state;
    static float values[ALL];
    for (uint32_t stream = 0; stream < 4; stream++) {
        double sum = 0, squares = 0, chi = 0;
        int bins[64] = {0};
        numbers(0, 0, 1, stream, TRN_SHAPE(ROWS, COLUMNS), values);
        for (int i = 0; i < ALL; i++) {
            assert_true(values[i] >= 0 && values[i] < 1);
            sum += (double)values[i];
            squares += (double)values[i] * (double)values[i];
            bins[(int)(values[i] * 64)]++;
        }
        for (int i = 0; i < 64; i++)
            chi += (bins[i] - ALL / 64.0) * (bins[i] - ALL / 64.0) / (ALL / 64.0);
        assert_true(fabs(sum / ALL - 0.5) < 5 * sqrt(1.0 / 12 / ALL));
        assert_true(fabs(squares / ALL - 1.0 / 3) < 5 * sqrt(4.0 / 45 / ALL));
        assert_true(chi < 120 && chi > 25);
    }
}

static double correlation(const float *a, const float *b, int count)
{
    double sum = 0;
    for (int i = 0; i < count; i++)
        sum += ((double)a[i] - 0.5) * ((double)b[i] - 0.5);
    return 12 * sum / count;
}

/* Neighbours, and numbers whose seed, stream, step or sample is one further, have nothing to do with each
 * other. */
static void numbers_are_independent(void **state)
{
    (void)state;
    static float a[ALL], b[ALL];
    const double limit = 5 / sqrt((double)ALL);
    numbers(0, 0, 5, 0, TRN_SHAPE(ROWS, COLUMNS), a);
    for (int lag = 1; lag <= 5; lag++)
        assert_true(fabs(correlation(a, a + lag, ALL - lag)) < limit);
    for (int what = 0; what < 4; what++) {
        numbers(what == 0, what == 1, what == 2 ? 6 : 5, what == 3, TRN_SHAPE(ROWS, COLUMNS), b);
        assert_true(fabs(correlation(a, b, ALL)) < limit);
    }
    numbers(0, 0, UINT64_C(5) + (UINT64_C(1) << 32), 0, TRN_SHAPE(ROWS, COLUMNS), b);
    assert_true(fabs(correlation(a, b, ALL)) < limit);
}

static void wrong_counters_are_refused(void **state)
{
    (void)state;
    const trn_shape shapes[] = {TRN_SHAPE(4), TRN_SHAPE(4, 3), TRN_SHAPE(3, 2), TRN_SHAPE(4, 2)};
    for (int i = 0; i < 4; i++) {
        trn_error err = {0};
        trn_graph *graph = trn_graph_create();
        trn_tensor *counters = trn_input(graph, "counters", i == 3 ? TRN_F32 : TRN_I32, shapes[i]);
        assert_null(trn_random_uniform(graph, counters, 0, 0, TRN_SHAPE(4, 5)));
        assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, "two integers a row");
        trn_graph_destroy(graph);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_the_published_ones),
        cmocka_unit_test(rows_do_not_depend_on_their_batch),
        cmocka_unit_test(numbers_are_uniform),
        cmocka_unit_test(numbers_are_independent),
        cmocka_unit_test(wrong_counters_are_refused),
    };
    return cmocka_run_group_tests_name("random", tests, NULL, NULL);
}
