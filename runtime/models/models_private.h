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
} trn_model_config;

/* What a family's build gets. */
typedef struct trn_build {
    trn_scope scope;   /* root: no prefix */
    trn_tensor *image; /* [B,C,side,side] stored values of the chosen bands */
    trn_tensor *x;     /* the same, normalised */
    const trn_encode_options *options;
    int64_t batch, side;
    /* Tests look at what lies between: told of every named stage; NULL otherwise. */
    void (*stage)(void *user, const char *name, trn_tensor *tensor);
    void *stage_user;
} trn_build;
void trn_build_stage(const trn_build *build, trn_tensor *tensor, const char *fmt, ...) TRN_PRINTF(3, 4);

typedef struct trn_family {
    const char *name;
    const trn_setting_rule *settings;
    size_t setting_count;
    const trn_model_config *configs;
    size_t config_count;
    const char *probe;           /* a tensor that every checkpoint has, to recognise prefixes by */
    const char *const *prefixes; /* what published files put before the names; NULL-terminated, or NULL */
    const char *tiny;            /* settings of the self-test, over those of the first configuration */
    /* Checks the settings as a whole and fills spec; name and family are there. */
    trn_status (*configure)(trn_encoder *encoder, trn_error *err);
    trn_status (*fit)(trn_encoder *encoder, const float *windows, size_t count, int channels, int side,
                      trn_error *err);
    /* Building errors go to the graph. */
    void (*build)(trn_encoder *encoder, const trn_build *build, trn_features *out);
} trn_family;

extern const trn_family trn_family_vit, trn_family_galileo, trn_family_rcf;
extern const trn_family *const trn_families[];
extern const size_t trn_family_count;
/* NULL with err naming the nearest one. */
const trn_model_config *trn_model_find(const char *name, const trn_family **family, trn_error *err);

struct trn_encoder {
    trn_arena *arena;
    const trn_family *family;
    const trn_model_config *config;
    const trn_setting_value *values;
    trn_encoder_spec spec;
    int image_channels; /* that an encoder of any bands insists on; 0: any */
    int *chosen;        /* indices into spec.bands (or scene bands); NULL until chosen */
    size_t chosen_count;
    trn_unit usual_unit; /* of the family, before bands are chosen */
    double usual_scale;
    trn_weights *weights; /* NULL until loaded */
    bool owns_weights;
    trn_parameters parameters;
    const float *fit_mean, *fit_std; /* [fit_channels] of stored values, by fit */
    int fit_channels;
    void *state; /* the family's, in the arena */
};

int64_t trn_encoder_int(const trn_encoder *encoder, size_t setting);
double trn_encoder_real(const trn_encoder *encoder, size_t setting);
const char *trn_encoder_text(const trn_encoder *encoder, size_t setting);

/* Channels of the image as it will come: of the bands chosen, or else all of spec.bands. */
size_t trn_encoder_channel_count(const trn_encoder *encoder);
/* Index into spec.bands of channel i. */
int trn_encoder_channel_band(const trn_encoder *encoder, size_t i);

/* trn_encoder_build with a look at the stages, for tests. */
trn_status trn_encoder_build_stages(trn_encoder *encoder, trn_graph *graph, trn_tensor *image,
                                    const trn_encode_options *options, trn_features *out,
                                    void (*stage)(void *user, const char *name, trn_tensor *tensor),
                                    void *user, trn_error *err);

/* One dense grid that starts at the window's corner. */
void trn_features_grid(trn_features *features, trn_tensor *grid, double stride);

/* table [1,prefix+g*g,D] -> [1,prefix+h*w,D]: the grid of positions resized as timm does, or as Meta does. */
trn_tensor *trn_vit_positions(trn_graph *graph, trn_tensor *table, int prefix, int64_t h, int64_t w,
                              bool meta);

#endif
