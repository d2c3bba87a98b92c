/* loss.png: the curve of a run, with axes and numbers, drawn by hand: no library of fonts or lines is needed.
 */
#include "fit.h"

#include "export.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 960, HEIGHT = 540, LEFT = 84, RIGHT = 24, TOP = 44, BOTTOM = 52, GLYPH_W = 5, GLYPH_H = 7 };

bool fit_series_add(fit_series *series, int64_t step, double loss)
{
    if (!isfinite(loss)) return true;
    if (!trn_grow(&series->points, &series->capacity, series->count + 1, sizeof *series->points))
        return false;
    series->points[series->count++] = (fit_point){step, loss};
    return true;
}

void fit_curve_free(fit_curve *curve)
{
    free(curve->steps.points);
    free(curve->epochs.points);
    free(curve->valid.points);
    *curve = (fit_curve){0};
}

/* ---- pixels and letters ---- */

typedef struct colour {
    uint8_t r, g, b;
} colour;
static const colour ink = {60, 60, 60}, grid_grey = {226, 226, 226}, pale = {176, 200, 232},
                    blue = {31, 90, 180}, orange = {214, 96, 20};

static void dot(uint8_t *rgba, int x, int y, colour c)
{
    if (x < 0 || y < 0 || x >= WIDTH || y >= HEIGHT) return;
    uint8_t *p = rgba + 4 * ((size_t)y * WIDTH + (size_t)x);
    p[0] = c.r;
    p[1] = c.g;
    p[2] = c.b;
    p[3] = 255;
}

static void block(uint8_t *rgba, int x, int y, int w, int h, colour c)
{
    for (int i = 0; i < w * h; i++)
        dot(rgba, x + i % w, y + i / w, c);
}

/* Rows of a letter from the top, five pixels each, the leftmost in bit 4. */
static const struct {
    char letter;
    uint8_t rows[GLYPH_H];
} font[] = {
    {'0', {14, 17, 19, 21, 25, 17, 14}}, {'1', {4, 12, 4, 4, 4, 4, 14}},
    {'2', {14, 17, 1, 2, 4, 8, 31}},     {'3', {14, 17, 1, 6, 1, 17, 14}},
    {'4', {2, 6, 10, 18, 31, 2, 2}},     {'5', {31, 16, 30, 1, 1, 17, 14}},
    {'6', {14, 16, 16, 30, 17, 17, 14}}, {'7', {31, 1, 2, 4, 8, 8, 8}},
    {'8', {14, 17, 17, 14, 17, 17, 14}}, {'9', {14, 17, 17, 15, 1, 1, 14}},
    {'.', {0, 0, 0, 0, 0, 12, 12}},      {'-', {0, 0, 0, 14, 0, 0, 0}},
    {'+', {0, 4, 4, 31, 4, 4, 0}},       {'a', {0, 0, 14, 1, 15, 17, 15}},
    {'c', {0, 0, 15, 16, 16, 16, 15}},   {'d', {1, 1, 15, 17, 17, 17, 15}},
    {'e', {0, 0, 14, 17, 31, 16, 14}},   {'g', {0, 0, 15, 17, 15, 1, 14}},
    {'h', {16, 16, 30, 17, 17, 17, 17}}, {'i', {4, 0, 12, 4, 4, 4, 14}},
    {'l', {12, 4, 4, 4, 4, 4, 14}},      {'m', {0, 0, 26, 21, 21, 21, 21}},
    {'n', {0, 0, 30, 17, 17, 17, 17}},   {'o', {0, 0, 14, 17, 17, 17, 14}},
    {'p', {0, 0, 30, 17, 30, 16, 16}},   {'r', {0, 0, 22, 25, 16, 16, 16}},
    {'s', {0, 0, 15, 16, 14, 1, 30}},    {'t', {8, 8, 28, 8, 8, 9, 6}},
    {'v', {0, 0, 17, 17, 17, 10, 4}},
};

enum { SCALE = 2, ADVANCE = (GLYPH_W + 1) * SCALE };

