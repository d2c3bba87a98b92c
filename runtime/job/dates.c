/* The dates of a series: which files are of which date, when they were taken, that they fit together, and
 * reading a window of all of them. */
#include "job_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_DATES = 366 };
/* Decoded blocks of all dates together, and of one at least: a row of blocks of a wide scene should fit, or
 * its windows decode the same blocks again and again. Of many dates less is kept of each, as nothing counts
 * this memory. */
#define SERIES_CACHE ((size_t)512 << 20)
#define LEAST_CACHE ((size_t)64 << 20)
#define MOST_CACHE ((size_t)2 << 30)

size_t job_dates_cache(size_t count)
{
    return TRN_MAX(SERIES_CACHE / count, TRN_MIN(LEAST_CACHE, MOST_CACHE / count));
}

const char *job_date_file(const job_plan *plan, size_t date)
{
    return plan->dates[date].paths[0];
}

const char *job_date_text(const job_date *date, char *buffer)
{
    if (!date->known) return "date not known";
    snprintf(buffer, JOB_DATE_TEXT, "%04d-%02d-%02d", date->acquired.year, date->acquired.month,
             date->acquired.day);
    return buffer;
}

static const char tag_source[] = "the TIFF tag DateTime";

/* "1: a.tif (2018-01-28), 2: b.tif (date not known), 3: c.tif (2018-06-02 by the TIFF tag DateTime)": what
 * the tag says may be another day than that of the picture. */
static void list_dates(const job_plan *plan, trn_text *out)
{
    char text[JOB_DATE_TEXT];
    for (size_t t = 0; t < plan->date_count; t++) {
        const job_date *date = &plan->dates[t];
        trn_text_printf(out, "%s%zu: %s (%s", t ? ", " : "", t + 1, trn_path_name(job_date_file(plan, t)),
                        job_date_text(date, text));
        if (date->known && date->source == tag_source) trn_text_printf(out, " by %s", tag_source);
        trn_text_add(out, ")");
    }
}

/* ---- which files are of which date ---- */

static trn_status given_dates(const job_plan *plan, size_t *files, size_t *count, trn_error *err)
{
    const trn_job_scene *scene = &plan->job->scene;
    size_t total = 0;
    for (size_t t = 0; t < scene->date_count; t++) {
        files[t] = scene->date_files[t];
        if (!files[t]) return trn_fail(err, TRN_ERR_ARGUMENT, "date %zu of the scene has no file", t + 1);
        total += files[t];
    }
    *count = scene->date_count;
    if (total == plan->path_count) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT, "the dates have %zu files together, and %zu are given", total,
                    plan->path_count);
}

trn_status job_dates_plan(job_plan *plan, trn_error *err)
{
    const trn_job_scene *scene = &plan->job->scene;
    trn_status status = TRN_OK;
    size_t count = 1;
    size_t *files = trn_arena_array(plan->arena, TRN_MAX(plan->path_count, scene->date_count), sizeof *files);
    if (!files) return trn_fail_memory(err, plan->path_count * sizeof *files, "dates");
    files[0] = plan->images ? 1 : plan->path_count;
    if (plan->images && scene->date_files)
        return trn_fail(err, TRN_ERR_ARGUMENT, "images are single: dates are for a scene");
    if (scene->date_files)
        status = given_dates(plan, files, &count, err);
    else if (!plan->images)
        status =
            trn_scene_split_dates(plan->paths, plan->path_count, &plan->scene_options, files, &count, err);
    if (status != TRN_OK) return status;
    if (count > MAX_DATES)
        return trn_fail(err, TRN_ERR_UNSUPPORTED, "a series of %zu dates; at most %d are read", count,
                        MAX_DATES);
    plan->dates = trn_arena_array(plan->arena, count, sizeof *plan->dates);
    if (!plan->dates) return trn_fail_memory(err, count * sizeof *plan->dates, "dates");
    plan->date_count = count;
    if (count > 1) plan->scene_options.cache_bytes = job_dates_cache(count);
    for (size_t t = 0, at = 0; t < count; at += files[t++])
        plan->dates[t] = (job_date){.paths = plan->paths + at, .path_count = files[t]};
    return TRN_OK;
}

/* ---- opening ---- */

