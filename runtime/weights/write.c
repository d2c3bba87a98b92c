/* Writing safetensors: the header in one piece, then the data, under a temporary name until all is there. */
#include "checkpoint.h"

#include <stdlib.h>
#include <string.h>

static trn_status check_tensor(const trn_weight_data *tensor, size_t *bytes, trn_error *err)
{
    int64_t count;
    if (!tensor->name || !tensor->name[0] || !strcmp(tensor->name, "__metadata__"))
        return trn_fail(err, TRN_ERR_ARGUMENT, "a tensor needs a name other than '%s'",
                        tensor->name ? tensor->name : "(none)");
    if (tensor->ndim < 0 || tensor->ndim > TRN_WEIGHTS_MAX_DIMS ||
        !trn_weight_shape_count(tensor->shape, tensor->ndim, &count) ||
        !trn_mul_size((size_t)count, sizeof(float), bytes))
        return trn_fail(err, TRN_ERR_ARGUMENT, "tensor '%s' has an impossible shape", tensor->name);
    if (count && !tensor->data)
        return trn_fail(err, TRN_ERR_ARGUMENT, "tensor '%s' has no data", tensor->name);
    return TRN_OK;
}

static trn_status check_names(const trn_weight_data *tensors, size_t count, trn_error *err)
{
    trn_names names = {0};
    trn_status status = TRN_OK;
    if (!trn_names_reserve(&names, count))
        return trn_fail_memory(err, count * sizeof(trn_name_slot), "names");
    for (size_t i = 0; status == TRN_OK && i < count; i++)
        if (!trn_names_put(&names, tensors[i].name, i))
            status = trn_fail(err, TRN_ERR_ARGUMENT, "tensor '%s' is there twice", tensors[i].name);
    trn_names_drop(&names);
    return status;
}

static void add_metadata(trn_text *header, const char *const *metadata)
{
    trn_text_add(header, "\"__metadata__\":{");
    for (size_t i = 0; metadata[i] && metadata[i + 1]; i += 2) {
        if (i) trn_text_add(header, ",");
        trn_text_json(header, metadata[i]);
        trn_text_add(header, ":");
        trn_text_json(header, metadata[i + 1]);
    }
    trn_text_add(header, "}");
}

static trn_status make_header(const trn_weight_data *tensors, size_t count, const char *const *metadata,
                              trn_text *header, trn_error *err)
{
    size_t offset = 0;
    char shape[TRN_SHAPE_TEXT];
    trn_text_add(header, "{");
    if (metadata) add_metadata(header, metadata);
    for (size_t i = 0; i < count; i++) {
        size_t bytes, end;
        trn_status status = check_tensor(&tensors[i], &bytes, err);
        if (status != TRN_OK) return status;
        if (!trn_add_size(offset, bytes, &end))
            return trn_fail(err, TRN_ERR_ARGUMENT, "the tensors are too large");
        if (i || metadata) trn_text_add(header, ",");
        trn_text_json(header, tensors[i].name);
        trn_text_printf(header, ":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                        trn_weight_shape_text(tensors[i].shape, tensors[i].ndim, shape), offset, end);
        offset = end;
    }
    trn_text_add(header, "}");
    while (header->length % 8 && !header->failed)
        trn_text_add(header, " ");
    return header->failed ? trn_fail_memory(err, header->length, "the header")
                          : check_names(tensors, count, err);
}

static bool write_all(FILE *file, const trn_text *header, const trn_weight_data *tensors, size_t count)
{
    uint64_t length = header->length;
    if (fwrite(&length, sizeof length, 1, file) != 1 || fwrite(header->data, header->length, 1, file) != 1)
        return false;
    for (size_t i = 0; i < count; i++) {
        int64_t n = 0;
        if (!trn_weight_shape_count(tensors[i].shape, tensors[i].ndim, &n)) return false;
        if (n && fwrite(tensors[i].data, sizeof(float), (size_t)n, file) != (size_t)n) return false;
    }
    return true;
}

trn_status trn_weights_write(const char *path, const trn_weight_data *tensors, size_t count,
                             const char *const *metadata, trn_error *err)
{
    trn_text header = {0};
    trn_output *output = NULL;
    FILE *file = NULL;
    trn_status status = make_header(tensors, count, metadata, &header, err);
    if (status != TRN_OK) goto fail;
    status = trn_output_create(path, &output, err);
    if (status != TRN_OK) goto fail;
    file = fopen(trn_output_path(output), "wb");
    if (!file || !write_all(file, &header, tensors, count) || fflush(file)) {
        status = trn_fail_errno(err, "write", trn_output_path(output));
        goto fail;
    }
    int closed = fclose(file);
    file = NULL;
    if (closed) {
        status = trn_fail_errno(err, "write", trn_output_path(output));
        goto fail;
    }
    trn_text_free(&header);
    return trn_output_commit(output, err);
fail:
    if (file) fclose(file);
    trn_output_abandon(output);
    trn_text_free(&header);
    trn_wrap(err, "writing weights '%s'", path);
    return status;
}
