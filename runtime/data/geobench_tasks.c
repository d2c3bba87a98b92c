/* The tasks of GEO-Bench, as data: classes, names of bands, and where the files' names are wrong. */
#include "geobench.h"

#include <string.h>

static const char *const eurosat_classes[] = {"AnnualCrop", "Forest",  "HerbaceousVegetation", "Highway",
                                              "Industrial", "Pasture", "PermanentCrop",        "Residential",
                                              "River",      "SeaLake"};
static const char *const brick_kiln_classes[] = {"not brick kiln", "brick kiln"};
static const char *const cattle_classes[] = {"no cattle", "cattle"};
static const char *const tree_classes[] = {"no tree", "tree"};
static const char *const chesapeake_classes[] = {"water",       "tree-canopy-forest", "low-vegetation-field",
                                                 "barren-land", "impervious-other",   "impervious-roads",
                                                 "no-data"};
static const char *const cashew_classes[] = {"no data",
                                             "well-managed plantation",
                                             "poorly-managed plantation",
                                             "non-plantation",
                                             "residential",
                                             "background",
                                             "uncertain"};
static const char *const crop_classes[] = {
    "No Data",     "Lucerne/Medics", "Planted pastures (perennial)", "Fallow",
    "Wine grapes", "Weeds",          "Small grain grazing",          "Wheat",
    "Canola",      "Rooibos"};

/* Everything behind band 8 is shifted. */
static const char *const eurosat_wrong[][2] = {
    {"08A - Vegetation Red Edge", "B09"},
    {"09 - Water vapour", "B10"},
    {"10 - SWIR - Cirrus", "B11"},
    {"11 - SWIR", "B12"},
    {"12 - SWIR", "B8A"},
};

/* The source's order is B1..B5, B7, B8A, B8, B11, B12 and a true-colour image. */
static const char *const brick_kiln_wrong[][2] = {
    {"06 - Vegetation Red Edge", "B07"},
    {"07 - Vegetation Red Edge", "B8A"},
    {"08 - NIR", "B08"},
    {"08A - Vegetation Red Edge", "B11"},
    {"09 - Water vapour", "B12"},
    {"10 - SWIR - Cirrus", "TCI_R"},
    {"11 - SWIR", "TCI_G"},
    {"12 - SWIR", "TCI_B"},
};

#define CLASSES(list) .class_count = TRN_COUNT(list), .class_names = (list)
#define WRONG(list) .wrong_bands = (list), .wrong_count = TRN_COUNT(list)

static const geobench_task tasks[] = {
    {{"m-bigearthnet"}, TRN_TASK_MULTILABEL, .class_count = 43},
    {{"m-so2sat"}, TRN_TASK_CLASSIFICATION, .class_count = 17},
    {{"m-brick-kiln", "brick_kiln_v1.0"},
     TRN_TASK_CLASSIFICATION,
     CLASSES(brick_kiln_classes),
     WRONG(brick_kiln_wrong)},
    {{"m-forestnet"}, TRN_TASK_CLASSIFICATION, .class_count = 12},
    {{"m-eurosat", "eurosat"}, TRN_TASK_CLASSIFICATION, CLASSES(eurosat_classes), WRONG(eurosat_wrong)},
    {{"m-pv4ger"}, TRN_TASK_CLASSIFICATION, .class_count = 2},
    {{"m-pv4ger-seg"}, TRN_TASK_SEGMENTATION, .class_count = 2},
    {{"m-chesapeake", "m-chesapeake-landcover", "cvpr_chesapeake_landcover"},
     TRN_TASK_SEGMENTATION,
     CLASSES(chesapeake_classes)},
    {{"m-cashew-plant", "m-cashew-plantation", "smallholder_cashew"},
     TRN_TASK_SEGMENTATION,
     CLASSES(cashew_classes)},
    {{"m-SA-crop-type", "southAfricaCropType"}, TRN_TASK_SEGMENTATION, CLASSES(crop_classes)},
    {{"m-nz-cattle", "nz_cattle_segmentation"}, TRN_TASK_SEGMENTATION, CLASSES(cattle_classes)},
    {{"m-NeonTree", "NeonTree_segmentation"}, TRN_TASK_SEGMENTATION, CLASSES(tree_classes)},
};

const geobench_task *geobench_find_task(const char *name)
{
    for (size_t t = 0; t < TRN_COUNT(tasks); t++)
        for (size_t i = 0; i < TRN_COUNT(tasks[t].names) && tasks[t].names[i]; i++)
            if (!strcmp(name, tasks[t].names[i])) return &tasks[t];
    return NULL;
}

/* Stored names, which the source files share; a name says which sensor it belongs to, or NULL when two have
 * it. */
