/* What can go wrong outside: each failure is one clear line and the right exit status, and leaves no file
 * behind. */
#include "command_run.h"

#include <math.h>

#define RCF "--model rcf -c features=8 --tile 32 "
#define TINY_VIT                                                                                             \
    "--model mae-vit-base -c img_size=32 -c patch=8 -c dim=48 -c depth=3 -c heads=4 --sensor rgb "

static char *scene_dir(void)
{
    char *dir = test_temp_dir();
    put_scene(dir, "scene.tif", &(test_raster){.width = 64, .height = 64, .bands = 3});
    return dir;
}

/* A copy of a file with `change` applied to its bytes. */
static void put_changed(const char *from, const char *dir, const char *name, size_t keep, size_t at,
                        char flip)
{
    trn_error err = {0};
    size_t size;
    char *bytes = trn_read_file(from, 1 << 26, &size, &err), *path = test_path(dir, name);
    assert_non_null(bytes);
    if (keep < size) size = keep;
    if (at < size) bytes[at] = (char)(bytes[at] ^ flip);
    assert_trn_ok(trn_write_file(path, bytes, size, &err), err);
    free(bytes);
    free(path);
}

static char *golden(const char *name)
{
    const char *path = test_golden_path(name);
    if (!path) fail_msg("%s is missing from the test data", name);
    return strdup(path);
}

static void damaged_weights(void **state)
{
    (void)state;
    char *dir = scene_dir();
    char *safe = golden("vit_tiny_mae/vit_tiny_mae.safetensors"),
         *torch = golden("vit_tiny_mae/vit_tiny_mae.pt");
    trn_text good = {0};
    trn_text_printf(&good, "embed scene.tif " TINY_VIT "-w '%s' -o good.npy", safe);
    assert_works(terrane(dir, "", trn_text_get(&good)));
    trn_text_free(&good);

    put_changed(safe, dir, "w.bin", 100, SIZE_MAX, 0);
    assert_fails(terrane(dir, "", "embed scene.tif " TINY_VIT "-w w.bin -o e.npy"), TRN_ERR_FORMAT, "w.bin");
    put_changed(safe, dir, "w.bin", 100000, SIZE_MAX, 0);
    assert_fails(terrane(dir, "", "embed scene.tif " TINY_VIT "-w w.bin -o e.npy"), TRN_ERR_FORMAT, "w.bin");
    put_changed(safe, dir, "w.bin", SIZE_MAX, 6, 0x7f); /* a header of absurd length */
    assert_fails(terrane(dir, "", "embed scene.tif " TINY_VIT "-w w.bin -o e.npy"), TRN_ERR_FORMAT, "w.bin");
    put_changed(safe, dir, "w.bin", SIZE_MAX, 8, 0x7f); /* no JSON */
    assert_fails(terrane(dir, "", "embed scene.tif " TINY_VIT "-w w.bin -o e.npy"), TRN_ERR_FORMAT, "w.bin");
    put_changed(torch, dir, "w.bin", 200000, SIZE_MAX, 0);
    assert_fails(terrane(dir, "", "embed scene.tif " TINY_VIT "-w w.bin -o e.npy"), TRN_ERR_FORMAT, "w.bin");
    put_text(dir, "w.bin", "");
    assert_fails(terrane(dir, "", "embed scene.tif " TINY_VIT "-w w.bin -o e.npy"), TRN_ERR_FORMAT, "w.bin");
    put_text(dir, "w.bin", "not weights at all");
    assert_fails(terrane(dir, "", "embed scene.tif " TINY_VIT "-w w.bin -o e.npy"), TRN_ERR_FORMAT, "w.bin");
    assert_fails(terrane(dir, "", "embed scene.tif " TINY_VIT "-w none.pt -o e.npy"), TRN_ERR_IO, "none.pt");
    assert_fails(terrane(dir, "", "embed scene.tif " TINY_VIT "-o e.npy"), TRN_ERR_ARGUMENT, "needs weights");
    /* in order, but of another size: every tensor is held against the configuration */
    trn_text other = {0};
    trn_text_printf(&other, "embed scene.tif " TINY_VIT "-c dim=64 -w '%s' -o e.npy", safe);
    int status = terrane(dir, "", trn_text_get(&other));
    assert_true(status == TRN_ERR_FORMAT || status == TRN_ERR_ARGUMENT);
    assert_true(says("of another shape"));
    trn_text_free(&other);
    /* a header that lies about the place of a tensor */
    put_text(dir, "w.bin", "0");
    static const char lie[] =
        "{\"cls_token\":{\"dtype\":\"F32\",\"shape\":[1,1,48],\"data_offsets\":[0,99999999999]}}";
    char file[sizeof lie + 8] = {0};
    file[0] = (char)(sizeof lie - 1);
    memcpy(file + 8, lie, sizeof lie - 1);
    trn_error err = {0};
    char *path = test_path(dir, "w.bin");
    assert_trn_ok(trn_write_file(path, file, 8 + sizeof lie - 1, &err), err);
    assert_fails(terrane(dir, "", "embed scene.tif " TINY_VIT "-w w.bin -o e.npy"), TRN_ERR_FORMAT, "w.bin");
    assert_holds(dir, "good.json,good.npy,scene.tif,w.bin");
    free(path);
    free(safe);
    free(torch);
}

