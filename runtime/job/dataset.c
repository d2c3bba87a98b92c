/* Datasets in place of scenes: opened, encoders planned for their bands, statistics of the training split,
 * and the model that learn gets. */
#include "job_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- opening ---- */

static trn_status check_numbers(const job_learning *what, trn_error *err)
{
    const trn_job_dataset *wish = what->data;
    if (!wish->path || !*wish->path)
        return trn_fail(err, TRN_ERR_ARGUMENT, "the dataset has no path: name its folder");
    if (wish->resize < 0 || wish->crop < 0 || wish->chip < 0)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "the dataset's resize is %d, its crop %d and its chip %d; wanted sides in pixels",
                        wish->resize, wish->crop, wish->chip);
    if (!what->chances && (wish->flip_x != 0 || wish->flip_y != 0 || wish->rotate))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "flips and rotations are for training: a probe learns from every sample as it is");
    return TRN_OK;
}

/* Samples of several sizes are only resized by what opens them, with a filter that widens. */
static trn_dataset_options dataset_options(const job_dataset *data)
{
    const trn_job_dataset *wish = data->what.data;
    int side = wish->antialias ? wish->resize : 0;
    return (trn_dataset_options){.partition = wish->partition,
                                 .bands = wish->bands,
                                 .band_count = wish->bands ? wish->band_count : 0,
                                 .bands_as_stored = wish->bands_as_stored,
                                 .date = wish->date,
                                 .height = side,
                                 .width = side,
                                 .skip_missing = wish->skip_missing,
                                 .has_fill = wish->has_fill,
                                 .fill = (float)wish->fill,
                                 .has_ignore = wish->has_ignore,
                                 .ignore = wish->ignore,
                                 .class_count = wish->class_count,
                                 .class_names = wish->class_names,
                                 .sensor = data->plan.sensor};
}

static trn_status open_samples(const job_dataset *data, const trn_dataset_options *options, trn_dataset **out,
                               trn_error *err)
{
    const trn_job_dataset *wish = data->what.data;
    const trn_chip_options chips = {.chip = wish->chip,
                                    .block = wish->block,
                                    .valid = wish->valid_share,
                                    .test = wish->test_share,
                                    .seed = data->what.seed};
    bool folder = trn_path_is_dir(wish->path);
    if (wish->labels && folder)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "labels are given, but '%s' is a folder, which holds its labels itself", wish->path);
    if (wish->labels) return trn_dataset_open_scene(&wish->path, 1, wish->labels, &chips, options, out, err);
    if (wish->chip && folder)
        return trn_fail(err, TRN_ERR_ARGUMENT, "chip is %d, but '%s' is a folder: only a scene is cut",
                        wish->chip, wish->path);
    if (!folder && trn_path_exists(wish->path))
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "dataset '%s' is no folder: a scene needs the raster of its labels beside it (labels)",
            wish->path);
    return trn_dataset_open(wish->path, options, out, err);
}

const trn_data_band *job_dataset_bands(const job_plan *plan)
{
    return trn_dataset_get_info(plan->dataset->all)->bands;
}

/* The scene, or the first image of a folder; NULL: samples are no images. malloc'd. */
static char *first_file(const job_dataset *data)
{
    const char *name = NULL, *folder = data->what.data->path;
    for (int s = 0; s < TRN_SPLIT_COUNT && !name; s++)
        name = trn_dataset_sample_name(data->all, (trn_split)s, 0);
    char *path = data->what.data->labels ? trn_path_join(".", folder)
                 : name                  ? trn_path_join(folder, name)
                                         : NULL;
    if (path && trn_path_exists(path)) return path;
    free(path);
    return NULL;
}

