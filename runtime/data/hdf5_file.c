/* The only file that knows libhdf5. Its errors become ours, and what a hostile file could make it do is
 * refused: other files behind links, external storage or virtual datasets; filters from plugins; sizes beyond
 * memory. */
#include "hdf5_file.h"
#include "data_private.h"

#include <hdf5.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAMES = 65536, MAX_CHUNK_BYTES = 1 << 28, MAX_RANK = 32 };

/* Not every build of libhdf5 may be used by several threads. */
static pthread_mutex_t hdf5_lock = PTHREAD_MUTEX_INITIALIZER;

typedef struct first_message {
    char text[256];
} first_message;

static herr_t keep_message(unsigned n, const H5E_error2_t *error, void *user)
{
    first_message *message = user;
    if (n == 0 && error->desc) snprintf(message->text, sizeof message->text, "%s", error->desc);
    return 0;
}

/* "what 'name': libhdf5's innermost message". */
static trn_status fail_hdf5(trn_error *err, const char *what, const char *name)
{
    first_message message = {""};
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_message, &message);
    H5Eclear2(H5E_DEFAULT);
    return trn_fail(err, TRN_ERR_FORMAT, "%s '%.128s': %s", what, name,
                    message.text[0] ? message.text : "libhdf5 failed");
}

typedef struct name_list {
    char **names;
    size_t count, capacity;
    trn_status status;
    trn_error *err;
} name_list;

static herr_t add_name(hid_t group, const char *name, const H5L_info_t *link, void *user)
{
    (void)group;
    name_list *list = user;
    if (list->count == MAX_NAMES) {
        list->status = trn_fail(list->err, TRN_ERR_FORMAT, "more than %d datasets", MAX_NAMES);
    } else if (link->type != H5L_TYPE_HARD) {
        list->status = trn_fail(list->err, TRN_ERR_UNSUPPORTED,
                                "'%.128s' is a link to elsewhere: it is not followed", name);
    } else if (!*name || strchr(name, '/') || *name == '.') {
        list->status = trn_fail(list->err, TRN_ERR_FORMAT, "a dataset has the name '%.128s'", name);
    } else if (!trn_grow(&list->names, &list->capacity, list->count + 1, sizeof *list->names) ||
               !(list->names[list->count] = strdup(name))) {
        list->status = trn_fail_memory(list->err, strlen(name) + 1, "a name");
    } else {
        list->count++;
        return 0;
    }
    return -1;
}

static trn_status list_names(hdf5_file *file, trn_error *err)
{
    name_list list = {.err = err};
    herr_t result = H5Literate((hid_t)file->id, H5_INDEX_NAME, H5_ITER_INC, NULL, add_name, &list);
    if (result >= 0) {
        file->names = list.names;
        file->count = list.count;
        return TRN_OK;
    }
    trn_names_free(list.names, list.count);
    return list.status != TRN_OK ? list.status : fail_hdf5(err, "listing", "/");
}

static void silence(hdf5_file *file)
{
    H5E_auto2_t report = NULL;
    H5Eget_auto2(H5E_DEFAULT, &report, &file->report_data);
    memcpy(&file->report, &report,
           sizeof file->report); /* a function pointer in a void pointer: POSIX has it */
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

static void end_silence(const hdf5_file *file)
{
    H5E_auto2_t report;
    memcpy(&report, &file->report, sizeof report);
    H5Eset_auto2(H5E_DEFAULT, report, file->report_data);
    pthread_mutex_unlock(&hdf5_lock);
}

/* What damaged files leave behind libhdf5 cannot put away at exit: it prints about it, for ever or until it
 * gives up. Only files for reading are opened here, so nothing is lost without; a program that has used
 * libhdf5 before keeps its handler, as this is only heard before the library's first call. */
static void leave_exit_alone(void)
{
    static bool done; /* guarded by hdf5_lock */
    if (!done) H5dont_atexit();
    done = true;
}

static void begin(hdf5_file *file)
{
    *file = (hdf5_file){0};
    pthread_mutex_lock(&hdf5_lock);
    leave_exit_alone();
    silence(file);
}

/* Names of what is in a file that H5Fopen gave; or its failure. */
static trn_status finish_open(hdf5_file *file, const char *name, trn_error *err)
{
    trn_status status = file->id < 0 ? fail_hdf5(err, "opening", name) : list_names(file, err);
    if (status == TRN_OK) return TRN_OK;
    if (file->id >= 0) H5Fclose((hid_t)file->id);
    end_silence(file);
    return status;
}

trn_status hdf5_open(hdf5_file *file, const char *path, trn_error *err)
{
    begin(file);
    file->id = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    bool missing = file->id < 0 && !trn_path_exists(path);
    trn_status status = finish_open(file, trn_path_name(path), err);
    return missing ? trn_fail(err, TRN_ERR_IO, "the file is missing") : status;
}

trn_status hdf5_open_memory(hdf5_file *file, const void *data, size_t size, trn_error *err)
{
    void *copy = malloc(size ? size : 1); /* libhdf5 takes no constant bytes; it copies them itself */
    if (!copy) return trn_fail_memory(err, size, "a sample");
    if (size) memcpy(copy, data, size);
    begin(file);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    bool set = H5Pset_fapl_core(access, 1 << 16, false) >= 0 && H5Pset_file_image(access, copy, size) >= 0;
    file->id = set ? H5Fopen("memory", H5F_ACC_RDONLY, access) : -1;
    H5Pclose(access);
    free(copy);
    return finish_open(file, "memory", err);
}

void hdf5_close(hdf5_file *file)
{
    H5Fclose((hid_t)file->id);
    trn_names_free(file->names, file->count);
    end_silence(file);
}

static trn_status check_filters(hid_t plist, const char *name, trn_error *err)
{
    int count = H5Pget_nfilters(plist);
    for (int i = 0; i < count; i++) {
        unsigned flags, config;
        size_t values = 0;
        H5Z_filter_t filter = H5Pget_filter2(plist, (unsigned)i, &flags, &values, NULL, 0, NULL, &config);
        if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_FLETCHER32)
            return trn_fail(
                err, TRN_ERR_UNSUPPORTED,
                "dataset '%.128s' needs filter %d: only deflate, shuffle and fletcher32 are used here", name,
                (int)filter);
    }
    return count < 0 ? fail_hdf5(err, "filters of dataset", name) : TRN_OK;
}

