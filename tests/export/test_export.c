/* What is written reads back: values, names, georeference; failures leave nothing behind. */
#include "test_support.h"
#include "export_private.h"

#include <math.h>
#include <png.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const uint16_t utm_keys[] = {1, 1, 0, 2, 1025, 0, 1, 1, 3072, 0, 1, 32633};
static const uint16_t point_keys[] = {1, 1, 0, 3, 1025, 0, 1, 2, 3072, 0, 1, 32633, 1026, 34737, 5, 0};

static trn_georef utm(void)
{
    return (trn_georef){.has_transform = true,
                        .has_crs = true,
                        .transform = {288776.25, 28.5, 0, 9120760.75, 0, -28.5},
                        .keys = utm_keys,
                        .key_count = TRN_COUNT(utm_keys),
                        .epsg = 32633};
}

static float value_at(int64_t x, int64_t y, int c)
{
    if (x == 3 && y == 2) return NAN;
    return (float)(x * 0.25 + (double)y * 2 + c * 0.5);
}

static float *make_rows(const trn_export_grid *grid, int64_t first, int64_t rows)
{
    float *values = malloc((size_t)(rows * grid->width) * (size_t)grid->channels * sizeof *values);
    assert_non_null(values);
    for (int64_t i = 0; i < rows * grid->width; i++)
        for (int c = 0; c < grid->channels; c++)
            values[i * grid->channels + c] = value_at(i % grid->width, first + i / grid->width, c);
    return values;
}

static trn_status write_grid(const char *path, const trn_export_grid *grid, const trn_export_options *options,
                             int64_t block, trn_error *err)
{
    trn_writer *writer;
    trn_status status = trn_writer_open(path, grid, options, &writer, err);
    for (int64_t y = 0; y < grid->height && status == TRN_OK; y += block) {
        int64_t rows = TRN_MIN(block, grid->height - y);
        float *values = make_rows(grid, y, rows);
        status = trn_writer_rows(writer, y, rows, values, err);
        free(values);
        if (status != TRN_OK) trn_writer_abandon(writer);
    }
    return status == TRN_OK ? trn_writer_finish(writer, err) : status;
}

static size_t files_in(const char *dir)
{
    char **names;
    size_t count;
    trn_error err = {0};
    assert_trn_ok(trn_list_dir(dir, &names, &count, &err), err);
    trn_names_free(names, count);
    return count;
}

/* Reads band c of the GeoTIFF whole, and compares. */
static void check_values(const char *path, const trn_export_grid *grid, int c)
{
    trn_error err = {0};
    trn_scene *scene;
    assert_trn_ok(trn_scene_open(&path, 1, NULL, &scene, &err), err);
    const trn_scene_info *info = trn_scene_get_info(scene);
    assert_int_equal(info->width, grid->width);
    assert_int_equal(info->height, grid->height);
    assert_int_equal(info->band_count, grid->channels);
    assert_true(info->bands[c].has_nodata && isnan(info->bands[c].nodata));
    assert_int_equal(info->georef.has_transform, grid->georef.has_transform);
    if (grid->georef.has_transform)
        assert_memory_equal(info->georef.transform, grid->georef.transform, sizeof grid->georef.transform);
    assert_int_equal(info->georef.key_count, grid->georef.key_count);
    if (info->georef.key_count)
        assert_memory_equal(info->georef.keys, grid->georef.keys, info->georef.key_count * sizeof(uint16_t));
    if (grid->names) assert_string_equal(info->bands[c].name, grid->names[c]);
    size_t cells = (size_t)(grid->width * grid->height);
    float *out = malloc(cells * sizeof *out);
    uint8_t *valid = malloc(cells);
    assert_true(out && valid);
    assert_trn_ok(trn_scene_read(scene, &c, 1, 0, 0, grid->width, grid->height, out, valid, &err), err);
    for (size_t i = 0; i < cells; i++) {
        float wanted = value_at((int64_t)i % grid->width, (int64_t)i / grid->width, c);
        assert_int_equal(valid[i], !isnan(wanted));
        if (valid[i] && out[i] != wanted) fail_msg("cell %zu: %g, not %g", i, (double)out[i], (double)wanted);
    }
    free(out), free(valid);
    trn_scene_close(scene);
}

