/* raster: scenes in, by windows. GeoTIFF/BigTIFF (libtiff), JPEG and PNG; georeference kept as it came;
 * tiling with overlap and weighted stitching. Only the windows in work are in memory. */
#ifndef TRN_RASTER_H
#define TRN_RASTER_H

#include "base.h"
#include "bands.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- georeference ---- */

/* Geo tags as stored in the file, with the affine transform they mean: x = gt[0] + col*gt[1] + row*gt[2],
 * y = gt[3] + col*gt[4] + row*gt[5] for the outer corner of the pixel (GDAL order). All pointers belong to
 * the scene (or arena) that made it. The CRS keys are copied verbatim to outputs. */
typedef struct trn_georef {
    bool has_transform, has_crs;
    double transform[6];
    const uint16_t *keys; /* GeoKeyDirectoryTag */
    uint16_t key_count;   /* number of uint16 in keys */
    const double *double_params;
    uint16_t double_count;
    const char *ascii_params;
    int epsg; /* projected or geographic code when given, else 0 */
} trn_georef;

/* Same place and CRS, to a hundredth of a pixel over the whole scene. Says what differs. */
bool trn_georef_agrees(const trn_georef *a, const trn_georef *b, int64_t width, int64_t height,
                       const char **difference);

/* Finds latitudes and longitudes (degrees, WGS 84) of places in a scene, through PROJ. The CRS is the EPSG
 * code; or well-known text among the ASCII parameters; or, for files that spell their projection out, what
 * the geo keys say (Transverse Mercator and UTM, Lambert conformal and azimuthal, Albers, polar
 * stereographic, sinusoidal). Thread-safety: one thread at a time per locator. */
typedef struct trn_locator trn_locator;
/* TRN_ERR_ARGUMENT: the scene has no georeference; TRN_ERR_UNSUPPORTED: its CRS is not known here;
 * TRN_ERR_IO: PROJ's database is missing. */
trn_status trn_locator_create(const trn_georef *georef, trn_locator **out, trn_error *err);
/* Pixel coordinates: (0, 0) is the outer corner of the first pixel, (0.5, 0.5) its centre. */
trn_status trn_locator_find(trn_locator *locator, double x_pixel, double y_pixel, double *latitude,
                            double *longitude, trn_error *err);
void trn_locator_destroy(trn_locator *locator); /* NULL is fine */
/* The same for one place. */
trn_status trn_georef_locate(const trn_georef *georef, double x_pixel, double y_pixel, double *latitude,
                             double *longitude, trn_error *err);

/* ---- scenes ---- */

typedef enum trn_sample_type {
    TRN_SAMPLE_U8,
    TRN_SAMPLE_U16,
    TRN_SAMPLE_U32,
    TRN_SAMPLE_I8,
    TRN_SAMPLE_I16,
    TRN_SAMPLE_I32,
    TRN_SAMPLE_F32,
    TRN_SAMPLE_F64,
    TRN_SAMPLE_F16,
} trn_sample_type;

typedef struct trn_scene_band {
    const char *name; /* see trn_scene_open */
    const char *file;
    const char *description; /* what the file itself calls it, or NULL */
    trn_sample_type type;
    double scale, offset; /* GDAL_METADATA scale/offset of the band; 1 and 0 when absent */
    bool has_nodata;
    double nodata;
} trn_scene_band;

typedef struct trn_scene_info {
    int64_t width, height;
    size_t band_count;
    const trn_scene_band *bands;
    trn_georef georef;
    const trn_sensor *sensor; /* NULL when not given */
    const char *name;         /* file name of the first file without extension */
    const char *date_time;    /* TIFF tag DateTime of the first file, "2018:06:02 16:58:49", or NULL */
} trn_scene_info;

typedef struct trn_scene_options {
    const trn_sensor *sensor; /* may be NULL */
    const char *const
        *band_names;        /* names for the bands in file order (all files together); NULL: from the file */
    size_t band_name_count; /* must equal the number of bands when not 0 */
    bool has_nodata;        /* overrides what the file says */
    double nodata;
    size_t cache_bytes; /* decoded blocks that are kept; 0: 256 MiB */
} trn_scene_options;

/* Thread-safety: one thread at a time per scene; open it twice to read from two. */
typedef struct trn_scene trn_scene;
/* Opens one or more files of the same size as one scene: each file's bands follow in order. Files are
 * GeoTIFF, TIFF, JPEG or PNG, recognised by content. Different sizes, transforms or CRS are an error that
 * names both files. JPEG and PNG are decoded whole (bounded to 2^28 pixels; an alpha channel is no band:
 * where it is 0 there is no data); TIFF is read by strips and tiles as windows need them. A mask that a TIFF
 * keeps in a directory of its own or in a file beside it ("a.tif.msk") is obeyed. A TIFF's alpha sample is a
 * band (GDAL calls the fourth of four byte bands alpha, whatever it holds) unless the given names or the
 * sensor fit only without it: then it hides pixels.
 *
 * A band's name comes from the first of these that gives one:
 *  1. options->band_names;
 *  2. with a sensor: the files' own band descriptions, or for files of one band the end of the file's name
 *     ("..._B04_10m.tif", "..._SR_B4.TIF"), when every band is so found in the sensor, each once;
 *  3. with a sensor: the sensor's bands in order, when their count agrees (trn_sensor_match_count; for JPEG
 *     and PNG this comes before 2);
 *  4. the files' band descriptions when all are there and differ; those of colour JPEGs and PNGs are red,
 *     green, blue;
 *  5. numbers from "1". */
