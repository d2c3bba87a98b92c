/* bench --compare: what an earlier run printed with --json, beside this one. */
#include "bench.h"

#include <cjson/cJSON.h>

#include <stdlib.h>
#include <string.h>

enum { LARGEST_FILE = 64 << 20 };

struct bench_former {
    cJSON *root, *entries;
    const char *path;
};

static trn_status fail_form(const char *path, const char *what, trn_error *err)
{
    return trn_fail(
        err, TRN_ERR_FORMAT,
        "%s is not what terrane bench --json prints: %s. Write one by terrane bench --json > FILE", path,
        what);
}

static bool is_entry(const cJSON *entry)
{
    return cJSON_GetStringValue(cJSON_GetObjectItem(entry, "key")) &&
           cJSON_GetStringValue(cJSON_GetObjectItem(entry, "unit")) &&
           cJSON_IsNumber(cJSON_GetObjectItem(entry, "value")) &&
           cJSON_GetNumberValue(cJSON_GetObjectItem(entry, "value")) > 0;
}

static trn_status check_form(bench_former *former, trn_error *err)
{
    const cJSON *form = cJSON_GetObjectItem(former->root, "bench");
    former->entries = cJSON_GetObjectItem(former->root, "entries");
    if (!former->root) return fail_form(former->path, "it is no JSON", err);
    if (!cJSON_IsNumber(form)) return fail_form(former->path, "it has no number \"bench\"", err);
    if (form->valuedouble != 1) return fail_form(former->path, "it is of another version", err);
    if (!cJSON_IsArray(former->entries)) return fail_form(former->path, "it has no list \"entries\"", err);
    const cJSON *entry;
    cJSON_ArrayForEach (entry, former->entries)
        if (!is_entry(entry))
            return fail_form(former->path, "an entry lacks key, unit or a value above 0", err);
    return TRN_OK;
}

trn_status bench_former_read(const char *path, bench_former **out, trn_error *err)
{
    size_t size;
    char *text = trn_read_file(path, LARGEST_FILE, &size, err);
    *out = NULL;
    if (!text) return err->code;
    bench_former *former = calloc(1, sizeof *former);
    if (!former) {
        free(text);
        return trn_fail_memory(err, sizeof *former, "an earlier run");
    }
    former->path = path;
    former->root = cJSON_ParseWithLength(text, size);
    free(text);
    trn_status status = check_form(former, err);
    if (status == TRN_OK)
        *out = former;
    else
        bench_former_free(former);
    return status;
}

void bench_former_free(bench_former *former)
{
    if (!former) return;
    cJSON_Delete(former->root);
    free(former);
}

/* ---- comparing ---- */

static const char *text_of(const cJSON *entry, const char *name)
{
    return cJSON_GetStringValue(cJSON_GetObjectItem(entry, name));
}

/* The entry of the earlier run of this key, in the same unit. */
static const cJSON *find_former(const bench_former *former, const bench_entry *entry)
{
    const cJSON *one;
    cJSON_ArrayForEach (one, former->entries) {
        if (!strcmp(text_of(one, "key"), entry->key) && !strcmp(text_of(one, "unit"), entry->unit))
            return one;
    }
    return NULL;
}

static bool is_now(const bench *b, const cJSON *former)
{
    for (size_t i = 0; i < b->entry_count; i++)
        if (!strcmp(b->entries[i].key, text_of(former, "key")) &&
            !strcmp(b->entries[i].unit, text_of(former, "unit")))
            return true;
    return false;
}

static double ratio_of(const bench_entry *now, double before)
{
    return now->less_is_better ? before / now->value : now->value / before;
}

static const char *former_device(const bench_former *former)
{
    const char *name = text_of(former->root, "device");
    return name ? name : "an unknown device";
}

void bench_compare_text(const bench *b, const bench_former *former, trn_text *out)
{
    trn_text_printf(out, "compared with %s, of %s; above 1 is faster now\n", former->path,
                    former_device(former));
    trn_text_printf(out, "  %8s %12s %12s %-9s %s\n", "ratio", "before", "now", "", "entry");
    for (size_t i = 0; i < b->entry_count; i++) {
        const bench_entry *now = &b->entries[i];
        const cJSON *before = find_former(former, now);
        if (!before) continue;
        double value = cJSON_GetNumberValue(cJSON_GetObjectItem(before, "value"));
        trn_text_printf(out, "  %8.3f %12.5g %12.5g %-9s %s\n", ratio_of(now, value), value, now->value,
                        now->unit, now->key);
    }
    for (size_t i = 0; i < b->entry_count; i++)
        if (!find_former(former, &b->entries[i]))
            trn_text_printf(out, "  not before: %s\n", b->entries[i].key);
    const cJSON *one;
    cJSON_ArrayForEach (one, former->entries) {
        if (!is_now(b, one)) trn_text_printf(out, "  not now: %s\n", text_of(one, "key"));
    }
}

void bench_compare_json(const bench *b, const bench_former *former, trn_text *out)
{
    const char *comma = "";
    trn_text_add(out, ",\n\"compared\": {\"file\": ");
    trn_text_json(out, former->path);
    trn_text_add(out, ", \"device\": ");
    trn_text_json(out, former_device(former));
    trn_text_add(out, ", \"entries\": [");
    for (size_t i = 0; i < b->entry_count; i++) {
        const bench_entry *now = &b->entries[i];
        const cJSON *before = find_former(former, now);
        if (!before) continue;
        double value = cJSON_GetNumberValue(cJSON_GetObjectItem(before, "value"));
        trn_text_printf(out, "%s\n  {\"key\": ", comma);
        trn_text_json(out, now->key);
        trn_text_printf(out, ", \"before\": %.6g, \"now\": %.6g, \"unit\": \"%s\", \"ratio\": %.4g}", value,
                        now->value, now->unit, ratio_of(now, value));
        comma = ",";
    }
    trn_text_add(out, "], \"not_before\": [");
    comma = "";
    for (size_t i = 0; i < b->entry_count; i++) {
        if (find_former(former, &b->entries[i])) continue;
        trn_text_add(out, comma);
        trn_text_json(out, b->entries[i].key);
        comma = ", ";
    }
    trn_text_add(out, "], \"not_now\": [");
    comma = "";
    const cJSON *one;
    cJSON_ArrayForEach (one, former->entries) {
        if (is_now(b, one)) continue;
        trn_text_add(out, comma);
        trn_text_json(out, text_of(one, "key"));
        comma = ", ";
    }
    trn_text_add(out, "]}");
}
