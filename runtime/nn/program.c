/* Small networks as data: the one table of operators that recipes have in terrane.graph, what their arguments
 * may be, and how each becomes part of a graph. */
#include "nn.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NODES = 1024, MAX_INPUTS = 16, MAX_OPERANDS = 16, MAX_ARGS = 16, MAX_NAME = 64 };

/* One node while it is built. */
typedef struct site {
    trn_graph *graph;
    trn_scope outer, inner; /* the program's, and that of the node's parameters */
    char name[MAX_NAME + 16];
    const trn_program_node *node;
    const trn_program_op *op;
    trn_tensor *in[MAX_OPERANDS];
} site;

typedef trn_tensor *(*build_node)(const site *s);

/* ---- arguments: their kind and limits go by the key, the same wherever it is used ---- */

typedef enum arg_kind { ARG_INTEGER, ARG_NUMBER, ARG_FLAG, ARG_WORD } arg_kind;
typedef struct arg_rule {
    const char *key;
    arg_kind kind;
    double min, max;
    const char *words; /* "bilinear|nearest" */
} arg_rule;

static const arg_rule arg_rules[] = {
    {"channels", ARG_INTEGER, 1, 65536, NULL},
    {"kernel", ARG_INTEGER, 1, 64, NULL},
    {"stride", ARG_INTEGER, 1, 64, NULL},
    {"padding", ARG_INTEGER, 0, 64, NULL},
    {"bias", ARG_FLAG, 0, 1, NULL},
    {"eps", ARG_NUMBER, 1e-12, 1, NULL},
    {"momentum", ARG_NUMBER, 0, 1, NULL},
    {"size", ARG_INTEGER, 1, 4096, NULL},
    {"scale", ARG_NUMBER, 0.001, 64, NULL},
    {"height", ARG_INTEGER, 1, 16384, NULL},
    {"width", ARG_INTEGER, 1, 16384, NULL},
    {"mode", ARG_WORD, 0, 0, "bilinear|nearest|bicubic"},
    {"rate", ARG_NUMBER, 0, 0.99, NULL},
    {"heads", ARG_INTEGER, 1, 256, NULL},
    {"mlp_ratio", ARG_NUMBER, 0.01, 64, NULL},
    {"layer_scale", ARG_FLAG, 0, 1, NULL},
};

static const arg_rule *find_rule(const char *key)
{
    for (size_t i = 0; i < TRN_COUNT(arg_rules); i++)
        if (!strcmp(arg_rules[i].key, key)) return &arg_rules[i];
    return NULL;
}

/* "kernel=3: .." is the text of "kernel"; NULL: the operator has no such argument. */
static const char *find_text(const trn_program_op *op, const char *key)
{
    size_t length = strlen(key);
    for (const char *const *text = op->args; length && *text; text++)
        if (!strncmp(*text, key, length) && strchr("=: ", (*text)[length])) return *text;
    return NULL;
}

static const char *default_text(const char *text)
{
    size_t key = strcspn(text, "=: ");
    return text[key] == '=' ? text + key + 1 : NULL;
}

static const trn_program_arg *find_arg(const trn_program_node *node, const char *key)
{
    for (int i = 0; i < node->arg_count; i++)
        if (!strcmp(node->args[i].key, key)) return &node->args[i];
    return NULL;
}

/* What the recipe says, or the default; `otherwise` for an argument that has none. */
static double number_of(const site *s, const char *key, double otherwise)
{
    const trn_program_arg *arg = find_arg(s->node, key);
    const char *text = arg ? NULL : default_text(find_text(s->op, key));
    if (arg) return arg->number;
    if (!text) return otherwise;
    return trn_starts_with(text, "true") ? 1 : strtod(text, NULL);
}

static int64_t integer_of(const site *s, const char *key, int64_t otherwise)
{
    return (int64_t)number_of(s, key, (double)otherwise);
}

/* ---- forms of values ---- */

enum { VECTORS = 2, TOKENS = 3, MAPS = 4 }; /* the number of axes tells them apart */

static int form_of(const trn_tensor *x)
{
    return trn_tensor_shape(x)->ndim;
}

static int channel_axis(const trn_tensor *x)
{
    return form_of(x) == TOKENS ? 2 : 1;
}

