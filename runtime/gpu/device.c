/* Devices: what each is and can do, the choice of one, opening and closing it. */
#include "gpu_internal.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char *trn_device_type_name(trn_device_type type)
{
    static const char *const names[] = {"other", "integrated", "discrete", "virtual", "CPU"};
    return (size_t)type < TRN_COUNT(names) ? names[type] : "unknown";
}

bool trn_gpu_disabled(const char *feature)
{
    const char *list = getenv("TERRANE_DISABLE");
    size_t length = strlen(feature);
    while (list && *list) {
        size_t word = strcspn(list, ", ");
        if (word == length && !strncmp(list, feature, word)) return true;
        list += word + (list[word] != 0);
    }
    return false;
}

/* A switch nobody reads is most likely a slip of the pen. */
static void warn_of_unknown_switches(void)
{
    static const char *const known[] = {"address", "unified", "shader-cache", "fp16",
                                        "coopmat", "fusion",  "lanes",        "uniform"};
    const char *list = getenv("TERRANE_DISABLE");
    while (list && *list) {
        size_t word = strcspn(list, ", "), i = 0;
        while (i < TRN_COUNT(known) && (strlen(known[i]) != word || strncmp(list, known[i], word) != 0))
            i++;
        if (word && i == TRN_COUNT(known))
            trn_log(TRN_LOG_WARN, "TERRANE_DISABLE: there is no '%.*s' to switch off", (int)word, list);
        list += word + (list[word] != 0);
    }
}

/* ---- cooperative matrices ---- */

#ifndef VK_KHR_cooperative_matrix /* headers before 1.3.255: what is used of it, as the specification has it \
                                   */
#define VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR ((VkStructureType)1000506000)
#define VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR ((VkStructureType)1000506001)
#define VK_COMPONENT_TYPE_FLOAT16_KHR 0
#define VK_COMPONENT_TYPE_FLOAT32_KHR 1
#define VK_SCOPE_SUBGROUP_KHR 3
typedef struct VkPhysicalDeviceCooperativeMatrixFeaturesKHR {
    VkStructureType sType;
    void *pNext;
    VkBool32 cooperativeMatrix;
    VkBool32 cooperativeMatrixRobustBufferAccess;
} VkPhysicalDeviceCooperativeMatrixFeaturesKHR;
typedef struct VkCooperativeMatrixPropertiesKHR {
    VkStructureType sType;
    void *pNext;
    uint32_t MSize, NSize, KSize;
    int AType, BType, CType, ResultType;
    VkBool32 saturatingAccumulation;
    int scope;
} VkCooperativeMatrixPropertiesKHR;
typedef VkResult(VKAPI_PTR *PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)(
    VkPhysicalDevice, uint32_t *, VkCooperativeMatrixPropertiesKHR *);
#endif
static const char matrix_extension[] = "VK_KHR_cooperative_matrix";

/* Whether a subgroup multiplies float16 and sums float32 with it. */
static bool is_mixed_matrix(const VkCooperativeMatrixPropertiesKHR *p)
{
    return p->AType == VK_COMPONENT_TYPE_FLOAT16_KHR && p->BType == VK_COMPONENT_TYPE_FLOAT16_KHR &&
           p->CType == VK_COMPONENT_TYPE_FLOAT32_KHR && p->ResultType == VK_COMPONENT_TYPE_FLOAT32_KHR &&
           p->scope == VK_SCOPE_SUBGROUP_KHR && !p->saturatingAccumulation;
}

static void describe_matrices(const trn_instance *instance, VkPhysicalDevice physical, trn_device_info *info)
{
    VkCooperativeMatrixPropertiesKHR list[64];
    uint32_t count = TRN_COUNT(list);
    for (uint32_t i = 0; i < count; i++)
        list[i] =
            (VkCooperativeMatrixPropertiesKHR){.sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR};
    PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR get =
        (PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)vkGetInstanceProcAddr(
            instance->handle, "vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR");
    if (!get || get(physical, &count, list) < 0) return;
    for (uint32_t i = 0; i < count && info->matrix_count < TRN_MAX_MATRICES; i++) {
        const VkCooperativeMatrixPropertiesKHR *p = &list[i];
        if (is_mixed_matrix(p))
            info->matrices[info->matrix_count++] = (trn_matrix_shape){p->MSize, p->NSize, p->KSize};
    }
}

