/* A scene: one or more files of one size, its bands and their names, and reading windows of it. */
#include "raster_private.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { CACHE_BYTES = 256 << 20, MAX_FILES = 4096, MAX_IMAGE_FILE = 1 << 30 };

struct trn_scene {
    trn_arena *arena;
    raster_source *sources; /* [source_count] */
    size_t source_count;
    struct scene_place { /* where band i of the scene lies */
        raster_source *source;
        int sample;
    } * places;
    trn_scene_band *bands;
    trn_scene_info info;
    block_cache *cache;
};

/* ---- opening ---- */

static trn_status open_image(raster_source *source, trn_arena *arena, const uint8_t *data, size_t size,
                             trn_error *err)
{
    trn_status status = image_is_jpeg(data, size) ? image_source_open_jpeg(source, data, size, err)
                                                  : image_source_open_png(source, data, size, err);
    if (status != TRN_OK) return status;
    const double identity[6] = {0, 1, 0, 0, 0, 1};
    source->alpha_sample = -1;
    memcpy(source->georef.transform, identity, sizeof identity);
    source->bands = trn_arena_array(arena, (size_t)source->samples, sizeof *source->bands);
    if (!source->bands) return trn_fail_memory(err, sizeof *source->bands, "the bands of an image");
    static const char *const colours[] = {"red", "green", "blue"};
    for (int i = 0; i < source->samples; i++) {
        source->bands[i].scale = 1;
        source->bands[i].implied = true;
        if (source->samples == (int)TRN_COUNT(colours)) source->bands[i].description = colours[i];
    }
    return TRN_OK;
}

static trn_status open_file(raster_source *source, trn_arena *arena, trn_error *err)
{
    FILE *file = trn_path_is_dir(source->path) ? NULL : fopen(source->path, "rb");
    if (!file && trn_path_is_dir(source->path))
        return trn_fail(err, TRN_ERR_ARGUMENT, "'%s' is a folder: name the image in it", source->path);
    if (!file) return trn_fail_errno(err, "open", source->path);
    uint8_t head[8] = {0};
    size_t got = fread(head, 1, sizeof head, file);
    fclose(file);
    if (!image_is_jpeg(head, got) && !image_is_png(head, got)) {
        bool tiff = got == 8 && (!memcmp(head, "II", 2) || !memcmp(head, "MM", 2));
        if (tiff) return tiff_source_open(source, arena, false, err);
        return trn_fail(err, TRN_ERR_FORMAT, "'%s' is no TIFF, JPEG or PNG file by its first bytes",
                        source->path);
    }
    size_t size;
    char *data = trn_read_file(source->path, MAX_IMAGE_FILE, &size, err);
    if (!data) return err ? err->code : TRN_ERR_IO;
    trn_status status = open_image(source, arena, (const uint8_t *)data, size, err);
    free(data);
    return status;
}

static trn_status open_memory(raster_source *source, trn_arena *arena, trn_error *err)
{
    const raster_memory *memory = &source->memory;
    if (image_is_jpeg(memory->data, memory->size) || image_is_png(memory->data, memory->size))
        return open_image(source, arena, memory->data, memory->size, err);
    return tiff_source_open(source, arena, true, err);
}

static trn_status check_agreement(const raster_source *first, const raster_source *other, trn_error *err)
{
    if (first->width != other->width || first->height != other->height)
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "'%s' has %lld x %lld pixels and '%s' %lld x %lld: the files of a scene must have one size; "
            "resample one, for example with gdalwarp",
            first->path, (long long)first->width, (long long)first->height, other->path,
            (long long)other->width, (long long)other->height);
    const char *difference;
    if (trn_georef_agrees(&first->georef, &other->georef, first->width, first->height, &difference))
        return TRN_OK;
    return trn_fail(
        err, TRN_ERR_ARGUMENT,
        "'%s' and '%s' have different %s: the files of a scene must lie on one grid; warp one onto the "
        "other, for example with gdalwarp",
        first->path, other->path, difference);
}

static size_t count_alphas(const trn_scene *scene)
{
    size_t count = 0;
    for (size_t s = 0; s < scene->source_count; s++)
        count += scene->sources[s].alpha_sample >= 0;
    return count;
}

