/* What is known of the tasks of GEO-Bench beside their files. */
#ifndef TRN_DATA_GEOBENCH_H
#define TRN_DATA_GEOBENCH_H

#include "data_private.h"

typedef struct geobench_task {
    const char *names[6]; /* of the folder; NULL-terminated if fewer */
    trn_task task;
    size_t class_count;
    const char *const *class_names;      /* or NULL */
    const char *const (*wrong_bands)[2]; /* {stored, what it really holds}, or NULL */
    size_t wrong_count;
} geobench_task;

/* NULL when the name is none of GEO-Bench's. */
const geobench_task *geobench_find_task(const char *name);
/* Fills name, common name and wavelength of bands whose stored names are known, and the dataset's sensor. */
void geobench_name_bands(trn_dataset *dataset, const geobench_task *task, bool as_stored);

#endif
