/* Scenes: every sample type, layout and compression reads back exactly; windows reflect; hostile files are
 * refused. */
#include "test_support.h"
#include "raster_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <jpeglib.h>
#include <png.h>
#include <tiffio.h>

typedef struct layout {
    int width, height, samples;
    uint16_t bits, format, compression, planar, predictor;
    int tile, rows_per_strip; /* tile 0: strips */
    const char *mode;         /* "w", "w8", "wb" big endian, "wl" */
    const char *metadata, *nodata;
} layout;

/* A value that every type holds exactly. */
static double pixel_value(int band, int x, int y)
{
    return (band * 31 + x * 3 + y * 7) % 120;
}

static void put_sample(const layout *l, void *at, double value)
{
    uint8_t u8 = (uint8_t)value;
    uint16_t u16 = (uint16_t)value;
    uint32_t u32 = (uint32_t)value;
    float f32 = (float)value;
    if (l->format == SAMPLEFORMAT_IEEEFP && l->bits == 16) {
        u16 = trn_f32_to_f16(f32);
        memcpy(at, &u16, 2);
    } else if (l->format == SAMPLEFORMAT_IEEEFP && l->bits == 32) {
        memcpy(at, &f32, 4);
    } else if (l->format == SAMPLEFORMAT_IEEEFP) {
        memcpy(at, &value, 8);
    } else if (l->bits == 8) {
        memcpy(at, &u8, 1);
    } else if (l->bits == 16) {
        memcpy(at, &u16, 2);
    } else {
        memcpy(at, &u32, 4);
    }
}

static void fill_block(const layout *l, uint8_t *block, int plane, int x0, int y0, int w, int h)
{
    int samples = l->planar == PLANARCONFIG_SEPARATE ? 1 : l->samples;
    size_t size = l->bits / 8;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            for (int s = 0; s < samples; s++)
                put_sample(l, block + ((size_t)(y * w + x) * (size_t)samples + (size_t)s) * size,
                           pixel_value(plane + s, x0 + x, y0 + y));
}

static TIFF *start_tiff(const char *path, const layout *l)
{
    trn_tiff opened;
    trn_error err = {0};
    assert_trn_ok(trn_tiff_open(&opened, path, l->mode ? l->mode : "w", &err), err);
    trn_tiff_close(
        &opened); /* registers the geo tags; the file is opened again without handlers of our own */
    TIFF *tiff = TIFFOpen(path, l->mode ? l->mode : "w");
    assert_non_null(tiff);
    TIFFSetField(tiff, TIFFTAG_IMAGEWIDTH, (uint32_t)l->width);
    TIFFSetField(tiff, TIFFTAG_IMAGELENGTH, (uint32_t)l->height);
    TIFFSetField(tiff, TIFFTAG_SAMPLESPERPIXEL, (uint16_t)l->samples);
    TIFFSetField(tiff, TIFFTAG_BITSPERSAMPLE, l->bits);
    TIFFSetField(tiff, TIFFTAG_SAMPLEFORMAT, l->format);
    TIFFSetField(tiff, TIFFTAG_PLANARCONFIG, l->planar);
    TIFFSetField(tiff, TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_MINISBLACK);
    TIFFSetField(tiff, TIFFTAG_COMPRESSION, l->compression);
    if (l->predictor) TIFFSetField(tiff, TIFFTAG_PREDICTOR, l->predictor);
    if (l->tile) {
        TIFFSetField(tiff, TIFFTAG_TILEWIDTH, (uint32_t)l->tile);
        TIFFSetField(tiff, TIFFTAG_TILELENGTH, (uint32_t)l->tile);
    } else {
        TIFFSetField(tiff, TIFFTAG_ROWSPERSTRIP, (uint32_t)l->rows_per_strip);
    }
    if (l->metadata) TIFFSetField(tiff, TRN_TIFF_GDAL_METADATA, l->metadata);
    if (l->nodata) TIFFSetField(tiff, TRN_TIFF_GDAL_NODATA, l->nodata);
    return tiff;
}

static void write_tiff(const char *path, const layout *l)
{
    TIFF *tiff = start_tiff(path, l);
    int planes = l->planar == PLANARCONFIG_SEPARATE ? l->samples : 1;
    int bw = l->tile ? l->tile : l->width, bh = l->tile ? l->tile : l->rows_per_strip;
    uint8_t *block = calloc((size_t)(bw * bh), (size_t)l->samples * 8);
    assert_non_null(block);
    uint32_t number = 0;
    for (int p = 0; p < planes; p++) {
        for (int y = 0; y < l->height; y += bh) {
            for (int x = 0; x < l->width; x += bw, number++) {
                int h = l->tile ? bh : TRN_MIN(bh, l->height - y);
                fill_block(l, block, p, x, y, bw, h);
                tmsize_t size = (tmsize_t)bw * h * (l->bits / 8) * (planes > 1 ? 1 : l->samples);
                assert_true((l->tile ? TIFFWriteEncodedTile(tiff, number, block, size)
                                     : TIFFWriteEncodedStrip(tiff, number, block, size)) >= 0);
            }
        }
    }
    free(block);
    TIFFClose(tiff);
}

static trn_scene *open_scene(const char *path, const trn_scene_options *options)
{
    trn_scene *scene;
    trn_error err = {0};
    assert_trn_ok(trn_scene_open(&path, 1, options, &scene, &err), err);
    return scene;
}

static int mirror(int p, int n)
{
    while (p < 0 || p >= n)
        p = n == 1 ? 0 : p < 0 ? -p : 2 * (n - 1) - p;
    return p;
}

