/* The class of a sample, found in the bytes of its pickle. No opcode is executed. */
#include "data_private.h"

#include <stdlib.h>
#include <string.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte that an escape from s (behind the backslash) means; returns how long it is, 0 when it is none. */
static size_t unescape(const char *s, size_t left, uint8_t *byte)
{
    static const char letters[] = "ntr\\'\"", bytes[] = "\n\t\r\\'\"";
    if (!left) return 0;
    if (*s == 'x') {
        if (left < 3 || hex_digit(s[1]) < 0 || hex_digit(s[2]) < 0) return 0;
        *byte = (uint8_t)(hex_digit(s[1]) * 16 + hex_digit(s[2]));
        return 3;
    }
    const char *letter = *s ? strchr(letters, *s) : NULL;
    if (!letter) return 0;
    *byte = (uint8_t)bytes[letter - letters];
    return 1;
}

/* b'...' or b"..." to bytes; returns how many, or SIZE_MAX when it is no such text. */
static size_t unquote(const char *repr, size_t length, uint8_t *out)
{
    if (length < 3 || repr[0] != 'b' || (repr[1] != '\'' && repr[1] != '"') || repr[length - 1] != repr[1])
        return SIZE_MAX;
    size_t n = 0;
    for (size_t i = 2; i < length - 1; n++) {
        if (repr[i] != '\\') {
            out[n] = (uint8_t)repr[i++];
            continue;
        }
        size_t used = unescape(repr + i + 1, length - 2 - i, &out[n]);
        if (!used) return SIZE_MAX;
        i += 1 + used;
    }
    return n;
}

/* Behind the key: MEMOIZE or BINPUT, then the value. Returns where the value is, or NULL. */
static const uint8_t *value_after(const uint8_t *s, const uint8_t *end)
{
    if (s < end && *s == 0x94) return s + 1;
    if (end - s >= 2 && *s == 'q') return s + 2;
    return s;
}

/* BININT1, BININT2 or BININT. */
static bool read_integer(const uint8_t *s, const uint8_t *end, int64_t *out)
{
    if (end - s >= 2 && *s == 'K') {
        *out = s[1];
        return true;
    }
    if (end - s >= 3 && *s == 'M') {
        *out = s[1] | s[2] << 8;
        return true;
    }
    if (end - s >= 5 && *s == 'J') {
        *out = (int32_t)((uint32_t)s[1] | (uint32_t)s[2] << 8 | (uint32_t)s[3] << 16 | (uint32_t)s[4] << 24);
        return true;
    }
    return false;
}

/* The key as SHORT_BINUNICODE (protocol 4) or BINUNICODE. Returns what follows it, or NULL. */
static const uint8_t *find_key(const uint8_t *s, const uint8_t *end)
{
    static const uint8_t short_key[] = "\x8c\x05label", long_key[] = "X\x05\0\0\0label";
    for (; s < end; s++) {
        size_t left = (size_t)(end - s);
        if (left >= sizeof short_key - 1 && !memcmp(s, short_key, sizeof short_key - 1))
            return s + sizeof short_key - 1;
        if (left >= sizeof long_key - 1 && !memcmp(s, long_key, sizeof long_key - 1))
            return s + sizeof long_key - 1;
    }
    return NULL;
}

trn_status data_pickle_label(const char *repr, size_t length, int64_t *label, trn_error *err)
{
    uint8_t *bytes = malloc(length + 1);
    if (!bytes) return trn_fail_memory(err, length + 1, "a pickle");
    size_t count = unquote(repr, length, bytes);
    trn_status status = TRN_OK;
    if (count == SIZE_MAX) {
        status = trn_fail(err, TRN_ERR_FORMAT, "attribute 'pickle' is not the text of a byte string");
    } else {
        const uint8_t *end = bytes + count, *after = find_key(bytes, end);
        if (!after || !read_integer(value_after(after, end), end, label))
            status = trn_fail(err, TRN_ERR_FORMAT,
                              "attribute 'pickle' holds no class: the folder needs a "
                              "label_map.json or label_stats.json");
    }
    free(bytes);
    return status;
}
