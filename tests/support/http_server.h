/* A small HTTP server on 127.0.0.1 for tests: a thread that hands every request to the test's function. */
#ifndef HTTP_SERVER_H
#define HTTP_SERVER_H

#include "base.h"

typedef struct http_server http_server;
/* Answers one request; the connection is closed afterwards. serial counts requests from 0. Runs in the
 * server's thread, one request at a time. */
typedef void (*http_answer)(int connection, const char *request, size_t serial, void *user);

http_server *http_server_start(http_answer answer, void *user); /* ends the test program when it cannot */
void http_server_stop(http_server *server);
char *http_server_url(const http_server *server,
                      const char *path); /* malloc'd: "http://127.0.0.1:PORT" + path */
size_t http_server_count(http_server *server);
/* Request i with its headers, as it came; lives until the server stops. */
const char *http_server_request(http_server *server, size_t i);

/* ---- for answers; a client that is gone is no error ---- */

void http_send(int connection, const char *fmt, ...) TRN_PRINTF(2, 3);
void http_send_bytes(int connection, const void *bytes, size_t size);
void http_hang(int connection); /* until the client closes */

/* A file as servers give it: ranges, If-Range. */
typedef struct http_file {
    const char *data;
    size_t size;
    const char *etag, *modified; /* NULL: not sent */
    const char *headers;         /* more lines, each ended by \r\n; NULL: none */
    bool no_ranges, no_length;
    size_t cut; /* bytes of the body after which the connection ends; 0: none */
} http_file;
void http_send_file(int connection, const char *request, const http_file *file);

#endif
