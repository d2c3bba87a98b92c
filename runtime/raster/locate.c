/* Where on earth a pixel lies: from the georeference of a file, through PROJ, to latitude and longitude. */
#include "raster_private.h"

#include <math.h>
#include <proj.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_PROJECTION_CODE = 3074,
    KEY_METHOD = 3075,
    KEY_LINEAR_UNIT = 3076,
    KEY_PARALLEL_1 = 3078,
    KEY_PARALLEL_2 = 3079,
    KEY_ORIGIN_LONGITUDE = 3080,
    KEY_ORIGIN_LATITUDE = 3081,
    KEY_FALSE_EASTING = 3082,
    KEY_FALSE_NORTHING = 3083,
    KEY_FALSE_ORIGIN_LONGITUDE = 3084,
    KEY_FALSE_ORIGIN_LATITUDE = 3085,
    KEY_FALSE_ORIGIN_EASTING = 3086,
    KEY_FALSE_ORIGIN_NORTHING = 3087,
    KEY_CENTRE_LONGITUDE = 3088,
    KEY_CENTRE_LATITUDE = 3089,
    KEY_SCALE = 3092,
    KEY_POLE_LONGITUDE = 3095,
    KEY_MODEL_TYPE = 1024,
    KEY_ELLIPSOID = 2056,
    KEY_SEMI_MAJOR = 2057,
    KEY_SEMI_MINOR = 2058,
    KEY_INVERSE_FLATTENING = 2059,
    MODEL_GEOGRAPHIC = 2,
    UNIT_METRE = 9001,
    UNIT_FOOT = 9002,
    UNIT_US_FOOT = 9003,
    USER_DEFINED = 32767,
};

struct trn_locator {
    PJ_CONTEXT *context;
    PJ *transform; /* x, y -> longitude, latitude */
    bool repeats;  /* the CRS goes on beyond 180 degrees, where it begins anew */
    double pixel[6];
};

static void be_silent(void *user, int level, const char *message)
{
    (void)user, (void)level;
    trn_log(TRN_LOG_DEBUG, "PROJ: %s", message);
}

/* ---- what the CRS is called ---- */

static double first_of(const trn_georef *georef, int key, int other, int third)
{
    double value = georef_number(georef, key, NAN);
    if (isnan(value)) value = georef_number(georef, other, NAN);
    return isnan(value) ? georef_number(georef, third, 0) : value;
}

/* The methods of GeoTIFF that satellite products use, as PROJ names them. */
static const char *method_of(int method)
{
    switch (method) {
    case 1:
        return "tmerc";
    case 8:
        return "lcc";
    case 10:
        return "laea";
    case 11:
        return "aea";
    case 15:
        return "stere";
    case 17:
        return "eqc";
    case 24:
        return "sinu";
    default:
        return NULL;
    }
}

/* PROJ's name of an ellipsoid by its EPSG code; none given: WGS 84. NULL: not known here. */
static const char *ellipsoid_of(int code)
{
    switch (code) {
    case -1:
    case 0:
    case USER_DEFINED:
    case 7030:
        return "WGS84";
    case 7001:
        return "airy";
    case 7004:
        return "bessel";
    case 7008:
        return "clrk66";
    case 7019:
        return "GRS80";
    case 7022:
        return "intl";
    default:
        return NULL;
    }
}

static bool knows_ellipsoid(const trn_georef *georef)
{
    return georef_number(georef, KEY_SEMI_MAJOR, 0) > 0 || ellipsoid_of(georef_key(georef, KEY_ELLIPSOID));
}

/* knows_ellipsoid() is true. */
static void add_ellipsoid(const trn_georef *georef, trn_text *out)
{
    double a = georef_number(georef, KEY_SEMI_MAJOR, 0), b = georef_number(georef, KEY_SEMI_MINOR, 0),
           rf = georef_number(georef, KEY_INVERSE_FLATTENING, 0);
    int unit = georef_key(georef, KEY_LINEAR_UNIT);
    if (!(a > 0))
        trn_text_printf(out, " +ellps=%s", ellipsoid_of(georef_key(georef, KEY_ELLIPSOID)));
    else if (rf > 0)
        trn_text_printf(out, " +a=%.17g +rf=%.17g", a, rf);
    else if (b > 0)
        trn_text_printf(out, " +a=%.17g +b=%.17g", a, b);
    else
        trn_text_printf(out, " +R=%.17g", a);
    if (unit == UNIT_FOOT) trn_text_add(out, " +units=ft");
    if (unit == UNIT_US_FOOT) trn_text_add(out, " +units=us-ft");
    trn_text_add(out, " +no_defs +type=crs");
}

