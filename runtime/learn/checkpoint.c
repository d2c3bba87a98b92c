/* Checkpoints: where a run stands, so that it goes on from there with the same bits; and the best weights. */
#include "fit.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char format[] = "terrane training 1";
#define CHECK_TENSOR "checksum" /* of the bytes of all tensors before it, four numbers of 16 bits */
enum { CHECK_SIZE = 4 };

/* ---- the state as text ---- */

typedef struct state_field {
    const char *key;
    size_t offset;
    bool real;
} state_field;
#define WHOLE(name)                                                                                          \
    {                                                                                                        \
#name, offsetof(fit_state, name), false                                                              \
    }
#define REAL(name)                                                                                           \
    {                                                                                                        \
#name, offsetof(fit_state, name), true                                                               \
    }
static const state_field fields[] = {
    WHOLE(step),       WHOLE(epoch),      WHOLE(batch),     REAL(loss_sum),   WHOLE(loss_count),
    REAL(best_metric), WHOLE(best_epoch), WHOLE(stale),     REAL(train_loss), REAL(valid_loss),
    WHOLE(log_bytes),  REAL(loss_scale),  WHOLE(good_steps)};
/* Pairs: format, fields, both flags, what must agree, the device; and the end. */
enum { MAX_PAIRS = 1 + (int)TRN_COUNT(fields) + 2 + FIT_FACTS + 1 };

static int64_t *whole_at(fit_state *state, const state_field *field)
{
    return (int64_t *)(void *)((char *)state + field->offset);
}

static double *real_at(fit_state *state, const state_field *field)
{
    return (double *)(void *)((char *)state + field->offset);
}

static trn_status list_metadata(fit *f, trn_arena *arena, const char **pairs, trn_error *err)
{
    size_t n = 0;
    pairs[n++] = "format";
    pairs[n++] = format;
    for (size_t i = 0; i < TRN_COUNT(fields); i++) {
        pairs[n++] = fields[i].key;
        pairs[n++] = fields[i].real
                         ? trn_arena_printf(arena, "%a", *real_at(&f->state, &fields[i]))
                         : trn_arena_printf(arena, "%lld", (long long)*whole_at(&f->state, &fields[i]));
        if (!pairs[n - 1]) return trn_fail_memory(err, sizeof f->state, "a checkpoint");
    }
    pairs[n++] = "stopped_early";
    pairs[n++] = f->state.stopped_early ? "1" : "0";
    pairs[n++] = "complete";
    pairs[n++] = f->state.complete ? "1" : "0";
    for (int i = 0; i < FIT_FACTS; i++) {
        pairs[n++] = f->identity.name[i];
        pairs[n++] = f->identity.text[i];
    }
    pairs[n++] = "device";
    pairs[n++] = f->identity.device;
    pairs[n] = NULL;
    return TRN_OK;
}

/* The whole text is the number; nan and inf are numbers, too. */
static bool parse_real(const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return *text && !*end;
}

static bool parse_state(const trn_weights *weights, fit_state *state)
{
    for (size_t i = 0; i < TRN_COUNT(fields); i++) {
        const char *text = trn_weights_metadata(weights, fields[i].key);
        if (!text) return false;
        if (fields[i].real ? !parse_real(text, real_at(state, &fields[i]))
                           : !trn_parse_int(text, whole_at(state, &fields[i])))
            return false;
        if (!fields[i].real && *whole_at(state, &fields[i]) < 0) return false;
    }
    const char *stopped = trn_weights_metadata(weights, "stopped_early");
    const char *complete = trn_weights_metadata(weights, "complete");
    if (!stopped || !complete) return false;
    state->stopped_early = !strcmp(stopped, "1");
    state->complete = !strcmp(complete, "1");
    return true;
}

static bool is_possible(const fit *f, const fit_state *s)
{
    int64_t epochs = f->options->epochs, batches = f->epoch_steps * f->runs;
    return s->epoch <= epochs && s->batch <= batches && s->batch % f->runs == 0 &&
           s->best_epoch <= s->epoch && s->step == s->epoch * f->epoch_steps + s->batch / f->runs &&
           (s->complete || s->epoch < epochs) && s->loss_scale >= 1 && s->loss_scale <= FIT_MOST_SCALE;
}

/* ---- writing ---- */

typedef struct writing {
    fit *f;
    const trn_weight_data *tensors;
    const fit_tensor *const *sources; /* of each but the last, the checksum */
    size_t count;
    uint64_t hash;
    bool best; /* the values to evaluate by */
} writing;

