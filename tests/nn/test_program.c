/* Networks as data: the table of operators, what is refused, shapes and names of parameters, and what is
 * computed, on the device against the C references and by hand. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn.h"
#include "test_support.h"

#define COUNT_OF(array) ((int)TRN_COUNT(array))

/* ---- parameters made up by their names, and a list of what was asked for ---- */

typedef struct asked {
    char names[64][256];
    int count;
    float value; /* of every parameter, when it is not NAN */
} asked;

static trn_status fill(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    const asked *list = user;
    float *values = out;
    (void)err;
    uint64_t hash = trn_fnv1a64(name, strlen(name), TRN_FNV_SEED);
    for (int64_t i = 0; i < trn_shape_count(shape); i++) {
        double made_up = trn_hash_uniform(hash, (uint64_t)i) * 0.5;
        if (trn_ends_with(name, "running_var")) made_up = 1 + fabs(made_up);
        values[i] = isnan(list->value) ? (float)made_up : list->value;
    }
    return TRN_OK;
}

static void want(void *user, const char *name, const trn_shape *shape)
{
    asked *list = user;
    char text[128];
    trn_shape_text(shape, text);
    assert_true(list->count < COUNT_OF(list->names));
    snprintf(list->names[list->count++], sizeof list->names[0], "%s %s", name, text);
}

static bool was_asked(const asked *list, const char *name)
{
    for (int i = 0; i < list->count; i++)
        if (!strcmp(list->names[i], name)) return true;
    return false;
}

/* ---- programs in short: nodes follow one another unless `inputs` says otherwise ---- */

