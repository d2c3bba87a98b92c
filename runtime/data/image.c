/* What images, scenes and rasters of labels are as samples: names of bands, pixels, classes of masks. */
#include "data_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

trn_status data_name_bands(trn_dataset *dataset, const trn_scene_info *scene, trn_error *err)
{
    trn_dataset_info *info = &dataset->info;
    if (scene->band_count > DATA_MAX_BANDS)
        return trn_fail(err, TRN_ERR_FORMAT, "the first image has %zu bands: at most %d", scene->band_count,
                        DATA_MAX_BANDS);
    dataset->bands = trn_arena_array(dataset->arena, scene->band_count, sizeof *dataset->bands);
    if (!dataset->bands) return trn_fail_memory(err, scene->band_count * sizeof *dataset->bands, "bands");
    const trn_sensor *rgb = trn_sensor_find("rgb", NULL);
    bool photograph = !dataset->sensor && scene->band_count == 3;
    for (size_t i = 0; i < scene->band_count; i++) {
        const char *name = scene->bands[i].name, *common = trn_band_common(name);
        trn_data_band *band = &dataset->bands[i];
        band->stored = band->name = trn_arena_strdup(dataset->arena, name);
        if (!band->stored) return trn_fail_memory(err, strlen(name), "a name");
        const trn_sensor *sensor = dataset->sensor ? dataset->sensor : rgb;
        int at = trn_sensor_band(sensor, name);
        photograph = photograph && at >= 0;
        band->common = at >= 0 ? sensor->bands[at].common : common;
        band->wavelength_um = at >= 0 ? sensor->bands[at].wavelength_um : 0;
    }
    info->bands = dataset->bands;
    info->band_count = scene->band_count;
    info->sensor = photograph ? rgb : dataset->sensor;
    return TRN_OK;
}

/* Pixels without data become NAN: what fills them is decided for all kinds of folders in one place. */
static void mark_missing(data_image *image, const uint8_t *valid, size_t bands)
{
    size_t area = (size_t)image->height * (size_t)image->width;
    for (size_t b = 0; b < bands; b++)
        for (size_t i = 0; i < area; i++)
            if (!valid[i]) image->pixels[b * area + i] = NAN;
}

trn_status data_read_window(const trn_dataset *dataset, trn_scene *scene, int64_t x, int64_t y,
                            data_image *image, trn_error *err)
{
    size_t bands = dataset->info.band_count, area = (size_t)image->height * (size_t)image->width, bytes = 0;
    uint8_t *valid = malloc(area);
    image->pixels = trn_mul_size(area * sizeof(float), bands, &bytes) ? malloc(bytes) : NULL;
    trn_status status = valid && image->pixels
                            ? trn_scene_read(scene, dataset->scene_bands, bands, x, y, image->width,
                                             image->height, image->pixels, valid, err)
                            : trn_fail_memory(err, bytes, "a sample");
    if (status == TRN_OK) mark_missing(image, valid, bands);
    free(valid);
    return status;
}

trn_status data_check_labels(const trn_scene_info *labels, const trn_scene_info *image, bool need_place,
                             trn_error *err)
{
    const char *mine = labels->bands[0].file, *theirs = image->bands[0].file, *difference;
    if (labels->band_count != 1)
        return trn_fail(err, TRN_ERR_FORMAT, "'%s' has %zu bands: labels are one band of class numbers", mine,
                        labels->band_count);
    if (labels->width != image->width || labels->height != image->height)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "the labels '%s' have %lld x %lld pixels, and '%s' has %lld x %lld (width x height): "
                        "they need the same grid",
                        mine, (long long)labels->width, (long long)labels->height, theirs,
                        (long long)image->width, (long long)image->height);
    bool compares = need_place || (labels->georef.has_transform && image->georef.has_transform);
    if (!compares ||
        trn_georef_agrees(&labels->georef, &image->georef, image->width, image->height, &difference))
        return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "the labels '%s' and '%s' have different %s: they need the same grid; warp the labels "
                    "onto it, for example with gdalwarp -r near",
                    mine, theirs, difference);
}

trn_status data_read_labels(trn_scene *labels, int64_t x, int64_t y, data_image *image, trn_error *err)
{
    static const int band;
    size_t width = (size_t)image->width, area = (size_t)image->height * width;
    float *values = malloc(area * sizeof *values);
    uint8_t *valid = malloc(area);
    image->mask = malloc(area * sizeof *image->mask);
    trn_status status =
        values && valid && image->mask
            ? trn_scene_read(labels, &band, 1, x, y, image->width, image->height, values, valid, err)
            : trn_fail_memory(err, area * sizeof *values, "a mask");
    for (size_t i = 0; i < area && status == TRN_OK; i++) {
        bool whole = values[i] == floorf(values[i]) && fabsf(values[i]) < 1 << 24;
        if (valid[i] && !whole)
            status = trn_fail(err, TRN_ERR_FORMAT,
                              "the mask holds %g at column %lld, row %lld: classes are whole numbers",
                              (double)values[i], (long long)(x + (int64_t)(i % width)),
                              (long long)(y + (int64_t)(i / width)));
        else
            image->mask[i] = valid[i] ? (int32_t)values[i] : DATA_MASK_MISSING;
    }
    free(values);
    free(valid);
    return status;
}

trn_status data_check_mask(const trn_dataset *dataset, int64_t x, int64_t y, data_image *image,
                           trn_error *err)
{
    size_t area = (size_t)image->height * (size_t)image->width, width = (size_t)image->width;
    size_t classes = dataset->info.class_count ? dataset->info.class_count : DATA_MAX_CLASSES;
    for (size_t i = 0; i < area; i++) {
        int32_t *value = &image->mask[i];
        if (*value == DATA_MASK_MISSING || (dataset->has_ignore && *value == dataset->ignore))
            *value = TRN_LABEL_IGNORE;
        else if (*value < 0 || (size_t)*value >= classes)
            return trn_fail(err, TRN_ERR_FORMAT,
                            "the mask holds %d at column %lld, row %lld: classes are 0 to %zu", (int)*value,
                            (long long)(x + (int64_t)(i % width)), (long long)(y + (int64_t)(i / width)),
                            classes - 1);
    }
    return TRN_OK;
}

bool data_is_ignored(const trn_dataset *dataset, size_t class_index)
{
    return dataset->has_ignore && dataset->ignore >= 0 && (size_t)dataset->ignore == class_index;
}

size_t data_note_classes(const data_image *image, uint8_t *seen)
{
    size_t area = (size_t)image->height * (size_t)image->width, labelled = 0;
    for (size_t i = 0; i < area; i++) {
        if (image->mask[i] == TRN_LABEL_IGNORE) continue;
        seen[image->mask[i]] = 1;
        labelled++;
    }
    return labelled;
}

trn_status data_settle_classes(trn_dataset *dataset, const char *where, const char *const *names,
                               const uint8_t *seen, trn_error *err)
{
    size_t *count = &dataset->info.class_count, last = 0;
    for (size_t c = 0; c < DATA_MAX_CLASSES && !*count; c++)
        if (seen[c]) last = c + 1;
    if (!*count && !last) return trn_fail(err, TRN_ERR_FORMAT, "'%s': no pixel has a label", where);
    for (size_t c = 0; c < last; c++)
        if (!seen[c] && !data_is_ignored(dataset, c))
            return trn_fail(err, TRN_ERR_FORMAT,
                            "'%s': no pixel is of class %zu, though classes go up to %zu: say how many there "
                            "are (class_count), or which value to ignore",
                            where, c, last - 1);
    if (!*count) *count = last;
    return data_name_classes(dataset, names, err);
}
