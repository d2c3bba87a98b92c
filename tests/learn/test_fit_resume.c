/* Going on: runs that are killed, stopped or run out of disk end with the same bits as those that are not;
 * checkpoints that cannot be continued say why. */
#include "fit_cases.h"
#include "test_device.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char *new_dir(void)
{
    char *copy = strdup(test_temp_dir());
    assert_non_null(copy);
    return copy;
}

/* ---- the runs ---- */

/* A checkpoint after each step; random numbers in the data and in the network. */
static void set_up_classes(fit_case *c)
{
    c->options.epochs = 4;
    c->options.train_transform = (trn_transform){.flip_x = 0.5, .flip_y = 0.5, .rotate = true};
    c->options.drop_path = 0.2;
    c->options.optimizer.max_norm = 1;
    c->options.optimizer.average = 0.9;
    c->options.checkpoint_seconds = 1e-9;
    c->head.dropout = 0.2F;
}

/* Checkpoints at the end of epochs only, running statistics, several runs to a step, momentum. */
static void set_up_masks(fit_case *c)
{
    c->head = (trn_head_desc){.kind = TRN_HEAD_FCN, .outputs = c->head.outputs, .channels = 8, .layers = 1};
    c->options.epochs = 5;
    c->options.batch = 2;
    c->options.accumulate = 2;
    c->options.optimizer =
        (trn_optimizer_desc){.kind = TRN_SGD, .momentum = 0.9, .nesterov = true, .weight_decay = 1e-4};
    c->options.schedule = (trn_schedule){.kind = TRN_SCHEDULE_COSINE, .base = 0.05, .start = 1e-3};
    c->options.warmup_epochs = 1;
}

typedef struct plan {
    const char *name;
    void (*set_up)(fit_case *c);
} plan;
static const plan plans[] = {{"classes", set_up_classes}, {"masks", set_up_masks}};

static void open_plan(fit_case *c, size_t i, const char *data, const char *out)
{
    fit_open(c, data, out);
    plans[i].set_up(c);
}

static void write_data(size_t i, const char *dir)
{
    if (i == 0)
        fit_write_classes(dir, 26, 8, 3);
    else
        fit_write_masks(dir, 13, 4);
}

static trn_status run_plan(size_t i, const char *data, const char *out, const trn_learn_hooks *hooks,
                           trn_fit_result *result, trn_error *err)
{
    fit_case c;
    open_plan(&c, i, data, out);
    trn_status status = trn_fit(gpu, &c.model, c.dataset, &c.options, hooks, result, err);
    fit_close(&c);
    return status;
}

static void run_to_end(size_t i, const char *data, const char *out, bool resumes)
{
    trn_error err = {0};
    trn_fit_result result;
    assert_trn_ok(run_plan(i, data, out, NULL, &result, &err), err);
    if (result.resumed != resumes) fail_msg("'%s': the run %s", out, resumes ? "began anew" : "was resumed");
}

/* ---- killed ---- */

static const char *program; /* this one */

static pid_t start_child(const char *name, const char *data, const char *out)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child) return child;
    execl(program, program, name, data, out, (char *)NULL);
    _exit(127);
}

/* This program as a child: one run. */
static int run_child(const char *name, const char *data, const char *out)
{
    trn_error err = {0};
    trn_fit_result result;
    if (open_device(NULL)) return 2;
    for (size_t i = 0; i < TRN_COUNT(plans); i++)
        if (!strcmp(plans[i].name, name)) run_plan(i, data, out, NULL, &result, &err);
    if (err.code != TRN_OK) fprintf(stderr, "%s\n", err.message);
    close_device(NULL);
    return (int)err.code;
}

static long long log_size(const char *out)
{
    struct stat status;
    char *path = test_path(out, "log.jsonl");
    long long size = stat(path, &status) ? 0 : (long long)status.st_size;
    free(path);
    return size;
}

static void wait_ns(long ns)
{
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

/* Kills the child when it has written `bytes` more of the log and a moment has passed; whether it lived. */
static bool kill_child(pid_t child, const char *out, long long bytes, long moment_ns)
{
    int status;
    long long from = log_size(out), size;
    for (int i = 0; i < 60000; i++) {
        if (waitpid(child, &status, WNOHANG) == child) {
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
            return false;
        }
        size = log_size(out);
        if (size < from) from = size; /* cut back to its checkpoint */
        if (size >= from + bytes) break;
        wait_ns(1000000);
    }
    wait_ns(moment_ns);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status);
}

