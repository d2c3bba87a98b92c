/* Batches read ahead: order, threads, errors, cancelling. */
#include "samples.h"

#include <pthread.h>
#include <unistd.h>

enum { SAMPLES = 23, BATCH = 4 };

static trn_dataset *open_toy(const char *dir, size_t count)
{
    trn_error err = {0};
    trn_dataset *dataset;
    write_toy(dir, count);
    assert_trn_ok(trn_dataset_open(dir, NULL, &dataset, &err), err);
    return dataset;
}

static trn_batches *open_batches(const trn_dataset *dataset, const trn_batches_options *options)
{
    trn_error err = {0};
    trn_batches *batches;
    assert_trn_ok(trn_batches_open(dataset, options, &batches, &err), err);
    return batches;
}

/* Everything of an epoch, one after the other. */
typedef struct epoch_data {
    float *pixels;
    int32_t labels[SAMPLES];
    size_t samples[SAMPLES], count, batches;
} epoch_data;

static void take_epoch(trn_batches *batches, uint64_t epoch, epoch_data *out)
{
    trn_error err = {0};
    trn_batch batch;
    size_t area = TOY_HEIGHT * TOY_HEIGHT * TOY_BANDS;
    *out = (epoch_data){.pixels = calloc(SAMPLES * area, sizeof(float))};
    assert_trn_ok(trn_batches_start(batches, epoch, &err), err);
    for (;; out->batches++) {
        assert_true(trn_batches_wait(batches, 600000));
        assert_trn_ok(trn_batches_next(batches, &batch, &err), err);
        if (!batch.count) break;
        assert_true(batch.height == TOY_HEIGHT && batch.width == TOY_HEIGHT && batch.bands == TOY_BANDS);
        assert_int_equal(batch.label_count, 1);
        memcpy(out->pixels + out->count * area, batch.pixels, batch.count * area * sizeof(float));
        memcpy(out->labels + out->count, batch.labels, batch.count * sizeof(int32_t));
        memcpy(out->samples + out->count, batch.samples, batch.count * sizeof(size_t));
        out->count += batch.count;
    }
    assert_int_equal(out->batches, trn_batches_count(batches));
    assert_trn_ok(trn_batches_next(batches, &batch, &err), err); /* the end stays the end */
    assert_int_equal(batch.count, 0);
}

static trn_batches_options augmented(int threads, int queue)
{
    return (trn_batches_options){.batch = BATCH,
                                 .shuffle = true,
                                 .seed = 5,
                                 .threads = threads,
                                 .queue = queue,
                                 .transform = {.crop_height = TOY_HEIGHT,
                                               .crop_width = TOY_HEIGHT,
                                               .random_crop = true,
                                               .flip_x = 0.5,
                                               .flip_y = 0.5,
                                               .rotate = true}};
}

static void threads_change_nothing(void **state)
{
    (void)state;
    trn_dataset *dataset = open_toy(test_temp_dir(), SAMPLES);
    static const int threads[] = {1, 2, 7, 16}, queues[] = {1, 3, 2, 9};
    epoch_data first[2], again;
    for (size_t t = 0; t < TRN_COUNT(threads); t++) {
        trn_batches_options options = augmented(threads[t], queues[t]);
        trn_batches *batches = open_batches(dataset, &options);
        for (uint64_t epoch = 0; epoch < 2; epoch++) {
            take_epoch(batches, epoch, t ? &again : &first[epoch]);
            if (!t) continue;
            assert_int_equal(again.count, SAMPLES);
            assert_memory_equal(again.samples, first[epoch].samples, sizeof again.samples);
            assert_memory_equal(again.labels, first[epoch].labels, sizeof again.labels);
            assert_memory_equal(again.pixels, first[epoch].pixels,
                                SAMPLES * TOY_BANDS * TOY_HEIGHT * TOY_HEIGHT * sizeof(float));
            free(again.pixels);
        }
        trn_batches_close(batches);
    }
    assert_memory_not_equal(first[0].samples, first[1].samples, sizeof first[0].samples);
    size_t order[SAMPLES];
    trn_data_shuffle(5, 1, SAMPLES, order);
    assert_memory_equal(first[1].samples, order, sizeof order);
    for (size_t i = 0; i < SAMPLES; i++)
        assert_int_equal(first[0].labels[i], first[0].samples[i] % 3);
    free(first[0].pixels);
    free(first[1].pixels);
    trn_dataset_close(dataset);
}

