/* terrane bench: what a device can do, and how fast encoders are on it, with synthetic weights, so that
 * nothing is downloaded. Options, the order of the parts, and the report. */
#include "bench.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { FORM = 1, DEFAULT_SECONDS = 100, MAX_BATCH = 4096 };
static const char *const default_models[] = {"galileo-nano", "hiera-tiny", "mae-vit-base"};

static const char *const precisions[] = {"float32", "float16", "auto", NULL}; /* as trn_precision */

#define AT(member) offsetof(bench_values, member)
static const trn_option options[] = {
    {.name = "only",
     .kind = OPTION_LIST,
     .offset = AT(only),
     .placeholder = "PART",
     .help =
         "device, operators, encoders, training or scene; several with commas, or repeated. Default: device "
         "and encoders, or encoders alone when a model is named"},
    {.name = "model",
     .letter = 'm',
     .kind = OPTION_LIST,
     .offset = AT(models),
     .placeholder = "NAME",
     .help =
         "an encoder (terrane models lists them); may be repeated. Default: a few small ones, and all for "
         "operators"},
    OPTION_CONFIG(AT(config)),
    {.name = "batch",
     .kind = OPTION_LIST,
     .offset = AT(batches),
     .placeholder = "N",
     .help = "images at once, or best: as many as pay; several with commas, or repeated. Default: 1 for "
             "operators, "
             "1 when a model is named, else 1,8,best; 8 for training"},
    {.name = "dates",
     .kind = OPTION_INT,
     .offset = AT(dates),
     .placeholder = "N",
     .help = "dates of an image, for encoders of series; default: the fewest that the encoder takes",
     .min = 1,
     .max = 366},
    {.name = "precision",
     .kind = OPTION_CHOICE,
     .offset = AT(precision),
     .choices = precisions,
     .help = "how values lie in memory, but for training; default: float32"},
    {.name = "product",
     .kind = OPTION_LIST,
     .offset = AT(products),
     .placeholder = "MxKxN",
     .help = "of operators: times the product of [M,K] with weights [N,K]; may be repeated"},
    {.name = "runs",
     .kind = OPTION_INT,
     .offset = AT(runs),
     .placeholder = "N",
     .help = "timed runs after one that is not counted; default: 5",
     .min = 1,
     .max = 1000,
     .initial = 5},
    {.name = "seconds",
     .kind = OPTION_INT,
     .offset = AT(seconds),
     .placeholder = "S",
     .help = "time that all may take; what does not fit is left out, and said. Default: 100 when neither "
             "part nor "
             "model is named, else no limit",
     .min = 1,
     .max = 1000000},
    {.name = "training",
     .kind = OPTION_FLAG,
     .offset = AT(training),
     .help = "the same as --only training: the encoder, a linear head over its mean, cross entropy, all "
             "gradients, AdamW"},
    {.name = "recompute",
     .kind = OPTION_FLAG,
     .offset = AT(recompute),
     .help = "of training: values within blocks are computed again for the gradients, which saves memory"},
    {.name = "compare",
     .kind = OPTION_TEXT,
     .offset = AT(compare),
     .placeholder = "FILE",
     .help = "what an earlier run with --json printed: tells how much faster or slower each entry is now"},
    OPTION_DEVICE(AT(device)),
    {.name = NULL},
};

/* ---- helpers of all parts ---- */

static trn_status grow_failed(trn_error *err)
{
    return trn_fail_memory(err, sizeof(bench_entry), "the report");
}

static bool is_time(const char *unit)
{
    return !strcmp(unit, "s") || !strcmp(unit, "ms") || !strcmp(unit, "us");
}

trn_status bench_add(bench *b, const char *kind, const char *key, double value, const char *unit,
                     const char *members, trn_error *err)
{
    if (!trn_grow(&b->entries, &b->entry_capacity, b->entry_count + 1, sizeof *b->entries))
        return grow_failed(err);
    bench_entry *entry = &b->entries[b->entry_count];
    *entry = (bench_entry){.kind = kind,
                           .key = trn_arena_strdup(b->arena, key),
                           .value = value,
                           .unit = unit,
                           .less_is_better = is_time(unit),
                           .members = trn_arena_strdup(b->arena, members)};
    if (!entry->key || !entry->members) return grow_failed(err);
    b->entry_count++;
    return TRN_OK;
}

