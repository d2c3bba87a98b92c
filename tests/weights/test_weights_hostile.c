/* Files that are cut off, damaged, or made to harm: every one is refused, or read within its bounds. */
#include "bytes.h"

#include <zip.h>

static const char *const small_files[] = {"loader/torture_zip.pt", "loader/torture_legacy.pt",
                                          "loader/nested_zip.pt", "loader/with_namespace.pt",
                                          "loader/torture.safetensors"};

/* ---- damage at random ---- */

static void truncation_at_every_byte(void **state)
{
    (void)state;
    for (size_t f = 0; f < TRN_COUNT(small_files); f++) {
        size_t size;
        char *file = read_golden(small_files[f], &size);
        for (size_t n = 0; n < size; n++) {
            opened o = open_bytes(file, n, NULL);
            if (o.status == TRN_OK) fail_msg("%s opens with %zu of %zu bytes", small_files[f], n, size);
            assert_true(strlen(o.err.message) > 10);
            close_bytes(&o);
        }
        free(file);
    }
}

/* xorshift: the same mutations on every machine */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void mutate(char *bytes, size_t size, uint64_t *seed)
{
    size_t changes = 1 + next_random(seed) % 4;
    for (size_t i = 0; i < changes; i++) {
        size_t at = next_random(seed) % size;
        uint64_t r = next_random(seed);
        switch (r % 4) {
        case 0:
            bytes[at] = (char)(bytes[at] ^ (1 << (r >> 8) % 8));
            break;
        case 1:
            bytes[at] = (char)(r >> 8);
            break;
        case 2:
            bytes[at] = (char)0xff;
            break;
        default:
            memmove(bytes + at, bytes + next_random(seed) % (size - at) + at, 1);
            break;
        }
    }
}

static void mutations(void **state)
{
    (void)state;
    for (size_t f = 0; f < TRN_COUNT(small_files); f++) {
        size_t size, opening = 0, tensors = 0;
        char *file = read_golden(small_files[f], &size), *copy = malloc(size);
        assert_non_null(copy);
        uint64_t seed = 0x9e3779b97f4a7c15ull + f;
        for (int round = 0; round < 4000; round++) {
            memcpy(copy, file, size);
            mutate(copy, size, &seed);
            opened o = open_bytes(copy, size, NULL);
            if (o.status == TRN_OK) {
                opening++;
                tensors += read_all(o.weights, 1 << 16);
            }
            close_bytes(&o);
        }
        printf("%s: %zu of 4000 mutations open, %zu tensors read\n", small_files[f], opening, tensors);
        assert_true(opening > 0 && opening < 4000);
        free(copy);
        free(file);
    }
}

/* ---- safetensors ---- */

static trn_text make_safetensors(const char *header, size_t data)
{
    trn_text file = {0};
    add_i64(&file, (int64_t)strlen(header));
    trn_text_add(&file, header);
    for (size_t i = 0; i < data; i++)
        trn_text_add_n(&file, "\0", 1);
    return file;
}

#define TENSOR(dtype, shape, range) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" range "}"
#define DEEP8 "[[[[[[[["
#define DEEP64 DEEP8 DEEP8 DEEP8 DEEP8 DEEP8 DEEP8 DEEP8 DEEP8

