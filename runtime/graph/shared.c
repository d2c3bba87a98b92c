/* Weights that executables share: what is constant, by all that it is made of, once in device memory. */
#include "exec.h"

#include <stdlib.h>
#include <string.h>

enum { KEY_BYTES = 32 };

struct trn_shared_entry {
    uint8_t key[KEY_BYTES];
    trn_gpu_buffer *buffer; /* NULL: of an executable that was only planned */
    size_t users;           /* executables */
};

struct trn_shared_weights {
    trn_gpu *gpu;
    trn_shared_entry **entries;
    size_t count, capacity;
};

trn_status trn_shared_weights_create(trn_gpu *gpu, trn_shared_weights **out, trn_error *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out) return trn_fail_memory(err, sizeof **out, "shared weights");
    (*out)->gpu = gpu;
    return TRN_OK;
}

void trn_shared_weights_destroy(trn_shared_weights *shared)
{
    if (!shared) return;
    for (size_t i = 0; i < shared->count; i++) {
        trn_gpu_buffer_destroy(shared->gpu, shared->entries[i]->buffer);
        free(shared->entries[i]);
    }
    free(shared->entries);
    free(shared);
}

/* ---- keys: equal ones mean equal bytes ---- */

static void add(trn_sha256_state *hash, const void *data, size_t size)
{
    trn_sha256_update(hash, data, size);
}

static void add_number(trn_sha256_state *hash, uint64_t number)
{
    add(hash, &number, sizeof number);
}

static void add_text(trn_sha256_state *hash, const char *text)
{
    add_number(hash, text ? strlen(text) + 1 : 0);
    if (text) add(hash, text, strlen(text));
}

static void key_of_leaf(const trn_exec *exec, const trn_tensor *tensor, uint8_t key[KEY_BYTES])
{
    trn_sha256_state hash;
    trn_sha256_begin(&hash);
    add_text(&hash, "leaf");
    add_number(&hash, (uint64_t)tensor->type);
    add_number(&hash, trn_lower_bytes(&exec->lower, tensor));
    add_number(&hash, (uint64_t)tensor->shape.ndim);
    add(&hash, tensor->shape.dim, (size_t)tensor->shape.ndim * sizeof *tensor->shape.dim);
    if (tensor->values) {
        add(&hash, tensor->values, (size_t)tensor->count * 4);
    } else if (tensor->fill) {
        add(&hash, &tensor->fill, sizeof tensor->fill);
        add(&hash, &tensor->fill_user, sizeof tensor->fill_user);
        add_text(&hash, tensor->asked ? tensor->asked : tensor->name);
    }
    trn_sha256_end(&hash, key);
}

/* What a step makes is told by its kernel and by what it reads; what it writes may have been begun before. */
static void key_of_step(const trn_exec *exec, const trn_lowered_step *lowered, const uint8_t *keys,
                        uint8_t key[KEY_BYTES])
{
    const trn_step *step = &lowered->step;
    trn_sha256_state hash;
    trn_sha256_begin(&hash);
    add_text(&hash, step->shader);
    add_text(&hash, lowered->generated);
    for (int i = 0; i < step->macro_count; i++) {
        add_text(&hash, step->macros[i].name);
        add_text(&hash, step->macros[i].value);
    }
    add_number(&hash, step->subgroup_size);
    add_number(&hash, (uint64_t)step->texels);
    add(&hash, step->scalars, (size_t)step->scalar_count * sizeof *step->scalars);
    add(&hash, step->groups, sizeof step->groups);
    for (int i = 0; i < step->operand_count; i++) {
        const trn_operand *operand = &step->operands[i];
        add(&hash, keys + (size_t)operand->tensor->id * KEY_BYTES, KEY_BYTES);
        add_number(&hash, trn_lower_bytes(&exec->lower, operand->tensor));
        add_number(&hash, operand->offset);
        add_number(&hash, operand->size);
    }
    trn_sha256_end(&hash, key);
}

static void key_of_operand(uint8_t *key, const uint8_t step[KEY_BYTES], int operand)
{
    trn_sha256_state hash;
    trn_sha256_begin(&hash);
    add(&hash, step, KEY_BYTES);
    add_number(&hash, (uint64_t)operand);
    trn_sha256_end(&hash, key);
}

/* By tensor id, KEY_BYTES each; of what is not constant: zeros. malloc'd. */
static uint8_t *make_keys(const trn_exec *exec)
{
    size_t total = exec->graph->tensor_count + exec->lower.extra_count;
    uint8_t *keys = calloc(total + 1, KEY_BYTES);
    for (size_t i = 0; keys && i < exec->graph->tensor_count; i++) {
        const trn_tensor *tensor = exec->graph->tensors[i];
        if (tensor->constant && !tensor->producer && !tensor->view_of)
            key_of_leaf(exec, tensor, keys + i * KEY_BYTES);
    }
    for (size_t s = 0; keys && s < exec->lower.step_count; s++) {
        const trn_lowered_step *lowered = &exec->lower.steps[s];
        uint8_t made[KEY_BYTES];
        if (!lowered->setup) continue;
        key_of_step(exec, lowered, keys, made);
        for (int i = 0; i < lowered->step.operand_count; i++) {
            const trn_operand *operand = &lowered->step.operands[i];
            if (operand->written) key_of_operand(keys + (size_t)operand->tensor->id * KEY_BYTES, made, i);
        }
    }
    return keys;
}

