/* Where a checkpoint's bytes come from: a file, read piece by piece, or the caller's memory. Files are not
 * mapped: on a CPU driver the tensors' copies on the device are memory of this process, too, and both
 * together must fit where a limit holds; and a file that shrinks meanwhile is an error, not a signal. */
#include "checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

trn_status trn_bytes_open(trn_weights *weights, const char *path, trn_error *err)
{
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* no waiting for a pipe */
    if (fd < 0) return trn_fail_errno(err, "open", path);
    trn_status status = TRN_OK;
    if (fstat(fd, &info))
        status = trn_fail_errno(err, "read", path);
    else if (!S_ISREG(info.st_mode))
        status = trn_fail(err, TRN_ERR_IO, "'%s' is not a regular file", path);
    if (status != TRN_OK) {
        close(fd);
        return status;
    }
    weights->fd = fd;
    weights->is_file = true;
    weights->size = (size_t)info.st_size;
    return TRN_OK;
}

void trn_bytes_close(trn_weights *weights)
{
    if (weights->is_file) close(weights->fd);
    weights->is_file = false;
}

static trn_status read_file(const trn_weights *weights, uint64_t at, uint8_t *out, size_t size,
                            trn_error *err)
{
    while (size) {
        ssize_t n = pread(weights->fd, out, size, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return trn_fail_errno(err, "read", weights->path);
        if (n == 0)
            return trn_fail(err, TRN_ERR_FORMAT, "the file ends at byte %llu: it was cut off while in use",
                            (unsigned long long)at);
        out += n;
        at += (uint64_t)n;
        size -= (size_t)n;
    }
    return TRN_OK;
}

trn_status trn_bytes_read(const trn_weights *weights, uint64_t at, void *out, size_t size, trn_error *err)
{
    if (at > weights->size || size > weights->size - at)
        return trn_fail(err, TRN_ERR_FORMAT, "bytes %llu to %llu are beyond the end of the file (%zu)",
                        (unsigned long long)at, (unsigned long long)(at + size), weights->size);
    if (weights->is_file) return read_file(weights, at, out, size, err);
    if (size) memcpy(out, weights->data + at, size);
    return TRN_OK;
}
