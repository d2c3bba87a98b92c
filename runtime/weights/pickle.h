/* pickle: the bounded reader of Python pickles. It builds plain data and runs nothing: a class or function
 * named in the pickle becomes a GLOBAL value, a call of it an OBJECT value that only remembers both. Private
 * to weights. */
#ifndef TRN_PICKLE_H
#define TRN_PICKLE_H

#include "base.h"

typedef enum trn_pickle_kind {
    TRN_PICKLE_NONE,
    TRN_PICKLE_BOOL,   /* integer is 0 or 1 */
    TRN_PICKLE_INT,    /* integer */
    TRN_PICKLE_BIGINT, /* text: little-endian two's complement of more than 8 bytes */
    TRN_PICKLE_FLOAT,  /* real */
    TRN_PICKLE_TEXT,   /* text */
    TRN_PICKLE_BYTES,  /* text */
    TRN_PICKLE_TUPLE,  /* list */
    TRN_PICKLE_LIST,   /* list */
    TRN_PICKLE_DICT, /* list: key, value, key, value...; later pairs win over earlier ones of the same key */
    TRN_PICKLE_GLOBAL, /* global */
    TRN_PICKLE_OBJECT, /* object: callable(*args), never called; its state and items are dropped */
    TRN_PICKLE_PERSID, /* persid: what the pickle names a thing outside of itself by */
} trn_pickle_kind;

typedef struct trn_pickle_value trn_pickle_value;
struct trn_pickle_value {
    trn_pickle_kind kind;
    int mark; /* of the search for cycles */
    union {
        int64_t integer;
        double real;
        struct {
            const char *data; /* NUL-terminated; may hold other NULs */
            size_t length;
        } text;
        struct {
            trn_pickle_value **items;
            size_t count, capacity;
        } list;
        struct {
            const char *module, *name;
        } global;
        struct {
            trn_pickle_value *callable, *args;
        } object;
        trn_pickle_value *persid;
    } as;
};

/* What one pickle holds. Owns all values. */
typedef struct trn_pickle {
    trn_arena *arena;
    trn_pickle_value *root;
    trn_pickle_value **persids; /* all of them, also those that root does not reach */
    size_t persid_count, persid_capacity;
} trn_pickle;

/* Reads the pickle at data, up to its STOP; *consumed (may be NULL) is where it ends. Refuses truncation,
 * unknown opcodes, values that contain themselves, nesting deeper than TRN_PICKLE_MAX_DEPTH, and too many
 * values. Errors say at which byte. Free with trn_pickle_free, also after a failure. */
enum { TRN_PICKLE_MAX_DEPTH = 200, TRN_PICKLE_MAX_VALUES = 1 << 22 };
trn_status trn_pickle_parse(const uint8_t *data, size_t size, trn_pickle *out, size_t *consumed,
                            trn_error *err);
void trn_pickle_free(trn_pickle *pickle);

bool trn_pickle_is_global(const trn_pickle_value *value, const char *module, const char *name);
/* The text without inner NULs, or NULL when value is none. */
const char *trn_pickle_text(const trn_pickle_value *value);
/* The value of a text key of a DICT, or NULL. */
const trn_pickle_value *trn_pickle_get(const trn_pickle_value *dict, const char *key);

#endif
