/* Reconstruction: one window of a scene or series, partly hidden, through an encoder and its decoder; a
 * picture of what came out. */
#include "job_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { COLOURS = 3, PANELS = 3, GAP = 4, GOOD_SIDE = 256, GREY = 96 };
#define USUAL_RATIO 0.75

typedef struct reconstruction {
    const trn_reconstruct_job *job;
    trn_embed_job embed; /* what the plan is made for */
    job_plan plan;
    planned_encoder *member;
    int64_t x, y, side;
    size_t first, dates, channels, area;
    trn_patch_size patch;
    int64_t patches;
    trn_mask mask;
    int32_t *order;  /* [patches] */
    uint8_t *hidden; /* [patches] */
    float *place;    /* [location_values], or NULL */
    float *pixels;   /* [all dates, plan's bands, area] as read */
    uint8_t *valid;  /* [area] */
    float *input;    /* [dates, channels, area] stored values, then as the encoder saw them */
    float *drawn;    /* [dates, channels, area] */
    float loss;
    trn_graph *graph;
    trn_exec *exec;
    char *paths[2]; /* picture, result.json */
} reconstruction;

/* ---- planning ---- */

static trn_status check_wishes(const trn_reconstruct_job *job, const trn_job_hooks *hooks, trn_error *err)
{
    trn_status status = TRN_OK;
    if (job->size < 0 || job->mask_ratio < 0 || job->mask_ratio >= 1 || isnan(job->mask_ratio))
        status = trn_fail(err, TRN_ERR_ARGUMENT,
                          "the window's size is %d and the mask ratio %g; wanted a side in pixels, and a "
                          "ratio above 0 and below 1",
                          job->size, job->mask_ratio);
    if (status != TRN_OK) return job_blame(hooks, status, TRN_JOB_WHOLE, 0);
    if (!job->picture.path || strcasecmp(trn_path_extension(job->picture.path), "png") != 0)
        status = trn_fail(err, TRN_ERR_ARGUMENT, "output '%s': a reconstruction is a picture; name a .png",
                          job->picture.path ? job->picture.path : "");
    return job_blame(hooks, status, TRN_JOB_EXPORT, 0);
}

static trn_status find_window(reconstruction *r, trn_error *err)
{
    const job_plan *plan = &r->plan;
    const trn_reconstruct_job *job = r->job;
    int64_t width = plan->info->width, height = plan->info->height;
    r->side = plan->tile;
    r->x = job->has_place ? job->x : TRN_MAX((width - r->side) / 2, 0);
    r->y = job->has_place ? job->y : TRN_MAX((height - r->side) / 2, 0);
    if (r->x >= 0 && r->y >= 0 && r->x + r->side <= width && r->y + r->side <= height) return TRN_OK;
    return trn_fail(
        err, TRN_ERR_ARGUMENT,
        "a window of %lld pixels a side at column %lld, row %lld is not inside the scene of %lld x %lld "
        "pixels: choose another place, or a smaller size",
        (long long)r->side, (long long)r->x, (long long)r->y, (long long)width, (long long)height);
}

/* Which patches are hidden: those that come last when all are put into a random order. */
static trn_status choose_patches(reconstruction *r, trn_error *err)
{
    trn_text stream = {0};
    trn_status status = TRN_OK;
    float *noise = NULL;
    double ratio = r->job->mask_ratio > 0 ? r->job->mask_ratio : USUAL_RATIO;
    int64_t cells = r->side / r->patch.side;
    r->patches = (int64_t)r->dates / r->patch.dates * cells * cells;
    status = trn_masked_visible(r->patches, ratio, &r->mask.visible, err);
    if (status != TRN_OK) return status;
    noise = malloc((size_t)r->patches * sizeof *noise);
    r->order = malloc((size_t)r->patches * sizeof *r->order);
    r->hidden = malloc((size_t)r->patches);
    trn_text_printf(&stream, "hidden patches of seed %llu", (unsigned long long)r->job->seed);
    if (!noise || !r->order || !r->hidden || stream.failed) {
        status = trn_fail_memory(err, (size_t)r->patches * sizeof *noise, "a mask");
        goto fail;
    }
    uint64_t hash = trn_fnv1a64(stream.data, stream.length, TRN_FNV_SEED);
    for (int64_t i = 0; i < r->patches; i++)
        noise[i] = (float)trn_hash_uniform(hash, (uint64_t)i);
    status = trn_masked_sort(noise, r->patches, r->order, err);
    r->mask.order = r->order;
    for (int64_t i = 0; status == TRN_OK && i < r->patches; i++)
        r->hidden[r->order[i]] = i >= r->mask.visible;
fail:
    trn_text_free(&stream);
    free(noise);
    return status;
}

