/* What the files of fitting share: the graphs of a run, its state, its log, its checkpoints. */
#ifndef TRN_LEARN_FIT_H
#define TRN_LEARN_FIT_H

#include "learn_private.h"

/* ---- where a run stands (checkpoint.c keeps it) ---- */

#define FIT_MOST_SCALE 1e38 /* what a float holds */

typedef struct fit_state {
    int64_t step;  /* steps done */
    int64_t epoch; /* epochs done */
    int64_t batch; /* batches done of the epoch that is running */
    double loss_sum;
    int64_t loss_count; /* of that epoch's steps */
    double best_metric; /* of best_epoch, from 1; 0: none yet */
    int64_t best_epoch;
    int64_t stale;                 /* epochs since */
    double train_loss, valid_loss; /* of the last whole epoch */
    bool stopped_early, complete;
    int64_t log_bytes;  /* of log.jsonl, as far as it is part of this state */
    double loss_scale;  /* what the loss is multiplied by for gradients; 1 without mixed precision */
    int64_t good_steps; /* since the scale changed */
} fit_state;

/* ---- curve.c ---- */

typedef struct fit_point {
    int64_t step;
    double loss;
} fit_point;
typedef struct fit_series {
    fit_point *points;
    size_t count, capacity;
} fit_series;
typedef struct fit_curve {
    fit_series steps, epochs, valid; /* training loss by step, its means by epoch, validation loss */
} fit_curve;
bool fit_series_add(fit_series *series, int64_t step, double loss);
void fit_curve_free(fit_curve *curve);
/* Draws the curve as a picture; points that are not finite are left out. */
trn_status fit_curve_write(const fit_curve *curve, const char *path, trn_error *err);

/* ---- log.c: log.jsonl ---- */

typedef struct fit_log {
    FILE *file;
    char *path;
    int64_t bytes;
    fit_curve curve;
} fit_log;
/* Keeps the first `keep` bytes, with the curve that is in them, and cuts off the rest. *cut tells that there
 * are fewer. */
trn_status fit_log_open(fit_log *log, const char *path, int64_t keep, bool *cut, trn_error *err);
/* scale: of the loss in mixed precision, else 0. */
trn_status fit_log_step(fit_log *log, const fit_state *state, double loss, double rate, double norm,
                        double scale, trn_error *err);
/* metric NULL: there is no validation. Numbers that are not finite become null. */
trn_status fit_log_epoch(fit_log *log, const fit_state *state, const char *metric, double value, bool best,
                         trn_error *err);
/* To disk, before a checkpoint counts on it. */
trn_status fit_log_sync(fit_log *log, trn_error *err);
void fit_log_close(fit_log *log);

/* ---- graphs ---- */

/* A state of the training graph. */
typedef struct fit_tensor {
    const char *name;
    const char *kept; /* the output that shows it */
    const char *best; /* the output with the values to evaluate by: the moving average, or the same as kept */
    trn_shape shape;
    int64_t count;
    bool weight;  /* of the model; else the optimiser's */
    bool learns;  /* a gradient changes it */
    bool in_eval; /* the graph that evaluates has it, too */
} fit_tensor;

typedef struct fit_engine {
    trn_graph *train_graph, *eval_graph;
    trn_exec *train, *eval;
    trn_shared_weights *shared; /* what does not learn is there once */
    fit_tensor *tensors;        /* those of checkpoints */
    size_t tensor_count;
    uint64_t parameters, learning;
} fit_engine;

/* What a checkpoint must agree with, as text. */
enum { FIT_FACTS = 6 };
typedef struct fit_identity {
    const char *name[FIT_FACTS];
    char *text[FIT_FACTS];
    const char *device; /* another one is worth a word, no more */
} fit_identity;

typedef struct fit_scores {
    size_t count;
    double loss;
    trn_class_scores classes;
    trn_multilabel_scores labels;
} fit_scores;

