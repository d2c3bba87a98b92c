/* The pickle machine: opcodes of protocols 2 to 5 that build data; see pickle.h. */
#include "pickle.h"

#include <stdlib.h>
#include <string.h>

typedef struct machine {
    const uint8_t *data;
    size_t size, at, values;
    trn_pickle *out;
    trn_pickle_value **stack, **memo;
    size_t stack_count, stack_capacity, memo_count, memo_capacity;
    size_t *marks;
    size_t mark_count, mark_capacity, memoized;
    bool stopped;
    trn_status status;
    trn_error *err;
} machine;

/* ---- failing, reading, making values ---- */

static bool broken(machine *m, const char *what)
{
    if (m->status == TRN_OK)
        m->status = trn_fail(m->err, TRN_ERR_FORMAT, "pickle, byte %zu: %s", m->at, what);
    return false;
}

static bool no_memory(machine *m)
{
    if (m->status == TRN_OK) m->status = trn_fail_memory(m->err, m->size, "the values of a pickle");
    return false;
}

static const uint8_t *take(machine *m, uint64_t n)
{
    if (n > m->size - m->at) {
        broken(m, "it is cut off");
        return NULL;
    }
    const uint8_t *p = m->data + m->at;
    m->at += (size_t)n;
    return p;
}

/* An unsigned little-endian number of `width` bytes; 0 after a failure (m->status says so). */
static uint64_t take_number(machine *m, size_t width)
{
    const uint8_t *p = take(m, width);
    uint64_t number = 0;
    for (size_t i = 0; p && i < width; i++)
        number |= (uint64_t)p[i] << (8 * i);
    return number;
}

static trn_pickle_value *new_value(machine *m, trn_pickle_kind kind)
{
    if (m->values >= TRN_PICKLE_MAX_VALUES) {
        broken(m, "it holds too many values");
        return NULL;
    }
    trn_pickle_value *value = trn_arena_alloc(m->out->arena, sizeof *value);
    if (!value) {
        no_memory(m);
        return NULL;
    }
    m->values++;
    value->kind = kind;
    return value;
}

static bool push(machine *m, trn_pickle_value *value)
{
    if (!value) return false;
    if (m->stack_count >= TRN_PICKLE_MAX_VALUES) return broken(m, "its stack is too deep");
    if (!trn_grow(&m->stack, &m->stack_capacity, m->stack_count + 1, sizeof(*m->stack))) return no_memory(m);
    m->stack[m->stack_count++] = value;
    return true;
}

/* What lies above the last mark can be popped, no more. */
static size_t stack_floor(const machine *m)
{
    return m->mark_count ? m->marks[m->mark_count - 1] : 0;
}

static trn_pickle_value *top(machine *m)
{
    if (m->stack_count > stack_floor(m)) return m->stack[m->stack_count - 1];
    broken(m, "its stack is empty");
    return NULL;
}

static trn_pickle_value *pop(machine *m)
{
    trn_pickle_value *value = top(m);
    if (value) m->stack_count--;
    return value;
}

/* Takes the last mark away: the values from *first on lay above it. */
static bool pop_mark(machine *m, size_t *first)
{
    if (!m->mark_count) return broken(m, "a mark is missing");
    *first = m->marks[--m->mark_count];
    return true;
}

static bool list_add(machine *m, trn_pickle_value *list, trn_pickle_value *item)
{
    if (list->as.list.count == list->as.list.capacity) {
        size_t capacity = list->as.list.capacity ? list->as.list.capacity * 2 : 4;
        trn_pickle_value **items = trn_arena_array(m->out->arena, capacity, sizeof(*items));
        if (!items) return no_memory(m);
        if (list->as.list.count) memcpy(items, list->as.list.items, list->as.list.count * sizeof(*items));
        list->as.list.items = items;
        list->as.list.capacity = capacity;
    }
    list->as.list.items[list->as.list.count++] = item;
    return true;
}

static bool list_add_range(machine *m, trn_pickle_value *list, size_t first)
{
    for (size_t i = first; i < m->stack_count; i++)
        if (!list_add(m, list, m->stack[i])) return false;
    m->stack_count = first;
    return true;
}

/* ---- opcodes: plain values ---- */

static bool push_int(machine *m, trn_pickle_kind kind, int64_t number)
{
    trn_pickle_value *value = m->status == TRN_OK ? new_value(m, kind) : NULL;
    if (value) value->as.integer = number;
    return push(m, value);
}

