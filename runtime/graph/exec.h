/* The executable, as exec.c, check.c and explain.c see it. Private to the room. */
#ifndef TRN_GRAPH_EXEC_H
#define TRN_GRAPH_EXEC_H

#include "graph_internal.h"

/* A seat: its run is started and not finished; it is the feed's, since when. */
typedef struct trn_seat {
    bool busy, in_feed;
    uint64_t started;
} trn_seat;

/* A constant in memory that executables share: see shared.c. */
typedef struct trn_shared_entry trn_shared_entry;

struct trn_exec {
    trn_graph *graph;
    trn_gpu *gpu;
    trn_compile_options options;
    trn_lower lower;
    trn_memory_plan plan;
    trn_gpu_buffer **blocks;    /* by block of the plan */
    trn_gpu_buffer **constants; /* by tensor id */
    trn_shared_entry **shares;  /* by tensor id: whose buffer it is, NULL: the executable's; or no array */
    uint8_t *share_keys;
    trn_program *program;
    trn_program *updates; /* NULL when no state has any */
    trn_exec_summary summary;
    double nominal; /* seconds of a run at nominal rates: see rate.c */
    uint64_t runs;
    bool profiled;
    trn_feed *feed;                  /* NULL without seats */
    trn_feed_port *ports;            /* [inputs, then outputs] */
    const trn_tensor **port_tensors; /* [port_count] inputs */
    size_t port_count;
    trn_named_output *port_outputs; /* [port_output_count] those of the graph that are no states */
    size_t port_output_count;
    trn_seat *seats;   /* [options.seats] */
    uint64_t finished; /* when the last run in flight was */
};

/* The pipeline of a step, compiled or found. */
trn_status trn_step_kernel(trn_gpu *gpu, const trn_lowered_step *lowered, const trn_kernel **kernel,
                           trn_error *err);

/* ---- shared.c: with options.shared, else nothing happens ---- */

/* Takes those of the kept constants (by tensor id) that are there, and marks setup steps that are then not
 * run. */
trn_status trn_shared_take(trn_exec *exec, const bool *kept, trn_error *err);
/* Lets others have what this executable has made. */
trn_status trn_shared_give(trn_exec *exec, const bool *kept, trn_error *err);
/* The executable ends: its own constants stay in exec->constants. */
void trn_shared_release(trn_exec *exec);
bool trn_shared_has(const trn_exec *exec, size_t id);

/* ---- seats.c ---- */

/* After everything else is made. */
trn_status trn_seats_open(trn_exec *exec, trn_error *err);
void trn_seats_close(trn_exec *exec);
uint64_t trn_seats_bytes(const trn_exec *exec);

/* ---- rate.c ---- */

/* Seconds of a step on a device of this type if it had nominal rates. */
double trn_rate_nominal(const trn_gpu *gpu, const trn_step *step);
/* By how much runs on this device take longer than nominal, by the way its kernels reach memory; 0: not
 * known. */
double trn_rate_slowness(trn_gpu *gpu);
/* Keeps what a run of this length says about the device; small graphs say nothing. */
void trn_rate_learn(trn_exec *exec, double seconds);
/* Counts a run, and learns from some of them. */
void trn_rate_count_run(trn_exec *exec, double seconds);
/* Runs a matrix product when nothing was measured on this device yet, so that a plan has an estimate. */
trn_status trn_rate_measure(trn_gpu *gpu, trn_error *err);

/* ---- explain.c ---- */

/* "blocks.3.matmul+gelu", or without the scope. */
void trn_group_names(const trn_group *group, bool scoped, trn_text *out);
/* " [197,768] [3072,768] -> [197,3072]", and the operator's parameters */
void trn_group_shapes(const trn_group *group, trn_text *out);

/* Equal for steps that run the same kernel. */
uint64_t trn_kernel_hash(const trn_step *step, const char *generated);

/* Whether the graph has float16 and the device has not: then there is nothing to be tested. */
bool trn_graph_lacks_float16(const trn_graph *graph, const trn_gpu *gpu);

/* Value of a tensor after a run; with keep_all every one is there. */
trn_status trn_exec_read(trn_exec *exec, trn_tensor *tensor, void *data, trn_error *err);
/* Compares every group of the last run with the C references of its operators, fed with what the device
 * computed. */
trn_status trn_exec_check(trn_exec *exec, trn_error *err);

#endif