static int64_t channels_of(const trn_tensor *x)
{
    return trn_tensor_dim(x, channel_axis(x));
}

static trn_tensor *fail_input(const site *s, int i, const char *wanted)
{
    char shape[128];
    return trn_graph_fail(s->graph, "input %d is %s; wanted %s", i + 1,
                          trn_shape_text(trn_tensor_shape(s->in[i]), shape), wanted);
}

static const char maps[] = "a map [B,C,h,w]", tokens[] = "tokens [B,N,C] (g.tokens makes them of a map)";

/* [B,C,h,w] <-> [B,h,w,C]; others have channels last already */
static trn_tensor *channels_last(trn_graph *graph, trn_tensor *x)
{
    return x && form_of(x) == MAPS ? trn_permute(graph, x, (const int[]){0, 2, 3, 1}) : x;
}

static trn_tensor *channels_first(trn_graph *graph, trn_tensor *x)
{
    return x && form_of(x) == MAPS ? trn_permute(graph, x, (const int[]){0, 3, 1, 2}) : x;
}

/* ---- layers with parameters ---- */

static trn_tensor *bias_param(const site *s, int64_t channels)
{
    return number_of(s, "bias", 1) != 0 ? trn_scope_param(&s->inner, "bias", TRN_SHAPE(channels)) : NULL;
}

static trn_tensor *build_conv(const site *s)
{
    trn_tensor *x = s->in[0];
    if (form_of(x) != MAPS) return fail_input(s, 0, maps);
    int64_t channels = integer_of(s, "channels", 0), kernel = integer_of(s, "kernel", 0);
    int padding = (int)integer_of(s, "padding", kernel / 2), stride = (int)integer_of(s, "stride", 1);
    if (trn_tensor_dim(x, 2) + 2 * padding < kernel || trn_tensor_dim(x, 3) + 2 * padding < kernel)
        return fail_input(s, 0, "a map that is not smaller than the kernel");
    trn_conv_desc desc = {.stride = {1, stride, stride}, .padding = {0, padding, padding}};
    trn_tensor *w = trn_scope_param(&s->inner, "weight", TRN_SHAPE(channels, channels_of(x), kernel, kernel));
    return trn_conv2d(s->graph, x, w, bias_param(s, channels), &desc);
}

static trn_tensor *build_linear(const site *s)
{
    int64_t channels = integer_of(s, "channels", 0);
    trn_tensor *x = channels_last(s->graph, s->in[0]);
    trn_tensor *w = trn_scope_param(&s->inner, "weight", TRN_SHAPE(channels, channels_of(s->in[0])));
    return channels_first(s->graph, trn_linear(s->graph, x, w, bias_param(s, channels)));
}

static trn_tensor *build_layer_norm(const site *s)
{
    int64_t channels = channels_of(s->in[0]);
    trn_tensor *w = trn_scope_param(&s->inner, "weight", TRN_SHAPE(channels));
    trn_tensor *b = trn_scope_param(&s->inner, "bias", TRN_SHAPE(channels));
    trn_tensor *x = channels_last(s->graph, s->in[0]);
    return channels_first(s->graph, trn_layer_norm(s->graph, x, w, b, (float)number_of(s, "eps", 0)));
}

static trn_tensor *build_batch_norm(const site *s)
{
    if (form_of(s->in[0]) == TOKENS) return fail_input(s, 0, "a map [B,C,h,w] or vectors [B,C]");
    return trn_nn_batch_norm(&s->outer, s->name, s->in[0], (float)number_of(s, "eps", 0),
                             (float)number_of(s, "momentum", 0));
}

/* A table of the input's own size, added. */
static trn_tensor *build_position(const site *s)
{
    trn_shape shape = *trn_tensor_shape(s->in[0]);
    if (shape.ndim == VECTORS) return fail_input(s, 0, "tokens [B,N,C] or a map [B,C,h,w]");
    shape.dim[0] = 1;
    return trn_add(s->graph, s->in[0], trn_scope_param(&s->inner, "pos_embed", shape));
}

