/* Recipes that reconstruct: what they become, and their mistakes. */
#include <stdlib.h>
#include <string.h>

#include "recipe.h"
#include "test_support.h"

#define HEAD "local terrane = require 'terrane'\n"
#define ENCODER "terrane.encoder { 'prithvi-v2-tiny-tl', weights = 'w.pt', decoder_depth = 4 }"
#define RECONSTRUCT(fields)                                                                                  \
    HEAD "return terrane.reconstruct { scene = terrane.scene { 'a.tif', sensor = 'hls' },\nencoder "         \
         "= " ENCODER ",\n" fields "}"

static trn_recipe *load(const char *text, trn_status *status, trn_error *err)
{
    trn_recipe *recipe = NULL;
    *status = trn_recipe_load_text("recipes/x.lua", text, strlen(text), NULL, 0, NULL, &recipe, err);
    return recipe;
}

static trn_recipe *load_good(const char *text)
{
    trn_error err = {0};
    trn_status status;
    trn_recipe *recipe = load(text, &status, &err);
    assert_trn_ok(status, err);
    return recipe;
}

static void test_defaults(void **state)
{
    (void)state;
    trn_recipe *recipe = load_good(RECONSTRUCT(""));
    const trn_reconstruct_job *job = trn_recipe_reconstruct(recipe);
    assert_null(trn_recipe_job(recipe));
    assert_non_null(job);
    assert_string_equal(trn_recipe_title(recipe), "x");
    assert_string_equal(job->name, "x");
    assert_string_equal(job->scene.paths[0], "a.tif");
    assert_string_equal(job->encoder.model, "prithvi-v2-tiny-tl");
    assert_string_equal(job->encoder.weights, "w.pt");
    assert_string_equal(job->encoder.settings[0].key, "decoder_depth");
    assert_string_equal(job->picture.path, "reconstruction.png");
    assert_true(job->mask_ratio > 0.74 && job->mask_ratio < 0.76);
    assert_true(job->seed == 0 && job->size == 0 && !job->has_place && !job->strict);
    assert_string_equal(job->result_extra, "{\"recipe\": \"recipes/x.lua\", \"parameters\": {}}");
    trn_recipe_destroy(recipe);
}

static void test_everything_arrives(void **state)
{
    (void)state;
    trn_recipe *recipe =
        load_good(RECONSTRUCT("title = 't', mask_ratio = 0.5, seed = 7, size = 96, strict = true,\n"
                              "place = { 3, 5 }, export = 'b.png'"));
    const trn_reconstruct_job *job = trn_recipe_reconstruct(recipe);
    assert_string_equal(trn_recipe_title(recipe), "t");
    assert_true(job->mask_ratio > 0.49 && job->mask_ratio < 0.51);
    assert_true(job->seed == 7 && job->size == 96 && job->has_place && job->x == 3 && job->y == 5);
    assert_true(job->strict);
    assert_string_equal(job->picture.path, "b.png");
    trn_text place = {0};
    trn_recipe_place(recipe, TRN_RECIPE_ENCODER, 0, NULL, &place);
    assert_string_equal(trn_text_get(&place), "recipes/x.lua:3");
    trn_text_free(&place);
    trn_recipe_place(recipe, TRN_RECIPE_EXPORT, 0, NULL, &place);
    assert_string_equal(trn_text_get(&place), "recipes/x.lua:5");
    trn_text_free(&place);
    trn_recipe_destroy(recipe);
}

