/* terrane tune from end to end: what it prints and keeps, and what runs tell of it. */
#include "command_run.h"

#define CACHE "XDG_CACHE_HOME=$PWD/cache"
#define SMALL "-c img_size=32 -c dim=64 -c depth=1 -c heads=2 "
#define TUNE "tune --model mae-vit-base " SMALL

static const char recipe[] = "local terrane = require \"terrane\"\n"
                             "return terrane.embed {\n"
                             "    scene = terrane.scene { \"scene.tif\" },\n"
                             "    encoders = { terrane.encoder { \"rcf\", features = 8, cell = 8 } },\n"
                             "    tile = 32, overlap = 8,\n"
                             "    export = { \"e.npy\" },\n"
                             "}\n";

static double number(const cJSON *json, const char *name)
{
    const cJSON *item = cJSON_GetObjectItem(json, name);
    assert_non_null(item);
    return cJSON_GetNumberValue(item);
}

static void check_kernel(const cJSON *kernel)
{
    const char *chosen = cJSON_GetStringValue(cJSON_GetObjectItem(kernel, "chosen"));
    const cJSON *candidate;
    bool found = false;
    assert_non_null(chosen);
    assert_true(number(kernel, "nodes") >= 1);
    assert_true(number(kernel, "gain") >= 1);
    cJSON_ArrayForEach (candidate, cJSON_GetObjectItem(kernel, "candidates")) {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(candidate, "name"));
        assert_non_null(name);
        if (strcmp(name, chosen) != 0) continue;
        found = true;
        assert_true(number(candidate, "seconds") > 0);
    }
    assert_true(found);
}

static void tunes_an_encoder(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    const cJSON *kernel;
    assert_works(terrane(dir, CACHE, TUNE "--training --seconds 20 --json -q"));
    cJSON *json = said_json();
    assert_true(number(json, "nodes") >= number(json, "distinct"));
    assert_true(number(json, "distinct") >= number(json, "measured"));
    assert_true(number(json, "measured") > 0);
    assert_true(number(json, "chosen_seconds") <= number(json, "default_seconds"));
    cJSON_ArrayForEach (kernel, cJSON_GetObjectItem(json, "kernels"))
        check_kernel(kernel);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "kernels")), (int)number(json, "measured"));
    cJSON_Delete(json);
    assert_works(terrane(dir, CACHE, "tune --clear --json -q"));
    json = said_json();
    assert_true(number(json, "forgotten") > 0);
    cJSON_Delete(json);
    assert_works(terrane(dir, CACHE, "tune --clear"));
    assert_true(says("0 measurements forgotten"));
}

/* What was measured shows when the recipe is explained, and is switched off by a word. */
static void tunes_a_recipe(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    put_scene(dir, "scene.tif", &(test_raster){.width = 64, .height = 64, .bands = 2});
    put_text(dir, "a.lua", recipe);
    assert_works(terrane(dir, CACHE, "run a.lua --explain"));
    assert_true(says("not measured here") && !says("(measured"));
    assert_works(terrane(dir, CACHE, "tune a.lua --seconds 60"));
    assert_true(says("default") && says("kinds of work measured"));
    assert_works(terrane(dir, CACHE, "run a.lua --explain"));
    assert_true(says("(measured"));
    assert_works(terrane(dir, CACHE " TERRANE_DISABLE=tuning", "run a.lua --explain"));
    assert_true(!says("(measured"));
    assert_works(terrane(dir, CACHE, "run a.lua"));
    assert_holds(dir, "a.lua,cache,out,scene.tif");
}

static void wrong_uses_are_refused(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    assert_fails(terrane(dir, CACHE, "tune"), TRN_ERR_ARGUMENT, "--model NAME");
    assert_fails(terrane(dir, CACHE, "tune --clear --model presto"), TRN_ERR_ARGUMENT, "--clear");
    assert_fails(terrane(dir, CACHE, "tune no.lua"), TRN_ERR_IO, "no.lua");
    assert_fails(terrane(dir, CACHE, "tune --model presot"), TRN_ERR_ARGUMENT, "presto");
    assert_fails(terrane(dir, CACHE, "tune no.lua --training"), TRN_ERR_ARGUMENT,
                 "--training is for --model");
    assert_fails(terrane(dir, CACHE, "tune --model presto --seconds 0"), TRN_ERR_ARGUMENT, "seconds");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tunes_an_encoder),
        cmocka_unit_test(tunes_a_recipe),
        cmocka_unit_test(wrong_uses_are_refused),
    };
    return cmocka_run_group_tests_name("command tune", tests, NULL, NULL);
}
