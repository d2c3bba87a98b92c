/* Encoders: creating, choosing bands, binding weights, and putting normalised input in front of a family's
 * graph. */
#include "models_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LISTED = 8 };

/* ---- creating ---- */

static trn_status prepare(trn_encoder *encoder, const char *extra, const trn_setting *given, size_t count,
                          trn_error *err)
{
    const trn_family *family = encoder->family;
    const char *name = encoder->config->info.name;
    encoder->spec.name = name;
    encoder->spec.family = family->name;
    encoder->spec.value_scale = 1;
    encoder->spec.min_dates = encoder->spec.max_dates = 1;
    trn_setting_value *values = trn_arena_array(encoder->arena, family->setting_count + 1, sizeof *values);
    char *configuration = trn_arena_printf(encoder->arena, "%s %s", encoder->config->values, extra);
    if (!values || !configuration) return trn_fail_memory(err, sizeof *values, "an encoder");
    encoder->values = values;
    trn_status status = trn_settings_resolve(encoder->arena, name, family->settings, family->setting_count,
                                             configuration, given, count, values, err);
    if (status == TRN_OK) status = family->configure(encoder, err);
    encoder->usual_unit = encoder->spec.unit;
    encoder->usual_scale = encoder->spec.value_scale;
    return status;
}

static trn_status create(const trn_family *family, const trn_model_config *config, const char *extra,
                         const trn_setting *settings, size_t count, trn_encoder **out, trn_error *err)
{
    *out = NULL;
    trn_encoder *encoder = calloc(1, sizeof *encoder);
    if (encoder) encoder->arena = trn_arena_create();
    if (!encoder || !encoder->arena) {
        trn_encoder_destroy(encoder);
        return trn_fail_memory(err, sizeof *encoder, "an encoder");
    }
    encoder->family = family;
    encoder->config = config;
    trn_status status = prepare(encoder, extra, settings, count, err);
    if (status == TRN_OK)
        *out = encoder;
    else
        trn_encoder_destroy(encoder);
    return status;
}

trn_status trn_encoder_create(const char *name, const trn_setting *settings, size_t count, trn_encoder **out,
                              trn_error *err)
{
    const trn_family *family;
    *out = NULL;
    const trn_model_config *config = trn_model_find(name, &family, err);
    return config ? create(family, config, "", settings, count, out, err) : TRN_ERR_ARGUMENT;
}

void trn_encoder_destroy(trn_encoder *encoder)
{
    if (!encoder) return;
    if (encoder->owns_weights) trn_weights_close(encoder->weights);
    trn_arena_destroy(encoder->arena);
    free(encoder);
}

const trn_encoder_spec *trn_encoder_get_spec(const trn_encoder *encoder)
{
    return &encoder->spec;
}

void trn_encoder_describe(const trn_encoder *encoder, trn_text *out)
{
    for (size_t i = 0; i < encoder->family->setting_count; i++)
        trn_text_printf(out, "%s=%s\n", encoder->family->settings[i].key, encoder->values[i].text);
}

int64_t trn_encoder_int(const trn_encoder *encoder, size_t setting)
{
    return (int64_t)encoder->values[setting].number;
}

double trn_encoder_real(const trn_encoder *encoder, size_t setting)
{
    return encoder->values[setting].number;
}

const char *trn_encoder_text(const trn_encoder *encoder, size_t setting)
{
    return encoder->values[setting].text;
}

/* ---- bands ---- */

size_t trn_encoder_channel_count(const trn_encoder *encoder)
{
    if (encoder->chosen) return encoder->chosen_count;
    return encoder->spec.band_count ? encoder->spec.band_count : (size_t)encoder->image_channels;
}

int trn_encoder_channel_band(const trn_encoder *encoder, size_t i)
{
    return encoder->chosen ? encoder->chosen[i] : (int)i;
}

static int find_scene_band(const char *wanted, const trn_band_offer *scene, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (scene[i].name && !strcmp(scene[i].name, wanted)) return (int)i;
    for (size_t i = 0; i < count; i++) {
        const char *common = scene[i].name ? trn_band_common(scene[i].name) : NULL;
        if (common && !strcmp(common, wanted)) return (int)i;
    }
    return -1;
}

static void list_scene(const trn_band_offer *scene, size_t count, trn_text *out)
{
    if (!count) trn_text_add(out, "no bands");
    for (size_t i = 0; i < count; i++)
        trn_text_printf(out, "%s%s", i ? ", " : "", scene[i].name ? scene[i].name : "(unnamed)");
}

