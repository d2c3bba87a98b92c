/* The core of weights: opening by content, names and prefixes, finding, the load report. read.c reads. */
#include "checkpoint.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 512, MAX_TENSORS = 1 << 20 };

/* ---- listing ---- */

/* Names end up in messages and reports: no control characters. */
static bool is_clean_name(const char *name)
{
    size_t length = 0;
    for (; name[length]; length++)
        if ((unsigned char)name[length] < 0x20 || name[length] == 0x7f || length >= MAX_NAME) return false;
    return length > 0;
}

static trn_status check_extent(const char *name, const trn_entry *entry, trn_error *err)
{
    size_t item = trn_weight_type_size(entry->info.type);
    if (!entry->count || !item) return TRN_OK;
    int64_t last = entry->place.offset,
            limit = (int64_t)TRN_MIN(entry->place.bytes / item, (uint64_t)INT64_MAX);
    bool inside = last >= 0 && last < limit;
    for (int d = 0; inside && d < entry->info.ndim; d++) {
        int64_t steps = entry->info.shape[d] - 1, stride = entry->place.stride[d];
        inside = stride >= 0 && (steps == 0 || stride <= (limit - 1 - last) / steps);
        if (inside) last += steps * stride;
    }
    if (inside) return TRN_OK;
    char shape[TRN_SHAPE_TEXT];
    return trn_fail(
        err, TRN_ERR_FORMAT,
        "tensor '%s' of shape %s (%s) reaches beyond its %llu bytes of data: the file is damaged or cut off",
        name, trn_weight_shape_text(entry->info.shape, entry->info.ndim, shape),
        trn_weight_type_name(entry->info.type), (unsigned long long)entry->place.bytes);
}

trn_status trn_weights_add(trn_weights *weights, const char *name, trn_weight_type type, int ndim,
                           const int64_t *shape, const trn_weight_place *place, trn_error *err)
{
    if (!is_clean_name(name))
        return trn_fail(
            err, TRN_ERR_FORMAT,
            "tensor %zu has a name that is empty, longer than %d bytes, or holds control characters",
            weights->count, MAX_NAME);
    if (ndim < 0 || ndim > TRN_WEIGHTS_MAX_DIMS)
        return trn_fail(err, TRN_ERR_UNSUPPORTED, "tensor '%s' has %d dimensions; at most %d are read", name,
                        ndim, TRN_WEIGHTS_MAX_DIMS);
    trn_entry entry = {.info = {.type = type, .ndim = ndim}, .place = *place};
    for (int d = 0; d < ndim; d++)
        entry.info.shape[d] = shape[d];
    char text[TRN_SHAPE_TEXT];
    if (!trn_weight_shape_count(shape, ndim, &entry.count))
        return trn_fail(err, TRN_ERR_FORMAT, "tensor '%s' has the impossible shape %s", name,
                        trn_weight_shape_text(shape, ndim, text));
    trn_status status = check_extent(name, &entry, err);
    if (status != TRN_OK) return status;
    if (weights->count >= MAX_TENSORS)
        return trn_fail(err, TRN_ERR_UNSUPPORTED, "it holds more than %d tensors", MAX_TENSORS);
    entry.full_name = entry.info.name = trn_arena_strdup(weights->arena, name);
    if (!entry.full_name ||
        !trn_grow(&weights->entries, &weights->capacity, weights->count + 1, sizeof entry))
        return trn_fail_memory(err, sizeof entry, "the list of tensors");
    weights->entries[weights->count++] = entry;
    return TRN_OK;
}

/* ---- names ---- */

/* Whether a part of a dotted name is one that wrappers of training code put there. */
static bool is_wrapping(const char *part, size_t length, bool leading)
{
    static const char compiled[] = "_orig_mod", parallel[] = "module", backbone[] = "backbone";
    if (length == strlen(compiled) && !memcmp(part, compiled, length)) return true;
    if (leading) return length == strlen(parallel) && !memcmp(part, parallel, length);
    return length == strlen(backbone) && !memcmp(part, backbone, length);
}

/* Returns name itself when there is nothing to take off; NULL: no memory. */
static const char *clean_name(trn_arena *arena, const char *name)
{
    char kept[MAX_NAME + 1];
    size_t length = 0;
    const char *part = name, *dot;
    while ((dot = strchr(part, '.')) != NULL) {
        size_t n = (size_t)(dot - part) + 1; /* with the dot */
        if (!is_wrapping(part, n - 1, length == 0)) {
            memcpy(kept + length, part, n);
            length += n;
        }
        part = dot + 1;
    }
    memcpy(kept + length, part, strlen(part) + 1);
    return strcmp(kept, name) != 0 ? trn_arena_strdup(arena, kept) : name;
}

static void index_names(trn_weights *weights)
{
    trn_names_clear(&weights->names);
    for (size_t i = 0; i < weights->count; i++)
        if (!weights->entries[i].hidden) trn_names_put(&weights->names, weights->entries[i].info.name, i);
}

