/* Statistics of a scene from the sampled windows: mean and standard deviation per channel. */
#include "job_private.h"

#include <math.h>

const float *job_sample(const job_samples *samples, size_t window, size_t date, int band)
{
    size_t area = (size_t)samples->side * (size_t)samples->side;
    return samples->values + ((window * samples->dates + date) * samples->bands + (size_t)band) * area;
}

void job_member_dates(const job_plan *plan, const planned_encoder *member, size_t *first, size_t *end)
{
    size_t date = (size_t)member->wish->date;
    *first = date ? date - 1 : 0;
    *end = date ? date : plan->date_count;
}

measured_channel job_measure_channel(const job_plan *plan, const planned_encoder *member, size_t channel,
                                     double scale, double offset, const job_samples *samples)
{
    size_t area = (size_t)samples->side * (size_t)samples->side, first, end;
    job_member_dates(plan, member, &first, &end);
    size_t dates = end - first, windows = samples->count * dates;
    double lowest = member->low ? (double)member->low[channel] : -INFINITY;
    double highest = member->high ? (double)member->high[channel] : INFINITY;
    double sum = 0, squares = 0, count = (double)windows * (double)area;
    measured_channel m = {.low = INFINITY, .high = -INFINITY};
    for (size_t w = 0; w < windows; w++) {
        const float *values = job_sample(samples, w / dates, first + w % dates, member->channels[channel]);
        /* a window at a time: sums stay near each other in size */
        double window = 0, window_squares = 0;
        for (size_t i = 0; i < area; i++) {
            double value = (double)values[i] > lowest ? (double)values[i] : lowest; /* also of NaN */
            value = (value < highest ? value : highest) * scale + offset;
            window += value;
            window_squares += value * value;
            m.low = TRN_MIN(m.low, value);
            m.high = TRN_MAX(m.high, value);
        }
        sum += window;
        squares += window_squares;
    }
    m.mean = sum / count;
    double variance = squares / count - m.mean * m.mean;
    m.std = variance > 1e-12 * m.mean * m.mean ? sqrt(variance) : 0;
    return m;
}

trn_status job_zscore_measure(const job_plan *plan, planned_encoder *member, const job_samples *samples,
                              trn_error *err)
{
    size_t n = member->channel_count;
    member->mean = trn_arena_array(plan->arena, n, sizeof(float));
    member->std = trn_arena_array(plan->arena, n, sizeof(float));
    if (!member->mean || !member->std) return trn_fail_memory(err, n * sizeof(float), "z-score statistics");
    for (size_t c = 0; c < n; c++) {
        measured_channel m = job_measure_channel(plan, member, c, (double)member->scale[c],
                                                 (double)member->offset[c], samples);
        member->mean[c] = (float)m.mean;
        member->std[c] = m.std > 0 ? (float)m.std : 1; /* a constant band becomes zeros */
    }
    return TRN_OK;
}

trn_status job_blank_measure(const job_plan *plan, planned_encoder *member, const job_samples *samples,
                             trn_error *err)
{
    size_t n = member->channel_count;
    member->blank = trn_arena_array(plan->arena, n, sizeof(float));
    if (!member->blank) return trn_fail_memory(err, n * sizeof(float), "the mean colour");
    for (size_t c = 0; c < n; c++)
        member->blank[c] = (float)job_measure_channel(plan, member, c, 1, 0, samples).mean;
    return TRN_OK;
}
