/* Reading ahead: a thread decodes the next batch of windows while the device works on the last one. */
#include "job_private.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RING = 2, EMPTY_WINDOWS_PER_BATCH = 1024 };

struct window_reader {
    const job_plan *plan;
    int batch;
    read_batch ring[RING];
    uint8_t *valid; /* [tile, tile] of the window being read */
    pthread_t thread;
    bool started;
    /* below: guarded by lock. Slot i % RING holds batch i; read .. filled-1 are ready. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int64_t filled, read; /* batches put in, batches given back */
    bool lent, ended, stop;
    trn_status status;
    trn_error err;
};

size_t job_cells_per_window(const job_plan *plan)
{
    size_t n = plan->pooled ? 1 : (size_t)(plan->tile / plan->cell);
    return n * n;
}

static size_t window_area(const job_plan *plan)
{
    return (size_t)plan->width * (size_t)plan->height;
}

static bool mark_window(const job_plan *plan, const uint8_t *valid, uint8_t *flag)
{
    size_t good = 0, area = window_area(plan);
    for (size_t i = 0; i < area; i++)
        good += valid[i];
    *flag = good * 2 >= area;
    return *flag;
}

/* A cell counts when at least half of its pixels are valid. Returns whether any does. */
static bool mark_cells(const job_plan *plan, const uint8_t *valid, uint8_t *cells)
{
    if (plan->pooled) return mark_window(plan, valid, cells);
    size_t cell = (size_t)plan->cell, tile = (size_t)plan->tile, n = tile / cell;
    bool any = false;
    for (size_t r = 0; r < n; r++) {
        for (size_t c = 0; c < n; c++) {
            size_t good = 0;
            for (size_t y = 0; y < cell; y++)
                for (size_t x = 0; x < cell; x++)
                    good += valid[(r * cell + y) * tile + c * cell + x];
            cells[r * n + c] = good * 2 >= cell * cell;
            any |= cells[r * n + c];
        }
    }
    return any;
}

static bool has_data(const window_reader *reader)
{
    return memchr(reader->valid, 1, window_area(reader->plan)) != NULL;
}

static trn_status read_window(window_reader *reader, int64_t index, float *pixels, double *place,
                              trn_error *err)
{
    const job_plan *plan = reader->plan;
    if (plan->images)
        return job_image_read(plan, index, pixels, reader->valid, plan->located ? place : NULL, err);
    int64_t x, y;
    trn_tiling_window(&plan->tiling, index, &x, &y);
    trn_status status = job_window_read(plan, x, y, plan->width, plan->height, pixels, reader->valid, err);
    /* a window without data may lie off the earth: beside a full disk, in a corner of a sinusoidal tile */
    bool placed = plan->located && has_data(reader);
    return status == TRN_OK && placed ? job_place_of_window(plan, x, y, reader->valid, place, err) : status;
}

/* What the graph learns of the pixels without data. */
static void keep_valid(const window_reader *reader, float *out)
{
    size_t area = window_area(reader->plan);
    for (size_t i = 0; i < area; i++)
        out[i] = (float)(reader->valid[i] != 0);
}

/* Fills a batch from window *next on. Windows without any data take no slot, so that the device does not work
 * on them. */
static trn_status fill(window_reader *reader, read_batch *batch, int64_t *next, trn_error *err)
{
    const job_plan *plan = reader->plan;
    size_t window = plan->date_count * plan->band_count * window_area(plan),
           cells = job_cells_per_window(plan);
    size_t capacity = (size_t)reader->batch + EMPTY_WINDOWS_PER_BATCH;
    batch->used = 0;
    batch->item_count = 0;
    while (batch->used < reader->batch && batch->item_count < capacity && *next < plan->windows) {
        trn_status status = read_window(reader, *next, batch->pixels + (size_t)batch->used * window,
                                        batch->places[batch->used], err);
        if (status != TRN_OK) return status;
        keep_valid(reader, batch->valid + (size_t)batch->used * window_area(plan));
        bool any = mark_cells(plan, reader->valid, batch->cell_valid + (size_t)batch->used * cells);
        batch->items[batch->item_count++] = (read_item){.window = *next, .slot = any ? batch->used : -1};
        if (any) batch->used++;
        ++*next;
    }
    return TRN_OK;
}

