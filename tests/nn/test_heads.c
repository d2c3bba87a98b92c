/* Heads and decoders against the originals: values, gradients of every parameter, running statistics after a
 * step; shapes of all heads, and their errors. */
#include "test_device.h"
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn_private.h"
#include "weights.h"

static trn_weights *synthetic;

static int open_both(void **state)
{
    trn_error err = {0};
    if (trn_weights_open_synthetic(&synthetic, &err) == TRN_OK) return open_device(state);
    fprintf(stderr, "%s\n", err.message);
    return -1;
}

static int close_both(void **state)
{
    trn_weights_close(synthetic);
    return close_device(state);
}

/* ---- goldens ---- */

enum { MAX_INPUTS = 4, MAX_OUTS = 8, MAX_COMPARED = 96 };
static const double TOLERANCE = 1e-5, GRADIENT_TOLERANCE = 2e-5;
/* of a gradient that is 0 but for rounding (biases in front of a batch norm that trains), over the case's
 * largest */
static const double NOTHING = 1e-5;

typedef struct run {
    const struct head_case *c;
    trn_graph *graph;
    trn_scope scope;
    int inputs, outs;
    test_tensor data[MAX_INPUTS];
    trn_tensor *x[MAX_INPUTS]; /* images, as the golden has them */
    trn_tensor *out[MAX_OUTS];
    const char *out_names[MAX_OUTS];
} run;

typedef struct head_case {
    const char *id;
    void (*build)(run *r);
    int inputs;
    bool trains, whole; /* whole: of a model, not a part of one */
} head_case;

static const char *const input_names[] = {"x0", "x1", "x2", "x3"};

/* In whole models the last layer stands below the "head." of the head and one of the model's. */
static void golden_name(const run *r, const char *name, char *out, size_t size)
{
    snprintf(out, size, "%s%s", r->c->whole && trn_starts_with(name, "head.2.") ? "head." : "", name);
}

static trn_status fill(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    char full[160];
    golden_name(user, name, full, sizeof full);
    return trn_weights_read(synthetic, full, shape->dim, shape->ndim, out, err);
}

static bool all_learn(void *user, const char *name)
{
    (void)user, (void)name;
    return true;
}

static void show(run *r, const char *name, trn_tensor *tensor)
{
    assert_true(r->outs < MAX_OUTS);
    r->out_names[r->outs] = name;
    r->out[r->outs++] = tensor;
}

static void build_neck(run *r)
{
    static const char *const names[] = {"out0", "out1", "out2", "out3"};
    trn_tensor *levels[TRN_PYRAMID] = {NULL};
    trn_nn_pyramid_neck(&r->scope, r->x, levels);
    for (int i = 0; i < TRN_PYRAMID; i++)
        show(r, names[i], levels[i]);
}

static void build_upernet(run *r)
{
    show(r, "out", trn_nn_upernet(&r->scope, r->x, 16));
}

static void build_head(run *r, const trn_head_desc *desc, int height, int width, const char *name)
{
    trn_head_input input = {.grid_count = r->inputs, .height = height, .width = width};
    for (int i = 0; i < r->inputs; i++)
        input.grids[i] = trn_permute(r->graph, r->x[i], (int[]){0, 2, 3, 1});
    show(r, name, trn_nn_head(&r->scope, desc, &input));
}

static void build_upernet_of_vit(run *r)
{
    build_head(r, &(trn_head_desc){.kind = TRN_HEAD_UPERNET, .outputs = 5, .channels = 16}, 80, 64, "logits");
}

static void build_fcn(run *r)
{
    trn_head_desc desc = {.kind = TRN_HEAD_FCN, .outputs = 5, .channels = 16, .layers = 2};
    build_head(r, &desc, 20, 16, "out");
}

static void build_segmentation_head(run *r)
{
    trn_tensor *x = trn_nn_conv(&r->scope, "head.0.0.0", r->x[0], 12, 3, true);
    x = trn_nn_conv(&r->scope, "head.0.1.0", trn_unary(r->graph, "relu", x), 8, 3, true);
    show(r, "out", trn_nn_conv(&r->scope, "head.2", trn_unary(r->graph, "relu", x), 5, 1, true));
}

/* terratorch's LinearDecoder */
static void build_linear(run *r)
{
    trn_conv_desc desc = {.stride = {1, 4, 4}};
    trn_tensor *w = trn_scope_param(&r->scope, "conv.weight", TRN_SHAPE(16, 5, 4, 4));
    trn_tensor *b = trn_scope_param(&r->scope, "conv.bias", TRN_SHAPE(5));
    show(r, "out", trn_conv_transpose2d(r->graph, r->x[0], w, b, &desc));
}