static void check_window(trn_scene *scene, int x0, int y0, int w, int h)
{
    const trn_scene_info *info = trn_scene_get_info(scene);
    int bands[2] = {(int)info->band_count - 1, 0};
    trn_error err = {0};
    float *out = malloc((size_t)(2 * w * h) * sizeof *out);
    uint8_t *valid = malloc((size_t)(w * h));
    assert_true(out && valid);
    assert_trn_ok(trn_scene_read(scene, bands, 2, x0, y0, w, h, out, valid, &err), err);
    for (int b = 0; b < 2; b++) {
        for (int i = 0; i < w * h; i++) {
            int x = mirror(x0 + i % w, (int)info->width), y = mirror(y0 + i / w, (int)info->height);
            double wanted = pixel_value(bands[b], x, y);
            if ((double)out[b * w * h + i] != wanted || !valid[i])
                fail_msg("band %d at %d,%d: %g, not %g", bands[b], x, y, (double)out[b * w * h + i], wanted);
        }
    }
    free(out);
    free(valid);
}

static void every_layout_reads_back(void **state)
{
    (void)state;
    static const struct {
        uint16_t format, bits;
    } types[] = {{SAMPLEFORMAT_UINT, 8},    {SAMPLEFORMAT_UINT, 16},   {SAMPLEFORMAT_UINT, 32},
                 {SAMPLEFORMAT_INT, 8},     {SAMPLEFORMAT_INT, 16},    {SAMPLEFORMAT_INT, 32},
                 {SAMPLEFORMAT_IEEEFP, 16}, {SAMPLEFORMAT_IEEEFP, 32}, {SAMPLEFORMAT_IEEEFP, 64}};
    static const uint16_t codecs[] = {COMPRESSION_NONE, COMPRESSION_LZW, COMPRESSION_ADOBE_DEFLATE,
                                      COMPRESSION_PACKBITS, COMPRESSION_ZSTD};
    static const char *const modes[] = {"w", "wb", "w8"};
    char *path = test_path(test_temp_dir(), "a.tif");
    int cases = 0;
    for (size_t t = 0; t < TRN_COUNT(types); t++) {
        for (size_t c = 0; c < TRN_COUNT(codecs); c++) {
            for (int shape = 0; shape < 4; shape++) {
                if (!TIFFIsCODECConfigured(codecs[c])) continue;
                layout l = {.width = 37,
                            .height = 29,
                            .samples = 3,
                            .bits = types[t].bits,
                            .format = types[t].format};
                l.compression = codecs[c];
                l.planar = shape & 1 ? PLANARCONFIG_SEPARATE : PLANARCONFIG_CONTIG;
                l.tile = shape & 2 ? 16 : 0;
                l.rows_per_strip = 5;
                l.mode = modes[(t + c + (size_t)shape) % TRN_COUNT(modes)];
                if (c && codecs[c] != COMPRESSION_PACKBITS)
                    l.predictor = l.format == SAMPLEFORMAT_IEEEFP ? 3 : l.bits < 64 ? 2 : 1;
                /* libtiff swaps floats before predictor 3 when it writes foreign byte order: such a file is
                 * wrong */
                if (l.predictor == 3 && !strcmp(l.mode, "wb")) l.mode = "w";
                write_tiff(path, &l);
                trn_scene *scene = open_scene(path, NULL);
                assert_int_equal(trn_scene_get_info(scene)->band_count, 3);
                check_window(scene, 0, 0, 37, 29);
                check_window(scene, 15, 3, 9, 14);
                check_window(scene, -9, -5, 30, 30);
                check_window(scene, 30, 20, 100, 90);
                trn_scene_close(scene);
                cases++;
            }
        }
    }
    assert_true(cases >= 9 * 4 * 4);
    free(path);
}

static void scenes_of_one_pixel_reflect(void **state)
{
    (void)state;
    char *path = test_path(test_temp_dir(), "a.tif");
    for (int w = 1; w < 4; w++) {
        layout l = {.width = w,
                    .height = 1,
                    .samples = 1,
                    .bits = 16,
                    .format = SAMPLEFORMAT_UINT,
                    .rows_per_strip = 1};
        l.compression = COMPRESSION_NONE;
        l.planar = PLANARCONFIG_CONTIG;
        write_tiff(path, &l);
        trn_scene *scene = open_scene(path, NULL);
        check_window(scene, -20, -20, 41, 41);
        check_window(scene, 100, 50, 3, 3);
        trn_scene_close(scene);
    }
    free(path);
}

static void metadata_scales_and_names(void **state)
{
    (void)state;
    char *path = test_path(test_temp_dir(), "scene.tif");
    layout l = {.width = 8,
                .height = 4,
                .samples = 2,
                .bits = 16,
                .format = SAMPLEFORMAT_UINT,
                .rows_per_strip = 4,
                .compression = COMPRESSION_NONE,
                .planar = PLANARCONFIG_CONTIG,
                .nodata = "7 ",
                .metadata =
                    "<GDALMetadata>\n<Item name=\"SCALE\" sample=\"0\" role=\"scale\">0.5</Item>\n"
                    "<Item name=\"OFFSET\" sample=\"0\" role='offset'>-1</Item>"
                    "<Item name=\"DESCRIPTION\" sample=\"0\" role=\"description\">a &lt;b&gt; &amp;c</Item>"
                    "<Item name=\"DESCRIPTION\" sample=\"1\" role=\"description\">B04</Item>"
                    "<Item sample=\"77\" role=\"scale\">9</Item><Item sample=\"1\" role=\"scale\">x</Item>"
                    "<Item role=\"scale\"</GDALMetadata>"};
    write_tiff(path, &l);
    trn_scene *scene = open_scene(path, NULL);
    const trn_scene_info *info = trn_scene_get_info(scene);
    assert_string_equal(info->name, "scene");
    assert_string_equal(info->bands[0].name, "a <b> &c");
    assert_string_equal(info->bands[1].name, "B04");
    assert_true(info->bands[0].scale == 0.5 && info->bands[0].offset == -1 && info->bands[1].scale == 1);
    assert_true(info->bands[1].has_nodata && info->bands[1].nodata == 7);
    float out[16];
    uint8_t valid[8];
    trn_error err = {0};
    assert_trn_ok(trn_scene_read(scene, (int[]){0, 1}, 2, 0, 1, 8, 1, out, valid, &err), err);
    for (int x = 0; x < 8; x++) {
        double raw = pixel_value(0, x, 1);
        assert_int_equal(valid[x], raw != 7 && pixel_value(1, x, 1) != 7);
        assert_true((double)out[x] == (valid[x] ? raw * 0.5 - 1 : 0));
        if (!valid[x]) assert_true(out[8 + x] == 0);
    }
    assert_int_equal(valid[0], 0); /* 0*3 + 1*7 */
    trn_scene_close(scene);

    trn_scene_options options = {.has_nodata = true, .nodata = 10};
    scene = open_scene(path, &options);
    assert_trn_ok(trn_scene_read(scene, (int[]){0}, 1, 0, 1, 2, 1, out, valid, &err), err);
    assert_int_equal(valid[0], 1);
    assert_int_equal(valid[1], 0);
    trn_scene_close(scene);
    free(path);
}

