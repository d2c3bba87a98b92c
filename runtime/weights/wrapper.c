/* Where in a training checkpoint the weights are: by the caller's key, by known keys, or because only one
 * entry is a dictionary of tensors. */
#include "torch.h"

#include <string.h>

/* A search looks at no more entries than this, whatever a hostile file nests. */
enum { MAX_DEPTH = 6, SEARCH_BUDGET = 1 << 22, MAX_CANDIDATES = 16 };

static const char *const known_keys[] = {"model",   "model_state", "state_dict",   "model_state_dict",
                                         "teacher", "student",     "module",       "network",
                                         "net",     "weights",     "model_weights"};

typedef struct candidates {
    const char *keys[MAX_CANDIDATES];
    const trn_pickle_value *dicts[MAX_CANDIDATES];
    size_t count;
} candidates;

/* Counts one step; false when none is left. */
static bool spend(size_t *budget)
{
    if (*budget) (*budget)--;
    return *budget > 0;
}

static bool has_tensors(const trn_pickle_value *dict, size_t *budget)
{
    for (size_t i = 0; i + 1 < dict->as.list.count && spend(budget); i += 2)
        if (trn_torch_is_tensor(dict->as.list.items[i + 1]) && trn_pickle_text(dict->as.list.items[i]))
            return true;
    return false;
}

/* Whether value is a dictionary with tensors in it, at most `depth` dictionaries down. Only text keys count:
 * those of optimizer states are numbers. */
static bool leads_to_tensors(const trn_pickle_value *value, int depth, size_t *budget)
{
    if (value->kind != TRN_PICKLE_DICT) return false;
    if (has_tensors(value, budget)) return true;
    for (size_t i = 0; depth > 0 && i + 1 < value->as.list.count && spend(budget); i += 2)
        if (trn_pickle_text(value->as.list.items[i]) &&
            leads_to_tensors(value->as.list.items[i + 1], depth - 1, budget))
            return true;
    return false;
}

static bool is_known_key(const char *key)
{
    for (size_t i = 0; i < TRN_COUNT(known_keys); i++)
        if (!strcmp(key, known_keys[i])) return true;
    return false;
}

static void add_candidate(candidates *found, const char *key, const trn_pickle_value *dict)
{
    for (size_t i = 0; i < found->count; i++)
        if (found->dicts[i] == dict) return; /* the same weights under two names */
    if (found->count == MAX_CANDIDATES) return;
    found->keys[found->count] = key;
    found->dicts[found->count++] = dict;
}

static void collect(const trn_pickle_value *dict, bool only_known, int depth, size_t *budget,
                    candidates *found)
{
    for (size_t i = 0; i + 1 < dict->as.list.count; i += 2) {
        const char *key = trn_pickle_text(dict->as.list.items[i]);
        const trn_pickle_value *value = dict->as.list.items[i + 1];
        if (!key || (only_known && !is_known_key(key))) continue;
        if (leads_to_tensors(value, depth, budget)) add_candidate(found, key, value);
    }
}

static candidates find_candidates(const trn_pickle_value *dict, size_t *budget)
{
    candidates found = {.count = 0};
    collect(dict, true, MAX_DEPTH, budget, &found);
    if (!found.count) collect(dict, false, 0, budget, &found);
    if (!found.count) collect(dict, false, MAX_DEPTH, budget, &found);
    return found;
}

static void list_keys(const trn_pickle_value *dict, trn_text *out)
{
    size_t shown = 0;
    for (size_t i = 0; i + 1 < dict->as.list.count && shown < MAX_CANDIDATES; i += 2) {
        const char *key = trn_pickle_text(dict->as.list.items[i]);
        if (!key) continue;
        trn_text_printf(out, "%s'%.100s'", shown ? ", " : "", key);
        shown++;
    }
    if (!shown) trn_text_add(out, "none");
}

