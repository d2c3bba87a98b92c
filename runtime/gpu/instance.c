/* The Vulkan loader and instances: layers, extensions, validation messages. */
#include "gpu_internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static const char validation_layer[] = "VK_LAYER_KHRONOS_validation";

/* volk keeps the loader's entry points in globals. */
static pthread_mutex_t loader_lock = PTHREAD_MUTEX_INITIALIZER;

static trn_status load_loader(trn_error *err)
{
    pthread_mutex_lock(&loader_lock);
    bool found = volkGetInstanceVersion() != 0 || volkInitialize() == VK_SUCCESS;
    uint32_t version = found ? volkGetInstanceVersion() : 0;
    pthread_mutex_unlock(&loader_lock);
    if (!found)
        return trn_fail(
            err, TRN_ERR_DEVICE,
            "no Vulkan loader (libvulkan.so.1) on this system. On Debian or Ubuntu: apt install libvulkan1 "
            "mesa-vulkan-drivers (the second holds the drivers, one for the CPU among them)");
    if (version < VK_API_VERSION_1_2)
        return trn_fail(
            err, TRN_ERR_DEVICE,
            "the Vulkan loader of this system is of version %u.%u; 1.2 is needed. On Debian or Ubuntu: "
            "apt install libvulkan1",
            VK_API_VERSION_MAJOR(version), VK_API_VERSION_MINOR(version));
    return TRN_OK;
}

/* The version of Vulkan that a layer was written for, 0 when it is not installed. */
static uint32_t layer_version(const char *name)
{
    uint32_t count = 0, version = 0;
    if (vkEnumerateInstanceLayerProperties(&count, NULL) != VK_SUCCESS || !count) return 0;
    VkLayerProperties *layers = calloc(count, sizeof *layers);
    if (layers && vkEnumerateInstanceLayerProperties(&count, layers) >= 0)
        for (uint32_t i = 0; i < count && !version; i++)
            if (!strcmp(layers[i].layerName, name)) version = layers[i].specVersion;
    free(layers);
    return version;
}

static bool has_extension(const char *layer, const char *name)
{
    uint32_t count = 0;
    bool found = false;
    if (vkEnumerateInstanceExtensionProperties(layer, &count, NULL) != VK_SUCCESS || !count) return false;
    VkExtensionProperties *list = calloc(count, sizeof *list);
    if (list && vkEnumerateInstanceExtensionProperties(layer, &count, list) >= 0)
        for (uint32_t i = 0; i < count && !found; i++)
            found = !strcmp(list[i].extensionName, name);
    free(list);
    return found;
}

/* Called by the layer, from any thread. */
static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                 VkDebugUtilsMessageTypeFlagsEXT types,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data, void *user)
{
    (void)types;
    trn_instance *instance = user;
    bool error = severity & VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
    trn_log(error ? TRN_LOG_ERROR : TRN_LOG_WARN, "Vulkan validation: %s", data->pMessage);
    if (!atomic_flag_test_and_set(&instance->message_taken))
        snprintf(instance->first_message, sizeof instance->first_message, "%s", data->pMessage);
    atomic_fetch_add(&instance->messages, 1);
    if (instance->abort_on_message) {
        /* asked for by $TERRANE_VALIDATE=abort, so that a whole test run fails at its first message */
        fprintf(stderr, "Vulkan validation: %s\n", data->pMessage);
        abort();
    }
    return VK_FALSE;
}

