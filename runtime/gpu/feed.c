/* Feeds: several runs of one program in flight, each with inputs and outputs of its own.
 *
 * A run is a copy of its seat's inputs into the program's buffers, the program's submissions, and a copy of
 * the results into the seat. Runs are handed to the queue in the order of their start, and never further
 * ahead than some tenths of a second of work: the device always has something to do, and stopping stays
 * quick. */
#include "gpu_internal.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_AHEAD = TRN_MAX_IN_FLIGHT / 2 };
/* Work handed to the queue, in lengths of one submission. */
static const double most_ahead = 5;

typedef struct seat {
    trn_block **blocks; /* [inputs, then outputs] */
    VkCommandBuffer load, store;
    uint64_t ticket; /* of the store; 0: not handed over yet */
    bool started;
} seat;

typedef struct handed {
    uint64_t ticket;
    double seconds;
} handed;

struct trn_feed {
    trn_gpu *gpu;
    trn_program *program, *after; /* after: NULL, or the second half of a run */
    trn_feed_port *ports;         /* [inputs, then outputs] */
    size_t input_count, port_count;
    VkCommandPool pool;
    seat *seats;
    int depth;
    int *queue; /* [depth] seats whose runs are not handed over whole, the oldest first */
    int queue_count;
    size_t part; /* of the oldest: 0 is its load, then the programs' submissions, then its store */
    handed ahead[MAX_AHEAD];
    size_t ahead_count;
    uint64_t last_ticket;
};

/* ---- making ---- */

static trn_block_use use_of_port(const trn_feed *feed, size_t port)
{
    /* the host writes inputs only, and reads outputs only: those must lie where it reads fast */
    bool input = port < feed->input_count;
    return input && feed->gpu->memory.unified ? TRN_BLOCK_TENSORS : TRN_BLOCK_STAGING;
}

static void barrier(trn_gpu *gpu, VkCommandBuffer commands, VkPipelineStageFlags from, VkAccessFlags before,
                    VkPipelineStageFlags to, VkAccessFlags after)
{
    VkMemoryBarrier memory = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = before, .dstAccessMask = after};
    gpu->vk.vkCmdPipelineBarrier(commands, from, to, 0, 1, &memory, 0, NULL, 0, NULL);
}

static trn_status copy_port(const trn_feed *feed, const seat *s, size_t i, VkCommandBuffer commands,
                            trn_error *err)
{
    const trn_feed_port *port = &feed->ports[i];
    const trn_block *block = s->blocks[i];
    if (!block) return trn_fail(err, TRN_ERR_INTERNAL, "a port of a feed has no memory");
    VkBuffer own = block->buffer, shared = port->buffer->block->buffer;
    uint64_t at = port->buffer->offset + port->offset;
    bool input = i < feed->input_count;
    VkBufferCopy region = {input ? 0 : at, input ? at : 0, port->size};
    feed->gpu->vk.vkCmdCopyBuffer(commands, input ? own : shared, input ? shared : own, 1, &region);
    return TRN_OK;
}

/* The program's own submissions begin with a barrier that lets them see what copies wrote. */
static trn_status record_load(trn_feed *feed, const seat *s, trn_error *err)
{
    trn_gpu *gpu = feed->gpu;
    VkPipelineStageFlags work = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    trn_status status = TRN_VK(gpu, err, vkBeginCommandBuffer(s->load, &begin));
    if (status != TRN_OK) return status;
    barrier(gpu, s->load, work, VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
            VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT);
    for (size_t i = 0; status == TRN_OK && i < feed->input_count; i++)
        status = copy_port(feed, s, i, s->load, err);
    if (status != TRN_OK) return status;
    return TRN_VK(gpu, err, vkEndCommandBuffer(s->load));
}

static trn_status record_store(trn_feed *feed, const seat *s, trn_error *err)
{
    trn_gpu *gpu = feed->gpu;
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    trn_status status = TRN_VK(gpu, err, vkBeginCommandBuffer(s->store, &begin));
    if (status != TRN_OK) return status;
    barrier(gpu, s->store, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
            VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT, VK_PIPELINE_STAGE_TRANSFER_BIT,
            VK_ACCESS_TRANSFER_READ_BIT);
    for (size_t i = feed->input_count; status == TRN_OK && i < feed->port_count; i++)
        status = copy_port(feed, s, i, s->store, err);
    if (status != TRN_OK) return status;
    barrier(gpu, s->store, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
            VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT);
    return TRN_VK(gpu, err, vkEndCommandBuffer(s->store));
}

