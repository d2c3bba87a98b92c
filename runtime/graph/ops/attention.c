/* attention: softmax(scale q k^T + mask) v per head, fused: the scores of a layer are never stored. */
#include "attention.h"
#include "matmul.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

extern const trn_op trn_op_attention;

enum { MAX_HEAD = 256, MAX_LAYOUTS = 8 };
enum {
    Q = TRN_ATTENTION_Q,
    K = TRN_ATTENTION_K,
    V = TRN_ATTENTION_V,
    LAYOUT = TRN_ATTENTION_LAYOUT,
    MASK = TRN_ATTENTION_MASK,
    INPUTS = TRN_ATTENTION_INPUTS
};

const trn_attention_desc *trn_attention_desc_of(const trn_node *node)
{
    return &((const trn_attention_attr *)(const void *)node->attr)->desc;
}

/* ---- building ---- */

/* Whether every element the layout names lies in the tensor. */
static bool layout_fits(const trn_heads_layout *at, const trn_attention_desc *d, int rows,
                        const trn_tensor *tensor)
{
    if (at->offset < 0 || at->outer < 0 || at->window < 0 || at->head < 0 || at->row < 0) return false;
    if (TRN_MAX(TRN_MAX(at->outer, at->window), TRN_MAX(at->head, TRN_MAX(at->row, at->offset))) > INT32_MAX)
        return false;
    double last = (double)at->offset + (double)at->outer * (d->outer - 1) +
                  (double)at->window * (d->windows - 1) + (double)at->head * (d->heads - 1) +
                  (double)at->row * (rows - 1) + d->head_size - 1;
    return last < (double)tensor->count;
}

/* The message of what is wrong with a description, or NULL. */
static const char *desc_fault(const trn_attention_desc *d, trn_tensor *const inputs[INPUTS])
{
    trn_tensor out = {.count = trn_shape_count(&d->out_shape)};
    if (d->outer < 1 || d->windows < 1 || d->heads < 1 || d->queries < 1 || d->keys < 1)
        return "every size must be at least 1";
    if (d->head_size < 1 || d->head_size > MAX_HEAD) return "the head size must be 1 to 256";
    for (int i = Q; i <= V; i++) {
        if (inputs[i]->type != TRN_F32) return "q, k and v must be float";
    }
    if (!layout_fits(&d->q, d, d->queries, inputs[Q])) return "the layout of q leads outside it";
    if (!layout_fits(&d->k, d, d->keys, inputs[K])) return "the layout of k leads outside it";
    if (!layout_fits(&d->v, d, d->keys, inputs[V])) return "the layout of v leads outside it";
    if (!layout_fits(&d->out, d, d->queries, &out)) return "the layout of the output leads outside it";
    double written = (double)d->outer * d->windows * d->heads * d->queries * d->head_size;
    if (written != (double)out.count) return "the output's shape has not one element per query and channel";
    const trn_tensor *mask = inputs[MASK];
    if (mask && (mask->type != TRN_F32 || mask->shape.ndim != 2 || mask->shape.dim[0] != d->outer ||
                 mask->shape.dim[1] != d->keys))
        return "the key mask must be float, [outer, keys]";
    return NULL;
}

trn_tensor *trn_attention_layouts(trn_graph *graph, const trn_heads_layout *const *layouts, int count)
{
    int32_t values[5 * MAX_LAYOUTS];
    for (int i = 0; i < TRN_MIN(count, MAX_LAYOUTS); i++) {
        const trn_heads_layout *at = layouts[i];
        const int64_t parts[] = {at->offset, at->outer, at->window, at->head, at->row};
        for (int j = 0; j < 5; j++)
            values[5 * i + j] = (int32_t)parts[j];
    }
    return trn_constant_int(graph, "attention layout", TRN_SHAPE(5 * count), values);
}

trn_tensor *trn_attention(trn_graph *graph, trn_tensor *q, trn_tensor *k, trn_tensor *v, trn_tensor *key_mask,
                          const trn_attention_desc *desc)
{
    if (!q || !k || !v) return NULL;
    trn_tensor *inputs[INPUTS] = {[Q] = q, [K] = k, [V] = v, [MASK] = key_mask};
    const char *fault = desc_fault(desc, inputs);
    if (fault) return trn_graph_fail(graph, "attention: %s", fault);
    inputs[LAYOUT] = trn_attention_layouts(
        graph, (const trn_heads_layout *const[]){&desc->q, &desc->k, &desc->v, &desc->out}, 4);
    if (!inputs[LAYOUT]) return NULL;
    trn_node *node = trn_node_add(graph, &trn_op_attention, inputs, INPUTS, TRN_F32, desc->out_shape);
    if (!node) return NULL;
    trn_attention_desc *own = &((trn_attention_attr *)(void *)node->attr)->desc;
    *own = *desc;
    if (own->scale == 0) own->scale = (float)(1 / sqrt(desc->head_size));
    return node->out;
}