/* Lists the bands of the files; samples called alpha are among them unless they hide. */
static trn_status place_bands(trn_scene *scene, const trn_scene_options *options, bool alpha_hides,
                              trn_error *err)
{
    size_t count = 0, next = 0;
    for (size_t s = 0; s < scene->source_count; s++) {
        raster_source *source = &scene->sources[s];
        source->alpha_hides = alpha_hides && source->alpha_sample >= 0;
        count += (size_t)source->samples - source->alpha_hides;
    }
    if (count > RASTER_MAX_BANDS)
        return trn_fail(err, TRN_ERR_UNSUPPORTED, "the scene has %zu bands; at most %d are read", count,
                        RASTER_MAX_BANDS);
    scene->places = trn_arena_array(scene->arena, count, sizeof *scene->places);
    scene->bands = trn_arena_array(scene->arena, count, sizeof *scene->bands);
    if (!scene->places || !scene->bands) return trn_fail_memory(err, count * sizeof *scene->bands, "bands");
    for (size_t s = 0; s < scene->source_count; s++) {
        raster_source *source = &scene->sources[s];
        for (int i = 0; i < source->samples; i++) {
            if (source->alpha_hides && i == source->alpha_sample) continue;
            scene->places[next] = (struct scene_place){source, i};
            scene->bands[next++] = (trn_scene_band){
                .file = source->path,
                .description = source->bands[i].implied ? NULL : source->bands[i].description,
                .type = source->type,
                .scale = source->bands[i].scale,
                .offset = source->bands[i].offset,
                .has_nodata = options->has_nodata || source->has_nodata,
                .nodata = options->has_nodata ? options->nodata : source->nodata,
            };
        }
    }
    scene->info.bands = scene->bands;
    scene->info.band_count = count;
    return TRN_OK;
}

/* ---- names of bands ---- */

/* The sensor's band that the end of a file's name says, or -1: "T32_B04_10m.tif", "LC08_SR_B4.TIF". */
static int band_of_file(const trn_sensor *sensor, const char *name)
{
    char stem[256];
    snprintf(stem, sizeof stem, "%s", name);
    char *dot = strrchr(stem, '.');
    if (dot) *dot = 0;
    if (trn_ends_with(stem, "_10m") || trn_ends_with(stem, "_20m") || trn_ends_with(stem, "_60m"))
        stem[strlen(stem) - 4] = 0;
    for (char *at = stem + strlen(stem); at > stem; at--) {
        int band = strchr("_.-", at[-1]) ? trn_sensor_band(sensor, at) : -1;
        if (band >= 0) return band;
    }
    return trn_sensor_band(sensor, stem);
}

/* The sensor's band of a description: "B4", or as GDAL's Sentinel-2 driver says it, "B4, central wavelength
 * 665 nm". */
static int band_of_description(const trn_sensor *sensor, const char *description)
{
    char name[64];
    int found = trn_sensor_band(sensor, description);
    size_t length = strcspn(description, ",");
    if (found >= 0 || !description[length] || length >= sizeof name) return found;
    memcpy(name, description, length);
    name[length] = 0;
    return trn_sensor_band(sensor, name);
}

static int band_from_file(const trn_scene *scene, const trn_sensor *sensor, size_t band)
{
    const struct scene_place *place = &scene->places[band];
    const char *description = place->source->bands[place->sample].description;
    int found = description ? band_of_description(sensor, description) : -1;
    if (found >= 0 || place->source->samples - place->source->alpha_hides > 1) return found;
    return band_of_file(sensor, place->source->name);
}

/* True when every band of the scene is found in the sensor by what its file says, each once. indices
 * [band_count]. */
static bool match_by_file(const trn_scene *scene, const trn_sensor *sensor, int *indices)
{
    for (size_t i = 0; i < scene->info.band_count; i++) {
        indices[i] = band_from_file(scene, sensor, i);
        if (indices[i] < 0) return false;
        for (size_t j = 0; j < i; j++)
            if (indices[j] == indices[i]) return false;
    }
    return true;
}

/* Whether all descriptions are only what the file formats say. */
static bool all_implied(const trn_scene *scene)
{
    for (size_t s = 0; s < scene->source_count; s++)
        if (!scene->sources[s].bands[0].implied) return false;
    return true;
}

/* Finds the scene's bands in the sensor; indices [band_count of the sensor]. A colour image says no more than
 * its format, so there a sensor of as many bands comes first. */
