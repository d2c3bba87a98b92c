/* Features of frozen encoders: computed once for a split, then taken from the cache. */
#include "cache.h"
#include "probe_private.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_BATCH = 32, SEATS = 2 };

/* Samples of a run. */
typedef struct flight {
    size_t first, count;
} flight;

typedef struct extraction {
    const trn_learn_model *model;
    const trn_dataset *dataset;
    const trn_feature_options *options;
    const trn_learn_hooks *hooks;
    size_t count; /* samples */
    int64_t batch, channels;
    size_t label_count;
    learn_graph net;
    trn_batches *batches;
    float *pixels; /* of a short batch */
    flight flights[SEATS];
    size_t launched, landed;           /* runs; run i takes seat i % SEATS */
    uint64_t device_ns, working_since; /* the device has work while runs are in flight */
} extraction;

static void extraction_close(extraction *x)
{
    trn_batches_close(x->batches);
    learn_graph_close(&x->net);
    free(x->pixels);
}

/* ---- checks ---- */

static trn_status check_transform(const trn_transform *transform, trn_error *err)
{
    if (transform->random_crop || transform->rotate || transform->flip_x > 0 || transform->flip_y > 0)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "features are computed once: random crops, flips and rotations have no place there");
    return TRN_OK;
}

static trn_status check_size(const extraction *x, trn_error *err)
{
    const trn_dataset_info *info = trn_dataset_get_info(x->dataset);
    const trn_learn_model *model = x->model;
    int height, width;
    trn_status status =
        trn_transform_size(&x->options->transform, info->height, info->width, &height, &width, err);
    if (status != TRN_OK) return status;
    if (model->bands < 0 || (size_t)model->bands != info->band_count || height != model->height ||
        width != model->width)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "the model takes %d bands of %d x %d pixels, and dataset '%s' gives %zu of %d x %d",
                        model->bands, model->width, model->height, info->name, info->band_count, width,
                        height);
    return TRN_OK;
}

static trn_status check(const extraction *x, trn_error *err)
{
    const trn_dataset_info *info = trn_dataset_get_info(x->dataset);
    if (info->task == TRN_TASK_SEGMENTATION)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "dataset '%s' has masks: pooled features are for classes and labels of images",
                        info->name);
    if (x->options->batch < 0)
        return trn_fail(err, TRN_ERR_ARGUMENT, "a batch of %d samples", x->options->batch);
    trn_status status = check_transform(&x->options->transform, err);
    return status == TRN_OK ? check_size(x, err) : status;
}

/* ---- the key ---- */

static void describe_transform(const trn_transform *t, size_t bands, trn_text *text)
{
    trn_text_printf(text, "resize %d %d %d crop %d %d\n", t->resize_height, t->resize_width, t->antialias,
                    t->crop_height, t->crop_width);
    for (size_t b = 0; t->stretch && b < bands; b++)
        trn_text_printf(text, "stretch %a %a\n", t->stretch[b].low, t->stretch[b].high);
    for (size_t b = 0; t->normalize && b < bands; b++)
        trn_text_printf(text, "normalize %a %a\n", t->normalize[b].mean, t->normalize[b].std);
}

static trn_status make_key(const extraction *x, char key[65], trn_error *err)
{
    char model[65];
    trn_text text = {0};
    trn_sha256_state hash;
    uint8_t digest[32];
    trn_status status = trn_learn_model_key(x->model, model, err);
    if (status != TRN_OK) return status;
    trn_text_printf(&text, "features 1\nmodel %s\n", model);
    describe_transform(&x->options->transform, trn_dataset_get_info(x->dataset)->band_count, &text);
    trn_sha256_begin(&hash);
    trn_sha256_update(&hash, trn_text_get(&text), text.length);
    status = text.failed ? trn_fail_memory(err, text.capacity, "a key")
                         : trn_dataset_identify(x->dataset, x->options->split, x->options->samples,
                                                x->options->sample_count, &hash, err);
    trn_text_free(&text);
    trn_sha256_end(&hash, digest);
    trn_sha256_text(digest, key);
    return status;
}

/* ---- computing ---- */

