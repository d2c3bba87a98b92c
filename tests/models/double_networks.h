/* Hiera, DOFA and Prithvi in double, on the tape: written from the papers' and the originals' description of
 * each, not from the encoders in models/. B images a batch. */
#ifndef TEST_MODELS_DOUBLE_NETWORKS_H
#define TEST_MODELS_DOUBLE_NETWORKS_H

#include "double_tape.h"

/* ---- what they share ---- */

/* Channels `which` (0: q, 1: k, 2: v) of qkv [B,N,3,heads,d], where token n * windows + i is in window i
 * -> [B,heads,windows,N/windows,d] */
static inline tape_node *heads_of(tape *t, const tape_node *qkv, int which, int64_t batch, int64_t windows,
                                  int64_t heads, int64_t d)
{
    int64_t each = qkv->count / (batch * windows * 3 * heads * d), count = qkv->count / 3, at = 0;
    int64_t *places = tape_places(t, count);
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < heads; h++)
            for (int64_t i = 0; i < windows; i++)
                for (int64_t n = 0; n < each; n++)
                    for (int64_t m = 0; m < d; m++, at++) {
                        int64_t token = (b * each + n) * windows + i;
                        places[at] = ((token * 3 + which) * heads + h) * d + m;
                    }
    return tape_take(t, qkv, count, places);
}

/* The way back, to tokens: [B,heads,windows,n,d] -> [B,n*windows,heads*d] */
static inline tape_node *tokens_of(tape *t, const tape_node *x, int64_t batch, int64_t windows, int64_t heads,
                                   int64_t d)
{
    int64_t each = x->count / (batch * windows * heads * d), at = 0, *places = tape_places(t, x->count);
    for (int64_t b = 0; b < batch; b++)
        for (int64_t n = 0; n < each; n++)
            for (int64_t i = 0; i < windows; i++)
                for (int64_t h = 0; h < heads; h++)
                    for (int64_t m = 0; m < d; m++, at++)
                        places[at] = (((b * heads + h) * windows + i) * each + n) * d + m;
    return tape_take(t, x, x->count, places);
}

/* x [B,parts,rest] -> the largest of the parts [B,rest] */
static inline tape_node *largest_of(tape *t, const tape_node *x, int64_t batch, int64_t parts)
{
    int64_t rest = x->count / (batch * parts), *places = tape_places(t, x->count);
    for (int64_t i = 0; i < x->count; i++) {
        int64_t part = i % parts, place = i / parts % rest, b = i / (parts * rest);
        places[i] = (b * parts + part) * rest + place;
    }
    return tape_max(t, tape_take(t, x, x->count, places), parts);
}

/* Tokens from `first` on, averaged: [B,N,c] -> [B,c] */
static inline tape_node *average_tokens(tape *t, const tape_node *x, int64_t batch, int64_t c, int64_t first)
{
    int64_t tokens = x->count / (batch * c), kept = tokens - first, count = batch * kept * c;
    int64_t *places = tape_places(t, count);
    for (int64_t i = 0; i < count; i++) {
        int64_t token = first + i % kept, channel = i / kept % c, b = i / (kept * c);
        places[i] = (b * tokens + token) * c + channel;
    }
    return tape_mean(t, tape_take(t, x, count, places), kept);
}

/* fc2(GELU(fc1 x)) */
static inline tape_node *double_mlp(tape *t, const char *prefix, const char *fc1, const char *fc2,
                                    const tape_node *x, int64_t c, int64_t hidden)
{
    return tape_linear(t, prefix, fc2, tape_gelu(t, tape_linear(t, prefix, fc1, x, c, hidden)), hidden, c);
}

