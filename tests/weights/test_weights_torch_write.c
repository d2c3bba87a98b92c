/* Checkpoints written for PyTorch: read back, laid out as its own are, streamed; files cut off while in use.
 */
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zip.h>

#include "bytes.h"
#include "zip_write.h"

static const float many[] = {1, -2, 3.5f, 4, 5, 6}, one[] = {7};
static const trn_weight_data three[] = {
    {"a.weight", 2, {2, 3}, many}, {"empty", 2, {0, 4}, NULL}, {"scalar", 0, {0}, one}};

static char *in_temp(const char *name)
{
    return test_path(test_temp_dir(), name);
}

static void expect_three(const char *path, const trn_weights_options *options, const char *first)
{
    trn_error err = {0};
    trn_weights *weights;
    float values[6] = {0};
    assert_trn_ok(trn_weights_open(path, options, &weights, &err), err);
    assert_int_equal(trn_weights_count(weights), 3);
    assert_trn_ok(trn_weights_read(weights, first, (int64_t[]){2, 3}, 2, values, &err), err);
    assert_memory_equal(values, many, sizeof many);
    const trn_weight *scalar = trn_weights_at(weights, 2), *empty = trn_weights_at(weights, 1);
    assert_int_equal(scalar->ndim, 0);
    assert_trn_ok(trn_weights_read(weights, scalar->name, NULL, 0, values, &err), err);
    assert_true(values[0] == 7);
    assert_int_equal(empty->shape[1], 4);
    assert_trn_ok(trn_weights_read(weights, empty->name, empty->shape, 2, values, &err), err);
    trn_weights_close(weights);
}

static void every_wrapping_reads_back(void **state)
{
    (void)state;
    static const char *const wrappers[] = {NULL, "model", "model_state", "state/model"};
    char *path = in_temp("w.pt");
    trn_error err = {0};
    for (size_t i = 0; i < TRN_COUNT(wrappers); i++) {
        const trn_write_options plain = {.wrapper = wrappers[i]},
                                prefixed = {.wrapper = wrappers[i], .prefix = "encoder."};
        const trn_weights_options named = {.wrapper = wrappers[i]}, stripped = {.prefix = "encoder."};
        assert_trn_ok(trn_weights_write_torch(path, three, 3, &plain, &err), err);
        expect_three(path, NULL, "a.weight");
        expect_three(path, &named, "a.weight");
        assert_trn_ok(trn_weights_write_torch(path, three, 3, &prefixed, &err), err);
        expect_three(path, NULL, "encoder.a.weight");
        expect_three(path, &stripped, "a.weight");
    }
    assert_trn_ok(trn_weights_write_torch(path, three, 3, NULL, &err), err);
    expect_three(path, NULL, "a.weight");
    free(path);
}

/* libzip finds the checksums right, nothing is packed, and data lies where it can be mapped. */
static void archive_is_as_torch_wants_it(void **state)
{
    (void)state;
    char *path = in_temp("w.pth");
    trn_error err = {0};
    int code = 0;
    assert_trn_ok(trn_weights_write_torch(path, three, 3, NULL, &err), err);
    zip_t *zip = zip_open(path, ZIP_RDONLY | ZIP_CHECKCONS, &code);
    assert_non_null(zip);
    assert_int_equal(zip_get_num_entries(zip, 0), 6);
    assert_string_equal(zip_get_name(zip, 0, 0), "archive/data.pkl"); /* the first names the folder */
    for (zip_uint64_t i = 0; i < 6; i++) {
        zip_stat_t info;
        char bytes[4096];
        assert_int_equal(zip_stat_index(zip, i, 0, &info), 0);
        assert_int_equal(info.comp_method, ZIP_CM_STORE);
        zip_file_t *member = zip_fopen_index(zip, i, 0);
        assert_non_null(member);
        assert_int_equal(zip_fread(member, bytes, sizeof bytes), info.size);
        assert_int_equal(zip_fread(member, bytes, 1), 0); /* -1 if the checksum were wrong */
        assert_int_equal(zip_fclose(member), 0);
    }
    zip_discard(zip);
    size_t size, found = 0;
    char *bytes = trn_read_file(path, 1 << 20, &size, &err);
    assert_non_null(bytes);
    for (size_t at = 0; at + sizeof many <= size; at++) {
        if (memcmp(bytes + at, many, sizeof many) != 0) continue;
        assert_int_equal(at % TRN_ZIP_ALIGNMENT, 0);
        found++;
    }
    assert_int_equal(found, 1);
    free(bytes);
    free(path);
}

