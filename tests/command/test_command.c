/* The command from end to end: what it writes, what it prints, how it is stopped. */
#include "command_run.h"
#include "export.h"

#include <math.h>
#include <unistd.h>

#define RCF "--model rcf -c features=8 --tile 32 "

static void helps(void **state)
{
    (void)state;
    static const char *const commands[] = {"embed", "run",  "check",  "devices", "selftest",
                                           "bench", "tune", "models", "pull",    "version"};
    char *dir = test_temp_dir(), line[64];
    assert_works(terrane(dir, "", "help"));
    for (size_t i = 0; i < TRN_COUNT(commands); i++)
        assert_true(says(commands[i]));
    for (size_t i = 0; i < TRN_COUNT(commands); i++) {
        snprintf(line, sizeof line, "%s --help", commands[i]);
        assert_works(terrane(dir, "", line));
        assert_true(says("usage: terrane ") && says("example:\n  terrane ") && says("--json"));
        snprintf(line, sizeof line, "help %s", commands[i]);
        assert_works(terrane(dir, "", line));
        assert_true(says("example:"));
    }
    assert_works(terrane(dir, "", "version"));
    assert_string_equal(said, "terrane " TRN_VERSION "\n");
    assert_works(terrane(dir, "", "--version"));
    assert_int_equal(terrane(dir, "", ""), TRN_ERR_ARGUMENT);
    assert_true(says("usage:"));
}

static void wrong_options(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    assert_fails(terrane(dir, "", "embde"), TRN_ERR_ARGUMENT, "did you mean 'embed'?");
    assert_fails(terrane(dir, "", "embed a.tif --modle x"), TRN_ERR_ARGUMENT, "did you mean '--model'?");
    assert_fails(terrane(dir, "", "embed a.tif -z"), TRN_ERR_ARGUMENT, "unknown option '-z'");
    assert_fails(terrane(dir, "", "embed"), TRN_ERR_ARGUMENT, "too few arguments");
    assert_fails(terrane(dir, "", "models extra"), TRN_ERR_ARGUMENT, "unknown word 'extra'");
    assert_fails(terrane(dir, "", "embed a.tif --tile"), TRN_ERR_ARGUMENT, "--tile wants a value");
    assert_fails(terrane(dir, "", "embed a.tif --tile 3x"), TRN_ERR_ARGUMENT,
                 "--tile is '3x'; wanted an integer from 1");
    assert_fails(terrane(dir, "", "embed a.tif --tile=0"), TRN_ERR_ARGUMENT, "--tile is '0'");
    assert_fails(terrane(dir, "", "embed a.tif --quiet=1"), TRN_ERR_ARGUMENT, "takes no value");
    assert_fails(terrane(dir, "", "embed a.tif --pool maen"), TRN_ERR_ARGUMENT, "did you mean 'mean'?");
    assert_fails(terrane(dir, "", "embed a.tif --memory-limit 5X"), TRN_ERR_ARGUMENT, "512M");
    assert_fails(terrane(dir, "", "embed a.tif --memory-limit 99999999999T"), TRN_ERR_ARGUMENT, "512M");
    assert_fails(terrane(dir, "", "embed a.tif --bands red,,blue"), TRN_ERR_ARGUMENT, "commas");
    assert_fails(terrane(dir, "", "embed a.tif"), TRN_ERR_ARGUMENT, "give --model");
    assert_fails(terrane(dir, "", "embed a.tif -m rcf"), TRN_ERR_ARGUMENT, "give -o");
    assert_fails(terrane(dir, "", "embed a.tif -m rcf -o a.npy --offset 1"), TRN_ERR_ARGUMENT, "--scale");
    assert_fails(terrane(dir, "", "embed a.tif -m rcf -o a.npy -c features"), TRN_ERR_ARGUMENT, "KEY=VALUE");
    assert_fails(terrane(dir, "", "embed a.tif -m rfc -o a.npy"), TRN_ERR_IO, "a.tif");
    /* a failure is told to machines as well */
    assert_int_equal(terrane(dir, "", "embed a.tif -m rcf -o a.npy --json"), TRN_ERR_IO);
    cJSON *json = said_json();
    assert_int_equal(cJSON_GetNumberValue(cJSON_GetObjectItem(json, "code")), TRN_ERR_IO);
    assert_non_null(strstr(cJSON_GetStringValue(cJSON_GetObjectItem(json, "error")), "a.tif"));
    cJSON_Delete(json);
    assert_fails(terrane(dir, "", "models > /dev/full"), TRN_ERR_IO, "standard output");
    assert_holds(dir, "");
}

