/* Folders of images: split.csv says of which split and class an image is, or which image is its mask; the
 * raster room reads them. */
#include "data_private.h"
#include "table.h"

#include <stdlib.h>
#include <string.h>

static bool is_there(const trn_dataset *dataset, const char *name)
{
    char *path = data_path(dataset, name, "", NULL);
    bool there = path && trn_path_exists(path);
    free(path);
    return there;
}

static trn_status add_sample(trn_dataset *dataset, const table_row *row, trn_error *err)
{
    size_t *count = &dataset->info.samples[row->split];
    data_sample *sample = &dataset->samples[row->split][*count];
    sample->name = trn_arena_strdup(dataset->arena, row->path);
    sample->mask = row->mask ? trn_arena_strdup(dataset->arena, row->mask) : NULL;
    sample->label = (int32_t)row->label;
    if (!sample->name || (row->mask && !sample->mask))
        return trn_fail_memory(err, strlen(row->path), "a name");
    ++*count;
    return TRN_OK;
}

static trn_status add_samples(trn_dataset *dataset, const split_table *table, bool skip_missing,
                              trn_error *err)
{
    size_t counts[TRN_SPLIT_COUNT] = {0};
    for (size_t i = 0; i < table->count; i++)
        counts[table->rows[i].split]++;
    for (int s = 0; s < TRN_SPLIT_COUNT; s++) {
        dataset->samples[s] = trn_arena_array(dataset->arena, counts[s] + 1, sizeof(data_sample));
        if (!dataset->samples[s]) return trn_fail_memory(err, counts[s] * sizeof(data_sample), "samples");
    }
    trn_status status = TRN_OK;
    for (size_t i = 0; i < table->count && status == TRN_OK; i++) {
        const table_row *row = &table->rows[i];
        bool image = is_there(dataset, row->path);
        if (image && (!row->mask || is_there(dataset, row->mask)))
            status = add_sample(dataset, row, err);
        else if (skip_missing)
            dataset->info.missing++;
        else
            return trn_fail(err, TRN_ERR_IO, "line %zu: '%s' is missing", row->line,
                            image ? row->mask : row->path);
    }
    return status;
}

static trn_status open_image(const trn_dataset *dataset, const char *name, const trn_sensor *sensor,
                             trn_scene **scene, trn_error *err)
{
    *scene = NULL;
    char *path = data_path(dataset, name, "", err);
    if (!path) return TRN_ERR_MEMORY;
    const char *paths[] = {path};
    trn_scene_options options = {.sensor = sensor};
    trn_status status = trn_scene_open(paths, 1, &options, scene, err);
    free(path);
    return status;
}

static trn_status check_bands(const trn_dataset *dataset, const trn_scene_info *info, trn_error *err)
{
    for (size_t b = 0; b < dataset->info.band_count; b++) {
        size_t at = (size_t)dataset->scene_bands[b];
        if (at >= info->band_count)
            return trn_fail(err, TRN_ERR_FORMAT, "it has %zu bands and no '%s', which the first image has",
                            info->band_count, dataset->bands[b].stored);
        if (strcmp(info->bands[at].name, dataset->bands[b].stored))
            return trn_fail(err, TRN_ERR_FORMAT, "its band %zu is '%.64s': in the first image it is '%.64s'",
                            at + 1, info->bands[at].name, dataset->bands[b].stored);
    }
    return TRN_OK;
}

static trn_status take_size(const trn_scene_info *info, data_image *image, trn_error *err)
{
    image->height = (int)TRN_MIN(info->height, INT32_MAX);
    image->width = (int)TRN_MIN(info->width, INT32_MAX);
    return data_check_size((uint64_t)info->height, (uint64_t)info->width, "the image", err);
}

/* scene: of the image, or NULL when only the mask is wanted. */
static trn_status read_mask(const trn_dataset *dataset, const data_sample *sample, const trn_scene *scene,
                            data_image *image, trn_error *err)
{
    trn_scene *mask;
    trn_status status = open_image(dataset, sample->mask, NULL, &mask, err);
    if (status != TRN_OK) return status;
    const trn_scene_info *info = trn_scene_get_info(mask);
    status = data_check_labels(info, scene ? trn_scene_get_info(scene) : info, false, err);
    if (status == TRN_OK) status = take_size(info, image, err);
    if (status == TRN_OK) {
        status = data_read_labels(mask, 0, 0, image, err);
        if (status != TRN_OK) trn_wrap(err, "'%s'", sample->mask);
    }
    trn_scene_close(mask);
    return status;
}

