/* bench, part scene: a made-up scene through the whole way from file to file, as terrane embed goes it. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_BANDS = 64, MOST_RUNS = 3, LEAST_SIDE = 128, MOST_SIDE = 8192 };

typedef struct scene {
    bench *b;
    bench_model model;
    char *folder, *image, *weights, *out; /* paths; all of them are removed at the end */
    const char *names[MAX_BANDS];
    double mean[MAX_BANDS], std[MAX_BANDS]; /* of physical values */
    size_t band_count;
    int side;
    trn_unit unit;
} scene;

/* ---- what the scene is ---- */

static void add_band(scene *s, const char *name, double mean, double std)
{
    if (s->band_count == MAX_BANDS) return;
    s->names[s->band_count] = name;
    s->mean[s->band_count] = mean;
    s->std[s->band_count++] = std;
}

/* The encoder's bands of its usual unit (radar beside optical bands has another), spread as it expects them.
 */
static void choose_bands(scene *s)
{
    const trn_encoder_spec *spec = trn_encoder_get_spec(s->model.encoder);
    static const char *const visible[] = {"red", "green", "blue"};
    s->unit = spec->unit;
    for (size_t i = 0; i < spec->band_count; i++) {
        const trn_encoder_band *band = &spec->bands[i];
        double scale = band->value_scale != 0 ? band->value_scale : spec->value_scale;
        if (band->unit != spec->unit) continue;
        add_band(s, band->name, band->mean / scale, band->std / scale);
    }
    for (size_t i = 0; !spec->band_count && i < TRN_COUNT(visible); i++)
        add_band(s, visible[i], 0.2, 0.1);
    if (!spec->band_count) s->unit = TRN_UNIT_REFLECTANCE;
}

/* Enough windows for several batches. */
static void choose_side(scene *s)
{
    int tiles = s->b->device.type == TRN_DEVICE_CPU ? 4 : 16;
    int side = tiles * trn_encoder_get_spec(s->model.encoder)->tile;
    s->side = TRN_MAX(LEAST_SIDE, TRN_MIN(side, MOST_SIDE));
}

/* ---- its files ---- */

static char *path_in(const scene *s, const char *name, trn_error *err)
{
    char *path = trn_path_join(s->folder, name);
    if (!path) trn_fail_memory(err, strlen(name), "a path");
    return path;
}

static trn_status make_folder(scene *s, trn_error *err)
{
    const char *root = getenv("TMPDIR");
    s->folder = trn_path_join(root && *root ? root : "/tmp", "terrane-bench-XXXXXX");
    if (!s->folder) return trn_fail_memory(err, 64, "a path");
    if (!mkdtemp(s->folder)) {
        trn_status status = trn_fail_errno(err, "create the folder", s->folder);
        free(s->folder);
        s->folder = NULL;
        return status;
    }
    s->image = path_in(s, "scene.tif", err);
    s->weights = path_in(s, "weights.safetensors", err);
    s->out = path_in(s, "embedding.tif", err);
    return s->image && s->weights && s->out ? TRN_OK : TRN_ERR_MEMORY;
}

static void remove_files(scene *s)
{
    if (s->image) unlink(s->image);
    if (s->weights) unlink(s->weights);
    if (s->out) unlink(s->out);
    if (s->folder) rmdir(s->folder);
    free(s->image);
    free(s->weights);
    free(s->out);
    free(s->folder);
}

static void fill_row(const scene *s, int y, float *row)
{
    for (size_t i = 0; i < (size_t)s->side * s->band_count; i++) {
        size_t band = i % s->band_count;
        double u = trn_hash_uniform(4, (uint64_t)y * (uint64_t)s->side * s->band_count + i);
        row[i] = (float)(s->mean[band] + s->std[band] * u);
    }
}

static trn_status write_scene(const scene *s, trn_error *err)
{
    const trn_export_grid grid = {.width = s->side,
                                  .height = s->side,
                                  .channels = (int)s->band_count,
                                  .names = s->names,
                                  .description = "made up by terrane bench"};
    const trn_export_options plain = {.compression = "none"};
    trn_writer *writer = NULL;
    float *row = malloc((size_t)s->side * s->band_count * sizeof *row);
    if (!row) return trn_fail_memory(err, (size_t)s->side * s->band_count * sizeof *row, "a scene");
    trn_status status = trn_writer_open(s->image, &grid, &plain, &writer, err);
    for (int y = 0; status == TRN_OK && y < s->side; y++) {
        fill_row(s, y, row);
        status = trn_writer_rows(writer, y, 1, row, err);
    }
    free(row);
    if (status == TRN_OK) return trn_writer_finish(writer, err);
    trn_writer_abandon(writer);
    return status;
}

/* ---- measuring ---- */

typedef struct timing {
    double seconds[MOST_RUNS], cpu[MOST_RUNS], first, megapixels;
    size_t runs;
    int64_t windows;
    uint64_t device_peak, process_peak;
} timing;

static trn_status embed(const scene *s, const trn_embed_job *job, trn_gpu *gpu, double *seconds, timing *t,
                        trn_error *err)
{
    trn_job_hooks hooks = *console_hooks();
    trn_embed_result result = {0};
    hooks.note = NULL; /* the same ones each time, about weights that nobody asked for */
    uint64_t start = trn_now_ns();
    trn_status status = trn_embed_run(job, gpu, &hooks, &result, err);
    *seconds = (double)(trn_now_ns() - start) * 1e-9;
    t->windows = result.windows;
    t->megapixels = 1e-6 * (double)s->side * s->side;
    trn_embed_result_free(&result);
    return status;
}

