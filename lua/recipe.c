/* recipe: the door. Loads Terrane's Lua modules into a sandbox, runs the recipe, hands what it declares to
 * convert. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>

#include "recipe_private.h"
#include "sandbox.h"
#include "source.h"

extern const trn_embedded_file trn_lua_files[];    /* lua/terrane */
extern const trn_embedded_file trn_recipe_files[]; /* recipes */

static const size_t max_recipe_bytes = (size_t)1 << 20;
enum {
    MAX_SETS = 256,
    MAX_SET_BYTES = 4096,
    MAX_ENCODER_SETTINGS = 256,
    MAX_ARGUMENTS = 32,
    MAX_NODE_ARGS = 17
};

typedef struct load_run {
    trn_recipe *recipe;
    const char *text; /* without byte order mark */
    size_t size;
    const char *const *sets;
    size_t set_count;
    trn_status status;
    trn_error *err;
} load_run;

/* ---- what Terrane's modules may ask of C ---- */

/* Upvalue 1: the recipe. (line, constructor, field or nil, item or nil) -> line */
static int host_locate(lua_State *L)
{
    const trn_recipe *recipe = lua_touserdata(L, lua_upvalueindex(1));
    int line = (int)luaL_checkinteger(L, 1);
    const char *constructor = luaL_checkstring(L, 2);
    const char *field = luaL_optstring(L, 3, NULL);
    int item = (int)luaL_optinteger(L, 4, 0);
    trn_sandbox_charge(L, 20 + recipe->source_size / 8);
    int found = trn_source_line(recipe->source, recipe->source_size, line, constructor, field, item);
    lua_pushinteger(L, found);
    return 1;
}

static int host_line(lua_State *L)
{
    lua_pushinteger(L, trn_sandbox_line(L));
    return 1;
}

/* (word, list of texts) -> text or nil */
static int host_nearest(lua_State *L)
{
    const char *candidates[128];
    const char *word = luaL_checkstring(L, 1);
    size_t count = TRN_MIN((size_t)lua_rawlen(L, 2), TRN_COUNT(candidates));
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, 2, (lua_Integer)i + 1);
        candidates[i] = luaL_checkstring(L, -1);
        lua_pop(L, 1); /* the list keeps the text alive */
    }
    lua_pushstring(L, strlen(word) > 64 ? NULL : trn_nearest(word, candidates, count));
    return 1;
}

static int host_parse_integer(lua_State *L)
{
    int64_t value;
    if (!trn_parse_int(luaL_checkstring(L, 1), &value)) return 0;
    lua_pushinteger(L, (lua_Integer)value);
    return 1;
}

static int host_parse_number(lua_State *L)
{
    double value;
    if (!trn_parse_double(luaL_checkstring(L, 1), &value)) return 0;
    lua_pushnumber(L, value);
    return 1;
}

/* The shortest text that reads back as the same value; texts stay. */
static int host_number_text(lua_State *L)
{
    char text[48];
    if (lua_type(L, 1) != LUA_TNUMBER) {
        luaL_tolstring(L, 1, NULL);
        return 1;
    }
    if (lua_isinteger(L, 1)) {
        snprintf(text, sizeof text, "%lld", (long long)lua_tointeger(L, 1));
    } else {
        double back;
        snprintf(text, sizeof text, "%.15g", lua_tonumber(L, 1));
        if (!trn_parse_double(text, &back) || back != lua_tonumber(L, 1))
            snprintf(text, sizeof text, "%.17g", lua_tonumber(L, 1));
    }
    lua_pushstring(L, text);
    return 1;
}

/* Upvalue 1: function(line, argument count, arguments). A C function, because a tail call to it (`return
 * terrane.embed {...}`) keeps the recipe's frame and so its line. */
