/* The plan of a job: what check, explain and run share before any pixel is encoded. */
#ifndef TRN_JOB_PRIVATE_H
#define TRN_JOB_PRIVATE_H

#include "job.h"
#include "weights.h"

/* One encoder of the job: configured, its bands chosen, its weights bound. */
typedef struct planned_encoder {
    const trn_job_encoder *wish;
    trn_encoder *encoder;
    const trn_encoder_spec *spec;
    trn_weights *weights;
    size_t channel_count;
    int *channels;      /* [channel_count] indices into plan.bands */
    const char **asked; /* [channel_count] by which names the encoder took them */
    /* [channel_count]: stored to the encoder's values; z-score statistics, or NULL; stored values of the
     * scene's mean colour when positions are removed, or NULL */
    float *scale, *offset, *mean, *std, *blank;
    bool converts;                     /* scale and offset are used */
    float *low, *high;                 /* [channel_count] stored values are held within these, or NULL */
    struct measured_channel *measured; /* [channel_count] of the values, sampled; NULL: nothing was valid */
} planned_encoder;

/* What the sampled values of a channel are. */
typedef struct measured_channel {
    double low, high, mean, std;
} measured_channel;

/* One date of a series. */
typedef struct job_date {
    const char *const *paths; /* [path_count], within the plan's */
    size_t path_count;
    trn_scene *scene;
    int *bands; /* [bands of the first date]: where they are in this one */
    bool known; /* of images: the names of all say the same date */
    trn_date acquired;
    const char *source; /* what says so */
} job_date;

/* Fully valid windows read at seeded places of the scene or images: [count, dates, band_count, side, side]
 * stored values. */
typedef struct job_samples {
    float *values;
    size_t count, dates, bands;
    int side;
} job_samples;

typedef struct job_plan {
    const trn_embed_job *job;
    const trn_job_hooks *hooks;
    trn_arena *arena;
    const trn_sensor *sensor; /* what numbers and bands are of; NULL: not said */
    const trn_sensor *names;  /* whose names the bands have: of datasets that may be known without a sensor */
    trn_scene_options scene_options;
    const struct job_dataset *dataset; /* samples of a dataset in place of a scene; NULL: a scene */
    uint64_t seed;                     /* of fresh weights */

    bool images;              /* every path gives one vector */
    bool pooled;              /* one vector per window: images, or tile_vectors */
    bool draws;               /* encoders come with the decoders that they were trained with */
    const char *const *paths; /* [path_count] */
    size_t path_count;
    char **listed; /* owned paths of a folder, or NULL */
    size_t listed_count;
    job_date *dates; /* [date_count]; images: one, the first image */
    size_t date_count;
    bool date_told;   /* the one date's day was noted */
    trn_scene *scene; /* of the first date; scenes are used by one thread at a time */
    const trn_scene_info *info;
    const char **common_names; /* [info->band_count] */

    planned_encoder *encoders; /* [encoder_count] */
    trn_encoder **handles;     /* the same encoders, as compose wants them */
    size_t encoder_count;
    int *bands; /* scene bands that any encoder reads, [band_count] */
    size_t band_count;

    int width, height;    /* of a window, or of an image as it is fed */
    int tile, cell;       /* of scenes: window side, and side of a cell (pooled: the whole window) */
    bool located;         /* places are known, and an encoder looks at them */
    trn_locator *locator; /* of the scene; NULL: the job gives the place */
    trn_tiling tiling;
    int64_t windows; /* or images */
    int64_t grid_width, grid_height;
    trn_georef georef; /* of the grid */
} job_plan;

/* Everything that needs no device and no pixel. On failure the plan is empty. */
trn_status job_plan_create(job_plan *plan, const trn_embed_job *job, const trn_job_hooks *hooks,
                           trn_error *err);
/* The same with encoders that draw (trn_masked_create). */
trn_status job_plan_create_drawing(job_plan *plan, const trn_embed_job *job, const trn_job_hooks *hooks,
                                   trn_error *err);
void job_plan_destroy(job_plan *plan);
/* Moves the output's grid by pixels of the scene, along rows and columns alike. */
void job_plan_shift(job_plan *plan, double pixels);
/* A remark for the user. Warnings about the input become errors when the job is strict. */
void job_plan_note(const job_plan *plan, const char *fmt, ...) TRN_PRINTF(2, 3);
trn_status job_plan_warn(const job_plan *plan, trn_error *err, const char *fmt, ...) TRN_PRINTF(3, 4);

