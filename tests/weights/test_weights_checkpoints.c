/* Checkpoints of the golden cases: .pt, .safetensors and the synthetic rule agree to the bit; the writer. */
#include "bytes.h"

typedef struct checkpoint_case {
    const char *id, *prefix; /* prefix: what the .pt file puts in front of names */
    bool table;              /* pos_embed is a computed table, not synthetic */
    const char *sha256;      /* of all synthetic tensors in the order of state_dict.txt */
} checkpoint_case;

/* The checkpoints of the first two are among the test data. The others are used where they are at hand. */
static const checkpoint_case required[] = {
    {"vit_tiny_mae", NULL, false, "3f4018bb4ed0b7f85343d2905afc29d91173ec307138ae28edec9963ea3885f0"},
    {"vit_tiny_dinov2", NULL, false, "206155f017e66c3c3d923903f6d37ef0eb39ecabe5c1bbdabd1e59bc9c4dc60a"},
};
static const checkpoint_case optional[] = {
    {"hiera_tiny_cfg", NULL, false, "c86763a645105fafba7070e9e37440ff0abdb3c1509d744976f0f11f78ffd433"},
    {"sam2_encoder_tiny", NULL, false, "5313ad7a35e8b619272c3debe437c680156d6f42a12eb7db26710b3bb898d4f1"},
    {"upernet_tiny", "model.", false, "fdc91708ad47c43bb60bb44613b45fbb03aa0b5cf12a1505d130a7fd64e44172"},
    {"prithvi_tiny_tl", "encoder.", true, "be604c4e17b995de914d9b6ac926c1ad5f3b222a664d8dc6dc67ae0b37a9b215"},
};

/* ---- the names and shapes of a case ---- */

typedef struct named_shape {
    char name[256];
    int ndim;
    int64_t shape[TRN_WEIGHTS_MAX_DIMS], count;
} named_shape;

/* "name   [1, 2]  (buffer)"; false for comments. */
static bool parse_line(const char *line, named_shape *out)
{
    const char *p = strchr(line, '[');
    if (line[0] == '#' || !p || sscanf(line, "%255s", out->name) != 1) return false;
    out->ndim = 0;
    for (p++; *p && *p != ']'; p += strspn(p, ", ")) {
        char *end;
        assert_true(out->ndim < TRN_WEIGHTS_MAX_DIMS);
        out->shape[out->ndim++] = strtoll(p, &end, 10);
        assert_true(end > p);
        p = end;
    }
    assert_true(trn_weight_shape_count(out->shape, out->ndim, &out->count));
    return true;
}

static bool is_synthetic(const checkpoint_case *c, const named_shape *tensor)
{
    if (trn_ends_with(tensor->name, "num_batches_tracked")) return false;
    return !c->table || strcmp(tensor->name, "pos_embed") != 0;
}

typedef void (*tensor_visitor)(const named_shape *tensor, void *user);

static size_t for_each_tensor(const checkpoint_case *c, tensor_visitor visit, void *user)
{
    trn_text name = {0};
    trn_text_printf(&name, "%s/state_dict.txt", c->id);
    char *text = read_golden(name.data, NULL), *line = text, *rest;
    size_t visited = 0;
    for (; line; line = rest) {
        named_shape tensor;
        rest = strchr(line, '\n');
        if (rest) *rest++ = 0;
        if (!parse_line(line, &tensor) || !is_synthetic(c, &tensor)) continue;
        visit(&tensor, user);
        visited++;
    }
    free(text);
    trn_text_free(&name);
    return visited;
}

static float *read_values(trn_weights *weights, const named_shape *tensor)
{
    trn_error err = {0};
    float *values = malloc((size_t)TRN_MAX(tensor->count, (int64_t)1) * sizeof *values);
    assert_non_null(values);
    assert_trn_ok(trn_weights_read(weights, tensor->name, tensor->shape, tensor->ndim, values, &err), err);
    return values;
}

/* ---- the synthetic rule ---- */

typedef struct collector {
    trn_weights *synthetic;
    trn_text bytes;
} collector;

static void collect(const named_shape *tensor, void *user)
{
    collector *all = user;
    float *values = read_values(all->synthetic, tensor);
    trn_text_add_n(&all->bytes, (const char *)values, (size_t)tensor->count * sizeof *values);
    free(values);
}

static void check_rule(const checkpoint_case *c)
{
    collector all = {0};
    trn_error err = {0};
    assert_trn_ok(trn_weights_open_synthetic(&all.synthetic, &err), err);
    size_t tensors = for_each_tensor(c, collect, &all);
    uint8_t digest[32];
    char hex[65];
    trn_sha256(all.bytes.data, all.bytes.length, digest);
    for (int i = 0; i < 32; i++)
        snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    printf("%s: %zu tensors, %zu elements, sha256 %s\n", c->id, tensors, all.bytes.length / 4, hex);
    assert_string_equal(hex, c->sha256);
    assert_int_equal(trn_weights_report(all.synthetic).used, tensors);
    assert_int_equal(trn_weights_report(all.synthetic).parameters, all.bytes.length / 4);
    trn_text_free(&all.bytes);
    trn_weights_close(all.synthetic);
}