static trn_status check_unique(trn_weights *weights, trn_error *err)
{
    trn_names_clear(&weights->names);
    for (size_t i = 0; i < weights->count; i++) {
        size_t other;
        const trn_entry *entry = &weights->entries[i];
        if (trn_names_put(&weights->names, entry->info.name, i)) continue;
        if (!trn_names_get(&weights->names, entry->info.name, &other)) continue;
        const char *first = weights->entries[other].full_name;
        if (!strcmp(first, entry->full_name))
            return trn_fail(err, TRN_ERR_FORMAT, "tensor '%s' is there twice", first);
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "tensors '%s' and '%s' get the same name without their wrappings; set prefix to \"\" to keep "
            "names as they are, or to the part to take off",
            first, entry->full_name);
    }
    return TRN_OK;
}

static trn_status apply_prefix(trn_weights *weights, const char *prefix, trn_error *err)
{
    trn_status status = check_unique(weights, err);
    if (status != TRN_OK || !prefix[0] || !weights->count || trn_weights_strip_prefix(weights, prefix))
        return status;
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "no tensor has a name that starts with '%s'; the first is called '%s'", prefix,
                    weights->entries[0].full_name);
}

static trn_status name_tensors(trn_weights *weights, trn_error *err)
{
    if (!trn_names_reserve(&weights->names, weights->count))
        return trn_fail_memory(err, weights->count * sizeof(trn_name_slot), "the names of the tensors");
    if (weights->options && weights->options->prefix)
        return apply_prefix(weights, weights->options->prefix, err);
    for (size_t i = 0; i < weights->count; i++) {
        trn_entry *entry = &weights->entries[i];
        entry->info.name = clean_name(weights->arena, entry->full_name);
        if (!entry->info.name) return trn_fail_memory(err, MAX_NAME, "the name of a tensor");
    }
    return check_unique(weights, err);
}

size_t trn_weights_strip_prefix(trn_weights *weights, const char *prefix)
{
    size_t length = strlen(prefix), having = 0;
    for (size_t i = 0; i < weights->count; i++) {
        const trn_entry *entry = &weights->entries[i];
        having += !entry->hidden && trn_starts_with(entry->info.name, prefix) && entry->info.name[length];
    }
    if (!having || !length) return having;
    for (size_t i = 0; i < weights->count; i++) {
        trn_entry *entry = &weights->entries[i];
        if (trn_starts_with(entry->info.name, prefix) && entry->info.name[length])
            entry->info.name += length;
        else
            entry->hidden = true;
    }
    index_names(weights);
    return having;
}

/* ---- opening ---- */

/* Files that people take for weights, and what to do then. */
static trn_status fail_unknown(const trn_weights *weights, const uint8_t *head, size_t size, trn_error *err)
{
    static const struct {
        const char *start, *what;
    } known[] = {
        {"version https://git-lfs", "a Git LFS pointer, not the weights: fetch the file with 'git lfs pull'"},
        {"\x89HDF", "an HDF5 file (Keras?); save the weights as safetensors"},
        {"GGUF", "a GGUF file; save the weights as safetensors"},
        {"<!DOCTYPE", "a web page, not the weights: the download went wrong"},
        {"<html", "a web page, not the weights: the download went wrong"},
        {"\x80\x02", "a plain Python pickle, not one of PyTorch; save the weights as safetensors"},
        {"\x80\x04", "a plain Python pickle, not one of PyTorch; save the weights as safetensors"},
    };
    for (size_t i = 0; i < TRN_COUNT(known); i++) {
        size_t n = strlen(known[i].start);
        if (size >= n && !memcmp(head, known[i].start, n))
            return trn_fail(err, TRN_ERR_UNSUPPORTED, "it is %s", known[i].what);
    }
    return trn_fail(err, TRN_ERR_FORMAT,
                    "it is neither safetensors nor a checkpoint of PyTorch (%zu bytes; damaged or cut off?)",
                    weights->size);
}

static trn_status list_tensors(trn_weights *weights, trn_error *err)
{
    uint8_t head[64] = {0}; /* what containers are recognised by */
    size_t size = TRN_MIN(weights->size, sizeof head);
    trn_status status = trn_bytes_read(weights, 0, head, size, err);
    if (status != TRN_OK) return status;
    if (trn_is_torch_zip(head, size)) return trn_torch_zip_list(weights, err);
    if (trn_is_torch_legacy(head, size)) return trn_torch_legacy_list(weights, err);
    if (trn_is_safetensors(head, size)) return trn_safetensors_list(weights, err);
    return fail_unknown(weights, head, size, err);
}

static trn_weights *create(const char *path, trn_error *err)
{
    trn_weights *weights = calloc(1, sizeof *weights);
    if (weights) weights->arena = trn_arena_create();
    if (weights && weights->arena) weights->path = trn_arena_strdup(weights->arena, path);
    if (weights && weights->path) return weights;
    trn_weights_close(weights);
    trn_fail_memory(err, sizeof *weights, "weights");
    return NULL;
}

