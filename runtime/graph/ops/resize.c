/* Resizing images: the taps of each output row and column, computed in double, applied by axis_map one axis
 * after the other. Source positions are cell centres: position s of the input is the centre of cell s. */
#include "ops.h"

#include <math.h>

static const double LARGEST = 1e9; /* scale and offset */

typedef struct axis_rule {
    const trn_resize_desc *desc;
    int64_t in, out;
    double scale, offset; /* source = j * scale + offset */
    bool given;           /* scale and offset come from the caller */
} axis_rule;

static axis_rule rule_of(const trn_resize_desc *desc, int axis, int64_t in, int64_t out)
{
    axis_rule r = {.desc = desc, .in = in, .out = out};
    r.given = desc->scale[axis] != 0;
    if (r.given) {
        r.scale = desc->scale[axis];
        r.offset = desc->offset[axis];
    } else if (desc->align_corners) {
        r.scale = out > 1 ? (double)(in - 1) / (double)(out - 1) : 0;
        /* a widened filter sits half a step further, as PyTorch has it */
        r.offset = desc->antialias ? 0.5 * r.scale - 0.5 : 0;
    } else {
        r.scale = (double)in / (double)out;
        r.offset = 0.5 * r.scale - 0.5;
    }
    return r;
}

static int64_t clamp_to(double position, int64_t in)
{
    if (!(position > 0)) return 0;
    return position >= (double)(in - 1) ? in - 1 : (int64_t)position;
}