/* ---- description ---- */

typedef struct name_list {
    VkExtensionProperties *items;
    uint32_t count;
} name_list;

static name_list device_extensions(const trn_instance *instance, VkPhysicalDevice physical)
{
    name_list list = {0};
    if (instance->EnumerateDeviceExtensionProperties(physical, NULL, &list.count, NULL) != VK_SUCCESS)
        list.count = 0;
    if (list.count) list.items = calloc(list.count, sizeof *list.items);
    if (!list.items ||
        instance->EnumerateDeviceExtensionProperties(physical, NULL, &list.count, list.items) < 0)
        list.count = 0;
    return list;
}

static bool has_name(const name_list *list, const char *name)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (!strcmp(list->items[i].extensionName, name)) return true;
    return false;
}

static trn_device_type type_of(VkPhysicalDeviceType type)
{
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
        return TRN_DEVICE_INTEGRATED;
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return TRN_DEVICE_DISCRETE;
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
        return TRN_DEVICE_VIRTUAL;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return TRN_DEVICE_CPU;
    default:
        return TRN_DEVICE_OTHER;
    }
}

/* Prefers a family without graphics: work there does not make a desktop stutter, and timeouts are longer. */
static bool find_queue(const trn_instance *instance, VkPhysicalDevice physical, trn_device_detail *detail)
{
    VkQueueFamilyProperties families[32];
    uint32_t count = TRN_COUNT(families);
    bool found = false;
    instance->GetPhysicalDeviceQueueFamilyProperties(physical, &count, families);
    for (uint32_t i = 0; i < count; i++) {
        VkQueueFlags flags = families[i].queueFlags;
        if (!(flags & VK_QUEUE_COMPUTE_BIT) || !families[i].queueCount) continue;
        bool better = !found || (!(flags & VK_QUEUE_GRAPHICS_BIT) && families[i].timestampValidBits);
        if (!better) continue;
        detail->queue_family = i;
        detail->timestamp_bits = families[i].timestampValidBits;
        found = true;
        if (!(flags & VK_QUEUE_GRAPHICS_BIT)) break;
    }
    return found;
}

static uint32_t mesa_version(const char *driver_info)
{
    const char *mesa = strstr(driver_info, "Mesa ");
    unsigned major = 0, minor = 0, patch = 0;
    if (!mesa || sscanf(mesa, "Mesa %u.%u.%u", &major, &minor, &patch) < 2) return 0;
    return VK_MAKE_API_VERSION(0, TRN_MIN(major, 127u), TRN_MIN(minor, 1023u), TRN_MIN(patch, 4095u));
}

static void describe_limits(const VkPhysicalDeviceLimits *limits, trn_device_info *info)
{
    info->shared_memory_bytes = limits->maxComputeSharedMemorySize;
    info->max_invocations = limits->maxComputeWorkGroupInvocations;
    memcpy(info->max_group_size, limits->maxComputeWorkGroupSize, sizeof info->max_group_size);
    memcpy(info->max_group_count, limits->maxComputeWorkGroupCount, sizeof info->max_group_count);
    info->push_constant_bytes = limits->maxPushConstantsSize;
    info->max_storage_range = limits->maxStorageBufferRange;
    info->storage_alignment = limits->minStorageBufferOffsetAlignment;
    if (limits->minTexelBufferOffsetAlignment <= TRN_TEXEL_BYTES)
        info->max_texel_range = (uint64_t)TRN_TEXEL_BYTES * limits->maxTexelBufferElements;
    info->timestamp_ns = limits->timestampPeriod;
}

