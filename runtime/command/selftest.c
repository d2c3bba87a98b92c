/* terrane selftest: every operator and a tiny model of each family on this device, against the plain C
 * references. */
#include "command.h"
#include "graph.h"

#include <limits.h>
#include <math.h>
#include <string.h>

typedef struct selftest_values {
    common_values common;
    const char *device, *only;
    bool all;
} selftest_values;

#define AT(member) offsetof(selftest_values, member)
static const trn_option options[] = {
    OPTION_DEVICE(AT(device)),
    {.name = "only",
     .kind = OPTION_TEXT,
     .offset = AT(only),
     .placeholder = "OP",
     .help = "only operators and model families whose name contains OP"},
    {.name = "all",
     .kind = OPTION_FLAG,
     .offset = AT(all),
     .help = "every case by every kernel that could be chosen for it, not only the default and one more"},
    {.name = NULL},
};

/* Chains of operators add up the errors of single ones. */
#define MODEL_TOLERANCE 1e-4
#define HALF_MODEL_TOLERANCE 1e-2 /* what lies between the operators is rounded to 11 bits */

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

/* The same stored as float16, where the device can. */
static trn_status test_half_model(trn_gpu *gpu, trn_graph *graph, const char *family, test_tally *tally,
                                  trn_error *err)
{
    char label[96];
    snprintf(label, sizeof label, "%.64s, stored as float16", family);
    trn_op_result result = {.op = "model", .label = label, .tolerance = HALF_MODEL_TOLERANCE};
    if (!trn_gpu_info(gpu)->storage16) return TRN_OK;
    trn_status status =
        trn_graph_selftest(gpu, graph, TRN_PRECISION_FLOAT16, &console_hooks()->progress, &result, err);
    if (status == TRN_OK) record(tally, &result);
    return status;
}

static trn_status test_models(trn_gpu *gpu, const char *only, test_tally *tally, trn_error *err)
{
    trn_status status = TRN_OK;
    trn_op_result result = {.op = "model"};
    trn_graph *graph;
    trn_encoder *encoder;
    trn_error why = {0};
    for (size_t i = 0; status == TRN_OK && trn_model_tiny(i, &result.label, &graph, &encoder, &why); i++) {
        result = (trn_op_result){.op = "model",
                                 .label = result.label,
                                 .tolerance = MODEL_TOLERANCE,
                                 .error = graph ? 0 : INFINITY};
        bool wanted = !only || strstr(result.label, only) || strstr("model", only);
        if (wanted && graph)
            status = trn_graph_selftest(gpu, graph, TRN_PRECISION_FLOAT32, &console_hooks()->progress,
                                        &result, err);
        else if (wanted)
            snprintf(result.message, sizeof result.message, "%.500s", why.message);
        if (wanted && status == TRN_OK) record(tally, &result);
        if (wanted && graph && status == TRN_OK)
            status = test_half_model(gpu, graph, result.label, tally, err);
        trn_graph_destroy(graph);
        trn_encoder_destroy(encoder);
    }
    return status;
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
    status = trn_op_selftest(gpu, values->only, values->all ? INT_MAX : 1, record, &tally,
                             &console_hooks()->progress, err);
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
    .usage = "selftest [--device D] [--only OP] [--all] [--json]",
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
