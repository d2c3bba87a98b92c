/* Device memory: blocks, and buffers cut from them by best fit. */
#include "gpu_internal.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 256, PADDING = 1024 };
/* What the last block has beyond the need is address space that nobody else gets. */
static const uint64_t smallest_block = 16 << 20, largest_shared_block = 64 << 20;

/* ---- memory types ---- */

enum {
    MAPPABLE = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
    UNIFIED = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT | MAPPABLE,
    UNIFIED_CACHED = UNIFIED | VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
    EXOTIC = VK_MEMORY_PROPERTY_PROTECTED_BIT | VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT |
             VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD | VK_MEMORY_PROPERTY_DEVICE_UNCACHED_BIT_AMD,
};

static uint32_t big_heap(const VkPhysicalDeviceMemoryProperties *p)
{
    uint32_t best = 0;
    uint64_t size = 0;
    for (uint32_t i = 0; i < p->memoryHeapCount; i++) {
        if (!(p->memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) || p->memoryHeaps[i].size <= size)
            continue;
        best = i;
        size = p->memoryHeaps[i].size;
    }
    return best;
}

/* First type among `bits` with all of `flags`, in the heap (-1: any); -1 when there is none. */
static int find_type(const VkPhysicalDeviceMemoryProperties *p, uint32_t bits, VkMemoryPropertyFlags flags,
                     int heap)
{
    for (uint32_t i = 0; i < p->memoryTypeCount; i++) {
        if (!(bits & 1u << i) || (p->memoryTypes[i].propertyFlags & EXOTIC)) continue;
        if (heap >= 0 && p->memoryTypes[i].heapIndex != (uint32_t)heap) continue;
        if ((p->memoryTypes[i].propertyFlags & flags) == flags) return (int)i;
    }
    return -1;
}

bool trn_memory_unified(const VkPhysicalDeviceMemoryProperties *properties, bool *cached, uint32_t *heap)
{
    *heap = big_heap(properties);
    *cached = find_type(properties, UINT32_MAX, UNIFIED_CACHED, (int)*heap) >= 0;
    return find_type(properties, UINT32_MAX, UNIFIED, (int)*heap) >= 0;
}

static int tensor_type(const trn_gpu *gpu, uint32_t bits)
{
    const VkPhysicalDeviceMemoryProperties *p = &gpu->memory.properties;
    int heap = (int)big_heap(p), type = -1;
    if (gpu->memory.unified) {
        type = find_type(p, bits, gpu->memory.cached ? UNIFIED_CACHED : UNIFIED, heap);
        if (type < 0) type = find_type(p, bits, UNIFIED, heap);
    }
    if (type < 0) type = find_type(p, bits, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, heap);
    if (type < 0) type = find_type(p, bits, VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT, -1);
    return type >= 0 ? type : find_type(p, bits, 0, -1);
}

static int staging_type(const trn_gpu *gpu, uint32_t bits)
{
    const VkPhysicalDeviceMemoryProperties *p = &gpu->memory.properties;
    int type = find_type(p, bits, MAPPABLE | VK_MEMORY_PROPERTY_HOST_CACHED_BIT, -1);
    return type >= 0 ? type : find_type(p, bits, MAPPABLE, -1);
}

/* ---- blocks ---- */

