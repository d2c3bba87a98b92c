/* Random convolutional features (after MOSAIKS; Coates and Ng): filters are whitened patches of the scene
 * itself.
 *
 * Fitting takes patches at seeded random places of the sample windows, standardises bands, whitens the
 * patches (ZCA with a regularised spectrum) and keeps some as filters of length 1. A window's features are
 * relu(r - bias) and relu(-r - bias) of the responses r, averaged over cells. The features of a cell see
 * patch/2 pixels around it; beyond the window's edge they see the band's mean. */
#include "models_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RCF_FEATURES, RCF_PATCH, RCF_CELL, RCF_BIAS, RCF_REGULARIZATION, RCF_SEED, RCF_SETTINGS };

static const trn_setting_rule settings[RCF_SETTINGS] = {
    [RCF_FEATURES] = {"features", TRN_SETTING_INT, "256", 2, 16384, NULL,
                      "channels; an even number, two per filter"},
    [RCF_PATCH] = {"patch", TRN_SETTING_INT, "5", 1, 15, NULL, "pixels of a filter's side; an odd number"},
    [RCF_CELL] = {"cell", TRN_SETTING_INT, "8", 1, 1024, NULL,
                  "pixels of the cells over which responses are averaged"},
    [RCF_BIAS] = {"bias", TRN_SETTING_REAL, "1", -100, 100, NULL,
                  "threshold of the responses, whose deviation is about 1"},
    [RCF_REGULARIZATION] = {"regularization", TRN_SETTING_REAL, "0.01", 1e-9, 1000, NULL,
                            "added to the variances of "
                            "whitening, over their mean"},
    [RCF_SEED] = {"seed", TRN_SETTING_INT, "0", 0, 9007199254740992.0, NULL, "of the random places"},
};

static const trn_model_config configs[] = {
    {{"rcf", "rcf", "Random convolutional features of the scene's own patches", NULL, NULL, 0, 0, NULL},
     "",
     NULL,
     NULL},
};

enum { MAX_VALUES = 1024, PATCHES_PER_VALUE = 8, MIN_PATCHES = 1024, PATCH_BLOCK = 4 };

/* What fitting gives. */
typedef struct rcf_filters {
    int channels;
    float *kernel; /* [filters, channels, patch, patch] */
    float *bias;   /* [filters] */
} rcf_filters;

static trn_status configure(trn_encoder *encoder, trn_error *err)
{
    enum { TILE = 128 };
    int cell = (int)trn_encoder_int(encoder, RCF_CELL);
    if (trn_encoder_int(encoder, RCF_FEATURES) % 2 || trn_encoder_int(encoder, RCF_PATCH) % 2 == 0)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': features=%s must be even and patch=%s odd",
                        encoder->spec.name, trn_encoder_text(encoder, RCF_FEATURES),
                        trn_encoder_text(encoder, RCF_PATCH));
    trn_encoder_spec *spec = &encoder->spec;
    spec->needs_fit = true;
    spec->unit = TRN_UNIT_ANY;
    spec->side_multiple = spec->stride = cell;
    spec->tile = (TILE + cell - 1) / cell * cell;
    spec->channels = (int)trn_encoder_int(encoder, RCF_FEATURES);
    return TRN_OK;
}

/* ---- fitting ---- */

typedef struct fitting {
    const float *windows;
    size_t count;
    int channels, side, patch;
    size_t values; /* of a patch: channels * patch * patch */
    float *mean, *std;
    uint64_t stream; /* of random places */
    uint64_t drawn;
} fitting;

static trn_status band_statistics(fitting *f, trn_error *err)
{
    size_t pixels = (size_t)f->side * (size_t)f->side;
    for (int c = 0; c < f->channels; c++) {
        double sum = 0, squares = 0, n = 0;
        for (int pass = 0; pass < 2; pass++) {
            double mean = n > 0 ? sum / n : 0;
            for (size_t i = 0; i < f->count * pixels; i++) {
                size_t at = (i / pixels * (size_t)f->channels + (size_t)c) * pixels + i % pixels;
                double value = (double)f->windows[at], away = value - mean;
                if (!isfinite(value)) continue;
                if (pass) squares += away * away;
                if (!pass) sum += value;
                if (!pass) n++;
            }
        }
        if (n < 1)
            return trn_fail(err, TRN_ERR_ARGUMENT, "band %d of the samples has no finite value", c + 1);
        f->mean[c] = (float)(sum / n);
        f->std[c] = squares > 0 ? (float)sqrt(squares / n) : 1;
    }
    return TRN_OK;
}

