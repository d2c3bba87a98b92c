/* Programs: dispatches recorded once with the barriers their data need, cut into submissions by measured
 * time.
 *
 * An operation is a dispatch as added. An item is an operation, or a part of one along its longest axis. A
 * segment is the items of one submission. The first run of a program cuts segments one by one and measures
 * each item; from then on the segments are recorded and replayed. Times not yet measured are estimated:
 * nominal time (from flops and bytes) times the device's slowness, which every measurement corrects. */
#include "gpu_internal.h"
#include "gpu_testing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PUSH_WORDS = 32, MAX_PARTS = 256, MAX_MEASURED_ITEMS = 200, MAX_ITEMS = 65536, MAX_REPLANS = 8 };
/* A dispatch costs this much whatever it does. */
static const double dispatch_seconds = 1e-5;

typedef struct op {
    const trn_kernel *kernel;
    trn_binding bindings[TRN_MAX_BINDINGS];
    uint32_t push[MAX_PUSH_WORDS], push_bytes;
    uint32_t groups[3];
    double flops, bytes, nominal;
    double seconds; /* measured; 0: not yet */
    double last;    /* in the last measured run */
    const char *label;
    VkDescriptorSet set;
    VkBufferView views[TRN_MAX_TEXELS];
} op;

typedef struct item {
    uint32_t op, axis, first, count;
} item;

typedef struct segment {
    size_t first, count; /* items */
    VkCommandBuffer commands;
    uint64_t ticket;
    double estimate;
} segment;

/* Where cutting stands: part of an operation, from group `first` of its longest axis on. */
typedef struct cursor {
    size_t op;
    uint32_t first;
} cursor;

/* Bytes that dispatches since the last barrier touch. */
typedef struct touched {
    const trn_block *block;
    uint64_t begin, end;
    bool written;
} touched;

struct trn_program {
    trn_gpu *gpu;
    char *label;
    trn_arena *arena; /* labels of operations */
    op *ops;
    size_t op_count, op_capacity;
    trn_gpu_buffer **buffers; /* each one that an operation uses, once */
    size_t buffer_count, buffer_capacity;
    item *items;
    size_t item_count, item_capacity;
    segment *segments;
    size_t segment_count, segment_capacity;
    touched *touched;
    size_t touched_count, touched_capacity;
    size_t barriers;
    VkCommandPool pool;
    VkCommandBuffer scratch; /* of measured runs */
    VkQueryPool queries;
    VkDescriptorPool descriptors;
    uint64_t ticket;
    bool profile, measured, planned;
    int replans;
};

/* ---- adding ---- */

static double nominal_seconds(const trn_gpu *gpu, double flops, double bytes)
{
    double flop_rate = 2e12, byte_rate = 1e11; /* what a device of its type does without trying */
    if (gpu->info.type == TRN_DEVICE_CPU) flop_rate = 2e10, byte_rate = 5e9;
    if (gpu->info.type == TRN_DEVICE_INTEGRATED) flop_rate = 3e11, byte_rate = 2e10;
    return dispatch_seconds + TRN_MAX(flops / flop_rate, bytes / byte_rate);
}

trn_status trn_program_create(trn_gpu *gpu, const char *label, trn_program **out, trn_error *err)
{
    *out = NULL;
    trn_status status = trn_gpu_alive(gpu, err);
    if (status != TRN_OK) return status;
    trn_program *program = calloc(1, sizeof *program);
    if (!program) return trn_fail_memory(err, sizeof *program, "a program");
    program->gpu = gpu;
    program->label = strdup(label ? label : "program");
    program->arena = trn_arena_create();
    if (!program->label || !program->arena) {
        status = trn_fail_memory(err, sizeof *program, "a program");
        goto fail;
    }
    VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                    .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
                                    .queueFamilyIndex = gpu->detail.queue_family};
    status = TRN_VK(gpu, err, vkCreateCommandPool(gpu->device, &pool, NULL, &program->pool));
    if (status != TRN_OK) goto fail;
    *out = program;
    return TRN_OK;
fail:
    trn_program_destroy(program);
    return status;
}

