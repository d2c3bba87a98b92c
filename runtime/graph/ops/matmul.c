/* matmul: the matrix product, batched or with one right-hand side for all; linear layers are made of it.
 * Bias, activation and residual are pointwise operators that end its kernels. */
#include "graph_internal.h"
#include "matmul.h"

#include <string.h>

extern const trn_op trn_op_matmul;

const trn_matmul_attr *trn_matmul_attr_of(const trn_node *node)
{
    return (const void *)node->attr;
}

/* ---- building ---- */

/* Of float16 by way of float32, which moves: the values stay the same. */
static trn_tensor *swap_last(trn_graph *graph, trn_tensor *x)
{
    x = trn_cast(graph, x, TRN_F32);
    if (!x) return NULL;
    int order[TRN_MAX_DIMS], n = x->shape.ndim;
    for (int i = 0; i < n; i++)
        order[i] = i;
    order[n - 1] = n - 2;
    order[n - 2] = n - 1;
    return trn_permute(graph, x, order);
}

/* Whether the product of these is of float16. */
static bool is_half(const trn_graph *graph, const trn_tensor *a, const trn_tensor *b)
{
    return a->type == TRN_F16 || b->type == TRN_F16 || (graph->mixed && a->type == TRN_F32);
}

static bool is_real(const trn_tensor *x)
{
    return x->type == TRN_F32 || x->type == TRN_F16;
}

static trn_tensor *add_product(trn_graph *graph, trn_tensor *a, trn_tensor *b, trn_shape out,
                               const trn_matmul_attr *attr)
{
    if (is_half(graph, a, b)) {
        a = trn_half_of(graph, a);
        b = trn_half_of(graph, b);
    }
    if (!a || !b) return NULL;
    trn_node *node = trn_node_add(graph, &trn_op_matmul, (trn_tensor *[]){a, b}, 2, TRN_F32, out);
    if (!node) return NULL;
    *(trn_matmul_attr *)(void *)node->attr = *attr;
    return node->out;
}

trn_tensor *trn_linear(trn_graph *graph, trn_tensor *x, trn_tensor *w, trn_tensor *b)
{
    if (!x || !w) return NULL;
    int64_t k = trn_tensor_dim(x, -1);
    if (w->shape.ndim != 2 || w->shape.dim[1] != k || !is_real(x) || !is_real(w)) {
        char wide[128], weights[128];
        return trn_graph_fail(graph, "linear: x %s does not fit w %s: w must be [outputs,%lld], both float",
                              trn_shape_text(&x->shape, wide), trn_shape_text(&w->shape, weights),
                              (long long)k);
    }
    int64_t n = w->shape.dim[0];
    if (b && (b->shape.ndim != 1 || b->shape.dim[0] != n))
        return trn_graph_fail(graph, "linear: the bias must be [%lld]", (long long)n);
    trn_shape out = x->shape;
    out.dim[out.ndim - 1] = n;
    trn_matmul_attr attr = {.batch = 1, .m = x->count / k, .n = n, .k = k, .b_shared = true};
    trn_tensor *y = add_product(graph, x, w, out, &attr);
    return b ? trn_add(graph, y, b) : y;
}

/* Whether a transposed stays as it lies: kernels read its columns, or copy it. What is known before a run is
 * better transposed then; and rows of a batch that share b are one matrix only when a's own rows are. */
static bool reads_columns(const trn_tensor *a, const trn_tensor *b)
{
    return !a->constant && a->shape.ndim >= 2 && (b->shape.ndim > 2 || a->shape.ndim == 2);
}

