/* Presto: every pixel's series of dates is a sequence of its own.
 *
 * Tokens are one per date and group of bands, and one of the place. The groups that images do not bring
 * (weather, terrain, land cover) and those of which the scene lacks a band are left out, which is what the
 * original does with masked groups. It always knows the place; where the caller does not, that token is left
 * out too, because every latitude and longitude would be a claim. A window's place is that of all its pixels.
 */
#include "models_private.h"

#include <math.h>
#include <string.h>

enum {
    PRESTO_CELL,
    PRESTO_MONTH,
    PRESTO_NDVI,
    PRESTO_DIM,
    PRESTO_DEPTH,
    PRESTO_HEADS,
    PRESTO_MLP_RATIO,
    PRESTO_CHANNEL_RATIO,
    PRESTO_MONTH_RATIO,
    PRESTO_POSITIONS,
    PRESTO_EPS,
    PRESTO_SETTINGS
};

static const trn_setting_rule settings[PRESTO_SETTINGS] = {
    [PRESTO_CELL] = {"cell", TRN_SETTING_INT, "1", 1, 64, NULL,
                     "pixels of a cell's side: a cell's pixels are averaged into one series; larger is "
                     "coarser and faster"},
    [PRESTO_MONTH] = {"month", TRN_SETTING_INT, "-1", -1, 11, NULL,
                      "month of the first date, 0 is January, the others follow by the month; -1: those of "
                      "the dates, from January on when these are unknown"},
    [PRESTO_NDVI] = {"ndvi", TRN_SETTING_CHOICE, "true", 0, 0, TRN_BOOL_CHOICES,
                     "look at NDVI when red and nir are there"},
    [PRESTO_DIM] = {"dim", TRN_SETTING_INT, "128", 4, 8192, NULL, "channels of a token"},
    [PRESTO_DEPTH] = {"depth", TRN_SETTING_INT, "2", 1, 256, NULL, "blocks"},
    [PRESTO_HEADS] = {"heads", TRN_SETTING_INT, "8", 1, 256, NULL, "attention heads"},
    [PRESTO_MLP_RATIO] = {"mlp_ratio", TRN_SETTING_REAL, "4", 0.01, 64, NULL,
                          "hidden channels of the MLP, over dim"},
    [PRESTO_CHANNEL_RATIO] = {"channel_embed_ratio", TRN_SETTING_REAL, "0.25", 0.001, 0.999, NULL,
                              "share of a token that says its group of bands"},
    [PRESTO_MONTH_RATIO] = {"month_embed_ratio", TRN_SETTING_REAL, "0.25", 0.001, 0.999, NULL,
                            "share of a token that says its month; the rest says its place in the series"},
    [PRESTO_POSITIONS] = {"max_sequence_length", TRN_SETTING_INT, "24", 1, 4096, NULL,
                          "rows of the table of places in the series: most dates"},
    [PRESTO_EPS] = {"eps", TRN_SETTING_REAL, "1e-5", 1e-12, 1, NULL, "of the norms"},
};

static const trn_model_config configs[] = {
    {{"presto", "presto", "Presto", "MIT",
      "https://github.com/nasaharvest/presto/raw/main/data/default_model.pt", 402112, 3321716,
      "559c9d76f525bdf2dd3774da8b1e7f1510769b73baacac12e9e4d8d5c67fbe65"},
     "",
     NULL,
     "encoder."},
};

/* ---- bands ---- */

/* Groups in the order of the original, which is that of the rows of channel_embed. The two between those of
 * the image and NDVI are ERA5 and SRTM, the row after is of Dynamic World. */
enum { IMAGE_GROUPS = 6, ERA5_GROUP = IMAGE_GROUPS, SRTM_GROUP, NDVI_GROUP, DYNAMIC_WORLD_GROUP, GROUPS };
static const char *const group_names[GROUPS] = {"S1",         "S2_RGB",       "S2_Red_Edge", "S2_NIR_10m",
                                                "S2_NIR_20m", "S2_SWIR",      "ERA5",        "SRTM",
                                                "NDVI",       "dynamic_world"};

static const struct {
    const char *name;
    int group;
} band_table[] = {{"vv", 0},       {"vh", 0},       {"blue", 1}, {"green", 1}, {"red", 1},    {"rededge1", 2},
                  {"rededge2", 2}, {"rededge3", 2}, {"nir", 3},  {"nir08", 4}, {"swir16", 5}, {"swir22", 5}};
enum { BANDS = TRN_COUNT(band_table), RADAR_GROUP = 0, BAND_RED = 4, BAND_NIR = 8 };

