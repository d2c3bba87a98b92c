/* A dataset whatever its folder is: opening, what it holds, reading samples at one size. */
#include "data_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const char *trn_task_name(trn_task task)
{
    static const char *const names[] = {"classification", "multi-label classification", "segmentation"};
    return (size_t)task < TRN_COUNT(names) ? names[task] : "unknown task";
}

static const char *const split_names[TRN_SPLIT_COUNT] = {"train", "valid", "test"};

const char *trn_split_name(trn_split split)
{
    return (size_t)split < TRN_SPLIT_COUNT ? split_names[split] : "unknown split";
}

bool trn_split_parse(const char *name, trn_split *out)
{
    if (!strcmp(name, "val") || !strcmp(name, "validation")) name = "valid";
    for (int i = 0; i < TRN_SPLIT_COUNT; i++) {
        if (strcmp(name, split_names[i])) continue;
        *out = (trn_split)i;
        return true;
    }
    return false;
}

void data_image_free(data_image *image)
{
    free(image->pixels);
    free(image->mask);
    *image = (data_image){0};
}

char *data_path(const trn_dataset *dataset, const char *name, const char *suffix, trn_error *err)
{
    trn_text text = {0};
    trn_text_printf(&text, "%s/%s%s", dataset->folder, name, suffix);
    if (!text.failed) return text.data;
    trn_text_free(&text);
    trn_fail_memory(err, strlen(name), "a path");
    return NULL;
}

bool data_is_plain_name(const char *name)
{
    return *name && *name != '.' && !strchr(name, '/') && strlen(name) < 250;
}

trn_status data_check_size(uint64_t height, uint64_t width, const char *what, trn_error *err)
{
    if (height == 0 || width == 0 || height > DATA_MAX_SIDE || width > DATA_MAX_SIDE ||
        height * width > DATA_MAX_PIXELS)
        return trn_fail(
            err, TRN_ERR_FORMAT, "%s has %llu x %llu pixels: sides are 1 to %d, with at most %d pixels", what,
            (unsigned long long)height, (unsigned long long)width, DATA_MAX_SIDE, DATA_MAX_PIXELS);
    return TRN_OK;
}

/* Index of the band that a name means, or -1. */
static int find_band(const trn_dataset *dataset, const char *wanted)
{
    const trn_data_band *bands = dataset->bands;
    const trn_sensor *sensor = dataset->info.sensor;
    int at = sensor ? trn_sensor_band(sensor, wanted) : -1;
    const char *name = at >= 0 ? sensor->bands[at].name : wanted, *common = trn_band_common(wanted);
    for (size_t i = 0; i < dataset->info.band_count; i++)
        if (!strcmp(wanted, bands[i].stored)) return (int)i;
    for (size_t i = 0; i < dataset->info.band_count; i++)
        if (!strcasecmp(name, bands[i].name)) return (int)i;
    for (size_t i = 0; common && i < dataset->info.band_count; i++)
        if (bands[i].common && !strcmp(common, bands[i].common)) return (int)i;
    return -1;
}

static trn_status fail_band(const trn_dataset *dataset, const char *wanted, trn_error *err)
{
    trn_text list = {0};
    for (size_t i = 0; i < dataset->info.band_count && i < 64; i++) {
        const trn_data_band *band = &dataset->bands[i];
        trn_text_printf(&list, "%s%s", i ? ", " : "", band->stored);
        if (strcmp(band->stored, band->name)) trn_text_printf(&list, " (%s)", band->name);
    }
    trn_status status = trn_fail(err, TRN_ERR_ARGUMENT, "'%s' has no band '%.64s': it has %s",
                                 dataset->info.name, wanted, trn_text_get(&list));
    trn_text_free(&list);
    return status;
}

