/* HDF5 samples made of the input: names, types, sizes, layouts, links and texts of all kinds, which are read
 * as data reads them. The files are libhdf5's own: what it makes of damaged ones is not tested here. */
#include "data_private.h"
#include "hdf5_file.h"

#include <hdf5.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_ITEMS = 6, MAX_SIDE = 24, MAX_VALUES = MAX_SIDE * MAX_SIDE, MAX_TEXT = 1 << 12 };

typedef struct input {
    const uint8_t *data;
    size_t size;
} input;

static void require(bool holds)
{
    if (!holds) abort();
}

/* The next byte, below `count`; 0 at the end. */
static unsigned take(input *in, unsigned count)
{
    if (!in->size) return 0;
    in->size--;
    return *in->data++ % count;
}

/* What the input asks for, and whether it can be read as a plane of numbers. */
typedef struct item {
    char name[8];
    int height, width;
    double first;
    bool plain, integers;
} item;

static hid_t choose_type(input *in, item *about)
{
    const hid_t types[] = {H5T_NATIVE_FLOAT, H5T_NATIVE_DOUBLE, H5T_STD_I8BE,       H5T_STD_U16BE,
                           H5T_STD_I32LE,    H5T_STD_U64BE,     H5T_NATIVE_LDOUBLE, H5T_C_S1,
                           H5T_STD_B16LE,    H5T_STD_REF_OBJ};
    unsigned chosen = take(in, TRN_COUNT(types));
    about->plain = chosen < 6;
    about->integers = chosen >= 2 && chosen < 6;
    return types[chosen];
}

static hid_t choose_layout(input *in, int rank, const hsize_t *sides, item *about)
{
    hid_t plist = H5Pcreate(H5P_DATASET_CREATE);
    unsigned layout = take(in, 8);
    if (layout == 1) H5Pset_layout(plist, H5D_COMPACT);
    if (layout > 1 && rank > 0) H5Pset_chunk(plist, rank, sides);
    if (layout == 3 || layout == 4) H5Pset_shuffle(plist);
    if (layout == 4) H5Pset_deflate(plist, take(in, 10));
    if (layout == 5) H5Pset_fletcher32(plist);
    if (layout == 6) H5Pset_nbit(plist);
    if (layout == 7) H5Pset_scaleoffset(plist, H5Z_SO_INT, 0);
    about->plain = about->plain && layout < 6;
    return plist;
}