/* Names of the required bands that are missing; how many. */
static size_t list_missing(const trn_encoder_spec *spec, const int *found, trn_text *out)
{
    size_t missing = 0;
    for (size_t i = 0; i < spec->band_count; i++) {
        if (found[i] >= 0 || spec->bands[i].group >= 0) continue;
        trn_text_printf(out, "%s%s", missing ? ", " : "", spec->bands[i].name);
        missing++;
    }
    return missing;
}

static trn_status fail_bands(const trn_encoder_spec *spec, const char *problem, const char *bands,
                             const trn_band_offer *scene, size_t count, trn_error *err)
{
    trn_text has = {0};
    list_scene(scene, count, &has);
    trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' %s %s; the scene has: %s", spec->name, problem, bands,
             trn_text_get(&has));
    trn_text_free(&has);
    return TRN_ERR_ARGUMENT;
}

/* Leaves out the bands of groups that are not whole: found becomes -1. Each group is told in notes once. */
static void drop_incomplete(const trn_encoder_spec *spec, int *found, trn_text *notes)
{
    for (size_t i = 0; i < spec->band_count; i++) {
        int group = spec->bands[i].group;
        bool first = i == 0 || spec->bands[i - 1].group != group;
        if (group < 0 || !first) continue;
        trn_text all = {0}, missing = {0};
        for (size_t j = i; j < spec->band_count && spec->bands[j].group == group; j++) {
            trn_text_printf(&all, "%s%s", all.length ? ", " : "", spec->bands[j].name);
            if (found[j] < 0)
                trn_text_printf(&missing, "%s%s", missing.length ? ", " : "", spec->bands[j].name);
        }
        for (size_t j = i; missing.length && j < spec->band_count && spec->bands[j].group == group; j++)
            found[j] = -1;
        if (missing.length && notes)
            trn_text_printf(notes, "%s works without %s: the scene has no %s\n", spec->name,
                            trn_text_get(&all), trn_text_get(&missing));
        trn_text_free(&all);
        trn_text_free(&missing);
    }
}

static void list_bands(const trn_encoder_spec *spec, trn_text *out)
{
    for (size_t i = 0; i < spec->band_count; i++)
        trn_text_printf(out, "%s%s", i ? ", " : "", spec->bands[i].name);
}

static bool is_number(const char *name)
{
    return name && name[0] && !name[strspn(name, "0123456789")];
}

/* Bands that nobody named (they are called by numbers), of just the count that an encoder wants which needs
 * them all, are taken as they come; the notes say so. */
static bool take_unnamed(const trn_encoder_spec *spec, const trn_band_offer *scene, size_t scene_count,
                         int *found, trn_text *notes)
{
    if (scene_count != spec->band_count) return false;
    for (size_t i = 0; i < scene_count; i++)
        if (!is_number(scene[i].name) || spec->bands[i].group >= 0) return false;
    for (size_t i = 0; i < scene_count; i++)
        found[i] = (int)i;
    if (!notes) return true;
    trn_text_printf(notes, "%s: the scene's bands have no names; in their order they are taken as ",
                    spec->name);
    list_bands(spec, notes);
    trn_text_add(notes, "\n");
    return true;
}

static trn_status find_bands(trn_encoder *encoder, const trn_band_offer *scene, size_t scene_count,
                             int *found, trn_text *notes, trn_error *err)
{
    const trn_encoder_spec *spec = &encoder->spec;
    trn_text missing = {0};
    trn_status status = TRN_OK;
    size_t kept = 0;
    for (size_t i = 0; i < spec->band_count; i++)
        found[i] = find_scene_band(spec->bands[i].name, scene, scene_count);
    if (take_unnamed(spec, scene, scene_count, found, notes)) return TRN_OK;
    if (list_missing(spec, found, &missing)) {
        status = fail_bands(spec, "needs what is missing:", trn_text_get(&missing), scene, scene_count, err);
        goto done;
    }
    drop_incomplete(spec, found, notes);
    for (size_t i = 0; i < spec->band_count; i++)
        kept += found[i] >= 0;
    if (!kept) {
        list_bands(spec, &missing);
        status = fail_bands(spec, "needs at least one whole group of these bands:", trn_text_get(&missing),
                            scene, scene_count, err);
    }
done:
    trn_text_free(&missing);
    return status;
}

