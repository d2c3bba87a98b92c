/* convert_learning: datasets, probes, training and networks of recipes -> the structs of their jobs. */
#include <string.h>

#include "convert.h"

/* ---- datasets ---- */

static void convert_limits(converter *c, trn_job_dataset *data)
{
    lua_getfield(c->L, -1, "limit");
    for (int split = 0; split < TRN_SPLIT_COUNT; split++)
        data->limit[split] = (size_t)trn_field_integer(c, trn_split_name((trn_split)split));
    lua_pop(c->L, 1);
}

/* 0 is what the runtime takes for the usual share. */
static double convert_share(converter *c, const char *split)
{
    double share = trn_field_number(c, split, 0);
    return share > 0 ? share : -1;
}

static void convert_blocks(converter *c, trn_job_dataset *data)
{
    data->block = trn_field_integer(c, "block");
    if (lua_getfield(c->L, -1, "shares") == LUA_TTABLE) {
        data->valid_share = convert_share(c, "valid");
        data->test_share = convert_share(c, "test");
    }
    lua_pop(c->L, 1);
}

static void convert_chance(converter *c, trn_job_dataset *data)
{
    lua_getfield(c->L, -1, "flip");
    data->flip_x = trn_field_number(c, "x", 0);
    data->flip_y = trn_field_number(c, "y", 0);
    lua_pop(c->L, 1);
    data->crop = trn_field_integer(c, "crop");
    data->rotate = trn_field_flag(c, "rotate");
}

static void convert_labels(converter *c, trn_job_dataset *data)
{
    size_t names = 0;
    data->labels = trn_field_text(c, "labels");
    data->chip = trn_field_integer(c, "chip");
    data->has_ignore = trn_field_given(c, "ignore");
    data->ignore = trn_field_integer(c, "ignore");
    data->class_names = trn_field_texts(c, "classes", &names);
    data->class_count = (size_t)trn_field_integer(c, "class_count");
}

/* The job's table is at the top. */
static void convert_dataset(converter *c, trn_job_dataset *data)
{
    lua_getfield(c->L, -1, "data");
    c->recipe->scene_place = trn_convert_place(c);
    data->path = trn_field_text(c, "path");
    data->partition = trn_field_text(c, "partition");
    data->bands = trn_field_texts(c, "bands", &data->band_count);
    stored_values values = trn_convert_values(c);
    data->sensor = values.sensor;
    data->custom = values.custom;
    data->has_scale = values.has_scale;
    data->scale = values.scale;
    data->offset = values.offset;
    data->unit = values.unit;
    data->bands_as_stored = trn_field_flag(c, "bands_as_stored");
    data->skip_missing = trn_field_flag(c, "skip_missing");
    data->has_fill = trn_field_given(c, "fill");
    data->fill = trn_field_number(c, "fill", 0);
    data->date = trn_field_integer(c, "date");
    data->resize = trn_field_integer(c, "resize");
    data->antialias = trn_field_flag(c, "antialias");
    convert_labels(c, data);
    convert_blocks(c, data);
    convert_limits(c, data);
    convert_chance(c, data);
    lua_pop(c->L, 1);
}

/* ---- probes ---- */

static const choice distances[] = {{"cosine", TRN_DISTANCE_COSINE}, {"l2", TRN_DISTANCE_L2}};

static void convert_knn(converter *c, trn_probe_job *probe)
{
    probe->knn.k = trn_field_integer(c, "k");
    probe->knn.distance = (trn_distance)trn_field_choice(c, "distance", distances, TRN_COUNT(distances));
    probe->knn.center = trn_field_flag(c, "center");
}

static void convert_linear(converter *c, trn_probe_job *probe)
{
    probe->linear.epochs = trn_field_integer(c, "epochs");
    probe->linear.batch = trn_field_integer(c, "batch");
    probe->linear.rates = trn_field_numbers(c, "rates", &probe->linear.rate_count);
    probe->linear.weight_decay = trn_field_number(c, "weight_decay", 0);
    probe->linear.batch_norm = trn_field_flag(c, "batch_norm");
    probe->linear.seed = probe->seed;
}

