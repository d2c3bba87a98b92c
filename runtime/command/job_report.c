/* Running a job for embed and run: device, explanation or run, and what is printed at the end. */
#include "command.h"

#include <math.h>

/* ---- what all kinds have in common ---- */

/* How every kind's object begins. */
static void json_begin(char *const *files, size_t count, trn_text *out)
{
    trn_text_add(out, "{\"ok\": true, \"files\": [");
    for (size_t i = 0; i < count; i++) {
        trn_text_add(out, i ? ", " : "");
        trn_text_json(out, files[i]);
    }
    trn_text_add(out, "]");
}

static void print_files(char *const *files, size_t count, trn_text *out)
{
    for (size_t i = 0; i < count && !console_is_quiet(); i++)
        trn_text_printf(out, "%s\n", files[i]);
}

static void describe_counts(size_t encoders, size_t things, const char *thing, trn_text *out)
{
    trn_text_printf(out, "%zu encoder%s, %zu %s%s", encoders, encoders == 1 ? "" : "s", things, thing,
                    things == 1 ? "" : "s");
}

/* ---- embedding ---- */

static void settle_embed(any_job *job, const char *out_dir, uint64_t memory_limit)
{
    job->as.embed.out_dir = out_dir;
    job->as.embed.memory_limit = memory_limit;
}

static trn_status check_embed(const any_job *job, const trn_job_hooks *hooks, trn_error *err)
{
    return trn_embed_check(&job->as.embed, hooks, err);
}

static trn_status explain_embed(const any_job *job, trn_gpu *gpu, const trn_job_hooks *hooks, trn_text *out,
                                trn_error *err)
{
    return trn_embed_explain(&job->as.embed, gpu, hooks, out, err);
}

static void describe_embed(const any_job *job, trn_text *out)
{
    describe_counts(job->as.embed.encoder_count, job->as.embed.export_count, "output", out);
}

static void note_embed(const trn_embed_result *result)
{
    char text[256];
    snprintf(text, sizeof text, "%lld x %lld, %d channels, from %lld %s in %.2f s (%.3g megapixels/s)",
             (long long)result->grid_width, (long long)result->grid_height, result->channels,
             (long long)(result->images ? result->images : result->windows),
             result->images ? "images" : "windows", result->seconds,
             result->seconds > 0 ? result->megapixels / result->seconds : 0);
    console_note(TRN_LOG_INFO, text);
}

static void print_embed_json(trn_gpu *gpu, const trn_embed_result *result, trn_text *out)
{
    json_begin(result->files, result->file_count, out);
    trn_text_printf(
        out, ", \"width\": %lld, \"height\": %lld, \"channels\": %d, \"windows\": %lld, \"images\": %lld",
        (long long)result->grid_width, (long long)result->grid_height, result->channels,
        (long long)result->windows, (long long)result->images);
    trn_text_printf(out, ", \"seconds\": %.6g, \"megapixels\": %.6g, \"stats\": {", result->seconds,
                    result->megapixels);
    device_stats_json(gpu, out);
    trn_text_add(out, "}}\n");
}

static trn_status run_embed(const job_request *request, trn_gpu *gpu, trn_text *out, trn_error *err)
{
    trn_embed_result result;
    trn_status status = trn_embed_run(&request->job->as.embed, gpu, request->hooks, &result, err);
    if (status != TRN_OK) return status;
    console_progress_end();
    if (request->json) {
        print_embed_json(gpu, &result, out);
    } else {
        note_embed(&result);
        print_files(result.files, result.file_count, out);
    }
    trn_embed_result_free(&result);
    return TRN_OK;
}

const job_kind embed_kind = {settle_embed, check_embed, explain_embed, run_embed, describe_embed};

/* ---- reconstruction ---- */

static void settle_reconstruct(any_job *job, const char *out_dir, uint64_t memory_limit)
{
    job->as.reconstruct.out_dir = out_dir;
    job->as.reconstruct.memory_limit = memory_limit;
}

static trn_status check_reconstruct(const any_job *job, const trn_job_hooks *hooks, trn_error *err)
{
    return trn_reconstruct_check(&job->as.reconstruct, hooks, err);
}

