/* What the writers share: each format is one row of a table of functions. */
#ifndef TRN_EXPORT_PRIVATE_H
#define TRN_EXPORT_PRIVATE_H

#include "export.h"

struct trn_writer {
    const struct export_format *format;
    char *path;
    trn_export_grid grid; /* pointers are the caller's until open returns, then the format's own copies */
    trn_export_type type;
    int64_t next_row;
    trn_output *output;
    void *state; /* the format's */
};

typedef struct export_format {
    const char *extension;
    trn_status (*open)(trn_writer *writer, const trn_export_options *options, trn_error *err);
    trn_status (*rows)(trn_writer *writer, int64_t first_row, int64_t rows, const float *values,
                       trn_error *err);
    /* Completes the file at trn_output_path(); the writer commits it. */
    trn_status (*finish)(trn_writer *writer, trn_error *err);
    /* After the commit; may be NULL. */
    trn_status (*committed)(trn_writer *writer, trn_error *err);
    void (*close)(trn_writer *writer); /* frees state, which may be NULL or half made */
} export_format;

extern const export_format geotiff_format, npy_format, preview_format;

/* float32 to the bytes of the type; out [count * bytes]. */
void export_convert(trn_export_type type, const float *values, size_t count, void *out);
size_t export_type_bytes(trn_export_type type);

/* pca.c: mean [channels] and the first `components` principal axes [components, channels] (unit length, zero
 * when the data has fewer) of rows [count, channels]; the rows are centred in place. The entry of largest
 * magnitude of each axis is positive. Same data, same result. */
trn_status pca_axes(float *rows, int64_t count, int channels, int components, double *mean, double *axes,
                    trn_error *err);

/* picture.c: rgba [height, width, 4] into the file `temporary`; errors name `path`. */
trn_status export_write_png(const char *temporary, const char *path, int64_t width, int64_t height,
                            const uint8_t *rgba, trn_error *err);

#endif
