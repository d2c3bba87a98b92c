/* names: a hash table from text to index. Keys are not copied: they must outlive the table. Private to
 * weights. */
#ifndef TRN_WEIGHTS_NAMES_H
#define TRN_WEIGHTS_NAMES_H

#include "base.h"

typedef struct trn_name_slot {
    const char *name; /* NULL: free */
    size_t value;
} trn_name_slot;

typedef struct trn_names {
    trn_name_slot *slots;
    size_t capacity, count; /* capacity is 0 or a power of two */
} trn_names;

/* Room for `count` names, so that trn_names_put cannot fail; empties the table. */
bool trn_names_reserve(trn_names *names, size_t count);
void trn_names_clear(trn_names *names);
/* Adds name, or returns false and leaves the older value when it is there already. Needs room reserved
 * before. */
bool trn_names_put(trn_names *names, const char *name, size_t value);
bool trn_names_get(const trn_names *names, const char *name, size_t *value);
void trn_names_drop(trn_names *names); /* frees the slots */

#endif
