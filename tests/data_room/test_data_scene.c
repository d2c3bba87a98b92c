/* Masks: scenes with a raster of labels, and images with a mask beside each. */
#include "samples.h"
#include "raster.h"
#include "test_raster.h"

#include <math.h>
#include <png.h>
#include <pthread.h>
#include <tiffio.h>

enum { WIDTH = 100, HEIGHT = 84, CHIP = 8, COLUMNS = 12, ROWS = 10, BLOCK = 2, EMPTY = 16, NODATA = 255 };

static int label_at(int x, int y)
{
    return x < EMPTY || y % 9 == 0 ? NODATA : (x / 5 + y / 7) % 3;
}

static double label_value(int band, int x, int y)
{
    (void)band;
    return label_at(x, y);
}

static double scene_value(int band, int x, int y)
{
    return 10000 * band + 100 * y + x;
}

static double half_value(int band, int x, int y)
{
    return x == 41 && y == 30 ? 1.5 : label_value(band, x, y);
}

static double high_value(int band, int x, int y)
{
    return x == 41 && y == 30 ? 7 : label_value(band, x, y);
}

static double no_value(int band, int x, int y)
{
    (void)band, (void)x, (void)y;
    return NODATA;
}

static const test_raster scene_raster = {WIDTH, HEIGHT, 2, TEST_RASTER_U16, NULL, 1, scene_value};
static const test_raster label_raster = {WIDTH, HEIGHT, 1, TEST_RASTER_U8, "255", 1, label_value};

typedef struct scene_files {
    char *scene, *labels;
} scene_files;

static scene_files write_scene(const test_raster *labels)
{
    const char *dir = test_temp_dir();
    scene_files files = {.scene = test_path(dir, "scene.tif"), .labels = test_path(dir, "truth.tif")};
    test_raster_write(files.scene, &scene_raster);
    test_raster_write(files.labels, labels);
    return files;
}

static void free_files(scene_files *files)
{
    free(files->scene);
    free(files->labels);
}

static trn_dataset *open_scene(const scene_files *files, const trn_chip_options *chips,
                               const trn_dataset_options *options)
{
    const char *paths[] = {files->scene};
    trn_error err = {0};
    trn_dataset *dataset;
    assert_trn_ok(trn_dataset_open_scene(paths, 1, files->labels, chips, options, &dataset, &err), err);
    return dataset;
}

static void open_scene_fails(const scene_files *files, const trn_chip_options *chips,
                             const trn_dataset_options *options, trn_status code, const char *text)
{
    const char *paths[] = {files->scene};
    trn_error err = {0};
    trn_dataset *dataset;
    assert_trn_fails(trn_dataset_open_scene(paths, 1, files->labels, chips, options, &dataset, &err), code,
                     err, text);
    assert_null(dataset);
}

static void check_chip(const trn_dataset *dataset, trn_split split, size_t index, int *x, int *y)
{
    trn_error err = {0};
    float pixels[2 * CHIP * CHIP];
    int32_t mask[CHIP * CHIP], alone[CHIP * CHIP];
    assert_int_equal(sscanf(trn_dataset_sample_name(dataset, split, index), "x%d_y%d", x, y), 2);
    assert_true(*x % CHIP == 0 && *y % CHIP == 0);
    assert_trn_ok(trn_dataset_read(dataset, split, index, pixels, mask, &err), err);
    assert_trn_ok(trn_dataset_read(dataset, split, index, NULL, alone, &err), err);
    assert_memory_equal(mask, alone, sizeof mask);
    for (int i = 0; i < CHIP * CHIP; i++) {
        int column = *x + i % CHIP, row = *y + i / CHIP, label = label_at(column, row);
        assert_int_equal(mask[i], label == NODATA ? TRN_LABEL_IGNORE : label);
        assert_true(pixels[i] == (float)scene_value(0, column, row));
        assert_true(pixels[CHIP * CHIP + i] == (float)scene_value(1, column, row));
    }
}

