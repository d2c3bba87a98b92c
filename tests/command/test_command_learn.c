/* terrane run and check of recipes that learn: probes and training over small folders of images, and what is
 * said of bad input: one error each, and nothing lost that was good before. */
#include "command_run.h"
#include "test_images.h"

#include <unistd.h>

enum { SIDE = 16 };

/* A folder with three recipes and a dataset. */
static char *workplace(const test_images *images)
{
    char *dir = strdup(test_temp_dir()), *data = test_path(dir, "data");
    trn_error err = {0};
    assert_non_null(dir);
    assert_trn_ok(trn_make_dirs(data, &err), err);
    test_images_write(data, images);
    put_text(
        dir, "probe.lua",
        "local terrane = require 'terrane'\n"
        "local p = terrane.params { dim = { default = 16 } }\n"
        "return terrane.probe {\n"
        "    title = 'small probe',\n"
        "    data = terrane.dataset { 'data' },\n"
        "    encoders = { terrane.encoder { 'mae-vit-base', weights = 'fresh', img_size = '16', patch = 8,\n"
        "                 dim = p.dim, depth = 1, heads = 2, pool = 'mean' } },\n"
        "    probes = { terrane.knn { k = 3 }, terrane.logistic {} },\n"
        "    cache = 'cache',\n"
        "}\n");
    put_text(
        dir, "train.lua",
        "local terrane = require 'terrane'\n"
        "local p = terrane.params { dim = { default = 16 }, epochs = { default = 3 } }\n"
        "return terrane.train {\n"
        "    title = 'small training',\n"
        "    data = terrane.dataset { 'data', flip = 0.5 },\n"
        "    encoders = { terrane.encoder { 'mae-vit-base', weights = 'fresh', img_size = '16', patch = 8,\n"
        "                 dim = p.dim, depth = 1, heads = 2, pool = 'mean' } },\n"
        "    epochs = p.epochs, batch = 8,\n"
        "}\n");
    put_text(dir, "segment.lua",
             "local terrane = require 'terrane'\n"
             "local net = terrane.graph(function(g, x)\n"
             "    return g.relu(g.conv(x, { channels = 4, kernel = 3, padding = 1 }))\n"
             "end)\n"
             "return terrane.train {\n"
             "    title = 'small segmentation',\n"
             "    data = terrane.dataset { 'data', classes = 2 },\n"
             "    network = net, epochs = 1, batch = 4,\n"
             "}\n");
    free(data);
    return dir;
}

static const test_images usual = {.side = SIDE, .classes = 3, .train = 8, .valid = 4, .test = 4};

static cJSON *read_json(const char *dir, const char *name)
{
    trn_error err = {0};
    size_t size;
    char *path = test_path(dir, name), *text = trn_read_file(path, 1 << 20, &size, &err);
    if (!text) fail_msg("%s", err.message);
    cJSON *json = cJSON_Parse(text);
    assert_non_null(json);
    free(text);
    free(path);
    return json;
}

static double figure(const cJSON *result, const char *name)
{
    const cJSON *item = cJSON_GetObjectItem(cJSON_GetObjectItem(result, "figures"), name);
    if (!cJSON_IsNumber(item)) fail_msg("no figure '%s'", name);
    return item ? item->valuedouble : 0;
}

/* ---- what works ---- */

static void a_probe_prints_its_scores_and_keeps_features(void **state)
{
    (void)state;
    char *dir = workplace(&usual);
    assert_works(terrane(dir, "", "check probe.lua"));
    assert_true(says("1 encoder, 2 probes"));
    assert_works(terrane(dir, "", "run probe.lua --out out"));
    assert_true(says("knn3") && says("logistic") && says("% accuracy on 12 test samples"));
    assert_true(says("out/result.json"));
    cJSON *result = read_json(dir, "out/result.json");
    assert_true(figure(result, "knn3") > 0.8);
    cJSON_Delete(result);

    assert_works(terrane(dir, "", "run probe.lua --out again --json"));
    cJSON *json = said_json();
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(json, "cached")));
    assert_true(cJSON_GetObjectItem(json, "knn3")->valuedouble > 0.8);
    cJSON_Delete(json);
    assert_works(terrane(dir, "", "run probe.lua --explain"));
    assert_true(says("24 train, 12 valid, 12 test") && says("probes    knn3, logistic"));
    free(dir);
}

