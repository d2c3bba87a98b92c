/* Inside of the family dofa: its settings, and what its files pass one another. */
#ifndef TRN_DOFA_H
#define TRN_DOFA_H

#include "models_private.h"

enum {
    DOFA_VERSION,
    DOFA_IMG_SIZE,
    DOFA_PATCH,
    DOFA_DIM,
    DOFA_DEPTH,
    DOFA_HEADS,
    DOFA_MLP_RATIO,
    DOFA_EPS,
    DOFA_LAYOUT,
    DOFA_FC_NORM,
    DOFA_ATTN_POOL,
    DOFA_POS_INTERPOLATION,
    DOFA_OUT_INDICES,
    DOFA_WAVELENGTHS,
    DOFA_UNIT,
    DOFA_MEAN,
    DOFA_STD,
    DOFA_SETTINGS
};

enum { DOFA_V1, DOFA_V2, DOFA_CLIP };
enum { DOFA_LAYOUT_NEW, DOFA_LAYOUT_OLD };

typedef struct trn_dofa_state {
    trn_grid_size own; /* cells of the position table */
    trn_out_indices chosen;
    bool listed; /* out_indices are the user's */
    const float
        *wavelengths; /* [wavelength_count], micrometres, of the channels; NULL until they are known */
    size_t wavelength_count;
    const char *unknown; /* name of the first band whose statistics nobody knows; NULL: all have some */
} trn_dofa_state;

/* ---- dofa_bands.c: which wavelength and which statistics a band has ---- */

/* The setting `wavelengths`, so that an encoder knows its channels before it sees a scene. */
trn_status trn_dofa_configure_bands(trn_encoder *encoder, trn_error *err);
/* trn_family.choose_bands: all that the scene offers, in its order. */
trn_status trn_dofa_choose_bands(trn_encoder *encoder, const trn_band_offer *scene, size_t scene_count,
                                 int *index, size_t max, size_t *count, trn_text *notes, trn_error *err);

/* ---- dofa_generator.c: patches by kernels made from wavelengths ---- */

/* image [B,C,h,w] -> [B,N,D]. Stages: fourier, wave_feat, dyn_weight, dyn_bias, patch_embed. */
trn_tensor *trn_dofa_patches(const trn_encoder *encoder, const trn_build *build);

#endif
