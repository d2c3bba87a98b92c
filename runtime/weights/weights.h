/* weights: checkpoints as data. Reads safetensors and PyTorch .pt/.pth (zip and legacy), never executes them.
 * Tensors are found by name; a loader asks for what it needs and gets a report of what was used, left over or
 * missing. Thread-safety: one trn_weights may be used by one thread at a time. */
#ifndef TRN_WEIGHTS_H
#define TRN_WEIGHTS_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TRN_WEIGHTS_MAX_DIMS = 8 };

typedef enum trn_weight_type {
    TRN_WEIGHT_F32,
    TRN_WEIGHT_F16,
    TRN_WEIGHT_BF16,
    TRN_WEIGHT_F64,
    TRN_WEIGHT_I64,
    TRN_WEIGHT_I32,
    TRN_WEIGHT_I16,
    TRN_WEIGHT_I8,
    TRN_WEIGHT_U8,
    TRN_WEIGHT_BOOL,
    TRN_WEIGHT_U64,
    TRN_WEIGHT_U32,
    TRN_WEIGHT_U16,
    TRN_WEIGHT_OTHER, /* complex, quantised, 8-bit floats: listed, but cannot be read */
} trn_weight_type;
const char *trn_weight_type_name(trn_weight_type type); /* "f32", ... */

/* One tensor of a checkpoint. name is without the wrapper and the prefix (see trn_weights_options). */
typedef struct trn_weight {
    const char *name;
    trn_weight_type type;
    int ndim;
    int64_t shape[TRN_WEIGHTS_MAX_DIMS];
} trn_weight;

typedef struct trn_weights trn_weights;

typedef struct trn_weights_options {
    /* Key under which a training checkpoint keeps its weights ("model", "model_state", "state_dict",
     * "teacher"); '/' goes down further ("state/model"). NULL: recognised by itself: tensors at the top win,
     * else the known wrapper keys, else the one entry that is a dictionary of tensors; several are an error
     * that names them. */
    const char *wrapper;
    /* Prefix taken off the names that start with it ("encoder.", "backbone."); the other tensors are left
     * over, and it is an error when no name has it. "": names stay as they are in the file. NULL: what
     * wrappers of training code add is taken off: "module." in front, "_orig_mod." anywhere, ".backbone"
     * after the first part ("a.backbone.b" becomes "a.b"); the caller (models/) tries its family's prefixes
     * with trn_weights_strip_prefix. */
    const char *prefix;
} trn_weights_options;

/* Opens a checkpoint by its content, not by its file name. options may be NULL. Errors name the file and what
 * is wrong; nothing of the file is trusted (bounds, overflow, truncation, cycles, recursion). Tensor data is
 * read when asked for, so that a file larger than memory can be used. */
trn_status trn_weights_open(const char *path, const trn_weights_options *options, trn_weights **out,
                            trn_error *err);
/* Deterministic synthetic weights: any name and shape exists (for tests, selftest, bench). The rule is the
 * one of the golden numbers: norm weights around 1, biases small, matrices with variance 1/fan_in. Tables
 * that a model computes (Prithvi's pos_embed) are no matter of names: the model makes them itself. */
trn_status trn_weights_open_synthetic(trn_weights **out, trn_error *err);
bool trn_weights_is_synthetic(const trn_weights *weights);
void trn_weights_close(trn_weights *weights); /* NULL is fine */
const char *trn_weights_path(const trn_weights *weights);

/* All tensors, in file order (also those that a prefix left over). Synthetic weights have none listed; find
 * returns NULL for them, while read makes any tensor up. Pointers live until close. */
size_t trn_weights_count(const trn_weights *weights);
const trn_weight *trn_weights_at(const trn_weights *weights, size_t i);
const trn_weight *trn_weights_find(const trn_weights *weights, const char *name); /* NULL when absent */

/* Reads tensor `name`, converted to float32 in C order, into out[product of shape]. Marks it used. The shape
 * must match exactly, or the error shows both shapes. A missing name is an error that names the file and the
 * nearest name. Damaged data is found where the container has checksums (zip). */
trn_status trn_weights_read(trn_weights *weights, const char *name, const int64_t *shape, int ndim,
                            float *out, trn_error *err);
/* What a safetensors file says of itself: the value of a key of its metadata. NULL: it has none. Lives until
 * close. */
const char *trn_weights_metadata(const trn_weights *weights, const char *key);
/* Takes `prefix` off the names of all tensors that start with it; the others become "left over" and are no
 * longer found. Returns how many had it; when none has it, nothing changes. For families whose files come in
 * several wrappings. */
size_t trn_weights_strip_prefix(trn_weights *weights, const char *prefix);

/* The load report as text: used, left over (names, at most max_names of each), missing is an error before it.
 */
typedef struct trn_load_report {
    size_t used, left_over;
    uint64_t parameters; /* elements of the used tensors */
} trn_load_report;
trn_load_report trn_weights_report(const trn_weights *weights);
void trn_weights_report_text(const trn_weights *weights, size_t max_names, trn_text *out);

/* ---- the store ---- */

/* Downloaded files, one folder for each name: STORE/NAME/FILE, beside it manifest.json (address, size,
 * SHA-256 and date of the first download) and, while a download is under way, FILE.part with FILE.part.json.
 */