static const struct {
    const char *stored, *sensor, *band;
} known_bands[] = {
    {"01 - Coastal aerosol", NULL, "B01"},
    {"02 - Blue", NULL, "B02"},
    {"03 - Green", NULL, "B03"},
    {"04 - Red", NULL, "B04"},
    {"05 - Vegetation Red Edge", "sentinel2-l1c", "B05"},
    {"06 - Vegetation Red Edge", "sentinel2-l1c", "B06"},
    {"07 - Vegetation Red Edge", "sentinel2-l1c", "B07"},
    {"08 - NIR", "sentinel2-l1c", "B08"},
    {"08A - Vegetation Red Edge", "sentinel2-l1c", "B8A"},
    {"09 - Water vapour", "sentinel2-l1c", "B09"},
    {"10 - SWIR - Cirrus", "sentinel2-l1c", "B10"},
    {"11 - SWIR", "sentinel2-l1c", "B11"},
    {"12 - SWIR", "sentinel2-l1c", "B12"},
    {"05 - NIR", "landsat8", "B5"},
    {"06 - SWIR1", "landsat8", "B6"},
    {"07 - SWIR2", "landsat8", "B7"},
    {"09 - Cirrus", "landsat8", "B9"},
    {"10 - Tirs1", "landsat8", "B10"},
    /* of the radar bands only these two are intensities */
    {"05 - VH.LEE Filtered", "sentinel1", "VH"},
    {"06 - VV.LEE Filtered", "sentinel1", "VV"},
    {"Red", "rgb", "R"},
    {"Green", "rgb", "G"},
    {"Blue", "rgb", "B"},
    {"NearInfrared", "naip", "N"},
};

static int find_known(const char *stored)
{
    for (size_t i = 0; i < TRN_COUNT(known_bands); i++)
        if (!strcmp(stored, known_bands[i].stored)) return (int)i;
    return -1;
}

/* The sensor of the first band that belongs to one only; four bands of an aeroplane are NAIP's. */
static const trn_sensor *find_sensor(const trn_dataset *dataset)
{
    const char *name = NULL;
    bool shared = false;
    for (size_t i = 0; i < dataset->info.band_count; i++) {
        int at = find_known(dataset->bands[i].stored);
        if (at < 0) continue;
        const char *sensor = known_bands[at].sensor;
        shared |= !sensor;
        if (!sensor) continue;
        bool better = !name || !strcmp(sensor, "naip") || !strcmp(name, "sentinel1");
        if (better) name = sensor;
    }
    if (!name && shared) name = "sentinel2-l1c";
    return name ? trn_sensor_find(name, NULL) : NULL;
}

static const trn_band *sensor_band(const trn_sensor *sensor, const char *name)
{
    int at = sensor ? trn_sensor_band(sensor, name) : -1;
    return at < 0 ? NULL : &sensor->bands[at];
}

static void take(trn_data_band *band, const trn_band *known)
{
    band->name = known->name;
    band->common = known->common;
    band->wavelength_um = known->wavelength_um;
}

static bool has_all(const trn_dataset *dataset, const geobench_task *task)
{
    for (size_t w = 0; w < task->wrong_count; w++) {
        bool found = false;
        for (size_t i = 0; i < dataset->info.band_count && !found; i++)
            found = !strcmp(dataset->bands[i].stored, task->wrong_bands[w][0]);
        if (!found) return false;
    }
    return task->wrong_count > 0;
}

static void correct(trn_dataset *dataset, const geobench_task *task)
{
    for (size_t i = 0; i < dataset->info.band_count; i++) {
        trn_data_band *band = &dataset->bands[i];
        for (size_t w = 0; w < task->wrong_count; w++) {
            if (strcmp(band->stored, task->wrong_bands[w][0])) continue;
            const trn_band *real = sensor_band(dataset->info.sensor, task->wrong_bands[w][1]);
            *band = (trn_data_band){.stored = band->stored, .name = task->wrong_bands[w][1]};
            if (real) take(band, real);
        }
    }
    dataset->info.corrected_bands = true;
    trn_log(TRN_LOG_INFO, "%s: bands have the names of what they hold, not those the files give them",
            dataset->info.name);
}

void geobench_name_bands(trn_dataset *dataset, const geobench_task *task, bool as_stored)
{
    const trn_sensor *sensor = dataset->info.sensor = find_sensor(dataset);
    for (size_t i = 0; i < dataset->info.band_count; i++) {
        trn_data_band *band = &dataset->bands[i];
        band->name = band->stored;
        band->common = trn_band_common(band->stored);
        int at = find_known(band->stored);
        if (at < 0) continue;
        const trn_sensor *own =
            known_bands[at].sensor ? trn_sensor_find(known_bands[at].sensor, NULL) : sensor;
        const trn_band *known = sensor_band(own, known_bands[at].band);
        if (known) take(band, known);
    }
    if (task && !as_stored && has_all(dataset, task)) correct(dataset, task);
}