static void nan_is_no_data(void **state)
{
    (void)state;
    char *path = test_path(test_temp_dir(), "f.tif");
    layout l = {.width = 4,
                .height = 1,
                .samples = 1,
                .bits = 32,
                .format = SAMPLEFORMAT_IEEEFP,
                .rows_per_strip = 1,
                .compression = COMPRESSION_NONE,
                .planar = PLANARCONFIG_CONTIG,
                .nodata = "-3.4028234663852886e+38"};
    TIFF *tiff = start_tiff(path, &l);
    float values[4] = {NAN, INFINITY, -3.4028234663852886e+38f, 2};
    assert_true(TIFFWriteEncodedStrip(tiff, 0, values, sizeof values) > 0);
    TIFFClose(tiff);
    trn_scene *scene = open_scene(path, NULL);
    float out[4];
    uint8_t valid[4];
    trn_error err = {0};
    assert_trn_ok(trn_scene_read(scene, (int[]){0}, 1, 0, 0, 4, 1, out, valid, &err), err);
    assert_memory_equal(valid, ((uint8_t[]){0, 0, 0, 1}), 4);
    assert_memory_equal(out, ((float[]){0, 0, 0, 2}), sizeof out);
    assert_trn_ok(trn_scene_read(scene, (int[]){0}, 1, 0, 0, 4, 1, out, NULL, &err), err);
    assert_memory_equal(out, ((float[]){0, 0, 0, 2}), sizeof out);
    assert_trn_fails(trn_scene_read(scene, (int[]){1}, 1, 0, 0, 4, 1, out, NULL, &err), TRN_ERR_ARGUMENT, err,
                     "band 1");
    assert_trn_fails(trn_scene_read(scene, (int[]){0}, 1, 0, 0, 0, 1, out, NULL, &err), TRN_ERR_ARGUMENT, err,
                     "window");
    trn_scene_close(scene);
    free(path);
}

static void write_named(const char *dir, const char *name, int samples, char **path)
{
    layout l = {.width = 9,
                .height = 9,
                .samples = samples,
                .bits = 16,
                .format = SAMPLEFORMAT_UINT,
                .rows_per_strip = 9,
                .compression = COMPRESSION_NONE,
                .planar = PLANARCONFIG_CONTIG};
    *path = test_path(dir, name);
    write_tiff(*path, &l);
}

static void sensors_name_bands(void **state)
{
    (void)state;
    char *dir = test_temp_dir(), *six, *five, *red, *nir;
    trn_error err = {0};
    write_named(dir, "six.tif", 6, &six);
    write_named(dir, "five.tif", 5, &five);
    write_named(dir, "LC08_L2SP_123_SR_B4.TIF", 1, &red);
    write_named(dir, "LC08_L2SP_123_SR_B5.TIF", 1, &nir);
    trn_scene_options options = {.sensor = trn_sensor_find("landsat7", NULL)};
    trn_scene *scene = open_scene(six, &options);
    assert_string_equal(trn_scene_get_info(scene)->bands[5].name, "B7");
    assert_int_equal(trn_scene_find_band(scene, "swir22", &err), 5);
    assert_int_equal(trn_scene_find_band(scene, "red", &err), 2);
    assert_int_equal(trn_scene_find_band(scene, "B6", &err), -1);
    assert_trn_fails(err.code, TRN_ERR_ARGUMENT, err, "it has B1, B2, B3, B4, B5, B7");
    trn_scene_close(scene);
    scene = open_scene(five, &options);
    assert_string_equal(trn_scene_get_info(scene)->bands[4].name, "5");
    trn_scene_close(scene);

    options = (trn_scene_options){.sensor = trn_sensor_find("l8-sr", NULL)};
    const char *two[] = {nir, red};
    assert_trn_ok(trn_scene_open(two, 2, &options, &scene, &err), err);
    assert_string_equal(trn_scene_get_info(scene)->bands[0].name, "SR_B5");
    assert_int_equal(trn_scene_find_band(scene, "red", &err), 1);
    assert_string_equal(trn_scene_get_info(scene)->bands[1].file, red);
    trn_scene_close(scene);

    const char *names[] = {"red", "NIR_NARROW", "x"};
    options = (trn_scene_options){.band_names = names, .band_name_count = 2};
    assert_trn_ok(trn_scene_open(two, 2, &options, &scene, &err), err);
    assert_int_equal(trn_scene_find_band(scene, "nir08", &err), 1);
    trn_scene_close(scene);
    options.band_name_count = 3;
    assert_trn_fails(trn_scene_open(two, 2, &options, &scene, &err), TRN_ERR_ARGUMENT, err, "3 band names");
    names[1] = "RED";
    options.band_name_count = 2;
    assert_trn_fails(trn_scene_open(two, 2, &options, &scene, &err), TRN_ERR_ARGUMENT, err, "two bands");
    free(six), free(five), free(red), free(nir);
}

