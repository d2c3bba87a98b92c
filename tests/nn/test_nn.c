/* Blocks against plain computations: names, biases, the gated MLP, separate attention projections, sine
 * tables. */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn.h"

enum { MAX_ASKED = 64 };

/* Parameters that are made up from their names, and a record of what was asked for. */
typedef struct source {
    char asked[MAX_ASKED][64];
    int64_t sizes[MAX_ASKED];
    int count;
    const char *present; /* the name that `has` knows */
} source;

static trn_status fill(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    (void)user, (void)err;
    float *values = test_hash_values(name, trn_shape_count(shape), 0.5, 0);
    memcpy(out, values, (size_t)trn_shape_count(shape) * sizeof *values);
    free(values);
    return TRN_OK;
}

static bool has(void *user, const char *name)
{
    const source *s = user;
    return s->present && !strcmp(s->present, name);
}

static void want(void *user, const char *name, const trn_shape *shape)
{
    source *s = user;
    assert_true(s->count < MAX_ASKED);
    snprintf(s->asked[s->count], sizeof s->asked[0], "%s", name);
    s->sizes[s->count++] = trn_shape_count(shape);
}

static bool was_asked(const source *s, const char *name, int64_t size)
{
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->asked[i], name)) return s->sizes[i] == size;
    return false;
}

/* Runs the graph by the references; [count] values of the output. */
static float *run(trn_graph *graph, trn_tensor *y, float *x)
{
    trn_error err = {0};
    trn_output_add(graph, "y", y);
    assert_trn_ok(trn_graph_status(graph, &err), err);
    float *out = malloc((size_t)trn_shape_count(trn_tensor_shape(y)) * sizeof *out);
    trn_named_data input = {"x", x}, output = {"y", out};
    assert_trn_ok(trn_reference_run(graph, &input, 1, &output, 1, &err), err);
    return out;
}

enum { TOKENS = 5, DIM = 8, HIDDEN = 12 };

/* y [n,out] = x w' + b with the made-up parameters of `name` */
static void linear(const char *name, const double *x, int n, int in, int out, double *y)
{
    char full[80];
    snprintf(full, sizeof full, "%s.weight", name);
    float *w = test_hash_values(full, in * out, 0.5, 0);
    snprintf(full, sizeof full, "%s.bias", name);
    float *b = test_hash_values(full, out, 0.5, 0);
    for (int i = 0; i < n * out; i++) {
        y[i] = (double)b[i % out];
        for (int k = 0; k < in; k++)
            y[i] += x[i / out * in + k] * (double)w[i % out * in + k];
    }
    free(w);
    free(b);
}

static void layer_norm(const char *name, const double *x, double eps, double *y)
{
    char full[80];
    snprintf(full, sizeof full, "%s.weight", name);
    float *w = test_hash_values(full, DIM, 0.5, 0);
    snprintf(full, sizeof full, "%s.bias", name);
    float *b = test_hash_values(full, DIM, 0.5, 0);
    for (int t = 0; t < TOKENS; t++) {
        double mean = 0, var = 0;
        for (int i = 0; i < DIM; i++)
            mean += x[t * DIM + i] / DIM;
        for (int i = 0; i < DIM; i++)
            var += (x[t * DIM + i] - mean) * (x[t * DIM + i] - mean) / DIM;
        for (int i = 0; i < DIM; i++)
            y[t * DIM + i] = (x[t * DIM + i] - mean) / sqrt(var + eps) * (double)w[i] + (double)b[i];
    }
    free(w);
    free(b);
}

static void attention(const double *x, int heads, const float *mask, double *y)
{
    double q[TOKENS * DIM], k[TOKENS * DIM], v[TOKENS * DIM], mixed[TOKENS * DIM] = {0};
    int size = DIM / heads;
    linear("b.attn.q", x, TOKENS, DIM, DIM, q);
    linear("b.attn.k", x, TOKENS, DIM, DIM, k);
    linear("b.attn.v", x, TOKENS, DIM, DIM, v);
    for (int i = 0; i < TOKENS * heads; i++) {
        int token = i / heads, first = i % heads * size;
        double p[TOKENS], total = 0;
        for (int j = 0; j < TOKENS; j++) {
            double dot = 0;
            for (int d = first; d < first + size; d++)
                dot += q[token * DIM + d] * k[j * DIM + d];
            p[j] = (double)mask[j] * exp(dot / sqrt(size));
            total += p[j];
        }
        for (int j = 0; j < TOKENS; j++)
            for (int d = first; d < first + size; d++)
                mixed[token * DIM + d] += p[j] / total * v[j * DIM + d];
    }
    linear("b.attn.proj", mixed, TOKENS, DIM, DIM, y);
}

static void scale_and_add(const char *name, const double *branch, double *x)
{
    float *gamma = test_hash_values(name, DIM, 0.5, 0);
    for (int i = 0; i < TOKENS * DIM; i++)
        x[i] += branch[i] * (double)gamma[i % DIM];
    free(gamma);
}

