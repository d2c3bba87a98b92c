/* sandbox: memory, instructions and time of a recipe's Lua state, and which functions it sees. */
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lualib.h>

#include "sandbox.h"

enum { HOOK_INTERVAL = 100, CALL_COST = 20 };
/* Allocations above this size ask the clock: a few large copies can outlast many instructions. */
static const size_t large_allocation = (size_t)64 << 10;

static trn_sandbox *sandbox_of(lua_State *L)
{
    void *user = NULL;
    lua_getallocf(L, &user);
    return user;
}

/* ---- limits ---- */

static bool out_of_time(const trn_sandbox *sandbox)
{
    return trn_now_ns() > sandbox->deadline_ns;
}

static const char stop_time[] = "the recipe runs for too long";
static const char stop_steps[] = "the recipe executes too many instructions";

static bool may_grow(trn_sandbox *sandbox, size_t more)
{
    if (more > sandbox->memory_limit - TRN_MIN(sandbox->used, sandbox->memory_limit)) return false;
    if (more > large_allocation && !sandbox->stop && out_of_time(sandbox)) sandbox->stop = stop_time;
    return !(more > large_allocation && sandbox->stop);
}

/* When ptr is NULL, old_size is a type tag of Lua, not a size. */
static void *count_memory(void *user, void *ptr, size_t old_size, size_t new_size)
{
    trn_sandbox *sandbox = user;
    size_t old = ptr ? old_size : 0;
    if (!new_size) {
        free(ptr);
        sandbox->used -= old;
        return NULL;
    }
    if (new_size > old && !may_grow(sandbox, new_size - old)) return NULL;
    void *result = realloc(ptr, new_size);
    if (!result) return new_size <= old ? ptr : NULL;
    sandbox->used = sandbox->used - old + new_size;
    return result;
}

/* Once stopped, every following instruction raises again, so that nothing can catch it and go on. */
static void on_count(lua_State *L, lua_Debug *info)
{
    (void)info;
    trn_sandbox_charge(L, HOOK_INTERVAL);
}

int trn_sandbox_line(lua_State *L)
{
    lua_Debug info;
    for (int level = 0; lua_getstack(L, level, &info); level++) {
        if (!lua_getinfo(L, "Sl", &info)) return 0;
        if (!strcmp(info.source, "@" TRN_RECIPE_CHUNK) && info.currentline > 0) return info.currentline;
    }
    return 0;
}

void trn_sandbox_charge(lua_State *L, uint64_t cost)
{
    trn_sandbox *sandbox = sandbox_of(L);
    sandbox->steps += cost;
    if (!sandbox->stop && sandbox->steps > sandbox->step_limit) sandbox->stop = stop_steps;
    if (!sandbox->stop && out_of_time(sandbox)) sandbox->stop = stop_time;
    if (!sandbox->stop) return;
    if (!sandbox->stop_line) sandbox->stop_line = trn_sandbox_line(L);
    lua_sethook(L, on_count, LUA_MASKCOUNT, 1);
    luaL_error(L, "%s", sandbox->stop);
}

trn_status trn_sandbox_open(const trn_recipe_limits *limits, trn_sandbox **out, trn_error *err)
{
    trn_recipe_limits chosen = limits ? *limits : (trn_recipe_limits){0};
    *out = NULL;
    trn_sandbox *sandbox = calloc(1, sizeof *sandbox);
    if (!sandbox) return trn_fail_memory(err, sizeof *sandbox, "the recipe");
    sandbox->memory_limit = chosen.memory_bytes ? chosen.memory_bytes : (size_t)64 << 20;
    sandbox->step_limit = chosen.instructions ? chosen.instructions : 50000000;
    sandbox->seconds = chosen.seconds > 0 ? TRN_MIN(chosen.seconds, 1e6) : 5;
    sandbox->deadline_ns = trn_now_ns() + (uint64_t)(sandbox->seconds * 1e9);
    sandbox->L = lua_newstate(count_memory, sandbox);
    if (!sandbox->L) {
        trn_fail(err, TRN_ERR_MEMORY, "no memory for a Lua state within %zu bytes", sandbox->memory_limit);
        free(sandbox);
        return TRN_ERR_MEMORY;
    }
    lua_sethook(sandbox->L, on_count, LUA_MASKCOUNT, HOOK_INTERVAL);
    *out = sandbox;
    return TRN_OK;
}

void trn_sandbox_close(trn_sandbox *sandbox)
{
    if (!sandbox) return;
    lua_sethook(sandbox->L, NULL, 0, 0);
    lua_close(sandbox->L);
    free(sandbox);
}

/* ---- what a recipe sees ---- */

/* Not here: pcall, coroutine and load (declarations need none; each is a way around a limit), setmetatable
 * (finalizers run without the hook), string.dump, string.pack, table.move (loops without end over absent
 * keys), math.random (a recipe gives the same job every time). */
typedef struct allowed_library {
    const char *name; /* NULL: global functions */
    const char *functions[24];
} allowed_library;

