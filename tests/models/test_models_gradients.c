/* Gradients of whole encoders, of every parameter and of the image, against those of the originals. */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "running.h"

static const double TOLERANCE = 2e-5;
static const char PREFIX[] = "grads/";
static const char INPUT[] = "grads/__input__";

enum { MAX_BATCH = 2, MAX_LEVELS = 4, MAX_SETTINGS = 12, MAX_GRADIENTS = 160, MAX_INPUTS = 8 };

typedef struct gradient_case {
    const char *id, *model;
    trn_setting settings[MAX_SETTINGS];
    const char *head; /* of the classifier's weights: "head", NULL: another loss */
    trn_feature_pool pool;
    const char *loss; /* what the golden calls the loss's value; NULL: it has none */
    bool series;      /* the golden's image is [B,C,T,h,w] */
    bool has_bands;   /* those below */
} gradient_case;

/* A graph with its data: the encoder's parameters learn. */
typedef struct run {
    const gradient_case *c;
    trn_graph *graph;
    trn_encoder *encoder;
    trn_weights *weights;
    test_tensor x; /* as the encoder takes it */
    trn_tensor *images[MAX_BATCH];
    trn_tensor *levels[MAX_LEVELS]; /* of the neck, as it was told of them */
    int image_count;
    trn_named_data inputs[MAX_INPUTS];
    int input_count;
} run;

static bool all_learn(void *user, const char *name)
{
    (void)user, (void)name;
    return true;
}

static trn_status fill_from(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    return trn_weights_read(user, name, shape->dim, shape->ndim, out, err);
}

/* ---- images ---- */

/* Swaps the second and third axis of a golden's series, there and back: [B,n,m,area] -> [B,m,n,area]. */
static void swap_dates(float *values, int64_t batch, int64_t n, int64_t m, int64_t area)
{
    size_t bytes = (size_t)(batch * n * m * area) * sizeof *values;
    float *copy = malloc(bytes);
    assert_non_null(copy);
    memcpy(copy, values, bytes);
    for (int64_t i = 0; i < batch * n * m; i++) {
        int64_t b = i / (n * m), row = i / m % n, column = i % m;
        memcpy(values + ((b * m + column) * n + row) * area, copy + i * area, (size_t)area * sizeof *values);
    }
    free(copy);
}

static test_tensor image_of(const gradient_case *c)
{
    test_tensor x = test_golden_input(c->id, "x");
    if (!c->series) return x;
    int64_t channels = x.shape[1], dates = x.shape[2];
    swap_dates(x.data, x.shape[0], channels, dates, x.shape[3] * x.shape[4]);
    x.shape[1] = dates;
    x.shape[2] = channels;
    return x;
}

/* An input of `batch` images from number `first` on. */
static trn_tensor *add_image(run *r, int64_t first, int64_t batch)
{
    trn_shape shape = {.ndim = r->x.ndim};
    memcpy(shape.dim, r->x.shape, (size_t)r->x.ndim * sizeof *shape.dim);
    shape.dim[0] = batch;
    static const char *const names[MAX_BATCH] = {"x0", "x1"};
    const char *name = names[r->image_count];
    trn_tensor *image = trn_input(r->graph, name, TRN_F32, shape);
    r->inputs[r->input_count++] = (trn_named_data){name, r->x.data + first * (r->x.count / r->x.shape[0])};
    r->images[r->image_count++] = image;
    return image;
}

/* ---- losses ---- */

static trn_tensor *sum_of(trn_graph *graph, trn_tensor *x)
{
    return trn_reduce(graph, trn_reshape(graph, x, TRN_SHAPE(-1)), 0, TRN_REDUCE_SUM, true);
}

/* Mean cross entropy of logits [B,classes] against the golden's labels. */
static trn_tensor *cross_entropy(const run *r, trn_tensor *logits)
{
    int64_t batch = trn_tensor_dim(logits, 0), classes = trn_tensor_dim(logits, 1);
    float chosen[64] = {0};
    test_tensor labels = test_golden_input(r->c->id, "labels");
    assert_int_equal(labels.count, batch);
    assert_true(batch * classes <= (int64_t)TRN_COUNT(chosen));
    for (int64_t i = 0; i < batch; i++)
        chosen[i * classes + (int64_t)labels.data[i]] = -1.0F / (float)batch;
    free(labels.data);
    trn_tensor *weights = trn_constant(r->graph, "labels", TRN_SHAPE(batch, classes), chosen);
    return sum_of(r->graph, trn_mul(r->graph, trn_log_softmax(r->graph, logits), weights));
}

