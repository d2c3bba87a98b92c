/* bench, part device: what the device does at most, by kernels that do nothing else. */
#include "bench.h"

#include <math.h>
#include <stdlib.h>

enum {
    LANES = 64,  /* invocations of a work group of the kernels here */
    CHAINS = 12, /* of bench_fma.comp */
    STEPS = 16,  /* in a round */
    FMA_ROUNDS = 512,
    READ_ROUNDS = 256,
    ROW = 32768, /* GROUPS_PER_ROW of terrane.glsl */
    REPEATS = 4,
    DISPATCHES = 1000,
};
static const uint64_t MEBIBYTE = 1 << 20;
static const double LONG_ENOUGH = 0.01; /* seconds of a dispatch that is measured well */

/* A kernel over at most two buffers, run alone. */
typedef struct probe {
    trn_gpu *gpu;
    trn_program *program;
    trn_dispatch dispatch;
} probe;

static trn_status probe_open(trn_gpu *gpu, const trn_kernel_desc *desc, probe *out, trn_error *err)
{
    *out = (probe){.gpu = gpu};
    return trn_gpu_kernel(gpu, desc, &out->dispatch.kernel, err);
}

static void set_groups(trn_dispatch *dispatch, uint64_t groups)
{
    dispatch->groups[0] = (uint32_t)TRN_MIN(groups, (uint64_t)ROW);
    dispatch->groups[1] = (uint32_t)((groups + ROW - 1) / ROW);
    dispatch->groups[2] = 1;
}

static void bind(probe *p, int i, trn_gpu_buffer *buffer, bool written)
{
    p->dispatch.bindings[i] = (trn_binding){buffer, 0, trn_gpu_buffer_size(buffer), written};
}

/* Seconds of the fastest of some runs of the dispatch, which is repeated `times` in each. */
static trn_status probe_time(probe *p, int times, double *best, trn_error *err)
{
    trn_status status = trn_program_create(p->gpu, "ceiling", &p->program, err);
    for (int i = 0; status == TRN_OK && i < times; i++)
        status = trn_program_add(p->program, &p->dispatch, err);
    *best = INFINITY;
    for (int i = 0; status == TRN_OK && i < REPEATS + 2; i++) {
        uint64_t start = trn_now_ns();
        status = trn_program_run(p->program, &console_hooks()->progress, err);
        /* the first two runs compile, measure and record */
        if (i >= 2) *best = TRN_MIN(*best, (double)(trn_now_ns() - start) * 1e-9);
    }
    trn_program_destroy(p->program);
    p->program = NULL;
    return status;
}

static trn_status fail_result(const char *what, double wanted, double got, trn_error *err)
{
    return trn_fail(err, TRN_ERR_DEVICE, "the device computed %g where %s gives %g; see terrane selftest",
                    got, what, wanted);
}

/* ---- arithmetic ---- */

static trn_status check_sums(trn_gpu *gpu, trn_gpu_buffer *y, double wanted, trn_error *err)
{
    float values[LANES];
    trn_status status = trn_gpu_read(gpu, y, 0, values, sizeof values, err);
    for (int i = 0; status == TRN_OK && i < LANES; i++)
        if (!(fabs(values[i] - wanted) < 0.02 * wanted))
            status = fail_result("a chain of multiplications and additions", wanted, values[i], err);
    return status;
}

/* More and more work groups until the dispatch takes long enough that its launch does not count. */
static trn_status measure_fma(trn_gpu *gpu, bool packed, double *flops, trn_error *err)
{
    const trn_macro macros[] = {{"PACKED", "1"}};
    const trn_kernel_desc desc = {
        .shader = "bench_fma.comp", .macros = macros, .macro_count = packed, .buffers = 1, .scalars = 3};
    const uint64_t most = 1 << 20;
    const double width = packed ? 2 : 1;
    probe p;
    trn_gpu_buffer *y;
    trn_status status = trn_gpu_buffer_create(gpu, most * LANES * 4, "sums", &y, err);
    if (status != TRN_OK) return status;
    status = probe_open(gpu, &desc, &p, err);
    bind(&p, 0, y, true);
    p.dispatch.scalars[0].f = 0.5F;
    p.dispatch.scalars[1].f = 1;
    p.dispatch.scalars[2].u = FMA_ROUNDS;
    double seconds = 0, work = 0;
    for (uint64_t groups = 64; status == TRN_OK && groups <= most && seconds < LONG_ENOUGH; groups *= 4) {
        set_groups(&p.dispatch, groups);
        work = 2.0 * width * CHAINS * STEPS * FMA_ROUNDS * LANES * (double)groups;
        p.dispatch.flops = work;
        status = probe_time(&p, 1, &seconds, err);
    }
    if (status == TRN_OK) status = check_sums(gpu, y, 2.0 * width * CHAINS, err);
    if (status == TRN_OK) *flops = work / seconds;
    trn_gpu_buffer_destroy(gpu, y);
    return status;
}