/* x + attention, then + MLP, of normed x [B,N,c] */
static inline tape_node *double_block(tape *t, const char *prefix, const tape_node *x, int64_t batch,
                                      int64_t c, int64_t heads, double eps)
{
    int64_t d = c / heads;
    tape_node *y = tape_linear(t, prefix, "attn.qkv", tape_norm(t, prefix, "norm1", x, c, eps), c, 3 * c);
    y = tape_attention(t, heads_of(t, y, 0, batch, 1, heads, d), heads_of(t, y, 1, batch, 1, heads, d),
                       heads_of(t, y, 2, batch, 1, heads, d), batch * heads, d);
    y = tape_linear(t, prefix, "attn.proj", tokens_of(t, y, batch, 1, heads, d), c, c);
    tape_node *z = tape_plus(t, x, y);
    y = tape_norm(t, prefix, "norm2", z, c, eps);
    return tape_plus(t, z, double_mlp(t, prefix, "mlp.fc1", "mlp.fc2", y, c, 4 * c));
}

static inline tape_node *double_blocks(tape *t, tape_node *x, int depth, int64_t batch, int64_t c,
                                       int64_t heads, double eps)
{
    for (int i = 0; i < depth; i++) {
        char prefix[32];
        snprintf(prefix, sizeof prefix, "blocks.%d.", i);
        x = double_block(t, prefix, x, batch, c, heads, eps);
    }
    return x;
}

/* How a kernel goes over images: side, step and zeros around in pixels. */
typedef struct window_rule {
    int64_t side, step, around;
} window_rule;

/* What a kernel sees: x [B,C,h,w] -> [B,gh*gw,C*side*side] */
static inline tape_node *patches_of(tape *t, const tape_node *x, int64_t batch, int64_t channels, int64_t h,
                                    int64_t w, window_rule rule)
{
    int64_t gh = (h + 2 * rule.around - rule.side) / rule.step + 1;
    int64_t gw = (w + 2 * rule.around - rule.side) / rule.step + 1;
    int64_t each = channels * rule.side * rule.side, count = batch * gh * gw * each;
    int64_t *places = tape_places(t, count);
    for (int64_t i = 0; i < count; i++) {
        int64_t patch = i / each, b = patch / (gh * gw), channel = i % each / (rule.side * rule.side);
        int64_t row = patch / gw % gh * rule.step - rule.around + i / rule.side % rule.side;
        int64_t column = patch % gw * rule.step - rule.around + i % rule.side;
        bool outside = row < 0 || row >= h || column < 0 || column >= w;
        places[i] = outside ? -1 : ((b * channels + channel) * h + row) * w + column;
    }
    return tape_take(t, x, count, places);
}

/* One row [1,c] in front of the tokens [B,n,c] of each image. */
static inline tape_node *token_in_front(tape *t, const tape_node *row, const tape_node *x, int64_t batch)
{
    int64_t c = row->count, tokens = x->count / (batch * c) + 1, count = batch * tokens * c;
    int64_t *places = tape_places(t, count);
    for (int64_t i = 0; i < count; i++) {
        int64_t token = i / c % tokens, b = i / (c * tokens);
        places[i] = token ? c + (b * (tokens - 1) + token - 1) * c + i % c : i % c;
    }
    return tape_take(t, tape_join(t, row, x), count, places);
}

/* Sines, then cosines, of a number at `count` frequencies from 1 to nearly 1/10000. `narrow`: as the
 * originals do it at run time, in float: these are values of the model, not errors. */
static inline void waves(double number, int64_t count, bool narrow, float *out)
{
    for (int64_t k = 0; k < count / 2; k++) {
        float part = (float)k / (float)(count / 2), base = (float)pow(10000, (double)part);
        float product = (float)number * (1.0F / base);
        double angle = narrow ? (double)product : number / pow(10000, (double)k / (double)(count / 2));
        out[k] = (float)sin(angle);
        out[count / 2 + k] = (float)cos(angle);
    }
}

/* ---- Hiera ---- */

typedef struct double_hiera {
    int64_t batch, bands, h, w; /* pixels */
    int64_t dim;
    int stages[4], classes;
} double_hiera;

/* Tokens [B,N,c] in order of rows -> in order of the halves of rows and columns, the finest first and the
 * unit last, so that neighbours that are pooled lie a quarter of all apart, and a unit's tokens lie one
 * number of units apart. */
