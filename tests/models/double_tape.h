/* A second opinion on training: networks in double on the host, with gradients by a tape of its own. It
 * shares no code with the graph, its kernels or their references, and is written for clearness, not for
 * speed. */
#ifndef TEST_MODELS_DOUBLE_TAPE_H
#define TEST_MODELS_DOUBLE_TAPE_H

#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "weights.h"

enum { TAPE_NODES = 2048, TAPE_PARAMS = 256, TAPE_OPERANDS = 3 };

/* A value v [count] with its gradient g, and how the gradient goes on to the operands. */
typedef struct tape_node {
    double *v, *g, *kept;
    int64_t count;
    const struct tape_node *operands[TAPE_OPERANDS];
    void (*back)(const struct tape_node *node);
    int64_t sizes[4];
    const int64_t *index;
} tape_node;

/* A parameter, what AdamW remembers of it, and the step that was taken last. */
typedef struct tape_param {
    char name[128];
    tape_node node;
    double *first, *second, *step;
} tape_param;

typedef struct tape {
    trn_arena *lasting, *arena; /* parameters; one forward and backward pass */
    trn_weights *weights;       /* where parameters begin */
    tape_param *params;
    int param_count;
    tape_node **nodes;
    int node_count;
} tape;

static inline void *tape_alloc(trn_arena *arena, int64_t count, size_t size)
{
    void *memory = trn_arena_array(arena, (size_t)count, size);
    assert_non_null(memory);
    return memory;
}

static inline tape tape_open(trn_weights *weights)
{
    tape t = {.lasting = trn_arena_create(), .arena = trn_arena_create(), .weights = weights};
    assert_true(t.lasting && t.arena);
    t.params = tape_alloc(t.lasting, TAPE_PARAMS, sizeof *t.params);
    t.nodes = tape_alloc(t.lasting, TAPE_NODES, sizeof(tape_node *));
    return t;
}

static inline void tape_close(tape *t)
{
    trn_arena_destroy(t->arena);
    trn_arena_destroy(t->lasting);
}

/* Forgets all but the parameters. */
static inline void tape_restart(tape *t)
{
    trn_arena_destroy(t->arena);
    t->arena = trn_arena_create();
    assert_non_null(t->arena);
    t->node_count = 0;
}

static inline tape_node *tape_add(tape *t, int64_t count, void (*back)(const tape_node *node),
                                  const tape_node *a, const tape_node *b, const tape_node *c)
{
    tape_node *node = tape_alloc(t->arena, 1, sizeof *node);
    *node = (tape_node){.count = count, .back = back, .operands = {a, b, c}};
    node->v = tape_alloc(t->arena, count, sizeof(double));
    node->g = tape_alloc(t->arena, count, sizeof(double));
    assert_true(t->node_count < TAPE_NODES);
    t->nodes[t->node_count++] = node;
    return node;
}

/* Gradients of a loss [1] with respect to all that it came from. */
static inline void tape_backward(const tape *t, tape_node *loss)
{
    assert_int_equal(loss->count, 1);
    for (int i = 0; i < t->param_count; i++)
        memset(t->params[i].node.g, 0, (size_t)t->params[i].node.count * sizeof(double));
    loss->g[0] = 1;
    for (int i = t->node_count - 1; i >= 0; i--)
        if (t->nodes[i]->back) t->nodes[i]->back(t->nodes[i]);
}

/* ---- leaves ---- */

static inline tape_node *tape_constant(tape *t, int64_t count, const float *values)
{
    tape_node *node = tape_add(t, count, NULL, NULL, NULL, NULL);
    for (int64_t i = 0; i < count; i++)
        node->v[i] = (double)values[i];
    return node;
}

