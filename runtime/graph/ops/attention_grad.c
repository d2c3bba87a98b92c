/* The gradient of attention. Scores are computed again, never stored: attention_stats finds what the softmax
 * of each query comes down to, and attention_grad adds up dq by query and dk, dv by key, so that every
 * element has one writer. With s the scores, w their softmax, r = sum of dy * y over a query's channels:
 * dv = w^T dy, ds = w * (dy v^T - r), dq = scale ds k, dk = scale ds^T q. */
#include "attention.h"
#include "graph_internal.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

extern const trn_op trn_op_attention_stats, trn_op_attention_grad;

enum { Q = TRN_ATTENTION_Q, K = TRN_ATTENTION_K, V = TRN_ATTENTION_V, OPERANDS };
enum { LAYOUT = TRN_ATTENTION_LAYOUT, MASK = TRN_ATTENTION_MASK, DY = TRN_ATTENTION_DY };
enum { STATS = DY + 1, GRAD_INPUTS };           /* of attention_grad */
enum { OUT = DY + 1, STATS_INPUTS };            /* of attention_stats: y of the attention */
enum { LARGEST, INVERSE, PRODUCT, STAT_KINDS }; /* of the numbers of a query */

/* Which of q, k and v have their gradient in the node's output, and where it lies there. */
typedef struct grad_attr {
    trn_attention_desc desc;
    bool parts[OPERANDS];
    bool compact; /* rows one after the other, not as the operand's layout says */
} grad_attr;
_Static_assert(sizeof(grad_attr) <= TRN_ATTR_BYTES, "the attributes of attention_grad fit a node");

static const grad_attr *attr_of(const trn_node *node)
{
    return (const grad_attr *)(const void *)node->attr;
}

static const trn_heads_layout *layout_of(const trn_attention_desc *d, int operand)
{
    return operand == Q ? &d->q : operand == K ? &d->k : &d->v;
}

static int rows_of(const trn_attention_desc *d, int operand)
{
    return operand == Q ? d->queries : d->keys;
}

static trn_heads_layout compact_layout(const trn_attention_desc *d, int rows)
{
    trn_heads_layout at = {.row = d->head_size};
    at.head = at.row * rows;
    at.window = at.head * d->heads;
    at.outer = at.window * d->windows;
    return at;
}

static trn_heads_layout result_layout(const grad_attr *attr, int operand)
{
    const trn_attention_desc *d = &attr->desc;
    return attr->compact ? compact_layout(d, rows_of(d, operand)) : *layout_of(d, operand);
}

/* Elements that a part of the gradient has. */
static int64_t part_count(const trn_attention_desc *d, int operand)
{
    return trn_attention_groups(d) * rows_of(d, operand) * d->head_size;
}

/* ---- may parts share a tensor: does every element belong to one row of one of them ---- */

typedef struct digit {
    int64_t step, count;
} digit;

static int compare_digits(const void *a, const void *b)
{
    const digit *x = a, *y = b;
    return x->step < y->step ? -1 : x->step > y->step;
}

/* Whether sums of index * step are all different, as those of digits are. Says no to some that are. */
static bool digits_are_distinct(digit *digits, size_t count)
{
    qsort(digits, count, sizeof *digits, compare_digits);
    int64_t span = 1;
    for (size_t i = 0; i < count; i++) {
        if (digits[i].count == 1) continue;
        if (digits[i].step < span) return false;
        span += digits[i].step * (digits[i].count - 1);
    }
    return true;
}

static bool same_steps(const trn_heads_layout *a, const trn_heads_layout *b)
{
    return a->outer == b->outer && a->window == b->window && a->head == b->head && a->row == b->row;
}

