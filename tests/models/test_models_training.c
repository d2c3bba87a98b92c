/* Encoders of every family in training: what frozen parts cost, chance over the split of a batch, accumulated
 * gradients, and blocks that are computed again for their gradients. */
#include "running.h"

#include "nn.h"

enum { CLASSES = 3, BATCH = 8 };

#define HEAD "head."

/* What is trained how. */
typedef struct plan {
    int64_t batch;
    bool (*learns)(void *user, const char *name); /* NULL: nothing does, features alone */
    void *user;
    float drop_path, dropout;
    int accumulate; /* 0: 1 */
    bool recompute;
    bool without_encoder; /* the head alone, on features that are an input */
} plan;

static bool all_learn(void *user, const char *name)
{
    (void)user, (void)name;
    return true;
}

static bool head_learns(void *user, const char *name)
{
    (void)user;
    return trn_starts_with(name, HEAD);
}

/* user: "blocks.n." of the last block */
static bool head_and_last_block_learn(void *user, const char *name)
{
    return head_learns(NULL, name) || strstr(name, user);
}

static trn_status fill_head(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    (void)user, (void)err;
    uint64_t hash = trn_fnv1a64(name, strlen(name), TRN_FNV_SEED);
    float *values = out;
    for (int64_t i = 0; i < trn_shape_count(shape); i++)
        values[i] = (float)trn_hash_uniform(hash, (uint64_t)i);
    return TRN_OK;
}

/* ---- building ---- */

static const trn_optimizer_desc steps = {.kind = TRN_SGD};

static void add_head(trn_graph *graph, trn_tensor *features, const plan *p)
{
    trn_error err = {0};
    trn_optimizer_desc desc = steps;
    int64_t channels = trn_tensor_dim(features, 1);
    trn_tensor *w = trn_param(graph, HEAD "weight", TRN_SHAPE(CLASSES, channels), fill_head, NULL);
    trn_tensor *b = trn_param(graph, HEAD "bias", TRN_SHAPE(CLASSES), fill_head, NULL);
    trn_tensor *labels = trn_input(graph, "labels", TRN_I32, TRN_SHAPE(p->batch));
    trn_tensor *loss = trn_loss_cross_entropy(graph, trn_linear(graph, features, w, b), labels,
                                              &(trn_class_loss_desc){.ignored = -1});
    desc.accumulate = p->accumulate;
    trn_output_add(graph, "loss", loss);
    assert_trn_ok(trn_optimizer_minimize(graph, loss, &desc, &err), err);
}

static trn_tensor *add_encoder(trn_graph *graph, trn_encoder *encoder, const plan *p)
{
    trn_error err = {0};
    trn_features features;
    trn_training training = {.seed = 7, .dropout = p->dropout, .drop_path = p->drop_path};
    trn_encode_options options = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_MEAN};
    trn_tensor *image = trn_encoder_natural_input(encoder, graph, p->batch);
    if (p->drop_path > 0 || p->dropout > 0) {
        training.counters = trn_input(graph, "counters", TRN_I32, TRN_SHAPE(p->batch, 2));
        options.training = &training;
    }
    assert_trn_ok(trn_encoder_build(encoder, graph, image, &options, &features, &err), err);
    return features.pooled;
}

/* The optimiser shows what it changes; some parameters nothing depends on, as on the dates of one image. */
static void value_name(char out[160], const char *parameter)
{
    snprintf(out, 160, "value of %s", parameter);
}

static void add_values(trn_graph *graph)
{
    char value[160];
    const char *name;
    trn_tensor *tensor;
    for (size_t i = 0; (tensor = trn_graph_learning(graph, i, &name)); i++) {
        value_name(value, name);
        trn_output_add(graph, value, tensor);
    }
}

static trn_graph *build(trn_encoder *encoder, const plan *p)
{
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_graph_recompute(graph, p->recompute);
    trn_graph_train(graph, p->learns, p->user);
    trn_tensor *features = p->without_encoder
                               ? trn_input(graph, "features", TRN_F32,
                                           TRN_SHAPE(p->batch, trn_encoder_get_spec(encoder)->channels))
                               : add_encoder(graph, encoder, p);
    if (p->learns)
        add_head(graph, features, p);
    else
        trn_output_add(graph, "features", features);
    add_values(graph);
    assert_trn_ok(trn_graph_status(graph, &err), err);
    return graph;
}

/* ---- the encoders ---- */

/* Calls check with the tiny configuration of every family that has weights. */
static void for_each_encoder(void (*check)(const char *family, trn_encoder *encoder))
{
    const char *family;
    trn_graph *graph;
    trn_encoder *encoder;
    trn_error err = {0};
    for (size_t i = 0; trn_model_tiny(i, &family, &graph, &encoder, &err); i++) {
        if (!graph) fail_msg("%s: %s", family, err.message);
        if (trn_encoder_get_spec(encoder)->needs_weights) check(family, encoder);
        trn_graph_destroy(graph);
        trn_encoder_destroy(encoder);
    }
}