static void describe_properties(const trn_instance *instance, VkPhysicalDevice physical,
                                const name_list *extensions, trn_device_info *info, trn_device_detail *detail)
{
    VkPhysicalDeviceDriverProperties driver = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES};
    VkPhysicalDeviceIDProperties id = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES,
                                       .pNext = &driver};
    VkPhysicalDeviceSubgroupProperties subgroup = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES, .pNext = &id};
    VkPhysicalDeviceMaintenance3Properties maintenance3 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES, .pNext = &subgroup};
    VkPhysicalDeviceSubgroupSizeControlProperties control = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES};
    VkPhysicalDeviceMaintenance4Properties maintenance4 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_4_PROPERTIES};
    VkPhysicalDeviceProperties2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2,
                                       .pNext = &maintenance3};
    if (detail->core13 || has_name(extensions, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME)) {
        control.pNext = all.pNext;
        all.pNext = &control;
    }
    if (detail->core13) {
        maintenance4.pNext = all.pNext;
        all.pNext = &maintenance4;
    }
    instance->GetPhysicalDeviceProperties2(physical, &all);
    describe_limits(&all.properties.limits, info);
    info->driver_id = (uint32_t)driver.driverID;
    snprintf(info->driver, sizeof info->driver, "%.120s %.120s", driver.driverName, driver.driverInfo);
    for (size_t i = 0; i < VK_UUID_SIZE; i++)
        snprintf(info->uuid + 2 * i, 3, "%02x", id.deviceUUID[i]);
    detail->mesa_version = mesa_version(driver.driverInfo);
    detail->max_buffer = maintenance4.maxBufferSize ? maintenance4.maxBufferSize : UINT64_MAX;
    info->max_allocation = TRN_MIN(maintenance3.maxMemoryAllocationSize, 1ull << 30);
    info->max_allocation = TRN_MIN(info->max_allocation, detail->max_buffer);
    if (subgroup.supportedStages & VK_SHADER_STAGE_COMPUTE_BIT) {
        info->subgroup_size = subgroup.subgroupSize;
        info->subgroup_arithmetic = subgroup.supportedOperations & VK_SUBGROUP_FEATURE_ARITHMETIC_BIT;
        info->subgroup_shuffle = subgroup.supportedOperations & VK_SUBGROUP_FEATURE_SHUFFLE_BIT;
    }
    if (control.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT) {
        info->subgroup_min = control.minSubgroupSize;
        info->subgroup_max = control.maxSubgroupSize;
    }
}

static void describe_features(const trn_instance *instance, VkPhysicalDevice physical,
                              const name_list *extensions, trn_device_info *info, trn_device_detail *detail)
{
    VkPhysicalDeviceVulkan12Features v12 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES};
    VkPhysicalDeviceVulkan11Features v11 = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
                                            .pNext = &v12};
    VkPhysicalDeviceSubgroupSizeControlFeatures control = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES};
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR executable = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR};
    VkPhysicalDeviceFeatures2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2, .pNext = &v11};
    if (detail->core13 || has_name(extensions, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME)) {
        control.pNext = all.pNext;
        all.pNext = &control;
    }
    if (has_name(extensions, VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME)) {
        executable.pNext = all.pNext;
        all.pNext = &executable;
    }
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR};
    if (has_name(extensions, matrix_extension) && !instance->hides_matrices) {
        matrix.pNext = all.pNext;
        all.pNext = &matrix;
    }
    instance->GetPhysicalDeviceFeatures2(physical, &all);
    info->buffer_address = v12.bufferDeviceAddress;
    info->int64 = all.features.shaderInt64;
    info->float16 = v12.shaderFloat16;
    info->int8 = v12.shaderInt8;
    info->storage16 = v11.storageBuffer16BitAccess;
    info->timeline_semaphore = v12.timelineSemaphore;
    detail->memory_model = v12.vulkanMemoryModel;
    if (matrix.cooperativeMatrix && v12.vulkanMemoryModel && info->float16 && info->storage16)
        describe_matrices(instance, physical, info);
    info->cooperative_matrix = info->matrix_count > 0;
    detail->int16 = all.features.shaderInt16;
    detail->storage8 = v12.storageBuffer8BitAccess;
    detail->uniform16 = v11.uniformAndStorageBuffer16BitAccess;
    detail->scalar_layout = v12.scalarBlockLayout;
    detail->extended_subgroup_types = v12.shaderSubgroupExtendedTypes;
    detail->size_control = control.subgroupSizeControl;
    detail->full_subgroups = control.computeFullSubgroups;
    detail->memory_budget = has_name(extensions, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME);
    detail->portability_subset = has_name(extensions, "VK_KHR_portability_subset");
    detail->executable_properties = executable.pipelineExecutableInfo;
    if (!control.subgroupSizeControl) info->subgroup_min = info->subgroup_max = 0;
}