/* Every place by itself, then the mean; or the mean first */
static void build_classification(run *r, bool pool_first)
{
    trn_tensor *x = trn_permute(r->graph, r->x[0], (int[]){0, 2, 3, 1});
    x = trn_reshape(r->graph, x, TRN_SHAPE(trn_tensor_dim(x, 0), -1, trn_tensor_dim(x, 3)));
    if (pool_first) x = trn_reduce(r->graph, x, 1, TRN_REDUCE_MEAN, false);
    x = trn_unary(r->graph, "relu", trn_nn_linear(&r->scope, "head.0.0.0", x, 12, true));
    x = trn_nn_linear(&r->scope, "head.2", x, 5, true);
    show(r, "out", pool_first ? x : trn_reduce(r->graph, x, 1, TRN_REDUCE_MEAN, false));
}

static void build_token_classification(run *r)
{
    build_classification(r, false);
}

static void build_pooled_classification(run *r)
{
    build_classification(r, true);
}

/* sum over outputs of sum(output * R) */
static trn_tensor *seeded_loss(const run *r, const cJSON *seeds)
{
    trn_tensor *loss = NULL;
    for (int i = 0; i < r->outs; i++) {
        const trn_shape *shape = trn_tensor_shape(r->out[i]);
        const char *hash = cJSON_GetStringValue(cJSON_GetObjectItem(seeds, r->out_names[i]));
        if (!hash) fail_msg("%s: no seed for %s", r->c->id, r->out_names[i]);
        float *values = test_hash_values(hash, trn_shape_count(shape), 1, 0);
        trn_tensor *part =
            trn_mul(r->graph, r->out[i], trn_constant(r->graph, r->out_names[i], *shape, values));
        free(values);
        part = trn_reduce(r->graph, trn_reshape(r->graph, part, TRN_SHAPE(-1)), 0, TRN_REDUCE_SUM, true);
        loss = loss ? trn_add(r->graph, loss, part) : part;
    }
    return loss;
}

static trn_tensor *cross_entropy(const run *r)
{
    test_tensor labels = test_golden_input(r->c->id, "labels");
    int32_t *classes = malloc((size_t)labels.count * sizeof *classes);
    assert_non_null(classes);
    for (int64_t i = 0; i < labels.count; i++)
        classes[i] = (int32_t)labels.data[i];
    trn_tensor *given = trn_constant_int(
        r->graph, "labels", TRN_SHAPE(labels.shape[0], labels.shape[1], labels.shape[2]), classes);
    free(classes);
    free(labels.data);
    return trn_loss_cross_entropy(r->graph, r->out[0], given, &(trn_class_loss_desc){.ignored = 255});
}

static void open_inputs(run *r)
{
    for (int i = 0; i < r->c->inputs; i++) {
        r->data[i] = test_golden_input(r->c->id, r->c->inputs == 1 ? "x" : input_names[i]);
        const int64_t *d = r->data[i].shape;
        r->x[r->inputs++] = trn_input(r->graph, input_names[i], TRN_F32, TRN_SHAPE(d[0], d[1], d[2], d[3]));
    }
}

/* Outputs of the graph and what the golden calls them. */
typedef struct compared {
    char name[160], golden[176];
    int64_t count;
    double tolerance;
} compared;

static int add_compared(const run *r, compared *list, int count, const char *name, const char *golden,
                        trn_tensor *tensor)
{
    if (!tensor) fail_msg("%s: there is no %s", r->c->id, name);
    assert_true(count < MAX_COMPARED);
    compared *item = &list[count];
    snprintf(item->name, sizeof item->name, "%s", name);
    snprintf(item->golden, sizeof item->golden, "%s", golden);
    item->count = trn_shape_count(trn_tensor_shape(tensor));
    item->tolerance = trn_starts_with(golden, "grads/") ? GRADIENT_TOLERANCE : TOLERANCE;
    return count + 1;
}