static void draw_letter(uint8_t *rgba, int x, int y, char letter, colour c)
{
    for (size_t i = 0; i < TRN_COUNT(font); i++) {
        if (font[i].letter != letter) continue;
        for (int p = 0; p < GLYPH_W * GLYPH_H; p++)
            if (font[i].rows[p / GLYPH_W] >> (GLYPH_W - 1 - p % GLYPH_W) & 1)
                block(rgba, x + p % GLYPH_W * SCALE, y + p / GLYPH_W * SCALE, SCALE, SCALE, c);
    }
}

static int text_width(const char *text)
{
    return (int)strlen(text) * ADVANCE;
}

static void draw_text(uint8_t *rgba, int x, int y, const char *text, colour c)
{
    for (; *text; text++, x += ADVANCE)
        draw_letter(rgba, x, y, *text, c);
}

static void draw_line(uint8_t *rgba, double x0, double y0, double x1, double y1, int thick, colour c)
{
    int steps = (int)fmax(fabs(x1 - x0), fabs(y1 - y0)) + 1;
    for (int i = 0; i <= steps; i++) {
        double part = (double)i / steps;
        block(rgba, (int)lround(x0 + (x1 - x0) * part) - thick / 2,
              (int)lround(y0 + (y1 - y0) * part) - thick / 2, thick, thick, c);
    }
}

/* ---- axes ---- */

typedef struct axes {
    double low, high; /* losses, or their decimal logarithms */
    bool logarithmic;
    double last; /* step at the right edge */
} axes;

static void widen(const fit_series *series, double *low, double *high, double *last)
{
    for (size_t i = 0; i < series->count; i++) {
        *low = fmin(*low, series->points[i].loss);
        *high = fmax(*high, series->points[i].loss);
        *last = fmax(*last, (double)series->points[i].step);
    }
}

static axes choose_axes(const fit_curve *curve)
{
    double low = INFINITY, high = -INFINITY, last = 1;
    widen(&curve->steps, &low, &high, &last);
    widen(&curve->epochs, &low, &high, &last);
    widen(&curve->valid, &low, &high, &last);
    if (!(low <= high)) low = high = 0; /* nothing to draw */
    axes a = {.low = low, .high = high, .logarithmic = low > 0 && high / low > 30, .last = last};
    if (a.logarithmic) {
        a.low = log10(low);
        a.high = log10(high);
    } else if (a.low > 0 && a.low < a.high / 2) {
        a.low = 0;
    }
    double margin = a.high > a.low ? 0.04 * (a.high - a.low) : fmax(fabs(a.high) * 0.1, 1e-6);
    a.high += margin;
    if (a.low != 0 || a.logarithmic) a.low -= margin;
    return a;
}

static double x_of(const axes *a, double step)
{
    return LEFT + step / a->last * (WIDTH - LEFT - RIGHT);
}

/* value is a loss, or its logarithm */
static double y_of(const axes *a, double value)
{
    return HEIGHT - BOTTOM - (value - a->low) / (a->high - a->low) * (HEIGHT - TOP - BOTTOM);
}

/* A round step (1, 2 or 5 times a power of ten) that cuts `range` into about `parts`. */
static double round_step(double range, int parts)
{
    double rough = range / parts, power = pow(10, floor(log10(rough))), rest = rough / power;
    return power * (rest < 1.5 ? 1 : rest < 3.5 ? 2 : rest < 7.5 ? 5 : 10);
}

static void draw_level(uint8_t *rgba, const axes *a, double value)
{
    char text[32];
    int y = (int)lround(y_of(a, value));
    double shown = a->logarithmic ? pow(10, value) : value;
    snprintf(text, sizeof text, "%.3g", fabs(shown) < 1e-12 ? 0 : shown);
    block(rgba, LEFT, y, WIDTH - LEFT - RIGHT, 1, grid_grey);
    draw_text(rgba, LEFT - 8 - text_width(text), y - GLYPH_H, text, ink);
}