static trn_tensor *to_tokens(trn_graph *graph, trn_tensor *x)
{
    int64_t batch = trn_tensor_dim(x, 0), cells = trn_tensor_dim(x, 2) * trn_tensor_dim(x, 3);
    return trn_reshape(graph, channels_last(graph, x), TRN_SHAPE(batch, cells, channels_of(x)));
}

static trn_tensor *to_map(trn_graph *graph, trn_tensor *x, int64_t height, int64_t width)
{
    if (!x) return NULL;
    x = trn_reshape(graph, x, TRN_SHAPE(trn_tensor_dim(x, 0), height, width, trn_tensor_dim(x, 2)));
    return channels_first(graph, x);
}

static trn_tensor *build_attention_block(const site *s)
{
    trn_tensor *x = s->in[0];
    int64_t channels = channels_of(x), heads = integer_of(s, "heads", 0);
    bool map = form_of(x) == MAPS;
    if (form_of(x) == VECTORS) return fail_input(s, 0, "a map [B,C,h,w] or tokens [B,N,C]");
    if (channels % heads)
        return trn_graph_fail(s->graph, "%lld channels cannot be divided among %lld heads",
                              (long long)channels, (long long)heads);
    trn_block_desc desc = {.heads = (int)heads,
                           .hidden = TRN_MAX((int64_t)((double)channels * number_of(s, "mlp_ratio", 0)), 1),
                           .eps = (float)number_of(s, "eps", 0),
                           .layer_scale = number_of(s, "layer_scale", 0) != 0};
    trn_graph_block_begin(s->graph);
    trn_tensor *y = trn_nn_block(&s->inner, map ? to_tokens(s->graph, x) : x, &desc);
    if (map) y = to_map(s->graph, y, trn_tensor_dim(x, 2), trn_tensor_dim(x, 3));
    trn_graph_block_end(s->graph);
    return y;
}

/* ---- without parameters ---- */

static trn_tensor *build_unary(const site *s)
{
    return trn_unary(s->graph, s->op->name, s->in[0]);
}

static trn_tensor *build_softmax(const site *s)
{
    return channels_first(s->graph, trn_softmax(s->graph, channels_last(s->graph, s->in[0])));
}

static trn_tensor *build_dropout(const site *s)
{
    return trn_nn_dropout(&s->outer, s->name, s->in[0], (float)number_of(s, "rate", 0));
}

static trn_tensor *build_drop_path(const site *s)
{
    return trn_nn_drop_path(&s->outer, s->name, s->in[0], (float)number_of(s, "rate", 0));
}

/* Vectors serve every place of a map or of tokens. */
static trn_tensor *spread(const site *s, trn_tensor *x, int form)
{
    int64_t batch = trn_tensor_dim(x, 0), channels = channels_of(x);
    if (form_of(x) != VECTORS || form == VECTORS) return x;
    return trn_reshape(s->graph, x,
                       form == MAPS ? TRN_SHAPE(batch, channels, 1, 1) : TRN_SHAPE(batch, 1, channels));
}

static bool fits(const trn_tensor *x, const trn_tensor *largest)
{
    for (int axis = 0; axis < form_of(x); axis++) {
        int64_t size = trn_tensor_dim(x, axis);
        if (size != trn_tensor_dim(largest, axis) && (axis == 0 || size != 1)) return false;
    }
    return form_of(x) == form_of(largest);
}

static int largest_input(const site *s)
{
    int best = 0;
    for (int i = 1; i < s->node->input_count; i++) {
        int more = form_of(s->in[i]) - form_of(s->in[best]);
        int64_t count = trn_shape_count(trn_tensor_shape(s->in[i]));
        if (more > 0 || (!more && count > trn_shape_count(trn_tensor_shape(s->in[best])))) best = i;
    }
    return best;
}

static trn_tensor *build_combined(const site *s)
{
    trn_tensor *largest = s->in[largest_input(s)], *sum = NULL;
    char text[128], wanted[256];
    for (int i = 0; i < s->node->input_count; i++) {
        trn_tensor *x = spread(s, s->in[i], form_of(largest));
        if (x && !fits(x, largest)) {
            snprintf(wanted, sizeof wanted, "the shape %s, or vectors of its channels",
                     trn_shape_text(trn_tensor_shape(largest), text));
            return fail_input(s, i, wanted);
        }
        if (i == 0) {
            sum = x;
        } else {
            sum = s->op->name[0] == 'a' ? trn_add(s->graph, sum, x) : trn_mul(s->graph, sum, x);
        }
    }
    return sum;
}

