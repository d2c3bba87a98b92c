/* What all encoders share: names, settings, bands, loading; and the self-test's tiny configurations. */
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "running.h"

#define SMALL                                                                                                \
    {"img_size", "32"}, {"patch", "8"}, {"dim", "48"}, {"depth", "3"},                                       \
    {                                                                                                        \
        "heads", "4"                                                                                         \
    }

static void expect_create_error(const char *name, const char *key, const char *value, const char *text)
{
    trn_encoder *encoder = NULL;
    trn_error err = {0};
    trn_setting setting = {key, value};
    trn_status status = trn_encoder_create(name, &setting, key != NULL, &encoder, &err);
    assert_trn_fails(status, TRN_ERR_ARGUMENT, err, text);
    assert_null(encoder);
}

static void test_names(void **state)
{
    (void)state;
    expect_create_error("dinov2-smal", NULL, NULL, "did you mean 'dinov2-small'");
    expect_create_error("zzzzzzzzzzzzzzzzzzzz", NULL, NULL, "galileo-nano");
    for (size_t i = 0; i < trn_model_count(); i++) {
        const trn_model_info *info = trn_model_at(i);
        trn_encoder *encoder = make_encoder(info->name, NULL, 0);
        const trn_encoder_spec *spec = trn_encoder_get_spec(encoder);
        assert_string_equal(spec->name, info->name);
        assert_string_equal(spec->family, info->family);
        assert_true(spec->tile > 0 && spec->tile % spec->side_multiple == 0 && spec->stride > 0);
        assert_true(spec->needs_weights == (info->source != NULL));
        trn_encoder_destroy(encoder);
    }
    assert_null(trn_model_at(trn_model_count()));
}

static void test_settings(void **state)
{
    (void)state;
    expect_create_error("mae-vit-base", "dept", "3", "did you mean 'depth'");
    expect_create_error("mae-vit-base", "dept", "3", "pos_interpolation");
    expect_create_error("mae-vit-base", "depth", "three", "whole number from 1 to 256");
    expect_create_error("mae-vit-base", "depth", "0", "depth=0");
    expect_create_error("mae-vit-base", "eps", "nan", "eps=nan");
    expect_create_error("mae-vit-base", "pos_interpolation", "best", "timm|meta");
    expect_create_error("mae-vit-base", "img_size", "225", "multiples of 16");
    expect_create_error("mae-vit-base", "heads", "7", "heads=7");
    expect_create_error("mae-vit-base", "out_indices", "12", "from 0 to 11");
    expect_create_error("mae-vit-base", "mean", "1,2", "3 numbers");
    expect_create_error("mae-vit-base", "std", "1,0,2", "positive");
    expect_create_error("mae-vit-base", "bands", "red,,blue", "must name 3 bands");
    expect_create_error("galileo-nano", "month", "12", "from -1 to 11");
    expect_create_error("galileo-nano", "dim", "100", "multiple of heads=8");
    expect_create_error("rcf", "features", "3", "must be even");
    expect_create_error("rcf", "patch", "4", "odd");
    expect_create_error("rcf", "seed", "", "whole number");
    trn_text text = {0};
    trn_error err = {0};
    assert_trn_ok(trn_model_settings("galileo-nano", &text, &err), err);
    assert_non_null(strstr(trn_text_get(&text), "month=-1 (-1..11): month of the images"));
    trn_text_free(&text);
}

static void test_describe(void **state)
{
    (void)state;
    const trn_setting settings[] = {SMALL, {"layer_scale", "yes"}};
    trn_encoder *encoder = make_encoder("mae-vit-base", settings, TRN_COUNT(settings));
    trn_text text = {0};
    trn_encoder_describe(encoder, &text);
    assert_non_null(strstr(trn_text_get(&text), "dim=48\n"));
    assert_non_null(strstr(trn_text_get(&text), "layer_scale=true\n"));
    trn_text_free(&text);
    trn_encoder_destroy(encoder);
}