/* ---- taking and giving ---- */

/* Plans count on plans, too. */
static trn_shared_entry *find(const trn_exec *exec, size_t id)
{
    const trn_shared_weights *shared = exec->options.shared;
    const uint8_t *key = exec->share_keys + id * KEY_BYTES;
    for (size_t i = 0; i < shared->count; i++) {
        trn_shared_entry *entry = shared->entries[i];
        if (!memcmp(entry->key, key, KEY_BYTES) && (entry->buffer || exec->options.plan_only)) return entry;
    }
    return NULL;
}

/* What nobody uses makes room for what is coming. */
static void drop_idle(trn_shared_weights *shared)
{
    size_t kept = 0;
    for (size_t i = 0; i < shared->count; i++) {
        trn_shared_entry *entry = shared->entries[i];
        if (entry->users) {
            shared->entries[kept++] = entry;
            continue;
        }
        trn_gpu_buffer_destroy(shared->gpu, entry->buffer);
        free(entry);
    }
    shared->count = kept;
}

/* A step is run for what somebody wants of it, and then wants what it reads. */
static void skip_steps(trn_exec *exec, bool *wanted)
{
    size_t total = exec->graph->tensor_count + exec->lower.extra_count;
    for (size_t i = 0; i < total; i++)
        wanted[i] = wanted[i] && !exec->shares[i];
    for (size_t s = exec->lower.step_count; s-- > 0;) {
        trn_lowered_step *lowered = &exec->lower.steps[s];
        const trn_step *step = &lowered->step;
        bool needed = false;
        for (int i = 0; lowered->setup && i < step->operand_count; i++)
            needed = needed || (step->operands[i].written && wanted[step->operands[i].tensor->id]);
        lowered->skipped = lowered->setup && !needed;
        for (int i = 0; needed && i < step->operand_count; i++) {
            int id = step->operands[i].tensor->id;
            wanted[id] = wanted[id] || !exec->shares[id];
        }
    }
}

trn_status trn_shared_take(trn_exec *exec, const bool *kept, trn_error *err)
{
    trn_shared_weights *shared = exec->options.shared;
    size_t total = exec->graph->tensor_count + exec->lower.extra_count;
    if (!shared) return TRN_OK;
    if (shared->gpu != exec->gpu)
        return trn_fail(err, TRN_ERR_ARGUMENT, "the weights to be shared are of another device");
    exec->shares = calloc(total + 1, sizeof *exec->shares);
    exec->share_keys = make_keys(exec);
    bool *wanted = calloc(total + 1, sizeof *wanted);
    if (!exec->shares || !wanted || !exec->share_keys) {
        free(wanted);
        return trn_fail_memory(err, total * KEY_BYTES, "shared weights");
    }
    memcpy(wanted, kept, total * sizeof *wanted);
    for (size_t i = 0; i < total; i++) {
        trn_shared_entry *entry = kept[i] ? find(exec, i) : NULL;
        if (!entry) continue;
        entry->users++;
        exec->shares[i] = entry;
        exec->constants[i] = entry->buffer;
    }
    skip_steps(exec, wanted);
    free(wanted);
    if (!exec->options.plan_only) drop_idle(shared);
    return TRN_OK;
}

static trn_status give_one(trn_exec *exec, size_t id, trn_error *err)
{
    trn_shared_weights *shared = exec->options.shared;
    if (find(exec, id)) return TRN_OK; /* twice in one graph: the second stays its own */
    if (!trn_grow(&shared->entries, &shared->capacity, shared->count + 1, sizeof(trn_shared_entry *)))
        return trn_fail_memory(err, shared->count * sizeof(trn_shared_entry *), "shared weights");
    trn_shared_entry *entry = calloc(1, sizeof *entry);
    if (!entry) return trn_fail_memory(err, sizeof *entry, "shared weights");
    *entry = (trn_shared_entry){.buffer = exec->constants[id], .users = 1};
    memcpy(entry->key, exec->share_keys + id * KEY_BYTES, KEY_BYTES);
    shared->entries[shared->count++] = entry;
    exec->shares[id] = entry;
    return TRN_OK;
}

trn_status trn_shared_give(trn_exec *exec, const bool *kept, trn_error *err)
{
    size_t total = exec->graph->tensor_count + exec->lower.extra_count;
    trn_status status = TRN_OK;
    for (size_t i = 0; exec->options.shared && status == TRN_OK && i < total; i++)
        if (kept[i] && !exec->shares[i]) status = give_one(exec, i, err);
    return status;
}

void trn_shared_release(trn_exec *exec)
{
    size_t total = exec->graph->tensor_count + exec->lower.extra_count;
    for (size_t i = 0; exec->shares && i < total; i++) {
        if (!exec->shares[i]) continue;
        exec->shares[i]->users--;
        exec->constants[i] = NULL;
    }
    free(exec->shares);
    free(exec->share_keys);
}

bool trn_shared_has(const trn_exec *exec, size_t id)
{
    return exec->shares && exec->shares[id];
}
