/* Prithvi-EO: series of the six bands that Landsat and Sentinel-2 share, with the time and the place of each.
 *
 * The positions are computed, never read: they depend on the number of dates. Dense features of several
 * dates become one grid by the setting `merge`. */
#include "prithvi.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TILE = 224, MAX_DATES = 64, HLS_BANDS = 6 };
enum { MAX_POSITION_VALUES = 1 << 26 }; /* they are computed whenever a graph is built */
enum { UNIT_REFLECTANCE, UNIT_BYTE, UNIT_STORED };
enum { STATISTICS_V1, STATISTICS_V2 };
enum { COORDS_NONE, COORDS_TIME, COORDS_LOCATION, COORDS_BOTH };
enum { ORDER_LATLON, ORDER_LONLAT };
enum { MERGE_CONCAT, MERGE_MEAN };

static const trn_setting_rule settings[PRITHVI_SETTINGS] = {
    [PRITHVI_IMG_SIZE] = {"img_size", TRN_SETTING_TEXT, "224", 0, 0, NULL,
                          "pixels, side or HEIGHTxWIDTH, that the positions are of"},
    [PRITHVI_FRAMES] = {"frames", TRN_SETTING_INT, "4", 1, MAX_DATES, NULL,
                        "dates of the series that the model was trained on; any number works"},
    [PRITHVI_TUBELET] = {"tubelet", TRN_SETTING_INT, "1", 1, 16, NULL, "dates that one patch spans"},
    [PRITHVI_PATCH] = {"patch", TRN_SETTING_INT, "16", 1, 128, NULL, "pixels of a patch's side"},
    [PRITHVI_DIM] = {"dim", TRN_SETTING_INT, "768", 16, 8192, NULL, "channels of a token"},
    [PRITHVI_DEPTH] = {"depth", TRN_SETTING_INT, "12", 1, 256, NULL, "blocks"},
    [PRITHVI_HEADS] = {"heads", TRN_SETTING_INT, "12", 1, 256, NULL, "attention heads"},
    [PRITHVI_MLP_RATIO] = {"mlp_ratio", TRN_SETTING_REAL, "4", 0.01, 64, NULL,
                           "hidden channels of the MLP, over dim"},
    [PRITHVI_IN_CHANS] = {"in_chans", TRN_SETTING_INT, "6", 1, TRN_MAX_IMAGE_BANDS, NULL,
                          "bands of the checkpoint"},
    [PRITHVI_EPS] = {"eps", TRN_SETTING_REAL, "1e-5", 1e-12, 1, NULL,
                     "of the norms; the first script of v1 had 1e-6"},
    [PRITHVI_COORDS] = {"coords", TRN_SETTING_CHOICE, "none", 0, 0, "none|time|location|time+location",
                        "what the checkpoint learned to be told beside the image; used where it is known"},
    [PRITHVI_LOCATION_ORDER] = {"location_order", TRN_SETTING_CHOICE, "latlon", 0, 0, "latlon|lonlat",
                                "which of latitude and longitude comes first: the published material says "
                                "both"},
    [PRITHVI_DAY_BASE] = {"day_base", TRN_SETTING_INT, "1", 0, 1, NULL, "number of the first day of a year"},
    [PRITHVI_OUT_INDICES] = {"out_indices", TRN_SETTING_TEXT, "auto", 0, 0, NULL,
                             "blocks, from 0, whose outputs are the dense features; only that of the last "
                             "is normalised; auto: the last"},
    [PRITHVI_MERGE] = {"merge", TRN_SETTING_CHOICE, "concat", 0, 0, "concat|mean",
                       "how the dense features of several dates become one grid: channels one date after "
                       "the other, or their mean"},
    [PRITHVI_BANDS] = {"bands", TRN_SETTING_TEXT, "auto", 0, 0, NULL,
                       "common names of the bands to use; some of the six leave out the rest of the "
                       "kernel; auto: blue,green,red,nir08,swir16,swir22 for six, else as they come"},
    [PRITHVI_UNIT] = {"unit", TRN_SETTING_CHOICE, "reflectance", 0, 0, "reflectance|byte|stored",
                      "of the values that mean and std are of; reflectance is times 10000"},
    [PRITHVI_STATISTICS] = {"statistics", TRN_SETTING_CHOICE, "v2", 0, 0, "v1|v2",
                            "which release's means and deviations mean=auto and std=auto are"},
    [PRITHVI_MEAN] = {"mean", TRN_SETTING_TEXT, "auto", 0, 0, NULL,
                      "mean per band in use, comma-separated; auto: the release's"},
    [PRITHVI_STD] = {"std", TRN_SETTING_TEXT, "auto", 0, 0, NULL,
                     "standard deviation per band in use; auto: the release's"},
    [PRITHVI_DECODER_DIM] = {"decoder_dim", TRN_SETTING_INT, "512", 16, 8192, NULL,
                             "channels of a token of the decoder (reconstruction)"},
    [PRITHVI_DECODER_DEPTH] = {"decoder_depth", TRN_SETTING_INT, "8", 1, 256, NULL, "blocks of the decoder"},
    [PRITHVI_DECODER_HEADS] = {"decoder_heads", TRN_SETTING_INT, "16", 1, 256, NULL,
                               "attention heads of the decoder"},
};