static trn_status check_binding(const trn_gpu *gpu, const trn_dispatch *dispatch, int i, trn_error *err)
{
    const trn_binding *b = &dispatch->bindings[i];
    const char *label = dispatch->label ? dispatch->label : dispatch->kernel->name;
    if (!b->buffer)
        return trn_fail(err, TRN_ERR_INTERNAL, "dispatch '%s': binding %d has no buffer", label, i);
    if (!b->size || b->offset > b->buffer->size || b->size > b->buffer->size - b->offset)
        return trn_fail(err, TRN_ERR_INTERNAL,
                        "dispatch '%s': binding %d takes %llu bytes at %llu of buffer '%s', which has %llu",
                        label, i, (unsigned long long)b->size, (unsigned long long)b->offset,
                        b->buffer->label, (unsigned long long)b->buffer->size);
    bool storage = gpu->access == TRN_ACCESS_STORAGE;
    if (b->offset % (storage ? gpu->info.storage_alignment : 4))
        return trn_fail(err, TRN_ERR_INTERNAL,
                        "dispatch '%s': binding %d begins at %llu, not a multiple of %llu", label, i,
                        (unsigned long long)b->offset,
                        (unsigned long long)(storage ? gpu->info.storage_alignment : 4));
    if (storage && b->size > gpu->info.max_storage_range)
        return trn_fail(
            err, TRN_ERR_UNSUPPORTED,
            "dispatch '%s': binding %d has %llu bytes; device %s binds at most %llu. Use a smaller batch "
            "or tile, or address access",
            label, i, (unsigned long long)b->size, gpu->info.name,
            (unsigned long long)gpu->info.max_storage_range);
    return TRN_OK;
}

static trn_status check_texels(const trn_gpu *gpu, const trn_dispatch *dispatch, int i, trn_error *err)
{
    const trn_binding *b = &dispatch->bindings[i];
    if ((b->buffer->offset + b->offset) % TRN_TEXEL_BYTES == 0 && b->size >= TRN_TEXEL_BYTES &&
        b->size <= gpu->info.max_texel_range)
        return TRN_OK;
    return trn_fail(err, TRN_ERR_INTERNAL,
                    "dispatch '%s': binding %d, %llu bytes at %llu, cannot be read as texels of %d bytes",
                    dispatch->label ? dispatch->label : dispatch->kernel->name, i,
                    (unsigned long long)b->size, (unsigned long long)b->offset, TRN_TEXEL_BYTES);
}

static trn_status check_dispatch(const trn_gpu *gpu, const trn_dispatch *dispatch, trn_error *err)
{
    if (!dispatch->kernel) return trn_fail(err, TRN_ERR_INTERNAL, "a dispatch has no kernel");
    const char *label = dispatch->label ? dispatch->label : dispatch->kernel->name;
    for (int i = 0; i < 3; i++)
        if (!dispatch->groups[i] || dispatch->groups[i] > gpu->info.max_group_count[i])
            return trn_fail(err, TRN_ERR_INTERNAL,
                            "dispatch '%s' has %ux%ux%u work groups; device %s allows 1 to %ux%ux%u", label,
                            dispatch->groups[0], dispatch->groups[1], dispatch->groups[2], gpu->info.name,
                            gpu->info.max_group_count[0], gpu->info.max_group_count[1],
                            gpu->info.max_group_count[2]);
    trn_status status = TRN_OK;
    for (int i = 0; status == TRN_OK && i < dispatch->kernel->buffers; i++)
        status = check_binding(gpu, dispatch, i, err);
    for (int i = 0; status == TRN_OK && i < dispatch->kernel->texels; i++)
        status = check_texels(gpu, dispatch, i, err);
    return status;
}

static bool remember_buffer(trn_program *program, trn_gpu_buffer *buffer)
{
    for (size_t i = 0; i < program->buffer_count; i++)
        if (program->buffers[i] == buffer) return true;
    if (!trn_grow(&program->buffers, &program->buffer_capacity, program->buffer_count + 1,
                  sizeof *program->buffers))
        return false;
    program->buffers[program->buffer_count++] = buffer;
    return true;
}

/* Push constants: addresses (in address access), then scalars. */
static void fill_push(const trn_gpu *gpu, op *o, const trn_dispatch *dispatch)
{
    uint8_t *at = (uint8_t *)o->push;
    for (int i = 0; gpu->access == TRN_ACCESS_ADDRESS && i < o->kernel->buffers; i++, at += 8) {
        const trn_binding *b = &o->bindings[i];
        uint64_t address = b->buffer->block->address + b->buffer->offset + b->offset;
        memcpy(at, &address, 8);
    }
    for (int i = 0; i < o->kernel->scalars; i++, at += 4)
        memcpy(at, &dispatch->scalars[i], 4);
    o->push_bytes = (uint32_t)(at - (uint8_t *)o->push);
}

static trn_status drop_plan(trn_program *program, trn_error *err);

