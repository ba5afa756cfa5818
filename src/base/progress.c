#include "progress.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "buffer.h"
#include "clock.h"
#include "log.h"

static const double terminal_interval = 0.2, log_interval = 10, longest_interval = 60, growth = 1.5;
static const double memory = 20;   /* seconds that rate and remaining time look back */
static const double too_short = 1; /* seconds of work that need no closing line */

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
    p.terminal = pn_log_on_terminal();
    p.interval = p.terminal ? terminal_interval : log_interval;
    p.next = p.started + p.interval;
    p.shown = p.started;
    return p;
}

/* Units per second, weighted by age with a time constant of `memory`, or of half the time so far while that is shorter.
 */
static void look(pn_progress *p, double now) {
    int64_t work = p->done - p->first;
    double seconds = now - p->shown, constant = fmin(memory, (now - p->started) / 2);
    if (seconds <= 0) return;
    double lately = (double)(work - p->shown_work) / seconds;
    p->rate = p->shown == p->started ? lately : p->rate + (1 - exp(-seconds / constant)) * (lately - p->rate);
    p->shown = now;
    p->shown_work = work;
}

static void describe(const pn_progress *p, double seconds, pn_buf *out) {
    char done[24], total[24], speed[24], elapsed[48], left[48];
    pn_buf_text(out, p->what);
    if (p->total > 0) pn_buf_printf(out, " %3d%%", (int)fmin(100, 100.0 * (double)p->done / (double)p->total));
    pn_buf_printf(out, "  %s", pn_compact_text((double)p->done, done, sizeof done));
    if (p->total > 0) pn_buf_printf(out, " of %s", pn_compact_text((double)p->total, total, sizeof total));
    pn_buf_printf(out, " %s  %s/s  %s", p->unit, pn_compact_text(p->rate, speed, sizeof speed),
                  pn_duration_text(seconds, elapsed, sizeof elapsed));
    if (p->total > p->done && p->rate > 0)
        pn_buf_printf(out, ", %s left", pn_duration_text((double)(p->total - p->done) / p->rate, left, sizeof left));
}

void pn_progress_update(pn_progress *p, int64_t done, const char *fmt, ...) {
    p->done = done;
    double now = pn_seconds();
    if (now < p->next) return;
    look(p, now);
    if (!p->terminal) p->interval = fmin(growth * p->interval, longest_interval);
    p->next = now + p->interval;
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
    char rate[24], elapsed[48], done[24], now[24];
    double seconds = pn_seconds() - p->started;
    if (seconds < too_short) {
        pn_log_status_line(NULL);
        return;
    }
    double work = (double)(p->done - p->first);
    pn_compact_text((double)p->done, done, sizeof done);
    pn_compact_text(work, now, sizeof now);
    pn_compact_text(work / seconds, rate, sizeof rate);
    pn_duration_text(seconds, elapsed, sizeof elapsed);
    if (p->first)
        pn_info("%s: %s %s, %s of them now in %s (%s/s)", p->what, done, p->unit, now, elapsed, rate);
    else
        pn_info("%s: %s %s in %s (%s/s)", p->what, done, p->unit, elapsed, rate);
}
