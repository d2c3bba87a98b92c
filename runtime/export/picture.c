/* Pictures: pixels as a PNG file. */
#include "export_private.h"

#include <png.h>

trn_status export_write_png(const char *temporary, const char *path, int64_t width, int64_t height,
                            const uint8_t *rgba, trn_error *err)
{
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)width,
                       .height = (png_uint_32)height,
                       .format = PNG_FORMAT_RGBA};
    FILE *file = fopen(temporary, "wb");
    bool good = file && png_image_write_to_stdio(&image, file, 0, rgba, 0, NULL) && !fflush(file);
    trn_status status = good ? TRN_OK : trn_fail_errno(err, "write", path);
    if (file && fclose(file) && good) status = trn_fail_errno(err, "write", path);
    return status;
}

trn_status trn_picture_write(const char *path, int64_t width, int64_t height, const uint8_t *rgba,
                             trn_error *err)
{
    enum { MAX_SIDE = 1 << 16 };
    trn_output *output = NULL;
    if (width < 1 || height < 1 || width > MAX_SIDE || height > MAX_SIDE)
        return trn_fail(err, TRN_ERR_ARGUMENT, "a picture of %lld x %lld pixels; at most %d a side",
                        (long long)width, (long long)height, MAX_SIDE);
    trn_status status = trn_output_create(path, &output, err);
    if (status != TRN_OK) return status;
    status = export_write_png(trn_output_path(output), path, width, height, rgba, err);
    if (status == TRN_OK) return trn_output_commit(output, err);
    trn_output_abandon(output);
    return status;
}