trn_status trn_program_add(trn_program *program, const trn_dispatch *dispatch, trn_error *err)
{
    trn_gpu *gpu = program->gpu;
    trn_status status = check_dispatch(gpu, dispatch, err);
    if (status == TRN_OK) status = drop_plan(program, err);
    if (status != TRN_OK) return status;
    if (!trn_grow(&program->ops, &program->op_capacity, program->op_count + 1, sizeof *program->ops))
        return trn_fail_memory(err, sizeof *program->ops, "a dispatch");
    op *o = &program->ops[program->op_count];
    *o = (op){.kernel = dispatch->kernel, .flops = dispatch->flops, .bytes = dispatch->bytes};
    o->label = trn_arena_strdup(program->arena, dispatch->label ? dispatch->label : dispatch->kernel->name);
    if (!o->label) return trn_fail_memory(err, 64, "a label");
    double touched_bytes = 0;
    for (int i = 0; i < o->kernel->buffers; i++) {
        o->bindings[i] = dispatch->bindings[i];
        touched_bytes += (double)o->bindings[i].size;
        if (!remember_buffer(program, o->bindings[i].buffer))
            return trn_fail_memory(err, 64, "a list of buffers");
    }
    memcpy(o->groups, dispatch->groups, sizeof o->groups);
    o->nominal = nominal_seconds(gpu, o->flops, o->bytes > 0 ? o->bytes : touched_bytes);
    fill_push(gpu, o, dispatch);
    program->op_count++;
    program->measured = false;
    return TRN_OK;
}

/* ---- cutting ---- */

static uint32_t longest_axis(const op *o)
{
    uint32_t axis = 0;
    for (uint32_t i = 1; i < 3; i++)
        if (o->groups[i] > o->groups[axis]) axis = i;
    return axis;
}

static double estimate(const trn_gpu *gpu, const op *o)
{
    return o->seconds > 0 ? o->seconds : o->nominal * gpu->slowness;
}

/* How many groups of the operation, of `left`, go into an item that may take `room` seconds; 0: it goes
 * elsewhere. */
static uint32_t fitting_groups(double seconds, uint32_t groups, uint32_t left, double room, double target)
{
    double per_group = seconds / groups;
    if (per_group * left <= room) return left;
    if (seconds <= target && room < target) return 0; /* it fits whole into a submission of its own */
    uint32_t least = (groups + MAX_PARTS - 1) / MAX_PARTS;
    double fit = floor(room / per_group);
    if (fit < least) return room < target ? 0 : TRN_MIN(least, left);
    return (uint32_t)TRN_MIN(fit, (double)left);
}

/* Appends the items of the next segment to program->items: as many as the estimates let into `target`
 * seconds, at least one, at most max_items. False without memory. */
static bool cut_segment(trn_program *program, cursor *at, double target, size_t max_items, segment *out)
{
    *out = (segment){.first = program->item_count};
    while (at->op < program->op_count && out->count < max_items) {
        const op *o = &program->ops[at->op];
        uint32_t axis = longest_axis(o), left = o->groups[axis] - at->first;
        double seconds = estimate(program->gpu, o), room = out->count ? target - out->estimate : target;
        uint32_t count = fitting_groups(seconds, o->groups[axis], left, room, target);
        if (!count) break;
        if (!trn_grow(&program->items, &program->item_capacity, program->item_count + 1,
                      sizeof *program->items))
            return false;
        program->items[program->item_count++] = (item){(uint32_t)at->op, axis, at->first, count};
        out->count++;
        out->estimate += seconds * count / o->groups[axis];
        at->first += count;
        if (count == left) *at = (cursor){at->op + 1, 0};
        if (count < left) break;
    }
    return true;
}

/* ---- recording ---- */

static void memory_barrier(trn_gpu *gpu, VkCommandBuffer commands, VkPipelineStageFlags from,
                           VkAccessFlags writes, VkPipelineStageFlags to, VkAccessFlags reads)
{
    VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = writes, .dstAccessMask = reads};
    gpu->vk.vkCmdPipelineBarrier(commands, from, to, 0, 1, &barrier, 0, NULL, 0, NULL);
}

