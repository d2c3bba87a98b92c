/* recipe: Lua recipes. A recipe declares; this reads it in a sandbox, checks it as a whole, and gives the
 * plain description that job/ runs. Thread-safety: one thread at a time per recipe. */
#ifndef TRN_RECIPE_H
#define TRN_RECIPE_H

#include "base.h"
#include "job.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trn_recipe trn_recipe;

typedef struct trn_recipe_limits {
    size_t memory_bytes;   /* 0: 64 MiB */
    uint64_t instructions; /* 0: 50 million */
    double seconds;        /* wall time; 0: 5 */
} trn_recipe_limits;

typedef struct trn_recipe_param {
    const char *name, *description;
    const char *value, *default_value; /* as text */
} trn_recipe_param;

/* Reads, runs and checks the recipe file (or the name of a built-in recipe: "quickstart"). sets: "KEY=VALUE"
 * of --set. Errors name file, line, field, what was found and what is allowed, and the nearest known name.
 * Models judge their own settings (trn_encoder_create). No device is touched, and no file but the recipe is
 * opened. limits may be NULL. */
trn_status trn_recipe_load(const char *path, const char *const *sets, size_t set_count,
                           const trn_recipe_limits *limits, trn_recipe **out, trn_error *err);
/* The same from text (name shows in errors). */
trn_status trn_recipe_load_text(const char *name, const char *text, size_t size, const char *const *sets,
                                size_t set_count, const trn_recipe_limits *limits, trn_recipe **out,
                                trn_error *err);
void trn_recipe_destroy(trn_recipe *recipe); /* NULL is fine */

const char *trn_recipe_title(const trn_recipe *recipe); /* description for --help, never NULL */
size_t trn_recipe_param_count(const trn_recipe *recipe);
trn_recipe_param trn_recipe_param_at(const trn_recipe *recipe, size_t i);
/* Recipes built into the library, for help texts. NULL past the last. */
const char *trn_recipe_builtin(size_t i);

/* For errors that only show when the job is checked or run: adds where the recipe declared that part,
 * "recipes/x.lua:12". index: which encoder or export; field: NULL, or a field of that constructor, whose own
 * line is looked for. */
typedef enum trn_recipe_part {
    TRN_RECIPE_EMBED, /* the job, of whatever kind */
    TRN_RECIPE_SCENE, /* or dataset */
    TRN_RECIPE_ENCODER,
    TRN_RECIPE_EXPORT
} trn_recipe_part;
void trn_recipe_place(const trn_recipe *recipe, trn_recipe_part part, size_t index, const char *field,
                      trn_text *out);

/* What the recipe ends with: one of the four, the others are NULL. Owned by the recipe; out_dir is the
 * caller's to set on a copy. Of a probe and of training the dataset is the scene (TRN_RECIPE_SCENE). */
const trn_embed_job *trn_recipe_job(const trn_recipe *recipe);
const trn_reconstruct_job *trn_recipe_reconstruct(const trn_recipe *recipe);
const trn_probe_job *trn_recipe_probe(const trn_recipe *recipe);
const trn_train_job *trn_recipe_train(const trn_recipe *recipe);

#ifdef __cplusplus
}
#endif
#endif