/* What the first file says of its bands' numbers. Samples of GEO-Bench say nothing. */
static trn_status read_band_types(const job_dataset *data, trn_scene_band *bands, size_t count,
                                  trn_error *err)
{
    char *path = first_file(data);
    if (!path) return TRN_OK;
    trn_scene *scene = NULL;
    const char *paths[] = {path};
    trn_scene_options options = {.sensor = data->plan.sensor};
    trn_status status = trn_scene_open(paths, 1, &options, &scene, err);
    const trn_scene_info *info = scene ? trn_scene_get_info(scene) : NULL;
    for (size_t i = 0; info && i < count; i++)
        for (size_t k = 0; k < info->band_count; k++) {
            if (strcmp(info->bands[k].name, bands[i].description) != 0) continue;
            bands[i].type = info->bands[k].type;
            bands[i].scale = info->bands[k].scale;
            bands[i].offset = info->bands[k].offset;
        }
    trn_scene_close(scene);
    free(path);
    return status;
}

/* The dataset as the scene of a plan. */
static trn_status describe_scene(job_dataset *data, trn_error *err)
{
    job_plan *plan = &data->plan;
    const trn_dataset_info *info = trn_dataset_get_info(data->all);
    trn_scene_info *scene = trn_arena_alloc(plan->arena, sizeof *scene);
    trn_scene_band *bands = trn_arena_array(plan->arena, info->band_count, sizeof *bands);
    plan->dates = trn_arena_alloc(plan->arena, sizeof *plan->dates);
    if (!scene || !bands || !plan->dates)
        return trn_fail_memory(err, info->band_count * sizeof *bands, "bands");
    for (size_t i = 0; i < info->band_count; i++)
        bands[i] = (trn_scene_band){.name = info->bands[i].name,
                                    .description = info->bands[i].stored,
                                    .file = data->what.data->path,
                                    .type = TRN_SAMPLE_F32,
                                    .scale = 1};
    *scene = (trn_scene_info){.width = info->width,
                              .height = info->height,
                              .band_count = info->band_count,
                              .bands = bands,
                              .sensor = plan->sensor,
                              .name = info->name};
    plan->info = scene;
    plan->date_count = 1;
    plan->names = plan->sensor ? plan->sensor : info->sensor;
    trn_status status = read_band_types(data, bands, info->band_count, err);
    if (status == TRN_OK) status = job_check_sensor(plan, err);
    return status == TRN_OK ? job_bands_name(plan, err) : status;
}

static bool is_called(const job_plan *plan, size_t i, const char *name)
{
    const trn_data_band *band = &job_dataset_bands(plan)[i];
    int wanted = plan->names ? trn_sensor_band(plan->names, name) : -1;
    const char *common = trn_band_common(name);
    return !strcasecmp(band->stored, name) || !strcasecmp(band->name, name) ||
           (band->common && !strcasecmp(band->common, name)) ||
           (band->common && common && !strcmp(band->common, common)) ||
           (wanted >= 0 && wanted == trn_sensor_band(plan->names, band->name));
}

int job_dataset_find_band(const job_plan *plan, const char *name, trn_error *err)
{
    trn_text list = {0};
    for (size_t i = 0; i < plan->info->band_count; i++)
        if (is_called(plan, i, name)) return (int)i;
    for (size_t i = 0; i < plan->info->band_count; i++)
        trn_text_printf(&list, "%s%s", i ? ", " : "", plan->info->bands[i].name);
    trn_fail(err, TRN_ERR_ARGUMENT, "dataset '%s' has no band '%s'; it has: %s", plan->info->name, name,
             trn_text_get(&list));
    trn_text_free(&list);
    return -1;
}

static trn_status open_dataset(job_dataset *data, trn_error *err)
{
    trn_status status = check_numbers(&data->what, err);
    if (status == TRN_OK) status = job_plan_sensor(&data->plan, err);
    if (status != TRN_OK) return status;
    trn_dataset_options options = dataset_options(data);
    status = open_samples(data, &options, &data->all, err);
    if (status != TRN_OK) return status;
    const trn_dataset_info *info = trn_dataset_get_info(data->all);
    if (info->missing)
        status = job_plan_warn(&data->plan, err, "%zu samples of '%s' have no file and are left out",
                               info->missing, info->name);
    return status == TRN_OK ? describe_scene(data, err) : status;
}

