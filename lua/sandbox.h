/* sandbox: a Lua state that a hostile recipe cannot leave, fill or keep busy. */
#ifndef TRN_SANDBOX_H
#define TRN_SANDBOX_H

#include <lua.h>

#include "recipe.h"

/* The name under which the recipe's chunk is loaded; errors of Lua begin with it. */
#define TRN_RECIPE_CHUNK "recipe"

typedef struct trn_sandbox {
    lua_State *L;
    size_t used, memory_limit;
    uint64_t steps, step_limit, deadline_ns;
    const char *stop; /* why it was stopped; NULL while it may run */
    int stop_line;    /* of the recipe; 0: none */
    double seconds;
} trn_sandbox;

/* An empty state. limits may be NULL; the clock starts here. Everything that can raise a Lua error must then
 * run under lua_pcall. */
trn_status trn_sandbox_open(const trn_recipe_limits *limits, trn_sandbox **out, trn_error *err);
void trn_sandbox_close(trn_sandbox *sandbox); /* NULL is fine */
/* Sets up the trusted globals (base, string, table, math, utf8), for Terrane's own modules. Raises Lua
 * errors. */
void trn_sandbox_libraries(lua_State *L);
/* Pushes the globals of a recipe: a read-only allow-list, where unknown names are errors. require_terrane is
 * the C function behind `require`. */
void trn_sandbox_push_environment(lua_State *L, lua_CFunction require_terrane);
/* Counts `cost` instructions; raises a Lua error when a limit is passed. Every C function that a recipe can
 * call does this, so that the clock is seen between calls, too. */
void trn_sandbox_charge(lua_State *L, uint64_t cost);
/* Line of the recipe that is being executed; 0 when none is. */
int trn_sandbox_line(lua_State *L);
/* Puts the bounded string functions (rep, find, match, gmatch, gsub) over those in the table at the top. */
void trn_sandbox_bound_text(lua_State *L);

#endif