static uint64_t heap_free(const trn_instance *instance, VkPhysicalDevice physical, uint32_t heap)
{
    VkPhysicalDeviceMemoryBudgetPropertiesEXT budget = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT};
    VkPhysicalDeviceMemoryProperties2 all = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2,
                                             .pNext = &budget};
    instance->GetPhysicalDeviceMemoryProperties2(physical, &all);
    return budget.heapBudget[heap] > budget.heapUsage[heap] ? budget.heapBudget[heap] - budget.heapUsage[heap]
                                                            : 0;
}

void trn_device_describe(const trn_instance *instance, VkPhysicalDevice physical, int index,
                         trn_device_info *info, trn_device_detail *detail)
{
    *info = (trn_device_info){.index = index};
    *detail = (trn_device_detail){0};
    VkPhysicalDeviceProperties2 basic = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    instance->GetPhysicalDeviceProperties2(physical, &basic);
    const VkPhysicalDeviceProperties *p = &basic.properties;
    snprintf(info->name, sizeof info->name, "%s", p->deviceName);
    info->type = type_of(p->deviceType);
    info->vendor_id = p->vendorID;
    info->device_id = p->deviceID;
    info->driver_version = p->driverVersion;
    info->api_version = p->apiVersion;
    if (p->apiVersion < VK_API_VERSION_1_2) {
        snprintf(info->why_not, sizeof info->why_not, "its driver offers Vulkan %u.%u, 1.2 is needed",
                 VK_API_VERSION_MAJOR(p->apiVersion), VK_API_VERSION_MINOR(p->apiVersion));
        return;
    }
    detail->core13 = p->apiVersion >= VK_API_VERSION_1_3 && volkGetInstanceVersion() >= VK_API_VERSION_1_3;
    name_list extensions = device_extensions(instance, physical);
    describe_properties(instance, physical, &extensions, info, detail);
    describe_features(instance, physical, &extensions, info, detail);
    free(extensions.items);

    VkPhysicalDeviceMemoryProperties2 memory = {.sType =
                                                    VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2};
    instance->GetPhysicalDeviceMemoryProperties2(physical, &memory);
    uint32_t heap;
    bool cached;
    info->unified_memory = trn_memory_unified(&memory.memoryProperties, &cached, &heap);
    info->memory_bytes = memory.memoryProperties.memoryHeaps[heap].size;
    if (detail->memory_budget) info->memory_free = heap_free(instance, physical, heap);
    info->quirks = trn_quirks_of(info, detail);
    if (!(info->quirks & TRN_QUIRK_TEXEL_LOADS)) info->max_texel_range = 0;
    if (info->quirks & TRN_QUIRK_NOMINAL_HEAP) {
        info->memory_bytes = trn_host_memory_total();
        info->memory_free = trn_host_memory_available();
    }
    trn_limits_apply(info, detail);
    if (!find_queue(instance, physical, detail))
        snprintf(info->why_not, sizeof info->why_not, "it has no queue for compute work");
    else if (!info->timeline_semaphore)
        snprintf(info->why_not, sizeof info->why_not, "its driver offers no timeline semaphores");
    info->usable = !info->why_not[0];
}

