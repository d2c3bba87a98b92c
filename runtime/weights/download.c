/* One transfer over HTTP: redirects, ranges, limits, and what an answer must look like to be believed. */
#include "download.h"

#include <curl/curl.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    MAX_REDIRECTS = 8,
    CONNECT_SECONDS = 30,
    STALL_SECONDS = 60,
    STALL_BYTES = 64, /* a second: fewer for so long count as none */
    MAX_HEADER_BYTES = 256 * 1024,
    MAX_IGNORED_BYTES = 1024 * 1024, /* of the page that comes with a redirect or an error */
};
static const uint64_t max_file_bytes = (uint64_t)1 << 38;

/* An answer while it arrives. */
typedef struct answer {
    download *d;
    trn_error *err;
    trn_status status; /* of what a callback found; TRN_OK: nothing is wrong */
    download_outcome outcome;
    long code;
    uint64_t length, range_start, range_total; /* Content-Length, Content-Range */
    bool has_length, has_range, taken;         /* taken: the body belongs to the file */
    char etag[256], modified[64], type[64], encoding[32];
    size_t header_bytes, ignored;
} answer;

/* ---- addresses ---- */

static bool has_scheme(const char *url, const char *scheme)
{
    return !strncasecmp(url, scheme, strlen(scheme));
}

trn_status trn_store_check_url(const char *url, const char *from, trn_error *err)
{
    bool secure = has_scheme(url, "https://");
    if (!secure && !has_scheme(url, "http://"))
        return trn_fail(err, TRN_ERR_ARGUMENT, "'%.300s' is no address that starts with https:// or http://",
                        url);
    if (from && has_scheme(from, "https://") && !secure)
        return trn_fail(err, TRN_ERR_IO,
                        "'%.300s' redirects from https to '%.300s', which is not encrypted: refused", from,
                        url);
    for (const char *s = url; *s; s++)
        if ((unsigned char)*s <= ' ' || *s == 127)
            return trn_fail(err, TRN_ERR_ARGUMENT, "'%.300s' holds a blank or a control character", url);
    const char *host = strstr(url, "://") + 3;
    size_t length = strcspn(host, "/?#");
    if (!length) return trn_fail(err, TRN_ERR_ARGUMENT, "'%.300s' names no server", url);
    if (memchr(host, '@', length))
        return trn_fail(err, TRN_ERR_ARGUMENT,
                        "the address holds a user's name or password, which would be kept in the store: "
                        "refused");
    return TRN_OK;
}

/* ---- headers ---- */

static void answer_reset(answer *a)
{
    *a = (answer){.d = a->d, .err = a->err, .header_bytes = a->header_bytes, .ignored = a->ignored};
}

/* The value of a header line when it is `name`'s; *length without blanks around it. */
static const char *header_value(const char *line, size_t size, const char *name, size_t *length)
{
    size_t at = strlen(name);
    if (size <= at || line[at] != ':' || strncasecmp(line, name, at) != 0) return NULL;
    for (at++; at < size && (line[at] == ' ' || line[at] == '\t');)
        at++;
    while (size > at && strchr(" \t\r\n", line[size - 1]))
        size--;
    *length = size - at;
    return line + at;
}

/* What is too long to be kept is as good as not given. */
static void keep_text(const char *value, size_t length, char *out, size_t capacity)
{
    out[0] = 0;
    if (length >= capacity || memchr(value, 0, length)) return;
    memcpy(out, value, length);
    out[length] = 0;
}

static bool parse_digits(const char **at, uint64_t *out)
{
    const char *s = *at;
    *out = 0;
    for (; *s >= '0' && *s <= '9'; s++) {
        uint64_t digit = (uint64_t)(*s - '0');
        if (*out > (UINT64_MAX - digit) / 10) return false;
        *out = *out * 10 + digit;
    }
    bool some = s != *at;
    *at = s;
    return some;
}

