/* What the files of gpu/ share; private to the room. */
#ifndef TRN_GPU_INTERNAL_H
#define TRN_GPU_INTERNAL_H

#include <stdatomic.h>
#include <volk.h>

#include "gpu.h"

/* ---- instance.c ---- */

#define TRN_INSTANCE_FUNCTIONS(F)                                                                            \
    F(DestroyInstance)                                                                                       \
    F(EnumeratePhysicalDevices)                                                                              \
    F(GetPhysicalDeviceProperties2)                                                                          \
    F(GetPhysicalDeviceFeatures2)                                                                            \
    F(GetPhysicalDeviceMemoryProperties2)                                                                    \
    F(GetPhysicalDeviceQueueFamilyProperties)                                                                \
    F(EnumerateDeviceExtensionProperties)                                                                    \
    F(CreateDevice)

/* One Vulkan instance with its own function pointers: several may live at once. */
typedef struct trn_instance {
    VkInstance handle;
    VkDebugUtilsMessengerEXT messenger;
    bool validation, abort_on_message;
    bool hides_matrices;    /* the validation layer is older than cooperative matrices, and would complain */
    atomic_ullong messages; /* validation warnings and errors so far */
    atomic_flag message_taken; /* guards first_message */
    char first_message[512];   /* of those not yet reported */
#define TRN_DECLARE(name) PFN_vk##name name;
    TRN_INSTANCE_FUNCTIONS(TRN_DECLARE)
#undef TRN_DECLARE
    PFN_vkDestroyDebugUtilsMessengerEXT DestroyDebugUtilsMessengerEXT;
} trn_instance;

trn_status trn_instance_create(bool validation, trn_instance **out, trn_error *err);
void trn_instance_destroy(trn_instance *instance);
trn_status trn_instance_devices(const trn_instance *instance, VkPhysicalDevice **list, uint32_t *count,
                                trn_error *err);
void trn_instance_load_device(const trn_instance *instance, VkDevice device, struct VolkDeviceTable *table);

/* ---- result.c ---- */

const char *trn_vk_result_name(VkResult result);
void trn_vk_trace(const char *call);
/* Turns a failed result of `call` (source text) into an error; a lost device becomes sticky when gpu is
 * given. */
trn_status trn_vk_check(trn_gpu *gpu, VkResult result, const char *call, trn_error *err);
/* Every Vulkan call that may fail goes through one of these two. */
#define TRN_VK(gpu, err, call) (trn_vk_trace(#call), trn_vk_check((gpu), (gpu)->vk.call, #call, (err)))
#define TRN_VK_INSTANCE(err, call) (trn_vk_trace(#call), trn_vk_check(NULL, (call), #call, (err)))

/* ---- device.c, quirks.c ---- */

/* What enumeration learns beyond trn_device_info. */
typedef struct trn_device_detail {
    uint32_t queue_family, timestamp_bits;
    bool size_control, full_subgroups, scalar_layout, int16, storage8, extended_subgroup_types, memory_budget;
    bool portability_subset, core13, executable_properties;
    bool uniform16, memory_model;
    uint32_t mesa_version; /* VK_MAKE_API_VERSION(0, 22, 3, 6), or 0 */
    uint64_t max_buffer;
    uint64_t memory_limit; /* of $TERRANE_LIMIT, else UINT64_MAX */
} trn_device_detail;

void trn_device_describe(const trn_instance *instance, VkPhysicalDevice physical, int index,
                         trn_device_info *info, trn_device_detail *detail);
uint32_t trn_quirks_of(const trn_device_info *info, const trn_device_detail *detail);
const char *trn_quirk_name(unsigned bit); /* NULL behind the last */

/* ---- limits.c ---- */

/* Takes away what $TERRANE_LIMIT takes away. */
void trn_limits_apply(trn_device_info *info, trn_device_detail *detail);
/* Refuses a $TERRANE_LIMIT that cannot be read. */
trn_status trn_limits_check(trn_error *err);

/* ---- needs.c ---- */

/* Refuses a kernel that takes more than the device was described with. The words are whole: trn_spirv_check
 * comes first. */
trn_status trn_spirv_check_needs(const trn_gpu *gpu, const trn_kernel_desc *desc, const uint32_t *words,
                                 size_t count, trn_error *err);

/* ---- memory.c ---- */

typedef struct trn_range {
    uint64_t offset, size;
} trn_range;

/* One VkDeviceMemory with one VkBuffer over all of it; pieces are cut from its free ranges (sorted by
 * offset). */
