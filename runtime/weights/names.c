/* The hash table of names: open addressing, never more than half full. */
#include "names.h"

#include <stdlib.h>
#include <string.h>

bool trn_names_reserve(trn_names *names, size_t count)
{
    size_t capacity = 16;
    while (capacity / 2 < count) {
        if (capacity > SIZE_MAX / 4 / sizeof *names->slots) return false;
        capacity *= 2;
    }
    trn_names_drop(names);
    names->slots = calloc(capacity, sizeof *names->slots);
    names->capacity = names->slots ? capacity : 0;
    return names->slots != NULL;
}

void trn_names_clear(trn_names *names)
{
    if (names->capacity) memset(names->slots, 0, names->capacity * sizeof *names->slots);
    names->count = 0;
}

/* The slot that holds name, or the free one where it belongs. */
static size_t slot_of(const trn_names *names, const char *name)
{
    size_t mask = names->capacity - 1;
    size_t at = (size_t)trn_splitmix64(trn_fnv1a64(name, strlen(name), TRN_FNV_SEED)) & mask;
    while (names->slots[at].name && strcmp(names->slots[at].name, name) != 0)
        at = (at + 1) & mask;
    return at;
}

bool trn_names_put(trn_names *names, const char *name, size_t value)
{
    size_t at = slot_of(names, name);
    if (names->slots[at].name || names->count >= names->capacity / 2) return false;
    names->slots[at] = (trn_name_slot){name, value};
    names->count++;
    return true;
}

bool trn_names_get(const trn_names *names, const char *name, size_t *value)
{
    if (!names->capacity) return false;
    size_t at = slot_of(names, name);
    if (!names->slots[at].name) return false;
    *value = names->slots[at].value;
    return true;
}

void trn_names_drop(trn_names *names)
{
    free(names->slots);
    *names = (trn_names){0};
}
