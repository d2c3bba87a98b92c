/* What the tests of fitting share: tiny folders of images whose classes are easy to tell apart, a tiny ViT
 * with fresh weights, and runs over them. */
#ifndef TEST_LEARN_FIT_CASES_H
#define TEST_LEARN_FIT_CASES_H

#include "test_support.h"
#include "test_raster.h"
#include "learn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FIT_SIDE = 16, FIT_CLASSES = 3, FIT_BANDS = 3 };

/* ---- data ---- */

static size_t fit_image; /* whose pixels are asked for */

/* A class is bright in the band of its number; the rest is noise. */
static inline double fit_pixel(int band, int x, int y)
{
    uint64_t i = ((fit_image * FIT_BANDS + (size_t)band) * FIT_SIDE + (size_t)y) * FIT_SIDE + (size_t)x;
    double noise = 0.2 * trn_hash_uniform(77, i);
    return 0.4 + noise + (band == (int)(fit_image % FIT_CLASSES) ? 0.3 : 0);
}

/* Which class each pixel of a mask has: by the half of the image, and by the image. */
static inline double fit_mask_pixel(int band, int x, int y)
{
    (void)band, (void)y;
    return (x < FIT_SIDE / 2 ? (double)(fit_image % 2) : 2) / 255;
}

/* Bright in the band of the pixel's class. */
static inline double fit_mapped_pixel(int band, int x, int y)
{
    double noise = 0.2 * trn_hash_uniform(78, (fit_image * FIT_BANDS + (size_t)band) * 4096 +
                                                  (size_t)(y * FIT_SIDE + x));
    return 0.4 + noise + (band == (int)(fit_mask_pixel(0, x, y) * 255 + 0.5) ? 0.3 : 0);
}

static inline void fit_write_image(const char *dir, const char *name, int bands,
                                   double (*value)(int band, int x, int y))
{
    char *path = test_path(dir, name);
    test_raster_write(
        path,
        &(test_raster){
            .width = FIT_SIDE, .height = FIT_SIDE, .bands = bands, .type = TEST_RASTER_U8, .value = value});
    free(path);
}

static inline void fit_write_text(const char *dir, const char *name, const char *text)
{
    trn_error err = {0};
    char *path = test_path(dir, name);
    assert_trn_ok(trn_write_file(path, text, strlen(text), &err), err);
    free(path);
}

static inline const char *fit_split_of(size_t i, size_t train, size_t valid)
{
    return i < train ? "train" : i < train + valid ? "valid" : "test";
}

/* Image i is of class i % 3. */
static inline void fit_write_classes(const char *dir, size_t train, size_t valid, size_t test)
{
    trn_text csv = {0};
    trn_text_add(&csv, "path,split,class\n");
    for (size_t i = 0; i < train + valid + test; i++) {
        char name[32];
        snprintf(name, sizeof name, "image%zu.tif", i);
        fit_image = i;
        fit_write_image(dir, name, FIT_BANDS, fit_pixel);
        trn_text_printf(&csv, "%s,%s,class%zu\n", name, fit_split_of(i, train, valid), i % FIT_CLASSES);
    }
    fit_write_text(dir, "split.csv", trn_text_get(&csv));
    trn_text_free(&csv);
}

static inline void fit_write_masks(const char *dir, size_t train, size_t valid)
{
    trn_text csv = {0};
    trn_text_add(&csv, "path,split,mask\n");
    for (size_t i = 0; i < train + valid; i++) {
        char name[32], mask[32];
        snprintf(name, sizeof name, "image%zu.tif", i);
        snprintf(mask, sizeof mask, "mask%zu.tif", i);
        fit_image = i;
        fit_write_image(dir, name, FIT_BANDS, fit_mapped_pixel);
        fit_write_image(dir, mask, 1, fit_mask_pixel);
        trn_text_printf(&csv, "%s,%s,%s\n", name, fit_split_of(i, train, valid), mask);
    }
    fit_write_text(dir, "split.csv", trn_text_get(&csv));
    trn_text_free(&csv);
}

/* ---- a case ---- */

typedef struct fit_case {
    trn_dataset *dataset;
    trn_weights *weights;
    trn_encoder *encoder;
    int channels[FIT_BANDS];
    trn_member member;
    trn_head_desc head;
    trn_learn_model model;
    trn_fit_options options;
} fit_case;

