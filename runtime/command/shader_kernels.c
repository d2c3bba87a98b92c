/* The kernels of encoders and operators, listed; and compiled one after the other, for terrane shaders
 * --statistics. That runs in a process of its own that writes what it finds, as some drivers end the process
 * over a kernel that they do not like. */
#include "nn.h"
#include "shaders.h"

#include <stdlib.h>
#include <string.h>

/* ---- what is written: a line each, fields with tabs between them ---- */

typedef struct maker {
    trn_gpu *gpu;
    kernel_table *table; /* what is known; grows as kernels are met */
    FILE *out;
} maker;

static void put_text(FILE *out, const char *text)
{
    fputc('\t', out);
    for (; text && *text; text++)
        fputc(*text == '\t' || *text == '\n' ? ' ' : *text, out);
}

static void put_kernel(FILE *out, const trn_listed_kernel *listed)
{
    fprintf(out, "%c\t%llx\t%d", SHADERS_LINE_KERNEL, (unsigned long long)listed->hash, listed->is_default);
    put_text(out, listed->op);
    put_text(out, listed->label);
    put_text(out, listed->shader);
    put_text(out, listed->variant);
    fputc('\t', out);
    for (int i = 0; i < listed->macro_count; i++)
        fprintf(out, "%s%s=%s", i ? " " : "", listed->macros[i].name, listed->macros[i].value);
    fputc('\n', out);
    fflush(out); /* the driver may end this process */
}

static trn_status put_statistics(const maker *m, const trn_kernel *kernel, trn_error *err)
{
    trn_kernel_statistic *list;
    size_t count;
    trn_status status = trn_gpu_kernel_statistics(m->gpu, kernel, &list, &count, err);
    if (status != TRN_OK) return status;
    for (size_t i = 0; i < count; i++) {
        fputc(SHADERS_LINE_STATISTIC, m->out);
        put_text(m->out, list[i].program_name);
        put_text(m->out, list[i].name);
        fprintf(m->out, "\t%.17g\n", list[i].value);
    }
    free(list);
    return TRN_OK;
}

static trn_status compile_kernel(const maker *m, const trn_listed_kernel *listed, trn_error *err)
{
    const trn_kernel *kernel;
    trn_error why = {0};
    put_kernel(m->out, listed);
    trn_status status = trn_listed_compile(listed, m->gpu, &kernel, &why);
    if (status == TRN_OK) {
        status = put_statistics(m, kernel, err);
    } else if (status == TRN_ERR_MEMORY || status == TRN_ERR_DEVICE_LOST) {
        *err = why;
    } else {
        fputc(SHADERS_LINE_FAILURE, m->out);
        put_text(m->out, why.message);
        fputc('\n', m->out);
        status = TRN_OK;
    }
    fprintf(m->out, "%c\n", SHADERS_LINE_END);
    return status;
}

static trn_status take_kernel(void *user, const trn_listed_kernel *listed, trn_error *err)
{
    const maker *m = user;
    known_kernel *known = kernel_table_find(m->table, listed->hash);
    if (!known) {
        if (!kernel_table_add(m->table, listed->hash, listed->is_default))
            return trn_fail_memory(err, sizeof *known, "the report");
        return compile_kernel(m, listed, err);
    }
    if (listed->is_default && !known->is_default)
        fprintf(m->out, "%c\t%llx\n", SHADERS_LINE_DEFAULT, (unsigned long long)listed->hash);
    known->is_default |= listed->is_default;
    return TRN_OK;
}

/* ---- the graphs ---- */

enum { CLASSES = 10, BATCH = 2 };

static bool all_learn(void *user, const char *name)
{
    (void)user, (void)name;
    return true;
}

static trn_status fill_zeros(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    (void)user, (void)name, (void)err;
    memset(out, 0, (size_t)trn_shape_count(shape) * sizeof(float));
    return TRN_OK;
}

