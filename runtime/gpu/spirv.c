/* What is read from SPIR-V before a driver sees it. */
#include "gpu_internal.h"

enum { HEADER = 5, MAGIC = 0x07230203 };
/* numbers of the SPIR-V specification */
enum {
    OP_ENTRY_POINT = 15,
    OP_EXECUTION_MODE = 16,
    OP_TYPE_POINTER = 32,
    OP_DECORATE = 71,
    OP_MEMBER_DECORATE = 72,
    MODEL_COMPUTE = 5,
    MODE_LOCAL_SIZE = 17,
    DECORATION_BINDING = 33,
    DECORATION_OFFSET = 35,
    STORAGE_PUSH_CONSTANT = 9,
};

static trn_status check_group(const trn_gpu *gpu, const char *name, const uint32_t *size, trn_error *err)
{
    const uint32_t *max = gpu->info.max_group_size;
    uint64_t plane = (uint64_t)size[0] * size[1];
    if (size[0] <= max[0] && size[1] <= max[1] && size[2] <= max[2] &&
        plane * size[2] <= gpu->info.max_invocations)
        return TRN_OK;
    return trn_fail(err, TRN_ERR_UNSUPPORTED,
                    "shader %s wants work groups of %ux%ux%u; device %s allows %u invocations", name, size[0],
                    size[1], size[2], gpu->info.name, gpu->info.max_invocations);
}

/* The struct that push constants point to; 0 when there is none. */
static uint32_t push_struct(const uint32_t *words, size_t count)
{
    for (size_t at = HEADER; at < count; at += words[at] >> 16)
        if ((words[at] & 0xffff) == OP_TYPE_POINTER && words[at] >> 16 == 4 &&
            words[at + 2] == STORAGE_PUSH_CONSTANT)
            return words[at + 3];
    return 0;
}

static trn_status check_push(const trn_gpu *gpu, const trn_kernel_desc *desc, uint32_t offset, trn_error *err)
{
    uint32_t address_bytes = gpu->access == TRN_ACCESS_ADDRESS ? 8u * (uint32_t)desc->buffers : 0;
    if (offset < address_bytes + 4u * (uint32_t)desc->scalars) return TRN_OK;
    return trn_fail(
        err, TRN_ERR_INTERNAL,
        "shader %s takes more buffers or scalars than the %d and %d of its description (a value at byte %u)",
        desc->shader, desc->buffers, desc->scalars, offset);
}

static trn_status check_instruction(const trn_gpu *gpu, const trn_kernel_desc *desc, const uint32_t *op,
                                    uint32_t pushed, trn_error *err)
{
    uint32_t code = op[0] & 0xffff, length = op[0] >> 16;
    if (code == OP_EXECUTION_MODE && length >= 6 && op[2] == MODE_LOCAL_SIZE)
        return check_group(gpu, desc->shader, op + 3, err);
    if (code == OP_DECORATE && length >= 4 && op[2] == DECORATION_BINDING && op[3] >= (uint32_t)desc->buffers)
        return trn_fail(err, TRN_ERR_INTERNAL, "shader %s binds buffer %u; its description has %d buffers",
                        desc->shader, op[3], desc->buffers);
    if (code == OP_MEMBER_DECORATE && length >= 5 && pushed && op[1] == pushed && op[3] == DECORATION_OFFSET)
        return check_push(gpu, desc, op[4], err);
    return TRN_OK;
}

uint32_t trn_spirv_group_width(const uint32_t *words, size_t count)
{
    for (size_t at = HEADER; at < count; at += words[at] >> 16) {
        const uint32_t *op = words + at;
        if ((op[0] & 0xffff) == OP_EXECUTION_MODE && op[0] >> 16 >= 6 && op[2] == MODE_LOCAL_SIZE)
            return op[3];
    }
    return 0;
}

/* Whether it is a compute shader with the entry that pipelines name. */
static bool has_main(const uint32_t *words, size_t count)
{
    const uint32_t main_text = 'm' | 'a' << 8 | 'i' << 16 | (uint32_t)'n' << 24;
    for (size_t at = HEADER; at < count; at += words[at] >> 16) {
        const uint32_t *op = words + at;
        if ((op[0] & 0xffff) == OP_ENTRY_POINT && op[0] >> 16 >= 5 && op[1] == MODEL_COMPUTE &&
            op[3] == main_text && op[4] == 0)
            return true;
    }
    return false;
}

trn_status trn_spirv_check(const trn_gpu *gpu, const trn_kernel_desc *desc, const uint32_t *words,
                           size_t count, trn_error *err)
{
    bool whole = count > HEADER && words[0] == MAGIC;
    for (size_t at = HEADER; whole && at < count; at += words[at] >> 16)
        whole = words[at] >> 16 && words[at] >> 16 <= count - at;
    if (!whole || !has_main(words, count))
        return trn_fail(err, TRN_ERR_INTERNAL,
                        "shader %s: what the compiler or a shader pack gave is not SPIR-V of it",
                        desc->shader);
    uint32_t pushed = push_struct(words, count);
    trn_status status = TRN_OK;
    for (size_t at = HEADER; status == TRN_OK && at < count; at += words[at] >> 16)
        status = check_instruction(gpu, desc, words + at, pushed, err);
    return status;
}
