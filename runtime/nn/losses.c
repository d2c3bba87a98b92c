/* Losses: graphs of one number each, whose gradients trn_gradients takes. */
#include "nn.h"

/* Sums below this are of nothing. */
static const float LEAST = 1e-30F;

static trn_tensor *number(trn_graph *graph, float value)
{
    return trn_constant(graph, "loss.number", TRN_SHAPE(1), &value);
}

/* x [..] -> [1] */
static trn_tensor *sum_all(trn_graph *graph, trn_tensor *x)
{
    return trn_reduce(graph, trn_reshape(graph, x, TRN_SHAPE(-1)), 0, TRN_REDUCE_SUM, true);
}

static trn_tensor *mean_all(trn_graph *graph, trn_tensor *x)
{
    return trn_reduce(graph, trn_reshape(graph, x, TRN_SHAPE(-1)), 0, TRN_REDUCE_MEAN, true);
}

/* a / b; 0 where both are 0: a mean of nothing */
static trn_tensor *share(trn_graph *graph, trn_tensor *a, trn_tensor *b)
{
    return trn_div(graph, a, trn_max(graph, b, number(graph, LEAST)));
}

static trn_tensor *power(trn_graph *graph, trn_tensor *x, float exponent)
{
    if (exponent == 1) return x;
    if (exponent == 2) return trn_unary(graph, "square", x);
    return trn_pointwise(graph, "pow", &x, 1, &exponent, 1);
}

static bool are_floats(trn_graph *graph, const trn_tensor *a, const trn_tensor *b, const char *loss)
{
    char text[2][128];
    if (!a || !b) return false;
    if (trn_tensor_type(a) == TRN_F32 && trn_tensor_type(b) == TRN_F32 &&
        trn_shape_equal(trn_tensor_shape(a), trn_tensor_shape(b)))
        return true;
    trn_graph_fail(
        graph, "%s: it compares floats of one shape, not %s%s with %s%s", loss,
        trn_shape_text(trn_tensor_shape(a), text[0]), trn_tensor_type(a) == TRN_F32 ? "" : " of integers",
        trn_shape_text(trn_tensor_shape(b), text[1]), trn_tensor_type(b) == TRN_F32 ? "" : " of integers");
    return false;
}

/* ---- logits and labels as rows ---- */

/* x [B,C,..] -> [B*..,C] */
static trn_tensor *class_rows(trn_graph *graph, trn_tensor *x, const char *loss)
{
    char text[128];
    if (!x) return NULL;
    trn_shape shape = *trn_tensor_shape(x);
    if (trn_tensor_type(x) != TRN_F32 || shape.ndim < 2)
        return trn_graph_fail(graph, "%s: logits are floats [B,C,..], not %s%s", loss,
                              trn_shape_text(&shape, text),
                              trn_tensor_type(x) == TRN_F32 ? "" : " of integers");
    int64_t batch = shape.dim[0], classes = shape.dim[1], places = 1;
    for (int i = 2; i < shape.ndim; i++)
        places *= shape.dim[i];
    if (places > 1)
        x = trn_permute(graph, trn_reshape(graph, x, TRN_SHAPE(batch, classes, places)), (int[]){0, 2, 1});
    return trn_reshape(graph, x, TRN_SHAPE(batch * places, classes));
}

static bool labels_fit(const trn_tensor *logits, const trn_tensor *labels)
{
    const trn_shape *a = trn_tensor_shape(logits), *b = trn_tensor_shape(labels);
    if (trn_tensor_type(labels) != TRN_I32 || b->ndim != a->ndim - 1 || b->dim[0] != a->dim[0]) return false;
    for (int i = 1; i < b->ndim; i++) {
        if (b->dim[i] != a->dim[i + 1]) return false;
    }
    return true;
}

/* What the losses of classes begin with. Ignored rows of `truth` and `kept` are 0. */
typedef struct class_view {
    trn_tensor *rows;  /* logits [P,C] */
    trn_tensor *truth; /* [P,C]: 1 at the label */
    trn_tensor *kept;  /* [P,1]: 1 where there is a label */
    int64_t classes;
} class_view;

