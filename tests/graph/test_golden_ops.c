/* Operators against the outputs and gradients of the original implementations, on the first device, with
 * buffers reached by address and as storage buffers, with weights as inputs and as constants. */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "graph.h"

enum { MAX_TENSORS = 16 };

/* A golden case being built: its inputs as tensors of the graph. */
typedef struct golden {
    const char *id;
    trn_graph *graph;
    int count;
    const char *names[MAX_TENSORS];
    test_tensor data[MAX_TENSORS];
    trn_tensor *tensors[MAX_TENSORS];
    trn_tensor *attn; /* what the loss sees beside y; NULL in most cases */
} golden;

typedef struct golden_case {
    const char *id; /* without "ops/" */
    trn_tensor *(*build)(golden *g);
    double tolerance, gradient_tolerance; /* 0: 1e-5, 2e-5 */
} golden_case;

static trn_tensor *get(golden *g, const char *name)
{
    for (int i = 0; i < g->count; i++) {
        if (!strcmp(g->names[i], name)) return g->tensors[i];
    }
    fail_msg("%s has no input '%s'", g->id, name);
    return NULL;
}

static bool is(const golden *g, const char *part)
{
    return strstr(g->id, part) != NULL;
}

/* ---- the cases ---- */

static trn_tensor *linear_of(golden *g, trn_tensor *x, const char *w, const char *b)
{
    return trn_linear(g->graph, x, get(g, w), b ? get(g, b) : NULL);
}

static trn_tensor *build_linear(golden *g)
{
    return linear_of(g, get(g, "x"), "w", "b");
}

static trn_tensor *build_layer_norm(golden *g)
{
    float eps = is(g, "1e-5") ? 1e-5f : 1e-6f;
    return trn_layer_norm(g->graph, get(g, "x"), get(g, "w"), get(g, "b"), eps);
}

static trn_tensor *build_unary(golden *g)
{
    const char *name = g->id + strlen("ops/");
    return trn_unary(g->graph, strcmp(name, "gelu_erf") ? name : "gelu", get(g, "x"));
}

static trn_tensor *build_softmax(golden *g)
{
    return is(g, "log_") ? trn_log_softmax(g->graph, get(g, "x")) : trn_softmax(g->graph, get(g, "x"));
}

/* Part `which` of qkv [B,N,3*H*D] as [B,H,N,D]. */
static trn_tensor *heads_of(golden *g, trn_tensor *qkv, int heads, int which)
{
    int64_t b = trn_tensor_dim(qkv, 0), n = trn_tensor_dim(qkv, 1), c = trn_tensor_dim(qkv, 2) / 3;
    trn_tensor *part = trn_slice(g->graph, qkv, 2, which * c, c);
    part = trn_reshape(g->graph, part, TRN_SHAPE(b, n, heads, c / heads));
    return trn_permute(g->graph, part, (int[]){0, 2, 1, 3});
}

static trn_tensor *build_mhsa(golden *g)
{
    trn_tensor *qkv = linear_of(g, get(g, "x"), "wqkv", "bqkv");
    trn_tensor *q = heads_of(g, qkv, 4, 0), *k = heads_of(g, qkv, 4, 1);
    float scale = (float)(1 / sqrt((double)trn_tensor_dim(q, -1)));
    g->attn = trn_softmax(g->graph, trn_affine(g->graph, trn_matmul(g->graph, q, k, false, true), scale, 0));
    trn_output_add(g->graph, "attn", g->attn);
    return linear_of(g, trn_self_attention(g->graph, qkv, 4, NULL), "wo", "bo");
}

/* q, k, v are [B,H,N,D] */
static trn_tensor *build_sdpa(golden *g)
{
    trn_tensor *q = get(g, "q"), *k = get(g, "k"), *v = get(g, "v");
    int64_t heads = trn_tensor_dim(q, 1), queries = trn_tensor_dim(q, 2), size = trn_tensor_dim(q, 3);
    int64_t keys = trn_tensor_dim(k, 2);
    trn_attention_desc desc = {
        .outer = (int)trn_tensor_dim(q, 0),
        .windows = 1,
        .heads = (int)heads,
        .queries = (int)queries,
        .keys = (int)keys,
        .head_size = (int)size,
        .q = {.outer = heads * queries * size, .head = queries * size, .row = size},
        .k = {.outer = heads * keys * size, .head = keys * size, .row = size},
        .out_shape = *trn_tensor_shape(q),
    };
    desc.v = desc.k;
    desc.out = desc.q;
    return trn_attention(g->graph, q, k, v, is(g, "masked") ? get(g, "mask") : NULL, &desc);
}

