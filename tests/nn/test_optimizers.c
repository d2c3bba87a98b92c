/* Optimisers against the original's steps and against formulas in double, on the first device; schedules. */
#include "test_device.h"
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn.h"

static const trn_compile_options poison = {.poison = true};

static void set(trn_exec *exec, const char *name, const void *values)
{
    trn_error err = {0};
    assert_trn_ok(trn_exec_set(exec, name, values, &err), err);
}

static void get(trn_exec *exec, const char *name, float *values)
{
    trn_error err = {0};
    assert_trn_ok(trn_exec_get(exec, name, values, &err), err);
}

static void run(trn_exec *exec)
{
    trn_error err = {0};
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
}

static trn_exec *compiled(trn_graph *graph)
{
    trn_error err = {0};
    trn_exec *exec;
    assert_trn_ok(trn_compile(graph, gpu, &poison, &exec, &err), err);
    return exec;
}

static void everything_decays(void *user, const char *name, const trn_shape *shape, trn_learning_rule *rule)
{
    (void)name, (void)shape;
    rule->weight_decay = *(const double *)user;
}

/* ---- goldens ---- */

enum { GOLDEN_COUNT = 21 };

static void compare(trn_exec *exec, const char *id, const char *state, const char *output, int step)
{
    char name[64];
    float values[GOLDEN_COUNT];
    snprintf(name, sizeof name, "%s_after%d", output, step);
    get(exec, state, values);
    test_compare_golden(id, name, values, GOLDEN_COUNT, 1e-6);
}