static trn_status plan_reconstruction(reconstruction *r, const trn_reconstruct_job *job,
                                      const trn_job_hooks *hooks, trn_error *err)
{
    *r = (reconstruction){.job = job};
    r->embed = (trn_embed_job){.name = job->name,
                               .scene = job->scene,
                               .encoders = &job->encoder,
                               .encoder_count = 1,
                               .tile = job->size,
                               .memory_limit = job->memory_limit,
                               .exports = &job->picture,
                               .export_count = 1,
                               .out_dir = job->out_dir,
                               .strict = job->strict,
                               .result_extra = job->result_extra};
    trn_status status = check_wishes(job, hooks, err);
    if (status == TRN_OK) status = job_check_outputs(&r->embed, hooks, err);
    if (status == TRN_OK) status = job_plan_create_drawing(&r->plan, &r->embed, hooks, err);
    if (status != TRN_OK) return status;
    if (r->plan.images) {
        status =
            trn_fail(err, TRN_ERR_ARGUMENT, "a window of one scene is reconstructed, not a folder of images");
        return job_blame(hooks, status, TRN_JOB_SCENE, 0);
    }
    size_t end;
    r->member = &r->plan.encoders[0];
    job_member_dates(&r->plan, r->member, &r->first, &end);
    r->dates = end - r->first;
    r->channels = r->member->channel_count;
    r->patch = trn_masked_patch(r->member->encoder);
    status = find_window(r, err);
    if (status == TRN_OK) status = choose_patches(r, err);
    return job_blame(hooks, status, TRN_JOB_WHOLE, 0);
}

static void release(reconstruction *r)
{
    trn_exec_destroy(r->exec);
    trn_graph_destroy(r->graph);
    free(r->order);
    free(r->hidden);
    free(r->place);
    free(r->pixels);
    free(r->valid);
    free(r->input);
    free(r->drawn);
    free(r->paths[0]);
    free(r->paths[1]);
    job_plan_destroy(&r->plan);
}

/* ---- the window ---- */

static trn_status allocate(reconstruction *r, trn_error *err)
{
    size_t read, seen;
    r->area = (size_t)r->side * (size_t)r->side;
    bool countable = trn_mul_size(r->area, r->plan.date_count * r->plan.band_count * sizeof(float), &read) &&
                     trn_mul_size(r->area, r->dates * r->channels * sizeof(float), &seen);
    if (!countable) return trn_fail_memory(err, r->area, "the window");
    r->pixels = malloc(read);
    r->valid = malloc(r->area);
    r->input = malloc(seen);
    r->drawn = malloc(seen);
    if (!r->pixels || !r->valid || !r->input || !r->drawn)
        return trn_fail_memory(err, read + 2 * seen, "the window");
    return TRN_OK;
}

/* One band of one date from the window read to the encoder's image. */
static void take_band(reconstruction *r, size_t date, size_t channel)
{
    const planned_encoder *member = r->member;
    size_t band = (size_t)member->channels[channel];
    const float *from = r->pixels + ((r->first + date) * r->plan.band_count + band) * r->area;
    float *to = r->input + (date * r->channels + channel) * r->area;
    for (size_t i = 0; i < r->area; i++) {
        to[i] = from[i];
        if (member->low) to[i] = fminf(fmaxf(to[i], member->low[channel]), member->high[channel]);
    }
}