trn_status data_select_bands(trn_dataset *dataset, const trn_dataset_options *options, int **from,
                             trn_error *err)
{
    size_t count = options->bands ? options->band_count : dataset->info.band_count;
    if (count == 0 || count > DATA_MAX_BANDS)
        return trn_fail(err, TRN_ERR_ARGUMENT, "%zu bands of '%s': choose 1 to %d", count, dataset->info.name,
                        DATA_MAX_BANDS);
    int *chosen = trn_arena_array(dataset->arena, count, sizeof *chosen);
    trn_data_band *bands = trn_arena_array(dataset->arena, count, sizeof *bands);
    if (!chosen || !bands) return trn_fail_memory(err, count * sizeof *bands, "bands");
    for (size_t i = 0; i < count; i++) {
        chosen[i] = options->bands ? find_band(dataset, options->bands[i]) : (int)i;
        if (chosen[i] < 0) return fail_band(dataset, options->bands[i], err);
        for (size_t j = 0; j < i; j++)
            if (chosen[j] == chosen[i])
                return trn_fail(err, TRN_ERR_ARGUMENT, "bands: '%.64s' and '%.64s' are the same band of '%s'",
                                options->bands[j], options->bands[i], dataset->info.name);
        bands[i] = dataset->bands[chosen[i]];
    }
    dataset->info.bands = dataset->bands = bands;
    dataset->info.band_count = count;
    *from = chosen;
    return TRN_OK;
}

trn_status data_name_classes(trn_dataset *dataset, const char *const *names, trn_error *err)
{
    size_t count = dataset->info.class_count;
    const char **all = trn_arena_array(dataset->arena, count, sizeof *all);
    if (!all) return trn_fail_memory(err, count * sizeof *all, "names of classes");
    for (size_t i = 0; i < count; i++) {
        all[i] =
            names ? trn_arena_strdup(dataset->arena, names[i]) : trn_arena_printf(dataset->arena, "%zu", i);
        if (!all[i]) return trn_fail_memory(err, 16, "names of classes");
    }
    dataset->info.class_names = all;
    return TRN_OK;
}

static const data_sample *first_sample(const trn_dataset *dataset)
{
    for (int s = 0; s < TRN_SPLIT_COUNT; s++)
        if (dataset->info.samples[s]) return &dataset->samples[s][0];
    return NULL;
}

trn_status data_find_size(trn_dataset *dataset, const trn_dataset_options *options, trn_error *err)
{
    trn_dataset_info *info = &dataset->info;
    dataset->resizes = options->height > 0;
    info->height = options->height;
    info->width = options->width;
    if (!dataset->resizes) {
        const data_sample *sample = first_sample(dataset);
        data_image image = {0};
        trn_status status = dataset->read(dataset, sample, (data_wanted){.pixels = true}, &image, err);
        if (status != TRN_OK) return trn_wrap(err, "'%s', sample '%s'", info->name, sample->name);
        info->height = image.height;
        info->width = image.width;
        data_image_free(&image);
    }
    trn_status status = data_check_size((uint64_t)info->height, (uint64_t)info->width, "a sample", err);
    if (status != TRN_OK) return status;
    info->label_count = info->task == TRN_TASK_CLASSIFICATION ? 1
                        : info->task == TRN_TASK_MULTILABEL   ? info->class_count
                                                              : (size_t)info->height * (size_t)info->width;
    return TRN_OK;
}

static trn_status check_options(const trn_dataset_options *options, trn_error *err)
{
    if (options->height < 0 || options->width < 0 || (options->height > 0) != (options->width > 0))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "samples of %d x %d: give height and width above 0, or neither", options->height,
                        options->width);
    if (options->bands && options->band_count == 0)
        return trn_fail(err, TRN_ERR_ARGUMENT, "the list of bands is empty");
    if (options->class_count > DATA_MAX_CLASSES)
        return trn_fail(err, TRN_ERR_ARGUMENT, "%zu classes: at most %d", options->class_count,
                        DATA_MAX_CLASSES);
    if (options->class_names && !options->class_count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "names of classes need their number (class_count)");
    if (options->date < 0) return trn_fail(err, TRN_ERR_ARGUMENT, "dates are counted from 1");
    if (options->has_fill && !isfinite(options->fill))
        return trn_fail(err, TRN_ERR_ARGUMENT, "what fills pixels without data must be a finite number");
    return TRN_OK;
}