static int compare_offsets(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static bool parts_are_disjoint(const trn_attention_desc *d, const bool parts[OPERANDS])
{
    const trn_heads_layout *first = NULL;
    int64_t offsets[OPERANDS], rows = 0;
    size_t count = 0;
    for (int i = 0; i < OPERANDS; i++) {
        if (!parts[i]) continue;
        const trn_heads_layout *at = layout_of(d, i);
        if (!first) first = at;
        if (!same_steps(first, at)) return false;
        offsets[count++] = at->offset;
        rows = TRN_MAX(rows, rows_of(d, i));
    }
    if (!first) return false;
    qsort(offsets, count, sizeof *offsets, compare_offsets);
    int64_t between = count > 1 ? offsets[1] - offsets[0] : 0;
    if (count > 2 && offsets[2] - offsets[1] != between) return false;
    digit digits[] = {{1, d->head_size},           {first->head, d->heads},  {first->row, rows},
                      {first->window, d->windows}, {first->outer, d->outer}, {between, (int64_t)count}};
    return digits_are_distinct(digits, TRN_COUNT(digits));
}

/* ---- building ---- */

static void take_inputs(const trn_node *attention, trn_tensor *inputs[DY])
{
    for (int i = 0; i < DY; i++)
        inputs[i] = attention->inputs[i];
}

/* The numbers of the queries, made once for all gradients of an attention. */
static trn_tensor *stats_of(trn_graph *graph, const trn_node *attention, trn_tensor *dy)
{
    for (size_t n = graph->node_count; n-- > (size_t)attention->id;) {
        const trn_node *node = graph->nodes[n];
        if (node->op == &trn_op_attention_stats && node->inputs[OUT] == attention->out &&
            trn_tensor_base(node->inputs[DY]) == trn_tensor_base(dy))
            return node->out;
    }
    const trn_attention_desc *d = trn_attention_desc_of(attention);
    trn_tensor *inputs[STATS_INPUTS] = {[DY] = dy, [OUT] = attention->out};
    take_inputs(attention, inputs);
    trn_node *node = trn_node_add(graph, &trn_op_attention_stats, inputs, STATS_INPUTS, TRN_F32,
                                  TRN_SHAPE(STAT_KINDS, trn_attention_groups(d), d->queries));
    if (!node) return NULL;
    ((trn_attention_attr *)(void *)node->attr)->desc = *d;
    return node->out;
}

static trn_tensor *add_grad(trn_graph *graph, const trn_node *attention, trn_tensor *dy,
                            const grad_attr *attr, trn_shape shape)
{
    const trn_attention_desc *d = &attr->desc;
    trn_heads_layout q = result_layout(attr, Q), k = result_layout(attr, K), v = result_layout(attr, V);
    trn_tensor *inputs[GRAD_INPUTS] = {[DY] = dy};
    take_inputs(attention, inputs);
    inputs[STATS] = stats_of(graph, attention, dy);
    inputs[LAYOUT] = trn_attention_layouts(
        graph, (const trn_heads_layout *const[]){&d->q, &d->k, &d->v, &d->out, &q, &k, &v}, 7);
    if (!inputs[STATS] || !inputs[LAYOUT]) return NULL;
    trn_node *node = trn_node_add(graph, &trn_op_attention_grad, inputs, GRAD_INPUTS, TRN_F32, shape);
    if (!node) return NULL;
    *(grad_attr *)(void *)node->attr = *attr;
    return node->out;
}

/* The element of the operand that value `i` of a compact gradient belongs to. */
static int64_t element_of(const trn_attention_desc *d, int operand, int64_t i)
{
    const trn_heads_layout *at = layout_of(d, operand);
    int64_t rows = rows_of(d, operand), channel = i % d->head_size, row = i / d->head_size % rows;
    int64_t group = i / d->head_size / rows;
    return trn_attention_place(at, (int)(group / d->heads / d->windows), (int)(group / d->heads % d->windows),
                               (int)(group % d->heads)) +
           row * at->row + channel;
}

/* For layouts whose rows share elements: each element is the sum over the rows it stands for. */
static trn_tensor *add_up(trn_graph *graph, const trn_attention_desc *d, int operand, trn_tensor *rows,
                          const trn_tensor *like)
{
    trn_taps taps;
    if (!rows || !trn_taps_create(graph, like->count, rows->count, &taps)) return NULL;
    int32_t *next = trn_arena_array(trn_graph_arena(graph), (size_t)like->count, sizeof *next);
    if (!next) return trn_graph_fail(graph, "attention: out of memory");
    for (int64_t i = 0; i < rows->count; i++)
        taps.start[element_of(d, operand, i) + 1]++;
    for (int64_t j = 0; j < like->count; j++)
        taps.start[j + 1] += taps.start[j];
    memcpy(next, taps.start, (size_t)like->count * sizeof *next);
    for (int64_t i = 0; i < rows->count; i++) {
        int32_t at = next[element_of(d, operand, i)]++;
        taps.index[at] = (int32_t)i;
        taps.weight[at] = 1;
    }
    return trn_reshape(graph, trn_axis_map(graph, rows, 0, &taps), like->shape);
}

trn_tensor *trn_attention_gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    if (which > V) return NULL; /* a layout or a mask */
    grad_attr attr = {.desc = *trn_attention_desc_of(node)};
    trn_tensor *operand = node->inputs[which];
    int first = which;
    for (int i = V; i >= Q; i--) {
        attr.parts[i] = trn_tensor_base(node->inputs[i]) == trn_tensor_base(operand);
        if (attr.parts[i]) first = i;
    }
    if (parts_are_disjoint(&attr.desc, attr.parts)) /* with the gradient of the first */
        return which == first ? add_grad(graph, node, dy, &attr, operand->shape) : NULL;
    for (int i = Q; i <= V; i++)
        attr.parts[i] = i == which;
    if (parts_are_disjoint(&attr.desc, attr.parts)) return add_grad(graph, node, dy, &attr, operand->shape);
    attr.compact = true;
    trn_tensor *rows = add_grad(graph, node, dy, &attr, TRN_SHAPE(part_count(&attr.desc, which)));
    return add_up(graph, &attr.desc, which, rows, operand);
}

