/* Zip archives of stored members, with 64-bit sizes and offsets where the old fields are too small. */
#include "zip_write.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct trn_zip_member {
    char *name;
    uint64_t header, size, put; /* where its header is; bytes in all and so far */
    uint32_t crc;
};

enum {
    LOCAL_HEADER = 30,
    LOCAL_CRC = 14, /* where in a local header the checksum is */
    EXTRA_WIDE = 1, /* tag of 64-bit sizes */
    EXTRA_PADDING = 0x4246,
    VERSION_PLAIN = 20,
    VERSION_WIDE = 45,
    UTF8 = 0x800,
    DATE_1980 = 0x21,
    MAX_NAME = 1024,
};
#define NARROW 0xffffffffu

/* ---- checksums ---- */

/* tables[k][b]: checksum of byte b followed by k zeros, so that eight bytes are taken at a time */
static void make_tables(uint32_t tables[8][256])
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
        tables[0][b] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (uint32_t b = 0; b < 256; b++)
            tables[k][b] = tables[k - 1][b] >> 8 ^ tables[0][tables[k - 1][b] & 0xff];
}

uint32_t trn_crc32(uint32_t crc, const void *data, size_t size)
{
    uint32_t tables[8][256]; /* cheap beside what is summed: members come in large pieces */
    const uint8_t *at = data;
    make_tables(tables);
    crc = ~crc;
    for (; size >= 8; size -= 8, at += 8) {
        uint32_t low, high;
        memcpy(&low, at, 4);
        memcpy(&high, at + 4, 4);
        low ^= crc;
        crc = tables[7][low & 0xff] ^ tables[6][low >> 8 & 0xff] ^ tables[5][low >> 16 & 0xff] ^
              tables[4][low >> 24] ^ tables[3][high & 0xff] ^ tables[2][high >> 8 & 0xff] ^
              tables[1][high >> 16 & 0xff] ^ tables[0][high >> 24];
    }
    for (; size; size--, at++)
        crc = crc >> 8 ^ tables[0][(crc ^ *at) & 0xff];
    return ~crc;
}

/* ---- fields: little-endian, as this machine is (checkpoint.h) ---- */

typedef struct record {
    uint8_t bytes[128];
    size_t size;
} record;

static void add(record *out, uint64_t number, size_t size)
{
    memcpy(out->bytes + out->size, &number, size);
    out->size += size;
}

static uint32_t narrow(uint64_t number)
{
    return number < NARROW ? (uint32_t)number : NARROW;
}

static bool write_raw(trn_zip_writer *zip, const void *data, size_t size)
{
    if (size && fwrite(data, size, 1, zip->file) != 1) return false;
    zip->at += size;
    return true;
}

static bool write_record(trn_zip_writer *zip, const record *r)
{
    return write_raw(zip, r->bytes, r->size);
}

/* ---- members ---- */

void trn_zip_start(trn_zip_writer *zip, FILE *file)
{
    *zip = (trn_zip_writer){.file = file};
}

static bool write_local_header(trn_zip_writer *zip, const trn_zip_member *member)
{
    static const uint8_t zeros[TRN_ZIP_ALIGNMENT];
    bool wide = member->size >= NARROW;
    size_t name = strlen(member->name), before = LOCAL_HEADER + name + (wide ? 20 : 0) + 4;
    size_t padding = (TRN_ZIP_ALIGNMENT - (zip->at + before) % TRN_ZIP_ALIGNMENT) % TRN_ZIP_ALIGNMENT;
    record head = {.size = 0}, extra = {.size = 0};
    add(&head, 0x04034b50, 4);
    add(&head, wide ? VERSION_WIDE : VERSION_PLAIN, 2);
    add(&head, UTF8, 2);
    add(&head, 0, 4); /* stored; time */
    add(&head, DATE_1980, 2);
    add(&head, 0, 4); /* checksum: when it is known */
    add(&head, narrow(member->size), 4);
    add(&head, narrow(member->size), 4);
    add(&head, name, 2);
    add(&head, (wide ? 20 : 0) + 4 + padding, 2);
    if (wide) {
        add(&extra, EXTRA_WIDE, 2);
        add(&extra, 16, 2);
        add(&extra, member->size, 8);
        add(&extra, member->size, 8);
    }
    add(&extra, EXTRA_PADDING, 2);
    add(&extra, padding, 2);
    return write_record(zip, &head) && write_raw(zip, member->name, name) && write_record(zip, &extra) &&
           write_raw(zip, zeros, padding);
}

