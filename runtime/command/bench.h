/* bench: a training step of an encoder, beside the encoder alone. Private to the room. */
#ifndef TRN_COMMAND_BENCH_H
#define TRN_COMMAND_BENCH_H

#include "graph.h"
#include "models.h"

typedef struct bench_training {
    trn_graph *graph;
    trn_exec *exec;
} bench_training;

/* The encoder with a linear head over its mean, cross entropy, its gradients and a step of AdamW, on made-up
 * labels; ready to run, but for the input "image". recompute: blocks are computed again for their gradients.
 */
trn_status bench_training_create(trn_encoder *encoder, trn_gpu *gpu, int batch, bool recompute,
                                 bench_training *out, trn_error *err);
void bench_training_destroy(bench_training *training);

#endif