/* ---- references ---- */

/* One softmax group: where its rows begin in each tensor. */
typedef struct group_data {
    const float *q, *k, *v, *dy, *y, *mask;
    float *stats; /* of its first query; those of a kind are `kind` apart */
    int64_t kind;
    int outer, window, head;
} group_data;

static group_data group_at(const trn_node *node, const void *const *inputs, int64_t index)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    int head = (int)(index % d->heads), window = (int)(index / d->heads % d->windows);
    int outer = (int)(index / d->heads / d->windows);
    const float *mask = inputs[MASK];
    int64_t out = trn_attention_place(&d->out, outer, window, head);
    return (group_data){.q = (const float *)inputs[Q] + trn_attention_place(&d->q, outer, window, head),
                        .k = (const float *)inputs[K] + trn_attention_place(&d->k, outer, window, head),
                        .v = (const float *)inputs[V] + trn_attention_place(&d->v, outer, window, head),
                        .dy = (const float *)inputs[DY] + out,
                        .mask = mask ? mask + (int64_t)outer * d->keys : NULL,
                        .kind = trn_attention_groups(d) * d->queries,
                        .outer = outer,
                        .window = window,
                        .head = head};
}

static double product(const float *a, const float *b, int count)
{
    double sum = 0;
    for (int i = 0; i < count; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static bool is_shown(const group_data *g, int key)
{
    return !g->mask || g->mask[key] > 0.5F;
}

static double score_of(const trn_attention_desc *d, const group_data *g, int query, int key)
{
    return (double)d->scale * product(g->q + query * d->q.row, g->k + key * d->k.row, d->head_size);
}

static void reference_query_stats(const trn_attention_desc *d, const group_data *g, int query, float *out)
{
    double largest = -DBL_MAX, total = 0;
    for (int j = 0; j < d->keys; j++)
        if (is_shown(g, j)) largest = fmax(largest, score_of(d, g, query, j));
    float rounded = (float)largest; /* what the others subtract */
    for (int j = 0; j < d->keys; j++)
        if (is_shown(g, j)) total += exp(score_of(d, g, query, j) - (double)rounded);
    out[LARGEST * g->kind] = total > 0 ? rounded : 0;
    out[INVERSE * g->kind] = total > 0 ? (float)(1 / total) : 0;
    out[PRODUCT * g->kind] =
        (float)product(g->dy + query * d->out.row, g->y + query * d->out.row, d->head_size);
}

static void stats_reference(const trn_node *node, const void *const *inputs, void *out)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    for (int64_t i = 0; i < trn_attention_groups(d); i++) {
        group_data g = group_at(node, inputs, i);
        g.y = (const float *)inputs[OUT] + (g.dy - (const float *)inputs[DY]);
        for (int query = 0; query < d->queries; query++)
            reference_query_stats(d, &g, query, (float *)out + i * d->queries + query);
    }
}

/* The softmax's weight of a key, and the gradient of its score. */
static void weight_of(const trn_attention_desc *d, const group_data *g, const float *stats, int query,
                      int key, double *weight, double *slope)
{
    *weight = *slope = 0;
    if (!is_shown(g, key)) return;
    *weight = exp(score_of(d, g, query, key) - (double)stats[query + LARGEST * g->kind]) *
              (double)stats[query + INVERSE * g->kind];
    *slope = *weight * (product(g->dy + query * d->out.row, g->v + key * d->v.row, d->head_size) -
                        (double)stats[query + PRODUCT * g->kind]);
}

/* One row of dq, dk or dv; sums is room for a row. */
static void reference_row(const trn_attention_desc *d, const group_data *g, const float *stats, int part,
                          int row, double *sums, float *out)
{
    int others = part == Q ? d->keys : d->queries;
    memset(sums, 0, (size_t)d->head_size * sizeof *sums);
    for (int j = 0; j < others; j++) {
        int query = part == Q ? row : j, key = part == Q ? j : row;
        double weight, slope;
        weight_of(d, g, stats, query, key, &weight, &slope);
        const float *other = part == Q   ? g->k + key * d->k.row
                             : part == K ? g->q + query * d->q.row
                                         : g->dy + query * d->out.row;
        double factor = part == V ? weight : slope * (double)d->scale;
        for (int c = 0; c < d->head_size; c++)
            sums[c] += factor * (double)other[c];
    }
    for (int c = 0; c < d->head_size; c++)
        out[c] = (float)sums[c];
}

static void grad_reference(const trn_node *node, const void *const *inputs, void *out)
{
    enum { MOST_CHANNELS = 256 }; /* as trn_attention has checked */
    const trn_attention_desc *d = trn_attention_desc_of(node);
    double sums[MOST_CHANNELS];
    memset(out, 0, (size_t)node->out->count * sizeof(float));
    for (int64_t i = 0; i < trn_attention_groups(d); i++) {
        group_data g = group_at(node, inputs, i);
        const float *stats = (const float *)inputs[STATS] + i * d->queries;
        for (int part = Q; part <= V; part++) {
            if (!attr_of(node)->parts[part]) continue;
            trn_heads_layout at = result_layout(attr_of(node), part);
            float *start = (float *)out + trn_attention_place(&at, g.outer, g.window, g.head);
            for (int row = 0; row < rows_of(d, part); row++)
                reference_row(d, &g, stats, part, row, sums, start + row * at.row);
        }
    }
}

/* ---- costs ---- */

/* Multiplications and additions of one product of queries by keys. */
static double product_flops(const trn_attention_desc *d)
{
    return 2.0 * (double)trn_attention_groups(d) * d->queries * (double)d->keys * d->head_size;
}

static double row_bytes(const trn_attention_desc *d, int queries, int keys)
{
    return 4.0 * (double)trn_attention_groups(d) * d->head_size *
           ((double)queries * d->queries + (double)keys * d->keys);
}

static void stats_cost(const trn_node *node, double *flops, double *bytes)
{
    *flops = product_flops(trn_attention_desc_of(node));
    *bytes = row_bytes(trn_attention_desc_of(node), 3, 1);
}

static double query_products(const bool parts[OPERANDS])
{
    return parts[Q] ? 3 : 0; /* scores, dy v^T, ds k */
}

static double key_products(const bool parts[OPERANDS])
{
    if (!parts[K] && !parts[V]) return 0;
    return 1 + (parts[K] ? 2 : 0) + (parts[V] ? 1 : 0);
}

static void grad_cost(const trn_node *node, double *flops, double *bytes)
{
    const bool *parts = attr_of(node)->parts;
    *flops = product_flops(trn_attention_desc_of(node)) * (query_products(parts) + key_products(parts));
    *bytes = parts[Q] ? row_bytes(trn_attention_desc_of(node), 3, 2) : 0;
    if (parts[K] || parts[V]) *bytes += row_bytes(trn_attention_desc_of(node), 2, 2 + parts[K] + parts[V]);
}

static void describe(const trn_node *node, trn_text *out)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    trn_text_printf(out, "%d x %d windows x %d heads of %d: %d queries by %d keys%s", d->outer, d->windows,
                    d->heads, d->head_size, d->queries, d->keys, node->inputs[MASK] ? ", key mask" : "");
}