static void geotiffs_read_back(void **state)
{
    (void)state;
    static const char *const names[] = {"a <&> \"b\"", "two", "three"};
    static const char *const codecs[] = {NULL, "none", "lzw", "deflate", "zstd"};
    static const int sizes[][2] = {{5, 4}, {37, 21}, {300, 1}, {1, 300}, {22, 22}};
    char *dir = test_temp_dir(), *path = test_path(dir, "grid.tif");
    for (size_t s = 0; s < TRN_COUNT(sizes); s++) {
        for (size_t c = 0; c < TRN_COUNT(codecs); c++) {
            for (int type = 0; type < 2; type++) {
                trn_export_grid grid = {.width = sizes[s][0],
                                        .height = sizes[s][1],
                                        .channels = 3,
                                        .georef = utm(),
                                        .names = names,
                                        .description = "test & co"};
                trn_export_options options = {.type = type ? TRN_EXPORT_F16 : TRN_EXPORT_F32,
                                              .compression = codecs[c],
                                              .tile = c % 2 ? 16 : 0};
                trn_error err = {0};
                trn_status status = write_grid(path, &grid, &options, 1 + (int64_t)s * 7, &err);
                if (status == TRN_ERR_UNSUPPORTED && c == 4) continue; /* a libtiff without zstd */
                assert_trn_ok(status, err);
                for (int b = 0; b < 3; b++)
                    check_values(path, &grid, b);
            }
        }
    }
    assert_int_equal(files_in(dir), 1);
    free(path);
}

static void many_channels_and_georeferences(void **state)
{
    (void)state;
    char *path = test_path(test_temp_dir(), "grid.TIFF");
    trn_error err = {0};
    trn_export_grid grid = {.width = 19, .height = 33, .channels = 1500};
    assert_trn_ok(write_grid(path, &grid, NULL, 10, &err), err);
    check_values(path, &grid, 0);
    check_values(path, &grid, 1499);
    trn_georef points = utm(), turned = utm(), up = utm(), whole = utm();
    points.keys = point_keys;
    points.key_count = TRN_COUNT(point_keys);
    points.ascii_params = "name|";
    turned.transform[2] = 3;
    turned.transform[4] = -4;
    up.transform[5] = 28.5; /* rows from south to north */
    whole = trn_georef_coarsen(&whole, 16);
    assert_true(whole.transform[1] == 456 && whole.transform[5] == -456 && whole.transform[0] == 288776.25);
    const trn_georef all[] = {points, turned, up, whole};
    for (size_t i = 0; i < TRN_COUNT(all); i++) {
        grid = (trn_export_grid){.width = 7, .height = 9, .channels = 1, .georef = all[i]};
        assert_trn_ok(write_grid(path, &grid, NULL, 4, &err), err);
        check_values(path, &grid, 0);
    }
    free(path);
}

static void arrays_read_back(void **state)
{
    (void)state;
    char *dir = test_temp_dir(), *path = test_path(dir, "a.npy"), *json = test_path(dir, "a.json");
    trn_error err = {0};
    for (int type = 0; type < 2; type++) {
        trn_export_grid grid = {.width = 7, .height = 5, .channels = 3};
        trn_export_options options = {.type = type ? TRN_EXPORT_F16 : TRN_EXPORT_F32,
                                      .sidecar = "{\"rows\": 5}"};
        assert_trn_ok(write_grid(path, &grid, &options, 2, &err), err);
        float *data, *wanted = make_rows(&grid, 0, 5);
        int64_t shape[4];
        int ndim;
        assert_trn_ok(trn_npy_read(path, &data, shape, 4, &ndim, &err), err);
        assert_int_equal(ndim, 3);
        assert_true(shape[0] == 5 && shape[1] == 7 && shape[2] == 3);
        for (int i = 0; i < 105; i++)
            assert_true(data[i] == wanted[i] || (isnan(data[i]) && isnan(wanted[i])));
        free(data), free(wanted);
        char *text = trn_read_file(json, 1000, NULL, &err);
        assert_string_equal(text, "{\"rows\": 5}\n");
        free(text);
    }
    trn_export_grid vectors = {.width = 4, .height = 1, .channels = 3};
    assert_trn_ok(write_grid(path, &vectors, NULL, 1, &err), err);
    float *data;
    int64_t shape[4];
    int ndim;
    assert_trn_ok(trn_npy_read(path, &data, shape, 4, &ndim, &err), err);
    assert_true(ndim == 2 && shape[0] == 4 && shape[1] == 3);
    free(data);
    assert_trn_fails(trn_npy_read(path, &data, shape, 1, &ndim, &err), TRN_ERR_FORMAT, err, "2 dimensions");
    assert_int_equal(files_in(dir), 2);
    free(path), free(json);
}