/* A parameter, asked for the first time or again. */
static inline const tape_node *tape_weight(tape *t, const char *prefix, const char *name, int ndim,
                                           const int64_t *shape)
{
    char full[sizeof t->params->name];
    trn_error err = {0};
    int64_t count = 1;
    snprintf(full, sizeof full, "%s%s", prefix, name);
    for (int i = 0; i < t->param_count; i++)
        if (!strcmp(t->params[i].name, full)) return &t->params[i].node;
    assert_true(t->param_count < TAPE_PARAMS);
    tape_param *param = &t->params[t->param_count++];
    memcpy(param->name, full, sizeof full);
    for (int i = 0; i < ndim; i++)
        count *= shape[i];
    float *values = tape_alloc(t->lasting, count, sizeof *values);
    assert_trn_ok(trn_weights_read(t->weights, full, shape, ndim, values, &err), err);
    param->node = (tape_node){.count = count};
    double **const fields[] = {&param->node.v, &param->node.g, &param->first, &param->second, &param->step};
    for (size_t i = 0; i < TRN_COUNT(fields); i++)
        *fields[i] = tape_alloc(t->lasting, count, sizeof(double));
    for (int64_t i = 0; i < count; i++)
        param->node.v[i] = (double)values[i];
    return &param->node;
}

static inline const tape_node *tape_vector(tape *t, const char *prefix, const char *name, int64_t count)
{
    return tape_weight(t, prefix, name, 1, &count);
}

static inline const tape_node *tape_matrix(tape *t, const char *prefix, const char *name, int64_t rows,
                                           int64_t columns)
{
    return tape_weight(t, prefix, name, 2, (const int64_t[]){rows, columns});
}

/* ---- pointwise ---- */

static inline void tape_back_add(const tape_node *node)
{
    const tape_node *a = node->operands[0], *b = node->operands[1];
    for (int64_t i = 0; i < node->count; i++) {
        a->g[i] += node->g[i];
        b->g[i % b->count] += node->g[i];
    }
}

/* a + b, b repeated along what is before its shape */
static inline tape_node *tape_plus(tape *t, const tape_node *a, const tape_node *b)
{
    tape_node *node = tape_add(t, a->count, tape_back_add, a, b, NULL);
    assert_int_equal(a->count % b->count, 0);
    for (int64_t i = 0; i < a->count; i++)
        node->v[i] = a->v[i] + b->v[i % b->count];
    return node;
}

static inline void tape_back_times(const tape_node *node)
{
    const tape_node *a = node->operands[0], *b = node->operands[1];
    for (int64_t i = 0; i < node->count; i++) {
        a->g[i] += node->g[i] * b->v[i % b->count];
        b->g[i % b->count] += node->g[i] * a->v[i];
    }
}

static inline tape_node *tape_times(tape *t, const tape_node *a, const tape_node *b)
{
    tape_node *node = tape_add(t, a->count, tape_back_times, a, b, NULL);
    assert_int_equal(a->count % b->count, 0);
    for (int64_t i = 0; i < a->count; i++)
        node->v[i] = a->v[i] * b->v[i % b->count];
    return node;
}

static inline void tape_back_gelu(const tape_node *node)
{
    const tape_node *x = node->operands[0];
    for (int64_t i = 0; i < node->count; i++) {
        double below = (1 + erf(x->v[i] / sqrt(2))) / 2;
        double density = exp(-x->v[i] * x->v[i] / 2) / sqrt(8 * atan(1));
        x->g[i] += node->g[i] * (below + x->v[i] * density);
    }
}

static inline tape_node *tape_gelu(tape *t, const tape_node *x)
{
    tape_node *node = tape_add(t, x->count, tape_back_gelu, x, NULL, NULL);
    for (int64_t i = 0; i < x->count; i++)
        node->v[i] = x->v[i] * (1 + erf(x->v[i] / sqrt(2))) / 2;
    return node;
}

static inline void tape_back_relu(const tape_node *node)
{
    const tape_node *x = node->operands[0];
    for (int64_t i = 0; i < node->count; i++)
        if (x->v[i] > 0) x->g[i] += node->g[i];
}

static inline tape_node *tape_relu(tape *t, const tape_node *x)
{
    tape_node *node = tape_add(t, x->count, tape_back_relu, x, NULL, NULL);
    for (int64_t i = 0; i < x->count; i++)
        node->v[i] = fmax(x->v[i], 0);
    return node;
}

/* ---- moving ---- */

static inline void tape_back_take(const tape_node *node)
{
    const tape_node *x = node->operands[0];
    for (int64_t i = 0; i < node->count; i++)
        if (node->index[i] >= 0) x->g[node->index[i]] += node->g[i];
}

