/* terrane shaders --statistics: what the driver's compiler tells of each kernel. They are compiled by
 * processes of their own, one after the other, as a driver may end the process over a kernel. */
#include "shaders.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_DEATHS = 200, MAX_FIELDS = 8 };

/* ---- what is known of kernels ---- */

/* Drivers have their own words. Spills are registers that are written to memory for want of room; scratch is
 * memory that they, or arrays, take; what is moved goes to registers of another kind, which costs little. */
typedef enum measure {
    REGISTERS,
    SPILLS,
    SCRATCH,
    MOVED,
    OCCUPANCY,
    INSTRUCTIONS,
    SHARED,
    MEASURE_COUNT
} measure;
static const char *const measure_names[MEASURE_COUNT] = {"registers", "spills",       "scratch", "moved",
                                                         "occupancy", "instructions", "shared"};
static const struct {
    const char *name; /* of RADV, NVK, Turnip, Honeykrisp, ANV */
    measure of;
} words[] = {
    {"VGPRs", REGISTERS},
    {"Number of GPRs", REGISTERS},
    {"Registers used", REGISTERS},
    {"GPRs", REGISTERS},
    {"Max live registers", REGISTERS},
    {"Spilled VGPRs", SPILLS},
    {"Spills to memory", SPILLS},
    {"STP Count", SPILLS},
    {"Spills", SPILLS},
    {"Spill Count", SPILLS},
    {"Scratch size", SCRATCH},
    {"Scratch", SCRATCH},
    {"Scratch Memory Size", SCRATCH},
    {"Spilled SGPRs", MOVED},
    {"Spills to reg", MOVED},
    {"Subgroups per SIMD", OCCUPANCY},
    {"Max warps/SM", OCCUPANCY},
    {"Max Waves Per Core", OCCUPANCY},
    {"Threads", OCCUPANCY},
    {"Max dispatch width", OCCUPANCY},
    {"Instructions", INSTRUCTIONS},
    {"Instruction count", INSTRUCTIONS},
    {"Instruction Count", INSTRUCTIONS},
    {"LDS size", SHARED},
    {"SLM size", SHARED},
    {"Workgroup Memory Size", SHARED},
};

typedef struct statistic {
    const char *program, *name;
    double value;
} statistic;

typedef struct kernel_row {
    uint64_t hash;
    const char *op, *label, *shader, *variant, *macros, *failure;
    bool is_default, finished;
    statistic *statistics;
    size_t statistic_count, statistic_capacity;
    double measures[MEASURE_COUNT]; /* -1: the driver does not tell */
} kernel_row;

typedef struct report {
    trn_arena *arena;
    const char *device, *driver;
    kernel_row *rows;
    size_t count, capacity;
} report;

known_kernel *kernel_table_find(const kernel_table *table, uint64_t hash)
{
    for (size_t i = 0; i < table->count; i++)
        if (table->items[i].hash == hash) return &table->items[i];
    return NULL;
}

bool kernel_table_add(kernel_table *table, uint64_t hash, bool is_default)
{
    if (!trn_grow(&table->items, &table->capacity, table->count + 1, sizeof *table->items)) return false;
    table->items[table->count++] = (known_kernel){hash, is_default};
    return true;
}

/* What a statistic measures; MEASURE_COUNT: nothing that is told here. Unknown words for spilling count. */
static measure measure_of(const char *name)
{
    for (size_t w = 0; w < TRN_COUNT(words); w++)
        if (!strcmp(words[w].name, name)) return words[w].of;
    if (strstr(name, "pill")) return SPILLS;
    return strstr(name, "cratch") ? SCRATCH : MEASURE_COUNT;
}

/* Of several programs of a kernel the worst. */
static void measure_row(kernel_row *row)
{
    for (int m = 0; m < MEASURE_COUNT; m++)
        row->measures[m] = -1;
    for (size_t i = 0; i < row->statistic_count; i++) {
        const statistic *s = &row->statistics[i];
        measure m = measure_of(s->name);
        if (m == MEASURE_COUNT) continue;
        double *out = &row->measures[m];
        if (*out < 0 || (m == OCCUPANCY ? s->value < *out : s->value > *out)) *out = s->value;
    }
}

/* ---- reading what the processes write ---- */

/* Cuts a line at tabs; empty fields are NULL. */
static int split(char *line, char *fields[MAX_FIELDS])
{
    int count = 0;
    line[strcspn(line, "\n")] = 0;
    for (int i = 0; i < MAX_FIELDS; i++)
        fields[i] = NULL;
    while (line && count < MAX_FIELDS) {
        char *tab = strchr(line, '\t');
        if (tab) *tab = 0;
        fields[count++] = *line ? line : NULL;
        line = tab ? tab + 1 : NULL;
    }
    return count;
}

static const char *keep(report *r, const char *text)
{
    return text ? trn_arena_strdup(r->arena, text) : NULL;
}

static uint64_t hash_of(const char *text)
{
    return text ? strtoull(text, NULL, 16) : 0;
}