static int call_constructor(lua_State *L)
{
    int count = lua_gettop(L), given = TRN_MIN(count, MAX_ARGUMENTS);
    trn_sandbox_charge(L, 100);
    lua_settop(L, given);
    luaL_checkstack(L, 4, "calling a constructor");
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_pushinteger(L, trn_sandbox_line(L));
    lua_insert(L, 2);
    lua_pushinteger(L, count);
    lua_insert(L, 3);
    lua_call(L, given + 2, 1);
    return 1;
}

static int host_constructor(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, 1);
    lua_pushcclosure(L, call_constructor, 1);
    return 1;
}

/* The operators of networks: a list of their names. */
static int host_operators(lua_State *L)
{
    lua_newtable(L);
    for (size_t i = 0; trn_program_op_at(i); i++) {
        lua_createtable(L, 0, 1);
        lua_pushstring(L, trn_program_op_at(i)->name);
        lua_setfield(L, -2, "name");
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

/* (operator, number of values, list of {key, number or text}, name or nil) -> nil, or what is wrong. The list
 * keeps the texts alive. */
static int host_check_node(lua_State *L)
{
    int inputs[MAX_ARGUMENTS] = {0};
    trn_program_arg args[MAX_NODE_ARGS] = {{0}};
    trn_error err = {0};
    trn_program_node node = {.op = luaL_checkstring(L, 1), .inputs = inputs, .args = args};
    node.input_count = (int)TRN_MIN(luaL_checkinteger(L, 2), (lua_Integer)MAX_ARGUMENTS);
    node.arg_count = (int)TRN_MIN(lua_rawlen(L, 3), (size_t)MAX_NODE_ARGS);
    node.name = luaL_optstring(L, 4, NULL);
    for (int i = 0; i < node.arg_count; i++) {
        lua_rawgeti(L, 3, i + 1);
        lua_getfield(L, -1, "key");
        lua_getfield(L, -2, "number");
        lua_getfield(L, -3, "text");
        args[i] = (trn_program_arg){lua_tostring(L, -3), lua_tonumber(L, -2), lua_tostring(L, -1)};
        lua_pop(L, 4);
    }
    trn_program program = {.nodes = &node, .node_count = 1, .input_count = 1};
    if (trn_program_check(&program, &err) == TRN_OK) return 0;
    size_t prefix = strlen(node.op) + strlen(": ");
    lua_pushstring(L, strlen(err.message) > prefix ? err.message + prefix : err.message);
    return 1;
}

/* ---- modules ---- */

static const trn_embedded_file *find_module(const char *name)
{
    size_t length = strlen(name);
    for (const trn_embedded_file *file = trn_lua_files; file->name; file++)
        if (!strncmp(file->name, name, length) && !strcmp(file->name + length, ".lua")) return file;
    return NULL;
}

/* import(name): runs an embedded module once. Terrane's modules only. */
static int import_module(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, "terrane.modules");
    if (lua_getfield(L, -1, name) != LUA_TNIL) return 1;
    lua_pop(L, 1);
    const trn_embedded_file *file = find_module(name);
    if (!file) return luaL_error(L, "terrane/%s.lua is not built in", name);
    lua_pushfstring(L, "@terrane/%s", file->name);
    if (luaL_loadbufferx(L, file->text, file->length, lua_tostring(L, -1), "t") != LUA_OK)
        return lua_error(L);
    lua_call(L, 0, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, -4, name);
    return 1;
}

static int require_terrane(lua_State *L)
{
    trn_sandbox_charge(L, 20);
    const char *name = luaL_checkstring(L, 1);
    if (strcmp(name, "terrane"))
        return luaL_error(L, "require '%s': a recipe can require 'terrane' and nothing else", name);
    lua_pushcfunction(L, import_module);
    lua_pushliteral(L, "terrane");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "module");
    return 1;
}