static trn_status allocate(trn_gpu *gpu, trn_block *block, trn_block_use use, trn_error *err)
{
    VkMemoryRequirements need;
    gpu->vk.vkGetBufferMemoryRequirements(gpu->device, block->buffer, &need);
    int type = use == TRN_BLOCK_STAGING ? staging_type(gpu, need.memoryTypeBits)
                                        : tensor_type(gpu, need.memoryTypeBits);
    if (type < 0)
        return trn_fail(err, TRN_ERR_DEVICE, "device %s has no fitting type of memory", gpu->info.name);
    VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                       .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
    VkMemoryAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                 .pNext = gpu->access == TRN_ACCESS_ADDRESS ? &flags : NULL,
                                 .allocationSize = need.size,
                                 .memoryTypeIndex = (uint32_t)type};
    trn_status status = TRN_OK;
    bool beyond = block->size > gpu->detail.memory_limit ||
                  gpu->stats.memory_bytes > gpu->detail.memory_limit - block->size;
    if (++gpu->memory.allocations == gpu->fail_allocation || beyond)
        status = trn_vk_check(gpu, VK_ERROR_OUT_OF_DEVICE_MEMORY, "vkAllocateMemory", err);
    else
        status = TRN_VK(gpu, err, vkAllocateMemory(gpu->device, &info, NULL, &block->memory));
    if (status != TRN_OK) return status;
    status = TRN_VK(gpu, err, vkBindBufferMemory(gpu->device, block->buffer, block->memory, 0));
    if (status != TRN_OK) return status;
    bool visible =
        gpu->memory.properties.memoryTypes[type].propertyFlags & VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT;
    bool map = use == TRN_BLOCK_STAGING || (gpu->memory.unified && visible);
    void *mapped = NULL;
    if (map) status = TRN_VK(gpu, err, vkMapMemory(gpu->device, block->memory, 0, VK_WHOLE_SIZE, 0, &mapped));
    if (status != TRN_OK) return status;
    block->mapped = mapped;
    if (gpu->access == TRN_ACCESS_ADDRESS) {
        VkBufferDeviceAddressInfo address = {.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO,
                                             .buffer = block->buffer};
        block->address = gpu->vk.vkGetBufferDeviceAddress(gpu->device, &address);
    }
    return TRN_OK;
}

trn_status trn_block_create(trn_gpu *gpu, uint64_t size, trn_block_use use, trn_block **out, trn_error *err)
{
    *out = NULL;
    trn_block *block = calloc(1, sizeof *block);
    if (!block || !trn_grow(&block->free, &block->free_capacity, 8, sizeof *block->free)) {
        free(block);
        return trn_fail_memory(err, sizeof *block, "a block of memory");
    }
    block->size = size;
    block->free[0] = (trn_range){0, size};
    block->free_count = 1;
    VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                               .size = size,
                               .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT |
                                        VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT};
    if (gpu->access == TRN_ACCESS_ADDRESS) info.usage |= VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT;
    if (gpu->info.max_texel_range) info.usage |= VK_BUFFER_USAGE_UNIFORM_TEXEL_BUFFER_BIT;
    trn_status status = TRN_VK(gpu, err, vkCreateBuffer(gpu->device, &info, NULL, &block->buffer));
    if (status == TRN_OK) status = allocate(gpu, block, use, err);
    gpu->stats.memory_bytes += size; /* given back by destroy, also on failure */
    if (status != TRN_OK) {
        trn_block_destroy(gpu, block);
        return status;
    }
    gpu->stats.memory_peak = TRN_MAX(gpu->stats.memory_peak, gpu->stats.memory_bytes);
    *out = block;
    return TRN_OK;
}

void trn_block_destroy(trn_gpu *gpu, trn_block *block)
{
    if (!block) return;
    gpu->stats.memory_bytes -= block->size;
    gpu->vk.vkDestroyBuffer(gpu->device, block->buffer, NULL);
    gpu->vk.vkFreeMemory(gpu->device, block->memory, NULL);
    free(block->free);
    free(block);
}

void trn_memory_open(trn_gpu *gpu)
{
    VkPhysicalDeviceMemoryProperties2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2};
    gpu->instance->GetPhysicalDeviceMemoryProperties2(gpu->physical, &all);
    gpu->memory.properties = all.memoryProperties;
    uint32_t heap;
    bool unified = trn_memory_unified(&all.memoryProperties, &gpu->memory.cached, &heap);
    gpu->memory.unified = unified && !trn_gpu_disabled("unified");
    gpu->info.unified_memory = gpu->memory.unified;
    gpu->memory.block_limit = gpu->info.max_allocation / ALIGNMENT * ALIGNMENT;
}

