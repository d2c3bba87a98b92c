/* bench, part operators: every operator, with what is fused to it, at the shapes that encoders have; and
 * single matrix products. Times are those of timestamps around each dispatch. */
#include "bench.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PASSES = 3 }; /* profiled, after one that is not counted */

/* An operator at its shapes: "matmul+gelu [197,768] [3072,768] -> [197,3072]". */
typedef struct row {
    const char *what, *kernel, *models;
    size_t count; /* in a pass of the first model that has it */
    double flops, bytes;
    double *seconds; /* of each time that it ran */
    size_t timed, capacity;
    double median;
    double cpu; /* of products: processor seconds of the run with the fewest */
} row;

typedef struct table {
    bench *b;
    row *rows;
    size_t count, capacity;
} table;

static void table_free(table *t)
{
    for (size_t i = 0; i < t->count; i++)
        free(t->rows[i].seconds);
    free(t->rows);
}

static row *table_find(const table *t, const char *what)
{
    for (size_t i = 0; i < t->count; i++)
        if (!strcmp(t->rows[i].what, what)) return &t->rows[i];
    return NULL;
}

static row *table_add(table *t, const char *what)
{
    if (!trn_grow(&t->rows, &t->capacity, t->count + 1, sizeof *t->rows)) return NULL;
    row *r = &t->rows[t->count];
    *r = (row){.what = trn_arena_strdup(t->b->arena, what), .models = ""};
    if (!r->what) return NULL;
    t->count++;
    return r;
}

/* ---- reading executables ---- */

/* One operator of a run: its dispatches follow each other. */
typedef struct visit {
    trn_text what, kernel;
    double seconds, flops, bytes;
} visit;

static void visit_free(visit *v)
{
    trn_text_free(&v->what);
    trn_text_free(&v->kernel);
}

/* The operator that begins at dispatch *i, which moves behind it. */
static visit next_visit(const trn_exec *exec, size_t *i)
{
    visit v = {0};
    size_t count = trn_exec_step_count(exec), first = *i;
    size_t group = trn_exec_step_at(exec, first, &v.what).group;
    for (; *i < count; (*i)++) {
        trn_exec_step step = trn_exec_step_at(exec, *i, NULL);
        if (step.group != group) break;
        v.seconds += step.seconds;
        v.flops += step.flops;
        v.bytes += step.bytes;
        trn_text_printf(&v.kernel, "%s%s", *i > first ? " + " : "", step.shader);
        if (step.variant) trn_text_printf(&v.kernel, " (%s)", step.variant);
    }
    return v;
}

static bool add_model(const table *t, row *r, const char *model)
{
    size_t length = strlen(r->models), name = strlen(model);
    if (length >= name && !strcmp(r->models + length - name, model)) return true;
    r->models = trn_arena_printf(t->b->arena, "%s%s%s", r->models, *r->models ? ", " : "", model);
    return r->models != NULL;
}

static bool add_time(row *r, double seconds)
{
    if (!trn_grow(&r->seconds, &r->capacity, r->timed + 1, sizeof *r->seconds)) return false;
    r->seconds[r->timed++] = seconds;
    return true;
}

/* Takes an operator of a run into the table; `fresh` counts how often a pass has it. */
static bool take_visit(table *t, const visit *v, const char *model, bool fresh)
{
    if (v->what.failed || v->kernel.failed) return false;
    row *r = table_find(t, trn_text_get(&v->what));
    if (!r) r = table_add(t, trn_text_get(&v->what));
    if (!r || !add_model(t, r, model)) return false;
    bool first = !strcmp(r->models, model);
    if (!r->kernel) r->kernel = trn_arena_strdup(t->b->arena, trn_text_get(&v->kernel));
    r->flops = v->flops;
    r->bytes = v->bytes;
    r->count += fresh && first;
    return r->kernel && add_time(r, v->seconds);
}

static trn_status take_pass(table *t, const trn_exec *exec, const char *model, bool fresh, trn_error *err)
{
    size_t count = trn_exec_step_count(exec);
    for (size_t i = 0; i < count;) {
        visit v = next_visit(exec, &i);
        bool taken = take_visit(t, &v, model, fresh);
        visit_free(&v);
        if (!taken) return trn_fail_memory(err, sizeof(row), "the table of operators");
    }
    return TRN_OK;
}