/* B, N and the width of q of a packed qkv; false after failing the graph. */
static bool unpack_qkv(trn_graph *graph, const trn_tensor *qkv, int heads, const char *op, int64_t size[3])
{
    char text[128];
    bool fits = qkv->shape.ndim == 3 && heads > 0 && qkv->shape.dim[2] % (3 * (int64_t)heads) == 0;
    if (!fits) {
        trn_graph_fail(graph, "%s: qkv %s is not [batch, tokens, 3 * %d heads * head size]", op,
                       trn_shape_text(&qkv->shape, text), heads);
        return false;
    }
    size[0] = qkv->shape.dim[0];
    size[1] = qkv->shape.dim[1];
    size[2] = qkv->shape.dim[2] / 3;
    return true;
}

/* Rows of tokens in a tensor: `row` values a token, those wanted behind `offset`. */
typedef struct token_rows {
    trn_tensor *tensor;
    int64_t tokens, row, offset;
} token_rows;

static trn_heads_layout window_layout(const token_rows *at, int64_t head, int windows)
{
    return (trn_heads_layout){.offset = at->offset,
                              .outer = at->tokens * at->row,
                              .window = at->row,
                              .head = head,
                              .row = windows * at->row};
}

/* Attention over windows whose index is the fastest part of a token's: -> [batch, tokens of q, channels] */
static trn_tensor *window_attention(trn_graph *graph, const token_rows *q, const token_rows *k,
                                    const token_rows *v, int64_t batch, int64_t channels, int heads,
                                    int windows, trn_tensor *key_mask)
{
    int64_t head = channels / heads;
    token_rows out = {.tokens = q->tokens, .row = channels};
    trn_attention_desc desc = {
        .outer = (int)batch,
        .windows = windows,
        .heads = heads,
        .queries = (int)(q->tokens / windows),
        .keys = (int)(k->tokens / windows),
        .head_size = (int)head,
        .q = window_layout(q, head, windows),
        .k = window_layout(k, head, windows),
        .v = window_layout(v, head, windows),
        .out = window_layout(&out, head, windows),
        .out_shape = TRN_SHAPE(batch, q->tokens, channels),
    };
    return trn_attention(graph, q->tensor, k->tensor, v->tensor, key_mask, &desc);
}

static trn_tensor *packed_attention(trn_graph *graph, trn_tensor *qkv, const int64_t size[3], int heads,
                                    int windows, trn_tensor *key_mask)
{
    int64_t c = size[2];
    token_rows q = {qkv, size[1], 3 * c, 0}, k = {qkv, size[1], 3 * c, c}, v = {qkv, size[1], 3 * c, 2 * c};
    return window_attention(graph, &q, &k, &v, size[0], c, heads, windows, key_mask);
}

trn_tensor *trn_self_attention(trn_graph *graph, trn_tensor *qkv, int heads, trn_tensor *key_mask)
{
    int64_t size[3];
    if (!qkv || !unpack_qkv(graph, qkv, heads, "self attention", size)) return NULL;
    return packed_attention(graph, qkv, size, heads, 1, key_mask);
}

static bool windows_fit(trn_graph *graph, int64_t tokens, int windows, int pool)
{
    if (windows > 0 && pool > 0 && tokens % ((int64_t)windows * pool) == 0) return true;
    trn_graph_fail(graph, "mask unit attention: %lld tokens are no %d windows of a multiple of %d",
                   (long long)tokens, windows, pool);
    return false;
}

trn_tensor *trn_mask_unit_attention(trn_graph *graph, trn_tensor *qkv, int heads, int windows)
{
    int64_t size[3];
    if (!qkv || !unpack_qkv(graph, qkv, heads, "mask unit attention", size) ||
        !windows_fit(graph, size[1], windows, 1))
        return NULL;
    return packed_attention(graph, qkv, size, heads, windows, NULL);
}