static void safetensors_headers(void **state)
{
    (void)state;
    static const struct {
        const char *header, *text; /* text NULL: it opens */
    } cases[] = {
        {"{}", NULL},
        {"{\"a\":" TENSOR("F32", "[2]", "[0,8]") "}    ", NULL},
        {"{\"a\":" TENSOR("F32", "[1]", "[12,16]") ",\"b\":" TENSOR("F32", "[1]", "[0,4]") "}",
         NULL}, /* a hole */
        {"{\"a\":" TENSOR("F32", "[0]", "[4,4]") ",\"b\":" TENSOR("F32", "[4]", "[0,16]") "}", NULL},
        {"{\"a\":" TENSOR("F8_E4M3", "[4]", "[0,4]") "}", NULL},
        {"{\"a\":" TENSOR("F32", "[2]", "[0,8]") "} x", "no JSON object"},
        {"{\"a\":" TENSOR("F32", "[2]", "[0,8]"), "no JSON object"},
        {"{\"a\":1}", "'a' of the header is no object"},
        {"{\"a\":{}}", "unknown dtype '(none)'"},
        {"{\"a\":" TENSOR("F31", "[2]", "[0,8]") "}", "unknown dtype 'F31'"},
        {"{\"a\":" TENSOR("F32", "2", "[0,8]") "}", "no list as shape"},
        {"{\"a\":" TENSOR("F32", "[2.5]", "[0,8]") "}", "no whole numbers"},
        {"{\"a\":" TENSOR("F32", "[-2]", "[0,8]") "}", "no whole numbers"},
        {"{\"a\":" TENSOR("F32", "[1e400]", "[0,8]") "}", "no whole numbers"},
        {"{\"a\":" TENSOR("F32", "[\"2\"]", "[0,8]") "}", "no whole numbers"},
        {"{\"a\":" TENSOR("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]") "}", "more than 8 dimensions"},
        {"{\"a\":" TENSOR("F32", "[4294967296,4294967296]", "[0,0]") "}", "impossible shape"},
        {"{\"a\":" TENSOR("F32", "[3037000500,3037000500,2]", "[0,8]") "}", "impossible shape"},
        {"{\"a\":" TENSOR("F64", "[1099511627776]", "[0,0]") "}", "takes 8796093022208 bytes"},
        {"{\"a\":" TENSOR("F32", "[3]", "[0,8]") "}", "takes 12 bytes, but is given 8"},
        {"{\"a\":" TENSOR("F32", "[2]", "[8,0]") "}", "but there are 16 bytes of data"},
        {"{\"a\":" TENSOR("F32", "[2]", "[12,20]") "}", "but there are 16 bytes of data"},
        {"{\"a\":" TENSOR("F32", "[2]", "[9007199254740984,9007199254740991]") "}", "but there are 16 bytes"},
        {"{\"a\":" TENSOR("F32", "[2]", "[18446744073709551608,18446744073709551616]") "}",
         "no [begin, end]"},
        {"{\"a\":" TENSOR("F32", "[2]", "[0]") "}", "no [begin, end]"},
        {"{\"a\":" TENSOR("F32", "[2]", "[0,8,16]") "}", "no [begin, end]"},
        {"{\"a\":" TENSOR("F32", "[2]", "{\"x\":0,\"y\":8}") "}", "no [begin, end]"},
        {"{\"a\":" TENSOR("F32", "[2]", "[0,8]") ",\"b\":" TENSOR("F32", "[2]", "[4,12]") "}",
         "'a' and 'b' overlap"},
        {"{\"a\":" TENSOR("F32", "[4]", "[0,16]") ",\"b\":" TENSOR("F32", "[1]", "[4,8]") "}",
         "'a' and 'b' overlap"},
        {"{\"a\":" TENSOR("F32", "[2]", "[0,8]") ",\"a\":" TENSOR("F32", "[2]", "[8,16]") "}",
         "'a' is there twice"},
        {"{\"a\\u0000b\":" TENSOR("F32", "[2]", "[0,8]") "}", "NUL"},
        {"{\"\\u001b[2J\":" TENSOR("F32", "[2]", "[0,8]") "}", "control characters"},
        {"{\"\":" TENSOR("F32", "[2]", "[0,8]") "}", "a name that is empty"},
        {"{\"a\":" DEEP64 DEEP64 DEEP64 DEEP64 DEEP64 DEEP64 DEEP64 DEEP64 DEEP64 DEEP64 DEEP64 DEEP64 DEEP64
             DEEP64 DEEP64 DEEP64,
         "no JSON object"},
    };
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        trn_text file = make_safetensors(cases[i].header, 16);
        opened o = open_bytes(file.data, file.length, NULL);
        if (!cases[i].text && o.status != TRN_OK) fail_msg("%s: %s", cases[i].header, o.err.message);
        if (cases[i].text && (o.status == TRN_OK || !strstr(o.err.message, cases[i].text)))
            fail_msg("%s: wanted '%s', got %s", cases[i].header, cases[i].text, o.err.message);
        if (o.status == TRN_OK) read_all(o.weights, 16);
        close_bytes(&o);
        trn_text_free(&file);
    }
}

