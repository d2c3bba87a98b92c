#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *environment(const char *name, const char *fallback)
{
    const char *value = getenv(name);
    return value && value[0] ? value : fallback;
}

const char *test_golden_path(const char *relative)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/golden/%s", environment("TERRANE_TEST_DATA", "tests/data"), relative);
    if (trn_path_exists(path)) return path;
    snprintf(path, sizeof path, "%s/golden/%s", environment("TERRANE_SHARED", "../shared"), relative);
    return trn_path_exists(path) ? path : NULL;
}

static cJSON *load_manifest(const char *root_name, const char *fallback, const char *sub)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", environment(root_name, fallback), sub);
    char *text = trn_read_file(path, 1 << 26, NULL, NULL);
    cJSON *json = text ? cJSON_Parse(text) : NULL;
    free(text);
    return json;
}

static const cJSON *find_case(const char *id)
{
    static cJSON *manifests[2];
    if (!manifests[0]) {
        manifests[0] = load_manifest("TERRANE_TEST_DATA", "tests/data", "golden/manifest.json");
        manifests[1] = load_manifest("TERRANE_SHARED", "../shared", "golden/manifest.json");
    }
    for (size_t m = 0; m < TRN_COUNT(manifests); m++) {
        const cJSON *entry;
        cJSON_ArrayForEach (entry, cJSON_GetObjectItem(manifests[m], "cases")) {
            if (!strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(entry, "id")), id)) return entry;
        }
    }
    return NULL;
}

bool test_golden_has(const char *id)
{
    return find_case(id) != NULL;
}

const cJSON *test_golden_case(const char *id)
{
    const cJSON *entry = find_case(id);
    if (!entry) fail_msg("golden case '%s' is in no manifest", id);
    return entry;
}

float *test_hash_values(const char *name, int64_t count, double scale, double offset)
{
    float *values = malloc((size_t)(count ? count : 1) * sizeof *values);
    assert_non_null(values);
    uint64_t hash = trn_fnv1a64(name, strlen(name), TRN_FNV_SEED);
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)(offset + scale * trn_hash_uniform(hash, (uint64_t)i));
    return values;
}

/* A minimal .npy reader of the tests' own, so that the project's reader is not tested against itself. */
static float *read_npy(const char *path, int64_t *count)
{
    size_t size;
    trn_error err = {0};
    char *file = trn_read_file(path, (size_t)1 << 30, &size, &err);
    if (!file) fail_msg("%s", err.message);
    size_t header = (uint8_t)file[8] | (size_t)(uint8_t)file[9] << 8, start = 10 + header;
    char *descr = strstr(file + 10, "'descr': '");
    assert_non_null(descr);
    descr += strlen("'descr': '");
    char kind = descr[1];
    size_t width = (size_t)atoi(descr + 2);
    if (*descr != '<' && *descr != '|') fail_msg("%s: byte order", path);
    *count = (int64_t)((size - start) / width);
    float *values = malloc((size_t)(*count ? *count : 1) * sizeof *values);
    assert_non_null(values);
    for (int64_t i = 0; i < *count; i++) {
        const char *p = file + start + (size_t)i * width;
        int64_t integer = 0;
        double wide;
        if (kind == 'f' && width == 4) {
            memcpy(&values[i], p, 4);
        } else if (kind == 'f' && width == 8) {
            memcpy(&wide, p, 8);
            values[i] = (float)wide;
        } else if (kind == 'i' || kind == 'u' || kind == 'b') {
            memcpy(&integer, p, width);
            if (kind == 'i' && width == 4) integer = (int32_t)integer;
            if (kind == 'i' && width == 1) integer = (int8_t)integer;
            values[i] = (float)integer;
        } else {
            fail_msg("%s: type %s", path, descr);
        }
    }
    free(file);
    return values;
}

static void read_shape(const cJSON *array, test_tensor *tensor)
{
    const cJSON *dim;
    tensor->count = 1;
    tensor->ndim = 0;
    cJSON_ArrayForEach (dim, array) {
        tensor->shape[tensor->ndim++] = (int64_t)dim->valuedouble;
        tensor->count *= (int64_t)dim->valuedouble;
    }
}

static void literal_values(const cJSON *value, test_tensor *tensor, int depth)
{
    if (cJSON_IsNumber(value) || cJSON_IsBool(value)) {
        tensor->data = realloc(tensor->data, (size_t)(tensor->count + 1) * sizeof *tensor->data);
        assert_non_null(tensor->data);
        tensor->data[tensor->count++] = cJSON_IsBool(value) ? cJSON_IsTrue(value) : (float)value->valuedouble;
        return;
    }
    tensor->shape[depth] = cJSON_GetArraySize(value);
    if (tensor->ndim < depth + 1) tensor->ndim = depth + 1;
    const cJSON *item;
    cJSON_ArrayForEach (item, value) {
        literal_values(item, tensor, depth + 1);
    }
}

static const cJSON *find_named(const cJSON *list, const char *case_id, const char *name)
{
    const cJSON *entry;
    cJSON_ArrayForEach (entry, list) {
        if (!strcmp(cJSON_GetStringValue(cJSON_GetObjectItem(entry, "name")), name)) return entry;
    }
    fail_msg("golden case '%s' has no tensor '%s'", case_id, name);
    return NULL;
}