static void batches_hold_what_the_dataset_does(void **state)
{
    (void)state;
    trn_dataset *dataset = open_toy(test_temp_dir(), SAMPLES);
    trn_band_statistics norm[TOY_BANDS] = {
        {.mean = 1, .std = 2}, {.mean = 3, .std = 4}, {.mean = 5, .std = 6}};
    const size_t chosen[] = {9, 2, 22, 4, 5};
    trn_batches_options options = {.batch = 2, .samples = chosen, .sample_count = 5, .drop_last = true};
    options.transform.normalize = norm;
    trn_batches *batches = open_batches(dataset, &options);
    memset(norm, 0, sizeof norm); /* a copy is kept */
    trn_error err = {0};
    trn_batch batch;
    assert_int_equal(trn_batches_count(batches), 2);
    assert_trn_fails(trn_batches_next(batches, &batch, &err), TRN_ERR_ARGUMENT, err, "trn_batches_start");
    assert_trn_ok(trn_batches_start(batches, 0, &err), err);
    for (size_t b = 0; b < 2; b++) {
        assert_trn_ok(trn_batches_next(batches, &batch, &err), err);
        assert_int_equal(batch.count, 2);
        for (size_t s = 0; s < 2; s++) {
            size_t area = TOY_HEIGHT * TOY_WIDTH;
            assert_int_equal(batch.samples[s], chosen[2 * b + s]);
            for (size_t i = 0; i < TOY_BANDS * area; i++) {
                size_t band = i / area;
                float value = sample_value(batch.samples[s], i / area, (int)(i % area) / TOY_WIDTH,
                                           (int)(i % area) % TOY_WIDTH);
                double mean = 1 + 2.0 * (double)band, std = 2 + 2.0 * (double)band;
                assert_true(batch.pixels[s * TOY_BANDS * area + i] == (float)((value - mean) * (1 / std)));
            }
        }
    }
    assert_trn_ok(trn_batches_next(batches, &batch, &err), err);
    assert_int_equal(batch.count, 0);
    trn_batches_close(batches);
    trn_dataset_close(dataset);
}

static void ranges_are_copied(void **state)
{
    (void)state;
    trn_dataset *dataset = open_toy(test_temp_dir(), SAMPLES);
    trn_band_range ranges[TOY_BANDS] = {{-1, 5000}, {50, 6000}, {100, 7000}}, kept[TOY_BANDS];
    memcpy(kept, ranges, sizeof kept);
    trn_batches_options options = {.batch = 2, .transform = {.stretch = ranges}};
    trn_batches *batches = open_batches(dataset, &options);
    memset(ranges, 0, sizeof ranges);
    trn_transform stretch = {.stretch = kept};
    trn_error err = {0};
    trn_batch batch;
    float pixels[TOY_BANDS * TOY_HEIGHT * TOY_WIDTH], expected[TRN_COUNT(pixels)];
    assert_trn_ok(trn_batches_start(batches, 0, &err), err);
    assert_trn_ok(trn_batches_next(batches, &batch, &err), err);
    for (size_t i = 0; i < 2; i++) {
        assert_trn_ok(trn_dataset_read(dataset, TRN_SPLIT_TRAIN, i, pixels, NULL, &err), err);
        assert_trn_ok(trn_transform_apply(&stretch, 0, 0, i, TOY_BANDS, TOY_HEIGHT, TOY_WIDTH, pixels, NULL,
                                          expected, NULL, &err),
                      err);
        assert_memory_equal(batch.pixels + i * TRN_COUNT(expected), expected, sizeof expected);
    }
    trn_batches_close(batches);
    trn_dataset_close(dataset);
}