/* Optical values are reflectance; radar's -25..0 dB become 0..1. */
static trn_encoder_band describe_band(size_t i)
{
    trn_encoder_band band = {.name = band_table[i].name,
                             .group = band_table[i].group,
                             .std = 10000,
                             .unit = TRN_UNIT_REFLECTANCE,
                             .value_scale = 10000};
    if (band.group != RADAR_GROUP) return band;
    band.unit = TRN_UNIT_DECIBEL;
    band.value_scale = 1;
    band.mean = -25;
    band.std = 25;
    return band;
}

/* ---- configuration ---- */

/* How a token's channels are shared: month | group | place in the series. */
typedef struct token_parts {
    int64_t month, group, position;
} token_parts;

static token_parts parts_of(const trn_encoder *encoder)
{
    int64_t dim = trn_encoder_int(encoder, PRESTO_DIM);
    token_parts parts = {.month = (int64_t)((double)dim * trn_encoder_real(encoder, PRESTO_MONTH_RATIO)),
                         .group = (int64_t)((double)dim * trn_encoder_real(encoder, PRESTO_CHANNEL_RATIO))};
    parts.position = dim - parts.month - parts.group;
    return parts;
}

static trn_status configure(trn_encoder *encoder, trn_error *err)
{
    enum { CELLS = 16 }; /* per side of a window: every cell is a sequence */
    trn_encoder_spec *spec = &encoder->spec;
    int64_t dim = trn_encoder_int(encoder, PRESTO_DIM), heads = trn_encoder_int(encoder, PRESTO_HEADS);
    token_parts parts = parts_of(encoder);
    if (dim % heads)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': dim=%lld is no multiple of heads=%lld",
                        spec->name, (long long)dim, (long long)heads);
    if (parts.month < 1 || parts.group < 1 || parts.position < 1)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': channel_embed_ratio and month_embed_ratio must leave each part of the "
                        "%lld channels at least one: they give %lld for the group, %lld for the month, %lld "
                        "for the place in the series",
                        spec->name, (long long)dim, (long long)parts.group, (long long)parts.month,
                        (long long)parts.position);
    trn_status status = trn_encoder_check_hidden(encoder, PRESTO_MLP_RATIO,
                                                 trn_encoder_hidden(encoder, PRESTO_MLP_RATIO, dim), err);
    if (status != TRN_OK) return status;
    trn_encoder_band *bands = trn_arena_array(encoder->arena, BANDS, sizeof *bands);
    if (!bands) return trn_fail_memory(err, BANDS * sizeof *bands, "bands");
    for (size_t i = 0; i < BANDS; i++)
        bands[i] = describe_band(i);
    int cell = (int)trn_encoder_int(encoder, PRESTO_CELL);
    spec->needs_weights = true;
    spec->bands = bands;
    spec->band_count = BANDS;
    spec->unit = TRN_UNIT_REFLECTANCE;
    spec->value_scale = 10000;
    spec->side_multiple = spec->stride = cell;
    spec->tile = CELLS * cell;
    spec->channels = (int)dim;
    spec->ranges = true;
    spec->min_dates = 1;
    spec->max_dates = (int)trn_encoder_int(encoder, PRESTO_POSITIONS);
    spec->location_values = 3;
    return TRN_OK;
}

/* The point on the unit sphere. */
static void encode_location(const trn_encoder *encoder, double latitude, double longitude, float *out)
{
    (void)encoder;
    const double radians = 3.14159265358979323846 / 180;
    double lat = latitude * radians, lon = longitude * radians;
    out[0] = (float)(cos(lat) * cos(lon));
    out[1] = (float)(cos(lat) * sin(lon));
    out[2] = (float)sin(lat);
}

/* ---- values of the cells ---- */

typedef struct context {
    const trn_encoder *encoder;
    const trn_build *build;
    trn_graph *graph;
    int64_t dim, dates, rows, columns; /* of the grid of cells */
    int64_t sequences;                 /* batch * rows * columns */
} context;

/* [B,T,C,h,w] -> [S,T,C]: the average of each cell, one sequence per cell */
static trn_tensor *series_of(const context *c, trn_tensor *image)
{
    static const int cells_first[] = {0, 3, 4, 1, 2};
    int cell = (int)trn_encoder_int(c->encoder, PRESTO_CELL);
    int64_t channels = trn_tensor_dim(image, 2);
    if (cell > 1) image = trn_pool2d(c->graph, image, 3, TRN_POOL_MEAN, cell, cell);
    image = trn_permute(c->graph, image, cells_first);
    return trn_reshape(c->graph, image, TRN_SHAPE(c->sequences, c->dates, channels));
}