static void safetensors_lengths(void **state)
{
    (void)state;
    static const int64_t lies[] = {0, 1, 30, 1000, (int64_t)1 << 32, (int64_t)1 << 39, INT64_MAX, -1};
    for (size_t i = 0; i < TRN_COUNT(lies); i++) {
        trn_text file = make_safetensors("{\"a\":" TENSOR("F32", "[2]", "[0,8]") "}", 8);
        memcpy(file.data, &lies[i], sizeof lies[i]);
        opened o = open_bytes(file.data, file.length, NULL);
        if (o.status == TRN_OK) fail_msg("a header of %lld bytes is believed", (long long)lies[i]);
        close_bytes(&o);
        trn_text_free(&file);
    }
    trn_text file = make_safetensors("{}", 0);
    expect_open(&file, &(trn_weights_options){.wrapper = "model"}, TRN_ERR_ARGUMENT, "has no wrapper");
    trn_text_free(&file);
}

static void types_that_cannot_be_read(void **state)
{
    (void)state;
    trn_text file = make_safetensors("{\"a\":" TENSOR("F8_E5M2", "[4]", "[0,4]") "}", 4);
    opened o = open_bytes(file.data, file.length, NULL);
    assert_trn_ok(o.status, o.err);
    float values[4];
    assert_trn_fails(trn_weights_read(o.weights, "a", (int64_t[]){4}, 1, values, &o.err), TRN_ERR_UNSUPPORTED,
                     o.err, "8-bit floats");
    close_bytes(&o);
    trn_text_free(&file);
}

static void all_types_convert(void **state)
{
    (void)state;
    static const struct {
        const char *dtype;
        size_t size;
        uint8_t bytes[8];
        float wanted;
    } cases[] = {
        {"F32", 4, {0, 0, 0xc0, 0x3f}, 1.5f},
        {"F16", 2, {0, 0x3e}, 1.5f},
        {"BF16", 2, {0xc0, 0x3f}, 1.5f},
        {"F64", 8, {0, 0, 0, 0, 0, 0, 0xf8, 0x3f}, 1.5f},
        {"I64", 8, {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, -2},
        {"I32", 4, {0xfe, 0xff, 0xff, 0xff}, -2},
        {"I16", 2, {0xfe, 0xff}, -2},
        {"I8", 1, {0xfe}, -2},
        {"U8", 1, {0xfe}, 254},
        {"U16", 2, {0xfe, 0xff}, 65534},
        {"U32", 4, {0, 0, 0, 0x80}, 2147483648.0f},
        {"U64", 8, {0, 0, 0, 0, 0, 0, 0, 0x80}, 9223372036854775808.0f},
        {"BOOL", 1, {2}, 1},
    };
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        char header[128];
        float value;
        snprintf(header, sizeof header, "{\"a\":{\"dtype\":\"%s\",\"shape\":[],\"data_offsets\":[1,%zu]}}",
                 cases[i].dtype, cases[i].size + 1); /* not aligned */
        trn_text file = make_safetensors(header, cases[i].size + 1);
        memcpy(file.data + file.length - cases[i].size, cases[i].bytes, cases[i].size);
        opened o = open_bytes(file.data, file.length, NULL);
        assert_trn_ok(o.status, o.err);
        assert_trn_ok(trn_weights_read(o.weights, "a", NULL, 0, &value, &o.err), o.err);
        if (value != cases[i].wanted) fail_msg("%s: %g", cases[i].dtype, (double)value);
        close_bytes(&o);
        trn_text_free(&file);
    }
}

/* ---- tensors of PyTorch ---- */

static trn_text make_legacy(const char *name, const pickled_tensor *tensor)
{
    trn_text file = {0};
    legacy_begin(&file);
    trn_text_add(&file, "}");
    pickle_text(&file, name);
    pickle_tensor(&file, tensor);
    trn_text_add(&file, "s");
    legacy_end(&file);
    return file;
}