void job_dates_close(job_plan *plan)
{
    for (size_t t = 0; t < plan->date_count; t++) {
        trn_scene_close(plan->dates[t].scene);
        plan->dates[t].scene = NULL;
    }
    plan->scene = NULL;
    plan->info = NULL;
}

static trn_status fail_date(const job_plan *plan, size_t date, trn_error *err, const char *difference)
{
    return trn_fail(
        err, TRN_ERR_ARGUMENT,
        "date %zu ('%s') and date 1 ('%s') have different %s: all dates of a series must lie on one "
        "grid; warp one onto the other, for example with gdalwarp",
        date + 1, job_date_file(plan, date), job_date_file(plan, 0), difference);
}

static trn_status check_grid(const job_plan *plan, size_t date, trn_error *err)
{
    const trn_scene_info *first = plan->info, *info = trn_scene_get_info(plan->dates[date].scene);
    const char *difference = "sizes";
    if (first->width != info->width || first->height != info->height)
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "date %zu ('%s') has %lld x %lld pixels, and date 1 ('%s') %lld x %lld: all dates of a "
            "series must have one size; resample one, for example with gdalwarp",
            date + 1, job_date_file(plan, date), (long long)info->width, (long long)info->height,
            job_date_file(plan, 0), (long long)first->width, (long long)first->height);
    if (trn_georef_agrees(&first->georef, &info->georef, first->width, first->height, &difference))
        return TRN_OK;
    return fail_date(plan, date, err, difference);
}

/* Whether numbers of both bands mean the same under one rule of scale and unit. */
static bool same_numbers(const job_plan *plan, const trn_scene_band *a, const trn_scene_band *b)
{
    bool scales = plan->job->scene.has_scale ? a->scale == b->scale && a->offset == b->offset
                                             : job_own_scale(a) == job_own_scale(b);
    return scales && (a->type == TRN_SAMPLE_U8) == (b->type == TRN_SAMPLE_U8);
}

/* Finds the first date's bands in another one; they may be in another order there. */
static trn_status match_bands(const job_plan *plan, size_t date, trn_error *err)
{
    const trn_scene_info *first = plan->info, *info = trn_scene_get_info(plan->dates[date].scene);
    if (first->band_count != info->band_count)
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "date %zu ('%s') has %zu bands, and date 1 ('%s') %zu: all dates of a series must have the "
            "same bands",
            date + 1, job_date_file(plan, date), info->band_count, job_date_file(plan, 0), first->band_count);
    for (size_t b = 0; b < first->band_count; b++) {
        size_t at = b; /* where it mostly is; searching for all would be quadratic */
        if (strcasecmp(info->bands[b].name, first->bands[b].name) != 0)
            for (at = 0; at < info->band_count; at++)
                if (!strcasecmp(info->bands[at].name, first->bands[b].name)) break;
        if (at == info->band_count)
            return trn_fail(
                err, TRN_ERR_ARGUMENT,
                "date %zu ('%s') has no band '%s', which date 1 ('%s') has: all dates of a series must "
                "have the same bands",
                date + 1, job_date_file(plan, date), first->bands[b].name, job_date_file(plan, 0));
        if (!same_numbers(plan, &first->bands[b], &info->bands[at]))
            return trn_fail(
                err, TRN_ERR_ARGUMENT,
                "band '%s' of date %zu ('%s') is scaled otherwise than that of date 1 ('%s'): all dates "
                "of a series must hold the same kind of numbers",
                first->bands[b].name, date + 1, info->bands[at].file, first->bands[b].file);
        plan->dates[date].bands[b] = (int)at;
    }
    return TRN_OK;
}

static trn_status open_date(job_plan *plan, size_t date, trn_error *err)
{
    job_date *d = &plan->dates[date];
    trn_status status = trn_scene_open(d->paths, d->path_count, &plan->scene_options, &d->scene, err);
    if (status != TRN_OK) return plan->date_count > 1 ? trn_wrap(err, "date %zu", date + 1) : status;
    if (date == 0) {
        plan->scene = d->scene;
        plan->info = trn_scene_get_info(d->scene);
    }
    d->bands = trn_arena_array(plan->arena, plan->info->band_count, sizeof *d->bands);
    if (!d->bands) return trn_fail_memory(err, plan->info->band_count * sizeof(int), "bands");
    status = date ? check_grid(plan, date, err) : TRN_OK;
    return status == TRN_OK ? match_bands(plan, date, err) : status;
}