static bool view_classes(trn_graph *graph, trn_tensor *logits, trn_tensor *labels, int32_t ignored,
                         const char *loss, class_view *view)
{
    char text[2][128];
    *view = (class_view){.rows = class_rows(graph, logits, loss)};
    if (!view->rows || !labels) return false;
    if (!labels_fit(logits, labels)) {
        trn_graph_fail(graph, "%s: labels of logits %s are integers [B,..], not %s%s", loss,
                       trn_shape_text(trn_tensor_shape(logits), text[0]),
                       trn_shape_text(trn_tensor_shape(labels), text[1]),
                       trn_tensor_type(labels) == TRN_I32 ? "" : " of floats");
        return false;
    }
    view->classes = trn_tensor_dim(view->rows, 1);
    labels = trn_reshape(graph, labels, TRN_SHAPE(-1));
    view->truth = trn_one_hot(graph, labels, (int)view->classes, ignored);
    view->kept = trn_reduce(graph, view->truth, 1, TRN_REDUCE_SUM, true);
    return view->kept != NULL;
}

static bool weights_fit(trn_graph *graph, const trn_tensor *weights, int64_t count, const char *loss)
{
    char text[128];
    if (!weights) return true;
    const trn_shape *shape = trn_tensor_shape(weights);
    if (trn_tensor_type(weights) == TRN_F32 && shape->ndim == 1 && shape->dim[0] == count) return true;
    trn_graph_fail(graph, "%s: the weights %s are not one float for each of %lld classes", loss,
                   trn_shape_text(shape, text), (long long)count);
    return false;
}

/* ---- of classes ---- */

trn_tensor *trn_loss_cross_entropy(trn_graph *graph, trn_tensor *logits, trn_tensor *labels,
                                   const trn_class_loss_desc *desc)
{
    class_view view;
    float smooth = desc->label_smoothing;
    if (!view_classes(graph, logits, labels, desc->ignored, "cross entropy", &view)) return NULL;
    if (!weights_fit(graph, desc->class_weights, view.classes, "cross entropy")) return NULL;
    if (!(smooth >= 0 && smooth <= 1))
        return trn_graph_fail(graph, "cross entropy: label smoothing %g is not in [0, 1]", (double)smooth);
    trn_tensor *target = view.truth, *counted = view.kept;
    if (smooth > 0)
        target = trn_add(graph, trn_affine(graph, target, 1 - smooth, 0),
                         trn_affine(graph, view.kept, smooth / (float)view.classes, 0));
    if (desc->class_weights) {
        target = trn_mul(graph, target, desc->class_weights);
        counted = trn_mul(graph, view.truth, desc->class_weights);
    }
    trn_tensor *likelihood = trn_mul(graph, target, trn_log_softmax(graph, view.rows));
    return trn_unary(graph, "neg", share(graph, sum_all(graph, likelihood), sum_all(graph, counted)));
}

/* sum over rows: [P,C] -> [1,C] */
static trn_tensor *per_class(trn_graph *graph, trn_tensor *x)
{
    return trn_reduce(graph, x, 0, TRN_REDUCE_SUM, true);
}

/* Mean over all classes of (1 - overlap) of those that are there. */
static trn_tensor *overlap_loss(trn_graph *graph, trn_tensor *logits, trn_tensor *labels,
                                const trn_class_loss_desc *desc, bool jaccard)
{
    const char *name = jaccard ? "jaccard" : "dice";
    class_view view;
    if (!view_classes(graph, logits, labels, desc->ignored, name, &view)) return NULL;
    if (!weights_fit(graph, desc->class_weights, view.classes, name)) return NULL;
    trn_tensor *shares = trn_mul(graph, trn_softmax(graph, view.rows), view.kept);
    trn_tensor *both = per_class(graph, trn_mul(graph, shares, view.truth));
    trn_tensor *truth = per_class(graph, view.truth);
    trn_tensor *sum = trn_add(graph, per_class(graph, shares), truth);
    sum = jaccard ? trn_sub(graph, sum, both) : trn_affine(graph, sum, 0.5F, 0);
    trn_tensor *overlap = trn_div(graph, both, trn_max(graph, sum, number(graph, 1e-7F)));
    trn_tensor *there = trn_pointwise(graph, "min", (trn_tensor *[]){truth, number(graph, 1)}, 2, NULL, 0);
    trn_tensor *loss = trn_mul(graph, trn_affine(graph, overlap, -1, 1), there);
    if (!desc->class_weights) return mean_all(graph, loss);
    trn_tensor *weighted = trn_mul(graph, loss, desc->class_weights);
    return share(graph, sum_all(graph, weighted), sum_all(graph, desc->class_weights));
}

