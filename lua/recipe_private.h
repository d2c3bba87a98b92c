/* recipe_private: what the files of the recipe room share. */
#ifndef TRN_RECIPE_PRIVATE_H
#define TRN_RECIPE_PRIVATE_H

#include <lua.h>

#include "recipe.h"

/* Where a constructor stands, so that a later error can name the line. */
typedef struct recipe_place {
    const char *constructor; /* NULL: nothing declared it */
    int line;
    const char
        *field; /* the field that holds it, when it is no constructor of its own: export = { "a.tif" } */
    int item;
} recipe_place;

struct trn_recipe {
    trn_arena *arena;
    const char *name;   /* as errors show it */
    const char *source; /* the text, for lines of fields */
    size_t source_size;
    const char *title;
    trn_recipe_param *params;
    size_t param_count;
    trn_embed_job *job;
    /* Of these three at most one is not NULL; none: the recipe embeds. `job` has the encoders of all. */
    trn_reconstruct_job *reconstruct;
    trn_probe_job *probe;
    trn_train_job *train;
    recipe_place embed_place, scene_place, sensor_place;
    recipe_place *encoder_places, *export_places;
};

/* The checked tables at stack indices data (of the job) and params -> recipe. Raises Lua errors only
 * for want of memory; everything else is in the status. */
trn_status trn_recipe_convert(lua_State *L, int data, int params, trn_recipe *recipe, trn_error *err);
/* Creates every encoder once: names and settings are the model's to judge, the line is ours. */
trn_status trn_recipe_check_encoders(const trn_recipe *recipe, trn_error *err);
/* Puts "name:line: constructor: " before err's message. field may be NULL. */
trn_status trn_recipe_blame(const trn_recipe *recipe, recipe_place place, const char *field, trn_error *err);

#endif
