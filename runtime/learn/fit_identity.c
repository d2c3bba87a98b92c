/* What a checkpoint must agree with to be continued: model, head, optimiser, data and settings, as text. */
#include "fit.h"

#include <string.h>

static void describe_encoders(const fit *f, trn_text *text)
{
    const trn_learn_model *model = f->model;
    for (size_t i = 0; i < model->member_count; i++)
        trn_text_printf(text, "%s%s", i ? " + " : "", trn_encoder_get_spec(model->members[i].encoder)->name);
    trn_text_printf(text, "%s of %d bands, %d x %d", model->trunk ? "own network" : "", model->bands,
                    model->width, model->height);
}

static trn_status model_text(const fit *f, trn_text *text, trn_error *err)
{
    char key[65];
    trn_status status = trn_learn_model_key(f->model, key, err);
    describe_encoders(f, text);
    if (status == TRN_OK) trn_text_printf(text, ", key %s", key);
    return status;
}

static trn_status head_text(const fit *f, trn_text *text, trn_error *err)
{
    (void)err;
    const trn_head_desc *h = f->model->head;
    trn_text_printf(text,
                    "kind %d, outputs %lld, channels %lld, layers %d, heads %d, dropout %.9g, batch_norm %d, "
                    "seed %llu\n",
                    (int)h->kind, (long long)h->outputs, (long long)h->channels, h->layers, h->heads,
                    (double)h->dropout, h->batch_norm, (unsigned long long)f->model->seed);
    if (h->program) learn_describe_program(h->program, text);
    return TRN_OK;
}

static trn_status optimizer_text(const fit *f, trn_text *text, trn_error *err)
{
    (void)err;
    const trn_optimizer_desc *o = &f->optimizer;
    const trn_schedule *s = &f->schedule;
    trn_text_printf(text,
                    "%s beta1 %.17g beta2 %.17g eps %.17g momentum %.17g nesterov %d\nweight decay %.17g "
                    "coupled %d\nlargest norm %.17g\naverage %.17g\naccumulate %d\n",
                    o->kind == TRN_ADAMW ? "adamw" : "sgd", o->beta1, o->beta2, o->eps, o->momentum,
                    o->nesterov, o->weight_decay, o->coupled_decay, o->max_norm, o->average, o->accumulate);
    trn_text_printf(text,
                    "schedule %d from %.17g to %.17g to %.17g, warm-up %lld of %lld steps, every %lld by "
                    "%.17g\nlayer decay %.17g\nhead rate %.17g",
                    (int)s->kind, s->start, s->base, s->last, (long long)s->warmup, (long long)s->steps,
                    (long long)s->every, s->factor, f->options->layer_decay, f->options->head_rate);
    return TRN_OK;
}

static uint64_t hash_names(const fit *f)
{
    uint64_t hash = TRN_FNV_SEED;
    for (int split = 0; split < TRN_SPLIT_COUNT; split++) {
        for (size_t i = 0; i < f->info->samples[split]; i++) {
            const char *name = trn_dataset_sample_name(f->dataset, (trn_split)split, i);
            hash = trn_fnv1a64(name, strlen(name) + 1, hash);
        }
    }
    for (int split = 0; split < TRN_SPLIT_COUNT; split++) {
        const size_t *chosen = fit_samples(f, (trn_split)split);
        if (chosen) hash = trn_fnv1a64(chosen, f->counts[split] * sizeof *chosen, hash);
    }
    return hash;
}

/* Names and labels, sizes and times of change of the files. */
static trn_status hash_files(const fit *f, char text[65], trn_error *err)
{
    trn_sha256_state hash;
    uint8_t digest[32];
    trn_status status = TRN_OK;
    trn_sha256_begin(&hash);
    for (int split = 0; status == TRN_OK && split < TRN_SPLIT_COUNT; split++)
        status = trn_dataset_identify(f->dataset, (trn_split)split, fit_samples(f, (trn_split)split),
                                      f->counts[split], &hash, err);
    trn_sha256_end(&hash, digest);
    trn_sha256_text(digest, text);
    return status;
}

