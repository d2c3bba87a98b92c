/* Errors and the log. */
#include "base.h"

#include <errno.h>
#include <string.h>

trn_status(trn_fail)(trn_error *err, trn_status code, const char *fmt, ...)
{
    if (!err) return code;
    va_list args;
    va_start(args, fmt);
    err->code = code;
    vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    return code;
}

trn_status trn_wrap(trn_error *err, const char *fmt, ...)
{
    if (!err) return TRN_ERR_INTERNAL;
    char cause[sizeof err->message];
    memcpy(cause, err->message, sizeof cause);
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    if (n < 0) n = 0;
    if ((size_t)n >= sizeof err->message) n = (int)sizeof err->message - 1;
    const char *const parts[] = {cause[0] ? ": " : "", cause};
    for (size_t i = 0; i < TRN_COUNT(parts); i++) { /* cut where the message is full */
        size_t left = sizeof err->message - 1 - (size_t)n, length = TRN_MIN(strlen(parts[i]), left);
        memcpy(err->message + n, parts[i], length);
        n += (int)length;
    }
    err->message[n] = 0;
    if (err->code == TRN_OK) err->code = TRN_ERR_INTERNAL;
    return err->code;
}

trn_status(trn_fail_memory)(trn_error *err, size_t bytes, const char *what)
{
    char text[32];
    return trn_fail(err, TRN_ERR_MEMORY, "out of memory: %s needs %s", what, trn_format_bytes(bytes, text));
}

trn_status(trn_fail_errno)(trn_error *err, const char *action, const char *path)
{
    int code = errno;
    trn_status status = code == ENOMEM ? TRN_ERR_MEMORY : TRN_ERR_IO;
    return trn_fail(err, status, "cannot %s '%s': %s", action, path, strerror(code));
}

trn_status trn_fail_cancelled(trn_error *err, const char *what)
{
    return trn_fail(err, TRN_ERR_CANCELLED, "%s was stopped", what);
}

const char *trn_status_name(trn_status code)
{
    switch (code) {
    case TRN_OK:
        return "ok";
    case TRN_ERR_INTERNAL:
        return "internal error";
    case TRN_ERR_ARGUMENT:
        return "wrong argument";
    case TRN_ERR_IO:
        return "i/o error";
    case TRN_ERR_FORMAT:
        return "bad file";
    case TRN_ERR_UNSUPPORTED:
        return "unsupported";
    case TRN_ERR_MEMORY:
        return "out of memory";
    case TRN_ERR_DEVICE:
        return "device error";
    case TRN_ERR_DEVICE_LOST:
        return "device lost";
    case TRN_ERR_CANCELLED:
        return "cancelled";
    }
    return "unknown";
}

static trn_log_sink log_sink;
static void *log_user;
static trn_log_level log_max = TRN_LOG_WARN;

void trn_log_set(trn_log_sink sink, void *user, trn_log_level max_level)
{
    log_sink = sink;
    log_user = user;
    log_max = max_level;
}

trn_log_level trn_log_level_parse(const char *name, trn_log_level fallback)
{
    static const char *const names[] = {"error", "warn", "info", "debug", "trace"};
    for (size_t i = 0; name && i < TRN_COUNT(names); i++) {
        if (!strcmp(name, names[i])) return (trn_log_level)i;
    }
    return fallback;
}

bool trn_log_enabled(trn_log_level level)
{
    return log_sink && level <= log_max;
}

void trn_log(trn_log_level level, const char *fmt, ...)
{
    if (!trn_log_enabled(level)) return;
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    log_sink(log_user, level, text);
}
