/* Paths, reading, and outputs that appear only when complete. */
#include "base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

char *trn_path_join(const char *dir, const char *name)
{
    if (name[0] == '/' || !dir[0]) return strdup(name);
    trn_text path = {0};
    trn_text_add(&path, dir);
    if (!trn_ends_with(dir, "/")) trn_text_add(&path, "/");
    trn_text_add(&path, name);
    if (path.failed) trn_text_free(&path);
    return path.data;
}

const char *trn_path_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

const char *trn_path_extension(const char *path)
{
    const char *name = trn_path_name(path), *dot = strrchr(name, '.');
    return dot && dot != name ? dot + 1 : "";
}

bool trn_path_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

bool trn_path_is_dir(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

trn_status trn_make_dirs(const char *path, trn_error *err)
{
    char *copy = strdup(path);
    if (!copy) return trn_fail_memory(err, strlen(path) + 1, "a path");
    trn_status status = TRN_OK;
    for (char *s = copy + 1; status == TRN_OK; s++) {
        bool last = !*s;
        if (*s != '/' && !last) continue;
        *s = 0;
        if (mkdir(copy, 0777) && errno != EEXIST) status = trn_fail_errno(err, "create folder", copy);
        if (last) break;
        *s = '/';
    }
    if (status == TRN_OK && !trn_path_is_dir(path))
        status = trn_fail(err, TRN_ERR_IO, "'%s' exists and is not a folder", path);
    free(copy);
    return status;
}

char *trn_cache_path(const char *sub, trn_error *err)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    trn_text path = {0};
    if (xdg && xdg[0] == '/') {
        trn_text_printf(&path, "%s/terrane/%s", xdg, sub);
    } else if (home && home[0]) {
        trn_text_printf(&path, "%s/.cache/terrane/%s", home, sub);
    } else {
        trn_fail(err, TRN_ERR_IO, "no cache folder: set XDG_CACHE_HOME or HOME");
        return NULL;
    }
    if (path.failed) {
        trn_fail_memory(err, path.length, "a path");
        trn_text_free(&path);
        return NULL;
    }
    return path.data;
}

char *trn_cache_dir(const char *sub, trn_error *err)
{
    char *path = trn_cache_path(sub, err);
    if (!path || trn_make_dirs(path, err) == TRN_OK) return path;
    free(path);
    return NULL;
}

char *trn_read_file(const char *path, size_t max_bytes, size_t *size, trn_error *err)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        trn_fail_errno(err, "open", path);
        return NULL;
    }
    char *data = NULL;
    size_t length = 0, capacity = 0, got;
    do {
        if (!trn_grow(&data, &capacity, length + 65536, 1)) {
            trn_fail_memory(err, length + 65536, path);
            goto fail;
        }
        got = fread(data + length, 1, capacity - length - 1, file);
        length += got;
        if (length > max_bytes) {
            trn_fail(err, TRN_ERR_FORMAT, "'%s' is larger than the %zu bytes allowed here", path, max_bytes);
            goto fail;
        }
    } while (got);
    if (ferror(file)) {
        trn_fail_errno(err, "read", path);
        goto fail;
    }
    fclose(file);
    data[length] = 0;
    if (size) *size = length;
    return data;
fail:
    fclose(file);
    free(data);
    return NULL;
}

trn_status trn_sha256_file(const char *path, const trn_progress *progress, uint64_t *size, char text[65],
                           trn_error *err)
{
    enum { PIECE = 1 << 20 };
    struct stat info = {0};
    trn_sha256_state state;
    trn_status status = TRN_OK;
    uint8_t digest[32];
    ssize_t got = 0;
    char *buffer = malloc(PIECE);
    int fd = buffer ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    *size = 0;
    trn_sha256_begin(&state);
    if (!buffer)
        status = trn_fail_memory(err, PIECE, "reading a file");
    else if (fd < 0 || fstat(fd, &info))
        status = trn_fail_errno(err, "read", path);
    while (status == TRN_OK && (got = read(fd, buffer, PIECE)) != 0) {
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            status = trn_fail_errno(err, "read", path);
            break;
        }
        trn_sha256_update(&state, buffer, (size_t)got);
        *size += (uint64_t)got;
        trn_progress_report(progress, "checking", *size, TRN_MAX(*size, (uint64_t)info.st_size));
        if (trn_progress_cancelled(progress)) status = trn_fail_cancelled(err, "checking a file");
    }
    if (fd >= 0) close(fd);
    free(buffer);
    trn_sha256_end(&state, digest);
    trn_sha256_text(digest, text);
    return status;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