/* The names that files and descriptions give, in ways that products have. */
static void products_name_bands(void **state)
{
    (void)state;
    char *dir = test_temp_dir(), *nir, *red, *stacked = test_path(dir, "stack.tif");
    trn_error err = {0};
    trn_scene *scene;
    write_named(dir, "HLS.S30.T13TEF.2020181T174911.v2.0.B8A.tif", 1, &nir);
    write_named(dir, "HLS.S30.T13TEF.2020181T174911.v2.0.B05.tif", 1, &red);
    const char *two[] = {nir, red};
    trn_scene_options options = {.sensor = trn_sensor_find("hls-s30", &err)};
    assert_trn_ok(trn_scene_open(two, 2, &options, &scene, &err), err);
    assert_string_equal(trn_scene_get_info(scene)->bands[0].name, "B8A");
    assert_int_equal(trn_scene_find_band(scene, "rededge1", &err), 1);
    trn_scene_close(scene);
    layout l = {.width = 9,
                .height = 9,
                .samples = 2,
                .bits = 16,
                .format = SAMPLEFORMAT_UINT,
                .rows_per_strip = 9,
                .compression = COMPRESSION_NONE,
                .planar = PLANARCONFIG_CONTIG,
                .metadata = "<Item sample=\"0\" role=\"description\">B8, central wavelength 842 nm</Item>"
                            "<Item sample=\"1\" role=\"description\">B4, central wavelength 665 nm</Item>"};
    write_tiff(stacked, &l);
    options.sensor = trn_sensor_find("s2", &err);
    scene = open_scene(stacked, &options);
    assert_int_equal(trn_scene_find_band(scene, "nir", &err), 0);
    assert_int_equal(trn_scene_find_band(scene, "red", &err), 1);
    trn_scene_close(scene);
    free(nir), free(red), free(stacked);
}

/* Four byte bands, the fourth called alpha: 0 at x = 3, else 200. */
static void write_alpha(const char *path, uint16_t planar, int tile)
{
    layout l = {.width = 40,
                .height = 20,
                .samples = 4,
                .bits = 8,
                .format = SAMPLEFORMAT_UINT,
                .rows_per_strip = 7,
                .tile = tile,
                .compression = COMPRESSION_ADOBE_DEFLATE,
                .planar = planar};
    TIFF *tiff = start_tiff(path, &l);
    TIFFSetField(tiff, TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_RGB);
    TIFFSetField(tiff, TIFFTAG_EXTRASAMPLES, 1, (uint16_t[]){EXTRASAMPLE_UNASSALPHA});
    int planes = planar == PLANARCONFIG_SEPARATE ? 4 : 1, samples = 4 / planes;
    int w = tile ? tile : l.width, h = tile ? tile : l.rows_per_strip, across = (l.width + w - 1) / w;
    int down = (l.height + h - 1) / h;
    uint8_t *block = malloc((size_t)(w * h * samples));
    for (int i = 0; i < planes * across * down; i++) {
        int x0 = i % across * w, y0 = i / across % down * h, plane = i / (across * down);
        fill_block(&l, block, plane, x0, y0, w, h);
        for (int p = 0; p < w * h && plane + samples == 4; p++)
            block[p * samples + samples - 1] = x0 + p % w == 3 ? 0 : 200;
        tmsize_t size = (tmsize_t)w * (tile ? h : TRN_MIN(h, l.height - y0)) * samples;
        assert_true((tile ? TIFFWriteEncodedTile(tiff, (uint32_t)i, block, size)
                          : TIFFWriteEncodedStrip(tiff, (uint32_t)i, block, size)) == size);
    }
    free(block);
    TIFFClose(tiff);
}

static void check_alpha(const char *path, const trn_scene_options *options, size_t bands)
{
    trn_scene *scene = open_scene(path, options);
    trn_error err = {0};
    float out[3 * 40 * 20];
    uint8_t valid[40 * 20];
    assert_int_equal(trn_scene_get_info(scene)->band_count, bands);
    assert_trn_ok(trn_scene_read(scene, (int[]){0, 1, 2}, 3, -2, 0, 40, 20, out, valid, &err), err);
    for (int i = 0; i < 40 * 20; i++) {
        int x = abs(i % 40 - 2), y = i / 40;
        bool hidden = bands == 3 && x == 3;
        assert_int_equal(valid[i], !hidden);
        assert_true((double)out[2 * 800 + i] == (hidden ? 0 : pixel_value(2, x, y)));
    }
    trn_scene_close(scene);
}

static void alpha_of_tiffs_hides_when_it_is_no_band(void **state)
{
    (void)state;
    char *path = test_path(test_temp_dir(), "alpha.tif");
    static const char *const names[] = {"red", "green", "blue", "nir"};
    const trn_scene_options none = {0}, rgb = {.sensor = trn_sensor_find("rgb", NULL)},
                            naip = {.sensor = trn_sensor_find("naip", NULL)},
                            three = {.band_names = names, .band_name_count = 3},
                            four = {.band_names = names, .band_name_count = 4};
    for (int i = 0; i < 4; i++) {
        write_alpha(path, i & 1 ? PLANARCONFIG_SEPARATE : PLANARCONFIG_CONTIG, i & 2 ? 16 : 0);
        check_alpha(path, &rgb, 3);
        check_alpha(path, &three, 3);
        check_alpha(path, &none, 4);
        check_alpha(path, &naip, 4);
        check_alpha(path, &four, 4);
    }
    free(path);
}

/* A byte image and after it a mask directory, 0 where x is 5; a damaged one has more bands than masks have.
 */