/* Pushes {key = text} of the --set arguments. */
static void push_sets(lua_State *L, const load_run *run)
{
    lua_newtable(L);
    for (size_t i = 0; i < run->set_count; i++) {
        const char *equals = strchr(run->sets[i], '=');
        lua_pushlstring(L, run->sets[i], (size_t)(equals - run->sets[i]));
        lua_pushstring(L, equals + 1);
        lua_rawset(L, -3);
    }
}

static void set_host(lua_State *L, const load_run *run)
{
    static const luaL_Reg functions[] = {{"line", host_line},
                                         {"nearest", host_nearest},
                                         {"parse_integer", host_parse_integer},
                                         {"parse_number", host_parse_number},
                                         {"number_text", host_number_text},
                                         {"constructor", host_constructor},
                                         {"operators", host_operators},
                                         {"check_node", host_check_node},
                                         {NULL, NULL}};
    luaL_newlib(L, functions);
    lua_pushlightuserdata(L, run->recipe);
    lua_pushcclosure(L, host_locate, 1);
    lua_setfield(L, -2, "locate");
    push_sets(L, run);
    lua_setfield(L, -2, "sets");
    lua_setglobal(L, "host");
    lua_pushcfunction(L, import_module);
    lua_setglobal(L, "import");
}

/* ---- one run ---- */

/* Pushes terrane.finish of the module, so that mistakes in modules show before the recipe runs. */
static void push_finish(lua_State *L)
{
    lua_pushcfunction(L, import_module);
    lua_pushliteral(L, "terrane");
    lua_call(L, 1, 1);
    lua_getfield(L, -1, "finish");
    lua_remove(L, -2);
}

/* Under lua_pcall; argument: the load_run. */
static int run_recipe(lua_State *L)
{
    load_run *run = lua_touserdata(L, 1);
    trn_sandbox_libraries(L);
    set_host(L, run);
    push_finish(L); /* 2 */
    if (luaL_loadbufferx(L, run->text, run->size, "@" TRN_RECIPE_CHUNK, "t") != LUA_OK) return lua_error(L);
    trn_sandbox_push_environment(L, require_terrane);
    lua_setupvalue(L, -2, 1);
    lua_call(L, 0, LUA_MULTRET); /* 3... */
    int count = lua_gettop(L) - 2;
    lua_settop(L, 3);
    lua_pushvalue(L, 2);
    lua_pushinteger(L, count);
    lua_pushvalue(L, 3);
    lua_call(L, 2, 2); /* 4: data, 5: params */
    run->status = trn_recipe_convert(L, 4, 5, run->recipe, run->err);
    return 0;
}

/* Control characters in a recipe's error text would reach the user's terminal. */
static void clean_text(char *text)
{
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 32 || *c == 127) *c = *c == '\n' ? ' ' : '?';
}

static trn_status report_stop(const trn_sandbox *sandbox, const trn_recipe *recipe, trn_error *err)
{
    char line[24] = "";
    if (sandbox->stop_line) snprintf(line, sizeof line, ":%d", sandbox->stop_line);
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "%s%s: %s (limits: %.3g s, %llu instructions); a recipe only declares: shorten its loops",
                    recipe->name, line, sandbox->stop, sandbox->seconds,
                    (unsigned long long)sandbox->step_limit);
}

/* "recipe:12: text" -> "recipes/x.lua:12: text"; line 0 is not shown. */
static trn_status report_text(const trn_recipe *recipe, const char *text, trn_error *err)
{
    size_t prefix = strlen(TRN_RECIPE_CHUNK ":");
    trn_status code = TRN_ERR_ARGUMENT;
    if (trn_starts_with(text, "terrane/") && !strstr(text, "stack overflow")) code = TRN_ERR_INTERNAL;
    if (!trn_starts_with(text, TRN_RECIPE_CHUNK ":"))
        return trn_fail(err, code, "%s: %s", recipe->name, text);
    text += prefix;
    if (trn_starts_with(text, "0: ")) return trn_fail(err, code, "%s: %s", recipe->name, text + 3);
    return trn_fail(err, code, "%s:%s", recipe->name, text);
}

