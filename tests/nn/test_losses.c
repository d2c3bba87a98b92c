/* Losses and their gradients: on the first device against the originals' numbers, and by the references
 * against formulas written down here, on odd shapes. */
#include "test_device.h"
#include "test_support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nn.h"

/* ---- goldens ---- */

enum { MAX_INPUTS = 3 };

typedef struct golden {
    char id[64];
    trn_graph *graph;
    int count;
    const char *names[MAX_INPUTS];
    test_tensor data[MAX_INPUTS];
    trn_tensor *tensors[MAX_INPUTS];
    trn_tensor *weights; /* of classes, or NULL */
} golden;

typedef struct loss_case {
    const char *id; /* without "ops/" */
    trn_tensor *(*build)(golden *g);
} loss_case;

/* Of gradients: exp() of a device may be off by 3 + 2|x| units in the last place. */
static const double TOLERANCE = 1e-6, GRADIENT_TOLERANCE = 5e-6;

static bool is(const golden *g, const char *part)
{
    return strstr(g->id, part) != NULL;
}

static trn_class_loss_desc class_desc(const golden *g)
{
    return (trn_class_loss_desc){.ignored = is(g, "noignore") || is(g, "jaccard") ? -1 : 255,
                                 .label_smoothing = is(g, "_ls_") ? 0.1F : 0,
                                 .class_weights = g->weights};
}

static trn_tensor *build_cross_entropy(golden *g)
{
    trn_class_loss_desc desc = class_desc(g);
    if (g->count == 3) desc.class_weights = g->tensors[2];
    return trn_loss_cross_entropy(g->graph, g->tensors[0], g->tensors[1], &desc);
}

static trn_tensor *build_dice(golden *g)
{
    trn_class_loss_desc desc = class_desc(g);
    return trn_loss_dice(g->graph, g->tensors[0], g->tensors[1], &desc);
}

static trn_tensor *build_jaccard(golden *g)
{
    trn_class_loss_desc desc = class_desc(g);
    return trn_loss_jaccard(g->graph, g->tensors[0], g->tensors[1], &desc);
}

static trn_tensor *build_both(golden *g)
{
    trn_class_loss_desc desc = class_desc(g);
    trn_tensor *ce = trn_loss_cross_entropy(g->graph, g->tensors[0], g->tensors[1], &desc);
    trn_tensor *dice = build_dice(g);
    trn_output_add(g->graph, "ce", ce);
    trn_output_add(g->graph, "dice", dice);
    return trn_add(g->graph, ce, dice);
}

static trn_tensor *build_focal(golden *g)
{
    trn_focal_desc desc = {.ignored = is(g, "focal_softmax") ? -1 : 255,
                           .softmax = is(g, "focal_softmax"),
                           .gamma = 2,
                           .alpha = is(g, "alpha") ? 0.25F : 0,
                           .normalized = is(g, "terratorch"),
                           .mean_of_classes = is(g, "smp_head")};
    return trn_loss_focal(g->graph, g->tensors[0], g->tensors[1], &desc);
}

static trn_tensor *build_binary(golden *g)
{
    return trn_loss_binary(g->graph, g->tensors[0], g->tensors[1], g->count == 3 ? g->tensors[2] : NULL);
}

static trn_tensor *build_distill(golden *g)
{
    return trn_loss_distill(g->graph, g->tensors[0], g->tensors[1], (float)atof(strrchr(g->id, 'T') + 1));
}

static trn_tensor *build_mse(golden *g)
{
    return trn_loss_mse(g->graph, g->tensors[0], g->tensors[1]);
}

static trn_tensor *build_cosine(golden *g)
{
    return trn_loss_cosine(g->graph, g->tensors[0], g->tensors[1]);
}

