/* Training: a model of encoders, or of a network of one's own, and a head, fitted to a dataset. */
#include "job_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILES = 64 };

typedef struct train_run {
    const trn_train_job *job;
    job_dataset data;
    trn_text description;
    trn_fit_options fit;
    char *path; /* of result.json */
    trn_train_result result;
} train_run;

/* ---- planning ---- */

/* What a checkpoint must agree with and trn_fit does not see: how pixels and labels are read. */
static void describe(train_run *run)
{
    const trn_job_dataset *wish = &run->job->data;
    trn_text *text = &run->description;
    if (wish->antialias) trn_text_printf(text, "resized to %d with a wider filter\n", wish->resize);
    if (wish->date) trn_text_printf(text, "date %d\n", wish->date);
    if (wish->labels) trn_text_printf(text, "chips of %d pixels\n", run->data.info->width);
    if (wish->has_fill) trn_text_printf(text, "filled with %a\n", wish->fill);
    if (wish->has_ignore) trn_text_printf(text, "label %d ignored\n", wish->ignore);
}

static trn_status plan_fit(train_run *run, trn_error *err)
{
    const job_dataset *data = &run->data;
    describe(run);
    if (run->description.failed) return trn_fail_memory(err, 0, "the description of the training");
    run->fit = run->job->fit;
    run->fit.dir = data->what.out_dir ? data->what.out_dir : ".";
    run->fit.description = trn_text_get(&run->description);
    run->fit.train_transform = data->train;
    run->fit.eval_transform = data->eval;
    run->fit.train_samples = data->chosen[TRN_SPLIT_TRAIN];
    run->fit.train_sample_count = data->samples[TRN_SPLIT_TRAIN];
    run->fit.valid_samples = data->chosen[TRN_SPLIT_VALID];
    run->fit.valid_sample_count = data->samples[TRN_SPLIT_VALID];
    run->fit.test_samples = data->chosen[TRN_SPLIT_TEST];
    run->fit.test_sample_count = data->samples[TRN_SPLIT_TEST];
    return TRN_OK;
}

static trn_status open_run(train_run *run, const trn_train_job *job, const trn_job_hooks *hooks,
                           trn_error *err)
{
    const job_learning what = {.name = job->name,
                               .data = &job->data,
                               .encoders = job->encoders,
                               .encoder_count = job->encoder_count,
                               .trunk = job->trunk,
                               .compose = job->compose,
                               .head = &job->head,
                               .chances = true,
                               .seed = job->fit.seed,
                               .memory_limit = job->fit.memory_limit,
                               .out_dir = job->out_dir,
                               .strict = job->strict,
                               .result_extra = job->result_extra};
    *run = (train_run){.job = job};
    trn_status status = job_dataset_open(&run->data, &what, hooks, err);
    if (status == TRN_OK) status = plan_fit(run, err);
    if (status == TRN_OK)
        status = job_blame(hooks, trn_fit_check(&run->data.model, run->data.dataset, &run->fit, err),
                           TRN_JOB_WHOLE, 0);
    return status;
}

static void close_run(train_run *run)
{
    trn_text_free(&run->description);
    free(run->path);
    job_dataset_close(&run->data);
}

/* Shapes of a network of the recipe's own, which needs no weights to be built. */
static trn_status check_network(const train_run *run, trn_error *err)
{
    const trn_learn_model *model = &run->data.model;
    bool dense = run->data.info->task == TRN_TASK_SEGMENTATION;
    if (!model->trunk) return TRN_OK;
    trn_tensor *out;
    trn_graph *graph = trn_graph_create();
    if (!graph) return trn_fail_memory(err, sizeof(void *), "a graph");
    trn_tensor *image =
        trn_input(graph, "image", TRN_F32, TRN_SHAPE(2, model->bands, model->height, model->width));
    trn_status status = trn_learn_build(graph, model, image, dense, NULL, &out, err);
    trn_graph_destroy(graph);
    return status;
}

trn_status trn_train_check(const trn_train_job *job, const trn_job_hooks *hooks, trn_error *err)
{
    train_run run;
    trn_status status = open_run(&run, job, hooks, err);
    if (status == TRN_OK) status = job_blame(hooks, check_network(&run, err), TRN_JOB_WHOLE, 0);
    close_run(&run);
    return status;
}

trn_status trn_train_explain(const trn_train_job *job, trn_gpu *gpu, const trn_job_hooks *hooks,
                             trn_text *out, trn_error *err)
{
    train_run run;
    trn_status status = open_run(&run, job, hooks, err);
    if (status == TRN_OK) status = job_dataset_learn(&run.data, err);
    if (status == TRN_OK) {
        job_dataset_explain(&run.data, out);
        status = trn_fit_explain(gpu, &run.data.model, run.data.dataset, &run.fit,
                                 hooks ? hooks->tuner : NULL, out, err);
    }
    if (status == TRN_OK && out->failed) status = trn_fail_memory(err, out->length, "the explanation");
    close_run(&run);
    return status;
}

/* ---- outputs ---- */