static void test_bands(void **state)
{
    (void)state;
    static const trn_band_offer scene[] = {{"nir", 0}, {"blue", 0}, {NULL, 0}, {"red", 0}, {"green", 0}},
                                lacking[] = {{"vv", 0}, {"vh", 0}, {"blue", 0}};
    static const int wanted[] = {3, 4, 1};
    int index[8];
    size_t count;
    trn_error err = {0};
    trn_encoder *encoder = make_encoder("mae-vit-base", NULL, 0);
    assert_trn_ok(trn_encoder_choose_bands(encoder, scene, TRN_COUNT(scene), index, 8, &count, NULL, &err),
                  err);
    assert_int_equal(count, 3);
    assert_memory_equal(index, wanted, sizeof wanted);
    assert_trn_fails(trn_encoder_choose_bands(encoder, lacking, 3, index, 8, &count, NULL, &err),
                     TRN_ERR_ARGUMENT, err,
                     "'mae-vit-base' needs what is missing: red, green; the scene has: vv, vh, blue");
    assert_trn_fails(trn_encoder_choose_bands(encoder, scene, TRN_COUNT(scene), index, 2, &count, NULL, &err),
                     TRN_ERR_ARGUMENT, err, "more than 2 bands");
    trn_encoder_destroy(encoder);
}

static void test_unnamed_bands(void **state)
{
    (void)state;
    static const trn_band_offer numbers[] = {{"3", 0}, {"2", 0}, {"1", 0}, {"4", 0}},
                                mixed[] = {{"1", 0}, {"2", 0}, {"nir", 0}};
    int index[12];
    size_t count;
    trn_error err = {0};
    trn_text notes = {0};
    trn_encoder *encoder = make_encoder("mae-vit-base", NULL, 0);
    assert_trn_ok(trn_encoder_choose_bands(encoder, numbers, 3, index, 8, &count, &notes, &err), err);
    assert_true(count == 3 && index[0] == 0 && index[1] == 1 && index[2] == 2);
    assert_non_null(
        strstr(trn_text_get(&notes), "no names; in their order they are taken as red, green, blue"));
    assert_trn_fails(trn_encoder_choose_bands(encoder, numbers, 4, index, 8, &count, NULL, &err),
                     TRN_ERR_ARGUMENT, err, "red, green, blue; the scene has: 3, 2, 1, 4");
    assert_trn_fails(trn_encoder_choose_bands(encoder, mixed, 3, index, 8, &count, NULL, &err),
                     TRN_ERR_ARGUMENT, err, "needs what is missing: red, green, blue");
    trn_text_free(&notes);
    trn_encoder_destroy(encoder);
    /* of the groups of Galileo any may be meant */
    static const trn_band_offer twelve[] = {{"1", 0}, {"2", 0}, {"3", 0}, {"4", 0},  {"5", 0},  {"6", 0},
                                            {"7", 0}, {"8", 0}, {"9", 0}, {"10", 0}, {"11", 0}, {"12", 0}};
    encoder = make_encoder("galileo-nano", NULL, 0);
    assert_trn_fails(trn_encoder_choose_bands(encoder, twelve, 12, index, 12, &count, NULL, &err),
                     TRN_ERR_ARGUMENT, err, "at least one whole group");
    trn_encoder_destroy(encoder);
}