/* "bytes 100-199/200" */
static bool parse_range(const char *text, uint64_t *start, uint64_t *total)
{
    uint64_t last;
    if (strncasecmp(text, "bytes ", 6) != 0) return false;
    text += 6;
    if (!parse_digits(&text, start) || *text++ != '-' || !parse_digits(&text, &last) || *text++ != '/')
        return false;
    return parse_digits(&text, total) && !*text && *start <= last && last < *total;
}

static void read_header(answer *a, const char *line, size_t size)
{
    char text[128] = "";
    size_t length;
    const char *value;
    if ((value = header_value(line, size, "ETag", &length))) {
        keep_text(value, length, a->etag, sizeof a->etag);
    } else if ((value = header_value(line, size, "Last-Modified", &length))) {
        keep_text(value, length, a->modified, sizeof a->modified);
    } else if ((value = header_value(line, size, "Content-Type", &length))) {
        keep_text(value, length, a->type, sizeof a->type);
    } else if ((value = header_value(line, size, "Content-Encoding", &length))) {
        keep_text(value, length, a->encoding, sizeof a->encoding);
    } else if ((value = header_value(line, size, "Content-Length", &length))) {
        keep_text(value, length, text, sizeof text);
        const char *at = text;
        a->has_length = parse_digits(&at, &a->length) && !*at;
    } else if ((value = header_value(line, size, "Content-Range", &length))) {
        keep_text(value, length, text, sizeof text);
        a->has_range = parse_range(text, &a->range_start, &a->range_total);
    }
}

/* ---- judging an answer, before its body ---- */

static trn_status check_size(const answer *a, uint64_t size)
{
    const trn_pull_options *options = a->d->options;
    char wanted[32], free_text[32];
    if (options->bytes && size != options->bytes)
        return trn_fail(a->err, TRN_ERR_FORMAT,
                        "'%.300s' has %" PRIu64 " bytes; wanted %" PRIu64
                        ": it is another file than the one known as '%s'",
                        options->url, size, options->bytes, options->name);
    if (size > max_file_bytes)
        return trn_fail(a->err, TRN_ERR_UNSUPPORTED, "'%.300s' says it has %s: too large for weights",
                        options->url, trn_format_bytes(size, wanted));
    struct statvfs disk;
    uint64_t left = size - TRN_MIN(size, a->d->offset);
    if (fstatvfs(a->d->fd, &disk)) return TRN_OK; /* then writing will tell */
    uint64_t available = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (left <= available) return TRN_OK;
    return trn_fail(a->err, TRN_ERR_IO,
                    "%s are missing of '%s', but only %s are free in its folder: make room, or set "
                    "TERRANE_MODELS to another folder",
                    trn_format_bytes(left, wanted), a->d->path, trn_format_bytes(available, free_text));
}

static trn_status take_whole(answer *a)
{
    download *d = a->d;
    if (d->offset && (ftruncate(d->fd, 0) || lseek(d->fd, 0, SEEK_SET)))
        return trn_fail_errno(a->err, "write", d->path);
    d->offset = 0;
    d->remote = (remote_file){.size = a->has_length ? a->length : 0};
    memcpy(d->remote.etag, a->etag, sizeof a->etag);
    memcpy(d->remote.modified, a->modified, sizeof a->modified);
    trn_status status = a->has_length ? check_size(a, a->length) : TRN_OK;
    if (status == TRN_OK) status = d->begins(d->user, a->err);
    a->taken = status == TRN_OK;
    return status;
}

static bool same_file(const answer *a)
{
    const remote_file *remote = &a->d->remote;
    if (a->etag[0] && remote->etag[0]) return !strcmp(a->etag, remote->etag);
    if (a->modified[0] && remote->modified[0]) return !strcmp(a->modified, remote->modified);
    return true;
}

static trn_status take_rest(answer *a)
{
    download *d = a->d;
    bool fits = d->offset && a->has_range && a->range_start == d->offset && same_file(a) &&
                (!d->remote.size || d->remote.size == a->range_total);
    if (!fits) {
        a->outcome = DOWNLOAD_CHANGED;
        return TRN_OK;
    }
    d->remote.size = a->range_total;
    trn_status status = check_size(a, a->range_total);
    a->taken = status == TRN_OK;
    return status;
}

