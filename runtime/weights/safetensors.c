/* safetensors: u64 header length, a JSON header {name: {dtype, shape, data_offsets}}, raw data. */
#include "checkpoint.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

/* Real headers are below 1 MB; parsed JSON takes some 30 times the text. */
enum { PREAMBLE = 8, MAX_HEADER = 16 << 20 };

typedef struct data_range {
    uint64_t begin, end;
    const char *name;
} data_range;

static uint64_t header_length(const uint8_t data[PREAMBLE])
{
    uint64_t length = 0;
    memcpy(&length, data, sizeof length);
    return length;
}

bool trn_is_safetensors(const uint8_t *data, size_t size)
{
    if (size < PREAMBLE + 2 || data[PREAMBLE] != '{') return false;
    /* a header that reaches beyond the file is reported as such, not as an unknown file, if it is near
     * plausible */
    return header_length(data) <= (uint64_t)1 << 40;
}

/* A number that is a whole one and exact in a double. */
static bool get_integer(const cJSON *item, int64_t *out)
{
    const double limit = 9007199254740992.0;
    if (!item || !cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble < limit))
        return false;
    *out = (int64_t)item->valuedouble;
    return (double)*out == item->valuedouble;
}

/* bits: of an element; TRN_WEIGHT_OTHER for those that are valid but not read. */
static bool get_type(const char *name, trn_weight_type *type, unsigned *bits)
{
    static const struct {
        const char *name;
        trn_weight_type type;
        unsigned bits;
    } known[] = {
        {"F32", TRN_WEIGHT_F32, 32},      {"F16", TRN_WEIGHT_F16, 16},      {"BF16", TRN_WEIGHT_BF16, 16},
        {"F64", TRN_WEIGHT_F64, 64},      {"I64", TRN_WEIGHT_I64, 64},      {"I32", TRN_WEIGHT_I32, 32},
        {"I16", TRN_WEIGHT_I16, 16},      {"I8", TRN_WEIGHT_I8, 8},         {"U8", TRN_WEIGHT_U8, 8},
        {"U64", TRN_WEIGHT_U64, 64},      {"U32", TRN_WEIGHT_U32, 32},      {"U16", TRN_WEIGHT_U16, 16},
        {"BOOL", TRN_WEIGHT_BOOL, 8},     {"F8_E4M3", TRN_WEIGHT_OTHER, 8}, {"F8_E5M2", TRN_WEIGHT_OTHER, 8},
        {"F8_E8M0", TRN_WEIGHT_OTHER, 8}, {"F4", TRN_WEIGHT_OTHER, 4},      {"F6_E2M3", TRN_WEIGHT_OTHER, 6},
        {"F6_E3M2", TRN_WEIGHT_OTHER, 6}, {"C64", TRN_WEIGHT_OTHER, 64},
    };
    for (size_t i = 0; name && i < TRN_COUNT(known); i++) {
        if (strcmp(name, known[i].name) != 0) continue;
        *type = known[i].type;
        *bits = known[i].bits;
        return true;
    }
    return false;
}

static trn_status get_shape(const cJSON *item, const char *name, int64_t shape[TRN_WEIGHTS_MAX_DIMS],
                            int *ndim, trn_error *err)
{
    *ndim = 0;
    if (!cJSON_IsArray(item)) return trn_fail(err, TRN_ERR_FORMAT, "tensor '%s' has no list as shape", name);
    const cJSON *side;
    cJSON_ArrayForEach (side, item) {
        if (*ndim == TRN_WEIGHTS_MAX_DIMS)
            return trn_fail(err, TRN_ERR_UNSUPPORTED, "tensor '%s' has more than %d dimensions", name,
                            TRN_WEIGHTS_MAX_DIMS);
        if (!get_integer(side, &shape[(*ndim)++]))
            return trn_fail(err, TRN_ERR_FORMAT, "tensor '%s' has a shape of what are no whole numbers",
                            name);
    }
    return TRN_OK;
}

