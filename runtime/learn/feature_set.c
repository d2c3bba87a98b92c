/* Features of samples in memory. */
#include "learn.h"

#include <stdlib.h>

void trn_feature_set_free(trn_feature_set *set)
{
    free(set->values);
    free(set->labels);
    *set = (trn_feature_set){0};
}