/* Gradients of inputs and of everything that learns; as outputs of the graph. */
static int add_gradients(run *r, trn_tensor *loss, compared *list, int count)
{
    trn_tensor *wrt[MAX_COMPARED], *grads[MAX_COMPARED];
    char golden[176], name[160];
    trn_error err = {0};
    int first = count, wanted = 0;
    for (; wanted < r->inputs; wanted++) {
        snprintf(golden, sizeof golden, "grads/__input%d__", wanted);
        wrt[wanted] = r->x[wanted];
        count = add_compared(r, list, count, golden, golden, wrt[wanted]);
    }
    const char *learning;
    for (size_t i = 0; (wrt[wanted] = trn_graph_learning(r->graph, i, &learning)) != NULL; i++, wanted++) {
        golden_name(r, learning, name, sizeof name);
        snprintf(golden, sizeof golden, "grads/%s", name);
        count = add_compared(r, list, count, golden, golden, wrt[wanted]);
    }
    assert_trn_ok(trn_gradients(r->graph, loss, NULL, wrt, wanted, grads, &err), err);
    for (int i = 0; i < wanted; i++)
        trn_output_add(r->graph, list[first + i].name, grads[i]);
    return count;
}

/* Running statistics are outputs already. */
static int add_statistics(const run *r, compared *list, int count)
{
    const char *name;
    trn_tensor *state;
    char golden[176];
    for (size_t i = 0; (state = trn_graph_state(r->graph, i, &name)) != NULL; i++) {
        if (!strstr(name, ".running_")) continue;
        snprintf(golden, sizeof golden, "after/%s", name);
        count = add_compared(r, list, count, name, golden, state);
    }
    return count;
}

static const cJSON *golden_entry(const run *r, const char *name)
{
    const cJSON *entry;
    cJSON_ArrayForEach (entry, cJSON_GetObjectItem(test_golden_case(r->c->id), "outputs")) {
        if (!strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(entry, "name")), name)) return entry;
    }
    return NULL;
}

static double largest_gradient(const run *r)
{
    double most = 0;
    const cJSON *entry;
    cJSON_ArrayForEach (entry, cJSON_GetObjectItem(test_golden_case(r->c->id), "outputs")) {
        if (trn_starts_with(cJSON_GetStringValue(cJSON_GetObjectItem(entry, "name")), "grads/"))
            most = fmax(most, cJSON_GetNumberValue(cJSON_GetObjectItem(entry, "absmax")));
    }
    return most;
}

static void compare(const run *r, trn_exec *exec, const compared *item)
{
    trn_error err = {0};
    float *values = malloc((size_t)item->count * sizeof *values);
    assert_non_null(values);
    assert_trn_ok(trn_exec_get(exec, item->name, values, &err), err);
    if (cJSON_IsTrue(cJSON_GetObjectItem(golden_entry(r, item->golden), "mathematically_zero"))) {
        for (int64_t i = 0; i < item->count; i++)
            assert_true(fabs((double)values[i]) < NOTHING * largest_gradient(r));
    } else {
        test_compare_golden(r->c->id, item->golden, values, item->count, item->tolerance);
    }
    free(values);
}