static trn_status read_window(reconstruction *r, trn_error *err)
{
    trn_status status = allocate(r, err);
    if (status == TRN_OK)
        status = job_window_read(&r->plan, r->x, r->y, r->side, r->side, r->pixels, r->valid, err);
    if (status != TRN_OK) return status;
    if (!memchr(r->valid, 1, r->area))
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "the window at column %lld, row %lld of '%s' has no data in all bands and dates: choose "
            "another place",
            (long long)r->x, (long long)r->y, r->plan.info->name);
    for (size_t t = 0; t < r->dates; t++)
        for (size_t c = 0; c < r->channels; c++)
            take_band(r, t, c);
    return TRN_OK;
}

static trn_status find_place(reconstruction *r, trn_error *err)
{
    double place[2];
    int values = r->member->spec->location_values;
    if (!r->plan.located || values < 1) return TRN_OK;
    trn_status status = job_place_of_window(&r->plan, r->x, r->y, r->valid, place, err);
    if (status != TRN_OK) return status;
    r->place = malloc((size_t)values * sizeof *r->place);
    if (!r->place) return trn_fail_memory(err, (size_t)values * sizeof *r->place, "a place");
    trn_encoder_encode_location(r->member->encoder, place[0], place[1], r->place);
    return TRN_OK;
}

/* ---- the graph ---- */

static trn_status compile(reconstruction *r, trn_gpu *gpu, bool plan_only, trn_error *err)
{
    const planned_encoder *member = r->member;
    trn_encode_options options = {.normalize = member->wish->normalize,
                                  .value_scale = member->converts ? member->scale : NULL,
                                  .value_offset = member->converts ? member->offset : NULL,
                                  .mean = member->mean,
                                  .std = member->std};
    trn_compile_options how = {.plan_only = plan_only, .memory_limit = r->job->memory_limit};
    trn_masked made;
    r->graph = trn_graph_create();
    if (!r->graph) return trn_fail_memory(err, 0, "a graph");
    trn_tensor *image = trn_input(r->graph, "image", TRN_F32,
                                  TRN_SHAPE(1, (int64_t)r->dates, (int64_t)r->channels, r->side, r->side));
    options.valid = trn_input(r->graph, "valid", TRN_F32, TRN_SHAPE(1, 1, r->side, r->side));
    if (r->plan.located && member->spec->location_values > 0)
        options.location = trn_input(r->graph, "place", TRN_F32, TRN_SHAPE(1, member->spec->location_values));
    trn_status status = trn_masked_build(member->encoder, r->graph, image, &options, &r->mask, &made, err);
    if (status != TRN_OK) return status;
    trn_output_add(r->graph, "seen", trn_affine(r->graph, made.image, 1, 0));
    trn_output_add(r->graph, "drawn", made.drawn);
    trn_output_add(r->graph, "loss", made.loss);
    return trn_compile(r->graph, gpu, &how, &r->exec, err);
}

static trn_status check_finite(const reconstruction *r, trn_error *err)
{
    bool finite = isfinite(r->loss);
    for (size_t i = 0; finite && i < r->dates * r->channels * r->area; i++)
        finite = isfinite(r->drawn[i]);
    if (finite) return TRN_OK;
    return trn_fail(
        err, TRN_ERR_FORMAT,
        "what is drawn of '%s' is not finite: the weights are damaged, or the scene's values are far "
        "from what the encoder was made for",
        r->plan.info->name);
}

/* Which pixels have data, as the graph wants it. */
static trn_status set_valid(reconstruction *r, trn_error *err)
{
    float *valid = malloc(r->area * sizeof *valid);
    if (!valid) return trn_fail_memory(err, r->area * sizeof *valid, "the window");
    for (size_t i = 0; i < r->area; i++)
        valid[i] = r->valid[i] ? 1.0F : 0.0F;
    trn_status status = trn_exec_set(r->exec, "valid", valid, err);
    free(valid);
    return status;
}

