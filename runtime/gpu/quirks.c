/* The one table of known driver faults. */
#include "gpu_internal.h"

#define MESA(major, minor) VK_MAKE_API_VERSION(0, major, minor, 0)

/* A row holds for drivers of this id (0: any), of this type (-1: any), with a Mesa version in [from, below).
 */
typedef struct trn_quirk_row {
    uint32_t driver_id;
    int type;
    uint32_t from, below;
    uint32_t quirks;
} trn_quirk_row;

static const trn_quirk_row rows[] = {
    /* Mesa 22.3.6: a sum over 100000 elements in one loop gave 65535; 25.0.7 and 26.1.6 give the whole sum.
     */
    {VK_DRIVER_ID_MESA_LLVMPIPE, -1, 0, MESA(25, 0), TRN_QUIRK_LOOP_LIMIT},
    /* Mesa 22.3.6 and 25.0.7 load once per lane in any loop (20 to 50 cycles each, whatever the
     * width); 26.1.6 finds uniform loads by divergence analysis: the same matrix kernel runs 8 times as fast.
     */
    {VK_DRIVER_ID_MESA_LLVMPIPE, -1, 0, MESA(26, 1), TRN_QUIRK_NO_UNIFORM_LOADS},
    /* All measured versions compare and branch per component of a storage buffer: 5 to 8 times slower than
       addresses. */
    {VK_DRIVER_ID_MESA_LLVMPIPE, -1, 0, UINT32_MAX, TRN_QUIRK_SLOW_STORAGE},
    /* Mesa 26.1.6: 8x8x8 float16 tiles at 13 Gflop/s, plain float32 code at 170. */
    {VK_DRIVER_ID_MESA_LLVMPIPE, -1, 0, UINT32_MAX, TRN_QUIRK_EMULATED_MATRIX},
    /* Mesa 26.1.6: float16 arithmetic at 27 Gflop/s against 170 in float32. */
    {0, TRN_DEVICE_CPU, 0, UINT32_MAX, TRN_QUIRK_EMULATED_FLOAT16},
    /* 22.3.6 says 2 GiB whatever the machine has, and gives more than that. */
    {VK_DRIVER_ID_MESA_LLVMPIPE, -1, 0, UINT32_MAX, TRN_QUIRK_NOMINAL_HEAP},
    /* Mesa 22.3.6: the same product at 31 Gflop/s through addresses and at 68 through texel buffers; 25.0.7:
     * 54 and 31. */
    {VK_DRIVER_ID_MESA_LLVMPIPE, -1, 0, MESA(25, 0), TRN_QUIRK_TEXEL_LOADS},
};

uint32_t trn_quirks_of(const trn_device_info *info, const trn_device_detail *detail)
{
    uint32_t quirks = 0;
    for (size_t i = 0; i < TRN_COUNT(rows); i++) {
        const trn_quirk_row *row = &rows[i];
        if (row->driver_id && row->driver_id != info->driver_id) continue;
        if (row->type >= 0 && row->type != (int)info->type) continue;
        if (detail->mesa_version < row->from || detail->mesa_version >= row->below) continue;
        quirks |= row->quirks;
    }
    return quirks;
}

static const char *const names[] = {"LOOP_LIMIT",       "NO_UNIFORM_LOADS", "SLOW_STORAGE", "EMULATED_MATRIX",
                                    "EMULATED_FLOAT16", "NOMINAL_HEAP",     "TEXEL_LOADS"};

const char *trn_quirk_name(unsigned bit)
{
    return bit < TRN_COUNT(names) ? names[bit] : NULL;
}

void trn_quirk_names(uint32_t quirks, trn_text *out)
{
    bool any = false;
    for (unsigned bit = 0; trn_quirk_name(bit); bit++) {
        if (!(quirks & 1u << bit)) continue;
        if (any) trn_text_add(out, ", ");
        for (const char *c = trn_quirk_name(bit); *c; c++) {
            char lower = *c == '_' ? '-' : (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
            trn_text_add_n(out, &lower, 1);
        }
        any = true;
    }
}