/* Reads only what any encoder asks for. */
static trn_status narrow_bands(job_dataset *data, trn_error *err)
{
    job_plan *plan = &data->plan;
    const trn_dataset_info *all = trn_dataset_get_info(data->all);
    data->dataset = data->all;
    if (!data->what.trunk && plan->band_count < all->band_count) {
        const char **names = trn_arena_array(plan->arena, plan->band_count, sizeof *names);
        if (!names) return trn_fail_memory(err, plan->band_count * sizeof *names, "bands");
        for (size_t i = 0; i < plan->band_count; i++)
            names[i] = all->bands[plan->bands[i]].stored;
        trn_dataset_options options = dataset_options(data);
        options.bands = names;
        options.band_count = plan->band_count;
        data->dataset = NULL;
        trn_status status = open_samples(data, &options, &data->dataset, err);
        if (status != TRN_OK) return status;
    }
    data->info = trn_dataset_get_info(data->dataset);
    return TRN_OK;
}

/* ---- samples ---- */

static trn_status plan_transforms(job_dataset *data, trn_error *err)
{
    const trn_job_dataset *wish = data->what.data;
    int side = wish->antialias ? 0 : wish->resize; /* else the dataset itself resizes */
    data->eval = (trn_transform){
        .resize_height = side, .resize_width = side, .crop_height = wish->crop, .crop_width = wish->crop};
    data->train = data->eval;
    if (data->what.chances) {
        data->train.random_crop = wish->crop > 0;
        data->train.flip_x = wish->flip_x;
        data->train.flip_y = wish->flip_y;
        data->train.rotate = wish->rotate;
    }
    trn_status status = trn_transform_size(&data->train, data->info->height, data->info->width, &data->height,
                                           &data->width, err);
    if (status != TRN_OK) return trn_wrap(err, "dataset '%s'", data->info->name);
    for (size_t i = 0; i < data->plan.encoder_count && status == TRN_OK; i++)
        status = job_check_image_shape(&data->plan, &data->plan.encoders[i], data->width, data->height, err);
    return status;
}

static trn_status choose_samples(job_dataset *data, trn_error *err)
{
    trn_status status = TRN_OK;
    if (!data->info->samples[TRN_SPLIT_TRAIN])
        return trn_fail(err, TRN_ERR_FORMAT, "dataset '%s': its training split is empty", data->info->name);
    for (int s = 0; s < TRN_SPLIT_COUNT && status == TRN_OK; s++) {
        size_t count = data->info->samples[s], keep = data->what.data->limit[s];
        data->samples[s] = keep ? TRN_MIN(keep, count) : count;
        if (!keep || keep >= count) continue;
        data->chosen[s] = trn_arena_array(data->plan.arena, keep, sizeof(size_t));
        if (!data->chosen[s]) return trn_fail_memory(err, keep * sizeof(size_t), "samples");
        status = trn_data_subset(data->what.seed, count, keep, data->chosen[s], err);
    }
    return status;
}

/* ---- encoders ---- */

static trn_status check_wish(const trn_job_encoder *wish, trn_error *err)
{
    if (wish->date)
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "encoder '%s': date is for scenes of several dates; which date of a dataset's samples "
            "is read, the dataset says",
            wish->model);
    if (wish->remove_position)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': remove_position is for maps of scenes",
                        wish->model);
    return TRN_OK;
}

