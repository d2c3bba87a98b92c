/* Series of dates by the command and by recipes: options, fields, what is said and recorded. */
#include "command_run.h"
#include "raster.h"

#include <tiffio.h>

#define TINY                                                                                                 \
    "-c img_size=32 -c dim=32 -c depth=1 -c heads=2 -c coords=time+location --tile 32 --overlap 0 --sensor " \
    "hls "
#define MODEL "--model prithvi-v2-100m-tl --weights w.safetensors " TINY

static double ground(int band, int x, int y)
{
    return 0.1 + 0.2 * test_raster_texture(band, x, y);
}

static void put_series(const char *dir)
{
    const test_raster raster = {
        .width = 64, .height = 32, .bands = 6, .type = TEST_RASTER_U16, .value = ground};
    put_scene(dir, "a_20180128.tif", &raster);
    put_scene(dir, "b_20180602.tif", &raster);
    assert_works(terrane(dir, "",
                         "synthesize prithvi-v2-100m-tl w.safetensors -c img_size=32 -c dim=32 -c depth=1 "
                         "-c heads=2 -c coords=time+location"));
}

static void options(void **state)
{
    (void)state;
    char *dir = strdup(test_temp_dir());
    put_series(dir);
    assert_works(terrane(dir, "", "embed a_20180128.tif b_20180602.tif " MODEL "-o s.npy"));
    assert_true(says(
        "a series of 2 dates of 6 bands: 1: a_20180128.tif (2018-01-28), 2: b_20180602.tif (2018-06-02)"));
    assert_works(terrane(dir, "", "embed a_20180128.tif b_20180602.tif " MODEL "--date 2 -o one.npy"));
    assert_works(terrane(dir, "", "embed b_20180602.tif " MODEL "-o alone.npy"));
    assert_works(terrane(dir, "cmp one.npy alone.npy && ", "version"));
    /* the place and the dates matter, and the job's come first */
    assert_works(terrane(dir, "", "embed b_20180602.tif " MODEL "--location=-33.9,18.4 -o far.npy"));
    assert_int_equal(terrane(dir, "cmp -s far.npy alone.npy && ", "version"), 1);
    assert_works(terrane(dir, "", "embed b_20180602.tif " MODEL "--dates 2018-06-02 -o said.npy"));
    assert_works(terrane(dir, "cmp said.npy alone.npy && ", "version"));
    assert_works(terrane(dir, "", "embed b_20180602.tif " MODEL "--dates 2019-06-02 -o later.npy"));
    assert_int_equal(terrane(dir, "cmp -s later.npy alone.npy && ", "version"), 1);
    assert_fails(terrane(dir, "", "embed b_20180602.tif " MODEL "--dates 2019-06-31 -o x.npy"),
                 TRN_ERR_ARGUMENT, "--dates: '2019-06-31' is no date; wanted one such as 2018-06-02");
    assert_fails(terrane(dir, "", "embed b_20180602.tif " MODEL "--location 5 -o x.npy"), TRN_ERR_ARGUMENT,
                 "--location wants latitude and longitude");
    assert_fails(terrane(dir, "", "embed b_20180602.tif " MODEL "--display 0 -o x.npy"), TRN_ERR_ARGUMENT,
                 "--display is 0; wanted a reflectance above 0");
    assert_fails(terrane(dir, "", "embed b_20180602.tif " MODEL "--display 0.3 -o x.npy"), TRN_ERR_ARGUMENT,
                 "display is for encoders of display bytes");
    assert_works(terrane(dir, "",
                         "bench --model prithvi-v2-100m-tl -c img_size=32 -c dim=32 -c depth=1 -c heads=2 "
                         "--dates 3 --runs 1 --json"));
    cJSON *json = said_json();
    assert_int_equal(cJSON_GetNumberValue(cJSON_GetObjectItem(json, "dates")), 3);
    assert_true(cJSON_GetNumberValue(cJSON_GetObjectItem(json, "seconds_per_image")) > 0);
    cJSON_Delete(json);
    assert_fails(terrane(dir, "", "bench --model mae-vit-base --dates 2"), TRN_ERR_ARGUMENT, "takes 1 date");
    free(dir);
}

