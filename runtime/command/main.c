/* terrane: finds the command, parses its options, runs it, and turns the outcome into an exit status. */
#include "command.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

static const trn_command *const commands[] = {
    &embed_command, &run_command,    &check_command, &devices_command,    &selftest_command, &bench_command,
    &tune_command,  &models_command, &pull_command,  &synthesize_command, &shaders_command,  &version_command,
};

static const trn_command *find_command(const char *name)
{
    for (size_t i = 0; i < TRN_COUNT(commands); i++)
        if (!strcmp(commands[i]->name, name)) return commands[i];
    return NULL;
}

static void overview(trn_text *out)
{
    trn_text_add(out,
                 "Terrane: Earth-observation encoders on any Vulkan device. GeoTIFF in, embeddings out.\n\n"
                 "usage: terrane COMMAND [OPTIONS]\n\ncommands:\n");
    for (size_t i = 0; i < TRN_COUNT(commands); i++)
        trn_text_printf(out, "  %-10s %s\n", commands[i]->name, commands[i]->summary);
    trn_text_add(
        out,
        "  help       how a command is used\n\n"
        "terrane COMMAND --help shows its options and an example.\n\n"
        "exit status: 0 done, 1 a bug of Terrane, 2 wrong arguments or recipe, 3 input or output failed,\n"
        "  4 damaged file, 5 not supported, 6 too little memory, 7 no device or driver failed,\n"
        "  8 device lost, 9 cancelled\n"
        "environment: TERRANE_DEVICE, TERRANE_MODELS (folder of downloaded weights), TERRANE_PROFILE=1,\n"
        "  TERRANE_LOG=error|warn|info|debug|trace\n");
}

static trn_status fail_unknown(const char *name, trn_error *err)
{
    const char *names[TRN_COUNT(commands)];
    for (size_t i = 0; i < TRN_COUNT(commands); i++)
        names[i] = commands[i]->name;
    const char *near = trn_nearest(name, names, TRN_COUNT(names));
    if (near)
        return trn_fail(err, TRN_ERR_ARGUMENT, "unknown command '%.64s'; did you mean '%s'?", name, near);
    return trn_fail(err, TRN_ERR_ARGUMENT, "unknown command '%.64s'; see terrane help", name);
}

static trn_status help(int argc, char **argv, trn_error *err)
{
    trn_text out = {0};
    const trn_command *command = argc > 0 ? find_command(argv[0]) : NULL;
    trn_status status = argc > 0 && !command ? fail_unknown(argv[0], err) : TRN_OK;
    if (command)
        options_help(command, &out);
    else
        overview(&out);
    if (status == TRN_OK) status = console_print(&out, err);
    trn_text_free(&out);
    return status;
}

/* For machines a failure is an object on standard output as well. */
static void print_failure(const trn_error *err)
{
    trn_text out = {0};
    trn_text_printf(&out, "{\"ok\": false, \"code\": %d, \"kind\": \"%s\", \"error\": ", (int)err->code,
                    trn_status_name(err->code));
    trn_text_json(&out, err->message);
    trn_text_add(&out, "}\n");
    console_print(&out, NULL);
    trn_text_free(&out);
}

static trn_status run_command_line(const trn_command *command, int argc, char **argv, bool *json,
                                   trn_error *err)
{
    void *values = calloc(1, command->values_size);
    if (!values) return trn_fail_memory(err, command->values_size, "options");
    common_values *common = values;
    trn_status status = options_parse(command, argc, argv, values, err);
    console_quiet(common->quiet, common->json);
    *json = common->json;
    if (status == TRN_OK && common->help && !(command->helps_itself && common->words.count))
        status = help(1, (char *[]){(char *)(uintptr_t)command->name}, err);
    else if (status == TRN_OK)
        status = command->run(command, values, err);
    options_free(command, values);
    free(values);
    return status;
}

static void log_sink(void *user, trn_log_level level, const char *text)
{
    (void)user;
    console_note(level, text);
}

/* Each thread's own heap takes 64 MiB of address space: where that is limited (ulimit -v), all share one. */
static void save_address_space(void)
{
#ifdef __GLIBC__
    struct rlimit limit;
    if (!getrlimit(RLIMIT_AS, &limit) && limit.rlim_cur != RLIM_INFINITY) mallopt(M_ARENA_MAX, 1);
#endif
}

int main(int argc, char **argv)
{
    trn_error err = {0};
    trn_status status;
    bool json = false;
    save_address_space();
    console_start(false, false);
    trn_log_set(log_sink, NULL, trn_log_level_parse(getenv("TERRANE_LOG"), TRN_LOG_WARN));
    const char *name = argc > 1 ? argv[1] : "help";
    const trn_command *command = find_command(name);
    if (!strcmp(name, "--version") || !strcmp(name, "-V")) command = &version_command;
    if (command)
        status = run_command_line(command, argc - 2, argv + 2, &json, &err);
    else if (!strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h"))
        status = help(argc > 2 ? argc - 2 : 0, argv + 2, &err);
    else
        status = fail_unknown(name, &err);
    if (status == TRN_OK) return argc > 1 ? 0 : TRN_ERR_ARGUMENT;
    console_error(&err);
    if (json) print_failure(&err);
    return (int)status;
}
