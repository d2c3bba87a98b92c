/* Pointwise operators: each is a row of expressions, one for the value and one per gradient. The same text is
 * compiled as GLSL (fused into chains and epilogues) and, in double precision, as the C reference. */
#include "graph_internal.h"
#include "ops/ops.h"

#include <math.h>
#include <string.h>

/* clang-format off */
/* name, operands, constants, value, d/da, d/db, d/dc; a b c operands, k0.. constants, g the incoming gradient */
#define ROWS(ROW)                                                                                           \
    ROW(add, 2, 0, a + b, g, g, 0.0)                                                                        \
    ROW(sub, 2, 0, a - b, g, -g, 0.0)                                                                       \
    ROW(mul, 2, 0, a * b, g * b, g * a, 0.0)                                                                \
    ROW(div, 2, 0, a / b, g / b, -g * a / (b * b), 0.0)                                                     \
    ROW(max, 2, 0, a >= b ? a : b, a >= b ? g : 0.0, a >= b ? 0.0 : g, 0.0)                                 \
    ROW(min, 2, 0, a <= b ? a : b, a <= b ? g : 0.0, a <= b ? 0.0 : g, 0.0)                                 \
    ROW(muladd, 3, 0, a * b + c, g * b, g * a, g)                                                           \
    ROW(select, 3, 0, a > 0.0 ? b : c, 0.0, a > 0.0 ? g : 0.0, a > 0.0 ? 0.0 : g)                           \
    ROW(equal, 2, 0, a == b ? 1.0 : 0.0, 0.0, 0.0, 0.0)                                                     \
    ROW(affine, 1, 2, a * k0 + k1, g * k0, 0.0, 0.0)                                                        \
    ROW(clamp, 1, 2, a < k0 ? k0 : (a > k1 ? k1 : a), a < k0 || a > k1 ? 0.0 : g, 0.0, 0.0)                 \
    ROW(neg, 1, 0, -a, -g, 0.0, 0.0)                                                                        \
    ROW(abs, 1, 0, abs(a), a < 0.0 ? -g : g, 0.0, 0.0)                                                      \
    ROW(square, 1, 0, a * a, 2.0 * a * g, 0.0, 0.0)                                                         \
    ROW(sqrt, 1, 0, sqrt(a), g * 0.5 / sqrt(a), 0.0, 0.0)                                                   \
    ROW(rsqrt, 1, 1, 1.0 / sqrt(a + k0), -0.5 * g / ((a + k0) * sqrt(a + k0)), 0.0, 0.0)                    \
    ROW(exp, 1, 0, exp(a), g * exp(a), 0.0, 0.0)                                                            \
    ROW(log, 1, 0, log(a), g / a, 0.0, 0.0)                                                                 \
    ROW(sin, 1, 0, sin_precise(a), g * cos_precise(a), 0.0, 0.0)                                            \
    ROW(cos, 1, 0, cos_precise(a), -g * sin_precise(a), 0.0, 0.0)                                           \
    ROW(tanh, 1, 0, tanh_safe(a), g * (1.0 - tanh_safe(a) * tanh_safe(a)), 0.0, 0.0)                        \
    ROW(sigmoid, 1, 0, 1.0 / (1.0 + exp(-a)),                                                               \
        g * exp(-abs(a)) / ((1.0 + exp(-abs(a))) * (1.0 + exp(-abs(a)))), 0.0, 0.0)                         \
    ROW(softplus, 1, 0, (a > 0.0 ? a : 0.0) + log1p_unit(exp(-abs(a))), g / (1.0 + exp(-a)), 0.0, 0.0)      \
    ROW(pow, 1, 1, a <= 0.0 ? 0.0 : pow(a, k0), a <= 0.0 ? 0.0 : g * k0 * pow(a, k0 - 1.0), 0.0, 0.0)       \
    ROW(relu, 1, 0, a > 0.0 ? a : 0.0, a > 0.0 ? g : 0.0, 0.0, 0.0)                                         \
    ROW(silu, 1, 0, a / (1.0 + exp(-a)),                                                                    \
        g * (1.0 / (1.0 + exp(-a))) * (1.0 + a * (1.0 - 1.0 / (1.0 + exp(-a)))), 0.0, 0.0)                  \
    ROW(gelu, 1, 0, a * normal_cdf(a), g * (normal_cdf(a) + a * normal_pdf(a)), 0.0, 0.0)                   \
    ROW(gelu_tanh, 1, 0, 0.5 * a * (1.0 + tanh_safe(0.79788456080286536 * (a + 0.044715 * a * a * a))),     \
        g * (0.5 * (1.0 + tanh_safe(0.79788456080286536 * (a + 0.044715 * a * a * a))) +                    \
             0.5 * a *                                                                                      \
                 (1.0 - tanh_safe(0.79788456080286536 * (a + 0.044715 * a * a * a)) *                       \
                            tanh_safe(0.79788456080286536 * (a + 0.044715 * a * a * a))) *                  \
                 0.79788456080286536 * (1.0 + 3.0 * 0.044715 * a * a)),                                     \
        0.0, 0.0)

