/* GEO-Bench task folders: partitions, labels and bands from their JSON and HDF5 files. */
#include "geobench.h"
#include "hdf5_file.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PICKLE = 1 << 20, DATE_LENGTH = 11 }; /* "_YYYY-MM-DD" */

/* ---- names of datasets in a sample ---- */

/* Length without a date at the end. */
static size_t undated_length(const char *name)
{
    size_t length = strlen(name);
    if (length <= DATE_LENGTH) return length;
    const char *date = name + length - DATE_LENGTH;
    trn_date parsed;
    return *date == '_' && date[5] == '-' && trn_date_parse(date + 1, &parsed) ? length - DATE_LENGTH
                                                                               : length;
}

static bool is_mask(const char *name)
{
    return undated_length(name) == 5 && !strncmp(name, "label", 5);
}

static bool same_band(const char *name, const char *stored)
{
    size_t length = undated_length(name);
    return strlen(stored) == length && !strncmp(name, stored, length);
}

/* The dataset of a sample that holds a band, at the date wanted; names are sorted, and so are dates. NULL
 * with err set. */
static const char *find_plane(const hdf5_file *file, const char *stored, int date, trn_error *err)
{
    const char *found = NULL;
    int dates = 0;
    for (size_t i = 0; i < file->count; i++) {
        if (!same_band(file->names[i], stored)) continue;
        dates++;
        if (dates == date || !date) found = file->names[i];
    }
    if (dates > 1 && !date)
        trn_fail(err, TRN_ERR_ARGUMENT, "'%s' is there for %d dates: choose one (date)", stored, dates);
    else if (dates && !found && dates != 1)
        trn_fail(err, TRN_ERR_FORMAT, "'%s' is there for %d dates, and date %d is wanted", stored, dates,
                 date);
    else if (!dates)
        trn_fail(err, TRN_ERR_FORMAT, "it has no '%s'", stored);
    else
        return found ? found
                     : find_plane(file, stored, 1, err); /* a single date serves whichever is wanted */
    return NULL;
}

static const char *find_mask(const hdf5_file *file)
{
    for (size_t i = 0; i < file->count; i++)
        if (is_mask(file->names[i])) return file->names[i];
    return NULL;
}

/* ---- reading a sample ---- */

typedef struct plane_size {
    const char *name;
    int height, width;
} plane_size;

static trn_status measure_plane(const hdf5_file *file, const char *name, hdf5_numbers numbers,
                                plane_size *out, trn_error *err)
{
    int rank;
    out->name = name;
    trn_status status = hdf5_measure(file, name, numbers, &rank, &out->height, &out->width, err);
    if (status == TRN_OK && rank != 2)
        status =
            trn_fail(err, TRN_ERR_FORMAT, "dataset '%.128s' has %d dimensions: a band has 2", name, rank);
    return status;
}

/* NULL when there is no memory, or nothing to hold. */
static void *alloc_plane(int height, int width, size_t value)
{
    return height > 0 && width > 0 ? malloc((size_t)height * (size_t)width * value) : NULL;
}

/* Bands of fewer pixels than the largest are brought to its size. */
static trn_status read_plane(const hdf5_file *file, const plane_size *plane, int height, int width,
                             float *out, trn_error *err)
{
    if (plane->height == height && plane->width == width)
        return hdf5_read(file, plane->name, HDF5_FLOATS, height, width, out, err);
    float *own = alloc_plane(plane->height, plane->width, sizeof *own);
    if (!own)
        return trn_fail_memory(err, (size_t)plane->height * (size_t)plane->width * sizeof *own, "a band");
    trn_status status = hdf5_read(file, plane->name, HDF5_FLOATS, plane->height, plane->width, own, err);
    if (status == TRN_OK)
        status = data_resize(own, 1, plane->height, plane->width, false, out, height, width, err);
    free(own);
    return status;
}

static trn_status measure_planes(const trn_dataset *dataset, const hdf5_file *file, plane_size *planes,
                                 data_image *image, trn_error *err)
{
    for (size_t b = 0; b < dataset->info.band_count; b++) {
        const char *name = find_plane(file, dataset->bands[b].stored, dataset->date, err);
        if (!name) return err ? err->code : TRN_ERR_FORMAT;
        trn_status status = measure_plane(file, name, HDF5_FLOATS, &planes[b], err);
        if (status != TRN_OK) return status;
        if ((int64_t)planes[b].height * planes[b].width <= (int64_t)image->height * image->width) continue;
        image->height = planes[b].height;
        image->width = planes[b].width;
    }
    return TRN_OK;
}

