/* Before a fit: settings that fit one another, the dataset and the model; what follows from them. */
#include "fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void fit_note(const fit *f, trn_log_level level, const char *fmt, ...)
{
    char text[1024];
    if (!f->hooks->note) return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    f->hooks->note(f->hooks->user, level, text);
}

const size_t *fit_samples(const fit *f, trn_split split)
{
    const trn_fit_options *o = f->options;
    const size_t *const lists[] = {o->train_samples, o->valid_samples, o->test_samples};
    return lists[split];
}

/* ---- settings ---- */

static bool is_share(double x)
{
    return x >= 0 && x < 1;
}

static trn_status check_numbers(const trn_fit_options *o, trn_error *err)
{
    if (o->epochs < 1 || o->batch < 1 || o->accumulate < 0)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "%lld epochs in batches of %d, %d to a step: each must be at least 1",
                        (long long)o->epochs, o->batch, o->accumulate);
    if (!is_share(o->dropout) || !is_share(o->drop_path))
        return trn_fail(err, TRN_ERR_ARGUMENT, "dropout %g and drop_path %g must be in [0, 1)", o->dropout,
                        o->drop_path);
    if (!(o->layer_decay >= 0 && o->layer_decay <= 1) || !(o->head_rate >= 0 && isfinite(o->head_rate)))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "layer_decay %g must be in (0, 1], and head_rate %g not negative", o->layer_decay,
                        o->head_rate);
    if (o->patience < 0 || !(o->checkpoint_seconds >= 0) || !(o->warmup_epochs >= 0))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "patience %d, checkpoint_seconds %g and warmup_epochs %g must not be negative",
                        o->patience, o->checkpoint_seconds, o->warmup_epochs);
    if (o->loss_scale != 0 && !(o->loss_scale >= 1 && o->loss_scale <= FIT_MOST_SCALE))
        return trn_fail(err, TRN_ERR_ARGUMENT, "the loss scale %g must be in [1, %g]", o->loss_scale,
                        FIT_MOST_SCALE);
    return TRN_OK;
}

static bool is_of_labels(trn_loss_kind kind)
{
    return kind == TRN_LOSS_BINARY || kind == TRN_LOSS_BINARY_BALANCED;
}

static trn_status settle_loss(fit *f, trn_error *err)
{
    const trn_loss_choice *loss = &f->options->loss;
    f->loss = loss->kind;
    if (f->loss == TRN_LOSS_BY_TASK) f->loss = f->multilabel ? TRN_LOSS_BINARY : TRN_LOSS_CROSS_ENTROPY;
    if (is_of_labels(f->loss) != f->multilabel)
        return trn_fail(err, TRN_ERR_ARGUMENT, "the loss does not suit %s: '%s' takes %s",
                        trn_task_name(f->info->task), f->info->name,
                        f->multilabel ? "binary cross entropy, balanced or not"
                                      : "cross entropy, dice, jaccard or focal");
    bool smooths = f->loss == TRN_LOSS_CROSS_ENTROPY || f->loss == TRN_LOSS_CE_DICE;
    bool weighted = loss->balance || loss->class_weights;
    if (!(loss->label_smoothing >= 0 && loss->label_smoothing <= 1) ||
        (loss->label_smoothing > 0 && !smooths))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "label_smoothing %g: it is in [0, 1], and of cross entropy only",
                        loss->label_smoothing);
    if (!(loss->gamma >= 0 && isfinite(loss->gamma)))
        return trn_fail(err, TRN_ERR_ARGUMENT, "the focal loss wants a gamma that is not negative, not %g",
                        loss->gamma);
    if (weighted && (f->loss == TRN_LOSS_FOCAL || f->loss == TRN_LOSS_BINARY_BALANCED))
        return trn_fail(err, TRN_ERR_ARGUMENT, "this loss takes no class weights");
    if (loss->balance && loss->class_weights)
        return trn_fail(err, TRN_ERR_ARGUMENT, "class weights are given and are to be balanced: choose one");
    if (loss->class_weights && loss->class_weight_count != f->info->class_count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "%zu class weights, and '%s' has %zu classes",
                        loss->class_weight_count, f->info->name, f->info->class_count);
    return TRN_OK;
}

static trn_status settle_metric(fit *f, trn_error *err)
{
    static const char *const usual[] = {"accuracy", "micro_map", "mean_iou"}; /* by task */
    const char *name = f->options->metric ? f->options->metric : usual[f->info->task];
    f->metric = trn_metric_find(name, f->multilabel, err);
    if (!f->metric) return err ? err->code : TRN_ERR_ARGUMENT;
    if (f->counts[TRN_SPLIT_VALID] || !f->options->patience) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "'%s' has no validation split to stop early by: leave patience out", f->info->name);
}

/* ---- the dataset ---- */

