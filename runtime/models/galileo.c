/* Galileo: Sentinel-1 and Sentinel-2 bands of one date or several. Any of its band groups may be missing. */
#include "galileo.h"

#include <string.h>

enum {
    GALILEO_PATCH,
    GALILEO_MONTH,
    GALILEO_RESOLUTION,
    GALILEO_NDVI,
    GALILEO_DIM,
    GALILEO_DEPTH,
    GALILEO_HEADS,
    GALILEO_MLP_RATIO,
    GALILEO_POSITIONS,
    GALILEO_EPS,
    GALILEO_SETTINGS
};

static const trn_setting_rule settings[GALILEO_SETTINGS] = {
    [GALILEO_PATCH] = {"patch", TRN_SETTING_INT, "8", 1, 8, NULL,
                       "pixels of a patch's side; smaller is finer and slower"},
    [GALILEO_MONTH] =
        {"month", TRN_SETTING_INT, "-1", -1, 11, NULL,
         "month of the images, 0 is January; -1: those of their dates, 5 when these are unknown"},
    [GALILEO_RESOLUTION] = {"resolution", TRN_SETTING_REAL, "10", 0.01, 10000, NULL, "metres of a pixel"},
    [GALILEO_NDVI] = {"ndvi", TRN_SETTING_CHOICE, "true", 0, 0, TRN_BOOL_CHOICES,
                      "look at NDVI when red and nir are there"},
    [GALILEO_DIM] = {"dim", TRN_SETTING_INT, "128", 8, 8192, NULL, "channels of a token"},
    [GALILEO_DEPTH] = {"depth", TRN_SETTING_INT, "4", 1, 256, NULL, "blocks"},
    [GALILEO_HEADS] = {"heads", TRN_SETTING_INT, "8", 1, 256, NULL, "attention heads"},
    [GALILEO_MLP_RATIO] = {"mlp_ratio", TRN_SETTING_REAL, "4", 0.01, 64, NULL,
                           "hidden channels of the MLP, over dim"},
    [GALILEO_POSITIONS] = {"max_sequence_length", TRN_SETTING_INT, "24", 1, 4096, NULL,
                           "rows of the table of time steps"},
    [GALILEO_EPS] = {"eps", TRN_SETTING_REAL, "1e-5", 1e-12, 1, NULL, "of the norms"},
};

#define SOURCE "https://huggingface.co/nasaharvest/galileo"
static const trn_model_config configs[] = {
    {{"galileo-nano", "galileo", "Galileo nano", "MIT", SOURCE, 1037856, 0, NULL}, "", NULL, NULL},
    {{"galileo-tiny", "galileo", "Galileo tiny", "MIT", SOURCE, 5705520, 0, NULL},
     "dim=192 depth=12 heads=3",
     NULL,
     NULL},
    {{"galileo-base", "galileo", "Galileo base", "MIT", SOURCE, 86523072, 0, NULL},
     "dim=768 depth=12 heads=12",
     NULL,
     NULL},
};

/* ---- bands ---- */

/* Means and deviations of the values that Galileo was trained on; it maps mean - 2 std .. mean + 2 std to 0
 * .. 1. */
typedef struct band_statistics {
    const char *name;
    int group;
    double mean, std;
} band_statistics;

static const band_statistics statistics[] = {
    {"vv", 0, -11.728724389184965, 4.887145774840316},
    {"vh", 0, -18.85558188024017, 5.730270320384293},
    {"blue", 1, 1395.3408730676722, 917.7041440370853},
    {"green", 1, 1338.4026921784578, 913.2988423581528},
    {"red", 1, 1343.09883810357, 1092.678723527555},
    {"rededge1", 2, 1543.8607982512297, 1047.2206083460424},
    {"rededge2", 2, 2186.2022069512263, 1048.0101611156767},
    {"rededge3", 2, 2525.0932853316694, 1143.6903026819996},
    {"nir", 3, 2410.3377187373408, 1098.979177731649},
    {"nir08", 4, 2750.2854646886753, 1204.472755085893},
    {"swir16", 5, 2234.911100061487, 1145.9774063078878},
    {"swir22", 5, 1474.5311266077113, 980.2429840007796},
};
enum { BANDS = TRN_COUNT(statistics), RADAR_GROUP = 0, NDVI_GROUP = 6, BAND_RED = 4, BAND_NIR = 8 };

