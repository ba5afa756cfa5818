/* SIGINT, SIGTERM, SIGUSR1 and a time limit ask long work to save and stop (PN_INTERRUPTED); a second signal ends the
 * process at once, unless it comes with the first, as those of timeout(1) do: to the process, then to its group.
 * SIGUSR1 is for launchers: mpirun passes it on, and at SIGTERM gives its processes a second to live. */
#ifndef PN_BASE_SIGNALS_H
#define PN_BASE_SIGNALS_H

#include <stdbool.h>
#include <stdint.h>

void pn_signals_install(void);
/* From so many seconds after now on, pn_interrupted answers as after a signal; 0: no longer. */
void pn_interrupt_in(double seconds);
bool pn_interrupted(void);
/* "a signal", or "the time limit". */
const char *pn_interruption(void);
/* For tests of resuming: from the n-th question on, pn_interrupted answers as after a signal. 0: no longer. */
void pn_interrupt_after(int64_t n);

#endif