trn_tensor *trn_pooled_unit_attention(trn_graph *graph, trn_tensor *q, trn_tensor *kv, int heads, int windows,
                                      int pool)
{
    char text[2][128];
    if (!q || !kv) return NULL;
    int64_t b = trn_tensor_dim(q, 0), n = trn_tensor_dim(q, 1), c = trn_tensor_dim(q, -1);
    if (q->shape.ndim != 3 || kv->shape.ndim != 3 || heads < 1 || c % heads != 0 || kv->shape.dim[0] != b ||
        kv->shape.dim[1] != n || kv->shape.dim[2] != 2 * c)
        return trn_graph_fail(graph,
                              "mask unit attention: q %s and kv %s are not [batch, tokens, %d heads * head "
                              "size] and twice as wide",
                              trn_shape_text(&q->shape, text[0]), trn_shape_text(&kv->shape, text[1]), heads);
    if (!windows_fit(graph, n, windows, pool)) return NULL;
    /* groups of the pool are the slowest part of a token's index */
    q = trn_reduce(graph, trn_reshape(graph, q, TRN_SHAPE(b, pool, n / pool, c)), 1, TRN_REDUCE_MAX, false);
    token_rows queries = {q, n / pool, c, 0}, k = {kv, n, 2 * c, 0}, v = {kv, n, 2 * c, c};
    return window_attention(graph, &queries, &k, &v, b, c, heads, windows, NULL);
}

/* ---- reference ---- */

int64_t trn_attention_groups(const trn_attention_desc *d)
{
    return (int64_t)d->outer * d->windows * d->heads;
}

bool trn_attention_fours(const trn_heads_layout *at)
{
    return (at->offset | at->outer | at->window | at->head | at->row) % 4 == 0;
}

int64_t trn_attention_place(const trn_heads_layout *at, int outer, int window, int head)
{
    return at->offset + outer * at->outer + window * at->window + head * at->head;
}

/* One query: scores is room for a row of keys. */
static void reference_query(const trn_attention_desc *d, const float *q, const float *k, const float *v,
                            const float *mask, double *scores, float *out)
{
    double largest = -DBL_MAX, total = 0;
    for (int j = 0; j < d->keys; j++) {
        double s = 0;
        for (int c = 0; c < d->head_size; c++)
            s += (double)q[c] * (double)k[j * d->k.row + c];
        scores[j] = s * (double)d->scale;
        if (!mask || mask[j] > 0.5F) largest = fmax(largest, scores[j]);
    }
    for (int j = 0; j < d->keys; j++) {
        scores[j] = !mask || mask[j] > 0.5F ? exp(scores[j] - largest) : 0;
        total += scores[j];
    }
    for (int c = 0; c < d->head_size; c++) {
        double sum = 0;
        for (int j = 0; j < d->keys; j++)
            sum += scores[j] * (double)v[j * d->v.row + c];
        out[c] = total > 0 ? (float)(sum / total) : 0.0F;
    }
}

static void reference(const trn_node *node, const void *const *inputs, void *out)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    const float *q = inputs[Q], *k = inputs[K], *v = inputs[V], *mask = inputs[MASK];
    double *scores = malloc((size_t)d->keys * sizeof *scores);
    int64_t groups = trn_attention_groups(d);
    for (int64_t g = 0; scores && g < groups; g++) {
        int head = (int)(g % d->heads), window = (int)(g / d->heads % d->windows);
        int outer = (int)(g / d->heads / d->windows);
        const float *q_at = q + trn_attention_place(&d->q, outer, window, head),
                    *k_at = k + trn_attention_place(&d->k, outer, window, head);
        const float *v_at = v + trn_attention_place(&d->v, outer, window, head);
        float *out_at = (float *)out + trn_attention_place(&d->out, outer, window, head);
        for (int i = 0; i < d->queries; i++)
            reference_query(d, q_at + i * d->q.row, k_at, v_at, mask ? mask + (int64_t)outer * d->keys : NULL,
                            scores, out_at + i * d->out.row);
    }
    if (!scores)
        memset(out, 0xff, (size_t)node->out->count * sizeof(float)); /* not numbers: never taken for right */
    free(scores);
}

void trn_attention_cost(const trn_node *node, double *flops, double *bytes)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    double groups = (double)d->outer * d->windows * d->heads;
    *flops = 4.0 * groups * d->queries * (double)d->keys * d->head_size;
    *bytes = 4.0 * groups * d->head_size * (2.0 * d->queries + 2.0 * d->keys);
}

static void describe(const trn_node *node, trn_text *out)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    trn_text_printf(out, "%d x %d windows x %d heads of %d: %d queries by %d keys%s", d->outer, d->windows,
                    d->heads, d->head_size, d->queries, d->keys, node->inputs[MASK] ? ", key mask" : "");
}

/* ---- kernels ---- */

