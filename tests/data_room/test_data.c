/* Datasets: GEO-Bench folders and image folders, written here and real; orders, transforms, statistics. */
#include "samples.h"

#include <math.h>
#include <unistd.h>

static trn_dataset *open_dataset(const char *folder, const trn_dataset_options *options)
{
    trn_error err = {0};
    trn_dataset *dataset;
    assert_trn_ok(trn_dataset_open(folder, options, &dataset, &err), err);
    return dataset;
}

static float *read_pixels(const trn_dataset *dataset, trn_split split, size_t index, int32_t *labels)
{
    trn_error err = {0};
    const trn_dataset_info *info = trn_dataset_get_info(dataset);
    float *pixels = calloc(info->band_count * (size_t)info->height * (size_t)info->width, sizeof *pixels);
    assert_trn_ok(trn_dataset_read(dataset, split, index, pixels, labels, &err), err);
    return pixels;
}

static void reads_a_folder_of_geobench(void **state)
{
    (void)state;
    const char *dir = test_temp_dir();
    write_toy(dir, 7);
    trn_dataset *dataset = open_dataset(dir, NULL);
    const trn_dataset_info *info = trn_dataset_get_info(dataset);
    assert_int_equal(info->task, TRN_TASK_CLASSIFICATION);
    assert_int_equal(info->class_count, 3);
    assert_int_equal(info->band_count, TOY_BANDS);
    assert_int_equal(info->height, TOY_HEIGHT);
    assert_int_equal(info->width, TOY_WIDTH);
    assert_int_equal(info->label_count, 1);
    assert_int_equal(info->samples[TRN_SPLIT_TRAIN], 7);
    assert_int_equal(info->samples[TRN_SPLIT_VALID], 0);
    assert_int_equal(info->samples[TRN_SPLIT_TEST], 1);
    assert_string_equal(info->bands[2].stored, "05 - Vegetation Red Edge");
    assert_string_equal(info->bands[2].name, "B05");
    assert_string_equal(info->bands[2].common, "rededge1");
    assert_true(fabs(info->bands[2].wavelength_um - 0.705) < 1e-9);
    assert_string_equal(trn_dataset_sample_name(dataset, TRN_SPLIT_TRAIN, 4), "id_0004");
    assert_null(trn_dataset_sample_name(dataset, TRN_SPLIT_TRAIN, 7));
    for (size_t i = 0; i < 7; i++) {
        int32_t label = -5;
        float *pixels = read_pixels(dataset, TRN_SPLIT_TRAIN, i, &label);
        assert_int_equal(label, i % 3);
        for (int p = 0; p < TOY_BANDS * TOY_HEIGHT * TOY_WIDTH; p++) {
            int area = TOY_HEIGHT * TOY_WIDTH, at = p % area;
            assert_true(pixels[p] == sample_value(i, (size_t)(p / area), at / TOY_WIDTH, at % TOY_WIDTH));
        }
        free(pixels);
    }
    uint64_t counts[3];
    trn_error err = {0};
    assert_trn_ok(trn_dataset_class_counts(dataset, TRN_SPLIT_TRAIN, NULL, counts, &err), err);
    assert_true(counts[0] == 3 && counts[1] == 2 && counts[2] == 2);
    assert_trn_ok(trn_dataset_check_split(dataset, TRN_SPLIT_TRAIN, NULL, &err), err);
    assert_trn_fails(trn_dataset_check_split(dataset, TRN_SPLIT_VALID, NULL, &err), TRN_ERR_FORMAT, err,
                     "no samples in split valid");
    assert_trn_fails(trn_dataset_check_split(dataset, TRN_SPLIT_TEST, NULL, &err), TRN_ERR_FORMAT, err,
                     "no sample of class 1");
    assert_trn_fails(trn_dataset_read(dataset, TRN_SPLIT_TEST, 1, NULL, NULL, &err), TRN_ERR_ARGUMENT, err,
                     "no sample 1 in split test");
    trn_dataset_close(dataset);
}

static void bands_are_chosen_by_any_of_their_names(void **state)
{
    (void)state;
    const char *dir = test_temp_dir();
    write_toy(dir, 3);
    trn_error err = {0};
    trn_dataset *dataset;
    const char *const wanted[] = {"RE1", "02 - Blue"};
    dataset = open_dataset(dir, &(trn_dataset_options){.bands = wanted, .band_count = 2});
    float *pixels = read_pixels(dataset, TRN_SPLIT_TRAIN, 2, NULL);
    assert_true(pixels[0] == sample_value(2, 2, 0, 0));
    assert_true(pixels[TOY_HEIGHT * TOY_WIDTH + 7] == sample_value(2, 0, 1, 1));
    free(pixels);
    trn_dataset_close(dataset);
    const char *const twice[] = {"B02", "blue"}, *const absent[] = {"B8A"};
    assert_trn_fails(
        trn_dataset_open(dir, &(trn_dataset_options){.bands = twice, .band_count = 2}, &dataset, &err),
        TRN_ERR_ARGUMENT, err, "the same band");
    assert_trn_fails(
        trn_dataset_open(dir, &(trn_dataset_options){.bands = absent, .band_count = 1}, &dataset, &err),
        TRN_ERR_ARGUMENT, err, "has no band 'B8A': it has 02 - Blue (B02), 03 - Green");
}

