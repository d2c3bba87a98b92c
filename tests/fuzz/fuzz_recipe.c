/* fuzz_recipe: any bytes as a recipe: an error or a job, within the limits, without a leak. */
#include "recipe.h"
#include "source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const sets[] = {"scene=x.tif", "features=16"};
    trn_recipe_limits limits = {.memory_bytes = (size_t)4 << 20, .instructions = 200000, .seconds = 1};
    trn_recipe *recipe = NULL;
    trn_error err = {0};
    size_t set_count = size ? data[0] % 3u : 0;
    trn_recipe_load_text("fuzz.lua", (const char *)data, size, sets, set_count, &limits, &recipe, &err);
    trn_recipe_destroy(recipe);
    /* the scanner sees few texts that Lua refuses, except here */
    int line = trn_source_line((const char *)data, size, 1, "embed", "export", size ? data[0] % 4 : 0);
    return line < 1 ? -1 : 0;
}