static void embeds_a_scene(void **state)
{
    (void)state;
    trn_error err = {0};
    char *dir = test_temp_dir();
    put_scene(dir, "scene.tif", &(test_raster){.width = 100, .height = 75, .bands = 3});
    assert_works(terrane(dir, "", "embed scene.tif " RCF "-o e.tif -o e.npy -o e.png"));
    assert_true(says("13 x 10, 8 channels"));
    assert_holds(dir, "e.json,e.npy,e.png,e.tif,scene.tif");
    char *path = test_path(dir, "e.tif");
    trn_scene *made;
    assert_trn_ok(trn_scene_open((const char *const[]){path}, 1, &(trn_scene_options){0}, &made, &err), err);
    const trn_scene_info *info = trn_scene_get_info(made);
    assert_int_equal(info->width, 13);
    assert_int_equal(info->height, 10);
    assert_int_equal(info->band_count, 8);
    assert_int_equal(info->georef.epsg, TEST_RASTER_EPSG);
    const double wanted[] = {TEST_RASTER_EAST,      8 * TEST_RASTER_PIXEL, 0, TEST_RASTER_NORTH, 0,
                             -8 * TEST_RASTER_PIXEL};
    for (int i = 0; i < 6; i++)
        assert_float_equal(info->georef.transform[i], wanted[i], 1e-6);
    /* the same numbers in both formats */
    char *npy = test_path(dir, "e.npy");
    float *data, tif[13 * 10];
    int64_t shape[3];
    int ndim;
    assert_trn_ok(trn_npy_read(npy, &data, shape, 3, &ndim, &err), err);
    for (int band = 0; band < 8; band++) {
        assert_trn_ok(trn_scene_read(made, &band, 1, 0, 0, 13, 10, tif, NULL, &err), err);
        for (int i = 0; i < 130; i++)
            assert_true(tif[i] == data[i * 8 + band]);
    }
    free(data);
    free(npy);
    free(path);
    trn_scene_close(made);
    assert_works(terrane(dir, "", "embed scene.tif " RCF "-q -o q.npy"));
    assert_string_equal(said, "");
    assert_works(terrane(dir, "", "embed scene.tif " RCF "--pool mean -o v.tif"));
    assert_true(says("4 x 3, 8 channels"));
    assert_works(terrane(dir, "", "embed scene.tif " RCF "--explain"));
    assert_true(says("100 x 75 pixels") && says("kernel"));
}

static void embeds_in_float16(void **state)
{
    (void)state;
    trn_error err = {0};
    char *dir = test_temp_dir();
    float *data[2];
    int64_t shape[3];
    int ndim;
    size_t size;
    put_scene(dir, "scene.tif", &(test_raster){.width = 100, .height = 75, .bands = 3});
    assert_works(terrane(dir, "", "embed scene.tif " RCF "-o a.npy"));
    assert_works(terrane(dir, "", "embed scene.tif " RCF "-o b.npy --precision float16"));
    for (int i = 0; i < 2; i++) {
        char *path = test_path(dir, i ? "b.npy" : "a.npy");
        assert_trn_ok(trn_npy_read(path, &data[i], shape, 3, &ndim, &err), err);
        free(path);
    }
    bool differs = false;
    for (int i = 0; i < 13 * 10 * 8; i++) {
        assert_float_equal(data[1][i], data[0][i], 5e-3 * (1 + fabs((double)data[0][i])));
        differs |= fabsf(data[1][i] - data[0][i]) > 0;
    }
    assert_true(differs);
    free(data[0]);
    free(data[1]);
    char *path = test_path(dir, "b.json"), *sidecar = trn_read_file(path, 1 << 20, &size, &err);
    if (!sidecar) fail_msg("%s", err.message);
    assert_non_null(strstr(sidecar, "\"precision\": \"float16\""));
    free(sidecar);
    free(path);
    assert_works(terrane(dir, "", "embed scene.tif " RCF "--explain --precision float16"));
    assert_true(says("precision float16") && says("stored as float16") && says("the host reads it"));
    const char *without = "TERRANE_DISABLE=fp16";
    assert_fails(terrane(dir, without, "embed scene.tif " RCF "-o c.npy --precision float16"),
                 TRN_ERR_UNSUPPORTED, "under TERRANE_DISABLE=fp16: take precision float32 or auto");
    assert_works(terrane(dir, without, "embed scene.tif " RCF "--explain --precision auto"));
    assert_true(says("precision float32") && !says("stored as float16"));
    assert_fails(terrane(dir, "", "embed scene.tif " RCF "-o c.npy --precision half"), TRN_ERR_ARGUMENT,
                 "--precision");
}

