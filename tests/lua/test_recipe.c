/* test_recipe: recipes: what they become, every error with its line, and that nothing gets out of the
 * sandbox. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lualib.h>

#include "recipe.h"
#include "test_support.h"

/* ---- helpers ---- */

static const char *source_dir(void)
{
    const char *dir = getenv("TERRANE_SOURCE");
    return dir ? dir : ".";
}

static trn_status load(const char *text, const char *set, trn_recipe **out, trn_error *err)
{
    return trn_recipe_load_text("recipes/x.lua", text, strlen(text), &set, set ? 1 : 0, NULL, out, err);
}

static trn_recipe *load_good(const char *text, const char *set)
{
    trn_recipe *recipe = NULL;
    trn_error err = {0};
    assert_trn_ok(load(text, set, &recipe, &err), err);
    return recipe;
}

/* The recipe is refused as the user's mistake, with this text in the message and nothing left over. Failures
 * are counted, so that one run shows all of them. */
static int failures;

static int forget_failures(void **state)
{
    (void)state;
    failures = 0;
    return 0;
}

static void refuse(const char *text, const char *set, const char *message)
{
    trn_recipe *recipe = NULL;
    trn_error err = {0};
    trn_status status = load(text, set, &recipe, &err);
    if (status == TRN_ERR_ARGUMENT && strstr(err.message, message) && !recipe) return;
    failures++;
    print_error("wanted: %s\n   got: %s: %s\n", message, trn_status_name(status), err.message);
    trn_recipe_destroy(recipe);
}

/* Line 1 requires; the embed begins on line 2; `fields` follow on line 3 and later ones. */
#define HEAD "local terrane = require 'terrane'\n"
#define EMBED(fields)                                                                                        \
    HEAD "return terrane.embed {\n" fields "\n"                                                              \
         "scene = terrane.scene 'a.tif', encoders = terrane.encoder 'rcf', export = 'e.tif' }"
#define WITH_SCENE(scene)                                                                                    \
    HEAD "return terrane.embed {\nscene = " scene ",\nencoders = terrane.encoder 'rcf', export = 'e.tif' }"
#define WITH_ENCODER(encoder)                                                                                \
    HEAD "return terrane.embed {\nscene = terrane.scene 'a.tif',\nencoders = { " encoder " },\n"             \
         "export = 'e.tif' }"
#define WITH_EXPORT(export)                                                                                  \
    HEAD "return terrane.embed {\nscene = terrane.scene 'a.tif', encoders = terrane.encoder 'rcf',\n"        \
         "export = " export " }"
#define WITH_PARAMS(params)                                                                                  \
    HEAD "local p = terrane.params {\n" params "\n}\n"                                                       \
         "return terrane.embed { scene = terrane.scene 'a.tif', encoders = terrane.encoder 'rcf', "          \
         "export = 'e.tif' }"

/* ---- what a recipe becomes ---- */

static const char full_recipe[] = HEAD
    "local p = terrane.params { scene = 'in.tif', features = { default = 64, min = 1, help = 'how many' } }\n"
    "local mine = terrane.sensor { name = 'mine', unit = 'kelvin', scale = 0.5, offset = 2, nodata = -1,\n"
    "  bands = { { name = 'T1', common = 'lwir', wavelength = 10.9, gsd = 100, aliases = { 'TIR' } },\n"
    "            { name = 'T2' } } }\n"
    "return terrane.embed {\n"
    "  title = 'all of it',\n"
    "  scene = terrane.scene { p.scene, 'more.tif', sensor = mine, bands = { 'T2', 'T1' }, scale = 2,\n"
    "    offset = 1, unit = 'byte', nodata = 7 },\n"
    "  encoders = { terrane.encoder { 'rcf', features = p.features, cell = 8, seed = 3, bands = { 'T1' },\n"
    "      normalize = 'zscore', weight = 0.25 },\n"
    "    terrane.encoder { 'rcf', features = 2^5 } },\n"
    "  fusion = terrane.average { cell = 16, l2 = true },\n"
    "  tile = 128, overlap = 32, batch = 4, strict = true,\n"
    "  export = { 'a.npy', terrane.geotiff { 'sub/b.tif', compression = 'zstd', float16 = true, block = 64 "
    "},\n"
    "    terrane.preview 'c.png' },\n"
    "}\n";

static void check_scene(const trn_job_scene *scene)
{
    assert_int_equal(scene->path_count, 2);
    assert_string_equal(scene->paths[0], "in.tif");
    assert_string_equal(scene->paths[1], "more.tif");
    assert_false(scene->each);
    assert_null(scene->sensor);
    assert_string_equal(scene->custom->name, "mine");
    assert_int_equal(scene->custom->unit, TRN_UNIT_KELVIN);
    assert_int_equal(scene->custom->band_count, 2);
    assert_string_equal(scene->custom->bands[0].aliases[0], "TIR");
    assert_true(scene->custom->bands[0].wavelength_um == 10.9 && scene->custom->bands[0].gsd_m == 100);
    assert_true(scene->custom->scale == 0.5 && scene->custom->offset == 2 && scene->custom->nodata == -1);
    assert_int_equal(scene->band_name_count, 2);
    assert_string_equal(scene->band_names[1], "T1");
    assert_true(scene->has_scale && scene->scale == 2 && scene->offset == 1 && scene->unit == TRN_UNIT_BYTE);
    assert_true(scene->has_nodata && scene->nodata == 7);
}

static const char *setting_of(const trn_job_encoder *encoder, const char *key)
{
    for (size_t i = 0; i < encoder->setting_count; i++)
        if (!strcmp(encoder->settings[i].key, key)) return encoder->settings[i].value;
    return "";
}

