/* The built-in sensors, as data. Wavelengths are band centres as their agencies publish them. */
#include "bands_private.h"

#include <math.h>

#define BAND(own, commonly, um, gsd, ...)                                                                    \
    {                                                                                                        \
        .name = own, .common = commonly, .wavelength_um = um, .gsd_m = gsd, .aliases = { __VA_ARGS__ }       \
    }

#define SENTINEL2_VISIBLE_TO_NIR                                                                             \
    BAND("B01", "coastal", 0.443, 60, "B1"), BAND("B02", "blue", 0.490, 10, "B2"),                           \
        BAND("B03", "green", 0.560, 10, "B3"), BAND("B04", "red", 0.665, 10, "B4"),                          \
        BAND("B05", "rededge1", 0.705, 20, "B5", "rededge"), BAND("B06", "rededge2", 0.740, 20, "B6"),       \
        BAND("B07", "rededge3", 0.783, 20, "B7"), BAND("B08", "nir", 0.842, 10, "B8"),                       \
        BAND("B8A", "nir08", 0.865, 20, "B08A"), BAND("B09", "nir09", 0.945, 60, "B9")

static const trn_band sentinel2_l1c[] = {
    SENTINEL2_VISIBLE_TO_NIR,
    BAND("B10", "cirrus", 1.375, 60, NULL),
    BAND("B11", "swir16", 1.610, 20, NULL),
    BAND("B12", "swir22", 2.190, 20, NULL),
};

static const trn_band sentinel2_l2a[] = {
    SENTINEL2_VISIBLE_TO_NIR,
    BAND("B11", "swir16", 1.610, 20, NULL),
    BAND("B12", "swir22", 2.190, 20, NULL),
};

static const trn_band sentinel1[] = {
    BAND("VV", "vv", 0, 10, NULL),
    BAND("VH", "vh", 0, 10, NULL),
};

/* The only near infrared of a sensor also answers to "nir". */
#define TM_REFLECTIVE(prefix)                                                                                \
    BAND(prefix "B1", "blue", 0.485, 30, "B1", "B01"), BAND(prefix "B2", "green", 0.560, 30, "B2", "B02"),   \
        BAND(prefix "B3", "red", 0.660, 30, "B3", "B03"),                                                    \
        BAND(prefix "B4", "nir08", 0.830, 30, "B4", "B04", "nir"),                                           \
        BAND(prefix "B5", "swir16", 1.650, 30, "B5", "B05")

static const trn_band landsat5[] = {
    TM_REFLECTIVE(""),
    BAND("B6", "lwir11", 11.450, 120, "B06", "lwir"),
    BAND("B7", "swir22", 2.215, 30, "B07"),
};

static const trn_band landsat5_sr[] = {
    TM_REFLECTIVE("SR_"),
    BAND("SR_B7", "swir22", 2.215, 30, "B7", "B07"),
};

static const trn_band landsat7[] = {
    TM_REFLECTIVE(""),
    BAND("B6", "lwir11", 11.450, 60, "B06", "B6_VCID_1", "B6_VCID_2", "lwir"),
    BAND("B7", "swir22", 2.220, 30, "B07"),
    BAND("B8", "pan", 0.710, 15, "B08"),
};

#define OLI_REFLECTIVE(prefix)                                                                               \
    BAND(prefix "B1", "coastal", 0.443, 30, "B1", "B01"), BAND(prefix "B2", "blue", 0.482, 30, "B2", "B02"), \
        BAND(prefix "B3", "green", 0.561, 30, "B3", "B03"),                                                  \
        BAND(prefix "B4", "red", 0.655, 30, "B4", "B04"),                                                    \
        BAND(prefix "B5", "nir08", 0.865, 30, "B5", "B05", "nir"),                                           \
        BAND(prefix "B6", "swir16", 1.609, 30, "B6", "B06"),                                                 \
        BAND(prefix "B7", "swir22", 2.201, 30, "B7", "B07")

static const trn_band landsat8[] = {
    OLI_REFLECTIVE(""),
    BAND("B8", "pan", 0.590, 15, "B08"),
    BAND("B9", "cirrus", 1.373, 30, "B09"),
    BAND("B10", "lwir11", 10.895, 100, "lwir"),
    BAND("B11", "lwir12", 12.005, 100, NULL),
};

static const trn_band landsat8_sr[] = {OLI_REFLECTIVE("SR_")};

static const trn_band hls[] = {
    BAND("B02", "blue", 0.490, 30, "B2"),          BAND("B03", "green", 0.560, 30, "B3"),
    BAND("B04", "red", 0.665, 30, "B4"),           BAND("B05", "nir08", 0.865, 30, "B5", "B8A", "nir"),
    BAND("B06", "swir16", 1.610, 30, "B6", "B11"), BAND("B07", "swir22", 2.200, 30, "B7", "B12"),
};

/* The two products use the same numbers for different bands. */
static const trn_band hls_l30[] = {
    BAND("B01", "coastal", 0.443, 30, "B1"),      BAND("B02", "blue", 0.482, 30, "B2"),
    BAND("B03", "green", 0.561, 30, "B3"),        BAND("B04", "red", 0.655, 30, "B4"),
    BAND("B05", "nir08", 0.865, 30, "B5", "nir"), BAND("B06", "swir16", 1.609, 30, "B6"),
    BAND("B07", "swir22", 2.201, 30, "B7"),       BAND("B09", "cirrus", 1.373, 30, "B9"),
};

