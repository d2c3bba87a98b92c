/* The model that is trained: encoders or a network of one's own, and a head, as one graph; and its identity.
 */
#include "learn_private.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_MEMBERS = 32 };

/* ---- fresh weights ---- */

static trn_status fill_fresh(const char *part, void *user, const char *name, const trn_shape *shape,
                             void *out, trn_error *err)
{
    const trn_learn_model *model = user;
    char full[320];
    int n = snprintf(full, sizeof full, "%s%s", part, name);
    if (n < 0 || (size_t)n >= sizeof full)
        return trn_fail(err, TRN_ERR_ARGUMENT, "the name of parameter '%s' is too long", name);
    trn_weights_fresh_values(model->seed, full, shape->ndim, shape->dim, out);
    return TRN_OK;
}

static trn_status fill_trunk(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    return fill_fresh(LEARN_TRUNK, user, name, shape, out, err);
}

static trn_status fill_head(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    return fill_fresh(LEARN_HEAD, user, name, shape, out, err);
}

void learn_member_prefix(size_t member, char prefix[32])
{
    if (member)
        snprintf(prefix, 32, "encoder%zu.", member + 1);
    else
        snprintf(prefix, 32, "encoder.");
}

/* ---- features ---- */

static trn_status check_model(const trn_graph *graph, const trn_learn_model *model, const trn_tensor *image,
                              trn_error *err)
{
    char text[128];
    if (trn_graph_status(graph, err) != TRN_OK) return trn_graph_status(graph, err);
    if (!!model->member_count == !!model->trunk)
        return trn_fail(err, TRN_ERR_ARGUMENT, "a model wants encoders or a network of its own, %s",
                        model->trunk ? "not both" : "and has neither");
    if (model->member_count > MAX_MEMBERS)
        return trn_fail(err, TRN_ERR_ARGUMENT, "%zu encoders; 1 to %d are possible", model->member_count,
                        MAX_MEMBERS);
    bool fits = trn_tensor_dim(image, -3) == model->bands && trn_tensor_dim(image, -2) == model->height &&
                trn_tensor_dim(image, -1) == model->width;
    if (fits) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "the model takes images of %d bands and %d x %d pixels, and these are %s", model->bands,
                    model->width, model->height, trn_shape_text(trn_tensor_shape(image), text));
}

/* Several members by their fusion; of one dense member all grids. */
static trn_status build_members(trn_graph *graph, const trn_learn_model *model, trn_tensor *image,
                                const trn_training *training, trn_head_input *out, trn_error *err)
{
    trn_member members[MAX_MEMBERS] = {{0}};
    char prefixes[MAX_MEMBERS][32];
    size_t count = model->member_count;
    for (size_t i = 0; i < count; i++) {
        members[i] = model->members[i];
        members[i].options.training = training;
        learn_member_prefix(i, prefixes[i]);
        members[i].prefix = prefixes[i];
    }
    bool dense = members[0].options.pool == TRN_FEATURES_DENSE;
    if (count == 1 && dense && model->head) {
        trn_features features = {0};
        trn_status status = trn_compose_member(graph, image, members, &features, err);
        out->grid_count = features.grid_count;
        for (int i = 0; i < features.grid_count; i++)
            out->grids[i] = features.grids[i];
        return status;
    }
    trn_tensor *fused = NULL;
    trn_status status = trn_compose(graph, image, members, count, &model->compose, &fused, err);
    out->grid_count = dense ? 1 : 0;
    if (dense)
        out->grids[0] = fused;
    else
        out->pooled = fused;
    return status;
}

static trn_tensor *normalised(trn_graph *graph, const trn_learn_model *model, trn_tensor *image)
{
    enum { MAX_BANDS = 4096 };
    if (!model->trunk_mean || !model->trunk_std) return image;
    trn_shape shape = TRN_SHAPE(model->bands, 1, 1);
    float *scale = calloc((size_t)TRN_MAX(model->bands, 1), sizeof *scale);
    if (!scale || model->bands > MAX_BANDS) {
        free(scale);
        return trn_graph_fail(graph, "no memory for the statistics of %d bands", model->bands);
    }
    for (int b = 0; b < model->bands; b++) /* a band that never changes is only centred */
        scale[b] = model->trunk_std[b] > 0 ? 1 / model->trunk_std[b] : 1;
    trn_tensor *x = trn_sub(graph, image, trn_constant(graph, "trunk mean", shape, model->trunk_mean));
    x = trn_mul(graph, x, trn_constant(graph, "trunk scale", shape, scale));
    free(scale);
    return x;
}

static trn_scope fresh_scope(trn_graph *graph, const trn_parameters *parameters, const trn_training *training)
{
    trn_scope scope = trn_scope_root(graph, parameters);
    scope.training = training;
    return scope;
}

static trn_status build_trunk(trn_graph *graph, const trn_learn_model *model, trn_tensor *image,
                              const trn_training *training, trn_head_input *out, trn_error *err)
{
    trn_parameters parameters = {.fill = fill_trunk, .user = (void *)(uintptr_t)model};
    trn_scope scope = fresh_scope(graph, &parameters, training);
    trn_tensor *x = normalised(graph, model, image);
    trn_graph_prefix(graph, LEARN_TRUNK);
    x = trn_nn_program(&scope, model->trunk, &x, 1);
    trn_graph_prefix(graph, NULL);
    if (!x) return trn_graph_status(graph, err);
    int ndim = trn_tensor_shape(x)->ndim;
    char text[128];
    if (ndim == 2) {
        out->pooled = x;
    } else if (ndim == 4) {
        out->grids[out->grid_count++] = trn_permute(graph, x, (int[]){0, 2, 3, 1});
    } else {
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "the network gives %s; a map [B,C,h,w] or a vector [B,C] is wanted",
                        trn_shape_text(trn_tensor_shape(x), text));
    }
    return trn_graph_status(graph, err);
}

