/* What the tests share: golden cases, synthetic tensors, comparisons, temporary folders. */
#ifndef TEST_SUPPORT_H
#define TEST_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <cjson/cJSON.h>

#include "base.h"

/* Fails the test with err's message unless status is TRN_OK. */
#define assert_trn_ok(status, err)                                                                           \
    do {                                                                                                     \
        trn_status assert_status_ = (status);                                                                \
        if (assert_status_ != TRN_OK) fail_msg("%s: %s", trn_status_name(assert_status_), (err).message);    \
    } while (0)
/* The call failed with this code and its message holds this text. */
#define assert_trn_fails(status, expected, err, text)                                                        \
    do {                                                                                                     \
        trn_status assert_status_ = (status);                                                                \
        if (assert_status_ != (expected) || !strstr((err).message, (text)))                                  \
            fail_msg("wanted %s with '%s', got %s: %s", trn_status_name(expected), (text),                   \
                     trn_status_name(assert_status_), (err).message);                                        \
    } while (0)

/* tests/data/golden/<case>/, or the shared goldens. NULL when neither has it (static buffer). */
const char *test_golden_path(const char *relative);
/* The manifest's entry of a case; fails the test when absent. */
const cJSON *test_golden_case(const char *id);
bool test_golden_has(const char *id);
/* A tensor of a golden case: an input by its rule (hash, literal or file), or an output from its file.
 * malloc'd. */
typedef struct test_tensor {
    int ndim;
    int64_t shape[8], count;
    float *data;
    int64_t flat_stride; /* data holds every flat_stride-th value; 1 normally */
    double absmax;       /* over the full tensor (outputs) */
} test_tensor;
test_tensor test_golden_input(const char *case_id, const char *name);
test_tensor test_golden_output(const char *case_id, const char *name);
/* offset + scale*u(name, i). malloc'd. */
float *test_hash_values(const char *name, int64_t count, double scale, double offset);

/* max|a-b| / absmax; NAN anywhere gives infinity. */
double test_worst_error(const float *actual, const float *expected, int64_t count, double absmax);
/* Fails when the error is above tolerance; prints "case name: error (tolerance)" for the table either way. */
void test_compare_golden(const char *case_id, const char *name, const float *actual, int64_t actual_count,
                         double tolerance);

/* A new folder below the build's temporary space, removed at exit. Static buffer per call: copy it. */
char *test_temp_dir(void);
char *test_path(const char *dir, const char *name); /* malloc'd join */
/* Runs a shell command line; returns its exit status and its output (malloc'd, stdout and stderr together).
 */
int test_run(const char *command, char **output);

#endif
