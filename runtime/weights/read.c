/* Reading one tensor as float32, from the file or from a member of the archive, through a fixed staging
 * buffer. */
#include "checkpoint.h"

#include <stdlib.h>
#include <string.h>

enum { STAGING = 1 << 16 };

static bool is_contiguous(const trn_entry *entry)
{
    int64_t dense[TRN_WEIGHTS_MAX_DIMS];
    trn_weight_shape_strides(entry->info.shape, entry->info.ndim, dense);
    for (int d = 0; d < entry->info.ndim; d++)
        if (entry->info.shape[d] != 1 && entry->place.stride[d] != dense[d]) return false;
    return true;
}

/* Elements from the first to the last one, with what lies between. Listing has checked that they are there.
 */
static int64_t span_of(const trn_entry *entry)
{
    int64_t span = 1;
    for (int d = 0; d < entry->info.ndim; d++)
        span += (entry->info.shape[d] - 1) * entry->place.stride[d];
    return span;
}

/* Strided elements to C order; `from` is element (0, 0, ...). Rows of the last dimension are the inner loop.
 */
static void gather(const trn_entry *entry, const uint8_t *from, float *out)
{
    const trn_weight *info = &entry->info;
    int64_t item = (int64_t)trn_weight_type_size(info->type), index[TRN_WEIGHTS_MAX_DIMS] = {0};
    int inner = info->ndim - 1;
    int64_t row = inner >= 0 ? info->shape[inner] : 1,
            step = inner >= 0 ? entry->place.stride[inner] * item : item;
    for (int64_t done = 0; done < entry->count; done += row) {
        int64_t at = 0;
        for (int d = 0; d < inner; d++)
            at += index[d] * entry->place.stride[d];
        trn_weight_convert(info->type, from + at * item, step, (size_t)row, out + done);
        for (int d = inner - 1; d >= 0 && ++index[d] == info->shape[d]; d--)
            index[d] = 0;
    }
}

/* Bytes that come one after the other: of a member when the checkpoint is an archive, else of the file. */
typedef struct byte_stream {
    const trn_weights *weights;
    trn_member_stream member;
    uint64_t at;
} byte_stream;

static trn_status stream_open(trn_weights *weights, const trn_weight_place *place, uint64_t begin,
                              byte_stream *out, trn_error *err)
{
    *out = (byte_stream){.weights = weights, .at = place->at + begin};
    return weights->zip ? trn_member_open(weights, place->member, begin, &out->member, err) : TRN_OK;
}

static trn_status stream_read(byte_stream *stream, void *out, size_t size, trn_error *err)
{
    if (stream->weights->zip) return trn_member_read(&stream->member, out, size, err);
    stream->at += size;
    return trn_bytes_read(stream->weights, stream->at - size, out, size, err);
}

static trn_status read_dense(byte_stream *stream, const trn_entry *entry, float *out, trn_error *err)
{
    uint8_t staging[STAGING];
    size_t item = trn_weight_type_size(entry->info.type), chunk = sizeof staging / item;
    if (entry->info.type == TRN_WEIGHT_F32) return stream_read(stream, out, (size_t)entry->count * item, err);
    for (int64_t done = 0; done < entry->count;) {
        size_t n = (size_t)TRN_MIN((int64_t)chunk, entry->count - done);
        trn_status status = stream_read(stream, staging, n * item, err);
        if (status != TRN_OK) return status;
        trn_weight_convert(entry->info.type, staging, (int64_t)item, n, out + done);
        done += (int64_t)n;
    }
    return TRN_OK;
}

/* Only the bytes between the first and the last element are read. */
static trn_status read_strided(byte_stream *stream, const trn_entry *entry, float *out, trn_error *err)
{
    size_t bytes = (size_t)span_of(entry) * trn_weight_type_size(entry->info.type);
    uint8_t *span = malloc(bytes);
    if (!span) return trn_fail_memory(err, bytes, "the storage of a strided tensor");
    trn_status status = stream_read(stream, span, bytes, err);
    if (status == TRN_OK) gather(entry, span, out);
    free(span);
    return status;
}