static void test_everything_arrives(void **state)
{
    (void)state;
    trn_recipe *recipe = load_good(full_recipe, "features=512");
    const trn_embed_job *job = trn_recipe_job(recipe);
    assert_string_equal(trn_recipe_title(recipe), "all of it");
    assert_string_equal(job->name, "x");
    check_scene(&job->scene);
    assert_int_equal(job->encoder_count, 2);
    assert_string_equal(setting_of(&job->encoders[0], "features"), "512");
    assert_string_equal(setting_of(&job->encoders[0], "seed"), "3");
    assert_string_equal(setting_of(&job->encoders[1], "features"), "32");
    assert_int_equal(job->encoders[0].normalize, TRN_NORMALIZE_ZSCORE);
    assert_int_equal(job->encoders[0].band_count, 1);
    assert_true(job->encoders[0].weight == 0.25 && job->encoders[1].weight == 1);
    assert_null(job->encoders[1].bands);
    assert_int_equal(job->compose.fusion, TRN_FUSION_AVERAGE);
    assert_true(job->compose.l2_normalize && job->compose.cell == 16);
    assert_true(job->tile == 128 && job->overlap == 32 && job->batch == 4 && job->strict &&
                !job->tile_vectors);
    assert_int_equal(job->export_count, 3);
    assert_string_equal(job->exports[0].path, "a.npy");
    assert_int_equal(job->exports[0].options.type, TRN_EXPORT_F32);
    assert_string_equal(job->exports[1].options.compression, "zstd");
    assert_int_equal(job->exports[1].options.type, TRN_EXPORT_F16);
    assert_int_equal(job->exports[1].options.tile, 64);
    trn_recipe_destroy(recipe);
}

static void test_parameters_are_told(void **state)
{
    (void)state;
    trn_recipe *recipe = load_good(full_recipe, "features=512");
    assert_int_equal(trn_recipe_param_count(recipe), 2);
    trn_recipe_param features = trn_recipe_param_at(recipe, 0); /* one line: by name */
    assert_string_equal(features.name, "features");
    assert_string_equal(features.description, "how many");
    assert_string_equal(features.value, "512");
    assert_string_equal(features.default_value, "64");
    assert_string_equal(
        trn_recipe_job(recipe)->result_extra,
        "{\"recipe\": \"recipes/x.lua\", \"parameters\": {\"features\": \"512\", \"scene\": \"in.tif\"}}");
    trn_recipe_destroy(recipe);
}

static void test_defaults(void **state)
{
    (void)state;
    trn_recipe *recipe = load_good(EMBED(""), NULL);
    const trn_embed_job *job = trn_recipe_job(recipe);
    assert_string_equal(trn_recipe_title(recipe), "x");
    assert_int_equal(trn_recipe_param_count(recipe), 0);
    assert_false(job->scene.has_scale || job->scene.has_nodata || job->strict);
    assert_int_equal(job->compose.fusion, TRN_FUSION_CONCAT);
    assert_int_equal(job->encoders[0].pool, TRN_FEATURES_DENSE);
    assert_true(job->tile == 0 && job->overlap == 0 && job->batch == 0 && job->compose.cell == 0);
    assert_null(job->exports[0].options.compression);
    trn_recipe_destroy(recipe);
}

static void test_images_are_pooled(void **state)
{
    (void)state;
    trn_recipe *recipe = load_good(
        WITH_SCENE(
            "terrane.images { 'folder', resize = 64, sensor = 'rgb', scale = 0.5, unit = 'reflectance' }"),
        NULL);
    const trn_embed_job *job = trn_recipe_job(recipe);
    assert_true(job->scene.each && job->scene.resize == 64);
    assert_string_equal(job->scene.sensor, "rgb");
    assert_int_equal(job->scene.unit, TRN_UNIT_REFLECTANCE);
    assert_int_equal(job->encoders[0].pool, TRN_FEATURES_MEAN);
    trn_recipe_destroy(recipe);
    recipe = load_good(EMBED("tile_vectors = true,"), NULL);
    assert_int_equal(trn_recipe_job(recipe)->encoders[0].pool, TRN_FEATURES_MEAN);
    trn_recipe_destroy(recipe);
}

/* The unit beside a scale is the sensor's unless it is given. */
static void test_unit_follows_sensor(void **state)
{
    (void)state;
    trn_recipe *recipe =
        load_good(WITH_SCENE("terrane.scene { 'a.tif', sensor = 'S2', scale = 0.001 }"), NULL);
    assert_int_equal(trn_recipe_job(recipe)->scene.unit, TRN_UNIT_REFLECTANCE);
    trn_recipe_destroy(recipe);
}

/* Dates become one list of files and how many each date has. */
static void test_dates_and_places(void **state)
{
    (void)state;
    trn_recipe *recipe =
        load_good(WITH_SCENE("terrane.scene { dates = { 'a', { 'b', 'c' } }, location = { -33.5, 18 },\n"
                             "acquired = { '2018-01-28', '2018153' } }"),
                  NULL);
    const trn_job_scene *scene = &trn_recipe_job(recipe)->scene;
    assert_int_equal(scene->path_count, 3);
    assert_string_equal(scene->paths[2], "c");
    assert_int_equal(scene->date_count, 2);
    assert_int_equal(scene->date_files[0], 1);
    assert_int_equal(scene->date_files[1], 2);
    assert_int_equal(scene->acquired_count, 2);
    assert_int_equal(scene->acquired[1].day, 2);
    assert_int_equal(scene->acquired[1].month, 6);
    assert_true(scene->has_location && scene->latitude == -33.5 && scene->longitude == 18);
    trn_recipe_destroy(recipe);
    recipe = load_good(WITH_ENCODER("terrane.encoder { 'rcf', date = 2, display = 0.3 }"), NULL);
    const trn_job_encoder *encoder = &trn_recipe_job(recipe)->encoders[0];
    assert_true(encoder->date == 2 && encoder->display == 0.3 && encoder->setting_count == 0);
    assert_null(trn_recipe_job(recipe)->scene.date_files);
    assert_false(trn_recipe_job(recipe)->scene.has_location);
    trn_recipe_destroy(recipe);
}

/* ---- mistakes, one by one ---- */

typedef struct mistake {
    const char *text, *message;
} mistake;

