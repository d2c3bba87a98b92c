/* Files that are damaged or lie: one clear error each, and nothing read that should not be. */
#include "samples.h"
#include "test_raster.h"

#include <math.h>
#include <unistd.h>

/* A folder of the samples "a" (train) and what the test makes of it; the class is given by label_map.json. */
static char *make_folder(void)
{
    char *dir = strdup(test_temp_dir());
    write_text(dir, "default_partition.json", "{\"train\": [\"a\"], \"valid\": [], \"test\": []}");
    write_text(dir, "label_map.json", "{\"0\": [\"a\"], \"1\": [\"b\"]}");
    return dir;
}

static void open_fails(const char *dir, const trn_dataset_options *options, trn_status code, const char *text)
{
    trn_error err = {0};
    trn_dataset *dataset;
    assert_trn_fails(trn_dataset_open(dir, options, &dataset, &err), code, err, text);
    assert_null(dataset);
}

static const float four[4] = {1, 2, 3, 4};

static void json_that_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *file, *text;
        trn_status code;
        const char *says;
    } cases[] = {
        {"default_partition.json", "{\"train\": [\"a\"], \"valid\": []", TRN_ERR_FORMAT, "is no JSON"},
        {"default_partition.json", "[]", TRN_ERR_FORMAT, "has no list 'train'"},
        {"default_partition.json", "{\"train\": [\"a\"], \"val\": [], \"test\": []}", TRN_ERR_FORMAT,
         "list 'valid'"},
        {"default_partition.json", "{\"train\": [], \"valid\": [], \"test\": []}", TRN_ERR_FORMAT,
         "has no samples"},
        {"default_partition.json", "{\"train\": [7], \"valid\": [], \"test\": []}", TRN_ERR_FORMAT,
         "something else"},
        {"default_partition.json", "{\"train\": [\"../a\"], \"valid\": [], \"test\": []}", TRN_ERR_FORMAT,
         "'../a', which is no name"},
        {"default_partition.json", "{\"train\": [\"z\"], \"valid\": [], \"test\": []}", TRN_ERR_IO,
         "'z.hdf5' is missing"},
        {"label_map.json", "{\"0\": [\"b\"]}", TRN_ERR_FORMAT, "says nothing of train sample 'a'"},
        {"label_map.json", "{\"0\": [\"a\"], \"2\": [\"b\"]}", TRN_ERR_FORMAT, "no sample is of class 1"},
        {"label_map.json", "{\"0\": [\"a\"], \"1\": [\"a\"]}", TRN_ERR_FORMAT, "of class 0 and of class 1"},
        {"label_map.json", "{\"cat\": [\"a\"]}", TRN_ERR_FORMAT, "'cat' is no class number"},
        {"label_map.json", "{\"-1\": [\"a\"]}", TRN_ERR_FORMAT, "'-1' is no class number"},
        {"label_map.json", "{\"99999999999\": [\"a\"]}", TRN_ERR_FORMAT, "is no class number"},
        {"label_map.json", "{\"0\": [3]}", TRN_ERR_FORMAT, "no sample"},
        {"label_map.json", "{}", TRN_ERR_FORMAT, "has no classes"},
        {"label_map.json", "[1]", TRN_ERR_FORMAT, "is no JSON object"},
    };
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        char *dir = make_folder();
        hid_t file = create_sample(dir, "a");
        add_plane(file, "Red", H5T_NATIVE_FLOAT, 2, 2, four);
        H5Fclose(file);
        trn_error err = {0};
        trn_dataset *dataset;
        assert_trn_ok(trn_dataset_open(dir, NULL, &dataset, &err), err);
        trn_dataset_close(dataset);
        write_text(dir, cases[i].file, cases[i].text);
        open_fails(dir, NULL, cases[i].code, cases[i].says);
        free(dir);
    }
    char *dir = make_folder();
    hid_t file = create_sample(dir, "a");
    add_plane(file, "Red", H5T_NATIVE_FLOAT, 2, 2, four);
    H5Fclose(file);
    open_fails(dir, &(trn_dataset_options){.class_count = 1}, TRN_ERR_FORMAT,
               "it has class 1: classes are 0 to 0");
    char *map = test_path(dir, "label_map.json");
    unlink(map);
    open_fails(dir, NULL, TRN_ERR_ARGUMENT, "say how many classes");
    open_fails(dir, &(trn_dataset_options){.class_count = 2, .height = 3}, TRN_ERR_ARGUMENT,
               "height and width");
    write_text(dir, "label_stats.json", "{\"a\": [0, 0.5]}");
    open_fails(dir, NULL, TRN_ERR_FORMAT, "no list of 2 labels that are 0 or 1");
    write_text(dir, "label_stats.json", "{\"b\": [0, 1]}");
    open_fails(dir, NULL, TRN_ERR_FORMAT, "says nothing of train sample 'a'");
    free(map);
    free(dir);
    open_fails("/nowhere/at/all", NULL, TRN_ERR_IO, "is no folder");
    open_fails(test_temp_dir(), NULL, TRN_ERR_IO, "neither default_partition.json");
}