/* ---- memory ---- */

static uint64_t power_of_two_below(uint64_t value)
{
    uint64_t power = 1;
    while (power <= value / 2)
        power *= 2;
    return power;
}

/* Larger than caches are, smaller than what the device binds. */
static uint64_t large_bytes(const trn_gpu *gpu)
{
    const trn_device_info *info = trn_gpu_info(gpu);
    uint64_t bytes = info->type == TRN_DEVICE_CPU ? 64 * MEBIBYTE : 512 * MEBIBYTE;
    uint64_t room = trn_gpu_memory_available(gpu) / 4;
    bytes = TRN_MIN(bytes, TRN_MAX(room, MEBIBYTE));
    if (info->max_storage_range) bytes = TRN_MIN(bytes, info->max_storage_range);
    return power_of_two_below(bytes);
}

static trn_status check_copy(trn_gpu *gpu, trn_gpu_buffer *y, uint32_t pattern, trn_error *err)
{
    uint32_t ends[2];
    trn_status status = trn_gpu_read(gpu, y, 0, &ends[0], 4, err);
    if (status == TRN_OK) status = trn_gpu_read(gpu, y, trn_gpu_buffer_size(y) - 4, &ends[1], 4, err);
    if (status == TRN_OK && (ends[0] != pattern || ends[1] != pattern))
        status = fail_result("a copy", pattern, ends[0] != pattern ? ends[0] : ends[1], err);
    return status;
}

typedef struct copy_kind {
    const char *type, *each;
    uint64_t element, count;
} copy_kind;

static trn_status time_copy(trn_gpu *gpu, const copy_kind *kind, trn_gpu_buffer *x, trn_gpu_buffer *y,
                            uint32_t pattern, double *rate, trn_error *err)
{
    const trn_macro macros[] = {{"TYPE", kind->type}, {"EACH", kind->each}};
    const trn_kernel_desc desc = {
        .shader = "bench_copy.comp", .macros = macros, .macro_count = 2, .buffers = 2, .scalars = 1};
    uint64_t bytes = trn_gpu_buffer_size(x), count = bytes / kind->element;
    probe p;
    double seconds = 0;
    trn_status status = probe_open(gpu, &desc, &p, err);
    if (status == TRN_OK) status = trn_gpu_fill(gpu, x, 0, bytes, pattern, err);
    bind(&p, 0, x, false);
    bind(&p, 1, y, true);
    p.dispatch.scalars[0].u = (uint32_t)count;
    p.dispatch.bytes = 2.0 * (double)bytes;
    set_groups(&p.dispatch, (count + LANES * kind->count - 1) / (LANES * kind->count));
    if (status == TRN_OK) status = probe_time(&p, 1, &seconds, err);
    if (status == TRN_OK) status = check_copy(gpu, y, pattern, err);
    if (status == TRN_OK) *rate = TRN_MAX(*rate, 2.0 * (double)bytes / seconds);
    return status;
}

/* The best of some ways to write it: which one is fast differs from device to device. */
static trn_status measure_copy(trn_gpu *gpu, double *rate, trn_error *err)
{
    static const copy_kind kinds[] = {{"Float", "1", 4, 1}, {"Vec4", "1", 16, 1}, {"Vec4", "4", 16, 4}};
    uint64_t bytes = large_bytes(gpu);
    trn_gpu_buffer *x, *y = NULL;
    trn_status status = trn_gpu_buffer_create(gpu, bytes, "source", &x, err);
    if (status == TRN_OK) status = trn_gpu_buffer_create(gpu, bytes, "target", &y, err);
    for (size_t i = 0; status == TRN_OK && i < TRN_COUNT(kinds); i++)
        status = time_copy(gpu, &kinds[i], x, y, 0x10203040u + (uint32_t)i, rate, err);
    trn_gpu_buffer_destroy(gpu, x);
    trn_gpu_buffer_destroy(gpu, y);
    return status;
}

