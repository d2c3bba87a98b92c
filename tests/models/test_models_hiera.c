/* Hiera against the outputs of the originals, against a plain encoder in order of place, and its masks. */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "running.h"
#include "hiera.h"

#define TINY                                                                                                 \
    {"img_size", "64x96"}, {"in_chans", "4"}, {"dim", "16"}, {"heads", "1"},                                 \
    {                                                                                                        \
        "stages", "1,2,1,1"                                                                                  \
    }
#define TINY_RGB                                                                                             \
    {"img_size", "64"}, {"dim", "16"}, {"heads", "2"},                                                       \
    {                                                                                                        \
        "stages", "1,1,1,1"                                                                                  \
    }

static const trn_encode_options as_is_mean = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_MEAN};
static const trn_encode_options as_is_dense = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_DENSE};
static const trn_encode_options as_is_cls = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_CLS};

static trn_encoder *load(const char *model, const trn_setting *settings, size_t count, trn_weights *weights,
                         trn_text *report)
{
    trn_error err = {0};
    trn_encoder *encoder = make_encoder(model, settings, count);
    assert_trn_ok(trn_encoder_load(encoder, weights, report, &err), err);
    return encoder;
}

static trn_tensor *image_input(trn_graph *graph, const test_tensor *x)
{
    trn_shape shape = {.ndim = x->ndim};
    memcpy(shape.dim, x->shape, (size_t)x->ndim * sizeof *shape.dim);
    return trn_input(graph, "x", TRN_F32, shape);
}

static staged build_stages(trn_encoder *encoder, const test_tensor *x, const trn_encode_options *options,
                           trn_features *features)
{
    staged s = {.graph = trn_graph_create()};
    trn_error err = {0};
    trn_features unused;
    assert_trn_ok(trn_encoder_build_stages(encoder, s.graph, image_input(s.graph, x), options,
                                           features ? features : &unused, staged_add, &s, &err),
                  err);
    return s;
}

/* A golden series is [B,C,T,h,w], an encoder takes [B,T,C,h,w]. */
static test_tensor golden_image(const char *id)
{
    test_tensor x = test_golden_input(id, "x");
    if (x.ndim == 4) return x;
    int64_t channels = x.shape[1], dates = x.shape[2], area = x.shape[3] * x.shape[4];
    float *data = malloc((size_t)x.count * sizeof *data);
    for (int64_t i = 0; i < x.shape[0] * channels * dates; i++) {
        int64_t b = i / (channels * dates), c = i / dates % channels, t = i % dates;
        memcpy(data + ((b * dates + t) * channels + c) * area, x.data + i * area,
               (size_t)area * sizeof *data);
    }
    free(x.data);
    x.data = data;
    x.shape[1] = dates;
    x.shape[2] = channels;
    return x;
}

static void compare_stages(const char *id, const staged *s, double tolerance)
{
    for (int i = 0; i < s->count; i++)
        test_compare_golden(id, s->names[i], s->values[i], s->sizes[i], tolerance);
}

/* The classifier of a golden case on pooled_norm. */
static void compare_head(const char *id, const staged *s, trn_weights *weights, double tolerance)
{
    enum { BATCH = 2 };
    trn_error err = {0};
    test_tensor logits = test_golden_output(id, "logits");
    const float *pooled = staged_get(s, "pooled_norm");
    int64_t classes = logits.shape[1], dim = s->sizes[staged_find(s, "pooled_norm")] / BATCH;
    float *w = malloc((size_t)(classes * dim) * sizeof *w), *b = malloc((size_t)classes * sizeof *b);
    float *out = malloc((size_t)(BATCH * classes) * sizeof *out);
    assert_true(w && b && out);
    assert_trn_ok(trn_weights_read(weights, "head.projection.weight", (int64_t[]){classes, dim}, 2, w, &err),
                  err);
    assert_trn_ok(trn_weights_read(weights, "head.projection.bias", (int64_t[]){classes}, 1, b, &err), err);
    for (int64_t i = 0; i < BATCH * classes; i++) {
        double sum = (double)b[i % classes];
        for (int64_t k = 0; k < dim; k++)
            sum += (double)pooled[i / classes * dim + k] * (double)w[i % classes * dim + k];
        out[i] = (float)sum;
    }
    test_compare_golden(id, "logits", out, BATCH * classes, tolerance);
    free(w);
    free(b);
    free(out);
    free(logits.data);
}