bool trn_zip_begin(trn_zip_writer *zip, const char *name, uint64_t size)
{
    trn_zip_member member = {.name = strdup(name), .header = zip->at, .size = size};
    if (!member.name || strlen(name) > MAX_NAME ||
        !trn_grow(&zip->members, &zip->capacity, zip->count + 1, sizeof member)) {
        free(member.name);
        errno = ENOMEM;
        return false;
    }
    zip->members[zip->count++] = member;
    return write_local_header(zip, &member);
}

bool trn_zip_put(trn_zip_writer *zip, const void *data, size_t size)
{
    trn_zip_member *member = &zip->members[zip->count - 1];
    member->crc = trn_crc32(member->crc, data, size);
    member->put += size;
    return write_raw(zip, data, size);
}

/* Goes back to put the checksum into the header. */
bool trn_zip_end(trn_zip_writer *zip)
{
    const trn_zip_member *member = &zip->members[zip->count - 1];
    if (member->put != member->size) {
        errno = EINVAL;
        return false;
    }
    return !fseeko(zip->file, (off_t)(member->header + LOCAL_CRC), SEEK_SET) &&
           fwrite(&member->crc, sizeof member->crc, 1, zip->file) == 1 &&
           !fseeko(zip->file, (off_t)zip->at, SEEK_SET);
}

/* ---- the directory ---- */

static bool write_entry(trn_zip_writer *zip, const trn_zip_member *member)
{
    bool wide_size = member->size >= NARROW, wide_place = member->header >= NARROW;
    size_t name = strlen(member->name), wide = (wide_size ? 16 : 0) + (wide_place ? 8 : 0);
    record head = {.size = 0}, extra = {.size = 0};
    add(&head, 0x02014b50, 4);
    add(&head, wide ? VERSION_WIDE : VERSION_PLAIN, 2);
    add(&head, wide ? VERSION_WIDE : VERSION_PLAIN, 2);
    add(&head, UTF8, 2);
    add(&head, 0, 4);
    add(&head, DATE_1980, 2);
    add(&head, member->crc, 4);
    add(&head, narrow(member->size), 4);
    add(&head, narrow(member->size), 4);
    add(&head, name, 2);
    add(&head, wide ? wide + 4 : 0, 2);
    add(&head, 0, 6); /* no comment; disk; kind */
    add(&head, 0, 4);
    add(&head, narrow(member->header), 4);
    if (wide) {
        add(&extra, EXTRA_WIDE, 2);
        add(&extra, wide, 2);
    }
    if (wide_size) {
        add(&extra, member->size, 8);
        add(&extra, member->size, 8);
    }
    if (wide_place) add(&extra, member->header, 8);
    return write_record(zip, &head) && write_raw(zip, member->name, name) && write_record(zip, &extra);
}

static bool write_wide_end(trn_zip_writer *zip, uint64_t begin, uint64_t size)
{
    record end = {.size = 0};
    uint64_t at = zip->at;
    add(&end, 0x06064b50, 4);
    add(&end, 44, 8); /* of the rest of it */
    add(&end, VERSION_WIDE, 2);
    add(&end, VERSION_WIDE, 2);
    add(&end, 0, 8);
    add(&end, zip->count, 8);
    add(&end, zip->count, 8);
    add(&end, size, 8);
    add(&end, begin, 8);
    add(&end, 0x07064b50, 4); /* and where it is */
    add(&end, 0, 4);
    add(&end, at, 8);
    add(&end, 1, 4);
    return write_record(zip, &end);
}

bool trn_zip_finish(trn_zip_writer *zip)
{
    uint64_t begin = zip->at;
    for (size_t i = 0; i < zip->count; i++)
        if (!write_entry(zip, &zip->members[i])) return false;
    uint64_t size = zip->at - begin;
    bool many = zip->count >= 0xffff;
    if ((many || begin >= NARROW || size >= NARROW) && !write_wide_end(zip, begin, size)) return false;
    record end = {.size = 0};
    add(&end, 0x06054b50, 4);
    add(&end, 0, 4);
    add(&end, many ? 0xffff : zip->count, 2);
    add(&end, many ? 0xffff : zip->count, 2);
    add(&end, narrow(size), 4);
    add(&end, narrow(begin), 4);
    add(&end, 0, 2);
    return write_record(zip, &end);
}

void trn_zip_drop(trn_zip_writer *zip)
{
    for (size_t i = 0; i < zip->count; i++)
        free(zip->members[i].name);
    free(zip->members);
    *zip = (trn_zip_writer){0};
}
