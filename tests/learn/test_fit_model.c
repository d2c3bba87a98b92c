/* The model as a graph: names of what learns, features, what is refused; its identity; networks of one's own.
 */
#include "fit_cases.h"
#include "test_device.h"

static char *data; /* of all tests */

static int write_data(void **state)
{
    data = strdup(test_temp_dir());
    fit_write_classes(data, 12, 4, 2);
    return open_device(state);
}

static int remove_data(void **state)
{
    free(data);
    return close_device(state);
}

static bool learns_all(void *user, const char *name)
{
    (void)user, (void)name;
    return true;
}

static bool has_learner(const trn_graph *graph, const char *name)
{
    const char *other;
    for (size_t i = 0; trn_graph_learning(graph, i, &other); i++)
        if (!strcmp(other, name)) return true;
    return false;
}

static trn_status build(const trn_learn_model *model, int side, bool dense, trn_graph *graph,
                        trn_tensor **out, trn_error *err)
{
    trn_tensor *image = trn_input(graph, "image", TRN_F32, TRN_SHAPE(2, 3, side, side));
    trn_graph_train(graph, learns_all, NULL);
    return trn_learn_build(graph, model, image, dense, NULL, out, err);
}

static void expect_shape(const trn_learn_model *model, bool dense, const char *wanted)
{
    trn_error err = {0};
    trn_tensor *out;
    char text[128];
    trn_graph *graph = trn_graph_create();
    assert_trn_ok(build(model, FIT_SIDE, dense, graph, &out, &err), err);
    assert_string_equal(trn_shape_text(trn_tensor_shape(out), text), wanted);
    trn_graph_destroy(graph);
}

static void refuse(const trn_learn_model *model, int side, bool dense, const char *text)
{
    trn_error err = {0};
    trn_tensor *out;
    trn_graph *graph = trn_graph_create();
    assert_trn_fails(build(model, side, dense, graph, &out, &err), TRN_ERR_ARGUMENT, err, text);
    assert_null(out);
    trn_graph_destroy(graph);
}

static void parameters_are_named_by_their_part(void **state)
{
    (void)state;
    fit_case c;
    trn_error err = {0};
    trn_tensor *out;
    fit_open(&c, data, NULL);
    trn_member both[] = {c.member, c.member};
    c.model.members = both;
    c.model.member_count = 2;
    trn_graph *graph = trn_graph_create();
    assert_trn_ok(build(&c.model, FIT_SIDE, false, graph, &out, &err), err);
    assert_true(has_learner(graph, "encoder.blocks.1.mlp.fc2.weight"));
    assert_true(has_learner(graph, "encoder2.blocks.1.mlp.fc2.weight"));
    assert_true(has_learner(graph, "head.fc.weight"));
    assert_false(has_learner(graph, "encoder3.norm.weight") || has_learner(graph, "fc.weight"));
    trn_graph_destroy(graph);
    c.model.head = NULL;
    expect_shape(&c.model, false, "[2,48]"); /* both side by side */
    fit_close(&c);
}

static void features_have_the_shape_that_is_asked_for(void **state)
{
    (void)state;
    fit_case c;
    fit_open(&c, data, NULL);
    expect_shape(&c.model, false, "[2,3]");
    c.member.options.pool = TRN_FEATURES_DENSE;
    expect_shape(&c.model, true, "[2,3,16,16]");
    c.head.kind = TRN_HEAD_ATTENTION;
    expect_shape(&c.model, false, "[2,3]");
    c.model.head = NULL;
    expect_shape(&c.model, true, "[2,2,2,24]");
    expect_shape(&c.model, false, "[2,24]");
    fit_close(&c);
}

/* A network as head takes maps where the encoder gives grids, and vectors where it gives those. */
static void networks_as_heads_get_what_the_encoder_gives(void **state)
{
    (void)state;
    static const int input[] = {0}, cells[] = {1};
    static const trn_program_arg classes[] = {{.key = "channels", .number = 3}};
    static const trn_program_node nodes[] = {
        {.op = "conv", .inputs = input, .input_count = 1, .args = classes, .arg_count = 1},
        {.op = "mean", .inputs = cells, .input_count = 1},
        {.op = "linear", .inputs = input, .input_count = 1, .args = classes, .arg_count = 1},
    };
    const trn_program of_maps = {.nodes = nodes, .node_count = 2, .input_count = 1, .output = 2};
    const trn_program of_vectors = {.nodes = &nodes[2], .node_count = 1, .input_count = 1, .output = 1};
    fit_case c;
    fit_open(&c, data, NULL);
    c.head.kind = TRN_HEAD_PROGRAM;
    c.head.program = &of_vectors;
    expect_shape(&c.model, false, "[2,3]");
    c.member.options.pool = TRN_FEATURES_DENSE;
    c.head.program = &of_maps;
    expect_shape(&c.model, false, "[2,3]");
    fit_close(&c);
}

static void models_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    fit_case c;
    fit_open(&c, data, NULL);
    refuse(&c.model, 24, false, "takes images of 3 bands and 16 x 16 pixels, and these are [2,3,24,24]");
    refuse(&c.model, FIT_SIDE, true, "take dense features");
    c.model.member_count = 0;
    refuse(&c.model, FIT_SIDE, false, "has neither");
    fit_close(&c);
}

/* ---- identity ---- */

static void key_of(const trn_learn_model *model, char key[65])
{
    trn_error err = {0};
    assert_trn_ok(trn_learn_model_key(model, key, &err), err);
    assert_int_equal(strlen(key), 64);
}