static trn_tensor *build_concat(const site *s)
{
    int axis = channel_axis(s->in[0]);
    for (int i = 1; i < s->node->input_count; i++) {
        trn_shape shape = *trn_tensor_shape(s->in[i]);
        if (shape.ndim == form_of(s->in[0])) shape.dim[axis] = trn_tensor_dim(s->in[0], axis);
        if (!trn_shape_equal(&shape, trn_tensor_shape(s->in[0])))
            return fail_input(s, i, "the shape of the first in all but channels");
    }
    return trn_concat(s->graph, s->in, s->node->input_count, axis);
}

static trn_tensor *build_pool(const site *s)
{
    trn_tensor *x = s->in[0];
    int size = (int)integer_of(s, "size", 2), stride = (int)integer_of(s, "stride", size);
    if (form_of(x) != MAPS) return fail_input(s, 0, maps);
    if (trn_tensor_dim(x, 2) < size || trn_tensor_dim(x, 3) < size)
        return fail_input(s, 0, "a map that is not smaller than the window");
    trn_pool_kind kind = !strcmp(s->op->name, "max_pool") ? TRN_POOL_MAX : TRN_POOL_MEAN;
    return trn_pool2d(s->graph, x, 2, kind, size, stride);
}

static bool resized_size(const site *s, int64_t *height, int64_t *width)
{
    double scale = number_of(s, "scale", 0);
    int64_t h = integer_of(s, "height", 0), w = integer_of(s, "width", 0);
    bool like = s->node->input_count == 2, sized = h || w;
    if (like + sized + (scale > 0) != 1 || (sized && (!h || !w))) return false;
    *height = like ? trn_tensor_dim(s->in[1], 2) : h;
    *width = like ? trn_tensor_dim(s->in[1], 3) : w;
    if (scale <= 0) return true;
    *height = TRN_MAX((int64_t)floor((double)trn_tensor_dim(s->in[0], 2) * scale + 0.5), 1);
    *width = TRN_MAX((int64_t)floor((double)trn_tensor_dim(s->in[0], 3) * scale + 0.5), 1);
    return *height <= 16384 && *width <= 16384;
}

static trn_tensor *build_resize(const site *s)
{
    int64_t height = 0, width = 0;
    const trn_program_arg *mode = find_arg(s->node, "mode");
    trn_resize_desc desc = {.mode = TRN_RESIZE_BILINEAR};
    for (int i = 0; i < s->node->input_count; i++)
        if (form_of(s->in[i]) != MAPS) return fail_input(s, i, maps);
    if (!resized_size(s, &height, &width))
        return trn_graph_fail(s->graph,
                              "wanted one of: scale, height and width (up to 16384), or a second map "
                              "whose size it gets");
    if (mode && !strcmp(mode->text, "nearest")) desc.mode = TRN_RESIZE_NEAREST;
    if (mode && !strcmp(mode->text, "bicubic")) desc.mode = TRN_RESIZE_BICUBIC;
    return trn_resize2d(s->graph, s->in[0], 2, (int)height, (int)width, &desc);
}

/* Over all places: [B,C] */
static trn_tensor *build_global(const site *s)
{
    trn_tensor *x = s->in[0];
    trn_reduce_kind kind = !strcmp(s->op->name, "max") ? TRN_REDUCE_MAX : TRN_REDUCE_MEAN;
    if (form_of(x) == VECTORS) return fail_input(s, 0, "a map [B,C,h,w] or tokens [B,N,C]");
    if (form_of(x) == TOKENS) return trn_reduce(s->graph, x, 1, kind, false);
    x = trn_reshape(s->graph, x, TRN_SHAPE(trn_tensor_dim(x, 0), channels_of(x), -1));
    return trn_reduce(s->graph, x, 2, kind, false);
}

static trn_tensor *build_flatten(const site *s)
{
    return trn_reshape(s->graph, s->in[0], TRN_SHAPE(trn_tensor_dim(s->in[0], 0), -1));
}