/* clang-format on */
enum { MAX_OPERANDS = 3 };

/* The rows as GLSL text. */
typedef struct pointwise_row {
    const char *name;
    int operands, constants;
    const char *expression[1 + MAX_OPERANDS]; /* value, gradients */
} pointwise_row;
#define ROW_TEXT(name, n, k, value, da, db, dc) {#name, n, k, {#value, #da, #db, #dc}},
static const pointwise_row rows[] = {ROWS(ROW_TEXT)};

/* The rows as C: the GLSL names that differ in C are mapped here. */
#define abs(x) fabs(x)
#define tanh_safe(x) tanh(x)
#define log1p_unit(x) log1p(x)
#define sin_precise(x) sin(x)
#define cos_precise(x) cos(x)
#define normal_cdf(x) (0.5 * erfc(-0.70710678118654752 * (x)))
#define normal_pdf(x) (0.39894228040143268 * exp(-0.5 * (x) * (x)))
#define k0 k[0]
#define k1 k[1]
#define ROW_C(name, n, kn, value, da, db, dc)                                                                \
    static double name##_row(int which, double a, double b, double c, double g, const double *k)             \
    {                                                                                                        \
        (void)b, (void)c, (void)g, (void)k;                                                                  \
        switch (which) {                                                                                     \
        case 0:                                                                                              \
            return da;                                                                                       \
        case 1:                                                                                              \
            return db;                                                                                       \
        case 2:                                                                                              \
            return dc;                                                                                       \
        default:                                                                                             \
            return value;                                                                                    \
        }                                                                                                    \
    }
ROWS(ROW_C)
#undef abs
#undef tanh_safe
#undef log1p_unit
#undef sin_precise
#undef cos_precise
#undef normal_cdf
#undef normal_pdf
#undef k0
#undef k1
#define ROW_FUNCTION(name, n, k, value, da, db, dc) name##_row,
static double (*const row_functions[])(int, double, double, double, double,
                                       const double *) = {ROWS(ROW_FUNCTION)};

const trn_pointwise_attr *trn_pointwise_get(const trn_node *node)
{
    return (const trn_pointwise_attr *)node->attr;
}

const char *trn_pointwise_expression(const trn_node *node)
{
    const trn_pointwise_attr *attr = trn_pointwise_get(node);
    return rows[attr->row].expression[1 + attr->which];
}

const char *trn_pointwise_name(const trn_node *node)
{
    return rows[trn_pointwise_get(node)->row].name;
}

/* ---- broadcasting ---- */

trn_broadcast trn_broadcast_of(const trn_shape *operand, const trn_shape *out)
{
    trn_broadcast b = {.kind = TRN_BROADCAST_NONE, .div = {1, 1}, .mod = {1, 1}};
    uint64_t span = 1; /* elements of the output below the dimension in view */
    int runs = 0;
    bool in_run = false;
    for (int i = 0; i < out->ndim; i++) {
        int64_t dim = out->dim[out->ndim - 1 - i];
        int64_t own = i < operand->ndim ? operand->dim[operand->ndim - 1 - i] : 1;
        if (dim == 1) continue;
        if (own == 1) {
            in_run = false;
        } else if (!in_run) {
            if (runs == 2) return b;
            b.div[runs] = (uint32_t)span;
            b.mod[runs] = (uint32_t)dim;
            runs++;
            in_run = true;
        } else {
            b.mod[runs - 1] *= (uint32_t)dim;
        }
        span *= (uint64_t)dim;
    }
    if (runs == 0)
        b.kind = span == 1 ? TRN_BROADCAST_FULL : TRN_BROADCAST_SCALAR;
    else if (runs == 2)
        b.kind = TRN_BROADCAST_TWO;
    else if (b.mod[0] == span)
        b.kind = TRN_BROADCAST_FULL;
    else
        b.kind = b.div[0] == 1 ? TRN_BROADCAST_MOD : TRN_BROADCAST_DIVMOD;
    return b;
}

