/* The families there are, and their encoders by name. */
#include "models_private.h"

#include <string.h>

const trn_family *const trn_families[] = {&trn_family_vit,  &trn_family_hiera,   &trn_family_galileo,
                                          &trn_family_dofa, &trn_family_prithvi, &trn_family_presto,
                                          &trn_family_sam2, &trn_family_rcf};
const size_t trn_family_count = TRN_COUNT(trn_families);

size_t trn_model_count(void)
{
    size_t count = 0;
    for (size_t f = 0; f < trn_family_count; f++)
        count += trn_families[f]->config_count;
    return count;
}

static const trn_model_config *config_at(size_t i, const trn_family **family)
{
    for (size_t f = 0; f < trn_family_count; f++) {
        *family = trn_families[f];
        if (i < (*family)->config_count) return &(*family)->configs[i];
        i -= (*family)->config_count;
    }
    return NULL;
}

const trn_model_info *trn_model_at(size_t i)
{
    const trn_family *family;
    const trn_model_config *config = config_at(i, &family);
    return config ? &config->info : NULL;
}

static trn_status fail_unknown(const char *name, trn_error *err)
{
    enum { MAX_NAMES = 256 };
    const char *names[MAX_NAMES];
    size_t count = TRN_MIN(trn_model_count(), (size_t)MAX_NAMES);
    trn_text list = {0};
    for (size_t i = 0; i < count; i++) {
        names[i] = trn_model_at(i)->name;
        trn_text_printf(&list, "%s%s", i ? ", " : "", names[i]);
    }
    const char *nearest = trn_nearest(name, names, count);
    if (nearest)
        trn_fail(err, TRN_ERR_ARGUMENT, "there is no encoder '%s'; did you mean '%s'?", name, nearest);
    else
        trn_fail(err, TRN_ERR_ARGUMENT, "there is no encoder '%s'; there are: %s", name, trn_text_get(&list));
    trn_text_free(&list);
    return TRN_ERR_ARGUMENT;
}

const trn_model_config *trn_model_find(const char *name, const trn_family **family, trn_error *err)
{
    const trn_model_config *config;
    for (size_t i = 0; (config = config_at(i, family)) != NULL; i++)
        if (!strcmp(config->info.name, name)) return config;
    fail_unknown(name, err);
    return NULL;
}

static void describe_rule(const trn_setting_rule *rule, trn_text *out)
{
    trn_text_printf(out, "%s=%s", rule->key, rule->fallback);
    if (rule->kind == TRN_SETTING_CHOICE) trn_text_printf(out, " (%s)", rule->choices);
    if (rule->kind == TRN_SETTING_INT || rule->kind == TRN_SETTING_REAL)
        trn_text_printf(out, " (%.10g..%.10g)", rule->min, rule->max);
    trn_text_printf(out, ": %s\n", rule->about);
}

trn_status trn_model_settings(const char *name, trn_text *out, trn_error *err)
{
    const trn_family *family;
    const trn_model_config *config = trn_model_find(name, &family, err);
    if (!config) return TRN_ERR_ARGUMENT;
    for (size_t i = 0; i < family->setting_count; i++)
        describe_rule(&family->settings[i], out);
    return TRN_OK;
}