static const int chain[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static trn_program_node node(const char *op, const int *inputs, int count, const trn_program_arg *args,
                             int arg_count)
{
    return (trn_program_node){
        .op = op, .inputs = inputs, .input_count = count, .args = args, .arg_count = arg_count};
}

static trn_program program_of(const trn_program_node *nodes, int count)
{
    return (trn_program){.nodes = nodes, .node_count = count, .input_count = 1, .output = count};
}

/* One operator over one input of this shape: its result, in *graph. */
static trn_tensor *build_one(trn_graph *graph, asked *list, const trn_program_node *only, trn_shape shape)
{
    trn_parameters *parameters = calloc(1, sizeof *parameters);
    assert_non_null(parameters);
    *parameters = (trn_parameters){.fill = fill, .user = list, .want = want};
    trn_scope root = trn_scope_root(graph, parameters), scope = trn_scope_enter(&root, "head");
    trn_program program = program_of(only, 1);
    trn_tensor *x = trn_input(graph, "x", TRN_F32, shape);
    trn_tensor *y = trn_nn_program(&scope, &program, &x, 1);
    free(parameters);
    return y;
}

/* ---- the table ---- */

static void test_table(void **state)
{
    (void)state;
    size_t count = 0;
    for (const trn_program_op *op = trn_program_op_at(0); op; op = trn_program_op_at(++count)) {
        assert_true(strlen(op->help) > 5 && op->min_inputs >= 1 && op->max_inputs >= op->min_inputs);
        for (const char *const *arg = op->args; *arg; arg++)
            assert_non_null(strstr(*arg, ": "));
        for (size_t i = 0; i < count; i++)
            assert_string_not_equal(trn_program_op_at(i)->name, op->name);
    }
    assert_true(count >= 25);
}

/* ---- shapes and names ---- */

#define ARG(key_, number_)                                                                                   \
    {                                                                                                        \
        .key = (key_), .number = (number_)                                                                   \
    }
#define WORD(key_, text_)                                                                                    \
    {                                                                                                        \
        .key = (key_), .text = (text_)                                                                       \
    }
enum { MOST_ARGS = 4 };

typedef struct one_operator {
    const char *op;
    trn_program_arg args[MOST_ARGS];
    trn_shape in, out;
    const char *parameter; /* one of those asked for; NULL: none is */
} one_operator;

#define SHAPE2(a, b)                                                                                         \
    {                                                                                                        \
        2,                                                                                                   \
        {                                                                                                    \
            a, b                                                                                             \
        }                                                                                                    \
    }
#define SHAPE3(a, b, c)                                                                                      \
    {                                                                                                        \
        3,                                                                                                   \
        {                                                                                                    \
            a, b, c                                                                                          \
        }                                                                                                    \
    }
#define SHAPE4(a, b, c, d)                                                                                   \
    {                                                                                                        \
        4,                                                                                                   \
        {                                                                                                    \
            a, b, c, d                                                                                       \
        }                                                                                                    \
    }
static const one_operator operators[] = {
    {"conv", {ARG("channels", 5)}, SHAPE4(2, 3, 7, 6), SHAPE4(2, 5, 7, 6), "head.1.conv.weight [5,3,3,3]"},
    {"conv",
     {ARG("channels", 5), ARG("kernel", 2), ARG("stride", 2), ARG("padding", 0)},
     SHAPE4(2, 3, 7, 6),
     SHAPE4(2, 5, 3, 3),
     "head.1.conv.bias [5]"},
    {"conv",
     {ARG("channels", 5), ARG("kernel", 1), ARG("bias", 0)},
     SHAPE4(2, 3, 7, 6),
     SHAPE4(2, 5, 7, 6),
     "head.1.conv.weight [5,3,1,1]"},
    {"linear", {ARG("channels", 4)}, SHAPE2(2, 3), SHAPE2(2, 4), "head.1.linear.weight [4,3]"},
    {"linear", {ARG("channels", 4)}, SHAPE3(2, 5, 3), SHAPE3(2, 5, 4), "head.1.linear.weight [4,3]"},
    {"linear", {ARG("channels", 4)}, SHAPE4(2, 3, 7, 6), SHAPE4(2, 4, 7, 6), "head.1.linear.bias [4]"},
    {"layer_norm", {{0}}, SHAPE4(2, 3, 7, 6), SHAPE4(2, 3, 7, 6), "head.1.layer_norm.weight [3]"},
    {"layer_norm", {{0}}, SHAPE3(2, 7, 6), SHAPE3(2, 7, 6), "head.1.layer_norm.bias [6]"},
    {"batch_norm", {{0}}, SHAPE4(2, 3, 7, 6), SHAPE4(2, 3, 7, 6), "head.1.batch_norm.running_mean [3]"},
    {"batch_norm", {{0}}, SHAPE2(2, 3), SHAPE2(2, 3), "head.1.batch_norm.weight [3]"},
    {"relu", {{0}}, SHAPE2(2, 3), SHAPE2(2, 3), NULL},
    {"gelu", {{0}}, SHAPE3(2, 3, 4), SHAPE3(2, 3, 4), NULL},
    {"gelu_tanh", {{0}}, SHAPE2(2, 3), SHAPE2(2, 3), NULL},
    {"silu", {{0}}, SHAPE2(2, 3), SHAPE2(2, 3), NULL},
    {"sigmoid", {{0}}, SHAPE2(2, 3), SHAPE2(2, 3), NULL},
    {"tanh", {{0}}, SHAPE2(2, 3), SHAPE2(2, 3), NULL},
    {"softmax", {{0}}, SHAPE4(2, 3, 4, 5), SHAPE4(2, 3, 4, 5), NULL},
    {"max_pool", {{0}}, SHAPE4(2, 3, 5, 6), SHAPE4(2, 3, 2, 3), NULL},
    {"mean_pool", {ARG("size", 3), ARG("stride", 1)}, SHAPE4(2, 3, 5, 6), SHAPE4(2, 3, 3, 4), NULL},
    {"resize", {ARG("scale", 2)}, SHAPE4(2, 3, 5, 6), SHAPE4(2, 3, 10, 12), NULL},
    {"resize",
     {ARG("height", 3), ARG("width", 9), WORD("mode", "nearest")},
     SHAPE4(2, 3, 5, 6),
     SHAPE4(2, 3, 3, 9),
     NULL},
    {"resize", {ARG("scale", 0.01), WORD("mode", "bicubic")}, SHAPE4(2, 3, 5, 6), SHAPE4(2, 3, 1, 1), NULL},
    {"mean", {{0}}, SHAPE4(2, 3, 5, 6), SHAPE2(2, 3), NULL},
    {"mean", {{0}}, SHAPE3(2, 5, 3), SHAPE2(2, 3), NULL},
    {"max", {{0}}, SHAPE4(2, 3, 5, 6), SHAPE2(2, 3), NULL},
    {"dropout", {ARG("rate", 0.5)}, SHAPE2(2, 3), SHAPE2(2, 3), NULL},
    {"drop_path", {ARG("rate", 0.5)}, SHAPE2(2, 3), SHAPE2(2, 3), NULL},
    {"flatten", {{0}}, SHAPE4(2, 3, 5, 6), SHAPE2(2, 90), NULL},
    {"tokens", {{0}}, SHAPE4(2, 3, 5, 6), SHAPE3(2, 30, 3), NULL},
    {"map", {{0}}, SHAPE3(2, 9, 4), SHAPE4(2, 4, 3, 3), NULL},
    {"map", {ARG("height", 2)}, SHAPE3(2, 12, 4), SHAPE4(2, 4, 2, 6), NULL},
    {"map", {ARG("width", 4)}, SHAPE3(2, 12, 5), SHAPE4(2, 5, 3, 4), NULL},
    {"position", {{0}}, SHAPE3(2, 9, 4), SHAPE3(2, 9, 4), "head.1.position.pos_embed [1,9,4]"},
    {"attention_block",
     {{0}},
     SHAPE3(2, 9, 8),
     SHAPE3(2, 9, 8),
     "head.1.attention_block.attn.qkv.weight [24,8]"},
    {"attention_block",
     {ARG("heads", 2), ARG("mlp_ratio", 0.5), ARG("layer_scale", 1)},
     SHAPE4(2, 8, 3, 4),
     SHAPE4(2, 8, 3, 4),
     "head.1.attention_block.mlp.fc1.weight [4,8]"},
};

static int given_args(const trn_program_arg *args)
{
    int count = 0;
    while (count < MOST_ARGS && args[count].key)
        count++;
    return count;
}

static void check_operator(const one_operator *c)
{
    asked list = {.value = NAN};
    char got[128], wanted[128];
    trn_error err = {0};
    trn_graph *graph = trn_graph_create();
    trn_program_node only = node(c->op, chain, 1, c->args, given_args(c->args));
    trn_tensor *y = build_one(graph, &list, &only, c->in);
    assert_trn_ok(trn_graph_status(graph, &err), err);
    trn_shape_text(trn_tensor_shape(y), got);
    trn_shape_text(&c->out, wanted);
    if (strcmp(got, wanted)) fail_msg("%s of %d axes: %s, wanted %s", c->op, c->in.ndim, got, wanted);
    if (c->parameter && !was_asked(&list, c->parameter))
        fail_msg("%s did not ask for %s", c->op, c->parameter);
    if (!c->parameter) assert_int_equal(list.count, 0);
    trn_graph_destroy(graph);
}

static void test_shapes_and_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < TRN_COUNT(operators); i++)
        check_operator(&operators[i]);
}

