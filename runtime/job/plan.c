/* The plan of a job: scenes opened, encoders configured and bound, bands chosen, windows laid out. */
#include "job_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ENCODERS = 32 };

void job_plan_note(const job_plan *plan, const char *fmt, ...)
{
    if (!plan->hooks || !plan->hooks->note) return;
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    plan->hooks->note(plan->hooks->user, TRN_LOG_INFO, text);
}

trn_status job_plan_warn(const job_plan *plan, trn_error *err, const char *fmt, ...)
{
    char text[1536];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (plan->job->strict)
        return trn_fail(err, TRN_ERR_ARGUMENT, "%s (an error because the job is strict)", text);
    if (plan->hooks && plan->hooks->note) plan->hooks->note(plan->hooks->user, TRN_LOG_WARN, text);
    return TRN_OK;
}

trn_status job_blame(const trn_job_hooks *hooks, trn_status status, trn_job_part part, size_t index)
{
    if (status != TRN_OK && hooks && hooks->blame) hooks->blame(hooks->user, part, index);
    return status;
}

/* ---- the scene ---- */

static trn_status plan_paths(job_plan *plan, trn_error *err)
{
    const trn_job_scene *scene = &plan->job->scene;
    if (!scene->path_count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "the job names no scene: give at least one file");
    bool folder = scene->path_count == 1 && trn_path_is_dir(scene->paths[0]);
    plan->images = scene->each || folder;
    plan->pooled = plan->images || plan->job->tile_vectors;
    if (!folder) {
        plan->paths = scene->paths;
        plan->path_count = scene->path_count;
        return TRN_OK;
    }
    trn_status status = trn_scene_list(scene->paths[0], &plan->listed, &plan->listed_count, err);
    if (status != TRN_OK) return status;
    plan->path_count = plan->listed_count;
    plan->paths = (const char *const *)plan->listed;
    if (!plan->path_count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "folder '%s' holds no image (.tif, .tiff, .jpg, .jpeg, .png)",
                        scene->paths[0]);
    return TRN_OK;
}

/* A sensor's usual nodata value counts when neither the job nor the file names one. */
static trn_status apply_sensor_nodata(job_plan *plan, trn_error *err)
{
    if (!plan->sensor || isnan(plan->sensor->nodata) || plan->scene_options.has_nodata) return TRN_OK;
    for (size_t t = 0; t < plan->date_count; t++)
        for (size_t i = 0; i < plan->info->band_count; i++)
            if (trn_scene_get_info(plan->dates[t].scene)->bands[i].has_nodata) return TRN_OK;
    plan->scene_options.has_nodata = true;
    plan->scene_options.nodata = plan->sensor->nodata;
    job_dates_close(plan);
    return job_dates_open(plan, err);
}

/* A sensor that is given but has nothing to do with the file's bands is a mistake. */
trn_status job_check_sensor(const job_plan *plan, trn_error *err)
{
    if (!plan->sensor) return TRN_OK;
    trn_text names = {0};
    for (size_t i = 0; i < plan->info->band_count; i++)
        if (trn_sensor_band(plan->sensor, plan->info->bands[i].name) >= 0) return TRN_OK;
    for (size_t i = 0; i < plan->sensor->band_count; i++)
        trn_text_printf(&names, "%s%s", i ? ", " : "", plan->sensor->bands[i].name);
    trn_status status =
        trn_fail(err, TRN_ERR_ARGUMENT,
                 "the %zu bands of '%s' are not those of sensor '%s' (%s): say what they are by "
                 "band names, or name another sensor",
                 plan->info->band_count, plan->info->name, plan->sensor->name, trn_text_get(&names));
    trn_text_free(&names);
    return status;
}

trn_status job_plan_sensor(job_plan *plan, trn_error *err)
{
    const trn_job_scene *scene = &plan->job->scene;
    plan->sensor = scene->custom;
    if (!plan->sensor && scene->sensor) {
        plan->sensor = trn_sensor_find(scene->sensor, err);
        if (!plan->sensor) return err ? err->code : TRN_ERR_ARGUMENT;
    }
    plan->names = plan->sensor;
    return TRN_OK;
}

static trn_status plan_scene(job_plan *plan, trn_error *err)
{
    const trn_job_scene *scene = &plan->job->scene;
    trn_status status = job_plan_sensor(plan, err);
    if (status != TRN_OK) return status;
    plan->scene_options = (trn_scene_options){
        .sensor = plan->sensor,
        .band_names = scene->band_names,
        .band_name_count = scene->band_names ? scene->band_name_count : 0,
        .has_nodata = scene->has_nodata,
        .nodata = scene->nodata,
    };
    status = plan_paths(plan, err);
    if (status == TRN_OK) status = job_dates_plan(plan, err);
    if (status == TRN_OK) status = job_dates_open(plan, err);
    if (status == TRN_OK) status = job_check_sensor(plan, err);
    if (status == TRN_OK) status = apply_sensor_nodata(plan, err);
    if (status == TRN_OK) status = job_dates_acquired(plan, err);
    return status == TRN_OK ? job_bands_name(plan, err) : status;
}

