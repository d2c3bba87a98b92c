/* data: labelled samples for training and evaluation. GEO-Bench task folders (HDF5), folders of images with a
 * split.csv, a scene with a raster of labels; seeded orders and subsets; transforms on the host; statistics
 * of a split; batches read ahead. */
#ifndef TRN_DATA_H
#define TRN_DATA_H

#include "base.h"
#include "bands.h"
#include "raster.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- datasets ---- */

typedef enum trn_task {
    TRN_TASK_CLASSIFICATION, /* one class of a sample */
    TRN_TASK_MULTILABEL,     /* each class holds or not */
    TRN_TASK_SEGMENTATION,   /* one class of a pixel */
} trn_task;
const char *trn_task_name(trn_task task); /* "classification", "multi-label classification", "segmentation" */

typedef enum trn_split { TRN_SPLIT_TRAIN, TRN_SPLIT_VALID, TRN_SPLIT_TEST, TRN_SPLIT_COUNT } trn_split;
const char *trn_split_name(trn_split split); /* "train", "valid", "test" */
/* "train"; "valid", "val" or "validation"; "test". False for any other text. */
bool trn_split_parse(const char *name, trn_split *out);

enum { TRN_LABEL_IGNORE = -1 }; /* a pixel of a mask that does not count */

typedef struct trn_data_band {
    const char *stored;   /* what the files call it, without a date: "08A - Vegetation Red Edge" */
    const char *name;     /* the sensor's name when it is known ("B8A"), else as stored */
    const char *common;   /* "nir08"; NULL when it has none */
    double wavelength_um; /* 0 when it has none */
} trn_data_band;

typedef struct trn_dataset_info {
    const char *name; /* of the folder, or what options->name says */
    trn_task task;
    size_t class_count;
    const char *const *class_names; /* [class_count]; the class's number when nothing names it */
    size_t band_count;
    const trn_data_band *bands;
    int height, width; /* of every sample */
    size_t samples[TRN_SPLIT_COUNT];
    size_t label_count;       /* labels of a sample: 1, class_count, or height * width */
    size_t missing;           /* samples that are listed and have no file (options->skip_missing) */
    bool corrected_bands;     /* bands have other names than the files say: see trn_dataset_options */
    const trn_sensor *sensor; /* whose names the bands have; NULL when they have none */
} trn_dataset_info;

typedef struct trn_dataset_options {
    const char *name; /* what to take the folder for ("m-eurosat"); NULL: its own name */
    const char
        *partition; /* GEO-Bench: NULL or "default", or "0.01x_train" ...: <partition>_partition.json */
    /* Bands to read, in this order, by stored name, name or common name; NULL: all, in the order of the
     * stored names. */
    const char *const *bands;
    size_t band_count;
    /* Two sets of GEO-Bench hold bands under wrong names. m-eurosat: what follows "08 - NIR" is shifted (8A
     * holds B09, 09 holds B10, 10 holds B11, 11 holds B12, 12 holds B8A). m-brick-kiln: the 13 are B01..B05,
     * B07, B8A, B08, B11, B12 and three bytes of a true-colour image. `name`, `common` and `wavelength_um`
     * say what the pixels are unless this is set; then they repeat the files' error. The order of the bands
     * is the same either way, and selecting by stored name, too. */
    bool bands_as_stored;
    int date;          /* of samples with several dates: 1 is the earliest; 0: more than one is an error */
    int height, width; /* samples of another size are resized, bilinear with a filter widened when it
                        * makes smaller; 0: as the first sample, others are an error */
    bool skip_missing; /* leave out samples whose file is missing; otherwise they are an error */
    bool has_fill;     /* pixels without data or with no finite number become `fill`; otherwise an error */
    float fill;
    bool has_ignore; /* this value of a mask becomes TRN_LABEL_IGNORE */
    int ignore;
    size_t class_count;             /* for GEO-Bench folders that do not say; 0: known or found */
    const char *const *class_names; /* [class_count], or NULL */
    const trn_sensor *sensor;       /* of image folders; NULL: by the files */
} trn_dataset_options;

/* Thread-safety: after it is opened any number of threads may use a dataset. */
typedef struct trn_dataset trn_dataset;

/* Opens a folder: one with <partition>_partition.json is a GEO-Bench task, one with split.csv an image
 * folder.
 *
 * GEO-Bench: <sample>.hdf5 with one two-dimensional dataset for each band (three-dimensional ones are left
 * out, with a warning), label_map.json (classes), label_stats.json (multi-label), or a dataset "label" in
 * each sample (segmentation). A sample's pickle is never executed; when label_map.json is missing, the class
 * is read out of its bytes. HDF5 files that point to other files, or that need filters other than deflate,
 * shuffle and Fletcher's checksum, are refused.
 *
 * split.csv: a header line, then a line for each image, with the columns path (relative, inside the folder),
 * split, and class or label or both; other columns are passed over. Without labels classes are numbered in
 * the order of their names. For segmentation the columns are path, split and mask, the path of an image of
 * one band and of the size of its image, whose numbers are classes; nodata becomes TRN_LABEL_IGNORE. Masks
 * are looked through for their classes unless options->class_count says how many there are; of those from 0
 * to the highest only the one that is ignored may be left out.
 *
 * TRN_ERR_FORMAT: names the file and the line or sample. Every class from 0 to the last must be there, and
 * one split at least must have samples. */
