/* Steps whose kernels need a shader pack: whether it has them, and taking them back when it has not. */
#include "graph_internal.h"

size_t trn_lower_mark(const trn_lower *lower)
{
    return lower->step_count;
}

bool trn_lower_knows_since(const trn_lower *lower, size_t mark)
{
    for (size_t s = mark; s < lower->step_count; s++) {
        const trn_kernel_desc desc = trn_lowered_kernel(&lower->steps[s]);
        if (!trn_gpu_kernel_known(lower->gpu, &desc)) return false;
    }
    return true;
}

void trn_lower_back_to(trn_lower *lower, size_t mark)
{
    lower->step_count = mark;
}
