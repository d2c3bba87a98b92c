/* Probes: features of frozen encoders, computed once, and what simple learners make of them. */
#include "job_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { USUAL_BATCH = 32, MAX_BATCH = 4096 };

typedef struct probe_run {
    const trn_probe_job *job;
    const trn_job_hooks *hooks;
    job_dataset data;
    trn_feature_set sets[TRN_SPLIT_COUNT];
    trn_feature_report reports[TRN_SPLIT_COUNT];
    char *path; /* of result.json */
    trn_probe_result result;
} probe_run;

/* ---- the kinds of probes ---- */

static trn_probe_sets sets_of(const probe_run *run)
{
    return (trn_probe_sets){.train = &run->sets[TRN_SPLIT_TRAIN],
                            .valid = &run->sets[TRN_SPLIT_VALID],
                            .test = &run->sets[TRN_SPLIT_TEST],
                            .task = run->data.info->task,
                            .classes = (int)run->data.info->class_count};
}

static trn_status run_knn(const probe_run *run, trn_gpu *gpu, trn_probe_scores *out, trn_error *err)
{
    trn_probe_sets sets = sets_of(run);
    return trn_probe_knn(gpu, &sets, &run->job->knn, out, err);
}

static trn_status run_linear(const probe_run *run, trn_gpu *gpu, trn_probe_scores *out, trn_error *err)
{
    trn_probe_sets sets = sets_of(run);
    trn_learn_hooks hooks = job_learn_hooks(run->hooks);
    return trn_probe_linear(gpu, &sets, &run->job->linear, &hooks, out, err);
}

static trn_status run_logistic(const probe_run *run, trn_gpu *gpu, trn_probe_scores *out, trn_error *err)
{
    trn_probe_sets sets = sets_of(run);
    trn_learn_hooks hooks = job_learn_hooks(run->hooks);
    return trn_probe_logistic(gpu, &sets, &run->job->logistic, &hooks, out, NULL, NULL, err);
}

typedef struct probe_kind {
    const char *name;      /* and the usual name of its score */
    const char *parameter; /* what trn_probe_scores.parameter is */
    size_t wish, scores;   /* offsets in the job, in the result */
    trn_status (*run)(const probe_run *run, trn_gpu *gpu, trn_probe_scores *out, trn_error *err);
} probe_kind;

#define AT_JOB(member) offsetof(trn_probe_job, member)
#define AT_RESULT(member) offsetof(trn_probe_result, member)
static const probe_kind kinds[] = {
    {"knn", "k", AT_JOB(use_knn), AT_RESULT(knn), run_knn},
    {"linear", "rate", AT_JOB(use_linear), AT_RESULT(linear), run_linear},
    {"logistic", "C", AT_JOB(use_logistic), AT_RESULT(logistic), run_logistic},
};

static const trn_job_probe *wish_of(const trn_probe_job *job, const probe_kind *kind)
{
    return (const trn_job_probe *)((const char *)job + kind->wish);
}

static const char *name_of(const trn_probe_job *job, const probe_kind *kind)
{
    const char *name = wish_of(job, kind)->name;
    return name ? name : kind->name;
}

static const trn_probe_scores *scores_of(const trn_probe_result *result, const probe_kind *kind)
{
    return (const trn_probe_scores *)((const char *)result + kind->scores);
}

/* ---- checking ---- */

/* Scores stand under their names beside the other entries of result.json. */
static trn_status check_name(const trn_probe_job *job, size_t i, trn_error *err)
{
    static const char *const taken[] = {"name",   "recipe",  "data",    "fusion", "encoders",
                                        "device", "terrane", "figures", "probes", "features",
                                        "metric", "split",   "seconds", "files"};
    const char *name = name_of(job, &kinds[i]);
    bool plain = *name && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") ==
                              strlen(name);
    if (!plain)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "a probe is named '%.64s'; wanted letters, digits, '_', '.' and '-'", name);
    for (size_t k = 0; k < TRN_COUNT(taken); k++)
        if (!strcmp(name, taken[k]))
            return trn_fail(err, TRN_ERR_ARGUMENT,
                            "a probe cannot be named '%s': result.json has something else of that name",
                            name);
    for (size_t k = 0; k < i; k++)
        if (wish_of(job, &kinds[k])->wanted && !strcmp(name, name_of(job, &kinds[k])))
            return trn_fail(err, TRN_ERR_ARGUMENT, "two probes are named '%s'", name);
    return TRN_OK;
}

