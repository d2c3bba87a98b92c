/* What a job would do, as text: input, encoders, windows, operators, memory, time. */
#include "job_private.h"

#include <math.h>
#include <string.h>

trn_status job_offer_graph(const trn_job_hooks *hooks, const trn_exec *exec, trn_error *err)
{
    return hooks && hooks->tuner ? trn_tuner_add(hooks->tuner, exec, err) : TRN_OK;
}

static void explain_dates(const job_plan *plan, trn_text *out)
{
    char day[JOB_DATE_TEXT];
    for (size_t t = 0; t < plan->date_count && !plan->images; t++) {
        const job_date *date = &plan->dates[t];
        trn_text_printf(out, "%-10s%zu: %s", t ? "" : "date", t + 1, job_date_text(date, day));
        if (date->known) trn_text_printf(out, " by %s", date->source);
        trn_text_printf(out, ", %s%s\n", trn_path_name(date->paths[0]), date->path_count > 1 ? ", ..." : "");
    }
}

static void explain_place(const job_plan *plan, trn_text *out)
{
    double place[2];
    trn_error ignored = {0};
    const trn_job_scene *scene = &plan->job->scene;
    if (scene->has_location)
        trn_text_printf(out, "location  latitude %g, longitude %g, given\n", scene->latitude,
                        scene->longitude);
    if (!plan->locator || scene->has_location) return;
    const trn_scene_info *info = plan->info;
    if (trn_locator_find(plan->locator, (double)info->width / 2, (double)info->height / 2, &place[0],
                         &place[1], &ignored) == TRN_OK)
        trn_text_printf(out, "location  latitude %.5f, longitude %.5f in the middle, by the georeference\n",
                        place[0], place[1]);
}

static void explain_band(const job_plan *plan, size_t i, trn_text *out)
{
    const trn_scene_band *band = &plan->info->bands[i];
    double wavelength = job_band_wavelength(plan, (int)i);
    trn_text_printf(out, "%-10s%s", i ? "" : "bands", band->name);
    if (strcmp(band->name, plan->common_names[i]) != 0) trn_text_printf(out, " (%s)", plan->common_names[i]);
    if (wavelength > 0) trn_text_printf(out, ", %g um", wavelength);
    if (band->scale != 1 || band->offset != 0)
        trn_text_printf(out, ", read as stored * %.6g %+.6g", band->scale, band->offset);
    if (band->has_nodata) trn_text_printf(out, ", nodata %g", band->nodata);
    trn_text_printf(out, ", %s\n", trn_path_name(band->file));
}

static void explain_scene(const job_plan *plan, trn_text *out)
{
    const trn_scene_info *info = plan->info;
    if (plan->images)
        trn_text_printf(out, "input     %lld images, fed as %d x %d pixels%s\n", (long long)plan->windows,
                        plan->width, plan->height,
                        plan->job->scene.resize ? " (resized: bilinear, antialiased)" : "");
    else
        trn_text_printf(out, "input     scene '%s', %lld x %lld pixels, %zu bands\n", info->name,
                        (long long)info->width, (long long)info->height, info->band_count);
    explain_dates(plan, out);
    trn_text_printf(out, "sensor    %s\n", plan->sensor ? plan->sensor->name : "not given");
    if (info->georef.epsg) trn_text_printf(out, "CRS       EPSG:%d\n", info->georef.epsg);
    explain_place(plan, out);
    for (size_t i = 0; i < info->band_count; i++)
        explain_band(plan, i, out);
}

/* Values of a unit, as encoders expect them. */
static const char *expected_range(trn_unit unit)
{
    switch (unit) {
    case TRN_UNIT_REFLECTANCE:
        return "0 to 1";
    case TRN_UNIT_BYTE:
        return "0 to 255";
    case TRN_UNIT_DECIBEL:
        return "about -40 to 10";
    case TRN_UNIT_KELVIN:
        return "about 200 to 350";
    case TRN_UNIT_ANY:
        break;
    }
    return NULL;
}

static void explain_normal(double mean, double std, const char *whose, trn_text *out)
{
    trn_text_printf(out, ", then (value %c %.6g) / %.6g of the %s", mean < 0 ? '+' : '-', fabs(mean), std,
                    whose);
}

/* The chain from the stored number to what enters the network. */
static void explain_chain(const planned_encoder *member, size_t c, trn_text *out)
{
    const trn_encoder_band *band = job_member_band(member, c);
    if (member->wish->normalize == TRN_NORMALIZE_NONE) {
        trn_text_add(out, "fed as read");
        return;
    }
    if (member->low && member->low[c] > -1e30f)
        trn_text_printf(out, "value = (stored held within %.6g to %.6g) * %.6g", (double)member->low[c],
                        (double)member->high[c], (double)member->scale[c]);
    else
        trn_text_printf(out, "value = stored * %.6g", (double)member->scale[c]);
    if (member->offset[c] != 0) trn_text_printf(out, " %+.6g", (double)member->offset[c]);
    if (member->mean)
        explain_normal((double)member->mean[c], (double)member->std[c], "scene", out);
    else if (band && band->std > 0)
        explain_normal(band->mean, band->std, "model", out);
}

