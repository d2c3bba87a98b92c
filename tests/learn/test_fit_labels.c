/* Fitting to several labels at once: losses, scores, weights of what is there. */
#include "fit_cases.h"
#include "test_device.h"
#include "../data_room/samples.h"

enum { TRAIN = 32, VALID = 13 };

static bool has_label(size_t sample, size_t label)
{
    return trn_splitmix64(sample * 8 + label) % 3 == 0;
}

/* A band is bright where its label holds. */
static void write_sample(const char *dir, size_t sample)
{
    static const char *const bands[] = {"02 - Blue", "03 - Green", "04 - Red"};
    char id[32];
    float plane[FIT_SIDE * FIT_SIDE];
    snprintf(id, sizeof id, "id_%04zu", sample);
    hid_t file = create_sample(dir, id);
    for (size_t b = 0; b < TRN_COUNT(bands); b++) {
        for (size_t i = 0; i < TRN_COUNT(plane); i++)
            plane[i] = (float)(80 + 60 * has_label(sample, b) +
                               20 * trn_hash_uniform(b, sample * TRN_COUNT(plane) + i));
        add_plane(file, bands[b], H5T_NATIVE_FLOAT, FIT_SIDE, FIT_SIDE, plane);
    }
    H5Fclose(file);
}

static void write_samples(const char *dir)
{
    trn_text split = {0}, labels = {0};
    trn_text_add(&split, "{\"train\": [");
    trn_text_add(&labels, "{");
    for (size_t i = 0; i < TRAIN + VALID; i++) {
        write_sample(dir, i);
        if (i == TRAIN) trn_text_add(&split, "], \"valid\": [");
        trn_text_printf(&split, "%s\"id_%04zu\"", i && i != TRAIN ? ", " : "", i);
        trn_text_printf(&labels, "%s\"id_%04zu\": [%d, %d, %d]", i ? ", " : "", i, has_label(i, 0),
                        has_label(i, 1), has_label(i, 2));
    }
    trn_text_add(&split, "], \"test\": []}");
    trn_text_add(&labels, "}");
    write_text(dir, "default_partition.json", trn_text_get(&split));
    write_text(dir, "label_stats.json", trn_text_get(&labels));
    trn_text_free(&split);
    trn_text_free(&labels);
}

static void labels_are_learnt(void **state)
{
    (void)state;
    static const double weights[] = {2, 1, 1.5};
    static const trn_loss_choice losses[] = {
        {.kind = TRN_LOSS_BY_TASK},
        {.kind = TRN_LOSS_BINARY, .class_weights = weights, .class_weight_count = 3},
        {.kind = TRN_LOSS_BINARY_BALANCED}};
    static const double most[] = {0.5, 0.7, 1}; /* well below guessing: 0.69, about 1, 1.39 */
    char *data = strdup(test_temp_dir());
    write_samples(data);
    for (size_t i = 0; i < TRN_COUNT(losses); i++) {
        fit_case c;
        trn_error err = {0};
        trn_fit_result result;
        fit_open(&c, data, test_temp_dir());
        c.options.epochs = 12;
        c.options.batch = 8;
        c.options.loss = losses[i];
        assert_trn_ok(trn_fit(gpu, &c.model, c.dataset, &c.options, NULL, &result, &err), err);
        assert_string_equal(result.metric, "micro_map");
        assert_int_equal(result.valid_labels.count, VALID);
        if (!(result.valid_labels.micro_map > 0.95 && result.valid_labels.accuracy > 0.9))
            fail_msg("loss %zu: micro mAP %g, accuracy %g", i, result.valid_labels.micro_map,
                     result.valid_labels.accuracy);
        if (!(result.valid_loss < most[i] && result.train_loss < most[i]))
            fail_msg("loss %zu: %g in training, %g in validation", i, result.train_loss, result.valid_loss);
        fit_close(&c);
    }
    free(data);
}

/* Nothing moves, so that the loss over the samples to train with, in whole batches on the device, and the one
 * over the same samples to validate with, on the host, are the same number. */
static void both_losses_agree(void **state)
{
    (void)state;
    static const trn_loss_kind kinds[] = {TRN_LOSS_BINARY, TRN_LOSS_BINARY_BALANCED};
    static const size_t chosen[] = {0, 1, 2, 3, 4, 5, 6, 7};
    char *data = strdup(test_temp_dir());
    write_samples(data);
    char *partition = test_path(data, "default_partition.json");
    const char *both = "{\"train\": [\"id_0000\", \"id_0001\", \"id_0002\", \"id_0003\", \"id_0004\", "
                       "\"id_0005\", \"id_0006\", \"id_0007\"], \"valid\": [\"id_0000\", \"id_0001\", "
                       "\"id_0002\", \"id_0003\", \"id_0004\", \"id_0005\", \"id_0006\", \"id_0007\"], "
                       "\"test\": []}";
    trn_error err = {0};
    assert_trn_ok(trn_write_file(partition, both, strlen(both), &err), err);
    for (size_t i = 0; i < TRN_COUNT(kinds); i++) {
        fit_case c;
        trn_fit_result result;
        fit_open(&c, data, test_temp_dir());
        c.options.epochs = 1;
        c.options.batch = TRN_COUNT(chosen);
        c.options.schedule = (trn_schedule){.kind = TRN_SCHEDULE_CONSTANT, .base = 0};
        c.options.loss.kind = kinds[i];
        c.options.loss.balance = kinds[i] == TRN_LOSS_BINARY;
        assert_trn_ok(trn_fit(gpu, &c.model, c.dataset, &c.options, NULL, &result, &err), err);
        assert_true(fabs(result.train_loss - result.valid_loss) < 1e-5 * result.train_loss);
        fit_close(&c);
    }
    free(partition);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(labels_are_learnt),
        cmocka_unit_test(both_losses_agree),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
