/* Plain vision transformers against the outputs of the originals, and their variants against one another. */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "running.h"

#define TINY                                                                                                 \
    {"img_size", "32"}, {"patch", "8"}, {"dim", "48"}, {"depth", "3"},                                       \
    {                                                                                                        \
        "heads", "4"                                                                                         \
    }

static const trn_encode_options as_is_mean = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_MEAN};
static const trn_encode_options as_is_cls = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_CLS};
static const trn_encode_options as_is_dense = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_DENSE};

static staged build_stages(trn_encoder *encoder, const test_tensor *x, const trn_encode_options *options)
{
    staged s = {.graph = trn_graph_create()};
    trn_error err = {0};
    trn_features features;
    trn_tensor *image =
        trn_input(s.graph, "x", TRN_F32, TRN_SHAPE(x->shape[0], x->shape[1], x->shape[2], x->shape[3]));
    assert_trn_ok(trn_encoder_build_stages(encoder, s.graph, image, options, &features, staged_add, &s, &err),
                  err);
    return s;
}

/* The classifier of a golden case on pooled features [B,48]. */
static void compare_head(const char *id, const staged *s, trn_weights *weights)
{
    enum { CLASSES = 7, DIM = 48, BATCH = 2 };
    float w[CLASSES * DIM], b[CLASSES], out[BATCH * CLASSES];
    const float *pooled = staged_get(s, "pooled");
    trn_error err = {0};
    assert_trn_ok(trn_weights_read(weights, "head.weight", (int64_t[]){CLASSES, DIM}, 2, w, &err), err);
    assert_trn_ok(trn_weights_read(weights, "head.bias", (int64_t[]){CLASSES}, 1, b, &err), err);
    for (int i = 0; i < BATCH * CLASSES; i++) {
        double sum = (double)b[i % CLASSES];
        for (int k = 0; k < DIM; k++)
            sum += (double)pooled[i / CLASSES * DIM + k] * (double)w[i % CLASSES * DIM + k];
        out[i] = (float)sum;
    }
    test_compare_golden(id, "head_out", out, BATCH * CLASSES, 1e-5);
}