static const mistake field_mistakes[] = {
    {EMBED("tile = -3,"), "recipes/x.lua:3: embed: field 'tile' is -3; wanted an integer from 16 to 4096"},
    {EMBED("\n\n tile = 12.5,"), "recipes/x.lua:5: embed: field 'tile' is 12.5; wanted an integer"},
    {EMBED("tile = 'big',"), "field 'tile' is 'big'; wanted an integer"},
    {EMBED("tile = 0/0,"), "field 'tile' is not a number; wanted"},
    {EMBED("tile = 2^70,"), "field 'tile' is 1.1805916207174e+21; wanted"},
    {EMBED("tile = function() end,"), "field 'tile' is a function; wanted"},
    {EMBED("title = '',"), "field 'title' is ''; wanted text"},
    {EMBED("title = 'a\\0b',"), "field 'title' is 'a?b'; wanted text"},
    {EMBED("strict = 1,"), "field 'strict' is 1; wanted true or false"},
    {EMBED("batch = 0,"), "field 'batch' is 0; wanted an integer from 1 to 1024"},
    {EMBED("tile = 64, overlap = 64,"), "field 'overlap' is 64; wanted less than the tile, 64"},
    {EMBED("fusion = 'concat',"),
     "field 'fusion' is 'concat'; wanted terrane.concat {...} or terrane.average"},
    {EMBED("fusion = terrane.concat { cel = 8 },"),
     "recipes/x.lua:3: concat: field 'cel' is unknown; did you mean 'cell'?"},
    {EMBED("titel = 'x',"),
     "recipes/x.lua:3: embed: field 'titel' is unknown; did you mean 'title'? (fields: title, "},
    {EMBED("'loose',"), "recipes/x.lua:2: embed: value 1 has no meaning here (fields: "},
    {EMBED("[true] = 1,"), "embed: the key true has no meaning here"},
    {HEAD "return terrane.embed {\n encoders = terrane.encoder 'rcf', export = 'e.tif' }",
     "recipes/x.lua:2: embed: field 'scene' is missing; wanted terrane.scene {...} or terrane.images {...}"},
    {HEAD "return terrane.embed { scene = terrane.scene 'a.tif', encoders = terrane.encoder 'rcf' }",
     "embed: field 'export' is missing; wanted one or a list of 1 to 16"},
    {HEAD "return terrane.embed()",
     "recipes/x.lua:2: embed: got 0 values; wanted one table: terrane.embed { ... }"},
    {HEAD "return terrane.embed(3)", "embed: got 3; wanted one table"},
    {HEAD "return terrane.embed({}, {})", "embed: got 2 values"},
    {HEAD "return terrane.embed(terrane.scene 'a.tif')", "embed: got a terrane.scene; wanted one table"},
    {HEAD "return terrane.embed 'x'", "embed: got 'x'; wanted one table"},
};

static const mistake scene_mistakes[] = {
    {WITH_SCENE("'a.tif'"), "recipes/x.lua:3: embed: field 'scene' is 'a.tif'; wanted terrane.scene {...}"},
    {WITH_SCENE("terrane.encoder 'rcf'"), "field 'scene' is a terrane.encoder; wanted terrane.scene"},
    {WITH_SCENE("terrane.scene {}"),
     "recipes/x.lua:3: scene: the first value (path) is missing; wanted a list"},
    {WITH_SCENE("terrane.scene { 'a', dates = { 'b' } }"),
     "recipes/x.lua:3: scene: field 'dates' names the files; leave out the first values"},
    {WITH_SCENE("terrane.scene { dates = { 'b', {} } }"),
     "scene: field 'dates[2]' is a table; wanted a path or a list of paths"},
    {WITH_SCENE("terrane.scene { dates = { 'b', { 'c', x = 1 } } }"), "scene: field 'dates[2]' is a table"},
    {WITH_SCENE("terrane.scene { dates = { 'b', { 'b' } } }"), "scene: the path 'b' stands twice"},
    {WITH_SCENE("terrane.scene { dates = { 'b', 'c' }, acquired = '2018-01-02' }"),
     "scene: field 'acquired' has 1 dates, and field 'dates' 2"},
    {WITH_SCENE("terrane.scene { 'a', acquired = { '2018-02-30' } }"),
     "field 'acquired[1]' is '2018-02-30'; wanted a date such as 2018-06-02"},
    {WITH_SCENE("terrane.scene { 'a', location = { 1 } }"),
     "scene: field 'location' has 1 values; wanted a list of 2, each a number"},
    {WITH_SCENE("terrane.scene { 'a', location = { 100, 1 } }"),
     "scene: field 'location' has the latitude 100; wanted -90 to 90, latitude first"},
    {WITH_SCENE("terrane.images { 'a', dates = { 'b' } }"), "images: field 'dates' is unknown"},
    {WITH_SCENE("terrane.scene { 3 }"), "scene: value 1 (path) is 3; wanted a path"},
    {WITH_SCENE("terrane.scene { 'a', nil, 'c' }"), "scene: value 3 has no meaning here"},
    {WITH_SCENE("terrane.scene { 'a', 'a' }"), "scene: the path 'a' stands twice"},
    {WITH_SCENE("terrane.scene { {'a', x = 1} }"), "holds the key 'x'"},
    {WITH_SCENE("terrane.scene { {} }"), "is empty; wanted a list"},
    {WITH_SCENE("terrane.scene { 'a', sensor = 'sentinell2' }"), "recipes/x.lua:3: scene: "},
    {WITH_SCENE("terrane.scene { 'a',\n sensor = 'landsat-99' }"), "recipes/x.lua:4: scene: "},
    {WITH_SCENE("terrane.scene { 'a', sensor = 5 }"),
     "field 'sensor' is 5; wanted a sensor's name or terrane.sensor {...}"},
    {WITH_SCENE("terrane.scene { 'a', unit = 'reflectanc', scale = 1 }"), "did you mean 'reflectance'?"},
    {WITH_SCENE("terrane.scene { 'a', unit = 'kelvin' }"), "wanted a field 'scale' beside it"},
    {WITH_SCENE("terrane.scene { 'a', nodata = 0/0 }"), "field 'nodata' is not a number; wanted a number"},
    {WITH_SCENE("terrane.scene { 'a', scale = 1/0 }"), "field 'scale' is inf; wanted a number"},
    {WITH_SCENE("terrane.scene { 'a', resize = 64 }"), "field 'resize' is unknown"},
    {WITH_SCENE("terrane.images { 'a', resize = 0 }"),
     "images: field 'resize' is 0; wanted an integer from 1 to 4096"},
    {WITH_SCENE("terrane.scene { 'a', bands = 'red' }"),
     "field 'bands' is 'red'; wanted a list of 1 to 512, each a band name"},
    {WITH_SCENE("terrane.scene { 'a', bands = {\n'red',\n7 } }"),
     "recipes/x.lua:5: scene: field 'bands[2]' is 7; wanted"},
    {WITH_SCENE("terrane.scene { 'a', sensor = terrane.sensor { name = 's', bands = {} } }"),
     "field 'bands' is empty"},
    {WITH_SCENE("terrane.scene { 'a', sensor = terrane.sensor { name = 's', bands = {\n{ name = 'B1' },\n{ "
                "nam = 'B2' } } } }"),
     "recipes/x.lua:5: sensor: bands[2]: field 'nam' is unknown; did you mean 'name'?"},
    {WITH_SCENE("terrane.scene { 'a', sensor = terrane.sensor { name = 's', bands = {\n{ name = 'B1', "
                "wavelength = -1 } } } }"),
     "recipes/x.lua:4: sensor: bands[1]: field 'wavelength' is -1; wanted a number from 0"},
    {WITH_SCENE(
         "terrane.scene { 'a', sensor = terrane.sensor { name = 's', bands = { {name='A'}, {name='A'} } } }"),
     "sensor: the band 'A' stands twice"},
    {WITH_SCENE("terrane.scene { 'a', sensor = terrane.sensor { name = 's', bands = { 'A' } } }"),
     "field 'bands[1]' is 'A'; wanted a table { name = ..., ... }"},
    {WITH_SCENE("terrane.scene { 'a', sensor = terrane.sensor { name = 's', bands = { {name='b-1'}, "
                "{name='B_1'} } } }"),
     "recipes/x.lua:3: sensor: "},
};