static trn_status check_wishes(const trn_probe_job *job, trn_error *err)
{
    size_t wanted = 0;
    trn_status status = TRN_OK;
    for (size_t i = 0; i < TRN_COUNT(kinds) && status == TRN_OK; i++) {
        if (!wish_of(job, &kinds[i])->wanted) continue;
        status = check_name(job, i, err);
        wanted++;
    }
    if (status == TRN_OK && !wanted)
        return trn_fail(err, TRN_ERR_ARGUMENT, "the job has no probe: name at least one");
    if (status == TRN_OK && (job->batch < 0 || job->batch > MAX_BATCH))
        return trn_fail(err, TRN_ERR_ARGUMENT, "batch is %d; wanted 1 to %d, or 0 for %d", job->batch,
                        MAX_BATCH, USUAL_BATCH);
    if (status == TRN_OK && job->knn.k < 0)
        return trn_fail(err, TRN_ERR_ARGUMENT, "k is %d; wanted a number of neighbours", job->knn.k);
    return status;
}

static trn_status open_run(probe_run *run, const trn_probe_job *job, const trn_job_hooks *hooks,
                           trn_error *err)
{
    const job_learning what = {.name = job->name,
                               .data = &job->data,
                               .encoders = job->encoders,
                               .encoder_count = job->encoder_count,
                               .compose = job->compose,
                               .seed = job->seed,
                               .memory_limit = job->memory_limit,
                               .out_dir = job->out_dir,
                               .strict = job->strict,
                               .result_extra = job->result_extra};
    *run = (probe_run){.job = job, .hooks = hooks};
    trn_status status = job_blame(hooks, check_wishes(job, err), TRN_JOB_WHOLE, 0);
    if (status == TRN_OK) status = job_dataset_open(&run->data, &what, hooks, err);
    if (status != TRN_OK) return status;
    if (!run->data.samples[TRN_SPLIT_VALID] && !run->data.samples[TRN_SPLIT_TEST]) {
        status =
            trn_fail(err, TRN_ERR_FORMAT,
                     "dataset '%s' has neither validation nor test samples: nothing says how good a probe "
                     "is",
                     run->data.info->name);
        job_blame(hooks, status, TRN_JOB_SCENE, 0);
    }
    return status;
}

static void close_run(probe_run *run)
{
    for (int s = 0; s < TRN_SPLIT_COUNT; s++)
        trn_feature_set_free(&run->sets[s]);
    free(run->path);
    job_dataset_close(&run->data);
}

trn_status trn_probe_check(const trn_probe_job *job, const trn_job_hooks *hooks, trn_error *err)
{
    probe_run run;
    trn_status status = open_run(&run, job, hooks, err);
    close_run(&run);
    return status;
}

/* ---- explaining ---- */

static trn_status explain_graph(const probe_run *run, trn_gpu *gpu, const trn_job_hooks *hooks, trn_text *out,
                                trn_error *err)
{
    const trn_learn_model *model = &run->data.model;
    int batch = run->job->batch ? run->job->batch : USUAL_BATCH;
    trn_compile_options how = {.plan_only = true, .memory_limit = run->job->memory_limit};
    trn_exec *exec = NULL;
    trn_tensor *features = NULL;
    trn_graph *graph = trn_graph_create();
    if (!graph) return trn_fail_memory(err, sizeof *model, "the graph");
    trn_tensor *image =
        trn_input(graph, "image", TRN_F32, TRN_SHAPE(batch, model->bands, model->height, model->width));
    trn_status status = trn_learn_build(graph, model, image, false, NULL, &features, err);
    if (status == TRN_OK) {
        trn_text_printf(out, "features  %lld channels, batches of %d\n\n",
                        (long long)trn_tensor_dim(features, -1), batch);
        trn_output_add(graph, "features", features);
        status = trn_compile(graph, gpu, &how, &exec, err);
    }
    if (status == TRN_OK) {
        trn_exec_explain(exec, out);
        status = job_offer_graph(hooks, exec, err);
    }
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
    return status;
}

trn_status trn_probe_explain(const trn_probe_job *job, trn_gpu *gpu, const trn_job_hooks *hooks,
                             trn_text *out, trn_error *err)
{
    probe_run run;
    trn_status status = open_run(&run, job, hooks, err);
    if (status == TRN_OK) status = job_dataset_learn(&run.data, err);
    if (status == TRN_OK) {
        job_dataset_explain(&run.data, out);
        trn_text_add(out, "probes    ");
        for (size_t i = 0, told = 0; i < TRN_COUNT(kinds); i++)
            if (wish_of(job, &kinds[i])->wanted)
                trn_text_printf(out, "%s%s", told++ ? ", " : "", name_of(job, &kinds[i]));
        trn_text_add(out, "\n");
        status = explain_graph(&run, gpu, hooks, out, err);
    }
    if (status == TRN_OK && out->failed) status = trn_fail_memory(err, out->length, "the explanation");
    close_run(&run);
    return status;
}

