/* .pt/.pth as a zip archive: <root>/data.pkl, and one member <root>/data/<key> per storage, read on demand.
 */
#include "torch.h"

#include <stdlib.h>
#include <string.h>
#include <zip.h>

/* Pickles of real checkpoints are below 10 MB. Deflate cannot shrink by more than 1032 to 1. */
enum { MAX_PICKLE = 64 << 20, MAX_RATIO = 1040, MAX_ROOT = 512 };

bool trn_is_torch_zip(const uint8_t *data, size_t size)
{
    return size >= 4 && !memcmp(data, "PK\x03\x04", 4);
}

void trn_torch_zip_close(trn_weights *weights)
{
    if (weights->zip) zip_discard(weights->zip);
    weights->zip = NULL;
}

/* ---- the archive's bytes ---- */

static zip_int64_t serve_read(trn_weights *weights, void *out, zip_uint64_t size)
{
    uint64_t rest = weights->size - weights->zip_at, n = TRN_MIN((uint64_t)size, rest);
    if (trn_bytes_read(weights, weights->zip_at, out, (size_t)n, NULL) != TRN_OK) return -1;
    weights->zip_at += n;
    return (zip_int64_t)n;
}

static zip_int64_t serve_seek(trn_weights *weights, void *request, zip_uint64_t size)
{
    zip_error_t problem;
    zip_error_init(&problem);
    zip_int64_t at = zip_source_seek_compute_offset(weights->zip_at, weights->size, request, size, &problem);
    zip_error_fini(&problem);
    if (at < 0) return -1;
    weights->zip_at = (uint64_t)at;
    return 0;
}

static zip_int64_t serve_stat(const trn_weights *weights, void *out, zip_uint64_t size)
{
    zip_stat_t info;
    if (size < sizeof info) return -1;
    zip_stat_init(&info);
    info.valid = ZIP_STAT_SIZE;
    info.size = weights->size;
    memcpy(out, &info, sizeof info);
    return sizeof info;
}

static zip_int64_t serve_error(void *out, zip_uint64_t size)
{
    const int codes[2] = {ZIP_ER_READ, 0};
    if (size < sizeof codes) return -1;
    memcpy(out, codes, sizeof codes);
    return sizeof codes;
}

/* What libzip asks of the file. Reading may jump, so that members are found wherever they are. */
static zip_int64_t serve(void *user, void *data, zip_uint64_t size, zip_source_cmd_t command)
{
    trn_weights *weights = user;
    switch (command) {
    case ZIP_SOURCE_OPEN:
        weights->zip_at = 0;
        return 0;
    case ZIP_SOURCE_READ:
        return serve_read(weights, data, size);
    case ZIP_SOURCE_SEEK:
        return serve_seek(weights, data, size);
    case ZIP_SOURCE_TELL:
        return (zip_int64_t)weights->zip_at;
    case ZIP_SOURCE_STAT:
        return serve_stat(weights, data, size);
    case ZIP_SOURCE_ERROR:
        return serve_error(data, size);
    case ZIP_SOURCE_CLOSE:
    case ZIP_SOURCE_FREE:
        return 0;
    case ZIP_SOURCE_SUPPORTS:
        return zip_source_make_command_bitmap(ZIP_SOURCE_OPEN, ZIP_SOURCE_READ, ZIP_SOURCE_CLOSE,
                                              ZIP_SOURCE_STAT, ZIP_SOURCE_ERROR, ZIP_SOURCE_FREE,
                                              ZIP_SOURCE_SEEK, ZIP_SOURCE_TELL, ZIP_SOURCE_SUPPORTS, -1);
    default:
        return -1;
    }
}

static trn_status open_archive(trn_weights *weights, trn_error *err)
{
    zip_error_t problem;
    zip_error_init(&problem);
    zip_source_t *source = zip_source_function_create(serve, weights, &problem);
    if (source) weights->zip = zip_open_from_source(source, ZIP_RDONLY, &problem);
    trn_status status = TRN_OK;
    if (!weights->zip) {
        if (source) zip_source_free(source);
        status = trn_fail(
            err, TRN_ERR_FORMAT,
            "it begins like a checkpoint of PyTorch (zip), but is no complete archive: %s; the file is "
            "damaged or cut off",
            zip_error_strerror(&problem));
    }
    zip_error_fini(&problem);
    return status;
}

/* ---- members ---- */