/* Whether every operator of a planned pass is in the table; notes the model where it is. */
static bool all_known(table *t, const trn_exec *exec, const char *model)
{
    bool known = true;
    size_t count = trn_exec_step_count(exec);
    for (size_t i = 0; known && i < count;) {
        visit v = next_visit(exec, &i);
        row *r = table_find(t, trn_text_get(&v.what));
        known = r && add_model(t, r, model);
        visit_free(&v);
    }
    return known;
}

/* ---- measuring ---- */

static trn_status run_profiled(table *t, trn_exec *exec, const char *model, double *cpu, trn_error *err)
{
    trn_status status = bench_run(exec, NULL, err);
    trn_exec_profile(exec, true);
    for (int i = 0; status == TRN_OK && i < PASSES; i++) {
        double before = bench_cpu_seconds();
        status = bench_run(exec, NULL, err);
        if (cpu) *cpu = TRN_MIN(*cpu, bench_cpu_seconds() - before);
        if (status == TRN_OK) status = take_pass(t, exec, model, i == 0, err);
    }
    return status;
}

/* A pass that has nothing new, or no time left, is not run. */
static trn_status measure_pass(table *t, bench_model *model, int batch, trn_error *err)
{
    trn_gpu *gpu;
    bench_pass pass;
    trn_status status = bench_gpu_open(t->b, &gpu, err);
    if (status != TRN_OK) return status;
    status = bench_pass_open(model, gpu, t->b->precision, batch, true, &pass, err);
    double estimate = status == TRN_OK ? trn_exec_summarize(pass.exec).estimated_seconds : 0;
    bool known = status == TRN_OK && all_known(t, pass.exec, model->name);
    bench_pass_close(&pass);
    if (status == TRN_OK && !known && estimate * (PASSES + 1) > bench_seconds_left(t->b)) {
        known = true;
        status = bench_leave_out(t->b, err, "operators of %s, batch %d: no time left (--seconds)",
                                 model->name, batch);
    }
    if (status == TRN_OK && !known) {
        status = bench_pass_open(model, gpu, t->b->precision, batch, false, &pass, err);
        if (status == TRN_OK) status = run_profiled(t, pass.exec, model->name, NULL, err);
        bench_pass_close(&pass);
    }
    trn_gpu_close(gpu);
    return status;
}

static trn_status measure_model(table *t, const char *name, trn_error *err)
{
    static const int one = 1;
    const bench *b = t->b;
    const int *batches = b->batch_count ? b->batches : &one;
    size_t count = b->batch_count ? b->batch_count : 1;
    bench_model model;
    trn_status status = bench_model_open(b, name, &model, err);
    for (size_t i = 0; status == TRN_OK && i < count; i++) /* the best batch is not known here */
        if (batches[i]) status = measure_pass(t, &model, batches[i], err);
    bench_model_close(&model);
    if (b->model_count != 1 && bench_may_go_on(status))
        status = bench_leave_out(t->b, err, "%s", err->message);
    return status;
}

/* The encoders asked for, or all that need no scene to learn from, smaller ones first. */
static int compare_sizes(const void *x, const void *y)
{
    const trn_model_info *a = *(const trn_model_info *const *)x, *b = *(const trn_model_info *const *)y;
    return (a->parameters > b->parameters) - (a->parameters < b->parameters);
}

static trn_status measure_all(table *t, trn_error *err)
{
    size_t count = trn_model_count(), used = 0;
    const trn_model_info **infos = trn_arena_array(t->b->arena, count + 1, sizeof *infos);
    if (!infos) return trn_fail_memory(err, count * sizeof *infos, "a list of encoders");
    for (size_t i = 0; i < count; i++)
        if (trn_model_at(i)->source) infos[used++] = trn_model_at(i);
    qsort(infos, used, sizeof *infos, compare_sizes);
    trn_status status = TRN_OK;
    for (size_t i = 0; status == TRN_OK && i < used; i++) {
        trn_progress_report(&console_hooks()->progress, "operators", i, used);
        status = measure_model(t, infos[i]->name, err);
    }
    return status;
}

