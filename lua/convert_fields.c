/* convert_fields: one field of a checked Lua table -> one value of C, in the recipe's arena. */
#include <string.h>

#include "convert.h"

void trn_convert_no_memory(converter *c)
{
    if (c->status == TRN_OK) c->status = trn_fail_memory(c->err, 0, "the recipe's job");
}

void *trn_convert_take(converter *c, size_t count, size_t size)
{
    void *memory = trn_arena_array(c->recipe->arena, TRN_MAX(count, (size_t)1), size);
    if (!memory) trn_convert_no_memory(c);
    return memory;
}

const char *trn_convert_text(converter *c, const char *text)
{
    const char *result = text ? trn_arena_strdup(c->recipe->arena, text) : NULL;
    if (text && !result) trn_convert_no_memory(c);
    return result;
}

bool trn_field_given(converter *c, const char *name)
{
    bool present = lua_getfield(c->L, -1, name) != LUA_TNIL;
    lua_pop(c->L, 1);
    return present;
}

const char *trn_field_text(converter *c, const char *name)
{
    lua_getfield(c->L, -1, name);
    const char *text = trn_convert_text(c, lua_tostring(c->L, -1));
    lua_pop(c->L, 1);
    return text;
}

double trn_field_number(converter *c, const char *name, double otherwise)
{
    lua_getfield(c->L, -1, name);
    double value = lua_isnil(c->L, -1) ? otherwise : lua_tonumber(c->L, -1);
    lua_pop(c->L, 1);
    return value;
}

int trn_field_integer(converter *c, const char *name)
{
    lua_getfield(c->L, -1, name);
    int value = (int)lua_tointeger(c->L, -1);
    lua_pop(c->L, 1);
    return value;
}

bool trn_field_flag(converter *c, const char *name)
{
    lua_getfield(c->L, -1, name);
    bool value = lua_toboolean(c->L, -1);
    lua_pop(c->L, 1);
    return value;
}

/* The schema checked the word; a word it knows and this file does not is a bug of ours. */
int trn_convert_choice(converter *c, const char *word, const choice *choices, size_t count)
{
    for (size_t i = 0; word && i < count; i++)
        if (!strcmp(choices[i].name, word)) return choices[i].value;
    if (c->status == TRN_OK)
        c->status =
            trn_fail(c->err, TRN_ERR_INTERNAL, "no value for '%s' of the recipe schema", word ? word : "nil");
    return 0;
}

int trn_field_choice(converter *c, const char *name, const choice *choices, size_t count)
{
    lua_getfield(c->L, -1, name);
    int value = trn_convert_choice(c, lua_tostring(c->L, -1), choices, count);
    lua_pop(c->L, 1);
    return value;
}

/* A list of texts; *count 0 and NULL when absent. */
const char *const *trn_field_texts(converter *c, const char *name, size_t *count)
{
    const char **texts = NULL;
    *count = 0;
    if (lua_getfield(c->L, -1, name) == LUA_TTABLE) {
        *count = (size_t)lua_rawlen(c->L, -1);
        texts = trn_convert_take(c, *count, sizeof *texts);
        for (size_t i = 0; texts && i < *count; i++) {
            lua_rawgeti(c->L, -1, (lua_Integer)i + 1);
            texts[i] = trn_convert_text(c, lua_tostring(c->L, -1));
            lua_pop(c->L, 1);
        }
    }
    lua_pop(c->L, 1);
    return texts;
}

recipe_place trn_convert_place(converter *c)
{
    recipe_place place = {trn_field_text(c, "constructor"), trn_field_integer(c, "line"),
                          trn_field_text(c, "field"), trn_field_integer(c, "item")};
    return place;
}

/* A list of numbers; *count 0 and NULL when absent. */
const double *trn_field_numbers(converter *c, const char *name, size_t *count)
{
    double *numbers = NULL;
    *count = 0;
    if (lua_getfield(c->L, -1, name) == LUA_TTABLE) {
        *count = (size_t)lua_rawlen(c->L, -1);
        numbers = trn_convert_take(c, *count, sizeof *numbers);
        for (size_t i = 0; numbers && i < *count; i++) {
            lua_rawgeti(c->L, -1, (lua_Integer)i + 1);
            numbers[i] = lua_tonumber(c->L, -1);
            lua_pop(c->L, 1);
        }
    }
    lua_pop(c->L, 1);
    return numbers;
}

bool trn_field_is(converter *c, const char *name, const char *text)
{
    lua_getfield(c->L, -1, name);
    bool same = !strcmp(lua_tostring(c->L, -1), text);
    lua_pop(c->L, 1);
    return same;
}