/* Errors that pass by themselves, as far as one can know. */
static bool is_passing(long code)
{
    return code == 408 || code == 425 || code == 429 || code == 500 || code == 502 || code == 503 ||
           code == 504;
}

static trn_status fail_code(const answer *a)
{
    const char *url = a->d->options->url, *hint = "";
    if (a->code == 401 || a->code == 403)
        hint =
            ": the server gives it to known users only, or not at all; fetch it by other means and name it "
            "with --weights";
    else if (a->code == 404 || a->code == 410)
        hint = ": the file is not there; is the address right?";
    return trn_fail(a->err, TRN_ERR_IO, "'%.300s': the server answers with status %ld%s", url, a->code, hint);
}

static trn_status judge(answer *a)
{
    const char *url = a->d->options->url;
    if (a->code == 416 && a->d->offset) {
        a->outcome = DOWNLOAD_CHANGED;
        return TRN_OK;
    }
    if (a->code >= 300 && a->code < 400 && a->code != 304) return TRN_OK; /* download_run goes on */
    if (a->code != 200 && a->code != 206) {
        if (is_passing(a->code)) a->outcome = DOWNLOAD_AGAIN;
        return fail_code(a);
    }
    if (has_scheme(a->type, "text/html"))
        return trn_fail(a->err, TRN_ERR_FORMAT,
                        "'%.300s' is a web page, not a file of weights: give the address of the file with "
                        "--url",
                        url);
    if (a->encoding[0] && strcasecmp(a->encoding, "identity") != 0)
        return trn_fail(a->err, TRN_ERR_UNSUPPORTED, "'%.300s' comes compressed as '%s', unasked", url,
                        a->encoding);
    return a->code == 200 ? take_whole(a) : take_rest(a);
}

static size_t on_header(char *line, size_t unit, size_t count, void *user)
{
    answer *a = user;
    size_t size = unit * count;
    a->header_bytes += size;
    if (a->header_bytes > MAX_HEADER_BYTES) {
        a->status = trn_fail(a->err, TRN_ERR_FORMAT, "'%.300s': the server's headers are absurdly long",
                             a->d->options->url);
        return 0;
    }
    if (a->taken) return size; /* trailers */
    if (size > 5 && !strncasecmp(line, "HTTP/", 5)) {
        answer_reset(a);
        const char *space = memchr(line, ' ', size);
        for (const char *s = space ? space + 1 : line + size; s < line + size && *s >= '0' && *s <= '9'; s++)
            a->code = TRN_MIN(a->code * 10 + (*s - '0'), 10000);
        return size;
    }
    bool last = size == strspn(line, "\r\n") || line[0] == '\r' || line[0] == '\n';
    if (!last) {
        read_header(a, line, size);
        return size;
    }
    if (a->code >= 100 && a->code < 200) return size; /* the answer proper follows */
    a->status = judge(a);
    return a->status == TRN_OK && a->outcome == DOWNLOAD_DONE ? size : 0;
}

/* ---- the body ---- */

static trn_status write_part(download *d, const char *data, size_t size, trn_error *err)
{
    while (size) {
        ssize_t written = write(d->fd, data, size);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            bool full = errno == ENOSPC || errno == EFBIG || errno == EDQUOT;
            trn_fail_errno(err, "write", d->path);
            return full
                       ? trn_wrap(err, "the disk is full: make room and pull again, which goes on from here, "
                                       "or set TERRANE_MODELS to another folder")
                       : TRN_ERR_IO;
        }
        data += written;
        size -= (size_t)written;
        d->offset += (uint64_t)written;
        d->received += (uint64_t)written;
    }
    return TRN_OK;
}

