/* Mean, deviation and percentiles of the bands of a split, streamed; and what GEO-Bench publishes of them. */
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

/* How many samples are measured. */
static trn_status count_samples(const trn_dataset *dataset, trn_split split, size_t limit, size_t *count,
                                trn_error *err)
{
    const trn_dataset_info *info = &dataset->info;
    size_t available = (size_t)split < TRN_SPLIT_COUNT ? info->samples[split] : 0;
    *count = limit && limit < available ? limit : available;
    if (available) return TRN_OK;
    return trn_fail(err, TRN_ERR_FORMAT, "'%s' has no samples in split %s: there is nothing to measure",
                    info->name, trn_split_name(split));
}

typedef void (*sample_visit)(void *user, const float *pixels, const trn_dataset_info *info);

/* The pixels of `count` samples, evenly spaced, one after the other. */
static trn_status visit_samples(const trn_dataset *dataset, trn_split split, size_t count,
                                const trn_progress *progress, sample_visit visit, void *user, trn_error *err)
{
    const trn_dataset_info *info = &dataset->info;
    size_t area = (size_t)info->height * (size_t)info->width, bytes;
    float *pixels = trn_mul_size(area * sizeof *pixels, info->band_count, &bytes) ? malloc(bytes) : NULL;
    if (!pixels) return trn_fail_memory(err, area * info->band_count, "a sample");
    trn_status status = TRN_OK;
    for (size_t i = 0; i < count && status == TRN_OK; i++) {
        if (trn_progress_cancelled(progress)) {
            status = trn_fail_cancelled(err, "measuring a split");
            break;
        }
        size_t index = (size_t)((uint64_t)i * info->samples[split] / count);
        status = trn_dataset_read(dataset, split, index, pixels, NULL, err);
        if (status == TRN_OK) visit(user, pixels, info);
        trn_progress_report(progress, "statistics", i + 1, count);
    }
    free(pixels);
    return status;
}

static void add_sample(void *user, const float *pixels, const trn_dataset_info *info)
{
    trn_band_statistics *statistics = user;
    size_t area = (size_t)info->height * (size_t)info->width;
    for (size_t b = 0; b < info->band_count; b++)
        add_plane(&statistics[b], pixels + b * area, area);
}

trn_status trn_dataset_statistics(const trn_dataset *dataset, trn_split split, size_t limit,
                                  const trn_progress *progress, trn_band_statistics *statistics,
                                  trn_error *err)
{
    size_t count, bands = dataset->info.band_count;
    trn_status status = count_samples(dataset, split, limit, &count, err);
    if (status != TRN_OK) return status;
    for (size_t b = 0; b < bands; b++)
        statistics[b] = (trn_band_statistics){.min = INFINITY, .max = -INFINITY};
    status = visit_samples(dataset, split, count, progress, add_sample, statistics, err);
    for (size_t b = 0; b < bands; b++)
        statistics[b].std = statistics[b].count ? sqrt(statistics[b].std / (double)statistics[b].count) : 0;
    return status;
}

enum { MAX_VALUES = 1 << 20 }; /* of a band, for percentiles */

/* Values of all bands, picked at the same places of each. */
typedef struct value_picks {
    float *values; /* [bands][capacity] */
    size_t capacity, count, pixel;
    uint64_t stride; /* one pixel of so many */
} value_picks;

/* One place of every stride, anywhere in it: a fixed step would follow columns or patterns of an image. */
static bool is_picked(const value_picks *picks)
{
    uint64_t group = picks->pixel / picks->stride;
    return picks->pixel % picks->stride == trn_splitmix64(group) % picks->stride;
}

static void pick_values(value_picks *picks, const float *pixels, size_t bands, size_t area)
{
    for (size_t i = 0; i < area; i++, picks->pixel++) {
        if (!is_picked(picks) || picks->count == picks->capacity) continue;
        for (size_t b = 0; b < bands; b++)
            picks->values[b * picks->capacity + picks->count] = pixels[b * area + i];
        picks->count++;
    }
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static double percentile_of(const float *sorted, size_t count, double percent)
{
    double place = percent / 100 * (double)(count - 1), whole = floor(place);
    size_t at = (size_t)whole, next = TRN_MIN(at + 1, count - 1);
    return sorted[at] + (place - whole) * ((double)sorted[next] - sorted[at]);
}

static trn_status begin_picks(value_picks *picks, size_t bands, size_t samples, size_t area, trn_error *err)
{
    size_t total, bytes;
    if (!trn_mul_size(samples, area, &total)) total = SIZE_MAX;
    *picks = (value_picks){.stride = (total - 1) / MAX_VALUES + 1};
    picks->capacity = (size_t)((total - 1) / picks->stride + 1);
    bool fits = trn_mul_size(picks->capacity * sizeof(float), bands, &bytes);
    picks->values = fits ? malloc(bytes) : NULL;
    return picks->values ? TRN_OK : trn_fail_memory(err, picks->capacity * bands, "values for percentiles");
}

static void end_picks(const value_picks *picks, size_t bands, double low, double high, trn_band_range *ranges)
{
    for (size_t b = 0; b < bands; b++) {
        float *values = picks->values + b * picks->capacity;
        qsort(values, picks->count, sizeof *values, by_size);
        ranges[b] = (trn_band_range){percentile_of(values, picks->count, low),
                                     percentile_of(values, picks->count, high)};
    }
}

static void pick_plane(void *user, const float *pixels, const trn_dataset_info *info)
{
    pick_values(user, pixels, info->band_count, (size_t)info->height * (size_t)info->width);
}

trn_status trn_dataset_percentiles(const trn_dataset *dataset, trn_split split, double low, double high,
                                   size_t limit, const trn_progress *progress, trn_band_range *ranges,
                                   trn_error *err)
{
    const trn_dataset_info *info = &dataset->info;
    if (!(low >= 0 && low < high && high <= 100))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "percentiles %g and %g: use two ascending numbers from 0 to 100", low, high);
    size_t area = (size_t)info->height * (size_t)info->width, count;
    trn_status status = count_samples(dataset, split, limit, &count, err);
    if (status != TRN_OK) return status;
    value_picks picks;
    status = begin_picks(&picks, info->band_count, count, area, err);
    if (status == TRN_OK) status = visit_samples(dataset, split, count, progress, pick_plane, &picks, err);
    if (status == TRN_OK) end_picks(&picks, info->band_count, low, high, ranges);
    free(picks.values);
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