static trn_status check_samples(const trn_dataset *dataset, trn_error *err)
{
    if (first_sample(dataset)) return TRN_OK;
    const char *why = dataset->info.missing ? " that are there" : "";
    return trn_fail(err, TRN_ERR_FORMAT, "'%s' has no samples%s in train, valid or test", dataset->folder,
                    why);
}

/* Name of the folder: the last part of its path that is one. */
static const char *folder_name(trn_arena *arena, char *folder)
{
    size_t length = strlen(folder);
    while (length > 1 && folder[length - 1] == '/')
        folder[--length] = 0;
    return trn_arena_strdup(arena, trn_path_name(folder));
}

static trn_status open_kind(trn_dataset *dataset, const trn_dataset_options *options, trn_error *err)
{
    const char *partition = options->partition ? options->partition : "default";
    if (!data_is_plain_name(partition))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "partition '%.64s' is no name: use \"default\" or \"0.01x_train\"", partition);
    char *table = data_path(dataset, "split.csv", "", err),
         *json = data_path(dataset, partition, "_partition.json", err);
    char *other = data_path(dataset, "default", "_partition.json", err);
    trn_status status = TRN_OK;
    if (!table || !json || !other)
        status = TRN_ERR_MEMORY;
    else if (trn_path_exists(json))
        status = data_open_geobench(dataset, options, err);
    else if (options->partition || trn_path_exists(other))
        status = trn_fail(err, TRN_ERR_IO, "'%s' has no '%s'", dataset->folder, trn_path_name(json));
    else if (trn_path_exists(table))
        status = data_open_images(dataset, options, err);
    else
        status =
            trn_fail(err, TRN_ERR_IO,
                     "'%s' is no dataset: it has neither default_partition.json (GEO-Bench) nor split.csv "
                     "(images)",
                     dataset->folder);
    free(table);
    free(json);
    free(other);
    return status == TRN_OK ? check_samples(dataset, err) : status;
}

trn_dataset *data_create(const char *path, const trn_dataset_options *options, trn_error *err)
{
    if (check_options(options, err) != TRN_OK) return NULL;
    trn_arena *arena = trn_arena_create();
    trn_dataset *dataset = arena ? trn_arena_alloc(arena, sizeof *dataset) : NULL;
    char *copy = dataset ? trn_arena_strdup(arena, path) : NULL;
    const char *name = !copy           ? NULL
                       : options->name ? trn_arena_strdup(arena, options->name)
                                       : folder_name(arena, copy);
    if (!name) {
        trn_arena_destroy(arena);
        trn_fail_memory(err, sizeof *dataset, "a dataset");
        return NULL;
    }
    *dataset = (trn_dataset){.arena = arena, .folder = copy, .info.name = name, .sensor = options->sensor};
    dataset->date = options->date;
    dataset->has_fill = options->has_fill;
    dataset->fill = options->fill;
    dataset->has_ignore = options->has_ignore;
    dataset->ignore = options->ignore;
    return dataset;
}

trn_status trn_dataset_open(const char *folder, const trn_dataset_options *options, trn_dataset **out,
                            trn_error *err)
{
    static const trn_dataset_options none;
    trn_error own = {0};
    if (!options) options = &none;
    if (!err) err = &own;
    *out = NULL;
    trn_dataset *dataset = data_create(folder, options, err);
    if (!dataset) return err->code;
    trn_status status = trn_path_is_dir(folder) ? open_kind(dataset, options, err)
                                                : trn_fail(err, TRN_ERR_IO, "'%s' is no folder", folder);
    if (status == TRN_OK) status = data_find_size(dataset, options, err);
    if (status == TRN_OK)
        *out = dataset;
    else
        trn_dataset_close(dataset);
    return status;
}

