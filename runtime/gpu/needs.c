/* What a kernel's SPIR-V needs of a device: capabilities and shared memory. A driver that has more than it
 * was described with would run it all the same, one that has less would misbehave: both are refused. */
#include "gpu_internal.h"

#include <stdlib.h>

enum { HEADER = 5 };
/* numbers of the SPIR-V specification */
enum {
    OP_CAPABILITY = 17,
    OP_TYPE_INT = 21,
    OP_TYPE_FLOAT = 22,
    OP_TYPE_VECTOR = 23,
    OP_TYPE_ARRAY = 28,
    OP_TYPE_STRUCT = 30,
    OP_TYPE_POINTER = 32,
    OP_CONSTANT = 43,
    OP_VARIABLE = 59,
    STORAGE_WORKGROUP = 4,
};

typedef struct capability_row {
    uint32_t capability;
    const char *name;
    bool (*has)(const trn_device_info *info);
} capability_row;

static bool has_float16(const trn_device_info *info)
{
    return info->float16;
}

static bool has_int64(const trn_device_info *info)
{
    return info->int64;
}

static bool has_arithmetic(const trn_device_info *info)
{
    return info->subgroup_arithmetic;
}

static bool has_shuffle(const trn_device_info *info)
{
    return info->subgroup_shuffle;
}

static bool has_storage16(const trn_device_info *info)
{
    return info->storage16;
}

static bool has_address(const trn_device_info *info)
{
    return info->buffer_address;
}

static const capability_row capabilities[] = {
    {9, "float16 arithmetic", has_float16},      {11, "64-bit integers", has_int64},
    {63, "subgroup arithmetic", has_arithmetic}, {65, "subgroup shuffles", has_shuffle},
    {66, "subgroup shuffles", has_shuffle},      {4433, "16-bit storage", has_storage16},
    {4434, "16-bit storage", has_storage16},     {5347, "buffer addresses", has_address},
};

static trn_status check_capability(const trn_gpu *gpu, const char *name, uint32_t capability, trn_error *err)
{
    for (size_t i = 0; i < TRN_COUNT(capabilities); i++) {
        if (capabilities[i].capability != capability || capabilities[i].has(&gpu->info)) continue;
        return trn_fail(err, TRN_ERR_UNSUPPORTED, "shader %s needs %s, which device %s does not have", name,
                        capabilities[i].name, gpu->info.name);
    }
    return TRN_OK;
}

/* What an id stands for: bytes of a type, or the value of a constant. */
static uint64_t value_of(const uint64_t *values, uint32_t bound, uint32_t id)
{
    return id < bound ? values[id] : 0;
}

static void learn(const uint32_t *op, uint64_t *values, uint32_t bound)
{
    uint32_t code = op[0] & 0xffff, length = op[0] >> 16;
    if (length < 3) return;
    uint32_t id = code == OP_CONSTANT ? op[2] : op[1];
    if (id >= bound) return;
    if (code == OP_TYPE_INT || code == OP_TYPE_FLOAT) values[id] = op[2] / 8;
    if (code == OP_CONSTANT && length >= 4) values[id] = op[3];
    if (code == OP_TYPE_VECTOR && length >= 4) values[id] = value_of(values, bound, op[2]) * op[3];
    if (code == OP_TYPE_ARRAY && length >= 4)
        values[id] = value_of(values, bound, op[2]) * value_of(values, bound, op[3]);
    if (code == OP_TYPE_POINTER && length >= 4) values[id] = value_of(values, bound, op[3]);
    for (uint32_t i = 2; code == OP_TYPE_STRUCT && i < length; i++)
        values[id] += value_of(values, bound, op[i]);
}

/* Bytes of all variables that work groups share. */
static trn_status shared_bytes(const uint32_t *words, size_t count, uint64_t *bytes, trn_error *err)
{
    uint32_t bound = words[3];
    *bytes = 0;
    if (bound > (uint32_t)1 << 22) return trn_fail(err, TRN_ERR_INTERNAL, "a shader with %u names", bound);
    uint64_t *values = calloc((size_t)bound + 1, sizeof *values);
    if (!values) return trn_fail_memory(err, bound * sizeof *values, "checking a shader");
    for (size_t at = HEADER; at < count; at += words[at] >> 16) {
        const uint32_t *op = words + at;
        if ((op[0] & 0xffff) == OP_VARIABLE && op[0] >> 16 >= 4 && op[3] == STORAGE_WORKGROUP)
            *bytes += value_of(values, bound, op[1]);
        else
            learn(op, values, bound);
    }
    free(values);
    return TRN_OK;
}

trn_status trn_spirv_check_needs(const trn_gpu *gpu, const trn_kernel_desc *desc, const uint32_t *words,
                                 size_t count, trn_error *err)
{
    uint64_t shared = 0;
    trn_status status = TRN_OK;
    for (size_t at = HEADER; status == TRN_OK && at < count; at += words[at] >> 16)
        if ((words[at] & 0xffff) == OP_CAPABILITY && words[at] >> 16 >= 2)
            status = check_capability(gpu, desc->shader, words[at + 1], err);
    if (status == TRN_OK) status = shared_bytes(words, count, &shared, err);
    if (status != TRN_OK || shared <= gpu->info.shared_memory_bytes) return status;
    return trn_fail(err, TRN_ERR_UNSUPPORTED, "shader %s wants %llu bytes of shared memory; device %s has %u",
                    desc->shader, (unsigned long long)shared, gpu->info.name, gpu->info.shared_memory_bytes);
}
