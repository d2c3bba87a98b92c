/* Encoders: creating, their settings, dates and places, and what they learn from samples. */
#include "models_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- creating ---- */

static trn_status prepare(trn_encoder *encoder, const char *extra, const trn_setting *given, size_t count,
                          trn_error *err)
{
    const trn_family *family = encoder->family;
    const char *name = encoder->config->info.name;
    encoder->spec.name = name;
    encoder->spec.family = family->name;
    encoder->spec.value_scale = 1;
    encoder->spec.min_dates = encoder->spec.max_dates = 1;
    trn_setting_value *values = trn_arena_array(encoder->arena, family->setting_count + 1, sizeof *values);
    char *configuration = trn_arena_printf(encoder->arena, "%s %s", encoder->config->values, extra);
    if (!values || !configuration) return trn_fail_memory(err, sizeof *values, "an encoder");
    encoder->values = values;
    trn_status status = trn_settings_resolve(encoder->arena, name, family->settings, family->setting_count,
                                             configuration, given, count, values, err);
    if (status == TRN_OK) status = family->configure(encoder, err);
    encoder->usual_unit = encoder->spec.unit;
    encoder->usual_scale = encoder->spec.value_scale;
    return status;
}

trn_status trn_encoder_create_of(const trn_family *family, const trn_model_config *config, const char *extra,
                                 const trn_setting *settings, size_t count, trn_encoder **out, trn_error *err)
{
    *out = NULL;
    trn_encoder *encoder = calloc(1, sizeof *encoder);
    if (encoder) encoder->arena = trn_arena_create();
    if (!encoder || !encoder->arena) {
        trn_encoder_destroy(encoder);
        return trn_fail_memory(err, sizeof *encoder, "an encoder");
    }
    encoder->family = family;
    encoder->config = config;
    trn_status status = prepare(encoder, extra, settings, count, err);
    if (status == TRN_OK)
        *out = encoder;
    else
        trn_encoder_destroy(encoder);
    return status;
}

trn_status trn_encoder_create(const char *name, const trn_setting *settings, size_t count, trn_encoder **out,
                              trn_error *err)
{
    const trn_family *family;
    *out = NULL;
    const trn_model_config *config = trn_model_find(name, &family, err);
    return config ? trn_encoder_create_of(family, config, "", settings, count, out, err) : TRN_ERR_ARGUMENT;
}

void trn_encoder_destroy(trn_encoder *encoder)
{
    if (!encoder) return;
    if (encoder->owns_weights) trn_weights_close(encoder->weights);
    trn_arena_destroy(encoder->arena);
    free(encoder);
}

const trn_encoder_spec *trn_encoder_get_spec(const trn_encoder *encoder)
{
    return &encoder->spec;
}

void trn_encoder_describe(const trn_encoder *encoder, trn_text *out)
{
    for (size_t i = 0; i < encoder->family->setting_count; i++)
        trn_text_printf(out, "%s=%s\n", encoder->family->settings[i].key, encoder->values[i].text);
}

int64_t trn_encoder_int(const trn_encoder *encoder, size_t setting)
{
    return (int64_t)encoder->values[setting].number;
}

double trn_encoder_real(const trn_encoder *encoder, size_t setting)
{
    return encoder->values[setting].number;
}

const char *trn_encoder_text(const trn_encoder *encoder, size_t setting)
{
    return encoder->values[setting].text;
}

bool trn_encoder_is_auto(const trn_encoder *encoder, size_t setting)
{
    return !strcmp(trn_encoder_text(encoder, setting), "auto");
}

/* ---- dates and places ---- */

