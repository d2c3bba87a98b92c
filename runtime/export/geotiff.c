/* GeoTIFF out: tiled, one plane per channel, so that a row of tiles is all that waits in memory. */
#include "export_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tiffio.h>

enum { DEFAULT_TILE = 256, LEAST_TILE = 16, MAX_TILE = 4096, MAX_CHANNELS = 65535 };
#define COMFORTABLE_BYTES ((uint64_t)256 << 20) /* rows that wait for a row of tiles to be full */
#define CLASSIC_LIMIT UINT64_C(4000000000)      /* above it BigTIFF; classic TIFF ends at 2^32 */

typedef struct geotiff {
    trn_tiff tiff;
    int64_t tile_width, tile_height;
    int64_t band_first, band_rows; /* rows that wait */
    float *band;                   /* [tile_height, width, channels] */
    float *tile;                   /* [tile_height, tile_width] of one channel */
    void *stored;                  /* the tile in the file's type */
} geotiff;

static trn_status fail_write(const trn_writer *writer, const geotiff *file, trn_error *err)
{
    trn_tiff_fail(&file->tiff, err, TRN_ERR_IO, "writing");
    return trn_wrap(err, "cannot write '%s'", writer->path);
}

/* ---- tags ---- */

static trn_status find_compression(const char *name, uint16_t *compression, trn_error *err)
{
    static const struct {
        const char *name;
        uint16_t code;
    } known[] = {{"none", COMPRESSION_NONE},
                 {"lzw", COMPRESSION_LZW},
                 {"deflate", COMPRESSION_ADOBE_DEFLATE},
                 {"zstd", COMPRESSION_ZSTD}};
    for (size_t i = 0; i < TRN_COUNT(known); i++) {
        if (strcmp(known[i].name, name)) continue;
        *compression = known[i].code;
        if (TIFFIsCODECConfigured(known[i].code)) return TRN_OK;
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "this libtiff was built without %s compression: use deflate", name);
    }
    return trn_fail(err, TRN_ERR_ARGUMENT, "unknown TIFF compression '%s': use none, lzw, deflate or zstd",
                    name);
}

/* Text inside XML; control characters, which XML cannot hold, become blanks. */
static void add_escaped(trn_text *xml, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '&':
            trn_text_add(xml, "&amp;");
            break;
        case '<':
            trn_text_add(xml, "&lt;");
            break;
        case '>':
            trn_text_add(xml, "&gt;");
            break;
        case '"':
            trn_text_add(xml, "&quot;");
            break;
        default:
            trn_text_add_n(xml, (unsigned char)*text < ' ' ? " " : text, 1);
        }
    }
}

static bool set_descriptions(TIFF *tiff, const trn_export_grid *grid)
{
    trn_text xml = {0};
    trn_text_add(&xml, "<GDALMetadata>\n");
    for (int i = 0; grid->names && i < grid->channels; i++) {
        if (!grid->names[i]) continue;
        trn_text_printf(&xml, "  <Item name=\"DESCRIPTION\" sample=\"%d\" role=\"description\">", i);
        add_escaped(&xml, grid->names[i]);
        trn_text_add(&xml, "</Item>\n");
    }
    trn_text_add(&xml, "</GDALMetadata>\n");
    bool good = !xml.failed;
    if (good && grid->names) good = TIFFSetField(tiff, TRN_TIFF_GDAL_METADATA, trn_text_get(&xml));
    if (good && grid->description) good = TIFFSetField(tiff, TIFFTAG_IMAGEDESCRIPTION, grid->description);
    trn_text_free(&xml);
    return good;
}

static bool set_georef(TIFF *tiff, const trn_georef *georef)
{
    if (georef->has_transform) {
        const double *gt = georef->transform;
        /* coordinates of a PixelIsPoint file are those of the first pixel's centre */
        double half = trn_georef_is_point(georef) ? 0.5 : 0;
        double x = gt[0] + half * (gt[1] + gt[2]), y = gt[3] + half * (gt[4] + gt[5]);
        const double scale[3] = {gt[1], -gt[5], 0}, tie[6] = {0, 0, 0, x, y, 0};
        const double matrix[16] = {gt[1], gt[2], 0, x, gt[4], gt[5], 0, y, 0, 0, 0, 0, 0, 0, 0, 1};
        bool north_up = gt[2] == 0 && gt[4] == 0 && gt[1] > 0 && gt[5] < 0, good;
        if (north_up)
            good = TIFFSetField(tiff, TRN_TIFF_PIXEL_SCALE, 3, scale) &&
                   TIFFSetField(tiff, TRN_TIFF_TIEPOINTS, 6, tie);
        else
            good = TIFFSetField(tiff, TRN_TIFF_TRANSFORMATION, 16, matrix);
        if (!good) return false;
    }
    if (!georef->has_crs) return true;
    return TIFFSetField(tiff, TRN_TIFF_GEO_KEYS, (int)georef->key_count, georef->keys) &&
           (!georef->double_count ||
            TIFFSetField(tiff, TRN_TIFF_GEO_DOUBLES, (int)georef->double_count, georef->double_params)) &&
           (!georef->ascii_params || TIFFSetField(tiff, TRN_TIFF_GEO_ASCII, georef->ascii_params));
}

