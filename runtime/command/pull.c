/* terrane pull: an encoder's published weights into the model store. */
#include "command.h"
#include "model_info.h"

#include <stdlib.h>
#include <string.h>

typedef struct pull_values {
    common_values common;
    const char *url;
    bool force;
} pull_values;

#define AT(member) offsetof(pull_values, member)
static const trn_option pull_options[] = {
    {.name = "url",
     .kind = OPTION_TEXT,
     .offset = AT(url),
     .placeholder = "URL",
     .help = "where to fetch the file, instead of the address that terrane models show NAME gives"},
    {.name = "force",
     .letter = 'f',
     .kind = OPTION_FLAG,
     .offset = AT(force),
     .help = "download although the store has it; the SHA-256 must be the same"},
    {.name = NULL},
};

static void tell(void *user, trn_log_level level, const char *text)
{
    (void)user;
    console_note(level, text);
}

/* The address of the file, or what the user is to do. */
static trn_status choose_url(const trn_model_info *info, const char *given, const char **url, trn_error *err)
{
    *url = given ? given : info->source;
    if (given) return TRN_OK;
    if (!info->source)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' needs no weights: there is nothing to pull",
                        info->name);
    if (model_source_is_file(info)) return TRN_OK;
    return trn_fail(
        err, TRN_ERR_ARGUMENT,
        "the weights of '%s' are on a page, not at an address of their own: see %s; then terrane pull "
        "%s --url URL-OF-THE-FILE, or download it and give it with --weights FILE",
        info->name, info->source, info->name);
}

static void print_json(const char *name, const trn_stored *stored, trn_text *out)
{
    const char *const texts[] = {"name",      name,   "path",       stored->path, "url",
                                 stored->url, "date", stored->date, "sha256",     stored->sha256};
    trn_text_add(out, "{\"ok\": true");
    for (size_t i = 0; i < TRN_COUNT(texts); i += 2) {
        trn_text_printf(out, ", \"%s\": ", texts[i]);
        trn_text_json(out, texts[i + 1]);
    }
    trn_text_printf(out,
                    ", \"bytes\": %llu, \"was_there\": %s, \"resumed_at\": %llu, \"transferred\": %llu}\n",
                    (unsigned long long)stored->bytes, stored->was_there ? "true" : "false",
                    (unsigned long long)stored->resumed_at, (unsigned long long)stored->transferred);
}

static void print_text(const char *name, const trn_stored *stored, trn_text *out)
{
    char bytes[32];
    trn_text_printf(out, "%s: %s%s (%s)\n  sha256 %s\n", name,
                    stored->was_there ? "already there, in order: " : "", stored->path,
                    trn_format_bytes(stored->bytes, bytes), stored->sha256);
}

static trn_status run_pull(const trn_command *command, void *user, trn_error *err)
{
    (void)command;
    const pull_values *values = user;
    const trn_model_info *info = model_info_find(values->common.words.items[0], err);
    if (!info) return TRN_ERR_ARGUMENT;
    trn_pull_options options = {
        .name = info->name,
        .sha256 = info->sha256,
        .force = values->force,
        .progress = &console_hooks()->progress,
        .note = tell,
    };
    trn_status status = choose_url(info, values->url, &options.url, err);
    if (status != TRN_OK) return status;
    /* of another address only digits say that it must be the same file */
    if (!values->url || info->sha256) options.bytes = info->bytes;
    char licence[256];
    if (model_licence_warning(info, licence, sizeof licence)) console_note(TRN_LOG_WARN, licence);

    trn_stored stored;
    trn_text out = {0};
    status = trn_store_pull(&options, &stored, err);
    if (status == TRN_OK && values->common.json)
        print_json(info->name, &stored, &out);
    else if (status == TRN_OK && !values->common.quiet)
        print_text(info->name, &stored, &out);
    if (status == TRN_OK) status = console_print(&out, err);
    trn_text_free(&out);
    trn_stored_free(&stored);
    return status;
}

const trn_command pull_command = {
    .name = "pull",
    .usage = "pull NAME [--url URL] [--force]",
    .summary = "downloads an encoder's weights into the model store",
    .details = "Downloads the published weights of an encoder into the model store, where terrane embed and "
               "recipes find them when no file is named. A download that was cut or stopped goes on where it "
               "ended. The file appears when it is complete and its SHA-256 is the known one; where none is "
               "known, the first download's is recorded and later ones are held against it.\n"
               "The store is the folder TERRANE_MODELS, or terrane/models in the cache folder "
               "(XDG_CACHE_HOME, ~/.cache).",
    .example = "  terrane pull dinov2-small",
    .options = pull_options,
    .values_size = sizeof(pull_values),
    .min_words = 1,
    .max_words = 1,
    .run = run_pull,
};
