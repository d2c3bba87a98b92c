/* terrane shaders: its options, and the files that carry them out. */
#ifndef TRN_COMMAND_SHADERS_H
#define TRN_COMMAND_SHADERS_H

#include "command.h"
#include "graph.h"

#include <stdio.h>

typedef struct shaders_values {
    common_values common;
    const char *device, *pack;
    bool statistics;
    text_list models;
    bool training;
} shaders_values;

/* ---- shader_statistics.c: --statistics ---- */

typedef struct known_kernel {
    uint64_t hash;
    bool is_default;
} known_kernel;
/* Kernels that need not be compiled again. */
typedef struct kernel_table {
    known_kernel *items;
    size_t count, capacity;
} kernel_table;
known_kernel *kernel_table_find(const kernel_table *table, uint64_t hash); /* NULL: not there */
bool kernel_table_add(kernel_table *table, uint64_t hash, bool is_default);

trn_status shaders_statistics(const shaders_values *values, trn_error *err);

/* ---- shader_kernels.c ---- */

/* How a line begins; fields follow, a tab before each. */
enum {
    SHADERS_LINE_DEVICE = 'V', /* name, driver */
    SHADERS_LINE_KERNEL =
        'K', /* hash, default, operator, label, shader, variant, macros: it is compiled now */
    SHADERS_LINE_STATISTIC = 'S', /* of this kernel: program, name, value */
    SHADERS_LINE_FAILURE = 'F',   /* why it does not compile */
    SHADERS_LINE_END = 'E',       /* of this kernel */
    SHADERS_LINE_DEFAULT = 'D',   /* hash: a known kernel is a default */
    SHADERS_LINE_DONE = 'Z',      /* status, message */
};
/* Compiles what the table does not have, and writes lines. */
trn_status shaders_make_kernels(const shaders_values *values, kernel_table *table, FILE *out, trn_error *err);

/* Reports the kernels that encoders need on a device, those of the models named, or of all and of the
 * operators' test cases. For a pack training is of mixed precision. */
typedef trn_status shaders_report(void *user, const trn_listed_kernel *listed, trn_error *err);
trn_status shaders_list(const shaders_values *values, trn_gpu *gpu, shaders_report *report, void *user,
                        trn_error *err);

/* ---- shader_pack.c: --pack ---- */

trn_status shaders_pack(const shaders_values *values, trn_error *err);

#endif