trn_status trn_list_dir(const char *path, char ***names, size_t *count, trn_error *err)
{
    *names = NULL;
    *count = 0;
    DIR *dir = opendir(path);
    if (!dir) return trn_fail_errno(err, "open folder", path);
    size_t capacity = 0;
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        char *name = strdup(entry->d_name);
        if (!name || !trn_grow(names, &capacity, *count + 1, sizeof **names)) {
            free(name);
            closedir(dir);
            trn_names_free(*names, *count);
            *names = NULL;
            *count = 0;
            return trn_fail_memory(err, 0, "a list of files");
        }
        (*names)[(*count)++] = name;
    }
    closedir(dir);
    if (*count) qsort(*names, *count, sizeof **names, compare_names);
    return TRN_OK;
}

void trn_names_free(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

struct trn_output {
    char *final_path, *temporary_path;
};

static void output_free(trn_output *output)
{
    free(output->final_path);
    free(output->temporary_path);
    free(output);
}

trn_status trn_output_create(const char *final_path, trn_output **out, trn_error *err)
{
    static atomic_uint serial;
    *out = NULL;
    if (trn_path_is_dir(final_path))
        return trn_fail(err, TRN_ERR_IO, "cannot write '%s': it is a folder", final_path);
    trn_output *output = calloc(1, sizeof *output);
    trn_text temporary = {0};
    /* the extension is kept: writers that look at it must see the right one */
    trn_text_printf(&temporary, "%.*s.partial-%ld-%u-%s", (int)(trn_path_name(final_path) - final_path),
                    final_path, (long)getpid(), atomic_fetch_add(&serial, 1), trn_path_name(final_path));
    if (output) output->final_path = strdup(final_path);
    if (!output || !output->final_path || temporary.failed) {
        trn_text_free(&temporary);
        if (output) output_free(output);
        return trn_fail_memory(err, sizeof *output, "an output file");
    }
    output->temporary_path = temporary.data;
    FILE *probe = fopen(output->temporary_path, "wb");
    if (!probe) {
        trn_status status = trn_fail_errno(err, "write", final_path);
        output_free(output);
        return status;
    }
    fclose(probe);
    *out = output;
    return TRN_OK;
}

const char *trn_output_path(const trn_output *output)
{
    return output->temporary_path;
}

trn_status trn_output_commit(trn_output *output, trn_error *err)
{
    trn_status status = TRN_OK;
    int fd = open(output->temporary_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fsync(fd)) status = trn_fail_errno(err, "write", output->final_path);
    if (fd >= 0) close(fd);
    if (status == TRN_OK && rename(output->temporary_path, output->final_path))
        status = trn_fail_errno(err, "write", output->final_path);
    if (status != TRN_OK) unlink(output->temporary_path);
    output_free(output);
    return status;
}

void trn_output_abandon(trn_output *output)
{
    if (!output) return;
    unlink(output->temporary_path);
    output_free(output);
}

trn_status trn_write_file(const char *path, const void *data, size_t size, trn_error *err)
{
    trn_output *output;
    trn_status status = trn_output_create(path, &output, err);
    if (status != TRN_OK) return status;
    FILE *file = fopen(output->temporary_path, "wb");
    bool written = file && fwrite(data, 1, size, file) == size;
    if (!written) status = trn_fail_errno(err, "write", path);
    if (file && fclose(file) && status == TRN_OK) status = trn_fail_errno(err, "write", path);
    if (status == TRN_OK) return trn_output_commit(output, err);
    trn_output_abandon(output);
    return status;
}
