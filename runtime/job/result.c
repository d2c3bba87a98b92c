/* result.json and the sidecar of .npy files: what was made, from what, by what. */
#include "job_private.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>

void job_result_number(trn_text *out, double value)
{
    if (isfinite(value))
        trn_text_printf(out, "%.17g", value);
    else
        trn_text_add(out, "null");
}

static void add_crs(trn_text *out, const trn_georef *georef)
{
    if (georef->epsg)
        trn_text_printf(out, "\"EPSG:%d\"", georef->epsg);
    else
        trn_text_json(out, georef->has_crs ? "as in the scene" : NULL);
}

static void add_transform(trn_text *out, const trn_georef *georef)
{
    if (!georef->has_transform) {
        trn_text_add(out, "null");
        return;
    }
    for (int i = 0; i < 6; i++) {
        trn_text_add(out, i ? ", " : "[");
        job_result_number(out, georef->transform[i]);
    }
    trn_text_add(out, "]");
}

/* One entry per date: how many files it has, and when it was taken. Images have one when it is known. */
static void add_dates(const job_plan *plan, trn_text *out)
{
    char day[JOB_DATE_TEXT];
    if (plan->images && !plan->dates[0].known) return;
    trn_text_add(out, "    \"dates\": [");
    for (size_t t = 0; t < plan->date_count; t++) {
        const job_date *date = &plan->dates[t];
        trn_text_printf(out, "%s{\"files\": %zu, \"acquired\": ", t ? ", " : "",
                        plan->images ? plan->path_count : date->path_count);
        trn_text_json(out, date->known ? job_date_text(date, day) : NULL);
        trn_text_add(out, ", \"by\": ");
        trn_text_json(out, date->known ? date->source : NULL);
        trn_text_add(out, "}");
    }
    trn_text_add(out, "],\n");
}

static void add_place(const job_plan *plan, trn_text *out)
{
    const trn_job_scene *scene = &plan->job->scene;
    if (!plan->located) return;
    if (scene->has_location) {
        trn_text_printf(out, "    \"location\": [%.17g, %.17g],\n", scene->latitude, scene->longitude);
        return;
    }
    trn_text_add(out, "    \"location\": \"by the georeference\",\n");
}

static void add_scene(const job_plan *plan, trn_text *out)
{
    const trn_scene_info *info = plan->info;
    trn_text_add(out, "  \"scene\": {\n    \"files\": [");
    /* a folder is named once; its images are the rows of the sidecar */
    const trn_job_scene *scene = &plan->job->scene;
    for (size_t i = 0; i < scene->path_count; i++) {
        if (i) trn_text_add(out, ", ");
        trn_text_json(out, scene->paths[i]);
    }
    trn_text_printf(out, "],\n    \"images\": %lld,\n    \"width\": %lld,\n    \"height\": %lld,\n",
                    (long long)(plan->images ? plan->windows : 0),
                    (long long)(plan->images ? plan->width : info->width),
                    (long long)(plan->images ? plan->height : info->height));
    add_dates(plan, out);
    add_place(plan, out);
    trn_text_add(out, "    \"sensor\": ");
    trn_text_json(out, plan->sensor ? plan->sensor->name : NULL);
    trn_text_add(out, ",\n    \"crs\": ");
    add_crs(out, &info->georef);
    trn_text_add(out, ",\n    \"transform\": ");
    add_transform(out, &info->georef);
    trn_text_add(out, ",\n    \"bands\": [");
    for (size_t i = 0; i < info->band_count; i++) {
        trn_text_add(out, i ? ", " : "");
        trn_text_json(out, info->bands[i].name);
    }
    trn_text_add(out, "]\n  },\n");
}

static void add_weights(const char *path, trn_text *out)
{
    struct stat info;
    if (!path || stat(path, &info) != 0) {
        trn_text_add(out, "null");
        return;
    }
    trn_text_add(out, "{\"path\": ");
    trn_text_json(out, path);
    trn_text_printf(out, ", \"bytes\": %lld", (long long)info.st_size);
    char digits[65];
    uint64_t size;
    if (trn_sha256_file(path, NULL, &size, digits, NULL) == TRN_OK)
        trn_text_printf(out, ", \"sha256\": \"%s\"", digits);
    trn_text_add(out, "}");
}

