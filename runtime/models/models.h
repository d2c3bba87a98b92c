/* models: one file per encoder family: configurations, tensor names, forward graph, and what input it wants.
 * A registry. Adding a family is one file and one row in registry.c. */
#ifndef TRN_MODELS_H
#define TRN_MODELS_H

#include "base.h"
#include "bands.h"
#include "graph.h"
#include "weights.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- what there is ---- */

typedef struct trn_model_info {
    const char *name, *family, *title; /* "dinov2-small", "vit", "DINOv2 ViT-S/14" */
    const char *licence;               /* of the published weights, as SPDX names it; NULL: needs none */
    const char *source;  /* address of the published file, or of the page it is on; NULL: needs none */
    uint64_t parameters; /* elements of the encoder; 0: depends on the input */
    uint64_t bytes;      /* of the published file; 0: not known */
    const char *sha256;  /* of the published file: 64 hex digits or their beginning; NULL: not known */
} trn_model_info;
size_t trn_model_count(void);
const trn_model_info *trn_model_at(size_t i); /* NULL past the last */
/* The settings of an encoder, one a line: "key=default (range or choices): what it does". */
trn_status trn_model_settings(const char *name, trn_text *out, trn_error *err);

/* ---- an encoder: a configuration, then weights, then a graph ---- */

/* key=value overrides of a family's configuration (sizes, statistics, family options such as month=6). */
typedef struct trn_setting {
    const char *key, *value;
} trn_setting;

/* One band an encoder can take. */
typedef struct trn_encoder_band {
    const char *name;   /* common name: "red" */
    int group;          /* bands of one group are used together or not at all; -1: required */
    double mean, std;   /* of the encoder's values: normalised = (value - mean) / std */
    trn_unit unit;      /* of this band's values: that of the spec, or another (a radar band's decibel) */
    double value_scale; /* likewise */
} trn_encoder_band;

/* What a configured encoder wants and gives. */
typedef struct trn_encoder_spec {
    const char *name, *family;
    bool needs_weights;
    bool needs_fit; /* learns from sample windows before it is built (rcf) */
    const trn_encoder_band
        *bands; /* order = order of the image's channels; band_count 0: takes any bands as they come */
    size_t band_count;
    /* values fed = physical value in this unit * value_scale; TRN_UNIT_ANY: as stored. TRN_UNIT_BYTE wants
     * display values: a scene of reflectance reaches such an encoder only by a scale that the user gives,
     * none is guessed. Once bands are chosen that share a unit, it is theirs; where a band's own unit still
     * differs (radar beside optical bands), the band's holds. */
    trn_unit unit;
    double value_scale;
    int tile;          /* natural window side in pixels */
    int side_multiple; /* window sides must be a multiple */
    int stride;        /* pixels per cell of dense features unless asked otherwise */
    int channels;      /* of pooled features (0 until fitted or band-dependent) */
    bool has_cls;      /* pool=cls is possible */
    bool square;       /* windows must be square */
    /* mean and std of the bands bring a range of values to 0..1; how values are spread, they do not say */
    bool ranges;
    /* Dates of the series that one input holds; 1 and 1: single images. An encoder of series takes a single
     * image too when min_dates is 1. */
    int min_dates, max_dates;
    bool by_wavelength;  /* of any bands: each must have a wavelength */
    int location_values; /* of an encoded place (trn_encoder_encode_location); 0: places do not matter */
} trn_encoder_spec;

typedef struct trn_encoder trn_encoder;
/* name as users type it; errors name the nearest known one, unknown settings name the known ones. */
trn_status trn_encoder_create(const char *name, const trn_setting *settings, size_t count, trn_encoder **out,
                              trn_error *err);
void trn_encoder_destroy(trn_encoder *encoder); /* NULL is fine */
const trn_encoder_spec *trn_encoder_get_spec(const trn_encoder *encoder);
/* Configuration as key=value lines (for result.json and explain). */
void trn_encoder_describe(const trn_encoder *encoder, trn_text *out);

/* A band of the scene, as an encoder sees it when it chooses. */
typedef struct trn_band_offer {
    const char *name;     /* common name, or what the file calls it */
    double wavelength_um; /* centre; 0: not known */
} trn_band_offer;
/* Chooses the encoder's bands from what the scene has (common names, any order). index[i] is the scene band
 * of channel i, *count <= max. Missing required bands are an error that names the encoder, the bands and what
 * the scene has. Incomplete groups are left out and named in notes (may be NULL). For encoders that take any
 * bands, all are chosen in order. Bands called by numbers have no names: an encoder that needs all of its
 * bands takes just as many of them in their order, which notes say. The choice is kept: build uses it. */