static void compute_barrier(trn_gpu *gpu, VkCommandBuffer commands)
{
    memory_barrier(gpu, commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
                   VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                   VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
}

/* What earlier submissions wrote, also by copies, becomes visible to this one. */
static void begin_barrier(trn_gpu *gpu, VkCommandBuffer commands)
{
    VkPipelineStageFlags work = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    memory_barrier(gpu, commands, work, VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
                   VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                   VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
}

static void end_barrier(trn_gpu *gpu, VkCommandBuffer commands)
{
    memory_barrier(gpu, commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
                   VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT);
}

static touched touched_by(const trn_binding *b)
{
    uint64_t begin = b->buffer->offset + b->offset;
    return (touched){b->buffer->block, begin, begin + b->size, b->written};
}

static bool conflicts(const trn_program *program, const op *o)
{
    for (int i = 0; i < o->kernel->buffers; i++) {
        touched mine = touched_by(&o->bindings[i]);
        for (size_t k = 0; k < program->touched_count; k++) {
            const touched *t = &program->touched[k];
            if (t->block == mine.block && t->begin < mine.end && mine.begin < t->end &&
                (t->written || mine.written))
                return true;
        }
    }
    return false;
}

static bool touch(trn_program *program, const op *o)
{
    size_t need = program->touched_count + (size_t)o->kernel->buffers;
    if (!trn_grow(&program->touched, &program->touched_capacity, need, sizeof *program->touched))
        return false;
    for (int i = 0; i < o->kernel->buffers; i++)
        program->touched[program->touched_count++] = touched_by(&o->bindings[i]);
    return true;
}

static void record_item(trn_program *program, VkCommandBuffer commands, const item *it)
{
    trn_gpu *gpu = program->gpu;
    const op *o = &program->ops[it->op];
    int descriptors = trn_kernel_descriptors(gpu, o->kernel);
    VkPipelineLayout layout = gpu->pipeline_layouts[descriptors];
    uint32_t first[3] = {0}, count[3] = {o->groups[0], o->groups[1], o->groups[2]};
    first[it->axis] = it->first;
    count[it->axis] = it->count;
    gpu->vk.vkCmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, o->kernel->pipeline);
    if (descriptors)
        gpu->vk.vkCmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, layout, 0, 1, &o->set, 0,
                                        NULL);
    gpu->vk.vkCmdPushConstants(commands, layout, VK_SHADER_STAGE_COMPUTE_BIT, 0, o->push_bytes, o->push);
    gpu->vk.vkCmdDispatchBase(commands, first[0], first[1], first[2], count[0], count[1], count[2]);
    gpu->stats.dispatches++;
}

/* Parts of one operation never wait for each other; between operations a barrier stands only where data meet.
 */
static bool record_items(trn_program *program, const segment *s, VkCommandBuffer commands)
{
    program->touched_count = 0;
    for (size_t i = 0; i < s->count; i++) {
        const item *it = &program->items[s->first + i];
        const op *o = &program->ops[it->op];
        bool same = i && it->op == program->items[s->first + i - 1].op;
        if (!same && conflicts(program, o)) {
            compute_barrier(program->gpu, commands);
            program->touched_count = 0;
            program->barriers++;
        }
        if (!same && !touch(program, o)) return false;
        record_item(program, commands, it);
    }
    return true;
}

/* One item after the other, each between two time stamps. */
static void record_measured(trn_program *program, const segment *s, VkCommandBuffer commands)
{
    trn_gpu *gpu = program->gpu;
    bool stamps = program->queries != VK_NULL_HANDLE;
    if (stamps) {
        gpu->vk.vkCmdResetQueryPool(commands, program->queries, 0, (uint32_t)s->count + 1);
        gpu->vk.vkCmdWriteTimestamp(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, program->queries, 0);
    }
    for (size_t i = 0; i < s->count; i++) {
        if (i) compute_barrier(gpu, commands);
        record_item(program, commands, &program->items[s->first + i]);
        if (stamps)
            gpu->vk.vkCmdWriteTimestamp(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, program->queries,
                                        (uint32_t)i + 1);
    }
}

static trn_status record(trn_program *program, segment *s, bool measured, trn_error *err)
{
    trn_gpu *gpu = program->gpu;
    VkCommandBufferUsageFlags usage =
        measured ? VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT : VK_COMMAND_BUFFER_USAGE_SIMULTANEOUS_USE_BIT;
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO, .flags = usage};
    trn_status status = TRN_VK(gpu, err, vkBeginCommandBuffer(s->commands, &begin));
    if (status != TRN_OK) return status;
    begin_barrier(gpu, s->commands);
    if (measured)
        record_measured(program, s, s->commands);
    else if (!record_items(program, s, s->commands))
        return trn_fail_memory(err, sizeof(touched), "the barriers of a program");
    end_barrier(gpu, s->commands);
    return TRN_VK(gpu, err, vkEndCommandBuffer(s->commands));
}

/* ---- descriptors ---- */

