/* The model store: a folder for each name, what its manifest says, and downloads that appear only when right.
 */
#include "download.h"

#include <cjson/cJSON.h>
#include <curl/curl.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MANIFEST "manifest.json"

enum {
    MAX_NAME = 100,
    MAX_FILE_NAME = 200,
    MIN_DIGITS = 8,
    ALL_DIGITS = 64,
    MAX_JSON = 1 << 16,
    TRIES = 8,
    BACKOFF_MS = 1000,
    MAX_BACKOFF_MS = 30000,
    WAIT_STEP_MS = 50, /* between looks whether to stop */
};

/* What a function said that returns no status. */
static trn_status code_of(const trn_error *err, trn_status otherwise)
{
    return err && err->code != TRN_OK ? err->code : otherwise;
}

/* ---- names ---- */

/* A name that is one part of a path, wherever it came from. */
static bool is_plain_name(const char *name, size_t max)
{
    size_t length = strlen(name);
    if (!length || length > max || name[0] == '.') return false;
    for (const char *s = name; *s; s++)
        if (!isalnum((unsigned char)*s) && !strchr("._-+", *s)) return false;
    return true;
}

static trn_status check_name(const char *name, trn_error *err)
{
    if (is_plain_name(name, MAX_NAME)) return TRN_OK;
    return trn_fail(err, TRN_ERR_ARGUMENT,
                    "'%.120s' is no name for the store: letters, digits, '.', '_', '-' and '+', not "
                    "beginning with '.'",
                    name);
}

/* The names that the store needs for itself. */
static bool is_reserved(const char *file)
{
    return !strcmp(file, MANIFEST) || trn_ends_with(file, ".part") || trn_ends_with(file, ".part.json");
}

/* What the address calls the file: the last part of its path. malloc'd; NULL with err set. */
static char *name_in_url(const char *url, trn_error *err)
{
    char *name = NULL, *part = NULL, *plain = NULL;
    CURLU *parsed = curl_url();
    if (!parsed || curl_url_set(parsed, CURLUPART_URL, url, 0) ||
        curl_url_get(parsed, CURLUPART_PATH, &part, 0)) {
        trn_fail(err, TRN_ERR_ARGUMENT, "'%.300s' is no address of a file", url);
        goto done;
    }
    int length = 0;
    const char *last = trn_path_name(part);
    plain = curl_easy_unescape(NULL, last, 0, &length);
    if (plain && strlen(plain) == (size_t)length && is_plain_name(plain, MAX_FILE_NAME) &&
        !is_reserved(plain)) {
        name = strdup(plain);
        if (!name) trn_fail_memory(err, (size_t)length, "a file's name");
    } else {
        trn_fail(
            err, TRN_ERR_ARGUMENT,
            "'%.300s' does not end with a file's name that the store can use (letters, digits, '.', '_', "
            "'-', '+')",
            url);
    }
done:
    curl_free(plain);
    curl_free(part);
    curl_url_cleanup(parsed);
    return name;
}

char *trn_store_dir(trn_error *err)
{
    const char *given = getenv("TERRANE_MODELS");
    if (!given || !*given) return trn_cache_path("models", err);
    char *dir = strdup(given);
    if (!dir) trn_fail_memory(err, strlen(given), "a path");
    return dir;
}

/* The folder of a name. malloc'd; NULL with err set. */
static char *folder_of(const char *name, trn_error *err)
{
    if (check_name(name, err) != TRN_OK) return NULL;
    char *store = trn_store_dir(err), *folder = store ? trn_path_join(store, name) : NULL;
    if (store && !folder) trn_fail_memory(err, strlen(name), "a path");
    free(store);
    return folder;
}

/* ---- JSON ---- */

static void copy_text(const cJSON *object, const char *key, char *out, size_t capacity)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    snprintf(out, capacity, "%s", text && strlen(text) < capacity ? text : "");
}

/* A size in JSON is exact as far as doubles are. */
static bool get_size(const cJSON *object, const char *key, uint64_t *out)
{
    const double exact = 9007199254740992.0;
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= exact)) return false;
    *out = (uint64_t)item->valuedouble;
    return (double)*out == item->valuedouble;
}