static inline trn_encoder *fit_encoder(void)
{
    static const trn_setting settings[] = {{"img_size", "16"}, {"patch", "8"},   {"dim", "24"},
                                           {"depth", "2"},     {"heads", "2"},   {"mean", "110"},
                                           {"std", "60"},      {"in_chans", "3"}};
    static const trn_setting spread[] = {{"mean", "110,110,110"}, {"std", "60,60,60"}};
    trn_setting all[TRN_COUNT(settings)];
    trn_error err = {0};
    trn_encoder *encoder;
    size_t channels;
    memcpy(all, settings, sizeof all);
    all[5] = spread[0];
    all[6] = spread[1];
    assert_trn_ok(trn_encoder_create("dinov2-small", all, TRN_COUNT(all), &encoder, &err), err);
    assert_trn_ok(trn_encoder_choose_all_bands(encoder, &channels, &err), err);
    assert_int_equal(channels, FIT_BANDS);
    return encoder;
}

/* A run over the folder `data` that writes into `out` (may be NULL). */
static inline void fit_open(fit_case *c, const char *data, const char *out)
{
    trn_error err = {0};
    *c = (fit_case){0};
    assert_trn_ok(trn_dataset_open(data, NULL, &c->dataset, &err), err);
    const trn_dataset_info *info = trn_dataset_get_info(c->dataset);
    c->encoder = fit_encoder();
    assert_trn_ok(trn_weights_open_fresh(5, &c->weights, &err), err);
    assert_trn_ok(trn_encoder_load(c->encoder, c->weights, NULL, &err), err);
    for (int i = 0; i < FIT_BANDS; i++)
        c->channels[i] = i;
    bool dense = info->task == TRN_TASK_SEGMENTATION;
    c->member = (trn_member){.encoder = c->encoder,
                             .channels = c->channels,
                             .channel_count = FIT_BANDS,
                             .options = {.pool = dense ? TRN_FEATURES_DENSE : TRN_FEATURES_MEAN}};
    c->head = (trn_head_desc){.kind = TRN_HEAD_LINEAR, .outputs = (int64_t)info->class_count};
    c->model = (trn_learn_model){.members = &c->member,
                                 .member_count = 1,
                                 .head = &c->head,
                                 .bands = FIT_BANDS,
                                 .height = FIT_SIDE,
                                 .width = FIT_SIDE,
                                 .seed = 3};
    c->options = (trn_fit_options){
        .epochs = 4,
        .batch = 6,
        .optimizer = {.kind = TRN_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.05},
        .schedule = {.kind = TRN_SCHEDULE_COSINE, .base = 3e-3},
        .seed = 9,
        .dir = out,
    };
}

static inline void fit_close(fit_case *c)
{
    trn_encoder_destroy(c->encoder);
    trn_weights_close(c->weights);
    trn_dataset_close(c->dataset);
}

/* ---- what came of it ---- */

static inline char *fit_read(const char *dir, const char *name, size_t *size)
{
    trn_error err = {0};
    char *path = test_path(dir, name), *text = trn_read_file(path, 1 << 26, size, &err);
    if (!text) fail_msg("%s", err.message);
    free(path);
    return text;
}

static inline bool fit_exists(const char *dir, const char *name)
{
    char *path = test_path(dir, name);
    bool exists = trn_path_exists(path);
    free(path);
    return exists;
}

/* Both folders have this file with the same bytes. */
static inline void fit_same_file(const char *a, const char *b, const char *name)
{
    size_t size_a, size_b;
    char *of_a = fit_read(a, name, &size_a), *of_b = fit_read(b, name, &size_b);
    if (size_a != size_b || memcmp(of_a, of_b, size_a) != 0) fail_msg("%s differs in %s and %s", name, a, b);
    free(of_a);
    free(of_b);
}

/* Two runs ended with the same bits, and told the same. */
static inline void fit_same_run(const char *a, const char *b)
{
    static const char *const names[] = {"last.safetensors", "best.safetensors", "encoder.safetensors",
                                        "log.jsonl", "loss.png"};
    for (size_t i = 0; i < TRN_COUNT(names); i++)
        fit_same_file(a, b, names[i]);
}

#endif
