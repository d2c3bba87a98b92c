/* The queue: submissions on one timeline, waiting, and what is said when the device is lost. */
#include "gpu_internal.h"

#include <string.h>

static void forget_completed(trn_gpu *gpu)
{
    size_t done = 0;
    while (done < gpu->in_flight_count && gpu->in_flight[done].ticket <= gpu->completed)
        done++;
    if (!done) return;
    gpu->in_flight_count -= done;
    memmove(gpu->in_flight, gpu->in_flight + done, gpu->in_flight_count * sizeof *gpu->in_flight);
}

trn_status trn_gpu_lose(trn_gpu *gpu, const char *call, trn_error *err)
{
    if (gpu->lost) return trn_gpu_alive(gpu, err);
    trn_text text = {0};
    uint64_t reached = 0;
    if (gpu->vk.vkGetSemaphoreCounterValue(gpu->device, gpu->timeline, &reached) == VK_SUCCESS &&
        reached <= gpu->submitted)
        gpu->completed = TRN_MAX(gpu->completed, reached);
    forget_completed(gpu);
    for (size_t i = 0; i < gpu->in_flight_count && i < 2; i++) {
        const trn_submission *s = &gpu->in_flight[i];
        trn_text_add(&text, i ? "; then " : "");
        if (s->program)
            trn_program_describe(s->program, s->first_op, s->last_op, &text);
        else
            trn_text_add(&text, "a copy between host and device");
    }
    gpu->vk.vkDeviceWaitIdle(gpu->device); /* what may still run must not see its objects freed */
    gpu->lost = true;
    snprintf(gpu->lost_message, sizeof gpu->lost_message,
             "device %s was lost (%s): its driver reset it, mostly because one submission ran too long or "
             "the driver "
             "has a fault. In flight: %s. Open the device anew; a smaller submit_seconds or batch may help",
             gpu->info.name, call, text.data ? text.data : "nothing");
    trn_text_free(&text);
    return trn_gpu_alive(gpu, err);
}

static trn_status queue_submit(trn_gpu *gpu, VkCommandBuffer commands, trn_error *err)
{
    uint64_t value = gpu->submitted;
    VkTimelineSemaphoreSubmitInfo values = {.sType = VK_STRUCTURE_TYPE_TIMELINE_SEMAPHORE_SUBMIT_INFO,
                                            .signalSemaphoreValueCount = 1,
                                            .pSignalSemaphoreValues = &value};
    VkSubmitInfo info = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                         .pNext = &values,
                         .commandBufferCount = 1,
                         .pCommandBuffers = &commands,
                         .signalSemaphoreCount = 1,
                         .pSignalSemaphores = &gpu->timeline};
    if (gpu->fail_submission > 0 && gpu->stats.submissions == (uint64_t)gpu->fail_submission)
        return trn_vk_check(gpu, VK_ERROR_DEVICE_LOST, "vkQueueSubmit", err);
    return TRN_VK(gpu, err, vkQueueSubmit(gpu->queue, 1, &info, VK_NULL_HANDLE));
}

trn_status trn_submit(trn_gpu *gpu, VkCommandBuffer commands, const trn_program *program, size_t first_op,
                      size_t last_op, uint64_t *ticket, trn_error *err)
{
    trn_status status = trn_gpu_alive(gpu, err);
    if (status == TRN_OK && gpu->in_flight_count == TRN_MAX_IN_FLIGHT)
        status = trn_gpu_wait(gpu, gpu->in_flight[0].ticket, err);
    if (status != TRN_OK) return status;
    gpu->in_flight[gpu->in_flight_count++] = (trn_submission){++gpu->submitted, program, first_op, last_op};
    gpu->stats.submissions++;
    status = queue_submit(gpu, commands, err);
    if (status == TRN_OK) {
        *ticket = gpu->submitted;
        return TRN_OK;
    }
    gpu->in_flight_count -= gpu->in_flight_count > 0;
    gpu->submitted--; /* will never be signalled: nobody may wait for it */
    return status;
}

trn_status trn_gpu_wait(trn_gpu *gpu, uint64_t ticket, trn_error *err)
{
    if (ticket > gpu->submitted)
        return trn_fail(err, TRN_ERR_ARGUMENT, "ticket %llu was not given out by this device",
                        (unsigned long long)ticket);
    if (ticket <= gpu->completed) return TRN_OK;
    trn_status status = trn_gpu_alive(gpu, err);
    if (status != TRN_OK) return status;
    VkSemaphoreWaitInfo info = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_WAIT_INFO,
                                .semaphoreCount = 1,
                                .pSemaphores = &gpu->timeline,
                                .pValues = &ticket};
    status = TRN_VK(gpu, err, vkWaitSemaphores(gpu->device, &info, UINT64_MAX));
    if (status != TRN_OK) return status;
    gpu->completed = TRN_MAX(gpu->completed, ticket);
    forget_completed(gpu);
    return TRN_OK;
}
