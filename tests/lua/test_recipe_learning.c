/* Recipes that learn: datasets, probes, training and networks; what they become, and their mistakes. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "recipe.h"
#include "test_support.h"

#define HEAD "local terrane = require 'terrane'\n"
#define DATA "data = terrane.dataset 'd'"
#define ENCODER "encoders = terrane.encoder { 'rcf', features = 8 }"

static trn_status load(const char *text, trn_recipe **out, trn_error *err)
{
    return trn_recipe_load_text("recipes/x.lua", text, strlen(text), NULL, 0, NULL, out, err);
}

static trn_recipe *load_good(const char *text)
{
    trn_recipe *recipe = NULL;
    trn_error err = {0};
    assert_trn_ok(load(text, &recipe, &err), err);
    return recipe;
}

/* ---- what recipes become ---- */

static void test_short_probe(void **state)
{
    (void)state;
    trn_recipe *recipe = load_good(HEAD "return terrane.probe { " DATA ", " ENCODER " }");
    const trn_probe_job *job = trn_recipe_probe(recipe);
    assert_non_null(job);
    assert_null(trn_recipe_job(recipe));
    assert_null(trn_recipe_train(recipe));
    assert_null(trn_recipe_reconstruct(recipe));
    assert_string_equal(job->name, "x");
    assert_string_equal(job->data.path, "d");
    assert_int_equal(job->encoder_count, 1);
    assert_string_equal(job->encoders[0].model, "rcf");
    assert_int_equal(job->encoders[0].pool, TRN_FEATURES_MEAN);
    assert_true(job->use_knn.wanted && job->use_linear.wanted && job->use_logistic.wanted);
    assert_string_equal(job->use_knn.name, "knn5");
    assert_string_equal(job->use_linear.name, "linear");
    assert_string_equal(job->use_logistic.name, "logistic");
    assert_true(job->knn.k == 5 && job->linear.epochs == 100 && job->logistic.max_iterations == 200);
    assert_null(job->cache);
    assert_string_equal(job->result_extra, "{\"recipe\": \"recipes/x.lua\", \"parameters\": {}}");
    trn_recipe_destroy(recipe);
}

static void test_everything_of_a_probe(void **state)
{
    (void)state;
    trn_recipe *recipe = load_good(
        HEAD "return terrane.probe { " DATA ", seed = 7, batch = 4, cache = 'features', strict = true,\n"
             "encoders = terrane.encoder { 'rcf', pool = 'mean' }, fusion = terrane.concat { l2 = true },\n"
             "probes = { terrane.knn { k = 20, distance = 'l2', center = true },\n"
             "  terrane.logistic { grid = { 0.1, 1 }, standardize = true, refit = true, name = 'lr' },\n"
             "  terrane.linear_probe { epochs = 3, batch = 16, rates = 0.01, weight_decay = 0.5,\n"
             "    batch_norm = true } } }");
    const trn_probe_job *job = trn_recipe_probe(recipe);
    assert_true(job->seed == 7 && job->batch == 4 && job->strict && job->compose.l2_normalize);
    assert_string_equal(job->cache, "features");
    assert_string_equal(job->use_knn.name, "knn20");
    assert_true(job->knn.k == 20 && job->knn.distance == TRN_DISTANCE_L2 && job->knn.center);
    assert_string_equal(job->use_logistic.name, "lr");
    assert_true(job->logistic.grid_count == 2 && job->logistic.grid[1] == 1 && job->logistic.refit);
    assert_true(job->logistic.standardize && job->logistic.tolerance == 1e-6);
    assert_true(job->linear.epochs == 3 && job->linear.batch == 16 && job->linear.rate_count == 1);
    assert_true(job->linear.rates[0] == 0.01 && job->linear.weight_decay == 0.5 && job->linear.batch_norm);
    assert_int_equal(job->linear.seed, 7);
    trn_recipe_destroy(recipe);
}

