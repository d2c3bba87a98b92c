/* The device of a command: opened by name, with a word when it is no GPU. */
#include "command.h"

#include <stdlib.h>

trn_status device_open(const char *name, trn_gpu **out, trn_error *err)
{
    trn_gpu_options options = {.device = name};
    trn_status status = trn_gpu_open(&options, out, err);
    if (status != TRN_OK) return status;
    const trn_device_info *info = trn_gpu_info(*out);
    if (info->type != TRN_DEVICE_CPU) return TRN_OK;
    char text[512];
    bool chosen = name || getenv("TERRANE_DEVICE");
    snprintf(text, sizeof text, "%srunning on %s, a CPU driver: correct, but slow",
             chosen ? "" : "no GPU found; ", info->name);
    console_note(TRN_LOG_INFO, text);
    return TRN_OK;
}

void device_stats_json(trn_gpu *gpu, trn_text *out)
{
    const trn_device_info *info = trn_gpu_info(gpu);
    trn_gpu_stats stats = trn_gpu_get_stats(gpu);
    trn_text_add(out, "\"device\": ");
    trn_text_json(out, info->name);
    trn_text_add(out, ", \"driver\": ");
    trn_text_json(out, info->driver);
    trn_text_printf(out, ", \"shaders_compiled\": %llu, \"shaders_from_cache\": %llu, \"pipelines\": %llu",
                    (unsigned long long)stats.shaders_compiled, (unsigned long long)stats.shaders_from_cache,
                    (unsigned long long)stats.pipelines);
    trn_text_printf(out, ", \"startup_seconds\": %.3f, \"startup_cpu_seconds\": %.3f", stats.startup_seconds,
                    stats.startup_cpu_seconds);
    trn_text_printf(out, ", \"submissions\": %llu, \"dispatches\": %llu, \"device_memory_peak\": %llu",
                    (unsigned long long)stats.submissions, (unsigned long long)stats.dispatches,
                    (unsigned long long)stats.memory_peak);
}