static void torch_lies(void **state)
{
    (void)state;
    static const struct {
        pickled_tensor tensor;
        const char *text;
    } cases[] = {
        {{"FloatStorage", "0", 4, 0, 2, {2, 2}, {1, 2}}, NULL},
        {{"FloatStorage", "0", 4, 3, 3, {1, 0, 5}, {100, 100, 100}}, NULL}, /* empty */
        {{"FloatStorage", "0", 4, 3, 2, {1000, 1}, {0, 77}}, NULL},         /* expanded */
        {{"FloatStorage", "0", 4, 1, 1, {4}, {1}}, "reaches beyond"},
        {{"FloatStorage", "0", 4, 0, 2, {2, 2}, {3, 1}}, "reaches beyond"},
        {{"FloatStorage", "0", 4, 0, 2, {2, 2}, {INT64_MAX, INT64_MAX}}, "reaches beyond"},
        {{"FloatStorage", "0", 4, 0, 1, {2}, {-1}}, "reaches beyond"},
        {{"FloatStorage", "0", 4, 4, 0, {0}, {0}}, "reaches beyond"},
        {{"FloatStorage", "0", 4, INT64_MAX, 1, {1}, {1}}, "reaches beyond"},
        {{"FloatStorage", "0", 4, -1, 1, {1}, {1}}, "offset"},
        {{"FloatStorage", "0", 4, 0, 1, {-1}, {1}}, "impossible shape"},
        {{"FloatStorage", "0", 4, 0, 2, {(int64_t)1 << 39, 4}, {0, 0}}, "impossible shape"},
        {{"FloatStorage", "0", 4, 0, 9, {1, 1, 1, 1, 1, 1, 1, 1, 1}, {1}}, "more than 8 dimensions"},
        {{"FloatStorage", "0", 5, 0, 1, {4}, {1}}, "should have 5 elements, but has 4"},
        {{"FloatStorage", "0", INT64_MAX, 0, 1, {4}, {1}}, "impossible size"},
        {{"FloatStorage", "0", -4, 0, 1, {4}, {1}}, "impossible size"},
        {{"DoubleStorage", "0", 4, 0, 1, {4}, {1}}, "cut off"},
        {{"WeirdStorage", "0", 4, 0, 1, {4}, {1}}, "class that is not known"},
        {{"FloatStorage", "1", 4, 0, 1, {4}, {1}}, "listed, but no tensor"},
        {{"FloatStorage", "../x y", 4, 0, 1, {4}, {1}}, "names no storage"},
    };
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        trn_text file = make_legacy("w", &cases[i].tensor);
        opened o = open_bytes(file.data, file.length, NULL);
        if (!cases[i].text && o.status != TRN_OK) fail_msg("case %zu: %s", i, o.err.message);
        if (cases[i].text && (o.status == TRN_OK || !strstr(o.err.message, cases[i].text)))
            fail_msg("case %zu: wanted '%s', got %s", i, cases[i].text, o.err.message);
        if (o.status == TRN_OK) assert_int_equal(read_all(o.weights, 1000), 1);
        close_bytes(&o);
        trn_text_free(&file);
    }
}

static void names_from_pickles(void **state)
{
    (void)state;
    pickled_tensor tensor = {"FloatStorage", "0", 4, 0, 1, {4}, {1}};
    char longest[600];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = 0;
    trn_text file = make_legacy(longest, &tensor);
    expect_open(&file, NULL, TRN_ERR_FORMAT, "longer than 512");
    trn_text_free(&file);
    file = make_legacy("a\nb", &tensor);
    expect_open(&file, NULL, TRN_ERR_FORMAT, "control characters");
    trn_text_free(&file);
}

/* A dictionary of dictionaries of ... : 40 entries each, the same ones, six deep. The search must end. */
static void searches_are_bounded(void **state)
{
    (void)state;
    trn_text file = {0};
    legacy_begin(&file);
    trn_text_add_n(&file, "}q\x00", 3);
    for (char level = 0; level < 8; level++) {
        trn_text_add(&file, "}(");
        for (int i = 0; i < 40; i++) {
            char key[16];
            snprintf(key, sizeof key, "k%d", i);
            pickle_text(&file, key);
            trn_text_add_n(&file, (const char[]){'h', level}, 2);
        }
        trn_text_add_n(&file, (const char[]){'u', 'q', (char)(level + 1)}, 3);
    }
    legacy_end_empty(&file);
    uint64_t start = trn_now_ns();
    opened o = open_bytes(file.data, file.length, NULL);
    assert_int_not_equal(o.status, TRN_OK);
    assert_non_null(strstr(o.err.message, "set wrapper"));
    assert_true(trn_now_ns() - start < 20000000000ull);
    close_bytes(&o);
    trn_text_free(&file);
}

/* ---- zip archives ---- */

typedef struct member {
    const char *name;
    const void *data;
    size_t size;
    bool deflated;
} member;