static void synthetic_rule_of_whole_models(void **state)
{
    (void)state;
    for (size_t i = 0; i < TRN_COUNT(required); i++)
        check_rule(&required[i]);
    for (size_t i = 0; i < TRN_COUNT(optional); i++)
        check_rule(&optional[i]);
}

static void check_bits(const char *name, const int64_t *shape, int ndim, const uint32_t *bits, size_t count)
{
    trn_weights *weights;
    trn_error err = {0};
    float values[1024];
    assert_trn_ok(trn_weights_open_synthetic(&weights, &err), err);
    assert_trn_ok(trn_weights_read(weights, name, shape, ndim, values, &err), err);
    assert_memory_equal(values, bits, count * sizeof *bits);
    assert_true(trn_weights_is_synthetic(weights));
    assert_int_equal(trn_weights_count(weights), 0);
    assert_null(trn_weights_find(weights, name));
    trn_weights_close(weights);
}

static void check_range(const char *name, const int64_t *shape, int ndim, double offset, double scale)
{
    trn_weights *weights;
    trn_error err = {0};
    float value[64];
    assert_trn_ok(trn_weights_open_synthetic(&weights, &err), err);
    assert_trn_ok(trn_weights_read(weights, name, shape, ndim, value, &err), err);
    float *wanted = test_hash_values(name, 1, scale, offset);
    if (value[0] != wanted[0]) fail_msg("%s is %g, not %g", name, (double)value[0], (double)wanted[0]);
    free(wanted);
    trn_weights_close(weights);
}

static void synthetic_rule_of_each_name(void **state)
{
    (void)state;
    check_bits("blocks.0.attn.qkv.weight", (int64_t[]){48, 16}, 2,
               (const uint32_t[]){0x3e4f35d4, 0xbe60d555, 0xbeaf6791, 0x3e87ccfd}, 4);
    check_bits("norm.weight", (int64_t[]){2}, 1, (const uint32_t[]){0x3f70d422, 0x3f8d5506}, 2);
    check_range("blocks.0.ls1.gamma", (int64_t[]){8}, 1, 0.5, 0.25);
    check_range("time_embed.scale", (int64_t[]){1}, 1, 0.125, 0.0625);
    check_range("time_embed.scale", (int64_t[]){2}, 1, 0, 0.0625);
    check_range("a.latent", (int64_t[]){2, 3}, 2, 0, 0.5);
    check_range("cls_token", (int64_t[]){1, 1, 4}, 3, 0, 0.5);
    check_range("n.running_var", (int64_t[]){4}, 1, 1, 0.5);
    check_range("n.running_mean", (int64_t[]){4}, 1, 0, 0.0625);
    check_range("pos_embed_window", (int64_t[]){1, 3, 2, 2}, 4, 0, 0.5); /* a matrix of fan-in 12 */
    check_range("x.bias", (int64_t[]){4}, 1, 0, 0.0625);
}

/* ---- files against the rule ---- */

typedef struct comparison {
    trn_weights *weights, *synthetic;
} comparison;

static void compare(const named_shape *tensor, void *user)
{
    comparison *both = user;
    float *actual = read_values(both->weights, tensor), *wanted = read_values(both->synthetic, tensor);
    if (memcmp(actual, wanted, (size_t)tensor->count * sizeof *actual) != 0)
        fail_msg("%s: '%s' differs from the rule", trn_weights_path(both->weights), tensor->name);
    free(actual);
    free(wanted);
}

static bool check_file(const checkpoint_case *c, const char *extension, const char *prefix)
{
    char name[256];
    snprintf(name, sizeof name, "%s/%s.%s", c->id, c->id, extension);
    const char *path = test_golden_path(name);
    if (!path) return false;
    comparison both;
    trn_error err = {0};
    assert_trn_ok(trn_weights_open(path, &(trn_weights_options){.prefix = prefix}, &both.weights, &err), err);
    assert_trn_ok(trn_weights_open_synthetic(&both.synthetic, &err), err);
    size_t tensors = for_each_tensor(c, compare, &both);
    assert_int_equal(trn_weights_report(both.weights).used, tensors);
    printf("%s: %zu tensors equal to the bit, %zu left over\n", name, tensors,
           trn_weights_report(both.weights).left_over);
    trn_weights_close(both.weights);
    trn_weights_close(both.synthetic);
    return true;
}

static void files_equal_the_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < TRN_COUNT(required); i++) {
        assert_true(check_file(&required[i], "safetensors", NULL));
        assert_true(check_file(&required[i], "pt", required[i].prefix));
    }
    for (size_t i = 0; i < TRN_COUNT(optional); i++) {
        if (!check_file(&optional[i], "safetensors", NULL))
            printf("optional, absent: %s.safetensors\n", optional[i].id);
        if (!check_file(&optional[i], "pt", optional[i].prefix))
            printf("optional, absent: %s.pt\n", optional[i].id);
    }
}

