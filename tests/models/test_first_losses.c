/* The first ten losses of training the tiny encoders: the whole chain of forward pass, loss, gradients and
 * AdamW on the device against a second implementation in double (double_tape.h, double_networks.h), which
 * shares no code with the graph, its kernels or their references. Both begin with the same weights, see the
 * same ten inputs and go their own way from there. The second implementation is checked itself: at each step,
 * its gradients against differences of its own loss along the step, and its first loss against the original's
 * where a golden has it. */
#include "running.h"

#include "double_networks.h"
#include "nn.h"

enum { STEPS = 10, CLASSES = 5, BATCH = 2, DATES = 3 };

static const double TOLERANCE = 1e-4; /* of losses, over their value */
static const double LR = 1e-3, DECAY = 0.05;

static const double wavelengths[] = {0.49, 0.665, 1.61, 5.405};
static const double times[DATES][2] = {{2018, 28}, {2018, 153}, {2019, 200}};
static const double_hiera hiera = {BATCH, 4, 64, 96, 16, {1, 2, 1, 1}, CLASSES};
static const double_dofa dofa = {BATCH, 4, 64, 8, 32, 4, 3, CLASSES, wavelengths};
static const double_prithvi prithvi = {BATCH, DATES, 6, 48, 32, 16, 64, 4, 3, times, {48.25, 11.5}};

/* One encoder's training on both sides. */
typedef struct side_by_side {
    const char *id, *input; /* the golden, and what it calls its input */
    const char *model, *settings[8][2];
    const char *head; /* of the classifier; NULL: the loss is the mean of (features * R)^2 */
    trn_shape image;
    int32_t labels[BATCH];
    const char *golden_loss;                              /* of the first loss; NULL: none */
    tape_node *(*in_double)(tape *t, const float *image); /* logits or features */
    void (*prepare)(trn_encoder *encoder);
    double losses[STEPS], doubles[STEPS];
} side_by_side;

static tape_node *hiera_in_double(tape *t, const float *image)
{
    return double_hiera_logits(t, &hiera, image);
}

static tape_node *dofa_in_double(tape *t, const float *image)
{
    return double_dofa_logits(t, &dofa, image);
}

static tape_node *prithvi_in_double(tape *t, const float *image)
{
    return double_prithvi_features(t, &prithvi, image);
}

/* The first input is the golden's, each later one has a name of its own. */
static float *image_of(const side_by_side *c, int step)
{
    char name[64];
    snprintf(name, sizeof name, step ? "input/%s/%d" : "input/%s", c->input, step);
    return test_hash_values(name, trn_shape_count(&c->image), 1.5, 0);
}

static float *seed_of(int64_t count)
{
    return test_hash_values("loss/R/prithvi_tiny", count, 1, 0);
}

/* ---- in double ---- */

static tape_node *double_loss(tape *t, const side_by_side *c, const float *image)
{
    tape_node *out = c->in_double(t, image);
    if (c->head) return tape_cross_entropy(t, out, BATCH, c->labels);
    float *seed = seed_of(out->count);
    out = tape_times(t, out, tape_constant(t, out->count, seed));
    free(seed);
    return tape_mean(t, tape_times(t, out, out), out->count);
}

static double loss_beside(tape *t, const side_by_side *c, const float *image, double share)
{
    tape_restart(t);
    tape_move(t, share);
    double loss = double_loss(t, c, image)->v[0];
    tape_move(t, -share);
    return loss;
}

/* The gradients just found, along the step before, are what differences of the loss say. The difference is
 * small enough that the maxima of pooling stay where they are. */
static void check_slope(tape *t, const side_by_side *c, const float *image)
{
    double slope = tape_slope(t), h = 1e-7;
    double difference = (loss_beside(t, c, image, h) - loss_beside(t, c, image, -h)) / (2 * h);
    if (!(fabs(slope - difference) <= 1e-5 * fabs(difference)))
        fail_msg("%s: gradients give a slope of %.12g, differences one of %.12g", c->id, slope, difference);
}

static void train_in_double(side_by_side *c, tape *t)
{
    const tape_adamw rule = {LR, DECAY, 0.9, 0.999, 1e-8};
    for (int step = 0; step < STEPS; step++) {
        float *image = image_of(c, step);
        tape_restart(t);
        tape_node *loss = double_loss(t, c, image);
        c->doubles[step] = loss->v[0];
        tape_backward(t, loss);
        if (step > 0) check_slope(t, c, image);
        tape_step(t, &rule, step + 1);
        free(image);
    }
}

/* ---- on the device ---- */

static bool all_learn(void *user, const char *name)
{
    (void)user, (void)name;
    return true;
}

static void all_decay(void *user, const char *name, const trn_shape *shape, trn_learning_rule *rule)
{
    (void)user, (void)name, (void)shape;
    rule->weight_decay = DECAY;
}