static void write_masked(const char *path, uint16_t bits, bool damaged)
{
    enum { W = 21, H = 6 };
    layout l = {.width = W,
                .height = H,
                .samples = 1,
                .bits = 8,
                .format = SAMPLEFORMAT_UINT,
                .rows_per_strip = 4,
                .compression = COMPRESSION_NONE,
                .planar = PLANARCONFIG_CONTIG};
    TIFF *tiff = start_tiff(path, &l);
    uint8_t row[2 * W];
    for (int y = 0; y < H; y++) {
        fill_block(&l, row, 0, 0, y, W, 1);
        assert_int_equal(TIFFWriteScanline(tiff, row, (uint32_t)y, 0), 1);
    }
    assert_int_equal(TIFFWriteDirectory(tiff), 1);
    TIFFSetField(tiff, TIFFTAG_SUBFILETYPE, FILETYPE_MASK);
    TIFFSetField(tiff, TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_MASK);
    TIFFSetField(tiff, TIFFTAG_IMAGEWIDTH, (uint32_t)W);
    TIFFSetField(tiff, TIFFTAG_IMAGELENGTH, (uint32_t)H);
    TIFFSetField(tiff, TIFFTAG_BITSPERSAMPLE, bits);
    TIFFSetField(tiff, TIFFTAG_SAMPLESPERPIXEL, damaged ? 2 : 1);
    TIFFSetField(tiff, TIFFTAG_PLANARCONFIG, PLANARCONFIG_CONTIG);
    TIFFSetField(tiff, TIFFTAG_COMPRESSION, COMPRESSION_PACKBITS);
    TIFFSetField(tiff, TIFFTAG_ROWSPERSTRIP, (uint32_t)4);
    memset(row, 255, sizeof row);
    if (bits == 1)
        row[0] = 0xfb; /* the sixth bit */
    else
        row[5] = 0;
    for (int y = 0; y < H; y++)
        assert_int_equal(TIFFWriteScanline(tiff, row, (uint32_t)y, 0), 1);
    TIFFClose(tiff);
}

static void masks_of_tiffs_hide(void **state)
{
    (void)state;
    char *path = test_path(test_temp_dir(), "masked.tif");
    trn_error err = {0};
    for (uint16_t bits = 1; bits <= 8; bits += 7) {
        write_masked(path, bits, false);
        trn_scene *scene = open_scene(path, NULL);
        float out[21 * 6];
        uint8_t valid[21 * 6];
        assert_trn_ok(trn_scene_read(scene, (int[]){0}, 1, 0, 0, 21, 6, out, valid, &err), err);
        for (int i = 0; i < 21 * 6; i++) {
            assert_int_equal(valid[i], i % 21 != 5);
            assert_true((double)out[i] == (i % 21 == 5 ? 0 : pixel_value(0, i % 21, i / 21)));
        }
        trn_scene_close(scene);
    }
    /* the same beside a file: its first directory is the mask */
    char *dir = test_temp_dir(), *plain = test_path(dir, "plain.tif"),
         *beside = test_path(dir, "plain.tif.msk");
    layout l = {.width = 8,
                .height = 4,
                .samples = 2,
                .bits = 16,
                .format = SAMPLEFORMAT_UINT,
                .rows_per_strip = 4,
                .compression = COMPRESSION_NONE,
                .planar = PLANARCONFIG_CONTIG};
    write_tiff(plain, &l);
    layout m = l;
    m.samples = 1;
    m.bits = 8;
    write_tiff(beside, &m);
    trn_scene *scene = open_scene(plain, NULL);
    float out[2 * 32];
    uint8_t valid[32];
    assert_trn_ok(trn_scene_read(scene, (int[]){0, 1}, 2, 0, 0, 8, 4, out, valid, &err), err);
    for (int i = 0; i < 32; i++)
        assert_int_equal(valid[i], pixel_value(0, i % 8, i / 8) != 0);
    trn_scene_close(scene);
    m.width = 9;
    write_tiff(beside, &m);
    assert_trn_fails(trn_scene_open((const char *[]){plain}, 1, NULL, &scene, &err), TRN_ERR_FORMAT, err,
                     "another size");
    free(plain), free(beside);
    write_masked(path, 8, true);
    assert_trn_fails(trn_scene_open((const char *[]){path}, 1, NULL, &scene, &err), TRN_ERR_UNSUPPORTED, err,
                     "mask");
    free(path);
}

static void write_placed(const char *path, int width, double x, uint16_t epsg, bool point, bool matrix)
{
    layout l = {.width = width,
                .height = 9,
                .samples = 1,
                .bits = 16,
                .format = SAMPLEFORMAT_UINT,
                .rows_per_strip = 9,
                .compression = COMPRESSION_NONE,
                .planar = PLANARCONFIG_CONTIG};
    TIFF *tiff = start_tiff(path, &l);
    double scale[3] = {10, 20, 0}, tie[6] = {0, 0, 0, x, 5000, 0};
    double m[16] = {10, 1, 0, x, 2, -20, 0, 5000, 0, 0, 0, 0, 0, 0, 0, 1};
    uint16_t keys[] = {1, 1, 0, 2, 1025, 0, 1, point ? 2 : 1, 3072, 0, 1, epsg};
    if (matrix) TIFFSetField(tiff, TRN_TIFF_TRANSFORMATION, 16, m);
    if (!matrix) TIFFSetField(tiff, TRN_TIFF_PIXEL_SCALE, 3, scale);
    if (!matrix) TIFFSetField(tiff, TRN_TIFF_TIEPOINTS, 6, tie);
    TIFFSetField(tiff, TRN_TIFF_GEO_KEYS, 12, keys);
    uint16_t values[128] = {0};
    assert_true(TIFFWriteEncodedStrip(tiff, 0, values, width * 9 * 2) > 0);
    TIFFClose(tiff);
}