static trn_status measure_cache(trn_gpu *gpu, double *rate, trn_error *err)
{
    const trn_kernel_desc desc = {.shader = "bench_read.comp", .buffers = 2, .scalars = 2};
    const uint64_t bytes = MEBIBYTE / 4, most = 1 << 16;
    const union {
        float f;
        uint32_t u;
    } one = {.f = 1};
    trn_gpu_buffer *x, *y = NULL;
    probe p;
    trn_status status = trn_gpu_buffer_create(gpu, bytes, "small", &x, err);
    if (status == TRN_OK) status = trn_gpu_buffer_create(gpu, most * LANES * 4, "sums", &y, err);
    if (status == TRN_OK) status = trn_gpu_fill(gpu, x, 0, bytes, one.u, err);
    if (status == TRN_OK) status = probe_open(gpu, &desc, &p, err);
    if (status != TRN_OK) goto fail;
    bind(&p, 0, x, false);
    bind(&p, 1, y, true);
    p.dispatch.scalars[0].u = (uint32_t)(bytes / 16 - 1);
    p.dispatch.scalars[1].u = READ_ROUNDS;
    double seconds = 0, read = 0;
    for (uint64_t groups = 16; status == TRN_OK && groups <= most && seconds < LONG_ENOUGH; groups *= 4) {
        set_groups(&p.dispatch, groups);
        read = 16.0 * READ_ROUNDS * LANES * (double)groups;
        p.dispatch.bytes = read;
        status = probe_time(&p, 1, &seconds, err);
    }
    if (status == TRN_OK) status = check_sums(gpu, y, 4.0 * READ_ROUNDS, err);
    if (status == TRN_OK) *rate = read / seconds;
fail:
    trn_gpu_buffer_destroy(gpu, x);
    trn_gpu_buffer_destroy(gpu, y);
    return status;
}

/* ---- launching ---- */

static trn_status check_count(trn_gpu *gpu, trn_gpu_buffer *y, uint32_t wanted, trn_error *err)
{
    uint32_t count;
    trn_status status = trn_gpu_read(gpu, y, 0, &count, 4, err);
    if (status == TRN_OK && count != wanted)
        status = fail_result("a row of dispatches that count", wanted, count, err);
    return status;
}

/* Each dispatch waits for the one before it, as those of a graph mostly do. */
static trn_status measure_launch(trn_gpu *gpu, double *dispatch, double *submission, trn_error *err)
{
    const trn_kernel_desc desc = {.shader = "bench_empty.comp", .buffers = 1, .scalars = 1};
    trn_gpu_buffer *y;
    probe p;
    double many = 0;
    trn_status status = trn_gpu_buffer_create(gpu, 256, "counter", &y, err);
    if (status != TRN_OK) return status;
    status = trn_gpu_fill(gpu, y, 0, 256, 0, err);
    if (status == TRN_OK) status = probe_open(gpu, &desc, &p, err);
    bind(&p, 0, y, true);
    p.dispatch.scalars[0].u = 1;
    p.dispatch.bytes = 8;
    set_groups(&p.dispatch, 1);
    if (status == TRN_OK) status = probe_time(&p, 1, submission, err);
    if (status == TRN_OK) status = probe_time(&p, DISPATCHES, &many, err);
    if (status == TRN_OK) status = check_count(gpu, y, (DISPATCHES + 1) * (REPEATS + 2), err);
    *dispatch = TRN_MAX(many - *submission, 0) / (DISPATCHES - 1);
    trn_gpu_buffer_destroy(gpu, y);
    return status;
}