static trn_status draw(reconstruction *r, trn_gpu *gpu, const trn_progress *progress, trn_error *err)
{
    trn_status status = compile(r, gpu, false, err);
    if (status == TRN_OK) status = trn_exec_set(r->exec, "image", r->input, err);
    if (status == TRN_OK) status = set_valid(r, err);
    if (status == TRN_OK && r->place) status = trn_exec_set(r->exec, "place", r->place, err);
    if (status == TRN_OK) status = trn_exec_run(r->exec, progress, err);
    if (status == TRN_OK) status = trn_exec_get(r->exec, "seen", r->input, err);
    if (status == TRN_OK) status = trn_exec_get(r->exec, "drawn", r->drawn, err);
    if (status == TRN_OK) status = trn_exec_get(r->exec, "loss", &r->loss, err);
    return status == TRN_OK ? check_finite(r, err) : status;
}

/* ---- the picture ---- */

/* A colour of the picture: which channel, how its normalised numbers become the encoder's values, and what
 * those are stretched between. */
typedef struct colour {
    size_t channel;
    double scale, offset, low, high;
} colour;

static const char *channel_name(const reconstruction *r, size_t channel)
{
    return r->plan.common_names[r->plan.bands[r->member->channels[channel]]];
}

static void pick_channels(const reconstruction *r, colour *colours)
{
    static const char *const names[COLOURS] = {"red", "green", "blue"};
    size_t found = 0;
    for (size_t k = 0; k < COLOURS; k++) {
        colours[k].channel = r->channels < COLOURS ? 0 : k;
        for (size_t c = 0; c < r->channels && found == k; c++)
            if (!strcmp(channel_name(r, c), names[k])) {
                colours[k].channel = c;
                found++;
            }
    }
    for (size_t k = 0; k < COLOURS && found < COLOURS; k++)
        colours[k].channel = r->channels < COLOURS ? 0 : k;
}

