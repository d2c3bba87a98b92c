/* gpu: all of Vulkan. Devices and their quirks, memory in blocks, shaders compiled by libshaderc with a disk
 * cache, pipelines, and programs: lists of dispatches recorded once and replayed.
 *
 * Kernels reach their buffers as 64-bit addresses in push constants (TRN_ACCESS_ADDRESS), or, from the same
 * source, as storage buffers (TRN_ACCESS_STORAGE) on drivers without addresses or 64-bit integers, and for
 * synchronization validation. shaders/README.md shows how a shader is written for both.
 *
 * Thread-safety: one thread at a time per trn_gpu and everything made from it. */
#ifndef TRN_GPU_H
#define TRN_GPU_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- devices ---- */

typedef enum trn_device_type {
    TRN_DEVICE_OTHER,
    TRN_DEVICE_INTEGRATED,
    TRN_DEVICE_DISCRETE,
    TRN_DEVICE_VIRTUAL,
    TRN_DEVICE_CPU,
} trn_device_type;

/* Known faults of drivers, by name in the quirk table (gpu/quirks.c). */
typedef enum trn_quirk {
    TRN_QUIRK_LOOP_LIMIT =
        1 << 0, /* an invocation's loops silently end after 65535 iterations in all (old llvmpipe) */
    TRN_QUIRK_NO_UNIFORM_LOADS =
        1 << 1, /* uniform loads inside loops are per lane: wide loads pay (old llvmpipe) */
    TRN_QUIRK_SLOW_STORAGE = 1 << 2, /* storage-buffer accesses are bounds-checked one by one (llvmpipe) */
    TRN_QUIRK_EMULATED_MATRIX =
        1 << 3, /* cooperative matrices exist but are slower than plain code (llvmpipe) */
    TRN_QUIRK_EMULATED_FLOAT16 = 1 << 4, /* float16 arithmetic is slower than float32 (CPU drivers) */
    TRN_QUIRK_NOMINAL_HEAP =
        1 << 5, /* the size of its heap means nothing: device memory is the host's (llvmpipe) */
    TRN_QUIRK_TEXEL_LOADS =
        1 << 6, /* loads wait for stack memory lane by lane, those from texel buffers do not (old llvmpipe) */
} trn_quirk;

/* Matrices that the invocations of a subgroup multiply together: m by k and k by n values of float16 into m
 * by n sums of float32. */
typedef struct trn_matrix_shape {
    uint32_t m, n, k;
} trn_matrix_shape;
enum { TRN_MAX_MATRICES = 16 };

/* What a device is and can do. A limit or feature of 0/false means unsupported. Plain data, copied freely. */
typedef struct trn_device_info {
    int index; /* in enumeration order; what TERRANE_DEVICE=N means */
    char name[256], driver[256], uuid[33];
    trn_device_type type;
    uint32_t vendor_id, device_id, driver_id, driver_version, api_version;
    uint32_t subgroup_size, subgroup_min,
        subgroup_max; /* min..max can be required of a kernel; both 0: no size control */
    bool subgroup_arithmetic, subgroup_shuffle;
    uint32_t shared_memory_bytes, max_invocations, max_group_size[3], max_group_count[3];
    uint32_t push_constant_bytes;
    uint64_t max_storage_range, storage_alignment;
    uint64_t max_texel_range; /* bytes that a kernel can read as texels; 0: not offered on this device */
    uint64_t max_allocation;  /* one block of memory; Terrane never asks for more than 1 GiB at once */
    uint64_t memory_bytes, memory_free; /* device-local heap; free is 0 when the driver does not tell */
    bool unified_memory;                /* device memory is host-visible: no staging */
    bool buffer_address, int64, float16, int8, storage16, timeline_semaphore;
    bool cooperative_matrix; /* matrix_count > 0 */
    trn_matrix_shape matrices[TRN_MAX_MATRICES];
    int matrix_count;
    float timestamp_ns; /* nanoseconds per tick */
    uint32_t quirks;    /* trn_quirk bits */
    bool usable;        /* Vulkan 1.2, compute queue, timeline semaphore */
    char why_not[128];  /* when not usable */
} trn_device_info;

/* All devices of all drivers found. TRN_ERR_DEVICE, naming the packages to install, when there is no Vulkan
 * loader or driver. *list is malloc'd: free() it. */
trn_status trn_gpu_enumerate(trn_device_info **list, size_t *count, trn_error *err);
const char *trn_device_type_name(trn_device_type type); /* "discrete", ... */
/* Names of the quirk bits, as "a, b" in out. */
void trn_quirk_names(uint32_t quirks, trn_text *out);