static trn_status compile(trn_gpu *gpu, extraction *x, trn_error *err)
{
    trn_learn_model model = *x->model;
    model.head = NULL;
    trn_graph *graph = x->net.graph = trn_graph_create();
    if (!graph) return trn_fail_memory(err, 0, "a graph");
    trn_tensor *image =
        trn_input(graph, "image", TRN_F32, TRN_SHAPE(x->batch, model.bands, model.height, model.width));
    trn_tensor *features;
    trn_status status = trn_learn_build(graph, &model, image, false, NULL, &features, err);
    if (status != TRN_OK) return status;
    x->channels = trn_tensor_dim(features, -1);
    trn_output_add(graph, "features", features);
    trn_compile_options options = {
        .seats = SEATS, .memory_limit = x->options->memory_limit, .shared = x->options->weights};
    return trn_compile(graph, gpu, &options, &x->net.exec, err);
}

static trn_status open_batches(extraction *x, trn_error *err)
{
    trn_batches_options options = {.split = x->options->split,
                                   .batch = (int)x->batch,
                                   .samples = x->options->samples,
                                   .sample_count = x->options->sample_count,
                                   .transform = x->options->transform,
                                   .progress = learn_progress(x->hooks)};
    trn_status status = trn_batches_open(x->dataset, &options, &x->batches, err);
    return status == TRN_OK ? trn_batches_start(x->batches, 0, err) : status;
}

static trn_status allocate(extraction *x, trn_feature_set *out, trn_error *err)
{
    const trn_learn_model *model = x->model;
    size_t pixels = (size_t)model->bands * (size_t)model->height * (size_t)model->width,
           run = (size_t)x->batch, row = (size_t)x->channels;
    *out = (trn_feature_set){.count = x->count, .channels = x->channels, .label_count = x->label_count};
    x->pixels = calloc(run * pixels, sizeof *x->pixels);
    size_t values, labels;
    if (trn_mul_size(x->count, row * sizeof *out->values, &values)) out->values = malloc(TRN_MAX(values, 1));
    if (trn_mul_size(x->count, x->label_count * sizeof *out->labels, &labels))
        out->labels = malloc(TRN_MAX(labels, 1));
    if (x->pixels && out->values && out->labels) return TRN_OK;
    return trn_fail_memory(err, x->count * row * sizeof *out->values, "features");
}

/* While the device works on one batch, the next is read and the features of the last are taken. What a batch
 * lacks is zeros, or of a run before: rows do not see one another. */
static trn_status launch(extraction *x, const trn_batch *batch, size_t first, trn_feature_set *out,
                         trn_error *err)
{
    size_t image = batch->bands * batch->height * batch->width;
    int seat = (int)(x->launched % SEATS);
    const float *pixels = batch->pixels;
    if (batch->count < (size_t)x->batch) {
        memcpy(x->pixels, pixels, batch->count * image * sizeof *pixels);
        pixels = x->pixels;
    }
    memcpy(out->labels + first * x->label_count, batch->labels,
           batch->count * x->label_count * sizeof *out->labels);
    trn_status status = trn_exec_seat_set(x->net.exec, seat, "image", pixels, err);
    if (x->launched == x->landed) x->working_since = trn_now_ns();
    if (status == TRN_OK) status = trn_exec_start(x->net.exec, seat, learn_progress(x->hooks), err);
    x->flights[seat] = (flight){first, batch->count};
    x->launched++;
    return status;
}

static trn_status land(extraction *x, trn_feature_set *out, trn_error *err)
{
    int seat = (int)(x->landed % SEATS);
    const flight *f = &x->flights[seat];
    size_t row = (size_t)x->channels;
    trn_status status = trn_exec_finish(x->net.exec, seat, learn_progress(x->hooks), err);
    if (x->launched == x->landed + 1) x->device_ns += trn_now_ns() - x->working_since;
    const float *features = status == TRN_OK ? trn_exec_seat_get(x->net.exec, seat, "features", err) : NULL;
    if (status == TRN_OK && !features) status = TRN_ERR_INTERNAL;
    if (status == TRN_OK) memcpy(out->values + f->first * row, features, f->count * row * sizeof *features);
    x->landed++;
    return status;
}

