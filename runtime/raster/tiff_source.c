/* One TIFF file as a grid of strips or tiles. Everything the file claims is checked against what it can hold
 * before memory is asked for. */
#include "raster_private.h"

#include <ctype.h>
#include <math.h>
#include <string.h>
#include <tiffio.h>

static trn_status bad_file(const raster_source *source, trn_error *err, const char *what)
{
    return trn_fail(err, TRN_ERR_FORMAT, "'%s' is not a sound TIFF: %s", source->path, what);
}

static trn_status unsupported(const raster_source *source, trn_error *err, const char *what)
{
    return trn_fail(err, TRN_ERR_UNSUPPORTED,
                    "'%s': %s; convert it, for example with gdal_translate -co COMPRESS=DEFLATE",
                    source->path, what);
}

static trn_status read_sample_type(raster_source *source, trn_error *err)
{
    static const struct {
        uint16_t format, bits;
        trn_sample_type type;
    } known[] = {
        {SAMPLEFORMAT_UINT, 8, TRN_SAMPLE_U8},     {SAMPLEFORMAT_UINT, 16, TRN_SAMPLE_U16},
        {SAMPLEFORMAT_UINT, 32, TRN_SAMPLE_U32},   {SAMPLEFORMAT_INT, 8, TRN_SAMPLE_I8},
        {SAMPLEFORMAT_INT, 16, TRN_SAMPLE_I16},    {SAMPLEFORMAT_INT, 32, TRN_SAMPLE_I32},
        {SAMPLEFORMAT_IEEEFP, 16, TRN_SAMPLE_F16}, {SAMPLEFORMAT_IEEEFP, 32, TRN_SAMPLE_F32},
        {SAMPLEFORMAT_IEEEFP, 64, TRN_SAMPLE_F64},
    };
    uint16_t bits = 1, format = SAMPLEFORMAT_UINT;
    TIFFGetFieldDefaulted(source->tiff.handle, TIFFTAG_BITSPERSAMPLE, &bits);
    TIFFGetFieldDefaulted(source->tiff.handle, TIFFTAG_SAMPLEFORMAT, &format);
    if (format == SAMPLEFORMAT_VOID) format = SAMPLEFORMAT_UINT;
    for (size_t i = 0; i < TRN_COUNT(known); i++) {
        if (known[i].format != format || known[i].bits != bits) continue;
        source->type = known[i].type;
        source->sample_bytes = sample_type_bytes(source->type);
        return TRN_OK;
    }
    char what[96];
    snprintf(what, sizeof what, "samples of %u bits in sample format %u are not read", bits, format);
    return unsupported(source, err, what);
}

static trn_status check_compression(raster_source *source, trn_error *err)
{
    static const uint16_t readable[] = {
        COMPRESSION_NONE,    COMPRESSION_LZW,      COMPRESSION_JPEG, COMPRESSION_ADOBE_DEFLATE,
        COMPRESSION_DEFLATE, COMPRESSION_PACKBITS, COMPRESSION_LERC, COMPRESSION_LZMA,
        COMPRESSION_ZSTD,    COMPRESSION_WEBP,
    };
    uint16_t compression = COMPRESSION_NONE, photometric = PHOTOMETRIC_MINISBLACK;
    TIFF *tiff = source->tiff.handle;
    TIFFGetFieldDefaulted(tiff, TIFFTAG_COMPRESSION, &compression);
    TIFFGetField(tiff, TIFFTAG_PHOTOMETRIC, &photometric);
    source->compression = compression;
    bool found = false;
    for (size_t i = 0; i < TRN_COUNT(readable); i++)
        found |= readable[i] == compression;
    char what[96];
    snprintf(what, sizeof what, "TIFF compression %u is not read here", compression);
    if (!found || !TIFFIsCODECConfigured(compression)) return unsupported(source, err, what);
    if (photometric != PHOTOMETRIC_YCBCR) return TRN_OK;
    if (compression != COMPRESSION_JPEG || source->separate)
        return unsupported(source, err, "YCbCr colours without JPEG compression are not read");
    if (!TIFFSetField(tiff, TIFFTAG_JPEGCOLORMODE, JPEGCOLORMODE_RGB))
        return trn_tiff_fail(&source->tiff, err, TRN_ERR_FORMAT, "cannot read");
    return TRN_OK;
}

/* Bytes of a block's row of single bits. */
static size_t packed_row(const raster_source *source)
{
    return ((size_t)source->block_width + 7) / 8;
}