trn_status trn_gpu_enumerate(trn_device_info **list, size_t *count, trn_error *err)
{
    trn_instance *instance = NULL;
    VkPhysicalDevice *devices = NULL;
    uint32_t found = 0;
    *list = NULL;
    *count = 0;
    trn_status status = trn_instance_create(false, &instance, err);
    if (status == TRN_OK) status = trn_instance_devices(instance, &devices, &found, err);
    if (status == TRN_OK) {
        *list = calloc(found, sizeof **list);
        if (!*list) status = trn_fail_memory(err, found * sizeof **list, "the list of devices");
    }
    for (uint32_t i = 0; status == TRN_OK && i < found; i++) {
        trn_device_detail detail;
        trn_device_describe(instance, devices[i], (int)i, *list + i, &detail);
    }
    if (status == TRN_OK) *count = found;
    free(devices);
    trn_instance_destroy(instance);
    return status;
}

/* ---- choice ---- */

static bool contains_ignoring_case(const char *text, const char *part)
{
    size_t length = strlen(part);
    for (; *text; text++) {
        size_t i = 0;
        while (i < length && text[i] && tolower((unsigned char)text[i]) == tolower((unsigned char)part[i]))
            i++;
        if (i == length) return true;
    }
    return length == 0;
}

static int rank_of(const trn_device_info *info)
{
    switch (info->type) {
    case TRN_DEVICE_DISCRETE:
        return 4;
    case TRN_DEVICE_INTEGRATED:
        return 3;
    case TRN_DEVICE_VIRTUAL:
        return 2;
    case TRN_DEVICE_OTHER:
        return 1;
    case TRN_DEVICE_CPU:
        break;
    }
    return 0;
}

static bool matches(const trn_device_info *info, const char *wish)
{
    int64_t index;
    if (trn_parse_int(wish, &index)) return info->index == index;
    return contains_ignoring_case(info->name, wish) ||
           contains_ignoring_case(trn_device_type_name(info->type), wish);
}

static trn_status fail_choice(const trn_device_info *list, size_t count, const char *wish, trn_error *err)
{
    trn_text text = {0};
    for (size_t i = 0; i < count; i++)
        trn_text_printf(&text, "%s%d = %s (%s)%s%s", i ? "; " : "", list[i].index, list[i].name,
                        trn_device_type_name(list[i].type),
                        list[i].usable ? "" : ", not usable: ", list[i].why_not);
    trn_status status =
        wish ? trn_fail(err, TRN_ERR_ARGUMENT, "no usable device matches '%s'. Devices here: %s", wish,
                        trn_text_get(&text))
             : trn_fail(err, TRN_ERR_DEVICE, "no device here is usable: %s", trn_text_get(&text));
    trn_text_free(&text);
    return status;
}

static trn_status choose(const trn_device_info *list, size_t count, const char *wish, size_t *out,
                         trn_error *err)
{
    const trn_device_info *best = NULL;
    for (size_t i = 0; i < count; i++) {
        if (!list[i].usable || (wish && !matches(&list[i], wish))) continue;
        if (!best || rank_of(&list[i]) > rank_of(best)) best = &list[i];
    }
    if (!best) return fail_choice(list, count, wish, err);
    *out = (size_t)(best - list);
    if (!wish && best->type == TRN_DEVICE_CPU)
        trn_log(TRN_LOG_INFO, "no GPU found: running on %s", best->name);
    return TRN_OK;
}

/* ---- opening ---- */

