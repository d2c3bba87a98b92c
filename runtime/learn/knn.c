/* The nearest neighbours vote. The device finds candidates by one matrix product, in blocks; the host orders
 * them by exact distances, so that rounding on the device changes no vote. */
#include "probe_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    QUERY_ROWS = 256,
    TRAIN_ROWS = 2048,
    SPARE = 16, /* candidates beyond k, for those that rounding put into another order */
};

typedef struct neighbour {
    double distance;
    size_t index;
} neighbour;

typedef struct search {
    const trn_probe_sets *sets;
    trn_distance distance;
    size_t k, keep, channels;
    learn_scaling scaling;
    double *norms; /* of the training features as they are compared; cosine only */
    learn_graph net;
    size_t query_rows, train_rows;
    float *train, *query, *lengths, *distances; /* of one run */
    neighbour *best;                            /* [query_rows, keep], ascending */
    size_t *found;                              /* [query_rows] */
    float *scores;                              /* [queries, classes] */
} search;

static void search_close(search *s)
{
    learn_graph_close(&s->net);
    learn_scaling_close(&s->scaling);
    free(s->norms);
    free(s->train);
    free(s->query);
    free(s->lengths);
    free(s->distances);
    free(s->best);
    free(s->found);
    free(s->scores);
}

/* Squared distances without the query's own length, which is the same for all: |t|^2 - 2 q t. Queries come
 * multiplied by -2. */
static trn_status compile(trn_gpu *gpu, search *s, trn_error *err)
{
    trn_graph *graph = s->net.graph = trn_graph_create();
    if (!graph) return trn_fail_memory(err, 0, "a graph");
    int64_t queries = (int64_t)s->query_rows, rows = (int64_t)s->train_rows, channels = (int64_t)s->channels;
    trn_tensor *query = trn_input(graph, "query", TRN_F32, TRN_SHAPE(queries, channels));
    trn_tensor *train = trn_input(graph, "train", TRN_F32, TRN_SHAPE(rows, channels));
    trn_tensor *lengths = trn_input(graph, "lengths", TRN_F32, TRN_SHAPE(rows));
    trn_output_add(graph, "distances", trn_linear(graph, query, train, lengths));
    return trn_compile(graph, gpu, NULL, &s->net.exec, err);
}

static double norm_of(const search *s, const float *row)
{
    double sum = 0;
    for (size_t c = 0; c < s->channels; c++) {
        double x = row[c] - s->scaling.mean[c];
        sum += x * x;
    }
    return sqrt(sum);
}

static trn_status search_open(trn_gpu *gpu, const trn_probe_sets *sets, const trn_knn_options *options,
                              search *s, trn_error *err)
{
    const trn_feature_set *train = sets->train;
    size_t valid = learn_has_samples(sets->valid) ? sets->valid->count : 0,
           test = learn_has_samples(sets->test) ? sets->test->count : 0, most = TRN_MAX(valid, test);
    s->k = options->k ? (size_t)options->k : 5;
    s->keep = TRN_MIN(s->k + SPARE, train->count);
    s->query_rows = TRN_MAX(TRN_MIN(most, QUERY_ROWS), 1);
    s->train_rows = TRN_MIN(train->count, TRAIN_ROWS);
    /* a shift changes no squared distance, but what is near zero is computed better */
    bool center = options->center || options->distance == TRN_DISTANCE_L2;
    trn_status status = learn_scaling_open(train, center, false, &s->scaling, err);
    if (status != TRN_OK) return status;
    s->norms = malloc(train->count * sizeof *s->norms);
    s->train = calloc(s->train_rows * s->channels, sizeof *s->train);
    s->query = calloc(s->query_rows * s->channels, sizeof *s->query);
    s->lengths = calloc(s->train_rows, sizeof *s->lengths);
    s->distances = malloc(s->query_rows * s->train_rows * sizeof *s->distances);
    s->best = malloc(s->query_rows * s->keep * sizeof *s->best);
    s->found = malloc(s->query_rows * sizeof *s->found);
    s->scores = malloc(TRN_MAX(most, 1) * (size_t)sets->classes * sizeof *s->scores);
    if (!s->norms || !s->train || !s->query || !s->lengths || !s->distances || !s->best || !s->found ||
        !s->scores)
        return trn_fail_memory(err, s->query_rows * s->train_rows * sizeof *s->distances,
                               "distances of neighbours");
    for (size_t i = 0; i < train->count; i++)
        s->norms[i] = norm_of(s, train->values + i * s->channels);
    return compile(gpu, s, err);
}

/* ---- on the device ---- */

/* Rows as the device compares them, times `factor`; of cosine distances their lengths are 1. */
static void prepare(const search *s, const float *from, size_t count, double factor, float *to)
{
    for (size_t i = 0; i < count; i++) {
        const float *row = from + i * s->channels;
        double norm = s->distance == TRN_DISTANCE_COSINE ? norm_of(s, row) : 1;
        double scale = norm > 0 ? factor / norm : 0;
        for (size_t c = 0; c < s->channels; c++)
            to[i * s->channels + c] = (float)((row[c] - s->scaling.mean[c]) * scale);
    }
}

static trn_status load_train(search *s, size_t first, size_t count, trn_error *err)
{
    prepare(s, s->sets->train->values + first * s->channels, count, 1, s->train);
    for (size_t i = 0; i < count; i++) {
        double norm = s->distance == TRN_DISTANCE_COSINE ? 1 : s->norms[first + i];
        s->lengths[i] = (float)(norm * norm);
    }
    trn_status status = trn_exec_set(s->net.exec, "train", s->train, err);
    return status == TRN_OK ? trn_exec_set(s->net.exec, "lengths", s->lengths, err) : status;
}

