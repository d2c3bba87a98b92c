/* terrane tune: measures the kernels that recipes and encoders need on this device, so that every later run
 * takes the fastest. */
#include "bench.h"
#include "recipe.h"

#include <stdlib.h>

typedef struct tune_values {
    common_values common;
    const char *device;
    text_list models, config, sets;
    int batch, seconds, precision;
    bool training, clear;
} tune_values;

enum { SECONDS = 60 };

#define AT(member) offsetof(tune_values, member)
static const char *const precisions[] = {"float32", "float16", "auto", NULL}; /* as trn_precision */
static const trn_option options[] = {
    {.name = "model",
     .letter = 'm',
     .kind = OPTION_LIST,
     .offset = AT(models),
     .placeholder = "NAME",
     .help = "an encoder, at its natural window; may be repeated (see terrane models)"},
    OPTION_CONFIG(AT(config)),
    {.name = "set",
     .letter = 's',
     .kind = OPTION_LIST,
     .offset = AT(sets),
     .placeholder = "KEY=VALUE",
     .help = "a parameter of the recipes; may be repeated"},
    {.name = "batch",
     .kind = OPTION_INT,
     .offset = AT(batch),
     .placeholder = "N",
     .help = "images at once of --model; default: 1 (recipes have batches of their own)",
     .min = 1,
     .max = 4096,
     .initial = 1},
    {.name = "precision",
     .kind = OPTION_CHOICE,
     .offset = AT(precision),
     .choices = precisions,
     .help = "of --model: how values lie in device memory, whose kernels are their own; default: float32 "
             "(recipes say so themselves)"},
    {.name = "training",
     .kind = OPTION_FLAG,
     .offset = AT(training),
     .help = "of --model: a training step, too"},
    {.name = "seconds",
     .kind = OPTION_INT,
     .offset = AT(seconds),
     .placeholder = "S",
     .help = "time to spend, on the most expensive kernels first; default: 60",
     .min = 1,
     .max = 86400,
     .initial = SECONDS},
    {.name = "clear",
     .kind = OPTION_FLAG,
     .offset = AT(clear),
     .help = "forget what was measured on the device"},
    OPTION_DEVICE(AT(device)),
    {.name = NULL},
};

typedef struct tuning {
    const tune_values *values;
    trn_gpu *gpu;
    trn_tuner *tuner;
    trn_text list; /* JSON objects of what was measured */
    trn_status status;
    trn_error error; /* of printing */
} tuning;

/* ---- telling ---- */

static double gain_of(const trn_tuned *tuned)
{
    double now = tuned->candidates[tuned->chosen].seconds, before = tuned->candidates[0].seconds;
    return now > 0 && before > 0 ? before / now : 1;
}

static void add_json(const trn_tuned *tuned, trn_text *out)
{
    trn_text_add(out, out->length ? ",\n  {\"op\": " : "\n  {\"op\": ");
    trn_text_json(out, tuned->op);
    trn_text_add(out, ", \"what\": ");
    trn_text_json(out, tuned->what);
    trn_text_printf(out, ", \"nodes\": %zu, \"gain\": %.4g, \"chosen\": ", tuned->nodes, gain_of(tuned));
    trn_text_json(out, tuned->candidates[tuned->chosen].name);
    trn_text_add(out, ", \"candidates\": [");
    for (int i = 0; i < tuned->count; i++) {
        const trn_tuned_candidate *candidate = &tuned->candidates[i];
        trn_text_add(out, i ? ", {\"name\": " : "{\"name\": ");
        trn_text_json(out, candidate->name);
        if (candidate->seconds > 0) trn_text_printf(out, ", \"seconds\": %.6g", candidate->seconds);
        if (candidate->problem[0]) {
            trn_text_add(out, ", \"problem\": ");
            trn_text_json(out, candidate->problem);
        }
        trn_text_add(out, "}");
    }
    trn_text_add(out, "]}");
}