/* NULL with err set; TRN_ERR_IO when the file cannot be read. */
static cJSON *read_json(const char *path, trn_error *err)
{
    size_t size;
    char *text = trn_read_file(path, MAX_JSON, &size, err);
    if (!text) return NULL;
    cJSON *json = cJSON_ParseWithLength(text, size);
    free(text);
    if (cJSON_IsObject(json)) return json;
    cJSON_Delete(json);
    trn_fail(err, TRN_ERR_FORMAT, "'%s' is damaged: it is no JSON object", path);
    return NULL;
}

static trn_status write_json(const char *path, trn_text *text, trn_error *err)
{
    trn_status status = text->failed ? trn_fail_memory(err, text->length, path)
                                     : trn_write_file(path, text->data, text->length, err);
    trn_text_free(text);
    return status;
}

/* ---- the manifest ---- */

static bool are_digits(const char *text, size_t min, size_t max)
{
    size_t length = strlen(text);
    return length >= min && length <= max && strspn(text, "0123456789abcdefABCDEF") == length;
}

typedef struct manifest {
    char file[MAX_FILE_NAME + 1]; /* "": there is none */
    char url[2048];
    trn_stored stored;
} manifest;

static trn_status read_manifest(const char *folder, const char *name, manifest *out, trn_error *err)
{
    *out = (manifest){0};
    char *path = trn_path_join(folder, MANIFEST);
    if (!path) return trn_fail_memory(err, 0, "a path");
    trn_status status = TRN_OK;
    cJSON *json = NULL;
    if (!trn_path_exists(path)) goto done;
    json = read_json(path, err);
    if (!json) {
        status = code_of(err, TRN_ERR_FORMAT);
    } else {
        copy_text(json, "file", out->file, sizeof out->file);
        copy_text(json, "url", out->url, sizeof out->url);
        copy_text(json, "sha256", out->stored.sha256, sizeof out->stored.sha256);
        copy_text(json, "date", out->stored.date, sizeof out->stored.date);
        bool good = get_size(json, "bytes", &out->stored.bytes) && is_plain_name(out->file, MAX_FILE_NAME) &&
                    !is_reserved(out->file) && are_digits(out->stored.sha256, ALL_DIGITS, ALL_DIGITS);
        if (!good)
            status =
                trn_fail(err, TRN_ERR_FORMAT, "'%s' is damaged: file, bytes or sha256 are not right", path);
    }
    if (status == TRN_ERR_FORMAT)
        trn_wrap(err, "remove '%s' (or what it says of the file) and run: terrane pull %s", path, name);
done:
    cJSON_Delete(json);
    free(path);
    return status;
}

static trn_status write_manifest(const char *folder, const char *name, const char *file,
                                 const trn_stored *stored, trn_error *err)
{
    trn_text text = {0};
    char *path = trn_path_join(folder, MANIFEST);
    if (!path) return trn_fail_memory(err, 0, "a path");
    const char *const pairs[] = {"name",      name,     "file",         file,   "url",
                                 stored->url, "sha256", stored->sha256, "date", stored->date};
    trn_text_add(&text, "{");
    for (size_t i = 0; i < TRN_COUNT(pairs); i += 2) {
        trn_text_printf(&text, "\n  \"%s\": ", pairs[i]);
        trn_text_json(&text, pairs[i + 1]);
        trn_text_add(&text, ",");
    }
    trn_text_printf(&text, "\n  \"bytes\": %" PRIu64 "\n}\n", stored->bytes);
    trn_status status = write_json(path, &text, err);
    free(path);
    return status;
}

/* ---- finding ---- */

void trn_stored_free(trn_stored *stored)
{
    free(stored->path);
    free(stored->url);
    *stored = (trn_stored){0};
}

static trn_status fill_stored(const manifest *from, const char *path, trn_stored *out, trn_error *err)
{
    *out = from->stored;
    out->path = strdup(path);
    out->url = strdup(from->url);
    if (out->path && out->url) return TRN_OK;
    trn_stored_free(out);
    return trn_fail_memory(err, strlen(path), "a path");
}

trn_status trn_store_find(const char *name, trn_stored *out, trn_error *err)
{
    *out = (trn_stored){0};
    char *folder = folder_of(name, err), *path = NULL;
    if (!folder) return code_of(err, TRN_ERR_IO);
    manifest known;
    struct stat info;
    trn_status status = read_manifest(folder, name, &known, err);
    if (status != TRN_OK || !known.file[0]) goto done;
    path = trn_path_join(folder, known.file);
    if (!path)
        status = trn_fail_memory(err, 0, "a path");
    else if (stat(path, &info))
        status = errno == ENOENT ? TRN_OK : trn_fail_errno(err, "look at", path);
    else if (!S_ISREG(info.st_mode) || (uint64_t)info.st_size != known.stored.bytes)
        status =
            trn_fail(err, TRN_ERR_FORMAT,
                     "'%s' is not the file that was downloaded: it has %lld bytes, its manifest says %" PRIu64
                     "; run: terrane pull %s",
                     path, (long long)info.st_size, known.stored.bytes, name);
    else
        status = fill_stored(&known, path, out, err);
done:
    free(path);
    free(folder);
    return status;
}