void trn_dataset_close(trn_dataset *dataset)
{
    if (!dataset) return;
    data_chips_free(dataset->chips);
    trn_arena_destroy(dataset->arena);
}

const trn_dataset_info *trn_dataset_get_info(const trn_dataset *dataset)
{
    return &dataset->info;
}

static const data_sample *get_sample(const trn_dataset *dataset, trn_split split, size_t index)
{
    if ((size_t)split >= TRN_SPLIT_COUNT || index >= dataset->info.samples[split]) return NULL;
    return &dataset->samples[split][index];
}

const char *trn_dataset_sample_name(const trn_dataset *dataset, trn_split split, size_t index)
{
    const data_sample *sample = get_sample(dataset, split, index);
    return sample ? sample->name : NULL;
}

/* Pixels that are no numbers become the fill, or are an error that names the first band with any. */
static trn_status fill_pixels(const trn_dataset *dataset, data_image *image, trn_error *err)
{
    size_t area = (size_t)image->height * (size_t)image->width;
    for (size_t b = 0; b < dataset->info.band_count; b++) {
        float *plane = image->pixels + b * area;
        size_t bad = 0;
        for (size_t i = 0; i < area; i++) {
            if (isfinite(plane[i])) continue;
            bad++;
            plane[i] = dataset->fill;
        }
        if (bad && !dataset->has_fill)
            return trn_fail(
                err, TRN_ERR_FORMAT,
                "%zu of %zu pixels of band '%s' have no data or are no finite numbers: say what to "
                "fill them with, or leave the sample out",
                bad, area, dataset->bands[b].stored);
    }
    return TRN_OK;
}

static trn_status put_pixels(const trn_dataset *dataset, const data_image *image, float *out, trn_error *err)
{
    const trn_dataset_info *info = &dataset->info;
    if (image->height != info->height || image->width != info->width)
        return data_resize(image->pixels, info->band_count, image->height, image->width, true, out,
                           info->height, info->width, err);
    memcpy(out, image->pixels, info->band_count * (size_t)info->height * (size_t)info->width * sizeof *out);
    return TRN_OK;
}

static trn_status put_labels(const trn_dataset *dataset, const data_sample *sample, data_image *image,
                             int32_t *out, trn_error *err)
{
    const trn_dataset_info *info = &dataset->info;
    if (info->task == TRN_TASK_SEGMENTATION) {
        trn_status status = data_check_mask(dataset, 0, 0, image, err);
        if (status == TRN_OK)
            data_resize_nearest(image->mask, image->height, image->width, out, info->height, info->width);
        return status;
    }
    if (info->task == TRN_TASK_MULTILABEL) {
        for (size_t c = 0; c < info->class_count; c++)
            out[c] = sample->labels[c];
        return TRN_OK;
    }
    int32_t label = sample->label >= 0 ? sample->label : image->label;
    if (label < 0 || (size_t)label >= info->class_count)
        return trn_fail(err, TRN_ERR_FORMAT, "its class is %d: classes are 0 to %zu", label,
                        info->class_count - 1);
    *out = label;
    return TRN_OK;
}

/* Whether labels are not known before the file is opened. */
static bool labels_in_file(const trn_dataset *dataset, const data_sample *sample)
{
    return dataset->info.task == TRN_TASK_SEGMENTATION ||
           (dataset->info.task == TRN_TASK_CLASSIFICATION && sample->label < 0);
}