static const trn_variant variants[] = {
    {"uniform", "a subgroup per block of queries, uniform loads, keys transposed before, no shared memory",
     trn_uniform_loads_apply},
    {"lanes", "a subgroup per block of queries, keys and channels to lanes, no shared memory",
     trn_wide_lanes_apply},
    {"matrix", "cooperative matrices, where operands are stored as float16", trn_matmul_matrix_applies},
    {"tiles", "keys and values through shared memory", trn_attention_tiles_apply},
};

void trn_step_macro(trn_lower *lower, trn_step *step, const char *name, int value)
{
    step->macros[step->macro_count++] = (trn_macro){name, trn_lower_printf(lower, "%d", value)};
}

trn_status trn_attention_check_rounds(const trn_lower *lower, int64_t blocks, int rounds, int rows,
                                      trn_error *err)
{
    bool limited = trn_lower_device(lower)->quirks & TRN_QUIRK_LOOP_LIMIT;
    if (!limited || blocks * rounds <= TRN_ATTENTION_ROUNDS) return TRN_OK;
    return trn_fail(err, TRN_ERR_UNSUPPORTED,
                    "attention over %d rows is too long for this driver, whose loops end after 65535 rounds: "
                    "use smaller tiles or a newer driver",
                    rows);
}

trn_status trn_attention_add_step(trn_lower *lower, const trn_node *node, trn_tensor *keys, trn_step *step,
                                  int queries_at_once, int keys_at_once, int rounds, trn_error *err)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    trn_status status =
        trn_attention_check_rounds(lower, (d->keys + keys_at_once - 1) / keys_at_once, rounds, d->keys, err);
    if (status != TRN_OK) return status;
    int blocks = (d->queries + queries_at_once - 1) / queries_at_once;
    for (int i = Q; i <= LAYOUT; i++)
        trn_step_read(step, i == K ? keys : node->inputs[i]);
    trn_step_write(step, trn_lower_output(lower, node));
    if (node->inputs[MASK]) {
        trn_step_read(step, node->inputs[MASK]);
        trn_step_macro(lower, step, "MASK", 1);
    }
    trn_step_macro(lower, step, "HEAD", d->head_size);
    const int64_t groups = trn_attention_groups(d) * blocks;
    const int64_t scalars[] = {d->windows, d->heads, d->queries, d->keys, blocks, groups};
    for (size_t i = 0; i < TRN_COUNT(scalars); i++)
        trn_step_uint(step, scalars[i]);
    trn_step_float(step, (double)d->scale);
    trn_attention_cost(node, &step->flops, &step->bytes);
    int64_t packed = TRN_MAX(1, step->groups[0]); /* blocks of a work group */
    trn_lower_groups(step, (groups + packed - 1) / packed);
    return trn_lower_step(lower, step, err);
}

static trn_status lower_attention(trn_lower *lower, const trn_node *node, trn_error *err)
{
    char why_not[128];
    if (trn_wide_lanes_apply(trn_lower_gpu(lower), why_not)) return trn_attention_cpu_lower(lower, node, err);
    if (trn_attention_tiles_apply(trn_lower_gpu(lower), why_not))
        return trn_attention_gpu_lower(lower, node, err);
    return trn_fail(err, TRN_ERR_UNSUPPORTED, "attention: no kernel runs on %s: %s",
                    trn_lower_device(lower)->name, why_not);
}

/* Kernels for GPUs read and write float16, those for CPU drivers do not. */
static bool takes_half(const trn_lower *lower, const trn_node *node, int which)
{
    char why_not[128];
    (void)node;
    return which <= V && !trn_wide_lanes_apply(trn_lower_gpu(lower), why_not) &&
           trn_attention_tiles_apply(trn_lower_gpu(lower), why_not);
}

/* ---- cases ---- */

static trn_tensor *qkv_input(trn_graph *graph, int64_t b, int64_t n, int64_t c)
{
    return trn_input(graph, "qkv*3", TRN_F32, TRN_SHAPE(b, n, 3 * c));
}

/* Heads of few sizes: each is a kernel of its own, and compiling them takes the most time. */
static void case_self(trn_graph *graph, int b, int n, int heads, int head_size)
{
    trn_tensor *qkv = qkv_input(graph, b, n, heads * head_size);
    trn_output_add(graph, "y", trn_self_attention(graph, qkv, heads, NULL));
}

static void case_vit(trn_graph *graph)
{
    case_self(graph, 2, 37, 3, 64);
}

static void case_one_token(trn_graph *graph)
{
    case_self(graph, 1, 1, 1, 1);
}

static void case_odd_head(trn_graph *graph)
{
    case_self(graph, 1, 19, 2, 13);
}