static void grad_describe(const trn_node *node, trn_text *out)
{
    const grad_attr *attr = attr_of(node);
    describe(node, out);
    trn_text_printf(out, ";%s%s%s", attr->parts[Q] ? " dq" : "", attr->parts[K] ? " dk" : "",
                    attr->parts[V] ? " dv" : "");
}

/* ---- kernels ---- */

static const trn_variant variants[] = {
    {"uniform", "a subgroup per block of rows, uniform loads, the others transposed before, no shared memory",
     trn_uniform_loads_apply},
    {"lanes", "a subgroup per block of rows, the others to lanes, no shared memory", trn_wide_lanes_apply},
    {"tiles", "rows through shared memory", trn_attention_tiles_apply},
};

trn_status trn_attention_add_pass(trn_lower *lower, const trn_node *node, const trn_attention_pass *p,
                                  trn_step *step, int at_once, trn_error *err)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    int blocks = (p->rows + at_once - 1) / at_once;
    for (int i = Q; i <= LAYOUT; i++)
        trn_step_read(step, node->inputs[i]);
    trn_step_read(step, node->inputs[DY]);
    trn_step_read(step, p->known);
    trn_step_write(step, node->out);
    if (p->packed) trn_step_read(step, p->packed);
    if (node->inputs[MASK]) {
        trn_step_read(step, node->inputs[MASK]);
        trn_step_macro(lower, step, "MASK", 1);
    }
    trn_step_macro(lower, step, "HEAD", d->head_size);
    step->macros[step->macro_count++] = (trn_macro){"MODE", p->mode};
    if (p->dk) trn_step_macro(lower, step, "DK", 1);
    if (p->dv) trn_step_macro(lower, step, "DV", 1);
    const int64_t groups = trn_attention_groups(d) * blocks;
    const int64_t scalars[] = {d->windows, d->heads, d->queries, d->keys, blocks, groups};
    for (size_t i = 0; i < TRN_COUNT(scalars); i++)
        trn_step_uint(step, scalars[i]);
    trn_step_float(step, (double)d->scale);
    step->flops = p->flops;
    step->bytes = p->bytes;
    int64_t packed = TRN_MAX(1, step->groups[0]); /* blocks of a work group */
    trn_lower_groups(step, (groups + packed - 1) / packed);
    return trn_lower_step(lower, step, err);
}