static trn_tensor *build_tokens(const site *s)
{
    if (form_of(s->in[0]) != MAPS) return fail_input(s, 0, maps);
    return to_tokens(s->graph, s->in[0]);
}

static trn_tensor *build_map(const site *s)
{
    if (form_of(s->in[0]) != TOKENS) return fail_input(s, 0, tokens);
    int64_t count = trn_tensor_dim(s->in[0], 1), side = (int64_t)floor(sqrt((double)count) + 0.5);
    int64_t height = integer_of(s, "height", 0), width = integer_of(s, "width", 0);
    if (!height) height = width ? count / width : side;
    if (!width) width = count / height;
    if (height < 1 || height * width != count)
        return trn_graph_fail(s->graph,
                              "%lld tokens do not fill a map of %lld x %lld; wanted height and width",
                              (long long)count, (long long)height, (long long)width);
    return to_map(s->graph, s->in[0], height, width);
}

/* ---- the table ---- */

#define ARGS(...) ((const char *const[]){__VA_ARGS__})
#define BIAS "bias=true: add a learned vector"

typedef struct program_op {
    trn_program_op door;
    build_node build;
} program_op;

static const program_op ops[] = {
    {{"conv", "Convolution of a map.", 1, 1,
      ARGS("channels (required): of the result", "kernel=3: side in pixels", "stride=1: step in pixels",
           "padding: zeros around the map; half the kernel when left out, so that the size stays", BIAS,
           NULL)},
     build_conv},
    {{"linear", "Linear map of channels: of vectors, of each token, of each cell of a map.", 1, 1,
      ARGS("channels (required): of the result", BIAS, NULL)},
     build_linear},
    {{"layer_norm", "Layer norm over channels, with learned scale and shift.", 1, 1,
      ARGS("eps=1e-6: added to the variance", NULL)},
     build_layer_norm},
    {{"batch_norm", "Batch norm of a map or of vectors.", 1, 1,
      ARGS("eps=1e-5: added to the variance", "momentum=0.1: share of a batch in the running statistics",
           NULL)},
     build_batch_norm},
    {{"relu", "max(x, 0)", 1, 1, ARGS(NULL)}, build_unary},
    {{"gelu", "x times the normal distribution at x", 1, 1, ARGS(NULL)}, build_unary},
    {{"gelu_tanh", "GELU by its formula with tanh", 1, 1, ARGS(NULL)}, build_unary},
    {{"silu", "x sigmoid(x)", 1, 1, ARGS(NULL)}, build_unary},
    {{"sigmoid", "1 / (1 + exp(-x))", 1, 1, ARGS(NULL)}, build_unary},
    {{"tanh", "Hyperbolic tangent.", 1, 1, ARGS(NULL)}, build_unary},
    {{"softmax", "Softmax over channels.", 1, 1, ARGS(NULL)}, build_softmax},
    {{"add", "Sum of values of one shape; vectors are added to every place of a map or token.", 2,
      MAX_OPERANDS, ARGS(NULL)},
     build_combined},
    {{"mul", "Product of values of one shape; vectors scale every place of a map or token.", 2, MAX_OPERANDS,
      ARGS(NULL)},
     build_combined},
    {{"concat", "Values side by side along channels.", 2, MAX_OPERANDS, ARGS(NULL)}, build_concat},
    {{"max_pool", "Largest value of each window of a map.", 1, 1,
      ARGS("size=2: side of the window", "stride: step; the size when left out", NULL)},
     build_pool},
    {{"mean_pool", "Mean of each window of a map.", 1, 1,
      ARGS("size=2: side of the window", "stride: step; the size when left out", NULL)},
     build_pool},
    {{"resize", "A map in another size: by a factor, to a size, or to that of a second map.", 1, 2,
      ARGS("scale: factor of height and width", "height: of the result", "width: of the result",
           "mode=bilinear: bilinear, nearest or bicubic", NULL)},
     build_resize},
    {{"mean", "Vectors: the mean over all places of a map, or over all tokens.", 1, 1, ARGS(NULL)},
     build_global},
    {{"max", "Vectors: the largest over all places of a map, or over all tokens.", 1, 1, ARGS(NULL)},
     build_global},
    {{"dropout", "In training each value is 0 with this probability, the others are scaled up.", 1, 1,
      ARGS("rate=0.1: the probability", NULL)},
     build_dropout},
    {{"drop_path", "The same of whole samples, for the branch that a g.add joins.", 1, 1,
      ARGS("rate=0.1: the probability", NULL)},
     build_drop_path},
    {{"flatten", "All values of a sample as one vector.", 1, 1, ARGS(NULL)}, build_flatten},
    {{"tokens", "A map as tokens, row by row.", 1, 1, ARGS(NULL)}, build_tokens},
    {{"map", "Tokens as a map, row by row.", 1, 1,
      ARGS("height: of the map; a square when left out", "width: of the map", NULL)},
     build_map},
    {{"position", "Adds a learned table of the size of the map or of the tokens.", 1, 1, ARGS(NULL)},
     build_position},
    {{"attention_block", "Block of a vision transformer (norm, attention, norm, MLP) over tokens or a map.",
      1, 1,
      ARGS("heads=4: of the attention; channels must be a multiple",
           "mlp_ratio=4: hidden channels of the MLP", "eps=1e-6: of the norms",
           "layer_scale=false: learned scales of both branches", NULL)},
     build_attention_block},
};

