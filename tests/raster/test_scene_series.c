/* Files that are the dates of a series, and where pixels lie on earth. */
#include "test_support.h"
#include "test_raster.h"
#include "raster_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- dates ---- */

enum { MAX_FILES = 20 };

/* Files "name:bands" of one folder, and how many each date should have. */
typedef struct split_case {
    const char *files, *sensor;
    const char *const *names;
    size_t name_count;
    const char *wanted; /* "2 2" */
} split_case;

static void check_split(const split_case *c)
{
    char *dir = test_temp_dir(), *paths[MAX_FILES], list[512];
    size_t count = 0, files[MAX_FILES], dates;
    trn_error err = {0};
    snprintf(list, sizeof list, "%s", c->files);
    for (char *at = strtok(list, " "); at; at = strtok(NULL, " ")) {
        char *colon = strchr(at, ':');
        *colon = 0;
        paths[count] = test_path(dir, at);
        test_raster_write(paths[count++], &(test_raster){.width = 8, .height = 8, .bands = atoi(colon + 1)});
    }
    trn_scene_options options = {.sensor = c->sensor ? trn_sensor_find(c->sensor, &err) : NULL,
                                 .band_names = c->names,
                                 .band_name_count = c->name_count};
    assert_trn_ok(trn_scene_split_dates((const char *const *)paths, count, &options, files, &dates, &err),
                  err);
    trn_text got = {0};
    for (size_t t = 0; t < dates; t++)
        trn_text_printf(&got, "%s%zu", t ? " " : "", files[t]);
    if (strcmp(trn_text_get(&got), c->wanted) != 0)
        fail_msg("'%s' became '%s', wanted '%s'", c->files, trn_text_get(&got), c->wanted);
    trn_text_free(&got);
    for (size_t i = 0; i < count; i++)
        free(paths[i]);
}

static void splitting(void **state)
{
    (void)state;
    static const char *const two[] = {"a", "b"};
    static const split_case cases[] = {
        {"x.tif:3", NULL, NULL, 0, "1"},
        /* six bands of one date, by name and without any */
        {"x_B02.tif:1 x_B03.tif:1 x_B04.tif:1", "sentinel2-l2a", NULL, 0, "3"},
        {"x_B02.tif:1 x_B03.tif:1 x_B04.tif:1", NULL, NULL, 0, "3"},
        {"one.tif:1 two.tif:1 three.tif:1", NULL, NULL, 0, "3"},
        /* a band that comes again */
        {"x_B02.tif:1 x_B03.tif:1 y_B02.tif:1 y_B03.tif:1", "sentinel2-l2a", NULL, 0, "2 2"},
        {"x_B02.tif:1 x_B03.tif:1 y_B02.tif:1 y_B03.tif:1", NULL, NULL, 0, "2 2"},
        {"x_B02_10m.tif:1 x_B03_10m.tif:1 y_B2.tif:1 y_B3.tif:1 z_B02.tif:1 z_B03.tif:1", "s2", NULL, 0,
         "2 2 2"},
        /* whole files, named by the sensor's order, or by nobody */
        {"x.tif:6 y.tif:6 z.tif:6", "hls", NULL, 0, "1 1 1"},
        {"x.tif:6 y.tif:6 z.tif:6", NULL, NULL, 0, "1 1 1"},
        {"x.tif:2 y.tif:3", NULL, NULL, 0, "2"},
        /* two halves of what the sensor has */
        {"x.tif:3 y.tif:3", "hls", NULL, 0, "2"},
        /* names that are given say how many bands a date has */
        {"x.tif:1 y.tif:1 z.tif:1 w.tif:1", NULL, two, 2, "2 2"},
        {"x.tif:2 y.tif:2", NULL, two, 2, "1 1"},
    };
    for (size_t i = 0; i < TRN_COUNT(cases); i++)
        check_split(&cases[i]);
    trn_error err = {0};
    size_t files[2], dates;
    const char *missing[] = {"/nowhere/a.tif", "/nowhere/b.tif"};
    assert_trn_fails(trn_scene_split_dates(missing, 2, NULL, files, &dates, &err), TRN_ERR_IO, err,
                     "/nowhere/a.tif");
}

/* ---- places ---- */

static void near(double a, double b, double tolerance)
{
    if (!(fabs(a - b) <= tolerance)) fail_msg("%.9f is not %.9f", a, b);
}

