/* Private doors of gpu/ for its own tests, free of Vulkan types. */
#ifndef TRN_GPU_TESTING_H
#define TRN_GPU_TESTING_H

#include "gpu.h"

/* A kernel from a text instead of a file of shaders/; desc->shader is only its name. */
trn_status trn_gpu_kernel_from_text(trn_gpu *gpu, const trn_kernel_desc *desc, const char *text,
                                    const trn_kernel **out, trn_error *err);
/* Submissions that a replay of the program takes (0 before it was measured). */
size_t trn_program_segment_count(const trn_program *program);
/* Barriers recorded in a replay, without those at the ends of submissions. */
size_t trn_program_barrier_count(const trn_program *program);
/* Whether buffers of this device are written and read without staging. */
bool trn_gpu_is_unified(const trn_gpu *gpu);
/* The shader pack in dir as a device would open it: kernels in it, or -1 when it is none that can be used. */
int64_t trn_pack_probe(const char *dir);
/* SPIR-V of its kernel of this key, malloc'd. */
trn_status trn_pack_read(const char *dir, const char *key, uint32_t **words, size_t *bytes, trn_error *err);
/* Forgets what was learnt about the device's speed. */
void trn_gpu_forget_speed(trn_gpu *gpu);

#endif
