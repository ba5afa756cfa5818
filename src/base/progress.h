/* Progress of long work: percent, rate, elapsed and remaining time, and a note of the caller's.
 *
 * On a terminal one line that rewrites itself; elsewhere a line every ten seconds, so that logs stay short. */
#ifndef PN_BASE_PROGRESS_H
#define PN_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "status.h"

typedef struct pn_progress {
    char what[64];
    const char *unit;           /* "tokens", "paths": borrowed */
    int64_t total, done, first; /* first: where this run started (a resumed one is not at 0) */
    double started, shown;
    bool terminal;
} pn_progress;

pn_progress pn_progress_begin(const char *what, int64_t first, int64_t total, const char *unit);
void pn_progress_update(pn_progress *p, int64_t done, const char *note_fmt, ...) PN_PRINTF(3, 4);
/* The closing line: total time and rate. */
void pn_progress_end(pn_progress *p);

#endif