static const loss_case cases[] = {
    {"cross_entropy", build_cross_entropy},
    {"cross_entropy_2d", build_cross_entropy},
    {"cross_entropy_ls_ignore", build_cross_entropy},
    {"cross_entropy_weighted", build_cross_entropy},
    {"bce_logits", build_binary},
    {"bce_logits_posweight", build_binary},
    {"kd_kl_T1", build_distill},
    {"kd_kl_T2", build_distill},
    {"kd_kl_T4", build_distill},
    {"mse", build_mse},
    {"cosine_distill", build_cosine},
    {"seg_ce_ignore_weight", build_cross_entropy},
    {"seg_ce_dice", build_both},
    {"seg_dice", build_dice},
    {"seg_dice_absent_class", build_dice},
    {"seg_dice_class_weights", build_dice},
    {"seg_dice_noignore", build_dice},
    {"seg_jaccard", build_jaccard},
    {"seg_focal_alpha", build_focal},
    {"seg_focal_plain", build_focal},
    {"seg_focal_smp_head", build_focal},
    {"seg_focal_softmax", build_focal},
    {"seg_focal_terratorch", build_focal},
};

static bool is_label(const char *name)
{
    return !strcmp(name, "labels");
}

static int32_t *as_labels(const test_tensor *data)
{
    int32_t *labels = malloc((size_t)data->count * sizeof *labels);
    assert_non_null(labels);
    for (int64_t i = 0; i < data->count; i++)
        labels[i] = (int32_t)data->data[i];
    return labels;
}

/* Class weights that the case has in its config become a constant. */
static void read_weights(golden *g)
{
    const cJSON *config = cJSON_GetObjectItem(test_golden_case(g->id), "config");
    const cJSON *list = cJSON_GetObjectItem(config, "weight"), *value;
    if (!list) list = cJSON_GetObjectItem(config, "class_weights");
    if (!list) return;
    float values[16];
    int count = 0;
    cJSON_ArrayForEach (value, list) {
        assert_true(count < 16);
        values[count++] = (float)value->valuedouble;
    }
    g->weights = trn_constant(g->graph, "weights", TRN_SHAPE(count), values);
}

static void read_inputs(golden *g)
{
    const cJSON *entry, *inputs = cJSON_GetObjectItem(test_golden_case(g->id), "inputs");
    cJSON_ArrayForEach (entry, inputs) {
        assert_true(g->count < MAX_INPUTS);
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(entry, "name"));
        test_tensor data = test_golden_input(g->id, name);
        trn_shape shape = {.ndim = data.ndim};
        memcpy(shape.dim, data.shape, (size_t)shape.ndim * sizeof *shape.dim);
        g->tensors[g->count] = trn_input(g->graph, name, is_label(name) ? TRN_I32 : TRN_F32, shape);
        g->data[g->count] = data;
        g->names[g->count++] = name;
    }
    read_weights(g);
}

static void set_inputs(const golden *g, trn_exec *exec)
{
    trn_error err = {0};
    for (int i = 0; i < g->count; i++) {
        int32_t *labels = is_label(g->names[i]) ? as_labels(&g->data[i]) : NULL;
        const void *values = labels ? (const void *)labels : g->data[i].data;
        assert_trn_ok(trn_exec_set(exec, g->names[i], values, &err), err);
        free(labels);
    }
}

static void add_gradients(golden *g, trn_tensor *loss)
{
    const cJSON *entry, *outputs = cJSON_GetObjectItem(test_golden_case(g->id), "outputs");
    trn_error err = {0};
    cJSON_ArrayForEach (entry, outputs) {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(entry, "name"));
        for (int i = 0; trn_starts_with(name, "grad_") && i < g->count; i++) {
            trn_tensor *grad = NULL;
            if (strcmp(name + strlen("grad_"), g->names[i]) != 0) continue;
            assert_trn_ok(trn_gradients(g->graph, loss, NULL, &g->tensors[i], 1, &grad, &err), err);
            assert_non_null(grad);
            trn_output_add(g->graph, name, grad);
        }
    }
}

static void compare_outputs(const golden *g, trn_exec *exec)
{
    const cJSON *entry, *outputs = cJSON_GetObjectItem(test_golden_case(g->id), "outputs");
    trn_error err = {0};
    int compared = 0, gradients = 0;
    cJSON_ArrayForEach (entry, outputs) {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItem(entry, "name"));
        bool gradient = trn_starts_with(name, "grad_");
        test_tensor expected = test_golden_output(g->id, name);
        float *actual = malloc((size_t)expected.count * sizeof *actual);
        assert_non_null(actual);
        assert_trn_ok(trn_exec_get(exec, name, actual, &err), err);
        test_compare_golden(g->id, name, actual, expected.count, gradient ? GRADIENT_TOLERANCE : TOLERANCE);
        free(actual);
        free(expected.data);
        compared++;
        gradients += gradient;
    }
    assert_true(compared > 1 && gradients > 0);
}

