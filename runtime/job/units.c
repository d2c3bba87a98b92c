/* Units: from the numbers of a scene to the values an encoder was made for, and noticing when they cannot be
 * those. */
#include "job_private.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *job_unit_name(trn_unit unit)
{
    switch (unit) {
    case TRN_UNIT_REFLECTANCE:
        return "reflectance";
    case TRN_UNIT_DECIBEL:
        return "decibel";
    case TRN_UNIT_BYTE:
        return "byte";
    case TRN_UNIT_KELVIN:
        return "kelvin";
    case TRN_UNIT_ANY:
        break;
    }
    return "unknown unit";
}

static bool own_scale(const trn_scene_band *band)
{
    return band->scale != 1 || band->offset != 0;
}

static trn_unit scene_unit(const job_plan *plan)
{
    if (plan->job->scene.has_scale) return plan->job->scene.unit;
    return plan->sensor ? plan->sensor->unit : TRN_UNIT_ANY;
}

static bool all_bytes(const job_plan *plan, const planned_encoder *member)
{
    for (size_t c = 0; c < member->channel_count; c++) {
        const trn_scene_band *band = &plan->info->bands[plan->bands[member->channels[c]]];
        if (band->type != TRN_SAMPLE_U8 || own_scale(band)) return false;
    }
    return true;
}

/* physical = value as read * scale + offset. A scale of the job replaces what file and sensor say; the file's
 * own scale, which reading has applied, replaces the sensor's. */
static void to_physical(const job_plan *plan, const trn_scene_band *band, double *scale, double *offset)
{
    const trn_job_scene *scene = &plan->job->scene;
    *scale = 1;
    *offset = 0;
    if (scene->has_scale) {
        *scale = scene->scale / band->scale;
        *offset = scene->offset - band->offset * *scale;
    } else if (plan->sensor && !own_scale(band)) {
        *scale = plan->sensor->scale;
        *offset = plan->sensor->offset;
    }
}

/* Whether the values may be multiplied by the encoder's value_scale: they are in its unit. */
static trn_status match_units(const job_plan *plan, const planned_encoder *member, bool *same, trn_error *err)
{
    const trn_encoder_spec *spec = member->spec;
    trn_unit have = scene_unit(plan);
    if (have == TRN_UNIT_ANY && !plan->job->scene.has_scale && all_bytes(plan, member)) {
        if (spec->unit == TRN_UNIT_BYTE) have = TRN_UNIT_BYTE;
    }
    *same = have == spec->unit;
    if (*same || member->wish->normalize != TRN_NORMALIZE_MODEL) return TRN_OK;
    if (have == TRN_UNIT_ANY)
        return job_plan_warn(
            plan, err,
            "encoder '%s' was made for %s values, and the unit of the scene's numbers is not known: they "
            "are fed as they are; give the sensor, or a scale and a unit",
            spec->name, job_unit_name(spec->unit));
    return trn_fail(
        err, TRN_ERR_ARGUMENT,
        "encoder '%s' wants %s values, but the scene's numbers are %s: give a scale, an offset and the unit "
        "%s, or normalise by z-score",
        spec->name, job_unit_name(spec->unit), job_unit_name(have), job_unit_name(spec->unit));
}

/* What the encoder wants of one channel: its own band's unit and scale, which differ from the encoder's where
 * radar stands beside optical bands. */
typedef struct wanted_values {
    trn_unit unit;
    double scale;
} wanted_values;

static wanted_values wanted_of(const job_plan *plan, const planned_encoder *member, size_t channel)
{
    const trn_encoder_spec *spec = member->spec;
    const char *name = plan->common_names[plan->bands[member->channels[channel]]];
    wanted_values wanted = {spec->unit, spec->value_scale != 0 ? spec->value_scale : 1};
    for (size_t i = 0; i < spec->band_count; i++) {
        const trn_encoder_band *band = &spec->bands[i];
        if (strcmp(band->name, name) != 0) continue;
        return (wanted_values){band->unit, band->value_scale != 0 ? band->value_scale : 1};
    }
    return wanted;
}

/* One channel's scale and offset. `same`: the scene's numbers are in the encoder's unit. A band of another
 * unit than the encoder's is fed as it is read, unless the scene is in that unit. */
static void plan_channel(const job_plan *plan, planned_encoder *member, size_t c, bool same)
{
    wanted_values wanted = wanted_of(plan, member, c);
    double scale = 1, offset = 0, factor = 1;
    bool main_unit = wanted.unit == member->spec->unit;
    if (wanted.unit != TRN_UNIT_ANY && (main_unit || wanted.unit == scene_unit(plan)))
        to_physical(plan, &plan->info->bands[plan->bands[member->channels[c]]], &scale, &offset);
    if (wanted.unit != TRN_UNIT_ANY && (same || !main_unit)) factor = wanted.scale;
    member->scale[c] = (float)(scale * factor);
    member->offset[c] = (float)(offset * factor);
    if (member->scale[c] != 1 || member->offset[c] != 0) member->converts = true;
}

static trn_status plan_member(job_plan *plan, planned_encoder *member, trn_error *err)
{
    const trn_encoder_spec *spec = member->spec;
    size_t n = member->channel_count;
    member->scale = trn_arena_array(plan->arena, n, sizeof(float));
    member->offset = trn_arena_array(plan->arena, n, sizeof(float));
    if (!member->scale || !member->offset) return trn_fail_memory(err, n * sizeof(float), "band scales");
    bool same = true;
    trn_status status = spec->unit == TRN_UNIT_ANY ? TRN_OK : match_units(plan, member, &same, err);
    if (status != TRN_OK) return status;
    for (size_t c = 0; c < n; c++)
        plan_channel(plan, member, c, same);
    return TRN_OK;
}

