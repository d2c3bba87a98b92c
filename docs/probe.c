/* Probes an encoder with libterrane: how well do its frozen features tell the classes of a folder of images
 * apart? The folder has a split.csv with the columns path, split (train, valid, test) and class. Features are
 * kept in Terrane's cache folder: a second run needs no encoder.
 *
 * cc probe.c -o probe $(pkg-config --cflags --libs terrane)
 *
 * ./probe data/eurosat-rgb rcf
 *
 * ./probe data/eurosat-rgb dinov2-small weights.pth */
#include <stdio.h>
#include <terrane.h>

static void tell(void *user, trn_log_level level, const char *text)
{
    (void)user;
    if (level <= TRN_LOG_WARN) fprintf(stderr, "probe: %s\n", text);
}

int main(int argc, char **argv)
{
    trn_error err = {0};
    trn_gpu *gpu = NULL;
    trn_probe_result result = {0};
    const trn_job_hooks hooks = {.note = tell};

    if (argc < 3) return fprintf(stderr, "usage: probe FOLDER MODEL [WEIGHTS]\n"), 2;
    const trn_job_encoder encoder = {
        .model = argv[2], .weights = argc > 3 ? argv[3] : NULL, .pool = TRN_FEATURES_MEAN, .weight = 1};
    const trn_probe_job job = {.data = {.path = argv[1]},
                               .encoders = &encoder,
                               .encoder_count = 1,
                               .use_knn = {true, "knn5"},
                               .use_logistic = {true, "logistic"},
                               .knn = {.k = 5, .center = true},
                               .logistic = {.standardize = true},
                               .out_dir = "."};
    if (trn_gpu_open(NULL, &gpu, &err)) goto done;
    if (trn_probe_run(&job, gpu, &hooks, &result, &err)) goto done;
    const bool test = result.samples[TRN_SPLIT_TEST] > 0; /* without a test split scores are of validation */
    printf("knn5 %.4f\n", test ? result.knn.test.accuracy : result.knn.valid.accuracy);
    printf("logistic %.4f\n", test ? result.logistic.test.accuracy : result.logistic.valid.accuracy);
done:
    if (err.code) fprintf(stderr, "probe: %s\n", err.message);
    trn_probe_result_free(&result);
    trn_gpu_close(gpu);
    return err.code ? 1 : 0;
}
