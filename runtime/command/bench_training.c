/* bench, part training: a whole step of training, beside the forward pass. */
#include "bench.h"
#include "nn.h"

#include <stdlib.h>

enum { CLASSES = 10 };
static const trn_optimizer_desc optimizer = {
    .kind = TRN_ADAMW, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.05};

static bool all_learn(void *user, const char *name)
{
    (void)user, (void)name;
    return true;
}

static trn_status fill_head(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    (void)user, (void)name, (void)err;
    for (int64_t i = 0; i < trn_shape_count(shape); i++)
        ((float *)out)[i] = 0.02F * (float)trn_hash_uniform(2, (uint64_t)i);
    return TRN_OK;
}

trn_status bench_training_build(trn_encoder *encoder, trn_graph *graph, int batch, trn_error *err)
{
    static const trn_parameters parameters = {.fill = fill_head};
    const trn_encode_options pooled = {.pool = TRN_FEATURES_MEAN};
    const trn_class_loss_desc loss_desc = {.ignored = -1};
    trn_features features = {0};
    trn_graph_train(graph, all_learn, NULL);
    trn_tensor *image = trn_encoder_natural_input(encoder, graph, batch);
    trn_status status = trn_encoder_build(encoder, graph, image, &pooled, &features, err);
    if (status != TRN_OK) return status;
    trn_scope scope = trn_scope_root(graph, &parameters);
    trn_tensor *logits = trn_nn_linear(&scope, "bench.head", features.pooled, CLASSES, true);
    trn_tensor *labels = trn_input(graph, "labels", TRN_I32, TRN_SHAPE(batch));
    trn_tensor *loss = trn_loss_cross_entropy(graph, logits, labels, &loss_desc);
    trn_output_add(graph, "loss", loss);
    return trn_optimizer_minimize(graph, loss, &optimizer, err);
}

static trn_status set_inputs(trn_exec *exec, int batch, trn_error *err)
{
    float now[TRN_STEP_NOW];
    int32_t *labels = malloc((size_t)batch * sizeof *labels);
    if (!labels) return trn_fail_memory(err, (size_t)batch * sizeof *labels, "labels");
    for (int i = 0; i < batch; i++)
        labels[i] = i % CLASSES;
    trn_status status = trn_exec_set(exec, "labels", labels, err);
    free(labels);
    trn_optimizer_now(&optimizer, 0, 0, 1e-6, now);
    return status == TRN_OK ? trn_exec_set(exec, TRN_OPTIMIZER_INPUT, now, err) : status;
}

typedef struct step {
    trn_graph *graph;
    trn_exec *exec;
} step;

/* The encoder with a linear head over its mean, cross entropy, its gradients and a step of AdamW, on made-up
 * labels; ready to run. image: that of the forward pass. */
static trn_status step_open(const bench *b, const bench_model *model, trn_gpu *gpu, const bench_pass *pass,
                            step *out, trn_error *err)
{
    *out = (step){.graph = trn_graph_create()};
    if (!out->graph) return trn_fail_memory(err, 0, "a graph");
    trn_graph_recompute(out->graph, b->values->recompute);
    trn_status status = bench_training_build(model->encoder, out->graph, pass->batch, err);
    if (status == TRN_OK) status = trn_compile(out->graph, gpu, NULL, &out->exec, err);
    if (status == TRN_OK) status = set_inputs(out->exec, pass->batch, err);
    return status == TRN_OK ? trn_exec_set(out->exec, "image", pass->image, err) : status;
}

static void step_close(step *s)
{
    trn_exec_destroy(s->exec);
    trn_graph_destroy(s->graph);
}

/* ---- measuring ---- */

typedef struct timing {
    size_t runs;
    double *forward, *step, *cpu; /* [runs] seconds, sorted; cpu: of steps */
    double forward_median, step_median, cpu_median;
    double gflop, step_gflop;
    uint64_t device_bytes, forward_device_bytes, process_peak;
} timing;

/* Forward passes and steps take turns, so that both have the same share of what else the machine does. The
 * first of each is not counted. */
static trn_status take_turns(const bench *b, const bench_pass *pass, const step *s, timing *t, trn_error *err)
{
    trn_status status = bench_run(pass->exec, NULL, err);
    if (status == TRN_OK) status = bench_run(s->exec, NULL, err);
    size_t wanted = (size_t)b->values->runs;
    while (status == TRN_OK && t->runs < wanted &&
           (!t->runs || bench_seconds_left(b) > t->step[t->runs - 1])) {
        status = bench_run(pass->exec, &t->forward[t->runs], err);
        double before = bench_cpu_seconds();
        if (status == TRN_OK) status = bench_run(s->exec, &t->step[t->runs], err);
        t->cpu[t->runs++] = bench_cpu_seconds() - before;
    }
    if (status != TRN_OK) return status;
    t->forward_median = bench_median(t->forward, t->runs);
    t->step_median = bench_median(t->step, t->runs);
    t->cpu_median = bench_median(t->cpu, t->runs);
    return TRN_OK;
}

/* Device memory of an executable: weights, states, values. */
static uint64_t device_bytes(const trn_exec *exec)
{
    trn_exec_summary sum = trn_exec_summarize(exec);
    return sum.loading_bytes + sum.arena_bytes;
}

