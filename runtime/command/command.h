/* command: the `terrane` program: options, the terminal, and one file per subcommand. */
#ifndef TRN_COMMAND_H
#define TRN_COMMAND_H

#include "base.h"
#include "gpu.h"
#include "job.h"

/* ---- options.c: tables of options, from which parsing and --help are made ---- */

typedef struct text_list {
    const char **items;
    size_t count, capacity;
} text_list;

typedef struct number_value {
    bool given;
    double value;
} number_value;

typedef enum option_kind {
    OPTION_FLAG,   /* bool */
    OPTION_TEXT,   /* const char * */
    OPTION_INT,    /* int, min..max */
    OPTION_NUMBER, /* number_value, finite or nan */
    OPTION_SIZE,   /* uint64_t bytes: 512M, 2G */
    OPTION_CHOICE, /* int, index into choices */
    OPTION_LIST,   /* text_list: may be repeated */
    OPTION_COMMAS, /* text_list: one text, cut at commas */
} option_kind;

typedef struct trn_option {
    const char *name; /* without dashes */
    char letter;      /* 0: none */
    option_kind kind;
    size_t offset; /* of the value in the command's struct */
    const char *placeholder, *help;
    const char *const *choices; /* NULL-terminated */
    int min, max, initial;      /* OPTION_INT */
} trn_option;

/* Options that several commands have; the argument is the offset of the value. */
#define OPTION_DEVICE(at)                                                                                    \
    {                                                                                                        \
        .name = "device", .letter = 'd', .kind = OPTION_TEXT, .offset = (at), .placeholder = "D",            \
        .help = "index or part of the name of a device; see terrane devices"                                 \
    }
#define OPTION_MEMORY_LIMIT(at)                                                                              \
    {                                                                                                        \
        .name = "memory-limit", .kind = OPTION_SIZE, .offset = (at), .placeholder = "SIZE",                  \
        .help = "device memory that may be used, such as 512M; default: what is free"                        \
    }
#define OPTION_MODEL(at)                                                                                     \
    {                                                                                                        \
        .name = "model", .letter = 'm', .kind = OPTION_TEXT, .offset = (at), .placeholder = "NAME",          \
        .help = "the encoder; terrane models lists them"                                                     \
    }
#define OPTION_CONFIG(at)                                                                                    \
    {                                                                                                        \
        .name = "config", .letter = 'c', .kind = OPTION_LIST, .offset = (at), .placeholder = "KEY=VALUE",    \
        .help = "a setting of the encoder; may be repeated"                                                  \
    }

/* What every command understands. First member of each command's struct. */
typedef struct common_values {
    bool help, quiet, json;
    text_list words; /* what is no option */
} common_values;

typedef struct trn_command {
    const char *name, *usage, *summary, *details, *example;
    const trn_option *options; /* ended by a NULL name */
    size_t values_size;
    size_t min_words, max_words;
    /* values is the zeroed and parsed struct. On failure err is filled. */
    trn_status (*run)(const struct trn_command *command, void *values, trn_error *err);
    bool helps_itself; /* with --help and a word, run is called */
} trn_command;

/* A value that parsing makes owns no memory but lists' arrays: options_free. */
trn_status options_parse(const trn_command *command, int count, char **words, void *values, trn_error *err);
void options_free(const trn_command *command, void *values);
void options_help(const trn_command *command, trn_text *out);
/* The KEY=VALUE texts of --config as settings [texts->count], in the arena. */
trn_status options_settings(const text_list *texts, trn_arena *arena, trn_setting **settings, trn_error *err);

/* ---- console.c: stderr, progress, Ctrl-C ---- */

void console_start(bool quiet, bool json);
void console_quiet(bool quiet, bool json);
bool console_is_quiet(void);
void console_error(const trn_error *err);
void console_note(trn_log_level level, const char *text);
const trn_job_hooks *console_hooks(void); /* progress, notes and Ctrl-C for a job */
void console_progress_end(void);          /* leaves the progress line */
/* Writes text to stdout; TRN_ERR_IO when it does not take it. */
trn_status console_print(const trn_text *text, trn_error *err);

/* ---- device.c: opening the device for a command ---- */

trn_status device_open(const char *name, trn_gpu **out, trn_error *err);
/* "driver", "shaders_compiled" and so on, as members of a JSON object. */
void device_stats_json(trn_gpu *gpu, trn_text *out);

/* ---- job_report.c: running a job and telling about it, for embed and run ---- */

/* A job of any kind. */
typedef struct any_job {
    const struct job_kind *kind;
    union {
        trn_embed_job embed;
        trn_reconstruct_job reconstruct;
        trn_probe_job probe;
        trn_train_job train;
    } as;
} any_job;

typedef struct job_request job_request;
typedef struct job_kind {
    /* Where it writes, and what it may use. */
    void (*settle)(any_job *job, const char *out_dir, uint64_t memory_limit);
    trn_status (*check)(const any_job *job, const trn_job_hooks *hooks, trn_error *err);
    trn_status (*explain)(const any_job *job, trn_gpu *gpu, const trn_job_hooks *hooks, trn_text *out,
                          trn_error *err);
    /* Runs it, and writes what is printed at the end. */
    trn_status (*run)(const job_request *request, trn_gpu *gpu, trn_text *out, trn_error *err);
    /* "2 encoders, 1 output" */
    void (*describe)(const any_job *job, trn_text *out);
} job_kind;
extern const job_kind embed_kind, reconstruct_kind, probe_kind, train_kind;

struct job_request {
    const any_job *job;
    const trn_job_hooks *hooks;
    const char *device;
    bool explain, json;
};
/* A copy of the job that the recipe ends with (run.c). */
struct trn_recipe;
trn_status recipe_job(const struct trn_recipe *recipe, any_job *job, trn_error *err);
trn_status job_request_run(const job_request *request, trn_error *err);

extern const trn_command embed_command, run_command, check_command, devices_command, selftest_command,
    bench_command, models_command, pull_command, synthesize_command, shaders_command, tune_command,
    version_command;

#endif
