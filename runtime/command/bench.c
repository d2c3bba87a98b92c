/* terrane bench: seconds of one encoder on this device, with synthetic weights, so that nothing is
 * downloaded. */
#include "command.h"
#include "graph.h"

#include <stdlib.h>

typedef struct bench_values {
    common_values common;
    const char *device, *model;
    text_list config;
    int batch, runs, dates;
} bench_values;

#define AT(member) offsetof(bench_values, member)
static const trn_option options[] = {
    OPTION_MODEL(AT(model)),
    OPTION_CONFIG(AT(config)),
    {.name = "batch",
     .kind = OPTION_INT,
     .offset = AT(batch),
     .placeholder = "N",
     .help = "images at once; default: 1",
     .min = 1,
     .max = 4096,
     .initial = 1},
    {.name = "dates",
     .kind = OPTION_INT,
     .offset = AT(dates),
     .placeholder = "N",
     .help = "dates of an image, for encoders of series; default: the fewest that the encoder takes",
     .min = 1,
     .max = 366},
    {.name = "runs",
     .kind = OPTION_INT,
     .offset = AT(runs),
     .placeholder = "N",
     .help = "timed runs after one that is not counted; default: 5",
     .min = 1,
     .max = 1000,
     .initial = 5},
    OPTION_DEVICE(AT(device)),
    {.name = NULL},
};

typedef struct bench {
    trn_arena *arena;
    trn_gpu *gpu;
    trn_encoder *encoder;
    trn_weights *weights;
    trn_graph *graph;
    trn_exec *exec;
    float *image;
    int64_t image_count;
    size_t dates;
    double *seconds;
} bench;

static trn_status create_encoder(bench *b, const bench_values *values, trn_error *err)
{
    trn_setting *settings;
    b->arena = trn_arena_create();
    if (!b->arena) return trn_fail_memory(err, 1, "settings");
    trn_status status = options_settings(&values->config, b->arena, &settings, err);
    if (status == TRN_OK)
        status = trn_encoder_create(values->model, settings, values->config.count, &b->encoder, err);
    if (status != TRN_OK) return status;
    const trn_encoder_spec *spec = trn_encoder_get_spec(b->encoder);
    if (spec->needs_fit)
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "encoder '%s' learns from a scene: time it with TERRANE_PROFILE=1 terrane embed",
                        values->model);
    size_t channels, dates = (size_t)(values->dates ? values->dates : spec->min_dates);
    status = trn_encoder_choose_dates(b->encoder, dates, NULL, err);
    if (status != TRN_OK) return status;
    b->dates = dates;
    return trn_encoder_choose_all_bands(b->encoder, &channels, err);
}

static trn_status build(bench *b, int batch, trn_error *err)
{
    const trn_encode_options pooled = {.pool = TRN_FEATURES_MEAN};
    trn_status status = trn_weights_open_synthetic(&b->weights, err);
    if (status == TRN_OK) status = trn_encoder_load(b->encoder, b->weights, NULL, err);
    if (status != TRN_OK) return status;
    b->graph = trn_graph_create();
    if (!b->graph) return trn_fail_memory(err, 0, "a graph");
    trn_features features = {0};
    trn_tensor *image = trn_encoder_natural_input(b->encoder, b->graph, batch);
    status = trn_encoder_build(b->encoder, b->graph, image, &pooled, &features, err);
    if (status != TRN_OK) return status;
    trn_output_add(b->graph, "vectors", features.pooled);
    b->image_count = trn_shape_count(trn_tensor_shape(image));
    b->image = malloc((size_t)b->image_count * sizeof *b->image);
    if (!b->image) return trn_fail_memory(err, (size_t)b->image_count * sizeof *b->image, "an image");
    for (int64_t i = 0; i < b->image_count; i++)
        b->image[i] = (float)trn_hash_uniform(1, (uint64_t)i);
    status = trn_compile(b->graph, b->gpu, NULL, &b->exec, err);
    return status == TRN_OK ? trn_exec_set(b->exec, "image", b->image, err) : status;
}