static void put_flat(hid_t file)
{
    hsize_t side = 9;
    hid_t space = H5Screate_simple(1, &side, NULL);
    hid_t set = H5Dcreate2(file, "Red", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dclose(set);
    H5Sclose(space);
}

static void put_huge(hid_t file)
{
    hsize_t sides[2] = {1 << 20, 1 << 20}, chunk[2] = {4, 4};
    hid_t space = H5Screate_simple(2, sides, NULL), plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(plist, 2, chunk);
    hid_t set = H5Dcreate2(file, "Red", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    float value = 1;
    hsize_t one[2] = {1, 1}, at[2] = {0, 0};
    hid_t memory = H5Screate_simple(2, one, NULL);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, at, NULL, one, NULL);
    H5Dwrite(set, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, &value);
    H5Sclose(memory);
    H5Dclose(set);
    H5Pclose(plist);
    H5Sclose(space);
}

static void put_text(hid_t file)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, 4);
    add_plane(file, "Red", type, 2, 2, "abcdefghijklmno");
    H5Tclose(type);
}

static void put_never_written(hid_t file)
{
    add_plane(file, "Red", H5T_NATIVE_FLOAT, 2, 2, NULL);
}

static void put_link(hid_t file)
{
    H5Lcreate_external("/etc/hostname", "/x", file, "Red", H5P_DEFAULT, H5P_DEFAULT);
}

static void put_soft_link(hid_t file)
{
    H5Lcreate_soft("/Red", file, "Red", H5P_DEFAULT, H5P_DEFAULT); /* to itself */
}