static void free_sets(trn_program *program)
{
    trn_gpu *gpu = program->gpu;
    gpu->vk.vkDestroyDescriptorPool(gpu->device, program->descriptors, NULL);
    program->descriptors = VK_NULL_HANDLE;
    for (size_t i = 0; i < program->op_count; i++) {
        op *o = &program->ops[i];
        for (int v = 0; v < TRN_MAX_TEXELS; v++) {
            gpu->vk.vkDestroyBufferView(gpu->device, o->views[v], NULL);
            o->views[v] = VK_NULL_HANDLE;
        }
    }
}

static trn_status make_views(trn_program *program, op *o, trn_error *err)
{
    trn_gpu *gpu = program->gpu;
    trn_status status = TRN_OK;
    for (int i = 0; status == TRN_OK && i < o->kernel->texels; i++) {
        const trn_binding *b = &o->bindings[i];
        VkBufferViewCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_VIEW_CREATE_INFO,
                                       .buffer = b->buffer->block->buffer,
                                       .format = VK_FORMAT_R32G32B32A32_SFLOAT,
                                       .offset = b->buffer->offset + b->offset,
                                       .range = b->size / TRN_TEXEL_BYTES * TRN_TEXEL_BYTES};
        status = TRN_VK(gpu, err, vkCreateBufferView(gpu->device, &info, NULL, &o->views[i]));
    }
    return status;
}

static void write_set(trn_program *program, const op *o)
{
    VkDescriptorBufferInfo infos[TRN_MAX_BINDINGS];
    VkWriteDescriptorSet writes[TRN_MAX_BINDINGS];
    int count = trn_kernel_descriptors(program->gpu, o->kernel);
    for (int i = 0; i < count; i++) {
        const trn_binding *b = &o->bindings[i];
        infos[i] = (VkDescriptorBufferInfo){b->buffer->block->buffer, b->buffer->offset + b->offset, b->size};
        writes[i] = (VkWriteDescriptorSet){.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                           .dstSet = o->set,
                                           .dstBinding = (uint32_t)i,
                                           .descriptorCount = 1,
                                           .descriptorType = trn_descriptor_type(program->gpu),
                                           .pBufferInfo = &infos[i],
                                           .pTexelBufferView = i < TRN_MAX_TEXELS ? &o->views[i] : NULL};
    }
    program->gpu->vk.vkUpdateDescriptorSets(program->gpu->device, (uint32_t)count, writes, 0, NULL);
}

static trn_status make_set(trn_program *program, op *o, trn_error *err)
{
    trn_gpu *gpu = program->gpu;
    int count = trn_kernel_descriptors(gpu, o->kernel);
    if (!count) return TRN_OK;
    VkDescriptorSetAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                        .descriptorPool = program->descriptors,
                                        .descriptorSetCount = 1,
                                        .pSetLayouts = &gpu->set_layouts[count]};
    trn_status status = make_views(program, o, err);
    if (status == TRN_OK) status = TRN_VK(gpu, err, vkAllocateDescriptorSets(gpu->device, &info, &o->set));
    if (status == TRN_OK) write_set(program, o);
    return status;
}

static trn_status make_sets(trn_program *program, trn_error *err)
{
    trn_gpu *gpu = program->gpu;
    if (program->descriptors) return TRN_OK;
    uint32_t bindings = 0;
    for (size_t i = 0; i < program->op_count; i++)
        bindings += (uint32_t)trn_kernel_descriptors(gpu, program->ops[i].kernel);
    if (!bindings) return TRN_OK;
    VkDescriptorPoolSize size = {trn_descriptor_type(gpu), bindings};
    VkDescriptorPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                       .maxSets = (uint32_t)program->op_count,
                                       .poolSizeCount = 1,
                                       .pPoolSizes = &size};
    trn_status status =
        TRN_VK(gpu, err, vkCreateDescriptorPool(gpu->device, &pool, NULL, &program->descriptors));
    for (size_t i = 0; status == TRN_OK && i < program->op_count; i++)
        status = make_set(program, &program->ops[i], err);
    if (status != TRN_OK) free_sets(program);
    return status;
}

/* ---- plans ---- */

static trn_status get_commands(trn_program *program, VkCommandBuffer *out, trn_error *err)
{
    VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                        .commandPool = program->pool,
                                        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                        .commandBufferCount = 1};
    return TRN_VK(program->gpu, err, vkAllocateCommandBuffers(program->gpu->device, &info, out));
}