static void training_prints_its_figures(void **state)
{
    (void)state;
    char *dir = workplace(&usual);
    assert_works(terrane(dir, "", "check train.lua"));
    assert_true(says("1 encoder, 3 epochs"));
    assert_works(terrane(dir, "", "run train.lua --out out"));
    assert_true(says("best accuracy") && says("on the test split") && says("samples/s"));
    assert_holds(dir, "data,out,probe.lua,segment.lua,train.lua");
    char *out = test_path(dir, "out");
    assert_holds(out, "best.safetensors,encoder.safetensors,last.safetensors,log.jsonl,loss.png,result.json");
    cJSON *result = read_json(dir, "out/result.json");
    assert_true(figure(result, "epochs") == 3 && figure(result, "steps") == 9);
    assert_true(figure(result, "accuracy") <= 1 && figure(result, "device_busy") <= 1);
    cJSON_Delete(result);
    assert_works(terrane(dir, "", "run train.lua --out out --json"));
    cJSON *json = said_json();
    assert_true(cJSON_GetObjectItem(json, "epochs")->valuedouble == 3);
    cJSON_Delete(json);
    assert_works(terrane(dir, "", "run train.lua --explain"));
    assert_true(says("24 train, 12 valid, 12 test") && says("flipped left to right by 0.5"));
    free(out);
    free(dir);
}

/* ---- bad datasets ---- */

static void labels_out_of_range(void **state)
{
    (void)state;
    char *dir = workplace(&usual);
    put_text(dir, "data/split.csv", "path,split,label\nc0_train_0.png,train,0\nc1_train_0.png,train,70000\n");
    assert_fails(terrane(dir, "", "run probe.lua"), TRN_ERR_FORMAT, "line 3: label '70000'");
    assert_true(says("probe.lua:5"));
    put_text(dir, "data/split.csv", "path,split,label\nc0_train_0.png,train,0\nc1_train_0.png,train,-2\n");
    assert_fails(terrane(dir, "", "check train.lua"), TRN_ERR_FORMAT, "line 3: label '-2'");
    put_text(dir, "data/split.csv", "path,split,label\nc0_train_0.png,train,0\nc1_train_0.png,test,2\n");
    assert_fails(terrane(dir, "", "run train.lua"), TRN_ERR_FORMAT, "no image is of class 1");
    assert_holds(dir, "data,probe.lua,segment.lua,train.lua");
    free(dir);
}

static void masks_out_of_range(void **state)
{
    (void)state;
    char *dir = workplace(
        &(test_images){.side = SIDE, .classes = 2, .train = 4, .valid = 1, .test = 1, .mask = "masks"});
    assert_works(terrane(dir, "", "run segment.lua --out good"));
    test_image_write(dir, "data/masks/c0_train_2.png", SIDE, SIDE, 1,
                     0); /* a picture where a mask should be */
    trn_status status = (trn_status)terrane(dir, "", "run segment.lua");
    assert_fails((int)status, TRN_ERR_FORMAT, "c0_train_2.png");
    free(dir);
}

static void empty_splits(void **state)
{
    (void)state;
    char *dir = workplace(&(test_images){.side = SIDE, .classes = 2, .valid = 2, .test = 2});
    assert_fails(terrane(dir, "", "run probe.lua"), TRN_ERR_FORMAT, "its training split is empty");
    assert_fails(terrane(dir, "", "run train.lua"), TRN_ERR_FORMAT, "its training split is empty");
    put_text(dir, "data/split.csv", "path,split,class\n");
    assert_fails(terrane(dir, "", "check train.lua"), TRN_ERR_FORMAT, "has no samples");
    free(dir);
}

static void a_class_that_training_lacks(void **state)
{
    (void)state;
    char *dir = workplace(&usual);
    trn_text csv = {0};
    trn_text_add(&csv, "path,split,class\n");
    for (int i = 0; i < 8; i++)
        trn_text_printf(&csv, "c0_train_%d.png,train,a\nc1_train_%d.png,train,b\n", i, i);
    trn_text_add(&csv, "c0_valid_0.png,valid,a\nc2_valid_0.png,valid,c\nc2_test_0.png,test,c\n");
    put_text(dir, "data/split.csv", trn_text_get(&csv));
    assert_fails(terrane(dir, "", "run probe.lua"), TRN_ERR_FORMAT, "is of class 2 ('c')");
    int status = terrane(dir, "", "run train.lua");
    assert_fails(status, (trn_status)status, "'c'");
    assert_true(status == TRN_ERR_ARGUMENT || status == TRN_ERR_FORMAT);
    trn_text_free(&csv);
    free(dir);
}

