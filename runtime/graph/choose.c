/* Which kernel a node runs: one that is asked for, the fastest that was measured here, or the default. */
#include "graph_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOLD = 4 }; /* candidates that a reason names beside the chosen one */
/* A measured gain smaller than this is noise, and the default stays. */
static const double NOISE = 0.03;

/* As it is stored. */
static const char *type_of(const trn_lower *lower, const trn_tensor *tensor)
{
    return trn_type_name(trn_lower_is_half(lower, tensor) ? TRN_F16 : tensor->type);
}

/* The node as far as its speed depends on it: "matmul [197,768] by [2304,768] transposed floats[197,768] .."
 */
static void describe_node(const trn_lower *lower, const trn_node *node, trn_text *out)
{
    char shape[128];
    trn_text_printf(out, "%s ", node->op->name);
    if (node->op->describe) node->op->describe(node, out);
    for (int i = 0; i < node->input_count; i++) {
        const trn_tensor *input = node->inputs[i];
        trn_text_add(out, " ");
        if (!input) continue;
        trn_text_printf(out, "%s%s%s", type_of(lower, input), trn_shape_text(&input->shape, shape),
                        input->constant ? "c" : "");
    }
    trn_text_printf(out, " to %s", type_of(lower, trn_lower_output(lower, node)));
}

/* Hashed once for all nodes. */
static uint64_t shader_hash(trn_lower *lower, const char *shader)
{
    for (int i = 0; i < lower->hashed_count; i++) {
        if (!strcmp(lower->hashed[i].shader, shader)) return lower->hashed[i].hash;
    }
    uint64_t hash = trn_gpu_shader_hash(shader);
    if (lower->hashed_count < (int)TRN_COUNT(lower->hashed))
        lower->hashed[lower->hashed_count++] = (trn_hashed_shader){shader, hash};
    return hash;
}

/* The key of the tuning store for the seconds of a candidate; NULL without memory. */
static const char *key_of(trn_lower *lower, const char *node, const trn_candidate *candidate)
{
    trn_text text = {0};
    trn_text_printf(&text, TRN_CHOICE_PREFIX "%s subgroup %u %s | %s %016llx",
                    trn_gpu_access(lower->gpu) == TRN_ACCESS_ADDRESS ? "address" : "storage",
                    trn_lower_device(lower)->subgroup_size, node, candidate->name,
                    (unsigned long long)shader_hash(lower, candidate->shader));
    const char *key = text.failed ? NULL : trn_arena_strdup(lower->arena, text.data);
    trn_text_free(&text);
    return key;
}

/* Seconds of a candidate as they were measured on this device; 0: not. */
static double measured(const trn_lower *lower, const char *key)
{
    double seconds = 0;
    bool known = trn_gpu_tuning_get(lower->gpu, key, &seconds);
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

/* Copies of the candidates, and their keys. */
static bool fill_choice(trn_lower *lower, const trn_candidate *candidates, trn_choice *choice)
{
    size_t count = (size_t)choice->count;
    trn_text node = {0};
    trn_candidate *copies = trn_arena_array(lower->arena, count, sizeof *copies);
    const char **keys = trn_arena_array(lower->arena, count, sizeof *keys);
    choice->seconds = trn_arena_array(lower->arena, count, sizeof *choice->seconds);
    choice->candidates = copies;
    choice->keys = keys;
    describe_node(lower, choice->node, &node);
    bool good = copies && keys && choice->seconds && !node.failed;
    for (size_t i = 0; good && i < count; i++) {
        copies[i] = copy_candidate(lower, &candidates[i]);
        choice->seconds[i] = 0;
        good = copies[i].name && copies[i].shader;
        if (good) keys[i] = key_of(lower, trn_text_get(&node), &copies[i]);
        good = good && keys[i];
    }
    trn_text_free(&node);
    return good;
}

/* Keeps what was offered; NULL when memory is out (then the default runs). */
static trn_choice *add_choice(trn_lower *lower, const trn_node *node, const trn_candidate *candidates,
                              int count)
{
    trn_choice choice = {
        .node = node, .count = count, .half_output = trn_lower_is_half(lower, trn_lower_output(lower, node))};
    if (!fill_choice(lower, candidates, &choice) ||
        !trn_grow(&lower->choices, &lower->choice_capacity, lower->choice_count + 1, sizeof *lower->choices))
        return NULL;
    lower->choices[lower->choice_count] = choice;
    return &lower->choices[lower->choice_count++];
}

int trn_choose_fastest(const double *seconds, int count)
{
    int best = 0;
    for (int i = 1; i < count; i++) {
        if (seconds[i] > 0 && seconds[i] < seconds[best]) best = i;
    }
    return seconds[best] < (1 - NOISE) * seconds[0] ? best : 0;
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
        choice->seconds[i] = measured(lower, choice->keys[i]);
    if (!(choice->seconds[0] > 0)) {
        *reason = trn_lower_printf(lower, "default: %s, not measured here", *reason ? *reason : "preferred");
        return 0;
    }
    choice->chosen = trn_choose_fastest(choice->seconds, count);
    *reason = tell_measured(lower, choice);
    return choice->chosen;
}