static trn_status fill_tensor(void *user, const trn_weight_data *tensor, float *out, trn_error *err)
{
    writing *w = user;
    size_t i = (size_t)(tensor - w->tensors);
    if (i == w->count) {
        for (int k = 0; k < CHECK_SIZE; k++)
            out[k] = (float)(w->hash >> (16 * k) & 0xffff);
        return TRN_OK;
    }
    const fit_tensor *source = w->sources[i];
    trn_status status = trn_exec_get(w->f->engine.train, w->best ? source->best : source->kept, out, err);
    w->hash = trn_fnv1a64(out, (size_t)source->count * sizeof *out, w->hash);
    return status;
}

static void describe_tensor(const fit_tensor *from, trn_weight_data *to)
{
    *to = (trn_weight_data){.name = from->name, .ndim = from->shape.ndim};
    for (int d = 0; d < from->shape.ndim; d++)
        to->shape[d] = from->shape.dim[d];
}

/* All tensors, or the model's as they are to be evaluated by. */
static trn_status write_tensors(fit *f, const char *path, bool best, const char *const *metadata,
                                trn_error *err)
{
    const fit_engine *e = &f->engine;
    trn_arena *arena = trn_arena_create();
    trn_weight_data *tensors = arena ? trn_arena_array(arena, e->tensor_count + 1, sizeof *tensors) : NULL;
    const fit_tensor **sources =
        arena ? trn_arena_array(arena, e->tensor_count + 1, sizeof(fit_tensor *)) : NULL;
    writing w = {.f = f, .tensors = tensors, .sources = sources, .hash = TRN_FNV_SEED, .best = best};
    trn_write_options options = {.metadata = metadata, .fill = fill_tensor, .user = &w};
    trn_status status = TRN_OK;
    if (!tensors || !sources) {
        status = trn_fail_memory(err, e->tensor_count * sizeof *tensors, "a checkpoint");
        goto fail;
    }
    for (size_t i = 0; i < e->tensor_count; i++) {
        if (best && !e->tensors[i].weight) continue;
        describe_tensor(&e->tensors[i], &tensors[w.count]);
        sources[w.count++] = &e->tensors[i];
    }
    tensors[w.count] = (trn_weight_data){.name = CHECK_TENSOR, .ndim = 1, .shape = {CHECK_SIZE}};
    status = trn_weights_write(path, tensors, w.count + 1, &options, err);
fail:
    trn_arena_destroy(arena);
    return status;
}

trn_status fit_checkpoint_write(fit *f, trn_error *err)
{
    const char *pairs[2 * MAX_PAIRS + 1];
    trn_arena *arena = trn_arena_create();
    if (!arena) return trn_fail_memory(err, sizeof pairs, "a checkpoint");
    uint64_t begun = trn_now_ns();
    f->state.log_bytes = f->log.bytes;
    trn_status status = fit_log_sync(&f->log, err);
    if (status == TRN_OK) status = list_metadata(f, arena, pairs, err);
    if (status == TRN_OK) status = write_tensors(f, f->last_path, false, pairs, err);
    trn_arena_destroy(arena);
    f->last_written = trn_now_ns();
    f->write_seconds = (double)(f->last_written - begun) * 1e-9;
    if (status == TRN_OK) {
        f->has_last = true;
        f->last_step = f->state.step;
        return TRN_OK;
    }
    if (!f->has_last)
        return trn_wrap(err, "the checkpoint of step %lld cannot be written", (long long)f->state.step);
    return trn_wrap(err, "the checkpoint of step %lld cannot be written; the one of step %lld is kept",
                    (long long)f->state.step, (long long)f->last_step);
}

/* ---- reading ---- */

static trn_status fail_damaged(const fit *f, trn_error *err)
{
    return trn_wrap(err,
                    "the checkpoint '%s' cannot be continued: delete it to begin anew, or train into another "
                    "folder than '%s'",
                    f->last_path, f->options->dir);
}

/* Copies the first line that differs of two texts; whether there is one. */
static bool first_difference(const char *a, const char *b, char line_a[200], char line_b[200])
{
    while (*a || *b) {
        size_t na = strcspn(a, "\n"), nb = strcspn(b, "\n");
        if (na != nb || memcmp(a, b, na) != 0) {
            snprintf(line_a, 200, "%.*s", (int)TRN_MIN(na, 199), a);
            snprintf(line_b, 200, "%.*s", (int)TRN_MIN(nb, 199), b);
            return true;
        }
        a += na + (a[na] != 0);
        b += nb + (b[nb] != 0);
    }
    return false;
}