static void georeference_is_read_and_compared(void **state)
{
    (void)state;
    char *dir = test_temp_dir(), *a = test_path(dir, "a.tif"), *b = test_path(dir, "b.tif");
    const char *both[] = {a, b};
    trn_scene *scene;
    trn_error err = {0};
    write_placed(a, 9, 1000, 32633, false, false);
    scene = open_scene(a, NULL);
    const trn_georef *georef = &trn_scene_get_info(scene)->georef;
    assert_true(georef->has_crs && georef->has_transform);
    assert_int_equal(georef->epsg, 32633);
    assert_memory_equal(georef->transform, ((double[6]){1000, 10, 0, 5000, 0, -20}), sizeof(double[6]));
    trn_scene_close(scene);

    write_placed(b, 9, 1000, 32633, true, false);
    scene = open_scene(b, NULL);
    assert_memory_equal(trn_scene_get_info(scene)->georef.transform, ((double[6]){995, 10, 0, 5010, 0, -20}),
                        sizeof(double[6]));
    trn_scene_close(scene);
    assert_trn_fails(trn_scene_open(both, 2, NULL, &scene, &err), TRN_ERR_ARGUMENT, err, "geotransforms");

    write_placed(b, 9, 1000, 32633, false, true);
    scene = open_scene(b, NULL);
    assert_memory_equal(trn_scene_get_info(scene)->georef.transform, ((double[6]){1000, 10, 1, 5000, 2, -20}),
                        sizeof(double[6]));
    trn_scene_close(scene);

    write_placed(b, 9, 1000.01, 32633, false, false);
    assert_trn_ok(trn_scene_open(both, 2, NULL, &scene, &err), err);
    assert_int_equal(trn_scene_get_info(scene)->band_count, 2);
    trn_scene_close(scene);
    write_placed(b, 9, 1000, 32634, false, false);
    assert_trn_fails(trn_scene_open(both, 2, NULL, &scene, &err), TRN_ERR_ARGUMENT, err,
                     "b.tif' have different CRS");
    write_placed(b, 8, 1000, 32633, false, false);
    assert_trn_fails(trn_scene_open(both, 2, NULL, &scene, &err), TRN_ERR_ARGUMENT, err, "8 x 9");
    free(a), free(b);
}

static void huge_sparse_scene_reads_by_windows(void **state)
{
    (void)state;
    char *path = test_path(test_temp_dir(), "huge.tif");
    enum { SIDE = 100000, TILE = 256, ACROSS = (SIDE + TILE - 1) / TILE };
    layout l = {.width = SIDE,
                .height = SIDE,
                .samples = 1,
                .bits = 16,
                .format = SAMPLEFORMAT_UINT,
                .tile = TILE,
                .compression = COMPRESSION_ADOBE_DEFLATE,
                .planar = PLANARCONFIG_CONTIG,
                .mode = "w8",
                .nodata = "5"};
    TIFF *tiff = start_tiff(path, &l);
    static uint16_t tile[TILE * TILE];
    for (int i = 0; i < TILE * TILE; i++)
        tile[i] = (uint16_t)(1000 + i % 7);
    uint32_t far = 300u * ACROSS + 200u;
    assert_true(TIFFWriteEncodedTile(tiff, far, tile, sizeof tile) > 0);
    TIFFClose(tiff);

    trn_scene *scene = open_scene(path, NULL);
    trn_error err = {0};
    static float out[512 * 512];
    static uint8_t valid[512 * 512];
    uint64_t start = trn_now_ns();
    for (int i = 0; i < 4; i++) /* overlapping windows decode a block once */
        assert_trn_ok(trn_scene_read(scene, (int[]){0}, 1, 200 * TILE - 128 + i, 300 * TILE - 128, 512, 512,
                                     out, valid, &err),
                      err);
    assert_int_equal(scene_blocks_decoded(scene), 9);
    assert_true(valid[125 + 128 * 512] && out[125 + 128 * 512] == 1000);
    assert_false(valid[124 + 128 * 512]);
    assert_trn_ok(trn_scene_read(scene, (int[]){0}, 1, SIDE - 100, SIDE - 100, 512, 512, out, valid, &err),
                  err);
    assert_false(valid[0]);
    assert_true(trn_now_ns() - start < UINT64_C(20000000000));
    trn_scene_close(scene);
    free(path);
}

/* ---- hostile TIFFs ---- */

typedef struct bytes {
    uint8_t data[4096];
    size_t size;
} bytes;

static void put16(bytes *b, unsigned v)
{
    b->data[b->size++] = (uint8_t)v;
    b->data[b->size++] = (uint8_t)(v >> 8);
}

static void put32(bytes *b, uint32_t v)
{
    put16(b, v & 0xffff);
    put16(b, v >> 16);
}

typedef struct entry {
    uint16_t tag, type;
    uint32_t count, value;
} entry;

/* A little-endian TIFF of one directory, followed by `tail` zero bytes. */
static bytes make_tiff(const entry *entries, size_t count, uint32_t next, size_t tail)
{
    bytes b = {{0}, 0};
    put16(&b, 0x4949);
    put16(&b, 42);
    put32(&b, 8);
    put16(&b, (unsigned)count);
    for (size_t i = 0; i < count; i++) {
        put16(&b, entries[i].tag);
        put16(&b, entries[i].type);
        put32(&b, entries[i].count);
        put32(&b, entries[i].value);
    }
    put32(&b, next);
    b.size += tail;
    return b;
}

/* Opens and reads; the status of what failed first. */
static trn_status try_bytes(const void *data, size_t size, trn_error *err)
{
    trn_scene *scene;
    trn_status status = scene_open_memory("hostile.tif", data, size, NULL, &scene, err);
    if (status != TRN_OK) return status;
    float out[64];
    status = trn_scene_read(scene, (int[]){0}, 1, 0, 0, 8, 8, out, NULL, err);
    trn_scene_close(scene);
    return status;
}

enum { W, H, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, SAMPLES, ROWS, COUNTS, ENTRIES };