static bool set_extra_samples(TIFF *tiff, int channels)
{
    if (channels < 2) return true;
    uint16_t *kinds = calloc((size_t)channels, sizeof *kinds); /* 0: unspecified */
    bool good = kinds && TIFFSetField(tiff, TIFFTAG_EXTRASAMPLES, channels - 1, kinds);
    free(kinds);
    return good;
}

static bool set_tags(const trn_writer *writer, const geotiff *file, uint16_t compression)
{
    const trn_export_grid *grid = &writer->grid;
    TIFF *tiff = file->tiff.handle;
    return TIFFSetField(tiff, TIFFTAG_IMAGEWIDTH, (uint32_t)grid->width) &&
           TIFFSetField(tiff, TIFFTAG_IMAGELENGTH, (uint32_t)grid->height) &&
           TIFFSetField(tiff, TIFFTAG_SAMPLESPERPIXEL, grid->channels) &&
           TIFFSetField(tiff, TIFFTAG_BITSPERSAMPLE, 8 * (int)export_type_bytes(writer->type)) &&
           TIFFSetField(tiff, TIFFTAG_SAMPLEFORMAT, SAMPLEFORMAT_IEEEFP) &&
           TIFFSetField(tiff, TIFFTAG_PHOTOMETRIC, PHOTOMETRIC_MINISBLACK) &&
           set_extra_samples(tiff, grid->channels) &&
           TIFFSetField(tiff, TIFFTAG_PLANARCONFIG, PLANARCONFIG_SEPARATE) &&
           TIFFSetField(tiff, TIFFTAG_TILEWIDTH, (uint32_t)file->tile_width) &&
           TIFFSetField(tiff, TIFFTAG_TILELENGTH, (uint32_t)file->tile_height) &&
           TIFFSetField(tiff, TIFFTAG_COMPRESSION, compression) &&
           (compression == COMPRESSION_NONE ||
            TIFFSetField(tiff, TIFFTAG_PREDICTOR, PREDICTOR_FLOATINGPOINT)) &&
           TIFFSetField(tiff, TIFFTAG_SOFTWARE, "Terrane " TRN_VERSION) &&
           TIFFSetField(tiff, TRN_TIFF_GDAL_NODATA, "nan") && set_descriptions(tiff, grid) &&
           set_georef(tiff, &grid->georef);
}

/* ---- tiles ---- */

static int64_t round_up(int64_t value, int64_t step)
{
    return (value + step - 1) / step * step;
}

/* Side of a tile, less for a small grid; its height shrinks when the rows that wait would be too many bytes.
 */
static trn_status choose_tiles(const trn_writer *writer, geotiff *file, int wanted, trn_error *err)
{
    const trn_export_grid *grid = &writer->grid;
    if (wanted < 0 || wanted % LEAST_TILE || wanted > MAX_TILE)
        return trn_fail(err, TRN_ERR_ARGUMENT, "TIFF tile %d: it must be a multiple of %d up to %d", wanted,
                        LEAST_TILE, MAX_TILE);
    int64_t side = wanted ? wanted : DEFAULT_TILE;
    file->tile_width = wanted ? side : TRN_MIN(side, round_up(grid->width, LEAST_TILE));
    file->tile_height = wanted ? side : TRN_MIN(side, round_up(grid->height, LEAST_TILE));
    uint64_t row = (uint64_t)grid->width * (uint64_t)grid->channels * sizeof(float);
    while (!wanted && file->tile_height > LEAST_TILE && row * (uint64_t)file->tile_height > COMFORTABLE_BYTES)
        file->tile_height = round_up(file->tile_height / 2, LEAST_TILE);
    return TRN_OK;
}

static bool needs_bigtiff(const trn_writer *writer, const geotiff *file)
{
    const trn_export_grid *grid = &writer->grid;
    uint64_t tiles = (uint64_t)(round_up(grid->width, file->tile_width) / file->tile_width) *
                     (uint64_t)(round_up(grid->height, file->tile_height) / file->tile_height) *
                     (uint64_t)grid->channels;
    uint64_t bytes = (uint64_t)(file->tile_width * file->tile_height) * export_type_bytes(writer->type) + 64;
    return tiles > CLASSIC_LIMIT / bytes;
}