/* The spec's unit is that of the bands in use, when they have one in common. */
static void settle_unit(trn_encoder *encoder)
{
    trn_encoder_spec *spec = &encoder->spec;
    const trn_encoder_band *first = &spec->bands[encoder->chosen[0]];
    spec->unit = encoder->usual_unit;
    spec->value_scale = encoder->usual_scale;
    for (size_t i = 1; i < encoder->chosen_count; i++)
        if (spec->bands[encoder->chosen[i]].unit != first->unit) return;
    spec->unit = first->unit;
    spec->value_scale = first->value_scale;
}

static trn_status choose_known(trn_encoder *encoder, const trn_band_offer *scene, size_t scene_count,
                               int *index, size_t max, size_t *count, trn_text *notes, trn_error *err)
{
    const trn_encoder_spec *spec = &encoder->spec;
    int *found = trn_arena_array(encoder->arena, spec->band_count, sizeof *found);
    int *chosen = trn_arena_array(encoder->arena, spec->band_count, sizeof *chosen);
    if (!found || !chosen)
        return trn_fail_memory(err, spec->band_count * sizeof *found, "the choice of bands");
    trn_status status = find_bands(encoder, scene, scene_count, found, notes, err);
    if (status != TRN_OK) return status;
    size_t n = 0;
    for (size_t i = 0; i < spec->band_count; i++) {
        if (found[i] < 0) continue;
        if (n >= max)
            return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' wants more than %zu bands", spec->name, max);
        chosen[n] = (int)i;
        index[n++] = found[i];
    }
    encoder->chosen = chosen;
    encoder->chosen_count = *count = n;
    settle_unit(encoder);
    return TRN_OK;
}

static trn_status choose_any(trn_encoder *encoder, size_t scene_count, int *index, size_t max, size_t *count,
                             trn_error *err)
{
    const char *name = encoder->spec.name;
    if (encoder->image_channels && scene_count != (size_t)encoder->image_channels)
        return trn_fail(
            err, TRN_ERR_ARGUMENT,
            "encoder '%s' is set up for %d bands and the scene has %zu: choose %d of them, or name them in "
            "the setting 'bands'",
            name, encoder->image_channels, scene_count, encoder->image_channels);
    if (!scene_count || scene_count > max)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' takes 1 to %zu bands, and the scene has %zu",
                        name, max, scene_count);
    if (encoder->fit_channels && (size_t)encoder->fit_channels != scene_count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' was fitted to %d bands, and the scene has %zu",
                        name, encoder->fit_channels, scene_count);
    int *chosen = trn_arena_array(encoder->arena, scene_count, sizeof *chosen);
    if (!chosen) return trn_fail_memory(err, scene_count * sizeof *chosen, "the choice of bands");
    for (size_t i = 0; i < scene_count; i++)
        chosen[i] = index[i] = (int)i;
    encoder->chosen = chosen;
    encoder->chosen_count = *count = scene_count;
    return TRN_OK;
}

/* The family has made spec.bands what it chose: channel i is band i. */
static trn_status keep_order(trn_encoder *encoder, size_t count, trn_error *err)
{
    int *chosen = trn_arena_array(encoder->arena, count, sizeof *chosen);
    if (!chosen) return trn_fail_memory(err, count * sizeof *chosen, "the choice of bands");
    for (size_t i = 0; i < count; i++)
        chosen[i] = (int)i;
    encoder->chosen = chosen;
    encoder->chosen_count = count;
    return TRN_OK;
}

trn_status trn_encoder_choose_bands(trn_encoder *encoder, const trn_band_offer *scene_bands,
                                    size_t scene_count, int *index, size_t max, size_t *count,
                                    trn_text *notes, trn_error *err)
{
    *count = 0;
    if (encoder->family->choose_bands) {
        trn_status status =
            encoder->family->choose_bands(encoder, scene_bands, scene_count, index, max, count, notes, err);
        return status == TRN_OK ? keep_order(encoder, *count, err) : status;
    }
    if (!encoder->spec.band_count) return choose_any(encoder, scene_count, index, max, count, err);
    return choose_known(encoder, scene_bands, scene_count, index, max, count, notes, err);
}