static int compare_seconds(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* Sorted times of the runs after a first one, in which the driver compiles and submissions are measured. */
static trn_status measure(bench *b, int runs, trn_error *err)
{
    const trn_progress *progress = &console_hooks()->progress;
    b->seconds = calloc((size_t)runs, sizeof *b->seconds);
    if (!b->seconds) return trn_fail_memory(err, (size_t)runs * sizeof *b->seconds, "the times");
    trn_status status = trn_exec_run(b->exec, progress, err);
    for (int i = 0; status == TRN_OK && i < runs; i++) {
        uint64_t start = trn_now_ns();
        status = trn_exec_run(b->exec, progress, err);
        b->seconds[i] = (double)(trn_now_ns() - start) * 1e-9;
    }
    qsort(b->seconds, (size_t)runs, sizeof *b->seconds, compare_seconds);
    return status;
}

static void report(const bench *b, const bench_values *values, trn_text *out)
{
    trn_exec_summary sum = trn_exec_summarize(b->exec);
    double median = b->seconds[values->runs / 2], images = values->batch / median;
    uint64_t memory = trn_gpu_get_stats(b->gpu).memory_peak;
    if (values->common.json) {
        trn_text_add(out, "{\"ok\": true, \"model\": ");
        trn_text_json(out, values->model);
        trn_text_printf(out,
                        ", \"batch\": %d, \"dates\": %zu, \"seconds_per_image\": %.6g, \"seconds_median\": "
                        "%.6g, \"seconds_min\": %.6g, "
                        "\"images_per_second\": %.6g, \"gflop\": %.6g, \"memory_bytes\": %llu, ",
                        values->batch, b->dates, median / values->batch, median, b->seconds[0], images,
                        sum.flops * 1e-9, (unsigned long long)memory);
        trn_text_add(out, "\"device\": ");
        trn_text_json(out, trn_gpu_info(b->gpu)->name);
        trn_text_add(out, ", \"precision\": \"float32\"}\n");
        return;
    }
    char bytes[32], dates[32] = "";
    if (b->dates > 1) snprintf(dates, sizeof dates, " of %zu dates", b->dates);
    trn_text_printf(out, "%s, batch %d%s on %s: median %.4g s, fastest %.4g s of %d runs; ", values->model,
                    values->batch, dates, trn_gpu_info(b->gpu)->name, median, b->seconds[0], values->runs);
    trn_text_printf(out, "%.4g s per image, %.4g images/s, ", median / values->batch, images);
    trn_text_printf(out, "%.4g GFLOP/s, device memory %s\n", sum.flops / median * 1e-9,
                    trn_format_bytes(memory, bytes));
}

static void destroy(bench *b)
{
    trn_exec_destroy(b->exec);
    trn_graph_destroy(b->graph);
    trn_encoder_destroy(b->encoder);
    trn_weights_close(b->weights);
    trn_gpu_close(b->gpu);
    free(b->image);
    free(b->seconds);
    trn_arena_destroy(b->arena);
}

static trn_status run(const trn_command *command, void *user, trn_error *err)
{
    (void)command;
    const bench_values *values = user;
    if (!values->model)
        return trn_fail(err, TRN_ERR_ARGUMENT, "bench wants --model NAME; see terrane models");
    bench b = {0};
    trn_text out = {0};
    trn_status status = create_encoder(&b, values, err);
    if (status == TRN_OK) status = device_open(values->device, &b.gpu, err);
    if (status == TRN_OK) status = build(&b, values->batch, err);
    if (status == TRN_OK) status = measure(&b, values->runs, err);
    if (status == TRN_OK) {
        report(&b, values, &out);
        status = console_print(&out, err);
    }
    trn_text_free(&out);
    destroy(&b);
    return status;
}

const trn_command bench_command = {
    .name = "bench",
    .usage = "bench --model NAME [--batch N] [--dates N] [--runs N] [--json]",
    .summary = "times an encoder with synthetic weights",
    .details =
        "Builds the encoder at its natural window with made-up weights, pooled, and times whole runs on the "
        "device (upload and readback left out). The first run is not counted: drivers compile in it.",
    .example = "  terrane bench --model mae-vit-base\n  terrane bench --model dinov2-small --batch 8 --json",
    .options = options,
    .values_size = sizeof(bench_values),
    .run = run,
};
