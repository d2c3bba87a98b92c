/* Images of a few bands that have means and deviations: what plain vision encoders want. */
#include "models_private.h"

#include <string.h>

trn_status trn_encoder_numbers(const trn_encoder *encoder, size_t setting, bool positive, double *values,
                               size_t count, trn_error *err)
{
    enum { MAX_NUMBERS = 512 };
    const char *text = trn_encoder_text(encoder, setting), *parts[MAX_NUMBERS];
    int n = trn_settings_list(encoder->arena, text, parts, MAX_NUMBERS);
    bool ok = n >= 0 && (size_t)n == count;
    for (size_t i = 0; ok && i < count; i++)
        ok = trn_parse_double(parts[i], &values[i]) && (!positive || values[i] > 0);
    if (ok) return TRN_OK;
    return trn_fail(
        err, TRN_ERR_ARGUMENT, "encoder '%s': setting %s=%s must be %zu %snumbers, separated by commas",
        encoder->spec.name, encoder->family->settings[setting].key, text, count, positive ? "positive " : "");
}

/* Means or deviations of the bands. */
static trn_status read_statistics(const trn_encoder *encoder, size_t setting, const double *imagenet,
                                  bool positive, double *values, size_t count, trn_error *err)
{
    for (size_t i = 0; i < count; i++)
        values[i] = imagenet ? imagenet[i] : (double)positive;
    return trn_encoder_is_auto(encoder, setting)
               ? TRN_OK
               : trn_encoder_numbers(encoder, setting, positive, values, count, err);
}

static int read_band_names(const trn_encoder *encoder, const trn_image_band_settings *where,
                           const char **names)
{
    static const char *const rgb[] = {"red", "green", "blue"};
    if (!trn_encoder_is_auto(encoder, where->bands))
        return trn_settings_list(encoder->arena, trn_encoder_text(encoder, where->bands), names,
                                 TRN_MAX_IMAGE_BANDS);
    if (trn_encoder_int(encoder, where->in_chans) != 3) return 0;
    memcpy(names, rgb, sizeof rgb);
    return 3;
}

static trn_status set_bands(trn_encoder *encoder, const char *const *names, const double *mean,
                            const double *std, size_t count, trn_error *err)
{
    trn_encoder_band *bands = trn_arena_array(encoder->arena, count, sizeof *bands);
    if (!bands) return trn_fail_memory(err, count * sizeof *bands, "bands");
    for (size_t i = 0; i < count; i++)
        bands[i] = (trn_encoder_band){names[i], -1, mean[i], std[i], encoder->spec.unit, 1};
    encoder->spec.bands = bands;
    encoder->spec.band_count = count;
    return TRN_OK;
}

trn_status trn_configure_image_bands(trn_encoder *encoder, const trn_image_band_settings *where,
                                     trn_error *err)
{
    static const trn_unit units[] = {TRN_UNIT_BYTE, TRN_UNIT_REFLECTANCE, TRN_UNIT_ANY};
    static const double imagenet_mean[] = {123.675, 116.28, 103.53}, imagenet_std[] = {58.395, 57.12, 57.375};
    size_t channels = (size_t)trn_encoder_int(encoder, where->in_chans);
    const char *names[TRN_MAX_IMAGE_BANDS];
    double mean[TRN_MAX_IMAGE_BANDS], std[TRN_MAX_IMAGE_BANDS];
    int named = read_band_names(encoder, where, names);
    if (named < 0 || (named > 0 && (size_t)named != channels))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': setting bands=%s must name %zu bands (in_chans)", encoder->spec.name,
                        trn_encoder_text(encoder, where->bands), channels);
    trn_unit unit = units[trn_encoder_int(encoder, where->unit)];
    bool imagenet = named == 3 && trn_encoder_is_auto(encoder, where->bands) && unit == TRN_UNIT_BYTE;
    trn_status status =
        read_statistics(encoder, where->mean, imagenet ? imagenet_mean : NULL, false, mean, channels, err);
    if (status == TRN_OK)
        status =
            read_statistics(encoder, where->std, imagenet ? imagenet_std : NULL, true, std, channels, err);
    if (status != TRN_OK) return status;
    encoder->image_channels = (int)channels;
    encoder->spec.unit = named ? unit : TRN_UNIT_ANY;
    if (named) return set_bands(encoder, names, mean, std, channels, err);
    if (trn_encoder_is_auto(encoder, where->mean) && trn_encoder_is_auto(encoder, where->std)) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "encoder '%s': mean and std are of named bands: name them in the setting 'bands'",
                    encoder->spec.name);
}
