/* convert: what the files share that turn checked Lua tables into jobs. */
#ifndef TRN_CONVERT_H
#define TRN_CONVERT_H

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

/* ---- memory of the recipe's arena; NULL and c->status when there is none ---- */

void trn_convert_no_memory(converter *c);
void *trn_convert_take(converter *c, size_t count, size_t size);
const char *trn_convert_text(converter *c, const char *text); /* a copy; NULL for NULL */

/* ---- fields of the table at the top of the stack ---- */

bool trn_field_given(converter *c, const char *name);
bool trn_field_is(converter *c, const char *name, const char *text);
const char *trn_field_text(converter *c, const char *name); /* NULL when absent */
double trn_field_number(converter *c, const char *name, double otherwise);
int trn_field_integer(converter *c, const char *name); /* 0 when absent */
bool trn_field_flag(converter *c, const char *name);
int trn_convert_choice(converter *c, const char *word, const choice *choices, size_t count);
int trn_field_choice(converter *c, const char *name, const choice *choices, size_t count);
/* Lists; *count 0 and NULL when absent. */
const char *const *trn_field_texts(converter *c, const char *name, size_t *count);
const double *trn_field_numbers(converter *c, const char *name, size_t *count);
recipe_place trn_convert_place(converter *c); /* of the constructor that made the table */

/* ---- parts that several jobs have ---- */

/* What the stored values of a scene or dataset mean. scene_place is set before. */
typedef struct stored_values {
    const char *sensor; /* built-in name, or NULL */
    const trn_sensor *custom;
    bool has_scale;
    double scale, offset;
    trn_unit unit;
} stored_values;
stored_values trn_convert_values(converter *c);
void trn_convert_encoders(converter *c, trn_embed_job *job);
void trn_convert_fusion(converter *c, trn_compose_options *compose);

/* ---- jobs that learn, to recipe->probe or recipe->train; `job` gets their encoders ---- */

void trn_convert_probe(converter *c, trn_embed_job *job);
void trn_convert_train(converter *c, trn_embed_job *job);

#endif
