/* NumPy's .npy: written row by row, with a JSON text beside it; read back for probes and tests. */
#include "export_private.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 16, MAX_HEADER = 1 << 16 };

typedef struct npy_file {
    FILE *file;
    trn_output *sidecar; /* complete, waiting for the array's commit; or NULL */
    uint16_t *halves;    /* [CHUNK] for float16 */
} npy_file;

static bool little_endian(void)
{
    const uint16_t one = 1;
    return *(const uint8_t *)&one == 1;
}

/* ---- writing ---- */

static bool write_header(FILE *file, int bytes, const int64_t *shape, int ndim)
{
    trn_text text = {0};
    trn_text_printf(&text, "{'descr': '%cf%d', 'fortran_order': False, 'shape': (",
                    little_endian() ? '<' : '>', bytes);
    for (int i = 0; i < ndim; i++)
        trn_text_printf(&text, "%lld%s", (long long)shape[i], ndim == 1 ? "," : i + 1 < ndim ? ", " : "");
    trn_text_add(&text, "), }");
    while (!text.failed && (10 + text.length + 1) % 64)
        trn_text_add(&text, " ");
    trn_text_add(&text, "\n");
    const uint8_t start[10] = {
        0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)text.length, (uint8_t)(text.length >> 8)};
    bool good = !text.failed && text.length < MAX_HEADER && fwrite(start, 1, 10, file) == 10 &&
                fwrite(text.data, 1, text.length, file) == text.length;
    trn_text_free(&text);
    return good;
}

/* "a.npy" and its text "a.json". */
static trn_status prepare_sidecar(const trn_writer *writer, npy_file *npy, const char *json, trn_error *err)
{
    trn_text path = {0};
    trn_text_printf(&path, "%.*s.json", (int)(strlen(writer->path) - strlen(".npy")), writer->path);
    if (path.failed) return trn_fail_memory(err, strlen(writer->path), "a path");
    trn_status status = trn_output_create(path.data, &npy->sidecar, err);
    trn_text_free(&path);
    if (status != TRN_OK) return status;
    FILE *file = fopen(trn_output_path(npy->sidecar), "wb");
    if (!file) return trn_fail_errno(err, "write the sidecar of", writer->path);
    bool good =
        fputs(json, file) >= 0 && (json[0] && json[strlen(json) - 1] == '\n' ? 1 : fputc('\n', file) != EOF);
    if (!good) status = trn_fail_errno(err, "write the sidecar of", writer->path);
    if (fclose(file) && good) status = trn_fail_errno(err, "write the sidecar of", writer->path);
    return status;
}

static trn_status npy_open(trn_writer *writer, const trn_export_options *options, trn_error *err)
{
    npy_file *npy = writer->state = calloc(1, sizeof *npy);
    if (npy) npy->halves = malloc(CHUNK * sizeof *npy->halves);
    if (!npy || !npy->halves) return trn_fail_memory(err, CHUNK, "a writer");
    npy->file = fopen(trn_output_path(writer->output), "wb");
    if (!npy->file) return trn_fail_errno(err, "write", writer->path);
    const trn_export_grid *grid = &writer->grid;
    bool vectors = grid->height == 1 && !grid->georef.has_transform && !grid->georef.has_crs;
    const int64_t shape[3] = {grid->height, grid->width, grid->channels};
    if (!write_header(npy->file, (int)export_type_bytes(writer->type), shape + vectors, 3 - vectors))
        return trn_fail_errno(err, "write", writer->path);
    return options->sidecar ? prepare_sidecar(writer, npy, options->sidecar, err) : TRN_OK;
}

static bool write_halves(npy_file *npy, const float *values, size_t count)
{
    while (count) {
        size_t n = TRN_MIN(count, (size_t)CHUNK);
        export_convert(TRN_EXPORT_F16, values, n, npy->halves);
        if (fwrite(npy->halves, sizeof *npy->halves, n, npy->file) != n) return false;
        values += n;
        count -= n;
    }
    return true;
}

static trn_status npy_rows(trn_writer *writer, int64_t first_row, int64_t rows, const float *values,
                           trn_error *err)
{
    (void)first_row;
    npy_file *npy = writer->state;
    size_t count = (size_t)rows * (size_t)writer->grid.width * (size_t)writer->grid.channels;
    bool good = writer->type == TRN_EXPORT_F16 ? write_halves(npy, values, count)
                                               : fwrite(values, sizeof *values, count, npy->file) == count;
    return good ? TRN_OK : trn_fail_errno(err, "write", writer->path);
}