static trn_status lower_pass(trn_lower *lower, const trn_node *node, const trn_attention_pass *p,
                             trn_error *err)
{
    char why_not[128];
    bool tiles = trn_attention_tiles_apply(trn_lower_gpu(lower), why_not);
    bool lanes = trn_wide_lanes_apply(trn_lower_gpu(lower), why_not);
    if (lanes && (!tiles || trn_attention_desc_of(node)->head_size <= TRN_ATTENTION_LONGEST_LANES))
        return trn_attention_cpu_pass(lower, node, p, err);
    if (tiles) return trn_attention_gpu_pass(lower, node, p, err);
    return trn_fail(err, TRN_ERR_UNSUPPORTED, "attention: no kernel runs on %s: %s",
                    trn_lower_device(lower)->name, why_not);
}

static trn_status stats_lower(trn_lower *lower, const trn_node *node, trn_error *err)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    trn_attention_pass p = {
        .mode = "STATS", .rows = d->queries, .others = d->keys, .known = node->inputs[OUT]};
    stats_cost(node, &p.flops, &p.bytes);
    return lower_pass(lower, node, &p, err);
}

/* Zeros, for what no row covers. */
static trn_status lower_zeros(trn_lower *lower, const trn_node *node, trn_error *err)
{
    trn_step step = {.shader = "fill.comp"};
    trn_step_write(&step, node->out);
    trn_step_uint(&step, node->out->count);
    trn_step_float(&step, 0);
    return trn_step_elements(lower, &step, node->out->count, err);
}

