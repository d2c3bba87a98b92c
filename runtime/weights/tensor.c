/* Element types, shapes, and the conversion to float32. */
#include "checkpoint.h"

#include <string.h>

static const struct {
    const char *name;
    size_t size;
} types[] = {
    [TRN_WEIGHT_F32] = {"f32", 4},   [TRN_WEIGHT_F16] = {"f16", 2},     [TRN_WEIGHT_BF16] = {"bf16", 2},
    [TRN_WEIGHT_F64] = {"f64", 8},   [TRN_WEIGHT_I64] = {"i64", 8},     [TRN_WEIGHT_I32] = {"i32", 4},
    [TRN_WEIGHT_I16] = {"i16", 2},   [TRN_WEIGHT_I8] = {"i8", 1},       [TRN_WEIGHT_U8] = {"u8", 1},
    [TRN_WEIGHT_U64] = {"u64", 8},   [TRN_WEIGHT_U32] = {"u32", 4},     [TRN_WEIGHT_U16] = {"u16", 2},
    [TRN_WEIGHT_BOOL] = {"bool", 1}, [TRN_WEIGHT_OTHER] = {"other", 0},
};

const char *trn_weight_type_name(trn_weight_type type)
{
    return (size_t)type < TRN_COUNT(types) ? types[type].name : "?";
}

size_t trn_weight_type_size(trn_weight_type type)
{
    return types[type].size;
}

/* One loop per type: value is an expression of the element `e`. */
#define CONVERT(ctype, value)                                                                                \
    for (size_t i = 0; i < n; i++) {                                                                         \
        ctype e;                                                                                             \
        memcpy(&e, from + (int64_t)i * step, sizeof e);                                                      \
        out[i] = (value);                                                                                    \
    }                                                                                                        \
    break

void trn_weight_convert(trn_weight_type type, const uint8_t *from, int64_t step, size_t n, float *out)
{
    if (type == TRN_WEIGHT_F32 && step == 4) {
        if (n) memcpy(out, from, n * sizeof *out);
        return;
    }
    switch (type) {
    case TRN_WEIGHT_F32:
        CONVERT(float, e);
    case TRN_WEIGHT_F16:
        CONVERT(uint16_t, trn_f16_to_f32(e));
    case TRN_WEIGHT_BF16:
        CONVERT(uint16_t, trn_bf16_to_f32(e));
    case TRN_WEIGHT_F64:
        CONVERT(double, (float)e);
    case TRN_WEIGHT_I64:
        CONVERT(int64_t, (float)e);
    case TRN_WEIGHT_I32:
        CONVERT(int32_t, (float)e);
    case TRN_WEIGHT_I16:
        CONVERT(int16_t, (float)e);
    case TRN_WEIGHT_I8:
        CONVERT(int8_t, (float)e);
    case TRN_WEIGHT_U8:
        CONVERT(uint8_t, (float)e);
    case TRN_WEIGHT_U64:
        CONVERT(uint64_t, (float)e);
    case TRN_WEIGHT_U32:
        CONVERT(uint32_t, (float)e);
    case TRN_WEIGHT_U16:
        CONVERT(uint16_t, (float)e);
    case TRN_WEIGHT_BOOL:
        CONVERT(uint8_t, e ? 1.0f : 0.0f);
    case TRN_WEIGHT_OTHER:
        break; /* refused before */
    }
}

const char *trn_weight_shape_text(const int64_t *shape, int ndim, char buffer[TRN_SHAPE_TEXT])
{
    size_t length = (size_t)snprintf(buffer, TRN_SHAPE_TEXT, "[");
    for (int d = 0; d < ndim && length < TRN_SHAPE_TEXT; d++)
        length += (size_t)snprintf(buffer + length, TRN_SHAPE_TEXT - length, "%s%lld", d ? ", " : "",
                                   (long long)shape[d]);
    if (length < TRN_SHAPE_TEXT - 1) snprintf(buffer + length, TRN_SHAPE_TEXT - length, "]");
    return buffer;
}

bool trn_weight_shape_count(const int64_t *shape, int ndim, int64_t *count)
{
    const int64_t limit = (int64_t)1 << 40;
    int64_t product = 1;
    bool empty = false;
    for (int d = 0; d < ndim; d++) {
        if (shape[d] < 0 || shape[d] > limit) return false;
        if (shape[d] == 0)
            empty = true;
        else if (product > limit / shape[d])
            return false;
        else
            product *= shape[d];
    }
    *count = empty ? 0 : product;
    return true;
}

void trn_weight_shape_strides(const int64_t *shape, int ndim, int64_t stride[TRN_WEIGHTS_MAX_DIMS])
{
    int64_t step = 1;
    for (int d = ndim - 1; d >= 0; d--) {
        stride[d] = step;
        step *= TRN_MAX(shape[d], (int64_t)1);
    }
}