static const mistake encoder_mistakes[] = {
    {WITH_ENCODER(""), "recipes/x.lua:4: embed: field 'encoders' is empty"},
    {WITH_ENCODER("'rcf'"),
     "recipes/x.lua:4: embed: field 'encoders[1]' is 'rcf'; wanted terrane.encoder {...}"},
    {WITH_ENCODER("terrane.encoder {}"),
     "recipes/x.lua:4: encoder: the first value (name) is missing; wanted the name"},
    {WITH_ENCODER("terrane.encoder 'rfc'"), "recipes/x.lua:4: encoder: "},
    {WITH_ENCODER("terrane.encoder { 'rcf',\n\nfeatures = 8,\nfeaturs = 64 }"), "recipes/x.lua:7: encoder: "},
    {WITH_ENCODER("terrane.encoder { 'rcf',\ncell = 8,\nfeatures = 3.5 }"), "recipes/x.lua:6: encoder: "},
    {WITH_ENCODER("terrane.encoder { 'rcf', poool = 'mean' }"),
     "did you mean the field 'pool' of terrane.encoder?"},
    {WITH_ENCODER("terrane.encoder { 'rcf', pool = 'max' }"),
     "field 'pool' is 'max'; wanted 'none', 'mean' or 'cls'"},
    {WITH_ENCODER("terrane.encoder { 'rcf', pool = 'mean' }"), "but the scene gets a vector per cell"},
    {WITH_ENCODER("terrane.encoder { 'rcf', weight = 0 }"), "field 'weight' is 0; wanted a number above 0"},
    {WITH_ENCODER("terrane.encoder { 'rcf', cell = {} }"),
     "encoder: the setting 'cell' is a table; wanted text, a finite"},
    {WITH_ENCODER("terrane.encoder { 'rcf', cell = 0/0 }"), "the setting 'cell' is not a number; wanted"},
    {WITH_ENCODER("terrane.encoder { 'rcf', ['a b'] = 1 }"), "the setting name 'a b' is not a name"},
    {WITH_ENCODER("terrane.encoder { 'rcf', name = 'rcf' }"), "field 'name' is unknown"},
    {WITH_ENCODER("terrane.encoder { 'rcf', bands = { red = 1 } }"), "field 'bands' holds the key 'red'"},
    {HEAD "return terrane.embed { scene = terrane.images 'd', export = 'e.npy',\n"
          "encoders = terrane.encoder { 'rcf', pool = 'none' } }",
     "recipes/x.lua:3: encoder: field 'pool' is 'none', but each image gives one vector"},
};

static const mistake export_mistakes[] = {
    {WITH_EXPORT("'e.jpg'"), "recipes/x.lua:4: embed: 'e.jpg' does not end in .tif or .tiff or .npy or .png"},
    {WITH_EXPORT("{ 'e.tif',\n'e.tif' }"), "recipes/x.lua:5: embed: the file 'e.tif' stands twice"},
    {WITH_EXPORT("'/etc/e.tif'"), "leaves the output folder"},
    {WITH_EXPORT("'a/../../e.tif'"), "leaves the output folder"},
    {WITH_EXPORT("terrane.npy '../e.npy'"), "npy: '../e.npy' leaves the output folder"},
    {WITH_EXPORT("terrane.geotiff 'e.npy'"), "geotiff: 'e.npy' does not end in .tif or .tiff"},
    {WITH_EXPORT("terrane.geotiff { 'e.tif', block = 100 }"),
     "wanted an integer from 16 to 4096, a multiple of 16"},
    {WITH_EXPORT("terrane.geotiff { 'e.tif', compression = 'deflat' }"), "did you mean 'deflate'?"},
    {WITH_EXPORT("terrane.preview { 'e.png', float16 = true }"), "preview: field 'float16' is unknown"},
    {WITH_EXPORT("{ 3 }"),
     "field 'export[1]' is 3; wanted a file name (.tif, .tiff, .npy or .png) or terrane.geotiff"},
    {WITH_EXPORT("{ 'a.tif', nil, 'b.tif' }"), "field 'export' has a gap: value 2 is nil"},
};

