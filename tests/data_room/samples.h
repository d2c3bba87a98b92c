/* Small datasets that the tests of data write: HDF5 samples as GEO-Bench has them, JSON beside them. */
#ifndef TEST_DATA_SAMPLES_H
#define TEST_DATA_SAMPLES_H

#include "test_support.h"
#include "test_geobench.h"
#include "data.h"

#include <hdf5.h>
#include <stdlib.h>
#include <string.h>

static inline void write_text(const char *dir, const char *name, const char *text)
{
    trn_error err = {0};
    char *path = test_path(dir, name);
    assert_trn_ok(trn_write_file(path, text, strlen(text), &err), err);
    free(path);
}

static inline hid_t create_sample(const char *dir, const char *id)
{
    char name[300];
    snprintf(name, sizeof name, "%s.hdf5", id);
    char *path = test_path(dir, name);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    free(path);
    return file;
}

/* One plane; data is of memory type `type` and is stored as it. */
static inline void add_plane(hid_t file, const char *name, hid_t type, int height, int width,
                             const void *data)
{
    hsize_t sides[2] = {(hsize_t)height, (hsize_t)width};
    hid_t space = H5Screate_simple(2, sides, NULL);
    hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(set >= 0);
    if (data) assert_true(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(set);
    H5Sclose(space);
}

static inline void add_pickle(hid_t file, const char *repr)
{
    hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    hid_t attribute = H5Acreate2(file, "pickle", type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(attribute >= 0 && H5Awrite(attribute, type, &repr) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
}

/* What pixel (y, x) of band b of sample `index` holds in the datasets below. */
static inline float sample_value(size_t index, size_t b, int y, int x)
{
    return (float)(1000 * index + 100 * b) + (float)(10 * y + x);
}

enum { TOY_HEIGHT = 5, TOY_WIDTH = 6, TOY_BANDS = 3 };

/* Sample `index` with bands "02 - Blue", "03 - Green", "05 - Vegetation Red Edge" of int16, float32, float64.
 */
static inline hid_t create_toy(const char *dir, size_t index)
{
    char id[32];
    snprintf(id, sizeof id, "id_%04zu", index);
    hid_t file = create_sample(dir, id);
    int16_t first[TOY_HEIGHT * TOY_WIDTH];
    float second[TOY_HEIGHT * TOY_WIDTH];
    double third[TOY_HEIGHT * TOY_WIDTH];
    for (int i = 0; i < TOY_HEIGHT * TOY_WIDTH; i++) {
        first[i] = (int16_t)sample_value(index, 0, i / TOY_WIDTH, i % TOY_WIDTH);
        second[i] = sample_value(index, 1, i / TOY_WIDTH, i % TOY_WIDTH);
        third[i] = sample_value(index, 2, i / TOY_WIDTH, i % TOY_WIDTH);
    }
    add_plane(file, "02 - Blue", H5T_NATIVE_INT16, TOY_HEIGHT, TOY_WIDTH, first);
    add_plane(file, "03 - Green", H5T_NATIVE_FLOAT, TOY_HEIGHT, TOY_WIDTH, second);
    add_plane(file, "05 - Vegetation Red Edge", H5T_NATIVE_DOUBLE, TOY_HEIGHT, TOY_WIDTH, third);
    return file;
}

/* A classification of `count` samples, all in train, the first in test, too; sample i is of class i % 3. */
static inline void write_toy(const char *dir, size_t count)
{
    trn_text train = {0}, map = {0};
    for (size_t i = 0; i < count; i++) {
        H5Fclose(create_toy(dir, i));
        trn_text_printf(&train, "%s\"id_%04zu\"", i ? "," : "", i);
    }
    trn_text_printf(&map, "{");
    for (size_t c = 3; c-- > 0;) { /* the keys' order is not the classes' */
        trn_text_printf(&map, "%s\"%zu\": [", c == 2 ? "" : ",", c);
        for (size_t i = c; i < count; i += 3)
            trn_text_printf(&map, "%s\"id_%04zu\"", i == c ? "" : ",", i);
        trn_text_printf(&map, "]");
    }
    trn_text_printf(&map, "}");
    trn_text json = {0};
    trn_text_printf(&json, "{\"train\": [%s], \"valid\": [], \"test\": [\"id_0000\"]}", trn_text_get(&train));
    write_text(dir, "default_partition.json", trn_text_get(&json));
    write_text(dir, "label_map.json", trn_text_get(&map));
    trn_text_free(&json);
    trn_text_free(&train);
    trn_text_free(&map);
}

#endif
