/* The georeference of a TIFF: geo tags to an affine transform and a CRS, kept as they came. */
#include "raster_private.h"

#include <math.h>
#include <string.h>
#include <tiffio.h>

enum {
    KEY_RASTER_TYPE = 1025,
    KEY_GEOGRAPHIC = 2048,
    KEY_PROJECTED = 3072,
    RASTER_PIXEL_IS_POINT = 2,
    MAX_ASCII = 1 << 20,
};

/* The entry of a key, four numbers, or NULL. */
static const uint16_t *find_key(const trn_georef *georef, int wanted)
{
    size_t entries = georef->key_count >= 4 ? georef->keys[3] : 0;
    entries = TRN_MIN(entries, (size_t)(georef->key_count / 4 - (georef->key_count >= 4)));
    for (size_t i = 1; i <= entries; i++)
        if (georef->keys[4 * i] == wanted) return georef->keys + 4 * i;
    return NULL;
}

int georef_key(const trn_georef *georef, int wanted)
{
    const uint16_t *key = find_key(georef, wanted);
    return key && key[1] == 0 ? key[3] : -1;
}

double georef_number(const trn_georef *georef, int wanted, double otherwise)
{
    const uint16_t *key = find_key(georef, wanted);
    bool stored = key && key[1] == TRN_TIFF_GEO_DOUBLES && key[2] >= 1 && key[3] < georef->double_count;
    return stored && isfinite(georef->double_params[key[3]]) ? georef->double_params[key[3]] : otherwise;
}

bool trn_georef_is_point(const trn_georef *georef)
{
    return georef->has_crs && georef_key(georef, KEY_RASTER_TYPE) == RASTER_PIXEL_IS_POINT;
}

static bool all_finite(const double *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i])) return false;
    return true;
}

static bool read_doubles(TIFF *tiff, uint32_t tag, uint16_t least, uint16_t *count, double **values)
{
    return TIFFGetField(tiff, tag, count, values) && *count >= least && *values;
}

static bool read_transform(TIFF *tiff, double *gt)
{
    uint16_t count, scale_count;
    double *m, *scale, *tie;
    if (read_doubles(tiff, TRN_TIFF_PIXEL_SCALE, 2, &scale_count, &scale) &&
        read_doubles(tiff, TRN_TIFF_TIEPOINTS, 6, &count, &tie)) {
        const double made[6] = {tie[3] - tie[0] * scale[0],       scale[0], 0,
                                tie[4] + tie[1] * fabs(scale[1]), 0,        -fabs(scale[1])};
        memcpy(gt, made, sizeof made);
    } else if (read_doubles(tiff, TRN_TIFF_TRANSFORMATION, 16, &count, &m)) {
        const double made[6] = {m[3], m[0], m[1], m[7], m[4], m[5]};
        memcpy(gt, made, sizeof made);
    } else {
        return false;
    }
    return all_finite(gt, 6) && gt[1] * gt[5] - gt[2] * gt[4] != 0;
}

static const void *copy_array(trn_arena *arena, const void *from, size_t bytes)
{
    void *copy = trn_arena_alloc(arena, bytes ? bytes : 1);
    if (copy && bytes) memcpy(copy, from, bytes);
    return copy;
}

static trn_status read_keys(raster_source *source, trn_arena *arena, trn_error *err)
{
    trn_georef *georef = &source->georef;
    TIFF *tiff = source->tiff.handle;
    uint16_t count, *keys;
    double *doubles;
    char *ascii;
    if (!TIFFGetField(tiff, TRN_TIFF_GEO_KEYS, &count, &keys) || count < 4 || !keys) return TRN_OK;
    georef->keys = copy_array(arena, keys, count * sizeof *keys);
    georef->key_count = count;
    if (!georef->keys) goto no_memory;
    georef->has_crs = true;
    if (TIFFGetField(tiff, TRN_TIFF_GEO_DOUBLES, &count, &doubles) && count && doubles) {
        georef->double_params = copy_array(arena, doubles, count * sizeof *doubles);
        georef->double_count = count;
        if (!georef->double_params) goto no_memory;
    }
    if (TIFFGetField(tiff, TRN_TIFF_GEO_ASCII, &ascii) && ascii && strlen(ascii) < MAX_ASCII) {
        georef->ascii_params = trn_arena_strdup(arena, ascii);
        if (!georef->ascii_params) goto no_memory;
    }
    int code = georef_key(georef, KEY_PROJECTED);
    if (code <= 0 || code == 32767) code = georef_key(georef, KEY_GEOGRAPHIC);
    georef->epsg = code > 0 && code < 32767 ? code : 0;
    return TRN_OK;
no_memory:
    return trn_fail_memory(err, count * sizeof *doubles, "the CRS of a file");
}

trn_status georef_read(raster_source *source, trn_arena *arena, trn_error *err)
{
    trn_status status = read_keys(source, arena, err);
    if (status != TRN_OK) return status;
    trn_georef *georef = &source->georef;
    double *gt = georef->transform;
    georef->has_transform = read_transform(source->tiff.handle, gt);
    if (!georef->has_transform) {
        const double identity[6] = {0, 1, 0, 0, 0, 1};
        memcpy(gt, identity, sizeof identity);
    } else if (trn_georef_is_point(georef)) {
        gt[0] -= 0.5 * (gt[1] + gt[2]);
        gt[3] -= 0.5 * (gt[4] + gt[5]);
    }
    return TRN_OK;
}

static bool same_bytes(const void *a, size_t a_size, const void *b, size_t b_size)
{
    return a_size == b_size && (!a_size || !memcmp(a, b, a_size));
}

static bool same_crs(const trn_georef *a, const trn_georef *b)
{
    if (a->epsg && b->epsg) return a->epsg == b->epsg;
    const char *x = a->ascii_params ? a->ascii_params : "", *y = b->ascii_params ? b->ascii_params : "";
    return same_bytes(a->keys, a->key_count * sizeof *a->keys, b->keys, b->key_count * sizeof *b->keys) &&
           same_bytes(a->double_params, a->double_count * sizeof(double), b->double_params,
                      b->double_count * sizeof(double)) &&
           !strcmp(x, y);
}

bool trn_georef_agrees(const trn_georef *a, const trn_georef *b, int64_t width, int64_t height,
                       const char **difference)
{
    *difference = "CRS";
    if (a->has_crs != b->has_crs || (a->has_crs && !same_crs(a, b))) return false;
    *difference = "geotransforms";
    if (a->has_transform != b->has_transform) return false;
    if (!a->has_transform) return true;
    const double *p = a->transform, *q = b->transform;
    double pixel = fmax(fabs(p[1]) + fabs(p[2]), fabs(p[4]) + fabs(p[5])), w = (double)width,
           h = (double)height;
    for (int i = 0; i < 6; i += 3) {
        double apart = fabs(p[i] - q[i]) + w * fabs(p[i + 1] - q[i + 1]) + h * fabs(p[i + 2] - q[i + 2]);
        if (!(apart <= 0.01 * pixel)) return false;
    }
    return true;
}
