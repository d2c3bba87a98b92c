/* Executables: memory, uploads, the setup that runs once, the program that is replayed. */
#include "exec.h"

#include <stdlib.h>
#include <string.h>

static size_t tensor_total(const trn_exec *exec)
{
    return exec->graph->tensor_count + exec->lower.extra_count;
}

static trn_tensor *tensor_at(const trn_exec *exec, size_t id)
{
    size_t own = exec->graph->tensor_count;
    return id < own ? exec->graph->tensors[id] : exec->lower.extra[id - own];
}

/* ---- what is constant: weights, tables, and what depends on them alone ---- */

/* last_setup[id]: last setup step that touches the tensor; kept[id]: the run reads it. */
typedef struct constant_use {
    int *last_setup;
    bool *kept;
} constant_use;

/* By the steps that are run. */
static void find_last_setup(const trn_exec *exec, int *last_setup)
{
    for (size_t i = 0; i < tensor_total(exec); i++)
        last_setup[i] = -1;
    for (size_t s = 0; s < exec->lower.step_count; s++) {
        const trn_lowered_step *lowered = &exec->lower.steps[s];
        for (int i = 0; lowered->setup && !lowered->skipped && i < lowered->step.operand_count; i++) {
            const trn_tensor *tensor = lowered->step.operands[i].tensor;
            if (tensor->constant) last_setup[tensor->id] = (int)s;
        }
    }
}

static trn_status find_constant_use(const trn_exec *exec, constant_use *use, trn_error *err)
{
    size_t total = tensor_total(exec);
    use->last_setup = malloc((total + 1) * sizeof *use->last_setup);
    use->kept = calloc(total + 1, sizeof *use->kept);
    if (!use->last_setup || !use->kept) return trn_fail_memory(err, total * sizeof(int), "a compilation");
    find_last_setup(exec, use->last_setup);
    for (size_t s = 0; s < exec->lower.step_count; s++) {
        const trn_lowered_step *lowered = &exec->lower.steps[s];
        for (int i = 0; !lowered->setup && i < lowered->step.operand_count; i++) {
            const trn_tensor *tensor = lowered->step.operands[i].tensor;
            if (tensor->constant) use->kept[tensor->id] = true;
        }
    }
    for (size_t i = 0; i < exec->graph->output_count; i++) {
        const trn_tensor *base = trn_tensor_base(exec->graph->outputs[i].tensor);
        if (base->constant) use->kept[base->id] = true;
    }
    /* every value can be read: also one that was computed only to be packed */
    for (size_t i = 0; exec->options.keep_all && i < exec->graph->tensor_count; i++) {
        /* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): all tensors have one */
        if (exec->graph->tensors[i]->producer && use->last_setup[i] >= 0) use->kept[i] = true;
    }
    return TRN_OK;
}

static void free_constant_use(constant_use *use)
{
    free(use->last_setup);
    free(use->kept);
}

/* Memory for a constant, with its values when it is a leaf. */
static trn_status load_constant(trn_exec *exec, trn_tensor *tensor, trn_error *err)
{
    trn_gpu_buffer **slot = &exec->constants[tensor->id];
    if (*slot) return TRN_OK;
    uint64_t bytes = trn_lower_bytes(&exec->lower, tensor);
    trn_status status =
        trn_gpu_buffer_create(exec->gpu, bytes, tensor->name ? tensor->name : "a constant", slot, err);
    if (status != TRN_OK || tensor->producer || !(tensor->fill || tensor->values)) return status;
    void *data;
    status = trn_leaf_data(tensor, &data, err);
    if (status != TRN_OK) return status;
    if (tensor->type != TRN_F16 && trn_lower_is_half(&exec->lower, tensor))
        status = trn_half_pack(tensor, data, err);
    if (status == TRN_OK) status = trn_gpu_write(exec->gpu, *slot, 0, data, bytes, err);
    free(data);
    return status;
}

/* ---- steps to dispatches ---- */

static trn_binding bind_operand(const trn_exec *exec, const trn_operand *operand)
{
    const trn_tensor *tensor = operand->tensor;
    trn_binding binding = {.offset = operand->offset, .written = operand->written};
    binding.size = operand->size ? operand->size : trn_lower_bytes(&exec->lower, tensor) - operand->offset;
    if (tensor->constant) {
        binding.buffer = exec->constants[tensor->id];
        return binding;
    }
    const trn_place *place = &exec->plan.places[tensor->id];
    binding.buffer = exec->blocks[place->block];
    binding.offset += place->offset;
    return binding;
}