const trn_program_op *trn_program_op_at(size_t i)
{
    return i < TRN_COUNT(ops) ? &ops[i].door : NULL;
}

static const program_op *find_op(const char *name)
{
    for (size_t i = 0; name && i < TRN_COUNT(ops); i++)
        if (!strcmp(ops[i].door.name, name)) return &ops[i];
    return NULL;
}

/* ---- checks without shapes ---- */

/* What says where: "line 12: conv", without the line when there is none. */
static trn_status wrong(const trn_program_node *node, trn_error *err)
{
    const char *op = node->op ? node->op : "an operator without a name";
    return node->line > 0 ? trn_wrap(err, "line %d: %.64s", node->line, op) : trn_wrap(err, "%.64s", op);
}

static trn_status fail_op(const trn_program_node *node, trn_error *err)
{
    const char *names[TRN_COUNT(ops)];
    for (size_t i = 0; i < TRN_COUNT(ops); i++)
        names[i] = ops[i].door.name;
    const char *near =
        node->op && strlen(node->op) <= MAX_NAME ? trn_nearest(node->op, names, TRN_COUNT(ops)) : NULL;
    trn_fail(err, TRN_ERR_ARGUMENT, "there is no such operator%s%s%s", near ? "; did you mean '" : "",
             near ? near : "", near ? "'?" : "");
    return wrong(node, err);
}

static trn_status fail_key(const trn_program_op *op, const char *key, trn_error *err)
{
    trn_text known = {0};
    for (const char *const *text = op->args; *text; text++) {
        trn_text_add(&known, text == op->args ? "" : ", ");
        trn_text_add_n(&known, *text, strcspn(*text, "=: "));
    }
    trn_fail(err, TRN_ERR_ARGUMENT, "argument '%.64s' is unknown (arguments: %s)", key,
             known.length ? trn_text_get(&known) : "none");
    trn_text_free(&known);
    return TRN_ERR_ARGUMENT;
}

/* Whether `word` is one of "a|b|c". */
static bool is_one_of(const char *word, const char *words)
{
    size_t length = strlen(word);
    for (const char *at = words; *at; at += strcspn(at, "|"), at += *at == '|')
        if (length && strcspn(at, "|") == length && !strncmp(at, word, length)) return true;
    return false;
}

static trn_status check_value(const arg_rule *rule, const trn_program_arg *arg, trn_error *err)
{
    bool word = rule->kind == ARG_WORD, whole = rule->kind != ARG_NUMBER;
    double x = arg->number;
    char value[80];
    if (word && arg->text && is_one_of(arg->text, rule->words)) return TRN_OK;
    if (!word && !arg->text && x >= rule->min && x <= rule->max && (!whole || x == floor(x))) return TRN_OK;
    if (arg->text) {
        snprintf(value, sizeof value, "'%.40s'", arg->text);
    } else {
        snprintf(value, sizeof value, "%.14g", x);
    }
    if (word)
        return trn_fail(err, TRN_ERR_ARGUMENT, "argument '%s' is %s; wanted %s", rule->key, value,
                        rule->words);
    if (rule->kind == ARG_FLAG)
        return trn_fail(err, TRN_ERR_ARGUMENT, "argument '%s' is %s; wanted true or false", rule->key, value);
    return trn_fail(err, TRN_ERR_ARGUMENT, "argument '%s' is %s; wanted %s from %.14g to %.14g", rule->key,
                    value, whole ? "an integer" : "a number", rule->min, rule->max);
}