static bool match_sensor(const trn_scene *scene, const trn_sensor *sensor, int *indices)
{
    size_t count = scene->info.band_count;
    if (count > sensor->band_count) return false;
    if (all_implied(scene) && trn_sensor_match_count(sensor, count, indices)) return true;
    return match_by_file(scene, sensor, indices) || trn_sensor_match_count(sensor, count, indices);
}

static bool descriptions_differ(const trn_scene *scene)
{
    size_t count = scene->info.band_count;
    if (count > 4096) return false; /* the comparison below is quadratic */
    for (size_t i = 0; i < count; i++) {
        const char *mine = scene->places[i].source->bands[scene->places[i].sample].description;
        if (!mine) return false;
        for (size_t j = 0; j < i; j++)
            if (!strcasecmp(mine, scene->places[j].source->bands[scene->places[j].sample].description))
                return false;
    }
    return true;
}

static trn_status name_from_caller(trn_scene *scene, const trn_scene_options *options, trn_error *err)
{
    size_t count = scene->info.band_count;
    if (options->band_name_count != count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "%zu band names are given, and '%s' has %zu bands: name each",
                        options->band_name_count, scene->info.name, count);
    for (size_t i = 0; i < count; i++) {
        scene->bands[i].name = trn_arena_strdup(scene->arena, options->band_names[i]);
        if (!scene->bands[i].name) return trn_fail_memory(err, 64, "names of bands");
        for (size_t j = 0; j < i; j++)
            if (!strcasecmp(scene->bands[i].name, scene->bands[j].name))
                return trn_fail(err, TRN_ERR_ARGUMENT, "two bands are named '%s': names must differ",
                                scene->bands[i].name);
    }
    return TRN_OK;
}

static trn_status name_bands(trn_scene *scene, const trn_scene_options *options, trn_error *err)
{
    if (options->band_names && options->band_name_count) return name_from_caller(scene, options, err);
    const trn_sensor *sensor = options->sensor;
    size_t count = scene->info.band_count;
    int *indices = sensor ? trn_arena_array(scene->arena, sensor->band_count, sizeof *indices) : NULL;
    if (sensor && !indices)
        return trn_fail_memory(err, sensor->band_count * sizeof *indices, "names of bands");
    if (indices && match_sensor(scene, sensor, indices)) {
        for (size_t i = 0; i < count; i++)
            scene->bands[i].name = sensor->bands[indices[i]].name;
        return TRN_OK;
    }
    bool described = descriptions_differ(scene);
    for (size_t i = 0; i < count; i++) {
        const struct scene_place *place = &scene->places[i];
        scene->bands[i].name = described ? place->source->bands[place->sample].description
                                         : trn_arena_printf(scene->arena, "%zu", i + 1);
        if (!scene->bands[i].name) return trn_fail_memory(err, 64, "names of bands");
    }
    return TRN_OK;
}

/* Samples called alpha are bands when the caller's names or the sensor have one for them, or nobody says
 * anything; they hide pixels when names or sensor fit only without them. */
static trn_status settle_alpha(trn_scene *scene, const trn_scene_options *options, trn_error *err)
{
    const trn_sensor *sensor = options->sensor;
    size_t alphas = count_alphas(scene), bands = scene->info.band_count;
    bool named = options->band_names && options->band_name_count;
    if (!alphas || alphas == bands || (!named && !sensor)) return TRN_OK;
    if (named)
        return options->band_name_count == bands - alphas ? place_bands(scene, options, true, err) : TRN_OK;
    int *indices = trn_arena_array(scene->arena, sensor->band_count, sizeof *indices);
    if (!indices) return trn_fail_memory(err, sensor->band_count * sizeof *indices, "names of bands");
    if (match_sensor(scene, sensor, indices)) return TRN_OK;
    trn_status status = place_bands(scene, options, true, err);
    if (status != TRN_OK || match_sensor(scene, sensor, indices)) return status;
    return place_bands(scene, options, false, err);
}