static void test_other_bands(void **state)
{
    (void)state;
    static const trn_band_offer scene[] = {{"a", 0}, {"nir", 0}, {"red", 0}, {"b", 0}};
    const trn_setting any[] = {{"in_chans", "4"}};
    const trn_setting named[] = {{"in_chans", "2"},
                                 {"bands", "red, nir"},
                                 {"mean", "0.1,0.2"},
                                 {"std", "0.3,0.4"},
                                 {"unit", "reflectance"}};
    int index[8];
    size_t count;
    trn_error err = {0};
    trn_encoder *encoder = make_encoder("mae-vit-base", any, TRN_COUNT(any));
    assert_int_equal(trn_encoder_get_spec(encoder)->band_count, 0);
    assert_trn_ok(trn_encoder_choose_bands(encoder, scene, 4, index, 8, &count, NULL, &err), err);
    assert_int_equal(count, 4);
    assert_trn_fails(trn_encoder_choose_bands(encoder, scene, 3, index, 8, &count, NULL, &err),
                     TRN_ERR_ARGUMENT, err, "set up for 4 bands and the scene has 3");
    trn_encoder_destroy(encoder);
    encoder = make_encoder("mae-vit-base", named, TRN_COUNT(named));
    const trn_encoder_spec *spec = trn_encoder_get_spec(encoder);
    assert_trn_ok(trn_encoder_choose_bands(encoder, scene, 4, index, 8, &count, NULL, &err), err);
    assert_true(count == 2 && index[0] == 2 && index[1] == 1);
    assert_int_equal(spec->unit, TRN_UNIT_REFLECTANCE);
    assert_true(fabs(spec->bands[1].mean - 0.2) < 1e-12 && fabs(spec->bands[1].std - 0.4) < 1e-12);
    trn_encoder_destroy(encoder);
}

/* ---- loading ---- */