static bool push_bytes(machine *m, trn_pickle_kind kind, size_t width)
{
    uint64_t length = take_number(m, width);
    const uint8_t *p = m->status == TRN_OK ? take(m, length) : NULL;
    trn_pickle_value *value = p ? new_value(m, kind) : NULL;
    if (!value) return false;
    char *copy = trn_arena_alloc(m->out->arena, (size_t)length + 1);
    if (!copy) return no_memory(m);
    memcpy(copy, p, (size_t)length);
    value->as.text.data = copy;
    value->as.text.length = (size_t)length;
    return push(m, value);
}

static bool push_long(machine *m, size_t width)
{
    size_t start = m->at;
    uint64_t length = take_number(m, width);
    const uint8_t *p = m->status == TRN_OK ? take(m, length) : NULL;
    if (!p) return false;
    if (length > 8) {
        m->at = start;
        return push_bytes(m, TRN_PICKLE_BIGINT, width);
    }
    uint64_t number = length && p[length - 1] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = 0; i < length; i++)
        number = (number & ~((uint64_t)0xff << (8 * i))) | (uint64_t)p[i] << (8 * i);
    int64_t value;
    memcpy(&value, &number, sizeof value);
    return push_int(m, TRN_PICKLE_INT, value);
}

static bool push_float(machine *m)
{
    const uint8_t *p = take(m, 8);
    trn_pickle_value *value = p ? new_value(m, TRN_PICKLE_FLOAT) : NULL;
    if (!value) return false;
    uint64_t bits = 0;
    for (size_t i = 0; i < 8; i++)
        bits = bits << 8 | p[i];
    memcpy(&value->as.real, &bits, sizeof bits);
    return push(m, value);
}

static bool run_plain(machine *m, uint8_t op)
{
    switch (op) {
    case 'N':
        push(m, new_value(m, TRN_PICKLE_NONE));
        return true;
    case 0x88:
        push_int(m, TRN_PICKLE_BOOL, 1);
        return true;
    case 0x89:
        push_int(m, TRN_PICKLE_BOOL, 0);
        return true;
    case 'J': {
        int64_t number = (int64_t)take_number(m, 4);
        push_int(m, TRN_PICKLE_INT, number > INT32_MAX ? number - ((int64_t)1 << 32) : number);
        return true;
    }
    case 'K':
        push_int(m, TRN_PICKLE_INT, (int64_t)take_number(m, 1));
        return true;
    case 'M':
        push_int(m, TRN_PICKLE_INT, (int64_t)take_number(m, 2));
        return true;
    case 0x8a:
        push_long(m, 1);
        return true;
    case 0x8b:
        push_long(m, 4);
        return true;
    case 'G':
        push_float(m);
        return true;
    case 'X':
        push_bytes(m, TRN_PICKLE_TEXT, 4);
        return true;
    case 0x8c:
        push_bytes(m, TRN_PICKLE_TEXT, 1);
        return true;
    case 0x8d:
        push_bytes(m, TRN_PICKLE_TEXT, 8);
        return true;
    case 'T':
        push_bytes(m, TRN_PICKLE_TEXT, 4);
        return true;
    case 'U':
        push_bytes(m, TRN_PICKLE_TEXT, 1);
        return true;
    case 'B':
        push_bytes(m, TRN_PICKLE_BYTES, 4);
        return true;
    case 'C':
        push_bytes(m, TRN_PICKLE_BYTES, 1);
        return true;
    case 0x8e:
        push_bytes(m, TRN_PICKLE_BYTES, 8);
        return true;
    case 0x96:
        push_bytes(m, TRN_PICKLE_BYTES, 8);
        return true;
    default:
        return false;
    }
}

/* ---- opcodes: containers ---- */

static bool push_tuple(machine *m, size_t first)
{
    trn_pickle_value *tuple = new_value(m, TRN_PICKLE_TUPLE);
    return tuple && list_add_range(m, tuple, first) && push(m, tuple);
}

static bool push_small_tuple(machine *m, size_t count)
{
    if (m->stack_count - stack_floor(m) < count) return broken(m, "its stack is empty");
    return push_tuple(m, m->stack_count - count);
}

static bool push_marked(machine *m, trn_pickle_kind kind)
{
    size_t first = 0;
    if (!pop_mark(m, &first)) return false;
    if (kind == TRN_PICKLE_DICT && (m->stack_count - first) % 2) return broken(m, "a key has no value");
    trn_pickle_value *value = new_value(m, kind);
    return value && list_add_range(m, value, first) && push(m, value);
}

