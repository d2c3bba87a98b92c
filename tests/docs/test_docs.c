/* What the documents quote is what the repository has. */
#include "test_support.h"

#include <stdlib.h>
#include <string.h>

static char *read_source(const char *relative)
{
    trn_error err = {0};
    const char *root = getenv("TERRANE_SOURCE");
    char *path = test_path(root ? root : ".", relative);
    char *text = trn_read_file(path, 1 << 20, NULL, &err);
    if (!text) fail_msg("%s", err.message);
    free(path);
    return text;
}

static void documents_quote_the_quickstart(void **state)
{
    (void)state;
    char *recipe = read_source("recipes/quickstart.lua");
    const char *const documents[] = {"README.md", "docs/recipes.md"};
    for (size_t i = 0; i < TRN_COUNT(documents); i++) {
        char *text = read_source(documents[i]);
        if (!strstr(text, recipe))
            fail_msg("%s does not quote recipes/quickstart.lua as it stands", documents[i]);
        free(text);
    }
    size_t lines = 0;
    for (const char *s = recipe; *s; s++)
        lines += *s == '\n';
    assert_true(lines < 40);
    free(recipe);
}

/* Every Markdown link to a file of the repository leads somewhere. */
static void links_lead_somewhere(void **state)
{
    (void)state;
    const char *const documents[] = {"README.md",        "docs/architecture.md", "docs/recipes.md",
                                     "docs/glossary.md", "docs/scenes.md",       "docs/models.md",
                                     "docs/data.md",     "docs/training.md",     "docs/performance.md"};
    for (size_t i = 0; i < TRN_COUNT(documents); i++) {
        char *text = read_source(documents[i]);
        for (char *link = strstr(text, "]("); link; link = strstr(link + 2, "](")) {
            char *end = strchr(link, ')');
            if (!end || !strncmp(link + 2, "http", 4) || link[2] == '#') continue;
            char target[512], folder[512];
            snprintf(target, sizeof target, "%.*s", (int)(end - link - 2), link + 2);
            target[strcspn(target, "#")] = 0;
            snprintf(folder, sizeof folder, "%.*s", (int)(trn_path_name(documents[i]) - documents[i]),
                     documents[i]);
            char *relative = trn_path_join(folder, target),
                 *path = test_path(getenv("TERRANE_SOURCE"), relative);
            if (!trn_path_exists(path))
                fail_msg("%s links to '%s', which is not there", documents[i], target);
            free(relative);
            free(path);
        }
        free(text);
    }
}

/* Commands as they stand in a document, indented, are ones that the program understands: with --help behind
 * them they are parsed and not run. */
static void shown_commands_parse(void **state)
{
    (void)state;
    const char *command = getenv("TERRANE_COMMAND");
    assert_non_null(command);
    char *text = read_source("docs/performance.md"), *said;
    size_t count = 0;
    for (char *at = strstr(text, "\n    terrane "); at; at = strstr(at + 1, "\n    terrane ")) {
        const char *words = at + strlen("\n    terrane ");
        trn_text line = {0};
        trn_text_printf(&line, "'%s' %.*s --help", command ? command : "", (int)strcspn(words, "\n#|>"),
                        words);
        if (test_run(trn_text_get(&line), &said) != 0) fail_msg("%s\n%s", trn_text_get(&line), said);
        trn_text_free(&line);
        free(said);
        count++;
    }
    assert_true(count > 10);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_quote_the_quickstart),
        cmocka_unit_test(links_lead_somewhere),
        cmocka_unit_test(shown_commands_parse),
    };
    return cmocka_run_group_tests_name("docs", tests, NULL, NULL);
}
