/* terrane run and terrane check: recipes. */
#include "command.h"
#include "recipe.h"

#include <stdlib.h>
#include <string.h>

typedef struct run_values {
    common_values common;
    text_list sets;
    const char *out, *device;
    uint64_t memory_limit;
    bool explain;
} run_values;

#define AT(member) offsetof(run_values, member)
#define SET_OPTION                                                                                           \
    {                                                                                                        \
        .name = "set", .letter = 's', .kind = OPTION_LIST, .offset = AT(sets), .placeholder = "KEY=VALUE",   \
        .help = "a parameter of the recipe; may be repeated. terrane run RECIPE --help lists them"           \
    }
static const trn_option run_options[] = {
    SET_OPTION,
    {.name = "out",
     .letter = 'o',
     .kind = OPTION_TEXT,
     .offset = AT(out),
     .placeholder = "DIR",
     .help = "folder for the outputs and result.json; default: out/ and the recipe's name"},
    {.name = "explain",
     .kind = OPTION_FLAG,
     .offset = AT(explain),
     .help = "say what would be done, on which kernels and with how much memory, and do nothing"},
    OPTION_DEVICE(AT(device)),
    OPTION_MEMORY_LIMIT(AT(memory_limit)),
    {.name = NULL},
};
static const trn_option check_options[] = {SET_OPTION, {.name = NULL}};

/* "eurosat" of "recipes/eurosat.lua", below out/. malloc'd. */
static char *default_folder(const char *recipe)
{
    trn_text path = {0};
    const char *name = trn_path_name(recipe), *dot = strrchr(name, '.');
    trn_text_add(&path, "out/");
    trn_text_add_n(&path, name, dot && dot != name ? (size_t)(dot - name) : strlen(name));
    if (!path.failed) return path.data;
    trn_text_free(&path);
    return NULL;
}

static trn_status print_parameters(const trn_command *command, const char *path, const trn_recipe *recipe,
                                   trn_error *err)
{
    trn_text out = {0};
    trn_text_printf(&out, "%s: %s\n\nparameters, as --set NAME=VALUE:\n", trn_path_name(path),
                    trn_recipe_title(recipe));
    for (size_t i = 0; i < trn_recipe_param_count(recipe); i++) {
        trn_recipe_param param = trn_recipe_param_at(recipe, i);
        trn_text_printf(&out, "  %-16s %s (default: %s)\n", param.name,
                        param.description ? param.description : "",
                        param.default_value ? param.default_value : "none");
    }
    if (!trn_recipe_param_count(recipe)) trn_text_add(&out, "  none\n");
    trn_text_add(&out, "\n");
    options_help(command, &out);
    trn_status status = console_print(&out, err);
    trn_text_free(&out);
    return status;
}

/* Which of the recipe's constructors a failure is about. */
typedef struct blamed {
    bool known;
    trn_recipe_part part;
    size_t index;
} blamed;

static void blame(void *user, trn_job_part part, size_t index)
{
    static const trn_recipe_part parts[] = {
        [TRN_JOB_WHOLE] = TRN_RECIPE_EMBED,
        [TRN_JOB_SCENE] = TRN_RECIPE_SCENE,
        [TRN_JOB_ENCODER] = TRN_RECIPE_ENCODER,
        [TRN_JOB_EXPORT] = TRN_RECIPE_EXPORT,
    };
    *(blamed *)user = (blamed){true, parts[part], index};
}

static void put_place(const trn_recipe *recipe, const blamed *fault, trn_error *err)
{
    if (!fault->known) return;
    trn_text place = {0};
    trn_recipe_place(recipe, fault->part, fault->index, NULL, &place);
    if (place.length) trn_wrap(err, "%s", place.data);
    trn_text_free(&place);
}

trn_status recipe_job(const trn_recipe *recipe, any_job *job, trn_error *err)
{
    const trn_embed_job *embed = trn_recipe_job(recipe);
    const trn_reconstruct_job *reconstruct = trn_recipe_reconstruct(recipe);
    const trn_probe_job *probe = trn_recipe_probe(recipe);
    const trn_train_job *train = trn_recipe_train(recipe);
    if (embed) *job = (any_job){&embed_kind, {.embed = *embed}};
    if (reconstruct) *job = (any_job){&reconstruct_kind, {.reconstruct = *reconstruct}};
    if (probe) *job = (any_job){&probe_kind, {.probe = *probe}};
    if (train) *job = (any_job){&train_kind, {.train = *train}};
    if (embed || reconstruct || probe || train) return TRN_OK;
    return trn_fail(err, TRN_ERR_INTERNAL, "the recipe ends with no job");
}