static trn_status report_failure(const trn_sandbox *sandbox, int lua_status, const trn_recipe *recipe,
                                 trn_error *err)
{
    char size[32];
    if (sandbox->stop) return report_stop(sandbox, recipe, err);
    if (lua_status == LUA_ERRMEM)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "%s: the recipe needs more than %s of memory; a recipe only declares", recipe->name,
                        trn_format_bytes(sandbox->memory_limit, size));
    trn_status code;
    if (lua_type(sandbox->L, -1) == LUA_TSTRING) {
        code = report_text(recipe, lua_tostring(sandbox->L, -1), err);
    } else {
        code = trn_fail(err, TRN_ERR_ARGUMENT, "%s: the recipe raised an error that is a %s, not a text",
                        recipe->name, luaL_typename(sandbox->L, -1));
    }
    if (err) clean_text(err->message);
    return code;
}

static trn_status run_sandboxed(load_run *run, const trn_recipe_limits *limits)
{
    trn_sandbox *sandbox;
    trn_status status = trn_sandbox_open(limits, &sandbox, run->err);
    if (status != TRN_OK) return status;
    lua_pushcfunction(sandbox->L, run_recipe);
    lua_pushlightuserdata(sandbox->L, run);
    int lua_status = lua_pcall(sandbox->L, 1, 0, 0);
    status = lua_status == LUA_OK ? run->status : report_failure(sandbox, lua_status, run->recipe, run->err);
    trn_sandbox_close(sandbox);
    return status;
}

/* ---- checks that need no Lua ---- */

trn_status trn_recipe_blame(const trn_recipe *recipe, recipe_place place, const char *field, trn_error *err)
{
    const char *inner = place.field ? place.field : field;
    int line = trn_source_line(recipe->source, recipe->source_size, place.line, place.constructor, inner,
                               place.item);
    return trn_wrap(err, "%s:%d: %s", recipe->name, line, place.constructor);
}

/* Where the message names the setting, as 'key' or key=value; NULL when it does not. */
static const char *find_setting(const char *message, const char *key)
{
    char quoted[80], assigned[80];
    snprintf(quoted, sizeof quoted, "'%s'", key);
    snprintf(assigned, sizeof assigned, " %s=", key);
    const char *first = strstr(message, quoted), *second = strstr(message, assigned);
    return !first || (second && second < first) ? second : first;
}

/* The setting that a model's error names first: its line is the one to show. */
static const char *blamed_setting(const trn_job_encoder *encoder, const trn_error *err)
{
    const char *first = NULL, *key = NULL;
    for (size_t i = 0; err && i < encoder->setting_count; i++) {
        const char *found = find_setting(err->message, encoder->settings[i].key);
        if (!found || (first && found >= first)) continue;
        first = found;
        key = encoder->settings[i].key;
    }
    return key;
}

/* A field of terrane.encoder that a refused setting may have meant. */
static const char *meant_field(const char *setting)
{
    static const char *const fields[] = {"weights", "bands", "normalize", "pool",
                                         "weight",  "date",  "display"};
    return setting && strlen(setting) <= 64 ? trn_nearest(setting, fields, TRN_COUNT(fields)) : NULL;
}

trn_status trn_recipe_check_encoders(const trn_recipe *recipe, trn_error *err)
{
    for (size_t i = 0; i < recipe->job->encoder_count; i++) {
        const trn_job_encoder *wanted = &recipe->job->encoders[i];
        trn_encoder *encoder = NULL;
        trn_status (*create)(const char *, const trn_setting *, size_t, trn_encoder **, trn_error *) =
            recipe->reconstruct ? trn_masked_create : trn_encoder_create;
        trn_status status = create(wanted->model, wanted->settings, wanted->setting_count, &encoder, err);
        trn_encoder_destroy(encoder);
        if (status == TRN_OK) continue;
        const char *setting = blamed_setting(wanted, err);
        const char *field = meant_field(setting);
        if (field && err) {
            size_t length = strlen(err->message);
            snprintf(err->message + length, sizeof err->message - length,
                     "; or did you mean the field '%s' of terrane.encoder?", field);
        }
        return trn_recipe_blame(recipe, recipe->encoder_places[i], setting, err);
    }
    return TRN_OK;
}

