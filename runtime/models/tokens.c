/* What transformers over patches share: tables of positions, blocks of which some outputs are features, grids
 * and averages of tokens. */
#include "models_private.h"

#include <string.h>

/* ---- settings ---- */

trn_status trn_encoder_out_indices(const trn_encoder *encoder, size_t setting, int64_t depth,
                                   trn_out_indices *out, trn_error *err)
{
    const char *text = trn_encoder_text(encoder, setting), *parts[TRN_MAX_GRIDS];
    *out = (trn_out_indices){.count = 1, .index = {(int)depth - 1}};
    if (!strcmp(text, "auto")) return TRN_OK;
    int count = trn_settings_list(encoder->arena, text, parts, TRN_MAX_GRIDS);
    bool ok = count >= 1;
    for (int i = 0; ok && i < count; i++) {
        int64_t index;
        ok = trn_parse_int(parts[i], &index) && index >= 0 && index < depth &&
             (i == 0 || index > out->index[i - 1]);
        if (ok) out->index[i] = (int)index;
    }
    out->count = count;
    if (ok) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "encoder '%s': setting %s=%s must be 1 to %d ascending numbers from 0 to %lld, separated "
                    "by commas",
                    encoder->spec.name, encoder->family->settings[setting].key, text, TRN_MAX_GRIDS,
                    (long long)depth - 1);
}

int64_t trn_encoder_hidden(const trn_encoder *encoder, size_t mlp_ratio, int64_t dim)
{
    return (int64_t)((double)dim * trn_encoder_real(encoder, mlp_ratio));
}

trn_status trn_encoder_check_hidden(const trn_encoder *encoder, size_t mlp_ratio, int64_t hidden,
                                    trn_error *err)
{
    if (hidden >= 1) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT, "encoder '%s': setting %s=%s leaves the MLP no hidden channel",
                    encoder->spec.name, encoder->family->settings[mlp_ratio].key,
                    trn_encoder_text(encoder, mlp_ratio));
}

trn_status trn_encoder_image_size(const trn_encoder *encoder, size_t setting, int64_t multiple,
                                  trn_grid_size *out, trn_error *err)
{
    enum { MAX_SIDE = 8192 };
    const char *text = trn_encoder_text(encoder, setting), *cross = strchr(text, 'x');
    char height[32] = "";
    bool ok = true;
    if (cross) {
        ok = cross - text < (ptrdiff_t)sizeof height;
        if (ok) memcpy(height, text, (size_t)(cross - text));
    }
    ok = ok && trn_parse_int(cross ? cross + 1 : text, &out->w);
    if (ok && !cross) out->h = out->w;
    if (ok && cross) ok = trn_parse_int(height, &out->h);
    ok = ok && out->h >= 1 && out->w >= 1 && out->h <= MAX_SIDE && out->w <= MAX_SIDE;
    if (ok && out->h % multiple == 0 && out->w % multiple == 0) return TRN_OK;
    return trn_fail(
        err, TRN_ERR_ARGUMENT,
        "encoder '%s': setting %s=%s must be a side in pixels, or HEIGHTxWIDTH, multiples of %lld",
        encoder->spec.name, encoder->family->settings[setting].key, text, (long long)multiple);
}

/* ---- positions ---- */

static trn_resize_desc resize_of(trn_position_resize how, trn_grid_size from, trn_grid_size to)
{
    trn_resize_desc desc = {.mode = how == TRN_POSITIONS_BILINEAR ? TRN_RESIZE_BILINEAR : TRN_RESIZE_BICUBIC,
                            .antialias = how == TRN_POSITIONS_TIMM,
                            .align_corners = how == TRN_POSITIONS_CORNERS};
    if (how != TRN_POSITIONS_META) return desc;
    /* Meta asks for a scale of (side + 0.1)/grid, and that scale, not the sizes, places the samples. */
    desc.scale[0] = (double)from.h / ((double)to.h + 0.1);
    desc.scale[1] = (double)from.w / ((double)to.w + 0.1);
    for (int axis = 0; axis < 2; axis++)
        desc.offset[axis] = 0.5 * desc.scale[axis] - 0.5;
    return desc;
}

trn_tensor *trn_resize_positions(trn_graph *graph, trn_tensor *table, int prefix, trn_grid_size from,
                                 trn_grid_size to, trn_position_resize how)
{
    if (!table || (from.h == to.h && from.w == to.w)) return table;
    int64_t dim = trn_tensor_dim(table, -1), cells = from.h * from.w;
    trn_resize_desc desc = resize_of(how, from, to);
    trn_tensor *x = prefix ? trn_slice(graph, table, 1, prefix, cells) : table;
    x = trn_reshape(graph, x, TRN_SHAPE(1, from.h, from.w, dim));
    x = trn_resize2d(graph, x, 1, (int)to.h, (int)to.w, &desc);
    x = trn_reshape(graph, x, TRN_SHAPE(1, to.h * to.w, dim));
    if (!prefix) return x;
    trn_tensor *parts[] = {trn_slice(graph, table, 1, 0, prefix), x};
    return trn_concat(graph, parts, 2, 1);
}

/* ---- blocks and tokens ---- */

trn_tensor *trn_build_blocks(const trn_build *build, const trn_scope *scope, trn_tensor *x, int64_t depth,
                             const trn_block_desc *desc, const trn_out_indices *chosen, trn_tensor **kept)
{
    int found = 0;
    int64_t built = chosen ? chosen->index[chosen->count - 1] + 1 : depth;
    for (int64_t i = 0; i < built; i++) {
        trn_scope block = trn_scope_enter(scope, "blocks.%d", (int)i);
        trn_block_desc own = *desc;
        own.drop_path = trn_drop_path_at(scope, i, depth);
        x = trn_nn_block(&block, x, &own);
        trn_build_stage(build, x, "block%02d", (int)i);
        if (chosen && found < chosen->count && chosen->index[found] == i) kept[found++] = x;
    }
    return x;
}

trn_tensor *trn_tokens_grid(const trn_build *build, trn_tensor *tokens, int64_t prefix, trn_grid_size size)
{
    trn_graph *graph = build->scope.graph;
    trn_tensor *x = prefix ? trn_slice(graph, tokens, 1, prefix, size.h * size.w) : tokens;
    return trn_reshape(graph, x, TRN_SHAPE(build->batch, size.h, size.w, trn_tensor_dim(tokens, -1)));
}

trn_tensor *trn_tokens_mean(const trn_build *build, trn_tensor *tokens, int64_t prefix)
{
    trn_graph *graph = build->scope.graph;
    trn_tensor *x = prefix ? trn_slice(graph, tokens, 1, prefix, trn_tensor_dim(tokens, 1) - prefix) : tokens;
    return trn_reduce(graph, x, 1, TRN_REDUCE_MEAN, false);
}

trn_tensor *trn_tokens_first(const trn_build *build, trn_tensor *tokens)
{
    trn_graph *graph = build->scope.graph;
    return trn_reshape(graph, trn_slice(graph, tokens, 1, 0, 1),
                       TRN_SHAPE(build->batch, trn_tensor_dim(tokens, -1)));
}