/* Vectors or maps, by what is learned and by which head. */
static trn_status plan_head(job_dataset *data, trn_error *err)
{
    const trn_head_desc *head = data->what.head;
    const trn_dataset_info *info = trn_dataset_get_info(data->all);
    bool dense = info->task == TRN_TASK_SEGMENTATION;
    if (!head && dense)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "'%s' is a dataset for segmentation: probes learn classes of whole samples",
                        info->name);
    bool maps_only = head && (head->kind == TRN_HEAD_FCN || head->kind == TRN_HEAD_UPERNET);
    bool attends = head && head->kind == TRN_HEAD_ATTENTION;
    if ((dense && attends) || (!dense && maps_only))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "'%s' is a dataset for %s, and the head gives %s: choose another head", info->name,
                        dense ? "segmentation" : "classes of whole samples",
                        dense ? "one class of a whole sample" : "a class for each pixel");
    bool own = head && head->kind == TRN_HEAD_PROGRAM, pools = false;
    if (own && !head->program)
        return trn_fail(err, TRN_ERR_ARGUMENT, "the head is a network of one's own, and none is given");
    /* it takes what the encoders are told to give */
    for (size_t i = 0; i < data->what.encoder_count; i++)
        pools |= data->what.encoders[i].pool != TRN_FEATURES_DENSE;
    data->plan.pooled = !dense && !attends && (!own || pools);
    return own ? trn_program_check(head->program, err) : TRN_OK;
}

static trn_status plan_encoders(job_dataset *data, trn_error *err)
{
    const job_learning *what = &data->what;
    for (size_t i = 0; i < what->encoder_count; i++) {
        trn_status status = job_blame(data->hooks, check_wish(&what->encoders[i], err), TRN_JOB_ENCODER, i);
        if (status != TRN_OK) return status;
    }
    if (what->head && !what->trunk && !what->encoder_count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "the job trains nothing: give encoders, or a network");
    if (what->trunk && what->encoder_count)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "a network of one's own takes the place of encoders: give one");
    return what->trunk ? trn_program_check(what->trunk, err) : job_plan_encoders(&data->plan, err);
}

/* The model as far as no pixel tells. */
static trn_status plan_model(job_dataset *data, trn_error *err)
{
    const job_plan *plan = &data->plan;
    const job_learning *what = &data->what;
    data->members = trn_arena_array(plan->arena, plan->encoder_count + 1, sizeof *data->members);
    if (!data->members) return trn_fail_memory(err, plan->encoder_count * sizeof *data->members, "encoders");
    for (size_t i = 0; i < plan->encoder_count; i++)
        data->members[i] = job_member(plan, &plan->encoders[i]);
    if (what->head) {
        data->head = *what->head;
        data->head.outputs = (int64_t)data->info->class_count;
    }
    data->model = (trn_learn_model){.members = data->members,
                                    .member_count = plan->encoder_count,
                                    .compose = what->compose,
                                    .trunk = what->trunk,
                                    .head = what->head ? &data->head : NULL,
                                    .bands = (int)data->info->band_count,
                                    .height = data->height,
                                    .width = data->width,
                                    .seed = what->seed};
    return TRN_OK;
}

static trn_status open_plan(job_dataset *data, trn_error *err)
{
    job_plan *plan = &data->plan;
    trn_status status = job_blame(data->hooks, open_dataset(data, err), TRN_JOB_SCENE, 0);
    if (status == TRN_OK) status = job_blame(data->hooks, plan_head(data, err), TRN_JOB_WHOLE, 0);
    if (status == TRN_OK) status = plan_encoders(data, err);
    if (status != TRN_OK) return status;
    status = narrow_bands(data, err);
    if (status == TRN_OK) status = plan_transforms(data, err);
    if (status == TRN_OK) status = choose_samples(data, err);
    if (status != TRN_OK) return job_blame(data->hooks, status, TRN_JOB_SCENE, 0);
    plan->width = data->width;
    plan->height = data->height;
    status = job_units_plan(plan, err);
    return status == TRN_OK ? plan_model(data, err) : status;
}

