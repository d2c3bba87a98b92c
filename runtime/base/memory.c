/* Arenas and growing arrays. */
#include "base.h"

#include <stdlib.h>
#include <string.h>

bool trn_mul_size(size_t a, size_t b, size_t *out)
{
    if (a && b > SIZE_MAX / a) return false;
    *out = a * b;
    return true;
}

bool trn_add_size(size_t a, size_t b, size_t *out)
{
    if (b > SIZE_MAX - a) return false;
    *out = a + b;
    return true;
}

bool trn_grow(void *array_ptr, size_t *capacity, size_t need, size_t element_size)
{
    if (need <= *capacity) return true;
    size_t wanted = *capacity ? *capacity : 8;
    while (wanted < need) {
        if (wanted > SIZE_MAX / 2) return false;
        wanted *= 2;
    }
    size_t bytes;
    if (!trn_mul_size(wanted, element_size, &bytes)) return false;
    void *old;
    memcpy(&old, array_ptr, sizeof old);
    void *grown = realloc(old, bytes);
    if (!grown) return false;
    memcpy(array_ptr, &grown, sizeof grown);
    *capacity = wanted;
    return true;
}

typedef struct arena_block {
    struct arena_block *next;
    size_t used, size;
    _Alignas(16) unsigned char bytes[];
} arena_block;

struct trn_arena {
    arena_block *blocks;
};

enum { ARENA_BLOCK_BYTES = 16 * 1024 };

trn_arena *trn_arena_create(void)
{
    return calloc(1, sizeof(trn_arena));
}

void trn_arena_destroy(trn_arena *arena)
{
    if (!arena) return;
    for (arena_block *block = arena->blocks; block;) {
        arena_block *next = block->next;
        free(block);
        block = next;
    }
    free(arena);
}

void *trn_arena_alloc(trn_arena *arena, size_t bytes)
{
    if (bytes > SIZE_MAX / 2) return NULL;
    bytes = (bytes + 15) & ~(size_t)15;
    arena_block *block = arena->blocks;
    if (!block || block->size - block->used < bytes) {
        size_t size = TRN_MAX(bytes, (size_t)ARENA_BLOCK_BYTES);
        block = calloc(1, sizeof *block + size);
        if (!block) return NULL;
        block->size = size;
        block->next = arena->blocks;
        arena->blocks = block;
    }
    void *result = block->bytes + block->used;
    block->used += bytes;
    return result;
}

void *trn_arena_array(trn_arena *arena, size_t count, size_t element_size)
{
    size_t bytes;
    return trn_mul_size(count, element_size, &bytes) ? trn_arena_alloc(arena, bytes) : NULL;
}

char *trn_arena_strdup(trn_arena *arena, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = trn_arena_alloc(arena, size);
    if (copy) memcpy(copy, text, size);
    return copy;
}

char *trn_arena_printf(trn_arena *arena, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    char *text = n < 0 ? NULL : trn_arena_alloc(arena, (size_t)n + 1);
    if (text) vsnprintf(text, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(args);
    return text;
}