static trn_status explain_reconstruct(const any_job *job, trn_gpu *gpu, const trn_job_hooks *hooks,
                                      trn_text *out, trn_error *err)
{
    return trn_reconstruct_explain(&job->as.reconstruct, gpu, hooks, out, err);
}

static void describe_reconstruct(const any_job *job, trn_text *out)
{
    (void)job;
    describe_counts(1, 1, "output", out);
}

static void note_reconstruct(const trn_reconstruct_result *result)
{
    char text[256];
    snprintf(text, sizeof text,
             "loss %.6g on %lld of %lld patches, of %d pixels at column %lld, row %lld, %d date%s, in %.2f s",
             result->loss, (long long)result->hidden, (long long)result->patches, result->size,
             (long long)result->x, (long long)result->y, result->dates, result->dates == 1 ? "" : "s",
             result->seconds);
    console_note(TRN_LOG_INFO, text);
}

static void print_reconstruct_json(const trn_reconstruct_result *result, trn_text *out)
{
    json_begin(result->files, result->file_count, out);
    trn_text_printf(out,
                    ", \"loss\": %.9g, \"x\": %lld, \"y\": %lld, \"size\": %d, \"dates\": %d, "
                    "\"patches\": %lld, \"hidden\": %lld, \"seconds\": %.6g}\n",
                    result->loss, (long long)result->x, (long long)result->y, result->size, result->dates,
                    (long long)result->patches, (long long)result->hidden, result->seconds);
}

static trn_status run_reconstruct(const job_request *request, trn_gpu *gpu, trn_text *out, trn_error *err)
{
    trn_reconstruct_result result;
    trn_status status = trn_reconstruct_run(&request->job->as.reconstruct, gpu, request->hooks, &result, err);
    if (status != TRN_OK) return status;
    console_progress_end();
    if (request->json) {
        print_reconstruct_json(&result, out);
    } else {
        note_reconstruct(&result);
        print_files(result.files, result.file_count, out);
    }
    trn_reconstruct_result_free(&result);
    return TRN_OK;
}

const job_kind reconstruct_kind = {settle_reconstruct, check_reconstruct, explain_reconstruct,
                                   run_reconstruct, describe_reconstruct};

/* ---- probes ---- */

static void settle_probe(any_job *job, const char *out_dir, uint64_t memory_limit)
{
    job->as.probe.out_dir = out_dir;
    job->as.probe.memory_limit = memory_limit;
}

static trn_status check_probe(const any_job *job, const trn_job_hooks *hooks, trn_error *err)
{
    return trn_probe_check(&job->as.probe, hooks, err);
}

static trn_status explain_probe(const any_job *job, trn_gpu *gpu, const trn_job_hooks *hooks, trn_text *out,
                                trn_error *err)
{
    return trn_probe_explain(&job->as.probe, gpu, hooks, out, err);
}

static void describe_probe(const any_job *job, trn_text *out)
{
    const trn_probe_job *probe = &job->as.probe;
    size_t probes = (size_t)probe->use_knn.wanted + probe->use_linear.wanted + probe->use_logistic.wanted;
    describe_counts(probe->encoder_count, probes, "probe", out);
}

/* One line for people, or one member of the object for machines. */
static void tell_score(const trn_job_probe *wish, const char *name, const trn_probe_scores *scores,
                       const trn_probe_result *result, bool json, trn_text *out)
{
    if (!wish->wanted) return;
    bool test = result->samples[TRN_SPLIT_TEST] > 0;
    const trn_multilabel_scores *labels = test ? &scores->test_labels : &scores->valid_labels;
    const trn_class_scores *classes = test ? &scores->test : &scores->valid;
    double score = labels->count ? labels->micro_map : classes->accuracy;
    if (wish->name) name = wish->name;
    if (json) {
        trn_text_add(out, ", ");
        trn_text_json(out, name);
        trn_text_printf(out, ": %.17g", score);
    } else {
        trn_text_printf(out, "%-10s %.2f %% %s on %zu %s samples (%.2f s)\n", name, 100 * score,
                        labels->count ? "micro mAP" : "accuracy",
                        result->samples[test ? TRN_SPLIT_TEST : TRN_SPLIT_VALID],
                        test ? "test" : "validation", scores->seconds);
    }
}

