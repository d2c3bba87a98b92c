/* The model store against a server that does what servers do: cut, change, redirect, lie and hang. */
#include "test_support.h"
#include "http_server.h"
#include "weights.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { SIZE = 300000, HALF = SIZE / 2 };
static char first_data[SIZE], second_data[SIZE];
static char first_digits[65], second_digits[65];

/* What the server does: an answer for each request, the last one for all that follow. */
typedef struct script {
    http_file files[4];
    size_t count;
} script;

static void play(int connection, const char *request, size_t serial, void *user)
{
    const script *s = user;
    http_send_file(connection, request, &s->files[TRN_MIN(serial, s->count - 1)]);
}

/* A store of its own, a server, and what a pull said. */
typedef struct place {
    char *dir, *url;
    http_server *server;
    trn_pull_options options;
    trn_stored got;
    trn_error err;
    trn_text notes;
    uint64_t done, total; /* of the last report of "downloading" */
    uint64_t stop_at;     /* bytes after which it is cancelled; 0: never */
} place;

static void take_note(void *user, trn_log_level level, const char *text)
{
    (void)level;
    trn_text_printf(&((place *)user)->notes, "%s\n", text);
}
static void take_report(void *user, const char *stage, uint64_t done, uint64_t total)
{
    place *p = user;
    if (strcmp(stage, "downloading") != 0) return;
    p->done = done;
    p->total = total;
}
static bool wants_stop(void *user)
{
    const place *p = user;
    return p->stop_at && p->done >= p->stop_at;
}
static trn_progress progress_of(place *p)
{
    return (trn_progress){.report = take_report, .cancelled = wants_stop, .user = p};
}

static void open_place(place *p, http_answer answer, void *user)
{
    *p = (place){.dir = strdup(test_temp_dir()), .server = http_server_start(answer, user)};
    p->url = http_server_url(p->server, "/weights/encoder.pt");
    p->options = (trn_pull_options){.name = "vit",
                                    .url = p->url,
                                    .note = take_note,
                                    .note_user = p,
                                    .tries = 3,
                                    .backoff_ms = 10,
                                    .connect_seconds = 5,
                                    .stall_seconds = 5};
    assert_int_equal(setenv("TERRANE_MODELS", p->dir, 1), 0);
}

static void close_place(place *p)
{
    http_server_stop(p->server);
    trn_stored_free(&p->got);
    trn_text_free(&p->notes);
    free(p->url);
    free(p->dir);
}

static trn_status find(place *p)
{
    trn_stored_free(&p->got);
    p->err = (trn_error){0};
    return trn_store_find("vit", &p->got, &p->err);
}

static trn_status pull(place *p)
{
    trn_progress progress = progress_of(p);
    if (!p->options.progress) p->options.progress = &progress;
    trn_stored_free(&p->got);
    p->err = (trn_error){0};
    trn_status status = trn_store_pull(&p->options, &p->got, &p->err);
    if (p->options.progress == &progress) p->options.progress = NULL;
    return status;
}

/* The store's folder of "vit" holds these names, with commas between them. */
static void assert_holds(const place *p, const char *wanted)
{
    char **names = NULL, *folder = test_path(p->dir, "vit");
    size_t count = 0;
    trn_error err = {0};
    trn_text list = {0};
    assert_trn_ok(trn_list_dir(folder, &names, &count, &err), err);
    for (size_t i = 0; i < count; i++)
        trn_text_printf(&list, "%s%s", i ? "," : "", names[i]);
    assert_string_equal(trn_text_get(&list), wanted);
    trn_names_free(names, count);
    trn_text_free(&list);
    free(folder);
}
#define COMPLETE ".lock,encoder.pt,manifest.json"
#define BEGUN ".lock,encoder.pt.part,encoder.pt.part.json"

static void assert_stored(const place *p, const char *data)
{
    trn_error err = {0};
    trn_stored found;
    size_t size;
    assert_trn_ok(trn_store_find("vit", &found, &err), err);
    assert_true(found.path && trn_starts_with(found.path, p->dir));
    char *bytes = trn_read_file(found.path, SIZE * 2, &size, &err);
    assert_non_null(bytes);
    assert_int_equal(size, SIZE);
    assert_memory_equal(bytes, data, SIZE);
    assert_string_equal(found.sha256, data == first_data ? first_digits : second_digits);
    free(bytes);
    trn_stored_free(&found);
}

static bool asked(const place *p, size_t i, const char *text)
{
    return strstr(http_server_request(p->server, i), text) != NULL;
}

#define FIRST .data = first_data, .size = SIZE
#define SECOND .data = second_data, .size = SIZE

/* ---- downloads that work ---- */