/* Room for the places that tape_take reads. */
static inline int64_t *tape_places(tape *t, int64_t count)
{
    return tape_alloc(t->arena, count, sizeof(int64_t));
}

/* x at each place, 0 where the place is negative */
static inline tape_node *tape_take(tape *t, const tape_node *x, int64_t count, const int64_t *places)
{
    tape_node *node = tape_add(t, count, tape_back_take, x, NULL, NULL);
    node->index = places;
    for (int64_t i = 0; i < count; i++) {
        assert_true(places[i] < x->count);
        node->v[i] = places[i] >= 0 ? x->v[places[i]] : 0;
    }
    return node;
}

static inline tape_node *tape_slice(tape *t, const tape_node *x, int64_t first, int64_t count)
{
    int64_t *places = tape_places(t, count);
    for (int64_t i = 0; i < count; i++)
        places[i] = first + i;
    return tape_take(t, x, count, places);
}

static inline void tape_back_join(const tape_node *node)
{
    const tape_node *a = node->operands[0], *b = node->operands[1];
    for (int64_t i = 0; i < a->count; i++)
        a->g[i] += node->g[i];
    for (int64_t i = 0; i < b->count; i++)
        b->g[i] += node->g[a->count + i];
}

/* b behind a */
static inline tape_node *tape_join(tape *t, const tape_node *a, const tape_node *b)
{
    tape_node *node = tape_add(t, a->count + b->count, tape_back_join, a, b, NULL);
    memcpy(node->v, a->v, (size_t)a->count * sizeof(double));
    memcpy(node->v + a->count, b->v, (size_t)b->count * sizeof(double));
    return node;
}

/* ---- reducing: x [groups,length] -> [groups] ---- */

static inline void tape_back_max(const tape_node *node)
{
    for (int64_t i = 0; i < node->count; i++)
        node->operands[0]->g[node->index[i]] += node->g[i];
}

static inline tape_node *tape_max(tape *t, const tape_node *x, int64_t length)
{
    tape_node *node = tape_add(t, x->count / length, tape_back_max, x, NULL, NULL);
    int64_t *largest = tape_places(t, node->count);
    for (int64_t i = 0; i < node->count; i++) {
        largest[i] = i * length;
        for (int64_t k = 1; k < length; k++)
            if (x->v[i * length + k] > x->v[largest[i]]) largest[i] = i * length + k;
        node->v[i] = x->v[largest[i]];
    }
    node->index = largest;
    return node;
}

static inline void tape_back_mean(const tape_node *node)
{
    const tape_node *x = node->operands[0];
    int64_t length = x->count / node->count;
    for (int64_t i = 0; i < x->count; i++)
        x->g[i] += node->g[i / length] / (double)length;
}

static inline tape_node *tape_mean(tape *t, const tape_node *x, int64_t length)
{
    tape_node *node = tape_add(t, x->count / length, tape_back_mean, x, NULL, NULL);
    for (int64_t i = 0; i < x->count; i++)
        node->v[i / length] += x->v[i] / (double)length;
    return node;
}

/* ---- layers ---- */

static inline void tape_back_linear(const tape_node *node)
{
    const tape_node *x = node->operands[0], *w = node->operands[1], *b = node->operands[2];
    int64_t n = node->sizes[0], k = node->sizes[1];
    for (int64_t i = 0; i < node->count; i++) {
        double g = node->g[i], *gx = x->g + i / n * k, *gw = w->g + i % n * k;
        const double *vx = x->v + i / n * k, *vw = w->v + i % n * k;
        b->g[i % n] += g;
        for (int64_t m = 0; m < k; m++) {
            gx[m] += g * vw[m];
            gw[m] += g * vx[m];
        }
    }
}

/* x [..,k], w [n,k], b [n] -> [..,n] */
static inline tape_node *tape_linear_of(tape *t, const tape_node *x, const tape_node *w, const tape_node *b)
{
    int64_t n = b->count, k = w->count / n;
    assert_int_equal(x->count % k, 0);
    tape_node *node = tape_add(t, x->count / k * n, tape_back_linear, x, w, b);
    node->sizes[0] = n;
    node->sizes[1] = k;
    for (int64_t i = 0; i < node->count; i++) {
        const double *vx = x->v + i / n * k, *vw = w->v + i % n * k;
        double sum = b->v[i % n];
        for (int64_t m = 0; m < k; m++)
            sum += vx[m] * vw[m];
        node->v[i] = sum;
    }
    return node;
}