static void embeds_odd_sizes(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    put_scene(dir, "thin.tif", &(test_raster){.width = 7, .height = 150, .bands = 2});
    put_scene(dir, "dot.tif", &(test_raster){.width = 1, .height = 1, .bands = 2});
    assert_works(terrane(dir, "", "embed thin.tif --model rcf -c features=8 -o a.tif"));
    assert_true(says("1 x 19, 8 channels"));
    assert_works(terrane(dir, "", "embed thin.tif --model rcf -c features=8 --tile 8 -o a.tif"));
    assert_works(terrane(dir, "", "embed thin.tif --model rcf -c features=8 --cell 24 --tile 48 -o a.tif"));
    assert_true(says("1 x 7, 8 channels"));
    assert_works(
        terrane(dir, "", "embed thin.tif --model rcf -c features=8 --tile 500 --overlap 0 -o a.tif"));
    assert_fails(terrane(dir, "", "embed dot.tif --model rcf -c features=8 -o b.tif"), TRN_ERR_ARGUMENT,
                 "smaller than a filter");
    assert_holds(dir, "a.tif,dot.tif,thin.tif");
}

static void embeds_a_folder(void **state)
{
    (void)state;
    trn_error err = {0};
    char *dir = test_temp_dir(), *sub = test_path(dir, "images"), name[32];
    assert_trn_ok(trn_make_dirs(sub, &err), err);
    for (int i = 0; i < 3; i++) {
        snprintf(name, sizeof name, "%d.tif", i);
        put_scene(sub, name, &(test_raster){.width = 32, .height = 32, .bands = 3});
    }
    assert_works(terrane(dir, "", "embed images --model rcf -c features=8 -o v.npy --json"));
    assert_true(says("{\"progress\": {\"stage\": \"images\", \"done\": 3, \"total\": 3"));
    cJSON *json = said_json();
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(json, "ok")));
    assert_int_equal(cJSON_GetNumberValue(cJSON_GetObjectItem(json, "images")), 3);
    assert_int_equal(cJSON_GetNumberValue(cJSON_GetObjectItem(json, "channels")), 8);
    cJSON_Delete(json);
    assert_works(
        terrane(dir, "", "embed images/0.tif images/1.tif --each --model rcf -c features=8 -o w.npy"));
    assert_holds(dir, "images,v.json,v.npy,w.json,w.npy");
    free(sub);
}

static const char recipe[] =
    "local terrane = require \"terrane\"\n"
    "local p = terrane.params {\n"
    "    scene = { default = \"scene.tif\", help = \"GeoTIFF to embed\" },\n"
    "    features = { default = 8, min = 2, max = 64, help = \"features per encoder\" },\n"
    "}\n"
    "return terrane.embed {\n"
    "    title = \"two views\",\n"
    "    scene = terrane.scene { p.scene },\n"
    "    encoders = {\n"
    "        terrane.encoder { \"rcf\", features = p.features, cell = 8 },\n"
    "        terrane.encoder { \"rcf\", features = p.features, patch = 9, cell = 8 },\n"
    "    },\n"
    "    fusion = terrane.concat { cell = 8 },\n"
    "    tile = 32, overlap = 8,\n"
    "    export = { \"e.tif\", \"e.png\" },\n"
    "}\n";

static void runs_recipes(void **state)
{
    (void)state;
    char *dir = test_temp_dir(), *out;
    put_scene(dir, "scene.tif", &(test_raster){.width = 64, .height = 64, .bands = 2});
    put_text(dir, "two.lua", recipe);
    assert_works(terrane(dir, "", "check two.lua"));
    assert_true(says("2 encoders, 2 outputs"));
    assert_works(terrane(dir, "", "run two.lua --help"));
    assert_true(says("two views") && says("features per encoder") && says("default: 8"));
    assert_works(terrane(dir, "", "run two.lua --set features=4"));
    assert_true(says("8 x 8, 8 channels"));
    out = test_path(dir, "out/two");
    assert_holds(out, "e.png,e.tif,result.json");
    free(out);
    assert_works(terrane(dir, "", "run two.lua --out elsewhere --json"));
    cJSON *json = said_json();
    assert_int_equal(cJSON_GetNumberValue(cJSON_GetObjectItem(json, "channels")), 16);
    cJSON_Delete(json);
    assert_works(terrane(dir, "", "run two.lua --out nothing --explain"));
    assert_holds(dir, "elsewhere,out,scene.tif,two.lua");
    assert_fails(terrane(dir, "", "check two.lua --set feature=4"), TRN_ERR_ARGUMENT, "features");
    /* what only the job finds wrong names the recipe's line, too */
    assert_fails(terrane(dir, "", "check two.lua --set scene=no.tif"), TRN_ERR_IO, "two.lua:8");
    char *bad = strdup(recipe), *at = strstr(bad, "patch = 9");
    memcpy(at, "patsh = 9", 9);
    put_text(dir, "bad.lua", bad);
    free(bad);
    assert_fails(terrane(dir, "", "run bad.lua"), TRN_ERR_ARGUMENT, "bad.lua:11");
    assert_true(says("did you mean 'patch'?"));
}

