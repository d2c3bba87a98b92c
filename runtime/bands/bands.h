/* bands: the vocabulary of sensors. Which bands a sensor has, what they are called, at which wavelengths, and how
 * its numbers become reflectance. Sensors are data: built-in tables, and what a recipe defines. */
#ifndef TRN_BANDS_H
#define TRN_BANDS_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TRN_MAX_BAND_ALIASES = 6 };

/* What a band measures, independent of the sensor: the word by which an encoder asks for it. */
typedef struct trn_band {
    const char *name;      /* the sensor's own: "B04", "SR_B3", "VV" */
    const char *common;    /* the common name (STAC): "red", "nir", "nir08", "swir16", "rededge1", "vv", ... */
    const char *aliases[TRN_MAX_BAND_ALIASES]; /* other spellings: "B4", "red", ...; NULL-terminated if fewer */
    double wavelength_um;  /* centre, micrometres; 0 when it has none */
    double gsd_m;          /* ground sampling distance, metres */
} trn_band;

/* How stored numbers relate to physical ones: physical = stored * scale + offset, in `unit`. */
typedef enum trn_unit {
    TRN_UNIT_ANY,          /* unknown, digital numbers */
    TRN_UNIT_REFLECTANCE,  /* 0..1 */
    TRN_UNIT_DECIBEL,
    TRN_UNIT_BYTE,         /* 0..255 display values */
    TRN_UNIT_KELVIN,
} trn_unit;

typedef struct trn_sensor {
    const char *name, *title; /* "sentinel2-l2a", "Sentinel-2 MSI, surface reflectance" */
    trn_unit unit;
    double scale, offset;     /* stored to unit; scale 0.0001 for reflectance * 10000 */
    double nodata;            /* usual nodata value; NAN when none */
    const trn_band *bands;
    size_t band_count;
} trn_sensor;

size_t trn_sensor_count(void);
const trn_sensor *trn_sensor_at(size_t i);
/* By name or alias ("s2", "landsat7"), any case. NULL with err naming the nearest known one. */
const trn_sensor *trn_sensor_find(const char *name, trn_error *err);
/* A copy in the arena of what a recipe defined; checks names are unique and wavelengths sensible. */
const trn_sensor *trn_sensor_define(trn_arena *arena, const trn_sensor *description, trn_error *err);
/* Index of the band called `name` (own name, alias or common name, any case) in the sensor, or -1. */
int trn_sensor_band(const trn_sensor *sensor, const char *name);
/* Whether two spellings mean the same common band ("B04" of sensor, "red"). */
const char *trn_band_common(const char *name_or_alias); /* common name for a spelling that is one itself, or NULL */

#ifdef __cplusplus
}
#endif
#endif