static void put_group(hid_t file)
{
    H5Gclose(H5Gcreate2(file, "Red", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
}

/* Numbers that are the bytes of any file of the reader's. */
static void put_external(hid_t file)
{
    hsize_t sides[2] = {2, 2};
    hid_t space = H5Screate_simple(2, sides, NULL), plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(plist, "/etc/passwd", 0, 16);
    H5Dclose(H5Dcreate2(file, "Red", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, plist, H5P_DEFAULT));
    H5Pclose(plist);
    H5Sclose(space);
}

static void put_virtual(hid_t file)
{
    hsize_t sides[2] = {2, 2};
    hid_t space = H5Screate_simple(2, sides, NULL), plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_virtual(plist, space, "other.hdf5", "/x", space);
    H5Dclose(H5Dcreate2(file, "Red", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, plist, H5P_DEFAULT));
    H5Pclose(plist);
    H5Sclose(space);
}

/* nbit is built into libhdf5 and not among what is allowed. */
static void put_filter(hid_t file)
{
    hsize_t sides[2] = {2, 2};
    hid_t space = H5Screate_simple(2, sides, NULL), plist = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(plist, 2, sides);
    H5Pset_nbit(plist);
    hid_t set = H5Dcreate2(file, "Red", H5T_NATIVE_FLOAT, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, four);
    H5Dclose(set);
    H5Pclose(plist);
    H5Sclose(space);
}

static void put_only_a_mask(hid_t file)
{
    int32_t mask[4] = {0};
    add_plane(file, "label", H5T_NATIVE_INT32, 2, 2, mask);
}

static void put_not_a_number(hid_t file)
{
    const float values[4] = {1, NAN, INFINITY, 4};
    add_plane(file, "Red", H5T_NATIVE_FLOAT, 2, 2, values);
}

static void samples_that_are_wrong(void **state)
{
    (void)state;
    static const struct {
        void (*put)(hid_t file);
        trn_status code;
        const char *says;
    } cases[] = {
        {put_flat, TRN_ERR_FORMAT, "never written"},
        {put_huge, TRN_ERR_FORMAT, "1048576 x 1048576 pixels"},
        {put_text, TRN_ERR_FORMAT, "does not hold numbers"},
        {put_never_written, TRN_ERR_FORMAT, "dataset 'Red' was never written"},
        {put_link, TRN_ERR_UNSUPPORTED, "'Red' is a link to elsewhere"},
        {put_soft_link, TRN_ERR_UNSUPPORTED, "'Red' is a link to elsewhere"},
        {put_group, TRN_ERR_FORMAT, "opening dataset 'Red'"},
        {put_external, TRN_ERR_UNSUPPORTED, "in other files"},
        {put_virtual, TRN_ERR_UNSUPPORTED, "made of other datasets"},
        {put_filter, TRN_ERR_UNSUPPORTED, "needs filter"},
        {put_only_a_mask, TRN_ERR_FORMAT, "has no bands"},
        {put_not_a_number, TRN_ERR_FORMAT, "2 of 4 pixels of band 'Red'"},
    };
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        char *dir = make_folder();
        hid_t file = create_sample(dir, "a");
        cases[i].put(file);
        H5Fclose(file);
        trn_error err = {0};
        trn_dataset *dataset = NULL;
        float pixels[4];
        trn_status status = trn_dataset_open(dir, NULL, &dataset, &err);
        if (status == TRN_OK) status = trn_dataset_read(dataset, TRN_SPLIT_TRAIN, 0, pixels, NULL, &err);
        assert_trn_fails(status, cases[i].code, err, cases[i].says);
        if (!strstr(err.message, "'a'") && !strstr(err.message, "a.hdf5"))
            fail_msg("names no sample: %s", err.message);
        trn_dataset_close(dataset);
        free(dir);
    }
}

static void missing_pixels_are_filled_on_request(void **state)
{
    (void)state;
    char *dir = make_folder();
    hid_t file = create_sample(dir, "a");
    put_not_a_number(file);
    H5Fclose(file);
    trn_error err = {0};
    trn_dataset *dataset;
    trn_dataset_options options = {.has_fill = true, .fill = -7};
    assert_trn_ok(trn_dataset_open(dir, &options, &dataset, &err), err);
    float pixels[4];
    assert_trn_ok(trn_dataset_read(dataset, TRN_SPLIT_TRAIN, 0, pixels, NULL, &err), err);
    assert_true(pixels[0] == 1 && pixels[1] == -7 && pixels[2] == -7 && pixels[3] == 4);
    trn_dataset_close(dataset);
    options.fill = NAN;
    open_fails(dir, &options, TRN_ERR_ARGUMENT, "finite");
    free(dir);
}

/* Another sample than the first is wrong: the dataset opens, reading names the sample. */
static void later_samples_differ(void **state)
{
    (void)state;
    char *dir = strdup(test_temp_dir());
    write_text(dir, "default_partition.json",
               "{\"train\": [\"a\", \"small\", \"other\", \"cut\", \"none\"], \"valid\": [], \"test\": []}");
    write_text(dir, "label_map.json", "{\"0\": [\"a\", \"small\", \"other\", \"cut\", \"none\"]}");
    static const char *const ids[] = {"a", "small", "other", "cut", "none"};
    for (size_t i = 0; i < TRN_COUNT(ids); i++) {
        hid_t file = create_sample(dir, ids[i]);
        add_plane(file, i == 2 ? "Green" : "Red", H5T_NATIVE_FLOAT, i == 1 ? 1 : 2, 2, four);
        H5Fclose(file);
    }
    char *cut = test_path(dir, "cut.hdf5"), *none = test_path(dir, "none.hdf5");
    assert_int_equal(truncate(cut, 700), 0);
    assert_int_equal(truncate(none, 0), 0);
    trn_error err = {0};
    trn_dataset *dataset;
    assert_trn_ok(trn_dataset_open(dir, NULL, &dataset, &err), err);
    float pixels[4];
    assert_trn_ok(trn_dataset_read(dataset, TRN_SPLIT_TRAIN, 0, pixels, NULL, &err), err);
    assert_trn_fails(trn_dataset_read(dataset, TRN_SPLIT_TRAIN, 1, pixels, NULL, &err), TRN_ERR_FORMAT, err,
                     "train sample 'small': it has 1 x 2 pixels, the first sample 2 x 2");
    assert_trn_fails(trn_dataset_read(dataset, TRN_SPLIT_TRAIN, 2, pixels, NULL, &err), TRN_ERR_FORMAT, err,
                     "sample 'other': it has no 'Red'");
    assert_trn_fails(trn_dataset_read(dataset, TRN_SPLIT_TRAIN, 3, pixels, NULL, &err), TRN_ERR_FORMAT, err,
                     "sample 'cut': opening 'cut.hdf5': truncated file");
    assert_trn_fails(trn_dataset_read(dataset, TRN_SPLIT_TRAIN, 4, pixels, NULL, &err), TRN_ERR_FORMAT, err,
                     "sample 'none': opening");
    assert_int_equal(unlink(cut), 0);
    assert_trn_fails(trn_dataset_read(dataset, TRN_SPLIT_TRAIN, 3, pixels, NULL, &err), TRN_ERR_IO, err,
                     "sample 'cut': the file is missing");
    /* what another user of libhdf5 has set is as before */
    H5E_auto2_t report;
    void *data;
    H5Eget_auto2(H5E_DEFAULT, &report, &data);
    assert_true(report != NULL);
    trn_dataset_close(dataset);
    free(cut);
    free(none);
    free(dir);
}

static void pickles_are_only_searched(void **state)
{
    (void)state;
    static const struct {
        const char *repr;
        int label; /* -1: refused */
        const char *says;
    } cases[] = {
        {"b'\\x80\\x04}\\x94(\\x8c\\x05label\\x94K\\x02u.'", 2, NULL},
        {"b\"\\x80\\x04}\\x94(\\x8c\\x05label\\x94M\\x03\\x00u.\"", 3, NULL},
        {"b'\\x80\\x02}q\\x00(X\\x05\\x00\\x00\\x00labelq\\x01J\\x01\\x00\\x00\\x00u.'", 1, NULL},
        {"b'(\\x8c\\x05label\\x94K\\t'", -1, "its class is 9: classes are 0 to 3"},
        {"b'(\\x8c\\x05label\\x94J\\xff\\xff\\xff\\xff'", -1, "its class is -1"},
        {"b'(\\x8c\\x05label\\x94}\\x94'", -1, "holds no class"},
        {"b'(\\x8c\\x05label\\x94M\\x01'", -1, "holds no class"},
        {"b'(\\x8c\\x05label'", -1, "holds no class"},
        {"b'cos\\nsystem\\n(S\"x\"\\ntR.'", -1, "holds no class"},
        {"b'\\x8'", -1, "is not the text of a byte string"},
        {"b'\\q'", -1, "is not the text of a byte string"},
        {"b'abc\\'", -1, "is not the text of a byte string"},
        {"b'abc", -1, "is not the text of a byte string"},
        {"", -1, "is not the text of a byte string"},
        {NULL, -1, "there is no attribute 'pickle'"},
    };
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        char *dir = make_folder(), *map = test_path(dir, "label_map.json");
        unlink(map);
        free(map);
        hid_t file = create_sample(dir, "a");
        add_plane(file, "Red", H5T_NATIVE_FLOAT, 2, 2, four);
        if (cases[i].repr) add_pickle(file, cases[i].repr);
        H5Fclose(file);
        trn_error err = {0};
        trn_dataset *dataset;
        assert_trn_ok(trn_dataset_open(dir, &(trn_dataset_options){.class_count = 4}, &dataset, &err), err);
        int32_t label = -9;
        trn_status status = trn_dataset_read(dataset, TRN_SPLIT_TRAIN, 0, NULL, &label, &err);
        if (cases[i].label < 0) {
            assert_trn_fails(status, TRN_ERR_FORMAT, err, cases[i].says);
        } else {
            assert_trn_ok(status, err);
            assert_int_equal(label, cases[i].label);
        }
        trn_dataset_close(dataset);
        free(dir);
    }
}