static void identify(const trn_dataset *dataset, uint8_t digest[32])
{
    trn_error err = {0};
    trn_sha256_state hash;
    trn_sha256_begin(&hash);
    assert_trn_ok(trn_dataset_identify(dataset, TRN_SPLIT_TRAIN, NULL, 0, &hash, &err), err);
    trn_sha256_end(&hash, digest);
}

/* Whether the training samples of this scene are those of `digest`. */
static bool is_same_scene(const scene_files *files, const trn_chip_options *chips,
                          const trn_dataset_options *options, const uint8_t digest[32])
{
    uint8_t now[32];
    trn_dataset *dataset = open_scene(files, chips, options);
    identify(dataset, now);
    trn_dataset_close(dataset);
    return !memcmp(now, digest, sizeof now);
}

static void scenes_have_an_identity(void **state)
{
    (void)state;
    scene_files files = write_scene(&label_raster);
    trn_chip_options chips = {.chip = CHIP, .block = BLOCK, .seed = 3}, other = chips;
    uint8_t digest[32];
    trn_error err = {0};
    trn_dataset *dataset = open_scene(&files, &chips, NULL);
    identify(dataset, digest);
    assert_true(is_same_scene(&files, &chips, NULL, digest));
    other.seed = 4;
    assert_false(is_same_scene(&files, &other, NULL, digest));
    assert_false(
        is_same_scene(&files, &chips, &(trn_dataset_options){.has_ignore = true, .ignore = 2}, digest));
    test_raster_write(files.labels, &label_raster); /* written anew */
    assert_false(is_same_scene(&files, &chips, NULL, digest));
    assert_int_equal(remove(files.labels), 0);
    trn_sha256_state hash;
    trn_sha256_begin(&hash);
    assert_trn_fails(trn_dataset_identify(dataset, TRN_SPLIT_TRAIN, NULL, 0, &hash, &err), TRN_ERR_IO, err,
                     "truth.tif' is missing");
    trn_dataset_close(dataset);
    free_files(&files);
}

static void scenes_are_cut_into_chips(void **state)
{
    (void)state;
    scene_files files = write_scene(&label_raster);
    trn_chip_options chips = {.chip = CHIP, .block = BLOCK, .valid = 0.25, .test = 0.1, .seed = 3};
    trn_dataset *dataset = open_scene(&files, &chips, NULL), *other;
    const trn_dataset_info *info = trn_dataset_get_info(dataset);
    assert_string_equal(info->name, "scene");
    assert_int_equal(info->task, TRN_TASK_SEGMENTATION);
    assert_int_equal(info->class_count, 3);
    assert_string_equal(info->class_names[2], "2");
    assert_true(info->height == CHIP && info->width == CHIP && info->band_count == 2);
    assert_int_equal(info->label_count, CHIP * CHIP);
    int block_split[ROWS / BLOCK][COLUMNS / BLOCK], blocks[TRN_SPLIT_COUNT] = {0};
    size_t chips_seen = 0;
    memset(block_split, -1, sizeof block_split);
    for (int s = 0; s < TRN_SPLIT_COUNT; s++) {
        for (size_t i = 0; i < info->samples[s]; i++, chips_seen++) {
            int x, y;
            check_chip(dataset, (trn_split)s, i, &x, &y);
            assert_true(x >= EMPTY); /* chips without labels are left out */
            int *block = &block_split[y / CHIP / BLOCK][x / CHIP / BLOCK];
            assert_true(*block == -1 || *block == s); /* a block is in one split */
            blocks[s] += *block == -1;
            *block = s;
        }
    }
    assert_int_equal(chips_seen, (COLUMNS - EMPTY / CHIP) * ROWS);
    assert_int_equal(blocks[TRN_SPLIT_VALID], 6); /* of 25 blocks with labels */
    assert_int_equal(blocks[TRN_SPLIT_TEST], 3);
    other = open_scene(&files, &chips, NULL);
    for (size_t i = 0; i < info->samples[TRN_SPLIT_TEST]; i++)
        assert_string_equal(trn_dataset_sample_name(other, TRN_SPLIT_TEST, i),
                            trn_dataset_sample_name(dataset, TRN_SPLIT_TEST, i));
    trn_dataset_close(other);
    chips.seed++;
    other = open_scene(&files, &chips, NULL);
    bool same = true;
    for (size_t i = 0; i < info->samples[TRN_SPLIT_TEST]; i++)
        same = same && !strcmp(trn_dataset_sample_name(other, TRN_SPLIT_TEST, i),
                               trn_dataset_sample_name(dataset, TRN_SPLIT_TEST, i));
    assert_false(same);
    trn_dataset_close(other);
    chips.valid = chips.test = -1;
    other = open_scene(&files, &chips, NULL);
    assert_int_equal(trn_dataset_get_info(other)->samples[TRN_SPLIT_TRAIN], chips_seen);
    trn_dataset_close(other);
    trn_dataset_close(dataset);
    free_files(&files);
}