trn_status trn_encoder_choose_all_bands(trn_encoder *encoder, size_t *count, trn_error *err)
{
    enum { MAX_BANDS = 64 };
    static const trn_band_offer any[] = {{"red", 0.665}, {"green", 0.56}, {"blue", 0.49}};
    const trn_encoder_spec *spec = &encoder->spec;
    trn_band_offer offers[MAX_BANDS];
    int index[MAX_BANDS];
    size_t offered = TRN_MIN(spec->band_count, (size_t)MAX_BANDS);
    for (size_t i = 0; i < offered; i++)
        offers[i] = (trn_band_offer){spec->bands[i].name, 0};
    if (offered)
        return trn_encoder_choose_bands(encoder, offers, offered, index, MAX_BANDS, count, NULL, err);
    offered = encoder->image_channels ? (size_t)encoder->image_channels : TRN_COUNT(any);
    for (size_t i = 0; i < offered; i++)
        offers[i] = any[i % TRN_COUNT(any)];
    return trn_encoder_choose_bands(encoder, offers, offered, index, MAX_BANDS, count, NULL, err);
}

/* ---- dates and places ---- */

trn_status trn_encoder_choose_dates(trn_encoder *encoder, size_t count, const trn_date *dates, trn_error *err)
{
    const trn_encoder_spec *spec = &encoder->spec;
    size_t least = (size_t)spec->min_dates, most = (size_t)spec->max_dates;
    if (count < least || count > most) {
        char range[64];
        if (least == most)
            snprintf(range, sizeof range, "%zu date%s", least, least == 1 ? "" : "s");
        else
            snprintf(range, sizeof range, "%zu to %zu dates", least, most);
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' takes %s, and the series has %zu", spec->name,
                        range, count);
    }
    trn_date *copy = dates ? trn_arena_array(encoder->arena, count, sizeof *copy) : NULL;
    if (dates && !copy) return trn_fail_memory(err, count * sizeof *copy, "dates");
    if (copy) memcpy(copy, dates, count * sizeof *copy);
    encoder->date_count = count;
    encoder->dates = copy;
    return TRN_OK;
}

void trn_encoder_encode_location(const trn_encoder *encoder, double latitude, double longitude, float *out)
{
    if (encoder->family->encode_location) encoder->family->encode_location(encoder, latitude, longitude, out);
}

/* ---- weights ---- */

static trn_status fill_param(void *user, const char *name, const trn_shape *shape, void *out, trn_error *err)
{
    trn_encoder *encoder = user;
    return trn_weights_read(encoder->weights, name, shape->dim, shape->ndim, out, err);
}

static bool has_param(void *user, const char *name)
{
    const trn_encoder *encoder = user;
    return trn_weights_find(encoder->weights, name) != NULL;
}

/* What a model asked for while its graph was built for nothing else. */
typedef struct wanted_list {
    const trn_encoder *encoder;
    trn_arena *arena;
    trn_wanted *items;
    size_t count, capacity;
    bool failed;
} wanted_list;

static void note_wanted(void *user, const char *name, const trn_shape *shape)
{
    wanted_list *list = user;
    for (size_t i = 0; i < list->count; i++)
        if (!strcmp(list->items[i].name, name)) return;
    char *copy = trn_arena_strdup(list->arena, name);
    if (!copy || !trn_grow(&list->items, &list->capacity, list->count + 1, sizeof *list->items)) {
        list->failed = true;
        return;
    }
    list->items[list->count++] = (trn_wanted){copy, *shape};
}

static bool list_has(void *user, const char *name)
{
    const wanted_list *list = user;
    return trn_weights_find(list->encoder->weights, name) != NULL;
}

static trn_status fill_nothing(void *user, const char *name, const trn_shape *shape, void *out,
                               trn_error *err)
{
    (void)user, (void)shape, (void)out;
    return trn_fail(err, TRN_ERR_INTERNAL, "parameter '%s' of a graph that is not to run", name);
}

/* The number of dates as it will come. */
static int64_t date_count(const trn_encoder *encoder)
{
    return encoder->date_count ? (int64_t)encoder->date_count : encoder->spec.min_dates;
}

/* Input "image" of the encoder's own tile. */
static trn_tensor *natural_image(const trn_encoder *encoder, trn_graph *graph, int64_t batch)
{
    int64_t side = encoder->spec.tile, channels = (int64_t)trn_encoder_channel_count(encoder);
    if (encoder->spec.max_dates > 1)
        return trn_input(graph, "image", TRN_F32,
                         TRN_SHAPE(batch, date_count(encoder), channels, side, side));
    return trn_input(graph, "image", TRN_F32, TRN_SHAPE(batch, channels, side, side));
}

