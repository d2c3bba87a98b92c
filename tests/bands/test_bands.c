/* The sensors' tables are consistent, and bands are found by every spelling they promise. */
#include "test_support.h"
#include "bands.h"

#include <math.h>
#include <string.h>

static void tables_are_consistent(void **state)
{
    (void)state;
    assert_true(trn_sensor_count() >= 16);
    for (size_t s = 0; s < trn_sensor_count(); s++) {
        const trn_sensor *sensor = trn_sensor_at(s);
        trn_error err = {0};
        assert_ptr_equal(trn_sensor_find(sensor->name, &err), sensor);
        assert_true(sensor->scale != 0);
        for (size_t b = 0; b < sensor->band_count; b++) {
            const trn_band *band = &sensor->bands[b];
            if (trn_sensor_band(sensor, band->name) != (int)b) fail_msg("%s %s", sensor->name, band->name);
            if (trn_sensor_band(sensor, band->common) != (int)b)
                fail_msg("%s %s", sensor->name, band->common);
            for (int a = 0; a < TRN_MAX_BAND_ALIASES && band->aliases[a]; a++)
                if (trn_sensor_band(sensor, band->aliases[a]) != (int)b)
                    fail_msg("%s %s: alias %s", sensor->name, band->name, band->aliases[a]);
            assert_string_equal(trn_band_common(band->common), band->common);
            if (strcmp(sensor->name, "sentinel1"))
                assert_true(band->wavelength_um > 0.4 && band->wavelength_um < 15);
        }
        /* what is defined from a built-in sensor passes the check of recipes */
        trn_arena *arena = trn_arena_create();
        const trn_sensor *copy = trn_sensor_define(arena, sensor, &err);
        if (!copy) fail_msg("%s: %s", sensor->name, err.message);
        assert_int_equal(trn_sensor_band(copy, sensor->bands[0].name), 0);
        trn_arena_destroy(arena);
    }
    assert_null(trn_sensor_at(trn_sensor_count()));
}

static void aliases_find_sensors(void **state)
{
    (void)state;
    trn_error err = {0};
    assert_string_equal(trn_sensor_find("S2", &err)->name, "sentinel2-l2a");
    assert_string_equal(trn_sensor_find("Landsat_7", &err)->name, "landsat7");
    assert_string_equal(trn_sensor_find("l8-sr", &err)->name, "landsat8-sr");
    assert_null(trn_sensor_find("sentinel2-l2b", &err));
    assert_int_equal(err.code, TRN_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "did you mean 'sentinel2-l2a'"));
    assert_null(trn_sensor_find("qqqqqqqqqqqqqqqqqqqqqqq", &err));
    assert_non_null(strstr(err.message, "naip"));
}

static void spellings_find_bands(void **state)
{
    (void)state;
    const trn_sensor *s2 = trn_sensor_find("sentinel2-l2a", NULL), *l8 = trn_sensor_find("landsat8-sr", NULL);
    const trn_sensor *hls = trn_sensor_find("hls", NULL), *naip = trn_sensor_find("naip", NULL);
    assert_int_equal(trn_sensor_band(s2, "b4"), 3);
    assert_int_equal(trn_sensor_band(s2, "Red"), 3);
    assert_int_equal(trn_sensor_band(s2, "NIR_NARROW"), 8);
    assert_int_equal(trn_sensor_band(s2, "NIR_BROAD"), 7);
    assert_int_equal(trn_sensor_band(s2, "SWIR_1"), 10);
    assert_int_equal(trn_sensor_band(s2, "B10"), -1);
    assert_int_equal(trn_sensor_band(s2, ""), -1);
    assert_int_equal(trn_sensor_band(l8, "B4"), 3);
    assert_int_equal(trn_sensor_band(l8, "nir"), 4);
    assert_int_equal(trn_sensor_band(hls, "B8A"), 3);
    const trn_sensor *l30 = trn_sensor_find("HLS-L30", NULL), *s30 = trn_sensor_find("hls_s30", NULL);
    assert_string_equal(l30->bands[trn_sensor_band(l30, "B05")].common, "nir08");
    assert_string_equal(s30->bands[trn_sensor_band(s30, "B05")].common, "rededge1");
    assert_string_equal(s30->bands[trn_sensor_band(s30, "nir08")].name, "B8A");
    assert_int_equal(trn_sensor_band(naip, "nir08"), -1); /* a broad band is not taken for a narrow one */
    assert_string_equal(trn_band_common("swir-2"), "swir22");
    assert_null(trn_band_common("B04"));
}

