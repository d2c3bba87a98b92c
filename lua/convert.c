/* convert: checked Lua tables -> the plain structs of a job, in the recipe's arena. */
#include <math.h>
#include <string.h>

#include <lauxlib.h>

#include "recipe_private.h"

typedef struct converter {
    lua_State *L;
    trn_recipe *recipe;
    trn_error *err;
    trn_status status; /* the first failure; later steps then do nothing of harm */
} converter;

typedef struct choice {
    const char *name;
    int value;
} choice;

static const choice units[] = {{"any", TRN_UNIT_ANY},
                               {"reflectance", TRN_UNIT_REFLECTANCE},
                               {"decibel", TRN_UNIT_DECIBEL},
                               {"byte", TRN_UNIT_BYTE},
                               {"kelvin", TRN_UNIT_KELVIN}};
static const choice normalizations[] = {
    {"model", TRN_NORMALIZE_MODEL}, {"none", TRN_NORMALIZE_NONE}, {"zscore", TRN_NORMALIZE_ZSCORE}};
static const choice pools[] = {
    {"none", TRN_FEATURES_DENSE}, {"mean", TRN_FEATURES_MEAN}, {"cls", TRN_FEATURES_CLS}};
static const choice fusions[] = {{"concat", TRN_FUSION_CONCAT}, {"average", TRN_FUSION_AVERAGE}};

/* ---- fields of the table at the top of the stack ---- */

static void fail_memory(converter *c)
{
    if (c->status == TRN_OK) c->status = trn_fail_memory(c->err, 0, "the recipe's job");
}

static void *take(converter *c, size_t count, size_t size)
{
    void *memory = trn_arena_array(c->recipe->arena, TRN_MAX(count, (size_t)1), size);
    if (!memory) fail_memory(c);
    return memory;
}

static const char *copy(converter *c, const char *text)
{
    const char *result = text ? trn_arena_strdup(c->recipe->arena, text) : NULL;
    if (text && !result) fail_memory(c);
    return result;
}

static bool has(converter *c, const char *name)
{
    bool present = lua_getfield(c->L, -1, name) != LUA_TNIL;
    lua_pop(c->L, 1);
    return present;
}

static const char *text_field(converter *c, const char *name)
{
    lua_getfield(c->L, -1, name);
    const char *text = copy(c, lua_tostring(c->L, -1));
    lua_pop(c->L, 1);
    return text;
}

static double number_field(converter *c, const char *name, double otherwise)
{
    lua_getfield(c->L, -1, name);
    double value = lua_isnil(c->L, -1) ? otherwise : lua_tonumber(c->L, -1);
    lua_pop(c->L, 1);
    return value;
}

static int integer_field(converter *c, const char *name)
{
    lua_getfield(c->L, -1, name);
    int value = (int)lua_tointeger(c->L, -1);
    lua_pop(c->L, 1);
    return value;
}

static bool flag_field(converter *c, const char *name)
{
    lua_getfield(c->L, -1, name);
    bool value = lua_toboolean(c->L, -1);
    lua_pop(c->L, 1);
    return value;
}

/* The schema checked the word; a word it knows and this file does not is a bug of ours. */
static int choice_word(converter *c, const char *word, const choice *choices, size_t count)
{
    for (size_t i = 0; word && i < count; i++)
        if (!strcmp(choices[i].name, word)) return choices[i].value;
    if (c->status == TRN_OK)
        c->status =
            trn_fail(c->err, TRN_ERR_INTERNAL, "no value for '%s' of the recipe schema", word ? word : "nil");
    return 0;
}

static int choice_field(converter *c, const char *name, const choice *choices, size_t count)
{
    lua_getfield(c->L, -1, name);
    int value = choice_word(c, lua_tostring(c->L, -1), choices, count);
    lua_pop(c->L, 1);
    return value;
}