static void checksums(void **state)
{
    (void)state;
    static const char text[] = "123456789";
    assert_int_equal(trn_crc32(0, text, 9), 0xcbf43926u);
    assert_int_equal(trn_crc32(0, text, 0), 0);
    for (size_t cut = 0; cut <= 9; cut++)
        assert_int_equal(trn_crc32(trn_crc32(0, text, cut), text + cut, 9 - cut), 0xcbf43926u);
}

/* ---- values that come when they are wanted ---- */

typedef struct source {
    size_t asked, fail_at, cancel_at;
} source;

static trn_status fill(void *user, const trn_weight_data *tensor, float *out, trn_error *err)
{
    source *from = user;
    if (from->asked++ == from->fail_at) return trn_fail(err, TRN_ERR_IO, "no values of %s", tensor->name);
    for (int64_t i = 0; i < tensor->shape[0]; i++)
        out[i] = (float)(i * 3) + (float)from->asked;
    return TRN_OK;
}

static bool cancelled(void *user)
{
    const source *from = user;
    return from->asked == from->cancel_at;
}

typedef trn_status (*writer)(const char *path, const trn_weight_data *tensors, size_t count,
                             const trn_write_options *options, trn_error *err);
static const writer writers[] = {trn_weights_write, trn_weights_write_torch};
static const trn_weight_data streamed[] = {
    {"a", 1, {100000}, NULL}, {"given", 1, {6}, many}, {"b", 1, {10}, NULL}};

static void values_are_made_one_tensor_at_a_time(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    char *path = in_temp("streamed");
    float *values = malloc(COUNT * sizeof *values);
    trn_error err = {0};
    assert_non_null(values);
    for (size_t w = 0; w < TRN_COUNT(writers); w++) {
        source from = {0, SIZE_MAX, SIZE_MAX};
        const trn_write_options options = {.fill = fill, .user = &from};
        trn_weights *weights;
        assert_trn_ok(writers[w](path, streamed, 3, &options, &err), err);
        assert_int_equal(from.asked, 2);
        assert_trn_ok(trn_weights_open(path, NULL, &weights, &err), err);
        assert_trn_ok(trn_weights_read(weights, "a", (int64_t[]){COUNT}, 1, values, &err), err);
        for (int64_t i = 0; i < COUNT; i++)
            assert_true(values[i] == (float)(i * 3) + 1);
        assert_trn_ok(trn_weights_read(weights, "b", (int64_t[]){10}, 1, values, &err), err);
        assert_true(values[9] == 29);
        assert_trn_ok(trn_weights_read(weights, "given", (int64_t[]){6}, 1, values, &err), err);
        assert_memory_equal(values, many, sizeof many);
        trn_weights_close(weights);
    }
    free(values);
    free(path);
}

static void failures_leave_nothing(void **state)
{
    (void)state;
    char *dir = test_temp_dir(), *path = test_path(dir, "w.pt"), **names;
    size_t count;
    trn_error err = {0};
    for (size_t w = 0; w < TRN_COUNT(writers); w++) {
        source failing = {0, 1, SIZE_MAX}, stopped = {0, SIZE_MAX, 1};
        const trn_progress progress = {.cancelled = cancelled, .user = &stopped};
        const trn_write_options fails = {.fill = fill, .user = &failing},
                                stops = {.fill = fill, .user = &stopped, .progress = &progress};
        assert_trn_fails(writers[w](path, streamed, 3, &fails, &err), TRN_ERR_IO, err, "no values of b");
        assert_int_equal(writers[w](path, streamed, 3, &stops, &err), TRN_ERR_CANCELLED);
    }
    assert_trn_ok(trn_list_dir(dir, &names, &count, &err), err);
    assert_int_equal(count, 0);
    trn_names_free(names, count);
    free(path);
}

static void writing_refuses(void **state)
{
    (void)state;
    const trn_weight_data twice[] = {{"a", 1, {1}, one}, {"a", 1, {1}, one}}, none[] = {{"a", 1, {1}, NULL}};
    const trn_write_options gap = {.wrapper = "a//b"}, deep = {.wrapper = "a/b/c/d/e"},
                            wrapped = {.wrapper = "model"};
    char *path = in_temp("w.pt");
    trn_error err = {0};
    assert_trn_fails(trn_weights_write_torch(path, twice, 2, NULL, &err), TRN_ERR_ARGUMENT, err, "twice");
    assert_trn_fails(trn_weights_write_torch(path, none, 1, NULL, &err), TRN_ERR_ARGUMENT, err, "no data");
    assert_trn_fails(trn_weights_write_torch(path, three, 3, &gap, &err), TRN_ERR_ARGUMENT, err, "a//b");
    assert_trn_fails(trn_weights_write_torch(path, three, 3, &deep, &err), TRN_ERR_ARGUMENT, err, "keys");
    assert_trn_fails(trn_weights_write(path, three, 3, &wrapped, &err), TRN_ERR_ARGUMENT, err, "no wrapper");
    assert_false(trn_path_exists(path));
    free(path);
}