static void compare_tiny(const char *id, const char *model, const char *file, const trn_setting *settings,
                         size_t count, const trn_encode_options *options)
{
    trn_error err = {0};
    trn_text report = {0};
    trn_encoder *encoder = make_encoder(model, settings, count);
    trn_weights *weights = open_weights(file ? test_golden_path(file) : NULL);
    assert_trn_ok(trn_encoder_load(encoder, weights, &report, &err), err);
    assert_non_null(strstr(trn_text_get(&report), model));
    test_tensor x = test_golden_input(id, "x");
    staged s = build_stages(encoder, &x, options);
    trn_named_data input = {"x", x.data};
    for (int device = 0; device < 2; device++) {
        if (device)
            staged_run_device(&s, &input, 1);
        else
            staged_run_reference(&s, &input, 1);
        for (int i = 0; i < s.count; i++)
            test_compare_golden(id, s.names[i], s.values[i], s.sizes[i], 1e-5);
        compare_head(id, &s, weights);
    }
    assert_int_equal(s.count, 2 + 3 + 2);
    staged_close(&s);
    free(x.data);
    trn_text_free(&report);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void test_tiny_mae(void **state)
{
    (void)state;
    const trn_setting settings[] = {TINY}, given[] = {TINY, {"fc_norm", "true"}};
    compare_tiny("vit_tiny_mae", "mae-vit-base", "vit_tiny_mae/vit_tiny_mae.safetensors", settings,
                 TRN_COUNT(settings), &as_is_mean);
    compare_tiny("vit_tiny_mae", "mae-vit-base", "vit_tiny_mae/vit_tiny_mae.pt", settings,
                 TRN_COUNT(settings), &as_is_mean);
    compare_tiny("vit_tiny_mae", "mae-vit-base", NULL, given, TRN_COUNT(given), &as_is_mean);
}

static void test_tiny_token(void **state)
{
    (void)state;
    const trn_setting settings[] = {TINY};
    compare_tiny("vit_tiny_token", "mae-vit-base", NULL, settings, TRN_COUNT(settings), &as_is_cls);
}

static void test_tiny_dinov2(void **state)
{
    (void)state;
    const trn_setting settings[] = {TINY};
    compare_tiny("vit_tiny_dinov2", "dinov2-small", "vit_tiny_dinov2/vit_tiny_dinov2.safetensors", settings,
                 TRN_COUNT(settings), &as_is_cls);
    compare_tiny("vit_tiny_dinov2", "dinov2-small", "vit_tiny_dinov2/vit_tiny_dinov2.pt", settings,
                 TRN_COUNT(settings), &as_is_cls);
}

static void test_tiny_registers(void **state)
{
    (void)state;
    if (!test_golden_has("vit_tiny_dinov2_reg4")) skip();
    const trn_setting settings[] = {TINY, {"names", "timm"}};
    compare_tiny("vit_tiny_dinov2_reg4", "dinov2-small-reg", NULL, settings, TRN_COUNT(settings), &as_is_cls);
}

static void test_position_resampling(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t h, w;
    } cases[] = {{"pos_7x5", 7, 5}, {"pos_3x3", 3, 3}};
    trn_weights *weights = open_weights(NULL);
    float table[17 * 48];
    trn_error err = {0};
    assert_trn_ok(trn_weights_read(weights, "pos_embed", (int64_t[]){1, 17, 48}, 3, table, &err), err);
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        staged s = {.graph = trn_graph_create()};
        trn_tensor *positions = trn_constant(s.graph, "table", TRN_SHAPE(1, 17, 48), table);
        trn_grid_size from = {4, 4}, to = {cases[i].h, cases[i].w};
        staged_add(&s, cases[i].name,
                   trn_resize_positions(s.graph, positions, 1, from, to, TRN_POSITIONS_TIMM));
        staged_run_reference(&s, NULL, 0);
        test_compare_golden("vit_posresample", cases[i].name, s.values[0], s.sizes[0], 1e-6);
        staged_run_device(&s, NULL, 0);
        test_compare_golden("vit_posresample", cases[i].name, s.values[0], s.sizes[0], 1e-5);
        staged_close(&s);
    }
    trn_weights_close(weights);
}

