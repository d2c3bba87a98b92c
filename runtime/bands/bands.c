/* Looking up sensors and bands by the many ways people spell them, and checking what a recipe defines. */
#include "bands_private.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

enum { MAX_NAME = 64, MAX_SENSOR_BANDS = 4096 };

/* Other spellings of the common names, compared without case and separators. */
static const struct {
    const char *common, *spellings[6];
} common_names[] = {
    {"coastal", {"coastalaerosol", "aerosol", "ultrablue"}},
    {"blue", {NULL}},
    {"green", {NULL}},
    {"red", {NULL}},
    {"rededge1", {"re1", "vre1", "vegetationrededge1"}},
    {"rededge2", {"re2", "vre2", "vegetationrededge2"}},
    {"rededge3", {"re3", "vre3", "vegetationrededge3"}},
    {"nir", {"nirbroad", "nearinfrared", "broadnir"}},
    {"nir08", {"nirnarrow", "narrownir", "nir8a", "rededge4"}},
    {"nir09", {"watervapour", "watervapor"}},
    {"cirrus", {NULL}},
    {"swir16", {"swir1", "shortwaveinfrared1"}},
    {"swir22", {"swir2", "shortwaveinfrared2"}},
    {"lwir11", {"tir1", "tirs1", "thermalinfrared1"}},
    {"lwir12", {"tir2", "tirs2", "thermalinfrared2"}},
    {"pan", {"panchromatic"}},
    {"vv", {NULL}},
    {"vh", {NULL}},
    {"hh", {NULL}},
    {"hv", {NULL}},
};

/* Next character that counts, in lower case; 0 at the end. */
static int next_letter(const char **text)
{
    while (**text && strchr("_-. ", **text))
        ++*text;
    return **text ? tolower((unsigned char)*(*text)++) : 0;
}

static bool same_spelling(const char *a, const char *b)
{
    int x, y;
    do {
        x = next_letter(&a);
        y = next_letter(&b);
        if (x != y) return false;
    } while (x);
    return true;
}

static bool among(const char *name, const char *const *list, size_t capacity)
{
    for (size_t i = 0; i < capacity && list[i]; i++)
        if (same_spelling(name, list[i])) return true;
    return false;
}

size_t trn_sensor_count(void)
{
    return known_sensor_count;
}

const trn_sensor *trn_sensor_at(size_t i)
{
    return i < known_sensor_count ? &known_sensors[i].sensor : NULL;
}

const trn_sensor *trn_sensor_find(const char *name, trn_error *err)
{
    for (size_t i = 0; i < known_sensor_count; i++) {
        const known_sensor *known = &known_sensors[i];
        if (same_spelling(name, known->sensor.name) || among(name, known->aliases, SENSOR_ALIASES))
            return &known->sensor;
    }
    const char *names[64];
    trn_text list = {0};
    size_t count = TRN_MIN(known_sensor_count, TRN_COUNT(names));
    for (size_t i = 0; i < count; i++) {
        names[i] = known_sensors[i].sensor.name;
        trn_text_printf(&list, "%s%s", i ? ", " : "", names[i]);
    }
    const char *near = trn_nearest(name, names, count);
    if (near)
        trn_fail(err, TRN_ERR_ARGUMENT, "unknown sensor '%.64s': did you mean '%s'?", name, near);
    else
        trn_fail(err, TRN_ERR_ARGUMENT, "unknown sensor '%.64s': use one of %s", name, trn_text_get(&list));
    trn_text_free(&list);
    return NULL;
}

const char *trn_unit_name(trn_unit unit)
{
    switch (unit) {
    case TRN_UNIT_REFLECTANCE:
        return "reflectance";
    case TRN_UNIT_DECIBEL:
        return "decibel";
    case TRN_UNIT_BYTE:
        return "byte";
    case TRN_UNIT_KELVIN:
        return "kelvin";
    case TRN_UNIT_ANY:
        break;
    }
    return "any";
}

bool trn_band_is_number(const char *name)
{
    return name && *name && !name[strspn(name, "0123456789")];
}

const char *trn_band_common(const char *spelling)
{
    for (size_t i = 0; i < TRN_COUNT(common_names); i++) {
        if (same_spelling(spelling, common_names[i].common)) return common_names[i].common;
        if (among(spelling, common_names[i].spellings, TRN_COUNT(common_names[i].spellings)))
            return common_names[i].common;
    }
    return NULL;
}

const char *trn_band_stand_in(const char *common)
{
    static const char *const pairs[][2] = {{"nir", "nir08"}, {"nir08", "nir"}};
    for (size_t i = 0; i < TRN_COUNT(pairs); i++)
        if (!strcmp(pairs[i][0], common)) return pairs[i][1];
    return NULL;
}

int trn_sensor_band(const trn_sensor *sensor, const char *name)
{
    for (size_t i = 0; i < sensor->band_count; i++)
        if (same_spelling(name, sensor->bands[i].name)) return (int)i;
    for (size_t i = 0; i < sensor->band_count; i++)
        if (among(name, sensor->bands[i].aliases, TRN_MAX_BAND_ALIASES)) return (int)i;
    const char *common = trn_band_common(name);
    for (size_t i = 0; i < sensor->band_count; i++) {
        const char *own = sensor->bands[i].common;
        if (own && same_spelling(common ? common : name, own)) return (int)i;
    }
    return -1;
}