static void damaged_scenes(void **state)
{
    (void)state;
    char *dir = scene_dir(), *scene = test_path(dir, "scene.tif");
    put_changed(scene, dir, "bad.tif", 100, SIZE_MAX, 0);
    assert_fails(terrane(dir, "", "embed bad.tif " RCF "-o e.tif"), TRN_ERR_FORMAT, "bad.tif");
    put_changed(scene, dir, "bad.tif", 6000, SIZE_MAX, 0);
    assert_fails(terrane(dir, "", "embed bad.tif " RCF "-o e.tif"), TRN_ERR_FORMAT, "bad.tif");
    put_changed(scene, dir, "bad.tif", SIZE_MAX, 4, 0x7f); /* the directory is elsewhere */
    assert_fails(terrane(dir, "", "embed bad.tif " RCF "-o e.tif"), TRN_ERR_FORMAT, "bad.tif");
    put_text(dir, "bad.tif", "");
    assert_fails(terrane(dir, "", "embed bad.tif " RCF "-o e.tif"), TRN_ERR_FORMAT, "bad.tif");
    put_text(dir, "bad.tif", "no image");
    int status = terrane(dir, "", "embed bad.tif " RCF "-o e.tif");
    assert_true(status == TRN_ERR_FORMAT || status == TRN_ERR_UNSUPPORTED);
    assert_fails(terrane(dir, "", "embed none.tif " RCF "-o e.tif"), TRN_ERR_IO, "none.tif");
    /* files of one scene that do not lie on each other */
    put_scene(dir, "small.tif", &(test_raster){.width = 32, .height = 64, .bands = 1});
    status = terrane(dir, "", "embed scene.tif small.tif " RCF "-o e.tif");
    assert_int_not_equal(status, 0);
    assert_true(status < 10 && says("small.tif") && says("scene.tif"));
    assert_holds(dir, "bad.tif,scene.tif,small.tif");
    free(scene);
}

static void missing_bands(void **state)
{
    (void)state;
    char *dir = scene_dir(), *weights = golden("galileo_nano/encoder.safetensors");
    trn_text line = {0};
    trn_text_printf(&line,
                    "embed scene.tif --model galileo-nano -w '%s' -o e.tif --sensor naip --bands nir,red",
                    weights);
    assert_fails(terrane(dir, "", trn_text_get(&line)), TRN_ERR_ARGUMENT, "naip");
    assert_fails(terrane(dir, "", "embed scene.tif --sensor rgb --bands red,nir " RCF "-o e.tif"),
                 TRN_ERR_ARGUMENT, "'nir'");
    assert_fails(terrane(dir, "", "embed scene.tif --band-names a,b " RCF "-o e.tif"), TRN_ERR_ARGUMENT, "2");
    assert_fails(terrane(dir, "", "embed scene.tif --sensor landsat77 " RCF "-o e.tif"), TRN_ERR_ARGUMENT,
                 "landsat7");
    assert_holds(dir, "scene.tif");
    trn_text_free(&line);
    free(weights);
}