static void run_case(trn_gpu *device, const loss_case *c)
{
    golden g = {.graph = trn_graph_create()};
    trn_error err = {0};
    trn_exec *exec;
    snprintf(g.id, sizeof g.id, "ops/%s", c->id);
    read_inputs(&g);
    trn_tensor *loss = c->build(&g);
    assert_trn_ok(trn_graph_status(g.graph, &err), err);
    trn_output_add(g.graph, is(&g, "ce_dice") ? "loss" : "y", loss);
    add_gradients(&g, loss);
    assert_trn_ok(trn_compile(g.graph, device, &(trn_compile_options){.poison = true}, &exec, &err), err);
    set_inputs(&g, exec);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    compare_outputs(&g, exec);
    trn_exec_destroy(exec);
    trn_graph_destroy(g.graph);
    for (int i = 0; i < g.count; i++)
        free(g.data[i].data);
}

static void losses_are_the_originals(void **state)
{
    (void)state;
    const char *only = getenv("TERRANE_TEST_CASE"); /* part of a case's name, for looking into one */
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        if (!only || strstr(cases[i].id, only)) run_case(gpu, &cases[i]);
    }
}

/* ---- formulas in double, on odd shapes ---- */

enum { B = 3, C = 5, PLACES = 7 * 3, N = B * C * PLACES, P = B * PLACES, IGNORED = -100 };

typedef struct formula {
    double logits[N], targets[N], weights[C];
    int32_t labels[P];
    float gamma, alpha, smoothing;
} formula;

static double logit(const formula *f, int place, int c)
{
    return f->logits[(place / PLACES * C + c) * PLACES + place % PLACES];
}

static double log_share(const formula *f, int place, int c)
{
    double sum = 0;
    for (int k = 0; k < C; k++)
        sum += exp(logit(f, place, k));
    return logit(f, place, c) - log(sum);
}

static double cross_entropy_formula(const formula *f)
{
    double sum = 0, counted = 0;
    for (int p = 0; p < P; p++) {
        if (f->labels[p] == IGNORED) continue;
        counted += f->weights[f->labels[p]];
        for (int c = 0; c < C; c++) {
            double q = (double)f->smoothing / C + (c == f->labels[p] ? 1 - (double)f->smoothing : 0);
            sum -= f->weights[c] * q * log_share(f, p, c);
        }
    }
    return sum / counted;
}

static double softmax_focal_formula(const formula *f)
{
    double sum = 0;
    int kept = 0;
    for (int p = 0; p < P; p++) {
        if (f->labels[p] == IGNORED) continue;
        double l = log_share(f, p, f->labels[p]);
        sum -= pow(1 - exp(l), (double)f->gamma) * l;
        kept++;
    }
    return sum / kept;
}

static double sigmoid_focal_formula(const formula *f)
{
    double total = 0;
    for (int c = 0; c < C; c++) {
        double sum = 0;
        int kept = 0;
        for (int p = 0; p < P; p++) {
            if (f->labels[p] == IGNORED) continue;
            bool yes = f->labels[p] == c;
            double right = 1 / (1 + exp(yes ? -logit(f, p, c) : logit(f, p, c)));
            double a = (double)f->alpha;
            sum -= (yes ? a : 1 - a) * pow(1 - right, (double)f->gamma) * log(right);
            kept++;
        }
        total += sum / kept;
    }
    return total;
}

static double balanced_formula(const formula *f)
{
    double yes = 0, no = 0, there = 0, absent = 0;
    for (int i = 0; i < N; i++) {
        yes += f->targets[i] * log(1 + exp(-f->logits[i]));
        no += (1 - f->targets[i]) * log(1 + exp(f->logits[i]));
        there += f->targets[i];
        absent += 1 - f->targets[i];
    }
    return yes / there + no / absent;
}