trn_status job_dataset_open(job_dataset *data, const job_learning *what, const trn_job_hooks *hooks,
                            trn_error *err)
{
    const trn_job_dataset *wish = what->data;
    *data = (job_dataset){.what = *what, .hooks = hooks};
    data->embed = (trn_embed_job){.name = what->name,
                                  .scene = {.paths = &data->what.data->path,
                                            .path_count = 1,
                                            .sensor = wish->sensor,
                                            .custom = wish->custom,
                                            .has_scale = wish->has_scale,
                                            .scale = wish->scale,
                                            .offset = wish->offset,
                                            .unit = wish->unit},
                                  .encoders = what->encoders,
                                  .encoder_count = what->encoder_count,
                                  .compose = what->compose,
                                  .memory_limit = what->memory_limit,
                                  .out_dir = what->out_dir,
                                  .strict = what->strict,
                                  .result_extra = what->result_extra};
    data->plan = (job_plan){.job = &data->embed,
                            .hooks = hooks,
                            .dataset = data,
                            .seed = what->seed,
                            .images = true,
                            .paths = data->embed.scene.paths,
                            .path_count = 1,
                            .arena = trn_arena_create()};
    trn_status status = TRN_OK;
    if (!data->plan.arena) status = trn_fail_memory(err, sizeof *data, "the plan of the job");
    if (status == TRN_OK && what->result_extra) status = job_check_extra(what->result_extra, err);
    if (status == TRN_OK) status = open_plan(data, err);
    if (status != TRN_OK) job_dataset_close(data);
    return status;
}

void job_dataset_close(job_dataset *data)
{
    if (data->dataset != data->all) trn_dataset_close(data->dataset);
    job_plan_destroy(&data->plan);
    trn_dataset_close(data->all);
    *data = (job_dataset){0};
}

/* ---- learning from pixels ---- */

trn_learn_hooks job_learn_hooks(const trn_job_hooks *hooks)
{
    if (!hooks) return (trn_learn_hooks){0};
    return (trn_learn_hooks){.progress = hooks->progress, .note = hooks->note, .user = hooks->user};
}

trn_status job_dataset_image(const job_plan *plan, int64_t index, float *pixels, uint8_t *valid,
                             trn_error *err)
{
    const job_dataset *data = plan->dataset;
    memset(valid, 1, (size_t)data->info->height * (size_t)data->info->width);
    return trn_dataset_read(data->dataset, TRN_SPLIT_TRAIN, (size_t)index, pixels, NULL, err);
}

/* Statistics of the values of all training samples, in place of those of sampled windows. Where values are
 * held within limits the samples have to do. */
static void take_statistics(planned_encoder *member, const trn_band_statistics *statistics)
{
    for (size_t c = 0; c < member->channel_count && !member->low; c++) {
        const trn_band_statistics *band = &statistics[member->channels[c]];
        double scale = (double)member->scale[c], std = fabs(scale) * band->std;
        member->mean[c] = (float)(band->mean * scale + (double)member->offset[c]);
        member->std[c] = std > 0 ? (float)std : 1; /* a constant band becomes zeros */
    }
}

static trn_status learn_trunk(job_dataset *data, const trn_band_statistics *statistics, trn_error *err)
{
    size_t count = data->info->band_count;
    float *mean = trn_arena_array(data->plan.arena, count, sizeof *mean);
    float *std = trn_arena_array(data->plan.arena, count, sizeof *std);
    if (!mean || !std) return trn_fail_memory(err, count * sizeof *mean, "statistics");
    for (size_t b = 0; b < count; b++) {
        mean[b] = (float)statistics[b].mean;
        std[b] = statistics[b].std > 0 ? (float)statistics[b].std : 1;
    }
    data->model.trunk_mean = mean;
    data->model.trunk_std = std;
    return TRN_OK;
}

static bool wants_statistics(const job_dataset *data)
{
    bool wanted = data->what.trunk != NULL;
    for (size_t i = 0; i < data->plan.encoder_count; i++)
        wanted |= data->plan.encoders[i].mean && !data->plan.encoders[i].low;
    return wanted;
}

