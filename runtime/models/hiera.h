/* Hiera's inside: the hierarchical encoder over mask units, of all tokens or of those that a mask keeps, and
 * the masked autoencoder that pretrains it. The encoder of hiera.c uses all tokens.
 *
 * Tokens are in unrolled order: with M mask units (8x8 tokens each, of one step in time), token (t,r,c) is
 * number digits(r mod 8, c mod 8) * M + unit, where digits reads the bits of row and column with the lowest
 * as the most significant pair. So a 2x2 pooling is a maximum over four quarters of the sequence, and a token
 * belongs to unit number mod M. */
#ifndef TRN_HIERA_H
#define TRN_HIERA_H

#include "models_private.h"

enum { HIERA_STAGES = 4, HIERA_LEVELS = HIERA_STAGES - 1 };
enum { HIERA_UNIT = 1 << HIERA_LEVELS }; /* tokens of a mask unit's side */
enum { HIERA_PATCH = 4, HIERA_KERNEL = 7, HIERA_PADDING = 3 };
enum { HIERA_UNIT_PIXELS = HIERA_PATCH * HIERA_UNIT };

/* How pooled features are made of the last stage. */
typedef enum hiera_head {
    HIERA_HEAD_AUTO, /* norm where the weights have it, else fuse where they have its tensors, else none */
    HIERA_HEAD_NORM, /* average of tokens, then norm: the classifier's input */
    HIERA_HEAD_FUSE, /* the pooled stages and the last added up, encoder_norm, then average: MAE's latent */
    HIERA_HEAD_NONE, /* average of tokens */
} hiera_head;

/* Tokens of a window: steps in time (1 for images), rows, columns. Rows and columns are multiples of
 * HIERA_UNIT. */
typedef struct hiera_grid {
    int64_t steps, h, w;
} hiera_grid;
int64_t trn_hiera_units(const hiera_grid *grid);

typedef struct hiera_decoder {
    int64_t dim; /* 512 in the published files */
    int depth, heads;
} hiera_decoder;

/* What settings say: the state of an encoder of the family. */
typedef struct hiera_config {
    int64_t dim, heads; /* of the first stage; both double with every stage */
    int depth[HIERA_STAGES];
    bool unit_attention[HIERA_STAGES]; /* attention within mask units, else among all tokens */
    int q_pool;                        /* how many of the later stages begin with a pooling */
    double mlp_ratio;
    float eps;
    bool video; /* series: [B,T,C,h,w] */
    int frames, time_kernel, time_stride, time_padding;
    bool separate_positions; /* pos_embed_spatial and pos_embed_temporal */
    hiera_grid own;          /* of the table of positions */
    hiera_head head;
    trn_out_indices chosen; /* stages */
    hiera_decoder decoder;  /* of the pair that trn_masked_create makes */
} hiera_config;

/* Poolings before the tokens of a stage, 0 to 3. */
int trn_hiera_pools(const hiera_config *config, int stage);
/* What image -> tokens makes of a window of build. */
hiera_grid trn_hiera_grid(const hiera_config *config, const trn_build *build);

/* index [steps*h*w]: row-major token of every unrolled one. */
void trn_hiera_unroll(const hiera_grid *grid, int32_t *index);
/* index [steps*(h>>pools)*(w>>pools)]: unrolled token of every row-major one, after some poolings. */
void trn_hiera_reroll(const hiera_grid *grid, int pools, int32_t *index);
/* index [units*side*side], side = 8>>pools: unrolled token of every (unit, row, column within it). */
void trn_hiera_reroll_units(int64_t units, int pools, int32_t *index);

/* x [B,C,h,w] or [B,T,C,h,w] -> tokens with positions, unrolled [B,N,dim]. Stages patch_embed, pos_unrolled.
 */
trn_tensor *trn_hiera_embed(const trn_build *build, const hiera_config *config, trn_tensor *x);
/* Runs stages 0..last over tokens [B,N,dim] of `units` mask units; stages [last+1] gets each one's output, in
 * unrolled order. Stages block<ii>. */
void trn_hiera_run(const trn_build *build, const hiera_config *config, trn_tensor *tokens, int64_t units,
                   int last, trn_tensor **stages);
