/* JPEG and PNG images, decoded whole from the bytes of the file. */
#include "raster_private.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <jpeglib.h>
#include <jerror.h>
#include <png.h>

enum { MAX_JPEG_SCANS = 256, DEFLATE_BEST_RATIO = 1040 };

bool image_is_jpeg(const uint8_t *data, size_t size)
{
    return size >= 3 && data[0] == 0xff && data[1] == 0xd8 && data[2] == 0xff;
}

bool image_is_png(const uint8_t *data, size_t size)
{
    static const uint8_t magic[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    return size >= 8 && !memcmp(data, magic, 8);
}

/* Makes the source one block of the whole image, and its memory. */
static trn_status make_image(raster_source *source, trn_error *err)
{
    if (source->width < 1 || source->height < 1 || source->width > RASTER_MAX_IMAGE_PIXELS / source->height)
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "'%s' has %lld x %lld pixels; JPEG and PNG are read up to 2^28 pixels: convert it to "
                        "a tiled TIFF",
                        source->path, (long long)source->width, (long long)source->height);
    source->sample_bytes = sample_type_bytes(source->type);
    source->block_width = source->width;
    source->block_height = source->height;
    source->blocks_across = source->blocks_down = 1;
    source->block_bytes = (size_t)source->width * (size_t)source->height * (size_t)source->samples *
                          (size_t)source->sample_bytes;
    source->image = malloc(source->block_bytes);
    return source->image ? TRN_OK : trn_fail_memory(err, source->block_bytes, "an image");
}

static trn_status corrupt(const raster_source *source, trn_error *err, const char *kind, const char *reason)
{
    return trn_fail(err, TRN_ERR_FORMAT, "'%s' is a truncated or corrupt %s: %s", source->path, kind, reason);
}

/* ---- JPEG ---- */

typedef struct jpeg_reader {
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf failed;
    struct jpeg_decompress_struct decoder;
    char reason[JMSG_LENGTH_MAX];
} jpeg_reader;

static void jpeg_failed(j_common_ptr decoder)
{
    jpeg_reader *reader = decoder->client_data;
    decoder->err->format_message(decoder, reader->reason);
    longjmp(reader->failed, 1);
}

/* libjpeg goes on after a warning with made-up pixels: here it is an error, save for harmless ones. */
static void jpeg_message(j_common_ptr decoder, int level)
{
    int code = decoder->err->msg_code;
    if (level < 0 && code != JWRN_EXTRANEOUS_DATA && code != JWRN_ADOBE_XFORM && code != JWRN_JFIF_MAJOR)
        jpeg_failed(decoder);
}

static void jpeg_progress(j_common_ptr decoder)
{
    jpeg_reader *reader = decoder->client_data;
    if (reader->decoder.input_scan_number <= MAX_JPEG_SCANS) return;
    snprintf(reader->reason, sizeof reader->reason, "more than %d scans", MAX_JPEG_SCANS);
    longjmp(reader->failed, 1);
}

static trn_status decode_jpeg(jpeg_reader *reader, raster_source *source, const uint8_t *data, size_t size,
                              trn_error *err)
{
    struct jpeg_decompress_struct *decoder = &reader->decoder;
    if (setjmp(reader->failed)) return corrupt(source, err, "JPEG", reader->reason);
    jpeg_create_decompress(decoder);
    decoder->client_data = reader;
    decoder->progress = &reader->progress;
    jpeg_mem_src(decoder, data, (unsigned long)size);
    jpeg_read_header(decoder, TRUE);
    if (decoder->num_components != 1 && decoder->num_components != 3)
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "'%s' is a JPEG of %d colour components (CMYK): convert it to RGB", source->path,
                        decoder->num_components);
    decoder->out_color_space = decoder->num_components == 1 ? JCS_GRAYSCALE : JCS_RGB;
    source->width = decoder->image_width;
    source->height = decoder->image_height;
    source->samples = decoder->num_components;
    source->type = TRN_SAMPLE_U8;
    trn_status status = make_image(source, err);
    if (status != TRN_OK) return status;
    jpeg_start_decompress(decoder);
    while (decoder->output_scanline < decoder->output_height) {
        JSAMPROW row = source->image + (size_t)decoder->output_scanline * decoder->output_width *
                                           (size_t)decoder->output_components;
        jpeg_read_scanlines(decoder, &row, 1);
    }
    jpeg_finish_decompress(decoder);
    return TRN_OK;
}

