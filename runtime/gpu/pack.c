/* Shader packs: SPIR-V of the kernels that need a newer shader compiler than the one at hand, compiled on
 * another machine. A pack is a folder with one file a kernel and an index that tells their sizes and hashes.
 */
#include "gpu_internal.h"
#include "gpu_testing.h"

#include <shaderc/shaderc.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_TEXT = 64, MAX_INDEX = 4 << 20, MAX_KERNEL = 4 << 20 };
static const char index_name[] = "index", first_line[] = "terrane shader pack 1 for " TRN_VERSION "\n";
static const char matrix_extension[] = "GL_KHR_cooperative_matrix";

typedef struct pack_entry {
    char key[KEY_TEXT + 1], hash[KEY_TEXT + 1];
    uint64_t bytes;
    char shader[64];
} pack_entry;

struct trn_shader_pack {
    char *dir;
    pack_entry *entries;
    size_t count, capacity;
};

/* ---- what needs a pack ---- */

bool trn_shader_needs_matrix(const char *text)
{
    return strstr(text, matrix_extension) != NULL;
}

/* Compiles a shader that does nothing but ask for the extension. */
static bool compiler_knows_matrix(void)
{
    static const char probe[] = "#version 460\n"
                                "#extension GL_KHR_memory_scope_semantics : require\n"
                                "#extension GL_KHR_cooperative_matrix : require\n"
                                "void main() {}\n";
    bool knows = false;
    shaderc_compiler_t compiler = shaderc_compiler_initialize();
    shaderc_compile_options_t options = compiler ? shaderc_compile_options_initialize() : NULL;
    if (options) {
        shaderc_compile_options_set_target_env(options, shaderc_target_env_vulkan,
                                               shaderc_env_version_vulkan_1_2);
        shaderc_compilation_result_t result = shaderc_compile_into_spv(
            compiler, probe, sizeof probe - 1, shaderc_compute_shader, "probe", "main", options);
        knows = result && shaderc_result_get_compilation_status(result) == shaderc_compilation_status_success;
        shaderc_result_release(result);
        shaderc_compile_options_release(options);
    }
    if (compiler) shaderc_compiler_release(compiler);
    return knows;
}

bool trn_shader_compiler_knows_matrix(void)
{
    static atomic_int known; /* 0: not asked yet, 1: no, 2: yes */
    if (!atomic_load(&known)) atomic_store(&known, compiler_knows_matrix() ? 2 : 1);
    return atomic_load(&known) == 2;
}

/* ---- keys ---- */

/* Everything that the SPIR-V depends on and nothing else of the device. */
static bool pack_key(trn_gpu *gpu, const trn_kernel_desc *desc, const char *text, char key[KEY_TEXT + 1])
{
    uint8_t digest[32];
    trn_text all = {0};
    trn_text_printf(&all, "terrane %s pack 1\nincludes %016llx\naccess %d subgroup %u\n", TRN_VERSION,
                    (unsigned long long)trn_shader_include_hash(gpu), (int)gpu->access,
                    trn_shader_subgroup_size(gpu, desc));
    trn_shader_add_source(desc, text, &all);
    bool ok = !all.failed;
    if (ok) trn_sha256(all.data, all.length, digest);
    if (ok) trn_sha256_text(digest, key);
    trn_text_free(&all);
    return ok;
}

static const pack_entry *find_entry(const trn_shader_pack *pack, const char *key)
{
    for (size_t i = 0; pack && i < pack->count; i++) {
        if (!strcmp(pack->entries[i].key, key)) return &pack->entries[i];
    }
    return NULL;
}

static char *kernel_path(const char *dir, const char *key)
{
    char name[KEY_TEXT + 8];
    snprintf(name, sizeof name, "%.64s.spv", key);
    return trn_path_join(dir, name);
}

/* ---- reading ---- */

static bool is_hash(const char *text)
{
    return strlen(text) == KEY_TEXT && strspn(text, "0123456789abcdef") == KEY_TEXT;
}

/* "KEY HASH BYTES SHADER"; line ends at its newline, which becomes a NUL. */
static bool read_line(char *line, pack_entry *entry)
{
    int64_t bytes;
    char *words[4];
    for (int i = 0; i < 4; i++) {
        words[i] = line;
        size_t length = strcspn(line, " ");
        if (!length || (line[length] == ' ') != (i < 3)) return false;
        line[length] = '\0';
        line += length + 1;
    }
    if (!is_hash(words[0]) || !is_hash(words[1]) || !trn_parse_int(words[2], &bytes)) return false;
    if (bytes < 24 || bytes > MAX_KERNEL || bytes % 4 || strlen(words[3]) >= sizeof entry->shader)
        return false;
    memcpy(entry->key, words[0], sizeof entry->key);
    memcpy(entry->hash, words[1], sizeof entry->hash);
    snprintf(entry->shader, sizeof entry->shader, "%s", words[3]);
    entry->bytes = (uint64_t)bytes;
    return true;
}