static trn_status grad_lower(trn_lower *lower, const trn_node *node, trn_error *err)
{
    const trn_attention_desc *d = trn_attention_desc_of(node);
    const bool *parts = attr_of(node)->parts;
    int64_t covered = 0;
    for (int i = Q; i <= V; i++)
        covered += parts[i] ? part_count(d, i) : 0;
    trn_attention_pass queries = {
        .mode = "QUERIES", .rows = d->queries, .others = d->keys, .known = node->inputs[STATS]};
    trn_attention_pass keys = {
        .mode = "KEYS", .rows = d->keys, .others = d->queries, .known = node->inputs[STATS]};
    keys.dk = parts[K];
    keys.dv = parts[V];
    queries.flops = product_flops(d) * query_products(parts);
    queries.bytes = row_bytes(d, 3, 2);
    keys.flops = product_flops(d) * key_products(parts);
    keys.bytes = row_bytes(d, 2, 2 + parts[K] + parts[V]);
    trn_status status = covered < node->out->count ? lower_zeros(lower, node, err) : TRN_OK;
    if (status == TRN_OK && parts[Q]) status = lower_pass(lower, node, &queries, err);
    if (status == TRN_OK && (parts[K] || parts[V])) status = lower_pass(lower, node, &keys, err);
    return status;
}

/* ---- cases ---- */

/* Gradients of sum(y * dy) with respect to the operands; the numbers of the queries show, too. (Heads have
 * few sizes: each is a kernel of its own, and compiling them takes the most time.) */
static void add_gradients(trn_graph *graph, trn_tensor *y, trn_tensor *const *wrt, int count)
{
    static const char *const names[] = {"d0", "d1", "d2"};
    trn_tensor *grads[OPERANDS] = {NULL};
    if (!y) return;
    trn_error err = {0};
    trn_tensor *dy = trn_input(graph, "dy", TRN_F32, y->shape);
    if (trn_gradients(graph, y, dy, wrt, count, grads, &err) != TRN_OK) {
        trn_graph_fail(graph, "%s", err.message);
        return;
    }
    trn_output_add(graph, "stats", stats_of(graph, y->producer, dy));
    for (int i = 0; i < count; i++)
        trn_output_add(graph, names[i], grads[i]);
}

static void case_packed(trn_graph *graph, trn_shape shape, int heads, trn_tensor *mask)
{
    trn_tensor *qkv = trn_input(graph, "qkv*2", TRN_F32, shape);
    add_gradients(graph, trn_self_attention(graph, qkv, heads, mask), &qkv, 1);
}

static void case_vit(trn_graph *graph)
{
    case_packed(graph, TRN_SHAPE(2, 37, 3 * 3 * 64), 3, NULL);
}

static void case_one_token(trn_graph *graph)
{
    case_packed(graph, TRN_SHAPE(1, 1, 3 * 13), 1, NULL);
}

static void case_odd_head(trn_graph *graph)
{
    case_packed(graph, TRN_SHAPE(3, 19, 3 * 2 * 13), 2, NULL);
}

static void case_head_80(trn_graph *graph)
{
    case_packed(graph, TRN_SHAPE(1, 23, 3 * 2 * 80), 2, NULL);
}

static void case_head_128(trn_graph *graph)
{
    case_packed(graph, TRN_SHAPE(1, 18, 3 * 128), 1, NULL);
}

static void case_head_256(trn_graph *graph)
{
    case_packed(graph, TRN_SHAPE(1, 18, 3 * 256), 1, NULL);
}

static void case_long(trn_graph *graph)
{
    case_packed(graph, TRN_SHAPE(1, 301, 3 * 13), 1, NULL);
}

static void case_mask(trn_graph *graph)
{
    enum { BATCH = 3, TOKENS = 21 };
    float mask[BATCH * TOKENS];
    for (int i = 0; i < BATCH * TOKENS; i++)
        mask[i] = i < TOKENS ? (float)(i % 2) : i < 2 * TOKENS ? 0.0F : (float)(i % 5 > 1);
    case_packed(graph, TRN_SHAPE(BATCH, TOKENS, 3 * 2 * 13), 2,
                trn_constant(graph, "mask", TRN_SHAPE(BATCH, TOKENS), mask));
}

static void case_units(trn_graph *graph)
{
    trn_tensor *qkv = trn_input(graph, "qkv*2", TRN_F32, TRN_SHAPE(2, 5 * 17, 3 * 2 * 13));
    add_gradients(graph, trn_mask_unit_attention(graph, qkv, 2, 5), &qkv, 1);
}