static trn_status finish_open(trn_scene *scene, const trn_scene_options *options, trn_error *err)
{
    const raster_source *first = &scene->sources[0];
    char *stem = trn_arena_strdup(scene->arena, first->name);
    if (!stem) return trn_fail_memory(err, 64, "a scene");
    char *dot = strrchr(stem, '.');
    if (dot && dot != stem) *dot = 0;
    scene->info = (trn_scene_info){.width = first->width,
                                   .height = first->height,
                                   .georef = first->georef,
                                   .sensor = options->sensor,
                                   .name = stem,
                                   .date_time = first->date_time};
    trn_status status = place_bands(scene, options, false, err);
    if (status == TRN_OK) status = settle_alpha(scene, options, err);
    return status == TRN_OK ? name_bands(scene, options, err) : status;
}

static trn_scene *create_scene(size_t files, size_t cache_bytes, trn_error *err)
{
    trn_scene *scene = calloc(1, sizeof *scene);
    if (scene) scene->arena = trn_arena_create();
    if (scene) scene->cache = block_cache_create(cache_bytes ? cache_bytes : CACHE_BYTES);
    if (scene && scene->arena) scene->sources = trn_arena_array(scene->arena, files, sizeof *scene->sources);
    if (scene && scene->sources && scene->cache) return scene;
    trn_scene_close(scene);
    trn_fail_memory(err, files * sizeof(raster_source), "a scene");
    return NULL;
}

static trn_status open_source(trn_scene *scene, const char *path, const raster_memory *memory, trn_error *err)
{
    raster_source *source = &scene->sources[scene->source_count];
    source->path = trn_arena_strdup(scene->arena, path);
    if (!source->path) return trn_fail_memory(err, strlen(path), "a scene");
    source->name = trn_path_name(source->path);
    if (memory) source->memory = *memory;
    scene->source_count++; /* so that closing the scene frees what a failed opening left */
    trn_status status =
        memory ? open_memory(source, scene->arena, err) : open_file(source, scene->arena, err);
    if (status != TRN_OK || scene->source_count == 1) return status;
    return check_agreement(&scene->sources[0], source, err);
}

trn_status trn_scene_open(const char *const *paths, size_t count, const trn_scene_options *options,
                          trn_scene **out, trn_error *err)
{
    static const trn_scene_options none = {0};
    *out = NULL;
    if (!count || count > MAX_FILES)
        return trn_fail(err, TRN_ERR_ARGUMENT, "a scene of %zu files: give 1 to %d", count, MAX_FILES);
    trn_scene *scene = create_scene(count, options ? options->cache_bytes : 0, err);
    if (!scene) return TRN_ERR_MEMORY;
    trn_status status = TRN_OK;
    for (size_t i = 0; i < count && status == TRN_OK; i++)
        status = open_source(scene, paths[i], NULL, err);
    if (status == TRN_OK) status = finish_open(scene, options ? options : &none, err);
    if (status == TRN_OK)
        *out = scene;
    else
        trn_scene_close(scene);
    return status;
}

trn_status scene_open_memory(const char *name, const uint8_t *data, size_t size,
                             const trn_scene_options *options, trn_scene **out, trn_error *err)
{
    static const trn_scene_options none = {0};
    *out = NULL;
    trn_scene *scene = create_scene(1, options ? options->cache_bytes : 0, err);
    if (!scene) return TRN_ERR_MEMORY;
    trn_status status = open_source(scene, name, &(raster_memory){data, size, 0}, err);
    if (status == TRN_OK) status = finish_open(scene, options ? options : &none, err);
    if (status == TRN_OK)
        *out = scene;
    else
        trn_scene_close(scene);
    return status;
}

void trn_scene_close(trn_scene *scene)
{
    if (!scene) return;
    for (size_t s = 0; s < scene->source_count; s++) {
        tiff_source_close(&scene->sources[s]);
        free(scene->sources[s].image);
        free(scene->sources[s].alpha);
    }
    block_cache_destroy(scene->cache);
    trn_arena_destroy(scene->arena);
    free(scene);
}

const trn_scene_info *trn_scene_get_info(const trn_scene *scene)
{
    return &scene->info;
}

uint64_t scene_blocks_decoded(const trn_scene *scene)
{
    return block_cache_decoded(scene->cache);
}

static int find_in_scene(const trn_scene_info *info, const char *name)
{
    for (size_t i = 0; i < info->band_count; i++)
        if (!strcasecmp(info->bands[i].name, name)) return (int)i;
    int wanted = info->sensor ? trn_sensor_band(info->sensor, name) : -1;
    for (size_t i = 0; wanted >= 0 && i < info->band_count; i++)
        if (trn_sensor_band(info->sensor, info->bands[i].name) == wanted) return (int)i;
    const char *common = trn_band_common(name);
    for (size_t i = 0; common && i < info->band_count; i++) {
        const char *own = trn_band_common(info->bands[i].name);
        if (own && !strcmp(own, common)) return (int)i;
    }
    return -1;
}