/* ---- a pull under way ---- */

typedef struct pull {
    const trn_pull_options *options;
    char *folder, *file, *final_path, *part_path, *state_path;
    int lock;
    manifest known;       /* of earlier; file "" when there was none */
    char wanted[65];      /* digits that the file must have, lower case; "": none are known */
    bool wanted_recorded; /* they are those of the first download */
    download transfer;
    trn_stored result;
} pull;

static void note(const pull *p, trn_log_level level, const char *fmt, ...) TRN_PRINTF(3, 4);
static void note(const pull *p, trn_log_level level, const char *fmt, ...)
{
    if (!p->options->note) return;
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    p->options->note(p->options->note_user, level, text);
}

static trn_status check_options(const trn_pull_options *options, trn_error *err)
{
    if (!options->name || !options->url)
        return trn_fail(err, TRN_ERR_ARGUMENT, "a pull needs a name and an address");
    if (strlen(options->url) >= sizeof((manifest *)0)->url)
        return trn_fail(err, TRN_ERR_ARGUMENT, "the address is too long: at most %zu characters",
                        sizeof((manifest *)0)->url - 1);
    if (options->sha256 && !are_digits(options->sha256, MIN_DIGITS, ALL_DIGITS))
        return trn_fail(err, TRN_ERR_ARGUMENT, "sha256 is '%.80s'; wanted %d to %d hex digits",
                        options->sha256, MIN_DIGITS, ALL_DIGITS);
    return trn_store_check_url(options->url, NULL, err);
}

/* One pull of a name at a time. The lock dies with its holder; its file stays, as removing it would race. */
static trn_status take_lock(pull *p, trn_error *err)
{
    char *path = trn_path_join(p->folder, ".lock");
    if (!path) return trn_fail_memory(err, 0, "a path");
    trn_status status = TRN_OK;
    p->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (p->lock < 0)
        status = trn_fail_errno(err, "write", path);
    else if (flock(p->lock, LOCK_EX | LOCK_NB))
        status = errno == EWOULDBLOCK
                     ? trn_fail(err, TRN_ERR_IO,
                                "another pull of '%s' is under way: wait for its end, then run this again",
                                p->options->name)
                     : trn_fail_errno(err, "lock", path);
    free(path);
    return status;
}

static char *with_suffix(const char *path, const char *suffix)
{
    trn_text text = {0};
    trn_text_printf(&text, "%s%s", path, suffix);
    if (text.failed) trn_text_free(&text);
    return text.data;
}

static trn_status pull_begin(pull *p, trn_error *err)
{
    trn_status status = check_options(p->options, err);
    if (status != TRN_OK) return status;
    p->file = name_in_url(p->options->url, err);
    if (!p->file) return code_of(err, TRN_ERR_ARGUMENT);
    p->folder = folder_of(p->options->name, err);
    if (!p->folder) return code_of(err, TRN_ERR_ARGUMENT);
    p->final_path = trn_path_join(p->folder, p->file);
    p->part_path = p->final_path ? with_suffix(p->final_path, ".part") : NULL;
    p->state_path = p->final_path ? with_suffix(p->final_path, ".part.json") : NULL;
    if (!p->part_path || !p->state_path) return trn_fail_memory(err, 0, "a path");
    status = trn_make_dirs(p->folder, err);
    if (status == TRN_OK) status = take_lock(p, err);
    if (status == TRN_OK) status = read_manifest(p->folder, p->options->name, &p->known, err);
    if (status != TRN_OK) return status;
    const char *digits = p->options->sha256, *recorded = p->known.file[0] ? p->known.stored.sha256 : NULL;
    p->wanted_recorded = recorded && (!digits || !strncasecmp(recorded, digits, strlen(digits)));
    if (p->wanted_recorded) digits = recorded;
    for (size_t i = 0; digits && digits[i]; i++)
        p->wanted[i] = (char)tolower((unsigned char)digits[i]);
    return TRN_OK;
}