static void test_full_base(void **state)
{
    (void)state;
    const char *id = "full_vit_base_patch16_224_mae";
    if (!test_golden_has(id)) skip();
    const trn_setting settings[] = {{"fc_norm", "true"}};
    trn_error err = {0};
    trn_encoder *encoder = make_encoder("mae-vit-base", settings, 1);
    trn_weights *weights = open_weights(NULL);
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    test_tensor x = test_golden_input(id, "x");
    staged s = build_stages(encoder, &x, &as_is_mean);
    trn_named_data input = {"x", x.data};
    staged_run_device(&s, &input, 1);
    for (int i = 0; i < s.count; i++)
        test_compare_golden(id, s.names[i], s.values[i], s.sizes[i], 2e-5);
    staged_close(&s);
    free(x.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* ---- checkpoints of two conventions are the same model ---- */

enum { DIM = 16, CELLS = 4, REGISTERS = 2, HIDDEN = 48, MAX_TENSORS = 64 };

typedef struct checkpoint {
    trn_weight_data tensors[MAX_TENSORS];
    size_t count;
    char names[MAX_TENSORS][64];
} checkpoint;

static void put(checkpoint *c, const char *name, trn_shape shape, float *data)
{
    trn_weight_data *t = &c->tensors[c->count];
    assert_true(c->count < MAX_TENSORS);
    snprintf(c->names[c->count], sizeof c->names[0], "%s", name);
    t->name = c->names[c->count++];
    t->ndim = shape.ndim;
    memcpy(t->shape, shape.dim, (size_t)shape.ndim * sizeof *shape.dim);
    t->data = data;
}

static void put_made_up(checkpoint *c, const char *name, const char *alike, trn_shape shape)
{
    put(c, name, shape, test_hash_values(alike, trn_shape_count(&shape), 0.25, strstr(name, "norm") ? 1 : 0));
}

static void put_block(checkpoint *c, const char *up, const char *down)
{
    put_made_up(c, "blocks.0.norm1.weight", "a", TRN_SHAPE(DIM));
    put_made_up(c, "blocks.0.norm1.bias", "b", TRN_SHAPE(DIM));
    put_made_up(c, "blocks.0.attn.qkv.weight", "c", TRN_SHAPE(3 * DIM, DIM));
    put_made_up(c, "blocks.0.attn.qkv.bias", "d", TRN_SHAPE(3 * DIM));
    put_made_up(c, "blocks.0.attn.proj.weight", "e", TRN_SHAPE(DIM, DIM));
    put_made_up(c, "blocks.0.attn.proj.bias", "f", TRN_SHAPE(DIM));
    put_made_up(c, "blocks.0.ls1.gamma", "g", TRN_SHAPE(DIM));
    put_made_up(c, "blocks.0.norm2.weight", "h", TRN_SHAPE(DIM));
    put_made_up(c, "blocks.0.norm2.bias", "i", TRN_SHAPE(DIM));
    put_made_up(c, "blocks.0.ls2.gamma", "j", TRN_SHAPE(DIM));
    char name[64];
    snprintf(name, sizeof name, "blocks.0.mlp.%s.weight", up);
    put_made_up(c, name, "k", TRN_SHAPE(2 * HIDDEN, DIM));
    snprintf(name, sizeof name, "blocks.0.mlp.%s.bias", up);
    put_made_up(c, name, "l", TRN_SHAPE(2 * HIDDEN));
    snprintf(name, sizeof name, "blocks.0.mlp.%s.weight", down);
    put_made_up(c, name, "m", TRN_SHAPE(DIM, HIDDEN));
    snprintf(name, sizeof name, "blocks.0.mlp.%s.bias", down);
    put_made_up(c, name, "n", TRN_SHAPE(DIM));
}

/* Meta's file, or the same model as timm writes it: the class token's position added to the token. */
static char *write_checkpoint(const char *dir, bool timm)
{
    checkpoint c = {0};
    trn_error err = {0};
    float *cls = test_hash_values("cls", DIM, 0.5, 0);
    float *positions = test_hash_values("pos", (1 + CELLS * CELLS) * DIM, 0.5, 0);
    for (int i = 0; timm && i < DIM; i++)
        cls[i] += positions[i];
    if (timm) memmove(positions, positions + DIM, CELLS * CELLS * DIM * sizeof *positions);
    put(&c, "cls_token", TRN_SHAPE(1, 1, DIM), cls);
    put(&c, "pos_embed", TRN_SHAPE(1, CELLS * CELLS + !timm, DIM), positions);
    put_made_up(&c, timm ? "reg_token" : "register_tokens", "reg", TRN_SHAPE(1, REGISTERS, DIM));
    put_made_up(&c, "mask_token", "mask", TRN_SHAPE(1, DIM));
    put_made_up(&c, "patch_embed.proj.weight", "proj", TRN_SHAPE(DIM, 3, 4, 4));
    put_made_up(&c, "patch_embed.proj.bias", "bias", TRN_SHAPE(DIM));
    put_block(&c, timm ? "fc1" : "w12", timm ? "fc2" : "w3");
    put_made_up(&c, "norm.weight", "nw", TRN_SHAPE(DIM));
    put_made_up(&c, "norm.bias", "nb", TRN_SHAPE(DIM));
    for (size_t i = 0; timm && i < c.count; i++) { /* as a training checkpoint wraps it */
        char name[64];
        snprintf(name, sizeof name, "%s", c.names[i]);
        snprintf(c.names[i], sizeof c.names[i], "teacher.%.50s", name);
    }
    char *path = test_path(dir, timm ? "timm.safetensors" : "meta.safetensors");
    assert_trn_ok(trn_weights_write(path, c.tensors, c.count, NULL, &err), err);
    for (size_t i = 0; i < c.count; i++) {
        union {
            const float *in;
            void *out;
        } data = {.in = c.tensors[i].data};
        free(data.out);
    }
    return path;
}

static const trn_setting small_giant[] = {{"img_size", "16"}, {"patch", "4"},      {"dim", "16"},
                                          {"depth", "1"},     {"heads", "2"},      {"registers", "2"},
                                          {"swiglu", "true"}, {"mlp_ratio", "4.5"}};

/* Dense features [2,side/4,side/4,16] of a checkpoint by the references. */
static staged run_checkpoint(const char *path, int64_t side, const trn_setting *more)
{
    trn_setting settings[TRN_COUNT(small_giant) + 1];
    size_t count = TRN_COUNT(small_giant);
    memcpy(settings, small_giant, sizeof small_giant);
    if (more) settings[count++] = *more;
    trn_encoder *encoder = make_encoder("dinov2-giant", settings, count);
    trn_weights *weights = open_weights(path);
    trn_error err = {0};
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    test_tensor x = {.ndim = 4, .shape = {2, 3, side, side}, .count = 2 * 3 * side * side};
    x.data = test_hash_values("windows", x.count, 1.5, 0);
    staged s = build_stages(encoder, &x, &as_is_dense);
    trn_named_data input = {"x", x.data};
    staged_run_reference(&s, &input, 1);
    free(x.data);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
    return s;
}

static double final_difference(const staged *a, const staged *b)
{
    int i = staged_find(a, "final_tokens"), j = staged_find(b, "final_tokens");
    assert_int_equal(a->sizes[i], b->sizes[j]);
    return test_worst_error(a->values[i], b->values[j], a->sizes[i], largest(b->values[j], b->sizes[j]));
}

static void test_conventions_agree(void **state)
{
    (void)state;
    const char *dir = test_temp_dir();
    char *meta = write_checkpoint(dir, false), *timm = write_checkpoint(dir, true);
    for (int64_t side = 16; side <= 24; side += 8) {
        staged a = run_checkpoint(meta, side, NULL), b = run_checkpoint(timm, side, NULL);
        assert_true(final_difference(&a, &b) < 1e-6);
        staged_close(&a);
        staged_close(&b);
    }
    free(meta);
    free(timm);
}

/* Meta's resizing of positions differs from timm's, and only where something is resized. */
static void test_position_variants(void **state)
{
    (void)state;
    const trn_setting variant = {"pos_interpolation", "meta"};
    char *path = write_checkpoint(test_temp_dir(), false);
    for (int64_t side = 16; side <= 24; side += 8) {
        staged a = run_checkpoint(path, side, NULL), b = run_checkpoint(path, side, &variant);
        double difference = final_difference(&a, &b);
        if (side == 16)
            assert_true(difference <= 0);
        else
            assert_true(difference > 1e-3 && difference < 1);
        staged_close(&a);
        staged_close(&b);
    }
    free(path);
}

/* ---- pooling, layers, normalisation ---- */

static void test_pools(void **state)
{
    (void)state;
    enum { BATCH = 2, SIDE = 32, WIDTH = 48, TOKENS = 16 };
    const trn_setting settings[] = {TINY};
    trn_encoder *encoder = make_encoder("dinov2-small", settings, TRN_COUNT(settings));
    trn_weights *weights = open_weights(test_golden_path("vit_tiny_dinov2/vit_tiny_dinov2.safetensors"));
    trn_error err = {0};
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    staged s = {.graph = trn_graph_create()};
    trn_tensor *image = trn_input(s.graph, "x", TRN_F32, TRN_SHAPE(BATCH, 3, SIDE, SIDE));
    trn_features dense, mean;
    assert_trn_ok(trn_encoder_build(encoder, s.graph, image, &as_is_dense, &dense, &err), err);
    assert_trn_ok(trn_encoder_build(encoder, s.graph, image, &as_is_mean, &mean, &err), err);
    assert_int_equal(dense.grid_count, 1);
    assert_null(dense.pooled);
    assert_true(dense.stride[0] == 8 && dense.offset[0] == 0);
    assert_true(trn_shape_equal(trn_tensor_shape(dense.grids[0]), &TRN_SHAPE(BATCH, 4, 4, WIDTH)));
    staged_add(&s, "dense", dense.grids[0]);
    staged_add(&s, "mean", mean.pooled);
    float *x = test_hash_values("input/vit_tiny", BATCH * 3 * SIDE * SIDE, 1.5, 0);
    trn_named_data input = {"x", x};
    staged_run_reference(&s, &input, 1);
    const float *grid = staged_get(&s, "dense"), *pooled = staged_get(&s, "mean");
    test_tensor golden = test_golden_output("vit_tiny_dinov2", "final_tokens");
    for (int i = 0; i < BATCH * WIDTH; i++) {
        double sum = 0;
        for (int t = 0; t < TOKENS; t++) {
            double value = (double)grid[(i / WIDTH * TOKENS + t) * WIDTH + i % WIDTH];
            double wanted = (double)golden.data[(i / WIDTH * (TOKENS + 1) + 1 + t) * WIDTH + i % WIDTH];
            assert_true(fabs(value - wanted) < 1e-5 * golden.absmax);
            sum += value / TOKENS;
        }
        assert_true(fabs(sum - (double)pooled[i]) < 1e-5);
    }
    free(golden.data);
    free(x);
    staged_close(&s);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void test_out_indices(void **state)
{
    (void)state;
    const trn_setting settings[] = {TINY, {"out_indices", "1"}, {"norm", "none"}};
    trn_encoder *encoder = make_encoder("dinov2-small", settings, TRN_COUNT(settings));
    trn_weights *weights = open_weights(NULL);
    trn_error err = {0};
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    test_tensor x = test_golden_input("vit_tiny_dinov2", "x");
    staged s = build_stages(encoder, &x, &as_is_cls);
    trn_named_data input = {"x", x.data};
    staged_run_reference(&s, &input, 1);
    int last = staged_find(&s, "final_tokens");
    test_compare_golden("vit_tiny_dinov2", "block01", s.values[last], s.sizes[last], 1e-5);
    free(x.data);
    staged_close(&s);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* Bytes, with ImageNet's statistics, are what the model was trained on; a scale brings other numbers there.
 */
static void test_normalisation(void **state)
{
    (void)state;
    enum { COUNT = 3 * 32 * 32 };
    const trn_setting settings[] = {TINY};
    static const double mean[] = {0.485, 0.456, 0.406}, std[] = {0.229, 0.224, 0.225};
    static const float scale[] = {0.1f, 0.1f, 0.1f}, offset[] = {5, 5, 5};
    const trn_encode_options model = {
        .value_scale = scale, .value_offset = offset, .pool = TRN_FEATURES_MEAN};
    trn_encoder *encoder = make_encoder("mae-vit-base", settings, TRN_COUNT(settings));
    trn_weights *weights = open_weights(NULL);
    trn_error err = {0};
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    assert_int_equal(trn_encoder_get_spec(encoder)->unit, TRN_UNIT_BYTE);
    test_tensor stored = {.ndim = 4, .shape = {1, 3, 32, 32}, .count = COUNT}, normal = stored;
    stored.data = test_hash_values("bytes", COUNT, 1000, 1200);
    normal.data = malloc(COUNT * sizeof(float));
    for (int i = 0; i < COUNT; i++) {
        int c = i / (32 * 32);
        normal.data[i] = (float)((((double)stored.data[i] * 0.1 + 5) / 255 - mean[c]) / std[c]);
    }
    staged a = build_stages(encoder, &stored, &model), b = build_stages(encoder, &normal, &as_is_mean);
    trn_named_data input = {"x", stored.data};
    staged_run_device(&a, &input, 1);
    input.data = normal.data;
    staged_run_device(&b, &input, 1);
    assert_true(final_difference(&a, &b) < 2e-5);
    free(stored.data);
    free(normal.data);
    staged_close(&a);
    staged_close(&b);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny_mae),
        cmocka_unit_test(test_tiny_token),
        cmocka_unit_test(test_tiny_dinov2),
        cmocka_unit_test(test_tiny_registers),
        cmocka_unit_test(test_position_resampling),
        cmocka_unit_test(test_conventions_agree),
        cmocka_unit_test(test_position_variants),
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_out_indices),
        cmocka_unit_test(test_normalisation),
        cmocka_unit_test(test_full_base),
    };
    return cmocka_run_group_tests(tests, NULL, close_gpu);
}
