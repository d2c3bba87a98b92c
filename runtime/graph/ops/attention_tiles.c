/* Shapes of the attention kernels that work through shared memory. */
#include "attention_tiles.h"

#include <limits.h>
#include <math.h>

/* ---- what a shape costs ---- */

enum { BUSY_INVOCATIONS = 256 }; /* that hide latencies where shared memory allows as many */

/* The numbers that an invocation may keep in registers, beside operands, and these with the places of what it
 * fetches, which compilers keep all the time. By tests/drivers/static_check.sh: more spills. */
typedef struct room {
    int values, all;
} room;

enum { AMD = 0x1002, APPLE = 0x106b, NVIDIA = 0x10de, INTEL = 0x8086, MESA = 0x10005 };

static room room_of(const trn_device_info *info)
{
    const room many = {112, 192}, some = {64, 78}, few = {48, 64}, least = {44, 50};
    if (info->type == TRN_DEVICE_CPU) return least;
    switch (info->vendor_id) {
    case AMD:
    case NVIDIA:
        return many;
    case APPLE:
    case MESA: /* as its driver for Apple's GPUs says */
        return some;
    case INTEL:
        return least;
    default:
        return few;
    }
}

/* Invocations of a subgroup; Intel's GPUs share out registers by it, so that the smallest have most. */
static int lanes_of(const trn_device_info *info)
{
    return (int)(info->vendor_id == INTEL && info->subgroup_min ? info->subgroup_min : info->subgroup_size);
}

static int vectors_of(int head)
{
    return (head + 3) / 4;
}

static int across(int count, int size)
{
    return (count + size - 1) / size;
}

static int invocations(const trn_tiles_shape *s)
{
    return s->tx * s->ty * s->pack;
}

static bool shuffles(const trn_device_info *info, const trn_tiles_shape *s)
{
    return info->subgroup_shuffle && info->subgroup_max && lanes_of(info) >= s->tx &&
           invocations(s) % lanes_of(info) == 0;
}

static int shared_bytes(const trn_device_info *info, const trn_tiles_work *w, const trn_tiles_shape *s)
{
    int rows = s->ty * s->tq, others = s->tx * s->tk;
    int vectors = (w->row_tiles * rows + w->other_tiles * others) * (vectors_of(w->head) | 1) +
                  w->pair_tiles * rows * (others / 4 | 1);
    int joint = shuffles(info, s) ? 0 : 4 * rows * (s->tx + 1);
    return s->pack * (16 * vectors + joint);
}

/* Four channels of a tile that an invocation fetches at a time. */
static int parts_of(const trn_tiles_work *w, const trn_tiles_shape *s)
{
    return across(s->tx * s->tk * vectors_of(w->head), s->tx * s->ty);
}

static bool has_registers(const trn_tiles_work *w, const trn_tiles_shape *s, const room *most)
{
    int vectors = vectors_of(w->head), parts = s->direct ? 1 : parts_of(w, s);
    int places = w->whole ? 5 : 8; /* of a part, in memory and in the tile */
    int tiles = TRN_MAX(1, w->other_tiles - (w->pair_tiles && w->row_tiles == 1)); /* on their way at once */
    int values =
        w->products * s->tq * s->tk + 4 * w->sums * s->tq * across(vectors, s->tx) + 4 * parts * tiles;
    return values <= most->values && values + places * parts <= most->all;
}

static bool fits(const trn_device_info *info, const trn_tiles_work *w, const trn_tiles_shape *s,
                 const room *most)
{
    return (uint32_t)invocations(s) <= TRN_MIN(info->max_invocations, info->max_group_size[0]) &&
           (uint32_t)shared_bytes(info, w, s) <= info->shared_memory_bytes && has_registers(w, s, most);
}

/* In multiplications of an invocation, for a softmax group: what is multiplied, idle lanes included, with
 * loads from shared memory as some multiplications each, and more when too few invocations fit beside each
 * other. */
static double cost_of(const trn_device_info *info, const trn_tiles_work *w, const trn_tiles_shape *s)
{
    enum { LOAD = 6, ROUND = 200, WAIT = 64 };
    int vectors = vectors_of(w->head), te = across(vectors, s->tx), others = s->tx * s->tk;
    double products = (double)w->products * vectors * (4 * s->tq * s->tk + LOAD * (s->tq + s->tk));
    double sums = (double)w->sums * others / 4 * (16 * s->tq * te + LOAD * (s->tq + 4 * te));
    double blocks = (double)across(w->rows, s->ty * s->tq) * across(w->others, others);
    double waits = s->direct ? (double)w->other_tiles * parts_of(w, s) * WAIT : 0;
    double lanes = TRN_MAX(1, lanes_of(info));
    double waste = ceil(invocations(s) / lanes) * lanes / invocations(s);
    double resident = floor(2.0 * info->shared_memory_bytes / shared_bytes(info, w, s)) * invocations(s);
    return blocks * s->tx * s->ty * waste * (products + sums + waits + ROUND) *
           TRN_MAX(1.0, BUSY_INVOCATIONS / resident);
}

/* ---- the choice ---- */

