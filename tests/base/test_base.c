#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void errors_chain_causes(void **state)
{
    (void)state;
    trn_error err = {0};
    assert_int_equal(trn_fail(&err, TRN_ERR_FORMAT, "bad byte %d", 7), TRN_ERR_FORMAT);
    assert_int_equal(trn_wrap(&err, "reading '%s'", "a.tif"), TRN_ERR_FORMAT);
    assert_string_equal(err.message, "reading 'a.tif': bad byte 7");
    char big[5000];
    memset(big, 'x', sizeof big);
    big[sizeof big - 1] = 0;
    trn_wrap(&err, "%s", big);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_int_equal(trn_fail(NULL, TRN_ERR_IO, "nobody listens"), TRN_ERR_IO);
}

static void sizes_do_not_overflow(void **state)
{
    (void)state;
    size_t out;
    assert_false(trn_mul_size(SIZE_MAX, 2, &out));
    assert_false(trn_add_size(SIZE_MAX, 1, &out));
    char *array = NULL;
    size_t capacity = 0;
    assert_false(trn_grow(&array, &capacity, SIZE_MAX / 2 + 2, 8));
    assert_null(array);
    trn_arena *arena = trn_arena_create();
    assert_null(trn_arena_array(arena, SIZE_MAX / 4, 8));
    char *text = trn_arena_printf(arena, "%0*d", 40000, 1);
    assert_int_equal(strlen(text), 40000);
    trn_arena_destroy(arena);
}

static void nearest_name(void **state)
{
    (void)state;
    static const char *const names[] = {"galileo-nano", "dinov2-small", "rcf"};
    assert_string_equal(trn_nearest("galilo-nano", names, 3), "galileo-nano");
    assert_string_equal(trn_nearest("rfc", names, 3), "rcf");
    assert_null(trn_nearest("prithvi", names, 3));
}

static void strict_numbers(void **state)
{
    (void)state;
    int64_t i;
    double d;
    assert_true(trn_parse_int("-12", &i) && i == -12);
    assert_false(trn_parse_int("12x", &i));
    assert_false(trn_parse_int("", &i));
    assert_false(trn_parse_int("99999999999999999999", &i));
    assert_true(trn_parse_double("1e-3", &d) && d == 1e-3);
    assert_false(trn_parse_double("nan", &d));
    assert_false(trn_parse_double("1,5", &d));
}