/* ---- encoders ---- */

bool job_weights_fresh(const job_plan *plan, const trn_job_encoder *wish)
{
    return plan->dataset && wish->weights && !strcmp(wish->weights, "fresh");
}

/* Without a path the model's file comes from the store. */
static trn_status open_weights(job_plan *plan, planned_encoder *member, trn_error *err)
{
    const trn_job_encoder *wish = member->wish;
    trn_weights_options options = {.wrapper = wish->wrapper};
    if (job_weights_fresh(plan, wish)) return trn_weights_open_fresh(plan->seed, &member->weights, err);
    if (wish->weights) return trn_weights_open(wish->weights, &options, &member->weights, err);
    trn_stored stored;
    trn_status status = trn_store_find(wish->model, &stored, err);
    if (status != TRN_OK) return trn_wrap(err, "encoder '%s'", wish->model);
    if (!stored.path)
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "encoder '%s' needs weights, and the store has none: run terrane pull %s, or give the "
            "path of its checkpoint (--weights FILE; weights = 'FILE' in a recipe)",
            wish->model, wish->model);
    job_plan_note(plan, "weights of '%s': %s", wish->model, stored.path);
    status = trn_weights_open(stored.path, &options, &member->weights, err);
    trn_stored_free(&stored);
    return status;
}

static trn_status bind_weights(job_plan *plan, planned_encoder *member, trn_error *err)
{
    const trn_job_encoder *wish = member->wish;
    if (!member->spec->needs_weights) {
        if (wish->weights)
            return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' needs no weights, but '%s' is given",
                            wish->model, wish->weights);
        return TRN_OK;
    }
    trn_text report = {0};
    trn_status status = open_weights(plan, member, err);
    if (status == TRN_OK) status = trn_encoder_load(member->encoder, member->weights, &report, err);
    if (status == TRN_OK && report.length) job_plan_note(plan, "%s", report.data);
    trn_text_free(&report);
    return status;
}

static trn_status plan_encoder(job_plan *plan, size_t i, trn_error *err)
{
    const trn_job_encoder *wish = &plan->job->encoders[i];
    planned_encoder *member = &plan->encoders[i];
    member->wish = wish;
    trn_status (*create_encoder)(const char *, const trn_setting *, size_t, trn_encoder **, trn_error *) =
        plan->draws ? trn_masked_create : trn_encoder_create;
    trn_status status =
        create_encoder(wish->model, wish->settings, wish->setting_count, &member->encoder, err);
    if (status != TRN_OK) return status;
    plan->handles[i] = member->encoder;
    member->spec = trn_encoder_get_spec(member->encoder);
    if (wish->pool == TRN_FEATURES_CLS && !member->spec->has_cls)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' has no class token: pool by mean instead",
                        wish->model);
    if (wish->pool != TRN_FEATURES_DENSE && !plan->pooled && plan->dataset)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s' is pooled, but the head takes its maps: leave pool out", wish->model);
    if (wish->pool != TRN_FEATURES_DENSE && !plan->pooled)
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "encoder '%s' is pooled, but the job wants dense features of a scene: leave pool out, or ask "
            "for one vector per tile",
            wish->model);
    status = job_dates_choose(plan, member, err);
    if (status == TRN_OK) status = job_bands_choose(plan, member, err);
    if (status == TRN_OK) status = bind_weights(plan, member, err);
    return status;
}

/* The union of the encoders' bands is read once per window; members pick their channels from it. */
static trn_status plan_union(job_plan *plan, trn_error *err)
{
    size_t scene_bands = plan->info->band_count;
    int *place = trn_arena_array(plan->arena, scene_bands, sizeof *place);
    plan->bands = trn_arena_array(plan->arena, scene_bands, sizeof *plan->bands);
    if (!place || !plan->bands) return trn_fail_memory(err, scene_bands * sizeof(int), "bands");
    for (size_t e = 0; e < plan->encoder_count; e++)
        for (size_t c = 0; c < plan->encoders[e].channel_count; c++)
            place[plan->encoders[e].channels[c]] = 1;
    for (size_t b = 0; b < scene_bands; b++) {
        if (!place[b]) continue;
        place[b] = (int)plan->band_count;
        plan->bands[plan->band_count++] = (int)b;
    }
    for (size_t e = 0; e < plan->encoder_count; e++)
        for (size_t c = 0; c < plan->encoders[e].channel_count; c++)
            plan->encoders[e].channels[c] = place[plan->encoders[e].channels[c]];
    return TRN_OK;
}

