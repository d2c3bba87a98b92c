/* The terminal: errors, notes, the progress line, and Ctrl-C. */
#include "command.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
    bool quiet, json, terminal;
    trn_log_level level;  /* of notes that are shown */
    bool line_open;       /* a progress line stands on the terminal */
    uint64_t start, last; /* of the stage, of the last report; ns */
    char stage[32];
} console;

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    interrupted = 1;
    signal(number, SIG_DFL); /* the second one ends the program at once */
}

void console_start(bool quiet, bool json)
{
    console.terminal = isatty(STDERR_FILENO) == 1;
    console.level = trn_log_level_parse(getenv("TERRANE_LOG"), TRN_LOG_INFO);
    console_quiet(quiet, json);
    struct sigaction action = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGXFSZ, SIG_IGN); /* a full quota is an error of the write, not the end of the program */
}

void console_quiet(bool quiet, bool json)
{
    console.quiet = quiet;
    console.json = json;
}

bool console_is_quiet(void)
{
    return console.quiet;
}

void console_progress_end(void)
{
    if (console.line_open) fputs("\r\033[K", stderr);
    console.line_open = false;
}

void console_error(const trn_error *err)
{
    console_progress_end();
    fprintf(stderr, "terrane: error: %s\n", err->message[0] ? err->message : trn_status_name(err->code));
}

void console_note(trn_log_level level, const char *text)
{
    static const char *const prefixes[] = {"error: ", "warning: ", "", "debug: ", "trace: "};
    if (level > (console.quiet ? TRN_LOG_ERROR : console.level)) return;
    console_progress_end();
    if (console.json) {
        trn_text line = {0};
        static const char *const names[] = {"error", "warning", "info", "debug", "trace"};
        trn_text_printf(&line, "{\"note\": {\"level\": \"%s\", \"text\": ", names[level]);
        trn_text_json(&line, text);
        fprintf(stderr, "%s}}\n", trn_text_get(&line));
        trn_text_free(&line);
        return;
    }
    while (*text) { /* every line with its prefix */
        size_t length = strcspn(text, "\n");
        if (length) fprintf(stderr, "terrane: %s%.*s\n", prefixes[level], (int)length, text);
        text += length + (text[length] == '\n');
    }
}

static void job_note(void *user, trn_log_level level, const char *text)
{
    (void)user;
    console_note(level, text);
}

/* Files are counted in bytes, everything else in pieces. */
static const char *format_amount(double amount, char out[32])
{
    if (!strcmp(console.stage, "downloading") || !strcmp(console.stage, "checking"))
        return trn_format_bytes((uint64_t)amount, out);
    snprintf(out, 32, "%.3g", amount);
    return out;
}

/* "39.1/s  0:18 left" */
static void format_pace(uint64_t done, uint64_t total, double elapsed, char out[80])
{
    char rate[32], left[32] = "--:--";
    if (done) trn_format_seconds(elapsed * (double)(total - done) / (double)done, left);
    snprintf(out, 80, "%s/s  %s left", format_amount(elapsed > 0 ? (double)done / elapsed : 0, rate), left);
}

static void draw_bar(uint64_t done, uint64_t total, double elapsed)
{
    enum { WIDTH = 24 };
    char bar[WIDTH + 1], pace[80];
    double part = total ? (double)done / (double)total : 0;
    for (int i = 0; i < WIDTH; i++)
        bar[i] = i < (int)(part * WIDTH) ? '#' : '.';
    bar[WIDTH] = 0;
    format_pace(done, total, elapsed, pace);
    fprintf(stderr, "\r\033[K%s [%s] %3.0f%%  %s", console.stage, bar, part * 100, pace);
    fflush(stderr);
    console.line_open = done < total;
    if (!console.line_open) fputc('\n', stderr);
}

static void print_line(uint64_t done, uint64_t total, double elapsed)
{
    char pace[80];
    format_pace(done, total, elapsed, pace);
    if (console.json)
        fprintf(stderr,
                "{\"progress\": {\"stage\": \"%s\", \"done\": %llu, \"total\": %llu, \"seconds\": %.3f}}\n",
                console.stage, (unsigned long long)done, (unsigned long long)total, elapsed);
    else
        fprintf(stderr, "terrane: %s %llu of %llu, %.1f s, %s\n", console.stage, (unsigned long long)done,
                (unsigned long long)total, elapsed, pace);
}

/* A bar redraws often; lines in a file come every ten seconds, those for machines twice a second. The end of
 * a stage shows, but in a file not of one that was over at once, as the epochs of a small training are. */
static void report(void *user, const char *stage, uint64_t done, uint64_t total)
{
    (void)user;
    if (console.quiet) return;
    uint64_t now = trn_now_ns();
    if (strcmp(stage, console.stage) != 0 || !done) {
        snprintf(console.stage, sizeof console.stage, "%s", stage);
        console.start = console.last = now;
        if (!console.terminal && !console.json) return;
    }
    double since = (double)(now - console.last) * 1e-9, elapsed = (double)(now - console.start) * 1e-9;
    bool bar = console.terminal && !console.json;
    double pause = bar ? 0.1 : console.json ? 0.5 : 10;
    if (done && done < total && since < pause) return;
    if (!bar && !console.json && done == total && elapsed < 1) return;
    console.last = now;
    if (bar)
        draw_bar(done, total, elapsed);
    else
        print_line(done, total, elapsed);
}

static bool cancelled(void *user)
{
    (void)user;
    return interrupted != 0;
}

const trn_job_hooks *console_hooks(void)
{
    static const trn_job_hooks hooks = {
        .progress = {.report = report, .cancelled = cancelled},
        .note = job_note,
    };
    return &hooks;
}

trn_status console_print(const trn_text *text, trn_error *err)
{
    if (text->failed) return trn_fail_memory(err, text->length, "the output text");
    console_progress_end();
    errno = 0;
    bool written = fwrite(trn_text_get(text), 1, text->length, stdout) == text->length;
    if (written && fflush(stdout) == 0) return TRN_OK;
    return trn_fail_errno(err, "write to", "standard output");
}
