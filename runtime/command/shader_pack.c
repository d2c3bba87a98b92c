/* terrane shaders --pack: the kernels of cooperative matrices, compiled for the GPUs that have them. */
#include "shaders.h"

#include <stdlib.h>

/* What the kernels depend on, of devices as their drivers describe themselves. */
typedef struct target {
    const char *name;
    trn_device_type type;
    uint32_t vendor_id, subgroup, subgroup_min, subgroup_max, shared_memory;
    trn_matrix_shape matrix;
    bool storage; /* also without addresses */
} target;

static const target targets[] = {
    {"NVIDIA", TRN_DEVICE_DISCRETE, 0x10de, 32, 32, 32, 48 << 10, {16, 16, 16}, false},
    {"AMD", TRN_DEVICE_DISCRETE, 0x1002, 64, 32, 64, 64 << 10, {16, 16, 16}, false},
    {"Intel, subgroups of 8", TRN_DEVICE_DISCRETE, 0x8086, 32, 8, 32, 64 << 10, {8, 8, 16}, false},
    {"Intel, subgroups of 16", TRN_DEVICE_DISCRETE, 0x8086, 32, 16, 32, 64 << 10, {8, 16, 16}, false},
    {"llvmpipe", TRN_DEVICE_CPU, 0, 8, 8, 8, 32 << 10, {8, 8, 8}, true},
};

static trn_device_info describe(const target *t)
{
    const uint32_t most = 65535;
    trn_device_info info = {.type = t->type,
                            .vendor_id = t->vendor_id,
                            .subgroup_size = t->subgroup,
                            .subgroup_min = t->subgroup_min,
                            .subgroup_max = t->subgroup_max,
                            .subgroup_arithmetic = true,
                            .subgroup_shuffle = true,
                            .shared_memory_bytes = t->shared_memory,
                            .max_invocations = 1024,
                            .max_group_size = {1024, 1024, 64},
                            .max_group_count = {most, most, most},
                            .push_constant_bytes = 128,
                            .max_storage_range = UINT32_MAX,
                            .storage_alignment = 64,
                            .max_allocation = 1 << 30,
                            .memory_bytes = (uint64_t)1 << 34,
                            .buffer_address = true,
                            .int64 = true,
                            .float16 = true,
                            .int8 = true,
                            .storage16 = true,
                            .timeline_semaphore = true,
                            .cooperative_matrix = true,
                            .matrices = {t->matrix},
                            .matrix_count = 1,
                            .quirks = t->type == TRN_DEVICE_CPU ? TRN_QUIRK_EMULATED_MATRIX : 0,
                            .usable = true};
    snprintf(info.name, sizeof info.name, "%s", t->name);
    return info;
}

typedef struct packer {
    trn_gpu *gpu;
    kernel_table met;
} packer;

static trn_status pack_kernel(void *user, const trn_listed_kernel *listed, trn_error *err)
{
    packer *p = user;
    const trn_kernel *kernel;
    if (kernel_table_find(&p->met, listed->hash)) return TRN_OK;
    if (!kernel_table_add(&p->met, listed->hash, listed->is_default))
        return trn_fail_memory(err, sizeof(known_kernel), "the kernels met");
    return trn_listed_compile(listed, p->gpu, &kernel, err);
}

static trn_status pack_target(const shaders_values *values, const target *t, trn_access access,
                              trn_shader_pack *pack, trn_error *err)
{
    trn_device_info info = describe(t);
    packer p = {0};
    trn_status status = trn_gpu_open_target(&info, access, pack, &p.gpu, err);
    if (status == TRN_OK) status = shaders_list(values, p.gpu, pack_kernel, &p, err);
    trn_gpu_close(p.gpu);
    free(p.met.items);
    return status == TRN_OK ? TRN_OK : trn_wrap(err, "packing for %s", t->name);
}

static trn_status tell(const shaders_values *values, const trn_shader_pack *pack, trn_error *err)
{
    trn_text out = {0};
    if (values->common.json) {
        trn_text_printf(&out, "{\"ok\": true, \"kernels\": %zu, \"folder\": ", trn_shader_pack_count(pack));
        trn_text_json(&out, values->pack);
        trn_text_add(&out, "}\n");
    } else {
        trn_text_printf(&out, "%zu kernels in %s, for Terrane %s\n", trn_shader_pack_count(pack),
                        values->pack, TRN_VERSION);
    }
    trn_status status = console_print(&out, err);
    trn_text_free(&out);
    return status;
}

trn_status shaders_pack(const shaders_values *values, trn_error *err)
{
    trn_shader_pack *pack = NULL;
    shaders_values all = *values;
    all.training = true;
    trn_status status = trn_shader_pack_create(values->pack, &pack, err);
    for (size_t i = 0; status == TRN_OK && i < TRN_COUNT(targets); i++) {
        status = pack_target(&all, &targets[i], TRN_ACCESS_ADDRESS, pack, err);
        if (status == TRN_OK && targets[i].storage)
            status = pack_target(&all, &targets[i], TRN_ACCESS_STORAGE, pack, err);
    }
    console_progress_end();
    if (status == TRN_OK) status = trn_shader_pack_finish(pack, err);
    if (status == TRN_OK) status = tell(values, pack, err);
    trn_shader_pack_free(pack);
    return status;
}
