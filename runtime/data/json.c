/* JSON files of datasets. */
#include "data_private.h"

#include <math.h>
#include <stdlib.h>

cJSON *data_json_read(const char *path, trn_error *err)
{
    size_t size = 0;
    char *text = trn_read_file(path, DATA_MAX_JSON, &size, err);
    if (!text) return NULL;
    cJSON *json = cJSON_ParseWithLength(text, size);
    free(text);
    if (!json)
        trn_fail(err, TRN_ERR_FORMAT, "'%s' is no JSON: is it whole, and not a link that was stored as text?",
                 path);
    return json;
}

bool data_json_integer(const cJSON *item, int64_t low, int64_t high, int64_t *out)
{
    if (!cJSON_IsNumber(item)) return false;
    double value = item->valuedouble;
    if (!(value >= (double)low && value <= (double)high) || value != floor(value)) return false;
    *out = (int64_t)value;
    return true;
}
