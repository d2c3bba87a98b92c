/* The bands of DOFA: any, as long as each has a wavelength. Where wavelengths come from, and what the model
 * was trained to expect of the values of the bands it saw. */
#include "dofa.h"

#include <math.h>
#include <string.h>

enum { MAX_BANDS = 512 };
/* Whoever gives 665 means nanometres. */
static const double longest_um = 100;
static const double longest_optical_um = 3;
/* Two bands this close are the same band of two sensors. */
static const double same_band_um = 0.01;

typedef struct known_band {
    const char *name;
    double wavelength_um;
    double mean, std; /* of bytes; std 0: not known */
} known_band;

/* Wavelengths as the authors of DOFA give them. Radar has none: its number is the frequency in GHz, which the
 * model was trained with. Statistics are of Sentinel-2 and Sentinel-1 scaled to bytes. */
static const known_band known_bands[] = {
    {"coastal", 0.44, 0, 0},
    {"blue", 0.49, 126.63977424, 67.42465279},
    {"green", 0.56, 114.81779093, 69.96844919},
    {"red", 0.665, 114.1099739, 77.84352553},
    {"rededge1", 0.705, 84.33539309, 64.57022983},
    {"rededge2", 0.74, 97.84789168, 61.72545487},
    {"rededge3", 0.783, 103.94461911, 61.34187099},
    {"nir", 0.842, 101.435633, 60.29744676},
    {"nir08", 0.864, 0, 0},
    {"nir09", 0.945, 0, 0},
    {"cirrus", 1.373, 0, 0},
    {"swir16", 1.61, 72.32804172, 47.88519516},
    {"swir22", 2.19, 56.66528851, 42.55886798},
    {"lwir11", 10.9, 0, 0},
    {"lwir12", 12.0, 0, 0},
    {"vv", 5.405, 166.36275909, 64.83126309},
    {"vh", 5.405, 88.45542715, 43.07350145},
    {"hh", 5.405, 0, 0},
    {"hv", 5.405, 0, 0},
};
/* Of aerial images of red, green and blue alone: ImageNet's. */
static const known_band colours[] = {
    {"red", 0, 123.675, 58.395}, {"green", 0, 116.28, 57.12}, {"blue", 0, 103.53, 57.375}};

static const known_band *find_name(const known_band *bands, size_t count, const char *name)
{
    const char *common = name ? trn_band_common(name) : NULL;
    for (size_t i = 0; common && i < count; i++)
        if (!strcmp(bands[i].name, common)) return &bands[i];
    return NULL;
}

static const known_band *by_name(const char *name)
{
    return find_name(known_bands, TRN_COUNT(known_bands), name);
}

/* The nearest optical band of known statistics, for bands whose name says nothing. */
static const known_band *by_wavelength(double um)
{
    const known_band *nearest = NULL;
    double least = same_band_um;
    for (size_t i = 0; i < TRN_COUNT(known_bands); i++) {
        double apart = fabs(known_bands[i].wavelength_um - um);
        if (!(known_bands[i].std > 0) || known_bands[i].wavelength_um > longest_optical_um) continue;
        if (apart > least || (nearest && apart >= least)) continue;
        nearest = &known_bands[i];
        least = apart;
    }
    return nearest;
}

static const char *name_of(const trn_band_offer *band)
{
    return band->name ? band->name : "(unnamed)";
}

/* ---- wavelengths ---- */

