/* The tuning store: numbers by key, one text file per device and driver in the cache folder. */
#include "gpu_internal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char folder[] = "tuning";

static trn_tuning_entry *find(trn_gpu *gpu, const char *key)
{
    for (size_t i = 0; i < gpu->tuning_count; i++)
        if (!strcmp(gpu->tuning[i].key, key)) return &gpu->tuning[i];
    return NULL;
}

/* Returns the entry of a key, new ones with a value of 0; NULL without memory. */
static trn_tuning_entry *entry_of(trn_gpu *gpu, const char *key, bool *is_new)
{
    trn_tuning_entry *entry = find(gpu, key);
    *is_new = !entry;
    if (entry) return entry;
    if (!trn_grow(&gpu->tuning, &gpu->tuning_capacity, gpu->tuning_count + 1, sizeof *gpu->tuning))
        return NULL;
    char *copy = strdup(key);
    if (!copy) return NULL;
    entry = &gpu->tuning[gpu->tuning_count++];
    *entry = (trn_tuning_entry){copy, 0};
    return entry;
}

bool trn_gpu_tuning_get(trn_gpu *gpu, const char *key, double *value)
{
    const trn_tuning_entry *entry = find(gpu, key);
    if (entry) *value = entry->value;
    return entry != NULL;
}

void trn_gpu_tuning_set(trn_gpu *gpu, const char *key, double value)
{
    bool is_new;
    trn_tuning_entry *entry = entry_of(gpu, key, &is_new);
    if (!entry || (!is_new && entry->value == value)) return;
    entry->value = value;
    gpu->tuning_changed = true;
}

/* Lines of "<bits of the double in hex> <key>": exact, and free of any locale. Keys already known are kept.
 */
static void take_lines(trn_gpu *gpu, char *text)
{
    for (char *line = text; *line;) {
        char *end = line + strcspn(line, "\n"), *next = *end ? end + 1 : end;
        *end = 0;
        char *after = NULL;
        uint64_t bits = strtoull(line, &after, 16);
        bool is_new = false;
        trn_tuning_entry *entry =
            after == line + 16 && *after == ' ' ? entry_of(gpu, after + 1, &is_new) : NULL;
        if (entry && is_new) memcpy(&entry->value, &bits, sizeof bits);
        line = next;
    }
}

static void load(trn_gpu *gpu)
{
    char name[64];
    void *data;
    size_t size;
    trn_gpu_cache_name(gpu, name);
    if (!trn_cache_load(folder, name, &data, &size)) return;
    char *text = calloc(1, size + 1);
    if (text) {
        memcpy(text, data, size);
        take_lines(gpu, text);
    }
    free(text);
    free(data);
}

void trn_tuning_open(trn_gpu *gpu)
{
    if (gpu->disk_cache) load(gpu);
    if (!trn_gpu_tuning_get(gpu, "slowness", &gpu->slowness) || !(gpu->slowness > 0)) gpu->slowness = 8;
}

static void store(const trn_gpu *gpu)
{
    char name[64];
    trn_text text = {0};
    for (size_t i = 0; i < gpu->tuning_count; i++) {
        uint64_t bits;
        memcpy(&bits, &gpu->tuning[i].value, sizeof bits);
        trn_text_printf(&text, "%016" PRIx64 " %s\n", bits, gpu->tuning[i].key);
    }
    trn_gpu_cache_name(gpu, name);
    if (!text.failed) trn_cache_store(folder, name, trn_text_get(&text), text.length);
    trn_text_free(&text);
}

void trn_gpu_tuning_save(trn_gpu *gpu)
{
    if (!gpu->disk_cache || !gpu->tuning_changed) return;
    load(gpu); /* another process may have added keys meanwhile */
    store(gpu);
    gpu->tuning_changed = false;
}

size_t trn_gpu_tuning_remove(trn_gpu *gpu, const char *prefix)
{
    size_t kept = 0, removed = 0;
    if (gpu->disk_cache) load(gpu);
    for (size_t i = 0; i < gpu->tuning_count; i++) {
        if (strncmp(gpu->tuning[i].key, prefix, strlen(prefix)) != 0) {
            gpu->tuning[kept++] = gpu->tuning[i];
            continue;
        }
        free(gpu->tuning[i].key);
        removed++;
    }
    gpu->tuning_count = kept;
    if (gpu->disk_cache && removed) store(gpu);
    return removed;
}

void trn_tuning_close(trn_gpu *gpu)
{
    trn_gpu_tuning_save(gpu);
    for (size_t i = 0; i < gpu->tuning_count; i++)
        free(gpu->tuning[i].key);
    free(gpu->tuning);
}