static trn_status check_head(const fit *f, trn_error *err)
{
    const trn_head_desc *head = f->model->head;
    if (!head) return trn_fail(err, TRN_ERR_ARGUMENT, "a model without a head has nothing to learn by");
    if (head->outputs == (int64_t)f->info->class_count) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT, "the head has %lld outputs, and '%s' has %zu classes",
                    (long long)head->outputs, f->info->name, f->info->class_count);
}

static trn_status check_size(const fit *f, const trn_transform *transform, const char *what, trn_error *err)
{
    int height, width;
    trn_status status = trn_transform_size(transform, f->info->height, f->info->width, &height, &width, err);
    if (status != TRN_OK) return trn_wrap(err, "%s", what);
    if (height == f->model->height && width == f->model->width) return TRN_OK;
    return trn_fail(err, TRN_ERR_FORMAT,
                    "%s: samples of '%s' come as %d x %d pixels, and the model takes %d x %d", what,
                    f->info->name, width, height, f->model->width, f->model->height);
}

static trn_status check_list(fit *f, trn_split split, size_t count, trn_error *err)
{
    const size_t *list = fit_samples(f, split);
    size_t there = f->info->samples[split];
    f->counts[split] = list ? count : there;
    for (size_t i = 0; list && i < count; i++)
        if (list[i] >= there)
            return trn_fail(err, TRN_ERR_ARGUMENT, "sample %zu is chosen, and split %s of '%s' has %zu",
                            list[i], trn_split_name(split), f->info->name, there);
    return TRN_OK;
}

static trn_status check_samples(fit *f, trn_error *err)
{
    const trn_fit_options *o = f->options;
    const size_t given[] = {o->train_sample_count, o->valid_sample_count, o->test_sample_count};
    size_t needed = (size_t)o->batch * (size_t)f->runs, count;
    for (int split = 0; split < TRN_SPLIT_COUNT; split++) {
        trn_status status = check_list(f, (trn_split)split, given[split], err);
        if (status != TRN_OK) return status;
    }
    count = f->counts[TRN_SPLIT_TRAIN];
    if (!count)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "'%s' has no samples to train with: its split 'train' is empty", f->info->name);
    if (count < needed)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "a step takes %zu samples (batch %d%s), and there are %zu to train with: make the "
                        "batch smaller",
                        needed, o->batch, f->runs > 1 ? ", several to a step" : "", count);
    if ((size_t)f->model->bands == f->info->band_count) return TRN_OK;
    return trn_fail(err, TRN_ERR_FORMAT, "samples of '%s' have %zu bands, and the model takes %d",
                    f->info->name, f->info->band_count, f->model->bands);
}

static void count_labels(fit *f, const int32_t *labels)
{
    size_t classes = f->info->class_count;
    for (size_t i = 0; i < f->info->label_count; i++) {
        if (f->multilabel)
            f->class_counts[i] += labels[i] > 0;
        else if (labels[i] >= 0 && (size_t)labels[i] < classes)
            f->class_counts[labels[i]]++;
    }
}

/* Of the chosen samples; all of the split are counted by the dataset. */
static trn_status count_classes(fit *f, trn_error *err)
{
    const trn_fit_options *o = f->options;
    f->class_counts = trn_arena_array(f->arena, f->info->class_count, sizeof *f->class_counts);
    if (!f->class_counts) return trn_fail_memory(err, f->info->class_count * sizeof(uint64_t), "counts");
    if (!o->train_samples)
        return trn_dataset_class_counts(f->dataset, TRN_SPLIT_TRAIN, &f->hooks->progress, f->class_counts,
                                        err);
    int32_t *labels = calloc(f->info->label_count + 1, sizeof *labels);
    if (!labels) return trn_fail_memory(err, f->info->label_count * sizeof *labels, "labels");
    trn_status status = TRN_OK;
    for (size_t i = 0; status == TRN_OK && i < f->counts[TRN_SPLIT_TRAIN]; i++) {
        status = trn_dataset_read(f->dataset, TRN_SPLIT_TRAIN, o->train_samples[i], NULL, labels, err);
        if (status == TRN_OK) count_labels(f, labels);
    }
    free(labels);
    return status;
}

/* Masks often have a legend of more classes than a few scenes show; elsewhere it is a mistake. */
static trn_status check_classes(const fit *f, trn_error *err)
{
    trn_text missing = {0};
    trn_status status = TRN_OK;
    for (size_t c = 0; c < f->info->class_count; c++)
        if (!f->class_counts[c])
            trn_text_printf(&missing, "%s'%s'", missing.length ? ", " : "", f->info->class_names[c]);
    if (missing.length && f->info->task == TRN_TASK_CLASSIFICATION)
        status = trn_fail(err, TRN_ERR_ARGUMENT, "no sample that '%s' has to train with is of class %.900s",
                          f->info->name, trn_text_get(&missing));
    else if (missing.length)
        fit_note(f, TRN_LOG_WARN, "nothing in the training samples of '%s' is of class %.600s", f->info->name,
                 trn_text_get(&missing));
    trn_text_free(&missing);
    return status;
}

