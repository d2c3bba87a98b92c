/* The cache of features: a file of a header, the features and the labels, with a hash over all of it. */
#include "cache.h"
#include "probe_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Bytes as the machine has them: on one of the other order the magic number is another one. */
typedef struct cache_header {
    uint64_t magic;
    uint64_t count, channels, label_count;
    char key[64];
    uint8_t digest[32]; /* SHA-256 of the header with zeros here, features and labels */
} cache_header;
static const uint64_t MAGIC = 0x3146544145465254; /* "TRFEATF1" */
enum { MAX_CHANNELS = 1 << 24 };

static size_t value_bytes(const trn_feature_set *set)
{
    return set->count * (size_t)set->channels * sizeof *set->values;
}

static size_t label_bytes(const trn_feature_set *set)
{
    return set->count * set->label_count * sizeof *set->labels;
}

static void digest_of(const cache_header *header, const trn_feature_set *set, uint8_t digest[32])
{
    cache_header blank = *header;
    memset(blank.digest, 0, sizeof blank.digest);
    trn_sha256_state hash;
    trn_sha256_begin(&hash);
    trn_sha256_update(&hash, &blank, sizeof blank);
    trn_sha256_update(&hash, set->values, value_bytes(set));
    trn_sha256_update(&hash, set->labels, label_bytes(set));
    trn_sha256_end(&hash, digest);
}

char *learn_cache_path(const char *folder, const char *key, const trn_learn_hooks *hooks)
{
    trn_error err = {0};
    char *own = NULL;
    if (folder && !folder[0]) return NULL;
    trn_status status = TRN_OK;
    if (folder)
        status = trn_make_dirs(folder, &err);
    else if (!(folder = own = trn_cache_dir("features", &err)))
        status = err.code;
    trn_text path = {0};
    if (status == TRN_OK)
        trn_text_printf(&path, "%s/%s.features", folder, key);
    else
        learn_note(hooks, TRN_LOG_WARN, "features are not kept: %s", err.message);
    free(own);
    return path.data;
}

/* ---- reading ---- */

static trn_status check_header(const cache_header *header, const char *key, size_t count, size_t label_count,
                               uint64_t file_bytes, trn_error *err)
{
    if (header->magic != MAGIC || memcmp(header->key, key, sizeof header->key) != 0)
        return trn_fail(err, TRN_ERR_FORMAT, "it is of another kind, or of other features");
    if (header->count != count || header->label_count != label_count || header->channels < 1 ||
        header->channels > MAX_CHANNELS)
        return trn_fail(err, TRN_ERR_FORMAT, "it holds another number of samples");
    size_t row, bytes;
    if (!trn_mul_size((size_t)header->channels + label_count, 4, &row) || !trn_mul_size(row, count, &bytes) ||
        !trn_add_size(bytes, sizeof *header, &bytes) || bytes != file_bytes)
        return trn_fail(err, TRN_ERR_FORMAT, "it is cut off or too long");
    return TRN_OK;
}

static trn_status read_body(FILE *file, const cache_header *header, trn_feature_set *out, trn_error *err)
{
    *out = (trn_feature_set){.count = (size_t)header->count,
                             .channels = (int64_t)header->channels,
                             .label_count = (size_t)header->label_count};
    out->values = malloc(TRN_MAX(value_bytes(out), 1));
    out->labels = malloc(TRN_MAX(label_bytes(out), 1));
    if (!out->values || !out->labels) return trn_fail_memory(err, value_bytes(out), "features");
    uint8_t digest[32];
    if (fread(out->values, 1, value_bytes(out), file) != value_bytes(out) ||
        fread(out->labels, 1, label_bytes(out), file) != label_bytes(out))
        return trn_fail(err, TRN_ERR_FORMAT, "it cannot be read to its end");
    digest_of(header, out, digest);
    if (memcmp(digest, header->digest, sizeof digest) != 0)
        return trn_fail(err, TRN_ERR_FORMAT, "its checksum is wrong");
    return TRN_OK;
}

static trn_status read_file(FILE *file, const char *key, size_t count, size_t label_count,
                            trn_feature_set *out, trn_error *err)
{
    struct stat info;
    cache_header header;
    if (fstat(fileno(file), &info) || fread(&header, 1, sizeof header, file) != sizeof header)
        return trn_fail(err, TRN_ERR_FORMAT, "it has no header");
    trn_status status = check_header(&header, key, count, label_count, (uint64_t)info.st_size, err);
    if (status == TRN_OK) status = read_body(file, &header, out, err);
    if (status != TRN_OK) trn_feature_set_free(out);
    return status;
}

trn_status learn_cache_read(const char *path, const char *key, size_t count, size_t label_count,
                            const trn_learn_hooks *hooks, trn_feature_set *out, bool *found, trn_error *err)
{
    trn_error why = {0};
    *found = false;
    *out = (trn_feature_set){0};
    FILE *file = fopen(path, "rb");
    if (!file && errno == ENOENT) return TRN_OK;
    trn_status status =
        file ? read_file(file, key, count, label_count, out, &why) : trn_fail_errno(&why, "open", path);
    if (file) fclose(file);
    *found = status == TRN_OK;
    if (status == TRN_ERR_MEMORY) return trn_fail(err, status, "%s", why.message);
    if (!*found)
        learn_note(hooks, TRN_LOG_WARN, "kept features '%s' are computed again: %s", path, why.message);
    return TRN_OK;
}

/* ---- writing ---- */

trn_status learn_cache_write(const char *path, const char *key, const trn_feature_set *set, trn_error *err)
{
    cache_header header = {.magic = MAGIC,
                           .count = set->count,
                           .channels = (uint64_t)set->channels,
                           .label_count = set->label_count};
    memcpy(header.key, key, sizeof header.key);
    digest_of(&header, set, header.digest);
    trn_output *output;
    trn_status status = trn_output_create(path, &output, err);
    if (status != TRN_OK) return status;
    FILE *file = fopen(trn_output_path(output), "wb");
    bool written = file && fwrite(&header, sizeof header, 1, file) == 1 &&
                   fwrite(set->values, 1, value_bytes(set), file) == value_bytes(set) &&
                   fwrite(set->labels, 1, label_bytes(set), file) == label_bytes(set);
    int error = errno;
    if (file && fclose(file) && written) {
        written = false;
        error = errno;
    }
    if (written) return trn_output_commit(output, err);
    errno = error;
    status = trn_fail_errno(err, "write", path);
    trn_output_abandon(output);
    return status;
}