trn_status trn_encoder_choose_bands(trn_encoder *encoder, const trn_band_offer *scene_bands,
                                    size_t scene_count, int *index, size_t max, size_t *count,
                                    trn_text *notes, trn_error *err);
/* Chooses all bands the encoder knows, or some where it takes what comes: for bench and self-tests, which
 * have no scene. */
trn_status trn_encoder_choose_all_bands(trn_encoder *encoder, size_t *count, trn_error *err);
/* Says of how many dates a series is, and which they are (dates [count], NULL: not known). Without this call
 * it is min_dates of unknown date. A count that the encoder cannot take is an error that says which it can.
 */
trn_status trn_encoder_choose_dates(trn_encoder *encoder, size_t count, const trn_date *dates,
                                    trn_error *err);
/* Adds the input "image" of the encoder's own tile, chosen bands and dates: [B,C,h,w], or [B,T,C,h,w] for
 * encoders of series. */
trn_tensor *trn_encoder_natural_input(const trn_encoder *encoder, trn_graph *graph, int64_t batch);
/* A place as the encoder's graph wants it: out [location_values]. Latitude and longitude in degrees;
 * longitudes beyond 180 are brought to -180..180. */
void trn_encoder_encode_location(const trn_encoder *encoder, double latitude, double longitude, float *out);

/* Binds weights: every tensor the configuration needs must be there in its shape (wrappers and prefixes of
 * the family's published files are recognised). weights must outlive the encoder. The report is text for the
 * user. */
trn_status trn_encoder_load(trn_encoder *encoder, trn_weights *weights, trn_text *report, trn_error *err);
/* Learns from sample windows [count, channels, side, side], stored values (needs_fit encoders only).
 * Deterministic by the setting `seed`. */
trn_status trn_encoder_fit(trn_encoder *encoder, const float *windows, size_t count, int channels, int side,
                           trn_error *err);

typedef enum trn_normalize { TRN_NORMALIZE_MODEL, TRN_NORMALIZE_NONE, TRN_NORMALIZE_ZSCORE } trn_normalize;
typedef enum trn_feature_pool { TRN_FEATURES_DENSE, TRN_FEATURES_MEAN, TRN_FEATURES_CLS } trn_feature_pool;

struct trn_training;
typedef struct trn_encode_options {
    trn_normalize normalize;
    /* [channels] each: value = stored * value_scale + value_offset brings stored numbers to the encoder's
     * values (unit and value_scale of the spec); NULL: 1 and 0. Ignored by TRN_NORMALIZE_NONE. */
    const float *value_scale, *value_offset;
    const float *mean, *std; /* [channels] for TRN_NORMALIZE_ZSCORE, of the values */
    trn_feature_pool pool;
    trn_tensor *location; /* [B, location_values] of the windows; NULL: not known, nothing is added */
    /* [B,1,h,w]: 1 where the image has data, 0 where it has none (NULL: all has). Such pixels are fed as the
     * mean, which normalisation makes 0, or as what the original feeds there. */
    trn_tensor *valid;
    const struct trn_training *training; /* nn.h; NULL: inference. Drop path in the blocks */
} trn_encode_options;

enum { TRN_MAX_GRIDS = 4 };
typedef struct trn_features {
    /* dense: grids[i] [B, gh, gw, C]; cell (r,c) is centred on pixel (offset + (r+0.5)*stride, ..) of the
     * window */
    int grid_count;
    trn_tensor *grids[TRN_MAX_GRIDS];
    double stride[TRN_MAX_GRIDS], offset[TRN_MAX_GRIDS];
    trn_tensor *pooled; /* [B,C]; NULL for TRN_FEATURES_DENSE */
} trn_features;

/* Adds the encoder to the graph: image [B, channels, h, w] of stored values (the bands chosen before), or
 * [B, T, channels, h, w] of T dates -> features. Parameters are pulled from the bound weights when the graph
 * is compiled. */
trn_status trn_encoder_build(trn_encoder *encoder, trn_graph *graph, trn_tensor *image,
                             const trn_encode_options *options, trn_features *out, trn_error *err);

/* ---- what an encoder is, and keeping it ---- */

/* Adds to a hash all that decides what the encoder computes: settings, bands and dates chosen, the values of
 * its weights (all are read) or what it was fitted to. */
trn_status trn_encoder_identify(trn_encoder *encoder, trn_sha256_state *hash, trn_error *err);
/* How many transformer blocks it has, by its weights' names ("blocks.n.", "layers.n."): for trn_layer_of. */
trn_status trn_encoder_depth(trn_encoder *encoder, int *depth, trn_error *err);

