/* L-BFGS in double: directions from the last steps, strong Wolfe line search. */
#include "probe_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HISTORY = 10, LINE_TRIES = 30 };
static const double DECREASE = 1e-4, CURVATURE = 0.9, GROWTH = 10;

typedef struct lbfgs {
    lbfgs_function function;
    void *user;
    size_t n;
    const lbfgs_options *options;
    double *memory; /* all vectors below */
    double *x, *gradient, *direction, *next_x, *next_gradient;
    double *steps, *changes; /* [HISTORY, n] rings of differences of x and of gradients */
    double curvature[HISTORY];
    int count, newest;
    double value;
} lbfgs;

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void add_scaled(double *to, double factor, const double *from, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] += factor * from[i];
}

static double largest(const double *values, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = TRN_MAX(most, fabs(values[i]));
    return most;
}

/* ---- directions ---- */

static void remember(lbfgs *s)
{
    int at = s->count ? (s->newest + 1) % HISTORY : 0;
    double *step = s->steps + (size_t)at * s->n, *change = s->changes + (size_t)at * s->n;
    if (s->count == HISTORY) s->count--; /* the oldest pair makes room, whether this one is kept or not */
    for (size_t i = 0; i < s->n; i++) {
        step[i] = s->next_x[i] - s->x[i];
        change[i] = s->next_gradient[i] - s->gradient[i];
    }
    double curvature = dot(step, change, s->n);
    /* rounding: such a pair would make directions that do not go down */
    if (!(curvature > 1e-10 * dot(change, change, s->n))) return;
    s->curvature[at] = curvature;
    s->newest = at;
    s->count++;
}

/* -H g by the two loops over what is remembered. */
static void choose_direction(lbfgs *s)
{
    double alpha[HISTORY], *q = s->direction;
    for (size_t i = 0; i < s->n; i++)
        q[i] = -s->gradient[i];
    for (int k = 0; k < s->count; k++) {
        int at = (s->newest - k + HISTORY) % HISTORY;
        alpha[at] = dot(s->steps + (size_t)at * s->n, q, s->n) / s->curvature[at];
        add_scaled(q, -alpha[at], s->changes + (size_t)at * s->n, s->n);
    }
    if (!s->count) return;
    const double *change = s->changes + (size_t)s->newest * s->n;
    double scale = s->curvature[s->newest] / dot(change, change, s->n);
    for (size_t i = 0; i < s->n; i++)
        q[i] *= scale;
    for (int k = s->count - 1; k >= 0; k--) {
        int at = (s->newest - k + HISTORY) % HISTORY;
        double beta = dot(s->changes + (size_t)at * s->n, q, s->n) / s->curvature[at];
        add_scaled(q, alpha[at] - beta, s->steps + (size_t)at * s->n, s->n);
    }
}

/* ---- steps ---- */

typedef struct line_point {
    double at, value, slope;
} line_point;

static trn_status try_step(lbfgs *s, double at, line_point *out, trn_error *err)
{
    memcpy(s->next_x, s->x, s->n * sizeof *s->x);
    add_scaled(s->next_x, at, s->direction, s->n);
    *out = (line_point){.at = at};
    trn_status status = s->function(s->user, s->next_x, &out->value, s->next_gradient, err);
    out->slope = dot(s->next_gradient, s->direction, s->n);
    return status;
}

/* Where the slope is zero if it changes in a straight line between the ends, kept off the ends. */
static double between(const line_point *low, const line_point *high)
{
    double width = high->at - low->at, rise = high->slope - low->slope, part = 0.5;
    if (isfinite(rise) && rise > 0) part = -low->slope / rise;
    return low->at + TRN_MIN(TRN_MAX(part, 0.1), 0.9) * width;
}

static double beyond(const line_point *from, const line_point *to)
{
    double rise = to->slope - from->slope, next = to->at * GROWTH;
    if (rise > 0) next = to->at - to->slope * (to->at - from->at) / rise;
    return TRN_MIN(TRN_MAX(next, 2 * to->at), GROWTH * to->at);
}

