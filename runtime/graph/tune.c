/* Tuning: what kernels that operators offer take on this device, measured node by node; compilations choose
 * by it. */
#include "exec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_RUNS = 3, MOST_RUNS = 50, ROUNDS = 3 };
static const double BUDGET = 60, VISIT_SECONDS = 0.03; /* of one candidate, in one round */
static const double CLOSE = 1.3; /* times the fastest: measured again, in turns with it */
static const double FAR = 4;
static const double DIFFERENT = 0.02; /* results that differ more from the default's are wrong */

/* An input as far as a node of its own needs it. */
typedef struct task_input {
    bool there, constant, half; /* half: stored as float16 */
    int same_as;                /* an earlier input in the same memory, or -1 */
    trn_dtype type;
    trn_shape shape;
    const void *values; /* constants that are known */
} task_input;

typedef struct task_candidate {
    trn_candidate is;
    const char *key;
    double seconds; /* 0: not measured */
    char problem[96];
} task_candidate;

/* A distinct node with a choice. */
typedef struct tune_task {
    const trn_op *op;
    unsigned char attr[TRN_ATTR_BYTES];
    task_input inputs[TRN_MAX_INPUTS];
    int input_count;
    trn_dtype type;
    trn_shape shape;
    bool half; /* the result is stored as float16 */
    trn_precision precision;
    const char *what;
    task_candidate *candidates;
    int count;
    size_t nodes;
    double nominal; /* seconds of one, for the order */
    /* while it is measured */
    trn_graph *graph;
    trn_node *node;
    float *expected, *actual; /* results of the default, and of another */
} tune_task;

struct trn_tuner {
    trn_gpu *gpu;
    trn_arena *arena;
    trn_tune_options options;
    tune_task **tasks;
    size_t task_count, task_capacity, nodes;
    uint64_t deadline;
};

/* ---- what there is to measure ---- */

static bool has_rivals(const trn_choice *choice)
{
    int rivals = 0;
    for (int i = 0; i < choice->count; i++)
        rivals += !choice->candidates[i].hopeless;
    return rivals > 1;
}

static tune_task *find_task(const trn_tuner *tuner, const char *key)
{
    for (size_t i = 0; i < tuner->task_count; i++) {
        if (!strcmp(tuner->tasks[i]->candidates[0].key, key)) return tuner->tasks[i];
    }
    return NULL;
}

static bool copy_input(const trn_tuner *tuner, const trn_lower *lower, const trn_node *node, int i,
                       task_input *to)
{
    trn_tensor *input = node->inputs[i];
    to->same_as = -1;
    if (!input) return true;
    *to = (task_input){.there = true,
                       .constant = input->constant,
                       .same_as = -1,
                       .type = input->type,
                       .shape = input->shape};
    to->half = trn_lower_is_half(lower, input);
    trn_tensor *base = trn_tensor_base(input);
    for (int k = 0; k < i && to->same_as < 0; k++) {
        if (node->inputs[k] && trn_tensor_base(node->inputs[k]) == base) to->same_as = k;
    }
    if (!base->values || to->same_as >= 0) return true;
    void *copy = trn_arena_array(tuner->arena, (size_t)base->count, 4);
    if (copy) memcpy(copy, base->values, (size_t)base->count * 4);
    to->values = copy;
    return copy != NULL;
}

static bool copy_candidates(trn_tuner *tuner, const trn_choice *choice, tune_task *task)
{
    task->count = choice->count;
    task->candidates = trn_arena_array(tuner->arena, (size_t)choice->count, sizeof *task->candidates);
    for (int i = 0; task->candidates && i < choice->count; i++) {
        task_candidate *to = &task->candidates[i];
        *to = (task_candidate){.is = choice->candidates[i]};
        to->is.name = trn_arena_strdup(tuner->arena, choice->candidates[i].name);
        to->is.shader = to->is.reason = NULL;
        to->key = trn_arena_strdup(tuner->arena, choice->keys[i]);
        if (!to->is.name || !to->key) return false;
    }
    return task->candidates != NULL;
}

