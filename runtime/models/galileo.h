/* Galileo's inside: all of its inputs and masks, of which the encoder of galileo.c uses images.
 */
#ifndef TRN_GALILEO_H
#define TRN_GALILEO_H

#include "models_private.h"

enum { GALILEO_SPACE_TIME = 7, GALILEO_SPACE = 3, GALILEO_TIME = 3, GALILEO_FIXED = 4, GALILEO_GROUPS = 17 };
enum { GALILEO_KERNEL = 8 }; /* side of the stored kernels */

typedef struct galileo_size {
    int64_t dim, depth, heads, positions; /* positions: rows of the table of time steps */
    double mlp_ratio, eps;
} galileo_size;

/* One window of every source. NULL: the group is not there. All values are normalised. */
typedef struct galileo_inputs {
    int64_t batch, times, side; /* side in pixels */
    int64_t patch;
    double resolution;                          /* metres of a pixel */
    trn_tensor *space_time[GALILEO_SPACE_TIME]; /* [B*T,C,side,side], image b*T+t */
    trn_tensor *space[GALILEO_SPACE];           /* [B,C,side,side] */
    trn_tensor *time[GALILEO_TIME];             /* [B,T,C] */
    trn_tensor *fixed[GALILEO_FIXED];           /* [B,C] */
    const int *months;                          /* 0..11; [B,T], or [T] when shared */
    bool shared_months;
    bool keep_absent; /* groups that are not there make tokens of zeros, hidden */
    /* Hidden tokens, 0 visible, else hidden; [B, cells, T, groups] and so on, of the groups that make tokens
     * (all with keep_absent). All NULL: every token is visible. */
    const float *mask_space_time, *mask_space, *mask_time, *mask_fixed;
} galileo_inputs;

typedef struct galileo_outputs {
    trn_tensor *cells; /* [B,cells,D] average of each cell's visible tokens, and of those of no place */
    trn_tensor *mean;  /* [B,D] of visible tokens */
} galileo_outputs;

/* Masks are kept in the arena while the graph is built. */
void trn_galileo_build(const trn_build *build, trn_arena *arena, const galileo_size *size,
                       const galileo_inputs *inputs, galileo_outputs *out);

/* pinv [p*p, 64] of the map that resizes an 8x8 image to p x p (bicubic, antialiased); p in 1..8. */
void trn_galileo_pinv(int p, double *out);
/* Position of a cell: out [dims] for column and row times ratio. */
void trn_galileo_place(int dims, double column, double row, double ratio, float *out);

#endif