/* ---- frozen parts ---- */

static trn_exec_summary planned(trn_encoder *encoder, const plan *p)
{
    trn_error err = {0};
    trn_exec *exec = NULL;
    trn_graph *graph = build(encoder, p);
    assert_trn_ok(trn_compile(graph, open_gpu(), &(trn_compile_options){.plan_only = true}, &exec, &err),
                  err);
    trn_exec_summary summary = trn_exec_summarize(exec);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
    return summary;
}

static void check_frozen(const char *family, trn_encoder *encoder)
{
    int depth;
    char last[32];
    trn_error err = {0};
    assert_trn_ok(trn_encoder_depth(encoder, &depth, &err), err);
    snprintf(last, sizeof last, "blocks.%d.", depth - 1);
    trn_exec_summary inference = planned(encoder, &(plan){.batch = BATCH});
    trn_exec_summary head =
        planned(encoder, &(plan){.batch = BATCH, .learns = head_learns, .without_encoder = true});
    trn_exec_summary frozen = planned(encoder, &(plan){.batch = BATCH, .learns = head_learns});
    trn_exec_summary partly =
        planned(encoder, &(plan){.batch = BATCH, .learns = head_and_last_block_learn, .user = last});
    trn_exec_summary all = planned(encoder, &(plan){.batch = BATCH, .learns = all_learn});
    printf("%-8s dispatches: inference %zu, training of the head %zu, of both %zu; with the last block %zu, "
           "with "
           "all %zu\n",
           family, inference.dispatches, head.dispatches, frozen.dispatches, partly.dispatches,
           all.dispatches);
    assert_true(frozen.dispatches <= inference.dispatches + head.dispatches);
    assert_true(frozen.flops <= inference.flops + head.flops);
    assert_true(frozen.dispatches < partly.dispatches && partly.dispatches < all.dispatches);
    assert_true(frozen.flops < partly.flops && partly.flops < all.flops);
    /* and what depends on frozen weights alone is computed before */
    assert_true(frozen.setup_dispatches <= inference.setup_dispatches + head.setup_dispatches);
}

static void frozen_parts_cost_no_backward_work(void **state)
{
    (void)state;
    for_each_encoder(check_frozen);
}

/* ---- steps on the device ---- */

/* The state of all that learns, in order of building, behind one another. */
typedef struct weights {
    float *values;
    int64_t count;
} weights;

static weights read_weights(const trn_graph *graph, trn_exec *exec)
{
    trn_error err = {0};
    char value[160];
    const char *name;
    weights w = {0};
    for (size_t i = 0; trn_graph_learning(graph, i, NULL); i++)
        w.count += trn_shape_count(trn_tensor_shape(trn_graph_learning(graph, i, NULL)));
    float *at = w.values = malloc((size_t)(w.count + 1) * sizeof *at);
    assert_non_null(at);
    const trn_tensor *tensor;
    for (size_t i = 0; (tensor = trn_graph_learning(graph, i, &name)); i++) {
        value_name(value, name);
        assert_trn_ok(trn_exec_get(exec, value, at, &err), err);
        at += trn_shape_count(trn_tensor_shape(tensor));
    }
    return w;
}

