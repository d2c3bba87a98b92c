/* Principal axes of many vectors: Jacobi rotations on the covariance for few channels, subspace iteration on
 * the vectors themselves for many, where the covariance would be too large. */
#include "export_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { JACOBI_CHANNELS = 64, JACOBI_SWEEPS = 60, SUBSPACE = 8, MAX_ITERATIONS = 100 };

static void centre(float *rows, int64_t count, size_t channels, double *mean)
{
    memset(mean, 0, channels * sizeof *mean);
    for (int64_t i = 0; i < count; i++)
        for (size_t c = 0; c < channels; c++)
            mean[c] += (double)rows[(size_t)i * channels + c];
    for (size_t c = 0; c < channels; c++)
        mean[c] /= (double)count;
    for (int64_t i = 0; i < count; i++)
        for (size_t c = 0; c < channels; c++)
            rows[(size_t)i * channels + c] = (float)((double)rows[(size_t)i * channels + c] - mean[c]);
}

/* One rotation of the symmetric a [n,n] that makes a[p][q] zero; v collects the rotations in its rows. */
static void rotate(double *a, double *v, size_t n, size_t p, size_t q)
{
    double apq = a[p * n + q];
    if (apq == 0) return;
    double theta = (a[q * n + q] - a[p * n + p]) / (2 * apq);
    double t = (theta < 0 ? -1 : 1) / (fabs(theta) + sqrt(theta * theta + 1));
    double c = 1 / sqrt(t * t + 1), s = t * c;
    for (size_t k = 0; k < n; k++) {
        double x = a[k * n + p], y = a[k * n + q];
        a[k * n + p] = c * x - s * y;
        a[k * n + q] = s * x + c * y;
    }
    for (size_t k = 0; k < n; k++) {
        double x = a[p * n + k], y = a[q * n + k];
        a[p * n + k] = c * x - s * y;
        a[q * n + k] = s * x + c * y;
        x = v[p * n + k];
        y = v[q * n + k];
        v[p * n + k] = c * x - s * y;
        v[q * n + k] = s * x + c * y;
    }
}

/* a [n,n] becomes diagonal (the eigenvalues), v [n,n] its eigenvectors as rows. */
static void jacobi(double *a, double *v, size_t n)
{
    for (size_t i = 0; i < n * n; i++)
        v[i] = i % (n + 1) == 0;
    for (int sweep = 0; sweep < JACOBI_SWEEPS; sweep++) {
        double off = 0, diagonal = 0;
        for (size_t p = 0; p < n; p++)
            for (size_t q = 0; q < n; q++)
                *(p == q ? &diagonal : &off) += a[p * n + q] * a[p * n + q];
        if (off <= 1e-24 * diagonal) return;
        for (size_t p = 0; p + 1 < n; p++)
            for (size_t q = p + 1; q < n; q++)
                rotate(a, v, n, p, q);
    }
}

/* Index of the largest diagonal entry of a that is not used yet; marks it. n: none left above the floor. */
static size_t next_largest(const double *a, size_t n, bool *used)
{
    size_t best = n;
    double total = 0;
    for (size_t i = 0; i < n; i++) {
        total += fabs(a[i * n + i]);
        if (!used[i] && (best == n || a[i * n + i] > a[best * n + best])) best = i;
    }
    if (best < n && a[best * n + best] <= 1e-12 * total) best = n;
    if (best < n) used[best] = true;
    return best;
}

static void fix_sign(double *axis, size_t channels)
{
    size_t largest = 0;
    for (size_t c = 1; c < channels; c++)
        if (fabs(axis[c]) > fabs(axis[largest]) * (1 + 1e-9)) largest = c;
    for (size_t c = 0; c < channels && axis[largest] < 0; c++)
        axis[c] = c == largest ? axis[c] : -axis[c];
    axis[largest] = fabs(axis[largest]);
}

