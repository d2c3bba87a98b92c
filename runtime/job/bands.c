/* What the bands of a scene are, and which of them an encoder gets. */
#include "job_private.h"

#include <string.h>
#include <strings.h>

/* ---- names ---- */

static const char *common_of(const job_plan *plan, const char *name)
{
    int band = plan->names ? trn_sensor_band(plan->names, name) : -1;
    const char *common = band >= 0 ? plan->names->bands[band].common : NULL;
    return common ? common : trn_band_common(name);
}

/* A name that was given and a file that calls the band otherwise: one of them is wrong. */
static trn_status check_given_name(const job_plan *plan, size_t band, trn_error *err)
{
    const trn_scene_band *info = &plan->info->bands[band];
    const char *said = info->description ? common_of(plan, info->description) : NULL;
    const char *given = common_of(plan, info->name);
    if (!plan->scene_options.band_name_count || !said || !given || !strcmp(said, given)) return TRN_OK;
    return job_plan_warn(
        plan, err,
        "band %zu is named '%s' (%s), but '%s' itself calls it '%s' (%s): are the band names in "
        "the order of the file's bands?",
        band + 1, info->name, given, info->file, info->description, said);
}

static trn_status check_duplicate(const job_plan *plan, size_t band, trn_error *err)
{
    for (size_t i = 0; i < band; i++) {
        if (strcasecmp(plan->common_names[i], plan->common_names[band]) != 0) continue;
        return job_plan_warn(plan, err, "bands '%s' and '%s' are both the band '%s': encoders take the first",
                             plan->info->bands[i].name, plan->info->bands[band].name, plan->common_names[i]);
    }
    return TRN_OK;
}

trn_status job_bands_name(job_plan *plan, trn_error *err)
{
    size_t count = plan->info->band_count;
    trn_status status = TRN_OK;
    plan->common_names = trn_arena_array(plan->arena, count, sizeof *plan->common_names);
    if (!plan->common_names) return trn_fail_memory(err, count * sizeof(char *), "band names");
    for (size_t i = 0; i < count && status == TRN_OK; i++) {
        const char *name = plan->info->bands[i].name;
        const char *common = plan->dataset ? job_dataset_bands(plan)[i].common : common_of(plan, name);
        plan->common_names[i] = common ? common : name;
        status = check_given_name(plan, i, err);
        /* the comparison is quadratic */
        if (status == TRN_OK && count <= 512) status = check_duplicate(plan, i, err);
    }
    return status;
}

/* ---- the choice ---- */

/* Micrometres, as the sensor has it; 0: not known. */
double job_band_wavelength(const job_plan *plan, int band)
{
    if (plan->dataset) return job_dataset_bands(plan)[band].wavelength_um;
    int known = plan->names ? trn_sensor_band(plan->names, plan->info->bands[band].name) : -1;
    return known >= 0 ? plan->names->bands[known].wavelength_um : 0;
}

static int find_band(const job_plan *plan, const char *name, trn_error *err)
{
    return plan->dataset ? job_dataset_find_band(plan, name, err)
                         : trn_scene_find_band(plan->scene, name, err);
}

/* The scene bands an encoder may use: all, or those the job lists, in the job's order. */
static trn_status allowed_bands(const job_plan *plan, const trn_job_encoder *wish, int *allowed,
                                trn_band_offer *offers, trn_error *err)
{
    size_t count = wish->bands ? wish->band_count : plan->info->band_count;
    for (size_t i = 0; i < count; i++) {
        int band = wish->bands ? find_band(plan, wish->bands[i], err) : (int)i;
        if (band < 0) {
            if (err && err->code == TRN_OK) err->code = TRN_ERR_ARGUMENT;
            return trn_wrap(err, "encoder '%s'", wish->model);
        }
        for (size_t k = 0; k < i; k++)
            if (allowed[k] == band)
                return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': band '%s' is listed twice", wish->model,
                                plan->info->bands[band].name);
        allowed[i] = band;
        offers[i] = (trn_band_offer){plan->common_names[band], job_band_wavelength(plan, band)};
    }
    return TRN_OK;
}

static bool offered(const trn_band_offer *offers, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(offers[i].name, name)) return true;
    return false;
}