static trn_status configure(trn_encoder *encoder, trn_error *err)
{
    int64_t dim = trn_encoder_int(encoder, GALILEO_DIM), heads = trn_encoder_int(encoder, GALILEO_HEADS);
    if (dim % heads || dim % 16)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': dim=%lld must be a multiple of heads=%lld and of 16",
                        encoder->spec.name, (long long)dim, (long long)heads);
    trn_status status = trn_encoder_check_hidden(encoder, GALILEO_MLP_RATIO,
                                                 trn_encoder_hidden(encoder, GALILEO_MLP_RATIO, dim), err);
    if (status != TRN_OK) return status;
    trn_encoder_band *bands = trn_arena_array(encoder->arena, BANDS, sizeof *bands);
    if (!bands) return trn_fail_memory(err, BANDS * sizeof *bands, "bands");
    for (size_t i = 0; i < BANDS; i++) {
        const band_statistics *s = &statistics[i];
        bool radar = s->group == RADAR_GROUP;
        bands[i] = (trn_encoder_band){.name = s->name,
                                      .group = s->group,
                                      .mean = s->mean - 2 * s->std,
                                      .std = 4 * s->std,
                                      .unit = radar ? TRN_UNIT_DECIBEL : TRN_UNIT_REFLECTANCE,
                                      .value_scale = radar ? 1 : 10000};
    }
    enum { CELLS = 8, MAX_DATES = 24 }; /* cells per side of a window; training went to 12 */
    trn_encoder_spec *spec = &encoder->spec;
    int patch = (int)trn_encoder_int(encoder, GALILEO_PATCH);
    spec->needs_weights = true;
    spec->bands = bands;
    spec->band_count = BANDS;
    spec->unit = TRN_UNIT_REFLECTANCE;
    spec->value_scale = 10000;
    spec->side_multiple = spec->stride = patch;
    spec->tile = CELLS * patch;
    spec->channels = (int)dim;
    spec->square = true;
    spec->ranges = true;
    spec->min_dates = 1;
    spec->max_dates = (int)TRN_MIN(MAX_DATES, trn_encoder_int(encoder, GALILEO_POSITIONS));
    return TRN_OK;
}

/* ---- graph ---- */

/* x [B,T,C,h,w] -> [B*T,C,h,w] */
static trn_tensor *fold_dates(const trn_build *build, trn_tensor *x)
{
    return trn_reshape(
        build->scope.graph, x,
        TRN_SHAPE(build->batch * build->dates, trn_tensor_dim(x, -3), build->height, build->width));
}

/* Channel i of the image as value [B*T,1,side,side]: from the stored number, or, where that is normalised,
 * back from it. */
static trn_tensor *band_value(const trn_encoder *encoder, const trn_build *build, int channel)
{
    const trn_encode_options *options = build->options;
    const trn_encoder_band *band = &encoder->spec.bands[trn_encoder_channel_band(encoder, (size_t)channel)];
    trn_tensor *x = trn_slice(build->scope.graph, fold_dates(build, build->image), 1, channel, 1);
    double scale = options->value_scale ? (double)options->value_scale[channel] : 1;
    double offset = options->value_offset ? (double)options->value_offset[channel] : 0;
    if (options->normalize == TRN_NORMALIZE_NONE) {
        scale = band->std;
        offset = band->mean;
    }
    return scale == 1 && offset == 0 ? x : trn_affine(build->scope.graph, x, (float)scale, (float)offset);
}