static size_t draw(fitting *f, size_t below)
{
    double u = (trn_hash_uniform(f->stream, f->drawn++) + 1) / 2;
    return TRN_MIN((size_t)(u * (double)below), below - 1);
}

/* A patch at a random place, standardised; false when it holds what is no number. */
static bool draw_patch(fitting *f, double *out)
{
    size_t window = draw(f, f->count), range = (size_t)f->side - (size_t)f->patch + 1;
    size_t y0 = draw(f, range), x0 = draw(f, range), side = (size_t)f->side, patch = (size_t)f->patch;
    for (size_t i = 0; i < f->values; i++) {
        size_t c = i / (patch * patch), y = y0 + i / patch % patch, x = x0 + i % patch;
        float value = f->windows[((window * (size_t)f->channels + c) * side + y) * side + x];
        out[i] = ((double)value - (double)f->mean[c]) / (double)f->std[c];
        if (!isfinite(out[i])) return false;
    }
    return true;
}

/* Draws until a finite patch comes. */
static bool draw_finite(fitting *f, double *out)
{
    enum { TRIES = 200 };
    for (int i = 0; i < TRIES; i++)
        if (draw_patch(f, out)) return true;
    return false;
}

/* Adds the products of a block of patches [PATCH_BLOCK,d] to the lower half of sums [d,d]. */
static void add_products(size_t d, const double *patches, double *sums)
{
    const double *a = patches, *b = a + d, *c = b + d, *e = c + d;
    for (size_t i = 0; i < d; i++) {
        double ai = a[i], bi = b[i], ci = c[i], ei = e[i], *row = sums + i * d;
        for (size_t j = 0; j <= i; j++)
            row[j] = row[j] + ai * a[j] + bi * b[j] + ci * c[j] + ei * e[j];
    }
}

/* Mean [d] and covariance [d,d] of random patches; patches [PATCH_BLOCK,d] is room. */
static trn_status patch_statistics(fitting *f, double *patches, double *mean, double *covariance,
                                   trn_error *err)
{
    size_t d = f->values, n = TRN_MAX((size_t)MIN_PATCHES, PATCHES_PER_VALUE * d);
    memset(mean, 0, d * sizeof *mean);
    memset(covariance, 0, d * d * sizeof *covariance);
    for (size_t k = 0; k < n; k += PATCH_BLOCK) {
        for (size_t b = 0; b < PATCH_BLOCK; b++) {
            if (!draw_finite(f, patches + b * d))
                return trn_fail(err, TRN_ERR_ARGUMENT,
                                "the samples are almost all without data: choose others");
            for (size_t i = 0; i < d; i++)
                mean[i] += patches[b * d + i] / (double)n;
        }
        add_products(d, patches, covariance);
    }
    for (size_t i = 0; i < d; i++)
        for (size_t j = 0; j <= i; j++)
            covariance[j * d + i] = covariance[i * d + j] =
                covariance[i * d + j] / (double)n - mean[i] * mean[j];
    return TRN_OK;
}

/* q = (1 - beta v v') q, for a v that is zero before `first`; s [n] is room. Row by row, so that neighbours
 * in memory are worked on together. */
static void reflect_rows(size_t n, size_t first, double *q, const double *v, double beta, double *s)
{
    memset(s, 0, n * sizeof *s);
    for (size_t j = first; j < n; j++)
        for (size_t i = 0; i < n; i++)
            s[i] += q[j * n + i] * v[j];
    for (size_t j = first; j < n; j++)
        for (size_t i = 0; i < n; i++)
            q[j * n + i] -= beta * s[i] * v[j];
}

/* The Householder step of a symmetric matrix: a [n,n] -> tridiagonal with diagonal and beside; the columns of
 * the orthogonal matrix, which are the rows of q, take the reflections. */