trn_status trn_dofa_configure_bands(trn_encoder *encoder, trn_error *err)
{
    trn_dofa_state *state = encoder->state;
    double numbers[MAX_BANDS];
    size_t count = 1;
    if (trn_encoder_is_auto(encoder, DOFA_WAVELENGTHS)) return TRN_OK;
    for (const char *c = trn_encoder_text(encoder, DOFA_WAVELENGTHS); *c; c++)
        count += *c == ',';
    if (count > MAX_BANDS)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': setting wavelengths is of %zu bands; at most %d", encoder->spec.name,
                        count, MAX_BANDS);
    trn_status status = trn_encoder_numbers(encoder, DOFA_WAVELENGTHS, true, numbers, count, err);
    if (status != TRN_OK) return status;
    float *wavelengths = trn_arena_array(encoder->arena, count, sizeof *wavelengths);
    if (!wavelengths) return trn_fail_memory(err, count * sizeof *wavelengths, "wavelengths");
    for (size_t i = 0; i < count; i++) {
        if (!(numbers[i] <= longest_um))
            return trn_fail(
                err, TRN_ERR_ARGUMENT,
                "encoder '%s': a wavelength of %g in setting wavelengths: give micrometres (0.665 "
                "for red, 5.405 for radar)",
                encoder->spec.name, numbers[i]);
        wavelengths[i] = (float)numbers[i];
    }
    state->wavelengths = wavelengths;
    state->wavelength_count = count;
    encoder->image_channels = (int)count;
    return TRN_OK;
}

static trn_status fail_wavelengths(const trn_encoder *encoder, const char *bands, trn_error *err)
{
    return trn_fail(
        err, TRN_ERR_ARGUMENT,
        "encoder '%s' needs the wavelength of every band, and that of %s is not known: leave such "
        "bands out, say what they are by a sensor or by names such as red or vv, or give all "
        "wavelengths in micrometres in the setting wavelengths",
        encoder->spec.name, bands);
}

/* Of the scene's own bands: by the sensor, then by name. */
static trn_status find_wavelengths(const trn_encoder *encoder, const trn_band_offer *scene, size_t count,
                                   float *out, trn_error *err)
{
    trn_text missing = {0};
    for (size_t i = 0; i < count; i++) {
        const known_band *known = by_name(scene[i].name);
        double um = scene[i].wavelength_um > 0 ? scene[i].wavelength_um : known ? known->wavelength_um : 0;
        out[i] = (float)um;
        if (um > 0 && um <= longest_um) continue;
        trn_text_printf(&missing, "%s'%s'", missing.length ? ", " : "", name_of(&scene[i]));
    }
    trn_status status = missing.length ? fail_wavelengths(encoder, trn_text_get(&missing), err) : TRN_OK;
    trn_text_free(&missing);
    return status;
}

static trn_status settle_wavelengths(trn_encoder *encoder, const trn_band_offer *scene, size_t count,
                                     trn_error *err)
{
    trn_dofa_state *state = encoder->state;
    if (!trn_encoder_is_auto(encoder, DOFA_WAVELENGTHS)) {
        if (state->wavelength_count == count) return TRN_OK;
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': setting wavelengths is of %zu bands, and the image has %zu: give one "
                        "per band, or choose %zu of the bands",
                        encoder->spec.name, state->wavelength_count, count, state->wavelength_count);
    }
    float *wavelengths = trn_arena_array(encoder->arena, count, sizeof *wavelengths);
    if (!wavelengths) return trn_fail_memory(err, count * sizeof *wavelengths, "wavelengths");
    trn_status status = find_wavelengths(encoder, scene, count, wavelengths, err);
    if (status != TRN_OK) return status;
    state->wavelengths = wavelengths;
    state->wavelength_count = count;
    return TRN_OK;
}

/* ---- statistics ---- */

/* Red, green and blue, and nothing else: most likely no satellite's. */
static bool only_colours(const trn_encoder_band *bands, size_t count)
{
    unsigned seen = 0;
    for (size_t i = 0; i < count; i++) {
        const known_band *colour = find_name(colours, TRN_COUNT(colours), bands[i].name);
        if (!colour) return false;
        seen |= 1u << (colour - colours);
    }
    return count == TRN_COUNT(colours) && seen == 7;
}

/* near tells of bands that only their wavelength speaks for. */
static const known_band *statistics_of(const trn_encoder_band *band, double wavelength, bool colour,
                                       trn_text *near)
{
    if (colour) return find_name(colours, TRN_COUNT(colours), band->name);
    if (trn_band_common(band->name)) return by_name(band->name);
    const known_band *known = by_wavelength(wavelength);
    if (known) trn_text_printf(near, "%s%s as %s", near->length ? ", " : "", band->name, known->name);
    return known;
}