static bool write_bytes(const char *path, const char *bytes, size_t size)
{
    FILE *file = fopen(path, "wb"); /* not trn_write_file, which waits for the disk */
    if (!file) return false;
    bool written = fwrite(bytes, 1, size, file) == size;
    return fclose(file) == 0 && written;
}

/* Every byte of sample "a" of the folder replaced, one at a time, in a process that does nothing else with
 * libhdf5: what it says at its end is seen by who runs it. Returns the process's exit status. */
static int read_damaged(const char *dir)
{
    char *path = test_path(dir, "a.hdf5");
    size_t size = 0, refused = 0;
    trn_error err = {0};
    char *bytes = trn_read_file(path, 1 << 20, &size, &err);
    bool written = bytes != NULL;
    for (size_t i = 0; i < size && written; i++) {
        static const char values[] = {0, 1, 0x7f, -1};
        char kept = bytes[i];
        bytes[i] = kept == values[i % 4] ? 2 : values[i % 4];
        written = write_bytes(path, bytes, size);
        trn_dataset *dataset = NULL;
        float pixels[4];
        trn_dataset_options options = {.height = 2, .width = 2, .has_fill = true};
        trn_status status = trn_dataset_open(dir, &options, &dataset, &err);
        if (status == TRN_OK) status = trn_dataset_read(dataset, TRN_SPLIT_TRAIN, 0, pixels, NULL, &err);
        refused += status != TRN_OK;
        trn_dataset_close(dataset);
        bytes[i] = kept;
    }
    free(bytes);
    free(path);
    return written && refused > 50 && refused < size ? 0 : 1;
}