trn_status job_plan_encoders(job_plan *plan, trn_error *err)
{
    const trn_embed_job *job = plan->job;
    if (!job->encoder_count || job->encoder_count > MAX_ENCODERS)
        return trn_fail(err, TRN_ERR_ARGUMENT, "the job has %zu encoders; wanted 1 to %d", job->encoder_count,
                        MAX_ENCODERS);
    plan->encoder_count = job->encoder_count;
    plan->encoders = trn_arena_array(plan->arena, job->encoder_count, sizeof *plan->encoders);
    plan->handles = trn_arena_array(plan->arena, job->encoder_count, sizeof(trn_encoder *));
    if (!plan->encoders || !plan->handles) return trn_fail_memory(err, sizeof(planned_encoder), "encoders");
    for (size_t i = 0; i < job->encoder_count; i++) {
        trn_status status = job_blame(plan->hooks, plan_encoder(plan, i, err), TRN_JOB_ENCODER, i);
        if (status != TRN_OK) return status;
    }
    return plan_union(plan, err);
}

/* ---- windows ---- */

trn_status job_check_image_shape(const job_plan *plan, const planned_encoder *member, int64_t width,
                                 int64_t height, trn_error *err)
{
    enum { MAX_SIDE = 16384 };
    int multiple = TRN_MAX(1, member->spec->side_multiple);
    if (width != height && member->spec->square)
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "image '%s' is %lld x %lld pixels, not square, as encoder '%s' wants it: use resize to make "
            "all images squares",
            plan->paths[0], (long long)width, (long long)height, member->wish->model);
    if (TRN_MAX(width, height) <= MAX_SIDE && width % multiple == 0 && height % multiple == 0) return TRN_OK;
    char shape[48];
    int64_t side = TRN_MAX(width, height);
    if (width == height)
        snprintf(shape, sizeof shape, "%lld", (long long)width);
    else
        snprintf(shape, sizeof shape, "%lld x %lld", (long long)width, (long long)height);
    return trn_fail(
        err, TRN_ERR_ARGUMENT,
        "images of %s pixels do not suit encoder '%s', which wants a multiple of %d (at most %d): use "
        "resize, for example to %lld",
        shape, member->wish->model, multiple, (int)MAX_SIDE,
        (long long)TRN_MIN(MAX_SIDE / multiple * multiple, (side + multiple - 1) / multiple * multiple));
}

static trn_status plan_image_windows(job_plan *plan, trn_error *err)
{
    const trn_embed_job *job = plan->job;
    if (job->tile)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "tile is %d, but images are not cut into tiles: use resize to change their size",
                        job->tile);
    if (job->scene.resize < 0)
        return trn_fail(err, TRN_ERR_ARGUMENT, "resize is %d; wanted a side in pixels", job->scene.resize);
    int64_t width = job->scene.resize ? job->scene.resize : plan->info->width;
    int64_t height = job->scene.resize ? job->scene.resize : plan->info->height;
    for (size_t i = 0; i < plan->encoder_count; i++) {
        trn_status status =
            job_blame(plan->hooks, job_check_image_shape(plan, &plan->encoders[i], width, height, err),
                      TRN_JOB_SCENE, 0);
        if (status != TRN_OK) return status;
    }
    plan->width = (int)width;
    plan->height = (int)height;
    plan->windows = (int64_t)plan->path_count;
    plan->grid_width = plan->windows;
    plan->grid_height = 1;
    return TRN_OK;
}

static trn_status choose_overlap(const job_plan *plan, int cell, int *overlap, trn_error *err)
{
    int wanted = plan->job->overlap;
    if (wanted < 0) {
        int eighth = (plan->tile / 8 + cell - 1) / cell * cell;
        wanted = plan->pooled ? 0 : TRN_MIN(eighth, plan->tile / 2 / cell * cell);
    }
    if (wanted > plan->tile / 2)
        return trn_fail(err, TRN_ERR_ARGUMENT, "overlap is %d; wanted at most half the tile of %d pixels",
                        wanted, plan->tile);
    if (wanted % cell)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "overlap is %d; wanted a multiple of the feature cell of %d pixels, such as %d",
                        wanted, cell, (wanted + cell - 1) / cell * cell);
    *overlap = wanted;
    return TRN_OK;
}

void job_plan_shift(job_plan *plan, double pixels)
{
    const double *gt = plan->info->georef.transform;
    plan->georef.transform[0] += pixels * (gt[1] + gt[2]);
    plan->georef.transform[3] += pixels * (gt[4] + gt[5]);
}