static void fill_known(const trn_encoder *encoder, trn_encoder_band *bands, size_t count, trn_text *notes)
{
    const trn_dofa_state *state = encoder->state;
    bool colour = only_colours(bands, count);
    trn_text near = {0};
    for (size_t i = 0; i < count; i++) {
        const known_band *known = statistics_of(&bands[i], (double)state->wavelengths[i], colour, &near);
        bands[i].mean = known ? known->mean : 0;
        bands[i].std = known ? known->std : 0;
    }
    if (near.length && notes)
        trn_text_printf(notes, "%s: the model's statistics, where they are used, go by wavelength: %s\n",
                        encoder->spec.name, trn_text_get(&near));
    trn_text_free(&near);
}

static trn_status fill_given(const trn_encoder *encoder, trn_encoder_band *bands, size_t count,
                             trn_error *err)
{
    double *values = trn_arena_array(encoder->arena, count, sizeof *values);
    if (!values) return trn_fail_memory(err, count * sizeof *values, "statistics");
    if (!trn_encoder_is_auto(encoder, DOFA_MEAN)) {
        trn_status status = trn_encoder_numbers(encoder, DOFA_MEAN, false, values, count, err);
        if (status != TRN_OK) return status;
        for (size_t i = 0; i < count; i++)
            bands[i].mean = values[i];
    }
    if (trn_encoder_is_auto(encoder, DOFA_STD)) return TRN_OK;
    trn_status status = trn_encoder_numbers(encoder, DOFA_STD, true, values, count, err);
    if (status != TRN_OK) return status;
    for (size_t i = 0; i < count; i++)
        bands[i].std = values[i];
    return TRN_OK;
}

/* Means and deviations; state->unknown is the first band that lacks them. */
static trn_status settle_statistics(trn_encoder *encoder, trn_encoder_band *bands, size_t count,
                                    trn_text *notes, trn_error *err)
{
    trn_dofa_state *state = encoder->state;
    bool given = !trn_encoder_is_auto(encoder, DOFA_MEAN) && !trn_encoder_is_auto(encoder, DOFA_STD);
    state->unknown = NULL;
    if (!given && encoder->spec.unit == TRN_UNIT_BYTE) fill_known(encoder, bands, count, notes);
    for (size_t i = count; i-- > 0 && !given;) /* one of two numbers is of no use for an unknown band */
        if (!(bands[i].std > 0)) state->unknown = bands[i].name;
    return fill_given(encoder, bands, count, err);
}

/* ---- the choice ---- */

trn_status trn_dofa_choose_bands(trn_encoder *encoder, const trn_band_offer *scene, size_t scene_count,
                                 int *index, size_t max, size_t *count, trn_text *notes, trn_error *err)
{
    size_t most = TRN_MIN(max, (size_t)MAX_BANDS);
    if (!scene_count || scene_count > most)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' takes 1 to %zu bands, and the scene has %zu",
                        encoder->spec.name, most, scene_count);
    trn_status status = settle_wavelengths(encoder, scene, scene_count, err);
    if (status != TRN_OK) return status;
    trn_encoder_band *bands = trn_arena_array(encoder->arena, scene_count, sizeof *bands);
    if (!bands) return trn_fail_memory(err, scene_count * sizeof *bands, "bands");
    for (size_t i = 0; i < scene_count; i++) {
        index[i] = (int)i;
        bands[i] = (trn_encoder_band){.name = trn_arena_strdup(encoder->arena, name_of(&scene[i])),
                                      .group = -1,
                                      .unit = encoder->spec.unit,
                                      .value_scale = 1};
        if (!bands[i].name) return trn_fail_memory(err, 1, "the name of a band");
    }
    status = settle_statistics(encoder, bands, scene_count, notes, err);
    if (status != TRN_OK) return status;
    encoder->spec.bands = bands;
    encoder->spec.band_count = *count = scene_count;
    return TRN_OK;
}