static void whole_download(void **state)
{
    (void)state;
    place p;
    script s = {{{FIRST, .etag = "\"one\""}}, 1};
    open_place(&p, play, &s);
    assert_trn_ok(find(&p), p.err);
    assert_null(p.got.path);
    assert_trn_ok(pull(&p), p.err);
    assert_holds(&p, COMPLETE);
    assert_stored(&p, first_data);
    assert_int_equal(p.got.bytes, SIZE);
    assert_int_equal(p.got.transferred, SIZE);
    assert_int_equal(p.got.resumed_at, 0);
    assert_false(p.got.was_there);
    assert_string_equal(p.got.sha256, first_digits);
    assert_string_equal(p.got.url, p.url);
    assert_int_equal(strlen(p.got.date), strlen("2026-03-01T12:00:00Z"));
    assert_int_equal(p.done, SIZE);
    assert_int_equal(p.total, SIZE);
    assert_true(asked(&p, 0, "GET /weights/encoder.pt HTTP/1.1\r\n") && asked(&p, 0, "User-Agent: terrane/"));
    assert_false(asked(&p, 0, "Range:"));
    assert_non_null(strstr(trn_text_get(&p.notes), "nobody vouches")); /* http, and no digits known */

    assert_trn_ok(pull(&p), p.err); /* is there: checked without the network */
    assert_true(p.got.was_there);
    assert_int_equal(http_server_count(p.server), 1);
    p.options.force = true;
    assert_trn_ok(pull(&p), p.err);
    assert_false(p.got.was_there);
    assert_int_equal(http_server_count(p.server), 2);
    close_place(&p);
}

static void known_digits(void **state)
{
    (void)state;
    place p;
    script s = {{{FIRST}}, 1};
    open_place(&p, play, &s);
    char beginning[11] = "";
    memcpy(beginning, first_digits, sizeof beginning - 1);
    for (char *c = beginning; *c; c++)
        if (*c >= 'a') *c = (char)(*c - 'a' + 'A'); /* case does not count */
    p.options.sha256 = beginning;
    p.options.bytes = SIZE;
    assert_trn_ok(pull(&p), p.err);
    assert_stored(&p, first_data);
    assert_null(strstr(trn_text_get(&p.notes), "nobody vouches"));
    p.options.sha256 = "1234567";
    assert_trn_fails(pull(&p), TRN_ERR_ARGUMENT, p.err, "8 to 64 hex digits");
    close_place(&p);
}

static void unknown_length(void **state)
{
    (void)state;
    place p;
    script s = {{{FIRST, .no_length = true}}, 1};
    open_place(&p, play, &s);
    assert_trn_ok(pull(&p), p.err);
    assert_stored(&p, first_data);
    p.options.force = true;
    p.options.bytes = SIZE + 1;
    assert_trn_fails(pull(&p), TRN_ERR_FORMAT, p.err, "wanted 300001");
    p.options.bytes = SIZE - 1; /* a server that never ends must not fill the disk first */
    assert_trn_fails(pull(&p), TRN_ERR_FORMAT, p.err, "more than the 299999 bytes");
    assert_stored(&p, first_data); /* the good one stays */
    close_place(&p);
}

static void send_chunks(int connection, const char *request, size_t serial, void *user)
{
    (void)request, (void)serial, (void)user;
    http_send(connection, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
                          "Trailer: X-Sum\r\n\r\n");
    for (size_t at = 0; at < SIZE; at += 100000) {
        http_send(connection, "%x\r\n", 100000);
        http_send_bytes(connection, first_data + at, 100000);
        http_send(connection, "\r\n");
    }
    http_send(connection, "0\r\nX-Sum: 1\r\n\r\n");
}

static void chunks_with_trailers(void **state)
{
    (void)state;
    place p;
    open_place(&p, send_chunks, NULL);
    assert_trn_ok(pull(&p), p.err);
    assert_stored(&p, first_data);
    assert_int_equal(p.got.transferred, SIZE);
    close_place(&p);
}

/* ---- downloads that are cut ---- */

static void cut_and_continued(void **state)
{
    (void)state;
    place p;
    script s = {{{FIRST, .etag = "\"one\"", .cut = HALF}, {FIRST, .etag = "\"one\""}}, 2};
    open_place(&p, play, &s);
    assert_trn_ok(pull(&p), p.err);
    assert_stored(&p, first_data);
    assert_int_equal(http_server_count(p.server), 2);
    assert_true(asked(&p, 1, "Range: bytes=150000-\r\n") && asked(&p, 1, "If-Range: \"one\"\r\n"));
    assert_int_equal(p.got.transferred, SIZE); /* no byte twice */
    assert_non_null(strstr(trn_text_get(&p.notes), "trying again"));
    assert_holds(&p, COMPLETE);
    close_place(&p);
}