/* An error or numbers, never a crash, and not a word when the program ends. */
static void damaged_samples_do_no_harm(void **state)
{
    (void)state;
    char *dir = make_folder(), self[4096], *output;
    hid_t file = create_sample(dir, "a");
    add_plane(file, "Red", H5T_NATIVE_FLOAT, 2, 2, four);
    H5Fclose(file);
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(length > 0);
    self[length] = 0;
    trn_text command = {0};
    trn_text_printf(&command, "'%s' '%s'", self, dir);
    int status = test_run(trn_text_get(&command), &output);
    assert_string_equal(output, "");
    assert_int_equal(status, 0);
    trn_text_free(&command);
    free(output);
    free(dir);
}

/* ---- folders of images ---- */

static void write_image(const char *dir, const char *name)
{
    static const uint8_t grey[] = {/* a PNG of 2 x 2 grey pixels */
                                   137, 80, 78,  71,  13, 10, 26, 10,  0,  0,   0,   13,  73,  72,  68,
                                   82,  0,  0,   0,   2,  0,  0,  0,   2,  8,   0,   0,   0,   0,   87,
                                   221, 82, 248, 0,   0,  0,  14, 73,  68, 65,  84,  120, 156, 99,  16,
                                   80,  96, 48,  112, 0,  0,  1,  118, 0,  161, 236, 48,  138, 244, 0,
                                   0,   0,  0,   73,  69, 78, 68, 174, 66, 96,  130};
    trn_error err = {0};
    char *path = test_path(dir, name);
    assert_trn_ok(trn_write_file(path, grey, sizeof grey, &err), err);
    free(path);
}