static bool read_index(trn_shader_pack *pack, char *text)
{
    if (!trn_starts_with(text, first_line)) return false;
    for (char *line = text + sizeof first_line - 1, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        if (!end || !trn_grow(&pack->entries, &pack->capacity, pack->count + 1, sizeof *pack->entries))
            return false;
        *end = '\0';
        if (!read_line(line, &pack->entries[pack->count])) return false;
        pack->count++;
    }
    return true;
}

void trn_shader_pack_free(trn_shader_pack *pack)
{
    if (!pack) return;
    free(pack->entries);
    free(pack->dir);
    free(pack);
}

/* The pack in dir, or NULL: when there is none, or it is of another version or damaged, which is logged. */
static trn_shader_pack *open_pack(const char *dir)
{
    trn_error err = {0};
    size_t size = 0;
    trn_shader_pack *pack = calloc(1, sizeof *pack);
    char *path = trn_path_join(dir, index_name), *text = NULL;
    if (!pack || !path || !trn_path_exists(path)) goto fail;
    pack->dir = strdup(dir);
    text = trn_read_file(path, MAX_INDEX, &size, &err);
    if (!pack->dir || !text || strlen(text) != size || !read_index(pack, text)) {
        trn_log(TRN_LOG_WARN, "shader pack %s is not one for Terrane %s, or damaged: not used", dir,
                TRN_VERSION);
        goto fail;
    }
    trn_log(TRN_LOG_DEBUG, "shader pack %s: %zu kernels", dir, pack->count);
    free(text);
    free(path);
    return pack;
fail:
    free(text);
    free(path);
    trn_shader_pack_free(pack);
    return NULL;
}

/* $TERRANE_SHADER_PACK alone where it is set, else what is installed, else what lies in the cache folder. */
static trn_shader_pack *find_pack(void)
{
    const char *wish = getenv("TERRANE_SHADER_PACK");
    if (wish && *wish) return open_pack(wish);
    trn_shader_pack *pack = open_pack(TRN_SHARE_DIR "/shaders"); /* where an installation keeps its own */
    if (pack) return pack;
    trn_error err = {0};
    char *cached = trn_cache_path("shader-pack", &err);
    if (cached) pack = open_pack(cached);
    free(cached);
    return pack;
}

void trn_pack_open(trn_gpu *gpu)
{
    if (gpu->info.cooperative_matrix) gpu->pack = find_pack();
}

bool trn_gpu_has_matrix_kernels(const trn_gpu *gpu, char why_not[128])
{
    why_not[0] = '\0';
    if (gpu->target || trn_shader_compiler_knows_matrix() || gpu->pack) return true;
    snprintf(why_not, 128,
             "the shader compiler lacks %s, and no shader pack was found (terrane help shaders)",
             matrix_extension);
    return false;
}

bool trn_gpu_kernel_known(trn_gpu *gpu, const trn_kernel_desc *desc)
{
    char key[KEY_TEXT + 1];
    const char *text = trn_shader_text(desc->shader);
    if (!text) return false;
    if (!trn_shader_needs_matrix(text) || gpu->target || trn_shader_compiler_knows_matrix()) return true;
    return pack_key(gpu, desc, text, key) && find_entry(gpu->pack, key);
}

static trn_status load_entry(const trn_shader_pack *pack, const pack_entry *entry, uint32_t **words,
                             size_t *bytes, trn_error *err)
{
    char hash[65];
    uint8_t digest[32];
    size_t size = 0;
    char *path = kernel_path(pack->dir, entry->key);
    if (!path) return trn_fail_memory(err, KEY_TEXT, "a file's name");
    char *data = trn_read_file(path, MAX_KERNEL, &size, err);
    trn_status status = data ? TRN_OK : err ? err->code : TRN_ERR_IO;
    if (data) {
        trn_sha256(data, size, digest);
        trn_sha256_text(digest, hash);
    }
    if (data && (size != entry->bytes || strcmp(hash, entry->hash) != 0)) {
        status = trn_fail(err, TRN_ERR_FORMAT,
                          "%s is not what the index of the shader pack tells: write the pack anew", path);
        free(data);
        data = NULL;
    }
    free(path);
    *words = (uint32_t *)(void *)data;
    *bytes = size;
    return status;
}

trn_status trn_pack_spirv(trn_gpu *gpu, const trn_kernel_desc *desc, const char *text, uint32_t **words,
                          size_t *bytes, trn_error *err)
{
    char key[KEY_TEXT + 1];
    if (!pack_key(gpu, desc, text, key)) return trn_fail_memory(err, strlen(text), "a shader's key");
    const trn_shader_pack *pack = gpu->pack;
    const pack_entry *entry = find_entry(pack, key);
    if (entry) return load_entry(pack, entry, words, bytes, err);
    return trn_fail(err, TRN_ERR_UNSUPPORTED,
                    "shader %s needs %s, which the shader compiler does not know, and %s", desc->shader,
                    matrix_extension,
                    pack ? "the shader pack does not have this kernel: write it anew"
                         : "no shader pack was found (terrane help shaders)");
}

