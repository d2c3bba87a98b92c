/* terrane bench: its parts, what it prints for machines, and comparing with an earlier run. */
#include "command_run.h"

#include <math.h>

/* A ViT that takes no time. */
#define SMALL "-c img_size=32 -c dim=32 -c depth=1 -c heads=2 "
#define ENCODER "bench --model mae-vit-base " SMALL "--runs 2 --json "

static double number(const cJSON *object, const char *name)
{
    const cJSON *item = cJSON_GetObjectItem(object, name);
    if (!cJSON_IsNumber(item)) fail_msg("no number '%s' in\n%s", name, said);
    return cJSON_GetNumberValue(item);
}

static const char *text(const cJSON *object, const char *name)
{
    const char *value = cJSON_GetStringValue(cJSON_GetObjectItem(object, name));
    if (!value) fail_msg("no text '%s' in\n%s", name, said);
    return value;
}

/* The i-th entry of a report. */
static const cJSON *entry_at(const cJSON *json, int i)
{
    const cJSON *entry = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "entries"), i);
    if (!entry) fail_msg("no entry %d in\n%s", i, said);
    return entry;
}

static int entry_count(const cJSON *json)
{
    return cJSON_GetArraySize(cJSON_GetObjectItem(json, "entries"));
}

static void times_an_encoder(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    assert_works(terrane(dir, "", "bench --model galileo-nano --batch 2 --runs 3 --json"));
    cJSON *json = said_json();
    const cJSON *const places[] = {json, entry_at(json, 0)}; /* of one entry in both */
    for (size_t i = 0; i < TRN_COUNT(places); i++) {
        double median = number(places[i], "seconds_median");
        assert_true(median > 0 && fabs(number(places[i], "images_per_second") * median - 2) < 1e-4);
        assert_true(number(places[i], "seconds_min") <= median);
        assert_true(number(places[i], "gflop") > 0 && number(places[i], "fraction") > 0);
        assert_true(number(places[i], "memory_bytes") >= number(places[i], "plan_bytes"));
        assert_true(number(places[i], "process_peak_bytes") > 1e6);
        assert_true(number(places[i], "first_run_seconds") > 0);
        assert_int_equal(number(places[i], "batch"), 2);
        assert_string_equal(text(places[i], "model"), "galileo-nano");
        assert_string_equal(text(places[i], "precision"), "float32");
        assert_true(*text(places[i], "device"));
    }
    cJSON_Delete(json);
    assert_works(terrane(dir, "", "bench --model galileo-nano --runs 1"));
    assert_true(says("galileo-nano") && says("images/s") && says("GFLOP/s"));
    assert_works(terrane(dir, "", ENCODER "--precision auto"));
    json = said_json();
    bool half = !strcmp(text(json, "precision"), "float16"); /* by the device */
    if (!half) assert_string_equal(text(json, "precision"), "float32");
    assert_true(half == (strstr(text(json, "key"), ", float16") != NULL));
    cJSON_Delete(json);
    assert_holds(dir, "");
}

static void finds_the_best_batch(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    assert_works(terrane(dir, "", ENCODER "--batch 1,2 --batch best"));
    cJSON *json = said_json();
    assert_int_equal(entry_count(json), 3);
    assert_null(cJSON_GetObjectItem(json, "model")); /* of several entries none stands out */
    const cJSON *one = entry_at(json, 0), *two = entry_at(json, 1), *best = entry_at(json, 2);
    assert_true(number(one, "batch") == 1 && number(two, "batch") == 2 && number(best, "batch") >= 1);
    assert_string_equal(text(best, "key"), "encoder mae-vit-base, batch best");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(best, "best")));
    assert_true(number(best, "images_per_second") >= number(one, "images_per_second"));
    assert_true(number(best, "images_per_second") >= number(two, "images_per_second"));
    cJSON_Delete(json);
}

static void measures_the_device(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    assert_works(terrane(dir, "", "bench --only device --json"));
    cJSON *json = said_json();
    static const char *const wanted[] = {"device float32 multiply-add",
                                         "device copy in memory",
                                         "device read from cache",
                                         "device host to device",
                                         "device device to host",
                                         "device dispatch",
                                         "device submission"};
    for (size_t i = 0; i < TRN_COUNT(wanted); i++) {
        bool found = false;
        for (int k = 0; k < entry_count(json); k++) {
            const cJSON *entry = entry_at(json, k);
            if (strcmp(text(entry, "key"), wanted[i]) != 0) continue;
            found = number(entry, "value") > 0 && !strcmp(text(entry, "kind"), "device");
        }
        if (!found) fail_msg("no '%s' in\n%s", wanted[i], said);
    }
    cJSON_Delete(json);
}