/* ---- shapes that do not fit: the line, the operator, and what it got ---- */

static const struct {
    const char *op;
    trn_program_arg args[MOST_ARGS];
    trn_shape in;
    const char *message;
} misfits[] = {
    {"conv",
     {ARG("channels", 5)},
     SHAPE2(2, 3),
     "line 7 of the recipe, conv (head.1.conv.): input 1 is [2,3]; wanted "
     "a map [B,C,h,w]"},
    {"conv",
     {ARG("channels", 5), ARG("kernel", 9), ARG("padding", 0)},
     SHAPE4(2, 3, 8, 9),
     "wanted a map that is not smaller than the kernel"},
    {"conv",
     {ARG("channels", 65536), ARG("kernel", 64)},
     SHAPE4(1, 60000, 64, 64),
     "has no, or more than 2^31-1"},
    {"batch_norm", {{0}}, SHAPE3(2, 3, 4), "input 1 is [2,3,4]; wanted a map"},
    {"max_pool", {{0}}, SHAPE3(2, 3, 4), "wanted a map [B,C,h,w]"},
    {"max_pool", {ARG("size", 3)}, SHAPE4(2, 3, 2, 4), "not smaller than the window"},
    {"resize", {{0}}, SHAPE4(2, 3, 2, 4), "wanted one of: scale, height and width"},
    {"resize",
     {ARG("scale", 2), ARG("height", 3), ARG("width", 3)},
     SHAPE4(2, 3, 2, 4),
     "wanted one of: scale"},
    {"resize", {ARG("height", 3)}, SHAPE4(2, 3, 2, 4), "wanted one of: scale, height and width"},
    {"resize", {ARG("scale", 64)}, SHAPE4(2, 3, 4000, 4), "wanted one of: scale"},
    {"mean", {{0}}, SHAPE2(2, 3), "wanted a map [B,C,h,w] or tokens"},
    {"tokens", {{0}}, SHAPE2(2, 3), "wanted a map"},
    {"map", {{0}}, SHAPE4(2, 3, 4, 5), "wanted tokens [B,N,C]"},
    {"map", {{0}}, SHAPE3(2, 10, 3), "10 tokens do not fill a map of 3 x 3"},
    {"map", {ARG("height", 11)}, SHAPE3(2, 10, 3), "10 tokens do not fill a map of 11 x 0"},
    {"map", {ARG("width", 11)}, SHAPE3(2, 10, 3), "do not fill a map"},
    {"position", {{0}}, SHAPE2(2, 3), "wanted tokens [B,N,C] or a map"},
    {"attention_block", {ARG("heads", 3)}, SHAPE3(2, 9, 8), "8 channels cannot be divided among 3 heads"},
    {"attention_block", {{0}}, SHAPE2(2, 8), "wanted a map [B,C,h,w] or tokens"},
    {"relu", {{0}}, {1, {3}}, "network: input 1 is [3]; wanted [B,C]"},
    {"relu", {{0}}, {5, {1, 2, 3, 4, 5}}, "network: input 1 is [1,2,3,4,5]"},
};