static void hostile_tiffs_are_refused(void **state)
{
    (void)state;
    const entry sound[ENTRIES] = {{256, 3, 1, 8}, {257, 3, 1, 8}, {258, 3, 1, 8},
                                  {259, 3, 1, 1}, {262, 3, 1, 1}, {273, 4, 1, 130},
                                  {277, 3, 1, 1}, {278, 3, 1, 8}, {279, 4, 1, 64}};
    static const struct {
        int which;
        entry with;
        trn_status status;
        const char *text;
    } cases[] = {
        {W, {256, 4, 1, 0}, TRN_ERR_FORMAT, "hostile.tif"},
        {W, {256, 4, 1, 0xffffffff}, TRN_ERR_FORMAT, "hostile.tif"},
        {H, {257, 4, 1, 0x7fffffff}, TRN_ERR_FORMAT, "hostile.tif"},
        {BITS, {258, 3, 1, 0}, TRN_ERR_FORMAT, "hostile.tif"},
        {BITS, {258, 3, 1, 12}, TRN_ERR_UNSUPPORTED, "12 bits"},
        {BITS, {258, 3, 1, 65535}, TRN_ERR_UNSUPPORTED, "bits"},
        {COMPRESSION, {259, 3, 1, 6}, TRN_ERR_UNSUPPORTED, "compression 6"},
        {COMPRESSION, {259, 3, 1, 999}, TRN_ERR_UNSUPPORTED, "compression 999"},
        {COMPRESSION, {259, 3, 1, 8}, TRN_ERR_FORMAT, "strip 0"}, /* zeros are no deflate stream */
        {OFFSETS, {273, 4, 1, 0xfffffff0}, TRN_ERR_FORMAT, "strip 0 lies beyond the end"},
        {SAMPLES, {277, 3, 1, 0}, TRN_ERR_FORMAT, "hostile.tif"},
        {SAMPLES, {277, 3, 1, 60000}, TRN_ERR_FORMAT, "strip 0"},
        {ROWS, {278, 4, 1, 0}, TRN_ERR_FORMAT, "hostile.tif"},
    };
    trn_error err = {0};
    bytes good = make_tiff(sound, ENTRIES, 0, 200);
    assert_trn_ok(try_bytes(good.data, good.size, &err), err);
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        entry entries[ENTRIES];
        memcpy(entries, sound, sizeof entries);
        entries[cases[i].which] = cases[i].with;
        bytes b = make_tiff(entries, ENTRIES, 0, 200);
        err = (trn_error){0};
        trn_status status = try_bytes(b.data, b.size, &err);
        if (status != cases[i].status || !strstr(err.message, cases[i].text))
            fail_msg("case %zu: %s: %s", i, trn_status_name(status), err.message);
    }
    /* eight strips and an index of one: the others are lost, not empty */
    entry shorter[ENTRIES];
    memcpy(shorter, sound, sizeof shorter);
    shorter[ROWS].value = 1;
    shorter[COMPRESSION].value = 8;
    bytes lost = make_tiff(shorter, ENTRIES, 0, 200);
    static const uint8_t row[] = {0x78, 0x9c, 0x63, 0x60, 0x80, 0x02, 0x00, 0x00, 0x08, 0x00, 0x01};
    memcpy(lost.data + 130, row, sizeof row); /* eight zeros, deflated */
    assert_trn_fails(try_bytes(lost.data, lost.size, &err), TRN_ERR_FORMAT, err,
                     "strip 1 is not in the file's index");
    /* a directory that names itself as the next one is read once */
    bytes loop = make_tiff(sound, ENTRIES, 8, 200);
    assert_trn_ok(try_bytes(loop.data, loop.size, &err), err);
    for (size_t cut = 0; cut < good.size; cut++) {
        trn_status status = try_bytes(good.data, cut, &err);
        if (status == TRN_OK && cut < 194) fail_msg("a file cut at %zu was read", cut);
    }
}

static void truncated_files_are_refused(void **state)
{
    (void)state;
    char *path = test_path(test_temp_dir(), "a.tif");
    layout l = {.width = 200,
                .height = 100,
                .samples = 2,
                .bits = 16,
                .format = SAMPLEFORMAT_UINT,
                .tile = 64,
                .compression = COMPRESSION_ADOBE_DEFLATE,
                .planar = PLANARCONFIG_CONTIG};
    write_tiff(path, &l);
    trn_error err = {0};
    size_t size;
    char *data = trn_read_file(path, 1 << 24, &size, &err);
    assert_non_null(data);
    float *out = malloc(200 * 100 * sizeof *out);
    for (size_t cut = 0; cut < size; cut += 97) {
        trn_scene *scene;
        if (scene_open_memory("cut.tif", (uint8_t *)data, cut, NULL, &scene, &err) != TRN_OK) continue;
        if (trn_scene_read(scene, (int[]){0}, 1, 0, 0, 200, 100, out, NULL, &err) == TRN_OK)
            fail_msg("a file of %zu of %zu bytes was read", cut, size);
        trn_scene_close(scene);
    }
    assert_int_equal(truncate(path, (long)size / 2), 0);
    const char *one = path;
    trn_scene *scene;
    assert_trn_fails(trn_scene_open(&one, 1, NULL, &scene, &err), TRN_ERR_FORMAT, err, "a.tif");
    free(out), free(data), free(path);
}

static void wrong_paths_are_refused(void **state)
{
    (void)state;
    char *dir = test_temp_dir(), *text = test_path(dir, "a.tif"), *missing = test_path(dir, "missing.tif");
    trn_error err = {0};
    trn_scene *scene;
    assert_trn_ok(trn_write_file(text, "hello, this is text", 19, &err), err);
    assert_trn_fails(trn_scene_open((const char *[]){text}, 1, NULL, &scene, &err), TRN_ERR_FORMAT, err,
                     "first bytes");
    assert_trn_fails(trn_scene_open((const char *[]){missing}, 1, NULL, &scene, &err), TRN_ERR_IO, err,
                     "missing.tif");
    assert_trn_fails(trn_scene_open((const char *[]){dir}, 1, NULL, &scene, &err), TRN_ERR_ARGUMENT, err,
                     "folder");
    assert_trn_fails(trn_scene_open(NULL, 0, NULL, &scene, &err), TRN_ERR_ARGUMENT, err, "0 files");
    assert_null(scene);
    free(text), free(missing);
}

/* ---- images ---- */