static trn_status create_device(trn_gpu *gpu, trn_error *err)
{
    const trn_device_info *info = &gpu->info;
    const trn_device_detail *detail = &gpu->detail;
    const char *extensions[5];
    uint32_t extension_count = 0;
    bool address = info->buffer_address && info->int64;
    VkPhysicalDeviceVulkan12Features v12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        .timelineSemaphore = VK_TRUE,
        .bufferDeviceAddress = address,
        .shaderFloat16 = info->float16,
        .shaderInt8 = info->int8,
        .storageBuffer8BitAccess = detail->storage8,
        .scalarBlockLayout = detail->scalar_layout,
        .shaderSubgroupExtendedTypes = detail->extended_subgroup_types,
        .vulkanMemoryModel = info->cooperative_matrix,
    };
    VkPhysicalDeviceVulkan11Features v11 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
        .pNext = &v12,
        .storageBuffer16BitAccess = info->storage16,
        .uniformAndStorageBuffer16BitAccess = detail->uniform16,
    };
    VkPhysicalDeviceSubgroupSizeControlFeatures control = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_FEATURES,
        .pNext = &v11,
        .subgroupSizeControl = VK_TRUE,
        .computeFullSubgroups = detail->full_subgroups,
    };
    VkPhysicalDeviceFeatures2 features = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
        .pNext = detail->size_control ? (void *)&control : (void *)&v11,
        .features = {.shaderInt64 = info->int64, .shaderInt16 = detail->int16},
    };
    VkPhysicalDevicePipelineExecutablePropertiesFeaturesKHR executable = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PIPELINE_EXECUTABLE_PROPERTIES_FEATURES_KHR,
        .pipelineExecutableInfo = VK_TRUE,
    };
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR,
        .pNext = features.pNext,
        .cooperativeMatrix = VK_TRUE,
    };
    if (info->cooperative_matrix) {
        features.pNext = &matrix;
        extensions[extension_count++] = matrix_extension;
    }
    if (gpu->statistics) {
        executable.pNext = features.pNext;
        features.pNext = &executable;
        extensions[extension_count++] = VK_KHR_PIPELINE_EXECUTABLE_PROPERTIES_EXTENSION_NAME;
    }
    if (detail->size_control && !detail->core13)
        extensions[extension_count++] = VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME;
    if (detail->memory_budget) extensions[extension_count++] = VK_EXT_MEMORY_BUDGET_EXTENSION_NAME;
    if (detail->portability_subset) extensions[extension_count++] = "VK_KHR_portability_subset";
    float priority = 1.0f;
    VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                     .queueFamilyIndex = detail->queue_family,
                                     .queueCount = 1,
                                     .pQueuePriorities = &priority};
    VkDeviceCreateInfo create = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                 .pNext = &features,
                                 .queueCreateInfoCount = 1,
                                 .pQueueCreateInfos = &queue,
                                 .enabledExtensionCount = extension_count,
                                 .ppEnabledExtensionNames = extensions};
    trn_status status =
        TRN_VK_INSTANCE(err, gpu->instance->CreateDevice(gpu->physical, &create, NULL, &gpu->device));
    if (status != TRN_OK) {
        gpu->device = NULL;
        return trn_wrap(err, "cannot open device %s", info->name);
    }
    trn_instance_load_device(gpu->instance, gpu->device, &gpu->vk);
    gpu->vk.vkGetDeviceQueue(gpu->device, detail->queue_family, 0, &gpu->queue);
    return TRN_OK;
}

static trn_status create_timeline(trn_gpu *gpu, trn_error *err)
{
    VkSemaphoreTypeCreateInfo type = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_TYPE_CREATE_INFO,
                                      .semaphoreType = VK_SEMAPHORE_TYPE_TIMELINE};
    VkSemaphoreCreateInfo create = {.sType = VK_STRUCTURE_TYPE_SEMAPHORE_CREATE_INFO, .pNext = &type};
    return TRN_VK(gpu, err, vkCreateSemaphore(gpu->device, &create, NULL, &gpu->timeline));
}