static trn_status data_text(const fit *f, trn_text *text, trn_error *err)
{
    char files[65];
    trn_status status = hash_files(f, files, err);
    if (status != TRN_OK) return status;
    const trn_dataset_info *info = f->info;
    trn_text_printf(text, "%s, %s of %zu classes, %d x %d\nbands", info->name, trn_task_name(info->task),
                    info->class_count, info->width, info->height);
    for (size_t i = 0; i < info->band_count; i++)
        trn_text_printf(text, " %s", info->bands[i].name);
    trn_text_printf(text, "\n%zu of %zu samples to train with, %zu to validate, %zu to test\nper class",
                    f->counts[TRN_SPLIT_TRAIN], info->samples[TRN_SPLIT_TRAIN], f->counts[TRN_SPLIT_VALID],
                    f->counts[TRN_SPLIT_TEST]);
    for (size_t c = 0; c < info->class_count; c++)
        trn_text_printf(text, " %llu", (unsigned long long)f->class_counts[c]);
    trn_text_printf(text, "\nnames %016llx", (unsigned long long)hash_names(f));
    trn_text_printf(text, "\nfiles, by their sizes and times of change, %.16s", files);
    return TRN_OK;
}

static void transform_text(const fit *f, const char *what, const trn_transform *t, trn_text *text)
{
    trn_text_printf(text,
                    "%s: resize %d x %d antialias %d, crop %d x %d random %d, flips %.17g %.17g, rotate %d",
                    what, t->resize_width, t->resize_height, t->antialias, t->crop_width, t->crop_height,
                    t->random_crop, t->flip_x, t->flip_y, t->rotate);
    for (size_t b = 0; t->stretch && b < f->info->band_count; b++)
        trn_text_printf(text, " stretch %.17g/%.17g", t->stretch[b].low, t->stretch[b].high);
    for (size_t b = 0; t->normalize && b < f->info->band_count; b++)
        trn_text_printf(text, " %.17g/%.17g", t->normalize[b].mean, t->normalize[b].std);
    trn_text_add(text, "\n");
}

static trn_status settings_text(const fit *f, trn_text *text, trn_error *err)
{
    (void)err;
    const trn_fit_options *o = f->options;
    trn_text_printf(
        text,
        "epochs %lld\nbatch %d\nseed %llu\nloss %d smoothing %.17g gamma %.17g\ndropout %.17g drop "
        "path %.17g\nfixed norm %d\nmetric %s\npatience %d\n",
        (long long)o->epochs, o->batch, (unsigned long long)o->seed, (int)f->loss, o->loss.label_smoothing,
        o->loss.gamma, o->dropout, o->drop_path, o->fixed_norm, f->metric->name, o->patience);
    if (o->mixed) trn_text_printf(text, "mixed precision, loss scale from %.17g\n", o->loss_scale);
    for (size_t c = 0; f->class_weights && c < f->info->class_count; c++)
        trn_text_printf(text, "%s%.9g", c ? " " : "class weights ", (double)f->class_weights[c]);
    if (f->class_weights) trn_text_add(text, "\n");
    for (size_t i = 0; i < o->frozen_count; i++)
        trn_text_printf(text, "frozen %s\n", o->frozen[i]);
    transform_text(f, "training samples", &o->train_transform, text);
    transform_text(f, "other samples", &o->eval_transform, text);
    return TRN_OK;
}

static trn_status keep(fit *f, int i, const char *name, trn_text *text, trn_error *err)
{
    f->identity.name[i] = name;
    f->identity.text[i] = text->failed ? NULL : trn_arena_strdup(f->arena, trn_text_get(text));
    size_t wanted = text->length;
    trn_text_free(text);
    return f->identity.text[i] ? TRN_OK : trn_fail_memory(err, wanted, "the identity of a run");
}

trn_status fit_identify(fit *f, trn_error *err)
{
    static const struct {
        const char *name;
        trn_status (*text)(const fit *f, trn_text *text, trn_error *err);
    } facts[] = {{"model", model_text},
                 {"head", head_text},
                 {"optimizer", optimizer_text},
                 {"data", data_text},
                 {"training", settings_text}};
    const trn_device_info *device = trn_gpu_info(f->gpu);
    trn_text text = {0};
    f->identity.device = trn_arena_printf(f->arena, "%s, driver %s %u", device->name, device->driver,
                                          (unsigned)device->driver_version);
    if (!f->identity.device) return trn_fail_memory(err, sizeof device->name, "the identity of a run");
    for (int i = 0; i < (int)TRN_COUNT(facts); i++) {
        trn_status status = facts[i].text(f, &text, err);
        if (status == TRN_OK)
            status = keep(f, i, facts[i].name, &text, err);
        else
            trn_text_free(&text);
        if (status != TRN_OK) return status;
    }
    trn_text_add(&text, f->options->description ? f->options->description : "");
    return keep(f, FIT_FACTS - 1, "settings", &text, err);
}