typedef struct trn_block {
    VkDeviceMemory memory;
    VkBuffer buffer;
    VkDeviceAddress address; /* 0 in storage access */
    uint8_t *mapped;         /* NULL: only through staging */
    uint64_t size;
    trn_range *free;
    size_t free_count, free_capacity, pieces; /* pieces: in use */
} trn_block;

struct trn_gpu_buffer {
    trn_block *block;
    uint64_t offset, size, reserved;
    uint64_t ticket; /* of the last submission that uses it */
    char label[64];
};

typedef struct trn_memory {
    VkPhysicalDeviceMemoryProperties properties;
    bool unified, cached; /* buffers are mapped; reading them by the CPU is fast */
    uint64_t block_limit;
    trn_block **blocks;
    size_t block_count, block_capacity;
    int allocations;
} trn_memory;

/* Of a device with these heaps: the one that holds tensors, and whether the host can see all of it. */
/* host_memory.c: bytes of the machine, and those that this process may still take. */
uint64_t trn_host_memory_total(void);
uint64_t trn_host_memory_available(void);
/* Gives the system back what was freed, where the C library keeps it. */
void trn_host_memory_trim(void);
bool trn_memory_unified(const VkPhysicalDeviceMemoryProperties *properties, bool *cached, uint32_t *heap);
void trn_memory_open(trn_gpu *gpu);
void trn_memory_close(trn_gpu *gpu);
typedef enum trn_block_use { TRN_BLOCK_TENSORS, TRN_BLOCK_STAGING } trn_block_use;
trn_status trn_block_create(trn_gpu *gpu, uint64_t size, trn_block_use use, trn_block **out, trn_error *err);
void trn_block_destroy(trn_gpu *gpu, trn_block *block);

/* ---- staging.c ---- */

enum { TRN_STAGING_SLOTS = 4, TRN_STAGING_CHUNK = 4 << 20 };

typedef struct trn_staging {
    trn_block *block; /* made at the first use */
    VkCommandPool pool;
    struct {
        VkCommandBuffer commands;
        uint64_t ticket;
    } slots[TRN_STAGING_SLOTS];
    unsigned next;
} trn_staging;

void trn_staging_close(trn_gpu *gpu);

/* ---- shader.c, pipeline.c ---- */

extern const trn_embedded_file trn_shader_files[]; /* ends with a row of NULL */

struct trn_kernel {
    uint8_t key[32];
    char *name;
    VkPipeline pipeline;
    int buffers, scalars, texels;
    int index; /* in trn_gpu.kernels; warm is kept there, as kernels are const to their users */
};

enum {
    TRN_MAX_TEXELS = 3,  /* texel buffers of a kernel */
    TRN_TEXEL_BYTES = 16 /* of one: four floats */
};
/* What a kernel's descriptors are, and how many it takes. */
VkDescriptorType trn_descriptor_type(const trn_gpu *gpu);
int trn_kernel_descriptors(const trn_gpu *gpu, const trn_kernel *kernel);

/* SPIR-V of a shader's text under a description, from the disk cache or the compiler. malloc'd. */
trn_status trn_shader_spirv(trn_gpu *gpu, const trn_kernel_desc *desc, const char *text,
                            const uint8_t key[32], uint32_t **words, size_t *bytes, trn_error *err);
/* What both keys of a kernel share: its description, and its shader's text. */
void trn_shader_add_source(const trn_kernel_desc *desc, const char *text, trn_text *out);
/* What tells one kernel of a device from another, and its place in the disk cache. */
bool trn_shader_key(trn_gpu *gpu, const trn_kernel_desc *desc, const char *text, uint8_t key[32]);
void trn_shader_close(trn_gpu *gpu);
const char *trn_shader_text(const char *name); /* of a file in shaders/, or NULL */
uint64_t trn_shader_include_hash(trn_gpu *gpu);
uint32_t trn_shader_subgroup_size(const trn_gpu *gpu, const trn_kernel_desc *desc);
trn_status trn_shader_compile(trn_gpu *gpu, const trn_kernel_desc *desc, const char *text, uint32_t **words,
                              size_t *bytes, trn_error *err);

/* ---- pack.c ---- */

/* Whether the text asks for cooperative matrices: then its SPIR-V may come from a pack. */
bool trn_shader_needs_matrix(const char *text);
bool trn_shader_compiler_knows_matrix(void); /* asked once in a process */
void trn_pack_open(trn_gpu *gpu);            /* looks for a pack; gpu->pack stays NULL when there is none */
/* From the pack of the gpu. malloc'd. */
trn_status trn_pack_spirv(trn_gpu *gpu, const trn_kernel_desc *desc, const char *text, uint32_t **words,
                          size_t *bytes, trn_error *err);