/* Neither is a multiple of the 16 of a matrix, but rows are whole fours. */
static void case_head_20(trn_graph *graph)
{
    case_self(graph, 1, 35, 2, 20);
}

static void case_head_80(trn_graph *graph)
{
    case_self(graph, 1, 23, 2, 80);
}

static void case_head_96(trn_graph *graph)
{
    case_self(graph, 1, 9, 1, 96);
}

static void case_head_128(trn_graph *graph)
{
    case_self(graph, 1, 34, 1, 128);
}

static void case_head_256(trn_graph *graph)
{
    case_self(graph, 1, 18, 1, 256);
}

static void case_long(trn_graph *graph)
{
    case_self(graph, 1, 300, 1, 64);
}

/* Mask with about half of the keys hidden, and one sample with all. */
static void case_mask(trn_graph *graph)
{
    enum { BATCH = 3, TOKENS = 21 };
    float mask[BATCH * TOKENS];
    for (int i = 0; i < BATCH * TOKENS; i++)
        mask[i] = i < TOKENS ? (float)(i % 2) : i < 2 * TOKENS ? 0.0F : (float)(i % 5 > 1);
    trn_tensor *hidden = trn_constant(graph, "mask", TRN_SHAPE(BATCH, TOKENS), mask);
    trn_tensor *qkv = qkv_input(graph, BATCH, TOKENS, 2 * 13);
    trn_output_add(graph, "y", trn_self_attention(graph, qkv, 2, hidden));
}

static void case_large_scores(trn_graph *graph)
{
    trn_tensor *qkv = trn_input(graph, "qkv*40", TRN_F32, TRN_SHAPE(1, 26, 3 * 13));
    trn_output_add(graph, "y", trn_self_attention(graph, qkv, 1, NULL));
}

static void case_units(trn_graph *graph)
{
    trn_output_add(graph, "y", trn_mask_unit_attention(graph, qkv_input(graph, 2, 5 * 16, 2 * 13), 2, 5));
}

static void case_pooled_units(trn_graph *graph)
{
    trn_tensor *q = trn_input(graph, "q*3", TRN_F32, TRN_SHAPE(2, 3 * 24, 2 * 13));
    trn_tensor *kv = trn_input(graph, "kv*3", TRN_F32, TRN_SHAPE(2, 3 * 24, 2 * 2 * 13));
    trn_output_add(graph, "y", trn_pooled_unit_attention(graph, q, kv, 2, 3, 4));
}

/* Queries of another tensor, scale given: cross attention. */
static void case_cross(trn_graph *graph)
{
    trn_tensor *q = trn_input(graph, "q*3", TRN_F32, TRN_SHAPE(2, 5, 26));
    trn_tensor *k = trn_input(graph, "k*3", TRN_F32, TRN_SHAPE(2, 17, 26));
    trn_tensor *v = trn_input(graph, "v", TRN_F32, TRN_SHAPE(2, 17, 26));
    trn_attention_desc desc = {.outer = 2,
                               .windows = 1,
                               .heads = 2,
                               .queries = 5,
                               .keys = 17,
                               .head_size = 13,
                               .scale = 0.7F,
                               .q = {.outer = 5 * 26, .head = 13, .row = 26},
                               .k = {.outer = 17 * 26, .head = 13, .row = 26},
                               .v = {.outer = 17 * 26, .head = 13, .row = 26},
                               .out = {.outer = 5 * 26, .head = 13, .row = 26},
                               .out_shape = TRN_SHAPE(2, 5, 26)};
    trn_output_add(graph, "y", trn_attention(graph, q, k, v, NULL, &desc));
}

static const trn_op_case cases[] = {
    {"self, head 64", case_vit, 0},
    {"one token", case_one_token, 0},
    {"head 13", case_odd_head, 0},
    {"head 20", case_head_20, 0},
    {"head 80", case_head_80, 0},
    {"head 96", case_head_96, 0},
    {"head 128", case_head_128, 0},
    {"head 256", case_head_256, 0},
    {"300 tokens", case_long, 0},
    {"key mask", case_mask, 0},
    {"large scores", case_large_scores, 1e-4},
    {"mask units", case_units, 0},
    {"mask units, pooled queries", case_pooled_units, 0},
    {"cross attention, scale given", case_cross, 0},
};

const trn_op trn_op_attention = {
    .name = "attention",
    .gradient = trn_attention_gradient,
    .reference = reference,
    .lower = lower_attention,
    .cost = trn_attention_cost,
    .describe = describe,
    .half = takes_half,
    .variants = variants,
    .variant_count = (int)TRN_COUNT(variants),
    .cases = cases,
    .case_count = (int)TRN_COUNT(cases),
};