static void tell_scores(const trn_probe_job *job, const trn_probe_result *result, bool json, trn_text *out)
{
    tell_score(&job->use_knn, "knn", &result->knn, result, json, out);
    tell_score(&job->use_linear, "linear", &result->linear, result, json, out);
    tell_score(&job->use_logistic, "logistic", &result->logistic, result, json, out);
}

static void print_probe_json(trn_gpu *gpu, const trn_probe_job *job, const trn_probe_result *result,
                             trn_text *out)
{
    json_begin(result->files, result->file_count, out);
    tell_scores(job, result, true, out);
    trn_text_printf(out, ", \"channels\": %lld, \"cached\": %s, \"seconds\": %.6g, \"stats\": {",
                    (long long)result->channels, result->cached ? "true" : "false", result->seconds);
    device_stats_json(gpu, out);
    trn_text_add(out, "}}\n");
}

static void note_probe(const trn_probe_job *job, const trn_probe_result *result)
{
    trn_text text = {0};
    trn_text_printf(&text, "%lld features of %zu + %zu + %zu samples%s, in %.2f s\n",
                    (long long)result->channels, result->samples[TRN_SPLIT_TRAIN],
                    result->samples[TRN_SPLIT_VALID], result->samples[TRN_SPLIT_TEST],
                    result->cached ? ", from the cache" : "", result->seconds);
    tell_scores(job, result, false, &text);
    console_note(TRN_LOG_INFO, trn_text_get(&text));
    trn_text_free(&text);
}

static trn_status run_probe(const job_request *request, trn_gpu *gpu, trn_text *out, trn_error *err)
{
    const trn_probe_job *job = &request->job->as.probe;
    trn_probe_result result;
    trn_status status = trn_probe_run(job, gpu, request->hooks, &result, err);
    if (status != TRN_OK) return status;
    console_progress_end();
    if (request->json) {
        print_probe_json(gpu, job, &result, out);
    } else {
        note_probe(job, &result);
        print_files(result.files, result.file_count, out);
    }
    trn_probe_result_free(&result);
    return TRN_OK;
}

const job_kind probe_kind = {settle_probe, check_probe, explain_probe, run_probe, describe_probe};

/* ---- training ---- */

static void settle_train(any_job *job, const char *out_dir, uint64_t memory_limit)
{
    job->as.train.out_dir = out_dir;
    job->as.train.fit.memory_limit = memory_limit;
}

static trn_status check_train(const any_job *job, const trn_job_hooks *hooks, trn_error *err)
{
    return trn_train_check(&job->as.train, hooks, err);
}

static trn_status explain_train(const any_job *job, trn_gpu *gpu, const trn_job_hooks *hooks, trn_text *out,
                                trn_error *err)
{
    return trn_train_explain(&job->as.train, gpu, hooks, out, err);
}

static void describe_train(const any_job *job, trn_text *out)
{
    const trn_train_job *train = &job->as.train;
    if (train->trunk)
        trn_text_add(out, "a network");
    else
        trn_text_printf(out, "%zu encoder%s", train->encoder_count, train->encoder_count == 1 ? "" : "s");
    trn_text_printf(out, ", %lld epoch%s", (long long)train->fit.epochs, train->fit.epochs == 1 ? "" : "s");
}

/* The metric that chose the best epoch, of the test split; NAN without one. */
static double test_metric(const trn_fit_result *fit)
{
    bool multilabel = fit->test_labels.count > 0;
    const trn_metric *metric = trn_metric_find(fit->metric, multilabel, NULL);
    if (!metric || (!multilabel && !fit->test.count)) return NAN;
    return multilabel ? trn_metric_of_labels(metric, &fit->test_labels, NAN)
                      : trn_metric_of_classes(metric, &fit->test, NAN);
}