/* Puts a shape in its place, unless a better one has as many invocations. */
static int keep(trn_tiles_shape *shapes, double *costs, int count, const trn_tiles_shape *shape, double cost)
{
    int same = 0;
    while (same < count && invocations(&shapes[same]) != invocations(shape))
        same++;
    if (same < count && costs[same] <= cost) return count;
    int at = same < count ? same : TRN_MIN(count, TRN_TILES_SHAPES - 1);
    if (same == count && count == TRN_TILES_SHAPES && costs[at] <= cost) return count;
    for (; at > 0 && costs[at - 1] > cost; at--) {
        shapes[at] = shapes[at - 1];
        costs[at] = costs[at - 1];
    }
    shapes[at] = *shape;
    costs[at] = cost;
    return same < count ? count : TRN_MIN(count + 1, TRN_TILES_SHAPES);
}

static int shapes_within(const trn_device_info *info, const trn_tiles_work *work, room most, bool direct,
                         trn_tiles_shape *shapes)
{
    static const int tx[] = {4, 8, 16}, ty[] = {2, 4, 8, 16, 32}, tq[] = {1, 2, 4, 8}, tk[] = {1, 2, 4};
    enum { SIZES = 3 * 5 * 4 * 3, SMALLEST_GROUP = 64 };
    double costs[TRN_TILES_SHAPES];
    int count = 0;
    for (int i = 0; i < SIZES; i++) {
        trn_tiles_shape shape = {tx[i % 3], ty[i / 3 % 5], tq[i / 15 % 4], tk[i / 60], 1, direct};
        int least = TRN_MAX(SMALLEST_GROUP, (int)info->subgroup_size);
        do {
            if (fits(info, work, &shape, &most))
                count = keep(shapes, costs, count, &shape, cost_of(info, work, &shape));
            shape.pack *= 2;
        } while (shape.tx * shape.ty * shape.pack <= least);
    }
    return count;
}

int trn_tiles_shapes(const trn_device_info *info, const trn_tiles_work *work,
                     trn_tiles_shape shapes[TRN_TILES_SHAPES])
{
    const room most = room_of(info), twice = {2 * most.values, 2 * most.all}, any = {INT_MAX, INT_MAX};
    int count = shapes_within(info, work, most, false, shapes);
    if (!count) count = shapes_within(info, work, most, true, shapes);
    if (!count) count = shapes_within(info, work, twice, true, shapes);
    return count ? count : shapes_within(info, work, any, true, shapes);
}

const char *trn_tiles_name(trn_lower *lower, const trn_tiles_shape *s)
{
    const char *name = trn_lower_printf(lower, "tiles %dx%d %dx%d x%d%s", s->ty * s->tq, s->tx * s->tk, s->tq,
                                        s->tk, s->pack, s->direct ? " direct" : "");
    return name ? name : "tiles";
}

bool trn_tiles_whole(const trn_attention_desc *d)
{
    return d->head_size % 4 == 0 && trn_attention_fours(&d->q) && trn_attention_fours(&d->k) &&
           trn_attention_fours(&d->v) && trn_attention_fours(&d->out);
}

void trn_tiles_macros(trn_lower *lower, trn_step *step, const trn_tiles_shape *shape,
                      const trn_attention_desc *d)
{
    const trn_device_info *info = trn_lower_device(lower);
    trn_step_macro(lower, step, "TX", shape->tx);
    trn_step_macro(lower, step, "TY", shape->ty);
    trn_step_macro(lower, step, "TQ", shape->tq);
    trn_step_macro(lower, step, "TK", shape->tk);
    trn_step_macro(lower, step, "PACK", shape->pack);
    step->groups[0] = (uint32_t)shape->pack;
    if (shape->direct) trn_step_macro(lower, step, "DIRECT", 1);
    if (trn_tiles_whole(d)) trn_step_macro(lower, step, "VEC4", 1);
    if (!shuffles(info, shape)) return;
    trn_step_macro(lower, step, "SHUFFLE", 1);
    step->subgroup_size = (uint32_t)lanes_of(info);
}

trn_status trn_tiles_choose(trn_lower *lower, const trn_node *node, const char *shader,
                            const trn_tiles_work *work, const trn_candidate *rival, trn_tiles_shape *shape,
                            trn_step *step, trn_error *err)
{
    trn_tiles_shape shapes[TRN_TILES_SHAPES];
    trn_candidate candidates[TRN_TILES_SHAPES + 1];
    const trn_device_info *info = trn_lower_device(lower);
    int tiles = trn_tiles_shapes(info, work, shapes), count = 0;
    if (!tiles && !rival)
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "attention: heads of %d need more shared memory than the %u bytes of %s", work->head,
                        info->shared_memory_bytes, info->name);
    for (int i = 0; i < tiles; i++)
        candidates[count++] = (trn_candidate){.name = trn_tiles_name(lower, &shapes[i]), .shader = shader};
    if (rival) candidates[count++] = *rival;
    *step = (trn_step){0};
    int chosen = trn_lower_choose(lower, node, candidates, count, &step->reason);
    *shape = chosen < tiles ? shapes[chosen] : (trn_tiles_shape){0};
    step->shader = candidates[chosen].shader;
    step->variant = candidates[chosen].name;
    return TRN_OK;
}