static trn_status npy_finish(trn_writer *writer, trn_error *err)
{
    npy_file *npy = writer->state;
    FILE *file = npy->file;
    npy->file = NULL;
    return fclose(file) ? trn_fail_errno(err, "write", writer->path) : TRN_OK;
}

static trn_status npy_committed(trn_writer *writer, trn_error *err)
{
    npy_file *npy = writer->state;
    trn_output *sidecar = npy->sidecar;
    npy->sidecar = NULL;
    return sidecar ? trn_output_commit(sidecar, err) : TRN_OK;
}

static void npy_close(trn_writer *writer)
{
    npy_file *npy = writer->state;
    if (!npy) return;
    if (npy->file) fclose(npy->file);
    trn_output_abandon(npy->sidecar);
    free(npy->halves);
    free(npy);
}

const export_format npy_format = {"npy", npy_open, npy_rows, npy_finish, npy_committed, npy_close};

trn_status trn_npy_write(const char *path, const float *data, const int64_t *shape, int ndim, trn_error *err)
{
    size_t count = 1;
    for (int i = 0; i < ndim; i++)
        if (shape[i] < 0 || !trn_mul_size(count, (size_t)shape[i], &count))
            return trn_fail(err, TRN_ERR_ARGUMENT, "cannot write '%s': dimension %d is %lld", path, i,
                            (long long)shape[i]);
    trn_output *output;
    trn_status status = trn_output_create(path, &output, err);
    if (status != TRN_OK) return status;
    FILE *file = fopen(trn_output_path(output), "wb");
    bool good =
        file && write_header(file, 4, shape, ndim) && fwrite(data, sizeof *data, count, file) == count;
    if (!good) status = trn_fail_errno(err, "write", path);
    if (file && fclose(file) && good) status = trn_fail_errno(err, "write", path);
    if (status == TRN_OK) return trn_output_commit(output, err);
    trn_output_abandon(output);
    return status;
}

/* ---- reading ---- */

typedef struct npy_header {
    char order, kind; /* '<', '>' or '|'; 'f', 'i', 'u', 'b' */
    int bytes, ndim;
    int64_t shape[8];
    size_t count;
} npy_header;

static const char *after(const char *text, const char *key)
{
    const char *at = strstr(text, key);
    if (!at) return NULL;
    at += strlen(key);
    while (*at == ' ' || *at == ':')
        at++;
    return at;
}

static bool parse_shape(const char *at, npy_header *header)
{
    if (!at || *at++ != '(') return false;
    header->count = 1;
    while (*at != ')') {
        char *end;
        while (*at == ' ' || *at == ',')
            at++;
        if (*at == ')') break;
        if (!isdigit((unsigned char)*at) || header->ndim == 8) return false;
        long long n = strtoll(at, &end, 10);
        if (n < 0 || n > INT64_MAX / 16 || !trn_mul_size(header->count, (size_t)n, &header->count))
            return false;
        header->shape[header->ndim++] = n;
        at = end;
    }
    return true;
}

/* The dictionary of the header, NUL-terminated. */
static bool parse_header(const char *text, npy_header *header)
{
    const char *descr = after(text, "'descr'"), *order = after(text, "'fortran_order'");
    if (!descr || *descr++ != '\'' || !order || !trn_starts_with(order, "False")) return false;
    if (!strchr("<>|=", descr[0]) || !descr[0] || !descr[1] || !strchr("fiub", descr[1])) return false;
    header->order = descr[0];
    header->kind = descr[1];
    header->bytes = atoi(descr + 2);
    bool known = header->kind == 'f'
                     ? header->bytes == 2 || header->bytes == 4 || header->bytes == 8
                     : header->bytes == 1 || header->bytes == 2 || header->bytes == 4 || header->bytes == 8;
    return known && parse_shape(after(text, "'shape'"), header);
}