static trn_status run_all(extraction *x, trn_feature_set *out, trn_error *err)
{
    char stage[32];
    trn_status status = TRN_OK;
    snprintf(stage, sizeof stage, "features %s", trn_split_name(x->options->split));
    for (size_t done = 0; status == TRN_OK && done < x->count;) {
        trn_batch batch;
        trn_progress_report(learn_progress(x->hooks), stage, done, x->count);
        status = trn_batches_next(x->batches, &batch, err);
        if (status == TRN_OK && (!batch.count || batch.count > x->count - done))
            status = trn_fail(err, TRN_ERR_INTERNAL, "an epoch of another length than its split");
        if (status == TRN_OK && x->launched - x->landed == SEATS) status = land(x, out, err);
        if (status == TRN_OK) status = launch(x, &batch, done, out, err);
        done += status == TRN_OK ? batch.count : 0;
    }
    while (status == TRN_OK && x->landed < x->launched)
        status = land(x, out, err);
    if (status == TRN_OK) trn_progress_report(learn_progress(x->hooks), stage, x->count, x->count);
    return status;
}

static trn_status compute(trn_gpu *gpu, extraction *x, trn_feature_set *out, trn_error *err)
{
    if (!gpu)
        return trn_fail(
            err, TRN_ERR_DEVICE,
            "the features of split %s are not in the cache, and there is no device to compute them",
            trn_split_name(x->options->split));
    int64_t batch = x->options->batch ? x->options->batch : DEFAULT_BATCH;
    x->batch = TRN_MIN(batch, (int64_t)x->count);
    trn_status status = compile(gpu, x, err);
    if (status == TRN_OK) status = allocate(x, out, err);
    if (status == TRN_OK) status = open_batches(x, err);
    if (status == TRN_OK) status = run_all(x, out, err);
    if (status != TRN_OK) trn_feature_set_free(out);
    return status;
}

/* A cache that cannot be written costs time another day, and no result now. */
static void keep(const extraction *x, const char *path, const char *key, const trn_feature_set *set)
{
    trn_error why = {0};
    if (path && learn_cache_write(path, key, set, &why) != TRN_OK)
        learn_note(x->hooks, TRN_LOG_WARN, "features are not kept: %s", why.message);
}

static trn_status find_or_compute(trn_gpu *gpu, extraction *x, trn_feature_set *out,
                                  trn_feature_report *report, trn_error *err)
{
    trn_status status = make_key(x, report->key, err);
    if (status != TRN_OK) return status;
    char *path = learn_cache_path(x->options->cache, report->key, x->hooks);
    if (path)
        status = learn_cache_read(path, report->key, x->count, x->label_count, x->hooks, out, &report->cached,
                                  err);
    if (status == TRN_OK && !report->cached) {
        status = compute(gpu, x, out, err);
        if (status == TRN_OK) keep(x, path, report->key, out);
    }
    free(path);
    return status;
}

trn_status trn_learn_features(trn_gpu *gpu, const trn_learn_model *model, const trn_dataset *dataset,
                              const trn_feature_options *options, const trn_learn_hooks *hooks,
                              trn_feature_set *out, trn_feature_report *report, trn_error *err)
{
    uint64_t begin = trn_now_ns();
    const trn_dataset_info *info = trn_dataset_get_info(dataset);
    extraction x = {.model = model,
                    .dataset = dataset,
                    .options = options,
                    .hooks = hooks,
                    .label_count = info->label_count};
    x.count = options->samples ? options->sample_count : info->samples[options->split];
    *out = (trn_feature_set){0};
    *report = (trn_feature_report){0};
    trn_status status = check(&x, err);
    if (status == TRN_OK && x.count) status = find_or_compute(gpu, &x, out, report, err);
    extraction_close(&x);
    double ns = (double)(trn_now_ns() - begin);
    report->seconds = ns / 1e9;
    report->busy = TRN_MIN((double)x.device_ns / TRN_MAX(ns, 1), 1);
    return status;
}