trn_status trn_step_kernel(trn_gpu *gpu, const trn_lowered_step *lowered, const trn_kernel **kernel,
                           trn_error *err)
{
    const trn_kernel_desc desc = trn_lowered_kernel(lowered);
    trn_status status = trn_gpu_kernel(gpu, &desc, kernel, err);
    return status == TRN_OK ? TRN_OK : trn_wrap(err, "%s", lowered->label);
}

/* Compiling a kernel takes hundreds of megabytes for a moment: it is done before weights take theirs. */
static trn_status make_kernels(const trn_exec *exec, trn_error *err)
{
    trn_status status = TRN_OK;
    const trn_kernel *kernel;
    for (size_t s = 0; status == TRN_OK && s < exec->lower.step_count; s++)
        if (!exec->lower.steps[s].skipped)
            status = trn_step_kernel(exec->gpu, &exec->lower.steps[s], &kernel, err);
    return status;
}

static trn_status make_dispatch(trn_exec *exec, const trn_lowered_step *lowered, trn_dispatch *dispatch,
                                trn_error *err)
{
    const trn_step *step = &lowered->step;
    *dispatch = (trn_dispatch){.flops = step->flops, .bytes = step->bytes, .label = lowered->label};
    trn_status status = trn_step_kernel(exec->gpu, lowered, &dispatch->kernel, err);
    if (status != TRN_OK) return status;
    for (int i = 0; i < step->operand_count; i++)
        dispatch->bindings[i] = bind_operand(exec, &step->operands[i]);
    memcpy(dispatch->scalars, step->scalars, sizeof dispatch->scalars);
    memcpy(dispatch->groups, step->groups, sizeof dispatch->groups);
    return TRN_OK;
}

static trn_status run_setup_step(trn_exec *exec, const trn_lowered_step *lowered, trn_error *err)
{
    trn_dispatch dispatch;
    trn_program *program = NULL;
    trn_status status = make_dispatch(exec, lowered, &dispatch, err);
    if (status == TRN_OK) status = trn_program_create(exec->gpu, "setup", &program, err);
    if (status == TRN_OK) status = trn_program_add(program, &dispatch, err);
    if (status == TRN_OK) status = trn_program_run(program, NULL, err);
    trn_program_destroy(program);
    return status;
}

/* Runs the setup step by step; what only the setup needs is freed as soon as its last step ran, so that raw
 * and packed weights are never all there together. */
static trn_status run_setup(trn_exec *exec, const constant_use *use, trn_error *err)
{
    for (size_t s = 0; s < exec->lower.step_count; s++) {
        const trn_lowered_step *lowered = &exec->lower.steps[s];
        if (!lowered->setup || lowered->skipped) continue;
        trn_status status = TRN_OK;
        for (int i = 0; status == TRN_OK && i < lowered->step.operand_count; i++)
            status = load_constant(exec, lowered->step.operands[i].tensor, err);
        if (status == TRN_OK) status = run_setup_step(exec, lowered, err);
        if (status != TRN_OK) return status;
        for (int i = 0; i < lowered->step.operand_count; i++) {
            int id = lowered->step.operands[i].tensor->id;
            if (use->kept[id] || use->last_setup[id] > (int)s) continue;
            trn_gpu_buffer_destroy(exec->gpu, exec->constants[id]);
            exec->constants[id] = NULL;
        }
    }
    return TRN_OK;
}

static trn_status record_program(trn_exec *exec, trn_error *err)
{
    trn_status status = trn_program_create(exec->gpu, "graph", &exec->program, err);
    for (size_t s = 0; status == TRN_OK && s < exec->lower.step_count; s++) {
        trn_dispatch dispatch;
        if (exec->lower.steps[s].setup || exec->lower.steps[s].update) continue;
        status = make_dispatch(exec, &exec->lower.steps[s], &dispatch, err);
        if (status == TRN_OK) status = trn_program_add(exec->program, &dispatch, err);
    }
    return status;
}

