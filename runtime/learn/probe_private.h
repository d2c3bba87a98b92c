/* probe_private: what the probes share: checks, scaling, held out samples, scores. Private to learn. */
#ifndef TRN_PROBE_PRIVATE_H
#define TRN_PROBE_PRIVATE_H

#include "learn.h"

/* ---- probe.c ---- */

/* Sizes, labels, finite features. all_classes: each class must have a training sample. */
trn_status learn_check_sets(const trn_probe_sets *sets, bool all_classes, const char *who, trn_error *err);
bool learn_is_multilabel(const trn_probe_sets *sets);
bool learn_has_samples(const trn_feature_set *set); /* set may be NULL */

/* When there is nothing to choose on, a fifth of the training samples is held out for it. */
typedef struct learn_choice {
    trn_probe_sets sets;            /* with a valid set in any case */
    trn_feature_set rest, held_out; /* of the training samples; empty when there is a valid set */
} learn_choice;
trn_status learn_choice_open(const trn_probe_sets *sets, learn_choice *out, trn_error *err);
void learn_choice_close(learn_choice *choice);
/* a, then b (which may be NULL). */
trn_status learn_join_sets(const trn_feature_set *a, const trn_feature_set *b, trn_feature_set *out,
                           trn_error *err);

/* (x - mean) * factor of each channel. */
typedef struct learn_scaling {
    int64_t channels;
    double *mean, *factor;
} learn_scaling;
/* By mean and deviation of the set; without center the mean stays 0, without spread the factor 1. */
trn_status learn_scaling_open(const trn_feature_set *set, bool center, bool spread, learn_scaling *out,
                              trn_error *err);
void learn_scaling_close(learn_scaling *scaling);
/* The set scaled, values in place of those it had; labels are copied. */
trn_status learn_scaled(const trn_feature_set *set, const learn_scaling *scaling, trn_feature_set *out,
                        trn_error *err);

/* Of one set. scores [count, classes]: the largest is the class; of several labels those above threshold are
 * there. */
trn_status learn_score(const trn_probe_sets *sets, const trn_feature_set *set, const float *scores,
                       double threshold, trn_class_scores *classes, trn_multilabel_scores *labels,
                       trn_error *err);
/* What probes choose by: accuracy, or micro mAP. */
double learn_choice_metric(const trn_probe_sets *sets, const trn_class_scores *classes,
                           const trn_multilabel_scores *labels);
/* Mean cross entropy of logits [count, classes], of several labels the binary one. */
double learn_mean_loss(const trn_probe_sets *sets, const trn_feature_set *set, const float *logits);
/* Labels as targets of the binary loss, [count, classes] floats. */
void learn_targets(const int32_t *labels, size_t count, float *targets);
void learn_note(const trn_learn_hooks *hooks, trn_log_level level, const char *fmt, ...) TRN_PRINTF(3, 4);
const trn_progress *learn_progress(const trn_learn_hooks *hooks); /* hooks may be NULL */

/* ---- probe_graph.c: a linear layer on the device ---- */

/* A compiled graph. Zeroed: none. */
typedef struct learn_graph {
    trn_graph *graph;
    trn_exec *exec;
} learn_graph;
void learn_graph_close(learn_graph *graph);

/* logits [rows, classes] of rows of features: x w^T + b. */
typedef struct learn_scorer {
    learn_graph net;
    int64_t rows, channels, classes; /* of a run */
    float *x, *y;                    /* of a run that is not full */
} learn_scorer;
trn_status learn_scorer_open(trn_gpu *gpu, size_t count, int64_t channels, int classes, learn_scorer *out,
                             trn_error *err);
void learn_scorer_close(learn_scorer *scorer);
trn_status learn_scorer_set(learn_scorer *scorer, const float *weights, const float *bias, trn_error *err);
trn_status learn_scorer_run(learn_scorer *scorer, const float *values, size_t count, float *logits,
                            trn_error *err);
/* The scores of a set whose features are scaled already. loss may be NULL. */
trn_status learn_scorer_score(learn_scorer *scorer, const trn_probe_sets *sets, const trn_feature_set *set,
                              trn_class_scores *classes, trn_multilabel_scores *labels, double *loss,
                              trn_error *err);

/* ---- lbfgs.c ---- */

/* A smooth function of n numbers, and its gradient. */
typedef trn_status (*lbfgs_function)(void *user, const double *x, double *value, double *gradient,
                                     trn_error *err);
typedef struct lbfgs_options {
    int max_iterations;
    double tolerance; /* of the largest component of the gradient */
    double noise;     /* relative error of the values: what is less is no rise */
} lbfgs_options;
typedef struct lbfgs_result {
    double value;
    int iterations;
    bool converged;
} lbfgs_result;
/* From x to a minimum near it, in place: L-BFGS with a history of 10 and strong Wolfe steps. Not converged is
 * no error. Source: Nocedal and Wright, Numerical Optimization, 2006, algorithms 7.4 and 7.5. */
trn_status learn_lbfgs(lbfgs_function function, void *user, size_t n, double *x, const lbfgs_options *options,
                       lbfgs_result *result, trn_error *err);

#endif