static trn_status find_device(trn_gpu *gpu, const char *wish, trn_error *err)
{
    VkPhysicalDevice *devices = NULL;
    uint32_t count = 0;
    size_t chosen = 0;
    trn_device_info *infos = NULL;
    trn_device_detail *details = NULL;
    trn_status status = trn_instance_devices(gpu->instance, &devices, &count, err);
    if (status != TRN_OK) return status;
    infos = calloc(count, sizeof *infos);
    details = calloc(count, sizeof *details);
    if (!infos || !details) {
        status = trn_fail_memory(err, count * (sizeof *infos + sizeof *details), "the list of devices");
        goto done;
    }
    for (uint32_t i = 0; i < count; i++)
        trn_device_describe(gpu->instance, devices[i], (int)i, &infos[i], &details[i]);
    if (!wish) wish = getenv("TERRANE_DEVICE");
    status = choose(infos, count, wish && *wish ? wish : NULL, &chosen, err);
    if (status != TRN_OK) goto done;
    gpu->physical = devices[chosen];
    gpu->info = infos[chosen];
    gpu->detail = details[chosen];
done:
    free(devices);
    free(infos);
    free(details);
    return status;
}

static trn_status choose_access(trn_gpu *gpu, trn_access wish, trn_error *err)
{
    bool can = gpu->info.buffer_address && gpu->info.int64;
    if (wish == TRN_ACCESS_ADDRESS && !can)
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "device %s offers no 64-bit buffer addresses; use storage access instead",
                        gpu->info.name);
    if (wish == TRN_ACCESS_AUTO)
        wish = can && !trn_gpu_disabled("address") ? TRN_ACCESS_ADDRESS : TRN_ACCESS_STORAGE;
    gpu->access = wish;
    return TRN_OK;
}

static trn_status open_device(trn_gpu *gpu, const trn_gpu_options *options, trn_error *err)
{
    trn_status status = trn_instance_create(options->validation, &gpu->instance, err);
    if (status == TRN_OK) status = find_device(gpu, options->device, err);
    if (status == TRN_OK) status = choose_access(gpu, options->access, err);
    if (status != TRN_OK) return status;
    if (options->statistics && !gpu->detail.executable_properties)
        return trn_fail(
            err, TRN_ERR_UNSUPPORTED,
            "the driver of %s tells nothing of compiled kernels (VK_KHR_pipeline_executable_properties)",
            gpu->info.name);
    gpu->statistics = options->statistics;
    if (trn_gpu_disabled("fp16")) gpu->info.float16 = gpu->info.storage16 = false;
    if (trn_gpu_disabled("coopmat") || !gpu->info.float16) {
        gpu->info.cooperative_matrix = false;
        gpu->info.matrix_count = 0;
    }
    status = create_device(gpu, err);
    if (status == TRN_OK) status = create_timeline(gpu, err);
    if (status != TRN_OK) return status;
    trn_memory_open(gpu);
    status = trn_pipelines_open(gpu, err);
    if (status != TRN_OK) return status;
    trn_pack_open(gpu);
    trn_tuning_open(gpu);
    trn_log(TRN_LOG_DEBUG, "device %d: %s, %s, %s access%s", gpu->info.index, gpu->info.name,
            gpu->info.driver, gpu->access == TRN_ACCESS_ADDRESS ? "address" : "storage",
            gpu->memory.unified ? ", unified memory" : "");
    return TRN_OK;
}

trn_status trn_gpu_open(const trn_gpu_options *options, trn_gpu **out, trn_error *err)
{
    static const trn_gpu_options defaults;
    if (!options) options = &defaults;
    *out = NULL;
    if (!(options->submit_seconds >= 0))
        return trn_fail(err, TRN_ERR_ARGUMENT, "submit_seconds must not be negative");
    warn_of_unknown_switches();
    trn_status status = trn_limits_check(err);
    if (status != TRN_OK) return status;
    trn_gpu *gpu = calloc(1, sizeof *gpu);
    if (!gpu) return trn_fail_memory(err, sizeof *gpu, "a device");
    gpu->submit_seconds = options->submit_seconds > 0 ? options->submit_seconds : 0.1;
    gpu->disk_cache = !options->no_disk_cache && !trn_gpu_disabled("shader-cache");
    gpu->fail_submission = options->fail_submission;
    gpu->fail_allocation = options->fail_allocation;
    status = open_device(gpu, options, err);
    if (status == TRN_OK) status = trn_gpu_validated(gpu, err);
    if (status != TRN_OK) {
        trn_gpu_close(gpu);
        return status;
    }
    *out = gpu;
    return TRN_OK;
}