static size_t on_body(char *data, size_t unit, size_t count, void *user)
{
    answer *a = user;
    size_t size = unit * count;
    if (!a->taken) {
        a->ignored += size;
        return a->ignored > MAX_IGNORED_BYTES ? 0 : size;
    }
    uint64_t most = a->d->remote.size ? a->d->remote.size : a->d->options->bytes;
    if (!most) most = max_file_bytes;
    if (size > most - TRN_MIN(most, a->d->offset)) {
        a->status = trn_fail(a->err, TRN_ERR_FORMAT,
                             "'%.300s': the server sends more than the %" PRIu64 " bytes it may",
                             a->d->options->url, most);
        return 0;
    }
    a->status = write_part(a->d, data, size, a->err);
    return a->status == TRN_OK ? size : 0;
}

static int on_progress(void *user, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up_now)
{
    (void)total, (void)now, (void)up_total, (void)up_now;
    const answer *a = user;
    const trn_progress *progress = a->d->options->progress;
    if (trn_progress_cancelled(progress)) return 1;
    if (a->taken && a->d->offset)
        trn_progress_report(progress, "downloading", a->d->offset,
                            TRN_MAX(a->d->remote.size, a->d->offset + 1));
    return 0;
}

/* ---- the transfer ---- */

static void start_library(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

static void set_protocols(CURL *curl)
{
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
}

static void set_options(CURL *curl, const trn_pull_options *options, answer *a, char *message)
{
    const char *authorities = getenv("CURL_CA_BUNDLE");
    if (!authorities || !*authorities) authorities = getenv("SSL_CERT_FILE");
    if (authorities && *authorities) curl_easy_setopt(curl, CURLOPT_CAINFO, authorities);
    set_protocols(curl);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L); /* done here, so that every address is checked */
    curl_easy_setopt(curl, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "terrane/" TRN_VERSION);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, message);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT,
                     (long)(options->connect_seconds ? options->connect_seconds : CONNECT_SECONDS));
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, (long)STALL_BYTES);
    curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME,
                     (long)(options->stall_seconds ? options->stall_seconds : STALL_SECONDS));
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, a);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, a);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, a);
}

static bool add_line(struct curl_slist **lines, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*lines, line);
    if (longer) *lines = longer;
    return longer != NULL;
}

/* The rest alone is asked for, and the whole if the file is no longer the one that was begun. */
static bool request_lines(const download *d, struct curl_slist **lines)
{
    char line[320];
    if (!add_line(lines, "Accept-Encoding: identity")) return false;
    if (!d->offset) return true;
    snprintf(line, sizeof line, "Range: bytes=%" PRIu64 "-", d->offset);
    if (!add_line(lines, line)) return false;
    bool strong = d->remote.etag[0] == '"';
    if (!strong && !d->remote.modified[0]) return true;
    snprintf(line, sizeof line, "If-Range: %s", strong ? d->remote.etag : d->remote.modified);
    return add_line(lines, line);
}

/* What a failure of the library means: whether another try may help, and what to do. */
static download_outcome judge_failure(CURLcode code, const char *message, const answer *a)
{
    const char *url = a->d->options->url, *why = message[0] ? message : curl_easy_strerror(code);
    const char *hint = "";
    download_outcome outcome = DOWNLOAD_FAILED;
    switch (code) {
    case CURLE_ABORTED_BY_CALLBACK:
        trn_fail_cancelled(a->err, "the download");
        return DOWNLOAD_FAILED;
    case CURLE_PARTIAL_FILE:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        outcome = DOWNLOAD_AGAIN;
        break;
    case CURLE_OPERATION_TIMEDOUT:
        outcome = DOWNLOAD_AGAIN;
        hint = "; the server is too slow or does not answer";
        break;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
        outcome = a->d->received ? DOWNLOAD_AGAIN : DOWNLOAD_FAILED;
        hint = "; is this machine online, and the address right?";
        break;
    case CURLE_OUT_OF_MEMORY:
        trn_fail_memory(a->err, 0, "a download");
        return DOWNLOAD_FAILED;
    default:
        break;
    }
    trn_fail(a->err, TRN_ERR_IO, "'%.300s': %s%s", url, why, hint);
    return outcome;
}

