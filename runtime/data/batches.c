/* Batches read ahead: threads fill samples of a ring of batches, in an order fixed before they start. */
#include "data_private.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_THREADS = 256, MAX_QUEUE = 1024, AUTO_THREADS = 8 };
#define MAX_BATCH_BYTES ((size_t)1 << 36)

/* A batch of the ring. */
typedef struct batch_slot {
    float *pixels;
    int32_t *labels;
    size_t *samples;
    size_t left;   /* samples that are not done yet */
    size_t failed; /* place of the first sample that failed; SIZE_MAX: none */
    trn_status status;
    trn_error err; /* of that sample */
} batch_slot;

struct trn_batches {
    const trn_dataset *dataset;
    trn_batches_options options;
    trn_band_statistics *normalize;
    trn_band_range *stretch;
    size_t *chosen, *order; /* [chosen_count]: the samples, and their places in this epoch's order */
    size_t chosen_count, batch_count, per_batch, queue;
    size_t sample_size, label_count; /* values of a sample in a batch */
    int height, width;
    batch_slot *slots; /* [queue] */
    pthread_t threads[MAX_THREADS];
    int thread_count;
    /* Guarded by lock. Batch b is in slot b % queue. */
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    uint64_t epoch;
    size_t next;  /* place of the sample to be read next */
    size_t taken; /* batches given out and given back */
    size_t busy;  /* threads that read a sample of this epoch */
    bool started, lent, cancelled, closing;
};

/* What a thread needs for itself. */
typedef struct scratch {
    float *pixels;
    int32_t *mask;
} scratch;

static size_t batch_size(const trn_batches *batches, size_t batch)
{
    size_t first = batch * batches->per_batch;
    return TRN_MIN(batches->per_batch, batches->chosen_count - first);
}

static size_t places(const trn_batches *batches)
{
    return batches->batch_count ? (batches->batch_count - 1) * batches->per_batch +
                                      batch_size(batches, batches->batch_count - 1)
                                : 0;
}

static bool has_work(const trn_batches *batches)
{
    return batches->started && !batches->cancelled && batches->next < places(batches) &&
           batches->next / batches->per_batch < batches->taken + batches->queue;
}

static void begin_batch(trn_batches *batches, size_t batch)
{
    batch_slot *slot = &batches->slots[batch % batches->queue];
    slot->left = batch_size(batches, batch);
    slot->failed = SIZE_MAX;
    slot->status = TRN_OK;
}

static trn_status read_sample(const trn_batches *batches, size_t place, uint64_t epoch, scratch *own,
                              trn_error *err)
{
    const trn_batches_options *options = &batches->options;
    const trn_dataset_info *info = trn_dataset_get_info(batches->dataset);
    batch_slot *slot = &batches->slots[place / batches->per_batch % batches->queue];
    size_t at = place % batches->per_batch, sample = batches->chosen[batches->order[place]];
    int32_t *labels = slot->labels + at * batches->label_count;
    bool mask = info->task == TRN_TASK_SEGMENTATION;
    slot->samples[at] = sample;
    trn_status status = trn_dataset_read(batches->dataset, options->split, sample, own->pixels,
                                         mask ? own->mask : labels, err);
    if (status != TRN_OK) return status;
    return trn_transform_apply(&options->transform, options->seed, epoch, sample, info->band_count,
                               info->height, info->width, own->pixels, mask ? own->mask : NULL,
                               slot->pixels + at * batches->sample_size, mask ? labels : NULL, err);
}

static void note_result(trn_batches *batches, size_t place, trn_status status, const trn_error *err)
{
    batch_slot *slot = &batches->slots[place / batches->per_batch % batches->queue];
    slot->left--;
    if (status == TRN_OK || place >= slot->failed) return;
    slot->failed = place;
    slot->status = status;
    slot->err = *err;
}

static bool make_scratch(const trn_batches *batches, scratch *own)
{
    const trn_dataset_info *info = trn_dataset_get_info(batches->dataset);
    size_t area = (size_t)info->height * (size_t)info->width;
    own->pixels = malloc(area * info->band_count * sizeof *own->pixels);
    own->mask = malloc(area * sizeof *own->mask);
    return own->pixels && own->mask;
}