/* A linear head over the mean of the features, cross entropy, all gradients, AdamW. */
static trn_status add_training(trn_graph *graph, trn_tensor *vectors, trn_error *err)
{
    static const trn_parameters parameters = {.fill = fill_zeros};
    const trn_optimizer_desc optimizer = {.kind = TRN_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    const trn_class_loss_desc loss_desc = {.ignored = -1};
    trn_scope scope = trn_scope_root(graph, &parameters);
    trn_tensor *logits = trn_nn_linear(&scope, "head", vectors, CLASSES, true);
    trn_tensor *labels = trn_input(graph, "labels", TRN_I32, TRN_SHAPE(BATCH));
    trn_tensor *loss = trn_loss_cross_entropy(graph, logits, labels, &loss_desc);
    trn_output_add(graph, "loss", loss);
    return trn_optimizer_minimize(graph, loss, &optimizer, err);
}

static trn_status build(trn_encoder *encoder, trn_graph *graph, bool training, bool mixed, trn_error *err)
{
    const trn_encode_options pooled = {.pool = TRN_FEATURES_MEAN};
    trn_features features = {0};
    if (training) trn_graph_train(graph, all_learn, NULL);
    if (mixed) trn_graph_mixed(graph, true);
    trn_tensor *image = trn_encoder_natural_input(encoder, graph, BATCH);
    trn_status status = trn_encoder_build(encoder, graph, image, &pooled, &features, err);
    if (status != TRN_OK) return status;
    if (training) return add_training(graph, features.pooled, err);
    trn_output_add(graph, "vectors", features.pooled);
    return TRN_OK;
}

/* What is listed, for which device. */
typedef struct listing {
    trn_gpu *gpu;
    bool training, mixed;
    trn_kernel_list_options options;
} listing;

static trn_status list_graph(const listing *l, trn_encoder *encoder, bool training, trn_error *err)
{
    trn_graph *graph = trn_graph_create();
    if (!graph) return trn_fail_memory(err, 0, "a graph");
    trn_status status = build(encoder, graph, training, l->mixed && training, err);
    trn_kernel_list_options how = l->options;
    how.training = training;
    if (status == TRN_OK) status = trn_graph_kernels(graph, l->gpu, &how, err);
    trn_graph_destroy(graph);
    return status;
}

static trn_status open_encoder(const char *name, trn_encoder **encoder, trn_weights **weights, trn_error *err)
{
    size_t channels;
    trn_status status = trn_encoder_create(name, NULL, 0, encoder, err);
    if (status != TRN_OK) return status;
    const trn_encoder_spec *spec = trn_encoder_get_spec(*encoder);
    if (spec->needs_fit) return trn_fail(err, TRN_ERR_UNSUPPORTED, "encoder '%s' learns from a scene", name);
    status = trn_encoder_choose_dates(*encoder, (size_t)spec->min_dates, NULL, err);
    if (status == TRN_OK) status = trn_encoder_choose_all_bands(*encoder, &channels, err);
    if (status == TRN_OK) status = trn_weights_open_synthetic(weights, err);
    return status == TRN_OK ? trn_encoder_load(*encoder, *weights, NULL, err) : status;
}

static trn_status list_encoder(const listing *l, const char *name, trn_error *err)
{
    trn_encoder *encoder = NULL;
    trn_weights *weights = NULL;
    trn_status status = open_encoder(name, &encoder, &weights, err);
    if (status == TRN_OK) status = list_graph(l, encoder, false, err);
    if (status == TRN_OK && l->training) status = list_graph(l, encoder, true, err);
    trn_encoder_destroy(encoder);
    trn_weights_close(weights);
    return status == TRN_OK ? TRN_OK : trn_wrap(err, "encoder '%s'", name);
}

trn_status shaders_list(const shaders_values *values, trn_gpu *gpu, shaders_report *report, void *user,
                        trn_error *err)
{
    const listing l = {
        .gpu = gpu,
        .training = values->training,
        .mixed = values->pack != NULL,
        .options = {
            .candidates = true, .report = report, .user = user, .progress = console_hooks()->progress}};
    const trn_progress *progress = &l.options.progress;
    size_t count = values->models.count;
    trn_status status = TRN_OK;
    for (size_t i = 0; status == TRN_OK && i < count; i++)
        status = list_encoder(&l, values->models.items[i], err);
    if (count || status != TRN_OK) return status;
    for (size_t i = 0; status == TRN_OK && i < trn_model_count(); i++) {
        trn_progress_report(progress, "encoders", i, trn_model_count());
        status = list_encoder(&l, trn_model_at(i)->name, err);
        if (status == TRN_ERR_UNSUPPORTED) status = TRN_OK; /* what learns from scenes has no graph yet */
    }
    return status == TRN_OK ? trn_op_kernels(gpu, &l.options, err) : status;
}

trn_status shaders_make_kernels(const shaders_values *values, kernel_table *table, FILE *out, trn_error *err)
{
    const trn_gpu_options how = {.device = values->device, .statistics = true};
    maker m = {.table = table, .out = out};
    trn_status status = trn_gpu_open(&how, &m.gpu, err);
    if (status == TRN_OK) {
        fputc(SHADERS_LINE_DEVICE, out);
        put_text(out, trn_gpu_info(m.gpu)->name);
        put_text(out, trn_gpu_info(m.gpu)->driver);
        fputc('\n', out);
        status = shaders_list(values, m.gpu, take_kernel, &m, err);
    }
    trn_gpu_close(m.gpu);
    fprintf(out, "%c\t%d", SHADERS_LINE_DONE, (int)status);
    put_text(out, status == TRN_OK ? NULL : err->message);
    fputc('\n', out);
    return fflush(out) ? trn_fail(err, TRN_ERR_IO, "cannot write the statistics") : status;
}