/* Whether the leading dimensions of a and b allow a product, and what it is. */
static bool product_of(const trn_tensor *a, const trn_tensor *b, bool columns, bool transpose_b,
                       trn_shape *out, trn_matmul_attr *attr)
{
    int an = a->shape.ndim, bn = b->shape.ndim;
    if (an < 2 || bn < 2 || !is_real(a) || !is_real(b)) return false;
    *attr = (trn_matmul_attr){.m = a->shape.dim[an - (columns ? 1 : 2)],
                              .k = a->shape.dim[an - (columns ? 2 : 1)],
                              .n = b->shape.dim[transpose_b ? bn - 2 : bn - 1],
                              .b_shared = bn == 2,
                              .b_rows = !transpose_b,
                              .a_columns = columns};
    if (b->shape.dim[transpose_b ? bn - 1 : bn - 2] != attr->k || (bn != 2 && bn != an)) return false;
    for (int i = 0; i < an - 2 && bn != 2; i++) {
        if (a->shape.dim[i] != b->shape.dim[i]) return false;
    }
    *out = a->shape;
    out->dim[an - 2] = attr->m;
    out->dim[an - 1] = attr->n;
    attr->batch = a->count / (attr->m * attr->k);
    if (attr->b_shared) attr->m *= attr->batch, attr->batch = 1;
    return true;
}

trn_tensor *trn_matmul(trn_graph *graph, trn_tensor *a, trn_tensor *b, bool transpose_a, bool transpose_b)
{
    trn_matmul_attr attr;
    trn_shape out;
    if (!a || !b) return NULL;
    bool columns = transpose_a && reads_columns(a, b);
    if (transpose_a && !columns && a->shape.ndim >= 2) a = swap_last(graph, a);
    if (!a) return NULL;
    if (!product_of(a, b, columns, transpose_b, &out, &attr)) {
        char left[128], right[128];
        return trn_graph_fail(
            graph,
            "matmul: %s%s does not fit %s%s: columns of the first must be rows of the second, leading "
            "dimensions equal or the second a plain matrix, both float",
            trn_shape_text(&a->shape, left), columns ? " transposed" : "", trn_shape_text(&b->shape, right),
            transpose_b ? " transposed" : "");
    }
    return add_product(graph, a, b, out, &attr);
}

/* Of a that lies transposed, as A = a^T: y = A^T b: dA = b dy^T, db = A dy; y = A^T b^T: dA = b^T dy^T, db =
 * dy^T A^T. */
static trn_tensor *columns_gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    bool b_rows = trn_matmul_attr_of(node)->b_rows;
    trn_tensor *a = node->inputs[0], *b = node->inputs[1];
    if (which == 0) return trn_matmul(graph, b, dy, !b_rows, true);
    return b_rows ? trn_matmul(graph, a, dy, false, false) : trn_matmul(graph, dy, a, true, true);
}

/* y = a b: da = dy b^T, db = a^T dy; y = a b^T: da = dy b, db = dy^T a. A shared b sums over all rows. */
static trn_tensor *gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    const trn_matmul_attr *attr = trn_matmul_attr_of(node);
    trn_tensor *a = node->inputs[0], *b = node->inputs[1];
    if (attr->a_columns) return columns_gradient(graph, node, dy, which);
    if (which == 0) return trn_matmul(graph, dy, b, false, attr->b_rows);
    if (attr->b_shared) {
        dy = trn_reshape(graph, dy, TRN_SHAPE(attr->m, attr->n));
        a = trn_reshape(graph, a, TRN_SHAPE(attr->m, attr->k));
    }
    return attr->b_rows ? trn_matmul(graph, a, dy, true, false) : trn_matmul(graph, dy, a, true, false);
}

static double value_at(const void *values, int64_t i, bool half)
{
    return half ? (double)trn_f16_to_f32(((const uint16_t *)values)[i]) : (double)((const float *)values)[i];
}