static void continued_by_the_next_pull(void **state)
{
    (void)state;
    static const char date[] = "Sun, 01 Mar 2026 12:00:00 GMT";
    place p;
    script s = {{{FIRST, .etag = "W/\"weak\"", .modified = date, .cut = HALF}, {FIRST, .modified = date}}, 2};
    open_place(&p, play, &s);
    p.options.tries = 1;
    assert_trn_fails(pull(&p), TRN_ERR_IO, p.err, "given up after 1 tries");
    assert_non_null(strstr(p.err.message, "are kept"));
    assert_holds(&p, BEGUN);
    assert_trn_ok(find(&p), p.err);
    assert_null(p.got.path);
    assert_trn_ok(pull(&p), p.err);
    assert_true(asked(&p, 1, "If-Range: Sun, 01 Mar 2026 12:00:00 GMT\r\n")); /* weak tags are no guard */
    assert_int_equal(p.got.resumed_at, HALF);
    assert_int_equal(p.got.transferred, SIZE - HALF);
    assert_stored(&p, first_data);
    close_place(&p);
}

static void complete_but_not_checked(void **state)
{
    (void)state;
    place p;
    script s = {{{FIRST, .etag = "\"one\""}}, 1};
    open_place(&p, play, &s);
    trn_text json = {0};
    trn_text_printf(&json, "mkdir %s/vit", p.dir);
    char *output = NULL;
    assert_int_equal(test_run(json.data, &output), 0);
    free(output);
    trn_text_free(&json);
    trn_text_printf(&json, "{\"url\": \"%s\", \"etag\": \"\\\"one\\\"\", \"size\": %d}", p.url, SIZE);
    char *part = test_path(p.dir, "vit/encoder.pt.part"),
         *beside = test_path(p.dir, "vit/encoder.pt.part.json");
    assert_trn_ok(trn_write_file(part, first_data, SIZE, &p.err), p.err);
    assert_trn_ok(trn_write_file(beside, json.data, json.length, &p.err), p.err);
    assert_trn_ok(pull(&p), p.err);
    assert_int_equal(http_server_count(p.server), 0);
    assert_stored(&p, first_data);
    assert_holds(&p, COMPLETE);
    trn_text_free(&json);
    free(part);
    free(beside);
    close_place(&p);
}

static void range_ignored(void **state)
{
    (void)state;
    place p;
    script s = {{{FIRST, .etag = "\"one\"", .cut = HALF}, {FIRST, .etag = "\"one\"", .no_ranges = true}}, 2};
    open_place(&p, play, &s);
    assert_trn_ok(pull(&p), p.err);
    assert_true(asked(&p, 1, "Range: bytes=150000-\r\n"));
    assert_int_equal(p.got.transferred, HALF + SIZE);
    assert_stored(&p, first_data);
    close_place(&p);
}

static void changed_between_tries(void **state)
{
    (void)state;
    place p;
    script s = {{{FIRST, .etag = "\"one\"", .cut = HALF}, {SECOND, .etag = "\"two\""}}, 2};
    open_place(&p, play, &s);
    assert_trn_ok(pull(&p), p.err);
    assert_stored(&p, second_data);
    assert_int_equal(p.got.transferred, HALF + SIZE);
    close_place(&p);
}

/* Servers that answer a range although the file is another, or with another range. */
static void lie_about_ranges(int connection, const char *request, size_t serial, void *user)
{
    const char *lie = user;
    http_file file = {SECOND, .etag = "\"two\"", .cut = serial ? 0 : HALF};
    if (serial == 0) file = (http_file){FIRST, .etag = "\"one\"", .cut = HALF};
    if (serial == 1)
        http_send(connection, "HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%.100s", lie, HALF, second_data);
    else
        http_send_file(connection, request, &file);
}

static void wrong_ranges(void **state)
{
    (void)state;
    static const char *const lies[] = {
        "206 Partial Content\r\nETag: \"two\"\r\nContent-Range: bytes 150000-299999/300000",
        "206 Partial Content\r\nContent-Range: bytes 0-149999/300000",
        "206 Partial Content\r\nContent-Range: bytes 150000-299999/300001",
        "206 Partial Content\r\nContent-Range: bytes 150000-299999/*",
        "206 Partial Content\r\nContent-Range: bytes 150000-99999999999999999999999/300000",
        "206 Partial Content",
        "416 Range Not Satisfiable",
    };
    for (size_t i = 0; i < TRN_COUNT(lies); i++) {
        place p;
        open_place(&p, lie_about_ranges, (void *)(uintptr_t)lies[i]);
        assert_trn_ok(pull(&p), p.err);
        assert_int_equal(http_server_count(p.server), 3);
        assert_true(asked(&p, 1, "Range:") && !asked(&p, 2, "Range:"));
        assert_stored(&p, second_data);
        close_place(&p);
    }
}

