/* Bands: which of a scene's an encoder reads, and in what order. */
#include "models_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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
    if (!wanted) return -1; /* tables name every band, which static analysis does not know */
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

/* Bands that nobody named (they are called by numbers), of just the count that an encoder wants which needs
 * them all, are taken as they come; the notes say so. */
static bool take_unnamed(const trn_encoder_spec *spec, const trn_band_offer *scene, size_t scene_count,
                         int *found, trn_text *notes)
{
    if (scene_count != spec->band_count) return false;
    for (size_t i = 0; i < scene_count; i++)
        if (!trn_band_is_number(scene[i].name) || spec->bands[i].group >= 0) return false;
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
    static const trn_band_offer any[] = {{"red", 0.665}, {"green", 0.56}, {"blue", 0.49}};
    const trn_encoder_spec *spec = &encoder->spec;
    size_t known = spec->band_count, offered = known;
    if (!offered) offered = encoder->image_channels ? (size_t)encoder->image_channels : TRN_COUNT(any);
    trn_band_offer *offers = trn_arena_array(encoder->arena, offered, sizeof *offers);
    int *index = trn_arena_array(encoder->arena, offered, sizeof *index);
    if (!offers || !index) return trn_fail_memory(err, offered * sizeof *offers, "the choice of bands");
    for (size_t i = 0; i < offered; i++)
        offers[i] = known ? (trn_band_offer){spec->bands[i].name, 0} : any[i % TRN_COUNT(any)];
    return trn_encoder_choose_bands(encoder, offers, offered, index, offered, count, NULL, err);
}
