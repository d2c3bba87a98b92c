/* A tiny model of each family, for self-tests. */
#include "models_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Windows that an encoder that learns from samples learns from. */
static trn_status fit_to_noise(trn_encoder *encoder, int channels, trn_error *err)
{
    enum { WINDOWS = 4 };
    int side = encoder->spec.tile;
    size_t count = (size_t)WINDOWS * (size_t)channels * (size_t)side * (size_t)side;
    float *values = malloc(count * sizeof *values);
    if (!values) return trn_fail_memory(err, count * sizeof *values, "sample windows");
    uint64_t name = trn_fnv1a64("self-test windows", 17, TRN_FNV_SEED);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)trn_hash_uniform(name, i);
    trn_status status = trn_encoder_fit(encoder, values, WINDOWS, channels, side, err);
    free(values);
    return status;
}

static trn_status tiny_ready(trn_encoder *encoder, int channels, trn_error *err)
{
    if (encoder->spec.needs_fit) return fit_to_noise(encoder, channels, err);
    if (!encoder->spec.needs_weights) return TRN_OK;
    trn_weights *weights;
    trn_status status = trn_weights_open_synthetic(&weights, err);
    if (status == TRN_OK) status = trn_encoder_load(encoder, weights, NULL, err);
    encoder->weights = weights;
    encoder->owns_weights = weights != NULL;
    return status;
}

static trn_status tiny_build(trn_encoder *encoder, trn_graph *graph, trn_error *err)
{
    enum { BATCH = 2 };
    trn_features dense, pooled;
    const trn_encode_options of_dense = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_DENSE};
    const trn_encode_options of_mean = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_MEAN};
    trn_tensor *image = trn_encoder_natural_input(encoder, graph, BATCH);
    trn_status status = trn_encoder_build(encoder, graph, image, &of_dense, &dense, err);
    if (status == TRN_OK) status = trn_encoder_build(encoder, graph, image, &of_mean, &pooled, err);
    if (status != TRN_OK) return status;
    for (int g = 0; g < dense.grid_count; g++) {
        char name[] = "dense0";
        name[5] = (char)('0' + g);
        trn_output_add(graph, name, dense.grids[g]);
    }
    trn_output_add(graph, "mean", pooled.pooled);
    return trn_graph_status(graph, err);
}

bool trn_model_tiny(size_t i, const char **family, trn_graph **graph, trn_encoder **keep, trn_error *err)
{
    *graph = NULL;
    *keep = NULL;
    if (i >= trn_family_count) return false;
    *family = trn_families[i]->name;
    trn_status status = trn_encoder_create_of(trn_families[i], &trn_families[i]->configs[0],
                                              trn_families[i]->tiny, NULL, 0, keep, err);
    if (status != TRN_OK) return true;
    size_t channels = 0;
    status = trn_encoder_choose_all_bands(*keep, &channels, err);
    if (status == TRN_OK) status = tiny_ready(*keep, (int)channels, err);
    *graph = status == TRN_OK ? trn_graph_create() : NULL;
    if (status == TRN_OK && !*graph) status = trn_fail_memory(err, sizeof *keep, "a graph");
    if (status == TRN_OK) status = tiny_build(*keep, *graph, err);
    if (status == TRN_OK) return true;
    trn_graph_destroy(*graph);
    trn_encoder_destroy(*keep);
    *graph = NULL;
    *keep = NULL;
    return true;
}
