/* job: runs a checked description of work: scenes through encoders to files. What a recipe and `terrane
 * embed` both become.
 */
#ifndef TRN_JOB_H
#define TRN_JOB_H

#include "base.h"
#include "bands.h"
#include "compose.h"
#include "data.h"
#include "export.h"
#include "gpu.h"
#include "learn.h"
#include "models.h"
#include "nn.h"
#include "raster.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct trn_job_encoder {
    const char *model;   /* registry name */
    const char *weights; /* path, or NULL */
    const char *wrapper; /* key of the weights in a checkpoint that holds several sets; NULL: recognised */
    const trn_setting *settings;
    size_t setting_count;
    const char *const *bands; /* scene bands (any spelling) this encoder may use; NULL: all */
    size_t band_count;
    trn_normalize normalize;
    trn_feature_pool pool;
    double weight;
    /* dense features as differences from those of a window of the scene's mean colour: takes out what the
     * encoder says of a cell's place in the window */
    bool remove_position;
    int date; /* which date of a series it sees, from 1; 0: the whole series */
    /* For encoders of display bytes over scenes of reflectance: the reflectance that becomes 255; values are
     * then held within 0..255. 0: none, and such a pair is an error. */
    double display;
} trn_job_encoder;

/* Either one scene (files that belong together) of one date or several, or a folder or list of images that
 * each give one vector. */
typedef struct trn_job_scene {
    const char *const *paths;
    size_t path_count;
    /* How many files each date of a series has, in order. NULL: a file whose bands are there already begins
     * the next date (trn_scene_split_dates). All dates must have the same bands on the same grid; a pixel is
     * valid when it is valid in all of them. */
    const size_t *date_files;
    size_t date_count;
    /* When each date was taken. NULL: the date in a file's name, else its TIFF tag DateTime, else unknown.
     * Images are of the date that the names of all of them say, if they do. */
    const trn_date *acquired;
    size_t acquired_count;
    /* Degrees, for all windows. Not given: by the georeference, where an encoder looks at the place. */
    bool has_location;
    double latitude, longitude;
    /* Every path is a scene of its own (a folder is always so), one row of the output each; dense members are
     * pooled by their mean. */
    bool each;
    const char *sensor;            /* built-in name, or NULL */
    const trn_sensor *custom;      /* defined by the recipe; wins over sensor */
    const char *const *band_names; /* names for the file's bands; NULL: from file or sensor */
    size_t band_name_count;
    bool has_scale; /* overrides the sensor's scale, offset and unit */
    double scale, offset;
    trn_unit unit;
    bool has_nodata;
    double nodata;
    /* images: side to which each is resized (bilinear) before encoding; 0: all must have one shape that suits
     * the encoders */
    int resize;
} trn_job_scene;

typedef struct trn_job_export {
    const char *path; /* relative to out_dir */
    trn_export_options options;
} trn_job_export;

/* Zero means the default. All pointers belong to the caller and live until the run is over. */
typedef struct trn_embed_job {
    const char *name; /* for result.json */
    trn_job_scene scene;
    const trn_job_encoder *encoders;
    size_t encoder_count;
    trn_compose_options compose;
    int tile; /* window side in pixels; 0: the encoders' natural one. Not for images: those have scene.resize
               */
    int overlap; /* pixels that neighbouring windows share; negative: an eighth of the tile (none for
                    tile_vectors) */
    int batch;   /* windows at once; 0: from free memory and device */
    uint64_t memory_limit;   /* device bytes that may be used; 0: what is free */
    trn_precision precision; /* how values lie in device memory */
    /* One pooled vector per window instead of dense features: a grid of one cell per window, tile - overlap
     * pixels wide and centred on its window. The members' pool says how (dense members count as mean). */
    bool tile_vectors;
    const trn_job_export *exports;
    size_t export_count;
    const char *out_dir;      /* created; NULL: "." */
    bool strict;              /* warnings about the input become errors */
    const char *result_extra; /* JSON object text put into result.json as "recipe" (parameters, recipe name),
                                 or NULL */
    bool no_result;           /* no result.json (the one-liner) */
} trn_embed_job;

typedef enum trn_job_part { TRN_JOB_WHOLE, TRN_JOB_SCENE, TRN_JOB_ENCODER, TRN_JOB_EXPORT } trn_job_part;