/* stages [4] -> [B, units*(8>>q_pool)^2, D of the last], normed by encoder_norm; unrolled order. */
trn_tensor *trn_hiera_fuse(const trn_build *build, const hiera_config *config, trn_tensor *const *stages);
/* Picks rows of axis 1 by a table that is made by a function above. */
trn_tensor *trn_hiera_pick(const trn_build *build, const char *name, trn_tensor *x, const int32_t *index,
                           int64_t count);

/* ---- masked: which mask units of every sample stay, as many of each ---- */

/* Tables made of the mask, on the host. */
typedef struct hiera_mask_tables {
    int64_t batch, units, kept;        /* kept: units per sample */
    int64_t cells;                     /* per sample, of the grid that the decoder works on */
    int64_t token_count, hidden_count; /* of all samples */
    float *pixels;                     /* [batch,units] 1 stays, 0 is hidden */
    int32_t *tokens;                   /* [token_count] rows of [batch*N] that stay, in order */
    int32_t *spread; /* [batch*cells] row of the latent of every cell, or the row past the last: hidden */
    int32_t *hidden; /* [hidden_count] rows of [batch*cells] that are hidden, in order */
} hiera_mask_tables;
/* keep [batch, units of grid], not 0: stays. Every sample keeps the same number, at least one. The tables are
 * the arena's. */
trn_status trn_hiera_mask_make(const hiera_config *config, const hiera_grid *grid, int64_t batch,
                               const uint8_t *keep, trn_arena *arena, hiera_mask_tables *out, trn_error *err);

/* The same as constants of a graph. */
typedef struct hiera_mask {
    int64_t kept, hidden_count;
    trn_tensor *pixels;                   /* [B,units] */
    trn_tensor *tokens, *spread, *hidden; /* of TRN_I32 */
} hiera_mask;
hiera_mask trn_hiera_mask_constants(trn_graph *graph, const hiera_mask_tables *tables);

/* The encoder of what a mask keeps: the image is zeroed where hidden, hidden tokens are dropped. */
typedef struct hiera_masked {
    trn_tensor *tokens; /* the last stage's, raw: [B,N,D] in unrolled order */
    /* in the order that stages have them; [B,kept,8>>pools,8>>pools,D] when rerolled */
    trn_tensor *stages[HIERA_STAGES];
} hiera_masked;
void trn_hiera_build_masked(const trn_build *build, const hiera_config *config, const hiera_mask *mask,
                            hiera_masked *out);
/* Stage `stage` of a masked run as [B,kept,8>>pools,8>>pools,D]. */
trn_tensor *trn_hiera_masked_units(const trn_build *build, const hiera_config *config, const hiera_mask *mask,
                                   int stage, trn_tensor *tokens);

typedef struct hiera_mae {
    trn_tensor *latent;    /* [B,kept,side,side,D], side = 8>>q_pool */
    trn_tensor *predicted; /* [B,cells,V], V = C*(4<<q_pool)^2, values of a cell as (c, y, x) */
    trn_tensor *wanted; /* alike: the image's values, each cell normalised by its mean and deviation; NULL for
                           series, whose targets the original orders otherwise */
    trn_tensor *mean, *deviation; /* [B,cells,1] of the image's values in a cell; NULL with wanted */
    trn_tensor *predicted_hidden, *wanted_hidden; /* [hidden_count, V] rows of the hidden cells */
    trn_tensor *loss; /* [1,1] mean square of their difference; NULL when nothing is hidden */
} hiera_mae;
/* The autoencoder: the masked encoder, fusion, decoder. Wants the tensors of a file of pretraining. */
void trn_hiera_build_mae(const trn_build *build, const hiera_config *config, const hiera_decoder *decoder,
                         const hiera_mask *mask, hiera_mae *out);

/* trn_masked_create and trn_masked_build: single images. */
extern const trn_masked_family hiera_masked_pair;

/* Positions of tokens: table `name` [1, own.steps*own.h*own.w, dim] -> [1, size.., dim], resized bicubically
 * in space where the sizes differ (the originals take one size alone). */
trn_tensor *trn_hiera_positions(const trn_build *build, const char *name, const hiera_grid *own,
                                const hiera_grid *size, int64_t dim);

#endif