/* A projection that the keys spell out: products of HLS and MODIS come so. false: none is known here. */
static bool spell_projection(const trn_georef *georef, trn_text *out)
{
    int code = georef_key(georef, KEY_PROJECTION_CODE), unit = georef_key(georef, KEY_LINEAR_UNIT);
    const char *method = method_of(georef_key(georef, KEY_METHOD));
    bool north = code > 16000 && code <= 16060, south = code > 16100 && code <= 16160;
    if (unit > 0 && unit != UNIT_METRE && unit != UNIT_FOOT && unit != UNIT_US_FOOT) return false;
    if (north || south) {
        trn_text_printf(out, "+proj=utm +zone=%d%s", code % 100, south ? " +south" : "");
        add_ellipsoid(georef, out);
        return true;
    }
    if (!method) return false;
    double longitude =
        first_of(georef, KEY_ORIGIN_LONGITUDE, KEY_FALSE_ORIGIN_LONGITUDE, KEY_CENTRE_LONGITUDE);
    if (!strcmp(method, "stere")) longitude = georef_number(georef, KEY_POLE_LONGITUDE, longitude);
    double latitude = first_of(georef, KEY_ORIGIN_LATITUDE, KEY_FALSE_ORIGIN_LATITUDE, KEY_CENTRE_LATITUDE);
    bool polar = !strcmp(method, "stere");
    trn_text_printf(out, "+proj=%s +lon_0=%.17g", method, longitude);
    /* the origin of a polar projection is where its scale is true; at the pole a scale may be given */
    if (polar && fabs(latitude) == 90)
        trn_text_printf(out, " +lat_0=%.17g +k_0=%.17g", latitude, georef_number(georef, KEY_SCALE, 1));
    else if (polar)
        trn_text_printf(out, " +lat_0=%d +lat_ts=%.17g", latitude < 0 ? -90 : 90, latitude);
    else if (!strcmp(method, "eqc"))
        trn_text_printf(out, " +lat_ts=%.17g", latitude);
    else
        trn_text_printf(out, " +lat_0=%.17g", latitude);
    if (!strcmp(method, "lcc") || !strcmp(method, "aea"))
        trn_text_printf(out, " +lat_1=%.17g +lat_2=%.17g", georef_number(georef, KEY_PARALLEL_1, 0),
                        georef_number(georef, KEY_PARALLEL_2, 0));
    if (!strcmp(method, "tmerc")) trn_text_printf(out, " +k=%.17g", georef_number(georef, KEY_SCALE, 1));
    trn_text_printf(
        out, " +x_0=%.17g +y_0=%.17g",
        first_of(georef, KEY_FALSE_EASTING, KEY_FALSE_ORIGIN_EASTING, KEY_FALSE_ORIGIN_EASTING),
        first_of(georef, KEY_FALSE_NORTHING, KEY_FALSE_ORIGIN_NORTHING, KEY_FALSE_ORIGIN_NORTHING));
    add_ellipsoid(georef, out);
    return true;
}

/* ESRI's programs put well-known text among the ASCII parameters. */
static bool copy_wkt(const trn_georef *georef, trn_text *out)
{
    static const char *const begins[] = {"PROJCS[", "GEOGCS[", "PROJCRS[", "GEOGCRS["};
    for (size_t i = 0; georef->ascii_params && i < TRN_COUNT(begins); i++) {
        const char *at = strstr(georef->ascii_params, begins[i]);
        if (!at) continue;
        trn_text_add_n(out, at, strcspn(at, "|"));
        return true;
    }
    return false;
}

static bool name_crs(const trn_georef *georef, trn_text *out)
{
    if (georef->epsg) {
        trn_text_printf(out, "EPSG:%d", georef->epsg);
        return true;
    }
    if (copy_wkt(georef, out)) return true;
    if (!knows_ellipsoid(georef)) return false;
    if (spell_projection(georef, out)) return true;
    if (georef_key(georef, KEY_MODEL_TYPE) != MODEL_GEOGRAPHIC) return false;
    trn_text_add(out, "+proj=longlat"); /* degrees on an ellipsoid of its own */
    add_ellipsoid(georef, out);
    return true;
}

/* ---- the locator ---- */

static trn_status fail_crs(PJ_CONTEXT *context, const char *crs, trn_error *err)
{
    const char *database = proj_context_get_database_path(context);
    if (!database || !*database || !trn_path_exists(database))
        return trn_fail(
            err, TRN_ERR_IO,
            "the place of the scene cannot be found: PROJ's database proj.db is missing; install it "
            "(Debian: proj-data), set PROJ_DATA to its folder, or give the place");
    int code = proj_context_errno(context);
    const char *reason = code ? proj_context_errno_string(context, code) : NULL;
    return trn_fail(err, TRN_ERR_UNSUPPORTED,
                    "the scene's CRS %.120s is not known to PROJ (%s): give the place", crs,
                    reason ? reason : "no such definition");
}

static trn_status fail_keys(const trn_georef *georef, trn_error *err)
{
    if (!knows_ellipsoid(georef))
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "the scene's CRS has no EPSG code, and its ellipsoid %d is not known here: give the "
                        "place",
                        georef_key(georef, KEY_ELLIPSOID));
    return trn_fail(err, TRN_ERR_UNSUPPORTED,
                    "the scene's CRS has no EPSG code, and its own keys are not understood: give the place");
}

/* Whether places beyond 180 degrees are as good as others: of degrees, and of projections whose meridians are
 * parallel. */