static void test_dataset(void **state)
{
    (void)state;
    trn_recipe *recipe = load_good(
        HEAD
        "return terrane.train { " ENCODER
        ", data = terrane.dataset { 'd', labels = 'l.tif', chip = 32, block = 2, shares = { test = 0 },\n"
        "partition = '0.01x_train', bands = { 'B04', 'B03' }, sensor = 'rgb', scale = 0.5, offset = 1,\n"
        "unit = 'reflectance', resize = 96, antialias = true, limit = { train = 10, test = 20 },\n"
        "crop = 64, flip = { x = 0.5 }, rotate = true, ignore = 255, fill = 0, classes = { 'a', 'b' },\n"
        "skip_missing = true, bands_as_stored = true, date = 2 } }");
    const trn_job_dataset *data = &trn_recipe_train(recipe)->data;
    assert_string_equal(data->path, "d");
    assert_string_equal(data->labels, "l.tif");
    assert_string_equal(data->partition, "0.01x_train");
    assert_string_equal(data->sensor, "rgb");
    assert_true(data->chip == 32 && data->band_count == 2 && data->has_scale && data->scale == 0.5);
    assert_true(data->block == 2 && data->valid_share == 0.2 && data->test_share < 0);
    assert_true(data->offset == 1 && data->unit == TRN_UNIT_REFLECTANCE && data->resize == 96);
    assert_true(data->antialias && data->limit[TRN_SPLIT_TRAIN] == 10 && data->limit[TRN_SPLIT_VALID] == 0);
    assert_true(data->limit[TRN_SPLIT_TEST] == 20 && data->crop == 64 && data->rotate);
    assert_true(data->flip_x == 0.5 && data->flip_y == 0 && data->has_ignore && data->ignore == 255);
    assert_true(data->has_fill && data->fill == 0 && data->class_count == 2 && data->date == 2);
    assert_string_equal(data->class_names[1], "b");
    assert_true(data->skip_missing && data->bands_as_stored);
    trn_recipe_destroy(recipe);
    recipe = load_good(HEAD "return terrane.train { " ENCODER ",\n"
                            "data = terrane.dataset { 'd', classes = 3, flip = 0.25 } }");
    data = &trn_recipe_train(recipe)->data;
    assert_true(data->class_count == 3 && !data->class_names && !data->has_fill && !data->has_ignore);
    assert_true(data->flip_x == 0.25 && data->flip_y == 0.25 && !data->rotate && !data->has_scale);
    assert_true(!data->block && data->valid_share == 0 && data->test_share == 0); /* the usual ones */
    trn_text place = {0};
    trn_recipe_place(recipe, TRN_RECIPE_SCENE, 0, "classes", &place);
    assert_string_equal(trn_text_get(&place), "recipes/x.lua:3");
    trn_text_free(&place);
    trn_recipe_destroy(recipe);
}

static void test_short_training(void **state)
{
    (void)state;
    trn_recipe *recipe = load_good(HEAD "return terrane.train { " DATA ", " ENCODER " }");
    const trn_train_job *job = trn_recipe_train(recipe);
    assert_non_null(job);
    assert_null(trn_recipe_job(recipe));
    assert_null(trn_recipe_probe(recipe));
    assert_int_equal(job->encoder_count, 1);
    assert_null(job->trunk);
    assert_int_equal(job->head.kind, TRN_HEAD_LINEAR);
    assert_int_equal(job->fit.loss.kind, TRN_LOSS_BY_TASK);
    assert_int_equal(job->fit.optimizer.kind, TRN_ADAMW);
    assert_true(job->fit.optimizer.beta1 == 0.9 && job->fit.optimizer.beta2 == 0.999);
    assert_int_equal(job->fit.schedule.kind, TRN_SCHEDULE_COSINE);
    assert_true(job->fit.schedule.base == 1e-3 && job->fit.optimizer.weight_decay == 0.05);
    assert_true(job->fit.epochs == 50 && job->fit.batch == 32 && job->fit.accumulate == 1);
    assert_true(job->fit.layer_decay == 1 && job->fit.head_rate == 1 && !job->fit.metric);
    trn_recipe_destroy(recipe);
}