/* Builds the encoder into a graph that is thrown away, to learn which parameters it wants. */
static trn_status collect_wanted(trn_encoder *encoder, wanted_list *list, trn_error *err)
{
    trn_graph *graph = trn_graph_create();
    if (!graph) return trn_fail_memory(err, sizeof list, "a graph");
    trn_parameters kept = encoder->parameters;
    encoder->parameters = (trn_parameters){fill_nothing, list_has, list, note_wanted};
    trn_tensor *image = natural_image(encoder, graph, 1);
    trn_status status = trn_graph_status(graph, err);
    static const trn_feature_pool pools[] = {TRN_FEATURES_MEAN, TRN_FEATURES_DENSE};
    for (size_t i = 0; i < TRN_COUNT(pools) && status == TRN_OK; i++) {
        trn_encode_options options = {.pool = pools[i]};
        trn_features features;
        status = trn_encoder_build(encoder, graph, image, &options, &features, err);
    }
    encoder->parameters = kept;
    trn_graph_destroy(graph);
    if (status == TRN_OK && list->failed)
        return trn_fail_memory(err, list->capacity * sizeof(trn_wanted), "names");
    return status;
}

trn_status trn_encoder_wanted(trn_encoder *encoder, trn_wanted **items, size_t *count, trn_error *err)
{
    wanted_list list = {.encoder = encoder, .arena = encoder->arena};
    trn_status status = collect_wanted(encoder, &list, err);
    *items = list.items;
    *count = list.count;
    if (status == TRN_OK) return TRN_OK;
    free(list.items);
    *items = NULL;
    return status;
}

static bool shape_matches(const trn_weight *weight, const trn_shape *shape)
{
    if (weight->ndim != shape->ndim) return false;
    for (int d = 0; d < shape->ndim; d++)
        if (weight->shape[d] != shape->dim[d]) return false;
    return true;
}

static void add_shape(const int64_t *dims, int ndim, trn_text *out)
{
    for (int d = 0; d < ndim; d++)
        trn_text_printf(out, "%s%lld", d ? "," : "[", (long long)dims[d]);
    trn_text_add(out, ndim ? "]" : "[]");
}

/* Fails when a wanted tensor is missing or has another shape; names the first few. */
static trn_status check_wanted(const trn_encoder *encoder, const wanted_list *list, trn_error *err)
{
    trn_text problems = {0};
    size_t missing = 0, misshaped = 0;
    for (size_t i = 0; i < list->count; i++) {
        const trn_wanted *item = &list->items[i];
        const trn_weight *weight = trn_weights_find(encoder->weights, item->name);
        if (weight && shape_matches(weight, &item->shape)) continue;
        size_t seen = missing + misshaped;
        missing += !weight;
        misshaped += weight != NULL;
        if (seen >= MAX_LISTED) continue;
        trn_text_printf(&problems, "%s'%s' ", seen ? "; " : "", item->name);
        add_shape(item->shape.dim, item->shape.ndim, &problems);
        if (!weight) {
            trn_text_add(&problems, " is missing");
            continue;
        }
        trn_text_add(&problems, " has shape ");
        add_shape(weight->shape, weight->ndim, &problems);
    }
    trn_status status = TRN_OK;
    const char *source = encoder->config->info.source;
    if (missing + misshaped)
        status = trn_fail(
            err, TRN_ERR_FORMAT,
            "weights '%s' do not fit encoder '%s': %zu tensors missing and %zu of another shape, of %zu: "
            "%s%s. Is it another model, one of other sizes (see its settings), or a port whose names are "
            "not those of %s?",
            trn_weights_path(encoder->weights), encoder->spec.name, missing, misshaped, list->count,
            trn_text_get(&problems), missing + misshaped > MAX_LISTED ? "; .." : "",
            source ? source : "the original's file");
    trn_text_free(&problems);
    return status;
}

static bool is_wanted(const wanted_list *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (!strcmp(list->items[i].name, name)) return true;
    return false;
}

static void report_loaded(const trn_encoder *encoder, const wanted_list *list, trn_text *report)
{
    uint64_t elements = 0;
    size_t left_over = 0, count = trn_weights_count(encoder->weights);
    for (size_t i = 0; i < list->count; i++)
        elements += (uint64_t)trn_shape_count(&list->items[i].shape);
    trn_text_printf(report, "%s: %zu tensors, %llu parameters from %s", encoder->spec.name, list->count,
                    (unsigned long long)elements, trn_weights_path(encoder->weights));
    for (size_t i = 0; i < count; i++) {
        const char *name = trn_weights_at(encoder->weights, i)->name;
        if (is_wanted(list, name)) continue;
        if (left_over < MAX_LISTED) trn_text_printf(report, "%s%s", left_over ? ", " : "; not used: ", name);
        left_over++;
    }
    if (left_over > MAX_LISTED) trn_text_printf(report, " and %zu more", left_over - MAX_LISTED);
    trn_text_add(report, "\n");
}