/* Into the pack that the gpu is a target of, when the kernel needs a pack. */
trn_status trn_pack_add(trn_gpu *gpu, const trn_kernel_desc *desc, const char *text, trn_error *err);

/* ---- spirv.c ---- */

/* Refuses what Vulkan leaves undefined: work groups above the device's limits, bindings and push constants
 * that the description does not have. */
trn_status trn_spirv_check(const trn_gpu *gpu, const trn_kernel_desc *desc, const uint32_t *words,
                           size_t count, trn_error *err);

/* Invocations of a work group along its first axis; 0: not told. Of words that were checked. */
uint32_t trn_spirv_group_width(const uint32_t *words, size_t count);

trn_status trn_pipelines_open(trn_gpu *gpu, trn_error *err);
void trn_pipelines_close(trn_gpu *gpu);
void trn_kernels_close(trn_gpu *gpu); /* of the above, what a device that is only described has too */

/* ---- cache.c ---- */

/* Files with a validated header in the cache folder: a missing or damaged file is a miss (false), and what
 * can not be written is only logged. name is relative to `folder` below the cache folder. */
bool trn_cache_load(const char *folder, const char *name, void **data, size_t *size);
void trn_cache_store(const char *folder, const char *name, const void *data, size_t size);

/* ---- submit.c ---- */

enum { TRN_MAX_IN_FLIGHT = 64 };

typedef struct trn_submission {
    uint64_t ticket;
    const trn_program *program; /* NULL: a copy */
    size_t first_op, last_op;
} trn_submission;

/* Submits; *ticket becomes the value to wait for. The program part is for the message of a lost device. */
trn_status trn_submit(trn_gpu *gpu, VkCommandBuffer commands, const trn_program *program, size_t first_op,
                      size_t last_op, uint64_t *ticket, trn_error *err);
void trn_program_describe(const trn_program *program, size_t first_op, size_t last_op, trn_text *out);
/* ---- program.c, for feed.c ---- */

/* Number of submissions of a replay, recorded if need be; and one of them, with its estimated seconds. */
trn_status trn_program_parts(trn_program *program, size_t *count, trn_error *err);
trn_status trn_program_submit_part(trn_program *program, size_t part, uint64_t *ticket, double *seconds,
                                   trn_error *err);

/* The device was lost: remembers it, with what was in flight, and fills err. */
trn_status trn_gpu_lose(trn_gpu *gpu, const char *call, trn_error *err);
/* Fails when the device is lost. */
trn_status trn_gpu_alive(const trn_gpu *gpu, trn_error *err);
/* Validation messages since the last call become an error. */
trn_status trn_gpu_validated(trn_gpu *gpu, trn_error *err);

/* ---- tuning.c ---- */

typedef struct trn_tuning_entry {
    char *key;
    double value;
} trn_tuning_entry;

void trn_tuning_open(trn_gpu *gpu);
void trn_tuning_close(trn_gpu *gpu);

/* ---- the device ---- */

struct trn_gpu {
    trn_instance *instance;
    VkPhysicalDevice physical;
    VkDevice device;
    struct VolkDeviceTable vk;
    VkQueue queue;
    trn_device_info info;
    trn_device_detail detail;
    trn_access access;
    double submit_seconds;
    bool disk_cache, statistics;
    int fail_submission, fail_allocation;
    trn_gpu_stats stats;
    uint64_t messages_reported;

    VkSemaphore timeline;
    uint64_t submitted, completed;
    trn_submission in_flight[TRN_MAX_IN_FLIGHT];
    size_t in_flight_count;
    bool lost;
    char lost_message[1024];

    trn_memory memory;
    trn_staging staging;

    struct shaderc_compiler *compiler;
    uint64_t include_hash;
    trn_shader_pack *pack;   /* kernels compiled elsewhere, or NULL */
    trn_shader_pack *target; /* not NULL: the device is only described, and its kernels go there */
    VkPipelineCache pipeline_cache;
    bool pipeline_cache_changed;
    /* by number of buffers; in address access by number of texel buffers */
    VkDescriptorSetLayout set_layouts[TRN_MAX_BINDINGS + 1];
    VkPipelineLayout pipeline_layouts[TRN_MAX_BINDINGS + 1];
    trn_kernel **kernels;
    bool *kernels_warm; /* has run: what the driver compiles at the first run is compiled */
    size_t kernel_count, kernel_capacity, warm_capacity;

    trn_tuning_entry *tuning;
    size_t tuning_count, tuning_capacity;
    bool tuning_changed;
    double slowness; /* measured time of dispatches over their nominal time; see program.c */
};

/* A name for cache files of this device and driver. out needs 64 bytes. */
void trn_gpu_cache_name(const trn_gpu *gpu, char *out);

#endif
