/* PNG preview: the first three principal components as colours. The vectors, thinned to at most 2048 cells a
 * side, wait in a nameless file beside the output, for the axes are known only when all have been seen. */
#include "export_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* a picture of fewer than GOOD_SIDE cells is enlarged, each cell to a square of whole pixels */
enum { MAX_SIDE = 2048, GOOD_SIDE = 512, SAMPLES = 8192, SAMPLE_BYTES = 64 << 20, COLOURS = 3 };

typedef struct preview {
    FILE *spool;           /* [height, width, channels] float32, deleted already */
    int64_t width, height; /* of the picture */
    int64_t step;          /* cells per pixel */
    double *mean, *axes;   /* [channels], [COLOURS, channels] */
    float *row;            /* [width, channels] */
    float *scores;         /* [height * width, COLOURS], NAN = nodata */
    uint8_t *pixels;       /* [height * width, 4] */
} preview;

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static trn_status open_spool(const trn_writer *writer, preview *p, trn_error *err)
{
    trn_text path = {0};
    trn_text_printf(&path, "%s.vectors", trn_output_path(writer->output));
    if (path.failed) return trn_fail_memory(err, strlen(writer->path), "a path");
    p->spool = fopen(path.data, "w+bx");
    trn_status status = p->spool ? TRN_OK : trn_fail_errno(err, "write a temporary file for", writer->path);
    if (p->spool) unlink(path.data);
    trn_text_free(&path);
    return status;
}

static trn_status preview_open(trn_writer *writer, const trn_export_options *options, trn_error *err)
{
    (void)options;
    if (writer->type != TRN_EXPORT_F32)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "cannot write '%s': a preview has no float16 form; leave the type away",
                        writer->path);
    preview *p = writer->state = calloc(1, sizeof *p);
    if (!p) return trn_fail_memory(err, sizeof *p, "a preview");
    const trn_export_grid *grid = &writer->grid;
    size_t channels = (size_t)grid->channels;
    p->step = ceil_div(TRN_MAX(grid->width, grid->height), MAX_SIDE);
    p->width = ceil_div(grid->width, p->step);
    p->height = ceil_div(grid->height, p->step);
    size_t pixels = (size_t)(p->width * p->height);
    p->mean = calloc(channels, sizeof *p->mean);
    p->axes = calloc(channels, COLOURS * sizeof *p->axes);
    p->row = calloc(channels, (size_t)p->width * sizeof *p->row);
    p->scores = calloc(pixels, COLOURS * sizeof *p->scores);
    p->pixels = calloc(pixels, 4);
    if (!p->mean || !p->axes || !p->row || !p->scores || !p->pixels)
        return trn_fail_memory(err, channels * (size_t)p->width * sizeof *p->row, "a preview");
    return open_spool(writer, p, err);
}

static trn_status preview_rows(trn_writer *writer, int64_t first_row, int64_t rows, const float *values,
                               trn_error *err)
{
    preview *p = writer->state;
    size_t channels = (size_t)writer->grid.channels, row = (size_t)writer->grid.width * channels;
    for (int64_t y = 0; y < rows; y++) {
        if ((first_row + y) % p->step) continue;
        for (int64_t x = 0; x < p->width; x++)
            memcpy(p->row + (size_t)x * channels, values + (size_t)y * row + (size_t)(x * p->step) * channels,
                   channels * sizeof *p->row);
        size_t count = (size_t)p->width * channels;
        if (fwrite(p->row, sizeof *p->row, count, p->spool) != count)
            return trn_fail_errno(err, "write a temporary file for", writer->path);
    }
    return TRN_OK;
}

static bool all_finite(const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i])) return false;
    return true;
}

static trn_status next_row(const trn_writer *writer, preview *p, trn_error *err)
{
    size_t count = (size_t)p->width * (size_t)writer->grid.channels;
    if (fread(p->row, sizeof *p->row, count, p->spool) == count) return TRN_OK;
    return trn_fail_errno(err, "read a temporary file for", writer->path);
}

/* The axes from an even sample of the valid vectors. */
static trn_status find_axes(trn_writer *writer, preview *p, trn_error *err)
{
    size_t channels = (size_t)writer->grid.channels;
    size_t most = TRN_MIN((size_t)SAMPLES, TRN_MAX((size_t)SAMPLE_BYTES / (channels * sizeof(float)), 64));
    size_t pixels = (size_t)(p->width * p->height), stride = TRN_MAX((pixels + most - 1) / most, 1),
           taken = 0;
    /* a stride that divides the width would take whole columns */
    while (stride > 1 && stride <= (size_t)p->width && (size_t)p->width % stride == 0)
        stride++;
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): at least 1, and no width comes near where ++ wraps */
    float *sample = malloc((pixels / stride + 1) * channels * sizeof *sample);
    if (!sample) return trn_fail_memory(err, most * channels * sizeof *sample, "a preview");
    trn_status status = TRN_OK;
    for (size_t i = 0; i < pixels && status == TRN_OK; i++) {
        if (i % (size_t)p->width == 0) status = next_row(writer, p, err);
        const float *vector = p->row + i % (size_t)p->width * channels;
        if (i % stride || status != TRN_OK || !all_finite(vector, channels)) continue;
        memcpy(sample + taken++ * channels, vector, channels * sizeof *sample);
    }
    if (status == TRN_OK)
        status = pca_axes(sample, (int64_t)taken, writer->grid.channels, COLOURS, p->mean, p->axes, err);
    free(sample);
    return status;
}