static void tridiagonalise(size_t n, double *a, double *q, double *diagonal, double *beside, double *v,
                           double *p)
{
    for (size_t k = 0; k + 2 < n; k++) {
        double norm = 0, dot = 0;
        for (size_t i = k + 1; i < n; i++)
            norm += a[i * n + k] * a[i * n + k];
        norm = sqrt(norm);
        if (norm == 0) continue;
        double alpha = a[(k + 1) * n + k] > 0 ? -norm : norm, length = 0;
        for (size_t i = 0; i < n; i++)
            v[i] = i > k ? a[i * n + k] : 0;
        v[k + 1] -= alpha;
        for (size_t i = k + 1; i < n; i++)
            length += v[i] * v[i];
        if (length == 0) continue;
        double beta = 2 / length;
        for (size_t i = k; i < n; i++) { /* p = beta a v */
            p[i] = 0;
            for (size_t j = k + 1; j < n; j++)
                p[i] += beta * a[i * n + j] * v[j];
            dot += p[i] * v[i];
        }
        for (size_t i = k; i < n; i++)
            p[i] -= 0.5 * beta * dot * v[i];
        for (size_t i = k; i < n; i++)
            for (size_t j = k; j < n; j++)
                a[i * n + j] -= v[i] * p[j] + p[i] * v[j];
        reflect_rows(n, k + 1, q, v, beta, p);
    }
    for (size_t i = 0; i < n; i++) {
        diagonal[i] = a[i * n + i];
        beside[i] = i + 1 < n ? a[(i + 1) * n + i] : 0;
    }
}

/* Rotates rows k and k+1 of q. */
static void rotate_rows(size_t n, double *q, size_t k, double c, double s)
{
    double *one = q + k * n, *two = one + n;
    for (size_t i = 0; i < n; i++) {
        double left = one[i], right = two[i];
        one[i] = c * left + s * right;
        two[i] = c * right - s * left;
    }
}

/* One implicit QR sweep with Wilkinson's shift over rows lo..hi. */
static void qr_sweep(size_t n, double *d, double *e, double *q, size_t lo, size_t hi)
{
    double half = (d[hi - 1] - d[hi]) / 2, b = e[hi - 1];
    double shift = d[hi] - b * b / (half + copysign(hypot(half, b), half));
    double x = d[lo] - shift, z = e[lo];
    for (size_t k = lo; k < hi; k++) {
        double r = hypot(x, z), c = r > 0 ? x / r : 1, s = r > 0 ? z / r : 0;
        if (k > lo) e[k - 1] = r;
        double d0 = d[k], d1 = d[k + 1], e0 = e[k];
        d[k] = c * c * d0 + 2 * c * s * e0 + s * s * d1;
        d[k + 1] = s * s * d0 - 2 * c * s * e0 + c * c * d1;
        e[k] = c * s * (d1 - d0) + (c * c - s * s) * e0;
        x = e[k];
        if (k + 1 < hi) {
            z = s * e[k + 1];
            e[k + 1] *= c;
        }
        rotate_rows(n, q, k, c, s);
    }
}

/* Eigenvalues (diagonal) and vectors (rows of q) of a tridiagonal matrix; false when it does not converge.
 */
static bool diagonalise(size_t n, double *d, double *e, double *q)
{
    enum { SWEEPS = 60 };
    size_t budget = SWEEPS * n, hi = n - 1;
    while (hi > 0) {
        size_t lo = hi;
        while (lo > 0 && fabs(e[lo - 1]) > 1e-15 * (fabs(d[lo - 1]) + fabs(d[lo])))
            lo--;
        if (lo > 0) e[lo - 1] = 0;
        if (lo == hi) {
            hi--;
            continue;
        }
        if (budget-- == 0) return false;
        qr_sweep(n, d, e, q, lo, hi);
    }
    return true;
}

typedef struct whitening {
    double *memory;
    double *a, *q, *mean, *root, *beside, *one, *two; /* [d,d] twice, [d] five times */
    size_t d;
} whitening;

static bool whitening_open(whitening *w, size_t d)
{
    w->d = d;
    w->memory = calloc(2 * d * d + 5 * d, sizeof *w->memory);
    if (!w->memory) return false;
    w->a = w->memory;
    w->q = w->a + d * d;
    w->mean = w->q + d * d;
    w->root = w->mean + d;
    w->beside = w->root + d;
    w->one = w->beside + d;
    w->two = w->one + d;
    return true;
}

