/* One image of a folder: opened, held against the first one, resized when the job says so. */
#include "job_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_IMAGE_PIXELS ((int64_t)1 << 26)

static trn_status check_alike(const job_plan *plan, const trn_scene_info *info, const char *path,
                              trn_error *err)
{
    if (info->band_count != plan->info->band_count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "image '%s' has %zu bands, but the first image '%s' has %zu",
                        path, info->band_count, plan->paths[0], plan->info->band_count);
    for (size_t b = 0; b < info->band_count; b++)
        if (strcmp(info->bands[b].name, plan->info->bands[b].name) != 0)
            return trn_fail(err, TRN_ERR_ARGUMENT,
                            "band %zu of image '%s' is '%s', but of the first image '%s' it is '%s'", b + 1,
                            path, info->bands[b].name, plan->paths[0], plan->info->bands[b].name);
    if (!plan->job->scene.resize && (info->width != plan->width || info->height != plan->height))
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "image '%s' is %lld x %lld pixels, but the first image '%s' is %d x %d: use resize to make all "
            "images equal",
            path, (long long)info->width, (long long)info->height, plan->paths[0], plan->width, plan->height);
    if (info->width > MAX_IMAGE_PIXELS / info->height)
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "image '%s' of %lld x %lld pixels is too large to be one image of a folder", path,
                        (long long)info->width, (long long)info->height);
    return TRN_OK;
}

/* The source pixels under one output pixel: a triangle around its centre, widened when shrinking, so that no
 * pixel is passed over. */
typedef struct footprint {
    int first, count;
    double centre, reach;
} footprint;

static footprint footprint_of(int out, int out_size, int64_t in_size)
{
    double ratio = (double)in_size / out_size, centre = (out + 0.5) * ratio - 0.5,
           reach = TRN_MAX(1.0, ratio);
    int first = (int)ceil(centre - reach), last = (int)floor(centre + reach);
    first = TRN_MAX(first, 0);
    last = (int)TRN_MIN((int64_t)last, in_size - 1);
    return (footprint){first, last - first + 1, centre, reach};
}

static double tap(const footprint *f, int i)
{
    return TRN_MAX(0.0, 1 - fabs(f->first + i - f->centre) / f->reach);
}

/* Weighted mean over the valid pixels; a pixel is valid when at least half of the weight under it is. */
static void resize_pixel(const float *in, const uint8_t *in_valid, int64_t w, int64_t plane, size_t bands,
                         const footprint *fx, const footprint *fy, float *out, size_t out_plane,
                         uint8_t *valid)
{
    double all = 0, good = 0;
    for (size_t b = 0; b < bands; b++) {
        double sum = 0;
        all = good = 0;
        for (int y = 0; y < fy->count; y++) {
            double wy = tap(fy, y);
            for (int x = 0; x < fx->count; x++) {
                int64_t at = (int64_t)(fy->first + y) * w + fx->first + x;
                double weight = wy * tap(fx, x);
                all += weight;
                if (!in_valid[at]) continue;
                good += weight;
                sum += weight * (double)in[(int64_t)b * plane + at];
            }
        }
        out[b * out_plane] = good > 0 && good >= all / 2 ? (float)(sum / good) : 0;
    }
    *valid = good > 0 && good >= all / 2;
}

static void resize(const float *in, const uint8_t *in_valid, int64_t w, int64_t h, size_t bands, int side,
                   float *out, uint8_t *valid)
{
    for (int y = 0; y < side; y++) {
        footprint fy = footprint_of(y, side, h);
        for (int x = 0; x < side; x++) {
            footprint fx = footprint_of(x, side, w);
            size_t at = (size_t)y * (size_t)side + (size_t)x;
            resize_pixel(in, in_valid, w, w * h, bands, &fx, &fy, out + at, (size_t)side * (size_t)side,
                         valid + at);
        }
    }
}

static trn_status read_resized(const job_plan *plan, trn_scene *scene, int64_t w, int64_t h, float *pixels,
                               uint8_t *valid, trn_error *err)
{
    size_t area = (size_t)w * (size_t)h, bytes;
    float *in = NULL;
    uint8_t *in_valid = NULL;
    trn_status status = TRN_OK;
    if (trn_mul_size(area, plan->band_count * sizeof(float), &bytes)) {
        in = malloc(bytes);
        in_valid = malloc(area);
    }
    if (!in || !in_valid)
        status = trn_fail_memory(err, area, "an image");
    else
        status = trn_scene_read(scene, plan->bands, plan->band_count, 0, 0, w, h, in, in_valid, err);
    if (status == TRN_OK) resize(in, in_valid, w, h, plan->band_count, plan->width, pixels, valid);
    free(in);
    free(in_valid);
    return status;
}

trn_status job_image_read(const job_plan *plan, int64_t index, float *pixels, uint8_t *valid, double *place,
                          trn_error *err)
{
    if (plan->dataset) return job_dataset_image(plan, index, pixels, valid, err);
    const char *path = plan->paths[index];
    trn_scene *scene = NULL;
    trn_status status = trn_scene_open(&path, 1, &plan->scene_options, &scene, err);
    if (status != TRN_OK) return status;
    const trn_scene_info *info = trn_scene_get_info(scene);
    status = check_alike(plan, info, path, err);
    if (status == TRN_OK && place) status = job_place_of_image(plan, info, path, place, err);
    if (status == TRN_OK && info->width == plan->width && info->height == plan->height)
        status = trn_scene_read(scene, plan->bands, plan->band_count, 0, 0, plan->width, plan->height, pixels,
                                valid, err);
    else if (status == TRN_OK)
        status = read_resized(plan, scene, info->width, info->height, pixels, valid, err);
    trn_scene_close(scene);
    return status;
}