static trn_status check_args(const trn_program_node *node, const trn_program_op *op, trn_error *err)
{
    if (node->arg_count < 0 || node->arg_count > MAX_ARGS)
        return trn_fail(err, TRN_ERR_ARGUMENT, "%d arguments; wanted at most %d", node->arg_count, MAX_ARGS);
    for (int i = 0; i < node->arg_count; i++) {
        const trn_program_arg *arg = &node->args[i];
        const arg_rule *rule = arg->key ? find_rule(arg->key) : NULL;
        if (!rule || !find_text(op, arg->key)) return fail_key(op, arg->key ? arg->key : "", err);
        if (find_arg(node, arg->key) != arg)
            return trn_fail(err, TRN_ERR_ARGUMENT, "argument '%s' stands twice", arg->key);
        trn_status status = check_value(rule, arg, err);
        if (status != TRN_OK) return status;
    }
    for (const char *const *text = op->args; *text; text++) {
        char key[32];
        size_t length = strcspn(*text, "=: ");
        snprintf(key, sizeof key, "%.*s", (int)length, *text);
        if (trn_starts_with(*text + length, " (required)") && !find_arg(node, key))
            return trn_fail(err, TRN_ERR_ARGUMENT, "argument '%s' is missing", key);
    }
    return TRN_OK;
}

static trn_status check_inputs(const trn_program_node *node, const trn_program_op *op, int values,
                               trn_error *err)
{
    if (node->input_count < op->min_inputs || node->input_count > op->max_inputs) {
        char most[24] = "";
        if (op->max_inputs > op->min_inputs) snprintf(most, sizeof most, " to %d", op->max_inputs);
        return trn_fail(err, TRN_ERR_ARGUMENT, "%d values; wanted %d%s", node->input_count, op->min_inputs,
                        most);
    }
    for (int i = 0; i < node->input_count; i++)
        if (node->inputs[i] < 0 || node->inputs[i] >= values)
            return trn_fail(err, TRN_ERR_ARGUMENT, "input %d is value %d, which is not made before it", i + 1,
                            node->inputs[i]);
    return TRN_OK;
}

/* A letter first, so that no name is one of those that nodes have by themselves ("3.conv"). */
static bool is_name(const char *name)
{
    size_t length = strlen(name);
    if (length < 1 || length > MAX_NAME || name[length - 1] == '.') return false;
    for (size_t i = 0; i < length; i++) {
        bool letter = (name[i] >= 'a' && name[i] <= 'z') || (name[i] >= 'A' && name[i] <= 'Z');
        bool other = (name[i] >= '0' && name[i] <= '9') || name[i] == '_' || name[i] == '.';
        if (!letter && (!i || !other)) return false;
    }
    return true;
}

static trn_status check_name(const trn_program *program, int number, trn_error *err)
{
    const char *name = program->nodes[number].name;
    if (!name) return TRN_OK;
    if (!is_name(name))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "'%.80s' is no name; wanted at most %d letters, digits, _ and dots, a letter first",
                        name, MAX_NAME);
    for (int i = 0; i < number; i++)
        if (program->nodes[i].name && !strcmp(program->nodes[i].name, name))
            return trn_fail(err, TRN_ERR_ARGUMENT, "the name '%s' stands twice", name);
    return TRN_OK;
}

static trn_status check_node(const trn_program *program, int number, trn_error *err)
{
    const trn_program_node *node = &program->nodes[number];
    const program_op *op = find_op(node->op);
    if (!op) return fail_op(node, err);
    trn_status status = check_inputs(node, &op->door, program->input_count + number, err);
    if (status == TRN_OK) status = check_args(node, &op->door, err);
    if (status == TRN_OK) status = check_name(program, number, err);
    return status == TRN_OK ? TRN_OK : wrong(node, err);
}

