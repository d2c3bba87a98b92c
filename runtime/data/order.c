/* Orders and subsets that are the same on every machine. */
#include "data_private.h"

#include <stdlib.h>

static int by_value(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

/* The remainder favours small numbers by less than count / 2^64. */
void trn_data_shuffle(uint64_t seed, uint64_t epoch, size_t count, size_t *order)
{
    uint64_t stream = trn_splitmix64(trn_splitmix64(seed) ^ epoch);
    for (size_t i = 0; i < count; i++)
        order[i] = i;
    for (size_t i = count; i > 1; i--) {
        size_t j = (size_t)(trn_splitmix64(stream + i) % i), kept = order[i - 1];
        order[i - 1] = order[j];
        order[j] = kept;
    }
}

trn_status trn_data_subset(uint64_t seed, size_t count, size_t keep, size_t *chosen, trn_error *err)
{
    if (keep > count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "a subset of %zu samples cannot be drawn from %zu", keep,
                        count);
    if (!keep) return TRN_OK;
    size_t *order = calloc(count, sizeof *order);
    if (!order) return trn_fail_memory(err, count * sizeof *order, "an order of samples");
    trn_data_shuffle(seed, 0, count, order);
    for (size_t i = 0; i < keep; i++)
        chosen[i] = order[i];
    qsort(chosen, keep, sizeof *chosen, by_value);
    free(order);
    return TRN_OK;
}