/* Steps of planning that jobs over datasets share: the sensor that the job's scene names; whether it has
 * anything to do with the bands; encoders with bands and weights, and the union of their bands. */
trn_status job_plan_sensor(job_plan *plan, trn_error *err);
trn_status job_check_sensor(const job_plan *plan, trn_error *err);
trn_status job_plan_encoders(job_plan *plan, trn_error *err);
/* Whether the encoder takes images of this size. */
trn_status job_check_image_shape(const job_plan *plan, const planned_encoder *member, int64_t width,
                                 int64_t height, trn_error *err);
/* Weights that are made up to train from scratch; of jobs that learn. */
bool job_weights_fresh(const job_plan *plan, const trn_job_encoder *wish);

/* Tells the hooks which part of the description is at fault when status is a failure; returns status. */
trn_status job_blame(const trn_job_hooks *hooks, trn_status status, trn_job_part part, size_t index);

/* ---- dates.c ---- */

/* Which files are of which date. */
trn_status job_dates_plan(job_plan *plan, trn_error *err);
/* Opens the scenes of all dates, which must fit together; sets scene and info. */
trn_status job_dates_open(job_plan *plan, trn_error *err);
void job_dates_close(job_plan *plan);
/* When the dates were taken. */
trn_status job_dates_acquired(job_plan *plan, trn_error *err);
/* Tells the encoder which dates it will see. */
trn_status job_dates_choose(job_plan *plan, planned_encoder *member, trn_error *err);
/* Bytes of decoded blocks that each of `count` dates keeps: together at most 2 GiB. */
size_t job_dates_cache(size_t count);
/* The first file of a date, for messages. */
const char *job_date_file(const job_plan *plan, size_t date);
enum { JOB_DATE_TEXT = 48 };
/* "2018-06-02", or that it is not known; buffer [JOB_DATE_TEXT]. */
const char *job_date_text(const job_date *date, char *buffer);
/* The plan's bands of a window of all dates: pixels [date_count, band_count, h, w]; valid [h, w] in all. */
trn_status job_window_read(const job_plan *plan, int64_t x, int64_t y, int64_t w, int64_t h, float *pixels,
                           uint8_t *valid, trn_error *err);

/* ---- check.c ---- */

/* Names of outputs: known formats, each once, none of them an input. */
trn_status job_check_outputs(const trn_embed_job *job, const trn_job_hooks *hooks, trn_error *err);
/* What result.json carries as it is must be a JSON object. */
trn_status job_check_extra(const char *text, trn_error *err);
/* Formats that suit what the plan gives. */
trn_status job_check_plan_outputs(const job_plan *plan, trn_error *err);

/* ---- bands.c ---- */

/* Common names of the scene's bands; warns where names contradict the file or one another. */
trn_status job_bands_name(job_plan *plan, trn_error *err);
/* The encoder's bands out of the scene's, or out of those that the job lists. */
trn_status job_bands_choose(job_plan *plan, planned_encoder *member, trn_error *err);
/* Micrometres, as the sensor has it; 0: not known. */
double job_band_wavelength(const job_plan *plan, int band);

/* ---- units.c ---- */

const char *job_unit_name(trn_unit unit);
/* Whether the file itself scales the band's numbers. */
bool job_own_scale(const trn_scene_band *band);
/* Fills scale and offset of every encoder from what the scene's numbers mean to what the encoder wants. */
trn_status job_units_plan(job_plan *plan, trn_error *err);
/* Band of the encoder's own table that channel c is, or NULL. */
const trn_encoder_band *job_member_band(const planned_encoder *member, size_t c);
/* Unit and scale of the values that channel c should have. */
typedef struct wanted_values {
    trn_unit unit;
    double scale;
} wanted_values;
wanted_values job_member_wants(const planned_encoder *member, size_t c);

/* ---- ranges.c ---- */

/* Measures the sampled values, and warns when they cannot be what the encoder was made for. */
trn_status job_ranges_check(job_plan *plan, const job_samples *samples, trn_error *err);

/* ---- fit.c, statistics.c ---- */

/* Of the channel's values (value = stored, held within the limits, * scale + offset) over the samples of the
 * dates that the encoder sees. */
measured_channel job_measure_channel(const job_plan *plan, const planned_encoder *member, size_t channel,
                                     double scale, double offset, const job_samples *samples);