/* Items for a list, pairs for a dictionary. Objects take both and keep neither: what they mean is their
 * class's business, and no class is known here. */
static bool add_items(machine *m, size_t first, trn_pickle_kind kind)
{
    if (first <= stack_floor(m) || first > m->stack_count) return broken(m, "its stack is empty");
    trn_pickle_value *target = m->stack[first - 1];
    if (kind == TRN_PICKLE_DICT && (m->stack_count - first) % 2) return broken(m, "a key has no value");
    if (target->kind == TRN_PICKLE_OBJECT) {
        m->stack_count = first;
        return true;
    }
    if (target->kind != kind) return broken(m, "items are added to what cannot hold them");
    return list_add_range(m, target, first);
}

static bool add_marked(machine *m, trn_pickle_kind kind)
{
    size_t first = 0;
    return pop_mark(m, &first) && add_items(m, first, kind);
}

static bool add_last(machine *m, size_t count, trn_pickle_kind kind)
{
    if (m->stack_count < count) return broken(m, "its stack is empty");
    return add_items(m, m->stack_count - count, kind);
}

static bool run_containers(machine *m, uint8_t op)
{
    switch (op) {
    case '(':
        if (!trn_grow(&m->marks, &m->mark_capacity, m->mark_count + 1, sizeof(*m->marks)))
            no_memory(m);
        else
            m->marks[m->mark_count++] = m->stack_count;
        return true;
    case ')':
        push(m, new_value(m, TRN_PICKLE_TUPLE));
        return true;
    case ']':
        push(m, new_value(m, TRN_PICKLE_LIST));
        return true;
    case '}':
        push(m, new_value(m, TRN_PICKLE_DICT));
        return true;
    case 0x8f:
        push(m, new_value(m, TRN_PICKLE_LIST));
        return true; /* a set */
    case 0x91:
        push_marked(m, TRN_PICKLE_TUPLE);
        return true; /* a frozen set */
    case 't':
        push_marked(m, TRN_PICKLE_TUPLE);
        return true;
    case 'l':
        push_marked(m, TRN_PICKLE_LIST);
        return true;
    case 'd':
        push_marked(m, TRN_PICKLE_DICT);
        return true;
    case 0x85:
        push_small_tuple(m, 1);
        return true;
    case 0x86:
        push_small_tuple(m, 2);
        return true;
    case 0x87:
        push_small_tuple(m, 3);
        return true;
    case 'a':
        add_last(m, 1, TRN_PICKLE_LIST);
        return true;
    case 'e':
        add_marked(m, TRN_PICKLE_LIST);
        return true;
    case 0x90:
        add_marked(m, TRN_PICKLE_LIST);
        return true;
    case 's':
        add_last(m, 2, TRN_PICKLE_DICT);
        return true;
    case 'u':
        add_marked(m, TRN_PICKLE_DICT);
        return true;
    default:
        return false;
    }
}

/* ---- opcodes: names, objects ---- */

static char *take_line(machine *m)
{
    const uint8_t *start = m->data + m->at;
    const uint8_t *end = memchr(start, '\n', m->size - m->at);
    if (!end) {
        broken(m, "a name has no end");
        return NULL;
    }
    size_t length = (size_t)(end - start);
    char *line = trn_arena_alloc(m->out->arena, length + 1);
    if (!line) {
        no_memory(m);
        return NULL;
    }
    memcpy(line, start, length);
    m->at += length + 1;
    return line;
}

static bool push_global(machine *m, const char *module, const char *name)
{
    trn_pickle_value *value = module && name ? new_value(m, TRN_PICKLE_GLOBAL) : NULL;
    if (!value) return broken(m, "a global has no name");
    value->as.global.module = module;
    value->as.global.name = name;
    return push(m, value);
}

static bool is_dict_class(const trn_pickle_value *value)
{
    return trn_pickle_is_global(value, "collections", "OrderedDict") ||
           trn_pickle_is_global(value, "collections", "defaultdict") ||
           trn_pickle_is_global(value, "__builtin__", "dict") ||
           trn_pickle_is_global(value, "builtins", "dict");
}

