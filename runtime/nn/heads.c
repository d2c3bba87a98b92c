/* Heads: from features to logits of vectors or of maps. */
#include "nn_private.h"

static const float norm_eps = 1e-6F, norm_momentum = 0.1F;
enum { USUAL_CHANNELS = 256, USUAL_CONVOLUTIONS = 4, USUAL_HEADS = 8, MAX_LAYERS = 16, MAX_DOUBLINGS = 8 };

static const char *const kind_names[] = {"linear", "mlp", "attention", "fcn", "upernet", "program"};

/* A head that is being built. */
typedef struct head {
    const trn_scope *scope;
    trn_graph *graph;
    const trn_head_desc *desc;
    const trn_head_input *in;
    bool maps;
} head;

/* "pooled [2,64], grids [2,14,14,64] [2,7,7,128]" */
static void describe_features(const trn_head_input *in, trn_text *out)
{
    char text[128];
    if (in->pooled) trn_text_printf(out, "pooled %s", trn_shape_text(trn_tensor_shape(in->pooled), text));
    for (int i = 0; i < in->grid_count; i++) {
        const char *before = i ? "" : in->pooled ? ", grids" : "grids";
        trn_text_printf(out, "%s %s", before,
                        in->grids[i] ? trn_shape_text(trn_tensor_shape(in->grids[i]), text) : "(none)");
    }
    if (!out->length) trn_text_add(out, "none");
}

static trn_tensor *fail_head(const head *h, const char *why)
{
    trn_text features = {0};
    describe_features(h->in, &features);
    trn_graph_scope(h->graph, NULL);
    trn_graph_fail(h->graph, "head '%s': %s (its features: %s)", kind_names[h->desc->kind], why,
                   trn_text_get(&features));
    trn_text_free(&features);
    return NULL;
}

/* ---- what comes in ---- */

static bool is_float(const trn_tensor *x, int ndim)
{
    return x && trn_tensor_type(x) == TRN_F32 && trn_tensor_shape(x)->ndim == ndim;
}

static bool features_fit(const head *h)
{
    const trn_head_input *in = h->in;
    bool fit = (!in->pooled || is_float(in->pooled, 2)) && in->grid_count >= 0 &&
               in->grid_count <= (int)TRN_COUNT(in->grids);
    for (int i = 0; fit && i < in->grid_count; i++)
        fit = is_float(in->grids[i], 4);
    if (!fit) fail_head(h, "features are pooled [B,C] or up to 4 grids [B,gh,gw,C]");
    return fit;
}

static bool settings_fit(const head *h)
{
    const trn_head_desc *d = h->desc;
    bool vectors_alone = d->kind == TRN_HEAD_ATTENTION;
    bool maps_alone = d->kind == TRN_HEAD_FCN || d->kind == TRN_HEAD_UPERNET;
    bool plain = d->kind == TRN_HEAD_LINEAR || d->kind == TRN_HEAD_MLP;
    const char *why = NULL;
    if (d->outputs < 1) why = "it needs at least one output";
    if (d->channels < 0 || d->layers < 0 || d->heads < 0) why = "channels, layers and heads are not negative";
    if (d->kind == TRN_HEAD_MLP && d->layers > MAX_LAYERS) why = "it has at most 16 hidden layers";
    if (d->kind == TRN_HEAD_FCN && d->layers > MAX_DOUBLINGS)
        why = "it doubles the grid with every convolution, 8 times at most";
    if (!(d->dropout >= 0 && d->dropout < 1)) why = "dropout is at least 0 and below 1";
    if (d->batch_norm && (h->maps || !plain)) why = "batch_norm is of linear and mlp heads over vectors";
    if (vectors_alone && h->maps) why = "it gives vectors, and maps are wanted: take linear, fcn or upernet";
    if (maps_alone && !h->maps) why = "it gives maps, and vectors are wanted: take linear, mlp or attention";
    if (h->in->height < 0 || h->in->width < 0 || (h->in->height > 0) != (h->in->width > 0))
        why = "height and width of maps are both above 0";
    if (why) fail_head(h, why);
    return !why;
}

/* Grid i as a map [B,C,gh,gw] */
static trn_tensor *map_of(const head *h, int i)
{
    static const int channels_first[] = {0, 3, 1, 2};
    return trn_permute(h->graph, h->in->grids[i], channels_first);
}

static trn_tensor *last_map(const head *h)
{
    if (!h->in->grid_count) return fail_head(h, "it wants a grid [B,gh,gw,C]: use dense features");
    return map_of(h, h->in->grid_count - 1);
}

/* ---- linear, MLP ---- */