#define LICENCE "Apache-2.0"
#define SOURCE "https://huggingface.co/ibm-nasa-geospatial/"
#define TL "coords=time+location "
#define SIZE_TINY "dim=192 heads=3 "
#define SIZE_300M "dim=1024 depth=24 heads=16 "
#define SIZE_600M "patch=14 dim=1280 depth=32 heads=16 "

#define CONFIG(name, title, file, parameters, values)                                                        \
    {                                                                                                        \
        {name, "prithvi", title, LICENCE, SOURCE file, parameters, 0, NULL}, values, NULL, "encoder."        \
    }

static const trn_model_config configs[] = {
    CONFIG("prithvi-v1-100m", "Prithvi-EO 1.0 100M", "Prithvi-EO-1.0-100M/resolve/main/Prithvi_EO_V1_100M.pt",
           86237184, "frames=3 statistics=v1"),
    CONFIG("prithvi-v2-tiny-tl", "Prithvi-EO 2.0 tiny, time and location",
           "Prithvi-EO-2.0-tiny-TL/resolve/main/Prithvi_EO_V2_tiny_TL.pt", 5634050, SIZE_TINY TL),
    CONFIG("prithvi-v2-100m-tl", "Prithvi-EO 2.0 100M, time and location",
           "Prithvi-EO-2.0-100M-TL/resolve/main/Prithvi_EO_V2_100M_TL.pt", 86237186, TL),
    CONFIG("prithvi-v2-300m", "Prithvi-EO 2.0 300M", "Prithvi-EO-2.0-300M/resolve/main/Prithvi_EO_V2_300M.pt",
           303886336, SIZE_300M),
    CONFIG("prithvi-v2-300m-tl", "Prithvi-EO 2.0 300M, time and location",
           "Prithvi-EO-2.0-300M-TL/resolve/main/Prithvi_EO_V2_300M_TL.pt", 303886338, SIZE_300M TL),
    CONFIG("prithvi-v2-600m", "Prithvi-EO 2.0 600M", "Prithvi-EO-2.0-600M/resolve/main/Prithvi_EO_V2_600M.pt",
           631188480, SIZE_600M),
    CONFIG("prithvi-v2-600m-tl", "Prithvi-EO 2.0 600M, time and location",
           "Prithvi-EO-2.0-600M-TL/resolve/main/Prithvi_EO_V2_600M_TL.pt", 631188482, SIZE_600M TL),
};

/* ---- bands ---- */

/* Reflectance times 10000, by release. nir08 is the narrow near infrared: B8A of Sentinel-2, B5 of Landsat 8.
 */
static const struct {
    const char *name;
    double mean[2], std[2];
} hls[HLS_BANDS] = {
    {"blue", {775.2290211032589, 1087}, {1281.526139861424, 2248}},
    {"green", {1080.992780391705, 1342}, {1270.0297974547493, 2179}},
    {"red", {1228.5855250417867, 1433}, {1399.4802505642526, 2178}},
    {"nir08", {2497.2022620507532, 2734}, {1368.3446143747644, 1850}},
    {"swir16", {2204.2139147975554, 1958}, {1291.6764008585435, 1242}},
    {"swir22", {1610.8324823273745, 1363}, {1154.505683480695, 1049}},
};

