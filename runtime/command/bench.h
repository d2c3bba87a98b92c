/* What the files of terrane bench share. Private to the room. */
#ifndef TRN_COMMAND_BENCH_H
#define TRN_COMMAND_BENCH_H

#include "command.h"
#include "graph.h"
#include "models.h"

typedef struct bench_values {
    common_values common;
    const char *device, *compare;
    text_list only, models, batches, products, config;
    int runs, seconds, dates, precision;
    bool training, recompute;
} bench_values;

/* Parts, as bits in the order in which they run; names in bench.c. */
typedef enum bench_part {
    BENCH_DEVICE = 1 << 0,
    BENCH_OPERATORS = 1 << 1,
    BENCH_ENCODERS = 1 << 2,
    BENCH_TRAINING = 1 << 3,
    BENCH_SCENE = 1 << 4,
} bench_part;

/* One thing that was measured. Texts are in the arena. */
typedef struct bench_entry {
    const char *kind, *key; /* "encoder", "encoder hiera-tiny batch 8": what --compare looks for */
    double value;
    const char *unit;
    bool less_is_better;
    const char *members; /* more of its JSON object: "\"a\": 1, \"b\": 2", or "" */
} bench_entry;

/* The most that the device does, by kernels that do nothing else. Zero: not measured, or not there. */
typedef struct bench_ceilings {
    double flops, half_flops;    /* a second, of float32 and packed float16 arithmetic */
    double copy, cache;          /* bytes a second: large buffers read and written, a small one read */
    double dispatch, submission; /* seconds */
    double upload, download;     /* bytes a second */
} bench_ceilings;

typedef struct bench {
    const bench_values *values;
    trn_arena *arena;
    unsigned parts;
    const char **models; /* asked for, or NULL */
    size_t model_count;
    int *batches; /* 0: the best */
    size_t batch_count;
    trn_setting *settings;
    uint64_t start;
    double seconds; /* that may be used; 0: no limit */
    trn_device_info device;
    trn_precision precision; /* of all but training: FLOAT32 or FLOAT16 */
    bool measured;
    bench_ceilings ceilings;
    bench_entry *entries;
    size_t entry_count, entry_capacity;
    const char **left_out; /* what was not measured, and why */
    size_t left_out_count, left_out_capacity;
} bench;

/* ---- bench.c ---- */

/* Adds an entry; texts are copied. less_is_better by the unit: seconds of any size are. */
trn_status bench_add(bench *b, const char *kind, const char *key, double value, const char *unit,
                     const char *members, trn_error *err);
/* A line of the report, at once; nothing with --json. */
trn_status bench_say(const bench *b, trn_error *err, const char *fmt, ...) TRN_PRINTF(3, 4);
/* ", float16" for keys, "" of float32. */
const char *bench_precision_note(const bench *b);
/* Time per kind of operator of the last run, with TERRANE_PROFILE=1. */
trn_status bench_say_profile(const bench *b, const trn_exec *exec, trn_error *err);
/* Says that something is not measured, and why. */
trn_status bench_leave_out(bench *b, trn_error *err, const char *fmt, ...) TRN_PRINTF(3, 4);
/* Seconds of the budget that are left; INFINITY without one. */
double bench_seconds_left(const bench *b);
/* Whether a failure is about one entry alone: too little memory, or not something this device does. */
bool bench_may_go_on(trn_status status);
/* The device, opened anew, so that its peak of memory is of what follows. */
trn_status bench_gpu_open(const bench *b, trn_gpu **out, trn_error *err);
/* Restarts counting the process's peak of memory, and tells it. */
void bench_process_peak_restart(void);
uint64_t bench_process_peak(void);
double bench_cpu_seconds(void); /* of the process, all threads */
/* Sorts, and returns the one in the middle. */
double bench_median(double *values, size_t count);

/* ---- bench_device.c ---- */

/* Measures the ceilings once, all of them or those of arithmetic and memory alone. */
trn_status bench_ceilings_need(bench *b, trn_error *err);
trn_status bench_device(bench *b, trn_error *err);

/* ---- bench_model.c: an encoder with made-up weights, and its graphs ---- */

typedef struct bench_model {
    const char *name;
    trn_encoder *encoder;
    trn_weights *weights;
    size_t dates;
} bench_model;

typedef struct bench_pass { /* a forward pass, ready to run */
    trn_graph *graph;
    trn_exec *exec;
    float *image; /* its input */
    int batch;
} bench_pass;

trn_status bench_model_open(const bench *b, const char *name, bench_model *out, trn_error *err);
void bench_model_close(bench_model *model);
trn_status bench_pass_open(bench_model *model, trn_gpu *gpu, trn_precision precision, int batch,
                           bool plan_only, bench_pass *out, trn_error *err);
void bench_pass_close(bench_pass *pass);
/* Runs once; seconds may be NULL. */
trn_status bench_run(trn_exec *exec, double *seconds, trn_error *err);

/* ---- the other parts ---- */

trn_status bench_operators(bench *b, trn_error *err);
trn_status bench_encoders(bench *b, trn_error *err);
trn_status bench_trainings(bench *b, trn_error *err);
/* A step of training into a graph: the encoder with a linear head over its mean, cross entropy, its
 * gradients, AdamW (bench_training.c). */
trn_status bench_training_build(trn_encoder *encoder, trn_graph *graph, int batch, trn_error *err);
trn_status bench_scenes(bench *b, trn_error *err);

/* ---- bench_compare.c ---- */

typedef struct bench_former bench_former; /* what a file of --json says */
trn_status bench_former_read(const char *path, bench_former **out, trn_error *err);
void bench_former_free(bench_former *former); /* NULL is fine */
/* Ratios above 1: faster now. As lines, or as members of a JSON object. */
void bench_compare_text(const bench *b, const bench_former *former, trn_text *out);
void bench_compare_json(const bench *b, const bench_former *former, trn_text *out);

#endif