typedef struct trn_job_hooks {
    trn_progress progress;
    void (*note)(void *user, trn_log_level level, const char *text); /* load reports, warnings */
    /* Called once before a call fails, when a part of the description is at fault; index: which encoder or
     * export. So that a recipe can say which of its lines that is. */
    void (*blame)(void *user, trn_job_part part, size_t index);
    void *user;
    struct trn_tuner *tuner; /* when a job is explained: takes the graphs that it would run. May be NULL */
} trn_job_hooks;

/* A job fails with TRN_ERR_ARGUMENT when the description or the scene does not suit the encoders,
 * TRN_ERR_MEMORY when not even one window fits (the message says which tile would), TRN_ERR_CANCELLED when
 * hooks->progress.cancelled says so; then nothing is left under the final names. Notes are given on the
 * calling thread. hooks may be NULL. */

/* Checks everything that needs no device and no pixel: encoders, settings, weights files (headers), scene
 * headers, bands, tile sizes, output names. */
trn_status trn_embed_check(const trn_embed_job *job, const trn_job_hooks *hooks, trn_error *err);
/* What would run: input as it will be fed, operators, kernels, fusions, memory, estimated time. Nothing is
 * written. */
trn_status trn_embed_explain(const trn_embed_job *job, trn_gpu *gpu, const trn_job_hooks *hooks,
                             trn_text *out, trn_error *err);
typedef struct trn_embed_result {
    int64_t grid_width, grid_height, windows, images;
    int channels;
    double seconds, megapixels;
    char **files; /* written, malloc'd: trn_names_free */
    size_t file_count;
} trn_embed_result;
trn_status trn_embed_run(const trn_embed_job *job, trn_gpu *gpu, const trn_job_hooks *hooks,
                         trn_embed_result *result, trn_error *err);

void trn_embed_result_free(trn_embed_result *result);

/* ---- reconstruction: what a masked autoencoder makes of a window that is partly hidden ---- */

typedef struct trn_reconstruct_job {
    const char *name;        /* for result.json */
    trn_job_scene scene;     /* one scene of one date or several */
    trn_job_encoder encoder; /* with a decoder (trn_masked_create); pool, weight and position do not matter */
    int size;                /* side of the window in pixels; 0: the encoder's natural one */
    bool has_place;          /* column and row of the window's first pixel; else it is the scene's centre */
    int64_t x, y;
    double mask_ratio;      /* of the patches that are hidden; 0: 0.75 */
    uint64_t seed;          /* of the choice of patches */
    trn_job_export picture; /* a .png, relative to out_dir */
    const char *out_dir;    /* created; NULL: "." */
    uint64_t memory_limit;
    bool strict;
    const char *result_extra; /* as for trn_embed_job */
} trn_reconstruct_job;

typedef struct trn_reconstruct_result {
    double loss; /* of the hidden patches: trn_masked */
    int64_t x, y, patches, hidden;
    int size, dates;
    double seconds;
    char **files; /* written, malloc'd: trn_names_free; the picture, then result.json */
    size_t file_count;
} trn_reconstruct_result;

/* Hooks and errors as for jobs that embed; the encoder is encoder 0, the picture export 0. */
trn_status trn_reconstruct_check(const trn_reconstruct_job *job, const trn_job_hooks *hooks, trn_error *err);
trn_status trn_reconstruct_explain(const trn_reconstruct_job *job, trn_gpu *gpu, const trn_job_hooks *hooks,
                                   trn_text *out, trn_error *err);
/* Writes the picture and result.json. A row of the picture per date: the window, the window with its hidden
 * patches grey, and what was drawn of it with the visible patches as they were; red, green and blue (else the
 * first bands) in one stretch for all, pixels without data transparent. */
trn_status trn_reconstruct_run(const trn_reconstruct_job *job, trn_gpu *gpu, const trn_job_hooks *hooks,
                               trn_reconstruct_result *result, trn_error *err);
void trn_reconstruct_result_free(trn_reconstruct_result *result);

/* ---- learning: datasets, probes and training ---- */

