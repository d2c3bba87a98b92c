/* A scene with a raster of labels as a dataset: cut into chips, split by blocks of them. Readers of the two
 * files are kept for the next sample, one pair for each thread that reads at the same time. */
#include "data_private.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { CHIP = 64, BLOCK = 4, MAX_BLOCK = 1 << 16, CACHE_BYTES = 64 << 20 };

static const double usual_share = 0.2;

typedef struct chip_reader {
    trn_scene *scene, *labels;
    struct chip_reader *next;
} chip_reader;

struct data_chips {
    const char **paths;
    size_t path_count;
    const char *labels;
    const trn_sensor *sensor;
    int side;
    pthread_mutex_t lock;
    chip_reader *idle; /* guarded by lock */
};

/* Where chips and blocks are. */
typedef struct chip_grid {
    int side, block;
    size_t columns, rows;             /* of chips */
    size_t block_columns, block_rows; /* the last ones may be smaller */
    uint8_t *labelled;                /* [rows][columns] */
    uint8_t *splits;                  /* [block_rows][block_columns]: trn_split */
} chip_grid;

static void reader_free(chip_reader *reader)
{
    if (!reader) return;
    trn_scene_close(reader->scene);
    trn_scene_close(reader->labels);
    free(reader);
}

void data_chips_free(struct data_chips *chips)
{
    if (!chips) return;
    while (chips->idle) {
        chip_reader *reader = chips->idle;
        chips->idle = reader->next;
        reader_free(reader);
    }
    pthread_mutex_destroy(&chips->lock); /* the rest is the dataset's arena's */
}

const char *data_chips_file(const struct data_chips *chips, size_t i)
{
    if (i == 0) return chips->labels;
    return i <= chips->path_count ? chips->paths[i - 1] : NULL;
}

static trn_status reader_open(const struct data_chips *chips, chip_reader **out, trn_error *err)
{
    chip_reader *reader = calloc(1, sizeof *reader);
    if (!reader) return trn_fail_memory(err, sizeof *reader, "a reader");
    trn_scene_options options = {.sensor = chips->sensor, .cache_bytes = CACHE_BYTES},
                      plain = {.cache_bytes = CACHE_BYTES};
    trn_status status = trn_scene_open(chips->paths, chips->path_count, &options, &reader->scene, err);
    if (status == TRN_OK) status = trn_scene_open(&chips->labels, 1, &plain, &reader->labels, err);
    if (status == TRN_OK)
        status = data_check_labels(trn_scene_get_info(reader->labels), trn_scene_get_info(reader->scene),
                                   true, err);
    if (status == TRN_OK)
        *out = reader;
    else
        reader_free(reader);
    return status;
}

static trn_status take_reader(struct data_chips *chips, chip_reader **out, trn_error *err)
{
    pthread_mutex_lock(&chips->lock);
    *out = chips->idle;
    if (*out) chips->idle = (*out)->next;
    pthread_mutex_unlock(&chips->lock);
    return *out ? TRN_OK : reader_open(chips, out, err);
}

static void give_reader(struct data_chips *chips, chip_reader *reader)
{
    pthread_mutex_lock(&chips->lock);
    reader->next = chips->idle;
    chips->idle = reader;
    pthread_mutex_unlock(&chips->lock);
}

static trn_status read_chip(const trn_dataset *dataset, const data_sample *sample, data_wanted wanted,
                            data_image *image, trn_error *err)
{
    struct data_chips *chips = dataset->chips;
    chip_reader *reader;
    trn_status status = take_reader(chips, &reader, err);
    if (status != TRN_OK) return status;
    image->height = image->width = chips->side;
    if (wanted.pixels) status = data_read_window(dataset, reader->scene, sample->x, sample->y, image, err);
    if (status == TRN_OK && wanted.labels)
        status = data_read_labels(reader->labels, sample->x, sample->y, image, err);
    give_reader(chips, reader);
    if (status != TRN_OK) data_image_free(image);
    return status;
}

/* ---- opening ---- */

static trn_status check_chips(const trn_chip_options *o, trn_error *err)
{
    if (o->chip < 0 || o->block < 0 || o->block > MAX_BLOCK)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "chips of %d pixels in blocks of %d: use numbers above 0, blocks of at most %d",
                        o->chip, o->block, MAX_BLOCK);
    if (!(o->valid < 1 && o->test < 1 && TRN_MAX(o->valid, 0) + TRN_MAX(o->test, 0) < 1))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "shares of %g (valid) and %g (test) leave nothing to train on: use less than 1 "
                        "together",
                        o->valid, o->test);
    uint64_t side = o->chip ? (uint64_t)o->chip : CHIP;
    return data_check_size(side, side, "a chip", err);
}

