/* What made a loss that is not finite: the failing step once more, with every value kept. */
#include "fit.h"

#include <stdlib.h>
#include <string.h>

/* States that learning changes, in host memory. Running statistics may already be spoilt by the run that
 * failed, and training does not read them. */
static bool is_needed(const fit_tensor *tensor)
{
    return !tensor->weight || tensor->learns;
}

static trn_status save_states(fit *f, float **values, trn_error *err)
{
    const fit_engine *e = &f->engine;
    trn_status status = TRN_OK;
    for (size_t i = 0; status == TRN_OK && i < e->tensor_count; i++) {
        const fit_tensor *t = &e->tensors[i];
        if (!is_needed(t)) continue;
        values[i] = calloc((size_t)t->count, sizeof(float));
        status = values[i] ? trn_exec_get(e->train, t->kept, values[i], err)
                           : trn_fail_memory(err, (size_t)t->count * sizeof(float), t->name);
    }
    return status;
}

static trn_status run_again(fit *f, float *const *values, const trn_batch *batch, const float *now,
                            trn_text *what, trn_error *err)
{
    fit_engine *e = &f->engine;
    bool found = false;
    trn_compile_options options = {
        .keep_all = true, .no_fusion = true, .memory_limit = f->options->memory_limit, .shared = e->shared};
    trn_status status = trn_compile(e->train_graph, f->gpu, &options, &e->train, err);
    for (size_t i = 0; status == TRN_OK && i < e->tensor_count; i++)
        if (values[i]) status = trn_exec_set(e->train, e->tensors[i].name, values[i], err);
    const fit_inputs inputs = {e->train, -1};
    if (status == TRN_OK) status = fit_engine_feed(f, &inputs, batch, true, err);
    if (status == TRN_OK) status = fit_engine_begin(f, &inputs, now, err);
    if (status == TRN_OK) status = trn_exec_run(e->train, NULL, err);
    if (status == TRN_OK) status = trn_exec_first_nonfinite(e->train, &found, what, err);
    if (status == TRN_OK && !found)
        trn_text_add(what, "no operator by itself: without fusion all values are finite");
    return status;
}

trn_status fit_engine_diagnose(fit *f, const trn_batch *batch, const float *now, trn_text *what,
                               trn_error *err)
{
    fit_engine *e = &f->engine;
    float **values = calloc(e->tensor_count + 1, sizeof *values);
    if (!values) return trn_fail_memory(err, e->tensor_count * sizeof *values, "states");
    trn_status status = save_states(f, values, err);
    trn_exec_destroy(e->eval); /* their memory is needed now */
    trn_exec_destroy(e->train);
    e->eval = e->train = NULL;
    if (status == TRN_OK) status = run_again(f, values, batch, now, what, err);
    for (size_t i = 0; i < e->tensor_count; i++)
        free(values[i]);
    free(values);
    return status;
}
