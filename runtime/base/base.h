/* base: what every room stands on: errors, log, arenas, text, files, clocks, hashes, progress.
 * Thread-safety: every function may be called from any thread on objects of its own; shared objects
 * need the caller's lock, except where a comment says otherwise. */
#ifndef TRN_BASE_H
#define TRN_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TRN_VERSION "0.1.0"

#if defined(__GNUC__)
#define TRN_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define TRN_PRINTF(fmt, args)
#endif

#define TRN_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define TRN_MIN(a, b) ((a) < (b) ? (a) : (b))
#define TRN_MAX(a, b) ((a) > (b) ? (a) : (b))

/* ---- errors ---- */

/* What went wrong, in the sense a caller can act on. The command `terrane` exits with these values. */
typedef enum trn_status {
    TRN_OK = 0,
    TRN_ERR_INTERNAL = 1,    /* a bug of Terrane */
    TRN_ERR_ARGUMENT = 2,    /* the caller's or the recipe's mistake */
    TRN_ERR_IO = 3,          /* the system refused: missing, unreadable, unwritable, full */
    TRN_ERR_FORMAT = 4,      /* a file is truncated, corrupt or lies about itself */
    TRN_ERR_UNSUPPORTED = 5, /* valid, but not something Terrane or this device does */
    TRN_ERR_MEMORY = 6,      /* does not fit in host or device memory */
    TRN_ERR_DEVICE = 7,      /* no device, or a driver call failed */
    TRN_ERR_DEVICE_LOST = 8, /* the driver reset the device */
    TRN_ERR_CANCELLED = 9,   /* stopped on request */
} trn_status;

/* Given by the caller, filled by the function that fails. message says what, where and what to do; causes
 * follow the outermost context, separated by ": ". */
typedef struct trn_error {
    trn_status code;
    char message[2048];
} trn_error;

/* Fills err (may be NULL) and returns code, so that `return trn_fail(err, TRN_ERR_IO, ...)` reads well. */
trn_status trn_fail(trn_error *err, trn_status code, const char *fmt, ...) TRN_PRINTF(3, 4);
/* Puts context before the message already in err: "context: cause". Returns err->code (TRN_ERR_INTERNAL if
 * err is NULL or empty). */
trn_status trn_wrap(trn_error *err, const char *fmt, ...) TRN_PRINTF(2, 3);
/* TRN_ERR_MEMORY with the size asked for. */
trn_status trn_fail_memory(trn_error *err, size_t bytes, const char *what);
/* TRN_ERR_IO with strerror(errno) of the call that just failed. */
trn_status trn_fail_errno(trn_error *err, const char *action, const char *path);
#ifdef __clang_analyzer__ /* static analysis sees one file at a time: here it learns that these do not       \
                             return TRN_OK */
#define trn_fail(err, code, ...) (trn_fail(err, code, __VA_ARGS__), (code))
#define trn_fail_memory(err, bytes, what) (trn_fail_memory(err, bytes, what), TRN_ERR_MEMORY)
#define trn_fail_errno(err, action, path) (trn_fail_errno(err, action, path), TRN_ERR_IO)
#endif
const char *trn_status_name(trn_status code); /* "i/o error", ... */

/* ---- log ---- */

typedef enum trn_log_level {
    TRN_LOG_ERROR,
    TRN_LOG_WARN,
    TRN_LOG_INFO,
    TRN_LOG_DEBUG,
    TRN_LOG_TRACE
} trn_log_level;
typedef void (*trn_log_sink)(void *user, trn_log_level level, const char *text);
/* The library is silent until a sink is set. Process-wide; set it before threads start. */
void trn_log_set(trn_log_sink sink, void *user, trn_log_level max_level);
/* Level of a name ("error".."trace"), or fallback. */
trn_log_level trn_log_level_parse(const char *name, trn_log_level fallback);
bool trn_log_enabled(trn_log_level level);
void trn_log(trn_log_level level, const char *fmt, ...) TRN_PRINTF(2, 3);

/* ---- memory ---- */

/* Makes room for `need` elements in a growing array: returns false on overflow or out of memory, and leaves
 * the array as it was. New elements are not initialised. */
bool trn_grow(void *array_ptr, size_t *capacity, size_t need, size_t element_size);
/* a*b and a+b with overflow check; false when it does not fit. */
bool trn_mul_size(size_t a, size_t b, size_t *out);
bool trn_add_size(size_t a, size_t b, size_t *out);

/* Objects that die together. All memory is zeroed and aligned to 16 bytes. A failed allocation returns NULL.
 */
typedef struct trn_arena trn_arena;
trn_arena *trn_arena_create(void);
void trn_arena_destroy(trn_arena *arena); /* NULL is fine */
void *trn_arena_alloc(trn_arena *arena, size_t bytes);
void *trn_arena_array(trn_arena *arena, size_t count, size_t element_size); /* NULL on overflow too */
char *trn_arena_strdup(trn_arena *arena, const char *text);
char *trn_arena_printf(trn_arena *arena, const char *fmt, ...) TRN_PRINTF(2, 3);

/* ---- text ---- */

/* A growing text. Zero-initialise; failed allocations set `failed` and later calls do nothing. data is
 * NUL-terminated, or NULL while empty. Free with trn_text_free. */
typedef struct trn_text {
    char *data;
    size_t length, capacity;
    bool failed;
} trn_text;
void trn_text_add(trn_text *text, const char *more);
void trn_text_add_n(trn_text *text, const char *more, size_t n);
void trn_text_printf(trn_text *text, const char *fmt, ...) TRN_PRINTF(2, 3);
void trn_text_json(trn_text *text, const char *string); /* as a quoted JSON string, "null" for NULL */
void trn_text_free(trn_text *text);
const char *trn_text_get(const trn_text *text); /* never NULL */