/* Without a version only known digits can tell whether a continued file is one file. */
static void no_version(void **state)
{
    (void)state;
    for (int known = 0; known < 2; known++) {
        place p;
        script s = {{{FIRST, .cut = HALF}, {FIRST}}, 2};
        open_place(&p, play, &s);
        p.options.sha256 = known ? first_digits : NULL;
        assert_trn_ok(pull(&p), p.err);
        assert_true(asked(&p, 1, "Range:") == (known == 1));
        assert_int_equal(p.got.transferred, known ? SIZE : HALF + SIZE);
        assert_stored(&p, first_data);
        close_place(&p);
    }
}

/* A length that is never reached: no file comes of it. */
static void always_short(void **state)
{
    (void)state;
    place p;
    script s = {{{FIRST, .etag = "\"one\"", .no_length = true, .headers = "Content-Length: 300001\r\n"}}, 1};
    open_place(&p, play, &s);
    assert_trn_fails(pull(&p), TRN_ERR_IO, p.err, "given up after 3 tries");
    assert_holds(&p, BEGUN);
    p.options.bytes = SIZE; /* where the size is known, it is wrong at once */
    size_t before = http_server_count(p.server);
    assert_trn_fails(pull(&p), TRN_ERR_FORMAT, p.err, "wanted 300000");
    assert_int_equal(http_server_count(p.server), before + 2); /* 416 for the rest, then the whole */
    close_place(&p);
}

/* ---- wrong files ---- */

static void wrong_digits(void **state)
{
    (void)state;
    place p;
    script s = {{{SECOND, .etag = "\"two\""}}, 1};
    open_place(&p, play, &s);
    p.options.sha256 = first_digits;
    assert_trn_fails(pull(&p), TRN_ERR_FORMAT, p.err, first_digits);
    assert_non_null(strstr(p.err.message, second_digits));
    assert_holds(&p, ".lock"); /* no part, nothing under the name */
    close_place(&p);
}

static void changed_after_first_use(void **state)
{
    (void)state;
    place p;
    script s = {{{FIRST, .etag = "\"one\""}, {SECOND, .etag = "\"two\""}}, 2};
    open_place(&p, play, &s);
    assert_trn_ok(pull(&p), p.err);
    p.options.force = true;
    assert_trn_fails(pull(&p), TRN_ERR_FORMAT, p.err, "has changed");
    assert_non_null(strstr(p.err.message, first_digits));
    assert_non_null(strstr(p.err.message, second_digits));
    assert_holds(&p, COMPLETE);
    assert_stored(&p, first_data); /* the first one still serves */

    p.options.force = false;
    char *file = test_path(p.dir, "vit/encoder.pt"), *manifest = test_path(p.dir, "vit/manifest.json");
    assert_int_equal(unlink(file), 0);
    assert_trn_fails(pull(&p), TRN_ERR_FORMAT, p.err, "has changed");
    assert_holds(&p, ".lock,manifest.json");
    assert_int_equal(unlink(manifest), 0); /* what the message says to do */
    assert_trn_ok(pull(&p), p.err);
    assert_stored(&p, second_data);
    free(file);
    free(manifest);
    close_place(&p);
}

static void answer_lines(int connection, const char *request, size_t serial, void *user)
{
    (void)request, (void)serial;
    http_send(connection, "HTTP/1.1 %s", (const char *)user);
}

static void no_weights(void **state)
{
    (void)state;
    static const struct {
        const char *answer, *says;
        trn_status status;
    } cases[] = {
        {"200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 4\r\n\r\npage", "web page",
         TRN_ERR_FORMAT},
        {"200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\ngzip", "compressed",
         TRN_ERR_UNSUPPORTED},
        {"200 OK\r\nContent-Length: 0\r\n\r\n", "is empty", TRN_ERR_FORMAT},
        {"200 OK\r\nContent-Length: 9000000000000000000\r\n\r\nx", "too large", TRN_ERR_UNSUPPORTED},
        {"404 Not Found\r\nContent-Length: 4\r\n\r\ngone", "status 404", TRN_ERR_IO},
        {"403 Forbidden\r\nContent-Length: 0\r\n\r\n", "known users", TRN_ERR_IO},
        {"304 Not Modified\r\n\r\n", "status 304", TRN_ERR_IO},
        {"206 Partial Content\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\n56789", "",
         TRN_ERR_IO},
        {"302 Found\r\nContent-Length: 0\r\n\r\n", "not said where", TRN_ERR_IO},
        {"302 Found\r\nLocation: ftp://127.0.0.1/x\r\nContent-Length: 0\r\n\r\n", "http", TRN_ERR_ARGUMENT},
        {"302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n", "http", TRN_ERR_ARGUMENT},
        {"302 Found\r\nLocation: http://me:secret@127.0.0.1/x\r\nContent-Length: 0\r\n\r\n", "password",
         TRN_ERR_ARGUMENT},
    };
    for (size_t i = 0; i < TRN_COUNT(cases); i++) {
        place p;
        open_place(&p, answer_lines, (void *)(uintptr_t)cases[i].answer);
        trn_status status = pull(&p);
        if (status != cases[i].status || !strstr(p.err.message, cases[i].says))
            fail_msg("'%s': %s: %s", cases[i].answer, trn_status_name(status), p.err.message);
        assert_trn_ok(find(&p), p.err);
        assert_null(p.got.path);
        close_place(&p);
    }
}

