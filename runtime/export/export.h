/* export: embeddings out. GeoTIFF, .npy with a sidecar, PNG preview. A writer gets rows of the grid in order,
 * keeps only what its format needs in memory, and its file appears under the final name when it is complete.
 */
#ifndef TRN_EXPORT_H
#define TRN_EXPORT_H

#include "base.h"
#include "raster.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trn_export_grid {
    int64_t width, height; /* cells; height 1 and width N for one vector per image */
    int channels;
    trn_georef georef;        /* of this grid: the transform already scaled to cells */
    const char *const *names; /* channel descriptions, or NULL */
    const char *description;  /* what the values are: encoder names, fusion */
} trn_export_grid;

typedef enum trn_export_type { TRN_EXPORT_F32, TRN_EXPORT_F16 } trn_export_type;

typedef struct trn_export_options {
    trn_export_type type;
    /* GeoTIFF: "none", "lzw", "deflate", "zstd" (error when libtiff lacks it); NULL: deflate */
    const char *compression;
    /* GeoTIFF tile side, multiple of 16. 0: 256, less for a small grid, and lower tiles where a row of them
     * would need more than 256 MiB; a side given is kept. */
    int tile;
    const char *sidecar; /* .npy: JSON text put beside the array ("a.npy": "a.json"), or NULL */
} trn_export_options;

/* A finished row block is `values [rows, width, channels]` in float32, rows in order; NAN marks nodata
 * (written as NAN, which is the declared nodata value). A GeoTIFF holds one plane per channel and keeps one
 * row of tiles in memory. */
typedef struct trn_writer trn_writer;
/* By extension of path: .tif/.tiff GeoTIFF (BigTIFF when it needs to be); .npy array [height, width,
 * channels], or [N, channels] when height is 1 and the grid has no georeference; .png preview. Errors before
 * any work: an unwritable folder, an unknown extension, float16 preview. */
trn_status trn_writer_open(const char *path, const trn_export_grid *grid, const trn_export_options *options,
                           trn_writer **out, trn_error *err);
trn_status trn_writer_rows(trn_writer *writer, int64_t first_row, int64_t rows, const float *values,
                           trn_error *err);
/* Commits; frees the writer also on failure. */
trn_status trn_writer_finish(trn_writer *writer, trn_error *err);
void trn_writer_abandon(trn_writer *writer); /* removes the partial file; NULL is fine */

/* The preview: the first three principal components of the vectors as red, green and blue, each stretched
 * between its 2nd and 98th percentile; nodata is transparent. At most 2048 cells a side are shown (every
 * n-th), the axes come from an even sample of at most 8192 of them, and the shown vectors wait in a nameless
 * temporary file in the folder of the output. Signs are fixed so that the same data give the same picture. */

/* georef of a grid whose cells are `cell` pixels wide: origin kept, pixel size times cell. */
trn_georef trn_georef_coarsen(const trn_georef *georef, double cell);

/* ---- pictures ---- */

/* rgba [height, width, 4] as a PNG, at most 65536 pixels a side. */
trn_status trn_picture_write(const char *path, int64_t width, int64_t height, const uint8_t *rgba,
                             trn_error *err);

/* ---- .npy ---- */

/* Reads a float32, float64 or integer .npy (C order) as float32. data is malloc'd. */
trn_status trn_npy_read(const char *path, float **data, int64_t *shape, int max_dims, int *ndim,
                        trn_error *err);
trn_status trn_npy_write(const char *path, const float *data, const int64_t *shape, int ndim, trn_error *err);

#ifdef __cplusplus
}
#endif
#endif