/* ---- files that change under the reader ---- */

/* A file that shrinks after it was opened: reading says so, and the process lives. */
static void shrinking_files_are_an_error(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    static const char *const what[] = {"cut off while in use", "cannot be read"};
    char *path = in_temp("shrinking");
    float *values = malloc(COUNT * sizeof *values);
    trn_error err = {0};
    assert_non_null(values);
    for (size_t w = 0; w < TRN_COUNT(writers); w++) {
        source from = {0, SIZE_MAX, SIZE_MAX};
        const trn_write_options options = {.fill = fill, .user = &from};
        trn_weights *weights;
        assert_trn_ok(writers[w](path, streamed, 3, &options, &err), err);
        assert_trn_ok(trn_weights_open(path, NULL, &weights, &err), err);
        assert_int_equal(truncate(path, 20000), 0);
        assert_trn_fails(trn_weights_read(weights, "a", (int64_t[]){COUNT}, 1, values, &err), TRN_ERR_FORMAT,
                         err, what[w]);
        assert_trn_fails(trn_weights_read(weights, "b", (int64_t[]){10}, 1, values, &err), TRN_ERR_FORMAT,
                         err, "'b'");
        trn_weights_close(weights);
    }
    free(values);
    free(path);
}

/* ---- files larger than the address space ---- */

static uint64_t address_space(void)
{
    trn_error err = {0};
    char *text = trn_read_file("/proc/self/statm", 4096, NULL, &err);
    assert_non_null(text);
    uint64_t pages = strtoull(text, NULL, 10);
    free(text);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* In a process of its own: 0 when the last values of the file are read although the file cannot be mapped. */
static int read_under_limit(const char *path, uint64_t limit, int64_t big)
{
    pid_t child = fork();
    int status = -1;
    if (child == 0) {
        const struct rlimit most = {limit, limit};
        float values[6] = {0};
        trn_weights *weights;
        if (setrlimit(RLIMIT_AS, &most)) _exit(2);
        if (mmap(NULL, (size_t)big * sizeof(float), PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
            MAP_FAILED)
            _exit(3);
        if (trn_weights_open(path, NULL, &weights, NULL) != TRN_OK) _exit(4);
        if (trn_weights_read(weights, "small", (int64_t[]){6}, 1, values, NULL) != TRN_OK) _exit(5);
        _exit(memcmp(values, many, sizeof many) ? 6 : 0);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void files_beyond_the_address_space_are_read(void **state)
{
    (void)state;
    const int64_t big = (int64_t)1 << 28; /* a hole of 1 GiB in the file, which takes no room on disk */
    char *path = in_temp("large.safetensors");
    char header[256] = {0};
    uint64_t length = sizeof header - 8;
    int n = snprintf(header + 8, sizeof header - 8,
                     "{\"big\":{\"dtype\":\"F32\",\"shape\":[%lld],\"data_offsets\":[0,%lld]},"
                     "\"small\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[%lld,%lld]}}",
                     (long long)big, (long long)big * 4, (long long)big * 4, (long long)big * 4 + 24);
    assert_true(n > 0 && (size_t)n < sizeof header - 8);
    memset(header + 8 + n, ' ', sizeof header - 8 - (size_t)n);
    memcpy(header, &length, sizeof length);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(header, sizeof header, 1, file), 1);
    assert_int_equal(fseeko(file, (off_t)big * 4, SEEK_CUR), 0);
    assert_int_equal(fwrite(many, sizeof many, 1, file), 1);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(read_under_limit(path, address_space() + ((uint64_t)256 << 20), big), 0);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_wrapping_reads_back),
        cmocka_unit_test(archive_is_as_torch_wants_it),
        cmocka_unit_test(checksums),
        cmocka_unit_test(values_are_made_one_tensor_at_a_time),
        cmocka_unit_test(failures_leave_nothing),
        cmocka_unit_test(writing_refuses),
        cmocka_unit_test(shrinking_files_are_an_error),
        cmocka_unit_test(files_beyond_the_address_space_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