static void free_segments(trn_program *program)
{
    trn_gpu *gpu = program->gpu;
    for (size_t i = 0; i < program->segment_count; i++)
        if (program->segments[i].commands)
            gpu->vk.vkFreeCommandBuffers(gpu->device, program->pool, 1, &program->segments[i].commands);
    program->segment_count = program->item_count = 0;
    program->planned = false;
}

/* After this, what was recorded and bound is gone; what was measured stays. */
static trn_status drop_plan(trn_program *program, trn_error *err)
{
    trn_gpu *gpu = program->gpu;
    if (!program->planned && !program->descriptors) return TRN_OK;
    trn_status status = trn_gpu_wait(gpu, program->ticket, err);
    if (status != TRN_OK) return status;
    free_segments(program);
    free_sets(program);
    return TRN_OK;
}

static trn_status plan_segment(trn_program *program, cursor *at, trn_error *err)
{
    segment next;
    if (!trn_grow(&program->segments, &program->segment_capacity, program->segment_count + 1,
                  sizeof *program->segments) ||
        !cut_segment(program, at, program->gpu->submit_seconds, MAX_ITEMS, &next))
        return trn_fail_memory(err, sizeof next, "the plan of a program");
    segment *s = &program->segments[program->segment_count++];
    *s = next;
    trn_status status = get_commands(program, &s->commands, err);
    if (status != TRN_OK) {
        s->commands = NULL;
        return status;
    }
    return record(program, s, false, err);
}

static trn_status make_plan(trn_program *program, trn_error *err)
{
    if (program->planned) return TRN_OK;
    cursor at = {0};
    trn_status status = make_sets(program, err);
    free_segments(program);
    program->barriers = 0;
    while (status == TRN_OK && at.op < program->op_count)
        status = plan_segment(program, &at, err);
    program->planned = status == TRN_OK;
    if (status == TRN_OK)
        trn_log(TRN_LOG_DEBUG, "program %s: %zu dispatches in %zu submissions with %zu barriers",
                program->label, program->op_count, program->segment_count, program->barriers);
    return status;
}

/* ---- running ---- */

static trn_status submit_segment(trn_program *program, segment *s, trn_error *err)
{
    const item *first = &program->items[s->first], *last = first + s->count - 1;
    trn_status status = trn_submit(program->gpu, s->commands, program, first->op, last->op, &s->ticket, err);
    if (status != TRN_OK) return status;
    program->ticket = s->ticket;
    for (size_t i = 0; i < program->buffer_count; i++)
        program->buffers[i]->ticket = s->ticket;
    return TRN_OK;
}

static trn_status make_queries(trn_program *program, trn_error *err)
{
    trn_gpu *gpu = program->gpu;
    if (program->queries || !gpu->detail.timestamp_bits || !(gpu->info.timestamp_ns > 0)) return TRN_OK;
    VkQueryPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                  .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                  .queryCount = MAX_MEASURED_ITEMS + 1};
    return TRN_VK(gpu, err, vkCreateQueryPool(gpu->device, &info, NULL, &program->queries));
}

/* Seconds of each item of the segment that has just run, by time stamps. */
static trn_status read_stamps(trn_program *program, const segment *s, double *seconds, trn_error *err)
{
    trn_gpu *gpu = program->gpu;
    uint64_t stamps[MAX_MEASURED_ITEMS + 1], mask = UINT64_MAX;
    if (gpu->detail.timestamp_bits < 64) mask = (1ull << gpu->detail.timestamp_bits) - 1;
    trn_status status = TRN_VK(gpu, err,
                               vkGetQueryPoolResults(gpu->device, program->queries, 0, (uint32_t)s->count + 1,
                                                     (s->count + 1) * sizeof *stamps, stamps, sizeof *stamps,
                                                     VK_QUERY_RESULT_64_BIT | VK_QUERY_RESULT_WAIT_BIT));
    for (size_t i = 0; status == TRN_OK && i < s->count; i++)
        seconds[i] = (double)((stamps[i + 1] - stamps[i]) & mask) * gpu->info.timestamp_ns * 1e-9;
    return status;
}

/* Books the measured seconds, and corrects the device's slowness by those kernels that have run before: a
 * first run may hold the driver's compiler. Slowness rises at once and falls by half at most, so that
 * estimates err to the long side. */
