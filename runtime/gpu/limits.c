/* Weaker devices: $TERRANE_LIMIT takes features and limits away when a device is described, so that every
 * choice behind it sees the weaker device. For tests, and for diagnosis on devices that are not at hand. */
#include "gpu_internal.h"

#include <stdlib.h>
#include <string.h>

typedef struct limit_row {
    const char *name;
    void (*apply)(trn_device_info *info, trn_device_detail *detail, uint64_t value);
} limit_row;

static void lower32(uint32_t *limit, uint64_t value)
{
    if (*limit > value) *limit = (uint32_t)value;
}

static void lower64(uint64_t *limit, uint64_t value)
{
    *limit = TRN_MIN(*limit, value);
}

static void limit_shared_memory(trn_device_info *info, trn_device_detail *detail, uint64_t value)
{
    (void)detail;
    lower32(&info->shared_memory_bytes, value);
}

static void limit_group(trn_device_info *info, trn_device_detail *detail, uint64_t value)
{
    (void)detail;
    lower32(&info->max_invocations, value);
    for (int i = 0; i < 3; i++)
        lower32(&info->max_group_size[i], value);
}

static void limit_storage_range(trn_device_info *info, trn_device_detail *detail, uint64_t value)
{
    (void)detail;
    lower64(&info->max_storage_range, value);
}

static void limit_memory(trn_device_info *info, trn_device_detail *detail, uint64_t value)
{
    lower64(&info->memory_bytes, value);
    lower64(&info->memory_free, value);
    detail->memory_limit = value;
}

static void limit_allocation(trn_device_info *info, trn_device_detail *detail, uint64_t value)
{
    (void)detail;
    lower64(&info->max_allocation, value);
}

static void limit_subgroup_control(trn_device_info *info, trn_device_detail *detail, uint64_t value)
{
    if (value) return;
    info->subgroup_min = info->subgroup_max = 0;
    detail->size_control = detail->full_subgroups = false;
}

static void limit_subgroup_operations(trn_device_info *info, trn_device_detail *detail, uint64_t value)
{
    (void)detail;
    if (!value) info->subgroup_arithmetic = info->subgroup_shuffle = false;
}

static void limit_int64(trn_device_info *info, trn_device_detail *detail, uint64_t value)
{
    (void)detail;
    info->int64 = info->int64 && value;
}

static void limit_address(trn_device_info *info, trn_device_detail *detail, uint64_t value)
{
    (void)detail;
    info->buffer_address = info->buffer_address && value;
}

static void limit_float16(trn_device_info *info, trn_device_detail *detail, uint64_t value)
{
    (void)detail;
    info->float16 = info->float16 && value;
}

static void limit_storage16(trn_device_info *info, trn_device_detail *detail, uint64_t value)
{
    info->storage16 = info->storage16 && value;
    detail->uniform16 = detail->uniform16 && value;
}

static const limit_row rows[] = {
    {"shared-memory", limit_shared_memory},
    {"group", limit_group},
    {"storage-range", limit_storage_range},
    {"memory", limit_memory},
    {"allocation", limit_allocation},
    {"subgroup-control", limit_subgroup_control},
    {"subgroup-operations", limit_subgroup_operations},
    {"int64", limit_int64},
    {"address", limit_address},
    {"float16", limit_float16},
    {"storage16", limit_storage16},
};

/* "16384", "16K", "256M", "2G"; text ends at a comma, a space or its end. */
static bool parse_value(const char *text, size_t length, uint64_t *value)
{
    *value = 0;
    size_t digits = strspn(text, "0123456789");
    if (!digits || digits > 15 || digits > length || length > digits + 1) return false;
    for (size_t i = 0; i < digits; i++)
        *value = *value * 10 + (uint64_t)(text[i] - '0');
    if (length == digits) return true;
    const char *units = "KMG", *unit = strchr(units, text[digits]);
    if (unit) *value <<= 10 * (unit - units + 1);
    return unit != NULL;
}

/* The row of "name=value", or NULL. */
static const limit_row *parse_word(const char *word, size_t length, uint64_t *value)
{
    const char *equals = memchr(word, '=', length);
    size_t name = equals ? (size_t)(equals - word) : 0;
    if (!name || !parse_value(equals + 1, length - name - 1, value)) return NULL;
    for (size_t i = 0; i < TRN_COUNT(rows); i++)
        if (strlen(rows[i].name) == name && !strncmp(rows[i].name, word, name)) return &rows[i];
    return NULL;
}

void trn_limits_apply(trn_device_info *info, trn_device_detail *detail)
{
    detail->memory_limit = UINT64_MAX;
    for (const char *list = getenv("TERRANE_LIMIT"); list && *list;) {
        size_t word = strcspn(list, ", ");
        uint64_t value;
        const limit_row *row = parse_word(list, word, &value);
        if (row) row->apply(info, detail, value);
        list += word + (list[word] != 0);
    }
}

trn_status trn_limits_check(trn_error *err)
{
    for (const char *list = getenv("TERRANE_LIMIT"); list && *list;) {
        size_t word = strcspn(list, ", ");
        uint64_t value;
        if (word && !parse_word(list, word, &value)) {
            trn_text names = {0};
            for (size_t i = 0; i < TRN_COUNT(rows); i++)
                trn_text_printf(&names, "%s%s", i ? ", " : "", rows[i].name);
            trn_fail(err, TRN_ERR_ARGUMENT,
                     "TERRANE_LIMIT: '%.*s' is not name=number (also 16K, 256M, 2G) with a name of %s",
                     (int)word, list, trn_text_get(&names));
            trn_text_free(&names);
            return TRN_ERR_ARGUMENT;
        }
        list += word + (list[word] != 0);
    }
    return TRN_OK;
}
