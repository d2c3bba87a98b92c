/* What the fuzz programs of weights share: opening a checkpoint from memory and reading all of it. */
#ifndef FUZZ_WEIGHTS_H
#define FUZZ_WEIGHTS_H

#include <stdlib.h>
#include <string.h>

#include "weights/checkpoint.h"

/* A promise that was broken: stop here, so that the input is kept. */
static inline void fuzz_require(bool promise)
{
    if (!promise) abort();
}

static inline void fuzz_read(trn_weights *weights, const trn_weight *info)
{
    int64_t count;
    fuzz_require(trn_weight_shape_count(info->shape, info->ndim, &count));
    if (count > 1 << 16) return;
    float *values = malloc((size_t)(count ? count : 1) * sizeof *values);
    fuzz_require(values != NULL);
    trn_error err = {0};
    trn_status status = trn_weights_read(weights, info->name, info->shape, info->ndim, values, &err);
    /* what was listed can be read, unless its type cannot; memory has no checksums */
    fuzz_require(status == TRN_OK || (status == TRN_ERR_UNSUPPORTED && info->type == TRN_WEIGHT_OTHER));
    free(values);
}

static inline void fuzz_open_and_read(const uint8_t *data, size_t size)
{
    trn_weights *weights;
    trn_error err = {0};
    if (size >= 2 && !memcmp(data, "PK", 2)) return; /* libzip's part is not the subject */
    trn_status status = trn_weights_open_memory("fuzz", data, size, NULL, &weights, &err);
    fuzz_require((status == TRN_OK) == (weights != NULL));
    fuzz_require(status == TRN_OK || (err.code == status && err.message[0]));
    for (size_t i = 0; status == TRN_OK && i < trn_weights_count(weights); i++) {
        const trn_weight *info = trn_weights_at(weights, i);
        fuzz_require(trn_weights_find(weights, info->name) == info);
        fuzz_read(weights, info);
    }
    trn_weights_close(weights);
}

#endif
