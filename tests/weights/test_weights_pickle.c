/* The pickle machine: what it builds, and what it refuses. */
#include "bytes.h"

static trn_status parse(const void *data, size_t size, trn_pickle *out, trn_error *err)
{
    uint8_t *copy = exact_copy(data, size);
    size_t consumed;
    trn_status status = trn_pickle_parse(copy, size, out, &consumed, err);
    assert_true(consumed <= size);
    if (status == TRN_OK) assert_non_null(out->root);
    free(copy); /* values must not point into it */
    return status;
}

static trn_pickle parse_ok(const void *data, size_t size)
{
    trn_pickle pickle;
    trn_error err = {0};
    assert_trn_ok(parse(data, size, &pickle, &err), err);
    return pickle;
}

/* For literals that hold NULs. */
#define PARSE(literal) parse_ok((literal), sizeof(literal) - 1)

static void refuse(const void *data, size_t size, const char *text)
{
    trn_pickle pickle;
    trn_error err = {0};
    trn_status status = parse(data, size, &pickle, &err);
    assert_trn_fails(status, TRN_ERR_FORMAT, err, text);
    trn_pickle_free(&pickle);
}

#define REFUSE(literal, text) refuse((literal), sizeof(literal) - 1, (text))

static void numbers(void **state)
{
    (void)state;
    trn_pickle p =
        PARSE("\x80\x02(NK\xffM\xff\xffJ\xff\xff\xff\xff\x8a\x00\x8a\x01\x80\x8a\x02\x80\x00"
              "\x8a\x09\x01\x02\x03\x04\x05\x06\x07\x08\x09\x88\x89G\x3f\xf8\x00\x00\x00\x00\x00\x00t.");
    trn_pickle_value **items = p.root->as.list.items;
    static const int64_t wanted[] = {255, 65535, -1, 0, -128, 128};
    assert_int_equal(p.root->as.list.count, 11);
    assert_int_equal(items[0]->kind, TRN_PICKLE_NONE);
    for (size_t i = 0; i < TRN_COUNT(wanted); i++) {
        assert_int_equal(items[i + 1]->kind, TRN_PICKLE_INT);
        assert_int_equal(items[i + 1]->as.integer, wanted[i]);
    }
    assert_int_equal(items[7]->kind, TRN_PICKLE_BIGINT);
    assert_int_equal(items[7]->as.text.length, 9);
    assert_int_equal(items[8]->as.integer, 1);
    assert_int_equal(items[9]->kind, TRN_PICKLE_BOOL);
    assert_true(items[10]->as.real == 1.5);
    trn_pickle_free(&p);
}

static void containers(void **state)
{
    (void)state;
    trn_pickle p = PARSE("\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01"
                         "a\x94]\x94(K\x01K\x02"
                         "eh\x01K\x03\x85"
                         "X\x01\x00\x00\x00"
                         "bccollections\nOrderedDict\n]((h\x01K\x07teR\x85"
                         "u.");
    const trn_pickle_value *a = trn_pickle_get(p.root, "a"), *b = trn_pickle_get(p.root, "b");
    assert_int_equal(a->kind, TRN_PICKLE_TUPLE); /* the later of two 'a' */
    assert_int_equal(a->as.list.items[0]->as.integer, 3);
    assert_int_equal(b->as.list.items[0]->kind, TRN_PICKLE_DICT);
    assert_null(trn_pickle_get(p.root, "c"));
    trn_pickle_free(&p);
}

static void classes_stay_opaque(void **state)
{
    (void)state;
    trn_pickle p = PARSE("\x80\x02"
                         "cos\nsystem\n(X\x04\x00\x00\x00"
                         "true"
                         "tRq\x00}X\x01\x00\x00\x00"
                         "aK\x01sbK\x01K\x02s.");
    assert_int_equal(p.root->kind, TRN_PICKLE_OBJECT);
    assert_true(trn_pickle_is_global(p.root->as.object.callable, "os", "system"));
    assert_false(trn_pickle_is_global(p.root->as.object.callable, "os", "syste"));
    trn_pickle_free(&p);
    p = PARSE("\x80\x04\x8c\x02os\x8c\x06system\x93)}\x92.");
    assert_true(trn_pickle_is_global(p.root->as.object.callable, "os", "system"));
    trn_pickle_free(&p);
    p = PARSE("\x80\x02(X\x01\x00\x00\x00"
              "aQNt.");
    assert_int_equal(p.persid_count, 1);
    trn_pickle_free(&p);
}

static void texts_with_nul_are_no_names(void **state)
{
    (void)state;
    trn_pickle p = PARSE("\x80\x02X\x03\x00\x00\x00"
                         "a\x00"
                         "b.");
    assert_int_equal(p.root->as.text.length, 3);
    assert_null(trn_pickle_text(p.root));
    trn_pickle_free(&p);
}

