/* random_uniform: numbers that depend on a seed and on counters alone, by integer arithmetic. */
#include "ops.h"

typedef struct random_attr {
    uint32_t seed[2], stream;
} random_attr;

enum { ROUNDS = 10, LANES = 4 };

static const random_attr *attr_of(const trn_node *node)
{
    return (const random_attr *)(const void *)node->attr;
}

/* Philox4x32-10. Source: Salmon et al. 2011, Parallel Random Numbers: As Easy as 1, 2, 3. */
static void philox(uint32_t c[LANES], const uint32_t seed[2])
{
    uint32_t k0 = seed[0], k1 = seed[1];
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t c0 = (uint32_t)(b >> 32) ^ c[1] ^ k0, c2 = (uint32_t)(a >> 32) ^ c[3] ^ k1;
        c[0] = c0;
        c[1] = (uint32_t)b;
        c[2] = c2;
        c[3] = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

static void reference(const trn_node *node, const void *const *inputs, void *out)
{
    const random_attr *attr = attr_of(node);
    const int32_t *counters = inputs[0];
    int64_t rows = node->out->shape.dim[0], columns = node->out->count / rows;
    float *values = out;
    for (int64_t i = 0; i < rows * columns; i += TRN_MIN(LANES, columns - i % columns)) {
        int64_t row = i / columns, column = i % columns;
        uint32_t c[LANES] = {(uint32_t)(column / LANES), attr->stream, (uint32_t)counters[2 * row],
                             (uint32_t)counters[2 * row + 1]};
        philox(c, attr->seed);
        for (int64_t lane = 0; lane < LANES && column + lane < columns; lane++)
            values[i + lane] = (float)(c[lane] >> 8) * 0x1p-24F;
    }
}

static trn_status lower_random(trn_lower *lower, const trn_node *node, trn_error *err)
{
    const random_attr *attr = attr_of(node);
    int64_t rows = node->out->shape.dim[0], columns = node->out->count / rows;
    int64_t fours = (columns + LANES - 1) / LANES;
    trn_step step = {.shader = "random.comp"};
    trn_step_read(&step, node->inputs[0]);
    trn_step_write(&step, node->out);
    trn_step_uint(&step, rows * fours);
    trn_step_uint(&step, fours);
    trn_step_uint(&step, columns);
    trn_step_uint(&step, attr->stream);
    trn_step_uint(&step, attr->seed[0]);
    trn_step_uint(&step, attr->seed[1]);
    trn_step_divisors(&step, &fours, 1);
    return trn_step_elements(lower, &step, rows * fours, err);
}

static void cost(const trn_node *node, double *flops, double *bytes)
{
    *flops = 0;
    *bytes = 4.0 * (double)(node->inputs[0]->count + node->out->count);
}

static void describe(const trn_node *node, trn_text *out)
{
    trn_text_printf(out, "stream %u", attr_of(node)->stream);
}

static void case_numbers(trn_graph *graph, trn_shape shape, uint64_t seed, uint32_t stream)
{
    trn_tensor *counters = trn_input(graph, "counters", TRN_I32, TRN_SHAPE(shape.dim[0], 2));
    trn_output_add(graph, "y", trn_random_uniform(graph, counters, seed, stream, shape));
}

static void case_odd(trn_graph *graph)
{
    case_numbers(graph, TRN_SHAPE(3, 5, 7), 1, 0);
}

static void case_large_seed(trn_graph *graph)
{
    case_numbers(graph, TRN_SHAPE(2, 1031), UINT64_C(0xfedcba9876543210), UINT32_MAX);
}

static void case_one_a_row(trn_graph *graph)
{
    case_numbers(graph, TRN_SHAPE(9), 7, 3);
}

static void case_one(trn_graph *graph)
{
    case_numbers(graph, TRN_SHAPE(1, 1), 0, 0);
}

static void case_tall(trn_graph *graph)
{
    case_numbers(graph, TRN_SHAPE(65551, 3), 2, 1);
}

/* nothing but the same bits passes: two numbers are 2^-24 apart, or none */
static const trn_op_case cases[] = {
    {"odd shape", case_odd, 1e-30},       {"large seed and stream", case_large_seed, 1e-30},
    {"one a row", case_one_a_row, 1e-30}, {"one number", case_one, 1e-30},
    {"65551 rows", case_tall, 1e-30},
};

const trn_op trn_op_random_uniform = {
    .name = "random_uniform",
    .why_no_gradient = "random numbers depend on nothing that has one",
    .reference = reference,
    .lower = lower_random,
    .cost = cost,
    .describe = describe,
    .cases = cases,
    .case_count = TRN_COUNT(cases),
};

trn_tensor *trn_random_uniform(trn_graph *graph, trn_tensor *counters, uint64_t seed, uint32_t stream,
                               trn_shape shape)
{
    char given[128], wanted[128];
    if (!counters) return NULL;
    bool fits = counters->type == TRN_I32 && counters->shape.ndim == 2 && counters->shape.dim[1] == 2;
    if (!fits || shape.ndim < 1 || shape.dim[0] != counters->shape.dim[0])
        return trn_graph_fail(graph,
                              "random_uniform: counters %s%s for numbers %s; they are two integers a row",
                              trn_shape_text(&counters->shape, given),
                              counters->type == TRN_I32 ? "" : " of floats", trn_shape_text(&shape, wanted));
    trn_node *node = trn_node_add(graph, &trn_op_random_uniform, &counters, 1, TRN_F32, shape);
    if (!node) return NULL;
    *(random_attr *)(void *)node->attr = (random_attr){{(uint32_t)seed, (uint32_t)(seed >> 32)}, stream};
    return node->out;
}
