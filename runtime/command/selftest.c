/* terrane selftest: every operator and a tiny model of each family on this device, against the plain C
 * references. */
#include "command.h"
#include "graph.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct selftest_values {
    common_values common;
    const char *device, *only;
} selftest_values;

#define AT(member) offsetof(selftest_values, member)
static const trn_option options[] = {
    OPTION_DEVICE(AT(device)),
    {.name = "only",
     .kind = OPTION_TEXT,
     .offset = AT(only),
     .placeholder = "OP",
     .help = "only operators and model families whose name contains OP"},
    {.name = NULL},
};

/* Chains of operators add up the errors of single ones. */
#define MODEL_TOLERANCE 1e-4

typedef struct test_tally {
    bool json, quiet;
    int run, failed;
    trn_text out;
} test_tally;

static void record(void *user, const trn_op_result *result)
{
    test_tally *tally = user;
    tally->run++;
    tally->failed += !result->ok;
    if (tally->json) {
        trn_text_add(&tally->out, tally->run > 1 ? ",\n  {\"op\": " : "\n  {\"op\": ");
        trn_text_json(&tally->out, result->op);
        trn_text_add(&tally->out, ", \"case\": ");
        trn_text_json(&tally->out, result->label);
        if (isfinite(result->error))
            trn_text_printf(&tally->out, ", \"error\": %.3e", result->error);
        else
            trn_text_add(&tally->out, ", \"error\": null");
        trn_text_printf(&tally->out, ", \"tolerance\": %.1e, \"seconds\": %.4g, \"ok\": %s, \"message\": ",
                        result->tolerance, result->seconds, result->ok ? "true" : "false");
        trn_text_json(&tally->out, result->message[0] ? result->message : NULL);
        trn_text_add(&tally->out, "}");
        return;
    }
    if (tally->quiet && result->ok) return;
    printf("%-16s %-46s %9.2e %9.1e  %s%s%s\n", result->op, result->label ? result->label : "", result->error,
           result->tolerance, result->ok ? "ok" : "FAILED", result->message[0] ? ": " : "", result->message);
    fflush(stdout);
}

/* ---- models ---- */

typedef struct tiny_model {
    const char *family;
    trn_encoder *encoder;
    trn_graph *graph;
    int64_t input_count, output_count;
    float *input, *expected, *actual;
} tiny_model;

static trn_status build_tiny(tiny_model *model, trn_error *err)
{
    static const char name[] = "selftest image";
    const trn_encode_options plain = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_MEAN};
    size_t channels;
    trn_status status = trn_encoder_choose_all_bands(model->encoder, &channels, err);
    if (status != TRN_OK) return status;
    int64_t side = trn_encoder_get_spec(model->encoder)->tile;
    model->graph = trn_graph_create();
    if (!model->graph) return trn_fail_memory(err, 0, "a graph");
    trn_features features = {0};
    trn_tensor *image =
        trn_input(model->graph, "image", TRN_F32, TRN_SHAPE(1, (int64_t)channels, side, side));
    status = trn_encoder_build(model->encoder, model->graph, image, &plain, &features, err);
    if (status != TRN_OK) return status;
    trn_output_add(model->graph, "features", features.pooled);
    model->input_count = trn_shape_count(trn_tensor_shape(image));
    model->output_count = trn_shape_count(trn_tensor_shape(features.pooled));
    model->input = malloc((size_t)model->input_count * sizeof(float));
    model->expected = malloc((size_t)model->output_count * sizeof(float));
    model->actual = malloc((size_t)model->output_count * sizeof(float));
    if (!model->input || !model->expected || !model->actual)
        return trn_fail_memory(err, 0, "a tiny model's values");
    uint64_t hash = trn_fnv1a64(name, sizeof name - 1, TRN_FNV_SEED);
    for (int64_t i = 0; i < model->input_count; i++)
        model->input[i] = (float)trn_hash_uniform(hash, (uint64_t)i);
    return TRN_OK;
}

static trn_status run_tiny(const tiny_model *model, trn_gpu *gpu, trn_error *err)
{
    const trn_compile_options compile = {.poison = true};
    const trn_named_data in = {"image", model->input}, out = {"features", model->expected};
    trn_exec *exec = NULL;
    trn_status status = trn_compile(model->graph, gpu, &compile, &exec, err);
    if (status == TRN_OK) status = trn_exec_set(exec, "image", model->input, err);
    if (status == TRN_OK) status = trn_exec_run(exec, &console_hooks()->progress, err);
    if (status == TRN_OK) status = trn_exec_get(exec, "features", model->actual, err);
    if (status == TRN_OK) status = trn_reference_run(model->graph, &in, 1, &out, 1, err);
    trn_exec_destroy(exec);
    return status;
}

