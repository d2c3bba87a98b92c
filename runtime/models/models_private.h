/* What the files of models share: what a family is, its settings, and the encoder that families fill.
 *
 * A family is one file that exports one trn_family, and one row in registry.c. */
#ifndef TRN_MODELS_PRIVATE_H
#define TRN_MODELS_PRIVATE_H

#include "models.h"
#include "nn.h"

/* ---- settings ---- */

typedef enum trn_setting_kind {
    TRN_SETTING_INT,
    TRN_SETTING_REAL,
    TRN_SETTING_CHOICE,
    TRN_SETTING_TEXT
} trn_setting_kind;

/* One setting of a family: what it is called, what it may be, and what it does. */
typedef struct trn_setting_rule {
    const char *key;
    trn_setting_kind kind;
    const char *fallback; /* value when neither the configuration nor the user says */
    double min, max;      /* of INT and REAL */
    const char *choices;  /* of CHOICE: "auto|true|false" */
    const char *about;
} trn_setting_rule;
#define TRN_BOOL_CHOICES "false|true"

typedef struct trn_setting_value {
    const char *text; /* as given */
    double number;    /* of INT and REAL; index of CHOICE */
} trn_setting_value;

/* Fallbacks, then the configuration's "key=value key=value", then the user's. values [rule count], texts in
 * the arena. */
trn_status trn_settings_resolve(trn_arena *arena, const char *encoder, const trn_setting_rule *rules,
                                size_t rule_count, const char *configuration, const trn_setting *given,
                                size_t given_count, trn_setting_value *values, trn_error *err);
/* Splits "a,b,c" into at most `max` trimmed parts in the arena; -1 when there are more or one is empty. ""
 * gives 0. */
int trn_settings_list(trn_arena *arena, const char *text, const char **parts, int max);

/* ---- families ---- */

typedef struct trn_model_config {
    trn_model_info info;
    const char *values; /* "dim=384 heads=6", over the family's fallbacks */
    /* how the published file wraps the weights: the dictionary's key, and what stands before the names; NULL:
     * nothing does */
    const char *wrapper, *prefix;
} trn_model_config;

/* What a family's build gets. */
typedef struct trn_build {
    trn_scope scope; /* root: no prefix */
    /* stored values of the chosen bands: [B,C,h,w], or [B,T,C,h,w] for families of series (max_dates > 1) */
    trn_tensor *image;
    trn_tensor *x; /* the same, normalised */
    const trn_encode_options *options;
    int64_t batch, dates, height, width;
    /* Tests look at what lies between: told of every named stage; NULL otherwise. */
    void (*stage)(void *user, const char *name, trn_tensor *tensor);
    void *stage_user;
} trn_build;
void trn_build_stage(const trn_build *build, trn_tensor *tensor, const char *fmt, ...) TRN_PRINTF(3, 4);

/* The decoder that encoders of a family were trained with, in a masked autoencoder. Its tensors and the
 * encoder's have the names that they have together in the published file. */
typedef struct trn_masked_family {
    const char *probe;           /* of files with both, as the family's; NULL: just those of the family */
    const char *const *prefixes; /* likewise */
    /* Checks the settings that the decoder depends on, and adds what it takes to the spec. */
    trn_status (*configure)(trn_encoder *encoder, trn_error *err);
    trn_patch_size (*patch)(const trn_encoder *encoder);
    /* The mask was checked, and out->image is there. Nothing is hidden when only parameters are asked for:
     * there may be no loss then. Building errors go to the graph. */
    void (*build)(trn_encoder *encoder, const trn_build *build, const trn_mask *mask, trn_masked *out);
} trn_masked_family;

typedef struct trn_family {
    const char *name;
    const trn_setting_rule *settings;
    size_t setting_count;
    const trn_model_config *configs;
    size_t config_count;
    const char *probe;           /* a tensor that every checkpoint has, to recognise prefixes by */
    const char *const *prefixes; /* what published files put before the names; NULL-terminated, or NULL */
    float nodata;                /* normalised value of pixels without data */
    const char *tiny;            /* settings of the self-test, over those of the first configuration */
    const char *made_up;         /* settings that checkpoints made up have unless told otherwise, or NULL */
    /* Checks the settings as a whole and fills spec; name and family are there. */
    trn_status (*configure)(trn_encoder *encoder, trn_error *err);
    trn_status (*fit)(trn_encoder *encoder, const float *windows, size_t count, int channels, int side,
                      trn_error *err);
    /* NULL, or chooses bands for an encoder that takes any, and sets spec.bands [n] to those chosen, whose
     * order is that of the channels. index [max] gets their places in scene; returns how many through count.
     */
    trn_status (*choose_bands)(trn_encoder *encoder, const trn_band_offer *scene, size_t scene_count,
                               int *index, size_t max, size_t *count, trn_text *notes, trn_error *err);
    /* NULL, or encodes a place: out [spec.location_values]. */
    void (*encode_location)(const trn_encoder *encoder, double latitude, double longitude, float *out);
    /* Building errors go to the graph. */
    void (*build)(trn_encoder *encoder, const trn_build *build, trn_features *out);
    const trn_masked_family *masked; /* NULL: no decoder */
} trn_family;