static trn_status make_seat(trn_feed *feed, seat *s, trn_error *err)
{
    trn_gpu *gpu = feed->gpu;
    VkCommandBuffer commands[2];
    VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                        .commandPool = feed->pool,
                                        .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                        .commandBufferCount = 2};
    trn_status status = TRN_OK;
    s->blocks = calloc(feed->port_count + 1, sizeof(trn_block *));
    if (!s->blocks) return trn_fail_memory(err, feed->port_count * sizeof(trn_block *), "a feed");
    for (size_t i = 0; status == TRN_OK && i < feed->port_count; i++) {
        status = trn_block_create(gpu, feed->ports[i].size, use_of_port(feed, i), &s->blocks[i], err);
        if (status == TRN_OK && i < feed->input_count) memset(s->blocks[i]->mapped, 0, feed->ports[i].size);
    }
    if (status == TRN_OK) status = TRN_VK(gpu, err, vkAllocateCommandBuffers(gpu->device, &info, commands));
    if (status != TRN_OK) return status;
    s->load = commands[0];
    s->store = commands[1];
    status = record_load(feed, s, err);
    return status == TRN_OK ? record_store(feed, s, err) : status;
}

static trn_status check_port(const trn_feed_port *port, trn_error *err)
{
    uint64_t size = port->buffer ? port->buffer->size : 0;
    if (port->size && port->offset <= size && port->size <= size - port->offset) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT, "a feed copies %llu bytes at %llu of a buffer that has %llu",
                    (unsigned long long)port->size, (unsigned long long)port->offset,
                    (unsigned long long)size);
}

static trn_status take_ports(trn_feed *feed, const trn_feed_port *inputs, size_t input_count,
                             const trn_feed_port *outputs, size_t output_count, trn_error *err)
{
    trn_status status = TRN_OK;
    feed->input_count = input_count;
    feed->port_count = input_count + output_count;
    feed->ports = calloc(feed->port_count + 1, sizeof *feed->ports);
    if (!feed->ports) return trn_fail_memory(err, feed->port_count * sizeof *feed->ports, "a feed");
    for (size_t i = 0; status == TRN_OK && i < feed->port_count; i++) {
        feed->ports[i] = i < input_count ? inputs[i] : outputs[i - input_count];
        status = check_port(&feed->ports[i], err);
    }
    return status;
}

trn_status trn_feed_create(trn_gpu *gpu, trn_program *program, trn_program *after,
                           const trn_feed_port *inputs, size_t input_count, const trn_feed_port *outputs,
                           size_t output_count, int depth, trn_feed **out, trn_error *err)
{
    *out = NULL;
    trn_status status = trn_gpu_alive(gpu, err);
    if (status != TRN_OK) return status;
    if (depth < 1) return trn_fail(err, TRN_ERR_ARGUMENT, "a feed needs at least one seat");
    trn_feed *feed = calloc(1, sizeof *feed);
    if (!feed) return trn_fail_memory(err, sizeof *feed, "a feed");
    VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                    .queueFamilyIndex = gpu->detail.queue_family};
    feed->gpu = gpu;
    feed->program = program;
    feed->after = after;
    feed->seats = calloc((size_t)depth, sizeof *feed->seats);
    feed->queue = calloc((size_t)depth, sizeof *feed->queue);
    feed->depth = depth;
    if (!feed->seats || !feed->queue) status = trn_fail_memory(err, sizeof *feed, "a feed");
    if (status == TRN_OK) status = take_ports(feed, inputs, input_count, outputs, output_count, err);
    if (status == TRN_OK)
        status = TRN_VK(gpu, err, vkCreateCommandPool(gpu->device, &pool, NULL, &feed->pool));
    for (int i = 0; status == TRN_OK && i < depth; i++)
        status = make_seat(feed, &feed->seats[i], err);
    if (status == TRN_OK) status = trn_gpu_validated(gpu, err);
    if (status != TRN_OK) {
        trn_feed_destroy(feed);
        return status;
    }
    *out = feed;
    return TRN_OK;
}

void trn_feed_destroy(trn_feed *feed)
{
    if (!feed) return;
    trn_gpu *gpu = feed->gpu;
    trn_error err = {0};
    if (trn_gpu_wait(gpu, feed->last_ticket, &err) != TRN_OK)
        trn_log(TRN_LOG_DEBUG, "a feed freed on a failed device: %s", err.message);
    if (feed->pool) gpu->vk.vkDestroyCommandPool(gpu->device, feed->pool, NULL);
    for (int i = 0; feed->seats && i < feed->depth; i++) {
        for (size_t p = 0; feed->seats[i].blocks && p < feed->port_count; p++)
            trn_block_destroy(gpu, feed->seats[i].blocks[p]);
        free(feed->seats[i].blocks);
    }
    free(feed->seats);
    free(feed->queue);
    free(feed->ports);
    free(feed);
}

/* ---- running ---- */

void *trn_feed_input(trn_feed *feed, int at, size_t input)
{
    return feed->seats[at].blocks[input]->mapped;
}

void *trn_feed_output(trn_feed *feed, int at, size_t output)
{
    return feed->seats[at].blocks[feed->input_count + output]->mapped;
}

