/* Copies between host and device: directly where device memory is mapped, else through a ring of staging
 * slots. */
#include "gpu_internal.h"

#include <string.h>

static trn_status check_range(const trn_gpu *gpu, const trn_gpu_buffer *buffer, uint64_t offset,
                              uint64_t size, const char *action, trn_error *err)
{
    if (offset > buffer->size || size > buffer->size - offset)
        return trn_fail(err, TRN_ERR_ARGUMENT, "cannot %s %llu bytes at %llu of buffer '%s': it has %llu",
                        action, (unsigned long long)size, (unsigned long long)offset, buffer->label,
                        (unsigned long long)buffer->size);
    return trn_gpu_alive(gpu, err);
}

static trn_status open_ring(trn_gpu *gpu, trn_error *err)
{
    trn_staging *ring = &gpu->staging;
    if (ring->block) return TRN_OK;
    VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                    .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
                                    .queueFamilyIndex = gpu->detail.queue_family};
    VkCommandBuffer commands[TRN_STAGING_SLOTS];
    trn_status status = TRN_OK;
    if (!ring->pool) status = TRN_VK(gpu, err, vkCreateCommandPool(gpu->device, &pool, NULL, &ring->pool));
    if (status != TRN_OK) return status;
    if (!ring->slots[0].commands) {
        VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                            .commandPool = ring->pool,
                                            .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                            .commandBufferCount = TRN_STAGING_SLOTS};
        status = TRN_VK(gpu, err, vkAllocateCommandBuffers(gpu->device, &info, commands));
        if (status != TRN_OK) return status;
        for (int i = 0; i < TRN_STAGING_SLOTS; i++)
            ring->slots[i].commands = commands[i];
    }
    status = trn_block_create(gpu, (uint64_t)TRN_STAGING_SLOTS * TRN_STAGING_CHUNK, TRN_BLOCK_STAGING,
                              &ring->block, err);
    return status == TRN_OK ? TRN_OK : trn_wrap(err, "no memory for staging");
}

void trn_staging_close(trn_gpu *gpu)
{
    trn_block_destroy(gpu, gpu->staging.block);
    if (gpu->staging.pool) gpu->vk.vkDestroyCommandPool(gpu->device, gpu->staging.pool, NULL);
}

static void full_barrier(trn_gpu *gpu, VkCommandBuffer commands)
{
    VkPipelineStageFlags work = VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT;
    VkAccessFlags writes = VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT;
    VkMemoryBarrier barrier = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                               .srcAccessMask = writes,
                               .dstAccessMask = writes | VK_ACCESS_SHADER_READ_BIT |
                                                VK_ACCESS_TRANSFER_READ_BIT | VK_ACCESS_HOST_READ_BIT};
    gpu->vk.vkCmdPipelineBarrier(commands, work, work | VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &barrier, 0, NULL,
                                 0, NULL);
}

/* The next slot of the ring, free and with its commands begun. */
static trn_status begin_slot(trn_gpu *gpu, unsigned *slot, trn_error *err)
{
    trn_status status = open_ring(gpu, err);
    if (status != TRN_OK) return status;
    *slot = gpu->staging.next;
    gpu->staging.next = (gpu->staging.next + 1) % TRN_STAGING_SLOTS;
    status = trn_gpu_wait(gpu, gpu->staging.slots[*slot].ticket, err);
    if (status != TRN_OK) return status;
    VkCommandBuffer commands = gpu->staging.slots[*slot].commands;
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                      .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    status = TRN_VK(gpu, err, vkBeginCommandBuffer(commands, &begin));
    if (status == TRN_OK) full_barrier(gpu, commands);
    return status;
}

static trn_status end_slot(trn_gpu *gpu, unsigned slot, trn_gpu_buffer *buffer, trn_error *err)
{
    VkCommandBuffer commands = gpu->staging.slots[slot].commands;
    full_barrier(gpu, commands);
    trn_status status = TRN_VK(gpu, err, vkEndCommandBuffer(commands));
    if (status == TRN_OK)
        status = trn_submit(gpu, commands, NULL, 0, 0, &gpu->staging.slots[slot].ticket, err);
    if (status == TRN_OK) buffer->ticket = gpu->staging.slots[slot].ticket;
    return status;
}

static uint8_t *slot_memory(const trn_gpu *gpu, unsigned slot)
{
    return gpu->staging.block->mapped + (size_t)slot * TRN_STAGING_CHUNK;
}

/* One chunk of at most TRN_STAGING_CHUNK bytes, from the host (upload) or towards its slot. */
static trn_status copy_chunk(trn_gpu *gpu, trn_gpu_buffer *buffer, uint64_t offset, const void *upload,
                             uint64_t size, unsigned *slot, trn_error *err)
{
    trn_status status = begin_slot(gpu, slot, err);
    if (status != TRN_OK) return status;
    VkCommandBuffer commands = gpu->staging.slots[*slot].commands;
    uint64_t in_ring = (uint64_t)*slot * TRN_STAGING_CHUNK, in_block = buffer->offset + offset;
    VkBuffer ring = gpu->staging.block->buffer, device = buffer->block->buffer;
    VkBufferCopy region = {in_block, in_ring, size};
    if (upload) {
        memcpy(slot_memory(gpu, *slot), upload, size);
        region = (VkBufferCopy){in_ring, in_block, size};
    }
    gpu->vk.vkCmdCopyBuffer(commands, upload ? ring : device, upload ? device : ring, 1, &region);
    return end_slot(gpu, *slot, buffer, err);
}

