/* terrane synthesize: a checkpoint of made-up weights, for trying and measuring without downloads. */
#include "command.h"

#include <sys/stat.h>

typedef struct synthesize_values {
    common_values common;
    text_list config;
    bool decoder;
} synthesize_values;

static const trn_option options[] = {
    OPTION_CONFIG(offsetof(synthesize_values, config)),
    {.name = "decoder",
     .kind = OPTION_FLAG,
     .offset = offsetof(synthesize_values, decoder),
     .help = "with the decoder that draws hidden patches, for recipes that reconstruct"},
    {.name = NULL},
};

static trn_status report(const char *name, const char *path, bool json, trn_error *err)
{
    struct stat info;
    char bytes[32];
    trn_text out = {0};
    if (stat(path, &info)) return trn_fail_errno(err, "read", path);
    if (json) {
        trn_text_add(&out, "{\"ok\": true, \"model\": ");
        trn_text_json(&out, name);
        trn_text_add(&out, ", \"path\": ");
        trn_text_json(&out, path);
        trn_text_printf(&out, ", \"bytes\": %lld}\n", (long long)info.st_size);
    } else if (!console_is_quiet()) {
        trn_text_printf(&out, "%s: %s of made-up weights of %s\n", path,
                        trn_format_bytes((uint64_t)info.st_size, bytes), name);
    }
    trn_status status = console_print(&out, err);
    trn_text_free(&out);
    return status;
}

static trn_status run(const trn_command *command, void *user, trn_error *err)
{
    (void)command;
    const synthesize_values *values = user;
    const char *name = values->common.words.items[0], *path = values->common.words.items[1];
    trn_status (*write_checkpoint)(const char *, const trn_setting *, size_t, const char *,
                                   const trn_progress *, trn_error *) =
        values->decoder ? trn_masked_write_synthetic : trn_model_write_synthetic;
    trn_setting *settings;
    trn_arena *arena = trn_arena_create();
    if (!arena) return trn_fail_memory(err, 1, "settings");
    trn_status status = options_settings(&values->config, arena, &settings, err);
    if (status == TRN_OK)
        status =
            write_checkpoint(name, settings, values->config.count, path, &console_hooks()->progress, err);
    console_progress_end();
    trn_arena_destroy(arena);
    return status == TRN_OK ? report(name, path, values->common.json, err) : status;
}

const trn_command synthesize_command = {
    .name = "synthesize",
    .usage = "synthesize NAME FILE [-c KEY=VALUE] [--decoder] [--json]",
    .summary = "writes a checkpoint of made-up weights",
    .details = "The file has the names, shapes and wrapping of the published one, and numbers made up by a "
               "fixed rule: it shows that a pipeline runs, how long it takes and how much memory it needs, "
               "and its embeddings mean nothing. FILE ends in .pt or .pth (PyTorch) or .safetensors.",
    .example = "  terrane synthesize mae-vit-base mae.pth\n"
               "  terrane embed --model mae-vit-base --weights mae.pth scene.tif -o out.tif",
    .options = options,
    .values_size = sizeof(synthesize_values),
    .min_words = 2,
    .max_words = 2,
    .run = run,
};
