/* Runs in flight: the bits of runs one by one, whatever the order of finishing; cancelling, lost devices and
 * wrong use leave nothing behind. And the same graph on devices that are made weaker. */
#include "test_device.h"
#include "test_graph.h"
#include "test_support.h"

#include <stdlib.h>
#include <string.h>

#include "graph.h"

enum { B = 2, N = 24, C = 48, HEADS = 3, RUNS = 7, VALUES = B * N * C, SEATS = 2 };

static double scale_of_parameters = 0.2;

/* An attention block without its projections, and a perceptron. */
static trn_graph *block_graph(void)
{
    trn_graph *graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(B, N, C));
    trn_tensor *norm = trn_param(graph, "norm", TRN_SHAPE(C), test_fill, &scale_of_parameters);
    trn_tensor *up = trn_param(graph, "up", TRN_SHAPE(4 * C, C), test_fill, &scale_of_parameters);
    trn_tensor *down = trn_param(graph, "down", TRN_SHAPE(C, 4 * C), test_fill, &scale_of_parameters);
    trn_tensor *y = trn_layer_norm(graph, x, norm, NULL, 1e-5F);
    y = trn_unary(graph, "gelu", trn_linear(graph, y, up, NULL));
    y = trn_add(graph, x, trn_linear(graph, y, down, NULL));
    trn_output_add(graph, "y", y);
    trn_output_add(graph, "chances", trn_softmax(graph, y));
    return graph;
}

static float *input_of(int run)
{
    char name[16];
    snprintf(name, sizeof name, "run.%d", run);
    return test_hash_values(name, VALUES, 1, 0);
}

static void start_run(trn_exec *exec, int seat, int run)
{
    trn_error err = {0};
    float *x = input_of(run);
    assert_trn_ok(trn_exec_seat_set(exec, seat, "x", x, &err), err);
    assert_trn_ok(trn_exec_start(exec, seat, NULL, &err), err);
    free(x);
}

static void same_bits_as_one_by_one(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_graph *graph = block_graph();
    trn_exec *alone, *seated;
    float *expected[RUNS], *chances = malloc(VALUES * sizeof *chances);
    assert_trn_ok(trn_compile(graph, gpu, NULL, &alone, &err), err);
    assert_trn_ok(trn_compile(graph, gpu, &(trn_compile_options){.seats = SEATS}, &seated, &err), err);
    assert_true(trn_exec_summarize(seated).seat_bytes == SEATS * 3u * VALUES * sizeof(float));
    assert_true(trn_exec_summarize(alone).seat_bytes == 0);
    for (int run = 0; run < RUNS; run++) {
        float *x = input_of(run);
        expected[run] = malloc(VALUES * sizeof(float));
        assert_trn_ok(trn_exec_set(alone, "x", x, &err), err);
        assert_trn_ok(trn_exec_run(alone, NULL, &err), err);
        assert_trn_ok(trn_exec_get(alone, "y", expected[run], &err), err);
        free(x);
    }
    assert_trn_ok(trn_exec_get(alone, "chances", chances, &err), err);
    for (int run = 0; run < RUNS + SEATS; run++) {
        int seat = run % SEATS;
        if (run >= SEATS) { /* the run before last, while the last one may still be under way */
            assert_trn_ok(trn_exec_advance(seated, &err), err);
            assert_trn_ok(trn_exec_finish(seated, seat, NULL, &err), err);
            const float *y = trn_exec_seat_get(seated, seat, "y", &err);
            assert_non_null(y);
            assert_memory_equal(y, expected[run - SEATS], VALUES * sizeof *y);
        }
        if (run < RUNS) start_run(seated, seat, run);
    }
    const float *last = trn_exec_seat_get(seated, (RUNS - 1) % SEATS, "chances", &err);
    assert_non_null(last);
    assert_memory_equal(last, chances, VALUES * sizeof *last);
    for (int run = 0; run < RUNS; run++)
        free(expected[run]);
    free(chances);
    trn_exec_destroy(seated);
    trn_exec_destroy(alone);
    trn_graph_destroy(graph);
}

