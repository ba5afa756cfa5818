#include "progress.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "buffer.h"
#include "clock.h"
#include "log.h"

static const double terminal_interval = 0.2, first_interval = 1, log_interval = 10;

const char *pn_compact_text(double x, char *buffer, size_t n) {
    static const char *const units[] = { "", "k", "M", "G", "T" };
    size_t u = 0;
    while (x >= 999.5 && u + 1 < sizeof units / sizeof *units) {
        x /= 1000;
        u++;
    }
    snprintf(buffer, n, "%.*f", x >= 99.95 || (u == 0 && x == (int64_t)x) ? 0 : x >= 9.995 ? 1 : 2, x);
    strncat(buffer, units[u], n - strlen(buffer) - 1);
    return buffer;
}

pn_progress pn_progress_begin(const char *what, int64_t first, int64_t total, const char *unit) {
    pn_progress p = { .unit = unit, .total = total, .done = first, .first = first, .started = pn_seconds() };
    snprintf(p.what, sizeof p.what, "%s", what);
    p.terminal = isatty(STDERR_FILENO);
    p.next = p.started + (p.terminal ? terminal_interval : first_interval);
    return p;
}

static double rate_of(const pn_progress *p, double seconds) {
    return seconds > 0 ? (double)(p->done - p->first) / seconds : 0;
}

static void describe(const pn_progress *p, double seconds, pn_buf *out) {
    char done[24], total[24], speed[24], elapsed[48], left[48];
    double rate = rate_of(p, seconds);
    pn_buf_text(out, p->what);
    if (p->total > 0) pn_buf_printf(out, " %3d%%", (int)(100.0 * (double)p->done / (double)p->total));
    pn_buf_printf(out, "  %s", pn_compact_text((double)p->done, done, sizeof done));
    if (p->total > 0) pn_buf_printf(out, " of %s", pn_compact_text((double)p->total, total, sizeof total));
    pn_buf_printf(out, " %s  %s/s  %s", p->unit, pn_compact_text(rate, speed, sizeof speed),
                  pn_duration_text(seconds, elapsed, sizeof elapsed));
    if (p->total > p->done && rate > 0)
        pn_buf_printf(out, ", %s left", pn_duration_text((double)(p->total - p->done) / rate, left, sizeof left));
}

void pn_progress_update(pn_progress *p, int64_t done, const char *fmt, ...) {
    p->done = done;
    double now = pn_seconds();
    if (now < p->next) return;
    p->next = now + (p->terminal ? terminal_interval : log_interval);
    pn_buf line = { 0 };
    describe(p, now - p->started, &line);
    pn_buf_text(&line, "  ");
    va_list args;
    va_start(args, fmt);
    pn_buf_vprintf(&line, fmt, args);
    va_end(args);
    if (p->terminal)
        pn_log_status_line(pn_buf_string(&line));
    else
        pn_info("%s", pn_buf_string(&line));
    pn_buf_free(&line);
}

void pn_progress_end(pn_progress *p) {
    char rate[24], elapsed[48], done[24];
    double seconds = pn_seconds() - p->started;
    pn_info("%s: %s %s in %s (%s/s)", p->what, pn_compact_text((double)p->done, done, sizeof done), p->unit,
            pn_duration_text(seconds, elapsed, sizeof elapsed),
            pn_compact_text(rate_of(p, seconds), rate, sizeof rate));
}
