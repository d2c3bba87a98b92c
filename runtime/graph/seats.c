/* Runs in flight: seats of an executable, each with inputs and outputs of its own. */
#include "exec.h"

#include <stdlib.h>
#include <string.h>

/* The first run measures the program's submissions, the second corrects them: both are waited for. */
enum { RUNS_ALONE = 2 };

static trn_feed_port port_of(const trn_exec *exec, trn_tensor *tensor)
{
    const trn_tensor *base = trn_tensor_base(tensor);
    uint64_t bytes = trn_tensor_bytes(base);
    if (base->constant) return (trn_feed_port){exec->constants[base->id], 0, bytes};
    const trn_place *place = &exec->plan.places[base->id];
    return (trn_feed_port){exec->blocks[place->block], place->offset, bytes};
}

static bool is_port(const trn_exec *exec, const trn_tensor *tensor)
{
    return tensor->is_input && !tensor->is_state && exec->plan.places[tensor->id].block >= 0;
}

/* States stay where they are: they may be large, and few runs ask for them. */
static bool is_result(const trn_named_output *output)
{
    return !trn_tensor_base(output->tensor)->is_state;
}

static size_t count_inputs(const trn_exec *exec)
{
    size_t count = 0;
    for (size_t i = 0; i < exec->graph->tensor_count; i++)
        count += is_port(exec, exec->graph->tensors[i]);
    return count;
}

uint64_t trn_seats_bytes(const trn_exec *exec)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < exec->graph->tensor_count; i++)
        if (is_port(exec, exec->graph->tensors[i])) bytes += trn_tensor_bytes(exec->graph->tensors[i]);
    for (size_t i = 0; i < exec->graph->output_count; i++)
        if (is_result(&exec->graph->outputs[i]))
            bytes += trn_tensor_bytes(trn_tensor_base(exec->graph->outputs[i].tensor));
    return bytes * (uint64_t)TRN_MAX(exec->options.seats, 0);
}

trn_status trn_seats_open(trn_exec *exec, trn_error *err)
{
    const trn_graph *graph = exec->graph;
    if (exec->options.seats < 1) return TRN_OK;
    exec->port_count = count_inputs(exec);
    exec->ports = calloc(exec->port_count + graph->output_count + 1, sizeof *exec->ports);
    exec->port_tensors = calloc(exec->port_count + 1, sizeof *exec->port_tensors);
    exec->port_outputs = calloc(graph->output_count + 1, sizeof *exec->port_outputs);
    exec->seats = calloc((size_t)exec->options.seats, sizeof *exec->seats);
    if (!exec->ports || !exec->port_tensors || !exec->port_outputs || !exec->seats)
        return trn_fail_memory(err, exec->port_count * sizeof *exec->ports, "the inputs of a graph");
    size_t at = 0;
    for (size_t i = 0; i < graph->tensor_count; i++) {
        if (!is_port(exec, graph->tensors[i])) continue;
        exec->ports[at] = port_of(exec, graph->tensors[i]);
        exec->port_tensors[at++] = graph->tensors[i];
    }
    for (size_t i = 0; i < graph->output_count; i++) {
        if (!is_result(&graph->outputs[i])) continue;
        exec->ports[at + exec->port_output_count] = port_of(exec, graph->outputs[i].tensor);
        exec->port_outputs[exec->port_output_count++] = graph->outputs[i];
    }
    return trn_feed_create(exec->gpu, exec->program, exec->updates, exec->ports, at, exec->ports + at,
                           exec->port_output_count, exec->options.seats, &exec->feed, err);
}

void trn_seats_close(trn_exec *exec)
{
    trn_feed_destroy(exec->feed);
    free(exec->ports);
    free(exec->port_tensors);
    free(exec->port_outputs);
    free(exec->seats);
}

/* ---- running ---- */

static trn_status check_seat(const trn_exec *exec, int at, bool free_one, trn_error *err)
{
    if (!exec->feed || at < 0 || at >= exec->options.seats)
        return trn_fail(err, TRN_ERR_ARGUMENT, "the graph was compiled with %d seats; there is no seat %d",
                        exec->feed ? exec->options.seats : 0, at);
    if (free_one && exec->seats[at].busy)
        return trn_fail(err, TRN_ERR_ARGUMENT, "seat %d is taken by a run in flight", at);
    return TRN_OK;
}

