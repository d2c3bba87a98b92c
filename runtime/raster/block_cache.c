/* Decoded strips and tiles, so that overlapping windows do not decode them again. */
#include "raster_private.h"

#include <stdlib.h>

enum { BUCKETS = 4096 };

typedef struct block {
    struct block *newer, *older; /* by last use */
    struct block *next;          /* in its bucket */
    const raster_source *source;
    int plane;
    int64_t index;
    size_t bytes;
    uint8_t *data;
} block;

struct block_cache {
    size_t bytes, max_bytes;
    block *newest, *oldest;
    uint64_t decoded;
    block *buckets[BUCKETS];
};

block_cache *block_cache_create(size_t max_bytes)
{
    block_cache *cache = calloc(1, sizeof *cache);
    if (cache) cache->max_bytes = max_bytes;
    return cache;
}

void block_cache_destroy(block_cache *cache)
{
    if (!cache) return;
    for (block *b = cache->newest; b;) {
        block *older = b->older;
        free(b->data);
        free(b);
        b = older;
    }
    free(cache);
}

static block **bucket_of(block_cache *cache, const raster_source *source, int plane, int64_t index)
{
    uint64_t key = (uint64_t)(uintptr_t)source ^ trn_splitmix64((uint64_t)index * 65536u + (uint64_t)plane);
    return &cache->buckets[trn_splitmix64(key) % BUCKETS];
}

static void unlink_use(block_cache *cache, block *b)
{
    *(b->newer ? &b->newer->older : &cache->newest) = b->older;
    *(b->older ? &b->older->newer : &cache->oldest) = b->newer;
}

static void link_newest(block_cache *cache, block *b)
{
    b->newer = NULL;
    b->older = cache->newest;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = b;
    cache->newest = b;
}

static void drop_oldest(block_cache *cache)
{
    block *b = cache->oldest, **link = bucket_of(cache, b->source, b->plane, b->index);
    while (*link != b)
        link = &(*link)->next;
    *link = b->next;
    unlink_use(cache, b);
    cache->bytes -= b->bytes;
    free(b->data);
    free(b);
}

static block *decode_block(raster_source *source, int plane, int64_t index, trn_error *err)
{
    block *b = calloc(1, sizeof *b);
    uint8_t *data = malloc(source->block_bytes);
    if (!b || !data) {
        trn_fail_memory(err, source->block_bytes, "a block of the scene");
        goto fail;
    }
    *b =
        (block){.source = source, .plane = plane, .index = index, .bytes = source->block_bytes, .data = data};
    if (tiff_source_block(source, plane, index, data, err) != TRN_OK) goto fail;
    return b;
fail:
    free(data);
    free(b);
    return NULL;
}

const uint8_t *block_cache_get(block_cache *cache, raster_source *source, int plane, int64_t index,
                               trn_error *err)
{
    if (source->image) return source->image;
    block **bucket = bucket_of(cache, source, plane, index);
    for (block *b = *bucket; b; b = b->next) {
        if (b->source != source || b->plane != plane || b->index != index) continue;
        unlink_use(cache, b);
        link_newest(cache, b);
        return b->data;
    }
    while (cache->oldest && cache->bytes + source->block_bytes > cache->max_bytes)
        drop_oldest(cache);
    block *b = decode_block(source, plane, index, err);
    if (!b) return NULL;
    cache->decoded++;
    cache->bytes += b->bytes;
    b->next = *bucket;
    *bucket = b;
    link_newest(cache, b);
    return b->data;
}

uint64_t block_cache_decoded(const block_cache *cache)
{
    return cache->decoded;
}
