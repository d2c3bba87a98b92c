/* The compiled graph of a job, with as many windows at once as fit. */
#include "job_private.h"

#include <stdlib.h>

enum { SMALLEST_AUTO_BATCH = 4, LARGEST_AUTO_BATCH = 64, SMALLEST_TILE = 16 };
/* What keeps a device busy: a CPU driver has enough with one window, a large GPU with tens. */
#define PIXELS_PER_BATCH ((int64_t)1 << 20)
#define PIXELS_PER_LARGE_BATCH ((int64_t)1 << 22)
#define SLOT_BYTES ((int64_t)256 << 20)

static trn_feature_pool member_pool(const job_plan *plan, const planned_encoder *member)
{
    if (!plan->pooled) return TRN_FEATURES_DENSE;
    return member->wish->pool == TRN_FEATURES_CLS ? TRN_FEATURES_CLS : TRN_FEATURES_MEAN;
}

const char *job_location_input(const job_plan *plan, size_t member, char *buffer)
{
    if (!plan->located || plan->encoders[member].spec->location_values < 1) return NULL;
    snprintf(buffer, 32, "location.%zu", member);
    return buffer;
}

trn_member job_member(const job_plan *plan, const planned_encoder *member)
{
    return (trn_member){
        .encoder = member->encoder,
        .channels = member->channels,
        .channel_count = member->channel_count,
        .weight = member->wish->weight,
        .date = member->wish->date,
        .low = member->low,
        .high = member->high,
        .blank = member->blank,
        .options = {.normalize = member->wish->normalize,
                    .value_scale = member->converts ? member->scale : NULL,
                    .value_offset = member->converts ? member->offset : NULL,
                    .mean = member->mean,
                    .std = member->std,
                    .pool = member_pool(plan, member)},
    };
}

static void describe_members(const job_plan *plan, trn_graph *graph, int batch, trn_tensor *valid,
                             trn_member *members)
{
    char name[32];
    for (size_t i = 0; i < plan->encoder_count; i++) {
        const planned_encoder *member = &plan->encoders[i];
        const char *location = job_location_input(plan, i, name);
        members[i] = job_member(plan, member);
        members[i].options.valid = valid;
        if (location)
            members[i].options.location =
                trn_input(graph, location, TRN_F32, TRN_SHAPE(batch, member->spec->location_values));
    }
}

/* Batches and windows of a graph. */
typedef struct engine_size {
    int batch, width, height;
} engine_size;

static trn_tensor *image_input(const job_plan *plan, trn_graph *graph, const engine_size *size)
{
    int64_t bands = (int64_t)plan->band_count, dates = (int64_t)plan->date_count;
    if (dates == 1)
        return trn_input(graph, "image", TRN_F32, TRN_SHAPE(size->batch, bands, size->height, size->width));
    return trn_input(graph, "image", TRN_F32,
                     TRN_SHAPE(size->batch, dates, bands, size->height, size->width));
}

static trn_status build(const job_plan *plan, const engine_size *size, trn_graph **graph,
                        trn_tensor **features, trn_text *grids, double *offset, trn_error *err)
{
    trn_status status = TRN_OK;
    trn_member *members = calloc(plan->encoder_count, sizeof *members);
    *graph = trn_graph_create();
    if (!members || !*graph) {
        status = trn_fail_memory(err, plan->encoder_count * sizeof *members, "the graph");
        goto fail;
    }
    trn_tensor *image = image_input(plan, *graph, size);
    trn_tensor *valid =
        trn_input(*graph, "valid", TRN_F32, TRN_SHAPE(size->batch, 1, size->height, size->width));
    describe_members(plan, *graph, size->batch, valid, members);
    trn_compose_options options = plan->job->compose;
    if (!plan->pooled) options.cell = plan->cell;
    options.explain = grids;
    options.offset = offset;
    status = trn_compose(*graph, image, members, plan->encoder_count, &options, features, err);
    if (status == TRN_OK) trn_output_add(*graph, "features", *features);
    if (status == TRN_OK) status = trn_graph_status(*graph, err);
fail:
    free(members);
    if (status != TRN_OK) {
        trn_graph_destroy(*graph);
        *graph = NULL;
    }
    return status;
}

/* Compiling checks this itself, planning does not. */
static trn_status check_plan_memory(const job_plan *plan, trn_gpu *gpu, const trn_exec *exec, trn_error *err)
{
    trn_exec_summary summary = trn_exec_summarize(exec);
    uint64_t limit = plan->job->memory_limit ? plan->job->memory_limit : trn_gpu_memory_available(gpu);
    uint64_t need = summary.loading_bytes + summary.arena_bytes + summary.seat_bytes;
    char need_text[32], limit_text[32];
    if (need <= limit) return TRN_OK;
    return trn_fail(err, TRN_ERR_MEMORY, "the graph needs %s of device memory and %s is available",
                    trn_format_bytes(need, need_text), trn_format_bytes(limit, limit_text));
}