static bool does_repeat(PJ_CONTEXT *context, const PJ *transform)
{
    static const char *const methods[] = {"Mercator", "Cylindrical", "Plate"};
    bool repeats = false;
    PJ *crs = proj_get_source_crs(context, transform);
    PJ *projection = crs ? proj_crs_get_coordoperation(context, crs) : NULL;
    const char *name = NULL;
    if (projection && proj_coordoperation_get_method_info(context, projection, &name, NULL, NULL) && name)
        for (size_t i = 0; i < TRN_COUNT(methods); i++)
            repeats = repeats || strstr(name, methods[i]);
    else
        repeats = true;
    proj_destroy(projection);
    proj_destroy(crs);
    return repeats;
}

static trn_status open_transform(trn_locator *locator, const char *crs, trn_error *err)
{
    PJ_CONTEXT *context = locator->context;
    /* a fixed target needs no database when the source needs none */
    const char *target =
        trn_starts_with(crs, "+proj") ? "+proj=longlat +datum=WGS84 +no_defs +type=crs" : "EPSG:4326";
    PJ *raw = proj_create_crs_to_crs(context, crs, target, NULL);
    if (!raw) return fail_crs(context, crs, err);
    locator->transform = proj_normalize_for_visualization(context, raw);
    locator->repeats = does_repeat(context, raw);
    proj_destroy(raw);
    return locator->transform ? TRN_OK : fail_crs(context, crs, err);
}

trn_status trn_locator_create(const trn_georef *georef, trn_locator **out, trn_error *err)
{
    trn_text crs = {0};
    trn_status status = TRN_OK;
    *out = NULL;
    if (!georef->has_transform || !georef->has_crs)
        return trn_fail(err, TRN_ERR_ARGUMENT, "the scene has no georeference: give the place");
    trn_locator *locator = calloc(1, sizeof *locator);
    if (!locator) return trn_fail_memory(err, sizeof *locator, "a locator");
    memcpy(locator->pixel, georef->transform, sizeof locator->pixel);
    locator->context = proj_context_create();
    if (!locator->context) {
        status = trn_fail_memory(err, sizeof *locator, "PROJ");
        goto fail;
    }
    proj_log_func(locator->context, NULL, be_silent);
    proj_context_set_enable_network(locator->context, 0);
    if (!name_crs(georef, &crs))
        status = fail_keys(georef, err);
    else if (crs.failed)
        status = trn_fail_memory(err, crs.length, "the name of a CRS");
    else
        status = open_transform(locator, trn_text_get(&crs), err);
fail:
    trn_text_free(&crs);
    if (status == TRN_OK)
        *out = locator;
    else
        trn_locator_destroy(locator);
    return status;
}

/* Whether what PROJ made of a place lies there: beside the earth in a sinusoidal scene it finds a place on
 * the other side. On the way back another datum shift may be taken, hence the kilometre. */
static bool lies_there(const trn_locator *locator, PJ_COORD from, PJ_COORD to)
{
    const double *gt = locator->pixel, slack = 1000;
    if (!isfinite(to.xy.x) || !isfinite(to.xy.y) || fabs(to.xy.y) > 90) return false;
    if (locator->repeats) return true;
    PJ_COORD back = proj_trans(locator->transform, PJ_INV, to);
    double pixel = hypot(gt[1], gt[4]) + hypot(gt[2], gt[5]);
    return hypot(back.xy.x - from.xy.x, back.xy.y - from.xy.y) <= pixel + slack;
}

trn_status trn_locator_find(trn_locator *locator, double x_pixel, double y_pixel, double *latitude,
                            double *longitude, trn_error *err)
{
    const double *gt = locator->pixel;
    PJ_COORD from = proj_coord(gt[0] + x_pixel * gt[1] + y_pixel * gt[2],
                               gt[3] + x_pixel * gt[4] + y_pixel * gt[5], 0, HUGE_VAL);
    PJ_COORD to = proj_trans(locator->transform, PJ_FWD, from);
    *longitude = to.xy.x;
    *latitude = to.xy.y;
    if (lies_there(locator, from, to)) return TRN_OK;
    return trn_fail(
        err, TRN_ERR_FORMAT,
        "pixel (%.1f, %.1f) of the scene has no latitude and longitude: its georeference places it "
        "at (%g, %g), outside of its CRS",
        x_pixel, y_pixel, from.xy.x, from.xy.y);
}

void trn_locator_destroy(trn_locator *locator)
{
    if (!locator) return;
    proj_destroy(locator->transform);
    if (locator->context) proj_context_destroy(locator->context);
    free(locator);
}

trn_status trn_georef_locate(const trn_georef *georef, double x_pixel, double y_pixel, double *latitude,
                             double *longitude, trn_error *err)
{
    trn_locator *locator;
    trn_status status = trn_locator_create(georef, &locator, err);
    if (status != TRN_OK) return status;
    status = trn_locator_find(locator, x_pixel, y_pixel, latitude, longitude, err);
    trn_locator_destroy(locator);
    return status;
}
