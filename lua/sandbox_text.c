/* sandbox_text: the string functions whose work is not bounded by their arguments' size, with bounds. */
#include <math.h>
#include <string.h>

#include <lauxlib.h>

#include "sandbox.h"

enum { CALL_COST = 20 };
static const size_t max_repeated = (size_t)1 << 20;
static const double max_match_steps = 1e8;

/* rep of an empty text loops without allocating, so its count is bounded as well as the result. */
static int bounded_rep(lua_State *L)
{
    size_t length = 0, separator = 0;
    luaL_checklstring(L, 1, &length);
    lua_Integer count = luaL_checkinteger(L, 2);
    luaL_optlstring(L, 3, "", &separator);
    trn_sandbox_charge(L, CALL_COST);
    size_t piece = length + separator;
    if (count > 0 && (uint64_t)count > max_repeated / TRN_MAX(piece, (size_t)1))
        return luaL_error(L, "string.rep would make more than %d bytes", (int)max_repeated);
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

/* How many parts of the pattern can take any number of characters: each multiplies the work by the text's
 * length. */
static int repetitions(const char *pattern, size_t length)
{
    int count = 0;
    for (size_t i = 0; i < length; i++) {
        if (pattern[i] == '%' && i + 1 < length) {
            i++;
            count += pattern[i] == 'b' || (pattern[i] >= '0' && pattern[i] <= '9');
        } else if (pattern[i] == '*' || pattern[i] == '+' || pattern[i] == '-' || pattern[i] == '?') {
            count++;
        }
    }
    return count;
}

/* Upvalues: the function, and whether its fourth argument can switch patterns off.
 * The worst case of backtracking, from the sizes alone: a match cannot be interrupted once it runs. */
static int bounded_match(lua_State *L)
{
    size_t length = 0, pattern_length = 0;
    luaL_checklstring(L, 1, &length);
    const char *pattern = luaL_checklstring(L, 2, &pattern_length);
    bool plain = lua_toboolean(L, lua_upvalueindex(2)) && lua_toboolean(L, 4);
    int nested = plain ? 0 : repetitions(pattern, pattern_length);
    double steps = pow((double)length + 1, nested + 1) * ((double)pattern_length + 1);
    if (steps > max_match_steps)
        return luaL_error(
            L,
            "this pattern could take too long on a text of %d characters; use a shorter text or a "
            "pattern with fewer repetitions",
            (int)TRN_MIN(length, (size_t)INT32_MAX));
    trn_sandbox_charge(L, CALL_COST + (uint64_t)(steps / 64));
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

void trn_sandbox_bound_text(lua_State *L)
{
    static const char *const patterns[] = {"find", "gmatch", "gsub", "match"};
    lua_getglobal(L, "string");
    for (size_t i = 0; i < TRN_COUNT(patterns); i++) {
        lua_getfield(L, -1, patterns[i]);
        lua_pushboolean(L, !strcmp(patterns[i], "find"));
        lua_pushcclosure(L, bounded_match, 2);
        lua_setfield(L, -3, patterns[i]);
    }
    lua_getfield(L, -1, "rep");
    lua_pushcclosure(L, bounded_rep, 1);
    lua_setfield(L, -3, "rep");
    lua_pop(L, 1);
}
