/* One transfer of a file over HTTP into an open part of it. What the store makes of transfers is in store.c.
 */
#ifndef TRN_WEIGHTS_DOWNLOAD_H
#define TRN_WEIGHTS_DOWNLOAD_H

#include "weights.h"

/* What the server says of the file, kept beside a part so that it can be continued. */
typedef struct remote_file {
    char etag[256], modified[64]; /* "": not given */
    uint64_t size;                /* 0: not known */
} remote_file;

typedef enum download_outcome {
    DOWNLOAD_DONE,
    DOWNLOAD_AGAIN,   /* cut off, or the server is busy: err says how; another try may go on */
    DOWNLOAD_CHANGED, /* what is there cannot be continued: start anew */
    DOWNLOAD_FAILED,  /* err says why */
} download_outcome;

typedef struct download {
    const trn_pull_options *options;
    const char *path;   /* of the part, for messages and free space */
    int fd;             /* the part, open for writing */
    uint64_t offset;    /* bytes of the file that the part has; more with every call */
    remote_file remote; /* of the part; a whole answer replaces it */
    uint64_t received;  /* bytes in all */
    /* A whole answer begins, remote and offset are new: what is kept beside the part is to be written. */
    trn_status (*begins)(void *user, trn_error *err);
    void *user;
} download;

/* Fetches options->url from offset on, through at most 8 redirects. */
download_outcome download_run(download *d, trn_error *err);

#endif
