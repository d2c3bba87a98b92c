/* Checkpoints made up: of every family, in both containers, they load as the published ones would, and hold
 * the values of the synthetic rule. */
#include "test_support.h"

#include <stdlib.h>
#include <string.h>

#include "models_private.h"

/* The settings "key=value key=value" of a family's self-test; the words stay in text. */
static size_t split_settings(char *text, trn_setting *out, size_t max)
{
    size_t count = 0;
    for (char *word = strtok(text, " "); word && count < max; word = strtok(NULL, " ")) {
        char *equals = strchr(word, '=');
        assert_non_null(equals);
        *equals = 0;
        out[count++] = (trn_setting){word, equals + 1};
    }
    return count;
}

static void compare_to_rule(trn_encoder *encoder, trn_weights *weights)
{
    trn_error err = {0};
    trn_weights *synthetic;
    trn_wanted *wanted;
    size_t count;
    assert_trn_ok(trn_weights_open_synthetic(&synthetic, &err), err);
    assert_trn_ok(trn_encoder_wanted(encoder, &wanted, &count, &err), err);
    assert_int_equal(count, trn_weights_count(weights));
    for (size_t i = 0; i < count; i++) {
        const trn_shape *shape = &wanted[i].shape;
        size_t bytes = (size_t)trn_shape_count(shape) * sizeof(float);
        float *has = malloc(bytes), *rule = malloc(bytes);
        assert_non_null(has);
        assert_non_null(rule);
        assert_trn_ok(trn_weights_read(weights, wanted[i].name, shape->dim, shape->ndim, has, &err), err);
        assert_trn_ok(trn_weights_read(synthetic, wanted[i].name, shape->dim, shape->ndim, rule, &err), err);
        assert_memory_equal(has, rule, bytes);
        free(has);
        free(rule);
    }
    free(wanted);
    trn_weights_close(synthetic);
}

static void check_family(const trn_family *family, const char *path)
{
    trn_error err = {0};
    trn_setting settings[32];
    char text[1024];
    trn_encoder *encoder;
    trn_weights *weights;
    size_t channels;
    snprintf(text, sizeof text, "%s", family->tiny);
    size_t count = split_settings(text, settings, TRN_COUNT(settings));
    const char *name = family->configs[0].info.name;
    assert_trn_ok(trn_encoder_create(name, settings, count, &encoder, &err), err);
    if (!trn_encoder_get_spec(encoder)->needs_weights) {
        assert_trn_fails(trn_model_write_synthetic(name, settings, count, path, NULL, &err), TRN_ERR_ARGUMENT,
                         err, "takes no weights");
        trn_encoder_destroy(encoder);
        return;
    }
    assert_trn_ok(trn_model_write_synthetic(name, settings, count, path, NULL, &err), err);
    assert_trn_ok(trn_weights_open(path, NULL, &weights, &err), err);
    assert_trn_ok(trn_encoder_choose_all_bands(encoder, &channels, &err), err);
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    compare_to_rule(encoder, weights);
    printf("%s: %zu tensors\n", name, trn_weights_count(weights));
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void every_family_loads_what_is_made_up(void **state)
{
    (void)state;
    static const char *const files[] = {"w.pt", "w.safetensors"};
    char *dir = test_temp_dir();
    for (size_t f = 0; f < TRN_COUNT(files); f++) {
        char *path = test_path(dir, files[f]);
        for (size_t i = 0; i < trn_family_count; i++)
            check_family(trn_families[i], path);
        free(path);
    }
}

/* The wrapping is the published file's: {'model': {..}, 'epoch': 1} of MAE. */
static void wrapping_is_the_published_one(void **state)
{
    (void)state;
    static const trn_setting small[] = {{"dim", "24"}, {"depth", "1"}, {"heads", "2"}, {"img_size", "32"}};
    const trn_weights_options wrapped = {.wrapper = "model"};
    char *dir = test_temp_dir(), *path = test_path(dir, "mae.pth"),
         *plain = test_path(dir, "mae.safetensors");
    trn_error err = {0};
    trn_weights *weights;
    assert_trn_ok(trn_model_write_synthetic("mae-vit-base", small, 4, path, NULL, &err), err);
    assert_trn_ok(trn_weights_open(path, &wrapped, &weights, &err), err);
    assert_non_null(trn_weights_find(weights, "blocks.0.attn.qkv.weight"));
    trn_weights_close(weights);
    assert_trn_ok(trn_model_write_synthetic("mae-vit-base", small, 4, plain, NULL, &err), err);
    assert_int_equal(trn_weights_open(plain, &wrapped, &weights, &err), TRN_ERR_ARGUMENT);
    free(path);
    free(plain);
}

/* SAM 2's have the authors' names, or timm's when asked; an encoder that is told nothing takes both. */
static void names_of_sam2(void **state)
{
    (void)state;
    static const struct {
        const char *names, *tensor;
    } cases[] = {{NULL, "image_encoder.trunk.blocks.0.mlp.layers.0.weight"},
                 {"official", "image_encoder.trunk.blocks.0.mlp.layers.0.weight"},
                 {"timm", "blocks.0.mlp.fc1.weight"}};
    enum { OWN = 5 };
    trn_setting settings[OWN + 1] = {
        {"dim", "16"}, {"stages", "1,1,1,1"}, {"global_blocks", "none"}, {"img_size", "64"}, {"heads", "1"}};
    char *path = test_path(test_temp_dir(), "sam.pt");
    trn_error err = {0};
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        trn_weights *weights;
        trn_encoder *encoder;
        size_t channels;
        settings[OWN] = (trn_setting){"names", cases[i].names};
        assert_trn_ok(trn_model_write_synthetic("sam2.1-hiera-tiny", settings, OWN + (cases[i].names != NULL),
                                                path, NULL, &err),
                      err);
        assert_trn_ok(trn_weights_open(path, &(trn_weights_options){.wrapper = "model"}, &weights, &err),
                      err);
        assert_non_null(trn_weights_find(weights, cases[i].tensor));
        assert_trn_ok(trn_encoder_create("sam2.1-hiera-tiny", settings, OWN, &encoder, &err), err);
        assert_trn_ok(trn_encoder_choose_all_bands(encoder, &channels, &err), err);
        assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
        compare_to_rule(encoder, weights);
        trn_encoder_destroy(encoder);
        trn_weights_close(weights);
    }
    free(path);
}