static void test_everything_of_training(void **state)
{
    (void)state;
    trn_recipe *recipe = load_good(
        HEAD "return terrane.train { " DATA ", encoders = terrane.encoder { 'rcf', weights = 'fresh' },\n"
             "head = terrane.upernet { channels = 64, dropout = 0.1 },\n"
             "loss = terrane.ce_dice { class_weights = { 1, 2, 0.5 } },\n"
             "optimizer = terrane.sgd { rate = 0.1, momentum = 0.8, nesterov = true, weight_decay = 1e-4,\n"
             "  coupled_decay = true }, schedule = terrane.step { every = 30, factor = 0.2,\n"
             "  warmup_epochs = 1.5, start = 0.01, last = 0.001 }, epochs = 9, batch = 4, accumulate = 2,\n"
             "freeze = { 'encoder.*', '*.bias' }, layer_decay = 0.75, head_rate = 10, dropout = 0.2,\n"
             "drop_path = 0.3, fixed_norm = true, recompute = true, precision = 'mixed',\n"
             "patience = 5, metric = 'mean_iou',\n"
             "clip = 1, average = 0.999, seed = 3, checkpoint_seconds = 5 }");
    const trn_train_job *job = trn_recipe_train(recipe);
    const trn_fit_options *fit = &job->fit;
    assert_string_equal(job->encoders[0].weights, "fresh");
    assert_int_equal(job->encoders[0].pool, TRN_FEATURES_DENSE);
    assert_true(job->head.kind == TRN_HEAD_UPERNET && job->head.channels == 64);
    assert_true(fabsf(job->head.dropout - 0.1f) < 1e-7f);
    assert_true(fit->loss.kind == TRN_LOSS_CE_DICE && fit->loss.class_weight_count == 3);
    assert_true(fit->loss.class_weights[1] == 2 && !fit->loss.balance);
    assert_true(fit->optimizer.kind == TRN_SGD && fit->optimizer.momentum == 0.8 && fit->optimizer.nesterov);
    assert_true(fit->optimizer.weight_decay == 1e-4 && fit->optimizer.coupled_decay);
    assert_true(fit->optimizer.max_norm == 1 && fit->optimizer.average == 0.999);
    assert_true(fit->schedule.kind == TRN_SCHEDULE_STEP && fit->schedule.base == 0.1);
    assert_true(fit->schedule.every == 30 && fit->schedule.factor == 0.2 && fit->schedule.start == 0.01);
    assert_true(fit->schedule.last == 0.001 && fit->warmup_epochs == 1.5);
    assert_true(fit->epochs == 9 && fit->batch == 4 && fit->accumulate == 2 && fit->frozen_count == 2);
    assert_string_equal(fit->frozen[1], "*.bias");
    assert_true(fit->layer_decay == 0.75 && fit->head_rate == 10 && fit->dropout == 0.2);
    assert_true(fit->drop_path == 0.3 && fit->fixed_norm && fit->recompute && fit->patience == 5);
    assert_true(fit->mixed && fit->loss_scale == 0);
    assert_string_equal(fit->metric, "mean_iou");
    assert_true(fit->seed == 3 && fit->checkpoint_seconds == 5);
    trn_recipe_destroy(recipe);
}

static void check_choice(const char *fields, trn_head_kind head, trn_loss_kind loss)
{
    char text[1024];
    snprintf(text, sizeof text, HEAD "return terrane.train { " DATA ", " ENCODER ", %s }", fields);
    trn_recipe *recipe = load_good(text);
    const trn_train_job *job = trn_recipe_train(recipe);
    assert_int_equal(job->head.kind, head);
    assert_int_equal(job->fit.loss.kind, loss);
    trn_recipe_destroy(recipe);
}

static void test_heads_and_losses(void **state)
{
    (void)state;
    check_choice("head = terrane.mlp { channels = 32, layers = 2 }, loss = terrane.cross_entropy {}",
                 TRN_HEAD_MLP, TRN_LOSS_CROSS_ENTROPY);
    check_choice("head = terrane.attention_pool { heads = 4 }, loss = terrane.focal {}", TRN_HEAD_ATTENTION,
                 TRN_LOSS_FOCAL);
    check_choice("head = terrane.fcn {}, loss = terrane.dice {}", TRN_HEAD_FCN, TRN_LOSS_DICE);
    check_choice("loss = terrane.jaccard {}", TRN_HEAD_LINEAR, TRN_LOSS_JACCARD);
    check_choice("loss = terrane.binary {}", TRN_HEAD_LINEAR, TRN_LOSS_BINARY);
    check_choice("loss = terrane.binary { balanced = true }", TRN_HEAD_LINEAR, TRN_LOSS_BINARY_BALANCED);
}

/* ---- networks ---- */

