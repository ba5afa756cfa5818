/* Where the time of training goes: calls, seconds and cost() of every implementation that tapes run, by direction, and
 * of the optimizer.
 *
 * Off by default, when it costs a test per op. One profile per process, of the thread that runs the tapes; its parallel
 * regions are inside the times. */
#ifndef PN_AUTOGRAD_PROFILE_H
#define PN_AUTOGRAD_PROFILE_H

#include "op.h"

typedef struct pn_profile_row {
    const char *name; /* of the implementation, or "adamw" */
    bool backward;
    int64_t calls;
    double seconds;
    pn_op_cost cost;
} pn_profile_row;

/* Forgets everything and begins; clock gives seconds (pn_seconds, or pn_thread_cpu_seconds for one thread). */
void pn_profile_start(double (*clock)(void));
void pn_profile_stop(void);
bool pn_profile_runs(void);
/* What was measured since the start, the longest first; valid until the next start. */
const pn_profile_row *pn_profile_rows(int *n);

/* For what is measured: the time when it begins (0 while no profile runs) ... */
double pn_profile_begin(void);
/* ... and when it has ended. cost may be NULL. Nothing while no profile runs. */
void pn_profile_end(double began, const char *name, bool backward, const pn_op_cost *cost);

#endif
