/* Embedding one image that is in memory already. */
#include "job_private.h"

trn_status trn_embed_image(trn_gpu *gpu, trn_encoder *encoder, const float *image, int channels, int side,
                           const trn_encode_options *options, float *vector, trn_error *err)
{
    static const trn_encode_options defaults = {.pool = TRN_FEATURES_MEAN};
    if (!options) options = &defaults;
    if (channels < 1 || side < 1)
        return trn_fail(err, TRN_ERR_ARGUMENT, "an image of %d channels and %d pixels cannot be embedded",
                        channels, side);
    if (options->pool == TRN_FEATURES_DENSE)
        return trn_fail(err, TRN_ERR_ARGUMENT, "an image becomes one vector: pool by mean or cls, not dense");
    trn_exec *exec = NULL;
    trn_features features = {0};
    trn_graph *graph = trn_graph_create();
    trn_status status = graph ? TRN_OK : trn_fail_memory(err, 0, "a graph");
    if (status != TRN_OK) goto fail;
    trn_tensor *input = trn_input(graph, "image", TRN_F32, TRN_SHAPE(1, channels, side, side));
    status = trn_encoder_build(encoder, graph, input, options, &features, err);
    if (status != TRN_OK) goto fail;
    trn_output_add(graph, "vector", features.pooled);
    status = trn_compile(graph, gpu, NULL, &exec, err);
    if (status == TRN_OK) status = trn_exec_set(exec, "image", image, err);
    if (status == TRN_OK) status = trn_exec_run(exec, NULL, err);
    if (status == TRN_OK) status = trn_exec_get(exec, "vector", vector, err);
fail:
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
    return status;
}