trn_tensor *trn_loss_dice(trn_graph *graph, trn_tensor *logits, trn_tensor *labels,
                          const trn_class_loss_desc *desc)
{
    return overlap_loss(graph, logits, labels, desc, false);
}

trn_tensor *trn_loss_jaccard(trn_graph *graph, trn_tensor *logits, trn_tensor *labels,
                             const trn_class_loss_desc *desc)
{
    return overlap_loss(graph, logits, labels, desc, true);
}

/* ---- focal ---- */

/* The probability of what is wrong, by the sum of the others: 1 - p would lose it where p is nearly 1. */
static trn_tensor *softmax_focal(trn_graph *graph, const class_view *view, float gamma)
{
    trn_tensor *logs = trn_log_softmax(graph, view->rows);
    trn_tensor *terms = trn_reduce(graph, trn_mul(graph, view->truth, logs), 1, TRN_REDUCE_SUM, true);
    if (gamma > 0) {
        trn_tensor *others =
            trn_mul(graph, trn_unary(graph, "exp", logs), trn_affine(graph, view->truth, -1, 1));
        trn_tensor *wrong = trn_reduce(graph, others, 1, TRN_REDUCE_SUM, true);
        terms = trn_mul(graph, terms, power(graph, wrong, gamma));
    }
    return trn_unary(graph, "neg", share(graph, sum_all(graph, terms), sum_all(graph, view->kept)));
}

/* With s = the logit, its sign turned where the class is the label: BCE = softplus(s), 1 - pt = sigmoid(s).
 */
static trn_tensor *sigmoid_focal(trn_graph *graph, const class_view *view, const trn_focal_desc *desc)
{
    trn_tensor *s = trn_mul(graph, view->rows, trn_affine(graph, view->truth, -2, 1));
    trn_tensor *terms = trn_mul(graph, trn_unary(graph, "softplus", s), view->kept);
    trn_tensor *focus = view->kept;
    if (desc->gamma > 0) {
        focus = trn_mul(graph, power(graph, trn_unary(graph, "sigmoid", s), desc->gamma), view->kept);
        terms = trn_mul(graph, terms, focus);
    }
    if (desc->alpha > 0)
        terms = trn_mul(graph, terms, trn_affine(graph, view->truth, 2 * desc->alpha - 1, 1 - desc->alpha));
    terms = per_class(graph, terms);
    if (desc->normalized)
        terms = trn_div(graph, terms, trn_max(graph, per_class(graph, focus), number(graph, 1e-6F)));
    trn_tensor *mean = share(graph, sum_all(graph, terms), sum_all(graph, view->kept));
    return desc->mean_of_classes ? trn_affine(graph, mean, 1 / (float)view->classes, 0) : mean;
}

trn_tensor *trn_loss_focal(trn_graph *graph, trn_tensor *logits, trn_tensor *labels,
                           const trn_focal_desc *desc)
{
    class_view view;
    if (!view_classes(graph, logits, labels, desc->ignored, "focal", &view)) return NULL;
    if (!(desc->gamma >= 0) || !(desc->alpha >= 0 && desc->alpha < 1))
        return trn_graph_fail(graph, "focal: gamma %g is negative or alpha %g is not in [0, 1)",
                              (double)desc->gamma, (double)desc->alpha);
    if (!desc->softmax) return sigmoid_focal(graph, &view, desc);
    if (desc->alpha > 0 || desc->normalized || desc->mean_of_classes)
        return trn_graph_fail(graph,
                              "focal: alpha, normalized and mean_of_classes are not of the softmax form");
    return softmax_focal(graph, &view, desc->gamma);
}

