/* Which files of a list are the dates of one series: a band that comes again begins the next date. */
#include "raster_private.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What a file holds. */
typedef struct file_bands {
    char **names; /* [count], or NULL when nothing says what the bands are */
    size_t count;
} file_bands;

static void forget_bands(file_bands *bands)
{
    if (bands->names) trn_names_free(bands->names, bands->count);
    *bands = (file_bands){0};
}

/* One spelling for every band of the sensor, or of the common names; other texts stay as they are. */
static const char *one_spelling(const trn_sensor *sensor, const char *name)
{
    int band = sensor ? trn_sensor_band(sensor, name) : -1;
    if (band >= 0) return sensor->bands[band].name;
    const char *common = trn_band_common(name);
    return common ? common : name;
}

/* Whether any sensor has a band of that name, so that the word may be trusted to be one. */
static bool is_band_word(const char *word)
{
    if (trn_band_common(word)) return true;
    for (size_t i = 0; i < trn_sensor_count(); i++)
        if (trn_sensor_band(trn_sensor_at(i), word) >= 0) return true;
    return false;
}

/* The band that the end of a file's name says: "..._B04_10m.tif". Writes into stem [256]; NULL: none. */
static const char *word_of_file(const char *path, char *stem)
{
    snprintf(stem, 256, "%s", trn_path_name(path));
    char *dot = strrchr(stem, '.');
    if (dot) *dot = 0;
    if (trn_ends_with(stem, "_10m") || trn_ends_with(stem, "_20m") || trn_ends_with(stem, "_60m"))
        stem[strlen(stem) - 4] = 0;
    for (char *at = stem + strlen(stem); at > stem; at--)
        if (strchr("_.-", at[-1]) && is_band_word(at)) return at;
    return is_band_word(stem) ? stem : NULL;
}

/* The words for the bands of an opened file, into words [count]; false when they have none. */
static bool find_words(const trn_scene_info *info, const char *path, char *stem, const char **words)
{
    for (size_t i = 0; i < info->band_count; i++)
        words[i] = info->bands[i].name;
    if (info->band_count > 1) {
        for (size_t i = 0; i < info->band_count; i++)
            if (!trn_band_is_number(words[i])) return true;
        return false;
    }
    /* descriptions of single bands are often the same in all files of a scene ("reflectance") */
    if (info->sensor && trn_sensor_band(info->sensor, words[0]) >= 0) return true;
    if (!trn_band_is_number(words[0]) && is_band_word(words[0])) return true;
    words[0] = word_of_file(path, stem);
    return words[0] != NULL;
}

static trn_status copy_words(const trn_scene_info *info, const char *path, file_bands *out, trn_error *err)
{
    char stem[256];
    trn_status status = TRN_OK;
    const char **words = calloc(info->band_count, sizeof *words);
    char **names = calloc(info->band_count, sizeof *names);
    if (!words || !names) {
        status = trn_fail_memory(err, info->band_count * sizeof *names, "names of bands");
        goto fail;
    }
    out->count = info->band_count;
    if (!find_words(info, path, stem, words)) goto fail; /* not a failure: nothing names them */
    for (size_t i = 0; i < info->band_count; i++) {
        names[i] = strdup(one_spelling(info->sensor, words[i]));
        if (!names[i]) status = trn_fail_memory(err, 64, "names of bands");
    }
    out->names = names;
    names = NULL;
fail:
    free(words);
    free(names);
    return status;
}

static trn_status look_at(const char *path, const trn_scene_options *options, file_bands *out, trn_error *err)
{
    trn_scene *scene = NULL;
    trn_error ignored = {0};
    bool named = options->band_names && options->band_name_count;
    *out = (file_bands){0};
    /* names may say that an alpha sample is no band */
    if (named && trn_scene_open(&path, 1, options, &scene, &ignored) == TRN_OK) {
        out->count = options->band_name_count;
        trn_scene_close(scene);
        return TRN_OK;
    }
    trn_scene_options alone = {.sensor = options->sensor};
    trn_status status = trn_scene_open(&path, 1, &alone, &scene, err);
    if (status != TRN_OK) return status;
    status = copy_words(trn_scene_get_info(scene), path, out, err);
    trn_scene_close(scene);
    return status;
}

static bool share_a_band(const file_bands *a, const file_bands *b)
{
    for (size_t i = 0; a->names && b->names && i < a->count; i++)
        for (size_t j = 0; j < b->count; j++)
            if (!strcasecmp(a->names[i], b->names[j])) return true;
    return false;
}

/* Whether file `at` begins a date that is not the one of files first .. at-1. */
static bool begins_date(const file_bands *files, size_t first, size_t at, const trn_scene_options *options)
{
    if (options->band_names && options->band_name_count) {
        size_t have = 0;
        for (size_t i = first; i < at; i++)
            have += files[i].count;
        return have == options->band_name_count;
    }
    for (size_t i = first; i < at; i++)
        if (share_a_band(&files[i], &files[at])) return true;
    const file_bands *one = &files[first], *other = &files[at];
    bool unnamed = !options->sensor && !one->names && !other->names;
    return unnamed && one->count > 1 && one->count == other->count;
}

trn_status trn_scene_split_dates(const char *const *paths, size_t count, const trn_scene_options *options,
                                 size_t *files, size_t *dates, trn_error *err)
{
    static const trn_scene_options none = {0};
    if (!options) options = &none;
    *dates = count > 0;
    if (count) files[0] = 1;
    if (count < 2) return TRN_OK;
    trn_status status = TRN_OK;
    file_bands *bands = calloc(count, sizeof *bands);
    if (!bands) return trn_fail_memory(err, count * sizeof *bands, "a series");
    size_t first = 0;
    for (size_t i = 0; i < count && status == TRN_OK; i++) {
        status = look_at(paths[i], options, &bands[i], err);
        if (status != TRN_OK || !i) continue;
        if (begins_date(bands, first, i, options)) {
            first = i;
            files[(*dates)++] = 0;
        }
        files[*dates - 1]++;
    }
    for (size_t i = 0; i < count; i++)
        forget_bands(&bands[i]);
    free(bands);
    return status;
}