/* A body that ends is the whole only if its length was announced and is reached, or was never known. */
static download_outcome judge_end(const answer *a)
{
    const download *d = a->d;
    if (!a->taken) {
        trn_fail(a->err, TRN_ERR_FORMAT, "'%.300s': the server does not answer as HTTP servers do",
                 d->options->url);
        return DOWNLOAD_FAILED;
    }
    if (d->remote.size && d->offset < d->remote.size) {
        trn_fail(a->err, TRN_ERR_IO, "'%.300s' was cut off after %" PRIu64 " of %" PRIu64 " bytes",
                 d->options->url, d->offset, d->remote.size);
        return DOWNLOAD_AGAIN;
    }
    if (!d->remote.size && d->options->bytes && d->offset != d->options->bytes) {
        trn_fail(a->err, TRN_ERR_FORMAT, "'%.300s' has %" PRIu64 " bytes; wanted %" PRIu64, d->options->url,
                 d->offset, d->options->bytes);
        return DOWNLOAD_FAILED;
    }
    return DOWNLOAD_DONE;
}

/* One request; *next is where it is redirected to, to be freed by the caller, or NULL. */
static download_outcome request(CURL *curl, const char *url, answer *a, char *message, char **next)
{
    message[0] = 0;
    a->header_bytes = a->ignored = 0;
    answer_reset(a);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    CURLcode code = curl_easy_perform(curl);
    if (a->outcome != DOWNLOAD_DONE) return a->outcome;
    if (a->status != TRN_OK) return DOWNLOAD_FAILED;
    bool redirects = a->code >= 300 && a->code < 400;
    if (code != CURLE_OK && !(redirects && code == CURLE_WRITE_ERROR)) return judge_failure(code, message, a);
    if (!redirects) return judge_end(a);
    char *place = NULL;
    curl_easy_getinfo(curl, CURLINFO_REDIRECT_URL, &place);
    if (!place) {
        trn_fail(a->err, TRN_ERR_IO, "'%.300s' is redirected (status %ld), but not said where to", url,
                 a->code);
        return DOWNLOAD_FAILED;
    }
    if (trn_store_check_url(place, url, a->err) != TRN_OK) return DOWNLOAD_FAILED;
    *next = strdup(place);
    if (!*next) trn_fail_memory(a->err, strlen(place), "an address");
    return *next ? DOWNLOAD_DONE : DOWNLOAD_FAILED;
}

static download_outcome follow(CURL *curl, answer *a, char *message)
{
    char *url = strdup(a->d->options->url), *next = NULL;
    download_outcome outcome = url ? DOWNLOAD_DONE : DOWNLOAD_FAILED;
    if (!url) trn_fail_memory(a->err, 0, "an address");
    for (int hops = 0; outcome == DOWNLOAD_DONE; hops++) {
        outcome = request(curl, url, a, message, &next);
        if (!next) break;
        free(url);
        url = next;
        next = NULL;
        if (hops == MAX_REDIRECTS) {
            trn_fail(a->err, TRN_ERR_IO, "'%.300s' is redirected more than %d times, last to '%.300s'",
                     a->d->options->url, MAX_REDIRECTS, url);
            outcome = DOWNLOAD_FAILED;
        }
    }
    free(url);
    return outcome;
}

download_outcome download_run(download *d, trn_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start_library);
    char message[CURL_ERROR_SIZE] = "";
    answer a = {.d = d, .err = err};
    struct curl_slist *lines = NULL;
    download_outcome outcome = DOWNLOAD_FAILED;
    CURL *curl = curl_easy_init();
    if (!curl || !request_lines(d, &lines)) {
        trn_fail_memory(err, 0, "a download");
    } else {
        set_options(curl, d->options, &a, message);
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, lines);
        outcome = follow(curl, &a, message);
    }
    curl_slist_free_all(lines);
    curl_easy_cleanup(curl);
    return outcome;
}
