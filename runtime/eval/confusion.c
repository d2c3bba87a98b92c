/* Confusion matrices and the scores that come from them. */
#include "eval.h"

#include <stdlib.h>
#include <string.h>

void trn_confusion_free(trn_confusion *confusion)
{
    free(confusion->counts);
    *confusion = (trn_confusion){0};
}

void trn_confusion_clear(trn_confusion *confusion)
{
    memset(confusion->counts, 0,
           (size_t)confusion->classes * (size_t)confusion->classes * sizeof *confusion->counts);
}