static trn_status measure_models(table *t, trn_error *err)
{
    const bench *b = t->b;
    if (!b->model_count && !b->values->products.count) return measure_all(t, err);
    trn_status status = TRN_OK;
    for (size_t i = 0; status == TRN_OK && i < b->model_count; i++)
        status = measure_model(t, b->models[i], err);
    return status;
}

/* ---- products ---- */

static trn_status fill_weights(void *user, const char *name, const trn_shape *shape, void *out,
                               trn_error *err)
{
    (void)user, (void)name, (void)err;
    int64_t count = trn_shape_count(shape);
    for (int64_t i = 0; i < count; i++)
        ((float *)out)[i] = (float)trn_hash_uniform(3, (uint64_t)i);
    return TRN_OK;
}

static trn_status parse_product(const char *text, int64_t size[3], trn_error *err)
{
    char tail;
    long long m, k, n;
    const long long most = 1 << 20;
    if (sscanf(text, "%lldx%lldx%lld%c", &m, &k, &n, &tail) != 3 || m < 1 || k < 1 || n < 1 || m > most ||
        k > most || n > most)
        return trn_fail(err, TRN_ERR_ARGUMENT, "--product is '%.64s'; wanted MxKxN, such as 197x768x3072",
                        text);
    size[0] = m;
    size[1] = k;
    size[2] = n;
    return TRN_OK;
}

/* Of the rows from `first` on, the one that has the product itself. */
static void set_cpu(table *t, size_t first, double cpu)
{
    row *most = NULL;
    for (size_t i = first; i < t->count; i++)
        if (!most || t->rows[i].flops > most->flops) most = &t->rows[i];
    if (most) most->cpu = cpu;
}

/* What the host writes and reads is float32: a product of float16 has something before and behind it. */
static void build_product(trn_graph *graph, const int64_t size[3], trn_precision precision)
{
    bool half = precision == TRN_PRECISION_FLOAT16;
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(size[0], size[1]));
    trn_tensor *w = trn_param(graph, "w", TRN_SHAPE(size[2], size[1]), fill_weights, NULL);
    if (half) x = trn_affine(graph, x, 0.5F, 0);
    trn_tensor *y = trn_linear(graph, x, w, NULL);
    trn_output_add(graph, "y", half ? trn_reduce(graph, y, 1, TRN_REDUCE_MAX, false) : y);
}

static trn_status run_product(table *t, trn_gpu *gpu, trn_graph *graph, const int64_t size[3], trn_error *err)
{
    trn_compile_options compile = {0};
    trn_status status = trn_precision_choose(gpu, t->b->precision, &compile.precision, err);
    if (status != TRN_OK) return status;
    build_product(graph, size, compile.precision);
    trn_exec *exec = NULL;
    double cpu = INFINITY;
    size_t first = t->count;
    trn_shape shape = TRN_SHAPE(size[0], size[1]);
    float *values = malloc((size_t)(size[0] * size[1]) * sizeof *values);
    if (!values) return trn_fail_memory(err, (size_t)(size[0] * size[1]) * sizeof *values, "a product");
    fill_weights(NULL, "x", &shape, values, err);
    status = trn_compile(graph, gpu, &compile, &exec, err);
    if (status == TRN_OK) status = trn_exec_set(exec, "x", values, err);
    for (int i = 0; status == TRN_OK && i < TRN_MAX(t->b->values->runs / PASSES, 1); i++)
        status = run_profiled(t, exec, "product", &cpu, err);
    if (status == TRN_OK) set_cpu(t, first, cpu);
    trn_exec_destroy(exec);
    free(values);
    return status;
}

static trn_status measure_product(table *t, const char *text, trn_error *err)
{
    int64_t size[3] = {1, 1, 1};
    trn_status status = parse_product(text, size, err);
    if (status != TRN_OK) return status;
    trn_gpu *gpu;
    status = bench_gpu_open(t->b, &gpu, err);
    if (status != TRN_OK) return status;
    trn_graph *graph = trn_graph_create();
    status = graph ? run_product(t, gpu, graph, size, err) : trn_fail_memory(err, 0, "a graph");
    trn_graph_destroy(graph);
    trn_gpu_close(gpu);
    return status;
}

/* ---- reporting ---- */

/* Time at the ceiling over the time taken; what is bound by memory but fits caches may be above 1. */
static double fraction_of(const bench *b, const row *r, bool *memory)
{
    double compute = r->flops / b->ceilings.flops, copy = r->bytes / b->ceilings.copy;
    *memory = copy > compute;
    return TRN_MAX(compute, copy) / r->median;
}