static void five_steps(const char *id, trn_optimizer_desc desc, double lr)
{
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    desc.rule = everything_decays;
    desc.user = &desc.weight_decay;
    trn_learner learner = {.name = "p",
                           .weights = trn_state(graph, "p", TRN_SHAPE(3, 7), NULL, NULL),
                           .gradient = trn_input(graph, "g", TRN_F32, TRN_SHAPE(3, 7))};
    assert_trn_ok(trn_optimizer_add(graph, &desc, &learner, 1, &err), err);
    trn_exec *exec = compiled(graph);
    test_tensor p = test_golden_input(id, "p0");
    set(exec, "p", p.data);
    free(p.data);
    for (int step = 0; step < 5; step++) {
        char name[8];
        float now[TRN_STEP_NOW];
        snprintf(name, sizeof name, "g%d", step);
        test_tensor g = test_golden_input(id, name);
        trn_optimizer_now(&desc, step, 0, lr, now);
        set(exec, TRN_OPTIMIZER_INPUT, now);
        set(exec, "g", g.data);
        run(exec);
        free(g.data);
        compare(exec, id, "p", "p", step + 1);
        if (desc.kind == TRN_ADAMW) {
            compare(exec, id, "adamw.m.p", "exp_avg", step + 1);
            compare(exec, id, "adamw.v.p", "exp_avg_sq", step + 1);
        } else {
            compare(exec, id, "sgd.momentum.p", "momentum_buffer", step + 1);
        }
    }
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

static void steps_are_the_originals(void **state)
{
    (void)state;
    five_steps("ops/adamw",
               (trn_optimizer_desc){
                   .kind = TRN_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.05},
               0.01);
    five_steps("ops/adamw_b95",
               (trn_optimizer_desc){
                   .kind = TRN_ADAMW, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .weight_decay = 0.1},
               0.001);
    five_steps(
        "ops/sgd_momentum",
        (trn_optimizer_desc){.kind = TRN_SGD, .momentum = 0.9, .weight_decay = 1e-4, .coupled_decay = true},
        0.1);
}

/* A step of SGD from zero at a learning rate of 1 takes the clipped gradient off. */
static void clipping_is_the_original(void **state)
{
    (void)state;
    const char *id = "ops/grad_clip_norm";
    trn_optimizer_desc desc = {.kind = TRN_SGD, .max_norm = 1};
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_learner learners[] = {{"a", trn_state(graph, "a", TRN_SHAPE(4, 5), NULL, NULL),
                               trn_input(graph, "g1", TRN_F32, TRN_SHAPE(4, 5))},
                              {"c", trn_state(graph, "c", TRN_SHAPE(3), NULL, NULL), NULL},
                              {"b", trn_state(graph, "b", TRN_SHAPE(7), NULL, NULL),
                               trn_input(graph, "g2", TRN_F32, TRN_SHAPE(7))}};
    assert_trn_ok(trn_optimizer_add(graph, &desc, learners, 3, &err), err);
    trn_exec *exec = compiled(graph);
    float values[20], now[TRN_STEP_NOW], norm;
    for (int i = 1; i <= 2; i++) {
        char name[8];
        snprintf(name, sizeof name, "g%d", i);
        test_tensor g = test_golden_input(id, name);
        set(exec, name, g.data);
        free(g.data);
    }
    trn_optimizer_now(&desc, 0, 0, 1, now);
    set(exec, TRN_OPTIMIZER_INPUT, now);
    run(exec);
    get(exec, TRN_GRADIENT_NORM, &norm);
    test_compare_golden(id, "norm", &norm, 1, 1e-6);
    for (int k = 0; k < 2; k++) {
        int count = k ? 7 : 20;
        get(exec, k ? "b" : "a", values);
        for (int i = 0; i < count; i++)
            values[i] = -values[i];
        test_compare_golden(id, k ? "g2c" : "g1c", values, count, 1e-6);
    }
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

/* ---- formulas in double: two parameters of odd shapes, all options ---- */

enum { BIG = 3 * 5 * 31, SMALL = 131, ALL = BIG + SMALL, STEPS = 4 };

typedef struct model {
    double w[ALL], m[ALL], v[ALL], mean[ALL];
} model;

static void step_formula(const trn_optimizer_desc *d, model *s, const float *grads, int step, double lr)
{
    double squares = 0, t = step + 1;
    for (int i = 0; i < ALL; i++)
        squares += (double)grads[i] * (double)grads[i];
    double norm = sqrt(squares), factor = d->max_norm > 0 ? fmin(1, d->max_norm / (norm + 1e-6)) : 1;
    for (int i = 0; i < ALL; i++) {
        double decay = i < BIG ? d->weight_decay : 0, rate = lr * (i < BIG ? 0.25 : 1);
        double g = (double)grads[i] * factor, before = s->w[i];
        if (d->coupled_decay)
            g += decay * s->w[i];
        else
            s->w[i] *= 1 - rate * decay;
        if (d->kind == TRN_ADAMW) {
            s->m[i] = d->beta1 * s->m[i] + (1 - d->beta1) * g;
            s->v[i] = d->beta2 * s->v[i] + (1 - d->beta2) * g * g;
            double m = s->m[i] / (1 - pow(d->beta1, t)), v = s->v[i] / (1 - pow(d->beta2, t));
            s->w[i] -= rate * m / (sqrt(v) + d->eps);
        } else {
            s->m[i] = d->momentum * s->m[i] + g;
            s->w[i] -= rate * (d->nesterov ? g + d->momentum * s->m[i] : s->m[i]);
        }
        s->mean[i] = d->average * (step ? s->mean[i] : before) + (1 - d->average) * s->w[i];
    }
}

static void quarter_of_big(void *user, const char *name, const trn_shape *shape, trn_learning_rule *rule)
{
    (void)user;
    assert_int_equal(trn_shape_count(shape), !strcmp(name, "big") ? BIG : SMALL);
    if (!strcmp(name, "big")) rule->lr_scale = 0.25;
}

static void expect(trn_exec *exec, const char *prefix, const double *wanted, const char *what)
{
    float values[ALL];
    char name[64];
    double worst = 0, most = 0;
    snprintf(name, sizeof name, "%sbig", prefix);
    get(exec, name, values);
    snprintf(name, sizeof name, "%ssmall", prefix);
    get(exec, name, values + BIG);
    for (int i = 0; i < ALL; i++) {
        worst = fmax(worst, fabs((double)values[i] - wanted[i]));
        most = fmax(most, fabs(wanted[i]));
        assert_false(isnan(values[i]));
    }
    if (!(worst <= 1e-6 * most)) fail_msg("%s: %s of up to %g are off by %g", what, name, most, worst);
}

static void follow(const char *what, trn_optimizer_desc desc)
{
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    desc.rule = quarter_of_big;
    trn_learner learners[] = {{"big", trn_state(graph, "big", TRN_SHAPE(3, 5, 31), NULL, NULL),
                               trn_input(graph, "g big", TRN_F32, TRN_SHAPE(3, 5, 31))},
                              {"small", trn_state(graph, "small", TRN_SHAPE(1, SMALL), NULL, NULL),
                               trn_input(graph, "g small", TRN_F32, TRN_SHAPE(1, SMALL))}};
    assert_trn_ok(trn_optimizer_add(graph, &desc, learners, 2, &err), err);
    trn_exec *exec = compiled(graph);
    model m = {{0}, {0}, {0}, {0}};
    float *w = test_hash_values("w", ALL, 1, 0);
    set(exec, "big", w);
    set(exec, "small", w + BIG);
    for (int i = 0; i < ALL; i++)
        m.w[i] = (double)w[i];
    free(w);
    for (int step = 0; step < STEPS; step++) {
        char name[16];
        float now[TRN_STEP_NOW];
        double lr = 0.02 / (step + 1);
        snprintf(name, sizeof name, "grads %d", step);
        float *g = test_hash_values(name, ALL, step == 2 ? 1e-3 : 0.5, 0);
        trn_optimizer_now(&desc, step, 0, lr, now);
        set(exec, TRN_OPTIMIZER_INPUT, now);
        set(exec, "g big", g);
        set(exec, "g small", g + BIG);
        run(exec);
        step_formula(&desc, &m, g, step, lr);
        free(g);
        expect(exec, "", m.w, what);
        if (desc.kind == TRN_ADAMW) expect(exec, "adamw.m.", m.m, what);
        if (desc.kind == TRN_ADAMW) expect(exec, "adamw.v.", m.v, what);
        if (desc.momentum > 0) expect(exec, "sgd.momentum.", m.m, what);
        if (desc.average > 0) expect(exec, "average.", m.mean, what);
    }
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

static void all_options(void)
{
    trn_optimizer_desc adamw = {
        .kind = TRN_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.3};
    trn_optimizer_desc sgd = {.kind = TRN_SGD, .weight_decay = 0.3};
    follow("AdamW", adamw);
    adamw.max_norm = 2;
    adamw.average = 0.9;
    adamw.beta1 = 0;
    follow("AdamW, clipped, averaged", adamw);
    adamw.coupled_decay = true;
    follow("Adam with decay in the gradient", adamw);
    follow("SGD", sgd);
    sgd.momentum = 0.9;
    sgd.nesterov = true;
    sgd.average = 0.99;
    follow("SGD, Nesterov's momentum, averaged", sgd);
    sgd.max_norm = 0.5;
    sgd.coupled_decay = true;
    follow("SGD, all of it", sgd);
}

static void steps_are_their_formulas(void **state)
{
    (void)state;
    all_options();
}

static void steps_through_storage_buffers(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_gpu *usual = gpu;
    assert_trn_ok(trn_gpu_open(&(trn_gpu_options){.access = TRN_ACCESS_STORAGE}, &gpu, &err), err);
    all_options();
    assert_int_equal(trn_gpu_get_stats(gpu).validation_messages, 0);
    trn_gpu_close(gpu);
    gpu = usual;
}

/* A gradient that is not finite changes nothing, and shows. */
static void steps_that_are_not_finite_are_left_out(void **state)
{
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY, 3e38F};
    trn_optimizer_desc desc = {.kind = TRN_ADAMW,
                               .beta1 = 0.9,
                               .beta2 = 0.999,
                               .eps = 1e-8,
                               .weight_decay = 0.1,
                               .max_norm = 1,
                               .average = 0.5};
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_tensor *w = trn_state(graph, "w", TRN_SHAPE(2, 2), NULL, NULL);
    trn_learner learner = {"w", w, trn_input(graph, "g", TRN_F32, TRN_SHAPE(2, 2))};
    assert_trn_ok(trn_optimizer_add(graph, &desc, &learner, 1, &err), err);
    trn_exec *exec = compiled(graph);
    float before[4] = {1, 2, 3, 4}, after[4], now[TRN_STEP_NOW], norm;
    set(exec, "w", before);
    for (size_t i = 0; i < TRN_COUNT(bad); i++) {
        trn_optimizer_now(&desc, 0, 0, 0.1, now);
        set(exec, TRN_OPTIMIZER_INPUT, now);
        set(exec, "g", (float[]){1, bad[i], 1, 1});
        run(exec);
        get(exec, TRN_GRADIENT_NORM, &norm);
        assert_false(isfinite(norm));
        get(exec, "w", after);
        assert_memory_equal(before, after, sizeof before);
        get(exec, "adamw.v.w", after);
        assert_true(after[0] == 0 && after[1] == 0);
        get(exec, "average.w", after);
        assert_memory_equal(before, after, sizeof before);
    }
    set(exec, "g", (float[]){1, 0, 1, 1});
    run(exec);
    get(exec, "w", after);
    assert_true(after[0] < 0.95F && after[0] > 0.8F);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

/* Without clipping too, and with an average: a gate that is closed leaves all as it is. */
static void gates_and_norms_hold_without_clipping(void **state)
{
    (void)state;
    trn_optimizer_desc desc = {.kind = TRN_SGD, .momentum = 0.9, .average = 0.5};
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_tensor *w = trn_state(graph, "w", TRN_SHAPE(2, 2), NULL, NULL);
    trn_learner learner = {"w", w, trn_input(graph, "g", TRN_F32, TRN_SHAPE(2, 2))};
    assert_trn_ok(trn_optimizer_add(graph, &desc, &learner, 1, &err), err);
    trn_exec *exec = compiled(graph);
    float before[4] = {1, 2, 3, 4}, zeros[4] = {0}, after[4], now[TRN_STEP_NOW], norm;
    set(exec, "w", before);
    for (int i = 0; i < 2; i++) { /* a norm that is not finite, and a run that ends no step */
        trn_optimizer_now(&desc, 1, i, 0.1, now);
        assert_true(now[4] == (i == 0));
        set(exec, TRN_OPTIMIZER_INPUT, now);
        set(exec, "g", (float[]){3, i ? 4 : NAN, 0, 0});
        run(exec);
        get(exec, TRN_GRADIENT_NORM, &norm);
        assert_true(i ? norm == 5 : isnan(norm));
        get(exec, "w", after);
        assert_memory_equal(before, after, sizeof before);
        get(exec, "sgd.momentum.w", after);
        assert_memory_equal(zeros, after, sizeof zeros);
        get(exec, "average.w", after);
        assert_memory_equal(zeros, after, sizeof zeros);
    }
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

/* ---- gradients of several runs ---- */

enum { ACCUMULATE = 3, SAMPLES = 4 * ACCUMULATE };

/* Squares of distances of w x to targets, the mean over the samples of a run. */
static trn_exec *regression(trn_optimizer_desc desc, int samples, trn_graph **graph)
{
    trn_error err = {0};
    *graph = trn_graph_create();
    trn_tensor *w = trn_state(*graph, "w", TRN_SHAPE(5, 7), NULL, NULL);
    trn_tensor *b = trn_state(*graph, "b", TRN_SHAPE(5), NULL, NULL), *wrt[] = {w, b}, *grads[2];
    trn_tensor *x = trn_input(*graph, "x", TRN_F32, TRN_SHAPE(samples, 7));
    trn_tensor *t = trn_input(*graph, "t", TRN_F32, TRN_SHAPE(samples, 5));
    trn_tensor *loss = trn_loss_mse(*graph, trn_linear(*graph, x, w, b), t);
    assert_trn_ok(trn_gradients(*graph, loss, NULL, wrt, 2, grads, &err), err);
    trn_learner learners[] = {{"w", w, grads[0]}, {"b", b, grads[1]}};
    assert_trn_ok(trn_optimizer_add(*graph, &desc, learners, 2, &err), err);
    return compiled(*graph);
}

static void run_share(trn_exec *exec, const trn_optimizer_desc *desc, int step, int part, int samples,
                      const float *x, const float *t)
{
    float now[TRN_STEP_NOW];
    trn_optimizer_now(desc, step, part, 0.05, now);
    assert_true(now[4] == (part == TRN_MAX(desc->accumulate, 1) - 1));
    set(exec, TRN_OPTIMIZER_INPUT, now);
    set(exec, "x", x + (size_t)part * samples * 7);
    set(exec, "t", t + (size_t)part * samples * 5);
    run(exec);
}

static void expect_near(trn_exec *a, trn_exec *b, const char *name, size_t count)
{
    float left[35], right[35];
    get(a, name, left);
    get(b, name, right);
    for (size_t i = 0; i < count; i++) {
        if (!(fabs((double)left[i] - (double)right[i]) <= 2e-6 * (0.05 + fabs((double)right[i]))))
            fail_msg("%s[%zu] is %.9g, in one run %.9g", name, i, (double)left[i], (double)right[i]);
    }
}

static void expect_unchanged(trn_exec *exec, const char *name, const float *before)
{
    float now[35];
    get(exec, name, now);
    assert_memory_equal(now, before, sizeof now);
}

static void accumulate_as(trn_optimizer_desc desc, const char *const *states, int state_count)
{
    trn_graph *graphs[2];
    trn_exec *whole = regression(desc, SAMPLES, &graphs[0]);
    desc.accumulate = ACCUMULATE;
    trn_exec *parts = regression(desc, SAMPLES / ACCUMULATE, &graphs[1]);
    desc.accumulate = 0;
    float *x = test_hash_values("x", SAMPLES * 7, 1, 0), *t = test_hash_values("t", SAMPLES * 5, 1, 0);
    float before[8][35], sum[35], zeros[35] = {0}, norms[2];
    for (int step = 0; step < 4; step++) {
        trn_optimizer_desc several = desc;
        several.accumulate = ACCUMULATE;
        run_share(whole, &desc, step, 0, SAMPLES, x, t);
        for (int s = 0; s < state_count; s++)
            get(parts, states[s], before[s]);
        for (int part = 0; part < ACCUMULATE; part++) {
            for (int s = 0; part && s < state_count; s++)
                expect_unchanged(parts, states[s], before[s]);
            get(parts, "accumulated.w", sum);
            assert_true(!memcmp(sum, zeros, sizeof sum) == (part == 0));
            run_share(parts, &several, step, part, SAMPLES / ACCUMULATE, x, t);
        }
        for (int s = 0; s < state_count; s++)
            expect_near(parts, whole, states[s], 35);
        expect_near(parts, whole, "b", 5);
        get(whole, TRN_GRADIENT_NORM, &norms[0]);
        get(parts, TRN_GRADIENT_NORM, &norms[1]);
        assert_true(fabsf(norms[0] - norms[1]) <= 2e-6F * norms[0]);
    }
    expect_unchanged(parts, "accumulated.w", zeros);
    free(x);
    free(t);
    for (int i = 0; i < 2; i++) {
        trn_exec_destroy(i ? parts : whole);
        trn_graph_destroy(graphs[i]);
    }
}

static void runs_of_parts_make_the_step_of_the_whole(void **state)
{
    (void)state;
    const char *const adamw[] = {"w", "adamw.m.w", "adamw.v.w", "average.w"};
    const char *const sgd[] = {"w", "sgd.momentum.w"};
    accumulate_as((trn_optimizer_desc){.kind = TRN_ADAMW,
                                       .beta1 = 0.9,
                                       .beta2 = 0.99,
                                       .eps = 1e-4,
                                       .weight_decay = 0.1,
                                       .max_norm = 0.2,
                                       .average = 0.9},
                  adamw, 4);
    accumulate_as((trn_optimizer_desc){.kind = TRN_SGD, .momentum = 0.9}, sgd, 2);
    accumulate_as((trn_optimizer_desc){.kind = TRN_SGD}, sgd, 1);
}

/* A run in between that is not finite spoils its step, and no other. */
static void sums_that_are_not_finite_are_left_behind(void **state)
{
    (void)state;
    trn_optimizer_desc desc = {.kind = TRN_SGD, .accumulate = 2};
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_tensor *w = trn_state(graph, "w", TRN_SHAPE(2), NULL, NULL);
    trn_learner learner = {"w", w, trn_input(graph, "g", TRN_F32, TRN_SHAPE(2))};
    assert_trn_ok(trn_optimizer_add(graph, &desc, &learner, 1, &err), err);
    trn_exec *exec = compiled(graph);
    for (int i = 0; i < 4; i++) {
        float now[TRN_STEP_NOW], values[2];
        trn_optimizer_now(&desc, i / 2, i % 2, 1, now);
        set(exec, TRN_OPTIMIZER_INPUT, now);
        set(exec, "g", (float[]){i == 0 ? INFINITY : 2, 1});
        run(exec);
        get(exec, "w", values);
        assert_true(values[0] == (i < 3 ? 0 : -2) && values[1] == (i < 3 ? 0 : -1));
    }
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

/* ---- training ---- */

static trn_status fill_small(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    (void)user, (void)err;
    int64_t count = trn_shape_count(shape);
    float *values = test_hash_values(name, count, 0.5, 0);
    memcpy(out, values, (size_t)count * sizeof *values);
    free(values);
    return TRN_OK;
}

static bool learns(void *user, const char *name)
{
    (void)user;
    return trn_starts_with(name, "head.");
}

enum { ROWS = 24, IN = 6, HIDDEN = 16, CLASSES = 3 };

/* Rows of class c have more in column c. */
static void make_rows(float *x, int32_t *labels)
{
    float *noise = test_hash_values("rows", ROWS * IN, 0.4, 0);
    for (int r = 0; r < ROWS; r++) {
        labels[r] = r % CLASSES;
        for (int k = 0; k < IN; k++)
            x[r * IN + k] = noise[r * IN + k] + (k == r % CLASSES ? 1.0F : 0);
    }
    free(noise);
}

/* Losses of 40 steps, the weights of the head behind them. */
static void train(float losses[40], float weights[CLASSES * HIDDEN])
{
    trn_optimizer_desc desc = {
        .kind = TRN_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01, .max_norm = 1};
    trn_schedule schedule = {
        .kind = TRN_SCHEDULE_COSINE, .base = 0.1, .last = 0.001, .warmup = 5, .steps = 40};
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    const trn_parameters parameters = {.fill = fill_small};
    trn_scope scope = trn_scope_root(graph, &parameters);
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(ROWS, IN));
    trn_tensor *labels = trn_input(graph, "labels", TRN_I32, TRN_SHAPE(ROWS));
    trn_graph_train(graph, learns, NULL);
    x = trn_unary(graph, "gelu", trn_nn_linear(&scope, "body.fc", x, HIDDEN, true));
    x = trn_nn_linear(&scope, "head.fc", x, CLASSES, true);
    trn_class_loss_desc class_loss = {.ignored = 255};
    trn_tensor *loss = trn_loss_cross_entropy(graph, x, labels, &class_loss);
    trn_output_add(graph, "loss", loss);
    assert_trn_ok(trn_optimizer_minimize(graph, loss, &desc, &err), err);
    trn_exec *exec = compiled(graph);
    float rows[ROWS * IN], now[TRN_STEP_NOW];
    int32_t classes[ROWS];
    make_rows(rows, classes);
    set(exec, "x", rows);
    set(exec, "labels", classes);
    assert_trn_ok(trn_schedule_check(&schedule, &err), err);
    for (int step = 0; step < 40; step++) {
        trn_optimizer_now(&desc, step, 0, trn_schedule_at(&schedule, step), now);
        set(exec, TRN_OPTIMIZER_INPUT, now);
        run(exec);
        get(exec, "loss", &losses[step]);
    }
    get(exec, "head.fc.weight", weights);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

static void a_head_learns_and_learns_the_same_again(void **state)
{
    (void)state;
    float losses[2][40], weights[2][CLASSES * HIDDEN];
    for (int i = 0; i < 2; i++)
        train(losses[i], weights[i]);
    printf("loss %g to %g\n", (double)losses[0][0], (double)losses[0][39]);
    assert_true(losses[0][0] == losses[0][1]); /* the warm-up begins at a rate of 0 */
    assert_true(losses[0][39] < 0.3F * losses[0][0]);
    assert_memory_equal(losses[0], losses[1], sizeof losses[0]);
    assert_memory_equal(weights[0], weights[1], sizeof weights[0]);
}

/* ---- rules, schedules ---- */

static void layers_are_found_by_name(void **state)
{
    (void)state;
    assert_int_equal(trn_layer_of("patch_embed.proj.weight", 12), 0);
    assert_int_equal(trn_layer_of("encoder.pos_embed", 12), 0);
    assert_int_equal(trn_layer_of("cls_token", 12), 0);
    assert_int_equal(trn_layer_of("encoder.space_time_embed.S2_RGB.proj.weight", 12), 0); /* Galileo */
    assert_int_equal(trn_layer_of("eo_patch_embed.S1.weight", 2), 0);                     /* Presto */
    assert_int_equal(trn_layer_of("patch_embed.weight_generator.transformer_encoder.layers.0.norm1.bias", 12),
                     0); /* DOFA */
    assert_int_equal(trn_layer_of("blocks.3.pos_embed", 12), 4);
    assert_int_equal(trn_layer_of("blocks.0.attn.qkv.weight", 12), 1);
    assert_int_equal(trn_layer_of("encoder.blocks.11.norm1.bias", 12), 12);
    assert_int_equal(trn_layer_of("layers.3.fc1.weight", 12), 4);
    assert_int_equal(trn_layer_of("norm.weight", 12), 13);
    assert_int_equal(trn_layer_of("head.blocks.weight", 12), 13);
    assert_int_equal(trn_layer_of("blocks.99999999999999999999.w", 12), 13);
    assert_true(fabs(trn_layer_scale(0.5, 0, 2) - 0.125) < 1e-15);
    assert_true(trn_layer_scale(0.75, 13, 12) == 1);
}

/* What the rule was given by name; the steps then use what it says. */
static void see_decay(void *user, const char *name, const trn_shape *shape, trn_learning_rule *rule)
{
    (void)shape;
    double *seen = user;
    assert_true(rule->lr_scale == 1);
    seen[name[strlen(name) - 1] - '0'] = rule->weight_decay;
}

static void vectors_and_tokens_do_not_decay(void **state)
{
    (void)state;
    static const char *const names[] = {"w0", "bias1", "pos_embed2", "layer_scale3", "m.cls_token4"};
    const trn_shape shapes[] = {TRN_SHAPE(3, 4), TRN_SHAPE(4), TRN_SHAPE(1, 9, 4), TRN_SHAPE(1, 1, 4),
                                TRN_SHAPE(2, 4)};
    double seen[5] = {9, 9, 9, 9, 9};
    trn_optimizer_desc desc = {.kind = TRN_SGD, .weight_decay = 0.5, .rule = see_decay, .user = seen};
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_learner learners[5];
    for (int i = 0; i < 5; i++)
        learners[i] = (trn_learner){names[i], trn_state(graph, names[i], shapes[i], NULL, NULL),
                                    trn_constant(graph, "g", shapes[i], (float[36]){0})};
    assert_trn_ok(trn_optimizer_add(graph, &desc, learners, 5, &err), err);
    assert_true(seen[0] == 0.5);
    for (int i = 1; i < 5; i++)
        assert_true(seen[i] == 0);
    trn_exec *exec = compiled(graph); /* also of gradients that are known before */
    float now[TRN_STEP_NOW], w[4] = {1, 2, 3, 4}, got[12];
    trn_optimizer_now(&desc, 0, 0, 0.5, now);
    set(exec, TRN_OPTIMIZER_INPUT, now);
    set(exec, "w0", (float[12]){4, 8});
    set(exec, "bias1", w);
    run(exec);
    get(exec, "w0", got);
    assert_true(got[0] == 3 && got[1] == 6);
    get(exec, "bias1", got);
    assert_memory_equal(got, w, sizeof w);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

static void near(double value, double wanted)
{
    if (!(fabs(value - wanted) <= 1e-12)) fail_msg("%.15g, not %.15g", value, wanted);
}

static void schedules_go_as_said(void **state)
{
    (void)state;
    trn_schedule s = {
        .kind = TRN_SCHEDULE_COSINE, .base = 1, .start = 0.2, .last = 0.1, .warmup = 4, .steps = 12};
    near(trn_schedule_at(&s, 0), 0.2);
    near(trn_schedule_at(&s, 3), 0.8);
    near(trn_schedule_at(&s, 4), 1);
    near(trn_schedule_at(&s, 6), 0.1 + 0.9 * (1 + sqrt(0.5)) / 2);
    near(trn_schedule_at(&s, 8), 0.55);
    near(trn_schedule_at(&s, 12), 0.1);
    near(trn_schedule_at(&s, 1000), 0.1);
    s = (trn_schedule){
        .kind = TRN_SCHEDULE_STEP, .base = 1, .last = 0.01, .warmup = 2, .every = 3, .factor = 0.1};
    near(trn_schedule_at(&s, 1), 0.5);
    near(trn_schedule_at(&s, 4), 1);
    near(trn_schedule_at(&s, 5), 0.1);
    near(trn_schedule_at(&s, 100), 0.01);
    s = (trn_schedule){.kind = TRN_SCHEDULE_CONSTANT, .base = 0.5};
    near(trn_schedule_at(&s, 0), 0.5);
    near(trn_schedule_at(&s, 1LL << 40), 0.5);
}

static void wrong_schedules_are_refused(void **state)
{
    (void)state;
    const trn_schedule wrong[] = {
        {.base = -1},
        {.base = NAN},
        {.base = 1, .warmup = -1},
        {.kind = TRN_SCHEDULE_COSINE, .base = 1, .warmup = 5, .steps = 5},
        {.kind = TRN_SCHEDULE_STEP, .base = 1, .factor = 0.5},
    };
    const char *const messages[] = {"not negative", "not negative", "warmup is negative", "leave nothing",
                                    "at least 1 step"};
    for (size_t i = 0; i < TRN_COUNT(wrong); i++) {
        trn_error err = {0};
        assert_trn_fails(trn_schedule_check(&wrong[i], &err), TRN_ERR_ARGUMENT, err, messages[i]);
    }
}

static void wrong_optimizers_are_refused(void **state)
{
    (void)state;
    const trn_optimizer_desc wrong[] = {
        {.kind = TRN_ADAMW, .beta1 = 1, .beta2 = 0.9, .eps = 1e-8},
        {.kind = TRN_ADAMW, .beta1 = 0.9, .beta2 = 0.9},
        {.kind = TRN_SGD, .momentum = -0.5},
        {.kind = TRN_SGD, .weight_decay = -1},
        {.kind = TRN_SGD, .average = 1},
        {.kind = TRN_SGD},
        {.kind = TRN_SGD},
        {.kind = TRN_SGD},
        {.kind = TRN_SGD, .accumulate = -1},
    };
    const char *const messages[] = {"the betas 1 and 0.9",
                                    "eps is 0",
                                    "momentum -0.5",
                                    "decay -1",
                                    "share 1 that",
                                    "must be a state",
                                    "[2], what belongs to them [3]",
                                    "nothing learns",
                                    "gradients of -1 runs"};
    for (size_t i = 0; i < TRN_COUNT(wrong); i++) {
        trn_error err = {0};
        trn_graph *graph = trn_graph_create();
        trn_tensor *state_w = trn_state(graph, "w", TRN_SHAPE(2), NULL, NULL);
        trn_tensor *g = trn_input(graph, "g", TRN_F32, TRN_SHAPE(i == 6 ? 3 : 2));
        trn_learner learner = {"w", i == 5 ? g : state_w, g};
        assert_trn_fails(trn_optimizer_add(graph, &wrong[i], &learner, i == 7 ? 0 : 1, &err),
                         TRN_ERR_ARGUMENT, err, messages[i]);
        trn_graph_destroy(graph);
    }
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_tensor *w = trn_state(graph, "w", TRN_SHAPE(2), NULL, NULL);
    trn_learner learner = {"w", w, trn_input(graph, "g", TRN_F32, TRN_SHAPE(2))};
    trn_update(graph, w, learner.gradient);
    assert_trn_fails(trn_optimizer_add(graph, &wrong[7], &learner, 1, &err), TRN_ERR_ARGUMENT, err,
                     "'w' is updated twice");
    trn_graph_destroy(graph);
}

static void wrong_steps_are_refused(void **state)
{
    (void)state;
    const char *const messages[] = {"AdamW needs two moments of 'w'",
                                    "SGD has no second moment of 'w'",
                                    "what belongs to them [3]",
                                    "the input of a step is [2]; it takes [6] floats",
                                    "the norm of a step is [2]; it takes [1] floats",
                                    "'w' is updated twice"};
    for (int i = 0; i < (int)TRN_COUNT(messages); i++) {
        trn_error err = {0};
        trn_graph *graph = trn_graph_create();
        trn_tensor *w = trn_state(graph, "w", TRN_SHAPE(2), NULL, NULL);
        trn_tensor *other = trn_state(graph, "other", TRN_SHAPE(i == 2 ? 3 : 2), NULL, NULL);
        trn_tensor *g = trn_input(graph, "g", TRN_F32, TRN_SHAPE(2));
        trn_tensor *now = trn_input(graph, "now", TRN_F32, TRN_SHAPE(TRN_STEP_NOW));
        trn_weights_update update = {.rule = i == 0 ? TRN_STEP_ADAMW : TRN_STEP_SGD,
                                     .weights = w,
                                     .first = i == 5 ? w : other,
                                     .second = i == 1 ? w : NULL,
                                     .gradient = g,
                                     .now = i == 3 ? g : now,
                                     .norm = i == 4 ? g : NULL,
                                     .max_norm = i == 4};
        trn_update_weights(graph, &update);
        assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, messages[i]);
        trn_graph_destroy(graph);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_are_the_originals),
        cmocka_unit_test(clipping_is_the_original),
        cmocka_unit_test(steps_are_their_formulas),
        cmocka_unit_test(steps_through_storage_buffers),
        cmocka_unit_test(steps_that_are_not_finite_are_left_out),
        cmocka_unit_test(gates_and_norms_hold_without_clipping),
        cmocka_unit_test(runs_of_parts_make_the_step_of_the_whole),
        cmocka_unit_test(sums_that_are_not_finite_are_left_behind),
        cmocka_unit_test(a_head_learns_and_learns_the_same_again),
        cmocka_unit_test(layers_are_found_by_name),
        cmocka_unit_test(vectors_and_tokens_do_not_decay),
        cmocka_unit_test(schedules_go_as_said),
        cmocka_unit_test(wrong_schedules_are_refused),
        cmocka_unit_test(wrong_optimizers_are_refused),
        cmocka_unit_test(wrong_steps_are_refused),
    };
    return cmocka_run_group_tests_name("optimizers", tests, open_device, close_device);
}
