/* Kernels: pipelines, their layouts, and the driver's pipeline cache on disk. */
#include "gpu_internal.h"
#include "gpu_testing.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_PUSH_BYTES = 128 };
static const char folder[] = "pipelines";

/* ---- layouts and the driver's cache ---- */

VkDescriptorType trn_descriptor_type(const trn_gpu *gpu)
{
    return gpu->access == TRN_ACCESS_STORAGE ? VK_DESCRIPTOR_TYPE_STORAGE_BUFFER
                                             : VK_DESCRIPTOR_TYPE_UNIFORM_TEXEL_BUFFER;
}

int trn_kernel_descriptors(const trn_gpu *gpu, const trn_kernel *kernel)
{
    return gpu->access == TRN_ACCESS_STORAGE ? kernel->buffers : kernel->texels;
}

static trn_status create_layout(trn_gpu *gpu, int buffers, trn_error *err)
{
    VkDescriptorSetLayoutBinding bindings[TRN_MAX_BINDINGS];
    for (int i = 0; i < buffers; i++)
        bindings[i] = (VkDescriptorSetLayoutBinding){.binding = (uint32_t)i,
                                                     .descriptorType = trn_descriptor_type(gpu),
                                                     .descriptorCount = 1,
                                                     .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT};
    VkDescriptorSetLayoutCreateInfo set = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
                                           .bindingCount = (uint32_t)buffers,
                                           .pBindings = bindings};
    trn_status status = TRN_OK;
    if (buffers)
        status = TRN_VK(gpu, err,
                        vkCreateDescriptorSetLayout(gpu->device, &set, NULL, &gpu->set_layouts[buffers]));
    if (status != TRN_OK) return status;
    VkPushConstantRange push = {VK_SHADER_STAGE_COMPUTE_BIT, 0, MAX_PUSH_BYTES};
    VkPipelineLayoutCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                       .setLayoutCount = buffers > 0,
                                       .pSetLayouts = &gpu->set_layouts[buffers],
                                       .pushConstantRangeCount = 1,
                                       .pPushConstantRanges = &push};
    return TRN_VK(gpu, err,
                  vkCreatePipelineLayout(gpu->device, &info, NULL, &gpu->pipeline_layouts[buffers]));
}

trn_status trn_pipelines_open(trn_gpu *gpu, trn_error *err)
{
    char name[64];
    void *data = NULL;
    size_t size = 0;
    trn_gpu_cache_name(gpu, name);
    /* what comes from a cache may come without statistics */
    if (gpu->disk_cache && !gpu->statistics) trn_cache_load(folder, name, &data, &size);
    VkPipelineCacheCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO, .initialDataSize = size, .pInitialData = data};
    trn_status status =
        TRN_VK(gpu, err, vkCreatePipelineCache(gpu->device, &info, NULL, &gpu->pipeline_cache));
    free(data);
    int last = gpu->access == TRN_ACCESS_STORAGE ? TRN_MAX_BINDINGS
               : gpu->info.max_texel_range       ? TRN_MAX_TEXELS
                                                 : 0;
    for (int i = 0; status == TRN_OK && i <= last; i++)
        status = create_layout(gpu, i, err);
    return status;
}

static void save_cache(trn_gpu *gpu)
{
    size_t size = 0;
    char name[64];
    trn_gpu_cache_name(gpu, name);
    if (gpu->vk.vkGetPipelineCacheData(gpu->device, gpu->pipeline_cache, &size, NULL) != VK_SUCCESS || !size)
        return;
    void *data = malloc(size);
    if (data && gpu->vk.vkGetPipelineCacheData(gpu->device, gpu->pipeline_cache, &size, data) == VK_SUCCESS)
        trn_cache_store(folder, name, data, size);
    free(data);
}