static void check(const head_case *c)
{
    static compared list[MAX_COMPARED];
    const trn_training training = {0};
    run r = {.c = c, .graph = trn_graph_create()};
    const trn_parameters parameters = {.fill = fill, .user = &r};
    trn_error err = {0};
    trn_exec *exec;
    r.scope = trn_scope_root(r.graph, &parameters);
    if (c->trains) r.scope.training = &training;
    trn_graph_train(r.graph, all_learn, NULL);
    open_inputs(&r);
    c->build(&r);
    assert_trn_ok(trn_graph_status(r.graph, &err), err);
    const cJSON *seeds = cJSON_GetObjectItem(test_golden_case(c->id), "grad_seed");
    trn_tensor *loss = seeds ? seeded_loss(&r, seeds) : cross_entropy(&r);
    int count = add_gradients(&r, loss, list, 0);
    for (int i = 0; i < r.outs; i++) {
        count = add_compared(&r, list, count, r.out_names[i], r.out_names[i], r.out[i]);
        trn_output_add(r.graph, r.out_names[i], r.out[i]);
    }
    count = add_compared(&r, list, count, "loss", "loss", loss);
    trn_output_add(r.graph, "loss", loss);
    if (c->trains) count = add_statistics(&r, list, count);
    assert_trn_ok(trn_compile(r.graph, gpu, &(trn_compile_options){.poison = true}, &exec, &err), err);
    for (int i = 0; i < r.inputs; i++)
        assert_trn_ok(trn_exec_set(exec, input_names[i], r.data[i].data, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    for (int i = 0; i < count; i++)
        compare(&r, exec, &list[i]);
    trn_exec_destroy(exec);
    trn_graph_destroy(r.graph);
    for (int i = 0; i < r.inputs; i++)
        free(r.data[i].data);
}

static void test_goldens(void **state)
{
    (void)state;
    static const head_case cases[] = {
        {"neck_learned_tiny", build_neck, 4, false, false},
        {"neck_learned_tiny_train", build_neck, 4, true, false},
        {"upernet_tiny", build_upernet, 4, false, false},
        {"upernet_tiny_train", build_upernet, 4, true, false},
        {"upernet_vit_tiny", build_upernet_of_vit, 4, false, true},
        {"upernet_vit_tiny_train", build_upernet_of_vit, 4, true, true},
        {"fcn_tiny", build_fcn, 1, false, true},
        {"linear_tiny", build_linear, 1, false, false},
        {"seghead_tiny", build_segmentation_head, 1, false, false},
        {"clshead_tiny", build_token_classification, 1, false, false},
        {"clshead_tiny_afterpool", build_pooled_classification, 1, false, false},
    };
    int checked = 0;
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        char loss[80];
        snprintf(loss, sizeof loss, "%s/loss.npy", cases[i].id);
        if (!test_golden_path(loss)) continue; /* only some are here without the shared goldens */
        check(&cases[i]);
        checked++;
    }
    if (!checked) skip();
}

/* ---- all heads ---- */

enum { BATCH = 2, CHANNELS = 12 };

typedef struct built {
    trn_graph *graph;
    trn_parameters parameters;
    trn_scope scope;
    trn_head_input input;
} built;

static trn_status fill_any(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    (void)user;
    return trn_weights_read(synthetic, name, shape->dim, shape->ndim, out, err);
}

/* Pooled features, and grids of 8, 4, 2 and 1 cells a side. */
static void open_built(built *b, int grids, bool pooled, int side)
{
    static const char *const names[] = {"g0", "g1", "g2", "g3"};
    *b = (built){.graph = trn_graph_create(), .parameters = {.fill = fill_any}};
    b->scope = trn_scope_root(b->graph, &b->parameters);
    b->input = (trn_head_input){.grid_count = grids, .height = side, .width = side};
    for (int i = 0; i < grids; i++)
        b->input.grids[i] =
            trn_input(b->graph, names[i], TRN_F32, TRN_SHAPE(BATCH, 8 >> i, 8 >> i, CHANNELS << i));
    if (pooled) b->input.pooled = trn_input(b->graph, "pooled", TRN_F32, TRN_SHAPE(BATCH, CHANNELS));
}

static bool asks_for(const trn_graph *graph, const char *name)
{
    const char *other;
    for (size_t i = 0; trn_graph_learning(graph, i, &other); i++)
        if (!strcmp(name, other)) return true;
    return false;
}

/* The head's logits are the references', and its gradients what finite steps find, by the selftest of graphs.
 */
static void check_head(const trn_head_desc *desc, int grids, bool pooled, int side, const char *parameter)
{
    built b;
    trn_error err = {0};
    open_built(&b, grids, pooled, side);
    trn_graph_train(b.graph, all_learn, NULL);
    trn_tensor *logits = trn_nn_head(&b.scope, desc, &b.input);
    assert_trn_ok(trn_graph_status(b.graph, &err), err);
    assert_non_null(logits);
    trn_shape wanted = side ? TRN_SHAPE(BATCH, desc->outputs, side, side) : TRN_SHAPE(BATCH, desc->outputs);
    assert_true(trn_shape_equal(trn_tensor_shape(logits), &wanted));
    if (!asks_for(b.graph, parameter)) fail_msg("no parameter is called '%s'", parameter);
    trn_tensor *wrt[MAX_COMPARED], *grads[MAX_COMPARED];
    const char *names[MAX_COMPARED];
    int count = 0;
    while (count < MAX_COMPARED && (wrt[count] = trn_graph_learning(b.graph, (size_t)count, &names[count])))
        count++;
    assert_trn_ok(trn_gradients(b.graph, logits, NULL, wrt, count, grads, &err), err);
    trn_output_add(b.graph, "logits", logits);
    for (int i = 0; i < count; i++) {
        if (!grads[i]) fail_msg("nothing depends on '%s'", names[i]);
        trn_output_add(b.graph, names[i], grads[i]);
    }
    trn_op_result result = {.op = "head", .label = parameter, .tolerance = 1e-5};
    assert_trn_ok(trn_graph_selftest(gpu, b.graph, TRN_PRECISION_FLOAT32, NULL, &result, &err), err);
    if (!result.ok) fail_msg("%s", result.message);
    trn_graph_destroy(b.graph);
}

static void test_all_heads(void **state)
{
    (void)state;
    check_head(&(trn_head_desc){.kind = TRN_HEAD_LINEAR, .outputs = 5}, 0, true, 0, "fc.weight");
    check_head(&(trn_head_desc){.kind = TRN_HEAD_LINEAR, .outputs = 5}, 2, true, 30, "fc.bias");
    check_head(&(trn_head_desc){.kind = TRN_HEAD_MLP, .outputs = 5, .layers = 2, .batch_norm = true}, 0, true,
               0, "layers.1.weight");
    check_head(&(trn_head_desc){.kind = TRN_HEAD_MLP, .outputs = 1, .channels = 7}, 1, false, 16,
               "layers.0.bias");
    check_head(&(trn_head_desc){.kind = TRN_HEAD_ATTENTION, .outputs = 5}, 3, false, 0, "levels.2.kv.weight");
    check_head(&(trn_head_desc){.kind = TRN_HEAD_ATTENTION, .outputs = 5, .heads = 3}, 1, true, 0, "latent");
    check_head(&(trn_head_desc){.kind = TRN_HEAD_FCN, .outputs = 3, .channels = 6, .layers = 1}, 2, false, 30,
               "decoder.convs.0.2.ln.weight");
    check_head(&(trn_head_desc){.kind = TRN_HEAD_UPERNET, .outputs = 3, .channels = 6}, 4, false, 32,
               "decoder.psp_modules.3.1.conv.weight");
    check_head(&(trn_head_desc){.kind = TRN_HEAD_UPERNET, .outputs = 3, .channels = 6}, 1, false, 32,
               "neck.fpn1.3.weight");
}

typedef struct bad_head {
    trn_head_desc desc;
    int grids;
    bool pooled;
    int side;
    const char *message;
} bad_head;

static void test_errors(void **state)
{
    (void)state;
    static const bad_head cases[] = {
        {{.kind = TRN_HEAD_LINEAR}, 0, true, 0, "head 'linear': it needs at least one output"},
        {{.kind = TRN_HEAD_LINEAR, .outputs = 2},
         2,
         false,
         0,
         "wants pooled features [B,C]: choose pool=mean or cls (its features: grids [2,8,8,12] [2,4,4,24])"},
        {{.kind = TRN_HEAD_MLP, .outputs = 2}, 0, true, 8, "wants a grid"},
        {{.kind = TRN_HEAD_MLP, .outputs = 2, .layers = 17}, 0, true, 0, "at most 16 hidden layers"},
        {{.kind = TRN_HEAD_ATTENTION, .outputs = 2}, 1, true, 8, "it gives vectors"},
        {{.kind = TRN_HEAD_ATTENTION, .outputs = 2}, 0, true, 0, "(its features: pooled [2,12])"},
        {{.kind = TRN_HEAD_ATTENTION, .outputs = 2, .heads = 5}, 1, true, 0, "cannot be divided"},
        {{.kind = TRN_HEAD_FCN, .outputs = 2, .layers = 9}, 1, false, 8, "8 times at most"},
        {{.kind = TRN_HEAD_UPERNET, .outputs = 2}, 1, false, 0, "it gives maps"},
        {{.kind = TRN_HEAD_UPERNET, .outputs = 2}, 2, false, 8, "it wants 4 grids"},
        {{.kind = TRN_HEAD_FCN, .outputs = 2, .batch_norm = true}, 1, false, 8, "over vectors"},
        {{.kind = TRN_HEAD_LINEAR, .outputs = 2, .dropout = 1}, 0, true, 0, "below 1"},
        {{.kind = TRN_HEAD_PROGRAM, .outputs = 2}, 0, true, 0, "it has no network"},
        {{.kind = (trn_head_kind)9, .outputs = 2}, 0, true, 0, "no head of kind 9"},
    };
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        built b;
        trn_error err = {0};
        open_built(&b, cases[i].grids, cases[i].pooled, cases[i].side);
        assert_null(trn_nn_head(&b.scope, &cases[i].desc, &b.input));
        assert_trn_fails(trn_graph_status(b.graph, &err), TRN_ERR_ARGUMENT, err, cases[i].message);
        trn_graph_destroy(b.graph);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_all_heads),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests_name("heads", tests, open_both, close_both);
}