trn_status trn_dataset_open(const char *folder, const trn_dataset_options *options, trn_dataset **out,
                            trn_error *err);
/* How a scene is cut into samples. Zero-initialise. */
typedef struct trn_chip_options {
    int chip; /* pixels of a side; 0: 64. What is left at the right and bottom edge is not used */
    /* A split gets whole blocks of block x block chips (0: 4), drawn by seed, so that few chips have a
     * neighbour in another split. Shares of the blocks that have labels; 0: 0.2; below 0: none. */
    int block;
    double valid, test;
    uint64_t seed;
} trn_chip_options;

/* A scene and a raster of labels on its grid as a segmentation dataset. paths [count]: as trn_scene_open
 * takes them; labels: one band of integers, in which nodata, and what options says, is TRN_LABEL_IGNORE. A
 * chip without any label is left out; the others are named by their first pixel, "x128_y64". Of the options
 * partition, date, bands_as_stored and skip_missing do not matter. The raster is read once, for its classes.
 *
 * TRN_ERR_ARGUMENT: the raster has another size or georeference than the scene (names both), or there are
 * fewer blocks with labels than splits to fill. TRN_ERR_FORMAT: a label is no integer or no class (names file
 * and pixel), or of the classes that are found one is left out. */
trn_status trn_dataset_open_scene(const char *const *paths, size_t count, const char *labels,
                                  const trn_chip_options *chips, const trn_dataset_options *options,
                                  trn_dataset **out, trn_error *err);
void trn_dataset_close(trn_dataset *dataset); /* NULL is fine */
const trn_dataset_info *trn_dataset_get_info(const trn_dataset *dataset);
/* The sample's name: "id_0000", or the image's path in its folder. NULL when there is no such sample. */
const char *trn_dataset_sample_name(const trn_dataset *dataset, trn_split split, size_t index);
/* Adds to a hash all that decides what is read of a split: bands, size and options, and of each sample
 * (samples: indices; NULL: all) its name, label, and the sizes and times of change of its files, mask and
 * scene included. Where the folder lies does not matter. TRN_ERR_IO: a file is missing. */
trn_status trn_dataset_identify(const trn_dataset *dataset, trn_split split, const size_t *samples,
                                size_t count, trn_sha256_state *hash, trn_error *err);

/* Reads sample `index` of a split: pixels [bands, height, width] as the file holds them (images: as
 * trn_scene_read gives them) and labels [label_count]: the class; 0 or 1 for each class; or a mask [height,
 * width]. Either may be NULL. Resized samples: pixels bilinear, masks by the nearest pixel. Errors name file,
 * sample and band. */
trn_status trn_dataset_read(const trn_dataset *dataset, trn_split split, size_t index, float *pixels,
                            int32_t *labels, trn_error *err);

/* How often each class occurs in a split, counts [class_count]: samples, or pixels of masks. Reads what it
 * must. */
trn_status trn_dataset_class_counts(const trn_dataset *dataset, trn_split split, const trn_progress *progress,
                                    uint64_t *counts, trn_error *err);
/* TRN_ERR_FORMAT when the split has no samples, or none of a class (but the one that is ignored): what
 * training on it would stumble over. */
trn_status trn_dataset_check_split(const trn_dataset *dataset, trn_split split, const trn_progress *progress,
                                   trn_error *err);

/* ---- order ---- */

/* The order of `count` samples in an epoch: a Fisher-Yates shuffle, the same on every machine. order [count].
 */
void trn_data_shuffle(uint64_t seed, uint64_t epoch, size_t count, size_t *order);
/* A subset of `keep` out of `count` samples, ascending: the first `keep` of the order of epoch 0, so that a
 * smaller subset of the same seed is part of a larger one. chosen [keep]. */
trn_status trn_data_subset(uint64_t seed, size_t count, size_t keep, size_t *chosen, trn_error *err);

/* ---- statistics ---- */

typedef struct trn_band_statistics {
    double mean, std; /* std of the whole population */
    double min, max;
    uint64_t count; /* of values; 0 when not known */
} trn_band_statistics;

/* Of the pixels of a split's samples, statistics [band_count], one pass, one sample in memory. limit: at most
 * so many samples, evenly spaced; 0: all. */
trn_status trn_dataset_statistics(const trn_dataset *dataset, trn_split split, size_t limit,
                                  const trn_progress *progress, trn_band_statistics *statistics,
                                  trn_error *err);