static trn_status measure_transfer(trn_gpu *gpu, double *upload, double *download, trn_error *err)
{
    const uint64_t bytes = TRN_MIN(large_bytes(gpu), 64 * MEBIBYTE);
    trn_gpu_buffer *buffer;
    char *host = malloc(bytes);
    if (!host) return trn_fail_memory(err, bytes, "a transfer");
    trn_status status = trn_gpu_buffer_create(gpu, bytes, "transfer", &buffer, err);
    for (uint64_t i = 0; i < bytes; i++)
        host[i] = (char)(i % 251);
    double best[2] = {INFINITY, INFINITY};
    for (int i = 0; status == TRN_OK && i < REPEATS; i++) {
        uint64_t start = trn_now_ns();
        status = trn_gpu_write(gpu, buffer, 0, host, bytes, err);
        uint64_t middle = trn_now_ns();
        if (status == TRN_OK) status = trn_gpu_read(gpu, buffer, 0, host, bytes, err);
        best[0] = TRN_MIN(best[0], (double)(middle - start) * 1e-9);
        best[1] = TRN_MIN(best[1], (double)(trn_now_ns() - middle) * 1e-9);
    }
    for (uint64_t i = 0; status == TRN_OK && i < bytes; i++)
        if (host[i] != (char)(i % 251)) status = fail_result("a transfer", (char)(i % 251), host[i], err);
    *upload = (double)bytes / best[0];
    *download = (double)bytes / best[1];
    trn_gpu_buffer_destroy(gpu, buffer);
    free(host);
    return status;
}

/* ---- the part ---- */

/* What fractions need. */
trn_status bench_ceilings_need(bench *b, trn_error *err)
{
    if (b->measured) return TRN_OK;
    trn_gpu *gpu;
    trn_progress_report(&console_hooks()->progress, "ceilings", 0, 2);
    trn_status status = bench_gpu_open(b, &gpu, err);
    if (status != TRN_OK) return status;
    status = measure_fma(gpu, false, &b->ceilings.flops, err);
    trn_progress_report(&console_hooks()->progress, "ceilings", 1, 2);
    if (status == TRN_OK) status = measure_copy(gpu, &b->ceilings.copy, err);
    trn_progress_report(&console_hooks()->progress, "ceilings", 2, 2);
    trn_gpu_close(gpu);
    b->measured = status == TRN_OK;
    return status;
}

static trn_status measure_rest(bench *b, trn_error *err)
{
    trn_gpu *gpu;
    bench_ceilings *c = &b->ceilings;
    trn_status status = bench_gpu_open(b, &gpu, err);
    if (status != TRN_OK) return status;
    if (trn_gpu_info(gpu)->float16) status = measure_fma(gpu, true, &c->half_flops, err);
    if (status == TRN_OK) status = measure_cache(gpu, &c->cache, err);
    if (status == TRN_OK) status = measure_launch(gpu, &c->dispatch, &c->submission, err);
    if (status == TRN_OK) status = measure_transfer(gpu, &c->upload, &c->download, err);
    trn_gpu_close(gpu);
    return status;
}

trn_status bench_device(bench *b, trn_error *err)
{
    trn_status status = bench_ceilings_need(b, err);
    if (status == TRN_OK) status = measure_rest(b, err);
    const bench_ceilings *c = &b->ceilings;
    const struct {
        const char *name, *unit;
        double value;
    } rows[] = {
        {"float32 multiply-add", "GFLOP/s", c->flops * 1e-9},
        {"float16 multiply-add", "GFLOP/s", c->half_flops * 1e-9},
        {"copy in memory", "GB/s", c->copy * 1e-9},
        {"read from cache", "GB/s", c->cache * 1e-9},
        {"host to device", "GB/s", c->upload * 1e-9},
        {"device to host", "GB/s", c->download * 1e-9},
        {"dispatch", "us", c->dispatch * 1e6},
        {"submission", "us", c->submission * 1e6},
    };
    for (size_t i = 0; status == TRN_OK && i < TRN_COUNT(rows); i++) {
        char key[64];
        if (rows[i].value <= 0) continue; /* no float16 arithmetic */
        snprintf(key, sizeof key, "device %s", rows[i].name);
        status = bench_add(b, "device", key, rows[i].value, rows[i].unit, "", err);
        if (status == TRN_OK)
            status = bench_say(b, err, "  %-22s %10.4g %s", rows[i].name, rows[i].value, rows[i].unit);
    }
    return status;
}