static const trn_optimizer_desc optimizer = {
    .kind = TRN_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = DECAY, .rule = all_decay};

static trn_status fill_from(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    return trn_weights_read(user, name, shape->dim, shape->ndim, out, err);
}

static trn_tensor *classifier_loss(const side_by_side *c, trn_graph *graph, trn_weights *weights,
                                   trn_tensor *pooled)
{
    char weight[64], bias[64];
    snprintf(weight, sizeof weight, "%s.weight", c->head);
    snprintf(bias, sizeof bias, "%s.bias", c->head);
    trn_tensor *w =
        trn_param(graph, weight, TRN_SHAPE(CLASSES, trn_tensor_dim(pooled, 1)), fill_from, weights);
    trn_tensor *b = trn_param(graph, bias, TRN_SHAPE(CLASSES), fill_from, weights);
    trn_tensor *labels = trn_constant_int(graph, "labels", TRN_SHAPE(BATCH), c->labels);
    return trn_loss_cross_entropy(graph, trn_linear(graph, pooled, w, b), labels,
                                  &(trn_class_loss_desc){.ignored = -100});
}

static trn_tensor *seeded_loss(trn_graph *graph, trn_tensor *pooled)
{
    const trn_shape *shape = trn_tensor_shape(pooled);
    float *seed = seed_of(trn_shape_count(shape)), zero = 0;
    trn_tensor *x = trn_mul(graph, pooled, trn_constant(graph, "R", *shape, seed));
    free(seed);
    trn_tensor *none = trn_expand(graph, trn_constant(graph, "zero", TRN_SHAPE(1, 1), &zero), *shape);
    return trn_loss_mse(graph, x, none);
}

static trn_tensor *place_of(const trn_encoder *encoder, trn_graph *graph)
{
    int64_t count = trn_encoder_get_spec(encoder)->location_values;
    float values[256];
    if (!count) return NULL;
    assert_true(count <= (int64_t)TRN_COUNT(values));
    trn_encoder_encode_location(encoder, prithvi.place[0], prithvi.place[1], values);
    trn_tensor *place = trn_constant(graph, "place", TRN_SHAPE(1, count), values);
    return trn_expand(graph, place, TRN_SHAPE(BATCH, count));
}

static trn_encoder *open_encoder(const side_by_side *c, trn_weights *weights)
{
    trn_setting settings[TRN_COUNT(c->settings)];
    trn_error err = {0};
    size_t count = 0;
    for (; count < TRN_COUNT(settings) && c->settings[count][0]; count++)
        settings[count] = (trn_setting){c->settings[count][0], c->settings[count][1]};
    trn_encoder *encoder = make_encoder(c->model, settings, count);
    if (c->prepare) c->prepare(encoder);
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    return encoder;
}

static void choose_four_bands(trn_encoder *encoder)
{
    static const trn_band_offer bands[] = {{"blue", 0.49}, {"red", 0}, {"swir16", 1.61}, {"vv", 0}};
    int index[TRN_COUNT(bands)];
    size_t count;
    trn_error err = {0};
    assert_trn_ok(trn_encoder_choose_bands(encoder, bands, TRN_COUNT(bands), index, TRN_COUNT(bands), &count,
                                           NULL, &err),
                  err);
    assert_int_equal(count, TRN_COUNT(bands));
}

static void choose_three_dates(trn_encoder *encoder)
{
    trn_date dates[DATES];
    trn_error err = {0};
    for (int i = 0; i < DATES; i++)
        dates[i] =
            (trn_date){.year = (int)times[i][0], .month = 1, .day = 1, .day_of_year = (int)times[i][1]};
    assert_trn_ok(trn_encoder_choose_dates(encoder, DATES, dates, &err), err);
}

static void build(const side_by_side *c, trn_graph *graph, trn_encoder *encoder, trn_weights *weights)
{
    trn_features features;
    trn_error err = {0};
    trn_graph_train(graph, all_learn, NULL);
    trn_tensor *image = trn_input(graph, "image", TRN_F32, c->image);
    trn_encode_options options = {
        .normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_MEAN, .location = place_of(encoder, graph)};
    assert_trn_ok(trn_encoder_build(encoder, graph, image, &options, &features, &err), err);
    trn_tensor *loss =
        c->head ? classifier_loss(c, graph, weights, features.pooled) : seeded_loss(graph, features.pooled);
    trn_output_add(graph, "loss", loss);
    assert_trn_ok(trn_optimizer_minimize(graph, loss, &optimizer, &err), err);
}

