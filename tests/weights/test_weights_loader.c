/* The loader cases of the golden numbers, wrappers, prefixes, the report. */
#include "bytes.h"

/* ---- golden loader cases ---- */

typedef struct npy {
    char *file;
    char kind;
    size_t width, count;
    const char *data;
} npy;

static npy load_npy(const char *name)
{
    npy array = {0};
    size_t size;
    trn_text path = {0};
    trn_text_printf(&path, "loader/%s", name);
    array.file = read_golden(path.data, &size);
    trn_text_free(&path);
    size_t header = (uint8_t)array.file[8] | (size_t)(uint8_t)array.file[9] << 8;
    const char *descr = strstr(array.file + 10, "'descr': '");
    assert_non_null(descr);
    descr += strlen("'descr': '");
    array.kind = descr[1];
    array.width = (size_t)atoi(descr + 2);
    array.data = array.file + 10 + header;
    array.count = (size - 10 - header) / array.width;
    return array;
}

static float npy_at(const npy *array, size_t i)
{
    const char *p = array->data + i * array->width;
    int64_t wide = 0;
    int32_t narrow;
    double real;
    float single;
    switch (array->kind * 10 + (int)array->width) {
    case 'f' * 10 + 4:
        memcpy(&single, p, 4);
        return single;
    case 'f' * 10 + 8:
        memcpy(&real, p, 8);
        return (float)real;
    case 'i' * 10 + 8:
        memcpy(&wide, p, 8);
        return (float)wide;
    case 'i' * 10 + 4:
        memcpy(&narrow, p, 4);
        return (float)narrow;
    case 'u' * 10 + 1:
    case 'b' * 10 + 1:
        return (float)(uint8_t)*p;
    default:
        fail_msg("npy type %c%zu", array->kind, array->width);
    }
    return 0;
}

static const char *short_type(const char *dtype)
{
    static const char *const pairs[][2] = {{"torch.float32", "f32"},   {"torch.float16", "f16"},
                                           {"torch.bfloat16", "bf16"}, {"torch.float64", "f64"},
                                           {"torch.int64", "i64"},     {"torch.int32", "i32"},
                                           {"torch.uint8", "u8"},      {"torch.bool", "bool"}};
    for (size_t i = 0; i < TRN_COUNT(pairs); i++)
        if (!strcmp(dtype, pairs[i][0])) return pairs[i][1];
    fail_msg("type %s", dtype);
    return NULL;
}

static void check_tensor(trn_weights *weights, const cJSON *expected)
{
    const trn_weight *info = trn_weights_find(weights, expected->string);
    if (!info) fail_msg("%s has no '%s'", trn_weights_path(weights), expected->string);
    const char *dtype = cJSON_GetStringValue(cJSON_GetObjectItem(expected, "dtype"));
    assert_string_equal(trn_weight_type_name(info->type), short_type(dtype));
    const cJSON *shape = cJSON_GetObjectItem(expected, "shape");
    bool boxed = info->ndim == 1 && info->shape[0] == 1 && cJSON_GetArraySize(shape) == 0; /* numpy's 0-d */
    if (!boxed) assert_int_equal(info->ndim, cJSON_GetArraySize(shape));
    for (int d = 0; !boxed && d < info->ndim; d++)
        assert_int_equal(info->shape[d], (int64_t)cJSON_GetArrayItem(shape, d)->valuedouble);
    npy array = load_npy(cJSON_GetStringValue(cJSON_GetObjectItem(expected, "expect")));
    float *values = malloc((array.count + 1) * sizeof *values);
    assert_non_null(values);
    values[array.count] = 12345;
    trn_error err = {0};
    assert_trn_ok(trn_weights_read(weights, expected->string, info->shape, info->ndim, values, &err), err);
    for (size_t i = 0; i < array.count; i++) {
        float wanted = npy_at(&array, i);
        if (memcmp(&values[i], &wanted, sizeof wanted) != 0)
            fail_msg("%s[%zu] is %g, not %g", expected->string, i, (double)values[i], (double)wanted);
    }
    assert_true(values[array.count] == 12345);
    free(values);
    free(array.file);
}