static const mistake language_mistakes[] = {
    {"", "recipes/x.lua: the recipe returns nothing; end it with: return terrane.embed { ... }"},
    {"return 3", "the recipe returns 3; end it with"},
    {"return {}", "the recipe returns a table; end it with"},
    {"return 1, 2", "the recipe returns 2 values; end it with"},
    {HEAD "return terrane.scene 'a.tif'", "the recipe returns a terrane.scene; end it with"},
    {"local x = = 2", "recipes/x.lua:1: unexpected symbol near '='"},
    {"\n\nerror 'stop \\27[31m here'", "recipes/x.lua:3: stop ?[31m here"},
    {"error({})", "the recipe raised an error that is a table"},
    {"assert(false, 'no')", "recipes/x.lua:1: no"},
    {"local x = nil\nreturn x.y", "recipes/x.lua:2: attempt to index a nil value (local 'x')"},
    {"x = 3", "recipes/x.lua:1: the global 'x' cannot be set; write: local x = ..."},
    {"return prnt", "recipes/x.lua:1: there is no global 'prnt' in a recipe; did you mean 'print'?"},
    {"require 'socket'",
     "recipes/x.lua:1: require 'socket': a recipe can require 'terrane' and nothing else"},
    {HEAD "terrane.embd {}",
     "recipes/x.lua:2: terrane.embd does not exist; did you mean 'embed'? (terrane has: adamw,"},
    {HEAD "terrane.embed = 3", "recipes/x.lua:2: the module terrane cannot be changed"},
    {HEAD "local e = terrane.encoder 'rcf'\ne.pool = 'mean'",
     "recipes/x.lua:3: terrane.encoder is finished; give 'pool' inside"},
    {HEAD "local e = terrane.encoder 'rcf'\nreturn e.pool",
     "recipes/x.lua:3: terrane.encoder: its fields cannot be read back ('pool')"},
};

static const mistake param_mistakes[] = {
    {WITH_PARAMS("a = {}"), "recipes/x.lua:3: params: a: field 'default' is missing; wanted text, an "
                            "integer, a number or true or false"},
    {WITH_PARAMS("a = { default = 3, helpp = 'x' }"),
     "params: a: field 'helpp' is unknown; did you mean 'help'?"},
    {WITH_PARAMS("a = { default = 3, min = 4 }"),
     "params: a: field 'default' is 3; wanted an integer of at least 4"},
    {WITH_PARAMS("a = { default = 'x', min = 4 }"), "fields 'min' and 'max' are for numbers"},
    {WITH_PARAMS("a = { default = 3, values = { 'x' } }"), "field 'values' is for texts"},
    {WITH_PARAMS("a = { default = 'z', values = { 'x', 'y' } }"),
     "field 'default' is 'z'; wanted 'x' or 'y'"},
    {WITH_PARAMS("a = 0/0"), "params: a: field 'default' is not a number"},
    {WITH_PARAMS("3"), "recipes/x.lua:2: params: 1 is not a name for a parameter"},
    {WITH_PARAMS("['a b'] = 3"), "params: 'a b' is not a name for a parameter"},
    {HEAD "terrane.params { a = 1 }\nterrane.params { b = 1 }",
     "recipes/x.lua:3: params: called a second time"},
    {HEAD "local p = terrane.params { scene = 'x' }\nreturn p.sceen",
     "recipes/x.lua:3: params: no parameter 'sceen' is declared; did you mean 'scene'? (parameters: scene)"},
    {HEAD "local p = terrane.params { scene = 'x' }\np.scene = 'y'",
     "recipes/x.lua:3: params: 'scene' cannot be set here"},
};

static void refuse_all(const mistake *mistakes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        refuse(mistakes[i].text, NULL, mistakes[i].message);
}

static void test_mistakes(void **state)
{
    (void)state;
    refuse_all(field_mistakes, TRN_COUNT(field_mistakes));
    refuse_all(scene_mistakes, TRN_COUNT(scene_mistakes));
    refuse_all(encoder_mistakes, TRN_COUNT(encoder_mistakes));
    refuse_all(export_mistakes, TRN_COUNT(export_mistakes));
    refuse_all(language_mistakes, TRN_COUNT(language_mistakes));
    refuse_all(param_mistakes, TRN_COUNT(param_mistakes));
    assert_int_equal(failures, 0);
}

/* Comments, strings and nested tables before the field do not mislead the search for its line. */
static void test_line_of_a_field(void **state)
{
    (void)state;
    refuse(HEAD "return terrane.embed { -- tile = 3 in a comment {\n"
                "title = 'tile = 4 } {',\n"
                "scene = terrane.scene { --[==[ } tile\n= 5 ]==] 'a.tif' },\n"
                "export = [[e.tif]], encoders = terrane.encoder { 'rcf' },\n"
                "batch = (function() local tile = 3 return tile end)(),\n"
                "tile = 1 }",
           NULL, "recipes/x.lua:8: embed: field 'tile' is 1;");
    /* made elsewhere: the call's line */
    refuse(HEAD "local fields = {\ntile = 1 }\n\nreturn terrane.embed(fields)", NULL,
           "recipes/x.lua:5: embed: ");
    /* two on one line: the one that has the field */
    refuse(WITH_ENCODER("terrane.encoder 'rcf', terrane.encoder { 'rcf',\nweight = -1 }"), NULL,
           "recipes/x.lua:5: encoder: field 'weight' is -1");
    /* made by a helper function of the recipe */
    refuse(HEAD "local function make(w)\nreturn terrane.encoder { 'rcf', weight = w }\nend\nmake(-1)", NULL,
           "recipes/x.lua:3: encoder: field 'weight' is -1");
    assert_int_equal(failures, 0);
}