static bool is_nearer(const neighbour *a, const neighbour *b)
{
    return a->distance < b->distance || (!(a->distance > b->distance) && a->index < b->index);
}

/* Keeps it if it is one of the nearest. */
static void offer(neighbour *best, size_t *found, size_t keep, neighbour candidate)
{
    if (*found == keep && !is_nearer(&candidate, &best[keep - 1])) return;
    size_t at = *found < keep ? (*found)++ : keep - 1;
    for (; at > 0 && is_nearer(&candidate, &best[at - 1]); at--)
        best[at] = best[at - 1];
    best[at] = candidate;
}

static trn_status search_block(search *s, size_t queries, size_t first, trn_error *err)
{
    size_t count = TRN_MIN(s->train_rows, s->sets->train->count - first);
    trn_status status = load_train(s, first, count, err);
    if (status == TRN_OK) status = trn_exec_run(s->net.exec, NULL, err);
    if (status == TRN_OK) status = trn_exec_get(s->net.exec, "distances", s->distances, err);
    for (size_t q = 0; status == TRN_OK && q < queries; q++)
        for (size_t i = 0; i < count; i++)
            offer(s->best + q * s->keep, &s->found[q], s->keep,
                  (neighbour){s->distances[q * s->train_rows + i], first + i});
    return status;
}

/* ---- on the host ---- */

static double exact_distance(const search *s, const float *query, double query_norm, size_t index)
{
    const float *train = s->sets->train->values + index * s->channels;
    double sum = 0;
    if (s->distance == TRN_DISTANCE_L2) {
        for (size_t c = 0; c < s->channels; c++)
            sum += ((double)query[c] - train[c]) * ((double)query[c] - train[c]);
        return sum;
    }
    for (size_t c = 0; c < s->channels; c++)
        sum += (query[c] - s->scaling.mean[c]) * (train[c] - s->scaling.mean[c]);
    double norms = query_norm * s->norms[index];
    return norms > 0 ? 1 - sum / norms : 1;
}

static void reorder(const search *s, const float *query, neighbour *best, size_t count)
{
    double norm = norm_of(s, query);
    for (size_t done = 0; done < count;) {
        neighbour candidate = {exact_distance(s, query, norm, best[done].index), best[done].index};
        offer(best, &done, count, candidate); /* the part before `done` is ordered already */
    }
}

static void vote(const search *s, const neighbour *best, float *scores)
{
    const trn_feature_set *train = s->sets->train;
    size_t classes = (size_t)s->sets->classes;
    for (size_t c = 0; c < classes; c++)
        scores[c] = 0;
    for (size_t i = 0; i < s->k; i++) {
        const int32_t *labels = train->labels + best[i].index * train->label_count;
        if (!learn_is_multilabel(s->sets)) scores[labels[0]] += 1;
        for (size_t c = 0; c < classes && learn_is_multilabel(s->sets); c++)
            scores[c] += labels[c] ? 1.0F : 0.0F;
    }
    for (size_t c = 0; c < classes; c++)
        scores[c] /= (float)s->k;
}

static trn_status search_queries(search *s, const float *queries, size_t count, float *scores, trn_error *err)
{
    prepare(s, queries, count, -2, s->query);
    memset(s->found, 0, s->query_rows * sizeof *s->found);
    trn_status status = trn_exec_set(s->net.exec, "query", s->query, err);
    for (size_t first = 0; status == TRN_OK && first < s->sets->train->count; first += s->train_rows)
        status = search_block(s, count, first, err);
    for (size_t q = 0; status == TRN_OK && q < count; q++) {
        neighbour *best = s->best + q * s->keep;
        reorder(s, queries + q * s->channels, best, s->found[q]);
        vote(s, best, scores + q * (size_t)s->sets->classes);
    }
    return status;
}

static trn_status search_set(search *s, const trn_feature_set *set, trn_class_scores *classes,
                             trn_multilabel_scores *labels, trn_error *err)
{
    if (!learn_has_samples(set)) return TRN_OK;
    trn_status status = TRN_OK;
    for (size_t at = 0; status == TRN_OK && at < set->count; at += s->query_rows)
        status = search_queries(s, set->values + at * s->channels, TRN_MIN(s->query_rows, set->count - at),
                                s->scores + at * (size_t)s->sets->classes, err);
    return status == TRN_OK ? learn_score(s->sets, set, s->scores, 0.5, classes, labels, err) : status;
}

trn_status trn_probe_knn(trn_gpu *gpu, const trn_probe_sets *sets, const trn_knn_options *options,
                         trn_probe_scores *out, trn_error *err)
{
    uint64_t begin = trn_now_ns();
    *out = (trn_probe_scores){.converged = true};
    trn_status status = learn_check_sets(sets, false, "kNN", err);
    if (status != TRN_OK) return status;
    if (options->k < 0 || (size_t)(options->k ? options->k : 5) > sets->train->count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "kNN: %d neighbours of %zu training samples", options->k,
                        sets->train->count);
    search s = {.sets = sets, .distance = options->distance, .channels = (size_t)sets->train->channels};
    status = search_open(gpu, sets, options, &s, err);
    if (status == TRN_OK) status = search_set(&s, sets->valid, &out->valid, &out->valid_labels, err);
    if (status == TRN_OK) status = search_set(&s, sets->test, &out->test, &out->test_labels, err);
    out->parameter = (double)s.k;
    search_close(&s);
    out->seconds = (double)(trn_now_ns() - begin) / 1e9;
    return status;
}