/* A run that goes on in the middle of an epoch sees what it would have seen. */
static void epochs_can_begin_in_the_middle(void **state)
{
    (void)state;
    trn_dataset *dataset = open_toy(test_temp_dir(), SAMPLES);
    trn_batches_options options = augmented(3, 2);
    trn_batches *batches = open_batches(dataset, &options);
    size_t values = TOY_BANDS * TOY_HEIGHT * TOY_HEIGHT, count = trn_batches_count(batches);
    epoch_data whole;
    take_epoch(batches, 3, &whole);
    trn_error err = {0};
    trn_batch batch;
    for (size_t first = count + 1; first-- > 0;) {
        assert_trn_ok(trn_batches_start_at(batches, 3, first, &err), err);
        for (size_t at = first * BATCH; at < SAMPLES; at += batch.count) {
            assert_trn_ok(trn_batches_next(batches, &batch, &err), err);
            assert_int_equal(batch.count, TRN_MIN((size_t)BATCH, SAMPLES - at));
            assert_memory_equal(batch.samples, whole.samples + at, batch.count * sizeof *batch.samples);
            assert_memory_equal(batch.labels, whole.labels + at, batch.count * sizeof *batch.labels);
            assert_memory_equal(batch.pixels, whole.pixels + at * values,
                                batch.count * values * sizeof *batch.pixels);
        }
        assert_trn_ok(trn_batches_next(batches, &batch, &err), err);
        assert_int_equal(batch.count, 0);
    }
    assert_trn_fails(trn_batches_start_at(batches, 3, count + 1, &err), TRN_ERR_ARGUMENT, err,
                     "cannot begin with batch 7");
    free(whole.pixels);
    trn_batches_close(batches);
    trn_dataset_close(dataset);
}

/* The batches before the sample that cannot be read come first, whatever the threads do. */
static void errors_come_in_their_place(void **state)
{
    (void)state;
    char *dir = strdup(test_temp_dir());
    trn_dataset *dataset = open_toy(dir, SAMPLES);
    static const char *const broken[] = {"id_0014.hdf5", "id_0013.hdf5"};
    for (size_t i = 0; i < TRN_COUNT(broken); i++) {
        char *path = test_path(dir, broken[i]);
        assert_int_equal(truncate(path, 400), 0);
        free(path);
    }
    for (int threads = 1; threads <= 8; threads *= 2) {
        trn_batches_options options = {.batch = BATCH, .threads = threads, .queue = 8};
        trn_batches *batches = open_batches(dataset, &options);
        trn_error err = {0};
        trn_batch batch;
        for (uint64_t epoch = 0; epoch < 2; epoch++) {
            assert_trn_ok(trn_batches_start(batches, epoch, &err), err);
            for (size_t b = 0; b < 3; b++) {
                assert_trn_ok(trn_batches_next(batches, &batch, &err), err);
                assert_int_equal(batch.samples[0], b * BATCH);
            }
            for (int i = 0; i < 2; i++) {
                assert_trn_fails(trn_batches_next(batches, &batch, &err), TRN_ERR_FORMAT, err,
                                 "train sample 'id_0013'");
                assert_int_equal(batch.count, 0);
            }
        }
        trn_batches_close(batches);
    }
    trn_dataset_close(dataset);
    free(dir);
}

static bool is_cancelled(void *user)
{
    int *asked = user;
    return ++*asked > 6;
}

static void *cancel_soon(void *user)
{
    usleep(2000);
    trn_batches_cancel(user);
    return NULL;
}