static bool take_kernel(report *r, char *const fields[MAX_FIELDS])
{
    if (!trn_grow(&r->rows, &r->capacity, r->count + 1, sizeof *r->rows)) return false;
    r->rows[r->count++] = (kernel_row){.hash = hash_of(fields[1]),
                                       .is_default = fields[2] && *fields[2] == '1',
                                       .op = keep(r, fields[3]),
                                       .label = keep(r, fields[4]),
                                       .shader = keep(r, fields[5]),
                                       .variant = keep(r, fields[6]),
                                       .macros = keep(r, fields[7])};
    return true;
}

static bool take_statistic(report *r, kernel_row *row, char *const fields[MAX_FIELDS])
{
    if (!trn_grow(&row->statistics, &row->statistic_capacity, row->statistic_count + 1,
                  sizeof *row->statistics))
        return false;
    statistic *s = &row->statistics[row->statistic_count];
    *s = (statistic){keep(r, fields[1]), keep(r, fields[2]), fields[3] ? strtod(fields[3], NULL) : 0};
    if (!s->name) return false;
    row->statistic_count++;
    return true;
}

static void take_default(report *r, uint64_t hash)
{
    for (size_t i = 0; i < r->count; i++)
        if (r->rows[i].hash == hash) r->rows[i].is_default = true;
}

typedef struct outcome {
    bool done;
    trn_status status;
    char message[512];
} outcome;

static bool take_line(report *r, char *line, outcome *end)
{
    char *fields[MAX_FIELDS];
    char kind = line[0];
    kernel_row *row = r->count ? &r->rows[r->count - 1] : NULL;
    split(line, fields);
    if (kind == SHADERS_LINE_DEVICE) {
        r->device = keep(r, fields[1]);
        r->driver = keep(r, fields[2]);
    } else if (kind == SHADERS_LINE_KERNEL) {
        return take_kernel(r, fields);
    } else if (kind == SHADERS_LINE_STATISTIC && row) {
        return take_statistic(r, row, fields);
    } else if (kind == SHADERS_LINE_FAILURE && row) {
        row->failure = keep(r, fields[1]);
    } else if (kind == SHADERS_LINE_END && row) {
        row->finished = true;
    } else if (kind == SHADERS_LINE_DEFAULT) {
        take_default(r, hash_of(fields[1]));
    } else if (kind == SHADERS_LINE_DONE) {
        end->done = true;
        end->status = (trn_status)(fields[1] ? strtol(fields[1], NULL, 10) : 0);
        snprintf(end->message, sizeof end->message, "%s", fields[2] ? fields[2] : "");
    }
    return true;
}

/* ---- the processes ---- */

static trn_status known_kernels(const report *r, kernel_table *table, trn_error *err)
{
    for (size_t i = 0; i < r->count; i++)
        if (!kernel_table_add(table, r->rows[i].hash, r->rows[i].is_default))
            return trn_fail_memory(err, sizeof *table->items, "the report");
    return TRN_OK;
}

/* Never returns. */
static void be_child(const shaders_values *values, kernel_table *table, int fd)
{
    trn_error err = {0};
    FILE *out = fdopen(fd, "w");
    if (out) shaders_make_kernels(values, table, out, &err);
    _exit(0);
}

static trn_status read_lines(report *r, int fd, outcome *end, trn_error *err)
{
    char *line = NULL;
    size_t capacity = 0;
    bool ok = true;
    FILE *in = fdopen(fd, "r");
    if (!in) {
        close(fd);
        return trn_fail(err, TRN_ERR_IO, "cannot read from a process of its own");
    }
    while (ok && getline(&line, &capacity, in) > 0)
        ok = take_line(r, line, end);
    free(line);
    fclose(in);
    return ok ? TRN_OK : trn_fail_memory(err, sizeof *r->rows, "the report");
}

/* One process, until it is done or dies. */
static trn_status run_child(report *r, const shaders_values *values, outcome *end, int *how, trn_error *err)
{
    int ends[2];
    kernel_table table = {0};
    trn_status status = known_kernels(r, &table, err);
    if (status != TRN_OK) goto done;
    if (pipe(ends)) {
        status = trn_fail(err, TRN_ERR_IO, "cannot make a pipe");
        goto done;
    }
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        be_child(values, &table, ends[1]);
    }
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        status = trn_fail(err, TRN_ERR_IO, "cannot start a process");
        goto done;
    }
    status = read_lines(r, ends[0], end, err);
    waitpid(child, how, 0);
done:
    free(table.items);
    return status;
}

/* The process died: over the kernel that it had begun, which is then a kernel that does not compile. */
static trn_status blame(report *r, int how, trn_error *err)
{
    char text[96];
    kernel_row *row = r->count ? &r->rows[r->count - 1] : NULL;
    if (WIFSIGNALED(how))
        snprintf(text, sizeof text, "the driver ended the process over it (signal %d)", WTERMSIG(how));
    else
        snprintf(text, sizeof text, "the driver ended the process over it (status %d)", WEXITSTATUS(how));
    if (!row || row->finished)
        return trn_fail(err, TRN_ERR_DEVICE,
                        "the process that compiles kernels came to an end between two of them");
    row->failure = keep(r, text);
    row->finished = true;
    row->statistic_count = 0;
    return TRN_OK;
}

