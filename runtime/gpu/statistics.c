/* Statistics: what the driver's compiler tells of kernels that it compiled. */
#include "gpu_internal.h"

#include <stdlib.h>

static double value_of(const VkPipelineExecutableStatisticKHR *statistic)
{
    switch (statistic->format) {
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_BOOL32_KHR:
        return statistic->value.b32 != 0;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_INT64_KHR:
        return (double)statistic->value.i64;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_UINT64_KHR:
        return (double)statistic->value.u64;
    case VK_PIPELINE_EXECUTABLE_STATISTIC_FORMAT_FLOAT64_KHR:
        return statistic->value.f64;
    default:
        return 0;
    }
}

typedef struct statistic_list {
    trn_kernel_statistic *items;
    size_t count, capacity;
} statistic_list;

/* Statistics of one program of the pipeline, appended. */
static trn_status add_program(trn_gpu *gpu, const trn_kernel *kernel, uint32_t program, const char *name,
                              statistic_list *list, trn_error *err)
{
    VkPipelineExecutableInfoKHR info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_INFO_KHR,
                                        .pipeline = kernel->pipeline,
                                        .executableIndex = program};
    uint32_t count = 0;
    trn_status status =
        TRN_VK(gpu, err, vkGetPipelineExecutableStatisticsKHR(gpu->device, &info, &count, NULL));
    if (status != TRN_OK || !count) return status;
    VkPipelineExecutableStatisticKHR *found = calloc(count, sizeof *found);
    if (!found || !trn_grow(&list->items, &list->capacity, list->count + count, sizeof *list->items)) {
        free(found);
        return trn_fail_memory(err, count * sizeof *found, "a kernel's statistics");
    }
    for (uint32_t i = 0; i < count; i++)
        found[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_STATISTIC_KHR;
    status = TRN_VK(gpu, err, vkGetPipelineExecutableStatisticsKHR(gpu->device, &info, &count, found));
    for (uint32_t i = 0; status == TRN_OK && i < count; i++) {
        trn_kernel_statistic *out = &list->items[list->count++];
        *out = (trn_kernel_statistic){.program = (int)program, .value = value_of(&found[i])};
        snprintf(out->program_name, sizeof out->program_name, "%.63s", name);
        snprintf(out->name, sizeof out->name, "%.63s", found[i].name);
    }
    free(found);
    return status;
}

trn_status trn_gpu_kernel_statistics(trn_gpu *gpu, const trn_kernel *kernel, trn_kernel_statistic **list,
                                     size_t *count, trn_error *err)
{
    VkPipelineExecutablePropertiesKHR *programs = NULL;
    VkPipelineInfoKHR info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_INFO_KHR, .pipeline = kernel->pipeline};
    statistic_list found = {0};
    uint32_t program_count = 0;
    *list = NULL;
    *count = 0;
    if (!gpu->statistics)
        return trn_fail(err, TRN_ERR_ARGUMENT, "the device was opened without asking for statistics");
    trn_status status =
        TRN_VK(gpu, err, vkGetPipelineExecutablePropertiesKHR(gpu->device, &info, &program_count, NULL));
    if (status != TRN_OK || !program_count) return status;
    programs = calloc(program_count, sizeof *programs);
    if (!programs) return trn_fail_memory(err, program_count * sizeof *programs, "a kernel's statistics");
    for (uint32_t i = 0; i < program_count; i++)
        programs[i].sType = VK_STRUCTURE_TYPE_PIPELINE_EXECUTABLE_PROPERTIES_KHR;
    status =
        TRN_VK(gpu, err, vkGetPipelineExecutablePropertiesKHR(gpu->device, &info, &program_count, programs));
    for (uint32_t i = 0; status == TRN_OK && i < program_count; i++)
        status = add_program(gpu, kernel, i, programs[i].name, &found, err);
    free(programs);
    if (status != TRN_OK) {
        free(found.items);
        return status;
    }
    *list = found.items;
    *count = found.count;
    return TRN_OK;
}