static inline tape_node *tape_linear(tape *t, const char *prefix, const char *name, const tape_node *x,
                                     int64_t in, int64_t out)
{
    char weight[64], bias[64];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    const tape_node *w = tape_matrix(t, prefix, weight, out, in);
    return tape_linear_of(t, x, w, tape_vector(t, prefix, bias, out));
}

static inline void tape_back_norm(const tape_node *node)
{
    const tape_node *x = node->operands[0], *w = node->operands[1], *b = node->operands[2];
    int64_t c = w->count;
    for (int64_t row = 0; row < node->count / c; row++) {
        const double *g = node->g + row * c, *normed = node->kept + row * (c + 1), scale = normed[c];
        double mean = 0, along = 0;
        for (int64_t i = 0; i < c; i++) {
            mean += g[i] * w->v[i] / (double)c;
            along += g[i] * w->v[i] * normed[i] / (double)c;
        }
        for (int64_t i = 0; i < c; i++) {
            w->g[i] += g[i] * normed[i];
            b->g[i] += g[i];
            x->g[row * c + i] += scale * (g[i] * w->v[i] - mean - normed[i] * along);
        }
    }
}

/* x [..,c] */
static inline tape_node *tape_norm(tape *t, const char *prefix, const char *name, const tape_node *x,
                                   int64_t c, double eps)
{
    char weight[64], bias[64];
    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    const tape_node *w = tape_vector(t, prefix, weight, c), *b = tape_vector(t, prefix, bias, c);
    tape_node *node = tape_add(t, x->count, tape_back_norm, x, w, b);
    node->kept = tape_alloc(t->arena, x->count / c * (c + 1), sizeof(double));
    for (int64_t row = 0; row < x->count / c; row++) {
        const double *v = x->v + row * c;
        double *normed = node->kept + row * (c + 1), mean = 0, variance = 0;
        for (int64_t i = 0; i < c; i++)
            mean += v[i] / (double)c;
        for (int64_t i = 0; i < c; i++)
            variance += (v[i] - mean) * (v[i] - mean) / (double)c;
        normed[c] = 1 / sqrt(variance + eps);
        for (int64_t i = 0; i < c; i++) {
            normed[i] = (v[i] - mean) * normed[c];
            node->v[row * c + i] = normed[i] * w->v[i] + b->v[i];
        }
    }
    return node;
}

static inline void tape_back_attention(const tape_node *node)
{
    const tape_node *q = node->operands[0], *k = node->operands[1], *v = node->operands[2];
    int64_t keys = node->sizes[1], d = node->sizes[2], queries = node->sizes[0];
    for (int64_t row = 0; row < node->count / d; row++) {
        const double *p = node->kept + row * keys, *g = node->g + row * d;
        int64_t first = row / queries * keys;
        double along = 0;
        for (int64_t j = 0; j < keys; j++)
            for (int64_t m = 0; m < d; m++) {
                along += p[j] * g[m] * v->v[(first + j) * d + m];
                v->g[(first + j) * d + m] += p[j] * g[m];
            }
        for (int64_t j = 0; j < keys; j++) {
            double score = -along;
            for (int64_t m = 0; m < d; m++)
                score += g[m] * v->v[(first + j) * d + m];
            score *= p[j] / sqrt((double)d);
            for (int64_t m = 0; m < d; m++) {
                q->g[row * d + m] += score * k->v[(first + j) * d + m];
                k->g[(first + j) * d + m] += score * q->v[row * d + m];
            }
        }
    }
}

/* p [keys] = softmax(q k^T / sqrt d) of one query */
static inline void tape_softmax_scores(const double *q, const double *k, int64_t keys, int64_t d, double *p)
{
    double most = -INFINITY, sum = 0;
    for (int64_t j = 0; j < keys; j++) {
        p[j] = 0;
        for (int64_t m = 0; m < d; m++)
            p[j] += q[m] * k[j * d + m] / sqrt((double)d);
        most = fmax(most, p[j]);
    }
    for (int64_t j = 0; j < keys; j++)
        sum += p[j] = exp(p[j] - most);
    for (int64_t j = 0; j < keys; j++)
        p[j] /= sum;
}