static trn_tensor *classify(const run *r, trn_tensor *pooled)
{
    char weight[64], bias[64];
    snprintf(weight, sizeof weight, "%s%s.weight", PREFIX, r->c->head);
    snprintf(bias, sizeof bias, "%s.bias", r->c->head);
    test_tensor like = test_golden_output(r->c->id, weight); /* the gradient has the shape of the weights */
    free(like.data);
    trn_tensor *w = trn_param(r->graph, weight + strlen(PREFIX), TRN_SHAPE(like.shape[0], like.shape[1]),
                              fill_from, r->weights);
    trn_tensor *b = trn_param(r->graph, bias, TRN_SHAPE(like.shape[0]), fill_from, r->weights);
    return trn_linear(r->graph, pooled, w, b);
}

static void see_level(void *user, const char *name, trn_tensor *tensor)
{
    run *r = user;
    if (trn_starts_with(name, "fpn") && name[3] >= '0' && name[3] < '0' + MAX_LEVELS)
        r->levels[name[3] - '0'] = tensor;
}

static trn_features build(run *r, trn_tensor *image, trn_tensor *place)
{
    trn_error err = {0};
    trn_features features;
    trn_encode_options options = {.normalize = TRN_NORMALIZE_NONE, .pool = r->c->pool, .location = place};
    assert_trn_ok(
        trn_encoder_build_stages(r->encoder, r->graph, image, &options, &features, see_level, r, &err), err);
    return features;
}

static trn_tensor *classifier_loss(run *r)
{
    trn_features features = build(r, add_image(r, 0, r->x.shape[0]), NULL);
    return cross_entropy(r, classify(r, features.pooled));
}

/* sum over levels of sum(level * R) */
static trn_tensor *pyramid_loss(run *r)
{
    trn_tensor *loss = NULL;
    build(r, add_image(r, 0, r->x.shape[0]), NULL);
    const cJSON *seed, *seeds = cJSON_GetObjectItem(test_golden_case(r->c->id), "grad_seed");
    cJSON_ArrayForEach (seed, seeds) {
        trn_tensor *level = r->levels[seed->string[3] - '0'];
        assert_non_null(level);
        const trn_shape *shape = trn_tensor_shape(level);
        float *values = test_hash_values(cJSON_GetStringValue(seed), trn_shape_count(shape), 1, 0);
        trn_tensor *part =
            sum_of(r->graph, trn_mul(r->graph, level, trn_constant(r->graph, seed->string, *shape, values)));
        free(values);
        loss = loss ? trn_add(r->graph, loss, part) : part;
    }
    return loss;
}

static void set_dates(run *r, int64_t b)
{
    trn_date list[8] = {{0}};
    trn_error err = {0};
    int64_t dates = r->x.shape[1];
    test_tensor coords = test_golden_input(r->c->id, "temporal_coords");
    assert_true(dates <= (int64_t)TRN_COUNT(list));
    for (int64_t t = 0; t < dates; t++) {
        const float *row = coords.data + (b * dates + t) * 2;
        list[t] = (trn_date){.year = (int)row[0], .month = 1, .day = 1, .day_of_year = (int)row[1]};
    }
    free(coords.data);
    assert_trn_ok(trn_encoder_choose_dates(r->encoder, (size_t)dates, list, &err), err);
}

static trn_tensor *add_place(run *r, int64_t b)
{
    static const char *const names[MAX_BATCH] = {"place0", "place1"};
    int64_t count = trn_encoder_get_spec(r->encoder)->location_values;
    float values[256];
    assert_true(count <= (int64_t)TRN_COUNT(values));
    test_tensor coords = test_golden_input(r->c->id, "location_coords");
    trn_encoder_encode_location(r->encoder, (double)coords.data[b * 2], (double)coords.data[b * 2 + 1],
                                values);
    free(coords.data);
    return trn_constant(r->graph, names[b], TRN_SHAPE(1, count), values);
}

/* mean((pooled * R)^2). Times and places differ: each image has an encoder of its own, of the same
 * parameters. */