static trn_status run_recipe(const run_values *values, const trn_recipe *recipe, const trn_job_hooks *hooks,
                             trn_error *err)
{
    any_job job;
    trn_status status = recipe_job(recipe, &job, err);
    if (status != TRN_OK) return status;
    char *folder = values->out ? NULL : default_folder(values->common.words.items[0]);
    if (!values->out && !folder) return trn_fail_memory(err, 0, "the name of the output folder");
    job.kind->settle(&job, values->out ? values->out : folder, values->memory_limit);
    job_request request = {.job = &job,
                           .hooks = hooks,
                           .device = values->device,
                           .explain = values->explain,
                           .json = values->common.json};
    status = job_request_run(&request, err);
    free(folder);
    return status;
}

static trn_status check_recipe(const run_values *values, const trn_recipe *recipe, const trn_job_hooks *hooks,
                               trn_error *err)
{
    any_job job;
    trn_status status = recipe_job(recipe, &job, err);
    if (status == TRN_OK) status = job.kind->check(&job, hooks, err);
    if (status != TRN_OK) return status;
    trn_text out = {0};
    if (values->common.json) {
        trn_text_add(&out, "{\"ok\": true, \"title\": ");
        trn_text_json(&out, trn_recipe_title(recipe));
        trn_text_add(&out, "}\n");
    } else if (!values->common.quiet) {
        trn_text_printf(&out, "%s: good (", values->common.words.items[0]);
        job.kind->describe(&job, &out);
        trn_text_add(&out, ")\n");
    }
    status = console_print(&out, err);
    trn_text_free(&out);
    return status;
}

static trn_status load_and(const trn_command *command, void *user, trn_error *err)
{
    const run_values *values = user;
    const char *path = values->common.words.items[0];
    trn_recipe *recipe = NULL;
    blamed fault = {0};
    trn_job_hooks hooks = *console_hooks();
    hooks.blame = blame;
    hooks.user = &fault;
    trn_status status = trn_recipe_load(path, values->sets.items, values->sets.count, NULL, &recipe, err);
    if (status != TRN_OK) return status;
    if (values->common.help)
        status = print_parameters(command, path, recipe, err);
    else if (command == &run_command)
        status = run_recipe(values, recipe, &hooks, err);
    else
        status = check_recipe(values, recipe, &hooks, err);
    if (status != TRN_OK) put_place(recipe, &fault, err);
    trn_recipe_destroy(recipe);
    return status;
}

const trn_command run_command = {
    .name = "run",
    .usage = "run RECIPE [--set KEY=VALUE ...] [--out DIR] [OPTIONS]",
    .summary = "runs a recipe",
    .details =
        "Runs a recipe: reads and checks it as a whole, then does what it declares. The outputs and "
        "result.json "
        "(what was made, from what, by what, how fast) appear in the output folder when they are complete. "
        "With --help behind a recipe, its parameters are listed.",
    .example = "  terrane run recipes/quickstart.lua --set scene=L7_ETMs.tif --out out/demo",
    .options = run_options,
    .values_size = sizeof(run_values),
    .min_words = 1,
    .max_words = 1,
    .run = load_and,
    .helps_itself = true,
};

const trn_command check_command = {
    .name = "check",
    .usage = "check RECIPE [--set KEY=VALUE ...]",
    .summary = "checks a recipe, its weights and its scene without running it",
    .details = "Checks a recipe as far as that needs no device and no pixel: its text, the encoders' "
               "settings, the headers "
               "of weights and scenes, bands, tile sizes and output names.",
    .example = "  terrane check recipes/quickstart.lua --set scene=L7_ETMs.tif",
    .options = check_options,
    .values_size = sizeof(run_values),
    .min_words = 1,
    .max_words = 1,
    .run = load_and,
    .helps_itself = true,
};
