/* GDAL_METADATA, the XML in which GDAL keeps band descriptions, scales and offsets. Only <Item
 * ...>text</Item> is looked at; anything else is passed over, for the text may come from anywhere. */
#include "raster_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_VALUE = 1024 };

/* One of the five named entities or a character reference at text[0] = '&': what it stands for (0: none) and
 * its length. */
static char entity(const char *text, const char *end, size_t *length)
{
    static const struct {
        const char *name;
        char letter;
    } known[] = {{"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
    for (size_t i = 0; i < TRN_COUNT(known); i++) {
        *length = strlen(known[i].name);
        if ((size_t)(end - text) >= *length && !memcmp(text, known[i].name, *length)) return known[i].letter;
    }
    return 0;
}

/* Copies [from, end) with entities resolved; at most MAX_VALUE - 1 characters. */
static void unescape(const char *from, const char *end, char *out)
{
    size_t n = 0;
    while (from < end && n < MAX_VALUE - 1) {
        size_t length = 1;
        char letter = *from == '&' ? entity(from, end, &length) : 0;
        if (!letter) {
            letter = *from;
            length = 1;
        }
        out[n++] = letter;
        from += length;
    }
    out[n] = 0;
}

/* Value of attribute `name` within [tag, end); false when absent. */
static bool attribute(const char *tag, const char *end, const char *name, char *out)
{
    size_t length = strlen(name);
    for (const char *at = tag; at + length + 2 < end; at++) {
        if (memcmp(at, name, length) || at[length] != '=' ||
            (at[-1] != ' ' && at[-1] != '\n' && at[-1] != '\t'))
            continue;
        char quote = at[length + 1];
        if (quote != '"' && quote != '\'') return false;
        const char *from = at + length + 2, *to = memchr(from, quote, (size_t)(end - from));
        if (!to) return false;
        unescape(from, to, out);
        return true;
    }
    return false;
}

static trn_status take_item(raster_source *source, trn_arena *arena, const char *role, int64_t sample,
                            const char *text, trn_error *err)
{
    if (sample < 0 || sample >= source->samples) return TRN_OK;
    source_band *band = &source->bands[sample];
    double value;
    bool number = trn_parse_double(text, &value) && isfinite(value);
    if (!strcmp(role, "scale") && number && value != 0) band->scale = value;
    if (!strcmp(role, "offset") && number) band->offset = value;
    if (strcmp(role, "description") || !text[0]) return TRN_OK;
    band->description = trn_arena_strdup(arena, text);
    return band->description ? TRN_OK : trn_fail_memory(err, strlen(text), "a band's description");
}

trn_status gdal_metadata_read(raster_source *source, trn_arena *arena, const char *xml, trn_error *err)
{
    char role[MAX_VALUE], sample[MAX_VALUE], text[MAX_VALUE];
    const char *at = xml;
    while ((at = strstr(at, "<Item"))) {
        const char *tag = at + strlen("<Item"), *close = strchr(tag, '>');
        const char *end = close ? strchr(close, '<') : NULL;
        if (!end) break;
        at = close;
        int64_t index;
        if (!attribute(tag, close, "role", role) || !attribute(tag, close, "sample", sample)) continue;
        if (!trn_parse_int(sample, &index)) continue;
        unescape(close + 1, end, text);
        trn_status status = take_item(source, arena, role, index, text, err);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}