static void check_npy(const char *path, const char *header, const void *body, size_t size, int count,
                      const float *wanted)
{
    uint8_t file[512] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)strlen(header), 0};
    memcpy(file + 10, header, strlen(header));
    memcpy(file + 10 + strlen(header), body, size);
    trn_error err = {0};
    assert_trn_ok(trn_write_file(path, file, 10 + strlen(header) + size, &err), err);
    float *data;
    int64_t shape[8];
    int ndim;
    trn_status status = trn_npy_read(path, &data, shape, 8, &ndim, &err);
    if (!wanted) {
        assert_int_equal(status, TRN_ERR_FORMAT);
        assert_null(data);
        return;
    }
    assert_trn_ok(status, err);
    assert_memory_equal(data, wanted, (size_t)count * sizeof *wanted);
    free(data);
}

static void foreign_arrays_are_read(void **state)
{
    (void)state;
    char *path = test_path(test_temp_dir(), "b.npy");
    const float two[] = {-2, 258};
    check_npy(path, "{'descr': '>i2', 'fortran_order': False, 'shape': (2,), }\n", "\xff\xfe\x01\x02", 4, 2,
              two);
    check_npy(path, "{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2)}",
              "\xfe\xff\xff\xff\xff\xff\xff\xff\x02\x01\0\0\0\0\0\0", 16, 2, two);
    check_npy(path, "{'descr': '<f8', 'fortran_order': False, 'shape': (), }", "\0\0\0\0\0\0\0\xc0", 8, 1,
              two);
    check_npy(path, "{'descr': '|b1', 'fortran_order': False, 'shape': (2,), }", "\1\0", 2, 2,
              (float[]){1, 0});
    check_npy(path, "{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }", "12345678", 8, 0, NULL);
    check_npy(path, "{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", "12345678", 8, 0, NULL);
    check_npy(path, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", "12345678", 8, 0, NULL);
    check_npy(path, "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }", "1", 1,
              0, NULL);
    check_npy(path, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, -1), }", "12345678", 8, 0, NULL);
    check_npy(path, "{'descr': '<f4', 'fortran_order': False, 'shape': (2", "12345678", 8, 0, NULL);
    check_npy(path, "", "", 0, 0, NULL);
    trn_error err = {0};
    const int64_t shape[] = {2};
    assert_trn_ok(trn_npy_write(path, two, shape, 1, &err), err);
    size_t size;
    char *file = trn_read_file(path, 1000, &size, &err);
    assert_int_equal((size - 8) % 64, 0);
    assert_non_null(strstr(file + 10, "'shape': (2,)"));
    free(file), free(path);
}

/* rows [count, channels] that vary along three known axes, and little elsewhere. */
static float *make_mixture(int64_t count, int channels)
{
    static const double strength[] = {10, 5, 2};
    float *rows = malloc((size_t)count * (size_t)channels * sizeof *rows);
    assert_non_null(rows);
    for (int64_t i = 0; i < count; i++) {
        for (int c = 0; c < channels; c++) {
            double sum = 3 + 0.01 * trn_hash_uniform(7, (uint64_t)(i * channels + c));
            if (c < 3) sum += strength[c] * trn_hash_uniform((uint64_t)c, (uint64_t)i);
            rows[i * channels + c] = (float)sum;
        }
    }
    return rows;
}