/* The sizes are the archive's own words: allocations rest on them, so that they are held against the file. */
static trn_status check_member(const trn_weights *weights, const zip_stat_t *info, trn_error *err)
{
    const zip_uint64_t wanted = ZIP_STAT_SIZE | ZIP_STAT_COMP_SIZE | ZIP_STAT_NAME;
    if ((info->valid & wanted) != wanted) return trn_fail(err, TRN_ERR_FORMAT, "a member has no size");
    if (info->comp_size > weights->size)
        return trn_fail(err, TRN_ERR_FORMAT, "member '%.200s' claims %llu bytes, more than the file has",
                        info->name, (unsigned long long)info->comp_size);
    if (info->comp_size < info->size / MAX_RATIO)
        return trn_fail(err, TRN_ERR_FORMAT,
                        "member '%.200s' claims to unpack %llu bytes to %llu, which nothing does", info->name,
                        (unsigned long long)info->comp_size, (unsigned long long)info->size);
    return TRN_OK;
}

trn_status trn_member_open(trn_weights *weights, uint64_t member, uint64_t begin, trn_member_stream *out,
                           trn_error *err)
{
    *out = (trn_member_stream){0};
    zip_stat_t info;
    if (zip_stat_index(weights->zip, member, 0, &info))
        return trn_fail(err, TRN_ERR_FORMAT, "%s", zip_strerror(weights->zip));
    trn_status status = check_member(weights, &info, err);
    if (status != TRN_OK) return status;
    *out = (trn_member_stream){zip_fopen_index(weights->zip, member, 0), 0, info.size, info.name};
    if (!out->file)
        return trn_fail(err, TRN_ERR_FORMAT, "member '%.200s': %s", info.name, zip_strerror(weights->zip));
    bool stored = info.valid & ZIP_STAT_COMP_METHOD && info.comp_method == ZIP_CM_STORE;
    if (begin && begin <= INT64_MAX && stored && !zip_fseek(out->file, (zip_int64_t)begin, SEEK_SET))
        out->at = begin;
    uint8_t skipped[4096];
    while (status == TRN_OK && out->at < begin)
        status =
            trn_member_read(out, skipped, (size_t)TRN_MIN((uint64_t)sizeof skipped, begin - out->at), err);
    if (status != TRN_OK) trn_member_close(out);
    return status;
}

static trn_status fail_read(trn_member_stream *stream, trn_error *err)
{
    return trn_fail(err, TRN_ERR_FORMAT,
                    "member '%.200s' cannot be read at byte %llu: %s; the file is damaged", stream->name,
                    (unsigned long long)stream->at, zip_file_strerror(stream->file));
}

trn_status trn_member_read(trn_member_stream *stream, void *out, size_t size, trn_error *err)
{
    uint8_t *to = out;
    while (size) {
        zip_int64_t n = zip_fread(stream->file, to, size);
        if (n < 0) return fail_read(stream, err);
        if (n == 0)
            return trn_fail(err, TRN_ERR_FORMAT, "member '%.200s' ends at byte %llu: the file is damaged",
                            stream->name, (unsigned long long)stream->at);
        to += n;
        size -= (size_t)n;
        stream->at += (uint64_t)n;
    }
    return TRN_OK;
}

trn_status trn_member_finish(trn_member_stream *stream, trn_error *err)
{
    uint8_t beyond;
    if (stream->at != stream->size) return TRN_OK;
    return zip_fread(stream->file, &beyond, 1) < 0 ? fail_read(stream, err)
                                                   : TRN_OK; /* libzip compares now */
}

void trn_member_close(trn_member_stream *stream)
{
    if (stream->file) zip_fclose(stream->file);
    *stream = (trn_member_stream){0};
}

/* A small member whole; *data is malloc'd. */
static trn_status read_small(trn_weights *weights, uint64_t member, uint8_t **data, size_t *size,
                             trn_error *err)
{
    trn_member_stream stream;
    trn_status status = trn_member_open(weights, member, 0, &stream, err);
    if (status != TRN_OK) return status;
    *data = NULL;
    *size = (size_t)stream.size;
    if (stream.size > MAX_PICKLE)
        status = trn_fail(err, TRN_ERR_UNSUPPORTED,
                          "member '%.200s' of %llu bytes is larger than the %d that are read", stream.name,
                          (unsigned long long)stream.size, MAX_PICKLE);
    else if (!(*data = malloc(*size + 1)))
        status = trn_fail_memory(err, *size, "a member of the archive");
    if (status == TRN_OK) status = trn_member_read(&stream, *data, *size, err);
    if (status == TRN_OK) status = trn_member_finish(&stream, err);
    trn_member_close(&stream);
    if (status == TRN_OK) return TRN_OK;
    free(*data);
    *data = NULL;
    return status;
}