/* A program of their own: a run that fails, or is found wrong, leaves states as they were. */
static trn_status record_updates(trn_exec *exec, trn_error *err)
{
    trn_status status = TRN_OK;
    if (exec->graph->update_count) status = trn_program_create(exec->gpu, "updates", &exec->updates, err);
    for (size_t s = 0; status == TRN_OK && s < exec->lower.step_count; s++) {
        trn_dispatch dispatch;
        if (!exec->lower.steps[s].update) continue;
        status = make_dispatch(exec, &exec->lower.steps[s], &dispatch, err);
        if (status == TRN_OK) status = trn_program_add(exec->updates, &dispatch, err);
    }
    return status;
}

/* ---- compiling ---- */

static uint64_t hash_text(const char *text, uint64_t seed)
{
    return text ? trn_fnv1a64(text, strlen(text) + 1, seed) : trn_fnv1a64("", 1, seed);
}

uint64_t trn_kernel_hash(const trn_step *step, const char *generated)
{
    uint64_t hash = hash_text(generated, hash_text(step->shader, TRN_FNV_SEED));
    for (int i = 0; i < step->macro_count; i++)
        hash = hash_text(step->macros[i].value, hash_text(step->macros[i].name, hash));
    hash = trn_fnv1a64(&step->texels, sizeof step->texels, hash);
    return trn_fnv1a64(&step->subgroup_size, sizeof step->subgroup_size, hash);
}