static bool add_pairs(machine *m, trn_pickle_value *dict, const trn_pickle_value *pairs)
{
    for (size_t i = 0; i < pairs->as.list.count; i++) {
        const trn_pickle_value *pair = pairs->as.list.items[i];
        bool listed = pair->kind == TRN_PICKLE_LIST || pair->kind == TRN_PICKLE_TUPLE;
        if (!listed || pair->as.list.count != 2)
            return broken(m, "a dictionary is made of what are no pairs");
        if (!list_add(m, dict, pair->as.list.items[0]) || !list_add(m, dict, pair->as.list.items[1]))
            return false;
    }
    return true;
}

/* The one place that looks at what is called: dictionaries become dictionaries, the rest stays opaque. */
static bool push_object(machine *m, trn_pickle_value *callable, trn_pickle_value *args)
{
    if (!callable || !args) return false;
    bool dict = is_dict_class(callable);
    trn_pickle_value *value = new_value(m, dict ? TRN_PICKLE_DICT : TRN_PICKLE_OBJECT);
    if (!value) return false;
    if (!dict) {
        value->as.object.callable = callable;
        value->as.object.args = args;
    } else if (args->kind == TRN_PICKLE_TUPLE && args->as.list.count == 1 &&
               args->as.list.items[0]->kind == TRN_PICKLE_LIST) {
        if (!add_pairs(m, value, args->as.list.items[0])) return false;
    }
    return push(m, value);
}

static bool push_persid(machine *m)
{
    trn_pickle *out = m->out;
    trn_pickle_value *id = pop(m), *value = id ? new_value(m, TRN_PICKLE_PERSID) : NULL;
    if (!value) return false;
    value->as.persid = id;
    if (!trn_grow(&out->persids, &out->persid_capacity, out->persid_count + 1, sizeof(*out->persids)))
        return no_memory(m);
    out->persids[out->persid_count++] = value;
    return push(m, value);
}

static bool run_stack_global(machine *m)
{
    trn_pickle_value *name = pop(m), *module = pop(m);
    return push_global(m, trn_pickle_text(module), trn_pickle_text(name));
}

static bool run_objects(machine *m, uint8_t op)
{
    trn_pickle_value *args;
    switch (op) {
    case 'c': {
        char *module = take_line(m), *name = module ? take_line(m) : NULL;
        push_global(m, module, name);
        return true;
    }
    case 0x93:
        run_stack_global(m);
        return true;
    case 'R':
    case 0x81:
        args = pop(m);
        push_object(m, pop(m), args);
        return true;
    case 0x92: /* NEWOBJ_EX: class, args, keywords */
        pop(m);
        args = pop(m);
        push_object(m, pop(m), args);
        return true;
    case 'b': /* the state of an object (or the attributes of a dictionary) tells nothing about tensors */
        pop(m);
        top(m);
        return true;
    case 'Q':
        push_persid(m);
        return true;
    default:
        return false;
    }
}

/* ---- opcodes: memo, stack, frame ---- */

static bool memo_put(machine *m, uint64_t index)
{
    trn_pickle_value *value = m->status == TRN_OK ? top(m) : NULL;
    if (!value) return false;
    /* honest writers number from 0 on, so that an index beyond the bytes read so far is a lie about memory */
    if (index > m->at || index >= TRN_PICKLE_MAX_VALUES) return broken(m, "a memo number is too large");
    size_t need = (size_t)index + 1;
    if (need > m->memo_count) {
        if (!trn_grow(&m->memo, &m->memo_capacity, need, sizeof(*m->memo))) return no_memory(m);
        memset(m->memo + m->memo_count, 0, (need - m->memo_count) * sizeof(*m->memo));
        m->memo_count = need;
    }
    m->memo[index] = value;
    m->memoized++;
    return true;
}

static bool memo_get(machine *m, uint64_t index)
{
    if (m->status != TRN_OK) return false;
    if (index >= m->memo_count || !m->memo[index]) return broken(m, "it uses a memo that was never set");
    return push(m, m->memo[index]);
}

static bool run_stop(machine *m)
{
    m->out->root = pop(m);
    m->stopped = true;
    return m->out->root != NULL;
}

static bool run_memo(machine *m, uint8_t op)
{
    size_t first = 0;
    switch (op) {
    case 'q':
        memo_put(m, take_number(m, 1));
        return true;
    case 'r':
        memo_put(m, take_number(m, 4));
        return true;
    case 0x94:
        memo_put(m, m->memoized);
        return true;
    case 'h':
        memo_get(m, take_number(m, 1));
        return true;
    case 'j':
        memo_get(m, take_number(m, 4));
        return true;
    case '0':
        pop(m);
        return true;
    case '1':
        if (pop_mark(m, &first)) m->stack_count = first;
        return true;
    case '2':
        push(m, top(m));
        return true;
    case 0x80:
        if (take_number(m, 1) > 5) broken(m, "its protocol is newer than 5");
        return true;
    case 0x95:
        take(m, 8);
        return true; /* FRAME: only a hint for readers of streams */
    case '.':
        run_stop(m);
        return true;
    default:
        return false;
    }
}

