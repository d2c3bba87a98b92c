/* compose: several encoders as one. Features of different strides are aligned on a common grid with exact
 * geometry, then fused; all in one graph, so that one pass over the windows serves all encoders. */
#ifndef TRN_COMPOSE_H
#define TRN_COMPOSE_H

#include "base.h"
#include "graph.h"
#include "models.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum trn_fusion { TRN_FUSION_CONCAT, TRN_FUSION_AVERAGE } trn_fusion;

typedef struct trn_member {
    trn_encoder *encoder;
    /* channels of the shared image that this encoder reads, in its order */
    const int *channels;
    size_t channel_count;
    trn_encode_options options;
    int date;      /* which date of a series this encoder sees, from 1; 0: the whole series */
    double weight; /* of its features in the fusion; 0: 1 */
    /* [channel_count] stored values of an image that shows nothing, or NULL. Dense features then are
     * differences from those of that image, cell by cell: transformers keep where in the window a cell lies,
     * often stronger than what is there. */
    const float *blank;
    /* [channel_count] stored values are held within these first, or both NULL */
    const float *low, *high;
    /* NULL, or put before the names of its parameters that learn (trn_graph_prefix) */
    const char *prefix;
} trn_member;

typedef struct trn_compose_options {
    trn_fusion fusion;
    bool l2_normalize; /* each encoder's vector to length 1 before fusing */
    int cell;          /* pixels per cell of the common grid; 0: the finest stride of the members */
    double *offset;    /* NULL, or gets the pixel of the window at which the common grid begins */
    trn_text *explain; /* NULL, or gets a line per grid: whose, its stride, how it comes to the common grid */
} trn_compose_options;

/* image [B, C, h, w] of stored values, or [B, T, C, h, w] of T dates. Dense members give *out
 * [B, h/cell, w/cell, channels]; pooled ones [B, channels]. Averaging needs members of equal width; the error
 * names them. */
trn_status trn_compose(trn_graph *graph, trn_tensor *image, const trn_member *members, size_t count,
                       const trn_compose_options *options, trn_tensor **out, trn_error *err);

/* One member alone, its features as they come: all of its grids, or its vector. */
trn_status trn_compose_member(trn_graph *graph, trn_tensor *image, const trn_member *member,
                              trn_features *features, trn_error *err);

/* Window side that suits all members: the least common multiple of side_multiple and cell at or above
 * `wanted` (0: the largest natural tile). Error when none is sensible. */
trn_status trn_compose_tile(trn_encoder *const *encoders, size_t count, int cell, int wanted, int *tile,
                            trn_error *err);
int trn_compose_cell(trn_encoder *const *encoders, size_t count); /* finest stride */

#ifdef __cplusplus
}
#endif
#endif