static void pull_end(pull *p)
{
    if (p->transfer.fd >= 0) close(p->transfer.fd);
    if (p->lock >= 0) close(p->lock);
    free(p->folder);
    free(p->file);
    free(p->final_path);
    free(p->part_path);
    free(p->state_path);
    trn_stored_free(&p->result);
}

/* ---- digits ---- */

static bool has_digits(const char *sha256, const char *wanted)
{
    return trn_starts_with(sha256, wanted);
}

/* Whether the file is there and as recorded; TRN_OK with *good false sends it for a download. */
static trn_status check_present(pull *p, bool *good, trn_error *err)
{
    *good = false;
    if (p->options->force || !p->known.file[0]) return TRN_OK;
    char *path = trn_path_join(p->folder, p->known.file), sha256[65];
    uint64_t size;
    if (!path) return trn_fail_memory(err, 0, "a path");
    trn_status status = TRN_OK;
    if (trn_path_exists(path) && !trn_path_is_dir(path)) {
        status = trn_sha256_file(path, p->options->progress, &size, sha256, err);
        *good = status == TRN_OK && size == p->known.stored.bytes &&
                !strcmp(sha256, p->known.stored.sha256) && has_digits(sha256, p->wanted);
        if (status == TRN_OK && !*good)
            note(p, TRN_LOG_WARN,
                 "'%s' is not what was downloaded, or no longer what is published: fetching it again", path);
    }
    if (*good) {
        status = fill_stored(&p->known, path, &p->result, err);
        p->result.was_there = true;
    }
    free(path);
    return status;
}

/* ---- parts ---- */

static trn_status write_state(void *user, trn_error *err)
{
    pull *p = user;
    const remote_file *remote = &p->transfer.remote;
    trn_text text = {0};
    p->result.resumed_at = 0; /* the whole comes */
    trn_text_add(&text, "{\"url\": ");
    trn_text_json(&text, p->options->url);
    trn_text_add(&text, ", \"etag\": ");
    trn_text_json(&text, remote->etag);
    trn_text_add(&text, ", \"last_modified\": ");
    trn_text_json(&text, remote->modified);
    trn_text_printf(&text, ", \"size\": %" PRIu64 "}\n", remote->size);
    return write_json(p->state_path, &text, err);
}

/* What an earlier pull knew of the part's file; false when that is not enough to go on. */
static bool read_state(const pull *p, remote_file *out)
{
    trn_error ignored = {0};
    char url[sizeof p->known.url];
    *out = (remote_file){0};
    cJSON *json = read_json(p->state_path, &ignored);
    if (!json) return false;
    copy_text(json, "url", url, sizeof url);
    copy_text(json, "etag", out->etag, sizeof out->etag);
    copy_text(json, "last_modified", out->modified, sizeof out->modified);
    bool good = get_size(json, "size", &out->size) && !strcmp(url, p->options->url) &&
                !strpbrk(out->etag, "\r\n") && !strpbrk(out->modified, "\r\n");
    cJSON_Delete(json);
    return good;
}

/* Without a sign of the file's version only digits could tell whether a continued file is one file. */
static bool can_go_on(const pull *p, const remote_file *remote, uint64_t have)
{
    bool versioned = remote->etag[0] == '"' || remote->modified[0];
    return have && (versioned || p->wanted[0]) && (!remote->size || have <= remote->size);
}