static trn_tensor *build_mask_units(golden *g)
{
    bool global = is(g, "global");
    int heads = global ? 4 : 2, pool = is(g, "nopool") ? 1 : 4;
    int windows = global ? 1 : (int)trn_tensor_dim(get(g, "x"), 1) / (pool * 4);
    trn_tensor *qkv = linear_of(g, get(g, "x"), "qkv_w", "qkv_b"), *y;
    int64_t channels = trn_tensor_dim(qkv, 2) / 3;
    if (pool > 1)
        y = trn_pooled_unit_attention(g->graph, trn_slice(g->graph, qkv, 2, 0, channels),
                                      trn_slice(g->graph, qkv, 2, channels, 2 * channels), heads, windows,
                                      pool);
    else
        y = trn_mask_unit_attention(g->graph, qkv, heads, windows);
    return linear_of(g, y, "proj_w", "proj_b");
}

static trn_tensor *build_qpool(golden *g)
{
    trn_tensor *x = trn_reshape(g->graph, get(g, "x"), TRN_SHAPE(2, 4, 4, 6));
    return trn_reduce(g->graph, x, 1, TRN_REDUCE_MAX, false);
}

static trn_tensor *build_conv2d(golden *g)
{
    trn_conv_desc desc = {.stride = {1, 1, 1}};
    int stride = is(g, "3x3") ? 1 : is(g, "dofa") ? 8 : is(g, "hiera") ? 4 : 16;
    int padding = is(g, "hiera") ? 3 : is(g, "patch16") ? 0 : 1;
    for (int i = 1; i < 3; i++) {
        desc.stride[i] = stride;
        desc.padding[i] = padding;
    }
    return trn_conv2d(g->graph, get(g, "x"), get(g, "w"), get(g, "b"), &desc);
}

static trn_tensor *build_conv3d(golden *g)
{
    trn_conv_desc desc = {.stride = {is(g, "2x8x8") ? 2 : 1, 8, 8}};
    return trn_conv3d(g->graph, get(g, "x"), get(g, "w"), get(g, "b"), &desc);
}

/* Patch embedding as tokens, back to the image that the case has. */
static trn_tensor *build_conv_tokens(golden *g)
{
    trn_conv_desc desc = {.stride = {1, 16, 16}};
    trn_tensor *tokens = trn_conv_tokens(g->graph, get(g, "x"), get(g, "w"), get(g, "b"), &desc);
    return trn_reshape(g->graph, trn_permute(g->graph, tokens, (int[]){0, 2, 1}), TRN_SHAPE(2, 20, 2, 3));
}

static trn_tensor *build_conv_transpose(golden *g)
{
    trn_conv_desc desc = {.stride = {1, 2, 2}};
    return trn_conv_transpose2d(g->graph, get(g, "x"), get(g, "w"), get(g, "b"), &desc);
}

static trn_tensor *build_resize(golden *g)
{
    trn_resize_desc desc = {.mode = is(g, "bicubic")   ? TRN_RESIZE_BICUBIC
                                    : is(g, "nearest") ? TRN_RESIZE_NEAREST
                                                       : TRN_RESIZE_BILINEAR};
    desc.align_corners = is(g, "ac_true");
    desc.antialias = is(g, "antialias");
    test_tensor y = test_golden_output(g->id, "y");
    free(y.data);
    return trn_resize2d(g->graph, get(g, "x"), 2, (int)y.shape[2], (int)y.shape[3], &desc);
}