/* Takes off what the family's published files put before the names, when the names are not there as they are.
 */
static void strip_prefix(const trn_family *family, trn_weights *weights)
{
    if (!family->prefixes || trn_weights_is_synthetic(weights) || trn_weights_find(weights, family->probe))
        return;
    for (const char *const *prefix = family->prefixes; *prefix; prefix++) {
        char name[256];
        snprintf(name, sizeof name, "%s%s", *prefix, family->probe);
        if (!trn_weights_find(weights, name)) continue;
        trn_weights_strip_prefix(weights, *prefix);
        return;
    }
}

trn_status trn_encoder_load(trn_encoder *encoder, trn_weights *weights, trn_text *report, trn_error *err)
{
    if (!encoder->spec.needs_weights)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' takes no weights", encoder->spec.name);
    if (!trn_encoder_channel_count(encoder))
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' wants its bands chosen before its weights",
                        encoder->spec.name);
    wanted_list list = {.encoder = encoder, .arena = encoder->arena};
    trn_weights *before = encoder->weights;
    strip_prefix(encoder->family, weights);
    encoder->weights = weights;
    encoder->parameters = (trn_parameters){fill_param, has_param, encoder, NULL};
    trn_status status = collect_wanted(encoder, &list, err);
    if (status == TRN_OK && !trn_weights_is_synthetic(weights)) status = check_wanted(encoder, &list, err);
    if (status == TRN_OK && report) report_loaded(encoder, &list, report);
    if (status != TRN_OK) encoder->weights = before;
    free(list.items);
    return status;
}

/* ---- fitting ---- */

trn_status trn_encoder_fit(trn_encoder *encoder, const float *windows, size_t count, int channels, int side,
                           trn_error *err)
{
    const char *name = encoder->spec.name;
    if (!encoder->family->fit)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' has nothing to fit to samples", name);
    if (!count || channels < 1 || side < 1)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' cannot be fitted: no sample windows", name);
    if (encoder->chosen && encoder->chosen_count != (size_t)channels)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': samples of %d bands, but %zu bands were chosen",
                        name, channels, encoder->chosen_count);
    trn_status status = encoder->family->fit(encoder, windows, count, channels, side, err);
    return status == TRN_OK ? TRN_OK : trn_wrap(err, "encoder '%s'", name);
}

/* ---- building ---- */

void trn_build_stage(const trn_build *build, trn_tensor *tensor, const char *fmt, ...)
{
    if (!build->stage) return;
    char name[64];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    build->stage(build->stage_user, name, tensor);
}

void trn_features_grid(trn_features *features, trn_tensor *grid, double stride, double offset)
{
    int i = features->grid_count++;
    features->grids[i] = grid;
    features->stride[i] = stride;
    features->offset[i] = offset;
}

/* normalised = stored * a + b for channel i */
static void channel_affine(const trn_encoder *encoder, const trn_encode_options *options, size_t i, double *a,
                           double *b)
{
    double scale = options->value_scale ? options->value_scale[i] : 1;
    double offset = options->value_offset ? options->value_offset[i] : 0, mean = 0, std = 1;
    if (options->normalize == TRN_NORMALIZE_ZSCORE) {
        mean = options->mean[i];
        std = options->std[i];
    } else if (encoder->fit_channels) { /* statistics of stored values: their scale does not matter */
        mean = encoder->fit_mean[i];
        std = encoder->fit_std[i];
        scale = 1;
        offset = 0;
    } else if (encoder->spec.band_count) {
        const trn_encoder_band *band = &encoder->spec.bands[trn_encoder_channel_band(encoder, i)];
        mean = band->mean;
        std = band->std;
    }
    if (!(std > 0)) std = 1; /* a band that never changes */
    *a = scale / std;
    *b = (offset - mean) / std;
}