static const struct {
    const char *text, *message;
} mistakes[] = {
    {RECONSTRUCT("\nmask_ratio = 1,"), "recipes/x.lua:5: reconstruct: field 'mask_ratio' is 1; wanted less"},
    {RECONSTRUCT("mask_ratio = 0,"), "field 'mask_ratio' is 0; wanted a number above 0"},
    {RECONSTRUCT("export = 'a.tif',"), "recipes/x.lua:4: reconstruct: 'a.tif' does not end in .png"},
    {RECONSTRUCT("export = '../a.png',"), "leaves the output folder"},
    {RECONSTRUCT("place = { 1 },"), "field 'place'"},
    {RECONSTRUCT("place = { -1, 2 },"), "field 'place[1]' is -1"},
    {RECONSTRUCT("seed = 1.5,"), "field 'seed' is 1.5; wanted an integer"},
    {RECONSTRUCT("fusion = 3,"), "field 'fusion' is unknown"},
    {HEAD "return terrane.reconstruct { encoder = terrane.encoder 'prithvi-v2-300m' }",
     "field 'scene' is missing; wanted terrane.scene {...}"},
    {HEAD
     "return terrane.reconstruct { scene = terrane.images 'd', encoder = terrane.encoder 'prithvi-v2-300m' }",
     "field 'scene' is a terrane.images; wanted terrane.scene {...}"},
    {HEAD "return terrane.reconstruct { scene = terrane.scene 'a.tif',\nencoder = terrane.encoder { "
          "'mae-vit-base',\n"
          "pool = 'mean' } }",
     "recipes/x.lua:4: encoder: field 'pool' has no meaning in terrane.reconstruct"},
    {HEAD "return terrane.reconstruct { scene = terrane.scene 'a.tif',\nencoder = terrane.encoder "
          "'mae-vit-base' }",
     "recipes/x.lua:3: encoder: encoder 'mae-vit-base' has no decoder"},
    {HEAD "return terrane.reconstruct { scene = terrane.scene 'a.tif',\nencoder = terrane.encoder { "
          "'prithvi-v2-300m',\ndecoder_dim = 40 } }",
     "recipes/x.lua:4: encoder: encoder 'prithvi-v2-300m': decoder_dim=40"},
    {HEAD "return terrane.reconstruct { scene = terrane.scene 'a.tif',\nencoder = terrane.encoder "
          "'mae-hiera-video-base' }",
     "recipes/x.lua:3: encoder: encoder 'mae-hiera-video-base': single images are drawn"},
};

static void test_mistakes(void **state)
{
    (void)state;
    for (size_t i = 0; i < TRN_COUNT(mistakes); i++) {
        trn_error err = {0};
        trn_status status;
        trn_recipe *recipe = load(mistakes[i].text, &status, &err);
        assert_null(recipe);
        assert_trn_fails(status, TRN_ERR_ARGUMENT, err, mistakes[i].message);
    }
}

/* The recipe that comes with the command. */
static void test_builtin(void **state)
{
    (void)state;
    const char *const sets[] = {"scene=a.tif,b.tif", "mask_ratio=0.5"};
    const char *const hiera[] = {"scene=a.tif", "encoder=mae-hiera-tiny", "weights=w.pth", "display=0.25"};
    trn_recipe *recipe = NULL;
    trn_error err = {0};
    assert_trn_ok(trn_recipe_load("reconstruct", sets, 2, NULL, &recipe, &err), err);
    const trn_reconstruct_job *job = trn_recipe_reconstruct(recipe);
    assert_int_equal(job->scene.path_count, 2);
    assert_string_equal(job->scene.paths[1], "b.tif");
    assert_null(job->encoder.weights);
    assert_int_equal(job->size, 224);
    assert_true(!(job->encoder.display > 0));
    trn_recipe_destroy(recipe);
    assert_trn_ok(trn_recipe_load("reconstruct", hiera, TRN_COUNT(hiera), NULL, &recipe, &err), err);
    job = trn_recipe_reconstruct(recipe);
    assert_string_equal(job->encoder.model, "mae-hiera-tiny");
    assert_string_equal(job->encoder.weights, "w.pth");
    assert_true(job->encoder.display > 0.24 && job->encoder.display < 0.26);
    trn_recipe_destroy(recipe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_everything_arrives),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_builtin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
