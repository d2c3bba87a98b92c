/* torch: what both containers of PyTorch mean by the values of their pickles. Private to weights. */
#ifndef TRN_WEIGHTS_TORCH_H
#define TRN_WEIGHTS_TORCH_H

#include "checkpoint.h"

/* A storage as a pickle names it: ('storage', class, key, device, elements[, view]). */
typedef struct trn_torch_storage {
    const char *key;
    trn_weight_type type;
    size_t item; /* bytes of an element */
    int64_t elements;
    int64_t view_offset, view_elements; /* a part of it; 0 and `elements` normally */
} trn_torch_storage;
trn_status trn_torch_storage_parse(const trn_pickle_value *persid, trn_torch_storage *out, trn_error *err);

/* Fills the data (or member) and bytes of place for a storage; user is the container's. */
typedef trn_status (*trn_torch_locate)(trn_weights *weights, void *user, const trn_torch_storage *storage,
                                       trn_weight_place *place, trn_error *err);

bool trn_torch_is_tensor(const trn_pickle_value *value);
/* Adds all tensors of the state dict below root, found by weights->options->wrapper. */
trn_status trn_torch_list(trn_weights *weights, const trn_pickle_value *root, trn_torch_locate locate,
                          void *user, trn_error *err);
/* The dictionary of tensors in a checkpoint's root; wrapper as in trn_weights_options. */
trn_status trn_torch_find_state(const trn_pickle_value *root, const char *wrapper,
                                const trn_pickle_value **out, trn_error *err);

#endif
