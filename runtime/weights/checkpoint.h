/* checkpoint: what the readers of the containers and the core of weights share. Private to weights. */
#ifndef TRN_WEIGHTS_CHECKPOINT_H
#define TRN_WEIGHTS_CHECKPOINT_H

#include "names.h"
#include "pickle.h"
#include "weights.h"

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "checkpoints are little-endian, and are read as such without swapping"
#endif

/* Where a tensor's elements lie: element (i0, i1, ...) is element offset + i0*stride[0] + i1*stride[1] + ...
 * of a storage of `bytes` bytes. The storage is a member of the zip archive when there is one, else it begins
 * at byte `at` of the file. */
typedef struct trn_weight_place {
    uint64_t at, member, bytes;
    int64_t offset, stride[TRN_WEIGHTS_MAX_DIMS];
} trn_weight_place;

typedef struct trn_entry {
    trn_weight info; /* info.name points into full_name, or is a cleaned copy */
    const char *full_name;
    trn_weight_place place;
    int64_t count; /* elements */
    bool used, hidden;
} trn_entry;

struct zip;
typedef struct trn_weights_note {
    const char *key, *value;
} trn_weights_note;

struct trn_weights {
    trn_arena *arena;
    const char *path;
    bool is_file;
    int fd;              /* of the file */
    const uint8_t *data; /* or the caller's bytes */
    size_t size;
    uint64_t zip_at;                    /* where the archive reads next */
    const trn_weights_options *options; /* only while opening */
    trn_entry *entries;
    size_t count, capacity;
    trn_names names; /* of the entries that are not hidden */
    struct zip *zip; /* NULL but for zip archives */
    bool synthetic;  /* no file: values are made from names and shapes */
    bool fresh;      /* to train from scratch, and so from a seed, too */
    uint64_t seed;
    trn_weights_note *notes; /* metadata, in the arena */
    size_t note_count;
    trn_load_report made_up; /* what synthetic weights were asked for */
};

/* Opens a checkpoint that lies in memory; the bytes must outlive it. label stands for the path in messages.
 */
trn_status trn_weights_open_memory(const char *label, const void *data, size_t size,
                                   const trn_weights_options *options, trn_weights **out, trn_error *err);

/* bytes.c: opens the file as weights->fd; reads `size` bytes from byte `at` on. */
trn_status trn_bytes_open(trn_weights *weights, const char *path, trn_error *err);
void trn_bytes_close(trn_weights *weights);
trn_status trn_bytes_read(const trn_weights *weights, uint64_t at, void *out, size_t size, trn_error *err);

/* Bytes of an element; 0 for TRN_WEIGHT_OTHER. */
size_t trn_weight_type_size(trn_weight_type type);
/* n elements, `step` bytes apart, to float32. */
void trn_weight_convert(trn_weight_type type, const uint8_t *from, int64_t step, size_t n, float *out);
/* "[3, 4]". Returned. */
enum { TRN_SHAPE_TEXT = 192 };
const char *trn_weight_shape_text(const int64_t *shape, int ndim, char buffer[TRN_SHAPE_TEXT]);
/* Product of the sides; false when one is negative or the product is beyond what any model has (2^40). */
bool trn_weight_shape_count(const int64_t *shape, int ndim, int64_t *count);
void trn_weight_shape_strides(const int64_t *shape, int ndim,
                              int64_t stride[TRN_WEIGHTS_MAX_DIMS]); /* C order */

/* Adds a tensor after checking everything that does not depend on the container: name, shape, strides, and
 * that its last element lies within place->bytes. Copies name. */
trn_status trn_weights_add(trn_weights *weights, const char *name, trn_weight_type type, int ndim,
                           const int64_t *shape, const trn_weight_place *place, trn_error *err);

/* The containers: each recognises its own first bytes, and lists the tensors of one. */
bool trn_is_safetensors(const uint8_t *data, size_t size);
trn_status trn_safetensors_list(trn_weights *weights, trn_error *err);
bool trn_is_torch_zip(const uint8_t *data, size_t size);
trn_status trn_torch_zip_list(trn_weights *weights, trn_error *err);
void trn_torch_zip_close(trn_weights *weights);
bool trn_is_torch_legacy(const uint8_t *data, size_t size);
trn_status trn_torch_legacy_list(trn_weights *weights, trn_error *err);

/* Reads a zip member forwards: bytes [begin, ...) of it. Reading to the very end from 0 on checks its
 * checksum. */
typedef struct trn_member_stream {
    struct zip_file *file;
    uint64_t at, size;
    const char *name;
} trn_member_stream;
trn_status trn_member_open(trn_weights *weights, uint64_t member, uint64_t begin, trn_member_stream *out,
                           trn_error *err);
trn_status trn_member_read(trn_member_stream *stream, void *out, size_t size, trn_error *err);
/* Checks the checksum if the whole member was read. */
trn_status trn_member_finish(trn_member_stream *stream, trn_error *err);
void trn_member_close(trn_member_stream *stream);

void trn_synthetic_fill(const char *name, const int64_t *shape, int ndim, float *out);

#endif
