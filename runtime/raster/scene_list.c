/* The images below a folder. */
#include "raster_private.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { MAX_DEPTH = 32, MAX_LISTED = 1 << 24 };

typedef struct listing {
    char **paths;
    size_t count, capacity;
} listing;

static bool is_image_name(const char *name)
{
    static const char *const extensions[] = {"tif", "tiff", "jpg", "jpeg", "png"};
    const char *extension = trn_path_extension(name);
    for (size_t i = 0; i < TRN_COUNT(extensions); i++)
        if (!strcasecmp(extension, extensions[i])) return name[0] != '.';
    return false;
}

/* Links to folders are not followed, so that a link to a folder above is no loop. */
static bool is_real_folder(const char *path)
{
    struct stat info;
    return !lstat(path, &info) && S_ISDIR(info.st_mode);
}

static trn_status add_path(listing *list, char *path, trn_error *err)
{
    if (list->count >= MAX_LISTED ||
        !trn_grow(&list->paths, &list->capacity, list->count + 1, sizeof *list->paths))
        return trn_fail_memory(err, list->count * sizeof *list->paths, "a list of images");
    list->paths[list->count++] = path;
    return TRN_OK;
}

static trn_status list_folder(listing *list, const char *folder, int depth, trn_error *err)
{
    char **names;
    size_t count;
    trn_status status = trn_list_dir(folder, &names, &count, err);
    if (status != TRN_OK) return status;
    for (size_t i = 0; i < count && status == TRN_OK; i++) {
        char *path = trn_path_join(folder, names[i]);
        bool keep = false;
        if (!path) {
            status = trn_fail_memory(err, strlen(names[i]), "a list of images");
        } else if (is_real_folder(path)) {
            if (depth < MAX_DEPTH) status = list_folder(list, path, depth + 1, err);
        } else if (is_image_name(names[i]) && !trn_path_is_dir(path)) {
            status = add_path(list, path, err);
            keep = status == TRN_OK;
        }
        if (!keep) free(path);
    }
    trn_names_free(names, count);
    return status;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

trn_status trn_scene_list(const char *folder, char ***paths, size_t *count, trn_error *err)
{
    listing list = {0};
    *paths = NULL;
    *count = 0;
    trn_status status = list_folder(&list, folder, 0, err);
    if (status != TRN_OK) {
        trn_names_free(list.paths, list.count);
        return status;
    }
    if (list.count) qsort(list.paths, list.count, sizeof *list.paths, compare_paths);
    *paths = list.paths;
    *count = list.count;
    return TRN_OK;
}