/* Back from normalised numbers to values that bands have in common. */
static void find_units(const reconstruction *r, colour *colours)
{
    const planned_encoder *member = r->member;
    for (size_t k = 0; k < COLOURS; k++) {
        size_t c = colours[k].channel;
        colours[k].scale = 1;
        colours[k].offset = 0;
        if (member->wish->normalize == TRN_NORMALIZE_ZSCORE && (double)member->std[c] > 0) {
            colours[k].scale = (double)member->std[c];
            colours[k].offset = (double)member->mean[c];
        }
        if (member->wish->normalize != TRN_NORMALIZE_MODEL || c >= member->spec->band_count) continue;
        colours[k].scale = member->spec->bands[c].std;
        colours[k].offset = member->spec->bands[c].mean;
    }
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* One stretch for all colours and panels: 2nd to 98th percentile of the window. */
static trn_status find_stretch(const reconstruction *r, colour *colours, trn_error *err)
{
    size_t count = 0, most = r->dates * COLOURS * r->area;
    float *values = malloc(most * sizeof *values);
    if (!values) return trn_fail_memory(err, most * sizeof *values, "the picture");
    for (size_t t = 0; t < r->dates; t++)
        for (size_t k = 0; k < COLOURS; k++) {
            const float *plane = r->input + (t * r->channels + colours[k].channel) * r->area;
            for (size_t i = 0; i < r->area; i++)
                if (r->valid[i])
                    values[count++] = (float)((double)plane[i] * colours[k].scale + colours[k].offset);
        }
    qsort(values, count, sizeof *values, compare_floats);
    for (size_t k = 0; k < COLOURS; k++) {
        colours[k].low = (double)values[(count - 1) * 2 / 100];
        colours[k].high = (double)values[(count - 1) - (count - 1) * 2 / 100];
    }
    free(values);
    return TRN_OK;
}

static bool is_hidden(const reconstruction *r, size_t date, size_t pixel)
{
    size_t side = (size_t)r->side, p = (size_t)r->patch.side, cells = side / p;
    size_t row = pixel / side / p, column = pixel % side / p;
    return r->hidden[(date / (size_t)r->patch.dates * cells + row) * cells + column];
}

static uint8_t shade(const colour *how, float value)
{
    double v = (double)value * how->scale + how->offset;
    double s = how->high > how->low ? 255 * (v - how->low) / (how->high - how->low) : 128;
    return (uint8_t)(fmin(fmax(s, 0), 255) + 0.5);
}

/* Pixel of a panel: 0 the window, 1 with hidden patches grey, 2 with what was drawn there. */
static void paint(const reconstruction *r, const colour *colours, size_t date, int panel, size_t pixel,
                  uint8_t *rgba)
{
    bool hidden = panel > 0 && is_hidden(r, date, pixel);
    const float *planes = (hidden ? r->drawn : r->input) + date * r->channels * r->area;
    for (size_t k = 0; k < COLOURS; k++)
        rgba[k] =
            hidden && panel == 1 ? GREY : shade(&colours[k], planes[colours[k].channel * r->area + pixel]);
    rgba[3] = r->valid[pixel] ? 255 : 0;
}

static trn_status write_picture(const reconstruction *r, trn_error *err)
{
    colour colours[COLOURS] = {{0}};
    size_t side = (size_t)r->side, zoom = TRN_MAX(GOOD_SIDE / side, 1), shown = side * zoom;
    size_t width = PANELS * shown + (PANELS - 1) * GAP, height = r->dates * (shown + GAP) - GAP;
    pick_channels(r, colours);
    find_units(r, colours);
    trn_status status = find_stretch(r, colours, err);
    if (status != TRN_OK) return status;
    uint8_t *rgba = calloc(width * height, 4); /* gaps are transparent */
    if (!rgba) return trn_fail_memory(err, width * height * 4, "the picture");
    for (size_t t = 0; t < r->dates; t++)
        for (int panel = 0; panel < PANELS; panel++) {
            uint8_t *corner = rgba + (t * (shown + GAP) * width + (size_t)panel * (shown + GAP)) * 4;
            for (size_t y = 0; y < shown; y++)
                for (size_t x = 0; x < shown; x++)
                    paint(r, colours, t, panel, y / zoom * side + x / zoom, corner + (y * width + x) * 4);
        }
    status = trn_picture_write(r->paths[0], (int64_t)width, (int64_t)height, rgba, err);
    free(rgba);
    return status;
}

/* ---- outputs ---- */

static trn_status name_outputs(reconstruction *r, trn_error *err)
{
    const char *dir = r->job->out_dir ? r->job->out_dir : ".";
    const char *const names[] = {r->job->picture.path, "result.json"};
    trn_status status = trn_make_dirs(dir, err);
    for (size_t i = 0; status == TRN_OK && i < TRN_COUNT(names); i++) {
        r->paths[i] = trn_path_join(dir, names[i]);
        if (!r->paths[i]) return trn_fail_memory(err, strlen(dir), "an output name");
        /* found now, not after the work */
        trn_output *probe = NULL;
        status = trn_output_create(r->paths[i], &probe, err);
        if (status == TRN_OK) trn_output_abandon(probe);
    }
    return status;
}

static trn_status write_result(const reconstruction *r, trn_gpu *gpu, const trn_reconstruct_result *result,
                               trn_error *err)
{
    trn_text out = {0};
    job_result_begin(&r->plan, gpu, &out);
    trn_text_printf(
        &out,
        "  \"reconstruction\": {\"loss\": %.9g, \"x\": %lld, \"y\": %lld, \"size\": %d, \"dates\": %d, "
        "\"patches\": %lld, \"hidden\": %lld, \"seed\": %llu, \"seconds\": %.6g},\n",
        result->loss, (long long)result->x, (long long)result->y, result->size, result->dates,
        (long long)result->patches, (long long)result->hidden, (unsigned long long)r->job->seed,
        result->seconds);
    trn_status status = job_result_end(&r->plan, &out, r->paths[1], err);
    trn_text_free(&out);
    return status;
}

static trn_status give_files(reconstruction *r, trn_reconstruct_result *result, trn_error *err)
{
    result->files = calloc(TRN_COUNT(r->paths), sizeof *result->files);
    if (!result->files) return trn_fail_memory(err, sizeof r->paths, "output names");
    result->file_count = TRN_COUNT(r->paths);
    memcpy(result->files, r->paths, sizeof r->paths);
    memset(r->paths, 0, sizeof r->paths);
    return TRN_OK;
}

trn_status trn_reconstruct_check(const trn_reconstruct_job *job, const trn_job_hooks *hooks, trn_error *err)
{
    reconstruction r;
    trn_status status = plan_reconstruction(&r, job, hooks, err);
    release(&r);
    return status;
}

trn_status trn_reconstruct_explain(const trn_reconstruct_job *job, trn_gpu *gpu, const trn_job_hooks *hooks,
                                   trn_text *out, trn_error *err)
{
    reconstruction r;
    trn_status status = plan_reconstruction(&r, job, hooks, err);
    if (status == TRN_OK) status = job_plan_learn(&r.plan, err);
    if (status == TRN_OK) status = compile(&r, gpu, true, err);
    if (status == TRN_OK) {
        trn_text_printf(out, "window    %lld x %lld pixels at column %lld, row %lld, %zu dates\n",
                        (long long)r.side, (long long)r.side, (long long)r.x, (long long)r.y, r.dates);
        trn_text_printf(out, "patches   %lld, of which %lld are hidden\n\n", (long long)r.patches,
                        (long long)(r.patches - r.mask.visible));
        trn_exec_explain(r.exec, out);
        status = job_offer_graph(hooks, r.exec, err);
        if (status == TRN_OK && out->failed) status = trn_fail_memory(err, out->length, "the explanation");
    }
    release(&r);
    return status;
}

trn_status trn_reconstruct_run(const trn_reconstruct_job *job, trn_gpu *gpu, const trn_job_hooks *hooks,
                               trn_reconstruct_result *result, trn_error *err)
{
    reconstruction r;
    uint64_t start = trn_now_ns();
    *result = (trn_reconstruct_result){0};
    trn_status status = plan_reconstruction(&r, job, hooks, err);
    if (status == TRN_OK) status = job_blame(hooks, name_outputs(&r, err), TRN_JOB_EXPORT, 0);
    if (status == TRN_OK) status = job_plan_learn(&r.plan, err);
    if (status == TRN_OK) status = job_blame(hooks, read_window(&r, err), TRN_JOB_SCENE, 0);
    if (status == TRN_OK) status = find_place(&r, err);
    if (status == TRN_OK) status = draw(&r, gpu, hooks ? &hooks->progress : NULL, err);
    if (status == TRN_OK) status = write_picture(&r, err);
    if (status != TRN_OK) goto fail;
    trn_reconstruct_result made = {.loss = (double)r.loss,
                                   .x = r.x,
                                   .y = r.y,
                                   .patches = r.patches,
                                   .hidden = r.patches - r.mask.visible,
                                   .size = (int)r.side,
                                   .dates = (int)r.dates,
                                   .seconds = (double)(trn_now_ns() - start) * 1e-9};
    status = write_result(&r, gpu, &made, err);
    if (status == TRN_OK) status = give_files(&r, &made, err);
    if (status == TRN_OK) *result = made;
fail:
    release(&r);
    return status;
}

void trn_reconstruct_result_free(trn_reconstruct_result *result)
{
    if (result->files) trn_names_free(result->files, result->file_count);
    *result = (trn_reconstruct_result){0};
}