static void *run(void *user)
{
    trn_batches *batches = user;
    scratch own;
    bool ready = make_scratch(batches, &own);
    pthread_mutex_lock(&batches->lock);
    while (!batches->closing) {
        if (has_work(batches) && trn_progress_cancelled(batches->options.progress)) {
            batches->cancelled = true;
            pthread_cond_broadcast(&batches->done);
        }
        if (!has_work(batches)) {
            pthread_cond_wait(&batches->work, &batches->lock);
            continue;
        }
        size_t place = batches->next++;
        if (place % batches->per_batch == 0) begin_batch(batches, place / batches->per_batch);
        batches->busy++;
        uint64_t epoch = batches->epoch;
        pthread_mutex_unlock(&batches->lock);
        trn_error err = {0};
        trn_status status = ready ? read_sample(batches, place, epoch, &own, &err)
                                  : trn_fail_memory(&err, batches->sample_size * sizeof(float), "a sample");
        pthread_mutex_lock(&batches->lock);
        batches->busy--;
        note_result(batches, place, status, &err);
        pthread_cond_broadcast(&batches->done);
    }
    pthread_mutex_unlock(&batches->lock);
    free(own.pixels);
    free(own.mask);
    return NULL;
}

static trn_status check_options(const trn_dataset *dataset, const trn_batches_options *o, trn_error *err)
{
    const trn_dataset_info *info = trn_dataset_get_info(dataset);
    if ((size_t)o->split >= TRN_SPLIT_COUNT)
        return trn_fail(err, TRN_ERR_ARGUMENT, "there is no split %d", (int)o->split);
    if (o->batch < 1 || o->threads < 0 || o->threads > MAX_THREADS || o->queue < 0 || o->queue > MAX_QUEUE)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "batches of %d with %d threads and %d ahead: use at least 1, at most "
                        "%d and %d",
                        o->batch, o->threads, o->queue, MAX_THREADS, MAX_QUEUE);
    if (!info->samples[o->split] || (o->samples && !o->sample_count))
        return trn_fail(err, TRN_ERR_FORMAT, "'%s' has no samples %s split %s", info->name,
                        info->samples[o->split] ? "chosen in" : "in", trn_split_name(o->split));
    for (size_t i = 0; o->samples && i < o->sample_count; i++)
        if (o->samples[i] >= info->samples[o->split])
            return trn_fail(err, TRN_ERR_ARGUMENT, "sample %zu is chosen, and split %s of '%s' has %zu",
                            o->samples[i], trn_split_name(o->split), info->name, info->samples[o->split]);
    return TRN_OK;
}

static trn_status choose_samples(trn_batches *batches, const trn_batches_options *o, trn_error *err)
{
    const trn_dataset_info *info = trn_dataset_get_info(batches->dataset);
    size_t count = o->samples ? o->sample_count : info->samples[o->split];
    batches->chosen_count = count;
    batches->chosen = calloc(count, sizeof *batches->chosen);
    batches->order = calloc(count, sizeof *batches->order);
    if (!batches->chosen || !batches->order) return trn_fail_memory(err, count * sizeof(size_t), "an order");
    for (size_t i = 0; i < count; i++)
        batches->chosen[i] = o->samples ? o->samples[i] : i;
    batches->per_batch = (size_t)o->batch;
    batches->batch_count = count / batches->per_batch;
    if (!o->drop_last && count % batches->per_batch) batches->batch_count++;
    if (!batches->batch_count)
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "%zu samples do not fill a batch of %d, and an incomplete one would be "
                        "left out",
                        count, o->batch);
    return TRN_OK;
}

/* Statistics and ranges may be gone before the batches are. */
static trn_status copy_numbers(trn_batches *batches, trn_error *err)
{
    size_t bands = trn_dataset_get_info(batches->dataset)->band_count;
    trn_transform *t = &batches->options.transform;
    if (t->normalize) {
        batches->normalize = malloc(bands * sizeof *t->normalize);
        if (!batches->normalize) return trn_fail_memory(err, bands * sizeof *t->normalize, "statistics");
        memcpy(batches->normalize, t->normalize, bands * sizeof *t->normalize);
        t->normalize = batches->normalize;
    }
    if (t->stretch) {
        batches->stretch = malloc(bands * sizeof *t->stretch);
        if (!batches->stretch) return trn_fail_memory(err, bands * sizeof *t->stretch, "ranges");
        memcpy(batches->stretch, t->stretch, bands * sizeof *t->stretch);
        t->stretch = batches->stretch;
    }
    return TRN_OK;
}