/* The size of a sample is that of its largest band, also when only the mask is wanted. */
static trn_status read_planes(const trn_dataset *dataset, const hdf5_file *file, bool pixels,
                              data_image *image, trn_error *err)
{
    size_t bands = dataset->info.band_count, bytes = 0;
    plane_size *planes = calloc(bands, sizeof *planes);
    if (!planes) return trn_fail_memory(err, bands * sizeof *planes, "bands");
    image->height = image->width = 0;
    trn_status status = measure_planes(dataset, file, planes, image, err);
    size_t area = (size_t)image->height * (size_t)image->width;
    if (status != TRN_OK || !pixels) goto done;
    bool fits = trn_mul_size(area * sizeof(float), bands, &bytes);
    image->pixels = fits ? malloc(bytes) : NULL;
    if (!image->pixels) status = trn_fail_memory(err, bytes, "a sample");
    for (size_t b = 0; b < bands && status == TRN_OK; b++)
        status = read_plane(file, &planes[b], image->height, image->width, image->pixels + b * area, err);
done:
    free(planes);
    return status;
}

/* Numbers that no label has become INT32_MAX, which the check of the mask then refuses. */
static void narrow(const int64_t *from, size_t count, int32_t *out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = from[i] > INT32_MIN && from[i] <= INT32_MAX ? (int32_t)from[i] : INT32_MAX;
}

/* A mask of another size than the bands is brought to theirs. */
static trn_status read_mask(const hdf5_file *file, data_image *image, trn_error *err)
{
    const char *name = find_mask(file);
    if (!name) return trn_fail(err, TRN_ERR_FORMAT, "it has no dataset 'label'");
    plane_size plane;
    trn_status status = measure_plane(file, name, HDF5_INTEGERS, &plane, err);
    if (status != TRN_OK) return status;
    size_t area = (size_t)plane.height * (size_t)plane.width;
    int64_t *stored = alloc_plane(plane.height, plane.width, sizeof *stored);
    int32_t *mask = alloc_plane(plane.height, plane.width, sizeof *mask);
    image->mask = alloc_plane(image->height, image->width, sizeof *image->mask);
    status = stored && mask && image->mask
                 ? hdf5_read(file, name, HDF5_INTEGERS, plane.height, plane.width, stored, err)
                 : trn_fail_memory(err, area * sizeof *stored, "a mask");
    if (status == TRN_OK) {
        narrow(stored, area, mask);
        data_resize_nearest(mask, plane.height, plane.width, image->mask, image->height, image->width);
    }
    free(stored);
    free(mask);
    return status;
}

static trn_status read_pickle(const hdf5_file *file, int32_t *label, trn_error *err)
{
    char *repr = hdf5_text(file, "pickle", MAX_PICKLE, err);
    if (!repr) return err ? err->code : TRN_ERR_FORMAT;
    int64_t value = -1;
    trn_status status = data_pickle_label(repr, strlen(repr), &value, err);
    *label = (int32_t)value;
    free(repr);
    return status;
}

static trn_status read_geobench(const trn_dataset *dataset, const data_sample *sample, data_wanted wanted,
                                data_image *image, trn_error *err)
{
    char *path = data_path(dataset, sample->name, ".hdf5", err);
    if (!path) return TRN_ERR_MEMORY;
    hdf5_file file;
    trn_status status = hdf5_open(&file, path, err);
    free(path);
    if (status != TRN_OK) return status;
    bool mask = wanted.labels && dataset->info.task == TRN_TASK_SEGMENTATION;
    if (wanted.pixels || mask) status = read_planes(dataset, &file, wanted.pixels, image, err);
    if (status == TRN_OK && mask)
        status = read_mask(&file, image, err);
    else if (status == TRN_OK && wanted.labels)
        status = read_pickle(&file, &image->label, err);
    hdf5_close(&file);
    if (status != TRN_OK) data_image_free(image);
    return status;
}

/* ---- partitions ---- */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