/* Powers of ten, and twice and five times them where there are few. */
static void draw_log_levels(uint8_t *rgba, const axes *a)
{
    static const double parts[] = {1, 2, 5};
    size_t count = a->high - a->low > 3.5 ? 1 : TRN_COUNT(parts);
    for (int power = (int)floor(a->low); power <= (int)ceil(a->high); power++) {
        for (size_t i = 0; i < count; i++) {
            double value = power + log10(parts[i]);
            if (value >= a->low && value <= a->high) draw_level(rgba, a, value);
        }
    }
}

static void draw_levels(uint8_t *rgba, const axes *a)
{
    double step = round_step(a->high - a->low, 6);
    for (int i = 0; (ceil(a->low / step) + i) * step <= a->high; i++)
        draw_level(rgba, a, (ceil(a->low / step) + i) * step);
}

static void draw_steps(uint8_t *rgba, const axes *a)
{
    int64_t step = TRN_MAX(llround(round_step(a->last, 7)), 1);
    for (int64_t value = 0; value <= llround(a->last); value += step) {
        char text[32];
        int x = (int)lround(x_of(a, (double)value));
        snprintf(text, sizeof text, "%lld", (long long)value);
        block(rgba, x, HEIGHT - BOTTOM, 1, 6, ink);
        draw_text(rgba, TRN_MIN(x - text_width(text) / 2, WIDTH - text_width(text)), HEIGHT - BOTTOM + 10,
                  text, ink);
    }
    draw_text(rgba, WIDTH / 2, HEIGHT - 2 * GLYPH_H - 2, "step", ink);
}

static void draw_series(uint8_t *rgba, const axes *a, const fit_series *series, int thick, bool marks,
                        colour c)
{
    double x0 = 0, y0 = 0;
    for (size_t i = 0; i < series->count; i++) {
        double loss = series->points[i].loss;
        if (a->logarithmic && !(loss > 0)) continue;
        double x = x_of(a, (double)series->points[i].step);
        double y = y_of(a, a->logarithmic ? log10(loss) : loss);
        if (x0 > 0) draw_line(rgba, x0, y0, x, y, thick, c);
        if (marks || series->count == 1) block(rgba, (int)lround(x) - 3, (int)lround(y) - 3, 6, 6, c);
        x0 = x;
        y0 = y;
    }
}

static void draw_legend(uint8_t *rgba, const fit_curve *curve)
{
    static const char training[] = "training loss", validation[] = "validation loss";
    int x = LEFT;
    block(rgba, x, 20, 22, 4, blue);
    draw_text(rgba, x + 30, 15, training, ink);
    if (!curve->valid.count) return;
    x += 60 + text_width(training);
    block(rgba, x, 20, 22, 4, orange);
    draw_text(rgba, x + 30, 15, validation, ink);
}

trn_status fit_curve_write(const fit_curve *curve, const char *path, trn_error *err)
{
    axes a = choose_axes(curve);
    size_t bytes = (size_t)WIDTH * HEIGHT * 4;
    uint8_t *rgba = malloc(bytes);
    if (!rgba) return trn_fail_memory(err, bytes, "the picture of a curve");
    memset(rgba, 255, bytes);
    if (a.logarithmic)
        draw_log_levels(rgba, &a);
    else
        draw_levels(rgba, &a);
    draw_steps(rgba, &a);
    draw_series(rgba, &a, &curve->steps, 1, false, curve->epochs.count > 1 ? pale : blue);
    draw_series(rgba, &a, &curve->epochs, 2, true, blue);
    draw_series(rgba, &a, &curve->valid, 2, true, orange);
    block(rgba, LEFT, TOP, 1, HEIGHT - TOP - BOTTOM, ink);
    block(rgba, LEFT, HEIGHT - BOTTOM, WIDTH - LEFT - RIGHT, 1, ink);
    draw_legend(rgba, curve);
    trn_status status = trn_picture_write(path, WIDTH, HEIGHT, rgba, err);
    free(rgba);
    return status;
}
