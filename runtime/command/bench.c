/* terrane bench: seconds of one encoder on this device, or of a step of its training, with synthetic weights,
 * so that nothing is downloaded. */
#include "bench.h"
#include "command.h"

#include <stdlib.h>

typedef struct bench_values {
    common_values common;
    const char *device, *model;
    text_list config;
    int batch, runs, dates;
    bool training, recompute;
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
    {.name = "training",
     .kind = OPTION_FLAG,
     .offset = AT(training),
     .help = "also times a training step: the encoder, a linear head over its mean, cross entropy, all "
             "gradients, AdamW"},
    {.name = "recompute",
     .kind = OPTION_FLAG,
     .offset = AT(recompute),
     .help = "of training: values within blocks are computed again for the gradients, which saves memory"},
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
    double *seconds, *step_seconds; /* sorted; of forward runs, and of training steps */
    bench_training training;
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

static trn_status create_training(bench *b, const bench_values *values, trn_error *err)
{
    trn_status status =
        bench_training_create(b->encoder, b->gpu, values->batch, values->recompute, &b->training, err);
    return status == TRN_OK ? trn_exec_set(b->training.exec, "image", b->image, err) : status;
}

static int compare_seconds(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static trn_status timed_run(trn_exec *exec, double *seconds, trn_error *err)
{
    uint64_t start = trn_now_ns();
    trn_status status = trn_exec_run(exec, &console_hooks()->progress, err);
    *seconds = (double)(trn_now_ns() - start) * 1e-9;
    return status;
}

/* Sorted times of the runs after a first one, in which the driver compiles and submissions are measured.
 * Forward runs and training steps take turns, so that both have the same share of what else the machine does.
 */
static trn_status measure(bench *b, int runs, trn_error *err)
{
    trn_exec *step = b->training.exec;
    trn_status status = TRN_OK;
    double first;
    b->seconds = calloc((size_t)runs, sizeof *b->seconds);
    b->step_seconds = calloc((size_t)runs, sizeof *b->step_seconds);
    if (!b->seconds || !b->step_seconds)
        return trn_fail_memory(err, (size_t)runs * sizeof *b->seconds, "the times");
    for (int i = -1; status == TRN_OK && i < runs; i++) {
        status = timed_run(b->exec, i < 0 ? &first : &b->seconds[i], err);
        if (status == TRN_OK && step) status = timed_run(step, i < 0 ? &first : &b->step_seconds[i], err);
    }
    qsort(b->seconds, (size_t)runs, sizeof *b->seconds, compare_seconds);
    qsort(b->step_seconds, (size_t)runs, sizeof *b->step_seconds, compare_seconds);
    return status;
}

/* Device memory of an executable: weights, states, values. */
static uint64_t device_bytes(const trn_exec *exec)
{
    trn_exec_summary sum = trn_exec_summarize(exec);
    return sum.loading_bytes + sum.arena_bytes;
}

static void report_training(const bench *b, const bench_values *values, trn_text *out)
{
    double forward = b->seconds[values->runs / 2], step = b->step_seconds[values->runs / 2];
    uint64_t bytes = device_bytes(b->training.exec), forward_bytes = device_bytes(b->exec);
    char text[2][32];
    if (values->common.json) {
        trn_text_printf(out,
                        "\"step_seconds_median\": %.6g, \"step_seconds_min\": %.6g, "
                        "\"forward_seconds_median\": %.6g, \"ratio\": %.4g, \"device_bytes\": %llu, "
                        "\"forward_device_bytes\": %llu, \"recompute\": %s, ",
                        step, b->step_seconds[0], forward, step / forward, (unsigned long long)bytes,
                        (unsigned long long)forward_bytes, values->recompute ? "true" : "false");
        return;
    }
    trn_text_printf(out,
                    "training step%s: median %.4g s, fastest %.4g s, %.3g times the forward pass; device "
                    "memory %s, of the forward pass %s\n",
                    values->recompute ? ", blocks recomputed" : "", step, b->step_seconds[0], step / forward,
                    trn_format_bytes(bytes, text[0]), trn_format_bytes(forward_bytes, text[1]));
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
        if (values->training) report_training(b, values, out);
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
    if (values->training) report_training(b, values, out);
    trn_exec_profile_text(b->exec, out); /* with TERRANE_PROFILE=1 only */
    if (values->training) trn_exec_profile_text(b->training.exec, out);
}

static void destroy(bench *b)
{
    bench_training_destroy(&b->training);
    trn_exec_destroy(b->exec);
    trn_graph_destroy(b->graph);
    trn_encoder_destroy(b->encoder);
    trn_weights_close(b->weights);
    trn_gpu_close(b->gpu);
    free(b->image);
    free(b->seconds);
    free(b->step_seconds);
    trn_arena_destroy(b->arena);
}

static trn_status run(const trn_command *command, void *user, trn_error *err)
{
    (void)command;
    const bench_values *values = user;
    if (!values->model)
        return trn_fail(err, TRN_ERR_ARGUMENT, "bench wants --model NAME; see terrane models");
    if (values->recompute && !values->training)
        return trn_fail(err, TRN_ERR_ARGUMENT, "--recompute is a way of training: add --training");
    bench b = {0};
    trn_text out = {0};
    trn_status status = create_encoder(&b, values, err);
    if (status == TRN_OK) status = device_open(values->device, &b.gpu, err);
    if (status == TRN_OK) status = build(&b, values->batch, err);
    if (status == TRN_OK && values->training) status = create_training(&b, values, err);
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
    .usage = "bench --model NAME [--batch N] [--dates N] [--runs N] [--training [--recompute]] [--json]",
    .summary = "times an encoder with synthetic weights",
    .details =
        "Builds the encoder at its natural window with made-up weights, pooled, and times whole runs on the "
        "device (upload and readback left out). The first run is not counted: drivers compile in it. With "
        "--training, training steps and forward passes take turns, and the time of a step is also told as "
        "a multiple of the pass.",
    .example = "  terrane bench --model mae-vit-base\n  terrane bench --model dinov2-small --batch 8 --json\n"
               "  terrane bench --model hiera-tiny --batch 8 --training --recompute",
    .options = options,
    .values_size = sizeof(bench_values),
    .run = run,
};