/* y = x * s; s = s + mean of y: a state, which stays where it is. */
static trn_graph *counting_graph(void)
{
    static const double scale = 1;
    trn_graph *graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(B * N, C));
    trn_tensor *s = trn_state(graph, "s", TRN_SHAPE(B * N, 1), test_fill, (void *)(uintptr_t)&scale);
    trn_tensor *y = trn_mul(graph, x, s);
    trn_output_add(graph, "y", y);
    trn_output_add(graph, "s now", s);
    trn_update(graph, s, trn_add(graph, s, trn_reduce(graph, y, 1, TRN_REDUCE_MEAN, true)));
    return graph;
}

static void states_are_updated_in_order(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_graph *graph = counting_graph();
    trn_exec *alone, *seated;
    float *expected[RUNS], end[2][B * N];
    assert_trn_ok(trn_compile(graph, gpu, NULL, &alone, &err), err);
    assert_trn_ok(trn_compile(graph, gpu, &(trn_compile_options){.seats = SEATS}, &seated, &err), err);
    assert_true(trn_exec_summarize(seated).seat_bytes == SEATS * 2u * VALUES * sizeof(float));
    for (int run = 0; run < RUNS; run++) {
        float *x = input_of(run);
        expected[run] = malloc(VALUES * sizeof(float));
        assert_trn_ok(trn_exec_set(alone, "x", x, &err), err);
        assert_trn_ok(trn_exec_run(alone, NULL, &err), err);
        assert_trn_ok(trn_exec_get(alone, "y", expected[run], &err), err);
        free(x);
    }
    for (int run = 0; run < RUNS + SEATS; run++) {
        int seat = run % SEATS;
        bool over = false;
        if (run >= SEATS) {
            assert_trn_ok(trn_exec_seat_done(seated, seat, &over, &err), err);
            assert_trn_ok(trn_exec_finish(seated, seat, NULL, &err), err);
            const float *y = trn_exec_seat_get(seated, seat, "y", &err);
            assert_non_null(y);
            assert_memory_equal(y, expected[run - SEATS], VALUES * sizeof *y);
        }
        if (run < RUNS) start_run(seated, seat, run);
    }
    assert_trn_ok(trn_exec_get(alone, "s now", end[0], &err), err);
    assert_trn_ok(trn_exec_get(seated, "s now", end[1], &err), err);
    assert_memory_equal(end[0], end[1], sizeof end[0]);
    assert_null(trn_exec_seat_get(seated, 0, "s now", &err));
    assert_trn_fails(trn_exec_seat_done(seated, 0, &(bool){false}, &err), TRN_ERR_ARGUMENT, err,
                     "no run in flight");
    for (int run = 0; run < RUNS; run++)
        free(expected[run]);
    trn_exec_destroy(seated);
    trn_exec_destroy(alone);
    trn_graph_destroy(graph);
}