/* Band `channel` [B,T,1,h,w] as reflectance times some factor. Presto's normalised values are that; those of
 * another normalisation are not, and the stored ones are taken. */
static trn_tensor *reflectance(const context *c, int channel)
{
    const trn_encode_options *options = c->build->options;
    if (options->normalize != TRN_NORMALIZE_ZSCORE) return trn_slice(c->graph, c->build->x, 2, channel, 1);
    float scale = options->value_scale ? options->value_scale[channel] : 1;
    float offset = options->value_offset ? options->value_offset[channel] : 0;
    return trn_affine(c->graph, trn_slice(c->graph, c->build->image, 2, channel, 1), scale, offset);
}

/* [S,T,1]; NULL when it is not to be had */
static trn_tensor *ndvi(const context *c)
{
    int red = trn_encoder_band_channel(c->encoder, BAND_RED),
        nir = trn_encoder_band_channel(c->encoder, BAND_NIR);
    if (red < 0 || nir < 0 || !trn_encoder_int(c->encoder, PRESTO_NDVI)) return NULL;
    trn_graph_scope(c->graph, "ndvi.");
    return trn_build_ndvi(c->graph, series_of(c, reflectance(c, red)), series_of(c, reflectance(c, nir)));
}

/* The groups' values [S,T,channels]; NULL for those that are missing. Channels of a group follow one another,
 * because bands are chosen in the order of the table. */
static void split_groups(const context *c, trn_tensor **groups)
{
    trn_tensor *series = series_of(c, c->build->x);
    size_t count = trn_encoder_channel_count(c->encoder);
    for (size_t i = 0, end; i < count; i = end) {
        int group = band_table[trn_encoder_channel_band(c->encoder, i)].group;
        for (end = i + 1; end < count; end++)
            if (band_table[trn_encoder_channel_band(c->encoder, end)].group != group) break;
        groups[group] = trn_slice(c->graph, series, 2, (int64_t)i, (int64_t)(end - i));
    }
    groups[NDVI_GROUP] = ndvi(c);
}

/* ---- tokens ---- */

/* Rows of the table of months, one per date. */
static trn_tensor *months_of(const context *c, int64_t channels)
{
    const trn_date *dates = c->encoder->dates;
    int64_t first = trn_encoder_int(c->encoder, PRESTO_MONTH);
    int32_t *months = trn_arena_array(c->encoder->arena, (size_t)c->dates, sizeof *months);
    if (!months) return trn_graph_fail(c->graph, "no memory for %lld months", (long long)c->dates);
    for (int64_t t = 0; t < c->dates; t++)
        months[t] = (int32_t)(dates && first < 0 ? dates[t].month - 1 : (TRN_MAX(first, 0) + t) % 12);
    trn_tensor *table = trn_scope_param(&c->build->scope, "month_embed.weight", TRN_SHAPE(12, channels));
    return trn_gather(c->graph, table, 0, trn_constant_int(c->graph, "months", TRN_SHAPE(c->dates), months));
}

/* What is added to every group's tokens: [T,month] and [T,position]. */
typedef struct encodings {
    trn_tensor *months, *positions, *groups;
    token_parts parts;
} encodings;

static encodings encodings_of(const context *c)
{
    const trn_scope *scope = &c->build->scope;
    encodings e = {.parts = parts_of(c->encoder)};
    int64_t rows = trn_encoder_int(c->encoder, PRESTO_POSITIONS);
    trn_graph_scope(c->graph, "encodings.");
    trn_tensor *table = trn_scope_param(scope, "pos_embed", TRN_SHAPE(1, rows, e.parts.position));
    table = trn_slice(c->graph, table, 1, 0, c->dates);
    e.positions = trn_reshape(c->graph, table, TRN_SHAPE(c->dates, e.parts.position));
    e.months = months_of(c, e.parts.month);
    e.groups = trn_scope_param(scope, "channel_embed.weight", TRN_SHAPE(GROUPS, e.parts.group));
    return e;
}

/* values [S,T,channels] of a group -> tokens [S,T,D] */
static trn_tensor *embed_group(const context *c, const encodings *e, int group, trn_tensor *values)
{
    trn_scope scope = trn_scope_enter(&c->build->scope, "eo_patch_embed");
    trn_tensor *tokens = trn_nn_linear(&scope, group_names[group], values, c->dim, true);
    trn_tensor *row = trn_slice(c->graph, e->groups, 0, group, 1);
    row = trn_expand(c->graph, row, TRN_SHAPE(c->dates, e->parts.group));
    trn_tensor *parts[] = {e->months, row, e->positions};
    return trn_add(c->graph, tokens, trn_concat(c->graph, parts, 3, 1));
}

