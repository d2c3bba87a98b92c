/* terrane pull and terrane models against a server: the store as a user sees it, and embedding from it. */
#include "command_run.h"
#include "http_server.h"

#include <unistd.h>

#define TINY_VIT                                                                                             \
    "--model mae-vit-base -c img_size=32 -c patch=8 -c dim=48 -c depth=3 -c heads=4 --sensor rgb "
#define STORE "TERRANE_MODELS=store"

/* A folder to work in, and a server that gives the tiny ViT's file, once cut in the middle. */
typedef struct place {
    char *dir, *url, *data;
    http_file file;
    bool cut_first, hang;
    http_server *server;
} place;

static void answer(int connection, const char *request, size_t serial, void *user)
{
    const place *p = user;
    http_file file = p->file;
    if (p->cut_first && !serial) file.cut = file.size / 2;
    http_send_file(connection, request, &file);
    if (p->hang && !serial) http_hang(connection);
}

static void open_place(place *p)
{
    trn_error err = {0};
    const char *weights = test_golden_path("vit_tiny_mae/vit_tiny_mae.safetensors");
    assert_non_null(weights);
    *p = (place){.dir = strdup(test_temp_dir())};
    p->data = trn_read_file(weights, (size_t)1 << 26, &p->file.size, &err);
    assert_non_null(p->data);
    p->file.data = p->data;
    p->file.etag = "\"tiny\"";
    p->server = http_server_start(answer, p);
    p->url = http_server_url(p->server, "/vit.safetensors");
    put_scene(p->dir, "scene.tif", &(test_raster){.width = 64, .height = 64, .bands = 3});
}

static void close_place(place *p)
{
    http_server_stop(p->server);
    free(p->dir);
    free(p->url);
    free(p->data);
}

static int pull(const place *p, const char *before, const char *more)
{
    trn_text line = {0};
    trn_text_printf(&line, "pull mae-vit-base --url '%s' %s", p->url, more);
    int status = terrane(p->dir, before, trn_text_get(&line));
    trn_text_free(&line);
    return status;
}

static const char *member(const cJSON *json, const char *key)
{
    return cJSON_GetStringValue(cJSON_GetObjectItem(json, key));
}

static const cJSON *model_of(const cJSON *json, const char *name)
{
    const cJSON *model;
    cJSON_ArrayForEach (model, cJSON_GetObjectItem(json, "models"))
        if (!strcmp(member(model, "name"), name)) return model;
    fail_msg("'%s' is not listed", name);
    return NULL;
}

static void pulled_and_embedded(void **state)
{
    (void)state;
    place p;
    open_place(&p);
    p.cut_first = true;
    assert_fails(terrane(p.dir, STORE, "embed scene.tif " TINY_VIT "-o e.npy"), TRN_ERR_ARGUMENT,
                 "terrane pull mae-vit-base");
    assert_works(pull(&p, STORE, ""));
    assert_true(says("CC-BY-NC-4.0") && says("commercial use is not allowed"));
    assert_true(says("trying again") && says("store/mae-vit-base/vit.safetensors"));
    assert_non_null(strstr(http_server_request(p.server, 1), "Range: bytes="));
    assert_works(pull(&p, STORE, ""));
    assert_true(says("already there"));
    assert_works(pull(&p, STORE, "--quiet"));
    assert_string_equal(said, "");
    assert_works(terrane(p.dir, STORE, "embed scene.tif " TINY_VIT "-o e.npy"));
    assert_true(says("store/mae-vit-base/vit.safetensors"));
    char *path = test_path(p.dir, "e.json");
    trn_error err = {0};
    size_t size;
    char *result = trn_read_file(path, 1 << 20, &size, &err);
    assert_non_null(result);
    assert_non_null(strstr(result, "store/mae-vit-base/vit.safetensors"));
    free(result);
    free(path);
    /* the same numbers as with the file named */
    assert_works(terrane(p.dir, STORE,
                         "embed scene.tif " TINY_VIT
                         "-w store/mae-vit-base/vit.safetensors -o f.npy && cmp e.npy f.npy"));
    char *stored = test_path(p.dir, "store/mae-vit-base/vit.safetensors");
    assert_int_equal(truncate(stored, 1000), 0);
    assert_fails(terrane(p.dir, STORE, "embed scene.tif " TINY_VIT "-o e.npy"), TRN_ERR_FORMAT,
                 "run: terrane pull mae-vit-base");
    free(stored);
    close_place(&p);
}