typedef enum trn_access { TRN_ACCESS_AUTO, TRN_ACCESS_ADDRESS, TRN_ACCESS_STORAGE } trn_access;

typedef struct trn_gpu_options {
    const char *device; /* index, or part of a name or type, in any case; NULL: $TERRANE_DEVICE, else the best
                           (discrete, integrated, virtual, CPU) */
    trn_access access;  /* AUTO: addresses where they work and $TERRANE_DISABLE does not name "address" */
    bool validation;    /* or $TERRANE_VALIDATE=1: enables the Khronos layer; its warnings and errors fail the
                           call that meets them; $TERRANE_VALIDATE=abort: they end the process, for test runs */
    bool no_disk_cache; /* or $TERRANE_DISABLE=shader-cache: neither reads nor writes the cache folder */
    bool statistics;    /* kernels are compiled so that trn_gpu_kernel_statistics can tell of them;
                           TRN_ERR_UNSUPPORTED when the driver tells nothing */
    double submit_seconds; /* target length of one submission; 0: 0.1 */
    /* fault injection for tests: the n-th submission reports device lost, the n-th allocation of device
     * memory fails; 0 = never */
    int fail_submission, fail_allocation;
} trn_gpu_options;

typedef struct trn_gpu trn_gpu;
trn_status trn_gpu_open(const trn_gpu_options *options, trn_gpu **out,
                        trn_error *err); /* options may be NULL */
void trn_gpu_close(trn_gpu *gpu);        /* after everything made from it; NULL is fine */
const trn_device_info *trn_gpu_info(const trn_gpu *gpu);
trn_access trn_gpu_access(const trn_gpu *gpu); /* ADDRESS or STORAGE */
/* Whether a feature is switched off by $TERRANE_DISABLE=a,b,... Here it knows "address", "unified" (copies go
 * through staging even where device memory is host-visible), "shader-cache", "fp16" and "coopmat" (the device
 * then looks as if it lacked them); other rooms have words of their own ("fusion"). */
bool trn_gpu_disabled(const char *feature);
/* $TERRANE_LIMIT makes every device look weaker, for tests: a list of name=number (also 16K, 256M, 2G) of
 * shared-memory, group (invocations of a work group), storage-range, memory, allocation (bytes at once), and
 * 0 for what the device then lacks of subgroup-control, subgroup-operations, int64, address, float16,
 * storage16. */

typedef struct trn_gpu_stats {
    uint64_t shaders_compiled, shaders_from_cache; /* calls of libshaderc, and what the disk cache saved */
    uint64_t pipelines, submissions, dispatches;
    uint64_t memory_bytes, memory_peak; /* device memory held in blocks */
    uint64_t validation_messages;
    double startup_seconds,
        startup_cpu_seconds; /* of the process, until its first graph ran on this device */
} trn_gpu_stats;
trn_gpu_stats trn_gpu_get_stats(const trn_gpu *gpu);
/* To be called before each run of a graph: the first one ends the start-up. */
void trn_gpu_mark_run(trn_gpu *gpu);

/* Free device memory right now as far as the driver tells, else the heap size. For plans made before anything
 * runs. */
uint64_t trn_gpu_memory_available(const trn_gpu *gpu);

/* ---- memory ---- */

/* A piece of device memory, cut from blocks of at most 1 GiB. */
typedef struct trn_gpu_buffer trn_gpu_buffer;
/* label shows in errors. Aligned to 256 bytes, padded behind by 1 KiB that may be read (not written) without
 * harm. */
trn_status trn_gpu_buffer_create(trn_gpu *gpu, uint64_t size, const char *label, trn_gpu_buffer **out,
                                 trn_error *err);
void trn_gpu_buffer_destroy(trn_gpu *gpu,
                            trn_gpu_buffer *buffer); /* waits for work in flight; NULL is fine */
uint64_t trn_gpu_buffer_size(const trn_gpu_buffer *buffer);

/* Copies between host and device, through a staging ring where device memory is not host-visible. They wait
 * for work in flight that uses the buffer. */
trn_status trn_gpu_write(trn_gpu *gpu, trn_gpu_buffer *buffer, uint64_t offset, const void *data,
                         uint64_t size, trn_error *err);
trn_status trn_gpu_read(trn_gpu *gpu, trn_gpu_buffer *buffer, uint64_t offset, void *data, uint64_t size,
                        trn_error *err);