static void *run(void *user)
{
    window_reader *reader = user;
    int64_t next = 0;
    pthread_mutex_lock(&reader->lock);
    while (!reader->stop && next < reader->plan->windows) {
        if (reader->filled - reader->read >= RING) {
            pthread_cond_wait(&reader->changed, &reader->lock);
            continue;
        }
        read_batch *batch = &reader->ring[reader->filled % RING];
        pthread_mutex_unlock(&reader->lock);
        trn_error err = {0};
        trn_status status = fill(reader, batch, &next, &err);
        pthread_mutex_lock(&reader->lock);
        if (status != TRN_OK) {
            reader->status = status;
            reader->err = err;
            break;
        }
        reader->filled++;
        pthread_cond_broadcast(&reader->changed);
    }
    reader->ended = true;
    pthread_cond_broadcast(&reader->changed);
    pthread_mutex_unlock(&reader->lock);
    return NULL;
}

static bool allocate(window_reader *reader)
{
    const job_plan *plan = reader->plan;
    size_t n = (size_t)reader->batch, area = window_area(plan), values, bytes;
    if (!trn_mul_size(area, plan->date_count * plan->band_count * n, &values) ||
        !trn_mul_size(values, sizeof(float), &bytes))
        return false;
    for (int i = 0; i < RING; i++) {
        read_batch *batch = &reader->ring[i];
        /* zeroed: slots that a last, short batch leaves unused must hold numbers */
        batch->pixels = calloc(values, sizeof(float));
        batch->valid = calloc(n * area, sizeof(float));
        batch->cell_valid = calloc(n + 1, job_cells_per_window(plan));
        batch->places = calloc(n + 1, sizeof *batch->places);
        batch->items = malloc((n + EMPTY_WINDOWS_PER_BATCH) * sizeof *batch->items);
        if (!batch->pixels || !batch->valid || !batch->cell_valid || !batch->places || !batch->items)
            return false;
    }
    reader->valid = malloc(area);
    return reader->valid != NULL;
}

trn_status job_reader_create(const job_plan *plan, int batch, window_reader **out, trn_error *err)
{
    *out = NULL;
    window_reader *reader = calloc(1, sizeof *reader);
    if (!reader) return trn_fail_memory(err, sizeof *reader, "the reader");
    reader->plan = plan;
    reader->batch = batch;
    pthread_mutex_init(&reader->lock, NULL);
    pthread_cond_init(&reader->changed, NULL);
    trn_status status = TRN_OK;
    if (!allocate(reader)) {
        size_t values = (size_t)batch * plan->date_count * plan->band_count * window_area(plan);
        status = trn_fail_memory(err, RING * values * sizeof(float),
                                 "windows read ahead (a smaller batch or tile needs less)");
    } else if (pthread_create(&reader->thread, NULL, run, reader) != 0) {
        status = trn_fail(err, TRN_ERR_MEMORY, "the system refused a thread for reading");
    } else {
        reader->started = true;
    }
    if (status != TRN_OK) {
        job_reader_destroy(reader);
        return status;
    }
    *out = reader;
    return TRN_OK;
}

/* The batch that was lent last may be filled anew. */
static void give_back(window_reader *reader)
{
    if (!reader->lent) return;
    reader->lent = false;
    reader->read++;
    pthread_cond_broadcast(&reader->changed);
}

bool job_reader_wait(window_reader *reader, int milliseconds)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += milliseconds * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    int late = 0;
    pthread_mutex_lock(&reader->lock);
    give_back(reader);
    while (!late && reader->filled == reader->read && !reader->ended)
        late = pthread_cond_timedwait(&reader->changed, &reader->lock, &until);
    bool ready = reader->filled > reader->read || reader->ended;
    pthread_mutex_unlock(&reader->lock);
    return ready;
}

trn_status job_reader_next(window_reader *reader, const read_batch **out, trn_error *err)
{
    trn_status status = TRN_OK;
    *out = NULL;
    pthread_mutex_lock(&reader->lock);
    give_back(reader);
    while (reader->filled == reader->read && !reader->ended)
        pthread_cond_wait(&reader->changed, &reader->lock);
    if (reader->filled > reader->read) {
        reader->lent = true;
        *out = &reader->ring[reader->read % RING];
    } else if (reader->status != TRN_OK) {
        status = reader->status;
        if (err) *err = reader->err;
    }
    pthread_mutex_unlock(&reader->lock);
    return status;
}

void job_reader_destroy(window_reader *reader)
{
    if (!reader) return;
    if (reader->started) {
        pthread_mutex_lock(&reader->lock);
        reader->stop = true;
        pthread_cond_broadcast(&reader->changed);
        pthread_mutex_unlock(&reader->lock);
        pthread_join(reader->thread, NULL);
    }
    for (int i = 0; i < RING; i++) {
        free(reader->ring[i].pixels);
        free(reader->ring[i].valid);
        free(reader->ring[i].cell_valid);
        free(reader->ring[i].places);
        free(reader->ring[i].items);
    }
    free(reader->valid);
    pthread_cond_destroy(&reader->changed);
    pthread_mutex_destroy(&reader->lock);
    free(reader);
}