#define GRAPH(body)                                                                                          \
    HEAD "local net = terrane.graph(function(g, x)\n" body "\nend)\n"                                        \
         "return terrane.train { " DATA ", network = net }"

static void test_network(void **state)
{
    (void)state;
    trn_recipe *recipe = load_good(GRAPH("local y = g.relu(g.conv(x, { channels = 32, name = 'stem' }))\n"
                                         "y = g.add(y, g.conv { y, channels = 32, bias = false })\n"
                                         "return g.concat { g.mean(y), g.max(y) }"));
    const trn_program *program = trn_recipe_train(recipe)->trunk;
    assert_non_null(program);
    assert_true(program->input_count == 1 && program->node_count == 7 && program->output == 7);
    const trn_program_node *stem = &program->nodes[0], *second = &program->nodes[2],
                           *last = &program->nodes[6];
    assert_string_equal(stem->op, "conv");
    assert_string_equal(stem->name, "stem");
    assert_int_equal(stem->line, 3);
    assert_true(stem->input_count == 1 && stem->inputs[0] == 0 && stem->arg_count == 1);
    assert_string_equal(stem->args[0].key, "channels");
    assert_true(stem->args[0].number == 32 && !stem->args[0].text);
    assert_null(second->name);
    assert_true(second->inputs[0] == 2 && second->arg_count == 2 && second->args[0].number == 0);
    assert_true(last->line == 5 && last->input_count == 2 && last->inputs[0] == 5 && last->inputs[1] == 6);
    trn_recipe_destroy(recipe);
}

static void test_network_as_head(void **state)
{
    (void)state;
    trn_recipe *recipe = load_good(
        HEAD "local function layer(g, x, n) return g.gelu(g.linear(x, { channels = n })) end\n"
             "return terrane.train { " DATA ", encoders = terrane.encoder { 'rcf', pool = 'mean' },\n"
             "head = terrane.graph(function(g, x)\n"
             "return g.linear(layer(g, x, 16), { channels = 3 }) end) }");
    const trn_train_job *job = trn_recipe_train(recipe);
    assert_int_equal(job->head.kind, TRN_HEAD_PROGRAM);
    assert_int_equal(job->encoders[0].pool, TRN_FEATURES_MEAN);
    assert_int_equal(job->head.program->node_count, 3);
    assert_int_equal(job->head.program->nodes[0].line, 2); /* where the helper calls it */
    trn_recipe_destroy(recipe);
}

/* ---- mistakes ---- */

#define PROBE(fields) HEAD "return terrane.probe { " DATA ",\n" ENCODER ",\n" fields "}"
#define TRAIN(fields) HEAD "return terrane.train { " DATA ",\n" ENCODER ",\n" fields "}"
#define WITH_DATA(fields)                                                                                    \
    HEAD "return terrane.train { " ENCODER ",\ndata = terrane.dataset { 'd',\n" fields "} }"

