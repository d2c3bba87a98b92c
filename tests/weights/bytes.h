/* What the tests of weights share: files made byte by byte, checkpoints opened from exactly sized memory. */
#ifndef TEST_WEIGHTS_BYTES_H
#define TEST_WEIGHTS_BYTES_H

#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "test_support.h"

/* A copy of just these bytes, so that a sanitizer sees every read beyond them. */
static inline uint8_t *exact_copy(const void *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    if (size) memcpy(copy, data, size);
    return copy;
}

static inline void add_u32(trn_text *out, uint32_t number)
{
    trn_text_add_n(out, (const char *)&number, sizeof number);
}

static inline void add_i64(trn_text *out, int64_t number)
{
    trn_text_add_n(out, (const char *)&number, sizeof number);
}

/* ---- pickles ---- */

static inline void pickle_text(trn_text *out, const char *text)
{
    trn_text_add(out, "X");
    add_u32(out, (uint32_t)strlen(text));
    trn_text_add(out, text);
}

static inline void pickle_int(trn_text *out, int64_t number)
{
    trn_text_add_n(out, "\x8a\x08", 2);
    add_i64(out, number);
}

typedef struct pickled_tensor {
    const char *storage_class, *key;
    int64_t numel, offset;
    int ndim;
    int64_t shape[9], stride[9];
} pickled_tensor;

static inline void pickle_ints(trn_text *out, const int64_t *numbers, int count)
{
    trn_text_add(out, "(");
    for (int i = 0; i < count; i++)
        pickle_int(out, numbers[i]);
    trn_text_add(out, "t");
}

static inline void pickle_tensor(trn_text *out, const pickled_tensor *tensor)
{
    trn_text_add(out, "ctorch._utils\n_rebuild_tensor_v2\n((");
    pickle_text(out, "storage");
    trn_text_printf(out, "ctorch\n%s\n", tensor->storage_class);
    pickle_text(out, tensor->key);
    pickle_text(out, "cpu");
    pickle_int(out, tensor->numel);
    trn_text_add(out, "tQ");
    pickle_int(out, tensor->offset);
    pickle_ints(out, tensor->shape, tensor->ndim);
    pickle_ints(out, tensor->stride, tensor->ndim);
    trn_text_add(out, "\x89"
                      "ccollections\nOrderedDict\n)RtR");
}

/* Four floats in storage "0". */
static inline void pickle_entry(trn_text *out, const char *name)
{
    pickled_tensor tensor = {"FloatStorage", "0", 4, 0, 1, {4}, {1}};
    pickle_text(out, name);
    pickle_tensor(out, &tensor);
}

/* ---- legacy files ---- */

static inline void legacy_begin(trn_text *out)
{
    static const char start[] = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"
                                "\x80\x02M\xe9\x03."
                                "\x80\x02}.\x80\x02";
    trn_text_add_n(out, start, sizeof start - 1);
}

/* Ends the object and adds storage "0" with four floats: 1, 2, 3, 4. */
static inline void legacy_end(trn_text *out)
{
    static const float values[] = {1, 2, 3, 4};
    trn_text_add_n(out, ".\x80\x02]", 4);
    pickle_text(out, "0");
    trn_text_add(out, "a.");
    add_i64(out, 4);
    trn_text_add_n(out, (const char *)values, sizeof values);
}

/* Ends the object; there are no storages. */
static inline void legacy_end_empty(trn_text *out)
{
    trn_text_add_n(out, ".\x80\x02].", 5);
}

/* ---- opening ---- */

typedef struct opened {
    uint8_t *bytes;
    trn_weights *weights;
    trn_status status;
    trn_error err;
} opened;

static inline opened open_bytes(const void *data, size_t size, const trn_weights_options *options)
{
    opened o = {.bytes = exact_copy(data, size)};
    o.status = trn_weights_open_memory("test", o.bytes, size, options, &o.weights, &o.err);
    if (o.status == TRN_OK)
        assert_non_null(o.weights);
    else
        assert_null(o.weights);
    if (o.status != TRN_OK) assert_int_equal(o.err.code, o.status);
    return o;
}

static inline void close_bytes(opened *o)
{
    trn_weights_close(o->weights);
    free(o->bytes);
    *o = (opened){0};
}

/* Opens and wants success, or (with text) a failure whose message holds text. */
static inline void expect_open(const trn_text *file, const trn_weights_options *options, trn_status status,
                               const char *text)
{
    opened o = open_bytes(file->data, file->length, options);
    if (text)
        assert_trn_fails(o.status, status, o.err, text);
    else
        assert_trn_ok(o.status, o.err);
    close_bytes(&o);
}

/* Reads all tensors of up to `limit` elements; returns how many could be read. */
static inline size_t read_all(trn_weights *weights, int64_t limit)
{
    size_t good = 0;
    for (size_t i = 0; i < trn_weights_count(weights); i++) {
        const trn_weight *info = trn_weights_at(weights, i);
        int64_t count;
        assert_true(trn_weight_shape_count(info->shape, info->ndim, &count));
        if (count > limit) continue;
        float *values = malloc((size_t)(count ? count : 1) * sizeof *values);
        assert_non_null(values);
        trn_error err = {0};
        good += trn_weights_read(weights, info->name, info->shape, info->ndim, values, &err) == TRN_OK;
        free(values);
    }
    return good;
}

/* Fails the test when there is none. */
static inline const char *golden_path(const char *name)
{
    const char *path = test_golden_path(name);
    if (!path) fail_msg("golden file '%s' is missing", name);
    return path;
}

static inline char *read_golden(const char *name, size_t *size)
{
    trn_error err = {0};
    char *data = trn_read_file(golden_path(name), (size_t)1 << 30, size, &err);
    if (!data) fail_msg("%s", err.message);
    return data;
}

#endif
