/* Fresh weights: what value a tensor of some name and shape begins training with. */
#include "checkpoint.h"

#include <math.h>
#include <string.h>

/* A distribution, or the constant `scale`. */
typedef struct beginning {
    enum { CONSTANT, UNIFORM, NORMAL, CUT_NORMAL } kind;
    double scale;
} beginning;

enum { TRIES = 8 }; /* draws of a number until one is within two deviations; the last one is clamped */

static bool has_word(const char *name, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strstr(name, words[i])) return true;
    return false;
}

static double fan_in_of(const int64_t *shape, int ndim)
{
    double fan_in = 1;
    for (int d = 1; d < ndim; d++)
        fan_in *= (double)shape[d];
    return TRN_MAX(fan_in, 1);
}

static beginning beginning_of(const char *name, const int64_t *shape, int ndim)
{
    /* what is learned as it is, and multiplies nothing */
    static const char *const learned[] = {"token", "pos_embed", "latent", "query", "channel_embed"};
    const char *dot = strrchr(name, '.'), *last = dot ? dot + 1 : name;
    if (!strcmp(last, "gamma")) return (beginning){CONSTANT, 1e-5};
    if (!strcmp(last, "scale")) return (beginning){CONSTANT, 0.1}; /* of Prithvi's dates and places */
    if (!strcmp(last, "running_var")) return (beginning){CONSTANT, 1};
    if (!strcmp(last, "running_mean") || !strcmp(last, "bias")) return (beginning){CONSTANT, 0};
    if (has_word(last, learned, TRN_COUNT(learned))) return (beginning){NORMAL, 0.02};
    if (ndim <= 1) return (beginning){CONSTANT, !strcmp(last, "weight") ? 1 : 0};
    if (ndim == 2) return (beginning){CUT_NORMAL, 0.02};
    if (!strcmp(last, "weight")) return (beginning){UNIFORM, 1 / sqrt(fan_in_of(shape, ndim))};
    return (beginning){NORMAL, 0.02};
}

/* In (0,1). */
static double uniform(uint64_t hash, uint64_t i)
{
    return ((double)(trn_splitmix64(hash + i) >> 11) + 0.5) / 9007199254740992.0;
}

/* Number i by Box and Muller, from a block of draws that is its own. */
static double normal(uint64_t hash, uint64_t i, double limit)
{
    double value = 0;
    for (uint64_t t = 0; t < TRIES; t++) {
        uint64_t at = (i * TRIES + t) * 2;
        value = sqrt(-2 * log(uniform(hash, at))) * cos(6.283185307179586 * uniform(hash, at + 1));
        if (fabs(value) <= limit) return value;
    }
    return value < 0 ? -limit : limit;
}

static double value_of(const beginning *begin, uint64_t hash, uint64_t i)
{
    switch (begin->kind) {
    case UNIFORM:
        return begin->scale * (2 * uniform(hash, i) - 1);
    case NORMAL:
        return begin->scale * normal(hash, i, INFINITY);
    case CUT_NORMAL:
        return begin->scale * normal(hash, i, 2);
    case CONSTANT:
        break;
    }
    return begin->scale;
}

void trn_weights_fresh_values(uint64_t seed, const char *name, int ndim, const int64_t *shape, float *out)
{
    int64_t count = 0;
    if (!trn_weight_shape_count(shape, ndim, &count)) return; /* no tensor has such a shape */
    beginning begin = beginning_of(name, shape, ndim);
    uint64_t hash = trn_fnv1a64(name, strlen(name), TRN_FNV_SEED ^ trn_splitmix64(seed));
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)value_of(&begin, trn_splitmix64(hash), (uint64_t)i);
}