static const struct {
    const char *text, *message;
} mistakes[] = {
    /* datasets */
    {WITH_DATA("crop = 0"), "recipes/x.lua:4: dataset: field 'crop' is 0; wanted an integer from 1 to 4096"},
    {WITH_DATA("limit = { trian = 1 }"),
     "recipes/x.lua:4: dataset: limit: field 'trian' is unknown; did you mean "
     "'train'?"},
    {WITH_DATA("limit = { train = 0 }"), "dataset: limit: field 'train' is 0; wanted an integer from 1"},
    {WITH_DATA("limit = 3"), "field 'limit' is 3; wanted a table { train = ..., ... }"},
    {WITH_DATA("flip = 2"), "field 'flip' is 2; wanted a number from 0 to 1 or a table { x = ..., ... }"},
    {WITH_DATA("flip = { x = 2 }"), "dataset: flip: field 'x' is 2"},
    {WITH_DATA("classes = { 'a', 3 }"), "field 'classes[2]' is 3; wanted a name, or one number alone"},
    {WITH_DATA("classes = { 'a', 'a' }"), "the class 'a' stands twice"},
    {WITH_DATA("chip = 32"), "field 'chip' is for a scene; wanted a field 'labels' beside it"},
    {WITH_DATA("shares = { test = 0 }"), "field 'shares' is for a scene; wanted a field 'labels' beside it"},
    {WITH_DATA("labels = 'l.tif', shares = { valid = 0.8 }"), "field 'shares' leaves nothing to train on"},
    {WITH_DATA("labels = 'l.tif', shares = { valid = -1 }"), "dataset: shares: field 'valid' is -1"},
    {WITH_DATA("offset = 1"), "wanted a field 'scale' beside it"},
    {WITH_DATA("sensor = 'setninel2'"), "recipes/x.lua:4: dataset: "},
    {HEAD "return terrane.train { data = 'd', " ENCODER " }",
     "field 'data' is 'd'; wanted terrane.dataset {...}"},
    /* probes */
    {PROBE("probes = { terrane.knn {}, terrane.knn { k = 3 } }"), "a second terrane.knn; wanted each kind"},
    {PROBE("probes = { terrane.knn { name = 'a' },\nterrane.logistic { name = 'a' } }"),
     "recipes/x.lua:5: probe: the name 'a' stands twice"},
    {PROBE("probes = terrane.knn { name = 'a b' }"), "field 'name' is 'a b'; wanted letters, digits and _"},
    {PROBE("probes = terrane.knn { k = 0 }"), "knn: field 'k' is 0"},
    {PROBE("probes = terrane.linear {}"), "field 'probes[1]' is a terrane.linear; wanted terrane.knn {...}"},
    {PROBE("probes = terrane.logistic { grid = {} }"), "field 'grid' is empty"},
    {PROBE("epochs = 3"), "probe: field 'epochs' is unknown"},
    {HEAD "return terrane.probe { " DATA " }", "probe: field 'encoders' is missing"},
    {HEAD "return terrane.probe { " ENCODER ", data = terrane.dataset { 'd', rotate = true } }",
     "field 'rotate' has no meaning in terrane.probe"},
    {HEAD "return terrane.probe { " DATA ", encoders = terrane.encoder { 'rcf', pool = 'none' } }",
     "a probe takes one vector an image"},
    {HEAD "return terrane.probe { " DATA ",\nencoders = terrane.encoder { 'rcf',\ndate = 1 } }",
     "recipes/x.lua:4: encoder: field 'date' has no meaning in terrane.probe"},
    /* training */
    {HEAD "return terrane.train { " DATA " }",
     "field 'encoders' is missing; wanted terrane.encoder {...}, or a "
     "field 'network'"},
    {TRAIN("network = terrane.graph(function(g, x) return x end)"),
     "field 'network' stands in place of 'encoders'"},
    {TRAIN("head = terrane.knn {}"), "field 'head' is a terrane.knn; wanted a head (terrane.linear"},
    {TRAIN("loss = 'dice'"), "field 'loss' is 'dice'; wanted a loss (terrane.cross_entropy"},
    {TRAIN("optimizer = terrane.adamw { rate = 0 }"), "adamw: field 'rate' is 0; wanted a number above 0"},
    {TRAIN("optimizer = terrane.sgd { beta1 = 0.9 }"), "sgd: field 'beta1' is unknown"},
    {TRAIN("schedule = terrane.cosine {\nlast = 1 }"),
     "recipes/x.lua:5: cosine: field 'last' is 1, above the optimiser's rate, 0.001"},
    {TRAIN("epochs = 2, schedule = terrane.constant {\nwarmup_epochs = 2 }"),
     "recipes/x.lua:5: constant: field 'warmup_epochs' is 2; wanted less than the 2 epochs of training"},
    {TRAIN("schedule = terrane.step {}"), "step: field 'every' is missing"},
    {TRAIN("epochs = 1.5"), "recipes/x.lua:4: train: field 'epochs' is 1.5; wanted an integer"},
    {TRAIN("\nmetric = 'acuracy'"), "recipes/x.lua:5: train: "},
    {TRAIN("loss = terrane.binary { balanced = true, balance = true }"), "is a form without class weights"},
    {TRAIN("loss = terrane.dice { balance = true, class_weights = { 1, 2 } }"),
     "'balance' makes the weights"},
    {HEAD "return terrane.train { " DATA
          ", head = terrane.fcn {},\nencoders = terrane.encoder { 'rcf', pool = "
          "'mean' } }",
     "field 'pool' is 'mean', but terrane.fcn takes the cells of an image"},
    {HEAD "return terrane.train { " DATA ", encoders = terrane.encoder { 'rcf',\nremove_position = true } }",
     "recipes/x.lua:3: encoder: field 'remove_position' has no meaning in terrane.train"},
    {HEAD "return terrane.train { " DATA
          ", layer_decay = 0.5,\nnetwork = terrane.graph(function(g, x) return x "
          "end) }",
     "field 'layer_decay' is for encoders"},
    {HEAD "return terrane.dataset 'd'",
     "the recipe returns a terrane.dataset; end it with: return terrane.embed"},
    /* networks */
    {GRAPH("return g.covn(x)"), "recipes/x.lua:3: graph: there is no operator 'covn'; did you mean 'conv'?"},
    {GRAPH("return g.conv(x)"), "recipes/x.lua:3: conv: argument 'channels' is missing"},
    {GRAPH("return\n\ng.conv(x, { channels = 0 })"),
     "recipes/x.lua:5: conv: argument 'channels' is 0; wanted an "
     "integer from 1 to 65536"},
    {GRAPH("return g.conv(x, { channels = 8, kernal = 3 })"),
     "conv: argument 'kernal' is unknown (arguments: channels, kernel, stride, padding, bias)"},
    {GRAPH("return g.conv(x, { channels = 'many' })"), "argument 'channels' is 'many'"},
    {GRAPH("return g.conv(x, { channels = {} })"), "argument 'channels' is a table; wanted"},
    {GRAPH("return g.conv(x, { channels = 0/0 })"), "argument 'channels' is"},
    {GRAPH("return g.linear(x, { channels = 8, bias = 2 })"), "argument 'bias' is 2; wanted true or false"},
    {GRAPH("return g.resize(x, { scale = 2, mode = 'cubic' })"),
     "'mode' is 'cubic'; wanted bilinear|nearest"},
    {GRAPH("return g:relu(x)"),
     "relu: value 1 is the operators of terrane.graph; wanted a value of this network; "
     "write g.relu, with a dot"},
    {GRAPH("return g.add(x)"), "add: 1 values; wanted 2 to 16"},
    {GRAPH("return g.add(x, nil)"), "add: value 2 is nil"},
    {GRAPH("return g.relu(3)"), "relu: value 1 is 3; wanted a value of this network"},
    {GRAPH("local y = g.relu(x)"), "graph: the function returns 0 values; wanted one value of the network"},
    {GRAPH("return 3"), "graph: the function returns 3; wanted one value"},
    {GRAPH("return x.shape"), "terrane.graph: its fields cannot be read back"},
    {GRAPH("return g.conv(g.conv(x, { channels = 2, name = 'a' }), { channels = 2, name = 'a' })"),
     "conv: the name 'a' stands twice"},
    {GRAPH("return g.conv(x, { channels = 2, name = '3.conv' })"), "conv: '3.conv' is no name"},
    {GRAPH("for i = 1, 1025 do x = g.relu(x) end return x"), "relu: more than 1024 operators in a network"},
    {HEAD "local kept\nlocal a = terrane.graph(function(g, x) kept = x return x end)\n"
          "return terrane.graph(function(g, x) return g.add(x, kept) end)",
     "recipes/x.lua:4: add: value 2 is of another network"},
    {HEAD "local kept\nterrane.graph(function(g, x) kept = g return x end)\nkept.relu(kept)",
     "recipes/x.lua:4: relu: the network is finished"},
    {HEAD "local f, y\nterrane.graph(function(g, x) f, y = g, x return x end)\nf.relu(y)",
     "recipes/x.lua:4: relu: the network is finished"},
    {HEAD "return terrane.graph { 1 }", "graph: got a table; wanted terrane.graph(function(g, x)"},
    {HEAD "return terrane.graph(function(g, x) while true do end end)", "too many instructions"},
    {HEAD "local function f() return terrane.graph(f) end\nreturn f()", "recipes/x.lua"},
};

