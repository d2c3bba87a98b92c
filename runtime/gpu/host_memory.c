/* Memory of the host, for drivers that run on the CPU: their device memory is memory of this process. */
#include "gpu_internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

/* Address space that is left to the driver's compiler, which does not survive without. */
static const uint64_t for_the_driver = 80 << 20;

/* The number after `key` in a small file of the system; false when there is none. */
static bool read_number(const char *path, const char *key, uint64_t *out)
{
    enum { MAX_BYTES = 1 << 16 };
    char *end = NULL, *text = trn_read_file(path, MAX_BYTES, NULL, NULL);
    const char *at = text ? strstr(text, key) : NULL;
    if (at) at += strlen(key) + strspn(at + strlen(key), " \t");
    bool found = at && *at >= '0' && *at <= '9'; /* "max" is no number */
    if (found) *out = strtoull(at, &end, 10);
    free(text);
    return found;
}

void trn_host_memory_trim(void)
{
#ifdef __GLIBC__
    malloc_trim(0);
#endif
}

uint64_t trn_host_memory_total(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
}

/* What a limit on the process's address space (ulimit -v) leaves of it. */
static uint64_t address_space_left(void)
{
    struct rlimit limit;
    uint64_t kilobytes;
    if (getrlimit(RLIMIT_AS, &limit) || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    if (!read_number("/proc/self/status", "VmSize:", &kilobytes)) return limit.rlim_cur;
    uint64_t taken = kilobytes * 1024 + for_the_driver;
    return limit.rlim_cur > taken ? limit.rlim_cur - taken : 0;
}

/* What a container may still take. */
static uint64_t container_left(void)
{
    uint64_t most, taken;
    if (!read_number("/sys/fs/cgroup/memory.max", "", &most) ||
        !read_number("/sys/fs/cgroup/memory.current", "", &taken))
        return UINT64_MAX;
    return most > taken ? most - taken : 0;
}

uint64_t trn_host_memory_available(void)
{
    uint64_t kilobytes, left = trn_host_memory_total();
    if (read_number("/proc/meminfo", "MemAvailable:", &kilobytes)) left = kilobytes * 1024;
    left = TRN_MIN(left, container_left());
    return TRN_MIN(left, address_space_left());
}
