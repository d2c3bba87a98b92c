/* .pt/.pth of torch < 1.6: pickles one after the other (magic, protocol, system, object, storage keys), then
 * for each key its number of elements and its data. */
#include "torch.h"

#include <stdlib.h>
#include <string.h>

enum { PROTOCOL = 1001, MAX_PICKLE = 64 << 20, WINDOW = 1 << 20 };

/* PROTO 2, LONG1 of 10 bytes: 0x1950a86a20f9469cfc6c */
static const uint8_t magic[] = {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, 0x2e};

bool trn_is_torch_legacy(const uint8_t *data, size_t size)
{
    /* the protocol byte differs with the pickle protocol, the number does not */
    return size >= sizeof magic && data[0] == magic[0] && data[1] >= 2 && data[1] <= 5 &&
           !memcmp(data + 2, magic + 2, sizeof magic - 2);
}

/* Storages by key: how large their elements are (from the pickle), then where they are (from the file). */
typedef struct storages {
    trn_torch_storage *items;
    uint64_t *at; /* where in the file; 0 until met there */
    size_t count;
    trn_names names;
} storages;

static void drop_storages(storages *all)
{
    free(all->items);
    free(all->at);
    trn_names_drop(&all->names);
}

static trn_status collect_storages(const trn_pickle *object, storages *all, trn_error *err)
{
    size_t n = object->persid_count + 1, other;
    all->items = calloc(n, sizeof *all->items);
    all->at = calloc(n, sizeof *all->at);
    if (!all->items || !all->at || !trn_names_reserve(&all->names, n))
        return trn_fail_memory(err, n * sizeof *all->items, "the list of storages");
    for (size_t i = 0; i < object->persid_count; i++) {
        trn_torch_storage storage;
        trn_status status = trn_torch_storage_parse(object->persids[i], &storage, err);
        if (status != TRN_OK) return status;
        if (trn_names_put(&all->names, storage.key, all->count)) {
            all->items[all->count++] = storage;
            continue;
        }
        if (!trn_names_get(&all->names, storage.key, &other)) continue;
        const trn_torch_storage *first = &all->items[other];
        if (first->type != storage.type || first->elements != storage.elements)
            return trn_fail(err, TRN_ERR_FORMAT, "storage '%s' is described in two ways", storage.key);
    }
    return TRN_OK;
}

/* One storage in the file: an int64 number of elements, then the elements. */
static trn_status place_storage(trn_weights *weights, storages *all, const char *key, size_t *at,
                                trn_error *err)
{
    size_t i;
    int64_t elements;
    if (!trn_names_get(&all->names, key, &i))
        return trn_fail(err, TRN_ERR_FORMAT, "storage '%.64s' is listed, but no tensor says what is in it",
                        key);
    if (all->at[i]) return trn_fail(err, TRN_ERR_FORMAT, "storage '%s' is listed twice", key);
    const trn_torch_storage *storage = &all->items[i];
    if (weights->size - *at < sizeof elements)
        return trn_fail(err, TRN_ERR_FORMAT, "storage '%s' is missing: the file is cut off", key);
    trn_status status = trn_bytes_read(weights, *at, &elements, sizeof elements, err);
    if (status != TRN_OK) return status;
    *at += sizeof elements;
    if (elements != storage->elements)
        return trn_fail(err, TRN_ERR_FORMAT, "storage '%s' should have %lld elements, but has %lld", key,
                        (long long)storage->elements, (long long)elements);
    uint64_t bytes = (uint64_t)elements * storage->item;
    if (bytes > weights->size - *at)
        return trn_fail(err, TRN_ERR_FORMAT, "storage '%s' of %llu bytes is cut off after %zu", key,
                        (unsigned long long)bytes, weights->size - *at);
    all->at[i] = *at;
    *at += (size_t)bytes;
    return TRN_OK;
}