/* A list of texts; *count 0 and NULL when absent. */
static const char *const *texts_field(converter *c, const char *name, size_t *count)
{
    const char **texts = NULL;
    *count = 0;
    if (lua_getfield(c->L, -1, name) == LUA_TTABLE) {
        *count = (size_t)lua_rawlen(c->L, -1);
        texts = take(c, *count, sizeof *texts);
        for (size_t i = 0; texts && i < *count; i++) {
            lua_rawgeti(c->L, -1, (lua_Integer)i + 1);
            texts[i] = copy(c, lua_tostring(c->L, -1));
            lua_pop(c->L, 1);
        }
    }
    lua_pop(c->L, 1);
    return texts;
}

static recipe_place place_here(converter *c)
{
    recipe_place place = {text_field(c, "constructor"), integer_field(c, "line"), text_field(c, "field"),
                          integer_field(c, "item")};
    return place;
}

/* ---- sensors and scenes ---- */

static void convert_band(converter *c, trn_band *band)
{
    size_t count = 0;
    band->name = text_field(c, "name");
    band->common = text_field(c, "common");
    if (!band->common) band->common = band->name;
    band->wavelength_um = number_field(c, "wavelength", 0);
    band->gsd_m = number_field(c, "gsd", 0);
    const char *const *aliases = texts_field(c, "aliases", &count);
    for (size_t i = 0; aliases && i < TRN_MIN(count, (size_t)TRN_MAX_BAND_ALIASES); i++)
        band->aliases[i] = aliases[i];
}

/* The table of a terrane.sensor is at the top. */
static void convert_sensor(converter *c, trn_job_scene *scene)
{
    trn_sensor sensor = {.name = text_field(c, "name"),
                         .title = text_field(c, "title"),
                         .unit = (trn_unit)choice_field(c, "unit", units, TRN_COUNT(units)),
                         .scale = number_field(c, "scale", 1),
                         .offset = number_field(c, "offset", 0),
                         .nodata = number_field(c, "nodata", NAN)};
    c->recipe->sensor_place = place_here(c);
    lua_getfield(c->L, -1, "bands");
    size_t count = (size_t)lua_rawlen(c->L, -1);
    trn_band *bands = take(c, count, sizeof *bands);
    for (size_t i = 0; bands && i < count; i++) {
        lua_rawgeti(c->L, -1, (lua_Integer)i + 1);
        convert_band(c, &bands[i]);
        lua_pop(c->L, 1);
    }
    lua_pop(c->L, 1);
    if (c->status != TRN_OK) return;
    sensor.bands = bands;
    sensor.band_count = count;
    scene->custom = trn_sensor_define(c->recipe->arena, &sensor, c->err);
    if (!scene->custom) c->status = trn_recipe_blame(c->recipe, c->recipe->sensor_place, NULL, c->err);
}

static void convert_scene_sensor(converter *c, trn_job_scene *scene, const trn_sensor **sensor)
{
    *sensor = NULL;
    int type = lua_getfield(c->L, -1, "sensor");
    if (type == LUA_TTABLE) {
        convert_sensor(c, scene);
        *sensor = scene->custom;
    } else if (type == LUA_TSTRING) {
        scene->sensor = copy(c, lua_tostring(c->L, -1));
        *sensor = scene->sensor ? trn_sensor_find(scene->sensor, c->err) : NULL;
        if (!*sensor && c->status == TRN_OK)
            c->status = trn_recipe_blame(c->recipe, c->recipe->scene_place, "sensor", c->err);
    }
    lua_pop(c->L, 1);
}

/* A list of numbers; *count 0 and NULL when absent. */
static const double *numbers_field(converter *c, const char *name, size_t *count)
{
    double *numbers = NULL;
    *count = 0;
    if (lua_getfield(c->L, -1, name) == LUA_TTABLE) {
        *count = (size_t)lua_rawlen(c->L, -1);
        numbers = take(c, *count, sizeof *numbers);
        for (size_t i = 0; numbers && i < *count; i++) {
            lua_rawgeti(c->L, -1, (lua_Integer)i + 1);
            numbers[i] = lua_tonumber(c->L, -1);
            lua_pop(c->L, 1);
        }
    }
    lua_pop(c->L, 1);
    return numbers;
}