typedef struct odd_graph {
    trn_graph *graph;
    trn_tensor *logits, *labels, *targets, *weights;
} odd_graph;

static trn_tensor *odd_cross_entropy(const odd_graph *g, const formula *f)
{
    trn_class_loss_desc desc = {IGNORED, f->smoothing, g->weights};
    return trn_loss_cross_entropy(g->graph, g->logits, g->labels, &desc);
}

static trn_tensor *odd_softmax_focal(const odd_graph *g, const formula *f)
{
    trn_focal_desc desc = {.ignored = IGNORED, .softmax = true, .gamma = f->gamma};
    return trn_loss_focal(g->graph, g->logits, g->labels, &desc);
}

static trn_tensor *odd_sigmoid_focal(const odd_graph *g, const formula *f)
{
    trn_focal_desc desc = {.ignored = IGNORED, .gamma = f->gamma, .alpha = f->alpha};
    return trn_loss_focal(g->graph, g->logits, g->labels, &desc);
}

static trn_tensor *odd_balanced(const odd_graph *g, const formula *f)
{
    (void)f;
    return trn_loss_binary_balanced(g->graph, g->logits, g->targets);
}

static formula make_formula(void)
{
    formula f = {.gamma = 1.5F, .alpha = 0.3F, .smoothing = 0.2F};
    float *z = test_hash_values("odd logits", N, 4, 0), *y = test_hash_values("odd labels", P, 1, 1);
    for (int i = 0; i < N; i++) {
        f.logits[i] = (double)z[i];
        f.targets[i] = i % 7 == 3;
    }
    for (int p = 0; p < P; p++)
        f.labels[p] = p % 5 == 2 ? IGNORED : (int32_t)((double)y[p] * (C / 2.0));
    for (int c = 0; c < C; c++)
        f.weights[c] = 0.25 + c;
    free(z);
    free(y);
    return f;
}

/* Writes a formula's numbers as the inputs of a graph. */
typedef struct odd_values {
    float logits[N], targets[N], weights[C];
    int32_t labels[P];
} odd_values;

static odd_values values_of(const formula *f)
{
    odd_values v;
    for (int i = 0; i < N; i++) {
        v.logits[i] = (float)f->logits[i];
        v.targets[i] = (float)f->targets[i];
    }
    for (int c = 0; c < C; c++)
        v.weights[c] = (float)f->weights[c];
    memcpy(v.labels, f->labels, sizeof v.labels);
    return v;
}

/* Value, and every component of the gradient by central differences of the formula. */
static void check_odd(double (*formula_of)(const formula *),
                      trn_tensor *(*build)(const odd_graph *, const formula *))
{
    formula f = make_formula();
    odd_values v = values_of(&f);
    odd_graph g = {.graph = trn_graph_create()};
    trn_error err = {0};
    trn_tensor *grad;
    g.logits = trn_input(g.graph, "logits", TRN_F32, TRN_SHAPE(B, C, 7, 3));
    g.targets = trn_input(g.graph, "targets", TRN_F32, TRN_SHAPE(B, C, 7, 3));
    g.weights = trn_input(g.graph, "weights", TRN_F32, TRN_SHAPE(C));
    g.labels = trn_input(g.graph, "labels", TRN_I32, TRN_SHAPE(B, 7, 3));
    trn_tensor *loss = build(&g, &f);
    assert_trn_ok(trn_graph_status(g.graph, &err), err);
    assert_trn_ok(trn_gradients(g.graph, loss, NULL, &g.logits, 1, &grad, &err), err);
    trn_output_add(g.graph, "loss", loss);
    trn_output_add(g.graph, "grad", grad);
    float value, gradient[N];
    trn_named_data in[] = {
        {"logits", v.logits}, {"targets", v.targets}, {"weights", v.weights}, {"labels", v.labels}};
    trn_named_data out[] = {{"loss", &value}, {"grad", gradient}};
    assert_trn_ok(trn_reference_run(g.graph, in, 4, out, 2, &err), err);
    double wanted = formula_of(&f), most = 0, worst = 0;
    if (!(fabs((double)value - wanted) <= 1e-6 * fabs(wanted)))
        fail_msg("loss %.9g, not %.9g", (double)value, wanted);
    for (int i = 0; i < N; i++) {
        formula up = f, down = f;
        up.logits[i] += 1e-5;
        down.logits[i] -= 1e-5;
        double slope = (formula_of(&up) - formula_of(&down)) / 2e-5;
        most = fmax(most, fabs(slope));
        worst = fmax(worst, fabs(slope - (double)gradient[i]));
    }
    assert_true(most > 0);
    if (!(worst <= 2e-6 * most)) fail_msg("gradients of up to %g are off by %g", most, worst);
    trn_graph_destroy(g.graph);
}

