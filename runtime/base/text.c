/* Growing texts, strict number parsing, nearest names. */
#include "base.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void trn_text_add_n(trn_text *text, const char *more, size_t n)
{
    size_t need;
    if (text->failed || !trn_add_size(text->length, n, &need) || !trn_add_size(need, 1, &need) ||
        !trn_grow(&text->data, &text->capacity, need, 1)) {
        text->failed = true;
        return;
    }
    if (n) memcpy(text->data + text->length, more, n);
    text->length += n;
    text->data[text->length] = 0;
}

void trn_text_add(trn_text *text, const char *more)
{
    trn_text_add_n(text, more, strlen(more));
}

void trn_text_printf(trn_text *text, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    size_t need = text->length + (n < 0 ? 0 : (size_t)n) + 1;
    if (n < 0 || text->failed || !trn_grow(&text->data, &text->capacity, need, 1)) {
        text->failed = true;
    } else {
        vsnprintf(text->data + text->length, (size_t)n + 1, fmt, again);
        text->length += (size_t)n;
    }
    va_end(again);
    va_end(args);
}

void trn_text_json(trn_text *text, const char *string)
{
    if (!string) {
        trn_text_add(text, "null");
        return;
    }
    trn_text_add(text, "\"");
    for (const unsigned char *s = (const unsigned char *)string; *s; s++) {
        if (*s == '"' || *s == '\\') {
            trn_text_printf(text, "\\%c", *s);
        } else if (*s < 0x20) {
            trn_text_printf(text, "\\u%04x", *s);
        } else {
            trn_text_add_n(text, (const char *)s, 1);
        }
    }
    trn_text_add(text, "\"");
}

void trn_text_free(trn_text *text)
{
    free(text->data);
    *text = (trn_text){0};
}

const char *trn_text_get(const trn_text *text)
{
    return text->data ? text->data : "";
}

enum { NEAREST_MAX_LENGTH = 64 };

static size_t edit_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b), row[NEAREST_MAX_LENGTH + 1];
    if (n > NEAREST_MAX_LENGTH || m > NEAREST_MAX_LENGTH) return SIZE_MAX;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t above = row[j];
            size_t change = diagonal + (tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[j - 1]));
            row[j] = TRN_MIN(change, TRN_MIN(above, row[j - 1]) + 1);
            diagonal = above;
        }
    }
    return row[m];
}

const char *trn_nearest(const char *word, const char *const *candidates, size_t count)
{
    const char *best = NULL;
    size_t best_distance = TRN_MAX(strlen(word) / 3, (size_t)2) + 1;
    for (size_t i = 0; i < count; i++) {
        size_t d = edit_distance(word, candidates[i]);
        if (d < best_distance) {
            best_distance = d;
            best = candidates[i];
        }
    }
    return best;
}

bool trn_starts_with(const char *text, const char *prefix)
{
    return !strncmp(text, prefix, strlen(prefix));
}

bool trn_ends_with(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && !strcmp(text + n - m, suffix);
}

bool trn_parse_int(const char *text, int64_t *out)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || isspace((unsigned char)*text)) return false;
    *out = value;
    return true;
}

bool trn_parse_double(const char *text, double *out)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value) || isspace((unsigned char)*text)) return false;
    *out = value;
    return true;
}

const char *trn_format_bytes(uint64_t bytes, char *buffer)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < 1024) {
        snprintf(buffer, 32, "%d B", (int)bytes);
        return buffer;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < TRN_COUNT(units)) {
        value /= 1024;
        unit++;
    }
    snprintf(buffer, 32, value < 10 ? "%.2f %s" : "%.1f %s", value, units[unit]);
    return buffer;
}

const char *trn_format_seconds(double seconds, char *buffer)
{
    long long whole = llround(seconds);
    if (seconds < 9.95)
        snprintf(buffer, 32, "%.1fs", seconds);
    else if (whole < 60)
        snprintf(buffer, 32, "%llds", whole);
    else if (whole < 3600)
        snprintf(buffer, 32, "%lldm%02llds", whole / 60, whole % 60);
    else
        snprintf(buffer, 32, "%lldh%02lldm", whole / 3600, whole / 60 % 60);
    return buffer;
}
