/* Keeping encoders: what makes one the same as another, and its weights written so that they load again. */
#include "models_private.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

trn_weight_data *trn_wanted_tensors(const trn_wanted *wanted, size_t count)
{
    trn_weight_data *tensors = calloc(count + 1, sizeof *tensors);
    for (size_t i = 0; tensors && i < count; i++) {
        const trn_shape *shape = &wanted[i].shape;
        tensors[i] = (trn_weight_data){.name = wanted[i].name, .ndim = shape->ndim};
        memcpy(tensors[i].shape, shape->dim, (size_t)shape->ndim * sizeof shape->dim[0]);
    }
    return tensors;
}

/* ---- identity ---- */

static trn_status hash_tensor(const trn_encoder *encoder, const trn_wanted *wanted, trn_sha256_state *hash,
                              trn_error *err)
{
    size_t bytes;
    char shape[128];
    if (!trn_mul_size((size_t)trn_shape_count(&wanted->shape), sizeof(float), &bytes))
        return trn_fail_memory(err, SIZE_MAX, wanted->name);
    float *values = malloc(bytes + 1);
    if (!values) return trn_fail_memory(err, bytes, wanted->name);
    trn_status status =
        trn_weights_read(encoder->weights, wanted->name, wanted->shape.dim, wanted->shape.ndim, values, err);
    if (status == TRN_OK) {
        trn_sha256_update(hash, wanted->name, strlen(wanted->name) + 1);
        trn_shape_text(&wanted->shape, shape);
        trn_sha256_update(hash, shape, strlen(shape) + 1);
        trn_sha256_update(hash, values, bytes);
    }
    free(values);
    return status;
}

static trn_status hash_weights(trn_encoder *encoder, trn_sha256_state *hash, trn_error *err)
{
    trn_wanted *wanted = NULL;
    size_t count = 0;
    if (!encoder->weights) return TRN_OK;
    trn_status status = trn_encoder_wanted(encoder, &wanted, &count, err);
    for (size_t i = 0; status == TRN_OK && i < count; i++)
        status = hash_tensor(encoder, &wanted[i], hash, err);
    free(wanted);
    return status;
}

trn_status trn_encoder_identify(trn_encoder *encoder, trn_sha256_state *hash, trn_error *err)
{
    trn_text text = {0};
    trn_text_printf(&text, "%s%s\n", encoder->spec.name, encoder->masked ? " with its decoder" : "");
    trn_encoder_describe(encoder, &text);
    for (size_t i = 0; i < trn_encoder_channel_count(encoder); i++)
        trn_text_printf(&text, "band %d\n", trn_encoder_channel_band(encoder, i));
    for (size_t i = 0; i < encoder->spec.band_count; i++)
        trn_text_printf(&text, "%s %a %a\n", encoder->spec.bands[i].name, encoder->spec.bands[i].mean,
                        encoder->spec.bands[i].std);
    for (size_t i = 0; encoder->dates && i < encoder->date_count; i++)
        trn_text_printf(&text, "date %d-%d-%d\n", encoder->dates[i].year, encoder->dates[i].month,
                        encoder->dates[i].day);
    bool failed = text.failed;
    trn_sha256_update(hash, trn_text_get(&text), text.length + 1);
    trn_text_free(&text);
    if (failed) return trn_fail_memory(err, text.capacity, "the identity of an encoder");
    if (encoder->fit_channels) trn_sha256_update(hash, encoder->fit_digest, sizeof encoder->fit_digest);
    return hash_weights(encoder, hash, err);
}

/* Number of the block that a part of a name says, or -1. */
static int block_number(const char *name)
{
    for (const char *part = name; part; part = strchr(part, '.')) {
        part += *part == '.';
        bool numbered = trn_starts_with(part, "blocks.") || trn_starts_with(part, "layers.");
        if (numbered && isdigit((unsigned char)part[7])) return (int)strtol(part + 7, NULL, 10);
    }
    return -1;
}

trn_status trn_encoder_depth(trn_encoder *encoder, int *depth, trn_error *err)
{
    trn_wanted *wanted = NULL;
    size_t count = 0;
    *depth = 0;
    if (!encoder->weights) return TRN_OK;
    trn_status status = trn_encoder_wanted(encoder, &wanted, &count, err);
    for (size_t i = 0; status == TRN_OK && i < count; i++)
        *depth = TRN_MAX(*depth, block_number(wanted[i].name) + 1);
    free(wanted);
    return status;
}

/* ---- saving ---- */

typedef struct saving {
    const trn_encoder *encoder;
    const trn_encoder_save_options *options;
} saving;

static trn_status fill_saved(void *user, const trn_weight_data *tensor, float *out, trn_error *err)
{
    const saving *s = user;
    bool given = false;
    trn_shape shape = {.ndim = tensor->ndim};
    for (int d = 0; d < tensor->ndim; d++)
        shape.dim[d] = tensor->shape[d];
    if (s->options->fill) {
        trn_status status = s->options->fill(s->options->user, tensor->name, &shape, out, &given, err);
        if (status != TRN_OK) return status;
    }
    if (given) return TRN_OK;
    return trn_weights_read(s->encoder->weights, tensor->name, tensor->shape, tensor->ndim, out, err);
}

trn_status trn_encoder_save(trn_encoder *encoder, const char *path, const trn_encoder_save_options *options,
                            trn_error *err)
{
    static const trn_encoder_save_options none;
    saving s = {encoder, options ? options : &none};
    trn_write_options write = {.metadata = s.options->metadata, .fill = fill_saved, .user = &s};
    trn_wanted *wanted = NULL;
    trn_weight_data *tensors = NULL;
    size_t count = 0;
    if (!encoder->weights)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' has no weights to save", encoder->spec.name);
    trn_status status = trn_encoder_wanted(encoder, &wanted, &count, err);
    if (status != TRN_OK) return status;
    tensors = trn_wanted_tensors(wanted, count);
    status = tensors ? trn_weights_write(path, tensors, count, &write, err)
                     : trn_fail_memory(err, count * sizeof *tensors, "a list of tensors");
    free(tensors);
    free(wanted);
    return status;
}