/* A run of samples `first` .. of the batch in a step of the learning rate lr. Returns its loss. */
static double run(trn_encoder *encoder, trn_exec *exec, const plan *p, int part, int step, double lr)
{
    trn_error err = {0};
    float now[TRN_STEP_NOW], loss;
    int32_t labels[BATCH], counters[2 * BATCH];
    trn_optimizer_desc desc = steps;
    desc.accumulate = p->accumulate;
    trn_graph *shapes = trn_graph_create();
    int64_t size = trn_shape_count(trn_tensor_shape(trn_encoder_natural_input(encoder, shapes, 1)));
    trn_graph_destroy(shapes);
    float *images = test_hash_values("images", BATCH * size, 1, 0);
    for (int64_t i = 0; i < p->batch; i++) {
        int32_t sample = (int32_t)(part * p->batch + i);
        labels[i] = sample % CLASSES;
        counters[2 * i] = sample;
        counters[2 * i + 1] = step;
    }
    trn_optimizer_now(&desc, step, part, lr, now);
    assert_trn_ok(trn_exec_set(exec, "image", images + part * p->batch * size, &err), err);
    assert_trn_ok(trn_exec_set(exec, "labels", labels, &err), err);
    assert_trn_ok(trn_exec_set(exec, TRN_OPTIMIZER_INPUT, now, &err), err);
    if (p->drop_path > 0) assert_trn_ok(trn_exec_set(exec, "counters", counters, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    assert_trn_ok(trn_exec_get(exec, "loss", &loss, &err), err);
    free(images);
    return (double)loss;
}

/* Two steps over the batch, in parts; losses[2] are means over the parts. */
static weights two_steps(trn_encoder *encoder, const plan *p, double lr, double losses[2])
{
    trn_error err = {0};
    trn_exec *exec = NULL;
    int parts = (int)(BATCH / p->batch);
    trn_graph *graph = build(encoder, p);
    assert_trn_ok(trn_compile(graph, open_gpu(), &(trn_compile_options){.poison = true}, &exec, &err), err);
    for (int step = 0; step < 2; step++) {
        losses[step] = 0;
        for (int part = 0; part < parts; part++)
            losses[step] += run(encoder, exec, p, part, step, lr) / parts;
    }
    weights w = read_weights(graph, exec);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
    return w;
}

static double length_of(const float *a, const float *b, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum);
}

static void assert_close(const char *family, const char *what, double value, double wanted, double tolerance)
{
    if (!(fabs(value - wanted) <= tolerance * fabs(wanted)))
        fail_msg("%s: %s is %.9g, not %.9g", family, what, value, wanted);
}

static void check_split(const char *family, trn_encoder *encoder)
{
    const plan whole = {.batch = BATCH, .learns = all_learn, .drop_path = 0.5F, .dropout = 0.1F};
    plan halves = whole, certain = whole;
    halves.batch = BATCH / 2;
    halves.accumulate = 2;
    certain.drop_path = certain.dropout = 0;
    double of_whole[2], of_halves[2], of_none[2], still[2], lr = 0.1;
    weights begin = two_steps(encoder, &whole, 0, still);
    weights a = two_steps(encoder, &whole, lr, of_whole), b = two_steps(encoder, &halves, lr, of_halves);
    weights c = two_steps(encoder, &certain, lr, of_none);
    double moved = length_of(a.values, begin.values, a.count);
    double apart = length_of(a.values, b.values, a.count);
    printf(
        "%-8s losses of one batch %.7f %.7f, of two halves %.7f %.7f, without chance %.7f; steps differ by "
        "%.1e\n",
        family, of_whole[0], of_whole[1], of_halves[0], of_halves[1], of_none[0], apart / moved);
    assert_true(moved > 0);
    assert_true(apart <= 1e-4 * moved);
    assert_close(family, "the first loss of the halves", of_halves[0], of_whole[0], 1e-6);
    assert_close(family, "the second loss of the halves", of_halves[1], of_whole[1], 1e-5);
    /* chance is at work, and is another one in each step */
    assert_true(fabs(of_whole[0] - of_none[0]) > 1e-4 * of_none[0]);
    assert_true(fabs(still[0] - still[1]) > 1e-4 * still[0]);
    free(begin.values);
    free(a.values);
    free(b.values);
    free(c.values);
}

static void chance_is_the_same_in_parts_of_a_batch(void **state)
{
    (void)state;
    for_each_encoder(check_split);
}

static void check_recomputed(const char *family, trn_encoder *encoder)
{
    plan kept = {.batch = BATCH, .learns = all_learn, .drop_path = 0.5F, .dropout = 0.1F}, again = kept;
    double losses[2][2];
    again.recompute = true;
    weights a = two_steps(encoder, &kept, 0.1, losses[0]), b = two_steps(encoder, &again, 0.1, losses[1]);
    trn_exec_summary of_kept = planned(encoder, &kept), of_again = planned(encoder, &again);
    printf("%-8s values %.2f MiB kept, %.2f MiB with blocks computed again\n", family,
           (double)of_kept.arena_bytes / (1 << 20), (double)of_again.arena_bytes / (1 << 20));
    assert_true(losses[0][0] == losses[1][0] && losses[0][1] == losses[1][1]);
    assert_int_equal(a.count, b.count);
    assert_memory_equal(a.values, b.values, (size_t)a.count * sizeof *a.values);
    assert_true(of_again.flops > of_kept.flops);
    assert_true(of_again.arena_bytes <= of_kept.arena_bytes); /* equal where the most is outside of blocks */
    free(a.values);
    free(b.values);
}

static void blocks_computed_again_give_the_same_bits(void **state)
{
    (void)state;
    for_each_encoder(check_recomputed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frozen_parts_cost_no_backward_work),
        cmocka_unit_test(chance_is_the_same_in_parts_of_a_batch),
        cmocka_unit_test(blocks_computed_again_give_the_same_bits),
    };
    return cmocka_run_group_tests_name("training of encoders", tests, NULL, close_gpu);
}
