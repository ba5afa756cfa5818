#include "check_report.h"

#include <math.h>
#include <stdarg.h>

pn_row pn_row_start(const char *subject, const char *impl) {
    return (pn_row){ .subject = subject, .impl = impl, .ok = true };
}

static void add(pn_row *r, const char *format, ...) PN_PRINTF(2, 3);
static void add(pn_row *r, const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (r->len < sizeof r->text) {
        int n = vsnprintf(r->text + r->len, sizeof r->text - r->len, format, args);
        if (n > 0) r->len += (size_t)n;
    }
    va_end(args);
}

static void add_error(pn_row *r, const char *what, double error, double limit) {
    bool ok = error <= limit; /* false for NaN */
    r->ok = r->ok && ok;
    add(r, " %s %.1e/%.0e%s", what, error, limit, ok ? "" : "!");
}

void pn_row_error(pn_row *r, const char *what, double error, double limit) {
    add_error(r, what, error, limit);
}

void pn_row_worst(pn_row *r, const char *what, const pn_worst *w, double limit) {
    if (!w->n) return;
    add_error(r, what, w->error, limit);
    add(r, " (%s)", w->name);
}

void pn_row_fail(pn_row *r, const char *format, ...) {
    char reason[512];
    va_list args;
    va_start(args, format);
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    r->ok = false;
    add(r, " %s", reason);
}

void pn_row_end(pn_report *report, const pn_row *r) {
    fprintf(report->out, "%s  %s | %s |%s\n", r->ok ? "ok  " : "FAIL", r->subject, r->impl, r->text);
    *(r->ok ? &report->passed : &report->failed) += 1;
}

void pn_row_skip(pn_report *report, const char *subject, const char *why) {
    fprintf(report->out, "-     %s | %s\n", subject, why);
}

void pn_worst_take(pn_worst *w, const char *name, double error) {
    if (w->n && !(error > w->error) && !isnan(error)) {
        w->n++;
        return;
    }
    if (w->n && isnan(w->error)) return;
    w->n++;
    w->error = error;
    snprintf(w->name, sizeof w->name, "%s", name);
}

pn_status pn_report_end(const pn_report *report) {
    fprintf(report->out, "%d passed, %d failed\n", report->passed, report->failed);
    fflush(report->out);
    PN_CHECK(!report->failed, PN_MISMATCH, "%d of %d checks failed", report->failed, report->passed + report->failed);
    return PN_OK;
}
