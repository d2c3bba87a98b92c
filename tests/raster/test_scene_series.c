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

/* A projection of the first of the keys' methods, whose numbers are double_params by their places. */
static trn_georef spell(const uint16_t *keys, size_t key_count, const double *params, size_t param_count,
                        double x, double y, double pixel)
{
    return (trn_georef){.has_transform = true,
                        .has_crs = true,
                        .transform = {x, pixel, 0, y, 0, -pixel},
                        .keys = keys,
                        .key_count = (uint16_t)key_count,
                        .double_params = params,
                        .double_count = (uint16_t)param_count};
}

/* Universal polar stereographic: the scale at the pole is 0.994. */
static void locating_at_the_pole(void **state)
{
    (void)state;
    static const double params[] = {0.994, 2000000, 2000000, 0, 90, 6378137, 298.257223563};
    static const uint16_t keys[] = {
        1,    1,     0, 8, 1024, 0,     1, 1, 3075, 0,     1, 15, 3076, 0,     1, 9001, 3095, 34736, 1, 3,
        3081, 34736, 1, 4, 3082, 34736, 1, 1, 3083, 34736, 1, 2,  3092, 34736, 1, 0,    2056, 0,     1, 7030};
    trn_error err = {0};
    double latitude, longitude, wanted_latitude, wanted_longitude;
    trn_georef spelled = spell(keys, TRN_COUNT(keys), params, TRN_COUNT(params), 2500000, 3100000, 100);
    trn_georef code = spelled;
    code.epsg = 5041;
    assert_trn_ok(trn_georef_locate(&code, 50, 50, &wanted_latitude, &wanted_longitude, &err), err);
    assert_trn_ok(trn_georef_locate(&spelled, 50, 50, &latitude, &longitude, &err), err);
    near(latitude, wanted_latitude, 1e-6);
    near(longitude, wanted_longitude, 1e-6);
}

/* Ellipsoids come as codes, too; those not known here are refused, not taken for another. */
static void locating_on_ellipsoids(void **state)
{
    (void)state;
    static const double params[] = {0.9996, 500000, 0, -93, 0};
    static const struct {
        int code;
        double latitude; /* of 4567730 m north on the meridian arc of the ellipsoid */
    } known[] = {{7030, 0}, {7019, 0}, {7008, 1}, {7022, 1}, {7004, 1}, {7001, 1}};
    trn_error err = {0};
    double first = 0;
    for (size_t i = 0; i <= TRN_COUNT(known); i++) {
        uint16_t keys[] = {1,    1,     0, 8, 1024, 0,     1, 1, 3075, 0,     1, 1,
                           3080, 34736, 1, 3, 3081, 34736, 1, 4, 3082, 34736, 1, 1,
                           3083, 34736, 1, 2, 3092, 34736, 1, 0, 2056, 0,     1, 7036};
        if (i < TRN_COUNT(known)) keys[TRN_COUNT(keys) - 1] = (uint16_t)known[i].code;
        trn_georef georef = spell(keys, TRN_COUNT(keys), params, TRN_COUNT(params), 500000, 4567890, 30);
        double latitude, longitude;
        trn_status status = trn_georef_locate(&georef, 0, 0, &latitude, &longitude, &err);
        if (i == TRN_COUNT(known)) {
            assert_trn_fails(status, TRN_ERR_UNSUPPORTED, err, "ellipsoid 7036");
            break;
        }
        assert_trn_ok(status, err);
        if (i == 0) first = latitude;
        /* a hundred metres are about 0.001 degrees */
        if ((fabs(latitude - first) > 1e-4) != (known[i].latitude != 0) || fabs(latitude - first) > 5e-3)
            fail_msg("ellipsoid %d: %.9f beside %.9f", known[i].code, latitude, first);
    }
}

/* Beside the earth there is no place, wherever PROJ's formulas lead; degrees and cylinders go round. */
static void locating_off_the_earth(void **state)
{
    (void)state;
    static const double params[] = {6371007.181, 0};
    static const uint16_t keys[] = {1, 1,  0,    4,     1024, 0, 1,    1,     3075, 0,
                                    1, 24, 2057, 34736, 1,    0, 3088, 34736, 1,    1};
    const double radius = params[0], pi = 3.14159265358979, half = pi * radius / 2; /* at 60 degrees north */
    trn_error err = {0};
    double latitude, longitude;
    trn_georef sinusoidal =
        spell(keys, TRN_COUNT(keys), params, TRN_COUNT(params), half - 5000, pi / 3 * radius, 463.3127);
    assert_trn_ok(trn_georef_locate(&sinusoidal, 0, 0, &latitude, &longitude, &err), err);
    near(longitude, 180 - 5000 / half * 180, 1e-6);
    near(latitude, 60, 0.2); /* geodetic, of a sphere's */
    assert_trn_fails(trn_georef_locate(&sinusoidal, 15, 0, &latitude, &longitude, &err), TRN_ERR_FORMAT, err,
                     "outside of its CRS");
    assert_trn_fails(trn_georef_locate(&sinusoidal, 2000, 0, &latitude, &longitude, &err), TRN_ERR_FORMAT,
                     err, "outside of its CRS");
    trn_georef round = {
        .has_transform = true, .has_crs = true, .transform = {200, 0.25, 0, 10, 0, -0.25}, .epsg = 4326};
    assert_trn_ok(trn_georef_locate(&round, 0, 0, &latitude, &longitude, &err), err);
    near(fmod(longitude + 720, 360), 200, 1e-9);
    round.epsg = 3857; /* Fiji, in one piece */
    memcpy(round.transform, (double[6]){20100000, 100, 0, -2000000, 0, -100}, sizeof round.transform);
    assert_trn_ok(trn_georef_locate(&round, 0, 0, &latitude, &longitude, &err), err);
    near(fmod(longitude + 720, 360), 180.5614, 1e-3);
    round.epsg = 32660;
    memcpy(round.transform, (double[6]){880000, 100, 0, 8000000, 0, -100}, sizeof round.transform);
    assert_trn_ok(trn_georef_locate(&round, 0, 0, &latitude, &longitude, &err), err);
    assert_true(fmod(longitude + 720, 360) > 180);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splitting),
        cmocka_unit_test(locating),
        cmocka_unit_test(locating_by_keys),
        cmocka_unit_test(locating_at_the_pole),
        cmocka_unit_test(locating_on_ellipsoids),
        cmocka_unit_test(locating_off_the_earth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