static void score_row(const trn_writer *writer, preview *p, int64_t y)
{
    size_t channels = (size_t)writer->grid.channels;
    for (int64_t x = 0; x < p->width; x++) {
        const float *vector = p->row + (size_t)x * channels;
        float *scores = p->scores + (size_t)(y * p->width + x) * COLOURS;
        bool good = all_finite(vector, channels);
        for (size_t k = 0; k < COLOURS; k++) {
            double sum = 0;
            for (size_t c = 0; c < channels && good; c++)
                sum += ((double)vector[c] - p->mean[c]) * p->axes[k * channels + c];
            scores[k] = good ? (float)sum : NAN;
        }
    }
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Stretches colour k between its 2nd and 98th percentile. sorted [pixels] is scratch. */
static void colour_pixels(preview *p, size_t k, float *sorted)
{
    size_t pixels = (size_t)(p->width * p->height), count = 0;
    for (size_t i = 0; i < pixels; i++)
        if (isfinite(p->scores[i * COLOURS + k])) sorted[count++] = p->scores[i * COLOURS + k];
    if (!count) return;
    qsort(sorted, count, sizeof *sorted, compare_floats);
    double low = (double)sorted[(count - 1) * 2 / 100],
           high = (double)sorted[(count - 1) - (count - 1) * 2 / 100];
    for (size_t i = 0; i < pixels; i++) {
        double score = (double)p->scores[i * COLOURS + k];
        if (!isfinite(score)) continue;
        double shade = high > low ? 255 * (score - low) / (high - low) : 128;
        p->pixels[i * 4 + k] = (uint8_t)(fmin(fmax(shade, 0), 255) + 0.5);
        p->pixels[i * 4 + 3] = 255;
    }
}

/* One channel is a grey picture. */
static void spread_grey(preview *p)
{
    size_t pixels = (size_t)(p->width * p->height);
    for (size_t i = 0; i < pixels; i++)
        p->pixels[i * 4 + 1] = p->pixels[i * 4 + 2] = p->pixels[i * 4];
}

/* Each cell as zoom x zoom pixels. malloc'd. */
static uint8_t *enlarge(const preview *p, int64_t zoom)
{
    size_t width = (size_t)(p->width * zoom), height = (size_t)(p->height * zoom);
    uint8_t *pixels = malloc(width * height * 4);
    for (size_t y = 0; pixels && y < height; y++) {
        const uint8_t *row = p->pixels + y / (size_t)zoom * (size_t)p->width * 4;
        for (size_t x = 0; x < width; x++)
            memcpy(pixels + (y * width + x) * 4, row + x / (size_t)zoom * 4, 4);
    }
    return pixels;
}

static trn_status write_png(const trn_writer *writer, const preview *p, trn_error *err)
{
    int64_t zoom = TRN_MAX(GOOD_SIDE / TRN_MAX(p->width, p->height), 1);
    uint8_t *pixels = enlarge(p, zoom);
    if (!pixels) return trn_fail_memory(err, (size_t)(p->width * p->height * zoom * zoom * 4), "a preview");
    trn_status status = export_write_png(trn_output_path(writer->output), writer->path, p->width * zoom,
                                         p->height * zoom, pixels, err);
    free(pixels);
    return status;
}

static trn_status preview_finish(trn_writer *writer, trn_error *err)
{
    preview *p = writer->state;
    if (fflush(p->spool)) return trn_fail_errno(err, "write a temporary file for", writer->path);
    rewind(p->spool);
    trn_status status = find_axes(writer, p, err);
    if (status != TRN_OK) return status;
    rewind(p->spool);
    for (int64_t y = 0; y < p->height; y++) {
        if ((status = next_row(writer, p, err)) != TRN_OK) return status;
        score_row(writer, p, y);
    }
    float *sorted = malloc((size_t)(p->width * p->height) * sizeof *sorted);
    if (!sorted) return trn_fail_memory(err, (size_t)(p->width * p->height) * sizeof *sorted, "a preview");
    for (size_t k = 0; k < COLOURS; k++)
        colour_pixels(p, k, sorted);
    free(sorted);
    if (writer->grid.channels == 1) spread_grey(p);
    return write_png(writer, p, err);
}

static void preview_close(trn_writer *writer)
{
    preview *p = writer->state;
    if (!p) return;
    if (p->spool) fclose(p->spool);
    free(p->mean);
    free(p->axes);
    free(p->row);
    free(p->scores);
    free(p->pixels);
    free(p);
}

const export_format preview_format = {"png", preview_open, preview_rows, preview_finish, NULL, preview_close};