static trn_status open_part(pull *p, trn_error *err)
{
    struct stat info;
    download *d = &p->transfer;
    d->fd = open(p->part_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (d->fd < 0 || fstat(d->fd, &info)) return trn_fail_errno(err, "write", p->part_path);
    if (!S_ISREG(info.st_mode)) return trn_fail(err, TRN_ERR_IO, "'%s' is not a regular file", p->part_path);
    remote_file remote;
    uint64_t have = (uint64_t)info.st_size;
    if (have && read_state(p, &remote) && can_go_on(p, &remote, have)) {
        d->remote = remote;
        d->offset = p->result.resumed_at = have;
        if (lseek(d->fd, 0, SEEK_END) < 0) return trn_fail_errno(err, "write", p->part_path);
    } else if (ftruncate(d->fd, 0)) {
        return trn_fail_errno(err, "write", p->part_path);
    }
    return TRN_OK;
}

static trn_status start_anew(pull *p, trn_error *err)
{
    download *d = &p->transfer;
    note(p, TRN_LOG_INFO, "the file on the server is no longer the one that was begun: from the start");
    if (ftruncate(d->fd, 0) || lseek(d->fd, 0, SEEK_SET)) return trn_fail_errno(err, "write", p->part_path);
    d->offset = p->result.resumed_at = 0;
    d->remote = (remote_file){0};
    return TRN_OK;
}

/* Waits, but not for one who wants to stop. */
static trn_status wait_before_try(const pull *p, int milliseconds, trn_error *err)
{
    struct timespec step = {.tv_nsec = WAIT_STEP_MS * 1000000L};
    for (int left = milliseconds; left > 0; left -= WAIT_STEP_MS) {
        if (trn_progress_cancelled(p->options->progress)) return trn_fail_cancelled(err, "the download");
        nanosleep(&step, NULL);
    }
    return TRN_OK;
}

static void say_kept(const pull *p, trn_error *err)
{
    char bytes[32];
    if (!err || !can_go_on(p, &p->transfer.remote, p->transfer.offset)) return;
    size_t used = strlen(err->message);
    snprintf(err->message + used, sizeof err->message - used,
             "; %s are kept, and the next pull goes on from there",
             trn_format_bytes(p->transfer.offset, bytes));
}

/* Another try after one that was cut; TRN_OK when it may begin. */
static trn_status prepare_try(pull *p, int tried, int *backoff, trn_error *err)
{
    int tries = p->options->tries ? p->options->tries : TRIES;
    if (tried >= tries) {
        trn_status status = trn_wrap(err, "given up after %d tries", tries);
        say_kept(p, err);
        return status;
    }
    note(p, TRN_LOG_WARN, "%s; trying again in %.1f s", err ? err->message : "cut off", *backoff * 1e-3);
    /* what is not versioned is not continued */
    if (p->transfer.offset && !can_go_on(p, &p->transfer.remote, p->transfer.offset)) {
        trn_status status = start_anew(p, err);
        if (status != TRN_OK) return status;
    }
    trn_status status = wait_before_try(p, *backoff, err);
    if (status == TRN_ERR_CANCELLED) say_kept(p, err);
    *backoff = TRN_MIN(2 * *backoff, MAX_BACKOFF_MS);
    return status;
}

static trn_status fetch(pull *p, trn_error *err)
{
    download *d = &p->transfer;
    int backoff = p->options->backoff_ms ? p->options->backoff_ms : BACKOFF_MS;
    trn_status status = open_part(p, err);
    if (status != TRN_OK) return status;
    if (d->offset && d->offset == d->remote.size) return TRN_OK; /* complete, but was not checked yet */
    for (int tried = 1;; tried++) {
        trn_error own = {0};
        download_outcome outcome = download_run(d, &own);
        if (outcome == DOWNLOAD_DONE) break;
        if (outcome == DOWNLOAD_FAILED) {
            if (own.code == TRN_ERR_CANCELLED) say_kept(p, &own);
            if (err) *err = own;
            return own.code;
        }
        if (outcome == DOWNLOAD_CHANGED)
            status = tried < TRIES
                         ? start_anew(p, &own)
                         : trn_fail(&own, TRN_ERR_IO, "'%.300s' changes all the time", p->options->url);
        else
            status = prepare_try(p, tried, &backoff, &own);
        if (status != TRN_OK) {
            if (err) *err = own;
            return status;
        }
    }
    p->result.transferred = d->received;
    trn_progress_report(p->options->progress, "downloading", d->offset, d->offset);
    return TRN_OK;
}

/* ---- taking a download in ---- */

static void drop_part(const pull *p)
{
    unlink(p->part_path);
    unlink(p->state_path);
}

static trn_status fail_digits(const pull *p, trn_error *err)
{
    const trn_pull_options *options = p->options;
    if (!p->wanted_recorded)
        return trn_fail(
            err, TRN_ERR_FORMAT,
            "'%.300s' is not the file known as '%s': its SHA-256 is %s, wanted %s%s. It was removed; "
            "a file of your own is given with --weights",
            options->url, options->name, p->result.sha256, p->wanted,
            strlen(p->wanted) < ALL_DIGITS ? "..." : "");
    return trn_fail(
        err, TRN_ERR_FORMAT,
        "'%.300s' has changed: its SHA-256 is %s, but the first download (%s) had %s. It was removed; "
        "if the change is right, remove '%s/" MANIFEST "' and pull again",
        options->url, p->result.sha256, p->known.stored.date, p->wanted, p->folder);
}

static trn_status verify(pull *p, trn_error *err)
{
    trn_status status =
        trn_sha256_file(p->part_path, p->options->progress, &p->result.bytes, p->result.sha256, err);
    if (status != TRN_OK) return status;
    if (!p->result.bytes)
        status = trn_fail(err, TRN_ERR_FORMAT, "'%.300s' is empty", p->options->url);
    else if (p->options->bytes && p->result.bytes != p->options->bytes)
        status = trn_fail(err, TRN_ERR_FORMAT,
                          "'%.300s' has %" PRIu64 " bytes; wanted %" PRIu64 ". It was removed",
                          p->options->url, p->result.bytes, p->options->bytes);
    else if (!has_digits(p->result.sha256, p->wanted))
        status = fail_digits(p, err);
    if (status != TRN_OK) drop_part(p);
    return status;
}

static void now_as_text(char out[32])
{
    time_t now = time(NULL);
    struct tm parts;
    if (!gmtime_r(&now, &parts) || !strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &parts)) out[0] = 0;
}