static void measures_operators(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    assert_works(terrane(dir, "",
                         "bench --only operators --model mae-vit-base " SMALL
                         "--batch 1,2 --product 5x7x9 --runs 1 --json"));
    cJSON *json = said_json();
    bool product = false, attention = false;
    for (int k = 0; k < entry_count(json); k++) {
        const cJSON *entry = entry_at(json, k);
        assert_string_equal(text(entry, "kind"), "operator");
        assert_true(number(entry, "value") > 0 && number(entry, "count") >= 1 &&
                    number(entry, "fraction") >= 0);
        assert_true(*text(entry, "kernel"));
        bool of_product = !strcmp(text(entry, "models"), "product");
        if (of_product) assert_true(fabs(number(entry, "flop") - 2 * 5 * 7 * 9) < 0.5);
        product |= of_product && strstr(text(entry, "key"), "[5,7] [9,7] -> [5,9]");
        attention |= strstr(text(entry, "key"), "attention") != NULL;
    }
    assert_true(product && attention);
    cJSON_Delete(json);
    assert_fails(terrane(dir, "", "bench --product 5x7"), TRN_ERR_ARGUMENT, "wanted MxKxN");
    assert_fails(terrane(dir, "", "bench --product 5x7x0"), TRN_ERR_ARGUMENT, "wanted MxKxN");
    assert_fails(terrane(dir, "", "bench --only device --product 5x7x9"), TRN_ERR_ARGUMENT,
                 "--only operators");
}

static void measures_training_and_scenes(void **state)
{
    (void)state;
    char *dir = test_temp_dir(), *inner = test_path(dir, "tmp");
    trn_error err = {0};
    assert_trn_ok(trn_make_dirs(inner, &err), err);
    assert_works(terrane(dir, "TMPDIR=tmp ",
                         "bench --only training,scene --model mae-vit-base " SMALL
                         "--batch 2 --recompute --runs 1 --json"));
    cJSON *json = said_json();
    assert_int_equal(entry_count(json), 2);
    const cJSON *training = entry_at(json, 0), *scene = entry_at(json, 1);
    assert_string_equal(text(training, "key"), "training mae-vit-base, batch 2, blocks recomputed");
    assert_true(number(training, "ratio") > 1 && number(training, "step_seconds_median") > 0);
    assert_true(number(training, "device_bytes") > number(training, "forward_device_bytes"));
    assert_string_equal(text(scene, "kind"), "scene");
    double pixels = number(scene, "side") * number(scene, "side");
    assert_true(fabs(number(scene, "megapixels_per_second") * number(scene, "seconds_median") -
                     pixels * 1e-6) < 1e-4 * pixels);
    assert_true(number(scene, "windows") > 1);
    cJSON_Delete(json);
    assert_holds(inner, ""); /* scene, weights and embedding are gone */
    assert_works(terrane(dir, "", "bench --training --model mae-vit-base " SMALL "--batch 1 --runs 1"));
    assert_true(says("times the forward pass"));
    free(inner);
}

static void refuses_wrong_options(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    assert_fails(terrane(dir, "", "bench --only devices"), TRN_ERR_ARGUMENT, "did you mean 'device'?");
    assert_fails(terrane(dir, "", "bench --only device,,scene"), TRN_ERR_ARGUMENT, "commas");
    assert_fails(terrane(dir, "", "bench --model galileo-nona"), TRN_ERR_ARGUMENT, "galileo-nano");
    assert_fails(terrane(dir, "", "bench --model rcf"), TRN_ERR_UNSUPPORTED, "learns from a scene");
    assert_fails(terrane(dir, "", "bench --model galileo-nano --batch 0"), TRN_ERR_ARGUMENT, "or best");
    assert_fails(terrane(dir, "", "bench --model galileo-nano --batch 1,x"), TRN_ERR_ARGUMENT,
                 "--batch is 'x'");
    assert_fails(terrane(dir, "", "bench --model galileo-nano --recompute"), TRN_ERR_ARGUMENT,
                 "--only training");
    assert_fails(terrane(dir, "", "bench --compare missing.json"), TRN_ERR_IO, "missing.json");
}