typedef struct folder_files {
    char **names; /* sorted */
    size_t count;
} folder_files;

static bool has_sample(const folder_files *files, const char *id)
{
    char name[264];
    snprintf(name, sizeof name, "%s.hdf5", id);
    const char *key = name;
    return bsearch(&key, files->names, files->count, sizeof *files->names, by_name) != NULL;
}

static trn_status add_split(trn_dataset *dataset, const cJSON *json, trn_split split,
                            const folder_files *files, bool skip_missing, trn_error *err)
{
    trn_dataset_info *info = &dataset->info;
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(json, trn_split_name(split)), *item;
    if (!cJSON_IsArray(list))
        return trn_fail(err, TRN_ERR_FORMAT, "it has no list '%s'", trn_split_name(split));
    size_t count = (size_t)cJSON_GetArraySize(list);
    data_sample *samples = trn_arena_array(dataset->arena, count + 1, sizeof *samples);
    if (!samples) return trn_fail_memory(err, count * sizeof *samples, "samples");
    dataset->samples[split] = samples;
    cJSON_ArrayForEach (item, list) {
        const char *id = cJSON_GetStringValue(item);
        if (!id || !data_is_plain_name(id))
            return trn_fail(err, TRN_ERR_FORMAT, "list '%s' holds '%.64s', which is no name of a sample",
                            trn_split_name(split), id ? id : "something else");
        if (!has_sample(files, id)) {
            if (!skip_missing)
                return trn_fail(err, TRN_ERR_IO, "%s sample '%s' is listed, and '%s.hdf5' is missing",
                                trn_split_name(split), id, id);
            info->missing++;
            continue;
        }
        char *name = trn_arena_strdup(dataset->arena, id);
        if (!name) return trn_fail_memory(err, strlen(id), "a name");
        samples[info->samples[split]++] = (data_sample){.name = name, .label = -1};
    }
    return TRN_OK;
}

static trn_status read_partition(trn_dataset *dataset, const trn_dataset_options *options, trn_error *err)
{
    folder_files files = {0};
    cJSON *json = NULL;
    char *path =
        data_path(dataset, options->partition ? options->partition : "default", "_partition.json", err);
    if (!path) return TRN_ERR_MEMORY;
    trn_status status = trn_list_dir(dataset->folder, &files.names, &files.count, err);
    if (status == TRN_OK && !(json = data_json_read(path, err))) status = err ? err->code : TRN_ERR_FORMAT;
    if (status == TRN_OK) {
        if (files.count) qsort(files.names, files.count, sizeof *files.names, by_name);
        for (int s = 0; s < TRN_SPLIT_COUNT && status == TRN_OK; s++)
            status = add_split(dataset, json, (trn_split)s, &files, options->skip_missing, err);
        if (status != TRN_OK) trn_wrap(err, "'%s'", path);
    }
    cJSON_Delete(json);
    trn_names_free(files.names, files.count);
    free(path);
    return status;
}

/* ---- labels ---- */

typedef struct known_label {
    const char *id; /* of the JSON */
    int32_t label;
    const cJSON *list;
} known_label;

typedef struct label_table {
    known_label *entries; /* sorted by id */
    size_t count, capacity;
} label_table;

static int by_id(const void *a, const void *b)
{
    return strcmp(((const known_label *)a)->id, ((const known_label *)b)->id);
}

static trn_status add_label(label_table *table, known_label label, trn_error *err)
{
    if (!trn_grow(&table->entries, &table->capacity, table->count + 1, sizeof label))
        return trn_fail_memory(err, table->count * sizeof label, "labels");
    table->entries[table->count++] = label;
    return TRN_OK;
}