/* ---- running ---- */

static trn_status compute_features(probe_run *run, trn_gpu *gpu, trn_error *err)
{
    trn_learn_hooks hooks = job_learn_hooks(run->hooks);
    trn_shared_weights *weights = NULL;
    trn_status status = gpu ? trn_shared_weights_create(gpu, &weights, err) : TRN_OK;
    run->result.cached = true;
    for (int s = 0; s < TRN_SPLIT_COUNT && status == TRN_OK; s++) {
        if (!run->data.samples[s]) continue;
        const trn_feature_options options = {.split = (trn_split)s,
                                             .samples = run->data.chosen[s],
                                             .sample_count = run->data.samples[s],
                                             .transform = run->data.eval,
                                             .batch = run->job->batch,
                                             .cache = run->job->cache,
                                             .memory_limit = run->job->memory_limit,
                                             .weights = weights};
        status = trn_learn_features(gpu, &run->data.model, run->data.dataset, &options, &hooks, &run->sets[s],
                                    &run->reports[s], err);
        run->result.cached = run->result.cached && run->reports[s].cached;
        run->result.samples[s] = run->sets[s].count;
    }
    run->result.channels = run->sets[TRN_SPLIT_TRAIN].channels;
    trn_shared_weights_destroy(weights);
    return status;
}

static bool has_class(const trn_feature_set *set, size_t class_index, bool multilabel)
{
    for (size_t i = 0; i < set->count; i++) {
        const int32_t *labels = set->labels + i * set->label_count;
        if (multilabel ? labels[class_index] > 0 : labels[0] == (int32_t)class_index) return true;
    }
    return false;
}

/* A class that training never shows cannot be learned; of several labels that is worth a warning. */
static trn_status check_classes(const probe_run *run, trn_error *err)
{
    const trn_dataset_info *info = run->data.info;
    bool multilabel = info->task == TRN_TASK_MULTILABEL;
    trn_status status = TRN_OK;
    for (size_t c = 0; c < info->class_count && status == TRN_OK; c++) {
        char text[512];
        if (has_class(&run->sets[TRN_SPLIT_TRAIN], c, multilabel)) continue;
        snprintf(text, sizeof text, "no training sample of dataset '%s' is of class %zu ('%s')%s", info->name,
                 c, info->class_names[c],
                 run->data.chosen[TRN_SPLIT_TRAIN] ? ": its limit is too small" : "");
        status = multilabel ? job_plan_warn(&run->data.plan, err, "%s", text)
                            : trn_fail(err, TRN_ERR_FORMAT, "%s", text);
    }
    return job_blame(run->hooks, status, TRN_JOB_SCENE, 0);
}

static trn_status run_probes(probe_run *run, trn_gpu *gpu, trn_error *err)
{
    for (size_t i = 0; i < TRN_COUNT(kinds); i++) {
        trn_probe_scores *scores = (trn_probe_scores *)((char *)&run->result + kinds[i].scores);
        if (!wish_of(run->job, &kinds[i])->wanted) continue;
        if (run->hooks && trn_progress_cancelled(&run->hooks->progress))
            return trn_fail_cancelled(err, "the probes");
        trn_status status = kinds[i].run(run, gpu, scores, err);
        if (status != TRN_OK) return trn_wrap(err, "probe '%s'", name_of(run->job, &kinds[i]));
    }
    return TRN_OK;
}

/* ---- result.json ---- */

static bool has_test(const probe_run *run)
{
    return run->sets[TRN_SPLIT_TEST].count > 0;
}

/* What a probe is judged by. */
static double score_of(const probe_run *run, const trn_probe_scores *scores)
{
    bool test = has_test(run);
    if (run->data.info->task == TRN_TASK_MULTILABEL)
        return test ? scores->test_labels.micro_map : scores->valid_labels.micro_map;
    return test ? scores->test.accuracy : scores->valid.accuracy;
}

static void add_scores(const probe_run *run, const char *separator, trn_text *out)
{
    bool first = true;
    for (size_t i = 0; i < TRN_COUNT(kinds); i++) {
        if (!wish_of(run->job, &kinds[i])->wanted) continue;
        trn_text_add(out, first ? "" : separator);
        trn_text_printf(out, "\"%s\": ", name_of(run->job, &kinds[i]));
        job_result_number(out, score_of(run, scores_of(&run->result, &kinds[i])));
        first = false;
    }
}