static void losses_are_their_formulas(void **state)
{
    (void)state;
    check_odd(cross_entropy_formula, odd_cross_entropy);
    check_odd(softmax_focal_formula, odd_softmax_focal);
    check_odd(sigmoid_focal_formula, odd_sigmoid_focal);
    check_odd(balanced_formula, odd_balanced);
}

/* ---- labels ---- */

/* Loss and gradient of logits [4,C] with these labels, on the device. */
static void of_labels(const int32_t labels[4], int which, float *loss, float grad[4 * C])
{
    trn_graph *graph = trn_graph_create();
    trn_tensor *z = trn_input(graph, "z", TRN_F32, TRN_SHAPE(4, C)), *dz, *y;
    trn_tensor *t = trn_input(graph, "t", TRN_I32, TRN_SHAPE(4));
    trn_class_loss_desc desc = {.ignored = IGNORED};
    trn_focal_desc focal = {.ignored = IGNORED, .softmax = which == 2, .gamma = 2, .normalized = which == 3};
    trn_error err = {0};
    trn_exec *exec;
    y = which == 0   ? trn_loss_cross_entropy(graph, z, t, &desc)
        : which == 1 ? trn_loss_dice(graph, z, t, &desc)
                     : trn_loss_focal(graph, z, t, &focal);
    assert_trn_ok(trn_graph_status(graph, &err), err);
    assert_trn_ok(trn_gradients(graph, y, NULL, &z, 1, &dz, &err), err);
    trn_output_add(graph, "y", y);
    trn_output_add(graph, "dz", dz);
    assert_trn_ok(trn_compile(graph, gpu, &(trn_compile_options){.poison = true}, &exec, &err), err);
    float *values = test_hash_values("labels' logits", 4 * C, 3, 0);
    assert_trn_ok(trn_exec_set(exec, "z", values, &err), err);
    assert_trn_ok(trn_exec_set(exec, "t", labels, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    assert_trn_ok(trn_exec_get(exec, "y", loss, &err), err);
    assert_trn_ok(trn_exec_get(exec, "dz", grad, &err), err);
    free(values);
    trn_exec_destroy(exec);
    trn_graph_destroy(graph);
}

static void nothing_to_learn_is_zero_and_wrong_labels_show(void **state)
{
    (void)state;
    const int32_t none[4] = {IGNORED, IGNORED, IGNORED, IGNORED}, some[4] = {1, IGNORED, 4, 0};
    for (int which = 0; which < 4; which++) {
        float loss, grad[4 * C];
        of_labels(none, which, &loss, grad);
        assert_true(loss == 0);
        for (int i = 0; i < 4 * C; i++)
            assert_true(grad[i] == 0);
        of_labels(some, which, &loss, grad);
        assert_true(loss > 0);
        for (int c = 0; c < C; c++)
            assert_true(grad[C + c] == 0 && grad[c] != 0); /* the second is ignored */
        of_labels((const int32_t[4]){1, IGNORED, C, 0}, which, &loss, grad);
        assert_true(isnan(loss));
        of_labels((const int32_t[4]){1, -1, 2, 0}, which, &loss, grad);
        assert_true(isnan(loss));
    }
}

static void many_dimensions_of_binary_weights(void **state)
{
    (void)state;
    float z[2 * 3 * 2], t[2 * 3 * 2], w[3] = {0.5F, 1, 4}, loss;
    double wanted = 0;
    for (int i = 0; i < 12; i++) {
        z[i] = (float)(i - 6) * 0.4F;
        t[i] = i % 2 ? 1 : 0.25F;
        double up = log(1 + exp(-(double)z[i])), down = log(1 + exp((double)z[i]));
        wanted += ((double)w[i / 2 % 3] * (double)t[i] * up + (1 - (double)t[i]) * down) / 12;
    }
    trn_graph *graph = trn_graph_create();
    trn_error err = {0};
    trn_tensor *weights = trn_constant(graph, "w", TRN_SHAPE(3), w);
    trn_output_add(graph, "y",
                   trn_loss_binary(graph, trn_input(graph, "z", TRN_F32, TRN_SHAPE(2, 3, 1, 2)),
                                   trn_input(graph, "t", TRN_F32, TRN_SHAPE(2, 3, 1, 2)), weights));
    trn_named_data in[] = {{"z", z}, {"t", t}}, out = {"y", &loss};
    assert_trn_ok(trn_reference_run(graph, in, 2, &out, 1, &err), err);
    assert_true(fabs((double)loss - wanted) < 1e-6);
    trn_graph_destroy(graph);
}

/* ---- refusals ---- */

static trn_tensor *refuse(trn_graph *graph, int which)
{
    trn_tensor *z = trn_input(graph, "z", TRN_F32, TRN_SHAPE(2, 4, 3, 3));
    trn_tensor *flat = trn_input(graph, "flat", TRN_F32, TRN_SHAPE(7));
    trn_tensor *labels = trn_input(graph, "labels", TRN_I32, TRN_SHAPE(2, 3, 3));
    trn_class_loss_desc plain = {.ignored = 255}, smooth = {.label_smoothing = 1.5F};
    trn_class_loss_desc weighted = {.class_weights = flat};
    switch (which) {
    case 0:
        return trn_loss_cross_entropy(graph, z, flat, &plain);
    case 1:
        return trn_loss_cross_entropy(graph, flat, labels, &plain);
    case 2:
        return trn_loss_cross_entropy(graph, z, labels, &smooth);
    case 3:
        return trn_loss_dice(graph, z, labels, &weighted);
    case 4:
        return trn_loss_focal(graph, z, labels, &(trn_focal_desc){.gamma = -1});
    case 5:
        return trn_loss_focal(graph, z, labels, &(trn_focal_desc){.softmax = true, .alpha = 0.5F});
    case 6:
        return trn_loss_binary(graph, z, flat, NULL);
    case 7:
        return trn_loss_binary(graph, z, z, flat);
    case 8:
        return trn_loss_mse(graph, z, labels);
    case 9:
        return trn_loss_distill(graph, z, z, 0);
    default:
        return trn_loss_distill(graph, flat, flat, 1);
    }
}

static void wrong_uses_are_refused(void **state)
{
    (void)state;
    const char *const messages[] = {
        "labels of logits [2,4,3,3] are integers",
        "logits are floats [B,C,..], not [7]",
        "label smoothing 1.5",
        "weights [7] are not one float for each of 4 classes",
        "gamma -1 is negative",
        "not of the softmax form",
        "not [2,4,3,3] with [7]",
        "weights [7] are not one float for each of 4 classes",
        "with [2,3,3] of integers",
        "temperature 0 is not positive",
        "logits are floats [B,C,..], not [7]",
    };
    for (size_t i = 0; i < TRN_COUNT(messages); i++) {
        trn_error err = {0};
        trn_graph *graph = trn_graph_create();
        assert_null(refuse(graph, (int)i));
        assert_trn_fails(trn_graph_status(graph, &err), TRN_ERR_ARGUMENT, err, messages[i]);
        trn_graph_destroy(graph);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_are_the_originals),
        cmocka_unit_test(losses_are_their_formulas),
        cmocka_unit_test(nothing_to_learn_is_zero_and_wrong_labels_show),
        cmocka_unit_test(many_dimensions_of_binary_weights),
        cmocka_unit_test(wrong_uses_are_refused),
    };
    return cmocka_run_group_tests_name("losses", tests, open_device, close_device);
}