/* {"<class>": [ids]}: the key is the class, whatever its place. */
static trn_status list_classes(const cJSON *json, label_table *table, int64_t *highest, trn_error *err)
{
    const cJSON *class, *id;
    *highest = -1;
    cJSON_ArrayForEach (class, json) {
        int64_t number;
        if (!trn_parse_int(class->string, &number) || number < 0 || number >= DATA_MAX_CLASSES ||
            !cJSON_IsArray(class))
            return trn_fail(err, TRN_ERR_FORMAT, "'%.64s' is no class number with a list of samples",
                            class->string);
        *highest = TRN_MAX(*highest, number);
        cJSON_ArrayForEach (id, class) {
            if (!cJSON_IsString(id))
                return trn_fail(err, TRN_ERR_FORMAT, "class %d lists something that is no sample",
                                (int)number);
            known_label label = {.id = id->valuestring, .label = (int32_t)number};
            trn_status status = add_label(table, label, err);
            if (status != TRN_OK) return status;
        }
    }
    if (table->count) qsort(table->entries, table->count, sizeof *table->entries, by_id);
    for (size_t i = 1; i < table->count; i++) {
        const known_label *a = &table->entries[i - 1], *b = &table->entries[i];
        if (!strcmp(a->id, b->id) && a->label != b->label)
            return trn_fail(err, TRN_ERR_FORMAT, "sample '%.128s' is of class %d and of class %d", a->id,
                            a->label, b->label);
    }
    return TRN_OK;
}

static trn_status check_classes(const label_table *table, size_t count, int64_t highest, trn_error *err)
{
    if (highest >= (int64_t)count)
        return trn_fail(err, TRN_ERR_FORMAT, "it has class %d: classes are 0 to %zu", (int)highest,
                        count - 1);
    uint8_t *seen = calloc(count, 1);
    if (!seen) return trn_fail_memory(err, count, "classes");
    for (size_t i = 0; i < table->count; i++)
        seen[table->entries[i].label] = 1;
    const uint8_t *gap = memchr(seen, 0, count);
    trn_status status = TRN_OK;
    if (gap) status = trn_fail(err, TRN_ERR_FORMAT, "no sample is of class %d", (int)(gap - seen));
    free(seen);
    return status;
}

/* Calls for every sample with its entry in the table. */
typedef trn_status (*take_label)(trn_dataset *dataset, data_sample *sample, const known_label *label,
                                 trn_error *err);

static trn_status give_labels(trn_dataset *dataset, const label_table *table, take_label take, trn_error *err)
{
    for (int s = 0; s < TRN_SPLIT_COUNT; s++) {
        for (size_t i = 0; i < dataset->info.samples[s]; i++) {
            data_sample *sample = &dataset->samples[s][i];
            known_label key = {.id = sample->name};
            const known_label *found =
                table->count ? bsearch(&key, table->entries, table->count, sizeof key, by_id) : NULL;
            if (!found)
                return trn_fail(err, TRN_ERR_FORMAT, "it says nothing of %s sample '%s'",
                                trn_split_name((trn_split)s), sample->name);
            trn_status status = take(dataset, sample, found, err);
            if (status != TRN_OK) return status;
        }
    }
    return TRN_OK;
}

static trn_status take_class(trn_dataset *dataset, data_sample *sample, const known_label *label,
                             trn_error *err)
{
    (void)dataset;
    (void)err;
    sample->label = label->label;
    return TRN_OK;
}

static trn_status take_list(trn_dataset *dataset, data_sample *sample, const known_label *label,
                            trn_error *err)
{
    size_t count = dataset->info.class_count, i = 0;
    uint8_t *labels = trn_arena_alloc(dataset->arena, count);
    if (!labels) return trn_fail_memory(err, count, "labels");
    const cJSON *item;
    cJSON_ArrayForEach (item, label->list) {
        int64_t value;
        if (i == count || !data_json_integer(item, 0, 1, &value)) break;
        labels[i++] = (uint8_t)value;
    }
    if (i != count || item)
        return trn_fail(err, TRN_ERR_FORMAT, "sample '%s' has no list of %zu labels that are 0 or 1",
                        sample->name, count);
    sample->labels = labels;
    return TRN_OK;
}

/* How many classes: what the caller says, what is known of the task, what the files say. */
static size_t class_count(const trn_dataset_options *options, const geobench_task *task, trn_task kind,
                          size_t found)
{
    if (options->class_count) return options->class_count;
    if (task && task->task == kind) return task->class_count;
    return found;
}

