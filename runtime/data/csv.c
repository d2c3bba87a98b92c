/* Comma-separated lines, fields quoted where need be. */
#include "data_private.h"

#include <string.h>

/* One field from s on, unquoted in place; *end is the character after it. False when quotes do not close. */
static bool read_field(char *s, char **field, char **end)
{
    if (*s != '"') {
        *field = s;
        *end = s + strcspn(s, ",\r\n");
        return true;
    }
    char *to = ++s;
    *field = to;
    while (*s && (*s != '"' || s[1] == '"')) {
        s += *s == '"';
        *to++ = *s++;
    }
    if (*s != '"') return false;
    *to = 0;
    *end = s + 1;
    return strchr(",\r\n", **end) != NULL; /* also at the end of the text */
}

static char *skip_line_end(char *s)
{
    s += *s == '\r';
    return s + (*s == '\n');
}

bool data_csv_next(data_csv *csv, char **fields, size_t capacity, size_t *count, trn_status *status,
                   trn_error *err)
{
    *count = 0;
    *status = TRN_OK;
    while (*csv->text == '\n' || *csv->text == '\r') {
        csv->line += *csv->text == '\n';
        csv->text++;
    }
    if (!*csv->text) return false;
    csv->line++;
    for (char *s = csv->text;;) {
        char *end;
        if (*count == capacity || !read_field(s, &fields[*count], &end)) {
            *status = trn_fail(err, TRN_ERR_FORMAT, "line %zu: %s", csv->line,
                               *count == capacity ? "too many fields" : "a quoted field does not end");
            return true;
        }
        ++*count;
        char mark = *end;
        csv->text = mark == ',' ? end + 1 : skip_line_end(end);
        *end = 0;
        if (mark != ',') return true;
        s = csv->text;
    }
}