/* The encoder's key=value lines as an object. */
static void add_configuration(const trn_encoder *encoder, trn_text *out)
{
    trn_text lines = {0};
    trn_encoder_describe(encoder, &lines);
    trn_text_add(out, "{");
    bool first = true;
    for (char *line = lines.data; line && *line;) {
        char *end = strchr(line, '\n'), *next = end ? end + 1 : NULL, *equals;
        if (end) *end = 0;
        equals = strchr(line, '=');
        if (equals) {
            *equals = 0;
            trn_text_add(out, first ? "" : ", ");
            trn_text_json(out, line);
            trn_text_add(out, ": ");
            trn_text_json(out, equals + 1);
            first = false;
        }
        line = next;
    }
    trn_text_add(out, "}");
    trn_text_free(&lines);
}

static const char *normalize_name(trn_normalize normalize)
{
    static const char *const names[] = {"model", "none", "zscore"};
    return names[normalize];
}

static const char *pool_name(const job_plan *plan, const planned_encoder *member)
{
    if (!plan->pooled) return "none";
    return member->wish->pool == TRN_FEATURES_CLS ? "cls" : "mean";
}

static void add_encoder(const job_plan *plan, const planned_encoder *member, trn_text *out)
{
    trn_text_add(out, "    {\"model\": ");
    trn_text_json(out, member->spec->name);
    trn_text_printf(out, ", \"family\": \"%s\", \"normalize\": \"%s\", \"pool\": \"%s\",\n     \"bands\": [",
                    member->spec->family, normalize_name(member->wish->normalize), pool_name(plan, member));
    for (size_t c = 0; c < member->channel_count; c++) {
        trn_text_add(out, c ? ", " : "");
        trn_text_json(out, plan->common_names[plan->bands[member->channels[c]]]);
    }
    trn_text_printf(out, "], \"remove_position\": %s,\n     \"scale\": [", member->blank ? "true" : "false");
    for (size_t c = 0; c < member->channel_count; c++) {
        trn_text_add(out, c ? ", " : "");
        job_result_number(out, (double)member->scale[c]);
    }
    trn_text_add(out, "], \"offset\": [");
    for (size_t c = 0; c < member->channel_count; c++) {
        trn_text_add(out, c ? ", " : "");
        job_result_number(out, (double)member->offset[c]);
    }
    trn_text_add(out, "],\n     ");
    if (member->wish->date) trn_text_printf(out, "\"date\": %d, ", member->wish->date);
    if (member->wish->display != 0) trn_text_printf(out, "\"display\": %.17g, ", member->wish->display);
    trn_text_add(out, "\"weights\": ");
    if (job_weights_fresh(plan, member->wish))
        trn_text_printf(out, "{\"fresh\": true, \"seed\": %llu}", (unsigned long long)plan->seed);
    else
        add_weights(member->weights ? trn_weights_path(member->weights) : NULL, out);
    trn_text_add(out, ",\n     \"configuration\": ");
    add_configuration(member->encoder, out);
    trn_text_add(out, "}");
}

void job_result_encoders(const job_plan *plan, trn_text *out)
{
    trn_text_printf(out, "  \"fusion\": \"%s\",\n  \"encoders\": [\n",
                    plan->job->compose.fusion == TRN_FUSION_AVERAGE ? "average" : "concat");
    for (size_t i = 0; i < plan->encoder_count; i++) {
        add_encoder(plan, &plan->encoders[i], out);
        trn_text_add(out, i + 1 < plan->encoder_count ? ",\n" : "\n");
    }
    trn_text_add(out, "  ],\n");
}

void job_result_device(trn_gpu *gpu, trn_text *out)
{
    const trn_device_info *info = trn_gpu_info(gpu);
    trn_text_add(out, "  \"device\": {\"name\": ");
    trn_text_json(out, info->name);
    trn_text_add(out, ", \"driver\": ");
    trn_text_json(out, info->driver);
    trn_text_printf(out, ", \"type\": \"%s\", \"vulkan\": \"%u.%u.%u\"},\n", trn_device_type_name(info->type),
                    info->api_version >> 22 & 0x7f, info->api_version >> 12 & 0x3ff,
                    info->api_version & 0xfff);
    trn_text_printf(out, "  \"terrane\": \"%s\",\n", TRN_VERSION);
}