static void partitions_are_subsets(void **state)
{
    (void)state;
    const char *dir = test_temp_dir();
    write_toy(dir, 6);
    write_text(
        dir, "0.50x_train_partition.json",
        "{\"train\": [\"id_0005\", \"id_0001\", \"id_0000\"], \"valid\": [], \"test\": [\"id_0000\"]}");
    trn_dataset *dataset = open_dataset(dir, &(trn_dataset_options){.partition = "0.50x_train"});
    assert_int_equal(trn_dataset_get_info(dataset)->samples[TRN_SPLIT_TRAIN], 3);
    int32_t label;
    free(read_pixels(dataset, TRN_SPLIT_TRAIN, 0, &label));
    assert_int_equal(label, 2);
    trn_dataset_close(dataset);
    trn_error err = {0};
    assert_trn_fails(
        trn_dataset_open(dir, &(trn_dataset_options){.partition = "0.01x_train"}, &dataset, &err), TRN_ERR_IO,
        err, "has no '0.01x_train_partition.json'");
    assert_trn_fails(trn_dataset_open(dir, &(trn_dataset_options){.partition = "../x"}, &dataset, &err),
                     TRN_ERR_ARGUMENT, err, "is no name");
}

/* Labels of several kinds of integers, at half the size of the bands; dates in the names. */
static void write_masks(const char *dir)
{
    const char *const dates[] = {"2018-01-01", "2019-06-30"};
    for (int s = 0; s < 2; s++) {
        char id[16], name[64];
        snprintf(id, sizeof id, "s%d", s);
        hid_t file = create_sample(dir, id);
        float red[16];
        uint8_t green[4] = {10, 20, 30, 40};
        int64_t mask[16];
        for (int i = 0; i < 16; i++) {
            red[i] = (float)(i + 100 * s);
            mask[i] = i == 5 ? 9 : i % 2;
        }
        snprintf(name, sizeof name, "Red_%s", dates[s]);
        add_plane(file, name, H5T_NATIVE_FLOAT, 4, 4, red);
        snprintf(name, sizeof name, "Green_%s", dates[s]);
        add_plane(file, name, H5T_NATIVE_UINT8, 2, 2, green);
        add_plane(file, "label_2018-01-01", H5T_NATIVE_INT64, 4, 4, mask);
        H5Fclose(file);
    }
    write_text(dir, "default_partition.json", "{\"train\": [\"s0\"], \"valid\": [\"s1\"], \"test\": []}");
    write_text(dir, "label_stats.json", "{\"s0\": [0.5, 0.5], \"s1\": [0.5, 0.5]}");
}

static void reads_masks(void **state)
{
    (void)state;
    const char *dir = test_temp_dir();
    write_masks(dir);
    trn_error err = {0};
    trn_dataset *dataset = open_dataset(dir, NULL);
    const trn_dataset_info *info = trn_dataset_get_info(dataset);
    assert_int_equal(info->task, TRN_TASK_SEGMENTATION);
    assert_int_equal(info->class_count, 2);
    assert_int_equal(info->label_count, 16);
    assert_string_equal(info->bands[1].stored, "Red"); /* by name, without the date */
    assert_string_equal(info->bands[1].common, "red");
    int32_t mask[16];
    assert_trn_fails(trn_dataset_read(dataset, TRN_SPLIT_VALID, 0, NULL, mask, &err), TRN_ERR_FORMAT, err,
                     "valid sample 's1': the mask holds 9 at column 1, row 1");
    trn_dataset_close(dataset);

    dataset = open_dataset(dir, &(trn_dataset_options){.has_ignore = true, .ignore = 9});
    float *pixels = read_pixels(dataset, TRN_SPLIT_VALID, 0, mask);
    for (int i = 0; i < 16; i++)
        assert_int_equal(mask[i], i == 5 ? TRN_LABEL_IGNORE : i % 2);
    assert_true(pixels[16 + 3] == 103);
    assert_true(pixels[0] == 10 && pixels[15] == 40); /* the smaller band at the larger one's size */
    assert_true(fabsf(pixels[5] - 17.5F) < 1e-5F);    /* .75*(.75*10+.25*20) + .25*(.75*30+.25*40) */
    free(pixels);
    uint64_t counts[2];
    assert_trn_ok(trn_dataset_class_counts(dataset, TRN_SPLIT_TRAIN, NULL, counts, &err), err);
    assert_true(counts[0] == 8 && counts[1] == 7);
    trn_dataset_close(dataset);

    dataset =
        open_dataset(dir, &(trn_dataset_options){.has_ignore = true, .ignore = 9, .height = 2, .width = 2});
    free(read_pixels(dataset, TRN_SPLIT_TRAIN, 0, mask));
    assert_int_equal(mask[0], TRN_LABEL_IGNORE); /* the pixel at (1, 1) is the nearest */
    assert_int_equal(mask[1], 1);
    trn_dataset_close(dataset);
}