/* What GEO-Bench's band_stats.json says of the bands. TRN_ERR_UNSUPPORTED when the dataset has no such file.
 */
trn_status trn_dataset_published_statistics(const trn_dataset *dataset, trn_band_statistics *statistics,
                                            trn_error *err);

/* The values below which lie `low` and `high` percent of a split's pixels, ranges [band_count], between
 * neighbours interpolated. Exact up to 2^20 values of a band; of more, so many that are spread evenly. limit:
 * as above. */
typedef struct trn_band_range {
    double low, high;
} trn_band_range;
trn_status trn_dataset_percentiles(const trn_dataset *dataset, trn_split split, double low, double high,
                                   size_t limit, const trn_progress *progress, trn_band_range *ranges,
                                   trn_error *err);

/* ---- transforms ---- */

/* What happens to a sample, in this order. Zero-initialise: nothing happens. Masks are resized by the nearest
 * pixel and move with the image. */
typedef struct trn_transform {
    int resize_height, resize_width; /* bilinear, pixel centres aligned, edges repeated; 0: no resize */
    bool antialias;                  /* widen the filter when it makes smaller */
    int crop_height, crop_width;     /* 0: no crop */
    bool random_crop;                /* anywhere; otherwise in the middle */
    double flip_x, flip_y;           /* probability of a mirror image: left to right, top to bottom */
    bool rotate;                     /* by 0, 90, 180 or 270 degrees, equally likely; needs squares */
    /* [bands]: low to high becomes 0 to 1, clamped; where they are equal 0. NULL: none */
    const trn_band_range *stretch;
    const trn_band_statistics *normalize; /* [bands]: (x - mean) / std, std 0 counts as 1; NULL: none */
} trn_transform;

/* Size of what comes out for samples of height x width; TRN_ERR_ARGUMENT when the transform cannot be done.
 */
trn_status trn_transform_size(const trn_transform *transform, int height, int width, int *out_height,
                              int *out_width, trn_error *err);
/* pixels [bands, height, width] -> out [bands, out_height, out_width]; mask [height, width] -> out_mask, both
 * NULL when there is none. What is left to chance depends on (seed, epoch, sample) alone. */
trn_status trn_transform_apply(const trn_transform *transform, uint64_t seed, uint64_t epoch, uint64_t sample,
                               size_t bands, int height, int width, const float *pixels, const int32_t *mask,
                               float *out, int32_t *out_mask, trn_error *err);

/* ---- batches ---- */

typedef struct trn_batches_options {
    trn_split split;
    int batch;             /* samples of a batch, at least 1 */
    const size_t *samples; /* indices into the split, copied; NULL: all of it */
    size_t sample_count;
    bool shuffle;   /* trn_data_shuffle with seed and epoch; otherwise in order */
    bool drop_last; /* leave out a last batch that is not full */
    uint64_t seed;
    int threads;                  /* 0: as many as there are processors, 8 at most */
    int queue;                    /* batches read ahead, 0: 2 */
    trn_transform transform;      /* what stretch and normalize point to is copied */
    const trn_progress *progress; /* its `cancelled` is asked before every sample, one call at a
                                   * time; it may not call back here. May be NULL */
} trn_batches_options;

typedef struct trn_batch {
    size_t count; /* samples in it; 0: the epoch is over */
    size_t bands, height, width;
    size_t label_count;    /* of a sample: 1, class_count, or height * width */
    const float *pixels;   /* [count, bands, height, width] */
    const int32_t *labels; /* [count, label_count] */
    const size_t *samples; /* [count] indices into the split */
} trn_batch;

/* Reads batches ahead on threads of its own. What comes out does not depend on their number. Thread-safety:
 * one thread takes batches; any may cancel. The dataset must stay open. */
typedef struct trn_batches trn_batches;
trn_status trn_batches_open(const trn_dataset *dataset, const trn_batches_options *options, trn_batches **out,
                            trn_error *err);
size_t trn_batches_count(const trn_batches *batches); /* of an epoch */
/* Begins an epoch; what was read ahead of another is dropped. Needed before the first batch. */
trn_status trn_batches_start(trn_batches *batches, uint64_t epoch, trn_error *err);
/* The same, beginning with batch `first` of the epoch; nothing before it is read. */
trn_status trn_batches_start_at(trn_batches *batches, uint64_t epoch, size_t first, trn_error *err);
/* The next batch of the epoch; valid until the next call with these batches. A sample that cannot be read
 * fails the call that would return its batch, and all after it until a new epoch begins. */
trn_status trn_batches_next(trn_batches *batches, trn_batch *out, trn_error *err);
/* Waits up to `milliseconds` until the next batch is there: whether trn_batches_next would answer at once. */
bool trn_batches_wait(trn_batches *batches, int milliseconds);
/* Makes trn_batches_next return TRN_ERR_CANCELLED, also one that waits, until a new epoch begins. */
void trn_batches_cancel(trn_batches *batches);
void trn_batches_close(trn_batches *batches); /* NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
