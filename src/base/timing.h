/* How long something takes that can be done again: several runs after a warm-up, within a limit of time. */
#ifndef PN_BASE_TIMING_H
#define PN_BASE_TIMING_H

#include <stdint.h>

#include "status.h"

enum { PN_TIMING_MOST_RUNS = 1000, PN_TIMING_LEAST_RUNS = 3 };

typedef struct pn_timing { /* seconds of one run */
    double median, least, most;
    int64_t runs; /* timed; of very short ones each is the mean of several */
} pn_timing;

typedef struct pn_timing_rule {
    double (*clock)(void); /* seconds: pn_timing_clock() */
    int64_t warm;          /* runs before, at least 1 */
    int64_t runs;          /* at most PN_TIMING_MOST_RUNS */
    double seconds;        /* no more runs after so many, but PN_TIMING_LEAST_RUNS within three times as many */
    double sample;         /* seconds of one timing: shorter runs are timed several together; 0: 0.2 ms */
} pn_timing_rule;

/* The clock for the threads there are: of one thread its own processor time, so that time slices of other programs do
 * not count; of several the time on the wall. */
double (*pn_timing_clock(void))(void);
const char *pn_timing_clock_name(void);

/* PN_INTERRUPTED when a signal asks to stop; else what run says. */
pn_status pn_time_runs(const pn_timing_rule *rule, pn_status (*run)(void *ctx), void *ctx, pn_timing *out);

#endif