static bool broadcast_shape(const trn_shape *a, const trn_shape *b, trn_shape *out)
{
    int ndim = TRN_MAX(a->ndim, b->ndim);
    out->ndim = ndim;
    for (int i = 0; i < ndim; i++) {
        int64_t x = i < a->ndim ? a->dim[a->ndim - 1 - i] : 1, y = i < b->ndim ? b->dim[b->ndim - 1 - i] : 1;
        if (x != y && x != 1 && y != 1) return false;
        out->dim[ndim - 1 - i] = TRN_MAX(x, y);
    }
    return true;
}

static uint32_t broadcast_index(const trn_broadcast *b, uint32_t i)
{
    switch (b->kind) {
    case TRN_BROADCAST_FULL:
        return i;
    case TRN_BROADCAST_SCALAR:
        return 0;
    default:
        return i / b->div[0] % b->mod[0] + i / b->div[1] % b->mod[1] * b->mod[0];
    }
}

/* ---- building ---- */

static trn_tensor *add_node(trn_graph *graph, int row, int which, trn_tensor *const *operands, int count,
                            const float *constants)
{
    trn_tensor *inputs[TRN_MAX_INPUTS] = {0};
    trn_shape shape = {0};
    char text[2][128];
    for (int i = 0; i < count; i++) {
        if (!operands[i]) return NULL;
        if (operands[i]->type != TRN_F32)
            return trn_graph_fail(graph, "%s: operand %d holds %s; it takes floats", rows[row].name, i,
                                  trn_type_name(operands[i]->type));
        trn_shape sofar = shape;
        if (!broadcast_shape(&sofar, &operands[i]->shape, &shape))
            return trn_graph_fail(graph, "%s: shapes %s and %s do not broadcast", rows[row].name,
                                  trn_shape_text(&sofar, text[0]),
                                  trn_shape_text(&operands[i]->shape, text[1]));
    }
    for (int i = 0; i < count; i++) {
        bool expressible = trn_broadcast_of(&operands[i]->shape, &shape).kind != TRN_BROADCAST_NONE;
        inputs[i] = expressible ? operands[i] : trn_expand(graph, operands[i], shape);
        if (!inputs[i]) return NULL;
    }
    trn_node *node = trn_node_add(graph, &trn_op_pointwise, inputs, count, TRN_F32, shape);
    if (!node) return NULL;
    trn_pointwise_attr *attr = (trn_pointwise_attr *)node->attr;
    attr->row = row;
    attr->which = which;
    attr->operand_count = rows[row].operands;
    attr->constant_count = rows[row].constants;
    for (int i = 0; i < rows[row].constants; i++)
        /* NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign): there are as many as the row says */
        attr->constants[i] = constants[i];
    for (int i = 0; i < count; i++)
        attr->broadcast[i] = trn_broadcast_of(&inputs[i]->shape, &shape);
    return node->out;
}

trn_tensor *trn_pointwise(trn_graph *graph, const char *name, trn_tensor *const *operands, int count,
                          const float *constants, int constant_count)
{
    for (size_t row = 0; row < TRN_COUNT(rows); row++) {
        if (strcmp(rows[row].name, name) != 0) continue;
        if (count != rows[row].operands || constant_count != rows[row].constants)
            return trn_graph_fail(graph, "%s takes %d operands and %d constants, not %d and %d", name,
                                  rows[row].operands, rows[row].constants, count, constant_count);
        return add_node(graph, (int)row, -1, operands, count, constants);
    }
    return trn_graph_fail(graph, "there is no pointwise operator '%s'", name);
}