/* Which of the six a name means; -1: none. Any near infrared serves as theirs when it is asked for by name.
 */
static int hls_band(const char *name)
{
    const char *common = trn_band_common(name);
    if (!common) common = name;
    if (!strcmp(common, "nir")) common = "nir08";
    for (int i = 0; i < HLS_BANDS; i++)
        if (!strcmp(hls[i].name, common)) return i;
    return -1;
}

/* The names of the bands in use, [TRN_MAX_IMAGE_BANDS]; 0: as they come, negative: not to be read. */
static int band_names(const trn_encoder *encoder, const char **names)
{
    if (!trn_encoder_is_auto(encoder, PRITHVI_BANDS)) {
        int count = trn_settings_list(encoder->arena, trn_encoder_text(encoder, PRITHVI_BANDS), names,
                                      TRN_MAX_IMAGE_BANDS);
        return count ? count : -1;
    }
    if (trn_encoder_int(encoder, PRITHVI_IN_CHANS) != HLS_BANDS) return 0;
    for (int i = 0; i < HLS_BANDS; i++)
        names[i] = hls[i].name;
    return HLS_BANDS;
}

/* Which channels of the stored kernel the bands are: slices of the six, or a checkpoint's own bands in order.
 */
static trn_status choose_kernel(trn_encoder *encoder, const char *const *names, int count, trn_error *err)
{
    prithvi_state *state = encoder->state;
    int64_t stored = trn_encoder_int(encoder, PRITHVI_IN_CHANS);
    bool of_six = stored == HLS_BANDS, in_order = count == stored, twice = false;
    int32_t *kernel = trn_arena_array(encoder->arena, (size_t)count, sizeof *kernel);
    if (!kernel) return trn_fail_memory(err, (size_t)count * sizeof *kernel, "bands");
    for (int i = 0; i < count; i++) {
        kernel[i] = hls_band(names[i]);
        of_six = of_six && kernel[i] >= 0;
        in_order = in_order && kernel[i] == i;
        for (int k = 0; k < i; k++)
            twice = twice || !strcmp(names[k], names[i]) || (of_six && kernel[k] == kernel[i]);
    }
    if (twice || (!of_six && count != stored))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': setting bands=%s must name the %lld bands of the checkpoint "
                        "(in_chans)%s, none of them twice",
                        encoder->spec.name, trn_encoder_text(encoder, PRITHVI_BANDS), (long long)stored,
                        stored == HLS_BANDS ? ", or some of blue, green, red, nir08, swir16, swir22" : "");
    state->kernel = of_six && !in_order ? kernel : NULL;
    return TRN_OK;
}

/* Means or deviations of the bands, given or the release's. */
static trn_status read_statistics(const trn_encoder *encoder, size_t setting, const char *const *names,
                                  double *values, size_t count, trn_error *err)
{
    bool deviation = setting == PRITHVI_STD;
    if (!trn_encoder_is_auto(encoder, setting))
        return trn_encoder_numbers(encoder, setting, deviation, values, count, err);
    int64_t release = trn_encoder_int(encoder, PRITHVI_STATISTICS);
    for (size_t i = 0; i < count; i++) {
        int band = hls_band(names[i]);
        if (band < 0)
            return trn_fail(err, TRN_ERR_ARGUMENT,
                            "encoder '%s': Prithvi has no statistics of band '%s': give mean and std, or "
                            "normalise by z-score of the scene with mean and std of 0 and 1",
                            encoder->spec.name, names[i]);
        values[i] = deviation ? hls[band].std[release] : hls[band].mean[release];
    }
    return TRN_OK;
}