static void axes_are_found_by_both_ways(void **state)
{
    (void)state;
    static const int channels[] = {1, 2, 5, 64, 65, 700};
    for (size_t t = 0; t < TRN_COUNT(channels); t++) {
        int n = channels[t];
        float *rows = make_mixture(500, n);
        double *mean = malloc((size_t)n * sizeof *mean), *axes = malloc((size_t)n * 3 * sizeof *axes);
        assert_true(mean && axes);
        trn_error err = {0};
        assert_trn_ok(pca_axes(rows, 500, n, 3, mean, axes, &err), err);
        for (int k = 0; k < 3 && k < n; k++) {
            double length = 0;
            for (int c = 0; c < n; c++)
                length += axes[k * n + c] * axes[k * n + c];
            assert_true(fabs(length - 1) < 1e-9);
            assert_true(axes[k * n + k] > 0.95); /* the axis, with its sign */
        }
        for (int k = n; k < 3; k++)
            assert_true(axes[k * n] == 0);
        free(rows), free(mean), free(axes);
    }
    /* nothing varies: no axes, and no division by zero */
    float same[4 * 80];
    double mean[80], axes[240];
    for (int i = 0; i < 320; i++)
        same[i] = 2;
    trn_error err = {0};
    assert_trn_ok(pca_axes(same, 4, 80, 3, mean, axes, &err), err);
    for (int i = 0; i < 240; i++)
        assert_true(axes[i] == 0);
    assert_trn_ok(pca_axes(same, 0, 80, 3, mean, axes, &err), err);
}

static uint8_t *read_png(const char *path, unsigned *width, unsigned *height)
{
    png_image image = {.version = PNG_IMAGE_VERSION};
    assert_true(png_image_begin_read_from_file(&image, path));
    image.format = PNG_FORMAT_RGBA;
    uint8_t *pixels = malloc(PNG_IMAGE_SIZE(image));
    assert_non_null(pixels);
    assert_true(png_image_finish_read(&image, NULL, pixels, 0, NULL));
    *width = image.width;
    *height = image.height;
    return pixels;
}

/* One pixel of each cell of an enlarged picture, in place; its first row must be of one colour. */
static void take_cells(uint8_t *pixels, unsigned width, unsigned height, unsigned zoom)
{
    for (unsigned y = 0; y < height * zoom; y++) {
        for (unsigned x = 0; x < width * zoom; x++) {
            const uint8_t *pixel = pixels + ((size_t)y * width * zoom + x) * 4;
            uint8_t *cell = pixels + ((size_t)(y / zoom) * width + x / zoom) * 4;
            if (y % zoom == 0 && x % zoom == 0)
                memmove(cell, pixel, 4);
            else if (y % zoom == 0)
                assert_memory_equal(pixel, pixel - 4, 4);
        }
    }
}

static void previews_show_components(void **state)
{
    (void)state;
    char *dir = test_temp_dir(), *path = test_path(dir, "a.png");
    trn_export_grid grid = {.width = 40, .height = 30, .channels = 100};
    float *values = make_mixture(1200, 100);
    values[100 * 55 + 17] = NAN;
    uint8_t *pictures[2];
    unsigned width, height;
    for (int again = 0; again < 2; again++) {
        trn_writer *writer;
        trn_error err = {0};
        assert_trn_ok(trn_writer_open(path, &grid, NULL, &writer, &err), err);
        assert_int_equal(files_in(dir), again + 1); /* the spool has no name */
        assert_trn_ok(trn_writer_rows(writer, 0, 13, values, &err), err);
        assert_trn_ok(trn_writer_rows(writer, 13, 17, values + 13 * 40 * 100, &err), err);
        assert_trn_ok(trn_writer_finish(writer, &err), err);
        pictures[again] = read_png(path, &width, &height);
        assert_true(width == 480 && height == 360); /* small grids are enlarged */
        take_cells(pictures[again], 40, 30, 12);
    }
    assert_memory_equal(pictures[0], pictures[1], 4800);
    for (int i = 0; i < 1200; i++)
        assert_int_equal(pictures[0][i * 4 + 3], i == 55 ? 0 : 255);
    /* red rises with the strongest direction, green with the second */
    for (int k = 0; k < 2; k++) {
        for (int i = 1; i < 1200; i++) {
            double step = (double)values[i * 100 + k] - (double)values[(i - 1) * 100 + k];
            if (i == 55 || i == 56 || fabs(step) < 1.5) continue;
            int shade = pictures[0][i * 4 + k] - pictures[0][(i - 1) * 4 + k];
            assert_true(step > 0 ? shade >= 0 : shade <= 0);
        }
    }
    free(values), free(pictures[0]), free(pictures[1]);

    grid = (trn_export_grid){.width = 5000, .height = 3, .channels = 1};
    trn_error err = {0};
    assert_trn_ok(write_grid(path, &grid, NULL, 1, &err), err);
    pictures[0] = read_png(path, &width, &height);
    assert_true(width == 1667 && height == 1);
    assert_true(pictures[0][0] == 0 && pictures[0][4 * 1666] == 255 && pictures[0][4 * 1666 + 2] == 255);
    free(pictures[0]), free(path);
}