static void add_candidate(const trn_tuned *tuned, int i, trn_text *out)
{
    const trn_tuned_candidate *candidate = &tuned->candidates[i];
    if (!(candidate->seconds > 0) && !candidate->problem[0]) return; /* not worth a measurement here */
    trn_text_printf(out, "  %c %-24s", i == tuned->chosen ? '*' : ' ', candidate->name);
    if (candidate->problem[0])
        trn_text_printf(out, " %s", candidate->problem);
    else
        trn_text_printf(out, " %10.3f ms", 1e3 * candidate->seconds);
    if (!i)
        trn_text_add(out, "  default");
    else if (i == tuned->chosen)
        trn_text_printf(out, "  %.2f times as fast", gain_of(tuned));
    trn_text_add(out, "\n");
}

static void report(void *user, const trn_tuned *tuned)
{
    tuning *t = user;
    if (t->values->common.json) {
        add_json(tuned, &t->list);
        return;
    }
    trn_text out = {0};
    trn_text_printf(&out, "%s %s", tuned->op, tuned->what);
    if (tuned->nodes > 1) trn_text_printf(&out, " (%zu times)", tuned->nodes);
    trn_text_add(&out, "\n");
    for (int i = 0; i < tuned->count; i++)
        add_candidate(tuned, i, &out);
    if (t->status == TRN_OK && !t->values->common.quiet) t->status = console_print(&out, &t->error);
    trn_text_free(&out);
}

static void summarize(const tuning *t, const trn_tune_summary *sum, trn_text *out)
{
    const char *device = trn_gpu_info(t->gpu)->name;
    if (t->values->common.json) {
        trn_text_add(out, "{\"ok\": true, \"device\": ");
        trn_text_json(out, device);
        trn_text_printf(out, ", \"nodes\": %zu, \"distinct\": %zu, \"measured\": %zu", sum->nodes,
                        sum->distinct, sum->measured);
        trn_text_printf(out, ", \"default_seconds\": %.6g, \"chosen_seconds\": %.6g, \"kernels\": [%s]}\n",
                        sum->default_seconds, sum->chosen_seconds, trn_text_get(&t->list));
        return;
    }
    if (!sum->distinct) {
        trn_text_printf(out, "nothing to choose: %s is offered one kernel of each kind\n", device);
        return;
    }
    trn_text_printf(out, "%zu of %zu kinds of work measured (%zu operators) on %s", sum->measured,
                    sum->distinct, sum->nodes, device);
    if (sum->chosen_seconds > 0)
        trn_text_printf(out, ": %.4g ms with what was chosen, %.4g ms with the defaults",
                        1e3 * sum->chosen_seconds, 1e3 * sum->default_seconds);
    trn_text_add(out, "\n");
    if (sum->measured < sum->distinct)
        trn_text_add(out,
                     "the rest runs its defaults, or what was measured before: --seconds gives more time\n");
}

/* ---- what is wanted ---- */

static trn_status add_training(const tuning *t, bench_model *model, trn_error *err)
{
    trn_exec *exec = NULL;
    trn_graph *graph = trn_graph_create();
    if (!graph) return trn_fail_memory(err, 0, "a graph");
    trn_status status = bench_training_build(model->encoder, graph, t->values->batch, err);
    if (status == TRN_OK)
        status = trn_compile(graph, t->gpu, &(trn_compile_options){.plan_only = true}, &exec, err);
    if (status == TRN_OK) status = trn_tuner_add(t->tuner, exec, err);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
    return status;
}

/* The encoder as bench times it. */
static trn_status add_model(const tuning *t, const char *name, trn_error *err)
{
    bench_values values = {.config = t->values->config};
    bench b = {.values = &values, .arena = trn_arena_create()};
    bench_model model = {0};
    bench_pass pass = {0};
    if (!b.arena) return trn_fail_memory(err, 1, "settings");
    trn_status status = options_settings(&values.config, b.arena, &b.settings, err);
    if (status == TRN_OK) status = bench_model_open(&b, name, &model, err);
    if (status == TRN_OK)
        status = bench_pass_open(&model, t->gpu, (trn_precision)t->values->precision, t->values->batch, true,
                                 &pass, err);
    if (status == TRN_OK) status = trn_tuner_add(t->tuner, pass.exec, err);
    if (status == TRN_OK && t->values->training) status = add_training(t, &model, err);
    bench_pass_close(&pass);
    bench_model_close(&model);
    trn_arena_destroy(b.arena);
    return status;
}