/* Drops what the device has done from the list of what lies ahead of it. */
static void drop_done(trn_feed *feed, uint64_t reached)
{
    size_t done = 0;
    while (done < feed->ahead_count && feed->ahead[done].ticket <= reached)
        done++;
    feed->ahead_count -= done;
    memmove(feed->ahead, feed->ahead + done, feed->ahead_count * sizeof *feed->ahead);
}

static trn_status seconds_ahead(trn_feed *feed, double *seconds, trn_error *err)
{
    trn_gpu *gpu = feed->gpu;
    uint64_t reached = 0;
    *seconds = 0;
    trn_status status = TRN_VK(gpu, err, vkGetSemaphoreCounterValue(gpu->device, gpu->timeline, &reached));
    if (status != TRN_OK) return status;
    drop_done(feed, reached);
    for (size_t i = 0; i < feed->ahead_count; i++)
        *seconds += feed->ahead[i].seconds;
    return TRN_OK;
}

/* Copies of a seat: every buffer they touch learns of them. */
static trn_status submit_copy(trn_feed *feed, VkCommandBuffer commands, uint64_t *ticket, trn_error *err)
{
    trn_status status = trn_submit(feed->gpu, commands, NULL, 0, 0, ticket, err);
    for (size_t i = 0; status == TRN_OK && i < feed->port_count; i++)
        feed->ports[i].buffer->ticket = *ticket;
    return status;
}

/* Hands over the next part of the oldest run. */
static trn_status hand_over(trn_feed *feed, trn_error *err)
{
    seat *s = &feed->seats[feed->queue[0]];
    size_t parts = 0, more = 0;
    handed next = {0};
    trn_status status = trn_program_parts(feed->program, &parts, err);
    if (status == TRN_OK && feed->after) status = trn_program_parts(feed->after, &more, err);
    if (status != TRN_OK) return status;
    bool last = feed->part == parts + more + 1, behind = feed->part > parts;
    if (feed->part == 0 || last)
        status = submit_copy(feed, last ? s->store : s->load, &next.ticket, err);
    else
        status =
            trn_program_submit_part(behind ? feed->after : feed->program,
                                    feed->part - 1 - (behind ? parts : 0), &next.ticket, &next.seconds, err);
    if (status != TRN_OK) return status;
    feed->last_ticket = next.ticket;
    feed->ahead[feed->ahead_count++] = next;
    feed->part++;
    if (!last) return TRN_OK;
    s->ticket = next.ticket;
    feed->part = 0;
    memmove(feed->queue, feed->queue + 1, (size_t)--feed->queue_count * sizeof *feed->queue);
    return TRN_OK;
}

trn_status trn_feed_advance(trn_feed *feed, trn_error *err)
{
    double seconds = 0, most = most_ahead * feed->gpu->submit_seconds;
    trn_status status = trn_gpu_alive(feed->gpu, err);
    while (status == TRN_OK && feed->queue_count) {
        status = seconds_ahead(feed, &seconds, err);
        if (status != TRN_OK || feed->ahead_count == MAX_AHEAD || seconds > most) break;
        status = hand_over(feed, err);
    }
    return status == TRN_OK ? trn_gpu_validated(feed->gpu, err) : status;
}

trn_status trn_feed_start(trn_feed *feed, int at, trn_error *err)
{
    seat *s = &feed->seats[at];
    if (s->started) return trn_fail(err, TRN_ERR_ARGUMENT, "seat %d of a feed is taken", at);
    s->started = true;
    s->ticket = 0;
    feed->queue[feed->queue_count++] = at;
    return trn_feed_advance(feed, err);
}

trn_status trn_feed_done(trn_feed *feed, int at, bool *done, trn_error *err)
{
    const seat *s = &feed->seats[at];
    uint64_t reached = 0;
    *done = false;
    if (!s->started) return trn_fail(err, TRN_ERR_ARGUMENT, "seat %d of a feed was not started", at);
    if (!s->ticket) return TRN_OK;
    trn_status status =
        TRN_VK(feed->gpu, err, vkGetSemaphoreCounterValue(feed->gpu->device, feed->gpu->timeline, &reached));
    *done = status == TRN_OK && reached >= s->ticket;
    return status;
}

trn_status trn_feed_wait(trn_feed *feed, int at, const trn_progress *progress, trn_error *err)
{
    seat *s = &feed->seats[at];
    if (!s->started) return trn_fail(err, TRN_ERR_ARGUMENT, "seat %d of a feed was not started", at);
    trn_status status = trn_feed_advance(feed, err);
    while (status == TRN_OK && (!s->ticket || s->ticket > feed->gpu->completed)) {
        if (trn_progress_cancelled(progress)) return trn_fail_cancelled(err, "a run");
        /* parts of this seat that are not handed over lie behind others that are */
        uint64_t next = feed->ahead_count ? feed->ahead[0].ticket : s->ticket;
        status = trn_gpu_wait(feed->gpu, next, err);
        drop_done(feed, feed->gpu->completed);
        if (status == TRN_OK) status = trn_feed_advance(feed, err);
    }
    if (status == TRN_OK) s->started = false;
    return status;
}