static void expect_key(const trn_learn_model *model, const char *key, bool same)
{
    char other[65];
    key_of(model, other);
    if (!strcmp(key, other) != same) fail_msg("%s and %s", key, other);
}

static void keys_tell_models_apart(void **state)
{
    (void)state;
    fit_case c, other;
    trn_error err = {0};
    char key[65];
    static const float mean[] = {1, 2, 3}, std[] = {1, 1, 1}, wide[] = {1, 1, 2};
    fit_open(&c, data, NULL);
    fit_open(&other, data, NULL);
    key_of(&c.model, key);
    expect_key(&other.model, key, true);
    other.head.kind = TRN_HEAD_MLP; /* is no part of it */
    expect_key(&other.model, key, true);
    other.member.options.normalize = TRN_NORMALIZE_ZSCORE;
    other.member.options.mean = mean;
    other.member.options.std = std;
    key_of(&other.model, key);
    other.member.options.std = wide;
    expect_key(&other.model, key, false);
    other.member = c.member;
    other.member.encoder = other.encoder;
    key_of(&other.model, key);
    other.channels[0] = 2;
    other.member.channels = other.channels;
    expect_key(&other.model, key, false);
    other.channels[0] = 0;
    other.model.compose.l2_normalize = true;
    expect_key(&other.model, key, false);
    other.model.compose.l2_normalize = false;
    expect_key(&other.model, key, true);
    trn_weights *weights;
    assert_trn_ok(trn_weights_open_fresh(6, &weights, &err), err);
    assert_trn_ok(trn_encoder_load(other.encoder, weights, NULL, &err), err);
    expect_key(&other.model, key, false);
    fit_close(&c);
    fit_close(&other);
    trn_weights_close(weights);
}

/* Weights are known by their values, not by the file they are in. */
static void saved_encoders_have_the_same_key(void **state)
{
    (void)state;
    fit_case c;
    trn_error err = {0};
    trn_weights *weights;
    char key[65], *path = test_path(test_temp_dir(), "kept.safetensors");
    static const char *const metadata[] = {"what", "a copy", NULL};
    fit_open(&c, data, NULL);
    key_of(&c.model, key);
    trn_encoder_save_options options = {.metadata = metadata};
    assert_trn_ok(trn_encoder_save(c.encoder, path, &options, &err), err);
    assert_trn_ok(trn_weights_open(path, NULL, &weights, &err), err);
    assert_string_equal(trn_weights_metadata(weights, "what"), "a copy");
    assert_null(trn_weights_metadata(weights, "when"));
    assert_trn_ok(trn_encoder_load(c.encoder, weights, NULL, &err), err);
    expect_key(&c.model, key, true);
    fit_close(&c);
    trn_weights_close(weights);
    free(path);
}

/* ---- a network of one's own ---- */

static const trn_program_arg conv_args[] = {{"channels", 8, NULL}, {"kernel", 3, NULL}, {"stride", 2, NULL}};
static const int first[] = {0}, second[] = {1};
static const trn_program_node nodes[] = {
    {.op = "conv", .name = "stem", .inputs = first, .input_count = 1, .args = conv_args, .arg_count = 3},
    {.op = "gelu", .inputs = second, .input_count = 1}};
static const trn_program network = {.nodes = nodes, .node_count = 2, .input_count = 1, .output = 2};

static void networks_of_ones_own_learn(void **state)
{
    (void)state;
    fit_case c;
    trn_error err = {0};
    trn_fit_result result;
    static const float mean[] = {110, 110, 110}, std[] = {50, 50, 0};
    const char *out = test_temp_dir();
    fit_open(&c, data, out);
    c.model.members = NULL;
    c.model.member_count = 0;
    c.model.trunk = &network;
    c.model.trunk_mean = mean;
    c.model.trunk_std = std;
    c.options.epochs = 20;
    c.options.schedule.base = 3e-2;
    assert_trn_ok(trn_fit(gpu, &c.model, c.dataset, &c.options, NULL, &result, &err), err);
    assert_true(result.valid.accuracy > 0.9 && result.test.count == 2);
    assert_int_equal(result.parameters, 8 * 3 * 9 + 8 + 3 * 8 + 3);
    assert_false(fit_exists(out, "encoder.safetensors"));
    trn_weights *weights;
    char *path = test_path(out, "best.safetensors");
    assert_trn_ok(trn_weights_open(path, &(trn_weights_options){.prefix = ""}, &weights, &err), err);
    assert_non_null(trn_weights_find(weights, "trunk.stem.weight"));
    assert_non_null(trn_weights_metadata(weights, "accuracy"));
    trn_weights_close(weights);
    free(path);
    expect_shape(&c.model, false, "[2,3]");
    c.model.head = NULL;
    expect_shape(&c.model, true, "[2,8,8,8]");
    expect_shape(&c.model, false, "[2,8]");
    fit_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters_are_named_by_their_part),
        cmocka_unit_test(features_have_the_shape_that_is_asked_for),
        cmocka_unit_test(networks_as_heads_get_what_the_encoder_gives),
        cmocka_unit_test(models_that_do_not_fit_are_refused),
        cmocka_unit_test(keys_tell_models_apart),
        cmocka_unit_test(saved_encoders_have_the_same_key),
        cmocka_unit_test(networks_of_ones_own_learn),
    };
    return cmocka_run_group_tests(tests, write_data, remove_data);
}