static double worst_error(const tiny_model *model)
{
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < model->output_count; i++) {
        double difference = fabs((double)model->actual[i] - (double)model->expected[i]);
        if (!(difference <= worst)) worst = isnan(difference) ? INFINITY : difference;
        largest = TRN_MAX(largest, fabs((double)model->expected[i]));
    }
    return largest > 0 ? worst / largest : worst;
}

static void test_tiny(tiny_model *model, trn_gpu *gpu, test_tally *tally, trn_error *err)
{
    uint64_t start = trn_now_ns();
    trn_status status = err->code;
    if (status == TRN_OK) status = build_tiny(model, err);
    if (status == TRN_OK) status = run_tiny(model, gpu, err);
    trn_op_result result = {.op = "model", .label = model->family, .tolerance = MODEL_TOLERANCE};
    result.error = status == TRN_OK ? worst_error(model) : INFINITY;
    result.ok = result.error <= MODEL_TOLERANCE;
    result.seconds = (double)(trn_now_ns() - start) * 1e-9;
    if (status != TRN_OK) snprintf(result.message, sizeof result.message, "%.500s", err->message);
    record(tally, &result);
}

static trn_status test_models(trn_gpu *gpu, const char *only, test_tally *tally, trn_error *err)
{
    for (size_t i = 0;; i++) {
        tiny_model model = {0};
        trn_graph *unused = NULL;
        trn_error failure = {0};
        if (!trn_model_tiny(i, &model.family, &unused, &model.encoder, &failure)) return TRN_OK;
        trn_graph_destroy(unused);
        if (!only || strstr(model.family, only) || strstr("model", only))
            test_tiny(&model, gpu, tally, &failure);
        trn_graph_destroy(model.graph);
        trn_encoder_destroy(model.encoder);
        free(model.input);
        free(model.expected);
        free(model.actual);
        if (failure.code == TRN_ERR_CANCELLED || failure.code == TRN_ERR_DEVICE_LOST) {
            if (err) *err = failure;
            return failure.code;
        }
    }
}

static trn_status run(const trn_command *command, void *user, trn_error *err)
{
    (void)command;
    const selftest_values *values = user;
    test_tally tally = {.json = values->common.json, .quiet = values->common.quiet};
    trn_gpu *gpu = NULL;
    trn_status status = device_open(values->device, &gpu, err);
    if (status != TRN_OK) return status;
    if (tally.json)
        trn_text_add(&tally.out, "{\"results\": [");
    else if (!tally.quiet)
        printf("%-16s %-46s %9s %9s\n", "operator", "case", "error", "allowed");
    uint64_t start = trn_now_ns();
    status = trn_op_selftest(gpu, values->only, record, &tally, &console_hooks()->progress, err);
    if (status == TRN_OK) status = test_models(gpu, values->only, &tally, err);
    double seconds = (double)(trn_now_ns() - start) * 1e-9;
    if (status == TRN_OK && !tally.run)
        status = trn_fail(err, TRN_ERR_ARGUMENT, "no operator and no model family has '%.64s' in its name",
                          values->only ? values->only : "");
    if (status == TRN_OK && tally.json) {
        trn_text_printf(&tally.out, "\n], \"ok\": %s, \"run\": %d, \"failed\": %d, \"seconds\": %.3f, ",
                        tally.failed ? "false" : "true", tally.run, tally.failed, seconds);
        device_stats_json(gpu, &tally.out);
        trn_text_add(&tally.out, "}\n");
    } else if (status == TRN_OK) {
        trn_text_printf(&tally.out, "%d of %d good on %s (%s) in %.1f s\n", tally.run - tally.failed,
                        tally.run, trn_gpu_info(gpu)->name, trn_gpu_info(gpu)->driver, seconds);
    }
    if (status == TRN_OK) status = console_print(&tally.out, err);
    if (status == TRN_OK && tally.failed)
        status = trn_fail(
            err, TRN_ERR_DEVICE,
            "%d of %d self-tests failed: this device or driver computes wrong results; try another one, "
            "or report the table above",
            tally.failed, tally.run);
    trn_text_free(&tally.out);
    trn_gpu_close(gpu);
    return status;
}

const trn_command selftest_command = {
    .name = "selftest",
    .usage = "selftest [--device D] [--only OP] [--json]",
    .summary = "checks that a device computes what it should",
    .details = "Runs every case of every operator, and a tiny model of each family, on the device and "
               "compares with plain C "
               "references: error is the largest difference divided by the largest value. The exit status is "
               "not 0 when "
               "any case fails.",
    .example = "  terrane selftest\n  terrane selftest --device 1 --only linear",
    .options = options,
    .values_size = sizeof(selftest_values),
    .run = run,
};
