/* Files of the disk cache: a header that proves them whole, atomic replacement. */
#include "gpu_internal.h"

#include <stdlib.h>
#include <string.h>

enum { HEADER_BYTES = 32, MAX_CACHE_FILE = 256 << 20 };
static const char magic[8] = "TRNCACH1";

static char *cache_path(const char *folder, const char *name)
{
    trn_error err = {0};
    char *dir = trn_cache_dir(folder, &err);
    if (!dir) {
        trn_log(TRN_LOG_DEBUG, "no disk cache: %s", err.message);
        return NULL;
    }
    char *path = trn_path_join(dir, name);
    free(dir);
    return path;
}

static void put_u64(uint8_t *to, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t get_u64(const uint8_t *from)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value |= (uint64_t)from[i] << 8 * i;
    return value;
}

/* magic, size of the rest, its hash, hash of the file's name (a file moved to another name is not taken for
 * it) */
static void make_header(uint8_t header[HEADER_BYTES], const char *name, const void *data, size_t size)
{
    memcpy(header, magic, sizeof magic);
    put_u64(header + 8, size);
    put_u64(header + 16, trn_fnv1a64(data, size, TRN_FNV_SEED));
    put_u64(header + 24, trn_fnv1a64(name, strlen(name), TRN_FNV_SEED));
}

bool trn_cache_load(const char *folder, const char *name, void **data, size_t *size)
{
    *data = NULL;
    *size = 0;
    char *path = cache_path(folder, name);
    if (!path || !trn_path_exists(path)) {
        free(path);
        return false;
    }
    trn_error err = {0};
    size_t total = 0;
    uint8_t header[HEADER_BYTES];
    char *file = trn_read_file(path, MAX_CACHE_FILE, &total, &err);
    bool good = file && total >= HEADER_BYTES && get_u64((uint8_t *)file + 8) == total - HEADER_BYTES;
    if (good) {
        make_header(header, name, file + HEADER_BYTES, total - HEADER_BYTES);
        good = !memcmp(header, file, HEADER_BYTES);
    }
    if (good) {
        memmove(file, file + HEADER_BYTES, total - HEADER_BYTES);
        *data = file;
        *size = total - HEADER_BYTES;
    } else {
        trn_log(TRN_LOG_DEBUG, "cache file %s is damaged or unreadable and will be replaced", path);
        free(file);
    }
    free(path);
    return good;
}

void trn_cache_store(const char *folder, const char *name, const void *data, size_t size)
{
    char *path = cache_path(folder, name);
    uint8_t *file = path ? malloc(HEADER_BYTES + size) : NULL;
    if (file) {
        trn_error err = {0};
        make_header(file, name, data, size);
        memcpy(file + HEADER_BYTES, data, size);
        if (trn_write_file(path, file, HEADER_BYTES + size, &err) != TRN_OK)
            trn_log(TRN_LOG_DEBUG, "cache file not written: %s", err.message);
    }
    free(file);
    free(path);
}