extern const trn_family trn_family_vit, trn_family_hiera, trn_family_dofa, trn_family_prithvi,
    trn_family_galileo, trn_family_presto, trn_family_rcf, trn_family_sam2;
extern const trn_family *const trn_families[];
extern const size_t trn_family_count;
/* NULL with err naming the nearest one. */
const trn_model_config *trn_model_find(const char *name, const trn_family **family, trn_error *err);

struct trn_encoder {
    trn_arena *arena;
    const trn_family *family;
    const trn_masked_family *masked; /* the family's, of an encoder with its decoder; NULL: alone */
    const trn_model_config *config;
    const trn_setting_value *values;
    trn_encoder_spec spec;
    int image_channels; /* that an encoder of any bands insists on; 0: any */
    int *chosen;        /* indices into spec.bands (or scene bands); NULL until chosen */
    size_t chosen_count;
    size_t date_count;     /* of the series; 0 until chosen */
    const trn_date *dates; /* [date_count], NULL: not known */
    trn_unit usual_unit;   /* of the family, before bands are chosen */
    double usual_scale;
    trn_weights *weights; /* NULL until loaded */
    bool owns_weights;
    trn_parameters parameters;
    const float *fit_mean, *fit_std; /* [fit_channels] of stored values, by fit */
    int fit_channels;
    uint8_t fit_digest[32]; /* of the windows it was fitted to */
    void *state;            /* the family's, in the arena */
};

/* With settings "key=value key=value" of our own between those of the configuration and those given. */
trn_status trn_encoder_create_of(const trn_family *family, const trn_model_config *config, const char *extra,
                                 const trn_setting *settings, size_t count, trn_encoder **out,
                                 trn_error *err);
/* The number of dates as it will come. */
int64_t trn_encoder_date_count(const trn_encoder *encoder);
int64_t trn_encoder_int(const trn_encoder *encoder, size_t setting);
double trn_encoder_real(const trn_encoder *encoder, size_t setting);
const char *trn_encoder_text(const trn_encoder *encoder, size_t setting);
bool trn_encoder_is_auto(const trn_encoder *encoder, size_t setting); /* it says "auto" */

/* Channels of the image as it will come: of the bands chosen, or else all of spec.bands. */
size_t trn_encoder_channel_count(const trn_encoder *encoder);
/* Index into spec.bands of channel i. */
int trn_encoder_channel_band(const trn_encoder *encoder, size_t i);

/* Channel of the image that holds band `band` of spec.bands, or -1. */
int trn_encoder_band_channel(const trn_encoder *encoder, int band);
/* (nir - red) / (nir + red) of tensors of one shape, 0 where the sum is not positive. */
trn_tensor *trn_build_ndvi(trn_graph *graph, trn_tensor *red, trn_tensor *nir);

/* A tensor that the encoder's graph asks its weights for. */
typedef struct trn_wanted {
    const char *name;
    trn_shape shape;
} trn_wanted;
/* All of them, pooled and dense, for the bands chosen and the weights loaded before. items is malloc'd, the
 * names are the encoder's. */
trn_status trn_encoder_wanted(trn_encoder *encoder, trn_wanted **items, size_t *count, trn_error *err);

/* The same as tensors to write, without data; malloc'd; NULL: no memory. */
trn_weight_data *trn_wanted_tensors(const trn_wanted *wanted, size_t count);

/* trn_encoder_build with a look at the stages, for tests. */
trn_status trn_encoder_build_stages(trn_encoder *encoder, trn_graph *graph, trn_tensor *image,
                                    const trn_encode_options *options, trn_features *out,
                                    void (*stage)(void *user, const char *name, trn_tensor *tensor),
                                    void *user, trn_error *err);

/* What stands before and after a family's graph: checks, the image normalised, errors. stage is not set. */
trn_status trn_build_begin(trn_encoder *encoder, trn_graph *graph, trn_tensor *image,
                           const trn_encode_options *options, trn_build *out, trn_error *err);
trn_status trn_build_end(const trn_encoder *encoder, const trn_build *build, trn_error *err);

/* trn_masked_build with a look at the stages, for tests. */
trn_status trn_masked_build_stages(trn_encoder *encoder, trn_graph *graph, trn_tensor *image,
                                   const trn_encode_options *options, const trn_mask *mask, trn_masked *out,
                                   void (*stage)(void *user, const char *name, trn_tensor *tensor),
                                   void *user, trn_error *err);
/* The pair with nothing hidden, to learn which parameters it wants. */
trn_status trn_masked_build_unmasked(trn_encoder *encoder, trn_graph *graph, trn_tensor *image,
                                     trn_error *err);

/* Adds a dense grid [B,gh,gw,C] that starts `offset` pixels from the window's corner. */
void trn_features_grid(trn_features *features, trn_tensor *grid, double stride, double offset);

/* ---- tokens.c: what transformers share ---- */

