/* Weights: what an encoder asks for, whether a checkpoint has it, and the report of loading. */
#include "models_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LISTED = 8 };

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

static trn_status build_for_names(trn_encoder *encoder, trn_graph *graph, trn_error *err)
{
    static const trn_feature_pool pools[] = {TRN_FEATURES_MEAN, TRN_FEATURES_DENSE};
    trn_tensor *image = trn_encoder_natural_input(encoder, graph, 1);
    trn_status status = trn_graph_status(graph, err);
    if (status == TRN_OK && encoder->masked) return trn_masked_build_unmasked(encoder, graph, image, err);
    for (size_t i = 0; i < TRN_COUNT(pools) && status == TRN_OK; i++) {
        trn_encode_options options = {.pool = pools[i]};
        trn_features features;
        status = trn_encoder_build(encoder, graph, image, &options, &features, err);
    }
    return status;
}

/* Builds the encoder into a graph that is thrown away, to learn which parameters it wants. */
static trn_status collect_wanted(trn_encoder *encoder, wanted_list *list, trn_error *err)
{
    trn_graph *graph = trn_graph_create();
    if (!graph) return trn_fail_memory(err, sizeof list, "a graph");
    trn_parameters kept = encoder->parameters;
    encoder->parameters = (trn_parameters){fill_nothing, list_has, list, note_wanted};
    trn_status status = build_for_names(encoder, graph, err);
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

static bool fits_all(const wanted_list *list, const trn_weights *weights)
{
    for (size_t i = 0; i < list->count; i++) {
        const trn_weight *weight = trn_weights_find(weights, list->items[i].name);
        if (!weight || !shape_matches(weight, &list->items[i].shape)) return false;
    }
    return list->count > 0;
}

/* Whether the weights have all that this encoder wants with its own settings. */
static bool fits_config(const trn_model_config *config, trn_weights *weights)
{
    trn_error ignored = {0};
    trn_encoder *encoder;
    size_t channels;
    if (trn_encoder_create(config->info.name, NULL, 0, &encoder, &ignored) != TRN_OK) return false;
    wanted_list list = {.encoder = encoder, .arena = encoder->arena};
    encoder->weights = weights;
    bool fits = encoder->spec.needs_weights &&
                trn_encoder_choose_all_bands(encoder, &channels, &ignored) == TRN_OK &&
                collect_wanted(encoder, &list, &ignored) == TRN_OK && fits_all(&list, weights);
    free(list.items);
    trn_encoder_destroy(encoder);
    return fits;
}

/* Names the encoders, of any family, that the weights would fit; how many. */
static size_t list_fitting(trn_weights *weights, trn_text *out)
{
    size_t fitting = 0;
    for (size_t f = 0; f < trn_family_count; f++) {
        const trn_family *family = trn_families[f];
        if (!family->probe || !trn_weights_find(weights, family->probe)) continue;
        for (size_t i = 0; i < family->config_count; i++) {
            if (!fits_config(&family->configs[i], weights)) continue;
            trn_text_printf(out, "%s'%s'", fitting ? " or " : "", family->configs[i].info.name);
            fitting++;
        }
    }
    return fitting;
}

/* What may have gone wrong. */
static void add_advice(const trn_encoder *encoder, trn_text *out)
{
    trn_text fitting = {0};
    const char *source = encoder->config->info.source;
    if (list_fitting(encoder->weights, &fitting))
        trn_text_printf(out, "These look like the weights of %s with settings as they are by default.",
                        trn_text_get(&fitting));
    else
        trn_text_printf(out,
                        "Is it another model, one of other sizes (see its settings), or a port whose names "
                        "are not those of %s?",
                        source ? source : "the original's file");
    trn_text_free(&fitting);
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
    if (missing + misshaped) {
        trn_text_add(&problems, missing + misshaped > MAX_LISTED ? "; ... " : ". ");
        add_advice(encoder, &problems);
        status = trn_fail(
            err, TRN_ERR_FORMAT,
            "weights '%s' do not fit encoder '%s': %zu tensors missing and %zu of another shape, of %zu: %s",
            trn_weights_path(encoder->weights), encoder->spec.name, missing, misshaped, list->count,
            trn_text_get(&problems));
    }
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
static void strip_prefix(const trn_encoder *encoder, trn_weights *weights)
{
    const trn_masked_family *masked = encoder->masked;
    bool own = masked && masked->probe;
    const char *probe = own ? masked->probe : encoder->family->probe;
    const char *const *prefixes = own ? masked->prefixes : encoder->family->prefixes;
    if (!prefixes || trn_weights_is_synthetic(weights) || trn_weights_find(weights, probe)) return;
    for (const char *const *prefix = prefixes; *prefix; prefix++) {
        char name[256];
        snprintf(name, sizeof name, "%s%s", *prefix, probe);
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
    strip_prefix(encoder, weights);
    encoder->weights = weights;
    encoder->parameters = (trn_parameters){fill_param, has_param, encoder, NULL};
    trn_status status = collect_wanted(encoder, &list, err);
    if (status == TRN_OK && !trn_weights_is_synthetic(weights)) status = check_wanted(encoder, &list, err);
    if (status == TRN_OK && report) report_loaded(encoder, &list, report);
    if (status != TRN_OK) encoder->weights = before;
    free(list.items);
    return status;
}