static trn_status check_chunk(hid_t plist, size_t element, const char *name, trn_error *err)
{
    hsize_t sides[MAX_RANK];
    int rank = H5Pget_chunk(plist, MAX_RANK, sides);
    size_t bytes = element;
    for (int i = 0; i < rank; i++)
        if (!trn_mul_size(bytes, (size_t)sides[i], &bytes) || bytes > MAX_CHUNK_BYTES)
            return trn_fail(err, TRN_ERR_FORMAT, "dataset '%.128s' has chunks of more than %d MiB", name,
                            MAX_CHUNK_BYTES >> 20);
    return rank < 0 ? fail_hdf5(err, "chunks of dataset", name) : TRN_OK;
}

/* Where the numbers are: in this file, and readable without plugins. */
static trn_status check_storage(hid_t dataset, size_t element, const char *name, trn_error *err)
{
    hid_t plist = H5Dget_create_plist(dataset);
    if (plist < 0) return fail_hdf5(err, "dataset", name);
    trn_status status = TRN_OK;
    H5D_layout_t layout = H5Pget_layout(plist);
    H5D_space_status_t space = H5D_SPACE_STATUS_NOT_ALLOCATED;
    if (layout == H5D_CONTIGUOUS && H5Pget_external_count(plist) != 0)
        status = trn_fail(err, TRN_ERR_UNSUPPORTED,
                          "dataset '%.128s' keeps its numbers in other files: they are "
                          "not read",
                          name);
    else if (layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED && layout != H5D_COMPACT)
        status = trn_fail(err, TRN_ERR_UNSUPPORTED,
                          "dataset '%.128s' is made of other datasets, or has a layout "
                          "unknown here",
                          name);
    else if (layout == H5D_CHUNKED)
        status = check_chunk(plist, element, name, err);
    if (status == TRN_OK) status = check_filters(plist, name, err);
    if (status == TRN_OK && layout != H5D_COMPACT &&
        (H5Dget_space_status(dataset, &space) < 0 || space == H5D_SPACE_STATUS_NOT_ALLOCATED))
        status = trn_fail(err, TRN_ERR_FORMAT, "dataset '%.128s' was never written", name);
    H5Pclose(plist);
    return status;
}

static trn_status check_type(hid_t type, hdf5_numbers numbers, const char *name, trn_error *err)
{
    H5T_class_t class = H5Tget_class(type);
    size_t size = H5Tget_size(type);
    if (size == 0 || size > 8 || (class != H5T_INTEGER && (class != H5T_FLOAT || numbers == HDF5_INTEGERS)))
        return trn_fail(err, TRN_ERR_FORMAT, "dataset '%.128s' does not hold %s of at most 8 bytes", name,
                        numbers == HDF5_INTEGERS ? "integers" : "numbers");
    return TRN_OK;
}