static void hashes_match_known_vectors(void **state)
{
    (void)state;
    assert_true(trn_fnv1a64("test", 4, TRN_FNV_SEED) == 0xf9e6e6ef197c2b25ull);
    uint64_t hash = trn_fnv1a64("blocks.0.attn.qkv.weight", 24, TRN_FNV_SEED);
    assert_true(hash == 0xb8eed840ed199670ull);
    assert_true(fabs(trn_hash_uniform(hash, 0) - 0.467316031) < 1e-8);
    uint8_t digest[32];
    trn_sha256("abc", 3, digest);
    static const uint8_t abc[4] = {0xba, 0x78, 0x16, 0xbf};
    assert_memory_equal(digest, abc, 4);
    char million[1000];
    memset(million, 'a', sizeof million);
    trn_sha256(million, 119, digest); /* padding crosses a block */
    static const uint8_t a119[4] = {0x31, 0xeb, 0xa5, 0x1c};
    assert_memory_equal(digest, a119, 4);
    uint8_t pieces[32];
    char text[65];
    for (size_t step = 1; step <= 200; step += 7) { /* the same in pieces of any size */
        trn_sha256_state state_;
        trn_sha256_begin(&state_);
        for (size_t at = 0; at < sizeof million; at += step)
            trn_sha256_update(&state_, million + at, TRN_MIN(step, sizeof million - at));
        trn_sha256(million, sizeof million, digest);
        trn_sha256_end(&state_, pieces);
        assert_memory_equal(pieces, digest, sizeof digest);
    }
    trn_sha256("abc", 3, digest);
    trn_sha256_text(digest, text);
    assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void files_are_hashed(void **state)
{
    (void)state;
    enum { SIZE = (2 << 20) + 17 };
    trn_error err = {0};
    uint64_t size = 1;
    uint8_t digest[32];
    char text[65], wanted[65], *path = test_path(test_temp_dir(), "data"), *data = malloc(SIZE);
    assert_non_null(data);
    for (size_t i = 0; i < SIZE; i++)
        data[i] = (char)(i * 31 >> 3);
    assert_trn_ok(trn_write_file(path, data, SIZE, &err), err);
    assert_trn_ok(trn_sha256_file(path, NULL, &size, text, &err), err);
    trn_sha256(data, SIZE, digest);
    trn_sha256_text(digest, wanted);
    assert_string_equal(text, wanted);
    assert_int_equal(size, SIZE);
    assert_int_equal(remove(path), 0);
    assert_trn_fails(trn_sha256_file(path, NULL, &size, text, &err), TRN_ERR_IO, err, path);
    free(data);
    free(path);
}

static void half_floats_round_trip(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = trn_f16_to_f32((uint16_t)h);
        if (isnan(f))
            assert_true(isnan(trn_f16_to_f32(trn_f32_to_f16(f))));
        else
            assert_int_equal(trn_f32_to_f16(f), h);
    }
    assert_int_equal(trn_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(trn_f32_to_f16(65519.0f), 0x7bff);
    assert_int_equal(trn_f32_to_f16(1.0f + 0x1p-11f), 0x3c00); /* tie to even */
    assert_int_equal(trn_f32_to_f16(1.0f + 3 * 0x1p-11f), 0x3c02);
}

static void outputs_appear_when_complete(void **state)
{
    (void)state;
    trn_error err = {0};
    char *path = test_path(test_temp_dir(), "a.bin");
    trn_output *output;
    assert_trn_ok(trn_output_create(path, &output, &err), err);
    assert_false(trn_path_exists(path));
    assert_true(trn_path_exists(trn_output_path(output)));
    trn_output_abandon(output);
    assert_false(trn_path_exists(path));
    assert_trn_ok(trn_write_file(path, "hello", 5, &err), err);
    size_t size;
    char *data = trn_read_file(path, 100, &size, &err);
    assert_string_equal(data, "hello");
    assert_null(trn_read_file(path, 4, &size, &err));
    assert_trn_fails(trn_write_file("/nonexistent/a", "x", 1, &err), TRN_ERR_IO, err, "/nonexistent/a");
    free(data);
    free(path);
}

static void json_text_is_escaped(void **state)
{
    (void)state;
    trn_text text = {0};
    trn_text_json(&text, "a\"b\\c\n");
    assert_string_equal(trn_text_get(&text), "\"a\\\"b\\\\c\\u000a\"");
    trn_text_free(&text);
}

static void amounts_are_short(void **state)
{
    (void)state;
    static const struct {
        double seconds;
        const char *text;
    } times[] = {{0, "0.0s"},     {4.24, "4.2s"}, {9.94, "9.9s"},   {9.96, "10s"},     {59.4, "59s"},
                 {59.6, "1m00s"}, {125, "2m05s"}, {3599, "59m59s"}, {3599.6, "1h00m"}, {12000, "3h20m"}};
    char text[32];
    for (size_t i = 0; i < TRN_COUNT(times); i++)
        assert_string_equal(trn_format_seconds(times[i].seconds, text), times[i].text);
    assert_string_equal(trn_format_bytes(1023, text), "1023 B");
    assert_string_equal(trn_format_bytes(1536, text), "1.50 KiB");
}

static void dates_are_read_and_found(void **state)
{
    (void)state;
    trn_date d;
    static const char *const good[] = {"2018-06-02", "20180602", "2018153"};
    for (size_t i = 0; i < TRN_COUNT(good); i++) {
        assert_true(trn_date_parse(good[i], &d));
        assert_true(d.year == 2018 && d.month == 6 && d.day == 2 && d.day_of_year == 153);
    }
    static const char *const bad[] = {
        "",        "2018",     "2018-6-2",    "20181301",  "2018-02-29",    "2018-06-02x", "2018366",
        "2018000", "18000101", "2018-06-021", "201806021", "2018060212345", "2018--06-02"};
    for (size_t i = 0; i < TRN_COUNT(bad); i++)
        if (trn_date_parse(bad[i], &d)) fail_msg("'%s' is no date", bad[i]);
    assert_true(trn_date_parse("2020-12-31", &d) && d.day_of_year == 366);
    assert_true(trn_date_parse("2020366", &d) && d.month == 12 && d.day == 31);

    assert_true(trn_date_find("HLS.S30.T15RXN.2018153T165849.v2.0.B02.tif", &d) && d.day_of_year == 153);
    assert_true(trn_date_find("LC08_L2SP_044034_20130330_20200912_02_T1_SR_B4.TIF", &d) && d.month == 3);
    assert_true(trn_date_find("T32TNS_20180602T101031_B04_10m.jp2", &d) && d.day == 2);
    assert_true(trn_date_find("2018-06-02_B04.tif", &d) && d.month == 6);
    assert_true(trn_date_find("x20180602101031.tif", &d) && d.day == 2);
    assert_false(trn_date_find("L7_ETMs.tif", &d) || trn_date_find("120180602.tif", &d));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_chain_causes),
        cmocka_unit_test(sizes_do_not_overflow),
        cmocka_unit_test(nearest_name),
        cmocka_unit_test(strict_numbers),
        cmocka_unit_test(hashes_match_known_vectors),
        cmocka_unit_test(files_are_hashed),
        cmocka_unit_test(half_floats_round_trip),
        cmocka_unit_test(outputs_appear_when_complete),
        cmocka_unit_test(json_text_is_escaped),
        cmocka_unit_test(amounts_are_short),
        cmocka_unit_test(dates_are_read_and_found),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
