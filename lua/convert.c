/* convert: checked Lua tables -> the plain structs of a job, in the recipe's arena. */
#include <math.h>
#include <string.h>

#include <lauxlib.h>

#include "convert.h"

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

/* ---- sensors and scenes ---- */

static void convert_band(converter *c, trn_band *band)
{
    size_t count = 0;
    band->name = trn_field_text(c, "name");
    band->common = trn_field_text(c, "common");
    if (!band->common) band->common = band->name;
    band->wavelength_um = trn_field_number(c, "wavelength", 0);
    band->gsd_m = trn_field_number(c, "gsd", 0);
    const char *const *aliases = trn_field_texts(c, "aliases", &count);
    for (size_t i = 0; aliases && i < TRN_MIN(count, (size_t)TRN_MAX_BAND_ALIASES); i++)
        band->aliases[i] = aliases[i];
}

/* The table of a terrane.sensor is at the top. */
static void convert_sensor(converter *c, stored_values *values)
{
    trn_sensor sensor = {.name = trn_field_text(c, "name"),
                         .title = trn_field_text(c, "title"),
                         .unit = (trn_unit)trn_field_choice(c, "unit", units, TRN_COUNT(units)),
                         .scale = trn_field_number(c, "scale", 1),
                         .offset = trn_field_number(c, "offset", 0),
                         .nodata = trn_field_number(c, "nodata", NAN)};
    c->recipe->sensor_place = trn_convert_place(c);
    lua_getfield(c->L, -1, "bands");
    size_t count = (size_t)lua_rawlen(c->L, -1);
    trn_band *bands = trn_convert_take(c, count, sizeof *bands);
    for (size_t i = 0; bands && i < count; i++) {
        lua_rawgeti(c->L, -1, (lua_Integer)i + 1);
        convert_band(c, &bands[i]);
        lua_pop(c->L, 1);
    }
    lua_pop(c->L, 1);
    if (c->status != TRN_OK) return;
    sensor.bands = bands;
    sensor.band_count = count;
    values->custom = trn_sensor_define(c->recipe->arena, &sensor, c->err);
    if (!values->custom) c->status = trn_recipe_blame(c->recipe, c->recipe->sensor_place, NULL, c->err);
}

static const trn_sensor *choose_sensor(converter *c, stored_values *values)
{
    const trn_sensor *sensor = NULL;
    int type = lua_getfield(c->L, -1, "sensor");
    if (type == LUA_TTABLE) {
        convert_sensor(c, values);
        sensor = values->custom;
    } else if (type == LUA_TSTRING) {
        values->sensor = trn_convert_text(c, lua_tostring(c->L, -1));
        sensor = values->sensor ? trn_sensor_find(values->sensor, c->err) : NULL;
        if (!sensor && c->status == TRN_OK)
            c->status = trn_recipe_blame(c->recipe, c->recipe->scene_place, "sensor", c->err);
    }
    lua_pop(c->L, 1);
    return sensor;
}

stored_values trn_convert_values(converter *c)
{
    stored_values values = {0};
    const trn_sensor *sensor = choose_sensor(c, &values);
    values.has_scale = trn_field_given(c, "scale");
    values.scale = trn_field_number(c, "scale", 1);
    values.offset = trn_field_number(c, "offset", 0);
    values.unit = sensor ? sensor->unit : TRN_UNIT_ANY;
    if (trn_field_given(c, "unit"))
        values.unit = (trn_unit)trn_field_choice(c, "unit", units, TRN_COUNT(units));
    return values;
}

static void convert_dates(converter *c, trn_job_scene *scene)
{
    size_t count = 0;
    const double *files = trn_field_numbers(c, "date_files", &count);
    size_t *of_date = trn_convert_take(c, count, sizeof *of_date);
    for (size_t i = 0; files && of_date && i < count; i++)
        of_date[i] = (size_t)files[i];
    scene->date_files = files ? of_date : NULL;
    scene->date_count = count;
    const char *const *texts = trn_field_texts(c, "acquired", &count);
    trn_date *days = trn_convert_take(c, count, sizeof *days);
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
    const double *place = trn_field_numbers(c, "location", &count);
    scene->has_location = place && count == 2;
    if (!scene->has_location) return;
    scene->latitude = place[0];
    scene->longitude = place[1];
}

static void convert_scene(converter *c, trn_job_scene *scene)
{
    c->recipe->scene_place = trn_convert_place(c);
    scene->each = trn_field_is(c, "kind", "images");
    scene->paths = trn_field_texts(c, "path", &scene->path_count);
    convert_dates(c, scene);
    convert_location(c, scene);
    stored_values values = trn_convert_values(c);
    scene->sensor = values.sensor;
    scene->custom = values.custom;
    scene->band_names = trn_field_texts(c, "bands", &scene->band_name_count);
    scene->has_scale = values.has_scale;
    scene->scale = values.scale;
    scene->offset = values.offset;
    scene->unit = values.unit;
    scene->has_nodata = trn_field_given(c, "nodata");
    scene->nodata = trn_field_number(c, "nodata", 0);
    scene->resize = trn_field_integer(c, "resize");
}

