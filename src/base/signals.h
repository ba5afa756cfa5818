/* SIGINT and SIGTERM ask long work to save and stop (PN_INTERRUPTED); a second one ends the process at once. */
#ifndef PN_BASE_SIGNALS_H
#define PN_BASE_SIGNALS_H

#include <stdbool.h>

void pn_signals_install(void);
bool pn_interrupted(void);

#endif