static trn_status make_slots(trn_batches *batches, trn_error *err)
{
    const trn_dataset_info *info = trn_dataset_get_info(batches->dataset);
    size_t area = (size_t)batches->height * (size_t)batches->width, bytes = 0, label_bytes = 0;
    batches->label_count = info->task == TRN_TASK_SEGMENTATION ? area : info->label_count;
    bool fits = trn_mul_size(area, info->band_count, &batches->sample_size) &&
                trn_mul_size(batches->sample_size * sizeof(float), batches->per_batch, &bytes) &&
                trn_mul_size(batches->label_count * sizeof(int32_t), batches->per_batch, &label_bytes);
    batches->slots = calloc(batches->queue, sizeof *batches->slots);
    fits = fits && bytes <= MAX_BATCH_BYTES && label_bytes <= MAX_BATCH_BYTES;
    if (!fits || !batches->slots) return trn_fail_memory(err, bytes, "a batch: make it smaller");
    for (size_t i = 0; i < batches->queue; i++) {
        batch_slot *slot = &batches->slots[i];
        slot->pixels = malloc(bytes);
        slot->labels = malloc(label_bytes);
        slot->samples = calloc(batches->per_batch, sizeof *slot->samples);
        if (!slot->pixels || !slot->labels || !slot->samples)
            return trn_fail_memory(err, bytes, "a batch: make it smaller, or read fewer ahead");
    }
    return TRN_OK;
}

static trn_status start_threads(trn_batches *batches, trn_error *err)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int wanted = batches->options.threads;
    if (!wanted) wanted = (int)TRN_MIN(TRN_MAX(processors, 1), AUTO_THREADS);
    for (; batches->thread_count < wanted; batches->thread_count++)
        if (pthread_create(&batches->threads[batches->thread_count], NULL, run, batches) != 0)
            return trn_fail(err, TRN_ERR_IO, "the system starts no more than %d threads",
                            batches->thread_count);
    return TRN_OK;
}

trn_status trn_batches_open(const trn_dataset *dataset, const trn_batches_options *options, trn_batches **out,
                            trn_error *err)
{
    *out = NULL;
    trn_status status = check_options(dataset, options, err);
    if (status != TRN_OK) return status;
    trn_batches *batches = calloc(1, sizeof *batches);
    if (!batches) return trn_fail_memory(err, sizeof *batches, "batches");
    pthread_mutex_init(&batches->lock, NULL);
    pthread_cond_init(&batches->work, NULL);
    pthread_cond_init(&batches->done, NULL);
    batches->dataset = dataset;
    batches->options = *options;
    batches->options.samples = NULL;
    batches->queue = options->queue ? (size_t)options->queue : 2;
    const trn_dataset_info *info = trn_dataset_get_info(dataset);
    status = trn_transform_size(&options->transform, info->height, info->width, &batches->height,
                                &batches->width, err);
    if (status == TRN_OK) status = choose_samples(batches, options, err);
    if (status == TRN_OK) status = copy_numbers(batches, err);
    if (status == TRN_OK) status = make_slots(batches, err);
    if (status == TRN_OK) status = start_threads(batches, err);
    if (status == TRN_OK)
        *out = batches;
    else
        trn_batches_close(batches);
    return status;
}

size_t trn_batches_count(const trn_batches *batches)
{
    return batches->batch_count;
}

trn_status trn_batches_start(trn_batches *batches, uint64_t epoch, trn_error *err)
{
    return trn_batches_start_at(batches, epoch, 0, err);
}

trn_status trn_batches_start_at(trn_batches *batches, uint64_t epoch, size_t first, trn_error *err)
{
    if (first > batches->batch_count)
        return trn_fail(err, TRN_ERR_ARGUMENT, "an epoch of %zu batches cannot begin with batch %zu",
                        batches->batch_count, first);
    if (trn_progress_cancelled(batches->options.progress)) return trn_fail_cancelled(err, "reading batches");
    pthread_mutex_lock(&batches->lock);
    batches->started = false; /* nobody begins another sample */
    while (batches->busy)
        pthread_cond_wait(&batches->done, &batches->lock);
    if (batches->options.shuffle)
        trn_data_shuffle(batches->options.seed, epoch, batches->chosen_count, batches->order);
    else
        for (size_t i = 0; i < batches->chosen_count; i++)
            batches->order[i] = i;
    batches->epoch = epoch;
    batches->taken = first;
    batches->next = first * batches->per_batch;
    batches->lent = batches->cancelled = false;
    batches->started = true;
    pthread_cond_broadcast(&batches->work);
    pthread_mutex_unlock(&batches->lock);
    return TRN_OK;
}