/* What the recipe would run, as its explanation finds it. */
static trn_status add_recipe(const tuning *t, const char *path, trn_error *err)
{
    any_job job;
    trn_recipe *recipe = NULL;
    trn_text explained = {0};
    trn_job_hooks hooks = *console_hooks();
    hooks.tuner = t->tuner;
    trn_status status =
        trn_recipe_load(path, t->values->sets.items, t->values->sets.count, NULL, &recipe, err);
    if (status == TRN_OK) status = recipe_job(recipe, &job, err);
    if (status == TRN_OK) {
        job.kind->settle(&job, ".", 0);
        status = job.kind->explain(&job, t->gpu, &hooks, &explained, err);
    }
    trn_text_free(&explained);
    trn_recipe_destroy(recipe);
    return status == TRN_OK ? TRN_OK : trn_wrap(err, "%s", path);
}

static trn_status add_all(const tuning *t, trn_error *err)
{
    const tune_values *values = t->values;
    trn_status status = TRN_OK;
    for (size_t i = 0; status == TRN_OK && i < values->common.words.count; i++)
        status = add_recipe(t, values->common.words.items[i], err);
    for (size_t i = 0; status == TRN_OK && i < values->models.count; i++)
        status = add_model(t, values->models.items[i], err);
    return status;
}

/* ---- the command ---- */

static trn_status clear(tuning *t, trn_error *err)
{
    trn_text out = {0};
    size_t count = trn_tune_clear(t->gpu);
    if (t->values->common.json)
        trn_text_printf(&out, "{\"ok\": true, \"forgotten\": %zu}\n", count);
    else
        trn_text_printf(&out, "%zu measurements forgotten\n", count);
    trn_status status = console_print(&out, err);
    trn_text_free(&out);
    return status;
}

static trn_status tune(tuning *t, trn_error *err)
{
    trn_tune_summary summary = {0};
    trn_tune_options how = {
        .seconds = t->values->seconds, .progress = console_hooks()->progress, .report = report, .user = t};
    trn_status status = trn_tuner_create(t->gpu, &how, &t->tuner, err);
    if (status == TRN_OK) status = add_all(t, err);
    if (status == TRN_OK) status = trn_tuner_run(t->tuner, &summary, err);
    if (status == TRN_OK && t->status != TRN_OK) {
        status = t->status;
        if (err) *err = t->error;
    }
    if (status == TRN_OK) {
        trn_text out = {0};
        summarize(t, &summary, &out);
        status = console_print(&out, err);
        trn_text_free(&out);
    }
    trn_tuner_destroy(t->tuner);
    return status;
}

static trn_status run(const trn_command *command, void *user, trn_error *err)
{
    (void)command;
    const tune_values *values = user;
    size_t wanted = values->common.words.count + values->models.count;
    if (!wanted && !values->clear)
        return trn_fail(err, TRN_ERR_ARGUMENT, "tune wants recipes, or --model NAME (see terrane models)");
    if (wanted && values->clear)
        return trn_fail(err, TRN_ERR_ARGUMENT, "--clear forgets everything, and takes no recipes or models");
    if (values->training && !values->models.count)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "--training is for --model: recipes that train tell so themselves");
    tuning t = {.values = values};
    trn_status status = device_open(values->device, &t.gpu, err);
    if (status == TRN_OK) status = values->clear ? clear(&t, err) : tune(&t, err);
    trn_text_free(&t.list);
    trn_gpu_close(t.gpu);
    return status;
}

const trn_command tune_command = {
    .name = "tune",
    .usage = "tune [RECIPE ...] [--model NAME ...] [--batch N] [--precision P] [--training] [--seconds S] "
             "[--json] | tune --clear",
    .summary = "measures kernels, so that runs take the fastest",
    .details =
        "Finds the operators that the recipes or encoders run, and measures the kernels that this device is "
        "offered for each, the most expensive operators first, until all are measured or the time is used "
        "up. "
        "The results are kept in the cache folder, for this device and driver; runs from then on take the "
        "fastest, and --explain tells which that is and why. Ctrl-C keeps what was measured. Tuning again "
        "measures anew. TERRANE_DISABLE=tuning makes a run take the defaults.",
    .example = "  terrane tune recipes/quickstart.lua --set scene=L7_ETMs.tif\n"
               "  terrane tune --model hiera-tiny --batch 8 --training --seconds 120",
    .options = options,
    .values_size = sizeof(tune_values),
    .max_words = 64,
    .run = run,
};
