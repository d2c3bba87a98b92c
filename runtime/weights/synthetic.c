/* Synthetic weights: what value a tensor of some name and shape gets. The golden numbers rest on this rule.
 */
#include "checkpoint.h"

#include <math.h>
#include <string.h>

typedef struct rule {
    double offset, scale;
} rule;

static bool is_one_of(const char *word, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(word, words[i])) return true;
    return false;
}

static rule rule_for(const char *name, const int64_t *shape, int ndim, int64_t count)
{
    static const char *const tokens[] = {
        "pos_embed",  "pos_embed_spatial", "pos_embed_temporal", "cls_token",  "reg_token", "register_tokens",
        "mask_token", "decoder_pos_embed", "weight_tokens",      "bias_token", "latent"};
    const char *dot = strrchr(name, '.'), *last = dot ? dot + 1 : name;
    if (!strcmp(last, "gamma")) return (rule){0.5, 0.25};
    if (!strcmp(last, "scale") && count == 1) return (rule){0.125, 0.0625};
    if (!strcmp(last, "running_var")) return (rule){1, 0.5};
    if (is_one_of(last, tokens, TRN_COUNT(tokens))) return (rule){0, 0.5};
    if (ndim <= 1) return !strcmp(last, "weight") ? (rule){1, 0.125} : (rule){0, 0.0625};
    double fan_in = 1;
    for (int d = 1; d < ndim; d++)
        fan_in *= (double)shape[d];
    return (rule){0, sqrt(3.0 / fan_in)};
}

void trn_synthetic_fill(const char *name, const int64_t *shape, int ndim, float *out)
{
    int64_t count = 0;
    if (!trn_weight_shape_count(shape, ndim, &count)) return; /* callers have checked */
    rule r = rule_for(name, shape, ndim, count);
    uint64_t hash = trn_fnv1a64(name, strlen(name), TRN_FNV_SEED);
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)(r.offset + r.scale * trn_hash_uniform(hash, (uint64_t)i));
}