static void add_dataset(hid_t file, input *in, item *about)
{
    hsize_t sides[4] = {0};
    int rank = (int)take(in, 8);
    rank = rank > 4 ? 2 : rank; /* mostly planes */
    for (int i = 0; i < rank; i++)
        sides[i] = take(in, rank > 2 ? 4 : MAX_SIDE);
    hid_t type = choose_type(in, about);
    hid_t space = rank ? H5Screate_simple(rank, sides, NULL) : H5Screate(H5S_SCALAR);
    hid_t plist = choose_layout(in, rank, sides, about);
    hid_t set = H5Dcreate2(file, about->name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    static double values[MAX_VALUES];
    about->first = take(in, 100);
    for (size_t i = 0; i < MAX_VALUES; i++)
        values[i] = about->first;
    bool written = set >= 0 && take(in, 8) &&
                   H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
    about->plain = about->plain && written && rank == 2 && sides[0] && sides[1];
    about->height = (int)sides[0];
    about->width = (int)sides[1];
    if (set >= 0) H5Dclose(set);
    H5Pclose(plist);
    H5Sclose(space);
}

static void add_item(hid_t file, input *in, item *about)
{
    size_t length = take(in, sizeof about->name);
    *about = (item){0};
    for (size_t i = 0; i < length; i++)
        about->name[i] = (char)take(in, 256);
    switch (take(in, 16)) {
    case 0:
        H5Lcreate_soft("/x", file, about->name, H5P_DEFAULT, H5P_DEFAULT);
        break;
    case 1:
        H5Lcreate_external("other", "/x", file, about->name, H5P_DEFAULT, H5P_DEFAULT);
        break;
    case 2:
        H5Gclose(H5Gcreate2(file, about->name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
        break;
    default:
        add_dataset(file, in, about);
        break;
    }
}

/* What is left of the input, as the text of a pickle: of fixed or of variable length, or no text. */
static void add_pickle(hid_t file, input *in)
{
    unsigned kind = take(in, 4);
    if (!kind) return;
    char *text = malloc(in->size + 1);
    require(text != NULL);
    if (in->size) memcpy(text, in->data, in->size);
    text[in->size] = 0;
    hid_t space = H5Screate(H5S_SCALAR), type = kind == 3 ? H5Tcopy(H5T_NATIVE_INT64) : H5Tcopy(H5T_C_S1);
    if (kind < 3) H5Tset_size(type, kind == 1 ? H5T_VARIABLE : in->size + 1);
    hid_t attribute = H5Acreate2(file, "pickle", type, space, H5P_DEFAULT, H5P_DEFAULT);
    int64_t number = 7;
    const void *value = kind == 1 ? (const void *)&text : kind == 2 ? (const void *)text : &number;
    if (attribute >= 0) H5Awrite(attribute, type, value);
    if (attribute >= 0) H5Aclose(attribute);
    H5Tclose(type);
    H5Sclose(space);
    free(text);
}

/* The bytes of the file that the input describes. malloc'd. */
static void *make_file(input *in, item *items, size_t *size)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_core(access, 1 << 16, false);
    if (take(in, 2)) H5Pset_libver_bounds(access, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
    hid_t file = H5Fcreate("made", H5F_ACC_TRUNC, H5P_DEFAULT, access);
    require(file >= 0);
    for (unsigned i = 0, count = take(in, MAX_ITEMS + 1); i < count; i++)
        add_item(file, in, &items[i]);
    add_pickle(file, in);
    H5Fflush(file, H5F_SCOPE_GLOBAL);
    ssize_t length = H5Fget_file_image(file, NULL, 0);
    require(length > 0);
    void *bytes = malloc((size_t)length);
    require(bytes && H5Fget_file_image(file, bytes, (size_t)length) == length);
    H5Fclose(file);
    H5Pclose(access);
    *size = (size_t)length;
    return bytes;
}

static bool works(trn_status status, const trn_error *err)
{
    require(status == TRN_OK || err->message[0]);
    return status == TRN_OK;
}

static bool read_plane(const hdf5_file *file, const char *name, hdf5_numbers numbers, double *first)
{
    trn_error err = {0};
    int rank, height, width;
    if (!works(hdf5_measure(file, name, numbers, &rank, &height, &width, &err), &err) || rank != 2)
        return false;
    require(height > 0 && width > 0 && height < MAX_SIDE && width < MAX_SIDE);
    int64_t out[MAX_SIDE * MAX_SIDE]; /* as large as floats, too */
    float value;
    if (!works(hdf5_read(file, name, numbers, height, width, out, &err), &err)) return false;
    memcpy(&value, out, sizeof value);
    *first = numbers == HDF5_FLOATS ? (double)value : (double)out[0];
    return true;
}

/* Plain numbers are read, and are what was written. */
static void check_item(const hdf5_file *file, const item *about)
{
    double first = -1;
    bool floats = read_plane(file, about->name, HDF5_FLOATS, &first);
    require(!about->plain || (floats && first == about->first));
    bool integers = read_plane(file, about->name, HDF5_INTEGERS, &first);
    require(!about->plain || integers == about->integers);
    require(!integers || !about->plain || first == about->first);
}

static void check_pickle(const hdf5_file *file)
{
    trn_error err = {0};
    char *repr = hdf5_text(file, "pickle", MAX_TEXT, &err);
    require(repr || err.message[0]);
    int64_t label;
    if (repr) works(data_pickle_label(repr, strlen(repr), &label, &err), &err);
    free(repr);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, TRN_MIN(size, (size_t)MAX_TEXT * 2)};
    item items[MAX_ITEMS] = {{{0}, 0, 0, 0, false, false}};
    trn_error err = {0};
    hdf5_file file;
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    size_t length;
    void *bytes = make_file(&in, items, &length);
    if (works(hdf5_open_memory(&file, bytes, length, &err), &err)) {
        for (size_t i = 0; i < MAX_ITEMS; i++)
            if (items[i].name[0]) check_item(&file, &items[i]);
        check_pickle(&file);
        hdf5_close(&file);
    }
    require(H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL) == 0); /* nothing is left open */
    free(bytes);
    return 0;
}