/* ---- of several labels ---- */

/* -log of the probability of yes (sign -1) or no (sign 1) */
static trn_tensor *surprise(trn_graph *graph, trn_tensor *logits, float sign)
{
    return trn_unary(graph, "softplus", trn_affine(graph, logits, sign, 0));
}

trn_tensor *trn_loss_binary(trn_graph *graph, trn_tensor *logits, trn_tensor *targets,
                            trn_tensor *positive_weights)
{
    if (!are_floats(graph, logits, targets, "binary cross entropy")) return NULL;
    const trn_shape *shape = trn_tensor_shape(logits);
    int axis = shape->ndim > 1 ? 1 : 0;
    trn_tensor *yes = trn_mul(graph, targets, surprise(graph, logits, -1));
    trn_tensor *no = trn_mul(graph, trn_affine(graph, targets, -1, 1), surprise(graph, logits, 1));
    if (positive_weights) {
        if (!weights_fit(graph, positive_weights, trn_tensor_dim(logits, axis), "binary cross entropy"))
            return NULL;
        trn_shape beside = {.ndim = shape->ndim - axis, .dim = {shape->dim[axis], 1, 1, 1, 1, 1}};
        yes = trn_mul(graph, yes, trn_reshape(graph, positive_weights, beside));
    }
    return mean_all(graph, trn_add(graph, yes, no));
}

trn_tensor *trn_loss_binary_balanced(trn_graph *graph, trn_tensor *logits, trn_tensor *targets)
{
    if (!are_floats(graph, logits, targets, "balanced binary cross entropy")) return NULL;
    trn_tensor *absent = trn_affine(graph, targets, -1, 1);
    trn_tensor *yes = sum_all(graph, trn_mul(graph, targets, surprise(graph, logits, -1)));
    trn_tensor *no = sum_all(graph, trn_mul(graph, absent, surprise(graph, logits, 1)));
    return trn_add(graph, share(graph, yes, sum_all(graph, targets)),
                   share(graph, no, sum_all(graph, absent)));
}

/* ---- of values and features ---- */

trn_tensor *trn_loss_mse(trn_graph *graph, trn_tensor *a, trn_tensor *b)
{
    if (!are_floats(graph, a, b, "mean squared error")) return NULL;
    return mean_all(graph, trn_unary(graph, "square", trn_sub(graph, a, b)));
}

trn_tensor *trn_loss_cosine(trn_graph *graph, trn_tensor *a, trn_tensor *b)
{
    if (!are_floats(graph, a, b, "cosine")) return NULL;
    trn_tensor *products =
        trn_mul(graph, trn_l2_normalize(graph, a, 1e-8F), trn_l2_normalize(graph, b, 1e-8F));
    trn_tensor *cosines = trn_reduce(graph, products, -1, TRN_REDUCE_SUM, true);
    return trn_affine(graph, mean_all(graph, cosines), -1, 1);
}

trn_tensor *trn_loss_distill(trn_graph *graph, trn_tensor *student, trn_tensor *teacher, float temperature)
{
    if (!are_floats(graph, student, teacher, "distillation")) return NULL;
    if (!(temperature > 0))
        return trn_graph_fail(graph, "distillation: the temperature %g is not positive", (double)temperature);
    float t = temperature;
    trn_tensor *s = class_rows(graph, trn_affine(graph, student, 1 / t, 0), "distillation");
    trn_tensor *wanted = class_rows(graph, trn_affine(graph, teacher, 1 / t, 0), "distillation");
    wanted = trn_log_softmax(graph, wanted);
    trn_tensor *apart = trn_sub(graph, wanted, trn_log_softmax(graph, s));
    trn_tensor *terms = trn_mul(graph, trn_unary(graph, "exp", wanted), apart);
    return trn_affine(graph, sum_all(graph, terms), t * t / (float)TRN_MAX(trn_tensor_dim(s, 0), 1), 0);
}