static void truncation(void **state)
{
    (void)state;
    static const char whole[] = "\x80\x02}q\x00(X\x01\x00\x00\x00"
                                "aK\x01X\x01\x00\x00\x00"
                                "bG\x00\x00\x00\x00\x00\x00\x00\x00u.";
    trn_pickle p = PARSE(whole);
    trn_pickle_free(&p);
    for (size_t n = 0; n < sizeof whole - 1; n++)
        refuse(whole, n, "cut off");
}

static void lies(void **state)
{
    (void)state;
    REFUSE("\x80\x02X\xff\xff\xff\xff"
           "a.",
           "cut off");
    REFUSE("\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff"
           "a.",
           "cut off");
    REFUSE("\x80\x02\x8b\xff\xff\xff\xff.", "cut off");
    REFUSE("\x80\x02Nr\xff\xff\xff\xff.", "memo number is too large");
    REFUSE("\x80\x02Nq\xff.", "memo number is too large");
    REFUSE("\x80\x02h\x00.", "memo that was never set");
    REFUSE("\x80\x02Nq\x02h\x01\x86.", "memo that was never set");
    REFUSE("\x80\x02.", "stack is empty");
    REFUSE("\x80\x02N(.", "stack is empty"); /* a mark hides what is below */
    REFUSE("\x80\x02N\x86.", "stack is empty");
    REFUSE("\x80\x02t.", "mark is missing");
    REFUSE("\x80\x02u.", "mark is missing");
    REFUSE("\x80\x02(u.", "stack is empty");
    REFUSE("\x80\x02}(Nu.", "key has no value");
    REFUSE("\x80\x02}(Nd.", "key has no value");
    REFUSE("\x80\x02]NNs.", "cannot hold");
    REFUSE("\x80\x02)Na.", "cannot hold");
    REFUSE("\x80\x02}Na.", "cannot hold");
    REFUSE("\x80\x02Q.", "stack is empty");
    REFUSE("\x80\x02R.", "stack is empty");
    REFUSE("\x80\x02"
           "cos\nsystem",
           "no end");
    REFUSE("\x80\x04NN\x93.", "no name");
    REFUSE("\x80\x02"
           "ccollections\nOrderedDict\n]Na\x85R.",
           "no pairs");
    REFUSE("\x80\x06N.", "protocol is newer");
    REFUSE("\x80\x02I1\n.", "no opcode 0x49");
    REFUSE("\x80\x02i.", "no opcode 0x69");
    REFUSE("\xff", "no opcode 0xff");
}

static void cycles(void **state)
{
    (void)state;
    REFUSE("\x80\x02]q\x00h\x00"
           "a.",
           "contains itself");
    REFUSE("\x80\x02}q\x00Nh\x00s.", "contains itself");
    REFUSE("\x80\x02]q\x00h\x00\x85q\x01"
           "a.",
           "contains itself");
    REFUSE("\x80\x02]q\x00(h\x00tQ0h\x00h\x00"
           "a.",
           "contains itself");
    /* the same value twice is none */
    trn_pickle p = PARSE("\x80\x02]q\x00(]q\x01h\x01h\x01"
                         "e.");
    assert_ptr_equal(p.root->as.list.items[0], p.root->as.list.items[2]);
    trn_pickle_free(&p);
}

static void depth(void **state)
{
    (void)state;
    for (size_t deep = TRN_PICKLE_MAX_DEPTH - 1; deep <= 1000000; deep = deep < 1000 ? deep + 1 : deep * 31) {
        trn_text text = {0};
        trn_text_add(&text, "\x80\x02N");
        for (size_t i = 0; i < deep; i++)
            trn_text_add(&text, "\x85");
        trn_text_add(&text, ".");
        if (deep < TRN_PICKLE_MAX_DEPTH) {
            trn_pickle p = parse_ok(text.data, text.length);
            trn_pickle_free(&p);
        } else {
            refuse(text.data, text.length, "nested too deeply");
        }
        trn_text_free(&text);
    }
}

/* Doubling: 2^64 paths, but few values. */
static void shared_values_are_walked_once(void **state)
{
    (void)state;
    trn_text text = {0};
    trn_text_add(&text, "\x80\x02N");
    for (int i = 0; i < 64; i++)
        trn_text_add(&text, "2\x86");
    trn_text_add(&text, ".");
    trn_pickle p = parse_ok(text.data, text.length);
    trn_pickle_free(&p);
    trn_text_free(&text);
}

static void values_are_limited(void **state)
{
    (void)state;
    size_t n = (size_t)TRN_PICKLE_MAX_VALUES + 2;
    uint8_t *bytes = malloc(n);
    assert_non_null(bytes);
    memset(bytes, 'N', n);
    refuse(bytes, n, "too many values");
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers),
        cmocka_unit_test(containers),
        cmocka_unit_test(classes_stay_opaque),
        cmocka_unit_test(texts_with_nul_are_no_names),
        cmocka_unit_test(truncation),
        cmocka_unit_test(lies),
        cmocka_unit_test(cycles),
        cmocka_unit_test(depth),
        cmocka_unit_test(shared_values_are_walked_once),
        cmocka_unit_test(values_are_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
