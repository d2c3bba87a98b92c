/* One HDF5 sample: names, planes of numbers, one text. libhdf5 is used by one thread at a time. */
#ifndef TRN_DATA_HDF5_FILE_H
#define TRN_DATA_HDF5_FILE_H

#include "base.h"

typedef struct hdf5_file {
    int64_t id;
    char **names; /* of what is in the root, sorted; trn_names_free */
    size_t count;
    void *report, *report_data; /* libhdf5's own error report, silent while the file is open */
} hdf5_file;

typedef enum hdf5_numbers { HDF5_FLOATS, HDF5_INTEGERS } hdf5_numbers; /* float, int64_t */

/* Opens a file and keeps libhdf5 to this thread until hdf5_close; on failure nothing is kept. */
trn_status hdf5_open(hdf5_file *file, const char *path, trn_error *err);
trn_status hdf5_open_memory(hdf5_file *file, const void *data, size_t size, trn_error *err);
void hdf5_close(hdf5_file *file);
/* Rank of dataset `name` and, for rank 2, its size; checked to be numbers that can be read. */
trn_status hdf5_measure(const hdf5_file *file, const char *name, hdf5_numbers numbers, int *rank, int *height,
                        int *width, trn_error *err);
/* out [height, width] of what hdf5_measure said. */
trn_status hdf5_read(const hdf5_file *file, const char *name, hdf5_numbers numbers, int height, int width,
                     void *out, trn_error *err);
/* Attribute of the root: malloc'd text; NULL with err set. */
char *hdf5_text(const hdf5_file *file, const char *name, size_t max_bytes, trn_error *err);

#endif