static void garbage(int connection, const char *request, size_t serial, void *user)
{
    (void)request, (void)serial, (void)user;
    http_send(connection, "SSH-2.0-OpenSSH_9.2\r\n");
}

static void no_http(void **state)
{
    (void)state;
    place p;
    open_place(&p, garbage, NULL);
    trn_status status = pull(&p);
    assert_true(status == TRN_ERR_IO || status == TRN_ERR_FORMAT);
    assert_non_null(strstr(p.err.message, p.url));
    close_place(&p);
}

static void endless_header(int connection, const char *request, size_t serial, void *user)
{
    (void)request, (void)serial, (void)user;
    char line[1024];
    memset(line, 'x', sizeof line);
    memcpy(line, "X-Y: ", 5);
    memcpy(line + sizeof line - 2, "\r\n", 2);
    http_send(connection, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 4096; i++)
        http_send_bytes(connection, line, sizeof line);
    http_send(connection, "Content-Length: 1\r\n\r\nx");
}

static void huge_headers(void **state)
{
    (void)state;
    place p;
    open_place(&p, endless_header, NULL);
    trn_status status = pull(&p);
    assert_true(status == TRN_ERR_FORMAT || status == TRN_ERR_IO);
    assert_int_equal(http_server_count(p.server), 1); /* no reason to try again */
    assert_trn_ok(find(&p), p.err);
    assert_null(p.got.path);
    close_place(&p);
}

/* ---- redirects ---- */

static void redirect(int connection, const char *request, size_t serial, void *user)
{
    const int *hops = user;
    http_file file = {FIRST};
    if ((int)serial < *hops)
        http_send(connection,
                  "HTTP/1.1 302 Found\r\nLocation: /elsewhere/%zu?key=x\r\nContent-Length: 4\r\n\r\ngone",
                  serial);
    else
        http_send_file(connection, request, &file);
}

static void redirects(void **state)
{
    (void)state;
    for (int hops = 1; hops <= 8; hops += 7) {
        place p;
        open_place(&p, redirect, &hops);
        assert_trn_ok(pull(&p), p.err);
        assert_int_equal(http_server_count(p.server), hops + 1);
        assert_stored(&p, first_data);
        assert_holds(&p, COMPLETE); /* named by the address that was given */
        close_place(&p);
    }
    int hops = 1000;
    place p;
    open_place(&p, redirect, &hops);
    assert_trn_fails(pull(&p), TRN_ERR_IO, p.err, "more than 8 times");
    assert_int_equal(http_server_count(p.server), 9);
    close_place(&p);
}

static void addresses(void **state)
{
    (void)state;
    trn_error err = {0};
    assert_trn_ok(trn_store_check_url("https://a.example/x.pt", NULL, &err), err);
    assert_trn_ok(trn_store_check_url("http://a.example/x.pt", NULL, &err), err);
    assert_trn_ok(trn_store_check_url("https://b.example/x.pt", "http://a.example/x.pt", &err), err);
    assert_trn_ok(trn_store_check_url("HTTPS://b.example/x.pt", "https://a.example/x.pt", &err), err);
    assert_trn_fails(trn_store_check_url("http://b.example/x.pt", "https://a.example/x.pt", &err), TRN_ERR_IO,
                     err, "not encrypted");
    assert_trn_fails(trn_store_check_url("http://b.example/x.pt", "HTTPS://a.example/x.pt", &err), TRN_ERR_IO,
                     err, "not encrypted");
    static const char *const bad[] = {"",
                                      "x.pt",
                                      "/tmp/x.pt",
                                      "file:///x.pt",
                                      "ftp://a/x.pt",
                                      "https:/a/x.pt",
                                      "https://",
                                      "https:///x.pt",
                                      "https://a.example/x y.pt",
                                      "https://a.example/x\n.pt",
                                      "https://me@a.example/x.pt",
                                      "https://me:pw@a.example/x.pt"};
    for (size_t i = 0; i < TRN_COUNT(bad); i++)
        assert_int_equal(trn_store_check_url(bad[i], NULL, &err), TRN_ERR_ARGUMENT);
}

/* ---- names ---- */

