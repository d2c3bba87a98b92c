/* terrane synthesize: checkpoints made up, and what embed makes of them. */
#include <sys/stat.h>

#include "command_run.h"

#define SMALL "-c img_size=32 -c dim=24 -c depth=1 -c heads=2"
#define EMBED                                                                                                \
    "embed v.tif --model mae-vit-base --band-names red,green,blue --normalize none --tile 32 --overlap 0 "   \
    "-q "

static void put_small_scene(const char *dir)
{
    put_scene(dir, "v.tif", &(test_raster){.width = 32, .height = 32, .bands = 3});
}

/* Both containers hold the same numbers, and the same run gives the same file again. */
static void both_containers_embed_alike(void **state)
{
    (void)state;
    char *dir = strdup(test_temp_dir());
    put_small_scene(dir);
    assert_works(terrane(dir, "", "synthesize mae-vit-base a.pth " SMALL));
    assert_true(says("made-up weights"));
    assert_works(terrane(dir, "", "synthesize mae-vit-base b.pth -q " SMALL));
    assert_works(terrane(dir, "", "synthesize mae-vit-base c.safetensors -q " SMALL));
    assert_works(terrane(dir, "", EMBED "--weights a.pth -o a.npy " SMALL));
    assert_works(terrane(dir, "", EMBED "--weights c.safetensors -o c.npy " SMALL));
    free(said);
    said = NULL;
    char command[512];
    snprintf(command, sizeof command, "cd '%s' && cmp a.pth b.pth && cmp a.npy c.npy", dir);
    assert_int_equal(test_run(command, &said), 0);
    free(dir);
}

/* SAM 2 with the names of the authors' files, and with timm's: embed is told nothing of them. */
static void both_names_embed(void **state)
{
    (void)state;
    static const char *const given[] = {"", "-c names=official", "-c names=timm"};
    static const char small[] = "-c img_size=64 -c dim=16 -c stages=1,1,1,1 -c global_blocks=none -q";
    char *dir = strdup(test_temp_dir()), command[512];
    put_scene(dir, "v.tif", &(test_raster){.width = 32, .height = 32, .bands = 3});
    for (size_t i = 0; i < TRN_COUNT(given); i++) {
        snprintf(command, sizeof command, "synthesize sam2-hiera-tiny w%zu.pt %s %s", i, given[i], small);
        assert_works(terrane(dir, "", command));
        snprintf(command, sizeof command,
                 "embed v.tif --model sam2-hiera-tiny --weights w%zu.pt --band-names red,green,blue "
                 "--normalize none --tile 32 --overlap 0 -o w%zu.npy %s",
                 i, i, small);
        assert_works(terrane(dir, "", command));
    }
    free(said);
    said = NULL;
    snprintf(command, sizeof command, "cd '%s' && cmp w0.npy w1.npy && ! cmp -s w1.npy w2.npy", dir);
    assert_int_equal(test_run(command, &said), 0);
    free(dir);
}

static void machines_are_told(void **state)
{
    (void)state;
    char *dir = strdup(test_temp_dir());
    assert_works(terrane(dir, "", "synthesize galileo-nano nano.pt --json 2>/dev/null"));
    cJSON *json = said_json();
    char *path = test_path(dir, "nano.pt");
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "model")), "galileo-nano");
    assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "path")), "nano.pt");
    assert_int_equal((long long)cJSON_GetNumberValue(cJSON_GetObjectItem(json, "bytes")), info.st_size);
    cJSON_Delete(json);
    free(path);
    free(dir);
}

static void refusals_leave_no_file(void **state)
{
    (void)state;
    char *dir = strdup(test_temp_dir());
    assert_fails(terrane(dir, "", "synthesize mae-vit-base"), TRN_ERR_ARGUMENT, "usage: terrane synthesize");
    assert_fails(terrane(dir, "", "synthesize mae-vit-bass w.pt"), TRN_ERR_ARGUMENT, "mae-vit-base");
    assert_fails(terrane(dir, "", "synthesize mae-vit-base w.onnx"), TRN_ERR_ARGUMENT, ".safetensors");
    assert_fails(terrane(dir, "", "synthesize mae-vit-base w.pt --decoder"), TRN_ERR_ARGUMENT,
                 "has no decoder");
    assert_fails(terrane(dir, "", "synthesize rcf w.pt"), TRN_ERR_ARGUMENT, "takes no weights");
    assert_fails(terrane(dir, "", "synthesize mae-vit-base w.pt -c dim=25"), TRN_ERR_ARGUMENT, "heads");
    assert_fails(terrane(dir, "", "synthesize mae-vit-base no/w.pt -q " SMALL), TRN_ERR_IO, "no/w.pt");
    /* a full disk, as the shell can make one; blocks of 512 or 1024 bytes */
    assert_fails(terrane(dir, "trap '' XFSZ; ulimit -f 8;", "synthesize mae-vit-base w.pt -q " SMALL),
                 TRN_ERR_IO, "w.pt");
    assert_holds(dir, "");
    free(dir);
}

/* With the decoder a recipe draws. */
static void decoders_draw(void **state)
{
    (void)state;
    char *dir = strdup(test_temp_dir());
    put_scene(dir, "v.tif", &(test_raster){.width = 64, .height = 64, .bands = 3});
    put_text(dir, "draw.lua",
             "local terrane = require 'terrane'\n"
             "return terrane.reconstruct { scene = terrane.scene { 'v.tif', sensor = 'rgb' }, size = 64,\n"
             "encoder = terrane.encoder { 'mae-hiera-tiny', weights = 'w.pth', img_size = 32, dim = 8,\n"
             "stages = '1,1,1,1', decoder_dim = 16, decoder_depth = 1, decoder_heads = 2 } }\n");
    const char *small = "-c img_size=32 -c dim=8 -c stages=1,1,1,1 -c decoder_dim=16 -c decoder_depth=1 -c "
                        "decoder_heads=2 -q ";
    char command[512];
    snprintf(command, sizeof command, "synthesize mae-hiera-tiny w.pth %s", small);
    assert_works(terrane(dir, "", command));
    assert_fails(terrane(dir, "", "run draw.lua --out out -q"), TRN_ERR_FORMAT,
                 "'mask_token' [1,1,16] is missing");
    snprintf(command, sizeof command, "synthesize mae-hiera-tiny w.pth --decoder %s", small);
    assert_works(terrane(dir, "", command));
    assert_works(terrane(dir, "", "run draw.lua --out out"));
    assert_true(says("on 3 of 4 patches"));
    free(dir);
}

static int forget(void **state)
{
    (void)state;
    free(said);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_containers_embed_alike), cmocka_unit_test(both_names_embed),
        cmocka_unit_test(machines_are_told),           cmocka_unit_test(decoders_draw),
        cmocka_unit_test(refusals_leave_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, forget);
}
