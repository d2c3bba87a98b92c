/* VkResult into errors, and the trace of calls. */
#include "gpu_internal.h"

#include <string.h>

const char *trn_vk_result_name(VkResult result)
{
    switch (result) {
#define TRN_NAME(name)                                                                                       \
    case name:                                                                                               \
        return #name;
        TRN_NAME(VK_SUCCESS)
        TRN_NAME(VK_NOT_READY)
        TRN_NAME(VK_TIMEOUT)
        TRN_NAME(VK_INCOMPLETE)
        TRN_NAME(VK_ERROR_OUT_OF_HOST_MEMORY)
        TRN_NAME(VK_ERROR_OUT_OF_DEVICE_MEMORY)
        TRN_NAME(VK_ERROR_INITIALIZATION_FAILED)
        TRN_NAME(VK_ERROR_DEVICE_LOST)
        TRN_NAME(VK_ERROR_MEMORY_MAP_FAILED)
        TRN_NAME(VK_ERROR_LAYER_NOT_PRESENT)
        TRN_NAME(VK_ERROR_EXTENSION_NOT_PRESENT)
        TRN_NAME(VK_ERROR_FEATURE_NOT_PRESENT)
        TRN_NAME(VK_ERROR_INCOMPATIBLE_DRIVER)
        TRN_NAME(VK_ERROR_TOO_MANY_OBJECTS)
        TRN_NAME(VK_ERROR_UNKNOWN)
        TRN_NAME(VK_ERROR_FRAGMENTED_POOL)
        TRN_NAME(VK_ERROR_OUT_OF_POOL_MEMORY)
        TRN_NAME(VK_ERROR_FRAGMENTATION)
        TRN_NAME(VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS)
        TRN_NAME(VK_ERROR_INVALID_SHADER_NV)
#undef TRN_NAME
    default:
        return "an unknown VkResult";
    }
}

/* "vkAllocateMemory" of "gpu->vk.vkAllocateMemory(gpu->device, ...)". */
static void call_name(const char *call, char *name, size_t size)
{
    const char *end = strchr(call, '(');
    size_t length = end ? (size_t)(end - call) : strlen(call);
    size_t start = length;
    while (start > 0 && call[start - 1] != '.' && call[start - 1] != '>')
        start--;
    length = TRN_MIN(length - start, size - 1);
    memcpy(name, call + start, length);
    name[length] = 0;
}

void trn_vk_trace(const char *call)
{
    if (trn_log_enabled(TRN_LOG_TRACE)) trn_log(TRN_LOG_TRACE, "%s", call);
}

trn_status trn_vk_check(trn_gpu *gpu, VkResult result, const char *call, trn_error *err)
{
    if (result >= 0) return TRN_OK;
    char name[64];
    call_name(call, name, sizeof name);
    if (result == VK_ERROR_DEVICE_LOST && gpu) return trn_gpu_lose(gpu, name, err);
    trn_status code = TRN_ERR_DEVICE;
    if (result == VK_ERROR_DEVICE_LOST) code = TRN_ERR_DEVICE_LOST;
    if (result == VK_ERROR_OUT_OF_HOST_MEMORY || result == VK_ERROR_OUT_OF_DEVICE_MEMORY ||
        result == VK_ERROR_OUT_OF_POOL_MEMORY)
        code = TRN_ERR_MEMORY;
    return trn_fail(err, code, "%s failed: %s (%d)", name, trn_vk_result_name(result), (int)result);
}