/* Pooled windows are a grid whose cells are a step wide and centred on the windows. */
static void place_tile_vectors(job_plan *plan)
{
    int step = plan->tiling.tile - plan->tiling.overlap;
    double shift = plan->tiling.overlap / 2.0;
    plan->grid_width = plan->tiling.columns;
    plan->grid_height = plan->tiling.rows;
    plan->georef = trn_georef_coarsen(&plan->info->georef, step);
    job_plan_shift(plan, shift);
}

static trn_status plan_scene_windows(job_plan *plan, trn_error *err)
{
    const trn_embed_job *job = plan->job;
    if (job->scene.resize)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "resize is for folders of images; a scene is read in tiles as it is");
    if (job->tile < 0 || job->compose.cell < 0)
        return trn_fail(err, TRN_ERR_ARGUMENT, "tile and cell cannot be negative (%d, %d)", job->tile,
                        job->compose.cell);
    plan->cell = job->compose.cell ? job->compose.cell : trn_compose_cell(plan->handles, plan->encoder_count);
    trn_status status =
        trn_compose_tile(plan->handles, plan->encoder_count, plan->cell, job->tile, &plan->tile, err);
    if (status != TRN_OK) return status;
    if (job->tile && plan->tile != job->tile)
        job_plan_note(plan, "tiles are %d pixels wide instead of %d, which is what the encoders can divide",
                      plan->tile, job->tile);
    if (plan->pooled) plan->cell = 1;
    int overlap = 0;
    status = choose_overlap(plan, plan->cell, &overlap, err);
    if (status == TRN_OK)
        status = trn_tiling_plan(plan->info->width, plan->info->height, plan->tile, overlap, plan->cell,
                                 &plan->tiling, err);
    if (status != TRN_OK) return status;
    plan->windows = plan->tiling.columns * plan->tiling.rows;
    plan->width = plan->height = plan->tile;
    if (plan->pooled) {
        place_tile_vectors(plan);
        plan->cell = plan->tile;
        return TRN_OK;
    }
    plan->grid_width = plan->tiling.grid_width;
    plan->grid_height = plan->tiling.grid_height;
    plan->georef = trn_georef_coarsen(&plan->info->georef, plan->cell);
    return TRN_OK;
}

static trn_status create(job_plan *plan, const trn_embed_job *job, const trn_job_hooks *hooks, bool draws,
                         trn_error *err)
{
    *plan = (job_plan){.job = job, .hooks = hooks, .draws = draws};
    trn_status status = TRN_OK;
    if (job->batch < 0 || job->batch > 4096) {
        status =
            trn_fail(err, TRN_ERR_ARGUMENT, "batch is %d; wanted 1 to 4096, or 0 for automatic", job->batch);
        goto fail;
    }
    plan->arena = trn_arena_create();
    if (!plan->arena) {
        status = trn_fail_memory(err, sizeof(job_plan), "the plan of the job");
        goto fail;
    }
    status = job_blame(hooks, plan_scene(plan, err), TRN_JOB_SCENE, 0);
    if (status == TRN_OK) status = job_plan_encoders(plan, err);
    if (status == TRN_OK) {
        status = plan->images ? plan_image_windows(plan, err) : plan_scene_windows(plan, err);
        job_blame(hooks, status, plan->images ? TRN_JOB_SCENE : TRN_JOB_WHOLE, 0);
    }
    if (status == TRN_OK) status = job_blame(hooks, job_place_plan(plan, err), TRN_JOB_SCENE, 0);
    if (status == TRN_OK) status = job_units_plan(plan, err);
    if (status == TRN_OK) return TRN_OK;
fail:
    job_plan_destroy(plan);
    return status;
}

trn_status job_plan_create(job_plan *plan, const trn_embed_job *job, const trn_job_hooks *hooks,
                           trn_error *err)
{
    return create(plan, job, hooks, false, err);
}

trn_status job_plan_create_drawing(job_plan *plan, const trn_embed_job *job, const trn_job_hooks *hooks,
                                   trn_error *err)
{
    return create(plan, job, hooks, true, err);
}

void job_plan_destroy(job_plan *plan)
{
    for (size_t i = 0; plan->encoders && i < plan->encoder_count; i++) {
        trn_encoder_destroy(plan->encoders[i].encoder);
        trn_weights_close(plan->encoders[i].weights);
    }
    job_dates_close(plan);
    trn_locator_destroy(plan->locator);
    trn_names_free(plan->listed, plan->listed_count);
    trn_arena_destroy(plan->arena);
    *plan = (job_plan){0};
}
