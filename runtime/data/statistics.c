/* Mean and deviation of the bands of a split, streamed; and those that GEO-Bench publishes. */
#include "data_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Joins a plane's moments to those so far (Chan, Golub, LeVeque). Until the end, std holds the sum of squared
 * deviations. */
static void add_plane(trn_band_statistics *s, const float *plane, size_t area)
{
    double sum = 0, squares = 0, count = (double)s->count, more = (double)area;
    for (size_t i = 0; i < area; i++) {
        sum += plane[i];
        s->min = TRN_MIN(s->min, plane[i]);
        s->max = TRN_MAX(s->max, plane[i]);
    }
    double mean = sum / more, off = mean - s->mean;
    for (size_t i = 0; i < area; i++)
        squares += (plane[i] - mean) * (plane[i] - mean);
    s->std += squares + off * off * count * more / (count + more);
    s->mean += off * more / (count + more);
    s->count += area;
}

trn_status trn_dataset_statistics(const trn_dataset *dataset, trn_split split, size_t limit,
                                  const trn_progress *progress, trn_band_statistics *statistics,
                                  trn_error *err)
{
    const trn_dataset_info *info = &dataset->info;
    size_t available = (size_t)split < TRN_SPLIT_COUNT ? info->samples[split] : 0;
    if (!available)
        return trn_fail(err, TRN_ERR_FORMAT, "'%s' has no samples in split %s: there is nothing to measure",
                        info->name, trn_split_name(split));
    size_t count = limit && limit < available ? limit : available;
    size_t area = (size_t)info->height * (size_t)info->width, bytes;
    float *pixels = trn_mul_size(area * sizeof *pixels, info->band_count, &bytes) ? malloc(bytes) : NULL;
    if (!pixels) return trn_fail_memory(err, area * info->band_count, "a sample");
    for (size_t b = 0; b < info->band_count; b++)
        statistics[b] = (trn_band_statistics){.min = INFINITY, .max = -INFINITY};
    trn_status status = TRN_OK;
    for (size_t i = 0; i < count && status == TRN_OK; i++) {
        if (trn_progress_cancelled(progress)) {
            status = trn_fail_cancelled(err, "measuring a split");
            break;
        }
        size_t index = (size_t)((uint64_t)i * available / count);
        status = trn_dataset_read(dataset, split, index, pixels, NULL, err);
        for (size_t b = 0; b < info->band_count && status == TRN_OK; b++)
            add_plane(&statistics[b], pixels + b * area, area);
        trn_progress_report(progress, "statistics", i + 1, count);
    }
    for (size_t b = 0; b < info->band_count; b++)
        statistics[b].std = statistics[b].count ? sqrt(statistics[b].std / (double)statistics[b].count) : 0;
    free(pixels);
    return status;
}

static trn_status get_number(const cJSON *band, const char *key, const char *name, double *out,
                             trn_error *err)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(band, key);
    if (!cJSON_IsNumber(item) || !isfinite(item->valuedouble))
        return trn_fail(err, TRN_ERR_FORMAT, "band '%s' has no number '%s'", name, key);
    *out = item->valuedouble;
    return TRN_OK;
}

static trn_status get_statistics(const cJSON *json, const char *name, trn_band_statistics *s, trn_error *err)
{
    const cJSON *band = cJSON_GetObjectItemCaseSensitive(json, name);
    if (!cJSON_IsObject(band)) return trn_fail(err, TRN_ERR_FORMAT, "it says nothing of band '%s'", name);
    *s = (trn_band_statistics){0};
    trn_status status = get_number(band, "mean", name, &s->mean, err);
    if (status == TRN_OK) status = get_number(band, "std", name, &s->std, err);
    if (status == TRN_OK) status = get_number(band, "min", name, &s->min, err);
    if (status == TRN_OK) status = get_number(band, "max", name, &s->max, err);
    if (status == TRN_OK && s->std < 0)
        status = trn_fail(err, TRN_ERR_FORMAT, "band '%s' has a deviation below 0", name);
    return status;
}

trn_status trn_dataset_published_statistics(const trn_dataset *dataset, trn_band_statistics *statistics,
                                            trn_error *err)
{
    char *path = data_path(dataset, "band_stats.json", "", err);
    if (!path) return TRN_ERR_MEMORY;
    trn_status status = TRN_OK;
    cJSON *json = NULL;
    if (!trn_path_exists(path))
        status = trn_fail(err, TRN_ERR_UNSUPPORTED, "'%s' has no band_stats.json: measure the training split",
                          dataset->info.name);
    else if (!(json = data_json_read(path, err)))
        status = err && err->code ? err->code : TRN_ERR_FORMAT;
    for (size_t b = 0; b < dataset->info.band_count && status == TRN_OK; b++) {
        status = get_statistics(json, dataset->bands[b].stored, &statistics[b], err);
        if (status != TRN_OK) trn_wrap(err, "'%s'", path);
    }
    cJSON_Delete(json);
    free(path);
    return status;
}
