/* What happens to a sample before it is in a batch: sizes, crops, mirror images, turns, normalisation. */
#include "data_private.h"

#include <math.h>
#include <stdlib.h>

/* Chance of one sample in one epoch: number `drawn` of its stream. */
typedef struct chance {
    uint64_t stream, drawn;
} chance;

static uint64_t draw(chance *c)
{
    return trn_splitmix64(c->stream + c->drawn++);
}

static bool happens(chance *c, double probability)
{
    return (double)(draw(c) >> 11) * 0x1p-53 < probability;
}

/* Where out[0][0] is in the resized image, and the way to the next column and row. */
typedef struct walk {
    int64_t start, across, down;
} walk;

trn_status trn_transform_size(const trn_transform *t, int height, int width, int *out_height, int *out_width,
                              trn_error *err)
{
    if ((t->resize_height > 0) != (t->resize_width > 0) || (t->crop_height > 0) != (t->crop_width > 0) ||
        t->resize_height < 0 || t->resize_width < 0 || t->crop_height < 0 || t->crop_width < 0)
        return trn_fail(err, TRN_ERR_ARGUMENT, "a transform's sizes need a height and a width above 0");
    if (t->resize_height) height = t->resize_height, width = t->resize_width;
    trn_status status = height > 0 && width > 0
                            ? data_check_size((uint64_t)height, (uint64_t)width, "a transformed sample", err)
                            : trn_fail(err, TRN_ERR_ARGUMENT, "a sample of %d x %d pixels", height, width);
    if (status != TRN_OK) return status;
    if (t->crop_height > height || t->crop_width > width)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "a crop of %d x %d does not fit in samples of %d x %d (height x "
                        "width): make it smaller, or resize first",
                        t->crop_height, t->crop_width, height, width);
    if (t->crop_height) height = t->crop_height, width = t->crop_width;
    if (t->rotate && height != width)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "samples of %d x %d pixels cannot be turned by right angles: crop "
                        "them to squares",
                        height, width);
    if (!(t->flip_x >= 0 && t->flip_x <= 1 && t->flip_y >= 0 && t->flip_y <= 1))
        return trn_fail(err, TRN_ERR_ARGUMENT, "probabilities of flips are numbers from 0 to 1");
    *out_height = height;
    *out_width = width;
    return TRN_OK;
}

/* Every draw is made whether it is used or not, so that an option changes only what it is about. */
static walk choose(const trn_transform *t, chance *c, int height, int width, int out_height, int out_width)
{
    uint64_t free_rows = (uint64_t)(height - out_height), free_columns = (uint64_t)(width - out_width);
    uint64_t a = draw(c), b = draw(c);
    int64_t top = (int64_t)(t->random_crop ? a % (free_rows + 1) : free_rows / 2);
    int64_t left = (int64_t)(t->random_crop ? b % (free_columns + 1) : free_columns / 2);
    walk w = {.start = top * width + left, .across = 1, .down = width};
    if (happens(c, t->flip_x)) {
        w.start += w.across * (out_width - 1);
        w.across = -w.across;
    }
    if (happens(c, t->flip_y)) {
        w.start += w.down * (out_height - 1);
        w.down = -w.down;
    }
    uint64_t turns = draw(c) % 4;
    for (uint64_t i = 0; t->rotate && i < turns; i++) { /* counter-clockwise; sides are equal */
        int64_t across = w.across;
        w.start += across * (out_width - 1);
        w.across = w.down;
        w.down = -across;
    }
    return w;
}

/* Low to high becomes 0 to 1, and nothing is outside. */
static double stretched(double value, const trn_band_range *range)
{
    double extent = range->high - range->low, x = extent > 0 ? (value - range->low) / extent : 0;
    return x < 0 ? 0 : TRN_MIN(x, 1);
}

static void copy_plane(const trn_transform *t, size_t band, walk w, const float *from, float *out, int height,
                       int width)
{
    const trn_band_range *range = t->stretch ? &t->stretch[band] : NULL;
    const trn_band_statistics *norm = t->normalize ? &t->normalize[band] : NULL;
    double mean = norm ? norm->mean : 0, factor = norm && norm->std > 0 ? 1 / norm->std : 1;
    for (int y = 0; y < height; y++) {
        int64_t at = w.start + y * w.down;
        for (int x = 0; x < width; x++, at += w.across) {
            double value = range ? stretched(from[at], range) : from[at];
            *out++ = (float)((value - mean) * factor);
        }
    }
}

static void copy_mask(walk w, const int32_t *from, int32_t *out, int height, int width)
{
    for (int y = 0; y < height; y++) {
        int64_t at = w.start + y * w.down;
        for (int x = 0; x < width; x++, at += w.across)
            *out++ = from[at];
    }
}

trn_status trn_transform_apply(const trn_transform *t, uint64_t seed, uint64_t epoch, uint64_t sample,
                               size_t bands, int height, int width, const float *pixels, const int32_t *mask,
                               float *out, int32_t *out_mask, trn_error *err)
{
    int out_height, out_width;
    trn_status status = trn_transform_size(t, height, width, &out_height, &out_width, err);
    if (status != TRN_OK) return status;
    chance c = {.stream = trn_splitmix64(trn_splitmix64(trn_splitmix64(seed) ^ epoch) ^ ~sample)};
    bool resizes = t->resize_height && (t->resize_height != height || t->resize_width != width);
    int h = resizes ? t->resize_height : height, w = resizes ? t->resize_width : width;
    size_t area = (size_t)h * (size_t)w, out_area = (size_t)out_height * (size_t)out_width;
    float *resized = NULL;
    int32_t *resized_mask = NULL;
    if (resizes) {
        resized = malloc(area * bands * sizeof *resized);
        resized_mask = malloc(area * sizeof *resized_mask);
        status = resized && resized_mask
                     ? data_resize(pixels, bands, height, width, t->antialias, resized, h, w, err)
                     : trn_fail_memory(err, area * bands * sizeof *resized, "a resized sample");
        if (status != TRN_OK) goto done;
        if (mask) data_resize_nearest(mask, height, width, resized_mask, h, w);
        pixels = resized;
        mask = mask ? resized_mask : NULL;
    }
    walk way = choose(t, &c, h, w, out_height, out_width);
    for (size_t b = 0; b < bands; b++)
        copy_plane(t, b, way, pixels + b * area, out + b * out_area, out_height, out_width);
    if (mask) copy_mask(way, mask, out_mask, out_height, out_width);
done:
    free(resized);
    free(resized_mask);
    return status;
}