static void convert_dates(converter *c, trn_job_scene *scene)
{
    size_t count = 0;
    const double *files = numbers_field(c, "date_files", &count);
    size_t *of_date = take(c, count, sizeof *of_date);
    for (size_t i = 0; files && of_date && i < count; i++)
        of_date[i] = (size_t)files[i];
    scene->date_files = files ? of_date : NULL;
    scene->date_count = count;
    const char *const *texts = texts_field(c, "acquired", &count);
    trn_date *days = take(c, count, sizeof *days);
    for (size_t i = 0; texts && days && i < count; i++) {
        if (trn_date_parse(texts[i], &days[i]) || c->status != TRN_OK) continue;
        trn_fail(c->err, TRN_ERR_ARGUMENT,
                 "field 'acquired[%zu]' is '%.40s'; wanted a date such as 2018-06-02", i + 1, texts[i]);
        c->status = trn_recipe_blame(c->recipe, c->recipe->scene_place, "acquired", c->err);
    }
    scene->acquired = texts ? days : NULL;
    scene->acquired_count = count;
}

static void convert_location(converter *c, trn_job_scene *scene)
{
    size_t count = 0;
    const double *place = numbers_field(c, "location", &count);
    scene->has_location = place && count == 2;
    if (!scene->has_location) return;
    scene->latitude = place[0];
    scene->longitude = place[1];
}

static void convert_scene(converter *c, trn_job_scene *scene)
{
    const trn_sensor *sensor;
    c->recipe->scene_place = place_here(c);
    lua_getfield(c->L, -1, "kind");
    scene->each = !strcmp(lua_tostring(c->L, -1), "images");
    lua_pop(c->L, 1);
    scene->paths = texts_field(c, "path", &scene->path_count);
    convert_dates(c, scene);
    convert_location(c, scene);
    convert_scene_sensor(c, scene, &sensor);
    scene->band_names = texts_field(c, "bands", &scene->band_name_count);
    scene->has_scale = has(c, "scale");
    scene->scale = number_field(c, "scale", 1);
    scene->offset = number_field(c, "offset", 0);
    scene->unit = sensor ? sensor->unit : TRN_UNIT_ANY;
    if (has(c, "unit")) scene->unit = (trn_unit)choice_field(c, "unit", units, TRN_COUNT(units));
    scene->has_nodata = has(c, "nodata");
    scene->nodata = number_field(c, "nodata", 0);
    scene->resize = integer_field(c, "resize");
}

/* ---- encoders, fusion, exports ---- */

static const trn_setting *convert_settings(converter *c, size_t *count)
{
    lua_getfield(c->L, -1, "settings");
    *count = (size_t)lua_rawlen(c->L, -1);
    trn_setting *settings = take(c, *count, sizeof *settings);
    for (size_t i = 0; settings && i < *count; i++) {
        lua_rawgeti(c->L, -1, (lua_Integer)i + 1);
        settings[i].key = text_field(c, "key");
        settings[i].value = text_field(c, "value");
        lua_pop(c->L, 1);
    }
    lua_pop(c->L, 1);
    return settings;
}

static void convert_encoder(converter *c, trn_job_encoder *encoder)
{
    encoder->model = text_field(c, "name");
    encoder->weights = text_field(c, "weights");
    encoder->wrapper = text_field(c, "wrapper");
    encoder->settings = convert_settings(c, &encoder->setting_count);
    encoder->bands = texts_field(c, "bands", &encoder->band_count);
    encoder->normalize =
        (trn_normalize)choice_field(c, "normalize", normalizations, TRN_COUNT(normalizations));
    encoder->weight = number_field(c, "weight", 1);
    encoder->remove_position = flag_field(c, "remove_position");
    encoder->date = integer_field(c, "date");
    encoder->display = number_field(c, "display", 0);
}