/* Fills with a 32-bit pattern (size and offset multiples of 4). */
trn_status trn_gpu_fill(trn_gpu *gpu, trn_gpu_buffer *buffer, uint64_t offset, uint64_t size,
                        uint32_t pattern, trn_error *err);

/* ---- kernels ---- */

enum { TRN_MAX_BINDINGS = 8, TRN_MAX_SCALARS = 24 };

typedef struct trn_macro {
    const char *name, *value;
} trn_macro;

/* A shader with its macros: one pipeline. Equal descriptions give the same kernel. buffers*8 + scalars*4 <=
 * 128. */
typedef struct trn_kernel_desc {
    const char *shader;    /* file name in shaders/, e.g. "matmul_lane.comp" */
    const char *generated; /* GLSL text that the shader takes in by #include "generated.glsl"; NULL: none */
    const trn_macro *macros;
    int macro_count;
    int buffers, scalars;   /* bindings and 32-bit scalars of a dispatch */
    uint32_t subgroup_size; /* required, where the device can require it; 0: as it comes */
    int texels; /* the first so many bindings are texel buffers of vec4 as well (TRN_TEXELS); address access
                   and max_texel_range only */
} trn_kernel_desc;

typedef struct trn_kernel trn_kernel; /* owned by the gpu, lives until trn_gpu_close */
/* Compiles (or takes from memory or disk cache). A compile error names the shader and carries the compiler's
 * log. */
trn_status trn_gpu_kernel(trn_gpu *gpu, const trn_kernel_desc *desc, const trn_kernel **out, trn_error *err);

/* What the driver's compiler tells of a kernel: registers, spills and the like, in its own words. A driver
 * may make several programs of one kernel, of which it runs one. */
typedef struct trn_kernel_statistic {
    int program;
    char program_name[64], name[64]; /* "SIMD16 compute shader", "VGPRs" */
    double value;
} trn_kernel_statistic;
/* Of a device opened with options.statistics. *list is malloc'd. */
trn_status trn_gpu_kernel_statistics(trn_gpu *gpu, const trn_kernel *kernel, trn_kernel_statistic **list,
                                     size_t *count, trn_error *err);

/* Changes when the text of the shader does, or of what it includes; 0 when there is none of this name. */
uint64_t trn_gpu_shader_hash(const char *shader);

/* ---- shader packs: what needs a newer shader compiler, compiled on another machine ---- */

/* Whether kernels of cooperative matrices can be had: the shader compiler knows GL_KHR_cooperative_matrix, or
 * there is a pack: $TERRANE_SHADER_PACK, else share/terrane/shaders where Terrane is installed, else
 * shader-pack in the cache folder. why_not says what is missing. */
bool trn_gpu_has_matrix_kernels(const trn_gpu *gpu, char why_not[128]);
/* Whether trn_gpu_kernel finds a compiler or a pack for it. */
bool trn_gpu_kernel_known(trn_gpu *gpu, const trn_kernel_desc *desc);

typedef struct trn_shader_pack trn_shader_pack;
/* A pack to be written into folder dir, which is made. TRN_ERR_UNSUPPORTED when the shader compiler here is
 * too old for it. */
trn_status trn_shader_pack_create(const char *dir, trn_shader_pack **out, trn_error *err);
size_t trn_shader_pack_count(const trn_shader_pack *pack);                /* kernels */
trn_status trn_shader_pack_finish(trn_shader_pack *pack, trn_error *err); /* writes the index */
void trn_shader_pack_free(trn_shader_pack *pack);                         /* NULL is fine */
/* A device that is only described: graphs may be lowered for it and their kernels asked for, which puts those
 * that need a pack into this one. Nothing else can be done with it. Closed by trn_gpu_close, before the pack.
 */
trn_status trn_gpu_open_target(const trn_device_info *info, trn_access access, trn_shader_pack *pack,
                               trn_gpu **out, trn_error *err);

/* ---- programs ---- */

typedef struct trn_binding {
    trn_gpu_buffer *buffer;
    uint64_t offset,
        size;     /* bytes; in storage access offset must suit storage_alignment, size <= max_storage_range */
    bool written; /* else only read */
} trn_binding;

typedef union trn_scalar {
    uint32_t u;
    int32_t i;
    float f;
} trn_scalar;

/* One run of a kernel. Work groups must not depend on gl_NumWorkGroups: a long dispatch is split into several
 * with a base (vkCmdDispatchBase). */