static char *make_zip(const member *members, size_t count, size_t *size)
{
    char *path = test_path(test_temp_dir(), "c.pt");
    int code;
    zip_t *zip = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &code);
    assert_non_null(zip);
    for (size_t i = 0; i < count; i++) {
        zip_source_t *source = zip_source_buffer(zip, members[i].data, members[i].size, 0);
        zip_int64_t at = zip_file_add(zip, members[i].name, source, 0);
        assert_true(at >= 0);
        zip_int32_t method = members[i].deflated ? ZIP_CM_DEFLATE : ZIP_CM_STORE;
        assert_int_equal(zip_set_file_compression(zip, (zip_uint64_t)at, method, 9), 0);
    }
    assert_int_equal(zip_close(zip), 0);
    trn_error err = {0};
    char *file = trn_read_file(path, 1 << 26, size, &err);
    assert_non_null(file);
    free(path);
    return file;
}

static trn_text one_tensor_pickle(const pickled_tensor *tensor)
{
    trn_text pickle = {0};
    trn_text_add(&pickle, "\x80\x02}");
    pickle_text(&pickle, "w");
    pickle_tensor(&pickle, tensor);
    trn_text_add(&pickle, "s.");
    return pickle;
}

enum { BIG = 100000 };

static float *counting(void)
{
    float *values = malloc(BIG * sizeof *values);
    assert_non_null(values);
    for (int i = 0; i < BIG; i++)
        values[i] = (float)i;
    return values;
}

/* A member read from the middle, with strides, stored and deflated; longer than the staging buffer. */
static void zip_members_stream(void **state)
{
    (void)state;
    static const pickled_tensor tensors[] = {
        {"FloatStorage", "0", BIG, 0, 1, {BIG}, {1}},
        {"FloatStorage", "0", BIG, 50001, 1, {40000}, {1}},
        {"FloatStorage", "0", BIG, 70001, 2, {100, 200}, {1, 100}},
        {"FloatStorage", "0", BIG, 5, 3, {2, 3, 4}, {40000, 0, 7}},
    };
    float *values = counting(), *out = malloc(BIG * sizeof *out);
    for (size_t i = 0; i < 2 * TRN_COUNT(tensors); i++) {
        const pickled_tensor *t = &tensors[i / 2];
        trn_text pickle = one_tensor_pickle(t);
        const member members[] = {{"r/data.pkl", pickle.data, pickle.length, i % 2},
                                  {"r/byteorder", "little", 6, false},
                                  {"r/data/0", values, BIG * sizeof *values, i % 2}};
        size_t size;
        char *file = make_zip(members, 3, &size);
        opened o = open_bytes(file, size, NULL);
        assert_trn_ok(o.status, o.err);
        assert_trn_ok(trn_weights_read(o.weights, "w", t->shape, t->ndim, out, &o.err), o.err);
        int64_t n1 = t->ndim > 1 ? t->shape[1] : 1, n2 = t->ndim > 2 ? t->shape[2] : 1, at = 0;
        for (int64_t a = 0; a < t->shape[0]; a++)
            for (int64_t b = 0; b < n1; b++)
                for (int64_t c = 0; c < n2; c++, at++)
                    if (out[at] !=
                        (float)(t->offset + a * t->stride[0] + b * t->stride[1] + c * t->stride[2]))
                        fail_msg("case %zu, element %lld is %g", i, (long long)at, (double)out[at]);
        close_bytes(&o);
        free(file);
        trn_text_free(&pickle);
    }
    free(values);
    free(out);
}

static void expect_zip(const member *members, size_t count, trn_status status, const char *text)
{
    size_t size;
    char *file = make_zip(members, count, &size);
    opened o = open_bytes(file, size, NULL);
    assert_trn_fails(o.status, status, o.err, text);
    close_bytes(&o);
    free(file);
}

static void zip_lies(void **state)
{
    (void)state;
    static const float four[4] = {1, 2, 3, 4};
    pickled_tensor tensor = {"FloatStorage", "0", 4, 0, 1, {4}, {1}}, more = tensor;
    more.numel = 5;
    trn_text good = one_tensor_pickle(&tensor), lying = one_tensor_pickle(&more);
    const member pickle = {"r/data.pkl", good.data, good.length, false}, data = {"r/data/0", four, 16, false};
    expect_zip((member[]){{"r/other", "x", 1, false}}, 1, TRN_ERR_UNSUPPORTED, "without a member data.pkl");
    expect_zip((member[]){pickle}, 1, TRN_ERR_FORMAT, "storage '0', is not in the archive");
    expect_zip((member[]){pickle, {"q/data.pkl", "N.", 2, false}, data}, 3, TRN_ERR_FORMAT, "two members");
    expect_zip((member[]){pickle, data, {"r/byteorder", "big", 3, false}}, 3, TRN_ERR_UNSUPPORTED,
               "big-endian");
    expect_zip((member[]){{"r/data.pkl", lying.data, lying.length, false}, data}, 2, TRN_ERR_FORMAT,
               "should have 20 bytes, but has 16");
    expect_zip((member[]){{"r/data.pkl", good.data, good.length - 1, false}, data}, 2, TRN_ERR_FORMAT,
               "cut off");
    trn_text_free(&good);
    trn_text_free(&lying);
}