static void learn(trn_program *program, const segment *s, const double *seconds)
{
    trn_gpu *gpu = program->gpu;
    double actual = 0, nominal = 0;
    for (size_t i = 0; i < s->count; i++) {
        const item *it = &program->items[s->first + i];
        op *o = &program->ops[it->op];
        bool *warm = &gpu->kernels_warm[o->kernel->index];
        o->last += seconds[i];
        if (*warm) {
            actual += seconds[i];
            nominal += o->nominal * it->count / o->groups[it->axis];
        }
        *warm = true;
    }
    if (nominal <= 0 || actual < 2e-5) return;
    double slowness = TRN_MAX(actual / nominal, gpu->slowness / 2);
    gpu->slowness = TRN_MIN(TRN_MAX(slowness, 1e-3), 64);
    trn_gpu_tuning_set(gpu, "slowness", gpu->slowness);
}

static trn_status run_segment_measured(trn_program *program, segment *s, trn_error *err)
{
    double seconds[MAX_MEASURED_ITEMS];
    trn_status status = TRN_OK;
    if (!program->scratch) status = get_commands(program, &program->scratch, err);
    if (status != TRN_OK) return status;
    s->commands = program->scratch;
    status = record(program, s, true, err);
    uint64_t start = trn_now_ns();
    if (status == TRN_OK) status = submit_segment(program, s, err);
    if (status == TRN_OK) status = trn_gpu_wait(program->gpu, s->ticket, err);
    if (status != TRN_OK) return status;
    double wall = (double)(trn_now_ns() - start) * 1e-9;
    if (program->queries)
        status = read_stamps(program, s, seconds, err);
    else
        for (size_t i = 0; i < s->count; i++)
            seconds[i] = wall / (double)s->count;
    if (status == TRN_OK) learn(program, s, seconds);
    return status;
}

/* Segment by segment, each waited for: slower than a replay, and nothing is known at its start. */
static trn_status run_measured(trn_program *program, const trn_progress *progress, trn_error *err)
{
    trn_gpu *gpu = program->gpu;
    cursor at = {0};
    trn_status status = make_sets(program, err);
    if (status == TRN_OK) status = make_queries(program, err);
    if (status == TRN_OK) status = trn_gpu_wait(gpu, program->ticket, err);
    if (status != TRN_OK) return status;
    free_segments(program);
    for (size_t i = 0; i < program->op_count; i++)
        program->ops[i].last = 0;
    size_t most = program->queries ? MAX_MEASURED_ITEMS : 1;
    while (at.op < program->op_count) {
        segment next;
        if (trn_progress_cancelled(progress)) return trn_fail_cancelled(err, program->label);
        program->item_count = 0;
        if (!cut_segment(program, &at, gpu->submit_seconds, most, &next))
            return trn_fail_memory(err, sizeof next, "the plan of a program");
        status = run_segment_measured(program, &next, err);
        if (status != TRN_OK) return status;
    }
    for (size_t i = 0; i < program->op_count; i++)
        program->ops[i].seconds = TRN_MAX(program->ops[i].last, dispatch_seconds / 10);
    program->item_count = 0;
    program->measured = true;
    return TRN_OK;
}

/* Corrects the plan when the clock disagrees with it: a submission far too long is measured again, many short
 * ones are joined (a first run holds the driver's compiler and so looks longer than the next). */
static trn_status review(trn_program *program, double total, double longest, trn_error *err)
{
    double target = program->gpu->submit_seconds, expected = 0;
    if (program->replans >= MAX_REPLANS) return TRN_OK;
    for (size_t i = 0; i < program->segment_count; i++)
        expected += program->segments[i].estimate;
    if (longest > 3 * target && longest > 3 * expected / (double)program->segment_count) {
        program->replans++;
        program->measured = false;
        return TRN_OK;
    }
    if (program->segment_count < 2 || total > expected / 2) return TRN_OK;
    program->replans++;
    for (size_t i = 0; i < program->op_count; i++)
        program->ops[i].seconds *= total / expected;
    trn_status status = trn_gpu_wait(program->gpu, program->ticket, err);
    if (status == TRN_OK) free_segments(program);
    return status;
}

/* Two submissions are in flight at a time: the device never waits for the host, and stopping takes at most
 * two. */
static trn_status replay(trn_program *program, const trn_progress *progress, trn_error *err)
{
    trn_gpu *gpu = program->gpu;
    trn_status status = make_plan(program, err);
    uint64_t start = trn_now_ns(), before = start;
    double longest = 0;
    for (size_t i = 0; status == TRN_OK && i < program->segment_count + 1; i++) {
        if (i < program->segment_count) {
            if (trn_progress_cancelled(progress)) {
                status = trn_gpu_wait(gpu, program->ticket, err);
                return status == TRN_OK ? trn_fail_cancelled(err, program->label) : status;
            }
            status = submit_segment(program, &program->segments[i], err);
        }
        if (!i || status != TRN_OK) continue;
        status = trn_gpu_wait(gpu, program->segments[i - 1].ticket, err);
        uint64_t now = trn_now_ns();
        longest = TRN_MAX(longest, (double)(now - before) * 1e-9);
        before = now;
    }
    return status == TRN_OK ? review(program, (double)(before - start) * 1e-9, longest, err) : status;
}