static trn_status check_sets(const char *name, const char *const *sets, size_t count, trn_error *err)
{
    if (count > MAX_SETS) return trn_fail(err, TRN_ERR_ARGUMENT, "%s: more than %d --set", name, MAX_SETS);
    for (size_t i = 0; i < count; i++) {
        const char *equals = strchr(sets[i], '=');
        if (!equals || equals == sets[i])
            return trn_fail(err, TRN_ERR_ARGUMENT, "%s: --set %.80s: wanted KEY=VALUE", name, sets[i]);
        if (strlen(sets[i]) > MAX_SET_BYTES)
            return trn_fail(err, TRN_ERR_ARGUMENT, "%s: --set %.80s...: longer than %d bytes", name, sets[i],
                            MAX_SET_BYTES);
    }
    return TRN_OK;
}

/* ---- the door ---- */

/* Past a byte order mark and a first line that begins with '#'. Line numbers stay. */
static void skip_start(load_run *run)
{
    if (run->size >= 3 && !memcmp(run->text, "\xef\xbb\xbf", 3)) {
        run->text += 3;
        run->size -= 3;
    }
    if (!run->size || *run->text != '#') return;
    const char *end = memchr(run->text, '\n', run->size);
    run->size = end ? run->size - (size_t)(end - run->text) : 0;
    run->text = end ? end : run->text;
}

static trn_recipe *create_recipe(const char *name, const load_run *run, trn_error *err)
{
    trn_arena *arena = trn_arena_create();
    trn_recipe *recipe = arena ? trn_arena_alloc(arena, sizeof *recipe) : NULL;
    if (!recipe) goto fail;
    recipe->arena = arena;
    char *source = trn_arena_alloc(arena, run->size + 1);
    recipe->name = trn_arena_strdup(arena, name);
    if (!source || !recipe->name) goto fail;
    memcpy(source, run->text, run->size);
    recipe->source = source;
    recipe->source_size = run->size;
    return recipe;
fail:
    trn_arena_destroy(arena);
    trn_fail_memory(err, run->size, "the recipe");
    return NULL;
}

trn_status trn_recipe_load_text(const char *name, const char *text, size_t size, const char *const *sets,
                                size_t set_count, const trn_recipe_limits *limits, trn_recipe **out,
                                trn_error *err)
{
    *out = NULL;
    if (size > max_recipe_bytes)
        return trn_fail(err, TRN_ERR_ARGUMENT, "%s: %zu bytes are too many for a recipe (at most %zu)", name,
                        size, max_recipe_bytes);
    trn_status status = check_sets(name, sets, set_count, err);
    if (status != TRN_OK) return status;
    load_run run = {NULL, text, size, sets, set_count, TRN_OK, err};
    skip_start(&run);
    run.recipe = create_recipe(name, &run, err);
    if (!run.recipe) return TRN_ERR_MEMORY;
    status = run_sandboxed(&run, limits);
    if (status == TRN_OK) status = trn_recipe_check_encoders(run.recipe, err);
    if (status != TRN_OK) {
        trn_recipe_destroy(run.recipe);
        return status;
    }
    *out = run.recipe;
    return TRN_OK;
}

static const trn_embedded_file *find_builtin(const char *name)
{
    size_t length = strlen(name) - (trn_ends_with(name, ".lua") ? 4 : 0);
    for (const trn_embedded_file *file = trn_recipe_files; file->name; file++)
        if (!strncmp(file->name, name, length) && !strcmp(file->name + length, ".lua")) return file;
    return NULL;
}