/* safetensors cannot be written for bf16 by NumPy: the golden file has no such tensor */
static void check_loader_file(const char *name, const char *absent, const trn_weights_options *options)
{
    trn_weights *weights;
    trn_error err = {0};
    assert_trn_ok(trn_weights_open(golden_path(name), options, &weights, &err), err);
    char *text = read_golden("loader/expected.json", NULL);
    cJSON *json = cJSON_Parse(text);
    const cJSON *expected;
    size_t checked = 0;
    cJSON_ArrayForEach (expected, cJSON_GetObjectItem(json, "tensors")) {
        if (absent && !strcmp(expected->string, absent)) continue;
        check_tensor(weights, expected);
        checked++;
    }
    assert_int_equal(checked, absent ? 14 : 15);
    trn_load_report report = trn_weights_report(weights);
    assert_int_equal(report.used, checked);
    assert_int_equal(report.used + report.left_over, trn_weights_count(weights));
    cJSON_Delete(json);
    free(text);
    trn_weights_close(weights);
}

static void torture_zip(void **state)
{
    (void)state;
    check_loader_file("loader/torture_zip.pt", NULL, NULL);
}

static void torture_legacy(void **state)
{
    (void)state;
    check_loader_file("loader/torture_legacy.pt", NULL, NULL);
}

static void torture_safetensors(void **state)
{
    (void)state;
    check_loader_file("loader/torture.safetensors", "bf16", NULL);
}

static void nested_zip(void **state)
{
    (void)state;
    check_loader_file("loader/nested_zip.pt", NULL, NULL);
    check_loader_file("loader/nested_zip.pt", NULL, &(trn_weights_options){.wrapper = "model_state"});
}

static void namespace_is_ignored(void **state)
{
    (void)state;
    trn_weights *weights;
    trn_error err = {0};
    float values[48];
    assert_trn_ok(trn_weights_open(golden_path("loader/with_namespace.pt"), NULL, &weights, &err), err);
    assert_int_equal(trn_weights_count(weights), 1);
    assert_trn_ok(trn_weights_read(weights, "a", (int64_t[]){6, 8}, 2, values, &err), err);
    npy array = load_npy("expect_plain.npy");
    assert_memory_equal(values, array.data, sizeof values);
    free(array.file);
    trn_weights_close(weights);
}

/* ---- wrappers ---- */

typedef struct nest {
    const char *key, *names[3]; /* key NULL: names at the top */
} nest;

static trn_text make_nested(const nest *nests, size_t count)
{
    trn_text file = {0};
    bool tensors = false;
    legacy_begin(&file);
    trn_text_add(&file, "}(");
    for (size_t i = 0; i < count; i++) {
        tensors = tensors || nests[i].names[0];
        if (nests[i].key) pickle_text(&file, nests[i].key);
        if (nests[i].key) trn_text_add(&file, "}(");
        for (size_t n = 0; n < TRN_COUNT(nests[i].names) && nests[i].names[n]; n++)
            pickle_entry(&file, nests[i].names[n]);
        if (nests[i].key) trn_text_add(&file, "u");
    }
    trn_text_add(&file, "u");
    if (tensors)
        legacy_end(&file);
    else
        legacy_end_empty(&file);
    return file;
}

static void expect_first(const nest *nests, size_t count, const char *wrapper, const char *first)
{
    trn_text file = make_nested(nests, count);
    opened o = open_bytes(file.data, file.length, &(trn_weights_options){.wrapper = wrapper});
    assert_trn_ok(o.status, o.err);
    assert_string_equal(trn_weights_at(o.weights, 0)->name, first);
    float values[4];
    assert_trn_ok(trn_weights_read(o.weights, first, (int64_t[]){4}, 1, values, &o.err), o.err);
    assert_true(values[3] == 4);
    close_bytes(&o);
    trn_text_free(&file);
}

static void expect_refusal(const nest *nests, size_t count, const char *wrapper, trn_status status,
                           const char *text)
{
    trn_text file = make_nested(nests, count);
    expect_open(&file, &(trn_weights_options){.wrapper = wrapper}, status, text);
    trn_text_free(&file);
}

static void wrappers_are_recognised(void **state)
{
    (void)state;
    const nest known[] = {{"ema", {"e"}}, {"model", {"m"}}, {"epoch", {NULL}}};
    expect_first(known, TRN_COUNT(known), NULL, "m");
    expect_first(known, TRN_COUNT(known), "ema", "e");
    const nest only[] = {{"something", {"s"}}, {"empty", {NULL}}};
    expect_first(only, TRN_COUNT(only), NULL, "s");
    const nest flat[] = {{"model", {"m"}}, {NULL, {"top"}}};
    expect_first(flat, TRN_COUNT(flat), NULL, "top");
    expect_first(flat, TRN_COUNT(flat), "model", "m");
}

