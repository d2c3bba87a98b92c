/* Running a job for embed and run: device, explanation or run, and what is printed at the end. */
#include "command.h"

static void print_summary(const trn_embed_result *result, trn_text *out)
{
    for (size_t i = 0; i < result->file_count; i++)
        trn_text_printf(out, "%s\n", result->files[i]);
}

static void note_figures(const trn_embed_result *result)
{
    char text[256];
    snprintf(text, sizeof text, "%lld x %lld, %d channels, from %lld %s in %.2f s (%.3g megapixels/s)",
             (long long)result->grid_width, (long long)result->grid_height, result->channels,
             (long long)(result->images ? result->images : result->windows),
             result->images ? "images" : "windows", result->seconds,
             result->seconds > 0 ? result->megapixels / result->seconds : 0);
    console_note(TRN_LOG_INFO, text);
}

static void print_json(trn_gpu *gpu, const trn_embed_result *result, trn_text *out)
{
    trn_text_add(out, "{\"ok\": true, \"files\": [");
    for (size_t i = 0; i < result->file_count; i++) {
        trn_text_add(out, i ? ", " : "");
        trn_text_json(out, result->files[i]);
    }
    trn_text_printf(
        out, "], \"width\": %lld, \"height\": %lld, \"channels\": %d, \"windows\": %lld, \"images\": %lld",
        (long long)result->grid_width, (long long)result->grid_height, result->channels,
        (long long)result->windows, (long long)result->images);
    trn_text_printf(out, ", \"seconds\": %.6g, \"megapixels\": %.6g, \"stats\": {", result->seconds,
                    result->megapixels);
    device_stats_json(gpu, out);
    trn_text_add(out, "}}\n");
}

static void print_reconstruction(const job_request *request, const trn_reconstruct_result *result,
                                 trn_text *out)
{
    char text[256];
    if (request->json) {
        trn_text_add(out, "{\"ok\": true, \"files\": [");
        for (size_t i = 0; i < result->file_count; i++) {
            trn_text_add(out, i ? ", " : "");
            trn_text_json(out, result->files[i]);
        }
        trn_text_printf(out,
                        "], \"loss\": %.9g, \"x\": %lld, \"y\": %lld, \"size\": %d, \"dates\": %d, "
                        "\"patches\": %lld, \"hidden\": %lld, \"seconds\": %.6g}\n",
                        result->loss, (long long)result->x, (long long)result->y, result->size, result->dates,
                        (long long)result->patches, (long long)result->hidden, result->seconds);
        return;
    }
    snprintf(text, sizeof text,
             "loss %.6g on %lld of %lld patches, of %d pixels at column %lld, row %lld, %d date%s, in %.2f s",
             result->loss, (long long)result->hidden, (long long)result->patches, result->size,
             (long long)result->x, (long long)result->y, result->dates, result->dates == 1 ? "" : "s",
             result->seconds);
    console_note(TRN_LOG_INFO, text);
    for (size_t i = 0; i < result->file_count && !console_is_quiet(); i++)
        trn_text_printf(out, "%s\n", result->files[i]);
}

static trn_status run_reconstruction(const job_request *request, trn_gpu *gpu, trn_text *out, trn_error *err)
{
    trn_reconstruct_result result;
    trn_status status = trn_reconstruct_run(request->reconstruct, gpu, request->hooks, &result, err);
    if (status != TRN_OK) return status;
    console_progress_end();
    print_reconstruction(request, &result, out);
    trn_reconstruct_result_free(&result);
    return TRN_OK;
}

static trn_status run_job(const job_request *request, trn_gpu *gpu, trn_text *out, trn_error *err)
{
    if (request->reconstruct) return run_reconstruction(request, gpu, out, err);
    trn_embed_result result;
    trn_status status = trn_embed_run(request->job, gpu, request->hooks, &result, err);
    if (status != TRN_OK) return status;
    console_progress_end();
    if (request->json) {
        print_json(gpu, &result, out);
    } else {
        note_figures(&result);
        if (!console_is_quiet()) print_summary(&result, out);
    }
    trn_embed_result_free(&result);
    return TRN_OK;
}

static trn_status explain_job(const job_request *request, trn_gpu *gpu, trn_text *out, trn_error *err)
{
    trn_text text = {0};
    trn_status status = request->reconstruct
                            ? trn_reconstruct_explain(request->reconstruct, gpu, request->hooks, &text, err)
                            : trn_embed_explain(request->job, gpu, request->hooks, &text, err);
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
    return request->reconstruct ? trn_reconstruct_check(request->reconstruct, &silent, err)
                                : trn_embed_check(request->job, &silent, err);
}

trn_status job_request_run(const job_request *request, trn_error *err)
{
    trn_text out = {0};
    trn_gpu *gpu = NULL;
    /* what can be found wrong without a device is found first */
    trn_status status = request->explain ? TRN_OK : check_job(request, err);
    if (status == TRN_OK) status = device_open(request->device, &gpu, err);
    if (status == TRN_OK)
        status = request->explain ? explain_job(request, gpu, &out, err) : run_job(request, gpu, &out, err);
    trn_gpu_close(gpu);
    if (status == TRN_OK) status = console_print(&out, err);
    trn_text_free(&out);
    return status;
}
