/* Time. */
#ifndef PN_BASE_CLOCK_H
#define PN_BASE_CLOCK_H

#include <stddef.h>

double pn_seconds(void);            /* monotonic */
double pn_thread_cpu_seconds(void); /* processor time of the calling thread */
double pn_utc_seconds(void);        /* since 1970, as files' times are; may be set back */
/* "2026-01-31T12:34:56Z" into buffer (at least 24 bytes); returns buffer. */
const char *pn_utc_text(char *buffer, size_t n);
/* "3 s", "2 min 5 s", "1 h 4 min", "3 d 2 h" into buffer; returns buffer. */
const char *pn_duration_text(double seconds, char *buffer, size_t n);

#endif
