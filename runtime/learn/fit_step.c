/* A step of training: its runs; while one is under way, the batch of the next is taken and handed to the
 * device.
 *
 * The next run itself is started when this one has ended well: what the host then knows decides its inputs,
 * and whether there is one. */
#include "fit.h"

#include <math.h>
#include <string.h>

enum { SEATS = 2, WAIT_MS = 10 };

int fit_step_seats(void)
{
    return trn_gpu_disabled("overlap") ? 1 : SEATS;
}

static double seconds_since(uint64_t begun)
{
    return (double)(trn_now_ns() - begun) * 1e-9;
}

/* ---- what is not finite ---- */

/* The batch of a run of the step that is being taken, once more. */
static trn_status read_again(fit *f, int run, trn_batch *batch, trn_error *err)
{
    size_t at = (size_t)(f->state.batch + run);
    trn_status status = trn_batches_start_at(f->batches, (uint64_t)f->state.epoch, at, err);
    return status == TRN_OK ? trn_batches_next(f->batches, batch, err) : status;
}

static trn_status fail_nonfinite(fit *f, int run, const float *now, const char *what, double value,
                                 trn_error *err)
{
    trn_text culprit = {0};
    trn_error cause = {0};
    trn_batch batch;
    trn_status status = read_again(f, run, &batch, &cause);
    if (status == TRN_OK) status = fit_engine_diagnose(f, &batch, now, &culprit, &cause);
    if (status == TRN_ERR_MEMORY)
        trn_text_add(&culprit, "it cannot be told, because keeping all values does not fit in device memory");
    else if (status != TRN_OK)
        trn_text_printf(&culprit, "it cannot be told (%.300s)", cause.message);
    char kept[512];
    if (f->has_last)
        snprintf(kept, sizeof kept, "the checkpoint of step %lld is kept: '%.400s'", (long long)f->last_step,
                 f->last_path);
    else
        snprintf(kept, sizeof kept, "no checkpoint had been written yet");
    trn_fail(err, TRN_ERR_UNSUPPORTED,
             "step %lld (epoch %lld): the %s is %g. The first operator that made it: %.900s; %s. A smaller "
             "learning rate, a warm-up or clipping (max_norm) may help",
             (long long)f->state.step + 1, (long long)f->state.epoch + 1, what, value, trn_text_get(&culprit),
             kept);
    trn_text_free(&culprit);
    return TRN_ERR_UNSUPPORTED;
}

/* Whether the scale of the loss alone may be why gradients are not finite: then the step is left out. */
static bool may_overflow(const fit *f)
{
    return f->options->mixed && f->state.loss_scale > 1;
}

void fit_adapt_scale(fit_state *state, bool good)
{
    enum { PATIENCE = 2000, ENOUGH = 1 << 24 };
    state->good_steps = good ? state->good_steps + 1 : 0;
    if (!good) state->loss_scale = fmax(1, state->loss_scale / 2);
    if (state->good_steps < PATIENCE) return;
    state->good_steps = 0;
    if (state->loss_scale < ENOUGH) state->loss_scale *= 2;
}

/* ---- a run ---- */

/* Takes the batch of the next run into its seat; what fails is kept for that run to tell. */
static void stage(fit *f)
{
    trn_batch batch;
    trn_error *err = &f->staged_error;
    const fit_inputs inputs = {f->engine.train, f->seat};
    *err = (trn_error){0};
    trn_status status = trn_batches_next(f->batches, &batch, err);
    if (status == TRN_OK && !batch.count)
        status = trn_fail(err, TRN_ERR_INTERNAL, "an epoch ended before its last step");
    if (status == TRN_OK) status = fit_engine_feed(f, &inputs, &batch, true, err);
    f->staged_status = status;
    f->staged = true;
}

/* While the seat's run is under way: a batch that takes longer than the run is left to the next run, so that
 * the device's share of the time stays true. */
static trn_status stage_ahead(fit *f, int seat, int run, trn_error *err)
{
    bool done = false, more = f->state.batch + run + 1 < f->epoch_steps * f->runs;
    trn_status status = TRN_OK;
    if (!more || f->seat == seat) return TRN_OK;
    while (status == TRN_OK && !done && !trn_batches_wait(f->batches, WAIT_MS)) {
        status = trn_exec_advance(f->engine.train, err);
        if (status == TRN_OK) status = trn_exec_seat_done(f->engine.train, seat, &done, err);
    }
    if (status == TRN_OK && !done) stage(f);
    return status;
}

/* Not to be stopped in the middle: weights would be half new. */
static trn_status run_staged(fit *f, int run, const float *now, trn_error *err)
{
    trn_exec *exec = f->engine.train;
    const fit_inputs inputs = {exec, f->seat};
    trn_status status = fit_engine_begin(f, &inputs, now, err);
    if (status != TRN_OK) return status;
    uint64_t begun = trn_now_ns();
    status = trn_exec_start(exec, inputs.seat, NULL, err);
    f->seat = (f->seat + 1) % fit_step_seats();
    if (status == TRN_OK) status = stage_ahead(f, inputs.seat, run, err);
    if (status == TRN_OK) status = trn_exec_finish(exec, inputs.seat, NULL, err);
    f->run_seconds += seconds_since(begun);
    return status;
}

static trn_status get_number(const fit *f, int seat, const char *name, double *out, trn_error *err)
{
    const float *value = trn_exec_seat_get(f->engine.train, seat, name, err);
    if (!value) return TRN_ERR_INTERNAL;
    *out = (double)*value;
    return TRN_OK;
}

/* One run of the graph that trains. */
static trn_status run_batch(fit *f, int run, double rate, double *loss, double *norm, trn_error *err)
{
    float now[TRN_STEP_NOW];
    int seat = f->seat;
    if (!f->staged) stage(f);
    f->staged = false;
    if (f->staged_status != TRN_OK) {
        if (err) *err = f->staged_error;
        return f->staged_status;
    }
    trn_optimizer_now(&f->optimizer, f->state.step, run, rate, now);
    now[TRN_STEP_NOW - 1] /= (float)f->state.loss_scale;
    trn_status status = run_staged(f, run, now, err);
    if (status == TRN_OK) status = get_number(f, seat, "loss", loss, err);
    if (status != TRN_OK) return status;
    if (!isfinite(*loss)) return fail_nonfinite(f, run, now, "loss", *loss, err);
    if (run < f->runs - 1) return TRN_OK;
    status = get_number(f, seat, TRN_GRADIENT_NORM, norm, err);
    if (status == TRN_OK && !isfinite(*norm) && !may_overflow(f))
        status = fail_nonfinite(f, run, now, "norm of the gradients", *norm, err);
    return status;
}

trn_status fit_step_take(fit *f, trn_error *err)
{
    double sum = 0, norm = 0, rate = trn_schedule_at(&f->schedule, f->state.step);
    for (int run = 0; run < f->runs; run++) {
        double loss = 0;
        trn_status status = run_batch(f, run, rate, &loss, &norm, err);
        if (status != TRN_OK) return status;
        sum += loss;
    }
    f->state.step++;
    f->state.batch += f->runs;
    f->state.loss_sum += sum / f->runs;
    f->state.loss_count++;
    f->trained += (int64_t)f->options->batch * f->runs;
    double scale = f->options->mixed ? f->state.loss_scale : 0;
    if (scale > 0) fit_adapt_scale(&f->state, isfinite(norm));
    return fit_log_step(&f->log, &f->state, sum / f->runs, rate, norm, scale, err);
}
