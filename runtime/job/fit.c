/* Learning from pixels before encoding: sample windows, seeded and spread over the scene or the images;
 * encoders that are fitted, z-score statistics, the mean colour, value ranges. */
#include "job_private.h"

#include <stdlib.h>
#include <string.h>

/* The positions are the same on every machine for the same scene. */
#define SAMPLE_SEED 0x7465727261ull
enum { SAMPLE_WINDOWS = 96, SAMPLE_TRIES = 512, SAMPLE_SIDE = 64, SMALLEST_SIDE = 8 };
#define SAMPLE_BYTES ((size_t)256 << 20)

static uint64_t below(uint64_t *state, uint64_t limit)
{
    *state += 0x9e3779b97f4a7c15ull;
    return trn_splitmix64(*state) % limit;
}

static bool all_valid(const uint8_t *valid, size_t count)
{
    return !memchr(valid, 0, count);
}

/* A window at a seeded place: positions go through the scene in equal steps with a random shift, so that few
 * windows still spread over all of it. */
static trn_status read_scene_window(const job_plan *plan, int side, int attempt, uint64_t *state, float *out,
                                    uint8_t *valid, trn_error *err)
{
    uint64_t columns = (uint64_t)(plan->info->width - side) + 1,
             rows = (uint64_t)(plan->info->height - side) + 1;
    uint64_t stratum = (uint64_t)attempt % SAMPLE_WINDOWS;
    uint64_t low = rows * stratum / SAMPLE_WINDOWS, high = rows * (stratum + 1) / SAMPLE_WINDOWS;
    uint64_t y = low + below(state, TRN_MAX(1, high - low)), x = below(state, columns);
    return job_window_read(plan, (int64_t)x, (int64_t)TRN_MIN(y, rows - 1), side, side, out, valid, err);
}

/* A crop of an image picked at random; image holds one whole image, `seen` tells which. */
static trn_status read_image_window(const job_plan *plan, int side, uint64_t *state, float *image,
                                    uint8_t *image_valid, float *out, uint8_t *valid, trn_error *err)
{
    int64_t index = (int64_t)below(state, (uint64_t)plan->windows);
    trn_status status = job_image_read(plan, index, image, image_valid, NULL, err);
    if (status != TRN_OK) return status;
    size_t width = (size_t)plan->width, height = (size_t)plan->height, n = (size_t)side;
    size_t x = below(state, width - n + 1), y = below(state, height - n + 1);
    for (size_t row = 0; row < n; row++) {
        for (size_t b = 0; b < plan->band_count; b++)
            memcpy(out + (b * n + row) * n, image + (b * height + y + row) * width + x, n * sizeof *out);
        memcpy(valid + row * n, image_valid + (y + row) * width + x, n);
    }
    return TRN_OK;
}

/* Fills samples with up to SAMPLE_WINDOWS fully valid windows of this side. */
static trn_status sample_side(const job_plan *plan, int side, job_samples *samples, trn_error *err)
{
    size_t area = (size_t)side * (size_t)side, window = plan->date_count * plan->band_count * area;
    size_t tile_area = plan->images ? (size_t)plan->width * (size_t)plan->height : 0;
    size_t windows =
        TRN_MIN((size_t)SAMPLE_WINDOWS, TRN_MAX((size_t)1, SAMPLE_BYTES / (window * sizeof(float))));
    uint64_t state = SAMPLE_SEED;
    trn_status status = TRN_OK;
    uint8_t *valid = malloc(area + tile_area);
    float *image = malloc((tile_area * plan->band_count + 1) * sizeof *image);
    float *values = malloc(windows * window * sizeof *values);
    size_t found = 0;
    if (!valid || !image || !values)
        status = trn_fail_memory(err, windows * window * sizeof *values, "sample windows");
    for (int attempt = 0; status == TRN_OK && attempt < SAMPLE_TRIES && found < windows; attempt++) {
        if (plan->hooks && trn_progress_cancelled(&plan->hooks->progress)) {
            status = trn_fail_cancelled(err, "sampling the scene");
            break;
        }
        float *out = values + found * window;
        status = plan->images ? read_image_window(plan, side, &state, image, valid ? valid + area : NULL, out,
                                                  valid, err)
                              : read_scene_window(plan, side, attempt, &state, out, valid, err);
        if (status == TRN_OK && all_valid(valid, area)) found++;
    }
    free(valid);
    free(image);
    if (status != TRN_OK || !found) {
        free(values);
        return status;
    }
    *samples = (job_samples){
        .values = values, .count = found, .dates = plan->date_count, .bands = plan->band_count, .side = side};
    return TRN_OK;
}