static trn_status time_scene(const scene *s, trn_gpu *gpu, timing *t, trn_error *err)
{
    const bench *b = s->b;
    const char **paths = trn_arena_array(b->arena, s->model.dates, sizeof *paths);
    size_t *files = trn_arena_array(b->arena, s->model.dates, sizeof *files);
    if (!paths || !files) return trn_fail_memory(err, s->model.dates * sizeof *paths, "a scene");
    for (size_t i = 0; i < s->model.dates; i++) {
        paths[i] = s->image;
        files[i] = 1;
    }
    const trn_job_encoder encoder = {.model = s->model.name,
                                     .weights = s->weights,
                                     .settings = b->settings,
                                     .setting_count = b->values->config.count};
    const trn_job_export export = {.path = s->out};
    const trn_embed_job job = {.scene = {.paths = paths,
                                         .path_count = s->model.dates,
                                         .date_files = files,
                                         .date_count = s->model.dates,
                                         .has_scale = true,
                                         .scale = 1,
                                         .unit = s->unit},
                               .encoders = &encoder,
                               .encoder_count = 1,
                               .exports = &export,
                               .export_count = 1,
                               .precision = b->precision,
                               .no_result = true};
    size_t wanted = TRN_MIN((size_t)b->values->runs, (size_t)MOST_RUNS);
    bench_process_peak_restart();
    trn_status status = embed(s, &job, gpu, &t->first, t, err);
    while (status == TRN_OK && t->runs < wanted &&
           (!t->runs || bench_seconds_left(b) > t->seconds[t->runs - 1])) {
        double before = bench_cpu_seconds();
        status = embed(s, &job, gpu, &t->seconds[t->runs], t, err);
        t->cpu[t->runs++] = bench_cpu_seconds() - before;
    }
    t->device_peak = trn_gpu_get_stats(gpu).memory_peak;
    t->process_peak = bench_process_peak();
    return status;
}

static trn_status report(const scene *s, timing *t, trn_error *err)
{
    char key[160], device[32], process[32];
    double median = bench_median(t->seconds, t->runs), cpu = bench_median(t->cpu, t->runs);
    trn_text members = {0};
    trn_text_add(&members, "\"model\": ");
    trn_text_json(&members, s->model.name);
    trn_text_printf(&members,
                    ", \"dates\": %zu, \"side\": %d, \"bands\": %zu, \"windows\": %lld, \"precision\": "
                    "\"%s\", \"runs\": %zu, \"seconds_median\": %.6g, \"seconds_min\": %.6g, "
                    "\"cpu_seconds_median\": %.6g, \"first_run_seconds\": %.6g, "
                    "\"megapixels_per_second\": %.6g, \"memory_bytes\": %llu, \"process_peak_bytes\": %llu",
                    s->model.dates, s->side, s->band_count, (long long)t->windows,
                    trn_precision_name(s->b->precision), t->runs, median, t->seconds[0], cpu, t->first,
                    t->megapixels / median, (unsigned long long)t->device_peak,
                    (unsigned long long)t->process_peak);
    snprintf(key, sizeof key, "scene %s, side %d%s", s->model.name, s->side, bench_precision_note(s->b));
    trn_status status =
        bench_add(s->b, "scene", key, t->megapixels / median, "MP/s", trn_text_get(&members), err);
    trn_text_free(&members);
    if (status != TRN_OK) return status;
    return bench_say(
        s->b, err,
        "  %-20s %d x %d pixels, %zu bands, %zu dates, %lld windows: %.4g megapixels/s, median %.4g s "
        "of %zu  first %.3g s  device %s, process %s",
        s->model.name, s->side, s->side, s->band_count, s->model.dates, (long long)t->windows,
        t->megapixels / median, median, t->runs, t->first, trn_format_bytes(t->device_peak, device),
        trn_format_bytes(t->process_peak, process));
}

static trn_status bench_scene(scene *s, trn_error *err)
{
    const bench *b = s->b;
    trn_gpu *gpu = NULL;
    timing t = {0};
    choose_bands(s);
    choose_side(s);
    trn_status status = make_folder(s, err);
    if (status == TRN_OK) status = write_scene(s, err);
    if (status == TRN_OK)
        status = trn_model_write_synthetic(s->model.name, b->settings, b->values->config.count, s->weights,
                                           &console_hooks()->progress, err);
    if (status == TRN_OK) status = bench_gpu_open(b, &gpu, err);
    if (status == TRN_OK) status = time_scene(s, gpu, &t, err);
    if (status == TRN_OK) status = report(s, &t, err);
    trn_gpu_close(gpu);
    remove_files(s);
    return status;
}

trn_status bench_scenes(bench *b, trn_error *err)
{
    trn_status status = bench_say(b, err, "scenes: from file to file");
    for (size_t i = 0; status == TRN_OK && i < b->model_count; i++) {
        scene s = {.b = b};
        if (bench_seconds_left(b) <= 0) {
            status = bench_leave_out(b, err, "scene of %s: no time left (--seconds)", b->models[i]);
            continue;
        }
        status = bench_model_open(b, b->models[i], &s.model, err);
        if (status == TRN_OK) status = bench_scene(&s, err);
        bench_model_close(&s.model);
        if (b->model_count > 1 && bench_may_go_on(status))
            status = bench_leave_out(b, err, "%s", err->message);
    }
    return status;
}
