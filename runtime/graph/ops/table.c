/* The operator table. */
#include "op.h"

extern const trn_op trn_op_pointwise, trn_op_cast, trn_op_matmul, trn_op_attention, trn_op_attention_stats,
    trn_op_attention_grad;
extern const trn_op trn_op_permute, trn_op_slice, trn_op_expand, trn_op_concat, trn_op_pad, trn_op_gather,
    trn_op_gather_grad, trn_op_axis_map, trn_op_unfold, trn_op_fold, trn_op_pool_max, trn_op_pool_max_grad,
    trn_op_reduce, trn_op_reduce_max_grad, trn_op_softmax, trn_op_log_softmax, trn_op_layer_norm,
    trn_op_layer_norm_grad, trn_op_one_hot, trn_op_random_uniform;

const trn_op *const trn_op_table[] = {
    &trn_op_pointwise,
    &trn_op_cast,
    &trn_op_matmul,
    &trn_op_attention,
    &trn_op_attention_stats,
    &trn_op_attention_grad,
    &trn_op_permute,
    &trn_op_slice,
    &trn_op_expand,
    &trn_op_concat,
    &trn_op_pad,
    &trn_op_gather,
    &trn_op_gather_grad,
    &trn_op_axis_map,
    &trn_op_unfold,
    &trn_op_fold,
    &trn_op_pool_max,
    &trn_op_pool_max_grad,
    &trn_op_reduce,
    &trn_op_reduce_max_grad,
    &trn_op_softmax,
    &trn_op_log_softmax,
    &trn_op_layer_norm,
    &trn_op_layer_norm_grad,
    &trn_op_one_hot,
    &trn_op_random_uniform,
    NULL,
};