trn_status trn_encoder_choose_dates(trn_encoder *encoder, size_t count, const trn_date *dates, trn_error *err)
{
    const trn_encoder_spec *spec = &encoder->spec;
    size_t least = (size_t)spec->min_dates, most = (size_t)spec->max_dates;
    if (count < least || count > most) {
        char range[64];
        if (least == most)
            snprintf(range, sizeof range, "%zu date%s", least, least == 1 ? "" : "s");
        else
            snprintf(range, sizeof range, "%zu to %zu dates", least, most);
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' takes %s, and the series has %zu", spec->name,
                        range, count);
    }
    for (size_t t = 0; dates && t < count; t++) {
        const trn_date *d = &dates[t];
        if (d->month >= 1 && d->month <= 12 && d->day_of_year >= 0 && d->day_of_year <= 366) continue;
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "encoder '%s': date %zu has month %d and day of the year %d: trn_date_parse fills all "
            "parts of a date",
            spec->name, t + 1, d->month, d->day_of_year);
    }
    trn_date *copy = dates ? trn_arena_array(encoder->arena, count, sizeof *copy) : NULL;
    if (dates && !copy) return trn_fail_memory(err, count * sizeof *copy, "dates");
    if (copy) memcpy(copy, dates, count * sizeof *copy);
    encoder->date_count = count;
    encoder->dates = copy;
    return TRN_OK;
}

void trn_encoder_encode_location(const trn_encoder *encoder, double latitude, double longitude, float *out)
{
    if (!encoder->family->encode_location) return;
    /* grids that count from 0 to 360 mean the same places */
    if (fabs(longitude) > 180) longitude -= 360 * round(longitude / 360);
    encoder->family->encode_location(encoder, latitude, longitude, out);
}

int64_t trn_encoder_date_count(const trn_encoder *encoder)
{
    return encoder->date_count ? (int64_t)encoder->date_count : encoder->spec.min_dates;
}

trn_tensor *trn_encoder_natural_input(const trn_encoder *encoder, trn_graph *graph, int64_t batch)
{
    int64_t side = encoder->spec.tile, channels = (int64_t)trn_encoder_channel_count(encoder);
    if (encoder->spec.max_dates > 1)
        return trn_input(graph, "image", TRN_F32,
                         TRN_SHAPE(batch, trn_encoder_date_count(encoder), channels, side, side));
    return trn_input(graph, "image", TRN_F32, TRN_SHAPE(batch, channels, side, side));
}

/* ---- fitting ---- */

/* Tells samples apart, in a fraction of the time that hashing each byte well would take: the samples of a
 * scene are tens of megabytes, and learning from them is part of every start. */
static void digest_windows(const float *windows, size_t values, uint8_t digest[32])
{
    enum { CHUNK = 1024 };
    trn_sha256_state hash;
    trn_sha256_begin(&hash);
    trn_sha256_update(&hash, &values, sizeof values);
    for (size_t first = 0; first < values; first += CHUNK) {
        size_t count = TRN_MIN(values - first, (size_t)CHUNK);
        uint64_t mixed = 0, word;
        for (size_t i = 0; i + 1 < count; i += 2) {
            memcpy(&word, windows + first + i, sizeof word);
            mixed = trn_splitmix64(mixed ^ word);
        }
        trn_sha256_update(&hash, &mixed, sizeof mixed);
        if (count % 2) trn_sha256_update(&hash, windows + first + count - 1, sizeof *windows);
    }
    trn_sha256_end(&hash, digest);
}

trn_status trn_encoder_fit(trn_encoder *encoder, const float *windows, size_t count, int channels, int side,
                           trn_error *err)
{
    const char *name = encoder->spec.name;
    if (!encoder->family->fit)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' has nothing to fit to samples", name);
    if (!count || channels < 1 || side < 1)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' cannot be fitted: no sample windows", name);
    if (encoder->chosen && encoder->chosen_count != (size_t)channels)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': samples of %d bands, but %zu bands were chosen",
                        name, channels, encoder->chosen_count);
    trn_status status = encoder->family->fit(encoder, windows, count, channels, side, err);
    size_t values = count * (size_t)channels * (size_t)side * (size_t)side;
    if (status == TRN_OK) digest_windows(windows, values, encoder->fit_digest);
    return status == TRN_OK ? TRN_OK : trn_wrap(err, "encoder '%s'", name);
}