static trn_status read_block_shape(raster_source *source, trn_error *err)
{
    TIFF *tiff = source->tiff.handle;
    uint32_t w = (uint32_t)source->width, h = 0;
    source->tiled = TIFFIsTiled(tiff);
    if (source->tiled) {
        if (!TIFFGetField(tiff, TIFFTAG_TILEWIDTH, &w) || !TIFFGetField(tiff, TIFFTAG_TILELENGTH, &h))
            return bad_file(source, err, "tiles without a size");
    } else {
        TIFFGetFieldDefaulted(tiff, TIFFTAG_ROWSPERSTRIP, &h);
        if (h > source->height) h = (uint32_t)source->height;
    }
    if (!w || !h || w > RASTER_MAX_SIDE || h > RASTER_MAX_SIDE)
        return bad_file(source, err, "its strips or tiles have no size");
    source->block_width = w;
    source->block_height = h;
    source->blocks_across = (source->width + w - 1) / w;
    source->blocks_down = (source->height + h - 1) / h;
    size_t bytes, planes = source->separate ? (size_t)source->samples : 1,
                  samples = source->separate ? 1 : (size_t)source->samples;
    bool fits =
        trn_mul_size(w, h, &bytes) && trn_mul_size(bytes, samples * (size_t)source->sample_bytes, &bytes);
    if (!fits || bytes > RASTER_MAX_BLOCK_BYTES)
        return trn_fail(
            err, TRN_ERR_UNSUPPORTED,
            "'%s' is stored in blocks of %u x %u pixels with %zu samples each, above the limit of 1 GiB "
            "for a block; rewrite it tiled, for example with gdal_translate -co TILED=YES",
            source->path, w, h, samples);
    source->block_bytes = bytes;
    size_t count;
    if (!trn_mul_size((size_t)source->blocks_across * (size_t)source->blocks_down, planes, &count) ||
        count > UINT32_MAX)
        return bad_file(source, err, "it claims more blocks than a TIFF can have");
    uint64_t ours = source->packed ? (uint64_t)h * packed_row(source) : bytes;
    uint64_t theirs = source->tiled ? TIFFTileSize64(tiff) : TIFFVStripSize64(tiff, h);
    uint32_t their_count = source->tiled ? TIFFNumberOfTiles(tiff) : TIFFNumberOfStrips(tiff);
    if (theirs != ours || their_count != count)
        return bad_file(source, err, "its block sizes contradict each other");
    return TRN_OK;
}

static trn_status read_shape(raster_source *source, trn_error *err)
{
    TIFF *tiff = source->tiff.handle;
    uint32_t width = 0, height = 0;
    uint16_t samples = 1, planar = PLANARCONFIG_CONTIG;
    if (!TIFFGetField(tiff, TIFFTAG_IMAGEWIDTH, &width) ||
        !TIFFGetField(tiff, TIFFTAG_IMAGELENGTH, &height) || !width || !height)
        return bad_file(source, err, "it has no width or height");
    if (width > RASTER_MAX_SIDE || height > RASTER_MAX_SIDE)
        return bad_file(source, err, "its width or height is absurd");
    TIFFGetFieldDefaulted(tiff, TIFFTAG_SAMPLESPERPIXEL, &samples);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_PLANARCONFIG, &planar);
    if (!samples) return bad_file(source, err, "it has no bands");
    source->alpha_sample = -1;
    source->width = width;
    source->height = height;
    source->samples = samples;
    source->separate = planar == PLANARCONFIG_SEPARATE && samples > 1;
    return TRN_OK;
}

static void read_nodata(raster_source *source)
{
    char *stored, text[64];
    if (!TIFFGetField(source->tiff.handle, TRN_TIFF_GDAL_NODATA, &stored) || !stored) return;
    while (isspace((unsigned char)*stored))
        stored++;
    snprintf(text, sizeof text, "%s", stored);
    for (size_t n = strlen(text); n && isspace((unsigned char)text[n - 1]); n--)
        text[n - 1] = 0;
    source->has_nodata = trn_parse_double(text, &source->nodata);
    if (source->has_nodata) return;
    if (trn_starts_with(text, "nan") || strstr(text, "#IND") || strstr(text, "#QNAN")) {
        source->has_nodata = true;
        source->nodata = NAN;
        return;
    }
    trn_log(TRN_LOG_WARN, "'%s': its nodata value '%s' is not a number and is passed over", source->path,
            text);
}