static void machine_readable(void **state)
{
    (void)state;
    place p;
    open_place(&p);
    assert_works(pull(&p, STORE, "--json"));
    cJSON *json = said_json();
    assert_string_equal(member(json, "name"), "mae-vit-base");
    assert_string_equal(member(json, "path"), "store/mae-vit-base/vit.safetensors");
    assert_string_equal(member(json, "url"), p.url);
    assert_int_equal(strlen(member(json, "sha256")), 64);
    assert_true(cJSON_GetObjectItem(json, "bytes")->valuedouble == (double)p.file.size);
    assert_true(cJSON_GetObjectItem(json, "transferred")->valuedouble == (double)p.file.size);
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(json, "was_there")));
    cJSON_Delete(json);

    assert_works(terrane(p.dir, STORE, "models --json"));
    json = said_json();
    const cJSON *there = model_of(json, "mae-vit-base"), *absent = model_of(json, "dinov2-small");
    assert_true(cJSON_IsTrue(cJSON_GetObjectItem(there, "present")));
    assert_string_equal(member(there, "path"), "store/mae-vit-base/vit.safetensors");
    assert_true(cJSON_GetObjectItem(there, "bytes")->valuedouble == (double)p.file.size);
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(absent, "present")));
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(absent, "path")));
    assert_non_null(member(absent, "source"));
    cJSON_Delete(json);
    assert_works(terrane(p.dir, STORE, "models"));
    assert_true(says("present") && says("CC-BY-NC-4.0") && says("~"));
    assert_works(terrane(p.dir, STORE, "models show mae-vit-base"));
    assert_true(says("commercial use is not allowed") && says("store/mae-vit-base/vit.safetensors"));

    assert_works(terrane(p.dir, STORE, "models show mae-vit-base --json"));
    json = said_json();
    const cJSON *model = cJSON_GetObjectItem(json, "model"), *input = cJSON_GetObjectItem(model, "input");
    assert_string_equal(member(cJSON_GetObjectItem(model, "stored"), "path"),
                        "store/mae-vit-base/vit.safetensors");
    assert_int_equal(cJSON_GetObjectItem(input, "window")->valueint, 224);
    const cJSON *red = cJSON_GetArrayItem(cJSON_GetObjectItem(input, "bands"), 0);
    assert_string_equal(member(red, "name"), "red");
    double um = cJSON_GetObjectItem(red, "wavelength_um")->valuedouble;
    assert_true(um > 0.62 && um < 0.7);
    const cJSON *grid =
        cJSON_GetArrayItem(cJSON_GetObjectItem(cJSON_GetObjectItem(model, "outputs"), "grids"), 0);
    assert_int_equal(cJSON_GetObjectItem(grid, "rows")->valueint, 14);
    assert_int_equal(cJSON_GetObjectItem(grid, "stride")->valueint, 16);
    assert_int_equal(cJSON_GetObjectItem(grid, "channels")->valueint, 768);
    cJSON_Delete(json);
    close_place(&p);
}

/* What is shown of an encoder's input reads as it is. */
static void input_shown(void **state)
{
    (void)state;
    char *dir = test_temp_dir();
    assert_works(terrane(dir, STORE, "models show hiera-video-base"));
    assert_true(says("dates       16\n"));
    assert_works(terrane(dir, STORE, "models show presto"));
    assert_true(says("dates       1 to 24\n"));
    assert_works(terrane(dir, STORE, "models show mae-vit-base"));
    assert_true(says("dates       1\n"));
    assert_works(terrane(dir, STORE, "models show dofa-v2-base"));
    assert_true(says("bands       any with a wavelength\n"));
    assert_works(terrane(dir, STORE, "models show rcf"));
    assert_true(says("bands       any, as they come\n"));
}