static double hole(int band, int x, int y)
{
    return x < 32 ? NAN : test_raster_texture(band, x, y);
}
static double nothing(int band, int x, int y)
{
    (void)band, (void)x, (void)y;
    return NAN;
}

static void scenes_with_holes(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    put_scene(dir, "nan.tif",
              &(test_raster){.width = 96, .height = 32, .bands = 2, .type = TEST_RASTER_F32, .value = hole});
    assert_works(terrane(dir, "", "embed nan.tif " RCF "-o e.tif"));
    put_scene(dir, "zero.tif",
              &(test_raster){.width = 96, .height = 32, .bands = 2, .type = TEST_RASTER_U16, .value = hole});
    assert_works(terrane(dir, "", "embed zero.tif --nodata 0 " RCF "-o f.tif"));
    assert_works(terrane(dir, "", "embed zero.tif --nodata nan " RCF "-o f.tif"));
    put_scene(
        dir, "none.tif",
        &(test_raster){.width = 96, .height = 32, .bands = 2, .type = TEST_RASTER_F32, .value = nothing});
    assert_fails(terrane(dir, "", "embed none.tif " RCF "-o g.tif"), TRN_ERR_ARGUMENT, "without nodata");
    assert_holds(dir, "e.tif,f.tif,nan.tif,none.tif,zero.tif");
}

static void outputs_refused(void **state)
{
    (void)state;
    char *dir = scene_dir();
    put_text(dir, "file", "x");
    assert_fails(terrane(dir, "", "embed scene.tif " RCF "-o no/such/folder/e.tif"), TRN_ERR_IO,
                 "no/such/folder/e.tif");
    assert_fails(terrane(dir, "", "embed scene.tif " RCF "-o file/e.tif"), TRN_ERR_IO, "file/e.tif");
    assert_fails(terrane(dir, "", "embed scene.tif " RCF "-o e.jpg"), TRN_ERR_ARGUMENT, "unknown extension");
    assert_fails(terrane(dir, "", "embed scene.tif " RCF "-o scene.tif"), TRN_ERR_ARGUMENT,
                 "overwrite the scene");
    assert_fails(terrane(dir, "", "embed scene.tif " RCF "-o e.tif --compression zip"), TRN_ERR_ARGUMENT,
                 "zip");
    assert_holds(dir, "file,scene.tif");
}

/* Newer drivers without a GPU keep the device's memory in files: a limit on files kills them (SIGBUS) before
 * a result is written. */
static bool limit_kills_driver(const char *dir)
{
    enum { SHELL_SIGBUS = 128 + 7 };
    return terrane(dir, "ulimit -f 1;", "selftest --quiet") == SHELL_SIGBUS;
}

/* A disk that fills up, by a limit on the size of files: at once, and in the middle of each format. */
static void full_disk(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    if (limit_kills_driver(dir)) {
        print_message("full_disk: this driver cannot live with a limit on files\n");
        skip();
    }
    static const char *const outputs[] = {"e.tif --compression none", "e.tif", "e.npy"};
    put_scene(dir, "scene.tif", &(test_raster){.width = 256, .height = 256, .bands = 3});
    char line[256];
    /* the shader cache is filled first, so that the limit hits outputs alone */
    assert_works(terrane(dir, "", "embed scene.tif " RCF "-c features=64 -o warm.npy -q"));
    for (size_t i = 0; i < TRN_COUNT(outputs); i++) {
        for (int blocks = 1; blocks <= 64; blocks *= 8) {
            snprintf(line, sizeof line, "embed scene.tif " RCF "-c features=64 -o %s", outputs[i]);
            char limit[64];
            snprintf(limit, sizeof limit, "ulimit -f %d;", blocks);
            assert_fails(terrane(dir, limit, line), TRN_ERR_IO, "e.");
            assert_holds(dir, "scene.tif,warm.json,warm.npy");
        }
    }
}