static void test_misfits(void **state)
{
    (void)state;
    for (size_t i = 0; i < TRN_COUNT(misfits); i++) {
        asked list = {.value = NAN};
        trn_error err = {0};
        trn_graph *graph = trn_graph_create();
        trn_program_node only = node(misfits[i].op, chain, 1, misfits[i].args, given_args(misfits[i].args));
        only.line = 7;
        assert_null(build_one(graph, &list, &only, misfits[i].in));
        assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, misfits[i].message);
        trn_graph_destroy(graph);
    }
}

/* ---- programs that no graph is built of ---- */

static void refuse(const trn_program *program, const char *message)
{
    trn_error err = {0};
    assert_trn_fails(trn_program_check(program, &err), TRN_ERR_ARGUMENT, err, message);
}

static void refuse_node(trn_program_node only, const char *message)
{
    trn_program program = program_of(&only, 1);
    refuse(&program, message);
}

static void test_checked_programs(void **state)
{
    (void)state;
    static const trn_program_arg channels[] = {ARG("channels", 8)},
                                 twice[] = {ARG("channels", 8), ARG("channels", 8)},
                                 half[] = {ARG("channels", 8.5)}, endless[] = {ARG("channels", INFINITY)},
                                 word[] = {WORD("channels", "8")},
                                 number[] = {ARG("mode", 3), ARG("scale", 2)}, empty[] = {WORD("mode", "")},
                                 part[] = {WORD("mode", "bilinear|nearest")}, other[] = {ARG("rate", 0.5)},
                                 no_key[] = {{0}};
    static const int ahead[] = {1}, negative[] = {-1};
    refuse_node(node("cnov", chain, 1, NULL, 0), "cnov: there is no such operator; did you mean 'conv'?");
    refuse_node(node(NULL, chain, 1, NULL, 0), "there is no such operator");
    refuse_node(node("conv", chain, 1, NULL, 0), "conv: argument 'channels' is missing");
    refuse_node(node("conv", chain, 1, twice, 2), "argument 'channels' stands twice");
    refuse_node(node("conv", chain, 1, half, 1),
                "argument 'channels' is 8.5; wanted an integer from 1 to 65536");
    refuse_node(node("conv", chain, 1, endless, 1), "argument 'channels' is inf");
    refuse_node(node("conv", chain, 1, word, 1), "argument 'channels' is '8'; wanted an integer");
    refuse_node(node("resize", chain, 1, number, 2), "argument 'mode' is 3; wanted bilinear|nearest|bicubic");
    refuse_node(node("resize", chain, 1, empty, 1), "argument 'mode' is ''");
    refuse_node(node("resize", chain, 1, part, 1), "argument 'mode' is 'bilinear|nearest'");
    refuse_node(node("conv", chain, 1, other, 1), "argument 'rate' is unknown (arguments: channels, kernel");
    refuse_node(node("relu", chain, 1, no_key, 1), "argument '' is unknown (arguments: none)");
    refuse_node(node("relu", chain, 1, channels, 17), "relu: 17 arguments; wanted at most 16");
    refuse_node(node("relu", chain, 2, NULL, 0), "relu: 2 values; wanted 1");
    refuse_node(node("relu", chain, 0, NULL, 0), "relu: 0 values; wanted 1");
    refuse_node(node("add", chain, 1, NULL, 0), "add: 1 values; wanted 2 to 16");
    refuse_node(node("relu", ahead, 1, NULL, 0), "relu: input 1 is value 1, which is not made before it");
    refuse_node(node("relu", negative, 1, NULL, 0), "input 1 is value -1");
    trn_program_node named = node("relu", chain, 1, NULL, 0);
    static const char *const bad_names[] = {
        "",
        "1a",
        "a b",
        "a.",
        "a/b",
        "\xc3\xa4",
        "a123456789012345678901234567890123456789012345678901234567890123456789"};
    for (size_t i = 0; i < TRN_COUNT(bad_names); i++) {
        named.name = bad_names[i];
        refuse_node(named, "is no name");
    }
    named.name = "same.name";
    named.line = 3;
    trn_program_node both[] = {named, named};
    trn_program program = program_of(both, 2);
    refuse(&program, "line 3: relu: the name 'same.name' stands twice");
    program = program_of(both, 1);
    program.output = 2;
    refuse(&program, "the network's result is value 2");
    program.output = -1;
    refuse(&program, "the network's result is value -1");
    program = program_of(both, 1025);
    refuse(&program, "a network of 1025 operators; wanted at most 1024");
    program = program_of(both, -1);
    refuse(&program, "a network of -1 operators");
    program = program_of(both, 1);
    program.input_count = 0;
    refuse(&program, "a network of 0 inputs");
}