/* q [groups,queries,d], k and v [groups,keys,d] -> [groups,queries,d] */
static inline tape_node *tape_attention(tape *t, const tape_node *q, const tape_node *k, const tape_node *v,
                                        int64_t groups, int64_t d)
{
    int64_t keys = k->count / (groups * d), queries = q->count / (groups * d);
    tape_node *node = tape_add(t, q->count, tape_back_attention, q, k, v);
    node->sizes[0] = queries;
    node->sizes[1] = keys;
    node->sizes[2] = d;
    node->kept = tape_alloc(t->arena, groups * queries * keys, sizeof(double));
    for (int64_t row = 0; row < groups * queries; row++) {
        int64_t first = row / queries * keys;
        double *p = node->kept + row * keys;
        tape_softmax_scores(q->v + row * d, k->v + first * d, keys, d, p);
        for (int64_t j = 0; j < keys; j++)
            for (int64_t m = 0; m < d; m++)
                node->v[row * d + m] += p[j] * v->v[(first + j) * d + m];
    }
    return node;
}

/* ---- losses ---- */

static inline void tape_back_cross_entropy(const tape_node *node)
{
    const tape_node *z = node->operands[0];
    int64_t classes = node->sizes[0], batch = z->count / classes;
    for (int64_t i = 0; i < z->count; i++) {
        double wanted = node->index[i / classes] == i % classes;
        z->g[i] += node->g[0] * (node->kept[i] - wanted) / (double)batch;
    }
}

/* Mean over the batch; z [batch,classes] */
static inline tape_node *tape_cross_entropy(tape *t, const tape_node *z, int64_t batch, const int32_t *labels)
{
    int64_t classes = z->count / batch, *wanted = tape_places(t, batch);
    tape_node *node = tape_add(t, 1, tape_back_cross_entropy, z, NULL, NULL);
    const double one = 1;
    node->kept = tape_alloc(t->arena, z->count, sizeof(double));
    node->sizes[0] = classes;
    node->index = wanted;
    for (int64_t b = 0; b < batch; b++) {
        wanted[b] = labels[b];
        tape_softmax_scores(&one, z->v + b * classes, classes, 1, node->kept + b * classes);
        node->v[0] -= log(node->kept[b * classes + labels[b]]) / (double)batch;
    }
    return node;
}

/* ---- steps ---- */

typedef struct tape_adamw {
    double lr, decay, beta1, beta2, eps;
} tape_adamw;

/* Step 1, 2, .. of all parameters. Loshchilov and Hutter 2019 */
static inline void tape_step(tape *t, const tape_adamw *rule, int step)
{
    double first_left = 1 - pow(rule->beta1, step), second_left = 1 - pow(rule->beta2, step);
    for (int i = 0; i < t->param_count; i++) {
        tape_param *p = &t->params[i];
        for (int64_t k = 0; k < p->node.count; k++) {
            double g = p->node.g[k], before = p->node.v[k];
            p->first[k] = rule->beta1 * p->first[k] + (1 - rule->beta1) * g;
            p->second[k] = rule->beta2 * p->second[k] + (1 - rule->beta2) * g * g;
            double change = p->first[k] / first_left / (sqrt(p->second[k] / second_left) + rule->eps);
            p->node.v[k] = before * (1 - rule->lr * rule->decay) - rule->lr * change;
            p->step[k] = p->node.v[k] - before;
        }
    }
}

/* All parameters, by a share of their last steps. */
static inline void tape_move(tape *t, double share)
{
    for (int i = 0; i < t->param_count; i++)
        for (int64_t k = 0; k < t->params[i].node.count; k++)
            t->params[i].node.v[k] += share * t->params[i].step[k];
}

/* How fast the loss grows along the last steps, by the gradients. */
static inline double tape_slope(const tape *t)
{
    double slope = 0;
    for (int i = 0; i < t->param_count; i++)
        for (int64_t k = 0; k < t->params[i].node.count; k++)
            slope += t->params[i].node.g[k] * t->params[i].step[k];
    return slope;
}

#endif