trn_status trn_gpu_write(trn_gpu *gpu, trn_gpu_buffer *buffer, uint64_t offset, const void *data,
                         uint64_t size, trn_error *err)
{
    trn_status status = check_range(gpu, buffer, offset, size, "write", err);
    if (status != TRN_OK || !size) return status;
    if (buffer->block->mapped) {
        status = trn_gpu_wait(gpu, buffer->ticket, err);
        if (status == TRN_OK) memcpy(buffer->block->mapped + buffer->offset + offset, data, size);
        return status;
    }
    for (uint64_t done = 0; status == TRN_OK && done < size;) {
        unsigned slot;
        uint64_t part = TRN_MIN(size - done, (uint64_t)TRN_STAGING_CHUNK);
        status = copy_chunk(gpu, buffer, offset + done, (const uint8_t *)data + done, part, &slot, err);
        done += part;
    }
    return status == TRN_OK ? trn_gpu_validated(gpu, err) : status;
}

/* Keeps the ring full: chunk i is asked for before chunk i - (slots - 1) is fetched from its slot. */
static trn_status read_through_ring(trn_gpu *gpu, trn_gpu_buffer *buffer, uint64_t offset, uint8_t *data,
                                    uint64_t size, trn_error *err)
{
    struct {
        unsigned slot;
        uint64_t at, size;
    } pending[TRN_STAGING_SLOTS];
    uint64_t asked = 0;
    unsigned head = 0, count = 0;
    trn_status status = TRN_OK;
    while (status == TRN_OK && (asked < size || count)) {
        if (asked < size && count < TRN_STAGING_SLOTS - 1) {
            unsigned tail = (head + count) % TRN_STAGING_SLOTS;
            pending[tail].at = asked;
            pending[tail].size = TRN_MIN(size - asked, (uint64_t)TRN_STAGING_CHUNK);
            status =
                copy_chunk(gpu, buffer, offset + asked, NULL, pending[tail].size, &pending[tail].slot, err);
            asked += pending[tail].size;
            count++;
            continue;
        }
        status = trn_gpu_wait(gpu, gpu->staging.slots[pending[head].slot].ticket, err);
        if (status == TRN_OK)
            memcpy(data + pending[head].at, slot_memory(gpu, pending[head].slot), pending[head].size);
        head = (head + 1) % TRN_STAGING_SLOTS;
        count--;
    }
    return status;
}

trn_status trn_gpu_read(trn_gpu *gpu, trn_gpu_buffer *buffer, uint64_t offset, void *data, uint64_t size,
                        trn_error *err)
{
    trn_status status = check_range(gpu, buffer, offset, size, "read", err);
    if (status != TRN_OK || !size) return status;
    /* uncached memory is mapped for writing, but the CPU reads it at a crawl: few bytes only */
    bool direct = buffer->block->mapped && (gpu->memory.cached || size <= 4096);
    if (!direct) {
        status = read_through_ring(gpu, buffer, offset, data, size, err);
        return status == TRN_OK ? trn_gpu_validated(gpu, err) : status;
    }
    status = trn_gpu_wait(gpu, buffer->ticket, err);
    if (status == TRN_OK) memcpy(data, buffer->block->mapped + buffer->offset + offset, size);
    return status;
}

static void fill_mapped(uint8_t *at, uint64_t size, uint32_t pattern)
{
    for (uint64_t i = 0; i < size; i += 4)
        memcpy(at + i, &pattern, 4);
}

trn_status trn_gpu_fill(trn_gpu *gpu, trn_gpu_buffer *buffer, uint64_t offset, uint64_t size,
                        uint32_t pattern, trn_error *err)
{
    trn_status status = check_range(gpu, buffer, offset, size, "fill", err);
    if (status != TRN_OK || !size) return status;
    if (offset % 4 || size % 4)
        return trn_fail(err, TRN_ERR_ARGUMENT, "fills of buffer '%s' need offset and size in multiples of 4",
                        buffer->label);
    if (buffer->block->mapped) {
        status = trn_gpu_wait(gpu, buffer->ticket, err);
        if (status == TRN_OK) fill_mapped(buffer->block->mapped + buffer->offset + offset, size, pattern);
        return status;
    }
    unsigned slot;
    status = begin_slot(gpu, &slot, err);
    if (status != TRN_OK) return status;
    gpu->vk.vkCmdFillBuffer(gpu->staging.slots[slot].commands, buffer->block->buffer, buffer->offset + offset,
                            size, pattern);
    status = end_slot(gpu, slot, buffer, err);
    return status == TRN_OK ? trn_gpu_validated(gpu, err) : status;
}
