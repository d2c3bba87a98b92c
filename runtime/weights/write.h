/* write: what the writers of both containers share. Private to weights. */
#ifndef TRN_WEIGHTS_WRITE_H
#define TRN_WEIGHTS_WRITE_H

#include "checkpoint.h"

/* One checkpoint on its way to a file. */
typedef struct trn_weights_writer {
    const trn_weight_data *tensors;
    size_t count;
    const trn_write_options *options;
    FILE *file;
    float *buffer; /* of values that a callback makes */
    size_t buffer_capacity;
} trn_weights_writer;

/* Elements and bytes of a tensor that check has found to be fine. */
int64_t trn_write_elements(const trn_weight_data *tensor);
size_t trn_write_bytes(const trn_weight_data *tensor);
/* The values of tensor i: the caller's, or the callback's until the next call. Reports progress. */
trn_status trn_write_values(trn_weights_writer *writer, size_t i, const float **values, trn_error *err);
/* Checks the tensors, then opens the file, has `write` fill it, and puts it in place. */
trn_status trn_write_file_of(const char *path, const trn_weight_data *tensors, size_t count,
                             const trn_write_options *options,
                             trn_status (*write)(trn_weights_writer *writer, trn_error *err), trn_error *err);

#endif
