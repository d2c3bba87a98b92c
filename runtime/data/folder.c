/* Folders of images: split.csv says which image is of which class and split; the raster room reads them. */
#include "data_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FIELDS = 64, MAX_SAMPLES = 1 << 26 };

typedef struct csv_row {
    char *path, *class_name; /* class_name may be NULL */
    int64_t label;           /* -1: not given */
    trn_split split;
    size_t line;
} csv_row;

typedef struct csv_table {
    char *text;
    csv_row *rows;
    size_t count, capacity;
    size_t path, split, class_name, label; /* columns; SIZE_MAX: absent */
} csv_table;

static void table_free(csv_table *table)
{
    free(table->text);
    free(table->rows);
}

static size_t find_column(char **fields, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(fields[i], name)) return i;
    return SIZE_MAX;
}

static trn_status read_header(csv_table *table, data_csv *csv, trn_error *err)
{
    char *fields[MAX_FIELDS];
    size_t count;
    trn_status status;
    if (!data_csv_next(csv, fields, MAX_FIELDS, &count, &status, err))
        return trn_fail(err, TRN_ERR_FORMAT, "it is empty");
    if (status != TRN_OK) return status;
    table->path = find_column(fields, count, "path");
    table->split = find_column(fields, count, "split");
    table->class_name = find_column(fields, count, "class");
    table->label = find_column(fields, count, "label");
    if (table->path == SIZE_MAX || table->split == SIZE_MAX ||
        (table->class_name == SIZE_MAX && table->label == SIZE_MAX))
        return trn_fail(err, TRN_ERR_FORMAT,
                        "line 1: it needs the columns path, split, and class or label (or both)");
    return TRN_OK;
}

/* Relative, and stays in the folder. */
static bool is_inside(const char *path)
{
    if (!*path || *path == '/') return false;
    for (const char *part = path; part; part = strchr(part, '/') ? strchr(part, '/') + 1 : NULL) {
        size_t length = strcspn(part, "/");
        if (length == 2 && !strncmp(part, "..", 2)) return false;
    }
    return true;
}

static trn_status read_row(const csv_table *table, char **fields, size_t count, csv_row *row, trn_error *err)
{
    size_t last = TRN_MAX(table->path, table->split);
    if (table->class_name != SIZE_MAX) last = TRN_MAX(last, table->class_name);
    if (table->label != SIZE_MAX) last = TRN_MAX(last, table->label);
    if (last >= count)
        return trn_fail(err, TRN_ERR_FORMAT, "line %zu has %zu fields, the header %zu or more", row->line,
                        count, last + 1);
    row->path = fields[table->path];
    row->class_name = table->class_name == SIZE_MAX ? NULL : fields[table->class_name];
    row->label = -1;
    if (!is_inside(row->path))
        return trn_fail(err, TRN_ERR_FORMAT, "line %zu: path '%.128s' leaves the folder", row->line,
                        row->path);
    if (!trn_split_parse(fields[table->split], &row->split))
        return trn_fail(err, TRN_ERR_FORMAT, "line %zu: split '%.32s' is none of train, valid, test",
                        row->line, fields[table->split]);
    if (row->class_name && !*row->class_name)
        return trn_fail(err, TRN_ERR_FORMAT, "line %zu has no class", row->line);
    if (table->label != SIZE_MAX && (!trn_parse_int(fields[table->label], &row->label) || row->label < 0 ||
                                     row->label >= DATA_MAX_CLASSES))
        return trn_fail(err, TRN_ERR_FORMAT, "line %zu: label '%.32s' is no class number (0 to %d)",
                        row->line, fields[table->label], DATA_MAX_CLASSES - 1);
    return TRN_OK;
}

static trn_status read_table(const char *path, csv_table *table, trn_error *err)
{
    size_t size = 0;
    table->text = trn_read_file(path, DATA_MAX_JSON, &size, err);
    if (!table->text) return err ? err->code : TRN_ERR_IO;
    if (strlen(table->text) != size) return trn_fail(err, TRN_ERR_FORMAT, "it holds a byte 0: it is no text");
    data_csv csv = {.text = table->text};
    if (!strncmp(csv.text, "\xef\xbb\xbf", 3)) csv.text += 3; /* a byte order mark */
    trn_status status = read_header(table, &csv, err);
    char *fields[MAX_FIELDS];
    size_t count;
    trn_status line_status = TRN_OK;
    while (status == TRN_OK && data_csv_next(&csv, fields, MAX_FIELDS, &count, &line_status, err)) {
        csv_row row = {.line = csv.line};
        if (line_status != TRN_OK) return line_status;
        status = read_row(table, fields, count, &row, err);
        if (status != TRN_OK) return status;
        if (table->count == MAX_SAMPLES ||
            !trn_grow(&table->rows, &table->capacity, table->count + 1, sizeof row))
            return trn_fail_memory(err, table->count * sizeof row, "samples");
        table->rows[table->count++] = row;
    }
    return status;
}