/* Whether batch `batch` is complete: all its samples were begun, and all have ended. */
static bool is_complete(const trn_batches *batches, size_t batch)
{
    return batches->next > batch * batches->per_batch && batches->slots[batch % batches->queue].left == 0;
}

static void lend(trn_batches *batches, trn_batch *out)
{
    const batch_slot *slot = &batches->slots[batches->taken % batches->queue];
    *out = (trn_batch){.count = batch_size(batches, batches->taken),
                       .bands = trn_dataset_get_info(batches->dataset)->band_count,
                       .height = (size_t)batches->height,
                       .width = (size_t)batches->width,
                       .label_count = batches->label_count,
                       .pixels = slot->pixels,
                       .labels = slot->labels,
                       .samples = slot->samples};
    batches->lent = true;
}

static void take_back(trn_batches *batches)
{
    if (!batches->lent) return;
    batches->lent = false;
    batches->taken++;
    pthread_cond_broadcast(&batches->work);
}

bool trn_batches_wait(trn_batches *batches, int milliseconds)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    long long ns = until.tv_nsec + milliseconds * 1000000LL;
    until.tv_sec += (time_t)(ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    bool in_time = true, there = false;
    pthread_mutex_lock(&batches->lock);
    take_back(batches);
    while (in_time && !there) {
        there = !batches->started || batches->cancelled || batches->taken >= batches->batch_count ||
                is_complete(batches, batches->taken);
        if (!there) in_time = pthread_cond_timedwait(&batches->done, &batches->lock, &until) == 0;
    }
    pthread_mutex_unlock(&batches->lock);
    return there;
}

trn_status trn_batches_next(trn_batches *batches, trn_batch *out, trn_error *err)
{
    trn_status status = TRN_OK;
    *out = (trn_batch){0};
    pthread_mutex_lock(&batches->lock);
    take_back(batches);
    while (batches->started && !batches->cancelled && batches->taken < batches->batch_count &&
           !is_complete(batches, batches->taken))
        pthread_cond_wait(&batches->done, &batches->lock);
    const batch_slot *slot = &batches->slots[batches->taken % batches->queue];
    if (!batches->started) {
        status = trn_fail(err, TRN_ERR_ARGUMENT, "no epoch was begun: call trn_batches_start first");
    } else if (batches->cancelled) {
        status = trn_fail_cancelled(err, "reading batches");
    } else if (batches->taken < batches->batch_count && slot->status != TRN_OK) {
        status = slot->status;
        if (err) *err = slot->err;
    } else if (batches->taken < batches->batch_count) {
        lend(batches, out);
    }
    pthread_mutex_unlock(&batches->lock);
    return status;
}

void trn_batches_cancel(trn_batches *batches)
{
    pthread_mutex_lock(&batches->lock);
    batches->cancelled = true;
    pthread_cond_broadcast(&batches->done);
    pthread_mutex_unlock(&batches->lock);
}

static void free_slots(trn_batches *batches)
{
    for (size_t i = 0; batches->slots && i < batches->queue; i++) {
        free(batches->slots[i].pixels);
        free(batches->slots[i].labels);
        free(batches->slots[i].samples);
    }
    free(batches->slots);
}

void trn_batches_close(trn_batches *batches)
{
    if (!batches) return;
    pthread_mutex_lock(&batches->lock);
    batches->closing = true;
    pthread_cond_broadcast(&batches->work);
    pthread_mutex_unlock(&batches->lock);
    for (int i = 0; i < batches->thread_count; i++)
        pthread_join(batches->threads[i], NULL);
    pthread_mutex_destroy(&batches->lock);
    pthread_cond_destroy(&batches->work);
    pthread_cond_destroy(&batches->done);
    free_slots(batches);
    free(batches->chosen);
    free(batches->order);
    free(batches->normalize);
    free(batches->stretch);
    free(batches);
}