static trn_status measure(hid_t dataset, const char *name, int *rank, int *height, int *width, trn_error *err)
{
    hid_t space = H5Dget_space(dataset);
    if (space < 0) return fail_hdf5(err, "size of dataset", name);
    trn_status status = TRN_OK;
    hsize_t sides[MAX_RANK] = {0};
    *rank = H5Sis_simple(space) > 0 ? H5Sget_simple_extent_ndims(space) : -1;
    if (*rank < 0 || *rank > MAX_RANK || H5Sget_simple_extent_dims(space, sides, NULL) < 0) {
        status = fail_hdf5(err, "size of dataset", name);
    } else if (*rank == 2) {
        char what[160];
        snprintf(what, sizeof what, "dataset '%.128s'", name);
        status = data_check_size(sides[0], sides[1], what, err);
        *height = (int)TRN_MIN(sides[0], INT32_MAX);
        *width = (int)TRN_MIN(sides[1], INT32_MAX);
    }
    H5Sclose(space);
    return status;
}

trn_status hdf5_measure(const hdf5_file *file, const char *name, hdf5_numbers numbers, int *rank, int *height,
                        int *width, trn_error *err)
{
    *rank = *height = *width = 0;
    hid_t dataset = H5Dopen2((hid_t)file->id, name, H5P_DEFAULT);
    if (dataset < 0) return fail_hdf5(err, "opening dataset", name);
    hid_t type = H5Dget_type(dataset);
    trn_status status =
        type < 0 ? fail_hdf5(err, "type of dataset", name) : check_type(type, numbers, name, err);
    if (status == TRN_OK) status = check_storage(dataset, H5Tget_size(type), name, err);
    if (status == TRN_OK) status = measure(dataset, name, rank, height, width, err);
    if (type >= 0) H5Tclose(type);
    H5Dclose(dataset);
    return status;
}

trn_status hdf5_read(const hdf5_file *file, const char *name, hdf5_numbers numbers, int height, int width,
                     void *out, trn_error *err)
{
    int rank, stored_height, stored_width;
    trn_status status = hdf5_measure(file, name, numbers, &rank, &stored_height, &stored_width, err);
    if (status != TRN_OK) return status;
    if (rank != 2 || stored_height != height || stored_width != width)
        return trn_fail(err, TRN_ERR_FORMAT,
                        "dataset '%.128s' has %d dimensions, %d x %d: it should have %d x %d", name, rank,
                        stored_height, stored_width, height, width);
    hid_t dataset = H5Dopen2((hid_t)file->id, name, H5P_DEFAULT);
    if (dataset < 0) return fail_hdf5(err, "opening dataset", name);
    hid_t type = numbers == HDF5_FLOATS ? H5T_NATIVE_FLOAT : H5T_NATIVE_INT64;
    if (H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) < 0)
        status = fail_hdf5(err, "reading dataset", name);
    H5Dclose(dataset);
    return status;
}

/* A text of one piece: of variable length, or of the type's size. */
static char *read_text(hid_t attribute, hid_t type, const char *name, size_t max_bytes, trn_error *err)
{
    size_t size = H5Tget_size(type);
    if (H5Tis_variable_str(type) > 0) {
        char *text = NULL;
        if (H5Aread(attribute, type, &text) < 0 || !text) {
            fail_hdf5(err, "reading attribute", name);
            return NULL;
        }
        char *copy = strlen(text) <= max_bytes ? strdup(text) : NULL;
        if (!copy)
            trn_fail(err, TRN_ERR_FORMAT, "attribute '%.64s' is longer than %zu bytes", name, max_bytes);
        H5free_memory(text);
        return copy;
    }
    char *text = size <= max_bytes ? calloc(1, size + 1) : NULL;
    if (!text) {
        trn_fail(err, TRN_ERR_FORMAT, "attribute '%.64s' is longer than %zu bytes", name, max_bytes);
    } else if (H5Aread(attribute, type, text) < 0) {
        fail_hdf5(err, "reading attribute", name);
        free(text);
        text = NULL;
    }
    return text;
}

char *hdf5_text(const hdf5_file *file, const char *name, size_t max_bytes, trn_error *err)
{
    if (H5Aexists((hid_t)file->id, name) <= 0) {
        H5Eclear2(H5E_DEFAULT);
        trn_fail(err, TRN_ERR_FORMAT, "there is no attribute '%.64s'", name);
        return NULL;
    }
    hid_t attribute = H5Aopen((hid_t)file->id, name, H5P_DEFAULT);
    if (attribute < 0) {
        fail_hdf5(err, "opening attribute", name);
        return NULL;
    }
    char *text = NULL;
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    if (type < 0 || space < 0)
        fail_hdf5(err, "opening attribute", name);
    else if (H5Tget_class(type) != H5T_STRING || H5Sget_simple_extent_npoints(space) != 1)
        trn_fail(err, TRN_ERR_FORMAT, "attribute '%.64s' is not one text", name);
    else
        text = read_text(attribute, type, name, max_bytes, err);
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    H5Aclose(attribute);
    return text;
}