static void counts_choose_bands(void **state)
{
    (void)state;
    int indices[16];
    const trn_sensor *l7 = trn_sensor_find("landsat7", NULL);
    assert_true(trn_sensor_match_count(l7, 6, indices));
    const char *six[] = {"B1", "B2", "B3", "B4", "B5", "B7"};
    for (int i = 0; i < 6; i++)
        assert_string_equal(l7->bands[indices[i]].name, six[i]);
    assert_true(trn_sensor_match_count(l7, 7, indices));
    assert_string_equal(l7->bands[indices[5]].name, "B6");
    assert_true(trn_sensor_match_count(l7, 8, indices));
    assert_false(trn_sensor_match_count(l7, 5, indices));
    const trn_sensor *l1c = trn_sensor_find("sentinel2-l1c", NULL);
    assert_true(trn_sensor_match_count(l1c, 12, indices));
    assert_string_equal(l1c->bands[indices[10]].name, "B11");
    assert_true(trn_sensor_match_count(l1c, 13, indices));
    assert_string_equal(l1c->bands[indices[10]].name, "B10");
    const trn_sensor *l8 = trn_sensor_find("l8", NULL);
    assert_true(trn_sensor_match_count(l8, 7, indices));
    assert_string_equal(l8->bands[indices[6]].name, "B7");
}

/* The two near infrareds are the only bands that may stand for one another. */
static void stand_ins(void **state)
{
    (void)state;
    assert_string_equal(trn_band_stand_in("nir"), "nir08");
    assert_string_equal(trn_band_stand_in("nir08"), "nir");
    assert_null(trn_band_stand_in("red"));
    assert_null(trn_band_stand_in("nir09"));
    assert_null(trn_band_stand_in("1"));
}

static void definitions_are_checked(void **state)
{
    (void)state;
    trn_arena *arena = trn_arena_create();
    trn_error err = {0};
    trn_band bands[] = {{.name = "one", .common = "NIR_NARROW", .wavelength_um = 0.8}, {.name = "ONE"}};
    trn_sensor sensor = {.name = "mine", .scale = 1, .bands = bands, .band_count = 2, .nodata = NAN};
    assert_null(trn_sensor_define(arena, &sensor, &err));
    assert_trn_fails(err.code, TRN_ERR_ARGUMENT, err, "two bands 'ONE'");
    bands[1].name = "two";
    bands[1].wavelength_um = 842;
    assert_null(trn_sensor_define(arena, &sensor, &err));
    assert_trn_fails(err.code, TRN_ERR_ARGUMENT, err, "nanometres");
    bands[1].wavelength_um = 0.842;
    sensor.scale = 0;
    assert_null(trn_sensor_define(arena, &sensor, &err));
    sensor.scale = 1;
    const trn_sensor *copy = trn_sensor_define(arena, &sensor, &err);
    assert_non_null(copy);
    assert_string_equal(copy->bands[0].common, "nir08");
    assert_int_equal(trn_sensor_band(copy, "two"), 1);
    sensor.band_count = 0;
    assert_null(trn_sensor_define(arena, &sensor, &err));
    sensor.name = NULL;
    assert_null(trn_sensor_define(arena, &sensor, &err));
    trn_arena_destroy(arena);
}

static void names_of_units_and_numbers(void **state)
{
    (void)state;
    assert_string_equal(trn_unit_name(TRN_UNIT_REFLECTANCE), "reflectance");
    assert_string_equal(trn_unit_name(TRN_UNIT_ANY), "any");
    assert_true(trn_band_is_number("12") && !trn_band_is_number("") && !trn_band_is_number(NULL) &&
                !trn_band_is_number("B4"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_of_units_and_numbers),
        cmocka_unit_test(tables_are_consistent),
        cmocka_unit_test(aliases_find_sensors),
        cmocka_unit_test(spellings_find_bands),
        cmocka_unit_test(counts_choose_bands),
        cmocka_unit_test(definitions_are_checked),
        cmocka_unit_test(stand_ins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
