/* cast: storage as float16 and back, and which tensors products take so. */
#include "graph_internal.h"
#include "ops.h"

#include <string.h>

extern const trn_op trn_op_cast;

/* Gradients are float32 whatever the operand's storage is: rounding counts as the identity. */
static trn_tensor *gradient(trn_graph *graph, const trn_node *node, trn_tensor *dy, int which)
{
    (void)graph, (void)node, (void)which;
    return dy;
}

static void reference(const trn_node *node, const void *const *inputs, void *out)
{
    bool to_half = node->out->type == TRN_F16;
    for (int64_t i = 0; i < node->out->count; i++) {
        if (to_half)
            ((uint16_t *)out)[i] = trn_f32_to_f16(((const float *)inputs[0])[i]);
        else
            ((float *)out)[i] = trn_f16_to_f32(((const uint16_t *)inputs[0])[i]);
    }
}

static trn_status lower_cast(trn_lower *lower, const trn_node *node, trn_error *err)
{
    const trn_device_info *info = trn_lower_device(lower);
    int64_t count = node->out->count;
    if (!info->storage16)
        return trn_fail(
            err, TRN_ERR_UNSUPPORTED,
            "float16 needs 16-bit storage, which '%s' lacks%s: compute in float32 (mixed precision "
            "off), or choose another device (terrane devices shows what each has)",
            info->name, trn_gpu_disabled("fp16") ? " under TERRANE_DISABLE=fp16" : "");
    trn_step step = {.shader = "cast.comp"};
    trn_step_read(&step, node->inputs[0]);
    trn_step_write(&step, node->out);
    trn_step_uint(&step, count);
    if (node->out->type == TRN_F16) step.macros[step.macro_count++] = (trn_macro){"TO_HALF", "1"};
    return trn_step_elements(lower, &step, (count + 1) / 2, err);
}

static void cost(const trn_node *node, double *flops, double *bytes)
{
    *flops = 0;
    *bytes = (double)(trn_tensor_bytes(node->inputs[0]) + trn_tensor_bytes(node->out));
}

static void describe(const trn_node *node, trn_text *out)
{
    trn_text_add(out, node->out->type == TRN_F16 ? "to float16" : "to float32");
}

trn_tensor *trn_cast(trn_graph *graph, trn_tensor *x, trn_dtype type)
{
    char text[128];
    if (!x) return NULL;
    if (x->type == TRN_I32 || (type != TRN_F32 && type != TRN_F16))
        return trn_graph_fail(graph, "cast: %s of integers, or to them: it is between float32 and float16",
                              trn_shape_text(&x->shape, text));
    if (x->type == type) return x;
    trn_node *node = trn_node_add(graph, &trn_op_cast, &x, 1, type, x->shape);
    return node ? node->out : NULL;
}

/* ---- mixed precision ---- */

void trn_graph_mixed(trn_graph *graph, bool on)
{
    graph->mixed = on;
}

/* Room in the table for the tensor; else the graph has failed. */
static bool grow_table(trn_graph *graph, int id)
{
    size_t had = graph->half_capacity;
    if (!trn_grow(&graph->halves, &graph->half_capacity, (size_t)id + 1, sizeof(trn_tensor *))) {
        trn_graph_fail(graph, "cast: out of memory");
        return false;
    }
    for (size_t i = had; i < graph->half_capacity; i++)
        graph->halves[i] = NULL;
    return true;
}

trn_tensor *trn_half_of(trn_graph *graph, trn_tensor *x)
{
    if (!x || x->type == TRN_F16) return x;
    trn_tensor *base = trn_tensor_base(x);
    if (!grow_table(graph, base->id)) return NULL;
    trn_tensor *half = graph->halves[base->id];
    if (!half) half = graph->halves[base->id] = trn_cast(graph, base, TRN_F16);
    return half && x != base ? trn_reshape(graph, half, x->shape) : half;
}

/* ---- cases ---- */

static void case_of(trn_graph *graph, const char *name, trn_shape shape)
{
    trn_tensor *x = trn_input(graph, name, TRN_F32, shape);
    trn_output_add(graph, "y", trn_cast(graph, trn_cast(graph, x, TRN_F16), TRN_F32));
}

static void case_odd(trn_graph *graph)
{
    case_of(graph, "x", TRN_SHAPE(3, 5, 7));
}

static void case_small(trn_graph *graph)
{
    case_of(graph, "x*0.0001", TRN_SHAPE(1031));
}

static void case_smallest(trn_graph *graph)
{
    case_of(graph, "x*0.0000003", TRN_SHAPE(1031));
}

static void case_large(trn_graph *graph)
{
    case_of(graph, "x*131072", TRN_SHAPE(1031));
}

/* Half way between two float16 values, both ways, at both ends of the range; and what is no number. */
static void case_ties(trn_graph *graph)
{
    static const uint32_t bits[] = {0x3f801000, 0x3f803000, 0x3f801001, 0x3f800fff, 0x477fefff, 0x477ff000,
                                    0xc77ff000, 0x387fe000, 0x387ff000, 0x33000000, 0x33000001, 0x33c00000,
                                    0x80000000, 0x00000001, 0x7f800000, 0xff800000, 0x7fc00000, 0x38800000};
    float values[TRN_COUNT(bits)];
    memcpy(values, bits, sizeof bits);
    trn_tensor *x = trn_constant(graph, "x", TRN_SHAPE((int64_t)TRN_COUNT(bits)), values);
    trn_output_add(graph, "y", trn_cast(graph, trn_cast(graph, x, TRN_F16), TRN_F32));
}

static const trn_op_case cases[] = {
    {"an odd count, there and back", case_odd, 1e-30},
    {"around the smallest with all bits", case_small, 1e-30},
    {"below them", case_smallest, 1e-30},
    {"beyond the largest", case_large, 1e-30},
    {"ties, ends and what is no number", case_ties, 1e-30},
};

const trn_op trn_op_cast = {
    .name = "cast",
    .gradient = gradient,
    .reference = reference,
    .lower = lower_cast,
    .cost = cost,
    .describe = describe,
    .float16 = true,
    .cases = cases,
    .case_count = (int)TRN_COUNT(cases),
};