static void test_places_for_later_errors(void **state)
{
    (void)state;
    trn_recipe *recipe = load_good(full_recipe, NULL);
    static const struct {
        trn_recipe_part part;
        size_t index;
        const char *field, *place;
    } cases[] = {
        {TRN_RECIPE_EMBED, 0, NULL, "recipes/x.lua:6"},
        {TRN_RECIPE_EMBED, 0, "tile", "recipes/x.lua:14"},
        {TRN_RECIPE_SCENE, 0, "unit", "recipes/x.lua:9"},
        {TRN_RECIPE_ENCODER, 0, "weight", "recipes/x.lua:11"},
        {TRN_RECIPE_ENCODER, 1, NULL, "recipes/x.lua:12"},
        {TRN_RECIPE_EXPORT, 0, NULL, "recipes/x.lua:15"},
        {TRN_RECIPE_EXPORT, 2, NULL, "recipes/x.lua:16"},
    };
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        trn_text place = {0};
        trn_recipe_place(recipe, cases[i].part, cases[i].index, cases[i].field, &place);
        assert_string_equal(trn_text_get(&place), cases[i].place);
        trn_text_free(&place);
    }
    trn_recipe_destroy(recipe);
}

/* ---- --set ---- */

#define TYPED                                                                                                \
    HEAD "local p = terrane.params { n = { default = 3, min = 1, max = 9 }, x = 0.5, b = false, s = "        \
         "'text',\n"                                                                                         \
         "c = { default = 'one', values = { 'one', 'two' } } }\n"                                            \
         "return terrane.embed { scene = terrane.scene(p.s), encoders = terrane.encoder { 'rcf', cell = "    \
         "p.n },\n"                                                                                          \
         "fusion = terrane.concat { l2 = p.b }, title = p.c .. p.x, export = 'e.tif' }"

static void test_sets(void **state)
{
    (void)state;
    static const struct {
        const char *set, *name, *value;
    } good[] = {{"n=9", "n", "9"},     {"x=1e-3", "x", "0.001"}, {"b=true", "b", "true"},
                {"s=a=b", "s", "a=b"}, {"c=two", "c", "two"},    {"x=-2", "x", "-2"}};
    for (size_t i = 0; i < TRN_COUNT(good); i++) {
        trn_recipe *recipe = load_good(TYPED, good[i].set);
        bool seen = false;
        for (size_t k = 0; k < trn_recipe_param_count(recipe); k++) {
            trn_recipe_param param = trn_recipe_param_at(recipe, k);
            seen = seen || (!strcmp(param.name, good[i].name) &&
                            strtod(param.value, NULL) == strtod(good[i].value, NULL) &&
                            (strpbrk(param.value, "0123456789") || !strcmp(param.value, good[i].value)));
        }
        assert_true(seen);
        trn_recipe_destroy(recipe);
    }
    refuse(TYPED, "n=10", "--set n=10: wanted an integer from 1 to 9");
    refuse(TYPED, "n=3.0", "--set n=3.0: wanted an integer from 1 to 9");
    refuse(TYPED, "n= 3", "--set n= 3: wanted an integer");
    refuse(TYPED, "n=0x3", "--set n=0x3: wanted an integer");
    refuse(TYPED, "x=nan", "--set x=nan: wanted a number");
    refuse(TYPED, "b=1", "--set b=1: wanted true or false");
    refuse(TYPED, "c=three", "--set c=three: wanted 'one' or 'two'");
    refuse(TYPED, "nn=3",
           "--set nn: the recipe has no parameter 'nn'; did you mean 'n'? (parameters: b, n, s, x, c)");
    refuse(TYPED, "n", "--set n: wanted KEY=VALUE");
    refuse(TYPED, "=3", "wanted KEY=VALUE");
    refuse(TYPED, "s=", "scene: ");
    refuse(EMBED(""), "n=3", "the recipe has no parameter 'n' (it has none)");
    assert_int_equal(failures, 0);
}

/* ---- the sandbox ---- */

static void test_nothing_dangerous_is_there(void **state)
{
    (void)state;
    static const char *const globals[] = {
        "io",           "os",       "package", "debug",          "load",      "loadfile",
        "loadstring",   "dofile",   "pcall",   "xpcall",         "coroutine", "rawset",
        "rawget",       "rawequal", "rawlen",  "collectgarbage", "_G",        "setmetatable",
        "getmetatable", "host",     "import",  "warn",           "_VERSION",  "module"};
    for (size_t i = 0; i < TRN_COUNT(globals); i++) {
        char text[64], message[64];
        snprintf(text, sizeof text, "local x = %s", globals[i]);
        snprintf(message, sizeof message, "recipes/x.lua:1: there is no global '%s' in a recipe", globals[i]);
        refuse(text, NULL, message);
    }
    static const char *const members[] = {"string.dump",      "string.pack", "string.unpack",
                                          "table.move",       "math.random", "math.randomseed",
                                          "utf8.charpattern", "('').dump",   "('').pack"};
    for (size_t i = 0; i < TRN_COUNT(members); i++) {
        char text[64];
        snprintf(text, sizeof text, "assert(%s == nil, 'present')\nerror 'absent'", members[i]);
        refuse(text, NULL, "recipes/x.lua:2: absent");
    }
    assert_int_equal(failures, 0);
}

