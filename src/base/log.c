#include "log.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all below, and of standard error */
static FILE *records;
static bool quiet, status_shown;

/* ---- the two outputs; the lock is held ---- */

static void clear_status(void) {
    if (status_shown) fputs("\r\033[K", stderr);
    status_shown = false;
}

static void close_records(void) {
    if (records) fclose(records);
    records = NULL;
}

static void write_record(const pn_buf *line) {
    if (!records || line->failed) return;
    fwrite(line->data, 1, line->n_bytes, records);
    if (fflush(records) == 0) return;
    clear_status();
    fprintf(stderr, "warning: the log cannot be written: %s; going on without it\n", strerror(errno));
    close_records();
}

/* ---- opening ---- */

/* Removes a last line without its end: what a process that died was writing. */
static void cut_unfinished(FILE *f) {
    struct stat st;
    if (fstat(fileno(f), &st) || !S_ISREG(st.st_mode)) return;
    off_t whole = st.st_size;
    char c = '\0';
    while (whole > 0 && pread(fileno(f), &c, 1, whole - 1) == 1 && c != '\n') whole--;
    if (whole < st.st_size && ftruncate(fileno(f), whole)) fputc('\n', f);
}

pn_status pn_log_open(const char *path) {
    FILE *f = NULL;
    if (path) {
        f = fopen(path, "a+e");
        PN_CHECK(f, PN_IO, "%s: cannot open the log: %s", path, strerror(errno));
        cut_unfinished(f);
    }
    pthread_mutex_lock(&lock);
    close_records();
    records = f;
    pthread_mutex_unlock(&lock);
    return PN_OK;
}

void pn_log_close(void) {
    pthread_mutex_lock(&lock);
    close_records();
    clear_status();
    fflush(stderr);
    pthread_mutex_unlock(&lock);
}

void pn_log_quiet(bool q) {
    pthread_mutex_lock(&lock);
    quiet = q;
    pthread_mutex_unlock(&lock);
}

bool pn_log_on_terminal(void) {
    const char *kind = getenv("TERM");
    return isatty(STDERR_FILENO) && !(kind && !strcmp(kind, "dumb"));
}

/* Bytes of the first `most` characters. */
static int cut(const char *text, int most) {
    int n = 0;
    for (int characters = 0; text[n]; n++)
        if (((unsigned char)text[n] & 0xc0) != 0x80 && characters++ == most) break;
    return n;
}

void pn_log_status_line(const char *text) {
    if (!pn_log_on_terminal()) return;
    struct winsize size = { .ws_col = 0 };
    int width = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1 : 79;
    pthread_mutex_lock(&lock);
    if (!text)
        clear_status();
    else if (!quiet) {
        fprintf(stderr, "\r%.*s\033[K", cut(text, width), text);
        status_shown = true;
    }
    fflush(stderr);
    pthread_mutex_unlock(&lock);
}

bool pn_debugging(const char *room) {
    const char *rooms = getenv("PN_LOG");
    if (!rooms) return false;
    if (!strcmp(rooms, "debug")) return true;
    size_t n = strlen(room);
    for (const char *p = rooms; (p = strstr(p, room)); p += n)
        if ((p == rooms || p[-1] == ',') && (p[n] == ',' || !p[n])) return true;
    return false;
}

/* ---- records ---- */

static void field(pn_event *e, const char *key) {
    pn_buf_text(&e->text, e->text.n_bytes ? ", " : "{");
    pn_buf_json_string(&e->text, key);
    pn_buf_text(&e->text, ": ");
}

pn_event pn_event_begin(const char *kind) {
    pn_event e = { { 0 } };
    char now[32];
    pn_event_str(&e, "time", pn_utc_text(now, sizeof now));
    pn_event_str(&e, "event", kind);
    return e;
}

void pn_event_f64(pn_event *e, const char *key, double value) {
    field(e, key);
    if (isfinite(value))
        pn_buf_printf(&e->text, "%.9g", value);
    else
        pn_buf_text(&e->text, "null");
}

void pn_event_i64(pn_event *e, const char *key, int64_t value) {
    field(e, key);
    pn_buf_printf(&e->text, "%lld", (long long)value);
}

void pn_event_str(pn_event *e, const char *key, const char *value) {
    field(e, key);
    pn_buf_json_string(&e->text, value);
}

void pn_event_end(pn_event *e) {
    pn_buf_text(&e->text, "}\n");
    pthread_mutex_lock(&lock);
    write_record(&e->text);
    pthread_mutex_unlock(&lock);
    pn_buf_free(&e->text);
}

/* ---- messages ---- */

static void message(const char *level, const char *prefix, const char *fmt, va_list args) {
    pn_buf text = { 0 };
    pn_buf_vprintf(&text, fmt, args);
    pthread_mutex_lock(&lock);
    if (!quiet || strcmp(level, "info")) {
        clear_status();
        fprintf(stderr, "%s%s\n", prefix, pn_buf_string(&text));
    }
    pthread_mutex_unlock(&lock);
    pn_event e = pn_event_begin("message");
    pn_event_str(&e, "level", level);
    pn_event_str(&e, "text", pn_buf_string(&text));
    pn_event_end(&e);
    pn_buf_free(&text);
}

void pn_info(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    message("info", "", fmt, args);
    va_end(args);
}

void pn_warn(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    message("warning", "warning: ", fmt, args);
    va_end(args);
}

void pn_debug(const char *room, const char *fmt, ...) {
    if (!pn_debugging(room)) return;
    va_list args;
    va_start(args, fmt);
    message("debug", "", fmt, args);
    va_end(args);
}
