/* What the tests of encoders share: building with a look at the stages, running on the device or by the
 * references. */
#ifndef TEST_MODELS_RUNNING_H
#define TEST_MODELS_RUNNING_H

#include "test_support.h"

#include <stdlib.h>
#include <string.h>
#include <math.h>

#include "models_private.h"

enum { MAX_STAGES = 48 };

/* A graph whose stages are outputs. */
typedef struct staged {
    trn_graph *graph;
    int count;
    char names[MAX_STAGES][48];
    int64_t sizes[MAX_STAGES];
    float *values[MAX_STAGES];
} staged;

static inline void staged_add(void *user, const char *name, trn_tensor *tensor)
{
    staged *s = user;
    if (!tensor) return;
    assert_true(s->count < MAX_STAGES);
    snprintf(s->names[s->count], sizeof s->names[0], "%s", name);
    s->sizes[s->count++] = trn_shape_count(trn_tensor_shape(tensor));
    trn_output_add(s->graph, name, tensor);
}

static trn_gpu *the_gpu;

/* Teardown of the group: drivers and layers want to be left before the process ends. */
static inline int close_gpu(void **state)
{
    (void)state;
    int messages = the_gpu ? (int)trn_gpu_get_stats(the_gpu).validation_messages : 0;
    trn_gpu_close(the_gpu);
    the_gpu = NULL;
    return messages;
}

static inline trn_gpu *open_gpu(void)
{
    trn_error err = {0};
    if (the_gpu) return the_gpu;
    assert_trn_ok(trn_gpu_open(NULL, &the_gpu, &err), err);
    return the_gpu;
}

static inline void staged_allocate(staged *s)
{
    for (int i = 0; i < s->count; i++) {
        free(s->values[i]);
        s->values[i] = malloc((size_t)s->sizes[i] * sizeof(float));
        assert_non_null(s->values[i]);
        for (int64_t k = 0; k < s->sizes[i]; k++)
            s->values[i][k] = (float)NAN;
    }
}

static inline void staged_run_device(staged *s, const trn_named_data *inputs, int input_count)
{
    trn_error err = {0};
    trn_exec *exec = NULL;
    trn_compile_options options = {.poison = true};
    staged_allocate(s);
    assert_trn_ok(trn_compile(s->graph, open_gpu(), &options, &exec, &err), err);
    for (int i = 0; i < input_count; i++)
        assert_trn_ok(trn_exec_set(exec, inputs[i].name, inputs[i].data, &err), err);
    assert_trn_ok(trn_exec_run(exec, NULL, &err), err);
    for (int i = 0; i < s->count; i++)
        assert_trn_ok(trn_exec_get(exec, s->names[i], s->values[i], &err), err);
    trn_exec_destroy(exec);
}

static inline void staged_run_reference(staged *s, const trn_named_data *inputs, int input_count)
{
    trn_error err = {0};
    trn_named_data outputs[MAX_STAGES];
    staged_allocate(s);
    for (int i = 0; i < s->count; i++)
        outputs[i] = (trn_named_data){s->names[i], s->values[i]};
    assert_trn_ok(trn_reference_run(s->graph, inputs, input_count, outputs, s->count, &err), err);
}

static inline int staged_find(const staged *s, const char *name)
{
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->names[i], name)) return i;
    fail_msg("there is no stage '%s'", name);
    return -1;
}

static inline const float *staged_get(const staged *s, const char *name)
{
    return s->values[staged_find(s, name)];
}

static inline void staged_close(staged *s)
{
    trn_graph_destroy(s->graph);
    for (int i = 0; i < s->count; i++)
        free(s->values[i]);
    *s = (staged){0};
}

static inline double largest(const float *values, int64_t count)
{
    double most = 0;
    for (int64_t i = 0; i < count; i++)
        most = fabs((double)values[i]) > most ? fabs((double)values[i]) : most;
    return most;
}

static inline trn_encoder *make_encoder(const char *name, const trn_setting *settings, size_t count)
{
    trn_encoder *encoder = NULL;
    trn_error err = {0};
    assert_trn_ok(trn_encoder_create(name, settings, count, &encoder, &err), err);
    return encoder;
}

static inline trn_weights *open_weights(const char *path)
{
    trn_weights *weights = NULL;
    trn_error err = {0};
    if (path) {
        assert_trn_ok(trn_weights_open(path, NULL, &weights, &err), err);
    } else {
        assert_trn_ok(trn_weights_open_synthetic(&weights, &err), err);
    }
    return weights;
}

#endif