static trn_status add_file(train_run *run, const char *name, trn_error *err)
{
    trn_train_result *result = &run->result;
    char *path = trn_path_join(run->fit.dir, name);
    if (!path) return trn_fail_memory(err, strlen(name), "an output name");
    if (!trn_path_exists(path))
        free(path);
    else
        result->files[result->file_count++] = path;
    return TRN_OK;
}

/* What trn_fit wrote, in the order in which one looks for it. */
static trn_status list_files(train_run *run, trn_error *err)
{
    static const char *const names[] = {"best.safetensors", "last.safetensors", "log.jsonl", "loss.png"};
    size_t encoders = run->data.plan.encoder_count;
    trn_status status = TRN_OK;
    run->result.files = calloc(MAX_FILES, sizeof *run->result.files);
    if (!run->result.files) return trn_fail_memory(err, MAX_FILES * sizeof(char *), "output names");
    for (size_t i = 0; i < TRN_COUNT(names) && status == TRN_OK; i++)
        status = add_file(run, names[i], err);
    for (size_t i = 0; i < encoders && status == TRN_OK; i++) {
        char name[48] = "encoder.safetensors";
        if (i) snprintf(name, sizeof name, "encoder%zu.safetensors", i + 1);
        status = add_file(run, name, err);
    }
    return status;
}

static void add_figures(const train_run *run, trn_text *out)
{
    const trn_fit_result *fit = &run->result.fit;
    bool multilabel = run->data.info->task == TRN_TASK_MULTILABEL,
         test = run->result.samples[TRN_SPLIT_TEST] > 0, valid = run->result.samples[TRN_SPLIT_VALID] > 0;
    trn_text_printf(out, "  \"metric\": \"%s\",\n  \"split\": ", fit->metric);
    trn_text_json(out, test ? "test" : valid ? "valid" : NULL);
    trn_text_printf(out, ",\n  \"figures\": {\"best_epoch\": %lld, \"epochs\": %lld, \"steps\": %lld",
                    (long long)fit->best_epoch, (long long)fit->epochs, (long long)fit->steps);
    if (test || valid)
        job_learn_metrics(multilabel, "", test ? &fit->test : &fit->valid,
                          test ? &fit->test_labels : &fit->valid_labels, NAN, out);
    if (valid) job_learn_metrics(multilabel, "valid_", &fit->valid, &fit->valid_labels, fit->valid_loss, out);
    trn_text_add(out, ", \"train_loss\": ");
    job_result_number(out, fit->train_loss);
    trn_text_printf(out, ", \"seconds\": %.6g, \"samples_per_second\": %.6g, \"device_busy\": %.4g},\n",
                    fit->seconds, fit->samples_per_second, fit->busy);
}

static void add_training(const train_run *run, trn_text *out)
{
    const trn_fit_result *fit = &run->result.fit;
    trn_text_printf(out,
                    "  \"seed\": %llu,\n  \"training\": {\"parameters\": %llu, \"learning\": %llu, "
                    "\"device_bytes\": %llu, \"resumed\": %s, \"stopped_early\": %s},\n",
                    (unsigned long long)run->job->fit.seed, (unsigned long long)fit->parameters,
                    (unsigned long long)fit->learning, (unsigned long long)fit->device_bytes,
                    fit->resumed ? "true" : "false", fit->stopped_early ? "true" : "false");
}

static trn_status write_result(train_run *run, trn_gpu *gpu, trn_error *err)
{
    trn_text out = {0};
    job_learn_result_begin(&run->data, gpu, &out);
    add_figures(run, &out);
    add_training(run, &out);
    trn_status status = job_learn_result_end(&out, run->result.files, run->result.file_count, run->path, err);
    trn_text_free(&out);
    if (status != TRN_OK) return status;
    run->result.files[run->result.file_count++] = run->path;
    run->path = NULL;
    return TRN_OK;
}

trn_status trn_train_run(const trn_train_job *job, trn_gpu *gpu, const trn_job_hooks *hooks,
                         trn_train_result *result, trn_error *err)
{
    train_run run;
    trn_learn_hooks learn_hooks = job_learn_hooks(hooks);
    *result = (trn_train_result){0};
    trn_status status = open_run(&run, job, hooks, err);
    if (status == TRN_OK)
        status = job_blame(hooks, job_learn_output(&run.data, &run.path, err), TRN_JOB_WHOLE, 0);
    if (status == TRN_OK) status = job_dataset_learn(&run.data, err);
    if (status == TRN_OK)
        status =
            trn_fit(gpu, &run.data.model, run.data.dataset, &run.fit, &learn_hooks, &run.result.fit, err);
    memcpy(run.result.samples, run.data.samples, sizeof run.result.samples);
    if (status == TRN_OK) status = list_files(&run, err);
    if (status == TRN_OK) status = write_result(&run, gpu, err);
    if (status == TRN_OK)
        *result = run.result;
    else
        trn_train_result_free(&run.result);
    close_run(&run);
    return status;
}

void trn_train_result_free(trn_train_result *result)
{
    if (result->files) trn_names_free(result->files, result->file_count);
    *result = (trn_train_result){0};
}