/* [B,C], or cells [B,gh,gw,C] of the last grid */
static trn_tensor *rows_of(const head *h)
{
    if (h->maps)
        return h->in->grid_count ? h->in->grids[h->in->grid_count - 1]
                                 : fail_head(h, "it wants a grid [B,gh,gw,C]: use dense features");
    if (!h->in->pooled) return fail_head(h, "it wants pooled features [B,C]: choose pool=mean or cls");
    if (!h->desc->batch_norm) return h->in->pooled;
    return trn_nn_batch_norm_plain(h->scope, "norm", h->in->pooled, norm_eps, norm_momentum);
}

static trn_tensor *hidden_layers(const head *h, trn_tensor *x)
{
    int layers = h->desc->layers ? h->desc->layers : 1;
    int64_t hidden = h->desc->channels ? h->desc->channels : trn_tensor_dim(x, -1);
    trn_scope scope = trn_scope_enter(h->scope, "layers");
    char number[16];
    for (int i = 0; i < layers; i++) {
        snprintf(number, sizeof number, "%d", i);
        x = trn_unary(h->graph, "gelu", trn_nn_linear(&scope, number, x, hidden, true));
    }
    return x;
}

static trn_tensor *last_layer(const head *h, trn_tensor *x)
{
    x = trn_nn_dropout(h->scope, "dropout", x, h->desc->dropout);
    return trn_nn_linear(h->scope, "fc", x, h->desc->outputs, true);
}

static trn_tensor *build_plain(const head *h)
{
    static const int channels_first[] = {0, 3, 1, 2};
    trn_tensor *x = rows_of(h);
    if (x && h->desc->kind == TRN_HEAD_MLP) x = hidden_layers(h, x);
    x = last_layer(h, x);
    return x && h->maps ? trn_permute(h->graph, x, channels_first) : x;
}

/* ---- attention ---- */

/* How many heads share the channels evenly; 0: as asked for, it cannot be. */
static int64_t heads_over(const trn_head_desc *desc, int64_t channels)
{
    int64_t heads = desc->heads ? desc->heads : USUAL_HEADS;
    while (!desc->heads && channels % heads)
        heads--;
    return channels % heads ? 0 : heads;
}

/* Keys and values of all cells: [B,N,2*channels] */
static trn_tensor *cells_of(const head *h, int64_t channels)
{
    trn_tensor *parts[TRN_PYRAMID];
    for (int i = 0; i < h->in->grid_count; i++) {
        trn_tensor *x = h->in->grids[i];
        trn_scope level = trn_scope_enter(h->scope, "levels.%d", i);
        x = trn_reshape(h->graph, x, TRN_SHAPE(trn_tensor_dim(x, 0), -1, trn_tensor_dim(x, 3)));
        x = trn_nn_layer_norm(&level, "norm", x, norm_eps);
        parts[i] = trn_nn_linear(&level, "kv", x, 2 * channels, true);
    }
    return h->in->grid_count == 1 ? parts[0] : trn_concat(h->graph, parts, h->in->grid_count, 1);
}

static trn_tensor *build_attention(const head *h)
{
    if (!h->in->grid_count) return fail_head(h, "it wants grids [B,gh,gw,C]: use dense features");
    const trn_tensor *last = h->in->grids[h->in->grid_count - 1];
    int64_t channels = trn_tensor_dim(last, 3), batch = trn_tensor_dim(last, 0);
    int64_t heads = heads_over(h->desc, channels);
    if (!heads) return fail_head(h, "channels of the last grid cannot be divided among its heads");
    trn_tensor *kv = cells_of(h, channels);
    trn_tensor *query = trn_scope_param(h->scope, "latent", TRN_SHAPE(1, 1, channels));
    if (!kv) return NULL;
    int64_t count = trn_tensor_dim(kv, 1), size = channels / heads;
    trn_heads_layout one = {.outer = channels, .head = size, .row = channels};
    trn_heads_layout keys = {.outer = count * 2 * channels, .head = size, .row = 2 * channels}, values = keys;
    values.offset = channels;
    trn_attention_desc attention = {.outer = (int)batch,
                                    .windows = 1,
                                    .heads = (int)heads,
                                    .queries = 1,
                                    .keys = (int)count,
                                    .head_size = (int)size,
                                    .q = one,
                                    .k = keys,
                                    .v = values,
                                    .out = one,
                                    .out_shape = TRN_SHAPE(batch, channels)};
    query = trn_expand(h->graph, query, TRN_SHAPE(batch, 1, channels));
    trn_tensor *x = trn_attention(h->graph, query, kv, kv, NULL, &attention);
    return last_layer(h, trn_nn_linear(h->scope, "proj", x, channels, true));
}

/* ---- maps ---- */