int trn_scene_find_band(const trn_scene *scene, const char *name, trn_error *err)
{
    const trn_scene_info *info = &scene->info;
    int found = find_in_scene(info, name);
    if (found >= 0) return found;
    trn_text list = {0};
    for (size_t i = 0; i < info->band_count && i < 40; i++)
        trn_text_printf(&list, "%s%s", i ? ", " : "", info->bands[i].name);
    if (info->band_count > 40) trn_text_add(&list, ", ...");
    trn_fail(err, TRN_ERR_ARGUMENT, "scene '%s' has no band '%s'; it has %s%s", info->name, name,
             trn_text_get(&list),
             info->sensor ? "" : "; name the sensor, or the bands, so that they can be found");
    trn_text_free(&list);
    return -1;
}

/* ---- reading ---- */

/* The pixel of [0, size) that position p shows, reflected at the edges as often as needed. */
static int64_t reflect(int64_t p, int64_t size)
{
    if (size == 1) return 0;
    int64_t period = 2 * (size - 1), q = p % period;
    if (q < 0) q += period;
    return q < size ? q : period - q;
}

typedef struct rect {
    int64_t x, y, w, h;
} rect;

/* Converts what block (bx, by) and the rectangle share; out and valid are [rect.h, rect.w]. */
static void convert_block(const struct scene_place *place, const pixel_rule *rule, const uint8_t *block,
                          int64_t bx, int64_t by, rect r, float *out, uint8_t *valid)
{
    const raster_source *source = place->source;
    int64_t left = bx * source->block_width, top = by * source->block_height;
    int64_t x0 = TRN_MAX(r.x, left), x1 = TRN_MIN(r.x + r.w, left + source->block_width);
    int64_t y0 = TRN_MAX(r.y, top), y1 = TRN_MIN(r.y + r.h, top + source->block_height);
    size_t samples = source->separate ? 1 : (size_t)source->samples;
    size_t row_bytes = (size_t)source->block_width * samples * (size_t)source->sample_bytes;
    size_t sample_offset = source->separate ? 0 : (size_t)place->sample * (size_t)source->sample_bytes;
    for (int64_t y = y0; y < y1; y++) {
        const uint8_t *from = block + (size_t)(y - top) * row_bytes +
                              (size_t)(x0 - left) * samples * (size_t)source->sample_bytes + sample_offset;
        size_t at = (size_t)(y - r.y) * (size_t)r.w + (size_t)(x0 - r.x);
        pixels_convert(rule, from, samples, x1 - x0, out + at, valid + at);
    }
}

/* Converts block (bx, by) for every listed band from `first` on that is stored in it. */
static trn_status read_block(trn_scene *scene, const int *bands, size_t first, size_t count, int64_t bx,
                             int64_t by, rect r, float *out, uint8_t *valid, trn_error *err)
{
    const struct scene_place *place = &scene->places[bands[first]];
    raster_source *source = place->source;
    int plane = source->separate ? place->sample : 0;
    const uint8_t *block = block_cache_get(scene->cache, source, plane, by * source->blocks_across + bx, err);
    if (!block) return err ? err->code : TRN_ERR_FORMAT;
    size_t last = source->separate ? first + 1 : count;
    for (size_t i = first; i < last; i++) {
        const trn_scene_band *info = &scene->bands[bands[i]];
        const pixel_rule rule = {info->type,   source->sample_bytes, info->has_nodata,
                                 info->nodata, info->scale,          info->offset};
        if (scene->places[bands[i]].source == source)
            convert_block(&scene->places[bands[i]], &rule, block, bx, by, r,
                          out + i * (size_t)r.w * (size_t)r.h, valid);
    }
    return TRN_OK;
}

/* Whether an earlier band of the list brought this one along, from the same blocks. */
static bool read_already(const trn_scene *scene, const int *bands, size_t i)
{
    const raster_source *source = scene->places[bands[i]].source;
    for (size_t j = 0; j < i && !source->separate; j++)
        if (scene->places[bands[j]].source == source) return true;
    return false;
}

