/* Writing checkpoints: what must hold of the tensors, their values one tensor at a time, the file that
 * appears when all is there; and safetensors, the header in one piece, then the data. */
#include "write.h"

#include <stdlib.h>
#include <string.h>

/* ---- what both containers share ---- */

int64_t trn_write_elements(const trn_weight_data *tensor)
{
    int64_t count = 0;
    return trn_weight_shape_count(tensor->shape, tensor->ndim, &count) ? count : 0;
}

size_t trn_write_bytes(const trn_weight_data *tensor)
{
    return (size_t)trn_write_elements(tensor) * sizeof(float);
}

static trn_status check_tensor(const trn_weight_data *tensor, const trn_write_options *options,
                               trn_error *err)
{
    int64_t count;
    size_t bytes;
    if (!tensor->name || !tensor->name[0] || !strcmp(tensor->name, "__metadata__"))
        return trn_fail(err, TRN_ERR_ARGUMENT, "a tensor needs a name other than '%s'",
                        tensor->name ? tensor->name : "(none)");
    if (tensor->ndim < 0 || tensor->ndim > TRN_WEIGHTS_MAX_DIMS ||
        !trn_weight_shape_count(tensor->shape, tensor->ndim, &count) ||
        !trn_mul_size((size_t)count, sizeof(float), &bytes))
        return trn_fail(err, TRN_ERR_ARGUMENT, "tensor '%s' has an impossible shape", tensor->name);
    if (count && !tensor->data && !options->fill)
        return trn_fail(err, TRN_ERR_ARGUMENT, "tensor '%s' has no data", tensor->name);
    return TRN_OK;
}

static trn_status check_tensors(const trn_weight_data *tensors, size_t count,
                                const trn_write_options *options, trn_error *err)
{
    trn_names names = {0};
    trn_status status = TRN_OK;
    if (!trn_names_reserve(&names, count))
        return trn_fail_memory(err, count * sizeof(trn_name_slot), "names");
    for (size_t i = 0; status == TRN_OK && i < count; i++) {
        status = check_tensor(&tensors[i], options, err);
        if (status == TRN_OK && !trn_names_put(&names, tensors[i].name, i))
            status = trn_fail(err, TRN_ERR_ARGUMENT, "tensor '%s' is there twice", tensors[i].name);
    }
    trn_names_drop(&names);
    return status;
}

trn_status trn_write_values(trn_weights_writer *writer, size_t i, const float **values, trn_error *err)
{
    const trn_weight_data *tensor = &writer->tensors[i];
    const trn_write_options *options = writer->options;
    size_t count = (size_t)trn_write_elements(tensor);
    if (trn_progress_cancelled(options->progress)) return trn_fail_cancelled(err, "writing weights");
    trn_progress_report(options->progress, "writing tensors", i, writer->count);
    *values = tensor->data;
    if (tensor->data || !count) return TRN_OK;
    if (!trn_grow(&writer->buffer, &writer->buffer_capacity, count, sizeof(float)))
        return trn_fail_memory(err, trn_write_bytes(tensor), tensor->name);
    *values = writer->buffer;
    return options->fill(options->user, tensor, writer->buffer, err);
}

trn_status trn_write_file_of(const char *path, const trn_weight_data *tensors, size_t count,
                             const trn_write_options *options,
                             trn_status (*write)(trn_weights_writer *writer, trn_error *err), trn_error *err)
{
    static const trn_write_options defaults;
    trn_weights_writer writer = {tensors, count, options ? options : &defaults, NULL, NULL, 0};
    trn_output *output = NULL;
    trn_status status = check_tensors(tensors, count, writer.options, err);
    if (status != TRN_OK) goto fail;
    status = trn_output_create(path, &output, err);
    if (status != TRN_OK) goto fail;
    writer.file = fopen(trn_output_path(output), "wb");
    status = writer.file ? write(&writer, err) : trn_fail_errno(err, "write", trn_output_path(output));
    if (status != TRN_OK) goto fail;
    int closed = fclose(writer.file);
    writer.file = NULL;
    if (closed) {
        status = trn_fail_errno(err, "write", trn_output_path(output));
        goto fail;
    }
    free(writer.buffer);
    trn_progress_report(writer.options->progress, "writing tensors", count, count);
    return trn_output_commit(output, err);
fail:
    if (writer.file) fclose(writer.file);
    trn_output_abandon(output);
    free(writer.buffer);
    trn_wrap(err, "writing weights '%s'", path);
    return status;
}

/* ---- safetensors ---- */

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

static void add_name(trn_text *header, const char *prefix, const char *name)
{
    trn_text full = {0};
    trn_text_add(&full, prefix ? prefix : "");
    trn_text_add(&full, name);
    trn_text_json(header, trn_text_get(&full));
    header->failed |= full.failed;
    trn_text_free(&full);
}

static trn_status make_header(const trn_weights_writer *writer, trn_text *header, trn_error *err)
{
    const char *const *metadata = writer->options->metadata;
    size_t offset = 0, end;
    char shape[TRN_SHAPE_TEXT];
    trn_text_add(header, "{");
    if (metadata) add_metadata(header, metadata);
    for (size_t i = 0; i < writer->count; i++) {
        const trn_weight_data *tensor = &writer->tensors[i];
        if (!trn_add_size(offset, trn_write_bytes(tensor), &end))
            return trn_fail(err, TRN_ERR_ARGUMENT, "the tensors are too large");
        if (i || metadata) trn_text_add(header, ",");
        add_name(header, writer->options->prefix, tensor->name);
        trn_text_printf(header, ":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                        trn_weight_shape_text(tensor->shape, tensor->ndim, shape), offset, end);
        offset = end;
    }
    trn_text_add(header, "}");
    while (header->length % 8 && !header->failed)
        trn_text_add(header, " ");
    return header->failed ? trn_fail_memory(err, header->length, "the header") : TRN_OK;
}

static trn_status write_safetensors(trn_weights_writer *writer, trn_error *err)
{
    trn_text header = {0};
    trn_status status = make_header(writer, &header, err);
    uint64_t length = header.length;
    if (status == TRN_OK && (fwrite(&length, sizeof length, 1, writer->file) != 1 ||
                             fwrite(header.data, header.length, 1, writer->file) != 1))
        status = trn_fail_errno(err, "write", "the header");
    trn_text_free(&header);
    for (size_t i = 0; status == TRN_OK && i < writer->count; i++) {
        const float *values = NULL;
        size_t bytes = trn_write_bytes(&writer->tensors[i]);
        status = trn_write_values(writer, i, &values, err);
        if (status == TRN_OK && bytes && fwrite(values, bytes, 1, writer->file) != 1)
            status = trn_fail_errno(err, "write", writer->tensors[i].name);
    }
    return status;
}

trn_status trn_weights_write(const char *path, const trn_weight_data *tensors, size_t count,
                             const trn_write_options *options, trn_error *err)
{
    if (options && options->wrapper)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "writing weights '%s': a safetensors file has no wrapper; leave '%s' out", path,
                        options->wrapper);
    return trn_write_file_of(path, tensors, count, options, write_safetensors, err);
}