static void hostile_names(void **state)
{
    (void)state;
    static const char *const paths[] = {"/",
                                        "",
                                        "/..",
                                        "/a/..%2fx",
                                        "/%2e%2e%2f%2e%2e%2fx",
                                        "/x/.x",
                                        "/a%00b",
                                        "/a%0Ab",
                                        "/a b",
                                        "/manifest.json",
                                        "/x.part",
                                        "/x.part.json",
                                        "/%2e%2e",
                                        "/a%5cb"};
    static const char *const names[] = {"", ".", "..", "../x", "a/b", "/etc", ".lock", "a\nb", "a b"};
    place p;
    script s = {{{FIRST}}, 1};
    open_place(&p, play, &s);
    for (size_t i = 0; i < TRN_COUNT(paths); i++) {
        char *url = http_server_url(p.server, paths[i]);
        p.options.url = url;
        trn_status status = pull(&p);
        if (status != TRN_ERR_ARGUMENT) fail_msg("'%s': %s", url, trn_status_name(status));
        free(url);
    }
    p.options.url = p.url;
    for (size_t i = 0; i < TRN_COUNT(names); i++) {
        p.options.name = names[i];
        assert_int_equal(pull(&p), TRN_ERR_ARGUMENT);
        assert_int_equal(trn_store_find(names[i], &p.got, &p.err), TRN_ERR_ARGUMENT);
    }
    assert_int_equal(http_server_count(p.server), 0);
    char **list = NULL;
    size_t count = 0;
    assert_trn_ok(trn_list_dir(p.dir, &list, &count, &p.err), p.err);
    assert_int_equal(count, 0);
    trn_names_free(list, count);
    char *url = http_server_url(p.server, "/a/b%2Dc.pt?download=true#x");
    p.options.url = url;
    p.options.name = "vit";
    assert_trn_ok(pull(&p), p.err);
    assert_holds(&p, ".lock,b-c.pt,manifest.json");
    p.options.url = p.url; /* the same file by another name takes its place */
    p.options.force = true;
    assert_trn_ok(pull(&p), p.err);
    assert_holds(&p, COMPLETE);
    free(url);
    close_place(&p);
}

/* ---- nothing is taken for what it is not ---- */

/* A lock that leads elsewhere is not followed. */
static void lock_that_leads_away(void **state)
{
    (void)state;
    place p;
    script s = {{{FIRST}}, 1};
    open_place(&p, play, &s);
    char *folder = test_path(p.dir, "vit"), *lock = test_path(folder, ".lock"),
         *elsewhere = test_path(p.dir, "elsewhere");
    assert_trn_ok(trn_make_dirs(folder, &p.err), p.err);
    assert_int_equal(symlink(elsewhere, lock), 0);
    assert_trn_fails(pull(&p), TRN_ERR_IO, p.err, ".lock");
    assert_false(trn_path_exists(elsewhere));
    assert_int_equal(http_server_count(p.server), 0);
    free(folder);
    free(lock);
    free(elsewhere);
    close_place(&p);
}

/* Takes the part away when it has been checked: the manifest is written, and the file does not come. */
static void lose_part(void *user, const char *stage, uint64_t done, uint64_t total)
{
    const place *p = user;
    char *part = test_path(p->dir, "vit/encoder.pt.part");
    if (!strcmp(stage, "checking") && done == total) unlink(part);
    free(part);
}

/* Other data of the same size never stand beside the digits of a download that did not come. */
static void stopped_between_manifest_and_file(void **state)
{
    (void)state;
    place p;
    script s = {{{FIRST}, {SECOND}}, 2};
    open_place(&p, play, &s);
    assert_trn_ok(pull(&p), p.err);
    const trn_progress progress = {.report = lose_part, .user = &p};
    p.options.progress = &progress;
    p.options.sha256 = second_digits;
    assert_trn_fails(pull(&p), TRN_ERR_IO, p.err, "encoder.pt");
    assert_trn_ok(find(&p), p.err);
    assert_null(p.got.path);
    p.options.progress = NULL;
    assert_trn_ok(pull(&p), p.err);
    assert_stored(&p, second_data);
    close_place(&p);
}

/* ---- trouble ---- */

static void busy_then_fine(int connection, const char *request, size_t serial, void *user)
{
    (void)user;
    http_file file = {FIRST};
    if (serial < 2)
        http_send(connection, "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy");
    else
        http_send_file(connection, request, &file);
}

static void busy_server(void **state)
{
    (void)state;
    place p;
    open_place(&p, busy_then_fine, NULL);
    assert_trn_ok(pull(&p), p.err);
    assert_int_equal(http_server_count(p.server), 3);
    assert_stored(&p, first_data);
    close_place(&p);
}

static void send_half_and_hang(int connection, const char *request, size_t serial, void *user)
{
    (void)user;
    http_file file = {FIRST, .etag = "\"one\"", .cut = serial ? 0 : HALF};
    http_send_file(connection, request, &file);
    if (!serial) http_hang(connection);
}

static void hanging_server(void **state)
{
    (void)state;
    place p;
    open_place(&p, send_half_and_hang, NULL);
    p.options.stall_seconds = 1;
    p.options.tries = 1;
    assert_trn_fails(pull(&p), TRN_ERR_IO, p.err, "too slow or does not answer");
    p.options.tries = 2;
    assert_trn_ok(pull(&p), p.err);
    assert_int_equal(p.got.resumed_at, HALF);
    assert_stored(&p, first_data);
    close_place(&p);
}