static void apply_alpha(const raster_source *source, rect r, uint8_t *valid)
{
    for (int64_t y = 0; y < r.h; y++)
        for (int64_t x = 0; x < r.w; x++)
            if (!source->alpha[(r.y + y) * source->width + r.x + x]) valid[y * r.w + x] = 0;
}

/* Clears valid where block (bx, by) of the source's sample is 0, within the rectangle. */
static void hide_by_block(const raster_source *source, int sample, const uint8_t *block, int64_t bx,
                          int64_t by, rect r, uint8_t *valid)
{
    int64_t left = bx * source->block_width, top = by * source->block_height;
    int64_t x0 = TRN_MAX(r.x, left), x1 = TRN_MIN(r.x + r.w, left + source->block_width);
    int64_t y0 = TRN_MAX(r.y, top), y1 = TRN_MIN(r.y + r.h, top + source->block_height);
    size_t size = (size_t)source->sample_bytes, samples = source->separate ? 1 : (size_t)source->samples;
    size_t first = source->separate ? 0 : (size_t)sample;
    static const uint8_t zero[8];
    for (int64_t y = y0; y < y1; y++) {
        const uint8_t *row = block + (size_t)(y - top) * (size_t)source->block_width * samples * size;
        for (int64_t x = x0; x < x1; x++)
            if (!memcmp(row + ((size_t)(x - left) * samples + first) * size, zero, size))
                valid[(y - r.y) * r.w + x - r.x] = 0;
    }
}

static trn_status hide_by_sample(trn_scene *scene, raster_source *source, int sample, rect r, uint8_t *valid,
                                 trn_error *err)
{
    int64_t last_x = (r.x + r.w - 1) / source->block_width, last_y = (r.y + r.h - 1) / source->block_height;
    int plane = source->separate ? sample : 0;
    for (int64_t by = r.y / source->block_height; by <= last_y; by++) {
        for (int64_t bx = r.x / source->block_width; bx <= last_x; bx++) {
            const uint8_t *block =
                block_cache_get(scene->cache, source, plane, by * source->blocks_across + bx, err);
            if (!block) return err ? err->code : TRN_ERR_FORMAT;
            hide_by_block(source, sample, block, bx, by, r, valid);
        }
    }
    return TRN_OK;
}

/* Whether band i of the list is the first from its file. */
static bool first_of_file(const trn_scene *scene, const int *bands, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (scene->places[bands[j]].source == scene->places[bands[i]].source) return false;
    return true;
}

/* What the files of the listed bands hide, by an alpha channel or a mask. */
static trn_status apply_masks(trn_scene *scene, const int *bands, size_t count, rect r, uint8_t *valid,
                              trn_error *err)
{
    trn_status status = TRN_OK;
    for (size_t i = 0; i < count && status == TRN_OK; i++) {
        raster_source *source = scene->places[bands[i]].source;
        if (!first_of_file(scene, bands, i)) continue;
        if (source->alpha) apply_alpha(source, r, valid);
        if (source->alpha_hides) status = hide_by_sample(scene, source, source->alpha_sample, r, valid, err);
        if (source->mask && status == TRN_OK) status = hide_by_sample(scene, source->mask, 0, r, valid, err);
    }
    return status;
}

/* The listed bands of a rectangle inside the scene: out [count, r.h, r.w]. A block that holds several of them
 * is looked up once. */
static trn_status read_inside(trn_scene *scene, const int *bands, size_t count, rect r, float *out,
                              uint8_t *valid, trn_error *err)
{
    for (size_t i = 0; i < count; i++) {
        const raster_source *source = scene->places[bands[i]].source;
        if (read_already(scene, bands, i)) continue;
        int64_t last_x = (r.x + r.w - 1) / source->block_width,
                last_y = (r.y + r.h - 1) / source->block_height;
        for (int64_t by = r.y / source->block_height; by <= last_y; by++) {
            for (int64_t bx = r.x / source->block_width; bx <= last_x; bx++) {
                trn_status status = read_block(scene, bands, i, count, bx, by, r, out, valid, err);
                if (status != TRN_OK) return status;
            }
        }
    }
    return apply_masks(scene, bands, count, r, valid, err);
}