static trn_status read_entry(trn_weights *weights, const trn_entry *entry, float *out, trn_error *err)
{
    byte_stream stream;
    size_t item = trn_weight_type_size(entry->info.type);
    if (!item)
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "its elements are complex, quantised or 8-bit floats; save it as float32");
    if (!entry->count) return TRN_OK;
    trn_status status =
        stream_open(weights, &entry->place, (uint64_t)entry->place.offset * item, &stream, err);
    if (status != TRN_OK) return status;
    if (is_contiguous(entry))
        status = read_dense(&stream, entry, out, err);
    else
        status = read_strided(&stream, entry, out, err);
    if (status == TRN_OK && weights->zip) status = trn_member_finish(&stream.member, err);
    trn_member_close(&stream.member);
    return status;
}

/* A name that the file has with something in front, such as 'encoder.' of 'encoder.norm.weight'. */
static const char *find_longer(const trn_weights *weights, const char *name)
{
    for (size_t i = 0; i < weights->count; i++) {
        const char *full = weights->entries[i].full_name;
        size_t n = strlen(full), m = strlen(name);
        if (m && n > m && full[n - m - 1] == '.' && !strcmp(full + n - m, name)) return full;
    }
    return NULL;
}

static trn_status fail_missing(const trn_weights *weights, const char *name, trn_error *err)
{
    const char *longer = find_longer(weights, name);
    if (longer)
        return trn_fail(
            err, TRN_ERR_FORMAT,
            "weights '%s' have no tensor '%s', but '%s': set prefix to '%.*s', or choose another model",
            weights->path, name, longer, (int)(strlen(longer) - strlen(name)), longer);
    const char **names = malloc((weights->count + 1) * sizeof *names);
    size_t count = 0;
    for (size_t i = 0; names && i < weights->count; i++)
        if (!weights->entries[i].hidden) names[count++] = weights->entries[i].info.name;
    const char *nearest = names ? trn_nearest(name, names, count) : NULL;
    if (nearest)
        trn_fail(err, TRN_ERR_FORMAT, "weights '%s' have no tensor '%s'; the nearest name is '%s'",
                 weights->path, name, nearest);
    else
        trn_fail(err, TRN_ERR_FORMAT, "weights '%s' have no tensor '%s' (%zu tensors, the first is '%s')",
                 weights->path, name, count, count ? names[0] : "none");
    free(names);
    return TRN_ERR_FORMAT;
}

static trn_status fail_shape(const trn_weights *weights, const trn_weight *info, const int64_t *shape,
                             int ndim, trn_error *err)
{
    char has[TRN_SHAPE_TEXT], wanted[TRN_SHAPE_TEXT];
    return trn_fail(err, TRN_ERR_FORMAT, "weights '%s': tensor '%s' has shape %s, but the model needs %s",
                    weights->path, info->name, trn_weight_shape_text(info->shape, info->ndim, has),
                    trn_weight_shape_text(shape, ndim, wanted));
}

trn_status trn_weights_read(trn_weights *weights, const char *name, const int64_t *shape, int ndim,
                            float *out, trn_error *err)
{
    int64_t count;
    size_t i;
    if (!name || ndim < 0 || ndim > TRN_WEIGHTS_MAX_DIMS || !trn_weight_shape_count(shape, ndim, &count))
        return trn_fail(err, TRN_ERR_ARGUMENT, "weights: tensor '%s' is asked for with an impossible shape",
                        name ? name : "(none)");
    if (weights->synthetic) {
        if (weights->fresh)
            trn_weights_fresh_values(weights->seed, name, ndim, shape, out);
        else
            trn_synthetic_fill(name, shape, ndim, out);
        weights->made_up.used++;
        weights->made_up.parameters += (uint64_t)count;
        return TRN_OK;
    }
    if (!trn_names_get(&weights->names, name, &i)) return fail_missing(weights, name, err);
    trn_entry *entry = &weights->entries[i];
    bool same = entry->info.ndim == ndim;
    for (int d = 0; same && d < ndim; d++)
        same = entry->info.shape[d] == shape[d];
    if (!same) return fail_shape(weights, &entry->info, shape, ndim, err);
    trn_status status = read_entry(weights, entry, out, err);
    if (status != TRN_OK) {
        trn_wrap(err, "weights '%s', tensor '%s'", weights->path, entry->full_name);
        return status;
    }
    entry->used = true;
    return TRN_OK;
}
