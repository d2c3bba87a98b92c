/* Noticing when the values of a scene cannot be what an encoder was made for: impossible units, statistics of
 * another sensor. */
#include "job_private.h"

#include <float.h>
#include <math.h>
#include <string.h>

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
static trn_status check_unit(const job_plan *plan, const planned_encoder *member, size_t first, bool *warned,
                             trn_error *err)
{
    wanted_values wanted = job_member_wants(member, first);
    double factor = wanted.scale, low = DBL_MAX, high = -DBL_MAX;
    size_t brightest = first;
    for (size_t c = first; c < member->channel_count; c++) {
        if (job_member_wants(member, c).unit != wanted.unit) continue;
        low = TRN_MIN(low, member->measured[c].low);
        if (member->measured[c].high > high) {
            high = member->measured[c].high;
            brightest = c;
        }
    }
    const char *why = impossible(wanted.unit, low / factor, high / factor);
    if (!why) return TRN_OK;
    *warned = true;
    return job_plan_warn(
        plan, err,
        "encoder '%s' wants %s values times %g, and gets %.6g to %.6g (sampled; highest in band '%s'): %s",
        member->spec->name, job_unit_name(wanted.unit), factor, low, high,
        plan->common_names[plan->bands[member->channels[brightest]]], why);
}

static trn_status check_units(const job_plan *plan, const planned_encoder *member, bool *warned,
                              trn_error *err)
{
    for (size_t c = 0; c < member->channel_count; c++) {
        size_t before = 0;
        while (before < c && job_member_wants(member, before).unit != job_member_wants(member, c).unit)
            before++;
        if (before < c) continue; /* its unit was checked */
        trn_status status = check_unit(plan, member, c, warned, err);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}

/* Whether the channel, normalised by the encoder's own mean and deviation, is far from what it was trained
 * on; told of in the text. */
static bool is_strange(const planned_encoder *member, size_t c, bool tell, trn_text *out)
{
    const double far_off = 3, too_wide = 4, too_flat = 0.05;
    const trn_encoder_band *band = job_member_band(member, c);
    if (!band || !(band->std > 0) || (band->mean == 0 && band->std == 1)) return false;
    double mean = (member->measured[c].mean - band->mean) / band->std,
           std = member->measured[c].std / band->std;
    bool flat = std < too_flat && !member->spec->ranges; /* dark forest is flat in a range up to white */
    if (fabs(mean) <= far_off && std <= too_wide && !flat) return false;
    if (tell)
        trn_text_printf(out, "%s%s: mean %.3g, deviation %.3g, where the encoder has %.6g and %.6g",
                        out->length ? "; " : "", member->asked[c], member->measured[c].mean,
                        member->measured[c].std, band->mean, band->std);
    return true;
}

static trn_status check_statistics(const job_plan *plan, const planned_encoder *member, trn_error *err)
{
    trn_text strange = {0};
    enum { TOLD = 3 };
    size_t count = 0;
    trn_status status = TRN_OK;
    for (size_t c = 0; c < member->channel_count; c++)
        count += is_strange(member, c, count < TOLD, &strange);
    if (count > TOLD) trn_text_add(&strange, "; ...");
    if (count)
        status =
            job_plan_warn(plan, err,
                          "encoder '%s': the values of %zu of %zu bands are far from the statistics they are "
                          "normalised by (another sensor, unit or scale, or bands in another order?): %s",
                          member->spec->name, count, member->channel_count, trn_text_get(&strange));
    trn_text_free(&strange);
    return status;
}

static trn_status measure(job_plan *plan, planned_encoder *member, const job_samples *samples, trn_error *err)
{
    member->measured = trn_arena_array(plan->arena, member->channel_count, sizeof *member->measured);
    if (!member->measured)
        return trn_fail_memory(err, member->channel_count * sizeof *member->measured, "ranges of bands");
    for (size_t c = 0; c < member->channel_count; c++)
        member->measured[c] = job_measure_channel(plan, member, c, (double)member->scale[c],
                                                  (double)member->offset[c], samples);
    return TRN_OK;
}

static trn_status check_member(job_plan *plan, planned_encoder *member, const job_samples *samples,
                               trn_error *err)
{
    bool warned = false;
    trn_status status = measure(plan, member, samples, err);
    if (status != TRN_OK || member->spec->unit == TRN_UNIT_ANY) return status;
    if (member->wish->normalize != TRN_NORMALIZE_MODEL) return TRN_OK;
    status = check_units(plan, member, &warned, err);
    return status == TRN_OK && !warned ? check_statistics(plan, member, err) : status;
}

trn_status job_ranges_check(job_plan *plan, const job_samples *samples, trn_error *err)
{
    for (size_t i = 0; i < plan->encoder_count && samples->count; i++) {
        trn_status status =
            job_blame(plan->hooks, check_member(plan, &plan->encoders[i], samples, err), TRN_JOB_ENCODER, i);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}