static void test_escapes(void **state)
{
    (void)state;
    /* compiled chunks are never loaded */
    refuse("\x1bLua\x54\x00\x19\x93", NULL, "attempt to load a binary chunk");
    /* strings' methods cannot be reached for writing, nor replaced for Terrane's own modules */
    refuse("string.format = function() error 'mine' end\nstring.sub = nil\n" HEAD
           "return terrane.embed { tile = 1 }",
           NULL, "recipes/x.lua:4: embed: field");
    refuse("return ('').__index.rep", NULL, "attempt to index a nil value");
    /* the environment stays what it is */
    refuse("_ENV.print = 1", NULL, "the global 'print' cannot be set");
    refuse("local t = {} for k in pairs(_ENV) do t[#t + 1] = k end error('n=' .. #t)", NULL, "n=0");
    refuse("table.insert(require 'terrane', 1)", NULL, "the module terrane cannot be changed");
    refuse("local t = require 'terrane' t.scene 'a'[1] = 2", NULL, "terrane.scene is finished");
    refuse("local f <close> = require 'terrane'", NULL, "non-closable value");
    /* a finalizer needs a metatable: __gc in a plain table is a key like any other */
    refuse("for i = 1, 1000 do local t = { __gc = function() error 'finalizer' end } end\nerror 'end'", NULL,
           ":2: end");
    /* hidden tables and cycles */
    refuse(HEAD "local t = {} t.scene = t t.encoders = t t.export = t\nreturn terrane.embed(t)", NULL,
           "field 'scene' is a table; wanted terrane.scene {...}");
    refuse(HEAD "local t = {} t[1] = t\nreturn terrane.scene(t)", NULL, "scene: ");
    refuse(HEAD "local t = {} for i = 1, 100000 do t[i] = 'x' .. i end\nreturn terrane.scene(t)", NULL,
           "more than 4096 values");
    refuse(HEAD "local t = { 'rcf' } for i = 1, 5000 do t['s' .. i] = 1 end\nreturn terrane.encoder(t)", NULL,
           "more than 256 settings");
    /* a caller of a constructor from inside the library */
    refuse(HEAD "table.sort({ 1, 2, 3 }, terrane.embed)", NULL, "embed: got 2 values");
    refuse(HEAD "string.gsub('x', 'x', function(c) terrane.scene(c) end)\nerror 'fine'", NULL, "fine");
    assert_int_equal(failures, 0);
}

/* Every bomb ends by its limit, soon. */
static void test_bombs(void **state)
{
    (void)state;
    static const mistake bombs[] = {
        {"while true do end", "recipes/x.lua:1: the recipe executes too many instructions"},
        {"local function f() return f() end\nf()",
         "recipes/x.lua:1: the recipe executes too many instructions"},
        {"repeat local ok = tostring(1) until false", "the recipe executes too many"},
        {"local function f() return 1 + f() end\nf()", "needs more than 64.0 MiB of memory"},
        {"local function f(s) return (s:gsub('x', f)) end\nf 'x'", "stack overflow"},
        {"local t = {} t[1] = t\nlocal s = 'x' for i = 1, 100 do s = s .. s end",
         "needs more than 64.0 MiB of memory"},
        {"local t = {} for i = 1, 1e9 do t[i] = {} end", "needs more than"},
        {"local s = ('x'):rep(1e9)", "string.rep would make more than 1048576 bytes"},
        {"local s = (''):rep(2^60 // 1 | 0)", "string.rep would make more than"},
        {"local s = ('x'):rep(2, ('y'):rep(1000000)) .. ('z'):rep(3000, ('y'):rep(1000))",
         "string.rep would make more than"},
        {"return ('a'):rep(30000):find('.-.-.-.-b')",
         "this pattern could take too long on a text of 30000 characters"},
        {"return string.match(('a'):rep(300), ('a*'):rep(20) .. 'b')", "this pattern could take too long"},
        {"for w in string.gmatch(('('):rep(100000), '%b()') do end", "this pattern could take too long"},
        {"return ('a'):rep(1000000):find(('a'):rep(500000) .. 'b', 1, true)",
         "this pattern could take too long"},
        {"while true do local x = ('a'):rep(1000):find('a-b') end", "the recipe executes too many"},
        {"local s = ('x'):rep(1000000) while true do local t = s .. 'a' end", "the recipe "},
        {"return select('#', table.unpack({}, 1, 1e8))", "too many results to unpack"},
        {"return string.format('%99999d', 1)", "invalid conversion"},
        {"return table.concat({}, 'x', 1, 1e15)", "at index 1 in table for 'concat'"},
    };
    trn_recipe_limits limits = {.memory_bytes = (size_t)64 << 20, .instructions = 5000000, .seconds = 8};
    for (size_t i = 0; i < TRN_COUNT(bombs); i++) {
        trn_recipe *recipe = NULL;
        trn_error err = {0};
        uint64_t start = trn_now_ns();
        trn_status status = trn_recipe_load_text("recipes/x.lua", bombs[i].text, strlen(bombs[i].text), NULL,
                                                 0, &limits, &recipe, &err);
        assert_trn_fails(status, TRN_ERR_ARGUMENT, err, bombs[i].message);
        if (trn_now_ns() - start > 24000000000u) fail_msg("'%s' took too long", bombs[i].text);
    }
}

static void test_wall_clock(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "while true do end",
        "local s = ('x'):rep(1000000) while true do local t = s .. 'a' end",
        "while true do local x = ('a'):rep(4000):find('a-b') end",
        "local t = {} for i = 1, 200000 do t[i] = -i end while true do table.insert(t, 1, 3) end",
    };
    trn_recipe_limits limits = {.instructions = UINT64_MAX / 2, .seconds = 0.3};
    for (size_t i = 0; i < TRN_COUNT(texts); i++) {
        trn_recipe *recipe = NULL;
        trn_error err = {0};
        uint64_t start = trn_now_ns();
        trn_status status = trn_recipe_load_text("recipes/x.lua", texts[i], strlen(texts[i]), NULL, 0,
                                                 &limits, &recipe, &err);
        assert_trn_fails(status, TRN_ERR_ARGUMENT, err, "the recipe runs for too long (limits: 0.3 s");
        if (trn_now_ns() - start > 4000000000u) fail_msg("'%s' was stopped too late", texts[i]);
    }
}

/* A sandbox with hardly any memory fails cleanly wherever the memory ends. */
static void test_every_memory_limit(void **state)
{
    (void)state;
    bool loaded = false;
    for (size_t bytes = 1024; bytes < (size_t)1 << 20; bytes += 7919) {
        trn_recipe_limits limits = {.memory_bytes = bytes};
        trn_recipe *recipe = NULL;
        trn_error err = {0};
        trn_status status = trn_recipe_load_text("recipes/x.lua", full_recipe, strlen(full_recipe), NULL, 0,
                                                 &limits, &recipe, &err);
        if (status != TRN_OK && status != TRN_ERR_ARGUMENT && status != TRN_ERR_MEMORY)
            fail_msg("%zu bytes: %s", bytes, err.message);
        loaded = loaded || status == TRN_OK;
        trn_recipe_destroy(recipe);
    }
    assert_true(loaded);
}

