/* Running a job: windows in, features out, stitched and written while they come. */
#include "job_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WAIT_MS = 10 };

/* A batch on the device, or done there and not yet placed. Flight i sits on seat i of the executable. */
typedef struct flight {
    read_item *items;
    size_t item_count, item_capacity;
    uint8_t *cell_valid; /* [batch, cells per window] */
    bool runs;           /* on the device: some window has data */
} flight;

/* Where features go: the open writers, and for pooled grids the row of cells that is being filled. */
typedef struct run_state {
    job_plan plan;
    job_engine engine;
    window_reader *reader;
    trn_stitcher *stitcher;
    trn_writer **writers; /* [export_count] */
    char **paths;         /* [export_count + 1], final names; the last is result.json */
    size_t path_count;
    float *row;      /* pooled: [grid_width, channels] */
    float *location; /* [batch, the most location_values], or NULL */
    flight flights[JOB_SEATS];
    int first, in_flight; /* the oldest flight, and how many there are */
    int64_t done;
} run_state;

static trn_status write_rows(void *user, int64_t first_row, int64_t rows, const float *values, trn_error *err)
{
    run_state *run = user;
    for (size_t i = 0; i < run->plan.job->export_count; i++) {
        trn_status status = trn_writer_rows(run->writers[i], first_row, rows, values, err);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}

/* ---- before the first window ---- */

static trn_status name_outputs(run_state *run, trn_error *err)
{
    const trn_embed_job *job = run->plan.job;
    const char *dir = job->out_dir ? job->out_dir : ".";
    trn_status status = trn_make_dirs(dir, err);
    if (status != TRN_OK) return status;
    run->paths = calloc(job->export_count + 1, sizeof *run->paths);
    run->writers = calloc(job->export_count + 1, sizeof(trn_writer *));
    if (!run->paths || !run->writers)
        return trn_fail_memory(err, job->export_count * sizeof(char *), "output names");
    for (size_t i = 0; i <= job->export_count; i++) {
        if (i == job->export_count && job->no_result) break;
        run->paths[i] = trn_path_join(dir, i < job->export_count ? job->exports[i].path : "result.json");
        if (!run->paths[i]) return trn_fail_memory(err, strlen(dir), "an output name");
        run->path_count++;
        /* an output that cannot be written is found now, not after hours of work */
        trn_output *probe = NULL;
        status = trn_output_create(run->paths[i], &probe, err);
        if (status != TRN_OK) return status;
        trn_output_abandon(probe);
    }
    return TRN_OK;
}

static trn_status open_writers(run_state *run, trn_error *err)
{
    const job_plan *plan = &run->plan;
    trn_text description = {0};
    char *sidecar = job_result_sidecar(plan, &run->engine);
    trn_status status = sidecar ? TRN_OK : trn_fail_memory(err, 0, "the sidecar");
    for (size_t i = 0; i < plan->encoder_count; i++)
        trn_text_printf(&description, "%s%s",
                        i ? (plan->job->compose.fusion == TRN_FUSION_AVERAGE ? ", " : " + ") : "",
                        plan->encoders[i].spec->name);
    if (trn_exec_summarize(run->engine.exec).precision == TRN_PRECISION_FLOAT16)
        trn_text_add(&description, ", computed in float16");
    trn_export_grid grid = {
        .width = plan->grid_width,
        .height = plan->grid_height,
        .channels = run->engine.channels,
        .georef = plan->georef,
        .description = trn_text_get(&description),
    };
    for (size_t i = 0; status == TRN_OK && i < plan->job->export_count; i++) {
        trn_export_options options = plan->job->exports[i].options;
        if (!options.sidecar) options.sidecar = sidecar;
        status = trn_writer_open(run->paths[i], &grid, &options, &run->writers[i], err);
    }
    free(sidecar);
    trn_text_free(&description);
    return status;
}

static trn_status make_room_for_flights(run_state *run, trn_error *err)
{
    const job_plan *plan = &run->plan;
    size_t row = 0, flags = ((size_t)run->engine.batch + 1) * job_cells_per_window(plan);
    bool ok = trn_mul_size((size_t)plan->grid_width, (size_t)run->engine.channels * sizeof(float), &row);
    if (ok && plan->pooled) ok = (run->row = malloc(row)) != NULL;
    for (int i = 0; ok && i < run->engine.seats; i++)
        ok = (run->flights[i].cell_valid = malloc(flags)) != NULL;
    return ok ? TRN_OK : trn_fail_memory(err, row + flags, "features");
}

static trn_status make_room_for_places(run_state *run, trn_error *err)
{
    size_t most = 0, batch = (size_t)run->engine.batch;
    for (size_t i = 0; i < run->plan.encoder_count; i++)
        most = TRN_MAX(most, (size_t)run->plan.encoders[i].spec->location_values);
    if (!run->plan.located || !most) return TRN_OK;
    run->location = calloc(most * batch, sizeof *run->location);
    return run->location ? TRN_OK : trn_fail_memory(err, most * batch * sizeof *run->location, "places");
}

static trn_status prepare(run_state *run, trn_gpu *gpu, trn_error *err)
{
    const job_plan *plan = &run->plan;
    trn_status status = job_check_plan_outputs(plan, err);
    if (status == TRN_OK) status = name_outputs(run, err);
    if (status == TRN_OK) status = job_plan_learn(&run->plan, err);
    if (status == TRN_OK) status = job_engine_create(plan, gpu, false, &run->engine, err);
    if (status == TRN_OK) job_plan_shift(&run->plan, run->engine.offset);
    if (status == TRN_OK) status = open_writers(run, err);
    if (status != TRN_OK) return status;
    status = make_room_for_flights(run, err);
    if (status == TRN_OK) status = make_room_for_places(run, err);
    if (status == TRN_OK && !plan->pooled)
        status =
            trn_stitcher_create(&plan->tiling, run->engine.channels, write_rows, run, &run->stitcher, err);
    if (status == TRN_OK) status = job_reader_create(plan, run->engine.batch, &run->reader, err);
    return status;
}

/* ---- windows ---- */

/* Damaged weights and values far out of range show as infinities: they must not pass for nodata. */
static trn_status check_finite(const run_state *run, const float *features, int64_t window, trn_error *err)
{
    bool half = trn_exec_summarize(run->engine.exec).precision == TRN_PRECISION_FLOAT16;
    for (int64_t i = 0; i < run->engine.values_per_window; i++) {
        if (isfinite(features[i])) continue;
        return trn_fail(
            err, TRN_ERR_FORMAT,
            "the features of %s %lld of '%s' are not finite: %sthe weights are damaged, or the scene's "
            "values are far from what the encoder was made for",
            run->plan.images ? "image" : "window", (long long)window + 1,
            run->plan.images ? run->plan.paths[window] : run->plan.info->name,
            half ? "values left the range of float16 (take precision float32), or " : "");
    }
    return TRN_OK;
}

/* Pooled windows: one cell of the output's grid each, rows as they fill. */
static trn_status place_vector(run_state *run, int64_t window, const float *vector, bool valid,
                               trn_error *err)
{
    int64_t width = run->plan.grid_width, column = window % width;
    float *cell = run->row + column * run->engine.channels;
    for (int c = 0; c < run->engine.channels; c++)
        cell[c] = vector && valid ? vector[c] : NAN;
    return column == width - 1 ? write_rows(run, window / width, 1, run->row, err) : TRN_OK;
}

static trn_status place_window(run_state *run, const flight *f, const read_item *item, const float *all,
                               trn_error *err)
{
    const float *features = NULL;
    const uint8_t *cells = NULL;
    if (item->slot >= 0 && !all)
        return trn_fail(err, TRN_ERR_INTERNAL, "window %lld has data, and its batch did not run",
                        (long long)item->window + 1);
    if (item->slot >= 0) {
        features = all + (int64_t)item->slot * run->engine.values_per_window;
        cells = f->cell_valid + (size_t)item->slot * job_cells_per_window(&run->plan);
        trn_status status = check_finite(run, features, item->window, err);
        if (status != TRN_OK) return status;
    }
    if (run->plan.pooled) return place_vector(run, item->window, features, cells && cells[0], err);
    return trn_stitcher_add(run->stitcher, item->window, features, cells, err);
}

static trn_status set_places(run_state *run, int seat, const read_batch *batch, trn_error *err)
{
    char name[32];
    trn_status status = TRN_OK;
    for (size_t i = 0; i < run->plan.encoder_count && status == TRN_OK; i++) {
        if (!job_location_input(&run->plan, i, name)) continue;
        job_place_encode(&run->plan.encoders[i], batch, run->location);
        status = trn_exec_seat_set(run->engine.exec, seat, name, run->location, err);
    }
    return status;
}

/* ---- flights: while the device works on one batch, the next is read and the last is placed ---- */

static trn_status keep_items(const run_state *run, flight *f, const read_batch *batch, trn_error *err)
{
    if (!trn_grow(&f->items, &f->item_capacity, batch->item_count, sizeof *f->items))
        return trn_fail_memory(err, batch->item_count * sizeof *f->items, "a list of windows");
    memcpy(f->items, batch->items, batch->item_count * sizeof *f->items);
    f->item_count = batch->item_count;
    memcpy(f->cell_valid, batch->cell_valid, (size_t)batch->used * job_cells_per_window(&run->plan));
    return TRN_OK;
}

static trn_status launch(run_state *run, const read_batch *batch, const trn_progress *progress,
                         trn_error *err)
{
    trn_exec *exec = run->engine.exec;
    int behind = run->first + run->in_flight;
    int seat = behind < run->engine.seats ? behind : behind - run->engine.seats;
    flight *f = &run->flights[seat];
    trn_status status = keep_items(run, f, batch, err);
    f->runs = batch->used > 0;
    if (status == TRN_OK && f->runs) {
        status = trn_exec_seat_set(exec, seat, "image", batch->pixels, err);
        if (status == TRN_OK) status = trn_exec_seat_set(exec, seat, "valid", batch->valid, err);
        if (status == TRN_OK) status = set_places(run, seat, batch, err);
        if (status == TRN_OK) status = trn_exec_start(exec, seat, progress, err);
    }
    run->in_flight += status == TRN_OK;
    return status;
}

/* Waits for the oldest flight and places its windows. */
static trn_status land(run_state *run, const trn_progress *progress, trn_error *err)
{
    flight *f = &run->flights[run->first];
    const float *features = NULL;
    trn_status status = TRN_OK;
    if (f->runs) {
        status = trn_exec_finish(run->engine.exec, run->first, progress, err);
        if (status != TRN_OK) return status;
        features = trn_exec_seat_get(run->engine.exec, run->first, "features", err);
        if (!features) return TRN_ERR_INTERNAL;
    }
    for (size_t i = 0; status == TRN_OK && i < f->item_count; i++) {
        status = place_window(run, f, &f->items[i], features, err);
        if (status == TRN_OK) status = trn_exec_advance(run->engine.exec, err);
    }
    run->done += (int64_t)f->item_count;
    run->first = (run->first + 1) % run->engine.seats;
    run->in_flight--;
    return status;
}

/* The next batch that was read; the device is kept busy while it is waited for. */
static trn_status next_batch(run_state *run, const read_batch **batch, trn_error *err)
{
    trn_status status = TRN_OK;
    while (status == TRN_OK && run->in_flight && !job_reader_wait(run->reader, WAIT_MS))
        status = trn_exec_advance(run->engine.exec, err);
    return status == TRN_OK ? job_reader_next(run->reader, batch, err) : status;
}

static trn_status encode_all(run_state *run, const trn_progress *progress, trn_error *err)
{
    const char *stage = run->plan.images ? "images" : "windows";
    uint64_t total = (uint64_t)run->plan.windows;
    const read_batch *batch = NULL;
    trn_progress_report(progress, stage, 0, total);
    do {
        if (trn_progress_cancelled(progress)) return trn_fail_cancelled(err, "embedding");
        trn_status status = next_batch(run, &batch, err);
        bool full = run->in_flight == run->engine.seats;
        if (status == TRN_OK && run->in_flight && (full || !batch)) {
            status = land(run, progress, err);
            trn_progress_report(progress, stage, (uint64_t)run->done, total);
        }
        if (status == TRN_OK && batch) status = launch(run, batch, progress, err);
        if (status != TRN_OK) return status;
    } while (batch || run->in_flight);
    return run->stitcher ? trn_stitcher_finish(run->stitcher, err) : TRN_OK;
}

/* ---- after the last window ---- */

static trn_status finish_writers(run_state *run, const trn_progress *progress, trn_error *err)
{
    for (size_t i = 0; i < run->plan.job->export_count; i++) {
        if (trn_progress_cancelled(progress)) return trn_fail_cancelled(err, "writing");
        trn_writer *writer = run->writers[i];
        run->writers[i] = NULL;
        trn_status status = trn_writer_finish(writer, err);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}

static void note_profile(const run_state *run)
{
    const char *wish = getenv("TERRANE_PROFILE");
    if (!wish || strcmp(wish, "1") != 0) return;
    trn_text text = {0};
    trn_exec_profile_text(run->engine.exec, &text);
    const trn_job_hooks *hooks = run->plan.hooks;
    if (hooks && hooks->note) hooks->note(hooks->user, TRN_LOG_INFO, trn_text_get(&text));
    trn_text_free(&text);
}

static void release(run_state *run)
{
    job_reader_destroy(run->reader);
    trn_stitcher_destroy(run->stitcher);
    for (size_t i = 0; run->writers && i < run->plan.job->export_count; i++)
        trn_writer_abandon(run->writers[i]);
    free(run->writers);
    if (run->paths) trn_names_free(run->paths, run->path_count);
    job_engine_destroy(&run->engine);
    for (int i = 0; i < JOB_SEATS; i++) {
        free(run->flights[i].items);
        free(run->flights[i].cell_valid);
    }
    free(run->row);
    free(run->location);
    job_plan_destroy(&run->plan);
}

static void fill_result(const run_state *run, uint64_t start, trn_embed_result *result)
{
    const job_plan *plan = &run->plan;
    double pixels = plan->images ? (double)plan->windows * plan->width * plan->height
                                 : (double)plan->info->width * (double)plan->info->height;
    *result = (trn_embed_result){
        .grid_width = plan->grid_width,
        .grid_height = plan->grid_height,
        .windows = plan->images ? 0 : plan->windows,
        .images = plan->images ? plan->windows : 0,
        .channels = run->engine.channels,
        .seconds = (double)(trn_now_ns() - start) * 1e-9,
        .megapixels = pixels * 1e-6,
        .files = run->paths,
        .file_count = run->path_count,
    };
}

trn_status trn_embed_run(const trn_embed_job *job, trn_gpu *gpu, const trn_job_hooks *hooks,
                         trn_embed_result *result, trn_error *err)
{
    const trn_progress *progress = hooks ? &hooks->progress : NULL;
    run_state run = {0};
    trn_embed_result figures;
    uint64_t start = trn_now_ns();
    *result = (trn_embed_result){0};
    trn_status status = job_check_outputs(job, hooks, err);
    if (status == TRN_OK) status = job_plan_create(&run.plan, job, hooks, err);
    if (status != TRN_OK) return status;
    status = prepare(&run, gpu, err);
    if (status == TRN_OK) status = encode_all(&run, progress, err);
    if (status == TRN_OK) status = finish_writers(&run, progress, err);
    if (status != TRN_OK) goto fail;
    fill_result(&run, start, &figures);
    if (!job->no_result)
        status = job_result_write(&run.plan, gpu, &run.engine, &figures, run.paths[job->export_count], err);
    if (status != TRN_OK) goto fail;
    note_profile(&run);
    *result = figures;
    run.paths = NULL; /* the result's now */
fail:
    release(&run);
    return status;
}

void trn_embed_result_free(trn_embed_result *result)
{
    if (result->files) trn_names_free(result->files, result->file_count);
    *result = (trn_embed_result){0};
}