static void a_killed_run_ends_the_same(size_t i)
{
    enum { KILLS = 5, LINE = 100 };
    char *data = new_dir(), *whole = new_dir(), *killed = new_dir();
    int deaths = 0;
    write_data(i, data);
    run_to_end(i, data, whole, false);
    for (uint64_t k = 0; k < KILLS; k++) {
        uint64_t chance = trn_splitmix64((uint64_t)getpid() * 8 + k);
        pid_t child = start_child(plans[i].name, data, killed);
        long long lines = k == 1 ? 6 : (long long)(1 + chance % 7); /* once behind an epoch for sure */
        deaths += kill_child(child, killed, lines * LINE, (long)(chance >> 8) % 6000000);
    }
    print_message("killed %d times after %lld bytes of %lld of log\n", deaths, log_size(killed),
                  log_size(whole));
    assert_true(deaths >= 2);
    trn_error err = {0};
    trn_fit_result result;
    assert_trn_ok(run_plan(i, data, killed, NULL, &result, &err), err);
    fit_same_run(whole, killed);
    free(data);
    free(whole);
    free(killed);
}

static void killed_classes_end_the_same(void **state)
{
    (void)state;
    a_killed_run_ends_the_same(0);
}

static void killed_masks_end_the_same(void **state)
{
    (void)state;
    a_killed_run_ends_the_same(1);
}

/* ---- a driver that gives up ---- */

static void a_lost_device_leaves_the_checkpoint(void **state)
{
    (void)state;
    char *data = new_dir(), *whole = new_dir(), *lost = new_dir();
    trn_gpu *good = gpu, *failing;
    trn_error err = {0};
    trn_fit_result result;
    write_data(0, data);
    run_to_end(0, data, whole, false);
    trn_gpu_options options = {.fail_submission = 40};
    assert_trn_ok(trn_gpu_open(&options, &failing, &err), err);
    gpu = failing;
    trn_status status = run_plan(0, data, lost, NULL, &result, &err);
    trn_gpu_close(failing);
    gpu = good;
    assert_trn_fails(status, TRN_ERR_DEVICE_LOST, err, "the same command goes on after step");
    run_to_end(0, data, lost, true);
    fit_same_run(whole, lost);
    free(data);
    free(whole);
    free(lost);
}

/* ---- stopped ---- */

typedef struct stopping {
    const char *stage; /* its beginning */
    int left;          /* reports before it stops */
} stopping;

static void count_down(void *user, const char *stage, uint64_t done, uint64_t total)
{
    stopping *s = user;
    (void)done, (void)total;
    if (trn_starts_with(stage, s->stage)) s->left--;
}

static bool is_over(void *user)
{
    const stopping *s = user;
    return s->left < 0;
}

static void a_stopped_run_goes_on(void **state)
{
    (void)state;
    static const stopping moments[] = {{"epoch", 0}, {"epoch", 5}, {"epoch 3/4", 2}, {"validating", 1}};
    char *data = new_dir(), *whole = new_dir(), *stopped = new_dir();
    write_data(0, data);
    run_to_end(0, data, whole, false);
    for (size_t i = 0; i < TRN_COUNT(moments); i++) {
        trn_error err = {0};
        trn_fit_result result;
        stopping s = moments[i];
        trn_learn_hooks hooks = {.progress = {count_down, is_over, &s}};
        assert_trn_fails(run_plan(0, data, stopped, &hooks, &result, &err), TRN_ERR_CANCELLED, err,
                         "the same command goes on from there");
        assert_true(fit_exists(stopped, "last.safetensors"));
    }
    run_to_end(0, data, stopped, true);
    fit_same_run(whole, stopped);
    free(data);
    free(whole);
    free(stopped);
}

/* ---- no room on the disk ---- */

static void limit_files(rlim_t bytes)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* From the third step on files stay small. */
static void fill_disk(void *user, const char *stage, uint64_t done, uint64_t total)
{
    int *reports = user;
    (void)done, (void)total;
    if (trn_starts_with(stage, "epoch") && ++*reports == 3) limit_files(8192);
}

static void a_full_disk_keeps_the_former_checkpoint(void **state)
{
    (void)state;
    char *data = new_dir(), *whole = new_dir(), *full = new_dir();
    trn_error err = {0};
    trn_fit_result result;
    int reports = 0;
    trn_learn_hooks hooks = {.progress = {.report = fill_disk, .user = &reports}};
    write_data(0, data);
    run_to_end(0, data, whole, false);
    signal(SIGXFSZ, SIG_IGN); /* the write fails then, as on a full disk */
    trn_status status = run_plan(0, data, full, &hooks, &result, &err);
    limit_files(RLIM_INFINITY);
    assert_trn_fails(status, TRN_ERR_IO, err,
                     "the checkpoint of step 3 cannot be written; the one of step 2 is kept");
    run_to_end(0, data, full, true);
    fit_same_run(whole, full);
    free(data);
    free(whole);
    free(full);
}

/* ---- checkpoints that cannot be continued ---- */

static void refuse(const fit_case *c, trn_status status, const char *text)
{
    trn_error err = {0};
    trn_fit_result result;
    assert_trn_fails(trn_fit(gpu, &c->model, c->dataset, &c->options, NULL, &result, &err), status, err,
                     text);
}