/* ---- encoders, fusion, exports ---- */

static const trn_setting *convert_settings(converter *c, size_t *count)
{
    lua_getfield(c->L, -1, "settings");
    *count = (size_t)lua_rawlen(c->L, -1);
    trn_setting *settings = trn_convert_take(c, *count, sizeof *settings);
    for (size_t i = 0; settings && i < *count; i++) {
        lua_rawgeti(c->L, -1, (lua_Integer)i + 1);
        settings[i].key = trn_field_text(c, "key");
        settings[i].value = trn_field_text(c, "value");
        lua_pop(c->L, 1);
    }
    lua_pop(c->L, 1);
    return settings;
}

static void convert_encoder(converter *c, trn_job_encoder *encoder)
{
    encoder->model = trn_field_text(c, "name");
    encoder->weights = trn_field_text(c, "weights");
    encoder->wrapper = trn_field_text(c, "wrapper");
    encoder->settings = convert_settings(c, &encoder->setting_count);
    encoder->bands = trn_field_texts(c, "bands", &encoder->band_count);
    encoder->normalize =
        (trn_normalize)trn_field_choice(c, "normalize", normalizations, TRN_COUNT(normalizations));
    encoder->weight = trn_field_number(c, "weight", 1);
    encoder->remove_position = trn_field_flag(c, "remove_position");
    encoder->date = trn_field_integer(c, "date");
    encoder->display = trn_field_number(c, "display", 0);
}

void trn_convert_encoders(converter *c, trn_embed_job *job)
{
    lua_getfield(c->L, -1, "encoders");
    lua_getfield(c->L, -2, "pools");
    size_t count = (size_t)lua_rawlen(c->L, -2);
    trn_job_encoder *encoders = trn_convert_take(c, count, sizeof *encoders);
    recipe_place *places = trn_convert_take(c, count, sizeof *places);
    for (size_t i = 0; encoders && places && i < count; i++) {
        lua_rawgeti(c->L, -1, (lua_Integer)i + 1);
        const char *pool = lua_tostring(c->L, -1);
        encoders[i].pool = (trn_feature_pool)trn_convert_choice(c, pool, pools, TRN_COUNT(pools));
        lua_rawgeti(c->L, -3, (lua_Integer)i + 1);
        convert_encoder(c, &encoders[i]);
        places[i] = trn_convert_place(c);
        lua_pop(c->L, 2);
    }
    lua_pop(c->L, 2);
    job->encoders = encoders;
    job->encoder_count = count;
    c->recipe->encoder_places = places;
}

void trn_convert_fusion(converter *c, trn_compose_options *compose)
{
    lua_getfield(c->L, -1, "fusion");
    compose->fusion = (trn_fusion)trn_field_choice(c, "constructor", fusions, TRN_COUNT(fusions));
    compose->l2_normalize = trn_field_flag(c, "l2");
    compose->cell = trn_field_integer(c, "cell");
    lua_pop(c->L, 1);
}