/* The size of a sample is its bands', whether they are read or not. */
static void small_masks_are_brought_to_the_bands(void **state)
{
    (void)state;
    const char *dir = test_temp_dir();
    hid_t file = create_sample(dir, "a");
    float red[16] = {0};
    uint8_t mask[4] = {0, 1, 2, 1};
    add_plane(file, "Red", H5T_NATIVE_FLOAT, 4, 4, red);
    add_plane(file, "label", H5T_NATIVE_UINT8, 2, 2, mask);
    H5Fclose(file);
    write_text(dir, "default_partition.json", "{\"train\": [\"a\"], \"valid\": [], \"test\": []}");
    trn_dataset *dataset = open_dataset(dir, &(trn_dataset_options){.class_count = 3});
    int32_t with[16], alone[16];
    trn_error err = {0};
    free(read_pixels(dataset, TRN_SPLIT_TRAIN, 0, with));
    assert_trn_ok(trn_dataset_read(dataset, TRN_SPLIT_TRAIN, 0, NULL, alone, &err), err);
    assert_memory_equal(with, alone, sizeof with);
    for (int i = 0; i < 16; i++)
        assert_int_equal(with[i], mask[i / 8 * 2 + i % 4 / 2]);
    trn_dataset_close(dataset);
}

static void several_dates_are_a_choice(void **state)
{
    (void)state;
    const char *dir = test_temp_dir();
    hid_t file = create_sample(dir, "a");
    float early[4] = {1, 2, 3, 4}, late[4] = {5, 6, 7, 8};
    add_plane(file, "Red_2019-06-30", H5T_NATIVE_FLOAT, 2, 2, late);
    add_plane(file, "Red_2019-01-30", H5T_NATIVE_FLOAT, 2, 2, early);
    add_pickle(file, "b'\\x80\\x04}\\x94(\\x8c\\x05label\\x94K\\x01'");
    H5Fclose(file);
    write_text(dir, "default_partition.json", "{\"train\": [\"a\"], \"valid\": [], \"test\": []}");
    trn_error err = {0};
    trn_dataset *dataset;
    trn_dataset_options options = {.class_count = 2};
    assert_trn_fails(trn_dataset_open(dir, &options, &dataset, &err), TRN_ERR_ARGUMENT, err,
                     "'Red' is there for 2 dates");
    for (options.date = 1; options.date <= 2; options.date++) {
        dataset = open_dataset(dir, &options);
        int32_t label;
        float *pixels = read_pixels(dataset, TRN_SPLIT_TRAIN, 0, &label);
        assert_true(pixels[0] == (options.date == 1 ? 1.0F : 5.0F));
        assert_int_equal(label, 1);
        free(pixels);
        trn_dataset_close(dataset);
    }
    assert_trn_fails(trn_dataset_open(dir, &options, &dataset, &err), TRN_ERR_FORMAT, err,
                     "date 3 is wanted");
}

static void reads_several_labels(void **state)
{
    (void)state;
    const char *dir = test_temp_dir();
    write_toy(dir, 2);
    char *map = test_path(dir, "label_map.json");
    unlink(map);
    free(map);
    write_text(dir, "label_stats.json", "{\"id_0001\": [1, 0, 1, 0], \"id_0000\": [0, 0, 1, 0]}");
    trn_dataset *dataset = open_dataset(dir, NULL);
    assert_int_equal(trn_dataset_get_info(dataset)->task, TRN_TASK_MULTILABEL);
    assert_int_equal(trn_dataset_get_info(dataset)->label_count, 4);
    int32_t labels[4];
    free(read_pixels(dataset, TRN_SPLIT_TRAIN, 1, labels));
    assert_true(labels[0] == 1 && labels[1] == 0 && labels[2] == 1 && labels[3] == 0);
    uint64_t counts[4];
    trn_error err = {0};
    assert_trn_ok(trn_dataset_class_counts(dataset, TRN_SPLIT_TRAIN, NULL, counts, &err), err);
    assert_true(counts[0] == 1 && counts[1] == 0 && counts[2] == 2 && counts[3] == 0);
    trn_dataset_close(dataset);
}

/* ---- real samples ---- */

