/* The memory plan: tensors whose lifetimes do not overlap share places in blocks. */
#include "graph_internal.h"

#include <stdlib.h>
#include <string.h>

/* Lifetimes, in steps. Inputs live through the whole run (they may be set once and run many times) unless
 * they are set before each; outputs live to its end. */
static void find_lifetimes(const trn_lower *lower, trn_place *places, size_t tensor_count, bool keep_all,
                           bool fresh_inputs)
{
    int last_step = (int)lower->step_count;
    for (size_t i = 0; i < tensor_count; i++)
        places[i] = (trn_place){.block = -1, .first = last_step, .last = -1};
    for (size_t s = 0; s < lower->step_count; s++) {
        const trn_lowered_step *lowered = &lower->steps[s];
        if (lowered->setup) continue;
        for (int i = 0; i < lowered->step.operand_count; i++) {
            const trn_tensor *tensor = lowered->step.operands[i].tensor;
            trn_place *place = &places[tensor->id];
            if (tensor->constant) continue;
            place->size = trn_lower_bytes(lower, tensor);
            place->first = TRN_MIN(place->first, (int)s);
            place->last = TRN_MAX(place->last, (int)s);
            if (keep_all || tensor->is_input) place->first = -1;
            bool stays = tensor->is_input && (tensor->is_state || !fresh_inputs);
            if (keep_all || stays || tensor->is_output) place->last = last_step;
        }
    }
    /* an input that is an output itself needs a place although no step touches it */
    for (size_t i = 0; i < lower->graph->output_count; i++) {
        const trn_tensor *base = trn_tensor_base(lower->graph->outputs[i].tensor);
        if (base->is_input) places[base->id] = (trn_place){-1, 0, (uint64_t)base->count * 4, -1, last_step};
    }
}

static int compare_size(const void *a, const void *b)
{
    const trn_place *x = *(trn_place *const *)a, *y = *(trn_place *const *)b;
    if (x->size != y->size) return x->size < y->size ? 1 : -1;
    return x < y ? -1 : 1;
}

static bool overlap_in_time(const trn_place *a, const trn_place *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* Those placed so far, by block and by offset in it. */
typedef struct placed_list {
    trn_place **items;
    size_t count;
} placed_list;

static size_t first_of_block(const placed_list *placed, int block)
{
    size_t low = 0, high = placed->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (placed->items[middle]->block < block)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Lowest offset in the block where place fits between those that live at the same time. */
static uint64_t lowest_offset(const placed_list *placed, const trn_place *place, int block)
{
    uint64_t offset = 0;
    for (size_t i = first_of_block(placed, block); i < placed->count; i++) {
        const trn_place *other = placed->items[i];
        if (other->block != block || other->offset >= offset + place->size) break;
        uint64_t end = other->offset + other->size;
        if (end <= offset || !overlap_in_time(place, other)) continue;
        offset = (end + TRN_TENSOR_ALIGN - 1) / TRN_TENSOR_ALIGN * TRN_TENSOR_ALIGN;
    }
    return offset;
}

static void insert(placed_list *placed, trn_place *place)
{
    size_t at = first_of_block(placed, place->block);
    while (at < placed->count && placed->items[at]->block == place->block &&
           placed->items[at]->offset < place->offset)
        at++;
    memmove(placed->items + at + 1, placed->items + at, (placed->count - at) * sizeof *placed->items);
    placed->items[at] = place;
    placed->count++;
}

static trn_status put(trn_memory_plan *plan, size_t *capacity, placed_list *placed, trn_place *place,
                      uint64_t block_limit, trn_error *err)
{
    for (int block = 0;; block++) {
        if (block == plan->block_count) {
            if (!trn_grow(&plan->block_bytes, capacity, (size_t)block + 1, sizeof *plan->block_bytes))
                return trn_fail_memory(err, sizeof(uint64_t), "a memory plan");
            plan->block_bytes[plan->block_count++] = 0;
        }
        uint64_t offset = lowest_offset(placed, place, block);
        if (offset + place->size > block_limit) continue;
        place->block = block;
        place->offset = offset;
        plan->block_bytes[block] = TRN_MAX(plan->block_bytes[block], offset + place->size);
        insert(placed, place);
        return TRN_OK;
    }
}

static trn_status assign(trn_memory_plan *plan, trn_place **sorted, size_t count, uint64_t block_limit,
                         trn_error *err)
{
    size_t capacity = 0;
    char text[2][32];
    placed_list placed = {.items = calloc(count + 1, sizeof *placed.items)};
    trn_status status = placed.items ? TRN_OK : trn_fail_memory(err, count * sizeof(void *), "a memory plan");
    for (size_t i = 0; status == TRN_OK && i < count; i++) {
        if (sorted[i]->size > block_limit)
            status =
                trn_fail(err, TRN_ERR_MEMORY,
                         "one tensor needs %s, more than the %s that a block of device memory may hold; "
                         "use a smaller batch or tile",
                         trn_format_bytes(sorted[i]->size, text[0]), trn_format_bytes(block_limit, text[1]));
        else
            status = put(plan, &capacity, &placed, sorted[i], block_limit, err);
    }
    free(placed.items);
    return status;
}

trn_status trn_memory_plan_make(const trn_lower *lower, bool keep_all, bool fresh_inputs,
                                uint64_t block_limit, trn_memory_plan *plan, trn_error *err)
{
    size_t count = lower->graph->tensor_count + lower->extra_count, used = 0;
    *plan = (trn_memory_plan){.places = calloc(count + 1, sizeof(trn_place))};
    trn_place **sorted = calloc(count + 1, sizeof *sorted);
    if (!plan->places || !sorted) {
        free(sorted);
        return trn_fail_memory(err, count * sizeof(trn_place), "a memory plan");
    }
    find_lifetimes(lower, plan->places, count, keep_all, fresh_inputs);
    for (size_t i = 0; i < count; i++) {
        if (plan->places[i].size == 0) continue;
        sorted[used++] = &plan->places[i];
        plan->unshared += plan->places[i].size;
    }
    qsort(sorted, used, sizeof *sorted, compare_size);
    trn_status status = assign(plan, sorted, used, block_limit, err);
    for (int i = 0; i < plan->block_count; i++)
        plan->total += plan->block_bytes[i];
    free(sorted);
    return status;
}

void trn_memory_plan_free(trn_memory_plan *plan)
{
    free(plan->places);
    free(plan->block_bytes);
    *plan = (trn_memory_plan){0};
}