static bool asks_for(const trn_encoder_spec *spec, const char *name)
{
    for (size_t i = 0; i < spec->band_count; i++)
        if (!strcmp(spec->bands[i].name, name)) return true;
    return false;
}

/* Whether the sensor has only one of the two bands, so that each means the same. */
static bool only_one(const trn_sensor *sensor, const char *a, const char *b)
{
    size_t found = 0;
    for (size_t i = 0; sensor && i < sensor->band_count; i++) {
        const char *common = sensor->bands[i].common;
        found += common && (!strcmp(common, a) || !strcmp(common, b));
    }
    return found <= 1;
}

/* Offers a band under the name by which the encoder asks for it, where one may stand in for the other. */
static void stand_in(const job_plan *plan, const planned_encoder *member, trn_band_offer *offers,
                     size_t count)
{
    const trn_encoder_spec *spec = member->spec;
    for (size_t b = 0; b < spec->band_count; b++) {
        const char *name = spec->bands[b].name, *other = trn_band_stand_in(name);
        if (!other || offered(offers, count, name) || asks_for(spec, other)) continue;
        if (!only_one(plan->names, name, other)) continue;
        for (size_t i = 0; i < count; i++) {
            if (strcmp(offers[i].name, other) != 0) continue;
            offers[i].name = name;
            job_plan_note(plan, "encoder '%s' asks for %s, and gets the scene's %s, its only near infrared",
                          member->wish->model, name, other);
            break;
        }
    }
}

static bool all_numbers(const trn_band_offer *offers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (offers[i].name[strspn(offers[i].name, "0123456789")]) return false;
    return count > 0;
}

/* index: places among the offers -> the member's channels, scene bands for now; plan_union turns them into
 * places in the shared image. */
static trn_status keep_choice(job_plan *plan, planned_encoder *member, const int *allowed,
                              const trn_band_offer *offers, int *index, trn_error *err)
{
    member->asked = trn_arena_array(plan->arena, member->channel_count, sizeof *member->asked);
    if (!member->asked) return trn_fail_memory(err, member->channel_count * sizeof(char *), "bands");
    for (size_t i = 0; i < member->channel_count; i++) {
        member->asked[i] = offers[index[i]].name;
        index[i] = allowed[index[i]];
    }
    member->channels = index;
    return TRN_OK;
}

trn_status job_bands_choose(job_plan *plan, planned_encoder *member, trn_error *err)
{
    const trn_job_encoder *wish = member->wish;
    size_t count = wish->bands ? wish->band_count : plan->info->band_count;
    size_t max = TRN_MAX(count, member->spec->band_count) + 1;
    int *allowed = trn_arena_array(plan->arena, count + 1, sizeof *allowed);
    trn_band_offer *offers = trn_arena_array(plan->arena, count + 1, sizeof *offers);
    int *index = trn_arena_array(plan->arena, max, sizeof *index);
    trn_text notes = {0};
    trn_status status = TRN_OK;
    if (!allowed || !offers || !index) return trn_fail_memory(err, max * sizeof(int), "bands");
    if (wish->bands && !count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': the list of bands is empty", wish->model);

    status = allowed_bands(plan, wish, allowed, offers, err);
    if (status != TRN_OK) return status;
    stand_in(plan, member, offers, count);
    bool unnamed = member->spec->band_count && all_numbers(offers, count);
    status = trn_encoder_choose_bands(member->encoder, offers, count, index, max, &member->channel_count,
                                      &notes, err);
    if (status == TRN_OK && unnamed && notes.length)
        status = job_plan_warn(plan, err, "%s", notes.data);
    else if (notes.length)
        job_plan_note(plan, "%s", notes.data);
    trn_text_free(&notes);
    if (status == TRN_ERR_ARGUMENT && !plan->names && !wish->bands && err) {
        size_t used = strlen(err->message);
        snprintf(err->message + used, sizeof err->message - used,
                 "; if the scene has them, say what its bands are: give its sensor or its band names");
    }
    if (status != TRN_OK) return status;
    if (!member->channel_count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' can use none of the scene's bands", wish->model);
    return keep_choice(plan, member, allowed, offers, index, err);
}
