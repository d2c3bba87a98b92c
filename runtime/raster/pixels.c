/* Stored samples to physical float32 values. */
#include "raster_private.h"

#include <math.h>
#include <string.h>

int sample_type_bytes(trn_sample_type type)
{
    switch (type) {
    case TRN_SAMPLE_U8:
    case TRN_SAMPLE_I8:
        return 1;
    case TRN_SAMPLE_U16:
    case TRN_SAMPLE_I16:
    case TRN_SAMPLE_F16:
        return 2;
    case TRN_SAMPLE_F64:
        return 8;
    default:
        return 4;
    }
}

/* Bounds within which a double can be cast to the type without undefined behaviour. */
static bool fits(trn_sample_type type, double value)
{
    switch (type) {
    case TRN_SAMPLE_U8:
        return value >= 0 && value <= UINT8_MAX;
    case TRN_SAMPLE_U16:
        return value >= 0 && value <= UINT16_MAX;
    case TRN_SAMPLE_U32:
        return value >= 0 && value <= UINT32_MAX;
    case TRN_SAMPLE_I8:
        return value >= INT8_MIN && value <= INT8_MAX;
    case TRN_SAMPLE_I16:
        return value >= INT16_MIN && value <= INT16_MAX;
    case TRN_SAMPLE_I32:
        return value >= INT32_MIN && value <= INT32_MAX;
    default:
        return true;
    }
}

static void store(trn_sample_type type, double value, uint8_t *out)
{
    union {
        uint8_t u8;
        uint16_t u16;
        uint32_t u32;
        int8_t i8;
        int16_t i16;
        int32_t i32;
        float f32;
        double f64;
    } as = {0};
    if (!fits(type, value)) value = 0;
    switch (type) {
    case TRN_SAMPLE_U8:
        as.u8 = (uint8_t)value;
        break;
    case TRN_SAMPLE_U16:
        as.u16 = (uint16_t)value;
        break;
    case TRN_SAMPLE_U32:
        as.u32 = (uint32_t)value;
        break;
    case TRN_SAMPLE_I8:
        as.i8 = (int8_t)value;
        break;
    case TRN_SAMPLE_I16:
        as.i16 = (int16_t)value;
        break;
    case TRN_SAMPLE_I32:
        as.i32 = (int32_t)value;
        break;
    case TRN_SAMPLE_F32:
        as.f32 = (float)value;
        break;
    case TRN_SAMPLE_F64:
        as.f64 = value;
        break;
    case TRN_SAMPLE_F16:
        as.u16 = trn_f32_to_f16((float)value);
        break;
    }
    memcpy(out, &as, (size_t)sample_type_bytes(type));
}

void pixels_fill(trn_sample_type type, double value, size_t count, uint8_t *out)
{
    size_t size = (size_t)sample_type_bytes(type);
    if (!count) return;
    store(type, value, out);
    for (size_t done = 1; done < count;) {
        size_t more = TRN_MIN(done, count - done);
        memcpy(out + done * size, out, more * size);
        done += more;
    }
}

static void convert_one(const pixel_rule *rule, double raw, bool is_nodata, float *out, uint8_t *valid)
{
    float value = (float)(raw * rule->scale + rule->offset);
    bool good = !is_nodata && isfinite(value);
    *out = good ? value : 0;
    if (!good) *valid = 0;
}

#define CONVERT_INTEGERS(ctype)                                                                              \
    for (int64_t i = 0; i < count; i++) {                                                                    \
        ctype raw;                                                                                           \
        memcpy(&raw, from + (size_t)i * stride, sizeof raw);                                                 \
        convert_one(rule, (double)raw, rule->has_nodata && (double)raw == rule->nodata, &out[i], &valid[i]); \
    }                                                                                                        \
    break

void pixels_convert(const pixel_rule *rule, const uint8_t *from, size_t stride, int64_t count, float *out,
                    uint8_t *valid)
{
    const float nodata32 = (float)rule->nodata;
    stride *= (size_t)rule->sample_bytes;
    switch (rule->type) {
    case TRN_SAMPLE_U8:
        CONVERT_INTEGERS(uint8_t);
    case TRN_SAMPLE_I8:
        CONVERT_INTEGERS(int8_t);
    case TRN_SAMPLE_U16:
        CONVERT_INTEGERS(uint16_t);
    case TRN_SAMPLE_I16:
        CONVERT_INTEGERS(int16_t);
    case TRN_SAMPLE_U32:
        CONVERT_INTEGERS(uint32_t);
    case TRN_SAMPLE_I32:
        CONVERT_INTEGERS(int32_t);
    case TRN_SAMPLE_F64:
        CONVERT_INTEGERS(double);
    case TRN_SAMPLE_F32:
        /* nodata is written in decimals: compare as the float that it became in the file */
        for (int64_t i = 0; i < count; i++) {
            float raw;
            memcpy(&raw, from + (size_t)i * stride, sizeof raw);
            convert_one(rule, (double)raw, rule->has_nodata && raw == nodata32, &out[i], &valid[i]);
        }
        break;
    case TRN_SAMPLE_F16:
        for (int64_t i = 0; i < count; i++) {
            uint16_t half;
            memcpy(&half, from + (size_t)i * stride, sizeof half);
            float raw = trn_f16_to_f32(half);
            convert_one(rule, (double)raw, rule->has_nodata && raw == nodata32, &out[i], &valid[i]);
        }
        break;
    }
}