/* Every encoder can be shown, as text and as an object that names its settings. */
static void all_shown(void **state)
{
    (void)state;
    char *dir = test_temp_dir(), line[128];
    assert_works(terrane(dir, STORE, "models --json"));
    cJSON *json = said_json();
    const cJSON *model;
    cJSON_ArrayForEach (model, cJSON_GetObjectItem(json, "models")) {
        snprintf(line, sizeof line, "models show %.60s", member(model, "name"));
        assert_works(terrane(dir, STORE, line));
        assert_true(says(member(model, "title")) && says("settings") && says("window"));
        snprintf(line, sizeof line, "models show %.60s --json", member(model, "name"));
        assert_works(terrane(dir, STORE, line));
        cJSON *shown = said_json(), *inner = cJSON_GetObjectItem(shown, "model");
        assert_true(cJSON_GetArraySize(cJSON_GetObjectItem(inner, "settings")) > 0);
        bool learns = strcmp(member(model, "name"), "rcf") == 0;
        int grids = cJSON_GetArraySize(cJSON_GetObjectItem(cJSON_GetObjectItem(inner, "outputs"), "grids"));
        assert_true(learns ? grids == 0 : grids > 0);
        cJSON_Delete(shown);
    }
    cJSON_Delete(json);
    assert_fails(terrane(dir, STORE, "models show nosuch"), TRN_ERR_ARGUMENT, "no encoder 'nosuch'");
    assert_fails(terrane(dir, STORE, "models show"), TRN_ERR_ARGUMENT, "which encoder?");
    char **names = NULL;
    size_t count = 0;
    trn_error err = {0};
    assert_trn_ok(trn_list_dir(dir, &names, &count, &err), err); /* looking creates no store */
    assert_int_equal(count, 0);
    trn_names_free(names, count);
}

static void refused(void **state)
{
    (void)state;
    place p;
    open_place(&p);
    assert_fails(terrane(p.dir, STORE, "pull mae-vit-bas"), TRN_ERR_ARGUMENT, "did you mean 'mae-vit-base'?");
    assert_fails(terrane(p.dir, STORE, "pull"), TRN_ERR_ARGUMENT, "too few arguments");
    assert_fails(terrane(p.dir, STORE, "pull rcf"), TRN_ERR_ARGUMENT, "needs no weights");
    assert_fails(terrane(p.dir, STORE, "pull galileo-nano"), TRN_ERR_ARGUMENT, "--url");
    assert_true(says("https://huggingface.co/nasaharvest/galileo") && says("--weights"));
    assert_fails(terrane(p.dir, STORE, "pull mae-vit-base --url file:///etc/passwd"), TRN_ERR_ARGUMENT,
                 "https://");
    p.file.headers = "Content-Type: text/html\r\n";
    assert_fails(pull(&p, STORE, ""), TRN_ERR_FORMAT, "web page");
    assert_fails(pull(&p, "TERRANE_MODELS=scene.tif/store", ""), TRN_ERR_IO, "scene.tif");
    assert_int_equal(pull(&p, STORE, "--json"), TRN_ERR_FORMAT);
    cJSON *json = said_json();
    assert_true(cJSON_IsFalse(cJSON_GetObjectItem(json, "ok")));
    cJSON_Delete(json);
    close_place(&p);
}

/* Ctrl-C: the status of a cancelled command, and what came is continued. */
static void interrupted(void **state)
{
    (void)state;
    place p;
    open_place(&p);
    p.cut_first = p.hang = true;
    assert_fails(pull(&p, STORE " timeout --preserve-status -s INT 3", ""), TRN_ERR_CANCELLED, "are kept");
    assert_works(pull(&p, STORE, "--json"));
    cJSON *json = said_json();
    assert_true(cJSON_GetObjectItem(json, "resumed_at")->valuedouble == (double)(p.file.size / 2));
    cJSON_Delete(json);
    close_place(&p);
}

int main(void)
{
    setenv("no_proxy", "*", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pulled_and_embedded),
        cmocka_unit_test(machine_readable),
        cmocka_unit_test(input_shown),
        cmocka_unit_test(all_shown),
        cmocka_unit_test(refused),
        cmocka_unit_test(interrupted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