trn_status trn_program_check(const trn_program *program, trn_error *err)
{
    if (program->input_count < 1 || program->input_count > MAX_INPUTS)
        return trn_fail(err, TRN_ERR_ARGUMENT, "a network of %d inputs; wanted 1 to %d", program->input_count,
                        MAX_INPUTS);
    if (program->node_count < 0 || program->node_count > MAX_NODES)
        return trn_fail(err, TRN_ERR_ARGUMENT, "a network of %d operators; wanted at most %d",
                        program->node_count, MAX_NODES);
    if (program->output < 0 || program->output >= program->input_count + program->node_count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "the network's result is value %d, which it does not have",
                        program->output);
    for (int i = 0; i < program->node_count; i++) {
        trn_status status = check_node(program, i, err);
        if (status != TRN_OK) return status;
    }
    return TRN_OK;
}

/* ---- building ---- */

/* What the result does not depend on is not built: its parameters would never learn. */
static void mark_needed(const trn_program *program, bool *needed)
{
    needed[program->output] = true;
    for (int i = program->node_count - 1; i >= 0; i--) {
        const trn_program_node *node = &program->nodes[i];
        for (int k = 0; needed[program->input_count + i] && k < node->input_count; k++)
            needed[node->inputs[k]] = true;
    }
}

static trn_tensor *build_at(const trn_scope *scope, const trn_program *program, int number,
                            trn_tensor *const *values)
{
    const trn_program_node *node = &program->nodes[number];
    const program_op *op = find_op(node->op);
    site s = {.graph = scope->graph, .outer = *scope, .node = node, .op = &op->door};
    snprintf(s.name, sizeof s.name, "%d.%s", number + 1, node->op);
    if (node->name) snprintf(s.name, sizeof s.name, "%s", node->name);
    s.inner = trn_scope_enter(scope, "%s", s.name);
    char label[sizeof scope->prefix + 128] = "";
    if (node->line > 0) snprintf(label, sizeof label, "line %d of the recipe, ", node->line);
    size_t used = strlen(label);
    snprintf(label + used, sizeof label - used, "%s (%s): ", node->op, s.inner.prefix);
    trn_graph_scope(scope->graph, label);
    for (int i = 0; i < node->input_count; i++) {
        s.in[i] = values[node->inputs[i]];
        if (!s.in[i]) return NULL;
    }
    return op->build(&s);
}

static bool check_given(const trn_scope *scope, const trn_program *program, trn_tensor *const *inputs,
                        int count)
{
    trn_error err = {0};
    if (trn_program_check(program, &err) != TRN_OK) {
        trn_graph_fail(scope->graph, "%snetwork: %s", scope->prefix, err.message);
        return false;
    }
    if (count != program->input_count) {
        trn_graph_fail(scope->graph, "%snetwork: %d inputs given; wanted %d", scope->prefix, count,
                       program->input_count);
        return false;
    }
    for (int i = 0; i < count; i++) {
        char text[128];
        int form = inputs[i] ? form_of(inputs[i]) : MAPS;
        if (form >= VECTORS && form <= MAPS) continue;
        trn_graph_fail(scope->graph, "%snetwork: input %d is %s; wanted [B,C], [B,N,C] or [B,C,h,w]",
                       scope->prefix, i + 1, trn_shape_text(trn_tensor_shape(inputs[i]), text));
        return false;
    }
    return true;
}

trn_tensor *trn_nn_program(const trn_scope *scope, const trn_program *program, trn_tensor *const *inputs,
                           int count)
{
    trn_tensor *values[MAX_INPUTS + MAX_NODES] = {NULL};
    bool needed[MAX_INPUTS + MAX_NODES] = {false};
    if (!check_given(scope, program, inputs, count)) return NULL;
    for (int i = 0; i < count; i++)
        values[i] = inputs[i];
    mark_needed(program, needed);
    for (int i = 0; i < program->node_count; i++)
        if (needed[count + i]) values[count + i] = build_at(scope, program, i, values);
    trn_graph_scope(scope->graph, NULL);
    return values[program->output];
}