static trn_tensor *binary(trn_graph *graph, const char *row, trn_tensor *a, trn_tensor *b)
{
    return trn_pointwise(graph, row, (trn_tensor *[]){a, b}, 2, NULL, 0);
}

trn_tensor *trn_add(trn_graph *graph, trn_tensor *a, trn_tensor *b)
{
    return binary(graph, "add", a, b);
}

trn_tensor *trn_sub(trn_graph *graph, trn_tensor *a, trn_tensor *b)
{
    return binary(graph, "sub", a, b);
}

trn_tensor *trn_mul(trn_graph *graph, trn_tensor *a, trn_tensor *b)
{
    return binary(graph, "mul", a, b);
}

trn_tensor *trn_div(trn_graph *graph, trn_tensor *a, trn_tensor *b)
{
    return binary(graph, "div", a, b);
}

trn_tensor *trn_max(trn_graph *graph, trn_tensor *a, trn_tensor *b)
{
    return binary(graph, "max", a, b);
}

trn_tensor *trn_affine(trn_graph *graph, trn_tensor *x, float scale, float offset)
{
    return trn_pointwise(graph, "affine", &x, 1, (float[]){scale, offset}, 2);
}

trn_tensor *trn_unary(trn_graph *graph, const char *row, trn_tensor *x)
{
    return trn_pointwise(graph, row, &x, 1, NULL, 0);
}

/* ---- the operator ---- */

/* Sums a gradient over the axes its operand was repeated along. */
static trn_tensor *sum_to(trn_graph *graph, trn_tensor *x, const trn_shape *shape)
{
    for (int i = 0; x && i < x->shape.ndim; i++) {
        int own = i - (x->shape.ndim - shape->ndim);
        if (own >= 0 && shape->dim[own] == x->shape.dim[i]) continue;
        x = trn_reduce(graph, x, i, TRN_REDUCE_SUM, true);
    }
    return x ? trn_reshape(graph, x, *shape) : NULL;
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* Whether an expression reads the operand of this name. */
static bool mentions(const char *expression, char name)
{
    for (const char *at = strchr(expression, name); at; at = strchr(at + 1, name)) {
        if ((at == expression || !is_word(at[-1])) && !is_word(at[1])) return true;
    }
    return false;
}

static trn_tensor *pointwise_gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    const trn_pointwise_attr *attr = trn_pointwise_get(node);
    if (attr->which >= 0)
        return trn_graph_fail(graph, "second derivatives of '%s' are not there", trn_pointwise_name(node));
    const char *expression = rows[attr->row].expression[1 + which];
    if (!strcmp(expression, "0.0")) return NULL;
    trn_tensor *operands[TRN_MAX_INPUTS], *full = dy;
    /* what the expression does not read need not be kept, or computed again: dy stands in its place */
    for (int i = 0; i < node->input_count; i++)
        operands[i] = mentions(expression, (char)('a' + i)) ? node->inputs[i] : dy;
    operands[node->input_count] = dy;
    if (strcmp(expression, "g") != 0)
        full = add_node(graph, attr->row, which, operands, node->input_count + 1, attr->constants);
    return full ? sum_to(graph, full, &node->inputs[which]->shape) : NULL;
}

static void pointwise_reference(const trn_node *node, const void *const *inputs, void *out)
{
    const trn_pointwise_attr *attr = trn_pointwise_get(node);
    double k[TRN_POINTWISE_CONSTANTS];
    for (int i = 0; i < TRN_POINTWISE_CONSTANTS; i++)
        k[i] = attr->constants[i];
    float *y = out;
    for (int64_t i = 0; i < node->out->count; i++) {
        double operand[MAX_OPERANDS] = {0}, g = 0;
        for (int n = 0; n < node->input_count; n++) {
            double value = ((const float *)inputs[n])[broadcast_index(&attr->broadcast[n], (uint32_t)i)];
            if (n < attr->operand_count)
                operand[n] = value;
            else
                g = value;
        }
        y[i] = (float)row_functions[attr->row](attr->which, operand[0], operand[1], operand[2], g, k);
    }
}