static void add_split(const probe_run *run, trn_split split, const trn_class_scores *classes,
                      const trn_multilabel_scores *labels, trn_text *out)
{
    if (!run->sets[split].count) return;
    trn_text_printf(out, ",\n      \"%s\": {\"samples\": %zu", trn_split_name(split), run->sets[split].count);
    job_learn_metrics(run->data.info->task == TRN_TASK_MULTILABEL, "", classes, labels, NAN, out);
    trn_text_add(out, "}");
}

static void add_probe(const probe_run *run, const probe_kind *kind, trn_text *out)
{
    const trn_probe_scores *scores = scores_of(&run->result, kind);
    trn_text_printf(out, "    \"%s\": {\"kind\": \"%s\", \"%s\": ", name_of(run->job, kind), kind->name,
                    kind->parameter);
    job_result_number(out, scores->parameter);
    trn_text_add(out, ", \"train_loss\": ");
    job_result_number(out, scores->train_loss);
    trn_text_printf(out, ", \"iterations\": %d, \"converged\": %s, \"seconds\": %.6g", scores->iterations,
                    scores->converged ? "true" : "false", scores->seconds);
    add_split(run, TRN_SPLIT_VALID, &scores->valid, &scores->valid_labels, out);
    add_split(run, TRN_SPLIT_TEST, &scores->test, &scores->test_labels, out);
    trn_text_add(out, "}");
}

static void add_features(const probe_run *run, trn_text *out)
{
    double seconds = 0;
    for (int s = 0; s < TRN_SPLIT_COUNT; s++)
        seconds += run->reports[s].seconds;
    trn_text_printf(
        out,
        "  \"features\": {\"cached\": %s, \"key\": \"%s\", \"channels\": %lld, \"seconds\": %.6g, "
        "\"device_busy\": %.4g},\n",
        run->result.cached ? "true" : "false", run->reports[TRN_SPLIT_TRAIN].key,
        (long long)run->result.channels, seconds, run->reports[TRN_SPLIT_TRAIN].busy);
}

static trn_status write_result(const probe_run *run, trn_gpu *gpu, trn_error *err)
{
    trn_text out = {0};
    bool first = true, multilabel = run->data.info->task == TRN_TASK_MULTILABEL;
    job_learn_result_begin(&run->data, gpu, &out);
    trn_text_printf(&out, "  \"metric\": \"%s\",\n  \"split\": \"%s\",\n  \"figures\": {",
                    multilabel ? "micro_map" : "accuracy", has_test(run) ? "test" : "valid");
    add_scores(run, ", ", &out);
    trn_text_printf(&out, ", \"seconds\": %.6g},\n  ", run->result.seconds);
    add_scores(run, ",\n  ", &out);
    trn_text_add(&out, ",\n  \"probes\": {\n");
    for (size_t i = 0; i < TRN_COUNT(kinds); i++) {
        if (!wish_of(run->job, &kinds[i])->wanted) continue;
        trn_text_add(&out, first ? "" : ",\n");
        add_probe(run, &kinds[i], &out);
        first = false;
    }
    trn_text_add(&out, "\n  },\n");
    add_features(run, &out);
    trn_status status = job_learn_result_end(&out, NULL, 0, run->path, err);
    trn_text_free(&out);
    return status;
}

static trn_status give_files(probe_run *run, trn_error *err)
{
    run->result.files = calloc(1, sizeof *run->result.files);
    if (!run->result.files) return trn_fail_memory(err, sizeof run->path, "output names");
    run->result.files[0] = run->path;
    run->result.file_count = 1;
    run->path = NULL;
    return TRN_OK;
}

trn_status trn_probe_run(const trn_probe_job *job, trn_gpu *gpu, const trn_job_hooks *hooks,
                         trn_probe_result *result, trn_error *err)
{
    probe_run run;
    uint64_t start = trn_now_ns();
    *result = (trn_probe_result){0};
    trn_status status = open_run(&run, job, hooks, err);
    if (status == TRN_OK)
        status = job_blame(hooks, job_learn_output(&run.data, &run.path, err), TRN_JOB_WHOLE, 0);
    if (status == TRN_OK) status = job_dataset_learn(&run.data, err);
    if (status == TRN_OK) status = compute_features(&run, gpu, err);
    if (status == TRN_OK) status = check_classes(&run, err);
    if (status == TRN_OK) status = run_probes(&run, gpu, err);
    run.result.seconds = (double)(trn_now_ns() - start) * 1e-9;
    if (status == TRN_OK) status = write_result(&run, gpu, err);
    if (status == TRN_OK) status = give_files(&run, err);
    if (status == TRN_OK) *result = run.result;
    close_run(&run);
    return status;
}

void trn_probe_result_free(trn_probe_result *result)
{
    if (result->files) trn_names_free(result->files, result->file_count);
    *result = (trn_probe_result){0};
}
