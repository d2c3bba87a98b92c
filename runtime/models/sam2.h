/* sam2: what the trunk and the neck of SAM 2's image encoder share. */
#ifndef TRN_SAM2_H
#define TRN_SAM2_H

#include "models_private.h"

/* The feature pyramid over the trunk's stages. */
typedef struct trn_sam2_neck {
    int levels;                   /* stages of the trunk, shallowest first */
    int64_t dim;                  /* channels of every level, a multiple of 4 */
    bool top_down[TRN_MAX_GRIDS]; /* levels that take in the next deeper one */
    bool bilinear, average;       /* how the deeper one is enlarged (else nearest) and taken in (else sum) */
} trn_sam2_neck;

/* Levels [B,h,w,dim] of the stages [B,h,w,C], both [neck->levels], shallowest first. Names below the scope:
 * convs.<j>.conv.{weight,bias}, deepest first. A top-down level must be just twice as large as the next
 * deeper one. Stages of the build: lateral<i>, fpn<i>, pos<i>. */
void trn_sam2_build_neck(const trn_build *build, const trn_scope *scope, const trn_sam2_neck *neck,
                         trn_tensor *const *stages, trn_tensor **levels);

/* Tells the build of a grid [B,h,w,C] as the originals lay it out: [B,C,h,w]. */
void trn_sam2_stage(const trn_build *build, trn_tensor *grid, const char *name, int index);

#endif