static trn_status plan_grid(trn_dataset *dataset, const trn_scene_info *scene, const trn_chip_options *o,
                            chip_grid *grid, trn_error *err)
{
    int side = o->chip ? o->chip : CHIP, block = o->block ? o->block : BLOCK;
    *grid = (chip_grid){.side = side, .block = block};
    grid->columns = (size_t)(scene->width / side);
    grid->rows = (size_t)(scene->height / side);
    size_t count = 0;
    if (!grid->columns || !grid->rows)
        return trn_fail(err, TRN_ERR_ARGUMENT, "'%s' has %lld x %lld pixels: a chip of %d does not fit in it",
                        dataset->folder, (long long)scene->width, (long long)scene->height, side);
    if (!trn_mul_size(grid->columns, grid->rows, &count) || count > DATA_MAX_SAMPLES)
        return trn_fail(err, TRN_ERR_ARGUMENT, "'%s' has %zu x %zu chips of %d pixels: at most %d",
                        dataset->folder, grid->columns, grid->rows, side, DATA_MAX_SAMPLES);
    grid->block_columns = (grid->columns + (size_t)block - 1) / (size_t)block;
    grid->block_rows = (grid->rows + (size_t)block - 1) / (size_t)block;
    grid->labelled = trn_arena_alloc(dataset->arena, count);
    grid->splits = trn_arena_alloc(dataset->arena, grid->block_columns * grid->block_rows);
    return grid->labelled && grid->splits ? TRN_OK : trn_fail_memory(err, count, "chips");
}

/* Looks at every chip's labels: which have any, and which classes there are. */
static trn_status look_at_labels(const trn_dataset *dataset, trn_scene *labels, chip_grid *grid,
                                 uint8_t *seen, trn_error *err)
{
    for (size_t i = 0; i < grid->columns * grid->rows; i++) {
        int64_t x = (int64_t)(i % grid->columns) * grid->side, y = (int64_t)(i / grid->columns) * grid->side;
        data_image image = {.height = grid->side, .width = grid->side};
        trn_status status = data_read_labels(labels, x, y, &image, err);
        if (status == TRN_OK) status = data_check_mask(dataset, x, y, &image, err);
        if (status == TRN_OK) grid->labelled[i] = data_note_classes(&image, seen) > 0;
        data_image_free(&image);
        if (status != TRN_OK) return trn_wrap(err, "'%s'", trn_scene_get_info(labels)->bands[0].file);
    }
    return TRN_OK;
}

static size_t block_of(const chip_grid *grid, size_t chip)
{
    size_t block = (size_t)grid->block;
    return chip / grid->columns / block * grid->block_columns + chip % grid->columns / block;
}

/* Blocks of a split that gets this share of `count`: one at least, when it gets any. */
static size_t blocks_of_share(double share, size_t count)
{
    if (share < 0) return 0;
    double wanted = floor((share > 0 ? share : usual_share) * (double)count + 0.5);
    return TRN_MAX((size_t)wanted, 1);
}

/* Draws the blocks of test and valid among those that have labels; all others are train's. */
static trn_status draw_blocks(chip_grid *grid, const trn_chip_options *o, const char *name, trn_error *err)
{
    size_t blocks = grid->block_columns * grid->block_rows, count = 0;
    size_t *labelled = calloc(blocks, sizeof *labelled), *order = calloc(blocks, sizeof *order);
    trn_status status = labelled && order ? TRN_OK : trn_fail_memory(err, blocks * sizeof *order, "blocks");
    if (status != TRN_OK) goto done;
    for (size_t i = 0; i < grid->columns * grid->rows; i++) /* any value that is no split, for now */
        if (grid->labelled[i]) grid->splits[block_of(grid, i)] = TRN_SPLIT_COUNT;
    for (size_t b = 0; b < blocks; b++)
        if (grid->splits[b] == TRN_SPLIT_COUNT) labelled[count++] = b;
    size_t test = blocks_of_share(o->test, count), valid = blocks_of_share(o->valid, count);
    if (test + valid >= count) {
        status = trn_fail(err, TRN_ERR_ARGUMENT,
                          "'%s' has %zu blocks of %d x %d chips of %d pixels with labels, too few for its "
                          "splits: make chips or blocks smaller, or do without valid or test",
                          name, count, grid->block, grid->block, grid->side);
        goto done;
    }
    trn_data_shuffle(o->seed, 0, count, order);
    for (size_t i = 0; i < count; i++)
        grid->splits[labelled[order[i]]] = (uint8_t)(i < test           ? TRN_SPLIT_TEST
                                                     : i < test + valid ? TRN_SPLIT_VALID
                                                                        : TRN_SPLIT_TRAIN);
done:
    free(labelled);
    free(order);
    return status;
}