static trn_status fail_missing(const char *path, trn_error *err)
{
    char names[32][64], word[64];
    const char *candidates[TRN_COUNT(names)];
    size_t count = 0;
    for (; trn_recipe_files[count].name && count < TRN_COUNT(names); count++) {
        const char *name = trn_recipe_files[count].name;
        snprintf(names[count], sizeof names[count], "%.*s", (int)(strlen(name) - strlen(".lua")), name);
        candidates[count] = names[count];
    }
    const char *file = trn_path_name(path);
    size_t length = strlen(file) - (trn_ends_with(file, ".lua") ? strlen(".lua") : 0);
    snprintf(word, sizeof word, "%.*s", (int)TRN_MIN(length, sizeof word), file);
    const char *near = trn_nearest(word, candidates, count);
    return trn_fail(err, TRN_ERR_IO, "recipe %s: no such file, and no built-in recipe of that name%s%s%s",
                    path, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

trn_status trn_recipe_load(const char *path, const char *const *sets, size_t set_count,
                           const trn_recipe_limits *limits, trn_recipe **out, trn_error *err)
{
    *out = NULL;
    if (!trn_path_exists(path)) {
        const trn_embedded_file *file = find_builtin(path);
        if (!file) return fail_missing(path, err);
        return trn_recipe_load_text(file->name, file->text, file->length, sets, set_count, limits, out, err);
    }
    size_t size;
    char *text = trn_read_file(path, max_recipe_bytes, &size, err);
    if (!text) return trn_wrap(err, "recipe");
    trn_status status = trn_recipe_load_text(path, text, size, sets, set_count, limits, out, err);
    free(text);
    return status;
}

void trn_recipe_destroy(trn_recipe *recipe)
{
    if (recipe) trn_arena_destroy(recipe->arena);
}

const char *trn_recipe_title(const trn_recipe *recipe)
{
    return recipe->title;
}

size_t trn_recipe_param_count(const trn_recipe *recipe)
{
    return recipe->param_count;
}

trn_recipe_param trn_recipe_param_at(const trn_recipe *recipe, size_t i)
{
    return i < recipe->param_count ? recipe->params[i] : (trn_recipe_param){0};
}

const char *trn_recipe_builtin(size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (!trn_recipe_files[k].name) return NULL;
    return trn_recipe_files[i].name;
}

const trn_embed_job *trn_recipe_job(const trn_recipe *recipe)
{
    return recipe->reconstruct || recipe->probe || recipe->train ? NULL : recipe->job;
}

const trn_reconstruct_job *trn_recipe_reconstruct(const trn_recipe *recipe)
{
    return recipe->reconstruct;
}

const trn_probe_job *trn_recipe_probe(const trn_recipe *recipe)
{
    return recipe->probe;
}

const trn_train_job *trn_recipe_train(const trn_recipe *recipe)
{
    return recipe->train;
}

static recipe_place place_of(const trn_recipe *recipe, trn_recipe_part part, size_t index)
{
    const trn_embed_job *job = recipe->job;
    if (part == TRN_RECIPE_SCENE) return recipe->scene_place;
    if (part == TRN_RECIPE_ENCODER && index < job->encoder_count) return recipe->encoder_places[index];
    if (part == TRN_RECIPE_EXPORT && index < job->export_count) return recipe->export_places[index];
    return recipe->embed_place;
}

void trn_recipe_place(const trn_recipe *recipe, trn_recipe_part part, size_t index, const char *field,
                      trn_text *out)
{
    recipe_place place = place_of(recipe, part, index);
    const char *inner = place.field ? place.field : field;
    int line = trn_source_line(recipe->source, recipe->source_size, place.line, place.constructor, inner,
                               place.item);
    trn_text_printf(out, "%s:%d", recipe->name, line);
}
