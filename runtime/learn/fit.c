/* The loop: epochs of steps, their evaluation, the best weights, checkpoints, and going on where a run was
 * stopped. */
#include "fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const trn_learn_hooks nobody;

static double seconds_since(uint64_t begun)
{
    return (double)(trn_now_ns() - begun) * 1e-9;
}

/* ---- an epoch ---- */

static void report_step(const fit *f)
{
    char stage[32];
    size_t step = (size_t)f->options->batch;
    snprintf(stage, sizeof stage, "epoch %lld/%lld", (long long)f->state.epoch + 1,
             (long long)f->options->epochs);
    trn_progress_report(&f->hooks->progress, stage, (uint64_t)f->state.batch * step,
                        (uint64_t)(f->epoch_steps * f->runs) * step);
}

static trn_status stop(fit *f, trn_error *err)
{
    trn_status status = fit_checkpoint_write(f, err);
    if (status != TRN_OK) return status;
    return trn_fail(err, TRN_ERR_CANCELLED,
                    "training was stopped after step %lld; the same command goes on from there ('%s')",
                    (long long)f->state.step, f->last_path);
}

/* Unless the caller says it: checkpoints of large models do not take more than a twentieth of the time. */
static bool is_due(const fit *f)
{
    double pause = f->options->checkpoint_seconds;
    if (!(pause > 0)) pause = fmax(60, 20 * f->write_seconds);
    return seconds_since(f->last_written) >= pause;
}

static trn_status train_epoch(fit *f, trn_error *err)
{
    int64_t batches = f->epoch_steps * f->runs;
    trn_status status =
        trn_batches_start_at(f->batches, (uint64_t)f->state.epoch, (size_t)f->state.batch, err);
    f->staged = false;
    while (status == TRN_OK && f->state.batch < batches) {
        report_step(f);
        if (trn_progress_cancelled(&f->hooks->progress)) return stop(f, err);
        status = fit_step_take(f, err);
        if (status == TRN_OK && f->state.batch < batches && is_due(f)) status = fit_checkpoint_write(f, err);
    }
    if (status == TRN_OK) report_step(f);
    return status;
}

static bool is_better(const fit *f, double value)
{
    if (!f->counts[TRN_SPLIT_VALID] || !f->state.best_epoch) return true;
    if (isnan(f->state.best_metric)) return !isnan(value); /* nothing compares with it */
    return f->metric->lower_is_better ? value < f->state.best_metric : value > f->state.best_metric;
}

/* What an epoch cost. */
typedef struct epoch_cost {
    uint64_t begun;
    double run_seconds;
    int64_t trained;
} epoch_cost;

static void tell_epoch(const fit *f, const epoch_cost *cost, double value, bool best)
{
    char valid[96] = "", took[32];
    double seconds = seconds_since(cost->begun);
    if (f->counts[TRN_SPLIT_VALID])
        snprintf(valid, sizeof valid, ", validation loss %.4g, %s %.4g", f->state.valid_loss, f->metric->name,
                 value);
    fit_note(f, TRN_LOG_INFO, "epoch %lld/%lld: loss %.4g%s%s, %s, %.3g samples/s, device busy %.0f %%",
             (long long)f->state.epoch, (long long)f->options->epochs, f->state.train_loss, valid,
             best ? " (best)" : "", trn_format_seconds(seconds, took),
             (double)(f->trained - cost->trained) / fmax(seconds, 1e-9),
             100 * fmin(1, (f->run_seconds - cost->run_seconds) / fmax(seconds, 1e-9)));
}

static trn_status draw_curve(const fit *f, trn_error *err)
{
    char *path = trn_path_join(f->options->dir, "loss.png");
    if (!path) return trn_fail_memory(err, sizeof path, "a path");
    trn_status status = fit_curve_write(&f->log.curve, path, err);
    free(path);
    return status;
}