static void wrappers_that_are_unclear_are_named(void **state)
{
    (void)state;
    const nest two[] = {{"student", {"s"}}, {"teacher", {"t"}}};
    expect_refusal(two, TRN_COUNT(two), NULL, TRN_ERR_ARGUMENT, "'student', 'teacher'; set wrapper");
    expect_first(two, TRN_COUNT(two), "teacher", "t");
    const nest unknown[] = {{"a", {"s"}}, {"b", {"t"}}};
    expect_refusal(unknown, TRN_COUNT(unknown), NULL, TRN_ERR_ARGUMENT, "'a', 'b'");
    expect_refusal(unknown, TRN_COUNT(unknown), "c", TRN_ERR_ARGUMENT,
                   "no wrapper 'c'; its keys are: 'a', 'b'");
    expect_refusal(unknown, TRN_COUNT(unknown), "a/s/x", TRN_ERR_UNSUPPORTED, "single tensor");
    const nest none[] = {{"epoch", {NULL}}};
    expect_refusal(none, TRN_COUNT(none), NULL, TRN_ERR_FORMAT, "holds no tensors; its keys are: 'epoch'");
}

static void wrappers_nest(void **state)
{
    (void)state;
    trn_text file = {0};
    legacy_begin(&file);
    trn_text_add(&file, "}");
    pickle_text(&file, "state");
    trn_text_add(&file, "}(");
    pickle_text(&file, "model");
    trn_text_add(&file, "}");
    pickle_entry(&file, "w");
    trn_text_add(&file, "s");
    pickle_text(&file, "step");
    pickle_int(&file, 7);
    trn_text_add(&file, "us");
    legacy_end(&file);
    expect_open(&file, NULL, TRN_OK, NULL);
    expect_open(&file, &(trn_weights_options){.wrapper = "state"}, TRN_OK, NULL);
    expect_open(&file, &(trn_weights_options){.wrapper = "state/model"}, TRN_OK, NULL);
    expect_open(&file, &(trn_weights_options){.wrapper = "state/step"}, TRN_ERR_UNSUPPORTED, "no dictionary");
    trn_text_free(&file);
}

static void whole_models_are_refused(void **state)
{
    (void)state;
    trn_text file = {0};
    legacy_begin(&file);
    trn_text_add(&file, "cmodels\nViT\n)\x81}");
    pickle_entry(&file, "w");
    trn_text_add(&file, "sb");
    legacy_end(&file);
    expect_open(&file, NULL, TRN_ERR_UNSUPPORTED, "class models.ViT");
    trn_text_free(&file);
}

/* ---- names ---- */

static void expect_name(const char *full, const char *prefix, const char *wanted)
{
    const nest nests[] = {{NULL, {full}}};
    trn_text file = make_nested(nests, 1);
    opened o = open_bytes(file.data, file.length, &(trn_weights_options){.prefix = prefix});
    assert_trn_ok(o.status, o.err);
    assert_string_equal(trn_weights_at(o.weights, 0)->name, wanted);
    assert_non_null(trn_weights_find(o.weights, wanted));
    close_bytes(&o);
    trn_text_free(&file);
}

static void wrappings_come_off_names(void **state)
{
    (void)state;
    expect_name("module.norm.weight", NULL, "norm.weight");
    expect_name("module._orig_mod.module.norm.weight", NULL, "norm.weight");
    expect_name("model._orig_mod.norm", NULL, "model.norm");
    expect_name("encoder.backbone.norm", NULL, "encoder.norm");
    expect_name("backbone.norm", NULL, "backbone.norm");
    expect_name("a.module.norm", NULL, "a.module.norm");
    expect_name("module", NULL, "module");
    expect_name("a..b", NULL, "a..b");
    expect_name("module.norm", "", "module.norm");
    expect_name("encoder.norm", "encoder.", "norm");
}

static void prefixes(void **state)
{
    (void)state;
    const nest nests[] = {{NULL, {"encoder.a", "decoder.a", "encoder."}}};
    trn_text file = make_nested(nests, 1);
    expect_open(&file, &(trn_weights_options){.prefix = "trunk."}, TRN_ERR_ARGUMENT,
                "first is called 'encoder.a'");
    opened o = open_bytes(file.data, file.length, NULL);
    assert_trn_ok(o.status, o.err);
    float values[4];
    assert_trn_fails(trn_weights_read(o.weights, "a", (int64_t[]){4}, 1, values, &o.err), TRN_ERR_FORMAT,
                     o.err, "set prefix to 'encoder.'");
    assert_int_equal(trn_weights_strip_prefix(o.weights, "trunk."), 0);
    assert_non_null(trn_weights_find(o.weights, "decoder.a"));
    assert_int_equal(trn_weights_strip_prefix(o.weights, "encoder."), 1);
    assert_null(trn_weights_find(o.weights, "decoder.a"));
    assert_null(trn_weights_find(o.weights, ""));
    assert_trn_ok(trn_weights_read(o.weights, "a", (int64_t[]){4}, 1, values, &o.err), o.err);
    trn_load_report report = trn_weights_report(o.weights);
    assert_int_equal(report.used, 1);
    assert_int_equal(report.left_over, 2);
    assert_int_equal(report.parameters, 4);
    trn_text text = {0};
    trn_weights_report_text(o.weights, 1, &text);
    assert_non_null(strstr(text.data, "1 tensors used (4 parameters), 2 left over"));
    assert_non_null(strstr(text.data, "  a [4]\nleft over:\n  decoder.a [4]\n  and 1 more"));
    trn_text_free(&text);
    close_bytes(&o);
    trn_text_free(&file);
}