static trn_status learn_statistics(job_dataset *data, trn_error *err)
{
    size_t bytes = data->info->band_count * sizeof(trn_band_statistics);
    if (!wants_statistics(data)) return TRN_OK;
    trn_band_statistics *statistics = trn_arena_alloc(data->plan.arena, bytes);
    if (!statistics) return trn_fail_memory(err, bytes, "statistics");
    trn_status status = trn_dataset_statistics(data->dataset, TRN_SPLIT_TRAIN, 0,
                                               data->hooks ? &data->hooks->progress : NULL, statistics, err);
    if (status != TRN_OK) return job_blame(data->hooks, status, TRN_JOB_SCENE, 0);
    for (size_t i = 0; i < data->plan.encoder_count; i++)
        if (data->plan.encoders[i].mean) take_statistics(&data->plan.encoders[i], statistics);
    return data->what.trunk ? learn_trunk(data, statistics, err) : TRN_OK;
}

/* Windows are sampled from training samples as they are stored; what is fed may be smaller. */
static trn_status learn_encoders(job_dataset *data, trn_error *err)
{
    job_plan *plan = &data->plan;
    if (!plan->encoder_count) return TRN_OK;
    plan->windows = (int64_t)data->info->samples[TRN_SPLIT_TRAIN];
    plan->width = data->info->width;
    plan->height = data->info->height;
    trn_status status = job_plan_learn(plan, err);
    plan->width = data->width;
    plan->height = data->height;
    return status;
}

trn_status job_dataset_learn(job_dataset *data, trn_error *err)
{
    job_plan *plan = &data->plan;
    trn_status status = learn_encoders(data, err);
    if (status == TRN_OK) status = learn_statistics(data, err);
    if (status != TRN_OK) return status;
    for (size_t i = 0; i < plan->encoder_count; i++) /* now with statistics */
        data->members[i] = job_member(plan, &plan->encoders[i]);
    return TRN_OK;
}

/* ---- explaining ---- */

static void explain_samples(const job_dataset *data, trn_text *out)
{
    trn_text_add(out, "samples   ");
    for (int s = 0; s < TRN_SPLIT_COUNT; s++) {
        trn_text_printf(out, "%s%zu %s", s ? ", " : "", data->samples[s], trn_split_name((trn_split)s));
        if (data->chosen[s]) trn_text_printf(out, " (of %zu)", data->info->samples[s]);
    }
    trn_text_add(out, "\n");
}

static void explain_feeding(const job_dataset *data, trn_text *out)
{
    const trn_transform *train = &data->train;
    trn_text_printf(out, "fed as    %d x %d pixels", data->width, data->height);
    if (train->random_crop) trn_text_add(out, ", cropped at random in training");
    if (train->flip_x > 0) trn_text_printf(out, ", flipped left to right by %g", train->flip_x);
    if (train->flip_y > 0) trn_text_printf(out, ", flipped top to bottom by %g", train->flip_y);
    if (train->rotate) trn_text_add(out, ", turned by right angles");
    trn_text_add(out, "\n");
}

void job_dataset_explain(const job_dataset *data, trn_text *out)
{
    const job_plan *plan = &data->plan;
    const trn_dataset_info *info = trn_dataset_get_info(data->all);
    trn_text_printf(out, "dataset   '%s': %s, %zu classes, samples of %d x %d pixels, %zu bands\n",
                    info->name, trn_task_name(info->task), info->class_count, info->width, info->height,
                    info->band_count);
    explain_samples(data, out);
    explain_feeding(data, out);
    trn_text_printf(out, "sensor    %s\n", plan->sensor ? plan->sensor->name : "not given");
    for (size_t i = 0; i < info->band_count; i++) {
        const trn_data_band *band = &info->bands[i];
        trn_text_printf(out, "%-10s%s", i ? "" : "bands", band->stored);
        if (strcmp(band->name, band->stored) != 0) trn_text_printf(out, ", which is %s", band->name);
        if (band->common && strcmp(band->common, band->name) != 0)
            trn_text_printf(out, " (%s)", band->common);
        if (band->wavelength_um > 0) trn_text_printf(out, ", %g um", band->wavelength_um);
        trn_text_add(out, "\n");
    }
    for (size_t i = 0; i < plan->encoder_count; i++)
        job_explain_encoder(plan, &plan->encoders[i], out);
}
