/* Shader packs: what is read of one, and what is refused, as a pack comes from elsewhere. */
#include "test_support.h"

#include <stdlib.h>
#include <string.h>

#include "gpu.h"
#include "gpu_testing.h"

enum { WORDS = 8 };
static const uint32_t kernel[WORDS] = {0x07230203, 0x00010500, 1, 2, 3, 4, 5, 6};
static const char key[] = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
static const char head[] = "terrane shader pack 1 for " TRN_VERSION "\n";

static void hash_of(const void *data, size_t size, char text[65])
{
    uint8_t digest[32];
    trn_sha256(data, size, digest);
    trn_sha256_text(digest, text);
}

/* Writes dir/index, and the kernel when its bytes are given. */
static void write_pack(const char *dir, const char *index, size_t size, const void *data, size_t bytes)
{
    trn_error err = {0};
    char name[80];
    char *path = test_path(dir, "index");
    assert_trn_ok(trn_write_file(path, index, size, &err), err);
    free(path);
    if (!data) return;
    snprintf(name, sizeof name, "%s.spv", key);
    path = test_path(dir, name);
    assert_trn_ok(trn_write_file(path, data, bytes, &err), err);
    free(path);
}

/* An index of one line. */
static void index_of(char out[512], const char *first, const char *name, const char *hash, const char *bytes,
                     const char *end)
{
    snprintf(out, 512, "%s%s %s %s matmul_matrix.comp%s", first, name, hash, bytes, end);
}

static void a_whole_pack_is_read(void **state)
{
    (void)state;
    trn_error err = {0};
    char hash[65], index[512];
    char *dir = strdup(test_temp_dir());
    uint32_t *words = NULL;
    size_t bytes = 0;
    hash_of(kernel, sizeof kernel, hash);
    index_of(index, head, key, hash, "32", "\n");
    write_pack(dir, index, strlen(index), kernel, sizeof kernel);
    assert_int_equal(trn_pack_probe(dir), 1);
    assert_trn_ok(trn_pack_read(dir, key, &words, &bytes, &err), err);
    assert_int_equal(bytes, sizeof kernel);
    assert_memory_equal(words, kernel, sizeof kernel);
    free(words);
    assert_trn_fails(trn_pack_read(dir, hash, &words, &bytes, &err), TRN_ERR_ARGUMENT, err, "no kernel");
    free(dir);
}

static void damaged_indexes_are_not_used(void **state)
{
    (void)state;
    char hash[65], index[512];
    char *dir = strdup(test_temp_dir());
    const char *const up = "../../../../../../../../../../../../../../../../../../../../../../etc";
    assert_int_equal(trn_pack_probe(dir), -1);
    hash_of(kernel, sizeof kernel, hash);
    const struct {
        const char *first, *key, *hash, *bytes, *end;
    } wrong[] = {
        {"terrane shader pack 1 for 0.0.0\n", key, hash, "32", "\n"}, /* of another version */
        {"", key, hash, "32", "\n"},
        {head, up, hash, "32", "\n"}, /* not a hash, but a way out */
        {head, "abc", hash, "32", "\n"},
        {head, key, "ABC", "32", "\n"},
        {head, key, hash, "33", "\n"}, /* not whole words */
        {head, key, hash, "-32", "\n"},
        {head, key, hash, "99999999999", "\n"},
        {head, key, hash, "32", ""}, /* cut off */
        {head, key, hash, "32", " more\n"},
        {head, key, hash, "32", "\n\n"},
    };
    for (size_t i = 0; i < TRN_COUNT(wrong); i++) {
        index_of(index, wrong[i].first, wrong[i].key, wrong[i].hash, wrong[i].bytes, wrong[i].end);
        write_pack(dir, index, strlen(index), kernel, sizeof kernel);
        if (trn_pack_probe(dir) != -1) fail_msg("index %zu was taken: %s", i, index);
    }
    index_of(index, head, key, hash, "32", "\n");
    index[strlen(head) + 3] = '\0'; /* a byte of zero inside */
    write_pack(dir, index, strlen(head) + 100, kernel, sizeof kernel);
    assert_int_equal(trn_pack_probe(dir), -1);
    free(dir);
}

static void kernels_are_what_the_index_tells(void **state)
{
    (void)state;
    trn_error err = {0};
    char hash[65], index[512];
    char *dir = strdup(test_temp_dir());
    uint32_t *words = NULL, other[WORDS];
    size_t bytes = 0;
    hash_of(kernel, sizeof kernel, hash);
    index_of(index, head, key, hash, "32", "\n");
    write_pack(dir, index, strlen(index), NULL, 0);
    assert_trn_fails(trn_pack_read(dir, key, &words, &bytes, &err), TRN_ERR_IO, err, key);
    write_pack(dir, index, strlen(index), kernel, sizeof kernel - 4);
    assert_trn_fails(trn_pack_read(dir, key, &words, &bytes, &err), TRN_ERR_FORMAT, err,
                     "write the pack anew");
    memcpy(other, kernel, sizeof other);
    other[WORDS - 1]++;
    write_pack(dir, index, strlen(index), other, sizeof other);
    assert_trn_fails(trn_pack_read(dir, key, &words, &bytes, &err), TRN_ERR_FORMAT, err,
                     "write the pack anew");
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_pack_is_read),
        cmocka_unit_test(damaged_indexes_are_not_used),
        cmocka_unit_test(kernels_are_what_the_index_tells),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