static trn_status read_sample(const trn_dataset *dataset, const data_sample *sample, float *pixels,
                              int32_t *labels, trn_error *err)
{
    const trn_dataset_info *info = &dataset->info;
    data_wanted wanted = {.pixels = pixels != NULL, .labels = labels && labels_in_file(dataset, sample)};
    data_image image = {.height = info->height, .width = info->width, .label = -1};
    trn_status status = TRN_OK;
    if (wanted.pixels || wanted.labels) status = dataset->read(dataset, sample, wanted, &image, err);
    bool sized = wanted.pixels || info->task == TRN_TASK_SEGMENTATION;
    if (status == TRN_OK && sized && !dataset->resizes &&
        (image.height != info->height || image.width != info->width))
        status = trn_fail(
            err, TRN_ERR_FORMAT,
            "it has %d x %d pixels, the first sample %d x %d: give the dataset a height and width to "
            "resize to",
            image.height, image.width, info->height, info->width);
    if (status == TRN_OK && pixels) status = fill_pixels(dataset, &image, err);
    if (status == TRN_OK && pixels) status = put_pixels(dataset, &image, pixels, err);
    if (status == TRN_OK && labels) status = put_labels(dataset, sample, &image, labels, err);
    data_image_free(&image);
    return status;
}

trn_status trn_dataset_read(const trn_dataset *dataset, trn_split split, size_t index, float *pixels,
                            int32_t *labels, trn_error *err)
{
    const data_sample *sample = get_sample(dataset, split, index);
    if (!sample)
        return trn_fail(err, TRN_ERR_ARGUMENT, "'%s' has no sample %zu in split %s", dataset->info.name,
                        index, trn_split_name(split));
    if (read_sample(dataset, sample, pixels, labels, err) == TRN_OK) return TRN_OK;
    return trn_wrap(err, "'%s', %s sample '%s'", dataset->info.name, trn_split_name(split), sample->name);
}

static void count_labels(const trn_dataset_info *info, const int32_t *labels, uint64_t *counts)
{
    for (size_t i = 0; i < info->label_count; i++) {
        if (info->task == TRN_TASK_MULTILABEL)
            counts[i] += labels[i] != 0;
        else if (labels[i] != TRN_LABEL_IGNORE)
            counts[labels[i]]++;
    }
}

trn_status trn_dataset_class_counts(const trn_dataset *dataset, trn_split split, const trn_progress *progress,
                                    uint64_t *counts, trn_error *err)
{
    const trn_dataset_info *info = &dataset->info;
    if ((size_t)split >= TRN_SPLIT_COUNT)
        return trn_fail(err, TRN_ERR_ARGUMENT, "there is no split %d", (int)split);
    memset(counts, 0, info->class_count * sizeof *counts);
    int32_t *labels = calloc(info->label_count, sizeof *labels);
    if (!labels) return trn_fail_memory(err, info->label_count * sizeof *labels, "labels");
    trn_status status = TRN_OK;
    for (size_t i = 0; i < info->samples[split] && status == TRN_OK; i++) {
        if (trn_progress_cancelled(progress)) {
            status = trn_fail_cancelled(err, "counting classes");
            break;
        }
        status = trn_dataset_read(dataset, split, i, NULL, labels, err);
        if (status == TRN_OK) count_labels(info, labels, counts);
        trn_progress_report(progress, "counting classes", i + 1, info->samples[split]);
    }
    free(labels);
    return status;
}

trn_status trn_dataset_check_split(const trn_dataset *dataset, trn_split split, const trn_progress *progress,
                                   trn_error *err)
{
    const trn_dataset_info *info = &dataset->info;
    if ((size_t)split >= TRN_SPLIT_COUNT || !info->samples[split])
        return trn_fail(err, TRN_ERR_FORMAT, "'%s' has no samples in split %s", info->name,
                        trn_split_name(split));
    uint64_t *counts = calloc(info->class_count, sizeof *counts);
    if (!counts) return trn_fail_memory(err, info->class_count * sizeof *counts, "counts of classes");
    trn_status status = trn_dataset_class_counts(dataset, split, progress, counts, err);
    for (size_t c = 0; c < info->class_count && status == TRN_OK; c++)
        if (!counts[c] && !data_is_ignored(dataset, c))
            status = trn_fail(err, TRN_ERR_FORMAT, "'%s' has no sample of class %zu (%s) in split %s",
                              info->name, c, info->class_names[c], trn_split_name(split));
    free(counts);
    return status;
}
