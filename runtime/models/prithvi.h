/* What Prithvi's encoder (prithvi.c) and its pretraining decoder (prithvi_mae.c) share. */
#ifndef TRN_PRITHVI_H
#define TRN_PRITHVI_H

#include "models_private.h"

enum {
    PRITHVI_IMG_SIZE,
    PRITHVI_FRAMES,
    PRITHVI_TUBELET,
    PRITHVI_PATCH,
    PRITHVI_DIM,
    PRITHVI_DEPTH,
    PRITHVI_HEADS,
    PRITHVI_MLP_RATIO,
    PRITHVI_IN_CHANS,
    PRITHVI_EPS,
    PRITHVI_COORDS,
    PRITHVI_LOCATION_ORDER,
    PRITHVI_DAY_BASE,
    PRITHVI_OUT_INDICES,
    PRITHVI_MERGE,
    PRITHVI_BANDS,
    PRITHVI_UNIT,
    PRITHVI_STATISTICS,
    PRITHVI_MEAN,
    PRITHVI_STD,
    PRITHVI_DECODER_DIM,
    PRITHVI_DECODER_DEPTH,
    PRITHVI_DECODER_HEADS,
    PRITHVI_SETTINGS
};

typedef struct prithvi_state {
    trn_grid_size own; /* cells of the position table */
    trn_out_indices chosen;
    bool time, location; /* coordinates that the checkpoint has scales for */
    int32_t *kernel;     /* [band_count] channels of the stored kernel in use; NULL: all, in order */
} prithvi_state;

/* What stands before a side's names, and how the names of its coordinate scales end. */
typedef struct prithvi_side {
    trn_scope scope;
    const char *suffix; /* "enc", "dec" */
    int64_t dim;
    int64_t location; /* where its part of an encoded place begins */
} prithvi_side;

/* Patches in time, rows and columns. */
typedef struct prithvi_grid {
    int64_t t;
    trn_grid_size size;
    int64_t count; /* t * h * w */
} prithvi_grid;
prithvi_grid prithvi_grid_of(const trn_encoder *encoder, int64_t dates, int64_t height, int64_t width);

trn_block_desc prithvi_block(const trn_encoder *encoder, int64_t dim, int64_t heads);
/* x [B,T,C,h,w] -> patches [B,t*h*w,D], t slowest */
trn_tensor *prithvi_embed(const trn_encoder *encoder, const trn_build *build, const prithvi_side *side);
/* x [B,t*h*w,D] + positions, times and places */
trn_tensor *prithvi_locate(const trn_encoder *encoder, const trn_build *build, const prithvi_side *side,
                           trn_tensor *x);
/* [B,1,D] of the class token */
trn_tensor *prithvi_class_token(const trn_build *build, const prithvi_side *side);

/* prithvi_mae.c */
extern const trn_masked_family prithvi_masked;

#endif