static void test_mistakes(void **state)
{
    (void)state;
    int failures = 0;
    for (size_t i = 0; i < TRN_COUNT(mistakes); i++) {
        trn_recipe *recipe = NULL;
        trn_error err = {0};
        trn_status status = load(mistakes[i].text, &recipe, &err);
        if (status == TRN_ERR_ARGUMENT && strstr(err.message, mistakes[i].message) && !recipe) continue;
        failures++;
        print_error("wanted: %s\n   got: %s: %s\n", mistakes[i].message, trn_status_name(status),
                    err.message);
        trn_recipe_destroy(recipe);
    }
    assert_int_equal(failures, 0);
}

/* Every constructor that takes a table of fields refuses what is no table, an unknown field, and a value of a
 * wrong type, and says its own name. */
static void test_every_constructor_refuses(void **state)
{
    (void)state;
    static const char *const names[] = {
        "dataset",  "linear", "mlp",      "attention_pool", "fcn",     "upernet", "adamw", "sgd",
        "constant", "cosine", "step",     "dice",           "ce_dice", "jaccard", "focal", "cross_entropy",
        "binary",   "knn",    "logistic", "linear_probe",   "probe",   "train"};
    static const char *const calls[] = {"(1)", "()", " { nonsense = 1 }", " { {} }"};
    for (size_t i = 0; i < TRN_COUNT(names); i++) {
        for (size_t k = 0; k < TRN_COUNT(calls); k++) {
            char text[256], wanted[64];
            trn_recipe *recipe = NULL;
            trn_error err = {0};
            snprintf(text, sizeof text, HEAD "return terrane.%s%s", names[i], calls[k]);
            snprintf(wanted, sizeof wanted, "recipes/x.lua:2: %s: ", names[i]);
            trn_status status = load(text, &recipe, &err);
            assert_trn_fails(status, TRN_ERR_ARGUMENT, err, wanted);
            assert_null(recipe);
        }
    }
}