void trn_kernels_close(trn_gpu *gpu)
{
    for (size_t i = 0; i < gpu->kernel_count; i++) {
        if (gpu->device) gpu->vk.vkDestroyPipeline(gpu->device, gpu->kernels[i]->pipeline, NULL);
        free(gpu->kernels[i]->name);
        free(gpu->kernels[i]);
    }
    free(gpu->kernels);
    free(gpu->kernels_warm);
}

void trn_pipelines_close(trn_gpu *gpu)
{
    bool keep = gpu->pipeline_cache && gpu->disk_cache && !gpu->statistics && !gpu->lost;
    if (keep && gpu->pipeline_cache_changed) save_cache(gpu);
    trn_kernels_close(gpu);
    for (int i = 0; i <= TRN_MAX_BINDINGS; i++) {
        gpu->vk.vkDestroyPipelineLayout(gpu->device, gpu->pipeline_layouts[i], NULL);
        gpu->vk.vkDestroyDescriptorSetLayout(gpu->device, gpu->set_layouts[i], NULL);
    }
    gpu->vk.vkDestroyPipelineCache(gpu->device, gpu->pipeline_cache, NULL);
}

/* ---- kernels ---- */

static trn_status create_pipeline(trn_gpu *gpu, const trn_kernel_desc *desc, const uint32_t *words,
                                  size_t bytes, VkPipeline *out, trn_error *err)
{
    VkShaderModuleCreateInfo module_info = {
        .sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO, .codeSize = bytes, .pCode = words};
    VkShaderModule module;
    trn_status status = TRN_VK(gpu, err, vkCreateShaderModule(gpu->device, &module_info, NULL, &module));
    if (status != TRN_OK) return status;
    VkPipelineShaderStageRequiredSubgroupSizeCreateInfo required = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = desc->subgroup_size};
    bool require = desc->subgroup_size && desc->subgroup_size >= gpu->info.subgroup_min &&
                   desc->subgroup_size <= gpu->info.subgroup_max;
    bool full = require && gpu->detail.full_subgroups &&
                trn_spirv_group_width(words, bytes / 4) % desc->subgroup_size == 0;
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .flags = VK_PIPELINE_CREATE_DISPATCH_BASE_BIT,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .pNext = require ? &required : NULL,
                  .flags = full ? VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT : 0,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .module = module,
                  .pName = "main"},
        .layout = gpu->pipeline_layouts[gpu->access == TRN_ACCESS_STORAGE ? desc->buffers : desc->texels]};
    if (gpu->statistics) info.flags |= VK_PIPELINE_CREATE_CAPTURE_STATISTICS_BIT_KHR;
    status =
        TRN_VK(gpu, err, vkCreateComputePipelines(gpu->device, gpu->pipeline_cache, 1, &info, NULL, out));
    gpu->vk.vkDestroyShaderModule(gpu->device, module, NULL);
    if (status != TRN_OK) return trn_wrap(err, "shader %s", desc->shader);
    gpu->pipeline_cache_changed = true;
    gpu->stats.pipelines++;
    return TRN_OK;
}

static trn_status check_desc(const trn_gpu *gpu, const trn_kernel_desc *desc, trn_error *err)
{
    if (!desc->shader) return trn_fail(err, TRN_ERR_ARGUMENT, "a kernel needs the name of a shader");
    if (desc->buffers < 1 || desc->buffers > TRN_MAX_BINDINGS || desc->scalars < 1 ||
        desc->scalars > TRN_MAX_SCALARS || desc->buffers * 8 + desc->scalars * 4 > MAX_PUSH_BYTES)
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "kernel %s has %d buffers and %d scalars; 1 to %d and 1 to %d are possible, and 8 bytes each "
            "and 4 bytes each must fit into %d",
            desc->shader, desc->buffers, desc->scalars, TRN_MAX_BINDINGS, TRN_MAX_SCALARS, MAX_PUSH_BYTES);
    bool can = gpu->access == TRN_ACCESS_ADDRESS && gpu->info.max_texel_range;
    if (desc->texels < 0 || desc->texels > TRN_MIN(desc->buffers, can ? TRN_MAX_TEXELS : 0))
        return trn_fail(err, TRN_ERR_ARGUMENT, "kernel %s reads %d buffers as texels; %d are possible here",
                        desc->shader, desc->texels, can ? TRN_MAX_TEXELS : 0);
    return TRN_OK;
}