static trn_status axes_by_covariance(const float *rows, int64_t count, size_t n, int components, double *axes,
                                     trn_error *err)
{
    double *a = calloc(n * n, sizeof *a), *v = calloc(n * n, sizeof *v);
    bool used[JACOBI_CHANNELS] = {false};
    trn_status status = a && v ? TRN_OK : trn_fail_memory(err, n * n * sizeof *a, "a covariance");
    for (int64_t i = 0; i < count && status == TRN_OK; i++) {
        const float *row = rows + (size_t)i * n;
        for (size_t p = 0; p < n; p++)
            for (size_t q = 0; q <= p; q++)
                a[p * n + q] += (double)row[p] * (double)row[q];
    }
    if (status == TRN_OK) {
        for (size_t p = 0; p < n; p++)
            for (size_t q = 0; q < p; q++)
                a[q * n + p] = a[p * n + q];
        jacobi(a, v, n);
        for (int k = 0; k < components; k++) {
            size_t best = next_largest(a, n, used);
            if (best < n) memcpy(axes + (size_t)k * n, v + best * n, n * sizeof *axes);
        }
    }
    free(a);
    free(v);
    return status;
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Gram-Schmidt, each vector twice; one that vanishes stays zero. */
static void orthonormalise(double *v, size_t n)
{
    for (size_t k = 0; k < SUBSPACE; k++) {
        double *x = v + k * n, before = sqrt(dot(x, x, n));
        for (int again = 0; again < 2; again++) {
            for (size_t j = 0; j < k; j++) {
                double along = dot(x, v + j * n, n);
                for (size_t i = 0; i < n; i++)
                    x[i] -= along * v[j * n + i];
            }
        }
        double length = sqrt(dot(x, x, n));
        double scale = length > 1e-10 * before ? 1 / length : 0;
        for (size_t i = 0; i < n; i++)
            x[i] *= scale;
    }
}

static double dot_row(const float *row, const double *v, size_t n)
{
    double sum[4] = {0};
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (size_t k = 0; k < 4; k++)
            sum[k] += (double)row[i + k] * v[i + k];
    for (; i < n; i++)
        sum[0] += (double)row[i] * v[i];
    return sum[0] + sum[1] + (sum[2] + sum[3]);
}

/* next = (rows^T rows) v, and gram = v (rows^T rows) v^T. */
static void apply_scatter(const float *rows, int64_t count, size_t n, const double *v, double *next,
                          double *gram)
{
    memset(next, 0, SUBSPACE * n * sizeof *next);
    memset(gram, 0, SUBSPACE * SUBSPACE * sizeof *gram);
    for (int64_t r = 0; r < count; r++) {
        const float *row = rows + (size_t)r * n;
        double score[SUBSPACE];
        for (size_t k = 0; k < SUBSPACE; k++)
            score[k] = dot_row(row, v + k * n, n);
        for (size_t k = 0; k < SUBSPACE; k++)
            for (size_t i = 0; i < n; i++)
                next[k * n + i] += score[k] * (double)row[i];
        for (size_t k = 0; k < SUBSPACE * SUBSPACE; k++)
            gram[k] += score[k / SUBSPACE] * score[k % SUBSPACE];
    }
}

/* The Ritz vectors of the subspace v: axes, and their values' sum as a measure of progress. */
static double ritz(double *gram, const double *v, size_t n, int components, double *axes)
{
    double turn[SUBSPACE * SUBSPACE], sum = 0;
    bool used[SUBSPACE] = {false};
    jacobi(gram, turn, SUBSPACE);
    memset(axes, 0, (size_t)components * n * sizeof *axes);
    for (int k = 0; k < components; k++) {
        size_t best = next_largest(gram, SUBSPACE, used);
        if (best == SUBSPACE) break;
        sum += gram[best * SUBSPACE + best];
        for (size_t j = 0; j < SUBSPACE; j++)
            for (size_t i = 0; i < n; i++)
                axes[(size_t)k * n + i] += turn[best * SUBSPACE + j] * v[j * n + i];
    }
    return sum;
}

static trn_status axes_by_iteration(const float *rows, int64_t count, size_t n, int components, double *axes,
                                    trn_error *err)
{
    double *v = calloc(SUBSPACE * n, sizeof *v), *next = malloc(SUBSPACE * n * sizeof *next);
    trn_status status = v && next ? TRN_OK : trn_fail_memory(err, SUBSPACE * n * sizeof *v, "principal axes");
    for (size_t i = 0; i < SUBSPACE * n && status == TRN_OK; i++)
        v[i] = trn_hash_uniform(TRN_FNV_SEED, i);
    double gram[SUBSPACE * SUBSPACE], last = -1;
    for (int i = 0; i < MAX_ITERATIONS && status == TRN_OK; i++) {
        orthonormalise(v, n);
        apply_scatter(rows, count, n, v, next, gram);
        double sum = ritz(gram, v, n, components, axes);
        if (fabs(sum - last) <= 1e-9 * sum) break;
        last = sum;
        memcpy(v, next, SUBSPACE * n * sizeof *v);
    }
    free(v);
    free(next);
    return status;
}

trn_status pca_axes(float *rows, int64_t count, int channels, int components, double *mean, double *axes,
                    trn_error *err)
{
    size_t n = (size_t)channels;
    memset(axes, 0, (size_t)components * n * sizeof *axes);
    memset(mean, 0, n * sizeof *mean);
    if (!count) return TRN_OK;
    centre(rows, count, n, mean);
    trn_status status = channels <= JACOBI_CHANNELS
                            ? axes_by_covariance(rows, count, n, components, axes, err)
                            : axes_by_iteration(rows, count, n, components, axes, err);
    for (int k = 0; k < components && status == TRN_OK; k++)
        fix_sign(axes + (size_t)k * n, n);
    return status;
}
