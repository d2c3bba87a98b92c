/* Checking a job as far as that needs no device and no pixel. */
#include "job_private.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool known_extension(const char *path)
{
    static const char *const known[] = {"tif", "tiff", "npy", "png"};
    for (size_t i = 0; i < TRN_COUNT(known); i++)
        if (!strcasecmp(trn_path_extension(path), known[i])) return true;
    return false;
}

/* Whether both names lead to the same file; false when one of them is no file yet. */
static bool same_file(const char *a, const char *b)
{
    char *real_a = realpath(a, NULL), *real_b = realpath(b, NULL);
    bool same = real_a && real_b && !strcmp(real_a, real_b);
    free(real_a);
    free(real_b);
    return same;
}

static trn_status check_not_input(const trn_embed_job *job, const char *name, trn_error *err)
{
    char *path = trn_path_join(job->out_dir ? job->out_dir : ".", name);
    if (!path) return trn_fail_memory(err, strlen(name), "an output name");
    trn_status status = TRN_OK;
    for (size_t i = 0; status == TRN_OK && i < job->scene.path_count; i++)
        if (same_file(path, job->scene.paths[i]))
            status = trn_fail(err, TRN_ERR_ARGUMENT, "output '%s' would overwrite the scene", path);
    for (size_t i = 0; status == TRN_OK && i < job->encoder_count; i++)
        if (job->encoders[i].weights && same_file(path, job->encoders[i].weights))
            status = trn_fail(err, TRN_ERR_ARGUMENT, "output '%s' would overwrite the weights", path);
    if (status == TRN_OK && trn_path_is_dir(path))
        status = trn_fail(err, TRN_ERR_ARGUMENT, "output '%s' is a folder; wanted the name of a file", path);
    free(path);
    return status;
}

/* result.json carries this text as it is. */
trn_status job_check_extra(const char *text, trn_error *err)
{
    cJSON *json = cJSON_Parse(text);
    bool object = cJSON_IsObject(json);
    cJSON_Delete(json);
    return object ? TRN_OK : trn_fail(err, TRN_ERR_ARGUMENT, "result_extra is not the text of a JSON object");
}

static trn_status check_output(const trn_embed_job *job, size_t i, trn_error *err)
{
    const char *name = job->exports[i].path;
    if (!known_extension(name))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "output '%s': unknown extension; use .tif, .tiff, .npy or .png", name);
    for (size_t k = 0; k < i; k++)
        if (!strcmp(name, job->exports[k].path))
            return trn_fail(err, TRN_ERR_ARGUMENT, "output '%s' is named twice", name);
    return check_not_input(job, name, err);
}

trn_status job_check_outputs(const trn_embed_job *job, const trn_job_hooks *hooks, trn_error *err)
{
    if (job->result_extra && job_check_extra(job->result_extra, err) != TRN_OK) return TRN_ERR_ARGUMENT;
    if (!job->export_count) {
        trn_fail(err, TRN_ERR_ARGUMENT, "the job writes nothing: name an output (.tif, .npy or .png)");
        return job_blame(hooks, TRN_ERR_ARGUMENT, TRN_JOB_WHOLE, 0);
    }
    for (size_t i = 0; i < job->export_count; i++) {
        trn_status status = job_blame(hooks, check_output(job, i, err), TRN_JOB_EXPORT, i);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}

trn_status job_check_plan_outputs(const job_plan *plan, trn_error *err)
{
    for (size_t i = 0; i < plan->job->export_count && plan->images; i++) {
        const char *name = plan->job->exports[i].path;
        if (!strcasecmp(trn_path_extension(name), "npy")) continue;
        trn_fail(err, TRN_ERR_ARGUMENT,
                 "output '%s': vectors of single images have no place on a map; write them to .npy", name);
        return job_blame(plan->hooks, TRN_ERR_ARGUMENT, TRN_JOB_EXPORT, i);
    }
    return TRN_OK;
}

trn_status trn_embed_check(const trn_embed_job *job, const trn_job_hooks *hooks, trn_error *err)
{
    job_plan plan;
    trn_status status = job_check_outputs(job, hooks, err);
    if (status == TRN_OK) status = job_plan_create(&plan, job, hooks, err);
    if (status != TRN_OK) return status;
    status = job_check_plan_outputs(&plan, err);
    job_plan_destroy(&plan);
    return status;
}