static inline tape_node *unroll(tape *t, const tape_node *x, int64_t batch, int64_t h, int64_t w, int64_t c)
{
    int64_t units = (h / 8) * (w / 8), *places = tape_places(t, x->count);
    for (int64_t b = 0; b < batch; b++)
        for (int64_t row = 0; row < h; row++)
            for (int64_t column = 0; column < w; column++) {
                int64_t at = 0;
                for (int k = 0; k < 3; k++)
                    at = at * 4 + (row >> k) % 2 * 2 + (column >> k) % 2;
                at = at * units + row / 8 * (w / 8) + column / 8;
                for (int64_t m = 0; m < c; m++)
                    places[(b * h * w + at) * c + m] = ((b * h + row) * w + column) * c + m;
            }
    return tape_take(t, x, x->count, places);
}

/* in -> out channels; the pooled of four tokens become one where they differ. windows: of the block. */
static inline tape_node *hiera_block(tape *t, const char *prefix, const tape_node *x, int64_t batch,
                                     int64_t in, int64_t out, int64_t heads, int64_t windows)
{
    int64_t d = out / heads;
    bool pools = in != out;
    tape_node *normed = tape_norm(t, prefix, "norm1", x, in, 1e-6);
    tape_node *qkv = tape_linear(t, prefix, "attn.qkv", normed, in, 3 * out);
    tape_node *q = heads_of(t, qkv, 0, batch, windows, heads, d);
    if (pools) q = largest_of(t, q, batch * heads * windows, 4);
    tape_node *y = tape_attention(t, q, heads_of(t, qkv, 1, batch, windows, heads, d),
                                  heads_of(t, qkv, 2, batch, windows, heads, d), batch * heads * windows, d);
    y = tape_linear(t, prefix, "attn.proj", tokens_of(t, y, batch, windows, heads, d), out, out);
    const tape_node *shortcut = x;
    if (pools) shortcut = largest_of(t, tape_linear(t, prefix, "proj", normed, in, out), batch, 4);
    tape_node *z = tape_plus(t, shortcut, y);
    y = tape_norm(t, prefix, "norm2", z, out, 1e-6);
    return tape_plus(t, z, double_mlp(t, prefix, "mlp.fc1", "mlp.fc2", y, out, 4 * out));
}

/* image [B,bands,h,w] -> logits [B,classes] */
static inline tape_node *double_hiera_logits(tape *t, const double_hiera *net, const float *image)
{
    int64_t h = net->h / 4, w = net->w / 4, c = net->dim, heads = 1;
    int64_t units = (h / 8) * (w / 8), kernel[] = {c, net->bands, 7, 7}, places[] = {1, h * w, c};
    tape_node *x = tape_constant(t, net->batch * net->bands * net->h * net->w, image);
    x = patches_of(t, x, net->batch, net->bands, net->h, net->w, (window_rule){7, 4, 3});
    x = tape_linear_of(t, x, tape_weight(t, "patch_embed.proj.", "weight", 4, kernel),
                       tape_vector(t, "patch_embed.proj.", "bias", c));
    x = tape_plus(t, x, tape_weight(t, "", "pos_embed", 3, places));
    x = unroll(t, x, net->batch, h, w, c);
    for (int stage = 0, block = 0; stage < 4; stage++)
        for (int i = 0; i < net->stages[stage]; i++, block++) {
            /* the first block of a stage attends as the stage before */
            bool in_units = stage < 2 || (stage == 2 && i == 0), grows = stage && i == 0;
            char prefix[32];
            snprintf(prefix, sizeof prefix, "blocks.%d.", block);
            if (grows) heads *= 2;
            x = hiera_block(t, prefix, x, net->batch, c, grows ? 2 * c : c, heads, in_units ? units : 1);
            if (grows) c *= 2;
        }
    x = tape_norm(t, "", "norm", average_tokens(t, x, net->batch, c, 0), c, 1e-6);
    return tape_linear(t, "", "head.projection", x, c, net->classes);
}

/* ---- DOFA ---- */

typedef struct double_dofa {
    int64_t batch, bands, side, patch, dim, heads;
    int depth, classes;
    const double *wavelengths; /* micrometres */
} double_dofa;

enum { WAVES = 128, WAVE_HEADS = 4, WAVE_HIDDEN = 2048 };