static trn_status configure_bands(trn_encoder *encoder, trn_error *err)
{
    static const trn_unit units[] = {
        [UNIT_REFLECTANCE] = TRN_UNIT_REFLECTANCE, [UNIT_BYTE] = TRN_UNIT_BYTE, [UNIT_STORED] = TRN_UNIT_ANY};
    trn_encoder_spec *spec = &encoder->spec;
    const char *names[TRN_MAX_IMAGE_BANDS];
    double mean[TRN_MAX_IMAGE_BANDS], std[TRN_MAX_IMAGE_BANDS];
    int count = band_names(encoder, names);
    if (count < 0)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': setting bands=%s must be names separated by commas", spec->name,
                        trn_encoder_text(encoder, PRITHVI_BANDS));
    encoder->image_channels = count ? count : (int)trn_encoder_int(encoder, PRITHVI_IN_CHANS);
    if (!count && trn_encoder_is_auto(encoder, PRITHVI_MEAN) && trn_encoder_is_auto(encoder, PRITHVI_STD))
        return TRN_OK;
    if (!count)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': mean and std are of named bands: name them in the setting 'bands'",
                        spec->name);
    trn_status status = choose_kernel(encoder, names, count, err);
    if (status == TRN_OK) status = read_statistics(encoder, PRITHVI_MEAN, names, mean, (size_t)count, err);
    if (status == TRN_OK) status = read_statistics(encoder, PRITHVI_STD, names, std, (size_t)count, err);
    if (status != TRN_OK) return status;
    trn_encoder_band *bands = trn_arena_array(encoder->arena, (size_t)count, sizeof *bands);
    if (!bands) return trn_fail_memory(err, (size_t)count * sizeof *bands, "bands");
    int64_t unit = trn_encoder_int(encoder, PRITHVI_UNIT);
    spec->unit = units[unit];
    spec->value_scale = unit == UNIT_REFLECTANCE ? 10000 : 1;
    for (int i = 0; i < count; i++)
        bands[i] = (trn_encoder_band){names[i], -1, mean[i], std[i], spec->unit, spec->value_scale};
    spec->bands = bands;
    spec->band_count = (size_t)count;
    return TRN_OK;
}

/* ---- configuration ---- */

static trn_status check_sizes(const trn_encoder *encoder, size_t dim_setting, size_t heads_setting,
                              trn_error *err)
{
    int64_t dim = trn_encoder_int(encoder, dim_setting), heads = trn_encoder_int(encoder, heads_setting);
    if (dim % heads == 0 && dim % 16 == 0) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': %s=%lld must be a multiple of %s=%lld and of 16",
                    encoder->spec.name, encoder->family->settings[dim_setting].key, (long long)dim,
                    encoder->family->settings[heads_setting].key, (long long)heads);
}

/* The model's own pixels, and the cells that they are. A decoder has positions, too. */
static trn_status configure_grid(const trn_encoder *encoder, trn_grid_size *size, trn_error *err)
{
    prithvi_state *state = encoder->state;
    int64_t patch = trn_encoder_int(encoder, PRITHVI_PATCH);
    int64_t dim =
        TRN_MAX(trn_encoder_int(encoder, PRITHVI_DIM), trn_encoder_int(encoder, PRITHVI_DECODER_DIM));
    trn_status status = trn_encoder_image_size(encoder, PRITHVI_IMG_SIZE, patch, size, err);
    if (status != TRN_OK) return status;
    state->own = (trn_grid_size){size->h / patch, size->w / patch};
    if (state->own.h * state->own.w <= MAX_POSITION_VALUES / dim) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "encoder '%s': img_size=%s has %lld x %lld patches of %lld pixels; of %lld channels, "
                    "positions of at most %lld are computed",
                    encoder->spec.name, trn_encoder_text(encoder, PRITHVI_IMG_SIZE), (long long)state->own.h,
                    (long long)state->own.w, (long long)patch, (long long)dim,
                    (long long)(MAX_POSITION_VALUES / dim));
}

