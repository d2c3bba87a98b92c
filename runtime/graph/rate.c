/* Estimates of time: work at nominal rates, times how much slower the device was in earlier runs, or in a
 * product of its own. */
#include "exec.h"

#include <math.h>
#include <stdlib.h>

enum { ROWS = 256, WIDTH = 1024, RUNS = 4 };
static const double SMALLEST_FLOPS = 1e8; /* less says nothing about a device */

double trn_rate_nominal(const trn_gpu *gpu, const trn_step *step)
{
    const double dispatch = 1e-5;
    double flops = 2e12, bytes = 1e11; /* per second; only what they are to each other matters */
    trn_device_type type = trn_gpu_info(gpu)->type;
    if (type == TRN_DEVICE_INTEGRATED) flops = 3e11, bytes = 2e10;
    if (type == TRN_DEVICE_CPU) flops = 4e10, bytes = 4e9;
    return dispatch + TRN_MAX(step->flops / flops, step->bytes / bytes);
}

static const char *slowness_key(const trn_gpu *gpu)
{
    return trn_gpu_access(gpu) == TRN_ACCESS_STORAGE ? "graph.slowness.storage" : "graph.slowness";
}

double trn_rate_slowness(trn_gpu *gpu)
{
    double slowness;
    bool known = trn_gpu_tuning_get(gpu, slowness_key(gpu), &slowness);
    return known && slowness > 0 && isfinite(slowness) ? slowness : 0;
}

void trn_rate_learn(trn_exec *exec, double seconds)
{
    if (exec->summary.flops < SMALLEST_FLOPS || seconds <= 0 || exec->options.kernel) return;
    double old = trn_rate_slowness(exec->gpu), slowness = seconds / exec->nominal;
    if (slowness < 1.3 * old && slowness > old / 1.3) return; /* no news */
    trn_gpu_tuning_set(exec->gpu, slowness_key(exec->gpu), slowness);
}

/* The first run compiles in the driver, the second still records commands. */
void trn_rate_count_run(trn_exec *exec, double seconds)
{
    exec->runs++;
    if (exec->runs == 2 || exec->runs == 4) trn_rate_learn(exec, seconds);
}

static trn_status fill_weights(void *user, const char *name, const trn_shape *shape, void *out,
                               trn_error *err)
{
    (void)user, (void)name, (void)err;
    for (int64_t i = 0; i < trn_shape_count(shape); i++)
        ((float *)out)[i] = (float)(i % 17 - 8) / WIDTH;
    return TRN_OK;
}

static trn_status run_product(trn_gpu *gpu, trn_graph *graph, const float *x, trn_error *err)
{
    trn_tensor *input = trn_input(graph, "x", TRN_F32, TRN_SHAPE(ROWS, WIDTH));
    trn_tensor *weights = trn_param(graph, "w", TRN_SHAPE(WIDTH, WIDTH), fill_weights, NULL);
    trn_output_add(graph, "y", trn_unary(graph, "gelu", trn_linear(graph, input, weights, NULL)));
    trn_exec *exec;
    trn_status status = trn_compile(graph, gpu, NULL, &exec, err);
    if (status == TRN_OK) status = trn_exec_set(exec, "x", x, err);
    for (int i = 0; status == TRN_OK && i < RUNS; i++)
        status = trn_exec_run(exec, NULL, err);
    trn_exec_destroy(exec);
    return status;
}

trn_status trn_rate_measure(trn_gpu *gpu, trn_error *err)
{
    if (trn_rate_slowness(gpu) > 0) return TRN_OK;
    trn_graph *graph = trn_graph_create();
    float *x = calloc((size_t)ROWS * WIDTH, sizeof *x);
    trn_status status =
        graph && x ? TRN_OK : trn_fail_memory(err, sizeof *x * ROWS * WIDTH, "measuring a device");
    for (int i = 0; status == TRN_OK && i < ROWS * WIDTH; i++)
        x[i] = (float)(i % 13 - 6);
    if (status == TRN_OK) status = run_product(gpu, graph, x, err);
    free(x);
    trn_graph_destroy(graph);
    return status;
}