/* The same through axis 1 of [B*C,h,w,1], and the scale said outright. */
static trn_tensor *build_resize_scaled(golden *g)
{
    trn_resize_desc desc = {.mode = TRN_RESIZE_BICUBIC, .scale = {7.0 / 10, 7.0 / 12}};
    for (int i = 0; i < 2; i++)
        desc.offset[i] = 0.5 * desc.scale[i] - 0.5;
    trn_tensor *x = trn_reshape(g->graph, get(g, "x"), TRN_SHAPE(3, 7, 7, 1));
    trn_tensor *y = trn_resize2d(g->graph, x, 1, 10, 12, &desc);
    return trn_reshape(g->graph, y, TRN_SHAPE(1, 3, 10, 12));
}

static trn_tensor *build_adaptive(golden *g)
{
    int size = atoi(strrchr(g->id, '_') + 1);
    return trn_adaptive_avg_pool2d(g->graph, get(g, "x"), 2, size, size);
}

static trn_tensor *build_batch_norm(golden *g)
{
    return trn_batch_norm_eval(g->graph, get(g, "x"), get(g, "rm"), get(g, "rv"), get(g, "w"), get(g, "b"),
                               1e-5f);
}

static trn_tensor *build_l2(golden *g)
{
    return trn_l2_normalize(g->graph, get(g, "x"), 1e-12f);
}

static trn_tensor *build_film(golden *g)
{
    trn_tensor *both = linear_of(g, get(g, "c"), "W", "d"), *x = get(g, "x");
    trn_shape shape = is(g, "nchw") ? TRN_SHAPE(2, 8, 1, 1) : TRN_SHAPE(2, 1, 8);
    trn_tensor *gain = trn_reshape(g->graph, trn_slice(g->graph, both, 1, 0, 8), shape);
    trn_tensor *shift = trn_reshape(g->graph, trn_slice(g->graph, both, 1, 8, 8), shape);
    if (!is(g, "plain")) gain = trn_affine(g->graph, gain, 1, 1);
    return trn_add(g->graph, trn_mul(g->graph, x, gain), shift);
}

static trn_tensor *build_encoder_layer(golden *g)
{
    trn_graph *graph = g->graph;
    trn_tensor *x = trn_reshape(graph, get(g, "x"), TRN_SHAPE(1, 9, 16));
    trn_tensor *qkv = linear_of(g, x, "self_attn__in_proj_weight", "self_attn__in_proj_bias");
    trn_tensor *mixed = trn_self_attention(graph, qkv, 4, NULL);
    mixed = linear_of(g, mixed, "self_attn__out_proj__weight", "self_attn__out_proj__bias");
    x = trn_layer_norm(graph, trn_add(graph, x, mixed), get(g, "norm1__weight"), get(g, "norm1__bias"),
                       1e-5f);
    trn_tensor *wide = trn_unary(graph, "gelu", linear_of(g, x, "linear1__weight", "linear1__bias"));
    x = trn_add(graph, x, linear_of(g, wide, "linear2__weight", "linear2__bias"));
    x = trn_layer_norm(graph, x, get(g, "norm2__weight"), get(g, "norm2__bias"), 1e-5f);
    return trn_reshape(graph, x, TRN_SHAPE(9, 16));
}