void trn_memory_close(trn_gpu *gpu)
{
    for (size_t i = 0; i < gpu->memory.block_count; i++)
        trn_block_destroy(gpu, gpu->memory.blocks[i]);
    free(gpu->memory.blocks);
}

/* ---- pieces ---- */

/* The smallest free range that holds size, over all blocks. */
static trn_block *best_fit(const trn_memory *memory, uint64_t size, size_t *range)
{
    trn_block *best = NULL;
    uint64_t best_size = UINT64_MAX;
    for (size_t b = 0; b < memory->block_count; b++) {
        trn_block *block = memory->blocks[b];
        for (size_t i = 0; i < block->free_count; i++) {
            if (block->free[i].size < size || block->free[i].size >= best_size) continue;
            best = block;
            best_size = block->free[i].size;
            *range = i;
        }
    }
    return best;
}

static void take(trn_block *block, size_t range, uint64_t size)
{
    trn_range *r = &block->free[range];
    block->pieces++;
    r->offset += size;
    r->size -= size;
    if (r->size) return;
    memmove(r, r + 1, (block->free_count - range - 1) * sizeof *r);
    block->free_count--;
}

/* Room for the range was reserved when the piece was cut: see reserve_ranges. */
static void give_back(trn_block *block, uint64_t offset, uint64_t size)
{
    size_t i = 0;
    block->pieces--;
    while (i < block->free_count && block->free[i].offset < offset)
        i++;
    bool joins_before = i > 0 && block->free[i - 1].offset + block->free[i - 1].size == offset;
    bool joins_after = i < block->free_count && offset + size == block->free[i].offset;
    if (joins_before && joins_after) {
        block->free[i - 1].size += size + block->free[i].size;
        memmove(&block->free[i], &block->free[i + 1], (block->free_count - i - 1) * sizeof *block->free);
        block->free_count--;
    } else if (joins_before) {
        block->free[i - 1].size += size;
    } else if (joins_after) {
        block->free[i].offset = offset;
        block->free[i].size += size;
    } else {
        memmove(&block->free[i + 1], &block->free[i], (block->free_count - i) * sizeof *block->free);
        block->free[i] = (trn_range){offset, size};
        block->free_count++;
    }
}

static uint64_t next_block_size(const trn_memory *memory, uint64_t size)
{
    uint64_t wish = smallest_block;
    for (size_t i = 0; i < memory->block_count && wish < largest_shared_block; i++)
        wish *= 2;
    wish = TRN_MIN(wish, memory->block_limit);
    return TRN_MAX(wish, size);
}

static trn_status new_block(trn_gpu *gpu, uint64_t size, trn_block **out, trn_error *err)
{
    trn_memory *memory = &gpu->memory;
    /* few large pieces would leave much of a shared block unused: each gets one of its own */
    bool dedicated = size > smallest_block;
    if (!trn_grow(&memory->blocks, &memory->block_capacity, memory->block_count + 1, sizeof *memory->blocks))
        return trn_fail_memory(err, sizeof *memory->blocks, "the list of blocks");
    uint64_t wish = dedicated ? size : next_block_size(memory, size);
    trn_status status = trn_block_create(gpu, wish, TRN_BLOCK_TENSORS, out, err);
    if (status == TRN_ERR_MEMORY && wish > size) {
        trn_log(TRN_LOG_DEBUG, "no block of %llu bytes, trying the bare need", (unsigned long long)wish);
        status = trn_block_create(gpu, size, TRN_BLOCK_TENSORS, out, err);
    }
    if (status != TRN_OK) return status;
    memory->blocks[memory->block_count++] = *out;
    return TRN_OK;
}

/* n pieces in use leave at most n+1 free ranges: with room for those, giving back can not fail. */
static bool reserve_ranges(trn_block *block)
{
    return trn_grow(&block->free, &block->free_capacity, block->pieces + 2, sizeof *block->free);
}

