/* Prithvi as it was trained: the encoder sees some patches of a series, the decoder draws the others. */
#include "prithvi.h"

#include <stdlib.h>

/* ---- graph ---- */

/* One build: sizes, and where every patch's token is found. */
typedef struct masked_build {
    trn_build quiet; /* without stages: both sides have the same names for theirs */
    prithvi_grid grid;
    int64_t visible, channels;
    int32_t *shown;   /* [B*visible] rows of patches [B*L] that the encoder sees */
    int32_t *restore; /* [B*L] rows of [visible tokens of all images; mask token] */
    float *hidden;    /* [B,L] 1 where the loss counts */
} masked_build;

static bool fill_tables(masked_build *m, const trn_mask *mask)
{
    int64_t total = m->quiet.batch * m->grid.count, shown = m->quiet.batch * m->visible;
    m->shown = malloc((size_t)shown * sizeof *m->shown);
    m->restore = malloc((size_t)total * sizeof *m->restore);
    m->hidden = malloc((size_t)total * sizeof *m->hidden);
    if (!m->shown || !m->restore || !m->hidden) return false;
    for (int64_t i = 0; i < total; i++) {
        int64_t first = i / m->grid.count * m->grid.count, turn = i - first;
        int64_t row = first + mask->order[i];
        int64_t slot = i / m->grid.count * m->visible + turn;
        bool seen = turn < m->visible;
        if (seen) m->shown[slot] = (int32_t)row;
        m->restore[row] = (int32_t)(seen ? slot : shown);
        m->hidden[row] = seen ? 0 : 1;
    }
    return true;
}

static void free_tables(masked_build *m)
{
    free(m->shown);
    free(m->restore);
    free(m->hidden);
}

/* Rows of x [rows,D] that the table picks, as tokens [B,n,D] */
static trn_tensor *pick(const masked_build *m, trn_tensor *x, const char *name, const int32_t *table,
                        int64_t per_image)
{
    trn_graph *graph = m->quiet.scope.graph;
    int64_t rows = m->quiet.batch * per_image, dim = trn_tensor_dim(x, -1);
    x = trn_gather(graph, x, 0, trn_constant_int(graph, name, TRN_SHAPE(rows), table));
    return trn_reshape(graph, x, TRN_SHAPE(m->quiet.batch, per_image, dim));
}

/* The encoder over what is visible: [B,1+visible,D], normalised */
static trn_tensor *encode(const trn_encoder *encoder, const masked_build *m, const prithvi_side *side)
{
    trn_graph *graph = side->scope.graph;
    trn_block_desc desc = prithvi_block(encoder, side->dim, trn_encoder_int(encoder, PRITHVI_HEADS));
    trn_tensor *x = prithvi_embed(encoder, &m->quiet, side), *parts[2];
    x = prithvi_locate(encoder, &m->quiet, side, x);
    x = trn_reshape(graph, x, TRN_SHAPE(m->quiet.batch * m->grid.count, side->dim));
    parts[0] = prithvi_class_token(&m->quiet, side);
    parts[1] = pick(m, x, "mask.shown", m->shown, m->visible);
    x = trn_build_blocks(&m->quiet, &side->scope, trn_concat(graph, parts, 2, 1),
                         trn_encoder_int(encoder, PRITHVI_DEPTH), &desc, NULL, NULL);
    return trn_nn_layer_norm(&side->scope, "norm", x, desc.eps);
}

/* latent [B,1+visible,D] -> tokens [B,1+L,Dd], mask tokens where patches are hidden */
static trn_tensor *fill_in(const trn_encoder *encoder, const masked_build *m, const prithvi_side *side,
                           trn_tensor *latent)
{
    trn_graph *graph = side->scope.graph;
    trn_tensor *x = trn_nn_linear(&side->scope, "decoder_embed", latent, side->dim, true), *parts[2];
    trn_tensor *mask = trn_scope_param(&side->scope, "mask_token", TRN_SHAPE(1, 1, side->dim));
    trn_tensor *seen = trn_slice(graph, x, 1, 1, m->visible);
    parts[0] = trn_reshape(graph, seen, TRN_SHAPE(m->quiet.batch * m->visible, side->dim));
    parts[1] = trn_reshape(graph, mask, TRN_SHAPE(1, side->dim));
    trn_tensor *all = pick(m, trn_concat(graph, parts, 2, 0), "mask.restore", m->restore, m->grid.count);
    parts[0] = trn_slice(graph, x, 1, 0, 1);
    parts[1] = prithvi_locate(encoder, &m->quiet, side, all);
    return trn_concat(graph, parts, 2, 1);
}