/* Takes the CRS out of a file, and puts in when it was made. */
static void make_plain(const char *path)
{
    trn_tiff file;
    trn_error err = {0};
    assert_trn_ok(trn_tiff_open(&file, path, "r+", &err), err);
    assert_int_equal(TIFFUnsetField(file.handle, TRN_TIFF_GEO_KEYS), 1);
    assert_int_equal(TIFFSetField(file.handle, TIFFTAG_DATETIME, "2018:06:02 10:00:00"), 1);
    assert_int_equal(TIFFRewriteDirectory(file.handle), 1);
    trn_tiff_close(&file);
}

/* Without georeference or date the encoder works, and a note says what it does without. */
static void unknown(void **state)
{
    (void)state;
    char *dir = strdup(test_temp_dir());
    put_series(dir);
    put_scene(
        dir, "plain.tif",
        &(test_raster){.width = 32, .height = 32, .bands = 6, .type = TEST_RASTER_U16, .value = ground});
    assert_works(terrane(dir, "", "embed plain.tif " MODEL "-o a.npy"));
    assert_true(says("may use the date, and that of 'plain.tif' is not known"));
    char *path = test_path(dir, "plain.tif");
    make_plain(path);
    assert_works(terrane(dir, "", "embed plain.tif " MODEL "-o b.npy --explain"));
    assert_true(says("'plain.tif' has no georeference: encoders work without its place"));
    assert_true(says("1: 2018-06-02 by the TIFF tag DateTime"));
    assert_true(says("would see the place, which is not known"));
    free(path);
    free(dir);
}

#define RECIPE(scene, encoder)                                                                               \
    "local terrane = require 'terrane'\n"                                                                    \
    "return terrane.embed {\n"                                                                               \
    "  scene = terrane.scene { " scene " sensor = 'hls' },\n"                                                \
    "  encoders = { terrane.encoder { " encoder " } },\n"                                                    \
    "  tile = 32, export = 'e.npy' }\n"
#define PRITHVI                                                                                              \
    "'prithvi-v2-100m-tl', weights = 'w.safetensors', img_size = 32, dim = 32, depth = 1, heads = 2, "       \
    "coords = 'time+location'"

static void recipes(void **state)
{
    (void)state;
    char *dir = strdup(test_temp_dir());
    put_series(dir);
    put_text(dir, "r.lua",
             RECIPE("dates = { 'a_20180128.tif', { 'b_20180602.tif' } }, location = { 45, 15 },", PRITHVI));
    assert_works(terrane(dir, "", "run r.lua --out out"));
    char *out = test_path(dir, "out"), *path = test_path(out, "result.json");
    char *text = trn_read_file(path, 1 << 20, NULL, NULL);
    assert_non_null(text);
    cJSON *json = cJSON_Parse(text);
    const cJSON *scene = cJSON_GetObjectItem(json, "scene"), *dates = cJSON_GetObjectItem(scene, "dates");
    assert_int_equal(cJSON_GetArraySize(dates), 2);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(cJSON_GetArrayItem(dates, 1), "acquired")),
                        "2018-06-02");
    assert_int_equal(cJSON_GetNumberValue(cJSON_GetArrayItem(cJSON_GetObjectItem(scene, "location"), 0)), 45);
    cJSON_Delete(json);
    free(text);
    free(path);
    free(out);
    put_text(dir, "r.lua", RECIPE("'a_20180128.tif', 'b_20180602.tif',", "'rcf', features = 8"));
    assert_fails(terrane(dir, "", "check r.lua"), TRN_ERR_ARGUMENT, "r.lua:4: encoder 'rcf' takes 1 date");
    put_text(dir, "r.lua", RECIPE("'a_20180128.tif', 'b_20180602.tif',", "'rcf', features = 8, date = 2"));
    assert_works(terrane(dir, "", "check r.lua"));
    put_text(dir, "r.lua", RECIPE("'a_20180128.tif', acquired = { '2018-01-01', '2018-02-02' },", PRITHVI));
    assert_fails(terrane(dir, "", "check r.lua"), TRN_ERR_ARGUMENT, "r.lua:3: 2 acquisition dates are given");
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options),
        cmocka_unit_test(unknown),
        cmocka_unit_test(recipes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