static void names_that_collide(void **state)
{
    (void)state;
    const nest wrapped[] = {{NULL, {"module.a", "a"}}}, twice[] = {{NULL, {"a", "b", "a"}}};
    trn_text file = make_nested(wrapped, 1);
    expect_open(&file, NULL, TRN_ERR_ARGUMENT, "'module.a' and 'a' get the same name");
    expect_open(&file, &(trn_weights_options){.prefix = ""}, TRN_OK, NULL);
    trn_text_free(&file);
    file = make_nested(twice, 1);
    expect_open(&file, NULL, TRN_ERR_FORMAT, "tensor 'a' is there twice");
    expect_open(&file, &(trn_weights_options){.prefix = ""}, TRN_ERR_FORMAT, "tensor 'a' is there twice");
    trn_text_free(&file);
}

static void wrong_requests_say_what_is_there(void **state)
{
    (void)state;
    const nest nests[] = {{NULL, {"norm.weight"}}};
    trn_text file = make_nested(nests, 1);
    opened o = open_bytes(file.data, file.length, NULL);
    assert_trn_ok(o.status, o.err);
    float values[4];
    assert_trn_fails(trn_weights_read(o.weights, "norm.wieght", (int64_t[]){4}, 1, values, &o.err),
                     TRN_ERR_FORMAT, o.err, "nearest name is 'norm.weight'");
    assert_trn_fails(trn_weights_read(o.weights, "zzz", (int64_t[]){4}, 1, values, &o.err), TRN_ERR_FORMAT,
                     o.err, "the first is 'norm.weight'");
    assert_trn_fails(trn_weights_read(o.weights, "norm.weight", (int64_t[]){2, 2}, 2, values, &o.err),
                     TRN_ERR_FORMAT, o.err, "has shape [4], but the model needs [2, 2]");
    assert_trn_fails(trn_weights_read(o.weights, "norm.weight", (int64_t[]){-4}, 1, values, &o.err),
                     TRN_ERR_ARGUMENT, o.err, "impossible shape");
    assert_int_equal(trn_weights_report(o.weights).used, 0);
    close_bytes(&o);
    trn_text_free(&file);
}

static void files_that_are_no_weights(void **state)
{
    (void)state;
    static const struct {
        const char *start, *text;
    } cases[] = {{"", "neither safetensors"},
                 {"x", "neither safetensors"},
                 {"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"},
                 {"\x89HDF\r\n", "HDF5"},
                 {"<!DOCTYPE html>", "web page"},
                 {"\x80\x04K.", "plain Python pickle"}};
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        opened o = open_bytes(cases[i].start, strlen(cases[i].start), NULL);
        assert_int_not_equal(o.status, TRN_OK);
        assert_non_null(strstr(o.err.message, cases[i].text));
        close_bytes(&o);
    }
    trn_weights *weights;
    trn_error err = {0};
    char *dir = test_temp_dir(), *path = test_path(dir, "none.pt");
    assert_trn_fails(trn_weights_open(path, NULL, &weights, &err), TRN_ERR_IO, err, "none.pt");
    assert_trn_fails(trn_weights_open(dir, NULL, &weights, &err), TRN_ERR_IO, err, "folder");
    assert_null(weights);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(torture_zip),
        cmocka_unit_test(torture_legacy),
        cmocka_unit_test(torture_safetensors),
        cmocka_unit_test(nested_zip),
        cmocka_unit_test(namespace_is_ignored),
        cmocka_unit_test(wrappers_are_recognised),
        cmocka_unit_test(wrappers_that_are_unclear_are_named),
        cmocka_unit_test(wrappers_nest),
        cmocka_unit_test(whole_models_are_refused),
        cmocka_unit_test(wrappings_come_off_names),
        cmocka_unit_test(prefixes),
        cmocka_unit_test(names_that_collide),
        cmocka_unit_test(wrong_requests_say_what_is_there),
        cmocka_unit_test(files_that_are_no_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