static void tables_that_are_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        trn_status code;
        const char *says;
    } cases[] = {
        {"", TRN_ERR_FORMAT, "it is empty"},
        {"path,split\n", TRN_ERR_FORMAT, "needs the columns"},
        {"path,label,split\n", TRN_ERR_FORMAT, "has no samples"},
        {"path,label,split\na.png,0\n", TRN_ERR_FORMAT, "line 2 has 2 fields"},
        {"path,label,split\na.png,x,train\n", TRN_ERR_FORMAT, "line 2: label 'x'"},
        {"path,label,split\na.png,-1,train\n", TRN_ERR_FORMAT, "line 2: label '-1'"},
        {"path,label,split\na.png,70000,train\n", TRN_ERR_FORMAT, "line 2: label '70000'"},
        {"path,label,split\na.png,0,training\n", TRN_ERR_FORMAT, "line 2: split 'training'"},
        {"path,label,split\n../a.png,0,train\n", TRN_ERR_FORMAT, "'../a.png' leaves the folder"},
        {"path,label,split\nx/../../a.png,0,train\n", TRN_ERR_FORMAT, "leaves the folder"},
        {"path,label,split\n/etc/passwd,0,train\n", TRN_ERR_FORMAT, "leaves the folder"},
        {"path,label,split\nb.png,0,train\n", TRN_ERR_IO, "line 2: 'b.png' is missing"},
        {"path,label,split\n\r\na.png,2,train\n", TRN_ERR_FORMAT, "no image is of class 0"},
        {"path,label,class,split\na.png,0,x,train\na.png,0,y,test\n", TRN_ERR_FORMAT,
         "line 3: class 0 is 'y' here"},
        {"path,label,class,split\na.png,0,x,train\na.png,1,x,test\n", TRN_ERR_FORMAT,
         "classes 0 and 1 are both 'x'"},
        {"path,class,split\na.png,,train\n", TRN_ERR_FORMAT, "line 2 has no class"},
        {"path,class,split\n\"a.png,x,train\n", TRN_ERR_FORMAT, "does not end"},
        {"path,class,split\ncut.jpg,x,train\n", TRN_ERR_FORMAT, "cut.jpg"},
    };
    char *dir = strdup(test_temp_dir());
    write_image(dir, "a.png");
    write_text(dir, "cut.jpg", "\xff\xd8\xff\xe0");
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        write_text(dir, "split.csv", cases[i].text);
        open_fails(dir, NULL, cases[i].code, cases[i].says);
    }
    write_text(dir, "split.csv",
               "\xef\xbb\xbfsplit,class,path,note\r\nval,\"b, the \"\"second\"\"\",a.png,\r\n"
               "train,a,\"a.png\",x\r\n");
    trn_error err = {0};
    trn_dataset *dataset;
    assert_trn_ok(trn_dataset_open(dir, NULL, &dataset, &err), err);
    const trn_dataset_info *info = trn_dataset_get_info(dataset);
    assert_int_equal(info->class_count, 2);
    assert_string_equal(info->class_names[1], "b, the \"second\"");
    assert_int_equal(info->samples[TRN_SPLIT_VALID], 1);
    int32_t label;
    float pixels[4];
    assert_trn_ok(trn_dataset_read(dataset, TRN_SPLIT_VALID, 0, pixels, &label, &err), err);
    assert_int_equal(label, 1);
    assert_true(pixels[0] == 16 && pixels[3] == 64);
    trn_dataset_close(dataset);
    free(dir);
}

