/* What a compiled or planned graph will do, as text; profiles; estimates. */
#include "exec.h"

#include <stdlib.h>
#include <string.h>

/* "blocks.3.matmul" counts as "matmul". */
static const char *operator_name(const char *label)
{
    const char *dot = strrchr(label, '.');
    return dot ? dot + 1 : label;
}

void trn_group_names(const trn_group *group, bool scoped, trn_text *out)
{
    char label[128];
    const trn_node *first = group->root ? group->root : group->chain[0];
    trn_node_label(first, label);
    trn_text_add(out, scoped ? label : operator_name(label));
    for (int i = group->root ? 0 : 1; i < group->chain_count; i++)
        trn_text_printf(out, "+%s", trn_pointwise_name(group->chain[i]));
}

static void add_step(const trn_lowered_step *lowered, trn_text *out)
{
    const trn_step *step = &lowered->step;
    trn_text_printf(out, "    kernel %s", step->shader);
    if (step->variant) trn_text_printf(out, ", variant %s", step->variant);
    if (step->reason) trn_text_printf(out, " (%s)", step->reason);
    trn_text_printf(out, ", %ux%ux%u groups", step->groups[0], step->groups[1], step->groups[2]);
    if (step->flops > 0) trn_text_printf(out, ", %.4g MFLOP", step->flops * 1e-6);
    trn_text_add(out, lowered->setup ? ", once\n" : "\n");
}

void trn_group_shapes(const trn_group *group, trn_text *out)
{
    char shape[128];
    const trn_node *first = group->root ? group->root : group->chain[0];
    for (int i = 0; i < first->input_count; i++) {
        if (first->inputs[i]) trn_text_printf(out, " %s", trn_shape_text(&first->inputs[i]->shape, shape));
    }
    trn_text_printf(out, " -> %s", trn_shape_text(&group->out->shape, shape));
    if (first->op->describe) {
        trn_text_add(out, " ");
        first->op->describe(first, out);
    }
}

/* How the result lies in memory, of a graph that is compiled for float16. */
static void add_storage(const trn_exec *exec, const trn_tensor *tensor, trn_text *out)
{
    if (exec->summary.precision != TRN_PRECISION_FLOAT16) return;
    const char *why = trn_lower_why_float32(&exec->lower, tensor);
    if (why)
        trn_text_printf(out, ", float32 (%s)", why);
    else
        trn_text_add(out, ", stored as float16");
}

/* step: the first that is not printed yet; steps stand in the order of their groups. */
static void add_group(const trn_exec *exec, const trn_group *group, size_t *step, trn_text *out)
{
    trn_text_add(out, "  ");
    trn_group_names(group, true, out);
    trn_group_shapes(group, out);
    add_storage(exec, group->out, out);
    trn_text_add(out, "\n");
    while (*step < exec->lower.step_count && exec->lower.steps[*step].group == group)
        add_step(&exec->lower.steps[(*step)++], out);
}

void trn_exec_explain(const trn_exec *exec, trn_text *out)
{
    const trn_exec_summary *sum = &exec->summary;
    const trn_device_info *info = trn_gpu_info(exec->gpu);
    char bytes[4][32];
    trn_text_printf(out, "device: %s (%s), %s access\n", info->name, trn_device_type_name(info->type),
                    trn_gpu_access(exec->gpu) == TRN_ACCESS_ADDRESS ? "address" : "storage-buffer");
    trn_text_add(out, "operators:\n");
    for (size_t i = 0, step = 0; i < exec->lower.group_count; i++)
        add_group(exec, &exec->lower.groups[i], &step, out);
    trn_text_printf(out, "%zu operators in %zu dispatches (%zu fused, %zu run once before), %zu kernels\n",
                    sum->operators, sum->dispatches, sum->fused_operators, sum->setup_dispatches,
                    sum->kernels);
    trn_text_printf(out, "memory: weights %s, values %s in %d blocks (%s without sharing), available %s\n",
                    trn_format_bytes(sum->weight_bytes, bytes[0]),
                    trn_format_bytes(sum->arena_bytes, bytes[1]), exec->plan.block_count,
                    trn_format_bytes(sum->arena_bytes_unshared, bytes[2]),
                    trn_format_bytes(trn_gpu_memory_available(exec->gpu), bytes[3]));
    if (sum->precision == TRN_PRECISION_FLOAT16)
        trn_text_printf(out, "precision: float16 for %zu values and weights, float32 for the rest\n",
                        sum->half_values);
    trn_text_printf(out, "work: %.4g GFLOP a run", sum->flops * 1e-9);
    if (sum->estimated_seconds > 0)
        trn_text_printf(out, ", about %.3g s at the rate measured on this device", sum->estimated_seconds);
    else
        trn_text_add(out, ", time not known: nothing was measured on this device yet");
    trn_text_add(out, "\n");
}

typedef struct profile_row {
    const char *label;
    double seconds, flops, bytes;
    size_t count;
} profile_row;

static int compare_seconds(const void *a, const void *b)
{
    double x = ((const profile_row *)a)->seconds, y = ((const profile_row *)b)->seconds;
    return x < y ? 1 : x > y ? -1 : 0;
}

void trn_exec_profile_text(const trn_exec *exec, trn_text *out)
{
    size_t count = exec->program ? trn_program_dispatch_count(exec->program) : 0, used = 0;
    profile_row *rows = calloc(count + 1, sizeof *rows);
    if (!rows || !exec->profiled) {
        free(rows);
        return;
    }
    double total = 0;
    for (size_t i = 0; i < count; i++) {
        trn_dispatch_time time = trn_program_time(exec->program, i);
        const char *name = operator_name(time.label);
        size_t r = 0;
        while (r < used && strcmp(rows[r].label, name) != 0)
            r++;
        if (r == used) rows[used++].label = name;
        rows[r].seconds += time.seconds;
        rows[r].flops += time.flops;
        rows[r].bytes += time.bytes;
        rows[r].count++;
        total += time.seconds;
    }
    qsort(rows, used, sizeof *rows, compare_seconds);
    trn_text_printf(out, "%-20s %6s %10s %6s %10s %10s\n", "operator", "count", "ms", "%", "GFLOP/s", "GB/s");
    for (size_t r = 0; r < used; r++) {
        double s = rows[r].seconds > 0 ? rows[r].seconds : 1e-12;
        trn_text_printf(out, "%-20s %6zu %10.3f %6.1f %10.2f %10.2f\n", rows[r].label, rows[r].count,
                        rows[r].seconds * 1e3, total > 0 ? 100 * rows[r].seconds / total : 0,
                        rows[r].flops / s * 1e-9, rows[r].bytes / s * 1e-9);
    }
    trn_text_printf(out, "%-20s %6zu %10.3f\n", "all", count, total * 1e3);
    free(rows);
}