int64_t trn_pack_probe(const char *dir)
{
    trn_shader_pack *pack = open_pack(dir);
    int64_t count = pack ? (int64_t)pack->count : -1;
    trn_shader_pack_free(pack);
    return count;
}

trn_status trn_pack_read(const char *dir, const char *key, uint32_t **words, size_t *bytes, trn_error *err)
{
    trn_shader_pack *pack = open_pack(dir);
    const pack_entry *entry = find_entry(pack, key);
    trn_status status = entry ? load_entry(pack, entry, words, bytes, err)
                              : trn_fail(err, TRN_ERR_ARGUMENT, "no kernel %s in shader pack %s", key, dir);
    trn_shader_pack_free(pack);
    return status;
}

/* ---- writing ---- */

trn_status trn_shader_pack_create(const char *dir, trn_shader_pack **out, trn_error *err)
{
    *out = NULL;
    if (!trn_shader_compiler_knows_matrix())
        return trn_fail(err, TRN_ERR_UNSUPPORTED,
                        "the shader compiler here does not know %s: write the pack on a machine with "
                        "libshaderc 2023.7 or newer",
                        matrix_extension);
    trn_status status = trn_make_dirs(dir, err);
    if (status != TRN_OK) return status;
    trn_shader_pack *pack = calloc(1, sizeof *pack);
    if (pack) pack->dir = strdup(dir);
    if (!pack || !pack->dir) {
        trn_shader_pack_free(pack);
        return trn_fail_memory(err, sizeof *pack, "a shader pack");
    }
    *out = pack;
    return TRN_OK;
}

size_t trn_shader_pack_count(const trn_shader_pack *pack)
{
    return pack->count;
}

/* Writes a kernel that the pack does not have yet. */
static trn_status add_entry(trn_shader_pack *pack, const trn_kernel_desc *desc, const char *key,
                            const uint32_t *words, size_t bytes, trn_error *err)
{
    uint8_t digest[32];
    if (!trn_grow(&pack->entries, &pack->capacity, pack->count + 1, sizeof *pack->entries))
        return trn_fail_memory(err, sizeof *pack->entries, "a shader pack");
    pack_entry *entry = &pack->entries[pack->count];
    *entry = (pack_entry){.bytes = bytes};
    memcpy(entry->key, key, sizeof entry->key);
    snprintf(entry->shader, sizeof entry->shader, "%.63s", desc->shader);
    trn_sha256(words, bytes, digest);
    trn_sha256_text(digest, entry->hash);
    char *path = kernel_path(pack->dir, key);
    if (!path) return trn_fail_memory(err, KEY_TEXT, "a file's name");
    trn_status status = trn_write_file(path, words, bytes, err);
    free(path);
    pack->count += status == TRN_OK;
    return status;
}

trn_status trn_pack_add(trn_gpu *gpu, const trn_kernel_desc *desc, const char *text, trn_error *err)
{
    char key[KEY_TEXT + 1];
    uint32_t *words = NULL;
    size_t bytes = 0;
    if (!trn_shader_needs_matrix(text)) return TRN_OK;
    if (!pack_key(gpu, desc, text, key)) return trn_fail_memory(err, strlen(text), "a shader's key");
    if (find_entry(gpu->target, key)) return TRN_OK;
    trn_status status = trn_shader_compile(gpu, desc, text, &words, &bytes, err);
    if (status == TRN_OK) status = trn_spirv_check(gpu, desc, words, bytes / 4, err);
    if (status == TRN_OK) status = add_entry(gpu->target, desc, key, words, bytes, err);
    free(words);
    return status;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(((const pack_entry *)a)->key, ((const pack_entry *)b)->key);
}

trn_status trn_shader_pack_finish(trn_shader_pack *pack, trn_error *err)
{
    trn_text text = {0};
    char *path = trn_path_join(pack->dir, index_name);
    if (pack->count) qsort(pack->entries, pack->count, sizeof *pack->entries, compare_keys);
    trn_text_add(&text, first_line);
    for (size_t i = 0; i < pack->count; i++) {
        const pack_entry *entry = &pack->entries[i];
        trn_text_printf(&text, "%s %s %llu %s\n", entry->key, entry->hash, (unsigned long long)entry->bytes,
                        entry->shader);
    }
    bool ok = path && !text.failed;
    trn_status status = ok ? trn_write_file(path, text.data, text.length, err)
                           : trn_fail_memory(err, text.length, "the index of a shader pack");
    trn_text_free(&text);
    free(path);
    return status;
}

trn_status trn_gpu_open_target(const trn_device_info *info, trn_access access, trn_shader_pack *pack,
                               trn_gpu **out, trn_error *err)
{
    *out = NULL;
    trn_gpu *gpu = calloc(1, sizeof *gpu);
    if (!gpu) return trn_fail_memory(err, sizeof *gpu, "a device");
    gpu->info = *info;
    gpu->access = access;
    gpu->target = pack;
    *out = gpu;
    return TRN_OK;
}
