/* Encoders with made-up weights at their natural windows, for the parts of bench. */
#include "bench.h"

#include <stdlib.h>

static trn_status open_model(const bench *b, bench_model *model, trn_error *err)
{
    trn_status status =
        trn_encoder_create(model->name, b->settings, b->values->config.count, &model->encoder, err);
    if (status != TRN_OK) return status;
    const trn_encoder_spec *spec = trn_encoder_get_spec(model->encoder);
    if (spec->needs_fit)
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "encoder '%s' learns from a scene: time it with TERRANE_PROFILE=1 terrane embed",
                        model->name);
    size_t channels;
    model->dates = (size_t)(b->values->dates ? b->values->dates : spec->min_dates);
    status = trn_encoder_choose_dates(model->encoder, model->dates, NULL, err);
    if (status == TRN_OK) status = trn_encoder_choose_all_bands(model->encoder, &channels, err);
    if (status == TRN_OK) status = trn_weights_open_synthetic(&model->weights, err);
    return status == TRN_OK ? trn_encoder_load(model->encoder, model->weights, NULL, err) : status;
}

trn_status bench_model_open(const bench *b, const char *name, bench_model *out, trn_error *err)
{
    *out = (bench_model){.name = name};
    return open_model(b, out, err);
}

void bench_model_close(bench_model *model)
{
    trn_encoder_destroy(model->encoder);
    trn_weights_close(model->weights);
    *model = (bench_model){0};
}

static trn_status build(bench_model *model, bench_pass *pass, trn_tensor **image, trn_error *err)
{
    const trn_encode_options pooled = {.pool = TRN_FEATURES_MEAN};
    trn_features features = {0};
    *image = trn_encoder_natural_input(model->encoder, pass->graph, pass->batch);
    trn_status status = trn_encoder_build(model->encoder, pass->graph, *image, &pooled, &features, err);
    if (status == TRN_OK) trn_output_add(pass->graph, "vectors", features.pooled);
    return status;
}

static trn_status set_image(bench_pass *pass, trn_tensor *image, trn_error *err)
{
    int64_t count = trn_shape_count(trn_tensor_shape(image));
    pass->image = malloc((size_t)count * sizeof *pass->image);
    if (!pass->image) return trn_fail_memory(err, (size_t)count * sizeof *pass->image, "an image");
    for (int64_t i = 0; i < count; i++)
        pass->image[i] = (float)trn_hash_uniform(1, (uint64_t)i);
    return trn_exec_set(pass->exec, "image", pass->image, err);
}

trn_status bench_pass_open(bench_model *model, trn_gpu *gpu, trn_precision precision, int batch,
                           bool plan_only, bench_pass *out, trn_error *err)
{
    const trn_compile_options compile = {.precision = precision, .plan_only = plan_only};
    trn_tensor *image;
    *out = (bench_pass){.graph = trn_graph_create(), .batch = batch};
    if (!out->graph) return trn_fail_memory(err, 0, "a graph");
    trn_status status = build(model, out, &image, err);
    if (status == TRN_OK) status = trn_compile(out->graph, gpu, &compile, &out->exec, err);
    return status == TRN_OK && !plan_only ? set_image(out, image, err) : status;
}

void bench_pass_close(bench_pass *pass)
{
    trn_exec_destroy(pass->exec);
    trn_graph_destroy(pass->graph);
    free(pass->image);
    *pass = (bench_pass){0};
}

trn_status bench_run(trn_exec *exec, double *seconds, trn_error *err)
{
    uint64_t start = trn_now_ns();
    trn_status status = trn_exec_run(exec, &console_hooks()->progress, err);
    if (seconds) *seconds = (double)(trn_now_ns() - start) * 1e-9;
    return status;
}
