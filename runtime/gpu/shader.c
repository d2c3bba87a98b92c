/* Shaders: GLSL with its macros into SPIR-V by libshaderc, behind the disk cache. */
#include "gpu_internal.h"

#include <shaderc/shaderc.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_INCLUDE_DEPTH = 16 };
static const char folder[] = "shaders";

static const trn_embedded_file *find_file(const char *name)
{
    for (const trn_embedded_file *file = trn_shader_files; file->name; file++)
        if (!strcmp(file->name, name)) return file;
    return NULL;
}

const char *trn_shader_text(const char *name)
{
    const trn_embedded_file *file = name ? find_file(name) : NULL;
    return file ? file->text : NULL;
}

/* ---- keys ---- */

uint64_t trn_shader_include_hash(trn_gpu *gpu)
{
    if (gpu->include_hash) return gpu->include_hash;
    uint64_t hash = TRN_FNV_SEED;
    for (const trn_embedded_file *file = trn_shader_files; file->name; file++) {
        if (!trn_ends_with(file->name, ".glsl")) continue;
        hash = trn_fnv1a64(file->name, strlen(file->name) + 1, hash);
        hash = trn_fnv1a64(file->text, file->length, hash);
    }
    return gpu->include_hash = hash;
}

uint32_t trn_shader_subgroup_size(const trn_gpu *gpu, const trn_kernel_desc *desc)
{
    bool can = desc->subgroup_size && desc->subgroup_size >= gpu->info.subgroup_min &&
               desc->subgroup_size <= gpu->info.subgroup_max;
    return can ? desc->subgroup_size : gpu->info.subgroup_size;
}

void trn_shader_add_source(const trn_kernel_desc *desc, const char *text, trn_text *out)
{
    trn_text_printf(out, "buffers %d scalars %d\n%s\n", desc->buffers, desc->scalars, desc->shader);
    if (desc->texels) trn_text_printf(out, "texels %d\n", desc->texels);
    for (int i = 0; i < desc->macro_count; i++)
        trn_text_printf(out, "#%s=%s\n", desc->macros[i].name,
                        desc->macros[i].value ? desc->macros[i].value : "");
    trn_text_printf(out, "generated %zu\n", desc->generated ? strlen(desc->generated) : (size_t)0);
    trn_text_add(out, desc->generated ? desc->generated : "");
    trn_text_add(out, text);
}

/* Everything that the SPIR-V or the pipeline depends on, as one text. */
bool trn_shader_key(trn_gpu *gpu, const trn_kernel_desc *desc, const char *text, uint8_t key[32])
{
    unsigned version = 0, revision = 0;
    trn_text all = {0};
    shaderc_get_spv_version(&version, &revision);
    trn_text_printf(&all, "terrane %s shader 1\nspirv %u.%u includes %016llx\n", TRN_VERSION, version,
                    revision, (unsigned long long)trn_shader_include_hash(gpu));
    trn_text_printf(&all, "access %d subgroup %u required %u driver %u quirks %u\n", (int)gpu->access,
                    trn_shader_subgroup_size(gpu, desc), desc->subgroup_size, gpu->info.driver_id,
                    gpu->info.quirks);
    trn_shader_add_source(desc, text, &all);
    bool ok = !all.failed;
    if (ok) trn_sha256(all.data, all.length, key);
    trn_text_free(&all);
    return ok;
}

/* The text and what it includes, depth first. */
static uint64_t hash_file(const trn_embedded_file *file, int depth, uint64_t hash)
{
    static const char directive[] = "#include \"";
    hash = trn_fnv1a64(file->text, file->length, hash);
    for (const char *at = strstr(file->text, directive); at; at = strstr(at, directive)) {
        char name[64];
        at += sizeof directive - 1;
        size_t length = strcspn(at, "\"\n");
        if (length >= sizeof name || depth == MAX_INCLUDE_DEPTH) continue;
        memcpy(name, at, length);
        name[length] = '\0';
        const trn_embedded_file *included = find_file(name);
        if (included) hash = hash_file(included, depth + 1, hash);
    }
    return hash;
}

uint64_t trn_gpu_shader_hash(const char *shader)
{
    const trn_embedded_file *file = find_file(shader);
    return file ? hash_file(file, 0, TRN_FNV_SEED) : 0;
}

/* ---- compiling ---- */

typedef struct include {
    shaderc_include_result result;
    char message[160];
} include;

static shaderc_include_result *resolve(void *user, const char *name, int type, const char *from, size_t depth)
{
    const trn_kernel_desc *desc = user;
    (void)type;
    include *found = calloc(1, sizeof *found);
    if (!found) return NULL;
    const trn_embedded_file *file = find_file(name);
    if (depth > MAX_INCLUDE_DEPTH) {
        snprintf(found->message, sizeof found->message, "includes nest deeper than %d", MAX_INCLUDE_DEPTH);
    } else if (!strcmp(name, "generated.glsl")) {
        found->result.content = desc->generated ? desc->generated : "";
        found->result.content_length = strlen(found->result.content);
        found->result.source_name = "generated.glsl";
    } else if (file) {
        found->result.content = file->text;
        found->result.content_length = file->length;
        found->result.source_name = file->name;
    } else {
        snprintf(found->message, sizeof found->message, "no file '%.60s' in shaders/, wanted by %.40s", name,
                 from);
    }
    if (!found->result.source_name) { /* an empty name is how shaderc is told of a failure */
        found->result.source_name = "";
        found->result.content = found->message;
        found->result.content_length = strlen(found->message);
    }
    found->result.source_name_length = strlen(found->result.source_name);
    return &found->result;
}

static void release(void *user, shaderc_include_result *result)
{
    (void)user;
    free(result); /* the first member of an include */
}