/* Bands by name, a label to ignore, names of classes, another size. */
static void options_hold_for_scenes(void **state)
{
    (void)state;
    scene_files files = write_scene(&label_raster);
    trn_chip_options chips = {.chip = CHIP, .block = BLOCK};
    const char *const bands[] = {"2"}, *const names[] = {"water", "field", "town", "road"};
    trn_dataset_options options = {.name = "valley",
                                   .bands = bands,
                                   .band_count = 1,
                                   .has_ignore = true,
                                   .ignore = 1,
                                   .class_count = 4,
                                   .class_names = names,
                                   .height = 4,
                                   .width = 4};
    trn_dataset *dataset = open_scene(&files, &chips, &options);
    const trn_dataset_info *info = trn_dataset_get_info(dataset);
    assert_string_equal(info->name, "valley");
    assert_true(info->height == 4 && info->band_count == 1 && info->class_count == 4);
    assert_string_equal(info->class_names[3], "road");
    uint64_t counts[4];
    trn_error err = {0};
    assert_trn_ok(trn_dataset_class_counts(dataset, TRN_SPLIT_TRAIN, NULL, counts, &err), err);
    assert_true(counts[0] > 0 && counts[1] == 0 && counts[2] > 0 && counts[3] == 0);
    assert_trn_fails(trn_dataset_check_split(dataset, TRN_SPLIT_TRAIN, NULL, &err), TRN_ERR_FORMAT, err,
                     "'valley' has no sample of class 3 (road) in split train");
    trn_dataset_close(dataset);
    free_files(&files);
}

static double from_one(int band, int x, int y)
{
    int label = label_at(x, y);
    (void)band;
    return label == NODATA ? 0 : label + 1;
}

/* Classes 1 to 3, and 0 where nobody knows: class 0 is there and need not occur. */
static void classes_may_begin_at_one(void **state)
{
    (void)state;
    static const test_raster rasters[] = {{WIDTH, HEIGHT, 1, TEST_RASTER_U8, "0", 1, from_one},
                                          {WIDTH, HEIGHT, 1, TEST_RASTER_U8, NULL, 1, from_one}};
    static const trn_dataset_options options[] = {{.has_ignore = false}, {.has_ignore = true, .ignore = 0}};
    for (size_t i = 0; i < TRN_COUNT(rasters); i++) {
        scene_files files = write_scene(&rasters[i]);
        trn_dataset *dataset = open_scene(&files, &(trn_chip_options){.chip = CHIP}, &options[i]);
        assert_int_equal(trn_dataset_get_info(dataset)->class_count, 4);
        uint64_t counts[4];
        trn_error err = {0};
        assert_trn_ok(trn_dataset_class_counts(dataset, TRN_SPLIT_TRAIN, NULL, counts, &err), err);
        assert_true(counts[0] == 0 && counts[1] > 0 && counts[2] > 0 && counts[3] > 0);
        assert_trn_ok(trn_dataset_check_split(dataset, TRN_SPLIT_TRAIN, NULL, &err), err);
        trn_dataset_close(dataset);
        free_files(&files);
    }
}