/* The epoch's steps are done: evaluates, keeps the best, and moves on to the next. */
static trn_status end_epoch(fit *f, const epoch_cost *cost, trn_error *err)
{
    fit_scores scores = {0};
    fit_state *s = &f->state, before = *s;
    trn_status status = TRN_OK;
    if (f->counts[TRN_SPLIT_VALID]) {
        status = fit_engine_pass(f, err);
        if (status == TRN_OK) status = fit_evaluate(f, TRN_SPLIT_VALID, &scores, err);
        if (status == TRN_ERR_CANCELLED) return stop(f, err);
        if (status != TRN_OK) return status;
    }
    double value = f->counts[TRN_SPLIT_VALID] ? fit_metric_value(f, &scores) : 0;
    bool best = is_better(f, value);
    s->epoch++;
    s->batch = 0;
    s->train_loss = s->loss_sum / (double)s->loss_count;
    s->valid_loss = scores.loss;
    s->loss_sum = 0;
    s->loss_count = 0;
    s->stale = best ? 0 : s->stale + 1;
    if (best) {
        s->best_metric = value;
        s->best_epoch = s->epoch;
        status = fit_best_write(f, f->counts[TRN_SPLIT_VALID] ? &scores : NULL, err);
    }
    s->stopped_early = f->options->patience > 0 && s->stale >= f->options->patience;
    s->complete = s->stopped_early || s->epoch == f->options->epochs;
    if (status == TRN_OK)
        status =
            fit_log_epoch(&f->log, s, f->counts[TRN_SPLIT_VALID] ? f->metric->name : NULL, value, best, err);
    if (status == TRN_OK) status = draw_curve(f, err);
    if (status == TRN_OK) status = fit_checkpoint_write(f, err);
    if (status == TRN_OK)
        tell_epoch(f, cost, value, best);
    else
        *s = before;
    return status;
}

static trn_status train(fit *f, trn_error *err)
{
    const trn_fit_options *o = f->options;
    trn_batches_options options = {.split = TRN_SPLIT_TRAIN,
                                   .batch = o->batch,
                                   .samples = o->train_samples,
                                   .sample_count = o->train_sample_count,
                                   .shuffle = true,
                                   .drop_last = true,
                                   .seed = o->seed,
                                   .transform = o->train_transform};
    if (f->state.complete) return TRN_OK;
    trn_status status = trn_batches_open(f->dataset, &options, &f->batches, err);
    f->begun = f->last_written = trn_now_ns();
    f->run_seconds = 0;
    while (status == TRN_OK && !f->state.complete) {
        epoch_cost cost = {trn_now_ns(), f->run_seconds, f->trained};
        status = train_epoch(f, err);
        f->train_seconds += seconds_since(cost.begun);
        if (status == TRN_OK) status = end_epoch(f, &cost, err);
    }
    trn_batches_close(f->batches);
    f->batches = NULL;
    if (status == TRN_ERR_DEVICE_LOST && f->has_last)
        trn_wrap(err, "training stopped; the same command goes on after step %lld", (long long)f->last_step);
    return status;
}

/* ---- the whole ---- */

static trn_status evaluate_best(fit *f, trn_fit_result *out, trn_error *err)
{
    fit_scores scores = {0};
    trn_status status = fit_best_read(f, err);
    if (status == TRN_OK && f->counts[TRN_SPLIT_VALID])
        status = fit_evaluate(f, TRN_SPLIT_VALID, &scores, err);
    out->valid = scores.classes;
    out->valid_labels = scores.labels;
    scores = (fit_scores){0};
    if (status == TRN_OK && f->counts[TRN_SPLIT_TEST]) status = fit_evaluate(f, TRN_SPLIT_TEST, &scores, err);
    out->test = scores.classes;
    out->test_labels = scores.labels;
    return status;
}

static void fill_result(const fit *f, trn_fit_result *out)
{
    const fit_state *s = &f->state;
    out->epochs = s->epoch;
    out->steps = s->step;
    out->stopped_early = s->stopped_early;
    out->best_epoch = s->best_epoch;
    out->best_metric = s->best_metric;
    out->train_loss = s->train_loss;
    out->valid_loss = s->valid_loss;
    out->metric = f->metric->name;
    out->seconds = seconds_since(f->begun);
    out->busy = fmin(1, f->run_seconds / fmax(out->seconds, 1e-9));
    out->samples_per_second = f->train_seconds > 0 ? (double)f->trained / f->train_seconds : 0;
    out->parameters = f->engine.parameters;
    out->learning = f->engine.learning;
    out->device_bytes = fit_engine_bytes(&f->engine);
}

static trn_status begin(fit *f, trn_gpu *gpu, const trn_learn_model *model, const trn_dataset *dataset,
                        const trn_fit_options *options, const trn_learn_hooks *hooks, bool plan_only,
                        trn_error *err)
{
    *f = (fit){.gpu = gpu,
               .model = model,
               .dataset = dataset,
               .options = options,
               .hooks = hooks ? hooks : &nobody,
               .arena = trn_arena_create(),
               .begun = trn_now_ns()};
    if (!f->arena) return trn_fail_memory(err, sizeof *f, "a fit");
    trn_status status = fit_settle(f, err);
    return status == TRN_OK ? fit_engine_create(f, plan_only, err) : status;
}

