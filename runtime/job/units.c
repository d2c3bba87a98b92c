/* Units: from the numbers of a scene to the values an encoder was made for, and noticing when they cannot be
 * those. */
#include "job_private.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

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
    double factor = same && spec->unit != TRN_UNIT_ANY && spec->value_scale != 0 ? spec->value_scale : 1;
    for (size_t c = 0; c < n; c++) {
        double scale = 1, offset = 0;
        if (spec->unit != TRN_UNIT_ANY)
            to_physical(plan, &plan->info->bands[plan->bands[member->channels[c]]], &scale, &offset);
        member->scale[c] = (float)(scale * factor);
        member->offset[c] = (float)(offset * factor);
        if (member->scale[c] != 1 || member->offset[c] != 0) member->converts = true;
    }
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
    size_t area = (size_t)samples->side * (size_t)samples->side;
    band_range range = {.low = DBL_MAX, .high = -DBL_MAX};
    for (size_t w = 0; w < samples->count; w++) {
        const float *values =
            samples->values + (w * plan->band_count + (size_t)member->channels[channel]) * area;
        for (size_t i = 0; i < area; i++) {
            double value =
                (double)values[i] * (double)member->scale[channel] + (double)member->offset[channel];
            range.low = TRN_MIN(range.low, value);
            range.high = TRN_MAX(range.high, value);
            range.mean += value / ((double)area * (double)samples->count);
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

/* One warning per encoder, about the first of its bands that is out of range. */
static trn_status check_member(const job_plan *plan, const planned_encoder *member,
                               const job_samples *samples, trn_error *err)
{
    const trn_encoder_spec *spec = member->spec;
    double factor = spec->value_scale != 0 ? spec->value_scale : 1;
    double low = DBL_MAX, high = -DBL_MAX;
    size_t brightest = 0;
    for (size_t c = 0; c < member->channel_count; c++) {
        band_range range = measure(plan, member, c, samples);
        low = TRN_MIN(low, range.low);
        if (range.high > high) {
            high = range.high;
            brightest = c;
        }
    }
    const char *why = impossible(spec->unit, low / factor, high / factor);
    if (!why) return TRN_OK;
    const char *band = plan->common_names[plan->bands[member->channels[brightest]]];
    return job_plan_warn(
        plan, err,
        "encoder '%s' wants %s values times %g, and gets %.6g to %.6g (sampled; highest in band '%s'): %s",
        spec->name, job_unit_name(spec->unit), factor, low, high, band, why);
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