/* location [B,3] -> [S,1,D] */
static trn_tensor *embed_location(const context *c, trn_tensor *location)
{
    const trn_shape *shape = trn_tensor_shape(location);
    int64_t batch = c->build->batch, cells = c->rows * c->columns;
    if (shape->ndim != 2 || shape->dim[0] != batch || shape->dim[1] != c->encoder->spec.location_values) {
        char text[128];
        return trn_graph_fail(c->graph, "the places of %lld windows are [%lld,%d], not %s", (long long)batch,
                              (long long)batch, c->encoder->spec.location_values,
                              trn_shape_text(shape, text));
    }
    trn_tensor *token = trn_nn_linear(&c->build->scope, "latlon_embed", location, c->dim, true);
    token = trn_reshape(c->graph, token, TRN_SHAPE(batch, 1, c->dim));
    token = trn_expand(c->graph, token, TRN_SHAPE(batch, cells, c->dim));
    return trn_reshape(c->graph, token, TRN_SHAPE(c->sequences, 1, c->dim));
}

/* A graph that is built to learn what weights are needed has no places; later graphs may. */
static void want_location(const context *c)
{
    const trn_scope *scope = &c->build->scope;
    if (!scope->parameters->want) return;
    static const float nowhere[3];
    trn_tensor *place = trn_constant(c->graph, "nowhere", TRN_SHAPE(1, 3), nowhere);
    trn_nn_linear(scope, "latlon_embed", place, c->dim, true);
}

/* -> [S,N,D] */
static trn_tensor *embed(const context *c)
{
    trn_tensor *values[GROUPS] = {NULL}, *parts[GROUPS + 1];
    int count = 0;
    split_groups(c, values);
    encodings e = encodings_of(c);
    if (c->build->options->location)
        parts[count++] = embed_location(c, c->build->options->location);
    else
        want_location(c);
    for (int g = 0; g < GROUPS; g++)
        if (values[g]) parts[count++] = embed_group(c, &e, g, values[g]);
    trn_graph_scope(c->graph, NULL);
    return trn_concat(c->graph, parts, count, 1);
}

static void build_presto(trn_encoder *encoder, const trn_build *build, trn_features *out)
{
    int64_t cell = trn_encoder_int(encoder, PRESTO_CELL);
    context c = {.encoder = encoder,
                 .build = build,
                 .graph = build->scope.graph,
                 .dim = trn_encoder_int(encoder, PRESTO_DIM),
                 .dates = build->dates,
                 .rows = build->height / cell,
                 .columns = build->width / cell};
    c.sequences = build->batch * c.rows * c.columns;
    trn_block_desc desc = {.heads = (int)trn_encoder_int(encoder, PRESTO_HEADS),
                           .hidden = trn_encoder_hidden(encoder, PRESTO_MLP_RATIO, c.dim),
                           .eps = (float)trn_encoder_real(encoder, PRESTO_EPS)};
    trn_tensor *x = embed(&c);
    trn_build_stage(build, x, "tokens_in");
    x = trn_build_blocks(build, &build->scope, x, trn_encoder_int(encoder, PRESTO_DEPTH), &desc, NULL, NULL);
    x = trn_reduce(c.graph, x, 1, TRN_REDUCE_MEAN, false);
    x = trn_nn_layer_norm(&build->scope, "norm", x, desc.eps); /* of the average, not of tokens */
    trn_build_stage(build, x, "features");
    if (build->options->pool == TRN_FEATURES_DENSE) {
        x = trn_reshape(c.graph, x, TRN_SHAPE(build->batch, c.rows, c.columns, c.dim));
        trn_features_grid(out, x, (double)cell, 0);
        return;
    }
    x = trn_reshape(c.graph, x, TRN_SHAPE(build->batch, c.rows * c.columns, c.dim));
    out->pooled = trn_tokens_mean(build, x, 0);
    trn_build_stage(build, out->pooled, "pooled");
}

static const char *const prefixes[] = {"encoder.", "model.encoder.", NULL};

const trn_family trn_family_presto = {
    .name = "presto",
    .settings = settings,
    .setting_count = PRESTO_SETTINGS,
    .configs = configs,
    .config_count = TRN_COUNT(configs),
    .probe = "channel_embed.weight",
    .prefixes = prefixes,
    .tiny = "dim=32 depth=2 heads=4",
    .configure = configure,
    .encode_location = encode_location,
    .build = build_presto,
};