trn_status trn_program_run(trn_program *program, const trn_progress *progress, trn_error *err)
{
    trn_status status = trn_gpu_alive(program->gpu, err);
    if (status != TRN_OK || !program->op_count) return status;
    status = program->profile || !program->measured ? run_measured(program, progress, err)
                                                    : replay(program, progress, err);
    return status == TRN_OK ? trn_gpu_validated(program->gpu, err) : status;
}

trn_status trn_program_submit(trn_program *program, uint64_t *ticket, trn_error *err)
{
    trn_gpu *gpu = program->gpu;
    *ticket = gpu->completed;
    trn_status status = trn_gpu_alive(gpu, err);
    if (status != TRN_OK || !program->op_count) return status;
    if (program->profile || !program->measured) {
        status = trn_program_run(program, NULL, err);
        *ticket = program->ticket;
        return status;
    }
    status = make_plan(program, err);
    for (size_t i = 0; status == TRN_OK && i < program->segment_count; i++)
        status = submit_segment(program, &program->segments[i], err);
    *ticket = program->ticket;
    return status == TRN_OK ? trn_gpu_validated(gpu, err) : status;
}

bool trn_program_measured(const trn_program *program)
{
    return program->measured && !program->profile;
}

trn_status trn_program_parts(trn_program *program, size_t *count, trn_error *err)
{
    *count = program->segment_count;
    if (program->planned) return TRN_OK;
    if (program->op_count && !program->measured)
        return trn_fail(err, TRN_ERR_INTERNAL, "program %s is fed before its first run", program->label);
    trn_status status = make_plan(program, err);
    *count = program->segment_count;
    return status;
}

trn_status trn_program_submit_part(trn_program *program, size_t part, uint64_t *ticket, double *seconds,
                                   trn_error *err)
{
    segment *s = &program->segments[part];
    trn_status status = submit_segment(program, s, err);
    *ticket = s->ticket;
    *seconds = s->estimate;
    return status;
}

void trn_program_destroy(trn_program *program)
{
    if (!program) return;
    trn_gpu *gpu = program->gpu;
    trn_error err = {0};
    if (trn_gpu_wait(gpu, program->ticket, &err) != TRN_OK)
        trn_log(TRN_LOG_DEBUG, "program %s freed on a failed device: %s", program->label, err.message);
    gpu->vk.vkDestroyCommandPool(gpu->device, program->pool, NULL); /* with all command buffers */
    gpu->vk.vkDestroyQueryPool(gpu->device, program->queries, NULL);
    free_sets(program);
    free(program->ops);
    free(program->buffers);
    free(program->items);
    free(program->segments);
    free(program->touched);
    trn_arena_destroy(program->arena);
    free(program->label);
    free(program);
}

/* ---- reports ---- */

void trn_program_describe(const trn_program *program, size_t first_op, size_t last_op, trn_text *out)
{
    enum { MOST = 8 };
    size_t count = last_op - first_op + 1;
    trn_text_printf(out, "of program %s: ", program->label);
    for (size_t i = 0; i < count && i < MOST; i++)
        trn_text_printf(out, "%s%s", i ? ", " : "", program->ops[first_op + i].label);
    if (count > MOST)
        trn_text_printf(out, " and %zu more up to %s", count - MOST, program->ops[last_op].label);
}

void trn_program_profile(trn_program *program, bool on)
{
    program->profile = on;
}

size_t trn_program_dispatch_count(const trn_program *program)
{
    return program->op_count;
}

trn_dispatch_time trn_program_time(const trn_program *program, size_t i)
{
    if (i >= program->op_count) return (trn_dispatch_time){.label = ""};
    const op *o = &program->ops[i];
    return (trn_dispatch_time){o->label, o->last, o->flops, o->bytes};
}

size_t trn_program_segment_count(const trn_program *program)
{
    return program->segment_count;
}

size_t trn_program_barrier_count(const trn_program *program)
{
    return program->barriers;
}

bool trn_gpu_is_unified(const trn_gpu *gpu)
{
    return gpu->memory.unified;
}

void trn_gpu_forget_speed(trn_gpu *gpu)
{
    gpu->slowness = 8;
}
