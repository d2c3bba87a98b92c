/* learn: training. A model (encoders fused, or a network of one's own, and a head) is fitted to a dataset:
 * loop, checkpoints, resuming, logs; features of frozen encoders are computed once and kept in a cache, and
 * probes learn from them. All maths runs on the device; the same device, driver, data and settings give the
 * same bits. Thread-safety: one thread at a time per object. */
#ifndef TRN_LEARN_H
#define TRN_LEARN_H

#include "base.h"
#include "compose.h"
#include "data.h"
#include "eval.h"
#include "gpu.h"
#include "graph.h"
#include "models.h"
#include "nn.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What tells the outside; zeroed: nobody. */
typedef struct trn_learn_hooks {
    trn_progress progress;
    void (*note)(void *user, trn_log_level level, const char *text); /* warnings, a line per epoch */
    void *user;
} trn_learn_hooks;

/* ---- the model ---- */

/* Names of parameters: those of the first encoder begin with "encoder.", of the second with "encoder2.", of a
 * network of one's own with "trunk.", of the head with "head."; behind that they are the encoder's own. */
typedef struct trn_learn_model {
    /* Encoders with bands, dates and weights chosen (trn_weights_open_fresh: from scratch). options.pool is
     * dense for heads that want grids; `options.training` is set by learn. */
    const trn_member *members;
    size_t member_count;
    trn_compose_options compose; /* of several members; one dense member gives its grids as they are */
    /* In place of members: from the image, normalised by trunk_mean and trunk_std [bands] (NULL: as it is),
     * to a map [B,C,gh,gw] or a vector [B,C]. */
    const trn_program *trunk;
    const float *trunk_mean, *trunk_std;
    const trn_head_desc *head; /* NULL: features alone */
    int bands, height, width;  /* of the images it takes: [B,bands,height,width] of stored values */
    uint64_t seed;             /* of fresh weights of trunk and head */
} trn_learn_model;

/* Adds the model to a graph. image [B,bands,height,width] -> *out: logits, or without a head features [B,C]
 * or [B,gh,gw,C]. training: NULL for inference. Which parameters learn is trn_graph_train's matter. */
trn_status trn_learn_build(trn_graph *graph, const trn_learn_model *model, trn_tensor *image, bool dense,
                           const trn_training *training, trn_tensor **out, trn_error *err);
/* Identity of what the model computes without its head, for cache keys and checkpoints: hex digits of a
 * SHA-256 over encoders' configurations, weights (their values, or seeds), bands, scales,
 * normalisation, fusion. */
trn_status trn_learn_model_key(const trn_learn_model *model, char key[65], trn_error *err);

/* ---- features, computed once ---- */

typedef struct trn_feature_set {
    size_t count; /* samples */
    int64_t channels;
    float *values;   /* [count, channels] */
    int32_t *labels; /* [count, label_count] */
    size_t label_count;
} trn_feature_set;
void trn_feature_set_free(trn_feature_set *set); /* zeroes it */

typedef struct trn_feature_options {
    trn_split split;
    const size_t *samples; /* indices into the split; NULL: all */
    size_t sample_count;
    trn_transform transform; /* nothing left to chance: random parts are an error */
    int batch;               /* 0: 32 */
    /* Folder of the cache; NULL: "features" in Terrane's cache folder; "": none. A file of it is named by the
     * key of model, samples (names, sizes and times of change of their files) and preprocessing; a damaged
     * one is computed again. */
    const char *cache;
    uint64_t memory_limit;       /* of the device; 0: what is free */
    trn_shared_weights *weights; /* for the next split of the same model; NULL: loaded for this call alone */
} trn_feature_options;
typedef struct trn_feature_report {
    bool cached; /* no encoder ran */
    char key[65];
    double seconds;
    double busy; /* share of the time in which the device had work */
} trn_feature_report;
/* Pooled features of a split. gpu may be NULL when only the cache is to be asked: then TRN_ERR_DEVICE when it
 * does not have them. */
trn_status trn_learn_features(trn_gpu *gpu, const trn_learn_model *model, const trn_dataset *dataset,
                              const trn_feature_options *options, const trn_learn_hooks *hooks,
                              trn_feature_set *out, trn_feature_report *report, trn_error *err);

/* ---- probes on features ---- */

typedef struct trn_probe_sets {
    const trn_feature_set *train, *valid, *test; /* valid and test may have no samples */
    trn_task task;                               /* classification or multi-label */
    int classes;
} trn_probe_sets;