/* $TERRANE_MODELS, or "models" in the cache folder (XDG_CACHE_HOME). Not created. malloc'd; NULL with err
 * set. */
char *trn_store_dir(trn_error *err);

typedef struct trn_stored {
    char *path; /* malloc'd; NULL: not in the store */
    char *url;  /* malloc'd; where it came from */
    uint64_t bytes;
    char sha256[65], date[32]; /* of the first download: "2026-03-01T12:00:00Z" */
    /* by trn_store_pull: */
    bool was_there;       /* nothing was fetched */
    uint64_t resumed_at;  /* where an earlier download was continued; 0: from the start */
    uint64_t transferred; /* bytes that came over the network */
} trn_stored;
void trn_stored_free(trn_stored *stored); /* frees what it holds and zeroes it */

/* The file that the store has under this name; TRN_OK with path NULL when it has none. A file that is not as
 * long as its manifest says, or a damaged manifest, is TRN_ERR_FORMAT and says to pull again. Reads no data.
 */
trn_status trn_store_find(const char *name, trn_stored *out, trn_error *err);

typedef struct trn_pull_options {
    const char *name; /* letters, digits, ".", "_", "-", "+"; not beginning with a dot */
    const char *url;  /* https:// or http://; its last part names the file */
    /* Hex digits the file must have: all 64, or at least 8 of their beginning. NULL: the first download
     * records them, later ones must have the same. */
    const char *sha256;
    uint64_t bytes;               /* it must have; 0: not known */
    bool force;                   /* download although it is there */
    const trn_progress *progress; /* told of bytes; cancelling keeps the part; may be NULL */
    void (*note)(void *user, trn_log_level level, const char *text); /* may be NULL */
    void *note_user;
    /* 0 is the usual value: */
    int tries;                          /* 8; cut or stalled transfers go on where they stopped */
    int backoff_ms;                     /* 1000; before the second try, twice as long before each next one */
    int connect_seconds, stall_seconds; /* 30 to connect; 60 without data end a try */
} trn_pull_options;

/* Downloads into the store, or finds the file there and checks it. It appears under its name complete, with
 * the right digits and on disk, or not at all; what came of a cut or cancelled download is kept and continued
 * by the next call where the server allows it. TRN_ERR_FORMAT: wrong digits or size (the download is
 * removed); TRN_ERR_IO: network, server, disk, or another pull of the same name is under way. *out:
 * trn_stored_free. */
trn_status trn_store_pull(const trn_pull_options *options, trn_stored *out, trn_error *err);
/* Whether an address may be fetched: http or https, no password in it, and, when `from` redirects there
 * (NULL: the user names it), not from https to http. */
trn_status trn_store_check_url(const char *url, const char *from, trn_error *err);

/* ---- fresh weights, to train from scratch ---- */

/* Weights for training from scratch, by name, shape and seed alone: matrices [out,in] normal with deviation
 * 0.02, cut at two of them (ViT's and Hiera's); kernels of convolutions uniform within 1/sqrt(fan_in);
 * weights of norms 1, biases 0, layer scales 1e-5; positions and tokens normal, 0.02; running variances 1. As
 * trn_weights_open_synthetic it has every tensor it is asked for, and trn_weights_is_synthetic says so; its
 * path is "fresh weights of seed N". */
trn_status trn_weights_open_fresh(uint64_t seed, trn_weights **out, trn_error *err);
/* The same values into memory: out [product of shape]. */
void trn_weights_fresh_values(uint64_t seed, const char *name, int ndim, const int64_t *shape, float *out);

/* ---- writing ---- */

/* A tensor to write, as float32. data [product of shape]; NULL: trn_write_options.fill makes the values when
 * their turn comes, so that a checkpoint larger than memory can be written. */
typedef struct trn_weight_data {
    const char *name;
    int ndim;
    int64_t shape[TRN_WEIGHTS_MAX_DIMS];
    const float *data;
} trn_weight_data;

typedef struct trn_write_options {
    const char *const *metadata; /* safetensors: pairs key, value, ended by NULL; may be NULL */
    /* PyTorch: key under which the weights lie beside an epoch, as training code saves them ("model"; '/'
     * goes down further); NULL: the file is the dictionary of tensors itself. */
    const char *wrapper;
    const char *prefix; /* put before every name; NULL: none */
    trn_status (*fill)(void *user, const trn_weight_data *tensor, float *out, trn_error *err);
    void *user;
    const trn_progress *progress; /* told of tensors done; cancelling leaves no file; may be NULL */
} trn_write_options;

/* Writes a safetensors file, atomically. Names must be unique. options may be NULL. */
trn_status trn_weights_write(const char *path, const trn_weight_data *tensors, size_t count,
                             const trn_write_options *options, trn_error *err);
/* Writes a zip checkpoint of PyTorch (torch.load reads it), atomically: members stored, their data aligned to
 * 64 bytes, 64-bit sizes where they are needed. */
trn_status trn_weights_write_torch(const char *path, const trn_weight_data *tensors, size_t count,
                                   const trn_write_options *options, trn_error *err);

#ifdef __cplusplus
}
#endif
#endif