/* a becomes (covariance + r)^-1/2 */
static trn_status whitening_invert(whitening *w, double regularisation, trn_error *err)
{
    size_t d = w->d;
    double total = 0;
    for (size_t i = 0; i < d; i++) {
        w->q[i * d + i] = 1;
        total += w->a[i * d + i];
    }
    double added = regularisation * (total > 0 ? total / (double)d : 1);
    tridiagonalise(d, w->a, w->q, w->root, w->beside, w->one, w->two);
    if (!diagonalise(d, w->root, w->beside, w->q))
        return trn_fail(err, TRN_ERR_INTERNAL, "whitening did not converge on %zu values", d);
    for (size_t k = 0; k < d; k++)
        w->root[k] = 1 / sqrt(TRN_MAX(w->root[k], 0) + added);
    memset(w->a, 0, d * d * sizeof *w->a);
    for (size_t i = 0; i < d; i++) {
        for (size_t k = 0; k < d; k++) {
            double scaled = w->q[k * d + i] * w->root[k];
            for (size_t j = 0; j < d; j++)
                w->a[i * d + j] += scaled * w->q[k * d + j];
        }
    }
    return TRN_OK;
}

/* out = matrix (x - mean), for the matrix is symmetric; mean may be NULL */
static void whiten(const whitening *w, const double *x, const double *mean, double *out)
{
    memset(out, 0, w->d * sizeof *out);
    for (size_t j = 0; j < w->d; j++) {
        double value = x[j] - (mean ? mean[j] : 0);
        for (size_t i = 0; i < w->d; i++)
            out[i] += w->a[j * w->d + i] * value;
    }
}

/* Filter k: a whitened patch of length 1, and whitening of the input put into it as well. */
static bool make_filter(fitting *f, const whitening *w, double *patch, rcf_filters *filters, size_t k)
{
    enum { TRIES = 50 };
    double length = 0;
    for (int i = 0; i < TRIES && length < 1e-6;
         i++) { /* a patch like the average one has no shape: draw another */
        if (!draw_finite(f, patch)) return false;
        whiten(w, patch, w->mean, w->one);
        length = 0;
        for (size_t j = 0; j < w->d; j++)
            length += w->one[j] * w->one[j];
        length = sqrt(length);
    }
    if (length < 1e-6) return false;
    for (size_t j = 0; j < w->d; j++)
        w->one[j] /= length;
    whiten(w, w->one, NULL, w->two);
    double offset = 0;
    for (size_t j = 0; j < w->d; j++) {
        filters->kernel[k * w->d + j] = (float)w->two[j];
        offset -= w->two[j] * w->mean[j];
    }
    filters->bias[k] = (float)offset;
    return true;
}

static trn_status fit_filters(trn_encoder *encoder, fitting *f, rcf_filters *filters, trn_error *err)
{
    whitening w = {0};
    size_t count = (size_t)trn_encoder_int(encoder, RCF_FEATURES) / 2;
    double *patch = calloc(PATCH_BLOCK * f->values, sizeof *patch);
    trn_status status = TRN_OK;
    if (!patch || !whitening_open(&w, f->values))
        status = trn_fail_memory(err, f->values * f->values * sizeof *patch, "whitening");
    if (status == TRN_OK) status = patch_statistics(f, patch, w.mean, w.a, err);
    if (status == TRN_OK) status = whitening_invert(&w, trn_encoder_real(encoder, RCF_REGULARIZATION), err);
    for (size_t k = 0; k < count && status == TRN_OK; k++)
        if (!make_filter(f, &w, patch, filters, k))
            status = trn_fail(err, TRN_ERR_ARGUMENT,
                              "the samples are all alike, or without data: no filters to learn");
    free(w.memory);
    free(patch);
    return status;
}