static trn_status build(trn_gpu *gpu, const trn_kernel_desc *desc, const char *text, trn_kernel *kernel,
                        trn_error *err)
{
    uint32_t *words = NULL;
    size_t bytes = 0;
    if (gpu->target) return trn_pack_add(gpu, desc, text, err);
    trn_status status = trn_shader_spirv(gpu, desc, text, kernel->key, &words, &bytes, err);
    if (status == TRN_OK) status = trn_spirv_check(gpu, desc, words, bytes / 4, err);
    if (status == TRN_OK) status = trn_spirv_check_needs(gpu, desc, words, bytes / 4, err);
    if (status == TRN_OK) status = create_pipeline(gpu, desc, words, bytes, &kernel->pipeline, err);
    free(words);
    return status == TRN_OK ? trn_gpu_validated(gpu, err) : status;
}

trn_status trn_gpu_kernel_from_text(trn_gpu *gpu, const trn_kernel_desc *desc, const char *text,
                                    const trn_kernel **out, trn_error *err)
{
    uint8_t key[32];
    *out = NULL;
    trn_status status = trn_gpu_alive(gpu, err);
    if (status == TRN_OK) status = check_desc(gpu, desc, err);
    if (status != TRN_OK) return status;
    if (!trn_shader_key(gpu, desc, text, key)) return trn_fail_memory(err, strlen(text), "a shader's key");
    for (size_t i = 0; i < gpu->kernel_count; i++) {
        if (memcmp(gpu->kernels[i]->key, key, sizeof key) != 0) continue;
        *out = gpu->kernels[i];
        return TRN_OK;
    }
    trn_kernel *kernel = calloc(1, sizeof *kernel);
    if (!kernel || !(kernel->name = strdup(desc->shader)) ||
        !trn_grow(&gpu->kernels, &gpu->kernel_capacity, gpu->kernel_count + 1, sizeof *gpu->kernels) ||
        !trn_grow(&gpu->kernels_warm, &gpu->warm_capacity, gpu->kernel_count + 1,
                  sizeof *gpu->kernels_warm)) {
        status = trn_fail_memory(err, sizeof *kernel, "a kernel");
        goto fail;
    }
    memcpy(kernel->key, key, sizeof key);
    kernel->buffers = desc->buffers;
    kernel->scalars = desc->scalars;
    kernel->texels = desc->texels;
    status = build(gpu, desc, text, kernel, err);
    if (status != TRN_OK) goto fail;
    kernel->index = (int)gpu->kernel_count;
    gpu->kernels_warm[gpu->kernel_count] = false;
    gpu->kernels[gpu->kernel_count++] = kernel;
    *out = kernel;
    return TRN_OK;
fail:
    if (kernel) {
        if (gpu->device) gpu->vk.vkDestroyPipeline(gpu->device, kernel->pipeline, NULL);
        free(kernel->name);
    }
    free(kernel);
    return status;
}

trn_status trn_gpu_kernel(trn_gpu *gpu, const trn_kernel_desc *desc, const trn_kernel **out, trn_error *err)
{
    for (const trn_embedded_file *file = trn_shader_files; desc->shader && file->name; file++)
        if (!strcmp(file->name, desc->shader))
            return trn_gpu_kernel_from_text(gpu, desc, file->text, out, err);
    *out = NULL;
    return trn_fail(err, TRN_ERR_INTERNAL, "no shader '%s' in shaders/",
                    desc->shader ? desc->shader : "(null)");
}