/* ---- what the archive holds ---- */

typedef struct archive {
    char root[MAX_ROOT]; /* with the slash */
    uint64_t pickle;
} archive;

static trn_status find_root(trn_weights *weights, archive *out, trn_error *err)
{
    static const char wanted[] = "data.pkl";
    size_t found = 0;
    zip_int64_t count = zip_get_num_entries(weights->zip, 0);
    for (zip_int64_t i = 0; i < count; i++) {
        const char *name = zip_get_name(weights->zip, (zip_uint64_t)i, 0);
        if (!name || strcmp(trn_path_name(name), wanted) != 0) continue;
        size_t length = strlen(name) - strlen(wanted);
        if (length >= sizeof out->root) return trn_fail(err, TRN_ERR_FORMAT, "a member has too long a name");
        if (found++) return trn_fail(err, TRN_ERR_FORMAT, "it has two members called data.pkl");
        memcpy(out->root, name, length);
        out->root[length] = 0;
        out->pickle = (uint64_t)i;
    }
    if (found) return TRN_OK;
    return trn_fail(err, TRN_ERR_UNSUPPORTED,
                    "it is a zip archive without a member data.pkl, not a checkpoint of PyTorch");
}

/* The member <root>/<name>; false when there is none. */
static bool find_member(trn_weights *weights, const archive *in, const char *name, uint64_t *member)
{
    char path[MAX_ROOT + 128];
    snprintf(path, sizeof path, "%s%s", in->root, name);
    zip_int64_t i = zip_name_locate(weights->zip, path, 0);
    *member = i >= 0 ? (uint64_t)i : 0;
    return i >= 0;
}

static trn_status check_byte_order(trn_weights *weights, const archive *in, trn_error *err)
{
    uint64_t member;
    uint8_t *text;
    size_t size;
    if (!find_member(weights, in, "byteorder", &member)) return TRN_OK; /* before torch 2: always little */
    trn_status status = read_small(weights, member, &text, &size, err);
    if (status != TRN_OK) return status;
    if (size != 6 || memcmp(text, "little", 6) != 0)
        status = trn_fail(err, TRN_ERR_UNSUPPORTED,
                          "its numbers are big-endian; save it again on a usual machine");
    free(text);
    return status;
}

static trn_status locate(trn_weights *weights, void *user, const trn_torch_storage *storage,
                         trn_weight_place *place, trn_error *err)
{
    char name[128];
    zip_stat_t info;
    snprintf(name, sizeof name, "data/%.100s", storage->key);
    if (!find_member(weights, user, name, &place->member))
        return trn_fail(err, TRN_ERR_FORMAT, "its data, storage '%s', is not in the archive", storage->key);
    if (zip_stat_index(weights->zip, place->member, 0, &info))
        return trn_fail(err, TRN_ERR_FORMAT, "storage '%s': %s", storage->key, zip_strerror(weights->zip));
    trn_status status = check_member(weights, &info, err);
    if (status != TRN_OK) return status;
    uint64_t needed = (uint64_t)storage->elements * storage->item;
    if (info.size < needed)
        return trn_fail(err, TRN_ERR_FORMAT, "storage '%s' should have %llu bytes, but has %llu",
                        storage->key, (unsigned long long)needed, (unsigned long long)info.size);
    place->bytes = needed;
    return TRN_OK;
}

trn_status trn_torch_zip_list(trn_weights *weights, trn_error *err)
{
    archive in = {.pickle = 0};
    uint8_t *bytes = NULL;
    size_t size = 0;
    trn_pickle pickle = {0};
    trn_status status = open_archive(weights, err);
    if (status == TRN_OK) status = find_root(weights, &in, err);
    if (status == TRN_OK) status = check_byte_order(weights, &in, err);
    if (status == TRN_OK) status = read_small(weights, in.pickle, &bytes, &size, err);
    if (status == TRN_OK) status = trn_pickle_parse(bytes, size, &pickle, NULL, err);
    if (status == TRN_OK) status = trn_torch_list(weights, pickle.root, locate, &in, err);
    trn_pickle_free(&pickle);
    free(bytes);
    return status;
}
