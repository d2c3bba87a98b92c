/* What tells the samples of one dataset from those of another, for keys of caches and for checkpoints. */
#include "data_private.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void describe(const trn_dataset *dataset, trn_split split, trn_text *text)
{
    const trn_dataset_info *info = &dataset->info;
    trn_text_printf(text, "%s %s %zu classes %d x %d date %d\n", trn_task_name(info->task),
                    trn_split_name(split), info->class_count, info->width, info->height, dataset->date);
    if (dataset->has_fill) trn_text_printf(text, "fill %a\n", (double)dataset->fill);
    if (dataset->has_ignore) trn_text_printf(text, "ignore %d\n", dataset->ignore);
    for (size_t b = 0; b < info->band_count; b++)
        trn_text_printf(text, "band %s\n", info->bands[b].stored);
}

/* Size and time of change; false when it is no file. */
static bool describe_file(const char *path, trn_text *text)
{
    struct stat file;
    if (stat(path, &file) || !S_ISREG(file.st_mode)) return false;
    trn_text_printf(text, " %lld %lld.%09ld", (long long)file.st_size, (long long)file.st_mtim.tv_sec,
                    file.st_mtim.tv_nsec);
    return true;
}

/* A file of the dataset's folder: an image, a mask, or HDF5 of GEO-Bench. */
static trn_status describe_part(const trn_dataset *dataset, const char *name, trn_text *text, trn_error *err)
{
    static const char *const suffixes[] = {"", ".hdf5"};
    for (size_t i = 0; i < TRN_COUNT(suffixes); i++) {
        char *path = data_path(dataset, name, suffixes[i], err);
        if (!path) return TRN_ERR_MEMORY;
        bool found = describe_file(path, text);
        free(path);
        if (found) return TRN_OK;
    }
    return trn_fail(err, TRN_ERR_IO, "'%s': the file of sample '%s' is missing or cannot be read",
                    dataset->folder, name);
}

/* The files that chips are cut from. */
static trn_status describe_scene(const trn_dataset *dataset, trn_text *text, trn_error *err)
{
    const char *path;
    for (size_t i = 0; (path = data_chips_file(dataset->chips, i)) != NULL; i++) {
        trn_text_printf(text, "%s", trn_path_name(path));
        if (!describe_file(path, text))
            return trn_fail(err, TRN_ERR_IO, "'%s' is missing or cannot be read", path);
        trn_text_add(text, "\n");
    }
    return TRN_OK;
}

static trn_status describe_sample(const trn_dataset *dataset, const data_sample *sample, trn_text *text,
                                  trn_error *err)
{
    trn_status status = TRN_OK;
    trn_text_printf(text, "%s %d", sample->name, (int)sample->label);
    if (!dataset->chips) status = describe_part(dataset, sample->name, text, err);
    if (status == TRN_OK && sample->mask) {
        trn_text_printf(text, " %s", sample->mask);
        status = describe_part(dataset, sample->mask, text, err);
    }
    for (size_t c = 0; sample->labels && c < dataset->info.class_count; c++)
        trn_text_add_n(text, sample->labels[c] ? "1" : "0", 1);
    trn_text_add(text, "\n");
    return status;
}

trn_status trn_dataset_identify(const trn_dataset *dataset, trn_split split, const size_t *samples,
                                size_t count, trn_sha256_state *hash, trn_error *err)
{
    trn_text text = {0};
    describe(dataset, split, &text);
    trn_status status = dataset->chips ? describe_scene(dataset, &text, err) : TRN_OK;
    size_t total = samples ? count : dataset->info.samples[split];
    for (size_t i = 0; status == TRN_OK && i < total; i++) {
        size_t index = samples ? samples[i] : i;
        status =
            index < dataset->info.samples[split]
                ? describe_sample(dataset, &dataset->samples[split][index], &text, err)
                : trn_fail(err, TRN_ERR_ARGUMENT, "split %s has no sample %zu", trn_split_name(split), index);
    }
    if (status == TRN_OK && text.failed) status = trn_fail_memory(err, text.capacity, "names of samples");
    if (status == TRN_OK) trn_sha256_update(hash, trn_text_get(&text), text.length);
    trn_text_free(&text);
    return status;
}
