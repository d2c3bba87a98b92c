/* Which kernel a node runs: one that is asked for, the fastest that was measured here, or the default. */
#include "graph_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOLD = 4 }; /* candidates that a reason names beside the chosen one */
/* A measured gain smaller than this is noise, and the default stays. */
static const double NOISE = 0.03;

/* The node as far as its speed depends on it: "matmul [197,768] by [2304,768] transposed f32[197,768] .." */
static void describe_node(const trn_lower *lower, const trn_node *node, trn_text *out)
{
    char shape[128];
    trn_text_printf(out, "%s ", node->op->name);
    if (node->op->describe) node->op->describe(node, out);
    for (int i = 0; i < node->input_count; i++) {
        const trn_tensor *input = node->inputs[i];
        trn_text_add(out, " ");
        if (!input) continue;
        trn_dtype type = trn_lower_is_half(lower, input) ? TRN_F16 : input->type;
        trn_text_printf(out, "%s%s%s", trn_type_name(type), trn_shape_text(&input->shape, shape),
                        input->constant ? "c" : "");
    }
}

const char *trn_choice_key(trn_lower *lower, const trn_node *node, const trn_candidate *candidate)
{
    trn_text text = {0};
    trn_text_printf(&text, "kernel %s subgroup %u ",
                    trn_gpu_access(lower->gpu) == TRN_ACCESS_ADDRESS ? "address" : "storage",
                    trn_lower_device(lower)->subgroup_size);
    describe_node(lower, node, &text);
    trn_text_printf(&text, " | %s %016llx", candidate->name,
                    (unsigned long long)trn_gpu_shader_hash(candidate->shader));
    const char *key = text.failed ? NULL : trn_arena_strdup(lower->arena, text.data);
    trn_text_free(&text);
    return key;
}

/* Seconds of the candidate as they were measured on this device; 0: not. */
static double measured(trn_lower *lower, const trn_node *node, const trn_candidate *candidate)
{
    double seconds = 0;
    const char *key = trn_choice_key(lower, node, candidate);
    bool known = key && trn_gpu_tuning_get(lower->gpu, key, &seconds);
    return known && seconds > 0 && isfinite(seconds) ? seconds : 0;
}

static trn_candidate copy_candidate(trn_lower *lower, const trn_candidate *from)
{
    trn_candidate to = *from;
    to.name = trn_arena_strdup(lower->arena, from->name);
    to.shader = trn_arena_strdup(lower->arena, from->shader);
    to.reason = from->reason ? trn_arena_strdup(lower->arena, from->reason) : NULL;
    return to;
}

/* Keeps what was offered; NULL when memory is out (then the default runs). */
static trn_choice *add_choice(trn_lower *lower, const trn_node *node, const trn_candidate *candidates,
                              int count)
{
    trn_candidate *copies = trn_arena_array(lower->arena, (size_t)count, sizeof *copies);
    double *seconds = trn_arena_array(lower->arena, (size_t)count, sizeof *seconds);
    if (!copies || !seconds ||
        !trn_grow(&lower->choices, &lower->choice_capacity, lower->choice_count + 1, sizeof *lower->choices))
        return NULL;
    for (int i = 0; i < count; i++) {
        copies[i] = copy_candidate(lower, &candidates[i]);
        seconds[i] = 0;
        if (!copies[i].name || !copies[i].shader) return NULL;
    }
    trn_choice *choice = &lower->choices[lower->choice_count++];
    *choice =
        (trn_choice){.node = node, .candidates = copies, .seconds = seconds, .count = count, .chosen = 0};
    return choice;
}

static int fastest(const trn_choice *choice)
{
    int best = 0;
    for (int i = 1; i < choice->count; i++) {
        double s = choice->seconds[i];
        if (s > 0 && s < choice->seconds[best]) best = i;
    }
    return choice->seconds[best] < (1 - NOISE) * choice->seconds[0] ? best : 0;
}

/* "measured 1.21 ms; tiles 64x64x16 1.9 ms" */
static const char *tell_measured(trn_lower *lower, const trn_choice *choice)
{
    trn_text text = {0};
    trn_text_printf(&text, "measured %.3g ms", 1e3 * choice->seconds[choice->chosen]);
    for (int i = 0, told = 0; i < choice->count && told < TOLD; i++) {
        if (i == choice->chosen || !(choice->seconds[i] > 0)) continue;
        trn_text_printf(&text, "; %s %.3g ms", choice->candidates[i].name, 1e3 * choice->seconds[i]);
        told++;
    }
    const char *reason = text.failed ? "measured" : trn_arena_strdup(lower->arena, text.data);
    trn_text_free(&text);
    return reason;
}

/* Whether tuning could choose another one. */
static bool has_rivals(const trn_choice *choice)
{
    for (int i = 1; i < choice->count; i++) {
        if (!choice->candidates[i].hopeless) return true;
    }
    return false;
}

static int forced(const trn_lower *lower, const trn_choice *choice)
{
    for (int i = 0; i < choice->count; i++) {
        if (!strcmp(choice->candidates[i].name, lower->kernel)) return i;
    }
    return -1;
}

int trn_lower_choose(trn_lower *lower, const trn_node *node, const trn_candidate *candidates, int count,
                     const char **reason)
{
    trn_choice *choice = add_choice(lower, node, candidates, count);
    *reason = NULL;
    if (!choice) return 0;
    *reason = choice->candidates[0].reason;
    int asked = lower->kernel ? forced(lower, choice) : -1;
    if (asked >= 0) {
        choice->chosen = asked;
        *reason = "asked for";
        return asked;
    }
    if (lower->kernel || !has_rivals(choice)) return 0;
    for (int i = 0; i < count && !trn_gpu_disabled("tuning"); i++)
        choice->seconds[i] = measured(lower, node, &choice->candidates[i]);
    if (!(choice->seconds[0] > 0)) {
        *reason = trn_lower_printf(lower, "default: %s, not measured here", *reason ? *reason : "preferred");
        return 0;
    }
    choice->chosen = fastest(choice);
    *reason = tell_measured(lower, choice);
    return choice->chosen;
}
