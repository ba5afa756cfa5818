#include "log.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static FILE *records;
static bool quiet;

pn_status pn_log_open(const char *path) {
    pn_log_close();
    if (!path) return PN_OK;
    FILE *f = fopen(path, "ae");
    PN_CHECK(f, PN_IO, "%s: cannot open the log: %s", path, strerror(errno));
    records = f;
    return PN_OK;
}

void pn_log_close(void) {
    if (records) fclose(records);
    records = NULL;
}

void pn_log_quiet(bool q) {
    quiet = q;
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

pn_event pn_event_begin(const char *kind) {
    pn_event e = { .len = 0 };
    char now[32];
    e.len = (size_t)snprintf(e.text, sizeof e.text, "{\"time\": \"%s\", \"event\": \"%s\"",
                             pn_utc_text(now, sizeof now), kind);
    return e;
}

/* A field that does not fit is left out whole: a record stays valid JSON. */
static void field(pn_event *e, const char *text) {
    size_t n = strlen(text);
    if (e->len + n + 3 > sizeof e->text) return;
    memcpy(e->text + e->len, text, n + 1);
    e->len += n;
}

void pn_event_f64(pn_event *e, const char *key, double value) {
    char text[128];
    if (isfinite(value))
        snprintf(text, sizeof text, ", \"%s\": %.9g", key, value);
    else
        snprintf(text, sizeof text, ", \"%s\": null", key);
    field(e, text);
}

void pn_event_i64(pn_event *e, const char *key, int64_t value) {
    char text[128];
    snprintf(text, sizeof text, ", \"%s\": %lld", key, (long long)value);
    field(e, text);
}

void pn_event_str(pn_event *e, const char *key, const char *value) {
    char text[1024];
    size_t n = (size_t)snprintf(text, sizeof text, ", \"%s\": \"", key);
    for (; *value && n + 8 < sizeof text; value++) {
        unsigned char c = (unsigned char)*value;
        if (c == '"' || c == '\\')
            text[n++] = '\\', text[n++] = (char)c;
        else if (c < 0x20)
            n += (size_t)snprintf(text + n, 8, "\\u%04x", c);
        else
            text[n++] = (char)c;
    }
    text[n++] = '"';
    text[n] = '\0';
    field(e, text);
}

void pn_event_end(pn_event *e) {
    field(e, "}\n");
    pthread_mutex_lock(&lock);
    if (records) {
        fwrite(e->text, 1, e->len, records);
        fflush(records);
    }
    pthread_mutex_unlock(&lock);
}

static void message(const char *level, bool show, const char *fmt, va_list args) {
    char text[1024];
    vsnprintf(text, sizeof text, fmt, args);
    pthread_mutex_lock(&lock);
    if (show) fprintf(stderr, "%s%s\n", !strcmp(level, "warning") ? "warning: " : "", text);
    pthread_mutex_unlock(&lock);
    pn_event e = pn_event_begin("message");
    pn_event_str(&e, "level", level);
    pn_event_str(&e, "text", text);
    pn_event_end(&e);
}

void pn_info(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    message("info", !quiet, fmt, args);
    va_end(args);
}

void pn_warn(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    message("warning", true, fmt, args);
    va_end(args);
}

void pn_debug(const char *room, const char *fmt, ...) {
    if (!pn_debugging(room)) return;
    va_list args;
    va_start(args, fmt);
    message("debug", true, fmt, args);
    va_end(args);
}