static const golden_case cases[] = {
    {"linear", build_linear, 0, 0},
    {"layernorm_eps1e-5", build_layer_norm, 0, 0},
    {"layernorm_eps1e-6", build_layer_norm, 0, 0},
    {"layernorm_offset", build_layer_norm, 7e-5, 8e-5}, /* their own noise: mean 100, spread 0.05 */
    {"gelu_erf", build_unary, 0, 0},
    {"gelu_tanh", build_unary, 0, 0},
    {"relu", build_unary, 0, 0},
    {"silu", build_unary, 0, 0},
    {"softmax", build_softmax, 0, 0},
    {"softmax_large", build_softmax, 2e-5, 0},
    {"log_softmax", build_softmax, 0, 0},
    {"mhsa", build_mhsa, 0, 0},
    {"sdpa_masked", build_sdpa, 0, 0},
    {"sdpa_qk_lengths", build_sdpa, 0, 0},
    {"hiera_mua_pool", build_mask_units, 0, 0},
    {"hiera_mua_nopool", build_mask_units, 0, 0},
    {"hiera_global_pool", build_mask_units, 0, 0},
    {"qpool_max", build_qpool, 0, 0},
    {"conv2d_patch16", build_conv2d, 0, 0},
    {"conv2d_patch16", build_conv_tokens, 0, 0},
    {"conv2d_hiera", build_conv2d, 0, 0},
    {"conv2d_dofa", build_conv2d, 0, 0},
    {"conv2d_3x3", build_conv2d, 0, 0},
    {"conv3d_1x16x16", build_conv3d, 0, 0},
    {"conv3d_2x8x8", build_conv3d, 0, 0},
    {"conv_transpose2d_2x2", build_conv_transpose, 0, 0},
    {"bilinear_x2", build_resize, 0, 0},
    {"bilinear_to_13x9", build_resize, 0, 0},
    {"bilinear_down", build_resize, 0, 0},
    {"bicubic_ac_true", build_resize, 0, 0},
    {"bicubic_ac_false", build_resize, 0, 0},
    {"bicubic_ac_false", build_resize_scaled, 0, 0},
    {"bicubic_antialias_up", build_resize, 0, 0},
    {"bicubic_antialias_down", build_resize, 0, 0},
    {"nearest_up", build_resize, 0, 0},
    {"adaptive_avg_pool_1", build_adaptive, 0, 0},
    {"adaptive_avg_pool_2", build_adaptive, 0, 0},
    {"adaptive_avg_pool_3", build_adaptive, 0, 0},
    {"adaptive_avg_pool_6", build_adaptive, 0, 0},
    {"batchnorm_eval", build_batch_norm, 0, 0},
    {"l2_normalize", build_l2, 0, 0},
    {"film_1plus", build_film, 0, 0},
    {"film_plain", build_film, 0, 0},
    {"film_nchw", build_film, 0, 0},
    {"transformer_encoder_layer_postnorm", build_encoder_layer, 0, 0},
};

/* ---- running them ---- */

static void load_inputs(golden *g)
{
    const cJSON *entry, *inputs = cJSON_GetObjectItem(test_golden_case(g->id), "inputs");
    cJSON_ArrayForEach (entry, inputs) {
        assert_true(g->count < MAX_TENSORS - 1);
        g->names[g->count] = cJSON_GetStringValue(cJSON_GetObjectItem(entry, "name"));
        g->data[g->count] = test_golden_input(g->id, g->names[g->count]);
        g->count++;
    }
}

/* Inputs become inputs of the graph; with `constants` only the first does. */
static void make_tensors(golden *g, bool constants)
{
    for (int i = 0; i < g->count; i++) {
        trn_shape shape = {.ndim = g->data[i].ndim};
        memcpy(shape.dim, g->data[i].shape, (size_t)shape.ndim * sizeof *shape.dim);
        if (constants && i > 0)
            g->tensors[i] = trn_constant(g->graph, g->names[i], shape, g->data[i].data);
        else
            g->tensors[i] = trn_input(g->graph, g->names[i], TRN_F32, shape);
    }
}

static void set_inputs(golden *g, trn_exec *exec, bool constants)
{
    trn_error err = {0};
    for (int i = 0; i < (constants ? 1 : g->count); i++)
        assert_trn_ok(trn_exec_set(exec, g->names[i], g->data[i].data, &err), err);
}

static trn_tensor *weighted_sum(golden *g, trn_tensor *x, const char *weights)
{
    trn_tensor *seed = trn_input(g->graph, weights, TRN_F32, *trn_tensor_shape(x));
    trn_tensor *flat = trn_reshape(g->graph, trn_mul(g->graph, x, seed), TRN_SHAPE(-1));
    return trn_reduce(g->graph, flat, 0, TRN_REDUCE_SUM, true);
}