/* [bands,WAVES]: what wavelengths are to the generator */
static inline tape_node *dofa_waves(tape *t, const double_dofa *net)
{
    float *values = tape_alloc(t->arena, net->bands * WAVES, sizeof *values);
    for (int64_t i = 0; i < net->bands; i++)
        waves((double)((float)net->wavelengths[i] * 1000.0F), WAVES, true, values + i * WAVES);
    tape_node *x = tape_constant(t, net->bands * WAVES, values);
    tape_node *y = tape_relu(t, tape_linear(t, "patch_embed.fclayer.", "w1", x, WAVES, WAVES));
    y = tape_relu(t, tape_linear(t, "patch_embed.fclayer.", "w2", y, WAVES, WAVES));
    return tape_plus(t, x, y);
}

/* One layer over all rows [rows,WAVES], norms behind. */
static inline tape_node *dofa_transformer(tape *t, const tape_node *x)
{
    static const char layer[] = "patch_embed.weight_generator.transformer_encoder.layers.0.";
    int64_t d = WAVES / WAVE_HEADS;
    tape_node *y =
        tape_linear_of(t, x, tape_matrix(t, layer, "self_attn.in_proj_weight", 3 * (int64_t)WAVES, WAVES),
                       tape_vector(t, layer, "self_attn.in_proj_bias", 3 * (int64_t)WAVES));
    y = tape_attention(t, heads_of(t, y, 0, 1, 1, WAVE_HEADS, d), heads_of(t, y, 1, 1, 1, WAVE_HEADS, d),
                       heads_of(t, y, 2, 1, 1, WAVE_HEADS, d), WAVE_HEADS, d);
    y = tape_linear(t, layer, "self_attn.out_proj", tokens_of(t, y, 1, 1, WAVE_HEADS, d), WAVES, WAVES);
    tape_node *z = tape_norm(t, layer, "norm1", tape_plus(t, x, y), WAVES, 1e-5);
    y = double_mlp(t, layer, "linear1", "linear2", z, WAVES, WAVE_HIDDEN);
    return tape_norm(t, layer, "norm2", tape_plus(t, z, y), WAVES, 1e-5);
}

static inline tape_node *hundredth(tape *t, const tape_node *x)
{
    tape_node *factor = tape_constant(t, 1, (const float[]){0});
    factor->v[0] = 0.01;
    return tape_times(t, x, factor);
}

/* The kernel [dim,bands,patch,patch] and the bias [dim] that wavelengths make. */
static inline void dofa_generate(tape *t, const double_dofa *net, tape_node **kernel, tape_node **bias)
{
    static const char generator[] = "patch_embed.weight_generator.";
    int64_t area = net->patch * net->patch, count = net->dim * net->bands * area;
    tape_node *wave = dofa_waves(t, net);
    tape_node *x = tape_join(t, tape_matrix(t, generator, "weight_tokens", WAVES, WAVES), wave);
    x = tape_join(t, x, tape_matrix(t, generator, "bias_token", 1, WAVES));
    x = dofa_transformer(t, x);
    tape_node *rows = tape_plus(t, tape_slice(t, x, WAVES * (int64_t)WAVES, net->bands * WAVES), wave);
    rows = tape_linear(t, generator, "fc_weight", rows, WAVES, area * net->dim); /* [bands,area,dim] */
    int64_t *places = tape_places(t, count);
    for (int64_t i = 0; i < count; i++)
        places[i] = i % (net->bands * area) * net->dim + i / (net->bands * area);
    *kernel = hundredth(t, tape_take(t, rows, count, places));
    x = tape_linear(t, generator, "fc_bias", tape_slice(t, x, (WAVES + net->bands) * WAVES, WAVES), WAVES,
                    net->dim);
    *bias = hundredth(t, x);
}

