/* Building: normalised input in front of a family's graph, and the checks before it. */
#include "models_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void trn_build_stage(const trn_build *build, trn_tensor *tensor, const char *fmt, ...)
{
    if (!build->stage) return;
    char name[64];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    build->stage(build->stage_user, name, tensor);
}

void trn_features_grid(trn_features *features, trn_tensor *grid, double stride, double offset)
{
    int i = features->grid_count++;
    features->grids[i] = grid;
    features->stride[i] = stride;
    features->offset[i] = offset;
}

/* normalised = stored * a + b for channel i */
static void channel_affine(const trn_encoder *encoder, const trn_encode_options *options, size_t i, double *a,
                           double *b)
{
    double scale = options->value_scale ? options->value_scale[i] : 1;
    double offset = options->value_offset ? options->value_offset[i] : 0, mean = 0, std = 1;
    if (options->normalize == TRN_NORMALIZE_ZSCORE) {
        mean = options->mean[i];
        std = options->std[i];
    } else if (encoder->fit_channels) { /* statistics of stored values: their scale does not matter */
        mean = encoder->fit_mean[i];
        std = encoder->fit_std[i];
        scale = 1;
        offset = 0;
    } else if (encoder->spec.band_count) {
        const trn_encoder_band *band = &encoder->spec.bands[trn_encoder_channel_band(encoder, i)];
        mean = band->mean;
        std = band->std;
    }
    if (!(std > 0)) std = 1; /* a band that never changes */
    *a = scale / std;
    *b = (offset - mean) / std;
}

int trn_encoder_band_channel(const trn_encoder *encoder, int band)
{
    for (size_t i = 0; i < trn_encoder_channel_count(encoder); i++)
        if (trn_encoder_channel_band(encoder, i) == band) return (int)i;
    return -1;
}

trn_tensor *trn_build_ndvi(trn_graph *graph, trn_tensor *red, trn_tensor *nir)
{
    static const float zero;
    trn_tensor *sum = trn_add(graph, nir, red), *ratio = trn_div(graph, trn_sub(graph, nir, red), sum);
    trn_tensor *operands[] = {sum, ratio, trn_constant(graph, "zero", TRN_SHAPE(1), &zero)};
    return trn_pointwise(graph, "select", operands, 3, NULL, 0);
}

/* Pixels without data become the family's value for them. */
static trn_tensor *hide_nodata(const trn_encoder *encoder, trn_graph *graph, trn_tensor *x, trn_tensor *valid)
{
    float value = encoder->family->nodata;
    if (!x || !valid) return x;
    const int64_t *d = trn_tensor_shape(valid)->dim;
    if (trn_tensor_shape(x)->ndim == 5) valid = trn_reshape(graph, valid, TRN_SHAPE(d[0], 1, 1, d[2], d[3]));
    x = trn_mul(graph, x, valid);
    return value != 0 ? trn_add(graph, x, trn_affine(graph, valid, -value, value)) : x;
}

static trn_tensor *normalise(trn_encoder *encoder, trn_graph *graph, trn_tensor *image,
                             const trn_encode_options *options, trn_error *err)
{
    size_t channels = (size_t)trn_tensor_dim(image, -3);
    if (options->normalize == TRN_NORMALIZE_NONE) return image;
    float *tables = trn_arena_array(encoder->arena, 2 * channels, sizeof *tables);
    if (!tables) {
        trn_fail_memory(err, 2 * channels * sizeof *tables, "normalisation");
        return NULL;
    }
    bool same = true;
    for (size_t i = 0; i < channels; i++) {
        double a, b;
        channel_affine(encoder, options, i, &a, &b);
        tables[i] = (float)a;
        tables[channels + i] = (float)b;
        same = same && a == 1 && b == 0;
    }
    if (same) return image;
    trn_shape shape = TRN_SHAPE((int64_t)channels, 1, 1);
    trn_tensor *x = trn_mul(graph, image, trn_constant(graph, "normalise.scale", shape, tables));
    return trn_add(graph, x, trn_constant(graph, "normalise.offset", shape, tables + channels));
}

static trn_status check_ready(const trn_encoder *encoder, const trn_encode_options *options, trn_error *err)
{
    const char *name = encoder->spec.name;
    if (encoder->spec.needs_weights && !encoder->weights)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' needs weights, and none were loaded", name);
    if (encoder->spec.needs_fit && !encoder->fit_channels)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s' must be fitted to sample windows before it is built", name);
    if (options->pool == TRN_FEATURES_CLS && !encoder->spec.has_cls)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' has no class token: use pool=mean", name);
    if (options->valid && trn_tensor_shape(options->valid)->ndim != 4)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' wants the valid pixels as [B,1,h,w]", name);
    if (options->normalize == TRN_NORMALIZE_ZSCORE && (!options->mean || !options->std))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': normalisation by z-score needs means and deviations", name);
    return TRN_OK;
}