/* latent -> pixels of every patch [B,L,tubelet*p*p*C] */
static trn_tensor *decode(const trn_encoder *encoder, const masked_build *m, const prithvi_side *side,
                          trn_tensor *latent, int64_t pixels)
{
    trn_block_desc desc = prithvi_block(encoder, side->dim, trn_encoder_int(encoder, PRITHVI_DECODER_HEADS));
    trn_tensor *x = fill_in(encoder, m, side, latent);
    for (int64_t i = 0; i < trn_encoder_int(encoder, PRITHVI_DECODER_DEPTH); i++) {
        trn_scope block = trn_scope_enter(&side->scope, "decoder_blocks.%d", (int)i);
        x = trn_nn_block(&block, x, &desc);
    }
    x = trn_nn_layer_norm(&side->scope, "decoder_norm", x, desc.eps);
    x = trn_slice(side->scope.graph, x, 1, 1, m->grid.count);
    return trn_nn_linear(&side->scope, "decoder_pred", x, pixels, true);
}

/* image [B,T,C,h,w] <-> patches [B,t*gh*gw,tubelet*p*p*C]; the channel is fastest */
static trn_tensor *to_patches(const masked_build *m, trn_patch_size patch, trn_tensor *x)
{
    static const int pixels_inside[] = {0, 2, 4, 3, 5, 1}, dates_inside[] = {0, 2, 1, 3};
    trn_graph *graph = m->quiet.scope.graph;
    trn_grid_size size = m->grid.size;
    int64_t batch = m->quiet.batch, values = patch.side * patch.side * m->channels;
    x = trn_reshape(graph, x,
                    TRN_SHAPE(batch * m->quiet.dates, m->channels, size.h, patch.side, size.w, patch.side));
    x = trn_permute(graph, x, pixels_inside);
    x = trn_reshape(graph, x, TRN_SHAPE(batch * m->grid.t, patch.dates, size.h * size.w, values));
    if (patch.dates > 1) x = trn_permute(graph, x, dates_inside);
    return trn_reshape(graph, x, TRN_SHAPE(batch, m->grid.count, patch.dates * values));
}

static trn_tensor *to_image(const masked_build *m, trn_patch_size patch, trn_tensor *x)
{
    static const int channels_out[] = {0, 5, 1, 3, 2, 4}, dates_out[] = {0, 2, 1, 3};
    trn_graph *graph = m->quiet.scope.graph;
    trn_grid_size size = m->grid.size;
    int64_t batch = m->quiet.batch, values = patch.side * patch.side * m->channels;
    x = trn_reshape(graph, x, TRN_SHAPE(batch * m->grid.t, size.h * size.w, patch.dates, values));
    if (patch.dates > 1) x = trn_permute(graph, x, dates_out);
    x = trn_reshape(graph, x,
                    TRN_SHAPE(batch * m->quiet.dates, size.h, size.w, patch.side, patch.side, m->channels));
    x = trn_permute(graph, x, channels_out);
    return trn_reshape(graph, x,
                       TRN_SHAPE(batch, m->quiet.dates, m->channels, m->quiet.height, m->quiet.width));
}