static void expect_misfit(const char *name, const trn_setting *setting, trn_weights *weights,
                          const char *advice)
{
    trn_error err = {0};
    trn_encoder *encoder;
    size_t channels;
    assert_trn_ok(trn_encoder_create(name, setting, setting ? 1 : 0, &encoder, &err), err);
    assert_trn_ok(trn_encoder_choose_all_bands(encoder, &channels, &err), err);
    assert_trn_fails(trn_encoder_load(encoder, weights, NULL, &err), TRN_ERR_FORMAT, err, advice);
    trn_encoder_destroy(encoder);
}

/* Weights of another size: the error says whose they are, when they are anybody's. */
static void wrong_size_is_named(void **state)
{
    (void)state;
    const trn_setting longer = {"depth", "6"}, shorter = {"depth", "3"};
    static const char of_nano[] = "These look like the weights of 'galileo-nano' with";
    char *path = test_path(test_temp_dir(), "w.pt");
    trn_error err = {0};
    trn_weights *weights;
    assert_trn_ok(trn_model_write_synthetic("galileo-nano", NULL, 0, path, NULL, &err), err);
    assert_trn_ok(trn_weights_open(path, NULL, &weights, &err), err);
    expect_misfit("galileo-tiny", NULL, weights, of_nano);
    expect_misfit("galileo-nano", &longer, weights, of_nano);
    trn_weights_close(weights);
    assert_trn_ok(trn_model_write_synthetic("galileo-nano", &shorter, 1, path, NULL, &err), err);
    assert_trn_ok(trn_weights_open(path, NULL, &weights, &err), err);
    expect_misfit("galileo-nano", NULL, weights, "Is it another model");
    trn_weights_close(weights);
    free(path);
}

static void refusals(void **state)
{
    (void)state;
    char *dir = test_temp_dir(), *path = test_path(dir, "w.pt"), *odd = test_path(dir, "w.npy");
    const trn_setting wrong = {"dim", "7"};
    trn_error err = {0};
    assert_trn_fails(trn_model_write_synthetic("mae-vit-base", NULL, 0, odd, NULL, &err), TRN_ERR_ARGUMENT,
                     err, ".safetensors");
    assert_trn_fails(trn_model_write_synthetic("mae-vit-bse", NULL, 0, path, NULL, &err), TRN_ERR_ARGUMENT,
                     err, "mae-vit-base");
    assert_trn_fails(trn_model_write_synthetic("mae-vit-base", &wrong, 1, path, NULL, &err), TRN_ERR_ARGUMENT,
                     err, "heads");
    assert_false(trn_path_exists(path));
    free(path);
    free(odd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_family_loads_what_is_made_up),
        cmocka_unit_test(wrapping_is_the_published_one),
        cmocka_unit_test(names_of_sam2),
        cmocka_unit_test(wrong_size_is_named),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
