/* What `cmake --install` puts into a prefix serves others: headers compile alone, docs/embed.c and
 * docs/probe.c build and run by pkg-config and by find_package, the command finds its library. */
#include "test_images.h"
#include "test_support.h"
#include "models.h"

#include <math.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *prefix; /* of the installation, once for all tests */

/* Runs a command line that must succeed; its output, malloc'd. */
static char *run_ok(const char *format, ...) TRN_PRINTF(1, 2);
static char *run_ok(const char *format, ...)
{
    static char command[8192];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(command, sizeof command, format, args);
    va_end(args);
    assert_in_range(length, 1, sizeof command - 1);
    char *output = NULL;
    int status = test_run(command, &output);
    if (status) fail_msg("'%s' ended with %d:\n%s", command, status, output);
    return output;
}

static void write_png(const char *path)
{
    enum { WIDTH = 150, HEIGHT = 140 };
    static unsigned char pixels[HEIGHT][WIDTH][3];
    uint32_t state = 1;
    for (size_t i = 0; i < sizeof pixels; i++) {
        state = state * 1664525u + 1013904223u;
        pixels[i / (WIDTH * 3)][i / 3 % WIDTH][i % 3] = (unsigned char)(state >> 24);
    }
    png_image image = {
        .version = PNG_IMAGE_VERSION, .width = WIDTH, .height = HEIGHT, .format = PNG_FORMAT_RGB};
    assert_true(png_image_write_to_file(&image, path, 0, pixels, 0, NULL));
}

/* Runs an embed program on a picture: it prints a number for each channel of the encoder, not all the same.
 */
static void check_embed(const char *program)
{
    trn_error err = {0};
    trn_encoder *encoder = NULL;
    assert_trn_ok(trn_encoder_create("rcf", NULL, 0, &encoder, &err), err);
    int channels = trn_encoder_get_spec(encoder)->channels, count = 0;
    trn_encoder_destroy(encoder);

    char *picture = test_path(prefix, "picture.png");
    write_png(picture);
    char *output = run_ok("'%s' '%s' rcf", program, picture), *at = output, *end;
    double low = INFINITY, high = -INFINITY;
    for (double value = strtod(at, &end); end != at; value = strtod(at, &end), count++) {
        assert_true(isfinite(value));
        low = fmin(low, value), high = fmax(high, value);
        at = end;
    }
    assert_string_equal(at, "\n");
    assert_int_equal(count, channels);
    assert_true(high > low);
    free(output);
    free(picture);
}

/* Runs a probe program on a folder of images: colours are told apart. */
static void check_probe(const char *program)
{
    double neighbours = 0, logistic = 0;
    char *folder = test_path(prefix, "images");
    trn_error err = {0};
    assert_trn_ok(trn_make_dirs(folder, &err), err);
    test_images_write(folder, &(test_images){.side = 32, .classes = 3, .train = 6, .valid = 2, .test = 4});
    char *output = run_ok("cd '%s' && '%s' '%s' rcf", folder, program, folder);
    if (sscanf(output, "knn5 %lf logistic %lf", &neighbours, &logistic) != 2) fail_msg("%s", output);
    assert_true(neighbours > 0.9 && logistic > 0.9);
    free(output);
    free(folder);
}

static void test_headers_alone(void **state)
{
    (void)state;
    char *list = run_ok("cd '%s/include/terrane' && ls *.h", prefix), *save = NULL;
    int count = 0;
    for (char *name = strtok_r(list, "\n", &save); name; name = strtok_r(NULL, "\n", &save), count++) {
        free(run_ok("echo '#include <%s>' | '%s' -std=c11 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I "
                    "'%s/include/terrane'"
                    " -x c -",
                    name, INSTALL_CC, prefix));
        free(run_ok("echo '#include <%s>' | '%s' -std=c++11 -Wall -Wextra -Werror -fsyntax-only -I "
                    "'%s/include/terrane'"
                    " -x c++ -",
                    name, INSTALL_CXX, prefix));
    }
    assert_true(count >= 12); /* terrane.h and the doors */
    free(list);
}

static void test_command(void **state)
{
    (void)state;
    char *output = run_ok("env -u LD_LIBRARY_PATH '%s/bin/terrane' version", prefix);
    assert_non_null(strstr(output, "terrane"));
    free(output);
    free(run_ok("test -f '%s/share/terrane/recipes/quickstart.lua'", prefix));
}

static void test_pkg_config(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        void (*check)(const char *program);
    } examples[] = {{"embed", check_embed}, {"probe", check_probe}};
    for (size_t i = 0; i < TRN_COUNT(examples); i++) {
        char *program = test_path(prefix, examples[i].name);
        free(run_ok("export PKG_CONFIG_PATH='%s/%s/pkgconfig'; '%s' -std=c11 -Wall -Wextra -Werror %s "
                    "'%s/docs/%s.c' -o '%s'"
                    " $('%s' %s --cflags --libs terrane) -Wl,-rpath,'%s/%s'",
                    prefix, INSTALL_LIB, INSTALL_CC, INSTALL_CFLAGS, getenv("TERRANE_SOURCE"),
                    examples[i].name, program, INSTALL_PKG_CONFIG, INSTALL_PKG_CONFIG_OPTIONS, prefix,
                    INSTALL_LIB));
        examples[i].check(program);
        free(program);
    }
}

static void test_find_package(void **state)
{
    (void)state;
    static const char project[] = "cmake_minimum_required(VERSION 3.25)\n"
                                  "project(embed LANGUAGES C)\n"
                                  "find_package(terrane REQUIRED)\n"
                                  "add_executable(embed embed.c)\n"
                                  "target_link_libraries(embed PRIVATE terrane::terrane)\n";
    trn_error err = {0};
    char *dir = test_path(prefix, "project"), *lists = test_path(dir, "CMakeLists.txt");
    free(run_ok("mkdir '%s' && cp '%s/docs/embed.c' '%s'", dir, getenv("TERRANE_SOURCE"), dir));
    assert_trn_ok(trn_write_file(lists, project, strlen(project), &err), err);
    free(run_ok("'%s' -S '%s' -B '%s/build' -G Ninja -DCMAKE_PREFIX_PATH='%s' -DCMAKE_C_COMPILER='%s' "
                "-DCMAKE_C_FLAGS='%s'"
                " && '%s' --build '%s/build'",
                INSTALL_CMAKE, dir, dir, prefix, INSTALL_CC, INSTALL_CFLAGS, INSTALL_CMAKE, dir));
    char *program = test_path(dir, "build/embed");
    check_embed(program);
    free(program);
    free(lists);
    free(dir);
}

static int install(void **state)
{
    (void)state;
    prefix = test_temp_dir();
    free(run_ok("'%s' --install '%s' --config '%s' --prefix '%s'", INSTALL_CMAKE, INSTALL_BUILD,
                INSTALL_CONFIG, prefix));
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers_alone),
        cmocka_unit_test(test_command),
        cmocka_unit_test(test_pkg_config),
        cmocka_unit_test(test_find_package),
    };
    return cmocka_run_group_tests_name("install", tests, install, NULL);
}