static trn_status configure(trn_encoder *encoder, trn_error *err)
{
    int64_t patch = trn_encoder_int(encoder, PRITHVI_PATCH), dim = trn_encoder_int(encoder, PRITHVI_DIM);
    int64_t tubelet = trn_encoder_int(encoder, PRITHVI_TUBELET);
    int64_t coords = trn_encoder_int(encoder, PRITHVI_COORDS);
    prithvi_state *state = trn_arena_alloc(encoder->arena, sizeof *state);
    if (!state) return trn_fail_memory(err, sizeof *state, "an encoder");
    encoder->state = state;
    trn_grid_size size;
    trn_status status = check_sizes(encoder, PRITHVI_DIM, PRITHVI_HEADS, err);
    if (status == TRN_OK)
        status = trn_encoder_check_hidden(encoder, PRITHVI_MLP_RATIO,
                                          trn_encoder_hidden(encoder, PRITHVI_MLP_RATIO, dim), err);
    if (status == TRN_OK) status = configure_grid(encoder, &size, err);
    if (status == TRN_OK)
        status = trn_encoder_out_indices(encoder, PRITHVI_OUT_INDICES,
                                         trn_encoder_int(encoder, PRITHVI_DEPTH), &state->chosen, err);
    if (status != TRN_OK) return status;
    state->time = coords == COORDS_TIME || coords == COORDS_BOTH;
    state->location = coords == COORDS_LOCATION || coords == COORDS_BOTH;
    if (state->time && tubelet > 1)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': a patch of %lld dates (tubelet) has no one time: use coords=none or "
                        "coords=location",
                        encoder->spec.name, (long long)tubelet);
    trn_encoder_spec *spec = &encoder->spec;
    spec->needs_weights = true;
    spec->side_multiple = spec->stride = (int)patch;
    spec->tile = (int)TRN_MAX(TRN_MIN(TRN_MAX(size.h, size.w), MAX_TILE) / patch * patch, patch);
    spec->channels = (int)dim;
    spec->has_cls = true;
    spec->min_dates = (int)tubelet;
    spec->max_dates = MAX_DATES;
    spec->location_values = state->location ? (int)dim : 0;
    return configure_bands(encoder, err);
}

/* A place as both sides want it: the encoder's values, then those of a decoder when it has one. */
static void encode_location(const trn_encoder *encoder, double latitude, double longitude, float *out)
{
    bool latitude_first = trn_encoder_int(encoder, PRITHVI_LOCATION_ORDER) == ORDER_LATLON;
    int dims[2] = {(int)trn_encoder_int(encoder, PRITHVI_DIM),
                   (int)trn_encoder_int(encoder, PRITHVI_DECODER_DIM)};
    int left = encoder->spec.location_values;
    for (int i = 0; i < 2 && left >= dims[i]; i++) {
        trn_sincos_f32(dims[i] / 2, (float)(latitude_first ? latitude : longitude), out);
        trn_sincos_f32(dims[i] / 2, (float)(latitude_first ? longitude : latitude), out + dims[i] / 2);
        out += dims[i];
        left -= dims[i];
    }
}

/* ---- graph ---- */

prithvi_grid prithvi_grid_of(const trn_encoder *encoder, int64_t dates, int64_t height, int64_t width)
{
    int64_t patch = trn_encoder_int(encoder, PRITHVI_PATCH),
            tubelet = trn_encoder_int(encoder, PRITHVI_TUBELET);
    prithvi_grid grid = {.t = dates / tubelet, .size = {height / patch, width / patch}};
    grid.count = grid.t * grid.size.h * grid.size.w;
    return grid;
}

trn_block_desc prithvi_block(const trn_encoder *encoder, int64_t dim, int64_t heads)
{
    return (trn_block_desc){.heads = (int)heads,
                            .hidden = trn_encoder_hidden(encoder, PRITHVI_MLP_RATIO, dim),
                            .eps = (float)trn_encoder_real(encoder, PRITHVI_EPS)};
}

/* The stored kernel [D,C,tubelet,p,p] of the bands in use. */
static trn_tensor *kernel_of(const trn_encoder *encoder, const trn_scope *scope, int64_t dim,
                             int64_t channels)
{
    const prithvi_state *state = encoder->state;
    int64_t patch = trn_encoder_int(encoder, PRITHVI_PATCH),
            tubelet = trn_encoder_int(encoder, PRITHVI_TUBELET);
    int64_t stored = trn_encoder_int(encoder, PRITHVI_IN_CHANS);
    trn_tensor *w = trn_scope_param(scope, "weight", TRN_SHAPE(dim, stored, tubelet, patch, patch));
    if (!state->kernel) return w;
    return trn_gather(scope->graph, w, 1,
                      trn_constant_int(scope->graph, "kernel.bands", TRN_SHAPE(channels), state->kernel));
}

