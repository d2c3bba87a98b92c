/* Checkpoints made up: the tensors an encoder asks for, with values by the synthetic rule, in the wrapping of
 * the published file. */
#include "models_private.h"

#include <stdlib.h>
#include <string.h>

static trn_status fill_synthetic(void *user, const trn_weight_data *tensor, float *out, trn_error *err)
{
    return trn_weights_read(user, tensor->name, tensor->shape, tensor->ndim, out, err);
}

static trn_status write_tensors(const trn_encoder *encoder, const trn_wanted *wanted, size_t count,
                                const char *path, const trn_progress *progress, trn_error *err)
{
    const trn_model_config *config = encoder->config;
    static const char *const metadata[] = {"format", "pt", NULL};
    trn_write_options options = {.prefix =
                                     encoder->masked ? NULL : config->prefix, /* a pair's names are whole */
                                 .metadata = metadata,
                                 .fill = fill_synthetic,
                                 .user = encoder->weights,
                                 .progress = progress};
    trn_weight_data *tensors = trn_wanted_tensors(wanted, count);
    if (!tensors) return trn_fail_memory(err, count * sizeof *tensors, "a list of tensors");
    trn_status status;
    if (!strcmp(trn_path_extension(path), "safetensors")) {
        status = trn_weights_write(path, tensors, count, &options, err);
    } else {
        options.wrapper = config->wrapper;
        status = trn_weights_write_torch(path, tensors, count, &options, err);
    }
    free(tensors);
    return status;
}

/* The encoder with made-up weights: then it knows which tensors it wants. */
static trn_status prepare(trn_encoder *encoder, trn_error *err)
{
    size_t channels;
    if (!encoder->spec.needs_weights)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' takes no weights", encoder->spec.name);
    trn_status status = trn_encoder_choose_all_bands(encoder, &channels, err);
    trn_weights *weights = NULL;
    if (status == TRN_OK) status = trn_weights_open_synthetic(&weights, err);
    if (status != TRN_OK) return status;
    encoder->owns_weights = true;
    encoder->weights = weights; /* closed with the encoder, also when loading fails */
    return trn_encoder_load(encoder, weights, NULL, err);
}

static bool is_checkpoint_name(const char *path)
{
    static const char *const known[] = {"pt", "pth", "bin", "ckpt", "safetensors"};
    for (size_t i = 0; i < TRN_COUNT(known); i++)
        if (!strcmp(trn_path_extension(path), known[i])) return true;
    return false;
}

typedef trn_status create_function(const char *name, const trn_setting *settings, size_t count,
                                   trn_encoder **out, trn_error *err);

static trn_status write_made_up(create_function *create, const char *name, const trn_setting *settings,
                                size_t count, const char *path, const trn_progress *progress, trn_error *err)
{
    trn_encoder *encoder;
    trn_wanted *wanted = NULL;
    size_t wanted_count = 0;
    if (!is_checkpoint_name(path))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "'%s' does not say which container to write: end it in .safetensors, .pt or .pth",
                        path);
    trn_status status = create(name, settings, count, &encoder, err);
    if (status != TRN_OK) return status;
    status = prepare(encoder, err);
    if (status == TRN_OK) status = trn_encoder_wanted(encoder, &wanted, &wanted_count, err);
    if (status == TRN_OK) status = write_tensors(encoder, wanted, wanted_count, path, progress, err);
    free(wanted);
    trn_encoder_destroy(encoder);
    return status;
}

static trn_status create_as_published(const char *name, const trn_setting *settings, size_t count,
                                      trn_encoder **out, trn_error *err)
{
    const trn_family *family;
    *out = NULL;
    const trn_model_config *config = trn_model_find(name, &family, err);
    if (!config) return TRN_ERR_ARGUMENT;
    return trn_encoder_create_of(family, config, family->made_up ? family->made_up : "", settings, count, out,
                                 err);
}

trn_status trn_model_write_synthetic(const char *name, const trn_setting *settings, size_t count,
                                     const char *path, const trn_progress *progress, trn_error *err)
{
    return write_made_up(create_as_published, name, settings, count, path, progress, err);
}

trn_status trn_masked_write_synthetic(const char *name, const trn_setting *settings, size_t count,
                                      const char *path, const trn_progress *progress, trn_error *err)
{
    return write_made_up(trn_masked_create, name, settings, count, path, progress, err);
}