static trn_status read_label_map(trn_dataset *dataset, const trn_dataset_options *options,
                                 const geobench_task *task, const cJSON *json, trn_error *err)
{
    label_table table = {0};
    int64_t highest;
    dataset->info.task = TRN_TASK_CLASSIFICATION;
    trn_status status = list_classes(json, &table, &highest, err);
    if (status == TRN_OK && highest < 0) status = trn_fail(err, TRN_ERR_FORMAT, "it has no classes");
    if (status == TRN_OK) {
        dataset->info.class_count = class_count(options, task, TRN_TASK_CLASSIFICATION, (size_t)highest + 1);
        status = check_classes(&table, dataset->info.class_count, highest, err);
    }
    if (status == TRN_OK) status = give_labels(dataset, &table, take_class, err);
    free(table.entries);
    return status;
}

static trn_status read_label_stats(trn_dataset *dataset, const trn_dataset_options *options,
                                   const geobench_task *task, const cJSON *json, trn_error *err)
{
    label_table table = {0};
    trn_status status = TRN_OK;
    const cJSON *item;
    cJSON_ArrayForEach (item, json) {
        if (status == TRN_OK)
            status = add_label(&table, (known_label){.id = item->string, .list = item}, err);
    }
    if (status == TRN_OK && table.count) {
        qsort(table.entries, table.count, sizeof *table.entries, by_id);
        size_t found = (size_t)cJSON_GetArraySize(table.entries[0].list);
        dataset->info.task = TRN_TASK_MULTILABEL;
        dataset->info.class_count = class_count(options, task, TRN_TASK_MULTILABEL, found);
    }
    if (status == TRN_OK && (dataset->info.class_count == 0 || dataset->info.class_count > DATA_MAX_CLASSES))
        status = trn_fail(err, TRN_ERR_FORMAT, "it has no classes, or more than %d", DATA_MAX_CLASSES);
    if (status == TRN_OK) status = give_labels(dataset, &table, take_list, err);
    free(table.entries);
    return status;
}

/* A JSON object of the folder; *out stays NULL when there is no such file. */
static trn_status read_object(const trn_dataset *dataset, const char *name, cJSON **out, trn_error *err)
{
    *out = NULL;
    char *path = data_path(dataset, name, "", err);
    if (!path) return TRN_ERR_MEMORY;
    trn_status status = TRN_OK;
    if (trn_path_exists(path)) {
        *out = data_json_read(path, err);
        if (!*out) status = err ? err->code : TRN_ERR_FORMAT;
        if (*out && !cJSON_IsObject(*out)) {
            cJSON_Delete(*out);
            *out = NULL;
            status = trn_fail(err, TRN_ERR_FORMAT, "'%s' is no JSON object", path);
        }
    }
    free(path);
    return status;
}

/* Segmentation: the fractions of label_stats.json tell how many classes there are when nothing else does. */
static trn_status plan_masks(trn_dataset *dataset, const trn_dataset_options *options,
                             const geobench_task *task, const cJSON *stats, trn_error *err)
{
    size_t found = stats && stats->child ? (size_t)cJSON_GetArraySize(stats->child) : 0;
    dataset->info.task = TRN_TASK_SEGMENTATION;
    dataset->info.class_count = class_count(options, task, TRN_TASK_SEGMENTATION, found);
    if (dataset->info.class_count == 0 || dataset->info.class_count > DATA_MAX_CLASSES)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "'%s' does not say how many classes its masks have: say it (classes of a recipe)",
                        dataset->info.name);
    return TRN_OK;
}

static trn_status plan_pickles(trn_dataset *dataset, const trn_dataset_options *options,
                               const geobench_task *task, trn_error *err)
{
    dataset->info.task = TRN_TASK_CLASSIFICATION;
    dataset->info.class_count = class_count(options, task, TRN_TASK_CLASSIFICATION, 0);
    if (!dataset->info.class_count)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "'%s' has neither label_map.json nor label_stats.json nor masks: say how many "
                        "classes there are to "
                        "take them out of the samples",
                        dataset->info.name);
    return TRN_OK;
}

