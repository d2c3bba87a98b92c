/* SAM 2's trunk and neck against the outputs of the originals, and against a plain computation of their own.
 */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "running.h"
#include "sam2.h"

#define TINY                                                                                                 \
    {"dim", "8"}, {"heads", "1"}, {"stages", "1,2,3,2"}, {"window_spec", "8,4,4,2"}, {"global_blocks", "4"}, \
        {"pos_size", "3x5"},                                                                                 \
    {                                                                                                        \
        "img_size", "96x160"                                                                                 \
    }
#define TINY_TIMM                                                                                            \
    TINY,                                                                                                    \
    {                                                                                                        \
        "in_chans", "4"                                                                                      \
    }
#define SYNTHETIC_TIMM                                                                                       \
    {"names", "timm"},                                                                                       \
    {                                                                                                        \
        "head_norm", "true"                                                                                  \
    }
#define TINY_NECK                                                                                            \
    TINY, {"neck", "fpn"},                                                                                   \
    {                                                                                                        \
        "neck_dim", "16"                                                                                     \
    }

static const trn_encode_options as_is_mean = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_MEAN};
static const trn_encode_options as_is_dense = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_DENSE};

static trn_encoder *load_encoder(const char *model, const trn_setting *settings, size_t count,
                                 trn_weights *weights)
{
    trn_error err = {0};
    trn_encoder *encoder = make_encoder(model, settings, count);
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    return encoder;
}

static staged build_stages(trn_encoder *encoder, const test_tensor *x, const trn_encode_options *options,
                           trn_features *features)
{
    staged s = {.graph = trn_graph_create()};
    trn_error err = {0};
    trn_tensor *image =
        trn_input(s.graph, "x", TRN_F32, TRN_SHAPE(x->shape[0], x->shape[1], x->shape[2], x->shape[3]));
    assert_trn_ok(trn_encoder_build_stages(encoder, s.graph, image, options, features, staged_add, &s, &err),
                  err);
    return s;
}

static void staged_run(staged *s, const trn_named_data *input, int inputs, bool device)
{
    if (device)
        staged_run_device(s, input, inputs);
    else
        staged_run_reference(s, input, inputs);
}

static bool golden_has_output(const char *id, const char *name)
{
    const cJSON *output;
    cJSON_ArrayForEach (output, cJSON_GetObjectItem(test_golden_case(id), "outputs")) {
        if (!strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(output, "name")), name)) return true;
    }
    return false;
}

/* Compares the stages that the case has; how many. */
static int compare_stages(const char *id, const staged *s, double tolerance)
{
    int compared = 0;
    for (int i = 0; i < s->count; i++) {
        if (!golden_has_output(id, s->names[i])) continue;
        test_compare_golden(id, s->names[i], s->values[i], s->sizes[i], tolerance);
        compared++;
    }
    return compared;
}

/* The classifier of the tiny cases, on the pooled features. */
static void compare_logits(const char *id, const staged *s, trn_weights *weights)
{
    enum { CLASSES = 5, DIM = 64, BATCH = 2 };
    float w[CLASSES * DIM], b[CLASSES], out[BATCH * CLASSES];
    const float *pooled = staged_get(s, "pooled_norm");
    trn_error err = {0};
    assert_trn_ok(trn_weights_read(weights, "head.fc.weight", (int64_t[]){CLASSES, DIM}, 2, w, &err), err);
    assert_trn_ok(trn_weights_read(weights, "head.fc.bias", (int64_t[]){CLASSES}, 1, b, &err), err);
    for (int i = 0; i < BATCH * CLASSES; i++) {
        double sum = (double)b[i % CLASSES];
        for (int k = 0; k < DIM; k++)
            sum += (double)pooled[i / CLASSES * DIM + k] * (double)w[i % CLASSES * DIM + k];
        out[i] = (float)sum;
    }
    test_compare_golden(id, "logits", out, BATCH * CLASSES, 1e-5);
}

