/* Other sizes: bilinear for pixels, nearest for masks. Pixel centres are aligned, edges repeated. */
#include "data_private.h"

#include <math.h>
#include <stdlib.h>

/* Weights of the source pixels of one target pixel along one axis. */
typedef struct resize_axis {
    int reach;     /* most source pixels of a target pixel */
    int *first;    /* [out] */
    int *count;    /* [out] */
    float *weight; /* [out, reach] */
} resize_axis;

static void axis_free(resize_axis *axis)
{
    free(axis->first);
    free(axis->count);
    free(axis->weight);
}

/* A triangle about the target pixel's centre, cut at the image's edge and normalised: for a reach of one
 * source pixel the same as bilinear with repeated edges. */
static bool axis_plan(int size, int out, bool antialias, resize_axis *axis)
{
    double scale = (double)size / out, radius = antialias && scale > 1 ? scale : 1;
    axis->reach = (int)ceil(2 * radius) + 2;
    axis->first = calloc((size_t)out, sizeof *axis->first);
    axis->count = calloc((size_t)out, sizeof *axis->count);
    axis->weight = calloc((size_t)out * (size_t)axis->reach, sizeof *axis->weight);
    if (!axis->first || !axis->count || !axis->weight) return false;
    for (int o = 0; o < out; o++) {
        double centre = (o + 0.5) * scale - 0.5, sum = 0;
        int low = TRN_MAX((int)floor(centre - radius) + 1, 0);
        int high = TRN_MIN((int)ceil(centre + radius) - 1, size - 1);
        float *weight = axis->weight + (size_t)o * (size_t)axis->reach;
        axis->first[o] = low;
        axis->count[o] = high - low + 1;
        for (int i = low; i <= high; i++)
            sum += 1 - fabs(i - centre) / radius;
        for (int i = low; i <= high; i++)
            weight[i - low] = (float)((1 - fabs(i - centre) / radius) / sum);
    }
    return true;
}

static void resize_row(const resize_axis *axis, const float *from, float *out, int out_width)
{
    for (int x = 0; x < out_width; x++) {
        const float *weight = axis->weight + (size_t)x * (size_t)axis->reach, *in = from + axis->first[x];
        float sum = 0;
        for (int i = 0; i < axis->count[x]; i++)
            sum += weight[i] * in[i];
        out[x] = sum;
    }
}

static void resize_plane(const resize_axis *down, const resize_axis *across, const float *from, int height,
                         int width, float *rows, float *out, int out_height, int out_width)
{
    for (int y = 0; y < height; y++)
        resize_row(across, from + (size_t)y * (size_t)width, rows + (size_t)y * (size_t)out_width, out_width);
    for (int y = 0; y < out_height; y++) {
        const float *weight = down->weight + (size_t)y * (size_t)down->reach;
        const float *in = rows + (size_t)down->first[y] * (size_t)out_width;
        float *to = out + (size_t)y * (size_t)out_width;
        for (int x = 0; x < out_width; x++) {
            float sum = 0;
            for (int i = 0; i < down->count[y]; i++)
                sum += weight[i] * in[(size_t)i * (size_t)out_width + (size_t)x];
            to[x] = sum;
        }
    }
}

trn_status data_resize(const float *from, size_t planes, int height, int width, bool antialias, float *out,
                       int out_height, int out_width, trn_error *err)
{
    resize_axis down = {0}, across = {0};
    size_t bytes = (size_t)height * (size_t)out_width * sizeof(float);
    float *rows = malloc(bytes);
    trn_status status = TRN_OK;
    if (!rows || !axis_plan(height, out_height, antialias, &down) ||
        !axis_plan(width, out_width, antialias, &across)) {
        status = trn_fail_memory(err, bytes, "resizing a sample");
    } else {
        for (size_t p = 0; p < planes; p++)
            resize_plane(&down, &across, from + p * (size_t)height * (size_t)width, height, width, rows,
                         out + p * (size_t)out_height * (size_t)out_width, out_height, out_width);
    }
    axis_free(&down);
    axis_free(&across);
    free(rows);
    return status;
}

void data_resize_nearest(const int32_t *from, int height, int width, int32_t *out, int out_height,
                         int out_width)
{
    for (int y = 0; y < out_height; y++) {
        size_t row = (size_t)((int64_t)(2 * y + 1) * height / (2 * (int64_t)out_height));
        for (int x = 0; x < out_width; x++) {
            size_t column = (size_t)((int64_t)(2 * x + 1) * width / (2 * (int64_t)out_width));
            out[(size_t)y * (size_t)out_width + (size_t)x] = from[row * (size_t)width + column];
        }
    }
}