static void run_steps(side_by_side *c, trn_graph *graph)
{
    trn_error err = {0};
    trn_exec *exec = NULL;
    assert_trn_ok(trn_compile(graph, open_gpu(), &(trn_compile_options){.poison = true}, &exec, &err), err);
    for (int step = 0; step < STEPS; step++) {
        float *image = image_of(c, step), now[TRN_STEP_NOW], loss;
        trn_optimizer_now(&optimizer, step, 0, LR, now);
        assert_trn_ok(trn_exec_set(exec, "image", image, &err), err);
        assert_trn_ok(trn_exec_set(exec, TRN_OPTIMIZER_INPUT, now, &err), err);
        assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
        assert_trn_ok(trn_exec_get(exec, "loss", &loss, &err), err);
        c->losses[step] = (double)loss;
        free(image);
    }
    trn_exec_destroy(exec);
}

/* Both sides train the same parameters. */
static void check_parameters(const trn_graph *graph, const tape *t)
{
    const char *name;
    int count = 0;
    for (; trn_graph_learning(graph, (size_t)count, &name); count++) {
        int i = 0;
        while (i < t->param_count && strcmp(t->params[i].name, name))
            i++;
        if (i == t->param_count) fail_msg("'%s' learns on the device alone", name);
    }
    assert_int_equal(count, t->param_count);
}

static void compare(const side_by_side *c)
{
    double worst = 0, moved = 0;
    for (int i = 0; i < STEPS; i++) {
        double error = fabs(c->losses[i] - c->doubles[i]) / fabs(c->doubles[i]);
        printf("%-16s step %2d: %.8f on the device, %.8f in double (%.1e)\n", c->id, i + 1, c->losses[i],
               c->doubles[i], error);
        worst = !(error <= worst) ? error : worst; /* NaN is worst */
        moved = fmax(moved, fabs(c->doubles[i] / c->doubles[0] - 1));
    }
    if (!(worst <= TOLERANCE)) fail_msg("%s: losses differ by %g of their value", c->id, worst);
    assert_true(moved > 100 * TOLERANCE); /* else the losses would say nothing of the steps */
}

static void check(side_by_side *c)
{
    trn_weights *weights = open_weights(NULL);
    tape t = tape_open(weights);
    trn_graph *graph = trn_graph_create();
    trn_encoder *encoder = open_encoder(c, weights);
    train_in_double(c, &t);
    if (c->golden_loss) {
        float first = (float)c->doubles[0];
        test_compare_golden(c->id, c->golden_loss, &first, 1, 1e-6);
    }
    build(c, graph, encoder, weights);
    check_parameters(graph, &t);
    run_steps(c, graph);
    compare(c);
    trn_graph_destroy(graph);
    trn_encoder_destroy(encoder);
    tape_close(&t);
    trn_weights_close(weights);
}

/* ---- encoders ---- */

static void hiera_learns_as_in_double(void **state)
{
    (void)state;
    check(&(side_by_side){
        .id = "hiera_tiny_cfg",
        .input = "hiera_tiny_cfg",
        .model = "hiera-tiny",
        .settings =
            {{"img_size", "64x96"}, {"in_chans", "4"}, {"dim", "16"}, {"heads", "1"}, {"stages", "1,2,1,1"}},
        .head = "head.projection",
        .image = TRN_SHAPE(BATCH, 4, 64, 96),
        .labels = {3, 1},
        .golden_loss = "grad_loss_ce",
        .in_double = hiera_in_double});
}

static void dofa_learns_as_in_double(void **state)
{
    (void)state;
    check(&(side_by_side){.id = "dofa_tiny_cfg",
                          .input = "dofa_tiny_cfg",
                          .model = "dofa-base",
                          .settings = {{"img_size", "64"},
                                       {"patch", "8"},
                                       {"dim", "32"},
                                       {"depth", "3"},
                                       {"heads", "4"},
                                       {"fc_norm", "true"}},
                          .head = "head",
                          .image = TRN_SHAPE(BATCH, 4, 64, 64),
                          .labels = {4, 0},
                          .golden_loss = "grad_loss_ce",
                          .in_double = dofa_in_double,
                          .prepare = choose_four_bands});
}

static void prithvi_learns_as_in_double(void **state)
{
    (void)state;
    check(&(side_by_side){.id = "prithvi_tiny_tl",
                          .input = "prithvi_tiny",
                          .model = "prithvi-v2-100m-tl",
                          .settings = {{"img_size", "48x32"},
                                       {"frames", "3"},
                                       {"dim", "64"},
                                       {"depth", "3"},
                                       {"heads", "4"},
                                       {"coords", "time+location"}},
                          .image = TRN_SHAPE(BATCH, DATES, 6, 48, 32),
                          .in_double = prithvi_in_double,
                          .prepare = choose_three_dates});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hiera_learns_as_in_double),
        cmocka_unit_test(dofa_learns_as_in_double),
        cmocka_unit_test(prithvi_learns_as_in_double),
    };
    return cmocka_run_group_tests_name("first losses", tests, NULL, close_gpu);
}
