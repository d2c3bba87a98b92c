/* terrane devices: what Vulkan devices there are, what they can do, and which kernels run on them. */
#include "command.h"
#include "graph.h"

#include <stdlib.h>

typedef struct devices_values {
    common_values common;
} devices_values;

static const trn_option options[] = {{.name = NULL}};

/* A device as opened by itself; what fails to open says why. */
typedef struct opened_device {
    trn_gpu *gpu;
    trn_kernel_variant_info *variants;
    size_t variant_count;
    trn_error err;
} opened_device;

static opened_device open_device(const trn_device_info *info)
{
    opened_device device = {0};
    char index[16];
    snprintf(index, sizeof index, "%d", info->index);
    trn_gpu_options gpu_options = {.device = index};
    trn_status status = trn_gpu_open(&gpu_options, &device.gpu, &device.err);
    if (status == TRN_OK)
        trn_kernel_variants(device.gpu, &device.variants, &device.variant_count, &device.err);
    return device;
}

static void close_device(opened_device *device)
{
    free(device->variants);
    trn_gpu_close(device->gpu);
}

static const char *access_name(const opened_device *device)
{
    if (!device->gpu) return "-";
    return trn_gpu_access(device->gpu) == TRN_ACCESS_ADDRESS ? "address" : "storage";
}

/* name, value pairs of what the device has */
static void features(const trn_device_info *info, const char *separator, const char *quote, trn_text *out)
{
    const struct {
        bool has;
        const char *name;
    } list[] = {
        {info->subgroup_arithmetic, "subgroup-arithmetic"},
        {info->subgroup_shuffle, "subgroup-shuffle"},
        {info->float16, "float16"},
        {info->int8, "int8"},
        {info->storage16, "storage16"},
        {info->int64, "int64"},
        {info->buffer_address, "buffer-address"},
        {info->cooperative_matrix, "cooperative-matrix"},
        {info->unified_memory, "unified-memory"},
    };
    bool first = true;
    for (size_t i = 0; i < TRN_COUNT(list); i++) {
        if (!list[i].has) continue;
        trn_text_printf(out, "%s%s%s%s", first ? "" : separator, quote, list[i].name, quote);
        first = false;
    }
}

static void version_text(uint32_t version, char out[32])
{
    snprintf(out, 32, "%u.%u.%u", version >> 22 & 0x7f, version >> 12 & 0x3ff, version & 0xfff);
}

static void print_device(const trn_device_info *info, const opened_device *device, trn_text *out)
{
    char memory[32], free_memory[32], api[32];
    version_text(info->api_version, api);
    trn_text_printf(out, "%d: %s\n", info->index, info->name);
    trn_text_printf(out, "   type      %s\n   driver    %s\n   vulkan    %s\n",
                    trn_device_type_name(info->type), info->driver, api);
    trn_text_printf(out, "   memory    %s", trn_format_bytes(info->memory_bytes, memory));
    if (info->memory_free)
        trn_text_printf(out, ", free %s", trn_format_bytes(info->memory_free, free_memory));
    trn_text_printf(out, "\n   subgroup  %u", info->subgroup_size);
    if (info->subgroup_max) trn_text_printf(out, " (%u to %u)", info->subgroup_min, info->subgroup_max);
    trn_text_printf(out, "\n   access    %s\n   features  ", access_name(device));
    features(info, ", ", "", out);
    trn_text_add(out, "\n   quirks    ");
    if (info->quirks)
        trn_quirk_names(info->quirks, out);
    else
        trn_text_add(out, "none");
    trn_text_add(out, "\n");
    if (!info->usable)
        trn_text_printf(out, "   not usable: %s\n", info->why_not);
    else if (device->err.code != TRN_OK)
        trn_text_printf(out, "   fails: %s\n", device->err.message);
    if (device->variant_count) trn_text_add(out, "   kernels\n");
    for (size_t i = 0; i < device->variant_count; i++) {
        const trn_kernel_variant_info *variant = &device->variants[i];
        trn_text_printf(out, "     %-16s %-10s %-4s %s\n", variant->op, variant->variant,
                        variant->applies ? "yes" : "no",
                        variant->applies ? variant->description : variant->why_not);
    }
}

static void json_device(const trn_device_info *info, const opened_device *device, trn_text *out)
{
    char api[32];
    version_text(info->api_version, api);
    trn_text_printf(out, "{\"index\": %d, \"name\": ", info->index);
    trn_text_json(out, info->name);
    trn_text_add(out, ", \"driver\": ");
    trn_text_json(out, info->driver);
    trn_text_printf(out,
                    ", \"type\": \"%s\", \"vulkan\": \"%s\", \"uuid\": \"%s\", \"usable\": %s, \"why_not\": ",
                    trn_device_type_name(info->type), api, info->uuid, info->usable ? "true" : "false");
    trn_text_json(out,
                  info->usable ? (device->err.code != TRN_OK ? device->err.message : NULL) : info->why_not);
    trn_text_printf(out, ", \"memory\": %llu, \"memory_free\": %llu, \"subgroup\": %u, \"access\": \"%s\"",
                    (unsigned long long)info->memory_bytes, (unsigned long long)info->memory_free,
                    info->subgroup_size, access_name(device));
    trn_text_add(out, ", \"features\": [");
    features(info, ", ", "\"", out);
    trn_text quirks = {0};
    if (info->quirks) trn_quirk_names(info->quirks, &quirks);
    trn_text_add(out, "], \"quirks\": ");
    trn_text_json(out, trn_text_get(&quirks));
    trn_text_free(&quirks);
    trn_text_add(out, ", \"kernels\": [");
    for (size_t i = 0; i < device->variant_count; i++) {
        const trn_kernel_variant_info *variant = &device->variants[i];
        trn_text_printf(out, "%s{\"op\": \"%s\", \"variant\": \"%s\", \"applies\": %s, \"why_not\": ",
                        i ? ", " : "", variant->op, variant->variant, variant->applies ? "true" : "false");
        trn_text_json(out, variant->applies ? NULL : variant->why_not);
        trn_text_add(out, "}");
    }
    trn_text_add(out, "]}");
}

static trn_status run(const trn_command *command, void *user, trn_error *err)
{
    (void)command;
    const devices_values *values = user;
    trn_device_info *list = NULL;
    size_t count = 0;
    trn_status status = trn_gpu_enumerate(&list, &count, err);
    if (status != TRN_OK) return status;
    trn_text out = {0};
    if (values->common.json) trn_text_add(&out, "{\"ok\": true, \"devices\": [");
    for (size_t i = 0; i < count; i++) {
        opened_device device = {0};
        if (list[i].usable) device = open_device(&list[i]);
        if (values->common.json) {
            trn_text_add(&out, i ? ",\n  " : "\n  ");
            json_device(&list[i], &device, &out);
        } else {
            print_device(&list[i], &device, &out);
        }
        close_device(&device);
    }
    if (values->common.json) trn_text_add(&out, "\n]}\n");
    status = console_print(&out, err);
    trn_text_free(&out);
    free(list);
    return status;
}

const trn_command devices_command = {
    .name = "devices",
    .usage = "devices [--json]",
    .summary = "lists the Vulkan devices and what runs on them",
    .details = "Lists the Vulkan devices with what they can do, the known faults of their drivers, and for "
               "each kernel "
               "variant whether it applies or why not. The index is what --device and TERRANE_DEVICE take.",
    .example = "  terrane devices",
    .options = options,
    .values_size = sizeof(devices_values),
    .run = run,
};
