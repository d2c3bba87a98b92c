/* What the operators of this folder share: filling steps, rows, windows, and builders that only other
 * operators need. Private to the room. */
#ifndef TRN_GRAPH_OPS_H
#define TRN_GRAPH_OPS_H

#include "op.h"

/* ---- filling a step: operands and scalars in the order of the shader's BUFFERS and SCALARS ---- */

void trn_step_read(trn_step *step, trn_tensor *tensor);
void trn_step_write(trn_step *step, trn_tensor *tensor);
void trn_step_uint(trn_step *step, int64_t value);
void trn_step_float(trn_step *step, double value);
/* The magic numbers of up to 6 divisors in [1, 2^31), then their shifts in one word, as divide.glsl wants
 * them. */
void trn_step_divisors(trn_step *step, const int64_t *divisors, int count);
/* One invocation per element of a kernel whose work groups have 128, then the step is handed over. */
trn_status trn_step_elements(trn_lower *lower, trn_step *step, int64_t count, trn_error *err);

/* Kernels that give a work group to each row (row.glsl): "uniform" and "lanes", one subgroup and no shared
 * memory, for CPU drivers; "group", 32 or 128 invocations and shared memory. `passes` loops over the row run
 * per invocation.
 */
enum { TRN_ROW_VARIANTS = 3 };
extern const trn_variant trn_row_variants[TRN_ROW_VARIANTS];
trn_status trn_step_rows(trn_lower *lower, trn_step *step, int64_t rows, int64_t columns, int passes,
                         trn_error *err);

/* x [batch, rows, columns] as [batch, columns, rows] in memory of this node only, by one more step. NULL with
 * err set. */
trn_tensor *trn_lower_transposed(trn_lower *lower, trn_tensor *x, int64_t batch, int64_t rows,
                                 int64_t columns, trn_error *err);

/* For `applies` of a variant: keeps the reason in why_not; true when there is none. */
bool trn_variant_say(char why_not[128], const char *reason);
/* Whether kernels of wide loads and shuffles (wide.glsl) can run: CPU drivers with buffer addresses. */
bool trn_wide_lanes_apply(const trn_gpu *gpu, char why_not[128]);
/* Whether those of uniform loads (lanes.glsl) can: of these, the drivers that find such loads by themselves.
 */
bool trn_uniform_loads_apply(const trn_gpu *gpu, char why_not[128]);

/* The values of a tensor that is a constant known while the graph is built, else NULL. */
const void *trn_constant_values(const trn_tensor *tensor);

/* x as TRN_F16, cast once for all that ask (cast.c). */
trn_tensor *trn_half_of(trn_graph *graph, trn_tensor *x);

/* Whether x is there and holds floats; else the graph has failed. */
bool trn_is_float(trn_graph *graph, const trn_tensor *x, const char *op);

/* ---- sliding windows (unfold.c, fold.c) ---- */

typedef struct trn_window {
    int channels;
    int in[3], kernel[3], stride[3], padding[3], out[3]; /* t, y, x; out = windows per axis */
} trn_window;
/* Fills window from a kernel over [.., C, t, h, w]; false after failing the graph (op: its name for the
 * message). */
bool trn_window_make(trn_graph *graph, const char *op, const int64_t channels_and_size[4],
                     const int64_t kernel[3], const int stride[3], const int padding[3], trn_window *window);
/* x [B,C,t,h,w] -> [B, windows, C*kt*kh*kw]; positions in the padding are 0 */
trn_tensor *trn_unfold(trn_graph *graph, trn_tensor *x, const trn_window *window);
/* x [B, windows, C*kt*kh*kw] -> [B,C,t,h,w]: each value the sum of its copies */
trn_tensor *trn_fold(trn_graph *graph, trn_tensor *x, const trn_window *window);
void trn_window_describe(const trn_window *window, trn_text *out);
void trn_window_scalars(trn_step *step, const trn_window *window);

/* ---- a sparse matrix along one axis (axis_map.c) ---- */

/* Row j of the result is the sum over t in [start[j], start[j+1]) of weight[t] * input row index[t]. */
typedef struct trn_taps {
    int64_t rows, count; /* count = start[rows] >= 1 */
    int32_t *start, *index;
    float *weight;
} trn_taps;
/* Tables in the graph's arena; false (graph failed) when out of memory. */
bool trn_taps_create(trn_graph *graph, int64_t rows, int64_t count, trn_taps *taps);
trn_tensor *trn_axis_map(trn_graph *graph, trn_tensor *x, int axis, const trn_taps *taps);

#endif