static trn_status read_image(const trn_dataset *dataset, const data_sample *sample, data_wanted wanted,
                             data_image *image, trn_error *err)
{
    trn_scene *scene = NULL;
    trn_status status = TRN_OK;
    image->label = sample->label;
    if (wanted.pixels) {
        status = open_image(dataset, sample->name, dataset->sensor, &scene, err);
        if (status == TRN_OK) status = take_size(trn_scene_get_info(scene), image, err);
        if (status == TRN_OK) status = check_bands(dataset, trn_scene_get_info(scene), err);
        if (status == TRN_OK) status = data_read_window(dataset, scene, 0, 0, image, err);
    }
    if (status == TRN_OK && wanted.labels && sample->mask)
        status = read_mask(dataset, sample, scene, image, err);
    trn_scene_close(scene);
    if (status != TRN_OK) data_image_free(image);
    return status;
}

static trn_status find_bands(trn_dataset *dataset, const trn_dataset_options *options, trn_error *err)
{
    for (int s = 0; s < TRN_SPLIT_COUNT; s++) {
        if (!dataset->info.samples[s]) continue;
        trn_scene *scene;
        const data_sample *sample = &dataset->samples[s][0];
        trn_status status = open_image(dataset, sample->name, dataset->sensor, &scene, err);
        if (status != TRN_OK) return trn_wrap(err, "the first image, '%s'", sample->name);
        status = data_name_bands(dataset, trn_scene_get_info(scene), err);
        trn_scene_close(scene);
        return status == TRN_OK ? data_select_bands(dataset, options, &dataset->scene_bands, err) : status;
    }
    return TRN_OK; /* without samples the caller fails */
}

/* Which classes the masks of a split hold. */
static trn_status note_split(const trn_dataset *dataset, int split, uint8_t *seen, trn_error *err)
{
    for (size_t i = 0; i < dataset->info.samples[split]; i++) {
        const data_sample *sample = &dataset->samples[split][i];
        data_image image = {0};
        trn_status status = read_mask(dataset, sample, NULL, &image, err);
        if (status == TRN_OK) status = data_check_mask(dataset, 0, 0, &image, err);
        if (status == TRN_OK) data_note_classes(&image, seen);
        data_image_free(&image);
        if (status != TRN_OK) return trn_wrap(err, "'%s', sample '%s'", dataset->info.name, sample->name);
    }
    return TRN_OK;
}

static trn_status find_mask_classes(trn_dataset *dataset, const trn_dataset_options *options, trn_error *err)
{
    dataset->info.task = TRN_TASK_SEGMENTATION;
    dataset->info.class_count = options->class_count;
    uint8_t *seen = calloc(DATA_MAX_CLASSES, 1);
    trn_status status = seen ? TRN_OK : trn_fail_memory(err, DATA_MAX_CLASSES, "classes");
    size_t samples = 0;
    for (int s = 0; s < TRN_SPLIT_COUNT && status == TRN_OK; s++) {
        samples += dataset->info.samples[s];
        if (!options->class_count) status = note_split(dataset, s, seen, err);
    }
    if (status == TRN_OK && samples)
        status = data_settle_classes(dataset, dataset->folder, options->class_names, seen, err);
    free(seen);
    return status; /* without samples the caller fails */
}

trn_status data_open_images(trn_dataset *dataset, const trn_dataset_options *options, trn_error *err)
{
    split_table table;
    char *path = data_path(dataset, "split.csv", "", err);
    if (!path) return TRN_ERR_MEMORY;
    dataset->info.task = TRN_TASK_CLASSIFICATION;
    dataset->read = read_image;
    trn_status status = split_table_read(path, &table, err);
    bool masks = table.mask != SIZE_MAX;
    dataset->info.class_count = table.class_count;
    if (status == TRN_OK && !masks)
        status = data_name_classes(dataset, table.class_name == SIZE_MAX ? NULL : table.class_names, err);
    if (status == TRN_OK) status = add_samples(dataset, &table, options->skip_missing, err);
    if (status != TRN_OK) trn_wrap(err, "'%s'", path);
    if (status == TRN_OK && masks) status = find_mask_classes(dataset, options, err);
    if (status == TRN_OK) status = find_bands(dataset, options, err);
    split_table_free(&table);
    free(path);
    return status;
}
