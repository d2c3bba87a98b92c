/* The dispatches of an executable one by one, for those who report on them. */
#include "exec.h"

static bool runs_each_time(const trn_lowered_step *lowered)
{
    return !lowered->setup && !lowered->update;
}

size_t trn_exec_step_count(const trn_exec *exec)
{
    size_t count = 0;
    for (size_t s = 0; s < exec->lower.step_count; s++)
        count += runs_each_time(&exec->lower.steps[s]);
    return count;
}

trn_exec_step trn_exec_step_at(const trn_exec *exec, size_t i, trn_text *what)
{
    size_t s = 0;
    for (size_t left = i; s < exec->lower.step_count; s++)
        if (runs_each_time(&exec->lower.steps[s]) && !left--) break;
    if (s == exec->lower.step_count) return (trn_exec_step){0};
    const trn_lowered_step *lowered = &exec->lower.steps[s];
    trn_exec_step out = {.label = lowered->label,
                         .shader = lowered->step.shader,
                         .variant = lowered->step.variant,
                         .group = lowered->group ? (size_t)(lowered->group - exec->lower.groups) : SIZE_MAX,
                         .flops = lowered->step.flops,
                         .bytes = lowered->step.bytes};
    /* the program has the same dispatches in the same order */
    if (exec->program && exec->profiled) out.seconds = trn_program_time(exec->program, i).seconds;
    if (!what) return out;
    if (lowered->group) {
        trn_group_names(lowered->group, false, what);
        trn_group_shapes(lowered->group, what);
    } else {
        trn_text_add(what, lowered->label);
    }
    return out;
}