static void expect_load_error(const trn_setting *settings, size_t count, const char *text)
{
    trn_encoder *encoder = make_encoder("mae-vit-base", settings, count);
    trn_weights *weights = open_weights(test_golden_path("vit_tiny_mae/vit_tiny_mae.safetensors"));
    trn_error err = {0};
    assert_trn_fails(trn_encoder_load(encoder, weights, NULL, &err), TRN_ERR_FORMAT, err, text);
    assert_non_null(strstr(err.message, "vit_tiny_mae.safetensors"));
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void test_load_errors(void **state)
{
    (void)state;
    const trn_setting deeper[] = {SMALL, {"layer_scale", "true"}};
    const trn_setting wider[] = {SMALL, {"mlp_ratio", "2"}};
    const trn_setting other_norm[] = {SMALL, {"fc_norm", "false"}};
    expect_load_error(deeper, TRN_COUNT(deeper), "'blocks.0.ls1.gamma' [48] is missing");
    expect_load_error(wider, TRN_COUNT(wider), "'blocks.0.mlp.fc1.weight' [96,48] has shape [192,48]");
    expect_load_error(other_norm, TRN_COUNT(other_norm), "2 tensors missing");
    expect_load_error(NULL, 0, "do not fit encoder 'mae-vit-base'");
}

static void test_load_report(void **state)
{
    (void)state;
    const trn_setting settings[] = {SMALL};
    trn_encoder *encoder = make_encoder("mae-vit-base", settings, TRN_COUNT(settings));
    trn_weights *weights = open_weights(test_golden_path("vit_tiny_mae/vit_tiny_mae.pt"));
    trn_text report = {0};
    trn_error err = {0};
    assert_trn_ok(trn_encoder_load(encoder, weights, &report, &err), err);
    assert_non_null(strstr(trn_text_get(&report), "42 tensors, 95040 parameters"));
    assert_non_null(strstr(trn_text_get(&report), "not used: head.weight, head.bias"));
    trn_text_free(&report);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

/* The sizes in the registry are what the graphs ask for; Galileo's are of its files, which have groups that
 * no image has. */
static void test_parameter_counts(void **state)
{
    (void)state;
    for (size_t i = 0; i < trn_model_count(); i++) {
        const trn_model_info *info = trn_model_at(i);
        if (!info->licence || !strcmp(info->family, "galileo")) continue;
        trn_encoder *encoder = make_encoder(info->name, NULL, 0);
        trn_weights *weights = open_weights(NULL);
        trn_text report = {0};
        trn_error err = {0};
        char wanted[64];
        size_t channels;
        assert_trn_ok(trn_encoder_choose_all_bands(encoder, &channels, &err), err);
        assert_trn_ok(trn_encoder_load(encoder, weights, &report, &err), err);
        snprintf(wanted, sizeof wanted, " %llu parameters", (unsigned long long)info->parameters);
        if (!strstr(trn_text_get(&report), wanted))
            fail_msg("%s: the registry has%s, loading says %s", info->name, wanted, trn_text_get(&report));
        trn_text_free(&report);
        trn_encoder_destroy(encoder);
        trn_weights_close(weights);
    }
}

/* ---- building ---- */

static void expect_build_error(trn_encoder *encoder, trn_shape shape, const trn_encode_options *options,
                               const char *text)
{
    trn_graph *graph = trn_graph_create();
    trn_features features;
    trn_error err = {0};
    trn_tensor *image = trn_input(graph, "image", TRN_F32, shape);
    assert_trn_fails(trn_encoder_build(encoder, graph, image, options, &features, &err), TRN_ERR_ARGUMENT,
                     err, text);
    trn_graph_destroy(graph);
}

static void test_build_errors(void **state)
{
    (void)state;
    const trn_encode_options cls = {.pool = TRN_FEATURES_CLS}, zscore = {.normalize = TRN_NORMALIZE_ZSCORE};
    trn_encoder *vit = make_encoder("mae-vit-base", NULL, 0), *rcf = make_encoder("rcf", NULL, 0);
    trn_encoder *galileo = make_encoder("galileo-nano", NULL, 0);
    trn_weights *weights = open_weights(NULL);
    trn_error err = {0};
    expect_build_error(vit, TRN_SHAPE(1, 3, 32, 32), NULL, "needs weights");
    expect_build_error(rcf, TRN_SHAPE(1, 3, 32, 32), NULL, "must be fitted");
    assert_trn_ok(trn_encoder_load(vit, weights, NULL, &err), err);
    assert_trn_ok(trn_encoder_load(galileo, weights, NULL, &err), err);
    expect_build_error(vit, TRN_SHAPE(1, 4, 32, 32), NULL, "reads 3 bands, and the windows have 4");
    expect_build_error(vit, TRN_SHAPE(1, 3, 40, 40), NULL, "multiples of 16");
    expect_build_error(vit, TRN_SHAPE(1, 2, 3, 32, 32), NULL, "set up for 1 dates, and the image has 2");
    expect_build_error(galileo, TRN_SHAPE(1, 12, 16, 32), NULL, "square windows");
    expect_build_error(vit, TRN_SHAPE(1, 3, 32, 32), &zscore, "needs means and deviations");
    expect_build_error(galileo, TRN_SHAPE(1, 12, 16, 16), &cls, "no class token");
    assert_trn_fails(trn_encoder_load(rcf, weights, NULL, &err), TRN_ERR_ARGUMENT, err, "takes no weights");
    assert_trn_fails(trn_encoder_fit(vit, NULL, 1, 3, 32, &err), TRN_ERR_ARGUMENT, err, "nothing to fit");
    trn_encoder_destroy(vit);
    trn_encoder_destroy(rcf);
    trn_encoder_destroy(galileo);
    trn_weights_close(weights);
}

/* Features of x [1,C,side,side] as it stands, or where valid says so. */
static void features_of(trn_encoder *encoder, int64_t channels, float *x, float *valid, float *out)
{
    int64_t side = trn_encoder_get_spec(encoder)->tile;
    trn_encode_options options = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_MEAN};
    staged s = {.graph = trn_graph_create()};
    trn_features features;
    trn_error err = {0};
    trn_tensor *image = trn_input(s.graph, "x", TRN_F32, TRN_SHAPE(1, channels, side, side));
    if (valid) options.valid = trn_input(s.graph, "valid", TRN_F32, TRN_SHAPE(1, 1, side, side));
    assert_trn_ok(trn_encoder_build(encoder, s.graph, image, &options, &features, &err), err);
    staged_add(&s, "mean", features.pooled);
    const trn_named_data inputs[] = {{"x", x}, {"valid", valid}};
    staged_run_device(&s, inputs, valid ? 2 : 1);
    memcpy(out, s.values[0], (size_t)s.sizes[0] * sizeof *out);
    staged_close(&s);
}

/* Whatever stands where there is no data: the encoder sees its own value for that. */
static void expect_nodata(const char *name, const trn_setting *settings, size_t count, float value)
{
    trn_encoder *encoder = make_encoder(name, settings, count);
    trn_weights *weights = open_weights(NULL);
    trn_error err = {0};
    size_t channels;
    assert_trn_ok(trn_encoder_choose_all_bands(encoder, &channels, &err), err);
    assert_trn_ok(trn_encoder_load(encoder, weights, NULL, &err), err);
    const trn_encoder_spec *spec = trn_encoder_get_spec(encoder);
    int64_t area = (int64_t)spec->tile * spec->tile, n = (int64_t)channels * area;
    float *x = test_hash_values("holes", n, 1.5, 0), *valid = test_hash_values("no holes", area, 1, 0);
    float *with_holes = calloc((size_t)spec->channels, 4), *filled = calloc((size_t)spec->channels, 4);
    for (int64_t i = 0; i < area; i++)
        valid[i] = valid[i] > -0.5F;
    features_of(encoder, (int64_t)channels, x, valid, with_holes);
    for (int64_t i = 0; i < n; i++)
        if (valid[i % area] < 1) x[i] = value;
    features_of(encoder, (int64_t)channels, x, NULL, filled);
    assert_true(test_worst_error(with_holes, filled, spec->channels, largest(filled, spec->channels)) < 1e-5);
    free(x);
    free(valid);
    free(with_holes);
    free(filled);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
}

static void test_nodata(void **state)
{
    (void)state;
    const trn_setting vit[] = {SMALL};
    const trn_setting prithvi[] = {{"img_size", "32"}, {"dim", "64"}, {"depth", "2"}, {"heads", "4"}};
    const trn_setting galileo[] = {{"dim", "32"}, {"depth", "1"}, {"patch", "4"}, {"ndvi", "false"}};
    expect_nodata("mae-vit-base", vit, TRN_COUNT(vit), 0);
    expect_nodata("prithvi-v2-300m", prithvi, TRN_COUNT(prithvi), 1e-4F);
    expect_nodata("galileo-nano", galileo, TRN_COUNT(galileo), 0.5F); /* 0 is mean - 2 std */
}

/* An imaging spectrometer has more bands than any table of names. */
static void test_many_bands(void **state)
{
    (void)state;
    enum { BANDS = 300 };
    trn_text wavelengths = {0};
    for (int i = 0; i < BANDS; i++)
        trn_text_printf(&wavelengths, "%s%.4f", i ? "," : "", 0.4 + 0.006 * i);
    trn_setting setting = {"wavelengths", wavelengths.data};
    trn_encoder *encoder = make_encoder("dofa-base", &setting, 1);
    trn_error err = {0};
    size_t count;
    assert_trn_ok(trn_encoder_choose_all_bands(encoder, &count, &err), err);
    assert_int_equal(count, BANDS);
    assert_trn_ok(trn_encoder_choose_all_bands(encoder, &count, &err), err); /* of those that it knows now */
    assert_int_equal(count, BANDS);
    trn_encoder_destroy(encoder);
    trn_text_free(&wavelengths);
}

static void test_dates_and_places(void **state)
{
    (void)state;
    const trn_date wrong[] = {{2018, 6, 2, 153}, {2018, 0, 2, 153}};
    const trn_setting places[] = {{"coords", "location"}, {"dim", "32"}, {"heads", "2"}};
    trn_encoder *encoder = make_encoder("prithvi-v2-300m", places, TRN_COUNT(places));
    float west[32], beyond[32];
    trn_error err = {0};
    assert_trn_ok(trn_encoder_choose_dates(encoder, 1, wrong, &err), err);
    assert_trn_fails(trn_encoder_choose_dates(encoder, 2, wrong, &err), TRN_ERR_ARGUMENT, err,
                     "date 2 has month 0");
    assert_int_equal(trn_encoder_get_spec(encoder)->location_values, TRN_COUNT(west));
    trn_encoder_encode_location(encoder, 10, -160, west);
    trn_encoder_encode_location(encoder, 10, 200, beyond); /* the same meridian */
    assert_memory_equal(west, beyond, sizeof west);
    trn_encoder_encode_location(encoder, 10, -180, west);
    trn_encoder_encode_location(encoder, 10, 180, beyond); /* both stay as they are */
    assert_memory_not_equal(west, beyond, sizeof west);
    trn_encoder_destroy(encoder);
}

static void test_tiny(void **state)
{
    (void)state;
    const char *family;
    trn_graph *graph;
    trn_encoder *keep;
    trn_error err = {0};
    size_t i = 0;
    for (; trn_model_tiny(i, &family, &graph, &keep, &err); i++) {
        if (!graph) fail_msg("%s: %s", family, err.message);
        trn_op_result result = {.op = "model", .label = family, .tolerance = 1e-5};
        assert_trn_ok(trn_graph_selftest(open_gpu(), graph, TRN_PRECISION_FLOAT32, NULL, &result, &err), err);
        if (!result.ok) fail_msg("%s: %s", family, result.message);
        assert_true(result.error > 0);
        trn_op_result half = {.op = "model", .label = family, .tolerance = 0.01};
        assert_trn_ok(trn_graph_selftest(open_gpu(), graph, TRN_PRECISION_FLOAT16, NULL, &half, &err), err);
        printf("tiny %-8s fused against reference %.2e, stored as float16 %.2e\n", family, result.error,
               half.error);
        if (!half.ok) fail_msg("%s in float16: %s", family, half.message);
        assert_true(half.error > result.error);
        trn_graph_destroy(graph);
        trn_encoder_destroy(keep);
    }
    assert_int_equal(i, trn_family_count);
}

/* Settings that leave an MLP nothing, and tables that would take minutes, are refused before any graph. */
static void test_sizes_that_cannot_be(void **state)
{
    (void)state;
    trn_error err = {0};
    trn_encoder *encoder = NULL;
    size_t refused = 0;
    for (size_t i = 0; i < trn_family_count; i++) {
        const trn_setting thin[] = {{"mlp_ratio", "0.01"}, {"dim", "48"}, {"heads", "1"}};
        const char *name = trn_families[i]->configs[0].info.name;
        if (!strcmp(trn_families[i]->name, "rcf")) continue;
        assert_trn_fails(trn_encoder_create(name, thin, TRN_COUNT(thin), &encoder, &err), TRN_ERR_ARGUMENT,
                         err, "mlp_ratio=0.01 leaves the MLP no hidden channel");
        refused++;
    }
    assert_int_equal(refused + 1, trn_family_count);
    const trn_setting gated[] = {{"mlp_ratio", "0.03"}, {"dim", "48"}, {"heads", "1"}, {"swiglu", "true"}};
    assert_trn_ok(trn_encoder_create("mae-vit-base", gated, 3, &encoder, &err), err);
    trn_encoder_destroy(encoder);
    assert_trn_fails(trn_encoder_create("mae-vit-base", gated, 4, &encoder, &err), TRN_ERR_ARGUMENT, err,
                     "no hidden channel");
    const trn_setting huge[] = {{"patch", "1"}, {"img_size", "8192"}}, large = {"img_size", "4096"};
    assert_trn_fails(trn_encoder_create("prithvi-v2-300m", huge, 2, &encoder, &err), TRN_ERR_ARGUMENT, err,
                     "img_size=8192 has 8192 x 8192 patches");
    assert_trn_ok(trn_encoder_create("prithvi-v2-300m", &large, 1, &encoder, &err), err);
    trn_encoder_destroy(encoder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_describe),
        cmocka_unit_test(test_bands),
        cmocka_unit_test(test_unnamed_bands),
        cmocka_unit_test(test_other_bands),
        cmocka_unit_test(test_load_errors),
        cmocka_unit_test(test_load_report),
        cmocka_unit_test(test_parameter_counts),
        cmocka_unit_test(test_build_errors),
        cmocka_unit_test(test_nodata),
        cmocka_unit_test(test_many_bands),
        cmocka_unit_test(test_dates_and_places),
        cmocka_unit_test(test_tiny),
        cmocka_unit_test(test_sizes_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, close_gpu);
}