static trn_status sync_folder(const char *folder, trn_error *err)
{
    int fd = open(folder, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
    if (fd < 0) return trn_fail_errno(err, "open folder", folder);
    bool synced = fsync(fd) == 0 || errno == EINVAL; /* some file systems have nothing to do */
    trn_status status = synced ? TRN_OK : trn_fail_errno(err, "write", folder);
    close(fd);
    return status;
}

/* The manifest first: after a crash in between, the part is complete and the next pull takes it in. Other
 * data under the final name is gone before: the new digits must never stand beside it. */
static trn_status publish(pull *p, trn_error *err)
{
    bool same = p->known.file[0] && !strcmp(p->known.stored.sha256, p->result.sha256);
    bool stays = same && !strcmp(p->known.file, p->file);
    if (same)
        memcpy(p->result.date, p->known.stored.date, sizeof p->result.date);
    else
        now_as_text(p->result.date);
    p->result.url = strdup(p->options->url);
    p->result.path = strdup(p->final_path);
    if (!p->result.url || !p->result.path) return trn_fail_memory(err, strlen(p->final_path), "a path");
    if (trn_path_is_dir(p->final_path))
        return trn_fail(err, TRN_ERR_IO, "cannot write '%s': it is a folder", p->final_path);
    if (fsync(p->transfer.fd)) return trn_fail_errno(err, "write", p->part_path);
    if (!stays && unlink(p->final_path) && errno != ENOENT)
        return trn_fail_errno(err, "remove", p->final_path);
    trn_status status = stays ? TRN_OK : sync_folder(p->folder, err);
    if (status == TRN_OK) status = write_manifest(p->folder, p->options->name, p->file, &p->result, err);
    if (status == TRN_OK && rename(p->part_path, p->final_path))
        status = trn_fail_errno(err, "write", p->final_path);
    if (status == TRN_OK) status = sync_folder(p->folder, err);
    if (status != TRN_OK) return status;
    unlink(p->state_path);
    if (!p->known.file[0] || !strcmp(p->known.file, p->file)) return TRN_OK;
    char *old = trn_path_join(p->folder, p->known.file); /* the same model under another file name */
    if (old) unlink(old);
    free(old);
    return TRN_OK;
}

trn_status trn_store_pull(const trn_pull_options *options, trn_stored *out, trn_error *err)
{
    *out = (trn_stored){0};
    pull p = {.options = options, .lock = -1};
    p.transfer = (download){.options = options, .fd = -1, .begins = write_state, .user = &p};
    bool there = false;
    trn_status status = pull_begin(&p, err);
    p.transfer.path = p.part_path;
    if (status == TRN_OK) status = check_present(&p, &there, err);
    if (status == TRN_OK && !there) {
        if (!p.wanted[0] && !strncmp(options->url, "http:", 5))
            note(&p, TRN_LOG_WARN,
                 "'%.300s' is not encrypted, and the file's SHA-256 is not known: nobody vouches "
                 "for it",
                 options->url);
        status = fetch(&p, err);
        if (status == TRN_OK) status = verify(&p, err);
        if (status == TRN_OK) status = publish(&p, err);
    }
    if (status == TRN_OK) {
        *out = p.result;
        p.result = (trn_stored){0};
    }
    pull_end(&p);
    return status;
}