static trn_status read_band_metadata(raster_source *source, trn_arena *arena, trn_error *err)
{
    source->bands = trn_arena_array(arena, (size_t)source->samples, sizeof *source->bands);
    if (!source->bands) return trn_fail_memory(err, sizeof *source->bands, "the bands of a file");
    for (int i = 0; i < source->samples; i++)
        source->bands[i].scale = 1;
    char *xml;
    if (!TIFFGetField(source->tiff.handle, TRN_TIFF_GDAL_METADATA, &xml) || !xml) return TRN_OK;
    if (strlen(xml) <= RASTER_MAX_METADATA) return gdal_metadata_read(source, arena, xml, err);
    return bad_file(source, err, "its GDAL_METADATA is longer than 16 MiB");
}

static trn_status read_date_time(raster_source *source, trn_arena *arena, trn_error *err)
{
    enum { MAX_DATE_TIME = 64 };
    char *text;
    if (!TIFFGetField(source->tiff.handle, TIFFTAG_DATETIME, &text) || !text) return TRN_OK;
    if (strlen(text) > MAX_DATE_TIME) return TRN_OK;
    source->date_time = trn_arena_strdup(arena, text);
    return source->date_time ? TRN_OK : trn_fail_memory(err, strlen(text), "the date of a file");
}

/* The first sample that the file calls alpha, or none. Only reading settles whether it is a band after all:
 * many writers call the fourth of four bands so, whatever it holds. */
static void find_alpha(raster_source *source)
{
    uint16_t count = 0, *kinds = NULL;
    if (!TIFFGetField(source->tiff.handle, TIFFTAG_EXTRASAMPLES, &count, &kinds) || count >= source->samples)
        return;
    for (int i = 0; kinds && i < count && source->alpha_sample < 0; i++)
        if (kinds[i] == EXTRASAMPLE_ASSOCALPHA || kinds[i] == EXTRASAMPLE_UNASSALPHA)
            source->alpha_sample = source->samples - count + i;
}

/* ---- masks ---- */

/* Whether the current directory is the mask of the whole image. */
static bool is_mask(TIFF *tiff, const raster_source *image)
{
    uint32_t kind = 0, width = 0, height = 0;
    return TIFFGetField(tiff, TIFFTAG_SUBFILETYPE, &kind) && (kind & FILETYPE_MASK) &&
           !(kind & FILETYPE_REDUCEDIMAGE) && TIFFGetField(tiff, TIFFTAG_IMAGEWIDTH, &width) &&
           TIFFGetField(tiff, TIFFTAG_IMAGELENGTH, &height) && width == image->width &&
           height == image->height;
}

/* Goes on to the directory that holds the mask of the image; false when there is none. */
static bool seek_mask(TIFF *tiff, const raster_source *image)
{
    enum { MAX_DIRECTORIES = 64 };
    for (int i = 0; i < MAX_DIRECTORIES && !TIFFLastDirectory(tiff); i++) {
        if (!TIFFReadDirectory(tiff)) {
            trn_log(TRN_LOG_WARN,
                    "'%s': what follows its first image cannot be read; if there is a mask, it "
                    "is not used",
                    image->path);
            return false;
        }
        if (is_mask(tiff, image)) return true;
    }
    return false;
}

static trn_status read_mask_shape(raster_source *mask, trn_error *err)
{
    uint16_t bits = 1;
    trn_status status = read_shape(mask, err);
    if (status != TRN_OK) return status;
    TIFFGetFieldDefaulted(mask->tiff.handle, TIFFTAG_BITSPERSAMPLE, &bits);
    if (mask->samples != 1 || (bits != 1 && bits != 8))
        return unsupported(mask, err, "its mask is not one band of 1 or 8 bits");
    mask->type = TRN_SAMPLE_U8;
    mask->sample_bytes = 1;
    mask->packed = bits == 1;
    status = check_compression(mask, err);
    return status == TRN_OK ? read_block_shape(mask, err) : status;
}

/* GDAL keeps a mask in a directory of its own, or in a file beside the image ("a.tif.msk"). It is read
 * through a handle of its own, so that neither loses its place. */