static trn_status fail_with_keys(const trn_pickle_value *dict, trn_status code, const char *what,
                                 trn_error *err)
{
    trn_text keys = {0};
    list_keys(dict, &keys);
    trn_fail(err, code, "%s; its keys are: %s", what, trn_text_get(&keys));
    trn_text_free(&keys);
    return code;
}

static trn_status fail_not_dict(const trn_pickle_value *value, trn_error *err)
{
    const trn_pickle_value *callable = value->kind == TRN_PICKLE_OBJECT ? value->as.object.callable : NULL;
    if (trn_torch_is_tensor(value))
        return trn_fail(err, TRN_ERR_UNSUPPORTED, "it holds a single tensor, not a dictionary of named ones");
    if (callable && callable->kind == TRN_PICKLE_GLOBAL)
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "it holds an object of class %.100s.%.100s, not a dictionary of tensors; save "
                        "model.state_dict() instead of the model",
                        callable->as.global.module, callable->as.global.name);
    return trn_fail(err, TRN_ERR_UNSUPPORTED, "it holds no dictionary of tensors");
}

static trn_status fail_ambiguous(const candidates *found, trn_error *err)
{
    trn_text keys = {0};
    for (size_t i = 0; i < found->count; i++)
        trn_text_printf(&keys, "%s'%.100s'", i ? ", " : "", found->keys[i]);
    trn_fail(err, TRN_ERR_ARGUMENT, "it holds several sets of weights: %s; set wrapper to the one to use",
             trn_text_get(&keys));
    trn_text_free(&keys);
    return TRN_ERR_ARGUMENT;
}

/* Goes down from value until a dictionary holds tensors itself. */
static trn_status resolve(const trn_pickle_value *value, const trn_pickle_value **out, trn_error *err)
{
    size_t budget = SEARCH_BUDGET;
    for (int depth = 0; depth <= MAX_DEPTH + 1; depth++) {
        if (value->kind != TRN_PICKLE_DICT) return fail_not_dict(value, err);
        if (has_tensors(value, &budget)) {
            *out = value;
            return TRN_OK;
        }
        candidates found = find_candidates(value, &budget);
        if (!budget) return trn_fail(err, TRN_ERR_UNSUPPORTED, "it nests too much to search; set wrapper");
        if (!found.count) return fail_with_keys(value, TRN_ERR_FORMAT, "it holds no tensors", err);
        if (found.count > 1) return fail_ambiguous(&found, err);
        value = found.dicts[0];
    }
    return trn_fail(err, TRN_ERR_UNSUPPORTED, "its weights are nested too deeply; set wrapper");
}

/* Follows 'a/b' from root; a key that holds a '/' itself is found first. */
static trn_status follow(const trn_pickle_value *root, const char *path, const trn_pickle_value **out,
                         trn_error *err)
{
    const trn_pickle_value *at = root;
    char key[256];
    while (*path) {
        const trn_pickle_value *next = trn_pickle_get(at, path);
        const char *slash = strchr(path, '/');
        size_t n = next || !slash ? strlen(path) : (size_t)(slash - path);
        if (n >= sizeof key) return trn_fail(err, TRN_ERR_ARGUMENT, "wrapper '%.100s' is too long", path);
        memcpy(key, path, n);
        key[n] = 0;
        if (!next) next = trn_pickle_get(at, key);
        if (!next && at->kind != TRN_PICKLE_DICT) return fail_not_dict(at, err);
        if (!next) {
            char what[300];
            snprintf(what, sizeof what, "it has no wrapper '%s'", key);
            return fail_with_keys(at, TRN_ERR_ARGUMENT, what, err);
        }
        at = next;
        path += n + (path[n] == '/');
    }
    *out = at;
    return TRN_OK;
}

trn_status trn_torch_find_state(const trn_pickle_value *root, const char *wrapper,
                                const trn_pickle_value **out, trn_error *err)
{
    trn_status status = wrapper ? follow(root, wrapper, &root, err) : TRN_OK;
    return status == TRN_OK ? resolve(root, out, err) : status;
}