static void explain_range(const planned_encoder *member, size_t c, trn_text *out)
{
    wanted_values wanted = job_member_wants(member, c);
    const char *expected = expected_range(wanted.unit);
    trn_text_add(out, "                       ");
    if (expected) trn_text_printf(out, "wants %s %s", job_unit_name(wanted.unit), expected);
    if (expected && wanted.scale != 1) trn_text_printf(out, " times %g", wanted.scale);
    trn_text_add(out, expected ? "; " : "");
    if (!member->measured) {
        trn_text_add(out, "nothing was sampled\n");
        return;
    }
    const measured_channel *m = &member->measured[c];
    trn_text_printf(out, "has %.5g to %.5g, mean %.5g, deviation %.5g (sampled)\n", m->low, m->high, m->mean,
                    m->std);
}

static void explain_channel(const job_plan *plan, const planned_encoder *member, size_t c, trn_text *out)
{
    const trn_scene_band *band = &plan->info->bands[plan->bands[member->channels[c]]];
    trn_text_printf(out, "            %-10s ", member->asked[c]);
    if (strcmp(band->name, member->asked[c]) != 0) trn_text_printf(out, "from %s: ", band->name);
    explain_chain(member, c, out);
    trn_text_add(out, "\n");
    explain_range(member, c, out);
}

static void explain_sight(const job_plan *plan, const planned_encoder *member, trn_text *out)
{
    const trn_encoder_spec *spec = member->spec;
    if (plan->date_count > 1 && member->wish->date)
        trn_text_printf(out, "            sees date %d\n", member->wish->date);
    else if (plan->date_count > 1)
        trn_text_printf(out, "            sees all %zu dates\n", plan->date_count);
    if (spec->location_values > 0)
        trn_text_printf(out, "            %s\n",
                        plan->located ? "sees the place of every window"
                                      : "would see the place, which is not known");
    trn_text_printf(out, "            windows of %d x %d pixels (its own: %d; sides are multiples of %d%s)\n",
                    plan->width, plan->height, spec->tile, spec->side_multiple,
                    spec->square ? ", square" : "");
}

void job_explain_encoder(const job_plan *plan, const planned_encoder *member, trn_text *out)
{
    trn_text lines = {0};
    trn_text_printf(out, "encoder   %s (%s), stride %d, %d channels\n", member->spec->name,
                    member->spec->family, member->spec->stride, member->spec->channels);
    if (member->wish->weights) trn_text_printf(out, "            weights %s\n", member->wish->weights);
    trn_encoder_describe(member->encoder, &lines);
    trn_text_add(out, "            ");
    for (const char *c = trn_text_get(&lines); *c; c++) {
        if (*c == '\n' && !c[1]) break;
        trn_text_add_n(out, *c == '\n' ? " " : c, 1);
    }
    trn_text_add(out, "\n");
    trn_text_free(&lines);
    explain_sight(plan, member, out);
    for (size_t c = 0; c < member->channel_count; c++)
        explain_channel(plan, member, c, out);
    if (member->blank)
        trn_text_add(out, "            less the features of a window of the scene's mean colour\n");
}

/* The members' grids, a line each. */
static void explain_grids(const job_engine *engine, trn_text *out)
{
    const char *label = "grids";
    for (const char *line = trn_text_get(&engine->grids); *line; label = "") {
        size_t length = strcspn(line, "\n");
        trn_text_printf(out, "%-10s", label);
        trn_text_add_n(out, line, length);
        trn_text_add(out, "\n");
        line += length + (line[length] == '\n');
    }
}

static void explain_windows(const job_plan *plan, const job_engine *engine, trn_text *out)
{
    trn_exec_summary summary = trn_exec_summarize(engine->exec);
    char weights[32], arena[32];
    if (!plan->images)
        trn_text_printf(out, "windows   %lld (%lld x %lld) of %d pixels, overlap %d, cells of %d pixels\n",
                        (long long)plan->windows, (long long)plan->tiling.columns,
                        (long long)plan->tiling.rows, plan->tile, plan->tiling.overlap, plan->cell);
    explain_grids(engine, out);
    trn_text_printf(out, "output    %lld x %lld, %d channels\n", (long long)plan->grid_width,
                    (long long)plan->grid_height, engine->channels);
    trn_text_printf(out, "batch     %d, precision %s, weights %s, working memory %s\n", engine->batch,
                    trn_precision_name(summary.precision), trn_format_bytes(summary.weight_bytes, weights),
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
            job_explain_encoder(&plan, &plan.encoders[i], out);
        explain_windows(&plan, &engine, out);
        trn_text_add(out, "\n");
        trn_exec_explain(engine.exec, out);
        status = job_offer_graph(hooks, engine.exec, err);
        if (status == TRN_OK && out->failed) status = trn_fail_memory(err, out->length, "the explanation");
    }
    job_engine_destroy(&engine);
    job_plan_destroy(&plan);
    return status;
}
