/* Small GeoTIFFs for tests. */
#include "test_support.h"
#include "test_raster.h"
#include "raster.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tiffio.h>

double test_raster_texture(int band, int x, int y)
{
    /* three regions: fine stripes, coarse waves, noise */
    double wave = 0.5 + 0.4 * sin(0.11 * x + 0.07 * y + band);
    double stripes = (x + y) % 4 < 2 ? 0.2 : 0.8;
    double noise =
        (double)(trn_splitmix64((uint64_t)x * 7919 + (uint64_t)y * 104729 + (uint64_t)band) % 1000) / 1000;
    int region = (x / 40 + y / 40) % 3;
    return region == 0 ? wave : region == 1 ? stripes : noise;
}

static void put(const test_raster *raster, uint8_t *at, double value)
{
    static const double usual[] = {255, 10000, 1};
    double scaled = value * (raster->scale != 0 ? raster->scale : usual[raster->type]);
    float f32 = (float)scaled;
    uint16_t u16 = isnan(scaled) || raster->type == TEST_RASTER_F32 ? 0 : (uint16_t)scaled;
    if (raster->type == TEST_RASTER_F32)
        memcpy(at, &f32, sizeof f32);
    else if (raster->type == TEST_RASTER_U16)
        memcpy(at, &u16, sizeof u16);
    else
        *at = (uint8_t)u16;
}

static void set_georeference(TIFF *tiff)
{
    const double scale[3] = {TEST_RASTER_PIXEL, TEST_RASTER_PIXEL, 0};
    const double tie[6] = {0, 0, 0, TEST_RASTER_EAST, TEST_RASTER_NORTH, 0};
    const uint16_t keys[] = {1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, TEST_RASTER_EPSG};
    TIFFSetField(tiff, TRN_TIFF_PIXEL_SCALE, 3, scale);
    TIFFSetField(tiff, TRN_TIFF_TIEPOINTS, 6, tie);
    TIFFSetField(tiff, TRN_TIFF_GEO_KEYS, (int)TRN_COUNT(keys), keys);
}

void test_raster_write(const char *path, const test_raster *raster)
{
    static const uint16_t bits[] = {8, 16, 32};
    trn_tiff file;
    trn_error err = {0};
    assert_trn_ok(trn_tiff_open(&file, path, "w", &err), err);
    TIFF *tiff = file.handle;
    TIFFSetField(tiff, TIFFTAG_IMAGEWIDTH, (uint32_t)raster->width);
    TIFFSetField(tiff, TIFFTAG_IMAGELENGTH, (uint32_t)raster->height);
    TIFFSetField(tiff, TIFFTAG_SAMPLESPERPIXEL, (uint16_t)raster->bands);
    TIFFSetField(tiff, TIFFTAG_BITSPERSAMPLE, bits[raster->type]);
    TIFFSetField(tiff, TIFFTAG_SAMPLEFORMAT,
                 (uint16_t)(raster->type == TEST_RASTER_F32 ? SAMPLEFORMAT_IEEEFP : SAMPLEFORMAT_UINT));
    TIFFSetField(tiff, TIFFTAG_PLANARCONFIG, (uint16_t)PLANARCONFIG_CONTIG);
    TIFFSetField(tiff, TIFFTAG_PHOTOMETRIC, (uint16_t)PHOTOMETRIC_MINISBLACK);
    TIFFSetField(tiff, TIFFTAG_ROWSPERSTRIP, (uint32_t)16);
    if (raster->nodata) TIFFSetField(tiff, TRN_TIFF_GDAL_NODATA, raster->nodata);
    set_georeference(tiff);
    size_t size = bits[raster->type] / 8u;
    uint8_t *row = malloc((size_t)raster->width * (size_t)raster->bands * size);
    assert_non_null(row);
    for (int y = 0; y < raster->height; y++) {
        for (int x = 0; x < raster->width; x++)
            for (int b = 0; b < raster->bands; b++)
                put(raster, row + (size_t)(x * raster->bands + b) * size,
                    raster->value ? raster->value(b, x, y) : test_raster_texture(b, x, y));
        assert_int_equal(TIFFWriteScanline(tiff, row, (uint32_t)y, 0), 1);
    }
    free(row);
    trn_tiff_close(&file);
}