/* Every pixel by itself: dropout, then a convolution of one pixel. */
static trn_tensor *classify_map(const head *h, trn_tensor *x)
{
    trn_scope scope = trn_scope_enter(h->scope, "head");
    x = trn_nn_dropout(&scope, "1", x, h->desc->dropout);
    return trn_nn_conv(&scope, "2", x, h->desc->outputs, 1, true);
}

static int64_t channels_of(const head *h)
{
    return h->desc->channels ? h->desc->channels : USUAL_CHANNELS;
}

static trn_tensor *build_fcn(const head *h)
{
    trn_scope decoder = trn_scope_enter(h->scope, "decoder");
    int stages = h->desc->layers ? h->desc->layers : USUAL_CONVOLUTIONS;
    return classify_map(h, trn_nn_fcn(&decoder, last_map(h), channels_of(h), stages));
}

static bool same_sizes(const trn_head_input *in)
{
    for (int i = 1; i < in->grid_count; i++)
        for (int axis = 1; axis < 3; axis++)
            if (trn_tensor_dim(in->grids[i], axis) != trn_tensor_dim(in->grids[0], axis)) return false;
    return true;
}

/* One grid alone serves all levels. */
static bool pyramid_of(const head *h, trn_tensor *levels[TRN_PYRAMID])
{
    trn_tensor *grids[TRN_PYRAMID];
    if (h->in->grid_count != 1 && h->in->grid_count != TRN_PYRAMID) {
        fail_head(h, "it wants 4 grids, or one for all levels: use dense features and choose 4 outputs of "
                     "the encoder (out_indices)");
        return false;
    }
    for (int i = 0; i < TRN_PYRAMID; i++)
        levels[i] = grids[i] = h->in->grid_count == 1 && i ? grids[0] : map_of(h, i);
    if (!same_sizes(h->in)) return true;
    trn_scope neck = trn_scope_enter(h->scope, "neck");
    return trn_nn_pyramid_neck(&neck, grids, levels);
}

static trn_tensor *build_upernet(const head *h)
{
    trn_tensor *levels[TRN_PYRAMID];
    trn_scope decoder = trn_scope_enter(h->scope, "decoder");
    if (!pyramid_of(h, levels)) return NULL;
    return classify_map(h, trn_nn_upernet(&decoder, levels, channels_of(h)));
}

/* ---- a network of the recipe's own ---- */

static trn_tensor *build_program(const head *h)
{
    if (!h->desc->program) return fail_head(h, "it has no network");
    trn_tensor *x = h->in->pooled && !h->maps ? h->in->pooled : last_map(h);
    return x ? trn_nn_program(h->scope, h->desc->program, &x, 1) : NULL;
}

/* ---- the whole ---- */

static trn_tensor *build_kind(const head *h)
{
    switch (h->desc->kind) {
    case TRN_HEAD_LINEAR:
    case TRN_HEAD_MLP:
        return build_plain(h);
    case TRN_HEAD_ATTENTION:
        return build_attention(h);
    case TRN_HEAD_FCN:
        return build_fcn(h);
    case TRN_HEAD_UPERNET:
        return build_upernet(h);
    case TRN_HEAD_PROGRAM:
        return build_program(h);
    }
    return NULL;
}

/* A network of the recipe's own may give anything. */
static bool logits_fit(const head *h, const trn_tensor *x)
{
    char text[128], why[256];
    const trn_shape *shape = trn_tensor_shape(x);
    if (trn_tensor_type(x) == TRN_F32 && shape->ndim == (h->maps ? 4 : 2) &&
        shape->dim[1] == h->desc->outputs)
        return true;
    snprintf(why, sizeof why, "its network gives %s, and %s of %lld outputs are wanted",
             trn_shape_text(shape, text), h->maps ? "maps [B,outputs,h,w]" : "vectors [B,outputs]",
             (long long)h->desc->outputs);
    fail_head(h, why);
    return false;
}

trn_tensor *trn_nn_head(const trn_scope *scope, const trn_head_desc *desc, const trn_head_input *input)
{
    head h = {.scope = scope,
              .graph = scope->graph,
              .desc = desc,
              .in = input,
              .maps = input->height > 0 || input->width > 0};
    if ((size_t)desc->kind >= TRN_COUNT(kind_names))
        return trn_graph_fail(scope->graph, "there is no head of kind %d", (int)desc->kind);
    if (trn_graph_status(scope->graph, NULL) != TRN_OK || !settings_fit(&h) || !features_fit(&h)) return NULL;
    trn_tensor *x = build_kind(&h);
    if (!x || !logits_fit(&h, x)) return NULL;
    trn_graph_scope(scope->graph, scope->prefix);
    if (h.maps) x = trn_nn_resize(scope, x, input->height, input->width, false);
    trn_graph_scope(scope->graph, NULL);
    return x;
}