static float *read_golden_file(const cJSON *entry, int64_t *count)
{
    const char *file = cJSON_GetStringValue(cJSON_GetObjectItem(entry, "file")),
               *path = test_golden_path(file);
    if (!path) fail_msg("golden file '%s' is missing", file);
    return read_npy(path, count);
}

test_tensor test_golden_input(const char *case_id, const char *name)
{
    const cJSON *entry = find_named(cJSON_GetObjectItem(test_golden_case(case_id), "inputs"), case_id, name);
    const char *rule = cJSON_GetStringValue(cJSON_GetObjectItem(entry, "rule"));
    test_tensor tensor = {.flat_stride = 1};
    if (!strcmp(rule, "literal")) {
        literal_values(cJSON_GetObjectItem(entry, "value"), &tensor, 0);
        return tensor;
    }
    read_shape(cJSON_GetObjectItem(entry, "shape"), &tensor);
    if (!strcmp(rule, "hash")) {
        tensor.data =
            test_hash_values(cJSON_GetStringValue(cJSON_GetObjectItem(entry, "hash_name")), tensor.count,
                             cJSON_GetNumberValue(cJSON_GetObjectItem(entry, "scale")),
                             cJSON_GetNumberValue(cJSON_GetObjectItem(entry, "offset")));
        return tensor;
    }
    int64_t count;
    tensor.data = read_golden_file(entry, &count);
    assert_int_equal(count, tensor.count);
    return tensor;
}

test_tensor test_golden_output(const char *case_id, const char *name)
{
    const cJSON *entry = find_named(cJSON_GetObjectItem(test_golden_case(case_id), "outputs"), case_id, name);
    test_tensor tensor = {.flat_stride = 1};
    read_shape(cJSON_GetObjectItem(entry, "full_shape"), &tensor);
    const cJSON *stride = cJSON_GetObjectItem(entry, "flat_stride");
    if (stride) tensor.flat_stride = (int64_t)stride->valuedouble;
    tensor.absmax = cJSON_GetNumberValue(cJSON_GetObjectItem(entry, "absmax"));
    int64_t stored;
    tensor.data = read_golden_file(entry, &stored);
    assert_int_equal(stored, (tensor.count + tensor.flat_stride - 1) / tensor.flat_stride);
    return tensor;
}

double test_worst_error(const float *actual, const float *expected, int64_t count, double absmax)
{
    double worst = 0;
    for (int64_t i = 0; i < count; i++) {
        double d = fabs((double)actual[i] - (double)expected[i]);
        if (!(d <= worst)) worst = isnan(d) ? INFINITY : d;
    }
    return absmax > 0 ? worst / absmax : worst;
}

void test_compare_golden(const char *case_id, const char *name, const float *actual, int64_t actual_count,
                         double tolerance)
{
    test_tensor golden = test_golden_output(case_id, name);
    if (actual_count != golden.count)
        fail_msg("%s %s: %lld values, golden has %lld", case_id, name, (long long)actual_count,
                 (long long)golden.count);
    double worst = 0;
    int64_t stored = (golden.count + golden.flat_stride - 1) / golden.flat_stride;
    for (int64_t i = 0; i < stored; i++) {
        double d = fabs((double)actual[i * golden.flat_stride] - (double)golden.data[i]);
        if (!(d <= worst)) worst = isnan(d) ? INFINITY : d;
    }
    if (golden.absmax > 0) worst /= golden.absmax;
    free(golden.data);
    printf("golden %-32s %-16s %.2e (tolerance %.1e)\n", case_id, name, worst, tolerance);
    if (!(worst <= tolerance))
        fail_msg("%s %s: worst error %.3e is above %.1e", case_id, name, worst, tolerance);
}

static char temp_dirs[64][256];
static size_t temp_dir_count;

static void remove_temp_dirs(void)
{
    for (size_t i = 0; i < temp_dir_count; i++) {
        trn_text command = {0};
        trn_text_printf(&command, "rm -rf '%s'", temp_dirs[i]);
        if (system(trn_text_get(&command))) fprintf(stderr, "cannot remove %s\n", temp_dirs[i]);
        trn_text_free(&command);
    }
}

char *test_temp_dir(void)
{
    if (!temp_dir_count) atexit(remove_temp_dirs);
    assert_true(temp_dir_count < TRN_COUNT(temp_dirs));
    char *dir = temp_dirs[temp_dir_count++];
    snprintf(dir, sizeof temp_dirs[0], "%s/terrane-test-XXXXXX", environment("TMPDIR", "/tmp"));
    assert_non_null(mkdtemp(dir));
    return dir;
}

char *test_path(const char *dir, const char *name)
{
    char *path = trn_path_join(dir, name);
    assert_non_null(path);
    return path;
}

int test_run(const char *command, char **output)
{
    trn_text text = {0}, line = {0};
    trn_text_printf(&line, "( %s ) 2>&1", command);
    FILE *pipe = popen(line.data, "r");
    assert_non_null(pipe);
    char buffer[4096];
    size_t got;
    while ((got = fread(buffer, 1, sizeof buffer, pipe)))
        trn_text_add_n(&text, buffer, got);
    int status = pclose(pipe);
    trn_text_free(&line);
    if (output)
        *output = text.data ? text.data : strdup("");
    else
        trn_text_free(&text);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
