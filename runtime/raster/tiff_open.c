/* Opening TIFF files: the geo tags, and libtiff's messages kept per file instead of printed. */
#include "raster_private.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <tiffio.h>

#if TIFFLIB_VERSION < 20221213
#error "Terrane needs libtiff 4.5 or newer: messages and memory limits per file came with it"
#endif

enum { TIFF_MESSAGE_MAX = 512 };

static TIFFExtendProc next_extender;

static void add_geo_tags(TIFF *tiff)
{
    static char names[][24] = {"ModelPixelScale", "ModelTiepoint",  "ModelTransformation", "GeoKeyDirectory",
                               "GeoDoubleParams", "GeoASCIIParams", "GDALMetadata",        "GDALNoDataValue"};
    static const TIFFFieldInfo fields[] = {
        {TRN_TIFF_PIXEL_SCALE, -1, -1, TIFF_DOUBLE, FIELD_CUSTOM, 1, 1, names[0]},
        {TRN_TIFF_TIEPOINTS, -1, -1, TIFF_DOUBLE, FIELD_CUSTOM, 1, 1, names[1]},
        {TRN_TIFF_TRANSFORMATION, -1, -1, TIFF_DOUBLE, FIELD_CUSTOM, 1, 1, names[2]},
        {TRN_TIFF_GEO_KEYS, -1, -1, TIFF_SHORT, FIELD_CUSTOM, 1, 1, names[3]},
        {TRN_TIFF_GEO_DOUBLES, -1, -1, TIFF_DOUBLE, FIELD_CUSTOM, 1, 1, names[4]},
        {TRN_TIFF_GEO_ASCII, -1, -1, TIFF_ASCII, FIELD_CUSTOM, 1, 0, names[5]},
        {TRN_TIFF_GDAL_METADATA, -1, -1, TIFF_ASCII, FIELD_CUSTOM, 1, 0, names[6]},
        {TRN_TIFF_GDAL_NODATA, -1, -1, TIFF_ASCII, FIELD_CUSTOM, 1, 0, names[7]},
    };
    TIFFMergeFieldInfo(tiff, fields, (uint32_t)TRN_COUNT(fields));
    if (next_extender) next_extender(tiff);
}

static void install_geo_tags(void)
{
    next_extender = TIFFSetTagExtender(add_geo_tags);
}

static int keep_error(TIFF *handle, void *user, const char *module, const char *fmt, va_list args)
    TRN_PRINTF(4, 0);
static int log_warning(TIFF *handle, void *user, const char *module, const char *fmt, va_list args)
    TRN_PRINTF(4, 0);

static int keep_error(TIFF *handle, void *user, const char *module, const char *fmt, va_list args)
{
    (void)handle, (void)module;
    trn_tiff *tiff = user;
    char message[TIFF_MESSAGE_MAX];
    int cause = errno;
    vsnprintf(message, sizeof message, fmt, args);
    if (!tiff->message[0]) {
        memcpy(tiff->message, message, sizeof message);
        tiff->system_error = cause;
    }
    trn_log(TRN_LOG_DEBUG, "%s: libtiff: %s", tiff->name, message);
    return 1;
}

static int log_warning(TIFF *handle, void *user, const char *module, const char *fmt, va_list args)
{
    (void)handle, (void)module;
    const trn_tiff *tiff = user;
    if (!trn_log_enabled(TRN_LOG_DEBUG)) return 1;
    char message[TIFF_MESSAGE_MAX];
    vsnprintf(message, sizeof message, fmt, args);
    trn_log(TRN_LOG_DEBUG, "%s: libtiff warns: %s", tiff->name, message);
    return 1;
}

static tmsize_t memory_read(thandle_t handle, void *out, tmsize_t size)
{
    raster_memory *memory = handle;
    if (size <= 0 || memory->position >= memory->size) return 0;
    size_t n = TRN_MIN((size_t)size, memory->size - memory->position);
    memcpy(out, memory->data + memory->position, n);
    memory->position += n;
    return (tmsize_t)n;
}

static tmsize_t memory_write(thandle_t handle, void *data, tmsize_t size)
{
    (void)handle, (void)data, (void)size;
    return 0;
}

static toff_t memory_seek(thandle_t handle, toff_t offset, int whence)
{
    raster_memory *memory = handle;
    uint64_t base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? memory->position : memory->size;
    memory->position = (size_t)(base + offset);
    return memory->position;
}

static toff_t memory_size(thandle_t handle)
{
    const raster_memory *memory = handle;
    return memory->size;
}

static int memory_close(thandle_t handle)
{
    (void)handle;
    return 0;
}

static void report_open_failure(const trn_tiff *tiff, const char *path, int cause, trn_error *err)
{
    /* without a message from libtiff's parser it was the system that refused */
    errno = cause;
    if (cause == ENOENT || cause == EACCES || cause == EISDIR || cause == ENOSPC || cause == EROFS)
        trn_fail_errno(err, "open", path);
    else
        trn_fail(err, TRN_ERR_FORMAT, "cannot open '%s' as TIFF: %s", path,
                 tiff->message[0] ? tiff->message : "libtiff gives no reason");
}

trn_status tiff_open_source(trn_tiff *tiff, const char *path, const char *mode, raster_memory *memory,
                            trn_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install_geo_tags);
    *tiff = (trn_tiff){0};
    snprintf(tiff->name, sizeof tiff->name, "%s", trn_path_name(path));
    TIFFOpenOptions *options = TIFFOpenOptionsAlloc();
    if (!options) return trn_fail_memory(err, 64, "opening a TIFF file");
    TIFFOpenOptionsSetErrorHandlerExtR(options, keep_error, tiff);
    TIFFOpenOptionsSetWarningHandlerExtR(options, log_warning, tiff);
    if (mode[0] == 'r')
        TIFFOpenOptionsSetMaxSingleMemAlloc(options, (tmsize_t)RASTER_MAX_BLOCK_BYTES + 65536);
    errno = 0;
    if (memory)
        tiff->handle = TIFFClientOpenExt(path, mode, memory, memory_read, memory_write, memory_seek,
                                         memory_close, memory_size, NULL, NULL, options);
    else
        tiff->handle = TIFFOpenExt(path, mode, options);
    int cause = tiff->system_error ? tiff->system_error : errno;
    TIFFOpenOptionsFree(options);
    if (!tiff->handle) {
        report_open_failure(tiff, path, cause, err);
        return err ? err->code : TRN_ERR_FORMAT;
    }
    return TRN_OK;
}

trn_status trn_tiff_open(trn_tiff *tiff, const char *path, const char *mode, trn_error *err)
{
    return tiff_open_source(tiff, path, mode, NULL, err);
}

void trn_tiff_close(trn_tiff *tiff)
{
    if (tiff->handle) TIFFClose(tiff->handle);
    tiff->handle = NULL;
}

trn_status trn_tiff_fail(const trn_tiff *tiff, trn_error *err, trn_status code, const char *action)
{
    int cause = tiff->system_error;
    if (cause == ENOSPC || cause == EFBIG || cause == EDQUOT || cause == EIO || cause == EBADF)
        return trn_fail(err, TRN_ERR_IO, "%s '%s': %s", action, tiff->name, strerror(cause));
    return trn_fail(err, code, "%s '%s': %s", action, tiff->name,
                    tiff->message[0] ? tiff->message : "libtiff gives no reason");
}