static size_t make_jpeg(uint8_t **out, int width, int height, int components)
{
    struct jpeg_compress_struct encoder;
    struct jpeg_error_mgr errors;
    encoder.err = jpeg_std_error(&errors);
    jpeg_create_compress(&encoder);
    unsigned long size = 0;
    *out = NULL;
    jpeg_mem_dest(&encoder, out, &size);
    encoder.image_width = (JDIMENSION)width;
    encoder.image_height = (JDIMENSION)height;
    encoder.input_components = components;
    encoder.in_color_space = components == 1 ? JCS_GRAYSCALE : components == 3 ? JCS_RGB : JCS_CMYK;
    jpeg_set_defaults(&encoder);
    jpeg_set_quality(&encoder, 100, TRUE);
    jpeg_start_compress(&encoder, TRUE);
    uint8_t *row = malloc((size_t)(width * components));
    assert_non_null(row);
    for (int y = 0; y < height; y++) {
        for (int i = 0; i < width * components; i++)
            row[i] = (uint8_t)(40 + 60 * (i % components) + y);
        jpeg_write_scanlines(&encoder, &row, 1);
    }
    jpeg_finish_compress(&encoder);
    jpeg_destroy_compress(&encoder);
    free(row);
    return size;
}

static void jpegs_are_read(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_scene *scene;
    for (int components = 1; components <= 3; components += 2) {
        uint8_t *jpeg;
        size_t size = make_jpeg(&jpeg, 33, 17, components);
        assert_trn_ok(scene_open_memory("a.jpg", jpeg, size, NULL, &scene, &err), err);
        assert_int_equal(trn_scene_get_info(scene)->band_count, components);
        assert_string_equal(trn_scene_get_info(scene)->bands[0].name, components == 3 ? "red" : "1");
        float out[3 * 33 * 17];
        uint8_t valid[33 * 17];
        assert_trn_ok(
            trn_scene_read(scene, (int[]){0, 1, 2}, (size_t)components, 0, 0, 33, 17, out, valid, &err), err);
        for (int c = 0; c < components; c++)
            for (int i = 0; i < 33 * 17; i++)
                assert_true(fabs((double)out[c * 33 * 17 + i] - (40 + 60 * c + i / 33)) <= 3);
        trn_scene_close(scene);
        for (size_t cut = 0; cut < size - 1; cut += 7)
            assert_int_not_equal(scene_open_memory("a.jpg", jpeg, cut, NULL, &scene, &err), TRN_OK);
        free(jpeg);
    }
    uint8_t *jpeg;
    size_t size = make_jpeg(&jpeg, 33, 17, 4);
    assert_trn_fails(scene_open_memory("a.jpg", jpeg, size, NULL, &scene, &err), TRN_ERR_UNSUPPORTED, err,
                     "CMYK");
    free(jpeg);
}

static void pngs_are_read(void **state)
{
    (void)state;
    char *path = test_path(test_temp_dir(), "a.png");
    uint8_t pixels[5 * 3 * 4];
    for (int i = 0; i < 60; i++)
        pixels[i] = (uint8_t)(i % 4 == 3 ? (i / 4 == 7 ? 0 : 255) : i);
    png_image image = {.version = PNG_IMAGE_VERSION, .width = 5, .height = 3, .format = PNG_FORMAT_RGBA};
    assert_true(png_image_write_to_file(&image, path, 0, pixels, 0, NULL));
    trn_error err = {0};
    trn_scene *scene = open_scene(path, &(trn_scene_options){.sensor = trn_sensor_find("rgb", NULL)});
    float out[45];
    uint8_t valid[15];
    assert_int_equal(trn_scene_get_info(scene)->band_count, 3);
    int red = trn_scene_find_band(scene, "red", &err);
    assert_int_equal(red, 0);
    assert_trn_ok(trn_scene_read(scene, (int[]){0, 1, 2}, 3, 0, 0, 5, 3, out, valid, &err), err);
    for (int i = 0; i < 15; i++) {
        assert_int_equal(valid[i], i != 7);
        for (int c = 0; c < 3; c++)
            assert_true(out[c * 15 + i] == (i == 7 ? 0 : (float)(4 * i + c)));
    }
    trn_scene_close(scene);
    size_t size;
    char *data = trn_read_file(path, 1 << 20, &size, &err);
    for (size_t cut = 0; cut < size; cut++)
        assert_int_not_equal(scene_open_memory("a.png", (uint8_t *)data, cut, NULL, &scene, &err), TRN_OK);
    free(data), free(path);
}

static void folders_are_listed(void **state)
{
    (void)state;
    char *dir = test_temp_dir(), *sub = test_path(dir, "b"), *loop = test_path(sub, "loop");
    static const char *const names[] = {"z.TIF", "a.jpg", "notes.txt", "b/c.png", ".hidden.png"};
    trn_error err = {0};
    assert_trn_ok(trn_make_dirs(sub, &err), err);
    assert_int_equal(symlink("..", loop), 0);
    for (size_t i = 0; i < TRN_COUNT(names); i++) {
        char *path = test_path(dir, names[i]);
        assert_trn_ok(trn_write_file(path, "x", 1, &err), err);
        free(path);
    }
    char **paths;
    size_t count;
    assert_trn_ok(trn_scene_list(dir, &paths, &count, &err), err);
    assert_int_equal(count, 3);
    assert_true(trn_ends_with(paths[0], "/a.jpg") && trn_ends_with(paths[1], "/b/c.png"));
    assert_true(trn_ends_with(paths[2], "/z.TIF"));
    trn_names_free(paths, count);
    assert_int_not_equal(trn_scene_list("/nonexistent-folder", &paths, &count, &err), TRN_OK);
    free(sub), free(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layout_reads_back),
        cmocka_unit_test(scenes_of_one_pixel_reflect),
        cmocka_unit_test(metadata_scales_and_names),
        cmocka_unit_test(nan_is_no_data),
        cmocka_unit_test(sensors_name_bands),
        cmocka_unit_test(products_name_bands),
        cmocka_unit_test(alpha_of_tiffs_hides_when_it_is_no_band),
        cmocka_unit_test(masks_of_tiffs_hide),
        cmocka_unit_test(georeference_is_read_and_compared),
        cmocka_unit_test(huge_sparse_scene_reads_by_windows),
        cmocka_unit_test(hostile_tiffs_are_refused),
        cmocka_unit_test(truncated_files_are_refused),
        cmocka_unit_test(wrong_paths_are_refused),
        cmocka_unit_test(jpegs_are_read),
        cmocka_unit_test(pngs_are_read),
        cmocka_unit_test(folders_are_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