static trn_tensor *normalise(trn_encoder *encoder, trn_graph *graph, trn_tensor *image,
                             const trn_encode_options *options, trn_error *err)
{
    size_t channels = (size_t)trn_tensor_dim(image, -3);
    if (options->normalize == TRN_NORMALIZE_NONE) return image;
    float *tables = trn_arena_array(encoder->arena, 2 * channels, sizeof *tables);
    if (!tables) {
        trn_fail_memory(err, 2 * channels * sizeof *tables, "normalisation");
        return NULL;
    }
    bool same = true;
    for (size_t i = 0; i < channels; i++) {
        double a, b;
        channel_affine(encoder, options, i, &a, &b);
        tables[i] = (float)a;
        tables[channels + i] = (float)b;
        same = same && a == 1 && b == 0;
    }
    if (same) return image;
    trn_shape shape = TRN_SHAPE((int64_t)channels, 1, 1);
    trn_tensor *x = trn_mul(graph, image, trn_constant(graph, "normalise.scale", shape, tables));
    return trn_add(graph, x, trn_constant(graph, "normalise.offset", shape, tables + channels));
}

static trn_status check_ready(const trn_encoder *encoder, const trn_encode_options *options, trn_error *err)
{
    const char *name = encoder->spec.name;
    if (encoder->spec.needs_weights && !encoder->weights)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' needs weights, and none were loaded", name);
    if (encoder->spec.needs_fit && !encoder->fit_channels)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s' must be fitted to sample windows before it is built", name);
    if (options->pool == TRN_FEATURES_CLS && !encoder->spec.has_cls)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' has no class token: use pool=mean", name);
    if (options->normalize == TRN_NORMALIZE_ZSCORE && (!options->mean || !options->std))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': normalisation by z-score needs means and deviations", name);
    return TRN_OK;
}

/* The image as the family takes it: [B,C,h,w], or [B,T,C,h,w] for encoders of series. */
static trn_tensor *image_of_family(const trn_encoder *encoder, trn_graph *graph, trn_tensor *image)
{
    const trn_shape *s = trn_tensor_shape(image);
    const int64_t *d = s->dim;
    bool series = encoder->spec.max_dates > 1;
    if (series && s->ndim == 4) return trn_reshape(graph, image, TRN_SHAPE(d[0], 1, d[1], d[2], d[3]));
    if (!series && s->ndim == 5) return trn_reshape(graph, image, TRN_SHAPE(d[0], d[2], d[3], d[4]));
    return image;
}

static trn_status check_dates(const trn_encoder *encoder, int64_t dates, trn_error *err)
{
    const char *name = encoder->spec.name;
    if (dates == date_count(encoder)) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' is set up for %lld dates, and the image has %lld",
                    name, (long long)date_count(encoder), (long long)dates);
}

static trn_status check_sides(const trn_encoder *encoder, int64_t height, int64_t width, trn_error *err)
{
    const trn_encoder_spec *spec = &encoder->spec;
    if (spec->square && height != width)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' wants square windows, not %lld x %lld pixels",
                        spec->name, (long long)width, (long long)height);
    if (height % spec->side_multiple == 0 && width % spec->side_multiple == 0) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "encoder '%s' wants windows whose sides are multiples of %d, not %lld x %lld", spec->name,
                    spec->side_multiple, (long long)width, (long long)height);
}

static trn_status check_image(const trn_encoder *encoder, const trn_tensor *image, trn_error *err)
{
    const char *name = encoder->spec.name;
    char text[128];
    const trn_shape *shape = trn_tensor_shape(image);
    if (shape->ndim != 4 && shape->ndim != 5)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' wants windows [B,C,h,w] or [B,T,C,h,w], not %s",
                        name, trn_shape_text(shape, text));
    size_t channels = trn_encoder_channel_count(encoder);
    if (encoder->fit_channels) channels = (size_t)encoder->fit_channels;
    int64_t has = trn_tensor_dim(image, -3);
    if (channels && (size_t)has != channels)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' reads %zu bands, and the windows have %lld",
                        name, channels, (long long)has);
    trn_status status = check_dates(encoder, shape->ndim == 5 ? shape->dim[1] : 1, err);
    return status == TRN_OK ? check_sides(encoder, trn_tensor_dim(image, -2), trn_tensor_dim(image, -1), err)
                            : status;
}