static const trn_data_band *band_stored(const trn_dataset_info *info, const char *stored, size_t *at)
{
    for (*at = 0; *at < info->band_count; ++*at)
        if (!strcmp(info->bands[*at].stored, stored)) return &info->bands[*at];
    fail_msg("no band '%s'", stored);
    return NULL;
}

static double mean_of(const float *pixels, size_t area)
{
    double sum = 0;
    for (size_t i = 0; i < area; i++)
        sum += pixels[i];
    return sum / (double)area;
}

/* Numbers of the files, read by another program. */
static void reads_real_eurosat(void **state)
{
    (void)state;
    char *dir = test_geobench_folder("eurosat");
    if (!dir) skip();
    trn_error err = {0};
    trn_dataset *dataset = open_dataset(dir, &(trn_dataset_options){.name = "m-eurosat"});
    const trn_dataset_info *info = trn_dataset_get_info(dataset);
    assert_true(info->corrected_bands && info->task == TRN_TASK_CLASSIFICATION && info->band_count == 13);
    assert_true(info->height == 64 && info->width == 64 && info->class_count == 10);
    assert_string_equal(info->class_names[9], "SeaLake");
    size_t cirrus, narrow;
    assert_string_equal(band_stored(info, "09 - Water vapour", &cirrus)->name, "B10");
    assert_string_equal(band_stored(info, "12 - SWIR", &narrow)->common, "nir08");
    int32_t label;
    float *pixels = read_pixels(dataset, TRN_SPLIT_TRAIN, 0, &label);
    assert_int_equal(label, 0);
    assert_true(fabs(mean_of(pixels + cirrus * 4096, 4096) - 11.5698) <
                1e-3); /* cirrus is dark, as it should */
    assert_true(fabs(mean_of(pixels + narrow * 4096, 4096) - 2030.5452) < 1e-3);
    free(pixels);
    trn_band_statistics published[13];
    assert_trn_ok(trn_dataset_published_statistics(dataset, published, &err), err);
    assert_true(published[0].mean == 1435.127 && published[0].max == 1785);
    trn_dataset_close(dataset);

    const char *const wanted[] = {"B8A"};
    dataset =
        open_dataset(dir, &(trn_dataset_options){.name = "m-eurosat", .bands = wanted, .band_count = 1});
    assert_string_equal(trn_dataset_get_info(dataset)->bands[0].stored, "12 - SWIR");
    trn_dataset_close(dataset);
    dataset = open_dataset(
        dir, &(trn_dataset_options){
                 .name = "m-eurosat", .bands_as_stored = true, .bands = wanted, .band_count = 1});
    info = trn_dataset_get_info(dataset);
    assert_false(info->corrected_bands);
    assert_string_equal(info->bands[0].stored, "08A - Vegetation Red Edge");
    trn_dataset_close(dataset);
    free(dir);
}

static void reads_real_brick_kilns(void **state)
{
    (void)state;
    char *dir = test_geobench_folder("brick_kiln_v1.0");
    if (!dir) skip();
    trn_dataset *dataset = open_dataset(dir, &(trn_dataset_options){.name = "m-brick-kiln"});
    const trn_dataset_info *info = trn_dataset_get_info(dataset);
    size_t at;
    assert_string_equal(band_stored(info, "12 - SWIR", &at)->name, "TCI_B");
    assert_null(info->bands[at].common);
    int32_t label = -1;
    float *pixels = read_pixels(dataset, TRN_SPLIT_TRAIN, 0, &label);
    assert_int_equal(label, 0);
    assert_true(fabs(mean_of(pixels + at * 4096, 4096) - 68.8453) < 1e-3);
    assert_string_equal(band_stored(info, "06 - Vegetation Red Edge", &at)->name, "B07");
    assert_true(fabs(mean_of(pixels + at * 4096, 4096) - 1696.1702) < 1e-3);
    free(pixels);
    trn_dataset_close(dataset);
    free(dir);
}

static void reads_real_masks(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *name, *band;
        size_t bands, classes;
        double mean, mask_mean;
    } sets[] = {
        {"cvpr_chesapeake_landcover", "m-chesapeake", "NearInfrared", 4, 7, 0.8107, 3.5864},
        {"southAfricaCropType", "m-SA-crop-type", "11 - SWIR", 13, 10, 99.1764, 2.1669},
    };
    for (size_t s = 0; s < TRN_COUNT(sets); s++) {
        char *dir = test_geobench_folder(sets[s].folder);
        if (!dir) skip();
        trn_dataset *dataset = open_dataset(dir, &(trn_dataset_options){.name = sets[s].name});
        const trn_dataset_info *info = trn_dataset_get_info(dataset);
        assert_int_equal(info->task, TRN_TASK_SEGMENTATION);
        assert_int_equal(info->band_count, sets[s].bands);
        assert_int_equal(info->class_count, sets[s].classes);
        size_t at, area = 256 * 256;
        band_stored(info, sets[s].band, &at);
        int32_t *mask = calloc(area, sizeof *mask);
        float *pixels = read_pixels(dataset, TRN_SPLIT_TRAIN, 0, mask);
        double sum = 0;
        for (size_t i = 0; i < area; i++)
            sum += mask[i];
        assert_true(fabs(mean_of(pixels + at * area, area) - sets[s].mean) < 1e-4);
        assert_true(fabs(sum / (double)area - sets[s].mask_mean) < 1e-4);
        free(pixels);
        free(mask);
        trn_dataset_close(dataset);
        free(dir);
    }
}