static void truncated_images_are_named(void **state)
{
    (void)state;
    char *from = test_shared_data("eurosat-rgb/Forest");
    if (!from) skip();
    char *dir = strdup(test_temp_dir()), **names;
    size_t count, size;
    trn_error err = {0};
    assert_trn_ok(trn_list_dir(from, &names, &count, &err), err);
    char *path = test_path(from, names[0]), *bytes = trn_read_file(path, 1 << 20, &size, &err);
    char *whole = test_path(dir, "whole.jpg"), *cut = test_path(dir, "cut.jpg");
    assert_trn_ok(trn_write_file(whole, bytes, size, &err), err);
    assert_trn_ok(trn_write_file(cut, bytes, size / 2, &err), err);
    write_text(dir, "split.csv", "path,label,split\nwhole.jpg,0,train\ncut.jpg,0,train\n");
    trn_dataset *dataset;
    assert_trn_ok(trn_dataset_open(dir, NULL, &dataset, &err), err);
    float *pixels = calloc(3 * 64 * 64, sizeof *pixels);
    assert_trn_ok(trn_dataset_read(dataset, TRN_SPLIT_TRAIN, 0, pixels, NULL, &err), err);
    assert_trn_fails(trn_dataset_read(dataset, TRN_SPLIT_TRAIN, 1, pixels, NULL, &err), TRN_ERR_FORMAT, err,
                     "train sample 'cut.jpg'");
    trn_dataset_close(dataset);
    trn_names_free(names, count);
    free(pixels);
    free(bytes);
    free(path);
    free(whole);
    free(cut);
    free(from);
    free(dir);
}

/* Files of their own size or bands, after a first image that sets them. */
static void images_that_differ_are_named(void **state)
{
    (void)state;
    static const test_raster rasters[] = {{4, 4, 2, TEST_RASTER_U8, NULL, 0, NULL},
                                          {5, 4, 2, TEST_RASTER_U8, NULL, 0, NULL},
                                          {4, 4, 1, TEST_RASTER_U8, NULL, 0, NULL}};
    static const char *const names[] = {"first.tif", "wide.tif", "grey.tif"};
    char *dir = strdup(test_temp_dir());
    for (size_t i = 0; i < TRN_COUNT(names); i++) {
        char *path = test_path(dir, names[i]);
        test_raster_write(path, &rasters[i]);
        free(path);
    }
    write_text(dir, "split.csv", "path,label,split\nfirst.tif,0,train\nwide.tif,1,train\ngrey.tif,0,valid\n");
    trn_error err = {0};
    trn_dataset *dataset;
    assert_trn_ok(trn_dataset_open(dir, NULL, &dataset, &err), err);
    float pixels[2 * 5 * 4];
    assert_trn_ok(trn_dataset_read(dataset, TRN_SPLIT_TRAIN, 0, pixels, NULL, &err), err);
    assert_trn_fails(trn_dataset_read(dataset, TRN_SPLIT_TRAIN, 1, pixels, NULL, &err), TRN_ERR_FORMAT, err,
                     "train sample 'wide.tif': it has 4 x 5 pixels, the first sample 4 x 4");
    assert_trn_fails(trn_dataset_read(dataset, TRN_SPLIT_VALID, 0, pixels, NULL, &err), TRN_ERR_FORMAT, err,
                     "valid sample 'grey.tif': it has 1 bands and no '2'");
    assert_trn_fails(trn_dataset_check_split(dataset, TRN_SPLIT_VALID, NULL, &err), TRN_ERR_FORMAT, err,
                     "has no sample of class 1 (1) in split valid");
    assert_trn_fails(trn_dataset_check_split(dataset, TRN_SPLIT_TEST, NULL, &err), TRN_ERR_FORMAT, err,
                     "has no samples in split test");
    trn_dataset_close(dataset);
    free(dir);
}

/* Whatever happened, nothing of libhdf5's is open. (Damaged files may leave memory of its own behind.) */
static int nothing_is_open(void **state)
{
    (void)state;
    return H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL) != 0;
}

int main(int argc, char **argv)
{
    if (argc == 2) return read_damaged(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_that_is_wrong),
        cmocka_unit_test(samples_that_are_wrong),
        cmocka_unit_test(missing_pixels_are_filled_on_request),
        cmocka_unit_test(later_samples_differ),
        cmocka_unit_test(pickles_are_only_searched),
        cmocka_unit_test(damaged_samples_do_no_harm),
        cmocka_unit_test(tables_that_are_wrong),
        cmocka_unit_test(truncated_images_are_named),
        cmocka_unit_test(images_that_differ_are_named),
    };
    return cmocka_run_group_tests_name("data_hostile", tests, NULL, nothing_is_open);
}