static void convert_logistic(converter *c, trn_probe_job *probe)
{
    probe->logistic.grid = trn_field_numbers(c, "grid", &probe->logistic.grid_count);
    probe->logistic.standardize = trn_field_flag(c, "standardize");
    probe->logistic.refit = trn_field_flag(c, "refit");
    probe->logistic.max_iterations = trn_field_integer(c, "max_iterations");
    probe->logistic.tolerance = trn_field_number(c, "tolerance", 0);
}

/* The table of probes by their constructors is at the top. */
static void convert_kind(converter *c, const char *constructor, trn_job_probe *use, trn_probe_job *probe,
                         void (*convert)(converter *c, trn_probe_job *probe))
{
    if (lua_getfield(c->L, -1, constructor) == LUA_TTABLE) {
        use->wanted = true;
        use->name = trn_field_text(c, "name");
        convert(c, probe);
    }
    lua_pop(c->L, 1);
}

void trn_convert_probe(converter *c, trn_embed_job *job)
{
    trn_probe_job *probe = trn_convert_take(c, 1, sizeof *probe);
    if (!probe) return;
    c->recipe->probe = probe;
    convert_dataset(c, &probe->data);
    trn_convert_encoders(c, job);
    trn_convert_fusion(c, &probe->compose);
    probe->encoders = job->encoders;
    probe->encoder_count = job->encoder_count;
    probe->batch = trn_field_integer(c, "batch");
    probe->cache = trn_field_text(c, "cache");
    probe->seed = (uint64_t)trn_field_integer(c, "seed");
    lua_getfield(c->L, -1, "probes");
    convert_kind(c, "knn", &probe->use_knn, probe, convert_knn);
    convert_kind(c, "linear_probe", &probe->use_linear, probe, convert_linear);
    convert_kind(c, "logistic", &probe->use_logistic, probe, convert_logistic);
    lua_pop(c->L, 1);
}

/* ---- networks ---- */

static const int *convert_inputs(converter *c, int *count)
{
    size_t many = 0;
    const double *numbers = trn_field_numbers(c, "inputs", &many);
    int *inputs = trn_convert_take(c, many, sizeof *inputs);
    for (size_t i = 0; numbers && inputs && i < many; i++)
        inputs[i] = (int)numbers[i];
    *count = inputs ? (int)many : 0;
    return inputs;
}

static const trn_program_arg *convert_args(converter *c, int *count)
{
    lua_getfield(c->L, -1, "args");
    size_t many = (size_t)lua_rawlen(c->L, -1);
    trn_program_arg *args = trn_convert_take(c, many, sizeof *args);
    for (size_t i = 0; args && i < many; i++) {
        lua_rawgeti(c->L, -1, (lua_Integer)i + 1);
        args[i] = (trn_program_arg){trn_field_text(c, "key"), trn_field_number(c, "number", 0),
                                    trn_field_text(c, "text")};
        lua_pop(c->L, 1);
    }
    lua_pop(c->L, 1);
    *count = args ? (int)many : 0;
    return args;
}

static const trn_program_node *convert_nodes(converter *c, int *count)
{
    lua_getfield(c->L, -1, "nodes");
    size_t many = (size_t)lua_rawlen(c->L, -1);
    trn_program_node *nodes = trn_convert_take(c, many, sizeof *nodes);
    for (size_t i = 0; nodes && i < many; i++) {
        lua_rawgeti(c->L, -1, (lua_Integer)i + 1);
        nodes[i].op = trn_field_text(c, "op");
        nodes[i].name = trn_field_text(c, "name");
        nodes[i].line = trn_field_integer(c, "line");
        nodes[i].inputs = convert_inputs(c, &nodes[i].input_count);
        nodes[i].args = convert_args(c, &nodes[i].arg_count);
        lua_pop(c->L, 1);
    }
    lua_pop(c->L, 1);
    *count = nodes ? (int)many : 0;
    return nodes;
}