static trn_status compile(const job_plan *plan, trn_gpu *gpu, const engine_size *size, bool plan_only,
                          job_engine *out, trn_error *err)
{
    int64_t batches = (plan->windows + size->batch - 1) / size->batch;
    *out = (job_engine){.batch = size->batch, .seats = (int)TRN_MIN(batches, JOB_SEATS)};
    trn_tensor *features = NULL;
    trn_status status =
        build(plan, size, &out->graph, &features, plan_only ? &out->grids : NULL, &out->offset, err);
    if (status != TRN_OK) trn_text_free(&out->grids);
    if (status != TRN_OK) return status;
    out->channels = (int)trn_tensor_dim(features, -1);
    out->values_per_window = trn_shape_count(trn_tensor_shape(features)) / size->batch;
    trn_compile_options options = {.plan_only = plan_only,
                                   .seats = out->seats,
                                   .memory_limit = plan->job->memory_limit,
                                   .precision = plan->job->precision};
    status = trn_compile(out->graph, gpu, &options, &out->exec, err);
    if (status == TRN_OK && plan_only) status = check_plan_memory(plan, gpu, out->exec, err);
    if (status != TRN_OK) job_engine_destroy(out);
    return status;
}

static bool fits(const job_plan *plan, trn_gpu *gpu, const engine_size *size)
{
    job_engine engine;
    trn_error ignored = {0};
    bool ok = compile(plan, gpu, size, true, &engine, &ignored) == TRN_OK;
    if (ok) job_engine_destroy(&engine);
    return ok;
}

/* A smaller tile that fits with a batch of one, or 0. */
static int fitting_tile(const job_plan *plan, trn_gpu *gpu)
{
    int cell = plan->pooled ? trn_compose_cell(plan->handles, plan->encoder_count) : plan->cell;
    int last = plan->tile;
    for (int wanted = plan->tile / 2; wanted >= SMALLEST_TILE; wanted /= 2) {
        int tile = 0;
        trn_error ignored = {0};
        if (trn_compose_tile(plan->handles, plan->encoder_count, cell, wanted, &tile, &ignored) != TRN_OK)
            return 0;
        if (tile >= last) return 0;
        if (fits(plan, gpu, &(engine_size){1, tile, tile})) return tile;
        last = tile;
    }
    return 0;
}

static trn_status fail_too_large(const job_plan *plan, trn_gpu *gpu, int batch, trn_error *err)
{
    for (int smaller = batch / 2; smaller >= 1; smaller /= 2)
        if (fits(plan, gpu, &(engine_size){smaller, plan->width, plan->height}))
            return trn_wrap(
                err, "a batch of %d windows of %d pixels does not fit in device memory; a batch of %d would",
                batch, plan->width, smaller);
    int tile = plan->images ? 0 : fitting_tile(plan, gpu);
    if (tile)
        return trn_wrap(
            err, "windows of %d pixels do not fit in device memory; a tile of %d with a batch of 1 would",
            plan->tile, tile);
    return trn_wrap(
        err,
        "not even one window of %d pixels fits in device memory, nor a smaller one; use a smaller "
        "model or another device",
        plan->width);
}

static int automatic_batch(const job_plan *plan, const trn_gpu *gpu)
{
    int64_t area = (int64_t)plan->width * plan->height * (int64_t)plan->date_count;
    bool large = trn_gpu_info(gpu)->type == TRN_DEVICE_DISCRETE;
    int64_t pixels = large ? PIXELS_PER_LARGE_BATCH : PIXELS_PER_BATCH;
    int64_t batch = TRN_MIN(TRN_MAX(pixels / area, SMALLEST_AUTO_BATCH), LARGEST_AUTO_BATCH);
    int64_t slot = area * (int64_t)plan->band_count * (int64_t)sizeof(float);
    batch = TRN_MIN(TRN_MIN(batch, TRN_MAX(1, SLOT_BYTES / slot)), plan->windows);
    int64_t batches = (plan->windows + batch - 1) / batch;
    return (int)((plan->windows + batches - 1) / batches); /* the last one is not half empty */
}

trn_status job_engine_create(const job_plan *plan, trn_gpu *gpu, bool plan_only, job_engine *out,
                             trn_error *err)
{
    int wanted =
        plan->job->batch ? (int)TRN_MIN(plan->job->batch, plan->windows) : automatic_batch(plan, gpu);
    for (int batch = wanted;; batch /= 2) {
        trn_error failure = {0};
        trn_status status =
            compile(plan, gpu, &(engine_size){batch, plan->width, plan->height}, plan_only, out, &failure);
        if (status == TRN_OK) return TRN_OK;
        bool again = status == TRN_ERR_MEMORY && batch > 1 && !plan->job->batch;
        if (again) continue;
        if (err) *err = failure;
        return status == TRN_ERR_MEMORY ? fail_too_large(plan, gpu, batch, err) : status;
    }
}

void job_engine_destroy(job_engine *engine)
{
    trn_exec_destroy(engine->exec);
    trn_graph_destroy(engine->graph);
    trn_text_free(&engine->grids);
    *engine = (job_engine){0};
}
