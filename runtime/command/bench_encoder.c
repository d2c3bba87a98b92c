/* bench, part encoders: images a second of whole forward passes. */
#include "bench.h"

#include <math.h>
#include <stdlib.h>

/* One encoder at one batch. */
typedef struct timing {
    int batch, runs;
    double median, fastest, cpu, first, gflop; /* seconds; of a pass; first: compilation and the first run */
    uint64_t device_peak, plan_bytes, process_peak, compiled;
} timing;

typedef struct search { /* of one encoder: what was measured already */
    bench *b;
    bench_model model;
    timing *timings;
    size_t count, capacity;
} search;

static double images_per_second(const timing *t)
{
    return t->batch / t->median;
}

/* ---- measuring ---- */

/* At least one run; no more than the budget allows. */
static trn_status timed_runs(const bench *b, trn_exec *exec, timing *out, trn_error *err)
{
    size_t wanted = (size_t)b->values->runs, count = 0;
    double *seconds = calloc(wanted, 2 * sizeof *seconds), *cpu = seconds + wanted;
    if (!seconds) return trn_fail_memory(err, 2 * wanted * sizeof *seconds, "the times");
    trn_status status = TRN_OK;
    while (status == TRN_OK && count < wanted && (!count || bench_seconds_left(b) > seconds[count - 1])) {
        double before = bench_cpu_seconds();
        status = bench_run(exec, &seconds[count], err);
        cpu[count++] = bench_cpu_seconds() - before;
    }
    out->runs = (int)count;
    out->cpu = bench_median(cpu, count);
    out->median = bench_median(seconds, count);
    out->fastest = seconds[0]; /* bench_median sorts */
    free(seconds);
    return status;
}

static trn_status time_batch(search *s, trn_gpu *gpu, int batch, timing *out, trn_error *err)
{
    bench_pass pass;
    *out = (timing){.batch = batch};
    bench_process_peak_restart();
    uint64_t start = trn_now_ns();
    trn_status status = bench_pass_open(&s->model, gpu, s->b->precision, batch, false, &pass, err);
    if (status == TRN_OK) status = bench_run(pass.exec, NULL, err);
    out->first = (double)(trn_now_ns() - start) * 1e-9;
    if (status == TRN_OK) status = timed_runs(s->b, pass.exec, out, err);
    if (status == TRN_OK) {
        trn_exec_summary sum = trn_exec_summarize(pass.exec);
        trn_gpu_stats stats = trn_gpu_get_stats(gpu);
        out->gflop = sum.flops * 1e-9;
        out->plan_bytes = sum.weight_bytes + sum.arena_bytes;
        out->device_peak = stats.memory_peak;
        out->compiled = stats.shaders_compiled;
        out->process_peak = bench_process_peak();
        status = bench_say_profile(s->b, pass.exec, err);
    }
    bench_pass_close(&pass);
    return status;
}

static const timing *find(const search *s, int batch)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->timings[i].batch == batch) return &s->timings[i];
    return NULL;
}

/* Whether a batch is likely to end within the budget, by what smaller ones took. */
static bool fits_budget(const search *s, int batch)
{
    double left = bench_seconds_left(s->b), per_image = 0;
    if (isinf(left)) return true;
    if (left <= 0) return false;
    for (size_t i = 0; i < s->count; i++)
        per_image = s->timings[i].median / s->timings[i].batch;
    return per_image * batch * 2 < left; /* the first run and a timed one */
}

/* Measures a batch unless it was; *out NULL: left out, as there is neither time nor memory for it. */
static trn_status need(search *s, int batch, const timing **out, trn_error *err)
{
    *out = find(s, batch);
    if (*out) return TRN_OK;
    if (!fits_budget(s, batch))
        return bench_leave_out(s->b, err, "%s, batch %d: no time left (--seconds)", s->model.name, batch);
    if (!trn_grow(&s->timings, &s->capacity, s->count + 1, sizeof *s->timings))
        return trn_fail_memory(err, sizeof *s->timings, "the times");
    trn_gpu *gpu;
    trn_status status = bench_gpu_open(s->b, &gpu, err);
    if (status != TRN_OK) return status;
    status = time_batch(s, gpu, batch, &s->timings[s->count], err);
    trn_gpu_close(gpu);
    if (status == TRN_OK) *out = &s->timings[s->count++];
    return status;
}

/* ---- reporting ---- */

static const char *dates_text(const search *s, char out[32])
{
    *out = 0;
    if (s->model.dates > 1) snprintf(out, 32, ", %zu dates", s->model.dates);
    return out;
}

static trn_status say(const search *s, const timing *t, bool best, double fraction, trn_error *err)
{
    char device[32], process[32], dates[32];
    return bench_say(s->b, err,
                     "  %-20s %5d%s%s  %9.4g images/s  median %.4g s, fastest %.4g s of %d  %8.4g GFLOP/s "
                     "(%.0f %%)  first %.3g s  device %s, process %s",
                     s->model.name, t->batch, best ? " (best)" : "", dates_text(s, dates),
                     images_per_second(t), t->median, t->fastest, t->runs, t->gflop / t->median,
                     100 * fraction, t->first, trn_format_bytes(t->device_peak, device),
                     trn_format_bytes(t->process_peak, process));
}

