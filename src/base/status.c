#include "status.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { STORY_BYTES = 4096, TRACE_BYTES = 4096 };

static _Thread_local char story[STORY_BYTES];
static _Thread_local char trace[TRACE_BYTES];
static _Thread_local size_t trace_len;

static const char *const texts[] = {
#define X(name, text) [PN_##name] = text,
    PN_STATUS_MAP(X)
#undef X
};

static void add_trace(const char *file, int line, const char *what) {
    const char *slash = strrchr(file, '/');
    int n = snprintf(trace + trace_len, sizeof trace - trace_len, "  at %s:%d: %.200s\n", slash ? slash + 1 : file,
                     line, what);
    if (n > 0 && trace_len + (size_t)n < sizeof trace)
        trace_len += (size_t)n;
    else
        trace[trace_len] = '\0'; /* a full trace keeps its deepest, most telling lines */
}

/* Messages quote names and texts of files, whose bytes must neither break the line nor command a terminal: control
 * characters, those of ISO 6429's second set (U+0080 to U+009F) included, become question marks. */
static void make_printable(char *text) {
    for (unsigned char *p = (unsigned char *)text; *p; p++) {
        bool second_set = p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f;
        if (second_set) p[0] = p[1] = '?';
        if (*p < ' ' || *p == 0x7f) *p = '?';
    }
}

pn_status pn_fail_at(const char *file, int line, pn_status s, const char *fmt, ...) {
    char fresh[STORY_BYTES]; /* the arguments may point into the old story */
    va_list args;
    va_start(args, fmt);
    vsnprintf(fresh, sizeof fresh, fmt, args);
    va_end(args);
    make_printable(fresh);
    memcpy(story, fresh, sizeof story);
    trace_len = 0;
    trace[0] = '\0';
    add_trace(file, line, pn_status_text(s));
    return s;
}

void pn_error_more(const char *text) {
    const size_t len = strlen(story);
    snprintf(story + len, sizeof story - len, "; %s", text);
    make_printable(story);
}

pn_status pn_trace_at(const char *file, int line, pn_status s, const char *expr) {
    add_trace(file, line, expr);
    return s;
}

void pn_bug_at(const char *file, int line, const char *expr) {
    fprintf(stderr, "postnas: internal error at %s:%d: %s\nThis is a bug in postnas, not in your input.\n", file, line,
            expr);
    abort();
}

const char *pn_status_text(pn_status s) {
    return (unsigned)s < PN_STATUS_COUNT ? texts[s] : "unknown status";
}

const char *pn_error_message(void) {
    return story;
}

void pn_error_print(FILE *out, int with_trace) {
    if (!*story) return;
    fprintf(out, "postnas: error: %s\n", story);
    if (with_trace) fputs(trace, out);
}

void pn_error_clear(void) {
    story[0] = '\0';
    trace[0] = '\0';
    trace_len = 0;
}

int pn_exit_code(pn_status s) {
    switch (s) {
    case PN_OK: return 0;
    case PN_MISMATCH: return 1;
    case PN_USAGE:
    case PN_IO:
    case PN_FORMAT:
    case PN_UNSUPPORTED: return 2;
    case PN_INTERRUPTED: return 75;
    default: return 3;
    }
}

const char pn_exit_codes_help[] =
    "0   done\n"
    "1   a check failed: what was measured is not what it should be\n"
    "2   the input: an option, the configuration, a file or a directory; the message names it and the remedy\n"
    "3   anything else: memory, a result that is not finite\n"
    "75  stopped by a signal; where the command resumes, the same command goes on\n";