static trn_status open_mask_of(raster_source *source, trn_arena *arena, const char *path, bool from_memory,
                               trn_error *err)
{
    bool inside = path == source->path;
    raster_source *mask = trn_arena_alloc(arena, sizeof *mask);
    if (!mask) return trn_fail_memory(err, sizeof *mask, "the mask of a file");
    *mask = (raster_source){.path = path, .name = trn_path_name(path), .memory = source->memory};
    mask->memory.position = 0;
    trn_status status = tiff_open_source(&mask->tiff, path, "rm", from_memory ? &mask->memory : NULL, err);
    if (status != TRN_OK) return trn_wrap(err, "the mask of '%s'", source->path);
    TIFF *tiff = mask->tiff.handle;
    mask->file_size = TIFFGetSizeProc(tiff)(TIFFClientdata(tiff));
    if (!inside || seek_mask(tiff, source)) {
        status = read_mask_shape(mask, err);
        if (status == TRN_OK && (mask->width != source->width || mask->height != source->height))
            status = bad_file(mask, err, "it is a mask of another size than its image");
        if (status == TRN_OK) source->mask = mask;
    }
    if (!source->mask) trn_tiff_close(&mask->tiff);
    return status == TRN_OK ? TRN_OK : trn_wrap(err, "the mask of '%s'", source->path);
}

static trn_status open_mask(raster_source *source, trn_arena *arena, bool from_memory, trn_error *err)
{
    trn_status status = TRN_OK;
    if (!TIFFLastDirectory(source->tiff.handle))
        status = open_mask_of(source, arena, source->path, from_memory, err);
    if (status != TRN_OK || source->mask || from_memory) return status;
    const char *beside = trn_arena_printf(arena, "%s.msk", source->path);
    if (!beside) return trn_fail_memory(err, strlen(source->path), "the mask of a file");
    return trn_path_exists(beside) ? open_mask_of(source, arena, beside, false, err) : TRN_OK;
}

void tiff_source_close(raster_source *source)
{
    if (source->mask) trn_tiff_close(&source->mask->tiff);
    source->mask = NULL;
    trn_tiff_close(&source->tiff);
}

trn_status tiff_source_open(raster_source *source, trn_arena *arena, bool from_memory, trn_error *err)
{
    /* m: no memory map, which a file that shrinks would turn into a signal */
    trn_status status =
        tiff_open_source(&source->tiff, source->path, "rm", from_memory ? &source->memory : NULL, err);
    if (status != TRN_OK) return status;
    uint16_t orientation = ORIENTATION_TOPLEFT;
    TIFF *tiff = source->tiff.handle;
    source->file_size = TIFFGetSizeProc(tiff)(TIFFClientdata(tiff));
    if ((status = read_shape(source, err)) != TRN_OK) goto fail;
    if ((status = read_sample_type(source, err)) != TRN_OK) goto fail;
    if ((status = check_compression(source, err)) != TRN_OK) goto fail;
    if ((status = read_block_shape(source, err)) != TRN_OK) goto fail;
    if ((status = read_band_metadata(source, arena, err)) != TRN_OK) goto fail;
    if ((status = georef_read(source, arena, err)) != TRN_OK) goto fail;
    if ((status = read_date_time(source, arena, err)) != TRN_OK) goto fail;
    if ((status = open_mask(source, arena, from_memory, err)) != TRN_OK) goto fail;
    read_nodata(source);
    find_alpha(source);
    TIFFGetFieldDefaulted(tiff, TIFFTAG_ORIENTATION, &orientation);
    if (orientation != ORIENTATION_TOPLEFT)
        trn_log(TRN_LOG_WARN, "'%s': its orientation tag (%u) is passed over, rows are read as stored",
                source->path, orientation);
    return TRN_OK;
fail:
    tiff_source_close(source);
    return status;
}

/* ---- sparse files ---- */

static bool read_at(const raster_source *source, uint64_t offset, void *out, size_t size)
{
    TIFF *tiff = source->tiff.handle;
    thandle_t data = TIFFClientdata(tiff);
    if (offset > source->file_size || size > source->file_size - offset) return false;
    if (TIFFGetSeekProc(tiff)(data, offset, SEEK_SET) != offset) return false;
    return TIFFGetReadProc(tiff)(data, out, (tmsize_t)size) == (tmsize_t)size;
}

static uint64_t number_at(const raster_source *source, const uint8_t *at, int bytes)
{
    bool big = TIFFIsBigEndian(source->tiff.handle);
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)at[big ? bytes - 1 - i : i] << (8 * i);
    return value;
}

