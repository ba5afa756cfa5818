#include "progress.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"

static const double terminal_interval = 0.2, log_interval = 10;

/* "12.3k", "4.56M": three significant digits. */
static void compact(double x, char *out, size_t n) {
    const char *unit = "";
    if (x >= 1e9)
        x /= 1e9, unit = "G";
    else if (x >= 1e6)
        x /= 1e6, unit = "M";
    else if (x >= 1e4)
        x /= 1e3, unit = "k";
    snprintf(out, n, "%.3g%s", x, unit);
}

pn_progress pn_progress_begin(const char *what, int64_t first, int64_t total, const char *unit) {
    pn_progress p = { .unit = unit, .total = total, .done = first, .first = first, .started = pn_seconds() };
    snprintf(p.what, sizeof p.what, "%s", what);
    p.shown = p.started;
    p.terminal = isatty(STDERR_FILENO);
    return p;
}

void pn_progress_update(pn_progress *p, int64_t done, const char *fmt, ...) {
    p->done = done;
    double now = pn_seconds();
    if (now - p->shown < (p->terminal ? terminal_interval : log_interval)) return;
    p->shown = now;
    char note[160], rate_text[32], eta[32], elapsed[32];
    va_list args;
    va_start(args, fmt);
    vsnprintf(note, sizeof note, fmt, args);
    va_end(args);
    double seconds = now - p->started, rate = (double)(done - p->first) / (seconds > 0 ? seconds : 1);
    compact(rate, rate_text, sizeof rate_text);
    double remaining = rate > 0 ? (double)(p->total - done) / rate : 0;
    if (p->terminal) {
        fprintf(stderr, "\r%s %3.0f%%  %s %s/s  %s, %s left  %s\033[K", p->what,
                100.0 * (double)done / (double)(p->total ? p->total : 1), rate_text, p->unit,
                pn_duration_text(seconds, elapsed, sizeof elapsed), pn_duration_text(remaining, eta, sizeof eta), note);
        fflush(stderr);
    } else {
        pn_info("%s %3.0f%%  %s %s/s  %s, %s left  %s", p->what,
                100.0 * (double)done / (double)(p->total ? p->total : 1), rate_text, p->unit,
                pn_duration_text(seconds, elapsed, sizeof elapsed), pn_duration_text(remaining, eta, sizeof eta), note);
    }
}

void pn_progress_end(pn_progress *p) {
    char rate_text[32], elapsed[32], total[32];
    double seconds = pn_seconds() - p->started;
    compact((double)(p->done - p->first) / (seconds > 0 ? seconds : 1e-9), rate_text, sizeof rate_text);
    compact((double)p->done, total, sizeof total);
    if (p->terminal) fputs("\r\033[K", stderr);
    pn_info("%s: %s %s in %s (%s %s/s)", p->what, total, p->unit, pn_duration_text(seconds, elapsed, sizeof elapsed),
            rate_text, p->unit);
}