static void other_settings_are_refused(void **state)
{
    (void)state;
    fit_case c;
    char *data = new_dir(), *other = new_dir(), *out = new_dir();
    size_t size, size_after;
    write_data(0, data);
    fit_write_classes(other, 27, 8, 3);
    run_to_end(0, data, out, false);
    char *before = fit_read(out, "last.safetensors", &size);
    open_plan(&c, 0, data, out);
    const fit_case good = c;
    c.options.seed = 10;
    refuse(&c, TRN_ERR_ARGUMENT,
           "is of another setting of training: there it is \"seed 9\", here \"seed 10\"");
    c.options = good.options;
    c.options.schedule.base = 1;
    refuse(&c, TRN_ERR_ARGUMENT, "is of another optimizer: there it is \"schedule 1 from 0 to 0.003");
    c.options = good.options;
    c.options.description = "a study";
    refuse(&c, TRN_ERR_ARGUMENT, "is of another settings: there it is \"\", here \"a study\"");
    c.options = good.options;
    c.options.train_transform.stretch = (const trn_band_range[FIT_BANDS]){{0, 1}, {0, 1}, {0, 1}};
    refuse(&c, TRN_ERR_ARGUMENT, "is of another setting of training: there it is \"training samples");
    c.options = good.options;
    c.head.kind = TRN_HEAD_MLP;
    refuse(&c, TRN_ERR_ARGUMENT, "is of another head");
    c.head.kind = TRN_HEAD_LINEAR;
    c.member.options.pool = TRN_FEATURES_CLS;
    refuse(&c, TRN_ERR_ARGUMENT, "is of another model");
    fit_close(&c);
    open_plan(&c, 0, other, out);
    refuse(&c, TRN_ERR_ARGUMENT, "is of another data");
    fit_close(&c);
    fit_image = 1; /* one image has other pixels, and as many bytes as before */
    fit_write_image(data, "image0.tif", FIT_BANDS, fit_pixel);
    open_plan(&c, 0, data, out);
    refuse(&c, TRN_ERR_ARGUMENT,
           "is of another data: there it is \"files, by their sizes and times of change");
    fit_close(&c);
    char *after = fit_read(out, "last.safetensors", &size_after);
    assert_true(size == size_after && !memcmp(before, after, size));
    free(before);
    free(after);
    free(data);
    free(other);
    free(out);
}

static void overwrite(const char *out, const char *bytes, size_t size)
{
    trn_error err = {0};
    char *path = test_path(out, "last.safetensors");
    assert_trn_ok(trn_write_file(path, bytes, size, &err), err);
    free(path);
}

static void damaged_checkpoints_are_refused(void **state)
{
    (void)state;
    fit_case c;
    char *data = new_dir(), *out = new_dir();
    size_t size;
    write_data(0, data);
    run_to_end(0, data, out, false);
    char *good = fit_read(out, "last.safetensors", &size), *bad = malloc(size);
    assert_non_null(bad);
    open_plan(&c, 0, data, out);
    overwrite(out, good, size / 2);
    refuse(&c, TRN_ERR_FORMAT, "delete it to begin anew, or train into another folder");
    overwrite(out, "", 0);
    refuse(&c, TRN_ERR_FORMAT, "delete it to begin anew");
    memcpy(bad, good, size);
    bad[size - 5000] ^= 1; /* one bit of a moment */
    overwrite(out, bad, size);
    refuse(&c, TRN_ERR_FORMAT, "do not agree with their checksum");
    memcpy(bad, good, size);
    char *step = strstr(bad + 8, "\"step\":\""); /* its number is followed by others that no longer fit */
    assert_non_null(step);
    step[8] = '9';
    overwrite(out, bad, size);
    refuse(&c, TRN_ERR_FORMAT, "what it says of where the run stands is damaged");
    overwrite(out, good, size);
    char *best = test_path(out, "best.safetensors"), *last = test_path(out, "last.safetensors");
    assert_int_equal(rename(best, last), 0);
    refuse(&c, TRN_ERR_FORMAT, "it is no checkpoint of training");
    overwrite(out, good, size); /* the run was complete, and its best weights are gone */
    refuse(&c, TRN_ERR_IO, "the best weights cannot be read");
    fit_close(&c);
    free(best);
    free(last);
    free(good);
    free(bad);
    free(data);
    free(out);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_classes_end_the_same),
        cmocka_unit_test(killed_masks_end_the_same),
        cmocka_unit_test(a_lost_device_leaves_the_checkpoint),
        cmocka_unit_test(a_stopped_run_goes_on),
        cmocka_unit_test(a_full_disk_keeps_the_former_checkpoint),
        cmocka_unit_test(other_settings_are_refused),
        cmocka_unit_test(damaged_checkpoints_are_refused),
    };
    program = argv[0];
    if (argc == 4) return run_child(argv[1], argv[2], argv[3]);
    return cmocka_run_group_tests(tests, open_device, close_device);
}
