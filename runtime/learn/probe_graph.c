/* A linear layer on the device: logits of sets of features. */
#include "probe_private.h"

#include <stdlib.h>
#include <string.h>

enum { RUN_FLOATS = 1 << 22, RUN_ROWS = 4096 };

void learn_graph_close(learn_graph *graph)
{
    trn_exec_destroy(graph->exec);
    trn_graph_destroy(graph->graph);
    *graph = (learn_graph){0};
}

static trn_status compile(trn_gpu *gpu, learn_scorer *scorer, trn_error *err)
{
    trn_graph *graph = scorer->net.graph = trn_graph_create();
    if (!graph) return trn_fail_memory(err, 0, "a graph");
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(scorer->rows, scorer->channels));
    trn_tensor *w = trn_input(graph, "w", TRN_F32, TRN_SHAPE(scorer->classes, scorer->channels));
    trn_tensor *b = trn_input(graph, "b", TRN_F32, TRN_SHAPE(scorer->classes));
    trn_output_add(graph, "logits", trn_linear(graph, x, w, b));
    return trn_compile(graph, gpu, NULL, &scorer->net.exec, err);
}

trn_status learn_scorer_open(trn_gpu *gpu, size_t count, int64_t channels, int classes, learn_scorer *out,
                             trn_error *err)
{
    int64_t rows = TRN_MIN(TRN_MAX(RUN_FLOATS / channels, 1), RUN_ROWS);
    *out = (learn_scorer){
        .rows = TRN_MAX(TRN_MIN(rows, (int64_t)count), 1), .channels = channels, .classes = classes};
    size_t x = (size_t)(out->rows * channels), y = (size_t)out->rows * (size_t)classes;
    out->x = calloc(x, sizeof *out->x);
    out->y = malloc(y * sizeof *out->y);
    trn_status status =
        out->x && out->y ? TRN_OK : trn_fail_memory(err, (x + y) * sizeof *out->x, "rows of features");
    if (status == TRN_OK) status = compile(gpu, out, err);
    if (status != TRN_OK) learn_scorer_close(out);
    return status;
}

void learn_scorer_close(learn_scorer *scorer)
{
    learn_graph_close(&scorer->net);
    free(scorer->x);
    free(scorer->y);
    *scorer = (learn_scorer){0};
}

trn_status learn_scorer_set(learn_scorer *scorer, const float *weights, const float *bias, trn_error *err)
{
    trn_status status = trn_exec_set(scorer->net.exec, "w", weights, err);
    return status == TRN_OK ? trn_exec_set(scorer->net.exec, "b", bias, err) : status;
}

static trn_status run_rows(learn_scorer *scorer, const float *values, size_t count, float *logits,
                           trn_error *err)
{
    size_t row = (size_t)scorer->channels, out = (size_t)scorer->classes;
    bool full = count == (size_t)scorer->rows;
    if (!full) memcpy(scorer->x, values, count * row * sizeof *values);
    trn_status status = trn_exec_set(scorer->net.exec, "x", full ? values : scorer->x, err);
    if (status == TRN_OK) status = trn_exec_run(scorer->net.exec, NULL, err);
    if (status == TRN_OK) status = trn_exec_get(scorer->net.exec, "logits", full ? logits : scorer->y, err);
    if (status == TRN_OK && !full) memcpy(logits, scorer->y, count * out * sizeof *logits);
    return status;
}

trn_status learn_scorer_run(learn_scorer *scorer, const float *values, size_t count, float *logits,
                            trn_error *err)
{
    size_t rows = (size_t)scorer->rows, row = (size_t)scorer->channels, out = (size_t)scorer->classes;
    trn_status status = TRN_OK;
    for (size_t at = 0; status == TRN_OK && at < count; at += rows)
        status = run_rows(scorer, values + at * row, TRN_MIN(rows, count - at), logits + at * out, err);
    return status;
}

trn_status learn_scorer_score(learn_scorer *scorer, const trn_probe_sets *sets, const trn_feature_set *set,
                              trn_class_scores *classes, trn_multilabel_scores *labels, double *loss,
                              trn_error *err)
{
    if (!learn_has_samples(set)) return TRN_OK;
    size_t count;
    float *logits =
        trn_mul_size(set->count, (size_t)sets->classes * sizeof(float), &count) ? malloc(count) : NULL;
    if (!logits) return trn_fail_memory(err, set->count, "logits");
    trn_status status = learn_scorer_run(scorer, set->values, set->count, logits, err);
    if (status == TRN_OK) status = learn_score(sets, set, logits, 0, classes, labels, err);
    if (status == TRN_OK && loss) *loss = learn_mean_loss(sets, set, logits);
    free(logits);
    return status;
}