trn_status bench_say(const bench *b, trn_error *err, const char *fmt, ...)
{
    if (b->values->common.json) return TRN_OK;
    char line[1024];
    trn_text text = {0};
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    trn_text_printf(&text, "%s\n", line);
    trn_status status = console_print(&text, err);
    trn_text_free(&text);
    return status;
}

trn_status bench_say_profile(const bench *b, const trn_exec *exec, trn_error *err)
{
    trn_text text = {0};
    if (!b->values->common.json) trn_exec_profile_text(exec, &text);
    trn_status status = text.length ? console_print(&text, err) : TRN_OK;
    trn_text_free(&text);
    return status;
}

trn_status bench_leave_out(bench *b, trn_error *err, const char *fmt, ...)
{
    char line[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    for (size_t i = 0; i < b->left_out_count; i++) /* the search for the best batch meets the others again */
        if (!strcmp(b->left_out[i], line)) return TRN_OK;
    if (!trn_grow(&b->left_out, &b->left_out_capacity, b->left_out_count + 1, sizeof *b->left_out))
        return grow_failed(err);
    const char *copy = trn_arena_strdup(b->arena, line);
    if (!copy) return grow_failed(err);
    b->left_out[b->left_out_count++] = copy;
    return bench_say(b, err, "left out: %s", line);
}

const char *bench_precision_note(const bench *b)
{
    return b->precision == TRN_PRECISION_FLOAT16 ? ", float16" : "";
}

double bench_seconds_left(const bench *b)
{
    if (b->seconds <= 0) return INFINITY;
    return b->seconds - (double)(trn_now_ns() - b->start) * 1e-9;
}

bool bench_may_go_on(trn_status status)
{
    return status == TRN_ERR_MEMORY || status == TRN_ERR_UNSUPPORTED;
}

trn_status bench_gpu_open(const bench *b, trn_gpu **out, trn_error *err)
{
    const trn_gpu_options gpu_options = {.device = b->values->device};
    return trn_gpu_open(&gpu_options, out, err);
}

static int compare_doubles(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

double bench_median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, compare_doubles);
    return count % 2 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}

double bench_cpu_seconds(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage)) return 0;
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* Linux forgets a process's peak when 5 is written there; elsewhere the peak is of all that ran before, too.
 */
void bench_process_peak_restart(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (!file) return;
    fputs("5", file);
    fclose(file);
}

uint64_t bench_process_peak(void)
{
    unsigned long long kilobytes = 0;
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %llu", &kilobytes) == 1) break;
    if (file) fclose(file);
    struct rusage usage;
    if (!kilobytes && !getrusage(RUSAGE_SELF, &usage)) kilobytes = (unsigned long long)usage.ru_maxrss;
    return kilobytes * 1024;
}

/* ---- options ---- */

/* Calls take for each piece of each text, cut at commas. */
static trn_status each_piece(bench *b, const text_list *list, const char *name,
                             trn_status (*take)(bench *b, const char *piece, trn_error *err), trn_error *err)
{
    for (size_t i = 0; i < list->count; i++) {
        for (const char *at = list->items[i];; at++) {
            size_t length = strcspn(at, ",");
            if (!length)
                return trn_fail(err, TRN_ERR_ARGUMENT, "--%s is '%.100s'; wanted names with commas between",
                                name, list->items[i]);
            const char *piece = trn_arena_printf(b->arena, "%.*s", (int)length, at);
            trn_status status = piece ? take(b, piece, err) : trn_fail_memory(err, length, "options");
            if (status != TRN_OK) return status;
            at += length;
            if (!*at) break;
        }
    }
    return TRN_OK;
}

typedef struct part_row {
    const char *name;
    bench_part part;
    trn_status (*run)(bench *b, trn_error *err);
} part_row;
static const part_row parts[] = {
    {"device", BENCH_DEVICE, bench_device},       {"operators", BENCH_OPERATORS, bench_operators},
    {"encoders", BENCH_ENCODERS, bench_encoders}, {"training", BENCH_TRAINING, bench_trainings},
    {"scene", BENCH_SCENE, bench_scenes},
};