trn_status trn_encoder_build_stages(trn_encoder *encoder, trn_graph *graph, trn_tensor *image,
                                    const trn_encode_options *options, trn_features *out,
                                    void (*stage)(void *user, const char *name, trn_tensor *tensor),
                                    void *user, trn_error *err)
{
    static const trn_encode_options defaults;
    if (!options) options = &defaults;
    *out = (trn_features){0};
    trn_status status = trn_graph_status(graph, err);
    if (status == TRN_OK) status = check_ready(encoder, options, err);
    if (status == TRN_OK) status = check_image(encoder, image, err);
    if (status != TRN_OK) return status;
    image = image_of_family(encoder, graph, image);
    trn_build build = {.scope = trn_scope_root(graph, &encoder->parameters),
                       .image = image,
                       .options = options,
                       .batch = trn_tensor_dim(image, 0),
                       .dates = date_count(encoder),
                       .height = trn_tensor_dim(image, -2),
                       .width = trn_tensor_dim(image, -1),
                       .stage = stage,
                       .stage_user = user};
    build.x = normalise(encoder, graph, image, options, err);
    if (build.x) encoder->family->build(encoder, &build, out);
    trn_graph_scope(graph, NULL);
    status = trn_graph_status(graph, err);
    if (status != TRN_OK) return trn_wrap(err, "encoder '%s'", encoder->spec.name);
    return build.x ? TRN_OK : TRN_ERR_MEMORY;
}

trn_status trn_encoder_build(trn_encoder *encoder, trn_graph *graph, trn_tensor *image,
                             const trn_encode_options *options, trn_features *out, trn_error *err)
{
    return trn_encoder_build_stages(encoder, graph, image, options, out, NULL, NULL, err);
}

/* ---- self-test ---- */

/* Windows that an encoder that learns from samples learns from. */
static trn_status fit_to_noise(trn_encoder *encoder, int channels, trn_error *err)
{
    enum { WINDOWS = 4 };
    int side = encoder->spec.tile;
    size_t count = (size_t)WINDOWS * (size_t)channels * (size_t)side * (size_t)side;
    float *values = malloc(count * sizeof *values);
    if (!values) return trn_fail_memory(err, count * sizeof *values, "sample windows");
    uint64_t name = trn_fnv1a64("self-test windows", 17, TRN_FNV_SEED);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)trn_hash_uniform(name, i);
    trn_status status = trn_encoder_fit(encoder, values, WINDOWS, channels, side, err);
    free(values);
    return status;
}

static trn_status tiny_ready(trn_encoder *encoder, int channels, trn_error *err)
{
    if (encoder->spec.needs_fit) return fit_to_noise(encoder, channels, err);
    if (!encoder->spec.needs_weights) return TRN_OK;
    trn_weights *weights;
    trn_status status = trn_weights_open_synthetic(&weights, err);
    if (status == TRN_OK) status = trn_encoder_load(encoder, weights, NULL, err);
    encoder->weights = weights;
    encoder->owns_weights = weights != NULL;
    return status;
}

static trn_status tiny_build(trn_encoder *encoder, trn_graph *graph, trn_error *err)
{
    enum { BATCH = 2 };
    trn_features dense, pooled;
    const trn_encode_options of_dense = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_DENSE};
    const trn_encode_options of_mean = {.normalize = TRN_NORMALIZE_NONE, .pool = TRN_FEATURES_MEAN};
    trn_tensor *image = natural_image(encoder, graph, BATCH);
    trn_status status = trn_encoder_build(encoder, graph, image, &of_dense, &dense, err);
    if (status == TRN_OK) status = trn_encoder_build(encoder, graph, image, &of_mean, &pooled, err);
    if (status != TRN_OK) return status;
    trn_output_add(graph, "dense", dense.grids[0]);
    trn_output_add(graph, "mean", pooled.pooled);
    return trn_graph_status(graph, err);
}

bool trn_model_tiny(size_t i, const char **family, trn_graph **graph, trn_encoder **keep, trn_error *err)
{
    *graph = NULL;
    *keep = NULL;
    if (i >= trn_family_count) return false;
    *family = trn_families[i]->name;
    trn_status status =
        create(trn_families[i], &trn_families[i]->configs[0], trn_families[i]->tiny, NULL, 0, keep, err);
    if (status != TRN_OK) return true;
    size_t channels = 0;
    status = trn_encoder_choose_all_bands(*keep, &channels, err);
    if (status == TRN_OK) status = tiny_ready(*keep, (int)channels, err);
    *graph = status == TRN_OK ? trn_graph_create() : NULL;
    if (status == TRN_OK && !*graph) status = trn_fail_memory(err, sizeof *keep, "a graph");
    if (status == TRN_OK) status = tiny_build(*keep, *graph, err);
    if (status == TRN_OK) return true;
    trn_graph_destroy(*graph);
    trn_encoder_destroy(*keep);
    *graph = NULL;
    *keep = NULL;
    return true;
}