static trn_status settle_weights(fit *f, trn_error *err)
{
    const trn_loss_choice *loss = &f->options->loss;
    size_t classes = f->info->class_count;
    double total = 0;
    if (!loss->class_weights && !loss->balance) return TRN_OK;
    f->class_weights = trn_arena_array(f->arena, classes, sizeof *f->class_weights);
    if (!f->class_weights) return trn_fail_memory(err, classes * sizeof(float), "class weights");
    for (size_t c = 0; c < classes; c++)
        total += (double)f->class_counts[c];
    for (size_t c = 0; c < classes; c++) {
        double count = (double)f->class_counts[c];
        double weight = loss->class_weights ? loss->class_weights[c]
                        : count > 0         ? total / ((double)classes * count)
                                            : 0;
        if (!(weight >= 0 && isfinite(weight)))
            return trn_fail(err, TRN_ERR_ARGUMENT, "the weight %g of class '%s' must not be negative", weight,
                            f->info->class_names[c]);
        f->class_weights[c] = (float)weight;
    }
    return TRN_OK;
}

/* ---- steps ---- */

/* Short runs of a recipe made for long ones still learn. */
static void warm_up(fit *f)
{
    double epochs = f->options->warmup_epochs, steps = epochs * (double)f->epoch_steps;
    int64_t most = f->schedule.steps / 2;
    f->schedule.warmup = steps < (double)most ? llround(steps) : most;
    if (steps <= (double)most) return;
    fit_note(f, TRN_LOG_WARN,
             "a warm-up of %g epochs is more than half of the %lld steps: it ends after %lld", epochs,
             (long long)f->schedule.steps, (long long)most);
}

static trn_status settle_schedule(fit *f, trn_error *err)
{
    const trn_fit_options *o = f->options;
    int64_t batches = (int64_t)(f->counts[TRN_SPLIT_TRAIN] / (size_t)o->batch);
    f->epoch_steps = batches / f->runs;
    if (o->epochs > INT32_MAX / f->epoch_steps) /* steps are counters of random numbers */
        return trn_fail(err, TRN_ERR_ARGUMENT, "%lld epochs of %lld steps are more than can be counted",
                        (long long)o->epochs, (long long)f->epoch_steps);
    f->schedule = o->schedule;
    if (!f->schedule.steps) f->schedule.steps = o->epochs * f->epoch_steps;
    if (o->warmup_epochs > 0) warm_up(f);
    return trn_schedule_check(&f->schedule, err);
}

static trn_status settle_depths(fit *f, trn_error *err)
{
    trn_status status = TRN_OK;
    f->depths = trn_arena_array(f->arena, f->model->member_count + 1, sizeof *f->depths);
    if (!f->depths) return trn_fail_memory(err, f->model->member_count * sizeof(int), "depths");
    for (size_t i = 0; status == TRN_OK && i < f->model->member_count; i++)
        status = trn_encoder_depth(f->model->members[i].encoder, &f->depths[i], err);
    return status;
}

/* All that needs no file to be read. */
static trn_status settle_options(fit *f, trn_error *err)
{
    const trn_fit_options *o = f->options;
    f->info = trn_dataset_get_info(f->dataset);
    f->multilabel = f->info->task == TRN_TASK_MULTILABEL;
    f->dense = f->info->task == TRN_TASK_SEGMENTATION;
    f->runs = TRN_MAX(o->accumulate, 1);
    f->optimizer = o->optimizer;
    f->optimizer.accumulate = f->runs;
    f->state.loss_scale = !o->mixed ? 1 : o->loss_scale != 0 ? o->loss_scale : 65536;
    trn_status status = check_numbers(o, err);
    if (status == TRN_OK) status = check_head(f, err);
    if (status == TRN_OK) status = check_samples(f, err);
    if (status == TRN_OK) status = check_size(f, &o->train_transform, "training", err);
    if (status == TRN_OK) status = check_size(f, &o->eval_transform, "validation", err);
    if (status == TRN_OK) status = settle_loss(f, err);
    if (status == TRN_OK) status = settle_metric(f, err);
    if (status == TRN_OK) status = settle_schedule(f, err);
    return status == TRN_OK ? settle_depths(f, err) : status;
}

trn_status trn_fit_check(const trn_learn_model *model, const trn_dataset *dataset,
                         const trn_fit_options *options, trn_error *err)
{
    const trn_learn_hooks nobody = {0};
    fit f = {.model = model,
             .dataset = dataset,
             .options = options,
             .hooks = &nobody,
             .arena = trn_arena_create()};
    trn_status status =
        f.arena ? settle_options(&f, err) : trn_fail_memory(err, sizeof f, "what is known of a fit");
    trn_arena_destroy(f.arena);
    return status;
}

trn_status fit_settle(fit *f, trn_error *err)
{
    trn_status status = settle_options(f, err);
    if (status == TRN_OK) status = count_classes(f, err);
    if (status == TRN_OK) status = check_classes(f, err);
    if (status == TRN_OK) status = settle_weights(f, err);
    return status;
}