/* ---- several inputs, and what is left out ---- */

/* Vectors scale maps; what the result does not need asks for no parameters. */
static void test_combined(void **state)
{
    (void)state;
    static const int both[] = {0, 1}, spare[] = {0};
    static const trn_program_arg channels[] = {ARG("channels", 9)};
    asked list = {.value = NAN};
    trn_error err = {0};
    float map[2 * 2 * 2] = {1, 2, 3, 4, 5, 6, 7, 8}, vector[2] = {10, -1}, out[4 * 2];
    const float product[] = {10, 20, 30, 40, -5, -6, -7, -8};
    const trn_program_node nodes[] = {node("conv", spare, 1, channels, 1), node("mul", both, 2, NULL, 0)};
    trn_program program = {.nodes = nodes, .node_count = 2, .input_count = 2, .output = 3};
    trn_parameters parameters = {.fill = fill, .user = &list, .want = want};
    trn_graph *graph = trn_graph_create();
    trn_scope scope = trn_scope_root(graph, &parameters);
    trn_tensor *in[] = {trn_input(graph, "map", TRN_F32, TRN_SHAPE(1, 2, 2, 2)),
                        trn_input(graph, "vector", TRN_F32, TRN_SHAPE(1, 2))};
    trn_output_add(graph, "y", trn_nn_program(&scope, &program, in, 2));
    trn_named_data inputs[] = {{"map", map}, {"vector", vector}}, outputs[] = {{"y", out}};
    assert_trn_ok(trn_reference_run(graph, inputs, 2, outputs, 1, &err), err);
    for (size_t i = 0; i < TRN_COUNT(product); i++)
        assert_true(out[i] == product[i]);
    assert_int_equal(list.count, 0);
    trn_graph_destroy(graph);
}

static void refuse_pair(const char *op, trn_shape a, trn_shape b, const char *message)
{
    asked list = {.value = NAN};
    trn_error err = {0};
    const trn_program_node only = node(op, chain, 2, NULL, 0);
    trn_program program = {.nodes = &only, .node_count = 1, .input_count = 2, .output = 2};
    trn_parameters parameters = {.fill = fill, .user = &list};
    trn_graph *graph = trn_graph_create();
    trn_scope scope = trn_scope_root(graph, &parameters);
    trn_tensor *in[] = {trn_input(graph, "a", TRN_F32, a), trn_input(graph, "b", TRN_F32, b)};
    assert_null(trn_nn_program(&scope, &program, in, 2));
    assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, message);
    assert_null(trn_nn_program(&scope, &program, in, 1)); /* the first error stays */
    trn_graph_destroy(graph);
}