/* A dataset and what its numbers mean. */
typedef struct trn_job_dataset {
    const char *path;         /* folder, or scene whose `labels` raster has the same grid */
    const char *labels;       /* NULL: the folder has them */
    const char *partition;    /* GEO-Bench; NULL: default */
    const char *const *bands; /* to read; NULL: all */
    size_t band_count;
    const char *sensor; /* built-in name, or NULL */
    const trn_sensor *custom;
    bool bands_as_stored, skip_missing; /* as in trn_dataset_options */
    bool has_scale; /* physical value = stored * scale + offset, in `unit`; else the sensor's */
    double scale, offset;
    trn_unit unit;
    bool has_fill, has_ignore;
    double fill;
    int ignore;
    int date;
    size_t class_count;
    const char *const *class_names; /* [class_count], or NULL */
    int chip;                       /* side of the squares that a scene with labels is cut into; 0: 64 */
    int block;                      /* how they are split: see trn_chip_options */
    double valid_share, test_share;
    int resize; /* side to which samples are resized; 0: as they are */
    bool antialias;
    size_t limit[TRN_SPLIT_COUNT]; /* at most so many samples of a split, chosen by seed; 0: all */
    /* of training samples */
    int crop; /* side of a random crop (evaluation: from the middle); 0: none */
    double flip_x, flip_y;
    bool rotate;
} trn_job_dataset;

typedef struct trn_job_probe {
    bool wanted;
    const char *name; /* under which its score is in result.json: "knn5" */
} trn_job_probe;
typedef struct trn_probe_job {
    const char *name;
    trn_job_dataset data;
    const trn_job_encoder *encoders; /* pooled; date and remove_position are errors */
    size_t encoder_count;
    trn_compose_options compose;
    trn_job_probe use_knn, use_linear, use_logistic;
    trn_knn_options knn;
    trn_linear_options linear;
    trn_logistic_options logistic;
    int batch;         /* 0: 32 */
    const char *cache; /* as in trn_feature_options */
    uint64_t seed;
    const char *out_dir;
    uint64_t memory_limit;
    bool strict;
    const char *result_extra;
} trn_probe_job;
typedef struct trn_probe_result {
    trn_probe_scores knn, linear, logistic;
    size_t samples[TRN_SPLIT_COUNT];
    int64_t channels;
    bool cached; /* no encoder ran */
    double seconds;
    char **files;
    size_t file_count;
} trn_probe_result;
/* Hooks and errors as for jobs that embed; the dataset is the scene. Writes result.json: the score of each
 * probe (test; without a test split valid), as a fraction, under "figures" and by its name at the top. */
trn_status trn_probe_check(const trn_probe_job *job, const trn_job_hooks *hooks, trn_error *err);
trn_status trn_probe_explain(const trn_probe_job *job, trn_gpu *gpu, const trn_job_hooks *hooks,
                             trn_text *out, trn_error *err);
trn_status trn_probe_run(const trn_probe_job *job, trn_gpu *gpu, const trn_job_hooks *hooks,
                         trn_probe_result *result, trn_error *err);
void trn_probe_result_free(trn_probe_result *result);

typedef struct trn_train_job {
    const char *name;
    trn_job_dataset data;
    const trn_job_encoder *encoders; /* weights "fresh": from scratch */
    size_t encoder_count;
    const trn_program *trunk; /* in place of encoders; images are normalised by the dataset's statistics */
    trn_compose_options compose;
    trn_head_desc head; /* outputs: set by the dataset */
    /* dir, description, transforms and sample lists are set by the job. epochs, batch: as given */
    trn_fit_options fit;
    const char *out_dir;
    bool strict;
    const char *result_extra;
} trn_train_job;
typedef struct trn_train_result {
    trn_fit_result fit;
    size_t samples[TRN_SPLIT_COUNT];
    char **files;
    size_t file_count;
} trn_train_result;
/* Writes what trn_fit writes, and result.json with the scores under "figures". */
trn_status trn_train_check(const trn_train_job *job, const trn_job_hooks *hooks, trn_error *err);
trn_status trn_train_explain(const trn_train_job *job, trn_gpu *gpu, const trn_job_hooks *hooks,
                             trn_text *out, trn_error *err);
trn_status trn_train_run(const trn_train_job *job, trn_gpu *gpu, const trn_job_hooks *hooks,
                         trn_train_result *result, trn_error *err);
void trn_train_result_free(trn_train_result *result);

/* Embeds pixels in memory: the shortest way from a C program. image [channels,side,side] of stored values
 * with the encoder's bands already chosen and in order; vector [spec->channels]. options: pool must be mean
 * or cls. The graph is built and compiled on every call: for many images run a job, or keep a compiled graph.
 * See docs/embed.c. */
trn_status trn_embed_image(trn_gpu *gpu, trn_encoder *encoder, const float *image, int channels, int side,
                           const trn_encode_options *options, float *vector, trn_error *err);

#ifdef __cplusplus
}
#endif
#endif