static trn_status find_labels(trn_dataset *dataset, const trn_dataset_options *options,
                              const geobench_task *task, bool masks, trn_error *err)
{
    cJSON *map = NULL, *stats = NULL;
    trn_status status = read_object(dataset, "label_map.json", &map, err);
    if (status == TRN_OK) status = read_object(dataset, "label_stats.json", &stats, err);
    if (status != TRN_OK) goto done;
    if (map) {
        status = read_label_map(dataset, options, task, map, err);
        if (status != TRN_OK) trn_wrap(err, "'%s/label_map.json'", dataset->folder);
    } else if (masks) {
        status = plan_masks(dataset, options, task, stats, err);
    } else if (stats) {
        status = read_label_stats(dataset, options, task, stats, err);
        if (status != TRN_OK) trn_wrap(err, "'%s/label_stats.json'", dataset->folder);
    } else {
        status = plan_pickles(dataset, options, task, err);
    }
    if (status == TRN_OK) {
        bool known =
            task && task->task == dataset->info.task && task->class_count == dataset->info.class_count;
        const char *const *names = options->class_names ? options->class_names
                                   : known              ? task->class_names
                                                        : NULL;
        status = data_name_classes(dataset, names, err);
    }
done:
    cJSON_Delete(map);
    cJSON_Delete(stats);
    return status;
}

/* ---- bands ---- */

static trn_status add_band(trn_dataset *dataset, const hdf5_file *file, const char *name, trn_error *err)
{
    size_t length = undated_length(name), *count = &dataset->info.band_count;
    for (size_t i = 0; i < *count; i++)
        if (same_band(name, dataset->bands[i].stored)) return TRN_OK; /* of another date */
    int rank, height, width;
    trn_status status = hdf5_measure(file, name, HDF5_FLOATS, &rank, &height, &width, err);
    if (status != TRN_OK) return status;
    if (rank != 2) {
        trn_log(TRN_LOG_WARN, "%s: dataset '%s' has %d dimensions and is left out", dataset->info.name, name,
                rank);
        return TRN_OK;
    }
    if (*count == DATA_MAX_BANDS) return trn_fail(err, TRN_ERR_FORMAT, "more than %d bands", DATA_MAX_BANDS);
    char *stored = trn_arena_printf(dataset->arena, "%.*s", (int)length, name);
    if (!stored) return trn_fail_memory(err, length, "a name");
    dataset->bands[(*count)++] = (trn_data_band){.stored = stored, .name = stored};
    return TRN_OK;
}

static trn_status list_bands(trn_dataset *dataset, const hdf5_file *file, trn_error *err)
{
    size_t most = TRN_MIN(file->count, DATA_MAX_BANDS);
    dataset->bands = trn_arena_array(dataset->arena, most + 1, sizeof *dataset->bands);
    if (!dataset->bands) return trn_fail_memory(err, most * sizeof *dataset->bands, "bands");
    trn_status status = TRN_OK;
    for (size_t i = 0; i < file->count && status == TRN_OK; i++)
        if (!is_mask(file->names[i])) status = add_band(dataset, file, file->names[i], err);
    if (status == TRN_OK && !dataset->info.band_count)
        status = trn_fail(err, TRN_ERR_FORMAT, "it has no bands");
    return status;
}

/* Bands, and whether there are masks, from the first sample. */
static trn_status probe(trn_dataset *dataset, const data_sample *sample, bool *masks, trn_error *err)
{
    char *path = data_path(dataset, sample->name, ".hdf5", err);
    if (!path) return TRN_ERR_MEMORY;
    hdf5_file file;
    trn_status status = hdf5_open(&file, path, err);
    if (status == TRN_OK) {
        status = list_bands(dataset, &file, err);
        *masks = find_mask(&file) != NULL;
        hdf5_close(&file);
    }
    if (status != TRN_OK) trn_wrap(err, "'%s'", path);
    free(path);
    return status;
}

trn_status data_open_geobench(trn_dataset *dataset, const trn_dataset_options *options, trn_error *err)
{
    dataset->read = read_geobench;
    trn_status status = read_partition(dataset, options, err);
    if (status != TRN_OK) return status;
    const data_sample *first = NULL;
    for (int s = TRN_SPLIT_COUNT; s-- > 0;)
        if (dataset->info.samples[s]) first = &dataset->samples[s][0];
    if (!first) return TRN_OK; /* the caller fails */
    const geobench_task *task = geobench_find_task(dataset->info.name);
    bool masks = false;
    int *from;
    status = probe(dataset, first, &masks, err);
    if (status != TRN_OK) return status;
    geobench_name_bands(dataset, task, options->bands_as_stored);
    status = data_select_bands(dataset, options, &from, err);
    return status == TRN_OK ? find_labels(dataset, options, task, masks, err) : status;
}