static trn_status add_chips(trn_dataset *dataset, const chip_grid *grid, trn_error *err)
{
    trn_dataset_info *info = &dataset->info;
    size_t chips = grid->columns * grid->rows, counts[TRN_SPLIT_COUNT] = {0};
    for (size_t i = 0; i < chips; i++)
        counts[grid->splits[block_of(grid, i)]] += grid->labelled[i];
    for (int s = 0; s < TRN_SPLIT_COUNT; s++) {
        dataset->samples[s] = trn_arena_array(dataset->arena, counts[s] + 1, sizeof(data_sample));
        if (!dataset->samples[s]) return trn_fail_memory(err, counts[s] * sizeof(data_sample), "samples");
    }
    for (size_t i = 0; i < chips; i++) {
        if (!grid->labelled[i]) continue;
        int split = grid->splits[block_of(grid, i)];
        data_sample *sample = &dataset->samples[split][info->samples[split]++];
        sample->label = -1;
        sample->x = (int64_t)(i % grid->columns) * grid->side;
        sample->y = (int64_t)(i / grid->columns) * grid->side;
        sample->name =
            trn_arena_printf(dataset->arena, "x%lld_y%lld", (long long)sample->x, (long long)sample->y);
        if (!sample->name) return trn_fail_memory(err, 32, "a name");
    }
    return TRN_OK;
}

static trn_status make_chips(trn_dataset *dataset, const char *const *paths, size_t count, const char *labels,
                             const trn_chip_options *o, trn_error *err)
{
    struct data_chips *chips = trn_arena_alloc(dataset->arena, sizeof *chips);
    if (!chips) return trn_fail_memory(err, sizeof *chips, "chips");
    chips->paths = trn_arena_array(dataset->arena, count, sizeof *chips->paths);
    chips->labels = trn_arena_strdup(dataset->arena, labels);
    if (!chips->paths || !chips->labels) return trn_fail_memory(err, count * sizeof labels, "paths");
    for (size_t i = 0; i < count; i++)
        if (!(chips->paths[i] = trn_arena_strdup(dataset->arena, paths[i])))
            return trn_fail_memory(err, strlen(paths[i]), "a path");
    chips->path_count = count;
    chips->sensor = dataset->sensor;
    chips->side = o->chip ? o->chip : CHIP;
    pthread_mutex_init(&chips->lock, NULL);
    dataset->chips = chips;
    dataset->read = read_chip;
    return TRN_OK;
}

/* What the raster itself calls nodata is no class: the pixels are missing either way. */
static void ignore_nodata(trn_dataset *dataset, const trn_scene_band *labels)
{
    double value = labels->nodata;
    if (dataset->has_ignore || !labels->has_nodata || value != floor(value)) return;
    if (!(value >= 0 && value < DATA_MAX_CLASSES)) return;
    dataset->has_ignore = true;
    dataset->ignore = (int)value;
}

static trn_status cut(trn_dataset *dataset, const trn_chip_options *o, const trn_dataset_options *options,
                      chip_reader *reader, trn_error *err)
{
    const trn_scene_info *scene = trn_scene_get_info(reader->scene);
    chip_grid grid = {0};
    uint8_t *seen = calloc(DATA_MAX_CLASSES, 1);
    trn_status status = seen ? TRN_OK : trn_fail_memory(err, DATA_MAX_CLASSES, "classes");
    if (status == TRN_OK) status = plan_grid(dataset, scene, o, &grid, err);
    ignore_nodata(dataset, &trn_scene_get_info(reader->labels)->bands[0]);
    if (status == TRN_OK) status = look_at_labels(dataset, reader->labels, &grid, seen, err);
    if (status == TRN_OK)
        status = data_settle_classes(dataset, dataset->chips->labels, options->class_names, seen, err);
    if (status == TRN_OK) status = draw_blocks(&grid, o, dataset->folder, err);
    if (status == TRN_OK) status = add_chips(dataset, &grid, err);
    if (status == TRN_OK) status = data_name_bands(dataset, scene, err);
    if (status == TRN_OK) status = data_select_bands(dataset, options, &dataset->scene_bands, err);
    if (status == TRN_OK && !options->name) {
        dataset->info.name = trn_arena_strdup(dataset->arena, scene->name);
        if (!dataset->info.name) status = trn_fail_memory(err, 64, "a name");
    }
    free(seen);
    return status;
}

trn_status trn_dataset_open_scene(const char *const *paths, size_t count, const char *labels,
                                  const trn_chip_options *chips, const trn_dataset_options *options,
                                  trn_dataset **out, trn_error *err)
{
    static const trn_chip_options usual;
    static const trn_dataset_options none;
    trn_error own = {0};
    if (!chips) chips = &usual;
    if (!options) options = &none;
    if (!err) err = &own;
    *out = NULL;
    if (!count) return trn_fail(err, TRN_ERR_ARGUMENT, "a scene needs a file");
    trn_status status = check_chips(chips, err);
    if (status != TRN_OK) return status;
    trn_dataset *dataset = data_create(paths[0], options, err);
    if (!dataset) return err->code;
    dataset->info.task = TRN_TASK_SEGMENTATION;
    dataset->info.class_count = options->class_count;
    chip_reader *reader = NULL;
    status = make_chips(dataset, paths, count, labels, chips, err);
    if (status == TRN_OK) status = reader_open(dataset->chips, &reader, err);
    if (status == TRN_OK) {
        status = cut(dataset, chips, options, reader, err);
        give_reader(dataset->chips, reader);
    }
    if (status == TRN_OK) status = data_find_size(dataset, options, err);
    if (status == TRN_OK)
        *out = dataset;
    else
        trn_dataset_close(dataset);
    return status;
}