typedef struct trn_probe_scores { /* valid: of the choice made; test: at the end */
    trn_class_scores valid, test;
    trn_multilabel_scores valid_labels, test_labels; /* of multi-label tasks */
    double parameter;                                /* k, C, or the learning rate chosen */
    double train_loss;                               /* at the end, where there is one */
    int iterations;
    bool converged;
    double seconds;
} trn_probe_scores;

typedef enum trn_distance { TRN_DISTANCE_COSINE, TRN_DISTANCE_L2 } trn_distance;
typedef struct trn_knn_options {
    int k; /* 0: 5 */
    trn_distance distance;
    bool center; /* less the mean of the training features */
} trn_knn_options;
/* Uniform vote, ties to the smallest class; several labels: those of more than half of the neighbours.
 * Distances are computed on the device. */
trn_status trn_probe_knn(trn_gpu *gpu, const trn_probe_sets *sets, const trn_knn_options *options,
                         trn_probe_scores *out, trn_error *err);

typedef struct trn_logistic_options {
    /* Values of C to choose from by accuracy (several labels: micro mAP) on valid, the first of equals; NULL:
     * 10^c for 19 values of c from -6 to 3. Without valid samples on every fifth training sample of a class,
     * and then all training samples are fitted with it. */
    const double *grid;
    size_t grid_count;
    bool standardize; /* features to mean 0 and deviation 1 of the training set */
    bool refit;       /* on train and valid together, with the chosen C */
    /* of L-BFGS for each C; with the chosen one it may go ten times as far; 0: 200 */
    int max_iterations;
    double tolerance; /* largest component of the gradient / samples; 0: 1e-6 */
} trn_logistic_options;
/* Minimises sum of cross entropy + |W|^2 / (2 C), bias free, by L-BFGS (history 10, strong Wolfe); losses and
 * gradients on the device, the search in double on the host. Source: scikit-learn's LogisticRegression.
 * weights [classes, channels] and bias [classes] of the fit, for features as given; may be NULL. */
trn_status trn_probe_logistic(trn_gpu *gpu, const trn_probe_sets *sets, const trn_logistic_options *options,
                              const trn_learn_hooks *hooks, trn_probe_scores *out, float *weights,
                              float *bias, trn_error *err);

typedef struct trn_linear_options {
    int epochs, batch;   /* 0: 100, 256 */
    const double *rates; /* learning rates to choose from; NULL: 3e-4, 1e-3, 3e-3, 1e-2, 3e-2 */
    size_t rate_count;
    double weight_decay;
    /* features to mean 0 and deviation 1 of the training set, as a batch norm without weights whose batch is
     * all of it: rates then suit features of any scale */
    bool batch_norm;
    uint64_t seed;
} trn_linear_options;
/* A linear layer trained by AdamW with a cosine schedule, from zeros; its weights are a moving average over
 * about five epochs, of the epoch and rate with the smallest loss on valid. Without valid samples every fifth
 * training sample of a class is held out for the choice. */
trn_status trn_probe_linear(trn_gpu *gpu, const trn_probe_sets *sets, const trn_linear_options *options,
                            const trn_learn_hooks *hooks, trn_probe_scores *out, trn_error *err);

/* ---- fitting ---- */

typedef enum trn_loss_kind {
    TRN_LOSS_BY_TASK, /* cross entropy; of several labels: binary */
    TRN_LOSS_CROSS_ENTROPY,
    TRN_LOSS_DICE,
    TRN_LOSS_CE_DICE, /* the sum of both */
    TRN_LOSS_JACCARD,
    TRN_LOSS_FOCAL,
    TRN_LOSS_BINARY,          /* several labels */
    TRN_LOSS_BINARY_BALANCED, /* several labels */
} trn_loss_kind;
typedef struct trn_loss_choice {
    trn_loss_kind kind;
    double label_smoothing;
    double gamma;                /* focal: 2 usually; softmax form */
    const double *class_weights; /* [classes], or NULL; several labels: weights of positives */
    size_t class_weight_count;   /* must be the dataset's classes */
    bool balance;                /* class weights from how often classes occur: total / (classes * count) */
} trn_loss_choice;

