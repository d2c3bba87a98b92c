/* The writer: picks the format by extension, keeps rows in order, and makes the file appear when it is
 * complete. */
#include "export_private.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct {
    const char *extension;
    const export_format *format;
} formats[] = {
    {"tif", &geotiff_format},
    {"tiff", &geotiff_format},
    {"npy", &npy_format},
    {"png", &preview_format},
};

size_t export_type_bytes(trn_export_type type)
{
    return type == TRN_EXPORT_F16 ? 2 : 4;
}

void export_convert(trn_export_type type, const float *values, size_t count, void *out)
{
    if (type == TRN_EXPORT_F32) {
        memcpy(out, values, count * sizeof *values);
        return;
    }
    uint16_t *halves = out;
    for (size_t i = 0; i < count; i++)
        halves[i] = trn_f32_to_f16(values[i]);
}

static const export_format *find_format(const char *path)
{
    const char *extension = trn_path_extension(path);
    for (size_t i = 0; i < TRN_COUNT(formats); i++)
        if (!strcasecmp(extension, formats[i].extension)) return formats[i].format;
    return NULL;
}

static trn_status check_grid(const char *path, const trn_export_grid *grid, trn_error *err)
{
    size_t row;
    if (grid->width < 1 || grid->height < 1 || grid->channels < 1 || grid->width > INT32_MAX ||
        grid->height > INT32_MAX ||
        !trn_mul_size((size_t)grid->width, (size_t)grid->channels * sizeof(float), &row))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "cannot write '%s': a grid of %lld x %lld cells with %d channels", path,
                        (long long)grid->width, (long long)grid->height, grid->channels);
    return TRN_OK;
}

/* Frees all; the partial file goes too unless it was committed. */
static void destroy_writer(trn_writer *writer)
{
    writer->format->close(writer);
    trn_output_abandon(writer->output);
    free(writer->path);
    free(writer);
}

trn_status trn_writer_open(const char *path, const trn_export_grid *grid, const trn_export_options *options,
                           trn_writer **out, trn_error *err)
{
    static const trn_export_options defaults = {0};
    *out = NULL;
    if (!options) options = &defaults;
    const export_format *format = find_format(path);
    if (!format)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "cannot write '%s': the extension says the format; use .tif, .npy or .png", path);
    trn_status status = check_grid(path, grid, err);
    if (status != TRN_OK) return status;
    trn_writer *writer = calloc(1, sizeof *writer);
    if (!writer) return trn_fail_memory(err, sizeof *writer, "a writer");
    writer->format = format;
    writer->grid = *grid;
    writer->type = options->type;
    writer->path = strdup(path);
    status = writer->path ? trn_output_create(path, &writer->output, err)
                          : trn_fail_memory(err, strlen(path), "a path");
    if (status == TRN_OK) status = format->open(writer, options, err);
    if (status != TRN_OK) {
        destroy_writer(writer);
        return status;
    }
    /* what belongs to the caller must not be used from here on */
    writer->grid.names = NULL;
    writer->grid.description = NULL;
    writer->grid.georef = (trn_georef){0};
    *out = writer;
    return TRN_OK;
}

trn_status trn_writer_rows(trn_writer *writer, int64_t first_row, int64_t rows, const float *values,
                           trn_error *err)
{
    if (rows < 1 || first_row != writer->next_row || rows > writer->grid.height - first_row)
        return trn_fail(err, TRN_ERR_INTERNAL,
                        "'%s': rows %lld to %lld of %lld were given when row %lld was next", writer->path,
                        (long long)first_row, (long long)(first_row + rows - 1),
                        (long long)writer->grid.height, (long long)writer->next_row);
    trn_status status = writer->format->rows(writer, first_row, rows, values, err);
    if (status == TRN_OK) writer->next_row += rows;
    return status;
}

trn_status trn_writer_finish(trn_writer *writer, trn_error *err)
{
    trn_status status = TRN_OK;
    if (writer->next_row != writer->grid.height)
        status = trn_fail(err, TRN_ERR_INTERNAL, "'%s': %lld of %lld rows were written", writer->path,
                          (long long)writer->next_row, (long long)writer->grid.height);
    if (status == TRN_OK) status = writer->format->finish(writer, err);
    if (status == TRN_OK) {
        status = trn_output_commit(writer->output, err);
        writer->output = NULL; /* commit frees it, also on failure */
    }
    if (status == TRN_OK && writer->format->committed) status = writer->format->committed(writer, err);
    destroy_writer(writer);
    return status;
}

void trn_writer_abandon(trn_writer *writer)
{
    if (writer) destroy_writer(writer);
}

trn_georef trn_georef_coarsen(const trn_georef *georef, double cell)
{
    trn_georef coarse = *georef;
    for (int i = 0; i < 6; i++)
        if (i % 3) coarse.transform[i] *= cell;
    return coarse;
}