/* Adds the gradients that the case has as outputs of the graph; false when it has none. */
static bool add_gradients(golden *g, trn_tensor *y)
{
    const cJSON *entry, *outputs = cJSON_GetObjectItem(test_golden_case(g->id), "outputs");
    trn_tensor *wrt[MAX_TENSORS], *grads[MAX_TENSORS];
    const char *names[MAX_TENSORS];
    trn_error err = {0};
    int count = 0;
    cJSON_ArrayForEach (entry, outputs) {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(entry, "name"));
        if (!trn_starts_with(name, "grad_")) continue;
        names[count] = name;
        wrt[count++] = get(g, name + strlen("grad_"));
    }
    if (!count) return false;
    trn_tensor *loss = weighted_sum(g, y, "seed y");
    if (g->attn) loss = trn_add(g->graph, loss, weighted_sum(g, g->attn, "seed attn"));
    assert_trn_ok(trn_gradients(g->graph, loss, NULL, wrt, count, grads, &err), err);
    for (int i = 0; i < count; i++) {
        assert_non_null(grads[i]);
        trn_output_add(g->graph, names[i], grads[i]);
    }
    return true;
}

static void set_seeds(golden *g, trn_exec *exec)
{
    trn_error err = {0};
    const cJSON *entry, *names = cJSON_GetObjectItem(test_golden_case(g->id), "grad_seed");
    char input[64];
    cJSON_ArrayForEach (entry, names) {
        test_tensor y = test_golden_output(g->id, entry->string);
        float *seed = test_hash_values(cJSON_GetStringValue(entry), y.count, 1, 0);
        snprintf(input, sizeof input, "seed %s", entry->string);
        assert_trn_ok(trn_exec_set(exec, input, seed, &err), err);
        free(seed);
        free(y.data);
    }
}

static void compare_outputs(const golden *g, const golden_case *c, trn_exec *exec, bool gradients)
{
    const cJSON *entry, *outputs = cJSON_GetObjectItem(test_golden_case(g->id), "outputs");
    trn_error err = {0};
    cJSON_ArrayForEach (entry, outputs) {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(entry, "name"));
        bool gradient = trn_starts_with(name, "grad_");
        bool value = !strcmp(name, "y") || (g->attn && !strcmp(name, "attn"));
        if (!value && !(gradient && gradients)) continue;
        test_tensor expected = test_golden_output(g->id, name);
        float *actual = malloc((size_t)expected.count * sizeof *actual);
        assert_non_null(actual);
        assert_trn_ok(trn_exec_get(exec, name, actual, &err), err);
        double wanted = gradient ? c->gradient_tolerance : c->tolerance;
        test_compare_golden(g->id, name, actual, expected.count,
                            wanted > 0 ? wanted
                            : gradient ? 2e-5
                                       : 1e-5);
        free(actual);
        free(expected.data);
    }
}

static void run_case(trn_gpu *gpu, const golden_case *c, bool constants)
{
    char id[128];
    trn_error err = {0};
    snprintf(id, sizeof id, "ops/%s", c->id);
    golden g = {.id = id, .graph = trn_graph_create()};
    trn_exec *exec;
    assert_non_null(g.graph);
    load_inputs(&g);
    make_tensors(&g, constants);
    trn_tensor *y = c->build(&g);
    assert_trn_ok(trn_graph_status(g.graph, &err), err);
    trn_output_add(g.graph, "y", y);
    bool gradients = !constants && add_gradients(&g, y);
    assert_trn_ok(trn_compile(g.graph, gpu, &(trn_compile_options){.poison = true}, &exec, &err), err);
    set_inputs(&g, exec, constants);
    if (gradients) set_seeds(&g, exec);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    compare_outputs(&g, c, exec, gradients);
    trn_exec_destroy(exec);
    trn_graph_destroy(g.graph);
    for (int i = 0; i < g.count; i++)
        free(g.data[i].data);
}

/* Skips the test, and says so, on a driver without addresses; what it has instead is another test's. */
static trn_gpu *open_gpu(trn_access access)
{
    trn_gpu *gpu;
    trn_error err = {0};
    trn_status status = trn_gpu_open(&(trn_gpu_options){.access = access}, &gpu, &err);
    if (status == TRN_ERR_UNSUPPORTED && access == TRN_ACCESS_ADDRESS) {
        printf("skipped: %s\n", err.message);
        skip();
    }
    assert_trn_ok(status, err);
    return gpu;
}

static void run_all(trn_access access, bool constants)
{
    trn_gpu *gpu = open_gpu(access);
    const char *only = getenv("TERRANE_TEST_CASE"); /* part of a case's name, for looking into one */
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        if (!only || strstr(cases[i].id, only)) run_case(gpu, &cases[i], constants);
    }
    trn_gpu_close(gpu);
}