/* Windows grow smaller until enough of them are free of nodata. count is 0 when none is. */
static trn_status sample(const job_plan *plan, job_samples *samples, trn_error *err)
{
    int64_t largest =
        plan->images ? TRN_MIN(plan->width, plan->height) : TRN_MIN(plan->info->width, plan->info->height);
    int side = (int)TRN_MIN(largest, SAMPLE_SIDE);
    for (;;) {
        job_samples found = {0};
        trn_status status = sample_side(plan, side, &found, err);
        if (status != TRN_OK) return status;
        bool better = found.count * (size_t)found.side * (size_t)found.side >
                      samples->count * (size_t)samples->side * (size_t)samples->side;
        if (better) {
            free(samples->values);
            *samples = found;
        } else {
            free(found.values);
        }
        if (samples->count >= 8 || side / 2 < SMALLEST_SIDE) return TRN_OK;
        side /= 2;
    }
}

/* Windows with only the member's channels, in its order. */
static trn_status fit_member(const job_plan *plan, const planned_encoder *member, const job_samples *samples,
                             trn_error *err)
{
    size_t area = (size_t)samples->side * (size_t)samples->side, n = member->channel_count, first, end,
           to = 0;
    job_member_dates(plan, member, &first, &end);
    size_t count = samples->count * (end - first);
    float *windows = malloc(count * n * area * sizeof *windows);
    if (!windows) return trn_fail_memory(err, count * n * area * sizeof *windows, "fitting windows");
    for (size_t w = 0; w < samples->count; w++)
        for (size_t t = first; t < end; t++)
            for (size_t c = 0; c < n; c++)
                memcpy(windows + to++ * area, job_sample(samples, w, t, member->channels[c]),
                       area * sizeof *windows);
    trn_status status = trn_encoder_fit(member->encoder, windows, count, (int)n, samples->side, err);
    free(windows);
    return status;
}

static trn_status learn_member(const job_plan *plan, planned_encoder *member, const job_samples *samples,
                               trn_error *err)
{
    bool zscore = member->wish->normalize == TRN_NORMALIZE_ZSCORE;
    bool blank = member->wish->remove_position && !plan->pooled;
    if (!member->spec->needs_fit && !zscore && !blank) return TRN_OK;
    if (!samples->count)
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "encoder '%s' learns from the scene's pixels, but no %d x %d pixels without nodata were found "
            "in '%s'",
            member->wish->model, SMALLEST_SIDE, SMALLEST_SIDE, plan->paths[0]);
    trn_status status = zscore ? job_zscore_measure(plan, member, samples, err) : TRN_OK;
    if (status == TRN_OK && blank) status = job_blank_measure(plan, member, samples, err);
    if (status == TRN_OK && member->spec->needs_fit) status = fit_member(plan, member, samples, err);
    return status;
}

trn_status job_plan_learn(job_plan *plan, trn_error *err)
{
    job_samples samples = {0};
    trn_status status = sample(plan, &samples, err);
    if (status == TRN_OK) status = job_ranges_check(plan, &samples, err);
    for (size_t i = 0; status == TRN_OK && i < plan->encoder_count; i++)
        status =
            job_blame(plan->hooks, learn_member(plan, &plan->encoders[i], &samples, err), TRN_JOB_ENCODER, i);
    free(samples.values);
    return status;
}
