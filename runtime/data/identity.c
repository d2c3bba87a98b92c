/* What tells the samples of one dataset from those of another, for keys of caches. */
#include "data_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void describe(const trn_dataset *dataset, trn_split split, trn_text *text)
{
    const trn_dataset_info *info = &dataset->info;
    trn_text_printf(text, "%s %s %zu classes %d x %d date %d\n", trn_task_name(info->task),
                    trn_split_name(split), info->class_count, info->width, info->height, dataset->date);
    if (dataset->has_fill) trn_text_printf(text, "fill %a\n", (double)dataset->fill);
    for (size_t b = 0; b < info->band_count; b++)
        trn_text_printf(text, "band %s\n", info->bands[b].stored);
}

/* A sample's file: an image, or HDF5 of GEO-Bench. */
static trn_status find_file(const trn_dataset *dataset, const char *name, struct stat *out, trn_error *err)
{
    static const char *const suffixes[] = {"", ".hdf5"};
    for (size_t i = 0; i < TRN_COUNT(suffixes); i++) {
        char *path = data_path(dataset, name, suffixes[i], err);
        if (!path) return TRN_ERR_MEMORY;
        int failed = stat(path, out);
        free(path);
        if (!failed && S_ISREG(out->st_mode)) return TRN_OK;
    }
    return trn_fail(err, TRN_ERR_IO, "'%s': the file of sample '%s' is missing or cannot be read",
                    dataset->folder, name);
}

static trn_status describe_sample(const trn_dataset *dataset, const data_sample *sample, trn_text *text,
                                  trn_error *err)
{
    struct stat file;
    trn_status status = find_file(dataset, sample->name, &file, err);
    if (status != TRN_OK) return status;
    trn_text_printf(text, "%s %lld %lld.%09ld %d", sample->name, (long long)file.st_size,
                    (long long)file.st_mtim.tv_sec, file.st_mtim.tv_nsec, (int)sample->label);
    for (size_t c = 0; sample->labels && c < dataset->info.class_count; c++)
        trn_text_add_n(text, sample->labels[c] ? "1" : "0", 1);
    trn_text_add(text, "\n");
    return TRN_OK;
}

trn_status trn_dataset_identify(const trn_dataset *dataset, trn_split split, const size_t *samples,
                                size_t count, trn_sha256_state *hash, trn_error *err)
{
    trn_text text = {0};
    if (dataset->info.task == TRN_TASK_SEGMENTATION)
        return trn_fail(err, TRN_ERR_UNSUPPORTED, "masks have no identity yet");
    describe(dataset, split, &text);
    trn_status status = TRN_OK;
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