/* The image as the family takes it: [B,C,h,w], or [B,T,C,h,w] for encoders of series. */
static trn_tensor *image_of_family(const trn_encoder *encoder, trn_graph *graph, trn_tensor *image)
{
    const trn_shape *s = trn_tensor_shape(image);
    const int64_t *d = s->dim;
    bool series = encoder->spec.max_dates > 1;
    if (series && s->ndim == 4) return trn_reshape(graph, image, TRN_SHAPE(d[0], 1, d[1], d[2], d[3]));
    if (!series && s->ndim == 5) return trn_reshape(graph, image, TRN_SHAPE(d[0], d[2], d[3], d[4]));
    return image;
}

static trn_status check_dates(const trn_encoder *encoder, int64_t dates, trn_error *err)
{
    const char *name = encoder->spec.name;
    if (dates == trn_encoder_date_count(encoder)) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' is set up for %lld dates, and the image has %lld",
                    name, (long long)trn_encoder_date_count(encoder), (long long)dates);
}

static trn_status check_sides(const trn_encoder *encoder, int64_t height, int64_t width, trn_error *err)
{
    const trn_encoder_spec *spec = &encoder->spec;
    if (spec->square && height != width)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' wants square windows, not %lld x %lld pixels",
                        spec->name, (long long)width, (long long)height);
    if (height % spec->side_multiple == 0 && width % spec->side_multiple == 0) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "encoder '%s' wants windows whose sides are multiples of %d, not %lld x %lld", spec->name,
                    spec->side_multiple, (long long)width, (long long)height);
}

static trn_status check_image(const trn_encoder *encoder, const trn_tensor *image, trn_error *err)
{
    const char *name = encoder->spec.name;
    char text[128];
    const trn_shape *shape = trn_tensor_shape(image);
    if (shape->ndim != 4 && shape->ndim != 5)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' wants windows [B,C,h,w] or [B,T,C,h,w], not %s",
                        name, trn_shape_text(shape, text));
    size_t channels = trn_encoder_channel_count(encoder);
    if (encoder->fit_channels) channels = (size_t)encoder->fit_channels;
    int64_t has = trn_tensor_dim(image, -3);
    if (channels && (size_t)has != channels)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' reads %zu bands, and the windows have %lld",
                        name, channels, (long long)has);
    trn_status status = check_dates(encoder, shape->ndim == 5 ? shape->dim[1] : 1, err);
    return status == TRN_OK ? check_sides(encoder, trn_tensor_dim(image, -2), trn_tensor_dim(image, -1), err)
                            : status;
}

trn_status trn_build_begin(trn_encoder *encoder, trn_graph *graph, trn_tensor *image,
                           const trn_encode_options *options, trn_build *out, trn_error *err)
{
    trn_status status = trn_graph_status(graph, err);
    if (status == TRN_OK) status = check_ready(encoder, options, err);
    if (status == TRN_OK) status = check_image(encoder, image, err);
    if (status != TRN_OK) return status;
    image = image_of_family(encoder, graph, image);
    *out = (trn_build){.scope = trn_scope_root(graph, &encoder->parameters),
                       .image = image,
                       .options = options,
                       .batch = trn_tensor_dim(image, 0),
                       .dates = trn_encoder_date_count(encoder),
                       .height = trn_tensor_dim(image, -2),
                       .width = trn_tensor_dim(image, -1)};
    out->scope.training = options->training;
    out->x = normalise(encoder, graph, image, options, err);
    if (out->x) out->x = hide_nodata(encoder, graph, out->x, options->valid);
    if (out->x) return TRN_OK;
    status = trn_build_end(encoder, out, err);
    return status == TRN_OK ? TRN_ERR_MEMORY : status; /* err says of what */
}

trn_status trn_build_end(const trn_encoder *encoder, const trn_build *build, trn_error *err)
{
    trn_graph_scope(build->scope.graph, NULL);
    trn_status status = trn_graph_status(build->scope.graph, err);
    return status == TRN_OK ? TRN_OK : trn_wrap(err, "encoder '%s'", encoder->spec.name);
}

trn_status trn_encoder_build_stages(trn_encoder *encoder, trn_graph *graph, trn_tensor *image,
                                    const trn_encode_options *options, trn_features *out,
                                    void (*stage)(void *user, const char *name, trn_tensor *tensor),
                                    void *user, trn_error *err)
{
    static const trn_encode_options defaults;
    trn_build build;
    *out = (trn_features){0};
    if (encoder->masked)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s' was created with its decoder, which trn_masked_build builds",
                        encoder->spec.name);
    trn_status status = trn_build_begin(encoder, graph, image, options ? options : &defaults, &build, err);
    if (status != TRN_OK) return status;
    build.stage = stage;
    build.stage_user = user;
    encoder->family->build(encoder, &build, out);
    return trn_build_end(encoder, &build, err);
}

trn_status trn_encoder_build(trn_encoder *encoder, trn_graph *graph, trn_tensor *image,
                             const trn_encode_options *options, trn_features *out, trn_error *err)
{
    return trn_encoder_build_stages(encoder, graph, image, options, out, NULL, NULL, err);
}
