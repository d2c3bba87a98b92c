/* result.json of probes and training: the data, who learned, and metrics by name. */
#include "job_private.h"

#include <math.h>
#include <string.h>

trn_status job_learn_output(const job_dataset *data, char **path, trn_error *err)
{
    const char *dir = data->what.out_dir ? data->what.out_dir : ".";
    trn_status status = trn_make_dirs(dir, err);
    if (status != TRN_OK) return status;
    *path = trn_path_join(dir, "result.json");
    if (!*path) return trn_fail_memory(err, strlen(dir), "an output name");
    trn_output *probe = NULL;
    status = trn_output_create(*path, &probe, err);
    if (status == TRN_OK) trn_output_abandon(probe);
    return status;
}

static void add_samples(const job_dataset *data, trn_text *out)
{
    trn_text_add(out, ",\n    \"samples\": {");
    for (int s = 0; s < TRN_SPLIT_COUNT; s++)
        trn_text_printf(out, "%s\"%s\": %zu", s ? ", " : "", trn_split_name((trn_split)s), data->samples[s]);
    trn_text_add(out, "}");
}

static void add_data(const job_dataset *data, trn_text *out)
{
    const trn_dataset_info *info = data->info;
    trn_text_add(out, "  \"data\": {\n    \"path\": ");
    trn_text_json(out, data->what.data->path);
    trn_text_add(out, ",\n    \"name\": ");
    trn_text_json(out, info->name);
    trn_text_printf(out, ",\n    \"task\": \"%s\",\n    \"classes\": [", trn_task_name(info->task));
    for (size_t i = 0; i < info->class_count; i++) {
        trn_text_add(out, i ? ", " : "");
        trn_text_json(out, info->class_names[i]);
    }
    trn_text_add(out, "]");
    add_samples(data, out);
    trn_text_printf(out, ",\n    \"width\": %d,\n    \"height\": %d,\n    \"sensor\": ", data->width,
                    data->height);
    trn_text_json(out, data->plan.sensor ? data->plan.sensor->name : NULL);
    trn_text_add(out, ",\n    \"bands\": [");
    for (size_t i = 0; i < info->band_count; i++) {
        trn_text_add(out, i ? ", " : "");
        trn_text_json(out, info->bands[i].name);
    }
    trn_text_add(out, "]\n  },\n");
}

void job_learn_result_begin(const job_dataset *data, trn_gpu *gpu, trn_text *out)
{
    job_result_head(&data->plan, out);
    add_data(data, out);
    if (data->what.trunk)
        trn_text_printf(out, "  \"network\": {\"nodes\": %d},\n", data->what.trunk->node_count);
    else
        job_result_encoders(&data->plan, out);
    job_result_device(gpu, out);
}

trn_status job_learn_result_end(trn_text *out, char *const *files, size_t file_count, const char *path,
                                trn_error *err)
{
    trn_text_add(out, "  \"files\": [");
    for (size_t i = 0; i < file_count; i++) {
        trn_text_add(out, i ? ", " : "");
        trn_text_json(out, trn_path_name(files[i]));
    }
    trn_text_add(out, "]\n}\n");
    if (out->failed) return trn_fail_memory(err, out->length, "result.json");
    return trn_write_file(path, out->data, out->length, err);
}

void job_learn_metrics(bool multilabel, const char *prefix, const trn_class_scores *classes,
                       const trn_multilabel_scores *labels, double loss, trn_text *out)
{
    const trn_metric *metric;
    for (size_t i = 0; (metric = trn_metric_at(i)) != NULL; i++) {
        if (metric->multilabel != multilabel) continue;
        double value = multilabel ? trn_metric_of_labels(metric, labels, loss)
                                  : trn_metric_of_classes(metric, classes, loss);
        if (isnan(value)) continue; /* a loss that is not known */
        trn_text_printf(out, ", \"%s%s\": ", prefix, metric->name);
        job_result_number(out, value);
    }
}