static void define(shaderc_compile_options_t options, const char *name, const char *value)
{
    shaderc_compile_options_add_macro_definition(options, name, strlen(name), value, strlen(value));
}

/* Kernels that packs may hold depend on no more of the device than a pack's keys tell. */
static void define_device(const trn_gpu *gpu, const trn_kernel_desc *desc, bool packable,
                          shaderc_compile_options_t options)
{
    char text[64];
    if (gpu->access == TRN_ACCESS_ADDRESS) define(options, "TRN_ADDRESS", "1");
    snprintf(text, sizeof text, "%u", trn_shader_subgroup_size(gpu, desc));
    define(options, "TRN_SUBGROUP_SIZE", text);
    if (packable) return;
    if (desc->texels) define(options, "TRN_TEXELS", "1");
    if (gpu->info.type == TRN_DEVICE_CPU && gpu->info.driver_id == VK_DRIVER_ID_MESA_LLVMPIPE)
        define(options, "TRN_CPU_LANES", "1");
    for (unsigned bit = 0; trn_quirk_name(bit); bit++) {
        if (!(gpu->info.quirks & 1u << bit)) continue;
        snprintf(text, sizeof text, "TRN_QUIRK_%s", trn_quirk_name(bit));
        define(options, text, "1");
    }
}

static shaderc_compile_options_t make_options(const trn_gpu *gpu, const trn_kernel_desc *desc, bool packable,
                                              trn_kernel_desc *user)
{
    shaderc_compile_options_t options = shaderc_compile_options_initialize();
    if (!options) return NULL;
    shaderc_compile_options_set_source_language(options, shaderc_source_language_glsl);
    shaderc_compile_options_set_forced_version_profile(options, 460, shaderc_profile_none);
    shaderc_compile_options_set_target_env(options, shaderc_target_env_vulkan,
                                           shaderc_env_version_vulkan_1_2);
    shaderc_compile_options_set_target_spirv(options, shaderc_spirv_version_1_5);
    /* Drivers optimise by themselves, and as well: SPIRV-Tools on a large unrolled kernel takes 5 s and 2 GB
     * for code that runs no faster. */
    shaderc_compile_options_set_optimization_level(options, shaderc_optimization_level_zero);
    shaderc_compile_options_set_include_callbacks(options, resolve, release, user);
    define_device(gpu, desc, packable, options);
    for (int i = 0; i < desc->macro_count; i++)
        define(options, desc->macros[i].name, desc->macros[i].value ? desc->macros[i].value : "");
    return options;
}

static trn_status take_result(shaderc_compilation_result_t result, const trn_kernel_desc *desc,
                              uint32_t **words, size_t *bytes, trn_error *err)
{
    if (!result) return trn_fail_memory(err, 0, "the shader compiler");
    if (shaderc_result_get_compilation_status(result) != shaderc_compilation_status_success)
        return trn_fail(err, TRN_ERR_INTERNAL, "shader %s does not compile:\n%s", desc->shader,
                        shaderc_result_get_error_message(result));
    if (shaderc_result_get_num_warnings(result))
        trn_log(TRN_LOG_DEBUG, "shader %s: %s", desc->shader, shaderc_result_get_error_message(result));
    *bytes = shaderc_result_get_length(result);
    *words = malloc(*bytes);
    if (!*words) return trn_fail_memory(err, *bytes, "a compiled shader");
    memcpy(*words, shaderc_result_get_bytes(result), *bytes);
    return TRN_OK;
}

trn_status trn_shader_compile(trn_gpu *gpu, const trn_kernel_desc *desc, const char *text, uint32_t **words,
                              size_t *bytes, trn_error *err)
{
    trn_kernel_desc user = *desc;
    if (!gpu->compiler) gpu->compiler = shaderc_compiler_initialize();
    bool packable = trn_shader_needs_matrix(text);
    shaderc_compile_options_t options = gpu->compiler ? make_options(gpu, desc, packable, &user) : NULL;
    if (!options) return trn_fail_memory(err, 0, "the shader compiler");
    uint64_t start = trn_now_ns();
    shaderc_compilation_result_t result = shaderc_compile_into_spv(
        gpu->compiler, text, strlen(text), shaderc_compute_shader, desc->shader, "main", options);
    trn_status status = take_result(result, desc, words, bytes, err);
    gpu->stats.shaders_compiled++;
    trn_log(TRN_LOG_DEBUG, "shader %s compiled in %.1f ms", desc->shader,
            (double)(trn_now_ns() - start) * 1e-6);
    shaderc_result_release(result);
    shaderc_compile_options_release(options);
    return status;
}

trn_status trn_shader_spirv(trn_gpu *gpu, const trn_kernel_desc *desc, const char *text,
                            const uint8_t key[32], uint32_t **words, size_t *bytes, trn_error *err)
{
    char name[72];
    void *data = NULL;
    for (int i = 0; i < 32; i++)
        snprintf(name + 2 * i, 3, "%02x", key[i]);
    memcpy(name + 64, ".spv", 5);
    if (gpu->disk_cache && trn_cache_load(folder, name, &data, bytes)) {
        gpu->stats.shaders_from_cache++;
        *words = data;
        return TRN_OK;
    }
    if (trn_shader_needs_matrix(text) && !trn_shader_compiler_knows_matrix())
        return trn_pack_spirv(gpu, desc, text, words, bytes, err);
    trn_status status = trn_shader_compile(gpu, desc, text, words, bytes, err);
    if (status == TRN_OK && gpu->disk_cache) trn_cache_store(folder, name, *words, *bytes);
    return status;
}

void trn_shader_close(trn_gpu *gpu)
{
    if (gpu->compiler) shaderc_compiler_release(gpu->compiler);
    gpu->compiler = NULL; /* made again should another shader come */
}
