/* What the files of data share: a dataset's samples, and how one is read from each kind of folder. */
#ifndef TRN_DATA_PRIVATE_H
#define TRN_DATA_PRIVATE_H

#include "data.h"

#include <cjson/cJSON.h>

enum {
    DATA_MAX_SIDE = 16384,
    DATA_MAX_PIXELS = 1 << 26, /* of one band of one sample */
    DATA_MAX_CLASSES = 65536,
    DATA_MAX_BANDS = 4096,
    DATA_MAX_JSON = 1 << 28,
    DATA_MAX_SAMPLES = 1 << 26,
    DATA_MASK_MISSING = INT32_MIN, /* a pixel of a mask without data, until data_check_mask */
};

typedef struct data_sample {
    const char *name;      /* without folder and ".hdf5", or the path in the folder of images */
    int32_t label;         /* -1: it is in the file */
    const uint8_t *labels; /* multi-label: [class_count]; else NULL */
    const char *mask;      /* path of it in the folder of images; else NULL */
    int64_t x, y;          /* first pixel in its scene; else 0 */
} data_sample;

/* One sample at its own size, malloc'd. */
typedef struct data_image {
    int height, width;
    float *pixels; /* [bands, height, width], or NULL when not wanted */
    int32_t *mask; /* [height, width], or NULL */
    int32_t label; /* of a classification */
} data_image;
void data_image_free(data_image *image);

typedef struct data_wanted {
    bool pixels, labels;
} data_wanted;

/* How a kind of folder is read: fills image with what is wanted. The error needs to name no sample. */
typedef trn_status (*data_read)(const trn_dataset *dataset, const data_sample *sample, data_wanted wanted,
                                data_image *image, trn_error *err);

struct trn_dataset {
    trn_arena *arena;
    trn_dataset_info info;
    trn_data_band *bands; /* info.bands */
    data_sample *samples[TRN_SPLIT_COUNT];
    const char *folder;
    data_read read;
    int *scene_bands;         /* of images and scenes: index of each band in the scene */
    struct data_chips *chips; /* of scenes, else NULL */
    int date;
    bool resizes, has_fill, has_ignore;
    float fill;
    int ignore;
    const trn_sensor *sensor;
    bool label_in_pickle;
};

/* dataset.c */
/* A dataset with what the options say and nothing in it; named after the last part of path. NULL with err
 * set. */
trn_dataset *data_create(const char *path, const trn_dataset_options *options, trn_error *err);
/* malloc'd path of a file of the dataset's folder; NULL with err set. */
char *data_path(const trn_dataset *dataset, const char *name, const char *suffix, trn_error *err);
/* A file name that stays in its folder: no '/', not empty, not beginning with '.'. */
bool data_is_plain_name(const char *name);
/* Pixels of a size that memory is made for; says what is wrong with it. */
trn_status data_check_size(uint64_t height, uint64_t width, const char *what, trn_error *err);
/* Keeps of dataset->bands [band_count] those that the options name; from [kept] gets where each was. */
trn_status data_select_bands(trn_dataset *dataset, const trn_dataset_options *options, int **from,
                             trn_error *err);
/* Numbers for the names of classes that nothing names. */
trn_status data_name_classes(trn_dataset *dataset, const char *const *names, trn_error *err);
/* Sizes from the first sample that is there, or from the options. */
trn_status data_find_size(trn_dataset *dataset, const trn_dataset_options *options, trn_error *err);

/* geobench.c, folder.c: open a folder of their kind; dataset has arena, folder and the plain options. */
trn_status data_open_geobench(trn_dataset *dataset, const trn_dataset_options *options, trn_error *err);
trn_status data_open_images(trn_dataset *dataset, const trn_dataset_options *options, trn_error *err);

/* chips.c */
void data_chips_free(struct data_chips *chips); /* NULL is fine */
/* The raster of labels, then the files of the scene; NULL past the last. */
const char *data_chips_file(const struct data_chips *chips, size_t i);

/* image.c */
/* Bands of the dataset from a scene that holds them. */
trn_status data_name_bands(trn_dataset *dataset, const trn_scene_info *scene, trn_error *err);
/* Fill image->pixels or image->mask, image->height x image->width from (x, y) on. Pixels without data become
 * NAN and DATA_MASK_MISSING. */
trn_status data_read_window(const trn_dataset *dataset, trn_scene *scene, int64_t x, int64_t y,
                            data_image *image, trn_error *err);
trn_status data_read_labels(trn_scene *labels, int64_t x, int64_t y, data_image *image, trn_error *err);
/* One band on the grid of the image. need_place: also when one of them has no georeference. */
trn_status data_check_labels(const trn_scene_info *labels, const trn_scene_info *image, bool need_place,
                             trn_error *err);
/* What is missing or ignored becomes TRN_LABEL_IGNORE; all else must be a class (any number of them while
 * class_count is 0). (x, y): what to add to the place in messages. */
trn_status data_check_mask(const trn_dataset *dataset, int64_t x, int64_t y, data_image *image,
                           trn_error *err);
/* Whether no pixel can be of a class because its number is what is ignored: 0 in many rasters of labels. */
bool data_is_ignored(const trn_dataset *dataset, size_t class_index);
/* Marks the classes of a checked mask, seen [DATA_MAX_CLASSES]; returns how many pixels have a label. */
size_t data_note_classes(const data_image *image, uint8_t *seen);
/* class_count of the classes that were seen, unless it is known, and names (may be NULL). where: for
 * messages.
 */
trn_status data_settle_classes(trn_dataset *dataset, const char *where, const char *const *names,
                               const uint8_t *seen, trn_error *err);

/* json.c */
/* A whole JSON file; NULL with err set. cJSON_Delete. */
cJSON *data_json_read(const char *path, trn_error *err);
bool data_json_integer(const cJSON *item, int64_t low, int64_t high, int64_t *out);

/* csv.c: fields of the next line of a text in place; *text moves on. Fields may be quoted. */
typedef struct data_csv {
    char *text;
    size_t line; /* of the record read last, from 1 */
} data_csv;
/* False at the end of the text. TRN_ERR_FORMAT in *status for a line that is none. */
bool data_csv_next(data_csv *csv, char **fields, size_t capacity, size_t *count, trn_status *status,
                   trn_error *err);

/* pickle_label.c: the class in a sample's attribute "pickle", the repr of the bytes of a pickle. Nothing is
 * executed or built: the bytes are searched for the key "label" and the integer after it. */
trn_status data_pickle_label(const char *repr, size_t length, int64_t *label, trn_error *err);

/* resize.c: [planes, height, width] to [planes, out_height, out_width]. */
trn_status data_resize(const float *from, size_t planes, int height, int width, bool antialias, float *out,
                       int out_height, int out_width, trn_error *err);
void data_resize_nearest(const int32_t *from, int height, int width, int32_t *out, int out_height,
                         int out_width);

#endif