static void nobody_there(void **state)
{
    (void)state;
    place p;
    script s = {{{FIRST}}, 1};
    open_place(&p, play, &s);
    p.options.url = "http://127.0.0.1:1/encoder.pt";
    assert_trn_fails(pull(&p), TRN_ERR_IO, p.err, "is this machine online");
    close_place(&p);
}

static void cancelled(void **state)
{
    (void)state;
    place p;
    open_place(&p, send_half_and_hang, NULL);
    p.stop_at = 1;
    assert_trn_fails(pull(&p), TRN_ERR_CANCELLED, p.err, "are kept");
    assert_holds(&p, BEGUN);
    p.stop_at = 0;
    assert_trn_ok(pull(&p), p.err);
    assert_true(p.got.resumed_at > 0);
    assert_stored(&p, first_data);
    close_place(&p);
}

/* ---- two at once ---- */

typedef struct hold {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool begun, go_on;
} hold;

static void wait_for(hold *h, bool *what)
{
    pthread_mutex_lock(&h->mutex);
    while (!*what)
        pthread_cond_wait(&h->changed, &h->mutex);
    pthread_mutex_unlock(&h->mutex);
}
static void set(hold *h, bool *what)
{
    pthread_mutex_lock(&h->mutex);
    *what = true;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->mutex);
}

static void send_when_told(int connection, const char *request, size_t serial, void *user)
{
    (void)serial;
    hold *h = user;
    http_file file = {FIRST};
    set(h, &h->begun);
    wait_for(h, &h->go_on);
    http_send_file(connection, request, &file);
}

static void *pull_in_thread(void *user)
{
    place *p = user;
    trn_store_pull(&p->options, &p->got, &p->err);
    return NULL;
}

static void two_at_once(void **state)
{
    (void)state;
    hold h = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    place p;
    pthread_t thread;
    open_place(&p, send_when_told, &h);
    p.options.note = NULL;
    assert_int_equal(pthread_create(&thread, NULL, pull_in_thread, &p), 0);
    wait_for(&h, &h.begun);
    trn_stored second;
    trn_error err = {0};
    assert_trn_fails(trn_store_pull(&p.options, &second, &err), TRN_ERR_IO, err, "another pull");
    assert_null(second.path);
    set(&h, &h.go_on);
    pthread_join(thread, NULL);
    assert_trn_ok(p.err.code, p.err);
    assert_stored(&p, first_data);
    assert_int_equal(http_server_count(p.server), 1);
    close_place(&p);
}

/* ---- the folder ---- */

static void store_folder(void **state)
{
    (void)state;
    trn_error err = {0};
    assert_int_equal(setenv("TERRANE_MODELS", "/some/where", 1), 0);
    char *dir = trn_store_dir(&err);
    assert_string_equal(dir, "/some/where");
    free(dir);
    const char *before = getenv("XDG_CACHE_HOME");
    char *cache = before ? strdup(before) : NULL;
    assert_int_equal(setenv("TERRANE_MODELS", "", 1), 0); /* empty is not set */
    assert_int_equal(setenv("XDG_CACHE_HOME", "/no/cache", 1), 0);
    dir = trn_store_dir(&err);
    assert_string_equal(dir, "/no/cache/terrane/models");
    trn_stored found;
    assert_trn_ok(trn_store_find("vit", &found, &err), err); /* looking creates nothing */
    assert_null(found.path);
    free(dir);
    if (cache) setenv("XDG_CACHE_HOME", cache, 1);
    free(cache);
}

static void unwritable_folder(void **state)
{
    (void)state;
    place p;
    script s = {{{FIRST}}, 1};
    open_place(&p, play, &s);
    char *file = test_path(p.dir, "file"), *below = test_path(p.dir, "file/store");
    assert_trn_ok(trn_write_file(file, "x", 1, &p.err), p.err);
    assert_int_equal(setenv("TERRANE_MODELS", below, 1), 0);
    assert_trn_fails(pull(&p), TRN_ERR_IO, p.err, below);
    assert_int_equal(http_server_count(p.server), 0);
    assert_int_equal(setenv("TERRANE_MODELS", p.dir, 1), 0);
    char *folder = test_path(p.dir, "vit/encoder.pt"); /* something else has the file's name */
    assert_trn_ok(trn_make_dirs(folder, &p.err), p.err);
    assert_trn_fails(pull(&p), TRN_ERR_IO, p.err, "is a folder");
    free(folder);
    free(below);
    free(file);
    close_place(&p);
}

