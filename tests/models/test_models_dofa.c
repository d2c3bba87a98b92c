/* DOFA against the outputs of the originals; bands by wavelength, statistics, and the kernel that is
 * generated once. */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "running.h"

#include "dofa.h"

#define TINY                                                                                                 \
    {"img_size", "64"}, {"patch", "8"}, {"dim", "32"}, {"depth", "3"},                                       \
    {                                                                                                        \
        "heads", "4"                                                                                         \
    }
#define TINY_V2                                                                                              \
    {"img_size", "56"}, {"dim", "32"}, {"depth", "3"},                                                       \
    {                                                                                                        \
        "heads", "4"                                                                                         \
    }
#define TINY_CLIP                                                                                            \
    {"img_size", "32"}, {"patch", "8"}, {"dim", "48"}, {"depth", "2"},                                       \
    {                                                                                                        \
        "heads", "4"                                                                                         \
    }

enum { MAX_GIVEN = 12 };

static const trn_encode_options as_is_mean = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_MEAN};
static const trn_encode_options as_is_cls = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_CLS};
static const trn_encode_options as_is_dense = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_DENSE};
/* The goldens' bands: blue, red, short-wave infrared, radar. */
static const trn_band_offer four_bands[] = {{"blue", 0.49}, {"red", 0}, {"swir16", 1.61}, {"vv", 0}};

static void choose(trn_encoder *encoder, const trn_band_offer *bands, size_t count)
{
    int index[MAX_GIVEN];
    size_t chosen;
    trn_error err = {0};
    assert_trn_ok(trn_encoder_choose_bands(encoder, bands, count, index, MAX_GIVEN, &chosen, NULL, &err),
                  err);
    assert_int_equal(chosen, count);
    for (size_t i = 0; i < chosen; i++)
        assert_int_equal(index[i], i);
}

static staged build_stages(trn_encoder *encoder, trn_shape shape, const trn_encode_options *options,
                           trn_features *features)
{
    staged s = {.graph = trn_graph_create()};
    trn_error err = {0};
    trn_tensor *image = trn_input(s.graph, "x", TRN_F32, shape);
    assert_trn_ok(trn_encoder_build_stages(encoder, s.graph, image, options, features, staged_add, &s, &err),
                  err);
    return s;
}

static trn_shape shape_of(const test_tensor *x)
{
    return TRN_SHAPE(x->shape[0], x->shape[1], x->shape[2], x->shape[3]);
}

static bool golden_has_output(const char *id, const char *name)
{
    const cJSON *item;
    cJSON_ArrayForEach (item, cJSON_GetObjectItem(test_golden_case(id), "outputs")) {
        if (!strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(item, "name")), name)) return true;
    }
    return false;
}

/* What the golden case calls a stage; NULL when it does not store it. */
static const char *golden_name(const char *id, const char *stage)
{
    static const struct {
        const char *stage, *golden;
    } other[] = {{"pooled", "features"}, {"pooled", "pooled_map"}, {"final_tokens", "final_tokens_norm"}};
    if (golden_has_output(id, stage)) return stage;
    for (size_t i = 0; i < TRN_COUNT(other); i++)
        if (!strcmp(other[i].stage, stage) && golden_has_output(id, other[i].golden)) return other[i].golden;
    return NULL;
}

/* Compares the stages that the case stores; how many they are. */
static int compare_stages(const char *id, const staged *s, double tolerance)
{
    int compared = 0;
    for (int i = 0; i < s->count; i++) {
        const char *name = golden_name(id, s->names[i]);
        if (!name) continue;
        test_compare_golden(id, name, s->values[i], s->sizes[i], tolerance);
        compared++;
    }
    return compared;
}

/* The classifier of a golden case on pooled features [B,32]; no encoder asks for its weights. */
static void compare_head(const char *id, const staged *s)
{
    enum { CLASSES = 5, DIM = 32, MAX_BATCH = 2 };
    if (!golden_has_output(id, "logits")) return;
    trn_weights *weights = open_weights(NULL);
    float w[CLASSES * DIM], b[CLASSES], out[MAX_BATCH * CLASSES];
    int pooled = staged_find(s, "pooled");
    int64_t batch = s->sizes[pooled] / DIM;
    trn_error err = {0};
    assert_trn_ok(trn_weights_read(weights, "head.weight", (int64_t[]){CLASSES, DIM}, 2, w, &err), err);
    assert_trn_ok(trn_weights_read(weights, "head.bias", (int64_t[]){CLASSES}, 1, b, &err), err);
    assert_true(batch <= MAX_BATCH);
    for (int i = 0; i < batch * CLASSES; i++) {
        double sum = (double)b[i % CLASSES];
        for (int k = 0; k < DIM; k++)
            sum += (double)s->values[pooled][i / CLASSES * DIM + k] * (double)w[i % CLASSES * DIM + k];
        out[i] = (float)sum;
    }
    test_compare_golden(id, "logits", out, batch * CLASSES, 1e-5);
    trn_weights_close(weights);
}