static trn_status gather(report *r, const shaders_values *values, trn_error *err)
{
    for (int deaths = 0; deaths < MAX_DEATHS; deaths++) {
        outcome end = {0};
        int how = 0;
        trn_status status = run_child(r, values, &end, &how, err);
        if (status != TRN_OK) return status;
        if (end.done) return end.status == TRN_OK ? TRN_OK : trn_fail(err, end.status, "%s", end.message);
        status = blame(r, how, err);
        if (status != TRN_OK) return status;
    }
    return trn_fail(err, TRN_ERR_DEVICE, "the driver ended %d processes over kernels: it is of no use",
                    MAX_DEATHS);
}

/* ---- telling ---- */

static void json_row(const kernel_row *row, trn_text *out)
{
    const char *const texts[] = {"op",      row->op,      "label",  row->label,  "shader",  row->shader,
                                 "variant", row->variant, "macros", row->macros, "failure", row->failure};
    trn_text_printf(out, "{\"default\": %s", row->is_default ? "true" : "false");
    for (size_t i = 0; i < TRN_COUNT(texts); i += 2) {
        trn_text_printf(out, ", \"%s\": ", texts[i]);
        trn_text_json(out, texts[i + 1]);
    }
    for (int m = 0; m < MEASURE_COUNT; m++) {
        trn_text_printf(out, ", \"%s\": ", measure_names[m]);
        if (row->measures[m] < 0)
            trn_text_add(out, "null");
        else
            trn_text_printf(out, "%.10g", row->measures[m]);
    }
    trn_text_add(out, ", \"statistics\": [");
    for (size_t i = 0; i < row->statistic_count; i++) {
        const statistic *s = &row->statistics[i];
        trn_text_printf(out, "%s{\"program\": ", i ? ", " : "");
        trn_text_json(out, s->program);
        trn_text_add(out, ", \"name\": ");
        trn_text_json(out, s->name);
        trn_text_printf(out, ", \"value\": %.17g}", s->value);
    }
    trn_text_add(out, "]}");
}

static void tell_json(const report *r, trn_text *out)
{
    trn_text_add(out, "{\"ok\": true, \"device\": ");
    trn_text_json(out, r->device);
    trn_text_add(out, ", \"driver\": ");
    trn_text_json(out, r->driver);
    trn_text_add(out, ", \"kernels\": [");
    for (size_t i = 0; i < r->count; i++) {
        trn_text_add(out, i ? ",\n  " : "\n  ");
        json_row(&r->rows[i], out);
    }
    trn_text_add(out, "\n]}\n");
}

static int compare_rows(const void *a, const void *b)
{
    const kernel_row *x = a, *y = b;
    int order = strcmp(x->shader, y->shader);
    if (!order) order = strcmp(x->variant ? x->variant : "", y->variant ? y->variant : "");
    return order ? order : strcmp(x->macros ? x->macros : "", y->macros ? y->macros : "");
}

static void tell_row(const kernel_row *row, trn_text *out)
{
    trn_text_printf(out, "%-3s", row->is_default ? "*" : "");
    for (int m = 0; m < MEASURE_COUNT; m++) {
        if (row->measures[m] < 0)
            trn_text_printf(out, " %12s", "-");
        else
            trn_text_printf(out, " %12.10g", row->measures[m]);
    }
    trn_text_printf(out, "  %s%s%s%s%s%s%s\n", row->shader, row->variant ? ", " : "",
                    row->variant ? row->variant : "", row->macros ? " " : "", row->macros ? row->macros : "",
                    row->failure ? ": does not compile: " : "", row->failure ? row->failure : "");
}

static void tell_text(report *r, trn_text *out)
{
    trn_text_printf(out, "%s, %s: %zu kernels; * runs when nothing was measured\n   ",
                    r->device ? r->device : "?", r->driver ? r->driver : "?", r->count);
    if (r->count) qsort(r->rows, r->count, sizeof *r->rows, compare_rows);
    for (int m = 0; m < MEASURE_COUNT; m++)
        trn_text_printf(out, " %12s", measure_names[m]);
    trn_text_add(out, "  kernel\n");
    for (size_t i = 0; i < r->count; i++)
        tell_row(&r->rows[i], out);
}

static void free_report(report *r)
{
    for (size_t i = 0; i < r->count; i++)
        free(r->rows[i].statistics);
    free(r->rows);
    trn_arena_destroy(r->arena);
}

trn_status shaders_statistics(const shaders_values *values, trn_error *err)
{
    report r = {.arena = trn_arena_create()};
    trn_text out = {0};
    trn_status status = r.arena ? TRN_OK : trn_fail_memory(err, 1, "the report");
    if (status == TRN_OK) status = gather(&r, values, err);
    console_progress_end();
    for (size_t i = 0; i < r.count; i++)
        measure_row(&r.rows[i]);
    if (status == TRN_OK) (values->common.json ? (void)tell_json(&r, &out) : tell_text(&r, &out));
    if (status == TRN_OK) status = console_print(&out, err);
    trn_text_free(&out);
    free_report(&r);
    return status;
}