/* Mean square error over the hidden patches [1] */
static trn_tensor *loss_of(const masked_build *m, trn_tensor *drawn, trn_tensor *target)
{
    trn_graph *graph = m->quiet.scope.graph;
    int64_t batch = m->quiet.batch, hidden = batch * (m->grid.count - m->visible);
    trn_tensor *mask = trn_constant(graph, "mask.hidden", TRN_SHAPE(batch, m->grid.count), m->hidden);
    trn_tensor *x = trn_sub(graph, drawn, target);
    x = trn_reduce(graph, trn_mul(graph, x, x), 2, TRN_REDUCE_MEAN, false);
    x = trn_reshape(graph, trn_mul(graph, x, mask), TRN_SHAPE(1, batch * m->grid.count));
    x = trn_reduce(graph, x, 1, TRN_REDUCE_SUM, false);
    return trn_affine(graph, x, (float)(1.0 / (double)hidden), 0);
}

/* The sides of newer files have names of their own, those of the first do not. */
static trn_scope side_scope(const trn_encoder *encoder, const trn_build *build, const char *name)
{
    bool named = trn_weights_is_synthetic(encoder->weights) ||
                 trn_scope_has(&build->scope, "encoder.patch_embed.proj.weight");
    return named ? trn_scope_enter(&build->scope, "%s", name) : build->scope;
}

static trn_patch_size patch_of(const trn_encoder *encoder)
{
    return (trn_patch_size){(int)trn_encoder_int(encoder, PRITHVI_TUBELET),
                            (int)trn_encoder_int(encoder, PRITHVI_PATCH)};
}

static void build_sides(trn_encoder *encoder, const trn_build *build, const masked_build *m, trn_masked *out)
{
    trn_patch_size patch = patch_of(encoder);
    int64_t dim = trn_encoder_int(encoder, PRITHVI_DIM);
    prithvi_side first = {side_scope(encoder, build, "encoder"), "enc", dim, 0};
    prithvi_side second = {side_scope(encoder, build, "decoder"), "dec",
                           trn_encoder_int(encoder, PRITHVI_DECODER_DIM), dim};
    trn_tensor *latent = encode(encoder, m, &first);
    trn_build_stage(build, latent, "latent");
    trn_tensor *drawn =
        decode(encoder, m, &second, latent, patch.dates * patch.side * patch.side * m->channels);
    trn_build_stage(build, drawn, "pred_tokens");
    if (m->visible < m->grid.count) out->loss = loss_of(m, drawn, to_patches(m, patch, build->x));
    out->drawn = to_image(m, patch, drawn);
    trn_build_stage(build, out->loss, "loss");
}

static void build_masked(trn_encoder *encoder, const trn_build *build, const trn_mask *mask, trn_masked *out)
{
    masked_build m = {.quiet = *build,
                      .grid = prithvi_grid_of(encoder, build->dates, build->height, build->width),
                      .visible = mask->visible,
                      .channels = trn_tensor_dim(build->x, 2)};
    m.quiet.stage = NULL;
    if (fill_tables(&m, mask))
        build_sides(encoder, build, &m, out);
    else
        trn_graph_fail(build->scope.graph, "a mask of %lld patches: out of memory", (long long)m.grid.count);
    free_tables(&m);
}

/* ---- the pair ---- */

static trn_status configure_pair(trn_encoder *encoder, trn_error *err)
{
    const prithvi_state *state = encoder->state;
    const char *name = encoder->spec.name;
    int64_t dim = trn_encoder_int(encoder, PRITHVI_DECODER_DIM),
            heads = trn_encoder_int(encoder, PRITHVI_DECODER_HEADS);
    if (dim % heads || dim % 16)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': decoder_dim=%lld must be a multiple of decoder_heads=%lld and of 16",
                        name, (long long)dim, (long long)heads);
    if (state->kernel)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "encoder '%s': the decoder draws all bands of the checkpoint: leave the setting "
                        "'bands' away",
                        name);
    if (encoder->spec.location_values) encoder->spec.location_values += (int)dim;
    return TRN_OK;
}

static const char *const prefixes[] = {"_timm_module.", "module.", "model.", NULL};

const trn_masked_family prithvi_masked = {
    .probe = "encoder.patch_embed.proj.weight",
    .prefixes = prefixes,
    .configure = configure_pair,
    .patch = patch_of,
    .build = build_masked,
};