typedef struct golden_run {
    const char *id, *model, *path; /* path NULL: synthetic weights */
    const trn_setting *settings;
    size_t setting_count;
    const trn_band_offer *bands; /* NULL: by the setting wavelengths */
    size_t band_count;
    const trn_encode_options *options;
    int stages; /* that are compared */
} golden_run;

static void compare_tiny(const golden_run *run)
{
    trn_error err = {0};
    trn_features features;
    trn_encoder *encoder = make_encoder(run->model, run->settings, run->setting_count);
    trn_weights *weights = open_weights(run->path);
    if (run->bands) choose(encoder, run->bands, run->band_count);
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    test_tensor x = test_golden_input(run->id, "x");
    staged s = build_stages(encoder, shape_of(&x), run->options, &features);
    trn_named_data input = {"x", x.data};
    for (int device = 0; device < 2; device++) {
        if (device)
            staged_run_device(&s, &input, 1);
        else
            staged_run_reference(&s, &input, 1);
        assert_int_equal(compare_stages(run->id, &s, 1e-5), run->stages);
        compare_head(run->id, &s);
    }
    staged_close(&s);
    free(x.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void test_tiny(void **state)
{
    (void)state;
    const trn_setting plain[] = {TINY}, given[] = {TINY, {"fc_norm", "true"}};
    golden_run run = {"dofa_tiny_cfg", "dofa-base",           NULL,        given, TRN_COUNT(given),
                      four_bands,      TRN_COUNT(four_bands), &as_is_mean, 10};
    compare_tiny(&run);
    const char *path = test_golden_path("dofa_tiny_cfg/dofa_tiny_cfg.pt");
    if (!path) return;
    run.settings = plain; /* a checkpoint says itself that it has fc_norm */
    run.setting_count = TRN_COUNT(plain);
    run.path = path;
    compare_tiny(&run);
    run.path = test_golden_path("dofa_tiny_cfg/dofa_tiny_cfg.safetensors");
    compare_tiny(&run);
}

static void test_one_band(void **state)
{
    (void)state;
    const trn_setting settings[] = {TINY, {"fc_norm", "true"}, {"wavelengths", "0.8"}};
    const golden_run run = {.id = "dofa_tiny_1band",
                            .model = "dofa-base",
                            .settings = settings,
                            .setting_count = TRN_COUNT(settings),
                            .options = &as_is_mean,
                            .stages = 10};
    compare_tiny(&run);
}

static void test_seven_bands(void **state)
{
    (void)state;
    const char *id = "dofa_tiny_7band";
    if (!test_golden_has(id)) skip();
    test_tensor wavelengths = test_golden_input(id, "wavelengths_um");
    char text[128] = "";
    for (int64_t i = 0; i < wavelengths.count; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%g", i ? "," : "",
                 (double)wavelengths.data[i]);
    free(wavelengths.data);
    const trn_setting settings[] = {TINY, {"fc_norm", "true"}, {"wavelengths", text}};
    const golden_run run = {.id = id,
                            .model = "dofa-base",
                            .settings = settings,
                            .setting_count = TRN_COUNT(settings),
                            .options = &as_is_mean,
                            .stages = 10};
    compare_tiny(&run);
}

static void test_old_layout(void **state)
{
    (void)state;
    const trn_setting settings[] = {TINY, {"fc_norm", "true"}, {"layout", "old"}};
    const golden_run run = {
        "dofa_tiny_oldlayout", "dofa-base", NULL, settings, TRN_COUNT(settings), four_bands,
        TRN_COUNT(four_bands), &as_is_mean, 10};
    compare_tiny(&run);
}

static void test_cls(void **state)
{
    (void)state;
    const trn_setting settings[] = {TINY};
    const golden_run run = {"dofa_tiny_cls", "dofa-base",           NULL,       settings, TRN_COUNT(settings),
                            four_bands,      TRN_COUNT(four_bands), &as_is_cls, 10};
    compare_tiny(&run);
}

static void test_v2(void **state)
{
    (void)state;
    const trn_setting settings[] = {TINY_V2};
    const golden_run run = {
        "dofav2_tiny_cfg", "dofa-v2-base",        NULL,        settings, TRN_COUNT(settings),
        four_bands,        TRN_COUNT(four_bands), &as_is_mean, 10};
    compare_tiny(&run);
}

static void test_clip(void **state)
{
    (void)state;
    const trn_setting settings[] = {TINY_CLIP};
    const golden_run run = {
        "dofaclip_tiny", "dofa-clip-so400m",    NULL,        settings, TRN_COUNT(settings),
        four_bands,      TRN_COUNT(four_bands), &as_is_mean, 5};
    compare_tiny(&run);
}

/* Checkpoints with the names of the published files: flat, and in open_clip's below visual.trunk. */
static void test_published_names(void **state)
{
    (void)state;
    const trn_setting v1[] = {TINY, {"fc_norm", "true"}}, v2[] = {TINY_V2}, clip[] = {TINY_CLIP};
    const golden_run runs[] = {
        {"dofa_tiny_cfg", "dofa-base", "v1.pt", v1, TRN_COUNT(v1), four_bands, 4, &as_is_mean, 10},
        {"dofav2_tiny_cfg", "dofa-v2-base", "v2.pth", v2, TRN_COUNT(v2), four_bands, 4, &as_is_mean, 10},
        {"dofaclip_tiny", "dofa-clip-so400m", "clip.bin", clip, TRN_COUNT(clip), four_bands, 4, &as_is_mean,
         5},
        {"dofaclip_tiny", "dofa-clip-so400m", "clip.safetensors", clip, TRN_COUNT(clip), four_bands, 4,
         &as_is_mean, 5}};
    const char *dir = test_temp_dir();
    for (size_t i = 0; i < TRN_COUNT(runs); i++) {
        golden_run run = runs[i];
        trn_error err = {0};
        char *path = test_path(dir, run.path);
        assert_trn_ok(trn_model_write_synthetic(run.model, run.settings, run.setting_count, path, NULL, &err),
                      err);
        run.path = path;
        compare_tiny(&run);
        free(path);
    }
    char *path = test_path(dir, "clip.safetensors");
    trn_weights *weights = open_weights(path);
    assert_non_null(trn_weights_find(weights, "visual.trunk.attn_pool.latent"));
    trn_weights_close(weights);
    free(path);
}

/* ---- dense features ---- */

/* An encoder on synthetic weights with the goldens' bands. */
static trn_encoder *ready(const char *model, const trn_setting *settings, size_t count, trn_weights *weights)
{
    trn_error err = {0};
    trn_encoder *encoder = make_encoder(model, settings, count);
    choose(encoder, four_bands, TRN_COUNT(four_bands));
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    return encoder;
}

/* grid [B,h,w,C] against a golden [B,C,h,w] */
static void compare_nchw(const char *id, const char *name, const float *grid, int64_t b, int64_t cells,
                         int64_t channels)
{
    float *out = malloc((size_t)(b * cells * channels) * sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < b * cells * channels; i++) {
        int64_t image = i / (cells * channels), cell = i / channels % cells, channel = i % channels;
        out[(image * channels + channel) * cells + cell] = grid[i];
    }
    test_compare_golden(id, name, out, b * cells * channels, 1e-5);
    free(out);
}

static void test_v2_features(void **state)
{
    (void)state;
    const char *id = "dofav2_tiny_cfg";
    const trn_setting settings[] = {TINY_V2, {"out_indices", "0,2"}};
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = ready("dofa-v2-base", settings, TRN_COUNT(settings), weights);
    test_tensor x = test_golden_input(id, "x");
    trn_features features;
    staged s = build_stages(encoder, shape_of(&x), &as_is_dense, &features);
    assert_int_equal(features.grid_count, 2);
    staged_add(&s, "grid0", features.grids[0]);
    staged_add(&s, "grid1", features.grids[1]);
    trn_named_data input = {"x", x.data};
    staged_run_device(&s, &input, 1);
    for (int i = 0; i < 2; i++) {
        assert_true(features.stride[i] == 14 && features.offset[i] == -1);
        assert_true(trn_shape_equal(trn_tensor_shape(features.grids[i]), &TRN_SHAPE(2, 4, 4, 32)));
        compare_nchw(id, i ? "feat1_nchw" : "feat0_nchw", staged_get(&s, i ? "grid1" : "grid0"), 2, 16, 32);
    }
    staged_close(&s);
    free(x.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* Dense features of the last block: [B,cells,C] are the golden's tokens [B,prefix+cells,C]. */
static void compare_dense(const char *model, const trn_setting *settings, size_t count, const char *id,
                          const char *name, int64_t prefix)
{
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = ready(model, settings, count, weights);
    test_tensor x = test_golden_input(id, "x"), golden = test_golden_output(id, name);
    trn_features features;
    staged s = build_stages(encoder, shape_of(&x), &as_is_dense, &features);
    assert_true(features.grid_count == 1 && features.offset[0] == (double)-prefix && !features.pooled);
    staged_add(&s, "grid", features.grids[0]);
    trn_named_data input = {"x", x.data};
    staged_run_reference(&s, &input, 1);
    const float *grid = staged_get(&s, "grid");
    int64_t tokens = golden.shape[1], channels = golden.shape[2], row = (tokens - prefix) * channels;
    for (int64_t b = 0; b < golden.shape[0]; b++)
        assert_true(test_worst_error(grid + b * row, golden.data + (b * tokens + prefix) * channels, row,
                                     golden.absmax) < 1e-5);
    staged_close(&s);
    free(golden.data);
    free(x.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void test_dense(void **state)
{
    (void)state;
    const trn_setting v1[] = {TINY}, v2[] = {TINY_V2}, clip[] = {TINY_CLIP};
    compare_dense("dofa-base", v1, TRN_COUNT(v1), "dofa_tiny_cfg", "block02", 1);
    compare_dense("dofa-v2-base", v2, TRN_COUNT(v2), "dofav2_tiny_cfg", "final_tokens_norm", 1);
    compare_dense("dofa-clip-so400m", clip, TRN_COUNT(clip), "dofaclip_tiny", "final_tokens", 0);
}

static void test_clip_average(void **state)
{
    (void)state;
    const char *id = "dofaclip_tiny";
    const trn_setting settings[] = {TINY_CLIP, {"attn_pool", "false"}};
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = ready("dofa-clip-so400m", settings, TRN_COUNT(settings), weights);
    test_tensor x = test_golden_input(id, "x"), golden = test_golden_output(id, "final_tokens");
    trn_features features;
    staged s = build_stages(encoder, shape_of(&x), &as_is_mean, &features);
    trn_named_data input = {"x", x.data};
    staged_run_reference(&s, &input, 1);
    const float *pooled = staged_get(&s, "pooled");
    for (int i = 0; i < 2 * 48; i++) {
        double sum = 0;
        for (int t = 0; t < 16; t++)
            sum += (double)golden.data[(i / 48 * 16 + t) * 48 + i % 48] / 16;
        assert_true(fabs(sum - (double)pooled[i]) < 1e-5 * golden.absmax);
    }
    staged_close(&s);
    free(golden.data);
    free(x.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* ---- other window sides ---- */

static void test_position_resampling(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t h, w;
        trn_position_resize how;
    } cases[] = {{"pos_bilinear_12x10", 12, 10, TRN_POSITIONS_BILINEAR},
                 {"pos_bicubic_12x10", 12, 10, TRN_POSITIONS_BICUBIC},
                 {"pos_bilinear_5x6", 5, 6, TRN_POSITIONS_BILINEAR},
                 {"pos_bicubic_5x6", 5, 6, TRN_POSITIONS_BICUBIC}};
    trn_weights *weights = open_weights(NULL);
    float table[65 * 32];
    trn_error err = {0};
    assert_trn_ok(trn_weights_read(weights, "pos_embed", (int64_t[]){1, 65, 32}, 3, table, &err), err);
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        staged s = {.graph = trn_graph_create()};
        trn_tensor *positions = trn_constant(s.graph, "table", TRN_SHAPE(1, 65, 32), table);
        trn_grid_size from = {8, 8}, to = {cases[i].h, cases[i].w};
        staged_add(&s, cases[i].name, trn_resize_positions(s.graph, positions, 1, from, to, cases[i].how));
        staged_run_reference(&s, NULL, 0);
        test_compare_golden("dofa_tiny_posinterp", cases[i].name, s.values[0], s.sizes[0], 1e-5);
        staged_run_device(&s, NULL, 0);
        test_compare_golden("dofa_tiny_posinterp", cases[i].name, s.values[0], s.sizes[0], 1e-5);
        staged_close(&s);
    }
    trn_weights_close(weights);
}

/* An encoder on windows of another size has the positions of that size: what is added to the patches is the
 * golden's resampled table. */
static void expect_positions(const char *how, const char *golden_table, int64_t rows, int64_t columns)
{
    const trn_setting settings[] = {TINY, {"pos_interpolation", how}};
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = ready("dofa-base", settings, TRN_COUNT(settings), weights);
    test_tensor table = test_golden_output("dofa_tiny_posinterp", golden_table);
    trn_features features;
    trn_shape shape = TRN_SHAPE(1, 4, rows * 8, columns * 8);
    float *x = test_hash_values("windows", trn_shape_count(&shape), 1, 0);
    staged s = build_stages(encoder, shape, &as_is_dense, &features);
    assert_true(trn_shape_equal(trn_tensor_shape(features.grids[0]), &TRN_SHAPE(1, rows, columns, 32)));
    trn_named_data input = {"x", x};
    staged_run_device(&s, &input, 1);
    const float *patches = staged_get(&s, "patch_embed"), *tokens = staged_get(&s, "tokens_in");
    for (int64_t i = 0; i < rows * columns * 32; i++) {
        double added = (double)tokens[32 + i] - (double)patches[i];
        assert_true(fabs(added - (double)table.data[32 + i]) < 1e-5);
    }
    staged_close(&s);
    free(table.data);
    free(x);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void test_other_sides(void **state)
{
    (void)state;
    expect_positions("bicubic", "pos_bicubic_12x10", 12, 10);
    expect_positions("bilinear", "pos_bilinear_5x6", 5, 6);
}

/* ---- the generated kernel ---- */

/* Output of the last block for bands in an order, image and wavelengths alike: [65*32]. malloc'd. */
static float *run_order(const char *layout, const int *order)
{
    enum { AREA = 64 * 64 };
    const trn_setting settings[] = {TINY, {"layout", layout}};
    trn_band_offer bands[4];
    trn_error err = {0};
    trn_features features;
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = make_encoder("dofa-base", settings, TRN_COUNT(settings));
    float *scene = test_hash_values("scene", 4 * AREA, 1.5, 0), *x = malloc(4 * AREA * sizeof *x);
    assert_non_null(x);
    for (int i = 0; i < 4; i++) {
        bands[i] = four_bands[order[i]];
        memcpy(x + i * AREA, scene + order[i] * AREA, AREA * sizeof *x);
    }
    choose(encoder, bands, 4);
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    staged s = build_stages(encoder, TRN_SHAPE(1, 4, 64, 64), &as_is_dense, &features);
    trn_named_data input = {"x", x};
    staged_run_reference(&s, &input, 1);
    int last = staged_find(&s, "block02");
    float *out = malloc((size_t)s.sizes[last] * sizeof *out);
    assert_non_null(out);
    memcpy(out, s.values[last], (size_t)s.sizes[last] * sizeof *out);
    staged_close(&s);
    free(scene);
    free(x);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
    return out;
}

/* What tells the two layouts apart: the order of the bands does not matter to the new one. */
static double effect_of_order(const char *layout)
{
    static const int straight[] = {0, 1, 2, 3}, mixed[] = {2, 0, 3, 1};
    float *a = run_order(layout, straight), *b = run_order(layout, mixed);
    double effect = test_worst_error(a, b, 65 * 32, largest(b, 65 * 32));
    free(a);
    free(b);
    return effect;
}

static void test_order_of_bands(void **state)
{
    (void)state;
    assert_true(effect_of_order("new") < 2e-6);
    assert_true(effect_of_order("old") > 1e-2);
}

typedef struct compiled {
    trn_exec_summary summary;
    float *kernel;
    int64_t count;
} compiled;

/* Compiles the tiny encoder for a batch; the kernel as the device made it. */
static compiled compile_batch(int64_t batch, int64_t depth)
{
    char blocks[24];
    snprintf(blocks, sizeof blocks, "%lld", (long long)depth);
    const trn_setting settings[] = {TINY, {"depth", blocks}};
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = ready("dofa-base", settings, TRN_COUNT(settings), weights);
    trn_features features;
    trn_error err = {0};
    trn_exec *exec = NULL;
    compiled c = {0};
    trn_shape shape = TRN_SHAPE(batch, 4, 64, 64);
    float *x = test_hash_values("windows", trn_shape_count(&shape), 1, 0);
    staged s = {.graph = trn_graph_create()};
    trn_tensor *image = trn_input(s.graph, "x", TRN_F32, shape);
    staged looked = {.graph = s.graph};
    assert_trn_ok(
        trn_encoder_build_stages(encoder, s.graph, image, &as_is_mean, &features, staged_add, &looked, &err),
        err);
    assert_trn_ok(trn_compile(s.graph, open_gpu(), NULL, &exec, &err), err);
    c.summary = trn_exec_summarize(exec);
    c.count = looked.sizes[staged_find(&looked, "dyn_weight")];
    c.kernel = malloc((size_t)c.count * sizeof *c.kernel);
    assert_non_null(c.kernel);
    assert_trn_ok(trn_exec_set(exec, "x", x, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    assert_trn_ok(trn_exec_get(exec, "dyn_weight", c.kernel, &err), err);
    trn_exec_destroy(exec);
    staged_close(&s);
    free(x);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
    return c;
}

/* The kernel is made when the graph is compiled, and is the same for every batch. */
static void test_kernel_is_made_once(void **state)
{
    (void)state;
    compiled one = compile_batch(1, 1), three = compile_batch(3, 1), deeper = compile_batch(3, 2);
    size_t block = deeper.summary.dispatches - three.summary.dispatches;
    printf("dofa tiny: setup %zu dispatches, run %zu, of which a block %zu\n", three.summary.setup_dispatches,
           three.summary.dispatches, block);
    assert_int_equal(one.count, 32 * 4 * 8 * 8);
    assert_memory_equal(one.kernel, three.kernel, (size_t)one.count * sizeof *one.kernel);
    assert_true(largest(one.kernel, one.count) > 0.01);
    /* the generator: 8 products, attention, 2 norms */
    assert_true(three.summary.setup_dispatches >= 11);
    /* the run: convolution, tokens, pooling, its norm */
    assert_true(block >= 5 && three.summary.dispatches - block < 11);
    free(one.kernel);
    free(three.kernel);
    free(deeper.kernel);
}

/* ---- bands ---- */

static void test_wavelengths(void **state)
{
    (void)state;
    static const trn_band_offer scene[] = {
        {"red", 0.655}, {"Red", 0}, {"NIR_NARROW", 0}, {"vh", 0}, {"7", 0.91}};
    static const float wanted[] = {0.655f, 0.665f, 0.864f, 5.405f, 0.91f};
    trn_encoder *encoder = make_encoder("dofa-base", NULL, 0);
    choose(encoder, scene, TRN_COUNT(scene));
    const trn_dofa_state *dofa = encoder->state;
    const trn_encoder_spec *spec = trn_encoder_get_spec(encoder);
    assert_int_equal(dofa->wavelength_count, TRN_COUNT(wanted));
    assert_memory_equal(dofa->wavelengths, wanted, sizeof wanted);
    assert_int_equal(spec->band_count, TRN_COUNT(scene));
    assert_string_equal(spec->bands[2].name, "NIR_NARROW");
    assert_int_equal(spec->unit, TRN_UNIT_BYTE);
    assert_int_equal(spec->bands[4].unit, TRN_UNIT_BYTE);
    trn_encoder_destroy(encoder);
    size_t count;
    trn_error err = {0};
    encoder = make_encoder("dofa-v2-base", NULL, 0);
    assert_trn_ok(trn_encoder_choose_all_bands(encoder, &count, &err), err);
    assert_int_equal(count, 3);
    trn_encoder_destroy(encoder);
}

static void expect_choice_error(const trn_setting *settings, size_t setting_count,
                                const trn_band_offer *scene, size_t count, const char *text)
{
    int index[MAX_GIVEN];
    size_t chosen;
    trn_error err = {0};
    trn_encoder *encoder = make_encoder("dofa-base", settings, setting_count);
    assert_trn_fails(trn_encoder_choose_bands(encoder, scene, count, index, MAX_GIVEN, &chosen, NULL, &err),
                     TRN_ERR_ARGUMENT, err, text);
    assert_int_equal(chosen, 0);
    trn_encoder_destroy(encoder);
}

static void expect_create_error(const char *key, const char *value, const char *text)
{
    trn_encoder *encoder = NULL;
    trn_error err = {0};
    trn_setting setting = {key, value};
    assert_trn_fails(trn_encoder_create("dofa-base", &setting, 1, &encoder, &err), TRN_ERR_ARGUMENT, err,
                     text);
    assert_null(encoder);
}

static void test_band_errors(void **state)
{
    (void)state;
    static const trn_band_offer scene[] = {{"red", 0}, {"1", 0}, {"depth", 0}};
    const trn_setting two[] = {{"wavelengths", "0.665, 0.8"}};
    const trn_setting means[] = {{"wavelengths", "0.665, 0.8, 0.9"}, {"mean", "1,2"}};
    const trn_setting stds[] = {{"wavelengths", "0.665, 0.8, 0.9"}, {"std", "1,2,0"}};
    expect_choice_error(NULL, 0, scene, 3, "that of '1', 'depth' is not known");
    expect_choice_error(NULL, 0, scene, 3, "setting wavelengths");
    expect_choice_error(two, 1, scene, 3, "wavelengths is of 2 bands, and the image has 3");
    expect_choice_error(means, 2, scene, 3, "mean=1,2 must be 3 numbers");
    expect_choice_error(stds, 2, scene, 3, "std=1,2,0 must be 3 positive numbers");
    expect_choice_error(NULL, 0, scene, 0, "takes 1 to");
    expect_create_error("wavelengths", "665,560,490", "give micrometres");
    expect_create_error("wavelengths", "0.665,,0.49", "positive numbers");
    expect_create_error("wavelengths", "0.665,-1", "positive numbers");
    expect_create_error("wavelengths", "nan", "wavelengths");
    expect_create_error("img_size", "15", "holds no patch of 16 pixels");
    expect_create_error("heads", "7", "no multiple of heads=7");
    expect_create_error("out_indices", "12", "from 0 to 11");
}

/* ---- statistics ---- */

static void expect_statistics(const trn_encoder *encoder, size_t band, double mean, double std)
{
    const trn_encoder_band *b = &trn_encoder_get_spec(encoder)->bands[band];
    assert_true(fabs(b->mean - mean) < 1e-6 && fabs(b->std - std) < 1e-6);
}

static void test_statistics(void **state)
{
    (void)state;
    static const trn_band_offer optical[] = {{"blue", 0.49}, {"nir", 0.842}, {"vv", 0}, {"swir22", 2.2}};
    static const trn_band_offer colours[] = {{"blue", 0.49}, {"red", 0.665}, {"green", 0.56}};
    static const trn_band_offer unnamed[] = {{"b17", 0.701}, {"b18", 5.405}};
    trn_encoder *encoder = make_encoder("dofa-base", NULL, 0);
    choose(encoder, optical, TRN_COUNT(optical));
    expect_statistics(encoder, 0, 126.63977424, 67.42465279);
    expect_statistics(encoder, 1, 101.435633, 60.29744676);
    expect_statistics(encoder, 2, 166.36275909, 64.83126309);
    expect_statistics(encoder, 3, 56.66528851, 42.55886798);
    choose(encoder, colours, TRN_COUNT(colours));
    expect_statistics(encoder, 0, 103.53, 57.375);
    expect_statistics(encoder, 1, 123.675, 58.395);
    int index[2];
    size_t count;
    trn_text notes = {0};
    trn_error err = {0};
    assert_trn_ok(trn_encoder_choose_bands(encoder, unnamed, 2, index, 2, &count, &notes, &err), err);
    expect_statistics(encoder, 0, 84.33539309, 64.57022983);
    expect_statistics(encoder, 1, 0, 0);
    assert_non_null(strstr(trn_text_get(&notes), "go by wavelength: b17 as rededge1\n"));
    trn_text_free(&notes);
    trn_encoder_destroy(encoder);
}

static trn_status build_once(trn_encoder *encoder, const trn_encode_options *options, trn_error *err)
{
    trn_graph *graph = trn_graph_create();
    trn_features features;
    trn_tensor *image = trn_input(graph, "x", TRN_F32, TRN_SHAPE(1, 2, 64, 64));
    trn_status status = trn_encoder_build(encoder, graph, image, options, &features, err);
    trn_graph_destroy(graph);
    return status;
}

/* Statistics are asked for when they are used, and not before. */
static void test_unknown_statistics(void **state)
{
    (void)state;
    static const trn_band_offer scene[] = {{"red", 0.665}, {"coastal", 0.443}};
    static const float ones[] = {1, 1};
    const trn_setting plain[] = {TINY}, given[] = {TINY, {"mean", "1,2"}, {"std", "3,4"}};
    const trn_setting half[] = {TINY, {"std", "3,4"}};
    const trn_setting physical[] = {TINY, {"unit", "reflectance"}};
    const trn_encode_options model = {.pool = TRN_FEATURES_MEAN};
    const trn_encode_options zscore = {
        .normalize = TRN_NORMALIZE_ZSCORE, .mean = ones, .std = ones, .pool = TRN_FEATURES_MEAN};
    const struct {
        const trn_setting *settings;
        size_t count;
        const char *band;
    } cases[] = {{plain, TRN_COUNT(plain), "'coastal'"},
                 {half, TRN_COUNT(half), "'coastal'"},
                 {physical, TRN_COUNT(physical), "'red'"},
                 {given, TRN_COUNT(given), NULL}};
    trn_weights *weights = open_weights(NULL);
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        trn_error err = {0};
        trn_encoder *encoder = make_encoder("dofa-base", cases[i].settings, cases[i].count);
        choose(encoder, scene, 2);
        assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
        assert_trn_ok(build_once(encoder, &as_is_mean, &err), err);
        assert_trn_ok(build_once(encoder, &zscore, &err), err);
        if (cases[i].band) {
            assert_trn_fails(build_once(encoder, &model, &err), TRN_ERR_ARGUMENT, err, cases[i].band);
            assert_non_null(strstr(err.message, "mean and std"));
        } else {
            assert_trn_ok(build_once(encoder, &model, &err), err);
        }
        trn_encoder_destroy(encoder);
    }
    trn_weights_close(weights);
}

/* ---- checkpoints ---- */

static void test_wrong_checkpoints(void **state)
{
    (void)state;
    const char *path = test_golden_path("dofa_tiny_cfg/dofa_tiny_cfg.safetensors");
    if (!path) skip();
    const trn_setting wider[] = {TINY, {"mlp_ratio", "2"}}, second[] = {TINY, {"version", "2"}};
    const struct {
        const trn_setting *settings;
        size_t count;
        const char *text;
    } cases[] = {{wider, TRN_COUNT(wider), "'blocks.0.mlp.fc1.weight' [64,32] has shape [128,32]"},
                 {second, TRN_COUNT(second), "'model.pos_embed' [1,65,32] is missing"},
                 {NULL, 0, "fc_weight.weight' [196608,128] has shape [2048,128]"}};
    trn_weights *weights = open_weights(path);
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        trn_error err = {0};
        trn_encoder *encoder = make_encoder("dofa-base", cases[i].settings, cases[i].count);
        choose(encoder, four_bands, TRN_COUNT(four_bands));
        assert_trn_fails(trn_encoder_load(encoder, weights, NULL, &err), TRN_ERR_FORMAT, err, cases[i].text);
        trn_encoder_destroy(encoder);
    }
    trn_weights_close(weights);
}

/* torchgeo's copies hold no norm for the class token: pooling it is an error that says so. */
static void test_class_token_without_norm(void **state)
{
    (void)state;
    const char *path = test_golden_path("dofa_tiny_cfg/dofa_tiny_cfg.safetensors");
    if (!path) skip();
    const trn_setting settings[] = {TINY};
    trn_error err = {0};
    trn_weights *weights = open_weights(path);
    trn_encoder *encoder = ready("dofa-base", settings, TRN_COUNT(settings), weights);
    trn_graph *graph = trn_graph_create();
    trn_features features;
    trn_tensor *image = trn_input(graph, "x", TRN_F32, TRN_SHAPE(1, 4, 64, 64));
    assert_trn_fails(trn_encoder_build(encoder, graph, image, &as_is_cls, &features, &err), TRN_ERR_ARGUMENT,
                     err, "hold no 'norm' for the class token");
    trn_graph_destroy(graph);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* Without fc_norm the average of the patches is normed all the same. */
static void test_plain_pool_norm(void **state)
{
    (void)state;
    enum { DIM = 32, CELLS = 64 };
    const trn_setting settings[] = {TINY, {"fc_norm", "false"}};
    trn_weights *weights = open_weights(NULL);
    trn_encoder *encoder = ready("dofa-base", settings, TRN_COUNT(settings), weights);
    test_tensor x = test_golden_input("dofa_tiny_cfg", "x");
    test_tensor block = test_golden_output("dofa_tiny_cfg", "block02");
    trn_features features;
    staged s = build_stages(encoder, shape_of(&x), &as_is_mean, &features);
    trn_named_data input = {"x", x.data};
    staged_run_device(&s, &input, 1);
    const float *pooled = staged_get(&s, "pooled");
    for (int b = 0; b < 2; b++) {
        double average[DIM] = {0}, mean = 0, square = 0;
        for (int i = 0; i < CELLS * DIM; i++)
            average[i % DIM] += (double)block.data[(b * (CELLS + 1) + 1) * DIM + i] / CELLS;
        for (int c = 0; c < DIM; c++) {
            mean += average[c] / DIM;
            square += average[c] * average[c] / DIM;
        }
        for (int c = 0; c < DIM; c++) {
            double wanted = (average[c] - mean) / sqrt(square - mean * mean + 1e-6);
            assert_true(fabs(wanted - (double)pooled[b * DIM + c]) < 2e-5);
        }
    }
    staged_close(&s);
    free(x.data);
    free(block.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* ---- full size ---- */

static void compare_full(const char *id, const char *model, const trn_setting *settings, size_t count,
                         const trn_band_offer *bands, size_t band_count, int stages)
{
    trn_error err = {0};
    trn_features features;
    const char *wish = getenv("TERRANE_TEST_FULL");
    if (!wish || strcmp(wish, "1") != 0 || !test_golden_has(id)) skip();
    trn_encoder *encoder = make_encoder(model, settings, count);
    trn_weights *weights = open_weights(NULL);
    choose(encoder, bands, band_count);
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    test_tensor x = test_golden_input(id, "x");
    staged s = build_stages(encoder, shape_of(&x), &as_is_mean, &features);
    trn_named_data input = {"x", x.data};
    staged_run_device(&s, &input, 1);
    assert_int_equal(compare_stages(id, &s, 2e-5), stages);
    staged_close(&s);
    free(x.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static const trn_band_offer nine_bands[] = {{"red", 0},      {"green", 0},    {"blue", 0},
                                            {"rededge1", 0}, {"rededge2", 0}, {"rededge3", 0},
                                            {"nir", 0},      {"swir16", 0},   {"swir22", 0}};
static const trn_setting with_fc_norm[] = {{"fc_norm", "true"}};

static void test_full_rgb(void **state)
{
    (void)state;
    compare_full("full_dofa_base_rgb", "dofa-base", with_fc_norm, 1, nine_bands, 3, 19);
}

static void test_full_nine(void **state)
{
    (void)state;
    compare_full("full_dofa_base_s2_9", "dofa-base", with_fc_norm, 1, nine_bands, 9, 19);
}

static void test_full_v2(void **state)
{
    (void)state;
    compare_full("full_dofav2_base_s2_9", "dofa-v2-base", NULL, 0, nine_bands, 9, 19);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny),
        cmocka_unit_test(test_one_band),
        cmocka_unit_test(test_seven_bands),
        cmocka_unit_test(test_old_layout),
        cmocka_unit_test(test_cls),
        cmocka_unit_test(test_v2),
        cmocka_unit_test(test_clip),
        cmocka_unit_test(test_published_names),
        cmocka_unit_test(test_v2_features),
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_clip_average),
        cmocka_unit_test(test_position_resampling),
        cmocka_unit_test(test_other_sides),
        cmocka_unit_test(test_order_of_bands),
        cmocka_unit_test(test_kernel_is_made_once),
        cmocka_unit_test(test_wavelengths),
        cmocka_unit_test(test_band_errors),
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_unknown_statistics),
        cmocka_unit_test(test_wrong_checkpoints),
        cmocka_unit_test(test_class_token_without_norm),
        cmocka_unit_test(test_plain_pool_norm),
        cmocka_unit_test(test_full_rgb),
        cmocka_unit_test(test_full_nine),
        cmocka_unit_test(test_full_v2),
    };
    return cmocka_run_group_tests(tests, NULL, close_gpu);
}