static void full_disk(void **state)
{
    (void)state;
    place p;
    script s = {{{FIRST, .etag = "\"one\""}}, 1};
    open_place(&p, play, &s);
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = HALF;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    trn_status status = pull(&p);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_trn_fails(status, TRN_ERR_IO, p.err, "the disk is full");
    assert_non_null(strstr(p.err.message, "encoder.pt.part"));
    assert_holds(&p, BEGUN);
    assert_trn_ok(pull(&p), p.err);
    assert_int_equal(p.got.resumed_at, HALF);
    assert_stored(&p, first_data);
    close_place(&p);
}

static void damaged_store(void **state)
{
    (void)state;
    place p;
    script s = {{{FIRST}}, 1};
    open_place(&p, play, &s);
    assert_trn_ok(pull(&p), p.err);
    char *file = test_path(p.dir, "vit/encoder.pt"), *manifest = test_path(p.dir, "vit/manifest.json");
    assert_int_equal(truncate(file, HALF), 0);
    assert_trn_fails(find(&p), TRN_ERR_FORMAT, p.err, "run: terrane pull vit");
    assert_trn_ok(pull(&p), p.err); /* sets it right */
    assert_non_null(strstr(trn_text_get(&p.notes), "fetching it again"));
    assert_stored(&p, first_data);
    assert_trn_ok(trn_write_file(file, second_data, SIZE, &p.err), p.err); /* as long, but another */
    assert_trn_ok(pull(&p), p.err);
    assert_false(p.got.was_there);
    assert_stored(&p, first_data);

    static const char digits[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    static const char *const manifests[] = {
        "",
        "[]",
        "{\"file\": \"encoder.pt\"",
        "{\"file\": \"encoder.pt\", \"bytes\": 300000}",
        "{\"file\": \"../../secret\", \"bytes\": 300000, \"sha256\": \"%s\"}",
        "{\"file\": \"manifest.json\", \"bytes\": 300000, \"sha256\": \"%s\"}",
        "{\"file\": \"encoder.pt\", \"bytes\": -1, \"sha256\": \"%s\"}",
        "{\"file\": \"encoder.pt\", \"bytes\": 1e300, \"sha256\": \"%s\"}",
        "{\"file\": \"encoder.pt\", \"bytes\": 1.5, \"sha256\": \"%s\"}",
        "{\"file\": \"encoder.pt\", \"bytes\": 300000, \"sha256\": \"xyz\"}",
        "{\"file\": [], \"bytes\": 300000, \"sha256\": \"%s\"}",
    };
    for (size_t i = 0; i < TRN_COUNT(manifests); i++) {
        trn_text text = {0};
        const char *hole = strstr(manifests[i], "%s");
        trn_text_add_n(&text, manifests[i], hole ? (size_t)(hole - manifests[i]) : strlen(manifests[i]));
        if (hole) trn_text_printf(&text, "%s%s", digits, hole + 2);
        assert_trn_ok(trn_write_file(manifest, trn_text_get(&text), text.length, &p.err), p.err);
        trn_text_free(&text);
        assert_trn_fails(find(&p), TRN_ERR_FORMAT, p.err, "manifest.json");
        assert_trn_fails(pull(&p), TRN_ERR_FORMAT, p.err, "manifest.json");
    }
    free(file);
    free(manifest);
    close_place(&p);
}

static void fill(char *data, uint64_t seed, char digits[65])
{
    uint8_t digest[32];
    for (size_t i = 0; i < SIZE; i++)
        data[i] = (char)(trn_splitmix64(seed + i) >> 56);
    trn_sha256(data, SIZE, digest);
    trn_sha256_text(digest, digits);
}

int main(void)
{
    setenv("no_proxy", "*", 1);
    fill(first_data, 1, first_digits);
    fill(second_data, 1000000007, second_digits);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_download),
        cmocka_unit_test(known_digits),
        cmocka_unit_test(unknown_length),
        cmocka_unit_test(chunks_with_trailers),
        cmocka_unit_test(cut_and_continued),
        cmocka_unit_test(continued_by_the_next_pull),
        cmocka_unit_test(complete_but_not_checked),
        cmocka_unit_test(range_ignored),
        cmocka_unit_test(changed_between_tries),
        cmocka_unit_test(wrong_ranges),
        cmocka_unit_test(no_version),
        cmocka_unit_test(always_short),
        cmocka_unit_test(wrong_digits),
        cmocka_unit_test(changed_after_first_use),
        cmocka_unit_test(no_weights),
        cmocka_unit_test(no_http),
        cmocka_unit_test(huge_headers),
        cmocka_unit_test(redirects),
        cmocka_unit_test(addresses),
        cmocka_unit_test(hostile_names),
        cmocka_unit_test(lock_that_leads_away),
        cmocka_unit_test(stopped_between_manifest_and_file),
        cmocka_unit_test(busy_server),
        cmocka_unit_test(hanging_server),
        cmocka_unit_test(nobody_there),
        cmocka_unit_test(cancelled),
        cmocka_unit_test(two_at_once),
        cmocka_unit_test(store_folder),
        cmocka_unit_test(unwritable_folder),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(damaged_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
