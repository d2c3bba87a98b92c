/* Writing checkpoints as PyTorch does: a zip archive of a pickle and one stored member per tensor. */
#include "write.h"
#include "zip_write.h"

#include <string.h>

enum { MAX_WRAPPERS = 4 };

/* ---- the pickle (protocol 2): nothing is memorised, so that no value is ever referred to twice ---- */

static void add_bytes(trn_text *out, const void *bytes, size_t size)
{
    trn_text_add_n(out, bytes, size);
}

static void add_text_n(trn_text *out, const char *text, size_t n)
{
    uint32_t length = (uint32_t)n;
    trn_text_add(out, "X");
    add_bytes(out, &length, sizeof length);
    trn_text_add_n(out, text, n);
}

static void add_text(trn_text *out, const char *text)
{
    add_text_n(out, text, strlen(text));
}

static void add_integer(trn_text *out, int64_t number)
{
    int32_t small = (int32_t)number;
    if (number == small) {
        trn_text_add(out, "J");
        add_bytes(out, &small, sizeof small);
        return;
    }
    trn_text_add(out, "\x8a\x08");
    add_bytes(out, &number, sizeof number);
}

static void add_integers(trn_text *out, const int64_t *numbers, int count)
{
    trn_text_add(out, "(");
    for (int i = 0; i < count; i++)
        add_integer(out, numbers[i]);
    trn_text_add(out, "t");
}

static void add_ordered_dict(trn_text *out)
{
    trn_text_add(out, "ccollections\nOrderedDict\n)R");
}

/* _rebuild_tensor_v2(storage, offset, shape, stride, requires_grad, hooks) */
static void add_tensor(trn_text *out, const trn_weight_data *tensor, size_t key)
{
    int64_t stride[TRN_WEIGHTS_MAX_DIMS];
    char name[32];
    snprintf(name, sizeof name, "%zu", key);
    trn_weight_shape_strides(tensor->shape, tensor->ndim, stride);
    trn_text_add(out, "ctorch._utils\n_rebuild_tensor_v2\n((");
    add_text(out, "storage");
    trn_text_add(out, "ctorch\nFloatStorage\n");
    add_text(out, name);
    add_text(out, "cpu");
    add_integer(out, trn_write_elements(tensor));
    trn_text_add(out, "tQ");
    add_integer(out, 0);
    add_integers(out, tensor->shape, tensor->ndim);
    add_integers(out, stride, tensor->ndim);
    trn_text_add(out, "\x89");
    add_ordered_dict(out);
    trn_text_add(out, "tR");
}

static void add_state(trn_text *out, const trn_weights_writer *writer)
{
    const char *prefix = writer->options->prefix ? writer->options->prefix : "";
    trn_text name = {0};
    add_ordered_dict(out);
    trn_text_add(out, "(");
    for (size_t i = 0; i < writer->count; i++) {
        name.length = 0;
        trn_text_printf(&name, "%s%s", prefix, writer->tensors[i].name);
        add_text(out, trn_text_get(&name));
        add_tensor(out, &writer->tensors[i], i);
    }
    trn_text_add(out, "u");
    out->failed |= name.failed;
    trn_text_free(&name);
}

/* "a/b" becomes {'a': {'b': state}, 'epoch': 1}: a training checkpoint never holds the weights alone. */
static trn_status make_pickle(const trn_weights_writer *writer, trn_text *out, trn_error *err)
{
    const char *wrapper = writer->options->wrapper;
    int depth = 0;
    trn_text_add(out, "\x80\x02");
    while (wrapper && *wrapper) {
        size_t n = strcspn(wrapper, "/");
        if (!n || depth == MAX_WRAPPERS)
            return trn_fail(err, TRN_ERR_ARGUMENT, "wrapper '%s' is not one to %d keys with '/' between them",
                            writer->options->wrapper, MAX_WRAPPERS);
        trn_text_add(out, "}(");
        add_text_n(out, wrapper, n);
        wrapper += n + (wrapper[n] == '/');
        depth++;
    }
    add_state(out, writer);
    for (; depth > 0; depth--) {
        if (depth == 1) {
            add_text(out, "epoch");
            add_integer(out, 1);
        }
        trn_text_add(out, "u");
    }
    trn_text_add(out, ".");
    return out->failed ? trn_fail_memory(err, out->length, "a pickle") : TRN_OK;
}

/* ---- the archive ---- */

static trn_status put_member(trn_zip_writer *zip, const char *name, const void *data, size_t size,
                             trn_error *err)
{
    if (trn_zip_begin(zip, name, size) && trn_zip_put(zip, data, size) && trn_zip_end(zip)) return TRN_OK;
    return trn_fail_errno(err, "write", name);
}

static trn_status put_members(trn_weights_writer *writer, trn_zip_writer *zip, const trn_text *pickle,
                              trn_error *err)
{
    trn_status status = put_member(zip, "archive/data.pkl", pickle->data, pickle->length, err);
    if (status == TRN_OK) status = put_member(zip, "archive/byteorder", "little", 6, err);
    for (size_t i = 0; status == TRN_OK && i < writer->count; i++) {
        char name[64];
        const float *values;
        snprintf(name, sizeof name, "archive/data/%zu", i);
        status = trn_write_values(writer, i, &values, err);
        if (status == TRN_OK)
            status = put_member(zip, name, values, trn_write_bytes(&writer->tensors[i]), err);
    }
    if (status == TRN_OK) status = put_member(zip, "archive/version", "3\n", 2, err);
    if (status == TRN_OK && !trn_zip_finish(zip)) status = trn_fail_errno(err, "write", "the directory");
    return status;
}

static trn_status write_torch(trn_weights_writer *writer, trn_error *err)
{
    trn_text pickle = {0};
    trn_zip_writer zip;
    trn_zip_start(&zip, writer->file);
    trn_status status = make_pickle(writer, &pickle, err);
    if (status == TRN_OK) status = put_members(writer, &zip, &pickle, err);
    trn_zip_drop(&zip);
    trn_text_free(&pickle);
    return status;
}

trn_status trn_weights_write_torch(const char *path, const trn_weight_data *tensors, size_t count,
                                   const trn_write_options *options, trn_error *err)
{
    return trn_write_file_of(path, tensors, count, options, write_torch, err);
}