static void write_members(const search *s, const timing *t, bool best, double fraction, trn_text *out)
{
    trn_text_add(out, "\"model\": ");
    trn_text_json(out, s->model.name);
    trn_text_printf(out,
                    ", \"batch\": %d, \"best\": %s, \"dates\": %zu, \"precision\": \"%s\", \"runs\": %d, "
                    "\"seconds_median\": %.6g, \"seconds_min\": %.6g, \"seconds_per_image\": %.6g, "
                    "\"images_per_second\": %.6g, \"cpu_seconds_median\": %.6g",
                    t->batch, best ? "true" : "false", s->model.dates, trn_precision_name(s->b->precision),
                    t->runs, t->median, t->fastest, t->median / t->batch, images_per_second(t), t->cpu);
    trn_text_printf(out,
                    ", \"gflop\": %.6g, \"gflop_per_second\": %.6g, \"fraction\": %.4g, "
                    "\"first_run_seconds\": %.4g, \"shaders_compiled\": %llu, \"memory_bytes\": %llu, "
                    "\"plan_bytes\": %llu, \"process_peak_bytes\": %llu",
                    t->gflop, t->gflop / t->median, fraction, t->first, (unsigned long long)t->compiled,
                    (unsigned long long)t->device_peak, (unsigned long long)t->plan_bytes,
                    (unsigned long long)t->process_peak);
}

static trn_status add(const search *s, const timing *t, bool best, trn_error *err)
{
    char key[192], dates[32];
    trn_text members = {0};
    double fraction = t->gflop * 1e9 / t->median / s->b->ceilings.flops;
    if (best)
        snprintf(key, sizeof key, "encoder %s, batch best%s%s", s->model.name, dates_text(s, dates),
                 bench_precision_note(s->b));
    else
        snprintf(key, sizeof key, "encoder %s, batch %d%s%s", s->model.name, t->batch, dates_text(s, dates),
                 bench_precision_note(s->b));
    write_members(s, t, best, fraction, &members);
    trn_status status =
        bench_add(s->b, "encoder", key, images_per_second(t), "images/s", trn_text_get(&members), err);
    trn_text_free(&members);
    return status == TRN_OK ? say(s, t, best, fraction, err) : status;
}

/* ---- the part ---- */

static const timing *best_of(const search *s)
{
    const timing *best = NULL;
    for (size_t i = 0; i < s->count; i++)
        if (!best || images_per_second(&s->timings[i]) > images_per_second(best)) best = &s->timings[i];
    return best;
}

static int largest_of(const search *s)
{
    int largest = 0;
    for (size_t i = 0; i < s->count; i++)
        largest = TRN_MAX(largest, s->timings[i].batch);
    return largest;
}

/* Twice the batch as long as it gains, and there are memory and time for it. */
static trn_status find_best(search *s, trn_error *err)
{
    enum { LARGEST = 4096 };
    const double gain = 1.03;
    const timing *t;
    trn_status status = TRN_OK;
    if (!s->count) status = need(s, 1, &t, err);
    while (status == TRN_OK && s->count) {
        const timing *best = best_of(s);
        double rate = images_per_second(best);
        int batch = 2 * best->batch;
        if (best->batch < largest_of(s) || batch > LARGEST || !fits_budget(s, batch)) break;
        status = need(s, batch, &t, err);
        if (status != TRN_OK || !t || images_per_second(t) < gain * rate) break;
    }
    if (status == TRN_ERR_MEMORY && s->count) status = TRN_OK;
    const timing *best = best_of(s);
    return status == TRN_OK && best ? add(s, best, true, err) : status;
}

static trn_status bench_batches(search *s, trn_error *err)
{
    static const int one = 1;
    const bench *b = s->b;
    const int *batches = b->batch_count ? b->batches : &one;
    size_t count = b->batch_count ? b->batch_count : 1;
    bool alone = b->model_count == 1 && count == 1; /* then a failure is one of the command */
    for (size_t i = 0; i < count; i++) {
        const timing *t = NULL;
        trn_status status = batches[i] ? need(s, batches[i], &t, err) : find_best(s, err);
        if (status == TRN_OK && t) status = add(s, t, false, err);
        if (!alone && bench_may_go_on(status)) status = bench_leave_out(s->b, err, "%s", err->message);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}

trn_status bench_encoders(bench *b, trn_error *err)
{
    trn_status status = bench_ceilings_need(b, err);
    if (status == TRN_OK)
        status = bench_say(b, err, "encoders: fractions are of %.4g GFLOP/s", b->ceilings.flops * 1e-9);
    for (size_t i = 0; status == TRN_OK && i < b->model_count; i++) {
        search s = {.b = b};
        status = bench_model_open(b, b->models[i], &s.model, err);
        if (status == TRN_OK) status = bench_batches(&s, err);
        bench_model_close(&s.model);
        free(s.timings);
    }
    return status;
}
