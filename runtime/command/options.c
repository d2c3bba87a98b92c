/* Options: parsing by a table, and the help text from the same table. */
#include "command.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_OPTIONS = 64, HELP_COLUMN = 26 };

static const trn_option common_options[] = {
    {.name = "quiet",
     .letter = 'q',
     .kind = OPTION_FLAG,
     .offset = offsetof(common_values, quiet),
     .help = "print errors only"},
    {.name = "json",
     .kind = OPTION_FLAG,
     .offset = offsetof(common_values, json),
     .help = "one JSON object on standard output, progress as JSON lines on standard error"},
    {.name = "help",
     .letter = 'h',
     .kind = OPTION_FLAG,
     .offset = offsetof(common_values, help),
     .help = "this text"},
    {.name = NULL},
};

static size_t collect(const trn_command *command, const trn_option **out)
{
    size_t count = 0;
    for (const trn_option *o = command->options; o && o->name; o++)
        out[count++] = o;
    for (const trn_option *o = common_options; o->name; o++)
        out[count++] = o;
    return count;
}

static void *value_at(void *values, const trn_option *option)
{
    return (char *)values + option->offset;
}

static bool list_add(text_list *list, const char *text)
{
    if (!trn_grow(&list->items, &list->capacity, list->count + 1, sizeof *list->items)) return false;
    list->items[list->count++] = text;
    return true;
}

/* ---- values ---- */

static trn_status fail_value(const trn_option *option, const char *text, const char *wanted, trn_error *err)
{
    return trn_fail(err, TRN_ERR_ARGUMENT, "--%s is '%.100s'; wanted %s", option->name, text, wanted);
}

static trn_status set_int(const trn_option *option, const char *text, int *out, trn_error *err)
{
    int64_t value;
    char wanted[64];
    snprintf(wanted, sizeof wanted, "an integer from %d to %d", option->min, option->max);
    if (!trn_parse_int(text, &value) || value < option->min || value > option->max)
        return fail_value(option, text, wanted, err);
    *out = (int)value;
    return TRN_OK;
}

static trn_status set_number(const trn_option *option, const char *text, number_value *out, trn_error *err)
{
    if (!strcasecmp(text, "nan"))
        out->value = NAN;
    else if (!trn_parse_double(text, &out->value) || isinf(out->value))
        return fail_value(option, text, "a number", err);
    out->given = true;
    return TRN_OK;
}

static trn_status set_size(const trn_option *option, const char *text, uint64_t *out, trn_error *err)
{
    static const char units[] = "KMGT";
    char digits[32];
    size_t length = strlen(text);
    const char *unit = length ? strchr(units, text[length - 1]) : NULL;
    int shift = unit && *unit ? (int)(10 * (unit - units + 1)) : 0;
    snprintf(digits, sizeof digits, "%.*s", (int)TRN_MIN(length - (shift ? 1 : 0), sizeof digits - 1), text);
    int64_t value;
    if (!trn_parse_int(digits, &value) || value <= 0 || value > INT64_MAX >> shift)
        return fail_value(option, text, "a size in bytes, such as 512M or 2G", err);
    *out = (uint64_t)value << shift;
    return TRN_OK;
}

static trn_status set_choice(const trn_option *option, const char *text, int *out, trn_error *err)
{
    trn_text wanted = {0};
    size_t count = 0;
    for (; option->choices[count]; count++) {
        if (!strcmp(option->choices[count], text)) {
            *out = (int)count;
            trn_text_free(&wanted);
            return TRN_OK;
        }
        trn_text_printf(&wanted, "%s%s", count ? ", " : "one of ", option->choices[count]);
    }
    const char *near = trn_nearest(text, option->choices, count);
    if (near) trn_text_printf(&wanted, "; did you mean '%s'?", near);
    trn_status status = fail_value(option, text, trn_text_get(&wanted), err);
    trn_text_free(&wanted);
    return status;
}

