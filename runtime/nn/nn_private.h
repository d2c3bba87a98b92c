/* What the files of nn share. Private to the room. */
#ifndef TRN_NN_PRIVATE_H
#define TRN_NN_PRIVATE_H

#include "nn.h"

/* As trn_scope_param, of what runs change though no gradient does (trn_param_state). */
trn_tensor *trn_scope_state(const trn_scope *scope, const char *name, trn_shape shape, bool changes);

/* trn_nn_batch_norm without weight and bias. */
trn_tensor *trn_nn_batch_norm_plain(const trn_scope *scope, const char *name, trn_tensor *x, float eps,
                                    float momentum);

/* ---- decoders.c: from grids to one map, images [B,C,h,w] throughout ---- */

enum { TRN_PYRAMID = 4 }; /* levels of a pyramid, finest first */

/* Names <name>.weight [out,C,kernel,kernel], <name>.bias [out] when bias; the size stays. kernel is odd. */
trn_tensor *trn_nn_conv(const trn_scope *scope, const char *name, trn_tensor *x, int64_t out, int kernel,
                        bool bias);
/* Names <name>.weight [C,out,2,2], <name>.bias [out]: a map of twice the size. */
trn_tensor *trn_nn_conv_up(const trn_scope *scope, const char *name, trn_tensor *x, int64_t out);
/* Bilinear; the map itself when it has the size already. */
trn_tensor *trn_nn_resize(const trn_scope *scope, trn_tensor *x, int64_t height, int64_t width,
                          bool align_corners);
/* levels of one size -> levels of 4, 2, 1 and 1/2 times that; they may be one tensor. Source: terratorch,
 * LearnedInterpolateToPyramidal. */
bool trn_nn_pyramid_neck(const trn_scope *scope, trn_tensor *const levels[TRN_PYRAMID],
                         trn_tensor *out[TRN_PYRAMID]);
/* -> [B,channels,h,w] of the size of levels[0]. Source: Xiao et al. 2018; terratorch, UperNetDecoder. */
trn_tensor *trn_nn_upernet(const trn_scope *scope, trn_tensor *const levels[TRN_PYRAMID], int64_t channels);
/* -> [B,channels,2^stages h,2^stages w]. Source: terratorch, FCNDecoder. */
trn_tensor *trn_nn_fcn(const trn_scope *scope, trn_tensor *x, int64_t channels, int stages);

#endif