static trn_status make_buffers(const trn_writer *writer, geotiff *file, trn_error *err)
{
    size_t row = (size_t)writer->grid.width * (size_t)writer->grid.channels, bytes = 0;
    size_t tile = (size_t)(file->tile_width * file->tile_height);
    if (trn_mul_size(row, (size_t)file->tile_height * sizeof(float), &bytes)) file->band = malloc(bytes);
    file->tile = malloc(tile * sizeof *file->tile);
    file->stored = malloc(tile * sizeof(float));
    if (file->band && file->tile && file->stored) return TRN_OK;
    return trn_fail_memory(err, bytes, "rows of a GeoTIFF (a smaller tile needs less)");
}

static trn_status geotiff_open(trn_writer *writer, const trn_export_options *options, trn_error *err)
{
    uint16_t compression = COMPRESSION_NONE;
    const trn_export_grid *grid = &writer->grid;
    if (grid->channels > MAX_CHANNELS)
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "cannot write '%s': a TIFF holds %d channels at most, not %d; use .npy", writer->path,
                        MAX_CHANNELS, grid->channels);
    trn_status status =
        find_compression(options->compression ? options->compression : "deflate", &compression, err);
    if (status != TRN_OK) return trn_wrap(err, "cannot write '%s'", writer->path);
    geotiff *file = writer->state = calloc(1, sizeof *file);
    if (!file) return trn_fail_memory(err, sizeof *file, "a writer");
    if ((status = choose_tiles(writer, file, options->tile, err)) != TRN_OK) return status;
    if ((status = make_buffers(writer, file, err)) != TRN_OK) return status;
    status = trn_tiff_open(&file->tiff, trn_output_path(writer->output),
                           needs_bigtiff(writer, file) ? "w8" : "w", err);
    if (status != TRN_OK) return status;
    return set_tags(writer, file, compression) ? TRN_OK : fail_write(writer, file, err);
}

/* Channel c of the part of the waiting rows under tile column x; cells beyond the grid are NAN. */
static void cut_tile(const trn_writer *writer, const geotiff *file, int64_t left, size_t c)
{
    const trn_export_grid *grid = &writer->grid;
    size_t channels = (size_t)grid->channels;
    int64_t columns = TRN_MIN(file->tile_width, grid->width - left);
    for (int64_t y = 0; y < file->tile_height; y++) {
        float *to = file->tile + y * file->tile_width;
        int64_t inside = y < file->band_rows ? columns : 0;
        const float *from = file->band + (size_t)(y * grid->width + left) * channels + c;
        for (int64_t x = 0; x < inside; x++)
            to[x] = from[(size_t)x * channels];
        for (int64_t x = inside; x < file->tile_width; x++)
            to[x] = NAN;
    }
}

static trn_status write_band(trn_writer *writer, geotiff *file, trn_error *err)
{
    const trn_export_grid *grid = &writer->grid;
    TIFF *tiff = file->tiff.handle;
    size_t cells = (size_t)(file->tile_width * file->tile_height);
    tmsize_t bytes = (tmsize_t)(cells * export_type_bytes(writer->type));
    for (int c = 0; c < grid->channels; c++) {
        for (int64_t x = 0; x < grid->width; x += file->tile_width) {
            cut_tile(writer, file, x, (size_t)c);
            export_convert(writer->type, file->tile, cells, file->stored);
            uint32_t number = TIFFComputeTile(tiff, (uint32_t)x, (uint32_t)file->band_first, 0, (uint16_t)c);
            if (TIFFWriteEncodedTile(tiff, number, file->stored, bytes) != bytes || file->tiff.message[0])
                return fail_write(writer, file, err);
        }
    }
    file->band_first += file->band_rows;
    file->band_rows = 0;
    return TRN_OK;
}

static trn_status geotiff_rows(trn_writer *writer, int64_t first_row, int64_t rows, const float *values,
                               trn_error *err)
{
    (void)first_row;
    geotiff *file = writer->state;
    size_t row = (size_t)writer->grid.width * (size_t)writer->grid.channels;
    while (rows) {
        int64_t take = TRN_MIN(rows, file->tile_height - file->band_rows);
        memcpy(file->band + (size_t)file->band_rows * row, values, (size_t)take * row * sizeof *values);
        file->band_rows += take;
        values += (size_t)take * row;
        rows -= take;
        if (file->band_rows < file->tile_height) continue;
        trn_status status = write_band(writer, file, err);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}

static trn_status geotiff_finish(trn_writer *writer, trn_error *err)
{
    geotiff *file = writer->state;
    trn_status status = file->band_rows ? write_band(writer, file, err) : TRN_OK;
    if (status != TRN_OK) return status;
    bool good = TIFFFlush(file->tiff.handle);
    trn_tiff_close(&file->tiff);
    return good && !file->tiff.message[0] ? TRN_OK : fail_write(writer, file, err);
}

static void geotiff_close(trn_writer *writer)
{
    geotiff *file = writer->state;
    if (!file) return;
    trn_tiff_close(&file->tiff);
    free(file->band);
    free(file->tile);
    free(file->stored);
    free(file);
}

const export_format geotiff_format = {"tif", geotiff_open, geotiff_rows, geotiff_finish, NULL, geotiff_close};
