#include "test_geobench.h"
#include "test_support.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *test_shared_data(const char *name)
{
    const char *shared = getenv("TERRANE_SHARED");
    char relative[160];
    snprintf(relative, sizeof relative, "data/%s", name);
    char *path = test_path(shared ? shared : "../shared", relative);
    if (trn_path_is_dir(path)) return path;
    free(path);
    return NULL;
}

static void link_file(const char *from, const char *to, const char *name)
{
    char *source = test_path(from, name), *target = test_path(to, name);
    assert_int_equal(symlink(source, target), 0);
    free(source);
    free(target);
}

char *test_geobench_folder(const char *name)
{
    static const char partition[] = "default_partition.json";
    char relative[128];
    snprintf(relative, sizeof relative, "geobench/%s", name);
    char *from = test_shared_data(relative);
    if (!from) {
        print_message("[  NOTE    ] no %s beside the checkout\n", relative);
        return NULL;
    }
    char *dir = test_path(test_temp_dir(), name), **names;
    size_t count;
    trn_error err = {0};
    trn_text list = {0}, json = {0};
    assert_trn_ok(trn_make_dirs(dir, &err), err);
    assert_trn_ok(trn_list_dir(from, &names, &count, &err), err);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], partition)) link_file(from, dir, names[i]);
        if (trn_ends_with(names[i], ".hdf5"))
            trn_text_printf(&list, "%s\"%.*s\"", list.length ? "," : "", (int)strlen(names[i]) - 5, names[i]);
    }
    trn_text_printf(&json, "{\"train\": [%s], \"valid\": [%s], \"test\": []}", trn_text_get(&list),
                    trn_text_get(&list));
    char *path = test_path(dir, partition);
    assert_trn_ok(trn_write_file(path, trn_text_get(&json), json.length, &err), err);
    free(path);
    trn_text_free(&json);
    trn_text_free(&list);
    trn_names_free(names, count);
    free(from);
    return dir;
}