static trn_status check_identity(const fit *f, const trn_weights *weights, trn_error *err)
{
    char was[200], is[200];
    for (int i = 0; i < FIT_FACTS; i++) {
        const char *name = f->identity.name[i], *text = trn_weights_metadata(weights, name);
        if (!text) {
            trn_fail(err, TRN_ERR_FORMAT, "it does not say what its '%s' was", name);
            return fail_damaged(f, err);
        }
        if (!first_difference(text, f->identity.text[i], was, is)) continue;
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "the checkpoint '%s' is of another %s: there it is \"%s\", here \"%s\". Train with the "
            "same settings to continue, or into another folder, or delete it to begin anew",
            f->last_path, !strcmp(name, "training") ? "setting of training" : name, was, is);
    }
    const char *device = trn_weights_metadata(weights, "device");
    if (device && strcmp(device, f->identity.device) != 0)
        fit_note(f, TRN_LOG_WARN,
                 "the checkpoint is of another device or driver (%.200s): the same run there would end with "
                 "other bits",
                 device);
    return TRN_OK;
}

static trn_status read_tensor(fit *f, trn_weights *weights, const fit_tensor *tensor, uint64_t *hash,
                              trn_error *err)
{
    trn_status status =
        trn_weights_read(weights, tensor->name, tensor->shape.dim, tensor->shape.ndim, f->values, err);
    if (status == TRN_OK) *hash = trn_fnv1a64(f->values, (size_t)tensor->count * sizeof *f->values, *hash);
    return status;
}

static trn_status check_hash(trn_weights *weights, uint64_t hash, trn_error *err)
{
    float stored[CHECK_SIZE];
    const int64_t shape[] = {CHECK_SIZE};
    trn_status status = trn_weights_read(weights, CHECK_TENSOR, shape, 1, stored, err);
    for (int k = 0; status == TRN_OK && k < CHECK_SIZE; k++)
        if (!(stored[k] == (float)(hash >> (16 * k) & 0xffff)))
            status = trn_fail(err, TRN_ERR_FORMAT, "its numbers do not agree with their checksum");
    return status;
}

/* All tensors into `exec`, or the model's into the one that evaluates. */
static trn_status read_tensors(fit *f, trn_weights *weights, bool best, trn_error *err)
{
    uint64_t hash = TRN_FNV_SEED;
    trn_status status = TRN_OK;
    for (size_t i = 0; status == TRN_OK && i < f->engine.tensor_count; i++) {
        const fit_tensor *tensor = &f->engine.tensors[i];
        if (best && !tensor->weight) continue;
        status = read_tensor(f, weights, tensor, &hash, err);
        if (status == TRN_OK && !best) status = trn_exec_set(f->engine.train, tensor->name, f->values, err);
        if (status == TRN_OK && best && tensor->in_eval)
            status = trn_exec_set(f->engine.eval, tensor->name, f->values, err);
    }
    return status == TRN_OK ? check_hash(weights, hash, err) : status;
}

static trn_status read_state(fit *f, const trn_weights *weights, trn_error *err)
{
    const char *written = trn_weights_metadata(weights, "format");
    if (!written || strcmp(written, format) != 0) {
        trn_fail(err, TRN_ERR_FORMAT, "it is no checkpoint of training (format '%.80s')",
                 written ? written : "none");
        return fail_damaged(f, err);
    }
    trn_status status = check_identity(f, weights, err);
    if (status != TRN_OK) return status;
    fit_state state = {0};
    if (!parse_state(weights, &state) || !is_possible(f, &state)) {
        trn_fail(err, TRN_ERR_FORMAT, "what it says of where the run stands is damaged");
        return fail_damaged(f, err);
    }
    f->state = state;
    return TRN_OK;
}

static trn_status open_tensors(const char *path, trn_weights **out, trn_error *err)
{
    return trn_weights_open(path, &(trn_weights_options){.prefix = ""}, out, err);
}

/* Removes what processes that are no more left half written. */
static void remove_partial(const fit *f)
{
    char **names = NULL;
    size_t count = 0;
    if (trn_list_dir(f->options->dir, &names, &count, NULL) != TRN_OK) return;
    for (size_t i = 0; i < count; i++) {
        static const char start[] = ".partial-";
        if (!trn_starts_with(names[i], start) || !trn_ends_with(names[i], ".safetensors")) continue;
        long process = strtol(names[i] + strlen(start), NULL, 10);
        bool gone = process > 0 && kill((pid_t)process, 0) && errno == ESRCH;
        char *path = gone ? trn_path_join(f->options->dir, names[i]) : NULL;
        if (path) unlink(path);
        free(path);
    }
    trn_names_free(names, count);
}