/* Learns from pixels what the encoders need: rcf filters, z-score statistics; checks value ranges. */
trn_status job_plan_learn(job_plan *plan, trn_error *err);
/* Mean and standard deviation of each channel of the encoder's values. */
trn_status job_zscore_measure(const job_plan *plan, planned_encoder *member, const job_samples *samples,
                              trn_error *err);
/* One band of one window of one date: [side, side]. */
const float *job_sample(const job_samples *samples, size_t window, size_t date, int band);
/* The dates of a series that an encoder sees: [first, end). */
void job_member_dates(const job_plan *plan, const planned_encoder *member, size_t *first, size_t *end);
/* The mean colour of the samples, in stored values. */
trn_status job_blank_measure(const job_plan *plan, planned_encoder *member, const job_samples *samples,
                             trn_error *err);

/* ---- reader.c ---- */

/* One window of a batch. slot: its place in the batch, or -1 when none of its cells is valid. */
typedef struct read_item {
    int64_t window;
    int slot;
} read_item;

typedef struct read_batch {
    float *pixels;       /* [batch, date_count, band_count, height, width] */
    float *valid;        /* [batch, height, width]: 1 where all bands of all dates have data, else 0 */
    uint8_t *cell_valid; /* [batch, tile/cell, tile/cell]; for pooled plans one flag per window */
    double (*places)[2]; /* [batch] latitude and longitude, where the plan is located */
    read_item *items;
    size_t item_count;
    int used; /* slots that hold windows */
} read_batch;

/* Reads windows ahead on a thread of its own, in order. The plan's scene belongs to it until
 * job_reader_destroy.
 */
typedef struct window_reader window_reader;
/* Flags of a window in read_batch.cell_valid. */
size_t job_cells_per_window(const job_plan *plan);
trn_status job_reader_create(const job_plan *plan, int batch, window_reader **out, trn_error *err);
/* The next batch, valid until the following call of this or job_reader_wait; NULL at the end. */
trn_status job_reader_next(window_reader *reader, const read_batch **out, trn_error *err);
/* Whether job_reader_next would return at once; waits for that, at most so long. */
bool job_reader_wait(window_reader *reader, int milliseconds);
void job_reader_destroy(window_reader *reader); /* NULL is fine */

/* Reads image `index` (stored values of plan->bands, resized when the job says so) into pixels
 * [band_count, height, width]; valid [height, width]; place: latitude and longitude, or NULL. Errors name the
 * file. */
trn_status job_image_read(const job_plan *plan, int64_t index, float *pixels, uint8_t *valid, double *place,
                          trn_error *err);

/* ---- place.c ---- */

/* Finds out whether the places of windows are known; needs the encoders. */
trn_status job_place_plan(job_plan *plan, trn_error *err);
/* Latitude and longitude of the middle of what is valid [height, width] of the window at (x, y), which must
 * be something, or of an image, of a located plan. */
trn_status job_place_of_window(const job_plan *plan, int64_t x, int64_t y, const uint8_t *valid,
                               double place[2], trn_error *err);
trn_status job_place_of_image(const job_plan *plan, const trn_scene_info *info, const char *path,
                              double place[2], trn_error *err);
/* The places of a batch as the encoder wants them: out [batch, location_values]; returns location_values. */
size_t job_place_encode(const planned_encoder *member, const read_batch *batch, float *out);

/* ---- batch.c ---- */

/* The compiled graph of the job: input "image" [batch, band_count, height, width], or [batch, date_count,
 * band_count, height, width] of a series; inputs "location.<member>" where the plan is located; output
 * "features". */
enum { JOB_SEATS = 2 }; /* one on the device, one before or after it */

typedef struct job_engine {
    trn_graph *graph;
    trn_exec *exec;
    int batch, channels;
    int seats; /* batches that may be in flight at once */
    int64_t values_per_window;
    double offset;  /* pixel of a window at which its grid begins */
    trn_text grids; /* for explain: the members' grids */
} job_engine;
/* Name of a member's input of places; buffer [32]. NULL: it has none. */
const char *job_location_input(const job_plan *plan, size_t member, char *buffer);
/* Builds and compiles with the largest batch that fits. plan_only: nothing is allocated, for explain. */
trn_status job_engine_create(const job_plan *plan, trn_gpu *gpu, bool plan_only, job_engine *out,
                             trn_error *err);
void job_engine_destroy(job_engine *engine);

/* The encoder as compose wants it, without places and valid pixels. */
trn_member job_member(const job_plan *plan, const planned_encoder *member);

/* ---- explain.c ---- */