static void reference(const trn_node *node, const void *const *inputs, void *out)
{
    const trn_matmul_attr *attr = trn_matmul_attr_of(node);
    float *y = out;
    bool half = node->inputs[0]->type == TRN_F16;
    int64_t row_step = attr->b_rows ? 1 : attr->k, k_step = attr->b_rows ? attr->n : 1;
    int64_t a_row = attr->a_columns ? 1 : attr->k, a_k = attr->a_columns ? attr->m : 1;
    for (int64_t r = 0; r < attr->batch * attr->m; r++) {
        int64_t a = r / attr->m * attr->m * attr->k + r % attr->m * a_row;
        int64_t b = attr->b_shared ? 0 : r / attr->m * attr->n * attr->k;
        for (int64_t c = 0; c < attr->n; c++) {
            double sum = 0;
            for (int64_t k = 0; k < attr->k; k++)
                sum += value_at(inputs[0], a + k * a_k, half) *
                       value_at(inputs[1], b + c * row_step + k * k_step, half);
            y[r * attr->n + c] = (float)sum;
        }
    }
}

void trn_matmul_cost(const trn_node *node, double *flops, double *bytes)
{
    const trn_matmul_attr *attr = trn_matmul_attr_of(node);
    *flops = 2.0 * (double)attr->batch * (double)attr->m * (double)attr->n * (double)attr->k;
    *bytes = (double)(trn_tensor_bytes(node->inputs[0]) + trn_tensor_bytes(node->inputs[1]) +
                      trn_tensor_bytes(node->out));
}

/* Results of any kernel; operands both or none. */
static bool takes_half(const trn_lower *lower, const trn_node *node, int which)
{
    return which < 0 || trn_lower_is_half(lower, node->inputs[1 - which]);
}

static void describe(const trn_node *node, trn_text *out)
{
    const trn_matmul_attr *attr = trn_matmul_attr_of(node);
    if (attr->batch > 1) trn_text_printf(out, "%lld x ", (long long)attr->batch);
    trn_text_printf(out, "[%lld,%lld]%s by [%lld,%lld]%s", (long long)(attr->a_columns ? attr->k : attr->m),
                    (long long)(attr->a_columns ? attr->m : attr->k), attr->a_columns ? " transposed" : "",
                    (long long)(attr->b_rows ? attr->k : attr->n),
                    (long long)(attr->b_rows ? attr->n : attr->k), attr->b_rows ? "" : " transposed");
    if (node->inputs[0]->type == TRN_F16) trn_text_add(out, ", of float16");
}

/* ---- cases ---- */

static trn_tensor *weights(trn_graph *graph, const char *name, trn_shape shape)
{
    int64_t count = trn_shape_count(&shape);
    float *values = trn_arena_array(trn_graph_arena(graph), (size_t)count, sizeof *values);
    if (!values) return trn_graph_fail(graph, "out of memory for a case");
    uint64_t hash = trn_fnv1a64(name, strlen(name), TRN_FNV_SEED);
    for (int64_t i = 0; i < count; i++)
        values[i] = (float)trn_hash_uniform(hash, (uint64_t)i);
    return trn_constant(graph, name, shape, values);
}

static trn_tensor *input(trn_graph *graph, const char *name, trn_shape shape)
{
    return trn_input(graph, name, TRN_F32, shape);
}

static void case_product(trn_graph *graph, trn_shape a, trn_shape b, bool transpose_a, bool transpose_b)
{
    trn_tensor *y = trn_matmul(graph, input(graph, "a", a), input(graph, "b", b), transpose_a, transpose_b);
    trn_output_add(graph, "y", y);
}

static void case_nt(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(37, 45), TRN_SHAPE(71, 45), false, true);
}

static void case_nn(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(19, 27), TRN_SHAPE(27, 77), false, false);
}

static void case_nn_aligned(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(66, 64), TRN_SHAPE(64, 132), false, false);
}

/* enough rows for copies of the operands to pay */
static void case_nn_far(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(131, 35), TRN_SHAPE(35, 165), false, false);
}

static void case_tn_far(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(37, 515), TRN_SHAPE(37, 175), true, false);
}

static void case_tn(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(21, 34), TRN_SHAPE(21, 9), true, false);
}

static void case_tn_long(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(5003, 27), TRN_SHAPE(5003, 37), true, false);
}

static void case_tn_batched(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(2, 3, 18, 13), TRN_SHAPE(2, 3, 18, 35), true, false);
}