static trn_status measure(const bench *b, bench_model *model, trn_gpu *gpu, int batch, timing *t,
                          trn_error *err)
{
    bench_pass pass;
    step s = {0};
    bench_process_peak_restart();
    trn_status status = bench_pass_open(model, gpu, TRN_PRECISION_FLOAT32, batch, false, &pass, err);
    if (status == TRN_OK) status = step_open(b, model, gpu, &pass, &s, err);
    if (status == TRN_OK) status = take_turns(b, &pass, &s, t, err);
    if (status == TRN_OK) {
        t->gflop = trn_exec_summarize(pass.exec).flops * 1e-9;
        t->step_gflop = trn_exec_summarize(s.exec).flops * 1e-9;
        t->device_bytes = device_bytes(s.exec);
        t->forward_device_bytes = device_bytes(pass.exec);
        t->process_peak = bench_process_peak();
        status = bench_say_profile(b, pass.exec, err);
        if (status == TRN_OK) status = bench_say_profile(b, s.exec, err);
    }
    step_close(&s);
    bench_pass_close(&pass);
    return status;
}

/* ---- reporting ---- */

static void write_members(const bench *b, const bench_model *model, int batch, const timing *t, trn_text *out)
{
    trn_text_add(out, "\"model\": ");
    trn_text_json(out, model->name);
    trn_text_printf(out,
                    ", \"batch\": %d, \"dates\": %zu, \"precision\": \"float32\", \"recompute\": %s, "
                    "\"runs\": %zu, \"step_seconds_median\": %.6g, \"step_seconds_min\": %.6g, "
                    "\"step_cpu_seconds_median\": %.6g, \"forward_seconds_median\": %.6g, \"ratio\": %.4g",
                    batch, model->dates, b->values->recompute ? "true" : "false", t->runs, t->step_median,
                    t->step[0], t->cpu_median, t->forward_median, t->step_median / t->forward_median);
    trn_text_printf(out,
                    ", \"images_per_second\": %.6g, \"gflop\": %.6g, \"step_gflop\": %.6g, "
                    "\"fraction\": %.4g, \"device_bytes\": %llu, \"forward_device_bytes\": %llu, "
                    "\"process_peak_bytes\": %llu",
                    batch / t->step_median, t->gflop, t->step_gflop,
                    t->step_gflop * 1e9 / t->step_median / b->ceilings.flops,
                    (unsigned long long)t->device_bytes, (unsigned long long)t->forward_device_bytes,
                    (unsigned long long)t->process_peak);
}

static trn_status report(bench *b, const bench_model *model, int batch, const timing *t, trn_error *err)
{
    char key[160], bytes[3][32];
    const char *how = b->values->recompute ? ", blocks recomputed" : "";
    trn_text members = {0};
    write_members(b, model, batch, t, &members);
    snprintf(key, sizeof key, "training %s, batch %d%s", model->name, batch, how);
    trn_status status = bench_add(b, "training", key, t->step_median, "s", trn_text_get(&members), err);
    trn_text_free(&members);
    if (status != TRN_OK) return status;
    return bench_say(
        b, err,
        "  %-20s %5d%s  step: median %.4g s, fastest %.4g s of %zu, %.3g times the forward pass, %.4g "
        "GFLOP/s (%.0f %%)  device %s (forward %s), process %s",
        model->name, batch, how, t->step_median, t->step[0], t->runs, t->step_median / t->forward_median,
        t->step_gflop / t->step_median, 100e9 * t->step_gflop / t->step_median / b->ceilings.flops,
        trn_format_bytes(t->device_bytes, bytes[0]), trn_format_bytes(t->forward_device_bytes, bytes[1]),
        trn_format_bytes(t->process_peak, bytes[2]));
}

static trn_status bench_step(bench *b, bench_model *model, int batch, trn_error *err)
{
    size_t runs = (size_t)b->values->runs;
    double *seconds = calloc(runs, 3 * sizeof *seconds);
    if (!seconds) return trn_fail_memory(err, runs * 3 * sizeof *seconds, "the times");
    timing t = {.forward = seconds, .step = seconds + runs, .cpu = seconds + 2 * runs};
    trn_gpu *gpu = NULL;
    trn_status status = bench_gpu_open(b, &gpu, err);
    if (status == TRN_OK) status = measure(b, model, gpu, batch, &t, err);
    if (status == TRN_OK) status = report(b, model, batch, &t, err);
    trn_gpu_close(gpu);
    free(seconds);
    return status;
}

/* ---- the part ---- */

static trn_status bench_batches(bench *b, bench_model *model, trn_error *err)
{
    static const int usual = 8;
    bool asked = b->values->batches.count > 0;
    const int *batches = asked ? b->batches : &usual;
    size_t count = asked ? b->batch_count : 1;
    for (size_t i = 0; i < count; i++) {
        if (!batches[i]) continue; /* the best one is for encoders */
        trn_status status =
            bench_seconds_left(b) > 0
                ? bench_step(b, model, batches[i], err)
                : bench_leave_out(b, err, "training of %s, batch %d: no time left (--seconds)", model->name,
                                  batches[i]);
        if (b->model_count > 1 && bench_may_go_on(status))
            status = bench_leave_out(b, err, "%s", err->message);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}

trn_status bench_trainings(bench *b, trn_error *err)
{
    trn_status status = bench_ceilings_need(b, err);
    if (status == TRN_OK)
        status = bench_say(b, err, "training: fractions are of %.4g GFLOP/s", b->ceilings.flops * 1e-9);
    for (size_t i = 0; status == TRN_OK && i < b->model_count; i++) {
        bench_model model;
        status = bench_model_open(b, b->models[i], &model, err);
        if (status == TRN_OK) status = bench_batches(b, &model, err);
        bench_model_close(&model);
    }
    return status;
}
