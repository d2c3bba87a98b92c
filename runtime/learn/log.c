/* log.jsonl: a line for each step and each epoch, the same whether a run was stopped in between or not: it
 * tells no times. */
#include "fit.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_LOG = 1 << 30 };

static double number_of(const cJSON *line, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(line, key);
    return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

static bool add_line(fit_curve *curve, const cJSON *line)
{
    const char *event = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "event"));
    double step = number_of(line, "step");
    if (!event || !(step >= 0 && step < 9e15)) return true;
    if (!strcmp(event, "step")) return fit_series_add(&curve->steps, (int64_t)step, number_of(line, "loss"));
    return fit_series_add(&curve->epochs, (int64_t)step, number_of(line, "train_loss")) &&
           fit_series_add(&curve->valid, (int64_t)step, number_of(line, "valid_loss"));
}

/* The curve out of the text of a log; lines that are none are passed over. */
static bool read_curve(fit_curve *curve, const char *text, size_t size)
{
    const char *end = text + size;
    while (text < end) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        size_t length = stop ? (size_t)(stop - text) : (size_t)(end - text);
        cJSON *line = cJSON_ParseWithLength(text, length);
        bool added = add_line(curve, line);
        cJSON_Delete(line);
        if (!added) return false;
        text += length + 1;
    }
    return true;
}

trn_status fit_log_open(fit_log *log, const char *path, int64_t keep, bool *cut, trn_error *err)
{
    size_t size = 0;
    *cut = false;
    log->path = strdup(path);
    if (!log->path) return trn_fail_memory(err, strlen(path), "a log");
    if (keep > 0 && trn_path_exists(path)) {
        char *text = trn_read_file(path, MAX_LOG, &size, err);
        if (!text) return err ? err->code : TRN_ERR_IO;
        bool read = read_curve(&log->curve, text, (size_t)TRN_MIN((uint64_t)keep, size));
        free(text);
        if (!read) return trn_fail_memory(err, size, "the curve of the log");
    }
    *cut = (int64_t)size < keep;
    log->bytes = TRN_MIN(keep, (int64_t)size);
    log->file = fopen(path, "ab");
    if (!log->file || ftruncate(fileno(log->file), (off_t)log->bytes))
        return trn_fail_errno(err, "write", path);
    return TRN_OK;
}

static trn_status write_line(fit_log *log, trn_text *line, trn_error *err)
{
    trn_text_add(line, "\n");
    trn_status status = TRN_OK;
    if (line->failed)
        status = trn_fail_memory(err, line->capacity, "a line of the log");
    else if (fwrite(line->data, 1, line->length, log->file) != line->length || fflush(log->file))
        status = trn_fail_errno(err, "write", log->path);
    else
        log->bytes += (int64_t)line->length;
    trn_text_free(line);
    return status;
}

static void add_number(trn_text *line, const char *key, double value)
{
    if (isfinite(value))
        trn_text_printf(line, ", \"%s\": %.9g", key, value);
    else
        trn_text_printf(line, ", \"%s\": null", key);
}

trn_status fit_log_step(fit_log *log, const fit_state *state, double loss, double rate, double norm,
                        double scale, trn_error *err)
{
    trn_text line = {0};
    trn_text_printf(&line, "{\"event\": \"step\", \"step\": %lld, \"epoch\": %lld", (long long)state->step,
                    (long long)state->epoch + 1);
    add_number(&line, "loss", loss);
    add_number(&line, "lr", rate);
    add_number(&line, "gradient_norm", norm);
    if (scale > 0) add_number(&line, "loss_scale", scale);
    trn_text_add(&line, "}");
    if (!fit_series_add(&log->curve.steps, state->step, loss)) line.failed = true;
    return write_line(log, &line, err);
}

trn_status fit_log_epoch(fit_log *log, const fit_state *state, const char *metric, double value, bool best,
                         trn_error *err)
{
    trn_text line = {0};
    trn_text_printf(&line, "{\"event\": \"epoch\", \"epoch\": %lld, \"step\": %lld", (long long)state->epoch,
                    (long long)state->step);
    add_number(&line, "train_loss", state->train_loss);
    if (metric) {
        add_number(&line, "valid_loss", state->valid_loss);
        if (strcmp(metric, "loss") != 0) add_number(&line, metric, value);
    }
    trn_text_printf(&line, ", \"best\": %s}", best ? "true" : "false");
    bool added = fit_series_add(&log->curve.epochs, state->step, state->train_loss) &&
                 (!metric || fit_series_add(&log->curve.valid, state->step, state->valid_loss));
    if (!added) line.failed = true;
    return write_line(log, &line, err);
}

trn_status fit_log_sync(fit_log *log, trn_error *err)
{
    if (!fflush(log->file) && (!fsync(fileno(log->file)) || errno == EINVAL)) return TRN_OK;
    return trn_fail_errno(err, "write", log->path);
}

void fit_log_close(fit_log *log)
{
    if (log->file) fclose(log->file);
    free(log->path);
    fit_curve_free(&log->curve);
    *log = (fit_log){0};
}