static void compare_trunk(const char *id, const char *path, const trn_setting *settings, size_t count,
                          int stages)
{
    trn_weights *weights = open_weights(path);
    trn_encoder *encoder = load_encoder("sam2.1-hiera-tiny", settings, count, weights);
    test_tensor x = test_golden_input(id, "x");
    trn_features features;
    staged s = build_stages(encoder, &x, &as_is_mean, &features);
    trn_named_data input = {"x", x.data};
    for (int device = 0; device < 2; device++) {
        staged_run(&s, &input, 1, device);
        assert_int_equal(compare_stages(id, &s, 1e-5), stages);
        compare_logits(id, &s, weights);
    }
    staged_close(&s);
    free(x.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

enum { TINY_STAGES = 3 + 8 + 2 * 5 + 4 + 2 };

static void test_tiny_trunk(void **state)
{
    (void)state;
    const trn_setting settings[] = {TINY_TIMM, SYNTHETIC_TIMM};
    compare_trunk("sam2_tiny_cfg", NULL, settings, TRN_COUNT(settings), TINY_STAGES);
}

static void test_tiny_trunk_files(void **state)
{
    (void)state;
    static const char *const files[] = {"sam2_tiny_cfg/sam2_tiny_cfg.pt",
                                        "sam2_tiny_cfg/sam2_tiny_cfg.safetensors"};
    const trn_setting settings[] = {TINY_TIMM};
    if (!test_golden_path(files[0])) skip();
    for (size_t i = 0; i < TRN_COUNT(files); i++)
        compare_trunk("sam2_tiny_cfg", test_golden_path(files[i]), settings, TRN_COUNT(settings),
                      TINY_STAGES);
}

/* Two stages that halve the grid, and a last block that sees all of it. */
static void test_tiny_two_pools(void **state)
{
    (void)state;
    const trn_setting settings[] = {TINY_TIMM, SYNTHETIC_TIMM, {"q_pool", "2"}, {"global_blocks", "4,7"}};
    compare_trunk("sam2_tiny_qpool2", NULL, settings, TRN_COUNT(settings), 4);
}

/* ---- neck ---- */

static void compare_encoder(const char *path, const trn_setting *settings, size_t count)
{
    const char *id = "sam2_encoder_tiny";
    trn_weights *weights = open_weights(path);
    trn_encoder *encoder = load_encoder("sam2.1-hiera-tiny", settings, count, weights);
    test_tensor x = test_golden_input(id, "x");
    trn_features features;
    staged s = build_stages(encoder, &x, &as_is_dense, &features);
    assert_int_equal(features.grid_count, 3);
    for (int i = 0; i < 3; i++) {
        assert_true(features.stride[i] == 4 << i && features.offset[i] == 0);
        assert_true(
            trn_shape_equal(trn_tensor_shape(features.grids[i]), &TRN_SHAPE(2, 24 >> i, 40 >> i, 16)));
    }
    trn_named_data input = {"x", x.data};
    for (int device = 0; device < 2; device++) {
        staged_run(&s, &input, 1, device);
        assert_int_equal(compare_stages(id, &s, 1e-5), 4 * 4);
    }
    staged_close(&s);
    free(x.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void test_encoder_with_neck(void **state)
{
    (void)state;
    const trn_setting settings[] = {TINY_NECK, {"names", "official"}};
    compare_encoder(NULL, settings, TRN_COUNT(settings));
}

static void test_encoder_with_neck_files(void **state)
{
    (void)state;
    static const char *const files[] = {"sam2_encoder_tiny/sam2_encoder_tiny.pt",
                                        "sam2_encoder_tiny/sam2_encoder_tiny.safetensors"};
    const trn_setting settings[] = {TINY_NECK};
    if (!test_golden_path(files[0])) skip();
    for (size_t i = 0; i < TRN_COUNT(files); i++)
        compare_encoder(test_golden_path(files[i]), settings, TRN_COUNT(settings));
}

static trn_status fill_from(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    return trn_weights_read(user, name, shape->dim, shape->ndim, out, err);
}

static void test_neck_bilinear_average(void **state)
{
    (void)state;
    enum { LEVELS = 4 };
    const char *id = "sam2_neck_bilinear_avg";
    trn_weights *weights = open_weights(NULL);
    trn_parameters parameters = {.fill = fill_from, .user = weights};
    trn_sam2_neck neck = {LEVELS, 16, {true, true, true, true}, true, true};
    trn_named_data inputs[LEVELS];
    trn_tensor *stages[LEVELS], *levels[LEVELS];
    staged s = {.graph = trn_graph_create()};
    for (int i = 0; i < LEVELS; i++) {
        static const char *const names[LEVELS] = {"x0", "x1", "x2", "x3"};
        test_tensor x = test_golden_input(id, names[i]);
        trn_shape shape = TRN_SHAPE(x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
        inputs[i] = (trn_named_data){names[i], x.data};
        stages[i] = trn_permute(s.graph, trn_input(s.graph, names[i], TRN_F32, shape), (int[]){0, 2, 3, 1});
    }
    trn_build build = {.scope = trn_scope_root(s.graph, &parameters), .stage = staged_add, .stage_user = &s};
    trn_sam2_build_neck(&build, &build.scope, &neck, stages, levels);
    for (int device = 0; device < 2; device++) {
        staged_run(&s, inputs, LEVELS, device);
        assert_int_equal(compare_stages(id, &s, 1e-5), LEVELS);
    }
    staged_close(&s);
    for (int i = 0; i < LEVELS; i++)
        free(inputs[i].data);
    trn_weights_close(weights);
}

static void test_neck_errors(void **state)
{
    (void)state;
    trn_weights *weights = open_weights(NULL);
    trn_parameters parameters = {.fill = fill_from, .user = weights};
    trn_sam2_neck neck = {2, 16, {true, true}, false, false};
    trn_graph *graph = trn_graph_create();
    trn_error err = {0};
    trn_tensor *stages[] = {trn_input(graph, "a", TRN_F32, TRN_SHAPE(1, 5, 8, 8)),
                            trn_input(graph, "b", TRN_F32, TRN_SHAPE(1, 2, 4, 16))},
               *levels[2];
    trn_build build = {.scope = trn_scope_root(graph, &parameters)};
    trn_sam2_build_neck(&build, &build.scope, &neck, stages, levels);
    assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, "2x4 cells to one of 5x8");
    trn_graph_destroy(graph);
    trn_weights_close(weights);
}

/* ---- the published size ---- */

static void compare_full(const char *id, int stages)
{
    const char *wanted = getenv("TERRANE_TEST_FULL");
    if (!wanted || strcmp(wanted, "1") || !test_golden_has(id)) skip();
    const trn_setting settings[] = {SYNTHETIC_TIMM};
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = load_encoder("sam2.1-hiera-tiny", settings, TRN_COUNT(settings), weights);
    test_tensor x = test_golden_input(id, "x");
    trn_features features;
    staged s = build_stages(encoder, &x, &as_is_mean, &features);
    trn_named_data input = {"x", x.data};
    staged_run_device(&s, &input, 1);
    assert_int_equal(compare_stages(id, &s, 2e-5), stages);
    staged_close(&s);
    free(x.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void test_full_224(void **state)
{
    (void)state;
    compare_full("full_sam2_hiera_tiny_224", 13);
}

static void test_full_512(void **state)
{
    (void)state;
    compare_full("full_sam2_hiera_tiny_512", 13);
}

/* ---- a plain trunk ---- */

enum { PLAIN_STAGES = 4, PLAIN_DIM = 8, PLAIN_HEADS = 2, PLAIN_DEPTH = 6 };
static const double plain_eps = 1e-5;

/* One block as the plain computation sees it: cells [h*w, dim]. */
typedef struct plain {
    trn_weights *weights;
    int h, w, dim;
    double *cells;
} plain;

static float *plain_param(const plain *p, int block, const char *name, int rows, int columns)
{
    char full[96];
    trn_error err = {0};
    int64_t shape[] = {rows, columns};
    float *values = malloc((size_t)rows * (size_t)TRN_MAX(columns, 1) * sizeof *values);
    assert_non_null(values);
    snprintf(full, sizeof full, "blocks.%d.%s", block, name);
    assert_trn_ok(trn_weights_read(p->weights, full, shape, columns ? 2 : 1, values, &err), err);
    return values;
}

static double *plain_norm(const plain *p, int block, const char *name, const double *x, int count, int dim)
{
    char part[64];
    snprintf(part, sizeof part, "%s.weight", name);
    float *w = plain_param(p, block, part, dim, 0);
    snprintf(part, sizeof part, "%s.bias", name);
    float *b = plain_param(p, block, part, dim, 0);
    double *out = malloc((size_t)(count * dim) * sizeof *out);
    for (int i = 0; i < count; i++) {
        double mean = 0, variance = 0;
        for (int k = 0; k < dim; k++)
            mean += x[i * dim + k] / dim;
        for (int k = 0; k < dim; k++)
            variance += (x[i * dim + k] - mean) * (x[i * dim + k] - mean) / dim;
        for (int k = 0; k < dim; k++)
            out[i * dim + k] =
                (x[i * dim + k] - mean) / sqrt(variance + plain_eps) * (double)w[k] + (double)b[k];
    }
    free(w);
    free(b);
    return out;
}

static double *plain_linear(const plain *p, int block, const char *name, const double *x, int count, int in,
                            int out_dim)
{
    char part[64];
    snprintf(part, sizeof part, "%s.weight", name);
    float *w = plain_param(p, block, part, out_dim, in);
    snprintf(part, sizeof part, "%s.bias", name);
    float *b = plain_param(p, block, part, out_dim, 0);
    double *out = malloc((size_t)(count * out_dim) * sizeof *out);
    for (int i = 0; i < count; i++)
        for (int o = 0; o < out_dim; o++) {
            double sum = (double)b[o];
            for (int k = 0; k < in; k++)
                sum += x[i * in + k] * (double)w[o * in + k];
            out[i * out_dim + o] = sum;
        }
    free(w);
    free(b);
    return out;
}

/* [h,w,dim] -> [h/2,w/2,dim] */
static double *plain_pool(const double *x, int h, int w, int dim)
{
    double *out = malloc((size_t)(h / 2 * (w / 2) * dim + 1) * sizeof *out);
    for (int y = 0; y < h / 2; y++)
        for (int c = 0; c < w / 2; c++)
            for (int k = 0; k < dim; k++) {
                double a = fmax(x[(2 * y * w + 2 * c) * dim + k], x[(2 * y * w + 2 * c + 1) * dim + k]);
                double b =
                    fmax(x[((2 * y + 1) * w + 2 * c) * dim + k], x[((2 * y + 1) * w + 2 * c + 1) * dim + k]);
                out[(y * (w / 2) + c) * dim + k] = fmax(a, b);
            }
    return out;
}

/* softmax(q k^T / sqrt(head)) v of one query and head, keys in rows of 3*dim */
static void plain_attend(const double *q, const double *qkv, int keys, int dim, int head, double *out)
{
    double total = 0, scores[1024];
    assert_true(keys <= 1024);
    for (int j = 0; j < keys; j++) {
        double dot = 0;
        for (int k = 0; k < head; k++)
            dot += q[k] * qkv[j * 3 * dim + dim + k];
        scores[j] = exp(dot / sqrt(head));
        total += scores[j];
    }
    for (int k = 0; k < head; k++) {
        out[k] = 0;
        for (int j = 0; j < keys; j++)
            out[k] += scores[j] / total * qkv[j * 3 * dim + 2 * dim + k];
    }
}

/* One window at (top, left) of normed cells, its results put into out [oh,ow,dim]. */
static void plain_window(const plain *p, int block, const double *normed, int top, int left, int h, int w,
                         int dim, int heads, bool pools, double *out, int oh, int ow)
{
    int cells = h * w, step = pools ? 2 : 1, head = dim / heads;
    double *x = calloc((size_t)(cells * p->dim), sizeof *x);
    for (int y = 0; y < h && top + y < p->h; y++)
        for (int c = 0; c < w && left + c < p->w; c++)
            memcpy(x + (y * w + c) * p->dim, normed + ((top + y) * p->w + left + c) * p->dim,
                   (size_t)p->dim * sizeof *x);
    double *qkv = plain_linear(p, block, "attn.qkv", x, cells, p->dim, 3 * dim);
    double *q = malloc((size_t)(cells * dim) * sizeof *q), *pooled = NULL;
    for (int i = 0; i < cells; i++)
        memcpy(q + i * dim, qkv + i * 3 * dim, (size_t)dim * sizeof *q);
    if (pools) pooled = plain_pool(q, h, w, dim);
    int qh = h / step, qw = w / step;
    double *mixed = malloc((size_t)(qh * qw * dim) * sizeof *mixed);
    for (int i = 0; i < qh * qw; i++)
        for (int g = 0; g < heads; g++)
            plain_attend((pooled ? pooled : q) + i * dim + g * head, qkv + g * head, cells, dim, head,
                         mixed + i * dim + g * head);
    double *y = plain_linear(p, block, "attn.proj", mixed, qh * qw, dim, dim);
    for (int i = 0; i < qh * qw; i++) {
        int row = top / step + i / qw, column = left / step + i % qw;
        if (row < oh && column < ow)
            memcpy(out + (row * ow + column) * dim, y + i * dim, (size_t)dim * sizeof *out);
    }
    free(x);
    free(qkv);
    free(q);
    free(pooled);
    free(mixed);
    free(y);
}

/* x + gamma * y */
static void plain_add(const plain *p, int block, const char *gamma, double *x, const double *y, int count,
                      int dim)
{
    float *g = plain_param(p, block, gamma, dim, 0);
    for (int i = 0; i < count * dim; i++)
        x[i] += (double)g[i % dim] * y[i];
    free(g);
}

static void plain_mlp(plain *p, int block)
{
    int count = p->h * p->w, hidden = 3 * p->dim;
    double *normed = plain_norm(p, block, "norm2", p->cells, count, p->dim);
    double *up = plain_linear(p, block, "mlp.fc1", normed, count, p->dim, hidden);
    for (int i = 0; i < count * hidden; i++)
        up[i] = 0.5 * up[i] * (1 + erf(up[i] / sqrt(2)));
    double *down = plain_linear(p, block, "mlp.fc2", up, count, hidden, p->dim);
    plain_add(p, block, "ls2.gamma", p->cells, down, count, p->dim);
    free(normed);
    free(up);
    free(down);
}

static void plain_block(plain *p, int block, int dim, int heads, int window, bool pools)
{
    int count = p->h * p->w, oh = pools ? p->h / 2 : p->h, ow = pools ? p->w / 2 : p->w;
    int wh = window ? window : p->h, ww = window ? window : p->w;
    double *normed = plain_norm(p, block, "norm1", p->cells, count, p->dim), *around = p->cells;
    double *out = malloc((size_t)(oh * ow * dim) * sizeof *out);
    if (dim != p->dim) {
        free(around);
        around = plain_linear(p, block, "proj", normed, count, p->dim, dim);
    }
    if (pools) {
        double *small = plain_pool(around, p->h, p->w, dim);
        free(around);
        around = small;
    }
    for (int top = 0; top < p->h; top += wh)
        for (int left = 0; left < p->w; left += ww)
            plain_window(p, block, normed, top, left, wh, ww, dim, heads, pools, out, oh, ow);
    plain_add(p, block, "ls1.gamma", around, out, oh * ow, dim);
    p->cells = around;
    p->h = oh;
    p->w = ow;
    p->dim = dim;
    free(normed);
    free(out);
    plain_mlp(p, block);
}

/* What the schedule of each setting comes to, written out. */
typedef struct plain_case {
    const char *stages, *windows, *global, *q_pool;
    int height, width;
    struct {
        int stage, window;
        bool pools;
    } blocks[PLAIN_DEPTH];
} plain_case;

static void compare_plain(const plain_case *c)
{
    const trn_setting settings[] = {{"dim", "8"},
                                    {"heads", "2"},
                                    {"mlp_ratio", "3"},
                                    {"eps", "1e-5"},
                                    {"layer_scale", "true"},
                                    {"pos_size", "5x4"},
                                    {"out_indices", "3"},
                                    {"stages", c->stages},
                                    {"window_spec", c->windows},
                                    {"global_blocks", c->global},
                                    {"q_pool", c->q_pool}};
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = load_encoder("sam2-hiera-tiny", settings, TRN_COUNT(settings), weights);
    test_tensor x = {.ndim = 4, .shape = {1, 3, c->height, c->width}};
    x.data = test_hash_values("a plain window", 3 * c->height * c->width, 1.5, 0);
    trn_features features;
    staged s = build_stages(encoder, &x, &as_is_dense, &features);
    trn_named_data input = {"x", x.data};
    for (int device = 0; device < 2; device++) {
        staged_run(&s, &input, 1, device);
        plain p = {weights, c->height / 4, c->width / 4, PLAIN_DIM, NULL};
        const float *tokens = staged_get(&s, "tokens_in");
        p.cells = malloc((size_t)(p.h * p.w * p.dim) * sizeof *p.cells);
        for (int i = 0; i < p.h * p.w * p.dim; i++)
            p.cells[i] = (double)tokens[i];
        for (int i = 0; i < PLAIN_DEPTH; i++) {
            int stage = c->blocks[i].stage;
            char name[16];
            plain_block(&p, i, PLAIN_DIM << stage, PLAIN_HEADS << stage, c->blocks[i].window,
                        c->blocks[i].pools);
            snprintf(name, sizeof name, "block%02d", i);
            const float *actual = staged_get(&s, name);
            double most = 0, worst = 0;
            assert_int_equal(s.sizes[staged_find(&s, name)], p.h * p.w * p.dim);
            for (int k = 0; k < p.h * p.w * p.dim; k++) {
                most = fmax(most, fabs(p.cells[k]));
                worst = fmax(worst, fabs(p.cells[k] - (double)actual[k]));
            }
            printf("plain %dx%d %s %s %.2e\n", c->height, c->width, name, device ? "device" : "reference",
                   worst / most);
            assert_true(most > 0.1 && worst < 1e-5 * most);
        }
        free(p.cells);
    }
    staged_close(&s);
    free(x.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* Odd windows, windows larger than the grid, a last stage that keeps the grid; odd grids on the way. */
static void test_plain_trunk(void **state)
{
    (void)state;
    static const plain_case cases[] = {
        {"2,1,2,1",
         "8,6,5,3",
         "none",
         "2",
         64,
         96,
         {{0, 8, false}, {0, 8, false}, {1, 8, true}, {2, 6, true}, {2, 5, false}, {3, 5, false}}},
        {"1,2,2,1",
         "2,4,6,3",
         "2,4",
         "3",
         56,
         88,
         {{0, 2, false}, {1, 2, true}, {1, 0, false}, {2, 4, true}, {2, 0, false}, {3, 6, true}}},
        {"2,2,1,1",
         "8,14,10,2",
         "1,5",
         "1",
         32,
         64,
         {{0, 8, false}, {0, 0, false}, {1, 8, true}, {1, 14, false}, {2, 14, false}, {3, 0, false}}},
    };
    for (size_t i = 0; i < TRN_COUNT(cases); i++)
        compare_plain(&cases[i]);
}

/* ---- what an encoder says of itself; errors ---- */

static void test_specs(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int tile, channels;
    } models[] = {{"sam2-hiera-tiny", 224, 768},
                  {"sam2-hiera-small", 224, 768},
                  {"sam2.1-hiera-base-plus", 224, 896},
                  {"sam2.1-hiera-large", 256, 1152}};
    const trn_setting second[] = {{"out_indices", "1"}}, neck[] = {{"neck", "fpn"}, {"out_indices", "2"}};
    for (size_t i = 0; i < TRN_COUNT(models); i++) {
        trn_encoder *encoder = make_encoder(models[i].name, NULL, 0);
        const trn_encoder_spec *spec = trn_encoder_get_spec(encoder);
        assert_int_equal(spec->tile, models[i].tile);
        assert_int_equal(spec->channels, models[i].channels);
        assert_int_equal(spec->side_multiple, 32);
        assert_int_equal(spec->stride, 16);
        assert_true(!spec->square && !spec->has_cls && spec->unit == TRN_UNIT_BYTE);
        trn_encoder_destroy(encoder);
    }
    trn_encoder *encoder = make_encoder("sam2-hiera-tiny", second, TRN_COUNT(second));
    assert_int_equal(trn_encoder_get_spec(encoder)->stride, 8);
    trn_encoder_destroy(encoder);
    encoder = make_encoder("sam2-hiera-tiny", neck, TRN_COUNT(neck));
    assert_int_equal(trn_encoder_get_spec(encoder)->stride, 16);
    trn_encoder_destroy(encoder);
}

/* The registry's sizes are those of the specification, and what the graphs ask for. */
static void test_parameters(void **state)
{
    (void)state;
    int seen = 0;
    for (size_t i = 0; i < trn_model_count(); i++) {
        const trn_model_info *info = trn_model_at(i);
        if (strcmp(info->family, "sam2") != 0) continue;
        trn_encoder *encoder = make_encoder(info->name, NULL, 0);
        trn_weights *weights = open_weights(NULL);
        trn_text report = {0};
        trn_error err = {0};
        char wanted[64];
        assert_trn_ok(trn_encoder_load(encoder, weights, &report, &err), err);
        snprintf(wanted, sizeof wanted, " %llu parameters", (unsigned long long)info->parameters);
        if (!strstr(trn_text_get(&report), wanted)) fail_msg("%s, not %s", trn_text_get(&report), wanted);
        trn_text_free(&report);
        trn_encoder_destroy(encoder);
        trn_weights_close(weights);
        seen++;
    }
    assert_int_equal(seen, 8);
}

static void expect_error(const char *key, const char *value, const char *text)
{
    const trn_setting settings[] = {{key, value}, {"neck", "fpn"}};
    trn_encoder *encoder = NULL;
    trn_error err = {0};
    trn_status status = trn_encoder_create("sam2-hiera-tiny", settings, 2, &encoder, &err);
    assert_trn_fails(status, TRN_ERR_ARGUMENT, err, text);
    assert_null(encoder);
}

static void test_setting_errors(void **state)
{
    (void)state;
    expect_error("global_blocks", "1,5", "block 1 halves the grid, which needs windows");
    expect_error("global_blocks", "12", "from 0 to 11");
    expect_error("window_spec", "8,5,14,7", "block 3 halves the grid in windows of 5");
    expect_error("window_spec", "8,4,14", "4 stages want 4 numbers");
    expect_error("window_spec", "8,4,0,7", "from 1 to 256");
    expect_error("stages", "1,2,7,2,1", "at most 4");
    expect_error("stages", "", "1 to 256 blocks");
    expect_error("stages", "200,200,1,1", "1 to 256 blocks");
    expect_error("stages", "1,x,7,2", "whole numbers");
    expect_error("heads", "5", "multiple of heads=5");
    expect_error("dim", "512", "at most 256 channels");
    expect_error("pos_size", "7x0", "pos_size=7x0");
    expect_error("out_indices", "3", "from 0 to 2");
    expect_error("neck_dim", "30", "multiple of 4");
    expect_error("neck_levels", "4", "from 0 to 3");
    expect_error("img_size", "big", "img_size=big");
    const trn_setting few[] = {
        {"stages", "1,1"}, {"window_spec", "8,4"}, {"q_pool", "2"}, {"global_blocks", "none"}};
    const trn_setting shallow[] = {{"stages", "1"},           {"window_spec", "8"}, {"q_pool", "0"},
                                   {"global_blocks", "none"}, {"neck", "fpn"},      {"neck_levels", "none"}};
    const trn_setting narrow[] = {{"window_spec", "2,4,14,7"}, {"img_size", "8"}};
    trn_encoder *encoder = NULL;
    trn_error err = {0};
    assert_trn_fails(trn_encoder_create("sam2-hiera-tiny", few, TRN_COUNT(few), &encoder, &err),
                     TRN_ERR_ARGUMENT, err, "q_pool=2 below 2");
    assert_trn_fails(trn_encoder_create("sam2-hiera-tiny", shallow, TRN_COUNT(shallow), &encoder, &err),
                     TRN_ERR_ARGUMENT, err, "scalp=1 leaves none of 1");
    assert_trn_fails(trn_encoder_create("sam2-hiera-tiny", narrow, TRN_COUNT(narrow), &encoder, &err),
                     TRN_ERR_ARGUMENT, err, "no window of up to 8 pixels");
}

static void expect_build_error(trn_encoder *encoder, int64_t h, int64_t w, const char *text)
{
    trn_graph *graph = trn_graph_create();
    trn_features features;
    trn_error err = {0};
    trn_tensor *image = trn_input(graph, "x", TRN_F32, TRN_SHAPE(1, 3, h, w));
    assert_trn_fails(trn_encoder_build(encoder, graph, image, &as_is_dense, &features, &err),
                     TRN_ERR_ARGUMENT, err, text);
    trn_graph_destroy(graph);
}

static void test_side_errors(void **state)
{
    (void)state;
    const trn_setting fine[] = {{"window_spec", "4,4,4,2"}, {"dim", "8"}};
    const trn_setting fine_neck[] = {{"window_spec", "4,4,14,2"}, {"dim", "8"}, {"neck", "fpn"}};
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = load_encoder("sam2-hiera-tiny", NULL, 0, weights);
    expect_build_error(encoder, 224, 240, "multiples of 32");
    trn_encoder_destroy(encoder);
    encoder = load_encoder("sam2-hiera-tiny", fine, TRN_COUNT(fine), weights);
    expect_build_error(encoder, 80, 96, "block 10 cannot halve a grid of 5x6 cells in windows of 4");
    trn_encoder_destroy(encoder);
    encoder = load_encoder("sam2-hiera-tiny", fine_neck, TRN_COUNT(fine_neck), weights);
    expect_build_error(encoder, 112, 96, "3x3 cells to one of 7x6");
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* ---- files ---- */

static void test_loading(void **state)
{
    (void)state;
    const char *official = test_golden_path("sam2_encoder_tiny/sam2_encoder_tiny.pt");
    if (!official) skip();
    const trn_setting trunk[] = {TINY}, neck[] = {TINY_TIMM, {"neck", "fpn"}};
    trn_weights *weights = open_weights(official);
    trn_error err = {0};
    trn_text report = {0};
    trn_encoder *encoder = make_encoder("sam2-hiera-tiny", trunk, TRN_COUNT(trunk));
    assert_trn_ok(trn_encoder_load(encoder, weights, &report, &err), err);
    assert_non_null(strstr(trn_text_get(&report), "not used: "));
    assert_non_null(strstr(trn_text_get(&report), "image_encoder.neck.convs.0.conv.weight"));
    trn_text_free(&report);
    trn_encoder_destroy(encoder);
    encoder = make_encoder("sam2-hiera-tiny", NULL, 0);
    assert_trn_fails(trn_encoder_load(encoder, weights, NULL, &err), TRN_ERR_FORMAT, err,
                     "'image_encoder.trunk.pos_embed' [1,96,7,7] has shape [1,8,3,5]");
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
    weights = open_weights(test_golden_path("sam2_tiny_cfg/sam2_tiny_cfg.pt"));
    encoder = make_encoder("sam2-hiera-tiny", neck, TRN_COUNT(neck));
    assert_trn_fails(trn_encoder_load(encoder, weights, NULL, &err), TRN_ERR_FORMAT, err,
                     "'neck.convs.3.conv.weight' [256,8,1,1] is missing");
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* Official files have no weights for the norm after pooling: it is plain then. */
static void test_plain_head_norm(void **state)
{
    (void)state;
    enum { DIM = 64 };
    const char *official = test_golden_path("sam2_encoder_tiny/sam2_encoder_tiny.pt");
    if (!official) skip();
    const trn_setting settings[] = {TINY};
    trn_weights *weights = open_weights(official);
    trn_encoder *encoder = load_encoder("sam2-hiera-tiny", settings, TRN_COUNT(settings), weights);
    test_tensor x = test_golden_input("sam2_encoder_tiny", "x");
    trn_features features;
    staged s = build_stages(encoder, &x, &as_is_mean, &features);
    trn_named_data input = {"x", x.data};
    staged_run_reference(&s, &input, 1);
    const float *mean = staged_get(&s, "pool_mean"), *pooled = staged_get(&s, "pooled_norm");
    for (int i = 0; i < 2; i++) {
        double average = 0, variance = 0;
        for (int k = 0; k < DIM; k++)
            average += (double)mean[i * DIM + k] / DIM;
        for (int k = 0; k < DIM; k++)
            variance += pow((double)mean[i * DIM + k] - average, 2) / DIM;
        for (int k = 0; k < DIM; k++) {
            double wanted = ((double)mean[i * DIM + k] - average) / sqrt(variance + 1e-6);
            assert_true(fabs((double)pooled[i * DIM + k] - wanted) < 1e-5);
        }
    }
    staged_close(&s);
    free(x.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_trunk),
        cmocka_unit_test(test_tiny_trunk_files),
        cmocka_unit_test(test_tiny_two_pools),
        cmocka_unit_test(test_encoder_with_neck),
        cmocka_unit_test(test_encoder_with_neck_files),
        cmocka_unit_test(test_neck_bilinear_average),
        cmocka_unit_test(test_neck_errors),
        cmocka_unit_test(test_plain_trunk),
        cmocka_unit_test(test_specs),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_setting_errors),
        cmocka_unit_test(test_side_errors),
        cmocka_unit_test(test_loading),
        cmocka_unit_test(test_plain_head_norm),
        cmocka_unit_test(test_full_224),
        cmocka_unit_test(test_full_512),
    };
    return cmocka_run_group_tests(tests, NULL, close_gpu);
}