/* The second start of the same work compiles no shader. */
static void starts_warm(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    put_scene(dir, "scene.tif", &(test_raster){.width = 64, .height = 64, .bands = 2});
    for (int i = 0; i < 2; i++) {
        assert_works(terrane(dir, "XDG_CACHE_HOME=$PWD/cache", "embed scene.tif " RCF "-o e.npy --json"));
        cJSON *json = said_json();
        const cJSON *compiled = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "stats"), "shaders_compiled");
        assert_non_null(compiled);
        if (i == 0)
            assert_true(cJSON_GetNumberValue(compiled) > 0);
        else
            assert_int_equal(cJSON_GetNumberValue(compiled), 0);
        cJSON_Delete(json);
    }
}

static void lists_devices(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    assert_works(terrane(dir, "", "devices"));
    assert_true(says("0: ") && says("subgroup") && says("kernels"));
    assert_works(terrane(dir, "", "devices --json"));
    cJSON *json = said_json();
    const cJSON *first = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "devices"), 0);
    assert_true(cJSON_GetArraySize(cJSON_GetObjectItem(first, "kernels")) > 0);
    cJSON_Delete(json);
    assert_works(terrane(dir, "", "models --json"));
    json = said_json();
    assert_true(cJSON_GetArraySize(cJSON_GetObjectItem(json, "models")) > 2);
    cJSON_Delete(json);
    assert_fails(terrane(dir, "", "selftest --device 99"), TRN_ERR_ARGUMENT, "99");
}

static void tests_itself(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    assert_works(terrane(dir, "", "selftest --only softmax"));
    assert_true(says(" ok") && says(" good on "));
    assert_works(terrane(dir, "", "selftest --only model"));
    assert_true(says("vit") && says("galileo") && says("rcf"));
    assert_works(terrane(dir, "", "selftest --only reduce --json"));
    assert_true(says("\"ok\": true, \"run\": "));
    assert_fails(terrane(dir, "", "selftest --only nosuchthing"), TRN_ERR_ARGUMENT, "nosuchthing");
}

/* The first progress line comes before the first window: stopping then is in the middle of the work. */
static void stops_on_request(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    put_scene(dir, "scene.tif", &(test_raster){.width = 1024, .height = 512, .bands = 3});
    trn_text line = {0};
    for (int i = 0; i < 2; i++) {
        trn_text_free(&line);
        trn_text_printf(
            &line,
            "cd '%s' && { '%s' embed scene.tif --model rcf -c features=128 --tile 64 --batch 1 --json "
            "-o e.tif -o e.npy -o e.png > out.txt 2> log.txt & } ; pid=$! ; "
            "for i in $(seq 600); do grep -q progress log.txt && break; sleep 0.05; done; "
            "kill -%s $pid; wait $pid; status=$?; cat log.txt; rm -f log.txt out.txt; exit $status",
            dir, getenv("TERRANE_COMMAND"), i ? "TERM" : "INT");
        free(said);
        int status = test_run(trn_text_get(&line), &said);
        assert_fails(status, TRN_ERR_CANCELLED, "stopped");
        assert_holds(dir, "scene.tif");
    }
    trn_text_free(&line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(helps),
        cmocka_unit_test(wrong_options),
        cmocka_unit_test(embeds_a_scene),
        cmocka_unit_test(embeds_in_float16),
        cmocka_unit_test(embeds_odd_sizes),
        cmocka_unit_test(embeds_a_folder),
        cmocka_unit_test(runs_recipes),
        cmocka_unit_test(starts_warm),
        cmocka_unit_test(lists_devices),
        cmocka_unit_test(tests_itself),
        cmocka_unit_test(stops_on_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
