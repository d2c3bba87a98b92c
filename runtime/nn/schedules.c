/* Schedules: the learning rate of a step. */
#include "nn.h"

#include <math.h>

trn_status trn_schedule_check(const trn_schedule *schedule, trn_error *err)
{
    const trn_schedule *s = schedule;
    if (!(s->base >= 0) || !(s->last >= 0) || !(s->start >= 0) || !isfinite(s->base + s->last + s->start))
        return trn_fail(err, TRN_ERR_ARGUMENT, "schedule: learning rates are numbers that are not negative");
    if (s->warmup < 0) return trn_fail(err, TRN_ERR_ARGUMENT, "schedule: warmup is negative");
    if (s->kind == TRN_SCHEDULE_COSINE && s->steps <= s->warmup)
        return trn_fail(err, TRN_ERR_ARGUMENT, "schedule: %lld steps leave nothing behind a warm-up of %lld",
                        (long long)s->steps, (long long)s->warmup);
    if (s->kind == TRN_SCHEDULE_STEP && (s->every < 1 || !(s->factor >= 0)))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "schedule: `every` is at least 1 step, and its factor is not negative");
    return TRN_OK;
}

double trn_schedule_at(const trn_schedule *schedule, int64_t step)
{
    const trn_schedule *s = schedule;
    const double pi = 3.14159265358979323846;
    if (step < s->warmup) return s->start + (s->base - s->start) * (double)step / (double)s->warmup;
    step -= s->warmup;
    switch (s->kind) {
    case TRN_SCHEDULE_COSINE: {
        double done = TRN_MIN((double)step / (double)(s->steps - s->warmup), 1.0);
        return s->last + (s->base - s->last) * 0.5 * (1 + cos(pi * done));
    }
    case TRN_SCHEDULE_STEP:
        step /= s->every; /* how often it dropped */
        return TRN_MAX(s->base * pow(s->factor, (double)step), s->last);
    default:
        return s->base;
    }
}
