/* Settings of encoders: from key=value texts to checked values. */
#include "models_private.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_RULES = 64, MAX_LENGTH = 4096 };

/* Index of `text` in "a|b|c", or -1. */
static int choice_index(const char *choices, const char *text)
{
    size_t length = strlen(text);
    for (int i = 0; length; i++) {
        const char *end = strchr(choices, '|');
        size_t n = end ? (size_t)(end - choices) : strlen(choices);
        if (n == length && !memcmp(choices, text, n)) return i;
        if (!end) break;
        choices = end + 1;
    }
    return -1;
}

/* Other ways to say true and false. */
static const char *plain_choice(const char *text)
{
    static const char *const yes[] = {"1", "yes", "on"}, *const no[] = {"0", "no", "off"};
    for (size_t i = 0; i < TRN_COUNT(yes); i++) {
        if (!strcmp(text, yes[i])) return "true";
        if (!strcmp(text, no[i])) return "false";
    }
    return text;
}

static trn_status parse_number(const char *encoder, const trn_setting_rule *rule, const char *text,
                               double *out, trn_error *err)
{
    int64_t integer = 0;
    bool is_int = rule->kind == TRN_SETTING_INT;
    bool ok = is_int ? trn_parse_int(text, &integer) : trn_parse_double(text, out);
    if (is_int) *out = (double)integer;
    if (ok && *out >= rule->min && *out <= rule->max) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "encoder '%s': setting %s=%s must be a%s number from %.10g to %.10g (%s)", encoder,
                    rule->key, text, is_int ? " whole" : "", rule->min, rule->max, rule->about);
}

static trn_status parse_value(trn_arena *arena, const char *encoder, const trn_setting_rule *rule,
                              const char *text, trn_setting_value *value, trn_error *err)
{
    trn_status status = TRN_OK;
    if (strlen(text) > MAX_LENGTH)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': setting '%s' is too long", encoder, rule->key);
    if (rule->kind == TRN_SETTING_CHOICE) {
        int index = choice_index(rule->choices, text);
        if (index < 0) text = plain_choice(text);
        if (index < 0) index = choice_index(rule->choices, text);
        if (index < 0)
            return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': setting %s=%s must be one of %s (%s)",
                            encoder, rule->key, text, rule->choices, rule->about);
        value->number = index;
    } else if (rule->kind != TRN_SETTING_TEXT) {
        status = parse_number(encoder, rule, text, &value->number, err);
    }
    value->text = trn_arena_strdup(arena, text);
    if (!value->text) return trn_fail_memory(err, strlen(text), "a setting");
    return status;
}

static trn_status fail_unknown(const char *encoder, const char *key, const trn_setting_rule *rules,
                               size_t count, trn_error *err)
{
    const char *keys[MAX_RULES];
    trn_text list = {0};
    for (size_t i = 0; i < count && i < MAX_RULES; i++) {
        keys[i] = rules[i].key;
        trn_text_printf(&list, "%s%s", i ? ", " : "", rules[i].key);
    }
    const char *nearest = trn_nearest(key, keys, TRN_MIN(count, (size_t)MAX_RULES));
    trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' has no setting '%s'%s%s%s; it has: %s", encoder, key,
             nearest ? "; did you mean '" : "", nearest ? nearest : "", nearest ? "'?" : "",
             trn_text_get(&list));
    trn_text_free(&list);
    return TRN_ERR_ARGUMENT;
}

static trn_status set_value(trn_arena *arena, const char *encoder, const trn_setting_rule *rules,
                            size_t rule_count, const char *key, const char *text, trn_setting_value *values,
                            trn_error *err)
{
    for (size_t i = 0; i < rule_count; i++)
        if (!strcmp(rules[i].key, key)) return parse_value(arena, encoder, &rules[i], text, &values[i], err);
    return fail_unknown(encoder, key, rules, rule_count, err);
}

/* "key=value key=value" of our own tables */
static trn_status set_all(trn_arena *arena, const char *encoder, const trn_setting_rule *rules,
                          size_t rule_count, const char *line, trn_setting_value *values, trn_error *err)
{
    char *copy = trn_arena_strdup(arena, line), *rest = NULL;
    if (!copy) return trn_fail_memory(err, strlen(line), "a configuration");
    for (char *pair = strtok_r(copy, " ", &rest); pair; pair = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(pair, '=');
        if (!equals) return trn_fail(err, TRN_ERR_INTERNAL, "configuration '%s' of '%s'", pair, encoder);
        *equals = 0;
        trn_status status = set_value(arena, encoder, rules, rule_count, pair, equals + 1, values, err);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}

trn_status trn_settings_resolve(trn_arena *arena, const char *encoder, const trn_setting_rule *rules,
                                size_t rule_count, const char *configuration, const trn_setting *given,
                                size_t given_count, trn_setting_value *values, trn_error *err)
{
    trn_status status = TRN_OK;
    for (size_t i = 0; i < rule_count && status == TRN_OK; i++)
        status = parse_value(arena, encoder, &rules[i], rules[i].fallback, &values[i], err);
    if (status == TRN_OK) status = set_all(arena, encoder, rules, rule_count, configuration, values, err);
    for (size_t i = 0; i < given_count && status == TRN_OK; i++) {
        if (!given[i].key || !given[i].value)
            return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': setting %zu has no key or no value",
                            encoder, i + 1);
        status = set_value(arena, encoder, rules, rule_count, given[i].key, given[i].value, values, err);
    }
    return status;
}

int trn_settings_list(trn_arena *arena, const char *text, const char **parts, int max)
{
    char *copy = trn_arena_strdup(arena, text);
    int count = 0;
    if (!copy || !text[0]) return copy ? 0 : -1;
    for (char *part = copy, *next; part; part = next) {
        next = strchr(part, ',');
        if (next) *next++ = 0;
        while (*part == ' ')
            part++;
        size_t length = strlen(part);
        while (length && part[length - 1] == ' ')
            part[--length] = 0;
        if (!length || count >= max) return -1;
        parts[count++] = part;
    }
    return count;
}