/* Partitions that list samples of which only some are there; a partition that is no JSON. */
static void real_folders_as_they_are(void **state)
{
    (void)state;
    char *brick = test_shared_data("geobench/brick_kiln_v1.0"),
         *crops = test_shared_data("geobench/southAfricaCropType");
    if (!brick || !crops) skip();
    trn_error err = {0};
    trn_dataset *dataset;
    assert_trn_fails(trn_dataset_open(brick, NULL, &dataset, &err), TRN_ERR_IO, err,
                     "'examples_0_9.hdf5' is missing");
    dataset = open_dataset(brick, &(trn_dataset_options){.skip_missing = true});
    assert_int_equal(trn_dataset_get_info(dataset)->samples[TRN_SPLIT_VALID], 3);
    assert_int_equal(trn_dataset_get_info(dataset)->missing, 6);
    trn_dataset_close(dataset);
    assert_trn_fails(trn_dataset_open(crops, NULL, &dataset, &err), TRN_ERR_FORMAT, err, "is no JSON");
    free(brick);
    free(crops);
}

static void reads_a_folder_of_images(void **state)
{
    (void)state;
    char *dir = test_shared_data("eurosat-rgb");
    if (!dir) skip();
    trn_error err = {0};
    trn_dataset *dataset = open_dataset(dir, NULL);
    const trn_dataset_info *info = trn_dataset_get_info(dataset);
    assert_true(info->class_count == 10 && info->band_count == 3 && info->height == 64 && info->width == 64);
    assert_int_equal(info->samples[0] + info->samples[1] + info->samples[2], 2000);
    assert_string_equal(info->class_names[1], "Forest");
    assert_string_equal(info->bands[0].common, "red");
    int32_t label = -1;
    float *pixels = read_pixels(dataset, TRN_SPLIT_TRAIN, 0, &label);
    assert_string_equal(trn_dataset_sample_name(dataset, TRN_SPLIT_TRAIN, 0),
                        "AnnualCrop/AnnualCrop_2341.jpg");
    assert_int_equal(label, 0);
    for (int i = 0; i < 3 * 64 * 64; i++)
        assert_true(pixels[i] >= 0 && pixels[i] <= 255 && pixels[i] == floorf(pixels[i]));
    free(pixels);
    uint64_t counts[10], sum = 0;
    assert_trn_ok(trn_dataset_class_counts(dataset, TRN_SPLIT_TRAIN, NULL, counts, &err), err);
    for (int c = 0; c < 10; c++) {
        assert_true(counts[c] > 0);
        sum += counts[c];
    }
    assert_int_equal(sum, info->samples[TRN_SPLIT_TRAIN]);
    trn_band_statistics statistics[3];
    assert_trn_ok(trn_dataset_statistics(dataset, TRN_SPLIT_TRAIN, 50, NULL, statistics, &err), err);
    assert_int_equal(statistics[2].count, 50 * 64 * 64);
    assert_true(statistics[2].mean > 60 && statistics[2].mean < 140 && statistics[2].std > 10);
    assert_trn_fails(trn_dataset_published_statistics(dataset, statistics, &err), TRN_ERR_UNSUPPORTED, err,
                     "band_stats.json");
    trn_dataset_close(dataset);
    free(dir);
}

/* ---- statistics, orders, transforms ---- */