static trn_status open_bytes(trn_weights *weights, const trn_weights_options *options, trn_error *err)
{
    weights->options = options;
    trn_status status = list_tensors(weights, err);
    if (status == TRN_OK) status = name_tensors(weights, err);
    weights->options = NULL;
    if (status != TRN_OK) trn_wrap(err, "weights '%s'", weights->path);
    return status;
}

trn_status trn_weights_open_memory(const char *label, const void *data, size_t size,
                                   const trn_weights_options *options, trn_weights **out, trn_error *err)
{
    *out = NULL;
    trn_weights *weights = create(label, err);
    if (!weights) return TRN_ERR_MEMORY;
    weights->data = data;
    weights->size = size;
    trn_status status = open_bytes(weights, options, err);
    if (status == TRN_OK)
        *out = weights;
    else
        trn_weights_close(weights);
    return status;
}

trn_status trn_weights_open(const char *path, const trn_weights_options *options, trn_weights **out,
                            trn_error *err)
{
    *out = NULL;
    if (trn_path_is_dir(path))
        return trn_fail(err, TRN_ERR_IO, "weights '%s' is a folder; name the file in it", path);
    trn_weights *weights = create(path, err);
    if (!weights) return TRN_ERR_MEMORY;
    trn_status status = trn_bytes_open(weights, path, err);
    if (status == TRN_OK) status = open_bytes(weights, options, err);
    if (status == TRN_OK)
        *out = weights;
    else
        trn_weights_close(weights);
    return status;
}

trn_status trn_weights_open_synthetic(trn_weights **out, trn_error *err)
{
    *out = create("synthetic", err);
    if (!*out) return TRN_ERR_MEMORY;
    (*out)->synthetic = true;
    return TRN_OK;
}

trn_status trn_weights_open_fresh(uint64_t seed, trn_weights **out, trn_error *err)
{
    char label[48]; /* the seed tells weights apart where others have a path */
    snprintf(label, sizeof label, "fresh weights of seed %llu", (unsigned long long)seed);
    *out = create(label, err);
    if (!*out) return TRN_ERR_MEMORY;
    (*out)->synthetic = (*out)->fresh = true;
    (*out)->seed = seed;
    return TRN_OK;
}

void trn_weights_close(trn_weights *weights)
{
    if (!weights) return;
    trn_torch_zip_close(weights); /* it reads from the file */
    trn_bytes_close(weights);
    trn_names_drop(&weights->names);
    trn_arena_destroy(weights->arena);
    free(weights->entries);
    free(weights);
}

/* ---- looking ---- */

const char *trn_weights_path(const trn_weights *weights)
{
    return weights->path;
}

bool trn_weights_is_synthetic(const trn_weights *weights)
{
    return weights->synthetic;
}

size_t trn_weights_count(const trn_weights *weights)
{
    return weights->count;
}

const trn_weight *trn_weights_at(const trn_weights *weights, size_t i)
{
    return i < weights->count ? &weights->entries[i].info : NULL;
}

const trn_weight *trn_weights_find(const trn_weights *weights, const char *name)
{
    size_t i;
    return trn_names_get(&weights->names, name, &i) ? &weights->entries[i].info : NULL;
}

const char *trn_weights_metadata(const trn_weights *weights, const char *key)
{
    for (size_t i = 0; i < weights->note_count; i++)
        if (!strcmp(weights->notes[i].key, key)) return weights->notes[i].value;
    return NULL;
}

/* ---- the report ---- */

trn_load_report trn_weights_report(const trn_weights *weights)
{
    trn_load_report report = weights->made_up;
    for (size_t i = 0; i < weights->count; i++) {
        if (!weights->entries[i].used) {
            report.left_over++;
            continue;
        }
        report.used++;
        report.parameters += (uint64_t)weights->entries[i].count;
    }
    return report;
}

static void list_names(const trn_weights *weights, bool used, size_t total, size_t max_names, trn_text *out)
{
    size_t shown = 0;
    for (size_t i = 0; i < weights->count && shown < max_names; i++) {
        const trn_entry *entry = &weights->entries[i];
        if (entry->used != used) continue;
        char shape[TRN_SHAPE_TEXT];
        trn_text_printf(out, "  %s %s\n", entry->info.name,
                        trn_weight_shape_text(entry->info.shape, entry->info.ndim, shape));
        shown++;
    }
    if (shown && shown < total) trn_text_printf(out, "  and %zu more\n", total - shown);
}

void trn_weights_report_text(const trn_weights *weights, size_t max_names, trn_text *out)
{
    trn_load_report report = trn_weights_report(weights);
    trn_text_printf(out, "%s: %zu tensors used (%llu parameters), %zu left over\n", weights->path,
                    report.used, (unsigned long long)report.parameters, report.left_over);
    if (weights->synthetic || !max_names) return;
    if (report.used) trn_text_add(out, "used:\n");
    list_names(weights, true, report.used, max_names, out);
    if (report.left_over) trn_text_add(out, "left over:\n");
    list_names(weights, false, report.left_over, max_names, out);
}