static const trn_band hls_s30[] = {
    BAND("B01", "coastal", 0.443, 30, "B1"),
    BAND("B02", "blue", 0.490, 30, "B2"),
    BAND("B03", "green", 0.560, 30, "B3"),
    BAND("B04", "red", 0.665, 30, "B4"),
    BAND("B05", "rededge1", 0.705, 30, "B5", "rededge"),
    BAND("B06", "rededge2", 0.740, 30, "B6"),
    BAND("B07", "rededge3", 0.783, 30, "B7"),
    BAND("B08", "nir", 0.842, 30, "B8"),
    BAND("B8A", "nir08", 0.865, 30, "B08A"),
    BAND("B09", "nir09", 0.945, 30, "B9"),
    BAND("B10", "cirrus", 1.375, 30, NULL),
    BAND("B11", "swir16", 1.610, 30, NULL),
    BAND("B12", "swir22", 2.190, 30, NULL),
};

static const trn_band naip[] = {
    BAND("R", "red", 0.635, 1, NULL),
    BAND("G", "green", 0.555, 1, NULL),
    BAND("B", "blue", 0.465, 1, NULL),
    BAND("N", "nir", 0.845, 1, NULL),
};

static const trn_band rgb[] = {
    BAND("R", "red", 0.665, 0, NULL),
    BAND("G", "green", 0.560, 0, NULL),
    BAND("B", "blue", 0.490, 0, NULL),
};

#define SENSOR(id, text, units, factor, add, none, table)                                                    \
    {                                                                                                        \
        .name = id, .title = text, .unit = units, .scale = factor, .offset = add, .nodata = none,            \
        .bands = table, .band_count = TRN_COUNT(table)                                                       \
    }
#define REFLECTANCE TRN_UNIT_REFLECTANCE

const known_sensor known_sensors[] = {
    {SENSOR("sentinel2-l1c", "Sentinel-2 MSI, top of atmosphere", REFLECTANCE, 1e-4, 0, 0, sentinel2_l1c),
     {"s2-l1c", "s2l1c"}},
    {SENSOR("sentinel2-l2a", "Sentinel-2 MSI, surface reflectance", REFLECTANCE, 1e-4, 0, 0, sentinel2_l2a),
     {"s2-l2a", "s2l2a", "s2", "sentinel2"}},
    {SENSOR("sentinel2-l1c-pb04", "Sentinel-2 MSI, top of atmosphere, baseline 04.00 and later", REFLECTANCE,
            1e-4, -0.1, 0, sentinel2_l1c),
     {"s2-l1c-pb04"}},
    {SENSOR("sentinel2-l2a-pb04", "Sentinel-2 MSI, surface reflectance, baseline 04.00 and later",
            REFLECTANCE, 1e-4, -0.1, 0, sentinel2_l2a),
     {"s2-l2a-pb04"}},
    {SENSOR("sentinel1", "Sentinel-1 C-band SAR, backscatter in dB", TRN_UNIT_DECIBEL, 1, 0, NAN, sentinel1),
     {"s1", "sentinel1-grd", "sentinel1-rtc"}},
    {SENSOR("landsat5", "Landsat 5 TM, digital numbers", TRN_UNIT_ANY, 1, 0, 0, landsat5),
     {"l5", "landsat5-tm"}},
    {SENSOR("landsat7", "Landsat 7 ETM+, digital numbers", TRN_UNIT_ANY, 1, 0, 0, landsat7),
     {"l7", "landsat7-etm"}},
    {SENSOR("landsat8", "Landsat 8 OLI/TIRS, digital numbers", TRN_UNIT_ANY, 1, 0, 0, landsat8),
     {"l8", "landsat8-oli"}},
    {SENSOR("landsat9", "Landsat 9 OLI/TIRS, digital numbers", TRN_UNIT_ANY, 1, 0, 0, landsat8),
     {"l9", "landsat9-oli"}},
    {SENSOR("landsat5-sr", "Landsat 5 TM, Collection 2 surface reflectance", REFLECTANCE, 2.75e-5, -0.2, 0,
            landsat5_sr),
     {"l5-sr"}},
    {SENSOR("landsat7-sr", "Landsat 7 ETM+, Collection 2 surface reflectance", REFLECTANCE, 2.75e-5, -0.2, 0,
            landsat5_sr),
     {"l7-sr"}},
    {SENSOR("landsat8-sr", "Landsat 8 OLI, Collection 2 surface reflectance", REFLECTANCE, 2.75e-5, -0.2, 0,
            landsat8_sr),
     {"l8-sr"}},
    {SENSOR("landsat9-sr", "Landsat 9 OLI, Collection 2 surface reflectance", REFLECTANCE, 2.75e-5, -0.2, 0,
            landsat8_sr),
     {"l9-sr"}},
    {SENSOR("hls", "Harmonized Landsat Sentinel-2, the six common bands", REFLECTANCE, 1e-4, 0, -9999, hls),
     {NULL}},
    {SENSOR("hls-l30", "Harmonized Landsat Sentinel-2, from Landsat 8 and 9", REFLECTANCE, 1e-4, 0, -9999,
            hls_l30),
     {NULL}},
    {SENSOR("hls-s30", "Harmonized Landsat Sentinel-2, from Sentinel-2", REFLECTANCE, 1e-4, 0, -9999,
            hls_s30),
     {NULL}},
    {SENSOR("naip", "NAIP aerial imagery, bytes", TRN_UNIT_BYTE, 1, 0, NAN, naip), {NULL}},
    {SENSOR("rgb", "Colour images, bytes", TRN_UNIT_BYTE, 1, 0, NAN, rgb), {NULL}},
};

const size_t known_sensor_count = TRN_COUNT(known_sensors);