static void end(fit *f)
{
    fit_engine_destroy(&f->engine);
    fit_log_close(&f->log);
    trn_arena_destroy(f->arena);
    free(f->last_path);
    free(f->best_path);
    free(f->values);
    free(f->pixels);
    free(f->labels);
    free(f->targets);
    free(f->counters);
}

static trn_status open_dir(fit *f, trn_error *err)
{
    const char *dir = f->options->dir;
    trn_status status = trn_make_dirs(dir, err);
    if (status != TRN_OK) return status;
    f->last_path = trn_path_join(dir, "last.safetensors");
    f->best_path = trn_path_join(dir, "best.safetensors");
    return f->last_path && f->best_path ? TRN_OK : trn_fail_memory(err, strlen(dir), "a path");
}

static trn_status open_log(fit *f, trn_error *err)
{
    bool cut = false;
    char *path = trn_path_join(f->options->dir, "log.jsonl");
    if (!path) return trn_fail_memory(err, sizeof path, "a path");
    trn_status status = fit_log_open(&f->log, path, f->state.log_bytes, &cut, err);
    if (cut) fit_note(f, TRN_LOG_WARN, "'%.800s' is shorter than it was: its beginning is lost", path);
    free(path);
    return status;
}

static trn_status resume(fit *f, trn_fit_result *out, trn_error *err)
{
    trn_status status = fit_checkpoint_read(f, &out->resumed, err);
    if (status != TRN_OK) return status;
    out->was_complete = f->state.complete;
    if (out->was_complete)
        fit_note(f, TRN_LOG_INFO, "training was complete after %lld epochs", (long long)f->state.epoch);
    else if (out->resumed)
        fit_note(f, TRN_LOG_INFO, "training goes on after step %lld, in epoch %lld", (long long)f->state.step,
                 (long long)f->state.epoch + 1);
    return open_log(f, err);
}

trn_status trn_fit(trn_gpu *gpu, const trn_learn_model *model, const trn_dataset *dataset,
                   const trn_fit_options *options, const trn_learn_hooks *hooks, trn_fit_result *out,
                   trn_error *err)
{
    fit f;
    *out = (trn_fit_result){0};
    if (!options->dir) return trn_fail(err, TRN_ERR_ARGUMENT, "training wants a folder to write into");
    trn_status status = begin(&f, gpu, model, dataset, options, hooks, false, err);
    if (status == TRN_OK) status = fit_identify(&f, err);
    if (status == TRN_OK) status = open_dir(&f, err);
    if (status == TRN_OK) status = resume(&f, out, err);
    if (status == TRN_OK) status = train(&f, err);
    if (status == TRN_OK) status = evaluate_best(&f, out, err);
    if (status == TRN_OK) fill_result(&f, out);
    end(&f);
    return status;
}

static void explain_counts(const fit *f, trn_text *out)
{
    char total[32];
    uint64_t bytes = fit_engine_bytes(&f->engine);
    trn_text_printf(out, "training on '%s' (%s, %zu classes): %zu samples, %zu to validate, %zu to test\n",
                    f->info->name, trn_task_name(f->info->task), f->info->class_count,
                    f->counts[TRN_SPLIT_TRAIN], f->counts[TRN_SPLIT_VALID], f->counts[TRN_SPLIT_TEST]);
    trn_text_printf(out, "%llu parameters, %llu learn\n", (unsigned long long)f->engine.parameters,
                    (unsigned long long)f->engine.learning);
    trn_text_printf(out, "%lld epochs of %lld steps of %d samples%s; metric: %s\n",
                    (long long)f->options->epochs, (long long)f->epoch_steps, f->options->batch * f->runs,
                    f->runs > 1 ? " (in several runs)" : "", f->metric->name);
    trn_text_printf(out, "device memory: %s for training and evaluation\n", trn_format_bytes(bytes, total));
}

trn_status trn_fit_explain(trn_gpu *gpu, const trn_learn_model *model, const trn_dataset *dataset,
                           const trn_fit_options *options, trn_tuner *tuner, trn_text *out, trn_error *err)
{
    fit f;
    trn_status status = begin(&f, gpu, model, dataset, options, NULL, true, err);
    if (status == TRN_OK) {
        explain_counts(&f, out);
        trn_text_add(out, "\na step of training:\n");
        trn_exec_explain(f.engine.train, out);
        trn_text_add(out, "\nevaluation:\n");
        trn_exec_explain(f.engine.eval, out);
    }
    if (status == TRN_OK && tuner) status = trn_tuner_add(tuner, f.engine.train, err);
    if (status == TRN_OK && tuner) status = trn_tuner_add(tuner, f.engine.eval, err);
    end(&f);
    return status;
}