static int compare_shares(const void *x, const void *y)
{
    const row *a = x, *b = y;
    double left = a->median * (double)a->count, right = b->median * (double)b->count;
    return (left < right) - (left > right);
}

static void write_members(const row *r, double fraction, bool memory, trn_precision precision, trn_text *out)
{
    trn_text_add(out, "\"operator\": ");
    trn_text_json(out, r->what);
    trn_text_add(out, ", \"kernel\": ");
    trn_text_json(out, r->kernel);
    trn_text_add(out, ", \"models\": ");
    trn_text_json(out, r->models);
    trn_text_printf(out,
                    ", \"count\": %zu, \"seconds_median\": %.6g, \"seconds_min\": %.6g, \"flop\": %.6g, "
                    "\"bytes\": %.6g, \"gflop_per_second\": %.6g, \"gbyte_per_second\": %.6g, "
                    "\"fraction\": %.4g, \"bound\": \"%s\", \"precision\": \"%s\"",
                    r->count, r->median, r->seconds[0], r->flops, r->bytes, r->flops / r->median * 1e-9,
                    r->bytes / r->median * 1e-9, fraction, memory ? "memory" : "compute",
                    trn_precision_name(precision));
    if (r->cpu > 0) trn_text_printf(out, ", \"cpu_seconds\": %.6g", r->cpu);
}

static trn_status report_row(bench *b, const row *r, trn_error *err)
{
    bool memory;
    double fraction = fraction_of(b, r, &memory);
    trn_text members = {0}, key = {0};
    write_members(r, fraction, memory, b->precision, &members);
    trn_text_printf(&key, "operator %s%s", r->what, bench_precision_note(b));
    trn_status status = members.failed || key.failed ? trn_fail_memory(err, 256, "the report") : TRN_OK;
    if (status == TRN_OK)
        status =
            bench_add(b, "operator", trn_text_get(&key), r->median * 1e3, "ms", trn_text_get(&members), err);
    trn_text_free(&members);
    trn_text_free(&key);
    if (status != TRN_OK) return status;
    return bench_say(b, err, "  %6zu %10.4g %10.4g %10.2f %10.2f %6.0f %% %-7s  %s  | %s", r->count,
                     r->median * 1e3, r->median * 1e3 * (double)r->count, r->flops / r->median * 1e-9,
                     r->bytes / r->median * 1e-9, 100 * fraction, memory ? "memory" : "compute", r->what,
                     r->kernel);
}

static trn_status report_table(table *t, trn_error *err)
{
    bench *b = t->b;
    for (size_t i = 0; i < t->count; i++)
        t->rows[i].median = TRN_MAX(bench_median(t->rows[i].seconds, t->rows[i].timed), 1e-9);
    if (t->count) qsort(t->rows, t->count, sizeof *t->rows, compare_shares);
    trn_status status =
        bench_say(b, err, "operators: fractions are of %.4g GFLOP/s or %.4g GB/s, whichever binds",
                  b->ceilings.flops * 1e-9, b->ceilings.copy * 1e-9);
    if (status == TRN_OK)
        status = bench_say(b, err, "  %6s %10s %10s %10s %10s %8s %-7s  %s  | %s", "count", "ms", "ms in all",
                           "GFLOP/s", "GB/s", "fraction", "bound", "operator", "kernel");
    for (size_t i = 0; status == TRN_OK && i < t->count; i++)
        status = report_row(b, &t->rows[i], err);
    return status;
}

trn_status bench_operators(bench *b, trn_error *err)
{
    table t = {.b = b};
    trn_status status = bench_ceilings_need(b, err);
    for (size_t i = 0; status == TRN_OK && i < b->values->products.count; i++)
        status = measure_product(&t, b->values->products.items[i], err);
    if (status == TRN_OK) status = measure_models(&t, err);
    /* stopped on request: what was measured is told all the same */
    if (status == TRN_OK || (status == TRN_ERR_CANCELLED && t.count)) {
        trn_status told = report_table(&t, status == TRN_OK ? err : NULL);
        if (status == TRN_OK) status = told;
    }
    table_free(&t);
    return status;
}