static void test_pairs_that_do_not_fit(void **state)
{
    (void)state;
    refuse_pair("add", TRN_SHAPE(2, 3, 4, 5), TRN_SHAPE(2, 3, 4, 6),
                "input 1 is [2,3,4,5]; wanted the shape [2,3,4,6]");
    refuse_pair("add", TRN_SHAPE(2, 3, 4, 5), TRN_SHAPE(2, 4),
                "input 2 is [2,4]; wanted the shape [2,3,4,5], or vectors");
    refuse_pair("mul", TRN_SHAPE(2, 3, 4, 5), TRN_SHAPE(2, 20, 3), "input 2 is [2,20,3]");
    refuse_pair("mul", TRN_SHAPE(2, 3), TRN_SHAPE(1, 3), "input 2 is [1,3]");
    refuse_pair("concat", TRN_SHAPE(2, 3, 4, 5), TRN_SHAPE(2, 3, 5, 4),
                "wanted the shape of the first in all but");
    refuse_pair("concat", TRN_SHAPE(2, 3), TRN_SHAPE(2, 3, 4), "input 2 is [2,3,4]");
    refuse_pair("resize", TRN_SHAPE(2, 3, 4, 5), TRN_SHAPE(2, 3), "input 2 is [2,3]; wanted a map");
}

/* ---- on the device ---- */

/* A small U-shaped network with a transformer in its middle: every result against the C references. */
static void test_device(void **state)
{
    (void)state;
    static const trn_program_arg stem[] = {ARG("channels", 8), ARG("stride", 2)}, heads[] = {ARG("heads", 2)},
                                 out[] = {ARG("channels", 5)};
    static const int in_like[] = {7, 3}, skip[] = {8, 3};
    const trn_program_node nodes[] = {
        node("conv", &chain[0], 1, stem, 2),       node("batch_norm", &chain[1], 1, NULL, 0),
        node("gelu", &chain[2], 1, NULL, 0),       node("max_pool", &chain[3], 1, NULL, 0),
        node("position", &chain[4], 1, NULL, 0),   node("attention_block", &chain[5], 1, heads, 1),
        node("layer_norm", &chain[6], 1, NULL, 0), node("resize", in_like, 2, NULL, 0),
        node("concat", skip, 2, NULL, 0),          node("linear", &chain[9], 1, out, 1),
    };
    asked list = {.value = NAN};
    trn_error err = {0};
    trn_gpu *gpu = NULL;
    trn_program program = program_of(nodes, COUNT_OF(nodes));
    trn_parameters parameters = {.fill = fill, .user = &list};
    trn_op_result result = {.op = "program", .tolerance = 1e-4};
    trn_graph *graph = trn_graph_create();
    trn_scope scope = trn_scope_root(graph, &parameters);
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(2, 3, 12, 16));
    trn_output_add(graph, "y", trn_nn_program(&scope, &program, &x, 1));
    assert_trn_ok(trn_gpu_open(NULL, &gpu, &err), err);
    assert_trn_ok(trn_graph_selftest(gpu, graph, TRN_PRECISION_FLOAT32, NULL, &result, &err), err);
    if (!result.ok) fail_msg("%s (error %g)", result.message, result.error);
    trn_graph_destroy(graph);
    trn_gpu_close(gpu);
}

/* In training every parameter of a network learns: none is without a gradient. */
static bool learns(void *user, const char *name)
{
    (void)user;
    (void)name;
    return true;
}

static void test_every_parameter_learns(void **state)
{
    (void)state;
    for (size_t i = 0; i < TRN_COUNT(operators); i++) {
        asked list = {.value = NAN};
        trn_error err = {0};
        const char *name = NULL;
        trn_graph *graph = trn_graph_create();
        trn_graph_train(graph, learns, NULL);
        trn_program_node only =
            node(operators[i].op, chain, 1, operators[i].args, given_args(operators[i].args));
        trn_tensor *y = build_one(graph, &list, &only, operators[i].in);
        assert_trn_ok(trn_graph_status(graph, &err), err);
        for (size_t k = 0; trn_graph_learning(graph, k, NULL); k++) {
            trn_tensor *wrt = trn_graph_learning(graph, k, &name), *gradient = NULL;
            assert_trn_ok(trn_gradients(graph, y, NULL, &wrt, 1, &gradient, &err), err);
            if (!gradient) fail_msg("%s: %s has no gradient", operators[i].op, name);
        }
        trn_graph_destroy(graph);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),    cmocka_unit_test(test_shapes_and_names),
        cmocka_unit_test(test_misfits),  cmocka_unit_test(test_checked_programs),
        cmocka_unit_test(test_combined), cmocka_unit_test(test_pairs_that_do_not_fit),
        cmocka_unit_test(test_device),   cmocka_unit_test(test_every_parameter_learns),
    };
    return cmocka_run_group_tests_name("networks as data", tests, NULL, NULL);
}
