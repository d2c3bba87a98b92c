/* What the files of raster share: one file of a scene as a grid of blocks, and where its blocks come from. */
#ifndef TRN_RASTER_PRIVATE_H
#define TRN_RASTER_PRIVATE_H

#include "raster.h"

enum {
    RASTER_MAX_BANDS = 65535,
    RASTER_MAX_BLOCK_BYTES = 1 << 30,
    RASTER_MAX_METADATA = 16 << 20,
};
#define RASTER_MAX_SIDE INT64_C(0x7fffffff)
#define RASTER_MAX_IMAGE_PIXELS (INT64_C(1) << 28)

/* Bytes of a file held by the caller (tests and fuzzing), read in place of a path. */
typedef struct raster_memory {
    const uint8_t *data;
    size_t size;
    size_t position;
} raster_memory;

/* What a file says of one band. */
typedef struct source_band {
    const char *description; /* NULL when the file has none */
    bool implied;            /* the description is the file format's, such as a PNG's red, green and blue */
    double scale, offset;
} source_band;

/* One file of a scene. A TIFF is a grid of strips or tiles; an image is one block, decoded when opened. */
typedef struct raster_source {
    const char *path, *name; /* name: without folder */
    int64_t width, height;
    int samples; /* bands */
    trn_sample_type type;
    int sample_bytes;
    bool separate; /* each band has blocks of its own */
    int64_t block_width, block_height, blocks_across, blocks_down;
    size_t block_bytes;
    bool has_nodata;
    double nodata;
    source_band *bands; /* [samples] */
    trn_georef georef;
    const char *date_time; /* of the TIFF tag, or NULL */

    trn_tiff tiff;              /* handle is NULL for images */
    bool packed;                /* 8 samples of a bit to a byte; unpacked to bytes as blocks are decoded */
    int alpha_sample;           /* of a TIFF, or -1 */
    bool alpha_hides;           /* that sample is no band: where it is 0 there is no data */
    struct raster_source *mask; /* a TIFF's mask directory, 0 = no data; or NULL */
    bool tiled;
    bool index_checked; /* every block has an entry: those without bytes are empty on purpose */
    uint16_t compression;
    raster_memory memory;
    uint64_t file_size;

    uint8_t *image; /* whole decoded image, samples interleaved; malloc'd */
    uint8_t *alpha; /* [height, width], 0 = no data, or NULL; malloc'd */
} raster_source;

/* tiff_open.c: `memory` is read when not NULL, else the file. */
trn_status tiff_open_source(trn_tiff *tiff, const char *path, const char *mode, raster_memory *memory,
                            trn_error *err);

/* tiff_source.c: pointers of the source live in the arena. */
trn_status tiff_source_open(raster_source *source, trn_arena *arena, bool from_memory, trn_error *err);
void tiff_source_close(raster_source *source); /* not open is fine */
/* Decodes block `index` of band plane `plane` (0 unless separate) into out [block_bytes]. */
trn_status tiff_source_block(raster_source *source, int plane, int64_t index, uint8_t *out, trn_error *err);

/* image_source.c: file bytes to source->image. */
bool image_is_jpeg(const uint8_t *data, size_t size);
bool image_is_png(const uint8_t *data, size_t size);
trn_status image_source_open_jpeg(raster_source *source, const uint8_t *data, size_t size, trn_error *err);
trn_status image_source_open_png(raster_source *source, const uint8_t *data, size_t size, trn_error *err);

/* georef.c: reads the geo tags of an open TIFF. */
trn_status georef_read(raster_source *source, trn_arena *arena, trn_error *err);
/* Value of a key that is stored in the directory itself; -1 when absent. */
int georef_key(const trn_georef *georef, int wanted);
/* Value of a key that is a floating point number. */
double georef_number(const trn_georef *georef, int wanted, double otherwise);

/* gdal_metadata.c: fills the bands' descriptions, scales and offsets from GDAL's XML; what is not understood
 * is passed over. */
trn_status gdal_metadata_read(raster_source *source, trn_arena *arena, const char *xml, trn_error *err);

/* block_cache.c: decoded blocks of a scene, the least recently used leave first. */
typedef struct block_cache block_cache;
block_cache *block_cache_create(size_t max_bytes);
void block_cache_destroy(block_cache *cache); /* NULL is fine */
/* The block's bytes, decoded now if need be; they stay until the next call. NULL with err set. */
const uint8_t *block_cache_get(block_cache *cache, raster_source *source, int plane, int64_t index,
                               trn_error *err);
uint64_t block_cache_decoded(const block_cache *cache); /* how many blocks were decoded so far */

/* pixels.c: `count` samples of one type, `stride` samples apart, as physical float32 values. A pixel that
 * holds no data or no finite number gives 0 and clears valid. */
typedef struct pixel_rule {
    trn_sample_type type;
    int sample_bytes;
    bool has_nodata;
    double nodata, scale, offset;
} pixel_rule;
void pixels_convert(const pixel_rule *rule, const uint8_t *from, size_t stride, int64_t count, float *out,
                    uint8_t *valid);
int sample_type_bytes(trn_sample_type type);
/* Writes `count` samples of `value`. */
void pixels_fill(trn_sample_type type, double value, size_t count, uint8_t *out);

/* scene.c: one file from memory as a scene; data must stay until the scene is closed. */
trn_status scene_open_memory(const char *name, const uint8_t *data, size_t size,
                             const trn_scene_options *options, trn_scene **out, trn_error *err);
uint64_t scene_blocks_decoded(const trn_scene *scene);

#endif