static float read_number(const npy_header *header, const uint8_t *at)
{
    uint64_t bits = 0;
    bool big = header->order == '>' || (header->order == '=' && !little_endian());
    for (int i = 0; i < header->bytes; i++)
        bits |= (uint64_t)at[big ? header->bytes - 1 - i : i] << (8 * i);
    if (header->kind == 'f' && header->bytes == 2) return trn_f16_to_f32((uint16_t)bits);
    if (header->kind == 'f' && header->bytes == 4) {
        uint32_t half = (uint32_t)bits;
        float value;
        memcpy(&value, &half, sizeof value);
        return value;
    }
    if (header->kind == 'f') {
        double value;
        memcpy(&value, &bits, sizeof value);
        return (float)value;
    }
    int unused = 64 - 8 * header->bytes;
    bool negative = header->kind == 'i' && bits >> (8 * header->bytes - 1) & 1;
    if (!negative) return (float)bits;
    /* the magnitude, so that no conversion depends on how the machine wraps */
    uint64_t magnitude = (~bits + 1) << unused >> unused;
    return -(float)magnitude;
}

static trn_status read_start(FILE *file, const char *path, npy_header *header, trn_error *err)
{
    uint8_t start[12];
    size_t length = 0;
    bool good =
        fread(start, 1, 10, file) == 10 && !memcmp(start, "\x93NUMPY", 6) && start[6] >= 1 && start[6] <= 3;
    if (good) length = start[8] | (size_t)start[9] << 8;
    if (good && start[6] > 1) {
        good = fread(start + 10, 1, 2, file) == 2;
        length |= (size_t)start[10] << 16 | (size_t)start[11] << 24;
    }
    if (!good || length > MAX_HEADER) return trn_fail(err, TRN_ERR_FORMAT, "'%s' is no .npy file", path);
    char *text = calloc(length + 1, 1);
    if (!text) return trn_fail_memory(err, length, "a .npy header");
    good = fread(text, 1, length, file) == length && strlen(text) == length && parse_header(text, header);
    free(text);
    if (good) return TRN_OK;
    return trn_fail(
        err, TRN_ERR_FORMAT,
        "'%s': its .npy header is not one of numbers in C order (save it with numpy.ascontiguousarray)",
        path);
}

static trn_status read_numbers(FILE *file, const char *path, const npy_header *header, float **data,
                               trn_error *err)
{
    long long start = (long long)ftello(file), end = fseeko(file, 0, SEEK_END) ? -1 : (long long)ftello(file);
    size_t bytes;
    /* the size of the file bounds what is allocated */
    if (start < 0 || end < start || !trn_mul_size(header->count, (size_t)header->bytes, &bytes) ||
        (unsigned long long)(end - start) < bytes || fseeko(file, (off_t)start, SEEK_SET))
        return trn_fail(err, TRN_ERR_FORMAT, "'%s' is truncated: it holds fewer than its %zu numbers", path,
                        header->count);
    uint8_t *chunk = malloc((size_t)CHUNK * 8);
    *data = malloc(header->count ? header->count * sizeof **data : 1);
    trn_status status =
        chunk && *data ? TRN_OK : trn_fail_memory(err, header->count * sizeof **data, "an array");
    for (size_t done = 0; done < header->count && status == TRN_OK;) {
        size_t n = TRN_MIN((size_t)CHUNK, header->count - done), width = (size_t)header->bytes;
        if (fread(chunk, width, n, file) != n) status = trn_fail_errno(err, "read", path);
        for (size_t i = 0; i < n && status == TRN_OK; i++)
            (*data)[done + i] = read_number(header, chunk + i * width);
        done += n;
    }
    free(chunk);
    if (status == TRN_OK) return TRN_OK;
    free(*data);
    *data = NULL;
    return status;
}

trn_status trn_npy_read(const char *path, float **data, int64_t *shape, int max_dims, int *ndim,
                        trn_error *err)
{
    *data = NULL;
    FILE *file = fopen(path, "rb");
    if (!file) return trn_fail_errno(err, "open", path);
    npy_header header = {0};
    trn_status status = read_start(file, path, &header, err);
    if (status == TRN_OK && header.ndim > max_dims)
        status = trn_fail(err, TRN_ERR_FORMAT, "'%s' has %d dimensions; at most %d are expected", path,
                          header.ndim, max_dims);
    if (status == TRN_OK) status = read_numbers(file, path, &header, data, err);
    fclose(file);
    if (status != TRN_OK) return status;
    *ndim = header.ndim;
    for (int i = 0; i < header.ndim; i++)
        shape[i] = header.shape[i];
    return TRN_OK;
}
