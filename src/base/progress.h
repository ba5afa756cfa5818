/* Progress of long work: percent, rate, elapsed and remaining time, and a note of the caller's.
 *
 * On a terminal one line that rewrites itself. Elsewhere logs stay short: a line after ten seconds, then ever rarer
 * ones, down to one a minute. Both have a closing line, unless all was done within a second. Rate and remaining time
 * follow the last seconds, so that a resumed run's quick start does not promise too much. Updating costs a look at
 * the clock. */
#ifndef PN_BASE_PROGRESS_H
#define PN_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "status.h"

typedef struct pn_progress {
    char what[64];
    const char *unit;           /* "tokens", "paths": borrowed */
    int64_t total, done, first; /* first: where this run started (a resumed one is not at 0) */
    double started, next;       /* next: when to show it again */
    double interval;            /* seconds between two lines */
    double shown, rate;         /* when it was last looked at; units per second lately */
    int64_t shown_work;         /* done - first then */
    bool terminal;
} pn_progress;

/* total 0: unknown, no percentage. Shows nothing yet. */
pn_progress pn_progress_begin(const char *what, int64_t first, int64_t total, const char *unit);
void pn_progress_update(pn_progress *p, int64_t done, const char *note_fmt, ...) PN_PRINTF(3, 4);
/* The closing line: what was done, total time and mean rate. */
void pn_progress_end(pn_progress *p);

/* "7", "999", "12.3k", "4.56M": three significant digits at most; returns buffer (at least 16 bytes). */
const char *pn_compact_text(double value, char *buffer, size_t n);

#endif