static void compares_with_an_earlier_run(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    assert_works(terrane(dir, "", ENCODER "--batch 1,2 -q > before.json; true"));
    assert_works(terrane(dir, "", ENCODER "--batch 2,3 --compare before.json"));
    cJSON *json = said_json();
    const cJSON *compared = cJSON_GetObjectItem(json, "compared");
    const cJSON *entries = cJSON_GetObjectItem(compared, "entries");
    assert_int_equal(cJSON_GetArraySize(entries), 1);
    const cJSON *entry = cJSON_GetArrayItem(entries, 0);
    assert_string_equal(text(entry, "key"), "encoder mae-vit-base, batch 2");
    assert_true(fabs(number(entry, "ratio") - number(entry, "now") / number(entry, "before")) <
                1e-3 * number(entry, "ratio"));
    const cJSON *not_now = cJSON_GetArrayItem(cJSON_GetObjectItem(compared, "not_now"), 0);
    assert_string_equal(cJSON_GetStringValue(not_now), "encoder mae-vit-base, batch 1");
    const cJSON *not_before = cJSON_GetArrayItem(cJSON_GetObjectItem(compared, "not_before"), 0);
    assert_string_equal(cJSON_GetStringValue(not_before), "encoder mae-vit-base, batch 3");
    cJSON_Delete(json);
}

/* Times count the other way round: half of them is a ratio of 2. */
static void knows_which_way_is_better(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    put_text(
        dir, "slow.json",
        "{\"ok\": true, \"bench\": 1, \"device\": \"d\", \"entries\": [{\"key\": \"training mae-vit-base, "
        "batch 1\", \"value\": 1e9, \"unit\": \"s\"}, {\"key\": \"encoder mae-vit-base, batch 1\", "
        "\"value\": "
        "1e-9, \"unit\": \"images/s\"}]}");
    assert_works(terrane(dir, "",
                         "bench --only encoders,training --model mae-vit-base " SMALL
                         "--batch 1 --runs 1 --json --compare slow.json"));
    cJSON *json = said_json();
    const cJSON *entries = cJSON_GetObjectItem(cJSON_GetObjectItem(json, "compared"), "entries");
    assert_int_equal(cJSON_GetArraySize(entries), 2);
    for (int i = 0; i < 2; i++)
        assert_true(number(cJSON_GetArrayItem(entries, i), "ratio") > 1e6);
    cJSON_Delete(json);
}

static void refuses_files_of_another_form(void **state)
{
    (void)state;
    static const char *const files[][2] = {
        {"hello", "no JSON"},
        {"{\"ok\": true}", "\"bench\""},
        {"[1, 2]", "\"bench\""},
        {"{\"bench\": 2, \"entries\": []}", "another version"},
        {"{\"bench\": 1}", "\"entries\""},
        {"{\"bench\": 1, \"entries\": [{\"key\": \"a\", \"unit\": \"s\"}]}", "an entry lacks"},
        {"{\"bench\": 1, \"entries\": [{\"key\": \"a\", \"unit\": \"s\", \"value\": 0}]}", "an entry lacks"},
        {"{\"bench\": 1, \"entries\": [7]}", "an entry lacks"},
    };
    char *dir = test_temp_dir();
    for (size_t i = 0; i < TRN_COUNT(files); i++) {
        put_text(dir, "other.json", files[i][0]);
        assert_fails(terrane(dir, "", "bench --model galileo-nano --compare other.json"), TRN_ERR_FORMAT,
                     files[i][1]);
    }
}

/* Of a budget that is over at once, the first entry is measured or left out, and what is left out is said. */
static void keeps_to_a_budget(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    assert_works(terrane(dir, "", ENCODER "--batch 1,4096 --seconds 1"));
    cJSON *json = said_json();
    const cJSON *left_out = cJSON_GetObjectItem(json, "left_out"), *one;
    assert_int_equal(entry_count(json) + cJSON_GetArraySize(left_out), 2); /* fast devices may do both */
    cJSON_ArrayForEach (one, left_out)
        assert_non_null(strstr(cJSON_GetStringValue(one), "--seconds"));
    cJSON_Delete(json);
    /* without a name all of the usual encoders are meant */
    assert_works(terrane(dir, "", "bench --only encoders --seconds 1"));
    assert_true(says("mae-vit-base") && says("hiera-tiny") && says("galileo-nano"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_an_encoder),
        cmocka_unit_test(finds_the_best_batch),
        cmocka_unit_test(measures_the_device),
        cmocka_unit_test(measures_operators),
        cmocka_unit_test(measures_training_and_scenes),
        cmocka_unit_test(refuses_wrong_options),
        cmocka_unit_test(compares_with_an_earlier_run),
        cmocka_unit_test(knows_which_way_is_better),
        cmocka_unit_test(refuses_files_of_another_form),
        cmocka_unit_test(keeps_to_a_budget),
    };
    return cmocka_run_group_tests_name("command.bench", tests, NULL, NULL);
}