static void test_by_address(void **state)
{
    (void)state;
    run_all(TRN_ACCESS_ADDRESS, false);
}

static void test_by_storage_buffer(void **state)
{
    (void)state;
    run_all(TRN_ACCESS_STORAGE, false);
}

static void test_constant_weights(void **state)
{
    (void)state;
    run_all(TRN_ACCESS_AUTO, true);
}

/* ---- Hiera's token order ---- */

/* x [h,w] -> [h*w], `levels` times split into 2x2 cells whose position in the cell comes first. */
static trn_tensor *unroll(trn_graph *graph, trn_tensor *x, int64_t h, int64_t w, int levels)
{
    int64_t batch = 1;
    for (int i = 0; i < levels; i++, batch *= 4, h /= 2, w /= 2) {
        x = trn_reshape(graph, x, TRN_SHAPE(batch, h / 2, 2, w / 2, 2));
        x = trn_permute(graph, x, (int[]){0, 2, 4, 1, 3});
    }
    return trn_reshape(graph, x, TRN_SHAPE(-1));
}

static int32_t *golden_index(const char *name, int64_t *count)
{
    test_tensor map = test_golden_output("ops/hiera_unroll", name);
    int32_t *values = malloc((size_t)map.count * sizeof *values);
    assert_non_null(values);
    for (int64_t i = 0; i < map.count; i++)
        values[i] = (int32_t)map.data[i];
    *count = map.count;
    free(map.data);
    return values;
}

/* Unrolling by permutes picks what the original's map picks, and the reroll map puts it back. */
static void check_unroll(trn_gpu *gpu, int64_t h, int64_t w, int level)
{
    char name[64];
    int64_t count, h_now = h >> level, w_now = w >> level;
    trn_error err = {0};
    trn_exec *exec;
    trn_graph *graph = trn_graph_create();
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(h_now, w_now));
    trn_tensor *unrolled = unroll(graph, x, h_now, w_now, 3 - level);
    trn_output_add(graph, "unrolled", unrolled);
    snprintf(name, sizeof name, "reroll%d_%dx%d", level, (int)h, (int)w);
    int32_t *reroll = golden_index(name, &count);
    assert_int_equal(count, h_now * w_now);
    trn_tensor *index = trn_constant_int(graph, "index", TRN_SHAPE(count), reroll);
    trn_output_add(graph, "rerolled", trn_gather(graph, unrolled, 0, index));
    assert_trn_ok(trn_compile(graph, gpu, NULL, &exec, &err), err);
    float *values = malloc((size_t)count * sizeof *values), *got = malloc((size_t)count * sizeof *got);
    assert_non_null(values);
    assert_non_null(got);
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)i;
    assert_trn_ok(trn_exec_set(exec, "x", values, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    assert_trn_ok(trn_exec_get(exec, "rerolled", got, &err), err);
    for (int64_t i = 0; i < count; i++)
        assert_int_equal((int)got[i], i);
    if (level == 0) {
        snprintf(name, sizeof name, "unroll_%dx%d", (int)h, (int)w);
        int32_t *map = golden_index(name, &count);
        assert_trn_ok(trn_exec_get(exec, "unrolled", got, &err), err);
        for (int64_t i = 0; i < count; i++)
            assert_int_equal((int)got[i], map[i]);
        free(map);
    }
    free(values);
    free(got);
    free(reroll);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

static void test_unroll(void **state)
{
    (void)state;
    static const int sizes[4][2] = {{8, 8}, {8, 16}, {16, 24}, {56, 56}};
    trn_gpu *gpu = open_gpu(TRN_ACCESS_AUTO);
    for (int i = 0; i < 4; i++) {
        for (int level = 0; level <= 3; level++)
            check_unroll(gpu, sizes[i][0], sizes[i][1], level);
    }
    trn_gpu_close(gpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_address),
        cmocka_unit_test(test_by_storage_buffer),
        cmocka_unit_test(test_constant_weights),
        cmocka_unit_test(test_unroll),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