static trn_tensor *series_loss(run *r)
{
    trn_tensor *loss = NULL;
    test_tensor weights = test_golden_input(r->c->id, "loss_R");
    int64_t batch = r->x.shape[0], dim = weights.shape[1];
    assert_true(batch <= MAX_BATCH);
    for (int64_t b = 0; b < batch; b++) {
        set_dates(r, b);
        trn_tensor *image = add_image(r, b, 1), *pooled = build(r, image, add_place(r, b)).pooled;
        trn_tensor *seed = trn_constant(r->graph, "loss_R", TRN_SHAPE(1, dim), weights.data + b * dim);
        trn_tensor *part = sum_of(r->graph, trn_unary(r->graph, "square", trn_mul(r->graph, pooled, seed)));
        part = trn_affine(r->graph, part, 1.0F / (float)(batch * dim), 0);
        loss = loss ? trn_add(r->graph, loss, part) : part;
    }
    free(weights.data);
    return loss;
}

/* ---- running ---- */

static void open_case(run *r)
{
    /* blue, red, short-wave infrared, radar */
    static const trn_band_offer bands[] = {{"blue", 0.49}, {"red", 0}, {"swir16", 1.61}, {"vv", 0}};
    trn_error err = {0};
    size_t count = 0, chosen;
    int index[TRN_COUNT(bands)];
    while (count < MAX_SETTINGS && r->c->settings[count].key)
        count++;
    r->graph = trn_graph_create();
    r->encoder = make_encoder(r->c->model, r->c->settings, count);
    r->weights = open_weights(NULL);
    if (r->c->has_bands)
        assert_trn_ok(trn_encoder_choose_bands(r->encoder, bands, TRN_COUNT(bands), index, TRN_COUNT(bands),
                                               &chosen, NULL, &err),
                      err);
    assert_trn_ok(trn_encoder_load(r->encoder, r->weights, NULL, &err), err);
    r->x = image_of(r->c);
    trn_graph_train(r->graph, all_learn, NULL);
}

static void close_case(run *r)
{
    free(r->x.data);
    trn_graph_destroy(r->graph);
    trn_encoder_destroy(r->encoder);
    trn_weights_close(r->weights);
}

/* What a gradient of the golden is of. */
static trn_tensor *learning(const run *r, const char *name)
{
    const char *other;
    for (size_t i = 0; trn_graph_learning(r->graph, i, &other); i++)
        if (!strcmp(name, other)) return trn_graph_learning(r->graph, i, NULL);
    fail_msg("%s: no parameter '%s' learns", r->c->id, name);
    return NULL;
}

/* Outputs named as the golden names them, of everything that it has, and "x0" ".." of the images. */
static int add_gradients(run *r, trn_tensor *loss, const char **names)
{
    trn_tensor *wrt[MAX_GRADIENTS], *grads[MAX_GRADIENTS];
    trn_error err = {0};
    int count = 0;
    for (; count < r->image_count; count++) {
        wrt[count] = r->images[count];
        names[count] = r->inputs[count].name;
    }
    const cJSON *entry;
    cJSON_ArrayForEach (entry, cJSON_GetObjectItem(test_golden_case(r->c->id), "outputs")) {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(entry, "name"));
        if (!trn_starts_with(name, PREFIX) || !strcmp(name, INPUT)) continue;
        assert_true(count < MAX_GRADIENTS);
        wrt[count] = learning(r, name + strlen(PREFIX));
        names[count++] = name;
    }
    assert_trn_ok(trn_gradients(r->graph, loss, NULL, wrt, count, grads, &err), err);
    for (int i = 0; i < count; i++) {
        if (!grads[i]) fail_msg("%s: nothing depends on %s", r->c->id, names[i]);
        trn_output_add(r->graph, names[i], grads[i]);
    }
    return count;
}

static void compare_image_gradient(const run *r, const trn_named_data *parts)
{
    float *whole = malloc((size_t)r->x.count * sizeof *whole);
    assert_non_null(whole);
    int64_t each = r->x.count / r->image_count;
    for (int i = 0; i < r->image_count; i++)
        memcpy(whole + i * each, parts[i].data, (size_t)each * sizeof *whole);
    const int64_t *d = r->x.shape;
    if (r->c->series) swap_dates(whole, d[0], d[1], d[2], d[3] * d[4]);
    test_compare_golden(r->c->id, INPUT, whole, r->x.count, TOLERANCE);
    free(whole);
}