static void case_pooled_units(trn_graph *graph)
{
    trn_tensor *of[] = {trn_input(graph, "q*2", TRN_F32, TRN_SHAPE(2, 3 * 20, 2 * 13)),
                        trn_input(graph, "kv*2", TRN_F32, TRN_SHAPE(2, 3 * 20, 2 * 2 * 13))};
    add_gradients(graph, trn_pooled_unit_attention(graph, of[0], of[1], 2, 3, 4), of, 2);
}

static void case_separate(trn_graph *graph)
{
    trn_tensor *qkv[] = {trn_input(graph, "q*3", TRN_F32, TRN_SHAPE(2, 5, 26)),
                         trn_input(graph, "k*3", TRN_F32, TRN_SHAPE(2, 17, 26)),
                         trn_input(graph, "v", TRN_F32, TRN_SHAPE(2, 17, 26))};
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
    add_gradients(graph, trn_attention(graph, qkv[0], qkv[1], qkv[2], NULL, &desc), qkv, OPERANDS);
}

/* Three windows of seven rows in a tensor of thirty, which begin at the second; the rest has gradient 0. */
static void case_gaps(trn_graph *graph)
{
    trn_tensor *x = trn_input(graph, "x*2", TRN_F32, TRN_SHAPE(30, 3, 26));
    trn_heads_layout rows = {.offset = 78, .window = 9 * 78, .head = 13, .row = 78};
    trn_attention_desc desc = {.outer = 1,
                               .windows = 3,
                               .heads = 2,
                               .queries = 7,
                               .keys = 7,
                               .head_size = 13,
                               .q = rows,
                               .k = rows,
                               .v = rows,
                               .out = {.window = 7 * 26, .head = 13, .row = 26},
                               .out_shape = TRN_SHAPE(3, 7, 26)};
    desc.k.offset += 26;
    desc.v.offset += 52;
    add_gradients(graph, trn_attention(graph, x, x, x, NULL, &desc), &x, 1);
}

/* Every row is query, key and value; keys and values are the same for both samples, and windows overlap. */
static void case_shared_rows(trn_graph *graph)
{
    trn_tensor *x = trn_input(graph, "x*2", TRN_F32, TRN_SHAPE(2, 12, 26));
    trn_attention_desc desc = {.outer = 2,
                               .windows = 3,
                               .heads = 2,
                               .queries = 4,
                               .keys = 6,
                               .head_size = 13,
                               .q = {.outer = 12 * 26, .window = 4 * 26, .head = 13, .row = 26},
                               .k = {.window = 3 * 26, .head = 13, .row = 26},
                               .v = {.window = 3 * 26, .head = 13, .row = 26},
                               .out = {.outer = 12 * 26, .window = 4 * 26, .head = 13, .row = 26},
                               .out_shape = TRN_SHAPE(2, 12, 26)};
    add_gradients(graph, trn_attention(graph, x, x, x, NULL, &desc), &x, 1);
}

static const trn_op_case cases[] = {
    {"packed, head 64", case_vit, 0},
    {"one token", case_one_token, 0},
    {"head 13", case_odd_head, 0},
    {"head 80", case_head_80, 0},
    {"head 128", case_head_128, 0},
    {"head 256", case_head_256, 0},
    {"301 tokens", case_long, 0},
    {"key mask", case_mask, 0},
    {"mask units", case_units, 0},
    {"mask units, pooled queries", case_pooled_units, 0},
    {"separate q, k and v", case_separate, 0},
    {"windows that leave gaps", case_gaps, 0},
    {"rows that share elements", case_shared_rows, 0},
};

const trn_op trn_op_attention_stats = {
    .name = "attention_stats",
    .why_no_gradient = "it is part of a gradient, and second derivatives are not taken",
    .reference = stats_reference,
    .lower = stats_lower,
    .cost = stats_cost,
    .describe = describe,
    .variants = variants,
    .variant_count = (int)TRN_COUNT(variants),
};

const trn_op trn_op_attention_grad = {
    .name = "attention_grad",
    .why_no_gradient = "it is a gradient, and second derivatives are not taken",
    .reference = grad_reference,
    .lower = grad_lower,
    .cost = grad_cost,
    .describe = grad_describe,
    .variants = variants,
    .variant_count = (int)TRN_COUNT(variants),
    .cases = cases,
    .case_count = (int)TRN_COUNT(cases),
};