static int compare_hash(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static trn_status count_kernels(trn_exec *exec, trn_error *err)
{
    size_t count = exec->lower.step_count;
    uint64_t *hashes = calloc(count + 1, sizeof *hashes);
    if (!hashes) return trn_fail_memory(err, count * sizeof *hashes, "a compilation");
    for (size_t s = 0; s < count; s++)
        hashes[s] = trn_kernel_hash(&exec->lower.steps[s].step, exec->lower.steps[s].generated);
    qsort(hashes, count, sizeof *hashes, compare_hash);
    for (size_t s = 0; s < count; s++)
        exec->summary.kernels += !s || hashes[s] != hashes[s - 1];
    free(hashes);
    return TRN_OK;
}

static void summarize(trn_exec *exec, const constant_use *use)
{
    trn_exec_summary *sum = &exec->summary;
    for (size_t i = 0; i < exec->lower.group_count; i++) {
        const trn_group *group = &exec->lower.groups[i];
        int nodes = group->chain_count + (group->root != NULL);
        sum->operators += (size_t)nodes;
        sum->fused_operators += (size_t)(nodes - 1);
    }
    for (size_t s = 0; s < exec->lower.step_count; s++) {
        const trn_lowered_step *step = &exec->lower.steps[s];
        if (step->setup) {
            sum->setup_dispatches += !step->skipped;
            continue;
        }
        sum->dispatches++;
        sum->flops += step->step.flops;
        sum->bytes += step->step.bytes;
        exec->nominal += trn_rate_nominal(exec->gpu, &step->step);
    }
    for (size_t i = 0; i < tensor_total(exec); i++) {
        uint64_t bytes = use->kept[i] ? trn_lower_bytes(&exec->lower, tensor_at(exec, i)) : 0;
        sum->weight_bytes += bytes;
        if (trn_shared_has(exec, i)) sum->shared_bytes += bytes;
    }
    for (size_t i = 0; i < exec->graph->tensor_count; i++) {
        const trn_tensor *tensor = exec->graph->tensors[i];
        bool there = tensor->constant ? use->kept[i] : exec->plan.places[i].block >= 0;
        sum->half_values += there && trn_lower_is_half(&exec->lower, tensor);
    }
    sum->precision = exec->options.precision;
    sum->arena_bytes = exec->plan.total;
    sum->arena_bytes_unshared = exec->plan.unshared;
    sum->seat_bytes = trn_seats_bytes(exec);
    sum->estimated_seconds = exec->nominal * trn_rate_slowness(exec->gpu);
}

/* Most that constants take at once, beside those that are there: run_setup loads what a step needs, and frees
 * what was needed last. */
static trn_status find_loading_bytes(trn_exec *exec, const constant_use *use, trn_error *err)
{
    uint64_t held = 0, most = 0;
    bool *loaded = calloc(tensor_total(exec) + 1, sizeof *loaded);
    if (!loaded) return trn_fail_memory(err, tensor_total(exec), "a compilation");
    for (size_t i = 0; i < tensor_total(exec); i++)
        loaded[i] = trn_shared_has(exec, i);
    for (size_t s = 0; s < exec->lower.step_count; s++) {
        const trn_lowered_step *lowered = &exec->lower.steps[s];
        if (!lowered->setup || lowered->skipped) continue;
        for (int i = 0; i < lowered->step.operand_count; i++) {
            const trn_tensor *tensor = lowered->step.operands[i].tensor;
            if (!loaded[tensor->id]) held += trn_lower_bytes(&exec->lower, tensor);
            loaded[tensor->id] = true;
        }
        most = TRN_MAX(most, held);
        for (int i = 0; i < lowered->step.operand_count; i++) {
            const trn_tensor *tensor = lowered->step.operands[i].tensor;
            if (use->kept[tensor->id] || use->last_setup[tensor->id] > (int)s || !loaded[tensor->id])
                continue;
            held -= trn_lower_bytes(&exec->lower, tensor);
            loaded[tensor->id] = false;
        }
    }
    exec->summary.loading_bytes = TRN_MAX(most, exec->summary.weight_bytes - exec->summary.shared_bytes);
    free(loaded);
    return TRN_OK;
}

static trn_status check_memory(const trn_exec *exec, uint64_t limit, trn_error *err)
{
    uint64_t needed = exec->summary.loading_bytes + exec->summary.arena_bytes + exec->summary.seat_bytes;
    uint64_t available = trn_gpu_memory_available(exec->gpu);
    if (limit && (limit < available || !available)) available = limit;
    if (!available || needed <= available) return TRN_OK;
    char text[4][32];
    return trn_fail(err, TRN_ERR_MEMORY,
                    "the graph needs %s of device memory (%s weights, %s values) and %s is available; use a "
                    "smaller batch or "
                    "tile",
                    trn_format_bytes(needed, text[0]), trn_format_bytes(exec->summary.loading_bytes, text[1]),
                    trn_format_bytes(exec->summary.arena_bytes + exec->summary.seat_bytes, text[2]),
                    trn_format_bytes(available, text[3]));
}

static trn_status write_state(trn_exec *exec, const trn_tensor *tensor, trn_error *err)
{
    const trn_place *place = &exec->plan.places[tensor->id];
    void *data;
    if (place->block < 0) return TRN_OK; /* nothing that is asked for depends on it */
    trn_status status = trn_leaf_data(tensor, &data, err);
    if (status != TRN_OK) return status;
    status = trn_gpu_write(exec->gpu, exec->blocks[place->block], place->offset, data,
                           (uint64_t)tensor->count * 4, err);
    free(data);
    return status;
}

static trn_status write_states(trn_exec *exec, trn_error *err)
{
    trn_status status = TRN_OK;
    for (size_t i = 0; status == TRN_OK && i < exec->graph->tensor_count; i++) {
        if (exec->graph->tensors[i]->is_state) status = write_state(exec, exec->graph->tensors[i], err);
    }
    return status;
}

static trn_status realize(trn_exec *exec, const constant_use *use, trn_error *err)
{
    trn_status status = make_kernels(exec, err);
    if (status == TRN_OK)
        status = check_memory(exec, exec->options.memory_limit, err); /* compilers keep some */
    for (int b = 0; status == TRN_OK && b < exec->plan.block_count; b++)
        status = trn_gpu_buffer_create(exec->gpu, exec->plan.block_bytes[b], "the values of a graph",
                                       &exec->blocks[b], err);
    if (status == TRN_OK) status = write_states(exec, err);
    if (status == TRN_OK) status = run_setup(exec, use, err);
    for (size_t i = 0; status == TRN_OK && i < tensor_total(exec); i++) {
        if (use->kept[i]) status = load_constant(exec, tensor_at(exec, i), err);
    }
    if (status == TRN_OK) status = record_program(exec, err);
    return status == TRN_OK ? record_updates(exec, err) : status;
}

/* What device memory cannot bind or hold in one piece is said before anything is made. */
static trn_status check_bindings(const trn_exec *exec, trn_error *err)
{
    uint64_t limit = trn_gpu_info(exec->gpu)->max_storage_range;
    char text[2][32];
    if (trn_gpu_access(exec->gpu) != TRN_ACCESS_STORAGE || !limit) return TRN_OK;
    for (size_t s = 0; s < exec->lower.step_count; s++) {
        const trn_lowered_step *lowered = &exec->lower.steps[s];
        for (int i = 0; i < lowered->step.operand_count; i++) {
            const trn_operand *operand = &lowered->step.operands[i];
            uint64_t size = operand->size ? operand->size : trn_lower_bytes(&exec->lower, operand->tensor);
            if (size <= limit) continue;
            return trn_fail(
                err, TRN_ERR_MEMORY,
                "%s: a tensor of %s is more than the %s that this device binds as a storage buffer; "
                "use a smaller batch or tile",
                lowered->label, trn_format_bytes(size, text[0]), trn_format_bytes(limit, text[1]));
        }
    }
    return TRN_OK;
}

/* Bytes of one block of values: what the device gives at once, less what a buffer takes beside its content.
 */
static uint64_t block_limit_of(const trn_gpu *gpu)
{
    const uint64_t most = (uint64_t)1 << 30, beside = 4096;
    uint64_t limit = trn_gpu_info(gpu)->max_allocation;
    limit = limit ? TRN_MIN(limit, most) : most;
    return limit > 2 * beside ? limit - beside : limit;
}

static bool environment_is(const char *name)
{
    const char *value = getenv(name);
    return value && *value && strcmp(value, "0") != 0;
}

trn_status trn_compile(trn_graph *graph, trn_gpu *gpu, const trn_compile_options *options, trn_exec **out,
                       trn_error *err)
{
    static const trn_compile_options defaults;
    *out = NULL;
    trn_exec *exec = calloc(1, sizeof *exec);
    if (!exec) return trn_fail_memory(err, sizeof *exec, "an executable");
    constant_use use = {0};
    exec->graph = graph;
    exec->gpu = gpu;
    exec->options = options ? *options : defaults;
    exec->options.check |= environment_is("TERRANE_CHECK");
    exec->options.keep_all |= exec->options.check;
    exec->lower =
        (trn_lower){.graph = graph, .gpu = gpu, .arena = trn_arena_create(), .kernel = exec->options.kernel};
    trn_status status = exec->lower.arena ? TRN_OK : trn_fail_memory(err, 1, "an executable");
    bool fusion = !exec->options.no_fusion && !trn_gpu_disabled("fusion");
    if (status == TRN_OK)
        status = trn_precision_choose(gpu, exec->options.precision, &exec->options.precision, err);
    if (status == TRN_OK) status = trn_lower_graph(&exec->lower, fusion, exec->options.precision, err);
    bool fresh_inputs = exec->options.seats > 0 && !exec->options.poison;
    if (status == TRN_OK)
        status = trn_memory_plan_make(&exec->lower, exec->options.keep_all, fresh_inputs, block_limit_of(gpu),
                                      &exec->plan, err);
    if (status == TRN_OK) status = check_bindings(exec, err);
    if (status == TRN_OK) status = count_kernels(exec, err);
    if (status == TRN_OK && exec->options.plan_only) status = trn_rate_measure(gpu, err);
    if (status == TRN_OK) status = find_constant_use(exec, &use, err);
    if (status != TRN_OK) goto fail;
    exec->constants = calloc(tensor_total(exec) + 1, sizeof(trn_gpu_buffer *));
    exec->blocks = calloc((size_t)exec->plan.block_count + 1, sizeof(trn_gpu_buffer *));
    if (!exec->constants || !exec->blocks) {
        status = trn_fail_memory(err, tensor_total(exec) * sizeof(void *), "an executable");
        goto fail;
    }
    status = trn_shared_take(exec, use.kept, err);
    if (status != TRN_OK) goto fail;
    find_last_setup(exec, use.last_setup);
    summarize(exec, &use);
    status = find_loading_bytes(exec, &use, err);
    if (status != TRN_OK) goto fail;
    if (!exec->options.plan_only) {
        status = check_memory(exec, exec->options.memory_limit, err);
        if (status == TRN_OK) status = realize(exec, &use, err);
        if (status == TRN_OK) status = trn_seats_open(exec, err);
        if (status == TRN_OK && environment_is("TERRANE_PROFILE")) trn_exec_profile(exec, true);
    }
    if (status == TRN_OK) status = trn_shared_give(exec, use.kept, err);
    if (status != TRN_OK) goto fail;
    free_constant_use(&use);
    *out = exec;
    return TRN_OK;
fail:
    free_constant_use(&use);
    trn_exec_destroy(exec);
    return status;
}

void trn_exec_destroy(trn_exec *exec)
{
    if (!exec) return;
    trn_seats_close(exec);
    trn_program_destroy(exec->program);
    trn_program_destroy(exec->updates);
    trn_shared_release(exec);
    for (size_t i = 0; exec->constants && i < tensor_total(exec); i++)
        trn_gpu_buffer_destroy(exec->gpu, exec->constants[i]);
    for (int b = 0; exec->blocks && b < exec->plan.block_count; b++)
        trn_gpu_buffer_destroy(exec->gpu, exec->blocks[b]);
    free(exec->constants);
    free(exec->blocks);
    trn_memory_plan_free(&exec->plan);
    trn_lower_free(&exec->lower);
    free(exec);
}

/* ---- running ---- */

trn_status trn_exec_read(trn_exec *exec, trn_tensor *tensor, void *data, trn_error *err)
{
    const trn_tensor *base = trn_tensor_base(tensor);
    const trn_place *place = &exec->plan.places[base->id];
    uint64_t bytes = trn_lower_bytes(&exec->lower, base);
    trn_status status =
        base->constant ? trn_gpu_read(exec->gpu, exec->constants[base->id], 0, data, bytes, err)
                       : trn_gpu_read(exec->gpu, exec->blocks[place->block], place->offset, data, bytes, err);
    if (status == TRN_OK && base->type == TRN_F32 && trn_lower_is_half(&exec->lower, base))
        trn_half_unpack(data, base->count);
    return status;
}

trn_status trn_exec_set(trn_exec *exec, const char *name, const void *data, trn_error *err)
{
    if (exec->options.plan_only) return trn_fail(err, TRN_ERR_ARGUMENT, "the graph was only planned");
    for (size_t i = 0; i < exec->graph->tensor_count; i++) {
        const trn_tensor *tensor = exec->graph->tensors[i];
        if (!tensor->is_input || strcmp(tensor->name, name) != 0) continue;
        const trn_place *place = &exec->plan.places[i];
        if (place->block < 0) return TRN_OK; /* nothing that is asked for depends on it */
        return trn_gpu_write(exec->gpu, exec->blocks[place->block], place->offset, data,
                             (uint64_t)tensor->count * 4, err);
    }
    return trn_fail(err, TRN_ERR_ARGUMENT, "the graph has no input '%s'", name);
}

trn_status trn_exec_get(trn_exec *exec, const char *name, void *data, trn_error *err)
{
    if (exec->options.plan_only) return trn_fail(err, TRN_ERR_ARGUMENT, "the graph was only planned");
    for (size_t i = 0; i < exec->graph->output_count; i++) {
        if (!strcmp(exec->graph->outputs[i].name, name))
            return trn_exec_read(exec, exec->graph->outputs[i].tensor, data, err);
    }
    return trn_fail(err, TRN_ERR_ARGUMENT, "the graph has no output '%s'", name);
}

/* Overwrites every value that the run must write itself with NaN. */
static trn_status poison(trn_exec *exec, trn_error *err)
{
    for (size_t i = 0; i < tensor_total(exec); i++) {
        const trn_place *place = &exec->plan.places[i];
        if (place->block < 0 || tensor_at(exec, i)->is_input) continue;
        trn_status status =
            trn_gpu_fill(exec->gpu, exec->blocks[place->block], place->offset, place->size, 0xffffffffu, err);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}

trn_status trn_exec_run(trn_exec *exec, const trn_progress *progress, trn_error *err)
{
    if (exec->options.plan_only) return trn_fail(err, TRN_ERR_ARGUMENT, "the graph was only planned");
    trn_status status = exec->options.poison ? poison(exec, err) : TRN_OK;
    uint64_t start = trn_now_ns();
    trn_gpu_mark_run(exec->gpu);
    if (status == TRN_OK) status = trn_program_run(exec->program, progress, err);
    if (status != TRN_OK) return status;
    trn_rate_count_run(exec, (double)(trn_now_ns() - start) * 1e-9);
    if (exec->options.check) status = trn_exec_check(exec, err);
    return status == TRN_OK && exec->updates ? trn_program_run(exec->updates, NULL, err) : status;
}

trn_exec_summary trn_exec_summarize(const trn_exec *exec)
{
    return exec->summary;
}

void trn_exec_profile(trn_exec *exec, bool on)
{
    if (!exec->program) return; /* only planned */
    exec->profiled = on;
    trn_program_profile(exec->program, on);
}