trn_status job_units_plan(job_plan *plan, trn_error *err)
{
    const trn_job_scene *scene = &plan->job->scene;
    if (scene->has_scale && (!isfinite(scene->scale) || scene->scale == 0 || !isfinite(scene->offset)))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "the scene's scale is %g and its offset %g; wanted finite numbers, scale "
                        "not 0",
                        scene->scale, scene->offset);
    for (size_t i = 0; i < plan->band_count; i++) {
        const trn_scene_band *band = &plan->info->bands[plan->bands[i]];
        if (!isfinite(band->scale) || band->scale == 0 || !isfinite(band->offset))
            return trn_fail(err, TRN_ERR_FORMAT, "'%s', band '%s': its scale %g and offset %g cannot be used",
                            band->file, band->name, band->scale, band->offset);
    }
    for (size_t i = 0; i < plan->encoder_count; i++) {
        trn_status status =
            job_blame(plan->hooks, plan_member(plan, &plan->encoders[i], err), TRN_JOB_ENCODER, i);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}

/* ---- ranges ---- */

typedef struct band_range {
    double low, high, mean;
} band_range;

static band_range measure(const job_plan *plan, const planned_encoder *member, size_t channel,
                          const job_samples *samples)
{
    size_t area = (size_t)samples->side * (size_t)samples->side, first, end;
    band_range range = {.low = DBL_MAX, .high = -DBL_MAX};
    job_member_dates(plan, member, &first, &end);
    size_t dates = end - first, windows = samples->count * dates;
    for (size_t w = 0; w < windows; w++) {
        const float *values = job_sample(samples, w / dates, first + w % dates, member->channels[channel]);
        for (size_t i = 0; i < area; i++) {
            double value =
                (double)values[i] * (double)member->scale[channel] + (double)member->offset[channel];
            range.low = TRN_MIN(range.low, value);
            range.high = TRN_MAX(range.high, value);
            range.mean += value / ((double)area * (double)windows);
        }
    }
    return range;
}

/* What values of a unit can be; NULL when they can be that. */
static const char *impossible(trn_unit unit, double low, double high)
{
    switch (unit) {
    case TRN_UNIT_REFLECTANCE:
        if (high > 5) return "reflectance is rarely above 1: is a scale missing?";
        if (high < 0.03) return "hardly any ground is that dark: is the scale too small, or are these bytes?";
        break;
    case TRN_UNIT_BYTE:
        if (high <= 1.5) return "bytes go to 255: are these reflectances?";
        if (high > 512 || low < -256) return "bytes go from 0 to 255: is a scale missing?";
        break;
    case TRN_UNIT_DECIBEL:
        if (low > 0 || high > 100) return "backscatter in decibel is mostly negative: is this linear power?";
        break;
    case TRN_UNIT_KELVIN:
        if (high < 100 || low > 400) return "ground is between 200 and 350 kelvin";
        break;
    case TRN_UNIT_ANY:
        break;
    }
    return NULL;
}

/* One warning for the bands of one unit, from `first` on, when together they are out of range. */
static trn_status check_unit(const job_plan *plan, const planned_encoder *member, size_t first,
                             const job_samples *samples, trn_error *err)
{
    const trn_encoder_spec *spec = member->spec;
    wanted_values wanted = wanted_of(plan, member, first);
    double factor = wanted.scale, low = DBL_MAX, high = -DBL_MAX;
    size_t brightest = first;
    for (size_t c = first; c < member->channel_count; c++) {
        if (wanted_of(plan, member, c).unit != wanted.unit) continue;
        band_range range = measure(plan, member, c, samples);
        low = TRN_MIN(low, range.low);
        if (range.high > high) {
            high = range.high;
            brightest = c;
        }
    }
    const char *why = impossible(wanted.unit, low / factor, high / factor);
    if (!why) return TRN_OK;
    const char *band = plan->common_names[plan->bands[member->channels[brightest]]];
    return job_plan_warn(
        plan, err,
        "encoder '%s' wants %s values times %g, and gets %.6g to %.6g (sampled; highest in band '%s'): %s",
        spec->name, job_unit_name(wanted.unit), factor, low, high, band, why);
}

static trn_status check_member(const job_plan *plan, const planned_encoder *member,
                               const job_samples *samples, trn_error *err)
{
    for (size_t c = 0; c < member->channel_count; c++) {
        size_t before = 0;
        while (before < c && wanted_of(plan, member, before).unit != wanted_of(plan, member, c).unit)
            before++;
        if (before < c) continue; /* its unit was checked */
        trn_status status = check_unit(plan, member, c, samples, err);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}

trn_status job_units_check_range(const job_plan *plan, const job_samples *samples, trn_error *err)
{
    for (size_t i = 0; i < plan->encoder_count && samples->count; i++) {
        const planned_encoder *member = &plan->encoders[i];
        if (member->spec->unit == TRN_UNIT_ANY || member->wish->normalize != TRN_NORMALIZE_MODEL) continue;
        trn_status status =
            job_blame(plan->hooks, check_member(plan, member, samples, err), TRN_JOB_ENCODER, i);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}
