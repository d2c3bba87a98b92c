/* bench --training: the graph of a whole training step. */
#include "bench.h"
#include "nn.h"

#include <stdlib.h>

enum { CLASSES = 10 };
static const trn_optimizer_desc optimizer = {
    .kind = TRN_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.05};

static bool all_learn(void *user, const char *name)
{
    (void)user, (void)name;
    return true;
}

static trn_status fill_head(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    (void)user, (void)name, (void)err;
    for (int64_t i = 0; i < trn_shape_count(shape); i++)
        ((float *)out)[i] = 0.02F * (float)trn_hash_uniform(2, (uint64_t)i);
    return TRN_OK;
}

static trn_status build(trn_encoder *encoder, trn_graph *graph, int batch, trn_error *err)
{
    static const trn_parameters parameters = {.fill = fill_head};
    const trn_encode_options pooled = {.pool = TRN_FEATURES_MEAN};
    const trn_class_loss_desc loss_desc = {.ignored = -1};
    trn_features features = {0};
    trn_graph_train(graph, all_learn, NULL);
    trn_tensor *image = trn_encoder_natural_input(encoder, graph, batch);
    trn_status status = trn_encoder_build(encoder, graph, image, &pooled, &features, err);
    if (status != TRN_OK) return status;
    trn_scope scope = trn_scope_root(graph, &parameters);
    trn_tensor *logits = trn_nn_linear(&scope, "bench.head", features.pooled, CLASSES, true);
    trn_tensor *labels = trn_input(graph, "labels", TRN_I32, TRN_SHAPE(batch));
    trn_tensor *loss = trn_loss_cross_entropy(graph, logits, labels, &loss_desc);
    trn_output_add(graph, "loss", loss);
    return trn_optimizer_minimize(graph, loss, &optimizer, err);
}

static trn_status set_inputs(trn_exec *exec, int batch, trn_error *err)
{
    float now[TRN_STEP_NOW];
    int32_t *labels = malloc((size_t)batch * sizeof *labels);
    if (!labels) return trn_fail_memory(err, (size_t)batch * sizeof *labels, "labels");
    for (int i = 0; i < batch; i++)
        labels[i] = i % CLASSES;
    trn_status status = trn_exec_set(exec, "labels", labels, err);
    free(labels);
    trn_optimizer_now(&optimizer, 0, 0, 1e-6, now);
    return status == TRN_OK ? trn_exec_set(exec, TRN_OPTIMIZER_INPUT, now, err) : status;
}

trn_status bench_training_create(trn_encoder *encoder, trn_gpu *gpu, int batch, bool recompute,
                                 bench_training *out, trn_error *err)
{
    out->graph = trn_graph_create();
    if (!out->graph) return trn_fail_memory(err, 0, "a graph");
    trn_graph_recompute(out->graph, recompute);
    trn_status status = build(encoder, out->graph, batch, err);
    if (status == TRN_OK) status = trn_compile(out->graph, gpu, NULL, &out->exec, err);
    return status == TRN_OK ? set_inputs(out->exec, batch, err) : status;
}

void bench_training_destroy(bench_training *training)
{
    trn_exec_destroy(training->exec);
    trn_graph_destroy(training->graph);
}