static void cancelling_ends_an_epoch(void **state)
{
    (void)state;
    trn_dataset *dataset = open_toy(test_temp_dir(), SAMPLES);
    trn_error err = {0};
    trn_batch batch;
    int asked = 0;
    trn_progress progress = {.cancelled = is_cancelled, .user = &asked};
    trn_batches_options options = {.batch = 2, .threads = 3, .progress = &progress};
    trn_batches *batches = open_batches(dataset, &options);
    assert_trn_ok(trn_batches_start(batches, 0, &err), err);
    trn_status status = TRN_OK;
    size_t taken = 0;
    for (; status == TRN_OK && taken <= SAMPLES; taken++)
        status = trn_batches_next(batches, &batch, &err);
    assert_trn_fails(status, TRN_ERR_CANCELLED, err, "reading batches");
    assert_true(taken < 6);
    trn_batches_close(batches);

    options.progress = NULL;
    batches = open_batches(dataset, &options);
    for (int round = 0; round < 20; round++) { /* from another thread, at any moment */
        pthread_t thread;
        assert_trn_ok(trn_batches_start(batches, 1, &err), err);
        assert_int_equal(pthread_create(&thread, NULL, cancel_soon, batches), 0);
        do {
            status = trn_batches_next(batches, &batch, &err);
        } while (status == TRN_OK && batch.count);
        assert_true(status == TRN_OK || status == TRN_ERR_CANCELLED);
        pthread_join(thread, NULL);
        assert_trn_fails(trn_batches_next(batches, &batch, &err), TRN_ERR_CANCELLED, err, "reading batches");
    }
    assert_trn_ok(trn_batches_start(batches, 2, &err),
                  err); /* and another epoch begins as if nothing had been */
    assert_trn_ok(trn_batches_next(batches, &batch, &err), err);
    assert_int_equal(batch.count, 2);
    trn_batches_close(batches); /* with batches on their way */
    trn_dataset_close(dataset);
}

static void impossible_batches_are_refused(void **state)
{
    (void)state;
    trn_dataset *dataset = open_toy(test_temp_dir(), 3);
    trn_error err = {0};
    trn_batches *batches;
    const size_t chosen[] = {3};
    trn_batches_options o = {.batch = 0};
    assert_trn_fails(trn_batches_open(dataset, &o, &batches, &err), TRN_ERR_ARGUMENT, err, "batches of 0");
    o = (trn_batches_options){.batch = 1, .split = TRN_SPLIT_VALID};
    assert_trn_fails(trn_batches_open(dataset, &o, &batches, &err), TRN_ERR_FORMAT, err,
                     "no samples in split valid");
    o = (trn_batches_options){.batch = 4, .drop_last = true};
    assert_trn_fails(trn_batches_open(dataset, &o, &batches, &err), TRN_ERR_ARGUMENT, err,
                     "do not fill a batch");
    o = (trn_batches_options){.batch = 1, .samples = chosen, .sample_count = 1};
    assert_trn_fails(trn_batches_open(dataset, &o, &batches, &err), TRN_ERR_ARGUMENT, err,
                     "sample 3 is chosen");
    o = (trn_batches_options){.batch = 1, .transform = {.rotate = true}};
    assert_trn_fails(trn_batches_open(dataset, &o, &batches, &err), TRN_ERR_ARGUMENT, err, "right angles");
    o = (trn_batches_options){.batch = INT32_MAX, .transform = {.resize_height = 8192, .resize_width = 8192}};
    assert_trn_fails(trn_batches_open(dataset, &o, &batches, &err), TRN_ERR_MEMORY, err, "make it smaller");
    trn_dataset_close(dataset);
}