/* How a table of positions meets a grid of another size. */
typedef enum trn_position_resize {
    TRN_POSITIONS_TIMM,     /* bicubic, antialiased */
    TRN_POSITIONS_META,     /* bicubic, sides 0.1 cells larger (DINOv2) */
    TRN_POSITIONS_BICUBIC,  /* plain */
    TRN_POSITIONS_BILINEAR, /* plain */
    TRN_POSITIONS_CORNERS,  /* bicubic, corners aligned (Prithvi) */
} trn_position_resize;
typedef struct trn_grid_size {
    int64_t h, w;
} trn_grid_size;
/* table [1,prefix+from.h*from.w,D] -> [1,prefix+to.h*to.w,D] */
trn_tensor *trn_resize_positions(trn_graph *graph, trn_tensor *table, int prefix, trn_grid_size from,
                                 trn_grid_size to, trn_position_resize how);

/* Blocks of which the features are wanted: [count] 0-based indices, ascending. */
typedef struct trn_out_indices {
    int count, index[TRN_MAX_GRIDS];
} trn_out_indices;
/* Reads a setting such as "2,5,8,11" ("auto": the last alone); every index is below depth. */
trn_status trn_encoder_out_indices(const trn_encoder *encoder, size_t setting, int64_t depth,
                                   trn_out_indices *out, trn_error *err);
/* Blocks 0..depth-1, names "blocks.<i>" below the scope, stages "block<ii>". kept [out_indices.count] gets
 * the outputs of the chosen ones; nothing is built past the last of them (chosen NULL: all are built).
 * Returns the last output. Drop path is set here. */
trn_tensor *trn_build_blocks(const trn_build *build, const trn_scope *scope, trn_tensor *x, int64_t depth,
                             const trn_block_desc *desc, const trn_out_indices *chosen, trn_tensor **kept);
/* Tokens [B,prefix+h*w,D] -> [B,h,w,D] without the prefix. */
trn_tensor *trn_tokens_grid(const trn_build *build, trn_tensor *tokens, int64_t prefix, trn_grid_size size);
/* Mean of tokens from `prefix` on, or token 0: [B,N,D] -> [B,D]. */
trn_tensor *trn_tokens_mean(const trn_build *build, trn_tensor *tokens, int64_t prefix);
trn_tensor *trn_tokens_first(const trn_build *build, trn_tensor *tokens);

/* Hidden channels of an MLP over dim by the setting of their ratio, rounded down; the check fails when they
 * are none. */
int64_t trn_encoder_hidden(const trn_encoder *encoder, size_t mlp_ratio, int64_t dim);
trn_status trn_encoder_check_hidden(const trn_encoder *encoder, size_t mlp_ratio, int64_t hidden,
                                    trn_error *err);

/* A setting of pixels "224" or "48x32" (height x width), both multiples of `multiple`. */
trn_status trn_encoder_image_size(const trn_encoder *encoder, size_t setting, int64_t multiple,
                                  trn_grid_size *out, trn_error *err);

/* ---- image_bands.c: images of a few bands with means and deviations: the settings in_chans, bands, unit,
 * mean, std ---- */

typedef struct trn_image_band_settings {
    size_t in_chans, bands, unit, mean, std; /* places in the family's settings */
} trn_image_band_settings;
enum { TRN_MAX_IMAGE_BANDS = 64 };
#define TRN_RULE_IN_CHANS                                                                                    \
    {                                                                                                        \
        "in_chans", TRN_SETTING_INT, "3", 1, TRN_MAX_IMAGE_BANDS, NULL, "bands of the image"                 \
    }
#define TRN_RULE_BANDS                                                                                       \
    {                                                                                                        \
        "bands", TRN_SETTING_TEXT, "auto", 0, 0, NULL,                                                       \
            "common names of the bands in the model's order; auto: red,green,blue for three, else as they "  \
            "come"                                                                                           \
    }
#define TRN_RULE_UNIT                                                                                        \
    {                                                                                                        \
        "unit", TRN_SETTING_CHOICE, "byte", 0, 0, "byte|reflectance|stored",                                 \
            "of the values that mean and std are of"                                                         \
    }
#define TRN_RULE_MEAN                                                                                        \
    {                                                                                                        \
        "mean", TRN_SETTING_TEXT, "auto", 0, 0, NULL,                                                        \
            "mean per band, comma-separated; auto: ImageNet's in bytes for red,green,blue, else 0"           \
    }
#define TRN_RULE_STD                                                                                         \
    {                                                                                                        \
        "std", TRN_SETTING_TEXT, "auto", 0, 0, NULL, "standard deviation per band; auto: ImageNet's or 1"    \
    }
/* Fills spec.bands, unit and image_channels. */
trn_status trn_configure_image_bands(trn_encoder *encoder, const trn_image_band_settings *where,
                                     trn_error *err);
/* Comma-separated numbers of a setting into values [count]; positive: each must be above 0. */
trn_status trn_encoder_numbers(const trn_encoder *encoder, size_t setting, bool positive, double *values,
                               size_t count, trn_error *err);

#endif
