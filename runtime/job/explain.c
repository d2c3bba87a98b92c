/* What a job would do, as text: input, encoders, windows, operators, memory, time. */
#include "job_private.h"

#include <string.h>

static void explain_scene(const job_plan *plan, trn_text *out)
{
    const trn_scene_info *info = plan->info;
    if (plan->images)
        trn_text_printf(out, "input     %lld images, fed as %d x %d pixels\n", (long long)plan->windows,
                        plan->width, plan->height);
    else
        trn_text_printf(out, "input     scene '%s', %lld x %lld pixels, %zu bands\n", info->name,
                        (long long)info->width, (long long)info->height, info->band_count);
    trn_text_printf(out, "sensor    %s\n", plan->sensor ? plan->sensor->name : "not given");
    if (info->georef.epsg) trn_text_printf(out, "CRS       EPSG:%d\n", info->georef.epsg);
    trn_text_add(out, "bands    ");
    for (size_t i = 0; i < info->band_count; i++) {
        trn_text_printf(out, " %s", info->bands[i].name);
        if (strcmp(info->bands[i].name, plan->common_names[i]) != 0)
            trn_text_printf(out, " (%s)", plan->common_names[i]);
    }
    trn_text_add(out, "\n");
}

static void explain_channel(const job_plan *plan, const planned_encoder *member, size_t c, trn_text *out)
{
    const char *name = plan->common_names[plan->bands[member->channels[c]]];
    trn_text_printf(out, "            %-10s value = stored * %.6g", name, (double)member->scale[c]);
    if (member->offset[c] != 0) trn_text_printf(out, " %+.6g", (double)member->offset[c]);
    if (member->wish->normalize == TRN_NORMALIZE_ZSCORE)
        trn_text_printf(out, ", then (value - %.6g) / %.6g of the scene", (double)member->mean[c],
                        (double)member->std[c]);
    for (size_t b = 0; b < member->spec->band_count && member->wish->normalize == TRN_NORMALIZE_MODEL; b++) {
        const trn_encoder_band *band = &member->spec->bands[b];
        if (!strcmp(band->name, name) && band->std > 0)
            trn_text_printf(out, ", then (value - %.6g) / %.6g of the model", band->mean, band->std);
    }
    trn_text_add(out, "\n");
}

static void explain_encoder(const job_plan *plan, const planned_encoder *member, trn_text *out)
{
    trn_text lines = {0};
    trn_text_printf(out, "encoder   %s (%s), stride %d, %d channels\n", member->spec->name,
                    member->spec->family, member->spec->stride, member->spec->channels);
    if (member->weights) trn_text_printf(out, "            weights %s\n", trn_weights_path(member->weights));
    trn_encoder_describe(member->encoder, &lines);
    trn_text_add(out, "            ");
    for (const char *c = trn_text_get(&lines); *c; c++) {
        if (*c == '\n' && !c[1]) break;
        trn_text_add_n(out, *c == '\n' ? " " : c, 1);
    }
    trn_text_add(out, "\n");
    trn_text_free(&lines);
    for (size_t c = 0; c < member->channel_count; c++)
        explain_channel(plan, member, c, out);
    if (member->blank)
        trn_text_add(out, "            less the features of a window of the scene's mean colour\n");
}

static void explain_windows(const job_plan *plan, const job_engine *engine, trn_text *out)
{
    trn_exec_summary summary = trn_exec_summarize(engine->exec);
    char weights[32], arena[32];
    if (!plan->images)
        trn_text_printf(out, "windows   %lld (%lld x %lld) of %d pixels, overlap %d, cells of %d pixels\n",
                        (long long)plan->windows, (long long)plan->tiling.columns,
                        (long long)plan->tiling.rows, plan->tile, plan->tiling.overlap, plan->cell);
    trn_text_printf(out, "output    %lld x %lld, %d channels\n", (long long)plan->grid_width,
                    (long long)plan->grid_height, engine->channels);
    trn_text_printf(out, "batch     %d, weights %s, working memory %s\n", engine->batch,
                    trn_format_bytes(summary.weight_bytes, weights),
                    trn_format_bytes(summary.arena_bytes, arena));
    int64_t batches = (plan->windows + engine->batch - 1) / engine->batch;
    if (summary.estimated_seconds > 0)
        trn_text_printf(out, "time      about %.3g s (%lld batches of %.3g s)\n",
                        summary.estimated_seconds * (double)batches, (long long)batches,
                        summary.estimated_seconds);
    else
        trn_text_printf(out, "time      not known: nothing was measured on this device yet (%lld batches)\n",
                        (long long)batches);
}

trn_status trn_embed_explain(const trn_embed_job *job, trn_gpu *gpu, const trn_job_hooks *hooks,
                             trn_text *out, trn_error *err)
{
    job_plan plan;
    job_engine engine = {0};
    /* one may ask before deciding on outputs */
    trn_status status = job->export_count ? job_check_outputs(job, hooks, err) : TRN_OK;
    if (status == TRN_OK) status = job_plan_create(&plan, job, hooks, err);
    if (status != TRN_OK) return status;
    status = job_check_plan_outputs(&plan, err);
    /* fitted encoders have their final shape only after they learnt */
    if (status == TRN_OK) status = job_plan_learn(&plan, err);
    if (status == TRN_OK) status = job_engine_create(&plan, gpu, true, &engine, err);
    if (status == TRN_OK) {
        explain_scene(&plan, out);
        for (size_t i = 0; i < plan.encoder_count; i++)
            explain_encoder(&plan, &plan.encoders[i], out);
        explain_windows(&plan, &engine, out);
        trn_text_add(out, "\n");
        trn_exec_explain(engine.exec, out);
        if (out->failed) status = trn_fail_memory(err, out->length, "the explanation");
    }
    job_engine_destroy(&engine);
    job_plan_destroy(&plan);
    return status;
}