static bool load_functions(trn_instance *instance)
{
    bool all = true;
#define TRN_LOAD(name)                                                                                       \
    instance->name = (PFN_vk##name)vkGetInstanceProcAddr(instance->handle, "vk" #name);                      \
    all = all && instance->name;
    TRN_INSTANCE_FUNCTIONS(TRN_LOAD)
#undef TRN_LOAD
    return all;
}

static trn_status create_messenger(trn_instance *instance, const VkDebugUtilsMessengerCreateInfoEXT *info,
                                   trn_error *err)
{
    PFN_vkCreateDebugUtilsMessengerEXT create = (PFN_vkCreateDebugUtilsMessengerEXT)vkGetInstanceProcAddr(
        instance->handle, "vkCreateDebugUtilsMessengerEXT");
    instance->DestroyDebugUtilsMessengerEXT = (PFN_vkDestroyDebugUtilsMessengerEXT)vkGetInstanceProcAddr(
        instance->handle, "vkDestroyDebugUtilsMessengerEXT");
    if (!create || !instance->DestroyDebugUtilsMessengerEXT)
        return trn_fail(err, TRN_ERR_DEVICE, "the validation layer offers no VK_EXT_debug_utils");
    return TRN_VK_INSTANCE(err, create(instance->handle, info, NULL, &instance->messenger));
}

static trn_status create_handle(trn_instance *instance, trn_error *err)
{
    const char *layers[1], *extensions[2];
    uint32_t layer_count = 0, extension_count = 0;
    VkDebugUtilsMessengerCreateInfoEXT messenger = {
        .sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
        .messageSeverity =
            VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
        .messageType =
            VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT | VK_DEBUG_UTILS_MESSAGE_TYPE_PERFORMANCE_BIT_EXT,
        .pfnUserCallback = on_message,
        .pUserData = instance,
    };
    uint32_t version = volkGetInstanceVersion();
    VkApplicationInfo app = {
        .sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
        .pApplicationName = "terrane",
        .pEngineName = "terrane",
        .apiVersion = version < VK_API_VERSION_1_3 ? VK_API_VERSION_1_2 : VK_API_VERSION_1_3,
    };
    VkInstanceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &app};
    if (instance->validation) {
        uint32_t known = layer_version(validation_layer);
        if (!known)
            return trn_fail(
                err, TRN_ERR_DEVICE,
                "validation is asked for, but %s is not installed. On Debian or Ubuntu: apt install "
                "vulkan-validationlayers",
                validation_layer);
        instance->hides_matrices = known < VK_MAKE_API_VERSION(0, 1, 3, 255);
        layers[layer_count++] = validation_layer;
        extensions[extension_count++] = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
        info.pNext = &messenger;
    }
    /* devices that are not fully conformant (MoltenVK) show only when asked for */
    if (has_extension(NULL, VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME)) {
        extensions[extension_count++] = VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME;
        info.flags |= VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR;
    }
    info.enabledLayerCount = layer_count;
    info.ppEnabledLayerNames = layers;
    info.enabledExtensionCount = extension_count;
    info.ppEnabledExtensionNames = extensions;
    VkResult result = vkCreateInstance(&info, NULL, &instance->handle);
    if (result == VK_ERROR_INCOMPATIBLE_DRIVER) {
        instance->handle = NULL;
        return TRN_OK; /* a loader without any driver: no devices, said by the caller */
    }
    trn_status status = trn_vk_check(NULL, result, "vkCreateInstance", err);
    if (status != TRN_OK) {
        instance->handle = NULL;
        return status;
    }
    if (!load_functions(instance))
        return trn_fail(err, TRN_ERR_DEVICE, "the Vulkan loader lacks functions of Vulkan 1.2");
    return instance->validation ? create_messenger(instance, &messenger, err) : TRN_OK;
}

trn_status trn_instance_create(bool validation, trn_instance **out, trn_error *err)
{
    *out = NULL;
    trn_status status = load_loader(err);
    if (status != TRN_OK) return status;
    trn_instance *instance = calloc(1, sizeof *instance);
    if (!instance) return trn_fail_memory(err, sizeof *instance, "a Vulkan instance");
    const char *wish = getenv("TERRANE_VALIDATE");
    bool wished = wish && *wish && strcmp(wish, "0") != 0;
    instance->validation = validation || wished;
    instance->abort_on_message = wished && !strcmp(wish, "abort");
    atomic_init(&instance->messages, 0);
    atomic_flag_clear(&instance->message_taken);
    status = create_handle(instance, err);
    if (status != TRN_OK) {
        trn_instance_destroy(instance);
        return status;
    }
    *out = instance;
    return TRN_OK;
}

void trn_instance_destroy(trn_instance *instance)
{
    if (!instance) return;
    if (instance->messenger)
        instance->DestroyDebugUtilsMessengerEXT(instance->handle, instance->messenger, NULL);
    if (instance->handle && instance->DestroyInstance) instance->DestroyInstance(instance->handle, NULL);
    free(instance);
}

trn_status trn_instance_devices(const trn_instance *instance, VkPhysicalDevice **list, uint32_t *count,
                                trn_error *err)
{
    *list = NULL;
    *count = 0;
    trn_status status = TRN_OK;
    if (instance->handle)
        status = TRN_VK_INSTANCE(err, instance->EnumeratePhysicalDevices(instance->handle, count, NULL));
    if (status != TRN_OK) return status;
    if (!*count)
        return trn_fail(err, TRN_ERR_DEVICE,
                        "the Vulkan loader finds no driver with a device. On Debian or Ubuntu: apt install "
                        "mesa-vulkan-drivers (also holds the driver for the CPU); check $VK_DRIVER_FILES and "
                        "$VK_ICD_FILENAMES if they are set");
    VkPhysicalDevice *devices = calloc(*count, sizeof *devices);
    if (!devices) return trn_fail_memory(err, *count * sizeof *devices, "the list of devices");
    status = TRN_VK_INSTANCE(err, instance->EnumeratePhysicalDevices(instance->handle, count, devices));
    if (status != TRN_OK) {
        free(devices);
        return status;
    }
    *list = devices;
    return TRN_OK;
}

void trn_instance_load_device(const trn_instance *instance, VkDevice device, struct VolkDeviceTable *table)
{
    pthread_mutex_lock(&loader_lock);
    volkLoadInstanceOnly(instance->handle);
    volkLoadDeviceTable(table, device);
    pthread_mutex_unlock(&loader_lock);
}