static double cubic(double x, double a)
{
    x = fabs(x);
    if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

static double filter(trn_resize_mode mode, double x)
{
    if (mode == TRN_RESIZE_BICUBIC) return cubic(x, -0.5);
    return fabs(x) < 1 ? 1 - fabs(x) : 0;
}

static double filter_support(const axis_rule *r)
{
    double half = r->desc->mode == TRN_RESIZE_BICUBIC ? 2 : 1;
    return half * TRN_MAX(fabs(r->scale), 1.0);
}

/* The most taps a row may need. */
static int64_t taps_per_row(const axis_rule *r)
{
    if (r->desc->antialias) return (int64_t)TRN_MIN(ceil(2 * filter_support(r)) + 2, (double)r->in);
    return r->desc->mode == TRN_RESIZE_BICUBIC ? 4 : r->desc->mode == TRN_RESIZE_BILINEAR ? 2 : 1;
}

static int64_t add_tap(trn_taps *taps, int64_t at, int64_t index, double weight)
{
    taps->index[at] = (int32_t)index;
    taps->weight[at] = (float)weight;
    return at + 1;
}

static int64_t nearest_row(const axis_rule *r, int64_t j, trn_taps *taps, int64_t at)
{
    if (r->given) return add_tap(taps, at, clamp_to(floor((double)j * r->scale + r->offset + 0.5), r->in), 1);
    /* single precision, so that ties fall as in PyTorch */
    float source = (float)j * ((float)r->in / (float)r->out);
    return add_tap(taps, at, clamp_to((double)floorf(source), r->in), 1);
}

static int64_t bilinear_row(const axis_rule *r, int64_t j, trn_taps *taps, int64_t at)
{
    double source = TRN_MIN(TRN_MAX((double)j * r->scale + r->offset, 0.0), (double)(r->in - 1));
    int64_t low = clamp_to(source, r->in);
    double part = source - (double)low;
    at = add_tap(taps, at, low, 1 - part);
    return part > 0 ? add_tap(taps, at, TRN_MIN(low + 1, r->in - 1), part) : at;
}

static int64_t bicubic_row(const axis_rule *r, int64_t j, trn_taps *taps, int64_t at)
{
    double source = (double)j * r->scale + r->offset;
    double low = floor(source), part = source - low;
    for (int k = -1; k <= 2; k++)
        at = add_tap(taps, at, clamp_to(low + k, r->in), cubic(part - k, -0.75));
    return at;
}

static int64_t antialias_row(const axis_rule *r, int64_t j, trn_taps *taps, int64_t at)
{
    double center = (double)j * r->scale + r->offset + 0.5, support = filter_support(r);
    double narrow = 1 / TRN_MAX(fabs(r->scale), 1.0), total = 0;
    double low = trunc(center - support + 0.5), high = trunc(center + support + 0.5);
    int64_t first = low > 0 ? clamp_to(low, r->in) : 0,
            end = high >= (double)r->in ? r->in : TRN_MAX((int64_t)high, 0);
    int64_t begin = at;
    for (int64_t i = first; i < end; i++)
        total += filter(r->desc->mode, ((double)i - center + 0.5) * narrow);
    if (!(fabs(total) > 1e-12))
        return add_tap(taps, at, clamp_to(floor(center), r->in), 1); /* wholly outside */
    for (int64_t i = first; i < end && at - begin < taps_per_row(r); i++)
        at = add_tap(taps, at, i, filter(r->desc->mode, ((double)i - center + 0.5) * narrow) / total);
    return at;
}

static int64_t add_row(const axis_rule *r, int64_t j, trn_taps *taps, int64_t at)
{
    if (r->desc->mode == TRN_RESIZE_NEAREST) return nearest_row(r, j, taps, at);
    if (r->desc->antialias) return antialias_row(r, j, taps, at);
    return r->desc->mode == TRN_RESIZE_BICUBIC ? bicubic_row(r, j, taps, at) : bilinear_row(r, j, taps, at);
}

static bool is_identity(const trn_taps *taps, int64_t in)
{
    if (taps->rows != in) return false;
    for (int64_t j = 0; j < in; j++) {
        for (int64_t t = taps->start[j]; t < taps->start[j + 1]; t++) {
            float wanted = taps->index[t] == j ? 1.0f : 0.0f;
            if (fabsf(taps->weight[t] - wanted) > 0) return false;
        }
    }
    return true;
}

static trn_tensor *resize_axis(trn_graph *graph, trn_tensor *x, int axis, const axis_rule *r)
{
    trn_taps taps;
    if (!x || !trn_taps_create(graph, r->out, r->out * taps_per_row(r), &taps)) return NULL;
    int64_t at = 0;
    for (int64_t j = 0; j < r->out; j++) {
        at = add_row(r, j, &taps, at);
        taps.start[j + 1] = (int32_t)at;
    }
    taps.count = at;
    return is_identity(&taps, r->in) ? x : trn_axis_map(graph, x, axis, &taps);
}

static bool check(trn_graph *graph, const trn_tensor *x, int axis, int out_h, int out_w,
                  const trn_resize_desc *desc)
{
    char text[128];
    const char *problem = NULL;
    bool scaled = desc->scale[0] != 0 || desc->scale[1] != 0;
    if (axis + 1 >= x->shape.ndim)
        problem = "there is no width behind the axis of the height";
    else if (out_h < 1 || out_w < 1)
        problem = "a size below 1";
    else if (desc->mode == TRN_RESIZE_NEAREST && (desc->antialias || desc->align_corners))
        problem = "nearest knows neither antialias nor align_corners";
    else if (scaled && (desc->scale[0] == 0 || desc->scale[1] == 0))
        problem = "only one of two scales is given";
    for (int i = 0; i < 2; i++) {
        if (!(fabs(desc->scale[i]) <= LARGEST && fabs(desc->offset[i]) <= LARGEST))
            problem = "a scale or an offset is not a number, or beyond 1e9";
    }
    if (!problem) return true;
    trn_graph_fail(graph, "resize2d: %s to %dx%d: %s", trn_shape_text(&x->shape, text), out_h, out_w,
                   problem);
    return false;
}

trn_tensor *trn_resize2d(trn_graph *graph, trn_tensor *x, int axis, int out_h, int out_w,
                         const trn_resize_desc *desc)
{
    if (!x || (axis = trn_axis(graph, x, axis, "resize2d")) < 0) return NULL;
    if (!check(graph, x, axis, out_h, out_w, desc)) return NULL;
    int64_t h = x->shape.dim[axis], w = x->shape.dim[axis + 1];
    axis_rule rows = rule_of(desc, 0, h, out_h), columns = rule_of(desc, 1, w, out_w);
    /* the axis that shrinks more goes first: less between the two */
    if ((double)out_h * (double)w <= (double)out_w * (double)h)
        return resize_axis(graph, resize_axis(graph, x, axis, &rows), axis + 1, &columns);
    return resize_axis(graph, resize_axis(graph, x, axis + 1, &columns), axis, &rows);
}