static void run_device(const run *r, const trn_named_data *outputs, int count)
{
    trn_error err = {0};
    trn_exec *exec = NULL;
    trn_compile_options options = {.poison = true};
    assert_trn_ok(trn_compile(r->graph, open_gpu(), &options, &exec, &err), err);
    for (int i = 0; i < r->input_count; i++)
        assert_trn_ok(trn_exec_set(exec, r->inputs[i].name, r->inputs[i].data, &err), err);
    /* parameters that learn stay from run to run */
    for (int i = 0; i < 2; i++)
        assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    for (int i = 0; i < count; i++)
        assert_trn_ok(trn_exec_get(exec, outputs[i].name, outputs[i].data, &err), err);
    trn_exec_destroy(exec);
}

static void run_reference(const run *r, const trn_named_data *outputs, int count)
{
    trn_error err = {0};
    assert_trn_ok(trn_reference_run(r->graph, r->inputs, r->input_count, outputs, count, &err), err);
}

/* Of gradients and, last, the loss. */
static void compare(const run *r, const trn_named_data *outputs, const int64_t *sizes, int count)
{
    compare_image_gradient(r, outputs);
    for (int i = r->image_count; i < count; i++)
        test_compare_golden(r->c->id, outputs[i].name, outputs[i].data, sizes[i], TOLERANCE);
    if (r->c->loss) test_compare_golden(r->c->id, r->c->loss, outputs[count].data, 1, 1e-6);
}

static void check(const gradient_case *c, trn_tensor *(*build_loss)(run *r))
{
    if (!test_golden_path("hiera_tiny_cfg/grads/__input__.npy")) skip(); /* the shared goldens are not here */
    run r = {.c = c};
    trn_error err = {0};
    const char *names[MAX_GRADIENTS];
    trn_named_data outputs[MAX_GRADIENTS + 1];
    int64_t sizes[MAX_GRADIENTS + 1];
    open_case(&r);
    trn_tensor *loss = build_loss(&r);
    assert_trn_ok(trn_graph_status(r.graph, &err), err);
    int count = add_gradients(&r, loss, names);
    assert_true(count > r.image_count);
    trn_output_add(r.graph, "loss", loss);
    for (int i = 0; i <= count; i++) {
        sizes[i] = i == count ? 1
                   : i < r.image_count
                       ? r.x.count / r.image_count
                       : trn_shape_count(trn_tensor_shape(learning(&r, names[i] + strlen(PREFIX))));
        outputs[i] = (trn_named_data){i == count ? "loss" : names[i], malloc((size_t)sizes[i] * 4)};
        assert_non_null(outputs[i].data);
    }
    run_reference(&r, outputs, count + 1);
    compare(&r, outputs, sizes, count);
    for (int i = 0; i <= count; i++)
        memset(outputs[i].data, 0xff, (size_t)sizes[i] * 4);
    run_device(&r, outputs, count + 1);
    compare(&r, outputs, sizes, count);
    for (int i = 0; i <= count; i++)
        free(outputs[i].data);
    close_case(&r);
}

/* ---- cases ---- */

#define TINY_VIT                                                                                             \
    {"img_size", "32"}, {"patch", "8"}, {"dim", "48"}, {"depth", "3"},                                       \
    {                                                                                                        \
        "heads", "4"                                                                                         \
    }

static void test_vit_mae(void **state)
{
    (void)state;
    static const gradient_case c = {.id = "vit_tiny_mae",
                                    .model = "mae-vit-base",
                                    .settings = {TINY_VIT, {"fc_norm", "true"}},
                                    .head = "head",
                                    .pool = TRN_FEATURES_MEAN,
                                    .loss = "grad_loss_ce"};
    check(&c, classifier_loss);
}

static void test_vit_dinov2(void **state)
{
    (void)state;
    static const gradient_case c = {.id = "vit_tiny_dinov2",
                                    .model = "dinov2-small",
                                    .settings = {TINY_VIT},
                                    .head = "head",
                                    .pool = TRN_FEATURES_CLS,
                                    .loss = "grad_loss_ce"};
    check(&c, classifier_loss);
}

static void test_hiera(void **state)
{
    (void)state;
    static const gradient_case c = {.id = "hiera_tiny_cfg",
                                    .model = "hiera-tiny",
                                    .settings = {{"img_size", "64x96"},
                                                 {"in_chans", "4"},
                                                 {"dim", "16"},
                                                 {"heads", "1"},
                                                 {"stages", "1,2,1,1"}},
                                    .head = "head.projection",
                                    .pool = TRN_FEATURES_MEAN,
                                    .loss = "grad_loss_ce"};
    check(&c, classifier_loss);
}