static void locating(void **state)
{
    (void)state;
    trn_error err = {0};
    double latitude, longitude;
    trn_georef utm = {.has_transform = true,
                      .has_crs = true,
                      .transform = {500000, 10, 0, 5000000, 0, -10},
                      .epsg = TEST_RASTER_EPSG};
    /* on the central meridian of zone 33; the latitude is that of the WGS 84 ellipsoid's meridian arc */
    assert_trn_ok(trn_georef_locate(&utm, 0, 0, &latitude, &longitude, &err), err);
    near(longitude, 15, 1e-9);
    near(latitude, 45.153477183, 1e-8);
    /* a hundred pixels down and right are a kilometre: about 0.009 degrees of latitude */
    assert_trn_ok(trn_georef_locate(&utm, 100, 100, &latitude, &longitude, &err), err);
    near(latitude, 45.153477183 - 1000.0 / 0.9996 / 111141.5, 2e-5);
    near(longitude, 15 + 1000.0 / 0.9996 / 78700, 1e-4);
    trn_georef degrees = {
        .has_transform = true, .has_crs = true, .transform = {10.5, 0.25, 0, 60, 0, -0.5}, .epsg = 4326};
    assert_trn_ok(trn_georef_locate(&degrees, 2, 3, &latitude, &longitude, &err), err);
    near(latitude, 58.5, 1e-9);
    near(longitude, 11, 1e-9);
    assert_trn_fails(
        trn_georef_locate(&(trn_georef){.has_transform = true}, 0, 0, &latitude, &longitude, &err),
        TRN_ERR_ARGUMENT, err, "no georeference");
    trn_georef unknown = degrees;
    unknown.epsg = 1; /* no such code */
    assert_trn_fails(trn_georef_locate(&unknown, 0, 0, &latitude, &longitude, &err), TRN_ERR_UNSUPPORTED, err,
                     "EPSG:1 ");
}

/* Keys that spell the projection out, as HLS products do, mean the same place as the code. */
static void locating_by_keys(void **state)
{
    (void)state;
    trn_error err = {0};
    double latitude, longitude, wanted_latitude, wanted_longitude;
    const double transform[6] = {412340, 30, 0, 4567890, 0, -30};
    trn_georef code = {.has_transform = true, .has_crs = true, .epsg = 32615};
    memcpy(code.transform, transform, sizeof transform);
    assert_trn_ok(trn_georef_locate(&code, 7, 9, &wanted_latitude, &wanted_longitude, &err), err);
    static const double params[] = {0.9996, 500000, 0, -93, 0, 6378137, 298.257223563};
    static const uint16_t keys[] = {1,     1,    0,    9,     1024,  0,    1,    1,     3072,  0,    1,
                                    32767, 3075, 0,    1,     1,     3076, 0,    1,     9001,  3080, 34736,
                                    1,     3,    3081, 34736, 1,     4,    3082, 34736, 1,     1,    3083,
                                    34736, 1,    2,    3092,  34736, 1,    0,    2059,  34736, 1,    6};
    trn_georef spelled = code;
    spelled.epsg = 0;
    spelled.keys = keys;
    spelled.key_count = (uint16_t)TRN_COUNT(keys);
    spelled.double_params = params;
    spelled.double_count = (uint16_t)TRN_COUNT(params);
    assert_trn_ok(trn_georef_locate(&spelled, 7, 9, &latitude, &longitude, &err), err);
    near(latitude, wanted_latitude, 1e-6);
    near(longitude, wanted_longitude, 1e-6);
    static const uint16_t zone[] = {1, 1, 0, 3, 1024, 0, 1, 1, 3072, 0, 1, 32767, 3074, 0, 1, 16015};
    spelled.keys = zone;
    spelled.key_count = (uint16_t)TRN_COUNT(zone);
    assert_trn_ok(trn_georef_locate(&spelled, 7, 9, &latitude, &longitude, &err), err);
    near(latitude, wanted_latitude, 1e-6);
    /* a key whose number lies beyond the list of numbers is as good as absent */
    spelled.double_count = 1;
    spelled.keys = keys;
    spelled.key_count = (uint16_t)TRN_COUNT(keys);
    assert_trn_ok(trn_georef_locate(&spelled, 7, 9, &latitude, &longitude, &err), err);
    static const uint16_t strange[] = {1, 1, 0, 2, 1024, 0, 1, 1, 3075, 0, 1, 26};
    spelled.keys = strange;
    spelled.key_count = (uint16_t)TRN_COUNT(strange);
    assert_trn_fails(trn_georef_locate(&spelled, 7, 9, &latitude, &longitude, &err), TRN_ERR_UNSUPPORTED, err,
                     "no EPSG code");
    spelled.ascii_params =
        "a|GEOGCS[\"WGS 84\",DATUM[\"WGS_1984\",SPHEROID[\"WGS 84\",6378137,298.257223563]],"
        "PRIMEM[\"Greenwich\",0],UNIT[\"degree\",0.0174532925199433]]|b";
    memcpy(spelled.transform, (double[6]){10.5, 0.25, 0, 60, 0, -0.5}, sizeof transform);
    assert_trn_ok(trn_georef_locate(&spelled, 2, 3, &latitude, &longitude, &err), err);
    near(latitude, 58.5, 1e-9);
    near(longitude, 11, 1e-9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splitting),
        cmocka_unit_test(locating),
        cmocka_unit_test(locating_by_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