static void convert_exports(converter *c, trn_embed_job *job)
{
    lua_getfield(c->L, -1, "export");
    size_t count = (size_t)lua_rawlen(c->L, -1);
    trn_job_export *exports = trn_convert_take(c, count, sizeof *exports);
    recipe_place *places = trn_convert_take(c, count, sizeof *places);
    for (size_t i = 0; exports && places && i < count; i++) {
        lua_rawgeti(c->L, -1, (lua_Integer)i + 1);
        exports[i].path = trn_field_text(c, "path");
        exports[i].options.type = trn_field_flag(c, "float16") ? TRN_EXPORT_F16 : TRN_EXPORT_F32;
        exports[i].options.compression = trn_field_text(c, "compression");
        exports[i].options.tile = trn_field_integer(c, "block");
        places[i] = trn_convert_place(c);
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
    recipe->params = trn_convert_take(c, recipe->param_count, sizeof *recipe->params);
    for (size_t i = 0; recipe->params && i < recipe->param_count; i++) {
        lua_rawgeti(c->L, -1, (lua_Integer)i + 1);
        recipe->params[i].name = trn_field_text(c, "name");
        recipe->params[i].description = trn_field_text(c, "help");
        recipe->params[i].value = trn_field_text(c, "value_text");
        recipe->params[i].default_value = trn_field_text(c, "default_text");
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
    if (text.failed) trn_convert_no_memory(c);
    const char *result = trn_convert_text(c, trn_text_get(&text));
    trn_text_free(&text);
    return result;
}

/* "quickstart" of "recipes/quickstart.lua" */
static const char *job_name(converter *c)
{
    const char *file = trn_path_name(c->recipe->name);
    size_t length = strlen(file) - (trn_ends_with(file, ".lua") ? 4 : 0);
    const char *name = trn_arena_printf(c->recipe->arena, "%.*s", (int)TRN_MIN(length, (size_t)255), file);
    if (!name) trn_convert_no_memory(c);
    return name;
}

static void convert_embed(converter *c, trn_embed_job *job)
{
    static const choice precisions[] = {
        {"float32", TRN_PRECISION_FLOAT32}, {"float16", TRN_PRECISION_FLOAT16}, {"auto", TRN_PRECISION_AUTO}};
    trn_convert_encoders(c, job);
    trn_convert_fusion(c, &job->compose);
    job->tile = trn_field_integer(c, "tile");
    job->overlap = trn_field_integer(c, "overlap");
    job->batch = trn_field_integer(c, "batch");
    job->precision = (trn_precision)trn_field_choice(c, "precision", precisions, TRN_COUNT(precisions));
    job->tile_vectors = trn_field_flag(c, "tile_vectors");
    convert_exports(c, job);
}

/* Its encoder and picture are in the job that embeds as well, for what is alike: settings and places. */
static void convert_reconstruct(converter *c, trn_embed_job *job)
{
    trn_recipe *recipe = c->recipe;
    trn_reconstruct_job *made = trn_convert_take(c, 1, sizeof *made);
    recipe_place *encoder_place = trn_convert_take(c, 1, sizeof *encoder_place),
                 *export_place = trn_convert_take(c, 1, sizeof *export_place);
    if (!made || !encoder_place || !export_place) return;
    lua_getfield(c->L, -1, "encoder");
    convert_encoder(c, &made->encoder);
    *encoder_place = trn_convert_place(c);
    lua_pop(c->L, 1);
    size_t count = 0;
    const double *place = trn_field_numbers(c, "place", &count);
    made->has_place = place && count == 2;
    if (made->has_place) {
        made->x = (int64_t)place[0];
        made->y = (int64_t)place[1];
    }
    made->mask_ratio = trn_field_number(c, "mask_ratio", 0);
    made->seed = (uint64_t)trn_field_integer(c, "seed");
    made->size = trn_field_integer(c, "size");
    made->picture.path = trn_field_text(c, "export");
    *export_place = recipe->embed_place;
    export_place->field = "export";
    job->encoders = &made->encoder;
    job->exports = &made->picture;
    job->encoder_count = job->export_count = 1;
    recipe->encoder_places = encoder_place;
    recipe->export_places = export_place;
    recipe->reconstruct = made;
}

static void convert_over_scene(converter *c, trn_embed_job *job)
{
    lua_getfield(c->L, -1, "scene");
    convert_scene(c, &job->scene);
    lua_pop(c->L, 1);
    if (trn_field_is(c, "kind", "reconstruct"))
        convert_reconstruct(c, job);
    else
        convert_embed(c, job);
}

static void convert_job(converter *c)
{
    trn_recipe *recipe = c->recipe;
    trn_embed_job *job = trn_convert_take(c, 1, sizeof *job);
    if (!job) return;
    recipe->job = job;
    recipe->embed_place = trn_convert_place(c);
    recipe->title = trn_field_text(c, "title");
    job->strict = trn_field_flag(c, "strict");
    job->name = job_name(c);
    if (trn_field_is(c, "kind", "probing")) {
        trn_convert_probe(c, job);
    } else if (trn_field_is(c, "kind", "training")) {
        trn_convert_train(c, job);
    } else {
        convert_over_scene(c, job);
    }
    if (!recipe->title) recipe->title = job->name;
}

/* What all kinds of jobs have. */
static void complete_jobs(trn_recipe *recipe)
{
    const trn_embed_job *job = recipe->job;
    if (recipe->reconstruct) {
        recipe->reconstruct->name = job->name;
        recipe->reconstruct->scene = job->scene;
        recipe->reconstruct->strict = job->strict;
        recipe->reconstruct->result_extra = job->result_extra;
    } else if (recipe->probe) {
        recipe->probe->name = job->name;
        recipe->probe->strict = job->strict;
        recipe->probe->result_extra = job->result_extra;
    } else if (recipe->train) {
        recipe->train->name = job->name;
        recipe->train->strict = job->strict;
        recipe->train->result_extra = job->result_extra;
    }
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
    if (c.status == TRN_OK) complete_jobs(recipe);
    return c.status;
}