static trn_status fit(trn_encoder *encoder, const float *windows, size_t count, int channels, int side,
                      trn_error *err)
{
    int patch = (int)trn_encoder_int(encoder, RCF_PATCH);
    fitting f = {.windows = windows, .count = count, .channels = channels, .side = side, .patch = patch};
    if (side < patch)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "sample windows of %d pixels are smaller than a filter (patch=%d)", side, patch);
    f.values = (size_t)channels * (size_t)patch * (size_t)patch;
    if (f.values > MAX_VALUES)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "%d bands with patch=%d make filters of %zu values, more than %d: use a "
                        "smaller patch or fewer bands",
                        channels, patch, f.values, MAX_VALUES);
    uint64_t seed = (uint64_t)trn_encoder_int(encoder, RCF_SEED);
    f.stream = trn_fnv1a64(&seed, sizeof seed, trn_fnv1a64("rcf", 3, TRN_FNV_SEED));
    size_t filter_count = (size_t)trn_encoder_int(encoder, RCF_FEATURES) / 2;
    rcf_filters *filters = trn_arena_alloc(encoder->arena, sizeof *filters);
    f.mean = trn_arena_array(encoder->arena, (size_t)channels, sizeof *f.mean);
    f.std = trn_arena_array(encoder->arena, (size_t)channels, sizeof *f.std);
    if (filters) filters->kernel = trn_arena_array(encoder->arena, filter_count * f.values, sizeof(float));
    if (filters) filters->bias = trn_arena_array(encoder->arena, filter_count, sizeof(float));
    if (!filters || !f.mean || !f.std || !filters->kernel || !filters->bias)
        return trn_fail_memory(err, filter_count * f.values * sizeof(float), "filters");
    filters->channels = channels;
    trn_status status = band_statistics(&f, err);
    if (status == TRN_OK) status = fit_filters(encoder, &f, filters, err);
    if (status != TRN_OK) return status;
    encoder->state = filters;
    encoder->fit_mean = f.mean;
    encoder->fit_std = f.std;
    encoder->fit_channels = channels;
    return TRN_OK;
}

/* ---- graph ---- */

/* relu(sign*r - bias) averaged over cells: [B,h,w,F] -> [B,h/cell,w/cell,F] */
static trn_tensor *half(const trn_encoder *encoder, trn_graph *graph, trn_tensor *responses, float sign)
{
    int cell = (int)trn_encoder_int(encoder, RCF_CELL);
    trn_tensor *x = trn_affine(graph, responses, sign, (float)-trn_encoder_real(encoder, RCF_BIAS));
    x = trn_unary(graph, "relu", x);
    return cell > 1 ? trn_pool2d(graph, x, 1, TRN_POOL_MEAN, cell, cell) : x;
}

static void build_rcf(trn_encoder *encoder, const trn_build *build, trn_features *out)
{
    trn_graph *graph = build->scope.graph;
    const rcf_filters *filters = encoder->state;
    int patch = (int)trn_encoder_int(encoder, RCF_PATCH), cell = (int)trn_encoder_int(encoder, RCF_CELL);
    int64_t features = trn_encoder_int(encoder, RCF_FEATURES);
    trn_graph_scope(graph, "rcf.");
    trn_shape shape = TRN_SHAPE(features / 2, filters->channels, patch, patch);
    trn_tensor *kernel = trn_constant(graph, "rcf.kernel", shape, filters->kernel);
    trn_tensor *bias = trn_constant(graph, "rcf.bias", TRN_SHAPE(features / 2), filters->bias);
    trn_conv_desc conv = {.padding = {0, patch / 2, patch / 2}};
    trn_tensor *responses = trn_conv_tokens(graph, build->x, kernel, bias, &conv);
    responses = trn_reshape(
        graph, responses,
        TRN_SHAPE(build->batch, trn_tensor_dim(build->x, 2), trn_tensor_dim(build->x, 3), features / 2));
    trn_tensor *halves[] = {half(encoder, graph, responses, 1), half(encoder, graph, responses, -1)};
    trn_tensor *x = trn_concat(graph, halves, 2, 3);
    if (build->options->pool == TRN_FEATURES_DENSE) {
        trn_features_grid(out, x, cell, 0);
        return;
    }
    x = trn_reshape(graph, x, TRN_SHAPE(build->batch, -1, features));
    out->pooled = trn_reduce(graph, x, 1, TRN_REDUCE_MEAN, false);
}

const trn_family trn_family_rcf = {
    .name = "rcf",
    .settings = settings,
    .setting_count = RCF_SETTINGS,
    .configs = configs,
    .config_count = TRN_COUNT(configs),
    .tiny = "features=16 patch=3 cell=4",
    .configure = configure,
    .fit = fit,
    .build = build_rcf,
};