static void convert_encoders(converter *c, trn_embed_job *job)
{
    lua_getfield(c->L, -1, "encoders");
    lua_getfield(c->L, -2, "pools");
    size_t count = (size_t)lua_rawlen(c->L, -2);
    trn_job_encoder *encoders = take(c, count, sizeof *encoders);
    recipe_place *places = take(c, count, sizeof *places);
    for (size_t i = 0; encoders && places && i < count; i++) {
        lua_rawgeti(c->L, -1, (lua_Integer)i + 1);
        const char *pool = lua_tostring(c->L, -1);
        encoders[i].pool = (trn_feature_pool)choice_word(c, pool, pools, TRN_COUNT(pools));
        lua_rawgeti(c->L, -3, (lua_Integer)i + 1);
        convert_encoder(c, &encoders[i]);
        places[i] = place_here(c);
        lua_pop(c->L, 2);
    }
    lua_pop(c->L, 2);
    job->encoders = encoders;
    job->encoder_count = count;
    c->recipe->encoder_places = places;
}

static void convert_fusion(converter *c, trn_compose_options *compose)
{
    lua_getfield(c->L, -1, "fusion");
    compose->fusion = (trn_fusion)choice_field(c, "constructor", fusions, TRN_COUNT(fusions));
    compose->l2_normalize = flag_field(c, "l2");
    compose->cell = integer_field(c, "cell");
    lua_pop(c->L, 1);
}

static void convert_exports(converter *c, trn_embed_job *job)
{
    lua_getfield(c->L, -1, "export");
    size_t count = (size_t)lua_rawlen(c->L, -1);
    trn_job_export *exports = take(c, count, sizeof *exports);
    recipe_place *places = take(c, count, sizeof *places);
    for (size_t i = 0; exports && places && i < count; i++) {
        lua_rawgeti(c->L, -1, (lua_Integer)i + 1);
        exports[i].path = text_field(c, "path");
        exports[i].options.type = flag_field(c, "float16") ? TRN_EXPORT_F16 : TRN_EXPORT_F32;
        exports[i].options.compression = text_field(c, "compression");
        exports[i].options.tile = integer_field(c, "block");
        places[i] = place_here(c);
        lua_pop(c->L, 1);
    }
    lua_pop(c->L, 1);
    job->exports = exports;
    job->export_count = count;
    c->recipe->export_places = places;
}

/* ---- parameters and the record for result.json ---- */

static void convert_params(converter *c)
{
    trn_recipe *recipe = c->recipe;
    recipe->param_count = (size_t)lua_rawlen(c->L, -1);
    recipe->params = take(c, recipe->param_count, sizeof *recipe->params);
    for (size_t i = 0; recipe->params && i < recipe->param_count; i++) {
        lua_rawgeti(c->L, -1, (lua_Integer)i + 1);
        recipe->params[i].name = text_field(c, "name");
        recipe->params[i].description = text_field(c, "help");
        recipe->params[i].value = text_field(c, "value_text");
        recipe->params[i].default_value = text_field(c, "default_text");
        lua_pop(c->L, 1);
    }
}

/* {"recipe": name, "parameters": {name: text, ...}} */
static const char *result_record(converter *c)
{
    const trn_recipe *recipe = c->recipe;
    trn_text text = {0};
    trn_text_add(&text, "{\"recipe\": ");
    trn_text_json(&text, recipe->name);
    trn_text_add(&text, ", \"parameters\": {");
    for (size_t i = 0; i < recipe->param_count; i++) {
        trn_text_add(&text, i ? ", " : "");
        trn_text_json(&text, recipe->params[i].name);
        trn_text_add(&text, ": ");
        trn_text_json(&text, recipe->params[i].value);
    }
    trn_text_add(&text, "}}");
    if (text.failed) fail_memory(c);
    const char *result = copy(c, trn_text_get(&text));
    trn_text_free(&text);
    return result;
}