enum {
    ELEMENTS = 128, /* of a work group of any device */
    VECTORS = 4,    /* of a subgroup, of a chain of up to FEW; of longer ones, which make much code, one */
    FEW = 4,
};

/* Vectors for a subgroup by vector loads; 0: operands do not allow for them. */
static int vectors_of(trn_lower *lower, const trn_tensor *out, bool *columns)
{
    char why_not[128];
    trn_chain chain;
    *columns = false;
    if (!trn_uniform_loads_apply(lower->gpu, why_not) || trn_lower_is_half(lower, out) ||
        !trn_chain_collect(lower->group, 1, 2, &chain))
        return 0;
    for (int i = 0; i < chain.operand_count; i++) {
        if (trn_lower_is_half(lower, chain.operands[i].tensor)) return 0;
        *columns = *columns || chain.operands[i].column;
    }
    int vectors = lower->group->chain_count <= FEW ? VECTORS : 1;
    int64_t lanes = TRN_MAX(trn_lower_device(lower)->subgroup_size, 1), row = trn_tensor_dim(out, -1);
    if (*columns && (row % lanes != 0 || row < vectors * lanes)) return 0;
    return vectors;
}

static trn_status choose_kernel(trn_lower *lower, const trn_node *node, trn_step *step, trn_error *err)
{
    static const trn_candidate all[] = {
        {.name = "vectors", .shader = "pointwise.comp", .reason = "CPU driver that finds uniform loads"},
        {.name = "elements", .shader = "pointwise.comp", .reason = "an invocation an element"},
    };
    trn_tensor *out = trn_lower_output(lower, node);
    const trn_device_info *info = trn_lower_device(lower);
    bool columns;
    int vectors = vectors_of(lower, out, &columns), without = vectors ? 0 : 1;
    int chosen = without + trn_lower_choose(lower, node, all + without, 2 - without, &step->reason);
    step->variant = all[chosen].name;
    int64_t at_once = ELEMENTS;
    if (chosen == 0) {
        at_once = TRN_MAX(vectors * (int64_t)info->subgroup_size, 1);
        if (info->subgroup_max) step->subgroup_size = info->subgroup_size;
        step->macros[step->macro_count++] =
            (trn_macro){"SG", trn_lower_printf(lower, "%u", info->subgroup_size)};
        step->macros[step->macro_count++] = (trn_macro){"V", trn_lower_printf(lower, "%d", vectors)};
        if (columns) step->macros[step->macro_count++] = (trn_macro){"COLUMNS", "1"};
    }
    trn_lower_groups(step, (out->count + at_once - 1) / at_once);
    return trn_lower_step(lower, step, err);
}

/* The chain does all of it: the step only says how many elements there are. */
static trn_status pointwise_lower(trn_lower *lower, const trn_node *node, trn_error *err)
{
    trn_step step = {.shader = "pointwise.comp", .epilogue = true};
    trn_tensor *out = trn_lower_output(lower, node);
    step.operands[step.operand_count++] = (trn_operand){.tensor = out, .written = true};
    step.bytes = 4.0 * (double)out->count;
    step.scalars[step.scalar_count++].u = (uint32_t)out->count;
    /* a single number has no axis, and the kernel divides by this */
    step.scalars[step.scalar_count++].u = (uint32_t)TRN_MAX(trn_tensor_dim(out, -1), 1);
    return choose_kernel(lower, node, &step, err);
}

static void case_broadcasts(trn_graph *graph)
{
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(3, 5, 7));
    trn_tensor *y = trn_mul(graph, x, trn_input(graph, "last", TRN_F32, TRN_SHAPE(7)));
    y = trn_add(graph, y, trn_input(graph, "middle", TRN_F32, TRN_SHAPE(5, 1)));
    y = trn_sub(graph, y, trn_input(graph, "ends", TRN_F32, TRN_SHAPE(3, 1, 7)));
    y = trn_max(graph, y, trn_input(graph, "one", TRN_F32, TRN_SHAPE(1)));
    trn_output_add(graph, "y", trn_mul(graph, y, trn_input(graph, "first", TRN_F32, TRN_SHAPE(3, 1, 1))));
}