static void case_tn_shared(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(3, 18, 13), TRN_SHAPE(18, 35), true, false);
}

static void case_tt(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(3, 13, 10), TRN_SHAPE(3, 66, 13), true, true);
}

static void case_batched(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(2, 3, 17, 16), TRN_SHAPE(2, 3, 18, 16), false, true);
}

static void case_batched_rows(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(5, 7, 1), TRN_SHAPE(5, 1, 3), false, false);
}

/* more work groups than one row of the grid holds, and the last row not full */
static void case_many_groups(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(40000, 1, 2), TRN_SHAPE(40000, 2, 1), false, false);
}

static void case_shared(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(4, 5, 23), TRN_SHAPE(23, 12), false, false);
}

static void case_one(trn_graph *graph)
{
    case_product(graph, TRN_SHAPE(1, 1), TRN_SHAPE(1, 1), false, true);
}

static void case_linear(trn_graph *graph)
{
    trn_tensor *w = weights(graph, "w", TRN_SHAPE(130, 96)), *b = weights(graph, "b", TRN_SHAPE(130));
    trn_output_add(graph, "y", trn_linear(graph, input(graph, "x", TRN_SHAPE(2, 33, 96)), w, b));
}

static void case_head(trn_graph *graph)
{
    trn_tensor *w = weights(graph, "w", TRN_SHAPE(10, 203)), *b = weights(graph, "b", TRN_SHAPE(10));
    trn_output_add(graph, "y", trn_linear(graph, input(graph, "x", TRN_SHAPE(1, 203)), w, b));
}

static void case_gelu(trn_graph *graph)
{
    trn_tensor *w = weights(graph, "w", TRN_SHAPE(72, 40)), *b = weights(graph, "b", TRN_SHAPE(72));
    trn_tensor *y = trn_linear(graph, input(graph, "x", TRN_SHAPE(1, 29, 40)), w, b);
    trn_output_add(graph, "y", trn_unary(graph, "gelu", y));
}

static void case_residual(trn_graph *graph)
{
    trn_tensor *w = weights(graph, "w", TRN_SHAPE(52, 60)), *b = input(graph, "b", TRN_SHAPE(52));
    trn_tensor *y = trn_linear(graph, input(graph, "x", TRN_SHAPE(3, 11, 60)), w, b);
    y = trn_mul(graph, y, weights(graph, "scale", TRN_SHAPE(52)));
    trn_output_add(graph, "y", trn_add(graph, input(graph, "skip", TRN_SHAPE(3, 11, 52)), y));
}

static void case_long(trn_graph *graph)
{
    trn_tensor *y = trn_linear(graph, input(graph, "x", TRN_SHAPE(3, 8200)),
                               input(graph, "w", TRN_SHAPE(5, 8200)), weights(graph, "b", TRN_SHAPE(5)));
    trn_output_add(graph, "y", trn_unary(graph, "relu", y));
}

/* ---- of float16 ---- */

static void case_half(trn_graph *graph, trn_shape a, trn_shape b, bool transpose_a, bool transpose_b)
{
    trn_graph_mixed(graph, true);
    case_product(graph, a, b, transpose_a, transpose_b);
}

static void case_half_nt(trn_graph *graph)
{
    case_half(graph, TRN_SHAPE(37, 45), TRN_SHAPE(71, 45), false, true);
}

static void case_half_nn(trn_graph *graph)
{
    case_half(graph, TRN_SHAPE(19, 27), TRN_SHAPE(27, 77), false, false);
}

static void case_half_nn_wide(trn_graph *graph)
{
    case_half(graph, TRN_SHAPE(33, 43), TRN_SHAPE(43, 64), false, false);
}

static void case_half_nn_aligned(trn_graph *graph)
{
    case_half(graph, TRN_SHAPE(66, 64), TRN_SHAPE(64, 132), false, false);
}

static void case_half_tt(trn_graph *graph)
{
    case_half(graph, TRN_SHAPE(3, 13, 10), TRN_SHAPE(3, 66, 13), true, true);
}

