/* The operator table. */
#include "op.h"

extern const trn_op trn_op_pointwise;

const trn_op *const trn_op_table[] = {
    &trn_op_pointwise,
    NULL,
};