void trn_gpu_close(trn_gpu *gpu)
{
    if (!gpu) return;
    if (gpu->target) trn_kernels_close(gpu);
    if (gpu->device) {
        /* a failure means that the device is lost: all is freed the same */
        if (gpu->submitted) gpu->vk.vkDeviceWaitIdle(gpu->device);
        trn_tuning_close(gpu);
        trn_staging_close(gpu);
        trn_pipelines_close(gpu);
        trn_memory_close(gpu);
        if (gpu->timeline) gpu->vk.vkDestroySemaphore(gpu->device, gpu->timeline, NULL);
        gpu->vk.vkDestroyDevice(gpu->device, NULL);
    }
    unsigned long long messages = gpu->instance ? atomic_load(&gpu->instance->messages) : 0;
    if (messages) trn_log(TRN_LOG_ERROR, "%llu Vulkan validation messages on %s", messages, gpu->info.name);
    trn_shader_close(gpu);
    trn_shader_pack_free(gpu->pack);
    trn_instance_destroy(gpu->instance);
    free(gpu);
}

const trn_device_info *trn_gpu_info(const trn_gpu *gpu)
{
    return &gpu->info;
}

trn_access trn_gpu_access(const trn_gpu *gpu)
{
    return gpu->access;
}

void trn_gpu_mark_run(trn_gpu *gpu)
{
    trn_gpu_stats *stats = &gpu->stats;
    if (stats->startup_cpu_seconds > 0) return;
    stats->startup_seconds = trn_process_seconds();
    stats->startup_cpu_seconds = (double)clock() / CLOCKS_PER_SEC;
    trn_log(TRN_LOG_DEBUG, "first run %.3f s after the start of the process, after %.3f s of work",
            stats->startup_seconds, stats->startup_cpu_seconds);
    trn_shader_close(gpu); /* few runs need another shader */
    trn_host_memory_trim();
}

trn_gpu_stats trn_gpu_get_stats(const trn_gpu *gpu)
{
    trn_gpu_stats stats = gpu->stats;
    stats.validation_messages = atomic_load(&gpu->instance->messages);
    return stats;
}

static uint64_t memory_available(const trn_gpu *gpu)
{
    uint32_t heap;
    bool cached;
    if (gpu->info.quirks & TRN_QUIRK_NOMINAL_HEAP) return trn_host_memory_available();
    trn_memory_unified(&gpu->memory.properties, &cached, &heap);
    uint64_t size = gpu->memory.properties.memoryHeaps[heap].size;
    if (gpu->detail.memory_budget) return heap_free(gpu->instance, gpu->physical, heap);
    return size > gpu->stats.memory_bytes ? size - gpu->stats.memory_bytes : 0;
}

uint64_t trn_gpu_memory_available(const trn_gpu *gpu)
{
    uint64_t limit = gpu->detail.memory_limit, held = gpu->stats.memory_bytes;
    return TRN_MIN(memory_available(gpu), limit > held ? limit - held : 0);
}

void trn_gpu_cache_name(const trn_gpu *gpu, char *out)
{
    snprintf(out, 64, "%s-%08x", gpu->info.uuid, gpu->info.driver_version);
}

trn_status trn_gpu_alive(const trn_gpu *gpu, trn_error *err)
{
    return gpu->lost ? trn_fail(err, TRN_ERR_DEVICE_LOST, "%s", gpu->lost_message) : TRN_OK;
}

trn_status trn_gpu_validated(trn_gpu *gpu, trn_error *err)
{
    unsigned long long messages = atomic_load(&gpu->instance->messages), before = gpu->messages_reported;
    if (messages == before) return TRN_OK;
    gpu->messages_reported = messages;
    trn_status status = trn_fail(err, TRN_ERR_INTERNAL, "%llu Vulkan validation messages, the first: %s",
                                 messages - before, gpu->instance->first_message);
    atomic_flag_clear(&gpu->instance->message_taken);
    return status;
}