/* Gives what would run to the hooks' tuner, when there is one. */
trn_status job_offer_graph(const trn_job_hooks *hooks, const trn_exec *exec, trn_error *err);
/* The encoder, its settings, and what becomes of each band's numbers. */
void job_explain_encoder(const job_plan *plan, const planned_encoder *member, trn_text *out);

/* ---- result.c ---- */

/* Writes out_dir/result.json. */
trn_status job_result_write(const job_plan *plan, trn_gpu *gpu, const job_engine *engine,
                            const trn_embed_result *result, const char *path, trn_error *err);
/* Its parts: what every job has in front, and the files at the end; out is written to path. */
void job_result_begin(const job_plan *plan, trn_gpu *gpu, trn_text *out);
/* Parts of that: name and recipe, encoders, device. */
void job_result_head(const job_plan *plan, trn_text *out);
void job_result_encoders(const job_plan *plan, trn_text *out);
void job_result_device(trn_gpu *gpu, trn_text *out);
void job_result_number(trn_text *out, double value); /* null when it is not finite */
trn_status job_result_end(const job_plan *plan, trn_text *out, const char *path, trn_error *err);
/* Text for the sidecar of .npy exports: ids of rows or the grid's place, bands, encoders. malloc'd; NULL: no
 * memory. */
char *job_result_sidecar(const job_plan *plan, const job_engine *engine);

/* ---- dataset.c: datasets in place of scenes ---- */

/* What probes and training have in common. */
typedef struct job_learning {
    const char *name;
    const trn_job_dataset *data;
    const trn_job_encoder *encoders;
    size_t encoder_count;
    const trn_program *trunk; /* in place of encoders */
    trn_compose_options compose;
    const trn_head_desc *head; /* NULL: vectors are wanted */
    bool chances;              /* samples may be changed by chance: training */
    uint64_t seed;
    uint64_t memory_limit;
    const char *out_dir;
    bool strict;
    const char *result_extra;
} job_learning;

typedef struct job_dataset {
    job_learning what;
    const trn_job_hooks *hooks;
    trn_embed_job embed; /* what the plan is made for */
    job_plan plan;
    trn_dataset *all, *dataset;   /* with every band that may be read; with those that are (often the same) */
    const trn_dataset_info *info; /* of `dataset` */
    trn_transform train, eval;
    int height, width;                                         /* of samples as they are fed */
    size_t *chosen[TRN_SPLIT_COUNT], samples[TRN_SPLIT_COUNT]; /* NULL: all of the split */
    trn_member *members;                                       /* [plan.encoder_count] */
    trn_head_desc head;
    trn_learn_model model; /* whole once job_dataset_learn was called */
} job_dataset;

/* Everything that needs no device and no pixel. On failure nothing is open. Does not move while it is. */
trn_status job_dataset_open(job_dataset *data, const job_learning *what, const trn_job_hooks *hooks,
                            trn_error *err);
/* Learns from pixels of the training split what encoders and trunk need. */
trn_status job_dataset_learn(job_dataset *data, trn_error *err);
void job_dataset_close(job_dataset *data); /* zeroed is fine */
/* Hooks for learn. */
trn_learn_hooks job_learn_hooks(const trn_job_hooks *hooks);
/* The bands of the plan's scene. */
const trn_data_band *job_dataset_bands(const job_plan *plan);
int job_dataset_find_band(const job_plan *plan, const char *name, trn_error *err);
/* Sample `index` of the training split as job_image_read gives images. */
trn_status job_dataset_image(const job_plan *plan, int64_t index, float *pixels, uint8_t *valid,
                             trn_error *err);
void job_dataset_explain(const job_dataset *data, trn_text *out);

/* ---- learn_result.c: what result.json says of probes and training ---- */

/* Finds out now, not after the work, whether out_dir takes files. *path: of result.json, malloc'd. */
trn_status job_learn_output(const job_dataset *data, char **path, trn_error *err);
/* Name, recipe, data, encoders or network, device. */
void job_learn_result_begin(const job_dataset *data, trn_gpu *gpu, trn_text *out);
/* The files, and the end; writes out to path. */
trn_status job_learn_result_end(trn_text *out, char *const *files, size_t file_count, const char *path,
                                trn_error *err);
/* Every metric of the task as "<prefix><name>": value, with ", " before each. loss: NAN when it is not known.
 */
void job_learn_metrics(bool multilabel, const char *prefix, const trn_class_scores *classes,
                       const trn_multilabel_scores *labels, double loss, trn_text *out);

#endif