static void run(machine *m)
{
    while (!m->stopped && m->status == TRN_OK) {
        const uint8_t *op = take(m, 1);
        if (!op) return;
        if (run_plain(m, *op) || run_containers(m, *op) || run_objects(m, *op) || run_memo(m, *op)) continue;
        if (m->status == TRN_OK)
            m->status = trn_fail(m->err, TRN_ERR_FORMAT, "pickle, byte %zu: no opcode 0x%02x is read here",
                                 m->at - 1, *op);
    }
}

/* ---- values that contain themselves ---- */

typedef struct visit {
    trn_pickle_value *value;
    size_t next;
} visit;

static trn_pickle_value *child(const trn_pickle_value *value, size_t i)
{
    switch (value->kind) {
    case TRN_PICKLE_TUPLE:
    case TRN_PICKLE_LIST:
    case TRN_PICKLE_DICT:
        return i < value->as.list.count ? value->as.list.items[i] : NULL;
    case TRN_PICKLE_OBJECT:
        return i == 0 ? value->as.object.callable : i == 1 ? value->as.object.args : NULL;
    case TRN_PICKLE_PERSID:
        return i == 0 ? value->as.persid : NULL;
    default:
        return NULL;
    }
}

/* Walks what root reaches, each value once; a value met again while it is open contains itself. */
static void refuse_cycles(machine *m, trn_pickle_value *root)
{
    enum { UNSEEN, OPEN, DONE };
    visit path[TRN_PICKLE_MAX_DEPTH];
    size_t depth = 0;
    if (root->mark == DONE) return;
    path[depth++] = (visit){root, 0};
    root->mark = OPEN;
    while (depth) {
        visit *here = &path[depth - 1];
        trn_pickle_value *next = child(here->value, here->next++);
        if (!next) {
            here->value->mark = DONE;
            depth--;
        } else if (next->mark == OPEN) {
            broken(m, "a value contains itself");
            return;
        } else if (next->mark == UNSEEN) {
            if (depth == TRN_COUNT(path)) {
                broken(m, "its values are nested too deeply");
                return;
            }
            next->mark = OPEN;
            path[depth++] = (visit){next, 0};
        }
    }
}

trn_status trn_pickle_parse(const uint8_t *data, size_t size, trn_pickle *out, size_t *consumed,
                            trn_error *err)
{
    *out = (trn_pickle){.arena = trn_arena_create()};
    machine m = {.data = data, .size = size, .out = out, .err = err};
    if (!out->arena) return trn_fail_memory(err, sizeof m, "a pickle");
    run(&m);
    if (m.status == TRN_OK) refuse_cycles(&m, out->root);
    for (size_t i = 0; m.status == TRN_OK && i < out->persid_count; i++)
        refuse_cycles(&m, out->persids[i]);
    free(m.stack);
    free(m.memo);
    free(m.marks);
    if (consumed) *consumed = m.at;
    return m.status;
}

void trn_pickle_free(trn_pickle *pickle)
{
    trn_arena_destroy(pickle->arena);
    free(pickle->persids);
    *pickle = (trn_pickle){0};
}

/* ---- looking at values ---- */

bool trn_pickle_is_global(const trn_pickle_value *value, const char *module, const char *name)
{
    return value && value->kind == TRN_PICKLE_GLOBAL && !strcmp(value->as.global.module, module) &&
           !strcmp(value->as.global.name, name);
}

const char *trn_pickle_text(const trn_pickle_value *value)
{
    if (!value || value->kind != TRN_PICKLE_TEXT || strlen(value->as.text.data) != value->as.text.length)
        return NULL;
    return value->as.text.data;
}

const trn_pickle_value *trn_pickle_get(const trn_pickle_value *dict, const char *key)
{
    if (!dict || dict->kind != TRN_PICKLE_DICT) return NULL;
    for (size_t i = dict->as.list.count; i >= 2; i -= 2) {
        const char *text = trn_pickle_text(dict->as.list.items[i - 2]);
        if (text && !strcmp(text, key)) return dict->as.list.items[i - 1];
    }
    return NULL;
}