trn_status trn_scene_open(const char *const *paths, size_t count, const trn_scene_options *options,
                          trn_scene **out, trn_error *err);
void trn_scene_close(trn_scene *scene); /* NULL is fine */
/* Splits files into the dates of a series: files [count] gets how many files each date has, in order, *dates
 * how many dates there are. A file begins the next date when one of its bands is already among those of the
 * current one: by sensor, description or file name ("..._B04.tif"). Without a sensor, files of several bands
 * that nothing names repeat one another when their numbers of bands are equal. When options->band_names is
 * given, a date is full when it has as many bands as there are names. Every file is opened once. */
trn_status trn_scene_split_dates(const char *const *paths, size_t count, const trn_scene_options *options,
                                 size_t *files, size_t *dates, trn_error *err);
const trn_scene_info *trn_scene_get_info(const trn_scene *scene);
/* Index of a band by own name, alias or common name; -1 with err listing what the scene has. */
int trn_scene_find_band(const trn_scene *scene, const char *name, trn_error *err);

/* Reads the window [x, x+w) x [y, y+h) of the listed bands as float32, planar: out [count, h, w]. Stored
 * values times the band's scale plus its offset. The window may reach outside: pixels there are reflected
 * (the edge pixel not repeated; repeatedly when the scene is smaller than the reach). valid [h, w] gets 1
 * where every listed band has data, 0 where one is nodata or not finite (out is 0 there); may be NULL. */
trn_status trn_scene_read(trn_scene *scene, const int *bands, size_t count, int64_t x, int64_t y, int64_t w,
                          int64_t h, float *out, uint8_t *valid, trn_error *err);

/* Images below a folder that trn_scene_open can read (.tif .tiff .jpg .jpeg .png), sorted by relative path.
 */
trn_status trn_scene_list(const char *folder, char ***paths, size_t *count,
                          trn_error *err); /* trn_names_free */

/* ---- TIFF files, for the room that writes them ---- */

struct tiff; /* libtiff's */
/* An open TIFF with the geo tags known and libtiff's messages kept here. Does not move while open. */
typedef struct trn_tiff {
    struct tiff *handle;
    int system_error;  /* errno when the first error was reported */
    char message[512]; /* first error since it was opened; "" when none */
    char name[256];    /* of the file, for messages */
} trn_tiff;
/* mode as for TIFFOpen. On failure nothing is open. */
trn_status trn_tiff_open(trn_tiff *tiff, const char *path, const char *mode, trn_error *err);
void trn_tiff_close(trn_tiff *tiff); /* not open is fine */
/* Fills err with "action 'name': libtiff's message"; TRN_ERR_IO when the system refused, else `code`. */
trn_status trn_tiff_fail(const trn_tiff *tiff, trn_error *err, trn_status code, const char *action);

enum {
    TRN_TIFF_PIXEL_SCALE = 33550,
    TRN_TIFF_TIEPOINTS = 33922,
    TRN_TIFF_TRANSFORMATION = 34264,
    TRN_TIFF_GEO_KEYS = 34735,
    TRN_TIFF_GEO_DOUBLES = 34736,
    TRN_TIFF_GEO_ASCII = 34737,
    TRN_TIFF_GDAL_METADATA = 42112,
    TRN_TIFF_GDAL_NODATA = 42113,
};
/* Whether the keys say that coordinates are those of pixel centres (GTRasterType is PixelIsPoint). */
bool trn_georef_is_point(const trn_georef *georef);

/* ---- tiling ---- */

/* Windows of `tile` pixels that cover a scene. Neighbours share `overlap` pixels; windows at the right and
 * bottom edge reach outside (and are reflected there). `cell` is the stride of the feature grid in pixels:
 * tile and tile - overlap are multiples of it. */
typedef struct trn_tiling {
    int64_t width, height; /* scene */
    int tile, overlap, cell;
    int64_t columns, rows;           /* windows */
    int64_t grid_width, grid_height; /* cells that cover the scene: ceil(width / cell) */
} trn_tiling;
trn_status trn_tiling_plan(int64_t width, int64_t height, int tile, int overlap, int cell, trn_tiling *out,
                           trn_error *err);
void trn_tiling_window(const trn_tiling *tiling, int64_t index, int64_t *x, int64_t *y); /* row-major index */

/* Stitches dense features of windows into rows of the whole grid, with weights that fall to the window's
 * edge, so that no seam shows: a raised cosine over the overlap, never zero, normalised. Holds only the rows
 * in work. Windows come in row-major order, none left out. */
typedef struct trn_stitcher trn_stitcher;
/* Called for each finished block of rows: values [rows, grid_width, channels]; cells no valid pixel fell on
 * hold NAN. */
typedef trn_status (*trn_stitch_rows)(void *user, int64_t first_row, int64_t rows, const float *values,
                                      trn_error *err);
trn_status trn_stitcher_create(const trn_tiling *tiling, int channels, trn_stitch_rows emit, void *user,
                               trn_stitcher **out, trn_error *err);
/* features [tile/cell, tile/cell, channels] of window `index`, NULL when no cell of it is valid; cell_valid
 * [tile/cell, tile/cell]: 0 = leave out; NULL: all are valid. */
trn_status trn_stitcher_add(trn_stitcher *stitcher, int64_t index, const float *features,
                            const uint8_t *cell_valid, trn_error *err);
/* Emits the last rows; an error when windows are missing. */
trn_status trn_stitcher_finish(trn_stitcher *stitcher, trn_error *err);
void trn_stitcher_destroy(trn_stitcher *stitcher); /* NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
