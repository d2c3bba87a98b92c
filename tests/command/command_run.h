/* Running the command in a folder of its own, and looking at what it said and left behind. */
#ifndef COMMAND_RUN_H
#define COMMAND_RUN_H

#include "test_support.h"
#include "test_raster.h"

#include <stdlib.h>
#include <string.h>

/* What the last run said (stdout and stderr together). */
static char *said;

/* Runs `terrane ARGUMENTS` in dir; before: shell text in front of it ("ulimit -f 2;", "VAR=x"). */
static inline int terrane(const char *dir, const char *before, const char *arguments)
{
    const char *command = getenv("TERRANE_COMMAND");
    assert_non_null(command);
    if (!command) return -1; /* for compilers: assertions return, as far as they know */
    trn_text line = {0};
    trn_text_printf(&line, "cd '%s' && %s '%s' %s", dir, before, command, arguments);
    free(said);
    int status = test_run(trn_text_get(&line), &said);
    trn_text_free(&line);
    return status;
}

static inline bool says(const char *text)
{
    return strstr(said, text) != NULL;
}

/* The run ended with this status, printed exactly one error line, and that holds this text. */
static inline void assert_fails(int status, trn_status wanted, const char *text)
{
    size_t lines = 0;
    for (const char *at = said; (at = strstr(at, "terrane: error: ")); at++)
        lines++;
    if (status != (int)wanted || lines != 1 || !strstr(said, text))
        fail_msg("wanted status %d and '%s', got status %d and\n%s", (int)wanted, text, status, said);
}

#define assert_works(status)                                                                                 \
    do {                                                                                                     \
        int status_ = (status);                                                                              \
        if (status_ != 0) fail_msg("status %d\n%s", status_, said);                                          \
    } while (0)

/* The names in the folder are these, with commas between them, and no others. */
static inline void assert_holds(const char *dir, const char *wanted)
{
    char **names = NULL;
    size_t count = 0;
    trn_error err = {0};
    trn_text list = {0};
    assert_trn_ok(trn_list_dir(dir, &names, &count, &err), err);
    for (size_t i = 0; i < count; i++)
        trn_text_printf(&list, "%s%s", i ? "," : "", names[i]);
    assert_string_equal(trn_text_get(&list), wanted);
    trn_names_free(names, count);
    trn_text_free(&list);
}

static inline void put_scene(const char *dir, const char *name, const test_raster *raster)
{
    char *path = test_path(dir, name);
    test_raster_write(path, raster);
    free(path);
}

static inline void put_text(const char *dir, const char *name, const char *text)
{
    trn_error err = {0};
    char *path = test_path(dir, name);
    assert_trn_ok(trn_write_file(path, text, strlen(text), &err), err);
    free(path);
}

/* The object that a run with --json printed: its last line of standard output. */
static inline cJSON *said_json(void)
{
    char *at = strstr(said, "{\"ok\": ");
    if (!at) fail_msg("no JSON object in\n%s", said);
    cJSON *json = cJSON_Parse(at);
    assert_non_null(json);
    return json;
}

#endif