/* Cuts at commas into one block that the first item begins; freed with the list. */
static trn_status set_commas(const trn_option *option, const char *text, text_list *out, trn_error *err)
{
    if (out->count) return trn_fail(err, TRN_ERR_ARGUMENT, "--%s is given twice", option->name);
    char *copy = strdup(text);
    if (!copy) return trn_fail_memory(err, strlen(text), "an option");
    for (char *piece = copy;;) {
        char *comma = strchr(piece, ',');
        if (comma) *comma = 0;
        if (!list_add(out, piece)) {
            if (!out->count) free(copy);
            /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the list owns the block from its first item on */
            return trn_fail_memory(err, strlen(text), "an option");
        }
        if (!*piece) return fail_value(option, text, "names with commas between them", err);
        if (!comma) return TRN_OK;
        piece = comma + 1;
    }
}

static trn_status set_value(const trn_option *option, const char *text, void *values, trn_error *err)
{
    void *out = value_at(values, option);
    switch (option->kind) {
    case OPTION_FLAG:
        *(bool *)out = true;
        return TRN_OK;
    case OPTION_TEXT:
        *(const char **)out = text;
        return *text ? TRN_OK : fail_value(option, text, "a text that is not empty", err);
    case OPTION_INT:
        return set_int(option, text, out, err);
    case OPTION_NUMBER:
        return set_number(option, text, out, err);
    case OPTION_SIZE:
        return set_size(option, text, out, err);
    case OPTION_CHOICE:
        return set_choice(option, text, out, err);
    case OPTION_LIST:
        return list_add(out, text) ? TRN_OK : trn_fail_memory(err, 0, "options");
    case OPTION_COMMAS:
        return set_commas(option, text, out, err);
    }
    return trn_fail(err, TRN_ERR_INTERNAL, "option --%s has no kind", option->name);
}

/* ---- words ---- */

static trn_status fail_unknown(const trn_command *command, const trn_option *const *options, size_t count,
                               const char *word, trn_error *err)
{
    const char *names[MAX_OPTIONS];
    char bare[64];
    snprintf(bare, sizeof bare, "%s", word + strspn(word, "-"));
    char *equals = strchr(bare, '=');
    if (equals) *equals = 0;
    for (size_t i = 0; i < count; i++)
        names[i] = options[i]->name;
    const char *near = trn_nearest(bare, names, count);
    if (near)
        return trn_fail(err, TRN_ERR_ARGUMENT, "unknown option '%.64s' of terrane %s; did you mean '--%s'?",
                        word, command->name, near);
    return trn_fail(err, TRN_ERR_ARGUMENT, "unknown option '%.64s' of terrane %s; see terrane %s --help",
                    word, command->name, command->name);
}

/* The option that a word names, and the value behind its '=' if there is one. */
static const trn_option *find(const trn_option *const *options, size_t count, const char *word,
                              const char **value)
{
    *value = NULL;
    for (size_t i = 0; i < count; i++) {
        const trn_option *o = options[i];
        if (word[1] != '-') {
            if (o->letter && word[1] == o->letter && !word[2]) return o;
            continue;
        }
        size_t length = strlen(o->name);
        if (strncmp(word + 2, o->name, length) != 0) continue;
        if (!word[2 + length]) return o;
        if (word[2 + length] != '=') continue;
        *value = word + 2 + length + 1;
        return o;
    }
    return NULL;
}

static trn_status check_word_count(const trn_command *command, const common_values *common, trn_error *err)
{
    if (common->help) return TRN_OK;
    if (common->words.count < command->min_words)
        return trn_fail(err, TRN_ERR_ARGUMENT, "too few arguments; usage: terrane %s", command->usage);
    if (common->words.count > command->max_words)
        return trn_fail(err, TRN_ERR_ARGUMENT, "'%.100s' is one argument too many; usage: terrane %s",
                        common->words.items[command->max_words], command->usage);
    return TRN_OK;
}