typedef struct trn_encoder_save_options {
    /* Writes the values of a tensor into out and sets *given; leaves *given false for those of the loaded
     * weights. NULL: all are those. */
    trn_status (*fill)(void *user, const char *name, const trn_shape *shape, float *out, bool *given,
                       trn_error *err);
    void *user;
    const char *const *metadata; /* pairs ended by NULL, or NULL */
} trn_encoder_save_options;
/* Writes all tensors of an encoder with weights to a safetensors file, atomically, under the names by which
 * trn_encoder_load finds them again. */
trn_status trn_encoder_save(trn_encoder *encoder, const char *path, const trn_encoder_save_options *options,
                            trn_error *err);

/* ---- checkpoints made up ---- */

/* Writes a checkpoint of made-up weights (the rule of trn_weights_open_synthetic) that trn_encoder_load takes
 * for the encoder of this name and these settings, wrapped as its published file is: PyTorch's container, or
 * safetensors when the path ends so. For trying and measuring without downloads. One tensor is in memory at a
 * time. progress may be NULL. */
trn_status trn_model_write_synthetic(const char *name, const trn_setting *settings, size_t count,
                                     const char *path, const trn_progress *progress, trn_error *err);

/* ---- masked autoencoders ---- */

/* Some encoders were trained by hiding patches of an image and drawing them again, and their files keep the
 * decoder that draws (the family prithvi, and the mae-hiera-* of images). Such a pair is created here, gets
 * bands, dates and weights like any encoder, and is built by trn_masked_build alone. Encoders without a
 * decoder are an error that names the families with one. */
trn_status trn_masked_create(const char *name, const trn_setting *settings, size_t count, trn_encoder **out,
                             trn_error *err);
/* Pixels of a patch's side, and dates it spans; of an encoder that trn_masked_create made, else zeros. */
typedef struct trn_patch_size {
    int dates, side;
} trn_patch_size;
trn_patch_size trn_masked_patch(const trn_encoder *encoder);
/* How many of `patches` stay visible at a ratio of hidden ones (rounded down); at least one stays visible,
 * and one hidden, or it is an error. */
trn_status trn_masked_visible(int64_t patches, double ratio, int64_t *visible, trn_error *err);
/* order [patches]: the patches by rising noise (equal ones as they come). */
trn_status trn_masked_sort(const float *noise, int64_t patches, int32_t *order, trn_error *err);

typedef struct trn_mask {
    /* [B, patches] each image's patches (date, row, column; columns fastest): the first `visible` are shown
     * to the encoder */
    const int32_t *order;
    int64_t visible;
} trn_mask;
typedef struct trn_masked {
    trn_tensor *image; /* as the encoder takes it, normalised: [B,T,C,h,w] of series, else [B,C,h,w] */
    /* Alike: what the decoder draws, visible patches too. Hiera was trained to draw cells of a few pixels
     * (16, with q_pool 2), each less its own mean and over its own deviation: here they get back the mean and
     * deviation of the image's cell in their place, hidden ones too, as in pictures of masked autoencoders.
     * What is drawn of a hidden cell is thus its pattern: its brightness and contrast are the image's. */
    trn_tensor *drawn;
    /* [1] mean square error of the hidden patches, in the values that the decoder was trained to draw:
     * Hiera's of cells that are normalised one by one */
    trn_tensor *loss;
} trn_masked;
/* As trn_encoder_build; image [B,C,h,w], or [B,T,C,h,w] for encoders of series. options->pool does not
 * matter; mask->order is copied. */
trn_status trn_masked_build(trn_encoder *encoder, trn_graph *graph, trn_tensor *image,
                            const trn_encode_options *options, const trn_mask *mask, trn_masked *out,
                            trn_error *err);

/* trn_model_write_synthetic for the pair: the file holds the decoder's tensors, too. Numbers follow from the
 * names in the file: where those begin with the side (Prithvi's "encoder."), they are not those of the
 * encoder written alone. */
trn_status trn_masked_write_synthetic(const char *name, const trn_setting *settings, size_t count,
                                      const char *path, const trn_progress *progress, trn_error *err);

/* ---- self-test ---- */

/* A tiny configuration of each family with synthetic weights, for selftest and tests: builds graph, with
 * input "image" (normalised values) and outputs "dense0" and so on and "mean", ready to compile. Index from
 * 0; returns false past the last. *keep owns what the graph needs: destroy it after the graph. When building
 * fails, *graph is NULL and err says why. */
bool trn_model_tiny(size_t i, const char **family, trn_graph **graph, trn_encoder **keep, trn_error *err);

#ifdef __cplusplus
}
#endif
#endif