/* The table of a terrane.graph is at the top. */
static const trn_program *convert_program(converter *c)
{
    trn_program *program = trn_convert_take(c, 1, sizeof *program);
    if (!program) return NULL;
    recipe_place place = trn_convert_place(c);
    program->input_count = 1;
    program->output = trn_field_integer(c, "output");
    program->nodes = convert_nodes(c, &program->node_count);
    if (c->status != TRN_OK) return NULL;
    c->status = trn_program_check(program, c->err);
    if (c->status != TRN_OK) c->status = trn_recipe_blame(c->recipe, place, NULL, c->err);
    return program;
}

/* ---- training ---- */

static const choice heads[] = {
    {"linear", TRN_HEAD_LINEAR}, {"mlp", TRN_HEAD_MLP},         {"attention_pool", TRN_HEAD_ATTENTION},
    {"fcn", TRN_HEAD_FCN},       {"upernet", TRN_HEAD_UPERNET}, {"graph", TRN_HEAD_PROGRAM}};
static const choice optimizers[] = {{"adamw", TRN_ADAMW}, {"sgd", TRN_SGD}};
static const choice schedules[] = {
    {"constant", TRN_SCHEDULE_CONSTANT}, {"cosine", TRN_SCHEDULE_COSINE}, {"step", TRN_SCHEDULE_STEP}};
static const choice losses[] = {{"cross_entropy", TRN_LOSS_CROSS_ENTROPY},
                                {"dice", TRN_LOSS_DICE},
                                {"ce_dice", TRN_LOSS_CE_DICE},
                                {"jaccard", TRN_LOSS_JACCARD},
                                {"focal", TRN_LOSS_FOCAL},
                                {"binary", TRN_LOSS_BINARY}};

/* Each of these: the job's table is at the top. */

static void convert_head(converter *c, trn_head_desc *head)
{
    lua_getfield(c->L, -1, "head");
    head->kind = (trn_head_kind)trn_field_choice(c, "constructor", heads, TRN_COUNT(heads));
    if (head->kind == TRN_HEAD_PROGRAM) {
        head->program = convert_program(c);
    } else {
        head->channels = trn_field_integer(c, "channels");
        head->layers = trn_field_integer(c, "layers");
        head->heads = trn_field_integer(c, "heads");
        head->dropout = (float)trn_field_number(c, "dropout", 0);
        head->batch_norm = trn_field_flag(c, "batch_norm");
    }
    lua_pop(c->L, 1);
}

static void convert_loss(converter *c, trn_loss_choice *loss)
{
    if (lua_getfield(c->L, -1, "loss") == LUA_TTABLE) {
        loss->kind = (trn_loss_kind)trn_field_choice(c, "constructor", losses, TRN_COUNT(losses));
        if (trn_field_flag(c, "balanced")) loss->kind = TRN_LOSS_BINARY_BALANCED;
        loss->label_smoothing = trn_field_number(c, "label_smoothing", 0);
        loss->gamma = trn_field_number(c, "gamma", 0);
        loss->class_weights = trn_field_numbers(c, "class_weights", &loss->class_weight_count);
        loss->balance = trn_field_flag(c, "balance");
    }
    lua_pop(c->L, 1);
}