trn_status image_source_open_jpeg(raster_source *source, const uint8_t *data, size_t size, trn_error *err)
{
    jpeg_reader reader = {0};
    reader.decoder.err = jpeg_std_error(&reader.errors);
    reader.decoder.client_data = &reader;
    reader.errors.error_exit = jpeg_failed;
    reader.errors.emit_message = jpeg_message;
    reader.progress.progress_monitor = jpeg_progress;
    trn_status status = decode_jpeg(&reader, source, data, size, err);
    jpeg_destroy_decompress(&reader.decoder);
    return status;
}

/* ---- PNG ---- */

typedef struct png_reader {
    png_structp png;
    png_infop info;
    const uint8_t *data;
    size_t size, position;
    uint8_t *rows; /* decoded, alpha still among the samples */
    char reason[256];
} png_reader;

static void png_failed(png_structp png, png_const_charp message)
{
    png_reader *reader = png_get_error_ptr(png);
    snprintf(reader->reason, sizeof reader->reason, "%s", message);
    png_longjmp(png, 1);
}

static void png_warned(png_structp png, png_const_charp message)
{
    (void)png;
    trn_log(TRN_LOG_DEBUG, "libpng warns: %s", message);
}

static void png_take(png_structp png, png_bytep out, size_t count)
{
    png_reader *reader = png_get_io_ptr(png);
    if (count > reader->size - reader->position) png_error(png, "the file ends early");
    memcpy(out, reader->data + reader->position, count);
    reader->position += count;
}

/* Moves alpha out of the samples: source->image and source->alpha from rows of samples + 1. */
static trn_status split_alpha(raster_source *source, const uint8_t *rows, trn_error *err)
{
    size_t pixels = (size_t)source->width * (size_t)source->height;
    size_t size = (size_t)source->sample_bytes, kept = size * (size_t)source->samples;
    source->alpha = malloc(pixels);
    if (!source->alpha) return trn_fail_memory(err, pixels, "an image's alpha channel");
    for (size_t i = 0; i < pixels; i++) {
        const uint8_t *pixel = rows + i * (kept + size);
        memcpy(source->image + i * kept, pixel, kept);
        source->alpha[i] = pixel[kept] | pixel[kept + size - 1];
    }
    return TRN_OK;
}

static trn_status decode_png(png_reader *reader, raster_source *source, trn_error *err)
{
    png_structp png = reader->png;
    if (setjmp(png_jmpbuf(png))) return corrupt(source, err, "PNG", reader->reason);
    png_set_read_fn(png, reader, png_take);
    png_read_info(png, reader->info);
    png_set_expand(png);
    const uint16_t one = 1;
    if (png_get_bit_depth(png, reader->info) == 16 && *(const uint8_t *)&one) png_set_swap(png);
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, reader->info);
    int channels = png_get_channels(png, reader->info);
    bool alpha = (png_get_color_type(png, reader->info) & PNG_COLOR_MASK_ALPHA) != 0;
    source->width = png_get_image_width(png, reader->info);
    source->height = png_get_image_height(png, reader->info);
    source->samples = channels - alpha;
    source->type = png_get_bit_depth(png, reader->info) == 16 ? TRN_SAMPLE_U16 : TRN_SAMPLE_U8;
    trn_status status = make_image(source, err);
    if (status != TRN_OK) return status;
    size_t row_bytes = png_get_rowbytes(png, reader->info);
    /* sub-byte samples grow at most 8 times and a palette 4 times on their way to row_bytes */
    if (row_bytes * (size_t)source->height / (DEFLATE_BEST_RATIO * 32) > reader->size)
        return corrupt(source, err, "PNG", "it claims more pixels than its bytes can hold");
    if (alpha) reader->rows = malloc(row_bytes * (size_t)source->height);
    uint8_t *rows = alpha ? reader->rows : source->image;
    if (!rows) return trn_fail_memory(err, row_bytes * (size_t)source->height, "an image");
    for (int pass = 0; pass < passes; pass++)
        for (int64_t y = 0; y < source->height; y++)
            png_read_row(png, rows + (size_t)y * row_bytes, NULL);
    png_read_end(png, NULL);
    return alpha ? split_alpha(source, rows, err) : TRN_OK;
}

trn_status image_source_open_png(raster_source *source, const uint8_t *data, size_t size, trn_error *err)
{
    png_reader reader = {.data = data, .size = size};
    trn_status status = TRN_OK;
    reader.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, png_failed, png_warned);
    if (reader.png) reader.info = png_create_info_struct(reader.png);
    if (!reader.info)
        status = trn_fail_memory(err, 4096, "reading a PNG");
    else
        status = decode_png(&reader, source, err);
    free(reader.rows);
    png_destroy_read_struct(&reader.png, &reader.info, NULL);
    return status;
}