static bool is_common(const trn_band *band, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (band->common && !strcmp(band->common, names[i])) return true;
    return false;
}

bool trn_sensor_match_count(const trn_sensor *sensor, size_t count, int *indices)
{
    /* each step leaves out the bands that files of stacked bands most often lack */
    static const char *const left_out[] = {"pan", "lwir11", "lwir12", "cirrus"};
    static const size_t steps[] = {0, 1, 3, 4};
    for (size_t s = 0; s < TRN_COUNT(steps); s++) {
        size_t kept = 0;
        for (size_t i = 0; i < sensor->band_count; i++)
            kept += !is_common(&sensor->bands[i], left_out, steps[s]);
        if (kept != count) continue;
        for (size_t i = 0, k = 0; i < sensor->band_count; i++)
            if (!is_common(&sensor->bands[i], left_out, steps[s])) indices[k++] = (int)i;
        return true;
    }
    return false;
}

static trn_status check_name(const char *what, const char *name, trn_error *err)
{
    if (!name || !name[0]) return trn_fail(err, TRN_ERR_ARGUMENT, "%s has no name", what);
    if (strlen(name) > MAX_NAME)
        return trn_fail(err, TRN_ERR_ARGUMENT, "%s '%.64s...': a name has at most %d characters", what, name,
                        MAX_NAME);
    return TRN_OK;
}

static trn_status check_band(const trn_sensor *sensor, size_t index, trn_error *err)
{
    const trn_band *band = &sensor->bands[index];
    if (check_name("a band", band->name, err) != TRN_OK) return trn_wrap(err, "sensor '%s'", sensor->name);
    if (!(band->wavelength_um >= 0) || isinf(band->wavelength_um))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "sensor '%s', band '%s': the wavelength must be 0 or above, not %g", sensor->name,
                        band->name, band->wavelength_um);
    if (band->wavelength_um > 100 && band->wavelength_um < 20000)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "sensor '%s', band '%s': wavelength %g looks like nanometres: give micrometres (%g)",
                        sensor->name, band->name, band->wavelength_um, band->wavelength_um / 1000);
    if (!(band->gsd_m >= 0) || isinf(band->gsd_m))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "sensor '%s', band '%s': the pixel size must be 0 or above, not %g", sensor->name,
                        band->name, band->gsd_m);
    for (size_t i = 0; i < index; i++)
        if (same_spelling(band->name, sensor->bands[i].name))
            return trn_fail(err, TRN_ERR_ARGUMENT, "sensor '%s' has two bands '%s': give each its own name",
                            sensor->name, band->name);
    return TRN_OK;
}

static trn_status check_sensor(const trn_sensor *sensor, trn_error *err)
{
    trn_status status = check_name("a sensor", sensor->name, err);
    if (status != TRN_OK) return status;
    if (!sensor->band_count || sensor->band_count > MAX_SENSOR_BANDS)
        return trn_fail(err, TRN_ERR_ARGUMENT, "sensor '%s' has %zu bands: give 1 to %d", sensor->name,
                        sensor->band_count, MAX_SENSOR_BANDS);
    if (sensor->scale == 0 || !isfinite(sensor->scale) || !isfinite(sensor->offset))
        return trn_fail(err, TRN_ERR_ARGUMENT, "sensor '%s': scale %g and offset %g: the scale must not be 0",
                        sensor->name, sensor->scale, sensor->offset);
    for (size_t i = 0; i < sensor->band_count; i++)
        if ((status = check_band(sensor, i, err)) != TRN_OK) return status;
    return TRN_OK;
}

static const char *copy_text(trn_arena *arena, const char *text, bool *failed)
{
    const char *copy = text ? trn_arena_strdup(arena, text) : NULL;
    if (text && !copy) *failed = true;
    return copy;
}

static void copy_band(trn_arena *arena, const trn_band *from, trn_band *to, bool *failed)
{
    *to = *from;
    to->name = copy_text(arena, from->name, failed);
    /* a spelling of a common name becomes that name, so that encoders find the band */
    const char *common = from->common ? trn_band_common(from->common) : NULL;
    to->common = common ? common : copy_text(arena, from->common, failed);
    for (size_t i = 0; i < TRN_MAX_BAND_ALIASES; i++)
        to->aliases[i] = copy_text(arena, from->aliases[i], failed);
}

const trn_sensor *trn_sensor_define(trn_arena *arena, const trn_sensor *description, trn_error *err)
{
    if (check_sensor(description, err) != TRN_OK) return NULL;
    bool failed = false;
    trn_sensor *sensor = trn_arena_alloc(arena, sizeof *sensor);
    trn_band *bands = trn_arena_array(arena, description->band_count, sizeof *bands);
    if (!sensor || !bands) {
        trn_fail_memory(err, description->band_count * sizeof *bands, "a sensor");
        return NULL;
    }
    *sensor = *description;
    sensor->name = copy_text(arena, description->name, &failed);
    sensor->title = copy_text(arena, description->title ? description->title : description->name, &failed);
    sensor->bands = bands;
    for (size_t i = 0; i < sensor->band_count; i++)
        copy_band(arena, &description->bands[i], &bands[i], &failed);
    if (failed) {
        trn_fail_memory(err, sizeof *bands, "a sensor");
        return NULL;
    }
    return sensor;
}