static void case_half_tn(trn_graph *graph)
{
    case_half(graph, TRN_SHAPE(21, 34), TRN_SHAPE(21, 9), true, false);
}

static void case_half_tn_aligned(trn_graph *graph)
{
    case_half(graph, TRN_SHAPE(2, 61, 68), TRN_SHAPE(2, 61, 36), true, false);
}

static void case_half_batched(trn_graph *graph)
{
    case_half(graph, TRN_SHAPE(2, 3, 17, 16), TRN_SHAPE(2, 3, 18, 16), false, true);
}

static void case_half_residual(trn_graph *graph)
{
    trn_graph_mixed(graph, true);
    case_residual(graph);
}

static void case_half_long(trn_graph *graph)
{
    trn_graph_mixed(graph, true);
    case_long(graph);
}

/* What is given as float16 needs no switch, and a transposed copy of it is the same. */
static void case_half_given(trn_graph *graph)
{
    trn_tensor *a = trn_cast(graph, input(graph, "a", TRN_SHAPE(2, 23, 15)), TRN_F16);
    trn_output_add(graph, "y", trn_matmul(graph, a, input(graph, "b", TRN_SHAPE(23, 31)), true, false));
}

static const trn_op_case cases[] = {
    {"a b^T", case_nt, 0},
    {"a b", case_nn, 0},
    {"a b, whole vec4s", case_nn_aligned, 0},
    {"a b, rows far apart", case_nn_far, 0},
    {"transposed, rows far apart", case_tn_far, 0},
    {"a^T b", case_tn, 0},
    {"transposed, 5003 long", case_tn_long, 0},
    {"transposed batches", case_tn_batched, 0},
    {"transposed batches, one matrix", case_tn_shared, 0},
    {"a^T b^T, batched", case_tt, 0},
    {"a b^T, batched", case_batched, 0},
    {"outer products", case_batched_rows, 0},
    {"40000 small products", case_many_groups, 0},
    {"one b for all", case_shared, 0},
    {"one value", case_one, 0},
    {"linear", case_linear, 0},
    {"linear, one row", case_head, 0},
    {"linear, bias and gelu", case_gelu, 0},
    {"linear, bias, layer scale, residual", case_residual, 0},
    {"long sums in parts, bias and relu", case_long, 0},
    {"float16: a b^T", case_half_nt, 0},
    {"float16: a b", case_half_nn, 0},
    {"float16: a b, wide tiles", case_half_nn_wide, 0},
    {"float16: a b, whole vec4s", case_half_nn_aligned, 0},
    {"float16: a^T b", case_half_tn, 0},
    {"float16: a^T b, whole vec4s", case_half_tn_aligned, 0},
    {"float16: a^T b^T, batched", case_half_tt, 0},
    {"float16: a b^T, batched", case_half_batched, 0},
    {"float16: linear, bias, layer scale, residual", case_half_residual, 0},
    {"float16: long sums in parts, bias and relu", case_half_long, 0},
    {"float16: one operand given so, transposed", case_half_given, 0},
};

static const trn_variant variants[] = {
    {"matrix", "cooperative matrices", trn_matmul_matrix_applies},
    {"uniform", "lanes along N, uniform loads, weights in panels, no shared memory", trn_uniform_loads_apply},
    {"lanes", "lanes along N, rows handed round by shuffles, no shared memory", trn_wide_lanes_apply},
    {"tiles", "shared-memory tiles", trn_matmul_tiles_applies},
};

const trn_op trn_op_matmul = {
    .name = "matmul",
    .gradient = gradient,
    .reference = reference,
    .lower = trn_matmul_lower,
    .cost = trn_matmul_cost,
    .describe = describe,
    .epilogue = true,
    .float16 = true,
    .half = takes_half,
    .variants = variants,
    .variant_count = (int)TRN_COUNT(variants),
    .cases = cases,
    .case_count = (int)TRN_COUNT(cases),
};