/* Whether the file's list of block offsets has an entry for every block. libtiff fills a list that is too
 * short with zeros, which would make lost blocks look like blocks that are empty on purpose. */
static bool index_is_whole(const raster_source *source)
{
    enum { MAX_ENTRIES = 4096 };
    bool wide = TIFFIsBigTIFF(source->tiff.handle);
    int count_bytes = wide ? 8 : 2;
    uint64_t offset = TIFFCurrentDirOffset(source->tiff.handle), blocks = (uint64_t)source->blocks_across;
    uint8_t raw[20];
    blocks *= (uint64_t)source->blocks_down * (source->separate ? (uint64_t)source->samples : 1);
    if (!read_at(source, offset, raw, (size_t)count_bytes)) return false;
    uint64_t entries = number_at(source, raw, count_bytes);
    offset += (uint64_t)count_bytes;
    for (uint64_t i = 0; i < entries && i < MAX_ENTRIES; i++, offset += wide ? 20 : 12) {
        if (!read_at(source, offset, raw, wide ? 20 : 12)) return false;
        if (number_at(source, raw, 2) == (source->tiled ? TIFFTAG_TILEOFFSETS : TIFFTAG_STRIPOFFSETS))
            return number_at(source, raw + 4, wide ? 8 : 4) >= blocks;
    }
    return false;
}

/* ---- blocks ---- */

static trn_status bad_block(const raster_source *source, uint32_t number, trn_error *err, const char *what)
{
    return trn_fail(err, TRN_ERR_FORMAT, "'%s' is truncated or corrupt: %s %u %s; fetch the file again",
                    source->path, source->tiled ? "tile" : "strip", number, what);
}

/* Bits to bytes in place, from the end, so that none is overwritten before it is read. */
static void unpack(const raster_source *source, int64_t rows, uint8_t *out)
{
    size_t width = (size_t)source->block_width, stride = packed_row(source);
    for (size_t y = (size_t)rows; y-- > 0;)
        for (size_t x = width; x-- > 0;)
            out[y * width + x] = out[y * stride + x / 8] >> (7 - x % 8) & 1;
}

trn_status tiff_source_block(raster_source *source, int plane, int64_t index, uint8_t *out, trn_error *err)
{
    TIFF *tiff = source->tiff.handle;
    int64_t per_plane = source->blocks_across * source->blocks_down, row = index / source->blocks_across;
    uint32_t number = (uint32_t)(plane * per_plane + index);
    /* the last strip may be short */
    int64_t rows = source->tiled ? source->block_height
                                 : TRN_MIN(source->block_height, source->height - row * source->block_height);
    size_t pixels = source->block_bytes / (size_t)source->block_height * (size_t)rows;
    size_t want = source->packed ? packed_row(source) * (size_t)rows : pixels;
    int failed_offset = 0, failed_count = 0;
    uint64_t offset = TIFFGetStrileOffsetWithErr(tiff, number, &failed_offset);
    uint64_t bytes = TIFFGetStrileByteCountWithErr(tiff, number, &failed_count);
    if (failed_offset || failed_count) return bad_block(source, number, err, "is not in the file's index");
    if (!offset && !bytes) { /* sparse file: GDAL's meaning is "all nodata" */
        if (!source->index_checked && !index_is_whole(source))
            return bad_block(source, number, err, "is not in the file's index");
        source->index_checked = true;
        pixels_fill(source->type, source->has_nodata ? source->nodata : 0,
                    pixels / (size_t)source->sample_bytes, out);
        return TRN_OK;
    }
    if (offset > source->file_size || bytes > source->file_size - offset)
        return bad_block(source, number, err, "lies beyond the end of the file");
    if (!bytes || (source->compression == COMPRESSION_NONE && bytes < want))
        return bad_block(source, number, err, "is shorter than its pixels");
    source->tiff.message[0] = 0;
    source->tiff.system_error = 0;
    tmsize_t got = source->tiled ? TIFFReadEncodedTile(tiff, number, out, (tmsize_t)want)
                                 : TIFFReadEncodedStrip(tiff, number, out, (tmsize_t)want);
    if (got == (tmsize_t)want && !source->tiff.message[0]) {
        if (source->packed) unpack(source, rows, out);
        return TRN_OK;
    }
    char what[600];
    snprintf(what, sizeof what, "cannot be decoded (%s)",
             source->tiff.message[0] ? source->tiff.message : "too few pixels");
    return bad_block(source, number, err, what);
}