/* Every stage of a golden case; file NULL: synthetic weights. */
static void compare_case(const char *id, const char *file, const trn_setting *settings, size_t count,
                         int blocks, bool by_reference, double tolerance)
{
    trn_weights *weights = open_weights(file ? test_golden_path(file) : NULL);
    trn_encoder *encoder = load("hiera-tiny", settings, count, weights, NULL);
    test_tensor x = golden_image(id);
    trn_named_data input = {"x", x.data};
    staged mean = build_stages(encoder, &x, &as_is_mean, NULL);
    staged dense = build_stages(encoder, &x, &as_is_dense, NULL);
    assert_int_equal(mean.count, 2 + blocks + 2);
    assert_int_equal(dense.count, 2 + blocks + HIERA_STAGES);
    for (int device = !by_reference; device < 2; device++) {
        if (device) {
            staged_run_device(&mean, &input, 1);
            staged_run_device(&dense, &input, 1);
        } else {
            staged_run_reference(&mean, &input, 1);
            staged_run_reference(&dense, &input, 1);
        }
        compare_stages(id, &mean, tolerance);
        compare_stages(id, &dense, tolerance);
        compare_head(id, &mean, weights, tolerance);
    }
    staged_close(&mean);
    staged_close(&dense);
    free(x.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void test_tiny_cfg(void **state)
{
    (void)state;
    const trn_setting settings[] = {TINY};
    compare_case("hiera_tiny_cfg", NULL, settings, TRN_COUNT(settings), 5, true, 1e-5);
}

/* The same numbers from files, one of them wrapped as the published ones are. */
static void test_files(void **state)
{
    (void)state;
    const char *files[] = {"hiera_tiny_cfg/hiera_tiny_cfg.pt", "hiera_tiny_cfg/hiera_tiny_cfg.safetensors"};
    const trn_setting settings[] = {TINY};
    for (size_t i = 0; i < TRN_COUNT(files); i++) {
        if (!test_golden_path(files[i])) skip();
        compare_case("hiera_tiny_cfg", files[i], settings, TRN_COUNT(settings), 5, false, 1e-5);
    }
}

static void test_tiny_q_pool_2(void **state)
{
    (void)state;
    const trn_setting settings[] = {TINY, {"q_pool", "2"}};
    compare_case("hiera_tiny_qpool2", NULL, settings, TRN_COUNT(settings), 5, true, 1e-5);
}

static const trn_setting tiny_video[] = {
    {"img_size", "32"}, {"dim", "16"}, {"stages", "1,1,1,1"}, {"frames", "4"}};

static void test_tiny_video(void **state)
{
    (void)state;
    compare_case("hiera_tiny_video", NULL, tiny_video, TRN_COUNT(tiny_video), 4, true, 1e-5);
}

static void test_full_tiny(void **state)
{
    (void)state;
    compare_case("full_hiera_tiny_224", NULL, NULL, 0, 12, false, 2e-5);
}

static void test_full_base(void **state)
{
    (void)state;
    const trn_setting settings[] = {{"stages", "2,3,16,3"}};
    if (!getenv("TERRANE_TEST_FULL") || !test_golden_has("full_hiera_base_224")) skip();
    compare_case("full_hiera_base_224", NULL, settings, 1, 24, false, 2e-5);
}

/* ---- order of tokens ---- */

static void expect_index(const char *name, const int32_t *actual, int64_t count)
{
    test_tensor golden = test_golden_output("ops/hiera_unroll", name);
    assert_int_equal(golden.count, count);
    for (int64_t i = 0; i < count; i++)
        assert_int_equal(actual[i], (int64_t)golden.data[i]);
    free(golden.data);
}

static void test_unroll(void **state)
{
    (void)state;
    static const hiera_grid grids[] = {{1, 8, 8}, {1, 8, 16}, {1, 16, 24}, {1, 56, 56}};
    int32_t index[56 * 56];
    char name[48];
    for (size_t i = 0; i < TRN_COUNT(grids); i++) {
        int64_t count = grids[i].h * grids[i].w;
        trn_hiera_unroll(&grids[i], index);
        snprintf(name, sizeof name, "unroll_%dx%d", (int)grids[i].h, (int)grids[i].w);
        expect_index(name, index, count);
        for (int pools = 0; pools <= HIERA_LEVELS; pools++) {
            trn_hiera_reroll(&grids[i], pools, index);
            snprintf(name, sizeof name, "reroll%d_%dx%d", pools, (int)grids[i].h, (int)grids[i].w);
            expect_index(name, index, count >> (2 * pools));
        }
    }
}

/* ---- a plain encoder of one image, tokens in order of place ---- */

typedef struct plain {
    trn_weights *weights;
    const hiera_config *config;
    int64_t h, w, c; /* tokens now */
    double *x;       /* [h,w,c] */
} plain;

static double *zeros(int64_t count)
{
    double *values = calloc((size_t)count, sizeof *values);
    assert_non_null(values);
    return values;
}

static float *read_weight(trn_weights *weights, const char *scope, const char *name, trn_shape shape)
{
    char full[96];
    trn_error err = {0};
    float *values = malloc((size_t)trn_shape_count(&shape) * sizeof *values);
    snprintf(full, sizeof full, "%s%s", scope, name);
    assert_non_null(values);
    assert_trn_ok(trn_weights_read(weights, full, shape.dim, shape.ndim, values, &err), err);
    return values;
}

/* rows [n,in] -> [n,out] */
static double *plain_linear(const plain *p, const char *scope, const char *name, const double *rows,
                            int64_t n, int64_t in, int64_t out)
{
    char inner[96];
    snprintf(inner, sizeof inner, "%s%s.", scope, name);
    float *w = read_weight(p->weights, inner, "weight", TRN_SHAPE(out, in));
    float *b = read_weight(p->weights, inner, "bias", TRN_SHAPE(out));
    double *y = zeros(n * out);
    for (int64_t i = 0; i < n * out; i++) {
        y[i] = (double)b[i % out];
        for (int64_t k = 0; k < in; k++)
            y[i] += rows[i / out * in + k] * (double)w[i % out * in + k];
    }
    free(w);
    free(b);
    return y;
}

static double *plain_norm(const plain *p, const char *scope, const char *name, const double *rows, int64_t n,
                          int64_t c)
{
    char inner[96];
    snprintf(inner, sizeof inner, "%s%s.", scope, name);
    float *w = read_weight(p->weights, inner, "weight", TRN_SHAPE(c));
    float *b = read_weight(p->weights, inner, "bias", TRN_SHAPE(c));
    double *y = zeros(n * c);
    for (int64_t i = 0; i < n; i++) {
        double mean = 0, square = 0;
        for (int64_t k = 0; k < c; k++)
            mean += rows[i * c + k] / (double)c;
        for (int64_t k = 0; k < c; k++)
            square += (rows[i * c + k] - mean) * (rows[i * c + k] - mean) / (double)c;
        for (int64_t k = 0; k < c; k++)
            y[i * c + k] = (rows[i * c + k] - mean) / sqrt(square + (double)p->config->eps) * (double)w[k] +
                           (double)b[k];
    }
    free(w);
    free(b);
    return y;
}

/* Largest of 2x2 places: [h,w] of rows whose first `c` of `stride` values count. */
static double *plain_pool(const double *rows, int64_t h, int64_t w, int64_t stride, int64_t c, int by)
{
    double *y = zeros(h / by * (w / by) * c);
    for (int64_t i = 0; i < h / by * (w / by) * c; i++) {
        int64_t k = i % c, column = i / c % (w / by), row = i / c / (w / by);
        y[i] = -INFINITY;
        for (int j = 0; j < by * by; j++) {
            double value = rows[((row * by + j / by) * w + column * by + j % by) * stride + k];
            y[i] = value > y[i] ? value : y[i];
        }
    }
    return y;
}

/* One query over the keys of the rectangle [top, top+rows) x [left, left+columns). */
static void plain_attend(const double *q, const double *qkv, int64_t w, int64_t c, int64_t head, int64_t d,
                         const int64_t rectangle[4], double *out)
{
    int64_t count = rectangle[2] * rectangle[3];
    double *scores = zeros(count), most = -INFINITY, total = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = (rectangle[0] + i / rectangle[3]) * w + rectangle[1] + i % rectangle[3];
        const double *k = qkv + at * 3 * c + c + head * d;
        for (int64_t j = 0; j < d; j++)
            scores[i] += q[j] * k[j] / sqrt((double)d);
        most = scores[i] > most ? scores[i] : most;
    }
    for (int64_t i = 0; i < count; i++)
        total += scores[i] = exp(scores[i] - most);
    for (int64_t i = 0; i < count; i++) {
        int64_t at = (rectangle[0] + i / rectangle[3]) * w + rectangle[1] + i % rectangle[3];
        const double *v = qkv + at * 3 * c + 2 * c + head * d;
        for (int64_t j = 0; j < d; j++)
            out[j] += scores[i] / total * v[j];
    }
    free(scores);
}

/* unit: side of a mask unit in tokens before pooling, 0: all tokens. */
static double *plain_attention(const plain *p, const char *scope, const double *normed, int64_t c,
                               int64_t heads, int64_t unit, int by)
{
    int64_t h = p->h / by, w = p->w / by, d = c / heads;
    double *qkv = plain_linear(p, scope, "attn.qkv", normed, p->h * p->w, p->c, 3 * c);
    double *q = plain_pool(qkv, p->h, p->w, 3 * c, c, by), *mixed = zeros(h * w * c);
    for (int64_t i = 0; i < h * w * heads; i++) {
        int64_t head = i % heads, column = i / heads % w, row = i / heads / w;
        int64_t rectangle[4] = {0, 0, p->h, p->w};
        if (unit) {
            rectangle[0] = row * by / unit * unit;
            rectangle[1] = column * by / unit * unit;
            rectangle[2] = rectangle[3] = unit;
        }
        int64_t at = (row * w + column) * c + head * d;
        plain_attend(q + at, qkv, p->w, c, head, d, rectangle, mixed + at);
    }
    double *y = plain_linear(p, scope, "attn.proj", mixed, h * w, c, c);
    free(qkv);
    free(q);
    free(mixed);
    return y;
}

static double gelu(double x)
{
    return 0.5 * x * (1 + erf(x / sqrt(2)));
}

static void plain_block(plain *p, int block, int stage, bool enters)
{
    char scope[32];
    snprintf(scope, sizeof scope, "blocks.%d.", block);
    const hiera_config *config = p->config;
    int by = enters && stage <= config->q_pool ? 2 : 1;
    int before = enters ? stage - 1 : stage, pools = before < config->q_pool ? before : config->q_pool;
    int64_t c = config->dim << stage, hidden = (int64_t)((double)c * config->mlp_ratio);
    int64_t n = p->h / by * (p->w / by);
    double *normed = plain_norm(p, scope, "norm1", p->x, p->h * p->w, p->c), *x = p->x;
    double *y = plain_attention(p, scope, normed, c, config->heads << stage,
                                config->unit_attention[before] ? 8 >> pools : 0, by);
    if (enters) {
        double *all = plain_linear(p, scope, "proj", normed, p->h * p->w, p->c, c);
        free(x);
        x = plain_pool(all, p->h, p->w, c, c, by);
        free(all);
    }
    free(normed);
    for (int64_t i = 0; i < n * c; i++)
        x[i] += y[i];
    free(y);
    normed = plain_norm(p, scope, "norm2", x, n, c);
    double *up = plain_linear(p, scope, "mlp.fc1", normed, n, c, hidden);
    for (int64_t i = 0; i < n * hidden; i++)
        up[i] = gelu(up[i]);
    y = plain_linear(p, scope, "mlp.fc2", up, n, hidden, c);
    for (int64_t i = 0; i < n * c; i++)
        x[i] += y[i];
    free(normed);
    free(up);
    free(y);
    *p = (plain){p->weights, config, p->h / by, p->w / by, c, x};
}

static double cubic(double distance)
{
    double t = fabs(distance), a = -0.75;
    if (t <= 1) return (a + 2) * t * t * t - (a + 3) * t * t + 1;
    return t < 2 ? a * (t * t * t - 5 * t * t + 8 * t - 4) : 0;
}

static int64_t within(int64_t i, int64_t count)
{
    return i < 0 ? 0 : i < count ? i : count - 1;
}

/* Value of a table [own.h,own.w,dim] at a cell of the grid h x w. */
static double plain_position(const float *table, const hiera_config *config, int64_t row, int64_t column,
                             int64_t h, int64_t w, int64_t channel)
{
    const hiera_grid *own = &config->own;
    double y = ((double)row + 0.5) * (double)own->h / (double)h - 0.5;
    double x = ((double)column + 0.5) * (double)own->w / (double)w - 0.5, sum = 0;
    for (int64_t i = (int64_t)floor(y) - 1; i <= (int64_t)floor(y) + 2; i++)
        for (int64_t j = (int64_t)floor(x) - 1; j <= (int64_t)floor(x) + 2; j++)
            sum += cubic(y - (double)i) * cubic(x - (double)j) *
                   (double)table[(within(i, own->h) * own->w + within(j, own->w)) * config->dim + channel];
    return sum;
}

/* image [channels,height,width] */
static void plain_embed(plain *p, const float *image, int64_t channels, int64_t height, int64_t width)
{
    const hiera_config *config = p->config;
    int64_t dim = config->dim;
    float *w = read_weight(p->weights, "patch_embed.proj.", "weight", TRN_SHAPE(dim, channels, 7, 7));
    float *b = read_weight(p->weights, "patch_embed.proj.", "bias", TRN_SHAPE(dim));
    float *table = read_weight(p->weights, "", "pos_embed", TRN_SHAPE(1, config->own.h * config->own.w, dim));
    p->h = height / 4;
    p->w = width / 4;
    p->c = dim;
    p->x = zeros(p->h * p->w * dim);
    for (int64_t i = 0; i < p->h * p->w * dim; i++) {
        int64_t k = i % dim, column = i / dim % p->w, row = i / dim / p->w;
        double sum = (double)b[k] + plain_position(table, config, row, column, p->h, p->w, k);
        for (int64_t j = 0; j < channels * 49; j++) {
            int64_t y = row * 4 - 3 + j / 7 % 7, x = column * 4 - 3 + j % 7;
            if (y >= 0 && x >= 0 && y < height && x < width)
                sum += (double)w[k * channels * 49 + j] * (double)image[(j / 49 * height + y) * width + x];
        }
        p->x[i] = sum;
    }
    free(w);
    free(b);
    free(table);
}

static void compare_plain(const plain *p, const staged *s, const char *stage)
{
    const float *actual = staged_get(s, stage);
    double most = 0, worst = 0;
    assert_int_equal(s->sizes[staged_find(s, stage)], p->h * p->w * p->c);
    for (int64_t i = 0; i < p->h * p->w * p->c; i++) {
        double d = fabs(p->x[i] - (double)actual[i]);
        most = fabs(p->x[i]) > most ? fabs(p->x[i]) : most;
        worst = d <= worst ? worst : isnan(d) ? INFINITY : d;
    }
    if (!(worst <= 1e-5 * most)) fail_msg("%s: %g of %g", stage, worst, most);
}

static void run_plain(const trn_setting *settings, size_t count, int64_t height, int64_t width)
{
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = load("hiera-tiny", settings, count, weights, NULL);
    plain p = {.weights = weights, .config = encoder->state};
    test_tensor x = {.ndim = 4, .shape = {1, 3, height, width}, .count = 3 * height * width};
    x.data = test_hash_values("a window", x.count, 1.5, 0);
    trn_named_data input = {"x", x.data};
    staged s = build_stages(encoder, &x, &as_is_dense, NULL);
    staged_run_device(&s, &input, 1);
    plain_embed(&p, x.data, 3, height, width);
    int block = 0;
    for (int stage = 0; stage < HIERA_STAGES; stage++) {
        char name[32];
        for (int i = 0; i < p.config->depth[stage]; i++)
            plain_block(&p, block++, stage, stage > 0 && i == 0);
        snprintf(name, sizeof name, "intermediate%d", stage);
        compare_plain(&p, &s, name);
    }
    free(p.x);
    free(x.data);
    staged_close(&s);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* Poolings and attentions of all kinds; windows of another size than the table's. */
static void test_variants(void **state)
{
    (void)state;
    static const struct {
        const char *q_pool, *units, *stages;
        int64_t height, width;
    } cases[] = {{"3", "1,1,0,0", "1,1,1,1", 64, 96}, {"3", "1,1,1,1", "1,2,1,2", 64, 64},
                 {"0", "1,0,1,0", "1,1,1,1", 32, 64}, {"1", "0,1,1,0", "2,1,2,1", 64, 32},
                 {"2", "0,0,0,1", "1,1,1,2", 32, 96}, {"3", "0,0,0,0", "1,1,1,1", 32, 32}};
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        const trn_setting settings[] = {{"img_size", "64"},
                                        {"dim", "8"},
                                        {"heads", "2"},
                                        {"mlp_ratio", "1.5"},
                                        {"eps", "1e-3"},
                                        {"stages", cases[i].stages},
                                        {"q_pool", cases[i].q_pool},
                                        {"mask_unit_attn", cases[i].units}};
        run_plain(settings, TRN_COUNT(settings), cases[i].height, cases[i].width);
    }
}

/* One table of positions for all steps of a series, in windows of another size than the table's. */
static void test_joint_positions(void **state)
{
    (void)state;
    enum { DIM = 16, STEPS = 2, ROWS = 8, COLUMNS = 16, OWN = 64, FRAMES = 4 };
    trn_setting settings[TRN_COUNT(tiny_video) + 1];
    memcpy(settings, tiny_video, sizeof tiny_video);
    settings[TRN_COUNT(tiny_video)] = (trn_setting){"sep_pos_embed", "false"};
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = load("hiera-tiny", settings, TRN_COUNT(settings), weights, NULL);
    test_tensor x = {.ndim = 5, .shape = {1, FRAMES, 3, 32, 64}, .count = FRAMES * 3 * 32 * 64};
    x.data = test_hash_values("a series", x.count, 1.5, 0);
    trn_named_data input = {"x", x.data};
    staged s = build_stages(encoder, &x, &as_is_dense, NULL);
    staged_run_device(&s, &input, 1);
    float *table = read_weight(weights, "", "pos_embed", TRN_SHAPE(1, STEPS * OWN, DIM));
    const float *before = staged_get(&s, "patch_embed"), *after = staged_get(&s, "pos_unrolled");
    const hiera_grid grid = {STEPS, ROWS, COLUMNS};
    int32_t index[STEPS * ROWS * COLUMNS];
    trn_hiera_unroll(&grid, index);
    for (int i = 0; i < STEPS * ROWS * COLUMNS * DIM; i++) {
        int place = index[i / DIM], k = i % DIM, step = place / (ROWS * COLUMNS);
        double wanted = plain_position(table + (ptrdiff_t)step * OWN * DIM, encoder->state,
                                       place / COLUMNS % ROWS, place % COLUMNS, ROWS, COLUMNS, k);
        assert_true(fabs((double)before[place * DIM + k] + wanted - (double)after[i]) < 1e-5);
    }
    free(table);
    free(x.data);
    staged_close(&s);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* ---- masks ---- */

typedef struct masked_run {
    trn_weights *weights;
    trn_encoder *encoder;
    test_tensor x;
    trn_arena *arena;
    hiera_mask_tables tables;
    staged s;
    trn_build build;
} masked_run;

static masked_run open_masked(const char *id, const trn_setting *settings, size_t count)
{
    masked_run run = {.weights = open_weights(NULL), .arena = trn_arena_create()};
    trn_error err = {0};
    uint8_t keep[16];
    run.encoder = load("hiera-tiny", settings, count, run.weights, NULL);
    run.x = test_golden_input(id, "x");
    test_tensor mask = test_golden_input(id, "mask_keep");
    assert_int_equal(mask.count, 12);
    for (int i = 0; i < 12; i++)
        keep[i] = mask.data[i] > 0.5F;
    free(mask.data);
    run.s = (staged){.graph = trn_graph_create()};
    run.build = (trn_build){.batch = run.x.shape[0],
                            .dates = 1,
                            .height = run.x.shape[2],
                            .width = run.x.shape[3],
                            .stage = staged_add};
    hiera_grid grid = trn_hiera_grid(run.encoder->state, &run.build);
    assert_trn_ok(trn_hiera_mask_make(run.encoder->state, &grid, 2, keep, run.arena, &run.tables, &err), err);
    return run;
}

/* The graph's builder is a pointer into run: it must stay where it is. */
static void begin_masked(masked_run *run)
{
    run->build.scope = trn_scope_root(run->s.graph, &run->encoder->parameters);
    run->build.x = run->build.image = image_input(run->s.graph, &run->x);
    run->build.stage_user = &run->s;
}

static void check_masked(const char *id, masked_run *run, const trn_named_data *inputs, int count)
{
    trn_error err = {0};
    assert_trn_ok(trn_graph_status(run->s.graph, &err), err);
    staged_run_reference(&run->s, inputs, count);
    compare_stages(id, &run->s, 1e-5);
    staged_run_device(&run->s, inputs, count);
    compare_stages(id, &run->s, 1e-5);
}

static void close_masked(masked_run *run)
{
    staged_close(&run->s);
    free(run->x.data);
    trn_arena_destroy(run->arena);
    trn_encoder_destroy(run->encoder);
    trn_weights_close(run->weights);
}

static void test_masked(void **state)
{
    (void)state;
    const char *id = "hiera_tiny_masked";
    const trn_setting settings[] = {TINY};
    hiera_masked out;
    masked_run run = open_masked(id, settings, TRN_COUNT(settings));
    begin_masked(&run);
    hiera_mask mask = trn_hiera_mask_constants(run.s.graph, &run.tables);
    trn_hiera_build_masked(&run.build, run.encoder->state, &mask, &out);
    assert_int_equal(run.s.count, 2 + 5 + 1 + 4);
    trn_named_data input = {"x", run.x.data};
    check_masked(id, &run, &input, 1);
    close_masked(&run);
}

/* Only what the golden case of the autoencoder has. */
static void add_known(void *user, const char *name, trn_tensor *tensor)
{
    static const char *const known[] = {"latent", "pred_all", "pred_masked", "label_masked", "loss"};
    for (size_t i = 0; i < TRN_COUNT(known); i++)
        if (!strcmp(known[i], name)) staged_add(user, name, tensor);
}

static void test_autoencoder(void **state)
{
    (void)state;
    const char *id = "hiera_tiny_mae";
    const trn_setting settings[] = {TINY, {"q_pool", "2"}};
    const hiera_decoder decoder = {.dim = 24, .depth = 2, .heads = 4};
    hiera_mae out;
    masked_run run = open_masked(id, settings, TRN_COUNT(settings));
    run.build.stage = add_known;
    begin_masked(&run);
    hiera_mask mask = trn_hiera_mask_constants(run.s.graph, &run.tables);
    trn_hiera_build_mae(&run.build, run.encoder->state, &decoder, &mask, &out);
    assert_int_equal(run.s.count, 5);
    const trn_named_data input = {"x", run.x.data};
    check_masked(id, &run, &input, 1);
    test_tensor shown = test_golden_output(id, "pred_mask_keep");
    int32_t absent = (int32_t)(2 * run.tables.kept * 4);
    assert_int_equal(shown.count, 2 * run.tables.cells);
    for (int64_t i = 0; i < shown.count; i++)
        assert_int_equal(run.tables.spread[i] != absent, shown.data[i] > 0.5F);
    free(shown.data);
    close_masked(&run);
}

/* ---- the pair, by the public door ---- */

static const trn_setting tiny_pair[] = {
    TINY, {"decoder_dim", "24"}, {"decoder_depth", "2"}, {"decoder_heads", "4"}};
enum { PAIR_UNITS = 6, PAIR_HEIGHT = 64, PAIR_WIDTH = 96, PAIR_CELL = 16 };

static trn_encoder *make_pair(const char *name, const trn_setting *settings, size_t count)
{
    trn_encoder *encoder = NULL;
    trn_error err = {0};
    size_t channels;
    assert_trn_ok(trn_masked_create(name, settings, count, &encoder, &err), err);
    assert_trn_ok(trn_encoder_choose_all_bands(encoder, &channels, &err), err);
    return encoder;
}

/* The golden mask as an order: what stays, then what is hidden. */
static int64_t golden_order(const char *id, int64_t batch, int32_t *order)
{
    test_tensor keep = test_golden_input(id, "mask_keep");
    int64_t visible = 0;
    assert_int_equal(keep.count, batch * PAIR_UNITS);
    for (int64_t b = 0; b < batch; b++) {
        int32_t *next = order + b * PAIR_UNITS;
        for (int hidden = 0; hidden < 2; hidden++) {
            for (int32_t u = PAIR_UNITS - 1; u >= 0; u--) /* the order within each does not matter */
                if ((keep.data[b * PAIR_UNITS + u] < 0.5F) == hidden) *next++ = u;
            if (!hidden) visible = next - order - b * PAIR_UNITS;
        }
    }
    free(keep.data);
    return visible;
}

/* What was predicted of a cell by the golden, as a picture: with mean and deviation of the image's cell. */
static float *golden_drawn(const char *id, const test_tensor *x)
{
    test_tensor all = test_golden_output(id, "pred_all");
    int64_t channels = x->shape[1], area = PAIR_HEIGHT * PAIR_WIDTH, columns = PAIR_WIDTH / PAIR_CELL;
    int64_t cells = area / (PAIR_CELL * PAIR_CELL), values = channels * PAIR_CELL * PAIR_CELL;
    float *out = malloc((size_t)x->count * sizeof *out);
    int64_t *place = malloc((size_t)values * sizeof *place);
    assert_true(out && place);
    for (int64_t i = 0; i < x->shape[0] * cells; i++) {
        double mean = 0, square = 0;
        for (int64_t k = 0; k < values; k++) {
            int64_t c = k / (PAIR_CELL * PAIR_CELL), row = k / PAIR_CELL % PAIR_CELL, column = k % PAIR_CELL;
            place[k] = (i / cells * channels + c) * area +
                       (i % cells / columns * PAIR_CELL + row) * PAIR_WIDTH + i % columns * PAIR_CELL +
                       column;
            mean += (double)x->data[place[k]] / (double)values;
        }
        for (int64_t k = 0; k < values; k++)
            square += ((double)x->data[place[k]] - mean) * ((double)x->data[place[k]] - mean);
        for (int64_t k = 0; k < values; k++)
            out[place[k]] =
                (float)((double)all.data[i * values + k] * sqrt(square / (double)(values - 1) + 1e-6) + mean);
    }
    free(place);
    free(all.data);
    return out;
}

static void compare_pair(const char *file)
{
    enum { BATCH = 2 };
    const char *id = "hiera_tiny_mae";
    int32_t order[BATCH * PAIR_UNITS];
    trn_error err = {0};
    trn_masked made;
    trn_weights *weights = open_weights(file);
    trn_encoder *encoder = make_pair("mae-hiera-tiny", tiny_pair, TRN_COUNT(tiny_pair));
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    test_tensor x = test_golden_input(id, "x");
    const trn_mask mask = {order, golden_order(id, BATCH, order)};
    assert_int_equal(mask.visible, 3);
    staged s = {.graph = trn_graph_create()};
    assert_trn_ok(trn_masked_build_stages(encoder, s.graph, image_input(s.graph, &x), &as_is_mean, &mask,
                                          &made, add_known, &s, &err),
                  err);
    assert_int_equal(s.count, 5);
    assert_int_equal(trn_tensor_shape(made.loss)->ndim, 1);
    memset(order, 0, sizeof order); /* was copied */
    float *drawn = golden_drawn(id, &x);
    trn_named_data input = {"x", x.data};
    int stages = s.count;
    staged_add(&s, "drawn", made.drawn);
    staged_add(&s, "seen", trn_affine(s.graph, made.image, 1, 0));
    for (int device = 0; device < 2; device++) {
        if (device)
            staged_run_device(&s, &input, 1);
        else
            staged_run_reference(&s, &input, 1);
        for (int i = 0; i < stages; i++)
            test_compare_golden(id, s.names[i], s.values[i], s.sizes[i], 1e-5);
        assert_int_equal(s.sizes[staged_find(&s, "drawn")], x.count);
        assert_true(test_worst_error(staged_get(&s, "drawn"), drawn, x.count, largest(drawn, x.count)) <
                    1e-5);
        assert_memory_equal(staged_get(&s, "seen"), x.data, (size_t)x.count * sizeof(float));
    }
    free(drawn);
    free(x.data);
    staged_close(&s);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void test_pair(void **state)
{
    (void)state;
    compare_pair(NULL);
}

/* The published file's names: what is made up for the pair loads under them, into the encoder alone, too. */
static void test_pair_file(void **state)
{
    (void)state;
    trn_error err = {0};
    char *path = test_path(test_temp_dir(), "pair.pth");
    assert_trn_ok(
        trn_masked_write_synthetic("mae-hiera-tiny", tiny_pair, TRN_COUNT(tiny_pair), path, NULL, &err), err);
    compare_pair(path);
    trn_weights *weights = open_weights(path);
    assert_int_equal(trn_weights_find(weights, "decoder_pos_embed")->shape[1], 24);
    assert_non_null(trn_weights_find(weights, "decoder_blocks.1.mlp.fc2.bias"));
    trn_encoder_destroy(load("mae-hiera-tiny", tiny_pair, TRN_COUNT(tiny_pair), weights, NULL));
    trn_weights_close(weights);
    free(path);
}

static void expect_no_pair(const char *name, trn_setting setting, const char *text)
{
    trn_error err = {0};
    trn_encoder *encoder = NULL;
    assert_trn_fails(trn_masked_create(name, &setting, setting.key ? 1 : 0, &encoder, &err), TRN_ERR_ARGUMENT,
                     err, text);
    assert_null(encoder);
}

static void test_pair_errors(void **state)
{
    (void)state;
    const trn_setting none = {NULL, NULL};
    trn_error err = {0};
    trn_masked made;
    trn_features features;
    expect_no_pair("mae-hiera-video-base", none, "single images are drawn, not series of 16 frames");
    expect_no_pair("hiera-tiny", none, "take one of mae-hiera-tiny");
    expect_no_pair("mae-vit-base", none, "take one of the families hiera, prithvi");
    expect_no_pair("mae-hiera-tiny", (trn_setting){"decoder_heads", "7"},
                   "decoder_dim=512 must be a multiple");
    expect_no_pair("mae-hiera-tiny", (trn_setting){"decoder_depth", "0"}, "decoder_depth");
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = make_pair("mae-hiera-tiny", tiny_pair, TRN_COUNT(tiny_pair)),
                *alone = load("mae-hiera-tiny", tiny_pair, TRN_COUNT(tiny_pair), weights, NULL);
    trn_graph *graph = trn_graph_create();
    trn_tensor *image = trn_input(graph, "x", TRN_F32, TRN_SHAPE(1, 4, 64, 96)),
               *odd = trn_input(graph, "odd", TRN_F32, TRN_SHAPE(1, 4, 64, 80));
    const int32_t order[] = {0, 1, 2, 3, 4, 5}, wrong[] = {0, 1, 2, 3, 4, 6};
    const trn_mask mask = {order, 2}, beyond = {wrong, 2}, all = {order, 6}, none_seen = {order, 0};
    assert_true(trn_masked_patch(encoder).side == 32 && trn_masked_patch(encoder).dates == 1);
    assert_true(trn_masked_patch(alone).side == 0);
    assert_trn_fails(trn_masked_build(encoder, graph, image, NULL, &mask, &made, &err), TRN_ERR_ARGUMENT, err,
                     "needs weights");
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    assert_trn_fails(trn_encoder_build(encoder, graph, image, NULL, &features, &err), TRN_ERR_ARGUMENT, err,
                     "created with its decoder");
    assert_trn_fails(trn_masked_build(alone, graph, image, NULL, &mask, &made, &err), TRN_ERR_ARGUMENT, err,
                     "not created with its decoder");
    assert_trn_fails(trn_masked_build(encoder, graph, odd, NULL, &mask, &made, &err), TRN_ERR_ARGUMENT, err,
                     "multiples of 32");
    assert_trn_fails(trn_masked_build(encoder, graph, image, NULL, &beyond, &made, &err), TRN_ERR_ARGUMENT,
                     err, "each of 6 patches once");
    assert_trn_fails(trn_masked_build(encoder, graph, image, NULL, &all, &made, &err), TRN_ERR_ARGUMENT, err,
                     "6 of 6 patches cannot be visible");
    assert_trn_fails(trn_masked_build(encoder, graph, image, NULL, &none_seen, &made, &err), TRN_ERR_ARGUMENT,
                     err, "0 of 6 patches cannot be visible");
    const trn_encode_options cls = as_is_cls; /* pooling does not matter */
    assert_trn_ok(trn_masked_build(encoder, graph, image, &cls, &mask, &made, &err), err);
    trn_graph_destroy(graph);
    trn_encoder_destroy(encoder);
    trn_encoder_destroy(alone);
    trn_weights_close(weights);
}

/* A mask that hides nothing changes nothing; of series, too. */
static void compare_whole(const char *model, const trn_setting *settings, size_t count, const test_tensor *x,
                          int64_t units)
{
    trn_error err = {0};
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = load(model, settings, count, weights, NULL);
    trn_arena *arena = trn_arena_create();
    uint8_t keep[64];
    hiera_mask_tables tables;
    hiera_masked out;
    memset(keep, 1, sizeof keep);
    staged whole = build_stages(encoder, x, &as_is_dense, NULL), s = {.graph = trn_graph_create()};
    trn_build build = {.scope = trn_scope_root(s.graph, &encoder->parameters),
                       .x = image_input(s.graph, x),
                       .batch = x->shape[0],
                       .dates = x->ndim == 5 ? x->shape[1] : 1,
                       .height = x->shape[x->ndim - 2],
                       .width = x->shape[x->ndim - 1],
                       .stage = staged_add,
                       .stage_user = &s};
    hiera_grid grid = trn_hiera_grid(encoder->state, &build);
    assert_int_equal(trn_hiera_units(&grid), units);
    assert_trn_ok(trn_hiera_mask_make(encoder->state, &grid, build.batch, keep, arena, &tables, &err), err);
    assert_int_equal(tables.hidden_count, 0);
    hiera_mask mask = trn_hiera_mask_constants(s.graph, &tables);
    trn_hiera_build_masked(&build, encoder->state, &mask, &out);
    assert_trn_ok(trn_graph_status(s.graph, &err), err);
    trn_named_data input = {"x", x->data};
    staged_run_device(&whole, &input, 1);
    staged_run_device(&s, &input, 1);
    for (int i = 0; i < whole.count; i++) {
        if (strncmp(whole.names[i], "block", 5) != 0) continue;
        double most = largest(whole.values[i], whole.sizes[i]);
        assert_true(test_worst_error(staged_get(&s, whole.names[i]), whole.values[i], whole.sizes[i], most) <
                    1e-6);
    }
    staged_close(&whole);
    staged_close(&s);
    trn_arena_destroy(arena);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void test_nothing_hidden(void **state)
{
    (void)state;
    const trn_setting settings[] = {TINY};
    test_tensor x = golden_image("hiera_tiny_cfg");
    compare_whole("hiera-tiny", settings, TRN_COUNT(settings), &x, 6);
    free(x.data);
    x = golden_image("hiera_tiny_video");
    compare_whole("hiera-tiny", tiny_video, TRN_COUNT(tiny_video), &x, 2);
    free(x.data);
}

/* Where attention stays within units, a kept unit sees of the others only that their pixels are 0. */
static void test_kept_units_of_series(void **state)
{
    (void)state;
    enum { BATCH = 2, FRAMES = 4, PLANES = 3, UNITS = 4, KEPT = 2, SIDE = 32, WIDTH = 2 * SIDE };
    static const uint8_t keep[BATCH][UNITS] = {{0, 1, 1, 0}, {1, 0, 0, 1}}; /* step, column */
    trn_setting settings[TRN_COUNT(tiny_video) + 1];
    memcpy(settings, tiny_video, sizeof tiny_video);
    settings[TRN_COUNT(tiny_video)] = (trn_setting){"mask_unit_attn", "1,1,1,1"};
    trn_error err = {0};
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = load("hiera-tiny", settings, TRN_COUNT(settings), weights, NULL);
    trn_arena *arena = trn_arena_create();
    test_tensor x = {.ndim = 5, .shape = {BATCH, FRAMES, PLANES, SIDE, WIDTH}};
    x.count = BATCH * FRAMES * PLANES * SIDE * WIDTH;
    x.data = test_hash_values("a series", x.count, 1.5, 0);
    staged masked = {.graph = trn_graph_create()}, whole = build_stages(encoder, &x, &as_is_dense, NULL);
    trn_build build = {.scope = trn_scope_root(masked.graph, &encoder->parameters),
                       .x = image_input(masked.graph, &x),
                       .batch = BATCH,
                       .dates = FRAMES,
                       .height = SIDE,
                       .width = WIDTH,
                       .stage = staged_add,
                       .stage_user = &masked};
    hiera_grid grid = trn_hiera_grid(encoder->state, &build);
    hiera_mask_tables tables;
    hiera_masked out;
    assert_trn_ok(trn_hiera_mask_make(encoder->state, &grid, BATCH, keep[0], arena, &tables, &err), err);
    hiera_mask mask = trn_hiera_mask_constants(masked.graph, &tables);
    trn_hiera_build_masked(&build, encoder->state, &mask, &out);
    assert_trn_ok(trn_graph_status(masked.graph, &err), err);
    trn_named_data input = {"x", x.data};
    staged_run_device(&masked, &input, 1);
    for (int64_t i = 0; i < x.count; i++) {
        int64_t column = i % WIDTH / SIDE, frame = i / (PLANES * SIDE * WIDTH) % FRAMES;
        if (!keep[i / (FRAMES * PLANES * SIDE * WIDTH)][frame / 2 * 2 + column]) x.data[i] = 0;
    }
    staged_run_device(&whole, &input, 1);
    for (int stage = 0; stage < HIERA_STAGES; stage++) {
        char name[32];
        snprintf(name, sizeof name, "intermediate%d", stage);
        const float *a = staged_get(&masked, name), *b = staged_get(&whole, name);
        int64_t side = 8 >> stage, c = 16 << stage, at = 0;
        for (int64_t unit = 0; unit < BATCH * UNITS; unit++) {
            if (!keep[unit / UNITS][unit % UNITS]) continue;
            for (int64_t i = 0; i < side * side * c; i++, at++) {
                int64_t row = i / c / side, column = unit % 2 * side + i / c % side;
                float wanted = b[((unit / 2 * side + row) * 2 * side + column) * c + i % c];
                assert_true(fabsf(a[at] - wanted) < 1e-4F);
            }
        }
        assert_int_equal(at, masked.sizes[staged_find(&masked, name)]);
    }
    free(x.data);
    staged_close(&masked);
    staged_close(&whole);
    trn_arena_destroy(arena);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void test_mask_errors(void **state)
{
    (void)state;
    static const uint8_t uneven[] = {1, 0, 1, 1}, none[] = {0, 0, 0, 0};
    const hiera_config config = {.q_pool = 3};
    const hiera_grid grid = {1, 8, 16};
    trn_arena *arena = trn_arena_create();
    hiera_mask_tables tables;
    trn_error err = {0};
    assert_trn_fails(trn_hiera_mask_make(&config, &grid, 2, uneven, arena, &tables, &err), TRN_ERR_ARGUMENT,
                     err, "as many in every sample");
    assert_trn_fails(trn_hiera_mask_make(&config, &grid, 2, none, arena, &tables, &err), TRN_ERR_ARGUMENT,
                     err, "at least one of the 2 units");
    trn_arena_destroy(arena);
}

/* ---- files of pretraining and of fine-tuning ---- */

enum { MAX_TENSORS = 96 };

/* What a model asks for, with the synthetic rule's values. */
typedef struct checkpoint {
    trn_weights *weights;
    size_t count;
    trn_weight_data tensors[MAX_TENSORS];
    char names[MAX_TENSORS][64];
    float *values[MAX_TENSORS];
} checkpoint;

static void put(void *user, const char *name, const trn_shape *shape)
{
    checkpoint *c = user;
    size_t i = c->count++;
    assert_true(i < MAX_TENSORS);
    snprintf(c->names[i], sizeof c->names[i], "%s", name);
    c->values[i] = read_weight(c->weights, "", name, *shape);
    c->tensors[i] = (trn_weight_data){.name = c->names[i], .ndim = shape->ndim, .data = c->values[i]};
    memcpy(c->tensors[i].shape, shape->dim, (size_t)shape->ndim * sizeof *shape->dim);
}

/* A file of what a model wants; malloc'd path. */
static char *write_file(const char *model, const trn_setting *settings, size_t count, const test_tensor *x,
                        const char *name)
{
    trn_error err = {0};
    checkpoint c = {.weights = open_weights(NULL)};
    trn_encoder *encoder = load(model, settings, count, c.weights, NULL);
    encoder->parameters.want = put;
    encoder->parameters.user = &c;
    trn_graph *graph = trn_graph_create();
    trn_features features;
    bool (*has)(void *, const char *) = encoder->parameters.has;
    encoder->parameters.has = NULL;
    assert_trn_ok(trn_encoder_build(encoder, graph, image_input(graph, x), &as_is_mean, &features, &err),
                  err);
    encoder->parameters.has = has;
    char *path = test_path(test_temp_dir(), name);
    assert_trn_ok(trn_weights_write(path, c.tensors, c.count, NULL, &err), err);
    for (size_t i = 0; i < c.count; i++)
        free(c.values[i]);
    trn_graph_destroy(graph);
    trn_encoder_destroy(encoder);
    trn_weights_close(c.weights);
    return path;
}

/* Pooled features [1,128] by the references. */
static staged run_pooled(const char *path, const char *model, const trn_setting *settings, size_t count,
                         const test_tensor *x, trn_text *report)
{
    trn_weights *weights = open_weights(path);
    trn_encoder *encoder = load(model, settings, count, weights, report);
    trn_features features;
    staged s = build_stages(encoder, x, &as_is_mean, &features);
    trn_named_data input = {"x", x->data};
    assert_true(trn_shape_equal(trn_tensor_shape(features.pooled), &TRN_SHAPE(1, 128)));
    staged_add(&s, "pooled", features.pooled);
    staged_run_reference(&s, &input, 1);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
    return s;
}

static double difference(const staged *a, const char *name, const staged *b, const char *other)
{
    int i = staged_find(a, name), j = staged_find(b, other);
    assert_int_equal(a->sizes[i], b->sizes[j]);
    return test_worst_error(a->values[i], b->values[j], a->sizes[i], largest(b->values[j], b->sizes[j]));
}

static bool has_stage(const staged *s, const char *name)
{
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->names[i], name)) return true;
    return false;
}

static void expect_load_error(const char *path, const char *model, const trn_setting *settings, size_t count,
                              const char *text)
{
    trn_error err = {0};
    trn_weights *weights = open_weights(path);
    trn_encoder *encoder = make_encoder(model, settings, count);
    assert_trn_fails(trn_encoder_load(encoder, weights, NULL, &err), TRN_ERR_FORMAT, err, text);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void test_pretraining_files(void **state)
{
    (void)state;
    const trn_setting plain_settings[] = {TINY_RGB}, two_pools[] = {TINY_RGB, {"q_pool", "2"}},
                      none[] = {TINY_RGB, {"head", "none"}};
    size_t count = TRN_COUNT(plain_settings);
    test_tensor x = {.ndim = 4, .shape = {1, 3, 64, 64}, .count = 3 * 64 * 64};
    x.data = test_hash_values("a window", x.count, 1.5, 0);
    char *mae = write_file("mae-hiera-tiny", plain_settings, count, &x, "mae.safetensors");
    char *tuned = write_file("hiera-tiny", plain_settings, count, &x, "tuned.safetensors");
    trn_text report = {0};

    /* the fused stages, as pretrained, by its own name or by q_pool=2 */
    staged own = run_pooled(mae, "mae-hiera-tiny", plain_settings, count, &x, NULL);
    staged same = run_pooled(mae, "hiera-tiny", two_pools, count + 1, &x, NULL);
    assert_true(has_stage(&own, "fused") && !has_stage(&own, "pooled_norm"));
    assert_true(difference(&own, "pooled", &same, "pooled") <= 0);
    staged_close(&same);
    /* with q_pool 3 the average is raw, and what is not used is told */
    same = run_pooled(mae, "hiera-tiny", plain_settings, count, &x, &report);
    assert_non_null(strstr(trn_text_get(&report), "not used: "));
    assert_non_null(strstr(trn_text_get(&report), "encoder_norm.weight"));
    assert_true(!has_stage(&same, "fused") && !has_stage(&same, "pooled_norm"));
    assert_true(difference(&same, "pooled", &same, "pool_mean") <= 0);
    assert_true(difference(&own, "pooled", &same, "pooled") > 0.1);
    staged_close(&own);
    /* which is what a fine-tuned file of the same blocks gives without its norm */
    own = run_pooled(tuned, "hiera-tiny", none, count + 1, &x, NULL);
    assert_true(difference(&own, "pooled", &same, "pooled") <= 0);
    staged_close(&same);
    same = run_pooled(tuned, "hiera-tiny", plain_settings, count, &x, NULL);
    assert_true(difference(&same, "pool_mean", &own, "pooled") <= 0);
    assert_true(difference(&same, "pooled", &same, "pooled_norm") <= 0);
    staged_close(&same);
    staged_close(&own);
    expect_load_error(tuned, "mae-hiera-tiny", plain_settings, count,
                      "'encoder_norm.weight' [128] is missing");
    free(mae);
    free(tuned);
    free(x.data);
    trn_text_free(&report);
}

static void test_other_sizes(void **state)
{
    (void)state;
    const char *file = "hiera_tiny_cfg/hiera_tiny_cfg.safetensors";
    const trn_setting square[] = {TINY, {"img_size", "64"}}, deeper[] = {TINY, {"stages", "1,2,2,1"}};
    if (!test_golden_path(file)) skip();
    char path[512];
    snprintf(path, sizeof path, "%s", test_golden_path(file));
    expect_load_error(path, "hiera-tiny", square, TRN_COUNT(square),
                      "'pos_embed' [1,256,16] has shape [1,384,16]");
    expect_load_error(path, "hiera-tiny", deeper, TRN_COUNT(deeper),
                      "14 tensors missing and 10 of another shape");
    expect_load_error(path, "hiera-tiny", NULL, 0, "do not fit encoder 'hiera-tiny'");
}

/* ---- settings, shapes, sizes ---- */

static void expect_create_error(const char *key, const char *value, const char *text)
{
    trn_encoder *encoder = NULL;
    trn_error err = {0};
    trn_setting setting = {key, value};
    assert_trn_fails(trn_encoder_create("hiera-video-base", &setting, 1, &encoder, &err), TRN_ERR_ARGUMENT,
                     err, text);
    assert_null(encoder);
}

static void test_settings(void **state)
{
    (void)state;
    expect_create_error("img_size", "48", "multiples of 32");
    expect_create_error("heads", "5", "dim=96 is no multiple of heads=5");
    expect_create_error("stages", "1,2,3", "stages=1,2,3 must be 4 whole numbers from 1");
    expect_create_error("stages", "1,2,0,3", "from 1 to");
    expect_create_error("mask_unit_attn", "1,1,2,0", "from 0 to 1");
    expect_create_error("q_pool", "4", "from 0 to 3");
    expect_create_error("mlp_ratio", "0.01", "no hidden channel");
    expect_create_error("out_indices", "2,4", "from 0 to 3");
    expect_create_error("head", "cls", "auto|norm|fuse|none");
    expect_create_error("time_kernel", "20", "does not fit 16 frames");
    expect_create_error("time_padding", "3", "padding must be below the kernel");
}

static void expect_build_error(trn_encoder *encoder, trn_shape shape, const trn_encode_options *options,
                               const char *text)
{
    trn_graph *graph = trn_graph_create();
    trn_features features;
    trn_error err = {0};
    trn_tensor *image = trn_input(graph, "image", TRN_F32, shape);
    assert_trn_fails(trn_encoder_build(encoder, graph, image, options, &features, &err), TRN_ERR_ARGUMENT,
                     err, text);
    trn_graph_destroy(graph);
}

static void test_shapes(void **state)
{
    (void)state;
    trn_weights *weights = open_weights(NULL);
    trn_encoder *images = load("hiera-tiny", NULL, 0, weights, NULL);
    trn_encoder *series = load("hiera-video-base", NULL, 0, weights, NULL);
    expect_build_error(images, TRN_SHAPE(1, 3, 48, 64), NULL, "multiples of 32, not 64 x 48");
    expect_build_error(images, TRN_SHAPE(1, 3, 16, 16), NULL, "multiples of 32");
    expect_build_error(images, TRN_SHAPE(1, 4, 32, 32), NULL, "reads 3 bands");
    expect_build_error(images, TRN_SHAPE(1, 2, 3, 32, 32), NULL, "set up for 1 dates");
    expect_build_error(images, TRN_SHAPE(1, 3, 32, 32), &as_is_cls, "no class token");
    expect_build_error(series, TRN_SHAPE(1, 8, 3, 32, 32), NULL, "set up for 16 dates, and the image has 8");
    trn_encoder_destroy(images);
    trn_encoder_destroy(series);
    trn_weights_close(weights);
}

static void expect_grids(const char *model, const trn_setting *setting, int stride, int channels, int count,
                         const int *strides)
{
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = load(model, setting, setting != NULL, weights, NULL);
    const trn_encoder_spec *spec = trn_encoder_get_spec(encoder);
    trn_graph *graph = trn_graph_create();
    trn_error err = {0};
    trn_features features;
    trn_shape shape = TRN_SHAPE(1, 3, 64, 96);
    if (spec->max_dates > 1) shape = TRN_SHAPE(1, spec->max_dates, 3, 64, 96);
    trn_tensor *image = trn_input(graph, "image", TRN_F32, shape);
    assert_trn_ok(trn_encoder_build(encoder, graph, image, &as_is_dense, &features, &err), err);
    assert_int_equal(spec->stride, stride);
    assert_int_equal(spec->channels, channels);
    assert_int_equal(spec->side_multiple, 32);
    assert_int_equal(spec->unit, TRN_UNIT_BYTE);
    assert_int_equal(features.grid_count, count);
    for (int i = 0; i < count; i++) {
        const trn_shape *grid = trn_tensor_shape(features.grids[i]);
        assert_true(features.stride[i] == strides[i] && features.offset[i] == 0);
        assert_int_equal(grid->ndim, 4);
        assert_int_equal(grid->dim[1], 64 / strides[i]);
        assert_int_equal(grid->dim[2], 96 / strides[i]);
    }
    assert_int_equal(trn_tensor_dim(features.grids[count - 1], -1), channels);
    trn_graph_destroy(graph);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void test_grids(void **state)
{
    (void)state;
    const trn_setting last = {"out_indices", "3"}, middle = {"out_indices", "0,2"};
    expect_grids("hiera-tiny", NULL, 16, 768, 4, (const int[]){4, 8, 16, 32});
    expect_grids("mae-hiera-tiny", NULL, 16, 768, 4, (const int[]){4, 8, 16, 16});
    expect_grids("hiera-base-plus", &last, 32, 896, 1, (const int[]){32});
    expect_grids("mae-hiera-base-plus", &last, 16, 896, 1, (const int[]){16});
    expect_grids("hiera-tiny", &middle, 16, 384, 2, (const int[]){4, 16});
    expect_grids("mae-hiera-video-base", NULL, 16, 768, 4, (const int[]){4, 8, 16, 16});
}

/* Dense features of a series are the average of its steps; without the last stage, the mean is of the last
 * chosen one. */
static void test_features(void **state)
{
    (void)state;
    const char *id = "hiera_tiny_video";
    trn_setting settings[TRN_COUNT(tiny_video) + 1];
    memcpy(settings, tiny_video, sizeof tiny_video);
    settings[TRN_COUNT(tiny_video)] = (trn_setting){"out_indices", "1"};
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = load("hiera-tiny", settings, TRN_COUNT(settings), weights, NULL);
    test_tensor x = golden_image(id), golden = test_golden_output(id, "intermediate1");
    staged s = {.graph = trn_graph_create()};
    trn_features dense, mean;
    trn_error err = {0};
    trn_tensor *image = image_input(s.graph, &x);
    assert_trn_ok(trn_encoder_build(encoder, s.graph, image, &as_is_dense, &dense, &err), err);
    assert_trn_ok(trn_encoder_build(encoder, s.graph, image, &as_is_mean, &mean, &err), err);
    staged_add(&s, "dense", dense.grids[0]);
    staged_add(&s, "mean", mean.pooled);
    trn_named_data input = {"x", x.data};
    staged_run_device(&s, &input, 1);
    enum { BATCH = 2, STEPS = 2, CELLS = 16, CHANNELS = 32 };
    const float *grid = staged_get(&s, "dense"), *pooled = staged_get(&s, "mean");
    for (int b = 0; b < BATCH; b++)
        for (int c = 0; c < CHANNELS; c++) {
            double all = 0;
            for (int i = 0; i < CELLS; i++) {
                const float *first = golden.data + ((b * STEPS * CELLS) + i) * CHANNELS + c;
                double wanted = ((double)first[0] + (double)first[CELLS * CHANNELS]) / 2;
                all += wanted / CELLS;
                assert_true(fabs(wanted - (double)grid[(b * CELLS + i) * CHANNELS + c]) <
                            1e-5 * golden.absmax);
            }
            assert_true(fabs(all - (double)pooled[b * CHANNELS + c]) < 1e-5 * golden.absmax);
        }
    free(golden.data);
    free(x.data);
    staged_close(&s);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* The sizes in the registry are what the graphs ask for. */
static void test_parameter_counts(void **state)
{
    (void)state;
    int wrong = 0, seen = 0;
    for (size_t i = 0; i < trn_model_count(); i++) {
        const trn_model_info *info = trn_model_at(i);
        if (strcmp(info->family, "hiera") != 0) continue;
        trn_text report = {0};
        char wanted[64];
        trn_weights *weights = open_weights(NULL);
        trn_encoder *encoder = load(info->name, NULL, 0, weights, &report);
        snprintf(wanted, sizeof wanted, " %llu parameters", (unsigned long long)info->parameters);
        if (!strstr(trn_text_get(&report), wanted)) {
            print_error("the registry has%s, loading says %s", wanted, trn_text_get(&report));
            wrong++;
        }
        seen++;
        trn_text_free(&report);
        trn_encoder_destroy(encoder);
        trn_weights_close(weights);
    }
    assert_int_equal(wrong, 0);
    assert_int_equal(seen, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_cfg),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_tiny_q_pool_2),
        cmocka_unit_test(test_tiny_video),
        cmocka_unit_test(test_unroll),
        cmocka_unit_test(test_variants),
        cmocka_unit_test(test_masked),
        cmocka_unit_test(test_autoencoder),
        cmocka_unit_test(test_pair),
        cmocka_unit_test(test_pair_file),
        cmocka_unit_test(test_pair_errors),
        cmocka_unit_test(test_nothing_hidden),
        cmocka_unit_test(test_mask_errors),
        cmocka_unit_test(test_joint_positions),
        cmocka_unit_test(test_kept_units_of_series),
        cmocka_unit_test(test_pretraining_files),
        cmocka_unit_test(test_other_sizes),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_grids),
        cmocka_unit_test(test_features),
        cmocka_unit_test(test_parameter_counts),
        cmocka_unit_test(test_full_tiny),
        cmocka_unit_test(test_full_base),
    };
    return cmocka_run_group_tests(tests, NULL, close_gpu);
}