/* Rows of whole vectors, and operands that many neighbours share. */
static void case_rows(trn_graph *graph)
{
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(3, 9, 192));
    trn_tensor *y = trn_add(graph, x, trn_input(graph, "row", TRN_F32, TRN_SHAPE(192)));
    y = trn_mul(graph, y, trn_input(graph, "first", TRN_F32, TRN_SHAPE(3, 1, 1)));
    trn_output_add(graph, "y", trn_add(graph, y, trn_input(graph, "z", TRN_F32, TRN_SHAPE(3, 9, 192))));
}

static void case_activations(trn_graph *graph)
{
    static const char *const names[] = {"gelu", "gelu_tanh", "relu", "silu",   "sigmoid", "tanh",    "exp",
                                        "sin",  "cos",       "abs",  "square", "neg",     "softplus"};
    trn_tensor *x = trn_input(graph, "x*4", TRN_F32, TRN_SHAPE(1237));
    for (size_t i = 0; i < TRN_COUNT(names); i++)
        trn_output_add(graph, names[i], trn_unary(graph, names[i], x));
}

static void case_domain(trn_graph *graph)
{
    trn_tensor *x = trn_affine(graph, trn_input(graph, "x", TRN_F32, TRN_SHAPE(301, 3)), 0.9f, 1.0f);
    trn_output_add(graph, "log", trn_unary(graph, "log", x));
    trn_output_add(graph, "sqrt", trn_unary(graph, "sqrt", x));
    trn_output_add(graph, "rsqrt", trn_pointwise(graph, "rsqrt", &x, 1, (float[]){0.01f}, 1));
    trn_output_add(graph, "div", trn_div(graph, trn_input(graph, "z", TRN_F32, TRN_SHAPE(1, 3)), x));
    trn_output_add(graph, "pow", trn_pointwise(graph, "pow", &x, 1, (float[]){1.5f}, 1));
    trn_output_add(graph, "clamp", trn_pointwise(graph, "clamp", &x, 1, (float[]){0.5f, 1.5f}, 2));
}

static void case_long_chain(trn_graph *graph)
{
    static const char names[] = "abcdefghijklmnopqrstuvwxyzABCDEF"; /* each tail of it is a name of its own */
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(2, 19, 33)), *y = x;
    for (int i = 0; i < 30; i++)
        y = trn_add(graph, trn_unary(graph, "tanh", y), trn_input(graph, &names[i], TRN_F32, TRN_SHAPE(33)));
    trn_output_add(graph, "y", y);
}

static void case_shared_value(trn_graph *graph)
{
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(9, 40));
    trn_tensor *h = trn_unary(graph, "silu", x);
    trn_output_add(graph, "h", h);
    trn_output_add(graph, "hh", trn_mul(graph, h, h));
    trn_output_add(graph, "sum", trn_add(graph, trn_unary(graph, "exp", h), trn_unary(graph, "neg", h)));
}

static void case_many(trn_graph *graph)
{
    trn_tensor *x = trn_input(graph, "x", TRN_F32, TRN_SHAPE(70001, 131));
    trn_output_add(graph, "y", trn_affine(graph, x, 2.0f, -1.0f));
}

static const trn_op_case cases[] = {
    {"broadcasts", case_broadcasts, 0},
    {"rows of vectors", case_rows, 0},
    {"activations", case_activations, 2e-6},
    {"domains", case_domain, 2e-6},
    {"60 in a chain", case_long_chain, 0},
    {"values used twice", case_shared_value, 0},
    {"9 million", case_many, 0},
};
static const trn_variant variants[] = {
    {"vectors", "any number of rows in one kernel, values by vector loads", trn_uniform_loads_apply},
    {"elements", "any number of rows in one kernel, an invocation an element", NULL},
};

const trn_op trn_op_pointwise = {
    .name = "pointwise",
    .gradient = pointwise_gradient,
    .reference = pointwise_reference,
    .lower = pointwise_lower,
    .epilogue = false, /* it is what epilogues are made of */
    .variants = variants,
    .variant_count = TRN_COUNT(variants),
    .half = trn_half_takes_any,
    .cases = cases,
    .case_count = TRN_COUNT(cases),
};