trn_tensor *prithvi_embed(const trn_encoder *encoder, const trn_build *build, const prithvi_side *side)
{
    static const int time_inside[] = {0, 2, 1, 3, 4};
    trn_scope scope = trn_scope_enter(&side->scope, "patch_embed.proj");
    trn_graph *graph = scope.graph;
    int patch = (int)trn_encoder_int(encoder, PRITHVI_PATCH);
    int tubelet = (int)trn_encoder_int(encoder, PRITHVI_TUBELET);
    int64_t channels = trn_tensor_dim(build->x, 2);
    prithvi_grid grid = prithvi_grid_of(encoder, build->dates, build->height, build->width);
    trn_conv_desc conv = {.stride = {tubelet, patch, patch}};
    trn_tensor *w = kernel_of(encoder, &scope, side->dim, channels), *x = build->x;
    trn_tensor *b = trn_scope_param(&scope, "bias", TRN_SHAPE(side->dim));
    if (tubelet == 1) {
        w = trn_reshape(graph, w, TRN_SHAPE(side->dim, channels, patch, patch));
        x = trn_reshape(graph, x,
                        TRN_SHAPE(build->batch * build->dates, channels, build->height, build->width));
    } else {
        x = trn_permute(graph, x, time_inside);
    }
    x = trn_conv_tokens(graph, x, w, b, &conv);
    return trn_reshape(graph, x, TRN_SHAPE(build->batch, grid.count, side->dim));
}

/* Table [rows, parts * dims]: sines and cosines of the coordinates of each row. */
static void fill_plane(trn_grid_size size, int dims, float *out)
{
    for (int64_t y = 0; y < size.h; y++)
        for (int64_t x = 0; x < size.w; x++, out += 2 * dims) {
            trn_sincos(dims, (double)x, 2.0 / dims, out);
            trn_sincos(dims, (double)y, 2.0 / dims, out + dims);
        }
}

/* Positions [1,t*h*w,D]: 6/16 of the channels tell the column, 6/16 the row, 4/16 the time. What tells rows
 * and columns is of the model's own grid, and resized to the image's. */
static trn_tensor *positions(const trn_encoder *encoder, const trn_build *build, int64_t dim,
                             const prithvi_grid *grid)
{
    const prithvi_state *state = encoder->state;
    trn_graph *graph = build->scope.graph;
    int of_plane = (int)(dim / 16 * 6), of_time = (int)(dim / 16 * 4);
    int64_t cells = grid->size.h * grid->size.w, own = state->own.h * state->own.w;
    float *values = malloc((size_t)TRN_MAX(own * 2 * of_plane, grid->t * of_time) * sizeof *values);
    if (!values) return trn_graph_fail(graph, "positions: out of memory");
    fill_plane(state->own, of_plane, values);
    trn_tensor *parts[2];
    parts[0] = trn_constant(graph, "positions.plane", TRN_SHAPE(1, own, 2 * of_plane), values);
    for (int64_t t = 0; t < grid->t; t++)
        trn_sincos(of_time, (double)t, 2.0 / of_time, values + t * of_time);
    parts[1] = trn_constant(graph, "positions.time", TRN_SHAPE(grid->t, 1, of_time), values);
    free(values);
    parts[0] = trn_resize_positions(graph, parts[0], 0, state->own, grid->size, TRN_POSITIONS_CORNERS);
    parts[0] = trn_expand(graph, parts[0], TRN_SHAPE(grid->t, cells, 2 * of_plane));
    parts[1] = trn_expand(graph, parts[1], TRN_SHAPE(grid->t, cells, of_time));
    return trn_reshape(graph, trn_concat(graph, parts, 2, 2), TRN_SHAPE(1, grid->count, dim));
}

/* [1] of the strength with which a coordinate counts */
static trn_tensor *coordinate_scale(const prithvi_side *side, const char *what)
{
    trn_scope scope = trn_scope_enter(&side->scope, "%s_embed_%s", what, side->suffix);
    return trn_scope_param(&scope, "scale", TRN_SHAPE(1));
}