static void test_dofa(void **state)
{
    (void)state;
    static const gradient_case c = {.id = "dofa_tiny_cfg",
                                    .model = "dofa-base",
                                    .settings = {{"img_size", "64"},
                                                 {"patch", "8"},
                                                 {"dim", "32"},
                                                 {"depth", "3"},
                                                 {"heads", "4"},
                                                 {"fc_norm", "true"}},
                                    .head = "head",
                                    .pool = TRN_FEATURES_MEAN,
                                    .loss = "grad_loss_ce",
                                    .has_bands = true};
    check(&c, classifier_loss);
}

static void test_prithvi(void **state)
{
    (void)state;
    static const gradient_case c = {.id = "prithvi_tiny_tl",
                                    .model = "prithvi-v2-100m-tl",
                                    .settings = {{"img_size", "48x32"},
                                                 {"frames", "3"},
                                                 {"dim", "64"},
                                                 {"depth", "3"},
                                                 {"heads", "4"},
                                                 {"coords", "time+location"}},
                                    .pool = TRN_FEATURES_MEAN,
                                    .loss = "grad_loss",
                                    .series = true};
    check(&c, series_loss);
}

#define TINY_SAM2                                                                                            \
    {"dim", "8"}, {"heads", "1"}, {"stages", "1,2,3,2"}, {"window_spec", "8,4,4,2"}, {"global_blocks", "4"}, \
        {"pos_size", "3x5"},                                                                                 \
    {                                                                                                        \
        "img_size", "96x160"                                                                                 \
    }

static void test_sam2_trunk(void **state)
{
    (void)state;
    static const gradient_case c = {
        .id = "sam2_tiny_cfg",
        .model = "sam2.1-hiera-tiny",
        .settings = {TINY_SAM2, {"in_chans", "4"}, {"names", "timm"}, {"head_norm", "true"}},
        .head = "head.fc",
        .pool = TRN_FEATURES_MEAN,
        .loss = "grad_loss_ce"};
    check(&c, classifier_loss);
}

static void test_sam2_neck(void **state)
{
    (void)state;
    static const gradient_case c = {
        .id = "sam2_encoder_tiny",
        .model = "sam2.1-hiera-tiny",
        .settings = {TINY_SAM2, {"neck", "fpn"}, {"neck_dim", "16"}, {"names", "official"}},
        .pool = TRN_FEATURES_DENSE};
    check(&c, pyramid_loss);
}

/* ---- families without gradients of the originals: the loss moves as the gradient says ---- */

enum { FAMILY_BATCH = 2 };
/* Samples 7 and 3 in step 11. */
static const int32_t counters[2 * FAMILY_BATCH] = {7, 11, 3, 11};

typedef struct moved {
    trn_graph *graph;
    bool trains; /* it has the input "counters" */
    int count;
    trn_named_data at[MAX_GRADIENTS];
    float *grads[MAX_GRADIENTS];
    int64_t sizes[MAX_GRADIENTS];
} moved;

static double loss_beside(const moved *m, double step)
{
    trn_error err = {0};
    float loss;
    trn_named_data inputs[MAX_GRADIENTS + 1], out = {"loss", &loss};
    for (int i = 0; i < m->count; i++) {
        float *values = malloc((size_t)m->sizes[i] * sizeof *values);
        assert_non_null(values);
        for (int64_t k = 0; k < m->sizes[i]; k++)
            values[k] = (float)((double)((float *)m->at[i].data)[k] + step * (double)m->grads[i][k]);
        inputs[i] = (trn_named_data){m->at[i].name, values};
    }
    int32_t rows[TRN_COUNT(counters)];
    memcpy(rows, counters, sizeof rows);
    inputs[m->count] = (trn_named_data){"counters", rows};
    assert_trn_ok(trn_reference_run(m->graph, inputs, m->count + m->trains, &out, 1, &err), err);
    for (int i = 0; i < m->count; i++)
        free(inputs[i].data);
    return (double)loss;
}