/* image [B,bands,side,side] -> logits [B,classes] */
static inline tape_node *double_dofa_logits(tape *t, const double_dofa *net, const float *image)
{
    int64_t c = net->dim, grid = (net->side + 2 - net->patch) / net->patch + 1, cells = grid * grid;
    int64_t token[] = {1, 1, c}, table[] = {1, 1 + cells, c};
    tape_node *kernel, *bias, *x = tape_constant(t, net->batch * net->bands * net->side * net->side, image);
    dofa_generate(t, net, &kernel, &bias);
    x = patches_of(t, x, net->batch, net->bands, net->side, net->side,
                   (window_rule){net->patch, net->patch, 1});
    x = tape_linear_of(t, x, kernel, bias);
    const tape_node *positions = tape_weight(t, "", "pos_embed", 3, table);
    x = tape_plus(t, x, tape_slice(t, positions, c, cells * c));
    tape_node *cls = tape_plus(t, tape_weight(t, "", "cls_token", 3, token), tape_slice(t, positions, 0, c));
    x = token_in_front(t, cls, x, net->batch);
    x = double_blocks(t, x, net->depth, net->batch, c, net->heads, 1e-6);
    x = tape_norm(t, "", "fc_norm", average_tokens(t, x, net->batch, c, 1), c, 1e-6);
    return tape_linear(t, "", "head", x, c, net->classes);
}

/* ---- Prithvi ---- */

typedef struct double_prithvi {
    int64_t batch, dates, bands, h, w, patch, dim, heads;
    int depth;
    const double (*times)[2]; /* [dates]: year, day of the year */
    double place[2];          /* latitude, longitude */
} double_prithvi;

/* Strength [1] times the values [count] */
static inline tape_node *prithvi_coordinate(tape *t, const char *name, const float *values, int64_t count)
{
    return tape_times(t, tape_constant(t, count, values), tape_vector(t, name, "scale", 1));
}

/* What is added to the tokens [dates,cells,dim]: where in the image and the series, when, and where. */
static inline tape_node *prithvi_positions(tape *t, const double_prithvi *net)
{
    int64_t c = net->dim, gh = net->h / net->patch, gw = net->w / net->patch, tokens = net->dates * gh * gw;
    float *fixed = tape_alloc(t->arena, tokens * c, sizeof *fixed);
    float *time = tape_alloc(t->arena, tokens * c, sizeof *time);
    float *place = tape_alloc(t->arena, c, sizeof *place);
    for (int64_t i = 0; i < tokens; i++) {
        int64_t date = i / (gh * gw), plane = c / 16 * 6;
        waves((double)(i % gw), plane, false, fixed + i * c);
        waves((double)(i / gw % gh), plane, false, fixed + i * c + plane);
        waves((double)date, c / 16 * 4, false, fixed + i * c + 2 * plane);
        waves(net->times[date][0], c / 2, true, time + i * c);
        waves(net->times[date][1], c / 2, true, time + i * c + c / 2);
    }
    waves(net->place[0], c / 2, true, place);
    waves(net->place[1], c / 2, true, place + c / 2);
    tape_node *x = tape_constant(t, tokens * c, fixed);
    x = tape_plus(t, x, prithvi_coordinate(t, "temporal_embed_enc.", time, tokens * c));
    return tape_plus(t, x, prithvi_coordinate(t, "location_embed_enc.", place, c));
}

/* image [B,dates,bands,h,w] -> features [B,dim]: the mean of the normed tokens, but for the class token */
static inline tape_node *double_prithvi_features(tape *t, const double_prithvi *net, const float *image)
{
    int64_t c = net->dim, token[] = {1, 1, c}, kernel[] = {c, net->bands, 1, net->patch, net->patch};
    tape_node *x = tape_constant(t, net->batch * net->dates * net->bands * net->h * net->w, image);
    x = patches_of(t, x, net->batch * net->dates, net->bands, net->h, net->w,
                   (window_rule){net->patch, net->patch, 0});
    x = tape_linear_of(t, x, tape_weight(t, "patch_embed.proj.", "weight", 5, kernel),
                       tape_vector(t, "patch_embed.proj.", "bias", c));
    x = tape_plus(t, x, prithvi_positions(t, net));
    x = token_in_front(t, tape_weight(t, "", "cls_token", 3, token), x, net->batch);
    x = double_blocks(t, x, net->depth, net->batch, c, net->heads, 1e-5);
    return average_tokens(t, tape_norm(t, "", "norm", x, c, 1e-5), net->batch, c, 1);
}

#endif
