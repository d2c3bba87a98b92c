/* Z-score statistics of a scene: mean and standard deviation per channel, from the sampled windows. */
#include "job_private.h"

#include <math.h>

trn_status job_zscore_measure(const job_plan *plan, planned_encoder *member, const job_samples *samples,
                              trn_error *err)
{
    size_t n = member->channel_count, area = (size_t)samples->side * (size_t)samples->side;
    member->mean = trn_arena_array(plan->arena, n, sizeof(float));
    member->std = trn_arena_array(plan->arena, n, sizeof(float));
    if (!member->mean || !member->std) return trn_fail_memory(err, n * sizeof(float), "z-score statistics");
    for (size_t c = 0; c < n; c++) {
        double sum = 0, squares = 0, count = (double)samples->count * (double)area;
        for (size_t w = 0; w < samples->count; w++) {
            const float *values =
                samples->values + (w * plan->band_count + (size_t)member->channels[c]) * area;
            /* a window at a time: sums stay near each other in size */
            double window = 0, window_squares = 0;
            for (size_t i = 0; i < area; i++) {
                double value = (double)values[i] * (double)member->scale[c] + (double)member->offset[c];
                window += value;
                window_squares += value * value;
            }
            sum += window;
            squares += window_squares;
        }
        double mean = sum / count, variance = squares / count - mean * mean;
        /* a constant band becomes zeros */
        double std = variance > 1e-12 * mean * mean ? sqrt(variance) : 1;
        member->mean[c] = (float)mean;
        member->std[c] = (float)std;
    }
    return TRN_OK;
}
