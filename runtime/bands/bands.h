/* bands: the vocabulary of sensors. Which bands a sensor has, what they are called, at which wavelengths, and
 * how its numbers become reflectance. Sensors are data: built-in tables, and what a recipe defines. */
#ifndef TRN_BANDS_H
#define TRN_BANDS_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TRN_MAX_BAND_ALIASES = 6 };

/* What a band measures, independent of the sensor: the word by which an encoder asks for it. */
typedef struct trn_band {
    const char *name;   /* the sensor's own: "B04", "SR_B3", "VV" */
    const char *common; /* the common name (STAC): "red", "nir", "nir08", "swir16", "rededge1", "vv", ... */
    const char
        *aliases[TRN_MAX_BAND_ALIASES]; /* other spellings: "B4", "red", ...; NULL-terminated if fewer */
    double wavelength_um;               /* centre, micrometres; 0 when it has none */
    double gsd_m;                       /* ground sampling distance, metres */
} trn_band;

/* How stored numbers relate to physical ones: physical = stored * scale + offset, in `unit`. */
typedef enum trn_unit {
    TRN_UNIT_ANY,         /* unknown, digital numbers */
    TRN_UNIT_REFLECTANCE, /* 0..1 */
    TRN_UNIT_DECIBEL,
    TRN_UNIT_BYTE, /* 0..255 display values */
    TRN_UNIT_KELVIN,
} trn_unit;

/* "reflectance", "decibel", "byte", "kelvin"; "any" of TRN_UNIT_ANY. */
const char *trn_unit_name(trn_unit unit);

typedef struct trn_sensor {
    const char *name, *title; /* "sentinel2-l2a", "Sentinel-2 MSI, surface reflectance" */
    trn_unit unit;
    double scale, offset; /* stored to unit; scale 0.0001 for reflectance * 10000 */
    double nodata;        /* usual nodata value; NAN when none */
    const trn_band *bands;
    size_t band_count;
} trn_sensor;

/* Built in (aliases in parentheses):
 *   sentinel2-l1c (s2-l1c), sentinel2-l2a (s2, s2-l2a, sentinel2): reflectance * 10000, no offset: what STAC
 *     catalogues with harmonised values and all products before processing baseline 04.00 hold;
 *   sentinel2-l1c-pb04, sentinel2-l2a-pb04: products of baseline 04.00 and later as ESA ships them (offset
 * -1000); sentinel1 (s1): VV, VH in dB; landsat5 (l5), landsat7 (l7), landsat8 (l8), landsat9 (l9): digital
 * numbers as stored, all bands; landsat5-sr ... landsat9-sr (l5-sr, ...): Collection 2 Level 2 surface
 * reflectance, 0.0000275 * stored - 0.2, reflective bands only; hls: the six bands that Landsat and
 * Sentinel-2 share, B02..B07 by the Landsat numbers (B05 is the narrow NIR); hls-l30, hls-s30: the products
 * as they are, reflective bands; naip: R, G, B, N bytes; rgb: R, G, B bytes. Radar bands have no wavelength
 * here: an encoder that wants a number for them brings its own. */
size_t trn_sensor_count(void);
const trn_sensor *trn_sensor_at(size_t i);
/* By name or alias ("s2", "landsat7"), any case. NULL with err naming the nearest known one. */
const trn_sensor *trn_sensor_find(const char *name, trn_error *err);
/* A copy in the arena of what a recipe defined; checks names are unique and wavelengths sensible. */
const trn_sensor *trn_sensor_define(trn_arena *arena, const trn_sensor *description, trn_error *err);
/* Index of the band called `name` in the sensor, or -1: own name first, then alias, then common name or a
 * spelling of one. Case, '_', '-', '.' and blanks do not count. */
int trn_sensor_band(const trn_sensor *sensor, const char *name);
/* The common name that a spelling of one means ("NIR_NARROW" -> "nir08", "Red" -> "red"); NULL for any other
 * text, sensors' own names included. */
const char *trn_band_common(const char *spelling);
/* Whether a name is but a number: what bands that nobody named are called by. NULL is none. */
bool trn_band_is_number(const char *name);
/* The common name of the band that may stand in for one that a scene lacks, when the scene's sensor has only
 * one of the two: near infrared is "nir" (broad, Sentinel-2 B08) or "nir08" (narrow, B8A, and what STAC calls
 * Landsat's). NULL: none may. */
const char *trn_band_stand_in(const char *common);
/* Which bands of the sensor a file of `count` unnamed bands holds, in order: all of them; or all but pan; or
 * all but pan and thermal (a Landsat 7 file of 6 bands is 1,2,3,4,5,7); or all but pan, thermal and cirrus (a
 * Sentinel-2 L1C file of 12). The first of these with that count; false when none has it. indices [count]. */
bool trn_sensor_match_count(const trn_sensor *sensor, size_t count, int *indices);

#ifdef __cplusplus
}
#endif
#endif