/* Threads that read at the same time have readers of their own. */
static void scenes_are_read_by_many_threads(void **state)
{
    (void)state;
    scene_files files = write_scene(&label_raster);
    trn_dataset *dataset = open_scene(&files, &(trn_chip_options){.chip = CHIP, .block = BLOCK}, NULL);
    trn_batches_options options = {.batch = 5, .threads = 6, .queue = 4, .shuffle = true, .seed = 8};
    trn_batches *batches;
    trn_batch batch;
    trn_error err = {0};
    assert_trn_ok(trn_batches_open(dataset, &options, &batches, &err), err);
    float pixels[2 * CHIP * CHIP];
    int32_t mask[CHIP * CHIP];
    size_t seen = 0;
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        assert_trn_ok(trn_batches_start(batches, epoch, &err), err);
        for (;; seen += batch.count) {
            assert_trn_ok(trn_batches_next(batches, &batch, &err), err);
            if (!batch.count) break;
            for (size_t i = 0; i < batch.count; i++) {
                assert_trn_ok(
                    trn_dataset_read(dataset, TRN_SPLIT_TRAIN, batch.samples[i], pixels, mask, &err), err);
                assert_memory_equal(pixels, batch.pixels + i * TRN_COUNT(pixels), sizeof pixels);
                assert_memory_equal(mask, batch.labels + i * TRN_COUNT(mask), sizeof mask);
            }
        }
    }
    assert_int_equal(seen, 3 * trn_dataset_get_info(dataset)->samples[TRN_SPLIT_TRAIN]);
    trn_batches_close(batches);
    trn_dataset_close(dataset);
    free_files(&files);
}

static void move_west(const char *path)
{
    const double tie[6] = {0, 0, 0, TEST_RASTER_EAST - TEST_RASTER_PIXEL, TEST_RASTER_NORTH, 0};
    trn_tiff file;
    trn_error err = {0};
    assert_trn_ok(trn_tiff_open(&file, path, "r+", &err), err);
    TIFFSetField(file.handle, TRN_TIFF_TIEPOINTS, 6, tie);
    assert_int_equal(TIFFRewriteDirectory(file.handle), 1);
    trn_tiff_close(&file);
}

static void labels_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    static const test_raster wrong[] = {
        {WIDTH - 1, HEIGHT, 1, TEST_RASTER_U8, "255", 1, label_value},
        {WIDTH, HEIGHT, 3, TEST_RASTER_U8, "255", 1, label_value},
        {WIDTH, HEIGHT, 1, TEST_RASTER_F32, "255", 1, half_value},
        {WIDTH, HEIGHT, 1, TEST_RASTER_U8, "255", 1, high_value},
        {WIDTH, HEIGHT, 1, TEST_RASTER_U8, "255", 1, no_value},
        {WIDTH, HEIGHT, 1, TEST_RASTER_U8, NULL, 1, label_value},
    };
    static const struct {
        trn_status code;
        const char *says;
        size_t classes;
    } cases[] = {
        {TRN_ERR_ARGUMENT, "has 100 x 84 (width x height)", 0},
        {TRN_ERR_FORMAT, "has 3 bands: labels are one band", 0},
        {TRN_ERR_FORMAT, "the mask holds 1.5 at column 41, row 30: classes are whole numbers", 0},
        {TRN_ERR_FORMAT, "the mask holds 7 at column 41, row 30: classes are 0 to 2", 3},
        {TRN_ERR_FORMAT, "no pixel has a label", 0},
        {TRN_ERR_FORMAT, "no pixel is of class 3, though classes go up to 255", 0},
    };
    trn_chip_options chips = {.chip = CHIP};
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        scene_files files = write_scene(&wrong[i]);
        trn_dataset_options options = {.class_count = cases[i].classes};
        open_scene_fails(&files, &chips, &options, cases[i].code, cases[i].says);
        open_scene_fails(&files, &chips, &options, cases[i].code, "truth.tif");
        free_files(&files);
    }
    scene_files files = write_scene(&label_raster);
    move_west(files.labels);
    open_scene_fails(&files, &chips, NULL, TRN_ERR_ARGUMENT, "scene.tif' have different geotransforms");
    open_scene_fails(&files, &chips, NULL, TRN_ERR_ARGUMENT, "truth.tif");
    free(files.labels);
    files.labels = test_path(test_temp_dir(), "none.tif");
    open_scene_fails(&files, &chips, NULL, TRN_ERR_IO, "none.tif");
    free_files(&files);
}