trn_status fit_checkpoint_read(fit *f, bool *found, trn_error *err)
{
    trn_weights *weights = NULL;
    *found = false;
    remove_partial(f);
    if (!trn_path_exists(f->last_path)) return TRN_OK;
    if (open_tensors(f->last_path, &weights, err) != TRN_OK) return fail_damaged(f, err);
    trn_status status = read_state(f, weights, err);
    if (status == TRN_OK && read_tensors(f, weights, false, err) != TRN_OK) status = fail_damaged(f, err);
    trn_weights_close(weights);
    if (status != TRN_OK) return status;
    *found = f->has_last = true;
    f->last_step = f->state.step;
    return TRN_OK;
}

/* ---- the best ---- */

typedef struct encoder_values {
    fit *f;
    char prefix[32];
} encoder_values;

static trn_status fill_encoder(void *user, const char *name, const trn_shape *shape, float *out, bool *given,
                               trn_error *err)
{
    const encoder_values *v = user;
    const fit_engine *e = &v->f->engine;
    size_t length = strlen(v->prefix);
    for (size_t i = 0; i < e->tensor_count; i++) {
        const fit_tensor *t = &e->tensors[i];
        if (!t->weight || !trn_starts_with(t->name, v->prefix) || strcmp(t->name + length, name) != 0 ||
            !trn_shape_equal(&t->shape, shape))
            continue;
        *given = true;
        return trn_exec_get(e->train, t->best, out, err);
    }
    return TRN_OK;
}

static bool member_learns(const fit *f, const char *prefix)
{
    for (size_t i = 0; i < f->engine.tensor_count; i++)
        if (f->engine.tensors[i].learns && trn_starts_with(f->engine.tensors[i].name, prefix)) return true;
    return false;
}

static trn_status write_encoders(fit *f, const char *const *metadata, trn_error *err)
{
    trn_status status = TRN_OK;
    for (size_t i = 0; status == TRN_OK && i < f->model->member_count; i++) {
        encoder_values values = {.f = f};
        trn_encoder_save_options options = {.fill = fill_encoder, .user = &values, .metadata = metadata};
        learn_member_prefix(i, values.prefix);
        if (!member_learns(f, values.prefix)) continue;
        char name[64];
        snprintf(name, sizeof name, "%ssafetensors", values.prefix);
        char *path = trn_path_join(f->options->dir, name);
        status = path ? trn_encoder_save(f->model->members[i].encoder, path, &options, err)
                      : trn_fail_memory(err, sizeof name, "a path");
        free(path);
    }
    return status;
}

trn_status fit_best_write(fit *f, const fit_scores *scores, trn_error *err)
{
    char epoch[32], value[40], loss[40];
    snprintf(epoch, sizeof epoch, "%lld", (long long)f->state.epoch);
    snprintf(value, sizeof value, "%.9g", f->state.best_metric);
    snprintf(loss, sizeof loss, "%.9g", scores ? scores->loss : f->state.train_loss);
    const char *pairs[] = {"format",
                           "pt",
                           "epoch",
                           epoch,
                           scores ? f->metric->name : "training",
                           scores ? value : "last epoch",
                           "average_loss",
                           loss,
                           "model",
                           f->identity.text[0],
                           "data",
                           f->info->name,
                           NULL};
    trn_status status = write_tensors(f, f->best_path, true, pairs, err);
    if (status == TRN_OK) status = write_encoders(f, pairs, err);
    if (status == TRN_OK) return TRN_OK;
    if (!f->has_last) return trn_wrap(err, "the best weights cannot be written");
    return trn_wrap(err, "the best weights cannot be written; the checkpoint of step %lld is kept",
                    (long long)f->last_step);
}

trn_status fit_best_read(fit *f, trn_error *err)
{
    trn_weights *weights = NULL;
    trn_status status = open_tensors(f->best_path, &weights, err);
    if (status == TRN_OK) status = read_tensors(f, weights, true, err);
    trn_weights_close(weights);
    if (status == TRN_OK) return TRN_OK;
    return trn_wrap(err, "the best weights cannot be read; delete '%s' to train anew", f->last_path);
}
