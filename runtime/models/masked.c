/* Masked autoencoders: an encoder with the decoder that it was trained with, of any family that has one. */
#include "models_private.h"

#include <stdlib.h>
#include <string.h>

/* ---- which patches are hidden ---- */

trn_status trn_masked_visible(int64_t patches, double ratio, int64_t *visible, trn_error *err)
{
    *visible = ratio >= 0 && ratio <= 1 ? (int64_t)((double)patches * (1 - ratio)) : 0;
    if (*visible >= 1 && *visible < patches) return TRN_OK;
    return trn_fail(
        err, TRN_ERR_ARGUMENT,
        "a mask ratio of %g leaves none of %lld patches visible, or hides none: choose one between "
        "0 and 1",
        ratio, (long long)patches);
}

typedef struct ranked {
    float noise;
    int32_t patch;
} ranked;

static int compare_ranked(const void *a, const void *b)
{
    const ranked *x = a, *y = b;
    if (x->noise < y->noise) return -1;
    if (x->noise > y->noise) return 1;
    return (x->patch > y->patch) - (x->patch < y->patch);
}

trn_status trn_masked_sort(const float *noise, int64_t patches, int32_t *order, trn_error *err)
{
    if (patches < 0 || patches > INT32_MAX)
        return trn_fail(err, TRN_ERR_ARGUMENT, "a mask of %lld patches", (long long)patches);
    ranked *list = malloc((size_t)(patches + 1) * sizeof *list);
    if (!list) return trn_fail_memory(err, (size_t)patches * sizeof *list, "a mask");
    for (int64_t i = 0; i < patches; i++)
        list[i] = (ranked){noise[i], (int32_t)i};
    qsort(list, (size_t)patches, sizeof *list, compare_ranked);
    for (int64_t i = 0; i < patches; i++)
        order[i] = list[i].patch;
    free(list);
    return TRN_OK;
}

/* ---- the pair ---- */

static void list_families(trn_text *out)
{
    size_t found = 0;
    for (size_t i = 0; i < trn_family_count; i++) {
        if (!trn_families[i]->masked) continue;
        trn_text_printf(out, "%s%s", found ? ", " : "", trn_families[i]->name);
        found++;
    }
}

static trn_status add_decoder(trn_encoder *encoder, trn_error *err)
{
    encoder->masked = encoder->family->masked;
    if (encoder->masked) return encoder->masked->configure(encoder, err);
    trn_text families = {0};
    list_families(&families);
    trn_status status = trn_fail(err, TRN_ERR_ARGUMENT,
                                 "encoder '%s' has no decoder that draws images: take one of the families %s",
                                 encoder->spec.name, trn_text_get(&families));
    trn_text_free(&families);
    return status;
}

trn_status trn_masked_create(const char *name, const trn_setting *settings, size_t count, trn_encoder **out,
                             trn_error *err)
{
    trn_status status = trn_encoder_create(name, settings, count, out, err);
    if (status == TRN_OK) status = add_decoder(*out, err);
    if (status == TRN_OK) return TRN_OK;
    trn_encoder_destroy(*out);
    *out = NULL;
    return status;
}

trn_patch_size trn_masked_patch(const trn_encoder *encoder)
{
    return encoder->masked ? encoder->masked->patch(encoder) : (trn_patch_size){0};
}

/* ---- building ---- */

/* Patches of an image; sides are known to be multiples. */
static trn_status count_patches(const trn_encoder *encoder, const trn_build *build, int64_t *patches,
                                trn_error *err)
{
    trn_patch_size patch = encoder->masked->patch(encoder);
    *patches = build->dates / patch.dates * (build->height / patch.side) * (build->width / patch.side);
    if (build->dates % patch.dates)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': %lld dates are no multiple of the %d that a patch spans (tubelet)",
                        encoder->spec.name, (long long)build->dates, patch.dates);
    if (*patches <= INT32_MAX / build->batch) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': %lld images of %lld patches are too many",
                    encoder->spec.name, (long long)build->batch, (long long)*patches);
}

/* Whether the order lists every patch once; met [patches]. */
static bool is_order(const int32_t *order, int64_t patches, uint8_t *met)
{
    memset(met, 0, (size_t)patches);
    for (int64_t i = 0; i < patches; i++) {
        if (order[i] < 0 || order[i] >= patches || met[order[i]]) return false;
        met[order[i]] = 1;
    }
    return true;
}

static trn_status check_mask(const trn_encoder *encoder, const trn_build *build, const trn_mask *mask,
                             trn_error *err)
{
    int64_t patches;
    const char *name = encoder->spec.name;
    trn_status status = count_patches(encoder, build, &patches, err);
    if (status != TRN_OK) return status;
    if (mask->visible < 1 || mask->visible >= patches)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': %lld of %lld patches cannot be visible", name,
                        (long long)mask->visible, (long long)patches);
    uint8_t *met = malloc((size_t)patches);
    if (!met) return trn_fail_memory(err, (size_t)patches, "a mask");
    bool good = true;
    for (int64_t b = 0; good && b < build->batch; b++)
        good = is_order(mask->order + b * patches, patches, met);
    free(met);
    if (good) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': the mask does not list each of %lld patches once",
                    name, (long long)patches);
}

trn_status trn_masked_build_stages(trn_encoder *encoder, trn_graph *graph, trn_tensor *image,
                                   const trn_encode_options *options, const trn_mask *mask, trn_masked *out,
                                   void (*stage)(void *user, const char *name, trn_tensor *tensor),
                                   void *user, trn_error *err)
{
    trn_build build;
    trn_encode_options wanted = options ? *options : (trn_encode_options){0};
    *out = (trn_masked){0};
    wanted.pool = TRN_FEATURES_DENSE;
    if (!encoder->masked)
        return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s' was not created with its decoder",
                        encoder->spec.name);
    trn_status status = trn_build_begin(encoder, graph, image, &wanted, &build, err);
    if (status == TRN_OK) status = check_mask(encoder, &build, mask, err);
    if (status != TRN_OK) return status;
    build.stage = stage;
    build.stage_user = user;
    out->image = build.x;
    encoder->masked->build(encoder, &build, mask, out);
    return trn_build_end(encoder, &build, err);
}

trn_status trn_masked_build(trn_encoder *encoder, trn_graph *graph, trn_tensor *image,
                            const trn_encode_options *options, const trn_mask *mask, trn_masked *out,
                            trn_error *err)
{
    return trn_masked_build_stages(encoder, graph, image, options, mask, out, NULL, NULL, err);
}

trn_status trn_masked_build_unmasked(trn_encoder *encoder, trn_graph *graph, trn_tensor *image,
                                     trn_error *err)
{
    static const trn_encode_options options;
    trn_build build;
    trn_masked made = {0};
    int64_t patches;
    trn_status status = trn_build_begin(encoder, graph, image, &options, &build, err);
    if (status == TRN_OK) status = count_patches(encoder, &build, &patches, err);
    if (status != TRN_OK) return status;
    int32_t *order = malloc((size_t)(build.batch * patches) * sizeof *order);
    if (!order) return trn_fail_memory(err, (size_t)patches * sizeof *order, "a mask");
    for (int64_t i = 0; i < build.batch * patches; i++)
        order[i] = (int32_t)(i % patches);
    const trn_mask mask = {order, patches};
    encoder->masked->build(encoder, &build, &mask, &made);
    free(order);
    return trn_build_end(encoder, &build, err);
}