static trn_status place_storages(trn_weights *weights, const trn_pickle_value *keys, storages *all, size_t at,
                                 trn_error *err)
{
    if (keys->kind != TRN_PICKLE_LIST) return trn_fail(err, TRN_ERR_FORMAT, "it has no list of storages");
    for (size_t i = 0; i < keys->as.list.count; i++) {
        const char *key = trn_pickle_text(keys->as.list.items[i]);
        if (!key) return trn_fail(err, TRN_ERR_FORMAT, "storage %zu has no text as key", i);
        trn_status status = place_storage(weights, all, key, &at, err);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}

static trn_status locate(trn_weights *weights, void *user, const trn_torch_storage *storage,
                         trn_weight_place *place, trn_error *err)
{
    (void)weights;
    const storages *all = user;
    size_t i;
    if (!trn_names_get(&all->names, storage->key, &i) || !all->at[i])
        return trn_fail(err, TRN_ERR_FORMAT, "its data, storage '%s', is not in the file", storage->key);
    place->at = all->at[i];
    place->bytes = (uint64_t)all->items[i].elements * all->items[i].item;
    return TRN_OK;
}

/* The pickle in the first `window` bytes from *at on. */
static trn_status try_pickle(const trn_weights *weights, size_t *at, size_t window, trn_pickle *out,
                             trn_error *err)
{
    size_t used = 0;
    uint8_t *bytes = malloc(window ? window : 1);
    if (!bytes) return trn_fail_memory(err, window, "a pickle");
    trn_status status = trn_bytes_read(weights, *at, bytes, window, err);
    if (status == TRN_OK) status = trn_pickle_parse(bytes, window, out, &used, err);
    free(bytes);
    if (status == TRN_OK) *at += used;
    return status;
}

/* Nothing says how long a pickle is: what does not parse may be cut off by the window, so that a larger one
 * is tried. */
static trn_status next_pickle(const trn_weights *weights, size_t *at, trn_pickle *out, const char *what,
                              trn_error *err)
{
    size_t rest = TRN_MIN(weights->size - *at, (size_t)MAX_PICKLE), window = TRN_MIN(rest, (size_t)WINDOW);
    trn_status status = try_pickle(weights, at, window, out, err);
    while (status == TRN_ERR_FORMAT && window < rest) {
        window = rest / 8 > window ? window * 8 : rest;
        trn_pickle_free(out);
        *out = (trn_pickle){0};
        status = try_pickle(weights, at, window, out, err);
    }
    if (status != TRN_OK) trn_wrap(err, "%s", what);
    return status;
}

static trn_status check_preamble(const trn_weights *weights, size_t *at, trn_error *err)
{
    trn_pickle protocol = {0}, system = {0};
    trn_status status = next_pickle(weights, at, &protocol, "protocol", err);
    if (status == TRN_OK && (protocol.root->kind != TRN_PICKLE_INT || protocol.root->as.integer != PROTOCOL))
        status = trn_fail(err, TRN_ERR_UNSUPPORTED, "its protocol is not %d", PROTOCOL);
    if (status == TRN_OK) status = next_pickle(weights, at, &system, "system", err);
    const trn_pickle_value *little = status == TRN_OK ? trn_pickle_get(system.root, "little_endian") : NULL;
    if (little && little->kind == TRN_PICKLE_BOOL && !little->as.integer)
        status = trn_fail(err, TRN_ERR_UNSUPPORTED,
                          "its numbers are big-endian; save it again on a usual machine");
    trn_pickle_free(&protocol);
    trn_pickle_free(&system);
    return status;
}

trn_status trn_torch_legacy_list(trn_weights *weights, trn_error *err)
{
    size_t at = sizeof magic;
    trn_pickle object = {0}, keys = {0};
    storages all = {0};
    trn_status status = check_preamble(weights, &at, err);
    if (status == TRN_OK) status = next_pickle(weights, &at, &object, "object", err);
    if (status == TRN_OK) status = next_pickle(weights, &at, &keys, "storage keys", err);
    if (status == TRN_OK) status = collect_storages(&object, &all, err);
    if (status == TRN_OK) status = place_storages(weights, keys.root, &all, at, err);
    if (status == TRN_OK) status = trn_torch_list(weights, object.root, locate, &all, err);
    drop_storages(&all);
    trn_pickle_free(&object);
    trn_pickle_free(&keys);
    return status;
}