/* [1,t*h*w,D] from the dates of the series; NULL when they are not known */
static trn_tensor *times(const trn_encoder *encoder, const trn_build *build, const prithvi_side *side,
                         const prithvi_grid *grid)
{
    trn_graph *graph = build->scope.graph;
    trn_tensor *scale = coordinate_scale(side, "temporal");
    if (!encoder->dates) return NULL;
    int half = (int)(side->dim / 2);
    int64_t first_day = trn_encoder_int(encoder, PRITHVI_DAY_BASE);
    float *values = malloc((size_t)(grid->t * side->dim) * sizeof *values);
    if (!values) return trn_graph_fail(graph, "times: out of memory");
    for (int64_t t = 0; t < grid->t; t++) {
        const trn_date *date = &encoder->dates[t];
        trn_sincos_f32(half, (float)date->year, values + t * side->dim);
        trn_sincos_f32(half, (float)(date->day_of_year - 1 + first_day), values + t * side->dim + half);
    }
    trn_tensor *x = trn_constant(graph, "times", TRN_SHAPE(grid->t, 1, side->dim), values);
    free(values);
    x = trn_mul(graph, x, scale);
    x = trn_expand(graph, x, TRN_SHAPE(grid->t, grid->size.h * grid->size.w, side->dim));
    return trn_reshape(graph, x, TRN_SHAPE(1, grid->count, side->dim));
}

/* [B,1,D] from the places of the windows; NULL when they are not known */
static trn_tensor *places(const trn_build *build, const prithvi_side *side)
{
    trn_graph *graph = build->scope.graph;
    trn_tensor *scale = coordinate_scale(side, "location"), *x = build->options->location;
    if (!x) return NULL;
    if (trn_tensor_dim(x, 1) != side->dim) x = trn_slice(graph, x, 1, side->location, side->dim);
    x = trn_reshape(graph, x, TRN_SHAPE(build->batch, 1, side->dim));
    return trn_mul(graph, x, scale);
}

/* Tests see the positions with the class token's, which are zero. */
static void stage_positions(const trn_encoder *encoder, const trn_build *build, trn_tensor *table,
                            const prithvi_grid *grid)
{
    const prithvi_state *state = encoder->state;
    if (!build->stage) return;
    bool own = grid->size.h == state->own.h && grid->size.w == state->own.w &&
               build->dates == trn_encoder_int(encoder, PRITHVI_FRAMES);
    trn_build_stage(build, trn_pad(build->scope.graph, table, 1, 1, 0), "%s",
                    own ? "pos_embed" : "pos_embed_interp");
}

trn_tensor *prithvi_locate(const trn_encoder *encoder, const trn_build *build, const prithvi_side *side,
                           trn_tensor *x)
{
    const prithvi_state *state = encoder->state;
    trn_graph *graph = build->scope.graph;
    prithvi_grid grid = prithvi_grid_of(encoder, build->dates, build->height, build->width);
    trn_tensor *table = positions(encoder, build, side->dim, &grid);
    trn_tensor *time = state->time ? times(encoder, build, side, &grid) : NULL;
    trn_tensor *place = state->location ? places(build, side) : NULL;
    stage_positions(encoder, build, table, &grid);
    x = trn_add(graph, x, table);
    if (time) {
        trn_build_stage(build, time, "temporal_%s", side->suffix);
        x = trn_add(graph, x, time);
    }
    if (place) {
        trn_build_stage(build, place, "location_%s", side->suffix);
        x = trn_add(graph, x, place);
    }
    return x;
}

trn_tensor *prithvi_class_token(const trn_build *build, const prithvi_side *side)
{
    trn_tensor *cls = trn_scope_param(&side->scope, "cls_token", TRN_SHAPE(1, 1, side->dim));
    return trn_expand(build->scope.graph, cls, TRN_SHAPE(build->batch, 1, side->dim));
}

