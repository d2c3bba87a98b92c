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
                                     "docs/data.md",     "docs/training.md"};
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_quote_the_quickstart),
        cmocka_unit_test(links_lead_somewhere),
    };
    return cmocka_run_group_tests_name("docs", tests, NULL, NULL);
}