static void real_images_in_batches(void **state)
{
    (void)state;
    char *dir = test_shared_data("eurosat-rgb");
    if (!dir) skip();
    trn_error err = {0};
    trn_dataset *dataset;
    assert_trn_ok(trn_dataset_open(dir, NULL, &dataset, &err), err);
    trn_batches_options options = {.split = TRN_SPLIT_TEST, .batch = 32};
    options.transform = (trn_transform){.resize_height = 96, .resize_width = 80};
    trn_batches *batches = open_batches(dataset, &options);
    assert_trn_ok(trn_batches_start(batches, 0, &err), err);
    size_t seen = 0;
    uint64_t counts[10] = {0}, expected[10];
    for (trn_batch batch;;) {
        assert_trn_ok(trn_batches_next(batches, &batch, &err), err);
        if (!batch.count) break;
        assert_true(batch.height == 96 && batch.width == 80 && batch.bands == 3);
        for (size_t i = 0; i < batch.count; i++)
            counts[batch.labels[i]]++;
        seen += batch.count;
    }
    assert_int_equal(seen, trn_dataset_get_info(dataset)->samples[TRN_SPLIT_TEST]);
    assert_trn_ok(trn_dataset_class_counts(dataset, TRN_SPLIT_TEST, NULL, expected, &err), err);
    assert_memory_equal(counts, expected, sizeof counts);
    trn_batches_close(batches);
    trn_dataset_close(dataset);
    free(dir);
}

/* Real chips with their masks, cut and turned at random: what a segmentation learns from. */
static void real_masks_in_batches(void **state)
{
    (void)state;
    enum { SIDE = 256, CUT = 224 };
    static const char *const folders[] = {"cvpr_chesapeake_landcover", "southAfricaCropType"};
    static const char *const bands[] = {"red", "green", "blue"};
    trn_error err = {0};
    float *pixels = calloc(3 * SIDE * SIDE, sizeof *pixels), *cut = calloc(3 * CUT * CUT, sizeof *cut);
    int32_t *mask = calloc(SIDE * SIDE, sizeof *mask), *cut_mask = calloc(CUT * CUT, sizeof *cut_mask);
    for (size_t f = 0; f < TRN_COUNT(folders); f++) {
        char *dir = test_geobench_folder(folders[f]);
        if (!dir) break;
        trn_dataset *dataset;
        trn_dataset_options open = {.bands = bands, .band_count = 3};
        assert_trn_ok(trn_dataset_open(dir, &open, &dataset, &err), err);
        trn_batches_options options = {.batch = 2, .shuffle = true, .seed = 4};
        options.transform = (trn_transform){.crop_height = CUT,
                                            .crop_width = CUT,
                                            .random_crop = true,
                                            .flip_x = 0.5,
                                            .flip_y = 0.5,
                                            .rotate = true};
        trn_batches *batches = open_batches(dataset, &options);
        trn_batch batch;
        size_t seen = 0;
        assert_trn_ok(trn_batches_start(batches, 1, &err), err);
        for (;; seen += batch.count) {
            assert_trn_ok(trn_batches_next(batches, &batch, &err), err);
            if (!batch.count) break;
            assert_int_equal(batch.label_count, CUT * CUT);
            for (size_t i = 0; i < batch.count; i++) {
                size_t sample = batch.samples[i];
                assert_trn_ok(trn_dataset_read(dataset, TRN_SPLIT_TRAIN, sample, pixels, mask, &err), err);
                assert_trn_ok(trn_transform_apply(&options.transform, 4, 1, sample, 3, SIDE, SIDE, pixels,
                                                  mask, cut, cut_mask, &err),
                              err);
                assert_memory_equal(batch.pixels + i * 3 * CUT * CUT, cut, 3 * CUT * CUT * sizeof *cut);
                assert_memory_equal(batch.labels + i * CUT * CUT, cut_mask, CUT * CUT * sizeof *cut_mask);
            }
        }
        assert_int_equal(seen, 3);
        trn_batches_close(batches);
        trn_dataset_close(dataset);
        free(dir);
    }
    free(pixels);
    free(cut);
    free(mask);
    free(cut_mask);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(batches_hold_what_the_dataset_does),
        cmocka_unit_test(ranges_are_copied),
        cmocka_unit_test(epochs_can_begin_in_the_middle),
        cmocka_unit_test(errors_come_in_their_place),
        cmocka_unit_test(cancelling_ends_an_epoch),
        cmocka_unit_test(impossible_batches_are_refused),
        cmocka_unit_test(real_images_in_batches),
        cmocka_unit_test(real_masks_in_batches),
    };
    return cmocka_run_group_tests_name("data_batches", tests, NULL, NULL);
}