static void convert_optimizer(converter *c, trn_optimizer_desc *optimizer, double *rate)
{
    lua_getfield(c->L, -1, "optimizer");
    optimizer->kind =
        (trn_optimizer_kind)trn_field_choice(c, "constructor", optimizers, TRN_COUNT(optimizers));
    *rate = trn_field_number(c, "rate", 0);
    optimizer->weight_decay = trn_field_number(c, "weight_decay", 0);
    optimizer->coupled_decay = trn_field_flag(c, "coupled_decay");
    optimizer->beta1 = trn_field_number(c, "beta1", 0);
    optimizer->beta2 = trn_field_number(c, "beta2", 0);
    optimizer->eps = trn_field_number(c, "eps", 0);
    optimizer->momentum = trn_field_number(c, "momentum", 0);
    optimizer->nesterov = trn_field_flag(c, "nesterov");
    lua_pop(c->L, 1);
    optimizer->max_norm = trn_field_number(c, "clip", 0);
    optimizer->average = trn_field_number(c, "average", 0);
}

static void convert_schedule(converter *c, trn_fit_options *fit, double rate)
{
    lua_getfield(c->L, -1, "schedule");
    fit->schedule.kind =
        (trn_schedule_kind)trn_field_choice(c, "constructor", schedules, TRN_COUNT(schedules));
    fit->schedule.base = rate;
    fit->schedule.start = trn_field_number(c, "start", 0);
    fit->schedule.last = trn_field_number(c, "last", 0);
    fit->schedule.every = trn_field_integer(c, "every");
    fit->schedule.factor = trn_field_number(c, "factor", 0);
    fit->warmup_epochs = trn_field_number(c, "warmup_epochs", 0);
    lua_pop(c->L, 1);
}

/* The task decides later which of the two kinds of metrics it must be. */
static void check_metric(converter *c, const char *name)
{
    if (!name || trn_metric_find(name, false, NULL) || c->status != TRN_OK) return;
    if (!trn_metric_find(name, true, NULL)) {
        trn_metric_find(name, false, c->err);
        c->status = trn_recipe_blame(c->recipe, c->recipe->embed_place, "metric", c->err);
    }
}

static void convert_fit(converter *c, trn_fit_options *fit)
{
    static const choice precisions[] = {{"float32", 0}, {"mixed", 1}};
    double rate = 0;
    fit->epochs = trn_field_integer(c, "epochs");
    fit->batch = trn_field_integer(c, "batch");
    fit->accumulate = trn_field_integer(c, "accumulate");
    convert_loss(c, &fit->loss);
    convert_optimizer(c, &fit->optimizer, &rate);
    convert_schedule(c, fit, rate);
    fit->layer_decay = trn_field_number(c, "layer_decay", 1);
    fit->head_rate = trn_field_number(c, "head_rate", 1);
    fit->frozen = trn_field_texts(c, "freeze", &fit->frozen_count);
    fit->dropout = trn_field_number(c, "dropout", 0);
    fit->drop_path = trn_field_number(c, "drop_path", 0);
    fit->fixed_norm = trn_field_flag(c, "fixed_norm");
    fit->recompute = trn_field_flag(c, "recompute");
    fit->mixed = trn_field_choice(c, "precision", precisions, TRN_COUNT(precisions)) == 1;
    fit->metric = trn_field_text(c, "metric");
    check_metric(c, fit->metric);
    fit->patience = trn_field_integer(c, "patience");
    fit->seed = (uint64_t)trn_field_integer(c, "seed");
    fit->checkpoint_seconds = trn_field_number(c, "checkpoint_seconds", 0);
}

void trn_convert_train(converter *c, trn_embed_job *job)
{
    trn_train_job *train = trn_convert_take(c, 1, sizeof *train);
    if (!train) return;
    c->recipe->train = train;
    convert_dataset(c, &train->data);
    trn_convert_encoders(c, job);
    trn_convert_fusion(c, &train->compose);
    train->encoders = job->encoders;
    train->encoder_count = job->encoder_count;
    if (lua_getfield(c->L, -1, "network") == LUA_TTABLE) train->trunk = convert_program(c);
    lua_pop(c->L, 1);
    convert_head(c, &train->head);
    convert_fit(c, &train->fit);
}