/* Of the image and of all that learns, where the loss depends on it; outputs of their values beside them. */
static void find_gradients(moved *m, trn_tensor *loss, trn_tensor *image)
{
    trn_tensor *wrt[MAX_GRADIENTS] = {image}, *grads[MAX_GRADIENTS];
    const char *names[MAX_GRADIENTS] = {"image"};
    trn_error err = {0};
    int count = 1;
    for (trn_tensor *state; (state = trn_graph_learning(m->graph, (size_t)count - 1, &names[count]));) {
        assert_true(count + 1 < MAX_GRADIENTS);
        wrt[count++] = state;
    }
    assert_trn_ok(trn_gradients(m->graph, loss, NULL, wrt, count, grads, &err), err);
    for (int i = 0; i < count; i++) {
        char value[128];
        if (!grads[i]) continue;
        int64_t size = trn_shape_count(trn_tensor_shape(wrt[i]));
        snprintf(value, sizeof value, "value of %s", names[i]);
        trn_output_add(m->graph, value, wrt[i]);
        trn_output_add(m->graph, names[i], grads[i]);
        m->at[m->count] = (trn_named_data){names[i], malloc((size_t)size * sizeof(float))};
        m->grads[m->count] = malloc((size_t)size * sizeof(float));
        m->sizes[m->count] = size;
        assert_true(m->at[m->count].data && m->grads[m->count]);
        m->count++;
    }
}

static double run_gradients(const moved *m)
{
    trn_error err = {0};
    trn_exec *exec = NULL;
    char value[128];
    double squares = 0;
    float *image = test_hash_values("image", m->sizes[0], 1, 0);
    assert_trn_ok(trn_compile(m->graph, open_gpu(), &(trn_compile_options){.poison = true}, &exec, &err),
                  err);
    assert_trn_ok(trn_exec_set(exec, "image", image, &err), err); /* the others are filled */
    if (m->trains) assert_trn_ok(trn_exec_set(exec, "counters", counters, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    for (int i = 0; i < m->count; i++) {
        snprintf(value, sizeof value, "value of %s", m->at[i].name);
        assert_trn_ok(trn_exec_get(exec, value, m->at[i].data, &err), err);
        assert_trn_ok(trn_exec_get(exec, m->at[i].name, m->grads[i], &err), err);
        for (int64_t k = 0; k < m->sizes[i]; k++)
            squares += (double)m->grads[i][k] * (double)m->grads[i][k];
    }
    free(image);
    trn_exec_destroy(exec);
    return sqrt(squares);
}

/* The loss is the features, weighted. */
static void open_moved(moved *m, trn_encoder *encoder, bool trains, bool recompute)
{
    trn_error err = {0};
    trn_features features;
    trn_training training = {.seed = 5, .dropout = 0.1F, .drop_path = 0.5F};
    *m = (moved){.graph = trn_graph_create(), .trains = trains};
    trn_graph_train(m->graph, all_learn, NULL);
    trn_graph_recompute(m->graph, recompute);
    trn_tensor *image = trn_encoder_natural_input(encoder, m->graph, FAMILY_BATCH);
    trn_encode_options options = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_MEAN};
    if (trains) {
        training.counters = trn_input(m->graph, "counters", TRN_I32, TRN_SHAPE(FAMILY_BATCH, 2));
        options.training = &training;
    }
    assert_trn_ok(trn_encoder_build(encoder, m->graph, image, &options, &features, &err), err);
    const trn_shape *shape = trn_tensor_shape(features.pooled);
    float *seed = test_hash_values("seed", trn_shape_count(shape), 1, 0);
    trn_tensor *weighted = trn_mul(m->graph, features.pooled, trn_constant(m->graph, "seed", *shape, seed));
    trn_tensor *loss = sum_of(m->graph, weighted);
    free(seed);
    find_gradients(m, loss, image);
    assert_int_equal(m->count > 1, trn_encoder_get_spec(encoder)->needs_weights);
    trn_output_add(m->graph, "loss", loss);
}

static void close_moved(moved *m)
{
    for (int i = 0; i < m->count; i++) {
        free(m->at[i].data);
        free(m->grads[i]);
    }
    trn_graph_destroy(m->graph);
}

/* Blocks that are computed again for their gradients give the same bits. */
static void check_recomputed(const moved *m, trn_encoder *encoder)
{
    moved again;
    open_moved(&again, encoder, m->trains, true);
    run_gradients(&again);
    assert_int_equal(again.count, m->count);
    for (int i = 0; i < m->count; i++) {
        assert_string_equal(again.at[i].name, m->at[i].name);
        assert_memory_equal(again.grads[i], m->grads[i], (size_t)m->sizes[i] * sizeof(float));
    }
    close_moved(&again);
}

/* Along its gradient, a loss rises by the gradient's length; also where chance takes part. Returns the loss.
 */
static double check_family(const char *family, trn_encoder *encoder, bool trains)
{
    moved m;
    open_moved(&m, encoder, trains, false);
    double length = run_gradients(&m), h = 1e-3;
    assert_true(length > 0);
    double slope = (loss_beside(&m, h / length) - loss_beside(&m, -h / length)) / (2 * h);
    printf("%-10s %3d tensors%s: the loss rises by %.6g, the gradient's length is %.6g\n", family, m.count,
           trains ? ", by chance" : "", slope, length);
    assert_true(fabs(slope - length) < 5e-3 * length);
    double loss = loss_beside(&m, 0);
    check_recomputed(&m, encoder);
    close_moved(&m);
    return loss;
}

static const trn_wanted *find_wanted(const trn_wanted *items, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(items[i].name, name)) return &items[i];
    fail_msg("no checkpoint has '%s'", name);
    return NULL;
}

