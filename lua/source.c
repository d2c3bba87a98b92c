/* source: a small scanner of Lua text, just enough to tell names, braces and separators from texts and
 * comments. */
#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#include "source.h"

typedef enum token_kind { TOKEN_END, TOKEN_NAME, TOKEN_TEXT, TOKEN_MARK } token_kind;

typedef struct token {
    token_kind kind;
    const char *start;
    size_t length;
    int line;
} token;

typedef struct scanner {
    const char *at, *end;
    int line;
} scanner;

static char peek(const scanner *s, size_t ahead)
{
    return (size_t)(s->end - s->at) > ahead ? s->at[ahead] : '\0';
}

static void step(scanner *s)
{
    if (s->at < s->end && *s->at++ == '\n') s->line++;
}

/* Level of a long bracket that opens here: 0 for [[, 1 for [=[; -1 when none does. */
static int long_bracket(const scanner *s)
{
    if (peek(s, 0) != '[') return -1;
    size_t i = 1;
    while (peek(s, i) == '=')
        i++;
    return peek(s, i) == '[' && i < 1000 ? (int)i - 1 : -1;
}

static bool closes_long(const scanner *s, int level)
{
    if (peek(s, 0) != ']') return false;
    for (int i = 0; i < level; i++)
        if (peek(s, (size_t)i + 1) != '=') return false;
    return peek(s, (size_t)level + 1) == ']';
}

static void skip_long(scanner *s, int level)
{
    for (int i = 0; i < level + 2; i++)
        step(s);
    while (s->at < s->end && !closes_long(s, level))
        step(s);
    for (int i = 0; i < level + 2; i++)
        step(s);
}

static void skip_quoted(scanner *s)
{
    char quote = *s->at;
    step(s);
    while (s->at < s->end && *s->at != quote && *s->at != '\n') {
        if (*s->at == '\\') step(s);
        step(s);
    }
    step(s);
}

static void skip_comment(scanner *s)
{
    step(s);
    step(s);
    int level = long_bracket(s);
    if (level >= 0) {
        skip_long(s, level);
        return;
    }
    while (s->at < s->end && *s->at != '\n')
        step(s);
}

static void skip_blank(scanner *s)
{
    while (s->at < s->end) {
        if (peek(s, 0) == '-' && peek(s, 1) == '-') {
            skip_comment(s);
        } else if (isspace((unsigned char)*s->at)) {
            step(s);
        } else {
            return;
        }
    }
}

static token next_token(scanner *s)
{
    skip_blank(s);
    token t = {TOKEN_END, s->at, 0, s->line};
    if (s->at >= s->end) return t;
    int level = long_bracket(s);
    if (isalpha((unsigned char)*s->at) || *s->at == '_') {
        t.kind = TOKEN_NAME;
        while (isalnum((unsigned char)peek(s, 0)) || peek(s, 0) == '_')
            step(s);
    } else if (level >= 0) {
        t.kind = TOKEN_TEXT;
        skip_long(s, level);
    } else if (*s->at == '"' || *s->at == '\'') {
        t.kind = TOKEN_TEXT;
        skip_quoted(s);
    } else {
        t.kind = TOKEN_MARK;
        step(s);
    }
    t.length = (size_t)(s->at - t.start);
    return t;
}

static bool is(token t, token_kind kind, const char *text)
{
    return t.kind == kind && t.length == strlen(text) && !memcmp(t.start, text, t.length);
}

static bool is_mark(token t, const char *marks)
{
    return t.kind == TOKEN_MARK && *t.start && strchr(marks, *t.start);
}

/* `=` of a field, not of a comparison. */
static bool is_assignment(scanner s)
{
    if (!is_mark(next_token(&s), "=")) return false;
    return peek(&s, 0) != '=';
}

/* Inside braces that have just been opened: line of the item-th value, or 0. */
static int item_line(scanner *s, int item)
{
    int depth = 1, count = 1;
    bool first = true;
    for (token t = next_token(s); t.kind != TOKEN_END; t = next_token(s)) {
        if (is_mark(t, "})]") && --depth == 0) return 0;
        if (first && count == item) return t.line;
        first = depth == 1 && is_mark(t, ",;");
        count += first;
        if (is_mark(t, "{([")) depth++;
    }
    return 0;
}

/* Inside a constructor's braces: line of the field (or of its item), or 0. */
static int field_line(scanner *s, const char *field, int item)
{
    int depth = 1;
    bool first = true;
    for (token t = next_token(s); t.kind != TOKEN_END; t = next_token(s)) {
        if (is_mark(t, "})]") && --depth == 0) return 0;
        if (first && is(t, TOKEN_NAME, field) && is_assignment(*s)) {
            next_token(s);
            scanner ahead = *s;
            int found = item > 0 && is_mark(next_token(&ahead), "{") ? item_line(&ahead, item) : 0;
            return found ? found : t.line;
        }
        first = depth == 1 && is_mark(t, ",;");
        if (is_mark(t, "{([")) depth++;
    }
    return 0;
}

/* After a constructor's name: steps over `(` and `{`. */
static bool enter_braces(scanner *s)
{
    token t = next_token(s);
    if (is_mark(t, "(")) t = next_token(s);
    return is_mark(t, "{");
}

int trn_source_line(const char *text, size_t size, int line, const char *constructor, const char *field,
                    int item)
{
    if (!field && item <= 0) return line;
    scanner s = {text, text + size, 1};
    int call = 0;
    for (token t = next_token(&s); t.kind != TOKEN_END; t = next_token(&s)) {
        if (t.line < line || !is(t, TOKEN_NAME, constructor)) continue;
        if (call && t.line != call) break;
        call = t.line;
        scanner inside = s;
        if (!enter_braces(&inside)) continue;
        int found = field ? field_line(&inside, field, item) : item_line(&inside, item);
        if (found) return found;
    }
    return line;
}
