/* What the files of the matrix product share: what a product is, and how kernels cut it. Private to
 * graph/ops.
 *
 * matmul.c: builders, gradient, reference, cases; matmul_lower.c: a node becomes steps by one of its tilings;
 * matmul_cpu.c, matmul_lanes.c, matmul_gpu.c: the tilings for CPU drivers (with uniform loads, and without)
 * and for GPUs. */
#ifndef TRN_GRAPH_MATMUL_H
#define TRN_GRAPH_MATMUL_H

#include "ops.h"

typedef struct trn_matmul_attr {
    int64_t batch, m, n, k;
    bool b_shared;  /* one right-hand side for all of the batch */
    bool b_rows;    /* b is [K,N], not [N,K] */
    bool a_columns; /* a is [K,M], not [M,K] */
} trn_matmul_attr;

const trn_matmul_attr *trn_matmul_attr_of(const trn_node *node);
void trn_matmul_cost(const trn_node *node, double *flops, double *bytes);

enum {
    TRN_MATMUL_LOOP_ROUNDS =
        60000,               /* of one invocation that every driver grants, less those of the epilogue */
    TRN_MATMUL_TILINGS = 48, /* most that a node is offered */
};

/* How a kernel cuts the product. */
typedef struct trn_matmul_tiling trn_matmul_tiling;
struct trn_matmul_tiling {
    char name[48];           /* "tiles 64x64x16": what tuning and tests know it by */
    const char *shader;      /* in shaders/ */
    const char *variant;     /* of the operator's table */
    const char *reason;      /* why it is offered, for explain */
    bool hopeless;           /* correct, but never fast on this kind of device: tuning passes over it */
    bool cpu;                /* a work group is a subgroup that reads b through caches */
    int bm, bn, bk;          /* values of a work group, and of K between two looks at memory */
    int tm, tn;              /* values of an invocation, or of a subgroup that shares them */
    int lanes;               /* invocations of a work group */
    uint32_t subgroup_size;  /* required; 0: any */
    int64_t k_limit;         /* longest sum of one invocation where loops are limited */
    int stages;              /* tiles that lie in shared memory at once: 1 or 2 */
    trn_matrix_shape matrix; /* of a cooperative matrix; tm and tn are then of a subgroup */
    bool a_columns;          /* a is read as [K,M]; else a copy of it is */
    bool a_panels;           /* a is read in panels of bm rows, packed as b's are */
    bool panels;             /* b is read in panels of bn columns, packed once if b is constant */
    bool packs;              /* although the kernel could read b as it lies */
    /* adds the macros of the shader, and its scalars behind the common ones */
    void (*finish)(trn_lower *lower, trn_step *step, const trn_node *node, const trn_matmul_tiling *tiling);
};

/* Tilings that can compute the node, the preferred one first. Returns how many were written to out, which has
 * room for `room`. half: both operands lie in memory as float16. */
int trn_matmul_cpu_tilings(const trn_gpu *gpu, const trn_node *node, bool half, trn_matmul_tiling *out,
                           int room);
int trn_matmul_gpu_tilings(const trn_gpu *gpu, const trn_node *node, bool half, trn_matmul_tiling *out,
                           int room);

/* For CPU drivers: adds a tiling to those offered, if there is room; the macros that all their kernels take.
 */
void trn_matmul_cpu_add(const trn_device_info *info, trn_matmul_tiling tiling, trn_matmul_tiling *out,
                        int room, int *count);
void trn_matmul_cpu_macros(trn_lower *lower, trn_step *step, const trn_matmul_tiling *t);
/* Adds the kernels for CPU drivers that load lane by lane. constant: b is packed once, at compile time. */
void trn_matmul_lanes_add(const trn_device_info *info, const trn_matmul_attr *attr, bool constant, bool half,
                          trn_matmul_tiling *out, int room, int *count);

/* Of the operator's variants: whether they can run on the device. */
bool trn_matmul_tiles_applies(const trn_gpu *gpu, char why_not[128]);
bool trn_matmul_matrix_applies(const trn_gpu *gpu, char why_not[128]);
/* Subgroups of this size multiply matrices; 0: it is not known. Intel's GPUs do so with their smallest ones.
 */
uint32_t trn_matmul_matrix_subgroup(const trn_device_info *info);

trn_status trn_matmul_lower(trn_lower *lower, const trn_node *node, trn_error *err);

/* For `finish`. */
void trn_matmul_macro(trn_lower *lower, trn_step *step, const char *name, int value);

#endif