typedef struct fit {
    trn_gpu *gpu;
    const trn_learn_model *model;
    const trn_dataset *dataset;
    const trn_dataset_info *info;
    const trn_fit_options *options;
    const trn_learn_hooks *hooks;
    trn_arena *arena;
    /* settled by fit_settle */
    const trn_metric *metric;
    trn_loss_kind loss;
    bool multilabel, dense;
    size_t counts[TRN_SPLIT_COUNT]; /* samples that are used of each split */
    trn_optimizer_desc optimizer;
    trn_schedule schedule;
    int runs;               /* of a step */
    int64_t epoch_steps;    /* steps of an epoch */
    int *depths;            /* [members] blocks */
    float *class_weights;   /* [classes], or NULL */
    uint64_t *class_counts; /* [classes] in the training samples */
    fit_identity identity;
    /* running */
    fit_engine engine;
    trn_batches *batches;
    int seat;                 /* of the training executable: the next run's */
    bool staged;              /* its batch was taken */
    trn_status staged_status; /* and that was good */
    trn_error staged_error;
    float *values;     /* room for any one tensor, or the logits of a batch */
    float *pixels;     /* [batch, bands, height, width] */
    int32_t *labels;   /* [batch, label_count] */
    float *targets;    /* the same of several labels */
    int32_t *counters; /* [batch, 2] */
    fit_state state;
    fit_log log;
    char *last_path, *best_path;
    bool has_last; /* last.safetensors is there and is of this run */
    int64_t last_step;
    uint64_t begun, last_written; /* ns */
    double write_seconds;         /* that the last checkpoint took */
    double run_seconds, train_seconds;
    int64_t trained; /* samples, of this call */
} fit;

/* fit_check.c: everything that needs no graph; fills what is settled. Warnings become notes. */
trn_status fit_settle(fit *f, trn_error *err);
/* The samples chosen of a split; NULL: all. */
const size_t *fit_samples(const fit *f, trn_split split);
void fit_note(const fit *f, trn_log_level level, const char *fmt, ...) TRN_PRINTF(3, 4);
/* fit_identity.c */
trn_status fit_identify(fit *f, trn_error *err);

/* fit_graph.c, fit_diagnose.c */
trn_status fit_engine_create(fit *f, bool plan_only, trn_error *err);
void fit_engine_destroy(fit_engine *engine);
uint64_t fit_engine_bytes(const fit_engine *engine); /* of device memory: weights and values of both graphs */
/* The weights to evaluate by, from the training executable to the other. */
trn_status fit_engine_pass(fit *f, trn_error *err);
/* Compiles the training graph anew, so that every value can be read, with the states and inputs of the step
 * that failed: what made it so, as text. The engine's executables are gone afterwards. */
trn_status fit_engine_diagnose(fit *f, const trn_batch *batch, const float *now, trn_text *what,
                               trn_error *err);
#define FIT_LOSS_SCALE "loss scale" /* input [1] of a training graph of mixed precision */
/* Inputs of an executable: of a seat, or (-1) those that trn_exec_run takes. */
typedef struct fit_inputs {
    trn_exec *exec;
    int seat;
} fit_inputs;
/* Sets the inputs that come from a batch; only the first batch.count rows of them count, others get no label.
 */
trn_status fit_engine_feed(fit *f, const fit_inputs *inputs, const trn_batch *batch, bool training,
                           trn_error *err);
/* Sets the others of a training run whose batch was fed last. now: [TRN_STEP_NOW] of the optimiser. */
trn_status fit_engine_begin(fit *f, const fit_inputs *inputs, const float *now, trn_error *err);

/* fit_step.c */
/* Seats of the training executable; TERRANE_DISABLE=overlap: one, no batch is taken while a run is under way.
 */
int fit_step_seats(void);
/* The next step of the epoch that the batches are at. */
trn_status fit_step_take(fit *f, trn_error *err);
/* A step is done, with finite gradients if it was good: what the next one scales its loss by. */
void fit_adapt_scale(fit_state *state, bool good);

/* fit_evaluate.c */
trn_status fit_evaluate(fit *f, trn_split split, fit_scores *out, trn_error *err);
double fit_metric_value(const fit *f, const fit_scores *scores);

/* checkpoint.c */
trn_status fit_checkpoint_write(fit *f, trn_error *err);
/* Reads last.safetensors where there is one: the state, and the tensors into the training executable. */
trn_status fit_checkpoint_read(fit *f, bool *found, trn_error *err);
/* The weights to evaluate by: best.safetensors, and a file for each encoder that learns. */
trn_status fit_best_write(fit *f, const fit_scores *scores, trn_error *err);
/* best.safetensors into the executable that evaluates. */
trn_status fit_best_read(fit *f, trn_error *err);

#endif