/* Real weights: the original .pt against its converted copy. */
static void galileo_nano(void **state)
{
    (void)state;
    const char *shared = getenv("TERRANE_SHARED"),
               *golden = test_golden_path("galileo_nano/encoder.safetensors");
    char *path = test_path(shared ? shared : "../shared", "weights/galileo-nano/encoder.pt");
    trn_weights *pt, *converted;
    trn_error err = {0};
    if (!golden || !trn_path_exists(path)) {
        printf("optional, absent: galileo-nano\n");
        free(path);
        return;
    }
    assert_trn_ok(trn_weights_open(golden, NULL, &converted, &err), err);
    assert_trn_ok(trn_weights_open(path, NULL, &pt, &err), err);
    size_t compared = 0;
    for (size_t i = 0; i < trn_weights_count(converted); i++) {
        const trn_weight *info = trn_weights_at(converted, i);
        named_shape tensor = {.ndim = info->ndim};
        snprintf(tensor.name, sizeof tensor.name, "%s", info->name);
        memcpy(tensor.shape, info->shape, sizeof tensor.shape);
        assert_true(trn_weight_shape_count(info->shape, info->ndim, &tensor.count));
        comparison both = {pt, converted};
        compare(&tensor, &both);
        compared++;
    }
    assert_true(compared > 20);
    printf("galileo-nano: %zu tensors equal to the bit, %zu left over\n", compared,
           trn_weights_report(pt).left_over);
    trn_weights_close(pt);
    trn_weights_close(converted);
    free(path);
}

/* ---- writing ---- */

static void written_files_read_back(void **state)
{
    (void)state;
    const float a[] = {1, -2, 3.5f, 4, 5, 6}, s[] = {7};
    const trn_weight_data tensors[] = {
        {"b.\"quoted\"", 2, {2, 3}, a}, {"empty", 2, {0, 4}, NULL}, {"scalar", 0, {0}, s}};
    const char *const metadata[] = {"format", "pt", "made by", "terrane \\ \"test\"", NULL};
    const trn_write_options options = {.metadata = metadata};
    char *path = test_path(test_temp_dir(), "w.safetensors");
    trn_error err = {0};
    trn_weights *weights;
    float values[6];
    assert_trn_ok(trn_weights_write(path, tensors, 3, &options, &err), err);
    assert_trn_ok(trn_weights_open(path, NULL, &weights, &err), err);
    assert_int_equal(trn_weights_count(weights), 3);
    assert_trn_ok(trn_weights_read(weights, "b.\"quoted\"", (int64_t[]){2, 3}, 2, values, &err), err);
    assert_memory_equal(values, a, sizeof a);
    assert_trn_ok(trn_weights_read(weights, "scalar", NULL, 0, values, &err), err);
    assert_true(values[0] == 7);
    assert_trn_ok(trn_weights_read(weights, "empty", (int64_t[]){0, 4}, 2, values, &err), err);
    trn_weights_close(weights);
    assert_trn_ok(trn_weights_write(path, tensors, 0, NULL, &err), err); /* replaces it */
    assert_trn_ok(trn_weights_open(path, NULL, &weights, &err), err);
    assert_int_equal(trn_weights_count(weights), 0);
    trn_weights_close(weights);
    free(path);
}

static void writing_refuses(void **state)
{
    (void)state;
    const float a[] = {1};
    const trn_weight_data twice[] = {{"a", 1, {1}, a}, {"a", 1, {1}, a}}, negative[] = {{"a", 1, {-1}, a}},
                          meta[] = {{"__metadata__", 1, {1}, a}}, none[] = {{"a", 1, {1}, NULL}};
    char *dir = test_temp_dir(), *path = test_path(dir, "w.safetensors"),
         *nowhere = test_path(dir, "no/w.safetensors");
    trn_error err = {0};
    assert_trn_fails(trn_weights_write(path, twice, 2, NULL, &err), TRN_ERR_ARGUMENT, err,
                     "'a' is there twice");
    assert_trn_fails(trn_weights_write(path, negative, 1, NULL, &err), TRN_ERR_ARGUMENT, err,
                     "impossible shape");
    assert_trn_fails(trn_weights_write(path, meta, 1, NULL, &err), TRN_ERR_ARGUMENT, err, "__metadata__");
    assert_trn_fails(trn_weights_write(path, none, 1, NULL, &err), TRN_ERR_ARGUMENT, err, "no data");
    assert_int_equal(trn_weights_write(nowhere, twice, 1, NULL, &err), TRN_ERR_IO);
    char **names;
    size_t count;
    assert_trn_ok(trn_list_dir(dir, &names, &count, &err), err);
    assert_int_equal(count, 0); /* nothing half-written stays */
    trn_names_free(names, count);
    free(path);
    free(nowhere);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(synthetic_rule_of_each_name), cmocka_unit_test(synthetic_rule_of_whole_models),
        cmocka_unit_test(files_equal_the_rule),        cmocka_unit_test(galileo_nano),
        cmocka_unit_test(written_files_read_back),     cmocka_unit_test(writing_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