trn_status trn_exec_seat_set(trn_exec *exec, int at, const char *name, const void *data, trn_error *err)
{
    trn_status status = check_seat(exec, at, true, err);
    if (status != TRN_OK) return status;
    for (size_t i = 0; i < exec->port_count; i++) {
        if (strcmp(exec->port_tensors[i]->name, name) != 0) continue;
        memcpy(trn_feed_input(exec->feed, at, i), data, exec->ports[i].size);
        return TRN_OK;
    }
    for (size_t i = 0; i < exec->graph->tensor_count; i++) {
        const trn_tensor *tensor = exec->graph->tensors[i];
        if (tensor->is_input && !strcmp(tensor->name, name)) return TRN_OK; /* nothing depends on it */
    }
    return trn_fail(err, TRN_ERR_ARGUMENT, "the graph has no input '%s'", name);
}

/* What a feed would do, step by step. */
static trn_status run_alone(trn_exec *exec, int at, const trn_progress *progress, trn_error *err)
{
    trn_status status = TRN_OK;
    const trn_feed_port *port = exec->ports;
    for (size_t i = 0; status == TRN_OK && i < exec->port_count; i++, port++)
        status = trn_gpu_write(exec->gpu, port->buffer, port->offset, trn_feed_input(exec->feed, at, i),
                               port->size, err);
    if (status == TRN_OK) status = trn_exec_run(exec, progress, err);
    for (size_t i = 0; status == TRN_OK && i < exec->port_output_count; i++, port++)
        status = trn_gpu_read(exec->gpu, port->buffer, port->offset, trn_feed_output(exec->feed, at, i),
                              port->size, err);
    return status;
}

static bool runs_alone(const trn_exec *exec)
{
    return exec->options.poison || exec->options.check || exec->runs < RUNS_ALONE ||
           !trn_program_measured(exec->program) || (exec->updates && !trn_program_measured(exec->updates));
}

static int runs_in_flight(const trn_exec *exec)
{
    int count = 0;
    for (int i = 0; i < exec->options.seats; i++)
        count += exec->seats[i].in_feed;
    return count;
}

trn_status trn_exec_start(trn_exec *exec, int at, const trn_progress *progress, trn_error *err)
{
    trn_status status = check_seat(exec, at, true, err);
    if (status != TRN_OK) return status;
    bool alone = runs_alone(exec);
    if (alone && runs_in_flight(exec))
        return trn_fail(err, TRN_ERR_INTERNAL, "a run that is measured meets one in flight");
    exec->seats[at] = (trn_seat){.busy = true, .in_feed = !alone, .started = trn_now_ns()};
    if (alone) return run_alone(exec, at, progress, err);
    if (trn_progress_cancelled(progress)) return trn_fail_cancelled(err, "a run");
    return trn_feed_start(exec->feed, at, err);
}

trn_status trn_exec_advance(trn_exec *exec, trn_error *err)
{
    return exec->feed && runs_in_flight(exec) ? trn_feed_advance(exec->feed, err) : TRN_OK;
}

trn_status trn_exec_seat_done(trn_exec *exec, int at, bool *done, trn_error *err)
{
    *done = true;
    trn_status status = check_seat(exec, at, false, err);
    if (status == TRN_OK && !exec->seats[at].busy)
        status = trn_fail(err, TRN_ERR_ARGUMENT, "seat %d has no run in flight", at);
    return status == TRN_OK && exec->seats[at].in_feed ? trn_feed_done(exec->feed, at, done, err) : status;
}

trn_status trn_exec_finish(trn_exec *exec, int at, const trn_progress *progress, trn_error *err)
{
    trn_status status = check_seat(exec, at, false, err);
    if (status == TRN_OK && !exec->seats[at].busy)
        status = trn_fail(err, TRN_ERR_ARGUMENT, "seat %d has no run in flight", at);
    if (status != TRN_OK) return status;
    bool fed = exec->seats[at].in_feed;
    if (fed) status = trn_feed_wait(exec->feed, at, progress, err);
    if (status != TRN_OK) return status;
    uint64_t begin = TRN_MAX(exec->seats[at].started, exec->finished), now = trn_now_ns();
    exec->seats[at] = (trn_seat){0};
    exec->finished = now;
    if (fed) trn_rate_count_run(exec, (double)(now - begin) * 1e-9);
    return TRN_OK;
}

const float *trn_exec_seat_get(trn_exec *exec, int at, const char *name, trn_error *err)
{
    if (check_seat(exec, at, true, err) != TRN_OK) return NULL;
    for (size_t i = 0; i < exec->port_output_count; i++)
        if (!strcmp(exec->port_outputs[i].name, name)) return trn_feed_output(exec->feed, at, i);
    trn_fail(err, TRN_ERR_ARGUMENT, "the graph has no output '%s' in its seats", name);
    return NULL;
}
