/* terrane shaders: what is asked of it, and what it says where drivers tell nothing. */
#include "command_run.h"

static const char *dir;

static void test_asks_for_what(void **state)
{
    (void)state;
    assert_fails(terrane(dir, "", "shaders"), TRN_ERR_ARGUMENT, "usage: terrane shaders");
}

/* CPU drivers tell nothing of kernels: that is said, and nothing else is printed. GPU drivers tell. */
static void test_statistics(void **state)
{
    (void)state;
    int status = terrane(dir, "", "shaders --statistics --model presto -q");
    if (status == 0) {
        assert_true(says("registers"));
        assert_true(says(".comp"));
        return;
    }
    assert_fails(status, TRN_ERR_UNSUPPORTED, "VK_KHR_pipeline_executable_properties");
}

static void test_no_device(void **state)
{
    (void)state;
    assert_fails(terrane(dir, "", "shaders --statistics -d nothing-like-this"), TRN_ERR_ARGUMENT,
                 "nothing-like-this");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_asks_for_what),
        cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_no_device),
    };
    dir = test_temp_dir();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