/* The candidate nearest to word by edit distance, or NULL when none is near. */
const char *trn_nearest(const char *word, const char *const *candidates, size_t count);
bool trn_starts_with(const char *text, const char *prefix);
bool trn_ends_with(const char *text, const char *suffix);
/* Strict numbers: the whole text must be the number. */
bool trn_parse_int(const char *text, int64_t *out);
bool trn_parse_double(const char *text, double *out);
/* "1.5 GiB". buffer needs 32 bytes; returned. */
const char *trn_format_bytes(uint64_t bytes, char *buffer);
/* "4.2s", "37s", "2m05s", "3h20m". The same. */
const char *trn_format_seconds(double seconds, char *buffer);

/* A text that the build put into the library. */
typedef struct trn_embedded_file {
    const char *name, *text;
    size_t length;
} trn_embedded_file;

/* ---- files ---- */

char *trn_path_join(const char *dir,
                    const char *name);       /* malloc'd; name alone when it is absolute; NULL: no memory */
const char *trn_path_name(const char *path); /* what follows the last '/' */
const char *trn_path_extension(const char *path); /* "tif" of "a.tif"; "" when there is none */
bool trn_path_exists(const char *path);
bool trn_path_is_dir(const char *path);
trn_status trn_make_dirs(const char *path, trn_error *err); /* like mkdir -p */
/* $XDG_CACHE_HOME/terrane or ~/.cache/terrane, with `sub` below it. malloc'd; NULL with err set. The second
 * one creates it. */
char *trn_cache_path(const char *sub, trn_error *err);
char *trn_cache_dir(const char *sub, trn_error *err);
/* Whole file, NUL-terminated (not counted in *size). Refuses more than max_bytes. malloc'd. */
char *trn_read_file(const char *path, size_t max_bytes, size_t *size, trn_error *err);
/* Names (not paths) in a folder, sorted, without "." and "..". Free with trn_names_free. */
trn_status trn_list_dir(const char *path, char ***names, size_t *count, trn_error *err);
void trn_names_free(char **names, size_t count);

/* Output that appears under its final name only when complete: write to trn_output_path(), then commit (fsync
 * and rename) or abandon (remove). Two processes may write the same final name; the last commit wins. */
typedef struct trn_output trn_output;
trn_status trn_output_create(const char *final_path, trn_output **out, trn_error *err);
const char *trn_output_path(const trn_output *output);            /* the temporary name, in the same folder */
trn_status trn_output_commit(trn_output *output, trn_error *err); /* frees output, also on failure */
void trn_output_abandon(trn_output *output);                      /* NULL is fine */
trn_status trn_write_file(const char *path, const void *data, size_t size, trn_error *err); /* atomic */

/* ---- progress and cancelling ---- */

/* How long work tells the outside how far it is, and learns that it should stop. A zeroed struct is silent.
 * report may be called from any thread, one call at a time. */
typedef struct trn_progress {
    void (*report)(void *user, const char *stage, uint64_t done, uint64_t total);
    bool (*cancelled)(void *user);
    void *user;
} trn_progress;
void trn_progress_report(const trn_progress *progress, const char *stage, uint64_t done, uint64_t total);
bool trn_progress_cancelled(const trn_progress *progress); /* progress may be NULL */
trn_status trn_fail_cancelled(trn_error *err, const char *what);

/* ---- time, hashes, numbers ---- */

uint64_t trn_now_ns(void); /* monotonic */
/* Seconds since this process began, to a hundredth; 0 where the system does not tell. */
double trn_process_seconds(void);
uint64_t trn_fnv1a64(const void *data, size_t size,
                     uint64_t seed); /* seed: TRN_FNV_SEED or an earlier result */
#define TRN_FNV_SEED 0xcbf29ce484222325ull
uint64_t trn_splitmix64(uint64_t z);
/* Number i of the deterministic stream `name`, in [-1,1), 24 bits, the same on every machine. */
double trn_hash_uniform(uint64_t name_hash, uint64_t i);
void trn_sha256(const void *data, size_t size, uint8_t digest[32]);
/* The same over pieces: begin, update as often as wanted, end (which leaves the state as it is). */
typedef struct trn_sha256_state {
    uint32_t words[8];
    uint64_t size;
    uint8_t block[64]; /* the beginning of a block that is not full yet */
} trn_sha256_state;
void trn_sha256_begin(trn_sha256_state *state);
void trn_sha256_update(trn_sha256_state *state, const void *data, size_t size);
void trn_sha256_end(const trn_sha256_state *state, uint8_t digest[32]);
void trn_sha256_text(const uint8_t digest[32], char text[65]); /* 64 hex digits */
/* SHA-256 of a whole file as text, and its size; read in pieces. Progress is told as "checking". */
trn_status trn_sha256_file(const char *path, const trn_progress *progress, uint64_t *size, char text[65],
                           trn_error *err);
float trn_f16_to_f32(uint16_t h);
uint16_t trn_f32_to_f16(float f); /* round to nearest even; overflow becomes infinity */
float trn_bf16_to_f32(uint16_t h);

/* ---- dates ---- */

typedef struct trn_date {
    int year, month, day; /* month 1..12, day 1..31 */
    int day_of_year;      /* 1..366 */
} trn_date;
/* "2018-06-02", "20180602" or "2018153" (day of the year), the whole text; false when it is no such date. */
bool trn_date_parse(const char *text, trn_date *out);
/* The first date that stands by itself in a file's name ("HLS.S30.T15RXN.2018153T165849", "LC08_..._20180602_
 * ...", "2018-06-02_B04.tif"); false when there is none. Years 1950 to 2099 count. */
bool trn_date_find(const char *file_name, trn_date *out);

#ifdef __cplusplus
}
#endif
#endif