trn_status job_dates_open(job_plan *plan, trn_error *err)
{
    for (size_t t = 0; t < plan->date_count; t++) {
        trn_status status = open_date(plan, t, err);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}

/* ---- when they were taken ---- */

static bool same_day(const trn_date *a, const trn_date *b)
{
    return a->year == b->year && a->day_of_year == b->day_of_year;
}

/* The day that the names of a date's files say. */
static trn_status day_of_names(const job_plan *plan, job_date *date, trn_error *err)
{
    const char *first = NULL;
    trn_status status = TRN_OK;
    for (size_t i = 0; i < date->path_count && status == TRN_OK; i++) {
        trn_date day;
        if (!trn_date_find(trn_path_name(date->paths[i]), &day)) continue;
        if (first && !same_day(&day, &date->acquired))
            status =
                job_plan_warn(plan, err, "'%s' and '%s' are taken as one date, but their names say two days",
                              first, date->paths[i]);
        if (first) continue;
        first = date->paths[i];
        date->acquired = day;
        date->known = true;
        date->source = "the file's name";
    }
    return status;
}

/* "2018:06:02 16:58:49"; what wrote the file may mean its own day, so the note says where it is from. */
static void day_of_tag(job_date *date)
{
    const char *text = trn_scene_get_info(date->scene)->date_time;
    char day[11];
    if (!text || strlen(text) < 10) return;
    snprintf(day, sizeof day, "%.10s", text);
    if (day[4] != ':' || day[7] != ':') return;
    day[4] = day[7] = '-';
    date->known = trn_date_parse(day, &date->acquired);
    if (date->known) date->source = tag_source;
}

/* Images are fed one after another to encoders that know one date: it is known when all have the same. */
static void day_of_images(const job_plan *plan)
{
    job_date *date = &plan->dates[0];
    size_t found = 0, same = 0;
    for (size_t i = 0; i < plan->path_count; i++) {
        trn_date day;
        if (!trn_date_find(trn_path_name(plan->paths[i]), &day)) continue;
        if (!found++) date->acquired = day;
        same += same_day(&day, &date->acquired);
    }
    date->known = found && same == plan->path_count;
    date->source = plan->path_count > 1 ? "the names of all images" : "the image's name";
}

static trn_status find_days(job_plan *plan, trn_error *err)
{
    const trn_job_scene *scene = &plan->job->scene;
    trn_status status = TRN_OK;
    for (size_t t = 0; t < plan->date_count && status == TRN_OK; t++) {
        job_date *date = &plan->dates[t];
        if (scene->acquired_count) {
            date->acquired = scene->acquired[t];
            date->known = true;
            date->source = "the job";
            continue;
        }
        status = day_of_names(plan, date, err);
        if (status == TRN_OK && !date->known) day_of_tag(date);
    }
    return status;
}

static bool is_before(const trn_date *a, const trn_date *b)
{
    return a->year < b->year || (a->year == b->year && a->day_of_year < b->day_of_year);
}

static trn_status check_order(const job_plan *plan, trn_error *err)
{
    char one[JOB_DATE_TEXT], other[JOB_DATE_TEXT];
    for (size_t t = 1; t < plan->date_count; t++) {
        const job_date *a = &plan->dates[t - 1], *b = &plan->dates[t];
        if (!a->known || !b->known || !is_before(&b->acquired, &a->acquired)) continue;
        return job_plan_warn(plan, err,
                             "the dates are not in the order of time: date %zu is %s, date %zu is %s", t,
                             job_date_text(a, one), t + 1, job_date_text(b, other));
    }
    return TRN_OK;
}

trn_status job_dates_acquired(job_plan *plan, trn_error *err)
{
    const trn_job_scene *scene = &plan->job->scene;
    if (plan->images && scene->acquired_count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "images have no dates: acquisition dates are for a scene");
    if (plan->images) {
        day_of_images(plan);
        return TRN_OK;
    }
    if (scene->acquired_count && scene->acquired_count != plan->date_count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "%zu acquisition date%s given, and the files are %zu date%s",
                        scene->acquired_count, scene->acquired_count == 1 ? " is" : "s are", plan->date_count,
                        plan->date_count == 1 ? "" : "s");
    trn_status status = find_days(plan, err);
    if (status == TRN_OK) status = check_order(plan, err);
    if (status != TRN_OK || plan->date_count == 1) return status;
    trn_text list = {0};
    list_dates(plan, &list);
    job_plan_note(plan, "a series of %zu dates of %zu bands: %s", plan->date_count, plan->info->band_count,
                  trn_text_get(&list));
    trn_text_free(&list);
    return TRN_OK;
}

/* ---- what encoders see of them ---- */

static void note_unknown(const job_plan *plan, const planned_encoder *member, size_t date)
{
    if (plan->dataset)
        job_plan_note(plan, "encoder '%s' may use the date, which a dataset does not say: it works without",
                      member->wish->model);
    else if (plan->images)
        job_plan_note(
            plan,
            "encoder '%s' may use the date, and the names of the images do not say one date for all: "
            "it works without",
            member->wish->model);
    else
        job_plan_note(
            plan,
            "encoder '%s' may use the date, and that of '%s' is not known: its name holds none; give "
            "acquisition dates",
            member->wish->model, job_date_file(plan, date));
}

/* Series are told of as a whole. */
static void note_known(job_plan *plan)
{
    char day[JOB_DATE_TEXT];
    const job_date *date = &plan->dates[0];
    if (plan->date_count > 1 || plan->date_told) return;
    plan->date_told = true;
    job_plan_note(plan, "'%s' is of %s: %s %s so", plan->job->scene.paths[0], job_date_text(date, day),
                  date->source, plan->images && plan->path_count > 1 ? "say" : "says");
}

static trn_status choose(job_plan *plan, planned_encoder *member, size_t first, size_t count, trn_error *err)
{
    trn_date *days = trn_arena_array(plan->arena, count, sizeof *days);
    if (!days) return trn_fail_memory(err, count * sizeof *days, "dates");
    size_t unknown = count;
    for (size_t t = 0; t < count; t++) {
        days[t] = plan->dates[first + t].acquired;
        if (!plan->dates[first + t].known && unknown == count) unknown = t;
    }
    trn_status status = trn_encoder_choose_dates(member->encoder, count, unknown < count ? NULL : days, err);
    if (status != TRN_OK || member->spec->max_dates < 2) return status;
    if (unknown < count)
        note_unknown(plan, member, first + unknown);
    else
        note_known(plan);
    return TRN_OK;
}

trn_status job_dates_choose(job_plan *plan, planned_encoder *member, trn_error *err)
{
    int date = member->wish->date;
    if (date < 0 || (size_t)date > plan->date_count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' is to see date %d, and the scene has %zu",
                        member->wish->model, date, plan->date_count);
    size_t count = date ? 1 : plan->date_count;
    trn_status status = choose(plan, member, date ? (size_t)date - 1 : 0, count, err);
    if (status != TRN_ERR_ARGUMENT || !err || plan->images) return status;
    trn_text list = {0};
    list_dates(plan, &list);
    size_t used = strlen(err->message);
    snprintf(err->message + used, sizeof err->message - used, " (%s)%s", trn_text_get(&list),
             count > 1 && member->spec->min_dates == 1
                 ? "; choose one: --date N, or date = N of the encoder in a recipe; separate images: "
                   "--each, or terrane.images"
                 : "");
    trn_text_free(&list);
    return status;
}

/* ---- reading ---- */

trn_status job_window_read(const job_plan *plan, int64_t x, int64_t y, int64_t w, int64_t h, float *pixels,
                           uint8_t *valid, trn_error *err)
{
    size_t area = (size_t)w * (size_t)h;
    trn_status status = TRN_OK;
    int *bands = malloc((plan->band_count + 1) * sizeof *bands);
    uint8_t *ok = plan->date_count > 1 ? malloc(area) : NULL;
    if (!bands || (plan->date_count > 1 && !ok)) {
        status = trn_fail_memory(err, area, "a window of a series");
        goto fail;
    }
    for (size_t t = 0; t < plan->date_count && status == TRN_OK; t++) {
        for (size_t b = 0; b < plan->band_count; b++)
            bands[b] = plan->dates[t].bands[plan->bands[b]];
        status = trn_scene_read(plan->dates[t].scene, bands, plan->band_count, x, y, w, h,
                                pixels + t * plan->band_count * area, t ? ok : valid, err);
        for (size_t i = 0; i < area && t; i++)
            valid[i] &= ok[i];
    }
fail:
    free(bands);
    free(ok);
    return status;
}
