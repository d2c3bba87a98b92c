/* Small GeoTIFFs for tests: EPSG:32633, 10 m pixels, values by a rule. */
#ifndef TEST_RASTER_H
#define TEST_RASTER_H

#include <stdint.h>

typedef enum test_raster_type { TEST_RASTER_U8, TEST_RASTER_U16, TEST_RASTER_F32 } test_raster_type;

typedef struct test_raster {
    int width, height, bands;
    test_raster_type type;
    const char *nodata; /* GDAL_NODATA text, or NULL */
    double scale;       /* 0: values fill the type's usual range (bytes 0..255, reflectance * 10000, 0..1) */
    /* value in 0..1 of a pixel; NULL: a texture that differs from place to place and band to band. NAN:
     * written as it is in F32, as 0 in the others. */
    double (*value)(int band, int x, int y);
} test_raster;

/* Origin of every test scene: (500000, 5000000), top left. */
enum {
    TEST_RASTER_EPSG = 32633,
    TEST_RASTER_PIXEL = 10,
    TEST_RASTER_EAST = 500000,
    TEST_RASTER_NORTH = 5000000
};

/* Fails the test when the file cannot be written. */
void test_raster_write(const char *path, const test_raster *raster);
double test_raster_texture(int band, int x, int y);

#endif