static trn_status take_part(bench *b, const char *piece, trn_error *err)
{
    const char *names[TRN_COUNT(parts)];
    for (size_t i = 0; i < TRN_COUNT(parts); i++) {
        names[i] = parts[i].name;
        if (strcmp(piece, parts[i].name) != 0) continue;
        b->parts |= parts[i].part;
        return TRN_OK;
    }
    const char *near = trn_nearest(piece, names, TRN_COUNT(parts));
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "--only is '%.64s'; wanted device, operators, encoders, training or scene%s%s%s", piece,
                    near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static trn_status take_model(bench *b, const char *piece, trn_error *err)
{
    const char **grown = trn_arena_array(b->arena, b->model_count + 1, sizeof *grown);
    if (!grown) return trn_fail_memory(err, sizeof *grown, "options");
    if (b->model_count) memcpy(grown, b->models, b->model_count * sizeof *grown);
    grown[b->model_count++] = piece;
    b->models = grown;
    return TRN_OK;
}

static trn_status add_batch(bench *b, int batch, trn_error *err)
{
    int *grown = trn_arena_array(b->arena, b->batch_count + 1, sizeof *grown);
    if (!grown) return trn_fail_memory(err, sizeof *grown, "options");
    if (b->batch_count) memcpy(grown, b->batches, b->batch_count * sizeof *grown);
    grown[b->batch_count++] = batch;
    b->batches = grown;
    return TRN_OK;
}

static trn_status take_batch(bench *b, const char *piece, trn_error *err)
{
    int64_t value = 0;
    if (strcmp(piece, "best") != 0 && (!trn_parse_int(piece, &value) || value < 1 || value > MAX_BATCH))
        return trn_fail(err, TRN_ERR_ARGUMENT, "--batch is '%.64s'; wanted an integer from 1 to %d, or best",
                        piece, MAX_BATCH);
    return add_batch(b, (int)value, err);
}

static trn_status choose_defaults(bench *b, trn_error *err)
{
    const bench_values *values = b->values;
    bool named = b->parts || b->model_count || values->training || values->products.count;
    b->seconds = values->seconds ? values->seconds : named ? 0 : DEFAULT_SECONDS;
    if (values->training) b->parts |= BENCH_TRAINING;
    if (!b->parts && values->products.count) b->parts = BENCH_OPERATORS;
    if (!b->parts) b->parts = b->model_count ? BENCH_ENCODERS : BENCH_DEVICE | BENCH_ENCODERS;
    if (values->recompute && !(b->parts & BENCH_TRAINING))
        return trn_fail(err, TRN_ERR_ARGUMENT, "--recompute is a way of training: add --only training");
    if (values->products.count && !(b->parts & BENCH_OPERATORS))
        return trn_fail(err, TRN_ERR_ARGUMENT, "--product is of the operators: add --only operators");
    trn_status status = TRN_OK;
    if (!b->batch_count && !b->model_count && b->parts & BENCH_ENCODERS) {
        static const int usual[] = {1, 8, 0};
        for (size_t i = 0; status == TRN_OK && i < TRN_COUNT(usual); i++)
            status = add_batch(b, usual[i], err);
    }
    bool all_models = b->parts == BENCH_OPERATORS || b->parts == (BENCH_OPERATORS | BENCH_DEVICE);
    size_t missing = b->model_count || all_models ? 0 : TRN_COUNT(default_models);
    for (size_t i = 0; status == TRN_OK && i < missing; i++)
        status = take_model(b, default_models[i], err);
    return status;
}

static trn_status read_options(bench *b, trn_error *err)
{
    const bench_values *values = b->values;
    trn_status status = each_piece(b, &values->only, "only", take_part, err);
    if (status == TRN_OK) status = each_piece(b, &values->models, "model", take_model, err);
    if (status == TRN_OK) status = each_piece(b, &values->batches, "batch", take_batch, err);
    if (status == TRN_OK) status = choose_defaults(b, err);
    if (status == TRN_OK) status = options_settings(&values->config, b->arena, &b->settings, err);
    if (status != TRN_OK) return status;
    /* a wrong name or setting is told before anything is measured */
    for (size_t i = 0; status == TRN_OK && i < b->model_count; i++) {
        bench_model model;
        status = bench_model_open(b, b->models[i], &model, err);
        bench_model_close(&model);
    }
    return status;
}

/* ---- the report ---- */

static void entry_json(const bench *b, const bench_entry *entry, trn_text *out)
{
    trn_text_printf(out, "\"kind\": \"%s\", \"key\": ", entry->kind);
    trn_text_json(out, entry->key);
    trn_text_printf(out, ", \"value\": %.6g, \"unit\": \"%s\", \"device\": ", entry->value, entry->unit);
    trn_text_json(out, b->device.name);
    trn_text_printf(out, "%s%s", *entry->members ? ", " : "", entry->members);
}

/* Of a single entry the members stand in the object itself, too: simple scripts stay simple. */
static void report_json(const bench *b, const bench_former *former, trn_text *out)
{
    trn_text_printf(out, "{\"ok\": true, \"bench\": %d, \"terrane\": \"%s\", ", FORM, TRN_VERSION);
    if (b->entry_count == 1)
        entry_json(b, &b->entries[0], out);
    else
        trn_text_add(out, "\"device\": ");
    if (b->entry_count != 1) trn_text_json(out, b->device.name);
    trn_text_add(out, ", \"driver\": ");
    trn_text_json(out, b->device.driver);
    trn_text_printf(out, ", \"type\": \"%s\", \"entries\": [", trn_device_type_name(b->device.type));
    for (size_t i = 0; i < b->entry_count; i++) {
        trn_text_add(out, i ? ",\n  {" : "\n  {");
        entry_json(b, &b->entries[i], out);
        trn_text_add(out, "}");
    }
    trn_text_add(out, "\n], \"left_out\": [");
    for (size_t i = 0; i < b->left_out_count; i++) {
        if (i) trn_text_add(out, ", ");
        trn_text_json(out, b->left_out[i]);
    }
    trn_text_add(out, "]");
    if (former) bench_compare_json(b, former, out);
    trn_text_add(out, "}\n");
}

static trn_status report(const bench *b, const bench_former *former, trn_error *err)
{
    trn_text out = {0};
    if (b->values->common.json)
        report_json(b, former, &out);
    else if (former)
        bench_compare_text(b, former, &out);
    trn_status status = console_print(&out, err);
    trn_text_free(&out);
    return status;
}

static trn_status run_parts(bench *b, trn_error *err)
{
    trn_gpu *gpu;
    trn_status status = device_open(b->values->device, &gpu, err);
    if (status != TRN_OK) return status;
    b->device = *trn_gpu_info(gpu);
    status = trn_precision_choose(gpu, (trn_precision)b->values->precision, &b->precision, err);
    trn_gpu_close(gpu);
    if (status == TRN_OK) status = bench_say(b, err, "device: %s, %s", b->device.name, b->device.driver);
    for (size_t i = 0; status == TRN_OK && i < TRN_COUNT(parts); i++)
        if (b->parts & parts[i].part) status = parts[i].run(b, err);
    return status;
}

static trn_status run(const trn_command *command, void *user, trn_error *err)
{
    (void)command;
    bench b = {.values = user, .arena = trn_arena_create(), .start = trn_now_ns()};
    bench_former *former = NULL;
    if (!b.arena) return trn_fail_memory(err, sizeof b, "options");
    trn_status status = read_options(&b, err);
    if (status == TRN_OK && b.values->compare) status = bench_former_read(b.values->compare, &former, err);
    if (status == TRN_OK) status = run_parts(&b, err);
    if (status == TRN_OK) status = report(&b, former, err);
    bench_former_free(former);
    free(b.entries);
    free(b.left_out);
    trn_arena_destroy(b.arena);
    return status;
}

const trn_command bench_command = {
    .name = "bench",
    .usage = "bench [--only PART] [--model NAME] [--batch N] [--compare FILE] [OPTIONS]",
    .summary = "measures the device, operators, encoders, training and scenes",
    .details =
        "Measures what the device can do at most (device), every operator at the shapes of the encoders "
        "(operators), whole forward passes (encoders), steps of training and scenes through the whole way "
        "from "
        "file to file, with made-up weights. The first run of each is not counted: drivers compile in it. "
        "Fractions are of the multiply-add rate and the copy bandwidth that the same run measured. Upload "
        "and "
        "readback are left out of encoders and training, and part of scenes.",
    .example = "  terrane bench\n"
               "  terrane bench --model mae-vit-base --batch 1,8,best\n"
               "  terrane bench --only operators --model hiera-tiny --batch 8\n"
               "  terrane bench --only training --model hiera-tiny --batch 8 --recompute\n"
               "  terrane bench --json > before.json; terrane bench --compare before.json",
    .options = options,
    .values_size = sizeof(bench_values),
    .run = run,
};