/* Mean over the cells of the last grid. */
static trn_tensor *mean_of_cells(trn_graph *graph, trn_tensor *grid)
{
    const trn_shape *s = trn_tensor_shape(grid);
    if (!s) return NULL;
    trn_tensor *cells = trn_reshape(graph, grid, TRN_SHAPE(s->dim[0], s->dim[1] * s->dim[2], s->dim[3]));
    return trn_reduce(graph, cells, 1, TRN_REDUCE_MEAN, false);
}

static trn_tensor *build_head(trn_graph *graph, const trn_learn_model *model, const trn_head_input *input,
                              const trn_training *training)
{
    trn_parameters parameters = {.fill = fill_head, .user = (void *)(uintptr_t)model};
    trn_scope scope = fresh_scope(graph, &parameters, training);
    trn_graph_prefix(graph, LEARN_HEAD);
    trn_tensor *logits = trn_nn_head(&scope, model->head, input);
    trn_graph_prefix(graph, NULL);
    return logits;
}

trn_status trn_learn_build(trn_graph *graph, const trn_learn_model *model, trn_tensor *image, bool dense,
                           const trn_training *training, trn_tensor **out, trn_error *err)
{
    trn_head_input input = {0};
    *out = NULL;
    trn_status status = check_model(graph, model, image, err);
    if (status == TRN_OK)
        status = model->trunk ? build_trunk(graph, model, image, training, &input, err)
                              : build_members(graph, model, image, training, &input, err);
    if (status != TRN_OK) return status;
    if (dense && !input.grid_count)
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "each pixel is to get a class, and the model gives one vector of an image: take dense "
            "features");
    input.height = dense ? model->height : 0;
    input.width = dense ? model->width : 0;
    bool takes_cells =
        model->head && (model->head->kind == TRN_HEAD_ATTENTION || model->head->kind == TRN_HEAD_PROGRAM);
    if (!dense && !input.pooled && !takes_cells)
        input.pooled = mean_of_cells(graph, input.grids[input.grid_count - 1]);
    if (model->head)
        *out = build_head(graph, model, &input, training);
    else
        *out = dense ? input.grids[input.grid_count - 1] : input.pooled;
    return trn_graph_status(graph, err);
}

/* ---- identity ---- */

static void add_floats(trn_text *text, const char *what, const float *values, size_t count)
{
    if (!values) return;
    trn_text_printf(text, "%s", what);
    for (size_t i = 0; i < count; i++)
        trn_text_printf(text, " %a", (double)values[i]);
    trn_text_add(text, "\n");
}

static void describe_member(const trn_member *member, trn_text *text)
{
    size_t count = member->channel_count;
    trn_text_printf(text, "member date %d weight %a normalize %d pool %d channels", member->date,
                    member->weight, (int)member->options.normalize, (int)member->options.pool);
    for (size_t i = 0; i < count; i++)
        trn_text_printf(text, " %d", member->channels[i]);
    trn_text_add(text, "\n");
    add_floats(text, "scale", member->options.value_scale, count);
    add_floats(text, "offset", member->options.value_offset, count);
    add_floats(text, "mean", member->options.mean, count);
    add_floats(text, "std", member->options.std, count);
    add_floats(text, "blank", member->blank, count);
    add_floats(text, "low", member->low, count);
    add_floats(text, "high", member->high, count);
}

void learn_describe_program(const trn_program *program, trn_text *text)
{
    trn_text_printf(text, "program of %d, output %d\n", program->input_count, program->output);
    for (int i = 0; i < program->node_count; i++) {
        const trn_program_node *node = &program->nodes[i];
        trn_text_printf(text, "%s %s", node->op, node->name ? node->name : "");
        for (int k = 0; k < node->input_count; k++)
            trn_text_printf(text, " %d", node->inputs[k]);
        for (int k = 0; k < node->arg_count; k++)
            trn_text_printf(text, " %s=%a%s", node->args[k].key, node->args[k].number,
                            node->args[k].text ? node->args[k].text : "");
        trn_text_add(text, "\n");
    }
}

static void describe_model(const trn_learn_model *model, trn_text *text)
{
    trn_text_printf(text, "terrane model 1\n%d bands, %d x %d\n", model->bands, model->height, model->width);
    for (size_t i = 0; i < model->member_count; i++)
        describe_member(&model->members[i], text);
    trn_text_printf(text, "fusion %d normalize %d cell %d\n", (int)model->compose.fusion,
                    model->compose.l2_normalize, model->compose.cell);
    if (!model->trunk) return;
    trn_text_printf(text, "seed %llu\n", (unsigned long long)model->seed);
    learn_describe_program(model->trunk, text);
    add_floats(text, "mean", model->trunk_mean, (size_t)model->bands);
    add_floats(text, "std", model->trunk_std, (size_t)model->bands);
}

trn_status trn_learn_model_key(const trn_learn_model *model, char key[65], trn_error *err)
{
    trn_text text = {0};
    trn_sha256_state hash;
    uint8_t digest[32];
    trn_status status = TRN_OK;
    describe_model(model, &text);
    if (text.failed) status = trn_fail_memory(err, text.capacity, "the identity of a model");
    trn_sha256_begin(&hash);
    trn_sha256_update(&hash, trn_text_get(&text), text.length);
    for (size_t i = 0; status == TRN_OK && i < model->member_count; i++)
        status = trn_encoder_identify(model->members[i].encoder, &hash, err);
    trn_sha256_end(&hash, digest);
    trn_sha256_text(digest, key);
    trn_text_free(&text);
    return status;
}