/* Ends at next_x with *found, or without when rounding hides every step that goes down far enough. */
static trn_status search_line(lbfgs *s, double first, line_point *point, bool *found, trn_error *err)
{
    line_point start = {.value = s->value, .slope = dot(s->gradient, s->direction, s->n)};
    line_point low = start, high = {.at = INFINITY};
    double at = first, slack = s->options->noise * fabs(start.value);
    *found = false;
    for (int i = 0; i < LINE_TRIES && start.slope < 0; i++) {
        trn_status status = try_step(s, at, point, err);
        if (status != TRN_OK) return status;
        bool too_high = !(point->value <= start.value + DECREASE * at * start.slope + slack);
        if (!too_high && fabs(point->slope) <= -CURVATURE * start.slope) {
            *found = true;
            return TRN_OK;
        }
        if (too_high || point->slope > 0) {
            high = *point;
            at = between(&low, &high);
            continue;
        }
        at = isfinite(high.at) ? between(point, &high) : beyond(&low, point);
        low = *point;
    }
    return TRN_OK;
}

/* One step; *stuck when none was found. */
static trn_status advance(lbfgs *s, bool *stuck, trn_error *err)
{
    line_point point;
    bool found;
    choose_direction(s);
    double first = s->count ? 1 : TRN_MIN(1, 1 / sqrt(dot(s->gradient, s->gradient, s->n)));
    trn_status status = search_line(s, first, &point, &found, err);
    *stuck = !found && !s->count;
    if (status != TRN_OK || *stuck) return status;
    if (!found) { /* once more, straight down */
        s->count = 0;
        return TRN_OK;
    }
    remember(s);
    double *x = s->x, *gradient = s->gradient;
    s->x = s->next_x;
    s->gradient = s->next_gradient;
    s->next_x = x;
    s->next_gradient = gradient;
    s->value = point.value;
    return TRN_OK;
}

static trn_status open_memory(lbfgs *s, trn_error *err)
{
    size_t vectors = 5 + 2 * HISTORY, count;
    if (trn_mul_size(s->n, vectors, &count)) s->memory = calloc(count, sizeof *s->memory);
    if (!s->memory) return trn_fail_memory(err, s->n * vectors * sizeof *s->memory, "L-BFGS");
    double **places[] = {&s->x, &s->gradient, &s->direction, &s->next_x, &s->next_gradient};
    for (size_t i = 0; i < TRN_COUNT(places); i++)
        *places[i] = s->memory + i * s->n;
    s->steps = s->memory + TRN_COUNT(places) * s->n;
    s->changes = s->steps + HISTORY * s->n;
    return TRN_OK;
}

trn_status learn_lbfgs(lbfgs_function function, void *user, size_t n, double *x, const lbfgs_options *options,
                       lbfgs_result *result, trn_error *err)
{
    lbfgs s = {.function = function, .user = user, .n = n, .options = options};
    *result = (lbfgs_result){0};
    trn_status status = open_memory(&s, err);
    if (status != TRN_OK) return status;
    memcpy(s.x, x, n * sizeof *x);
    status = function(user, s.x, &s.value, s.gradient, err);
    if (status == TRN_OK && !isfinite(s.value))
        status = trn_fail(err, TRN_ERR_UNSUPPORTED, "L-BFGS: the function is not finite where it begins");
    bool stuck = false;
    while (status == TRN_OK && !stuck && result->iterations < options->max_iterations) {
        result->converged = largest(s.gradient, n) <= options->tolerance;
        if (result->converged) break;
        status = advance(&s, &stuck, err);
        result->iterations += !stuck;
    }
    result->converged = largest(s.gradient, n) <= options->tolerance;
    result->value = s.value;
    memcpy(x, s.x, n * sizeof *x);
    free(s.memory);
    return status;
}
