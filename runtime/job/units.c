/* Units: from the numbers of a scene to the values an encoder was made for. */
#include "job_private.h"

#include <float.h>
#include <math.h>
#include <string.h>

const char *job_unit_name(trn_unit unit)
{
    return unit == TRN_UNIT_ANY ? "unknown unit" : trn_unit_name(unit);
}

bool job_own_scale(const trn_scene_band *band)
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
        if (band->type != TRN_SAMPLE_U8 || job_own_scale(band)) return false;
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
    } else if (plan->sensor && !job_own_scale(band)) {
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
    bool display = have == TRN_UNIT_REFLECTANCE && spec->unit == TRN_UNIT_BYTE;
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "encoder '%s' wants %s values, but the scene's numbers are %s: %sgive a scale, an offset "
                    "and the unit "
                    "%s, or normalise by z-score",
                    spec->name, job_unit_name(spec->unit), job_unit_name(have),
                    display ? "say which reflectance becomes 255 (--display 0.3, or display = 0.3 of the "
                              "encoder in a recipe), "
                            : "",
                    job_unit_name(spec->unit));
}

/* Reflectance to display bytes needs a scene of reflectance, an encoder of bytes, and values that are fed. */
static trn_status check_display(const job_plan *plan, const planned_encoder *member, trn_error *err)
{
    const trn_encoder_spec *spec = member->spec;
    double display = member->wish->display;
    if (!(display > 0) || isinf(display))
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': display is %g; wanted a reflectance above 0",
                        spec->name, display);
    if (spec->unit != TRN_UNIT_BYTE)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s' wants %s values: display is for encoders of display bytes", spec->name,
                        job_unit_name(spec->unit));
    if (member->wish->normalize == TRN_NORMALIZE_NONE)
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "encoder '%s': numbers are fed as they are read (normalize none), so display says nothing",
            spec->name);
    if (scene_unit(plan) == TRN_UNIT_REFLECTANCE) return TRN_OK;
    return trn_fail(
        err, TRN_ERR_ARGUMENT,
        "encoder '%s': display is for scenes of reflectance, and this one's numbers are %s: give the "
        "sensor, or a scale and the unit reflectance",
        spec->name, job_unit_name(scene_unit(plan)));
}

/* 0 .. display of reflectance becomes 0 .. 255, and nothing lies outside. */
static void plan_display(const job_plan *plan, planned_encoder *member, size_t c)
{
    double scale, offset, factor = 255 / member->wish->display;
    member->low[c] = -FLT_MAX;
    member->high[c] = FLT_MAX;
    if (job_member_wants(member, c).unit != TRN_UNIT_BYTE) return;
    to_physical(plan, &plan->info->bands[plan->bands[member->channels[c]]], &scale, &offset);
    double black = 0 - offset / scale, white = (member->wish->display - offset) / scale;
    member->low[c] = (float)TRN_MIN(black, white);
    member->high[c] = (float)TRN_MAX(black, white);
    member->scale[c] = (float)(scale * factor);
    member->offset[c] = (float)(offset * factor);
    member->converts = true;
}

const trn_encoder_band *job_member_band(const planned_encoder *member, size_t c)
{
    const trn_encoder_spec *spec = member->spec;
    for (size_t i = 0; i < spec->band_count; i++)
        if (!strcmp(spec->bands[i].name, member->asked[c])) return &spec->bands[i];
    return NULL;
}

/* Its own band's unit and scale differ from the encoder's where radar stands beside optical bands. */
wanted_values job_member_wants(const planned_encoder *member, size_t c)
{
    const trn_encoder_spec *spec = member->spec;
    const trn_encoder_band *band = job_member_band(member, c);
    if (band) return (wanted_values){band->unit, band->value_scale != 0 ? band->value_scale : 1};
    return (wanted_values){spec->unit, spec->value_scale != 0 ? spec->value_scale : 1};
}

/* One channel's scale and offset. `same`: the scene's numbers are in the encoder's unit. A band of another
 * unit than the encoder's is fed as it is read, unless the scene is in that unit. */
static void plan_channel(const job_plan *plan, planned_encoder *member, size_t c, bool same)
{
    wanted_values wanted = job_member_wants(member, c);
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
    bool same = true, display = member->wish->display != 0;
    trn_status status = TRN_OK;
    if (display) {
        status = check_display(plan, member, err);
        member->low = trn_arena_array(plan->arena, n, sizeof(float));
        member->high = trn_arena_array(plan->arena, n, sizeof(float));
        if (!member->low || !member->high) return trn_fail_memory(err, n * sizeof(float), "band limits");
    } else if (spec->unit != TRN_UNIT_ANY) {
        status = match_units(plan, member, &same, err);
    }
    if (status != TRN_OK) return status;
    for (size_t c = 0; c < n; c++) {
        plan_channel(plan, member, c, same);
        if (display) plan_display(plan, member, c);
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