static const allowed_library allowed[] = {
    {NULL, {"assert", "error", "ipairs", "next", "pairs", "select", "tonumber", "tostring", "type"}},
    {"string",
     {"byte", "char", "find", "format", "gmatch", "gsub", "len", "lower", "match", "rep", "reverse", "sub",
      "upper"}},
    {"table", {"concat", "insert", "pack", "remove", "sort", "unpack"}},
    {"math",
     {"abs", "ceil", "cos", "exp", "floor", "fmod", "log", "max", "min", "sin", "sqrt", "tan", "tointeger",
      "type", "ult"}},
    {"utf8", {"char", "codepoint", "codes", "len", "offset"}},
};
static const char *const math_constants[] = {"huge", "maxinteger", "mininteger", "pi"};

/* A C function of the standard library, in the same frame, after the limits were seen. */
static int guarded_call(lua_State *L)
{
    lua_CFunction function = lua_tocfunction(L, lua_upvalueindex(1));
    trn_sandbox_charge(L, CALL_COST);
    return function(L);
}

/* [from, to] on top: to[name] = guarded from[name]. */
static void copy_function(lua_State *L, const char *name)
{
    lua_getfield(L, -2, name);
    if (!lua_iscfunction(L, -1)) luaL_error(L, "this Lua has no %s", name);
    lua_pushcclosure(L, guarded_call, 1);
    lua_setfield(L, -2, name);
}

/* Pushes a new table with the allowed functions of the library. */
static void push_library(lua_State *L, const allowed_library *library)
{
    if (library->name) {
        lua_getglobal(L, library->name);
    } else {
        lua_pushglobaltable(L);
    }
    lua_newtable(L);
    for (size_t i = 0; i < TRN_COUNT(library->functions) && library->functions[i]; i++)
        copy_function(L, library->functions[i]);
    for (size_t i = 0; library->name && !strcmp(library->name, "math") && i < TRN_COUNT(math_constants);
         i++) {
        lua_getfield(L, -2, math_constants[i]);
        lua_setfield(L, -2, math_constants[i]);
    }
    lua_remove(L, -2);
}

static int log_print(lua_State *L)
{
    trn_sandbox_charge(L, CALL_COST);
    int count = lua_gettop(L);
    luaL_Buffer text;
    luaL_buffinit(L, &text);
    for (int i = 1; i <= count; i++) {
        if (i > 1) luaL_addchar(&text, ' ');
        luaL_tolstring(L, i, NULL);
        luaL_addvalue(&text);
    }
    luaL_pushresult(&text);
    trn_log(TRN_LOG_INFO, "recipe line %d: %.500s", trn_sandbox_line(L), lua_tostring(L, -1));
    return 0;
}

/* Upvalue 1: the table of globals. */
static int unknown_global(lua_State *L)
{
    trn_sandbox_charge(L, CALL_COST);
    const char *name = luaL_tolstring(L, 2, NULL);
    const char *known[32];
    size_t count = 0;
    lua_pushnil(L);
    while (lua_next(L, lua_upvalueindex(1)) && count < TRN_COUNT(known)) {
        if (lua_type(L, -2) == LUA_TSTRING) known[count++] = lua_tostring(L, -2);
        lua_pop(L, 1);
    }
    const char *near = strlen(name) < 64 ? trn_nearest(name, known, count) : NULL;
    return luaL_error(L, "there is no global '%s' in a recipe%s%s%s", name, near ? "; did you mean '" : "",
                      near ? near : "", near ? "'?" : "");
}

static int read_global(lua_State *L)
{
    lua_settop(L, 2);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) == LUA_TNIL) return unknown_global(L);
    return 1;
}

static int refuse_global(lua_State *L)
{
    const char *name = luaL_tolstring(L, 2, NULL);
    return luaL_error(L, "the global '%s' cannot be set; write: local %s = ...", name, name);
}

void trn_sandbox_libraries(lua_State *L)
{
    static const luaL_Reg libraries[] = {{"_G", luaopen_base},
                                         {"string", luaopen_string},
                                         {"table", luaopen_table},
                                         {"math", luaopen_math},
                                         {"utf8", luaopen_utf8}};
    for (size_t i = 0; i < TRN_COUNT(libraries); i++) {
        luaL_requiref(L, libraries[i].name, libraries[i].func, 1);
        lua_pop(L, 1);
    }
}

/* ("x"):f() looks functions up in the strings' metatable: the bounded ones, in a table that the recipe never
 * holds. */
static void bound_methods(lua_State *L, const allowed_library *library)
{
    lua_pushliteral(L, "");
    if (!lua_getmetatable(L, -1)) luaL_error(L, "strings have no metatable");
    push_library(L, library);
    trn_sandbox_bound_text(L);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 2);
}

void trn_sandbox_push_environment(lua_State *L, lua_CFunction require_terrane)
{
    push_library(L, &allowed[0]);
    for (size_t i = 1; i < TRN_COUNT(allowed); i++) {
        push_library(L, &allowed[i]);
        if (!strcmp(allowed[i].name, "string")) {
            trn_sandbox_bound_text(L);
            bound_methods(L, &allowed[i]);
        }
        lua_setfield(L, -2, allowed[i].name);
    }
    lua_pushcfunction(L, log_print);
    lua_setfield(L, -2, "print");
    lua_pushcfunction(L, require_terrane);
    lua_setfield(L, -2, "require");

    lua_newtable(L); /* the environment itself stays empty: its globals cannot be overwritten */
    lua_newtable(L);
    lua_pushvalue(L, -3);
    lua_pushcclosure(L, read_global, 1);
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, refuse_global);
    lua_setfield(L, -2, "__newindex");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_remove(L, -2);
}