static void no_device(void **state)
{
    (void)state;
    char *dir = scene_dir();
    static const char nothing_there[] = "VK_DRIVER_FILES=/nonexistent VK_ICD_FILENAMES=/nonexistent";
    assert_fails(terrane(dir, nothing_there, "devices"), TRN_ERR_DEVICE, "mesa-vulkan-drivers");
    assert_fails(terrane(dir, nothing_there, "embed scene.tif " RCF "-o e.tif"), TRN_ERR_DEVICE,
                 "mesa-vulkan-drivers");
    assert_fails(terrane(dir, nothing_there, "selftest"), TRN_ERR_DEVICE, "mesa-vulkan-drivers");
    assert_fails(terrane(dir, "", "embed scene.tif --device nosuch " RCF "-o e.tif"), TRN_ERR_ARGUMENT,
                 "nosuch");
    assert_fails(terrane(dir, "TERRANE_DEVICE=nosuch", "embed scene.tif " RCF "-o e.tif"), TRN_ERR_ARGUMENT,
                 "nosuch");
    assert_holds(dir, "scene.tif");
}

static void too_little_memory(void **state)
{
    (void)state;
    char *dir = scene_dir();
    assert_fails(terrane(dir, "", "embed scene.tif --memory-limit 8K " RCF "-o e.tif"), TRN_ERR_MEMORY,
                 "fits");
    assert_holds(dir, "scene.tif");
}

static void wrong_recipes(void **state)
{
    (void)state;
    char *dir = scene_dir();
    static const struct {
        const char *text, *says;
    } recipes[] = {
        {"", "r.lua"},
        {"return 5", "r.lua"},
        {"return {", "r.lua:1"},
        {"while true do end", "r.lua"},
        {"local s = 'x' while true do s = s .. s end", "r.lua"},
        {"local t = require 'terrane'\nreturn t.embed { encoder = 5 }", "r.lua:2"},
        {"os.exit(0)", "r.lua:1"},
        {"\x1bLua", "r.lua"},
        {"local t = require 'terrane'\nreturn t.embed {\n scene = t.scene { 'scene.tif' },\n"
         " encoders = { t.encoder { 'nosuch' } },\n export = { 'e.tif' } }",
         "r.lua:4"},
        {"local t = require 'terrane'\nreturn t.embed {\n scene = t.scene { 'gone.tif' },\n"
         " encoders = { t.encoder { 'rcf' } },\n export = { 'e.tif' } }",
         "r.lua:3"},
    };
    for (size_t i = 0; i < TRN_COUNT(recipes); i++) {
        put_text(dir, "r.lua", recipes[i].text);
        int status = terrane(dir, "", "check r.lua");
        if (status < 1 || status > 6 || status == 1 || !says(recipes[i].says) || !says("terrane: error: "))
            fail_msg("recipe %zu: status %d, %s", i, status, said);
        assert_int_equal(terrane(dir, "", "run r.lua --out out"), status);
    }
    assert_fails(terrane(dir, "", "run none.lua"), TRN_ERR_IO, "none.lua");
    assert_holds(dir, "r.lua,scene.tif");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_weights), cmocka_unit_test(damaged_scenes),
        cmocka_unit_test(missing_bands),   cmocka_unit_test(scenes_with_holes),
        cmocka_unit_test(outputs_refused), cmocka_unit_test(full_disk),
        cmocka_unit_test(no_device),       cmocka_unit_test(too_little_memory),
        cmocka_unit_test(wrong_recipes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
