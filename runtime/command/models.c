/* terrane models and terrane version: what there is. */
#include "command.h"
#include "model_info.h"

#include <string.h>

typedef struct plain_values {
    common_values common;
} plain_values;

static const trn_option no_options[] = {{.name = NULL}};

static void format_parameters(uint64_t parameters, char out[32])
{
    if (!parameters)
        snprintf(out, 32, "-");
    else if (parameters < 100000000)
        snprintf(out, 32, "%.1f M", (double)parameters * 1e-6);
    else
        snprintf(out, 32, "%.0f M", (double)parameters * 1e-6);
}

/* What is known of a file's size: the stored one's, the published one's, or else four bytes a parameter. */
static void format_size(const trn_model_info *info, const trn_stored *stored, char out[48])
{
    char bytes[32];
    uint64_t known = stored->path ? stored->bytes : info->bytes, guess = info->parameters * sizeof(float);
    bool none = !info->source || (!known && !guess);
    snprintf(out, 48, "%s%s", none || known ? "" : "~",
             none ? "-" : trn_format_bytes(known ? known : guess, bytes));
}

/* A damaged entry is no reason to list nothing: *damage says what is wrong with it. */
static void look_up(const trn_model_info *info, trn_stored *stored, trn_error *damage)
{
    *damage = (trn_error){0};
    *stored = (trn_stored){0};
    if (info->source) trn_store_find(info->name, stored, damage);
}

static void model_json(const trn_model_info *info, trn_text *out)
{
    trn_stored stored;
    trn_error damage;
    look_up(info, &stored, &damage);
    const char *const texts[] = {"name",    info->name,    "family", info->family, "title", info->title,
                                 "licence", info->licence, "source", info->source, "path",  stored.path};
    trn_text_add(out, "{");
    for (size_t k = 0; k < TRN_COUNT(texts); k += 2) {
        trn_text_printf(out, "\"%s\": ", texts[k]);
        trn_text_json(out, texts[k + 1]);
        trn_text_add(out, ", ");
    }
    trn_text_printf(out, "\"present\": %s, ", stored.path ? "true" : "false");
    if (damage.message[0]) {
        trn_text_add(out, "\"damage\": ");
        trn_text_json(out, damage.message);
        trn_text_add(out, ", ");
    }
    trn_text_printf(out, "\"parameters\": %llu, ", (unsigned long long)info->parameters);
    uint64_t bytes = stored.path ? stored.bytes : info->bytes;
    if (bytes)
        trn_text_printf(out, "\"bytes\": %llu}", (unsigned long long)bytes);
    else
        trn_text_add(out, "\"bytes\": null}");
    trn_stored_free(&stored);
}

static void models_json(trn_text *out)
{
    trn_text_add(out, "{\"ok\": true, \"models\": [");
    for (size_t i = 0; i < trn_model_count(); i++) {
        trn_text_add(out, i ? ",\n  " : "\n  ");
        model_json(trn_model_at(i), out);
    }
    trn_text_add(out, "\n]}\n");
}

static void models_table(trn_text *out)
{
    static const char row[] = "%-26s %-9s %11s %12s  %-12s %-8s %s\n";
    trn_text_printf(out, row, "name", "family", "parameters", "size", "licence", "store", "title");
    for (size_t i = 0; i < trn_model_count(); i++) {
        const trn_model_info *info = trn_model_at(i);
        trn_stored stored;
        trn_error damage;
        look_up(info, &stored, &damage);
        char parameters[32], size[48];
        format_parameters(info->parameters, parameters);
        format_size(info, &stored, size);
        trn_text_printf(out, row, info->name, info->family, parameters, size,
                        info->licence ? info->licence : "no weights",
                        damage.message[0] ? "damaged"
                        : stored.path     ? "present"
                                          : "-",
                        info->title);
        trn_stored_free(&stored);
    }
}

static trn_status run_models(const trn_command *command, void *user, trn_error *err)
{
    const plain_values *values = user;
    const text_list *words = &values->common.words;
    trn_text out = {0};
    trn_status status = TRN_OK;
    if (words->count && strcmp(words->items[0], "show") != 0)
        status = trn_fail(err, TRN_ERR_ARGUMENT, "unknown word '%.100s'; usage: terrane %s", words->items[0],
                          command->usage);
    else if (words->count == 1)
        status = trn_fail(err, TRN_ERR_ARGUMENT, "which encoder? usage: terrane %s", command->usage);
    else if (words->count)
        status = model_show(words->items[1], values->common.json, &out, err);
    else if (values->common.json)
        models_json(&out);
    else
        models_table(&out);
    if (status == TRN_OK) status = console_print(&out, err);
    trn_text_free(&out);
    return status;
}

static trn_status run_version(const trn_command *command, void *user, trn_error *err)
{
    (void)command;
    const plain_values *values = user;
    trn_text out = {0};
    trn_text_printf(&out, values->common.json ? "{\"ok\": true, \"version\": \"%s\"}\n" : "terrane %s\n",
                    TRN_VERSION);
    trn_status status = console_print(&out, err);
    trn_text_free(&out);
    return status;
}

const trn_command models_command = {
    .name = "models",
    .usage = "models [show NAME] [--json]",
    .summary = "lists the encoders, or shows one",
    .details =
        "Lists the encoders: parameters, size of the published file (~: guessed from the parameters), the "
        "weights' licence, and whether the model store has them (terrane pull fetches them). With show "
        "and a name: what that encoder wants, what it gives, and its settings.",
    .example = "  terrane models\n  terrane models show dinov2-small",
    .options = no_options,
    .values_size = sizeof(plain_values),
    .max_words = 2,
    .run = run_models,
};

const trn_command version_command = {
    .name = "version",
    .usage = "version [--json]",
    .summary = "prints the version",
    .example = "  terrane version",
    .options = no_options,
    .values_size = sizeof(plain_values),
    .run = run_version,
};