trn_status options_parse(const trn_command *command, int count, char **words, void *values, trn_error *err)
{
    const trn_option *options[MAX_OPTIONS];
    size_t option_count = collect(command, options);
    common_values *common = values;
    bool only_words = false;
    for (size_t i = 0; i < option_count; i++)
        if (options[i]->kind == OPTION_INT) *(int *)value_at(values, options[i]) = options[i]->initial;
    for (int i = 0; i < count; i++) {
        const char *word = words[i], *value;
        if (only_words || word[0] != '-' || !word[1]) {
            if (!list_add(&common->words, word)) return trn_fail_memory(err, 0, "arguments");
            continue;
        }
        if (!strcmp(word, "--")) {
            only_words = true;
            continue;
        }
        const trn_option *o = find(options, option_count, word, &value);
        if (!o) return fail_unknown(command, options, option_count, word, err);
        if (o->kind == OPTION_FLAG && value)
            return trn_fail(err, TRN_ERR_ARGUMENT, "--%s takes no value, but got '%.64s'", o->name, value);
        if (o->kind != OPTION_FLAG && !value) {
            if (i + 1 == count)
                return trn_fail(err, TRN_ERR_ARGUMENT, "%s wants a value: %s", word, o->placeholder);
            value = words[++i];
        }
        trn_status status = set_value(o, value, values, err);
        if (status != TRN_OK) return status;
    }
    return check_word_count(command, common, err);
}

void options_free(const trn_command *command, void *values)
{
    for (const trn_option *o = command->options; o && o->name; o++) {
        text_list *list = value_at(values, o);
        if (o->kind == OPTION_COMMAS && list->count) free((void *)(uintptr_t)list->items[0]);
        if (o->kind == OPTION_COMMAS || o->kind == OPTION_LIST) free(list->items);
    }
    free(((common_values *)values)->words.items);
}

trn_status options_settings(const text_list *texts, trn_arena *arena, trn_setting **settings, trn_error *err)
{
    enum { LONGEST_KEY = 63 };
    *settings = trn_arena_array(arena, texts->count + 1, sizeof **settings);
    if (!*settings) return trn_fail_memory(err, texts->count * sizeof **settings, "settings");
    for (size_t i = 0; i < texts->count; i++) {
        const char *text = texts->items[i], *equals = strchr(text, '=');
        if (!equals || equals == text || equals - text > LONGEST_KEY)
            return trn_fail(err, TRN_ERR_ARGUMENT, "--config is '%.100s'; wanted KEY=VALUE", text);
        char *key = trn_arena_printf(arena, "%.*s", (int)(equals - text), text);
        if (!key) return trn_fail_memory(err, LONGEST_KEY, "settings");
        (*settings)[i] = (trn_setting){key, equals + 1};
    }
    return TRN_OK;
}

/* ---- help ---- */

static void wrap(const char *text, size_t indent, trn_text *out)
{
    enum { WIDTH = 100 };
    size_t column = indent;
    while (*text) {
        size_t length = strcspn(text, " \n");
        if (column > indent && column + 1 + length > WIDTH) {
            trn_text_printf(out, "\n%*s", (int)indent, "");
            column = indent;
        } else if (column > indent) {
            trn_text_add(out, " ");
            column++;
        }
        trn_text_add_n(out, text, length);
        column += length;
        text += length;
        if (*text == '\n') {
            trn_text_printf(out, "\n%*s", (int)indent, "");
            column = indent;
        }
        if (*text) text++;
    }
    trn_text_add(out, "\n");
}

static void help_option(const trn_option *option, trn_text *out)
{
    char left[80];
    int used = option->letter ? snprintf(left, sizeof left, "  -%c, --%s", option->letter, option->name)
                              : snprintf(left, sizeof left, "      --%s", option->name);
    if (option->choices) {
        for (size_t i = 0; option->choices[i]; i++)
            used +=
                snprintf(left + used, sizeof left - (size_t)used, "%c%s", i ? '|' : ' ', option->choices[i]);
    } else if (option->placeholder) {
        snprintf(left + used, sizeof left - (size_t)used, " %s", option->placeholder);
    }
    trn_text_printf(out, "%-*s", HELP_COLUMN - 1, left);
    if (strlen(left) >= HELP_COLUMN - 1) trn_text_printf(out, "\n%*s", HELP_COLUMN - 1, "");
    trn_text_add(out, " ");
    wrap(option->help, HELP_COLUMN, out);
}

void options_help(const trn_command *command, trn_text *out)
{
    const trn_option *options[MAX_OPTIONS];
    size_t count = collect(command, options);
    trn_text_printf(out, "usage: terrane %s\n\n", command->usage);
    wrap(command->details ? command->details : command->summary, 0, out);
    trn_text_add(out, "\noptions:\n");
    for (size_t i = 0; i < count; i++)
        help_option(options[i], out);
    trn_text_printf(out, "\nexample:\n%s\n", command->example);
}