static void drop_if_empty(trn_gpu *gpu, trn_block *block)
{
    trn_memory *memory = &gpu->memory;
    if (block->pieces) return;
    size_t at = 0, small = 0;
    for (size_t i = 0; i < memory->block_count; i++) {
        if (memory->blocks[i] == block) at = i;
        small += memory->blocks[i]->size <= smallest_block;
    }
    /* one small block stays, so that a program that makes and drops one buffer does not allocate each time */
    if (block->size <= smallest_block && small == 1) return;
    memory->blocks[at] = memory->blocks[--memory->block_count];
    trn_block_destroy(gpu, block);
}

static trn_status fail_too_big(const trn_gpu *gpu, uint64_t size, const char *label, trn_error *err)
{
    char want[32], can[32];
    return trn_fail(
        err, TRN_ERR_MEMORY,
        "buffer '%s' of %s is more than the %s that device %s gives at once; use a smaller batch or tile",
        label, trn_format_bytes(size, want), trn_format_bytes(gpu->memory.block_limit, can), gpu->info.name);
}

static trn_status fail_no_memory(const trn_gpu *gpu, uint64_t size, const char *label, trn_error *err)
{
    char want[32], held[32], total[32];
    return trn_wrap(
        err, "no memory on device %s for buffer '%s' of %s (%s held, %s in all); use a smaller batch or tile",
        gpu->info.name, label, trn_format_bytes(size, want), trn_format_bytes(gpu->stats.memory_bytes, held),
        trn_format_bytes(gpu->info.memory_bytes, total));
}

trn_status trn_gpu_buffer_create(trn_gpu *gpu, uint64_t size, const char *label, trn_gpu_buffer **out,
                                 trn_error *err)
{
    *out = NULL;
    if (!label) label = "unnamed";
    trn_status status = trn_gpu_alive(gpu, err);
    if (status != TRN_OK) return status;
    if (!size) return trn_fail(err, TRN_ERR_ARGUMENT, "buffer '%s' has no bytes", label);
    if (size > gpu->memory.block_limit || size + PADDING + ALIGNMENT > gpu->memory.block_limit)
        return fail_too_big(gpu, size, label, err);
    uint64_t reserved = (size + PADDING + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    trn_gpu_buffer *buffer = calloc(1, sizeof *buffer);
    if (!buffer) return trn_fail_memory(err, sizeof *buffer, "a buffer");
    size_t range = 0;
    trn_block *block = best_fit(&gpu->memory, reserved, &range);
    if (!block) {
        range = 0;
        status = new_block(gpu, reserved, &block, err);
        if (status == TRN_ERR_MEMORY) status = fail_no_memory(gpu, size, label, err);
        if (status != TRN_OK || !block) goto fail;
    }
    if (!reserve_ranges(block)) {
        status = trn_fail_memory(err, sizeof(trn_range), "the list of free memory");
        drop_if_empty(gpu, block);
        goto fail;
    }
    buffer->block = block;
    buffer->offset = block->free[range].offset;
    buffer->size = size;
    buffer->reserved = reserved;
    snprintf(buffer->label, sizeof buffer->label, "%s", label);
    take(block, range, reserved);
    status = trn_gpu_validated(gpu, err);
    if (status != TRN_OK) {
        trn_gpu_buffer_destroy(gpu, buffer);
        return status;
    }
    *out = buffer;
    return TRN_OK;
fail:
    free(buffer);
    return status;
}

void trn_gpu_buffer_destroy(trn_gpu *gpu, trn_gpu_buffer *buffer)
{
    if (!buffer) return;
    trn_error err = {0};
    if (trn_gpu_wait(gpu, buffer->ticket, &err) != TRN_OK)
        trn_log(TRN_LOG_DEBUG, "buffer '%s' freed on a failed device: %s", buffer->label, err.message);
    give_back(buffer->block, buffer->offset, buffer->reserved);
    drop_if_empty(gpu, buffer->block);
    free(buffer);
}

uint64_t trn_gpu_buffer_size(const trn_gpu_buffer *buffer)
{
    return buffer->size;
}