static void misuse_is_refused(void **state)
{
    (void)state;
    char *dir = test_temp_dir(), *tif = test_path(dir, "a.tif"), *png = test_path(dir, "a.png");
    char *odd = test_path(dir, "a.xyz"), *lost = test_path(dir, "no/such/a.tif");
    trn_error err = {0};
    trn_writer *writer;
    trn_export_grid grid = {.width = 4, .height = 4, .channels = 2},
                    empty = {.width = 0, .height = 4, .channels = 2};
    trn_export_options f16 = {.type = TRN_EXPORT_F16}, lzma = {.compression = "lzma"}, tile = {.tile = 20};
    assert_trn_fails(trn_writer_open(odd, &grid, NULL, &writer, &err), TRN_ERR_ARGUMENT, err, "extension");
    assert_trn_fails(trn_writer_open(lost, &grid, NULL, &writer, &err), TRN_ERR_IO, err, "a.tif");
    assert_trn_fails(trn_writer_open(png, &grid, &f16, &writer, &err), TRN_ERR_ARGUMENT, err, "float16");
    assert_trn_fails(trn_writer_open(tif, &grid, &lzma, &writer, &err), TRN_ERR_ARGUMENT, err, "'lzma'");
    assert_trn_fails(trn_writer_open(tif, &grid, &tile, &writer, &err), TRN_ERR_ARGUMENT, err, "tile 20");
    assert_trn_fails(trn_writer_open(tif, &empty, NULL, &writer, &err), TRN_ERR_ARGUMENT, err, "0 x 4");
    assert_null(writer);
    float values[32] = {0};
    assert_trn_ok(trn_writer_open(tif, &grid, NULL, &writer, &err), err);
    assert_trn_fails(trn_writer_rows(writer, 1, 1, values, &err), TRN_ERR_INTERNAL, err, "row 0 was next");
    assert_trn_fails(trn_writer_rows(writer, 0, 5, values, &err), TRN_ERR_INTERNAL, err, "rows 0 to 4");
    assert_trn_fails(trn_writer_finish(writer, &err), TRN_ERR_INTERNAL, err, "0 of 4 rows");
    assert_trn_ok(trn_writer_open(tif, &grid, NULL, &writer, &err), err);
    trn_writer_abandon(writer);
    trn_writer_abandon(NULL);
    assert_int_equal(files_in(dir), 0);
    free(tif), free(png), free(odd), free(lost);
}

/* A limit on the size of files stands for a full disk. */
static void full_disks_leave_nothing(void **state)
{
    (void)state;
    static const char *const names[] = {"a.tif", "a.npy", "a.png"};
    char *dir = test_temp_dir();
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_IGN);
    for (size_t i = 0; i < TRN_COUNT(names); i++) {
        char *path = test_path(dir, names[i]);
        trn_export_grid grid = {.width = 100, .height = 100, .channels = 20};
        trn_export_options options = {.compression = "none"};
        for (rlim_t limit = 300; limit < 700000; limit *= 9) {
            trn_error err = {0};
            small = (struct rlimit){limit, before.rlim_max};
            setrlimit(RLIMIT_FSIZE, &small);
            trn_status status = write_grid(path, &grid, &options, 10, &err);
            setrlimit(RLIMIT_FSIZE, &before);
            if (status != TRN_ERR_IO || !strstr(err.message, names[i]) ||
                !strstr(err.message, "File too large"))
                fail_msg("%s at %lu bytes: %s: %s", names[i], (unsigned long)limit, trn_status_name(status),
                         err.message);
            assert_int_equal(files_in(dir), 0);
        }
        free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(geotiffs_read_back),
        cmocka_unit_test(many_channels_and_georeferences),
        cmocka_unit_test(arrays_read_back),
        cmocka_unit_test(foreign_arrays_are_read),
        cmocka_unit_test(axes_are_found_by_both_ways),
        cmocka_unit_test(previews_show_components),
        cmocka_unit_test(misuse_is_refused),
        cmocka_unit_test(full_disks_leave_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
