/* The two graphs of a fit: one that trains, one that evaluates with the weights of the first. */
#include "fit.h"

#include <stdlib.h>
#include <string.h>

/* ---- what learns ---- */

/* '*' stands for any characters. */
static bool matches(const char *pattern, const char *name)
{
    const char *star = NULL, *from = NULL;
    while (*name) {
        if (*pattern == '*') {
            star = pattern++;
            from = name;
        } else if (*pattern == *name) {
            pattern++;
            name++;
        } else if (star) {
            pattern = star + 1;
            name = ++from;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return !*pattern;
}

static bool is_frozen(const trn_fit_options *options, const char *name)
{
    for (size_t i = 0; i < options->frozen_count; i++)
        if (matches(options->frozen[i], name)) return true;
    return false;
}

static bool learns(void *user, const char *name)
{
    const fit *f = user;
    return !is_frozen(f->options, name);
}

static bool learns_all(void *user, const char *name)
{
    (void)user, (void)name;
    return true;
}

/* The encoder whose parameter this is, or -1. */
static int member_of(const fit *f, const char *name)
{
    char prefix[32];
    for (size_t i = 0; i < f->model->member_count; i++) {
        learn_member_prefix(i, prefix);
        if (trn_starts_with(name, prefix)) return (int)i;
    }
    return -1;
}

static void apply_rule(void *user, const char *name, const trn_shape *shape, trn_learning_rule *rule)
{
    const fit *f = user;
    const trn_fit_options *o = f->options;
    int member = member_of(f, name);
    (void)shape;
    if (member < 0 && o->head_rate > 0) rule->lr_scale *= o->head_rate;
    if (member < 0 || !(o->layer_decay > 0)) return;
    int depth = f->depths[member];
    rule->lr_scale *= trn_layer_scale(o->layer_decay, trn_layer_of(name, depth), depth);
}

/* ---- building ---- */

static trn_tensor *image_input(const fit *f, trn_graph *graph)
{
    return trn_input(graph, "image", TRN_F32,
                     TRN_SHAPE(f->options->batch, f->model->bands, f->model->height, f->model->width));
}

static trn_tensor *label_input(const fit *f, trn_graph *graph)
{
    int64_t batch = f->options->batch;
    if (f->multilabel)
        return trn_input(graph, "targets", TRN_F32, TRN_SHAPE(batch, (int64_t)f->info->class_count));
    if (f->dense)
        return trn_input(graph, "labels", TRN_I32, TRN_SHAPE(batch, f->model->height, f->model->width));
    return trn_input(graph, "labels", TRN_I32, TRN_SHAPE(batch));
}

static trn_tensor *build_loss(const fit *f, trn_graph *graph, trn_tensor *logits, trn_tensor *labels)
{
    const trn_loss_choice *choice = &f->options->loss;
    trn_tensor *weights = NULL;
    if (f->class_weights)
        weights =
            trn_constant(graph, "class weights", TRN_SHAPE((int64_t)f->info->class_count), f->class_weights);
    trn_class_loss_desc desc = {.ignored = TRN_LABEL_IGNORE, .class_weights = weights}, smooth = desc;
    smooth.label_smoothing = (float)choice->label_smoothing;
    trn_focal_desc focal = {
        .ignored = TRN_LABEL_IGNORE, .softmax = true, .gamma = choice->gamma > 0 ? (float)choice->gamma : 2};
    switch (f->loss) {
    case TRN_LOSS_DICE:
        return trn_loss_dice(graph, logits, labels, &desc);
    case TRN_LOSS_CE_DICE:
        return trn_add(graph, trn_loss_cross_entropy(graph, logits, labels, &smooth),
                       trn_loss_dice(graph, logits, labels, &desc));
    case TRN_LOSS_JACCARD:
        return trn_loss_jaccard(graph, logits, labels, &desc);
    case TRN_LOSS_FOCAL:
        return trn_loss_focal(graph, logits, labels, &focal);
    case TRN_LOSS_BINARY:
        return trn_loss_binary(graph, logits, labels, weights);
    case TRN_LOSS_BINARY_BALANCED:
        return trn_loss_binary_balanced(graph, logits, labels);
    default:
        return trn_loss_cross_entropy(graph, logits, labels, &smooth);
    }
}

static size_t count_states(const trn_graph *graph)
{
    size_t count = 0;
    while (trn_graph_state(graph, count, NULL))
        count++;
    return count;
}

static bool has_state(const trn_graph *graph, const char *name)
{
    const char *other;
    for (size_t i = 0; trn_graph_state(graph, i, &other); i++)
        if (!strcmp(other, name)) return true;
    return false;
}

/* Graph that trains, up to the steps; *weights: how many of its states are the model's. */
static trn_status build_train(fit *f, trn_graph *graph, size_t *weights, trn_error *err)
{
    const trn_fit_options *o = f->options;
    trn_tensor *logits = NULL;
    trn_graph_train(graph, learns, f);
    trn_graph_recompute(graph, o->recompute);
    trn_graph_mixed(graph, o->mixed);
    trn_tensor *image = image_input(f, graph);
    trn_training training = {.counters = trn_input(graph, "counters", TRN_I32, TRN_SHAPE(o->batch, 2)),
                             .seed = o->seed,
                             .dropout = (float)o->dropout,
                             .drop_path = (float)o->drop_path,
                             .fixed_norm = o->fixed_norm};
    trn_status status = trn_learn_build(graph, f->model, image, f->dense, &training, &logits, err);
    if (status != TRN_OK) return status;
    trn_tensor *loss = build_loss(f, graph, logits, label_input(f, graph));
    trn_output_add(graph, "loss", loss);
    *weights = count_states(graph);
    if (!loss) return trn_graph_status(graph, err);
    if (!trn_graph_learning(graph, 0, NULL))
        return trn_fail(err, TRN_ERR_ARGUMENT, "nothing learns: every parameter is frozen");
    trn_optimizer_desc desc = f->optimizer;
    desc.rule = apply_rule;
    desc.user = f;
    if (o->mixed) loss = trn_mul(graph, loss, trn_input(graph, FIT_LOSS_SCALE, TRN_F32, TRN_SHAPE(1)));
    return loss ? trn_optimizer_minimize(graph, loss, &desc, err) : trn_graph_status(graph, err);
}

static trn_status build_eval(fit *f, trn_graph *graph, trn_error *err)
{
    trn_tensor *logits = NULL;
    trn_graph_train(graph, learns, f);
    trn_tensor *image = image_input(f, graph);
    trn_status status = trn_learn_build(graph, f->model, image, f->dense, NULL, &logits, err);
    if (status != TRN_OK) return status;
    trn_output_add(graph, "logits", logits);
    if (!f->multilabel) /* of several labels the host computes it: rows without labels would count there */
        trn_output_add(graph, "loss", build_loss(f, graph, logits, label_input(f, graph)));
    return trn_graph_status(graph, err);
}

/* ---- the tensors of checkpoints ---- */

static bool is_learner(const trn_graph *graph, const char *name)
{
    const char *other;
    for (size_t i = 0; trn_graph_learning(graph, i, &other); i++)
        if (!strcmp(other, name)) return true;
    return false;
}

static trn_status keep_tensor(fit *f, trn_tensor *state, const char *name, bool weight, trn_error *err)
{
    fit_engine *e = &f->engine;
    fit_tensor *t = &e->tensors[e->tensor_count];
    t->shape = *trn_tensor_shape(state);
    t->count = trn_shape_count(&t->shape);
    t->weight = weight;
    t->name = trn_arena_strdup(f->arena, name);
    t->kept = trn_arena_printf(f->arena, "keep.%s", name);
    char *average = trn_arena_printf(f->arena, "average.%s", name);
    if (!t->name || !t->kept || !average) return trn_fail_memory(err, strlen(name), "a name");
    t->best = weight && has_state(e->train_graph, average) ? average : t->kept;
    t->learns = weight && is_learner(e->train_graph, name);
    t->in_eval = weight && has_state(e->eval_graph, name);
    trn_output_add(e->train_graph, t->kept, state);
    e->tensor_count++;
    return TRN_OK;
}

/* All states but sums of gradients, which are zero between steps. */
static trn_status keep_tensors(fit *f, size_t weights, trn_error *err)
{
    fit_engine *e = &f->engine;
    size_t count = count_states(e->train_graph);
    trn_status status = TRN_OK;
    e->tensors = calloc(count + 1, sizeof *e->tensors);
    if (!e->tensors) return trn_fail_memory(err, count * sizeof *e->tensors, "a list of tensors");
    for (size_t i = 0; status == TRN_OK && i < count; i++) {
        const char *name;
        trn_tensor *state = trn_graph_state(e->train_graph, i, &name);
        if (i < weights || !trn_starts_with(name, "accumulated."))
            status = keep_tensor(f, state, name, i < weights, err);
    }
    return status == TRN_OK ? trn_graph_status(e->train_graph, err) : status;
}

/* A pattern that freezes nothing is a mistake. */
static trn_status check_frozen(const fit *f, const trn_graph *all, trn_error *err)
{
    for (size_t p = 0; p < f->options->frozen_count; p++) {
        const char *name, *first = "none";
        bool found = false;
        for (size_t i = 0; trn_graph_learning(all, i, &name); i++) {
            if (!i) first = name;
            found = found || matches(f->options->frozen[p], name);
        }
        if (!found)
            return trn_fail(err, TRN_ERR_ARGUMENT,
                            "no parameter has a name like '%s', which is to stay as it is; the first is '%s'",
                            f->options->frozen[p], first);
    }
    return TRN_OK;
}

/* All parameters, by a graph in which all learn, that nobody runs. */
static trn_status count_parameters(fit *f, trn_error *err)
{
    trn_graph *all = trn_graph_create();
    trn_tensor *out = NULL, *state;
    if (!all) return trn_fail_memory(err, sizeof all, "a graph");
    trn_graph_train(all, learns_all, NULL);
    trn_status status = trn_learn_build(all, f->model, image_input(f, all), f->dense, NULL, &out, err);
    for (size_t i = 0; (state = trn_graph_learning(all, i, NULL)) != NULL; i++)
        f->engine.parameters += (uint64_t)trn_shape_count(trn_tensor_shape(state));
    if (status == TRN_OK) status = check_frozen(f, all, err);
    trn_graph_destroy(all);
    return status;
}

static trn_status make_room(fit *f, trn_error *err)
{
    size_t batch = (size_t)f->options->batch, classes = f->info->class_count;
    size_t area = (size_t)f->model->height * (size_t)f->model->width, pixels, labels;
    size_t values = batch * classes * (f->dense ? area : 1);
    for (size_t i = 0; i < f->engine.tensor_count; i++)
        values = TRN_MAX(values, (size_t)f->engine.tensors[i].count);
    labels = batch * (f->dense ? area : f->info->label_count);
    if (!trn_mul_size(batch * (size_t)f->model->bands, area, &pixels))
        return trn_fail_memory(err, SIZE_MAX, "a batch");
    f->values = calloc(values, sizeof *f->values);
    f->pixels = calloc(pixels, sizeof *f->pixels);
    f->labels = calloc(labels, sizeof *f->labels);
    f->targets = calloc(f->multilabel ? labels : 1, sizeof *f->targets);
    f->counters = calloc(2 * batch, sizeof *f->counters);
    if (f->values && f->pixels && f->labels && f->targets && f->counters) return TRN_OK;
    return trn_fail_memory(err, (values + pixels + labels) * sizeof(float), "batches: make them smaller");
}

static trn_status fail_memory(const fit *f, const char *what, trn_error *err)
{
    return trn_wrap(
        err,
        "the graph that %s does not fit in device memory in batches of %d: make the batch smaller "
        "and accumulate more of them%s",
        what, f->options->batch, f->options->recompute ? "" : ", or compute blocks again (recompute)");
}

static trn_status compile(fit *f, trn_graph *graph, const char *what, bool plan_only, uint64_t limit,
                          int seats, trn_exec **out, trn_error *err)
{
    trn_compile_options options = {
        .plan_only = plan_only, .memory_limit = limit, .seats = seats, .shared = f->engine.shared};
    trn_status status = trn_compile(graph, f->gpu, &options, out, err);
    return status == TRN_ERR_MEMORY ? fail_memory(f, what, err) : status;
}

static uint64_t bytes_of(const trn_exec *exec)
{
    trn_exec_summary summary = trn_exec_summarize(exec);
    return summary.weight_bytes - summary.shared_bytes + summary.arena_bytes + summary.seat_bytes;
}

uint64_t fit_engine_bytes(const fit_engine *engine)
{
    return bytes_of(engine->train) + bytes_of(engine->eval);
}

trn_status fit_engine_create(fit *f, bool plan_only, trn_error *err)
{
    fit_engine *e = &f->engine;
    size_t weights = 0;
    trn_tensor *state;
    e->train_graph = trn_graph_create();
    e->eval_graph = trn_graph_create();
    if (!e->train_graph || !e->eval_graph) return trn_fail_memory(err, sizeof *e, "a graph");
    trn_status status = trn_shared_weights_create(f->gpu, &e->shared, err);
    if (status == TRN_OK) status = count_parameters(f, err);
    if (status == TRN_OK) status = build_train(f, e->train_graph, &weights, err);
    if (status == TRN_OK) status = build_eval(f, e->eval_graph, err);
    if (status == TRN_OK) status = keep_tensors(f, weights, err);
    if (status != TRN_OK) return status;
    for (size_t i = 0; (state = trn_graph_learning(e->train_graph, i, NULL)) != NULL; i++)
        e->learning += (uint64_t)trn_shape_count(trn_tensor_shape(state));
    uint64_t limit = f->options->memory_limit;
    status = compile(f, e->train_graph, "trains", plan_only, limit, fit_step_seats(), &e->train, err);
    if (status != TRN_OK) return status;
    if (limit) limit -= TRN_MIN(bytes_of(e->train), limit - 1);
    status = compile(f, e->eval_graph, "evaluates", plan_only, limit, 0, &e->eval, err);
    return status == TRN_OK && !plan_only ? make_room(f, err) : status;
}

void fit_engine_destroy(fit_engine *engine)
{
    trn_exec_destroy(engine->eval);
    trn_exec_destroy(engine->train);
    trn_shared_weights_destroy(engine->shared);
    trn_graph_destroy(engine->eval_graph);
    trn_graph_destroy(engine->train_graph);
    free(engine->tensors);
    *engine = (fit_engine){0};
}

/* ---- running ---- */

trn_status fit_engine_pass(fit *f, trn_error *err)
{
    trn_status status = TRN_OK;
    for (size_t i = 0; status == TRN_OK && i < f->engine.tensor_count; i++) {
        const fit_tensor *t = &f->engine.tensors[i];
        if (!t->in_eval) continue;
        status = trn_exec_get(f->engine.train, t->best, f->values, err);
        if (status == TRN_OK) status = trn_exec_set(f->engine.eval, t->name, f->values, err);
    }
    return status;
}

static trn_status check_labels(const fit *f, const trn_batch *batch, trn_error *err)
{
    int32_t least = f->dense ? TRN_LABEL_IGNORE : 0;
    int32_t most = f->multilabel ? 1 : (int32_t)f->info->class_count - 1;
    for (size_t i = 0; i < batch->count * batch->label_count; i++) {
        if (batch->labels[i] >= least && batch->labels[i] <= most) continue;
        return trn_fail(err, TRN_ERR_FORMAT, "sample %zu of '%s' has the label %d; %d to %d are possible",
                        batch->samples[i / batch->label_count], f->info->name, (int)batch->labels[i],
                        (int)least, (int)most);
    }
    return TRN_OK;
}

static trn_status set_input(const fit_inputs *inputs, const char *name, const void *data, trn_error *err)
{
    if (inputs->seat < 0) return trn_exec_set(inputs->exec, name, data, err);
    return trn_exec_seat_set(inputs->exec, inputs->seat, name, data, err);
}

static trn_status feed_labels(fit *f, const fit_inputs *inputs, const trn_batch *batch, bool training,
                              trn_error *err)
{
    size_t there = batch->count * batch->label_count;
    size_t whole = (size_t)f->options->batch * batch->label_count;
    if (f->multilabel && !training) return TRN_OK; /* that graph has no loss */
    for (size_t i = 0; f->multilabel && i < whole; i++)
        f->targets[i] = i < there ? (float)batch->labels[i] : 0;
    if (f->multilabel) return set_input(inputs, "targets", f->targets, err);
    for (size_t i = 0; i < whole; i++)
        f->labels[i] = i < there ? batch->labels[i] : TRN_LABEL_IGNORE;
    return set_input(inputs, "labels", f->labels, err);
}

static trn_status feed_pixels(fit *f, const fit_inputs *inputs, const trn_batch *batch, trn_error *err)
{
    size_t sample = batch->bands * batch->height * batch->width, room = (size_t)f->options->batch;
    if (batch->count == room) return set_input(inputs, "image", batch->pixels, err);
    memcpy(f->pixels, batch->pixels, batch->count * sample * sizeof *f->pixels);
    memset(f->pixels + batch->count * sample, 0, (room - batch->count) * sample * sizeof *f->pixels);
    return set_input(inputs, "image", f->pixels, err);
}

trn_status fit_engine_feed(fit *f, const fit_inputs *inputs, const trn_batch *batch, bool training,
                           trn_error *err)
{
    trn_status status = check_labels(f, batch, err);
    if (status == TRN_OK) status = feed_pixels(f, inputs, batch, err);
    if (status == TRN_OK) status = feed_labels(f, inputs, batch, training, err);
    for (size_t i = 0; training && i < batch->count; i++)
        f->counters[2 * i] = (int32_t)batch->samples[i];
    return status;
}

trn_status fit_engine_begin(fit *f, const fit_inputs *inputs, const float *now, trn_error *err)
{
    float scale = (float)f->state.loss_scale;
    trn_status status = set_input(inputs, TRN_OPTIMIZER_INPUT, now, err);
    if (status == TRN_OK && f->options->mixed) status = set_input(inputs, FIT_LOSS_SCALE, &scale, err);
    for (int i = 0; i < f->options->batch; i++)
        f->counters[2 * i + 1] = (int32_t)f->state.step;
    return status == TRN_OK ? set_input(inputs, "counters", f->counters, err) : status;
}