static void impossible_cuts_are_refused(void **state)
{
    (void)state;
    scene_files files = write_scene(&label_raster);
    open_scene_fails(&files, &(trn_chip_options){.chip = -1}, NULL, TRN_ERR_ARGUMENT, "chips of -1");
    open_scene_fails(&files, &(trn_chip_options){.chip = 90}, NULL, TRN_ERR_ARGUMENT, "does not fit");
    open_scene_fails(&files, &(trn_chip_options){.chip = 20000}, NULL, TRN_ERR_FORMAT, "a chip has 20000");
    open_scene_fails(&files, &(trn_chip_options){.valid = 0.5, .test = 0.5}, NULL, TRN_ERR_ARGUMENT,
                     "nothing to train on");
    open_scene_fails(&files, &(trn_chip_options){.valid = NAN}, NULL, TRN_ERR_ARGUMENT, "nothing to train");
    open_scene_fails(&files, &(trn_chip_options){.chip = 32}, NULL, TRN_ERR_ARGUMENT,
                     "has 1 blocks of 4 x 4 chips of 32 pixels with labels, too few");
    free_files(&files);
}

/* ---- a mask beside each image ---- */

static void write_grey(const char *dir, const char *name, int width, int height, const uint8_t *pixels)
{
    char *path = test_path(dir, name);
    png_image image = {.version = PNG_IMAGE_VERSION, .format = PNG_FORMAT_GRAY};
    image.width = (png_uint_32)width;
    image.height = (png_uint_32)height;
    assert_true(png_image_write_to_file(&image, path, 0, pixels, width, NULL));
    free(path);
}

static const uint8_t first_mask[6] = {0, 1, 0, 1, 9, 1}, second_mask[6] = {1, 1, 1, 2, 2, 0};

/* Two images of 3 x 2 pixels with masks. */
static char *write_masks(void)
{
    char *dir = strdup(test_temp_dir()), *masks = test_path(dir, "masks");
    static const uint8_t grey[6] = {10, 20, 30, 40, 50, 60};
    trn_error err = {0};
    assert_trn_ok(trn_make_dirs(masks, &err), err);
    write_grey(dir, "a.png", 3, 2, grey);
    write_grey(dir, "b.png", 3, 2, grey);
    write_grey(dir, "masks/a.png", 3, 2, first_mask);
    write_grey(dir, "masks/b.png", 3, 2, second_mask);
    write_text(dir, "split.csv", "path,split,mask\na.png,train,masks/a.png\nb.png,test,masks/b.png\n");
    free(masks);
    return dir;
}

static void images_have_masks(void **state)
{
    (void)state;
    char *dir = write_masks();
    trn_error err = {0};
    trn_dataset *dataset;
    trn_dataset_options options = {.has_ignore = true, .ignore = 9};
    assert_trn_ok(trn_dataset_open(dir, &options, &dataset, &err), err);
    const trn_dataset_info *info = trn_dataset_get_info(dataset);
    assert_int_equal(info->task, TRN_TASK_SEGMENTATION);
    assert_int_equal(info->class_count, 3);
    assert_true(info->height == 2 && info->width == 3 && info->band_count == 1 && info->label_count == 6);
    assert_true(info->samples[TRN_SPLIT_TRAIN] == 1 && info->samples[TRN_SPLIT_TEST] == 1);
    float pixels[6];
    int32_t mask[6], alone[6];
    for (int s = 0; s < 2; s++) {
        const uint8_t *expected = s ? second_mask : first_mask;
        trn_split split = s ? TRN_SPLIT_TEST : TRN_SPLIT_TRAIN;
        assert_trn_ok(trn_dataset_read(dataset, split, 0, pixels, mask, &err), err);
        assert_trn_ok(trn_dataset_read(dataset, split, 0, NULL, alone, &err), err);
        for (int i = 0; i < 6; i++) {
            assert_int_equal(mask[i], expected[i] == 9 ? TRN_LABEL_IGNORE : expected[i]);
            assert_int_equal(alone[i], mask[i]);
            assert_true(pixels[i] == (float)(10 * (i + 1)));
        }
    }
    uint64_t counts[3];
    assert_trn_ok(trn_dataset_class_counts(dataset, TRN_SPLIT_TRAIN, NULL, counts, &err), err);
    assert_true(counts[0] == 2 && counts[1] == 3 && counts[2] == 0);
    assert_trn_fails(trn_dataset_check_split(dataset, TRN_SPLIT_TRAIN, NULL, &err), TRN_ERR_FORMAT, err,
                     "no sample of class 2 (2) in split train");
    trn_dataset_close(dataset);
    free(dir);
}