static void swiglu(const double *x, const char *up, const char *down, double *y)
{
    double both[TOKENS * 2 * HIDDEN], gated[TOKENS * HIDDEN];
    linear(up, x, TOKENS, DIM, 2 * HIDDEN, both);
    for (int i = 0; i < TOKENS * HIDDEN; i++) {
        double gate = both[i / HIDDEN * 2 * HIDDEN + i % HIDDEN];
        gated[i] = gate / (1 + exp(-gate)) * both[i / HIDDEN * 2 * HIDDEN + HIDDEN + i % HIDDEN];
    }
    linear(down, gated, TOKENS, HIDDEN, DIM, y);
}

/* A block with everything unusual in it. */
static void check_block(bool timm)
{
    static const float mask[TOKENS] = {1, 1, 0, 1, 1};
    source s = {.present = timm ? "b.mlp.fc1.weight" : NULL};
    const trn_parameters parameters = {fill, has, &s, want};
    trn_graph *graph = trn_graph_create();
    trn_scope root = trn_scope_root(graph, &parameters), scope = trn_scope_enter(&root, "%c", 'b');
    trn_block_desc desc = {.heads = 2,
                           .hidden = HIDDEN,
                           .eps = 1e-6f,
                           .layer_scale = true,
                           .separate_qkv = true,
                           .swiglu = true};
    desc.key_mask = trn_constant(graph, "mask", TRN_SHAPE(1, TOKENS), mask);
    trn_tensor *y = trn_nn_block(&scope, trn_input(graph, "x", TRN_F32, TRN_SHAPE(1, TOKENS, DIM)), &desc);
    float *x = test_hash_values("x", TOKENS * DIM, 1, 0), *out = run(graph, y, x);
    double wide[TOKENS * DIM], normal[TOKENS * DIM], branch[TOKENS * DIM];
    for (int i = 0; i < TOKENS * DIM; i++)
        wide[i] = (double)x[i];
    layer_norm("b.norm1", wide, 1e-6, normal);
    attention(normal, 2, mask, branch);
    scale_and_add("b.ls1.gamma", branch, wide);
    layer_norm("b.norm2", wide, 1e-6, normal);
    swiglu(normal, timm ? "b.mlp.fc1" : "b.mlp.w12", timm ? "b.mlp.fc2" : "b.mlp.w3", branch);
    scale_and_add("b.ls2.gamma", branch, wide);
    for (int i = 0; i < TOKENS * DIM; i++)
        if (!(fabs((double)out[i] - wide[i]) < 1e-5))
            fail_msg("value %d: %g, not %g", i, (double)out[i], wide[i]);
    assert_true(was_asked(&s, timm ? "b.mlp.fc1.weight" : "b.mlp.w12.weight", 2 * HIDDEN * DIM));
    assert_true(was_asked(&s, "b.attn.k.bias", DIM));
    assert_int_equal(s.count, 2 + 8 + 1 + 2 + 4 + 1);
    free(x);
    free(out);
    trn_graph_destroy(graph);
}

static void test_block(void **state)
{
    (void)state;
    check_block(false);
    check_block(true);
}

static void test_bad_heads(void **state)
{
    (void)state;
    source s = {0};
    const trn_parameters parameters = {fill, has, &s, NULL};
    trn_graph *graph = trn_graph_create();
    trn_scope scope = trn_scope_root(graph, &parameters);
    trn_block_desc desc = {.heads = 3, .hidden = HIDDEN, .eps = 1e-6f};
    trn_error err = {0};
    assert_null(trn_nn_block(&scope, trn_input(graph, "x", TRN_F32, TRN_SHAPE(1, TOKENS, DIM)), &desc));
    assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err,
                     "8 channels cannot be divided among 3 heads");
    trn_graph_destroy(graph);
}

static void test_long_names(void **state)
{
    (void)state;
    source s = {0};
    const trn_parameters parameters = {fill, has, &s, NULL};
    trn_graph *graph = trn_graph_create();
    trn_scope scope = trn_scope_root(graph, &parameters);
    trn_error err = {0};
    for (int i = 0; i < 20; i++)
        scope = trn_scope_enter(&scope, "a_name_of_some_length");
    assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, "too long");
    trn_graph_destroy(graph);
}

static void test_sincos(void **state)
{
    (void)state;
    float table[8];
    trn_sincos(8, 3, 2.0 / 8, table);
    for (int k = 0; k < 4; k++) {
        assert_true(fabs((double)table[k] - sin(3 * pow(10000, -k / 4.0))) < 1e-7);
        assert_true(fabs((double)table[4 + k] - cos(3 * pow(10000, -k / 4.0))) < 1e-7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_block),
        cmocka_unit_test(test_bad_heads),
        cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_sincos),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