static const char *describe_task(trn_tuner *tuner, const trn_node *node)
{
    char shape[128];
    trn_text text = {0};
    if (node->op->describe) node->op->describe(node, &text);
    if (!strchr(trn_text_get(&text), '[') && node->inputs[0]) /* no shape in it */
        trn_text_printf(&text, "%s%s", text.length ? " of " : "",
                        trn_shape_text(&node->inputs[0]->shape, shape));
    const char *what = text.failed ? NULL : trn_arena_strdup(tuner->arena, text.data);
    trn_text_free(&text);
    return what;
}

/* NULL when memory is out. */
static tune_task *make_task(trn_tuner *tuner, const trn_exec *exec, const trn_choice *choice)
{
    const trn_node *node = choice->node;
    tune_task *task = trn_arena_alloc(tuner->arena, sizeof *task);
    if (!task) return NULL;
    *task = (tune_task){.op = node->op,
                        .input_count = node->input_count,
                        .type = node->out->type,
                        .shape = node->out->shape,
                        .half = choice->half_output,
                        .precision = exec->options.precision};
    memcpy(task->attr, node->attr, sizeof task->attr);
    for (int i = 0; i < node->input_count; i++) {
        if (!copy_input(tuner, &exec->lower, node, i, &task->inputs[i])) return NULL;
    }
    task->what = describe_task(tuner, node);
    return task->what && copy_candidates(tuner, choice, task) ? task : NULL;
}

static double nominal_of(const trn_exec *exec, const trn_node *node)
{
    double seconds = 0;
    for (size_t s = 0; s < exec->lower.step_count; s++) {
        const trn_lowered_step *lowered = &exec->lower.steps[s];
        if (!lowered->setup && lowered->group && lowered->group->root == node)
            seconds += trn_rate_nominal(exec->gpu, &lowered->step);
    }
    return seconds;
}

static trn_status add_choice(trn_tuner *tuner, const trn_exec *exec, const trn_choice *choice, trn_error *err)
{
    double nominal = nominal_of(exec, choice->node);
    if (!has_rivals(choice) || !(nominal > 0)) return TRN_OK; /* nothing to choose, or not part of a run */
    tune_task *task = find_task(tuner, choice->keys[0]);
    if (!task) {
        task = make_task(tuner, exec, choice);
        if (!task ||
            !trn_grow(&tuner->tasks, &tuner->task_capacity, tuner->task_count + 1, sizeof(tune_task *)))
            return trn_fail_memory(err, sizeof *task, "a list of kernels to be measured");
        task->nominal = nominal;
        tuner->tasks[tuner->task_count++] = task;
    }
    task->nodes++;
    tuner->nodes++;
    return TRN_OK;
}

trn_status trn_tuner_add(trn_tuner *tuner, const trn_exec *exec, trn_error *err)
{
    trn_status status = TRN_OK;
    for (size_t i = 0; status == TRN_OK && i < exec->lower.choice_count; i++)
        status = add_choice(tuner, exec, &exec->lower.choices[i], err);
    return status;
}

/* ---- a graph of one node ---- */

/* Values in [-1, 1) without much work: neither zeros nor subnormals, which are slow or fast on CPUs. */
static void fill_values(float *values, int64_t count)
{
    uint32_t state = 12345;
    for (int64_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = (float)(int32_t)state * 0x1p-31f;
    }
}

static trn_status fill_weights(void *user, const char *name, const trn_shape *shape, void *out,
                               trn_error *err)
{
    (void)user, (void)name, (void)err;
    fill_values(out, trn_shape_count(shape));
    return TRN_OK;
}

static trn_tensor *make_input(const tune_task *task, int i, trn_graph *graph, trn_tensor *const *made)
{
    static const char *const names[TRN_MAX_INPUTS] = {"0", "1", "2", "3", "4", "5", "6"};
    const task_input *input = &task->inputs[i];
    if (!input->there) return NULL;
    if (input->same_as >= 0) return trn_reshape(graph, made[input->same_as], input->shape);
    if (input->values && input->type == TRN_I32)
        return trn_constant_int(graph, names[i], input->shape, input->values);
    if (input->values && input->type == TRN_F32)
        return trn_constant(graph, names[i], input->shape, input->values);
    if (input->type == TRN_I32) return trn_input(graph, names[i], TRN_I32, input->shape);
    trn_tensor *x = input->constant ? trn_param(graph, names[i], input->shape, fill_weights, NULL)
                                    : trn_input(graph, names[i], TRN_F32, input->shape);
    if (input->type == TRN_F16) return trn_cast(graph, x, TRN_F16);
    /* inputs of a graph are float32: what is stored as float16 is a value that a kernel made */
    return input->half && !input->constant ? trn_unary(graph, "relu", x) : x;
}

