#include "test_images.h"

#include "test_support.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

static void write_png(const char *dir, const char *name, int width, int height, bool grey,
                      const uint8_t *pixels)
{
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)width,
                       .height = (png_uint_32)height,
                       .format = grey ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB};
    char *path = test_path(dir, name);
    if (!png_image_write_to_file(&image, path, 0, pixels, 0, NULL)) fail_msg("'%s': %s", path, image.message);
    free(path);
}

void test_image_write(const char *dir, const char *name, int width, int height, int colour, int seed)
{
    size_t count = (size_t)width * (size_t)height * 3;
    uint8_t *pixels = malloc(count);
    assert_non_null(pixels);
    uint64_t stream = trn_fnv1a64(name, strlen(name), TRN_FNV_SEED + (uint64_t)seed);
    for (size_t i = 0; pixels && i < count; i++) {
        int base = (colour >> (i % 3) & 1) ? 200 : 60;
        pixels[i] = (uint8_t)(base + (int)(30 * trn_hash_uniform(stream, i)));
    }
    if (pixels) write_png(dir, name, width, height, false, pixels);
    free(pixels);
}

/* The left half is of class 0, the right one of class 1; images are of two colours likewise. */
static void write_masked(const char *dir, const test_images *images, const char *name, int seed)
{
    size_t side = (size_t)images->side, area = side * side;
    uint8_t *pixels = malloc(area * 3), *mask = malloc(area);
    assert_true(pixels && mask);
    uint64_t stream = trn_fnv1a64(name, strlen(name), TRN_FNV_SEED + (uint64_t)seed);
    for (size_t i = 0; pixels && mask && i < area; i++) {
        mask[i] = i % side >= side / 2;
        for (size_t c = 0; c < 3; c++)
            pixels[i * 3 + c] =
                (uint8_t)((mask[i] ? 200 : 60) + (int)(30 * trn_hash_uniform(stream, i * 3 + c)));
    }
    char path[128];
    snprintf(path, sizeof path, "%s/%s", images->mask, name);
    if (pixels && mask) {
        write_png(dir, name, images->side, images->side, false, pixels);
        write_png(dir, path, images->side, images->side, true, mask);
    }
    free(pixels);
    free(mask);
}

static void write_split(const char *dir, const test_images *images, const char *split, int count,
                        trn_text *csv)
{
    for (int c = 0; c < images->classes; c++)
        for (int i = 0; i < count; i++) {
            char name[64];
            snprintf(name, sizeof name, "c%d_%s_%d.png", c, split, i);
            if (images->mask) {
                write_masked(dir, images, name, i);
                trn_text_printf(csv, "%s,%s,%s/%s\n", name, split, images->mask, name);
            } else {
                test_image_write(dir, name, images->side, images->side, c + 1, i);
                trn_text_printf(csv, "%s,%s,class%d\n", name, split, c);
            }
        }
}

void test_images_write(const char *dir, const test_images *images)
{
    trn_error err = {0};
    trn_text csv = {0};
    char *path = test_path(dir, images->mask ? images->mask : "."), *list = test_path(dir, "split.csv");
    assert_trn_ok(trn_make_dirs(path, &err), err);
    trn_text_printf(&csv, "path,split,%s\n", images->mask ? "mask" : "class");
    write_split(dir, images, "train", images->train, &csv);
    write_split(dir, images, "valid", images->valid, &csv);
    write_split(dir, images, "test", images->test, &csv);
    assert_trn_ok(trn_write_file(list, csv.data, csv.length, &err), err);
    trn_text_free(&csv);
    free(path);
    free(list);
}