typedef struct trn_fit_options {
    int64_t epochs;
    int batch;      /* samples of a run of the graph */
    int accumulate; /* runs of a step; 0: 1 */
    trn_transform train_transform, eval_transform;
    const size_t *train_samples; /* indices into the split; NULL: all */
    size_t train_sample_count;
    const size_t *valid_samples, *test_samples; /* likewise */
    size_t valid_sample_count, test_sample_count;
    trn_loss_choice loss;
    trn_optimizer_desc optimizer; /* rule and user are set by learn */
    double layer_decay;           /* factor of the learning rate per layer of the encoders; 0: 1 */
    double head_rate;             /* factor of the learning rate of trunk and head; 0: 1 */
    trn_schedule schedule;        /* in epochs where fractional: warmup and steps count steps; steps 0: all */
    double warmup_epochs;         /* > 0: in place of schedule.warmup; at most half of all steps */
    /* What learns: patterns of names ("encoder.*", "*.bias") that stay as they are */
    const char *const *frozen;
    size_t frozen_count;
    double dropout, drop_path; /* of encoders */
    bool fixed_norm;           /* batch norms of the head keep their statistics */
    bool recompute;            /* gradient checkpointing */
    /* Mixed precision (trn_graph_mixed), on devices with 16-bit storage: the loss is multiplied by a scale
     * before gradients are taken, so that small ones are no zeros in float16, and they are divided by it
     * afterwards. A step whose gradients are not finite then changes no weights, and halves the scale; 2000
     * good ones double it. */
    bool mixed;
    double loss_scale;  /* the first one, at least 1; 0: 65536 */
    const char *metric; /* on valid, of trn_metric_find; NULL: accuracy, mean_iou, or micro_map, by task */
    int patience;       /* epochs without a better metric before it stops; 0: never */
    uint64_t seed;
    const char *dir;           /* where everything is written; created */
    double checkpoint_seconds; /* between checkpoints within an epoch; 0: 60, or longer where writing takes
                                * long. One at the end of each epoch. */
    uint64_t memory_limit;
    const char *description; /* settings as text: part of what a checkpoint must agree with */
} trn_fit_options;

/* Files of dir:
 * - last.safetensors: weights, what the optimiser remembers, running statistics, and in its metadata the
 * state of the loop. Written atomically. The same call finds it and goes on from there, with the same bits as
 * if it had never stopped; of another model, dataset or settings, it is an error that says what differs.
 * - best.safetensors: the weights (the moving average where there is one) of the best epoch, and its scores.
 * - encoder.safetensors (encoder2..): the same of an encoder that learned, under its own names, to be used as
 *   weights anywhere.
 * - log.jsonl: {"event":"step", "step", "epoch", "loss", "lr", "gradient_norm"} (of mixed
 *   precision also "loss_scale"; the norm of a step that was left out is null) and {"event":"epoch", ..}.
 * - loss.png: the curve of training and validation loss. */
typedef struct trn_fit_result {
    int64_t epochs, steps; /* done */
    bool resumed, stopped_early, was_complete;
    int64_t best_epoch; /* from 1 */
    double best_metric, train_loss, valid_loss;
    const char *metric;           /* its name */
    trn_class_scores valid, test; /* of the best epoch's weights; test: zeros without a test split */
    trn_multilabel_scores valid_labels, test_labels;
    double seconds, busy; /* of this call; share of the time in which the device had work */
    double samples_per_second;
    uint64_t parameters, learning; /* all, and those that learn */
    uint64_t device_bytes;
} trn_fit_result;
/* TRN_ERR_FORMAT: labels out of range, samples of another size or bands; TRN_ERR_ARGUMENT: an empty split, a
 * class that training lacks, settings that contradict one another; TRN_ERR_IO: a checkpoint that cannot be
 * written (the former one is kept); TRN_ERR_UNSUPPORTED: a loss that is not finite: step, first operator that
 * made it, and which checkpoint is kept. */
trn_status trn_fit(trn_gpu *gpu, const trn_learn_model *model, const trn_dataset *dataset,
                   const trn_fit_options *options, const trn_learn_hooks *hooks, trn_fit_result *out,
                   trn_error *err);
/* What trn_fit would find wrong before it reads a sample: settings, and whether model and dataset suit one
 * another. Of normalisation it needs no statistics yet. */
trn_status trn_fit_check(const trn_learn_model *model, const trn_dataset *dataset,
                         const trn_fit_options *options, trn_error *err);
/* What would be trained: parameters that learn, steps, memory, kernels. Nothing is written. */
trn_status trn_fit_explain(trn_gpu *gpu, const trn_learn_model *model, const trn_dataset *dataset,
                           const trn_fit_options *options, trn_tuner *tuner, trn_text *out, trn_error *err);

#ifdef __cplusplus
}
#endif
#endif