static void statistics_are_those_of_all_pixels(void **state)
{
    (void)state;
    const char *dir = test_temp_dir();
    write_toy(dir, 5);
    trn_dataset *dataset = open_dataset(dir, NULL);
    trn_band_statistics got[TOY_BANDS];
    trn_error err = {0};
    assert_trn_ok(trn_dataset_statistics(dataset, TRN_SPLIT_TRAIN, 0, NULL, got, &err), err);
    for (size_t b = 0; b < TOY_BANDS; b++) {
        double sum = 0, squares = 0, n = 5 * TOY_HEIGHT * TOY_WIDTH;
        for (int i = 0; i < (int)n; i++)
            sum += sample_value((size_t)i / 30, b, i % 30 / TOY_WIDTH, i % TOY_WIDTH);
        for (int i = 0; i < (int)n; i++) {
            double d = sample_value((size_t)i / 30, b, i % 30 / TOY_WIDTH, i % TOY_WIDTH) - sum / n;
            squares += d * d;
        }
        assert_true(fabs(got[b].mean - sum / n) < 1e-9 * fabs(sum / n));
        assert_true(fabs(got[b].std - sqrt(squares / n)) < 1e-9 * got[b].std);
        assert_true(got[b].min == 100 * (double)b && got[b].max == 4045 + 100 * (double)b &&
                    got[b].count == 150);
    }
    assert_trn_fails(trn_dataset_statistics(dataset, TRN_SPLIT_VALID, 0, NULL, got, &err), TRN_ERR_FORMAT,
                     err, "no samples in split valid");
    trn_dataset_close(dataset);
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void percentiles_are_those_of_all_pixels(void **state)
{
    (void)state;
    const char *dir = test_temp_dir();
    write_toy(dir, 5);
    trn_dataset *dataset = open_dataset(dir, NULL);
    trn_band_range got[TOY_BANDS];
    trn_error err = {0};
    enum { COUNT = 5 * TOY_HEIGHT * TOY_WIDTH };
    assert_trn_ok(trn_dataset_percentiles(dataset, TRN_SPLIT_TRAIN, 2, 97.5, 0, NULL, got, &err), err);
    for (size_t b = 0; b < TOY_BANDS; b++) {
        float all[COUNT];
        for (int i = 0; i < COUNT; i++)
            all[i] = sample_value((size_t)i / 30, b, i % 30 / TOY_WIDTH, i % TOY_WIDTH);
        qsort(all, COUNT, sizeof *all, by_size);
        /* 149 steps between 150 values: 2 % is place 2.98, 97.5 % place 145.275 */
        assert_true(fabs(got[b].low - (all[2] + 0.98 * (all[3] - all[2]))) < 1e-9);
        assert_true(fabs(got[b].high - (all[145] + 0.275 * (all[146] - all[145]))) < 1e-9);
    }
    assert_trn_ok(trn_dataset_percentiles(dataset, TRN_SPLIT_TEST, 0, 100, 1, NULL, got, &err), err);
    assert_true(got[1].low == 100 && got[1].high == 145);
    assert_trn_fails(trn_dataset_percentiles(dataset, TRN_SPLIT_VALID, 2, 98, 0, NULL, got, &err),
                     TRN_ERR_FORMAT, err, "no samples in split valid");
    assert_trn_fails(trn_dataset_percentiles(dataset, TRN_SPLIT_TRAIN, 98, 2, 0, NULL, got, &err),
                     TRN_ERR_ARGUMENT, err, "ascending numbers");
    assert_trn_fails(trn_dataset_percentiles(dataset, TRN_SPLIT_TRAIN, NAN, 2, 0, NULL, got, &err),
                     TRN_ERR_ARGUMENT, err, "ascending numbers");
    trn_dataset_close(dataset);
    /* more pixels than are kept: five samples that are about 0, 1000, .. 4000 */
    dataset = open_dataset(dir, &(trn_dataset_options){.height = 600, .width = 600});
    assert_trn_ok(trn_dataset_percentiles(dataset, TRN_SPLIT_TRAIN, 19.5, 20.5, 0, NULL, got, &err), err);
    assert_true(got[0].low > 30 && got[0].low <= 45 && got[0].high >= 1000 && got[0].high < 1015);
    trn_dataset_close(dataset);
}

/* The numbers are written down so that no machine may differ. */
static void orders_are_the_same_everywhere(void **state)
{
    (void)state;
    size_t order[10], again[10], other[10];
    trn_data_shuffle(42, 3, 10, order);
    trn_data_shuffle(42, 3, 10, again);
    trn_data_shuffle(42, 4, 10, other);
    static const size_t expected[10] = {4, 3, 7, 8, 0, 5, 6, 2, 9, 1};
    for (size_t i = 0; i < 10; i++) {
        if (order[i] != expected[i]) fail_msg("place %zu: %zu", i, order[i]);
        assert_true(order[i] == again[i]);
    }
    assert_memory_not_equal(order, other, sizeof order);
    unsigned seen = 0;
    for (size_t i = 0; i < 10; i++)
        seen |= 1U << other[i];
    assert_int_equal(seen, 1023);
    /* every place is as likely for a sample */
    int places[5] = {0};
    for (uint64_t epoch = 0; epoch < 5000; epoch++) {
        trn_data_shuffle(7, epoch, 5, order);
        for (int i = 0; i < 5; i++)
            places[i] += order[i] == 2;
    }
    for (int i = 0; i < 5; i++)
        assert_true(places[i] > 850 && places[i] < 1150);
    size_t some[4], more[7];
    trn_error err = {0};
    assert_trn_ok(trn_data_subset(1, 10, 4, some, &err), err);
    assert_trn_ok(trn_data_subset(1, 10, 7, more, &err), err);
    for (size_t i = 0, j = 0; i < 4; i++) {
        while (j < 7 && more[j] != some[i])
            j++;
        assert_true(j < 7 && (!i || some[i] > some[i - 1]));
    }
    assert_trn_fails(trn_data_subset(1, 3, 4, some, &err), TRN_ERR_ARGUMENT, err, "subset of 4");
}

/* Every place of the image holds its mask's value: whatever moves one must move the other. */
static void masks_move_with_images(void **state)
{
    (void)state;
    trn_error err = {0};
    enum { SIDE = 9, CROP = 5 };
    float pixels[SIDE * SIDE], out[CROP * CROP];
    int32_t mask[SIDE * SIDE], out_mask[CROP * CROP];
    for (int i = 0; i < SIDE * SIDE; i++) {
        mask[i] = i;
        pixels[i] = (float)i;
    }
    trn_transform t = {
        .crop_height = CROP, .crop_width = CROP, .random_crop = true, .flip_x = 0.5, .flip_y = 0.5};
    t.rotate = true;
    unsigned ways = 0, rows = 0;
    for (uint64_t sample = 0; sample < 400; sample++) {
        assert_trn_ok(trn_transform_apply(&t, 1, 2, sample, 1, SIDE, SIDE, pixels, mask, out, out_mask, &err),
                      err);
        for (int i = 0; i < CROP * CROP; i++)
            assert_true(out[i] == (float)out_mask[i]);
        int across = out_mask[1] - out_mask[0], down = out_mask[CROP] - out_mask[0];
        assert_true((abs(across) == 1 && abs(down) == SIDE) || (abs(across) == SIDE && abs(down) == 1));
        ways |= 1U << ((across < 0) + 2 * (down < 0) + 4 * (abs(across) == 1));
        int least = TRN_MIN(TRN_MIN(out_mask[0], out_mask[CROP - 1]),
                            TRN_MIN(out_mask[CROP * CROP - 1], out_mask[CROP * (CROP - 1)]));
        rows |= 1U << (least / SIDE);
        for (int y = 0; y < CROP; y++)
            for (int x = 0; x < CROP; x++)
                assert_int_equal(out_mask[y * CROP + x], out_mask[0] + across * x + down * y);
    }
    assert_int_equal(ways, 255); /* all eight ways to lay a square */
    assert_int_equal(rows, 31);  /* all places of the crop */
    float first[CROP * CROP];
    assert_trn_ok(trn_transform_apply(&t, 1, 2, 9, 1, SIDE, SIDE, pixels, NULL, first, NULL, &err), err);
    assert_trn_ok(trn_transform_apply(&t, 1, 2, 9, 1, SIDE, SIDE, pixels, NULL, out, NULL, &err), err);
    assert_memory_equal(first, out, sizeof out);
}

static void one_transform_at_a_time(void **state)
{
    (void)state;
    trn_error err = {0};
    const float pixels[6] = {1, 2, 3, 4, 5, 6}; /* 2 x 3 */
    float out[24];
    trn_transform flip = {.flip_x = 1};
    assert_trn_ok(trn_transform_apply(&flip, 0, 0, 0, 1, 2, 3, pixels, NULL, out, NULL, &err), err);
    assert_memory_equal(out, ((const float[]){3, 2, 1, 6, 5, 4}), sizeof pixels);
    flip = (trn_transform){.flip_y = 1};
    assert_trn_ok(trn_transform_apply(&flip, 0, 0, 0, 1, 2, 3, pixels, NULL, out, NULL, &err), err);
    assert_memory_equal(out, ((const float[]){4, 5, 6, 1, 2, 3}), sizeof pixels);
    trn_transform crop = {.crop_height = 2, .crop_width = 1};
    assert_trn_ok(trn_transform_apply(&crop, 0, 0, 0, 1, 2, 3, pixels, NULL, out, NULL, &err), err);
    assert_true(out[0] == 2 && out[1] == 5);
    trn_band_statistics norm = {.mean = 3, .std = 2}, flat = {.mean = 3};
    trn_transform z = {.normalize = &norm};
    assert_trn_ok(trn_transform_apply(&z, 0, 0, 0, 1, 2, 3, pixels, NULL, out, NULL, &err), err);
    assert_true(out[0] == -1 && out[5] == 1.5F);
    z.normalize = &flat;
    assert_trn_ok(trn_transform_apply(&z, 0, 0, 0, 1, 2, 3, pixels, NULL, out, NULL, &err), err);
    assert_true(out[0] == -2 && out[5] == 3);
    trn_band_range range = {.low = 2, .high = 4}, point = {.low = 4, .high = 4};
    trn_transform stretch = {.stretch = &range};
    assert_trn_ok(trn_transform_apply(&stretch, 0, 0, 0, 1, 2, 3, pixels, NULL, out, NULL, &err), err);
    assert_memory_equal(out, ((const float[]){0, 0, 0.5F, 1, 1, 1}), sizeof pixels);
    norm = (trn_band_statistics){.mean = 0.5, .std = 0.25};
    stretch.normalize = &norm; /* follows */
    assert_trn_ok(trn_transform_apply(&stretch, 0, 0, 0, 1, 2, 3, pixels, NULL, out, NULL, &err), err);
    assert_memory_equal(out, ((const float[]){-2, -2, 0, 2, 2, 2}), sizeof pixels);
    stretch = (trn_transform){.stretch = &point};
    assert_trn_ok(trn_transform_apply(&stretch, 0, 0, 0, 1, 2, 3, pixels, NULL, out, NULL, &err), err);
    for (int i = 0; i < 6; i++)
        assert_true(out[i] == 0);
    /* bilinear, pixel centres aligned: 2 -> 4 weighs 1, .75, .25 */
    trn_transform twice = {.resize_height = 4, .resize_width = 6};
    assert_trn_ok(trn_transform_apply(&twice, 0, 0, 0, 1, 2, 3, pixels, NULL, out, NULL, &err), err);
    static const float row[6] = {1, 1.25F, 1.75F, 2.25F, 2.75F, 3}, down[4] = {0, 0.75F, 2.25F, 3};
    for (int i = 0; i < 24; i++)
        assert_true(fabsf(out[i] - row[i % 6] - down[i / 6]) < 1e-6F);
    /* 6 -> 2: without a wider filter the two middle pixels of three; with it all that are near */
    const float line[6] = {0, 0, 0, 9, 0, 0};
    trn_transform less = {.resize_height = 1, .resize_width = 2};
    assert_trn_ok(trn_transform_apply(&less, 0, 0, 0, 1, 1, 6, line, NULL, out, NULL, &err), err);
    assert_true(out[0] == 0 && out[1] == 0);
    less.antialias = true; /* weights 1 2 3 2 1 about the centre, in thirds; cut at the edge */
    assert_trn_ok(trn_transform_apply(&less, 0, 0, 0, 1, 1, 6, line, NULL, out, NULL, &err), err);
    assert_true(fabsf(out[0] - 9.0F / 8) < 1e-6F && fabsf(out[1] - 18.0F / 8) < 1e-6F);
}

static void impossible_transforms_are_refused(void **state)
{
    (void)state;
    trn_error err = {0};
    int h, w;
    trn_transform t = {.crop_height = 9, .crop_width = 9};
    assert_trn_fails(trn_transform_size(&t, 8, 8, &h, &w, &err), TRN_ERR_ARGUMENT, err, "crop of 9 x 9");
    t = (trn_transform){.rotate = true};
    assert_trn_fails(trn_transform_size(&t, 8, 9, &h, &w, &err), TRN_ERR_ARGUMENT, err, "right angles");
    t = (trn_transform){.flip_x = 1.5};
    assert_trn_fails(trn_transform_size(&t, 8, 9, &h, &w, &err), TRN_ERR_ARGUMENT, err, "from 0 to 1");
    t = (trn_transform){.resize_height = 1 << 20, .resize_width = 4};
    assert_trn_fails(trn_transform_size(&t, 8, 9, &h, &w, &err), TRN_ERR_FORMAT, err, "1048576 x 4");
    t = (trn_transform){.resize_height = 4};
    assert_trn_fails(trn_transform_size(&t, 8, 9, &h, &w, &err), TRN_ERR_ARGUMENT, err, "height and a width");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_folder_of_geobench),
        cmocka_unit_test(bands_are_chosen_by_any_of_their_names),
        cmocka_unit_test(partitions_are_subsets),
        cmocka_unit_test(reads_masks),
        cmocka_unit_test(small_masks_are_brought_to_the_bands),
        cmocka_unit_test(several_dates_are_a_choice),
        cmocka_unit_test(reads_several_labels),
        cmocka_unit_test(reads_real_eurosat),
        cmocka_unit_test(reads_real_brick_kilns),
        cmocka_unit_test(reads_real_masks),
        cmocka_unit_test(real_folders_as_they_are),
        cmocka_unit_test(reads_a_folder_of_images),
        cmocka_unit_test(statistics_are_those_of_all_pixels),
        cmocka_unit_test(percentiles_are_those_of_all_pixels),
        cmocka_unit_test(orders_are_the_same_everywhere),
        cmocka_unit_test(masks_move_with_images),
        cmocka_unit_test(one_transform_at_a_time),
        cmocka_unit_test(impossible_transforms_are_refused),
    };
    return cmocka_run_group_tests_name("data", tests, NULL, NULL);
}