/* ---- files ---- */

static void test_shipped_recipes_load(void **state)
{
    (void)state;
    size_t count = 0, built_in = 0;
    char **names;
    trn_error err = {0};
    char *folder = test_path(source_dir(), "recipes");
    assert_trn_ok(trn_list_dir(folder, &names, &count, &err), err);
    for (size_t i = 0; i < count; i++) {
        if (!trn_ends_with(names[i], ".lua")) continue;
        char *path = test_path(folder, names[i]);
        trn_recipe *recipe = NULL;
        assert_trn_ok(trn_recipe_load(path, NULL, 0, NULL, &recipe, &err), err);
        assert_true(strlen(trn_recipe_title(recipe)) > 0 && trn_recipe_param_count(recipe) > 0);
        trn_recipe_destroy(recipe);
        assert_string_equal(trn_recipe_builtin(built_in++), names[i]);
        free(path);
    }
    assert_null(trn_recipe_builtin(built_in));
    assert_true(built_in >= 3);
    trn_names_free(names, count);
    free(folder);
}

static void test_builtin_names(void **state)
{
    (void)state;
    const char *sets[] = {"scene=mine.tif"};
    trn_recipe *recipe = NULL;
    trn_error err = {0};
    assert_trn_ok(trn_recipe_load("quickstart", sets, 1, NULL, &recipe, &err), err);
    assert_string_equal(trn_recipe_job(recipe)->name, "quickstart");
    assert_string_equal(trn_recipe_job(recipe)->scene.paths[0], "mine.tif");
    trn_recipe_destroy(recipe);
    trn_status status = trn_recipe_load("recipes/quickstat.lua", NULL, 0, NULL, &recipe, &err);
    assert_trn_fails(status, TRN_ERR_IO, err, "did you mean 'quickstart'?");
}

static void test_file_starts(void **state)
{
    (void)state;
    trn_recipe *recipe = load_good("\xef\xbb\xbf#!/usr/bin/env terrane run\n" EMBED(""), NULL);
    trn_recipe_destroy(recipe);
    refuse("#!terrane\nx = 1", NULL, "recipes/x.lua:2: the global 'x'");
    refuse("#only", NULL, "returns nothing");
    trn_error err = {0};
    char *big = calloc(1, (size_t)2 << 20);
    assert_non_null(big);
    trn_status status = trn_recipe_load_text("big.lua", big, (size_t)2 << 20, NULL, 0, NULL, &recipe, &err);
    assert_trn_fails(status, TRN_ERR_ARGUMENT, err, "bytes are too many for a recipe");
    free(big);
    assert_int_equal(failures, 0);
}

/* lua/meta/terrane.lua and docs/recipes.md are what the schema says now. */
static void test_generated_files_are_current(void **state)
{
    (void)state;
    lua_State *L = luaL_newstate();
    assert_non_null(L);
    luaL_openlibs(L);
    char *script = test_path(source_dir(), "lua/tools/document.lua");
    assert_int_equal(luaL_loadfile(L, script), LUA_OK);
    lua_pushliteral(L, "generate");
    lua_pushstring(L, source_dir());
    if (lua_pcall(L, 2, 4, 0) != LUA_OK) fail_msg("%s", lua_tostring(L, -1));
    for (int i = 1; i <= 3; i += 2)
        if (strcmp(lua_tostring(L, i), lua_tostring(L, i + 1)))
            fail_msg("%s is not what the schema says; run: lua5.4 lua/tools/document.lua",
                     i == 1 ? "lua/meta/terrane.lua" : "docs/recipes.md");
    lua_close(L);
    free(script);
}

/* The example of docs/recipes.md is the recipe that ships. */
static void test_documented_example(void **state)
{
    (void)state;
    trn_error err = {0};
    size_t size;
    char *recipe_path = test_path(source_dir(), "recipes/quickstart.lua");
    char *docs_path = test_path(source_dir(), "docs/recipes.md");
    char *recipe = trn_read_file(recipe_path, 1 << 20, &size, &err);
    char *docs = trn_read_file(docs_path, 1 << 20, &size, &err);
    if (!recipe || !docs) fail_msg("%s", err.message);
    const char *code = strstr(recipe, "local terrane");
    assert_non_null(code);
    assert_non_null(strstr(docs, code));
    free(recipe);
    free(docs);
    free(recipe_path);
    free(docs_path);
}

static void test_luacheck(void **state)
{
    (void)state;
    char *output;
    int missing = test_run("command -v luacheck", &output);
    free(output);
    if (missing) skip();
    char command[4096];
    snprintf(command, sizeof command, "cd '%s' && luacheck --no-color --quiet lua recipes", source_dir());
    int status = test_run(command, &output);
    if (status) fail_msg("%s", output);
    free(output);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_arrives),
        cmocka_unit_test(test_parameters_are_told),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_images_are_pooled),
        cmocka_unit_test(test_unit_follows_sensor),
        cmocka_unit_test(test_dates_and_places),
        cmocka_unit_test_setup(test_mistakes, forget_failures),
        cmocka_unit_test_setup(test_line_of_a_field, forget_failures),
        cmocka_unit_test(test_places_for_later_errors),
        cmocka_unit_test_setup(test_sets, forget_failures),
        cmocka_unit_test_setup(test_nothing_dangerous_is_there, forget_failures),
        cmocka_unit_test_setup(test_escapes, forget_failures),
        cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_wall_clock),
        cmocka_unit_test(test_every_memory_limit),
        cmocka_unit_test(test_shipped_recipes_load),
        cmocka_unit_test(test_builtin_names),
        cmocka_unit_test_setup(test_file_starts, forget_failures),
        cmocka_unit_test(test_generated_files_are_current),
        cmocka_unit_test(test_documented_example),
        cmocka_unit_test(test_luacheck),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