/* Outputs of a graph are float32, too: a kernel reads what shall be stored as float16. */
static trn_tensor *read_output(const tune_task *task, trn_graph *graph)
{
    trn_tensor *y = trn_cast(graph, task->node->out, TRN_F32);
    return task->half && task->type == TRN_F32 ? trn_slice(graph, y, 0, 0, task->shape.dim[0]) : y;
}

static trn_status build_node(tune_task *task, trn_error *err)
{
    trn_tensor *inputs[TRN_MAX_INPUTS] = {0};
    trn_graph *graph = task->graph = trn_graph_create();
    if (!graph) return trn_fail_memory(err, 1, "a graph");
    for (int i = 0; i < task->input_count; i++)
        inputs[i] = make_input(task, i, graph, inputs);
    task->node = trn_node_add(graph, task->op, inputs, task->input_count, task->type, task->shape);
    if (task->node) {
        memcpy(task->node->attr, task->attr, sizeof task->attr);
        trn_output_add(graph, "y", read_output(task, graph));
    }
    trn_status status = trn_graph_status(graph, err);
    if (status != TRN_OK) return status;
    size_t bytes = (size_t)trn_shape_count(&task->shape) * 4;
    task->expected = malloc(bytes);
    task->actual = malloc(bytes);
    return task->expected && task->actual ? TRN_OK : trn_fail_memory(err, 2 * bytes, "results to compare");
}

static void free_node(tune_task *task)
{
    trn_graph_destroy(task->graph);
    free(task->expected);
    free(task->actual);
    task->graph = NULL;
    task->node = NULL;
    task->expected = task->actual = NULL;
}

static trn_status set_inputs(trn_exec *exec, trn_error *err)
{
    trn_status status = TRN_OK;
    for (size_t i = 0; status == TRN_OK && i < exec->graph->tensor_count; i++) {
        const trn_tensor *tensor = exec->graph->tensors[i];
        if (!tensor->is_input) continue;
        float *values = calloc((size_t)tensor->count, 4); /* integers are 0: in range for every index */
        if (!values) return trn_fail_memory(err, (size_t)tensor->count * 4, "an input");
        if (tensor->type == TRN_F32) fill_values(values, tensor->count);
        status = trn_exec_set(exec, tensor->name, values, err);
        free(values);
    }
    return status;
}

/* ---- measuring ---- */

/* Seconds of the node's dispatches in the last run. */
static double node_seconds(const trn_exec *exec, const trn_node *node)
{
    double seconds = 0;
    size_t dispatch = 0;
    for (size_t s = 0; s < exec->lower.step_count; s++) {
        const trn_lowered_step *lowered = &exec->lower.steps[s];
        if (lowered->setup || lowered->update) continue;
        if (lowered->group->root == node) seconds += trn_program_time(exec->program, dispatch).seconds;
        dispatch++;
    }
    return seconds;
}

/* Whether the node alone is offered the very same as within its graph, and runs what was asked for. */
static bool is_same(const tune_task *task, const trn_exec *exec, const task_candidate *candidate)
{
    for (size_t i = 0; i < exec->lower.choice_count; i++) {
        const trn_choice *choice = &exec->lower.choices[i];
        const trn_candidate *chosen = &choice->candidates[choice->chosen];
        if (choice->node != task->node || strcmp(chosen->name, candidate->is.name) != 0) continue;
        return !strcmp(choice->keys[choice->chosen], candidate->key);
    }
    return false;
}

static trn_status time_runs(const trn_tuner *tuner, const tune_task *task, trn_exec *exec, double *best,
                            trn_error *err)
{
    double spent = 0;
    for (int r = 0; r < MOST_RUNS && (r < LEAST_RUNS || spent < VISIT_SECONDS); r++) {
        trn_status status = trn_exec_run(exec, &tuner->options.progress, err);
        if (status != TRN_OK) return status;
        double seconds = node_seconds(exec, task->node);
        if (!(seconds > 0))
            return trn_fail(err, TRN_ERR_UNSUPPORTED, "this device does not time what runs on it");
        *best = *best > 0 ? TRN_MIN(*best, seconds) : seconds;
        spent += seconds;
        if (trn_now_ns() > tuner->deadline) break;
    }
    return TRN_OK;
}