static trn_status get_range(const cJSON *item, const char *name, uint64_t data_size, data_range *out,
                            trn_error *err)
{
    int64_t begin, end;
    const cJSON *first = cJSON_GetArrayItem(item, 0), *second = first ? first->next : NULL;
    if (!cJSON_IsArray(item) || !second || second->next || !get_integer(first, &begin) ||
        !get_integer(second, &end))
        return trn_fail(err, TRN_ERR_FORMAT, "tensor '%s' has no [begin, end] as data_offsets", name);
    if (begin > end || (uint64_t)end > data_size)
        return trn_fail(
            err, TRN_ERR_FORMAT,
            "tensor '%s' lies at bytes %lld to %lld, but there are %llu bytes of data: the file is damaged "
            "or cut off",
            name, (long long)begin, (long long)end, (unsigned long long)data_size);
    *out = (data_range){(uint64_t)begin, (uint64_t)end, name};
    return TRN_OK;
}

/* data: byte of the file where data begins, data_size bytes of it */
static trn_status list_tensor(trn_weights *weights, const cJSON *item, uint64_t data, uint64_t data_size,
                              data_range *range, trn_error *err)
{
    const char *name = item->string;
    int64_t shape[TRN_WEIGHTS_MAX_DIMS] = {0}, count;
    int ndim;
    unsigned bits;
    trn_weight_type type;
    const char *dtype = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "dtype"));
    if (!get_type(dtype, &type, &bits))
        return trn_fail(err, TRN_ERR_FORMAT, "tensor '%s' has the unknown dtype '%s'", name,
                        dtype ? dtype : "(none)");
    trn_status status = get_shape(cJSON_GetObjectItemCaseSensitive(item, "shape"), name, shape, &ndim, err);
    if (status != TRN_OK) return status;
    status = get_range(cJSON_GetObjectItemCaseSensitive(item, "data_offsets"), name, data_size, range, err);
    if (status != TRN_OK) return status;
    char text[TRN_SHAPE_TEXT];
    if (!trn_weight_shape_count(shape, ndim, &count))
        return trn_fail(err, TRN_ERR_FORMAT, "tensor '%s' has the impossible shape %s", name,
                        trn_weight_shape_text(shape, ndim, text));
    uint64_t needed = ((uint64_t)count * bits + 7) / 8; /* count is below 2^40 */
    if (needed != range->end - range->begin)
        return trn_fail(err, TRN_ERR_FORMAT,
                        "tensor '%s' of shape %s (%s) takes %llu bytes, but is given %llu", name,
                        trn_weight_shape_text(shape, ndim, text), dtype, (unsigned long long)needed,
                        (unsigned long long)(range->end - range->begin));
    trn_weight_place place = {.at = data + range->begin, .bytes = needed};
    trn_weight_shape_strides(shape, ndim, place.stride);
    return trn_weights_add(weights, name, type, ndim, shape, &place, err);
}