static int by_class(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Classes by name: numbers in the order of the sorted names. */
static trn_status number_classes(csv_table *table, trn_error *err)
{
    if (!table->count) return TRN_OK;
    char **names = calloc(table->count, sizeof *names);
    if (!names) return trn_fail_memory(err, table->count * sizeof *names, "names of classes");
    for (size_t i = 0; i < table->count; i++)
        names[i] = table->rows[i].class_name;
    qsort(names, table->count, sizeof *names, by_class);
    size_t unique = 0;
    for (size_t i = 0; i < table->count; i++)
        if (!unique || strcmp(names[unique - 1], names[i])) names[unique++] = names[i];
    for (size_t i = 0; i < table->count && unique <= DATA_MAX_CLASSES; i++) {
        char **found = bsearch(&table->rows[i].class_name, names, unique, sizeof *names, by_class);
        table->rows[i].label = found - names;
    }
    free(names);
    return unique <= DATA_MAX_CLASSES
               ? TRN_OK
               : trn_fail(err, TRN_ERR_FORMAT, "it names %zu classes: at most %d", unique, DATA_MAX_CLASSES);
}

/* Every number has one name and every name one number, and no number is left out. */
static trn_status check_classes(const csv_table *table, size_t count, const char **names, trn_error *err)
{
    for (size_t i = 0; i < table->count; i++) {
        const csv_row *row = &table->rows[i];
        const char *name = row->class_name ? row->class_name : "";
        if (names[row->label] && strcmp(names[row->label], name))
            return trn_fail(err, TRN_ERR_FORMAT, "line %zu: class %d is '%.64s' here and '%.64s' before",
                            row->line, (int)row->label, name, names[row->label]);
        names[row->label] = name;
    }
    for (size_t i = 0; i < count; i++) {
        if (!names[i])
            return trn_fail(err, TRN_ERR_FORMAT, "no image is of class %zu, though classes go up to %zu", i,
                            count - 1);
        for (size_t j = 0; *names[i] && j < i; j++)
            if (!strcmp(names[i], names[j]))
                return trn_fail(err, TRN_ERR_FORMAT, "classes %zu and %zu are both '%.64s'", j, i, names[i]);
    }
    return TRN_OK;
}

static trn_status find_classes(trn_dataset *dataset, csv_table *table, trn_error *err)
{
    trn_status status = table->label == SIZE_MAX ? number_classes(table, err) : TRN_OK;
    if (status != TRN_OK) return status;
    size_t count = 0;
    for (size_t i = 0; i < table->count; i++)
        count = TRN_MAX(count, (size_t)table->rows[i].label + 1);
    const char **names = calloc(count + 1, sizeof *names);
    if (!names) return trn_fail_memory(err, count * sizeof *names, "names of classes");
    status = check_classes(table, count, names, err);
    dataset->info.class_count = count;
    if (status == TRN_OK)
        status = data_name_classes(dataset, table->class_name == SIZE_MAX ? NULL : names, err);
    free(names);
    return status;
}

static bool is_there(const trn_dataset *dataset, const char *name)
{
    char *path = data_path(dataset, name, "", NULL);
    bool there = path && trn_path_exists(path);
    free(path);
    return there;
}

static trn_status add_samples(trn_dataset *dataset, const csv_table *table, bool skip_missing, trn_error *err)
{
    trn_dataset_info *info = &dataset->info;
    size_t counts[TRN_SPLIT_COUNT] = {0};
    for (size_t i = 0; i < table->count; i++)
        counts[table->rows[i].split]++;
    for (int s = 0; s < TRN_SPLIT_COUNT; s++) {
        dataset->samples[s] = trn_arena_array(dataset->arena, counts[s] + 1, sizeof(data_sample));
        if (!dataset->samples[s]) return trn_fail_memory(err, counts[s] * sizeof(data_sample), "samples");
    }
    for (size_t i = 0; i < table->count; i++) {
        const csv_row *row = &table->rows[i];
        if (!is_there(dataset, row->path)) {
            if (!skip_missing)
                return trn_fail(err, TRN_ERR_IO, "line %zu: '%s' is missing", row->line, row->path);
            info->missing++;
            continue;
        }
        data_sample *sample = &dataset->samples[row->split][info->samples[row->split]];
        sample->name = trn_arena_strdup(dataset->arena, row->path);
        sample->label = (int32_t)row->label;
        if (!sample->name) return trn_fail_memory(err, strlen(row->path), "a name");
        info->samples[row->split]++;
    }
    return TRN_OK;
}

static trn_status open_image(const trn_dataset *dataset, const data_sample *sample, trn_scene **scene,
                             trn_error *err)
{
    *scene = NULL;
    char *path = data_path(dataset, sample->name, "", err);
    if (!path) return TRN_ERR_MEMORY;
    const char *paths[] = {path};
    trn_scene_options options = {.sensor = dataset->sensor};
    trn_status status = trn_scene_open(paths, 1, &options, scene, err);
    free(path);
    return status;
}

/* Pixels without data become NAN: what fills them is decided for all kinds of folders in one place. */
static void mark_missing(data_image *image, const uint8_t *valid, size_t bands)
{
    size_t area = (size_t)image->height * (size_t)image->width;
    for (size_t b = 0; b < bands; b++)
        for (size_t i = 0; i < area; i++)
            if (!valid[i]) image->pixels[b * area + i] = NAN;
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

static trn_status read_image(const trn_dataset *dataset, const data_sample *sample, data_wanted wanted,
                             data_image *image, trn_error *err)
{
    trn_scene *scene;
    trn_status status = open_image(dataset, sample, &scene, err);
    if (status != TRN_OK) return status;
    uint8_t *valid = NULL;
    const trn_scene_info *info = trn_scene_get_info(scene);
    size_t bands = dataset->info.band_count, bytes = sizeof(float);
    image->label = sample->label;
    status = data_check_size((uint64_t)info->height, (uint64_t)info->width, "the image", err);
    if (status != TRN_OK || !wanted.pixels) goto done;
    image->height = (int)info->height;
    image->width = (int)info->width;
    status = check_bands(dataset, info, err);
    if (status != TRN_OK) goto done;
    size_t area = (size_t)image->height * (size_t)image->width;
    valid = malloc(area);
    image->pixels = trn_mul_size(area * bytes, bands, &bytes) ? malloc(bytes) : NULL;
    status = valid && image->pixels ? trn_scene_read(scene, dataset->scene_bands, bands, 0, 0, image->width,
                                                     image->height, image->pixels, valid, err)
                                    : trn_fail_memory(err, bytes, "a sample");
    if (status == TRN_OK) mark_missing(image, valid, bands);
done:
    free(valid);
    trn_scene_close(scene);
    if (status != TRN_OK) data_image_free(image);
    return status;
}

static trn_status name_bands(trn_dataset *dataset, const trn_scene_info *scene, trn_error *err)
{
    trn_dataset_info *info = &dataset->info;
    if (scene->band_count > DATA_MAX_BANDS)
        return trn_fail(err, TRN_ERR_FORMAT, "the first image has %zu bands: at most %d", scene->band_count,
                        DATA_MAX_BANDS);
    dataset->bands = trn_arena_array(dataset->arena, scene->band_count, sizeof *dataset->bands);
    if (!dataset->bands) return trn_fail_memory(err, scene->band_count * sizeof *dataset->bands, "bands");
    const trn_sensor *rgb = trn_sensor_find("rgb", NULL);
    bool photograph = !dataset->sensor && scene->band_count == 3;
    for (size_t i = 0; i < scene->band_count; i++) {
        const char *name = scene->bands[i].name, *common = trn_band_common(name);
        trn_data_band *band = &dataset->bands[i];
        band->stored = band->name = trn_arena_strdup(dataset->arena, name);
        if (!band->stored) return trn_fail_memory(err, strlen(name), "a name");
        const trn_sensor *sensor = dataset->sensor ? dataset->sensor : rgb;
        int at = trn_sensor_band(sensor, name);
        photograph = photograph && at >= 0;
        band->common = at >= 0 ? sensor->bands[at].common : common;
        band->wavelength_um = at >= 0 ? sensor->bands[at].wavelength_um : 0;
    }
    info->bands = dataset->bands;
    info->band_count = scene->band_count;
    info->sensor = photograph ? rgb : dataset->sensor;
    return TRN_OK;
}

static trn_status find_bands(trn_dataset *dataset, const trn_dataset_options *options, trn_error *err)
{
    for (int s = 0; s < TRN_SPLIT_COUNT; s++) {
        if (!dataset->info.samples[s]) continue;
        trn_scene *scene;
        const data_sample *sample = &dataset->samples[s][0];
        trn_status status = open_image(dataset, sample, &scene, err);
        if (status != TRN_OK) return trn_wrap(err, "the first image, '%s'", sample->name);
        status = name_bands(dataset, trn_scene_get_info(scene), err);
        trn_scene_close(scene);
        return status == TRN_OK ? data_select_bands(dataset, options, &dataset->scene_bands, err) : status;
    }
    return TRN_OK; /* without samples the caller fails */
}

trn_status data_open_images(trn_dataset *dataset, const trn_dataset_options *options, trn_error *err)
{
    csv_table table = {0};
    char *path = data_path(dataset, "split.csv", "", err);
    if (!path) return TRN_ERR_MEMORY;
    dataset->info.task = TRN_TASK_CLASSIFICATION;
    dataset->read = read_image;
    trn_status status = read_table(path, &table, err);
    if (status == TRN_OK) status = find_classes(dataset, &table, err);
    if (status == TRN_OK) status = add_samples(dataset, &table, options->skip_missing, err);
    if (status != TRN_OK) trn_wrap(err, "'%s'", path);
    if (status == TRN_OK) status = find_bands(dataset, options, err);
    table_free(&table);
    free(path);
    return status;
}