/* Windows of another size than the checkpoint's: positions and kernels are resized in the graph, and what
 * learns has the checkpoint's shape. */
static void check_what_learns(trn_encoder *encoder)
{
    trn_error err = {0};
    trn_features features;
    trn_wanted *items;
    const char *name;
    size_t count, i = 0;
    const trn_encoder_spec *spec = trn_encoder_get_spec(encoder);
    trn_graph *graph = trn_graph_create();
    trn_graph_train(graph, all_learn, NULL);
    int64_t side = (int64_t)spec->tile * 2, bands = (int64_t)trn_encoder_channel_count(encoder);
    trn_shape shape = TRN_SHAPE(1, bands, side, side);
    if (spec->max_dates > 1) shape = TRN_SHAPE(1, trn_encoder_date_count(encoder), bands, side, side);
    trn_tensor *image = trn_input(graph, "image", TRN_F32, shape);
    trn_encode_options options = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_MEAN};
    assert_trn_ok(trn_encoder_wanted(encoder, &items, &count, &err), err);
    assert_trn_ok(trn_encoder_build(encoder, graph, image, &options, &features, &err), err);
    for (trn_tensor *state; (state = trn_graph_learning(graph, i, &name)) != NULL; i++) {
        const trn_wanted *wanted = find_wanted(items, count, name);
        if (!trn_shape_equal(&wanted->shape, trn_tensor_shape(state))) fail_msg("'%s' is resized", name);
    }
    assert_true(i > 0);
    free(items);
    trn_graph_destroy(graph);
}

static void test_families(void **state)
{
    (void)state;
    const char *family;
    trn_graph *graph;
    trn_encoder *encoder;
    trn_error err = {0};
    size_t i = 0;
    for (; trn_model_tiny(i, &family, &graph, &encoder, &err); i++) {
        if (!graph) fail_msg("%s: %s", family, err.message);
        double still = check_family(family, encoder, false);
        if (trn_encoder_get_spec(encoder)->needs_weights) {
            assert_true(check_family(family, encoder, true) != still);
            check_what_learns(encoder);
        }
        trn_graph_destroy(graph);
        trn_encoder_destroy(encoder);
    }
    assert_int_equal(i, trn_family_count);
}

/* Some of a checkpoint's bands: its whole kernel learns. */
static void test_bands_of_a_kernel(void **state)
{
    (void)state;
    static const trn_setting settings[] = {{"img_size", "32"}, {"patch", "8"}, {"dim", "48"},
                                           {"depth", "1"},     {"heads", "4"}, {"bands", "red,nir08"}};
    trn_error err = {0};
    size_t count;
    trn_encoder *encoder = make_encoder("prithvi-v1-100m", settings, TRN_COUNT(settings));
    trn_weights *weights = open_weights(NULL);
    assert_trn_ok(trn_encoder_choose_all_bands(encoder, &count, &err), err);
    assert_int_equal(count, 2);
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    check_what_learns(encoder);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vit_mae),
        cmocka_unit_test(test_vit_dinov2),
        cmocka_unit_test(test_hiera),
        cmocka_unit_test(test_dofa),
        cmocka_unit_test(test_prithvi),
        cmocka_unit_test(test_sam2_trunk),
        cmocka_unit_test(test_sam2_neck),
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_bands_of_a_kernel),
    };
    return cmocka_run_group_tests_name("gradients", tests, NULL, close_gpu);
}