static void note_train(const trn_train_result *result)
{
    const trn_fit_result *fit = &result->fit;
    double test = test_metric(fit);
    trn_text text = {0};
    trn_text_add(&text, fit->was_complete ? "was complete: " : "");
    if (result->samples[TRN_SPLIT_VALID])
        trn_text_printf(&text, "best %s %.4f in epoch %lld of %lld", fit->metric, fit->best_metric,
                        (long long)fit->best_epoch, (long long)fit->epochs);
    else
        trn_text_printf(&text, "loss %.4g after %lld epochs", fit->train_loss, (long long)fit->epochs);
    if (!isnan(test)) trn_text_printf(&text, ", %s %.4f on the test split", fit->metric, test);
    trn_text_printf(&text, "%s; %.3g samples/s, device busy %.0f %%, in %.1f s",
                    fit->stopped_early ? " (stopped early)" : "", fit->samples_per_second, 100 * fit->busy,
                    fit->seconds);
    console_note(TRN_LOG_INFO, trn_text_get(&text));
    trn_text_free(&text);
}

static void print_train_json(trn_gpu *gpu, const trn_train_result *result, trn_text *out)
{
    const trn_fit_result *fit = &result->fit;
    double test = test_metric(fit);
    json_begin(result->files, result->file_count, out);
    trn_text_printf(out, ", \"metric\": \"%s\"", fit->metric);
    if (result->samples[TRN_SPLIT_VALID]) trn_text_printf(out, ", \"best\": %.17g", fit->best_metric);
    if (!isnan(test)) trn_text_printf(out, ", \"test\": %.17g", test);
    trn_text_printf(out,
                    ", \"best_epoch\": %lld, \"epochs\": %lld, \"steps\": %lld, \"resumed\": %s, "
                    "\"samples_per_second\": %.6g, \"device_busy\": %.4g, \"seconds\": %.6g, \"stats\": {",
                    (long long)fit->best_epoch, (long long)fit->epochs, (long long)fit->steps,
                    fit->resumed ? "true" : "false", fit->samples_per_second, fit->busy, fit->seconds);
    device_stats_json(gpu, out);
    trn_text_add(out, "}}\n");
}

static trn_status run_train(const job_request *request, trn_gpu *gpu, trn_text *out, trn_error *err)
{
    trn_train_result result;
    trn_status status = trn_train_run(&request->job->as.train, gpu, request->hooks, &result, err);
    if (status != TRN_OK) return status;
    console_progress_end();
    if (request->json) {
        print_train_json(gpu, &result, out);
    } else {
        note_train(&result);
        print_files(result.files, result.file_count, out);
    }
    trn_train_result_free(&result);
    return TRN_OK;
}

const job_kind train_kind = {settle_train, check_train, explain_train, run_train, describe_train};

/* ---- any kind ---- */

static trn_status explain_job(const job_request *request, trn_gpu *gpu, trn_text *out, trn_error *err)
{
    trn_text text = {0};
    trn_status status = request->job->kind->explain(request->job, gpu, request->hooks, &text, err);
    if (status == TRN_OK && request->json) {
        trn_text_add(out, "{\"ok\": true, \"explain\": ");
        trn_text_json(out, trn_text_get(&text));
        trn_text_add(out, "}\n");
    } else if (status == TRN_OK) {
        trn_text_add(out, trn_text_get(&text));
    }
    trn_text_free(&text);
    return status;
}

static trn_status check_job(const job_request *request, trn_error *err)
{
    const trn_job_hooks silent = {.blame = request->hooks->blame, .user = request->hooks->user};
    return request->job->kind->check(request->job, &silent, err);
}

trn_status job_request_run(const job_request *request, trn_error *err)
{
    trn_text out = {0};
    trn_gpu *gpu = NULL;
    /* what can be found wrong without a device is found first */
    trn_status status = request->explain ? TRN_OK : check_job(request, err);
    if (status == TRN_OK) status = device_open(request->device, &gpu, err);
    if (status == TRN_OK)
        status = request->explain ? explain_job(request, gpu, &out, err)
                                  : request->job->kind->run(request, gpu, &out, err);
    trn_gpu_close(gpu);
    if (status == TRN_OK) status = console_print(&out, err);
    trn_text_free(&out);
    return status;
}
