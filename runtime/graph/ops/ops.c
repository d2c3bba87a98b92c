/* What the operators of this folder share: filling steps, choosing row kernels. */
#include "ops.h"

enum { GROUP = 128, SHORT_ROW = 128, LOOP_LIMIT = 60000 };

static void operand(trn_step *step, trn_tensor *tensor, bool written)
{
    step->operands[step->operand_count++] = (trn_operand){.tensor = tensor, .written = written};
    step->bytes += (double)trn_tensor_bytes(tensor);
}

void trn_step_read(trn_step *step, trn_tensor *tensor)
{
    operand(step, tensor, false);
}

void trn_step_write(trn_step *step, trn_tensor *tensor)
{
    operand(step, tensor, true);
}

void trn_step_uint(trn_step *step, int64_t value)
{
    step->scalars[step->scalar_count++].u = (uint32_t)value;
}

void trn_step_float(trn_step *step, double value)
{
    step->scalars[step->scalar_count++].f = (float)value;
}

/* shift = ceil(log2 d), and the magic number that makes (n * magic >> 32) + n, shifted, n / d for every n <
 * 2^31 */
static uint32_t magic_of(int64_t d, uint32_t *shift)
{
    uint32_t bits = 0;
    while ((int64_t)1 << bits < d)
        bits++;
    *shift = bits;
    return (uint32_t)(((((uint64_t)1 << bits) - (uint64_t)d) << 32) / (uint64_t)d + 1);
}

void trn_step_divisors(trn_step *step, const int64_t *divisors, int count)
{
    uint32_t shifts = 0, shift;
    for (int i = 0; i < count; i++) {
        trn_step_uint(step, magic_of(divisors[i], &shift));
        shifts |= shift << (5 * i);
    }
    trn_step_uint(step, shifts);
}

trn_status trn_step_elements(trn_lower *lower, trn_step *step, int64_t count, trn_error *err)
{
    if (!step->variant) step->variant = "plain";
    trn_lower_groups(step, (count + GROUP - 1) / GROUP);
    return trn_lower_step(lower, step, err);
}

/* ---- rows ---- */

bool trn_variant_say(char why_not[128], const char *reason)
{
    snprintf(why_not, 128, "%s", reason ? reason : "");
    return !reason;
}

bool trn_wide_lanes_apply(const trn_gpu *gpu, char why_not[128])
{
    const trn_device_info *info = trn_gpu_info(gpu);
    uint32_t sg = info->subgroup_size;
    if (trn_gpu_disabled("lanes")) return trn_variant_say(why_not, "switched off by TERRANE_DISABLE");
    if (info->type != TRN_DEVICE_CPU) return trn_variant_say(why_not, "for CPU drivers");
    if (trn_gpu_access(gpu) != TRN_ACCESS_ADDRESS || !info->int64)
        return trn_variant_say(why_not, "needs buffer addresses");
    if (!info->subgroup_shuffle) return trn_variant_say(why_not, "needs subgroup shuffles");
    return trn_variant_say(why_not,
                           sg == 4 || sg == 8 || sg == 16 ? NULL : "written for subgroups of 4, 8 or 16");
}

bool trn_uniform_loads_apply(const trn_gpu *gpu, char why_not[128])
{
    if (trn_gpu_disabled("uniform")) return trn_variant_say(why_not, "switched off by TERRANE_DISABLE");
    if (trn_gpu_info(gpu)->quirks & TRN_QUIRK_NO_UNIFORM_LOADS)
        return trn_variant_say(why_not, "this driver loads uniform values lane by lane");
    return trn_wide_lanes_apply(gpu, why_not);
}

static bool lanes_apply(const trn_device_info *info, char why_not[128])
{
    const char *reason = NULL;
    if (trn_gpu_disabled("lanes"))
        reason = "switched off by TERRANE_DISABLE";
    else if (info->type != TRN_DEVICE_CPU)
        reason = "for CPU drivers";
    else if (!info->subgroup_arithmetic)
        reason = "needs subgroup arithmetic";
    if (why_not) snprintf(why_not, 128, "%s", reason ? reason : "");
    return !reason;
}

static bool variant_lanes(const trn_gpu *gpu, char why_not[128])
{
    return lanes_apply(trn_gpu_info(gpu), why_not);
}

static bool variant_group(const trn_gpu *gpu, char why_not[128])
{
    (void)gpu;
    why_not[0] = '\0';
    return true;
}

const trn_variant trn_row_variants[TRN_ROW_VARIANTS] = {
    {"uniform", "one subgroup per row, values by vector loads, no shared memory", trn_uniform_loads_apply},
    {"lanes", "one subgroup per row, no shared memory", variant_lanes},
    {"group", "32 or 128 invocations per row, sums through shared memory", variant_group},
};

/* Whether its operands allow for "uniform", which has no loads of float16. */
static bool rows_uniform(trn_lower *lower, const trn_step *step)
{
    char why_not[128];
    for (int i = 0; i < step->operand_count; i++)
        if (trn_lower_is_half(lower, step->operands[i].tensor)) return false;
    return trn_uniform_loads_apply(trn_lower_gpu(lower), why_not);
}

trn_status trn_step_rows(trn_lower *lower, trn_step *step, int64_t rows, int64_t columns, int passes,
                         trn_error *err)
{
    const trn_device_info *info = trn_lower_device(lower);
    bool limited = info->quirks & TRN_QUIRK_LOOP_LIMIT;
    int64_t lanes = info->subgroup_size;
    if (lanes_apply(info, NULL) && !(limited && passes * columns > LOOP_LIMIT * lanes)) {
        bool uniform = rows_uniform(lower, step);
        step->variant = uniform ? "uniform" : "lanes";
        step->reason = uniform ? "CPU driver with uniform loads" : "CPU driver";
        step->subgroup_size = info->subgroup_max ? info->subgroup_size : 0;
        step->macros[step->macro_count++] = (trn_macro){uniform ? "ROW_UNIFORM" : "ROW_SUBGROUP", "1"};
        step->macros[step->macro_count++] =
            (trn_macro){"LANES", trn_lower_printf(lower, "%u", info->subgroup_size)};
    } else {
        if (limited && passes * columns > (int64_t)LOOP_LIMIT * GROUP)
            return trn_fail(
                err, TRN_ERR_UNSUPPORTED,
                "rows of %lld values are too long for this driver, whose loops end after 65535 rounds: "
                "use a newer driver",
                (long long)columns);
        step->variant = "group";
        step->reason = "shared memory";
        step->macros[step->macro_count++] = (trn_macro){"LANES", columns <= SHORT_ROW ? "32" : "128"};
    }
    trn_lower_groups(step, rows);
    return trn_lower_step(lower, step, err);
}

bool trn_is_float(trn_graph *graph, const trn_tensor *x, const char *op)
{
    char text[128];
    if (x && x->type == TRN_F32) return true;
    if (x)
        trn_graph_fail(graph, "%s: %s holds %s; it takes floats", op, trn_shape_text(&x->shape, text),
                       trn_type_name(x->type));
    return false;
}

const void *trn_constant_values(const trn_tensor *tensor)
{
    while (tensor && tensor->view_of)
        tensor = tensor->view_of;
    return tensor ? tensor->values : NULL;
}