typedef struct trn_dispatch {
    const trn_kernel *kernel;
    trn_binding bindings[TRN_MAX_BINDINGS];
    trn_scalar scalars[TRN_MAX_SCALARS];
    uint32_t groups[3];
    double flops, bytes; /* estimates, for cutting submissions and for reports */
    const char *label;   /* copied; shows in profiles and in device-lost errors */
} trn_dispatch;

/* A list of dispatches with the barriers their data need (from each binding's reads and writes), recorded
 * into command buffers once and replayed. It is cut into submissions of about options.submit_seconds by
 * measured time: the first run measures, later runs use what it learnt. */
typedef struct trn_program trn_program;
trn_status trn_program_create(trn_gpu *gpu, const char *label, trn_program **out, trn_error *err);
void trn_program_destroy(trn_program *program); /* waits; NULL is fine */
trn_status trn_program_add(trn_program *program, const trn_dispatch *dispatch, trn_error *err);
/* Runs all and waits. Stops between submissions when progress says so. After TRN_ERR_DEVICE_LOST, whose
 * message names the operators in flight, only closing is possible. */
trn_status trn_program_run(trn_program *program, const trn_progress *progress, trn_error *err);
/* The two halves of it: submit returns a ticket at once, wait blocks until that work is done. Submissions of
 * one gpu run in order. A program that was never run is measured first: then submit returns only when the
 * work is done. */
trn_status trn_program_submit(trn_program *program, uint64_t *ticket, trn_error *err);
trn_status trn_gpu_wait(trn_gpu *gpu, uint64_t ticket, trn_error *err);

/* Whether the next run is a replay, not a measured one: then a feed may run it. */
bool trn_program_measured(const trn_program *program);

/* Runs of one program with several in flight: `depth` seats, each with memory of its own that the host writes
 * inputs to and reads outputs from while the device works on the runs of other seats. A port is where the
 * program itself reads an input, or leaves an output. A program `after` it (NULL: none) is part of every run,
 * behind the first. Nothing else may run them meanwhile. */
typedef struct trn_feed_port {
    trn_gpu_buffer *buffer;
    uint64_t offset, size;
} trn_feed_port;
typedef struct trn_feed trn_feed;
trn_status trn_feed_create(trn_gpu *gpu, trn_program *program, trn_program *after,
                           const trn_feed_port *inputs, size_t input_count, const trn_feed_port *outputs,
                           size_t output_count, int depth, trn_feed **out, trn_error *err);
void trn_feed_destroy(trn_feed *feed); /* waits for what is in flight; NULL is fine */
/* Memory of a seat, to be touched only while the seat is free: before its start, after its wait. Inputs are
 * zeros at first, keep their values, and are slow to read. */
void *trn_feed_input(trn_feed *feed, int seat, size_t input);
void *trn_feed_output(trn_feed *feed, int seat, size_t output);
/* Queues a run of programs that are measured. Runs are done in the order of their start. */
trn_status trn_feed_start(trn_feed *feed, int seat, trn_error *err);
/* Hands more of the queued runs to the device, without waiting: to be called now and then by who is busy with
 * something else for longer than some milliseconds. */
trn_status trn_feed_advance(trn_feed *feed, trn_error *err);
/* Whether the seat's run is done, without waiting. */
trn_status trn_feed_done(trn_feed *feed, int seat, bool *done, trn_error *err);
/* Until the seat's run is done. When progress is cancelled, or the device lost, only destroying is left. */
trn_status trn_feed_wait(trn_feed *feed, int seat, const trn_progress *progress, trn_error *err);

/* Seconds of each dispatch of the last measured run, by timestamps, in order of addition. The first run is
 * measured; with profiling on every run is, each dispatch alone between barriers. */
typedef struct trn_dispatch_time {
    const char *label;
    double seconds, flops, bytes;
} trn_dispatch_time;
void trn_program_profile(trn_program *program, bool on);
size_t trn_program_dispatch_count(const trn_program *program);
trn_dispatch_time trn_program_time(const trn_program *program, size_t i);

/* ---- what a device was measured to do ---- */

/* Small key-value store per device and driver in the cache folder (tuning choices, measured rates). Missing
 * or damaged files are only misses. */
bool trn_gpu_tuning_get(trn_gpu *gpu, const char *key, double *value);
void trn_gpu_tuning_set(trn_gpu *gpu, const char *key, double value);
/* Writes the file now; closing the device does so, too. */
void trn_gpu_tuning_save(trn_gpu *gpu);
/* Forgets all keys that begin so, in the file as well; returns how many there were. */
size_t trn_gpu_tuning_remove(trn_gpu *gpu, const char *prefix);

#ifdef __cplusplus
}
#endif
#endif