static void wrong_use_is_refused(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_graph *graph = block_graph();
    trn_exec *exec;
    float x[1] = {0};
    assert_trn_ok(trn_compile(graph, gpu, NULL, &exec, &err), err);
    assert_trn_fails(trn_exec_start(exec, 0, NULL, &err), TRN_ERR_ARGUMENT, err, "0 seats");
    trn_exec_destroy(exec);
    assert_trn_ok(trn_compile(graph, gpu, &(trn_compile_options){.seats = 1}, &exec, &err), err);
    assert_trn_fails(trn_exec_seat_set(exec, 0, "z", x, &err), TRN_ERR_ARGUMENT, err, "no input 'z'");
    assert_trn_fails(trn_exec_seat_set(exec, 1, "x", x, &err), TRN_ERR_ARGUMENT, err, "no seat 1");
    assert_trn_fails(trn_exec_finish(exec, 0, NULL, &err), TRN_ERR_ARGUMENT, err, "no run in flight");
    start_run(exec, 0, 0);
    assert_trn_fails(trn_exec_start(exec, 0, NULL, &err), TRN_ERR_ARGUMENT, err, "taken");
    assert_null(trn_exec_seat_get(exec, 0, "y", &err));
    assert_trn_ok(trn_exec_finish(exec, 0, NULL, &err), err);
    assert_null(trn_exec_seat_get(exec, 0, "z", &err));
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

static bool always(void *user)
{
    (void)user;
    return true;
}

/* What is in flight is waited for, and freed. */
static void cancels_in_flight(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_progress progress = {.cancelled = always};
    trn_graph *graph = block_graph();
    trn_exec *exec;
    assert_trn_ok(trn_compile(graph, gpu, &(trn_compile_options){.seats = SEATS}, &exec, &err), err);
    for (int run = 0; run < 2 * SEATS; run++) {
        start_run(exec, run % SEATS, run);
        if (run < SEATS) assert_trn_ok(trn_exec_finish(exec, run % SEATS, NULL, &err), err);
    }
    trn_status status = trn_exec_finish(exec, 1, &progress, &err);
    assert_true(status == TRN_OK || status == TRN_ERR_CANCELLED); /* it may be over already */
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

/* Each submission in turn is lost: some call says so, and everything can be freed. */
static void lost_in_flight(void **state)
{
    (void)state;
    int lost = 0;
    for (int n = 1; n < 40; n += 3) {
        trn_error err = {0};
        trn_gpu *weak;
        trn_exec *exec = NULL;
        trn_graph *graph = block_graph();
        float *x = input_of(0);
        assert_trn_ok(trn_gpu_open(&(trn_gpu_options){.fail_submission = n}, &weak, &err), err);
        trn_status status = trn_compile(graph, weak, &(trn_compile_options){.seats = SEATS}, &exec, &err);
        for (int run = 0; status == TRN_OK && run < RUNS; run++) {
            if (run >= SEATS) status = trn_exec_finish(exec, run % SEATS, NULL, &err);
            if (status == TRN_OK) status = trn_exec_seat_set(exec, run % SEATS, "x", x, &err);
            if (status == TRN_OK) status = trn_exec_start(exec, run % SEATS, NULL, &err);
        }
        if (status != TRN_OK) assert_int_equal(status, TRN_ERR_DEVICE_LOST);
        lost += status != TRN_OK;
        trn_exec_destroy(exec);
        trn_graph_destroy(graph);
        trn_gpu_close(weak);
        free(x);
    }
    assert_true(lost > 3);
}

/* ---- weaker devices ---- */

static void check_weaker(const char *limits)
{
    trn_error err = {0};
    trn_gpu *weak;
    trn_op_result result = {.op = "graph", .label = limits, .tolerance = 1e-4};
    trn_graph *graph = block_graph();
    setenv("TERRANE_LIMIT", limits, 1);
    assert_trn_ok(trn_gpu_open(NULL, &weak, &err), err);
    assert_trn_ok(trn_graph_selftest(weak, graph, TRN_PRECISION_FLOAT32, NULL, &result, &err), err);
    if (!result.ok) print_error("%s: error %g, %s\n", limits, result.error, result.message);
    assert_true(result.ok);
    trn_graph_destroy(graph);
    trn_gpu_close(weak);
    unsetenv("TERRANE_LIMIT");
}

static void correct_on_weaker_devices(void **state)
{
    (void)state;
    static const char *const limits[] = {"subgroup-control=0",
                                         "subgroup-operations=0",
                                         "subgroup-operations=0,subgroup-control=0",
                                         "int64=0",
                                         "address=0",
                                         "shared-memory=16K",
                                         "group=128",
                                         "storage-range=16M,address=0",
                                         "allocation=16M,memory=256M",
                                         "storage16=0,float16=0"};
    for (size_t i = 0; i < TRN_COUNT(limits); i++)
        check_weaker(limits[i]);
}

/* What does not fit is said before anything runs. */
static void too_large_for_weaker_devices(void **state)
{
    (void)state;
    static const struct {
        const char *limits, *message;
    } cases[] = {{"memory=256M", "of device memory"}, {"address=0,storage-range=16M", "storage buffer"}};
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        trn_error err = {0};
        trn_gpu *weak;
        trn_exec *exec;
        trn_graph *graph = trn_graph_create();
        trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(96 << 20));
        trn_output_add(graph, "y", trn_unary(graph, "neg", x));
        setenv("TERRANE_LIMIT", cases[i].limits, 1);
        assert_trn_ok(trn_gpu_open(NULL, &weak, &err), err);
        assert_trn_fails(trn_compile(graph, weak, NULL, &exec, &err), TRN_ERR_MEMORY, err, cases[i].message);
        unsetenv("TERRANE_LIMIT");
        trn_graph_destroy(graph);
        trn_gpu_close(weak);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_as_one_by_one),
        cmocka_unit_test(states_are_updated_in_order),
        cmocka_unit_test(wrong_use_is_refused),
        cmocka_unit_test(cancels_in_flight),
        cmocka_unit_test(lost_in_flight),
        cmocka_unit_test(correct_on_weaker_devices),
        cmocka_unit_test(too_large_for_weaker_devices),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