/* The part of [p, p+n) reflected into [0, size), as the least range that holds it. */
static void reflected_range(int64_t p, int64_t n, int64_t size, int64_t *first, int64_t *count)
{
    int64_t low = size - 1, high = 0;
    for (int64_t i = 0; i < n && (low > 0 || high < size - 1); i++) {
        int64_t q = reflect(p + i, size);
        low = TRN_MIN(low, q);
        high = TRN_MAX(high, q);
    }
    *first = low;
    *count = high - low + 1;
}

/* out [w.h, w.w] of the window from inside [r.h, r.w], reflected. */
static void expand_rows(rect w, rect r, int64_t width, int64_t height, const float *inside, const uint8_t *ok,
                        float *out, uint8_t *valid)
{
    for (int64_t y = 0; y < w.h; y++) {
        int64_t row = (reflect(w.y + y, height) - r.y) * r.w - r.x;
        for (int64_t x = 0; x < w.w; x++) {
            int64_t from = row + reflect(w.x + x, width), to = y * w.w + x;
            out[to] = inside[from];
            if (!ok[from]) valid[to] = 0;
        }
    }
}

static trn_status read_reflected(trn_scene *scene, const int *bands, size_t count, rect w, float *out,
                                 uint8_t *valid, trn_error *err)
{
    rect r;
    trn_status status = TRN_OK;
    reflected_range(w.x, w.w, scene->info.width, &r.x, &r.w);
    reflected_range(w.y, w.h, scene->info.height, &r.y, &r.h);
    size_t pixels = (size_t)r.w * (size_t)r.h;
    float *inside = malloc(pixels * count * sizeof *inside);
    uint8_t *ok = malloc(pixels);
    if (!inside || !ok) {
        status = trn_fail_memory(err, pixels * count * sizeof *inside, "a window of the scene");
    } else {
        memset(ok, 1, pixels);
        status = read_inside(scene, bands, count, r, inside, ok, err);
    }
    for (size_t i = 0; i < count && status == TRN_OK; i++)
        expand_rows(w, r, scene->info.width, scene->info.height, inside + i * pixels, ok,
                    out + i * (size_t)w.w * (size_t)w.h, valid);
    free(inside);
    free(ok);
    return status;
}

static trn_status check_window(const trn_scene *scene, const int *bands, size_t count, rect w, trn_error *err)
{
    const int64_t far = INT64_C(1) << 40;
    size_t pixels = 0, total;
    bool sized = w.w > 0 && w.h > 0 && w.w <= RASTER_MAX_SIDE && w.h <= RASTER_MAX_SIDE && count > 0;
    if (!sized || w.x < -far || w.x > far || w.y < -far || w.y > far ||
        !trn_mul_size((size_t)w.w, (size_t)w.h, &pixels) ||
        !trn_mul_size(pixels, count * sizeof(float), &total))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "scene '%s': no window of %lld x %lld pixels at %lld, %lld can be read",
                        scene->info.name, (long long)w.w, (long long)w.h, (long long)w.x, (long long)w.y);
    for (size_t i = 0; i < count; i++)
        if (bands[i] < 0 || (size_t)bands[i] >= scene->info.band_count)
            return trn_fail(err, TRN_ERR_ARGUMENT, "scene '%s' has %zu bands, and not band %d",
                            scene->info.name, scene->info.band_count, bands[i]);
    return TRN_OK;
}

trn_status trn_scene_read(trn_scene *scene, const int *bands, size_t count, int64_t x, int64_t y, int64_t w,
                          int64_t h, float *out, uint8_t *valid, trn_error *err)
{
    const rect window = {x, y, w, h};
    trn_status status = check_window(scene, bands, count, window, err);
    if (status != TRN_OK) return status;
    size_t pixels = (size_t)w * (size_t)h;
    uint8_t *ok = valid ? valid : malloc(pixels);
    if (!ok) return trn_fail_memory(err, pixels, "a window of the scene");
    memset(ok, 1, pixels);
    if (x < 0 || y < 0 || x + w > scene->info.width || y + h > scene->info.height)
        status = read_reflected(scene, bands, count, window, out, ok, err);
    else
        status = read_inside(scene, bands, count, window, out, ok, err);
    for (size_t p = 0; p < pixels && status == TRN_OK; p++)
        for (size_t i = 0; i < count && !ok[p]; i++)
            out[i * pixels + p] = 0;
    if (!valid) free(ok);
    return status;
}