static void images_of_another_size_or_other_bands(void **state)
{
    (void)state;
    char *dir = workplace(&usual);
    test_image_write(dir, "data/c1_train_3.png", SIDE, SIDE + 8, 2, 0);
    assert_fails(terrane(dir, "", "run train.lua"), TRN_ERR_FORMAT, "c1_train_3.png");
    assert_fails(terrane(dir, "", "run probe.lua"), TRN_ERR_FORMAT, "c1_train_3.png");
    free(dir);
    dir = workplace(&usual);
    put_scene(dir, "data/c1_train_3.png", &(test_raster){.width = SIDE, .height = SIDE, .bands = 2});
    assert_fails(terrane(dir, "", "run train.lua"), TRN_ERR_FORMAT, "c1_train_3.png");
    free(dir);
    dir = workplace(&(test_images){.side = SIDE + 3, .classes = 2, .train = 2, .valid = 1});
    assert_fails(terrane(dir, "", "check train.lua"), TRN_ERR_ARGUMENT, "do not suit encoder 'mae-vit-base'");
    free(dir);
}

static void damaged_images(void **state)
{
    (void)state;
    char *dir = workplace(&usual);
    put_text(dir, "data/c2_train_5.png", "\xff\xd8\xff\xe0 a JPEG that ends here");
    assert_fails(terrane(dir, "", "run train.lua"), TRN_ERR_FORMAT, "c2_train_5.png");
    assert_fails(terrane(dir, "", "run probe.lua"), TRN_ERR_FORMAT, "c2_train_5.png");
    free(dir);
}

static void damaged_samples_of_geobench(void **state)
{
    (void)state;
    char *dir = workplace(&usual);
    put_text(dir, "data/default_partition.json",
             "{\"train\": [\"id_0000\"], \"valid\": [\"id_0001\"], \"test\": []}");
    put_text(dir, "data/label_map.json", "{\"0\": [\"id_0000\"], \"1\": [\"id_0001\"]}");
    put_text(dir, "data/id_0000.hdf5", "\x89HDF\r\n\x1a\n and nothing that belongs behind it");
    put_text(dir, "data/id_0001.hdf5", "no HDF5 at all");
    assert_fails(terrane(dir, "", "run probe.lua"), TRN_ERR_FORMAT, "id_0000");
    free(dir);
}

/* ---- checkpoints ---- */

static char *checkpoint_digits(const char *dir)
{
    trn_error err = {0};
    static char text[65];
    uint64_t size;
    char *path = test_path(dir, "out/last.safetensors");
    assert_trn_ok(trn_sha256_file(path, NULL, &size, text, &err), err);
    free(path);
    return text;
}

/* Checkpoints of this size do not fit, everything else does: the run ends with that, leaves nothing half, and
 * goes on when there is room. */
static void no_room_for_a_checkpoint(void **state)
{
    (void)state;
    char *dir = workplace(&usual), *checkpoint = test_path(dir, "out/last.safetensors");
    assert_fails(terrane(dir, "ulimit -f 2000; ", "run train.lua --out out --set dim=128"), TRN_ERR_IO,
                 "last.safetensors");
    assert_false(trn_path_exists(checkpoint));
    char *out = test_path(dir, "out");
    assert_holds(out, "best.safetensors,encoder.safetensors,log.jsonl,loss.png");
    assert_works(terrane(dir, "", "run train.lua --out out --set dim=128"));
    assert_true(trn_path_exists(checkpoint));
    free(checkpoint);
    free(out);
    free(dir);
}

static void a_checkpoint_of_another_model(void **state)
{
    (void)state;
    char *dir = workplace(&usual), before[65];
    assert_works(terrane(dir, "", "run train.lua --out out"));
    memcpy(before, checkpoint_digits(dir), sizeof before);
    int status = terrane(dir, "", "run train.lua --out out --set dim=32");
    assert_fails(status, (trn_status)status, "last.safetensors");
    assert_true(status == TRN_ERR_ARGUMENT || status == TRN_ERR_FORMAT);
    assert_string_equal(checkpoint_digits(dir), before);
    put_text(dir, "out/last.safetensors", "this was a checkpoint once");
    assert_fails(terrane(dir, "", "run train.lua --out out"), TRN_ERR_FORMAT, "last.safetensors");
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_probe_prints_its_scores_and_keeps_features),
        cmocka_unit_test(training_prints_its_figures),
        cmocka_unit_test(labels_out_of_range),
        cmocka_unit_test(masks_out_of_range),
        cmocka_unit_test(empty_splits),
        cmocka_unit_test(a_class_that_training_lacks),
        cmocka_unit_test(images_of_another_size_or_other_bands),
        cmocka_unit_test(damaged_images),
        cmocka_unit_test(damaged_samples_of_geobench),
        cmocka_unit_test(no_room_for_a_checkpoint),
        cmocka_unit_test(a_checkpoint_of_another_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