/* The examples of docs/training.md are recipes that load. */
static void test_documented_examples(void **state)
{
    (void)state;
    const char *root = getenv("TERRANE_SOURCE");
    char *path = test_path(root ? root : ".", "docs/training.md");
    trn_error err = {0};
    char *text = trn_read_file(path, 1 << 20, NULL, &err);
    if (!text) fail_msg("%s", err.message);
    int count = 0;
    for (char *code = text ? strstr(text, "```lua\n") : NULL; code;
         code = strstr(code, "```lua\n"), count++) {
        code += strlen("```lua\n");
        char *end = strstr(code, "```");
        assert_non_null(end);
        trn_recipe *recipe = NULL;
        trn_status status = trn_recipe_load_text("docs/training.md", code, (size_t)(end - code), NULL, 0,
                                                 NULL, &recipe, &err);
        assert_trn_ok(status, err);
        assert_true(trn_recipe_probe(recipe) || trn_recipe_train(recipe));
        trn_recipe_destroy(recipe);
        code = end + 3;
    }
    assert_true(count >= 3);
    free(text);
    free(path);
}

/* The sandbox's limits hold while a network is built: with hardly any memory it fails cleanly. */
static void test_every_memory_limit(void **state)
{
    (void)state;
    static const char text[] = GRAPH("for i = 1, 200 do x = g.conv(x, { channels = 8 }) end return x");
    bool loaded = false;
    for (size_t bytes = 4096; bytes < (size_t)2 << 20; bytes += 19937) {
        trn_recipe_limits limits = {.memory_bytes = bytes};
        trn_recipe *recipe = NULL;
        trn_error err = {0};
        trn_status status =
            trn_recipe_load_text("recipes/x.lua", text, strlen(text), NULL, 0, &limits, &recipe, &err);
        if (status != TRN_OK && status != TRN_ERR_ARGUMENT && status != TRN_ERR_MEMORY)
            fail_msg("%zu bytes: %s", bytes, err.message);
        loaded = loaded || status == TRN_OK;
        trn_recipe_destroy(recipe);
    }
    assert_true(loaded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_probe),
        cmocka_unit_test(test_everything_of_a_probe),
        cmocka_unit_test(test_dataset),
        cmocka_unit_test(test_short_training),
        cmocka_unit_test(test_everything_of_training),
        cmocka_unit_test(test_heads_and_losses),
        cmocka_unit_test(test_network),
        cmocka_unit_test(test_network_as_head),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_every_constructor_refuses),
        cmocka_unit_test(test_documented_examples),
        cmocka_unit_test(test_every_memory_limit),
    };
    return cmocka_run_group_tests_name("recipes that learn", tests, NULL, NULL);
}