/* "quickstart" of "recipes/quickstart.lua" */
static const char *job_name(converter *c)
{
    const char *file = trn_path_name(c->recipe->name);
    size_t length = strlen(file) - (trn_ends_with(file, ".lua") ? 4 : 0);
    const char *name = trn_arena_printf(c->recipe->arena, "%.*s", (int)TRN_MIN(length, (size_t)255), file);
    if (!name) fail_memory(c);
    return name;
}

static void convert_embed(converter *c, trn_embed_job *job)
{
    convert_encoders(c, job);
    convert_fusion(c, &job->compose);
    job->tile = integer_field(c, "tile");
    job->overlap = integer_field(c, "overlap");
    job->batch = integer_field(c, "batch");
    job->tile_vectors = flag_field(c, "tile_vectors");
    convert_exports(c, job);
}

/* Its encoder and picture are in the job that embeds as well, for what is alike: settings and places. */
static void convert_reconstruct(converter *c, trn_embed_job *job)
{
    trn_recipe *recipe = c->recipe;
    trn_reconstruct_job *made = take(c, 1, sizeof *made);
    recipe_place *encoder_place = take(c, 1, sizeof *encoder_place),
                 *export_place = take(c, 1, sizeof *export_place);
    if (!made || !encoder_place || !export_place) return;
    lua_getfield(c->L, -1, "encoder");
    convert_encoder(c, &made->encoder);
    *encoder_place = place_here(c);
    lua_pop(c->L, 1);
    size_t count = 0;
    const double *place = numbers_field(c, "place", &count);
    made->has_place = place && count == 2;
    if (made->has_place) {
        made->x = (int64_t)place[0];
        made->y = (int64_t)place[1];
    }
    made->mask_ratio = number_field(c, "mask_ratio", 0);
    made->seed = (uint64_t)integer_field(c, "seed");
    made->size = integer_field(c, "size");
    made->picture.path = text_field(c, "export");
    *export_place = recipe->embed_place;
    export_place->field = "export";
    job->encoders = &made->encoder;
    job->exports = &made->picture;
    job->encoder_count = job->export_count = 1;
    recipe->encoder_places = encoder_place;
    recipe->export_places = export_place;
    recipe->reconstruct = made;
}

static bool is_kind(converter *c, const char *kind)
{
    lua_getfield(c->L, -1, "kind");
    bool same = !strcmp(lua_tostring(c->L, -1), kind);
    lua_pop(c->L, 1);
    return same;
}

static void convert_job(converter *c)
{
    trn_recipe *recipe = c->recipe;
    trn_embed_job *job = take(c, 1, sizeof *job);
    if (!job) return;
    recipe->job = job;
    recipe->embed_place = place_here(c);
    recipe->title = text_field(c, "title");
    lua_getfield(c->L, -1, "scene");
    convert_scene(c, &job->scene);
    lua_pop(c->L, 1);
    if (is_kind(c, "reconstruct"))
        convert_reconstruct(c, job);
    else
        convert_embed(c, job);
    job->strict = flag_field(c, "strict");
    job->name = job_name(c);
    if (!recipe->title) recipe->title = job->name;
}

/* What both kinds of jobs have. */
static void complete_reconstruct(trn_recipe *recipe)
{
    trn_reconstruct_job *made = recipe->reconstruct;
    if (!made) return;
    made->name = recipe->job->name;
    made->scene = recipe->job->scene;
    made->strict = recipe->job->strict;
    made->result_extra = recipe->job->result_extra;
}

trn_status trn_recipe_convert(lua_State *L, int data, int params, trn_recipe *recipe, trn_error *err)
{
    converter c = {L, recipe, err, TRN_OK};
    luaL_checkstack(L, 16, "converting the recipe");
    lua_pushvalue(L, params);
    convert_params(&c);
    lua_pop(L, 1);
    lua_pushvalue(L, data);
    convert_job(&c);
    lua_pop(L, 1);
    if (c.status == TRN_OK) recipe->job->result_extra = result_record(&c);
    if (c.status == TRN_OK) complete_reconstruct(recipe);
    return c.status;
}
