/* terrane models and terrane version: what there is. */
#include "command.h"

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

static void models_json(trn_text *out)
{
    trn_text_add(out, "{\"ok\": true, \"models\": [");
    for (size_t i = 0; i < trn_model_count(); i++) {
        const trn_model_info *info = trn_model_at(i);
        const char *const texts[] = {"name",      info->name, "family",      info->family, "title",
                                     info->title, "licence",  info->licence, "source",     info->source};
        trn_text_add(out, i ? ",\n  {" : "\n  {");
        for (size_t k = 0; k < TRN_COUNT(texts); k += 2) {
            trn_text_printf(out, "\"%s\": ", texts[k]);
            trn_text_json(out, texts[k + 1]);
            trn_text_add(out, ", ");
        }
        trn_text_printf(out, "\"parameters\": %llu}", (unsigned long long)info->parameters);
    }
    trn_text_add(out, "\n]}\n");
}

static void models_table(trn_text *out)
{
    trn_text_printf(out, "%-22s %-9s %11s  %-12s %s\n", "name", "family", "parameters", "licence", "title");
    for (size_t i = 0; i < trn_model_count(); i++) {
        const trn_model_info *info = trn_model_at(i);
        char parameters[32];
        format_parameters(info->parameters, parameters);
        trn_text_printf(out, "%-22s %-9s %11s  %-12s %s\n", info->name, info->family, parameters,
                        info->licence ? info->licence : "no weights", info->title);
    }
}

static trn_status run_models(const trn_command *command, void *user, trn_error *err)
{
    (void)command;
    const plain_values *values = user;
    trn_text out = {0};
    if (values->common.json)
        models_json(&out);
    else
        models_table(&out);
    trn_status status = console_print(&out, err);
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
    .usage = "models [--json]",
    .summary = "lists the encoders",
    .example = "  terrane models",
    .options = no_options,
    .values_size = sizeof(plain_values),
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