/* tokens [B,1+t*h*w,D] -> [B,h,w,t*D] or [B,h,w,D] */
static trn_tensor *dense_grid(const trn_encoder *encoder, const trn_build *build, trn_tensor *tokens,
                              const prithvi_grid *grid)
{
    static const int time_inside[] = {0, 2, 1, 3};
    trn_graph *graph = build->scope.graph;
    int64_t dim = trn_tensor_dim(tokens, -1), cells = grid->size.h * grid->size.w, channels = dim;
    if (grid->t == 1) return trn_tokens_grid(build, tokens, 1, grid->size);
    trn_tensor *x = trn_slice(graph, tokens, 1, 1, grid->count);
    x = trn_reshape(graph, x, TRN_SHAPE(build->batch, grid->t, cells, dim));
    if (trn_encoder_int(encoder, PRITHVI_MERGE) == MERGE_MEAN) {
        x = trn_reduce(graph, x, 1, TRN_REDUCE_MEAN, false);
    } else {
        x = trn_permute(graph, x, time_inside);
        channels = grid->t * dim;
    }
    return trn_reshape(graph, x, TRN_SHAPE(build->batch, grid->size.h, grid->size.w, channels));
}

static void give_features(const trn_encoder *encoder, const trn_build *build, trn_tensor *const *kept,
                          const prithvi_grid *grid, trn_features *out)
{
    const prithvi_state *state = encoder->state;
    trn_tensor *last = kept[state->chosen.count - 1];
    if (build->options->pool == TRN_FEATURES_DENSE) {
        for (int i = 0; i < state->chosen.count; i++)
            trn_features_grid(out, dense_grid(encoder, build, kept[i], grid), encoder->spec.stride, 0);
    } else if (build->options->pool == TRN_FEATURES_MEAN) {
        out->pooled = trn_tokens_mean(build, last, 1);
        trn_build_stage(build, out->pooled, "pooled_mean");
    } else {
        out->pooled = trn_tokens_first(build, last);
        trn_build_stage(build, out->pooled, "cls");
    }
}

static void build_prithvi(trn_encoder *encoder, const trn_build *build, trn_features *out)
{
    const prithvi_state *state = encoder->state;
    int64_t tubelet = trn_encoder_int(encoder, PRITHVI_TUBELET),
            depth = trn_encoder_int(encoder, PRITHVI_DEPTH);
    int last = state->chosen.count - 1;
    if (build->dates % tubelet) {
        trn_graph_fail(build->scope.graph, "%lld dates are no multiple of tubelet=%lld",
                       (long long)build->dates, (long long)tubelet);
        return;
    }
    prithvi_side side = {build->scope, "enc", trn_encoder_int(encoder, PRITHVI_DIM), 0};
    prithvi_grid grid = prithvi_grid_of(encoder, build->dates, build->height, build->width);
    trn_block_desc desc = prithvi_block(encoder, side.dim, trn_encoder_int(encoder, PRITHVI_HEADS));
    trn_tensor *kept[TRN_MAX_GRIDS], *parts[2];
    trn_tensor *x = prithvi_embed(encoder, build, &side);
    trn_build_stage(build, x, "patch_embed");
    parts[0] = prithvi_class_token(build, &side);
    parts[1] = prithvi_locate(encoder, build, &side, x);
    x = trn_concat(build->scope.graph, parts, 2, 1);
    trn_build_stage(build, x, "tokens_in");
    trn_build_blocks(build, &side.scope, x, depth, &desc, &state->chosen, kept);
    if (state->chosen.index[last] == depth - 1) {
        kept[last] = trn_nn_layer_norm(&side.scope, "norm", kept[last], desc.eps);
        trn_build_stage(build, kept[last], "final_norm");
    }
    give_features(encoder, build, kept, &grid, out);
}

static const char *const prefixes[] = {
    "encoder.", "_timm_module.", "_timm_module.encoder.", "backbone.", "model.encoder.", "model.", NULL};

const trn_family trn_family_prithvi = {
    .name = "prithvi",
    .settings = settings,
    .setting_count = PRITHVI_SETTINGS,
    .configs = configs,
    .config_count = TRN_COUNT(configs),
    .probe = "patch_embed.proj.weight",
    .prefixes = prefixes,
    .nodata = 1e-4f,
    .tiny = "img_size=32 patch=8 dim=48 depth=2 heads=4 coords=time+location",
    .configure = configure,
    .encode_location = encode_location,
    .build = build_prithvi,
    .masked = &prithvi_masked,
};