/* Compares with what the default computed, which comes first. */
static trn_status check_result(tune_task *task, trn_exec *exec, task_candidate *candidate, trn_error *err)
{
    bool first = candidate == task->candidates;
    trn_status status = trn_exec_get(exec, "y", first ? task->expected : task->actual, err);
    if (status != TRN_OK || first) return status;
    double error = trn_worst_error(task->actual, task->expected, task->node->out->count);
    if (!(error < DIFFERENT)) return trn_fail(err, TRN_ERR_INTERNAL, "its result is wrong by %.2g", error);
    return TRN_OK;
}

/* One visit: the first run is not counted, drivers compile in it. */
static trn_status visit(const trn_tuner *tuner, tune_task *task, task_candidate *candidate, bool first,
                        trn_error *err)
{
    trn_exec *exec = NULL;
    trn_compile_options options = {.kernel = candidate->is.name, .precision = task->precision};
    trn_status status = trn_compile(task->graph, tuner->gpu, &options, &exec, err);
    if (status == TRN_OK && !is_same(task, exec, candidate))
        status = trn_fail(err, TRN_ERR_UNSUPPORTED, "cannot be measured apart from its graph");
    if (status == TRN_OK) status = set_inputs(exec, err);
    if (status == TRN_OK) status = trn_exec_run(exec, &tuner->options.progress, err);
    if (status == TRN_OK && first) status = check_result(task, exec, candidate, err);
    if (status == TRN_OK) trn_exec_profile(exec, true);
    if (status == TRN_OK) status = time_runs(tuner, task, exec, &candidate->seconds, err);
    trn_exec_destroy(exec);
    return status;
}

/* Failures of a candidate are its own problem, unless nothing can go on. */
static trn_status visit_or_note(const trn_tuner *tuner, tune_task *task, task_candidate *candidate,
                                bool first, trn_error *err)
{
    trn_error why = {0};
    trn_status status = visit(tuner, task, candidate, first, &why);
    if (status == TRN_OK) return TRN_OK;
    if (status == TRN_ERR_DEVICE_LOST || status == TRN_ERR_CANCELLED) {
        if (err) *err = why;
        return status;
    }
    candidate->seconds = 0;
    snprintf(candidate->problem, sizeof candidate->problem, "%.90s", why.message);
    return TRN_OK;
}

static bool out_of_time(const trn_tuner *tuner)
{
    return trn_now_ns() > tuner->deadline;
}

static double fastest_of(const tune_task *task)
{
    double best = INFINITY;
    for (int i = 0; i < task->count; i++) {
        if (task->candidates[i].seconds > 0) best = TRN_MIN(best, task->candidates[i].seconds);
    }
    return best;
}

/* All once, then those close to the fastest in turns; as far as time allows. */
static trn_status measure_all(const trn_tuner *tuner, tune_task *task, trn_error *err)
{
    for (int i = 0; i < task->count; i++) {
        task_candidate *candidate = &task->candidates[i];
        if (i && candidate->is.hopeless) continue;
        if (out_of_time(tuner)) return TRN_OK;
        trn_status status = visit_or_note(tuner, task, candidate, true, err);
        if (status != TRN_OK) return status;
    }
    double limit = CLOSE * fastest_of(task);
    for (int round = 1; round < ROUNDS; round++) {
        for (int i = 0; i < task->count && !out_of_time(tuner); i++) {
            task_candidate *candidate = &task->candidates[i];
            double most = i ? limit : FAR * limit; /* the default loses only when it is measured well */
            if (!(candidate->seconds > 0) || candidate->seconds > most) continue;
            trn_status status = visit_or_note(tuner, task, candidate, false, err);
            if (status != TRN_OK) return status;
        }
    }
    return TRN_OK;
}

