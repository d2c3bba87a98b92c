/* What pull and models both say of an encoder's published file. */
#include "model_info.h"

#include <string.h>

const trn_model_info *model_info_find(const char *name, trn_error *err)
{
    enum { MAX_NAMES = 256 };
    const char *names[MAX_NAMES];
    size_t count = TRN_MIN(trn_model_count(), (size_t)MAX_NAMES);
    for (size_t i = 0; i < count; i++) {
        const trn_model_info *info = trn_model_at(i);
        if (!strcmp(info->name, name)) return info;
        names[i] = info->name;
    }
    const char *near = trn_nearest(name, names, count);
    if (near)
        trn_fail(err, TRN_ERR_ARGUMENT, "there is no encoder '%.100s'; did you mean '%s'?", name, near);
    else
        trn_fail(err, TRN_ERR_ARGUMENT, "there is no encoder '%.100s'; terrane models lists them", name);
    return NULL;
}

bool model_source_is_file(const trn_model_info *info)
{
    static const char *const extensions[] = {"pt", "pth", "safetensors", "bin", "ckpt"};
    if (!info->source || strstr(info->source, "/blob/")) return false; /* the page around a file */
    const char *extension = trn_path_extension(info->source);
    for (size_t i = 0; i < TRN_COUNT(extensions); i++)
        if (!strcmp(extension, extensions[i])) return true;
    return false;
}

bool model_licence_warning(const trn_model_info *info, char *out, size_t capacity)
{
    if (!info->licence || !strstr(info->licence, "NC")) return false;
    snprintf(out, capacity, "the weights of '%s' are under %s: commercial use is not allowed", info->name,
             info->licence);
    return true;
}
