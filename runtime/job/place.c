/* Where windows lie on earth, for encoders that look at it. */
#include "job_private.h"

#include <math.h>

static bool wants_place(const job_plan *plan)
{
    for (size_t i = 0; i < plan->encoder_count; i++)
        if (plan->encoders[i].spec->location_values > 0) return true;
    return false;
}

static trn_status check_given(const trn_job_scene *scene, trn_error *err)
{
    bool good = fabs(scene->latitude) <= 90 && fabs(scene->longitude) <= 360;
    return good ? TRN_OK
                : trn_fail(
                      err, TRN_ERR_ARGUMENT,
                      "the location is latitude %g, longitude %g; wanted -90 to 90 and -360 to 360, latitude "
                      "first",
                      scene->latitude, scene->longitude);
}

trn_status job_place_plan(job_plan *plan, trn_error *err)
{
    const trn_job_scene *scene = &plan->job->scene;
    if (scene->has_location) {
        trn_status status = check_given(scene, err);
        if (status == TRN_OK) plan->located = wants_place(plan);
        return status;
    }
    if (!wants_place(plan)) return TRN_OK;
    const trn_georef *georef = &plan->info->georef;
    if (!georef->has_transform || !georef->has_crs) {
        job_plan_note(plan,
                      "'%s' has no georeference: encoders work without its place; a location may be given",
                      plan->paths[0]);
        return TRN_OK;
    }
    trn_status status = trn_locator_create(georef, &plan->locator, err);
    if (status == TRN_ERR_UNSUPPORTED && !plan->job->strict && err)
        return job_plan_warn(plan, err, "%s; encoders work without it", err->message);
    plan->located = status == TRN_OK;
    return status;
}

/* The pixels of a window that are valid: [left, right) and [top, bottom). */
typedef struct valid_box {
    int left, right, top, bottom;
} valid_box;

static valid_box find_valid(const job_plan *plan, const uint8_t *valid)
{
    valid_box box = {plan->width, 0, plan->height, 0};
    for (int y = 0; y < plan->height; y++)
        for (int x = 0; x < plan->width; x++) {
            if (!valid[(size_t)y * (size_t)plan->width + (size_t)x]) continue;
            box.left = TRN_MIN(box.left, x);
            box.right = TRN_MAX(box.right, x + 1);
            box.top = TRN_MIN(box.top, y);
            box.bottom = y + 1;
        }
    return box;
}

trn_status job_place_of_window(const job_plan *plan, int64_t x, int64_t y, const uint8_t *valid,
                               double place[2], trn_error *err)
{
    const trn_job_scene *scene = &plan->job->scene;
    if (scene->has_location) {
        place[0] = scene->latitude;
        place[1] = scene->longitude;
        return TRN_OK;
    }
    /* windows at the edge reach beyond the scene; those at the rim of a full disk, beyond the earth */
    valid_box box = find_valid(plan, valid);
    return trn_locator_find(plan->locator, (double)x + (box.left + box.right) / 2.0,
                            (double)y + (box.top + box.bottom) / 2.0, &place[0], &place[1], err);
}

trn_status job_place_of_image(const job_plan *plan, const trn_scene_info *info, const char *path,
                              double place[2], trn_error *err)
{
    const trn_job_scene *scene = &plan->job->scene;
    if (scene->has_location) {
        place[0] = scene->latitude;
        place[1] = scene->longitude;
        return TRN_OK;
    }
    trn_status status = trn_georef_locate(&info->georef, (double)info->width / 2, (double)info->height / 2,
                                          &place[0], &place[1], err);
    return status == TRN_OK ? TRN_OK : trn_wrap(err, "image '%s', unlike the first one", path);
}

size_t job_place_encode(const planned_encoder *member, const read_batch *batch, float *out)
{
    size_t n = (size_t)member->spec->location_values;
    for (int slot = 0; slot < batch->used; slot++)
        trn_encoder_encode_location(member->encoder, batch->places[slot][0], batch->places[slot][1],
                                    out + (size_t)slot * n);
    return n;
}