static void add_figures(const job_plan *plan, const job_engine *engine, const trn_embed_result *result,
                        trn_text *out)
{
    trn_text_printf(out, "  \"grid\": {\"width\": %lld, \"height\": %lld, \"channels\": %d, \"transform\": ",
                    (long long)result->grid_width, (long long)result->grid_height, result->channels);
    add_transform(out, &plan->georef);
    trn_text_printf(out, "},\n  \"figures\": {\"seconds\": %.6g, \"windows\": %lld, \"images\": %lld, ",
                    result->seconds, (long long)result->windows, (long long)result->images);
    trn_text_printf(out,
                    "\"megapixels\": %.6g, \"megapixels_per_second\": %.6g, \"tile\": %d, \"overlap\": %d, "
                    "\"batch\": %d, \"precision\": \"%s\"},\n",
                    result->megapixels, result->seconds > 0 ? result->megapixels / result->seconds : 0,
                    plan->width, plan->tiling.overlap, engine->batch,
                    trn_precision_name(trn_exec_summarize(engine->exec).precision));
}

void job_result_head(const job_plan *plan, trn_text *out)
{
    trn_text_add(out, "{\n  \"name\": ");
    trn_text_json(out, plan->job->name ? plan->job->name : plan->info->name);
    trn_text_add(out, ",\n");
    if (plan->job->result_extra) trn_text_printf(out, "  \"recipe\": %s,\n", plan->job->result_extra);
}

void job_result_begin(const job_plan *plan, trn_gpu *gpu, trn_text *out)
{
    job_result_head(plan, out);
    add_scene(plan, out);
    job_result_encoders(plan, out);
    job_result_device(gpu, out);
}

trn_status job_result_end(const job_plan *plan, trn_text *out, const char *path, trn_error *err)
{
    trn_text_add(out, "  \"files\": [");
    for (size_t i = 0; i < plan->job->export_count; i++) {
        trn_text_add(out, i ? ", " : "");
        trn_text_json(out, plan->job->exports[i].path);
    }
    trn_text_add(out, "]\n}\n");
    if (out->failed) return trn_fail_memory(err, out->length, "result.json");
    return trn_write_file(path, out->data, out->length, err);
}

trn_status job_result_write(const job_plan *plan, trn_gpu *gpu, const job_engine *engine,
                            const trn_embed_result *result, const char *path, trn_error *err)
{
    trn_text out = {0};
    job_result_begin(plan, gpu, &out);
    add_figures(plan, engine, result, &out);
    trn_status status = job_result_end(plan, &out, path, err);
    trn_text_free(&out);
    return status;
}

/* Part of a path below the folder it was found in. */
static const char *below_folder(const job_plan *plan, const char *path)
{
    const char *folder = plan->job->scene.paths[0];
    if (!plan->listed || !trn_starts_with(path, folder)) return path;
    path += strlen(folder);
    while (*path == '/')
        path++;
    return path;
}

char *job_result_sidecar(const job_plan *plan, const job_engine *engine)
{
    trn_text out = {0};
    trn_text_add(&out, "{\n  \"scene\": ");
    trn_text_json(&out, plan->info->name);
    trn_text_printf(&out, ",\n  \"terrane\": \"%s\",\n  \"precision\": \"%s\",\n", TRN_VERSION,
                    trn_precision_name(trn_exec_summarize(engine->exec).precision));
    job_result_encoders(plan, &out);
    if (plan->images) {
        trn_text_add(&out, "  \"ids\": [\n");
        for (size_t i = 0; i < plan->path_count; i++) {
            trn_text_add(&out, "    ");
            trn_text_json(&out, below_folder(plan, plan->paths[i]));
            trn_text_add(&out, i + 1 < plan->path_count ? ",\n" : "\n");
        }
        trn_text_add(&out, "  ]\n}\n");
    } else {
        trn_text_add(&out, "  \"crs\": ");
        add_crs(&out, &plan->georef);
        trn_text_add(&out, ",\n  \"transform\": ");
        add_transform(&out, &plan->georef);
        trn_text_printf(&out, ",\n  \"cell_pixels\": %d\n}\n",
                        plan->pooled ? plan->tiling.tile - plan->tiling.overlap : plan->cell);
    }
    if (!out.failed) return out.data;
    trn_text_free(&out);
    return NULL;
}