/* [B*T,1,side,side]; NULL when it is not to be had */
static trn_tensor *ndvi(const trn_encoder *encoder, const trn_build *build)
{
    trn_graph *graph = build->scope.graph;
    int red = trn_encoder_band_channel(encoder, BAND_RED), nir = trn_encoder_band_channel(encoder, BAND_NIR);
    if (red < 0 || nir < 0 || !trn_encoder_int(encoder, GALILEO_NDVI)) return NULL;
    trn_graph_scope(graph, "ndvi.");
    return trn_build_ndvi(graph, band_value(encoder, build, red), band_value(encoder, build, nir));
}

/* Channels of a group follow one another in the image, because bands are chosen in the order of the table. */
static void split_groups(const trn_encoder *encoder, const trn_build *build, trn_tensor **groups)
{
    size_t count = trn_encoder_channel_count(encoder);
    trn_tensor *x = fold_dates(build, build->x);
    for (size_t i = 0, end; i < count; i = end) {
        int group = statistics[trn_encoder_channel_band(encoder, i)].group;
        for (end = i + 1; end < count && statistics[trn_encoder_channel_band(encoder, end)].group == group;
             end++) {
        }
        groups[group] = trn_slice(build->scope.graph, x, 1, (int64_t)i, (int64_t)(end - i));
    }
}

/* 0..11 of each date */
static const int *months_of(const trn_encoder *encoder, int64_t dates)
{
    enum { USUAL = 5 };
    int month = (int)trn_encoder_int(encoder, GALILEO_MONTH);
    int *months = trn_arena_array(encoder->arena, (size_t)dates, sizeof *months);
    for (int64_t t = 0; months && t < dates; t++) {
        months[t] = month >= 0 ? month : USUAL;
        if (month < 0 && encoder->dates) months[t] = encoder->dates[t].month - 1;
    }
    return months;
}

static void build_galileo(trn_encoder *encoder, const trn_build *build, trn_features *out)
{
    const int *months = months_of(encoder, build->dates);
    if (!months) {
        trn_graph_fail(build->scope.graph, "no memory for months");
        return;
    }
    galileo_size size = {.dim = trn_encoder_int(encoder, GALILEO_DIM),
                         .depth = trn_encoder_int(encoder, GALILEO_DEPTH),
                         .heads = trn_encoder_int(encoder, GALILEO_HEADS),
                         .positions = trn_encoder_int(encoder, GALILEO_POSITIONS),
                         .mlp_ratio = trn_encoder_real(encoder, GALILEO_MLP_RATIO),
                         .eps = trn_encoder_real(encoder, GALILEO_EPS)};
    galileo_inputs inputs = {.batch = build->batch,
                             .times = build->dates,
                             .side = build->height,
                             .patch = trn_encoder_int(encoder, GALILEO_PATCH),
                             .resolution = trn_encoder_real(encoder, GALILEO_RESOLUTION),
                             .months = months,
                             .shared_months = true};
    galileo_outputs outputs;
    split_groups(encoder, build, inputs.space_time);
    inputs.space_time[NDVI_GROUP] = ndvi(encoder, build);
    trn_galileo_build(build, encoder->arena, &size, &inputs, &outputs);
    if (build->options->pool == TRN_FEATURES_MEAN) {
        out->pooled = outputs.mean;
        return;
    }
    int64_t cells = build->height / inputs.patch;
    trn_tensor *grid =
        trn_reshape(build->scope.graph, outputs.cells, TRN_SHAPE(build->batch, cells, cells, size.dim));
    trn_features_grid(out, grid, (double)inputs.patch, 0);
}

static const char *const prefixes[] = {"encoder.", "model.encoder.", "backbone.", NULL};

const trn_family trn_family_galileo = {
    .name = "galileo",
    .settings = settings,
    .setting_count = GALILEO_SETTINGS,
    .configs = configs,
    .config_count = TRN_COUNT(configs),
    .probe = "s_t_channel_embed",
    .prefixes = prefixes,
    .nodata = 0.5f, /* the mean: mean - 2 std is 0 */
    .tiny = "dim=32 depth=2 heads=4 patch=4",
    .configure = configure,
    .build = build_galileo,
};