static int compare_ranges(const void *a, const void *b)
{
    const data_range *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* Holes are harmless; bytes that two tensors share mean that the header lies. */
static trn_status check_overlaps(data_range *ranges, size_t count, trn_error *err)
{
    if (count) qsort(ranges, count, sizeof *ranges, compare_ranges);
    const data_range *before = NULL;
    for (size_t i = 0; i < count; i++) {
        if (ranges[i].begin == ranges[i].end) continue;
        if (before && ranges[i].begin < before->end)
            return trn_fail(err, TRN_ERR_FORMAT, "tensors '%s' and '%s' overlap", before->name,
                            ranges[i].name);
        before = &ranges[i];
    }
    return TRN_OK;
}

/* Values that are no text are passed over. */
static trn_status keep_metadata(trn_weights *weights, const cJSON *metadata, trn_error *err)
{
    size_t count = (size_t)cJSON_GetArraySize(metadata);
    const cJSON *item;
    weights->notes = trn_arena_array(weights->arena, count + 1, sizeof *weights->notes);
    if (!weights->notes) return trn_fail_memory(err, count * sizeof *weights->notes, "metadata");
    weights->note_count = 0;
    cJSON_ArrayForEach (item, metadata) {
        if (!cJSON_IsString(item)) continue;
        trn_weights_note *note = &weights->notes[weights->note_count++];
        note->key = trn_arena_strdup(weights->arena, item->string);
        note->value = trn_arena_strdup(weights->arena, item->valuestring);
        if (!note->key || !note->value) return trn_fail_memory(err, sizeof *note, "metadata");
    }
    return TRN_OK;
}

static trn_status list_header(trn_weights *weights, const cJSON *header, uint64_t data, uint64_t data_size,
                              trn_error *err)
{
    trn_status status = TRN_OK;
    data_range *ranges = NULL;
    size_t count = 0, capacity = 0;
    const cJSON *item;
    cJSON_ArrayForEach (item, header) {
        if (!cJSON_IsObject(item)) {
            status = trn_fail(err, TRN_ERR_FORMAT, "entry '%.200s' of the header is no object", item->string);
            goto fail;
        }
        if (!strcmp(item->string, "__metadata__")) {
            status = keep_metadata(weights, item, err);
            if (status != TRN_OK) goto fail;
            continue;
        }
        if (!trn_grow(&ranges, &capacity, count + 1, sizeof *ranges)) {
            status = trn_fail_memory(err, sizeof *ranges, "the header");
            goto fail;
        }
        status = list_tensor(weights, item, data, data_size, &ranges[count], err);
        if (status != TRN_OK) goto fail;
        count++;
    }
    status = check_overlaps(ranges, count, err);
fail:
    free(ranges);
    return status;
}

/* Names are C strings from here on: a NUL in one would cut it. */
static bool has_nul(const char *text, size_t size)
{
    static const char escape[] = "\\u0000";
    size_t n = strlen(escape);
    for (size_t i = 0; i < size; i++)
        if (!text[i] || (text[i] == '\\' && size - i >= n && !memcmp(text + i, escape, n))) return true;
    return false;
}

static bool only_spaces(const char *from, const char *end)
{
    while (from < end && (*from == ' ' || *from == '\n' || *from == '\t' || *from == '\r'))
        from++;
    return from == end;
}

static trn_status parse_header(trn_weights *weights, const char *text, uint64_t length, uint64_t rest,
                               trn_error *err)
{
    const char *end = NULL;
    if (has_nul(text, (size_t)length))
        return trn_fail(err, TRN_ERR_FORMAT, "its header holds a NUL character");
    cJSON *header = cJSON_ParseWithLengthOpts(text, (size_t)length, &end, false);
    if (!cJSON_IsObject(header) || !only_spaces(end, text + length)) {
        cJSON_Delete(header);
        return trn_fail(err, TRN_ERR_FORMAT, "its header is no JSON object (near byte %zu)",
                        (size_t)(end ? end - text : 0) + PREAMBLE);
    }
    trn_status status = list_header(weights, header, PREAMBLE + length, rest - length, err);
    cJSON_Delete(header);
    return status;
}

trn_status trn_safetensors_list(trn_weights *weights, trn_error *err)
{
    uint8_t preamble[PREAMBLE];
    trn_status status = trn_bytes_read(weights, 0, preamble, sizeof preamble, err);
    if (status != TRN_OK) return status;
    uint64_t length = header_length(preamble), rest = weights->size - PREAMBLE;
    if (weights->options && weights->options->wrapper)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "wrapper '%s' is set, but a safetensors file has no wrapper: leave it out",
                        weights->options->wrapper);
    if (length > rest)
        return trn_fail(err, TRN_ERR_FORMAT,
                        "its header claims %llu bytes, but only %llu follow: the file is damaged or cut off",
                        (unsigned long long)length, (unsigned long long)rest);
    if (length > MAX_HEADER)
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "its header of %llu bytes is larger than the %d that are read",
                        (unsigned long long)length, MAX_HEADER);
    char *text = malloc(length ? (size_t)length : 1);
    if (!text) return trn_fail_memory(err, (size_t)length, "the header");
    status = trn_bytes_read(weights, PREAMBLE, text, (size_t)length, err);
    if (status == TRN_OK) status = parse_header(weights, text, length, rest, err);
    free(text);
    return status;
}
