/* zip_write: archives of members that are stored, not packed, written forwards into a file. Private to
 * weights. */
#ifndef TRN_WEIGHTS_ZIP_WRITE_H
#define TRN_WEIGHTS_ZIP_WRITE_H

#include "base.h"

typedef struct trn_zip_member trn_zip_member;
typedef struct trn_zip_writer {
    FILE *file;
    uint64_t at; /* bytes written so far */
    trn_zip_member *members;
    size_t count, capacity;
} trn_zip_writer;

enum { TRN_ZIP_ALIGNMENT = 64 };

/* file: open for writing and at its beginning, able to seek. The functions fail with errno of the file. */
void trn_zip_start(trn_zip_writer *zip, FILE *file);
/* One member: its size must be known before, its bytes may come in pieces. Data begins at a multiple of
 * TRN_ZIP_ALIGNMENT. */
bool trn_zip_begin(trn_zip_writer *zip, const char *name, uint64_t size);
bool trn_zip_put(trn_zip_writer *zip, const void *data, size_t size);
bool trn_zip_end(trn_zip_writer *zip);
/* Writes the directory; the archive is complete. */
bool trn_zip_finish(trn_zip_writer *zip);
void trn_zip_drop(trn_zip_writer *zip); /* frees what the writer holds; the file stays open */

uint32_t trn_crc32(uint32_t crc, const void *data, size_t size); /* crc: 0 or an earlier result */

#endif
