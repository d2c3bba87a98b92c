/* A small HTTP server on 127.0.0.1 for tests. */
#include "http_server.h"
#include "test_support.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_REQUESTS = 64, MAX_REQUEST = 8192 };

struct http_server {
    int listener, port;
    pthread_t thread;
    pthread_mutex_t mutex;
    http_answer answer;
    void *user;
    bool stopping;
    size_t count;
    char *requests[MAX_REQUESTS];
};

/* Reads up to the blank line; false when the client goes away before. */
static bool read_request(int connection, char request[MAX_REQUEST])
{
    size_t length = 0;
    for (;;) {
        ssize_t got = recv(connection, request + length, MAX_REQUEST - 1 - length, 0);
        if (got <= 0) return false;
        length += (size_t)got;
        request[length] = 0;
        if (strstr(request, "\r\n\r\n")) return true;
        if (length == MAX_REQUEST - 1) return false;
    }
}

static void serve(http_server *server, int connection)
{
    char request[MAX_REQUEST];
    if (!read_request(connection, request)) return;
    pthread_mutex_lock(&server->mutex);
    size_t serial = server->count;
    bool room = serial < MAX_REQUESTS;
    if (room) server->requests[server->count++] = strdup(request);
    pthread_mutex_unlock(&server->mutex);
    if (room) server->answer(connection, request, serial, server->user);
}

static void *run(void *user)
{
    http_server *server = user;
    for (;;) {
        int connection = accept(server->listener, NULL, NULL);
        pthread_mutex_lock(&server->mutex);
        bool stopping = server->stopping;
        pthread_mutex_unlock(&server->mutex);
        if (connection >= 0 && !stopping) serve(server, connection);
        if (connection >= 0) {
            shutdown(connection, SHUT_WR); /* what was sent arrives before the end */
            close(connection);
        }
        if (stopping) return NULL;
    }
}

http_server *http_server_start(http_answer answer, void *user)
{
    http_server *server = calloc(1, sizeof *server);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    if (!server) abort();
    server->answer = answer;
    server->user = user;
    server->listener = socket(AF_INET, SOCK_STREAM, 0);
    if (server->listener < 0 || bind(server->listener, (struct sockaddr *)&address, size) ||
        listen(server->listener, 16) || getsockname(server->listener, (struct sockaddr *)&address, &size)) {
        perror("http_server");
        abort();
    }
    server->port = ntohs(address.sin_port);
    pthread_mutex_init(&server->mutex, NULL);
    if (pthread_create(&server->thread, NULL, run, server)) abort();
    return server;
}

void http_server_stop(http_server *server)
{
    pthread_mutex_lock(&server->mutex);
    server->stopping = true;
    pthread_mutex_unlock(&server->mutex);
    shutdown(server->listener, SHUT_RDWR); /* accept returns */
    pthread_join(server->thread, NULL);
    close(server->listener);
    pthread_mutex_destroy(&server->mutex);
    for (size_t i = 0; i < server->count; i++)
        free(server->requests[i]);
    free(server);
}

char *http_server_url(const http_server *server, const char *path)
{
    trn_text url = {0};
    trn_text_printf(&url, "http://127.0.0.1:%d%s", server->port, path);
    return url.data;
}

size_t http_server_count(http_server *server)
{
    pthread_mutex_lock(&server->mutex);
    size_t count = server->count;
    pthread_mutex_unlock(&server->mutex);
    return count;
}

const char *http_server_request(http_server *server, size_t i)
{
    pthread_mutex_lock(&server->mutex);
    const char *request = i < server->count ? server->requests[i] : "";
    pthread_mutex_unlock(&server->mutex);
    return request;
}

void http_send_bytes(int connection, const void *bytes, size_t size)
{
    const char *at = bytes;
    while (size) {
        ssize_t sent = send(connection, at, size, MSG_NOSIGNAL);
        if (sent <= 0) return;
        at += sent;
        size -= (size_t)sent;
    }
}

void http_send(int connection, const char *fmt, ...)
{
    char text[2048];
    va_list args;
    va_start(args, fmt);
    int length = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (length > 0) http_send_bytes(connection, text, TRN_MIN((size_t)length, sizeof text - 1));
}

void http_hang(int connection)
{
    char byte;
    while (recv(connection, &byte, 1, 0) > 0)
        continue;
}

/* The value of a request's header, or NULL. */
static const char *find_header(const char *request, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = strstr(request, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (!strncasecmp(line, name, length) && line[length] == ':') return line + length + 2;
    }
    return NULL;
}

static bool is_value(const char *value, const char *wanted)
{
    return wanted && !strncmp(value, wanted, strlen(wanted)) && value[strlen(wanted)] == '\r';
}

void http_send_file(int connection, const char *request, const http_file *file)
{
    const char *range = find_header(request, "Range"), *condition = find_header(request, "If-Range");
    size_t start = range ? strtoul(range + strlen("bytes="), NULL, 10) : 0;
    bool same = !condition || is_value(condition, file->etag) || is_value(condition, file->modified);
    if (file->no_ranges || !same) start = 0;
    if (start && start >= file->size) {
        http_send(connection, "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    size_t size = file->size - start;
    http_send(connection, "HTTP/1.1 %s\r\n", start ? "206 Partial Content" : "200 OK");
    if (start)
        http_send(connection, "Content-Range: bytes %zu-%zu/%zu\r\n", start, file->size - 1, file->size);
    if (!file->no_length) http_send(connection, "Content-Length: %zu\r\n", size);
    if (file->etag) http_send(connection, "ETag: %s\r\n", file->etag);
    if (file->modified) http_send(connection, "Last-Modified: %s\r\n", file->modified);
    http_send(connection, "%sConnection: close\r\n\r\n", file->headers ? file->headers : "");
    http_send_bytes(connection, file->data + start, file->cut ? TRN_MIN(size, file->cut) : size);
}