static void open_folder_fails(const char *dir, const trn_dataset_options *options, trn_status code,
                              const char *text)
{
    trn_error err = {0};
    trn_dataset *dataset;
    assert_trn_fails(trn_dataset_open(dir, options, &dataset, &err), code, err, text);
    assert_null(dataset);
}

static void masks_that_are_wrong_are_named(void **state)
{
    (void)state;
    char *dir = write_masks();
    trn_error err = {0};
    trn_dataset *dataset;
    open_folder_fails(dir, NULL, TRN_ERR_FORMAT, "no pixel is of class 3, though classes go up to 9");
    trn_dataset_options options = {.class_count = 3};
    float pixels[6];
    int32_t mask[6];
    assert_trn_ok(trn_dataset_open(dir, &options, &dataset, &err), err); /* masks are read when needed */
    assert_trn_fails(trn_dataset_read(dataset, TRN_SPLIT_TRAIN, 0, pixels, mask, &err), TRN_ERR_FORMAT, err,
                     "train sample 'a.png': the mask holds 9 at column 1, row 1: classes are 0 to 2");
    write_grey(dir, "masks/b.png", 2, 2, second_mask);
    assert_trn_fails(trn_dataset_read(dataset, TRN_SPLIT_TEST, 0, pixels, mask, &err), TRN_ERR_ARGUMENT, err,
                     "b.png' have 2 x 2 pixels, and");
    write_text(dir, "masks/b.png", "\x89PNG\r\n\x1a\n of no use");
    assert_trn_fails(trn_dataset_read(dataset, TRN_SPLIT_TEST, 0, pixels, mask, &err), TRN_ERR_FORMAT, err,
                     "b.png");
    trn_dataset_close(dataset);
    write_text(dir, "split.csv", "path,split,mask\na.png,train,masks/none.png\n");
    open_folder_fails(dir, &options, TRN_ERR_IO, "line 2: 'masks/none.png' is missing");
    write_text(dir, "split.csv", "path,split,mask\na.png,train,../a.png\n");
    open_folder_fails(dir, &options, TRN_ERR_FORMAT, "line 2: path '../a.png' leaves the folder");
    write_text(dir, "split.csv", "path,split,mask\na.png,train,\n");
    open_folder_fails(dir, &options, TRN_ERR_FORMAT, "line 2: path '' leaves the folder");
    write_text(dir, "split.csv", "path,split,mask,class\na.png,train,masks/a.png,x\n");
    open_folder_fails(dir, &options, TRN_ERR_FORMAT, "a class or a mask");
    write_text(dir, "split.csv", "path,split,mask\n");
    open_folder_fails(dir, NULL, TRN_ERR_FORMAT, "has no samples");
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scenes_have_an_identity),
        cmocka_unit_test(scenes_are_cut_into_chips),
        cmocka_unit_test(options_hold_for_scenes),
        cmocka_unit_test(classes_may_begin_at_one),
        cmocka_unit_test(scenes_are_read_by_many_threads),
        cmocka_unit_test(labels_that_do_not_fit_are_refused),
        cmocka_unit_test(impossible_cuts_are_refused),
        cmocka_unit_test(images_have_masks),
        cmocka_unit_test(masks_that_are_wrong_are_named),
    };
    return cmocka_run_group_tests_name("data_scene", tests, NULL, NULL);
}