/* Keeps the seconds, and tells of them. A candidate that failed is forgotten. */
static void keep(const trn_tuner *tuner, const tune_task *task, trn_tune_summary *summary)
{
    double *seconds = calloc((size_t)task->count, sizeof *seconds);
    trn_tuned_candidate *list = calloc((size_t)task->count, sizeof *list);
    for (int i = 0; seconds && list && i < task->count; i++) {
        const task_candidate *from = &task->candidates[i];
        list[i] = (trn_tuned_candidate){.name = from->is.name, .seconds = from->seconds};
        snprintf(list[i].problem, sizeof list[i].problem, "%s", from->problem);
        seconds[i] = from->seconds;
        if (from->seconds > 0 || from->problem[0]) trn_gpu_tuning_set(tuner->gpu, from->key, from->seconds);
    }
    trn_gpu_tuning_save(tuner->gpu);
    if (seconds && list) {
        trn_tuned tuned = {.op = task->op->name,
                           .what = task->what,
                           .candidates = list,
                           .count = task->count,
                           .chosen = trn_choose_fastest(seconds, task->count),
                           .nodes = task->nodes};
        summary->measured++;
        summary->default_seconds += (double)task->nodes * seconds[0];
        summary->chosen_seconds += (double)task->nodes * seconds[tuned.chosen];
        if (tuner->options.report) tuner->options.report(tuner->options.user, &tuned);
    }
    free(seconds);
    free(list);
}

static trn_status measure(trn_tuner *tuner, tune_task *task, trn_tune_summary *summary, trn_error *err)
{
    trn_error why = {0};
    trn_status status = build_node(task, &why);
    if (status != TRN_OK) { /* others may go */
        trn_log(TRN_LOG_WARN, "%s %s is not measured: %s", task->op->name, task->what, why.message);
        free_node(task);
        return TRN_OK;
    }
    status = measure_all(tuner, task, err);
    if (task->candidates[0].seconds > 0 || task->candidates[0].problem[0]) keep(tuner, task, summary);
    free_node(task);
    return status;
}

static int compare_tasks(const void *a, const void *b)
{
    const tune_task *x = *(tune_task *const *)a, *y = *(tune_task *const *)b;
    double left = x->nominal * (double)x->nodes, right = y->nominal * (double)y->nodes;
    if (left != right) return left < right ? 1 : -1;
    return strcmp(x->candidates[0].key, y->candidates[0].key);
}

trn_status trn_tuner_run(trn_tuner *tuner, trn_tune_summary *summary, trn_error *err)
{
    double budget = tuner->options.seconds > 0 ? tuner->options.seconds : BUDGET;
    trn_status status = TRN_OK;
    *summary = (trn_tune_summary){.nodes = tuner->nodes, .distinct = tuner->task_count};
    tuner->deadline = trn_now_ns() + (uint64_t)(budget * 1e9);
    if (tuner->task_count) qsort(tuner->tasks, tuner->task_count, sizeof *tuner->tasks, compare_tasks);
    for (size_t i = 0; status == TRN_OK && i < tuner->task_count && !out_of_time(tuner); i++) {
        trn_progress_report(&tuner->options.progress, "measuring kernels", i, tuner->task_count);
        if (trn_progress_cancelled(&tuner->options.progress)) return trn_fail_cancelled(err, "tuning");
        status = measure(tuner, tuner->tasks[i], summary, err);
    }
    return status;
}

/* ---- the tuner ---- */

trn_status trn_tuner_create(trn_gpu *gpu, const trn_tune_options *options, trn_tuner **out, trn_error *err)
{
    trn_tuner *tuner = calloc(1, sizeof *tuner);
    *out = NULL;
    if (tuner) tuner->arena = trn_arena_create();
    if (!tuner || !tuner->arena) {
        free(tuner);
        return trn_fail_memory(err, sizeof *tuner, "a tuner");
    }
    tuner->gpu = gpu;
    if (options) tuner->options = *options;
    *out = tuner;
    return TRN_OK;
}

void trn_tuner_destroy(trn_tuner *tuner)
{
    if (!tuner) return;
    free(tuner->tasks);
    trn_arena_destroy(tuner->arena);
    free(tuner);
}

size_t trn_tune_clear(trn_gpu *gpu)
{
    return trn_gpu_tuning_remove(gpu, TRN_CHOICE_PREFIX);
}