/* The last place where `needle` is in the file: of names, the one in the central directory. */
static char *find_last(char *file, size_t size, const char *needle)
{
    char *found = NULL;
    for (size_t i = 0; i + strlen(needle) <= size; i++)
        if (!memcmp(file + i, needle, strlen(needle))) found = file + i;
    assert_non_null(found);
    return found;
}

static void damaged_data_is_found_by_its_checksum(void **state)
{
    (void)state;
    pickled_tensor tensor = {"FloatStorage", "0", BIG, 0, 1, {BIG}, {1}};
    trn_text pickle = one_tensor_pickle(&tensor);
    float *values = counting();
    const member members[] = {{"r/data.pkl", pickle.data, pickle.length, false},
                              {"r/data/0", values, BIG * sizeof *values, false}};
    size_t size;
    char *file = make_zip(members, 2, &size);
    file[size / 2] ^= 4;
    opened o = open_bytes(file, size, NULL);
    assert_trn_ok(o.status, o.err);
    assert_trn_fails(trn_weights_read(o.weights, "w", tensor.shape, 1, values, &o.err), TRN_ERR_FORMAT, o.err,
                     "the file is damaged");
    assert_non_null(strstr(o.err.message, "tensor 'w'"));
    close_bytes(&o);
    free(file);
    free(values);
    trn_text_free(&pickle);
}

/* Sizes in the central directory that nothing could unpack to, or that go beyond the file. */
static void zip_bombs(void **state)
{
    (void)state;
    static const float four[4] = {1, 2, 3, 4};
    pickled_tensor tensor = {"FloatStorage", "0", (int64_t)0x3fffff00, 0, 1, {4}, {1}};
    trn_text pickle = one_tensor_pickle(&tensor);
    const member members[] = {{"r/data.pkl", pickle.data, pickle.length, false},
                              {"r/data/0", four, 16, true}};
    size_t size;
    char *file = make_zip(members, 2, &size);
    /* a record of the central directory: compressed size at 20, size at 24, name at 46 */
    char *record = find_last(file, size, "r/data/0") - 46;
    assert_memory_equal(record, "PK\x01\x02", 4);
    memcpy(record + 24, "\x00\xff\xff\xff", 4);
    opened o = open_bytes(file, size, NULL);
    assert_trn_fails(o.status, TRN_ERR_FORMAT, o.err, "which nothing does");
    close_bytes(&o);
    memcpy(record + 20, "\x00\xff\xff\xff", 4);
    o = open_bytes(file, size, NULL);
    assert_int_not_equal(o.status, TRN_OK);
    close_bytes(&o);
    free(file);
    trn_text_free(&pickle);
}

static void a_pickle_that_unpacks_to_too_much(void **state)
{
    (void)state;
    size_t n = (size_t)65 << 20, size;
    char *zeros = calloc(n, 1);
    assert_non_null(zeros);
    char *file = make_zip((member[]){{"r/data.pkl", zeros, n, true}}, 1, &size);
    assert_true(size < 200000);
    opened o = open_bytes(file, size, NULL);
    assert_trn_fails(o.status, TRN_ERR_UNSUPPORTED, o.err, "larger than the");
    close_bytes(&o);
    free(file);
    free(zeros);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(truncation_at_every_byte),
        cmocka_unit_test(mutations),
        cmocka_unit_test(safetensors_headers),
        cmocka_unit_test(safetensors_lengths),
        cmocka_unit_test(types_that_cannot_be_read),
        cmocka_unit_test(all_types_convert),
        cmocka_unit_test(torch_lies),
        cmocka_unit_test(names_from_pickles),
        cmocka_unit_test(searches_are_bounded),
        cmocka_unit_test(zip_members_stream),
        cmocka_unit_test(zip_lies),
        cmocka_unit_test(damaged_data_is_found_by_its_checksum),
        cmocka_unit_test(zip_bombs),
        cmocka_unit_test(a_pickle_that_unpacks_to_too_much),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
