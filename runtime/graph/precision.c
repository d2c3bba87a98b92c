/* Precisions: their names, and the one a run takes on a device. half.c is what float16 then means for a
 * graph. */
#include "graph.h"

static const char *const names[] = {"float32", "float16", "auto"};

const char *trn_precision_name(trn_precision precision)
{
    return names[precision];
}

trn_status trn_precision_choose(const trn_gpu *gpu, trn_precision wanted, trn_precision *chosen,
                                trn_error *err)
{
    const trn_device_info *info = trn_gpu_info(gpu);
    *chosen = wanted;
    if (wanted == TRN_PRECISION_AUTO) {
        bool good = info->storage16 && !(info->quirks & TRN_QUIRK_EMULATED_FLOAT16);
        *chosen = good ? TRN_PRECISION_FLOAT16 : TRN_PRECISION_FLOAT32;
    }
    if (*chosen != TRN_PRECISION_FLOAT16 || info->storage16) return TRN_OK;
    return trn_fail(err, TRN_ERR_UNSUPPORTED,
                    "precision float16 needs 16-bit storage, which '%s' lacks%s: take precision float32 or "
                    "auto, or another device (terrane devices shows what each has)",
                    info->name, trn_gpu_disabled("fp16") ? " under TERRANE_DISABLE=fp16" : "");
}
